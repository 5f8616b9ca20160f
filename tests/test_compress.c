// TT-SVD: exact ranks, the error theorem, budgets and caps, every shape and format, memory and
// failure.

// ---- an independent singular value decomposition: one-sided Jacobi, values only

static void compress_rotate(ptrdiff_t depth, double *x, double *y, int *rotated) {
  double xx = 0, yy = 0, xy = 0;
  for (ptrdiff_t t = 0; t < depth; t++) {
    xx += x[t] * x[t];
    yy += y[t] * y[t];
    xy += x[t] * y[t];
  }
  if (fabs(xy) <= 1e-15 * sqrt(xx * yy) || xy == 0) return;
  double zeta = (yy - xx) / (2 * xy),
         tangent = (zeta >= 0 ? 1 : -1) / (fabs(zeta) + sqrt(1 + zeta * zeta));
  double cosine = 1 / sqrt(1 + tangent * tangent), sine = cosine * tangent;
  for (ptrdiff_t t = 0; t < depth; t++) {
    double p = x[t], q = y[t];
    x[t] = cosine * p - sine * q;
    y[t] = sine * p + cosine * q;
  }
  *rotated = 1;
}

static int compress_descending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

// Singular values, descending, of a (rows, cols); returned memory is the caller's, *count =
// min(rows, cols).
static double *compress_values(ptrdiff_t rows, ptrdiff_t cols, const double *a, int *count) {
  ptrdiff_t size = rows < cols ? rows : cols, depth = rows < cols ? cols : rows;
  double *vectors = test_doubles(size * depth), *values = test_doubles(size);
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t j = 0; j < cols; j++)
      vectors[rows < cols ? i * depth + j : j * depth + i] = a[i * cols + j];
  for (int sweep = 0, rotated = 1; rotated && sweep < 40; sweep++) {
    rotated = 0;
    for (ptrdiff_t p = 0; p < size; p++)
      for (ptrdiff_t q = p + 1; q < size; q++)
        compress_rotate(depth, vectors + p * depth, vectors + q * depth, &rotated);
  }
  for (ptrdiff_t p = 0; p < size; p++) {
    double square = 0;
    for (ptrdiff_t t = 0; t < depth; t++) square += vectors[p * depth + t] * vectors[p * depth + t];
    values[p] = sqrt(square);
  }
  qsort(values, (size_t)size, sizeof *values, compress_descending);
  free(vectors);
  *count = (int)size;
  return values;
}

// ---- unfoldings

// Row and column of the unfolding at `bond` where element (i, j) of the matrix lies.
static void compress_place(const tt_shape *shape, ptrdiff_t i, ptrdiff_t j, int bond,
                           ptrdiff_t *row, ptrdiff_t *col) {
  ptrdiff_t step_row = 1, step_col = 1;
  *row = *col = 0;
  for (int k = shape->order - 1; k >= 0; k--) {
    ptrdiff_t leg = i % shape->rows[k] * shape->cols[k] + j % shape->cols[k],
              size = (ptrdiff_t)shape->rows[k] * shape->cols[k];
    if (k <= bond) {
      *row += leg * step_row;
      step_row *= size;
    } else {
      *col += leg * step_col;
      step_col *= size;
    }
    i /= shape->rows[k];
    j /= shape->cols[k];
  }
}

// The unfolding at `bond` of the zero-padded matrix, or back again (into the matrix).
static void compress_unfold(const tt_shape *shape, ptrdiff_t rows, ptrdiff_t cols, double *dense,
                            int bond, double *unfolding, int back) {
  ptrdiff_t width = (ptrdiff_t)shape_legs(shape, bond + 1, shape->order), row, col;
  for (ptrdiff_t i = 0; i < rows; i++) {
    for (ptrdiff_t j = 0; j < cols; j++) {
      compress_place(shape, i, j, bond, &row, &col);
      if (back)
        dense[i * cols + j] = unfolding[row * width + col];
      else
        unfolding[row * width + col] = dense[i * cols + j];
    }
  }
}

// Schmidt values at `bond` of a dense matrix.
static double *compress_spectrum(const tt_shape *shape, ptrdiff_t rows, ptrdiff_t cols,
                                 double *dense, int bond, int *count) {
  ptrdiff_t height = (ptrdiff_t)shape_legs(shape, 0, bond + 1),
            width = (ptrdiff_t)shape_legs(shape, bond + 1, shape->order);
  double *unfolding = test_doubles(height * width);
  compress_unfold(shape, rows, cols, dense, bond, unfolding, 0);
  double *values = compress_values(height, width, unfolding, count);
  free(unfolding);
  return values;
}

static double compress_tail(const double *values, int count, int rank) {
  double square = 0;
  for (int i = count - 1; i >= rank; i--) square += values[i] * values[i];
  return sqrt(square);
}

static double compress_entropy(const double *values, int count) {
  double total = 0, entropy = 0;
  for (int i = 0; i < count; i++) total += values[i] * values[i];
  for (int i = 0; i < count && total > 0; i++) {
    double p = values[i] * values[i] / total;
    if (p > 0) entropy -= p * log(p);
  }
  return entropy;
}

static double compress_norm(ptrdiff_t count, const double *a) {
  double square = 0;
  for (ptrdiff_t i = 0; i < count; i++) square += a[i] * a[i];
  return sqrt(square);
}

// ---- what every report must satisfy

static void compress_check_report(const tt_matrix *w, const tt_report *report, double norm) {
  int d = w->shape.order;
  double square = 0;
  CHECK(!memcmp(report->ranks, w->shape.ranks, sizeof(int) * (size_t)(d + 1)));
  CHECK(report->dense_params == w->rows * w->cols);
  CHECK(report->params == tt_shape_params(&w->shape));
  CHECK_CLOSE(report->compression, (double)report->dense_params / (double)report->params,
              1e-12 * report->compression);
  CHECK_CLOSE(report->norm, norm, 1e-12 * norm);
  CHECK(report->position == -1);
  for (int k = 0; k < TT_MAX_ORDER; k++) {
    if (k < d - 1) {
      double most = shape_legs(&w->shape, 0, k + 1), other = shape_legs(&w->shape, k + 1, d);
      CHECK(report->discarded[k] >= 0 && report->discarded[k] <= 1 + 1e-12);
      CHECK(report->entropy[k] >= 0 &&
            report->entropy[k] <= log(most < other ? most : other) + 1e-9);
      CHECK(report->limit[k] >= TT_LIMIT_SHAPE && report->limit[k] <= TT_LIMIT_EPSILON);
      square += report->discarded[k] * report->discarded[k];
    } else {
      CHECK(report->discarded[k] == 0 && report->entropy[k] == 0 &&
            report->limit[k] == TT_LIMIT_NONE);
    }
  }
  if (w->cores[0].dtype == TT_F64) CHECK_CLOSE(report->relative_error, sqrt(square), 1e-12);
  CHECK(report->spectrum_complete == 0 || report->spectrum_complete == 1);
}

static double compress_error(const tt_matrix *w, const double *dense) {
  double *expanded = test_doubles(w->rows * w->cols), distance;
  CHECK_STATUS(tt_expand_f64(w, expanded), TT_OK);
  distance = test_distance(w->rows * w->cols, expanded, dense);
  free(expanded);
  return distance;
}

// Compresses in double or (from the same numbers rounded) float, checks form and report, and
// returns the true error.
static double compress_run(double *dense, ptrdiff_t rows, ptrdiff_t cols, const tt_shape *shape,
                           const tt_options *options, int as_float, tt_matrix *w,
                           tt_report *report) {
  ptrdiff_t count = rows * cols;
  float *single = test_floats(count);
  memset(report, 0x5A, sizeof *report);
  if (as_float) {
    for (ptrdiff_t i = 0; i < count; i++) {
      single[i] = (float)dense[i];
      dense[i] = (double)single[i];
    }
    CHECK_STATUS(tt_compress(single, rows, cols, shape, options, w, report), TT_OK);
    int changed = 0;
    for (ptrdiff_t i = 0; i < count; i++) changed |= (double)single[i] != dense[i];
    CHECK(!changed); // the input is not written to
  } else {
    CHECK_STATUS(tt_compress_f64(dense, rows, cols, shape, options, w, report), TT_OK);
  }
  free(single);
  if (!w->block) return 1e9;
  train_check_form(w, rows, cols, options ? options->dtype : TT_F32);
  CHECK(w->bias == NULL);
  compress_check_report(w, report, compress_norm(count, dense));
  return compress_error(w, dense);
}

// Lower and upper bound of the TT-SVD theorem at the returned ranks, with exact tails of the
// unfoldings.
static void compress_check_theorem(double *dense, const tt_matrix *w, const tt_report *report,
                                   double slack) {
  double largest = 0, square = 0, norm = report->norm;
  for (int k = 0; k < w->shape.order - 1; k++) {
    int count;
    double *values = compress_spectrum(&w->shape, w->rows, w->cols, dense, k, &count);
    double tail = compress_tail(values, count, w->shape.ranks[k + 1]) / (norm > 0 ? norm : 1);
    if (tail > largest) largest = tail;
    square += tail * tail;
    free(values);
  }
  CHECK_AT_MOST(largest, report->relative_error + slack);
  CHECK_AT_MOST(report->relative_error, sqrt(square) + slack);
}

static double *compress_random(ptrdiff_t rows, ptrdiff_t cols) {
  return test_normal_doubles(rows * cols);
}

// A smooth matrix: ranks fall quickly with the tolerance on every shape.
static double *compress_smooth(ptrdiff_t rows, ptrdiff_t cols) {
  double *dense = test_doubles(rows * cols);
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t j = 0; j < cols; j++)
      dense[i * cols + j] = 1 / (1 + 9 * (double)i / (double)rows + 4 * (double)j / (double)cols) +
                            0.1 * sin(0.7 * (double)(i + 2 * j));
  return dense;
}

// ---- the six shapes

static void compress_check_case(int index, int padded, int as_float, int method, int smooth) {
  tt_shape shape = shape_of_table(index);
  tt_options options = test_options();
  ptrdiff_t rows, cols;
  tt_matrix w;
  tt_report report;
  shape_true_size(&shape, padded, &rows, &cols);
  double *dense = smooth ? compress_smooth(rows, cols) : compress_random(rows, cols), error;
  double slack = as_float ? 1e-7 : method == TT_SVD_GRAM ? 1e-7 : 1e-12;
  options.method = method;
  error = compress_run(dense, rows, cols, &shape, &options, as_float, &w,
                       &report); // full rank, F32 cores
  CHECK_AT_MOST(error, 1e-6);
  CHECK_AT_MOST(report.relative_error, 1e-6);
  tt_free(&w);
  options.dtype = TT_F64;
  error = compress_run(dense, rows, cols, &shape, &options, as_float, &w, &report);
  CHECK_AT_MOST(error, as_float || method == TT_SVD_GRAM ? 1e-7 : 1e-13); // exact at full rank
  CHECK_AT_MOST(report.relative_error, 1e-13);
  tt_free(&w);
  for (int step = 0; step < 9; step++) { // caps, tolerances, both
    static const double epsilons[3] = {0, 0.3, 0.02};
    static const int caps[3] = {0, 2, 4};
    options.epsilon = epsilons[step / 3];
    options.max_rank = caps[step % 3];
    error = compress_run(dense, rows, cols, &shape, &options, as_float, &w, &report);
    if (!w.block) continue;
    CHECK_AT_MOST(error, report.relative_error + slack);
    if (!padded) CHECK_CLOSE(error, report.relative_error, slack);
    if (options.epsilon > 0 && !options.max_rank)
      CHECK_AT_MOST(report.relative_error, options.epsilon + slack);
    for (int k = 1; k < shape.order; k++) {
      if (options.max_rank) CHECK(w.shape.ranks[k] <= options.max_rank);
      if (options.epsilon > 0 && report.limit[k - 1] != TT_LIMIT_CAP)
        CHECK_AT_MOST(report.discarded[k - 1], options.epsilon / sqrt(shape.order - 1.0) + slack);
    }
    if (method != TT_SVD_RANDOMIZED) compress_check_theorem(dense, &w, &report, slack);
    tt_free(&w);
  }
  free(dense);
}

static void compress_test_six_shapes(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++)
    for (int variant = 0; variant < 8; variant++)
      for (int method = TT_SVD_AUTO; method <= TT_SVD_RANDOMIZED; method++)
        compress_check_case(index, variant & 1, variant >> 1 & 1, method, variant >> 2);
}

// Every storage format of the cores. relative_error belongs to the result as stored.
static void compress_test_formats(void) {
  static const double tolerance[10] = {1e-6, 1e-13, 2e-3, 2e-2, 0.2, 0.35, 3e-2, 0.4, 1, 2};
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    for (int d = 0; d < 10; d++) {
      tt_shape shape = shape_of_table(index);
      tt_options options = test_options();
      ptrdiff_t rows, cols;
      tt_matrix w;
      tt_report report;
      shape_true_size(&shape, d & 1, &rows, &cols);
      double *dense = compress_random(rows, cols);
      options.dtype = train_dtypes[d];
      double error = compress_run(dense, rows, cols, &shape, &options, index & 1, &w, &report);
      CHECK_AT_MOST(error,
                    index & 1 && d == 1 ? 1e-7 : tolerance[d]); // float input goes through Gram
      int group = options.dtype == TT_I8 ? TT_GROUP_ROW : options.dtype > TT_I8 ? 32 : 0;
      for (int k = 0; k < w.shape.order; k++) CHECK(w.cores[k].group == group);
      tt_free(&w);
      if (train_is_integer(options.dtype)) {
        options.group = 8;
        error = compress_run(dense, rows, cols, &shape, &options, index & 1, &w, &report);
        CHECK_AT_MOST(error,
                      index & 1 && d == 1 ? 1e-7 : tolerance[d]); // float input goes through Gram
        for (int k = 0; k < w.shape.order; k++) CHECK(w.cores[k].group == 8);
        tt_free(&w);
      } else {
        options.group = 32; // groups are for integers: no effect here
        error = compress_run(dense, rows, cols, &shape, &options, index & 1, &w, &report);
        CHECK_AT_MOST(error,
                      index & 1 && d == 1 ? 1e-7 : tolerance[d]); // float input goes through Gram
        for (int k = 0; k < w.shape.order; k++)
          CHECK(w.cores[k].group == 0 && w.cores[k].scales == NULL);
        tt_free(&w);
      }
      free(dense);
    }
  }
}

// ---- exact ranks of analytic tensors, held as one column

static tt_shape compress_column(int order, const int *legs) {
  int ones[TT_MAX_ORDER];
  for (int k = 0; k < order; k++) ones[k] = 1;
  return test_shape(order, legs, ones, NULL);
}

static void compress_check_ranks(double *dense, const tt_shape *shape, double epsilon,
                                 const int *ranks, double bound) {
  tt_options options = test_options();
  tt_matrix w;
  tt_report report;
  options.epsilon = epsilon;
  options.dtype = TT_F64;
  double error = compress_run(dense, shape_rows(shape), 1, shape, &options, 0, &w, &report);
  CHECK_AT_MOST(error, bound);
  for (int k = 0; k <= shape->order; k++) CHECK(w.shape.ranks[k] == ranks[k]);
  tt_free(&w);
}

static void compress_test_exact_ranks(void) {
  static const int sum_legs[3] = {3, 4, 2}, sum_ranks[4] = {1, 2, 2, 1};
  static const int twos[10] = {2, 2, 2, 2, 2, 2, 2, 2, 2, 2},
                   all_two[11] = {1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1};
  static const int full[11] = {1, 2, 4, 8, 16, 32, 16, 8, 4, 2, 1};
  static const int small[4] = {2, 1, 4, 3}, all_one[5] = {1, 1, 1, 1, 1};
  tt_shape shape = compress_column(3, sum_legs);
  double *dense = test_doubles(1024);
  for (int i = 0; i < 24; i++) dense[i] = (i / 8 + 1) + (i / 2 % 4 + 1) + (i % 2 + 1);
  compress_check_ranks(dense, &shape, 1e-12, sum_ranks, 1e-14);
  shape = compress_column(10, twos);
  for (int i = 0; i < 1024; i++) dense[i] = i;
  compress_check_ranks(dense, &shape, 1e-12, all_two, 1e-13);
  for (int i = 0; i < 1024; i++) dense[i] = sin((double)i);
  compress_check_ranks(dense, &shape, 1e-12, all_two, 1e-13);
  for (int i = 0; i < 1024; i++) dense[i] = test_uniform();
  compress_check_ranks(dense, &shape, 1e-14, full, 1e-14);
  shape = compress_column(4, small);
  for (int i = 0; i < 24; i++) dense[i] = 1;
  compress_check_ranks(dense, &shape, 1e-12, all_one, 1e-14);
  for (int i = 0; i < 24; i++) dense[i] = 0;
  compress_check_ranks(dense, &shape, 1e-12, all_one, 0); // zero: rank 1, not 0
  free(dense);
}

typedef struct compress_row {
  double epsilon;
  int ranks[6];
  double error, largest, root;
} compress_row;

// One tensor of the table: ranks, error and unfolding tails at each tolerance against the measured
// reference.
static void compress_check_table(int order, int leg, int exponential, int num_rows,
                                 const compress_row *table) {
  int legs[5] = {leg, leg, leg, leg, leg}, counts[4];
  tt_shape shape = compress_column(order, legs);
  ptrdiff_t count = shape_rows(&shape);
  double *dense = test_doubles(count), *values[4], norm;
  for (ptrdiff_t i = 0; i < count; i++) {
    double sum = 0, product = 1;
    for (ptrdiff_t rest = i, k = 0; k < order; k++, rest /= leg) {
      sum += (double)(rest % leg);
      product *= (double)(rest % leg) / 15;
    }
    dense[i] = exponential ? exp(-product) : 1 / (1 + sum);
  }
  norm = compress_norm(count, dense);
  for (int k = 0; k < order - 1; k++)
    values[k] = compress_spectrum(&shape, count, 1, dense, k, &counts[k]);
  for (int row = 0; row < num_rows; row++) {
    tt_options options = test_options();
    tt_matrix w;
    tt_report report;
    double largest = 0, square = 0, bar = table[row].epsilon > 1e-10 ? 0.01 : 0.6;
    options.dtype = TT_F64;
    options.epsilon = table[row].epsilon;
    double error = compress_run(dense, count, 1, &shape, &options, 0, &w, &report);
    for (int k = 0; k <= order; k++) CHECK(w.shape.ranks[k] == table[row].ranks[k]);
    for (int k = 0; k < order - 1; k++) {
      double tail = compress_tail(values[k], counts[k], w.shape.ranks[k + 1]) / norm;
      if (tail > largest) largest = tail;
      square += tail * tail;
      CHECK(report.limit[k] == (w.shape.ranks[k + 1] < (k == 0 || k == order - 2 ? leg : leg * leg)
                                    ? TT_LIMIT_EPSILON
                                    : TT_LIMIT_SHAPE));
    }
    CHECK_AT_MOST(error, options.epsilon);
    CHECK_CLOSE(error / table[row].error, 1, bar);
    CHECK_CLOSE(largest / table[row].largest, 1, bar);
    CHECK_CLOSE(sqrt(square) / table[row].root, 1, bar);
    CHECK_CLOSE(error, report.relative_error, 1e-14);
    if (options.epsilon > 1e-11) {
      CHECK_AT_MOST(largest, error * (1 + 1e-4));
      CHECK_AT_MOST(error, sqrt(square) * (1 + 1e-4));
    }
    tt_free(&w);
    if (options.epsilon >= 1e-4) { // float input has the same ranks
      double *copy = train_sum(count, 1, dense, 0, dense);
      error = compress_run(copy, count, 1, &shape, &options, 1, &w, &report);
      for (int k = 0; k <= order; k++) CHECK(w.shape.ranks[k] == table[row].ranks[k]);
      CHECK_CLOSE(error / table[row].error, 1, bar);
      tt_free(&w);
      free(copy);
    }
  }
  for (int k = 0; k < order - 1; k++) free(values[k]);
  free(dense);
}

static void compress_test_analytic(void) {
  static const compress_row hilbert8[6] = {
      {1e-2, {1, 3, 3, 3, 3, 1}, 4.12e-3, 2.96e-3, 4.72e-3},
      {1e-4, {1, 5, 5, 5, 5, 1}, 3.35e-5, 2.42e-5, 3.52e-5},
      {1e-6, {1, 6, 7, 7, 6, 1}, 3.31e-7, 2.18e-7, 3.33e-7},
      {1e-8, {1, 8, 8, 8, 8, 1}, 5.67e-9, 4.05e-9, 5.72e-9},
      {1e-10, {1, 8, 10, 10, 8, 1}, 6.61e-12, 4.68e-12, 6.62e-12},
      {1e-12, {1, 8, 11, 11, 8, 1}, 1.6e-13, 1.2e-13, 1.6e-13}};
  static const compress_row hilbert10[4] = {
      {1e-2, {1, 3, 3, 3, 1, 0}, 4.82e-3, 3.88e-3, 5.28e-3},
      {1e-4, {1, 5, 5, 5, 1, 0}, 3.73e-5, 3.33e-5, 3.83e-5},
      {1e-8, {1, 8, 9, 8, 1, 0}, 1.03e-9, 7.00e-10, 1.03e-9},
      {1e-12, {1, 10, 11, 10, 1, 0}, 2.8e-13, 2.8e-13, 2.8e-13}};
  static const compress_row exponential[3] = {
      {1e-3, {1, 3, 3, 3, 1, 0}, 4.58e-5, 3.55e-5, 5.41e-5},
      {1e-6, {1, 4, 4, 4, 1, 0}, 7.97e-7, 6.04e-7, 9.11e-7},
      {1e-12, {1, 8, 8, 8, 1, 0}, 8.5e-15, 6.1e-15, 8.7e-15}};
  compress_check_table(5, 8, 0, 6, hilbert8);
  compress_check_table(4, 10, 0, 4, hilbert10);
  compress_check_table(4, 16, 1, 3, exponential);
}

// ---- known spectra

static double *compress_orthogonal(int n) { // random orthogonal matrix by Gram-Schmidt, twice
  double *q = test_normal_doubles((ptrdiff_t)n * n);
  for (int i = 0; i < n; i++) {
    for (int pass = 0; pass < 2; pass++) {
      for (int p = 0; p < i; p++) {
        double dot = 0;
        for (int t = 0; t < n; t++) dot += q[i * n + t] * q[p * n + t];
        for (int t = 0; t < n; t++) q[i * n + t] -= dot * q[p * n + t];
      }
      double norm = compress_norm(n, q + i * n);
      for (int t = 0; t < n; t++) q[i * n + t] /= norm;
    }
  }
  return q;
}

static double *compress_with_values(int n, const double *values) { // Q1 diag(values) Q2
  double *left = compress_orthogonal(n), *right = compress_orthogonal(n),
         *a = test_doubles((ptrdiff_t)n * n);
  for (int i = 0; i < n; i++)
    for (int p = 0; p < n; p++)
      for (int j = 0; j < n; j++) a[i * n + j] += left[i * n + p] * values[p] * right[p * n + j];
  free(left);
  free(right);
  return a;
}

static void compress_test_known_spectrum(void) {
  static const int steps[4] = {25, 10, 30, 5};
  static const double sums[4] = {0.0194093, 0.0753650, 0.0129826, 0.1615216};
  int rows[2] = {50, 1}, cols[2] = {1, 50};
  double values[50], *dense;
  tt_shape shape = test_shape(2, rows, cols, NULL);
  for (int i = 0; i < 50; i++) values[i] = 1.0 / (i + 1);
  dense = compress_with_values(50, values);
  for (int step = 0; step < 4; step++) {
    tt_options options = test_options();
    tt_matrix w;
    tt_report report;
    double exact = compress_tail(values, 50, steps[step]), norm = compress_norm(50, values);
    CHECK_CLOSE(exact * exact, sums[step], 1e-7);
    options.dtype = TT_F64;
    if (step < 2)
      options.epsilon = exact / norm * (1 + 1e-9);
    else
      options.max_rank = steps[step];
    double error = compress_run(dense, 50, 50, &shape, &options, 0, &w, &report);
    CHECK(w.shape.ranks[1] == steps[step]);
    CHECK(report.limit[0] == (step < 2 ? TT_LIMIT_EPSILON : TT_LIMIT_CAP));
    CHECK_CLOSE(error * error * norm * norm, exact * exact, 1e-8);
    CHECK_CLOSE(report.discarded[0] * norm, exact, 1e-10);
    if (report.spectrum_complete)
      CHECK_CLOSE(report.entropy[0], compress_entropy(values, 50), 1e-10);
    tt_free(&w);
    options.epsilon = step < 2 ? exact / norm * (1 - 1e-9) : 0; // a hair less: one value more
    if (step < 2) {
      compress_run(dense, 50, 50, &shape, &options, 0, &w, &report);
      CHECK(w.shape.ranks[1] == steps[step] + 1);
      tt_free(&w);
    }
  }
  free(dense);
}

static void compress_test_middle_bond(void) { // 2^10 whose middle bond has the spectrum 0.1^i
  int twos[10] = {2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, last = 32;
  tt_shape shape = compress_column(10, twos);
  double values[32], *dense;
  for (int i = 0; i < 32; i++) values[i] = pow(0.1, i);
  dense = compress_with_values(32, values);
  for (int step = 3; step >= 1; step--) {
    tt_options options = test_options();
    tt_matrix w;
    tt_report report;
    int most = 0;
    options.dtype = TT_F64;
    options.epsilon = pow(0.1, step);
    double error = compress_run(dense, 1024, 1, &shape, &options, 0, &w, &report);
    CHECK_AT_MOST(error, options.epsilon);
    compress_check_theorem(dense, &w, &report, 1e-12);
    for (int k = 0; k <= 10; k++)
      if (w.shape.ranks[k] > most) most = w.shape.ranks[k];
    CHECK(most <= last);
    if (step == 1) CHECK(most < 10); // far below the 32 of a random tensor
    last = most;
    tt_free(&w);
  }
  free(dense);
}

static void compress_test_diagonal(
    void) { // diag(10, 9, 8, 7) as 4 x 5, cap 3: exactly the three largest entries stay
  int rows[2] = {4, 1}, cols[2] = {1, 5};
  tt_shape shape = test_shape(2, rows, cols, NULL);
  for (int method = 0; method <= TT_SVD_RANDOMIZED; method++) {
    double dense[20] = {0}, expanded[20];
    tt_options options = test_options();
    tt_matrix w;
    tt_report report;
    for (int i = 0; i < 4; i++) dense[i * 6] = 10 - i;
    options.dtype = TT_F64;
    options.max_rank = 3;
    options.method = method;
    compress_run(dense, 4, 5, &shape, &options, 0, &w, &report);
    CHECK_STATUS(tt_expand_f64(&w, expanded), TT_OK);
    for (int i = 0; i < 20; i++) CHECK_CLOSE(expanded[i], i == 18 ? 0 : dense[i], 1e-10);
    CHECK_CLOSE(report.discarded[0], 7 / sqrt(100 + 81 + 64 + 49), 1e-10);
    tt_free(&w);
  }
}

// Cuts one bond of a dense matrix to a rank, in place, with the public SVD.
static void compress_cut_dense(double *dense, const tt_shape *shape, int bond, int rank) {
  ptrdiff_t height = (ptrdiff_t)shape_legs(shape, 0, bond + 1),
            width = (ptrdiff_t)shape_legs(shape, bond + 1, shape->order);
  ptrdiff_t size = height < width ? height : width;
  double *unfolding = test_doubles(height * width), *u = test_doubles(height * size),
         *s = test_doubles(size);
  double *vt = test_doubles(size * width);
  compress_unfold(shape, shape_rows(shape), shape_cols(shape), dense, bond, unfolding, 0);
  CHECK_STATUS(tt_svd_f64(unfolding, height, width, u, s, vt, NULL), TT_OK);
  memset(unfolding, 0, sizeof(double) * (size_t)(height * width));
  for (ptrdiff_t i = 0; i < height; i++)
    for (int p = 0; p < rank; p++)
      for (ptrdiff_t j = 0; j < width; j++)
        unfolding[i * width + j] += u[i * size + p] * s[p] * vt[p * width + j];
  compress_unfold(shape, shape_rows(shape), shape_cols(shape), dense, bond, unfolding, 1);
  free(unfolding);
  free(u);
  free(s);
  free(vt);
}

// A train cut to `rank` must be the dense matrix cut bond by bond, in one of the possible orders of
// the three bonds.
static double compress_distance_to_oracle(const double *dense, const tt_matrix *w, int rank) {
  static const int orders[6][3] = {{0, 1, 2}, {2, 1, 0}, {0, 2, 1},
                                   {2, 0, 1}, {1, 0, 2}, {1, 2, 0}};
  double best = 1e9;
  for (int t = 0; t < 6; t++) {
    double *cut = train_sum(w->rows * w->cols, 1, dense, 0, dense);
    for (int k = 0; k < 3; k++) compress_cut_dense(cut, &w->shape, orders[t][k], rank);
    double distance = compress_error(w, cut);
    if (distance < best) best = distance;
    free(cut);
  }
  return best;
}

static void compress_test_against_dense_cuts(void) {
  for (int index = 3; index < SHAPE_TABLE_SIZE; index += 2) {
    for (int method = 0; method < TT_SVD_RANDOMIZED; method++) {
      tt_shape shape = shape_of_table(index);
      tt_options options = test_options();
      tt_matrix w;
      tt_report report;
      double *dense = compress_random(shape_rows(&shape), shape_cols(&shape));
      options.dtype = TT_F64;
      options.max_rank = 2;
      options.method = method;
      compress_run(dense, shape_rows(&shape), shape_cols(&shape), &shape, &options, 0, &w, &report);
      CHECK_AT_MOST(compress_distance_to_oracle(dense, &w, 2),
                    method == TT_SVD_GRAM ? 1e-7 : 1e-11);
      tt_free(&w);
      free(dense);
    }
  }
}

// ---- which limit decided, caps per bond, strictness

static void compress_test_limits(void) {
  tt_shape shape = shape_of_table(5);
  tt_options options = test_options();
  tt_matrix w;
  tt_report report;
  double *dense = compress_random(36, 36);
  options.dtype = TT_F64;
  compress_run(dense, 36, 36, &shape, &options, 0, &w, &report);
  CHECK(w.shape.ranks[1] == 6 && w.shape.ranks[2] == 36 && w.shape.ranks[3] == 9);
  for (int k = 0; k < 3; k++) {
    int count;
    double *values = compress_spectrum(&shape, 36, 36, dense, k, &count);
    CHECK(report.limit[k] == TT_LIMIT_SHAPE);
    CHECK_CLOSE(report.entropy[k], compress_entropy(values, count), 1e-10);
    free(values);
  }
  CHECK(report.spectrum_complete == 1);
  tt_free(&w);
  options.max_rank = 7;
  compress_run(dense, 36, 36, &shape, &options, 0, &w, &report);
  CHECK(w.shape.ranks[1] == 6 && w.shape.ranks[2] == 7 && w.shape.ranks[3] == 7);
  CHECK(report.limit[0] == TT_LIMIT_SHAPE && report.limit[1] == TT_LIMIT_CAP &&
        report.limit[2] == TT_LIMIT_CAP);
  tt_free(&w);
  shape.ranks[1] = 2; // caps of single bonds beside the global one
  shape.ranks[2] = 9;
  compress_run(dense, 36, 36, &shape, &options, 0, &w, &report);
  CHECK(w.shape.ranks[1] == 2 && w.shape.ranks[2] == 7 && w.shape.ranks[3] == 7);
  CHECK(report.limit[0] == TT_LIMIT_CAP && report.limit[1] == TT_LIMIT_CAP);
  tt_free(&w);
  options.max_rank = 0;
  options.epsilon = 0.5; // tolerance and caps at once
  compress_run(dense, 36, 36, &shape, &options, 0, &w, &report);
  CHECK(w.shape.ranks[1] == 2 && w.shape.ranks[2] <= 9);
  CHECK(report.limit[0] == TT_LIMIT_CAP);
  CHECK(report.limit[1] == (w.shape.ranks[2] == 9 ? TT_LIMIT_CAP : TT_LIMIT_EPSILON));
  tt_free(&w);
  options.epsilon = 5; // everything may go: rank 1 stays
  compress_run(dense, 36, 36, &shape, &options, 0, &w, &report);
  for (int k = 1; k < 4; k++)
    CHECK(w.shape.ranks[k] == 1 && report.limit[k - 1] == TT_LIMIT_EPSILON);
  tt_free(&w);
  free(dense);
}

static void compress_test_limit_epsilon_or_cap(
    void) { // exact rank 2 on every bond: the tolerance decides, or the cap
  int legs[4] = {4, 4, 4, 4};
  tt_shape shape = compress_column(4, legs);
  double dense[256];
  for (int cap = 1; cap <= 4; cap++) {
    tt_options options = test_options();
    tt_matrix w;
    tt_report report;
    for (int i = 0; i < 256; i++) dense[i] = 3 + i;
    options.dtype = TT_F64;
    options.epsilon = 1e-9;
    options.max_rank = cap;
    double error = compress_run(dense, 256, 1, &shape, &options, 0, &w, &report);
    for (int k = 0; k < 3; k++) {
      CHECK(w.shape.ranks[k + 1] == (cap < 2 ? 1 : 2));
      CHECK(report.limit[k] == (cap < 2   ? TT_LIMIT_CAP
                                : cap > 2 ? TT_LIMIT_EPSILON
                                          : report.limit[k]));
    }
    CHECK(cap < 2 ? error > 1e-3 : error < 1e-13);
    tt_free(&w);
  }
}

static void compress_test_strict(void) {
  tt_shape shape = shape_of_table(5);
  tt_options options = test_options();
  tt_matrix w;
  tt_report report;
  double *dense = compress_random(36, 36);
  options.dtype = TT_F64;
  shape.ranks[1] = 100;
  shape.ranks[2] = 7;
  compress_run(dense, 36, 36, &shape, &options, 0, &w, &report); // clipped
  CHECK(w.shape.ranks[1] == 6 && w.shape.ranks[2] == 7 && w.shape.ranks[3] == 9);
  tt_free(&w);
  options.strict = 1;
  CHECK_STATUS(tt_compress_f64(dense, 36, 36, &shape, &options, &w, &report), TT_ERROR_SHAPE);
  CHECK(train_is_zeroed(&w));
  shape.ranks[1] = 6;
  options.max_rank = 1000; // max_rank is always lowered
  compress_run(dense, 36, 36, &shape, &options, 0, &w, &report);
  CHECK(w.shape.ranks[1] == 6 && w.shape.ranks[2] == 7 && w.shape.ranks[3] == 9);
  tt_free(&w);
  free(dense);
}

// ---- edges: long chains, one core, primes, extremes

static void compress_test_orders(void) {
  int legs[16], ones[16], ranks[17];
  tt_options options = test_options();
  tt_matrix w;
  tt_report report;
  double *dense = test_doubles(65536);
  for (int k = 0; k < 16; k++) {
    legs[k] = 2;
    ones[k] = 1;
    ranks[k + 1] = k < 15 ? 2 : 1;
  }
  ranks[0] = 1;
  tt_shape shape = compress_column(16, legs);
  for (int i = 0; i < 65536; i++) dense[i] = sin(0.01 * i);
  compress_check_ranks(dense, &shape, 1e-10, ranks, 1e-10);
  for (int k = 0; k < 16; k++) {
    legs[k] = 1 + k % 2;
    ones[k] = 2 - k % 2;
  } // sixteen cores of a 256 x 256 matrix
  shape = test_shape(16, legs, ones, NULL);
  for (int i = 0; i < 65536; i++) dense[i] = test_normal();
  options.max_rank = 12;
  options.dtype = TT_F64;
  double error = compress_run(dense, 256, 256, &shape, &options, 1, &w, &report);
  CHECK_CLOSE(error, report.relative_error, 1e-7);
  tt_free(&w);
  for (int k = 0; k < 16; k++) legs[k] = ones[k] = 1; // one number in sixteen cores
  shape = test_shape(16, legs, ones, NULL);
  dense[0] = -3.5;
  error = compress_run(dense, 1, 1, &shape, &options, 0, &w, &report);
  CHECK_AT_MOST(error, 1e-15);
  tt_free(&w);
  free(dense);
}

static void compress_test_primes(void) {
  static const int sizes[4][2] = {{13, 7}, {97, 1}, {1, 89}, {31, 37}};
  for (int t = 0; t < 4; t++) {
    ptrdiff_t rows = sizes[t][0], cols = sizes[t][1];
    for (int order = 1; order <= 4; order++) {
      tt_shape shape;
      tt_options options = test_options();
      tt_matrix w;
      tt_report report;
      double *dense = compress_random(rows, cols);
      CHECK_STATUS(tt_shape_factor(rows, cols, order, &shape), TT_OK);
      options.dtype = TT_F64;
      CHECK_AT_MOST(compress_run(dense, rows, cols, &shape, &options, 0, &w, &report), 1e-13);
      tt_free(&w);
      options.epsilon = 0.2;
      double error = compress_run(dense, rows, cols, &shape, &options, 1, &w, &report);
      CHECK_AT_MOST(error, 0.2);
      CHECK_AT_MOST(error, report.relative_error + 1e-7);
      tt_free(&w);
      free(dense);
    }
  }
}

static void compress_test_zero(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    for (int method = 0; method <= TT_SVD_RANDOMIZED; method++) {
      for (int epsilon = 0; epsilon < 2; epsilon++) {
        tt_shape shape = shape_of_table(index);
        tt_options options = test_options();
        ptrdiff_t rows, cols;
        tt_matrix w;
        tt_report report;
        shape_true_size(&shape, index & 1, &rows, &cols);
        double *dense = test_doubles(rows * cols);
        options.method = method;
        options.epsilon = 0.1 * epsilon;
        options.dtype = TT_F64;
        CHECK(compress_run(dense, rows, cols, &shape, &options, method & 1, &w, &report) == 0);
        CHECK(report.relative_error == 0 && report.norm == 0);
        for (int k = 1; k < shape.order; k++) {
          if (epsilon) CHECK(w.shape.ranks[k] == 1);
          CHECK(report.entropy[k - 1] == 0);
        }
        tt_free(&w);
        free(dense);
      }
    }
  }
}

// Factors from 1e-300 to 1e300: the same ranks and errors as at scale one.
static void compress_test_scales(void) {
  static const double scales[8] = {1, 4.2, 1e150, 1e-150, 1e300, 1e-290, 1e30, 1e-30};
  for (int index = 1; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = shape_of_table(index);
    ptrdiff_t rows = shape_rows(&shape), cols = shape_cols(&shape);
    double *dense = compress_smooth(rows, cols), first = 0;
    for (int t = 0; t < 8; t++) {
      double *scaled = train_sum(rows * cols, scales[t], dense, 0, dense),
             *back = test_doubles(rows * cols);
      tt_options options = test_options();
      tt_matrix w;
      tt_report report;
      options.dtype = TT_F64;
      options.epsilon = 0.01;
      CHECK_STATUS(tt_compress_f64(scaled, rows, cols, &shape, &options, &w, &report), TT_OK);
      CHECK_CLOSE(report.norm / scales[t], compress_norm(rows * cols, dense), 1e-10);
      if (t == 0) first = report.relative_error;
      CHECK_CLOSE(report.relative_error, first, 1e-10);
      CHECK_STATUS(tt_expand_f64(&w, back), TT_OK);
      for (ptrdiff_t i = 0; i < rows * cols; i++) back[i] /= scales[t];
      CHECK_CLOSE(test_distance(rows * cols, back, dense), first, 1e-10);
      tt_free(&w);
      free(scaled);
      free(back);
    }
    free(dense);
  }
}

static void compress_test_float_extremes(void) {
  static const float scales[4] = {3e38f, 1e30f, 1e-30f, 1e-38f};
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    for (int t = 0; t < 4; t++) {
      tt_shape shape = shape_of_table(index);
      ptrdiff_t count = shape_rows(&shape) * shape_cols(&shape);
      float *dense = test_floats(count), *back = test_floats(count);
      double difference = 0, square = 0;
      tt_matrix w;
      for (ptrdiff_t i = 0; i < count; i++) dense[i] = scales[t] * (float)(2 * test_uniform() - 1);
      CHECK_STATUS(
          tt_compress(dense, shape_rows(&shape), shape_cols(&shape), &shape, NULL, &w, NULL),
          TT_OK);
      if (w.block) CHECK_STATUS(tt_expand(&w, back), TT_OK);
      for (ptrdiff_t i = 0; i < count; i++) {
        double x = (double)dense[i] / (double)scales[t], y = (double)back[i] / (double)scales[t];
        difference += (x - y) * (x - y);
        square += x * x;
      }
      CHECK_AT_MOST(sqrt(difference / square), t == 3 ? 1e-4 : 1e-6); // 1e-38 borders on subnormal
      tt_free(&w);
      free(dense);
      free(back);
    }
  }
}

static void compress_test_too_large(void) { // double numbers that no F32 core can hold
  tt_shape shape = shape_of_table(0);
  tt_options options = test_options();
  double *dense = compress_random(12, 10);
  tt_matrix w;
  dense[17] = 1e60;
  tt_status status = tt_compress_f64(dense, 12, 10, &shape, &options, &w, NULL);
  CHECK(status == TT_ERROR_UNSUPPORTED && train_is_zeroed(&w));
  options.dtype = TT_F64;
  CHECK_STATUS(tt_compress_f64(dense, 12, 10, &shape, &options, &w, NULL), TT_OK);
  CHECK(((const double *)w.cores[0].data)[17] == 1e60);
  tt_free(&w);
  free(dense);
}

// ---- bad input

static void compress_test_nonfinite(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    for (int trial = 0; trial < 6; trial++) {
      tt_shape shape = shape_of_table(index);
      ptrdiff_t rows, cols;
      shape_true_size(&shape, trial & 1, &rows, &cols);
      ptrdiff_t count = rows * cols, where = trial == 0   ? 0
                                             : trial == 1 ? count - 1
                                                          : test_below((int)count);
      double *wide = compress_random(rows, cols);
      float *single = test_normal_floats(count);
      tt_matrix w;
      tt_report report;
      wide[where] = trial % 3 == 0   ? (double)NAN
                    : trial % 3 == 1 ? (double)INFINITY
                                     : -(double)INFINITY;
      single[where] = (float)wide[where];
      memset(&w, 1, sizeof w);
      CHECK_STATUS(tt_compress(single, rows, cols, &shape, NULL, &w, &report), TT_ERROR_NONFINITE);
      CHECK(report.position == where && train_is_zeroed(&w));
      memset(&w, 1, sizeof w);
      CHECK_STATUS(tt_compress_f64(wide, rows, cols, &shape, NULL, &w, &report),
                   TT_ERROR_NONFINITE);
      CHECK(report.position == where && train_is_zeroed(&w));
      CHECK_STATUS(tt_compress_f64(wide, rows, cols, &shape, NULL, &w, NULL), TT_ERROR_NONFINITE);
      free(wide);
      free(single);
    }
  }
}

static void compress_test_invalid(void) {
  tt_shape shape = shape_of_table(4), bad;
  float *dense = test_normal_floats(30 * 28);
  tt_options options;
  tt_matrix w;
  tt_report report;
  CHECK_STATUS(tt_compress(NULL, 30, 28, &shape, NULL, &w, &report), TT_ERROR_INVALID);
  CHECK(train_is_zeroed(&w));
  CHECK_STATUS(tt_compress(dense, 30, 28, NULL, NULL, &w, &report), TT_ERROR_INVALID);
  CHECK_STATUS(tt_compress(dense, 30, 28, &shape, NULL, NULL, &report), TT_ERROR_INVALID);
  CHECK_STATUS(tt_compress_f64(NULL, 30, 28, &shape, NULL, &w, &report), TT_ERROR_INVALID);
  CHECK_STATUS(tt_compress(dense, -30, 28, &shape, NULL, &w, &report), TT_ERROR_INVALID);
  CHECK_STATUS(tt_compress(dense, 0, 28, &shape, NULL, &w, &report), TT_ERROR_INVALID);
  CHECK_STATUS(tt_compress(dense, 31, 28, &shape, NULL, &w, &report), TT_ERROR_SHAPE);
  CHECK_STATUS(tt_compress(dense, 30, 29, &shape, NULL, &w, &report), TT_ERROR_SHAPE);
  bad = shape;
  bad.order = 99;
  CHECK_STATUS(tt_compress(dense, 30, 28, &bad, NULL, &w, &report), TT_ERROR_INVALID);
  bad = shape;
  bad.ranks[1] = -5;
  CHECK_STATUS(tt_compress(dense, 30, 28, &bad, NULL, &w, &report), TT_ERROR_INVALID);
  bad = shape;
  bad.ranks[2] = 3;
  CHECK_STATUS(tt_compress(dense, 30, 28, &bad, NULL, &w, &report), TT_ERROR_SHAPE);
  options = test_options();
  options.epsilon = -0.1;
  CHECK_STATUS(tt_compress(dense, 30, 28, &shape, &options, &w, &report), TT_ERROR_INVALID);
  options.epsilon = (double)NAN;
  CHECK_STATUS(tt_compress(dense, 30, 28, &shape, &options, &w, &report), TT_ERROR_INVALID);
  options = test_options();
  options.max_rank = -1;
  CHECK_STATUS(tt_compress(dense, 30, 28, &shape, &options, &w, &report), TT_ERROR_INVALID);
  options = test_options();
  options.method = 77;
  CHECK_STATUS(tt_compress(dense, 30, 28, &shape, &options, &w, &report), TT_ERROR_INVALID);
  options = test_options();
  options.dtype = (tt_dtype)10;
  CHECK_STATUS(tt_compress(dense, 30, 28, &shape, &options, &w, &report), TT_ERROR_INVALID);
  CHECK(train_is_zeroed(&w));
  free(dense);
}

// ---- memory and repetition

static void compress_check_failures(int as_float, int method, int dtype, const tt_shape *shape,
                                    int padded) {
  ptrdiff_t rows, cols;
  long calls = 0;
  shape_true_size(shape, padded, &rows, &cols);
  double *wide = compress_random(rows, cols);
  float *single = test_normal_floats(rows * cols);
  for (long n = 0; n <= calls; n++) {
    test_heap heap;
    tt_options options = test_options();
    tt_matrix w;
    tt_report report;
    options.allocator = test_allocator(&heap);
    options.method = method;
    options.dtype = (tt_dtype)dtype;
    options.max_rank = 3;
    heap.fail_at = n;
    memset(&w, 1, sizeof w);
    tt_status status = as_float ? tt_compress(single, rows, cols, shape, &options, &w, &report)
                                : tt_compress_f64(wide, rows, cols, shape, &options, &w, &report);
    CHECK_STATUS(status, n ? TT_ERROR_MEMORY : TT_OK);
    if (n == 0) {
      calls = heap.calls;
      CHECK(heap.live_blocks == 1);
      tt_free(&w);
    }
    CHECK(heap.live_blocks == 0 && heap.live == 0 && train_is_zeroed(&w));
  }
  CHECK(calls >= 1);
  free(wide);
  free(single);
}

static void compress_test_failures(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = shape_of_table(index);
    for (int method = 0; method <= TT_SVD_RANDOMIZED; method++)
      for (int variant = 0; variant < 4; variant++)
        compress_check_failures(variant & 1, method, variant & 2 ? TT_I4 : TT_F32, &shape,
                                variant >> 1);
  }
}

static void compress_test_repeats(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    for (int method = 0; method <= TT_SVD_RANDOMIZED; method++) {
      tt_shape shape = shape_of_table(index);
      tt_options options = test_options();
      tt_matrix a, b;
      tt_report first, second;
      test_heap heap;
      float *dense = test_normal_floats(shape_rows(&shape) * shape_cols(&shape));
      options.method = method;
      options.max_rank = 3;
      options.seed = 5;
      memset(&first, 0, sizeof first);
      memset(&second, 0, sizeof second);
      CHECK_STATUS(
          tt_compress(dense, shape_rows(&shape), shape_cols(&shape), &shape, &options, &a, &first),
          TT_OK);
      options.allocator = test_allocator(&heap); // other addresses, memory full of rubbish
      CHECK_STATUS(
          tt_compress(dense, shape_rows(&shape), shape_cols(&shape), &shape, &options, &b, &second),
          TT_OK);
      for (int k = 0; a.block && b.block && k < shape.order; k++)
        CHECK(train_core_bytes_equal(&a, k, &b, k));
      CHECK(first.relative_error == second.relative_error && first.norm == second.norm);
      CHECK(!memcmp(first.entropy, second.entropy, sizeof first.entropy));
      tt_free(&a);
      tt_free(&b);
      CHECK(heap.live_blocks == 0);
      free(dense);
    }
  }
}

// A 2048 x 2048 matrix of exact low rank plus a little noise; peak memory of compressing it.
static void compress_check_peak(int as_float, const tt_shape *shape, ptrdiff_t rows, ptrdiff_t cols,
                                int max_rank) {
  test_heap heap;
  tt_options options = test_options();
  tt_matrix w;
  tt_report report;
  ptrdiff_t count = rows * cols, each = as_float ? 4 : 8;
  void *data = as_float ? (void *)test_floats(count) : (void *)test_doubles(count);
  for (ptrdiff_t i = 0; i < count; i++) {
    double value =
        cos(0.001 * (double)(i / cols) * (double)(i % cols)) + 1e-3 * (test_uniform() - 0.5);
    if (as_float)
      ((float *)data)[i] = (float)value;
    else
      ((double *)data)[i] = value;
  }
  options.allocator = test_allocator(&heap);
  options.max_rank = max_rank;
  options.dtype = as_float ? TT_F32 : TT_F64;
  tt_status status =
      as_float ? tt_compress((const float *)data, rows, cols, shape, &options, &w, &report)
               : tt_compress_f64((const double *)data, rows, cols, shape, &options, &w, &report);
  CHECK_STATUS(status, TT_OK);
  CHECK_AT_MOST((double)heap.peak, (double)(count * each) + 64.0 * 1024 * 1024);
  tt_free(&w);
  CHECK(heap.live_blocks == 0);
  free(data);
}

static void compress_test_peak(void) {
  static const int order[5] = {2, 3, 4, 2, 4};
  static const int rows[5][4] = {{64, 32}, {16, 16, 8}, {8, 8, 8, 4}, {2048, 1}, {1, 1, 32, 64}};
  static const int cols[5][4] = {{32, 64}, {8, 16, 16}, {4, 8, 8, 8}, {1, 2048}, {32, 64, 1, 1}};
  for (int index = 0; index < 5; index++) {
    tt_shape shape = test_shape(order[index], rows[index], cols[index], NULL);
    for (int as_float = 0; as_float < 2; as_float++) {
      ptrdiff_t less = index % 2 ? 48 : 0; // some of them padded
      compress_check_peak(as_float, &shape, 2048 - less, 2048 - less, 16);
    }
  }
}

// An iteration that is stopped early says so and leaves its best effort; given time, it converges.
static void compress_test_convergence(void) {
  double *x = compress_random(8, 8), *first = train_sum(64, 1, x, 0, x), square[8];
  CHECK_STATUS(tt__jacobi(8, 8, x, 0, NULL, square, 1), TT_ERROR_CONVERGENCE);
  CHECK_CLOSE(compress_norm(64, x), compress_norm(64, first), 1e-13); // rotations keep the norm
  CHECK(test_distance(64, x, first) > 1e-3);
  CHECK_STATUS(tt__jacobi(8, 8, x, 0, NULL, square, 40), TT_OK);
  CHECK_CLOSE(compress_norm(64, x), compress_norm(64, first), 1e-13);
  free(x);
  free(first);
}

static void test_compress(void) {
  compress_test_convergence();
  compress_test_six_shapes();
  compress_test_formats();
  compress_test_exact_ranks();
  compress_test_analytic();
  compress_test_known_spectrum();
  compress_test_middle_bond();
  compress_test_diagonal();
  compress_test_against_dense_cuts();
  compress_test_limits();
  compress_test_limit_epsilon_or_cap();
  compress_test_strict();
  compress_test_orders();
  compress_test_primes();
  compress_test_zero();
  compress_test_scales();
  compress_test_float_extremes();
  compress_test_too_large();
  compress_test_nonfinite();
  compress_test_invalid();
  compress_test_failures();
  compress_test_repeats();
  compress_test_peak();
}
