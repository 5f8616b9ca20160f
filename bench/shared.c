// tt.h as a shared library for the benches in Python: functions of plain numbers and arrays, so
// that Python needs no structs. Every function returns a tt_status unless it says otherwise.
#include "bench.h"

#ifdef _WIN32
#define SHARED __declspec(dllexport)
#else
#define SHARED __attribute__((visibility("default")))
#endif

// The matrix of bench_kronecker (side, side). Returns 0.
SHARED int shared_kronecker(ptrdiff_t side, int order, ptrdiff_t leg, float *out) {
  float *w = bench_kronecker(side, order, leg);
  memcpy(out, w, (size_t)(side * side) * sizeof(float));
  free(w);
  return TT_OK;
}

// TT-SVD of w (side, side) with legs leg^order, all ranks at most `cap`; dense (side, side) or NULL
// takes the train's matrix.
SHARED int shared_compress(const float *w, ptrdiff_t side, int order, int leg, int cap,
                           float *dense) {
  tt_shape shape;
  tt_options options;
  tt_matrix train;
  memset(&shape, 0, sizeof shape);
  memset(&options, 0, sizeof options);
  shape.order = order;
  for (int k = 0; k < order; k++) shape.rows[k] = shape.cols[k] = leg;
  shape.ranks[0] = shape.ranks[order] = 1;
  options.max_rank = cap;
  tt_status status = tt_compress(w, side, side, &shape, &options, &train, NULL);
  if (!status && dense) status = tt_expand(&train, dense);
  if (!status) tt_free(&train);
  return status;
}

// tt_svd with `cap` triplets (0 = all) by a tt_svd_method.
SHARED int shared_svd(const float *a, ptrdiff_t m, ptrdiff_t n, int cap, int method, float *u,
                      float *s, float *vt) {
  tt_options options;
  memset(&options, 0, sizeof options);
  options.max_rank = cap;
  options.method = method;
  return tt_svd(a, m, n, u, s, vt, &options);
}

// C (m,n) = A (m,k) B (k,n) in float or double.
SHARED int shared_matmul(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, const float *b,
                         float *c) {
  return tt_matmul(m, n, k, a, k, b, n, c, n, 0, NULL);
}

SHARED int shared_matmul_f64(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const double *a,
                             const double *b, double *c) {
  return tt_matmul_f64(m, n, k, a, k, b, n, c, n, 0, NULL);
}

// A train with what its forward pass needs, from bench_train.
typedef struct shared_layer {
  tt_matrix train, ready;
  void *work;
  size_t work_size;
} shared_layer;

SHARED shared_layer *shared_layer_new(int order, int leg, int rank) { // NULL: out of memory
  shared_layer *layer = (shared_layer *)calloc(1, sizeof *layer);
  if (layer) layer->train = bench_train(order, leg, rank);
  return layer;
}

// Core k (r_k, leg, leg, r_k+1) of the train as it was made.
SHARED int shared_layer_core(shared_layer *layer, int k, float *out) {
  const tt_shape *shape = &layer->train.shape;
  const void *core = tt_core_data(&layer->train, k);
  if (!core) return TT_ERROR_INVALID;
  memcpy(out, core,
         sizeof(float) * (size_t)shape->ranks[k] * (size_t)shape->rows[k] * (size_t)shape->cols[k] *
             (size_t)shape->ranks[k + 1]);
  return TT_OK;
}

// Makes the layer ready for a batch: tt_prepare with cores of `dtype`, work space.
SHARED int shared_layer_ready(shared_layer *layer, ptrdiff_t batch, int dtype) {
  tt_options options;
  tt_matrix prepared;
  memset(&options, 0, sizeof options);
  free(layer->work);
  layer->work = NULL;
  tt_free(&layer->ready);
  tt_status status = tt_prepare(&layer->train, batch, NULL, &prepared);
  if (status) return status;
  status = tt_quantize(&prepared, (tt_dtype)dtype, 0, NULL, &layer->ready, NULL);
  tt_free(&prepared);
  if (status) return status;
  layer->work_size = tt_apply_work_size(&layer->ready, batch);
  layer->work = malloc(layer->work_size);
  return layer->work ? TT_OK : TT_ERROR_MEMORY;
}

SHARED int shared_layer_apply(shared_layer *layer, const float *x, ptrdiff_t batch, float *y) {
  return tt_apply(&layer->ready, x, batch, y, layer->work, layer->work_size);
}

SHARED void shared_layer_free(shared_layer *layer) {
  if (!layer) return;
  tt_free(&layer->train);
  tt_free(&layer->ready);
  free(layer->work);
  free(layer);
}
