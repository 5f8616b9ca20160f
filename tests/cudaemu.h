// CUDA C++ on an ordinary CPU, for tests: include this before a file with kernels and compile it
// with g++ or clang++ (-DTT_CUDA_EMU -include cudaemu.h), together with cudaemu.cpp.
//
// A CUDA thread is a fibre (a stack of its own, switched by hand); the fibres of a block take turns
// on one thread of the operating system, and blocks run one after another. The kernels are plain
// C++ then: sanitizers, gcov and debuggers see them. What this finds that comparing results does
// not:
//   barriers and warp collectives that threads reach at different places, or not all of them;
//   shuffles from lanes outside the mask; device memory read before it was written (it starts as
//   NaN), and shared memory before an asynchronous copy was waited for (it is NaN until then);
//   results read before the stream was synchronised (streams run only then); calls that CUDA
//   forbids while a graph is captured; too much shared memory; copies in the wrong direction; and,
//   built with -DEMU_TSAN, races in shared and in global memory, within a block and between blocks.
// Built with -DEMU_PTX and linked with ptx.cpp, kernels are not called: what nvcc made of them is
// interpreted (see ptx.h), and all but their execution stays the same.
// Environment: EMU_ORDER = 0 runs threads forward, 1 in reverse, any other number shuffles them.
// EMU_PTX names the file that nvcc -ptx has written.
#ifndef CUDAEMU_H
#define CUDAEMU_H

#include <algorithm>
#include <functional>
#include <map>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utility>
#include <vector>

// ---------------------------------------------------------------------------------- the vocabulary

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static thread_local // a block runs on one thread of the operating system

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

namespace emu {

enum Wait { READY, AT_BARRIER, AT_WARP, DONE };

struct Copy { // asynchronous, of 16 bytes, to shared memory
  void *to;
  const void *from;
  int bytes;
  unsigned group;
};

struct Fiber {           // one CUDA thread
  void *saved = nullptr; // stack pointer, or ucontext, while it does not run
  char *stack = nullptr; // lowest byte; a guard page lies below
  Wait wait = READY;
  uint3 index = {0, 0, 0};
  unsigned lane = 0, warp = 0;
  const void *site = nullptr;              // call site of the collective it waits at
  unsigned mask = 0;                       // the lanes that take part
  unsigned long long in = 0;               // what this lane hands over
  const unsigned long long *all = nullptr; // what all lanes handed over
  unsigned barriers = 0, syncs = 0, parity = 0, parities = 0; // TSan: generations
  char released[2] = {0, 0};                                  // TSan: addresses of __syncwarp
  void *tsan = nullptr, *asan = nullptr;
  std::vector<Copy> copies; // started, not waited for
  unsigned groups = 0;      // closed
};

struct Warp {
  unsigned long long ring[8][32]; // what the lanes of the last collectives handed over
  unsigned next;
};

struct Block {
  uint3 index = {0, 0, 0};
  dim3 block, grid;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  char *dynamic = nullptr; // dynamic shared memory
  size_t alive = 0;
  char sync[2] = {0, 0}; // TSan: addresses of the block barrier
};

extern thread_local Block *the_block;
extern thread_local Fiber *the_fiber; // the one that runs

[[noreturn]] void die(const char *why);
void barrier(const void *site);
// Waits until every lane of the mask has come. Only __syncwarp orders memory, as in CUDA.
void warp_wait(unsigned mask, const void *site, bool orders_memory);
void run_grid(const char *kernel, dim3 grid, dim3 block, size_t shared,
              const std::function<void()> &body);
void interpret_grid(const char *kernel, dim3 grid, dim3 block, size_t shared, const void *argument,
                    size_t size);

template <class T> inline void put(unsigned mask, T value, const void *site) {
  static_assert(sizeof(T) <= 8, "a lane hands over at most 8 bytes");
  the_fiber->in = 0;
  memcpy(&the_fiber->in, &value, sizeof value);
  warp_wait(mask, site, false);
}

template <class T> inline T get(unsigned lane) {
  if (lane > 31 || !(the_fiber->mask >> lane & 1)) die("shuffle from a lane outside the mask");
  T value;
  memcpy(&value, &the_fiber->all[lane], sizeof value);
  return value;
}

// Asynchronous copies are carried out when somebody waits for their group; until then their
// destination is NaN.
inline void copy_ahead(void *to, const void *from, int bytes) {
  if ((uintptr_t)to % 16 || (uintptr_t)from % 16) die("asynchronous copy that is not aligned");
  if (bytes < 0 || bytes > 16) die("asynchronous copy of more than 16 bytes");
  memset(to, 0xff, 16);
  the_fiber->copies.push_back({to, from, bytes, the_fiber->groups});
}
inline void close_copies() { the_fiber->groups++; }
inline void wait_copies(unsigned but) { // for all groups but the last
  std::vector<Copy> &copies = the_fiber->copies;
  size_t done = 0;
  for (; done < copies.size() && copies[done].group + but < the_fiber->groups; done++) {
    memset(copies[done].to, 0, 16);
    memcpy(copies[done].to, copies[done].from, (size_t)copies[done].bytes);
  }
  copies.erase(copies.begin(), copies.begin() + (long)done);
}

// ---- knobs and counters for tests

extern unsigned order;                        // order of threads and blocks, see EMU_ORDER
extern int num_devices;                       // 0: cudaGetDeviceCount says "no device"
extern int num_multiprocessors, shared_limit; // what the device claims to have
extern int fail_alloc_at;                     // this call of cudaMalloc fails, from 1; 0 = none
extern int fail_launch_at;                    // this launch fails
extern long num_allocs, num_frees, num_syncs, num_launches, num_default_stream, num_attributes;
size_t live_blocks(); // of device memory

} // namespace emu

#define threadIdx (emu::the_fiber->index)
#define blockIdx (emu::the_block->index)
#define blockDim (emu::the_block->block)
#define gridDim (emu::the_block->grid)

// The call site is where the collective returns to, so none of these may be inlined.
#define EMU_CALL inline __attribute__((noinline))
#define EMU_SITE __builtin_return_address(0)

EMU_CALL void __syncthreads() { emu::barrier(EMU_SITE); }
EMU_CALL void __syncwarp(unsigned mask = 0xffffffffu) { emu::warp_wait(mask, EMU_SITE, true); }

template <class T> EMU_CALL T __shfl_sync(unsigned mask, T value, int from) {
  emu::put(mask, value, EMU_SITE);
  return emu::get<T>((unsigned)from & 31);
}
template <class T> EMU_CALL T __shfl_xor_sync(unsigned mask, T value, int bits) {
  emu::put(mask, value, EMU_SITE);
  return emu::get<T>(emu::the_fiber->lane ^ (unsigned)bits);
}
template <class T> EMU_CALL T __shfl_down_sync(unsigned mask, T value, unsigned by) {
  emu::put(mask, value, EMU_SITE);
  unsigned from = emu::the_fiber->lane + by;
  return from > 31 ? value : emu::get<T>(from);
}
EMU_CALL unsigned __ballot_sync(unsigned mask, int yes) {
  unsigned votes = 0;
  emu::put(mask, (int)(yes != 0), EMU_SITE);
  for (unsigned i = 0; i < 32; i++)
    if ((mask >> i & 1) && emu::get<int>(i)) votes |= 1u << i;
  return votes;
}

// --------------------------------------------------------------------------------- the runtime API

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidMemcpyDirection = 21,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900
};
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal = 0 };

struct CUstream_st { // work runs when somebody synchronises
  std::vector<std::function<void()>> queue;
  bool capturing = false;
};
struct CUgraph_st {
  std::vector<std::function<void()>> queue;
};
typedef CUstream_st *cudaStream_t;
typedef CUgraph_st *cudaGraph_t, *cudaGraphExec_t;

const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDeviceSynchronize();
cudaError_t emu_malloc(void **block, size_t size);
template <class T> inline cudaError_t cudaMalloc(T **block, size_t size) {
  void *made = nullptr;
  cudaError_t error = emu_malloc(&made, size);
  *block = (T *)made;
  return error;
}
cudaError_t cudaFree(void *block);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, cudaMemcpyKind kind);
cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream);
cudaError_t cudaStreamCreate(cudaStream_t *stream);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ready, cudaGraph_t graph,
                                 unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t ready);
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value);

// Checks the configuration as CUDA does and queues `run`.
cudaError_t emu_enqueue(const void *kernel, dim3 grid, dim3 block, size_t shared,
                        cudaStream_t stream, const std::function<void()> &run);

#ifdef EMU_PTX
template <class P, class A>
inline cudaError_t emu_launch(const char *name, void (*kernel)(P), dim3 grid, dim3 block,
                              size_t shared, cudaStream_t stream, A argument) {
  return emu_enqueue((const void *)kernel, grid, block, shared, stream, [=] {
    P copy = argument;
    emu::interpret_grid(name, grid, block, shared, &copy, sizeof copy);
  });
}
#else

template <class... P, class... A>
inline cudaError_t emu_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                              size_t shared, cudaStream_t stream, A... arguments) {
  return emu_enqueue((const void *)kernel, grid, block, shared, stream, [=] {
    emu::run_grid(name, grid, block, shared, [=] { kernel((P)arguments...); });
  });
}
#endif

#endif // CUDAEMU_H
