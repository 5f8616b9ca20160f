// The digit classifier of 02_digits.c with both layers on the GPU: dense, as a plain train and as a
// TT-matrix, in several storage formats. Every answer must be that of tt_apply on the CPU.
//   nvcc -x cu -std=c++14 -O2 -arch=native -I.. cuda/digits.cpp -o build/cuda_digits
//   ./build/cuda_digits [data/digits.safetensors]
// Without a GPU the kernels run emulated on the CPU, and the program says so:
//   g++ -std=c++14 -O2 -DTT_CUDA_EMU -include ../tests/cudaemu.h -I.. cuda/digits.cpp
//       ../tests/cudaemu.cpp -o build/cuda_digits
// make -C examples cuda takes what there is. Expected output: a table, and "check: ok".
#define TT_IMPLEMENTATION
#include "tt.h"
#define TT_CUDA_IMPLEMENTATION
#include "tt_cuda.h"
#include "../digits.h"

static tt_cuda_context *gpu;
static cudaStream_t stream;

static void must_cuda(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  exit(1);
}

// y = x W^T for all images, on the device; returns the way it took.
static tt_cuda_path run_on_device(const tt_matrix *w, const float *x, float *y) {
  size_t x_size = sizeof(float) * TESTS * (size_t)w->cols;
  size_t y_size = sizeof(float) * TESTS * (size_t)w->rows;
  tt_cuda_matrix *d_w;
  float *d_x, *d_y;
  void *d_work;
  tt_cuda_plan plan;
  tt_cuda_args args;
  memset(&args, 0, sizeof args);
  args.batch = TESTS;
  must(tt_cuda_upload(gpu, w, &d_w, stream), "tt_cuda_upload");
  must(tt_cuda_plan_apply(d_w, &args, &plan), "tt_cuda_plan_apply");
  size_t work_size = tt_cuda_apply_work_size(d_w, TESTS);
  must_cuda(cudaMalloc(&d_x, x_size), "cudaMalloc");
  must_cuda(cudaMalloc(&d_y, y_size), "cudaMalloc");
  must_cuda(cudaMalloc(&d_work, work_size), "cudaMalloc");
  must_cuda(cudaMemcpyAsync(d_x, x, x_size, cudaMemcpyHostToDevice, stream), "copy");
  must(tt_cuda_apply(d_w, d_x, TESTS, d_y, d_work, work_size, stream), "tt_cuda_apply");
  must_cuda(cudaMemcpyAsync(y, d_y, y_size, cudaMemcpyDeviceToHost, stream), "copy");
  must_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  cudaFree(d_x);
  cudaFree(d_y);
  cudaFree(d_work);
  tt_cuda_free(d_w);
  return plan.path;
}

static void relu(const float *bias, float *layer) {
  for (int i = 0; i < TESTS * HIDDEN; i++) {
    layer[i] += bias[i % HIDDEN];
    if (layer[i] < 0) layer[i] = 0;
  }
}

static void answers(const float *logits, unsigned char *answer) {
  for (int i = 0; i < TESTS; i++) {
    answer[i] = 0;
    for (int c = 1; c < CLASSES; c++)
      if (logits[i * CLASSES + c] > logits[i * CLASSES + answer[i]]) answer[i] = (unsigned char)c;
  }
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    tt_shape shape;
    int rank;
    tt_dtype dtype;
  } layers[] = {
      {"dense, F32", {1, {64}, {64}, {1, 1}}, 0, TT_F32},
      {"dense, INT8", {1, {64}, {64}, {1, 1}}, 0, TT_I8},
      {"plain train, F32, rank 8", {4, {1, 1, 4, 16}, {4, 16, 1, 1}, {1, 0, 0, 0, 1}}, 8, TT_F32},
      {"plain train, INT4, rank 8", {4, {1, 1, 4, 16}, {4, 16, 1, 1}, {1, 0, 0, 0, 1}}, 8, TT_I4},
      {"TT-matrix, F16, rank 16", {3, {4, 4, 4}, {4, 4, 4}, {1, 0, 0, 1}}, 16, TT_F16}};
  static const char *const paths[] = {"", "fused", "chain", "dense"};
  static float weights[HIDDEN * PIXELS], bias[HIDDEN], images[TESTS * PIXELS];
  static float here[TESTS * HIDDEN], there[TESTS * HIDDEN], logits[2][TESTS * CLASSES];
  static unsigned char labels[TESTS], answer[2][TESTS];
  tt_file *file;
  tt_matrix last;
  int all_same = 1;
  must(tt_cuda_create(0, NULL, &gpu), "tt_cuda_create");
  must_cuda(cudaStreamCreate(&stream), "cudaStreamCreate");
  must(tt_file_open(argc > 1 ? argv[1] : "data/digits.safetensors", NULL, &file),
       "digits.safetensors");
  must(tt_file_matrix(file, "fc2", NULL, &last), "fc2");
  must(tt_file_read_f32(file, find(file, "fc1.weight"), weights, HIDDEN * PIXELS), "fc1.weight");
  must(tt_file_read_f32(file, find(file, "fc1.bias"), bias, HIDDEN), "fc1.bias");
  must(tt_file_read_f32(file, find(file, "test.images"), images, TESTS * PIXELS), "test.images");
  must(tt_file_read(file, find(file, "test.labels"), 0, labels, TESTS), "test.labels");
  tt_file_close(file);
  for (int i = 0; i < TESTS * PIXELS; i++) images[i] /= 16;
#ifdef TT_CUDA_EMU
  printf("no GPU: the kernels run emulated on the CPU\n");
#else
  struct cudaDeviceProp about;
  must_cuda(cudaGetDeviceProperties(&about, 0), "cudaGetDeviceProperties");
  printf("on %s\n", about.name);
#endif
  printf("%-28s %8s %9s %10s\n", "first layer", "way", "correct", "as on CPU");
  for (int i = 0; i < (int)(sizeof layers / sizeof *layers); i++) {
    tt_options options;
    tt_matrix train, w;
    int correct = 0, same = 0;
    memset(&options, 0, sizeof options);
    options.max_rank = layers[i].rank;
    must(tt_compress(weights, HIDDEN, PIXELS, &layers[i].shape, &options, &train, NULL),
         "tt_compress");
    must(tt_quantize(&train, layers[i].dtype, 0, NULL, &w, NULL), "tt_quantize");
    tt_cuda_path path = run_on_device(&w, images, there);
    relu(bias, there);
    run_on_device(&last, there, logits[0]);
    run(&w, images, TESTS, here);
    relu(bias, here);
    run(&last, here, TESTS, logits[1]);
    answers(logits[0], answer[0]);
    answers(logits[1], answer[1]);
    for (int t = 0; t < TESTS; t++) {
      correct += answer[0][t] == labels[t];
      same += answer[0][t] == answer[1][t];
    }
    printf("%-28s %8s %5d/%d %6d/%d\n", layers[i].name, paths[path], correct, TESTS, same, TESTS);
    all_same &= same == TESTS;
    tt_free(&train);
    tt_free(&w);
  }
  tt_free(&last);
  cudaStreamDestroy(stream);
  tt_cuda_destroy(gpu);
  printf("check: %s\n", all_same ? "ok" : "FAILED");
  return !all_same;
}
