// tt_svd and tt_svd_f64: the measures of LAPACK's own tests, relative accuracy on graded matrices,
// what tells the four methods apart, scales, special matrices, refusals. TT_TEST_VERBOSE prints the
// largest ratios of every method.
#include "reference.h"

enum { SVD_METHODS = 5 };
static const char *const svd_names[SVD_METHODS] = {"auto", "gram", "jacobi", "householder",
                                                   "randomized"};

typedef struct svd_result {
  ptrdiff_t rows, cols, k;
  double *u, *s, *vt;
  tt_status status;
} svd_result;

static void svd_free(svd_result *t) {
  free(t->u);
  free(t->s);
  free(t->vt);
}

static void svd_run_single(svd_result *t, const double *a, const tt_options *options) {
  ptrdiff_t count = t->rows * t->cols;
  float *x = test_floats(count), *u = test_floats(t->rows * t->k), *s = test_floats(t->k);
  float *vt = test_floats(t->k * t->cols);
  for (ptrdiff_t i = 0; i < count; i++) x[i] = (float)a[i];
  t->status = tt_svd(x, t->rows, t->cols, u, s, vt, options);
  for (ptrdiff_t i = 0; i < t->rows * t->k; i++) t->u[i] = (double)u[i];
  for (ptrdiff_t i = 0; i < t->k; i++) t->s[i] = (double)s[i];
  for (ptrdiff_t i = 0; i < t->k * t->cols; i++) t->vt[i] = (double)vt[i];
  free(x); free(u); free(s); free(vt);
}

static svd_result svd_run_options(int single, ptrdiff_t rows, ptrdiff_t cols, const double *a,
                                  const tt_options *options) {
  svd_result t = {rows, cols, rows < cols ? rows : cols, NULL, NULL, NULL, TT_OK};
  if (options->max_rank && options->max_rank < t.k) t.k = options->max_rank;
  t.u = test_doubles(rows * t.k);
  t.s = test_doubles(t.k);
  t.vt = test_doubles(t.k * cols);
  if (single) svd_run_single(&t, a, options);
  else t.status = tt_svd_f64(a, rows, cols, t.u, t.s, t.vt, options);
  return t;
}

static svd_result svd_run(int method, int single, ptrdiff_t rows, ptrdiff_t cols, const double *a,
                          int max_rank) {
  tt_options options = test_options();
  options.method = method;
  options.max_rank = max_rank;
  return svd_run_options(single, rows, cols, a, &options);
}

// diag(s) V^T, and V as columns.
static double *svd_right(const svd_result *t) {
  double *y = test_doubles(t->k * t->cols);
  for (ptrdiff_t p = 0; p < t->k; p++)
    for (ptrdiff_t j = 0; j < t->cols; j++) y[p * t->cols + j] = t->s[p] * t->vt[p * t->cols + j];
  return y;
}

static double svd_residual(const svd_result *t, const double *a, int single) {
  double *right = svd_right(t),
         ratio = reference_residual(t->rows, t->cols, t->k, a, t->u, right, single);
  free(right);
  return ratio;
}

static double svd_right_orthogonality(const svd_result *t, int single) {
  double *v = reference_transpose(t->k, t->cols, t->vt),
         ratio = reference_orthogonality(t->cols, t->k, v, single);
  free(v);
  return ratio;
}

static int svd_values_ordered(const svd_result *t) {
  for (ptrdiff_t i = 0; i < t->k; i++)
    if (!(t->s[i] >= 0) || (i && t->s[i] > t->s[i - 1])) return 0;
  return 1;
}

// The largest entry of each column of U (ties up to rounding) is positive.
static int svd_signs_fixed(const svd_result *t, int single) {
  for (ptrdiff_t p = 0; p < t->k; p++) {
    double positive = 0, negative = 0;
    for (ptrdiff_t i = 0; i < t->rows; i++) {
      positive = reference_larger(positive, t->u[i * t->k + p]);
      negative = reference_larger(negative, -t->u[i * t->k + p]);
    }
    if (positive < negative * (1 - 0x1p-38 - 4 * reference_ulp(single))) return 0;
  }
  return 1;
}

// Largest R1, R2, R3 seen: [random or all][method][single].
static double svd_worst[2][SVD_METHODS][2][3];

static void svd_record(int all, int method, int single, const double *ratios) {
  for (int i = 0; i < 3; i++) {
    double *worst = &svd_worst[all][method][single][i];
    *worst = reference_larger(*worst, ratios[i]);
  }
}

// LAPACK's three ratios of a full decomposition at most `gate`, values ordered, signs fixed. The
// Gram matrix of doubles keeps half of their digits: its residual is only held to 1e-7 ||A||.
static void svd_check_result(const svd_result *t, int method, int single, const double *a,
                             double gate) {
  double ratios[3];
  int half = method == TT_SVD_GRAM && !single;
  double longer = (double)(t->rows > t->cols ? t->rows : t->cols);
  ratios[0] = svd_residual(t, a, single);
  ratios[1] = reference_orthogonality(t->rows, t->k, t->u, single);
  ratios[2] = svd_right_orthogonality(t, single);
  CHECK_STATUS(t->status, TT_OK);
  CHECK(svd_values_ordered(t));
  CHECK(svd_signs_fixed(t, single));
  CHECK_AT_MOST(ratios[0], half ? 1e-7 / (longer * reference_ulp(0)) : gate);
  CHECK_AT_MOST(ratios[1], gate);
  CHECK_AT_MOST(ratios[2], gate);
  if (!(ratios[0] <= gate && ratios[1] <= gate && ratios[2] <= gate) && !half && test_failed <= 100)
    printf("  %s, %d x %d, single %d: %g %g %g\n", svd_names[method], (int)t->rows, (int)t->cols,
           single, ratios[0], ratios[1], ratios[2]);
  if (!(half && gate > 3)) svd_record(gate > 3, method, single, ratios);
}

static void svd_check(int method, int single, ptrdiff_t rows, ptrdiff_t cols, const double *a,
                      double gate) {
  svd_result t = svd_run(method, single, rows, cols, a, 0);
  svd_check_result(&t, method, single, a, gate);
  svd_free(&t);
}

// All methods, double and float.
static void svd_check_all(ptrdiff_t rows, ptrdiff_t cols, const double *a, double gate) {
  double *rounded = reference_round(rows * cols, reference_copy(rows * cols, a), 1);
  for (int method = 0; method < SVD_METHODS; method++) {
    svd_check(method, 0, rows, cols, a, gate);
    svd_check(method, 1, rows, cols, rounded, gate);
  }
  free(rounded);
}

// ---------------------------------------------------------------------------------- LAPACK's suite

// Random matrices of all sizes of LAPACK's svd.in, and around tiles, tall and wide: gate 3.
static void svd_test_random(void) {
  static const int small[] = {0, 1, 2, 3, 10, 16, 30, 40};
  static const int large[][2] = {{63, 63},  {64, 64},  {65, 65},  {100, 100},
                                 {257, 63}, {64, 257}, {65, 100}, {257, 100}};
  for (int i = 0; i < 8; i++)
    for (int j = 0; j < 8; j++) {
      double *a = test_normal_doubles(small[i] * small[j]);
      svd_check_all(small[i], small[j], a, 3);
      free(a);
    }
  for (int i = 0; i < 8; i++) {
    double *a = test_normal_doubles(large[i][0] * large[i][1]);
    svd_check_all(large[i][0], large[i][1], a, 3);
    free(a);
  }
  double *a = test_normal_doubles(257 * 257);
  svd_check(TT_SVD_AUTO, 0, 257, 257, a, 3);
  svd_check(TT_SVD_AUTO, 1, 257, 257, reference_round(257 * 257, a, 1), 3);
  free(a);
}

// Zero, identity, and LATMS modes 1 to 6 with condition 1/ulp, as they are and near underflow and
// overflow.
static void svd_test_types(void) {
  static const int sizes[][2] = {{1, 1},   {3, 2},   {10, 16}, {16, 10}, {30, 30},
                                 {40, 16}, {16, 40}, {65, 64}, {33, 100}};
  double s[100];
  for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++) {
    ptrdiff_t m = sizes[i][0], n = sizes[i][1], k = m < n ? m : n;
    double *zero = test_doubles(m * n), *identity = test_doubles(m * n);
    for (ptrdiff_t j = 0; j < k; j++) identity[j * n + j] = 1;
    svd_check_all(m, n, zero, 35);
    svd_check_all(m, n, identity, 35);
    for (int mode = 1; mode <= 6; mode++) {
      reference_spectrum(mode, k, 0x1p52, s);
      double *a = reference_with_values(m, n, s);
      svd_check_all(m, n, a, 35);
      free(a);
    }
    free(zero);
    free(identity);
  }
}

// Evenly spaced values at the edges of the range; everything subnormal; what overflows when
// squared.
static void svd_test_scales(void) {
  static const double wide[] = {0x1p-970, 0x1p971, 1e150, 1e-150, 1e-160, 1e300, 1e-300, 0x1p-1060};
  static const double narrow[] = {0x1p-103, 0x1p104, 1e37, 1e-38, 1e30, 1e-30, 0x1p-140, 0x1p-147};
  double s[20];
  reference_spectrum(4, 20, 0x1p52, s);
  for (int tall = 0; tall < 2; tall++) {
    ptrdiff_t m = tall ? 31 : 20, n = tall ? 20 : 31;
    for (int i = 0; i < 8; i++) {
      double *a = reference_with_values(m, n, s), *b = reference_scaled(m * n, a, wide[i]);
      for (ptrdiff_t j = 0; j < m * n; j++) a[j] *= narrow[i];
      reference_round(m * n, a, 1);
      for (int method = 0; method < SVD_METHODS; method++) {
        svd_check(method, 0, m, n, b, 35);
        svd_check(method, 1, m, n, a, 35);
      }
      free(a);
      free(b);
    }
  }
}

// Upper bidiagonal with entries between 1/ulp and ulp (LAPACK's hardest type), and with zeros on
// the diagonal.
static void svd_test_bidiagonal(void) {
  for (int kind = 0; kind < 3; kind++) {
    ptrdiff_t n = 45;
    double *a = test_doubles(n * n), *values = test_doubles(n);
    for (ptrdiff_t i = 0; i < n; i++) {
      a[i * n + i] = kind == 0 ? exp(72 * (test_uniform() - 0.5)) : kind == 1 ? test_normal() : 1;
      if (i + 1 < n) a[i * n + i + 1] = kind == 0 ? exp(72 * (test_uniform() - 0.5)) : 1;
      if (kind == 1 && i % 7 == 3) a[i * n + i] = 0;
    }
    svd_check_all(n, n, a, 35);
    double *rounded = reference_round(n * n, a, 1); // kind 2 is known: 2 cos(j pi / (2n+1))
    svd_result t = svd_run(TT_SVD_AUTO, 0, n, n, rounded, 0);
    if (reference_is_wider() && reference_size() >= n) {
      reference_singular_values(n, n, rounded, values);
      CHECK_AT_MOST(reference_absolute(n, t.s, values, 0), 10);
    }
    for (ptrdiff_t j = 0; kind == 2 && j < n; j++)
      CHECK_CLOSE(t.s[j], 2 * cos((double)(j + 1) * 3.14159265358979323846 / (double)(2 * n + 1)),
                  2e-14);
    svd_free(&t);
    free(a);
    free(values);
  }
}

// ------------------------------------------------------------------------ accuracy of small values

static void svd_shuffle(ptrdiff_t rows, ptrdiff_t cols, double *a, int by_rows) {
  ptrdiff_t count = by_rows ? rows : cols, other = by_rows ? cols : rows, step = by_rows ? 1 : cols;
  ptrdiff_t line = by_rows ? cols : 1;
  for (ptrdiff_t i = count - 1; i > 0; i--) {
    ptrdiff_t j = test_below((int)i + 1);
    for (ptrdiff_t p = 0; p < other; p++) {
      double kept = a[i * line + p * step];
      a[i * line + p * step] = a[j * line + p * step];
      a[j * line + p * step] = kept;
    }
  }
}

// Gaussian with rows scaled from 1 to 10^-row and columns from 1 to 10^-column, geometrically.
static double *svd_graded(ptrdiff_t n, double row, double column, int shuffled) {
  double *a = test_normal_doubles(n * n), last = (double)(n - 1);
  for (ptrdiff_t i = 0; i < n * n; i++)
    a[i] *= pow(10, -row * (double)(i / n) / last - column * (double)(i % n) / last);
  if (shuffled) {
    svd_shuffle(n, n, a, 1);
    svd_shuffle(n, n, a, 0);
  }
  return a;
}

// diag(1, s, s^2, ..) times the unit upper triangle of -c, s^2 + c^2 = 1, s = sin 1.2.
static double *svd_kahan(ptrdiff_t n) {
  double *a = test_doubles(n * n);
  for (ptrdiff_t i = 0; i < n; i++)
    for (ptrdiff_t j = i; j < n; j++)
      a[i * n + j] = pow(sin(1.2), (double)i) * (i == j ? 1 : -cos(1.2));
  return a;
}

// A row of ones over mu times the identity.
static double *svd_lauchli(ptrdiff_t n, double mu) {
  double *a = test_doubles((n + 1) * n);
  for (ptrdiff_t j = 0; j < n; j++) {
    a[j] = 1;
    a[(j + 1) * n + j] = mu;
  }
  return a;
}

static double svd_relative_worst[SVD_METHODS], svd_absolute_worst[SVD_METHODS];

// Errors of the singular values of one method against the reference: largest relative one, and
// absolute in eps s1.
static double svd_relative_error(int method, ptrdiff_t m, ptrdiff_t n, const double *a,
                                 double *absolute) {
  ptrdiff_t k = m < n ? m : n;
  double *wanted = test_doubles(k);
  reference_singular_values(m, n, a, wanted);
  svd_result t = svd_run(method, 0, m, n, a, 0);
  CHECK_STATUS(t.status, TT_OK);
  double relative = reference_relative(k, t.s, wanted);
  *absolute = reference_absolute(k, t.s, wanted, 0);
  svd_free(&t);
  free(wanted);
  return relative;
}

static void svd_check_relative(const char *name, ptrdiff_t m, ptrdiff_t n, double *a,
                               double bound) {
  double absolute, jacobi = svd_relative_error(TT_SVD_JACOBI, m, n, a, &absolute);
  CHECK_AT_MOST(jacobi, bound);
  CHECK_AT_MOST(absolute, 10);
  double householder = svd_relative_error(TT_SVD_HOUSEHOLDER, m, n, a, &absolute);
  CHECK_AT_MOST(absolute, 35);
  if (getenv("TT_TEST_VERBOSE"))
    printf("  svd relative, %-28s jacobi %.1e (demand %.0e), householder %.1e\n", name, jacobi,
           bound, householder);
  svd_relative_worst[TT_SVD_JACOBI] = reference_larger(svd_relative_worst[TT_SVD_JACOBI], jacobi);
  svd_relative_worst[TT_SVD_HOUSEHOLDER] =
      reference_larger(svd_relative_worst[TT_SVD_HOUSEHOLDER], householder);
  free(a);
}

static void svd_check_absolute(const char *name, ptrdiff_t m, ptrdiff_t n, double *a) {
  double bounds[SVD_METHODS] = {10, 0, 10, 35, 0}, found[SVD_METHODS] = {0};
  for (int method = 0; method < SVD_METHODS; method++) {
    if (bounds[method] == 0) continue;
    (void)svd_relative_error(method, m, n, a, &found[method]);
    CHECK_AT_MOST(found[method], bounds[method]);
    svd_absolute_worst[method] = reference_larger(svd_absolute_worst[method], found[method]);
  }
  if (getenv("TT_TEST_VERBOSE"))
    printf("  svd absolute / (eps s1), %-17s auto %.2f, jacobi %.2f, householder %.2f\n", name,
           found[TT_SVD_AUTO], found[TT_SVD_JACOBI], found[TT_SVD_HOUSEHOLDER]);
  free(a);
}

// Jacobi is relatively accurate where the matrix is well conditioned after scaling its rows and
// columns [Demmel, Veselic 1992]; on shuffled gradings the bidiagonalisation loses what the largest
// entries cover.
static void svd_test_relative(void) {
  ptrdiff_t n = reference_size();
  if (!reference_is_wider()) {
    printf("  skipped: accuracy of small singular values (long double is double here)\n");
    return;
  }
  svd_check_relative("graded rows", n, n, svd_graded(n, 20, 0, 0), 1e-12);
  svd_check_relative("graded rows, shuffled", n, n, svd_graded(n, 20, 0, 1), 1e-12);
  svd_check_relative("graded columns", n, n, svd_graded(n, 0, 20, 0), 1e-12);
  svd_check_relative("graded columns, shuffled", n, n, svd_graded(n, 0, 20, 1), 1e-12);
  svd_check_relative("graded both", n, n, svd_graded(n, 12, 12, 0), 1e-11);
  svd_check_relative("graded both, shuffled", n, n, svd_graded(n, 12, 12, 1), 1e-11);
  svd_check_relative("Kahan", n, n, svd_kahan(n), 1e-8);
  svd_check_relative("Lauchli 1e-10", n + 1, n, svd_lauchli(n, 1e-10), 1e-13);
  CHECK(svd_relative_worst[TT_SVD_HOUSEHOLDER] >
        1e3 * svd_relative_worst[TT_SVD_JACOBI]); // they do differ
}

// Where nothing better exists: errors of a few eps s1.
static void svd_test_absolute(void) {
  ptrdiff_t n = reference_size();
  double s[60], *hilbert = test_doubles(n * n), *cauchy = test_doubles(n * n);
  if (!reference_is_wider()) return;                           // svd_test_relative has said so
  for (ptrdiff_t i = 0; i < n * n; i++) {
    hilbert[i] = 1 / (double)(i / n + i % n + 1);
    cauchy[i] = 1 / ((double)(i / n) + 0.5 * (double)(i % n) + 0.3);
  }
  svd_check_absolute("Hilbert", n, n, hilbert);
  svd_check_absolute("Cauchy", n, n, cauchy);
  reference_spectrum(3, n, 1e15, s);
  svd_check_absolute("geometric 1e15", n, n, reference_with_values(n, n, s));
  reference_spectrum(2, n, 1e12, s);
  svd_check_absolute("ones and 1e-12", n, n, reference_with_values(n, n, s));
  for (ptrdiff_t i = 0; i < n; i++) s[i] = i < n / 2 ? 1 + (double)i : 0;
  svd_check_absolute("half rank", n, n, reference_with_values(n, n, s));
  reference_spectrum(3, n, 1e10, s);
  for (ptrdiff_t i = 0; i < n; i++) s[i] *= 1e150;
  svd_check_absolute("1e150 geometric", n, n, reference_with_values(n, n, s));
  for (ptrdiff_t i = 0; i < n; i++) s[i] = s[i] / 1e150 * 1e-160;
  svd_check_absolute("1e-160 geometric", n, n, reference_with_values(n, n, s));
  svd_check_absolute("Gaussian, tall", n, n / 3, test_normal_doubles(n * (n / 3)));
}

static double svd_gram_worst[2]; // absolute in 4e-7 s1, relative over its bound

// Gram in float: |ds| <= 4e-7 s1 always, relative <= 10 eps (s1/s)^2 + 10 eps in double before the
// result is rounded.
static void svd_check_gram(ptrdiff_t m, ptrdiff_t n, double *a) {
  ptrdiff_t k = m < n ? m : n;
  double *wanted = test_doubles(k), relative = 0;
  reference_round(m * n, a, 1);
  reference_singular_values(m, n, a, wanted);
  svd_result t = svd_run(TT_SVD_GRAM, 1, m, n, a, 0);
  CHECK_STATUS(t.status, TT_OK);
  for (ptrdiff_t i = 0; i < k; i++) {
    double ratio = wanted[0] / wanted[i],
           bound = 10 * 0x1p-53 * (ratio * ratio + 1) + 0x1p-24 + 0x1p-149 / wanted[i];
    if (wanted[i] > 0)
      relative = reference_larger(relative, fabs(t.s[i] - wanted[i]) / wanted[i] / bound);
  }
  double absolute = reference_absolute(k, t.s, wanted, 0) * 0x1p-53 / 4e-7;
  CHECK_AT_MOST(absolute, 1);
  CHECK_AT_MOST(relative, 1);
  svd_gram_worst[0] = reference_larger(svd_gram_worst[0], absolute);
  svd_gram_worst[1] = reference_larger(svd_gram_worst[1], relative);
  svd_free(&t);
  free(wanted);
  free(a);
}

static void svd_test_gram(void) {
  ptrdiff_t n = reference_size();
  double s[60];
  if (!reference_is_wider()) return;
  svd_check_gram(n, n, test_normal_doubles(n * n));
  svd_check_gram(n / 2, 7 * n, test_normal_doubles(n / 2 * 7 * n));
  svd_check_gram(n + 1, n, svd_lauchli(n, 1e-6));
  svd_check_gram(n, n, svd_graded(n, 12, 0, 1));
  svd_check_gram(n, n, svd_graded(n, 6, 6, 1));
  for (int power = 6; power <= 12; power += 6) {
    reference_spectrum(3, n, pow(10, power), s);
    svd_check_gram(n, n, reference_with_values(n, n, s));
  }
  for (ptrdiff_t i = 0; i < n; i++) s[i] = 1 / sqrt((double)(i + 1));
  svd_check_gram(n, n, reference_with_values(n, n, s));
}

// On doubles the Gram matrix is blind below 1e-8 s1 and only used when asked for by name.
static void svd_test_gram_on_doubles(void) {
  static const int sizes[][2] = {{60, 60}, {30, 90}, {150, 140}};
  for (int i = 0; i < 3; i++) {
    ptrdiff_t m = sizes[i][0], n = sizes[i][1], k = m < n ? m : n;
    double s[140];
    reference_spectrum(3, k, 1e12, s);
    double *a = reference_with_values(m, n, s);
    svd_result automatic = svd_run(TT_SVD_AUTO, 0, m, n, a, 0),
               gram = svd_run(TT_SVD_GRAM, 0, m, n, a, 0);
    CHECK_AT_MOST(fabs(automatic.s[k - 1] - 1e-12), 1e-14);
    CHECK_AT_MOST(reference_absolute(k, gram.s, s, 0) * 0x1p-53, 1e-7);
    CHECK(fabs(gram.s[k - 1] - 1e-12) > 1e-13);                // it cannot see this one
    svd_free(&automatic);
    svd_free(&gram);
    free(a);
  }
}

// -------------------------------------------------------------------------------- special matrices

// Clusters, duplicated rows and columns, constant, rank one, orthogonal, -0.0, one entry, one row
// of numbers.
static void svd_test_special(void) {
  static const int sizes[][2] = {{20, 20}, {31, 17}, {17, 31}};
  for (int c = 0; c < 3; c++) {
    ptrdiff_t m = sizes[c][0], n = sizes[c][1], k = m < n ? m : n, count = m * n;
    double s[31], *a = test_doubles(count), *row = test_normal_doubles(n);
    for (ptrdiff_t i = 0; i < k; i++) s[i] = 3;
    double *equal = reference_with_values(m, n, s);
    for (ptrdiff_t i = 0; i < k; i++) s[i] = i < k / 2 ? 1 : 1e-5;
    double *two = reference_with_values(m, n, s);
    for (ptrdiff_t i = 0; i < k; i++) s[i] = 1 + 1e-15 * (double)(k - i);
    double *tight = reference_with_values(m, n, s);
    svd_check_all(m, n, equal, 35);
    svd_check_all(m, n, two, 35);
    svd_check_all(m, n, tight, 35);
    for (ptrdiff_t i = 0; i < count; i++) a[i] = equal[i / n / 2 * n + i % n]; // every row twice
    svd_check_all(m, n, a, 35);
    for (ptrdiff_t i = 0; i < count; i++) a[i] = row[i % n]; // all rows alike
    svd_check_all(m, n, a, 35);
    for (ptrdiff_t i = 0; i < count; i++) a[i] = -2.5;
    svd_check_all(m, n, a, 35);
    for (ptrdiff_t i = 0; i < count; i++) a[i] = row[i / n % n] * row[i % n] + 1e-9 * test_normal();
    svd_check_all(m, n, a, 35);
    for (ptrdiff_t i = 0; i < count; i++) a[i] = -0.0;
    svd_check_all(m, n, a, 35);
    a[count / 2] = -7;
    svd_check_all(m, n, a, 35);
    for (ptrdiff_t i = 0; i < count; i++) a[i] = i / n == 5 ? row[i % n] : 0;
    svd_check_all(m, n, a, 35);
    for (ptrdiff_t i = 0; i < count; i++) a[i] = i % n == i / n ? (double)(i / n + 1) : 0;
    svd_check_all(m, n, a, 35);
    free(a); free(row); free(equal); free(two); free(tight);
  }
}

// Small cases with every digit known.
static void svd_test_known(void) {
  for (int method = 0; method < SVD_METHODS; method++) {
    double diagonal[12] = {0, 2, 0, 0, 0, 0, -5, 0, 3, 0, 0, 0}, minus[1] = {-4};
    svd_result t = svd_run(method, 0, 3, 4, diagonal, 0);
    CHECK_CLOSE(t.s[0], 5, 1e-14);
    CHECK_CLOSE(t.s[1], 3, 1e-14);
    CHECK_CLOSE(t.s[2], 2, 1e-14);
    CHECK_CLOSE(t.u[1 * 3 + 0], 1, 1e-14);                     // row 1 holds -5: u = +e1, v = -e2
    CHECK_CLOSE(t.vt[0 * 4 + 2], -1, 1e-14);
    CHECK_CLOSE(t.u[2 * 3 + 1], 1, 1e-14);
    CHECK_CLOSE(t.u[0 * 3 + 2], 1, 1e-14);
    svd_free(&t);
    t = svd_run(method, 0, 1, 1, minus, 0);
    CHECK(t.s[0] == 4 && t.u[0] == 1 && t.vt[0] == -1);
    svd_free(&t);
    double column[3] = {2, -3, 6};
    t = svd_run(method, 0, 3, 1, column, 0);
    CHECK_CLOSE(t.s[0], 7, 2e-15);
    CHECK_CLOSE(t.u[1], -3.0 / 7, 1e-15);
    CHECK_CLOSE(t.vt[0], 1, 1e-15);
    svd_free(&t);
  }
}

// ITensor's stress test: 100 x 100 with values 0.8^j, rebuilt to 1e-13; and the sizes of TeNPy's
// tests.
static void svd_test_peers(void) {
  static const int sizes[][2] = {{1, 1}, {1, 10}, {10, 1}, {10, 10}, {10, 20}};
  double s[100];
  for (int i = 0; i < 100; i++) s[i] = pow(0.8, i);
  double *a = reference_with_values(100, 100, s);
  for (int method = 0; method < SVD_METHODS; method++) {
    svd_result t = svd_run(method, 0, 100, 100, a, 0);
    double *right = svd_right(&t), error = reference_difference(100, 100, 100, a, t.u, right, 0);
    if (method != TT_SVD_GRAM) CHECK_AT_MOST(error / reference_norm(10000, a), 1e-13);
    CHECK_AT_MOST(reference_absolute(100, t.s, s, 0), method == TT_SVD_GRAM ? 1e8 : 100);
    free(right);
    svd_free(&t);
  }
  free(a);
  for (int i = 0; i < 5; i++) {
    a = test_normal_doubles(sizes[i][0] * sizes[i][1]);
    svd_check_all(sizes[i][0], sizes[i][1], a, 3);
    free(a);
  }
}

// Very long matrices, both ways: 100000 x 8.
static void svd_test_long(void) {
  double s[8] = {8, 7, 6, 5, 4, 3, 2, 1e-3}, *a = reference_orthogonal(8, 8),
         *tall = test_normal_doubles(800000);
  for (ptrdiff_t i = 0; i < 100000; i++)
    for (ptrdiff_t j = 0; j < 8; j++) tall[i * 8 + j] *= s[j];
  double *wide = reference_transpose(100000, 8, tall);
  for (int single = 0; single < 2; single++) {
    reference_round(800000, tall, single);
    reference_round(800000, wide, single);
    svd_check(TT_SVD_AUTO, single, 100000, 8, tall, 35);
    svd_check(TT_SVD_AUTO, single, 8, 100000, wide, 35);
  }
  svd_check(TT_SVD_JACOBI, 0, 100000, 8, tall, 35);
  svd_check(TT_SVD_HOUSEHOLDER, 0, 8, 100000, wide, 35);
  free(a);
  free(tall);
  free(wide);
}

// Singular values beyond FLT_MAX become Inf, the vectors stay good.
static void svd_test_overflow(void) {
  float a[16], u[16], s[4], vt[16];
  for (int i = 0; i < 16; i++) a[i] = i % 5 == 0 ? 3e38f : 2e38f;
  for (int method = 0; method < SVD_METHODS; method++) {
    tt_options options = test_options();
    options.method = method;
    CHECK_STATUS(tt_svd(a, 4, 4, u, s, vt, &options), TT_OK);
    CHECK(s[0] > FLT_MAX);
    CHECK_CLOSE((double)s[1] / 1e38, 1, 1e-5);
    for (int i = 0; i < 4; i++) {
      CHECK_CLOSE(u[i * 4], 0.5, 1e-6);
      CHECK_CLOSE(vt[i], 0.5, 1e-6);
    }
  }
}

// ----------------------------------------------------------------------------------------- options

// max_rank keeps the largest values and their vectors; above the size it changes nothing.
static void svd_test_max_rank(void) {
  static const int sizes[][2] = {{24, 24}, {50, 18}, {18, 50}};
  for (int c = 0; c < 3; c++)
    for (int single = 0; single < 2; single++) {
      ptrdiff_t m = sizes[c][0], n = sizes[c][1], k = m < n ? m : n;
      double s[24], tail = 0;
      for (ptrdiff_t i = 0; i < k; i++) s[i] = pow(0.5, (double)i);
      for (ptrdiff_t i = k - 1; i >= 5; i--) tail += s[i] * s[i];
      double *a = reference_round(m * n, reference_with_values(m, n, s), single);
      for (int method = 0; method < SVD_METHODS; method++) {
        svd_result t = svd_run(method, single, m, n, a, 5),
                   all = svd_run(method, single, m, n, a, 1000);
        double *right = svd_right(&t);
        CHECK_STATUS(t.status, TT_OK);
        CHECK(all.k == k && all.status == TT_OK);
        CHECK(svd_values_ordered(&t) && svd_signs_fixed(&t, single));
        CHECK_AT_MOST(reference_absolute(5, t.s, s, single), 40);
        CHECK_AT_MOST(reference_orthogonality(m, 5, t.u, single), 35);
        CHECK_AT_MOST(svd_right_orthogonality(&t, single), 35);
        CHECK_CLOSE(reference_difference(m, n, 5, a, t.u, right, 0), sqrt(tail),
                    20 * reference_ulp(single));
        free(right);
        svd_free(&t);
        svd_free(&all);
      }
      free(a);
    }
}

// U and V^T may be left out, alone or together: the values are the same up to rounding, what is
// given too.
static void svd_test_partial(void) {
  static const int sizes[][2] = {{30, 20}, {20, 30}, {25, 25}};
  for (int c = 0; c < 3; c++) {
    ptrdiff_t m = sizes[c][0], n = sizes[c][1], k = m < n ? m : n;
    double *a = test_normal_doubles(m * n), *u = test_doubles(m * k), *s = test_doubles(k),
           *vt = test_doubles(k * n);
    for (int method = 0; method < SVD_METHODS; method++) {
      tt_options options = test_options();
      double tolerance = method == TT_SVD_GRAM ? 1e-6 : 1e-12;
      options.method = method;
      svd_result all = svd_run(method, 0, m, n, a, 0);
      CHECK_STATUS(tt_svd_f64(a, m, n, NULL, s, NULL, &options), TT_OK);
      CHECK_AT_MOST(test_distance(k, s, all.s), tolerance);
      CHECK_STATUS(tt_svd_f64(a, m, n, u, s, NULL, &options), TT_OK);
      CHECK_AT_MOST(test_distance(k, s, all.s), tolerance);
      CHECK_AT_MOST(test_distance(m * k, u, all.u), 1e3 * tolerance);
      CHECK_STATUS(tt_svd_f64(a, m, n, NULL, s, vt, &options), TT_OK);
      CHECK_AT_MOST(test_distance(k, s, all.s), tolerance);
      CHECK_AT_MOST(test_distance(k * n, vt, all.vt), 1e3 * tolerance);
      svd_free(&all);
    }
    free(a); free(u); free(s); free(vt);
  }
}

// The best rank-r error of the spectrum j^-power, j = 1 .. k.
static double svd_power_tail(ptrdiff_t k, ptrdiff_t r, double power) {
  double sum = 0;
  for (ptrdiff_t j = k; j > r; j--) sum += pow((double)j, -2 * power);
  return sqrt(sum);
}

static double svd_excess_worst;

// How far the randomised method stays behind the optimum: ||A - U S V^T|| / optimum - 1.
static void svd_check_randomized(ptrdiff_t m, ptrdiff_t n, int r, double power, int single,
                                 double bound) {
  ptrdiff_t k = m < n ? m : n;
  double *s = test_doubles(k);
  for (ptrdiff_t j = 0; j < k; j++) s[j] = pow((double)(j + 1), -power);
  double *a = reference_round(m * n, reference_with_values(m, n, s), single);
  svd_result t = svd_run(TT_SVD_RANDOMIZED, single, m, n, a, r);
  double *right = svd_right(&t);
  double excess = reference_difference(m, n, r, a, t.u, right, 0) / svd_power_tail(k, r, power) - 1;
  CHECK_STATUS(t.status, TT_OK);
  CHECK_AT_MOST(excess, bound);
  CHECK(svd_values_ordered(&t) && svd_signs_fixed(&t, single));
  CHECK_AT_MOST(reference_orthogonality(m, r, t.u, single), 35);
  CHECK_AT_MOST(svd_right_orthogonality(&t, single), 35);
  for (int j = 0; j < r; j++)
    CHECK(t.s[j] <= s[j] * (1 + 1e-5)); // values of a projection never exceed the true ones
  svd_excess_worst = reference_larger(svd_excess_worst, excess);
  free(right);
  svd_free(&t);
  free(a);
  free(s);
}

static void svd_test_randomized(void) {
  svd_check_randomized(512, 512, 32, 0.5, 1, 1e-2);
  svd_check_randomized(512, 512, 32, 0.5, 0, 1e-2);
  svd_check_randomized(200, 700, 16, 1.5, 0, 1e-4);
  svd_check_randomized(700, 200, 16, 1.5, 1, 1e-4);
  svd_check_randomized(300, 300, 1, 0.5, 0, 1e-2);
}

// Same seed, same bits; another seed, another start. Rank-deficient input below the cap; a cap near
// the size.
static void svd_test_randomized_seeds(void) {
  ptrdiff_t m = 200, n = 230;
  double *a = test_normal_doubles(m * n), s[200] = {0};
  tt_options options = test_options();
  options.method = TT_SVD_RANDOMIZED;
  options.max_rank = 10;
  svd_result first = svd_run_options(0, m, n, a, &options),
             again = svd_run_options(0, m, n, a, &options);
  options.seed = 12345;
  svd_result other = svd_run_options(0, m, n, a, &options);
  CHECK(!memcmp(first.s, again.s, 10 * sizeof(double)));
  CHECK(!memcmp(first.u, again.u, (size_t)m * 10 * sizeof(double)));
  CHECK(!memcmp(first.vt, again.vt, (size_t)n * 10 * sizeof(double)));
  CHECK(memcmp(first.u, other.u, (size_t)m * 10 * sizeof(double)) != 0);
  CHECK_AT_MOST(test_distance(10, first.s, other.s), 2e-2);
  svd_free(&first); svd_free(&again); svd_free(&other);
  free(a);
  for (int i = 0; i < 4; i++) s[i] = 4 - i;
  a = reference_with_values(m, n, s);
  first = svd_run(TT_SVD_RANDOMIZED, 0, m, n, a, 12);
  CHECK_AT_MOST(reference_absolute(4, first.s, s, 0), 100);
  CHECK_AT_MOST(first.s[4], 1e-13);
  CHECK_AT_MOST(reference_orthogonality(m, 12, first.u, 0), 35);
  CHECK_AT_MOST(svd_right_orthogonality(&first, 0), 35);
  svd_free(&first);
  first = svd_run(TT_SVD_RANDOMIZED, 0, m, n, a, 199);
  CHECK_AT_MOST(svd_residual(&first, a, 0), 35);
  svd_free(&first);
  free(a);
}

// ---------------------------------------------------------------------------------------- refusals

static void svd_test_invalid(void) {
  double a[6] = {1, 2, 3, 4, 5, 6}, u[6] = {7, 7, 7, 7, 7, 7}, s[2] = {7, 7}, vt[4] = {7, 7, 7, 7};
  tt_options options = test_options();
  CHECK_STATUS(tt_svd_f64(a, -3, 2, u, s, vt, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_svd_f64(a, 3, -2, u, s, vt, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_svd_f64(NULL, 3, 2, u, s, vt, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_svd_f64(a, 3, 2, u, NULL, vt, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_svd(NULL, 3, 2, NULL, NULL, NULL, NULL), TT_ERROR_INVALID);
  options.method = 5;
  CHECK_STATUS(tt_svd_f64(a, 3, 2, u, s, vt, &options), TT_ERROR_INVALID);
  options.method = -1;
  CHECK_STATUS(tt_svd_f64(a, 3, 2, u, s, vt, &options), TT_ERROR_INVALID);
  options = test_options();
  options.max_rank = -1;
  CHECK_STATUS(tt_svd_f64(a, 3, 2, u, s, vt, &options), TT_ERROR_INVALID);
  CHECK_STATUS(tt_svd_f64(a, PTRDIFF_MAX / 4, 8, u, s, vt, NULL), TT_ERROR_MEMORY);
  CHECK_STATUS(tt_svd_f64(a, 2, PTRDIFF_MAX / 2, NULL, s, NULL, NULL), TT_ERROR_MEMORY);
  for (int i = 0; i < 6; i++) CHECK(u[i] == 7 && s[i % 2] == 7 && vt[i % 4] == 7);
  CHECK_STATUS(tt_svd_f64(NULL, 0, 5, NULL, NULL, NULL, NULL), TT_OK);
  CHECK_STATUS(tt_svd(NULL, 5, 0, NULL, NULL, NULL, NULL), TT_OK);
}

// NaN and Inf anywhere are refused before any output is written.
static void svd_test_nonfinite(void) {
  static const int sizes[][2] = {{3, 3}, {40, 5}, {5, 40}, {70, 66}};
  for (int c = 0; c < 4; c++) {
    ptrdiff_t m = sizes[c][0], n = sizes[c][1], k = m < n ? m : n, count = m * n;
    double *a = test_normal_doubles(count), *u = test_doubles(m * k), *s = test_doubles(k),
           *vt = test_doubles(k * n);
    float *x = test_floats(count), *y = test_floats(m * n);
    for (ptrdiff_t at = 0; at < count; at += 1 + count / 3)
      for (int method = 0; method < SVD_METHODS; method++) {
        tt_options options = test_options();
        double kept = a[at];
        options.method = method;
        options.max_rank = method == TT_SVD_RANDOMIZED ? 2 : 0;
        a[at] = method % 2 ? (double)NAN : -(double)INFINITY;
        for (ptrdiff_t i = 0; i < count; i++) x[i] = (float)a[i];
        u[0] = s[0] = vt[0] = 7;
        y[0] = y[1] = 7;
        CHECK_STATUS(tt_svd_f64(a, m, n, u, s, vt, &options), TT_ERROR_NONFINITE);
        CHECK_STATUS(tt_svd(x, m, n, NULL, y, NULL, &options), TT_ERROR_NONFINITE);
        CHECK(u[0] == 7 && s[0] == 7 && vt[0] == 7 && y[0] == 7 && y[1] == 7);
        a[at] = kept;
      }
    free(a); free(u); free(s); free(vt); free(x); free(y);
  }
}

// Every allocation of every method may fail: TT_ERROR_MEMORY, outputs untouched, nothing leaked.
static void svd_test_memory(void) {
  ptrdiff_t m = 40, n = 60;
  double *a = test_normal_doubles(m * n), *u = test_doubles(m * m), *s = test_doubles(m),
         *vt = test_doubles(m * n);
  for (int method = 0; method < SVD_METHODS; method++) {
    tt_status status = TT_ERROR_MEMORY;
    for (long fail = 1; status == TT_ERROR_MEMORY && fail < 200; fail++) {
      test_heap heap;
      tt_options options = test_options();
      options.method = method;
      options.max_rank = 4;
      options.allocator = test_allocator(&heap);
      heap.fail_at = fail;
      u[0] = s[0] = vt[0] = 1234;
      status = tt_svd_f64(a, m, n, u, s, vt, &options);
      CHECK(heap.live_blocks == 0);
      CHECK(status == TT_OK ||
            (status == TT_ERROR_MEMORY && u[0] == 1234 && s[0] == 1234 && vt[0] == 1234));
    }
    CHECK_STATUS(status, TT_OK);
  }
  free(a); free(u); free(s); free(vt);
}

// Accuracy of every method in one line each, for people.
static void svd_print_ratios(void) {
  if (!getenv("TT_TEST_VERBOSE")) return;
  printf("  svd ratios (gate 3 | 35)    random: R1     R2     R3   |  all: R1     R2     R3\n");
  for (int method = 0; method < SVD_METHODS; method++)
    for (int single = 0; single < 2; single++) {
      const double *random = svd_worst[0][method][single], *all = svd_worst[1][method][single];
      printf("  svd %-11s %s         %6.3f %6.3f %6.3f  |  %6.3f %6.3f %6.3f\n", svd_names[method],
             single ? "f32" : "f64", random[0], random[1], random[2], all[0], all[1], all[2]);
    }
  printf("  svd gram f32: %.1e of 4e-7 s1, %.2f of its relative bound\n", svd_gram_worst[0],
         svd_gram_worst[1]);
  printf("  svd absolute / (eps s1): auto %.2f, jacobi %.2f, householder %.2f\n",
         svd_absolute_worst[TT_SVD_AUTO], svd_absolute_worst[TT_SVD_JACOBI],
         svd_absolute_worst[TT_SVD_HOUSEHOLDER]);
  printf("  svd randomized: largest excess over the optimum %.1e\n", svd_excess_worst);
}

static void test_svd(void) {
  svd_test_random();
  svd_test_types();
  svd_test_scales();
  svd_test_bidiagonal();
  svd_test_relative();
  svd_test_absolute();
  svd_test_gram();
  svd_test_gram_on_doubles();
  svd_test_special();
  svd_test_known();
  svd_test_peers();
  svd_test_long();
  svd_test_overflow();
  svd_test_max_rank();
  svd_test_partial();
  svd_test_randomized();
  svd_test_randomized_seeds();
  svd_test_invalid();
  svd_test_nonfinite();
  svd_test_memory();
  svd_print_ratios();
}
