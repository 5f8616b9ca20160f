/* tt_cuda.h - tensor trains of tt.h on NVIDIA GPUs: forward pass, gradients, compression.
   An optional second header; tt.h does not need it.

   HOW TO INCLUDE
     Anywhere, C99 or C++:               #include "tt_cuda.h"             (no CUDA header is needed)
     In exactly one file for nvcc:       #define TT_CUDA_IMPLEMENTATION
                                         #include "tt_cuda.h"
     C++14 or later, compute capability 7.5 or later:  nvcc -x cu -std=c++14 -arch=sm_90 -c file.cpp
     One unit of the program holds the implementation of tt.h as well, this one or another; all of
     it, without TT_INFERENCE_ONLY.

   EXAMPLE                               error handling left out
     tt_cuda_context *gpu;  tt_cuda_matrix *w;
     tt_cuda_create(0, NULL, &gpu);
     tt_cuda_upload(gpu, &train, &w, stream);                    // once, any storage format
     size_t size = tt_cuda_apply_work_size(w, batch);            // cudaMalloc(&d_work, size)
     tt_cuda_apply(w, d_x, batch, d_y, d_work, size, stream);    // as often as you like

   CONTENTS                              grep '>>' tt_cuda.h is the map
     (API)       everything public
     >>target    nvcc, or the emulation of tests/cudaemu.h; launches; errors
     >>decode    storage formats on the device
     >>step      one core times a state in shared memory
     >>fused     the whole forward pass in one kernel
     >>product   one core times a state in global memory: chain and dense
    >>tensor    y = x W^T in BF16 on tensor cores: large dense products
     >>pair      both products of a train of two cores on tensor cores, in one kernel
    >>slice     rows of the matrix; all of them are the dense matrix
     >>upload    context, trains on the device
     >>planner   which of fused, chain and dense
     >>forward   apply, expand, rows
     >>gradient  of cores, bias and inputs
     >>svd       many small SVDs
     >>compress  TT-SVD of a matrix on the device

   CONVENTIONS
     Pointers that begin with d_ are device memory. Everything but create, destroy, upload,
     download, free and compress only enqueues work on the caller's stream: it allocates nothing,
     never synchronises, never touches the default stream, and may be captured into a graph. Sums
     have a fixed order: the same call on the same device gives the same bits. Accumulation is in
     float, in the SVD and in Gram matrices in double. The device of the context must be current.
     One context may be used by one thread at a time.

   WHAT HAS BEEN PROVED                  is said in README.md, section "On a GPU". */
#ifndef TT_CUDA_H_INCLUDED
#define TT_CUDA_H_INCLUDED

#include "tt.h"
#ifdef TT_INFERENCE_ONLY
#error "tt_cuda.h needs all of tt.h: leave TT_INFERENCE_ONLY to the other files"
#endif

struct CUstream_st; // cudaStream_t is struct CUstream_st *

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tt_cuda_context tt_cuda_context; // one device
typedef struct tt_cuda_matrix tt_cuda_matrix;   // a train on it

// Opens a device. options gives the allocator of host memory (NULL = malloc) and nothing else.
// Returns TT_OK; INVALID (no such device); MEMORY; UNSUPPORTED (no device, no driver, or one that
// the kernels were not compiled for). *out is NULL on error.
TTDEF tt_status tt_cuda_create(int device, const tt_options *options, tt_cuda_context **out);
TTDEF void tt_cuda_destroy(tt_cuda_context *context); // after its matrices; NULL is fine

// The native CUDA error code behind the last failure in this context; 0 = none yet.
TTDEF int tt_cuda_last_native(const tt_cuda_context *context);

// Copies a train to the device as it is stored, bias included: codes stay codes, either sweep.
// Allocates one block of device memory; returns after the copy. Cores in F64, I3 and I2 are
// UNSUPPORTED: tt_quantize first. Returns TT_OK; INVALID; MEMORY; UNSUPPORTED. *out is NULL on
// error.
TTDEF tt_status tt_cuda_upload(tt_cuda_context *context, const tt_matrix *w, tt_cuda_matrix **out,
                               struct CUstream_st *stream);
// The same train again, bit for bit, in one block of options->allocator: tt_free. Copies on the
// default stream: wait for streams that still write to w.
TTDEF tt_status tt_cuda_download(const tt_cuda_matrix *w, const tt_options *options,
                                 tt_matrix *out);
TTDEF void tt_cuda_free(tt_cuda_matrix *w); // NULL is fine

// d_y = d_x W^T + bias, the mirror of tt_apply.
//   d_x     (batch, cols) row-major           d_y  (batch, rows), must not overlap d_x
//   d_work  at least tt_cuda_apply_work_size(w, batch) bytes, aligned to 256 (as cudaMalloc does)
// Returns TT_OK; INVALID (NULL, batch < 0, work too small or not aligned, overlap, another device
// is current); UNSUPPORTED and MEMORY from CUDA. batch 0 is TT_OK.
TTDEF tt_status tt_cuda_apply(const tt_cuda_matrix *w, const float *d_x, ptrdiff_t batch,
                              float *d_y, void *d_work, size_t work_size,
                              struct CUstream_st *stream);

// Bytes of workspace for exactly this batch, at least 1. 0 = invalid, or the size does not fit.
TTDEF size_t tt_cuda_apply_work_size(const tt_cuda_matrix *w, ptrdiff_t batch);

// The ways to compute it. FUSED keeps all states in shared memory; CHAIN is one product a core;
// DENSE rebuilds W in the workspace, every time, and is one product then.
typedef enum tt_cuda_path {
  TT_CUDA_AUTO = 0,
  TT_CUDA_FUSED,
  TT_CUDA_CHAIN,
  TT_CUDA_DENSE
} tt_cuda_path;

typedef struct tt_cuda_args { // zeroed = a plain apply of nothing
  ptrdiff_t batch, ldx, ldy;  // elements from row to row; 0 = packed
  const void *d_x;
  void *d_y;
  // of x and y: TT_F32, TT_F16 or TT_BF16; with the last two CHAIN and DENSE may multiply in TF32
  // on tensor cores, with the 10 bits of mantissa that F16 has, and add in float; with TT_BF16 and
  // rows of x aligned to 16 bytes, DENSE may round W to BF16, and FUSED cores and states
  tt_dtype dtype;
  int path; // enum tt_cuda_path
  // d_y = alpha (d_x W^T + bias) + beta d_y; alpha 0 and 1 both mean 1, beta 0 does not read d_y
  float alpha, beta;
} tt_cuda_args;

typedef struct tt_cuda_plan { // what an apply will do
  tt_cuda_path path;
  double flops;   // on this path
  double bytes;   // that must move at least: codes, x and y
  double seconds; // what the planner's model expects: good for comparing paths only
  int num_launches;
  size_t work_size;
} tt_cuda_plan;

// Without enqueuing anything; d_x and d_y may be NULL. UNSUPPORTED: this path cannot run that
// (FUSED without enough shared memory), or that dtype.
TTDEF tt_status tt_cuda_plan_apply(const tt_cuda_matrix *w, const tt_cuda_args *args,
                                   tt_cuda_plan *plan);
TTDEF tt_status tt_cuda_apply_ex(const tt_cuda_matrix *w, const tt_cuda_args *args, void *d_work,
                                 size_t work_size, struct CUstream_st *stream);

// The dense matrix (rows, cols) of a train, row-major, without the bias. d_work as for apply, of
// tt_cuda_expand_work_size(w) bytes, at least 1; 0 = invalid or does not fit.
TTDEF tt_status tt_cuda_expand(const tt_cuda_matrix *w, float *d_dense, void *d_work,
                               size_t work_size, struct CUstream_st *stream);
TTDEF size_t tt_cuda_expand_work_size(const tt_cuda_matrix *w);

// Rows of W without the bias: an embedding look-up, the mirror of tt_rows.
//   d_index  (count) row numbers in device memory; one out of range makes its row NaN
//   d_out    (count, cols)
TTDEF tt_status tt_cuda_rows(const tt_cuda_matrix *w, const int *d_index, ptrdiff_t count,
                             float *d_out, void *d_work, size_t work_size,
                             struct CUstream_st *stream);
TTDEF size_t tt_cuda_rows_work_size(const tt_cuda_matrix *w, ptrdiff_t count);

// The gradient of d_y = d_x W^T + bias from d_dy = dL/dy, the mirror of tt_backward.
//   d_x     (batch, cols), as given to apply; may be NULL where grad is
//   d_dy    (batch, rows)
//   d_dx    dL/dx (batch, cols), overwritten, or NULL; must not overlap d_x or d_dy
//   grad    dL/dcore is added to its cores, with respect to the data of those of w, and dL/dbias to
//           its bias if it has one: the upload of tt_zeros_like(w). NULL = d_dx alone, which any
//           storage format allows; the cores of w must be F32 otherwise.
//   d_work  as for apply, of tt_cuda_backward_work_size(w, batch) bytes; 0 = invalid, or does not
//           fit
// Cost     about three times the chain. Returns TT_OK; INVALID (also: neither grad nor d_dx);
//          UNSUPPORTED; MEMORY (sizes that do not fit).
TTDEF tt_status tt_cuda_backward(const tt_cuda_matrix *w, const float *d_x, const float *d_dy,
                                 ptrdiff_t batch, float *d_dx, tt_cuda_matrix *grad, void *d_work,
                                 size_t work_size, struct CUstream_st *stream);
TTDEF size_t tt_cuda_backward_work_size(const tt_cuda_matrix *w, ptrdiff_t batch);

// Zeroes cores, scales and bias, on the stream.
TTDEF tt_status tt_cuda_clear(tt_cuda_matrix *w, struct CUstream_st *stream);

// Thin SVDs of `count` matrices at once, a block for each; the mirror of tt_svd.
//   d_a       (count, rows, cols)              d_s   (count, k) descending, k = min(rows, cols)
//   d_u       (count, rows, k) or NULL         d_vt  (count, k, cols) or NULL
//   d_sweeps  (count) or NULL: how many sweeps over all pairs it took; -1 = more than 30, best
//             effort; 0 = NaN or Inf in the matrix, all of its results are NaN
//   d_work    as for apply, of tt_cuda_svd_batched_work_size bytes, 1 where shared memory has room
//             (128 x 128 on an H100); 0 = invalid, or does not fit
// Accuracy  float: U and V orthonormal to about 2e-6, also where A is rank-deficient or zero; small
//           singular values keep their relative accuracy on graded matrices. Those below about
//           1e-30 of the largest entry are 0. The largest entry of each column of U is positive.
// Cost      6 to 10 sweeps of 3 k^2 (rows + cols + k) flops by one block. Source [Demmel92].
// Returns   TT_OK; INVALID; UNSUPPORTED and MEMORY from CUDA. count 0 is TT_OK.
TTDEF tt_status tt_cuda_svd_batched(tt_cuda_context *context, const float *d_a, ptrdiff_t count,
                                    int rows, int cols, float *d_u, float *d_s, float *d_vt,
                                    int *d_sweeps, void *d_work, size_t work_size,
                                    struct CUstream_st *stream);
TTDEF size_t tt_cuda_svd_batched_work_size(const tt_cuda_context *context, ptrdiff_t count,
                                           int rows, int cols);

// Dense matrix on the device -> train on the host, the mirror of tt_compress: TT-SVD, all passes
// over the matrix on the device, the small eigenvalue problems on the host in double.
//   d_w      (rows, cols) row-major            shape, out, report as for tt_compress
//   options  epsilon, max_rank, strict, dtype, group, seed, allocator and bias as there; method
//            AUTO and RANDOMIZED (a sketch where a cap is low: 8 more columns than it, two rounds
//            of power iteration) or GRAM. inputs, row_weights and other methods: UNSUPPORTED.
// Synchronises once to scan the matrix, once a bond, and once for the last core; copies of cores to
// the host may wait besides. Allocates and frees on the device: the padded matrix two or three
// times, the Gram matrix in double, and its parts.
// Accuracy relative_error is exact up to 1e-6: sums that become cores are in float.
// Cost     by Gram matrices 2 a b min(a, b) flops in double an unfolding (a, b) and min(a, b)^3 on
//          the host; by the sketch about 14 a b (cap + 8) in float, and Jacobi by a single block.
// Returns  TT_OK; INVALID; SHAPE; NONFINITE (report->position); MEMORY; UNSUPPORTED; CONVERGENCE.
//          *out is zeroed on error. Source [Oseledets11] algorithm 1, [Musco15].
TTDEF tt_status tt_cuda_compress(tt_cuda_context *context, const float *d_w, ptrdiff_t rows,
                                 ptrdiff_t cols, const tt_shape *shape, const tt_options *options,
                                 tt_matrix *out, tt_report *report, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
#endif // TT_CUDA_H_INCLUDED

#if defined(TT_CUDA_IMPLEMENTATION) && !defined(TT_CUDA_IMPLEMENTATION_DONE)
#define TT_CUDA_IMPLEMENTATION_DONE

// ---------------------------------------------------------------------------------------- >>target
// The same source is compiled by nvcc and, against tests/cudaemu.h, by any C++ compiler. Two macros
// differ, and nothing else does: dynamic shared memory and the launch. Launches return their own
// error; cudaGetLastError would take away the caller's.

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef TT_CUDA_EMU
#define TT__CUDA_SHARED(name) float *name = (float *)(void *)emu::the_block->dynamic
#define TT__CUDA_LAUNCH(kernel, grid, block, shared, stream, args)                                 \
  emu_launch(#kernel, kernel, dim3(grid), dim3(block), shared, stream, args)
#else
#include <cuda_runtime.h>
#define TT__CUDA_SHARED(name) extern __shared__ __align__(16) float name[]
#define TT__CUDA_LAUNCH(kernel, grid, block, shared, stream, args)                                 \
  tt__cuda_launch((const void *)kernel, grid, block, shared, stream, args)
template <class Args>
static cudaError_t tt__cuda_launch(const void *kernel, unsigned grid, unsigned block, size_t shared,
                                   cudaStream_t stream, Args args) {
  void *list[1] = {(void *)&args};
  return cudaLaunchKernel(kernel, dim3(grid), dim3(block), list, shared, stream);
}
#endif
#ifdef __CUDACC__
#define TT__CUDA_UNROLL _Pragma("unroll")
#else
#define TT__CUDA_UNROLL
#endif
#define TT__DEVICE static __device__ __forceinline__

enum { TT__CUDA_THREADS = 256 }; // of every block of every kernel

struct tt_cuda_context {
  int device, multiprocessors;
  size_t shared;     // bytes that one block of the fused kernel may have
  size_t svd_shared; // and one of the SVD
  int tensor;        // has tensor cores for TF32
  tt_allocator allocator;
  int native;
};

// Remembers the native code and translates it.
static tt_status tt__cuda_status(tt_cuda_context *context, cudaError_t error) {
  if (error == cudaSuccess) return TT_OK;
  if (context) context->native = (int)error;
  switch ((int)error) {
    case 2: return TT_ERROR_MEMORY;
    case 1:
    case 9:
    case 101: return TT_ERROR_INVALID;
    default: return TT_ERROR_UNSUPPORTED; // no device, no image, capture, failed launches
  }
}

// *value *= factor for factors >= 0; 0 = does not fit, far below PTRDIFF_MAX so that byte counts
// and sums of a few products fit as well.
static int tt__cuda_multiply(ptrdiff_t *value, ptrdiff_t factor) {
  const ptrdiff_t most = PTRDIFF_MAX / 1024;
  if (factor != 0 && *value > most / factor) return 0;
  *value *= factor;
  return 1;
}

static size_t tt__cuda_room(ptrdiff_t floats) { return ((size_t)floats * 4 + 255) / 256 * 256; }

// ---------------------------------------------------------------------------------------- >>decode
// Numbers leave storage in runs of four along a row of the GEMM view (see tt_core in tt.h), one
// load a run: rows start on 16 bytes on the device. Decoding is exact, with integer arithmetic
// where flushing subnormals to zero could change a value.

typedef struct tt__dcore { // a core on the device
  const unsigned char *data;
  const void *scales; // as in tt_core
  float scale;        // never 0
  int dtype, group, rows, length;
  ptrdiff_t row_size; // bytes, a multiple of 16
} tt__dcore;

struct __align__(16) tt__four { float v[4]; };
struct __align__(16) tt__word4 { uint32_t v[4]; };
struct __align__(8) tt__word2 { uint32_t v[2]; };

TT__DEVICE float tt__cuda_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

TT__DEVICE uint32_t tt__cuda_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Without branches, so that several decodings overlap.
TT__DEVICE float tt__cuda_from_f16(uint32_t code) {
  uint32_t sign = (code & 0x8000u) << 16, body = code & 0x7fffu;
  uint32_t normal = (body << 13) + (body >= 0x7c00u ? 224u << 23 : 112u << 23);
  uint32_t subnormal = tt__cuda_bits((float)body * 5.9604644775390625e-8f); // 2^-24
  return tt__cuda_float(sign | (body >= 0x400u ? normal : subnormal));
}

TT__DEVICE float tt__cuda_from_e4m3(uint32_t code) {
  uint32_t sign = (code & 0x80u) << 24, body = code & 0x7fu;
  uint32_t normal = body == 0x7fu ? 0x7fc00000u : (body << 20) + (120u << 23);
  uint32_t subnormal = tt__cuda_bits((float)body * 0.001953125f); // 2^-9
  return tt__cuda_float(sign | (body >= 8 ? normal : subnormal));
}

// To 16 bits, to nearest even.
TT__DEVICE uint32_t tt__cuda_to_f16(float value) {
  uint32_t bits = tt__cuda_bits(value), sign = bits >> 16 & 0x8000u, body = bits & 0x7fffffffu;
  if (body > 0x7f800000u) return sign | 0x7e00u;
  if (body >= 0x47800000u) return sign | 0x7c00u;
  if (body < 0x38800000u) // subnormal: a multiple of 2^-24
    return sign | (uint32_t)rintf(tt__cuda_float(body) * 16777216.0f);
  return sign | (body - (112u << 23) + 0xfffu + (body >> 13 & 1)) >> 13;
}

TT__DEVICE uint32_t tt__cuda_to_bf16(float value) {
  uint32_t bits = tt__cuda_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16 & 0x8000u) | 0x7fc0u;
  return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}

// x and y are F32, F16 or BF16. Loading is apart from decoding everywhere: a load that waits for
// the decoding of the one before costs the latency of memory each time.
TT__DEVICE uint32_t tt__cuda_raw(const void *data, int dtype, ptrdiff_t index) {
  return dtype == TT_F32 ? ((const uint32_t *)data)[index] : ((const uint16_t *)data)[index];
}
TT__DEVICE float tt__cuda_value(uint32_t raw, int dtype) {
  if (dtype == TT_F32) return tt__cuda_float(raw);
  return dtype == TT_F16 ? tt__cuda_from_f16(raw) : tt__cuda_float(raw << 16);
}

// Elements index .. index+3 of such an array, aligned.
TT__DEVICE tt__four tt__cuda_load_four(const void *data, int dtype, ptrdiff_t index) {
  if (dtype == TT_F32) return *(const tt__four *)(const void *)((const float *)data + index);
  tt__word2 raw = *(const tt__word2 *)(const void *)((const uint16_t *)data + index);
  tt__four four;
  TT__CUDA_UNROLL
  for (int t = 0; t < 4; t++)
    four.v[t] = tt__cuda_value(raw.v[t / 2] >> (16 * (t % 2)) & 0xffffu, dtype);
  return four;
}

// The codes j .. j+3 of a row as they lie in memory; j is a multiple of 4. Behind the end of the
// row those at its beginning, for tt__cuda_decode to ignore.
template <int DTYPE> TT__DEVICE tt__word4 tt__cuda_codes(const tt__dcore &core, int row, int j) {
  const unsigned char *at = core.data + row * core.row_size;
  tt__word4 raw = {{0, 0, 0, 0}};
  if (j >= core.length) j = 0;
  if (DTYPE == TT_F32) return *(const tt__word4 *)(const void *)(at + 4 * (ptrdiff_t)j);
  if (DTYPE == TT_F16 || DTYPE == TT_BF16) {
    tt__word2 two = *(const tt__word2 *)(const void *)(at + 2 * (ptrdiff_t)j);
    raw.v[0] = two.v[0];
    raw.v[1] = two.v[1];
  } else if (DTYPE == TT_I4)
    raw.v[0] = *(const uint16_t *)(const void *)(at + j / 2);
  else
    raw.v[0] = *(const uint32_t *)(const void *)(at + j);
  return raw;
}

template <int DTYPE> TT__DEVICE float tt__cuda_number(const tt__word4 &raw, int t) {
  uint32_t half = raw.v[t / 2] >> (16 * (t % 2)) & 0xffffu, byte = raw.v[0] >> (8 * t) & 0xffu;
  switch (DTYPE) {
    case TT_F32: return tt__cuda_float(raw.v[t]);
    case TT_F16: return tt__cuda_from_f16(half);
    case TT_BF16: return tt__cuda_float(half << 16);
    case TT_E4M3: return tt__cuda_from_e4m3(byte);
    case TT_E5M2: return tt__cuda_from_f16(byte << 8);
    case TT_I8: return (float)(int8_t)byte;
    default: return (float)((int)((raw.v[0] >> (4 * t) & 15u) ^ 8u) - 8); // TT_I4
  }
}

// The numbers j .. j+3 of a row of the GEMM view, zeros behind its end, still to be multiplied by
// tt__cuda_row_scale.
template <int DTYPE>
TT__DEVICE tt__four tt__cuda_decode(const tt__dcore &core, int row, int j, const tt__word4 &raw) {
  tt__four run;
  TT__CUDA_UNROLL
  for (int t = 0; t < 4; t++) run.v[t] = j + t < core.length ? tt__cuda_number<DTYPE>(raw, t) : 0;
  if (core.group > 0) {
    int per_row = (core.length - 1) / core.group + 1, last = core.length - 1;
    const uint16_t *scales = (const uint16_t *)core.scales + (ptrdiff_t)row * per_row;
    float scale = 1;
    TT__CUDA_UNROLL
    for (int t = 0; t < 4; t++) {
      if (t == 0 || core.group % 4)
        scale = tt__cuda_from_f16(scales[(j + t < last ? j + t : last) / core.group]);
      run.v[t] *= scale;
    }
  }
  return run;
}

// The scale that a whole row has in common.
TT__DEVICE float tt__cuda_row_scale(const tt__dcore &core, int row) {
  return core.group < 0 ? ((const float *)core.scales)[row] * core.scale : core.scale;
}

// Calls function<DTYPE>(..) for the storage format of a core; its other template arguments follow
// from the arguments.
#define TT__CUDA_BY_FORMAT(core, function, ...)                                                    \
  switch ((core).dtype) {                                                                          \
    case TT_F32: function<TT_F32>(__VA_ARGS__); break;                                             \
    case TT_F16: function<TT_F16>(__VA_ARGS__); break;                                             \
    case TT_BF16: function<TT_BF16>(__VA_ARGS__); break;                                           \
    case TT_E4M3: function<TT_E4M3>(__VA_ARGS__); break;                                           \
    case TT_E5M2: function<TT_E5M2>(__VA_ARGS__); break;                                           \
    case TT_I8: function<TT_I8>(__VA_ARGS__); break;                                               \
    case TT_I4: function<TT_I4>(__VA_ARGS__); break;                                               \
  }

// Where results go: y = alpha (sum + bias) + beta y.
typedef struct tt__output {
  void *data;
  const float *bias; // NULL = none
  int dtype;
  float alpha, beta;
  ptrdiff_t ld, limit; // elements from row to row, and in a row
} tt__output;

// `at` counts from the start of y, `element` from that of its row.
TT__DEVICE void tt__cuda_store(const tt__output &out, ptrdiff_t at, ptrdiff_t element, float sum) {
  if (element >= out.limit) return;
  if (out.bias) sum += out.bias[element];
  sum *= out.alpha;
  if (out.beta != 0)
    sum += out.beta * tt__cuda_value(tt__cuda_raw(out.data, out.dtype, at), out.dtype);
  if (out.dtype == TT_F32)
    ((float *)out.data)[at] = sum;
  else if (out.dtype == TT_F16)
    ((uint16_t *)out.data)[at] = (uint16_t)tt__cuda_to_f16(sum);
  else
    ((uint16_t *)out.data)[at] = (uint16_t)tt__cuda_to_bf16(sum);
}

// ------------------------------------------------------------------------------------------ >>step
// One step of the forward pass within a block: out[p][row][w] = sum_j G[row][j] in[p][j][w], all
// states in shared memory (see >>apply of tt.h: read as [p'][K'][w'], the result is the next
// state). A column q is a pair (p, w). With many columns, tiles of G are decoded into shared memory
// once and each thread keeps 4 rows x 4 columns; with few, a warp takes a row, its lanes share the
// sum.

enum { TT__STAGE_DEPTH = 32, TT__STAGE_PITCH = 68 };
// Columns up to which a warp takes a row: 8 where the numbers of a sum lie side by side (w is 1),
// else 4, because lanes that far apart share banks.
enum { TT__FUSED_COLUMNS = 8, TT__FUSED_APART = 4 };

typedef struct tt__dstep {
  int core;
  int p, w, rows, depth;   // depth: length of the sum
  int in_pitch;            // floats from p to p + 1
  int out_span, out_pitch; // result L lies at L / span * pitch + L % span
  // row i of the step is row i / inner * stride + base + i % inner of G, where the last two terms
  // must stay below stride: a chunk of the rows
  int inner, stride;
  int row_threads; // 0: narrow
} tt__dstep;

// Row i of a step in the GEMM view; -1 = beyond the chunk.
TT__DEVICE int tt__cuda_row(const tt__dstep &step, int base, int i) {
  if (i >= step.rows) return -1;
  int within = base + i % step.inner;
  return within < step.stride ? i / step.inner * step.stride + within : -1;
}

// stage[j - j0][row - r0], 4 * row_threads rows, TT__STAGE_DEPTH deep.
template <int DTYPE>
TT__DEVICE void tt__cuda_stage(const tt__dstep &step, const tt__dcore &core, int base, int r0,
                               int j0, float *stage) {
  enum { RUNS = TT__STAGE_DEPTH / 4 };
  tt__word4 raw[2]; // of at most 64 rows
  int row[2];
  TT__CUDA_UNROLL
  for (int n = 0; n < 2; n++) {
    int t = (int)threadIdx.x + n * TT__CUDA_THREADS, i = t / RUNS;
    row[n] = i < 4 * step.row_threads ? tt__cuda_row(step, base, r0 + i) : -1;
    raw[n] = tt__cuda_codes<DTYPE>(core, row[n] < 0 ? 0 : row[n], j0 + t % RUNS * 4);
  }
  TT__CUDA_UNROLL
  for (int n = 0; n < 2; n++) {
    int t = (int)threadIdx.x + n * TT__CUDA_THREADS, i = t / RUNS, j = t % RUNS * 4;
    if (i >= 4 * step.row_threads) break;
    float scale = row[n] < 0 ? 0 : tt__cuda_row_scale(core, row[n]);
    tt__four run = tt__cuda_decode<DTYPE>(core, row[n] < 0 ? 0 : row[n], j0 + j, raw[n]);
    for (int k = 0; k < 4; k++)
      stage[(j + k) * TT__STAGE_PITCH + i] = row[n] < 0 ? 0 : run.v[k] * scale;
  }
}

// One tile: rows from r0, columns from q0.
TT__DEVICE void tt__cuda_tile(const tt__dstep &step, const tt__dcore &core, int base, int first,
                              int r0, int q0, const float *in, float *out, int add, float *stage) {
  int q_threads = TT__CUDA_THREADS / step.row_threads, columns = step.p * step.w;
  int row_thread = (int)threadIdx.x / q_threads, q_thread = (int)threadIdx.x % q_threads;
  float sum[4][4] = {{0}};
  int from[4];
  TT__CUDA_UNROLL
  for (int k = 0; k < 4; k++) {
    int q = q0 + q_thread + k * q_threads;
    q = q < columns ? q : columns - 1; // computed, not stored
    from[k] = q / step.w * step.in_pitch + q % step.w;
  }
  for (int j0 = first / 4 * 4; j0 < first + step.depth; j0 += TT__STAGE_DEPTH) {
    __syncthreads();
    TT__CUDA_BY_FORMAT(core, tt__cuda_stage, step, core, base, r0, j0, stage)
    __syncthreads();
    int begin = first > j0 ? first : j0, end = first + step.depth;
    if (end > j0 + TT__STAGE_DEPTH) end = j0 + TT__STAGE_DEPTH;
    const float *g = stage + (begin - j0) * TT__STAGE_PITCH + 4 * row_thread;
    const float *x = in + (begin - first) * step.w;
    for (int j = begin; j < end; j++, g += TT__STAGE_PITCH, x += step.w) {
      tt__four a = *(const tt__four *)(const void *)g;
      TT__CUDA_UNROLL
      for (int k = 0; k < 4; k++) {
        float b = x[from[k]];
        TT__CUDA_UNROLL
        for (int i = 0; i < 4; i++) sum[i][k] += a.v[i] * b;
      }
    }
  }
  TT__CUDA_UNROLL
  for (int k = 0; k < 4; k++) {
    int q = q0 + q_thread + k * q_threads;
    if (q >= columns) break;
    TT__CUDA_UNROLL
    for (int i = 0; i < 4; i++) {
      int row = r0 + 4 * row_thread + i;
      if (row >= step.rows) break;
      int at = (q / step.w * step.rows + row) * step.w + q % step.w;
      at = at / step.out_span * step.out_pitch + at % step.out_span;
      out[at] = add ? out[at] + sum[i][k] : sum[i][k];
    }
  }
}

// ROWS rows times COLUMNS columns, this lane's part of the sums. Loads of several rows are under
// way at a time.
template <int DTYPE, int ROWS, int COLUMNS>
TT__DEVICE void tt__cuda_dot(const tt__dstep &step, const tt__dcore &core, const int (&row)[ROWS],
                             int first, const int (&from)[COLUMNS], const float *in, float *sum) {
  int lane = (int)threadIdx.x % 32, w = step.w, end = first + step.depth;
  bool quads = w == 1 && first % 4 == 0 && step.in_pitch % 4 == 0;
  for (int j = first / 4 * 4 + 4 * lane; j < end; j += 128) {
    tt__word4 raw[ROWS];
    tt__four x[COLUMNS];
    TT__CUDA_UNROLL
    for (int i = 0; i < ROWS; i++) raw[i] = tt__cuda_codes<DTYPE>(core, row[i], j);
    TT__CUDA_UNROLL
    for (int k = 0; k < COLUMNS; k++) {
      if (quads && j + 4 <= end) {
        x[k] = *(const tt__four *)(const void *)(in + from[k] + j - first);
        continue;
      }
      for (int t = 0; t < 4; t++)
        x[k].v[t] = j + t >= first && j + t < end ? in[from[k] + (j + t - first) * w] : 0;
    }
    TT__CUDA_UNROLL
    for (int i = 0; i < ROWS; i++) {
      tt__four g = tt__cuda_decode<DTYPE>(core, row[i], j, raw[i]);
      TT__CUDA_UNROLL
      for (int k = 0; k < COLUMNS; k++)
        for (int t = 0; t < 4; t++) sum[i * COLUMNS + k] += g.v[t] * x[k].v[t];
    }
  }
}

TT__DEVICE float tt__cuda_warp_sum(float value) {
  TT__CUDA_UNROLL
  for (int bits = 16; bits; bits /= 2) value += __shfl_xor_sync(0xffffffffu, value, bits);
  return value;
}

// A warp takes ROWS rows, 8 apart, and goes through the columns COLUMNS at a time.
template <int ROWS, int COLUMNS>
TT__DEVICE void tt__cuda_narrow(const tt__dstep &step, const tt__dcore &core, int base, int first,
                                const float *in, float *out, int add) {
  enum { WARPS = TT__CUDA_THREADS / 32 };
  int columns = step.p * step.w, lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  for (int i0 = warp; i0 < step.rows; i0 += ROWS * WARPS) {
    int row[ROWS];
    TT__CUDA_UNROLL
    for (int i = 0; i < ROWS; i++) {
      int at = tt__cuda_row(step, base, i0 + i * WARPS);
      row[i] = at < 0 ? 0 : at; // computed, not stored
    }
    for (int q0 = 0; q0 < columns; q0 += COLUMNS) {
      float sum[ROWS * COLUMNS] = {0};
      int from[COLUMNS];
      TT__CUDA_UNROLL
      for (int k = 0; k < COLUMNS; k++) {
        int q = q0 + k < columns ? q0 + k : columns - 1;
        from[k] = q / step.w * step.in_pitch + q % step.w;
      }
      TT__CUDA_BY_FORMAT(core, tt__cuda_dot, step, core, row, first, from, in, sum)
      TT__CUDA_UNROLL
      for (int t = 0; t < ROWS * COLUMNS; t++) {
        float total = tt__cuda_warp_sum(sum[t]) * tt__cuda_row_scale(core, row[t / COLUMNS]);
        int q = q0 + t % COLUMNS, i = i0 + t / COLUMNS * WARPS;
        int at = (q / step.w * step.rows + i) * step.w + q % step.w;
        at = at / step.out_span * step.out_pitch + at % step.out_span;
        if (lane == t % 32 && q < columns && i < step.rows) out[at] = add ? out[at] + total : total;
      }
    }
  }
}

// ----------------------------------------------------------------------------------------- >>fused
// The forward pass in one kernel. A block takes some rows of the batch and a chunk of the outermost
// row leg (m_d right to left, m_1 left to right): all cores but that one are needed whole, no work
// is done twice, and nothing is added across blocks. Right to left it can also go through n_1 in
// slices, adding what each slice gives to y in the last step, so that the states fit into shared
// memory: 2 states and y. An order of 1 is the case where the first step is also the last.

typedef struct tt__fused {
  const void *x;
  int x_dtype, x_span, x_pitch; // as out_span and out_pitch of a step
  ptrdiff_t ldx, x_limit, batch;
  tt__output out;
  int out_inner, out_stride;                   // as inner and stride of a step
  int order, tile, chunks, chunk_rows, slices; // chunk_rows: rows of G in a chunk of the first step
  int chunk_out;                               // elements of y in a chunk
  int x_count, slice_depth;                    // per slice: elements of x; sums of the last step
  int y_count;                                 // floats of y of one row of the batch
  int buffer[2], y;                            // where they lie in shared memory
  tt__dstep steps[TT_MAX_ORDER];
  tt__dcore cores[TT_MAX_ORDER];
} tt__fused;

// Rows of the batch from b0, the elements of one slice; zeros where there are none.
TT__DEVICE void tt__cuda_fetch(const tt__fused &f, ptrdiff_t b0, int slice, float *to) {
  int count = f.tile * f.x_count;
  for (int t0 = (int)threadIdx.x; t0 < count; t0 += 4 * TT__CUDA_THREADS) {
    uint32_t raw[4];
    TT__CUDA_UNROLL
    for (int k = 0; k < 4; k++) {
      int t = t0 + k * TT__CUDA_THREADS, b = t / f.x_count;
      ptrdiff_t element = (ptrdiff_t)slice * f.x_count + t % f.x_count;
      raw[k] = 0;
      if (t < count && b0 + b < f.batch && element < f.x_limit)
        raw[k] = tt__cuda_raw(f.x, f.x_dtype, (b0 + b) * f.ldx + element);
    }
    TT__CUDA_UNROLL
    for (int k = 0; k < 4; k++) {
      int t = t0 + k * TT__CUDA_THREADS;
      if (t < count)
        to[t / f.x_span * f.x_pitch + t % f.x_span] = tt__cuda_value(raw[k], f.x_dtype);
    }
  }
}

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2) tt__cuda_fused(const tt__fused f) {
  TT__CUDA_SHARED(shared);
  __shared__ __align__(16) float stage[TT__STAGE_DEPTH * TT__STAGE_PITCH];
  int chunk = (int)(blockIdx.x % (unsigned)f.chunks);
  ptrdiff_t b0 = (ptrdiff_t)(blockIdx.x / (unsigned)f.chunks) * f.tile;
  for (int slice = 0; slice < f.slices; slice++) {
    __syncthreads(); // the last slice is done with both buffers
    tt__cuda_fetch(f, b0, slice, shared + f.buffer[0]);
    for (int i = 0; i < f.order; i++) {
      const tt__dstep &step = f.steps[i];
      const tt__dcore &core = f.cores[step.core];
      int last = i + 1 == f.order, first = last ? slice * f.slice_depth : 0,
          add = last && slice > 0;
      int base = i ? 0 : chunk * f.chunk_rows;
      const float *in = shared + f.buffer[i & 1];
      float *out = shared + (last ? f.y : f.buffer[(i + 1) & 1]);
      __syncthreads(); // the state is complete
      if (!step.row_threads) {
        if (step.p * step.w == 1)
          tt__cuda_narrow<4, 1>(step, core, base, first, in, out, add);
        else
          tt__cuda_narrow<2, 4>(step, core, base, first, in, out, add);
        continue;
      }
      for (int r0 = 0; r0 < step.rows; r0 += 4 * step.row_threads)
        for (int q0 = 0; q0 < step.p * step.w; q0 += 4 * TT__CUDA_THREADS / step.row_threads)
          tt__cuda_tile(step, core, base, first, r0, q0, in, out, add, stage);
    }
  }
  __syncthreads();
  for (int t = (int)threadIdx.x; t < f.tile * f.y_count; t += TT__CUDA_THREADS) {
    int b = t / f.y_count, i = t % f.y_count, within = chunk * f.chunk_out + i % f.out_inner;
    ptrdiff_t element = (ptrdiff_t)(i / f.out_inner) * f.out_stride + within;
    if (b0 + b < f.batch && within < f.out_stride)
      tt__cuda_store(f.out, (b0 + b) * f.out.ld + element, element, shared[f.y + t]);
  }
}

// --------------------------------------------------------------------------------------- >>product
// The same step with states in global memory, C[p][row][w] = sum_j G[row][j] S[p][j][w], as one
// kernel. The first step reads x and the last writes y through the same views, with their leading
// dimensions, storage formats and padding. Tiles of 16 SIZE x 16 SIZE numbers; each thread keeps
// SIZE x SIZE of them. With few columns a block takes a row and its threads share the sum.

enum { TT__PRODUCT_DEPTH = 16 };
enum { TT__NARROW = 16 }; // columns up to which a block takes a row

typedef struct tt__dproduct {
  tt__dcore core;
  ptrdiff_t p, w; // core.rows and core.length are the other two
  // S[p][j][w] is element (p % pre) * length * w + j * w + iw of row p / pre; C likewise
  const void *in;
  int in_dtype, quads; // quads: four j at once are aligned
  int tensor;          // TF32 will do
  ptrdiff_t in_pre, in_ld, in_limit;
  ptrdiff_t out_pre;
  tt__output out;
} tt__dproduct;

// Where a column begins: S[j] is in[in_at + j * w] for j < room, and zero from there on; C[row] is
// element out_element + row * w of its row of y, out_at + row * w of y.
typedef struct tt__column {
  ptrdiff_t in_at, out_at, out_element;
  int room; // 0 for a column that is not there
} tt__column;

// Numbers of a column that begins at `first` of a row and goes on in steps of w: `count`, or those
// below `limit`.
TT__DEVICE int tt__cuda_column_room(ptrdiff_t first, ptrdiff_t w, ptrdiff_t limit, int count) {
  ptrdiff_t room = limit > first ? (limit - first + w - 1) / w : 0;
  return room < count ? (int)room : count;
}

TT__DEVICE tt__column tt__cuda_column(const tt__dproduct &f, ptrdiff_t q) {
  tt__column column = {0, 0, 0, 0};
  if (q >= f.p * f.w) return column;
  ptrdiff_t p = q / f.w, w = q % f.w;
  ptrdiff_t first = p % f.in_pre * f.core.length * f.w + w;
  column.in_at = p / f.in_pre * f.in_ld + first;
  column.out_element = p % f.out_pre * f.core.rows * f.w + w;
  column.out_at = p / f.out_pre * f.out.ld + column.out_element;
  column.room = tt__cuda_column_room(first, f.w, f.in_limit, f.core.length);
  return column;
}

// This thread's part of the next tile, on its way from global to shared memory while the present
// one is computed, not decoded yet: runs of G, and numbers of S, where threads run along what lies
// together.
template <int SIZE> struct tt__ahead {
  tt__word4 g[SIZE / 4];
  uint32_t s[SIZE];
};

// Thread t has run t % RUNS of row t / RUNS, and this number of S.
enum { TT__PRODUCT_RUNS = TT__PRODUCT_DEPTH / 4 };
template <int SIZE> TT__DEVICE int tt__cuda_product_column(ptrdiff_t w, int t) {
  return w == 1 ? t / TT__PRODUCT_DEPTH : t % (16 * SIZE);
}
template <int SIZE> TT__DEVICE int tt__cuda_product_depth(ptrdiff_t w, int t) {
  return w == 1 ? t % TT__PRODUCT_DEPTH : t / (16 * SIZE);
}

template <int DTYPE, int SIZE>
TT__DEVICE void tt__cuda_product_codes(const tt__dcore &core, int r0, int j0,
                                       tt__ahead<SIZE> *ahead) {
  TT__CUDA_UNROLL
  for (int n = 0; n < SIZE / 4; n++) {
    int t = (int)threadIdx.x + n * TT__CUDA_THREADS, row = r0 + t / TT__PRODUCT_RUNS;
    ahead->g[n] =
        tt__cuda_codes<DTYPE>(core, row < core.rows ? row : 0, j0 + t % TT__PRODUCT_RUNS * 4);
  }
}

template <int SIZE>
TT__DEVICE void tt__cuda_product_load(const tt__dproduct &f, const tt__column *columns, int r0,
                                      int j0, tt__ahead<SIZE> *ahead) {
  switch (f.core.dtype) { // by the width of a code
    case TT_F32: tt__cuda_product_codes<TT_F32, SIZE>(f.core, r0, j0, ahead); break;
    case TT_F16:
    case TT_BF16: tt__cuda_product_codes<TT_F16, SIZE>(f.core, r0, j0, ahead); break;
    case TT_I4: tt__cuda_product_codes<TT_I4, SIZE>(f.core, r0, j0, ahead); break;
    default: tt__cuda_product_codes<TT_I8, SIZE>(f.core, r0, j0, ahead);
  }
  TT__CUDA_UNROLL
  for (int n = 0; n < SIZE; n++) {
    int t = (int)threadIdx.x + n * TT__CUDA_THREADS;
    int j = j0 + tt__cuda_product_depth<SIZE>(f.w, t);
    const tt__column &column = columns[tt__cuda_product_column<SIZE>(f.w, t)];
    ahead->s[n] = 0;
    if (j < column.room) ahead->s[n] = tt__cuda_raw(f.in, f.in_dtype, column.in_at + j * f.w);
  }
}

// Into g[j - j0][row - r0].
template <int DTYPE, int SIZE>
TT__DEVICE void tt__cuda_product_decode(const tt__dcore &core, int r0, int j0,
                                        const tt__ahead<SIZE> &ahead, int pitch, float *g) {
  TT__CUDA_UNROLL
  for (int n = 0; n < SIZE / 4; n++) {
    int t = (int)threadIdx.x + n * TT__CUDA_THREADS, i = t / TT__PRODUCT_RUNS;
    int j = t % TT__PRODUCT_RUNS * 4, row = r0 + i < core.rows ? r0 + i : 0;
    float scale = tt__cuda_row_scale(core, row); // rows beyond the last are not stored
    tt__four run = tt__cuda_decode<DTYPE>(core, row, j0 + j, ahead.g[n]);
    for (int k = 0; k < 4; k++) g[(j + k) * pitch + i] = run.v[k] * scale;
  }
}

// Into s[j - j0][q - q0] as well.
template <int SIZE>
TT__DEVICE void tt__cuda_product_put(const tt__dproduct &f, int r0, int j0,
                                     const tt__ahead<SIZE> &ahead, int pitch, float *g, float *s) {
  TT__CUDA_BY_FORMAT(f.core, tt__cuda_product_decode, f.core, r0, j0, ahead, pitch, g)
  TT__CUDA_UNROLL
  for (int n = 0; n < SIZE; n++) {
    int t = (int)threadIdx.x + n * TT__CUDA_THREADS;
    s[tt__cuda_product_depth<SIZE>(f.w, t) * pitch + tt__cuda_product_column<SIZE>(f.w, t)] =
        tt__cuda_value(ahead.s[n], f.in_dtype);
  }
}

// TF32: a float with 10 bits of mantissa, to nearest, ties away from zero; NaN and Inf stay.
TT__DEVICE float tt__cuda_to_tf32(float value) {
  uint32_t bits = tt__cuda_bits(value);
  if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & 0xffffe000u;
  return tt__cuda_float(bits);
}

// sum (16, 8) += a (16, 8) b (8, 8), spread over a warp: with g = lane / 4 and t = lane % 4, a lane
// holds a(g, t), a(g+8, t), a(g, t+4), a(g+8, t+4); b(t, g), b(t+4, g); and of the sum (g, 2t),
// (g, 2t+1), (g+8, 2t), (g+8, 2t+1). Source: PTX ISA, mma.m16n8k8. Tensor cores have TF32 from 8.0
// on; elsewhere the lanes fetch from each other what they need.
TT__DEVICE void tt__cuda_mma(float *low_sum, float *high_sum, const float *a, const float *b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
               "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
               : "+f"(low_sum[0]), "+f"(low_sum[1]), "+f"(high_sum[0]), "+f"(high_sum[1])
               : "r"(tt__cuda_bits(a[0])), "r"(tt__cuda_bits(a[1])), "r"(tt__cuda_bits(a[2])),
                 "r"(tt__cuda_bits(a[3])), "r"(tt__cuda_bits(b[0])), "r"(tt__cuda_bits(b[1])));
#else
  int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
  TT__CUDA_UNROLL
  for (int k = 0; k < 8; k++) {
    int half = k / 4, from = k % 4;
    float low = __shfl_sync(0xffffffffu, a[2 * half], 4 * g + from);
    float high = __shfl_sync(0xffffffffu, a[2 * half + 1], 4 * g + from);
    float left = __shfl_sync(0xffffffffu, b[half], 8 * t + from);
    float right = __shfl_sync(0xffffffffu, b[half], 8 * t + 4 + from);
    low_sum[0] += low * left;
    low_sum[1] += low * right;
    high_sum[0] += high * left;
    high_sum[1] += high * right;
  }
#endif
}

// The SIZE rows and SIZE columns of a tile whose products a thread adds up: fours, 64 apart, of 16
// x 16 threads; or, with tensor cores, those of the fragments of a warp, which has 8 SIZE x 4 SIZE.
template <int SIZE, int TENSOR> TT__DEVICE int tt__cuda_tile_row(int w_is_1, int i) {
  int thread = (int)threadIdx.x;
  if (TENSOR) return thread / 128 * 8 * SIZE + 8 * i + thread % 32 / 4;
  // neighbouring threads write what lies together: rows where w is 1, else columns
  return 4 * (w_is_1 ? thread % 16 : thread / 16) + i % 4 + i / 4 * 64;
}
template <int SIZE, int TENSOR> TT__DEVICE int tt__cuda_tile_column(int w_is_1, int k) {
  int thread = (int)threadIdx.x;
  if (TENSOR) return thread / 32 % 4 * 4 * SIZE + k / 2 * 8 + thread % 4 * 2 + k % 2;
  return 4 * (w_is_1 ? thread / 16 : thread % 16) + k % 4 + k / 4 * 64;
}

// sum += G S of one tile, in shared memory as g[j][row] and s[j][column].
template <int SIZE, int PITCH>
TT__DEVICE void tt__cuda_product_fma(const float *g, const float *s, float (&sum)[SIZE][SIZE]) {
  TT__CUDA_UNROLL
  for (int j = 0; j < TT__PRODUCT_DEPTH; j++) {
    float a[SIZE], b[SIZE];
    TT__CUDA_UNROLL
    for (int k = 0; k < SIZE; k += 4) {
      tt__four four = *(const tt__four *)(const void *)(g + j * PITCH + 16 * k);
      tt__four other = *(const tt__four *)(const void *)(s + j * PITCH + 16 * k);
      TT__CUDA_UNROLL
      for (int t = 0; t < 4; t++) {
        a[k + t] = four.v[t];
        b[k + t] = other.v[t];
      }
    }
    TT__CUDA_UNROLL
    for (int i = 0; i < SIZE; i++)
      for (int k = 0; k < SIZE; k++) sum[i][k] += a[i] * b[k];
  }
}
template <int SIZE, int PITCH>
TT__DEVICE void tt__cuda_product_tensor(const float *g, const float *s, float (&sum)[SIZE][SIZE]) {
  int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  g += lane % 4 * PITCH + warp / 4 * 8 * SIZE + lane / 4;
  s += lane % 4 * PITCH + warp % 4 * 4 * SIZE + lane / 4;
  TT__CUDA_UNROLL
  for (int j = 0; j < TT__PRODUCT_DEPTH; j += 8, g += 8 * PITCH, s += 8 * PITCH) {
    float a[SIZE / 2][4], b[SIZE / 2][2];
    TT__CUDA_UNROLL
    for (int i = 0; i < SIZE / 2; i++)
      for (int k = 0; k < 4; k++)
        a[i][k] = tt__cuda_to_tf32(g[k / 2 * 4 * PITCH + 16 * i + k % 2 * 8]);
    TT__CUDA_UNROLL
    for (int i = 0; i < SIZE / 2; i++)
      for (int k = 0; k < 2; k++) b[i][k] = tt__cuda_to_tf32(s[k * 4 * PITCH + 8 * i]);
    TT__CUDA_UNROLL
    for (int i = 0; i < SIZE / 2; i++)
      for (int k = 0; k < SIZE / 2; k++)
        tt__cuda_mma(&sum[2 * i][2 * k], &sum[2 * i + 1][2 * k], a[i], b[k]);
  }
}

template <int SIZE, int TENSOR> TT__DEVICE void tt__cuda_product(const tt__dproduct &f) {
  // the pitch keeps the fragments of a warp, or its fours, in different banks
  enum { TILE = 16 * SIZE, PITCH = TILE + (TENSOR ? 8 : 4) };
  __shared__ __align__(16) float g[TT__PRODUCT_DEPTH * PITCH], s[TT__PRODUCT_DEPTH * PITCH];
  __shared__ tt__column columns[TILE];
  unsigned row_tiles = ((unsigned)f.core.rows + TILE - 1) / TILE;
  int r0 = (int)(blockIdx.x % row_tiles) * TILE;
  ptrdiff_t q0 = (ptrdiff_t)(blockIdx.x / row_tiles) * TILE;
  float sum[SIZE][SIZE] = {{0}};
  if ((int)threadIdx.x < TILE) columns[threadIdx.x] = tt__cuda_column(f, q0 + (int)threadIdx.x);
  tt__ahead<SIZE> ahead;
  __syncthreads();
  tt__cuda_product_load<SIZE>(f, columns, r0, 0, &ahead);
  for (int j0 = 0; j0 < f.core.length; j0 += TT__PRODUCT_DEPTH) {
    tt__cuda_product_put<SIZE>(f, r0, j0, ahead, PITCH, g, s);
    __syncthreads();
    if (j0 + TT__PRODUCT_DEPTH < f.core.length)
      tt__cuda_product_load<SIZE>(f, columns, r0, j0 + TT__PRODUCT_DEPTH, &ahead);
    if (TENSOR)
      tt__cuda_product_tensor<SIZE, PITCH>(g, s, sum);
    else
      tt__cuda_product_fma<SIZE, PITCH>(g + tt__cuda_tile_row<SIZE, 0>(f.w == 1, 0),
                                        s + tt__cuda_tile_column<SIZE, 0>(f.w == 1, 0), sum);
    __syncthreads(); // the tile has been used
  }
  TT__CUDA_UNROLL
  for (int k = 0; k < SIZE; k++) {
    int q = tt__cuda_tile_column<SIZE, TENSOR>(f.w == 1, k);
    const tt__column &column = columns[q];
    if (q0 + q >= f.p * f.w) continue;
    TT__CUDA_UNROLL
    for (int i = 0; i < SIZE; i++) {
      int row = r0 + tt__cuda_tile_row<SIZE, TENSOR>(f.w == 1, i);
      if (row < f.core.rows)
        tt__cuda_store(f.out, column.out_at + row * f.w, column.out_element + row * f.w, sum[i][k]);
    }
  }
}

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2)
    tt__cuda_product_64(const tt__dproduct f) {
  tt__cuda_product<4, 0>(f);
}
static __global__ void __launch_bounds__(TT__CUDA_THREADS, 1)
    tt__cuda_product_128(const tt__dproduct f) {
  tt__cuda_product<8, 0>(f);
}
static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2)
    tt__cuda_tensor_64(const tt__dproduct f) {
  tt__cuda_product<4, 1>(f);
}
static __global__ void __launch_bounds__(TT__CUDA_THREADS, 1)
    tt__cuda_tensor_128(const tt__dproduct f) {
  tt__cuda_product<8, 1>(f);
}

// This thread's part of four columns of one row.
template <int DTYPE>
TT__DEVICE void tt__cuda_product_dot(const tt__dproduct &f, const tt__column *columns, int row,
                                     float *sum) {
  enum { AHEAD = 4, STEP = 4 * TT__CUDA_THREADS };
  for (int j0 = 4 * (int)threadIdx.x; j0 < f.core.length; j0 += AHEAD * STEP) {
    tt__word4 raw[AHEAD];
    TT__CUDA_UNROLL
    for (int n = 0; n < AHEAD; n++) raw[n] = tt__cuda_codes<DTYPE>(f.core, row, j0 + n * STEP);
    TT__CUDA_UNROLL
    for (int n = 0; n < AHEAD; n++) {
      int j = j0 + n * STEP;
      if (j >= f.core.length) break;
      tt__four g = tt__cuda_decode<DTYPE>(f.core, row, j, raw[n]);
      TT__CUDA_UNROLL
      for (int k = 0; k < 4; k++) {
        const tt__column &column = columns[k];
        tt__four x = {{0, 0, 0, 0}};
        if (f.quads && j + 4 <= column.room)
          x = tt__cuda_load_four(f.in, f.in_dtype, column.in_at + j);
        else
          for (int t = 0; t < 4; t++)
            if (j + t < column.room)
              x.v[t] = tt__cuda_value(tt__cuda_raw(f.in, f.in_dtype, column.in_at + (j + t) * f.w),
                                      f.in_dtype);
        for (int t = 0; t < 4; t++) sum[k] += g.v[t] * x.v[t];
      }
    }
  }
}

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2)
    tt__cuda_product_narrow(const tt__dproduct f) {
  __shared__ float part[TT__CUDA_THREADS / 32][4];
  int row = (int)(blockIdx.x % (unsigned)f.core.rows);
  ptrdiff_t q0 = (ptrdiff_t)(blockIdx.x / (unsigned)f.core.rows) * 4;
  int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  float sum[4] = {0, 0, 0, 0};
  tt__column columns[4];
  TT__CUDA_UNROLL
  for (int k = 0; k < 4; k++) columns[k] = tt__cuda_column(f, q0 + k);
  TT__CUDA_BY_FORMAT(f.core, tt__cuda_product_dot, f, columns, row, sum)
  TT__CUDA_UNROLL
  for (int k = 0; k < 4; k++) {
    float total = tt__cuda_warp_sum(sum[k]);
    if (lane == 0) part[warp][k] = total;
  }
  __syncthreads();
  int k = (int)threadIdx.x;
  if (k < 4 && q0 + k < f.p * f.w) {
    tt__column column = tt__cuda_column(f, q0 + k);
    float total = 0;
    for (int i = 0; i < TT__CUDA_THREADS / 32; i++) total += part[i][k];
    tt__cuda_store(f.out, column.out_at + row * f.w, column.out_element + row * f.w,
                   total * tt__cuda_row_scale(f.core, row));
  }
}

// ---------------------------------------------------------------------------------------- >>tensor
// y = x W^T where x and W are BF16 and rows of both lie in one piece, aligned to 16 bytes: what
// DENSE comes down to. A block takes 128 x 128 numbers of y. Tiles of x and of W, 128 rows of 32
// numbers, come into shared memory by asynchronous copies, two tiles ahead of the sums; its eight
// warps have 64 rows of x and 32 of W each.

enum { TT__TENSOR_TILE = 128, TT__TENSOR_DEPTH = 32, TT__TENSOR_STAGES = 3 };

typedef struct tt__dtensor {
  const uint16_t *x, *w; // (batch, depth) and (rows, depth)
  ptrdiff_t batch, ldx, ldw;
  int rows, depth;
  tt__output out;
} tt__dtensor;

// Starts to copy `bytes` bytes to shared memory, and zeros up to 16. Both are aligned to 16 bytes.
// What was started between two calls of close is a group; wait<N> waits for all groups of this
// thread but the last N. (Devices before 8.0 have none of this and never come here.)
TT__DEVICE void tt__cuda_copy_ahead(void *to, const void *from, int bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from), "r"(bytes)
               : "memory");
#elif defined(TT_CUDA_EMU)
  emu::copy_ahead(to, from, bytes);
#endif
}
TT__DEVICE void tt__cuda_close_copies(void) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" : : : "memory");
#elif defined(TT_CUDA_EMU)
  emu::close_copies();
#endif
}
template <int GROUPS> TT__DEVICE void tt__cuda_wait_copies(void) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" : : "n"(GROUPS) : "memory");
#elif defined(TT_CUDA_EMU)
  emu::wait_copies(GROUPS);
#endif
}

// Four 8 x 8 matrices of 16-bit numbers from shared memory: lane i says where row i % 8 of matrix
// i / 8 begins, and gets of each matrix the numbers 2 (i % 4) and the next of row i / 4.
TT__DEVICE void tt__cuda_load_matrices(const uint16_t *row, uint32_t *out) {
#ifdef __CUDA_ARCH__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"((uint32_t)__cvta_generic_to_shared(row))
               : "memory");
#else
  int lane = (int)threadIdx.x % 32;
  for (int i = 0; i < 4; i++) {
    const uint16_t *from = __shfl_sync(0xffffffffu, row, 8 * i + lane / 4) + lane % 4 * 2;
    out[i] = from[0] | (uint32_t)from[1] << 16;
  }
#endif
}

// sum (16, 8) += a (16, 16) b (16, 8) in BF16, two numbers a register. With g = lane / 4 and t =
// lane % 4, a lane holds, of the numbers k = 2t and 2t+1: a(g, k), a(g+8, k), a(g, k+8), a(g+8,
// k+8); b(k, g), b(k+8, g); and of the sum (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1). Source: PTX
// ISA, mma.m16n8k16. In the emulation the lanes fetch from each other what they need.
TT__DEVICE void tt__cuda_mma_bf16(float *sum, const uint32_t *a, const uint32_t *b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(TT_CUDA_EMU)
  int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
  for (int k = 0; k < 16; k += 2) {
    int half = k / 8, from = k % 8 / 2;
    uint32_t low = __shfl_sync(0xffffffffu, a[2 * half], 4 * g + from);
    uint32_t high = __shfl_sync(0xffffffffu, a[2 * half + 1], 4 * g + from);
    uint32_t left = __shfl_sync(0xffffffffu, b[half], 8 * t + from);
    uint32_t right = __shfl_sync(0xffffffffu, b[half], 8 * t + 4 + from);
    for (int shift = 16; shift >= 0; shift -= 16) {
      float left_value = tt__cuda_float(left << shift & 0xffff0000u);
      float right_value = tt__cuda_float(right << shift & 0xffff0000u);
      sum[0] += tt__cuda_float(low << shift & 0xffff0000u) * left_value;
      sum[1] += tt__cuda_float(low << shift & 0xffff0000u) * right_value;
      sum[2] += tt__cuda_float(high << shift & 0xffff0000u) * left_value;
      sum[3] += tt__cuda_float(high << shift & 0xffff0000u) * right_value;
    }
  }
#endif
}

// Where eight numbers of a tile lie: the same eight of eight rows in a row, in different banks.
TT__DEVICE int tt__cuda_tensor_at(int row, int eight) {
  return row * TT__TENSOR_DEPTH + 8 * (eight ^ row / 2 % 4);
}

// Starts to copy rows first .. of a (count, depth), numbers k0 .., into one tile; zeros where there
// are none.
TT__DEVICE void tt__cuda_tensor_fetch(const uint16_t *from, ptrdiff_t ld, ptrdiff_t first,
                                      ptrdiff_t count, int k0, int depth, uint16_t *tile) {
  enum { EIGHTS = TT__TENSOR_DEPTH / 8 };
  TT__CUDA_UNROLL
  for (int n = 0; n < TT__TENSOR_TILE * EIGHTS / TT__CUDA_THREADS; n++) {
    int t = (int)threadIdx.x + n * TT__CUDA_THREADS, row = t / EIGHTS, k = k0 + t % EIGHTS * 8;
    int bytes = first + row < count && k < depth ? 2 * (depth - k < 8 ? depth - k : 8) : 0;
    tt__cuda_copy_ahead(tile + tt__cuda_tensor_at(row, t % EIGHTS),
                        bytes ? from + (first + row) * ld + k : from, bytes);
  }
}

// The next tiles of x and W; a group even where there are none, so that groups can be counted.
TT__DEVICE void tt__cuda_tensor_ahead(const tt__dtensor &f, ptrdiff_t b0, int r0, int step,
                                      uint16_t *x, uint16_t *w) {
  int k0 = step * TT__TENSOR_DEPTH;
  if (k0 < f.depth) {
    tt__cuda_tensor_fetch(f.x, f.ldx, b0, f.batch, k0, f.depth, x);
    tt__cuda_tensor_fetch(f.w, f.ldw, r0, f.rows, k0, f.depth, w);
  }
  tt__cuda_close_copies();
}

// sum[i][k] += rows 16 i .. of x times rows 8 k .. of W, of this warp's part of the tiles.
TT__DEVICE void tt__cuda_tensor_multiply(const uint16_t *x, const uint16_t *w,
                                         float (&sum)[4][4][4]) {
  int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  int x_row = warp / 4 * 64 + lane % 16, w_row = warp % 4 * 32 + lane / 16 * 8 + lane % 8;
  TT__CUDA_UNROLL
  for (int k = 0; k < TT__TENSOR_DEPTH / 8; k += 2) {
    uint32_t a[4][4], b[4][2];
    TT__CUDA_UNROLL
    for (int i = 0; i < 4; i++)
      tt__cuda_load_matrices(x + tt__cuda_tensor_at(x_row + 16 * i, k + lane / 16), a[i]);
    TT__CUDA_UNROLL
    for (int i = 0; i < 4; i += 2)
      tt__cuda_load_matrices(w + tt__cuda_tensor_at(w_row + 8 * i, k + lane / 8 % 2), b[i]);
    TT__CUDA_UNROLL
    for (int i = 0; i < 4; i++)
      for (int j = 0; j < 4; j++) tt__cuda_mma_bf16(sum[i][j], a[i], b[j]);
  }
}

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2)
    tt__cuda_tensor_bf16(const tt__dtensor f) {
  enum { SIZE = TT__TENSOR_TILE * TT__TENSOR_DEPTH, AHEAD = TT__TENSOR_STAGES - 1 };
  __shared__ __align__(128) uint16_t x[TT__TENSOR_STAGES * SIZE], w[TT__TENSOR_STAGES * SIZE];
  int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  unsigned row_tiles = ((unsigned)f.rows + TT__TENSOR_TILE - 1) / TT__TENSOR_TILE;
  int r0 = (int)(blockIdx.x % row_tiles) * TT__TENSOR_TILE;
  ptrdiff_t b0 = (ptrdiff_t)(blockIdx.x / row_tiles) * TT__TENSOR_TILE;
  float sum[4][4][4] = {{{0}}};
  for (int step = 0; step < AHEAD; step++)
    tt__cuda_tensor_ahead(f, b0, r0, step, x + step * SIZE, w + step * SIZE);
  for (int step = 0; step * TT__TENSOR_DEPTH < f.depth; step++) {
    int now = step % TT__TENSOR_STAGES * SIZE, next = (step + AHEAD) % TT__TENSOR_STAGES * SIZE;
    tt__cuda_wait_copies<AHEAD - 1>();
    __syncthreads(); // all copies of this step are here, and all threads are done with the last
    tt__cuda_tensor_ahead(f, b0, r0, step + AHEAD, x + next, w + next);
    tt__cuda_tensor_multiply(x + now, w + now, sum);
  }
  tt__output out = f.out;
  out.dtype = TT_BF16; // as x; now the compiler knows
  b0 += warp / 4 * 64 + lane / 4;
  r0 += warp % 4 * 32 + lane % 4 * 2;
  TT__CUDA_UNROLL
  for (int t = 0; t < 64; t++) {
    ptrdiff_t item = b0 + t / 16 * 16 + t / 2 % 2 * 8;
    int row = r0 + t / 4 % 4 * 8 + t % 2;
    if (item < f.batch && row < f.rows)
      tt__cuda_store(out, item * out.ld + row, row, sum[t / 16][t / 4 % 4][t % 4]);
  }
}

// ------------------------------------------------------------------------------------------ >>pair
// The fused forward pass of a train of two cores, swept right to left, on tensor cores: all numbers
// are BF16, sums are float. A block takes 8 rows of the batch, 8 numbers of the row leg m_2 and 64
// of m_1. It goes through n_1 in slices: T = G_2 x for a slice, rounded to BF16, then y += G_1 T,
// which stays in registers. Every part of the sums is padded with zeros to a multiple of 16.

enum { TT__PAIR_ITEMS = 8, TT__PAIR_CHUNK = 8, TT__PAIR_ROWS = 64, TT__PAIR_DEPTH = 256 };

typedef struct tt__dpair {
  tt__dcore outer, inner; // G_1 (m_1, n_1 r) and G_2 (r m_2, n_2)
  const uint16_t *x;
  ptrdiff_t batch, ldx, cols;
  int m_1, m_2, n_1, n_2, rank;
  int slice;                // numbers of n_1 at a time, a multiple of 4
  int inner_rows;           // of G_2 in a block: 8 r, rounded up to 16
  int x_pitch, state_pitch; // numbers from row to row; 16-byte units from row to row are odd
  tt__output out;
} tt__dpair;

// A multiple of 16, and of the pitch that keeps eight rows in different banks.
TT__DEVICE int tt__cuda_pair_deep(int count) { return (count + 15) / 16 * 16; }

// Rows of a core, numbers j0 .. j0 + width - 1, into shared memory.
template <int DTYPE>
TT__DEVICE void tt__cuda_pair_decode(const tt__dcore &core, const tt__dstep &step, int base,
                                     int rows, int j0, int width, int pitch, uint16_t *to) {
  for (int t = (int)threadIdx.x; t < rows * (width / 4); t += TT__CUDA_THREADS) {
    int i = t / (width / 4), j = t % (width / 4) * 4, row = tt__cuda_row(step, base, i);
    float scale = row < 0 ? 0 : tt__cuda_row_scale(core, row);
    tt__word4 raw = tt__cuda_codes<DTYPE>(core, row < 0 ? 0 : row, j0 + j);
    tt__four run = tt__cuda_decode<DTYPE>(core, row < 0 ? 0 : row, j0 + j, raw);
    uint32_t *codes = (uint32_t *)(void *)(to + i * pitch + j);
    for (int k = 0; k < 2; k++)
      codes[k] = row < 0 ? 0
                         : tt__cuda_to_bf16(run.v[2 * k] * scale) |
                               tt__cuda_to_bf16(run.v[2 * k + 1] * scale) << 16;
  }
}

// Starts to copy a slice of x: row (item, n_1), numbers n_2.
TT__DEVICE void tt__cuda_pair_fetch(const tt__dpair &f, ptrdiff_t b0, int n0, uint16_t *x) {
  int eights = tt__cuda_pair_deep(f.n_2) / 8;
  for (int t = (int)threadIdx.x; t < TT__PAIR_ITEMS * f.slice * eights; t += TT__CUDA_THREADS) {
    int row = t / eights, k = t % eights * 8, n = n0 + row % f.slice;
    ptrdiff_t item = b0 + row / f.slice, element = (ptrdiff_t)n * f.n_2 + k;
    ptrdiff_t room = item < f.batch && n < f.n_1 && k < f.n_2 ? f.cols - element : 0;
    int bytes = room >= 8 ? 16 : room > 0 ? 2 * (int)room : 0;
    tt__cuda_copy_ahead(x + row * f.x_pitch + k, bytes ? f.x + item * f.ldx + element : f.x, bytes);
  }
  tt__cuda_close_copies();
}

// T of a slice as state[(item, m_2)][(n_1, r)]: tiles of 16 rows of G_2 and 16 of x by turns.
TT__DEVICE void tt__cuda_pair_inner(const tt__dpair &f, const uint16_t *g, const uint16_t *x,
                                    uint16_t *state) {
  int lane = (int)threadIdx.x % 32, across = TT__PAIR_ITEMS * f.slice / 16;
  int depth = tt__cuda_pair_deep(f.n_2);
  for (int tile = (int)threadIdx.x / 32; tile < f.inner_rows / 16 * across;
       tile += TT__CUDA_THREADS / 32) {
    int row = tile / across * 16, column = tile % across * 16;
    const uint16_t *left = g + (row + lane % 16) * f.x_pitch + lane / 16 * 8;
    const uint16_t *right =
        x + (column + lane / 16 * 8 + lane % 8) * f.x_pitch + lane / 8 % 2 * 8;
    float sum[2][4] = {{0}};
    for (int k = 0; k < depth; k += 16) {
      uint32_t a[4], b[4];
      tt__cuda_load_matrices(left + k, a);
      tt__cuda_load_matrices(right + k, b);
      tt__cuda_mma_bf16(sum[0], a, b);
      tt__cuda_mma_bf16(sum[1], a, b + 2);
    }
    TT__CUDA_UNROLL
    for (int t = 0; t < 8; t++) {
      int i = row + lane / 4 + t / 2 % 2 * 8, r = i / TT__PAIR_CHUNK;
      int at = column + t / 4 * 8 + lane % 4 * 2 + t % 2, item = at / f.slice;
      if (r < f.rank)
        state[(item * TT__PAIR_CHUNK + i % TT__PAIR_CHUNK) * f.state_pitch +
              at % f.slice * f.rank + r] = (uint16_t)tt__cuda_to_bf16(sum[t / 4][t % 4]);
    }
  }
}

// y += G_1 T of a slice: this warp's 16 numbers of m_1 times 32 pairs (item, m_2).
TT__DEVICE void tt__cuda_pair_outer(const tt__dpair &f, const uint16_t *g, const uint16_t *state,
                                    float (&sum)[4][4]) {
  int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  g += (warp % 4 * 16 + lane % 16) * f.state_pitch + lane / 16 * 8;
  state += (warp / 4 * 32 + lane / 16 * 8 + lane % 8) * f.state_pitch + lane / 8 % 2 * 8;
  for (int k = 0; k < f.slice * f.rank; k += 16) {
    uint32_t a[4], b[4][2];
    tt__cuda_load_matrices(g + k, a);
    tt__cuda_load_matrices(state + k, b[0]);
    tt__cuda_load_matrices(state + 16 * f.state_pitch + k, b[2]);
    TT__CUDA_UNROLL
    for (int i = 0; i < 4; i++) tt__cuda_mma_bf16(sum[i], a, b[i]);
  }
}

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2)
    tt__cuda_tensor_pair(const tt__dpair f) {
  TT__CUDA_SHARED(shared);
  uint16_t *inner = (uint16_t *)(void *)shared, *x = inner + f.inner_rows * f.x_pitch;
  uint16_t *outer = x + TT__PAIR_ITEMS * f.slice * f.x_pitch;
  uint16_t *state = outer + TT__PAIR_ROWS * f.state_pitch;
  int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, at = (int)blockIdx.x;
  int chunks = (f.m_2 + TT__PAIR_CHUNK - 1) / TT__PAIR_CHUNK;
  int tiles = (f.m_1 + TT__PAIR_ROWS - 1) / TT__PAIR_ROWS;
  int base_2 = at % chunks * TT__PAIR_CHUNK, base_1 = at / chunks % tiles * TT__PAIR_ROWS;
  ptrdiff_t b0 = (ptrdiff_t)(at / chunks / tiles) * TT__PAIR_ITEMS;
  tt__dstep rows_1, rows_2; // of which tt__cuda_row reads these three
  rows_2.rows = f.rank * TT__PAIR_CHUNK;
  rows_2.inner = TT__PAIR_CHUNK;
  rows_2.stride = f.m_2;
  rows_1.rows = rows_1.inner = TT__PAIR_ROWS;
  rows_1.stride = f.m_1;
  TT__CUDA_BY_FORMAT(f.inner, tt__cuda_pair_decode, f.inner, rows_2, base_2, f.inner_rows, 0,
                     tt__cuda_pair_deep(f.n_2), f.x_pitch, inner)
  for (int t = (int)threadIdx.x; t < TT__PAIR_ITEMS * TT__PAIR_CHUNK * f.state_pitch;
       t += TT__CUDA_THREADS)
    state[t] = 0;
  float sum[4][4] = {{0}};
  for (int n = 0; n < f.n_1; n += f.slice) {
    __syncthreads(); // the last slice has been used
    tt__cuda_pair_fetch(f, b0, n, x);
    TT__CUDA_BY_FORMAT(f.outer, tt__cuda_pair_decode, f.outer, rows_1, base_1, TT__PAIR_ROWS,
                       n * f.rank, tt__cuda_pair_deep(f.slice * f.rank), f.state_pitch, outer)
    tt__cuda_wait_copies<0>();
    __syncthreads(); // G_1 and x are complete
    tt__cuda_pair_inner(f, inner, x, state);
    __syncthreads(); // T is complete
    tt__cuda_pair_outer(f, outer, state, sum);
  }
  tt__output out = f.out;
  out.dtype = TT_BF16; // as x; now the compiler knows
  base_1 += warp % 4 * 16 + lane / 4;
  TT__CUDA_UNROLL
  for (int t = 0; t < 16; t++) {
    int column = warp / 4 * 32 + t / 4 * 8 + lane % 4 * 2 + t % 2;
    int i_1 = base_1 + t / 2 % 2 * 8, i_2 = base_2 + column % TT__PAIR_CHUNK;
    ptrdiff_t item = b0 + column / TT__PAIR_CHUNK, element = (ptrdiff_t)i_1 * f.m_2 + i_2;
    if (i_1 < f.m_1 && i_2 < f.m_2 && item < f.batch)
      tt__cuda_store(out, item * out.ld + element, element, sum[t / 4][t % 4]);
  }
}

// ----------------------------------------------------------------------------------------- >>slice
// Row o of W is the product of the slices G_k[:, o_k, :, :] of its digits (see >>apply of tt.h).
// One step multiplies the state of every item by a slice: an item is a wanted row, or, for the
// dense matrix, one of the prefixes (left to right: suffixes) of all row numbers, and then the
// results of the last step are W in its natural order, so that nothing is ever transposed.

typedef struct tt__dslice {
  tt__dcore core;
  const float *in;  // NULL = the state 1, before the first step
  const int *index; // NULL = all prefixes or suffixes
  ptrdiff_t items, matrix_rows;
  ptrdiff_t source_divide, source_modulo; // source = item / divide % modulo
  ptrdiff_t digit_divide, digit_modulo;   // of the item or of its row number
  ptrdiff_t outer, in_size;               // columns in the state; floats of one state
  int depth, digit_step, depth_step;      // row of G: digit * digit_step + t * depth_step
  ptrdiff_t in_outer, in_depth, out_outer, out_along; // strides
  void *out;
  int in_bf16; // out is, not float
  ptrdiff_t out_ld, out_limit;
} tt__dslice;

// The sums for outer columns u0 .. u0+3 and numbers l .. l+3 of a row of the slice.
template <int DTYPE>
TT__DEVICE void tt__cuda_slice_sum(const tt__dslice &f, const float *state, int digit, ptrdiff_t u0,
                                   int l, tt__four *sum) {
  enum { AHEAD = 4 };
  for (int t0 = 0; t0 < f.depth; t0 += AHEAD) {
    tt__word4 raw[AHEAD];
    float a[AHEAD][4];
    TT__CUDA_UNROLL
    for (int n = 0; n < AHEAD; n++) {
      int t = t0 + n < f.depth ? t0 + n : t0;
      raw[n] = tt__cuda_codes<DTYPE>(f.core, digit * f.digit_step + t * f.depth_step, l);
      for (int k = 0; k < 4; k++) {
        a[n][k] = state ? 0 : 1;
        if (state && u0 + k < f.outer) a[n][k] = state[(u0 + k) * f.in_outer + t * f.in_depth];
      }
    }
    TT__CUDA_UNROLL
    for (int n = 0; n < AHEAD; n++) {
      int row = digit * f.digit_step + (t0 + n) * f.depth_step;
      if (t0 + n >= f.depth) break;
      tt__four g = tt__cuda_decode<DTYPE>(f.core, row, l, raw[n]);
      float scale = tt__cuda_row_scale(f.core, row);
      for (int k = 0; k < 4; k++)
        for (int i = 0; i < 4; i++) sum[k].v[i] += a[n][k] * scale * g.v[i];
    }
  }
}

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2) tt__cuda_slice(const tt__dslice f) {
  ptrdiff_t runs = (f.core.length + 3) / 4, quads = (f.outer + 3) / 4;
  ptrdiff_t thread = (ptrdiff_t)blockIdx.x * TT__CUDA_THREADS + (int)threadIdx.x;
  ptrdiff_t item = thread / (runs * quads), rest = thread % (runs * quads);
  if (item >= f.items) return;
  ptrdiff_t u0 = rest / runs * 4, number = f.index ? f.index[item] : item;
  int l = (int)(rest % runs) * 4, exists = number >= 0 && (!f.index || number < f.matrix_rows);
  int digit = exists ? (int)(number / f.digit_divide % f.digit_modulo) : 0;
  tt__four sum[4] = {{{0, 0, 0, 0}}, {{0, 0, 0, 0}}, {{0, 0, 0, 0}}, {{0, 0, 0, 0}}};
  const float *state = f.in ? f.in + item / f.source_divide % f.source_modulo * f.in_size : f.in;
  TT__CUDA_BY_FORMAT(f.core, tt__cuda_slice_sum, f, state, digit, u0, l, sum)
  TT__CUDA_UNROLL
  for (int k = 0; k < 4; k++) {
    ptrdiff_t element = (u0 + k) * f.out_outer + l * f.out_along;
    float *out = (float *)f.out + item * f.out_ld + element;
    if (u0 + k >= f.outer) break;
    for (int i = 0; i < 4; i++)
      if (!exists) sum[k].v[i] = tt__cuda_float(0x7fc00000u);
    if (f.in_bf16) {
      uint16_t *codes = (uint16_t *)f.out + item * f.out_ld + element;
      for (int i = 0; i < 4; i++)
        if (l + i < f.core.length && element + i * f.out_along < f.out_limit)
          codes[i * f.out_along] = (uint16_t)tt__cuda_to_bf16(sum[k].v[i]);
      continue;
    }
    if (f.out_along == 1 && l + 4 <= f.core.length && element + 4 <= f.out_limit &&
        (uintptr_t)out % 16 == 0) {
      *(tt__four *)(void *)out = sum[k];
      continue;
    }
    for (int i = 0; i < 4; i++)
      if (l + i < f.core.length && element + i * f.out_along < f.out_limit)
        out[i * f.out_along] = sum[k].v[i];
  }
}

// ---------------------------------------------------------------------------------------- >>upload
// A train on the device is one block: bias, then codes and scales of every core, each row of the
// GEMM view padded with zeros to 16 bytes. The host keeps the description and no numbers.

struct tt_cuda_matrix {
  tt_cuda_context *context;
  tt_matrix header; // the train; its pointers are NULL
  tt__dcore cores[TT_MAX_ORDER];
  const float *bias; // on the device, or NULL
  void *block;
  size_t size; // of the block, bytes
};

static void *tt__cuda_host_allocate(const tt_allocator *allocator, size_t size) {
  if (allocator->alloc_fn) return allocator->alloc_fn(size, allocator->user_data);
#ifdef TT_MALLOC
  return TT_MALLOC(size);
#else
  return malloc(size);
#endif
}

static void tt__cuda_host_release(const tt_allocator *allocator, void *block) {
  if (!block) return;
  if (allocator->free_fn) {
    allocator->free_fn(block, allocator->user_data);
    return;
  }
#ifdef TT_FREE
  TT_FREE(block);
#else
  free(block);
#endif
}

static tt_allocator tt__cuda_allocator(const tt_options *options) {
  tt_allocator allocator;
  memset(&allocator, 0, sizeof allocator);
  return options ? options->allocator : allocator;
}

// Bits of a storage format that the kernels read; 0 = they do not.
static int tt__cuda_code_bits(tt_dtype dtype) {
  switch (dtype) {
    case TT_F32: return 32;
    case TT_F16:
    case TT_BF16: return 16;
    case TT_E4M3:
    case TT_E5M2:
    case TT_I8: return 8;
    case TT_I4: return 4;
    default: return 0;
  }
}

static int tt__cuda_is_current(const tt_cuda_context *context) {
  int device;
  return cudaGetDevice(&device) == cudaSuccess && device == context->device;
}

typedef struct tt__dsvd tt__dsvd; // see >>svd
static __global__ void __launch_bounds__(TT__CUDA_THREADS, 1) tt__cuda_svd(const tt__dsvd f);

TTDEF tt_status tt_cuda_create(int device, const tt_options *options, tt_cuda_context **out) {
  tt_cuda_context made;
  int count = 0, before = 0, shared = 0;
  if (!out) return TT_ERROR_INVALID;
  *out = NULL;
  memset(&made, 0, sizeof made);
  made.allocator = tt__cuda_allocator(options);
  if (device < 0 || !made.allocator.alloc_fn != !made.allocator.free_fn) return TT_ERROR_INVALID;
  tt_status status = tt__cuda_status(&made, cudaGetDeviceCount(&count));
  if (status) return TT_ERROR_UNSUPPORTED;
  if (device >= count) return TT_ERROR_INVALID;
  made.device = device;
  status = tt__cuda_status(&made, cudaGetDevice(&before));
  if (!status) status = tt__cuda_status(&made, cudaSetDevice(device));
  if (status) return status;
  cudaError_t error =
      cudaDeviceGetAttribute(&made.multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (!error)
    error = cudaDeviceGetAttribute(&made.tensor, cudaDevAttrComputeCapabilityMajor, device);
  made.tensor = made.tensor >= 8;
  if (!error)
    error = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  int room = shared - (int)(TT__STAGE_DEPTH * TT__STAGE_PITCH * sizeof(float)); // static: the stage
  if (!error)
    error = cudaFuncSetAttribute((const void *)tt__cuda_fused,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, room);
  made.shared = (size_t)room;
  if (!error)
    error = cudaFuncSetAttribute((const void *)tt__cuda_tensor_pair,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, room);
  room = shared - 64; // static: a word for each warp
  if (!error)
    error = cudaFuncSetAttribute((const void *)tt__cuda_svd,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, room);
  made.svd_shared = (size_t)room;
  status = tt__cuda_status(&made, error);
  cudaSetDevice(before);
  if (status) return status;
  tt_cuda_context *context =
      (tt_cuda_context *)tt__cuda_host_allocate(&made.allocator, sizeof *context);
  if (!context) return TT_ERROR_MEMORY;
  *context = made;
  *out = context;
  return TT_OK;
}

TTDEF void tt_cuda_destroy(tt_cuda_context *context) {
  if (!context) return;
  tt_allocator allocator = context->allocator;
  tt__cuda_host_release(&allocator, context);
}

TTDEF int tt_cuda_last_native(const tt_cuda_context *context) {
  return context ? context->native : 0;
}

// Sizes of core k of a valid train: bytes of a packed row, of a row on the device, of all scales.
static void tt__cuda_core_sizes(const tt_matrix *w, int k, size_t *packed, size_t *row,
                                size_t *scales) {
  const tt_core *core = &w->cores[k];
  ptrdiff_t m = w->shape.rows[k], n = w->shape.cols[k], r = w->shape.ranks[k];
  ptrdiff_t s = w->shape.ranks[k + 1], forward = w->sweep == TT_LEFT_TO_RIGHT;
  ptrdiff_t rows = forward ? m * s : r * m, length = forward ? r * n : n * s;
  *packed = ((size_t)length * (size_t)tt__cuda_code_bits(core->dtype) + 7) / 8;
  *row = (*packed + 15) / 16 * 16;
  *scales = core->group == 0 ? 0 : (size_t)rows * 4;
  if (core->group > 0) *scales = (size_t)rows * (size_t)((length - 1) / core->group + 1) * 2;
}

// Can the kernels run this train? Its rows and lengths must fit into int with room to spare.
static tt_status tt__cuda_readable(const tt_matrix *w) {
  for (int k = 0; k < w->shape.order; k++) {
    ptrdiff_t side = 1, most = (ptrdiff_t)1 << 30;
    if (!tt__cuda_code_bits(w->cores[k].dtype)) return TT_ERROR_UNSUPPORTED;
    int legs[3] = {w->shape.rows[k] > w->shape.cols[k] ? w->shape.rows[k] : w->shape.cols[k],
                   w->shape.ranks[k], w->shape.ranks[k + 1]};
    if (!tt__cuda_multiply(&side, legs[0]) ||
        !tt__cuda_multiply(&side, legs[1] > legs[2] ? legs[1] : legs[2]) || side > most)
      return TT_ERROR_UNSUPPORTED;
  }
  return TT_OK;
}

// Walks over the parts of the block: with `from` packs a train into `image`, with `to` the way
// back. Only counts where image is NULL. Returns the size of the block.
static size_t tt__cuda_pack(const tt_matrix *from, const tt_matrix *to, unsigned char *image,
                            tt_cuda_matrix *made) {
  const tt_matrix *w = from ? from : to;
  size_t at = 0, packed, row, scales;
  if (w->bias) {
    size_t size = (size_t)w->rows * sizeof(float);
    if (image && from) memcpy(image, from->bias, size);
    if (image && to) memcpy((void *)to->bias, image, size);
    at = (size + 15) / 16 * 16;
  }
  for (int k = 0; k < w->shape.order; k++) {
    tt__cuda_core_sizes(w, k, &packed, &row, &scales);
    const tt_core *core = &w->cores[k];
    int forward = w->sweep == TT_LEFT_TO_RIGHT, left = w->shape.ranks[k];
    int right = w->shape.ranks[k + 1];
    size_t rows = (size_t)w->shape.rows[k] * (size_t)(forward ? right : left);
    if (made) {
      tt__dcore *device = &made->cores[k];
      device->data = (const unsigned char *)made->block + at;
      device->scales = (const unsigned char *)made->block + at + rows * row;
      device->scale = core->scale == 0 ? 1 : core->scale;
      device->dtype = core->dtype;
      device->group = core->group;
      device->rows = (int)rows;
      device->length = w->shape.cols[k] * (forward ? left : right);
      device->row_size = (ptrdiff_t)row;
    }
    for (size_t i = 0; image && i < rows; i++) {
      unsigned char *there = image + at + i * row, *here = (unsigned char *)core->data + i * packed;
      if (from)
        memcpy(there, here, packed);
      else
        memcpy(here, there, packed);
      if (from) memset(there + packed, 0, row - packed);
    }
    at += rows * row;
    if (image && from && scales) memcpy(image + at, core->scales, scales);
    if (image && to && scales) memcpy((void *)core->scales, image + at, scales);
    at += (scales + 15) / 16 * 16;
  }
  return at;
}

// Room for the sizes above: no sum of them can overflow.
static int tt__cuda_countable(const tt_matrix *w) {
  ptrdiff_t total = 64;
  for (int k = 0; k < w->shape.order; k++)
    if (!tt__cuda_multiply(&total, 2)) return 0;
  ptrdiff_t side = total;
  for (int k = 0; k < w->shape.order; k++) {
    ptrdiff_t count = side;
    if (!tt__cuda_multiply(&count, w->shape.ranks[k]) ||
        !tt__cuda_multiply(&count, w->shape.rows[k]) ||
        !tt__cuda_multiply(&count, w->shape.cols[k]) ||
        !tt__cuda_multiply(&count, w->shape.ranks[k + 1]))
      return 0;
  }
  return tt__cuda_multiply(&total, w->rows);
}

TTDEF void tt_cuda_free(tt_cuda_matrix *w) {
  if (!w) return;
  int before = 0;
  tt_allocator allocator = w->context->allocator;
  cudaGetDevice(&before);
  cudaSetDevice(w->context->device);
  tt__cuda_status(w->context, cudaFree(w->block));
  cudaSetDevice(before);
  tt__cuda_host_release(&allocator, w);
}

TTDEF tt_status tt_cuda_upload(tt_cuda_context *context, const tt_matrix *w, tt_cuda_matrix **out,
                               struct CUstream_st *stream) {
  if (!out) return TT_ERROR_INVALID;
  *out = NULL;
  if (!context || !w || !tt_apply_work_size(w, 1)) return TT_ERROR_INVALID; // 0: not a valid train
  tt_status status = tt__cuda_readable(w);
  if (status) return status;
  if (!tt__cuda_countable(w)) return TT_ERROR_MEMORY;
  size_t size = tt__cuda_pack(w, NULL, NULL, NULL);
  tt_cuda_matrix *made =
      (tt_cuda_matrix *)tt__cuda_host_allocate(&context->allocator, sizeof *made);
  unsigned char *image = (unsigned char *)tt__cuda_host_allocate(&context->allocator, size);
  int before = 0;
  status = made && image ? TT_OK : TT_ERROR_MEMORY;
  if (made) memset(made, 0, sizeof *made);
  if (!status) status = tt__cuda_status(context, cudaGetDevice(&before));
  if (!status) {
    made->context = context;
    made->header = *w;
    made->header.block = NULL;
    made->size = size;
    cudaError_t error = cudaSetDevice(context->device);
    if (!error) error = cudaMalloc(&made->block, size);
    if (!error) {
      tt__cuda_pack(w, NULL, image, made);
      error = cudaMemcpyAsync(made->block, image, size, cudaMemcpyHostToDevice, stream);
      cudaError_t waited = cudaStreamSynchronize(stream);
      if (!error) error = waited;
    }
    status = tt__cuda_status(context, error);
    if (status && made->block) cudaFree(made->block);
    cudaSetDevice(before);
  }
  tt__cuda_host_release(&context->allocator, image);
  if (status) {
    tt__cuda_host_release(&context->allocator, made);
    return status;
  }
  made->bias = w->bias ? (const float *)made->block : NULL;
  made->header.bias = NULL;
  for (int k = 0; k < w->shape.order; k++) {
    tt_core *core = &made->header.cores[k];
    core->data = core->scales = core->packed = NULL;
  }
  *out = made;
  return TT_OK;
}

// Lays out the block of a downloaded train: bias, cores and scales on multiples of 64 bytes. Only
// counts where block is NULL.
static size_t tt__cuda_lay_out(tt_matrix *w, int with_bias, unsigned char *block) {
  size_t at = 0, packed, row, scales;
  if (with_bias) {
    if (block) w->bias = (const float *)(void *)block;
    at = ((size_t)w->rows * sizeof(float) + 63) / 64 * 64;
  }
  for (int k = 0; k < w->shape.order; k++) {
    tt__cuda_core_sizes(w, k, &packed, &row, &scales);
    int rank = w->shape.ranks[w->sweep == TT_LEFT_TO_RIGHT ? k + 1 : k];
    if (block) w->cores[k].data = block + at;
    at += (packed * (size_t)w->shape.rows[k] * (size_t)rank + 63) / 64 * 64;
    if (block && scales) w->cores[k].scales = block + at;
    at += (scales + 63) / 64 * 64;
  }
  return at;
}

TTDEF tt_status tt_cuda_download(const tt_cuda_matrix *w, const tt_options *options,
                                 tt_matrix *out) {
  if (out) memset(out, 0, sizeof *out);
  if (!w || !out) return TT_ERROR_INVALID;
  tt_matrix made = w->header;
  made.allocator = tt__cuda_allocator(options);
  if (!made.allocator.alloc_fn != !made.allocator.free_fn) return TT_ERROR_INVALID;
  unsigned char *block = (unsigned char *)tt__cuda_host_allocate(
      &made.allocator, tt__cuda_lay_out(&made, w->bias != NULL, NULL));
  if (!block) return TT_ERROR_MEMORY;
  tt__cuda_lay_out(&made, w->bias != NULL, block);
  made.block = block;
  size_t size = tt__cuda_pack(NULL, &made, NULL, NULL);
  tt_allocator *scratch = &w->context->allocator;
  unsigned char *image = (unsigned char *)tt__cuda_host_allocate(scratch, size);
  tt_status status = image ? TT_OK : TT_ERROR_MEMORY;
  if (!status)
    status = tt__cuda_status(w->context, cudaMemcpy(image, w->block, size, cudaMemcpyDeviceToHost));
  if (!status) tt__cuda_pack(NULL, &made, image, NULL);
  tt__cuda_host_release(scratch, image);
  if (status)
    tt__cuda_host_release(&made.allocator, block);
  else
    *out = made;
  return status;
}

// --------------------------------------------------------------------------------------- >>planner
// What each way costs, as measured on one H200 (bench/cuda.sh) in microseconds: blocks run in
// waves, a tile costs so much for each step of its sum, latencies of memory included; tensor cores
// take 0.7 of that (bench/results_cuda.md, one H100). The product in BF16 has not been measured.
// Other devices are taken for these with another number of multiprocessors. It only has to rank the
// ways.

// Product of the row (or column) factors of cores first .. last-1. Overflow was excluded before.
static ptrdiff_t tt__cuda_legs(const tt_shape *shape, int first, int last, int of_rows) {
  ptrdiff_t product = 1;
  for (int k = first; k < last; k++) product *= of_rows ? shape->rows[k] : shape->cols[k];
  return product;
}

// Does every product of sizes that occurs for this batch fit?
static int tt__cuda_fits(const tt_matrix *w, ptrdiff_t batch) {
  ptrdiff_t all = batch > 1 ? batch : 1, most_rank = 1;
  for (int k = 0; k < w->shape.order; k++) {
    if (!tt__cuda_multiply(&all, w->shape.rows[k]) || !tt__cuda_multiply(&all, w->shape.cols[k]))
      return 0;
    if (w->shape.ranks[k] > most_rank) most_rank = w->shape.ranks[k];
  }
  return tt__cuda_multiply(&all, most_rank) && tt__cuda_multiply(&all, most_rank);
}

// Step number i of the pass: its core, p and w.
static int tt__cuda_step_at(const tt_matrix *w, ptrdiff_t batch, int i, ptrdiff_t *p,
                            ptrdiff_t *wide) {
  const tt_shape *shape = &w->shape;
  int forward = w->sweep == TT_LEFT_TO_RIGHT, k = forward ? i : shape->order - 1 - i;
  *p = batch * tt__cuda_legs(shape, 0, k, forward);
  *wide = tt__cuda_legs(shape, k + 1, shape->order, !forward);
  return k;
}

// Lays out the fused kernel for `tile` rows of the batch, `chunk` of the outermost row leg and
// `part` of n_1 at a time. Returns the bytes of shared memory; 0 = far too many.
static size_t tt__cuda_fused_layout(const tt_cuda_matrix *w, int tile, int chunk, int part,
                                    tt__fused *f) {
  const tt_matrix *t = &w->header;
  const tt_shape *shape = &t->shape;
  int order = shape->order, forward = t->sweep == TT_LEFT_TO_RIGHT, outer = forward ? 0 : order - 1;
  ptrdiff_t m = shape->rows[outer], total, y, room[2] = {0, 0};
  ptrdiff_t legs = tt__cuda_legs(shape, forward ? 0 : 1, order, 0);
  ptrdiff_t count = forward ? legs : part * legs;
  f->order = order;
  f->tile = tile;
  f->chunks = (int)((m + chunk - 1) / chunk);
  f->slices = forward ? 1 : (shape->cols[0] + part - 1) / part;
  f->slice_depth = forward ? 0 : part * shape->ranks[1];
  y = tt__cuda_legs(shape, 0, order, 1) / m * chunk;
  if (count > 65536 || y > 65536) return 0;
  f->x_count = (int)count;
  f->y_count = (int)y;
  f->chunk_rows = forward ? chunk * shape->ranks[1] : chunk;
  f->chunk_out = forward ? (int)y : chunk;
  f->out_inner = f->chunk_out;
  f->out_stride = (int)(forward ? y / chunk * m : m);
  ptrdiff_t have = tile * count; // floats of the state
  for (int i = 0; i < order; i++) {
    tt__dstep *step = &f->steps[i];
    int k = forward ? i : order - 1 - i, last = i + 1 == order;
    const tt__dcore *core = &w->cores[k];
    step->core = k;
    step->depth = last && !forward ? part * shape->ranks[1] : core->length;
    step->rows = i ? core->rows : forward ? chunk * shape->ranks[1] : shape->ranks[k] * chunk;
    step->inner = i ? core->rows : f->chunk_rows;
    step->stride = i ? core->rows : forward ? core->rows : shape->rows[k];
    ptrdiff_t wide = forward ? tt__cuda_legs(shape, k + 1, order, 0)
                     : i     ? tt__cuda_legs(shape, k + 1, order - 1, 1) * chunk
                             : 1;
    step->w = (int)wide;
    step->p = (int)(have / (step->depth * wide));
    ptrdiff_t columns = step->p * wide, next = columns * step->rows;
    if (next > 65536 || columns > 65536) return 0;
    int four_threads = step->rows <= 16 ? 4 : step->rows <= 32 ? 8 : 16;
    int few = wide == 1 ? TT__FUSED_COLUMNS : TT__FUSED_APART;
    step->row_threads = columns <= few ? 0 : four_threads;
    // neighbouring p in different banks; narrow sums read aligned fours instead
    ptrdiff_t span = step->depth * wide, pitch = span;
    if (wide == 1) pitch = step->row_threads ? span | 1 : (span + 3) / 4 * 4;
    step->in_pitch = (int)pitch;
    if (i == 0) {
      f->x_span = (int)span;
      f->x_pitch = (int)pitch;
    } else {
      step[-1].out_span = (int)span;
      step[-1].out_pitch = (int)pitch;
    }
    ptrdiff_t floats = (step->p * pitch + 3) / 4 * 4;
    if (floats > room[i & 1]) room[i & 1] = floats;
    have = next;
  }
  f->steps[order - 1].out_span = f->steps[order - 1].out_pitch = (int)have;
  f->buffer[0] = 0;
  f->buffer[1] = (int)room[0];
  f->y = (int)(room[0] + room[1]);
  total = room[0] + room[1] + tile * y;
  return (size_t)total * sizeof(float);
}

// Expected microseconds of a layout: the waves of its blocks times what one of them takes.
static double tt__cuda_fused_time(const tt_cuda_matrix *w, const tt__fused *f, ptrdiff_t batch,
                                  size_t shared) {
  double block = 0.2 * ceil(f->tile * (double)f->x_count / (4 * TT__CUDA_THREADS));
  for (int i = 0; i < f->order; i++) {
    const tt__dstep *step = &f->steps[i];
    double columns = (double)step->p * step->w;
    if (step->row_threads) {
      double wide = 4.0 * TT__CUDA_THREADS / step->row_threads;
      block +=
          ceil(step->rows / (4.0 * step->row_threads)) * ceil(columns / wide) * step->depth * 0.085;
    } else {
      double rounds = ceil(step->depth / 128.0), rows = columns > 1 ? 16 : 32; // rows at a time
      double each = columns > 1 ? 0.9 + 0.12 * step->w : 0.5;
      block += ceil(step->rows / rows) * ceil(columns / 4) * (1 + rounds * each);
    }
  }
  double blocks = ceil((double)batch / f->tile) * f->chunks;
  double resident = 2 * (shared + 10240) > w->context->shared ? 1 : 2;
  return 4 + ceil(blocks / (w->context->multiprocessors * resident)) * f->slices * block;
}

// The best layout that fits. Returns its bytes of shared memory; 0 = none fits.
static size_t tt__cuda_fused_plan(const tt_cuda_matrix *w, ptrdiff_t batch, tt__fused *best,
                                  double *seconds) {
  const tt_shape *shape = &w->header.shape;
  int forward = w->header.sweep == TT_LEFT_TO_RIGHT;
  int m = shape->rows[forward ? 0 : shape->order - 1];
  size_t shared = 0;
  tt__fused f;
  memset(&f, 0, sizeof f);
  if (batch < 1) batch = 1;
  for (int tile = 1; tile <= 16 && tile < 2 * batch; tile *= 2)
    for (int chunk = 1; chunk < 2 * m; chunk *= 2) {
      int part = shape->cols[0], wide = chunk < m ? chunk : m;
      size_t bytes = tt__cuda_fused_layout(w, tile, wide, part, &f);
      while ((!bytes || bytes > w->context->shared) && part > 1 && !forward) {
        part = (part + 1) / 2;
        bytes = tt__cuda_fused_layout(w, tile, wide, part, &f);
      }
      if (!bytes || bytes > w->context->shared) continue;
      double expected = 1e-6 * tt__cuda_fused_time(w, &f, batch, bytes);
      if ((batch + tile - 1) / tile * f.chunks > 0x7fffffff) continue;
      if (shared && expected >= *seconds) continue;
      *seconds = expected;
      *best = f;
      shared = bytes;
    }
  return shared;
}

// Lays out the kernel of two cores for what FUSED is asked to do. Returns the bytes of shared
// memory; 0 = it is not for that, or needs too much.
static size_t tt__cuda_pair_plan(const tt_cuda_matrix *w, const tt_cuda_args *args, tt__dpair *f) {
  const tt_shape *shape = &w->header.shape;
  memset(f, 0, sizeof *f);
  if (!w->context->tensor || args->dtype != TT_BF16 || args->ldx % 8 ||
      args->batch < TT__PAIR_ITEMS || shape->order != 2 || w->header.sweep == TT_LEFT_TO_RIGHT ||
      shape->cols[1] % 8 || shape->cols[1] > 4096 || shape->ranks[1] > TT__PAIR_DEPTH / 4)
    return 0;
  f->m_1 = shape->rows[0];
  f->m_2 = shape->rows[1];
  f->n_1 = shape->cols[0];
  f->n_2 = shape->cols[1];
  f->rank = shape->ranks[1];
  f->slice = TT__PAIR_DEPTH / f->rank / 4 * 4;
  if (f->slice > f->n_1) f->slice = (f->n_1 + 3) / 4 * 4;
  f->inner_rows = (f->rank * TT__PAIR_CHUNK + 15) / 16 * 16;
  f->x_pitch = (f->n_2 + 15) / 16 * 16 + 8;
  f->state_pitch = (f->slice * f->rank + 15) / 16 * 16 + 8;
  size_t size = 2 * ((size_t)(f->inner_rows + TT__PAIR_ITEMS * f->slice) * (size_t)f->x_pitch +
                     (size_t)(TT__PAIR_ROWS + TT__PAIR_ITEMS * TT__PAIR_CHUNK) *
                         (size_t)f->state_pitch);
  return size <= w->context->shared ? size : 0;
}

static ptrdiff_t tt__cuda_pair_blocks(const tt__dpair *f, ptrdiff_t batch) {
  return (batch + TT__PAIR_ITEMS - 1) / TT__PAIR_ITEMS *
         ((f->m_2 + TT__PAIR_CHUNK - 1) / TT__PAIR_CHUNK) *
         ((f->m_1 + TT__PAIR_ROWS - 1) / TT__PAIR_ROWS);
}

// Expected microseconds: an assumption, 1.5 TFLOP/s and 4 us of latencies a slice for each
// multiprocessor.
static double tt__cuda_pair_time(const tt_cuda_matrix *w, const tt__dpair *f, ptrdiff_t batch) {
  double slices = ceil((double)f->n_1 / f->slice), columns = TT__PAIR_ITEMS * f->slice;
  double flops = 2 * (f->inner_rows * columns * f->x_pitch +
                      TT__PAIR_ROWS * TT__PAIR_ITEMS * TT__PAIR_CHUNK * (double)f->state_pitch);
  double blocks = (double)tt__cuda_pair_blocks(f, batch);
  return 4 + ceil(blocks / w->context->multiprocessors) * slices * (4 + flops / 1.5e6);
}

// Expected microseconds of one product. With 16-bit x, and more tiles than multiprocessors, tensor
// cores show.
static double tt__cuda_product_time(const tt_cuda_context *context, const tt_cuda_args *args,
                                    double rows, double depth, double columns) {
  double many = context->multiprocessors, large = ceil(rows / 128) * ceil(columns / 128);
  double small = ceil(rows / 64) * ceil(columns / 64), steps = ceil(depth / TT__PRODUCT_DEPTH);
  double faster = context->tensor && args->dtype != TT_F32 ? 0.7 : 1;
  if (columns <= TT__NARROW)
    return 4 + ceil(rows * ceil(columns / 4) / many) * (0.5 + 0.00035 * depth);
  if (rows > 64 && columns > 64 && large >= many)
    return 4 + faster * ceil(large / many) * (30 + 2.4 * steps);
  return 4 + (small > many ? faster * small / many : 1) * (4 + 0.8 * steps);
}

// Does DENSE round W to BF16? If d_x is aligned as well.
static int tt__cuda_in_bf16(const tt_cuda_matrix *w, const tt_cuda_args *args) {
  return w->context->tensor && args->dtype == TT_BF16 && args->ldx % 8 == 0 &&
         args->batch > TT__NARROW;
}

static ptrdiff_t tt__cuda_tensor_tiles(ptrdiff_t rows, ptrdiff_t batch) {
  return (rows + TT__TENSOR_TILE - 1) / TT__TENSOR_TILE *
         ((batch + TT__TENSOR_TILE - 1) / TT__TENSOR_TILE);
}

// Expected microseconds of that product: an assumption, a quarter of what an H100 can.
static double tt__cuda_tensor_time(const tt_cuda_matrix *w, ptrdiff_t batch) {
  double tiles = (double)tt__cuda_tensor_tiles(w->header.rows, batch);
  double steps = ceil((double)w->header.cols / TT__TENSOR_DEPTH);
  return 4 + ceil(tiles / w->context->multiprocessors) * (2 + 0.5 * steps);
}

// Costs of the chain; *floats becomes the size of each of its two buffers.
static double tt__cuda_chain_seconds(const tt_cuda_matrix *w, const tt_cuda_args *args,
                                     double *flops, ptrdiff_t *floats) {
  double seconds = 0;
  *floats = 0;
  *flops = 0;
  for (int i = 0; i < w->header.shape.order; i++) {
    ptrdiff_t p, wide;
    const tt__dcore *core = &w->cores[tt__cuda_step_at(&w->header, args->batch, i, &p, &wide)];
    double columns = (double)p * (double)wide;
    *flops += 2 * columns * core->length * core->rows;
    seconds += 1e-6 * tt__cuda_product_time(w->context, args, core->rows, core->length, columns);
    if (i + 1 < w->header.shape.order && p * wide * core->rows > *floats)
      *floats = p * wide * core->rows;
  }
  return seconds;
}

// Numbers from row to row of the dense matrix in the workspace: rows are padded to 16 bytes, of
// floats or of BF16.
static ptrdiff_t tt__cuda_dense_ld(const tt_matrix *w) { return (w->cols + 7) / 8 * 8; }

// Items, columns before the step and core of step i of the slices; count < 0: all rows of W.
static int tt__cuda_slice_at(const tt_matrix *w, ptrdiff_t count, int i, ptrdiff_t *items,
                             ptrdiff_t *outer) {
  const tt_shape *shape = &w->shape;
  int turned = w->sweep == TT_LEFT_TO_RIGHT, order = shape->order, k = turned ? order - 1 - i : i;
  int first = turned ? k : 0, last = turned ? order : k + 1;
  *items = count < 0 ? tt__cuda_legs(shape, first, last, 1) : count;
  if (count < 0 && i + 1 == order) *items = w->rows;
  *outer = tt__cuda_legs(shape, turned ? k + 1 : 0, turned ? order : k, 0);
  return k;
}

// Floats of each of the two buffers; flops are added.
static ptrdiff_t tt__cuda_slice_floats(const tt_cuda_matrix *w, ptrdiff_t count, double *flops) {
  ptrdiff_t floats = 0, items, outer;
  for (int i = 0; i < w->header.shape.order; i++) {
    int k = tt__cuda_slice_at(&w->header, count, i, &items, &outer);
    ptrdiff_t depth = w->cores[k].rows / w->header.shape.rows[k];
    ptrdiff_t state = items * outer * w->cores[k].length;
    *flops += 2.0 * (double)state * (double)depth;
    if (i + 1 < w->header.shape.order && state > floats) floats = state;
  }
  return floats;
}

// Are these arguments usable? Fills in the defaults.
static tt_status tt__cuda_args_check(const tt_cuda_matrix *w, tt_cuda_args *args) {
  if (args->batch < 0 || args->ldx < 0 || args->ldy < 0 || args->path < TT_CUDA_AUTO ||
      args->path > TT_CUDA_DENSE)
    return TT_ERROR_INVALID;
  if (args->dtype < TT_F32 || args->dtype > TT_I2) return TT_ERROR_INVALID;
  if (args->dtype != TT_F32 && args->dtype != TT_F16 && args->dtype != TT_BF16)
    return TT_ERROR_UNSUPPORTED;
  if (args->ldx == 0) args->ldx = w->header.cols;
  if (args->ldy == 0) args->ldy = w->header.rows;
  if (args->alpha == 0) args->alpha = 1;
  if (args->ldx < w->header.cols || args->ldy < w->header.rows) return TT_ERROR_INVALID;
  ptrdiff_t widest = args->ldx > args->ldy ? args->ldx : args->ldy;
  if (!tt__cuda_multiply(&widest, args->batch) || !tt__cuda_fits(&w->header, args->batch))
    return TT_ERROR_MEMORY;
  return TT_OK;
}

// Everything that an apply needs to know.
typedef struct tt__cuda_way {
  tt_cuda_plan plan;
  tt__fused fused;
  size_t shared;
  tt__dpair pair;
  size_t pair_shared; // of the kernel of two cores, which FUSED takes then if x is aligned; 0 = no
  ptrdiff_t floats;   // of each buffer of the chain, or of expanding
} tt__cuda_way;

static void tt__cuda_consider(const tt_cuda_matrix *w, const tt_cuda_args *args, tt_cuda_path path,
                              tt__cuda_way *way) {
  tt_cuda_plan made;
  ptrdiff_t floats = 0;
  int order = w->header.shape.order;
  double batch = (double)args->batch, rows = (double)w->header.rows, cols = (double)w->header.cols;
  double seconds = 0;
  size_t shared = 0;
  memset(&made, 0, sizeof made);
  made.path = path;
  made.num_launches = order;
  double chain = tt__cuda_chain_seconds(w, args, &made.flops, &floats);
  if (path == TT_CUDA_FUSED) {
    tt__fused fused;
    shared = tt__cuda_fused_plan(w, args->batch, &fused, &seconds);
    if (!shared) return;
    made.num_launches = 1;
    if (!way->plan.path || seconds < way->plan.seconds) way->fused = fused;
    way->pair_shared = tt__cuda_pair_plan(w, args, &way->pair);
    if (way->pair_shared) seconds = 1e-6 * tt__cuda_pair_time(w, &way->pair, args->batch);
  } else if (path == TT_CUDA_CHAIN) {
    seconds = chain;
    made.work_size = 2 * tt__cuda_room(floats);
  } else {
    int in_bf16 = tt__cuda_in_bf16(w, args);
    double size = rows * (double)tt__cuda_dense_ld(&w->header) * (in_bf16 ? 2 : 4);
    made.flops = 2 * batch * rows * cols;
    floats = tt__cuda_slice_floats(w, -1, &made.flops);
    made.work_size =
        2 * tt__cuda_room(floats) + tt__cuda_room(w->header.rows * tt__cuda_dense_ld(&w->header));
    made.num_launches = order + 1;
    seconds = 4e-6 * order + (made.flops - 2 * batch * rows * cols) / 7e12 + size / 0.75e12 +
              1e-6 * (in_bf16 ? tt__cuda_tensor_time(w, args->batch)
                              : tt__cuda_product_time(w->context, args, rows, cols, batch));
  }
  made.seconds = seconds;
  if (way->plan.path && seconds >= way->plan.seconds) return;
  double each = args->dtype == TT_F32 ? 4 : 2;
  made.bytes = each * batch * (rows + cols);
  for (int k = 0; k < order; k++)
    made.bytes += (double)w->cores[k].rows * (double)w->cores[k].row_size;
  way->plan = made;
  way->shared = shared;
  way->floats = floats;
}

// Chooses the way for checked arguments.
static tt_status tt__cuda_choose(const tt_cuda_matrix *w, const tt_cuda_args *args,
                                 tt__cuda_way *way) {
  memset(&way->plan, 0, sizeof way->plan);
  way->pair_shared = 0;
  if (args->path)
    tt__cuda_consider(w, args, (tt_cuda_path)args->path, way);
  else
    for (int path = TT_CUDA_FUSED; path <= TT_CUDA_DENSE; path++)
      tt__cuda_consider(w, args, (tt_cuda_path)path, way);
  return way->plan.path ? TT_OK : TT_ERROR_UNSUPPORTED;
}

TTDEF tt_status tt_cuda_plan_apply(const tt_cuda_matrix *w, const tt_cuda_args *given,
                                   tt_cuda_plan *plan) {
  tt__cuda_way way;
  if (plan) memset(plan, 0, sizeof *plan);
  if (!w || !given || !plan) return TT_ERROR_INVALID;
  tt_cuda_args args = *given;
  tt_status status = tt__cuda_args_check(w, &args);
  if (!status) status = tt__cuda_choose(w, &args, &way);
  if (!status) *plan = way.plan;
  return status;
}

TTDEF size_t tt_cuda_apply_work_size(const tt_cuda_matrix *w, ptrdiff_t batch) {
  tt_cuda_args args;
  tt_cuda_plan plan;
  memset(&args, 0, sizeof args);
  args.batch = batch;
  if (tt_cuda_plan_apply(w, &args, &plan)) return 0;
  return plan.work_size ? plan.work_size : 1;
}

// --------------------------------------------------------------------------------------- >>forward

// Grids are one-dimensional: the other two dimensions end at 65535.
static int tt__cuda_grid(ptrdiff_t blocks, unsigned *grid) {
  *grid = (unsigned)blocks;
  return blocks > 0 && blocks <= 0x7fffffff;
}

static tt_status tt__cuda_run_product(tt_cuda_context *context, const tt__dproduct *f,
                                      cudaStream_t stream) {
  ptrdiff_t columns = f->p * f->w, rows = f->core.rows;
  ptrdiff_t large = (rows + 127) / 128 * ((columns + 127) / 128);
  int tensor = f->tensor && context->tensor;
  unsigned grid;
  cudaError_t error;
  if (columns <= TT__NARROW) {
    if (!tt__cuda_grid(rows * ((columns + 3) / 4), &grid)) return TT_ERROR_UNSUPPORTED;
    error = TT__CUDA_LAUNCH(tt__cuda_product_narrow, grid, TT__CUDA_THREADS, 0, stream, *f);
  } else if (rows > 64 && columns > 64 && large >= context->multiprocessors) {
    if (!tt__cuda_grid(large, &grid)) return TT_ERROR_UNSUPPORTED;
    if (tensor)
      error = TT__CUDA_LAUNCH(tt__cuda_tensor_128, grid, TT__CUDA_THREADS, 0, stream, *f);
    else
      error = TT__CUDA_LAUNCH(tt__cuda_product_128, grid, TT__CUDA_THREADS, 0, stream, *f);
  } else {
    if (!tt__cuda_grid((rows + 63) / 64 * ((columns + 63) / 64), &grid))
      return TT_ERROR_UNSUPPORTED;
    if (tensor)
      error = TT__CUDA_LAUNCH(tt__cuda_tensor_64, grid, TT__CUDA_THREADS, 0, stream, *f);
    else
      error = TT__CUDA_LAUNCH(tt__cuda_product_64, grid, TT__CUDA_THREADS, 0, stream, *f);
  }
  return tt__cuda_status(context, error);
}

// The matrix of a core in floats, without scales.
static tt__dcore tt__cuda_plain_core(const float *data, int rows, int length, ptrdiff_t pitch) {
  tt__dcore core;
  memset(&core, 0, sizeof core);
  core.data = (const unsigned char *)data;
  core.scale = 1;
  core.dtype = TT_F32;
  core.rows = rows;
  core.length = length;
  core.row_size = pitch * 4;
  return core;
}

// A product between two buffers of floats.
static tt__dproduct tt__cuda_plain_product(const tt__dcore *core, ptrdiff_t p, ptrdiff_t w,
                                           const float *in, float *out) {
  tt__dproduct f;
  memset(&f, 0, sizeof f);
  f.core = *core;
  f.p = p;
  f.w = w;
  f.in = in;
  f.in_pre = f.out_pre = 1;
  f.in_ld = f.in_limit = core->length * w;
  f.out.data = out;
  f.out.alpha = 1;
  f.out.ld = f.out.limit = core->rows * w;
  return f;
}

static void tt__cuda_read_x(const tt_cuda_matrix *w, const tt_cuda_args *args, tt__dproduct *f) {
  f->in = args->d_x;
  f->in_dtype = args->dtype;
  f->in_pre = f->p / args->batch;
  f->in_ld = args->ldx;
  f->in_limit = w->header.cols;
}

static tt__output tt__cuda_y(const tt_cuda_matrix *w, const tt_cuda_args *args) {
  tt__output out;
  out.data = args->d_y;
  out.bias = w->bias;
  out.dtype = args->dtype;
  out.alpha = args->alpha;
  out.beta = args->beta;
  out.ld = args->ldy;
  out.limit = w->header.rows;
  return out;
}

// Can four j be loaded at once?
static void tt__cuda_find_quads(tt__dproduct *f) {
  f->quads =
      f->w == 1 && f->in_ld % 4 == 0 && f->core.length % 4 == 0 && (uintptr_t)f->in % 16 == 0;
}

static tt_status tt__cuda_run_chain(const tt_cuda_matrix *w, const tt_cuda_args *args,
                                    float *const *buffer, cudaStream_t stream) {
  int order = w->header.shape.order;
  tt_status status = TT_OK;
  for (int i = 0; i < order && !status; i++) {
    ptrdiff_t p, wide;
    int k = tt__cuda_step_at(&w->header, args->batch, i, &p, &wide);
    tt__dproduct f =
        tt__cuda_plain_product(&w->cores[k], p, wide, buffer[(i + 1) & 1], buffer[i & 1]);
    if (i == 0) tt__cuda_read_x(w, args, &f);
    if (i + 1 == order) {
      f.out = tt__cuda_y(w, args);
      f.out_pre = p / args->batch;
    }
    tt__cuda_find_quads(&f);
    f.tensor = args->dtype != TT_F32;
    status = tt__cuda_run_product(w->context, &f, stream);
  }
  return status;
}

static tt_status tt__cuda_run_pair(const tt_cuda_matrix *w, const tt_cuda_args *args,
                                   tt__cuda_way *way, cudaStream_t stream) {
  tt__dpair *f = &way->pair;
  unsigned grid;
  f->outer = w->cores[0];
  f->inner = w->cores[1];
  f->x = (const uint16_t *)args->d_x;
  f->batch = args->batch;
  f->ldx = args->ldx;
  f->cols = w->header.cols;
  f->out = tt__cuda_y(w, args);
  if (!tt__cuda_grid(tt__cuda_pair_blocks(f, args->batch), &grid)) return TT_ERROR_UNSUPPORTED;
  return tt__cuda_status(w->context, TT__CUDA_LAUNCH(tt__cuda_tensor_pair, grid, TT__CUDA_THREADS,
                                                     way->pair_shared, stream, *f));
}

static tt_status tt__cuda_run_fused(const tt_cuda_matrix *w, const tt_cuda_args *args,
                                    tt__cuda_way *way, cudaStream_t stream) {
  tt__fused *f = &way->fused;
  unsigned grid;
  if (way->pair_shared && (uintptr_t)args->d_x % 16 == 0)
    return tt__cuda_run_pair(w, args, way, stream);
  f->x = args->d_x;
  f->x_dtype = args->dtype;
  f->ldx = args->ldx;
  f->x_limit = w->header.cols;
  f->batch = args->batch;
  f->out = tt__cuda_y(w, args);
  for (int k = 0; k < f->order; k++) f->cores[k] = w->cores[k];
  if (!tt__cuda_grid((args->batch + f->tile - 1) / f->tile * f->chunks, &grid))
    return TT_ERROR_UNSUPPORTED;
  return tt__cuda_status(
      w->context, TT__CUDA_LAUNCH(tt__cuda_fused, grid, TT__CUDA_THREADS, way->shared, stream, *f));
}

// Runs the slices for `count` rows in d_index, or for all of them (count < 0) in natural order.
static tt_status tt__cuda_run_slices(const tt_cuda_matrix *w, const int *d_index, ptrdiff_t count,
                                     void *d_out, int in_bf16, ptrdiff_t ld, float *const *buffer,
                                     cudaStream_t stream) {
  const tt_shape *shape = &w->header.shape;
  int order = shape->order, turned = w->header.sweep == TT_LEFT_TO_RIGHT;
  tt_status status = TT_OK;
  for (int i = 0; i < order && !status; i++) {
    tt__dslice f;
    unsigned grid;
    memset(&f, 0, sizeof f);
    int k = tt__cuda_slice_at(&w->header, count, i, &f.items, &f.outer), m = shape->rows[k];
    ptrdiff_t below =
        tt__cuda_legs(shape, k + 1, order, 1); // rows that share this digit and those above
    f.core = w->cores[k];
    f.in = i ? buffer[(i + 1) & 1] : NULL;
    f.index = d_index;
    f.matrix_rows = w->header.rows;
    f.source_divide = count < 0 && !turned ? m : 1;
    f.source_modulo = count < 0 && turned ? below : PTRDIFF_MAX;
    f.digit_divide = count < 0 && !turned ? 1 : below;
    f.digit_modulo = m;
    f.depth = f.core.rows / m;
    f.in_size = f.outer * f.depth;
    f.digit_step = turned ? f.depth : 1;
    f.depth_step = turned ? 1 : m;
    f.in_outer = turned ? 1 : f.depth;
    f.in_depth = turned ? f.outer : 1;
    f.out_outer = turned ? 1 : f.core.length;
    f.out_along = turned ? f.outer : 1;
    f.out = i + 1 < order ? (void *)buffer[i & 1] : d_out;
    f.in_bf16 = i + 1 == order && in_bf16;
    f.out_limit = i + 1 < order ? f.outer * f.core.length : w->header.cols;
    f.out_ld = i + 1 < order ? f.out_limit : ld;
    ptrdiff_t threads = f.items * ((f.outer + 3) / 4) * (((ptrdiff_t)f.core.length + 3) / 4);
    if (!tt__cuda_grid((threads + TT__CUDA_THREADS - 1) / TT__CUDA_THREADS, &grid))
      return TT_ERROR_UNSUPPORTED;
    status = tt__cuda_status(w->context,
                             TT__CUDA_LAUNCH(tt__cuda_slice, grid, TT__CUDA_THREADS, 0, stream, f));
  }
  return status;
}

// The product of DENSE in BF16.
static tt_status tt__cuda_run_tensor(const tt_cuda_matrix *w, const tt_cuda_args *args,
                                     const void *dense, cudaStream_t stream) {
  tt__dtensor f;
  unsigned grid;
  f.x = (const uint16_t *)args->d_x;
  f.w = (const uint16_t *)dense;
  f.batch = args->batch;
  f.ldx = args->ldx;
  f.ldw = tt__cuda_dense_ld(&w->header);
  f.rows = (int)w->header.rows;
  f.depth = (int)w->header.cols;
  f.out = tt__cuda_y(w, args);
  if (!tt__cuda_grid(tt__cuda_tensor_tiles(w->header.rows, args->batch), &grid))
    return TT_ERROR_UNSUPPORTED;
  return tt__cuda_status(
      w->context, TT__CUDA_LAUNCH(tt__cuda_tensor_bf16, grid, TT__CUDA_THREADS, 0, stream, f));
}

// Rebuilds W behind the two buffers, then one product.
static tt_status tt__cuda_run_dense(const tt_cuda_matrix *w, const tt_cuda_args *args,
                                    float *const *buffer, float *dense, cudaStream_t stream) {
  ptrdiff_t ld = tt__cuda_dense_ld(&w->header);
  int in_bf16 = tt__cuda_in_bf16(w, args) && (uintptr_t)args->d_x % 16 == 0;
  tt__dcore core;
  if (w->header.rows > 0x40000000 || ld > 0x40000000) return TT_ERROR_UNSUPPORTED;
  tt_status status = tt__cuda_run_slices(w, NULL, -1, dense, in_bf16, ld, buffer, stream);
  if (status) return status;
  if (in_bf16) return tt__cuda_run_tensor(w, args, dense, stream);
  core = tt__cuda_plain_core(dense, (int)w->header.rows, (int)w->header.cols, ld);
  tt__dproduct f = tt__cuda_plain_product(&core, args->batch, 1, NULL, NULL);
  tt__cuda_read_x(w, args, &f);
  f.out = tt__cuda_y(w, args);
  tt__cuda_find_quads(&f);
  f.tensor = args->dtype != TT_F32;
  return tt__cuda_run_product(w->context, &f, stream);
}

static int tt__cuda_overlap(const void *a, size_t a_size, const void *b, size_t b_size) {
  uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;
  return x < y + b_size && y < x + a_size;
}

// Workspace: large enough and aligned. None is needed where size is 0.
static int tt__cuda_work_fits(const void *d_work, size_t work_size, size_t size) {
  return size == 0 || (d_work && work_size >= size && (uintptr_t)d_work % 256 == 0);
}

TTDEF tt_status tt_cuda_apply_ex(const tt_cuda_matrix *w, const tt_cuda_args *given, void *d_work,
                                 size_t work_size, struct CUstream_st *stream) {
  tt__cuda_way way;
  if (!w || !given) return TT_ERROR_INVALID;
  tt_cuda_args args = *given;
  tt_status status = tt__cuda_args_check(w, &args);
  if (!status && args.batch) status = tt__cuda_choose(w, &args, &way);
  if (status || args.batch == 0) return status;
  size_t each = args.dtype == TT_F32 ? 4 : 2;
  size_t x_size = (size_t)((args.batch - 1) * args.ldx + w->header.cols) * each;
  size_t y_size = (size_t)((args.batch - 1) * args.ldy + w->header.rows) * each;
  if (!args.d_x || !args.d_y || tt__cuda_overlap(args.d_x, x_size, args.d_y, y_size) ||
      !tt__cuda_work_fits(d_work, work_size, way.plan.work_size) ||
      !tt__cuda_is_current(w->context))
    return TT_ERROR_INVALID;
  size_t room = tt__cuda_room(way.floats);
  float *buffer[2] = {(float *)d_work, (float *)(void *)((char *)d_work + room)};
  switch (way.plan.path) {
    case TT_CUDA_FUSED: return tt__cuda_run_fused(w, &args, &way, stream);
    case TT_CUDA_CHAIN: return tt__cuda_run_chain(w, &args, buffer, stream);
    default:
      return tt__cuda_run_dense(w, &args, buffer, (float *)(void *)((char *)d_work + 2 * room),
                                stream);
  }
}

TTDEF tt_status tt_cuda_apply(const tt_cuda_matrix *w, const float *d_x, ptrdiff_t batch,
                              float *d_y, void *d_work, size_t work_size,
                              struct CUstream_st *stream) {
  tt_cuda_args args;
  memset(&args, 0, sizeof args);
  args.batch = batch;
  args.d_x = d_x;
  args.d_y = d_y;
  return tt_cuda_apply_ex(w, &args, d_work, work_size, stream);
}

// Bytes for the slices of `count` rows, or of all (count < 0); 0 = does not fit.
static size_t tt__cuda_slices_size(const tt_cuda_matrix *w, ptrdiff_t count) {
  double flops = 0;
  if (!w || !tt__cuda_fits(&w->header, count)) return 0;
  size_t size = 2 * tt__cuda_room(tt__cuda_slice_floats(w, count, &flops));
  return size ? size : 1;
}

TTDEF size_t tt_cuda_expand_work_size(const tt_cuda_matrix *w) {
  return tt__cuda_slices_size(w, -1);
}
TTDEF size_t tt_cuda_rows_work_size(const tt_cuda_matrix *w, ptrdiff_t count) {
  return count < 0 ? 0 : tt__cuda_slices_size(w, count);
}

// Both of them: checks the workspace and runs.
static tt_status tt__cuda_slices(const tt_cuda_matrix *w, const int *d_index, ptrdiff_t count,
                                 float *d_out, void *d_work, size_t work_size,
                                 cudaStream_t stream) {
  size_t size = tt__cuda_slices_size(w, count);
  if (!size || !d_out || !tt__cuda_is_current(w->context) ||
      !tt__cuda_work_fits(d_work, work_size, size == 1 ? 0 : size))
    return TT_ERROR_INVALID;
  float *buffer[2] = {(float *)d_work, (float *)(void *)((char *)d_work + size / 2)};
  return tt__cuda_run_slices(w, d_index, count, d_out, 0, w->header.cols, buffer, stream);
}

TTDEF tt_status tt_cuda_expand(const tt_cuda_matrix *w, float *d_dense, void *d_work,
                               size_t work_size, struct CUstream_st *stream) {
  return tt__cuda_slices(w, NULL, -1, d_dense, d_work, work_size, stream);
}

TTDEF tt_status tt_cuda_rows(const tt_cuda_matrix *w, const int *d_index, ptrdiff_t count,
                             float *d_out, void *d_work, size_t work_size,
                             struct CUstream_st *stream) {
  if (!w || count < 0) return TT_ERROR_INVALID;
  if (count == 0) return TT_OK;
  if (!d_index) return TT_ERROR_INVALID;
  return tt__cuda_slices(w, d_index, count, d_out, d_work, work_size, stream);
}

// -------------------------------------------------------------------------------------- >>gradient
// A step C[p] = G S[p] has two gradients (see >>gradient of tt.h),
//   dG = sum_p dC[p] S[p]^T     and     dS[p] = G^T dC[p].
// The second is the product kernel again, after G was decoded and turned in the workspace. The
// first is a sum over all columns (p, w): parts of them go to different blocks, and a second kernel
// adds the parts in their order, so that nothing depends on which block is first. Gram matrices are
// the same sum, with both factors the same matrix; they are kept in double (see >>compress).

typedef struct tt__dturn {
  tt__dcore core;
  float *out; // (core.length, pitch); what lies behind core.rows is zero
  int pitch;
} tt__dturn;

enum { TT__TURN = 32 };

template <int DTYPE>
TT__DEVICE void tt__cuda_turn_run(const tt__dcore &core, int row, int j, float *to) {
  float scale = tt__cuda_row_scale(core, row);
  tt__four run = tt__cuda_decode<DTYPE>(core, row, j, tt__cuda_codes<DTYPE>(core, row, j));
  for (int t = 0; t < 4; t++) to[t] = run.v[t] * scale;
}

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2) tt__cuda_turn(const tt__dturn f) {
  __shared__ float tile[TT__TURN][TT__TURN + 1];
  int tiles = (f.pitch + TT__TURN - 1) / TT__TURN, thread = (int)threadIdx.x;
  int r0 = (int)blockIdx.x % tiles * TT__TURN, j0 = (int)blockIdx.x / tiles * TT__TURN;
  int row = r0 + thread / 8, j = j0 + thread % 8 * 4;
  float *to = &tile[thread / 8][thread % 8 * 4];
  if (row < f.core.rows && j < f.core.length) {
    TT__CUDA_BY_FORMAT(f.core, tt__cuda_turn_run, f.core, row, j, to)
  } else {
    for (int t = 0; t < 4; t++) to[t] = 0;
  }
  __syncthreads();
  for (int t = thread; t < TT__TURN * TT__TURN; t += TT__CUDA_THREADS) {
    row = r0 + t % TT__TURN;
    j = j0 + t / TT__TURN;
    if (row < f.pitch && j < f.core.length)
      f.out[(ptrdiff_t)j * f.pitch + row] = tile[t % TT__TURN][t / TT__TURN];
  }
}

// A state as columns (p, w): number i of a column is element p % pre * count * w + i * w + iw of
// row p / pre, and zero from `limit` on.
typedef struct tt__dview {
  const float *data;
  ptrdiff_t pre, ld, limit;
  int count; // numbers in a column
} tt__dview;

typedef struct tt__douter { // out[part][i][j] = sum over the columns of the part of a[i] b[j]
  tt__dview a, b;
  ptrdiff_t p, w, chunk; // chunk: columns in a part
  void *out;
} tt__douter;

enum { TT__OUTER_TILE = 64, TT__OUTER_DEPTH = 16 };

typedef struct tt__dstart { // number i of a column is at + i * w for i < room
  ptrdiff_t at;
  int room;
} tt__dstart;

TT__DEVICE tt__dstart tt__cuda_start(const tt__dview &view, ptrdiff_t w, ptrdiff_t q,
                                     ptrdiff_t end) {
  tt__dstart start = {0, 0};
  if (q >= end) return start;
  ptrdiff_t p = q / w, first = p % view.pre * view.count * w + q % w;
  start.at = p / view.pre * view.ld + first;
  start.room = tt__cuda_column_room(first, w, view.limit, view.count);
  return start;
}

// Numbers i0 .. of the columns of this step, side by side: to[column][i - i0].
TT__DEVICE void tt__cuda_outer_load(const tt__dview &view, ptrdiff_t w, const tt__dstart *starts,
                                    int i0, float *to) {
  enum { PITCH = TT__OUTER_TILE + 4, COUNT = TT__OUTER_TILE * TT__OUTER_DEPTH };
  TT__CUDA_UNROLL
  for (int n = 0; n < COUNT / TT__CUDA_THREADS; n++) {
    int t = (int)threadIdx.x + n * TT__CUDA_THREADS; // neighbours read what lies together
    int i = w == 1 ? t % TT__OUTER_TILE : t / TT__OUTER_DEPTH;
    int q = w == 1 ? t / TT__OUTER_TILE : t % TT__OUTER_DEPTH;
    to[q * PITCH + i] = i0 + i < starts[q].room ? view.data[starts[q].at + (i0 + i) * w] : 0;
  }
}

template <class SUM> TT__DEVICE void tt__cuda_outer(const tt__douter &f) {
  enum { PITCH = TT__OUTER_TILE + 4, DEPTH = TT__OUTER_DEPTH };
  __shared__ __align__(16) float a[DEPTH * PITCH], b[DEPTH * PITCH];
  __shared__ tt__dstart starts[2][DEPTH];
  unsigned a_tiles = ((unsigned)f.a.count + TT__OUTER_TILE - 1) / TT__OUTER_TILE;
  unsigned b_tiles = ((unsigned)f.b.count + TT__OUTER_TILE - 1) / TT__OUTER_TILE;
  int i0 = (int)(blockIdx.x % a_tiles) * TT__OUTER_TILE;
  int j0 = (int)(blockIdx.x / a_tiles % b_tiles) * TT__OUTER_TILE, thread = (int)threadIdx.x;
  ptrdiff_t part = (ptrdiff_t)(blockIdx.x / (a_tiles * b_tiles));
  ptrdiff_t end = part * f.chunk + f.chunk < f.p * f.w ? part * f.chunk + f.chunk : f.p * f.w;
  SUM sum[4][4] = {{0}};
  for (ptrdiff_t q0 = part * f.chunk; q0 < end; q0 += DEPTH) {
    if (thread < DEPTH)
      starts[0][thread] = tt__cuda_start(f.a, f.w, q0 + thread, end);
    else if (thread < 2 * DEPTH)
      starts[1][thread - DEPTH] = tt__cuda_start(f.b, f.w, q0 + thread - DEPTH, end);
    __syncthreads(); // the starts are known, and the tile before has been used
    tt__cuda_outer_load(f.a, f.w, starts[0], i0, a);
    tt__cuda_outer_load(f.b, f.w, starts[1], j0, b);
    __syncthreads();
    TT__CUDA_UNROLL
    for (int q = 0; q < DEPTH; q++) {
      tt__four left = *(const tt__four *)(const void *)(a + q * PITCH + thread / 16 * 4);
      tt__four right = *(const tt__four *)(const void *)(b + q * PITCH + thread % 16 * 4);
      TT__CUDA_UNROLL
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) sum[i][j] += (SUM)left.v[i] * (SUM)right.v[j];
    }
  }
  SUM *out = (SUM *)f.out + part * f.a.count * f.b.count;
  for (int i = i0 + thread / 16 * 4, ti = 0; ti < 4 && i + ti < f.a.count; ti++)
    for (int j = j0 + thread % 16 * 4, tj = 0; tj < 4 && j + tj < f.b.count; tj++)
      out[(ptrdiff_t)(i + ti) * f.b.count + j + tj] = sum[ti][tj];
}

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2)
    tt__cuda_outer_float(const tt__douter f) {
  tt__cuda_outer<float>(f);
}

typedef struct tt__dsum { // out[i][j] += scale * the sum of all parts, in their order
  const void *parts;
  ptrdiff_t num_parts, rows;
  int length;
  void *out;
  ptrdiff_t pitch; // numbers from row to row of out
  float scale;
} tt__dsum;

template <class SUM> TT__DEVICE void tt__cuda_sum(const tt__dsum &f) {
  ptrdiff_t at = (ptrdiff_t)blockIdx.x * TT__CUDA_THREADS + (int)threadIdx.x;
  ptrdiff_t size = f.rows * f.length;
  if (at >= size) return;
  SUM sum = 0, *out = (SUM *)f.out + at / f.length * f.pitch + at % f.length;
  for (ptrdiff_t part = 0; part < f.num_parts; part++)
    sum += ((const SUM *)f.parts)[part * size + at];
  *out += (SUM)f.scale * sum;
}

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2) tt__cuda_sum_float(const tt__dsum f) {
  tt__cuda_sum<float>(f);
}

typedef struct tt__dbias { // out[j] += sum over the batch of dy[b][j]
  const float *dy;
  ptrdiff_t batch, rows;
  float *out;
} tt__dbias;

// 32 columns a block; eight warps take every eighth row of the batch.
static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2) tt__cuda_bias(const tt__dbias f) {
  enum { WARPS = TT__CUDA_THREADS / 32 };
  __shared__ float part[WARPS][32];
  int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  ptrdiff_t j = (ptrdiff_t)blockIdx.x * 32 + lane;
  float sum = 0;
  for (ptrdiff_t b = warp; b < f.batch && j < f.rows; b += WARPS) sum += f.dy[b * f.rows + j];
  part[warp][lane] = sum;
  __syncthreads();
  if (warp || j >= f.rows) return;
  for (int i = 1; i < WARPS; i++) sum += part[i][lane];
  f.out[j] += sum;
}

static int tt__cuda_pitch(int count) { return (count + 3) / 4 * 4; }

// *turned becomes the transpose of a core, at `out`.
static tt_status tt__cuda_run_turn(tt_cuda_context *context, const tt__dcore *core, float *out,
                                   tt__dcore *turned, cudaStream_t stream) {
  tt__dturn f;
  unsigned grid;
  f.core = *core;
  f.out = out;
  f.pitch = tt__cuda_pitch(core->rows);
  *turned = tt__cuda_plain_core(out, core->length, core->rows, f.pitch);
  ptrdiff_t high = (f.pitch + TT__TURN - 1) / TT__TURN;
  ptrdiff_t wide = (core->length + TT__TURN - 1) / TT__TURN;
  if (!tt__cuda_grid(high * wide, &grid)) return TT_ERROR_UNSUPPORTED;
  return tt__cuda_status(context,
                         TT__CUDA_LAUNCH(tt__cuda_turn, grid, TT__CUDA_THREADS, 0, stream, f));
}

// Parts of a sum over `columns` for a result of rows x length: enough of them to fill the device,
// but 256 columns at least. *chunk becomes the columns of each.
static ptrdiff_t tt__cuda_parts(const tt_cuda_context *context, ptrdiff_t rows, ptrdiff_t length,
                                ptrdiff_t columns, ptrdiff_t *chunk) {
  ptrdiff_t tiles = ((rows + TT__OUTER_TILE - 1) / TT__OUTER_TILE) *
                    ((length + TT__OUTER_TILE - 1) / TT__OUTER_TILE);
  ptrdiff_t parts = 2 * context->multiprocessors / tiles, most = (columns + 255) / 256;
  if (columns < 1) columns = 1; // nothing is run, but its size is asked for
  if (parts > most) parts = most;
  if (parts < 1) parts = 1;
  *chunk =
      ((columns + parts - 1) / parts + TT__OUTER_DEPTH - 1) / TT__OUTER_DEPTH * TT__OUTER_DEPTH;
  return (columns + *chunk - 1) / *chunk;
}

// What the workspace of a backward pass holds: the inputs of all steps but the first, overwritten
// by their gradients; one turned core; the parts of one gradient.
typedef struct tt__dtape {
  size_t state[TT_MAX_ORDER], turned, parts, total; // bytes
} tt__dtape;

// Returns 0 where anything does not fit.
static int tt__cuda_tape(const tt_cuda_matrix *w, ptrdiff_t batch, tt__dtape *tape) {
  memset(tape, 0, sizeof *tape);
  if (!tt__cuda_fits(&w->header, batch)) return 0;
  for (int i = 0; i < w->header.shape.order; i++) {
    ptrdiff_t p, wide, chunk;
    const tt__dcore *core = &w->cores[tt__cuda_step_at(&w->header, batch, i, &p, &wide)];
    if (i) tape->state[i] = tt__cuda_room(p * wide * core->length);
    tape->total += tape->state[i];
    ptrdiff_t parts = tt__cuda_parts(w->context, core->rows, core->length, p * wide, &chunk);
    size_t turned = tt__cuda_room((ptrdiff_t)core->length * tt__cuda_pitch(core->rows));
    ptrdiff_t all = parts;
    if (!tt__cuda_multiply(&all, core->rows) || !tt__cuda_multiply(&all, core->length)) return 0;
    if (turned > tape->turned) tape->turned = turned;
    if (tt__cuda_room(all) > tape->parts) tape->parts = tt__cuda_room(all);
  }
  tape->total += tape->turned + tape->parts;
  return 1;
}

TTDEF size_t tt_cuda_backward_work_size(const tt_cuda_matrix *w, ptrdiff_t batch) {
  tt__dtape tape;
  return w && batch >= 0 && tt__cuda_tape(w, batch, &tape) ? tape.total : 0;
}

TTDEF tt_status tt_cuda_clear(tt_cuda_matrix *w, struct CUstream_st *stream) {
  if (!w || !tt__cuda_is_current(w->context)) return TT_ERROR_INVALID;
  return tt__cuda_status(w->context, cudaMemsetAsync(w->block, 0, w->size, stream));
}

// Is `grad` a train of unscaled floats, on the same device, whose cores lie as those of w?
static int tt__cuda_is_like(const tt_cuda_matrix *w, const tt_cuda_matrix *grad) {
  const tt_matrix *a = &w->header, *b = &grad->header;
  if (w == grad || w->context->device != grad->context->device || a->sweep != b->sweep ||
      a->rows != b->rows || a->cols != b->cols || a->shape.order != b->shape.order)
    return 0;
  for (int k = 0; k < a->shape.order; k++)
    if (a->shape.rows[k] != b->shape.rows[k] || a->shape.cols[k] != b->shape.cols[k] ||
        a->shape.ranks[k] != b->shape.ranks[k] || grad->cores[k].dtype != TT_F32 ||
        grad->cores[k].group || grad->cores[k].scale != 1)
      return 0;
  return 1;
}

// The input (of_rows 0) or the output (of_rows 1) of a step: `outside` is x or dy where the step is
// the first or the last, else NULL.
static tt__dview tt__cuda_view(const tt_matrix *w, ptrdiff_t batch, const float *outside,
                               const float *state, int count, ptrdiff_t p, ptrdiff_t wide,
                               int of_rows) {
  tt__dview view;
  view.data = outside ? outside : state;
  view.count = count;
  view.pre = outside ? p / batch : 1;
  view.ld = view.limit = outside ? of_rows ? w->rows : w->cols : count * wide;
  return view;
}

static void tt__cuda_read_view(tt__dproduct *f, const tt__dview *view) {
  f->in = view->data;
  f->in_pre = view->pre;
  f->in_ld = view->ld;
  f->in_limit = view->limit;
  tt__cuda_find_quads(f);
}

// grad += the gradient of one core.
static tt_status tt__cuda_run_core_gradient(const tt_cuda_matrix *w, const tt__dview *back,
                                            const tt__dview *in, ptrdiff_t p, ptrdiff_t wide,
                                            float *parts, const tt__dcore *grad, float scale,
                                            cudaStream_t stream) {
  tt__douter f;
  tt__dsum sum;
  unsigned grid;
  f.a = *back;
  f.b = *in;
  f.p = p;
  f.w = wide;
  f.out = parts;
  memset(&sum, 0, sizeof sum);
  sum.parts = parts;
  sum.num_parts = tt__cuda_parts(w->context, back->count, in->count, p * wide, &f.chunk);
  sum.rows = back->count;
  sum.length = in->count;
  sum.out = (void *)grad->data;
  sum.pitch = grad->row_size / 4;
  sum.scale = scale;
  ptrdiff_t tiles = (((ptrdiff_t)back->count + TT__OUTER_TILE - 1) / TT__OUTER_TILE) *
                    (((ptrdiff_t)in->count + TT__OUTER_TILE - 1) / TT__OUTER_TILE);
  if (!tt__cuda_grid(tiles * sum.num_parts, &grid)) return TT_ERROR_UNSUPPORTED;
  tt_status status = tt__cuda_status(
      w->context, TT__CUDA_LAUNCH(tt__cuda_outer_float, grid, TT__CUDA_THREADS, 0, stream, f));
  ptrdiff_t blocks = (sum.rows * sum.length + TT__CUDA_THREADS - 1) / TT__CUDA_THREADS;
  if (status) return status;
  if (!tt__cuda_grid(blocks, &grid)) return TT_ERROR_UNSUPPORTED;
  return tt__cuda_status(
      w->context, TT__CUDA_LAUNCH(tt__cuda_sum_float, grid, TT__CUDA_THREADS, 0, stream, sum));
}

static tt_status tt__cuda_run_bias(tt_cuda_matrix *grad, const float *dy, ptrdiff_t batch,
                                   cudaStream_t stream) {
  tt__dbias f;
  unsigned grid;
  f.dy = dy;
  f.batch = batch;
  f.rows = grad->header.rows;
  f.out = (float *)grad->block; // the bias is what a block begins with
  if (!tt__cuda_grid((f.rows + 31) / 32, &grid)) return TT_ERROR_UNSUPPORTED;
  return tt__cuda_status(grad->context,
                         TT__CUDA_LAUNCH(tt__cuda_bias, grid, TT__CUDA_THREADS, 0, stream, f));
}

// One pass forward that keeps its states, one back that replaces each by its gradient.
static tt_status tt__cuda_run_backward(const tt_cuda_matrix *w, const float *x, const float *dy,
                                       ptrdiff_t batch, float *dx, tt_cuda_matrix *grad,
                                       const tt__dtape *tape, char *at, cudaStream_t stream) {
  float *state[TT_MAX_ORDER + 1], *turned, *parts;
  int order = w->header.shape.order;
  tt_status status = TT_OK;
  ptrdiff_t p, wide;
  for (int i = 0; i < order; at += tape->state[i++]) state[i] = (float *)(void *)at;
  turned = (float *)(void *)at;
  parts = (float *)(void *)(at + tape->turned);
  state[order] = NULL;
  for (int i = 0; i + 1 < order && grad && !status; i++) {
    const tt__dcore *core = &w->cores[tt__cuda_step_at(&w->header, batch, i, &p, &wide)];
    tt__dproduct f = tt__cuda_plain_product(core, p, wide, NULL, state[i + 1]);
    tt__dview in =
        tt__cuda_view(&w->header, batch, i ? NULL : x, state[i], core->length, p, wide, 0);
    tt__cuda_read_view(&f, &in);
    status = tt__cuda_run_product(w->context, &f, stream);
  }
  for (int i = order - 1; i >= 0 && !status; i--) {
    int k = tt__cuda_step_at(&w->header, batch, i, &p, &wide);
    const tt__dcore *core = &w->cores[k];
    tt__dview back = tt__cuda_view(&w->header, batch, i + 1 < order ? NULL : dy, state[i + 1],
                                   core->rows, p, wide, 1);
    tt__dview in =
        tt__cuda_view(&w->header, batch, i ? NULL : x, state[i], core->length, p, wide, 0);
    if (grad)
      status = tt__cuda_run_core_gradient(w, &back, &in, p, wide, parts, &grad->cores[k],
                                          core->scale, stream);
    if (status || (!i && !dx)) break;
    tt__dcore other;
    status = tt__cuda_run_turn(w->context, core, turned, &other, stream);
    if (status) break;
    tt__dproduct f = tt__cuda_plain_product(&other, p, wide, NULL, i ? state[i] : dx);
    if (!i) {
      f.out_pre = p / batch;
      f.out.ld = f.out.limit = w->header.cols;
    }
    tt__cuda_read_view(&f, &back);
    status = tt__cuda_run_product(w->context, &f, stream);
  }
  if (!status && grad && grad->bias) status = tt__cuda_run_bias(grad, dy, batch, stream);
  return status;
}

TTDEF tt_status tt_cuda_backward(const tt_cuda_matrix *w, const float *d_x, const float *d_dy,
                                 ptrdiff_t batch, float *d_dx, tt_cuda_matrix *grad, void *d_work,
                                 size_t work_size, struct CUstream_st *stream) {
  tt__dtape tape;
  if (!w || batch < 0 || (grad && !tt__cuda_is_like(w, grad)) || (!grad && !d_dx))
    return TT_ERROR_INVALID;
  for (int k = 0; grad && k < w->header.shape.order; k++)
    if (w->cores[k].dtype != TT_F32) return TT_ERROR_UNSUPPORTED;
  if (!tt__cuda_tape(w, batch, &tape)) return TT_ERROR_MEMORY;
  if (batch == 0) return TT_OK;
  size_t x_size = (size_t)(batch * w->header.cols) * 4;
  size_t y_size = (size_t)(batch * w->header.rows) * 4;
  if ((grad && !d_x) || !d_dy || !tt__cuda_work_fits(d_work, work_size, tape.total) ||
      !tt__cuda_is_current(w->context))
    return TT_ERROR_INVALID;
  if (d_dx && ((d_x && tt__cuda_overlap(d_x, x_size, d_dx, x_size)) ||
               tt__cuda_overlap(d_dy, y_size, d_dx, x_size)))
    return TT_ERROR_INVALID;
  return tt__cuda_run_backward(w, d_x, d_dy, batch, d_dx, grad, &tape, (char *)d_work, stream);
}

// ------------------------------------------------------------------------------------------- >>svd
// One-sided Jacobi, a block for a matrix: the columns of X, the shorter side of A, are rotated in
// pairs until all are orthogonal, |x y| <= 2^-22 |x| |y| [Demmel92]. The pairs of a round have no
// column in common, each warp takes some; rounds follow the circle method, so that every pair meets
// once a sweep. V collects the rotations, A = (X/s) s V^T. Numbers are kept in float and their
// products added in double: nothing over- or underflows, and the rounding of thousands of rotations
// stays that of the stored numbers.

struct tt__dsvd {
  const float *a; // (rows, cols), count of them
  float *u, *s, *vt;
  int *sweeps;
  float *work;    // NULL: shared memory
  ptrdiff_t room; // floats of work for one matrix
  int rows, cols;
};

enum { TT__SWEEPS = 30 };

// Floats of work: X, V, the norms of X and coefficients of one projection.
static ptrdiff_t tt__cuda_svd_room(ptrdiff_t rows, ptrdiff_t cols) {
  ptrdiff_t n = rows < cols ? rows : cols, m = rows < cols ? cols : rows;
  return m * n + n * n + 2 * n;
}

TT__DEVICE double tt__cuda_warp_sum_double(double value) {
  TT__CUDA_UNROLL
  for (int bits = 16; bits; bits /= 2) value += __shfl_xor_sync(0xffffffffu, value, bits);
  return value;
}
TT__DEVICE unsigned long long tt__cuda_warp_max(unsigned long long value) {
  TT__CUDA_UNROLL
  for (int bits = 16; bits; bits /= 2) {
    unsigned long long other = __shfl_xor_sync(0xffffffffu, value, bits);
    value = other > value ? other : value;
  }
  return value;
}
// The same for a block; every thread must come. part has a place for each warp; a barrier must lie
// between its uses.
TT__DEVICE unsigned long long tt__cuda_block_max(unsigned long long value,
                                                 unsigned long long *part) {
  value = tt__cuda_warp_max(value);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = value;
  __syncthreads();
  for (unsigned i = 0; i < blockDim.x / 32; i++) value = part[i] > value ? part[i] : value;
  return value;
}

TT__DEVICE double tt__cuda_warp_dot(const float *x, const float *y, int count) {
  double sum = 0;
  for (int i = (int)threadIdx.x % 32; i < count; i += 32) sum += (double)x[i] * (double)y[i];
  return tt__cuda_warp_sum_double(sum);
}

TT__DEVICE void tt__cuda_turn_pair(float *x, float *y, int count, double c, double s) {
  for (int i = (int)threadIdx.x % 32; i < count; i += 32) {
    double a = (double)x[i], b = (double)y[i];
    x[i] = (float)(c * a - s * b);
    y[i] = (float)(s * a + c * b);
  }
}

// One warp makes columns i and j of X orthogonal; each lane has the same rows of both throughout.
// Returns whether they were not orthogonal.
TT__DEVICE int tt__cuda_rotate(float *x, float *v, int m, int n, int i, int j) {
  float *xi = x + (ptrdiff_t)i * m, *xj = x + (ptrdiff_t)j * m;
  double a = tt__cuda_warp_dot(xi, xi, m), b = tt__cuda_warp_dot(xj, xj, m);
  double product = tt__cuda_warp_dot(xi, xj, m);
  if (!(fabs(product) > 2.384185791015625e-7 * sqrt(a * b))) return 0;
  double zeta = (b - a) / (2 * product);
  double t = (zeta < 0 ? -1 : 1) / (fabs(zeta) + sqrt(1 + zeta * zeta));
  double c = 1 / sqrt(1 + t * t);
  tt__cuda_turn_pair(xi, xj, m, c, t * c);
  tt__cuda_turn_pair(v + (ptrdiff_t)i * n, v + (ptrdiff_t)j * n, n, c, t * c);
  return 1;
}

// All pairs, until a sweep rotates none. Returns the sweeps, -1 if 30 were not enough.
TT__DEVICE int tt__cuda_sweeps(float *x, float *v, int m, int n, unsigned long long *part) {
  int warps = (int)blockDim.x / 32, warp = (int)threadIdx.x / 32, even = n + n % 2;
  for (int sweep = 1; sweep <= TT__SWEEPS; sweep++) {
    int rotated = 0;
    for (int round = 0; round + 1 < even; round++) {
      for (int pair = warp; pair < even / 2; pair += warps) {
        int i = (round + pair) % (even - 1), j = (round + even - 1 - pair) % (even - 1);
        if (pair == 0) j = even - 1; // stands still while the others go round
        if (i < n && j < n) rotated |= tt__cuda_rotate(x, v, m, n, i, j);
      }
      __syncthreads(); // the next round pairs others
    }
    if (!tt__cuda_block_max((unsigned long long)rotated, part)) return sweep;
  }
  return -1;
}

// Column j of X was zero: it becomes a unit vector orthogonal to those before it and to those that
// were not zero. The unit vector to start from is the one that lies least in their span.
TT__DEVICE void tt__cuda_complete(float *x, const float *norm, float *coefficient, int m, int n,
                                  int j, unsigned long long *part) {
  int warps = (int)blockDim.x / 32, warp = (int)threadIdx.x / 32;
  unsigned long long best = 0;
  float *to = x + (ptrdiff_t)j * m;
  for (int i = (int)threadIdx.x; i < m; i += (int)blockDim.x) {
    float inside = 0;
    for (int k = 0; k < n; k++)
      if (k < j || norm[k] > 0) inside += x[(ptrdiff_t)k * m + i] * x[(ptrdiff_t)k * m + i];
    unsigned long long key = (unsigned long long)tt__cuda_bits(4 - inside) << 32;
    key |= 0xffffffffu - (unsigned)i;
    best = key > best ? key : best;
  }
  int start = (int)(0xffffffffu - (unsigned)tt__cuda_block_max(best, part));
  for (int i = (int)threadIdx.x; i < m; i += (int)blockDim.x) to[i] = i == start ? 1 : 0;
  for (int pass = 0; pass < 3; pass++) {
    __syncthreads(); // the column is complete
    for (int k = warp; k < n; k += warps) {
      double inside = k < j || norm[k] > 0 ? tt__cuda_warp_dot(x + (ptrdiff_t)k * m, to, m) : 0;
      if (threadIdx.x % 32 == 0) coefficient[k] = (float)inside;
    }
    double length = sqrt(tt__cuda_warp_dot(to, to, m));
    __syncthreads(); // all have read the column
    for (int i = (int)threadIdx.x; i < m; i += (int)blockDim.x) {
      double value = (double)to[i];
      for (int k = 0; k < n; k++)
        if (k != j) value -= (double)coefficient[k] * (double)x[(ptrdiff_t)k * m + i];
      to[i] = (float)(value / length);
    }
  }
  __syncthreads();
}

// Writes column j of X and V as number `place` of the results, so that the largest entry of the
// column of U is positive.
TT__DEVICE void tt__cuda_svd_store(const tt__dsvd &f, ptrdiff_t index, const float *x,
                                   const float *v, int j, int place) {
  int wide = f.rows < f.cols, n = wide ? f.rows : f.cols, m = wide ? f.cols : f.rows;
  const float *left = wide ? v + (ptrdiff_t)j * n : x + (ptrdiff_t)j * m;
  const float *right = wide ? x + (ptrdiff_t)j * m : v + (ptrdiff_t)j * n;
  unsigned long long best = 0;
  int lane = (int)threadIdx.x % 32;
  for (int i = lane; i < f.rows; i += 32) {
    unsigned long long key = (unsigned long long)(tt__cuda_bits(left[i]) & 0x7fffffffu) << 32;
    key |= 0xffffffffu - (unsigned)i;
    best = key > best ? key : best;
  }
  float sign = left[0xffffffffu - (unsigned)tt__cuda_warp_max(best)] < 0 ? -1.0f : 1.0f;
  for (int i = lane; f.u && i < f.rows; i += 32)
    f.u[(index * f.rows + i) * n + place] = sign * left[i];
  for (int i = lane; f.vt && i < f.cols; i += 32)
    f.vt[(index * n + place) * f.cols + i] = sign * right[i];
}

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 1) tt__cuda_svd(const tt__dsvd f) {
  TT__CUDA_SHARED(shared);
  __shared__ unsigned long long part[TT__CUDA_THREADS / 32];
  ptrdiff_t index = (ptrdiff_t)blockIdx.x, size = (ptrdiff_t)f.rows * f.cols;
  int wide = f.rows < f.cols, n = wide ? f.rows : f.cols, m = wide ? f.cols : f.rows;
  int warps = (int)blockDim.x / 32, warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  float *x = f.work ? f.work + index * f.room : shared, *v = x + size;
  float *norm = v + (ptrdiff_t)n * n, *coefficient = norm + n;
  unsigned long long most = 0; // bits of the largest magnitude: they are ordered, NaN last
  for (ptrdiff_t i = (int)threadIdx.x; i < size; i += (int)blockDim.x) {
    unsigned long long bits = tt__cuda_bits(f.a[index * size + i]) & 0x7fffffffu;
    most = bits > most ? bits : most;
  }
  most = tt__cuda_block_max(most, part);
  int exponent = (int)(most >> 23), good = most < 0x7f800000u;
  exponent = exponent < 1 ? 1 : exponent > 253 ? 253 : exponent;
  float scale = tt__cuda_float((uint32_t)(254 - exponent) << 23); // the largest is 1 to 4 then
  float back = tt__cuda_float((uint32_t)exponent << 23), lost = tt__cuda_float(0x7fc00000u);
  for (ptrdiff_t i = (int)threadIdx.x; i < size; i += (int)blockDim.x) {
    float value = good ? f.a[index * size + i] * scale : lost;
    x[wide ? i : i % n * m + i / n] = value;
  }
  for (int i = (int)threadIdx.x; i < n * n; i += (int)blockDim.x)
    v[i] = good ? (i / n == i % n ? 1 : 0) : lost;
  __syncthreads();
  int sweeps = good ? tt__cuda_sweeps(x, v, m, n, part) : 0;
  for (int j = warp; j < n; j += warps) {
    double length = sqrt(tt__cuda_warp_dot(x + (ptrdiff_t)j * m, x + (ptrdiff_t)j * m, m));
    if (lane == 0) norm[j] = length > 1e-30 ? (float)length : good ? 0 : lost;
    for (int i = lane; i < m && length > 1e-30; i += 32)
      x[(ptrdiff_t)j * m + i] = (float)((double)x[(ptrdiff_t)j * m + i] / length);
  }
  __syncthreads(); // all norms are known
  for (int j = 0; j < n; j++)
    if (norm[j] == 0) tt__cuda_complete(x, norm, coefficient, m, n, j, part);
  for (int j = warp; j < n; j += warps) {
    int place = 0;
    for (int k = 0; k < n; k++) place += norm[k] > norm[j] || (norm[k] == norm[j] && k < j);
    if (!good) place = j;
    tt__cuda_svd_store(f, index, x, v, j, place);
    if (lane == 0) f.s[index * n + place] = norm[j] * back;
  }
  if (f.sweeps && threadIdx.x == 0) f.sweeps[index] = sweeps;
}

// In shared memory?
static int tt__cuda_svd_is_small(const tt_cuda_context *context, ptrdiff_t rows, ptrdiff_t cols) {
  return (size_t)tt__cuda_svd_room(rows, cols) * 4 <= context->svd_shared;
}

TTDEF size_t tt_cuda_svd_batched_work_size(const tt_cuda_context *context, ptrdiff_t count,
                                           int rows, int cols) {
  if (!context || count < 0 || rows < 1 || cols < 1) return 0;
  ptrdiff_t n = rows < cols ? rows : cols, total = n + 2, size = rows;
  if (!tt__cuda_multiply(&size, cols) || size > (ptrdiff_t)1 << 30 ||
      !tt__cuda_multiply(&total, (ptrdiff_t)rows + cols) ||
      !tt__cuda_multiply(&total, count > 0 ? count : 1))
    return 0;
  if (tt__cuda_svd_is_small(context, rows, cols) || count == 0) return 1;
  return tt__cuda_room(count * tt__cuda_svd_room(rows, cols));
}

TTDEF tt_status tt_cuda_svd_batched(tt_cuda_context *context, const float *d_a, ptrdiff_t count,
                                    int rows, int cols, float *d_u, float *d_s, float *d_vt,
                                    int *d_sweeps, void *d_work, size_t work_size,
                                    struct CUstream_st *stream) {
  tt__dsvd f;
  unsigned grid;
  size_t size = tt_cuda_svd_batched_work_size(context, count, rows, cols);
  if (!size) return TT_ERROR_INVALID;
  if (count == 0) return TT_OK;
  if (!d_a || !d_s || !tt__cuda_work_fits(d_work, work_size, size == 1 ? 0 : size) ||
      !tt__cuda_is_current(context))
    return TT_ERROR_INVALID;
  f.a = d_a;
  f.u = d_u;
  f.s = d_s;
  f.vt = d_vt;
  f.sweeps = d_sweeps;
  f.work = size == 1 ? NULL : (float *)d_work;
  f.room = tt__cuda_svd_room(rows, cols);
  f.rows = rows;
  f.cols = cols;
  int pairs = ((rows < cols ? rows : cols) + 1) / 2, warps = pairs < 8 ? pairs : 8;
  if (!tt__cuda_grid(count, &grid)) return TT_ERROR_UNSUPPORTED;
  return tt__cuda_status(context, TT__CUDA_LAUNCH(tt__cuda_svd, grid, (unsigned)warps * 32,
                                                  size == 1 ? (size_t)f.room * 4 : 0, stream, f));
}

// -------------------------------------------------------------------------------------- >>compress
// TT-SVD [Oseledets11, algorithm 1] from left to right. All passes over the matrix run on the
// device; the host decides on each rank, from a small symmetric eigenvalue problem:
//   the Gram matrix, in double, of the shorter side of the unfolding A (a, b), or,
//   where a low cap is given, that of B = Q^T A, with Q from block power iteration [Musco15] whose
//   blocks tt__cuda_svd keeps orthonormal; the norm of A - Q B then is the tail that B lacks.
// Wide unfoldings leave U^T A for the next core, with U from the host. Tall ones leave s V^T, and
// their core is A V / s: as orthonormal as float allows, 1e-7 s_1/s_j for column j, with no effect
// on the product.

typedef struct tt__dpool { // device memory and status of one call
  tt_cuda_context *context;
  cudaStream_t stream;
  tt_status status;
  void *blocks[24];
  int count;
} tt__dpool;

static void *tt__cuda_take(tt__dpool *pool, ptrdiff_t count, size_t each) {
  void *made = NULL;
  if (!pool->status)
    pool->status =
        tt__cuda_status(pool->context, cudaMalloc(&made, (size_t)(count > 0 ? count : 1) * each));
  if (made) pool->blocks[pool->count++] = made;
  return made;
}
static float *tt__cuda_take_floats(tt__dpool *pool, ptrdiff_t count) {
  return (float *)tt__cuda_take(pool, count, sizeof(float));
}

// Frees what was taken after the first `keep` blocks.
static void tt__cuda_rewind(tt__dpool *pool, int keep) {
  while (pool->count > keep) {
    tt_status status = tt__cuda_status(pool->context, cudaFree(pool->blocks[--pool->count]));
    if (!pool->status) pool->status = status;
  }
}

static void tt__cuda_copy(tt__dpool *pool, void *to, const void *from, size_t size,
                          enum cudaMemcpyKind kind) {
  if (!pool->status)
    pool->status =
        tt__cuda_status(pool->context, cudaMemcpyAsync(to, from, size, kind, pool->stream));
}
static void tt__cuda_wait(tt__dpool *pool) {
  tt_status status = tt__cuda_status(pool->context, cudaStreamSynchronize(pool->stream));
  if (!pool->status) pool->status = status;
}

// Launches a kernel unless something has failed before.
#define TT__CUDA_RUN(pool, kernel, num_blocks, args)                                               \
  do {                                                                                             \
    unsigned tt__grid;                                                                             \
    if (!(pool)->status && !tt__cuda_grid(num_blocks, &tt__grid))                                  \
      (pool)->status = TT_ERROR_UNSUPPORTED;                                                       \
    if (!(pool)->status)                                                                           \
      (pool)->status =                                                                             \
          tt__cuda_status((pool)->context, TT__CUDA_LAUNCH(kernel, tt__grid, TT__CUDA_THREADS, 0,  \
                                                           (pool)->stream, args));                 \
  } while (0)

// ---- kernels

typedef struct tt__dunfold { // out[i_1..i_d] = scale * W, i_k = (m_k, n_k), zero in the padding
  const float *w;
  float *out;
  ptrdiff_t true_rows, true_cols, size;
  float scale;
  int order, rows[TT_MAX_ORDER], cols[TT_MAX_ORDER];
} tt__dunfold;

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2) tt__cuda_unfold(const tt__dunfold f) {
  ptrdiff_t at = (ptrdiff_t)blockIdx.x * TT__CUDA_THREADS + (int)threadIdx.x, rest = at;
  if (at >= f.size) return;
  ptrdiff_t row = 0, col = 0, row_step = 1, col_step = 1;
  for (int k = f.order - 1; k >= 0; k--) {
    col += rest % f.cols[k] * col_step;
    rest /= f.cols[k];
    row += rest % f.rows[k] * row_step;
    rest /= f.rows[k];
    col_step *= f.cols[k];
    row_step *= f.rows[k];
  }
  f.out[at] = row < f.true_rows && col < f.true_cols ? f.w[row * f.true_cols + col] * f.scale : 0;
}

typedef struct tt__dfound { // what a block saw of an array
  double square;            // sum of squares
  unsigned long long first; // ~0 minus the first index of NaN or Inf; 0 = none
} tt__dfound;
typedef struct tt__dscan {
  const float *data;
  ptrdiff_t size, chunk;
  tt__dfound *found; // one of each block
} tt__dscan;

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2) tt__cuda_scan(const tt__dscan f) {
  __shared__ double squares[TT__CUDA_THREADS / 32];
  __shared__ unsigned long long part[TT__CUDA_THREADS / 32];
  ptrdiff_t begin = (ptrdiff_t)blockIdx.x * f.chunk;
  ptrdiff_t end = begin + f.chunk < f.size ? begin + f.chunk : f.size;
  unsigned long long first = 0;
  double sum = 0;
  for (ptrdiff_t i = begin + (int)threadIdx.x; i < end; i += TT__CUDA_THREADS) {
    double value = (double)f.data[i];
    sum += value * value;
    if (!first && (tt__cuda_bits(f.data[i]) & 0x7fffffffu) >= 0x7f800000u)
      first = ~0ull - (unsigned long long)i;
  }
  sum = tt__cuda_warp_sum_double(sum);
  if (threadIdx.x % 32 == 0) squares[threadIdx.x / 32] = sum;
  first = tt__cuda_block_max(first, part); // waits for squares as well
  if (threadIdx.x) return;
  for (int i = 1; i < TT__CUDA_THREADS / 32; i++) sum += squares[i];
  f.found[blockIdx.x].square = sum;
  f.found[blockIdx.x].first = first;
}

typedef struct tt__dsigns { // random signs: the start of the power iteration
  float *out;
  ptrdiff_t size;
  unsigned seed;
} tt__dsigns;

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2) tt__cuda_signs(const tt__dsigns f) {
  ptrdiff_t at = (ptrdiff_t)blockIdx.x * TT__CUDA_THREADS + (int)threadIdx.x;
  if (at >= f.size) return;
  unsigned long long z = ((unsigned long long)f.seed << 40) + (unsigned long long)at + 1;
  z *= 0x9E3779B97F4A7C15ull; // splitmix64
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  f.out[at] = (z ^ (z >> 31)) >> 63 ? 1.0f : -1.0f;
}

static __global__ void __launch_bounds__(TT__CUDA_THREADS, 1)
    tt__cuda_outer_double(const tt__douter f) {
  tt__cuda_outer<double>(f);
}
static __global__ void __launch_bounds__(TT__CUDA_THREADS, 2)
    tt__cuda_sum_double(const tt__dsum f) {
  tt__cuda_sum<double>(f);
}

// ---- steps

static ptrdiff_t tt__cuda_blocks(ptrdiff_t count) {
  return (count + TT__CUDA_THREADS - 1) / TT__CUDA_THREADS;
}

enum { TT__SCAN_BLOCKS = 512 };

// Enqueues the scan of an array; found has TT__SCAN_BLOCKS places, *count of them are used.
static void tt__cuda_run_scan(tt__dpool *pool, const float *data, ptrdiff_t size, tt__dfound *found,
                              ptrdiff_t *count) {
  tt__dscan f;
  f.data = data;
  f.size = size;
  f.chunk = tt__cuda_blocks((size + TT__SCAN_BLOCKS - 1) / TT__SCAN_BLOCKS) * TT__CUDA_THREADS;
  f.found = found;
  *count = (size + f.chunk - 1) / f.chunk;
  TT__CUDA_RUN(pool, tt__cuda_scan, *count, f);
}

static double tt__cuda_found_square(const tt__dfound *found, ptrdiff_t count) {
  double sum = 0;
  for (ptrdiff_t i = 0; i < count; i++) sum += found[i].square;
  return sum;
}

// C[p][row][w] = sum_j G[row][j] S[p][j][w], all of it packed but the rows of G.
static void tt__cuda_multiply_by(tt__dpool *pool, const tt__dcore *g, ptrdiff_t p, ptrdiff_t w,
                                 const float *s, float *c) {
  tt__dproduct f = tt__cuda_plain_product(g, p, w, s, c);
  tt__cuda_find_quads(&f);
  if (!pool->status) pool->status = tt__cuda_run_product(pool->context, &f, pool->stream);
}

// gram (count, count) of A (a, b): of its rows, or of its columns.
static void tt__cuda_run_gram(tt__dpool *pool, const float *data, ptrdiff_t a, ptrdiff_t b,
                              int of_rows, double *gram) {
  tt__douter f;
  tt__dsum sum;
  ptrdiff_t side = of_rows ? a : b;
  memset(&sum, 0, sizeof sum);
  f.p = of_rows ? 1 : a;
  f.w = of_rows ? b : 1;
  f.a.data = data;
  f.a.pre = 1;
  f.a.ld = f.a.limit = of_rows ? a * b : b;
  f.a.count = (int)side;
  f.b = f.a;
  sum.num_parts = tt__cuda_parts(pool->context, side, side, f.p * f.w, &f.chunk);
  f.out = tt__cuda_take(pool, sum.num_parts * side * side, sizeof(double));
  ptrdiff_t tiles = (side + TT__OUTER_TILE - 1) / TT__OUTER_TILE;
  TT__CUDA_RUN(pool, tt__cuda_outer_double, tiles * tiles * sum.num_parts, f);
  if (!pool->status)
    pool->status = tt__cuda_status(
        pool->context,
        cudaMemsetAsync(gram, 0, (size_t)(side * side) * sizeof(double), pool->stream));
  sum.parts = f.out;
  sum.rows = side;
  sum.length = (int)side;
  sum.out = gram;
  sum.pitch = side;
  sum.scale = 1;
  TT__CUDA_RUN(pool, tt__cuda_sum_double, tt__cuda_blocks(side * side), sum);
}

// *turned becomes the transpose of a packed (rows, cols), cols a multiple of 4.
static void tt__cuda_turned(tt__dpool *pool, const float *data, ptrdiff_t rows, ptrdiff_t cols,
                            float *out, tt__dcore *turned) {
  tt__dcore core = tt__cuda_plain_core(data, (int)rows, (int)cols, cols);
  if (!pool->status)
    pool->status = tt__cuda_run_turn(pool->context, &core, out, turned, pool->stream);
}

// Orthonormal columns (of_rows 0) or rows that span those of a packed (rows, cols).
static void tt__cuda_orthonormal(tt__dpool *pool, const float *data, ptrdiff_t rows, ptrdiff_t cols,
                                 int of_rows, float *out, float *values, void *work,
                                 size_t work_size) {
  if (!pool->status)
    pool->status =
        tt_cuda_svd_batched(pool->context, data, 1, (int)rows, (int)cols, of_rows ? NULL : out,
                            values, of_rows ? out : NULL, NULL, work, work_size, pool->stream);
}

typedef struct tt__dsketch { // A (a, b) ~ Q B
  ptrdiff_t block;           // columns of Q, a multiple of 4; 0 = no sketch
  float *q, *b;
  tt__dfound *found; // of A - Q B
  ptrdiff_t num_found;
} tt__dsketch;

// Two rounds of block power iteration.
static void tt__cuda_run_sketch(tt__dpool *pool, const float *data, ptrdiff_t a, ptrdiff_t b,
                                unsigned seed, tt__dsketch *sketch) {
  ptrdiff_t l = sketch->block, pitch = tt__cuda_pitch((int)a);
  size_t tall = tt_cuda_svd_batched_work_size(pool->context, 1, (int)a, (int)l);
  size_t wide = tt_cuda_svd_batched_work_size(pool->context, 1, (int)l, (int)b);
  size_t work_size = tall > wide ? tall : wide;
  tt__dsigns signs;
  tt__dcore right, left;
  float *y = tt__cuda_take_floats(pool, a * l), *z = tt__cuda_take_floats(pool, l * b);
  float *turned = tt__cuda_take_floats(pool, l * pitch), *values = tt__cuda_take_floats(pool, l);
  void *work = tt__cuda_take(pool, (ptrdiff_t)work_size, 1);
  sketch->q = tt__cuda_take_floats(pool, a * l);
  sketch->b = tt__cuda_take_floats(pool, l * b);
  sketch->found = (tt__dfound *)tt__cuda_take(pool, TT__SCAN_BLOCKS, sizeof(tt__dfound));
  signs.out = z;
  signs.size = l * b;
  signs.seed = seed;
  TT__CUDA_RUN(pool, tt__cuda_signs, tt__cuda_blocks(signs.size), signs);
  right = tt__cuda_plain_core(z, (int)l, (int)b, b);
  for (int round = 0; round < 3; round++) {
    tt__cuda_multiply_by(pool, &right, a, 1, data, y); // Y = A Z^T
    tt__cuda_orthonormal(pool, y, a, l, 0, sketch->q, values, work, work_size);
    tt__cuda_turned(pool, sketch->q, a, l, turned, &left);
    tt__cuda_multiply_by(pool, &left, 1, b, data, sketch->b); // B = Q^T A
    if (round < 2) tt__cuda_orthonormal(pool, sketch->b, l, b, 1, z, values, work, work_size);
  }
  // A - Q B: the columns of B are vectors of length l, those of A of length a
  tt__dcore q = tt__cuda_plain_core(sketch->q, (int)a, (int)l, l);
  float *rest = tt__cuda_take_floats(pool, a * b);
  tt__cuda_copy(pool, rest, data, (size_t)(a * b) * sizeof(float), cudaMemcpyDeviceToDevice);
  tt__dproduct f = tt__cuda_plain_product(&q, 1, b, sketch->b, rest);
  f.out.alpha = -1;
  f.out.beta = 1;
  if (!pool->status) pool->status = tt__cuda_run_product(pool->context, &f, pool->stream);
  tt__cuda_run_scan(pool, rest, a * b, sketch->found, &sketch->num_found);
}

// ---- one bond

typedef struct tt__dbond {
  const float *data; // the unfolding A (a, b) on the device
  ptrdiff_t a, b, cap;
  double budget; // squared weight that may be cut; 0 = the cap decides
  unsigned seed;
  int method;
  // out
  ptrdiff_t rank;
  float *core; // host (a, rank)
  double cut, entropy;
  int complete, limit;
} tt__dbond;

// Columns of the sketch of an unfolding: 8 more than the cap; 0 = its Gram matrix is taken.
static ptrdiff_t tt__cuda_block(const tt__dbond *bond) {
  ptrdiff_t least = bond->a < bond->b ? bond->a : bond->b, block = (bond->cap + 11) / 4 * 4;
  ptrdiff_t longest = bond->a < bond->b ? bond->b : bond->a;
  if (bond->method == TT_SVD_GRAM || bond->cap == 0 || bond->b % 4 || 4 * block > least) return 0;
  return longest * block < (ptrdiff_t)1 << 30 ? block : 0;
}

// Room for the numbers of all bonds on the host.
typedef struct tt__dhost {
  double *gram, *values, *vectors;
  float *left, *right; // factors on their way to the device, rows padded to fours
  tt__dfound *found;
} tt__dhost;

static void tt__cuda_host_close(const tt_allocator *allocator, tt__dhost *host) {
  tt__cuda_host_release(allocator, host->gram);
  tt__cuda_host_release(allocator, host->left);
  tt__cuda_host_release(allocator, host->found);
}

static tt_status tt__cuda_host_open(const tt_allocator *allocator, ptrdiff_t side,
                                    tt__dhost *host) {
  ptrdiff_t pitch = tt__cuda_pitch((int)side);
  memset(host, 0, sizeof *host);
  host->gram = (double *)tt__cuda_host_allocate(allocator,
                                                (size_t)(2 * side * side + side) * sizeof(double));
  host->left =
      (float *)tt__cuda_host_allocate(allocator, (size_t)(2 * side * pitch) * sizeof(float));
  host->found =
      (tt__dfound *)tt__cuda_host_allocate(allocator, TT__SCAN_BLOCKS * sizeof(tt__dfound));
  if (!host->gram || !host->left || !host->found) {
    tt__cuda_host_close(allocator, host);
    return TT_ERROR_MEMORY;
  }
  host->vectors = host->gram + side * side;
  host->values = host->vectors + side * side;
  host->right = host->left + side * pitch;
  return TT_OK;
}

// Chooses the rank from squared singular values, descending, and the weight nobody saw. The
// smallest that keeps the cap and cuts no more than the budget.
static void tt__cuda_choose_rank(tt__dbond *bond, const double *squares, ptrdiff_t count,
                                 double unseen) {
  ptrdiff_t side = bond->a < bond->b ? bond->a : bond->b, rank = count;
  ptrdiff_t most = bond->cap > 0 && bond->cap < count ? bond->cap : count;
  double tail = unseen, total = unseen, entropy = 0;
  while (rank > 1) {
    double next = tail + (squares[rank - 1] > 0 ? squares[rank - 1] : 0);
    if (rank <= most && (bond->budget <= 0 || next > bond->budget)) break;
    tail = next;
    rank--;
  }
  bond->rank = rank;
  bond->cut = tail;
  bond->limit = TT_LIMIT_SHAPE;
  if (rank < side)
    bond->limit = rank == most && most == bond->cap ? TT_LIMIT_CAP : TT_LIMIT_EPSILON;
  // the cap allowed just what was needed
  if (bond->limit == TT_LIMIT_CAP && bond->budget > 0 && tail <= bond->budget && rank > 1 &&
      tail + squares[rank - 1] > bond->budget)
    bond->limit = TT_LIMIT_EPSILON;
  for (ptrdiff_t i = 0; i < count; i++) total += squares[i] > 0 ? squares[i] : 0;
  for (ptrdiff_t i = 0; i <= count && total > 0; i++) {
    double p = (i < count ? squares[i] : unseen) / total;
    if (p > 0) entropy -= p * log(p);
  }
  bond->entropy = entropy > 0 ? entropy : 0;
}

// A matrix (count, side) on the host, rows padded to `pitch`, becomes a core on the device.
static tt__dcore tt__cuda_send(tt__dpool *pool, const float *from, ptrdiff_t count,
                               ptrdiff_t side) {
  ptrdiff_t pitch = tt__cuda_pitch((int)side);
  float *to = tt__cuda_take_floats(pool, count * pitch);
  tt__cuda_copy(pool, to, from, (size_t)(count * pitch) * sizeof(float), cudaMemcpyHostToDevice);
  return tt__cuda_plain_core(to, (int)count, (int)side, pitch);
}

// Decomposes one unfolding: the core, and the carry (rank, b) on the device. One synchronisation,
// for the eigenvalue problem; what is copied after it arrives with the next.
static void tt__cuda_cut(tt__dpool *pool, const tt_allocator *allocator, tt__dbond *bond,
                         tt__dhost *host, float *carry) {
  ptrdiff_t a = bond->a, b = bond->b;
  tt__dsketch sketch;
  memset(&sketch, 0, sizeof sketch);
  sketch.block = tt__cuda_block(bond);
  int is_tall = !sketch.block && a > b;
  ptrdiff_t side = sketch.block ? sketch.block : a < b ? a : b, pitch = tt__cuda_pitch((int)side);
  double unseen = 0, *gram = (double *)tt__cuda_take(pool, side * side, sizeof(double));
  if (sketch.block) {
    tt__cuda_run_sketch(pool, bond->data, a, b, bond->seed, &sketch);
    tt__cuda_run_gram(pool, sketch.b, side, b, 1, gram);
    tt__cuda_copy(pool, host->found, sketch.found, (size_t)sketch.num_found * sizeof(tt__dfound),
                  cudaMemcpyDeviceToHost);
  } else {
    tt__cuda_run_gram(pool, bond->data, a, b, !is_tall, gram);
  }
  tt__cuda_copy(pool, host->gram, gram, (size_t)(side * side) * sizeof(double),
                cudaMemcpyDeviceToHost);
  tt__cuda_wait(pool);
  if (pool->status) return;
  tt_options options;
  memset(&options, 0, sizeof options);
  options.allocator = *allocator;
  pool->status = tt_eigh_f64(side, host->gram, side, host->values, host->vectors, side, &options);
  if (pool->status) return;
  if (sketch.block) unseen = tt__cuda_found_square(host->found, sketch.num_found);
  tt__cuda_choose_rank(bond, host->values, side, unseen);
  bond->complete = !sketch.block;
  bond->core = (float *)tt__cuda_host_allocate(allocator, (size_t)(a * bond->rank) * sizeof(float));
  if (!bond->core) pool->status = TT_ERROR_MEMORY;
  if (pool->status) return;
  double zero = host->values[0] * 1e-15 * (double)side; // below it: rounding
  memset(host->left, 0, (size_t)(2 * side * pitch) * sizeof(float));
  for (ptrdiff_t j = 0; j < bond->rank; j++) {
    double value = host->values[j] > zero ? sqrt(host->values[j]) : 0;
    for (ptrdiff_t i = 0; i < side; i++) {
      double entry = host->vectors[i * side + j];
      host->left[j * pitch + i] = (float)(is_tall ? value > 0 ? entry / value : 0 : entry);
      if (is_tall) // s V^T is (rank, b), packed
        host->right[j * b + i] = (float)(entry * value);
      else if (!sketch.block)
        bond->core[i * bond->rank + j] = (float)entry;
    }
  }
  tt__dcore left = tt__cuda_send(pool, host->left, bond->rank, side);
  float *d_core = is_tall || sketch.block ? tt__cuda_take_floats(pool, a * bond->rank) : NULL;
  if (is_tall) {
    tt__cuda_multiply_by(pool, &left, a, 1, bond->data, d_core); // A V / s
    tt__cuda_copy(pool, carry, host->right, (size_t)(bond->rank * b) * sizeof(float),
                  cudaMemcpyHostToDevice);
  } else if (sketch.block) {
    tt__cuda_multiply_by(pool, &left, a, 1, sketch.q, d_core);
    tt__cuda_multiply_by(pool, &left, 1, b, sketch.b, carry);
  } else {
    tt__cuda_multiply_by(pool, &left, 1, b, bond->data, carry);
  }
  if (d_core)
    tt__cuda_copy(pool, bond->core, d_core, (size_t)(a * bond->rank) * sizeof(float),
                  cudaMemcpyDeviceToHost);
}

// ---- all of them

static int tt__cuda_options_valid(const tt_options *options) {
  return options->max_rank >= 0 && options->epsilon >= 0 && options->epsilon <= DBL_MAX &&
         options->dtype >= TT_F32 && options->dtype <= TT_I2 && options->group >= TT_GROUP_ROW &&
         options->method >= TT_SVD_AUTO && options->method <= TT_SVD_RANDOMIZED &&
         !options->allocator.alloc_fn == !options->allocator.free_fn;
}

// Checks that need no device. On TT_OK every size of the decomposition fits.
static tt_status tt__cuda_compress_check(ptrdiff_t rows, ptrdiff_t cols, const tt_shape *shape,
                                         const tt_options *options) {
  tt_status status = tt_shape_check(shape, rows, cols);
  ptrdiff_t size = 1;
  if (status) return status;
  for (int k = 0; k < shape->order; k++)
    if (!tt__cuda_multiply(&size, shape->rows[k]) || !tt__cuda_multiply(&size, shape->cols[k]))
      return TT_ERROR_MEMORY;
  for (int k = 1; k < shape->order && options->strict; k++) {
    ptrdiff_t left = tt__cuda_legs(shape, 0, k, 1) * tt__cuda_legs(shape, 0, k, 0);
    if (shape->ranks[k] > left || shape->ranks[k] > size / left) return TT_ERROR_SHAPE;
  }
  if (options->inputs || options->row_weights || options->method == TT_SVD_JACOBI ||
      options->method == TT_SVD_HOUSEHOLDER)
    return TT_ERROR_UNSUPPORTED;
  for (ptrdiff_t i = 0; options->bias && i < rows; i++)
    if (!(fabsf(options->bias[i]) <= FLT_MAX)) return TT_ERROR_NONFINITE;
  return TT_OK;
}

// The unfolding of bond k, between core k and k+1, behind `rank` on its left.
static tt__dbond tt__cuda_bond(const tt_shape *shape, const tt_options *options, int k,
                               ptrdiff_t rank) {
  tt__dbond bond;
  memset(&bond, 0, sizeof bond);
  bond.a = rank * shape->rows[k] * shape->cols[k];
  bond.b =
      tt__cuda_legs(shape, k + 1, shape->order, 1) * tt__cuda_legs(shape, k + 1, shape->order, 0);
  bond.cap = shape->ranks[k + 1];
  if (options->max_rank > 0 && (bond.cap == 0 || options->max_rank < bond.cap))
    bond.cap = options->max_rank;
  bond.method = options->method;
  bond.seed = options->seed + (unsigned)k;
  return bond;
}

// The largest eigenvalue problem that can come up.
static ptrdiff_t tt__cuda_largest_side(const tt_shape *shape, const tt_options *options) {
  ptrdiff_t largest = 1, rank = 1;
  for (int k = 0; k + 1 < shape->order; k++) {
    tt__dbond bond = tt__cuda_bond(shape, options, k, rank);
    ptrdiff_t side = bond.a < bond.b ? bond.a : bond.b, block = tt__cuda_block(&bond);
    rank = bond.cap > 0 && bond.cap < side ? bond.cap : side;
    // a smaller rank on the left shortens the side, and below four blocks there is no sketch
    if (block) side = 4 * block;
    largest = side > largest ? side : largest;
  }
  return largest;
}

// W as the first unfolding, scaled by *scale to a norm of about 1. Synchronises.
static void tt__cuda_read_matrix(tt__dpool *pool, const float *w, ptrdiff_t rows, ptrdiff_t cols,
                                 const tt_shape *shape, tt__dfound *host, float *out, float *scale,
                                 tt_report *report) {
  ptrdiff_t count = 0;
  int exponent = 0;
  tt__dfound *found = (tt__dfound *)tt__cuda_take(pool, TT__SCAN_BLOCKS, sizeof(tt__dfound));
  tt__cuda_run_scan(pool, w, rows * cols, found, &count);
  tt__cuda_copy(pool, host, found, (size_t)count * sizeof(tt__dfound), cudaMemcpyDeviceToHost);
  tt__cuda_wait(pool);
  if (pool->status) return;
  unsigned long long first = 0;
  for (ptrdiff_t i = 0; i < count; i++) first = host[i].first > first ? host[i].first : first;
  if (first) {
    report->position = (ptrdiff_t)(~0ull - first);
    pool->status = TT_ERROR_NONFINITE;
    return;
  }
  report->norm = sqrt(tt__cuda_found_square(host, count));
  (void)frexp(report->norm, &exponent);
  exponent = exponent > 126 ? 126 : exponent < -126 ? -126 : exponent;
  *scale = (float)ldexp(1, -exponent);
  tt__dunfold f;
  memset(&f, 0, sizeof f);
  f.w = w;
  f.out = out;
  f.true_rows = rows;
  f.true_cols = cols;
  f.scale = *scale;
  f.order = shape->order;
  f.size = 1;
  for (int k = 0; k < f.order; k++) {
    f.rows[k] = shape->rows[k];
    f.cols[k] = shape->cols[k];
    f.size *= (ptrdiff_t)shape->rows[k] * shape->cols[k];
  }
  TT__CUDA_RUN(pool, tt__cuda_unfold, tt__cuda_blocks(f.size), f);
}

// The train of these cores, in floats.
static tt_status tt__cuda_assemble(const tt_shape *shape, ptrdiff_t rows, ptrdiff_t cols,
                                   float *const *cores, float scale, const tt_options *options,
                                   tt_matrix *out) {
  tt_options plain;
  memset(&plain, 0, sizeof plain);
  plain.allocator = options->allocator;
  tt_status status = tt_create(shape, rows, cols, &plain, out);
  for (int k = 0; k < shape->order && !status; k++) {
    ptrdiff_t count =
        (ptrdiff_t)shape->ranks[k] * shape->rows[k] * shape->cols[k] * shape->ranks[k + 1];
    float *data = (float *)tt_core_data(out, k);
    memcpy(data, cores[k], (size_t)count * sizeof(float));
    for (ptrdiff_t i = 0; k + 1 == shape->order && i < count; i++) {
      data[i] /= scale;
      if (fabsf(data[i]) > FLT_MAX) status = TT_ERROR_UNSUPPORTED;
    }
  }
  if (options->bias && !status)
    memcpy(tt_bias_data(out), options->bias, (size_t)rows * sizeof(float));
  if (!options->bias) out->bias = NULL;
  if (!status && options->dtype != TT_F32) {
    tt_matrix coded;
    int group = options->group;
    if (group == 0 && options->dtype == TT_I8) group = TT_GROUP_ROW;
    if (group == 0 && options->dtype > TT_I8) group = 32;
    status = tt_quantize(out, options->dtype, group, &plain, &coded, NULL);
    if (!status) {
      tt_free(out);
      *out = coded;
    }
  }
  if (status) tt_free(out);
  return status;
}

static void tt__cuda_fill_report(const tt_shape *shape, ptrdiff_t rows, ptrdiff_t cols,
                                 tt_report *report) {
  double square = 0;
  report->dense_params = rows * cols;
  report->params = tt_shape_params(shape);
  report->compression = (double)report->dense_params / (double)report->params;
  memcpy(report->ranks, shape->ranks, sizeof report->ranks);
  for (int k = 0; k + 1 < shape->order; k++) square += report->discarded[k] * report->discarded[k];
  report->relative_error = sqrt(square);
}

// All bonds, then the train; tensor holds two buffers of the size of the padded matrix.
static void tt__cuda_run_compress(tt__dpool *pool, const float *w, ptrdiff_t rows, ptrdiff_t cols,
                                  tt_shape *shape, const tt_options *options, tt__dhost *host,
                                  float *const *tensor, float **cores, float *scale,
                                  tt_report *report) {
  int order = shape->order;
  tt__cuda_read_matrix(pool, w, rows, cols, shape, host->found, tensor[0], scale, report);
  int keep = pool->count;
  double whole = report->norm * (double)*scale;
  for (int k = 0; k + 1 < order && !pool->status; k++) {
    tt__dbond bond = tt__cuda_bond(shape, options, k, shape->ranks[k]);
    bond.data = tensor[k & 1];
    bond.budget = options->epsilon * options->epsilon * whole * whole / (order - 1);
    tt__cuda_cut(pool, &options->allocator, &bond, host, tensor[(k + 1) & 1]);
    tt__cuda_rewind(pool, keep);
    cores[k] = bond.core;
    if (pool->status) return;
    shape->ranks[k + 1] = (int)bond.rank;
    report->discarded[k] = whole > 0 ? sqrt(bond.cut) / whole : 0;
    report->entropy[k] = bond.entropy;
    report->limit[k] = bond.limit;
    if (!bond.complete) report->spectrum_complete = 0;
  }
  size_t size = (size_t)shape->ranks[order - 1] * (size_t)shape->rows[order - 1] *
                (size_t)shape->cols[order - 1] * sizeof(float);
  if (!pool->status) {
    cores[order - 1] = (float *)tt__cuda_host_allocate(&options->allocator, size);
    if (!cores[order - 1]) pool->status = TT_ERROR_MEMORY;
  }
  tt__cuda_copy(pool, cores[order - 1], tensor[(order - 1) & 1], size, cudaMemcpyDeviceToHost);
  tt__cuda_wait(pool);
}

TTDEF tt_status tt_cuda_compress(tt_cuda_context *context, const float *d_w, ptrdiff_t rows,
                                 ptrdiff_t cols, const tt_shape *shape, const tt_options *given,
                                 tt_matrix *out, tt_report *report, struct CUstream_st *stream) {
  tt_options options;
  tt_report own;
  memset(&options, 0, sizeof options);
  memset(&own, 0, sizeof own);
  if (given) options = *given;
  own.position = -1;
  own.spectrum_complete = 1;
  if (out) memset(out, 0, sizeof *out);
  if (report) *report = own;
  if (!context || !d_w || !out || !tt__cuda_options_valid(&options) ||
      !tt__cuda_is_current(context))
    return TT_ERROR_INVALID;
  tt_status status = tt__cuda_compress_check(rows, cols, shape, &options);
  if (status) return status;
  tt_shape made = *shape;
  made.ranks[0] = made.ranks[made.order] = 1;
  float *cores[TT_MAX_ORDER] = {0}, *tensor[2], scale = 1;
  ptrdiff_t size =
      tt__cuda_legs(shape, 0, shape->order, 1) * tt__cuda_legs(shape, 0, shape->order, 0);
  tt__dhost host;
  tt__dpool pool;
  memset(&pool, 0, sizeof pool);
  pool.context = context;
  pool.stream = stream;
  pool.status =
      tt__cuda_host_open(&options.allocator, tt__cuda_largest_side(shape, &options), &host);
  if (pool.status) return pool.status;
  tensor[0] = tt__cuda_take_floats(&pool, size);
  tensor[1] = tt__cuda_take_floats(&pool, size);
  tt__cuda_run_compress(&pool, d_w, rows, cols, &made, &options, &host, tensor, cores, &scale,
                        &own);
  if (pool.status) cudaStreamSynchronize(stream); // copies from and to the host are over
  tt__cuda_rewind(&pool, 0);
  status = pool.status;
  if (!status) status = tt__cuda_assemble(&made, rows, cols, cores, scale, &options, out);
  for (int k = 0; k < made.order; k++) tt__cuda_host_release(&options.allocator, cores[k]);
  tt__cuda_host_close(&options.allocator, &host);
  if (!status) tt__cuda_fill_report(&made, rows, cols, &own);
  if (report) *report = own;
  return status;
}

#endif // TT_CUDA_IMPLEMENTATION

/* Licence: MIT or public domain, as you like; the text stands at the end of tt.h. */
