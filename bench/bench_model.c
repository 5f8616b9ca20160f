// What would a whole model cost? Every linear layer of a LLaMA-2-7B: 32 blocks of 4 matrices of
// 4096 x 4096, 2 of 11008 x 4096 and 1 of 4096 x 11008. One matrix of each shape is made,
// compressed at rank 64 and run; the model's lines are these measured times multiplied by the
// number of layers, no more. The matrices are synthetic (bench_weights), so the errors say nothing
// about real weights. Rival: the dense matrix by OpenBLAS.
#include "bench.h"

typedef struct model_run {
  const float *w, *x;
  float *y;
  ptrdiff_t rows, cols, batch;
  tt_shape shape;
  tt_matrix train, ready;
  tt_report report;
  void *work;
  size_t work_size;
} model_run;

static void model_compress(void *argument) {
  model_run *t = (model_run *)argument;
  tt_options options;
  memset(&options, 0, sizeof options);
  options.max_rank = 64;
  tt_free(&t->train);
  bench_must(tt_compress(t->w, t->rows, t->cols, &t->shape, &options, &t->train, &t->report),
             "tt_compress");
}

static void model_apply(void *argument) {
  model_run *t = (model_run *)argument;
  bench_must(tt_apply(&t->ready, t->x, t->batch, t->y, t->work, t->work_size), "tt_apply");
}

#ifdef BENCH_BLAS
static void model_dense(void *argument) {
  model_run *t = (model_run *)argument;
  int rows = (int)t->rows, cols = (int)t->cols;
  if (t->batch == 1)
    cblas_sgemv(CblasRowMajor, CblasNoTrans, rows, cols, 1, t->w, cols, t->x, 1, 0, t->y, 1);
  else
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)t->batch, rows, cols, 1, t->x, cols,
                t->w, cols, 0, t->y, rows);
}
#else
#define model_dense NULL
#endif

typedef struct model_total {
  double compress, ours[2], dense[2], params, dense_params;
} model_total;

static void model_forward(model_run *t, int index, int count, model_total *total) {
  char name[64];
  double seconds[2], macs;
  t->batch = index ? 64 : 1;
  bench_must(tt_prepare(&t->train, t->batch, NULL, &t->ready), "tt_prepare");
  t->x = bench_floats(t->batch * t->cols);
  t->y = (float *)bench_new(t->batch * t->rows, sizeof *t->y);
  t->work_size = tt_apply_work_size(&t->ready, t->batch);
  t->work = bench_new((ptrdiff_t)t->work_size, 1);
  macs = (double)tt_apply_macs(&t->ready, t->batch);
  bench_versus(model_apply, model_dense, t, 5, seconds);
  snprintf(name, sizeof name, "%ldx%ld forward, batch %ld", (long)t->rows, (long)t->cols,
           (long)t->batch);
  bench_line(name, seconds[0], t->report.relative_error, seconds[1], 0, 2 * macs / bench_peak(0));
  total->ours[index] += count * seconds[0];
  total->dense[index] += count * seconds[1];
  tt_free(&t->ready);
  free((void *)t->x);
  free(t->y);
  free(t->work);
}

// `count` layers of one shape.
static void model_shape(ptrdiff_t rows, ptrdiff_t cols, int count, model_total *total) {
  model_run t;
  char name[64];
  memset(&t, 0, sizeof t);
  t.rows = rows;
  t.cols = cols;
  bench_must(tt_shape_factor(rows, cols, 3, &t.shape), "tt_shape_factor");
  t.w = bench_weights(&t.shape, rows, cols, 96);
  double seconds = bench_median(model_compress, &t, 3);
  snprintf(name, sizeof name, "%ldx%ld compress, rank 64", (long)rows, (long)cols);
  printf("%-34s %10.3f ms  err %8.1e   %ld parameters of %ld\n", name, seconds * 1e3,
         t.report.relative_error, (long)t.report.params, (long)(rows * cols));
  total->compress += count * seconds;
  total->params += count * (double)t.report.params;
  total->dense_params += count * (double)rows * (double)cols;
  for (int index = 0; index < 2; index++) model_forward(&t, index, count, total);
  tt_free(&t.train);
  free((void *)t.w);
}

int main(int argc, char **argv) {
  bench_start(argc, argv,
              "model: every linear layer of a LLaMA-2-7B at rank 64, layer times added");
  model_total total;
  memset(&total, 0, sizeof total);
  int scale = bench_quick ? 8 : 1;
  model_shape(4096 / scale, 4096 / scale, 32 * 4, &total);
  model_shape(11008 / scale, 4096 / scale, 32 * 2, &total);
  model_shape(4096 / scale, 11008 / scale, 32, &total);
  printf("measured layer times x number of layers%s:\n",
         bench_quick ? ", sides an eighth of the model's" : "");
  printf("  compress all 224 layers, one thread %.1f s; %.1f M parameters of %.1f M\n",
         total.compress, total.params * 1e-6, total.dense_params * 1e-6);
  for (int index = 0; index < 2; index++) {
    printf("  forward, batch %2d: %.1f ms", index ? 64 : 1, total.ours[index] * 1e3);
    if (total.dense[index] > 0)
      printf("; dense %.1f ms, ratio %.2fx", total.dense[index] * 1e3,
             total.dense[index] / total.ours[index]);
    printf("\n");
  }
  return 0;
}
