// How fast is the matrix product, beside OpenBLAS? Ratio = rival's time / ours; bound = measured
// peak of multiply-adds.
#include "bench.h"

typedef struct gemm_run {
  ptrdiff_t m, n, k;
  int wide;
  void *a, *b, *c;
} gemm_run;

static void gemm_ours(void *argument) {
  gemm_run *t = (gemm_run *)argument;
  tt_status status;
  if (t->wide)
    status = tt_matmul_f64(t->m, t->n, t->k, (double *)t->a, t->k, (double *)t->b, t->n,
                           (double *)t->c, t->n, 0, NULL);
  else
    status = tt_matmul(t->m, t->n, t->k, (float *)t->a, t->k, (float *)t->b, t->n, (float *)t->c,
                       t->n, 0, NULL);
  bench_must(status, "tt_matmul");
}

#ifdef BENCH_BLAS
static void gemm_rival(void *argument) {
  gemm_run *t = (gemm_run *)argument;
  int m = (int)t->m, n = (int)t->n, k = (int)t->k;
  if (t->wide)
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1, (double *)t->a, k,
                (double *)t->b, n, 0, (double *)t->c, n);
  else
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1, (float *)t->a, k,
                (float *)t->b, n, 0, (float *)t->c, n);
}
#endif

static double gemm_at(const void *x, int wide, ptrdiff_t i) {
  return wide ? ((const double *)x)[i] : (double)((const float *)x)[i];
}

// Largest error of 200 random entries, relative to the sum of |a b|, against a sum in long double.
static double gemm_error(const gemm_run *t) {
  double worst = 0;
  for (int sample = 0; sample < 200; sample++) {
    ptrdiff_t i = (ptrdiff_t)(bench_uniform() * (double)t->m),
              j = (ptrdiff_t)(bench_uniform() * (double)t->n);
    long double sum = 0, size = 0;
    for (ptrdiff_t p = 0; p < t->k; p++) {
      long double a = (long double)gemm_at(t->a, t->wide, i * t->k + p);
      long double term = a * (long double)gemm_at(t->b, t->wide, p * t->n + j);
      sum += term;
      size += fabsl(term);
    }
    double error = (double)(fabsl((long double)gemm_at(t->c, t->wide, i * t->n + j) - sum) / size);
    if (error > worst) worst = error;
  }
  return worst;
}

static void gemm_fill(void *x, ptrdiff_t count, int wide) {
  for (ptrdiff_t i = 0; i < count; i++) {
    double value = bench_normal();
    if (wide) ((double *)x)[i] = value;
    else ((float *)x)[i] = (float)value;
  }
}

static void gemm_bench(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, int wide, double peak) {
  gemm_run t;
  char name[64];
  double flops = 2.0 * (double)m * (double)n * (double)k, rival = 0, rival_error = 0;
  size_t each = wide ? sizeof(double) : sizeof(float);
  t.m = m; t.n = n; t.k = k; t.wide = wide;
  t.a = bench_new(m * k, each);
  t.b = bench_new(k * n, each);
  t.c = bench_new(m * n, each);
  gemm_fill(t.a, m * k, wide);
  gemm_fill(t.b, k * n, wide);
  double ours = bench_median(gemm_ours, &t, 5), our_error = gemm_error(&t);
#ifdef BENCH_BLAS
  rival = bench_median(gemm_rival, &t, 5);
  rival_error = gemm_error(&t);
#endif
  snprintf(name, sizeof name, "%s %ldx%ldx%ld %.1f GF/s", wide ? "f64" : "f32", (long)m, (long)n,
           (long)k, flops / ours * 1e-9);
  bench_line(name, ours, our_error, rival, rival_error, flops / peak);
  free(t.a);
  free(t.b);
  free(t.c);
}

int main(int argc, char **argv) {
  static const int squares[] = {16, 64, 128, 256, 512, 1000, 1024, 2048};
  static const int shapes[][3] = {
      {64, 65536, 64}, {80, 4096, 4096}, {4096, 80, 4096}, {256, 16, 512}, {1, 4096, 4096}};
  bench_start(argc, argv, "gemm: tt_matmul against cblas_?gemm");
  double peak[2] = {bench_peak(0), bench_peak(1)};
  for (int wide = 0; wide < 2; wide++) {
    for (int i = 0; i < (bench_quick ? 5 : 8); i++)
      gemm_bench(squares[i], squares[i], squares[i], wide, peak[wide]);
    for (int i = 0; i < (bench_quick ? 1 : 5); i++)
      gemm_bench(shapes[i][0], shapes[i][1], shapes[i][2], wide, peak[wide]);
  }
  return 0;
}
