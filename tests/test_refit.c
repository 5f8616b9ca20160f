// Fits in the metric of the outputs: the closed form where there is one, theorems elsewhere (never
// worse than the plain train, monotone sweeps, planted ranks, exactness at full rank), on singular
// statistics, padded shapes and hostile arguments.

// Statistics of correlated samples: `rank` independent directions with falling strength, a mean,
// one input without any variation.
static tt_inputs *refit_inputs(ptrdiff_t n, ptrdiff_t count, int rank, int diagonal) {
  tt_options options = test_options();
  tt_inputs *inputs;
  float *x = test_floats(count * n), *mix = test_normal_floats((ptrdiff_t)rank * n);
  for (ptrdiff_t i = 0; i < count; i++) {
    for (int t = 0; t < rank; t++) {
      double strength = test_normal() / (1 + 0.5 * t);
      for (ptrdiff_t j = 0; j < n; j++) x[i * n + j] += (float)(strength * (double)mix[t * n + j]);
    }
    for (ptrdiff_t j = 0; j < n; j++) x[i * n + j] += (float)(0.5 + 0.01 * (double)j);
    if (n > 1) x[i * n + n - 1] = 1;
  }
  options.diagonal_inputs = diagonal;
  CHECK_STATUS(tt_inputs_create(n, &options, &inputs), TT_OK);
  CHECK_STATUS(tt_inputs_add(inputs, x, count), TT_OK);
  free(x);
  free(mix);
  return inputs;
}

// The covariance with the ridge of the library, documented as 1e-3 of the mean variance.
static double *refit_covariance(const tt_inputs *inputs) {
  ptrdiff_t n = tt_inputs_cols(inputs);
  double *c = test_doubles(n * n), trace = 0;
  CHECK_STATUS(tt_inputs_moments(inputs, NULL, c), TT_OK);
  for (ptrdiff_t i = 0; i < n; i++) trace += c[i * n + i];
  for (ptrdiff_t i = 0; i < n; i++) c[i * n + i] += trace > 0 ? 1e-3 * trace / (double)n : 1;
  return c;
}

// sum_i weight_i e_i C e_i^T; NULL = 1 and the identity.
static double refit_square(ptrdiff_t m, ptrdiff_t n, const double *e, const double *c,
                           const float *weights) {
  double sum = 0;
  for (ptrdiff_t i = 0; i < m; i++)
    for (ptrdiff_t a = 0; a < n; a++)
      for (ptrdiff_t b = c ? 0 : a; b < (c ? n : a + 1); b++)
        sum += (weights ? (double)weights[i] : 1) * e[i * n + a] * e[i * n + b] *
               (c ? c[a * n + b] : 1);
  return sum;
}

static double *refit_difference(const tt_matrix *w, const float *dense) {
  double *e = test_doubles(w->rows * w->cols);
  CHECK_STATUS(tt_expand_f64(w, e), TT_OK);
  for (ptrdiff_t i = 0; i < w->rows * w->cols; i++) e[i] = (double)dense[i] - e[i];
  return e;
}

// Smallest possible value of refit_square for rank r: the tail of the singular values of
// D^1/2 W L, by an eigenvalue problem of its own: those of D^1/2 W C W^T D^1/2.
static double refit_optimum(ptrdiff_t m, ptrdiff_t n, const float *w, const double *c,
                            const float *weights, int rank) {
  double *gram = test_doubles(m * m), *values = test_doubles(m), sum = 0;
  for (ptrdiff_t i = 0; i < m; i++)
    for (ptrdiff_t k = 0; k < m; k++)
      for (ptrdiff_t a = 0; a < n; a++) {
        double part = 0;
        for (ptrdiff_t b = 0; b < n; b++)
          part += (c ? c[a * n + b] : a == b) * (double)w[k * n + b];
        gram[i * m + k] += part * (double)w[i * n + a] *
                           (weights ? sqrt((double)weights[i] * (double)weights[k]) : 1);
      }
  CHECK_STATUS(tt_eigh_f64(m, gram, m, values, NULL, m, NULL), TT_OK);
  for (ptrdiff_t i = rank; i < m; i++) sum += values[i] > 0 ? values[i] : 0;
  free(gram);
  free(values);
  return sum;
}

static tt_options refit_options(const tt_inputs *inputs, const float *weights) {
  tt_options options = test_options();
  options.inputs = inputs;
  options.row_weights = weights;
  options.dtype = TT_F64;
  return options;
}

// Low rank reaches the closed form: with inputs, with weights (one of them 0), with both.
static void refit_test_closed_form(void) {
  enum { M = 14, N = 18 };
  static const int rows[2] = {M, 1}, cols[2] = {1, N};
  float *w = test_normal_floats(M * N), weights[M];
  for (int kind = 1; kind < 8; kind++)
    for (int rank = 1; rank <= M; rank += 3) {
      tt_inputs *inputs = kind & 1 ? refit_inputs(N, 9, 6, kind & 4) : NULL;
      double *c = inputs ? refit_covariance(inputs) : NULL;
      for (int i = 0; i < M; i++) weights[i] = (float)((i % 5) * (i + 1));
      tt_options options = refit_options(inputs, kind & 2 ? weights : NULL);
      tt_shape shape = test_shape(2, rows, cols, NULL);
      tt_report report;
      tt_matrix train;
      options.max_rank = rank;
      CHECK_STATUS(tt_compress(w, M, N, &shape, &options, &train, &report), TT_OK);
      double *e = refit_difference(&train, w);
      double optimum = refit_optimum(M, N, w, c, options.row_weights, rank);
      double whole = refit_optimum(M, N, w, c, options.row_weights, 0);
      double reached = refit_square(M, N, e, c, options.row_weights);
      CHECK_CLOSE(reached, optimum, 1e-9 * whole);
      CHECK((train.bias != NULL) == (inputs != NULL));
      if (!(kind & 2)) CHECK(inputs ? report.functional_error <= sqrt(optimum / whole) * 1.2 + 1e-6
                                    : report.functional_error == 0);
      for (int i = 0; i < M && rank == M; i++)               // rows without weight follow too
        for (int j = 0; j < N; j++) CHECK_CLOSE(e[i * N + j], 0, 1e-5);
      free(e);
      free(c);
      tt_free(&train);
      tt_inputs_free(inputs);
    }
  free(w);
}

// A row without weight gets what the right factor can give: its own least-squares fit.
static void refit_test_free_rows(void) {
  enum { M = 6, N = 8 };
  static const int rows[2] = {M, 1}, cols[2] = {1, N};
  float *w = test_normal_floats(M * N), weights[M] = {1, 2, 0, 1, 0, 3};
  tt_options options = refit_options(NULL, weights);
  tt_shape shape = test_shape(2, rows, cols, NULL);
  tt_matrix train;
  options.max_rank = 2;
  CHECK_STATUS(tt_compress(w, M, N, &shape, &options, &train, NULL), TT_OK);
  double *e = refit_difference(&train, w);
  const double *right = (const double *)train.cores[1].data;
  for (int i = 0; i < M; i++)
    for (int b = 0; b < 2; b++) CHECK_CLOSE(tt__dot(N, e + i * N, right + b * N), 0, 1e-6);
  free(e);
  free(w);
  tt_free(&train);
}

// E||y - y^||^2 / E||y - E y||^2 sample by sample.
static double refit_measured(const tt_matrix *train, const float *w, const float *bias,
                             const float *x, ptrdiff_t count) {
  ptrdiff_t m = train->rows, n = train->cols;
  double *dense = test_doubles(m * n), *mean = test_doubles(m), lost = 0, whole = 0;
  CHECK_STATUS(tt_expand_f64(train, dense), TT_OK);
  for (int pass = 0; pass < 2; pass++)
    for (ptrdiff_t s = 0; s < count; s++)
      for (ptrdiff_t i = 0; i < m; i++) {
        double y = bias ? (double)bias[i] : 0, z = train->bias ? (double)train->bias[i] : 0;
        for (ptrdiff_t j = 0; j < n; j++) {
          y += (double)w[i * n + j] * (double)x[s * n + j];
          z += dense[i * n + j] * (double)x[s * n + j];
        }
        if (pass == 0) mean[i] += y / (double)count;
        else lost += (y - z) * (y - z);
        whole += pass ? (y - mean[i]) * (y - mean[i]) : 0;
      }
  free(dense);
  free(mean);
  return sqrt(lost / whole);
}

static void refit_test_functional_error(void) {
  enum { M = 12, N = 15, COUNT = 40 };
  float *w = test_normal_floats(M * N), *x = test_normal_floats(COUNT * N),
        *bias = test_normal_floats(M), *zero = test_floats(N);
  tt_inputs *inputs, *constant;
  double measured;
  CHECK_STATUS(tt_inputs_create(N, NULL, &inputs), TT_OK);
  CHECK_STATUS(tt_inputs_create(N, NULL, &constant), TT_OK);
  CHECK_STATUS(tt_functional_error(NULL, w, bias, inputs, &measured), TT_ERROR_INVALID);
  for (ptrdiff_t i = 0; i < COUNT * N; i++) x[i] += 2;
  CHECK_STATUS(tt_inputs_add(inputs, x, COUNT), TT_OK);
  CHECK_STATUS(tt_inputs_add(constant, zero, 1), TT_OK);
  for (int with_bias = 0; with_bias < 2; with_bias++)
    for (int fitted = 0; fitted < 2; fitted++) {
      tt_shape shape;
      tt_matrix train;
      tt_report report;
      tt_options options = refit_options(fitted ? inputs : NULL, NULL);
      options.max_rank = 3;
      options.bias = with_bias ? bias : NULL;
      options.dtype = fitted ? TT_I8 : TT_F32;
      CHECK_STATUS(tt_shape_factor(M, N, 2, &shape), TT_OK);
      CHECK_STATUS(tt_compress(w, M, N, &shape, &options, &train, &report), TT_OK);
      double wanted = refit_measured(&train, w, with_bias ? bias : NULL, x, COUNT);
      CHECK_STATUS(tt_functional_error(&train, w, options.bias, inputs, &measured), TT_OK);
      CHECK_CLOSE(measured, wanted, 1e-6 * wanted);
      if (fitted) CHECK_CLOSE(report.functional_error, wanted, 1e-5 * wanted);
      else CHECK(report.functional_error == 0 && (train.bias != NULL) == with_bias);
      for (int i = 0; i < M && with_bias && !fitted; i++) CHECK(train.bias[i] == bias[i]);
      // outputs that never vary: met exactly or not at all
      CHECK_STATUS(tt_functional_error(&train, w, train.bias, constant, &measured), TT_OK);
      CHECK(measured == 0);
      if (train.bias) {
        CHECK_STATUS(tt_functional_error(&train, w, NULL, constant, &measured), TT_OK);
        CHECK(measured > 1e300);
      }
      tt_free(&train);
    }
  tt_matrix view = tt_dense_view(w, M, N);
  CHECK_STATUS(tt_functional_error(&view, w, NULL, inputs, &measured), TT_OK);
  CHECK(measured == 0);
  CHECK_STATUS(tt_functional_error(&view, NULL, NULL, inputs, &measured), TT_ERROR_INVALID);
  CHECK_STATUS(tt_functional_error(&view, w, NULL, NULL, &measured), TT_ERROR_INVALID);
  CHECK_STATUS(tt_functional_error(&view, w, NULL, inputs, NULL), TT_ERROR_INVALID);
  view.cols--;
  CHECK_STATUS(tt_functional_error(&view, w, NULL, inputs, &measured), TT_ERROR_INVALID);
  view.cols++;
  bias[3] = (float)NAN;
  CHECK_STATUS(tt_functional_error(&view, w, bias, inputs, &measured), TT_ERROR_NONFINITE);
  tt_inputs_free(constant);
  CHECK_STATUS(tt_inputs_create(N, NULL, &constant), TT_OK); // no samples
  CHECK_STATUS(tt_functional_error(&view, w, NULL, constant, &measured), TT_ERROR_INVALID);
  tt_inputs_free(inputs);
  tt_inputs_free(constant);
  free(w);
  free(x);
  free(bias);
  free(zero);
}

// The plain train of the same ranks with the bias corrected: what a fit must never fall behind.
static double refit_plain_error(const float *w, ptrdiff_t m, ptrdiff_t n, const tt_shape *shape,
                                const tt_inputs *inputs, double *out_square) {
  tt_options options = refit_options(NULL, NULL);
  tt_matrix train;
  double error = 0, *mean = test_doubles(n);
  float *bias = test_floats(m);
  CHECK_STATUS(tt_compress(w, m, n, shape, &options, &train, NULL), TT_OK);
  CHECK_STATUS(tt_inputs_moments(inputs, mean, NULL), TT_OK);
  double *e = refit_difference(&train, w);
  for (ptrdiff_t i = 0; i < m; i++) bias[i] = (float)tt__dot(n, e + i * n, mean);
  train.bias = bias;
  CHECK_STATUS(tt_functional_error(&train, w, NULL, inputs, &error), TT_OK);
  double *c = refit_covariance(inputs);
  *out_square = refit_square(m, n, e, c, NULL);
  free(c);
  free(e);
  free(mean);
  train.bias = NULL;
  tt_free(&train);
  free(bias);
  return error;
}

static void refit_check_shape(int index, int padded, int kind) {
  tt_shape shape = train_shape(index, 3);
  ptrdiff_t m, n;
  shape_true_size(&shape, padded, &m, &n);
  float *w = test_normal_floats(m * n), *weights = test_floats(m);
  for (ptrdiff_t i = 0; i < m; i++) weights[i] = (float)(1 + i % 4);
  // fewer samples than columns, so that the covariance is singular, and many
  tt_inputs *inputs = refit_inputs(n, kind == 1 ? 200 : 4, 3, kind == 2);
  double square, plain = refit_plain_error(w, m, n, &shape, inputs, &square);
  tt_options options = refit_options(inputs, kind == 3 ? weights : NULL);
  tt_matrix train;
  tt_report report;
  CHECK_STATUS(tt_compress(w, m, n, &shape, &options, &train, &report), TT_OK);
  train_check_form(&train, m, n, TT_F64);
  if (kind < 2) CHECK_AT_MOST(report.functional_error, plain * (1 + 1e-6) + 1e-6);
  double *c = refit_covariance(inputs), *e = refit_difference(&train, w);
  CHECK_CLOSE(report.relative_error, sqrt(refit_square(m, n, e, NULL, NULL)) / report.norm, 1e-6);
  if (kind < 2) CHECK_AT_MOST(refit_square(m, n, e, c, NULL), square * (1 + 1e-9) + 1e-12);
  CHECK(train.bias != NULL && tt__valid(&train));
  for (int k = 0; k <= shape.order; k++) CHECK(train.shape.ranks[k] <= shape.ranks[k]);
  // the same through the train of the dense matrix
  tt_matrix rounded;
  CHECK_STATUS(tt_round(&train, &options, &rounded, &report), TT_OK);
  CHECK_AT_MOST(report.relative_error, 1e-6);                // it has these ranks already
  CHECK(rounded.bias != NULL);
  for (ptrdiff_t i = 0; i < m; i++) CHECK_CLOSE(rounded.bias[i], train.bias[i], 1e-4);
  tt_free(&rounded);
  tt_free(&train);
  free(c);
  free(e);
  tt_inputs_free(inputs);
  free(w);
  free(weights);
}

static void refit_test_six_shapes(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++)
    for (int padded = 0; padded < 2; padded++)
      for (int kind = 0; kind < 4; kind++) refit_check_shape(index, padded, kind);
}

// At full ranks nothing is lost, whatever the statistics.
static void refit_test_exact(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = shape_of_table(index);
    ptrdiff_t m = shape_rows(&shape), n = shape_cols(&shape);
    float *w = test_normal_floats(m * n);
    tt_inputs *inputs = refit_inputs(n, 7, 4, 0);
    tt_options options = refit_options(inputs, NULL);
    tt_matrix train;
    tt_report report;
    CHECK_STATUS(tt_compress(w, m, n, &shape, &options, &train, &report), TT_OK);
    CHECK_AT_MOST(report.relative_error, 1e-12);
    CHECK_AT_MOST(report.functional_error, 1e-6);            // the bias is a float
    tt_free(&train);
    tt_inputs_free(inputs);
    free(w);
  }
}

// Sixteen cores, most of them with legs of 1, and prime legs.
static void refit_test_orders(void) {
  static const int rows[16] = {1, 2, 1, 2, 1, 1, 2, 1, 3, 1, 1, 1, 1, 2, 1, 1},
                   cols[16] = {1, 1, 2, 1, 1, 2, 1, 1, 1, 5, 1, 2, 1, 1, 1, 2},
                   primes[3][2] = {{13, 11}, {7, 1}, {1, 17}};
  for (int kind = 0; kind < 4; kind++) {
    tt_shape shape;
    if (kind == 0) shape = test_shape(16, rows, cols, NULL);
    else shape = test_shape(2, primes[kind - 1], primes[3 - kind], NULL);
    ptrdiff_t m = shape_rows(&shape), n = shape_cols(&shape);
    float *w = test_normal_floats(m * n);
    tt_inputs *inputs = refit_inputs(n, 50, 6, 0);
    tt_options options = refit_options(inputs, NULL);
    tt_matrix train, coded;
    tt_report report;
    options.max_rank = 3;
    tt_shape capped = shape;
    CHECK_STATUS(tt_shape_clip(&capped, 3), TT_OK);
    double square, plain = refit_plain_error(w, m, n, &capped, inputs, &square);
    CHECK_STATUS(tt_compress(w, m, n, &shape, &options, &train, &report), TT_OK);
    CHECK_AT_MOST(report.functional_error, plain * (1 + 1e-6) + 1e-6);
    CHECK_STATUS(tt_quantize(&train, TT_I8, TT_GROUP_ROW, &options, &coded, &report), TT_OK);
    CHECK_AT_MOST(report.functional_error, 0.1);
    tt_free(&train);
    tt_free(&coded);
    tt_inputs_free(inputs);
    free(w);
  }
}

// epsilon bounds the functional error with inputs and the weighted one with weights; caps win.
static void refit_test_epsilon(void) {
  static const double epsilons[3] = {0.5, 0.1, 0.003};
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++)
    for (int step = 0; step < 3; step++)
      for (int kind = 0; kind < 2; kind++) {
        tt_shape shape = shape_of_table(index);
        ptrdiff_t m = shape_rows(&shape), n = shape_cols(&shape);
        float *w = test_normal_floats(m * n), *weights = test_floats(m);
        for (ptrdiff_t i = 0; i < m; i++) weights[i] = (float)((i + 1) * (i + 1));
        tt_inputs *inputs = refit_inputs(n, 60, 8, 0);
        tt_options options = refit_options(kind ? NULL : inputs, kind ? weights : NULL);
        tt_matrix train;
        tt_report report;
        options.epsilon = epsilons[step];
        CHECK_STATUS(tt_compress(w, m, n, &shape, &options, &train, &report), TT_OK);
        double *e = refit_difference(&train, w), *full = test_doubles(m * n);
        for (ptrdiff_t i = 0; i < m * n; i++) full[i] = (double)w[i];
        if (kind == 0) CHECK_AT_MOST(report.functional_error, options.epsilon + 1e-6);
        else
          CHECK_AT_MOST(sqrt(refit_square(m, n, e, NULL, weights) /
                             refit_square(m, n, full, NULL, weights)), options.epsilon + 1e-9);
        tt_free(&train);
        options.max_rank = 1;
        CHECK_STATUS(tt_compress(w, m, n, &shape, &options, &train, &report), TT_OK);
        for (int k = 0; k <= shape.order; k++) CHECK(train.shape.ranks[k] == 1);
        tt_free(&train);
        tt_inputs_free(inputs);
        free(e);
        free(full);
        free(w);
        free(weights);
      }
}

// The scale of the matrix does not matter, not even at the ends of the range.
static void refit_test_scale(void) {
  enum { M = 16, N = 16 };
  static const double scales[] = {1, 0x1p100, 0x1p-130};
  float *w = test_normal_floats(M * N), *scaled = test_floats(M * N);
  tt_inputs *inputs = refit_inputs(N, 100, 8, 0);
  double first = 0;
  for (int i = 0; i < 3; i++) {
    static const int legs[2] = {4, 4};
    tt_shape shape = test_shape(2, legs, legs, NULL);
    tt_options options = refit_options(inputs, NULL);
    tt_matrix train;
    tt_report report;
    options.max_rank = 4;
    for (int k = 0; k < M * N; k++) scaled[k] = (float)(scales[i] * (double)w[k]);
    CHECK_STATUS(tt_compress(scaled, M, N, &shape, &options, &train, &report), TT_OK);
    if (i == 0) first = report.functional_error;
    CHECK_CLOSE(report.functional_error, first, 1e-4 * first);
    tt_free(&train);
  }
  tt_inputs_free(inputs);
  free(w);
  free(scaled);
}

// ---- sweeps

static tt_sweeps refit_sweeps(int sites, int max_sweeps, tt_sweep_log *log, int room) {
  tt_sweeps sweeps;
  memset(&sweeps, 0, sizeof sweeps);
  sweeps.sites = sites;
  sweeps.max_sweeps = max_sweeps;
  sweeps.log = log;
  sweeps.room = room;
  return sweeps;
}

// A random train of these ranks as a start.
static tt_matrix refit_start(tt_shape shape, int rank) {
  for (int k = 1; k < shape.order; k++) shape.ranks[k] = rank;
  CHECK_STATUS(tt_shape_clip(&shape, 0), TT_OK);
  return test_train(&shape);
}

// Two sites find planted ranks from rank 1; the target is a train or its dense matrix.
static void refit_test_planted(void) {
  for (int index = 1; index < SHAPE_TABLE_SIZE; index++)
    for (int dense = 0; dense < 2; dense++) {
      tt_shape shape = train_shape(index, 3);
      tt_matrix planted = test_train(&shape), start = refit_start(shape, 1), found;
      float *w = test_floats(planted.rows * planted.cols);
      CHECK_STATUS(tt_expand(&planted, w), TT_OK);
      tt_matrix view = tt_dense_view(w, planted.rows, planted.cols);
      tt_options options = refit_options(NULL, NULL);
      tt_report report;
      tt_sweep_log log[20];
      tt_sweeps sweeps = refit_sweeps(2, 20, log, 20);
      options.epsilon = dense ? 1e-5 : 1e-10;
      CHECK_STATUS(tt_refine(&start, dense ? &view : &planted, &options, &sweeps, &found, &report),
                   TT_OK);
      CHECK_AT_MOST(report.relative_error, dense ? 1e-5 : 1e-10);
      CHECK(!memcmp(found.shape.ranks, shape.ranks, sizeof shape.ranks));
      CHECK(sweeps.count >= 1 && sweeps.count <= 20);
      tt_sweep_log *last = &log[sweeps.count - 1];
      CHECK_CLOSE(last->error, report.relative_error, 1e-9);
      CHECK(!memcmp(last->ranks, shape.ranks, sizeof shape.ranks));
      for (int k = 0; k + 1 < shape.order; k++) {
        double values[64];
        int count = 64;
        CHECK_STATUS(tt_spectrum(&found, k, values, &count), TT_OK);
        CHECK_CLOSE(last->entropy[k], tt_entropy(values, count, 1), 1e-9);
        CHECK(last->discarded[k] >= 0 && last->discarded[k] <= options.epsilon);
      }
      tt_free(&planted);
      tt_free(&start);
      tt_free(&found);
      free(w);
    }
}

// One site never raises the error, with and without statistics, and keeps ranks; a train that
// already is the target stays.
static void refit_test_monotone(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++)
    for (int kind = 0; kind < 4; kind++) {
      tt_shape shape = shape_of_table(index);
      ptrdiff_t m = shape_rows(&shape), n = shape_cols(&shape);
      float *w = test_normal_floats(m * n), *weights = test_floats(m);
      for (ptrdiff_t i = 0; i < m; i++) weights[i] = (float)(i % 3);
      tt_matrix start = refit_start(shape, 2), view = tt_dense_view(w, m, n), found;
      tt_inputs *inputs = refit_inputs(n, 30, 5, kind == 3);
      tt_options options = refit_options(kind & 1 ? inputs : NULL, kind & 2 ? weights : NULL);
      tt_sweep_log log[8];
      tt_sweeps sweeps = refit_sweeps(1, 8, log, 8);
      tt_report report;
      CHECK_STATUS(tt_refine(&start, &view, &options, &sweeps, &found, &report), TT_OK);
      CHECK(!memcmp(found.shape.ranks, start.shape.ranks, sizeof start.shape.ranks));
      for (int i = 1; i < sweeps.count; i++)
        CHECK_AT_MOST(log[i].error, log[i - 1].error * (1 + 1e-12) + 1e-14);
      CHECK_AT_MOST(log[sweeps.count - 1].error, 1);         // the zero train would give 1
      tt_free(&start);
      CHECK_STATUS(tt_refine(&found, &found, &options, NULL, &start, &report), TT_OK);
      CHECK_AT_MOST(report.relative_error, 1e-6);
      tt_free(&start);
      tt_free(&found);
      tt_inputs_free(inputs);
      free(w);
      free(weights);
    }
}

// From TT-SVD, sweeps end between its error / sqrt(d-1), the bound of quasi-optimality, and its
// error.
static void refit_test_quasi_optimal(void) {
  for (int index = 2; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 3);
    ptrdiff_t m = shape_rows(&shape), n = shape_cols(&shape);
    float *w = test_normal_floats(m * n);
    tt_options options = refit_options(NULL, NULL);
    tt_matrix start, view = tt_dense_view(w, m, n), found;
    tt_report before, after;
    CHECK_STATUS(tt_compress(w, m, n, &shape, &options, &start, &before), TT_OK);
    for (int sites = 1; sites <= 2; sites++) {
      tt_sweeps sweeps = refit_sweeps(sites, 30, NULL, 0);
      CHECK_STATUS(tt_refine(&start, &view, &options, &sweeps, &found, &after), TT_OK);
      CHECK_AT_MOST(after.relative_error, before.relative_error * (1 + 1e-9));
      CHECK_AT_MOST(before.relative_error / sqrt((double)(shape.order - 1)),
                    after.relative_error * (1 + 1e-9));
      CHECK_AT_MOST(1, sweeps.count);
      tt_free(&found);
    }
    tt_free(&start);
    free(w);
  }
}

// In the metric of the outputs two sites end no worse than the fit of tt_compress does with one.
static void refit_test_two_sites(void) {
  static const int legs[3] = {3, 4, 3};
  tt_shape shape = test_shape(3, legs, legs, NULL);
  float *w = test_normal_floats(36 * 36);
  tt_inputs *inputs = refit_inputs(36, 300, 20, 0);
  tt_options options = refit_options(inputs, NULL);
  tt_matrix fitted, view = tt_dense_view(w, 36, 36), start = refit_start(shape, 1), found;
  tt_report one, two;
  options.max_rank = 5;
  CHECK_STATUS(tt_compress(w, 36, 36, &shape, &options, &fitted, &one), TT_OK);
  CHECK_STATUS(tt_refine(&start, &view, &options, NULL, &found, &two), TT_OK);
  CHECK_AT_MOST(two.functional_error, 1.1 * one.functional_error);
  CHECK(found.shape.ranks[1] == 5 && found.shape.ranks[2] == 5);
  tt_free(&fitted);
  tt_free(&start);
  tt_free(&found);
  tt_inputs_free(inputs);
  free(w);
}

// ---- quantisation for the outputs

// Codes of row i as the decoded core says them, divided by the scale of each run.
static double refit_scale(const tt_core *core, ptrdiff_t row, ptrdiff_t length, ptrdiff_t j) {
  ptrdiff_t end;
  return (double)tt__scale_at(core, row, length, j, &end);
}

// Error propagation as it is defined: the inverse covariance is downdated column by column, each
// error is spread over the columns that are left. Scales are those that the library chose.
static void refit_check_propagation(const float *w, ptrdiff_t m, ptrdiff_t n, const double *c,
                                    const tt_matrix *coded) {
  const tt_core *core = &coded->cores[0];
  double *inverse = test_doubles(n * n), *v = test_doubles(m * n), *dense = test_doubles(m * n);
  ptrdiff_t differ = 0;
  for (ptrdiff_t j = 0; j < n; j++) {                        // inverse by Gauss-Jordan
    for (ptrdiff_t i = 0; i < n; i++) inverse[i * n + j] = c[i * n + j];
  }
  for (ptrdiff_t p = 0; p < n; p++) {
    double pivot = inverse[p * n + p];
    inverse[p * n + p] = 1;
    for (ptrdiff_t j = 0; j < n; j++) inverse[p * n + j] /= pivot;
    for (ptrdiff_t i = 0; i < n; i++) {
      double factor = inverse[i * n + p];
      if (i == p) continue;
      inverse[i * n + p] = 0;
      for (ptrdiff_t j = 0; j < n; j++) inverse[i * n + j] -= factor * inverse[p * n + j];
    }
  }
  for (ptrdiff_t i = 0; i < m * n; i++) v[i] = (double)w[i];
  CHECK_STATUS(tt_expand_f64(coded, dense), TT_OK);
  for (ptrdiff_t p = 0; p < n; p++) {
    for (ptrdiff_t i = 0; i < m; i++) {
      double scale = refit_scale(core, i, n, p);
      int limit = tt__largest_code(core->dtype),
          code = scale > 0 ? tt__nearest(v[i * n + p] / scale) : 0;
      code = code > limit ? limit : code < -limit ? -limit : code;
      differ += fabs(scale * code - dense[i * n + p]) > 1e-9 * scale;
      double error = (v[i * n + p] - dense[i * n + p]) / inverse[p * n + p];
      for (ptrdiff_t j = p + 1; j < n; j++) v[i * n + j] -= error * inverse[p * n + j];
    }
    for (ptrdiff_t i = p + 1; i < n; i++)
      for (ptrdiff_t j = p + 1; j < n; j++)
        inverse[i * n + j] -= inverse[i * n + p] * inverse[p * n + j] / inverse[p * n + p];
  }
  CHECK_AT_MOST((double)differ, 0.01 * (double)(m * n));     // ties may fall either way
  free(inverse);
  free(v);
  free(dense);
}

static void refit_check_coded(tt_dtype dtype, int group, ptrdiff_t m, ptrdiff_t n, int kind) {
  float *w = test_normal_floats(m * n);
  tt_inputs *inputs = refit_inputs(n, kind ? 5 : 200, 6, 0);
  tt_options options = refit_options(inputs, NULL);
  tt_matrix view = tt_dense_view(w, m, n), plain, coded;
  tt_report report;
  double of_plain;
  CHECK_STATUS(tt_quantize(&view, dtype, group, NULL, &plain, NULL), TT_OK);
  CHECK_STATUS(tt_functional_error(&plain, w, NULL, inputs, &of_plain), TT_OK);
  CHECK_STATUS(tt_quantize(&view, dtype, group, &options, &coded, &report), TT_OK);
  CHECK(tt_stored_size(&coded) == tt_stored_size(&plain) + 4 * (size_t)m && coded.bias != NULL);
  CHECK_AT_MOST(report.functional_error, 1.02 * of_plain);
  double *c = refit_covariance(inputs), measured;
  refit_check_propagation(w, m, n, c, &coded);
  CHECK_STATUS(tt_functional_error(&coded, w, NULL, inputs, &measured), TT_OK);
  CHECK_CLOSE(measured, report.functional_error, 1e-5 * measured);
  free(c);
  tt_free(&plain);
  tt_free(&coded);
  tt_inputs_free(inputs);
  free(w);
}

static void refit_test_quantize_dense(void) {
  static const tt_dtype dtypes[4] = {TT_I8, TT_I4, TT_I3, TT_I2};
  static const int groups[5] = {0, TT_GROUP_ROW, 8, 32, 100};
  for (int t = 0; t < 4; t++)
    for (int g = 0; g < 5; g++) {
      refit_check_coded(dtypes[t], groups[g], 20, 40, 0);
      refit_check_coded(dtypes[t], groups[g], 24, 37, 1);    // fewer samples than columns
    }
  refit_check_coded(TT_I4, 4, 1, 1, 0);
  refit_check_coded(TT_I8, TT_GROUP_ROW, 3, 2, 0);
}

// Clipping alone (no statistics, equal weights) never loses against the largest magnitude.
static void refit_test_clipping(void) {
  float *w = test_normal_floats(40 * 64), weights[40];
  for (int i = 0; i < 40; i++) weights[i] = 1;
  tt_options options = refit_options(NULL, weights);
  tt_matrix view = tt_dense_view(w, 40, 64), plain, clipped;
  tt_report before, after;
  for (int dtype = TT_I8; dtype <= TT_I2; dtype++)
    for (int group = -1; group < 33; group += 11) {
      CHECK_STATUS(tt_quantize(&view, (tt_dtype)dtype, group, NULL, &plain, &before), TT_OK);
      CHECK_STATUS(tt_quantize(&view, (tt_dtype)dtype, group, &options, &clipped, &after), TT_OK);
      CHECK_AT_MOST(after.relative_error, before.relative_error * (1 + 1e-3));
      if (dtype == TT_I2) CHECK_AT_MOST(after.relative_error, 0.9 * before.relative_error);
      CHECK(clipped.bias == NULL && after.functional_error == 0);
      tt_free(&plain);
      tt_free(&clipped);
    }
  free(w);
}

// Trains: the cores behind a coded core make up for it. Every shape, both sweeps, padded or not.
static void refit_test_quantize_trains(void) {
  static const tt_dtype dtypes[4] = {TT_I8, TT_I4, TT_I3, TT_F16};
  double sums[2] = {0, 0};
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++)
    for (int variant = 0; variant < 16; variant++) {
      tt_shape shape = train_shape(index, 3);
      tt_dtype dtype = dtypes[variant / 4];
      int padded = variant & 1, sweep = variant >> 1 & 1;
      train_built built = train_build(&shape, padded, TT_F32, 0, sweep, 1);
      ptrdiff_t m = built.w.rows, n = built.w.cols;
      tt_inputs *inputs = refit_inputs(n, 100, 5, 0);
      tt_options options = refit_options(inputs, NULL);
      float *dense = test_floats(m * n);
      tt_matrix plain, coded;
      tt_report report;
      double of_plain, measured;
      CHECK_STATUS(tt_expand(&built.w, dense), TT_OK);
      CHECK_STATUS(
          tt_quantize(&built.w, dtype, dtype == TT_F16 ? 0 : TT_GROUP_ROW, NULL, &plain, NULL),
          TT_OK);
      CHECK_STATUS(tt_functional_error(&plain, dense, built.w.bias, inputs, &of_plain), TT_OK);
      CHECK_STATUS(tt_quantize(&built.w, dtype, dtype == TT_F16 ? 0 : TT_GROUP_ROW, &options,
                               &coded, &report),
                   TT_OK);
      CHECK(coded.sweep == sweep && coded.rows == m && coded.cols == n && tt__valid(&coded));
      for (int k = 0; k < shape.order; k++) CHECK(coded.cores[k].dtype == dtype);
      CHECK_STATUS(tt_functional_error(&coded, dense, built.w.bias, inputs, &measured), TT_OK);
      CHECK_CLOSE(measured, report.functional_error, 1e-4 * measured + 1e-6);
      if (n > 1) sums[0] += of_plain;
      if (n > 1) sums[1] += measured;
      tt_free(&plain);
      tt_free(&coded);
      tt_inputs_free(inputs);
      free(dense);
      free(built.memory);
    }
  CHECK_AT_MOST(sums[1], 0.8 * sums[0]);
}

// On average over many trains the refit halves what coding loses or better.
static void refit_test_refit_gain(void) {
  double before = 0, after = 0;
  for (int trial = 0; trial < 20; trial++) {
    static const int legs[2] = {6, 6}, ranks[3] = {1, 8, 1};
    tt_shape shape = test_shape(2, legs, legs, ranks);
    tt_matrix w = test_train(&shape), plain, coded;
    float *dense = test_floats(36 * 36);
    tt_inputs *inputs = refit_inputs(36, 300, 12, 0);
    tt_options options = refit_options(inputs, NULL);
    tt_report report;
    double error;
    CHECK_STATUS(tt_expand(&w, dense), TT_OK);
    CHECK_STATUS(tt_quantize(&w, TT_I3, 32, NULL, &plain, NULL), TT_OK);
    CHECK_STATUS(tt_functional_error(&plain, dense, NULL, inputs, &error), TT_OK);
    before += error;
    CHECK_STATUS(tt_quantize(&w, TT_I3, 32, &options, &coded, &report), TT_OK);
    after += report.functional_error;
    tt_free(&w);
    tt_free(&plain);
    tt_free(&coded);
    tt_inputs_free(inputs);
    free(dense);
  }
  CHECK_AT_MOST(after, 0.75 * before);
}

static void refit_test_quantize_edges(void) {
  float *zero = test_floats(6 * 5);
  double huge[4] = {1e200, -2e200, 3e200, 4e199}, dense[4];
  tt_inputs *inputs = refit_inputs(5, 20, 3, 0), *two = refit_inputs(2, 20, 2, 0);
  tt_options options = refit_options(inputs, NULL);
  tt_matrix view = tt_dense_view(zero, 6, 5), coded, wide;
  tt_report report;
  CHECK_STATUS(tt_quantize(&view, TT_I4, 32, &options, &coded, &report), TT_OK);
  CHECK(report.relative_error == 0 && report.functional_error == 0);
  tt_free(&coded);
  options.inputs = two;
  CHECK_STATUS(tt_quantize(&view, TT_I4, 32, &options, &coded, &report), TT_ERROR_INVALID);
  CHECK(coded.block == NULL);
  wide = tt_dense_view(zero, 2, 2);
  wide.cores[0].dtype = TT_F64;
  wide.cores[0].data = huge;
  CHECK_STATUS(tt_quantize(&wide, TT_F64, 0, &options, &coded, &report), TT_ERROR_UNSUPPORTED);
  CHECK(coded.block == NULL);
  for (int i = 0; i < 4; i++) huge[i] *= 1e-120;             // 1e80: squares fit
  CHECK_STATUS(tt_quantize(&wide, TT_F64, 0, &options, &coded, &report), TT_OK);
  CHECK_STATUS(tt_expand_f64(&coded, dense), TT_OK);
  for (int i = 0; i < 4; i++) CHECK_CLOSE(dense[i] / huge[i], 1, 1e-12);
  tt_free(&coded);
  for (long fail = 1, done = 0; !done; fail++) {
    test_heap heap;
    options.allocator = test_allocator(&heap);
    options.inputs = inputs;
    heap.fail_at = fail;
    tt_status status = tt_quantize(&view, TT_I4, 32, &options, &coded, NULL);
    CHECK(status == TT_OK || status == TT_ERROR_MEMORY);
    done = !status;
    tt_free(&coded);
    CHECK(heap.live_blocks == 0);
  }
  tt_inputs_free(inputs);
  tt_inputs_free(two);
  free(zero);
}

// ---- what a reader of the code found

// Ranks beyond what the legs can carry, as exact sums have them, are clipped before coding.
static void refit_test_quantize_sum(void) {
  static const int legs[3] = {2, 2, 2}, ranks[4] = {1, 4, 4, 1};
  tt_shape shape = test_shape(3, legs, legs, ranks);
  tt_matrix a = test_train(&shape), twice, coded;
  float weights[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  tt_options options = refit_options(NULL, weights);
  tt_report report;
  CHECK_STATUS(tt_add(&a, &a, NULL, &twice), TT_OK);
  CHECK(twice.shape.ranks[1] == 8);
  CHECK_STATUS(tt_quantize(&twice, TT_I8, TT_GROUP_ROW, &options, &coded, &report), TT_OK);
  CHECK(coded.shape.ranks[1] == 4 && coded.shape.ranks[2] == 4);
  CHECK_AT_MOST(report.relative_error, 0.02);
  CHECK_STATUS(tt_add(&a, &twice, NULL, &twice), TT_ERROR_INVALID);
  CHECK(twice.block != NULL);                                // nothing is lost
  CHECK_STATUS(tt_refine(&a, &twice, NULL, NULL, &twice, NULL), TT_ERROR_INVALID);
  CHECK(twice.block != NULL);
  tt_free(&a);
  tt_free(&twice);
  tt_free(&coded);
}

// Weights that differ by all orders of magnitude do not keep epsilon from being met.
static void refit_test_epsilon_hard(void) {
  static const int legs[3][4] = {{16, 1, 0, 0}, {4, 4, 0, 0}, {2, 2, 2, 2}};
  static const int cols[3][4] = {{1, 16, 0, 0}, {4, 4, 0, 0}, {2, 2, 2, 2}};
  float *w = test_normal_floats(256), weights[16] = {1};
  tt_inputs *inputs = refit_inputs(16, 200, 12, 0);
  for (int kind = 0; kind < 6; kind++) {
    tt_shape shape = test_shape(kind % 3 == 2 ? 4 : 2, legs[kind % 3], cols[kind % 3], NULL);
    tt_options options = refit_options(inputs, weights);
    tt_matrix train;
    tt_report report;
    for (int i = 0; i < 16; i++) weights[i] = kind < 3 ? i == 0 : i % 2 ? 1e-6f : 1e6f;
    options.epsilon = 0.05;
    CHECK_STATUS(tt_compress(w, 16, 16, &shape, &options, &train, &report), TT_OK);
    CHECK_AT_MOST(report.functional_error, 0.05);
    tt_free(&train);
  }
  tt_inputs_free(inputs);
  free(w);
}

// Norms that one scale cannot hold are shared by the cores, or refused; never silently zero.
static void refit_test_quantize_range(void) {
  static const double factors[] = {1e-80, 1e-60, 1e-44, 1e-20, 1, 1e20, 1e50, 1e80};
  static const tt_dtype dtypes[4] = {TT_I8, TT_F16, TT_BF16, TT_E4M3};
  static const int legs[3] = {3, 2, 3}, ranks[4] = {1, 4, 4, 1};
  tt_shape shape = test_shape(3, legs, legs, ranks);
  tt_matrix a = test_train(&shape), scaled, coded;
  float weights[18];
  for (int i = 0; i < 18; i++) weights[i] = 1;
  tt_options options = refit_options(NULL, weights), wide = refit_options(NULL, NULL);
  for (size_t f = 0; f < sizeof factors / sizeof *factors; f++)
    for (int t = 0; t < 4; t++) {
      tt_report report;
      CHECK_STATUS(tt_scale(&a, factors[f], &wide, &scaled), TT_OK);
      tt_status status = tt_quantize(&scaled, dtypes[t], t ? 0 : TT_GROUP_ROW, &options, &coded,
                                     &report);
      CHECK(status == TT_OK || status == TT_ERROR_UNSUPPORTED);
      if (!status) CHECK_AT_MOST(report.relative_error, 0.2);
      if (factors[f] >= 1e-80 && factors[f] <= 1e80) CHECK_STATUS(status, TT_OK);
      tt_free(&scaled);
      tt_free(&coded);
    }
  tt_free(&a);
}

// options.bias counts in every call, with and without statistics.
static void refit_test_bias(void) {
  static const int legs[2] = {4, 4};
  tt_shape shape = test_shape(2, legs, legs, NULL);
  float bias[16], *w = test_normal_floats(256);
  for (int i = 0; i < 16; i++) bias[i] = (float)i;
  tt_options options = refit_options(NULL, NULL);
  tt_matrix one, two, three;
  options.bias = bias;
  CHECK_STATUS(tt_compress(w, 16, 16, &shape, &options, &one, NULL), TT_OK);
  CHECK_STATUS(tt_round(&one, &options, &two, NULL), TT_OK);
  CHECK_STATUS(tt_quantize(&two, TT_I8, 0, &options, &three, NULL), TT_OK);
  for (int i = 0; i < 16; i++)
    CHECK(one.bias[i] == bias[i] && two.bias[i] == 2 * bias[i] && three.bias[i] == 3 * bias[i]);
  tt_free(&two);
  bias[3] = 3e38f;
  ((float *)one.bias)[3] = 3e38f;
  CHECK_STATUS(tt_round(&one, &options, &two, NULL), TT_ERROR_UNSUPPORTED);
  CHECK(two.block == NULL);
  tt_free(&one);
  tt_free(&three);
  free(w);
}

// Large inputs at a high order, and starts and targets of very different norms.
static void refit_test_magnitudes(void) {
  static const int twos[8] = {2, 2, 2, 2, 2, 1, 1, 1}, fours[2] = {4, 4};
  tt_shape shape = test_shape(8, twos, twos, NULL), square = test_shape(2, fours, fours, NULL);
  float *w = test_normal_floats(32 * 32), *x = test_normal_floats(40 * 32),
        *zero = test_floats(256);
  tt_inputs *inputs;
  tt_matrix train, start = refit_start(square, 2), scaled;
  tt_report report;
  CHECK_STATUS(tt_inputs_create(32, NULL, &inputs), TT_OK);
  for (int i = 0; i < 40 * 32; i++) x[i] *= 1e30f;
  CHECK_STATUS(tt_inputs_add(inputs, x, 40), TT_OK);
  tt_options options = refit_options(inputs, NULL), wide = refit_options(NULL, NULL);
  options.max_rank = 3;
  CHECK_STATUS(tt_compress(w, 32, 32, &shape, &options, &train, &report), TT_OK);
  CHECK(report.functional_error > 0 && report.functional_error < 1);
  tt_free(&train);
  tt_matrix view = tt_dense_view(w, 16, 16), nothing = tt_dense_view(zero, 16, 16);
  for (int e = -300; e <= 300; e += 100)
    for (int sites = 1; sites <= 2; sites++) {
      tt_sweep_log log[20];
      tt_sweeps sweeps = refit_sweeps(sites, 20, log, 20);
      CHECK_STATUS(tt_scale(&start, pow(10, e), &wide, &scaled), TT_OK);
      CHECK_STATUS(tt_refine(&scaled, &view, &wide, &sweeps, &train, &report), TT_OK);
      CHECK(report.relative_error < 1 && log[0].error < 1);
      tt_free(&train);
      CHECK_STATUS(tt_refine(&scaled, &nothing, &wide, &sweeps, &train, &report), TT_OK);
      CHECK(report.norm == 0 && tt__is_finite(log[0].discarded[0]));
      tt_free(&train);
      tt_free(&scaled);
    }
  tt_free(&start);
  tt_inputs_free(inputs);
  free(w);
  free(x);
  free(zero);
}

// ---- hostile arguments and failing memory

static void refit_test_errors(void) {
  enum { M = 8, N = 9 };
  static const int rows[2] = {M, 1}, cols[2] = {1, N};
  float *w = test_normal_floats(M * N), values[M];
  tt_shape shape = test_shape(2, rows, cols, NULL);
  tt_inputs *inputs = refit_inputs(N, 20, 4, 0), *wide = refit_inputs(N + 1, 20, 4, 0), *empty;
  tt_matrix train, out;
  tt_report report;
  CHECK_STATUS(tt_inputs_create(N, NULL, &empty), TT_OK);
  tt_options options = refit_options(wide, NULL);
  CHECK_STATUS(tt_compress(w, M, N, &shape, &options, &out, &report), TT_ERROR_INVALID);
  CHECK(out.block == NULL && out.shape.order == 0);
  options.inputs = empty;
  CHECK_STATUS(tt_compress(w, M, N, &shape, &options, &out, &report), TT_ERROR_INVALID);
  options.inputs = inputs;
  w[5] = (float)NAN;
  CHECK_STATUS(tt_compress(w, M, N, &shape, &options, &out, &report), TT_ERROR_NONFINITE);
  CHECK(report.position == 5 && out.block == NULL);
  w[5] = 0;
  for (int kind = 0; kind < 4; kind++) {
    tt_options bad = refit_options(NULL, kind < 3 ? values : NULL);
    if (kind == 3) bad.bias = values;
    for (int i = 0; i < M; i++) values[i] = kind == 2 ? 0 : 1;
    if (kind == 0) values[3] = -1;
    if (kind == 1 || kind == 3) values[3] = (float)NAN;
    CHECK_STATUS(tt_compress(w, M, N, &shape, &bad, &out, NULL),
                 kind == 1 || kind == 3 ? TT_ERROR_NONFINITE : TT_ERROR_INVALID);
    CHECK(out.block == NULL);
  }
  CHECK_STATUS(tt_compress(w, M, N, &shape, NULL, &train, NULL), TT_OK);
  options.inputs = wide;
  CHECK_STATUS(tt_round(&train, &options, &out, NULL), TT_ERROR_INVALID);
  tt_matrix view = tt_dense_view(w, M, N), wrong = tt_dense_view(w, N, M);
  CHECK_STATUS(tt_refine(&train, &view, &options, NULL, &out, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_refine(&train, &wrong, NULL, NULL, &out, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_refine(&train, NULL, NULL, NULL, &out, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_refine(NULL, &view, NULL, NULL, &out, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_refine(&train, &view, NULL, NULL, NULL, NULL), TT_ERROR_INVALID);
  for (int kind = 0; kind < 5; kind++) {
    tt_sweeps sweeps = refit_sweeps(kind == 0 ? 3 : kind == 1 ? -1 : 1, kind == 2 ? -1 : 1, NULL,
                                    kind == 3 ? -1 : 0);
    if (kind == 4) sweeps.stall = (double)NAN;
    CHECK_STATUS(tt_refine(&train, &view, NULL, &sweeps, &out, NULL), TT_ERROR_INVALID);
  }
  w[2] = (float)INFINITY;
  CHECK_STATUS(tt_refine(&train, &view, NULL, NULL, &out, NULL), TT_ERROR_NONFINITE);
  CHECK(out.block == NULL);
  // a correction beyond the range of float
  for (int i = 0; i < M * N; i++) w[i] = 1e38f * (float)(i % 3);
  tt_inputs_free(inputs);
  CHECK_STATUS(tt_inputs_create(N, NULL, &inputs), TT_OK);
  float x[2 * N];
  for (int j = 0; j < 2 * N; j++) x[j] = j == 3 ? 1e6f : 0;
  CHECK_STATUS(tt_inputs_add(inputs, x, 2), TT_OK);
  options = refit_options(inputs, NULL);
  options.max_rank = 1;
  for (int i = 0; i < M; i++) values[i] = 3e38f;
  options.bias = values;
  tt_status status = tt_compress(w, M, N, &shape, &options, &out, NULL);
  CHECK(status == TT_OK || status == TT_ERROR_UNSUPPORTED);
  if (status) CHECK(out.block == NULL);
  tt_free(&out);
  view = tt_dense_view(NULL, M, N);
  CHECK(!tt__valid(&view));
  view = tt_dense_view(w, 0, N);
  CHECK(!tt__valid(&view));
  tt_free(&train);
  tt_inputs_free(inputs);
  tt_inputs_free(wide);
  tt_inputs_free(empty);
  free(w);
}

// Inputs that never vary: the Frobenius norm takes over, and the bias makes up for everything.
static void refit_test_constant_inputs(void) {
  enum { M = 8, N = 9 };
  static const int rows[2] = {M, 1}, cols[2] = {1, N};
  float *w = test_normal_floats(M * N), x[N], y[M], *work = test_floats(32768);
  tt_shape shape = test_shape(2, rows, cols, NULL);
  tt_inputs *inputs;
  tt_matrix train;
  tt_report report;
  for (int j = 0; j < N; j++) x[j] = (float)(j - 3);
  CHECK_STATUS(tt_inputs_create(N, NULL, &inputs), TT_OK);
  CHECK_STATUS(tt_inputs_add(inputs, x, 1), TT_OK);
  tt_options options = refit_options(inputs, NULL);
  options.dtype = TT_F32;
  options.max_rank = 2;
  CHECK_STATUS(tt_compress(w, M, N, &shape, &options, &train, &report), TT_OK);
  CHECK(report.functional_error == 0);                       // met, as far as a float bias can
  CHECK_STATUS(tt_apply(&train, x, 1, y, work, 4 * 32768), TT_OK);
  for (int i = 0; i < M; i++) {
    double wanted = 0;
    for (int j = 0; j < N; j++) wanted += (double)w[i * N + j] * (double)x[j];
    CHECK_CLOSE(y[i], wanted, 1e-4);
  }
  tt_free(&train);
  tt_inputs_free(inputs);
  free(w);
  free(work);
}

static void refit_test_memory(void) {
  static const int legs[3] = {2, 3, 2};
  tt_shape shape = test_shape(3, legs, legs, NULL);
  float *w = test_normal_floats(144), weights[12] = {1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3};
  tt_inputs *inputs = refit_inputs(12, 20, 6, 0);
  tt_matrix view = tt_dense_view(w, 12, 12), start = refit_start(shape, 1);
  for (int what = 0; what < 3; what++)
    for (long fail = 1, done = 0; !done; fail += 1 + fail / 16) {
      test_heap heap;
      tt_options options = refit_options(inputs, weights);
      tt_sweep_log log;
      tt_sweeps sweeps = refit_sweeps(2, 1, &log, 1);
      tt_matrix out;
      options.allocator = test_allocator(&heap);
      options.max_rank = 2;
      options.epsilon = what == 1 ? 0.3 : 0;
      heap.fail_at = fail;
      tt_status status =
          what == 2 ? tt_refine(&start, &view, &options, &sweeps, &out, NULL)
                    : tt_compress(w, 12, 12, &shape, &options, &out, NULL);
      CHECK(status == TT_OK || status == TT_ERROR_MEMORY);
      done = !status;
      tt_free(&out);
      CHECK(heap.live_blocks == 0);
    }
  tt_free(&start);
  tt_inputs_free(inputs);
  free(w);
}

static void test_refit(void) {
  refit_test_closed_form();
  refit_test_free_rows();
  refit_test_functional_error();
  refit_test_six_shapes();
  refit_test_exact();
  refit_test_orders();
  refit_test_epsilon();
  refit_test_scale();
  refit_test_planted();
  refit_test_monotone();
  refit_test_quasi_optimal();
  refit_test_two_sites();
  refit_test_quantize_dense();
  refit_test_clipping();
  refit_test_quantize_trains();
  refit_test_refit_gain();
  refit_test_quantize_edges();
  refit_test_quantize_sum();
  refit_test_epsilon_hard();
  refit_test_quantize_range();
  refit_test_bias();
  refit_test_magnitudes();
  refit_test_errors();
  refit_test_constant_inputs();
  refit_test_memory();
}
