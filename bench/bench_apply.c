// How fast is the forward pass of a train, beside the dense product by OpenBLAS (sgemv for one
// vector, sgemm for a batch)? Bound: the larger of flops at the f32 peak and bytes of the cores at
// the read bandwidth of their size. Error: relative, of the output against the train expanded in
// double.
#include "bench.h"

typedef struct apply_run {
  tt_matrix train;
  const float *dense, *x;
  float *y;
  ptrdiff_t batch;
  void *work;
  size_t work_size;
} apply_run;

static void apply_ours(void *argument) {
  apply_run *t = (apply_run *)argument;
  bench_must(tt_apply(&t->train, t->x, t->batch, t->y, t->work, t->work_size), "tt_apply");
}

#ifdef BENCH_BLAS
static void apply_rival(void *argument) {
  apply_run *t = (apply_run *)argument;
  int rows = (int)t->train.rows, cols = (int)t->train.cols, batch = (int)t->batch;
  if (batch == 1)
    cblas_sgemv(CblasRowMajor, CblasNoTrans, rows, cols, 1, t->dense, cols, t->x, 1, 0, t->y, 1);
  else
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, batch, rows, cols, 1, t->x, cols, t->dense,
                cols, 0, t->y, rows);
}
#else
#define apply_rival NULL
#endif

// Relative error of y against W x in double, W the expanded train.
static double apply_error(const apply_run *t, const double *exact) {
  double difference = 0, norm = 0;
  for (ptrdiff_t b = 0; b < t->batch && b < 4; b++)
    for (ptrdiff_t i = 0; i < t->train.rows; i++) {
      double sum = 0;
      for (ptrdiff_t j = 0; j < t->train.cols; j++)
        sum += exact[i * t->train.cols + j] * (double)t->x[b * t->train.cols + j];
      double error = (double)t->y[b * t->train.rows + i] - sum;
      difference += error * error;
      norm += sum * sum;
    }
  return sqrt(difference / norm);
}

static double apply_bound(const tt_matrix *w, ptrdiff_t batch, double peak) {
  double bytes = (double)tt_stored_size(w), flops = 2.0 * (double)tt_apply_macs(w, batch) / peak;
  double reads = bytes / bench_bandwidth((ptrdiff_t)(bytes / 4) + 64);
  return flops > reads ? flops : reads;
}

// One train at one batch size, as it is or prepared (merged and turned); the dense side is timed
// once per batch.
static void apply_bench(const tt_matrix *train, const char *name, ptrdiff_t batch, int prepared,
                        const float *dense, const double *exact, double peak) {
  apply_run t;
  char line[64];
  double seconds[2], rival_error = 0;
  t.train = *train;
  t.train.block = NULL; // a view
  if (prepared) bench_must(tt_prepare(train, batch, NULL, &t.train), "tt_prepare");
  t.dense = dense;
  t.batch = batch;
  t.x = bench_floats(batch * train->cols);
  t.y = bench_floats(batch * train->rows);
  t.work_size = tt_apply_work_size(&t.train, batch);
  t.work = bench_new((ptrdiff_t)t.work_size, 1);
  bench_versus(apply_ours, apply_rival, &t, 5, seconds);
#ifdef BENCH_BLAS
  rival_error = apply_error(&t, exact);
#endif
  apply_ours(&t);
  snprintf(line, sizeof line, "%s batch %ld%s", name, (long)batch, prepared ? " prepared" : "");
  bench_line(line, seconds[0], apply_error(&t, exact), seconds[1], rival_error,
             apply_bound(&t.train, batch, peak));
  free((void *)t.x);
  free(t.y);
  free(t.work);
  tt_free(&t.train);
}

static void apply_shape(int order, int leg, int rank, double peak) {
  tt_matrix w = bench_train(order, leg, rank);
  float *dense = (float *)bench_new(w.rows * w.cols, sizeof *dense);
  double *exact = (double *)bench_new(w.rows * w.cols, sizeof *exact);
  char name[64];
  bench_must(tt_expand(&w, dense), "tt_expand");
  bench_must(tt_expand_f64(&w, exact), "tt_expand_f64");
  snprintf(name, sizeof name, "legs %d^%d r %d", leg, order, rank);
  for (ptrdiff_t batch = 1; batch <= 64; batch += 63)
    for (int prepared = 0; prepared < 2; prepared++)
      apply_bench(&w, name, batch, prepared, dense, exact, peak);
  free(dense);
  free(exact);
  tt_free(&w);
}

int main(int argc, char **argv) {
  bench_start(argc, argv, "apply: tt_apply against the dense matrix by cblas_sgemv / cblas_sgemm");
  double peak = bench_peak(0);
  if (bench_quick) {
    apply_shape(2, 32, 16, peak);
    apply_shape(3, 10, 8, peak);
    return 0;
  }
  apply_shape(2, 64, 8, peak);
  apply_shape(2, 64, 32, peak);
  apply_shape(3, 16, 16, peak);
  apply_shape(4, 8, 16, peak);
  return 0;
}
