// What the tests of >>qr, >>eigen and >>svd share: matrices with known spectra, LAPACK's measures
// of error, and singular values in long double to compare with. Everything is double here; a
// "single" matrix holds values exact in float.
#ifndef REFERENCE_H_INCLUDED
#define REFERENCE_H_INCLUDED

#include "test.h"

static double reference_ulp(int single) { return single ? 0x1p-23 : 0x1p-52; }
static double reference_eps(int single) { return single ? 0x1p-24 : 0x1p-53; }
static double reference_smallest(int single) { return single ? 0x1p-149 : 0x1p-1074; }

static double reference_larger(double a, double b) { return a > b ? a : b; }

static double *reference_round(ptrdiff_t count, double *a, int single) {
  for (ptrdiff_t i = 0; i < count && single; i++) a[i] = (double)(float)a[i];
  return a;
}

static double *reference_copy(ptrdiff_t count, const double *a) {
  double *b = test_doubles(count);
  for (ptrdiff_t i = 0; i < count; i++) b[i] = a[i];
  return b;
}

static double *reference_scaled(ptrdiff_t count, const double *a, double factor) {
  double *b = test_doubles(count);
  for (ptrdiff_t i = 0; i < count; i++) b[i] = a[i] * factor;
  return b;
}

static double *reference_transpose(ptrdiff_t rows, ptrdiff_t cols, const double *a) {
  double *b = test_doubles(rows * cols);
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t j = 0; j < cols; j++) b[j * rows + i] = a[i * cols + j];
  return b;
}

static double reference_largest(ptrdiff_t count, const double *a) {
  double largest = 0;
  for (ptrdiff_t i = 0; i < count; i++) largest = reference_larger(largest, fabs(a[i]));
  return largest;
}

// The exponent that brings the largest entry to [1/2, 1): measures of huge and tiny matrices stay
// in range.
static int reference_exponent(ptrdiff_t count, const double *a) {
  int exponent = 0;
  (void)frexp(reference_largest(count, a), &exponent);
  return exponent;
}

static double reference_norm(ptrdiff_t count, const double *a) {
  double sum = 0;
  for (ptrdiff_t i = 0; i < count; i++) sum += a[i] * a[i];
  return sqrt(sum);
}

// ||I - Q^T Q||_F / (rows ulp) of Q (rows, k).
static double reference_orthogonality(ptrdiff_t rows, ptrdiff_t k, const double *q, int single) {
  double *gram = test_doubles(k * k), sum = 0;
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t p = 0; p < k; p++)
      for (ptrdiff_t j = 0; j < k; j++) gram[p * k + j] += q[i * k + p] * q[i * k + j];
  for (ptrdiff_t p = 0; p < k; p++) gram[p * k + p] -= 1;
  sum = reference_norm(k * k, gram);
  free(gram);
  return rows ? sum / ((double)rows * reference_ulp(single)) : 0;
}

// ||A - X Y||_F of A (rows, cols), X (rows, k), Y (k, cols), after A and Y are scaled by
// 2^-exponent.
static double reference_difference(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t k, const double *a,
                                   const double *x, const double *y, int exponent) {
  double *line = test_doubles(cols), *scaled = test_doubles(k * cols), sum = 0;
  for (ptrdiff_t i = 0; i < k * cols; i++) scaled[i] = ldexp(y[i], -exponent);
  for (ptrdiff_t i = 0; i < rows; i++) {
    for (ptrdiff_t j = 0; j < cols; j++) line[j] = ldexp(a[i * cols + j], -exponent);
    for (ptrdiff_t p = 0; p < k; p++) {
      double factor = x[i * k + p];
      for (ptrdiff_t j = 0; j < cols; j++) line[j] -= factor * scaled[p * cols + j];
    }
    for (ptrdiff_t j = 0; j < cols; j++) sum += line[j] * line[j];
  }
  free(line);
  free(scaled);
  return sqrt(sum);
}

// ||A - X Y||_F / (||A||_F max(rows, cols) ulp). What rounding Y to subnormal numbers costs is
// allowed for.
static double reference_residual(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t k, const double *a,
                                 const double *x, const double *y, int single) {
  int exponent = reference_exponent(rows * cols, a);
  double difference = reference_difference(rows, cols, k, a, x, y, exponent);
  double *scaled = test_doubles(rows * cols), longer = (double)(rows > cols ? rows : cols);
  for (ptrdiff_t i = 0; i < rows * cols; i++) scaled[i] = ldexp(a[i], -exponent);
  double unit = longer * reference_ulp(single) * reference_norm(rows * cols, scaled);
  free(scaled);
  if (unit == 0) return difference == 0 ? 0 : (double)INFINITY;
  return difference /
         (unit + ldexp(reference_smallest(single), -exponent) * sqrt((double)(k * cols)));
}

// A := (I - 2 v v^T) A for a random unit vector v.
static void reference_reflect(ptrdiff_t rows, ptrdiff_t cols, double *a) {
  double *v = test_normal_doubles(rows), *line = test_doubles(cols), norm = reference_norm(rows, v);
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t j = 0; j < cols; j++) line[j] += v[i] / norm * a[i * cols + j];
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t j = 0; j < cols; j++) a[i * cols + j] -= 2 * v[i] / norm * line[j];
  free(v);
  free(line);
}

// (rows, k) with orthonormal columns, a product of random reflections.
static double *reference_orthogonal(ptrdiff_t rows, ptrdiff_t k) {
  double *q = test_doubles(rows * k);
  for (ptrdiff_t i = 0; i < k; i++) q[i * k + i] = 1;
  for (ptrdiff_t i = 0; i < 8 + rows / 16 && rows > 1; i++) reference_reflect(rows, k, q);
  return q;
}

// U diag(s) V^T with random orthonormal U and V: the singular values are s up to a few eps s1.
static double *reference_with_values(ptrdiff_t rows, ptrdiff_t cols, const double *s) {
  ptrdiff_t k = rows < cols ? rows : cols;
  double *u = reference_orthogonal(rows, k), *v = reference_orthogonal(cols, k),
         *a = test_doubles(rows * cols);
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t p = 0; p < k; p++)
      for (ptrdiff_t j = 0; j < cols; j++) a[i * cols + j] += u[i * k + p] * s[p] * v[j * k + p];
  free(u);
  free(v);
  return a;
}

// The spectra of LAPACK's test generator (LATMS): 1 one large, 2 one small, 3 geometric, 4
// arithmetic, 5 random with uniform logarithm, 6 random normal; from 1 down to 1/condition.
static void reference_spectrum(int mode, ptrdiff_t k, double condition, double *s) {
  for (ptrdiff_t i = 0; i < k; i++) {
    double part = k > 1 ? (double)i / (double)(k - 1) : 0;
    if (mode == 1) s[i] = i == 0 ? 1 : 1 / condition;
    else if (mode == 2) s[i] = i < k - 1 || k == 1 ? 1 : 1 / condition;
    else if (mode == 3) s[i] = pow(condition, -part);
    else if (mode == 4) s[i] = 1 - part * (1 - 1 / condition);
    else if (mode == 5) s[i] = pow(condition, -test_uniform());
    else s[i] = fabs(test_normal());
  }
}

// ------------------------------------------------------------------ singular values in long double

static int reference_is_wider(void) { return LDBL_MANT_DIG > DBL_MANT_DIG; }

// Size of the matrices that go through the reference: long double in software is some fifty times
// slower.
static ptrdiff_t reference_size(void) { return LDBL_MANT_DIG > 64 ? 20 : 60; }

static long double reference_dot(ptrdiff_t n, const long double *x, const long double *y) {
  long double sum = 0;
  for (ptrdiff_t i = 0; i < n; i++) sum += x[i] * y[i];
  return sum;
}

static void reference_swap_rows(ptrdiff_t n, long double *x, long double *y) {
  for (ptrdiff_t i = 0; i < n; i++) {
    long double kept = x[i];
    x[i] = y[i];
    y[i] = kept;
  }
}

// Sorts the columns of X (m rows of length n) by falling largest entry: with it, and with pivoting
// below, the factorisation is accurate row by row and column by column [Cox, Higham 1998].
static void reference_sort_columns(ptrdiff_t m, ptrdiff_t n, long double *x) {
  for (ptrdiff_t i = 0; i < n; i++) {
    ptrdiff_t best = i;
    long double largest = -1;
    for (ptrdiff_t j = i; j < n; j++) {
      long double size = 0;
      for (ptrdiff_t p = 0; p < m; p++) if (fabsl(x[p * n + j]) > size) size = fabsl(x[p * n + j]);
      if (size > largest) { largest = size; best = j; }
    }
    for (ptrdiff_t p = 0; p < m; p++) {
      long double kept = x[p * n + i];
      x[p * n + i] = x[p * n + best];
      x[p * n + best] = kept;
    }
  }
}

// X (m rows of length n >= m) := L with X = P L Q, L lower triangular, by reflections from the
// right; the largest remaining row is taken first.
static void reference_triangular(ptrdiff_t m, ptrdiff_t n, long double *x) {
  for (ptrdiff_t k = 0; k < m; k++) {
    ptrdiff_t best = k, tail = n - k;
    long double largest = 0;
    for (ptrdiff_t i = k; i < m; i++) {
      long double norm2 = reference_dot(tail, x + i * n + k, x + i * n + k);
      if (norm2 > largest) { largest = norm2; best = i; }
    }
    if (largest == 0) return;
    if (best != k) reference_swap_rows(n, x + k * n, x + best * n);
    long double *v = x + k * n + k, diagonal = v[0] > 0 ? -sqrtl(largest) : sqrtl(largest);
    v[0] -= diagonal;
    long double half = reference_dot(tail, v, v) / 2;
    for (ptrdiff_t i = k + 1; i < m; i++) {
      long double *row = x + i * n + k, factor = reference_dot(tail, v, row) / half;
      for (ptrdiff_t j = 0; j < tail; j++) row[j] -= factor * v[j];
    }
    for (ptrdiff_t j = 1; j < tail; j++) v[j] = 0;
    v[0] = diagonal;
  }
}

// Makes columns p and q (m entries, stride n) of X orthogonal. Returns whether they were not.
static int reference_rotate(ptrdiff_t m, ptrdiff_t n, long double *x, ptrdiff_t p, ptrdiff_t q) {
  long double a = 0, b = 0, g = 0;
  for (ptrdiff_t i = 0; i < m; i++) {
    long double u = x[i * n + p], v = x[i * n + q];
    a += u * u;
    b += v * v;
    g += u * v;
  }
  if (fabsl(g) <= LDBL_EPSILON * sqrtl(a) * sqrtl(b)) return 0;
  long double zeta = (b - a) / (2 * g), t = 1 / (fabsl(zeta) + sqrtl(1 + zeta * zeta));
  if (zeta < 0) t = -t;
  long double c = 1 / sqrtl(1 + t * t), s = c * t;
  for (ptrdiff_t i = 0; i < m; i++) {
    long double u = x[i * n + p], v = x[i * n + q];
    x[i * n + p] = c * u - s * v;
    x[i * n + q] = s * u + c * v;
  }
  return 1;
}

static int reference_descending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

// Singular values of A (rows, cols), descending: pivoted LQ of the short side, then one-sided
// Jacobi on the columns of L [Drmac, Veselic 2008], all in long double: relatively accurate
// wherever the entries of A determine them.
static void reference_singular_values(ptrdiff_t rows, ptrdiff_t cols, const double *a, double *s) {
  ptrdiff_t m = rows < cols ? rows : cols, n = rows < cols ? cols : rows;
  long double *x = (long double *)test_new(m * n, sizeof *x);
  for (ptrdiff_t i = 0; i < m; i++)
    for (ptrdiff_t j = 0; j < n; j++)
      x[i * n + j] = (long double)(rows < cols ? a[i * cols + j] : a[j * cols + i]);
  reference_sort_columns(m, n, x);
  reference_triangular(m, n, x);
  for (int sweep = 0, rotated = 1; sweep < 60 && rotated; sweep++) {
    rotated = 0;
    for (ptrdiff_t p = 0; p < m; p++)
      for (ptrdiff_t q = p + 1; q < m; q++) rotated |= reference_rotate(m, n, x, p, q);
  }
  for (ptrdiff_t j = 0; j < m; j++) {
    long double sum = 0;
    for (ptrdiff_t i = 0; i < m; i++) sum += x[i * n + j] * x[i * n + j];
    s[j] = (double)sqrtl(sum);
  }
  qsort(s, (size_t)m, sizeof *s, reference_descending);
  free(x);
}

// Largest |computed - wanted| / s1 in units of 2^-53 (2^-24 if single).
static double reference_absolute(ptrdiff_t k, const double *computed, const double *wanted,
                                 int single) {
  double worst = 0;
  for (ptrdiff_t i = 0; i < k; i++) worst = reference_larger(worst, fabs(computed[i] - wanted[i]));
  return k && wanted[0] > 0 ? worst / wanted[0] / reference_eps(single) : worst;
}

// Largest |computed - wanted| / wanted.
static double reference_relative(ptrdiff_t k, const double *computed, const double *wanted) {
  double worst = 0;
  for (ptrdiff_t i = 0; i < k; i++)
    worst = reference_larger(worst, fabs(computed[i] - wanted[i]) / wanted[i]);
  return worst;
}

#endif // REFERENCE_H_INCLUDED
