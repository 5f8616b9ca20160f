// Prints one hash over the bits of each result. The output must not depend on OMP_NUM_THREADS, nor
// on whether the compiler knows OpenMP at all.       cc -O2 -fopenmp threads.c -lm &&
// OMP_NUM_THREADS=3 ./a.out
#define TT_IMPLEMENTATION
#include "../tt.h"
#include <stdio.h>

static uint64_t hash(const void *data, size_t size) { // FNV-1a
  const unsigned char *byte = (const unsigned char *)data;
  uint64_t h = 14695981039346656037u;
  while (size--) h = (h ^ *byte++) * 1099511628211u;
  return h;
}

static void show(const char *what, tt_status status, const void *data, size_t size) {
  printf("%-28s status %d  %016llx\n", what, (int)status, (unsigned long long)hash(data, size));
}

static float *numbers(ptrdiff_t count) { // deterministic, spread over [-1, 1)
  float *x = (float *)malloc((size_t)count * sizeof *x);
  uint32_t state = 12345;
  if (!x) exit(1);
  for (ptrdiff_t i = 0; i < count; i++) {
    state = state * 1664525u + 1013904223u;
    x[i] = (float)(state >> 8) / 8388608.0f - 1;
  }
  return x;
}

static void show_matmul(int rows, int cols, int depth) {
  float *a = numbers((ptrdiff_t)rows * depth), *b = numbers((ptrdiff_t)depth * cols),
        *c = numbers((ptrdiff_t)rows * cols);
  tt_status status = tt_matmul(rows, cols, depth, a, depth, b, cols, c, cols, 0, NULL);
  show("matmul", status, c, (size_t)rows * (size_t)cols * sizeof *c);
  free(a);
  free(b);
  free(c);
}

static void show_svd(int method, const char *what, int rows, int cols) {
  int k = rows < cols ? rows : cols;
  float *a = numbers((ptrdiff_t)rows * cols), *u = numbers((ptrdiff_t)rows * k), *s = numbers(k);
  tt_options options;
  memset(&options, 0, sizeof options);
  options.method = method;
  if (method == TT_SVD_RANDOMIZED) options.max_rank = k = 20;
  tt_status status = tt_svd(a, rows, cols, u, s, NULL, &options);
  show(what, status, s, (size_t)k * sizeof *s);
  show(what, status, u, (size_t)rows * (size_t)k * sizeof *u);
  free(a);
  free(u);
  free(s);
}

static void show_apply(const tt_matrix *w, int batch, const char *what) {
  size_t size = tt_apply_work_size(w, batch);
  float *x = numbers(w->cols * batch), *y = numbers(w->rows * batch);
  void *work = malloc(size);
  if (!work) exit(1);
  tt_status status = tt_apply(w, x, batch, y, work, size);
  show(what, status, y, (size_t)w->rows * (size_t)batch * sizeof *y);
  free(x);
  free(y);
  free(work);
}

static void show_train(void) {
  int rows = 240, cols = 320;
  float *w = numbers((ptrdiff_t)rows * cols), *dense = numbers((ptrdiff_t)rows * cols);
  tt_shape shape;
  tt_options options;
  tt_matrix train, rounded, coded, fast;
  tt_report report;
  memset(&options, 0, sizeof options);
  options.max_rank = 48;
  tt_status status = tt_shape_factor(rows, cols, 3, &shape);
  if (!status) status = tt_compress(w, rows, cols, &shape, &options, &train, &report);
  if (status) exit(1);
  show("compress, error", status, &report.relative_error, sizeof report.relative_error);
  status = tt_expand(&train, dense);
  show("compress, matrix", status, dense, (size_t)rows * (size_t)cols * sizeof *dense);
  show_apply(&train, 1, "apply, batch 1");
  show_apply(&train, 65, "apply, batch 65");
  options.max_rank = 12;
  status = tt_round(&train, &options, &rounded, NULL);
  if (!status) show_apply(&rounded, 65, "round, batch 65");
  if (!status) tt_free(&rounded);
  status = tt_quantize(&train, TT_I4, 32, NULL, &coded, NULL);
  if (!status) show_apply(&coded, 65, "4-bit cores, batch 65");
  if (!status) tt_free(&coded);
  status = tt_prepare(&train, 65, NULL, &fast);
  if (!status) show_apply(&fast, 65, "prepare, batch 65");
  if (!status) tt_free(&fast);
  tt_free(&train);
  free(w);
  free(dense);
}

int main(void) {
  show_matmul(301, 257, 129);
  show_matmul(7, 1000, 600);
  show_svd(TT_SVD_GRAM, "svd, Gram", 150, 200);
  show_svd(TT_SVD_JACOBI, "svd, Jacobi", 150, 120);
  show_svd(TT_SVD_HOUSEHOLDER, "svd, Householder", 200, 150);
  show_svd(TT_SVD_RANDOMIZED, "svd, randomised", 300, 260);
  show_train();
  return 0;
}
