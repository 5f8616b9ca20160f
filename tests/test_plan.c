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
  shape.cols[0] = shape.cols[1] = shape.cols[2] = 1;         // the rows alone
  shape.ranks[1] = shape.ranks[2] = 1;
  CHECK(tt_shape_macs(&shape) == -1);
  shape.order = 0;
  CHECK(tt_shape_macs(&shape) == -1);
  int one[2] = {5, 2}, two[2] = {3, 7};
  shape = test_shape(2, one, two, NULL);                     // ranks 0 count as 1
  CHECK(tt_shape_macs(&shape) == 15 * 2 + 14 * 3);
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
      double ratio = (double)found[i].rows[k] / found[i].cols[k] /
                     pow((double)rows / (double)cols, 1.0 / order);
      if (rows % 12 == 0 && cols % 12 == 0 && order < 4) // sizes with factors to choose from
        CHECK(ratio <= 4.001 && ratio >= 0.249);
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
  options.max_rank = -1;
  CHECK_STATUS(tt_shape_search(384, 1536, 3, 8, &options, found, &count), TT_ERROR_INVALID);
  options.max_rank = 0;
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

// Moments of 100,000 numbers of two streams: 0, 1, 0, 3, and no correlation between the streams.
static void plan_test_gaussian(void) {
  double sums[5] = {0, 0, 0, 0, 0};
  enum { NUM = 100000 };
  for (int i = 0; i < NUM; i++) {
    double x = tt__random_normal(7, (uint64_t)i), y = tt__random_normal(8, (uint64_t)i);
    sums[0] += x / NUM;
    sums[1] += x * x / NUM;
    sums[2] += x * x * x / NUM;
    sums[3] += x * x * x * x / NUM;
    sums[4] += x * y / NUM;
  }
  CHECK_AT_MOST(fabs(sums[0]), 0.016);                       // five standard deviations each
  CHECK_AT_MOST(fabs(sums[1] - 1), 0.023);
  CHECK_AT_MOST(fabs(sums[2]), 0.062);
  CHECK_AT_MOST(fabs(sums[3] - 3), 0.16);
  CHECK_AT_MOST(fabs(sums[4]), 0.016);
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
  tt_options options = test_options();
  test_heap heap;
  options.epsilon = -1;
  CHECK_STATUS(tt_bonds(gauss, 96, 64, &low, &options, &bond), TT_ERROR_INVALID);
  options.epsilon = 0;
  long calls = 0;
  for (long n = 0; n <= calls; n++) {
    options.allocator = test_allocator(&heap);
    heap.fail_at = n;
    CHECK_STATUS(tt_bonds(gauss, 96, 64, &low, &options, &bond), n ? TT_ERROR_MEMORY : TT_OK);
    if (n == 0) calls = heap.calls;
    CHECK(heap.live_blocks == 0);
  }
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

// Zero, huge and tiny weights: nothing over- or underflows.
static void plan_test_extreme_weights(void) {
  static const float scales[4] = {0, 4e37F, 1e-30F, 1e5F};
  float w[9 * 8];
  for (int s = 0; s < 4; s++) {
    tt_profile *profile;
    for (int i = 0; i < 72; i++) w[i] = scales[s] * (float)(i * i % 17 - 8);
    CHECK_STATUS(tt_profile_create(w, 9, 8, NULL, NULL, 0, NULL, &profile), TT_OK);
    for (int i = 0; i < profile->count; i++) {
      const tt_candidate *c = &profile->candidates[i];
      tt_matrix train;
      CHECK(c->error >= 0 && c->error <= 1.5 && c->bytes > 0);
      CHECK(s > 0 || c->error == 0);
      CHECK_STATUS(tt_profile_train(profile, i, w, NULL, &train), TT_OK);
      CHECK(tt_stored_size(&train) == c->bytes);
      tt_free(&train);
    }
    tt_profile_free(profile);
  }
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
    for (long n = 0; n <= calls; n += n ? 1 + calls / 50 : 1) {
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
    double cut = sqrt(tail / total);
    CHECK_STATUS(tt_smallest_rank(w, 16, 16, &shape, cut * 1.001, NULL, &rank, &error), TT_OK);
    CHECK(rank == r);
    CHECK_CLOSE(error, cut, 1e-6);
    CHECK_STATUS(tt_smallest_rank(w, 16, 16, &shape, cut * 0.999, NULL, &rank, &error), TT_OK);
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
  plan_layer layer = plan_new_layer(12, 16);                 // with inputs: functional
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
      CHECK_STATUS(tt_functional_error(&train, layer.w, layer.bias, layer.inputs, &measured),
                   TT_OK);
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

// ---- budgets

enum { PLAN_LAYERS = 4, PLAN_POINTS = 6 };

// Random layers; some points are dominated, some have equal bytes or equal losses.
static void plan_random_layers(tt_plan_point points[PLAN_LAYERS][PLAN_POINTS],
                               tt_plan_layer *layers) {
  for (int l = 0; l < PLAN_LAYERS; l++) {
    layers[l].points = points[l];
    layers[l].count = 1 + test_below(PLAN_POINTS);
    layers[l].weight = test_below(4) ? test_uniform() * 3 : 1;
    for (int i = 0; i < PLAN_POINTS; i++) {
      points[l][i].bytes = (uint64_t)test_below(40) + 1;
      points[l][i].loss = test_below(5) ? test_uniform() : 0.5;
    }
  }
}

static uint64_t plan_bytes(const tt_plan_layer *layers, const int *choice, double *loss) {
  uint64_t bytes = 0;
  *loss = 0;
  for (int l = 0; l < PLAN_LAYERS; l++) {
    bytes += layers[l].points[choice[l]].bytes;
    *loss += layers[l].weight * layers[l].points[choice[l]].loss;
  }
  return bytes;
}

// Least loss of all choices within the budget; HUGE_VAL if there is none.
static double plan_brute_force(const tt_plan_layer *layers, uint64_t budget) {
  double best = HUGE_VAL, loss;
  for (int all = 0; all < PLAN_POINTS * PLAN_POINTS * PLAN_POINTS * PLAN_POINTS; all++) {
    int choice[PLAN_LAYERS], rest = all, valid = 1;
    for (int l = 0; l < PLAN_LAYERS; l++, rest /= PLAN_POINTS) {
      choice[l] = rest % PLAN_POINTS;
      valid &= choice[l] < layers[l].count;
    }
    if (valid && plan_bytes(layers, choice, &loss) <= budget && loss < best) best = loss;
  }
  return best;
}

// Largest weighted loss of one hull step: what the greedy walk may miss at its end.
static double plan_largest_step(const tt_plan_layer *layers) {
  double largest = 0;
  for (int l = 0; l < PLAN_LAYERS; l++) {
    int hull[PLAN_POINTS], count;
    CHECK_STATUS(tt_plan_hull(layers[l].points, layers[l].count, hull, &count), TT_OK);
    for (int i = 1; i < count; i++) {
      double step = layers[l].points[hull[i - 1]].loss - layers[l].points[hull[i]].loss;
      if (layers[l].weight * step > largest) largest = layers[l].weight * step;
    }
  }
  return largest;
}

static void plan_test_knapsack(void) {
  tt_plan_point points[PLAN_LAYERS][PLAN_POINTS];
  tt_plan_layer layers[PLAN_LAYERS];
  int same = 0, trials = 0;
  for (int round = 0; round < 60; round++) {
    plan_random_layers(points, layers);
    for (uint64_t budget = 1; budget < 170; budget += 8) {
      int greedy[PLAN_LAYERS], exact[PLAN_LAYERS], layer = -7;
      double best = plan_brute_force(layers, budget), by_greed, by_table;
      tt_status wanted = best < HUGE_VAL ? TT_OK : TT_ERROR_UNSUPPORTED;
      CHECK_STATUS(tt_plan_exact(layers, PLAN_LAYERS, budget, 200, NULL, exact, &layer), wanted);
      CHECK(wanted ? layer >= 0 && layer < PLAN_LAYERS : layer == -1);
      CHECK_STATUS(tt_plan_budget(layers, PLAN_LAYERS, budget, greedy, &layer), wanted);
      CHECK(wanted ? layer >= 0 && layer < PLAN_LAYERS : layer == -1);
      uint64_t used = plan_bytes(layers, greedy, &by_greed);
      uint64_t used_exact = plan_bytes(layers, exact, &by_table);
      if (wanted) {
        CHECK(used == used_exact && used > budget);          // the fewest bytes
        continue;
      }
      CHECK(used <= budget && used_exact <= budget);
      CHECK_CLOSE(by_table, best, 1e-12);
      CHECK(by_greed >= best - 1e-12);
      CHECK_AT_MOST(by_greed, best + plan_largest_step(layers) + 1e-12); // one item
      same += by_greed <= best + 1e-12;
      trials++;
      // coarse parts: never above the budget, never better than the best
      CHECK_STATUS(tt_plan_exact(layers, PLAN_LAYERS, budget, 7, NULL, exact, NULL), TT_OK);
      CHECK(plan_bytes(layers, exact, &by_table) <= budget && by_table >= best - 1e-12);
    }
  }
  CHECK(trials > 600 && same > trials / 2);
}

static void plan_test_hull(void) {
  for (int round = 0; round < 200; round++) {
    tt_plan_point points[12];
    int count = 1 + test_below(12), hull[12], num = 0;
    for (int i = 0; i < count; i++) {
      points[i].bytes = (uint64_t)test_below(round % 2 ? 6 : 1000);
      points[i].loss = round % 3 ? test_uniform() : test_below(4);
    }
    CHECK_STATUS(tt_plan_hull(points, count, hull, &num), TT_OK);
    CHECK(num >= 1 && num <= count);
    for (int i = 1; i < num; i++) {                          // falls, ever less steeply
      const tt_plan_point *a = &points[hull[i - 1]], *b = &points[hull[i]];
      CHECK(a->bytes < b->bytes && a->loss > b->loss);
      if (i + 1 == num) continue;
      const tt_plan_point *c = &points[hull[i + 1]];
      CHECK((a->loss - b->loss) * (double)(c->bytes - b->bytes) >
            (b->loss - c->loss) * (double)(b->bytes - a->bytes) - 1e-12);
    }
    for (int i = 0; i < count; i++) {                        // nothing lies below
      const tt_plan_point *p = &points[i];
      CHECK(p->bytes >= points[hull[0]].bytes && p->loss >= points[hull[num - 1]].loss);
      for (int j = 1; j < num; j++) {
        const tt_plan_point *a = &points[hull[j - 1]], *b = &points[hull[j]];
        if (p->bytes < a->bytes || p->bytes > b->bytes) continue;
        double t = (double)(p->bytes - a->bytes) / (double)(b->bytes - a->bytes);
        CHECK(p->loss >= a->loss + t * (b->loss - a->loss) - 1e-12);
      }
    }
  }
}

static void plan_test_budget_errors(void) {
  tt_plan_point points[2] = {{10, 1}, {20, 0}}, huge[1] = {{UINT64_MAX, 0}};
  tt_plan_layer layers[2] = {{points, 2, 1}, {points, 2, 1}}, bad[2];
  int choice[2], layer = 5, hull[2], count;
  double wrong[3] = {-1, (double)NAN, (double)INFINITY};
  CHECK_STATUS(tt_plan_budget(layers, 2, 19, choice, &layer), TT_ERROR_UNSUPPORTED);
  CHECK(layer == 0 && choice[0] == 0 && choice[1] == 0);
  CHECK_STATUS(tt_plan_budget(layers, 2, 20, choice, &layer), TT_OK);
  CHECK(layer == -1 && choice[0] == 0 && choice[1] == 0);
  CHECK_STATUS(tt_plan_budget(layers, 2, 29, choice, NULL), TT_OK);
  CHECK(choice[0] == 0 && choice[1] == 0);
  CHECK_STATUS(tt_plan_budget(layers, 2, 30, choice, NULL), TT_OK);
  CHECK(choice[0] == 1 && choice[1] == 0);
  layers[1].weight = 1.5;                                    // the weight decides who goes first
  CHECK_STATUS(tt_plan_budget(layers, 2, 30, choice, NULL), TT_OK);
  CHECK(choice[0] == 0 && choice[1] == 1);
  CHECK_STATUS(tt_plan_budget(layers, 2, UINT64_MAX, choice, NULL), TT_OK);
  CHECK(choice[0] == 1 && choice[1] == 1);
  CHECK_STATUS(tt_plan_budget(layers, 0, 0, choice, NULL), TT_OK);
  CHECK_STATUS(tt_plan_exact(layers, 0, 0, 0, NULL, choice, NULL), TT_OK);
  CHECK_STATUS(tt_plan_exact(layers, 2, UINT64_MAX, 0, NULL, choice, NULL), TT_OK);
  CHECK(choice[0] == 1 && choice[1] == 1);
  CHECK_STATUS(tt_plan_budget(layers, -1, 30, choice, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_plan_budget(NULL, 2, 30, choice, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_plan_budget(layers, 2, 30, NULL, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_plan_exact(layers, 2, 30, -1, NULL, choice, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_plan_exact(layers, 2, 30, INT_MAX, NULL, choice, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_plan_hull(points, 0, hull, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_plan_hull(NULL, 2, hull, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_plan_hull(points, 2, NULL, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_plan_hull(points, 2, hull, NULL), TT_ERROR_INVALID);
  for (int i = 0; i < 3; i++) {
    memcpy(bad, layers, sizeof bad);
    bad[1].weight = wrong[i];
    CHECK_STATUS(tt_plan_budget(bad, 2, 30, choice, NULL), TT_ERROR_INVALID);
    points[1].loss = wrong[i];
    CHECK_STATUS(tt_plan_exact(layers, 2, 30, 0, NULL, choice, NULL), TT_ERROR_INVALID);
    CHECK_STATUS(tt_plan_hull(points, 2, hull, &count), TT_ERROR_INVALID);
    points[1].loss = 0;
  }
  layers[1].points = huge;                                   // the sum of bytes overflows
  layers[1].count = 1;
  CHECK_STATUS(tt_plan_budget(layers, 2, UINT64_MAX, choice, NULL), TT_ERROR_MEMORY);
  CHECK_STATUS(tt_plan_budget(layers, 1, 9, choice, NULL), TT_ERROR_UNSUPPORTED);
  tt_plan_point free_points[2] = {{0, 1}, {0, 0.5}};         // a budget of nothing
  tt_plan_layer nothing = {free_points, 2, 1};
  CHECK_STATUS(tt_plan_exact(&nothing, 1, 0, 0, NULL, choice, NULL), TT_OK);
  CHECK(choice[0] == 1);
  CHECK_STATUS(tt_plan_budget(&nothing, 1, 0, choice, NULL), TT_OK);
  CHECK(choice[0] == 1);
  layers[1].count = 0;
  CHECK_STATUS(tt_plan_budget(layers, 2, 30, choice, NULL), TT_ERROR_INVALID);
  layers[1] = layers[0];
  test_heap heap;
  tt_options options = test_options();
  options.max_rank = -1;
  CHECK_STATUS(tt_plan_exact(layers, 2, 30, 0, &options, choice, NULL), TT_ERROR_INVALID);
  options.max_rank = 0;
  for (long n = 0; n <= 2; n++) {
    options.allocator = test_allocator(&heap);
    heap.fail_at = n;
    CHECK_STATUS(tt_plan_exact(layers, 2, 30, 0, &options, choice, NULL),
                 n ? TT_ERROR_MEMORY : TT_OK);
    CHECK(heap.live_blocks == 0 && (n || heap.calls == 2));
  }
}

// ---- selection

// A planted model: the score is 1 minus the drops of all layers, minus 0.5 if the two layers of
// `pair` are both compressed; call number `fail_at` gives `failure`.
typedef struct plan_model {
  double drop[8][4];
  int pair[2];
  long calls, fail_at;
  double failure;
} plan_model;

static double plan_score(const plan_model *model, const int *choice, int num_layers) {
  double score = 1;
  for (int l = 0; l < num_layers; l++) score -= model->drop[l][choice[l]];
  if (model->pair[0] >= 0 && choice[model->pair[0]] && choice[model->pair[1]]) score -= 0.5;
  return score;
}

static double plan_eval(void *user, const int *choice, int num_layers) {
  plan_model *model = (plan_model *)user;
  if (++model->calls == model->fail_at) return model->failure;
  return plan_score(model, choice, num_layers);
}

// Eight layers with points of 100, 50, 25 and 10 bytes; drops grow with the layer and the squeeze.
static tt_plan_point plan_sizes[4] = {{100, 0}, {50, 0}, {25, 0}, {10, 0}};
static plan_model plan_new_model(tt_plan_layer *layers) {
  plan_model model;
  memset(&model, 0, sizeof model);
  model.pair[0] = -1;
  for (int l = 0; l < 8; l++) {
    layers[l].points = plan_sizes;
    layers[l].count = 4;
    layers[l].weight = 1;
    for (int i = 1; i < 4; i++) model.drop[l][i] = 0.001 * (l + 1) * i * i;
  }
  return model;
}

static tt_selection plan_selection(plan_model *model) {
  tt_selection selection;
  memset(&selection, 0, sizeof selection);
  selection.eval = plan_eval;
  selection.user = model;
  selection.max_drop = 0.3;
  return selection;
}

static void plan_test_select(void) {
  tt_plan_layer layers[8];
  plan_model model = plan_new_model(layers);
  tt_selection selection = plan_selection(&model);
  int choice[8];
  selection.max_drop = 1;                                    // everything is allowed
  CHECK_STATUS(tt_plan_select(layers, 8, &selection, NULL, choice), TT_OK);
  CHECK(selection.baseline == 1 && selection.bytes == 80 && !selection.stopped);
  CHECK(selection.layer == -1 && selection.num_evals == 1 + 24 + 8 && !selection.num_refused);
  for (int l = 0; l < 8; l++) CHECK(choice[l] == 3);
  CHECK_CLOSE(selection.score, plan_score(&model, choice, 8), 1e-15);
  selection.budget = 200;                                    // the budget spares the sensitive ones
  CHECK_STATUS(tt_plan_select(layers, 8, &selection, NULL, choice), TT_OK);
  CHECK(selection.bytes <= 200 && selection.bytes > 150 && choice[0] == 3);
  for (int l = 1; l < 8; l++) CHECK(choice[l] <= choice[l - 1]);
  selection.budget = 800;                                    // nothing to do
  CHECK_STATUS(tt_plan_select(layers, 8, &selection, NULL, choice), TT_OK);
  CHECK(selection.bytes == 800 && selection.score == 1 && selection.num_evals == 25);
  selection.budget = 79;
  CHECK_STATUS(tt_plan_select(layers, 8, &selection, NULL, choice), TT_ERROR_UNSUPPORTED);
  CHECK(selection.layer == 0 && selection.bytes == 800);
  CHECK_STATUS(tt_plan_select(layers, 0, &selection, NULL, choice), TT_OK);
}

// The bound stops in the middle of a batch: the state is the longest good beginning, whatever the
// size of the batches.
static void plan_test_select_stops(void) {
  tt_plan_layer layers[8];
  plan_model model = plan_new_model(layers);
  int choice[8];
  for (int batch = 1; batch <= 9; batch++)
    for (int kept = 0; kept < 8; kept++) {
      tt_selection selection = plan_selection(&model);
      selection.batch = batch;
      selection.max_drop = 0.0001;
      for (int l = 0; l < kept; l++) selection.max_drop += model.drop[l][3];
      CHECK_STATUS(tt_plan_select(layers, 8, &selection, NULL, choice), TT_OK);
      CHECK(selection.stopped && selection.layer == kept);
      for (int l = 0; l < 8; l++) CHECK(choice[l] == (l < kept ? 3 : 0));
      CHECK_CLOSE(selection.score, plan_score(&model, choice, 8), 1e-15);
      CHECK(selection.bytes == (uint64_t)(800 - 90 * kept));
      CHECK_AT_MOST(selection.num_evals, 25 + 8 + 4);
    }
  model.pair[0] = 2;                                         // errors that do not add up
  model.pair[1] = 5;
  for (int batch = 1; batch <= 9; batch++) {
    tt_selection selection = plan_selection(&model);
    selection.batch = batch;
    CHECK_STATUS(tt_plan_select(layers, 8, &selection, NULL, choice), TT_OK);
    CHECK(selection.stopped && selection.layer == 5 && choice[4] == 3 && choice[5] == 0);
    CHECK(selection.score >= selection.baseline - 0.3);
  }
}

static void plan_test_select_floor(void) {
  tt_plan_layer layers[8];
  plan_model model = plan_new_model(layers);
  tt_selection selection = plan_selection(&model);
  int choice[8];
  double floor_score = 0.6;
  selection.floor = &floor_score;
  selection.max_drop = 10;
  model.drop[3][3] = 0.5;                                    // alone below the floor: refused
  CHECK_STATUS(tt_plan_select(layers, 8, &selection, NULL, choice), TT_OK);
  CHECK(selection.num_refused == 1 && choice[3] == 2 && !selection.stopped);
  CHECK(selection.bytes == 7 * 10 + 25 && selection.score >= floor_score);
  floor_score = 0.85;                                        // all together below the floor
  CHECK_STATUS(tt_plan_select(layers, 8, &selection, NULL, choice), TT_OK);
  CHECK(selection.stopped && selection.score >= floor_score);
  floor_score = 1.01;                                        // so is the model as it is
  CHECK_STATUS(tt_plan_select(layers, 8, &selection, NULL, choice), TT_ERROR_UNSUPPORTED);
  CHECK(selection.num_evals == 1 && selection.layer == -1);
  floor_score = 0.5;                                         // the drop is the stricter bound
  selection.max_drop = 0.1;
  CHECK_STATUS(tt_plan_select(layers, 8, &selection, NULL, choice), TT_OK);
  CHECK(selection.stopped && selection.score >= 0.9);
}

// Given losses steer without probes: true ones lead to the same end as probes, wrong ones do not,
// and the score stops both.
static void plan_test_select_trust(void) {
  tt_plan_layer layers[8];
  tt_plan_point points[8][4];
  plan_model model = plan_new_model(layers);
  int choice[8], probed[8];
  double floor_score = 0.6;
  for (int l = 0; l < 8; l++) {
    layers[l].weight = 0.01 * (l + 1);
    for (int i = 0; i < 4; i++) {
      model.drop[l][i] *= 1 + 0.01 * ((7 * l + 3 * i) % 11);   // no two steps cost the same
      points[l][i].bytes = plan_sizes[i].bytes;
      // point 0 is not the zero of losses
      points[l][i].loss = model.drop[l][i] / layers[l].weight + l % 3;
    }
    layers[l].points = points[l];
  }
  for (int budget = 0; budget <= 800; budget += 40)
    for (int batch = 0; batch <= 3; batch++) {
      tt_selection selection = plan_selection(&model);
      selection.budget = (uint64_t)budget;
      selection.batch = batch;
      tt_status status = tt_plan_select(layers, 8, &selection, NULL, probed);
      int evals = selection.num_evals, stopped = selection.stopped;
      double score = selection.score;
      selection.trust_losses = 1;
      CHECK_STATUS(tt_plan_select(layers, 8, &selection, NULL, choice), status);
      CHECK(selection.num_evals == (status ? 1 : evals - 24));
      CHECK(selection.stopped == stopped && selection.score == score);
      CHECK(!memcmp(choice, probed, sizeof choice));
    }
  tt_selection selection = plan_selection(&model);
  selection.trust_losses = 1;
  selection.batch = 1;
  selection.floor = &floor_score;
  model.drop[3][3] = 0.5;                                    // below the floor, but nobody asks
  CHECK_STATUS(tt_plan_select(layers, 8, &selection, NULL, choice), TT_OK);
  CHECK(selection.num_refused == 0 && selection.stopped && selection.layer == 3);
  CHECK(choice[2] == 3 && choice[3] == 0 && selection.num_evals == 5);
  for (int l = 0; l < 8; l++) layers[l].weight = 8 - l;      // the reverse of the truth
  CHECK_STATUS(tt_plan_select(layers, 8, &selection, NULL, choice), TT_OK);
  CHECK(selection.stopped && choice[7] == 3 && choice[0] == 0);
  CHECK(selection.score >= 0.7);
}

// Bytes beyond 64 bits: of the smallest points, and of the final state.
static void plan_test_select_overflow(void) {
  tt_plan_point points[2] = {{UINT64_MAX, 0}, {UINT64_MAX / 2 + 2, 0}};
  tt_plan_layer layers[8];
  plan_model model = plan_new_model(layers);
  tt_selection selection = plan_selection(&model);
  int choice[8];
  layers[0].points = layers[1].points = points;
  layers[0].count = layers[1].count = 2;
  CHECK_STATUS(tt_plan_select(layers, 2, &selection, NULL, choice), TT_ERROR_MEMORY);
  points[1].bytes = 1;
  CHECK_STATUS(tt_plan_select(layers, 2, &selection, NULL, choice), TT_OK);
  CHECK(selection.bytes == 2);
  selection.max_drop = 0;                                    // nothing may change
  CHECK_STATUS(tt_plan_select(layers, 2, &selection, NULL, choice), TT_ERROR_MEMORY);
  CHECK(choice[0] == 0 && choice[1] == 0);
}

// A score that fails, at every call: the last good state is left, and a layer is named.
static void plan_test_select_failures(void) {
  static const double failures[3] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
  tt_plan_layer layers[8];
  plan_model model = plan_new_model(layers);
  int choice[8];
  for (int batch = 1; batch <= 5; batch += 4)
    for (long n = 1; n <= 60; n++) {
      tt_selection selection = plan_selection(&model);
      selection.batch = batch;
      selection.max_drop = 0.1;
      model.calls = 0;
      model.fail_at = n;
      model.failure = failures[n % 3];
      tt_status status = tt_plan_select(layers, 8, &selection, NULL, choice);
      if (model.calls < n) {
        CHECK(status == TT_OK);
        break;
      }
      CHECK_STATUS(status, TT_ERROR_NONFINITE);
      CHECK(selection.num_evals == n);
      CHECK(n == 1 ? selection.layer == -1
                   : n <= 25 ? selection.layer == (n - 2) / 3
                             : selection.layer >= 0 && selection.layer < 8);
      CHECK(plan_score(&model, choice, 8) >= 1 - 0.1 - 1e-12);
      if (n <= 26) for (int l = 0; l < 8; l++) CHECK(choice[l] == 0);
      if (n > 26 && batch == 1) CHECK(choice[0] == 3);       // the first batch was good
      if (n > 1) CHECK_CLOSE(selection.score, plan_score(&model, choice, 8), 1e-15);
    }
}

static void plan_test_select_errors(void) {
  tt_plan_layer layers[8];
  plan_model model = plan_new_model(layers);
  tt_selection good = plan_selection(&model), bad;
  int choice[8];
  double wrong = (double)NAN;
  CHECK_STATUS(tt_plan_select(layers, 8, NULL, NULL, choice), TT_ERROR_INVALID);
  CHECK_STATUS(tt_plan_select(NULL, 8, &good, NULL, choice), TT_ERROR_INVALID);
  CHECK_STATUS(tt_plan_select(layers, 8, &good, NULL, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_plan_select(layers, -8, &good, NULL, choice), TT_ERROR_INVALID);
  bad = good;
  bad.eval = NULL;
  CHECK_STATUS(tt_plan_select(layers, 8, &bad, NULL, choice), TT_ERROR_INVALID);
  bad = good;
  bad.max_drop = -0.1;
  CHECK_STATUS(tt_plan_select(layers, 8, &bad, NULL, choice), TT_ERROR_INVALID);
  bad.max_drop = wrong;
  CHECK_STATUS(tt_plan_select(layers, 8, &bad, NULL, choice), TT_ERROR_INVALID);
  bad = good;
  bad.floor = &wrong;
  CHECK_STATUS(tt_plan_select(layers, 8, &bad, NULL, choice), TT_ERROR_INVALID);
  bad = good;
  bad.batch = -1;
  CHECK_STATUS(tt_plan_select(layers, 8, &bad, NULL, choice), TT_ERROR_INVALID);
  test_heap heap;
  tt_options options = test_options();
  long calls = 0;
  options.max_rank = -1;
  CHECK_STATUS(tt_plan_select(layers, 8, &good, &options, choice), TT_ERROR_INVALID);
  options.max_rank = 0;
  for (long n = 0; n <= calls; n++) {
    options.allocator = test_allocator(&heap);
    heap.fail_at = n;
    CHECK_STATUS(tt_plan_select(layers, 8, &good, &options, choice), n ? TT_ERROR_MEMORY : TT_OK);
    if (n == 0) calls = heap.calls;
    CHECK(heap.live_blocks == 0);
    for (int l = 0; l < 8; l++) CHECK(n == 0 || choice[l] == 0);
  }
}

// ---- decisions

static tt_kv plan_kv(void) {                                 // the 7B example of the article
  tt_kv kv = {32, 128000, 8, 32, 128, 16, 0, 1};
  return kv;
}

static void plan_test_kv_bytes(void) {
  tt_kv kv = plan_kv(), bad;
  uint64_t bytes;
  CHECK_STATUS(tt_kv_bytes(&kv, &bytes), TT_OK);
  CHECK(bytes == UINT64_C(536870912000) && bytes == UINT64_C(500) << 30);
  kv.tokens = 131072;
  CHECK_STATUS(tt_kv_bytes(&kv, &bytes), TT_OK);
  CHECK(bytes == UINT64_C(512) << 30);
  kv = plan_kv();
  kv.keep = 0.1;
  kv.bits = 8;
  CHECK_STATUS(tt_kv_bytes(&kv, &bytes), TT_OK);
  CHECK(bytes == UINT64_C(25) << 30);                        // 26.84 GB
  kv.scale_bytes = 2;                                        // one F16 scale per (token, head)
  CHECK_STATUS(tt_kv_bytes(&kv, &bytes), TT_OK);
  CHECK_CLOSE((double)bytes / (double)(UINT64_C(25) << 30), 1.016, 0.0005);
  kv = plan_kv();
  kv.heads = 8;
  CHECK_STATUS(tt_kv_bytes(&kv, &bytes), TT_OK);
  CHECK(bytes == UINT64_C(134217728000));                    // 134.2 GB
  kv.bits = 3;
  kv.head_dim = 3;                                           // 9 bits take two bytes
  CHECK_STATUS(tt_kv_bytes(&kv, &bytes), TT_OK);
  CHECK(bytes == UINT64_C(2) * 32 * 128000 * 8 * 8 * 2);
  for (int zero = 0; zero < 4; zero++) {
    kv = plan_kv();
    int64_t *counts[4] = {&kv.layers, &kv.tokens, &kv.batch, &kv.heads};
    *counts[zero] = 0;
    if (zero) kv.layers = INT64_MAX;                         // zero, however large the others
    bytes = 7;
    CHECK_STATUS(tt_kv_bytes(&kv, &bytes), TT_OK);
    CHECK(bytes == 0);
    *counts[zero] = -1;
    CHECK_STATUS(tt_kv_bytes(&kv, &bytes), TT_ERROR_INVALID);
  }
  tt_kv edge = {1, (int64_t)1 << 62, 1, 1, 1, 8, 0, 1};      // 2^63 fits, 2^64 does not
  CHECK_STATUS(tt_kv_bytes(&edge, &bytes), TT_OK);
  CHECK(bytes == UINT64_C(1) << 63);
  edge.batch = 2;
  CHECK_STATUS(tt_kv_bytes(&edge, &bytes), TT_ERROR_MEMORY);
  CHECK(bytes == 0);
  edge.keep = 0.5;
  CHECK_STATUS(tt_kv_bytes(&edge, &bytes), TT_OK);
  CHECK(bytes == UINT64_C(1) << 63);
  edge.head_dim = INT64_MAX;
  CHECK_STATUS(tt_kv_bytes(&edge, &bytes), TT_ERROR_MEMORY);
  for (int large = 0; large < 5; large++) {                  // any one factor may be too much
    tt_kv one = {3, 3, 3, 3, 3, 64, 0, 1};
    int64_t *counts[5] = {&one.layers, &one.tokens, &one.batch, &one.heads, &one.head_dim};
    *counts[large] = INT64_MAX;
    CHECK_STATUS(tt_kv_bytes(&one, &bytes), TT_ERROR_MEMORY);
    *counts[large] = INT64_MAX / (3 * 3 * 3 * 24);
    if (large < 4) CHECK_STATUS(tt_kv_bytes(&one, &bytes), TT_OK);
  }
  tt_kv rounded = {1, INT64_MAX, 1, 1, 1, 1, 0, 1 - 1e-16};  // never more tokens than there are
  CHECK_STATUS(tt_kv_bytes(&rounded, &bytes), TT_OK);
  CHECK(bytes <= 2 * (uint64_t)INT64_MAX);
  static const double keeps[4] = {0, -0.1, 1.01, (double)NAN};
  for (int i = 0; i < 4; i++) {
    bad = plan_kv();
    bad.keep = keeps[i];
    CHECK_STATUS(tt_kv_bytes(&bad, &bytes), TT_ERROR_INVALID);
  }
  static const int bits[3] = {0, -8, 65};
  for (int i = 0; i < 3; i++) {
    bad = plan_kv();
    bad.bits = bits[i];
    CHECK_STATUS(tt_kv_bytes(&bad, &bytes), TT_ERROR_INVALID);
  }
  bad = plan_kv();
  bad.head_dim = -1;
  CHECK_STATUS(tt_kv_bytes(&bad, &bytes), TT_ERROR_INVALID);
  bad = plan_kv();
  bad.scale_bytes = -1;
  CHECK_STATUS(tt_kv_bytes(&bad, &bytes), TT_ERROR_INVALID);
  CHECK_STATUS(tt_kv_bytes(NULL, &bytes), TT_ERROR_INVALID);
  CHECK_STATUS(tt_kv_bytes(&bad, NULL), TT_ERROR_INVALID);
}

static void plan_test_formats(void) {
  static const struct { int sm; tt_dtype dtype, alternative; int benchmark, fp4; } cases[] = {
      {1, TT_F16, TT_F16, 0, 0},      {70, TT_F16, TT_F16, 0, 0},     {79, TT_F16, TT_F16, 0, 0},
      {80, TT_I8, TT_I8, 0, 0},       {86, TT_I8, TT_I8, 0, 0},       {88, TT_I8, TT_I8, 0, 0},
      {89, TT_I8, TT_E4M3, 1, 0},     {90, TT_E4M3, TT_E4M3, 0, 0},   {99, TT_E4M3, TT_E4M3, 0, 0},
      {100, TT_E4M3, TT_E4M3, 0, 1},  {120, TT_E4M3, TT_E4M3, 0, 1}};
  tt_format_advice advice;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    CHECK_STATUS(tt_recommend_format(cases[i].sm, &advice), TT_OK);
    CHECK(advice.dtype == cases[i].dtype && advice.alternative == cases[i].alternative);
    CHECK(advice.benchmark == cases[i].benchmark && advice.fp4 == cases[i].fp4);
  }
  CHECK_STATUS(tt_recommend_format(0, &advice), TT_ERROR_INVALID);
  CHECK_STATUS(tt_recommend_format(-90, &advice), TT_ERROR_INVALID);
  CHECK_STATUS(tt_recommend_format(90, NULL), TT_ERROR_INVALID);
}

// The candidates of one layer: errors and bytes vary around the thresholds.
static void plan_test_decide_layer(void) {
  enum { F32, F16, I8, I4, I3, LOW, TRAIN, CODED, COUNT };
  static const struct {
    double error[COUNT];                                     // F32 has 0
    size_t train, coded;                                     // bytes of two factorised candidates
    double bound;
    int wanted;
  } cases[] = {
      // a factorised candidate wins only below dense INT4 (141 bytes) and within the bound
      {{0, .001, .01, .1, .3, .5, .2, .2}, 140, 150, .2, TRAIN},
      {{0, .001, .01, .1, .3, .5, .2, .2}, 141, 150, .2, I4},      // not fewer than INT4
      {{0, .001, .01, .1, .3, .5, .2, .2}, 140, 150, .1999, I4},   // above the bound
      {{0, .001, .01, .1, .3, .5, .2, .2}, 140, 60, .2, CODED},    // fewest bytes
      {{0, .001, .01, .1, .3, .5, .2, .21}, 140, 60, .2, TRAIN},
      {{0, .001, .01, .1, .3, .5, .2, .21}, 140, 60, .21, CODED},
      {{0, .001, .01, .1, .2, .5, .2, .2}, 140, 130, .2, I3},      // INT3 (109) is smaller still
      {{0, .001, .01, .1, .2, .5, .2, .2}, 108, 130, .2, TRAIN},
      {{0, .001, .01, .3, .4, .5, .1, .2}, 140, 150, .2, TRAIN},   // INT4 itself may fail
      // nothing below INT4: quantise only, with the fewest bytes that hold the bound
      {{0, .001, .01, .1, .3, .5, .4, .4}, 140, 60, .1, I4},
      {{0, .001, .01, .1, .3, .5, .4, .4}, 140, 60, .0999, I8},
      {{0, .001, .01, .1, .3, .5, .4, .4}, 140, 60, .01, I8},
      // even INT8 breaks the bound: dense
      {{0, .001, .01, .1, .3, .5, .4, .4}, 140, 60, .0099, F16},
      {{0, .001, .01, .1, .3, .5, .4, .4}, 140, 60, .001, F16},
      {{0, .001, .01, .1, .3, .5, .4, .4}, 140, 60, .00099, F32},
      {{0, .001, .01, .1, .3, .5, .4, .4}, 140, 60, 0, F32}};
  tt_candidate list[COUNT];
  memset(list, 0, sizeof list);
  static const int actions[COUNT] = {TT_KEEP_DENSE, TT_KEEP_DENSE, TT_QUANT_ONLY, TT_QUANT_ONLY,
                                     TT_QUANT_ONLY, TT_SVD,        TT_TT,         TT_TT_QUANT};
  static const size_t bytes[COUNT] = {1000, 500, 252, 141, 109, 90, 0, 0};
  static const tt_dtype dtypes[COUNT] = {TT_F32, TT_F16, TT_I8,  TT_I4,
                                         TT_I3,  TT_F32, TT_F32, TT_I8};
  tt_policy policy;
  memset(&policy, 0, sizeof policy);
  int index;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    for (int c = 0; c < COUNT; c++) {
      list[c].action = actions[c];
      list[c].dtype = dtypes[c];
      list[c].bytes = bytes[c];
      list[c].error = cases[i].error[c];
    }
    list[TRAIN].bytes = cases[i].train;
    list[CODED].bytes = cases[i].coded;
    policy.max_func_err = cases[i].bound;
    CHECK_STATUS(tt_decide_layer(list, COUNT, &policy, &index), TT_OK);
    CHECK(index == cases[i].wanted);
  }
  list[TRAIN].error = 0;                                     // the smaller INT4 is the yardstick
  list[CODED] = list[I4];
  list[CODED].bytes = 120;
  list[TRAIN].bytes = 119;
  CHECK_STATUS(tt_decide_layer(list, COUNT, &policy, &index), TT_OK);
  CHECK(index == TRAIN);
  list[TRAIN].bytes = 120;
  CHECK_STATUS(tt_decide_layer(list, COUNT, &policy, &index), TT_OK);
  CHECK(index == F32);
  list[CODED].action = TT_TT_QUANT;
  list[TRAIN].error = list[F32].error = 0.5;
  CHECK_STATUS(tt_decide_layer(list, COUNT, &policy, &index), TT_ERROR_UNSUPPORTED);
  CHECK(index == -1);
  policy.max_func_err = 1;
  list[I4].action = TT_KEEP_DENSE;                           // no yardstick: nothing factorised
  CHECK_STATUS(tt_decide_layer(list, COUNT, &policy, &index), TT_OK);
  CHECK(index == I3);
  CHECK_STATUS(tt_decide_layer(list, 0, &policy, &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_decide_layer(NULL, COUNT, &policy, &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_decide_layer(list, COUNT, NULL, &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_decide_layer(list, COUNT, &policy, NULL), TT_ERROR_INVALID);
  static const double wrong[3] = {-1, (double)NAN, (double)INFINITY};
  for (int i = 0; i < 3; i++) {
    policy.max_func_err = wrong[i];
    CHECK_STATUS(tt_decide_layer(list, COUNT, &policy, &index), TT_ERROR_INVALID);
    policy.max_func_err = 1;
    list[LOW].error = wrong[i];
    CHECK_STATUS(tt_decide_layer(list, COUNT, &policy, &index), TT_ERROR_INVALID);
    list[LOW].error = 1;
  }
  list[LOW].action = TT_TT_QUANT + 1;
  CHECK_STATUS(tt_decide_layer(list, COUNT, &policy, &index), TT_ERROR_INVALID);
  list[LOW].action = -1;
  CHECK_STATUS(tt_decide_layer(list, COUNT, &policy, &index), TT_ERROR_INVALID);
}

static tt_hw plan_hw(void) {
  tt_hw hw = {80e9, 3e12, 1e15, 64e9, 100e9, 90};
  return hw;
}

static void plan_test_decide_kv(void) {
  tt_kv kv = {1, 1000, 1, 1, 500, 8, 0, 0.5};                // 1,000,000 bytes if dense
  static const struct {
    int sparse;
    double hbm, pcie, cxl;
    tt_status status;
    int place;
    uint64_t bytes;
  } cases[] = {{0, 1000100, 1, 1, TT_OK, TT_KV_HBM, 1000000}, // 100 bytes of weights beside
               {0, 1000099, 1, 0, TT_OK, TT_KV_PCIE, 1000000},
               {0, 1000099, 0, 1, TT_OK, TT_KV_CXL, 1000000},
               {0, 1000099, 2, 1, TT_OK, TT_KV_PCIE, 1000000},
               {0, 1000099, 1, 2, TT_OK, TT_KV_CXL, 1000000},
               {0, 1000099, 1, 1, TT_OK, TT_KV_PCIE, 1000000},
               {0, 1000099, 0, 0, TT_ERROR_UNSUPPORTED, TT_KV_PCIE, 1000000},
               {0, 1000100, 0, 0, TT_OK, TT_KV_HBM, 1000000},
               {1, 1000100, 1, 0, TT_OK, TT_KV_SELECTIVE, 250000},
               {1, 0, 0, 1, TT_OK, TT_KV_SELECTIVE, 250000},
               {1, 1000100, 0, 0, TT_ERROR_UNSUPPORTED, TT_KV_SELECTIVE, 250000}};
  tt_policy policy;
  memset(&policy, 0, sizeof policy);
  policy.kv_keep = 0.25;
  int place;
  uint64_t bytes;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tt_hw hw = plan_hw();
    hw.hbm_bytes = cases[i].hbm;
    hw.pcie_bw = cases[i].pcie;
    hw.cxl_bw = cases[i].cxl;
    policy.sparse_attention = cases[i].sparse;
    CHECK_STATUS(tt_decide_kv(&kv, 100, &hw, &policy, &place, &bytes), cases[i].status);
    CHECK(place == cases[i].place && bytes == cases[i].bytes);
  }
  tt_hw hw = plan_hw(), bad;
  policy.sparse_attention = 0;
  CHECK_STATUS(tt_decide_kv(&kv, UINT64_MAX, &hw, &policy, &place, &bytes), TT_OK);
  CHECK(place == TT_KV_CXL);                                 // the sum overflows: does not fit
  CHECK_STATUS(tt_decide_kv(NULL, 1, &hw, &policy, &place, &bytes), TT_ERROR_INVALID);
  CHECK_STATUS(tt_decide_kv(&kv, 1, NULL, &policy, &place, &bytes), TT_ERROR_INVALID);
  CHECK_STATUS(tt_decide_kv(&kv, 1, &hw, NULL, &place, &bytes), TT_ERROR_INVALID);
  CHECK_STATUS(tt_decide_kv(&kv, 1, &hw, &policy, NULL, &bytes), TT_ERROR_INVALID);
  CHECK_STATUS(tt_decide_kv(&kv, 1, &hw, &policy, &place, NULL), TT_ERROR_INVALID);
  double *fields[5] = {&bad.hbm_bytes, &bad.hbm_bw, &bad.peak_flops, &bad.pcie_bw, &bad.cxl_bw};
  static const double wrong[3] = {-1, (double)NAN, (double)INFINITY};
  for (int f = 0; f < 5; f++)
    for (int i = 0; i < 3; i++) {
      bad = hw;
      *fields[f] = wrong[i];
      CHECK_STATUS(tt_decide_kv(&kv, 1, &bad, &policy, &place, &bytes), TT_ERROR_INVALID);
    }
  bad = hw;
  bad.sm = -1;
  CHECK_STATUS(tt_decide_kv(&kv, 1, &bad, &policy, &place, &bytes), TT_ERROR_INVALID);
  bad = hw;
  bad.peak_flops = 0;
  CHECK_STATUS(tt_decide_kv(&kv, 1, &bad, &policy, &place, &bytes), TT_ERROR_INVALID);
  bad = hw;
  bad.hbm_bw = 0;
  CHECK_STATUS(tt_decide_kv(&kv, 1, &bad, &policy, &place, &bytes), TT_ERROR_INVALID);
  policy.sparse_attention = 1;
  policy.kv_keep = 0;
  CHECK_STATUS(tt_decide_kv(&kv, 1, &hw, &policy, &place, &bytes), TT_ERROR_INVALID);
  kv.tokens = kv.layers = INT64_MAX;
  policy.kv_keep = 1;
  CHECK_STATUS(tt_decide_kv(&kv, 1, &hw, &policy, &place, &bytes), TT_ERROR_MEMORY);
}

static void plan_test_latency(void) {
  tt_layer_cost layers[2] = {{3e9, 1e9}, {3e6, 5e12}};       // the first reads, the second computes
  tt_hw hw = plan_hw();
  double seconds;
  static const double bandwidths[4] = {3e12, 64e9, 100e9, 64e9};
  for (int place = TT_KV_HBM; place <= TT_KV_SELECTIVE; place++) {
    CHECK_STATUS(tt_token_latency(layers, 2, 1e9, place, &hw, &seconds), TT_OK);
    CHECK_CLOSE(seconds, 1e-3 + 5e-3 + 1e9 / bandwidths[place], 1e-15);
  }
  hw.pcie_bw = 0;
  CHECK_STATUS(tt_token_latency(layers, 2, 1e9, TT_KV_PCIE, &hw, &seconds), TT_ERROR_UNSUPPORTED);
  CHECK_STATUS(tt_token_latency(NULL, 0, 1e9, TT_KV_SELECTIVE, &hw, &seconds), TT_OK);
  CHECK_CLOSE(seconds, 1e-2, 1e-15);
  CHECK_STATUS(tt_token_latency(layers, 2, -1, TT_KV_HBM, &hw, &seconds), TT_ERROR_INVALID);
  CHECK_STATUS(tt_token_latency(layers, 2, (double)NAN, TT_KV_HBM, &hw, &seconds),
               TT_ERROR_INVALID);
  CHECK_STATUS(tt_token_latency(layers, -1, 1, TT_KV_HBM, &hw, &seconds), TT_ERROR_INVALID);
  CHECK_STATUS(tt_token_latency(NULL, 2, 1, TT_KV_HBM, &hw, &seconds), TT_ERROR_INVALID);
  CHECK_STATUS(tt_token_latency(layers, 2, 1, 4, &hw, &seconds), TT_ERROR_INVALID);
  CHECK_STATUS(tt_token_latency(layers, 2, 1, -1, &hw, &seconds), TT_ERROR_INVALID);
  CHECK_STATUS(tt_token_latency(layers, 2, 1, TT_KV_HBM, NULL, &seconds), TT_ERROR_INVALID);
  CHECK_STATUS(tt_token_latency(layers, 2, 1, TT_KV_HBM, &hw, NULL), TT_ERROR_INVALID);
  layers[1].flops = (double)NAN;
  CHECK_STATUS(tt_token_latency(layers, 2, 1, TT_KV_HBM, &hw, &seconds), TT_ERROR_INVALID);
  layers[1].flops = 1;
  layers[0].bytes = -1;
  CHECK_STATUS(tt_token_latency(layers, 2, 1, TT_KV_HBM, &hw, &seconds), TT_ERROR_INVALID);
}

static void plan_test_decide_budget(void) {
  // the bounds: 1000 bytes of memory, 2 s, a drop of 0.5
  enum { HBM = TT_KV_HBM, CXL = TT_KV_CXL };
  static const struct { tt_demand plan, other; int verdict, index; } cases[] = {
      {{500, 400, 100, HBM, 2, .5, 1}, {9999, 0, 0, HBM, 1, 0, 1}, TT_DEPLOY, 0},
      {{500, 400, 101, HBM, 2, .5, 1}, {9999, 0, 0, HBM, 1, 0, 1}, TT_USE_SMALLER_MODEL, -1},
      {{500, 400, 101, CXL, 2, .5, 1}, {9999, 0, 0, HBM, 1, 0, 1}, TT_DEPLOY, 0},
      {{900, 400, 101, CXL, 2, .5, 1}, {9999, 0, 0, HBM, 1, 0, 1}, TT_USE_SMALLER_MODEL, -1},
      {{500, 400, 100, HBM, 2.01, .5, 1}, {9999, 0, 0, HBM, 1, 0, 1}, TT_USE_SMALLER_MODEL, -1},
      {{500, 400, 100, HBM, 2, .51, 1}, {9999, 0, 0, HBM, 1, 0, 1}, TT_USE_SMALLER_MODEL, -1},
      {{500, 400, 100, HBM, 2, -.5, 1}, {9999, 0, 0, HBM, 1, 0, 1}, TT_DEPLOY, 0},
      {{500, 400, 100, HBM, 2, 9, 0}, {9999, 0, 0, HBM, 1, 0, 1}, TT_RETUNE, 0}, // evaluate it
      {{500, 400, 101, HBM, 2, .5, 1}, {500, 400, 100, HBM, 2, .5, 1}, TT_RETUNE, 1},
      {{500, 400, 101, HBM, 2, .5, 1}, {500, 400, 100, HBM, 2, 9, 0}, TT_RETUNE, 1},
      {{500, 400, 100, HBM, 2, .51, 1}, {500, 400, 100, HBM, 2, .51, 1}, TT_USE_SMALLER_MODEL, -1},
      {{UINT64_MAX, 1, 1, HBM, 2, .5, 1}, {1, UINT64_MAX, 0, HBM, 1, 0, 1},
       TT_USE_SMALLER_MODEL, -1}};
  tt_hw hw = plan_hw();
  tt_policy policy;
  memset(&policy, 0, sizeof policy);
  hw.hbm_bytes = 1000;
  policy.max_latency = 2;
  policy.max_quality_drop = 0.5;
  int verdict, index;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tt_demand plans[2] = {cases[i].plan, cases[i].other};
    CHECK_STATUS(tt_decide_budget(plans, 2, &hw, &policy, &verdict, &index), TT_OK);
    CHECK(verdict == cases[i].verdict && index == cases[i].index);
  }
  tt_demand plan = cases[4].plan, bad;                       // too slow, until any latency will do
  CHECK_STATUS(tt_decide_budget(&plan, 1, &hw, &policy, &verdict, &index), TT_OK);
  CHECK(verdict == TT_USE_SMALLER_MODEL);
  policy.max_latency = 0;
  CHECK_STATUS(tt_decide_budget(&plan, 1, &hw, &policy, &verdict, &index), TT_OK);
  CHECK(verdict == TT_DEPLOY);
  CHECK_STATUS(tt_decide_budget(NULL, 1, &hw, &policy, &verdict, &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_decide_budget(&plan, 0, &hw, &policy, &verdict, &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_decide_budget(&plan, 1, NULL, &policy, &verdict, &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_decide_budget(&plan, 1, &hw, NULL, &verdict, &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_decide_budget(&plan, 1, &hw, &policy, NULL, &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_decide_budget(&plan, 1, &hw, &policy, &verdict, NULL), TT_ERROR_INVALID);
  bad = plan;
  bad.latency = -1;
  CHECK_STATUS(tt_decide_budget(&bad, 1, &hw, &policy, &verdict, &index), TT_ERROR_INVALID);
  bad = plan;
  bad.quality_drop = (double)NAN;
  CHECK_STATUS(tt_decide_budget(&bad, 1, &hw, &policy, &verdict, &index), TT_ERROR_INVALID);
  bad.evaluated = 0;                                         // then nobody looks at it
  CHECK_STATUS(tt_decide_budget(&bad, 1, &hw, &policy, &verdict, &index), TT_OK);
  bad = plan;
  bad.place = -1;
  CHECK_STATUS(tt_decide_budget(&bad, 1, &hw, &policy, &verdict, &index), TT_ERROR_INVALID);
  bad.place = 4;
  CHECK_STATUS(tt_decide_budget(&bad, 1, &hw, &policy, &verdict, &index), TT_ERROR_INVALID);
  policy.max_latency = -1;
  CHECK_STATUS(tt_decide_budget(&plan, 1, &hw, &policy, &verdict, &index), TT_ERROR_INVALID);
  policy.max_latency = 0;
  policy.max_quality_drop = (double)NAN;
  CHECK_STATUS(tt_decide_budget(&plan, 1, &hw, &policy, &verdict, &index), TT_ERROR_INVALID);
}

static void test_plan(void) {
  plan_test_macs();
  plan_test_macs_of_trains();
  plan_test_search();
  plan_test_search_is_complete();
  plan_test_search_errors();
  plan_test_tail_rank();
  plan_test_gaussian();
  plan_test_bonds();
  plan_test_profiles();
  plan_test_extreme_weights();
  plan_test_svd_tail();
  plan_test_profile_errors();
  plan_test_smallest_rank();
  plan_test_knapsack();
  plan_test_hull();
  plan_test_budget_errors();
  plan_test_select();
  plan_test_select_stops();
  plan_test_select_floor();
  plan_test_select_trust();
  plan_test_select_overflow();
  plan_test_select_failures();
  plan_test_select_errors();
  plan_test_kv_bytes();
  plan_test_formats();
  plan_test_decide_layer();
  plan_test_decide_kv();
  plan_test_latency();
  plan_test_decide_budget();
}
