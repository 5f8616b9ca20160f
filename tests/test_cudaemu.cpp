// Tests of the emulation that the CUDA tests stand on: right programs run right in every order, and
// every error that cudaemu.h claims to find is planted and found.
//   test_cudaemu              all of them but the races
//   test_cudaemu race NAME    runs one planted race, for the thread sanitizer to find; "none" has
//   none
#include "test.h"

#include <sys/wait.h>
#include <unistd.h>

#define LAUNCH(kernel, grid, block, shared, stream, ...)                                           \
  emu_launch(#kernel, kernel, dim3 grid, dim3 block, (size_t)(shared), stream, __VA_ARGS__)

enum { MANY = 4096 };

template <class T> static T *device(ptrdiff_t count) {
  T *block = nullptr;
  CHECK(cudaMalloc(&block, (size_t)count * sizeof(T)) == cudaSuccess);
  return block;
}
template <class T> static void fetch(T *to, const T *from, ptrdiff_t count) {
  CHECK(cudaMemcpy(to, from, (size_t)count * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
}

// ---------------------------------------------------------------------------------- right programs

static void k_indices(int *out) {
  unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  out[block * threads + thread] = (int)(block * 1000 + thread);
}

static void test_indices() {
  static int got[MANY];
  int *out = device<int>(MANY), right = 1;
  CHECK(LAUNCH(k_indices, (3, 2, 2), (5, 3, 2), 0, nullptr, out) == cudaSuccess);
  fetch(got, out, 12 * 30);
  for (int i = 0; i < 360; i++) right &= got[i] == i / 30 * 1000 + i % 30;
  CHECK(right);
  cudaFree(out);
}

// Each round every thread reads what another one wrote in the round before.
static void k_rounds(int *out, int rounds) {
  __shared__ int values[2][96];
  int self = (int)threadIdx.x, count = (int)blockDim.x;
  values[0][self] = self;
  for (int i = 0; i < rounds; i++) {
    __syncthreads();
    values[(i + 1) & 1][self] = values[i & 1][(self + 7) % count] + 1;
  }
  out[(int)blockIdx.x * count + self] = values[rounds & 1][self];
}

static void test_barriers() {
  static int got[MANY];
  int *out = device<int>(MANY), right = 1, rounds = 11;
  CHECK(LAUNCH(k_rounds, (4), (96), 0, nullptr, out, rounds) == cudaSuccess);
  fetch(got, out, 4 * 96);
  for (int i = 0; i < 4 * 96; i++) right &= got[i] == (i % 96 + 7 * rounds) % 96 + rounds;
  CHECK(right);
  cudaFree(out);
}

// Shuffles and votes, also of half a warp, of a warp that the block does not fill, and after lanes
// have drifted apart.
static void k_warp(int *out) {
  int lane = (int)threadIdx.x % 32, sum = lane, self = (int)threadIdx.x;
  unsigned mask = self < 32 ? 0xffffffffu : 0xffu;
  int *row = out + self * 8;
  for (int bits = self < 32 ? 16 : 4; bits; bits /= 2) sum += __shfl_xor_sync(mask, sum, bits);
  row[0] = sum;
  row[1] = __shfl_sync(mask, lane * 3, 5);
  row[2] = (int)__ballot_sync(mask, lane % 3 == 0);
  row[3] = __shfl_down_sync(mask, lane, 32); // beyond the warp: one's own value
  unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  if (self < 32) {
    int value = lane;
    if (lane < 16)
      for (int i = 0; i < 20; i++) value += __shfl_xor_sync(half, value, 1) & 1;
    else
      value += __shfl_xor_sync(half, value, 1);
    row[4] = value;
  }
  __syncwarp(mask);
  row[5] = (int)__ballot_sync(mask, 1);
}

static void test_warps() {
  static int got[40 * 8];
  int *out = device<int>(40 * 8), right = 1;
  CHECK(LAUNCH(k_warp, (1), (40), 0, nullptr, out) == cudaSuccess);
  fetch(got, out, 40 * 8);
  for (int i = 0; i < 40; i++) {
    int *row = got + i * 8, lane = i % 32;
    right &= row[0] == (i < 32 ? 496 : 28) && row[1] == 15 && row[3] == lane;
    right &= row[2] == (i < 32 ? 0x49249249 : 0x49) && row[5] == (i < 32 ? -1 : 0xff);
    if (i < 32 && i >= 16) right &= row[4] == lane + (lane ^ 1);
  }
  CHECK(right);
  int a = 0, b = 1; // the loop of lanes 0 and 1, by hand
  for (int i = 0; i < 20; i++) {
    int from_b = b & 1, from_a = a & 1;
    a += from_b;
    b += from_a;
  }
  CHECK(got[4] == a && got[8 + 4] == b);
  cudaFree(out);
}

static void k_poison(int *out, const int *never_written) {
  int *shared = (int *)(void *)emu::the_block->dynamic;
  out[threadIdx.x] = shared[threadIdx.x] == -1 && never_written[threadIdx.x] == -1;
}

static void test_poison() {
  int got[32], right = 1, *out = device<int>(32), *blank = device<int>(32);
  CHECK(LAUNCH(k_poison, (1), (32), 128, nullptr, out, blank) == cudaSuccess);
  fetch(got, out, 32);
  for (int i = 0; i < 32; i++) right &= got[i] == 1;
  CHECK(right);
  cudaFree(out);
  cudaFree(blank);
}

static void k_increment(int *out) { out[threadIdx.x]++; }

static void test_streams() {
  int host[32] = {0}, early[32], *out = device<int>(32);
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream) == cudaSuccess);
  CHECK(cudaMemcpy(out, host, sizeof host, cudaMemcpyHostToDevice) == cudaSuccess);
  CHECK(LAUNCH(k_increment, (1), (32), 0, stream, out) == cudaSuccess);
  fetch(early, out, 32); // another stream: nothing has run yet
  CHECK(early[3] == 0);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  fetch(early, out, 32);
  CHECK(early[3] == 1);
  CHECK(cudaMemcpy(out, host, sizeof host, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(host, out, sizeof host, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(host, out, sizeof host + 4, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  CHECK(cudaFree(host) == cudaErrorInvalidValue);
  cudaFree(out);
}

static void test_graphs() {
  int got[32] = {0}, *out = device<int>(32);
  void *block = nullptr;
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t ready;
  CHECK(cudaStreamCreate(&stream) == cudaSuccess);
  CHECK(cudaMemcpy(out, got, sizeof got, cudaMemcpyHostToDevice) == cudaSuccess);
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
  CHECK(LAUNCH(k_increment, (1), (32), 0, stream, out) == cudaSuccess);
  CHECK(cudaMalloc(&block, 4) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaFree(out) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaDeviceSynchronize() == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(cudaGraphInstantiate(&ready, graph, 0) == cudaSuccess);
  for (int i = 0; i < 3; i++) CHECK(cudaGraphLaunch(ready, stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  fetch(got, out, 32);
  CHECK(got[31] == 3); // captured, not run; then replayed three times
  CHECK(cudaGraphExecDestroy(ready) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  cudaFree(out);
}

static void test_limits() {
  int *out = device<int>(32);
  CHECK(LAUNCH(k_increment, (1), (1025), 0, nullptr, out) == cudaErrorInvalidConfiguration);
  CHECK(LAUNCH(k_increment, (1), (1, 1, 65), 0, nullptr, out) == cudaErrorInvalidConfiguration);
  CHECK(LAUNCH(k_increment, (1, 65536), (1), 0, nullptr, out) == cudaErrorInvalidConfiguration);
  CHECK(LAUNCH(k_increment, (0), (1), 0, nullptr, out) == cudaErrorInvalidConfiguration);
  CHECK(LAUNCH(k_increment, (1), (1), 65536, nullptr, out) == cudaErrorInvalidConfiguration);
  CHECK(cudaFuncSetAttribute((const void *)k_increment, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             1 << 20) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute((const void *)k_increment, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             65536) == cudaSuccess);
  CHECK(LAUNCH(k_increment, (1), (1), 65536, nullptr, out) == cudaSuccess);
  emu::fail_alloc_at = 2;
  int *first = device<int>(1), *second = nullptr;
  CHECK(cudaMalloc(&second, 4) == cudaErrorMemoryAllocation && !second);
  emu::fail_launch_at = 1;
  CHECK(LAUNCH(k_increment, (1), (1), 0, nullptr, out) == cudaErrorLaunchFailure);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  cudaFree(first);
  cudaFree(out);
}

// ---------------------------------------------------------------------------------- planted errors

// Keeps a compiler from merging the two branches that it stands in.
#define BRANCH(text) asm volatile("# " text)
static void k_two_barriers(int *) {
  if (threadIdx.x < 32) {
    BRANCH("one");
    __syncthreads();
    BRANCH("one");
  } else {
    BRANCH("two");
    __syncthreads();
    BRANCH("two");
  }
}
static void k_early_exit(int *) {
  if (threadIdx.x == 3) return;
  __syncthreads();
}
static void k_never_arrives(int *) {
  if (threadIdx.x < 16)
    __syncwarp();
  else
    __syncthreads();
}
static void k_lane_outside(int *out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, 1, 20);
}
static void k_not_in_mask(int *) { __syncwarp(0xfffffffeu); }
static void k_exited_lane(int *) {
  if (threadIdx.x == 7) return;
  __syncwarp();
}
static void k_beyond_block(int *) { __syncwarp(0xffffffffu); }
static void k_two_sites(int *out) {
  if (threadIdx.x < 16) {
    BRANCH("one");
    out[0] = (int)__ballot_sync(0xffffffffu, 1);
    BRANCH("one");
  } else {
    BRANCH("two");
    out[1] = (int)__ballot_sync(0xffffffffu, 1);
    BRANCH("two");
  }
}

// Runs a kernel in a child process, which must die with these words.
static void expect_death(void (*kernel)(int *), unsigned threads, const char *words) {
  char text[512];
  size_t used = 0;
  int ends[2], status = 0;
  fflush(stdout);
  if (pipe(ends)) {
    CHECK(!"pipe");
    return;
  }
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    int *out = nullptr;
    if (cudaMalloc(&out, 256) ||
        emu_launch("planted", kernel, dim3(1), dim3(threads), 0, nullptr, out))
      _exit(1);
    cudaDeviceSynchronize();
    _exit(0);
  }
  close(ends[1]);
  for (ssize_t got; used + 1 < sizeof text; used += (size_t)got)
    if ((got = read(ends[0], text + used, sizeof text - 1 - used)) <= 0) break;
  close(ends[0]);
  text[used] = 0;
  waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status));
  CHECK(strstr(text, words) != NULL);
  if (!strstr(text, words)) printf("  wanted \"%s\", got \"%s\"\n", words, text);
}

static void test_deaths() {
  expect_death(k_two_barriers, 64, "__syncthreads from two call sites");
  expect_death(k_early_exit, 64, "__syncthreads after a thread of the block has exited");
  expect_death(k_never_arrives, 32, "deadlock");
  expect_death(k_lane_outside, 32, "shuffle from a lane outside the mask");
  expect_death(k_not_in_mask, 32, "lane outside its own mask");
  expect_death(k_exited_lane, 32, "warp collective names an exited lane");
  expect_death(k_beyond_block, 24, "mask beyond the block");
  expect_death(k_two_sites, 32, "warp collective from two call sites");
}

// ----------------------------------------------------------------------------------- planted races

static void k_race_none(int *out) {
  __shared__ int values[64];
  values[threadIdx.x] = (int)threadIdx.x;
  __syncthreads();
  int other = values[63 - threadIdx.x];
  __syncwarp();
  __syncthreads();
  values[threadIdx.x] = other + __shfl_xor_sync(0xffffffffu, other, 1);
  __syncwarp();
  out[blockIdx.x * 64 + threadIdx.x] = values[threadIdx.x ^ 1];
}
static void k_race_barrier(int *out) { // the first barrier is missing
  __shared__ int values[64];
  values[threadIdx.x] = (int)threadIdx.x;
  out[threadIdx.x] = values[63 - threadIdx.x];
}
static void
k_race_second_barrier(int *out) { // a barrier before the values are overwritten is missing
  __shared__ int values[64];
  values[threadIdx.x] = (int)threadIdx.x;
  __syncthreads();
  int other = values[63 - threadIdx.x];
  values[threadIdx.x] = other;
  __syncthreads();
  out[threadIdx.x] = values[63 - threadIdx.x];
}
static void k_race_syncwarp(int *out) { // a shuffle is no fence
  __shared__ int values[64];
  values[threadIdx.x] = (int)threadIdx.x;
  int sum = __shfl_xor_sync(0xffffffffu, 1, 1);
  out[threadIdx.x] = values[threadIdx.x ^ 1] + sum;
}
static void k_race_global(int *out) { out[0] = (int)threadIdx.x; }
static void k_race_blocks(int *out) {
  if (threadIdx.x == 0) out[0] = (int)blockIdx.x;
}

static int run_race(const char *name) {
  static const struct {
    const char *name;
    void (*kernel)(int *);
  } races[] = {
      {"none", k_race_none},         {"barrier", k_race_barrier}, {"second", k_race_second_barrier},
      {"syncwarp", k_race_syncwarp}, {"global", k_race_global},   {"blocks", k_race_blocks}};
  for (const auto &race : races) {
    if (strcmp(race.name, name)) continue;
    int *out = device<int>(MANY);
    CHECK(emu_launch(name, race.kernel, dim3(3), dim3(64), 0, nullptr, out) == cudaSuccess);
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    cudaFree(out);
    return test_failed != 0;
  }
  return 2;
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "race")) return run_race(argv[2]);
  test_indices();
  test_barriers();
  test_warps();
  test_poison();
  test_streams();
  test_graphs();
  test_limits();
#ifndef EMU_TSAN
  test_deaths();
#endif
  CHECK(emu::live_blocks() == 0);
  printf("%ld passed, %ld failed\n", test_passed, test_failed);
  return test_failed != 0;
}
