// tt_eigh and tt_eigh_f64: known spectra, residuals and orthogonality in ulps, signs, refusals.
#include "reference.h"

typedef struct eigen_result {
  ptrdiff_t n;
  double *values, *vectors;
} eigen_result;

static void eigen_free(eigen_result *t) {
  free(t->values);
  free(t->vectors);
}

// The upper triangle handed over is garbage: only the lower one may be read.
static eigen_result eigen_run(ptrdiff_t n, const double *a, int single, int padding) {
  eigen_result t = {n, test_doubles(n), test_doubles(n * n)};
  ptrdiff_t ld = n + padding;
  float *x = test_floats(n * ld), *values = test_floats(n), *vectors = test_floats(n * ld);
  double *y = test_doubles(n * ld), *wide = test_doubles(n * ld);
  for (ptrdiff_t i = 0; i < n; i++)
    for (ptrdiff_t j = 0; j < ld; j++) {
      y[i * ld + j] = j <= i ? a[i * n + j] : (double)NAN;
      x[i * ld + j] = (float)y[i * ld + j];
    }
  if (single) CHECK_STATUS(tt_eigh(n, x, ld, values, vectors, ld, NULL), TT_OK);
  else CHECK_STATUS(tt_eigh_f64(n, y, ld, t.values, wide, ld, NULL), TT_OK);
  for (ptrdiff_t i = 0; i < n; i++) {
    if (single) t.values[i] = (double)values[i];
    for (ptrdiff_t j = 0; j < n; j++)
      t.vectors[i * n + j] = single ? (double)vectors[i * ld + j] : wide[i * ld + j];
  }
  free(x); free(values); free(vectors); free(y); free(wide);
  return t;
}

// The largest entry of each column (ties up to rounding) is positive.
static int eigen_signs_fixed(ptrdiff_t rows, ptrdiff_t k, const double *u, int single) {
  for (ptrdiff_t j = 0; j < k; j++) {
    double positive = 0, negative = 0;
    for (ptrdiff_t i = 0; i < rows; i++) {
      positive = reference_larger(positive, u[i * k + j]);
      negative = reference_larger(negative, -u[i * k + j]);
    }
    if (positive < negative * (1 - 0x1p-38 - 4 * reference_ulp(single))) return 0;
  }
  return 1;
}

// ||A - Z diag(lambda) Z^T||_F / (||A||_F n ulp).
static double eigen_residual(const eigen_result *t, const double *a, int single) {
  ptrdiff_t n = t->n;
  double *right = test_doubles(n * n);
  for (ptrdiff_t i = 0; i < n; i++)
    for (ptrdiff_t j = 0; j < n; j++) right[i * n + j] = t->values[i] * t->vectors[j * n + i];
  double residual = reference_residual(n, n, n, a, t->vectors, right, single);
  free(right);
  return residual;
}

static double eigen_worst[2][2]; // [single][residual, orthogonality]

// A must be symmetric. `wanted`, if known, holds the eigenvalues in descending order.
static void eigen_check(ptrdiff_t n, const double *a, int single, const double *wanted,
                        double gate) {
  eigen_result t = eigen_run(n, a, single, (int)(n % 4));
  double residual = eigen_residual(&t, a, single),
         orthogonality = reference_orthogonality(n, n, t.vectors, single);
  CHECK_AT_MOST(residual, gate);
  CHECK_AT_MOST(orthogonality, gate);
  if (!(residual <= gate && orthogonality <= gate)) printf("  n %d, single %d\n", (int)n, single);
  for (ptrdiff_t i = 0; i + 1 < n; i++) CHECK(t.values[i] >= t.values[i + 1]);
  CHECK(eigen_signs_fixed(n, n, t.vectors, single));
  if (wanted) {
    double worst = 0,
           bound = reference_ulp(single) * 4 * sqrt((double)n) * reference_largest(n, wanted);
    for (ptrdiff_t i = 0; i < n; i++)
      worst = reference_larger(worst, fabs(t.values[i] - wanted[i]));
    CHECK_AT_MOST(worst, bound + reference_smallest(single));
  }
  eigen_worst[single][0] = reference_larger(eigen_worst[single][0], residual);
  eigen_worst[single][1] = reference_larger(eigen_worst[single][1], orthogonality);
  eigen_free(&t);
}

static void eigen_check_both(ptrdiff_t n, const double *a, const double *wanted, double gate) {
  double *rounded = reference_round(n * n, reference_copy(n * n, a), 1);
  eigen_check(n, a, 0, wanted, gate);
  eigen_check(n, rounded, 1, wanted, gate);
  free(rounded);
}

// Q diag(values) Q^T, exactly symmetric.
static double *eigen_matrix(ptrdiff_t n, const double *values) {
  double *q = reference_orthogonal(n, n), *a = test_doubles(n * n);
  for (ptrdiff_t i = 0; i < n; i++)
    for (ptrdiff_t j = 0; j <= i; j++) {
      for (ptrdiff_t p = 0; p < n; p++) a[i * n + j] += q[i * n + p] * values[p] * q[j * n + p];
      a[j * n + i] = a[i * n + j];
    }
  free(q);
  return a;
}

static double *eigen_random(ptrdiff_t n) {
  double *a = test_normal_doubles(n * n);
  for (ptrdiff_t i = 0; i < n; i++)
    for (ptrdiff_t j = 0; j < i; j++) a[j * n + i] = a[i * n + j];
  return a;
}

static void eigen_test_random(void) {
  static const int sizes[] = {1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 33, 47, 64, 65, 100, 129, 200};
  for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++) {
    double *a = eigen_random(sizes[i]);
    eigen_check_both(sizes[i], a, NULL, 3);
    free(a);
  }
}

// Number of eigenvalues of the tridiagonal matrix (d, e) below x [Sturm].
static int eigen_count_below(ptrdiff_t n, const double *d, const double *e, long double x) {
  int count = 0;
  long double pivot = 1;
  for (ptrdiff_t i = 0; i < n; i++) {
    long double square = i ? (long double)e[i - 1] * (long double)e[i - 1] : 0;
    pivot = (long double)d[i] - x - (square == 0 ? 0 : square / pivot);
    if (pivot == 0) pivot = LDBL_EPSILON * LDBL_EPSILON;
    count += pivot < 0;
  }
  return count;
}

// Checks a tridiagonal matrix against bisection in long double.
static void eigen_check_tridiagonal(ptrdiff_t n, const double *d, const double *e) {
  double *a = test_doubles(n * n), *wanted = test_doubles(n), radius = 0;
  for (ptrdiff_t i = 0; i < n; i++) {
    a[i * n + i] = d[i];
    if (i + 1 < n) a[i * n + i + 1] = a[(i + 1) * n + i] = e[i];
    radius = reference_larger(radius,
                              fabs(d[i]) + (i ? fabs(e[i - 1]) : 0) + (i + 1 < n ? fabs(e[i]) : 0));
  }
  for (ptrdiff_t k = 0; k < n; k++) {
    long double low = -(long double)radius, high = (long double)radius;
    for (int step = 0; step < 70; step++) {
      long double middle = (low + high) / 2;
      if (eigen_count_below(n, d, e, middle) <= n - 1 - k) low = middle;
      else high = middle;
    }
    wanted[k] = (double)((low + high) / 2);
  }
  eigen_check_both(n, a, wanted, 35);
  free(a);
  free(wanted);
}

// Wilkinson's W21+ and W20-, a glued Wilkinson matrix, random and graded tridiagonals.
static void eigen_test_tridiagonal(void) {
  double d[63], e[63];
  for (int i = 0; i < 63; i++) { d[i] = abs(i % 21 - 10); e[i] = i % 21 == 20 ? 1e-10 : 1; }
  eigen_check_tridiagonal(21, d, e);
  eigen_check_tridiagonal(63, d, e);
  for (int i = 0; i < 21; i++) d[i] = 10 - i;
  eigen_check_tridiagonal(20, d, e);
  for (int i = 0; i < 40; i++) {
    d[i] = test_normal();
    e[i] = i % 9 == 4 ? 0 : (double)(float)test_normal();
  }
  for (int i = 0; i < 40; i++) d[i] = (double)(float)d[i];
  eigen_check_tridiagonal(40, d, e);
  for (int i = 0; i < 30; i++) { d[i] = ldexp(1, -i); e[i] = ldexp(1, -i - 2); }
  eigen_check_tridiagonal(30, d, e);
}

// Sizes that divide and conquer splits, in the cases that its deflation is for and not for.
static void eigen_test_conquer(void) {
  static const int sizes[] = {33, 64, 65, 129, 200};
  double d[200], e[200];
  for (int c = 0; c < 5; c++)
    for (int kind = 0; kind < 9; kind++) {
      for (int i = 0; i < sizes[c]; i++) {
        d[i] = kind == 0 ? (double)(float)test_normal() : 0;
        e[i] = kind == 0 ? (double)(float)test_normal() : 1;
        if (kind == 1) e[i] = -1;                              // negative couplings
        if (kind == 2) { d[i] = abs(i % 21 - 10); e[i] = i % 21 == 20 ? 0x1p-47 : 1; } // glued
        if (kind == 3) { d[i] = 1; e[i] = i % 3 ? 0 : 0x1p-40; }
        if (kind == 4) { d[i] = ldexp(1, -i); e[i] = ldexp(1, -i - 2); }
        if (kind == 5) { d[i] = ldexp(1, i - 200); e[i] = ldexp(1, i - 202); }
        if (kind == 6) { d[i] = i; e[i] = 0x1p-60; }           // all deflate
        if (kind == 7) { d[i] = i % 2; e[i] = 0x1p-26; }
        if (kind == 8) { d[i] = i == sizes[c] / 2 ? 1e6 : 1; e[i] = 0.5; }
      }
      eigen_check_tridiagonal(sizes[c], d, e);
    }
}

// The leading rows alone are the leading rows of all.
static void eigen_test_leading(void) {
  static const int counts[] = {0, 1, 7, 63, 64, 90};
  ptrdiff_t n = 90;
  for (int c = 0; c < 6; c++) {
    double *a = eigen_random(n), *b = test_doubles(n * n), values[2][90];
    memcpy(b, a, (size_t)(n * n) * sizeof *b);
    tt__pool pool = tt__pool_open(NULL);
    CHECK_STATUS(tt__eigen(&pool, n, a, values[0], n, TT__QL_SWEEPS), TT_OK);
    CHECK_STATUS(tt__eigen(&pool, n, b, values[1], counts[c], TT__QL_SWEEPS), TT_OK);
    tt__pool_close(&pool);
    for (ptrdiff_t i = 0; i < n; i++) CHECK(values[0][i] == values[1][i]);
    for (ptrdiff_t i = 0; i < counts[c]; i++)
      CHECK_CLOSE(fabs(tt__dot(n, a + i * n, b + i * n)), 1, 1e-13);
    free(a);
    free(b);
  }
}

// Roots of the secular equation lie between the poles, their sum is the trace, and the gaps are
// those to the root.
static void eigen_test_secular(void) {
  double poles[40], w[40], gap[40];
  for (int round = 0; round < 200; round++) {
    ptrdiff_t k = 1 + round % 40;
    double trace = 0, sum = 0, at = 0, largest = 0;
    for (ptrdiff_t i = 0; i < k; i++) {
      at += pow(10, -3 * fabs(test_normal()));
      poles[i] = at;
      w[i] = pow(10, -4 * fabs(test_normal()));
      trace += poles[i] + w[i];
    }
    for (ptrdiff_t j = 0; j < k; j++) {
      double root = tt__secular_root(k, j, poles, w, gap);
      CHECK(gap[j] < 0 && (j == k - 1 || gap[j + 1] > 0));
      for (ptrdiff_t i = 0; i < k; i++)
        largest = fmax(largest, fabs(gap[i] - (poles[i] - root)) / (1 + at));
      sum += root;
    }
    CHECK_AT_MOST(largest, 1e-15);
    CHECK_AT_MOST(fabs(sum - trace) / trace, 1e-14);
  }
}

// The largest two eigenvalues of W21+ agree in 13 digits; both are known.
static void eigen_test_wilkinson_pair(void) {
  double a[441] = {0}, values[21];
  for (int i = 0; i < 21; i++) {
    a[i * 21 + i] = abs(i - 10);
    if (i) a[i * 21 + i - 1] = 1;
  }
  CHECK_STATUS(tt_eigh_f64(21, a, 21, values, NULL, 0, NULL), TT_OK);
  CHECK_CLOSE(values[0], 10.746194182903393, 4e-14);
  CHECK_CLOSE(values[1], 10.746194182903322, 4e-14);
  CHECK_CLOSE(values[20], -1.1254415221199845, 4e-14);
}

// Second differences: 2 - 2 cos(j pi / (n+1)).
static void eigen_test_toeplitz(void) {
  static const int sizes[] = {2, 10, 37, 101};
  for (int c = 0; c < 4; c++) {
    ptrdiff_t n = sizes[c];
    double *a = test_doubles(n * n), *wanted = test_doubles(n);
    for (ptrdiff_t i = 0; i < n; i++) {
      a[i * n + i] = 2;
      if (i) a[i * n + i - 1] = a[(i - 1) * n + i] = -1;
      double half = sin((double)(n - i) * 3.14159265358979323846 / (double)(2 * (n + 1)));
      wanted[i] = 4 * half * half;
    }
    eigen_check_both(n, a, wanted, 35);
    free(a);
    free(wanted);
  }
}

// Hilbert matrices are positive: their eigenvalues are their singular values, found in long double.
static void eigen_test_hilbert(void) {
  ptrdiff_t n = 12;
  double a[144], wanted[12];
  for (ptrdiff_t i = 0; i < n * n; i++) a[i] = 1 / (double)(i / n + i % n + 1);
  reference_singular_values(n, n, a, wanted);
  eigen_check_both(n, a, wanted, 35);
  CHECK_CLOSE(wanted[0], 1.7953720595619975, 1e-14);
}

// Equal values, clusters, both signs, all negative, huge against tiny.
static void eigen_test_clusters(void) {
  ptrdiff_t n = 40;
  double values[40];
  for (int kind = 0; kind < 6; kind++) {
    for (int i = 0; i < n; i++) {
      if (kind == 0) values[i] = i < 20 ? 3 : 1;
      if (kind == 1) values[i] = 1 - 1e-14 * i;
      if (kind == 2) values[i] = i < 20 ? 1 : -1;
      if (kind == 3) values[i] = -1 - i;
      if (kind == 4) values[i] = pow(10, -0.4 * i);
      if (kind == 5) values[i] = i < 13 ? 1 : i < 30 ? 0 : -1e-8;
    }
    double *a = eigen_matrix(n, values);
    eigen_check_both(n, a, values, 35);
    free(a);
  }
}

// Identity, zero, diagonals in any order, one off-diagonal pair, constant matrices.
static void eigen_test_simple(void) {
  ptrdiff_t n = 23;
  double *a = test_doubles(n * n), wanted[23];
  for (int i = 0; i < n; i++) wanted[i] = 0;
  eigen_check_both(n, a, wanted, 35);
  for (int i = 0; i < n; i++) { a[i * n + i] = 1; wanted[i] = 1; }
  eigen_check_both(n, a, wanted, 0);                           // nothing to round: exact
  for (int i = 0; i < n; i++) { a[i * n + i] = (i * 7) % n - 11; wanted[i] = 11 - i; }
  eigen_check_both(n, a, wanted, 0);
  for (int i = 0; i < n * n; i++) a[i] = 1;
  for (int i = 0; i < n; i++) wanted[i] = i ? 0 : n;
  eigen_check_both(n, a, wanted, 35);
  free(a);
  double pair[4] = {0, 1, 1, 0}, both[2] = {1, -1}, one[1] = {-5}, vector = 0, value = 0;
  eigen_check_both(2, pair, both, 35);
  CHECK_STATUS(tt_eigh_f64(1, one, 1, &value, &vector, 1, NULL), TT_OK);
  CHECK(value == -5 && vector == 1);
}

static void eigen_test_scales(void) {
  static const double scales[] = {1e300, 1e-300, 0x1p-1050, 1e150,   1e-160,
                                  1e30,  1e-30,  1e36,      0x1p-135};
  for (int c = 0; c < 9; c++) {
    ptrdiff_t n = 18;
    double *a = eigen_random(n);
    for (ptrdiff_t i = 0; i < n * n; i++) a[i] *= scales[c];
    eigen_check(n, a, 0, NULL, 35);
    if (c >= 5) eigen_check(n, reference_round(n * n, a, 1), 1, NULL, 35);
    free(a);
  }
}

static void eigen_test_refusals(void) {
  double a[9] = {1, 0, 0, 2, 3, 0, 4, 5, 6}, values[3] = {7, 7, 7},
         vectors[9] = {7, 7, 7, 7, 7, 7, 7, 7, 7};
  float x[4] = {1, 0, (float)NAN, 2}, y[2] = {7, 7}, z[4] = {7, 7, 7, 7};
  tt_options bad = test_options();
  bad.method = 99;
  CHECK_STATUS(tt_eigh_f64(-1, a, 3, values, vectors, 3, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_eigh_f64(3, NULL, 3, values, vectors, 3, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_eigh_f64(3, a, 2, values, vectors, 3, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_eigh_f64(3, a, 3, NULL, vectors, 3, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_eigh_f64(3, a, 3, values, vectors, 2, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_eigh_f64(3, a, 3, values, vectors, 3, &bad), TT_ERROR_INVALID);
  for (int i = 0; i < 9; i++) {
    double kept = a[i];
    if (i % 3 > i / 3) continue;
    a[i] = i % 2 ? (double)NAN : (double)INFINITY;
    CHECK_STATUS(tt_eigh_f64(3, a, 3, values, vectors, 3, NULL), TT_ERROR_NONFINITE);
    a[i] = kept;
  }
  CHECK_STATUS(tt_eigh(2, x, 2, y, z, 2, NULL), TT_ERROR_NONFINITE);
  CHECK(values[0] == 7 && values[2] == 7 && vectors[0] == 7 && vectors[8] == 7);
  CHECK(y[0] == 7 && z[0] == 7 && z[3] == 7);
  CHECK_STATUS(tt_eigh_f64(0, NULL, 0, NULL, NULL, 0, NULL), TT_OK);
}

// Values alone equal values with vectors; failing allocations leave the outputs as they were.
static void eigen_test_values_only(void) {
  ptrdiff_t n = 50;
  double *a = eigen_random(n), *alone = test_doubles(n);
  eigen_result t = eigen_run(n, a, 0, 0);
  CHECK_STATUS(tt_eigh_f64(n, a, n, alone, NULL, 0, NULL), TT_OK);
  for (ptrdiff_t i = 0; i < n; i++) CHECK_CLOSE(alone[i], t.values[i], 1e-13);
  tt_status status = TT_ERROR_MEMORY;
  for (long fail = 1; status == TT_ERROR_MEMORY && fail < 100; fail++) {
    test_heap heap;
    tt_options options = test_options();
    options.allocator = test_allocator(&heap);
    heap.fail_at = fail;
    alone[0] = t.vectors[0] = 1234;
    status = tt_eigh_f64(n, a, n, alone, t.vectors, n, &options);
    CHECK(heap.live_blocks == 0);
    CHECK(status == TT_OK ||
          (status == TT_ERROR_MEMORY && alone[0] == 1234 && t.vectors[0] == 1234));
  }
  CHECK_STATUS(status, TT_OK);
  free(a);
  free(alone);
  eigen_free(&t);
}

static void eigen_print(const char *what) {
  if (!getenv("TT_TEST_VERBOSE")) return;
  for (int single = 0; single < 2; single++)
    printf("  eigen %s, %s residual %.3f, orthogonality %.3f\n", single ? "f32" : "f64", what,
           eigen_worst[single][0], eigen_worst[single][1]);
}

static void test_eigen(void) {
  eigen_test_random();
  eigen_print("random:");
  eigen_test_tridiagonal();
  eigen_test_conquer();
  eigen_test_leading();
  eigen_test_secular();
  eigen_test_wilkinson_pair();
  eigen_test_toeplitz();
  eigen_test_hilbert();
  eigen_test_clusters();
  eigen_test_simple();
  eigen_test_scales();
  eigen_test_refusals();
  eigen_test_values_only();
  eigen_print("all:   ");
}
