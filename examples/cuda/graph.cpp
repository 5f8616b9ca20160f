// Several layers as one CUDA graph: their launches are recorded once and replayed for every token.
// Small products are bound by the cost of launching them; a graph launches all of them in one call.
//   nvcc -x cu -std=c++14 -O2 -arch=native -I.. cuda/graph.cpp -o build/cuda_graph
//   ./build/cuda_graph
// Without a GPU the kernels run emulated on the CPU, and the program says so:
//   g++ -std=c++14 -O2 -DTT_CUDA_EMU -include ../tests/cudaemu.h -I.. cuda/graph.cpp
//       ../tests/cudaemu.cpp -o build/cuda_graph
// make -C examples cuda takes what there is. Expected output: what is in the graph, on a GPU the
// microseconds of both ways, and "check: ok".
#define TT_IMPLEMENTATION
#include "tt.h"
#define TT_CUDA_IMPLEMENTATION
#include "tt_cuda.h"

enum { LAYERS = 8, TOKENS = 3, REPEATS = 200 };

static void must(int error, const char *what) { // tt_status and cudaError_t: 0 is good
  if (!error) return;
  fprintf(stderr, "%s: error %d\n", what, error);
  exit(1);
}

// A token goes through all layers, to and fro between two buffers; it ends in x[0].
static void run_layers(tt_cuda_matrix *const *layers, float *const *x, void *work, size_t work_size,
                       cudaStream_t stream) {
  for (int i = 0; i < LAYERS; i++)
    must(tt_cuda_apply(layers[i], x[i % 2], 1, x[1 - i % 2], work, work_size, stream),
         "tt_cuda_apply");
}

#ifdef TT_CUDA_EMU
#define TIMES 0 // the emulation measures nothing
#else
#define TIMES 1
// Microseconds of one token, as launches (graph NULL) or as a graph.
static double microseconds(cudaGraphExec_t graph, tt_cuda_matrix *const *layers, float *const *x,
                           void *work, size_t work_size, cudaStream_t stream) {
  cudaEvent_t begin, end;
  float milliseconds = 0;
  must(cudaEventCreate(&begin), "cudaEventCreate");
  must(cudaEventCreate(&end), "cudaEventCreate");
  must(cudaEventRecord(begin, stream), "cudaEventRecord");
  for (int i = 0; i < REPEATS; i++) {
    if (graph)
      must(cudaGraphLaunch(graph, stream), "cudaGraphLaunch");
    else
      run_layers(layers, x, work, work_size, stream);
  }
  must(cudaEventRecord(end, stream), "cudaEventRecord");
  must(cudaEventSynchronize(end), "cudaEventSynchronize");
  must(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return (double)milliseconds * 1e3 / REPEATS;
}
#endif

int main(void) {
  const int side = TIMES ? 1024 : 64, factor = TIMES ? 32 : 8; // the emulation takes its time
  tt_shape shape = {2, {factor, factor}, {factor, factor}, {1, 8, 1}};
  tt_cuda_context *gpu;
  tt_cuda_matrix *layers[LAYERS];
  cudaStream_t stream;
  cudaGraph_t recorded;
  cudaGraphExec_t graph;
  float *x[2];
  void *work;
  size_t size = (size_t)side * sizeof(float), work_size = 1;
  must(tt_cuda_create(0, NULL, &gpu), "tt_cuda_create");
  must(cudaStreamCreate(&stream), "cudaStreamCreate");
  for (int i = 0; i < LAYERS; i++) {
    tt_matrix w;
    must(tt_create(&shape, side, side, NULL, &w), "tt_create");
    must(tt_randomize(&w, (unsigned)i), "tt_randomize");
    must(tt_cuda_upload(gpu, &w, &layers[i], stream), "tt_cuda_upload");
    tt_free(&w);
    size_t need = tt_cuda_apply_work_size(layers[i], 1);
    work_size = need > work_size ? need : work_size;
  }
  for (int i = 0; i < 2; i++) must(cudaMalloc(&x[i], size), "cudaMalloc");
  must(cudaMalloc(&work, work_size), "cudaMalloc");

  // Nothing runs while the stream is captured: the calls are recorded with all their arguments.
  must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  run_layers(layers, x, work, work_size, stream);
  must(cudaStreamEndCapture(stream, &recorded), "cudaStreamEndCapture");
  must(cudaGraphInstantiate(&graph, recorded, 0), "cudaGraphInstantiate");
  must(cudaGraphDestroy(recorded), "cudaGraphDestroy");
  printf("%s: %d layers of %d x %d in one graph\n", TIMES ? "on the GPU" : "no GPU, emulated",
         LAYERS, side, side);

  int good = 1;
  float *token = (float *)malloc(size), *replayed = (float *)malloc(size);
  float *launched = (float *)malloc(size);
  if (!token || !replayed || !launched) must(TT_ERROR_MEMORY, "malloc");
  for (int t = 0; t < TOKENS; t++) { // other tokens, the same graph
    for (int i = 0; i < side; i++) token[i] = (float)((i * 37 + t * 11) % 101 - 50) / 50;
    must(cudaMemcpyAsync(x[0], token, size, cudaMemcpyHostToDevice, stream), "copy");
    must(cudaGraphLaunch(graph, stream), "cudaGraphLaunch");
    must(cudaMemcpyAsync(replayed, x[0], size, cudaMemcpyDeviceToHost, stream), "copy");
    must(cudaMemcpyAsync(x[0], token, size, cudaMemcpyHostToDevice, stream), "copy");
    run_layers(layers, x, work, work_size, stream);
    must(cudaMemcpyAsync(launched, x[0], size, cudaMemcpyDeviceToHost, stream), "copy");
    must(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    int same = !memcmp(replayed, launched, size) && memcmp(replayed, token, size);
    printf("token %d: graph and launches %s\n", t, same ? "give the same bits" : "DIFFER");
    good &= same;
  }
#if TIMES
  for (int pass = 0; pass < 2; pass++) // the first pass warms up
    for (int as_graph = 0; as_graph < 2; as_graph++) {
      double took = microseconds(as_graph ? graph : NULL, layers, x, work, work_size, stream);
      if (pass) printf("%-12s %7.1f us a token\n", as_graph ? "one graph" : "launches", took);
    }
#endif
  must(cudaGraphExecDestroy(graph), "cudaGraphExecDestroy");
  for (int i = 0; i < 2; i++) cudaFree(x[i]);
  cudaFree(work);
  for (int i = 0; i < LAYERS; i++) tt_cuda_free(layers[i]);
  cudaStreamDestroy(stream);
  tt_cuda_destroy(gpu);
  free(token);
  free(replayed);
  free(launched);
  printf("check: %s\n", good ? "ok" : "FAILED");
  return !good;
}
