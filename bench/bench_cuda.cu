// How fast is a train on a GPU, by each of the three ways, and does it pay against the dense matrix
// and against the low-rank product of as many parameters, both by cuBLAS in bf16? At the end,
// without rivals: gradients, batches of SVDs, compression.
//   bench_cuda [quick]
//   nvcc -std=c++14 -O2 -arch=native [-DBENCH_CUBLAS] bench_cuda.cu -o bench_cuda [-lcublas]
// Floors come first, in the same run. Every time is the median of replays of a graph over copies of
// the layer, so many that they exceed the cache four times, but at most 512 (a train of 262 KB then
// exceeds it twice) and, for trains at batches above 16, 8. ~ marks times whose p10 and p90 differ
// by more than a tenth. x and y are bf16 everywhere.
#define TT_IMPLEMENTATION
#include "../tt.h"
#define TT_CUDA_IMPLEMENTATION
#include "../tt_cuda.h"
#include <math.h>
#include <stdio.h>
#include <time.h>
#ifdef BENCH_CUBLAS
#include <cublas_v2.h>
static cublasHandle_t blas;
#endif

enum { MAX_COPIES = 512, MAX_REPLAYS = 200 };
static cudaStream_t stream;
static tt_cuda_context *gpu;
static size_t cache;

static void must(int good, const char *what) {
  if (good) return;
  printf("failed: %s (CUDA %d)\n", what, (int)cudaGetLastError());
  exit(1);
}
static void *device(size_t size) {
  void *block;
  must(cudaMalloc(&block, size) == cudaSuccess, "cudaMalloc");
  return block;
}
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static uint64_t state = 88172645463325252u;
static float uniform(void) { // -1 .. 1
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (float)(state >> 40) / 8388608.0f - 1;
}
// Random numbers, drawn once and copied from then on.
static void *device_bf16(size_t count) {
  enum { DRAWN = 1 << 22 };
  static void *drawn;
  if (!drawn) {
    uint16_t *host = (uint16_t *)malloc(2 * (size_t)DRAWN);
    for (int i = 0; i < DRAWN; i++) host[i] = (uint16_t)tt_from_f32(TT_BF16, uniform(), 0);
    drawn = device(2 * (size_t)DRAWN);
    must(cudaMemcpy(drawn, host, 2 * (size_t)DRAWN, cudaMemcpyHostToDevice) == cudaSuccess, "copy");
    free(host);
  }
  char *block = (char *)device(count * 2);
  for (size_t at = 0; at < count; at += DRAWN) {
    size_t some = count - at < DRAWN ? count - at : DRAWN;
    must(cudaMemcpy(block + 2 * at, drawn, 2 * some, cudaMemcpyDeviceToDevice) == cudaSuccess,
         "copy");
  }
  return block;
}

// ------------------------------------------------------------------------------------- measuring

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

typedef void (*enqueue)(void *argument, int copy);

// Median seconds of one of `copies` calls, by replays of a graph of all of them, within `budget`
// seconds; spread receives p10 and p90.
static double measure(enqueue run, void *argument, int copies, double budget, double spread[2]) {
  cudaGraph_t graph;
  cudaGraphExec_t ready;
  cudaEvent_t begin, end;
  double times[MAX_REPLAYS], start;
  int count = 0;
  must(cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess, "events");
  must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess, "capture");
  for (int i = 0; i < copies; i++) run(argument, i);
  must(cudaStreamEndCapture(stream, &graph) == cudaSuccess, "end of capture");
  must(cudaGraphInstantiate(&ready, graph, 0) == cudaSuccess, "graph");
  for (int i = 0; i < 3; i++) cudaGraphLaunch(ready, stream);
  must(cudaStreamSynchronize(stream) == cudaSuccess, "warm-up");
  start = now();
  while (count < MAX_REPLAYS && (count < 5 || now() - start < budget)) {
    float ms;
    cudaEventRecord(begin, stream);
    cudaGraphLaunch(ready, stream);
    cudaEventRecord(end, stream);
    must(cudaEventSynchronize(end) == cudaSuccess, "replay");
    cudaEventElapsedTime(&ms, begin, end);
    times[count++] = (double)ms * 1e-3 / copies;
  }
  qsort(times, (size_t)count, sizeof *times, compare);
  spread[0] = times[count / 10];
  spread[1] = times[count * 9 / 10];
  cudaGraphExecDestroy(ready);
  cudaGraphDestroy(graph);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return times[count / 2];
}

static void print_time(double seconds, const double spread[2]) {
  if (seconds < 0)
    printf(" %9s", "-");
  else
    printf(" %8.1f%c", seconds * 1e6, spread[1] - spread[0] > 0.1 * seconds ? '~' : ' ');
}

// ----------------------------------------------------------------------------------------- trains

typedef struct layer {
  tt_matrix host;
  tt_cuda_matrix *copies[MAX_COPIES];
  int count;
  tt_cuda_args args;
  size_t work_size;
  void *work;
} layer;

static void make_layer(const tt_shape *shape, tt_dtype dtype, layer *out) {
  tt_options options;
  tt_matrix plain;
  ptrdiff_t rows = 1, cols = 1;
  memset(&options, 0, sizeof options);
  memset(out, 0, sizeof *out);
  for (int k = 0; k < shape->order; k++) {
    rows *= shape->rows[k];
    cols *= shape->cols[k];
  }
  must(!tt_create(shape, rows, cols, &options, &plain), "tt_create");
  for (int k = 0; k < shape->order; k++) {
    float *core = (float *)tt_core_data(&plain, k);
    ptrdiff_t count =
        (ptrdiff_t)shape->ranks[k] * shape->rows[k] * shape->cols[k] * shape->ranks[k + 1];
    for (ptrdiff_t i = 0; i < count; i++)
      core[i] = uniform() / sqrtf((float)(shape->cols[k] * shape->ranks[k + 1]));
  }
  must(!tt_quantize(&plain, dtype, 0, &options, &out->host, NULL), "tt_quantize");
  tt_free(&plain);
}

static void upload_copies(layer *l, int count) {
  for (; l->count < count; l->count++)
    must(!tt_cuda_upload(gpu, &l->host, &l->copies[l->count], stream), "upload");
}
static void run_layer(void *argument, int copy) {
  layer *l = (layer *)argument;
  must(!tt_cuda_apply_ex(l->copies[copy], &l->args, l->work, l->work_size, stream), "apply");
}

// Relative error of two rows of a batch against the dense matrix in double.
static double layer_error(layer *l, const double *dense) {
  ptrdiff_t rows = l->host.rows, cols = l->host.cols, batch = l->args.batch;
  uint16_t *x = (uint16_t *)malloc((size_t)cols * 2), *y = (uint16_t *)malloc((size_t)rows * 2);
  double error = 0, norm = 0;
  run_layer(l, 0);
  must(cudaStreamSynchronize(stream) == cudaSuccess, "apply");
  for (int pick = 0; pick < 2; pick++) {
    ptrdiff_t b = pick ? batch - 1 : 0;
    must(!cudaMemcpy(x, (const uint16_t *)l->args.d_x + b * cols, (size_t)cols * 2,
                     cudaMemcpyDeviceToHost) &&
             !cudaMemcpy(y, (uint16_t *)l->args.d_y + b * rows, (size_t)rows * 2,
                         cudaMemcpyDeviceToHost),
         "copy");
    for (ptrdiff_t i = 0; i < rows; i++) {
      double sum = 0;
      for (ptrdiff_t j = 0; j < cols; j++)
        sum += dense[i * cols + j] * (double)tt_to_f32(TT_BF16, x[j]);
      error += pow((double)tt_to_f32(TT_BF16, y[i]) - sum, 2);
      norm += sum * sum;
    }
  }
  free(x);
  free(y);
  return sqrt(error / norm);
}

// ----------------------------------------------------------------------------------------- rivals

typedef struct rival { // y = x W^T, or x A^T B^T of this rank
  int rows, cols, rank;
  ptrdiff_t batch;
  void *w, *x, *y, *between;
} rival;

#ifdef BENCH_CUBLAS
static void gemm(int m, int n, int k, const void *a, const void *b,
                 void *c) { // row-major c (n, m) = b a^T
  const float one = 1, zero = 0;
  must(cublasGemmEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, m, n, k, &one, a, CUDA_R_16BF, k, b,
                    CUDA_R_16BF, k, &zero, c, CUDA_R_16BF, m, CUBLAS_COMPUTE_32F,
                    CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS,
       "cublasGemmEx");
}
static void run_dense(void *argument, int copy) {
  rival *r = (rival *)argument;
  gemm(r->rows, (int)r->batch, r->cols,
       (uint16_t *)r->w + (size_t)copy * (size_t)r->rows * (size_t)r->cols, r->x, r->y);
}
static void run_low_rank(void *argument, int copy) {
  rival *r = (rival *)argument;
  uint16_t *w = (uint16_t *)r->w + (size_t)copy * (size_t)r->rank * (size_t)(r->rows + r->cols);
  gemm(r->rank, (int)r->batch, r->cols, w, r->x, r->between);
  gemm(r->rows, (int)r->batch, r->rank, w + (size_t)r->rank * (size_t)r->cols, r->between, r->y);
}
#endif

// Seconds by cuBLAS; rank 0 = dense. -1 without it.
static double time_rival(rival *r, double spread[2]) {
#ifdef BENCH_CUBLAS
  size_t each =
      r->rank ? (size_t)r->rank * (size_t)(r->rows + r->cols) : (size_t)r->rows * (size_t)r->cols;
  int copies = (int)(cache * 4 / (2 * each)) + 1;
  if (copies > MAX_COPIES) copies = MAX_COPIES;
  r->w = device(each * 2 * (size_t)copies);
  void *random = device_bf16(each);
  for (int i = 0; i < copies; i++)
    must(!cudaMemcpy((uint16_t *)r->w + each * (size_t)i, random, each * 2,
                     cudaMemcpyDeviceToDevice),
         "copy");
  r->between = device((size_t)r->batch * (size_t)(r->rank + 1) * 2);
  double seconds = measure(r->rank ? run_low_rank : run_dense, r, copies, 0.05, spread);
  cudaFree(r->w);
  cudaFree(random);
  cudaFree(r->between);
  return seconds;
#else
  (void)r;
  spread[0] = spread[1] = 0;
  return -1;
#endif
}

// ----------------------------------------------------------------------------------------- floors

static void run_copy(void *argument, int copy) {
  char **blocks = (char **)argument;
  must(!cudaMemcpyAsync(blocks[(copy + 1) % 2], blocks[copy % 2], (size_t)1 << 30,
                        cudaMemcpyDeviceToDevice, stream),
       "copy");
}

static void floors(void) {
  double spread[2];
  char *blocks[2] = {(char *)device((size_t)1 << 30), (char *)device((size_t)1 << 30)};
  double seconds = measure(run_copy, blocks, 2, 0.3, spread);
  printf("floor: copy on the device %.2f TB/s (read and written)\n", 2 * 1.073741824e-3 / seconds);
  cudaFree(blocks[0]);
  cudaFree(blocks[1]);
#ifdef BENCH_CUBLAS
  rival big = {8192, 8192, 0, 8192, NULL, device_bf16(8192 * 8192), device((size_t)8192 * 8192 * 2),
               NULL};
  seconds = time_rival(&big, spread);
  printf("floor: cuBLAS bf16, 8192^3 %.0f TFLOP/s\n", 2 * 8192.0 * 8192 * 8192 / seconds * 1e-12);
  cudaFree(big.x);
  cudaFree(big.y);
#else
  printf("skipped: cuBLAS (not found): no dense and no low-rank rivals\n");
#endif
}

// ------------------------------------------------------------------------------------------ table

typedef struct form {
  const char *name;
  tt_shape shape;
} form;

static const char *dtype_name(tt_dtype dtype) {
  static const char *const names[] = {"f32",  "f64", "f16", "bf16", "e4m3",
                                      "e5m2", "i8",  "i4",  "i3",   "i2"};
  return names[dtype];
}

// One line for each batch.
static void bench_form(const form *f, tt_dtype dtype, const ptrdiff_t *batches, int count) {
  static layer l;
  make_layer(&f->shape, dtype, &l);
  int rows = (int)l.host.rows, cols = (int)l.host.cols;
  double params = 0;
  for (int k = 0; k < f->shape.order; k++)
    params +=
        (double)f->shape.ranks[k] * f->shape.rows[k] * f->shape.cols[k] * f->shape.ranks[k + 1];
  int rank = (int)(params / (rows + cols) + 0.5);
  double *dense = (double *)malloc(sizeof(double) * (size_t)rows * (size_t)cols);
  must(dense && !tt_expand_f64(&l.host, dense), "tt_expand_f64");
  printf("\n%s, %s: %.0f parameters, dense / %.0f; low rank of as many: %d\n", f->name,
         dtype_name(dtype), params, (double)rows * cols / params, rank);
  printf("%6s %9s %9s %9s %7s %9s %9s  %8s %8s %9s %8s %8s\n", "batch", "fused", "chain", "dense",
         "chosen", "cuBLAS", "low rank", "x dense", "x lowr", "GFLOP/s", "GB/s", "error");
  for (int b = 0; b < count; b++) {
    ptrdiff_t batch = batches[b];
    double seconds[4] = {-1, -1, -1, -1}, spread[4][2], best = -1, rivals[2], rival_spread[2][2];
    tt_cuda_plan plan, chosen;
    memset(&l.args, 0, sizeof l.args);
    l.args.batch = batch;
    l.args.dtype = TT_BF16;
    l.args.d_x = device_bf16((size_t)(batch * cols));
    l.args.d_y = device((size_t)batch * (size_t)rows * 2);
    upload_copies(&l, 1);
    must(!tt_cuda_plan_apply(l.copies[0], &l.args, &chosen), "plan");
    double bytes = chosen.bytes - 2.0 * (double)batch * (rows + cols);
    int copies = (int)((double)cache * 4 / bytes) + 1;
    if (copies > (batch <= 16 ? MAX_COPIES : 8)) copies = batch <= 16 ? MAX_COPIES : 8;
    upload_copies(&l, copies);
    double error = 0;
    for (int path = TT_CUDA_FUSED; path <= TT_CUDA_DENSE; path++) {
      l.args.path = path;
      if (tt_cuda_plan_apply(l.copies[0], &l.args, &plan)) continue;
      if (plan.seconds > 0.02) continue; // hopeless: leave the time to the others
      l.work_size = plan.work_size;
      l.work = device(plan.work_size + 1);
      seconds[path] = measure(run_layer, &l, copies, 0.05, spread[path]);
      double off = layer_error(&l, dense);
      if (off > error || off != off) error = off;
      cudaFree(l.work);
    }
    best = seconds[chosen.path];
    rival d = {rows, cols, 0, batch, NULL, (void *)l.args.d_x, l.args.d_y, NULL}, low = d;
    low.rank = rank;
    rivals[0] = time_rival(&d, rival_spread[0]);
    rivals[1] = time_rival(&low, rival_spread[1]);
    printf("%6d", (int)batch);
    for (int path = TT_CUDA_FUSED; path <= TT_CUDA_DENSE; path++)
      print_time(seconds[path], spread[path]);
    printf(" %7s", chosen.path == TT_CUDA_FUSED   ? "fused"
                   : chosen.path == TT_CUDA_CHAIN ? "chain"
                                                  : "dense");
    print_time(rivals[0], rival_spread[0]);
    print_time(rivals[1], rival_spread[1]);
    printf("  %8.2f %8.2f %9.0f %8.0f %8.1e\n", rivals[0] / best, rivals[1] / best,
           2.0 * (double)tt_apply_macs(&l.host, batch) / best * 1e-9, chosen.bytes / best * 1e-9,
           error);
    fflush(stdout);
    cudaFree((void *)l.args.d_x);
    cudaFree(l.args.d_y);
  }
  for (int i = 0; i < l.count; i++) tt_cuda_free(l.copies[i]);
  tt_free(&l.host);
  free(dense);
}

// Every layout of the fused kernel: what the planner expects of it, and what it takes.
typedef struct layout {
  layer *l;
  tt__cuda_way way;
} layout;
static void run_layout(void *argument, int copy) {
  layout *f = (layout *)argument;
  must(!tt__cuda_run_fused(f->l->copies[copy], &f->l->args, &f->way, stream), "fused");
}
static void bench_layouts(const form *f) {
  static const int batches[] = {1, 8, 32, 256};
  static layer l;
  static layout one;
  make_layer(&f->shape, TT_BF16, &l);
  upload_copies(&l, 8);
  printf("\nlayouts of the fused kernel, %s: batch tile chunk part: expected, measured us\n",
         f->name);
  for (int b = 0; b < 4; b++) {
    memset(&l.args, 0, sizeof l.args);
    l.args.batch = batches[b];
    l.args.dtype = TT_BF16;
    l.args.d_x = device_bf16((size_t)(batches[b] * l.host.cols));
    l.args.d_y = device((size_t)(batches[b] * l.host.rows) * 2);
    must(!tt__cuda_args_check(l.copies[0], &l.args), "arguments");
    for (int tile = 1; tile <= 16 && tile < 2 * batches[b]; tile *= 2)
      for (int chunk = 1; chunk <= 16; chunk *= 2) {
        int part = f->shape.cols[0];
        double spread[2];
        one.l = &l;
        do {
          one.way.shared = tt__cuda_fused_layout(l.copies[0], tile, chunk, part, &one.way.fused);
          if (one.way.shared && one.way.shared <= gpu->shared) break;
        } while ((part /= 2) > 0);
        if (!part) continue;
        double expected =
            tt__cuda_fused_time(l.copies[0], &one.way.fused, batches[b], one.way.shared);
        printf(" %d/%d/%d/%d: %.1f %.1f;", batches[b], tile, chunk, part, expected,
               measure(run_layout, &one, 8, 0.005, spread) * 1e6);
      }
    printf("\n");
    cudaFree((void *)l.args.d_x);
    cudaFree(l.args.d_y);
  }
  for (int i = 0; i < l.count; i++) tt_cuda_free(l.copies[i]);
  tt_free(&l.host);
}

// What one call costs without a graph, and the planning in it.
static void bench_calls(const form *f) {
  static layer l;
  make_layer(&f->shape, TT_BF16, &l);
  upload_copies(&l, 1);
  l.args.batch = 1;
  l.args.dtype = TT_BF16;
  l.args.d_x = device_bf16((size_t)l.host.cols);
  l.args.d_y = device((size_t)l.host.rows * 2);
  tt_cuda_plan plan;
  double start = now();
  for (int i = 0; i < 1000; i++) must(!tt_cuda_plan_apply(l.copies[0], &l.args, &plan), "plan");
  double planning = (now() - start) / 1000;
  run_layer(&l, 0);
  cudaStreamSynchronize(stream);
  start = now();
  for (int i = 0; i < 1000; i++) run_layer(&l, 0);
  double called = (now() - start) / 1000;
  must(cudaStreamSynchronize(stream) == cudaSuccess, "calls");
  double finished = (now() - start) / 1000;
  printf("\none call (%s, batch 1) without a graph: planning %.2f us, returns after %.2f us, back "
         "to back %.2f us\n",
         f->name, planning * 1e6, called * 1e6, finished * 1e6);
}

// Gradients, batches of SVDs, and TT-SVD of a whole matrix.
typedef struct backward {
  tt_cuda_matrix *w, *grad;
  float *x, *dy, *dx;
  ptrdiff_t batch;
  void *work;
  size_t work_size;
} backward;
static void run_backward(void *argument, int copy) {
  const backward *f = (const backward *)argument;
  (void)copy;
  must(
      !tt_cuda_backward(f->w, f->x, f->dy, f->batch, f->dx, f->grad, f->work, f->work_size, stream),
      "tt_cuda_backward");
}
static void bench_backward(const form *f, ptrdiff_t batch) {
  layer l;
  backward run;
  double spread[2];
  make_layer(&f->shape, TT_F32, &l);
  run.batch = batch;
  must(!tt_cuda_upload(gpu, &l.host, &run.w, stream), "upload");
  must(!tt_cuda_upload(gpu, &l.host, &run.grad, stream), "upload");
  must(!tt_cuda_clear(run.grad, stream), "clear");
  run.work_size = tt_cuda_backward_work_size(run.w, batch);
  run.work = device(run.work_size);
  run.x = (float *)device((size_t)(batch * l.host.cols) * 4);
  run.dx = (float *)device((size_t)(batch * l.host.cols) * 4);
  run.dy = (float *)device((size_t)(batch * l.host.rows) * 4);
  cudaMemset(run.x, 0, (size_t)(batch * l.host.cols) * 4); // the time does not depend on numbers
  cudaMemset(run.dy, 0, (size_t)(batch * l.host.rows) * 4);
  double seconds = measure(run_backward, &run, 1, 0.1, spread);
  printf("backward, %s, batch %d, F32: %.1f us, %.0f GFLOP/s\n", f->name, (int)batch, seconds * 1e6,
         6.0 * (double)tt_apply_macs(&l.host, batch) / seconds * 1e-9);
  cudaFree(run.work);
  cudaFree(run.x);
  cudaFree(run.dx);
  cudaFree(run.dy);
  tt_cuda_free(run.w);
  tt_cuda_free(run.grad);
  tt_free(&l.host);
}

typedef struct svds {
  float *a, *u, *s, *vt;
  int count, side, *sweeps;
  void *work;
  size_t work_size;
} svds;
static void run_svds(void *argument, int copy) {
  const svds *f = (const svds *)argument;
  (void)copy;
  must(!tt_cuda_svd_batched(gpu, f->a, f->count, f->side, f->side, f->u, f->s, f->vt, f->sweeps,
                            f->work, f->work_size, stream),
       "tt_cuda_svd_batched");
}
static float *device_floats(size_t count) { // random
  float *host = (float *)malloc(count * 4), *block = (float *)device(count * 4);
  for (size_t i = 0; i < count; i++) host[i] = uniform();
  must(cudaMemcpy(block, host, count * 4, cudaMemcpyHostToDevice) == cudaSuccess, "copy");
  free(host);
  return block;
}
static void bench_svds(int count, int side) {
  svds run;
  double spread[2];
  size_t size = (size_t)count * (size_t)side * (size_t)side;
  int sweeps = 0;
  run.count = count;
  run.side = side;
  run.a = device_floats(size);
  run.u = (float *)device(size * 4);
  run.vt = (float *)device(size * 4);
  run.s = (float *)device((size_t)(count * side) * 4);
  run.sweeps = (int *)device((size_t)count * 4);
  run.work_size = tt_cuda_svd_batched_work_size(gpu, count, side, side);
  run.work = device(run.work_size);
  double seconds = measure(run_svds, &run, 1, 0.1, spread);
  must(cudaMemcpy(&sweeps, run.sweeps, 4, cudaMemcpyDeviceToHost) == cudaSuccess, "copy");
  printf("%d SVDs of %d x %d: %.1f us, %d sweeps\n", count, side, side, seconds * 1e6, sweeps);
  cudaFree(run.a);
  cudaFree(run.u);
  cudaFree(run.vt);
  cudaFree(run.s);
  cudaFree(run.sweeps);
  cudaFree(run.work);
}

static void bench_compress(const form *f, int method, const char *by) {
  tt_options options;
  tt_report report;
  tt_matrix made;
  memset(&options, 0, sizeof options);
  options.method = method;
  ptrdiff_t rows = 1, cols = 1;
  for (int k = 0; k < f->shape.order; k++) {
    rows *= f->shape.rows[k];
    cols *= f->shape.cols[k];
  }
  float *w = device_floats((size_t)(rows * cols));
  double best = 0;
  for (int i = 0; i < 3; i++) { // the first warms up
    double start = now();
    must(!tt_cuda_compress(gpu, w, rows, cols, &f->shape, &options, &made, &report, stream),
         "tt_cuda_compress");
    double took = now() - start;
    if (i == 1 || took < best) best = took;
    tt_free(&made);
  }
  printf("compress, %s, %s: %.1f ms, error %.6f\n", f->name, by, best * 1e3, report.relative_error);
  cudaFree(w);
}

int main(int argc, char **argv) {
  static const ptrdiff_t batches[] = {1, 8, 64, 256, 2048}, few[] = {1, 16, 256};
  static const form forms[] = {
      {"4096 x 4096, 64 x 64, rank 8", {2, {64, 64}, {64, 64}, {1, 8, 1}}},
      {"4096 x 4096, 64 x 64, rank 16", {2, {64, 64}, {64, 64}, {1, 16, 1}}},
      {"4096 x 4096, 64 x 64, rank 32", {2, {64, 64}, {64, 64}, {1, 32, 1}}},
      {"4096 x 4096, 16 x 16 x 16, rank 16", {3, {16, 16, 16}, {16, 16, 16}, {1, 16, 16, 1}}},
      {"4096 x 4096, low rank 16", {2, {4096, 1}, {1, 4096}, {1, 16, 1}}},
      {"11008 x 4096, 128 86 x 64 64, rank 16", {2, {128, 86}, {64, 64}, {1, 16, 1}}}};
  struct cudaDeviceProp about;
  tt_status status = tt_cuda_create(0, NULL, &gpu);
  if (status == TT_ERROR_UNSUPPORTED) {
    printf("gpu: not present, bench not run\n");
    return 0;
  }
  must(!status && !cudaGetDeviceProperties(&about, 0) && !cudaStreamCreate(&stream), "device");
  cache = (size_t)about.l2CacheSize;
  int driver = 0;
  cudaDriverGetVersion(&driver);
  printf("gpu: %s, %d multiprocessors, %.0f MB cache, driver for CUDA %d.%d; microseconds, median; "
         "~ = p10 and p90 "
         "differ by more than a tenth\n",
         about.name, about.multiProcessorCount, (double)cache / 1048576, driver / 1000,
         driver % 1000 / 10);
#ifdef BENCH_CUBLAS
  must(cublasCreate(&blas) == CUBLAS_STATUS_SUCCESS &&
           cublasSetStream(blas, stream) == CUBLAS_STATUS_SUCCESS,
       "cuBLAS");
  // graphs must not allocate: the workspace is ours
  must(cublasSetWorkspace(blas, device((size_t)64 << 20), (size_t)64 << 20) ==
           CUBLAS_STATUS_SUCCESS,
       "workspace");
#endif
  floors();
  bench_calls(&forms[1]);
  int all = argc < 2 || strcmp(argv[1], "quick") != 0;
  static const tt_dtype others[] = {TT_F32, TT_I8, TT_I4};
  if (all) bench_layouts(&forms[1]);
  if (all) bench_layouts(&forms[3]);
  for (int i = 0; i < (int)(sizeof forms / sizeof *forms); i++)
    if (all || i == 1) bench_form(&forms[i], TT_BF16, all ? batches : few, all ? 5 : 3);
  for (int i = 0; all && i < 3; i++) bench_form(&forms[1], others[i], few, 3);
  static const form squares = {"1024 x 1024, 32 x 32, rank 16",
                               {2, {32, 32}, {32, 32}, {1, 16, 1}}};
  printf("\n");
  bench_backward(&forms[1], 256);
  bench_svds(1024, 16);
  bench_svds(264, 64);
  bench_svds(132, 128);
  bench_compress(&squares, TT_SVD_GRAM, "Gram matrix, eigenvalues on the host");
  bench_compress(&squares, TT_SVD_AUTO, "sketch");
  bench_compress(&forms[1], TT_SVD_AUTO, "sketch");
  tt_cuda_destroy(gpu);
  return 0;
}
