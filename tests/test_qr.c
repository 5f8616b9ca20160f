// tt_qr and tt_qr_f64: A = Q R in ulps on every kind of matrix, signs, strides, refusals.
#include "reference.h"

typedef struct qr_result {
  ptrdiff_t rows, cols, k;
  double *q, *r;
} qr_result;

static void qr_free(qr_result *t) {
  free(t->q);
  free(t->r);
}

// Runs the float version on narrowed arrays with leading dimensions `padding` larger than the
// width.
static qr_result qr_run_single(ptrdiff_t rows, ptrdiff_t cols, const double *a, int padding) {
  qr_result t = {rows, cols, rows < cols ? rows : cols, NULL, NULL};
  ptrdiff_t lda = cols + padding, ldq = t.k + padding, ldr = cols + 2 * padding;
  float *x = test_floats(rows * lda), *q = test_floats(rows * ldq), *r = test_floats(t.k * ldr);
  t.q = test_doubles(rows * t.k);
  t.r = test_doubles(t.k * cols);
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t j = 0; j < cols; j++) x[i * lda + j] = (float)a[i * cols + j];
  CHECK_STATUS(tt_qr(rows, cols, x, lda, q, ldq, r, ldr, NULL), TT_OK);
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t j = 0; j < t.k; j++) t.q[i * t.k + j] = (double)q[i * ldq + j];
  for (ptrdiff_t i = 0; i < t.k; i++)
    for (ptrdiff_t j = 0; j < cols; j++) t.r[i * cols + j] = (double)r[i * ldr + j];
  free(x); free(q); free(r);
  return t;
}

static qr_result qr_run(ptrdiff_t rows, ptrdiff_t cols, const double *a, int single, int padding) {
  if (single) return qr_run_single(rows, cols, a, padding);
  qr_result t = {rows, cols, rows < cols ? rows : cols, NULL, NULL};
  ptrdiff_t lda = cols + padding, ldq = t.k + padding, ldr = cols + 2 * padding;
  double *x = test_doubles(rows * lda), *q = test_doubles(rows * ldq), *r = test_doubles(t.k * ldr);
  t.q = test_doubles(rows * t.k);
  t.r = test_doubles(t.k * cols);
  for (ptrdiff_t i = 0; i < rows; i++) memcpy(x + i * lda, a + i * cols, (size_t)cols * sizeof *a);
  CHECK_STATUS(tt_qr_f64(rows, cols, x, lda, q, ldq, r, ldr, NULL), TT_OK);
  for (ptrdiff_t i = 0; i < rows; i++) memcpy(t.q + i * t.k, q + i * ldq, (size_t)t.k * sizeof *q);
  for (ptrdiff_t i = 0; i < t.k; i++) memcpy(t.r + i * cols, r + i * ldr, (size_t)cols * sizeof *r);
  free(x); free(q); free(r);
  return t;
}

static double qr_worst[2][2]; // [single][residual, orthogonality]

// Residual and orthogonality at most `gate`, R upper triangular with a diagonal that is not
// negative.
static void qr_check(ptrdiff_t rows, ptrdiff_t cols, const double *a, int single, double gate) {
  qr_result t = qr_run(rows, cols, a, single, (int)((rows + cols) % 3));
  double residual = reference_residual(rows, cols, t.k, a, t.q, t.r, single);
  double orthogonality = reference_orthogonality(rows, t.k, t.q, single);
  int triangular = 1, positive = 1;
  for (ptrdiff_t i = 0; i < t.k; i++) {
    for (ptrdiff_t j = 0; j < i; j++) triangular &= t.r[i * cols + j] == 0;
    positive &= t.r[i * cols + i] >= 0;
  }
  CHECK(triangular);
  CHECK(positive);
  CHECK_AT_MOST(residual, gate);
  CHECK_AT_MOST(orthogonality, gate);
  if (!(residual <= gate && orthogonality <= gate))
    printf("  %d x %d, single %d\n", (int)rows, (int)cols, single);
  qr_worst[single][0] = reference_larger(qr_worst[single][0], residual);
  qr_worst[single][1] = reference_larger(qr_worst[single][1], orthogonality);
  qr_free(&t);
}

static void qr_check_both(ptrdiff_t rows, ptrdiff_t cols, const double *a, double gate) {
  double *rounded = reference_round(rows * cols, reference_copy(rows * cols, a), 1);
  qr_check(rows, cols, a, 0, gate);
  qr_check(rows, cols, rounded, 1, gate);
  free(rounded);
}

static void qr_test_random(void) {
  static const int sizes[][2] = {{1, 1},    {1, 7},    {7, 1},    {2, 2},     {3, 5},
                                 {5, 3},    {16, 16},  {31, 33},  {33, 31},   {64, 64},
                                 {65, 63},  {100, 20}, {20, 100}, {127, 127}, {257, 40},
                                 {40, 257}, {1000, 3}, {130, 129}};
  for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++) {
    double *a = test_normal_doubles(sizes[i][0] * sizes[i][1]);
    qr_check_both(sizes[i][0], sizes[i][1], a, 3);
    free(a);
  }
}

// Rank-deficient, graded, zero, with zero rows and columns, constant, triangular, orthogonal.
static void qr_test_structured(void) {
  ptrdiff_t sizes[][2] = {{30, 30}, {45, 20}, {20, 45}};
  for (int c = 0; c < 3; c++) {
    ptrdiff_t m = sizes[c][0], n = sizes[c][1], k = 20;
    double s[30] = {0}, *zero = test_doubles(m * n);
    double *graded = test_normal_doubles(m * n), *holes = test_normal_doubles(m * n);
    for (ptrdiff_t i = 0; i < m * n; i++) {
      graded[i] *= pow(10, -(double)(i / n % 16));
      if (i / n % 5 == 2 || i % n % 4 == 0) holes[i] = 0;
    }
    for (int i = 0; i < 7; i++) s[i] = 1 + i;
    double *deficient = reference_with_values(m, n, s),
           *orthogonal = reference_orthogonal(m, k < m ? k : m);
    qr_check_both(m, n, zero, 35);
    qr_check_both(m, n, graded, 35);
    qr_check_both(m, n, holes, 35);
    qr_check_both(m, n, deficient, 35);
    qr_check_both(m, k, orthogonal, 35);
    for (ptrdiff_t i = 0; i < m * n; i++) holes[i] = -1;
    qr_check_both(m, n, holes, 35);
    for (ptrdiff_t i = 0; i < m * n; i++) holes[i] = i % n >= i / n ? graded[i] : 0;
    qr_check_both(m, n, holes, 35);
    free(zero); free(graded); free(holes); free(deficient); free(orthogonal);
  }
}

// Largest and smallest numbers: squares leave the range, R sometimes reaches its edge.
static void qr_test_scales(void) {
  static const double scales[] = {1e300, 1e-300, 1e150, 1e-160,  0x1p-1060,
                                  1e30,  1e-30,  1e37,  0x1p-140};
  for (int c = 0; c < 9; c++) {
    for (int wide = 0; wide < 2; wide++) {
      ptrdiff_t m = wide ? 12 : 25, n = wide ? 25 : 12;
      double *a = test_normal_doubles(m * n);
      for (ptrdiff_t i = 0; i < m * n; i++) a[i] *= scales[c];
      qr_check(m, n, a, 0, 35);
      if (c >= 5) qr_check(m, n, reference_round(m * n, a, 1), 1, 35);
      free(a);
    }
  }
  double *columns = test_normal_doubles(25 * 12); // tiny and subnormal columns between normal ones
  static const double sizes[] = {1, 1e-312, 1e-150, 1e-305};
  for (ptrdiff_t i = 0; i < 25 * 12; i++) columns[i] *= sizes[i % 12 * 7 % 4];
  qr_check(25, 12, columns, 0, 35);
  qr_check(12, 25, columns, 0, 35);
  free(columns);
  double mixed[4] = {1e300, 1e-300, -1e-300, 1e300}, tiny[4] = {0x1p-1074, 0, 0, -0x1p-1074};
  qr_check(2, 2, mixed, 0, 35);
  qr_check(2, 2, tiny, 0, 35);
}

// Small exact cases: what must come out, to the last digit but rounding.
static void qr_test_known(void) {
  double minus[1] = {-3}, q = 9, r = 9, column[2] = {3, -4}, cq[2], cr[1];
  CHECK_STATUS(tt_qr_f64(1, 1, minus, 1, &q, 1, &r, 1, NULL), TT_OK);
  CHECK(q == -1 && r == 3);
  CHECK_STATUS(tt_qr_f64(2, 1, column, 1, cq, 1, cr, 1, NULL), TT_OK);
  CHECK_CLOSE(cr[0], 5, 2e-15);
  CHECK_CLOSE(cq[0], 0.6, 1e-15);
  CHECK_CLOSE(cq[1], -0.8, 1e-15);
  double a[12] = {1, 2, 3, 4, 5, 6, 7, 8, 10, -1, 0, 2}, full_q[12], full_r[9], alone[12];
  CHECK_STATUS(tt_qr_f64(4, 3, a, 3, full_q, 3, full_r, 3, NULL), TT_OK);
  CHECK_STATUS(tt_qr_f64(4, 3, a, 3, NULL, 0, alone, 3, NULL), TT_OK);
  for (int i = 0; i < 9; i++) CHECK_CLOSE(alone[i], full_r[i], 1e-14);
  CHECK_STATUS(tt_qr_f64(4, 3, a, 3, alone, 3, NULL, 0, NULL), TT_OK);
  for (int i = 0; i < 12; i++) CHECK_CLOSE(alone[i], full_q[i], 1e-14);
  CHECK_STATUS(tt_qr_f64(4, 3, a, 3, NULL, 0, NULL, 0, NULL), TT_OK);
  CHECK(a[0] == 1 && a[11] == 2);
}

static void qr_test_refusals(void) {
  double a[6] = {1, 2, 3, 4, 5, 6}, q[6] = {7, 7, 7, 7, 7, 7}, r[6] = {7, 7, 7, 7, 7, 7};
  float x[6] = {1, 2, 3, 4, (float)INFINITY, 6}, y[6] = {7, 7, 7, 7, 7, 7};
  tt_options bad = test_options();
  bad.epsilon = -1;
  CHECK_STATUS(tt_qr_f64(-1, 2, a, 2, q, 2, r, 2, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_qr_f64(3, -2, a, 2, q, 2, r, 2, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_qr_f64(3, 2, NULL, 2, q, 2, r, 2, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_qr_f64(3, 2, a, 1, q, 2, r, 2, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_qr_f64(3, 2, a, 2, q, 1, r, 2, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_qr_f64(3, 2, a, 2, q, 2, r, 1, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_qr_f64(3, 2, a, 2, q, 2, r, 2, &bad), TT_ERROR_INVALID);
  for (int i = 0; i < 6; i++) {
    double kept = a[i];
    a[i] = i % 2 ? (double)NAN : -(double)INFINITY;
    CHECK_STATUS(tt_qr_f64(3, 2, a, 2, q, 2, r, 2, NULL), TT_ERROR_NONFINITE);
    a[i] = kept;
  }
  CHECK_STATUS(tt_qr(2, 3, x, 3, y, 2, y, 3, NULL), TT_ERROR_NONFINITE);
  for (int i = 0; i < 6; i++) CHECK(q[i] == 7 && r[i] == 7 && y[i] == 7);
  a[2] = (double)NAN; // between the rows: not part of the matrix
  CHECK_STATUS(tt_qr_f64(2, 2, a, 3, q, 2, r, 2, NULL), TT_OK);
  CHECK_STATUS(tt_qr_f64(0, 2, NULL, 2, NULL, 0, NULL, 2, NULL), TT_OK);
  CHECK_STATUS(tt_qr(2, 0, NULL, 0, NULL, 0, NULL, 0, NULL), TT_OK);
}

// Every allocation may fail: TT_ERROR_MEMORY, outputs untouched, nothing leaked.
static void qr_test_memory(void) {
  double *a = test_normal_doubles(30 * 20), q[600], r[400];
  tt_status status = TT_ERROR_MEMORY;
  for (long fail = 1; status == TT_ERROR_MEMORY && fail < 100; fail++) {
    test_heap heap;
    tt_options options = test_options();
    options.allocator = test_allocator(&heap);
    heap.fail_at = fail;
    q[0] = r[0] = 1234;
    status = tt_qr_f64(30, 20, a, 20, q, 20, r, 20, &options);
    CHECK(heap.live_blocks == 0);
    CHECK(status == TT_OK || (status == TT_ERROR_MEMORY && q[0] == 1234 && r[0] == 1234));
  }
  CHECK_STATUS(status, TT_OK);
  free(a);
}

// Rows of every length around the vectors: dot products, z += a x + b y, rotations. The
// kernels of every instruction set that this processor has against one element after the other.
typedef struct qr_kernels {
  double (*dot)(ptrdiff_t, const double *, const double *);
  void (*axpy2)(ptrdiff_t, double, const double *, double, const double *, double *);
  void (*rotate)(ptrdiff_t, double, double, double, double *, double *);
} qr_kernels;

static void qr_public_rotate(ptrdiff_t n, double sign, double s, double tau, double *x, double *y) {
  double c = sign * sqrt(1 - s * s);
  (void)tau;
  tt__rotate(n, c, sign * s, x, y);
}

static void qr_check_kernels(const qr_kernels *kernels) {
  double x[40], y[40], z[40], old[3][40], worst = 0;
  for (ptrdiff_t n = 0; n <= 40; n++) {
    double a = test_normal(), b = test_normal(), angle = 3 * test_normal();
    double c = fabs(cos(angle)), s = sin(angle), sign = n % 2 ? 1 : -1;
    for (int i = 0; i < 40; i++) {
      old[0][i] = x[i] = test_normal();
      old[1][i] = y[i] = test_normal();
      old[2][i] = z[i] = test_normal();
    }
    double sum = kernels->dot(n, x, y);
    for (ptrdiff_t i = 0; i < n; i++) sum -= x[i] * y[i];
    worst = fmax(worst, fabs(sum));
    kernels->axpy2(n, a, x, b, y, z);
    kernels->axpy2(n, a, x, 0, NULL, z);
    kernels->rotate(n, sign, s, s / (1 + c), x, y);
    for (int i = 0; i < 40; i++) {
      double u = old[0][i], v = old[1][i];
      double want[3] = {sign * (c * u - s * v), sign * (s * u + c * v),
                        old[2][i] + 2 * a * u + b * v};
      if (i >= n) { want[0] = u; want[1] = v; want[2] = old[2][i]; }
      worst = fmax(worst, fabs(x[i] - want[0]) + fabs(y[i] - want[1]) + fabs(z[i] - want[2]));
    }
  }
  CHECK_AT_MOST(worst, 1e-13);
}

static void qr_axpy2(ptrdiff_t n, double a, const double *x, double b, const double *y, double *z) {
  if (y) tt__axpy2(n, a, x, b, y, z);
  else tt__axpy(n, a, x, z);
}

static void qr_test_kernels(void) {
  qr_kernels kernels = {tt__dot, qr_axpy2, qr_public_rotate};
  qr_check_kernels(&kernels);
#ifdef TT__SIMD
  qr_kernels vectors = {tt__row_dot, tt__row_axpy2, tt__row_rotate};
  qr_check_kernels(&vectors);
#endif
#ifdef TT__DISPATCH
  qr_kernels avx2 = {tt__row_avx2_dot, tt__row_avx2_axpy2, tt__row_avx2_rotate};
  if (tt__best_level() >= TT__AVX2) qr_check_kernels(&avx2);
  qr_kernels avx512 = {tt__row_avx512_dot, tt__row_avx512_axpy2, tt__row_avx512_rotate};
  if (tt__best_level() >= TT__AVX512) qr_check_kernels(&avx512);
#endif
}

static void test_qr(void) {
  qr_test_kernels();
  qr_test_random();
  if (getenv("TT_TEST_VERBOSE"))
    for (int single = 0; single < 2; single++)
      printf("  qr %s, random: residual %.3f, orthogonality %.3f\n", single ? "f32" : "f64",
             qr_worst[single][0], qr_worst[single][1]);
  qr_test_structured();
  qr_test_scales();
  qr_test_known();
  qr_test_refusals();
  qr_test_memory();
  if (getenv("TT_TEST_VERBOSE"))
    for (int single = 0; single < 2; single++)
      printf("  qr %s, all:    residual %.3f, orthogonality %.3f\n", single ? "f32" : "f64",
             qr_worst[single][0], qr_worst[single][1]);
}
