// Spectra of bonds, from the cores alone, against the dense unfolding; entropies of known spectra.

static void entropy_check_case(int index, int padded, tt_dtype dtype, int sweep) {
  tt_shape shape = train_shape(index, 5);
  train_built a = train_build(&shape, padded, dtype, dtype == TT_I4 ? 4 : TT_GROUP_ROW, sweep, 0);
  tt_matrix whole = train_padded_view(&a.w);
  double *dense = train_dense(&whole), got[64], tolerance = dtype < 2 ? 1e-13 : 1e-6;
  for (int bond = 0; bond < shape.order - 1; bond++) {
    int count = 64, full;
    double *values = compress_spectrum(&shape, whole.rows, whole.cols, dense, bond, &full);
    CHECK_STATUS(tt_spectrum(&a.w, bond, got, &count), TT_OK);
    CHECK(count == (shape.ranks[bond + 1] < full ? shape.ranks[bond + 1] : full));
    for (int i = 0; i < count && i < full; i++)
      CHECK_CLOSE(got[i], values[i], tolerance * values[0]);
    for (int i = 1; i < count; i++) CHECK(got[i] <= got[i - 1] && got[i] >= 0);
    CHECK_CLOSE(tt_entropy(got, count, 1), compress_entropy(values, full), 1e-5);
    free(values);
  }
  free(dense);
  free(a.memory);
}

static void entropy_test_six_shapes(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++)
    for (int d = 0; d < 10; d++)
      for (int variant = 0; variant < 4; variant++)
        entropy_check_case(index, variant & 1, train_dtypes[d], variant >> 1);
}

// Twelve sites of two, ranks up to 16; and ranks larger than the legs can carry.
static void entropy_test_chains(void) {
  int legs[12], ones[12], ranks[13], paper[5] = {1, 5, 2, 17, 1}, few[4] = {2, 4, 3, 3},
                                     expected[3] = {2, 2, 3};
  double got[64];
  for (int k = 0; k < 12; k++) {
    legs[k] = 2;
    ones[k] = 1;
    ranks[k] = 16;
  }
  ranks[0] = ranks[12] = 1;
  tt_shape shape = test_shape(12, legs, ones, ranks);
  CHECK_STATUS(tt_shape_clip(&shape, 0), TT_OK);
  tt_matrix w = test_train(&shape);
  double *dense = test_doubles(4096);
  CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
  for (int bond = 0; bond < 11; bond++) {
    int count = 64, full;
    double *values = compress_spectrum(&shape, 4096, 1, dense, bond, &full);
    CHECK_STATUS(tt_spectrum(&w, bond, got, &count), TT_OK);
    CHECK(count == shape.ranks[bond + 1]);
    for (int i = 0; i < count; i++) CHECK_CLOSE(got[i], values[i], 1e-13 * values[0]);
    CHECK_CLOSE(tt_entropy(got, count, 2), tt_entropy(values, full, 2), 1e-11);
    free(values);
  }
  tt_free(&w);
  shape = test_shape(4, few, ones, paper);
  w = test_train(&shape);
  CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
  for (int bond = 0; bond < 3; bond++) {
    int count = 64, full;
    double *values = compress_spectrum(&shape, 72, 1, dense, bond, &full);
    CHECK_STATUS(tt_spectrum(&w, bond, got, &count), TT_OK);
    CHECK(count >= expected[bond] && count <= paper[bond + 1] && count <= full);
    for (int i = 0; i < count; i++) CHECK_CLOSE(got[i], values[i], 1e-13 * values[0]);
    free(values);
  }
  tt_free(&w);
  free(dense);
}

// Twelve sites of two; the ten inner cores are one and the same.
static tt_matrix entropy_uniform_train(int rank) {
  int legs[12], ones[12], ranks[13];
  for (int k = 0; k < 12; k++) {
    legs[k] = 2;
    ones[k] = 1;
    ranks[k] = rank;
  }
  tt_shape shape = test_shape(12, legs, ones, ranks);
  tt_matrix w = test_train(&shape);
  for (int k = 2; k < 11; k++)
    memcpy(tt_core_data(&w, k), tt_core_data(&w, 1), sizeof(double) * (size_t)(rank * 2 * rank));
  return w;
}

// Schmidt values between the sites of a set (bit k: site k) and all others, by dense unfolding.
// Returns their number, at most 64.
static int entropy_of_sites(const double *dense, int sites, double *values) {
  int rows = 1, cols = 1;
  double *unfolding = test_doubles(4096);
  for (int k = 0; k < 12; k++) *(sites >> k & 1 ? &rows : &cols) *= 2;
  for (int i = 0; i < 4096; i++) {
    int row = 0, col = 0;
    for (int k = 0; k < 12; k++) {
      int *side = sites >> k & 1 ? &row : &col;
      *side = 2 * *side + (i >> (11 - k) & 1);
    }
    unfolding[row * cols + col] = dense[i];
  }
  CHECK_STATUS(tt_svd_f64(unfolding, rows, cols, NULL, values, NULL, NULL), TT_OK);
  free(unfolding);
  return rows < cols ? rows : cols;
}

static int entropy_numerical_rank(const double *values, int count) {
  int rank = 0;
  for (int i = 0; i < count; i++) rank += values[i] > 1e-12 * values[0];
  return rank;
}

// All blocks of neighbours: rank at most D and entropy at most ln D for each bond that the block
// cuts. *highest becomes the largest entropy of an interior block; returns the largest rank of one.
static int entropy_check_blocks(const double *dense, int bond, double *highest) {
  double values[64];
  int top = 0;
  for (int first = 0; first < 12; first++)
    for (int end = first + 1; end < (first ? 13 : 12); end++) {
      int count = entropy_of_sites(dense, (1 << end) - (1 << first), values);
      int rank = entropy_numerical_rank(values, count), interior = first > 0 && end < 12;
      double entropy = tt_entropy(values, count, 1);
      CHECK(rank <= (interior ? bond * bond : bond));
      CHECK_AT_MOST(entropy, (interior ? 2 : 1) * log(bond) + 1e-9);
      if (!interior) continue;
      if (rank > top) top = rank;
      if (entropy > *highest) *highest = entropy;
    }
  return top;
}

// An interior block of a uniform train cuts two bonds: S <= 2 ln D. The bound has teeth: each train
// has blocks of rank D^2, for each D some block exceeds the ln D of one bond, and odd against even
// sites, which cuts eleven bonds, has a higher rank each time and more entropy at least once. No
// single train need have much entropy: its transfer matrix may be close to rank 1.
static void entropy_test_uniform_blocks(void) {
  double *dense = test_doubles(4096), values[64];
  uint64_t state = test_state; // the tests behind this one keep their numbers
  int beyond = 0;
  for (int bond = 2; bond <= 4; bond++) {
    double highest = 0;
    for (unsigned seed = 1; seed <= 5; seed++) {
      test_seed(seed);
      tt_matrix w = entropy_uniform_train(bond);
      CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
      CHECK(entropy_check_blocks(dense, bond, &highest) == bond * bond);
      int count = entropy_of_sites(dense, 0xAAA, values);
      CHECK(entropy_numerical_rank(values, count) > bond * bond);
      beyond += tt_entropy(values, count, 1) > 2 * log(bond);
      tt_free(&w);
    }
    CHECK(highest > log(bond));
  }
  CHECK(beyond > 0);
  test_state = state;
  free(dense);
}

// Singlets between sites (0,3), (1,6), (2,5) of eight: each bond has ln 2 per singlet that it cuts.
static void entropy_test_singlets(void) {
  static const int partner[8] = {3, 6, 5, 0, 4, 2, 1, 7}, cut[7] = {1, 2, 3, 2, 2, 1, 0};
  int legs[8] = {2, 2, 2, 2, 2, 2, 2, 2};
  tt_shape shape = compress_column(8, legs);
  tt_options options = test_options();
  tt_report report;
  tt_matrix w;
  double state[256], values[64];
  for (int i = 0; i < 256; i++) {
    state[i] = 1;
    for (int site = 0; site < 8; site++) {
      int bit = i >> (7 - site) & 1, other = i >> (7 - partner[site]) & 1;
      if (partner[site] == site) {
        if (bit) state[i] = 0;
      } else if (site < partner[site])
        state[i] *= bit == other ? 0 : bit ? -sqrt(0.5) : sqrt(0.5);
    }
  }
  options.dtype = TT_F64;
  options.epsilon = 1e-12;
  CHECK_STATUS(tt_compress_f64(state, 256, 1, &shape, &options, &w, &report), TT_OK);
  for (int bond = 0; bond < 7; bond++) {
    int count = 64;
    CHECK(w.shape.ranks[bond + 1] == 1 << cut[bond]);
    CHECK_STATUS(tt_spectrum(&w, bond, values, &count), TT_OK);
    CHECK(count == 1 << cut[bond]);
    CHECK_CLOSE(tt_entropy(values, count, 1), cut[bond] * log(2), 1e-14);
    CHECK_CLOSE(report.entropy[bond], cut[bond] * log(2), 1e-13);
    CHECK_CLOSE(tt_effective_rank(values, count), 1 << cut[bond], 1e-13);
  }
  tt_free(&w);
}

// Scaling multiplies the spectrum; transposing, gauging and sweeping leave it alone; a sum with
// zero adds zeros.
static void entropy_test_invariances(void) {
  tt_shape shape = train_shape(5, 4);
  train_built built = train_build(&shape, 0, TT_F64, 0, 0, 0);
  tt_matrix changed[5];
  CHECK_STATUS(tt_scale(&built.w, -1e50, NULL, &changed[0]), TT_OK);
  CHECK_STATUS(tt_transpose(&built.w, NULL, &changed[1]), TT_OK);
  CHECK_STATUS(tt_orthogonalize(&built.w, 2, NULL, &changed[2]), TT_OK);
  CHECK_STATUS(tt_scale(&built.w, 0, NULL, &changed[3]), TT_OK);
  CHECK_STATUS(tt_add(&built.w, &changed[3], NULL, &changed[4]), TT_OK);
  for (int bond = 0; bond < 3; bond++) {
    double first[64], values[64];
    int count = 64;
    CHECK_STATUS(tt_spectrum(&built.w, bond, first, &count), TT_OK);
    for (int t = 0; t < 5; t++) {
      int others = 64;
      CHECK_STATUS(tt_spectrum(&changed[t], bond, values, &others), TT_OK);
      for (int i = 0; i < others; i++) {
        double expected = i < count ? first[i] * (t == 0 ? 1e50 : t == 3 ? 0 : 1) : 0;
        CHECK_CLOSE(values[i], expected, 1e-13 * first[0] * (t == 0 ? 1e50 : 1));
      }
      CHECK(t == 4 ? others >= count : others == count);
      if (t != 3) CHECK_CLOSE(tt_entropy(values, others, 1), tt_entropy(first, count, 1), 1e-12);
    }
  }
  for (int t = 0; t < 5; t++) tt_free(&changed[t]);
  free(built.memory);
}

// The report of compressing and the spectrum of the result agree when nothing was cut.
static void entropy_test_report(void) {
  tt_shape shape = shape_of_table(5);
  tt_options options = test_options();
  double *dense = compress_random(36, 36), values[64];
  tt_report report;
  tt_matrix w;
  options.dtype = TT_F64;
  CHECK_STATUS(tt_compress_f64(dense, 36, 36, &shape, &options, &w, &report), TT_OK);
  for (int bond = 0; bond < 3; bond++) {
    int count = 64;
    CHECK_STATUS(tt_spectrum(&w, bond, values, &count), TT_OK);
    CHECK_CLOSE(tt_entropy(values, count, 1), report.entropy[bond], 1e-11);
    CHECK_CLOSE(compress_norm(count, values), report.norm, 1e-12 * report.norm);
  }
  tt_free(&w);
  free(dense);
}

static void entropy_test_errors(void) {
  tt_shape shape = train_shape(5, 4);
  train_built built = train_build(&shape, 0, TT_F32, 0, TT_LEFT_TO_RIGHT, 0);
  tt_matrix bad = built.w;
  double values[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
  int count = 3;
  CHECK_STATUS(tt_spectrum(&built.w, 1, values, &count), TT_ERROR_INVALID);
  CHECK(count == 4 && values[0] == -1); // what would be needed
  CHECK_STATUS(tt_spectrum(&built.w, 1, values, &count), TT_OK);
  CHECK(count == 4 && values[3] >= 0 && values[4] == -1);
  count = 8;
  CHECK_STATUS(tt_spectrum(&built.w, -1, values, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_spectrum(&built.w, 3, values, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_spectrum(NULL, 0, values, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_spectrum(&built.w, 0, values, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_spectrum(&built.w, 0, NULL, &count), TT_ERROR_INVALID);
  bad.cores[3].data = NULL;
  count = 8;
  CHECK_STATUS(tt_spectrum(&bad, 0, values, &count), TT_ERROR_INVALID);
  float *core = test_floats(shape_core(&shape, 2));
  core[5] = NAN;
  bad = built.w;
  bad.cores[2].data = core;
  count = 8;
  CHECK_STATUS(tt_spectrum(&bad, 0, values, &count), TT_ERROR_NONFINITE);
  free(core);
  long calls = 0;
  for (long n = 0; n <= calls; n++) {
    test_heap heap;
    built.w.allocator = test_allocator(&heap);
    heap.fail_at = n;
    count = 8;
    CHECK_STATUS(tt_spectrum(&built.w, 2, values, &count), n ? TT_ERROR_MEMORY : TT_OK);
    if (n == 0) calls = heap.calls;
    CHECK(heap.live_blocks == 0);
  }
  free(built.memory);
}

// ---- the functions of a spectrum

static void entropy_test_flat(void) {
  static const double alphas[7] = {0, 0.3, 1, 1.0000001, 2, 5, (double)INFINITY};
  double values[40];
  for (int rank = 1; rank <= 40; rank++) {
    for (int t = 0; t < 7; t++) {
      for (int i = 0; i < 40; i++) values[i] = i < rank ? 0.37 : 0;
      CHECK_CLOSE(tt_entropy(values, rank, alphas[t]), log(rank), 1e-12);
      CHECK_CLOSE(tt_entropy(values, 40, alphas[t]), log(rank), 1e-12); // zeros do not count
    }
    CHECK_CLOSE(tt_effective_rank(values, 40), rank, 1e-12 * rank);
  }
}

static void entropy_test_renyi(void) {
  static const double alphas[9] = {0, 0.25, 0.5, 0.999, 1, 1.001, 2, 7, (double)INFINITY};
  double values[12], scaled[12], total = 0, square = 0;
  for (int i = 0; i < 12; i++) {
    values[i] = pow(0.7, i);
    total += values[i] * values[i];
    square += pow(values[i], 4);
  }
  CHECK_CLOSE(tt_entropy(values, 12, 1), compress_entropy(values, 12), 1e-14);
  CHECK_CLOSE(tt_entropy(values, 12, 0), log(12), 1e-14);
  CHECK_CLOSE(tt_entropy(values, 12, 2), -log(square / total / total), 1e-14);
  CHECK_CLOSE(tt_entropy(values, 12, (double)INFINITY), log(total),
              1e-14); // the largest value is 1
  CHECK_CLOSE(tt_entropy(values, 12, 200), log(total) * 200 / 199,
              1e-12); // only the largest is left
  CHECK_CLOSE(tt_entropy(values, 12, 1 - 1e-7), tt_entropy(values, 12, 1), 1e-6);
  CHECK_CLOSE(tt_entropy(values, 12, 1 + 1e-7), tt_entropy(values, 12, 1), 1e-6);
  CHECK_CLOSE(tt_entropy(values, 12, 1 + 1e-12), tt_entropy(values, 12, 1), 1e-6);
  CHECK_CLOSE(tt_entropy(values, 12, 1e-9), log(12), 1e-7);
  for (int t = 1; t < 9; t++)
    CHECK(tt_entropy(values, 12, alphas[t]) < tt_entropy(values, 12, alphas[t - 1]));
  for (int scale = -300; scale <= 300; scale += 100) {
    for (int i = 0; i < 12; i++) scaled[i] = values[i] * pow(10, scale);
    for (int t = 0; t < 9; t++)
      CHECK_CLOSE(tt_entropy(scaled, 12, alphas[t]), tt_entropy(values, 12, alphas[t]), 1e-12);
    CHECK_CLOSE(tt_effective_rank(scaled, 12), tt_effective_rank(values, 12), 1e-11);
  }
  CHECK_CLOSE(tt_effective_rank(values, 12), exp(tt_entropy(values, 12, 1)), 1e-12);
}

static void entropy_test_corners(void) {
  double zeros[3] = {0, 0, 0}, one[3] = {5, 0, 0}, steep[2] = {1, 1e-200};
  CHECK(tt_entropy(zeros, 3, 1) == 0 && tt_entropy(zeros, 3, 0) == 0 &&
        tt_entropy(zeros, 3, (double)INFINITY) == 0);
  CHECK(tt_entropy(NULL, 0, 1) == 0 && tt_entropy(one, 0, 2) == 0);
  CHECK(fabs(tt_entropy(one, 3, 1)) == 0 && fabs(tt_entropy(one, 3, 0)) == 0 &&
        fabs(tt_entropy(one, 3, 2)) == 0);
  CHECK(isnan(tt_entropy(one, 3, -1)) && isnan(tt_entropy(one, 3, (double)NAN)));
  CHECK(tt_effective_rank(zeros, 3) == 1 && tt_effective_rank(NULL, 0) == 1 &&
        tt_effective_rank(one, 3) == 1);
  CHECK_CLOSE(tt_entropy(steep, 2, 0), log(2), 1e-15); // non-zero, however small
  CHECK_CLOSE(tt_entropy(steep, 2, 1), 0, 1e-15);
}

static void test_entropy(void) {
  entropy_test_six_shapes();
  entropy_test_chains();
  entropy_test_uniform_blocks();
  entropy_test_singlets();
  entropy_test_invariances();
  entropy_test_report();
  entropy_test_errors();
  entropy_test_flat();
  entropy_test_renyi();
  entropy_test_corners();
}
