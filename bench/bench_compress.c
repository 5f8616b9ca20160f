// How fast is TT-SVD (tt_compress), beside LAPACK's ?gesdd once per unfolding in its tall layout,
// at equal ranks? Data: bench_kronecker. Error: relative, of the whole matrix. Bound: the flops of
// the truncated steps (two products with the unfolding per kept rank, twice oversampled) at the f32
// peak.
#include "bench.h"

typedef struct compress_run {
  const float *w;
  ptrdiff_t side;
  tt_shape shape;
  tt_options options;
  tt_matrix train;
  tt_report report;
} compress_run;

static void compress_ours(void *argument) {
  compress_run *t = (compress_run *)argument;
  tt_free(&t->train);
  bench_must(tt_compress(t->w, t->side, t->side, &t->shape, &t->options, &t->train, &t->report),
             "tt_compress");
}

#ifdef BENCH_BLAS
// The tensor in core order: element (i_1 j_1 i_2 j_2 ..) of the leg digits.
static float *compress_permuted(const float *w, ptrdiff_t side, int order, ptrdiff_t leg) {
  float *x = (float *)bench_new(side * side, sizeof *x);
  for (ptrdiff_t i = 0; i < side; i++)
    for (ptrdiff_t j = 0; j < side; j++) {
      ptrdiff_t at = 0, row = side, col = side;
      for (int d = 0; d < order; d++) {
        row /= leg;
        col /= leg;
        at = (at * leg + i / row % leg) * leg + j / col % leg;
      }
      x[at] = w[i * side + j];
    }
  return x;
}

typedef struct compress_lapack {
  const compress_run *run;
  int order;
  ptrdiff_t leg;
  double error;
} compress_lapack;

// TT-SVD left to right: the unfolding (rows, cols), read as its tall transpose in column-major
// order; ranks as ours.
static void compress_rival(void *argument) {
  compress_lapack *l = (compress_lapack *)argument;
  ptrdiff_t side = l->run->side, total = side * side, rank = 1, mode = l->leg * l->leg;
  float *x = compress_permuted(l->run->w, side, l->order, l->leg);
  double cut = 0, norm = 0;
  for (ptrdiff_t i = 0; i < total; i++) norm += (double)x[i] * (double)x[i];
  for (int d = 0; d + 1 < l->order; d++) {
    ptrdiff_t rows = rank * mode, cols = total / rows, k = rows < cols ? rows : cols;
    ptrdiff_t keep = l->run->train.shape.ranks[d + 1];
    float *u = (float *)bench_new(rows * k, sizeof *u), *s = (float *)bench_new(k, sizeof *s);
    float *vt = (float *)bench_new(k * cols, sizeof *vt);
    LAPACKE_sgesdd(LAPACK_COL_MAJOR, 'S', (int)cols, (int)rows, x, (int)cols, s, vt, (int)cols, u,
                   (int)k);
    for (ptrdiff_t p = keep; p < k; p++) cut += (double)s[p] * (double)s[p];
    for (ptrdiff_t p = 0; p < keep; p++)
      for (ptrdiff_t j = 0; j < cols; j++) x[p * cols + j] = s[p] * vt[p * cols + j];
    free(u);
    free(s);
    free(vt);
    rank = keep;
    total = keep * cols;
  }
  l->error = sqrt(cut / norm);
  free(x);
}
#endif

static void compress_bench(int order, int leg, int cap, double peak) {
  compress_run t;
  char name[64];
  double flops = 0, rival = 0, rival_error = 0;
  ptrdiff_t side = 1;
  memset(&t, 0, sizeof t);
  for (int d = 0; d < order; d++) {
    side *= leg;
    t.shape.rows[d] = t.shape.cols[d] = leg;
  }
  t.shape.order = order;
  t.shape.ranks[0] = t.shape.ranks[order] = 1;
  t.side = side;
  t.options.max_rank = cap;
  t.w = bench_kronecker(side, order, leg);
  double ours = bench_median(compress_ours, &t, 3);
  ptrdiff_t total = side * side;
  for (int d = 0; d + 1 < order;
       d++) { // an unfolding of `total` numbers, reduced to ranks[d+1] rows
    ptrdiff_t keep = t.train.shape.ranks[d + 1],
              rows = (ptrdiff_t)t.train.shape.ranks[d] * leg * leg;
    flops += keep < rows ? 8.0 * (double)total * (double)keep : 0;
    total = total / rows * keep;
  }
#ifdef BENCH_BLAS
  compress_lapack l;
  l.run = &t;
  l.order = order;
  l.leg = leg;
  l.error = 0;
  rival = bench_median(compress_rival, &l, 1);
  rival_error = l.error;
#endif
  snprintf(name, sizeof name, "%ldx%ld as %d^%d, cap %d", (long)side, (long)side, leg * leg, order,
           cap);
  bench_line(name, ours, t.report.relative_error, rival, rival_error, flops / peak);
  tt_free(&t.train);
  free((void *)t.w);
}

int main(int argc, char **argv) {
  bench_start(argc, argv, "compress: tt_compress against LAPACKE_sgesdd per unfolding");
  double peak = bench_peak(0);
  compress_bench(3, 8, 32, peak);
  compress_bench(2, 16, 32, peak);
  compress_bench(4, 4, 16, peak);
  if (!bench_quick) {
    compress_bench(3, 10, 64, peak);
    compress_bench(3, 16, 64, peak);
    compress_bench(4, 8, 16, peak);
    compress_bench(4, 8, 64, peak);
  }
  return 0;
}
