// Recompression of trains: the algebra of rounding, its error, its report, its edges.

static void round_check_report(const tt_matrix *before, const tt_matrix *w, const tt_report *report,
                               double norm, double slack) {
  int d = w->shape.order;
  double square = 0;
  CHECK(!memcmp(report->ranks, w->shape.ranks, sizeof(int) * (size_t)(d + 1)));
  CHECK(report->dense_params == w->rows * w->cols && report->params == tt_shape_params(&w->shape));
  CHECK_CLOSE(report->compression, (double)report->dense_params / (double)report->params,
              1e-12 * report->compression);
  CHECK_CLOSE(report->norm, norm, slack * norm);
  CHECK(report->position == -1);
  for (int k = 0; k < d - 1; k++) {
    CHECK(report->discarded[k] >= 0 && report->discarded[k] <= 1 + 1e-12);
    CHECK(report->entropy[k] >= 0 &&
          report->entropy[k] <= log((double)before->shape.ranks[k + 1]) + 1e-9);
    CHECK(report->limit[k] >= TT_LIMIT_NONE && report->limit[k] <= TT_LIMIT_EPSILON);
    CHECK(w->shape.ranks[k + 1] <= before->shape.ranks[k + 1]); // never raises a rank
    square += report->discarded[k] * report->discarded[k];
  }
  if (w->cores[0].dtype == TT_F64) CHECK_CLOSE(report->relative_error, sqrt(square), 1e-12);
}

static void round_check_case(int index, int padded, tt_dtype dtype, int sweep) {
  static const double epsilons[4] = {0, 1e-8, 0.05, 0.4};
  static const int caps[3] = {0, 2, 50};
  tt_shape shape = train_shape(index, 5);
  train_built a = train_build(&shape, padded, dtype, 4, sweep, 1);
  tt_matrix whole = train_padded_view(&a.w);
  ptrdiff_t count = whole.rows * whole.cols;
  double *dense = train_dense(&whole), norm = compress_norm(count, dense),
         slack = dtype < 2 ? 1e-12 : 1e-6;
  for (int step = 0; step < 12; step++) {
    tt_options options = test_options();
    tt_matrix c;
    tt_report report;
    options.dtype = TT_F64;
    options.epsilon = epsilons[step / 3];
    options.max_rank = caps[step % 3];
    CHECK_STATUS(tt_round(&a.w, &options, &c, &report), TT_OK);
    if (!c.block) continue;
    train_check_form(&c, a.w.rows, a.w.cols, TT_F64);
    round_check_report(&a.w, &c, &report, norm, slack);
    CHECK(c.bias && !memcmp(c.bias, a.w.bias, sizeof(float) * (size_t)a.w.rows));
    tt_matrix result = train_padded_view(&c);
    double error = compress_error(&result, dense);
    CHECK_CLOSE(error, report.relative_error, slack);
    if (options.max_rank != 2) CHECK_AT_MOST(error, options.epsilon + slack);
    for (int k = 1; k < c.shape.order; k++)
      if (options.max_rank) CHECK(c.shape.ranks[k] <= options.max_rank);
    compress_check_theorem(dense, &result, &report, slack);
    tt_free(&c);
  }
  free(dense);
  free(a.memory);
}

static void round_test_six_shapes(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++)
    for (int d = 0; d < 10; d++)
      for (int variant = 0; variant < 4; variant++)
        round_check_case(index, variant & 1, train_dtypes[d], variant >> 1);
}

// Peer results: ranks that only exist on paper vanish, caps hold.
static void round_test_useful_ranks(void) {
  int rows[5] = {2, 1, 4, 3, 3}, ranks[6] = {1, 15, 15, 15, 15, 1}, useful[6] = {1, 2, 2, 8, 3, 1},
      capped[6] = {1, 2, 2, 5, 3, 1};
  int ones[5] = {1, 1, 1, 1, 1};
  tt_shape shape = test_shape(5, rows, ones, ranks);
  tt_matrix a = test_train(&shape), c;
  tt_options options = test_options();
  double *dense = train_dense(&a);
  options.dtype = TT_F64;
  options.max_rank = 9;
  CHECK_STATUS(tt_round(&a, &options, &c, NULL), TT_OK);
  for (int k = 0; k <= 5; k++) CHECK(c.shape.ranks[k] == useful[k]);
  train_check_dense(&c, dense, 1e-13); // nothing was lost
  tt_free(&c);
  options.max_rank = 5;
  CHECK_STATUS(tt_round(&a, &options, &c, NULL), TT_OK);
  for (int k = 0; k <= 5; k++) CHECK(c.shape.ranks[k] == capped[k]);
  tt_free(&c);
  free(dense);
  tt_free(&a);
}

static tt_matrix round_to(const tt_matrix *w, double epsilon) {
  tt_options options = test_options();
  tt_matrix c;
  options.dtype = TT_F64;
  options.epsilon = epsilon;
  CHECK_STATUS(tt_round(w, &options, &c, NULL), TT_OK);
  return c;
}

// ||a - b|| / ||b|| from the trains alone.
static double round_distance(const tt_matrix *a, const tt_matrix *b) {
  tt_matrix negative, difference;
  double distance = -1, norm = 0;
  CHECK_STATUS(tt_scale(a, -1, NULL, &negative), TT_OK);
  CHECK_STATUS(tt_add(&negative, b, NULL, &difference), TT_OK);
  CHECK_STATUS(tt_norm(&difference, &distance), TT_OK);
  CHECK_STATUS(tt_norm(b, &norm), TT_OK);
  tt_free(&negative);
  tt_free(&difference);
  return norm > 0 ? distance / norm : distance;
}

static void round_test_ones(void) {
  tt_matrix w = train_constant(8, 2, 1), sum, c;
  CHECK_STATUS(tt_add(&w, &w, NULL, &sum), TT_OK);
  for (int k = 1; k < 8; k++) CHECK(sum.shape.ranks[k] == 2);
  c = round_to(&sum, 1e-14);
  for (int k = 1; k < 8; k++) CHECK(c.shape.ranks[k] == 1);
  CHECK_CLOSE(round_distance(&c, &sum), 0, 1e-14);
  tt_free(&c);
  tt_free(&sum);
  tt_free(&w);
  w = train_constant(16, 10, 1e13); // norm 1e216, whose square overflows
  for (int step = 0; step < 50; step++) {
    CHECK_STATUS(tt_add(&w, &w, NULL, &sum), TT_OK);
    tt_free(&w);
    w = round_to(&sum, 1e-12);
    tt_free(&sum);
    for (int k = 1; k < 16; k++) CHECK(w.shape.ranks[k] == 1);
  }
  double norm = 0;
  CHECK_STATUS(tt_norm(&w, &norm), TT_OK);
  CHECK_CLOSE(norm / ldexp(1e108, 50) / 1e108, 1, 1e-10);
  tt_free(&w);
}

// A sum of four rank-1 terms of weights 1, 1e-3, 1e-6, 1e-9: each tolerance keeps the terms above
// it.
static void round_test_four_terms(void) {
  int legs[3] = {20, 30, 32}, ones[3] = {1, 1, 1}, ranks[4] = {1, 1, 1, 1};
  tt_shape shape = test_shape(3, legs, ones, ranks);
  tt_matrix sum, term, next;
  tt_options options = test_options();
  options.dtype = TT_F64;
  for (int t = 0; t < 4; t++) {
    double norm = 1;
    CHECK_STATUS(tt_create(&shape, 20 * 30 * 32, 1, &options, &term), TT_OK);
    for (int k = 0; k < 3; k++) {
      double *core = (double *)tt_core_data(&term, k);
      for (int i = 0; i < legs[k]; i++) core[i] = test_uniform();
    }
    CHECK_STATUS(tt_norm(&term, &norm), TT_OK);
    CHECK_STATUS(tt_scale(&term, pow(1e-3, t) / norm, NULL, &next), TT_OK);
    tt_free(&term);
    if (t == 0) {
      sum = next;
      continue;
    }
    CHECK_STATUS(tt_add(&sum, &next, NULL, &term), TT_OK);
    tt_free(&sum);
    tt_free(&next);
    sum = term;
  }
  for (int t = 1; t <= 3; t++) {
    double epsilon = pow(1e-3, t);
    tt_matrix c = round_to(&sum, epsilon);
    CHECK(c.shape.ranks[1] == t && c.shape.ranks[2] == t);
    CHECK_AT_MOST(round_distance(&c, &sum), epsilon);
    tt_free(&c);
  }
  tt_free(&sum);
}

// Against the dense matrix cut bond by bond, at norm 4.2 and far from it.
static void round_test_against_dense_cuts(void) {
  static const double scales[3] = {4.2, 1e80, 1e-80};
  for (int t = 0; t < 3; t++) {
    tt_shape shape = train_shape(5, 6);
    tt_matrix a = test_train(&shape), scaled, c;
    tt_options options = test_options();
    double *dense = test_doubles(36 * 36), norm = 1;
    CHECK_STATUS(tt_norm(&a, &norm), TT_OK);
    CHECK_STATUS(tt_scale(&a, 4.2 / norm, NULL, &scaled), TT_OK);
    CHECK_STATUS(tt_expand_f64(&scaled, dense), TT_OK);
    tt_free(&a);
    CHECK_STATUS(tt_scale(&scaled, scales[t] / 4.2, NULL, &a), TT_OK);
    options.dtype = TT_F64;
    options.max_rank = 2;
    CHECK_STATUS(tt_round(&a, &options, &c, NULL), TT_OK);
    tt_free(&a);
    CHECK_STATUS(tt_scale(&c, 4.2 / scales[t], NULL, &a), TT_OK);
    CHECK_AT_MOST(compress_distance_to_oracle(dense, &a, 2), 1e-11);
    tt_free(&a);
    tt_free(&c);
    tt_free(&scaled);
    free(dense);
  }
}

// a + 0, a + a, a - 2a and a + 0 b come back with the ranks of a.
static void round_test_algebra(void) {
  static const double factors[4] = {0, 1, -2, 0};
  static const double results[4] = {1, 2, -1, 1};
  for (int index = 1; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 3);
    tt_matrix a = test_train(&shape), b = test_train(&shape), other, sum, c, expected;
    for (int t = 0; t < 4; t++) {
      CHECK_STATUS(tt_scale(t == 3 ? &b : &a, factors[t], NULL, &other), TT_OK);
      CHECK_STATUS(tt_add(&a, &other, NULL, &sum), TT_OK);
      c = round_to(&sum, 1e-12);
      CHECK(!memcmp(c.shape.ranks, shape.ranks, sizeof shape.ranks));
      CHECK_STATUS(tt_scale(&a, results[t], NULL, &expected), TT_OK);
      CHECK_AT_MOST(round_distance(&c, &expected), 1e-12);
      tt_free(&other);
      tt_free(&sum);
      tt_free(&c);
      tt_free(&expected);
    }
    tt_free(&a);
    tt_free(&b);
  }
}

// Random trains that are too large to expand: t + t rounds to twice t at the ranks of t.
static void round_test_random_trains(void) {
  for (int trial = 0; trial < 40; trial++) {
    int order = 8 + test_below(2), legs[9], ones[9], ranks[10];
    for (int k = 0; k < order; k++) {
      legs[k] = 1 + test_below(7);
      ones[k] = 1;
      ranks[k + 1] = 1 + test_below(9);
    }
    ranks[0] = ranks[order] = 1;
    tt_shape shape = test_shape(order, legs, ones, ranks);
    tt_matrix t = test_train(&shape), sum, twice, c = round_to(&t, 1e-8), d;
    CHECK_AT_MOST(round_distance(&c, &t), 1e-8);
    CHECK_STATUS(tt_add(&t, &t, NULL, &sum), TT_OK);
    CHECK_STATUS(tt_scale(&t, 2, NULL, &twice), TT_OK);
    d = round_to(&sum, 1e-8);
    CHECK_AT_MOST(round_distance(&d, &twice), 1e-8);
    for (int k = 0; k <= order; k++)
      CHECK(d.shape.ranks[k] == c.shape.ranks[k] && c.shape.ranks[k] <= ranks[k]);
    tt_free(&t);
    tt_free(&sum);
    tt_free(&twice);
    tt_free(&c);
    tt_free(&d);
  }
}

static void round_test_five_to_the_fourth(void) {
  int legs[4] = {5, 5, 5, 5}, ones[4] = {1, 1, 1, 1};
  tt_shape shape = test_shape(4, legs, ones, NULL);
  CHECK_STATUS(tt_shape_clip(&shape, 0), TT_OK);
  tt_matrix a = test_train(&shape), c = round_to(&a, 0.03);
  CHECK_AT_MOST(round_distance(&c, &a), 0.03);
  tt_free(&c);
  c = round_to(&a, 0); // nothing may be lost without tolerance and cap
  CHECK(!memcmp(c.shape.ranks, a.shape.ranks, sizeof a.shape.ranks));
  CHECK_AT_MOST(round_distance(&c, &a), 1e-13);
  tt_free(&c);
  tt_free(&a);
}

// Compressing the expansion of a train finds its ranks again, and rounding agrees with compressing.
static void round_test_with_compress(void) {
  for (int index = 1; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 3);
    tt_matrix a = test_train(&shape), b, c;
    ptrdiff_t count = a.rows * a.cols;
    double *dense = test_doubles(count);
    tt_options options = test_options();
    tt_report first, second;
    options.dtype = TT_F64;
    options.epsilon = 1e-9;
    CHECK_STATUS(tt_expand_f64(&a, dense), TT_OK);
    shape = shape_of_table(index);
    CHECK_STATUS(tt_compress_f64(dense, a.rows, a.cols, &shape, &options, &b, &first), TT_OK);
    CHECK(!memcmp(b.shape.ranks, a.shape.ranks, sizeof shape.ranks));
    CHECK_AT_MOST(compress_error(&b, dense), 1e-9);
    tt_free(&b);
    options.epsilon = 0;
    options.max_rank = 1;
    CHECK_STATUS(tt_compress_f64(dense, a.rows, a.cols, &shape, &options, &b, &first), TT_OK);
    CHECK_STATUS(tt_round(&a, &options, &c, &second), TT_OK);
    CHECK_AT_MOST(second.relative_error,
                  2 * first.relative_error + 1e-12); // both within sqrt(order-1) of the best
    CHECK_AT_MOST(first.relative_error, 2 * second.relative_error + 1e-12);
    tt_free(&b);
    tt_free(&c);
    tt_free(&a);
    free(dense);
  }
}

static void round_test_huge(void) { // norm 1e200: tolerance and report do not overflow
  tt_shape shape = train_shape(5, 5);
  tt_matrix a = test_train(&shape), scaled, c, small;
  tt_options options = test_options();
  tt_report report, reference;
  double norm = 0;
  options.dtype = TT_F64;
  options.epsilon = 0.2;
  CHECK_STATUS(tt_norm(&a, &norm), TT_OK);
  CHECK_STATUS(tt_scale(&a, 1e200 / norm, NULL, &scaled), TT_OK);
  CHECK_STATUS(tt_round(&scaled, &options, &c, &report), TT_OK);
  CHECK_STATUS(tt_round(&a, &options, &small, &reference), TT_OK);
  CHECK_CLOSE(report.norm / 1e200, 1, 1e-12);
  CHECK_CLOSE(report.relative_error, reference.relative_error, 1e-12);
  CHECK(!memcmp(report.ranks, reference.ranks, sizeof report.ranks));
  CHECK_AT_MOST(round_distance(&c, &scaled), 0.2);
  tt_free(&a);
  tt_free(&scaled);
  tt_free(&c);
  tt_free(&small);
}

static void round_test_zero(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 4);
    tt_options options = test_options();
    tt_matrix w, c;
    tt_report report;
    options.dtype = TT_F64;
    CHECK_STATUS(tt_create(&shape, shape_rows(&shape), shape_cols(&shape), &options, &w), TT_OK);
    options.epsilon = 0.1;
    CHECK_STATUS(tt_round(&w, &options, &c, &report), TT_OK);
    CHECK(report.relative_error == 0 && report.norm == 0);
    for (int k = 1; k < shape.order; k++)
      CHECK(c.shape.ranks[k] == 1 && report.entropy[k - 1] == 0);
    double *zero = test_doubles(w.rows * w.cols);
    train_check_dense(&c, zero, 0);
    free(zero);
    tt_free(&c);
    tt_free(&w);
  }
}

static void round_test_limits(void) {
  tt_shape shape = train_shape(5, 5);
  tt_matrix a = test_train(&shape), c;
  tt_options options = test_options();
  tt_report report;
  options.dtype = TT_F64;
  options.max_rank = 3;
  CHECK_STATUS(tt_round(&a, &options, &c, &report), TT_OK);
  for (int k = 0; k < 3; k++) CHECK(c.shape.ranks[k + 1] == 3 && report.limit[k] == TT_LIMIT_CAP);
  tt_free(&c);
  options.max_rank = 0;
  options.epsilon = 3;
  CHECK_STATUS(tt_round(&a, &options, &c, &report), TT_OK);
  for (int k = 0; k < 3; k++)
    CHECK(c.shape.ranks[k + 1] == 1 && report.limit[k] == TT_LIMIT_EPSILON);
  tt_free(&c);
  options.epsilon = -1;
  CHECK_STATUS(tt_round(&a, &options, &c, &report), TT_ERROR_INVALID);
  tt_free(&a);
}

static void test_round(void) {
  round_test_six_shapes();
  round_test_useful_ranks();
  round_test_ones();
  round_test_four_terms();
  round_test_against_dense_cuts();
  round_test_algebra();
  round_test_random_trains();
  round_test_five_to_the_fourth();
  round_test_with_compress();
  round_test_huge();
  round_test_zero();
  round_test_limits();
}
