// Planning: the search for factors, the profile of a layer, budgets, selection with an end-to-end
// score, and the decisions on both sides of every threshold.

// ---- the search for factors

// Published costs of single shapes: 11008 x 4096 and its transpose at rank 64.
static void plan_test_macs(void) {
  static const struct { int rows[4], cols[4], order, rank; double macs; } known[] = {
      {{43, 16, 16}, {16, 16, 16}, 3, 64, 284e6}, {{16, 16, 43}, {16, 16, 16}, 3, 64, 744e6},
      {{16, 16, 16}, {16, 16, 43}, 3, 64, 284e6}, {{16, 16, 16}, {43, 16, 16}, 3, 64, 744e6},
      {{32, 4, 32}, {32, 4, 32}, 3, 64, 84e6},    {{16, 16, 16}, {16, 16, 16}, 3, 64, 277e6},
      {{8, 8, 8, 8}, {8, 8, 8, 8}, 4, 16, 17.85e6}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    tt_shape shape = test_shape(known[i].order, known[i].rows, known[i].cols, NULL);
    CHECK_STATUS(tt_shape_clip(&shape, known[i].rank), TT_OK);
    CHECK_CLOSE((double)tt_shape_macs(&shape) / known[i].macs, 1, 0.005);
  }
  int rows[4] = {4, 16, 1, 1}, cols[4] = {1, 1, 4, 16}, ranks[5] = {1, 4, 8, 8, 1};
  tt_shape shape = test_shape(4, rows, cols, ranks), turned = test_shape(4, cols, rows, ranks);
  CHECK(tt_shape_macs(&shape) == 3072 / 2 && tt_shape_macs(&turned) == 804864 / 2);
  int ends[3] = {32, 4, 32};
  shape = test_shape(3, ends, ends, NULL);
  tt_shape_clip(&shape, 64);
  CHECK_CLOSE(100.0 * (double)tt_shape_params(&shape) / 4096 / 4096, 1.17, 0.005);
  CHECK(tt_shape_macs(NULL) == -1);
  shape.rows[0] = shape.rows[1] = shape.rows[2] = shape.cols[0] = INT_MAX;
  CHECK(tt_shape_macs(&shape) == -1);
  shape.order = 0;
  CHECK(tt_shape_macs(&shape) == -1);
}

// What the forward pass counts is what the shape says, for every shape of the table.
static void plan_test_macs_of_trains(void) {
  for (int i = 0; i < SHAPE_TABLE_SIZE; i++) {
    tt_shape shape = shape_of_table(i);
    tt_shape_clip(&shape, 3);
    tt_matrix w = test_train(&shape);
    CHECK(tt_shape_macs(&shape) == tt_apply_macs(&w, 1));
    tt_free(&w);
  }
}

// Every result covers the size, is cheap in its own order of cores, and is not dominated.
static void plan_check_search(ptrdiff_t rows, ptrdiff_t cols, int order, int rank) {
  tt_shape found[64];
  int count = 64;
  CHECK_STATUS(tt_shape_search(rows, cols, order, rank, NULL, found, &count), TT_OK);
  for (int i = 0; i < count; i++) {
    tt_shape turned = found[i];
    CHECK_STATUS(tt_shape_check(&found[i], rows, cols), TT_OK);
    CHECK(shape_rows(&found[i]) <= rows + rows / 16 && shape_cols(&found[i]) <= cols + cols / 16);
    for (int k = 0; k < order; k++) {
      turned.rows[k] = found[i].rows[order - 1 - k];
      turned.cols[k] = found[i].cols[order - 1 - k];
      CHECK(found[i].rows[k] * found[i].cols[k] > 1 && found[i].ranks[k] <= rank);
    }
    for (int k = 0; k <= order; k++) turned.ranks[k] = found[i].ranks[order - k];
    CHECK(tt_shape_macs(&found[i]) <= tt_shape_macs(&turned));
    if (i) CHECK(tt_shape_params(&found[i]) > tt_shape_params(&found[i - 1]));
    if (i) CHECK(tt_shape_macs(&found[i]) < tt_shape_macs(&found[i - 1]));
  }
}

static void plan_test_search(void) {
  static const int sizes[][2] = {{64, 64},     {384, 1536},  {1536, 384}, {4096, 4096},
                                 {11008, 4096}, {127, 61}, {50257, 768}, {12, 10}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int order = 1; order <= 4; order++)
      for (int rank = 1; rank <= 64; rank *= 8)
        plan_check_search(sizes[i][0], sizes[i][1], order, rank);
  tt_shape best[64];
  int count = 64;
  // big end sites and a small middle: 1.17 % of 4096 x 4096 at rank 64
  CHECK_STATUS(tt_shape_search(4096, 4096, 3, 64, NULL, best, &count), TT_OK);
  CHECK(tt_shape_params(&best[0]) == 196608 && best[0].rows[1] * best[0].cols[1] == 16);
  CHECK_AT_MOST((double)tt_shape_macs(&best[0]), 84e6);
  // no worse than the balanced shape in either count
  count = 64;
  CHECK_STATUS(tt_shape_search(11008, 4096, 3, 64, NULL, best, &count), TT_OK);
  CHECK_AT_MOST((double)tt_shape_macs(&best[0]), 284e6);
  CHECK(best[0].rows[0] > best[0].cols[0] && best[0].rows[2] < best[0].cols[2]);
}

// All pairs of factors of 12 x 18 in two cores, by hand.
static void plan_test_search_is_complete(void) {
  tt_shape found[64];
  int count = 64;
  CHECK_STATUS(tt_shape_search(12, 18, 2, 2, NULL, found, &count), TT_OK);
  for (int m = 1; m <= 12; m++)
    for (int n = 1; n <= 18; n++) {
      int rows[2] = {m, 12 / m}, cols[2] = {n, 18 / n}, beaten = 0;
      double mean = sqrt(12.0 / 18), first = (double)m / n / mean;
      double second = (double)rows[1] / cols[1] / mean;
      if (12 % m || 18 % n || m * n == 1 || rows[1] * cols[1] == 1) continue;
      if (first > 4 || first < 0.25 || second > 4 || second < 0.25) continue;
      tt_shape shape = test_shape(2, rows, cols, NULL);
      tt_shape_clip(&shape, 2);
      for (int i = 0; i < count; i++)
        beaten |= tt_shape_params(&found[i]) <= tt_shape_params(&shape) &&
                  tt_shape_macs(&found[i]) <= tt_shape_macs(&shape);
      CHECK(beaten);
    }
}

static void plan_test_search_errors(void) {
  tt_shape found[64], *none = NULL;
  int count = 1;
  CHECK_STATUS(tt_shape_search(4096, 4096, 3, 64, NULL, found, &count), TT_ERROR_INVALID);
  CHECK(count > 1 && count < 64); // what is needed
  CHECK_STATUS(tt_shape_search(4096, 4096, 3, 64, NULL, none, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_search(4096, 4096, 3, 64, NULL, found, &count), TT_OK);
  CHECK_STATUS(tt_shape_search(4096, 4096, 3, 64, NULL, found, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_search(0, 4096, 3, 64, NULL, found, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_search(64, -1, 3, 64, NULL, found, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_search(64, 64, 0, 64, NULL, found, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_search(64, 64, TT_MAX_ORDER + 1, 4, NULL, found, &count),
               TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_search(64, 64, 2, 0, NULL, found, &count), TT_ERROR_INVALID);
  count = 64;
  CHECK_STATUS(tt_shape_search(7, 3, 8, 2, NULL, found, &count), TT_ERROR_UNSUPPORTED);
  CHECK(count == 0);
  for (int order = 1; order <= TT_MAX_ORDER; order++) { // large and awkward sizes end soon
    count = 64;
    tt_status status = tt_shape_search(510510, 510510, order, 4, NULL, found, &count);
    CHECK(status == TT_OK || status == TT_ERROR_UNSUPPORTED);
    count = 64;
    status = tt_shape_search(INT_MAX, INT_MAX, order, 4, NULL, found, &count);
    CHECK(status == TT_OK || status == TT_ERROR_UNSUPPORTED);
  }
  test_heap heap;
  tt_options options = test_options();
  long calls = 0;
  for (long n = 0; n <= calls; n++) {
    options.allocator = test_allocator(&heap);
    heap.fail_at = n;
    count = 64;
    CHECK_STATUS(tt_shape_search(384, 1536, 3, 8, &options, found, &count),
                 n ? TT_ERROR_MEMORY : TT_OK);
    if (n == 0) calls = heap.calls;
    CHECK(heap.live_blocks == 0);
  }
}

// ---- bonds and profiles

// A layer with a falling spectrum and correlated inputs with a mean, and its statistics.
typedef struct plan_layer {
  int rows, cols;
  float *w, *bias;
  tt_inputs *inputs, *heldout;
} plan_layer;

static tt_inputs *plan_inputs(int cols, const float *mix, int batch) {
  tt_inputs *made;
  CHECK_STATUS(tt_inputs_create(cols, NULL, &made), TT_OK);
  float *x = test_floats((ptrdiff_t)batch * cols);
  for (int b = 0; b < batch; b++)
    for (int k = 0; k < cols; k++) {
      float value = (float)test_normal();
      for (int j = 0; j < cols; j++) x[b * cols + j] += value * mix[k * cols + j];
    }
  for (int i = 0; i < batch * cols; i++) x[i] += (float)(i % cols) / (float)cols;
  CHECK_STATUS(tt_inputs_add(made, x, batch), TT_OK);
  free(x);
  return made;
}

static plan_layer plan_new_layer(int rows, int cols) {
  plan_layer layer = {rows, cols, test_floats(rows * cols), test_normal_floats(rows), NULL, NULL};
  float *left = test_normal_floats(rows * cols), *right = test_normal_floats(cols * cols);
  for (int i = 0; i < rows; i++)
    for (int k = 0; k < cols; k++)
      for (int j = 0; j < cols; j++)
        layer.w[i * cols + j] += left[i * cols + k] * right[k * cols + j] / (float)(1 + k);
  for (int i = 0; i < cols * cols; i++) right[i] /= (float)(1 + i / cols);
  layer.inputs = plan_inputs(cols, right, 200);
  layer.heldout = plan_inputs(cols, right, 100);
  free(left);
  free(right);
  return layer;
}

static void plan_free_layer(plan_layer *layer) {
  free(layer->w);
  free(layer->bias);
  tt_inputs_free(layer->inputs);
  tt_inputs_free(layer->heldout);
}

static void plan_test_tail_rank(void) {
  double values[4] = {8, 4, 2, 1};                           // squares 64 16 4 1 of 85
  CHECK(tt_tail_rank(values, 4, 0) == 4 && tt_tail_rank(values, 4, 1) == 0);
  CHECK(tt_tail_rank(values, 4, sqrt(1.0 / 85) * 0.999) == 4);
  CHECK(tt_tail_rank(values, 4, sqrt(1.0 / 85) * 1.001) == 3);
  CHECK(tt_tail_rank(values, 4, sqrt(5.0 / 85) * 1.001) == 2);
  CHECK(tt_tail_rank(values, 4, sqrt(21.0 / 85) * 1.001) == 1);
  CHECK(tt_tail_rank(values, 0, 0) == 0 && tt_tail_rank(NULL, 4, 0) == 0);
  CHECK(tt_tail_rank(values, 4, (double)NAN) == 4);
  for (int i = 0; i < 4; i++) values[i] *= 1e200;
  CHECK(tt_tail_rank(values, 4, 0.1) == 4 && tt_tail_rank(values, 4, 0.11) == 3);
  for (int i = 0; i < 4; i++) values[i] = 0;
  CHECK(tt_tail_rank(values, 4, 0.1) == 0);
}

// Bonds of the uncut matrix: those of the full-rank train; a Gaussian one lies near Page's value.
static void plan_test_bonds(void) {
  float *gauss = test_normal_floats(96 * 64), *decayed = test_floats(96 * 64);
  for (int i = 0; i < 96 * 64; i++)
    decayed[i] = i % 65 ? 0 : (float)pow(0.8, (double)(i / 65)); // on the diagonal
  for (int order = 2; order <= 4; order++) {
    tt_shape shape;
    tt_matrix train;
    tt_bond bonds[3];
    double values[512];
    CHECK_STATUS(tt_shape_factor(96, 64, order, &shape), TT_OK);
    CHECK_STATUS(tt_compress(gauss, 96, 64, &shape, NULL, &train, NULL), TT_OK);
    CHECK_STATUS(tt_bonds(gauss, 96, 64, &shape, NULL, bonds), TT_OK);
    for (int k = 0; k + 1 < order; k++) {
      int count = 512;
      CHECK_STATUS(tt_spectrum(&train, k, values, &count), TT_OK);
      double left = shape_legs(&shape, 0, k + 1), right = shape_legs(&shape, k + 1, order);
      double a = left < right ? left : right, b = left < right ? right : left;
      CHECK_CLOSE(bonds[k].entropy, tt_entropy(values, count, 1), 1e-5);
      CHECK_CLOSE(bonds[k].effective_rank, exp(bonds[k].entropy), 1e-9 * count);
      CHECK_CLOSE(bonds[k].share, bonds[k].entropy / log(a), 1e-12);
      CHECK_AT_MOST(bonds[k].entropy, log(a) + 1e-9);
      CHECK_CLOSE(bonds[k].entropy, log(a) - a / (2 * b), 0.03);
      CHECK_CLOSE(bonds[k].gaussian_entropy, log(a) - a / (2 * b), 0.03);
      CHECK_CLOSE(bonds[k].gaussian_effective_rank, exp(bonds[k].gaussian_entropy), 1e-9 * a);
      CHECK(bonds[k].tail_ranks[0] <= bonds[k].tail_ranks[1] && bonds[k].tail_ranks[1] <= a);
    }
    tt_free(&train);
  }
  int rows[2] = {96, 1}, cols[2] = {1, 64};
  tt_shape low = test_shape(2, rows, cols, NULL);
  tt_bond bond;
  CHECK_STATUS(tt_bonds(decayed, 96, 64, &low, NULL, &bond), TT_OK);
  double p = 1 - 0.64, expected = -log(p) - log(0.64) * 0.64 / p; // a geometric spectrum
  CHECK_CLOSE(bond.entropy, expected, 1e-6);
  CHECK(bond.tail_ranks[0] == (int)ceil(log(0.1) / log(0.8)));
  CHECK(bond.tail_ranks[1] == (int)ceil(log(0.01) / log(0.8)));
  CHECK(bond.entropy < bond.gaussian_entropy);
  memset(decayed, 0, sizeof(float) * 96 * 64);
  CHECK_STATUS(tt_bonds(decayed, 96, 64, &low, NULL, &bond), TT_OK);
  CHECK(bond.entropy == 0 && bond.effective_rank == 1 && bond.tail_ranks[0] == 0);
  int one[1] = {96}, wide[1] = {64};
  tt_shape dense = test_shape(1, one, wide, NULL);
  CHECK_STATUS(tt_bonds(decayed, 96, 64, &dense, NULL, NULL), TT_OK); // no bond
  CHECK_STATUS(tt_bonds(decayed, 96, 64, &low, NULL, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_bonds(NULL, 96, 64, &low, NULL, &bond), TT_ERROR_INVALID);
  CHECK_STATUS(tt_bonds(decayed, 96, 64, NULL, NULL, &bond), TT_ERROR_INVALID);
  CHECK_STATUS(tt_bonds(decayed, 97, 64, &low, NULL, &bond), TT_ERROR_SHAPE);
  decayed[7] = NAN;
  CHECK_STATUS(tt_bonds(decayed, 96, 64, &low, NULL, &bond), TT_ERROR_NONFINITE);
  free(gauss);
  free(decayed);
}

// What a profile says of a candidate is true of the train that it rebuilds.
static void plan_check_candidate(const plan_layer *layer, const tt_profile *profile, int i,
                                 const tt_options *options, const tt_inputs *heldout) {
  const tt_candidate *c = &profile->candidates[i];
  ptrdiff_t count = (ptrdiff_t)layer->rows * layer->cols;
  double *dense = test_doubles(count), *exact = test_doubles(count), error;
  tt_matrix train;
  CHECK_STATUS(tt_profile_train(profile, i, layer->w, options, &train), TT_OK);
  CHECK(tt_stored_size(&train) == c->bytes && tt_apply_macs(&train, 1) == c->macs);
  CHECK(tt_shape_params(&train.shape) == c->params && train.cores[0].dtype == c->dtype);
  CHECK(!memcmp(&train.shape, &c->shape, sizeof c->shape));
  CHECK_STATUS(tt_expand_f64(&train, dense), TT_OK);
  for (ptrdiff_t j = 0; j < count; j++) exact[j] = (double)layer->w[j];
  CHECK_CLOSE(c->weight_error, test_distance(count, dense, exact), 1e-12);
  error = c->weight_error;
  if (options->inputs) {
    CHECK_STATUS(tt_functional_error(&train, layer->w, options->bias, options->inputs, &error),
                 TT_OK);
    CHECK_CLOSE(c->calibration_error, error, 1e-12);
  }
  if (heldout) {
    CHECK_STATUS(tt_functional_error(&train, layer->w, options->bias, heldout, &error), TT_OK);
    CHECK_CLOSE(c->heldout_error, error, 1e-12);
  }
  CHECK_CLOSE(c->error, error, 1e-12);
  for (int k = 0; k + 1 < c->shape.order; k++) {
    CHECK_AT_MOST(c->bonds[k].entropy, c->bonds[k].share > 0 ? 1e9 : 1e-9);
    CHECK_AT_MOST(c->bonds[k].share, 1 + 1e-9);
    CHECK(c->bonds[k].gaussian_entropy > 0);
  }
  tt_free(&train);
  free(dense);
  free(exact);
}

static void plan_check_profile(int rows, int cols, int with_bias, int with_inputs,
                               int with_heldout) {
  plan_layer layer = plan_new_layer(rows, cols);
  tt_options options = test_options();
  tt_profile *profile;
  options.bias = with_bias ? layer.bias : NULL;
  options.inputs = with_inputs ? layer.inputs : NULL;
  const tt_inputs *heldout = with_heldout ? layer.heldout : NULL;
  int seen[TT_TT_QUANT + 1] = {0};
  CHECK_STATUS(tt_profile_create(layer.w, rows, cols, heldout, NULL, 0, &options, &profile), TT_OK);
  for (int i = 0; i < profile->count; i++) {
    const tt_candidate *c = &profile->candidates[i];
    seen[c->action]++;
    if (i < 5 || i % 4 == 0) plan_check_candidate(&layer, profile, i, &options, heldout);
    if (c->action >= TT_SVD) CHECK_AT_MOST((double)c->params, 0.5 * rows * cols);
  }
  CHECK(seen[TT_KEEP_DENSE] == 2 && seen[TT_QUANT_ONLY] == 3 && seen[TT_SVD] > 0);
  CHECK(seen[TT_SVD_QUANT] == 2 * seen[TT_SVD] && seen[TT_TT_QUANT] == 2 * seen[TT_TT]);
  const tt_candidate *dense = profile->candidates;
  CHECK(dense[0].dtype == TT_F32 && dense[0].weight_error == 0);
  CHECK_AT_MOST(dense[0].error, 1e-6);
  for (int i = 1; i < 5; i++) {                              // F32, F16, INT8, INT4, INT3
    CHECK(dense[i].bytes < dense[i - 1].bytes);
    CHECK_AT_MOST(dense[i - 1].error, dense[i].error + 1e-6);
  }
  tt_profile_free(profile);
  plan_free_layer(&layer);
}

static void plan_test_profiles(void) {
  for (int mask = 0; mask < 8; mask++)
    plan_check_profile(24, 20, mask & 1, mask >> 1 & 1, mask >> 2 & 1);
  plan_check_profile(13, 31, 1, 1, 1);                       // padded
  tt_profile *profile;
  float vector[6] = {1, 2, 3, 4, 5, 6};
  CHECK_STATUS(tt_profile_create(vector, 1, 6, NULL, NULL, 0, NULL, &profile), TT_OK);
  CHECK(profile->count == 5);                                // nothing to factorise
  tt_profile_free(profile);
  CHECK_STATUS(tt_profile_create(vector, 1, 1, NULL, NULL, 0, NULL, &profile), TT_OK);
  tt_profile_free(profile);
}

// The error of a truncated SVD is its discarded tail.
static void plan_test_svd_tail(void) {
  plan_layer layer = plan_new_layer(40, 24);
  float values[24];
  tt_profile *profile;
  CHECK_STATUS(tt_svd(layer.w, 40, 24, NULL, values, NULL, NULL), TT_OK);
  CHECK_STATUS(tt_profile_create(layer.w, 40, 24, NULL, NULL, 0, NULL, &profile), TT_OK);
  int checked = 0;
  for (int i = 0; i < profile->count; i++) {
    const tt_candidate *c = &profile->candidates[i];
    double tail = 0, all = 0;
    for (int j = 0; j < 24; j++) {
      double square = (double)values[j] * (double)values[j];
      all += square;
      if (j >= c->shape.ranks[1]) tail += square;
    }
    if (c->action != TT_SVD) continue;
    CHECK_CLOSE(c->weight_error, sqrt(tail / all), 1e-5);
    CHECK(c->shape.ranks[1] * (40 + 24) <= 480);
    checked++;
  }
  CHECK(checked == 4);
  tt_profile_free(profile);
  plan_free_layer(&layer);
}

static void plan_test_profile_errors(void) {
  plan_layer layer = plan_new_layer(6, 5);
  tt_options options = test_options(), bad = options;
  double kept[1] = {0.5}, wrong[3] = {0, 1.5, (double)NAN};
  tt_profile *profile = (tt_profile *)&layer;
  tt_matrix train;
  CHECK_STATUS(tt_profile_create(NULL, 6, 5, NULL, kept, 1, NULL, &profile), TT_ERROR_INVALID);
  CHECK(profile == NULL);
  CHECK_STATUS(tt_profile_create(layer.w, 0, 5, NULL, kept, 1, NULL, &profile), TT_ERROR_INVALID);
  CHECK_STATUS(tt_profile_create(layer.w, 6, -5, NULL, kept, 1, NULL, &profile), TT_ERROR_INVALID);
  CHECK_STATUS(tt_profile_create(layer.w, 6, 5, NULL, kept, -1, NULL, &profile), TT_ERROR_INVALID);
  CHECK_STATUS(tt_profile_create(layer.w, 6, 5, NULL, kept, 17, NULL, &profile), TT_ERROR_INVALID);
  CHECK_STATUS(tt_profile_create(layer.w, 6, 5, NULL, kept, 1, NULL, NULL), TT_ERROR_INVALID);
  for (int i = 0; i < 3; i++)
    CHECK_STATUS(tt_profile_create(layer.w, 6, 5, NULL, wrong + i, 1, NULL, &profile),
                 TT_ERROR_INVALID);
  bad.method = 99;
  CHECK_STATUS(tt_profile_create(layer.w, 6, 5, NULL, kept, 1, &bad, &profile), TT_ERROR_INVALID);
  plan_layer other = plan_new_layer(5, 6);
  CHECK_STATUS(tt_profile_create(layer.w, 6, 5, other.heldout, kept, 1, NULL, &profile),
               TT_ERROR_INVALID); // inputs of another width
  plan_free_layer(&other);
  CHECK_STATUS(tt_profile_create(layer.w, 6, 5, NULL, kept, 1, NULL, &profile), TT_OK);
  CHECK_STATUS(tt_profile_train(profile, -1, layer.w, NULL, &train), TT_ERROR_INVALID);
  CHECK_STATUS(tt_profile_train(profile, profile->count, layer.w, NULL, &train), TT_ERROR_INVALID);
  CHECK_STATUS(tt_profile_train(profile, 0, NULL, NULL, &train), TT_ERROR_INVALID);
  CHECK_STATUS(tt_profile_train(NULL, 0, layer.w, NULL, &train), TT_ERROR_INVALID);
  CHECK_STATUS(tt_profile_train(profile, 0, layer.w, NULL, NULL), TT_ERROR_INVALID);
  CHECK(train.block == NULL);
  test_heap heap;
  long calls = 0, stride = 1;
  for (long n = 0; n <= calls; n += n ? stride : 1) {        // the n-th allocation fails
    options.allocator = test_allocator(&heap);
    heap.fail_at = n;
    options.inputs = layer.inputs;
    tt_profile *made;
    tt_status status = tt_profile_create(layer.w, 6, 5, NULL, kept, 1, &options, &made);
    CHECK(status == (n ? TT_ERROR_MEMORY : TT_OK) && (made != NULL) == (n == 0));
    if (n == 0) calls = heap.calls, stride = 1 + calls / 300;
    tt_profile_free(made);
    CHECK(heap.live_blocks == 0);
  }
  for (int i = 0; i < profile->count; i++) {
    calls = 0;
    for (long n = 0; n <= calls; n++) {
      options.allocator = test_allocator(&heap);
      heap.fail_at = n;
      CHECK_STATUS(tt_profile_train(profile, i, layer.w, &options, &train),
                   n ? TT_ERROR_MEMORY : TT_OK);
      if (n == 0) calls = heap.calls;
      tt_free(&train);
      CHECK(heap.live_blocks == 0);
    }
  }
  tt_profile_free(profile);
  tt_profile_free(NULL);
  layer.w[3] = NAN;
  CHECK_STATUS(tt_profile_create(layer.w, 6, 5, NULL, kept, 1, NULL, &profile), TT_ERROR_NONFINITE);
  CHECK(profile == NULL);
  plan_free_layer(&layer);
}

static void plan_test_smallest_rank(void) {
  float w[16 * 16] = {0};
  int rows[2] = {16, 1}, cols[2] = {1, 16}, rank;
  double error, total = 0, tail = 0;
  tt_shape shape = test_shape(2, rows, cols, NULL);
  for (int i = 0; i < 16; i++) w[i * 17] = (float)(1.0 / (1 << i)), total += pow(0.25, i);
  for (int r = 15; r >= 1; r--) {                            // just above and just below each tail
    tail += pow(0.25, r);
    CHECK_STATUS(
        tt_smallest_rank(w, 16, 16, &shape, sqrt(tail / total) * 1.001, NULL, &rank, &error), TT_OK);
    CHECK(rank == r);
    CHECK_CLOSE(error, sqrt(tail / total), 1e-6);
    CHECK_STATUS(
        tt_smallest_rank(w, 16, 16, &shape, sqrt(tail / total) * 0.999, NULL, &rank, &error), TT_OK);
    CHECK(rank == r + 1);
  }
  shape.ranks[1] = 3;
  CHECK_STATUS(tt_smallest_rank(w, 16, 16, &shape, 1e-3, NULL, &rank, &error),
               TT_ERROR_UNSUPPORTED);
  CHECK(rank == 3 && error > 0.1);
  CHECK_STATUS(tt_smallest_rank(w, 16, 16, &shape, -1, NULL, &rank, &error), TT_ERROR_INVALID);
  CHECK_STATUS(tt_smallest_rank(w, 16, 16, &shape, (double)NAN, NULL, &rank, &error),
               TT_ERROR_INVALID);
  CHECK_STATUS(tt_smallest_rank(w, 16, 16, &shape, 1, NULL, NULL, &error), TT_ERROR_INVALID);
  CHECK_STATUS(tt_smallest_rank(w, 16, 16, &shape, 1, NULL, &rank, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_smallest_rank(NULL, 16, 16, &shape, 1, NULL, &rank, &error), TT_ERROR_INVALID);
  CHECK_STATUS(tt_smallest_rank(w, 16, 17, &shape, 1, NULL, &rank, &error), TT_ERROR_SHAPE);
  plan_layer layer = plan_new_layer(12, 16);                 // with inputs: functional, bias included
  tt_options options = test_options();
  options.inputs = layer.inputs;
  options.bias = layer.bias;
  CHECK_STATUS(tt_shape_factor(12, 16, 2, &shape), TT_OK);
  for (double bound = 0.4; bound > 0.02; bound /= 2) {
    CHECK_STATUS(tt_smallest_rank(layer.w, 12, 16, &shape, bound, &options, &rank, &error), TT_OK);
    CHECK_AT_MOST(error, bound);
    for (int lower = 0; lower < 2 && rank - lower > 0; lower++) {
      double measured;
      tt_options capped = options;
      tt_matrix train;
      capped.max_rank = rank - lower;
      CHECK_STATUS(tt_compress(layer.w, 12, 16, &shape, &capped, &train, NULL), TT_OK);
      CHECK_STATUS(tt_functional_error(&train, layer.w, layer.bias, layer.inputs, &measured), TT_OK);
      CHECK(lower ? measured > bound : measured <= bound);
      tt_free(&train);
    }
  }
  test_heap heap;
  long calls = 0;
  for (long n = 0; n <= calls; n += n ? 1 + calls / 100 : 1) {
    options.allocator = test_allocator(&heap);
    heap.fail_at = n;
    CHECK_STATUS(tt_smallest_rank(layer.w, 12, 16, &shape, 0.2, &options, &rank, &error),
                 n ? TT_ERROR_MEMORY : TT_OK);
    if (n == 0) calls = heap.calls;
    CHECK(heap.live_blocks == 0);
  }
  plan_free_layer(&layer);
}

static void test_plan(void) {
  plan_test_macs();
  plan_test_macs_of_trains();
  plan_test_search();
  plan_test_search_is_complete();
  plan_test_search_errors();
  plan_test_tail_rank();
  plan_test_bonds();
  plan_test_profiles();
  plan_test_svd_tail();
  plan_test_profile_errors();
  plan_test_smallest_rank();
}
