// How fast is the singular value decomposition, beside LAPACK's ?gesdd in its better layout, and
// how accurate are both? Error: ||A - U S V^T|| / ||A|| of full decompositions; for truncated ones
// the excess over the optimum. Bound: flops of the cheapest known route at the measured peak (Gram
// m^2 n, reduction 4/3 m^3, vectors 2 m^3, one product 2 m^2 n in double).
#include "bench.h"

typedef struct svd_run {
  ptrdiff_t m, n;
  int wide, method, cap;
  const void *a;
  void *u, *s, *vt;
} svd_run;

static void svd_ours(void *argument) {
  svd_run *t = (svd_run *)argument;
  tt_options options;
  memset(&options, 0, sizeof options);
  options.method = t->method;
  options.max_rank = t->cap;
  if (t->wide)
    bench_must(tt_svd_f64((const double *)t->a, t->m, t->n, (double *)t->u, (double *)t->s,
                          (double *)t->vt, &options),
               "tt_svd_f64");
  else
    bench_must(tt_svd((const float *)t->a, t->m, t->n, (float *)t->u, (float *)t->s, (float *)t->vt,
                      &options),
               "tt_svd");
}

static double svd_at(const svd_run *t, const void *x, ptrdiff_t i) {
  return t->wide ? ((const double *)x)[i] : (double)((const float *)x)[i];
}

static ptrdiff_t svd_rank(const svd_run *t) {
  ptrdiff_t k = t->m < t->n ? t->m : t->n;
  return t->cap && t->cap < k ? t->cap : k;
}

// ||A - U S V^T||_F / ||A||_F with k triplets.
static double svd_error(const svd_run *t, ptrdiff_t k) {
  double *row = (double *)bench_new(t->n, sizeof *row),
         *right = (double *)bench_new(k * t->n, sizeof *right);
  double difference = 0, norm = 0;
  for (ptrdiff_t p = 0; p < k; p++)
    for (ptrdiff_t j = 0; j < t->n; j++)
      right[p * t->n + j] = svd_at(t, t->s, p) * svd_at(t, t->vt, p * t->n + j);
  for (ptrdiff_t i = 0; i < t->m; i++) {
    for (ptrdiff_t j = 0; j < t->n; j++) {
      row[j] = svd_at(t, t->a, i * t->n + j);
      norm += row[j] * row[j];
    }
    for (ptrdiff_t p = 0; p < k; p++) {
      double factor = svd_at(t, t->u, i * k + p);
      for (ptrdiff_t j = 0; j < t->n; j++) row[j] -= factor * right[p * t->n + j];
    }
    for (ptrdiff_t j = 0; j < t->n; j++) difference += row[j] * row[j];
  }
  free(row);
  free(right);
  return sqrt(difference / norm);
}

#ifdef BENCH_BLAS
typedef struct svd_lapack { svd_run *run; void *copy; } svd_lapack;

// A wide row-major matrix is its tall transpose in column-major order, LAPACK's better layout:
// nothing is copied but the input, which ?gesdd destroys. All matrices here are square or wide.
static void svd_rival(void *argument) {
  svd_lapack *l = (svd_lapack *)argument;
  svd_run *t = l->run;
  int m = (int)t->n, n = (int)t->m, k = (int)(t->m < t->n ? t->m : t->n);
  memcpy(l->copy, t->a, (size_t)(t->m * t->n) * (t->wide ? sizeof(double) : sizeof(float)));
  if (t->wide)
    LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', m, n, (double *)l->copy, m, (double *)t->s,
                   (double *)t->vt, m, (double *)t->u, k);
  else
    LAPACKE_sgesdd(LAPACK_COL_MAJOR, 'S', m, n, (float *)l->copy, m, (float *)t->s, (float *)t->vt,
                   m, (float *)t->u, k);
}
#endif

// Gaussian with row i scaled by (i+1)^-1/2: a falling spectrum, as weights have.
static void *svd_matrix(ptrdiff_t m, ptrdiff_t n, int wide) {
  void *a = bench_new(m * n, wide ? sizeof(double) : sizeof(float));
  for (ptrdiff_t i = 0; i < m * n; i++) {
    double falling = pow((double)(i / n + 1), -0.5), value = bench_normal() * falling;
    if (wide) ((double *)a)[i] = value;
    else ((float *)a)[i] = (float)value;
  }
  return a;
}

static double svd_bound(const svd_run *t) {
  double s = (double)(t->m < t->n ? t->m : t->n), n = (double)(t->m < t->n ? t->n : t->m),
         k = (double)svd_rank(t);
  return (s * s * n + 4.0 / 3 * s * s * s + 2 * s * s * k + 2 * s * n * k) / bench_peak(1);
}

static void svd_bench(ptrdiff_t m, ptrdiff_t n, int wide, int method, int cap) {
  static const char *const names[] = {"auto", "gram", "jacobi", "householder", "randomized"};
  svd_run t;
  char name[64];
  ptrdiff_t k = m < n ? m : n;
  size_t each = wide ? sizeof(double) : sizeof(float);
  double rival = 0, rival_error = 0;
  t.m = m; t.n = n; t.wide = wide; t.method = method; t.cap = cap;
  t.a = svd_matrix(m, n, wide);
  t.u = bench_new(m * k, each);
  t.s = bench_new(k, each);
  t.vt = bench_new(k * n, each);
  double ours = bench_median(svd_ours, &t, 3), our_error = svd_error(&t, svd_rank(&t)),
         bound = svd_bound(&t);
#ifdef BENCH_BLAS
  svd_lapack l;
  l.run = &t;
  l.copy = bench_new(m * n, each);
  rival = bench_median(svd_rival, &l, 3);
  if (cap) { // the optimal error with `cap` triplets, from all values
    double kept = 0, all = 0;
    for (ptrdiff_t i = 0; i < k; i++) {
      double s2 = svd_at(&t, t.s, i) * svd_at(&t, t.s, i);
      all += s2;
      if (i < cap) kept += s2;
    }
    our_error = our_error / sqrt((all - kept) / all) - 1;
  } else {
    rival_error = svd_error(&t, k);
  }
  free(l.copy);
#endif
  snprintf(name, sizeof name, "%s %ldx%ld %s%s", wide ? "f64" : "f32", (long)m, (long)n,
           names[method], cap ? " top 64" : "");
  bench_line(name, ours, our_error, rival, rival_error, bound);
  free((void *)t.a);
  free(t.u);
  free(t.s);
  free(t.vt);
}

int main(int argc, char **argv) {
  bench_start(argc, argv,
              "svd: tt_svd against LAPACKE_?gesdd (err: residual; top 64: excess over the optimum,"
              " rival = full gesdd)");
  int large = bench_quick ? 256 : 512;
  svd_bench(64, 64, 0, TT_SVD_AUTO, 0);
  svd_bench(256, 256, 0, TT_SVD_AUTO, 0);
  svd_bench(large, large, 0, TT_SVD_AUTO, 0);
  svd_bench(64, bench_quick ? 16384 : 65536, 0, TT_SVD_AUTO, 0);
  svd_bench(bench_quick ? 128 : 512, 4096, 0, TT_SVD_AUTO, 0);
  svd_bench(2 * large, 2 * large, 0, TT_SVD_RANDOMIZED, 64);
  if (!bench_quick) svd_bench(1024, 1024, 0, TT_SVD_AUTO, 0);
  if (!bench_quick) svd_bench(2048, 2048, 0, TT_SVD_AUTO, 64);
  for (int method = TT_SVD_AUTO; method <= TT_SVD_HOUSEHOLDER; method++) {
    svd_bench(100, 100, 1, method, 0);
    svd_bench(large, large, 1, method, 0);
  }
  return 0;
}
