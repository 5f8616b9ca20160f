// Scheduler, memory and streams of cudaemu.h. Compile it without -fsanitize=thread even where the
// kernels have it (and with -DEMU_TSAN then): the scheduler must not order what CUDA does not.
#include "cudaemu.h"

#include <memory>
#include <pthread.h>
#include <sys/mman.h>
#ifdef EMU_PTX
#include "ptx.h"
#endif
#ifdef EMU_TSAN
#include <atomic>
#include <sched.h>
#include <thread>
#endif
#if !defined(__x86_64__) && !defined(EMU_UCONTEXT)
#define EMU_UCONTEXT
#endif
#ifdef EMU_UCONTEXT
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN
#endif
#endif

#ifdef EMU_ASAN
extern "C" void __sanitizer_start_switch_fiber(void **, const void *, size_t);
extern "C" void __sanitizer_finish_switch_fiber(void *, const void **, size_t *);
#endif
#ifdef EMU_TSAN
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void *);
void __tsan_switch_to_fiber(void *, unsigned);
void __tsan_acquire(void *);
void __tsan_release(void *);
}
#define ACQUIRE(address) __tsan_acquire(address)
#define RELEASE(address) __tsan_release(address)
#else
#define ACQUIRE(address) ((void)(address))
#define RELEASE(address) ((void)(address))
#endif

namespace emu {

thread_local Block *the_block;
thread_local Fiber *the_fiber;
static thread_local Fiber *scheduler;
static thread_local const std::function<void()> *the_body;
static const char *the_kernel = "";
static const size_t STACK = 64 * 1024, PAGE = 4096;

static unsigned order_from_environment() {
  const char *text = getenv("EMU_ORDER");
  return text ? (unsigned)strtoul(text, nullptr, 10) : 0;
}
unsigned order = order_from_environment();
int num_devices = 1, num_multiprocessors = 132, shared_limit = 232448, fail_alloc_at,
    fail_launch_at;
long num_allocs, num_frees, num_syncs, num_launches, num_default_stream, num_attributes;

void die(const char *why) {
  fprintf(stderr, "cudaemu: %s in kernel %s", why, the_kernel);
  if (the_fiber && the_fiber != scheduler && the_block)
    fprintf(stderr, " block(%u,%u,%u) thread(%u,%u,%u)", the_block->index.x, the_block->index.y,
            the_block->index.z, the_fiber->index.x, the_fiber->index.y, the_fiber->index.z);
  fputc('\n', stderr);
  abort();
}

// ------------------------------------------------------------------------------------------ fibres

#ifndef EMU_UCONTEXT
// Saves what the calling convention preserves, changes stacks, restores the same from the other
// one.
extern "C" void emu_switch(void **saved, void *to);
asm(".text\n.globl emu_switch\n.type emu_switch,@function\nemu_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size emu_switch,.-emu_switch\n");
#endif

// Stack number `index`, kept for the blocks that follow.
static char *stack_at(size_t index) {
  static char *stacks[8192];
  if (index >= sizeof stacks / sizeof *stacks) die("too many stacks");
  if (!stacks[index]) {
    char *made = (char *)mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made == MAP_FAILED || mprotect(made, PAGE, PROT_NONE)) die("no memory for stacks");
    stacks[index] = made + PAGE;
  }
  return stacks[index];
}

#ifdef EMU_TSAN
// Destroyed together when their threads are joined: TSan forgets what a destroyed fibre has done.
// Until then no other fibre may have its stack, or TSan would call that a race.
static std::vector<void *> *finished;
static size_t stacks_in_use() { return finished->size(); }
#else
static size_t stacks_in_use() { return 0; }
#endif

static void switch_to(Fiber *to) {
  Fiber *from = the_fiber;
#ifdef EMU_ASAN
  __sanitizer_start_switch_fiber(from->wait == DONE ? nullptr : &from->asan, to->stack, STACK);
#endif
#ifdef EMU_TSAN
  __tsan_switch_to_fiber(to->tsan, 1); // 1: the switch itself orders nothing
#endif
  the_fiber = to;
#ifdef EMU_UCONTEXT
  swapcontext((ucontext_t *)from->saved, (ucontext_t *)to->saved);
#else
  emu_switch(&from->saved, to->saved);
#endif
#ifdef EMU_ASAN
  __sanitizer_finish_switch_fiber(from->asan, nullptr, nullptr);
#endif
}

static void suspend() { switch_to(scheduler); }

// The first function on the stack of a fibre; it never returns.
static void entry() {
#ifdef EMU_ASAN
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  ACQUIRE(&the_block->grid); // after everything before the launch
  (*the_body)();
  RELEASE(&the_block->alive);
  the_fiber->wait = DONE;
  the_block->alive--;
  suspend();
  abort();
}

static void prepare(Fiber &fiber, char *stack) {
  fiber.stack = stack;
#ifdef EMU_UCONTEXT
  ucontext_t *context = (ucontext_t *)fiber.saved;
  if (getcontext(context)) die("getcontext");
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = STACK;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
#else
  void **top = (void **)(void *)(stack + STACK);
  *--top = nullptr; // the stack is 8 modulo 16 on entry
  *--top = (void *)entry;
  for (int k = 0; k < 6; k++) *--top = nullptr;
  fiber.saved = top;
#endif
#ifdef EMU_TSAN
  fiber.tsan = __tsan_create_fiber(0);
#endif
}

// ------------------------------------------------------------------------------------- collectives

// Two addresses take turns: with a single one, a thread that resumes late would also be ordered
// behind the next arrival of an early one, and real races would be hidden.
void barrier(const void *site) {
  Fiber *self = the_fiber;
  char *address = &the_block->sync[self->barriers++ & 1];
  self->wait = AT_BARRIER;
  self->site = site;
  RELEASE(address);
  suspend();
  ACQUIRE(address);
}

void warp_wait(unsigned mask, const void *site, bool orders_memory) {
  Fiber *self = the_fiber;
  if (!(mask >> self->lane & 1)) die("lane outside its own mask");
  self->wait = AT_WARP;
  self->site = site;
  self->mask = mask;
  if (orders_memory) {
    self->parity = self->syncs++ & 1;
    RELEASE(&self->released[self->parity]);
  }
  suspend();
  for (unsigned i = 0; orders_memory && i < 32; i++)
    if (mask >> i & 1)
      ACQUIRE(&the_block->fibers[self->warp * 32 + i].released[self->parities >> i & 1]);
}

[[noreturn]] static void die_at(Fiber &fiber, const char *why) {
  the_fiber = &fiber;
  die(why);
}

// Have all lanes of the mask of `first` arrived? Complains about what can never complete.
static bool warp_complete(Block &block, size_t begin, size_t end, Fiber &first) {
  bool complete = true;
  if (end - begin < 32 && first.mask >> (end - begin)) die_at(first, "mask beyond the block");
  for (size_t j = begin; j < end; j++) {
    Fiber &other = block.fibers[j];
    if (!(first.mask >> (j - begin) & 1)) continue;
    if (other.wait == DONE) die_at(first, "warp collective names an exited lane");
    if (other.wait != AT_WARP || other.mask != first.mask)
      complete = false;
    else if (other.site != first.site)
      die_at(first, "warp collective from two call sites");
  }
  return complete;
}

static void release_warps(Block &block) {
  for (size_t w = 0; w < block.warps.size(); w++) {
    size_t begin = w * 32, end = std::min(begin + 32, block.fibers.size());
    for (size_t i = begin; i < end; i++) {
      Fiber &first = block.fibers[i];
      if (first.wait != AT_WARP || !warp_complete(block, begin, end, first)) continue;
      Warp &warp = block.warps[w];
      unsigned long long *all = warp.ring[warp.next++ & 7];
      unsigned mask = first.mask, parities = 0;
      for (size_t j = begin; j < end; j++) parities |= block.fibers[j].parity << (j - begin);
      for (size_t j = begin; j < end; j++) {
        Fiber &lane = block.fibers[j];
        if (!(mask >> (j - begin) & 1)) continue;
        all[j - begin] = lane.in;
        lane.all = all;
        lane.parities = parities;
        lane.wait = READY;
      }
    }
  }
}

static bool release_barrier(Block &block) {
  size_t waiting = 0;
  for (Fiber &fiber : block.fibers) waiting += fiber.wait == AT_BARRIER;
  if (!waiting || waiting != block.alive) return false;
  if (block.alive != block.fibers.size())
    die("__syncthreads after a thread of the block has exited");
  for (Fiber &fiber : block.fibers) {
    if (fiber.site != block.fibers[0].site) die_at(fiber, "__syncthreads from two call sites");
    fiber.wait = READY;
  }
  return true;
}

// ----------------------------------------------------------------------------------------- blocks

static void shuffle(std::vector<size_t> &line, unsigned *seed) {
  for (size_t i = line.size(); i > 1; i--) {
    *seed = *seed * 1664525u + 1013904223u;
    std::swap(line[i - 1], line[(*seed >> 8) % i]);
  }
}

// Runs all fibres of a block to their ends.
static void schedule(Block &block) {
  size_t count = block.fibers.size();
  unsigned seed = order;
  std::vector<size_t> line(count);
  for (size_t i = 0; i < count; i++) line[i] = order == 1 ? count - 1 - i : i;
  while (block.alive) {
    bool ran = false, ready = false;
    if (order > 1) shuffle(line, &seed);
    for (size_t i : line)
      if (block.fibers[i].wait == READY) {
        ran = true;
        switch_to(&block.fibers[i]);
      }
    release_warps(block);
    if (ran) continue;
    for (Fiber &fiber : block.fibers) ready |= fiber.wait == READY;
    if (ready || release_barrier(block)) continue;
    for (Fiber &fiber : block.fibers)
      if (fiber.wait != DONE) die_at(fiber, "deadlock at a barrier or warp collective");
  }
}

static void run_block(dim3 grid, dim3 size, size_t shared, const std::function<void()> *body,
                      uint3 index) {
  static thread_local Block block;
  Fiber self;
  size_t count = (size_t)size.x * size.y * size.z;
  block.fibers.assign(count, Fiber());
  block.warps.resize((count + 31) / 32);
  block.block = size;
  block.grid = grid;
  block.index = index;
  block.alive = count;
  block.dynamic = nullptr;
  void *dynamic = nullptr;
  // exactly as large as asked for, so that the address sanitizer sees what lies behind
  if (shared && posix_memalign(&dynamic, 128, shared)) die("no memory");
  if (dynamic) memset(dynamic, 0xFF, shared); // NaN
  block.dynamic = (char *)dynamic;
#ifdef EMU_UCONTEXT
  std::vector<ucontext_t> contexts(count + 1);
  self.saved = &contexts[count];
  for (size_t i = 0; i < count; i++) block.fibers[i].saved = &contexts[i];
#endif
#ifdef EMU_ASAN
  pthread_attr_t attributes;
  void *lowest = nullptr;
  size_t bytes = 0;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &lowest, &bytes);
  pthread_attr_destroy(&attributes);
  self.stack = (char *)lowest + bytes - STACK;
#endif
  size_t base = stacks_in_use();
  for (size_t i = 0; i < count; i++) {
    Fiber &fiber = block.fibers[i];
    fiber.lane = (unsigned)(i % 32);
    fiber.warp = (unsigned)(i / 32);
    fiber.index.x = (unsigned)(i % size.x);
    fiber.index.y = (unsigned)(i / size.x % size.y);
    fiber.index.z = (unsigned)(i / size.x / size.y);
    prepare(fiber, stack_at(base + i));
  }
  the_block = &block;
  the_body = body;
  scheduler = the_fiber = &self;
#ifdef EMU_TSAN
  self.tsan = __tsan_get_current_fiber();
#endif
  RELEASE(&block.grid);
  schedule(block);
  ACQUIRE(&block.alive);
#ifdef EMU_TSAN
  for (Fiber &fiber : block.fibers) finished->push_back(fiber.tsan);
#endif
  the_block = nullptr;
  scheduler = the_fiber = nullptr;
  free(dynamic);
}

// Under TSan each block has a fresh thread of the operating system, so that nothing orders blocks;
// they still run one after another, by a wait that TSan does not see.
void run_grid(const char *kernel, dim3 grid, dim3 size, size_t shared,
              const std::function<void()> &body) {
  size_t count = (size_t)grid.x * grid.y * grid.z;
  the_kernel = kernel;
#ifdef EMU_TSAN
  std::vector<std::thread> threads;
  std::vector<void *> fibers;
  size_t most = 4096;                                      // TSan has room for twice as many
  fibers.reserve(most + (size_t)size.x * size.y * size.z); // grows in no block
  finished = &fibers;
#endif
  for (size_t i = 0; i < count; i++) {
    size_t at = order == 1 ? count - 1 - i : i;
    uint3 index = {(unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y),
                   (unsigned)(at / grid.x / grid.y)};
#ifdef EMU_TSAN
    std::atomic<int> done{0};
    threads.emplace_back([&, index] {
      run_block(grid, size, shared, &body, index);
      done.store(1, std::memory_order_release);
    });
    while (!done.load(std::memory_order_acquire)) sched_yield();
    if (fibers.size() >= most) {
      for (std::thread &thread : threads) thread.join();
      for (void *fiber : fibers) __tsan_destroy_fiber(fiber);
      threads.clear();
      fibers.clear();
    }
#else
    run_block(grid, size, shared, &body, index);
#endif
  }
#ifdef EMU_TSAN
  for (std::thread &thread : threads) thread.join();
  for (void *fiber : fibers) __tsan_destroy_fiber(fiber);
#endif
}

// ---------------------------------------------------------------------- memory, streams and graphs

static std::map<char *, size_t> &memory() {
  static std::map<char *, size_t> blocks;
  return blocks;
}
static std::map<const void *, int> &granted() { // shared memory by cudaFuncSetAttribute
  static std::map<const void *, int> kernels;
  return kernels;
}
static std::vector<CUstream_st *> &streams() {
  static CUstream_st default_stream;
  static std::vector<CUstream_st *> all(1, &default_stream);
  return all;
}
static CUstream_st *stream_of(cudaStream_t stream) {
  if (stream) return stream;
  num_default_stream++;
  return streams()[0];
}

// The block of device memory that holds `address`.
static bool find_block(const void *address, const char **begin, size_t *size) {
  auto behind = memory().upper_bound((char *)address);
  if (behind == memory().begin()) return false;
  --behind;
  *begin = behind->first;
  *size = behind->second;
  return true;
}
static bool is_device(const void *address, size_t size) {
  const char *begin;
  size_t block_size;
  return find_block(address, &begin, &block_size) &&
         (const char *)address + size <= begin + block_size;
}

static bool is_capturing() {
  for (CUstream_st *stream : streams())
    if (stream->capturing) return true;
  return false;
}

static void drain(CUstream_st *stream) {
  std::vector<std::function<void()>> work;
  work.swap(stream->queue);
  for (auto &item : work) item();
}

size_t live_blocks() { return memory().size(); }

#ifdef EMU_PTX
static ptx::Module *load_module() {
  const char *name = getenv("EMU_PTX");
  FILE *file = name ? fopen(name, "rb") : nullptr;
  std::string text;
  if (!file) die("EMU_PTX names no file");
  for (int c; (c = getc(file)) != EOF;) text += (char)c;
  fclose(file);
  return ptx::load(text);
}
void interpret_grid(const char *kernel, dim3 grid, dim3 block, size_t shared, const void *argument,
                    size_t size) {
  the_kernel = kernel;
  try {
    static const std::unique_ptr<ptx::Module, void (*)(ptx::Module *)> module(load_module(),
                                                                              ptx::unload);
    ptx::Launch launch = {kernel, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared,
                          argument, size, order, find_block};
    ptx::run(*module, launch);
  } catch (const ptx::Error &error) {
    die(error.what());
  }
}
#endif

} // namespace emu

using namespace emu;

const char *cudaGetErrorString(cudaError_t error) {
  static char text[32];
  snprintf(text, sizeof text, "emulated error %d", (int)error);
  return text;
}

cudaError_t cudaGetDeviceCount(int *count) {
  *count = num_devices;
  return num_devices ? cudaSuccess : cudaErrorNoDevice;
}
static thread_local int current_device;
cudaError_t cudaGetDevice(int *device) {
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= num_devices)
    return num_devices ? cudaErrorInvalidDevice : cudaErrorNoDevice;
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= num_devices) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = num_multiprocessors; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = shared_limit; return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

cudaError_t cudaDeviceSynchronize() {
  num_syncs++;
  if (is_capturing()) return cudaErrorStreamCaptureUnsupported;
  for (CUstream_st *stream : streams()) drain(stream);
  return cudaSuccess;
}

cudaError_t emu_malloc(void **block, size_t size) {
  *block = nullptr;
  num_allocs++;
  if (is_capturing()) return cudaErrorStreamCaptureUnsupported;
  if (fail_alloc_at && --fail_alloc_at == 0) return cudaErrorMemoryAllocation;
  if (!size) return cudaSuccess;
  if (posix_memalign(block, 256, size)) return cudaErrorMemoryAllocation;
  memset(*block, 0xFF, size);
  memory()[(char *)*block] = size;
  return cudaSuccess;
}

cudaError_t cudaFree(void *block) {
  if (!block) return cudaSuccess;
  num_frees++;
  if (is_capturing()) return cudaErrorStreamCaptureUnsupported;
  for (CUstream_st *stream : streams()) drain(stream); // cudaFree waits for the device
  if (!memory().erase((char *)block)) return cudaErrorInvalidValue;
  free(block);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;
  if (is_device(to, size) != to_device || is_device(from, size) != from_device)
    return cudaErrorInvalidValue;
  stream_of(stream)->queue.push_back([=] { memcpy(to, from, size); });
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, cudaMemcpyKind kind) {
  cudaError_t error = cudaMemcpyAsync(to, from, size, kind, nullptr);
  return error ? error : cudaStreamSynchronize(nullptr);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) {
  if (!is_device(to, size)) return cudaErrorInvalidValue;
  stream_of(stream)->queue.push_back([=] { memset(to, value, size); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
  *stream = new CUstream_st;
  streams().push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  auto &all = streams();
  auto at = std::find(all.begin() + 1, all.end(), stream);
  if (at == all.end()) return cudaErrorInvalidValue;
  drain(stream);
  all.erase(at);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  num_syncs++;
  if (is_capturing()) return cudaErrorStreamCaptureUnsupported;
  drain(stream_of(stream));
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream || stream->capturing) return cudaErrorInvalidValue;
  drain(stream);
  stream->capturing = true;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  if (!stream || !stream->capturing) return cudaErrorInvalidValue;
  *graph = new CUgraph_st;
  (*graph)->queue.swap(stream->queue);
  stream->capturing = false;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ready, cudaGraph_t graph, unsigned long long) {
  *ready = new CUgraph_st(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t stream) {
  auto &queue = stream_of(stream)->queue;
  queue.insert(queue.end(), ready->queue.begin(), ready->queue.end());
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t ready) { return cudaGraphDestroy(ready); }

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute, int value) {
  num_attributes++;
  if (value < 0 || value > shared_limit) return cudaErrorInvalidValue;
  granted()[kernel] = value;
  return cudaSuccess;
}

cudaError_t emu_enqueue(const void *kernel, dim3 grid, dim3 block, size_t shared,
                        cudaStream_t stream, const std::function<void()> &run) {
  size_t threads = (size_t)block.x * block.y * block.z;
  auto grant = granted().find(kernel);
  size_t most = 48 * 1024;
  num_launches++;
  if (fail_launch_at && --fail_launch_at == 0) return cudaErrorLaunchFailure;
  if (grant != granted().end()) most = std::max(most, (size_t)grant->second);
  if (!threads || threads > 1024 || block.z > 64 || !grid.x || grid.x > 0x7fffffffu || !grid.y ||
      !grid.z || grid.y > 65535 || grid.z > 65535 || shared > most)
    return cudaErrorInvalidConfiguration;
  stream_of(stream)->queue.push_back(run);
  return cudaSuccess;
}
