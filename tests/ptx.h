// PTX, the assembly text that nvcc makes of kernels, run on the CPU: parsed once, then interpreted
// thread by thread. Of the kernels of tt_cuda.h this runs what the compiler made of the source,
// with its vector loads, fused products and inline assembly, where cudaemu.h runs the source
// itself.
//
//   ptx::Module *module = ptx::load(text);
//   ptx::run(*module, launch);
//
// Anything not understood is an error of load(), so nothing is left out silently. While a kernel
// runs, these are errors that name the kernel, the line of the text, the block and the thread:
//   misaligned addresses; shared or parameter memory beyond its end; global memory outside of every
//   allocation; shared memory read before it was written; two threads that touch the same byte of
//   shared memory, one of them writing, with no barrier between them; shared memory touched while
//   an asynchronous copy to it is under way; barriers and warp collectives that threads reach at
//   different places, or not all of them; integer division by zero.
// Asynchronous copies happen when they are waited for, as late as CUDA allows.
// Registers keep arbitrary bits until they are written, as on a GPU.
#ifndef PTX_H
#define PTX_H

#include <stddef.h>
#include <stdexcept>
#include <string>

namespace ptx {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Module;
Module *load(const std::string &text);
void unload(Module *module);

struct Launch {
  const char *kernel; // as in C++, without its arguments
  unsigned grid[3], block[3];
  size_t shared;        // bytes of dynamic shared memory
  const void *argument; // all parameters, laid out as the kernel expects them
  size_t size;          // and their bytes
  unsigned order;       // of blocks and threads: 0 forward, 1 in reverse, else shuffled
  // The allocation that holds `at`; false if none does.
  bool (*find)(const void *at, const char **begin, size_t *size);
};
void run(const Module &module, const Launch &launch);

extern unsigned long long num_instructions; // executed since the program started

} // namespace ptx

#endif // PTX_H
