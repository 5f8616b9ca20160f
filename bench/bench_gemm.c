// How fast is the matrix product, beside OpenBLAS, on squares and on shapes that trains need?
// N and T say how A and B are stored. Ratio = rival's time / ours; bound = measured peak of
// multiply-adds.
#include "bench.h"

typedef struct gemm_run {
  ptrdiff_t m, n, k;
  int wide, flags;
  void *a, *b, *c;
} gemm_run;

static ptrdiff_t gemm_lda(const gemm_run *t) { return t->flags & TT_TRANSPOSE_A ? t->m : t->k; }
static ptrdiff_t gemm_ldb(const gemm_run *t) { return t->flags & TT_TRANSPOSE_B ? t->k : t->n; }

static void gemm_ours(void *argument) {
  gemm_run *t = (gemm_run *)argument;
  tt_status status;
  if (t->wide)
    status = tt_matmul_f64(t->m, t->n, t->k, (double *)t->a, gemm_lda(t), (double *)t->b,
                           gemm_ldb(t), (double *)t->c, t->n, t->flags, NULL);
  else
    status = tt_matmul(t->m, t->n, t->k, (float *)t->a, gemm_lda(t), (float *)t->b, gemm_ldb(t),
                       (float *)t->c, t->n, t->flags, NULL);
  bench_must(status, "tt_matmul");
}

#ifdef BENCH_BLAS
static void gemm_rival(void *argument) {
  gemm_run *t = (gemm_run *)argument;
  int m = (int)t->m, n = (int)t->n, k = (int)t->k, lda = (int)gemm_lda(t), ldb = (int)gemm_ldb(t);
  CBLAS_TRANSPOSE a = t->flags & TT_TRANSPOSE_A ? CblasTrans : CblasNoTrans,
                  b = t->flags & TT_TRANSPOSE_B ? CblasTrans : CblasNoTrans;
  if (n == 1 && t->wide)
    cblas_dgemv(CblasRowMajor, CblasNoTrans, m, k, 1, (double *)t->a, lda, (double *)t->b, 1, 0,
                (double *)t->c, 1);
  else if (n == 1)
    cblas_sgemv(CblasRowMajor, CblasNoTrans, m, k, 1, (float *)t->a, lda, (float *)t->b, 1, 0,
                (float *)t->c, 1);
  else if (t->wide)
    cblas_dgemm(CblasRowMajor, a, b, m, n, k, 1, (double *)t->a, lda, (double *)t->b, ldb, 0,
                (double *)t->c, n);
  else
    cblas_sgemm(CblasRowMajor, a, b, m, n, k, 1, (float *)t->a, lda, (float *)t->b, ldb, 0,
                (float *)t->c, n);
}
#else
#define gemm_rival NULL
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
      ptrdiff_t at_a = t->flags & TT_TRANSPOSE_A ? p * t->m + i : i * t->k + p;
      ptrdiff_t at_b = t->flags & TT_TRANSPOSE_B ? j * t->k + p : p * t->n + j;
      long double term = (long double)gemm_at(t->a, t->wide, at_a);
      term *= (long double)gemm_at(t->b, t->wide, at_b);
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

static void gemm_bench(const int size[4], int wide, double peak) {
  gemm_run t;
  char name[64];
  ptrdiff_t m = size[0], n = size[1], k = size[2];
  double flops = 2.0 * (double)m * (double)n * (double)k, seconds[2], rival_error = 0;
  size_t each = wide ? sizeof(double) : sizeof(float);
  t.m = m;
  t.n = n;
  t.k = k;
  t.wide = wide;
  t.flags = size[3];
  t.a = bench_new(m * k, each);
  t.b = bench_new(k * n, each);
  t.c = bench_new(m * n, each);
  gemm_fill(t.a, m * k, wide);
  gemm_fill(t.b, k * n, wide);
  bench_versus(gemm_ours, gemm_rival, &t, 5, seconds);
#ifdef BENCH_BLAS
  rival_error = gemm_error(&t);
#endif
  gemm_ours(&t);
  snprintf(name, sizeof name, "%s %ldx%ldx%ld %c%c %.1f GF/s", wide ? "f64" : "f32", (long)m,
           (long)n, (long)k, t.flags & TT_TRANSPOSE_A ? 'T' : 'N',
           t.flags & TT_TRANSPOSE_B ? 'T' : 'N', flops / seconds[0] * 1e-9);
  bench_line(name, seconds[0], gemm_error(&t), seconds[1], rival_error, flops / peak);
  free(t.a);
  free(t.b);
  free(t.c);
}

int main(int argc, char **argv) {
  enum { A = TT_TRANSPOSE_A, B = TT_TRANSPOSE_B };
  static const int sizes[][4] = {
      {16, 16, 16, 0},       {32, 32, 32, 0},       {64, 64, 64, 0},       {100, 100, 100, 0},
      {128, 128, 128, 0},    {256, 256, 256, 0},    {256, 256, 256, A},    {256, 256, 256, B},
      {512, 512, 512, 0},    {64, 2048, 64, B},     {64, 64, 2048, 0},     {1024, 64, 64, 0},
      {512, 256, 16, 0},     {256, 16, 512, 0},     {5, 1000, 1000, 0},    {1000, 5, 1000, 0},
      {1000, 1000, 1000, 0}, {1024, 1024, 1024, 0}, {1024, 1024, 1024, A}, {1024, 1024, 1024, B},
      {2048, 2048, 2048, 0}, {64, 65536, 64, 0},    {80, 4096, 4096, 0},   {4096, 80, 4096, 0},
      {1, 4096, 4096, 0},    {4096, 1, 4096, 0},    {512, 1, 512, 0}};
  bench_start(argc, argv, "gemm: tt_matmul against cblas_?gemm, ?gemv");
  double peak[2] = {bench_peak(0), bench_peak(1)};
  for (int wide = 0; wide < 2; wide++)
    for (int i = 0; i < (bench_quick ? 16 : (int)(sizeof sizes / sizeof *sizes)); i++)
      gemm_bench(sizes[i], wide, peak[wide]);
  return 0;
}
