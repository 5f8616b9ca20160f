/* tt.h - tensor trains for neural-network weights, in one dependency-free C header. Version 0.1.0

   Weight matrices become chains of small cores (tensor trains; in physics: matrix product states
   and operators), cut at a chosen rank or error, stored in 64 to 2 bits, and applied to vectors
   without ever rebuilding the dense matrix.

   HOW TO INCLUDE
     In exactly one .c or .cpp file:     #define TT_IMPLEMENTATION
                                         #include "tt.h"
     Everywhere else:                    #include "tt.h"
     C99 or later, C++11 or later. Hosted programs link libm (-lm on Unix). Nothing else is needed.

   A COMPLETE EXAMPLE                    cc -O2 example.c -lm

     #define TT_IMPLEMENTATION
     #include "tt.h"
     #include <stdio.h>
     static float w[256 * 256], x[256], y[256], work[32768];
     int main(void) {
       for (int i = 0; i < 256 * 256; i++) w[i] = 1.0f / (float)(1 + i / 256 + i % 256);
       tt_shape shape; tt_matrix train; tt_report report; tt_options options = {0};
       options.epsilon = 1e-3;                               // at most 0.1 % Frobenius error
       if (tt_shape_factor(256, 256, 4, &shape)) return 1;   // 256 = 4*4*4*4, rows and columns
       if (tt_compress(w, 256, 256, &shape, &options, &train, &report)) return 1;
       for (int i = 0; i < 256; i++) x[i] = 1;
       if (tt_apply(&train, x, 1, y, work, sizeof work)) return 1;
       printf("%.1f times smaller, error %.1e\n", report.compression, report.relative_error);
       tt_free(&train);
       return 0;
     }

   WHAT IT DOES
     TT-SVD to an error or to ranks; dense, low-rank, tensor train and TT-matrix as one object with
     one forward pass; cores in F64 F32 F16 BF16 FP8 and INT8 to INT2; singular values and entropy
     of every bond; rounding, sums, products and norms of trains; fits to the outputs of a layer
     from samples of its inputs; gradients with SGD and Adam, also through quantisation; the profile
     of a layer, byte budgets over many, what to deploy; safetensors (shards too) in and out, .npy.

   WHAT IT DOES NOT DO
     Train whole networks (losses, data and other layers are yours or your framework's),
     convolutions other than as matrices, complex numbers. It does not promise that a train is the
     best choice: it reports error, size and multiply-adds, so that you see when plain quantisation
     or a plain SVD serves you better.

   CONTENTS                              grep '>>' tt.h is the map
     (API)       everything public: forward pass, compress, formats, algebra, planning, files
     >>config    compiler, allocator, checked sizes
     >>number    16-bit to 2-bit codes, bit for bit
     >>random    counter-based random numbers
     >>hash      SHA-256
     >>gemm      the one matrix product
     >>qr        Householder LQ and QR
     >>eigen     symmetric eigenvalue problem
     >>source    matrices read block by block, whatever their order in memory
     >>svd       four singular value decompositions
     >>shape     factors, useful ranks, counts, the cost of a forward pass
     >>train     create, copy, free; trains as chains of doubles
     >>algebra   orthogonalise, dot, add, merge, expand
     >>inputs    statistics of what flows into a layer
     >>compress  TT-SVD with an error budget
     >>round     recompression of trains
     >>metric    errors of a layer's outputs; the best core in it
     >>sweep     sweeps over cores, one or two at a time
     >>refit     fits to the outputs of a layer; compress and round
     >>entropy   spectra and entropies of bonds
     >>quantize  storage formats of cores
     >>apply     the forward pass, rows of a matrix
     >>integer   the forward pass in integers
     >>prepare   plans for it: scales, multipliers, proofs that sums fit
     >>gradient  gradients, optimisers, the balanced gauge: to train and to heal
     >>file      byte order and streams
     >>json      the one reader of text
     >>open      safetensors, their shards, and .npy: checking and reading
     >>layer     trains in files
     >>writer    safetensors: writing
     >>export    a layer as a C header
     >>profile   candidates of one layer, built and measured
     >>plan      byte budgets over many layers, selection, decisions
     >>bits      a byte budget over the cores of one train

   CONFIGURATION                         define before including, the same in every unit
     TT_IMPLEMENTATION   this unit holds the code (one unit only)
     TT_STATIC           all functions static: a private copy for this unit (with TT_IMPLEMENTATION)
     TTDEF               attributes of public functions, e.g. __declspec(dllexport)
     TT_ASSERT(x)        our own invariants; default nothing
     TT_MALLOC, TT_FREE  default allocator, instead of malloc and free (define both)
     TT_NO_STDIO         no tt_file_open, tt_writer_save, _spill; memory variants remain
     TT_NO_SIMD          plain C alone: the same bits from every processor that rounds alike
     TT_USE_CBLAS        large products go to cblas_sgemm and cblas_dgemm (link a BLAS)
     TT_INFERENCE_ONLY   only what runs a train: no malloc, stdio, double, libm or writable data
     TT_FLASH_BYTE(p)    with it: reads a byte of a core where pointers do not reach, as on AVR
     TT_MAX_ORDER        largest number of cores, 16; another value only together with TT_STATIC
     OpenMP              used where the compiler has it on (-fopenmp); changes not one bit

   CONVENTIONS
     Layout     row-major. Core k is (ranks[k], rows[k], cols[k], ranks[k+1]); leg 0 is the most
                significant digit of the row and of the column number; y = W x + bias.
     Letters    m rows, n columns, d order, r rank, k core or bond, U S V singular vectors and
                values; bond k lies between core k and core k+1. eps = 2^-53, in float 2^-24.
     Sizes      int in structs, ptrdiff_t for indices and products, size_t for bytes; all checked.
     Types      tt_name works on float, tt_name_f64 on double; decompositions compute in double.
     Errors     a negative tt_status, never a message or an abort; structs are zeroed. A numerical
                outcome is no error: it stands in the report.
     Memory     offline work allocates through options.allocator; a train is one block, released by
                tt_free; the forward pass takes the caller's workspace and never allocates.
     Threads    no globals, no locks: many threads may apply one train, each with a workspace.
     Bits       same input, build and machine: same output, for any number of threads.

   REFERENCES
     [Oseledets11]     Tensor-train decomposition. SIAM J. Sci. Comput. 33 (2011).
     [Novikov15]       Novikov, Podoprikhin, Osokin, Vetrov: Tensorizing neural networks. NIPS 2015.
     [Golub13]         Golub, Van Loan: Matrix Computations, 4th edition (2013).
     [Demmel92]        Demmel, Veselic: Jacobi's method is more accurate than QR. SIMAX 13 (1992).
     [Cuppen81]        A divide and conquer method for the symmetric tridiagonal eigenproblem.
                       Numer. Math. 36 (1981).
     [Gu95]            Gu, Eisenstat: A divide-and-conquer algorithm for the symmetric tridiagonal
                       eigenproblem. SIMAX 16 (1995).
     [Goto08]          Goto, van de Geijn: Anatomy of high-performance matrix multiplication. ACM
                       TOMS 34 (2008).
     [Drmac08]         Drmac, Veselic: New fast and accurate Jacobi SVD algorithm. SIMAX 29 (2008).
     [DeRijk89]        A one-sided Jacobi algorithm on a vector computer. SISSC 10 (1989).
     [Rutishauser66]   The Jacobi method for real symmetric matrices. Numer. Math. 9 (1966).
     [Musco15]         Randomized block Krylov methods for approximate SVD. NIPS 2015.
     [White92]         Density matrix formulation of renormalization groups. PRL 69 (1992).
     [Frantar23]       GPTQ: accurate post-training quantization. ICLR 2023.
     [Chan83]          Algorithms for computing the sample variance. Am. Stat. 37 (1983).
     [SHA2]            FIPS 180-4: Secure hash standard (2015).
     [Kingma15]        Kingma, Ba: Adam: a method for stochastic optimization. ICLR 2015.
     [Loshchilov19]    Decoupled weight decay regularization. ICLR 2019.
     [Bengio13]        Estimating or propagating gradients through stochastic neurons.
                       arXiv:1308.3432 (2013).
     [Vidal03]         Efficient classical simulation of slightly entangled quantum computations.
                       Phys. Rev. Lett. 91 (2003).
     [OFP8]            OCP 8-bit floating point specification, revision 1.0 (2023).
     [Safetensors]     github.com/huggingface/safetensors, README "Format".
     [Npy]             NEP 1 and numpy/lib/format.py.

   Version history and licence (MIT or public domain, as you like) stand at the end of this file. */
#ifndef TT_H_INCLUDED
#define TT_H_INCLUDED

#include <stddef.h>
#include <stdint.h>

#define TT_VERSION       "0.1.0"
#define TT_VERSION_MAJOR 0
#define TT_VERSION_MINOR 1
#define TT_VERSION_PATCH 0

#ifndef TT_MAX_ORDER
#define TT_MAX_ORDER 16
#elif !defined(TT_STATIC)
#error "TT_MAX_ORDER changes the layout of structs: define it only together with TT_STATIC"
#endif

#ifndef TTDEF
#ifndef TT_STATIC
#define TTDEF extern
#elif defined(__GNUC__)
#define TTDEF static __attribute__((unused))
#else
#define TTDEF static
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

// ------------------------------------------------------------------------------------------- types

typedef enum tt_status {
  TT_OK = 0,
  TT_ERROR_INVALID     = -1,   // NULL, out of range, or inconsistent arguments
  // factors multiply to less than the size, ranks do not chain or exceed their cap (strict)
  TT_ERROR_SHAPE       = -2,
  TT_ERROR_NONFINITE   = -3,   // NaN or Inf in the input
  TT_ERROR_MEMORY      = -4,   // the allocator gave NULL, or a size does not fit
  TT_ERROR_CONVERGENCE = -5,   // an iteration hit its limit; outputs hold the best effort
  TT_ERROR_FORMAT      = -6,   // malformed file
  TT_ERROR_IO          = -7,   // a file could not be read or written
  TT_ERROR_UNSUPPORTED = -8    // valid, but not built in or not supported
} tt_status;

// Storage of the numbers of a core. Integer codes of b bits: code j of a row of the GEMM view (see
// tt_core) is bits j*b .. j*b+b-1 of the row's little-endian bit stream, in two's complement; every
// row starts on a byte.
typedef enum tt_dtype {
  TT_F32 = 0, TT_F64, TT_F16, TT_BF16, TT_E4M3, TT_E5M2, TT_I8, TT_I4, TT_I3, TT_I2
} tt_dtype;

#define TT_GROUP_ROW     (-1)  // one scale per row of the GEMM view
#define TT_MATRIX_LAYOUT 1     // changes whenever tt_matrix does: exported headers check it

typedef struct tt_allocator {  // zeroed = malloc and free
  void *(*alloc_fn)(size_t size, void *user_data);
  void (*free_fn)(void *block, void *user_data);
  void *user_data;
} tt_allocator;

typedef struct tt_shape {      // a value: copy it freely
  int order;                   // 1..TT_MAX_ORDER cores
  int rows[TT_MAX_ORDER];      // m_k: output factors
  int cols[TT_MAX_ORDER];      // n_k: input factors
  // r_0 .. r_order; r_0 = r_order = 1; in a request 0 = as large as useful
  int ranks[TT_MAX_ORDER + 1];
} tt_shape;

// The direction of the forward pass decides how a core is stored, so that the pass never
// transposes:
//   TT_RIGHT_TO_LEFT  (ranks[k], rows[k], cols[k], ranks[k+1])   the natural layout
//   TT_LEFT_TO_RIGHT  (rows[k], ranks[k+1], ranks[k], cols[k])
// The first two dimensions are the rows, the last two the columns of the core's GEMM view, where
// scales sit on rows.
enum tt_sweep { TT_RIGHT_TO_LEFT = 0, TT_LEFT_TO_RIGHT = 1 };

typedef struct tt_core {
  tt_dtype dtype;
  // scales along a row of the GEMM view: 0 none, TT_GROUP_ROW one per row, else one per `group`
  // elements
  int group;
  // of the whole core: value = code * scales[..] * scale; 0 and 1 both mean unscaled
  float scale;
  const void *data;
  const void *scales;          // NULL if group is 0; float per row; f16 codes (16 bits) per group
  // private to the running program; NULL is always valid, and is what files and flash hold
  const void *packed;
} tt_core;

// A train. It may live in flash: a const initialiser is enough to run it. A copied struct is a
// view: set its block NULL.
typedef struct tt_matrix {
  tt_shape shape;
  // enum tt_sweep: direction of the forward pass and with it the layout of the cores
  int sweep;
  // true size; the products of the factors may be larger (zero padding)
  ptrdiff_t rows, cols;
  tt_core cores[TT_MAX_ORDER];
  const float *bias;           // rows values, or NULL
  void *block;                 // what tt_free releases, or NULL if the caller owns the memory
  tt_allocator allocator;
} tt_matrix;

// A few English words for a status, never NULL. The string is constant.
TTDEF const char *tt_status_string(tt_status status);

// ------------------------------------------------------------------------------------ forward pass

// y = x W^T + bias for a matrix held as a train, in any storage format. Allocates nothing.
//   w      rows x cols                     x  (batch, cols) row-major
//   y      (batch, rows) row-major, overwritten, must not overlap x
//   work   at least tt_apply_work_size(w, batch) bytes, any alignment
// Cost     2 tt_apply_macs(w, batch) flops; coded cores are decoded once, in slabs.
// Accuracy float sums of length cols[k] ranks[k+1] (or ranks[k] cols[k]); no approximation beyond
// that of w itself.
// Returns  TT_OK; INVALID (NULL, batch < 0, work too small, not a valid train); UNSUPPORTED (F64
// cores under
//          TT_INFERENCE_ONLY). batch 0 is TT_OK. y is untouched on error.
// Source   [Novikov15] section 4; one loop serves both directions.
TTDEF tt_status tt_apply(const tt_matrix *w, const float *x, ptrdiff_t batch, float *y, void *work,
                         size_t work_size);

// Bytes of workspace for tt_apply: at least 1, alignment included, the same for every CPU and
// number of threads. 0 = w is not a valid train, batch < 0, or the size does not fit.
TTDEF size_t tt_apply_work_size(const tt_matrix *w, ptrdiff_t batch);

// Multiply-adds of tt_apply, bias not counted; -1 = w is not a valid train or the count does not
// fit. Dense: rows*cols*batch.
TTDEF ptrdiff_t tt_apply_macs(const tt_matrix *w, ptrdiff_t batch);

// Rows of W without the bias, read from the cores alone: an embedding look-up. Allocates nothing.
//   index  (count) row numbers, 0 <= index < rows; a number may come twice
//   out    (count, cols), overwritten
//   work   at least tt_rows_work_size(w) bytes, any alignment, whatever the count
// Cost     sum_k r_k n_k r_k+1 (columns before k) multiply-adds a row; columns after k for trains
//          swept left to right. Only the needed rows of the GEMM views are decoded.
// Accuracy float sums of length r_k.
// Returns  TT_OK; INVALID (NULL, count < 0, an index out of range, work too small, not a valid
//          train); UNSUPPORTED (F64 cores under TT_INFERENCE_ONLY). count 0 is TT_OK. out is
//          untouched on error.
TTDEF tt_status tt_rows(const tt_matrix *w, const int *index, ptrdiff_t count, float *out,
                        void *work, size_t work_size);

// Bytes of workspace for tt_rows: at least 1, alignment included. 0 = w is not a valid train, or
// the size does not fit.
TTDEF size_t tt_rows_work_size(const tt_matrix *w);

// ---------------------------------------------------------------------------------------- integers
// The forward pass with integer codes everywhere: cores of I8 to I2 (one scale per core or per row
// of the GEMM view), states of int8, sums of int32. No number is a float, so the result is the same
// on every machine, bit for bit. A tt_integer says how one train runs; tt_integer_prepare makes it
// where there is a heap, and both may then live in flash.
//
//   static   every state has a scale found from samples of x; int8 in, int8 out: tt_integer_apply
//   dynamic  every state of every input gets the scale that just holds it; float in, float out:
//            tt_integer_apply_f32. More accurate, needs no samples, takes room for 32-bit states.

// How value * multiplier * 2^(shift - 31) becomes an integer:
//   TT_ROUND_SINGLE  once, halves up: XNNPACK, the optimised path of TFLite, the option
//                    CMSIS_NN_USE_SINGLE_ROUNDING
//   TT_ROUND_DOUBLE  the product first, halves up, then a right shift, halves away from zero:
//                    gemmlowp, the default of TFLite Micro and CMSIS-NN
enum tt_rounding { TT_ROUND_SINGLE = 0, TT_ROUND_DOUBLE = 1 };

// That integer, kept within int32. multiplier 0 .. 2^31 - 1, shift -31 .. 30 (any other gives 0);
// where a double rounding shifts left, value 2^shift must fit too. The two roundings differ by at
// most one step: (1, 2^30, -1) gives 0 and 1.
TTDEF int32_t tt_requantize(int32_t value, int32_t multiplier, int shift, int rounding);

// Steps of the sweep are counted from 0; step i works on core i, or order-1-i in a train that is
// swept right to left.
typedef struct tt_integer {
  int order;                   // cores of the train that it was made for
  int rounding;                // enum tt_rounding
  int dynamic;                 // non-zero: scales of states are found for every input
  // static: a code of x stands for (code - in_zero) in_scale, one of y likewise
  float in_scale, out_scale;
  int in_zero, out_zero;       // -128..127
  // of step i: num_multipliers is 1, or the rows of the GEMM view where its core has TT_GROUP_ROW
  int shifts[TT_MAX_ORDER];
  int num_multipliers[TT_MAX_ORDER];
  const int32_t *multipliers[TT_MAX_ORDER];
  // dynamic: what one unit of the 32-bit results of step i stands for, with codes of x as they are
  float units[TT_MAX_ORDER];
  // (rows of the GEMM view of step 0) minus in_zero times the sum of the codes of a row
  int num_offsets;
  const int32_t *offsets;      // NULL if in_zero is 0
  int num_bias;
  const int32_t *bias;         // (rows) in units of the sums of the last step; NULL if none
  // private to the running program; NULL is always valid, and is what flash holds
  const int32_t *sums;
  void *block;                 // for tt_integer_free; NULL if the caller owns the memory
  tt_allocator allocator;
} tt_integer;

#define TT_INTEGER_LAYOUT 1    // changes whenever tt_integer does: exported headers check it

// y = W x + bias in integers, for a static plan. Allocates nothing.
//   w      the train that the plan was made for  x  (batch, cols) codes
//   y      (batch, rows) codes, overwritten, must not overlap x
//   work   at least tt_integer_work_size(plan, w) bytes, any alignment, whatever the batch
// Cost     tt_apply_macs(w, batch) multiply-adds of bytes, and one requantisation for every number
//          of every state. Sums are exact: tt_integer_prepare proves that they fit.
// Returns  TT_OK; INVALID (NULL, batch < 0, work too small, not a valid train, a plan of another
//          train or a dynamic one). batch 0 is TT_OK. y is untouched on error.
TTDEF tt_status tt_integer_apply(const tt_integer *plan, const tt_matrix *w, const int8_t *x,
                                 ptrdiff_t batch, int8_t *y, void *work, size_t work_size);

// y = W x + bias for a dynamic plan: x (batch, cols) and y (batch, rows) float, inside as above.
// Each input and each state of it has one scale, its largest magnitude over 127. Floats are only
// taken apart and put together: codes are the same bits everywhere, y too where floats are IEEE.
// Returns as above, for a static plan INVALID; NONFINITE (in x). y is untouched on error.
TTDEF tt_status tt_integer_apply_f32(const tt_integer *plan, const tt_matrix *w, const float *x,
                                     ptrdiff_t batch, float *y, void *work, size_t work_size);

// Bytes of workspace for either, at least 1, alignment included. 0 = the plan is not one for w, or
// the size does not fit.
TTDEF size_t tt_integer_work_size(const tt_integer *plan, const tt_matrix *w);

// Decodes one code of F16, BF16, E4M3 or E5M2 (0 for any other dtype). Exact. Bits above the code
// are ignored.
TTDEF float tt_to_f32(tt_dtype dtype, unsigned bits);

#ifndef TT_INFERENCE_ONLY
// ---------------------------------------------------------------------------------------- compress

enum tt_svd_method {
  // float: Gram; double: Jacobi up to 128, else Householder; a low cap: randomised
  TT_SVD_AUTO = 0,
  // eigenvalues of A A^T in double: best for float; blind below 1e-8 of the largest for double
  TT_SVD_GRAM,
  // LQ and one-sided Jacobi: small singular values relatively right on graded matrices
  TT_SVD_JACOBI,
  // LQ, bidiagonalisation, implicit QR: the classical all-purpose method
  TT_SVD_HOUSEHOLDER,
  TT_SVD_RANDOMIZED            // block Krylov for a few large singular values; needs a cap to pay
};

// what decided a rank
enum tt_limit { TT_LIMIT_NONE = 0, TT_LIMIT_SHAPE, TT_LIMIT_CAP, TT_LIMIT_EPSILON };

// Which magnitude the largest code stands for.
enum tt_clip {
  TT_CLIP_DEFAULT = 0,
  TT_CLIP_LARGEST,             // the largest there is: nothing is clipped
  TT_CLIP_SQUARED_ERROR,       // the one with the smallest squared error
  TT_CLIP_PERCENTILE           // the one that a given share of the magnitudes does not exceed
};

typedef struct tt_inputs tt_inputs;

typedef struct tt_options {    // all zero = default: tt_options opt = {0};
  int max_rank;                // 0 = no cap (shape.ranks may cap each bond as well)
  // non-zero: shape.ranks above the useful maximum are an error; max_rank is always lowered
  int strict;
  // relative Frobenius error allowed for the whole matrix; 0 = ranks decide alone
  double epsilon;
  tt_dtype dtype;              // storage of the new cores (TT_F32 by default)
  // its scales; 0 = the format's default: one per row for I8, 32 for I4 to I2
  int group;
  int method;                  // enum tt_svd_method, 0 = choose
  unsigned seed;               // of the randomised SVD
  tt_allocator allocator;      // zeroed = malloc/free
  // statistics of the layer's inputs: errors are then those of its outputs. NULL = of its weights
  const tt_inputs *inputs;
  const float *bias;           // (rows) added to out->bias; NULL = 0
  // (rows) importance of each row, not negative, e.g. look-up counts of an embedding; NULL = 1
  const float *row_weights;
  int diagonal_inputs;         // tt_inputs_create: variances only, for very wide layers
  // what integer codes clip: enum tt_clip; 0 = nothing, or, with inputs or row_weights, what gives
  // the smallest squared error
  int clip;
  double percentile;           // for TT_CLIP_PERCENTILE, in (0, 100]; 0 = 99.9
  int gauge;                   // enum tt_gauge, for tt_quantize_budget
  // further fields may follow; zero keeps today's behaviour
} tt_options;

typedef struct tt_report {     // what an approximation did
  // ||W - W^|| / ||W||, from the discarded singular values (padded zeros count: an upper bound
  // then)
  double relative_error;
  double norm;                 // ||W||
  ptrdiff_t dense_params, params;
  double compression;          // dense_params / params
  int ranks[TT_MAX_ORDER + 1];
  double discarded[TT_MAX_ORDER];  // relative Frobenius norm cut at bond k (between core k and k+1)
  // von Neumann entropy of bond k before the cut, nats; a lower bound if !spectrum_complete
  double entropy[TT_MAX_ORDER];
  // 0 where a truncated SVD never saw the tail (it then counts as one value)
  int spectrum_complete;
  ptrdiff_t position;              // index of the offending element for TT_ERROR_NONFINITE, else -1
  int limit[TT_MAX_ORDER];         // enum tt_limit: what decided the rank of bond k
  // sqrt(E||y - y^||^2 / E||y - E y||^2) under options.inputs, bias included; 0 without inputs
  double functional_error;
  // what the errors of the single cores let expect of relative_error: the root of the sum of their
  // squares; 0 but for tt_quantize without inputs and tt_quantize_budget
  double predicted_error;
} tt_report;
// tails where known, else measured (quantising, refitting): then discarded = 0

// Dense (rows, cols) -> train, by TT-SVD. The one call for every shape: order 1 stores or quantises
// the matrix, rows (M,1) cols (1,N) is its truncated SVD, all cols 1 the plain tensor train,
// anything else a TT-matrix.
//   w        (rows, cols) row-major, read in place
//   shape    factors; ranks[1..order-1] cap single bonds, 0 = as large as useful; the products may
//            exceed rows and
//            cols, w is then padded with zeros
//   options  epsilon (each bond may lose epsilon ||W|| / sqrt(order-1)), max_rank, strict, dtype,
//            group, method
//   out      the train, right to left, owned by the caller: tt_free
//   report   may be NULL; the spectra of bonds that need no cut are computed only for it
// Cost     the flops of one truncated SVD per bond. Peak memory: the size of w plus workspace for
// matrices of the size
//          of the smaller side of an unfolding (64 MB suffice up to sides of about 1024).
// Accuracy relative_error is exact up to the rounding of the SVD (1e-15 double, 1e-8 float) before
// any coding of cores.
// Returns  TT_OK; INVALID; SHAPE; NONFINITE (report->position); MEMORY; CONVERGENCE. *out is zeroed
// on error.
// Source   [Oseledets11] algorithm 1.
TTDEF tt_status tt_compress(const float *w, ptrdiff_t rows, ptrdiff_t cols, const tt_shape *shape,
                            const tt_options *options, tt_matrix *out, tt_report *report);
// The same for double input; cores are still TT_F32 unless options->dtype says otherwise.
TTDEF tt_status tt_compress_f64(const double *w, ptrdiff_t rows, ptrdiff_t cols,
                                const tt_shape *shape, const tt_options *options, tt_matrix *out,
                                tt_report *report);

// The dense matrix (rows, cols) of a train, row-major, bias not included. Workspace comes from
// w->allocator.
// Returns TT_OK; INVALID; MEMORY; dense is untouched on error.
TTDEF tt_status tt_expand(const tt_matrix *w, float *dense);
TTDEF tt_status tt_expand_f64(const tt_matrix *w, double *dense); // the same in double

// Releases the block of a train and zeroes the struct. NULL, zeroed and borrowed trains are fine.
TTDEF void tt_free(tt_matrix *w);

// ------------------------------------------------------------------------------------- calibration
// What flows into a layer, as statistics: count, mean and covariance, streamed in double. Hand them
// to tt_compress, tt_round, tt_refine and tt_quantize as options.inputs, and these minimise the
// error of the layer's outputs, E||(W - W~)(x - E x)||^2, instead of that of its weights; out->bias
// makes up for the mean. Covariances may be singular (dead inputs, fewer samples than columns):
// each variance is raised by 1e-3 of their mean. epsilon then bounds the functional error (below);
// a low-rank train is the optimum (whitened SVD), any other at least as good as TT-SVD of its
// ranks. With row_weights alone the error is that of weighted rows: for look-up tables. Such calls
// hold six doubles per element of W; trains beyond low rank cost 2 rows cols^2 flops for each of
// some hundred iterations.

// An empty record for a layer of `cols` inputs. options->diagonal_inputs keeps variances only
// (memory cols instead of cols^2). Returns TT_OK; INVALID; MEMORY. *out is NULL on error.
TTDEF tt_status tt_inputs_create(ptrdiff_t cols, const tt_options *options, tt_inputs **out);
// Adds samples x (batch, cols). Cost batch cols^2 multiply-adds. The statistics do not depend on
// how samples are cut into batches, up to rounding. Returns TT_OK; INVALID; NONFINITE; MEMORY; on
// error nothing is added. Source [Chan83].
TTDEF tt_status tt_inputs_add(tt_inputs *inputs, const float *x, ptrdiff_t batch);
// As if everything in `from` had been added to `into`. Both are full or both diagonal.
TTDEF tt_status tt_inputs_merge(tt_inputs *into, const tt_inputs *from);
TTDEF ptrdiff_t tt_inputs_count(const tt_inputs *inputs); // samples; 0 for NULL
TTDEF ptrdiff_t tt_inputs_cols(const tt_inputs *inputs);  // width; 0 for NULL
// mean (cols), covariance (cols, cols) divided by the count; NULL = not wanted. Zeros while empty;
// a diagonal record gives a diagonal matrix.
TTDEF tt_status tt_inputs_moments(const tt_inputs *inputs, double *mean, double *covariance);
// SHA-256 of all samples in the order in which they came, as little-endian floats; a merge adds the
// digest of the other record.
TTDEF tt_status tt_inputs_digest(const tt_inputs *inputs, unsigned char digest[32]);
TTDEF void tt_inputs_free(tt_inputs *inputs); // NULL is fine

// Functional error of a train that stands for y = dense x + bias: sqrt of E||y - y^||^2 over
// E||y - E y||^2, w->bias included. dense (rows, cols); bias may be NULL. Outputs without variance
// give 0 if they are met to an ulp of float and INFINITY if not. Cost rows cols^2. Returns TT_OK;
// INVALID (also: no samples, another width); NONFINITE; MEMORY.
TTDEF tt_status tt_functional_error(const tt_matrix *w, const float *dense, const float *bias,
                                    const tt_inputs *inputs, double *out);

// One matrix (rows, cols) as a train of order 1 that borrows its memory; an invalid train if rows
// or cols are out of range or w is NULL.
TTDEF tt_matrix tt_dense_view(const float *w, ptrdiff_t rows, ptrdiff_t cols);

typedef struct tt_sweep_log {  // what one sweep left behind
  double error;                // ||target - train|| / ||target||, in the metric of the options
  int ranks[TT_MAX_ORDER + 1];
  double discarded[TT_MAX_ORDER];  // relative norm cut at each bond by the last step over it
  double entropy[TT_MAX_ORDER];    // von Neumann entropy of each bond, nats
} tt_sweep_log;

typedef struct tt_sweeps {     // zeroed = defaults
  int sites;                   // cores solved for at a time: 2 (default) adapts ranks, 1 keeps them
  int max_sweeps;              // there and back; 0 = 20
  double stall;                // stops when a sweep changes the error by less, relatively; 0 = 1e-6
  tt_sweep_log *log;           // room for `room` lines, or NULL
  int room;
  int count;                   // out: sweeps done
} tt_sweeps;

// Variational sweeps from `start` towards `target`, a dense matrix (tt_dense_view) or another
// train, in the Frobenius norm or, with options->inputs and row_weights, in that of the outputs.
// Two sites: each bond takes the smallest rank that epsilon and max_rank allow; where neither is
// given, at most the rank of start. The error never rises by more than what a cut discards; with
// one site never.
//   sweeps   may be NULL
//   out      shape factors of start; bias of target, corrected for the mean input
// Cost     per core and iteration 2 rows cols^2 flops with inputs, 4 rows cols rank without. Memory
//          5 rows cols doubles and cols^2 for the inputs.
// Returns  TT_OK; INVALID; NONFINITE; MEMORY; CONVERGENCE. *out is zeroed on error.
// Source   [White92]; least squares per core by conjugate gradients [Golub13, 11.5].
TTDEF tt_status tt_refine(const tt_matrix *start, const tt_matrix *target,
                          const tt_options *options, tt_sweeps *sweeps, tt_matrix *out,
                          tt_report *report);

// ------------------------------------------------------------------------------------------ shapes

// Is this a shape for a rows x cols matrix? Ranks must be 0 or positive. Returns TT_OK; INVALID
// (NULL, order or factors out of range); SHAPE (the factors multiply to less than the size, or an
// end rank is not 1); MEMORY (overflow).
TTDEF tt_status tt_shape_check(const tt_shape *shape, ptrdiff_t rows, ptrdiff_t cols);

// Balanced factors of rows and cols for `order` cores, ranks 0 inside and 1 at the ends. A size
// without balanced factors is padded by at most a few percent (the product is then larger than the
// size). Row factors fall, column factors rise, which keeps the right-to-left sweep cheap. Returns
// TT_OK, INVALID.
TTDEF tt_status tt_shape_factor(ptrdiff_t rows, ptrdiff_t cols, int order, tt_shape *out);

// Lowers every inner rank (0 = as large as possible) to its useful maximum: what the legs on either
// side and the neighbouring ranks can carry. max_rank 0 = no cap. Returns TT_OK, INVALID, MEMORY.
TTDEF tt_status tt_shape_clip(tt_shape *shape, int max_rank);

// Numbers in all cores; ranks 0 count as 1. -1 = invalid shape or overflow.
TTDEF ptrdiff_t tt_shape_params(const tt_shape *shape);

// Multiply-adds of the right-to-left forward pass over one input: sum over k of the numbers in core
// k times the columns before and the rows after it. Ranks 0 count as 1. -1 = invalid or overflow.
TTDEF ptrdiff_t tt_shape_macs(const tt_shape *shape);

// The useful ways to factor rows x cols into `order` cores at a rank: the Pareto set of parameters
// and multiply-adds (right to left, where large rows[k]/cols[k] first is cheap), fewest parameters
// first. A size without useful factors is padded by at most 1/16. rows/cols of a core stay within a
// factor of 4 of (rows/cols)^(1/order) where that is possible: beyond it lies the low-rank
// factorisation, which needs no search.
//   rank     of every bond, lowered to the useful maximum; the shapes carry these ranks
//   shapes   room for *count of them; *count becomes their number
// Cost     at most 100,000 pairs of factorisations; of more, the most balanced are tried.
// Returns  TT_OK; INVALID (arguments, or too little room: *count is then what is needed); MEMORY;
//          UNSUPPORTED (no shape: more cores than factors; *count is 0).
TTDEF tt_status tt_shape_search(ptrdiff_t rows, ptrdiff_t cols, int order, int rank,
                                const tt_options *options, tt_shape *shapes, int *count);

// --------------------------------------------------------------------------------- storage formats

// The same train with cores in another format. Cores keep their sweep; ranks and bias are
// unchanged.
//   dtype    any tt_dtype; I8, I4, I3, I2 map the largest magnitude of a group to 127, 7, 3, 1,
//            nearest even
//   group    0 one scale per core, TT_GROUP_ROW one float per row of the GEMM view, g > 0 one f16
//            per g elements of a
//            row. FP8 and F16 cores take a power of two as scale of the core where that avoids
//            overflow or underflow.
//   options  inputs or row_weights: scales and codes are chosen for the outputs. Clipping with the
//            smallest squared error; for order 1 the error of each column is passed on to those
//            behind it [Frantar23], for longer trains the cores behind a coded one are fitted
//            again; the bias makes up for the mean. Cost of order 1: 2 rows cols^2 + cols^3 flops.
//            Norms beyond 1e37 or below 1e-30 per core are then UNSUPPORTED.
//            clip says which magnitude the largest code of a group stands for
//   report   relative_error is measured: the norm of the difference of the two trains;
//            predicted_error meets it where cores are orthogonal to one side, or balanced with
//            slowly falling spectra, and is too high elsewhere
// Returns    TT_OK; INVALID; UNSUPPORTED (groups for a float format, values outside its range);
// MEMORY; NONFINITE.
TTDEF tt_status tt_quantize(const tt_matrix *w, tt_dtype dtype, int group,
                            const tt_options *options, tt_matrix *out, tt_report *report);

// In which form of the same matrix cores are coded.
enum tt_gauge {
  TT_GAUGE_KEEP = 0,           // as it is
  TT_GAUGE_ORTHOGONAL,         // tt_orthogonalize, centre last
  TT_GAUGE_BALANCED,           // tt_balance: one scale per core then loses less
  TT_GAUGE_BEST                // all three are tried, the smallest measured error wins
};

// Integer cores within a number of bytes: of I8 (one scale per row or per core), I4, I3 and I2 (per
// row or in groups of 32) each core takes the format that makes the predicted error of the whole
// smallest. With order 1 that is the finest ordinary quantisation that fits.
//   bytes    at most tt_stored_size(out); 0 = no limit, all cores in options->dtype and group
//   options  gauge, clip; group TT_GROUP_ROW: no groups of 32, as tt_integer_prepare wants it
//   report   predicted_error against relative_error, which is measured
// Cost     one coding of each core in each format per gauge, and that of the gauge.
// Returns  TT_OK; INVALID (also bytes 0 with a dtype of floats); UNSUPPORTED (bytes below the
//          smallest formats; inputs or row_weights); MEMORY; NONFINITE. *out is zeroed on error.
TTDEF tt_status tt_quantize_budget(const tt_matrix *w, size_t bytes, const tt_options *options,
                                   tt_matrix *out, tt_report *report);

// Encodes one value as F16, BF16, E4M3 or E5M2 (0 for any other dtype), round to nearest even,
// subnormals kept, sign of zero kept, NaN stays NaN. saturate != 0: beyond the range the largest
// finite value, else Inf or NaN as the format says.
TTDEF unsigned tt_from_f32(tt_dtype dtype, float value, int saturate);

// Bytes of the cores, their scales and the bias as a file or flash holds them. 0 = not a valid
// train.
TTDEF size_t tt_stored_size(const tt_matrix *w);

// ------------------------------------------------------------------------------ plans for integers

typedef struct tt_integer_options { // all zero = default
  int dynamic;                 // scales at run time: no samples are needed
  int rounding;                // enum tt_rounding
  // static: how the scale of a state follows from samples. enum tt_clip; 0 = TT_CLIP_SQUARED_ERROR
  int clip;
  double percentile;           // for TT_CLIP_PERCENTILE, in (0, 100]; 0 = 99.9
  // x and y use all of -128..127 and a zero point: for one-sided numbers, as behind a ReLU
  int affine_in, affine_out;
  // scales and zero points given instead of found, to fit a neighbouring layer; 0 = none
  float in_scale, out_scale;
  int in_zero, out_zero;
  tt_allocator allocator;      // zeroed = malloc/free
} tt_integer_options;

typedef struct tt_integer_report { // on the samples given; zeros without
  // relative errors, sqrt(sum |z - z^|^2 / sum |z|^2), by rounding and clipping alone: of the codes
  // of x, of the state behind each step but the last, and of y (0 where y is float)
  double in_error, state_error[TT_MAX_ORDER], out_error;
  double predicted;            // the law: root of the sum of squares of all of these
  double measured;             // error of the integers' y against tt_apply of the same train
} tt_integer_report;

// The plan of a train of integer cores (tt_quantize with I8 to I2 and group 0 or TT_GROUP_ROW).
//   x        (count, cols) samples of inputs; may be NULL with count 0 if options->dynamic, or for
//            order 1 if in_scale and out_scale are given
//   options  may be NULL
//   out      owned by the caller: tt_integer_free
//   report   may be NULL; costs another pass over the samples
// The bias is rounded to the unit of its sums. Where it is so large that it would not fit, that
// unit is raised: an error of at most 2^-17 cols[k] ranks[k+1] of the bias.
// Cost     two (report: three) float forward passes over the samples, one of them at a time.
// Returns  TT_OK; INVALID; NONFINITE (in x); MEMORY; UNSUPPORTED (other cores; sums beyond int32; a
//          scale more than 2^30 times too fine). *out is zeroed on error.
TTDEF tt_status tt_integer_prepare(const tt_matrix *w, const float *x, ptrdiff_t count,
                                   const tt_integer_options *options, tt_integer *out,
                                   tt_integer_report *report);
// Releases the block of a plan and zeroes the struct. NULL, zeroed and borrowed plans are fine.
TTDEF void tt_integer_free(tt_integer *plan);

// ------------------------------------------------------------------------------- algebra of trains
// Every function here reads trains in any format and sweep, computes in double and returns a new
// train, swept right to left, in options->dtype. options NULL: TT_F64 if a given train holds F64
// cores, else TT_F32. Bias is copied. Returns TT_OK, INVALID (NULL, sizes differ), SHAPE (factors
// differ), MEMORY, NONFINITE (in a core), UNSUPPORTED (a result too large for the format); *out is
// zeroed on error.

// Recompression to smaller ranks: the best train within options (epsilon, max_rank) up to the
// factor sqrt(order-1).
// Cost sum_k m n r^3. Never raises a rank. Source [Oseledets11] algorithm 2.
TTDEF tt_status tt_round(const tt_matrix *w, const tt_options *options, tt_matrix *out,
                         tt_report *report);
// a + b, exactly: ranks add, biases add.
TTDEF tt_status tt_add(const tt_matrix *a, const tt_matrix *b, const tt_options *options,
                       tt_matrix *out);
// factor times w and its bias; factor must be finite.
TTDEF tt_status tt_scale(const tt_matrix *w, double factor, const tt_options *options,
                         tt_matrix *out);
// W^T: every core with rows and columns exchanged. The result has no bias.
TTDEF tt_status tt_transpose(const tt_matrix *w, const tt_options *options, tt_matrix *out);
// The same matrix with cores before `center` left-orthogonal, cores behind it right-orthogonal, the
// norm in core `center` (0 .. order-1). Ranks are clipped to what is useful. Results too large for
// one core of the format are balanced over all cores by powers of two: those cores are then
// orthogonal up to that factor.
TTDEF tt_status tt_orthogonalize(const tt_matrix *w, int center, const tt_options *options,
                                 tt_matrix *out);
// Frobenius inner product of two trains with the same factors; Inf if it exceeds the range of
// double. Cost sum_k m n r^3.
TTDEF tt_status tt_dot(const tt_matrix *a, const tt_matrix *b, double *out);
// Frobenius norm by orthogonalisation: accurate after cancellation, safe for norms up to 1e308 and
// down to 1e-308.
TTDEF tt_status tt_norm(const tt_matrix *a, double *out);

// Merges cores first .. first+count-1 into one. Other cores keep their codes where sweep and format
// allow.
TTDEF tt_status tt_merge(const tt_matrix *w, int first, int count, const tt_options *options,
                         tt_matrix *out);
// The same matrix, ready to run fast at this batch size: the cheaper direction and the cheapest
// grouping of neighbouring cores, by dynamic programming over multiply-adds and bytes. Cores left
// alone keep their codes; merged or turned ones become options->dtype.
TTDEF tt_status tt_prepare(const tt_matrix *w, ptrdiff_t batch, const tt_options *options,
                           tt_matrix *out);

// A train of zeros with a zero bias, ranks as in shape (0 = as large as useful); fill it through
// tt_core_data, tt_bias_data.
TTDEF tt_status tt_create(const tt_shape *shape, ptrdiff_t rows, ptrdiff_t cols,
                          const tt_options *options, tt_matrix *out);
// Writable data of core k in its layout and format, or of the bias; NULL if out of range or the
// memory is borrowed.
TTDEF void *tt_core_data(tt_matrix *w, int k);
TTDEF float *tt_bias_data(tt_matrix *w); // NULL if there is no bias

// --------------------------------------------------------------------------------------- gradients
// To train a train, or to heal one that was cut or quantised. Trains have F32 cores here, anything
// else is UNSUPPORTED. Gradients and the memory of an optimiser are trains too: F32 cores, shape
// and sweep as in w, from tt_zeros_like. Gradients are with respect to the data of the cores. What
// is written must own its memory (tt_core_data gives it). No step allocates. A batch or count of 0
// is TT_OK. On error nothing was written.
//
//   for each batch:  tt_apply(&w, x, batch, y, ..)   your loss gives dy = dL/dy
//                    tt_clear(&grad), tt_backward(&w, x, dy, batch, dx, &grad, ..)
//                    tt_adam_step(&w, &grad, &first, &second, ++step, NULL)

// A trainable start: cores are normal numbers of variance 1 / (cols[k] ranks[k]) times what padding
// needs, so that every element of W has variance 1/cols; bias 0. F32 and F64 cores. Same seed, same
// numbers. Returns TT_OK; INVALID; UNSUPPORTED (coded cores).
TTDEF tt_status tt_randomize(tt_matrix *w, unsigned seed);

// A train of zeros with shape, sweep and true size of w, a bias iff w has one; F32 cores unless
// options say otherwise. options NULL takes the allocator of w. Returns TT_OK, INVALID, MEMORY;
// *out is zeroed on error.
TTDEF tt_status tt_zeros_like(const tt_matrix *w, const tt_options *options, tt_matrix *out);

// Zeroes cores and bias in place. Returns TT_OK; INVALID (not a valid train, or borrowed memory).
TTDEF tt_status tt_clear(tt_matrix *w);

// The gradient of y = x W^T + bias, from dy = dL/dy.
//   x     (batch, cols), as given to tt_apply     dy (batch, rows)
//   dx    dL/dx (batch, cols), overwritten, or NULL; must not overlap x or dy
//   grad  dL/dcore is added to its cores, and dL/dbias to its bias if it has one
//   work  at least tt_backward_work_size(w, batch) bytes, any alignment
// Cost     about 3 tt_apply_macs(w, batch): one forward pass and two products a step. Memory: the
//          states of the forward pass, all at once; they are not kept from tt_apply.
// Accuracy float sums over batch and legs, in a fixed order.
// Returns  TT_OK; INVALID; UNSUPPORTED (w has other than F32 cores, aligned as floats).
// Source   reverse mode on the sweep of [Novikov15] section 4; every state is overwritten by its
//          gradient.
TTDEF tt_status tt_backward(const tt_matrix *w, const float *x, const float *dy, ptrdiff_t batch,
                            float *dx, tt_matrix *grad, void *work, size_t work_size);

// Bytes of workspace for tt_backward: at least 1, alignment included. 0 = w is not a valid train,
// batch < 0, or the size does not fit.
TTDEF size_t tt_backward_work_size(const tt_matrix *w, ptrdiff_t batch);

// The gradient of tt_rows, from dy (count, cols) = dL/drows; cores of grad are added to, its bias
// is not touched. A row that is named twice counts twice. Costs three times tt_rows.
//   work  the larger of tt_backward_work_size(w, count) and tt_rows_work_size(w)
// Returns TT_OK; INVALID (also an index out of range); UNSUPPORTED.
TTDEF tt_status tt_rows_backward(const tt_matrix *w, const int *index, ptrdiff_t count,
                                 const float *dy, tt_matrix *grad, void *work, size_t work_size);

// Gradient descent with momentum: velocity = momentum velocity + grad, w -= rate velocity.
//   grad      its bias, if it has one, moves the bias of w; without one the bias of w is frozen
//   velocity  NULL where momentum is 0
//   rate      >= 0        momentum  0 <= momentum < 1
// Returns TT_OK; INVALID; UNSUPPORTED; NONFINITE (in grad; nothing moved).
TTDEF tt_status tt_sgd_step(tt_matrix *w, const tt_matrix *grad, tt_matrix *velocity, double rate,
                            double momentum);

typedef struct tt_adam {       // zero fields mean the defaults, so that {0} is the usual optimiser
  double rate;                 // 1e-3
  double beta1, beta2;         // decay of the two moments: 0.9, 0.999
  double epsilon;              // 1e-8
  // w -= rate weight_decay w before the step, for cores, not for the bias; 0
  double weight_decay;
} tt_adam;

// Adam, bias-corrected, on cores and bias. first and second hold the moments and start as zeros.
//   step   1 for the first step, then one more each time
//   adam   NULL = all defaults
// A gauge in which neighbouring cores have the same size suits it: see tt_balance.
// Returns TT_OK; INVALID; UNSUPPORTED; NONFINITE (in grad; nothing moved).
// Source  [Kingma15] algorithm 1; decay as in [Loshchilov19] algorithm 2.
TTDEF tt_status tt_adam_step(tt_matrix *w, const tt_matrix *grad, tt_matrix *first,
                             tt_matrix *second, int step, const tt_adam *adam);

// The same matrix in the balanced gauge: at every bond the cores on either side, taken together,
// have the Gram matrix diag(S) with S the Schmidt values. Descent then moves all cores alike. Ranks
// fall where Schmidt values are zero (below 64 ulp of the largest). Options, form of the result and
// errors as for the algebra of trains. Cost sum_k m n r^3. Source: the gauge of [Vidal03], with
// S^(1/2) given to both sides.
TTDEF tt_status tt_balance(const tt_matrix *w, const tt_options *options, tt_matrix *out);

// The same train for the other direction of the forward pass: cores in the layout of `sweep`, no
// core merged (tt_prepare merges, which changes what can be trained). Cores whose sweep stays keep
// their codes. Options and errors as for the algebra of trains; INVALID also if sweep is neither.
TTDEF tt_status tt_turn(const tt_matrix *w, int sweep, const tt_options *options, tt_matrix *out);

// Straight-through quantisation: writes to the F32 cores of `out` the very values that the cores of
// w would have after tt_quantize with this dtype and group, and copies the bias. Run tt_apply and
// tt_backward on `out`, let the step move w: so w learns to be good when coded. out has shape,
// sweep and bias as w (tt_zeros_like). Two passes over the numbers. Returns TT_OK; INVALID;
// UNSUPPORTED (as tt_quantize); NONFINITE (in w). Source [Bengio13], the straight-through
// estimator.
TTDEF tt_status tt_quantize_values(const tt_matrix *w, tt_dtype dtype, int group, tt_matrix *out);

// ----------------------------------------------------------------------------------------- entropy

// Singular values of the unfolding at `bond` (between core bond and bond+1): the Schmidt spectrum,
// descending.
//   values   room for *count numbers; *count becomes min(rank, size of either side)
// Computed from the cores alone, cost sum_k m n r^3. Returns TT_OK; INVALID (bond outside 0 ..
// order-2, or too little room: *count is then what is needed); MEMORY; NONFINITE; CONVERGENCE.
TTDEF tt_status tt_spectrum(const tt_matrix *w, int bond, double *values, int *count);
// Renyi entropy in nats of the weights p_i = s_i^2 / sum s^2; alpha = 1 von Neumann, 0 the log of
// the number of non-zero values, 2 collision, INFINITY min-entropy. 0 for an empty or all-zero
// spectrum; NaN for alpha < 0 or NaN. Scale does not matter.
TTDEF double tt_entropy(const double *values, int count, double alpha);
// exp of the von Neumann entropy: how many equal singular values would be this entangled. At least
// 1.
TTDEF double tt_effective_rank(const double *values, int count);

// ---------------------------------------------------------------------------------------- planning
// Which layers to compress, into what, for a number of bytes. Everything is measured on the trains
// themselves; what a layer's error does to the whole model only the caller's own score can say.

enum tt_action { TT_KEEP_DENSE = 0, TT_QUANT_ONLY, TT_SVD, TT_SVD_QUANT, TT_TT, TT_TT_QUANT };

// The Schmidt spectrum of one bond of an uncut matrix, beside that of a Gaussian matrix of the same
// shape. Entropies in nats.
typedef struct tt_bond {
  double entropy, effective_rank, gaussian_entropy, gaussian_effective_rank;
  double share;                // entropy / ln(smaller side), 0..1
  int tail_ranks[2];           // smallest ranks that leave out at most 0.1 and 0.01 of the norm
} tt_bond;

typedef struct tt_candidate {  // one way to store a layer
  int action;                  // enum tt_action
  tt_shape shape;              // factors and ranks
  tt_dtype dtype;
  int group;
  ptrdiff_t params, macs;      // numbers in all cores; tt_apply_macs for one input
  size_t bytes;                // tt_stored_size, bias included
  double weight_error;         // ||W - W^|| / ||W||
  // tt_functional_error on the inputs given to fit and on those held out; 0 without
  double calibration_error, heldout_error;
  double error;                // for decisions: held out, else calibration, else weights
  tt_bond bonds[TT_MAX_ORDER]; // order - 1 of them
} tt_candidate;

typedef struct tt_profile {    // read only; one block
  ptrdiff_t rows, cols;
  int count;
  const tt_candidate *candidates;
  tt_allocator allocator;
} tt_profile;

// Smallest rank whose discarded tail sqrt(sum_{i>r} s_i^2) is at most epsilon times the norm; 0 for
// an empty or zero spectrum, count for an epsilon that is not finite. values (count) in any scale,
// descending.
TTDEF int tt_tail_rank(const double *values, int count, double epsilon);

// The bonds of w (rows, cols) under a factorisation, each from the SVD of its own uncut unfolding.
//   shape    factors (ranks are ignored)         bonds  (shape->order - 1)
// Cost     two SVDs per bond, of w and of a Gaussian matrix. Returns as tt_compress.
TTDEF tt_status tt_bonds(const float *w, ptrdiff_t rows, ptrdiff_t cols, const tt_shape *shape,
                         const tt_options *options, tt_bond *bonds);

// All candidates of one layer: dense F32 and F16; INT8 per row, INT4 and INT3 in groups of 32; and
// for every kept share the SVD, TT-matrices of two and three cores (tt_shape_search) and the plain
// train (row legs first), each in F32, INT8 and INT4. Ranks are the largest that keep at most that
// share of the parameters; what a small matrix cannot give is left out.
//   heldout  inputs for heldout_error, or NULL
//   kept     (num_kept, at most 16) shares in (0, 1]; NULL = 1/2, 1/3, 1/5, 1/10
//   options  inputs, bias, method, seed, allocator; formats and ranks are those of the candidates
// Cost     one tt_compress per factorised shape, one tt_quantize and tt_expand per candidate.
// Returns  TT_OK and a profile for tt_profile_free; else as tt_compress, *out = NULL.
TTDEF tt_status tt_profile_create(const float *w, ptrdiff_t rows, ptrdiff_t cols,
                                  const tt_inputs *heldout, const double *kept, int num_kept,
                                  const tt_options *options, tt_profile **out);
TTDEF void tt_profile_free(tt_profile *profile); // NULL is fine
// Candidate `index` again, from the same w and options. Returns as tt_compress.
TTDEF tt_status tt_profile_train(const tt_profile *profile, int index, const float *w,
                                 const tt_options *options, tt_matrix *out);

// Smallest max_rank whose error is at most `bound`: functional with options->inputs, else of the
// weights. *rank was measured, and so was *rank - 1 (too coarse). By bisection, one tt_compress per
// step; where the error does not fall with the rank, a rank that meets the bound all the same.
// Returns  as tt_compress; INVALID (bound < 0 or NaN); UNSUPPORTED: even the largest rank fails
//          (*rank and *error are then those of it).
TTDEF tt_status tt_smallest_rank(const float *w, ptrdiff_t rows, ptrdiff_t cols,
                                 const tt_shape *shape, double bound, const tt_options *options,
                                 int *rank, double *error);

// ---- a byte budget over many layers

typedef struct tt_plan_point { uint64_t bytes; double loss; } tt_plan_point; // loss >= 0
typedef struct tt_plan_layer {
  const tt_plan_point *points; // (count), in any order
  int count;
  double weight;               // of its losses: 1 / ||W G^1/2||^2, or from a probe; >= 0
} tt_plan_layer;

// Indices of the lower convex hull of points, fewest bytes first: bytes rise, loss falls, and each
// step buys less than the one before. hull (count) entries; *num_hull becomes their number.
// Returns TT_OK; INVALID (no point; a loss that is negative or not finite).
TTDEF tt_status tt_plan_hull(const tt_plan_point *points, int count, int *hull, int *num_hull);

// One point per layer within `budget` bytes: from the fewest bytes on, always the hull step that
// buys most loss per byte and fits. At most one step worse than the best choice of all.
//   choice   (num_layers) indices of points        layer  may be NULL
// Cost     (steps taken) x (all points); allocates nothing.
// Returns  TT_OK; INVALID; MEMORY (bytes overflow); UNSUPPORTED: even the fewest bytes exceed the
//          budget. choice then holds those, *layer the index of the largest of them (else -1).
// Source   linear relaxation of the multiple-choice knapsack problem (Sinha, Zoltners 1979).
TTDEF tt_status tt_plan_budget(const tt_plan_layer *layers, int num_layers, uint64_t budget,
                               int *choice, int *layer);
// The best choice, by dynamic programming over `bins` (0 = 10,000) equal parts of the budget; bytes
// are rounded up to parts, so it is exact where budget <= bins; over hundreds of layers rounding
// may cost more than the greedy walk loses. Memory 4 x layers x bins bytes; returns as above.
TTDEF tt_status tt_plan_exact(const tt_plan_layer *layers, int num_layers, uint64_t budget,
                              int bins, const tt_options *options, int *choice, int *layer);

typedef struct tt_selection {
  // given: score of the whole model with these choices, larger is better; NaN or Inf = it failed
  double (*eval)(void *user, const int *choice, int num_layers);
  void *user;
  uint64_t budget;             // bytes; 0 = as few as the candidates allow
  double max_drop;             // of the score against choice 0 in every layer
  const double *floor;         // score below which nothing may end, or NULL
  int batch;                   // layers compressed between two scores; 0 = an eighth of them
  int trust_losses;            // 1: no probes, the given weight x loss stands for the drop
  // found
  double baseline, score;      // with choice 0 everywhere; with the final choice
  uint64_t bytes;              // of the final choice
  int num_evals, num_refused;  // candidates refused because they alone end below the floor
  int stopped;                 // 1: a batch broke a bound and was bisected, nothing tried after it
  int layer;                   // that broke it, or where an error happened; else -1
} tt_selection;

// Greedy selection. Point 0 of every layer is the layer as it is. One probe per (layer, candidate)
// replaces the loss of the point by the drop it causes alone (given losses and weights are not
// used, unless trust_losses: then no candidate is probed or refused); tt_plan_budget finds the
// target; layers go there in batches, least drop per saved byte first. A batch after which the
// score breaks max_drop or the floor is bisected, the last good state restored, and the selection
// ends: TT_OK, stopped = 1, perhaps above the budget.
//   choice   (num_layers), always the last good state, also on error
// Returns  TT_OK; INVALID; MEMORY; NONFINITE (eval failed); UNSUPPORTED (the baseline is below the
//          floor, or the budget cannot be met); selection->layer says where.
TTDEF tt_status tt_plan_select(const tt_plan_layer *layers, int num_layers,
                               tt_selection *selection, const tt_options *options, int *choice);

// ---- decisions

typedef struct tt_kv {         // keys and values of a transformer; every count >= 0
  int64_t layers, tokens, batch, heads, head_dim; // tokens per sequence, heads of keys
  int bits;                    // of one number, 1..64
  int scale_bytes;             // per (token, head), e.g. 2 for one F16 scale
  double keep;                 // share of the tokens that is kept, in (0, 1], to the nearest token
} tt_kv;

typedef struct tt_hw {         // bytes, bytes per second, flops per second; pcie and cxl 0 = absent
  double hbm_bytes, hbm_bw, peak_flops, pcie_bw, cxl_bw;
  int sm;                      // compute capability times 10 (90 = Hopper), 0 = not NVIDIA
} tt_hw;

typedef struct tt_policy {
  double max_func_err;         // of a layer, on held-out inputs
  double max_quality_drop;     // of the whole model
  double max_latency;          // seconds per token; 0 = any
  int sparse_attention;        // non-zero: the model names the entries it needs
  double kv_keep;              // share it keeps then, in (0, 1]
} tt_policy;

// Bytes of keys and values: 2 layers batch heads kept (ceil(head_dim bits / 8) + scale_bytes).
// Returns TT_OK; INVALID; MEMORY (over 2^64 - 1; *bytes = 0).
TTDEF tt_status tt_kv_bytes(const tt_kv *kv, uint64_t *bytes);

typedef struct tt_format_advice {
  tt_dtype dtype;              // TT_F16, TT_I8 or TT_E4M3
  tt_dtype alternative;        // the same, or what to measure against it
  int benchmark;               // 1: measure both before choosing
  int fp4;                     // 1: FP4 exists; an opt-in, after validating the accuracy
} tt_format_advice;
// Number format by GPU generation: below sm_80 F16; 80..88 INT8; 89 INT8 or FP8, benchmark; 90..99
// FP8; from 100 FP8, FP4 as opt-in. INVALID for sm < 1.
TTDEF tt_status tt_recommend_format(int sm, tt_format_advice *out);

// The candidate with fewest bytes among those with error <= policy->max_func_err and fewer bytes
// than dense INT4; else the smallest quantised dense one within the bound; else the smallest dense
// one within it (F32 has error 0). Without an INT4 candidate nothing factorised is taken.
// Returns TT_OK and *index, whose action is the decision; INVALID; UNSUPPORTED (none within the
// bound, *index = -1).
TTDEF tt_status tt_decide_layer(const tt_candidate *candidates, int count, const tt_policy *policy,
                                int *index);

enum tt_place { TT_KV_HBM = 0, TT_KV_PCIE, TT_KV_CXL, TT_KV_SELECTIVE };
// Where keys and values go, and how many bytes they are. Sparse attention (kv_keep of the tokens):
// SELECTIVE. Dense (all tokens, kv->keep is not read): HBM if they fit beside the weights, else the
// faster of PCIe and CXL. Returns TT_OK; INVALID; MEMORY; UNSUPPORTED (there is neither).
TTDEF tt_status tt_decide_kv(const tt_kv *kv, uint64_t weight_bytes, const tt_hw *hw,
                             const tt_policy *policy, int *place, uint64_t *bytes);

typedef struct tt_layer_cost { double bytes, flops; } tt_layer_cost; // read and done per token
// Seconds per token: sum over layers of max(bytes / hbm_bw, flops / peak) + kv_bytes / bandwidth of
// their place (SELECTIVE: PCIe, else CXL). INVALID; UNSUPPORTED (the place does not exist).
TTDEF tt_status tt_token_latency(const tt_layer_cost *layers, int num_layers, double kv_bytes,
                                 int place, const tt_hw *hw, double *seconds);

typedef struct tt_demand {     // what one plan asks for
  uint64_t weight_bytes, kv_bytes, scratch_bytes;
  int place;                   // enum tt_place
  double latency;              // tt_token_latency
  double quality_drop;         // end to end; read only if evaluated
  int evaluated;
} tt_demand;
enum tt_verdict { TT_DEPLOY = 0, TT_RETUNE, TT_USE_SMALLER_MODEL };
// DEPLOY: plans[0] fits the memory (keys and values count where they live in HBM), the latency, and
// was evaluated within the quality drop. RETUNE: it does not, but another plan does, or might (not
// evaluated yet); *index names it. USE_SMALLER_MODEL: none can. Returns TT_OK; INVALID.
TTDEF tt_status tt_decide_budget(const tt_demand *plans, int count, const tt_hw *hw,
                                 const tt_policy *policy, int *verdict, int *index);

// ---------------------------------------------------------------------------------- linear algebra
// What the library itself uses, for anyone. Row-major; float versions compute in double inside (but
// tt_matmul). Inputs are not changed and must not overlap outputs. Returns TT_OK; INVALID;
// NONFINITE (outputs untouched); MEMORY; CONVERGENCE (best effort).

// Thin SVD of a (rows, cols): u (rows, k), s (k) descending, vt (k, cols), k = min(rows, cols), or
// opt->max_rank if that is smaller and non-zero. u and vt may be NULL. The largest entry of each
// column of u is positive. Zero, rank-deficient and empty matrices have defined results with
// orthonormal u and vt.
TTDEF tt_status tt_svd(const float *a, ptrdiff_t rows, ptrdiff_t cols, float *u, float *s,
                       float *vt, const tt_options *options);
TTDEF tt_status tt_svd_f64(const double *a, ptrdiff_t rows, ptrdiff_t cols, double *u, double *s,
                           double *vt,
                           const tt_options *options); // the same for double

enum { TT_TRANSPOSE_A = 1, TT_TRANSPOSE_B = 2, TT_ACCUMULATE = 4 };

// C = op(A) op(B), or C += with TT_ACCUMULATE; C is (rows, cols), the sum runs over depth. lda,
// ldb, ldc: elements from row to row of the array as stored. One workspace allocation. NaN and Inf
// go through.
TTDEF tt_status tt_matmul(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const float *a,
                          ptrdiff_t lda, const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc,
                          int flags, const tt_options *options);
TTDEF tt_status tt_matmul_f64(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const double *a,
                              ptrdiff_t lda, const double *b, ptrdiff_t ldb, double *c,
                              ptrdiff_t ldc, int flags,
                              const tt_options *options); // the same for double

// A = Q R with Q (rows, k), R (k, cols), k = min(rows, cols), diagonal of R not negative. q or r
// may be NULL.
TTDEF tt_status tt_qr(ptrdiff_t rows, ptrdiff_t cols, const float *a, ptrdiff_t lda, float *q,
                      ptrdiff_t ldq, float *r, ptrdiff_t ldr, const tt_options *options);
TTDEF tt_status tt_qr_f64(ptrdiff_t rows, ptrdiff_t cols, const double *a, ptrdiff_t lda, double *q,
                          ptrdiff_t ldq,
                          // the same for double
                          double *r, ptrdiff_t ldr, const tt_options *options);

// Eigenvalues, descending, and eigenvectors of a symmetric matrix (n, n), of which the lower
// triangle is read. Column j of vectors belongs to values[j], its largest entry is positive.
// vectors may be NULL.
TTDEF tt_status tt_eigh(ptrdiff_t n, const float *a, ptrdiff_t lda, float *values, float *vectors,
                        ptrdiff_t ldv, const tt_options *options);
TTDEF tt_status tt_eigh_f64(ptrdiff_t n, const double *a, ptrdiff_t lda, double *values,
                            double *vectors, ptrdiff_t ldv,
                            const tt_options *options); // the same for double

// SHA-256 of a stream of bytes [SHA2]: begin, add as often as you like, end.
typedef struct tt_sha256 {
  uint32_t state[8];
  uint64_t size;               // bytes added so far
  unsigned char block[64];     // the last size % 64 of them wait here
} tt_sha256;
// Starts a stream.
TTDEF void tt_sha256_begin(tt_sha256 *hash);
TTDEF void tt_sha256_add(tt_sha256 *hash, const void *data, size_t size); // NULL if size is 0
TTDEF void tt_sha256_end(tt_sha256 *hash, unsigned char digest[32]); // ends the stream

// ------------------------------------------------------------------------------------------- files
// safetensors [Safetensors] and .npy [Npy], little-endian on every host. A train is stored as
// "<name>.cores.<k>", "<name>.scale.<k>", "<name>.scales.<k>", "<name>.bias" and an entry of the
// metadata key "tt.layers". All bytes of the header are checked before anything is allocated by a
// size the file chose. FORMAT = malformed, UNSUPPORTED = valid but above a limit (header 100 MB,
// 1,000,000 tensors, 1000 shards) or a newer layout, IO = the system said no.

typedef struct tt_file tt_file;

#ifndef TT_NO_STDIO
// Opens a file; its bytes are read when asked for, so that large checkpoints stream. tt_file_close
// when done.
//   The index of a sharded checkpoint (Hugging Face's "*.index.json", an object whose "weight_map"
// gives the shard of each tensor) opens all shards beside it as one file. Shards are plain names of
// safetensors files in the folder of the index; each is checked whole and stays open. Only tensors
// of the map are visible; one that its shard lacks is FORMAT, a missing shard IO. Data come in the
// order of the shards' names. The metadata are those of the first shard.
TTDEF tt_status tt_file_open(const char *path, const tt_options *options, tt_file **out);
#endif
// The same for a file in memory, whose bytes are borrowed until tt_file_close. An index is
// UNSUPPORTED.
TTDEF tt_status tt_file_open_memory(const void *bytes, size_t size, const tt_options *options,
                                    tt_file **out);
// Number of tensors; 0 for NULL. A .npy file holds one, named "".
TTDEF int tt_file_count(const tt_file *file);
// What tensor `index` (in the order of the data) is. Any output may be NULL. dtype is the
// safetensors name ("F32", ..); *data points into the caller's bytes (any alignment), or is NULL
// for a file opened by path. Strings live until tt_file_close.
TTDEF tt_status tt_file_tensor(const tt_file *file, int index, const char **name,
                               const char **dtype, int *order, const ptrdiff_t **dims,
                               const void **data, size_t *size);
// Copies bytes offset .. offset+size-1 of a tensor, as stored. INVALID outside the tensor.
TTDEF tt_status tt_file_read(const tt_file *file, int index, size_t offset, void *out, size_t size);
// Index of the tensor of this name; INVALID if there is none.
TTDEF tt_status tt_file_find(const tt_file *file, const char *name, int *index);
// All `count` numbers of a tensor as float: F64 F32 F16 BF16 F8_E4M3 F8_E5M2 I8 U8 (F64 is
// rounded). UNSUPPORTED otherwise.
TTDEF tt_status tt_file_read_f32(const tt_file *file, int index, float *out, ptrdiff_t count);
// A layer as a train, owned by the caller: `fc1` finds fc1.cores.*, else fc1.weight with fc1.bias
// as order 1 (its format kept where a core can hold it, else F32); the exact name of a 2-D tensor
// works too. strict refuses ranks above the useful maximum.
TTDEF tt_status tt_file_matrix(const tt_file *file, const char *name, const tt_options *options,
                               tt_matrix *out);
// Statistics of the inputs of layer `name`, released by tt_inputs_free: samples "<name>.inputs"
// (batch, cols), or moments "<name>.inputs.count", ".mean" (cols) and ".covariance" (cols, cols) or
// ".variance" (cols); with these, ".sha256" (32 bytes) names the samples they were made from (if it
// is missing, the moments give the digest). Samples
// take cols^2 doubles unless options->diagonal_inputs: bound that by options->allocator.
TTDEF tt_status tt_file_inputs(const tt_file *file, const char *name, const tt_options *options,
                               tt_inputs **out);
// Pairs of the file's metadata, in the order of the file; strings live until tt_file_close.
TTDEF int tt_file_metadata_count(const tt_file *file);
// Pair `index` of them. Either output may be NULL.
TTDEF tt_status tt_file_metadata(const tt_file *file, int index, const char **key,
                                 const char **value);
// Number of shards that tt_file_open found through an index; 0 for any other file.
TTDEF int tt_file_shard_count(const tt_file *file);
// Name of shard `index`, in the order of names (byte by byte), without the folder; lives until
// tt_file_close. To hash a whole source, read these files in this order; to hash data alone,
// tt_file_read tensors 0 .. count-1: without an index these are all bytes behind the header.
TTDEF tt_status tt_file_shard_name(const tt_file *file, int index, const char **name);
TTDEF void tt_file_close(tt_file *file); // NULL is fine

// A writer collects tensors, then writes one safetensors file: sorted as the reference
// implementation does, data at a multiple of 64. All data are copied when added: into memory, or
// into a temporary file after tt_writer_spill. A duplicate or unusable name is INVALID; a call that
// fails adds nothing.
typedef struct tt_writer tt_writer;
TTDEF tt_status tt_writer_create(const tt_options *options, tt_writer **out);
// Raw tensor: dtype is a safetensors name; data is little-endian, of exactly the size that dtype
// and dims give.
TTDEF tt_status tt_writer_add(tt_writer *writer, const char *name, const char *dtype, int order,
                              const ptrdiff_t *dims, const void *data, size_t size);
// A train with its scales and bias; report (may be NULL) adds error and entropies to the metadata.
TTDEF tt_status tt_writer_add_matrix(tt_writer *writer, const char *name, const tt_matrix *w,
                                     const tt_report *report);
// The moments of a layer's inputs in double, and their digest, as tt_file_inputs reads them.
TTDEF tt_status tt_writer_add_inputs(tt_writer *writer, const char *name, const tt_inputs *inputs);
// Tensor `index` of an open file, byte for byte.
TTDEF tt_status tt_writer_copy(tt_writer *writer, const tt_file *file, int index);
// A pair for the metadata; the last value of a key wins. Keys "format", "tt.version",
// "tt.generator", "tt.layers" are set by the library.
TTDEF tt_status tt_writer_metadata(tt_writer *writer, const char *key, const char *value);
#ifndef TT_NO_STDIO
// From now on data wait in a temporary file beside `path` (where the writer will save, say) until
// tt_writer_free removes it: a tensor then takes some 200 bytes and its name of memory, whatever
// its size, and tt_writer_copy streams. The saved bytes are the same. Once for a writer; IO if no
// such file can be made, and from then on wherever the disk is full.
//   Temporary files, this one and that of tt_writer_save, are new files: "<path>.tmp", or where
// that exists the first of "<path>.tmp1" .. "<path>.tmp99" that does not. A program that may be
// interrupted (SIGINT) notes before each of the two calls which name that will be, and removes it.
TTDEF tt_status tt_writer_spill(tt_writer *writer, const char *path);
// Writes path through a sibling temporary file and a rename: path holds either its old or all of
// its new bytes.
TTDEF tt_status tt_writer_save(tt_writer *writer, const char *path);
#endif
// The same into memory: *size in: room, out: bytes needed. bytes NULL asks for the size; too little
// room is INVALID.
TTDEF tt_status tt_writer_save_memory(tt_writer *writer, void *bytes, size_t *size);
TTDEF void tt_writer_free(tt_writer *writer); // NULL is fine

// A layer as a C header, for programs without files and without an allocator; C99 and C++11:
//   arrays in constant memory, aligned to 16 bytes, and `static const tt_matrix NAME` made of them;
//   macros NAME_ROWS, _COLS, _MACS, _FLASH_BYTES (of the arrays), and _SCRATCH_BYTES: the workspace
//     of tt_apply for one input, in every build of the including program;
//   where NAME_SELF_TEST is defined, a function NAME_self_test;
//   with a plan `static const tt_integer NAME_plan`, NAME_INTEGER_FLASH_BYTES, _SCRATCH_BYTES and,
//     where NAME_INTEGER_SELF_TEST is defined, NAME_integer_self_test.
// Arrays carry the attribute TT_FLASH if the program defines one, such as PROGMEM, together with
// TT_FLASH_BYTE. The header refuses to compile against another layout of the structs.
//   plan   of w, or NULL
//   name   of the layer, from which NAME is made: "h.0.attn" gives h_0_attn
//   note   lines for the comment on top, such as the source's SHA-256, or NULL
//   text   *size in: room, out: bytes needed, the terminator among them. NULL asks for the size;
//          too little room is INVALID
// Some 4 bytes of text for a code and 14 for a float, the same for the same input. Workspace for
// one forward pass comes from w->allocator. Returns TT_OK; INVALID (also a plan of another train);
// NONFINITE (a number, or y of the self-test); UNSUPPORTED; MEMORY.
TTDEF tt_status tt_export_c(const tt_matrix *w, const tt_integer *plan, const char *name,
                            const char *note, char *text, size_t *size);
#endif // TT_INFERENCE_ONLY

#ifdef __cplusplus
}
#endif
#endif // TT_H_INCLUDED

#if defined(TT_IMPLEMENTATION) && !defined(TT_IMPLEMENTATION_DONE)
#define TT_IMPLEMENTATION_DONE

// ---------------------------------------------------------------------------------------- >>config
// Compiler, allocator and checked sizes: everything that later sections need of the world outside.
//
// Sizes are checked with three helpers (multiply, add, round up to a cache line), all saturating at
// an error flag, so that a sum of products is checked once at its end. Temporary memory of one call
// lives in a pool: a chain of zeroed, 64-byte aligned blocks with a sticky failure, so that
// numerical code takes all it needs and asks once whether it got it; tt__pool_close releases
// everything on every path.

#include <limits.h>
#include <string.h>
#ifndef TT_INFERENCE_ONLY
#include <float.h>
#include <math.h>
#include <stdlib.h>
#ifndef TT_NO_STDIO
#include <stdio.h>
#endif
#ifdef TT_USE_CBLAS
#include <cblas.h>
#endif
#endif

#ifndef TT_ASSERT
#define TT_ASSERT(condition) ((void)0)
#endif

// Constant memory that ordinary pointers do not reach (the program memory of an AVR) is read byte
// by byte through this macro: codes, scales, float cores, bias, and the arrays of a tt_integer.
#ifdef TT_FLASH_BYTE
#ifndef TT_INFERENCE_ONLY
#error "TT_FLASH_BYTE is for TT_INFERENCE_ONLY: all else reads trains in ordinary memory"
#endif
#define TT__FLASH         1
#define TT__READ(address) TT_FLASH_BYTE(address)
#else
#define TT__FLASH         0
#define TT__READ(address) (*(const unsigned char *)(address))
#endif

#if defined(__GNUC__) || defined(_MSC_VER)
#define TT_RESTRICT __restrict
#else
#define TT_RESTRICT
#endif

// Vector kernels need the vector types of GCC and Clang; what runs on a device stays plain C.
#if !defined(TT_NO_SIMD) && !defined(TT_INFERENCE_ONLY) && !defined(__CUDACC__) && \
    !defined(__INTEL_COMPILER) && !defined(__TINYC__) && \
    (defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 8)) && \
    (defined(__x86_64__) || defined(__aarch64__) || defined(__wasm_simd128__))
#define TT__SIMD
#if defined(__clang__) || __GNUC__ >= 12
#define TT__SHUFFLE __builtin_shufflevector
#endif
// GCC misaligns wide vectors on the stack of Windows; clang-cl lacks the library that asks.
#if defined(__x86_64__) && !defined(_WIN32)
#define TT__DISPATCH
#endif
#endif

// Integer dot products: by AVX-512 VNNI where the processor has it, by ARM's where the build may
// use them.
#if defined(TT__SIMD) && (defined(__clang__) || __GNUC__ >= 9)
#if defined(TT__DISPATCH)
#define TT__DOTS __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
enum { TT__DOT_LANES = 16, TT__DOT_FLIP = 128 };
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#define TT__DOTS
enum { TT__DOT_LANES = 4, TT__DOT_FLIP = 0 };
#endif
#endif

// A loop inside a parallel region shares its iterations; without OpenMP both vanish.
#ifdef _OPENMP
#define TT__PRAGMA(text) _Pragma(#text)
#define TT__PARALLEL_IF(condition) TT__PRAGMA(omp parallel if (condition))
#define TT__SHARED_LOOP TT__PRAGMA(omp for schedule(static))
#else
#define TT__PARALLEL_IF(condition)
#define TT__SHARED_LOOP
#endif

static ptrdiff_t tt__min(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static ptrdiff_t tt__max(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

// *value *= factor for factors >= 0. Returns 0 and leaves *value if the product exceeds
// PTRDIFF_MAX.
static int tt__multiply(ptrdiff_t *value, ptrdiff_t factor) {
  if (factor != 0 && *value > PTRDIFF_MAX / factor) return 0;
  *value *= factor;
  return 1;
}

// *value += term for terms >= 0. Returns 0 and leaves *value if the sum exceeds PTRDIFF_MAX.
static int tt__increase(ptrdiff_t *value, ptrdiff_t term) {
  if (*value > PTRDIFF_MAX - term) return 0;
  *value += term;
  return 1;
}

// *total += count * each, rounded up to a multiple of 64 bytes. Returns 0 where that does not fit.
static int tt__add_size(ptrdiff_t *total, ptrdiff_t count, ptrdiff_t each) {
  if (!tt__multiply(&count, each) || !tt__increase(&count, 63)) return 0;
  return tt__increase(total, count / 64 * 64);
}

// The first multiple of 64 at or behind p.
static unsigned char *tt__align(void *p) {
  return (unsigned char *)p + (64 - (uintptr_t)p % 64) % 64;
}

static uint32_t tt__float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static float tt__bits_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Element `index`, `size` bytes wide, of an array in constant memory of any alignment.
static void tt__fetch(void *to, const void *array, ptrdiff_t index, size_t size) {
  const unsigned char *from = (const unsigned char *)array + index * (ptrdiff_t)size;
#if TT__FLASH
  for (size_t i = 0; i < size; i++) ((unsigned char *)to)[i] = TT__READ(from + i);
#else
  memcpy(to, from, size);
#endif
}

TTDEF const char *tt_status_string(tt_status status) {
  switch (status) {
    case TT_OK: return "ok";
    case TT_ERROR_INVALID: return "invalid argument";
    case TT_ERROR_SHAPE: return "factors or ranks do not fit the matrix";
    case TT_ERROR_NONFINITE: return "NaN or Inf in the input";
    case TT_ERROR_MEMORY: return "out of memory, or a size does not fit";
    case TT_ERROR_CONVERGENCE: return "an iteration reached its limit";
    case TT_ERROR_FORMAT: return "malformed file";
    case TT_ERROR_IO: return "input or output failed";
    case TT_ERROR_UNSUPPORTED: return "not supported";
  }
  return "unknown status";
}

#ifndef TT_INFERENCE_ONLY
#ifndef TT_MALLOC
#define TT_MALLOC(size) malloc(size)
#define TT_FREE(block) free(block)
#endif

// NaN by its bits, so that -ffast-math cannot remove the test.
static int tt__is_finite(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (bits >> 52 & 2047) != 2047;
}

// sqrt(x^2 + y^2), scaled where squares would overflow or vanish. The last bit of the C library's
// hypot differs between systems; square roots are the same everywhere.
static double tt__hypot(double x, double y) {
  double largest = fmax(fabs(x), fabs(y)), scale = 1;
  if (largest > 1e150) scale = ldexp(1, -600);
  if (largest < 1e-140) scale = ldexp(1, 600);
  return sqrt(x * scale * (x * scale) + y * scale * (y * scale)) / scale;
}

static void *tt__allocate(const tt_allocator *allocator, ptrdiff_t size) {
  if (allocator->alloc_fn) return allocator->alloc_fn((size_t)size, allocator->user_data);
  return TT_MALLOC((size_t)size);
}

static void tt__release(const tt_allocator *allocator, void *block) {
  if (!block) return;
  if (allocator->free_fn) allocator->free_fn(block, allocator->user_data);
  else TT_FREE(block);
}

// Are these options usable? NULL is, and means all defaults. An allocator is given whole or not at
// all.
static int tt__options_valid(const tt_options *options) {
  if (!options) return 1;
  return options->max_rank >= 0 && options->epsilon >= 0 && tt__is_finite(options->epsilon) &&
         options->dtype >= TT_F32 && options->dtype <= TT_I2 && options->group >= TT_GROUP_ROW &&
         options->method >= TT_SVD_AUTO && options->method <= TT_SVD_RANDOMIZED &&
         options->clip >= TT_CLIP_DEFAULT && options->clip <= TT_CLIP_PERCENTILE &&
         options->percentile >= 0 && options->percentile <= 100 &&
         options->gauge >= TT_GAUGE_KEEP && options->gauge <= TT_GAUGE_BEST &&
         !options->allocator.alloc_fn == !options->allocator.free_fn;
}

static tt_options tt__options(const tt_options *options) {
  tt_options none;
  memset(&none, 0, sizeof none);
  return options ? *options : none;
}

// Temporary memory of one call.
typedef struct tt__pool {
  tt_allocator allocator;
  // the newest block; each begins with the address of the one before it
  void *blocks;
  tt_status status;            // TT_ERROR_MEMORY once anything could not be had
} tt__pool;

static tt__pool tt__pool_open(const tt_allocator *allocator) {
  tt__pool pool;
  memset(&pool, 0, sizeof pool);
  if (allocator) pool.allocator = *allocator;
  return pool;
}

// `bytes` bytes of anything, 64-byte aligned; NULL on failure, which the pool remembers.
static void *tt__take_raw(tt__pool *pool, ptrdiff_t bytes) {
  ptrdiff_t size = 128 + (ptrdiff_t)sizeof(void *);
  if (!tt__add_size(&size, bytes, 1)) pool->status = TT_ERROR_MEMORY;
  if (pool->status) return NULL;
  void **block = (void **)tt__allocate(&pool->allocator, size);
  if (!block) {
    pool->status = TT_ERROR_MEMORY;
    return NULL;
  }
  *block = pool->blocks;
  pool->blocks = block;
  return tt__align(block + 1);
}

// `count` elements of `each` bytes, zeroed.
static void *tt__take(tt__pool *pool, ptrdiff_t count, ptrdiff_t each) {
  if (count < 0 || !tt__multiply(&count, each)) {
    pool->status = TT_ERROR_MEMORY;
    return NULL;
  }
  void *block = tt__take_raw(pool, count);
  return block ? memset(block, 0, (size_t)count) : NULL;
}

static double *tt__take_f64(tt__pool *pool, ptrdiff_t rows, ptrdiff_t cols) {
  if (rows < 0 || cols < 0 || !tt__multiply(&rows, cols)) pool->status = TT_ERROR_MEMORY;
  return (double *)tt__take(pool, rows, (ptrdiff_t)sizeof(double));
}

// Releases everything taken after the moment when pool->blocks was `mark`.
static void tt__pool_rewind(tt__pool *pool, void *mark) {
  while (pool->blocks != mark) {
    void *block = pool->blocks;
    pool->blocks = *(void **)block;
    tt__release(&pool->allocator, block);
  }
}

static void tt__pool_close(tt__pool *pool) { tt__pool_rewind(pool, NULL); }
#endif // TT_INFERENCE_ONLY

// ---------------------------------------------------------------------------------------- >>number
// Storage formats of single numbers and of coded rows, bit for bit.
//
// The four small floats (F16, BF16, E4M3, E5M2) differ only in widths and in what the largest
// exponent means, so one decoder and one encoder serve all, on integers: round to nearest even,
// subnormals kept. E4M3 is the "fn" variant of [OFP8]: no Inf, one NaN (S.1111.111), largest value
// 448. Integer codes of b bits are symmetric (-127..127, -7..7, -3..3, -1..1) and lie in a
// little-endian bit stream; a row of the GEMM view starts on a byte. A coded row has one scale, or
// one per group.

typedef struct tt__minifloat {
  int exponent_bits, mantissa_bits;
  int has_inf;                 // the largest exponent holds Inf and NaN, as in IEEE 754
} tt__minifloat;

static int tt__is_minifloat(tt_dtype dtype) { return dtype >= TT_F16 && dtype <= TT_E5M2; }
static int tt__is_integer(tt_dtype dtype) { return dtype >= TT_I8 && dtype <= TT_I2; }

static void tt__minifloat_of(tt_dtype dtype, tt__minifloat *format) {
  tt__minifloat half = {5, 10, 1};                           // F16
  *format = half;
  if (dtype == TT_BF16) { format->exponent_bits = 8; format->mantissa_bits = 7; }
  if (dtype == TT_E4M3) {
    format->exponent_bits = 4;
    format->mantissa_bits = 3;
    format->has_inf = 0;
  }
  if (dtype == TT_E5M2) format->mantissa_bits = 2;
}

static uint32_t tt__low_bits(int count) { return ((uint32_t)1 << count) - 1; }

static int tt__dtype_bits(tt_dtype dtype) {
  switch (dtype) {
    case TT_F32: return 32;
    case TT_F64: return 64;
    case TT_F16: case TT_BF16: return 16;
    case TT_E4M3: case TT_E5M2: case TT_I8: return 8;
    case TT_I4: return 4;
    case TT_I3: return 3;
    case TT_I2: return 2;
  }
  return 0;
}

TTDEF float tt_to_f32(tt_dtype dtype, unsigned bits) {
  if (!tt__is_minifloat(dtype)) return 0;
  tt__minifloat format;
  tt__minifloat_of(dtype, &format);
  int width = format.exponent_bits + format.mantissa_bits;
  uint32_t code = (uint32_t)bits & tt__low_bits(width), sign = (uint32_t)(bits >> width & 1) << 31;
  uint32_t top = tt__low_bits(format.exponent_bits), exponent = code >> format.mantissa_bits;
  uint32_t mantissa = code & tt__low_bits(format.mantissa_bits);
  int bias = (int)(top >> 1);
  if (format.has_inf && exponent == top)
    return tt__bits_float(sign | 0x7F800000UL | mantissa << (23 - format.mantissa_bits));
  if (!format.has_inf && code == tt__low_bits(width)) return tt__bits_float(sign | 0x7FC00000UL);
  if (exponent == 0 && format.exponent_bits < 8) {           // zero or subnormal: normal in float
    if (!mantissa) return tt__bits_float(sign);
    for (exponent = 1; !(mantissa >> format.mantissa_bits); exponent--) mantissa <<= 1;
    // exponent may have wrapped: it is added
    mantissa &= tt__low_bits(format.mantissa_bits);
  }
  exponent += (uint32_t)(127 - bias);                        // modulo 2^32, and comes out right
  return tt__bits_float(sign | exponent << 23 | mantissa << (23 - format.mantissa_bits));
}

// The element `index` of a code stream whose codes have `bits` bits (8, 4, 3 or 2), sign-extended.
static int tt__integer_code(const unsigned char *row, ptrdiff_t index, int bits) {
  ptrdiff_t first = index * bits;
  int shift = (int)(first % 8), code = TT__READ(row + first / 8) >> shift;
  if (shift + bits > 8) code |= (int)TT__READ(row + first / 8 + 1) << (8 - shift);
  code &= (1 << bits) - 1;
  return code - ((code >> (bits - 1)) << bits);
}

static unsigned tt__load_u16(const void *codes, ptrdiff_t index) {
  uint16_t code;
  tt__fetch(&code, codes, index, sizeof code);
  return code;
}

// Bytes of one row of `length` elements of the GEMM view. Floats are contiguous anyway.
static ptrdiff_t tt__row_size(tt_dtype dtype, ptrdiff_t length) {
  int bits = tt__dtype_bits(dtype);
  return bits >= 8 ? length * (bits / 8) : length / 8 * bits + (length % 8 * bits + 7) / 8;
}

// How many scales a row of `length` elements has.
static ptrdiff_t tt__row_scales(int group, ptrdiff_t length) {
  if (group <= 0) return group ? 1 : 0;
  return length / group + (length % group != 0);
}

// The scale of the elements from `first` on in `row`; *end becomes the end of their group.
static float tt__scale_at(const tt_core *core, ptrdiff_t row, ptrdiff_t length, ptrdiff_t first,
                          ptrdiff_t *end) {
  // exactly 0 is the zeroed struct: unscaled
  float scale = core->scale == 0 ? 1 : core->scale;
  *end = length;
  if (core->group == TT_GROUP_ROW) {
    float of_row;
    tt__fetch(&of_row, core->scales, row, sizeof of_row);
    return of_row * scale;
  }
  if (core->group == 0) return scale;
  *end = tt__min(length, (first / core->group + 1) * core->group);
  ptrdiff_t index = row * tt__row_scales(core->group, length) + first / core->group;
  return tt_to_f32(TT_F16, tt__load_u16(core->scales, index)) * scale;
}

// The value of one element without its scale, as float.
static float tt__decode_one(tt_dtype dtype, const unsigned char *row, ptrdiff_t index) {
  float value;
  switch (dtype) {
    case TT_F32:
      tt__fetch(&value, row, index, sizeof value);
      return value;
    case TT_F16: case TT_BF16: return tt_to_f32(dtype, tt__load_u16(row, index));
    case TT_E4M3: case TT_E5M2: return tt_to_f32(dtype, TT__READ(row + index));
    case TT_I8: case TT_I4: case TT_I3: case TT_I2:
      return (float)tt__integer_code(row, index, tt__dtype_bits(dtype));
    case TT_F64: break;
  }
#ifdef TT_INFERENCE_ONLY
  return 0;
#else
  double wide;
  memcpy(&wide, row + 8 * index, sizeof wide);
  return (float)wide;
#endif
}

// Rows first .. first+count-1 of the GEMM view (each `length` long) of a core as floats, packed.
static void tt__decode_rows(const tt_core *core, ptrdiff_t first, ptrdiff_t count, ptrdiff_t length,
                            float *out) {
  ptrdiff_t row_size = tt__row_size(core->dtype, length), end;
  for (ptrdiff_t i = 0; i < count; i++) {
    const unsigned char *row = (const unsigned char *)core->data + (first + i) * row_size;
    for (ptrdiff_t j = 0; j < length; j = end) {
      float scale = tt__scale_at(core, first + i, length, j, &end);
      for (ptrdiff_t t = j; t < end; t++)
        out[i * length + t] = scale * tt__decode_one(core->dtype, row, t);
    }
  }
}

#ifndef TT_INFERENCE_ONLY
static int tt__largest_code(tt_dtype dtype) { return (1 << (tt__dtype_bits(dtype) - 1)) - 1; }

// value / 2^shift, rounded to nearest, ties to even.
static uint32_t tt__shift_round(uint32_t value, int shift) {
  if (shift <= 0) return value << -shift;
  if (shift > 31) return 0;
  uint32_t half = (uint32_t)1 << (shift - 1), low = value & ((half << 1) - 1),
           high = value >> (shift - 1) >> 1;
  return high + (low > half || (low == half && (high & 1)));
}

TTDEF unsigned tt_from_f32(tt_dtype dtype, float value, int saturate) {
  if (!tt__is_minifloat(dtype)) return 0;
  tt__minifloat format;
  tt__minifloat_of(dtype, &format);
  int width = format.exponent_bits + format.mantissa_bits,
      bias = (1 << (format.exponent_bits - 1)) - 1;
  uint32_t bits = tt__float_bits(value), magnitude = bits & 0x7FFFFFFFUL, all = tt__low_bits(width);
  uint32_t sign = (bits >> 31) << width;
  uint32_t infinity = format.has_inf ? all & ~tt__low_bits(format.mantissa_bits) : all;
  if (magnitude > 0x7F800000UL)                              // NaN: quiet, sign kept
    return (unsigned)(sign | (format.has_inf ? infinity | (uint32_t)1 << (format.mantissa_bits - 1)
                                             : all));
  int exponent = (int)(magnitude >> 23) - 127 + bias;        // biased exponent in the target format
  int shift = 23 - format.mantissa_bits;
  uint32_t mantissa = magnitude & 0x7FFFFFUL, code;
  if (magnitude >> 23) mantissa |= 0x800000UL;
  else exponent++;                                           // subnormal float: no hidden bit
  if (exponent >= 1)
    code = tt__shift_round(mantissa, shift) + ((uint32_t)(exponent - 1) << format.mantissa_bits);
  else code = tt__shift_round(mantissa, shift + 1 - exponent);
  // far out, and Inf itself
  if (magnitude >> 23 && exponent >= 1 << format.exponent_bits) code = infinity;
  if (code >= infinity) code = saturate ? infinity - 1 : infinity;
  return (unsigned)(sign | code);
}

// Writes code `value` as element `index` of a zeroed code stream.
static void tt__put_integer(unsigned char *row, ptrdiff_t index, int bits, int value) {
  ptrdiff_t first = index * bits;
  int shift = (int)(first % 8);
  unsigned code = ((unsigned)value & ((1U << bits) - 1)) << shift;
  row[first / 8] = (unsigned char)(row[first / 8] | (code & 255));
  if (shift + bits > 8) row[first / 8 + 1] = (unsigned char)(row[first / 8 + 1] | code >> 8);
}

// Nearest integer, ties to even, for |value| < 2^51; independent of the rounding mode of libm
// functions.
static int tt__nearest(double value) {
  double down = floor(value), part = value - down;
  int whole = (int)down;
  return whole + (part > 0.5 || (part == 0.5 && whole % 2 != 0));
}

static double tt__largest_magnitude(ptrdiff_t count, const double *values) {
  double largest = 0;
  for (ptrdiff_t i = 0; i < count; i++) if (fabs(values[i]) > largest) largest = fabs(values[i]);
  return largest;
}

// The code nearest to value / scale. An all-zero group keeps code 0, whatever its scale.
static int tt__integer_for(tt_dtype dtype, double value, double scale) {
  if (!(scale > 0)) return 0;
  int limit = tt__largest_code(dtype);
  double code = value / scale;
  return tt__nearest(code > limit ? limit : code < -limit ? -limit : code);
}

// Codes elements first..end-1 of a row of doubles with one scale.
static void tt__encode_run(tt_dtype dtype, const double *values, ptrdiff_t first, ptrdiff_t end,
                           double scale, unsigned char *row) {
  int bits = tt__dtype_bits(dtype);
  for (ptrdiff_t t = first; t < end; t++)
    tt__put_integer(row, t, bits, tt__integer_for(dtype, values[t], scale));
}

// The scale of elements whose largest magnitude is `largest`, as it will be decoded. Its code goes
// to `code` unless that is NULL; `whole` is the largest magnitude of the core over the largest
// code.
static double tt__encode_scale(const tt_core *core, double largest, double whole,
                               unsigned char *code) {
  double scale = largest / tt__largest_code(core->dtype);
  if (core->group == TT_GROUP_ROW) {
    float of_row = (float)scale;
    if (code) memcpy(code, &of_row, sizeof of_row);
    return (double)of_row;
  }
  if (core->group == 0) return (double)core->scale;
  // f16, relative to the core: at most 1
  uint16_t half = (uint16_t)(whole > 0 ? tt_from_f32(TT_F16, (float)(scale / whole), 1) : 0);
  if (code) memcpy(code, &half, sizeof half);
  return (double)tt_to_f32(TT_F16, half) * (double)core->scale;
}

// Encodes one row of `length` doubles as integer codes; whole is the largest magnitude of the core
// over the largest code. Codes and scales are written to zeroed memory.
static void tt__encode_integers(const tt_core *core, ptrdiff_t index, ptrdiff_t length,
                                const double *row, unsigned char *codes, unsigned char *scales,
                                double whole) {
  ptrdiff_t end, step = core->group > 0 ? core->group : length,
                 s = index * tt__row_scales(core->group, length);
  for (ptrdiff_t j = 0; j < length; j = end, s++) {
    end = tt__min(length, j + tt__min(step, length));
    unsigned char *code = core->group ? scales + (core->group > 0 ? 2 : 4) * s : NULL;
    double scale = tt__encode_scale(core, tt__largest_magnitude(end - j, row + j), whole, code);
    tt__encode_run(core->dtype, row, j, end, scale, codes);
  }
}

// A power of two that brings `largest` into the range of a small float: 1 if it already is
// comfortable.
static float tt__power_scale(tt_dtype dtype, double largest) {
  int exponent;
  double top = dtype == TT_E4M3 ? 448 : dtype == TT_E5M2 ? 57344 : 65504;
  if (largest == 0 || dtype == TT_BF16) return 1;
  if (dtype == TT_F16 && largest <= top && largest >= 6.103515625e-5) return 1;
  // largest in [2^(exponent-1), 2^exponent)
  (void)frexp(largest, &exponent);
  int target = dtype == TT_E4M3 ? 9 : dtype == TT_E5M2 ? 16 : 15;
  if (ldexp(largest, target - exponent) > top) target--;     // 448 is less than 2^9
  int shift = exponent - target;
  shift = shift < -120 ? -120 : shift > 120 ? 120 : shift;
  return (float)ldexp(1, shift);
}

// Sets the scale of a core whose largest magnitude is known; dtype and group are set. Returns
// TT_ERROR_UNSUPPORTED if the values exceed what any scale could bring into range.
static tt_status tt__encode_begin(tt_core *core, double largest) {
  core->scale = 1;
  if (core->dtype != TT_F64 && largest > (double)FLT_MAX) return TT_ERROR_UNSUPPORTED;
  if (tt__is_minifloat(core->dtype)) core->scale = tt__power_scale(core->dtype, largest);
  if (tt__is_integer(core->dtype) && core->group != TT_GROUP_ROW)
    core->scale = (float)(largest / tt__largest_code(core->dtype));
  return TT_OK;
}

// Encodes rows first .. first+count-1 of the GEMM view (each `length` long) into the core's zeroed
// memory.
static void tt__encode_rows(tt_core *core, ptrdiff_t first, ptrdiff_t count, ptrdiff_t length,
                            const double *values) {
  ptrdiff_t row_size = tt__row_size(core->dtype, length);
  double whole = (double)core->scale;
  for (ptrdiff_t i = 0; i < count; i++) {
    unsigned char *to = (unsigned char *)core->data + (first + i) * row_size;
    const double *row = values + i * length;
    if (tt__is_integer(core->dtype)) {
      tt__encode_integers(core, first + i, length, row, to, (unsigned char *)core->scales, whole);
      continue;
    }
    for (ptrdiff_t j = 0; j < length; j++) {
      float value = (float)(row[j] / (double)core->scale);
      uint16_t code = (uint16_t)tt_from_f32(core->dtype, value, 1);
      if (core->dtype == TT_F64) memcpy(to + 8 * j, row + j, 8);
      else if (core->dtype == TT_F32) memcpy(to + 4 * j, &value, 4);
      else if (tt__dtype_bits(core->dtype) == 16) memcpy(to + 2 * j, &code, 2);
      else to[j] = (unsigned char)code;
    }
  }
}

// The whole GEMM view of a core as doubles; F64 without loss, other formats exact up to one
// scaling.
static void tt__decode_f64(const tt_core *core, ptrdiff_t rows, ptrdiff_t length, double *out) {
  ptrdiff_t row_size = tt__row_size(core->dtype, length), end;
  for (ptrdiff_t i = 0; i < rows; i++) {
    const unsigned char *row = (const unsigned char *)core->data + i * row_size;
    for (ptrdiff_t j = 0; j < length; j = end) {
      double scale = (double)tt__scale_at(core, i, length, j, &end);
      for (ptrdiff_t t = j; t < end; t++) {
        double value;
        if (core->dtype == TT_F64) memcpy(&value, row + 8 * t, sizeof value);
        else value = (double)tt__decode_one(core->dtype, row, t);
        out[i * length + t] = scale * value;
      }
    }
  }
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// ---------------------------------------------------------------------------------------- >>random
// Counter-based random numbers: number `counter` of stream `seed` is a pure function of both, so
// there is no state, and the order in which threads ask does not matter. The mixing is the
// finaliser of splitmix64 (Steele, Lea, Flood 2014), applied to the counter and again after the
// seed is added.

static uint64_t tt__mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

static uint64_t tt__random(unsigned seed, uint64_t counter) {
  return tt__mix(tt__mix(counter + 0x9E3779B97F4A7C15ULL) + seed * 0xD1342543DE82EF95ULL);
}

// +1 or -1, each half of the time.
static double tt__random_sign(unsigned seed, uint64_t counter) {
  return (tt__random(seed, counter) >> 63) ? 1 : -1;
}

// Standard normal (Box, Muller 1958), from numbers 2 counter and 2 counter + 1 of the stream.
static double tt__random_normal(unsigned seed, uint64_t counter) {
  double unit = 1.0 / 9007199254740992.0;                    // 2^-53
  double radius = (double)((tt__random(seed, 2 * counter) >> 11) + 1) * unit;
  double angle = (double)(tt__random(seed, 2 * counter + 1) >> 11) * unit;
  return sqrt(-2 * log(radius)) * cos(6.283185307179586 * angle);
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// ------------------------------------------------------------------------------------------ >>hash
// SHA-256 [SHA2]: names the bytes that a result was made from, so that statistics and profiles are
// never used with another checkpoint.

// First 32 bits of the fractional parts of the cube roots of the first 64 primes.
static const uint32_t tt__sha256_round[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u,
    0xab1c5ed5u, 0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu,
    0x9bdc06a7u, 0xc19bf174u, 0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu,
    0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau, 0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u,
    0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u, 0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu,
    0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u, 0xa2bfe8a1u, 0xa81a664bu,
    0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u, 0x19a4c116u,
    0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u,
    0xc67178f2u};

static uint32_t tt__rotate_right(uint32_t x, int count) { return x >> count | x << (32 - count); }

// The compression function: absorbs the 64 bytes of one block.
static void tt__sha256_block(uint32_t state[8], const unsigned char *block) {
  uint32_t w[64], v[8];
  for (int t = 0; t < 16; t++, block += 4)
    w[t] = (uint32_t)block[0] << 24 | (uint32_t)block[1] << 16 | (uint32_t)block[2] << 8 | block[3];
  for (int t = 16; t < 64; t++) {
    uint32_t a = w[t - 15], b = w[t - 2];
    w[t] = w[t - 16] + (tt__rotate_right(a, 7) ^ tt__rotate_right(a, 18) ^ a >> 3) + w[t - 7] +
           (tt__rotate_right(b, 17) ^ tt__rotate_right(b, 19) ^ b >> 10);
  }
  memcpy(v, state, sizeof v);
  for (int t = 0; t < 64; t++) {
    uint32_t e = v[4], a = v[0];
    uint32_t one = v[7] + (tt__rotate_right(e, 6) ^ tt__rotate_right(e, 11) ^
                           tt__rotate_right(e, 25)) + ((e & v[5]) ^ (~e & v[6])) +
                   tt__sha256_round[t] + w[t];
    uint32_t two = (tt__rotate_right(a, 2) ^ tt__rotate_right(a, 13) ^ tt__rotate_right(a, 22)) +
                   ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
    memmove(v + 1, v, 7 * sizeof *v);
    v[4] += one;
    v[0] = one + two;
  }
  for (int t = 0; t < 8; t++) state[t] += v[t];
}

TTDEF void tt_sha256_begin(tt_sha256 *hash) {
  static const uint32_t start[8] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                    0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
  memcpy(hash->state, start, sizeof start);
  hash->size = 0;
}

TTDEF void tt_sha256_add(tt_sha256 *hash, const void *data, size_t size) {
  const unsigned char *at = (const unsigned char *)data;
  while (size > 0) {
    size_t used = (size_t)(hash->size % 64), now = size < 64 - used ? size : 64 - used;
    memcpy(hash->block + used, at, now);
    hash->size += now;
    at += now;
    size -= now;
    if (used + now == 64) tt__sha256_block(hash->state, hash->block);
  }
}

TTDEF void tt_sha256_end(tt_sha256 *hash, unsigned char digest[32]) {
  unsigned char tail[72] = {0x80};
  uint64_t bits = hash->size * 8;
  size_t pad = (size_t)(64 - (hash->size + 8) % 64);         // 1 to 64 bytes, the first is 0x80
  for (int i = 0; i < 8; i++) tail[pad + (size_t)i] = (unsigned char)(bits >> (56 - 8 * i));
  tt_sha256_add(hash, tail, pad + 8);
  for (int i = 0; i < 32; i++)
    digest[i] = (unsigned char)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}
#endif // TT_INFERENCE_ONLY

// ------------------------------------------------------------------------------------------ >>gemm
// The one matrix product: C (m,n) = or += A (m,k) B (k,n) in float or in double. C is row-major; A
// and B have any two strides, so every transpose is free. All products of the library come through
// here, and only this section knows CBLAS and vector types.
//
// There are two ways, the plain one first. Plain C: B is cut into blocks of TT__KC x TT__NC, copied
// to contiguous rows unless they already are. One kernel adds eight rows of such a block, times
// eight numbers of A, to a row of C, which costs one load and one store of C per eight
// multiply-adds and vectorises with any compiler. With GCC and Clang, unless TT_NO_SIMD is defined,
// the vector kernels in the guarded block behind it replace it; with TT_INFERENCE_ONLY a few lines
// at the end of the section do, in as little code as possible.
//
// Either way the sums for an element of C are formed in one order, whatever the blocks and the
// number of threads: same bits. Where C has few rows or columns and both operands are contiguous
// along k, a dot product is faster; the choice depends on the shape of the whole product alone.

enum { TT__KC = 128, TT__NC = 128, TT__LANES = 16 };         // 64 KB in float: L2

// The same for vector kernels: terms of a sum and rows (of float, of double) in one block of A,
// half a megabyte; the largest tile.
enum {
  TT__DEPTH = 256,
  TT__HEIGHT_F32 = 516,
  TT__HEIGHT_F64 = 264,
  TT__TILE_HEIGHT = 12,
  TT__STRIP_BYTES = 128
};

// Instruction sets that the kernels below were compiled for.
typedef enum tt__level { TT__PLAIN, TT__VECTORS, TT__AVX2, TT__AVX512 } tt__level;

typedef struct tt__product {
  ptrdiff_t m, n, k;
  const void *a, *b;
  // element (i,j) of A is a[i*a_row + j*a_col]
  ptrdiff_t a_row, a_col, b_row, b_col;
  void *c;
  ptrdiff_t ldc;
  int accumulate;
  // tt__gemm_work() bytes at 64-byte alignment
  void *work;
} tt__product;

#ifndef TT_INFERENCE_ONLY
// c[0..n) += sum over p < 8 of x[p] * row p of b, in this order.
static void tt__add_rows8_f32(ptrdiff_t n, const float *x, const float *TT_RESTRICT b,
                              ptrdiff_t ldb, float *TT_RESTRICT c) {
  float x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3], x4 = x[4], x5 = x[5], x6 = x[6], x7 = x[7];
  ptrdiff_t j = 0;
  for (; j + TT__LANES <= n; j += TT__LANES) {
    const float *TT_RESTRICT s = b + j;
    float *TT_RESTRICT d = c + j;
    for (int t = 0; t < TT__LANES; t++)
      d[t] = d[t] + x0 * s[t] + x1 * s[ldb + t] + x2 * s[2 * ldb + t] + x3 * s[3 * ldb + t] +
             x4 * s[4 * ldb + t] + x5 * s[5 * ldb + t] + x6 * s[6 * ldb + t] + x7 * s[7 * ldb + t];
  }
  for (; j < n; j++) {
    const float *s = b + j;
    c[j] = c[j] + x0 * s[0] + x1 * s[ldb] + x2 * s[2 * ldb] + x3 * s[3 * ldb] + x4 * s[4 * ldb] +
           x5 * s[5 * ldb] + x6 * s[6 * ldb] + x7 * s[7 * ldb];
  }
}

// Row i of C, columns 0..n) of a block: c += a[0..k) times the rows of b.
static void tt__row_f32(ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t a_col, const float *b,
                        ptrdiff_t ldb, float *c) {
  ptrdiff_t p = 0;
  for (; p + 8 <= k; p += 8, b += 8 * ldb) {
    float x[8];
    for (int t = 0; t < 8; t++) x[t] = a[(p + t) * a_col];
    tt__add_rows8_f32(n, x, b, ldb, c);
  }
  for (; p < k; p++, b += ldb) {
    float x = a[p * a_col];
    for (ptrdiff_t j = 0; j < n; j++) c[j] += x * b[j];
  }
}

// The same for double.
static void tt__add_rows8_f64(ptrdiff_t n, const double *x, const double *TT_RESTRICT b,
                              ptrdiff_t ldb, double *TT_RESTRICT c) {
  double x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3], x4 = x[4], x5 = x[5], x6 = x[6], x7 = x[7];
  ptrdiff_t j = 0;
  for (; j + TT__LANES <= n; j += TT__LANES) {
    const double *TT_RESTRICT s = b + j;
    double *TT_RESTRICT d = c + j;
    for (int t = 0; t < TT__LANES; t++)
      d[t] = d[t] + x0 * s[t] + x1 * s[ldb + t] + x2 * s[2 * ldb + t] + x3 * s[3 * ldb + t] +
             x4 * s[4 * ldb + t] + x5 * s[5 * ldb + t] + x6 * s[6 * ldb + t] + x7 * s[7 * ldb + t];
  }
  for (; j < n; j++) {
    const double *s = b + j;
    c[j] = c[j] + x0 * s[0] + x1 * s[ldb] + x2 * s[2 * ldb] + x3 * s[3 * ldb] + x4 * s[4 * ldb] +
           x5 * s[5 * ldb] + x6 * s[6 * ldb] + x7 * s[7 * ldb];
  }
}

static void tt__row_f64(ptrdiff_t n, ptrdiff_t k, const double *a, ptrdiff_t a_col, const double *b,
                        ptrdiff_t ldb, double *c) {
  ptrdiff_t p = 0;
  for (; p + 8 <= k; p += 8, b += 8 * ldb) {
    double x[8];
    for (int t = 0; t < 8; t++) x[t] = a[(p + t) * a_col];
    tt__add_rows8_f64(n, x, b, ldb, c);
  }
  for (; p < k; p++, b += ldb) {
    double x = a[p * a_col];
    for (ptrdiff_t j = 0; j < n; j++) c[j] += x * b[j];
  }
}

// Dot product in a fixed number of lanes and one order of reduction.
static double tt__plain_dot_f64(ptrdiff_t n, const double *TT_RESTRICT x,
                                const double *TT_RESTRICT y) {
  double lane[TT__LANES] = {0};
  ptrdiff_t i = 0;
  for (; i + TT__LANES <= n; i += TT__LANES)
    for (int t = 0; t < TT__LANES; t++) lane[t] += x[i + t] * y[i + t];
  for (int t = 0; i < n; i++, t++) lane[t] += x[i] * y[i];
  for (int half = TT__LANES / 2; half > 0; half /= 2)
    for (int t = 0; t < half; t++) lane[t] += lane[t + half];
  return lane[0];
}
#endif

#ifdef TT__SIMD
// ---- vector kernels. Skip to the end of this block: it computes what the plain code above does.
//
// After [Goto08]: a tile of C, up to 12 rows of two vectors, stays in registers while a kernel runs
// down k. A block of A is copied so that the rows of a tile lie side by side, a strip of B so that
// its rows do; either is read in place where a copy would not pay. Neither that choice nor the tile
// an element falls into nor the number of threads changes what happens to it: blocks of TT__DEPTH
// terms are summed from zero in order and added in order.
//
// Kernels are compiled for several instruction sets by attributes, whatever the flags of the build,
// and chosen at run time. The type of a vector is their parameter, and C has no way but a macro to
// pass that.

#ifdef __clang__
#define TT__UNROLL _Pragma("clang loop unroll(full)")
#define TT__FUSE   _Pragma("clang fp contract(fast)")
#define TT__FUSED
#else
#define TT__UNROLL _Pragma("GCC unroll 16")
#define TT__FUSE
#define TT__FUSED  __attribute__((optimize("fp-contract=fast")))
#endif

// C (rows, vectors) = or += A B for one tile; rows are 1, 2 or 3 thirds of the full height.
typedef struct tt__tile_job {
  ptrdiff_t k, a_row, a_col, b_row, ldc;
  const void *a, *b;
  void *c;
  int thirds, vectors, accumulate;
} tt__tile_job;

// For elements T and vectors of BYTES bytes: NAME runs a tile of HEIGHT rows at most, NAME_dots
// makes the dot products of up to four rows with one vector, each in the same order.
#define TT__KERNELS(NAME, TARGET, T, BYTES, HEIGHT)                                                \
  typedef T NAME##_vector __attribute__((vector_size(BYTES)));                                     \
  typedef T NAME##_loose __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));       \
  typedef T NAME##_short __attribute__((vector_size(16)));                                         \
                                                                                                   \
  TARGET TT__FUSED static inline __attribute__((always_inline)) void NAME##_body(                  \
      const tt__tile_job *t, const int rows, const int vectors) {                                  \
    TT__FUSE                                                                                       \
    enum { LANES = BYTES / (int)sizeof(T) };                                                       \
    const NAME##_vector zero = {0};                                                                \
    NAME##_vector sum[HEIGHT][2], row[2];                                                          \
    const T *a = (const T *)t->a, *b = (const T *)t->b;                                            \
    T *c = (T *)t->c;                                                                              \
    ptrdiff_t a_row = t->a_row, a_col = t->a_col, b_row = t->b_row, ldc = t->ldc;                  \
    TT__UNROLL for (int i = 0; i < rows; i++) {                                                    \
      __builtin_prefetch(c + i * ldc);                                                             \
      __builtin_prefetch(c + i * ldc + vectors * LANES - 1);                                       \
      TT__UNROLL for (int j = 0; j < vectors; j++) sum[i][j] = zero;                               \
    }                                                                                              \
    for (ptrdiff_t p = t->k; p > 0; p--, a += a_col, b += b_row) {                                 \
      TT__UNROLL for (int j = 0; j < vectors; j++)                                                 \
        row[j] = *(const NAME##_loose *)(b + j * LANES);                                           \
      TT__UNROLL for (int i = 0; i < rows; i++) {                                                  \
        TT__UNROLL for (int j = 0; j < vectors; j++) sum[i][j] += a[i * a_row] * row[j];           \
      }                                                                                            \
    }                                                                                              \
    TT__UNROLL for (int i = 0; i < rows; i++) {                                                    \
      TT__UNROLL for (int j = 0; j < vectors; j++) {                                               \
        NAME##_loose *out = (NAME##_loose *)(c + i * ldc + j * LANES);                             \
        if (t->accumulate) sum[i][j] += *out;                                                      \
        *out = sum[i][j];                                                                          \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
                                                                                                   \
  TARGET TT__FUSED static __attribute__((noinline)) void NAME(const tt__tile_job *t) {             \
    switch (2 * t->thirds + t->vectors) {                                                          \
      case 3: NAME##_body(t, HEIGHT / 3, 1); break;                                                \
      case 4: NAME##_body(t, HEIGHT / 3, 2); break;                                                \
      case 5: NAME##_body(t, HEIGHT / 3 * 2, 1); break;                                            \
      case 6: NAME##_body(t, HEIGHT / 3 * 2, 2); break;                                            \
      case 7: NAME##_body(t, HEIGHT, 1); break;                                                    \
      default: NAME##_body(t, HEIGHT, 2); break;                                                   \
    }                                                                                              \
  }                                                                                                \
                                                                                                   \
  TARGET TT__FUSED static __attribute__((noinline)) void NAME##_dots(                              \
      ptrdiff_t n, ptrdiff_t count, const T *x, ptrdiff_t step, const T *y, T *out) {              \
    TT__FUSE                                                                                       \
    enum { LANES = BYTES / (int)sizeof(T) };                                                       \
    const NAME##_vector zero = {0};                                                                \
    NAME##_vector sum[4][2];                                                                       \
    const T *row[4];                                                                               \
    NAME##_short part[BYTES / 16];                                                                 \
    T lane[16 / sizeof(T)];                                                                        \
    ptrdiff_t i = 0;                                                                               \
    TT__UNROLL for (int r = 0; r < 4; r++) {                                                       \
      row[r] = x + (r < count ? r : 0) * step;                                                     \
      sum[r][0] = sum[r][1] = zero;                                                                \
    }                                                                                              \
    for (; i + 2 * LANES <= n; i += 2 * LANES) {                                                   \
      const NAME##_vector low = *(const NAME##_loose *)(y + i),                                    \
                          high = *(const NAME##_loose *)(y + i + LANES);                           \
      TT__UNROLL for (int r = 0; r < 4; r++) {                                                     \
        sum[r][0] += *(const NAME##_loose *)(row[r] + i) * low;                                    \
        sum[r][1] += *(const NAME##_loose *)(row[r] + i + LANES) * high;                           \
      }                                                                                            \
    }                                                                                              \
    for (ptrdiff_t r = 0; r < count; r++) {                                                        \
      sum[r][0] += sum[r][1];                                                                      \
      memcpy(part, &sum[r][0], sizeof part);                                                       \
      TT__UNROLL for (int v = 1; v < BYTES / 16; v++) part[0] += part[v];                          \
      memcpy(lane, part, sizeof lane);                                                             \
      out[r] = lane[0];                                                                            \
      TT__UNROLL for (int v = 1; v < 16 / (int)sizeof(T); v++) out[r] += lane[v];                  \
      for (ptrdiff_t p = i; p < n; p++) out[r] += row[r][p] * y[p];                                \
    }                                                                                              \
  }

#ifdef __aarch64__
TT__KERNELS(tt__tile_f32, , float, 16, 12)
TT__KERNELS(tt__tile_f64, , double, 16, 12)
#else
TT__KERNELS(tt__tile_f32, , float, 16, 6)
TT__KERNELS(tt__tile_f64, , double, 16, 6)
#endif

#ifdef TT__DISPATCH
#define TT__TARGET_AVX2 __attribute__((target("avx2,fma")))
#ifdef __clang__
#define TT__TARGET_AVX512                                                                          \
  __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma"), min_vector_width(512)))
#else                                                        // without tune gcc spills registers
#define TT__TARGET_AVX512                                                                          \
  __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma,tune=icelake-server")))
#endif
TT__KERNELS(tt__tile_f32_avx2, TT__TARGET_AVX2, float, 32, 6)
TT__KERNELS(tt__tile_f64_avx2, TT__TARGET_AVX2, double, 32, 6)
TT__KERNELS(tt__tile_f32_avx512, TT__TARGET_AVX512, float, 64, 12)
TT__KERNELS(tt__tile_f64_avx512, TT__TARGET_AVX512, double, 64, 12)
#endif

// The best level of this processor. The compiler's library asked the processor before main began,
// so there is no state of ours to set up.
static tt__level tt__best_level(void) {
#ifdef TT__DISPATCH
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
    return TT__AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return TT__AVX2;
#endif
  return TT__VECTORS;
}

static void tt__run_tile(const tt__tile_job *job, int wide, tt__level level) {
#ifdef TT__DISPATCH
  if (level == TT__AVX512) {
    if (wide) tt__tile_f64_avx512(job);
    else tt__tile_f32_avx512(job);
    return;
  }
  if (level == TT__AVX2) {
    if (wide) tt__tile_f64_avx2(job);
    else tt__tile_f32_avx2(job);
    return;
  }
#endif
  (void)level;
  if (wide) tt__tile_f64(job);
  else tt__tile_f32(job);
}

static int tt__tile_height(tt__level level) {
#ifdef __aarch64__
  (void)level;
  return 12;
#else
  return level == TT__AVX512 ? 12 : 6;
#endif
}

// Copies `count` lanes, k elements each, side by side: to[p*width + q] = from[q*lane + p*step];
// zeros fill up to `width` lanes.
static void tt__pack_f32(ptrdiff_t width, ptrdiff_t count, ptrdiff_t k, const float *from,
                         ptrdiff_t lane, ptrdiff_t step, float *to) {
  typedef float four __attribute__((vector_size(16)));
  typedef float loose __attribute__((vector_size(16), aligned(4), may_alias));
  ptrdiff_t q = 0, p;
  if (lane == 1) {
    for (p = 0; p < k; p++, to += width, from += step) {
      for (q = 0; q + 4 <= count; q += 4) *(loose *)(to + q) = *(const loose *)(from + q);
      for (; q < width; q++) to[q] = q < count ? from[q] : 0;
    }
    return;
  }
  for (; q + 4 <= count && step == 1; q += 4) {
    const float *s = from + q * lane;
    float *d = to + q;
    p = 0;
#ifdef TT__SHUFFLE
    for (; p + 4 <= k; p += 4) {                             // 4 x 4 elements, transposed
      four a = *(const loose *)(s + p), b = *(const loose *)(s + lane + p);
      four c = *(const loose *)(s + 2 * lane + p);
      four e = *(const loose *)(s + 3 * lane + p);
      four ab = TT__SHUFFLE(a, b, 0, 4, 1, 5), ab2 = TT__SHUFFLE(a, b, 2, 6, 3, 7);
      four ce = TT__SHUFFLE(c, e, 0, 4, 1, 5), ce2 = TT__SHUFFLE(c, e, 2, 6, 3, 7);
      *(loose *)(d + p * width) = TT__SHUFFLE(ab, ce, 0, 1, 4, 5);
      *(loose *)(d + (p + 1) * width) = TT__SHUFFLE(ab, ce, 2, 3, 6, 7);
      *(loose *)(d + (p + 2) * width) = TT__SHUFFLE(ab2, ce2, 0, 1, 4, 5);
      *(loose *)(d + (p + 3) * width) = TT__SHUFFLE(ab2, ce2, 2, 3, 6, 7);
    }
#endif
    for (; p < k; p++)
      for (int t = 0; t < 4; t++) d[p * width + t] = s[t * lane + p];
  }
  for (; q < count; q++)
    for (p = 0; p < k; p++) to[p * width + q] = from[q * lane + p * step];
  for (; q < width; q++)
    for (p = 0; p < k; p++) to[p * width + q] = 0;
}

// The same for double.
static void tt__pack_f64(ptrdiff_t width, ptrdiff_t count, ptrdiff_t k, const double *from,
                         ptrdiff_t lane, ptrdiff_t step, double *to) {
  typedef double two __attribute__((vector_size(16)));
  typedef double loose __attribute__((vector_size(16), aligned(8), may_alias));
  ptrdiff_t q = 0, p;
  if (lane == 1) {
    for (p = 0; p < k; p++, to += width, from += step) {
      for (q = 0; q + 2 <= count; q += 2) *(loose *)(to + q) = *(const loose *)(from + q);
      for (; q < width; q++) to[q] = q < count ? from[q] : 0;
    }
    return;
  }
  for (; q + 2 <= count && step == 1; q += 2) {
    const double *s = from + q * lane;
    double *d = to + q;
    p = 0;
#ifdef TT__SHUFFLE
    for (; p + 2 <= k; p += 2) {
      two a = *(const loose *)(s + p), b = *(const loose *)(s + lane + p);
      *(loose *)(d + p * width) = TT__SHUFFLE(a, b, 0, 2);
      *(loose *)(d + (p + 1) * width) = TT__SHUFFLE(a, b, 1, 3);
    }
#endif
    for (; p < k; p++)
      for (int t = 0; t < 2; t++) d[p * width + t] = s[t * lane + p];
  }
  for (; q < count; q++)
    for (p = 0; p < k; p++) to[p * width + q] = from[q * lane + p * step];
  for (; q < width; q++)
    for (p = 0; p < k; p++) to[p * width + q] = 0;
}

static void tt__pack(int wide, ptrdiff_t width, ptrdiff_t count, ptrdiff_t k, const void *from,
                     ptrdiff_t lane, ptrdiff_t step, void *to) {
  if (wide) tt__pack_f64(width, count, k, (const double *)from, lane, step, (double *)to);
  else tt__pack_f32(width, count, k, (const float *)from, lane, step, (float *)to);
}

// What all strips of one block of A share: rows i0 .. i0+mc of C, terms p0 .. p0+kc of the sums.
typedef struct tt__block_job {
  const tt__product *p;
  int wide, high, a_packed, b_packed;
  tt__level level;
  ptrdiff_t element, width, i0, mc, p0, kc;
} tt__block_job;

static int tt__thirds(ptrdiff_t rows, int high) {
  return rows * 3 > high * 2 ? 3 : rows * 3 > high ? 2 : 1;
}

// Copies the panel of A at row i of the block; p->work holds panel after panel, or the last alone.
static void tt__pack_a(const tt__block_job *t, ptrdiff_t i) {
  const tt__product *p = t->p;
  ptrdiff_t rows = tt__min(t->mc - i, t->high), width = t->high / 3 * tt__thirds(rows, t->high);
  const char *from = (const char *)p->a;
  from += ((t->i0 + i) * p->a_row + t->p0 * p->a_col) * t->element;
  char *to = (char *)p->work + (t->a_packed ? i * t->kc * t->element : 0);
  tt__pack(t->wide, width, rows, t->kc, from, p->a_row, p->a_col, to);
}

// Adds a tile that was computed beside C, or stores it.
static void tt__store_tile_f32(ptrdiff_t rows, ptrdiff_t cols, const float *tile, ptrdiff_t ldt,
                               float *c, ptrdiff_t ldc, int accumulate) {
  for (ptrdiff_t i = 0; i < rows; i++, tile += ldt, c += ldc)
    if (accumulate)
      for (ptrdiff_t j = 0; j < cols; j++) c[j] += tile[j];
    else
      for (ptrdiff_t j = 0; j < cols; j++) c[j] = tile[j];
}
static void tt__store_tile_f64(ptrdiff_t rows, ptrdiff_t cols, const double *tile, ptrdiff_t ldt,
                               double *c, ptrdiff_t ldc, int accumulate) {
  for (ptrdiff_t i = 0; i < rows; i++, tile += ldt, c += ldc)
    if (accumulate)
      for (ptrdiff_t j = 0; j < cols; j++) c[j] += tile[j];
    else
      for (ptrdiff_t j = 0; j < cols; j++) c[j] = tile[j];
}

// Columns j0 .. j0+width of a block of C.
static void tt__strip(const tt__block_job *t, ptrdiff_t j0) {
  union { double align; unsigned char bytes[TT__DEPTH * TT__STRIP_BYTES + 64]; } panel;
  union { double align; unsigned char bytes[TT__TILE_HEIGHT * TT__STRIP_BYTES]; } beside;
  const tt__product *p = t->p;
  ptrdiff_t element = t->element, nc = tt__min(p->n - j0, t->width);
  const char *a = (const char *)p->a + (t->i0 * p->a_row + t->p0 * p->a_col) * element;
  char *c = (char *)p->c + (t->i0 * p->ldc + j0) * element;
  tt__tile_job job;
  job.k = t->kc;
  job.b = (const char *)p->b + (t->p0 * p->b_row + j0 * p->b_col) * element;
  job.b_row = p->b_row;
  job.vectors = nc > t->width / 2 ? 2 : 1;
  ptrdiff_t wide_nc = t->width / 2 * job.vectors;
  if (t->b_packed || p->b_col != 1 || nc < wide_nc) {
    void *to = tt__align(panel.bytes);
    tt__pack(t->wide, wide_nc, nc, t->kc, job.b, p->b_col, p->b_row, to);
    job.b = to;
    job.b_row = wide_nc;
  }
  int accumulate = p->accumulate || t->p0 > 0;
  ptrdiff_t ahead = t->b_packed && p->b_col == 1 && j0 + t->width < p->n ? 0 : t->kc;
  const char *next = (const char *)p->b + (t->p0 * p->b_row + j0 + t->width) * element;
  for (ptrdiff_t i = 0, high; i < t->mc; i += high) {
    ptrdiff_t rows = t->mc - i;
    for (; ahead < t->kc && ahead * t->mc < t->kc * (i + t->high); ahead++) {
      __builtin_prefetch(next + ahead * p->b_row * element, 0, 2);
      __builtin_prefetch(next + ahead * p->b_row * element + 127, 0, 2);
    }
    job.thirds = tt__thirds(rows, t->high);
    high = t->high / 3 * job.thirds;
    if (t->a_packed || rows < high) {
      job.a = (const char *)p->work + (t->a_packed ? i * t->kc * element : 0);
      job.a_row = 1;
      job.a_col = high;
    } else {
      job.a = a + i * p->a_row * element;
      job.a_row = p->a_row;
      job.a_col = p->a_col;
    }
    int fits = rows >= high && nc == wide_nc;
    job.c = fits ? c + i * p->ldc * element : (char *)beside.bytes;
    job.ldc = fits ? p->ldc : wide_nc;
    job.accumulate = fits && accumulate;
    tt__run_tile(&job, t->wide, t->level);
    if (fits) continue;
    if (t->wide)
      tt__store_tile_f64(tt__min(rows, high), nc, (double *)(void *)beside.bytes, wide_nc,
                         (double *)p->c + (t->i0 + i) * p->ldc + j0, p->ldc, accumulate);
    else
      tt__store_tile_f32(tt__min(rows, high), nc, (float *)(void *)beside.bytes, wide_nc,
                         (float *)p->c + (t->i0 + i) * p->ldc + j0, p->ldc, accumulate);
  }
}

// Is a copy of an operand better than reading it `uses` times where it lies? One that lies close
// together stays in the cache; rows far apart push one another out of it.
static int tt__wants_copy(const tt__block_job *t, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t row,
                          ptrdiff_t col, ptrdiff_t uses) {
  ptrdiff_t span = tt__max(tt__min(rows, TT__DEPTH) * row, tt__min(cols, TT__DEPTH) * col);
  return uses > (span * t->element <= 262144 ? 24 : 2);
}

// The loop nest around the kernels, run by every thread.
static void tt__blocked_vectors(const tt__product *p, int wide, tt__level level) {
  tt__block_job t = {p, wide, tt__tile_height(level), 0, 0, level, 0, 0, 0, 0, 0, 0};
  t.element = wide ? 8 : 4;
  t.width = (level == TT__AVX512 ? 128 : level == TT__AVX2 ? 64 : 32) / t.element;
  t.a_packed = tt__wants_copy(&t, p->m, p->k, p->a_row, p->a_col, (p->n + t.width - 1) / t.width);
  t.b_packed = tt__wants_copy(&t, p->k, p->n, p->b_row, p->b_col, (p->m + t.high - 1) / t.high);
  ptrdiff_t limit = wide ? TT__HEIGHT_F64 : TT__HEIGHT_F32, blocks = (p->m + limit - 1) / limit;
  ptrdiff_t even = ((p->m + blocks - 1) / blocks + t.high - 1) / t.high * t.high;
  for (t.p0 = 0; t.p0 < p->k; t.p0 += TT__DEPTH)
    for (t.i0 = 0; t.i0 < p->m; t.i0 += even) {
      t.kc = tt__min(p->k - t.p0, TT__DEPTH);
      t.mc = tt__min(p->m - t.i0, even);
      ptrdiff_t first = t.a_packed ? 0 : t.mc - t.mc % t.high;   // in place but for the last rows
      TT__SHARED_LOOP
      for (ptrdiff_t i = first; i < t.mc; i += t.high) tt__pack_a(&t, i);
      TT__SHARED_LOOP
      for (ptrdiff_t j = 0; j < p->n; j += t.width) tt__strip(&t, j);
    }
}

// out[0..count) = dot products of `count` <= 4 rows, `step` apart, with y; n >= 128.
static void tt__dots_f32(ptrdiff_t n, ptrdiff_t count, const float *x, ptrdiff_t step,
                         const float *y, float *out) {
#ifdef TT__DISPATCH
  tt__level level = tt__best_level();
  if (level == TT__AVX512) { tt__tile_f32_avx512_dots(n, count, x, step, y, out); return; }
  if (level == TT__AVX2) { tt__tile_f32_avx2_dots(n, count, x, step, y, out); return; }
#endif
  tt__tile_f32_dots(n, count, x, step, y, out);
}

static void tt__dots_f64(ptrdiff_t n, ptrdiff_t count, const double *x, ptrdiff_t step,
                         const double *y, double *out) {
#ifdef TT__DISPATCH
  tt__level level = tt__best_level();
  if (level == TT__AVX512) { tt__tile_f64_avx512_dots(n, count, x, step, y, out); return; }
  if (level == TT__AVX2) { tt__tile_f64_avx2_dots(n, count, x, step, y, out); return; }
#endif
  tt__tile_f64_dots(n, count, x, step, y, out);
}
#else
#ifndef TT_INFERENCE_ONLY
static tt__level tt__best_level(void) { return TT__PLAIN; }

// Dot product in a fixed number of lanes and one order of reduction.
static float tt__plain_dot_f32(ptrdiff_t n, const float *TT_RESTRICT x,
                               const float *TT_RESTRICT y) {
  float lane[TT__LANES] = {0};
  ptrdiff_t i = 0;
  for (; i + TT__LANES <= n; i += TT__LANES)
    for (int t = 0; t < TT__LANES; t++) lane[t] += x[i + t] * y[i + t];
  for (int t = 0; i < n; i++, t++) lane[t] += x[i] * y[i];
  for (int half = TT__LANES / 2; half > 0; half /= 2)
    for (int t = 0; t < half; t++) lane[t] += lane[t + half];
  return lane[0];
}

// out[0..count) = dot products of `count` rows, `step` apart, with y.
static void tt__dots_f32(ptrdiff_t n, ptrdiff_t count, const float *x, ptrdiff_t step,
                         const float *y, float *out) {
  for (ptrdiff_t i = 0; i < count; i++) out[i] = tt__plain_dot_f32(n, x + i * step, y);
}

static void tt__dots_f64(ptrdiff_t n, ptrdiff_t count, const double *x, ptrdiff_t step,
                         const double *y, double *out) {
  for (ptrdiff_t i = 0; i < count; i++) out[i] = tt__plain_dot_f64(n, x + i * step, y);
}
#endif
#endif // TT__SIMD

// Bytes of workspace for a product of this size or smaller: enough for either way, so that it is
// the same for every build.
static ptrdiff_t tt__gemm_work_size(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, int wide) {
  ptrdiff_t size = 0;
#ifndef TT_INFERENCE_ONLY
  ptrdiff_t rows = tt__min(m, wide ? TT__HEIGHT_F64 : TT__HEIGHT_F32);
  rows = (rows + TT__TILE_HEIGHT - 1) / TT__TILE_HEIGHT * TT__TILE_HEIGHT;
  size = tt__max(tt__min(k, TT__KC) * tt__min(n, TT__NC), rows * tt__min(k, TT__DEPTH));
  size *= wide ? 8 : (ptrdiff_t)sizeof(float);
#endif
  (void)m; (void)n; (void)k; (void)wide;
  return size;
}

#ifndef TT_INFERENCE_ONLY
// Is a dot product per element of C the better form? Short ones lose to tiles, where there are any.
static int tt__wants_dots(const tt__product *p, tt__level level) {
  return (p->m < 4 || p->n < 4) && p->a_col == 1 && p->b_row == 1 &&
         p->k >= (level == TT__PLAIN ? 1 : 128);
}

#ifdef TT__SIMD
// Are tiles? A few rows of C are best made of whole rows of B, if that has any.
static int tt__wants_tiles(const tt__product *p, tt__level level) {
  return level != TT__PLAIN && p->m > 0 && p->k > 0 && (p->m >= 4 || p->b_col != 1);
}
#endif

// Columns j0 .. j0+nc of row i of C, terms p0 .. p0+kc of the sum. The block of B starts at
// `block`.
static void tt__row_block(const tt__product *p, int wide, ptrdiff_t i, ptrdiff_t j0, ptrdiff_t nc,
                          ptrdiff_t p0, ptrdiff_t kc, const void *block, ptrdiff_t ldb) {
  ptrdiff_t at_c = i * p->ldc + j0, at_a = i * p->a_row + p0 * p->a_col;
  int clear = p0 == 0 && !p->accumulate;
  if (!wide) {
    float *c = (float *)p->c + at_c;
    if (clear) memset(c, 0, (size_t)nc * sizeof(float));
    tt__row_f32(nc, kc, (const float *)p->a + at_a, p->a_col, (const float *)block, ldb, c);
    return;
  }
  double *c = (double *)p->c + at_c;
  if (clear) memset(c, 0, (size_t)nc * sizeof(double));
  tt__row_f64(nc, kc, (const double *)p->a + at_a, p->a_col, (const double *)block, ldb, c);
}

// Copies row q of the block of B at (p0, j0) to row q of the workspace.
static void tt__pack_row(const tt__product *p, int wide, ptrdiff_t p0, ptrdiff_t q, ptrdiff_t j0,
                         ptrdiff_t nc) {
  ptrdiff_t from = (p0 + q) * p->b_row + j0 * p->b_col;
  if (!wide) {
    const float *b = (const float *)p->b + from;
    float *to = (float *)p->work + q * nc;
    for (ptrdiff_t j = 0; j < nc; j++) to[j] = b[j * p->b_col];
    return;
  }
  const double *b = (const double *)p->b + from;
  double *to = (double *)p->work + q * nc;
  for (ptrdiff_t j = 0; j < nc; j++) to[j] = b[j * p->b_col];
}

// Group g of four rows of C by dot products, or of four columns where C is wide.
static void tt__dot_group(const tt__product *p, int wide, ptrdiff_t g) {
  int turned = p->m < p->n;
  ptrdiff_t first = 4 * g, count = tt__min(4, (turned ? p->n : p->m) - first);
  ptrdiff_t step = turned ? p->b_col : p->a_row, other = turned ? p->a_row : p->b_col;
  ptrdiff_t along = turned ? 1 : p->ldc, across = turned ? p->ldc : 1;
  const void *rows = turned ? p->b : p->a, *vectors = turned ? p->a : p->b;
  for (ptrdiff_t j = 0; j < (turned ? p->m : p->n); j++) {
    ptrdiff_t at = first * along + j * across;
    if (!wide) {
      float sum[4], *c = (float *)p->c + at;
      tt__dots_f32(p->k, count, (const float *)rows + first * step, step,
                   (const float *)vectors + j * other, sum);
      for (ptrdiff_t i = 0; i < count; i++)
        c[i * along] = p->accumulate ? c[i * along] + sum[i] : sum[i];
    } else {
      double sum[4], *c = (double *)p->c + at;
      tt__dots_f64(p->k, count, (const double *)rows + first * step, step,
                   (const double *)vectors + j * other, sum);
      for (ptrdiff_t i = 0; i < count; i++)
        c[i * along] = p->accumulate ? c[i * along] + sum[i] : sum[i];
    }
  }
}

// The blocked loop nest, run by every thread: loops over rows are shared, all else is done alike.
static void tt__blocked(const tt__product *p, int wide) {
  ptrdiff_t element = wide ? 8 : (ptrdiff_t)sizeof(float);
  for (ptrdiff_t j0 = 0; j0 < p->n; j0 += TT__NC)
    for (ptrdiff_t p0 = 0; p0 < p->k; p0 += TT__KC) {
      ptrdiff_t nc = tt__min(p->n - j0, TT__NC), kc = tt__min(p->k - p0, TT__KC), ldb = p->b_row;
      const void *block = (const char *)p->b + (p0 * p->b_row + j0 * p->b_col) * element;
      if (p->b_col != 1 && nc > 1) {
        TT__SHARED_LOOP
        for (ptrdiff_t q = 0; q < kc; q++) tt__pack_row(p, wide, p0, q, j0, nc);
        block = p->work;
        ldb = nc;
      }
      TT__SHARED_LOOP
      for (ptrdiff_t i = 0; i < p->m; i++) tt__row_block(p, wide, i, j0, nc, p0, kc, block, ldb);
    }
}

#ifdef TT_USE_CBLAS
static int tt__fits_int(ptrdiff_t value) { return value <= INT_MAX; }

// Hands the product to CBLAS if it is large and both operands have a unit stride. Returns whether
// it did.
static int tt__gemm_cblas(const tt__product *p, int wide) {
  ptrdiff_t lda = p->a_col == 1 ? p->a_row : p->a_col, ldb = p->b_col == 1 ? p->b_row : p->b_col;
  CBLAS_TRANSPOSE turn_a = p->a_col == 1 ? CblasNoTrans : CblasTrans,
                  turn_b = p->b_col == 1 ? CblasNoTrans : CblasTrans;
  if ((p->a_col != 1 && p->a_row != 1) || (p->b_col != 1 && p->b_row != 1)) return 0;
  if (p->m < 8 || p->n < 8 || p->k < 8 || !tt__fits_int(tt__max(tt__max(p->m, p->n), p->k)) ||
      !tt__fits_int(tt__max(tt__max(lda, ldb), p->ldc)))
    return 0;
  if (lda < (p->a_col == 1 ? p->k : p->m) || ldb < (p->b_col == 1 ? p->n : p->k)) return 0;
  if (wide)
    cblas_dgemm(CblasRowMajor, turn_a, turn_b, (int)p->m, (int)p->n, (int)p->k, 1,
                (const double *)p->a, (int)lda, (const double *)p->b, (int)ldb,
                p->accumulate ? 1 : 0, (double *)p->c, (int)p->ldc);
  else
    cblas_sgemm(CblasRowMajor, turn_a, turn_b, (int)p->m, (int)p->n, (int)p->k, 1,
                (const float *)p->a, (int)lda, (const float *)p->b, (int)ldb, p->accumulate ? 1 : 0,
                (float *)p->c, (int)p->ldc);
  return 1;
}
#endif

static void tt__gemm_at(const tt__product *given, int wide, tt__level level) {
  tt__product turned = *given, *p = &turned;
  ptrdiff_t element = wide ? 8 : (ptrdiff_t)sizeof(float);
  if (p->k == 0 && !p->accumulate)
    for (ptrdiff_t i = 0; i < p->m; i++)
      memset((char *)p->c + i * p->ldc * element, 0, (size_t)(p->n * element));
#ifdef TT_USE_CBLAS
  if (tt__gemm_cblas(p, wide)) return;
#endif
  if (level != TT__PLAIN && p->n == 1 && p->ldc == 1 && p->a_row == 1) {
    tt__product row = {1, p->m, p->k, p->b, p->a, 1, p->b_row, p->a_col, 1, p->c, p->m,
                       p->accumulate, p->work};
    turned = row;                                            // C as a row, of rows of A^T
  }
  int worth_threads = (float)p->m * (float)p->n * (float)p->k > 1e6f;
  (void)worth_threads;
  TT__PARALLEL_IF(worth_threads) {
    if (tt__wants_dots(p, level)) {
      TT__SHARED_LOOP
      for (ptrdiff_t g = 0; g < (tt__max(p->m, p->n) + 3) / 4; g++) tt__dot_group(p, wide, g);
    } else {
#ifdef TT__SIMD
      if (tt__wants_tiles(p, level)) tt__blocked_vectors(p, wide, level);
      else
#endif
        tt__blocked(p, wide);
    }
  }
}

static void tt__gemm(const tt__product *p, int wide) { tt__gemm_at(p, wide, tt__best_level()); }
#else
static void tt__gemm(const tt__product *p, int wide) {
  (void)wide;
  for (ptrdiff_t i = 0; i < p->m; i++)
    for (ptrdiff_t j = 0; j < p->n; j++) {
      const float *a = (const float *)p->a + i * p->a_row, *b = (const float *)p->b + j * p->b_col;
      float *c = (float *)p->c + i * p->ldc + j, sum = p->accumulate ? *c : 0;
      for (ptrdiff_t t = 0; t < p->k; t++) sum += a[t * p->a_col] * b[t * p->b_row];
      *c = sum;
    }
}
#endif

#ifndef TT_INFERENCE_ONLY
// Workspace for any product of doubles.
static void *tt__take_work(tt__pool *pool) {
  return tt__take_raw(pool, tt__gemm_work_size(PTRDIFF_MAX, PTRDIFF_MAX, PTRDIFF_MAX, 1));
}

// Shorthand for doubles: C (m,n) = or += op(A) op(B); `turn` says which operand is stored
// transposed.
static void tt__matmul(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const double *a, ptrdiff_t lda,
                       const double *b, ptrdiff_t ldb, double *c, ptrdiff_t ldc, int flags,
                       void *work) {
  int turn_a = flags & TT_TRANSPOSE_A, turn_b = flags & TT_TRANSPOSE_B;
  tt__product p = {m,
                   n,
                   k,
                   a,
                   b,
                   turn_a ? 1 : lda,
                   turn_a ? lda : 1,
                   turn_b ? 1 : ldb,
                   turn_b ? ldb : 1,
                   c,
                   ldc,
                   flags & TT_ACCUMULATE,
                   work};
  tt__gemm(&p, 1);
}

// do (rows-1)*ld elements have an address?
static int tt__spans(ptrdiff_t rows, ptrdiff_t ld, ptrdiff_t each) {
  return tt__multiply(&rows, ld) && tt__multiply(&rows, each);
}

static tt_status tt__public_matmul(tt__product *p, int flags, const tt_options *options, int wide) {
  ptrdiff_t element = wide ? 8 : (ptrdiff_t)sizeof(float), lda = p->a_row, ldb = p->b_row;
  int turn_a = flags & TT_TRANSPOSE_A, turn_b = flags & TT_TRANSPOSE_B;
  if (p->m < 0 || p->n < 0 || p->k < 0 || flags & ~7 || !tt__options_valid(options))
    return TT_ERROR_INVALID;
  if (lda < (turn_a ? p->m : p->k) || ldb < (turn_b ? p->k : p->n) || p->ldc < p->n)
    return TT_ERROR_INVALID;
  if (p->m == 0 || p->n == 0) return TT_OK;
  if (!p->c || (p->k > 0 && (!p->a || !p->b))) return TT_ERROR_INVALID;
  if (!tt__spans(turn_a ? p->k : p->m, lda, element) ||
      !tt__spans(turn_b ? p->n : p->k, ldb, element) || !tt__spans(p->m, p->ldc, element))
    return TT_ERROR_MEMORY;
  tt__pool pool = tt__pool_open(options ? &options->allocator : NULL);
  p->a_col = 1;
  p->b_col = 1;
  if (turn_a) { p->a_row = 1; p->a_col = lda; }
  if (turn_b) { p->b_row = 1; p->b_col = ldb; }
  p->accumulate = flags & TT_ACCUMULATE;
  p->work = tt__take_raw(&pool, tt__gemm_work_size(p->m, p->n, p->k, wide));
  if (!pool.status) tt__gemm(p, wide);
  tt__pool_close(&pool);
  return pool.status;
}

TTDEF tt_status tt_matmul(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const float *a,
                          ptrdiff_t lda, const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc,
                          int flags, const tt_options *options) {
  tt__product p = {rows, cols, depth, a, b, lda, 1, ldb, 1, c, ldc, 0, NULL};
  return tt__public_matmul(&p, flags, options, 0);
}

TTDEF tt_status tt_matmul_f64(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const double *a,
                              ptrdiff_t lda, const double *b, ptrdiff_t ldb, double *c,
                              ptrdiff_t ldc, int flags, const tt_options *options) {
  tt__product p = {rows, cols, depth, a, b, lda, 1, ldb, 1, c, ldc, 0, NULL};
  return tt__public_matmul(&p, flags, options, 1);
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// -------------------------------------------------------------------------------------------- >>qr
// Orthogonal factors by Householder reflections, always on contiguous rows of doubles.
//
// The workhorse is the LQ factorisation of the rows of A (m,n): A H_0 H_1 .. = (L 0), L (m,k) lower
// trapezoidal, k = min(m,n), so A = L Q with Q the first k rows of .. H_1 H_0 [Golub13, 5.2]. Q has
// orthonormal rows to n eps even where A is rank-deficient, so no caller needs Gram-Schmidt or a
// special case for null directions. With row pivoting (largest remaining row first) L is graded,
// which is what one-sided Jacobi wants. QR of A is LQ of A^T.

#ifdef TT__SIMD
// ---- vector kernels on rows of doubles: the second block that a reader may skip. What they do is
// said in plain C behind it.
//   NAME_dot     dot product with 256 bytes of partial sums
//   NAME_axpy2   z += a x + b y; y may be NULL
//   NAME_rotate  tt__rotate
#define TT__ROW_KERNELS(NAME, TARGET, BYTES)                                                       \
  typedef double NAME##_vector __attribute__((vector_size(BYTES), aligned(8), may_alias));         \
                                                                                                   \
  TARGET TT__FUSED static __attribute__((noinline)) double NAME##_dot(ptrdiff_t n, const double *x,\
                                                                 const double *y) {                \
    TT__FUSE                                                                                       \
    enum { LANES = BYTES / 8, COUNT = 256 / BYTES };                                               \
    const NAME##_vector zero = {0};                                                                \
    NAME##_vector sum[COUNT];                                                                      \
    double lane[LANES];                                                                            \
    ptrdiff_t i = 0;                                                                               \
    TT__UNROLL for (int v = 0; v < COUNT; v++) sum[v] = zero;                                      \
    for (; i + COUNT * LANES <= n; i += COUNT * LANES)                                             \
      TT__UNROLL for (int v = 0; v < COUNT; v++)                                                   \
        sum[v] += *(const NAME##_vector *)(x + i + v * LANES) *                                    \
                  *(const NAME##_vector *)(y + i + v * LANES);                                     \
    for (; i + LANES <= n; i += LANES)                                                             \
      sum[0] += *(const NAME##_vector *)(x + i) * *(const NAME##_vector *)(y + i);                 \
    TT__UNROLL for (int v = 0; v < COUNT / 2; v++) sum[v] += sum[v + COUNT / 2];                   \
    TT__UNROLL for (int v = 1; v < COUNT / 2; v++) sum[0] += sum[v];                               \
    memcpy(lane, &sum[0], sizeof lane);                                                            \
    for (int v = 0; i < n; i++, v++) lane[v] += x[i] * y[i];                                       \
    for (int half = LANES / 2; half > 0; half /= 2)                                                \
      for (int v = 0; v < half; v++) lane[v] += lane[v + half];                                    \
    return lane[0];                                                                                \
  }                                                                                                \
                                                                                                   \
  TARGET TT__FUSED static __attribute__((noinline)) void NAME##_axpy2(                             \
      ptrdiff_t n, double a, const double *x, double b, const double *y, double *z) {              \
    TT__FUSE                                                                                       \
    enum { LANES = BYTES / 8 };                                                                    \
    ptrdiff_t i = 0;                                                                               \
    for (; y && i + LANES <= n; i += LANES) {                                                      \
      NAME##_vector *to = (NAME##_vector *)(z + i);                                                \
      *to = *to + a * *(const NAME##_vector *)(x + i) + b * *(const NAME##_vector *)(y + i);       \
    }                                                                                              \
    for (; !y && i + LANES <= n; i += LANES) {                                                     \
      NAME##_vector *to = (NAME##_vector *)(z + i);                                                \
      *to = *to + a * *(const NAME##_vector *)(x + i);                                             \
    }                                                                                              \
    for (; i < n; i++) z[i] = y ? z[i] + a * x[i] + b * y[i] : z[i] + a * x[i];                    \
  }                                                                                                \
                                                                                                   \
  TARGET TT__FUSED static __attribute__((noinline)) void NAME##_rotate(                            \
      ptrdiff_t n, double sign, double s, double tau, double *x, double *y) {                      \
    TT__FUSE                                                                                       \
    enum { LANES = BYTES / 8 };                                                                    \
    ptrdiff_t i = 0;                                                                               \
    for (; i + LANES <= n; i += LANES) {                                                           \
      NAME##_vector u = *(NAME##_vector *)(x + i), v = *(NAME##_vector *)(y + i);                  \
      *(NAME##_vector *)(x + i) = sign * (u - s * (v + tau * u));                                  \
      *(NAME##_vector *)(y + i) = sign * (v + s * (u - tau * v));                                  \
    }                                                                                              \
    for (; i < n; i++) {                                                                           \
      double u = x[i], v = y[i];                                                                   \
      x[i] = sign * (u - s * (v + tau * u));                                                       \
      y[i] = sign * (v + s * (u - tau * v));                                                       \
    }                                                                                              \
  }

TT__ROW_KERNELS(tt__row, , 16)
#ifdef TT__DISPATCH
TT__ROW_KERNELS(tt__row_avx2, TT__TARGET_AVX2, 32)
TT__ROW_KERNELS(tt__row_avx512, TT__TARGET_AVX512, 64)
#endif

// tt__row_axpy2 and its like at the level of this processor.
#ifdef TT__DISPATCH
#define TT__BEST_ROW(kernel, arguments)                                                            \
  (tt__best_level() == TT__AVX512 ? tt__row_avx512_##kernel arguments                              \
   : tt__best_level() == TT__AVX2 ? tt__row_avx2_##kernel arguments                                \
                                  : tt__row_##kernel arguments)
#else
#define TT__BEST_ROW(kernel, arguments) tt__row_##kernel arguments
#endif
#endif // TT__SIMD

static double tt__dot(ptrdiff_t n, const double *x, const double *y) {
#ifdef TT__SIMD
  if (n >= 32) return TT__BEST_ROW(dot, (n, x, y));
#endif
  return tt__plain_dot_f64(n, x, y);
}

// y += factor * x
static void tt__axpy(ptrdiff_t n, double factor, const double *TT_RESTRICT x,
                     double *TT_RESTRICT y) {
#ifdef TT__SIMD
  TT__BEST_ROW(axpy2, (n, factor, x, 0, NULL, y));
#else
  ptrdiff_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int t = 0; t < 8; t++) y[i + t] += factor * x[i + t];
  for (; i < n; i++) y[i] += factor * x[i];
#endif
}

// z += a x + b y
static void tt__axpy2(ptrdiff_t n, double a, const double *x, double b, const double *y,
                      double *z) {
#ifdef TT__SIMD
  TT__BEST_ROW(axpy2, (n, a, x, b, y, z));
#else
  tt__axpy(n, a, x, z);
  tt__axpy(n, b, y, z);
#endif
}

static void tt__scale_row(ptrdiff_t n, double factor, double *x) {
  for (ptrdiff_t i = 0; i < n; i++) x[i] *= factor;
}

static void tt__swap_rows(ptrdiff_t n, double *TT_RESTRICT x, double *TT_RESTRICT y) {
  for (ptrdiff_t i = 0; i < n; i++) {
    double keep = x[i];
    x[i] = y[i];
    y[i] = keep;
  }
}

// (x, y) <- (c x - s y, s x + c y) in the form of [Rutishauser66], x - s (y + tau x), which is
// accurate where s is tiny. It needs c >= 0: other rotations are minus the rotation by (-c, -s).
static void tt__rotate(ptrdiff_t n, double c, double s, double *TT_RESTRICT x,
                       double *TT_RESTRICT y) {
  double sign = c < 0 ? -1 : 1, tau = sign * s / (1 + sign * c);
  s *= sign;
#ifdef TT__SIMD
  TT__BEST_ROW(rotate, (n, sign, s, tau, x, y));
#else
  ptrdiff_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int t = 0; t < 8; t++) {
      double u = x[i + t], v = y[i + t];
      x[i + t] = sign * (u - s * (v + tau * u));
      y[i + t] = sign * (v + s * (u - tau * v));
    }
  for (; i < n; i++) {
    double u = x[i], v = y[i];
    x[i] = sign * (u - s * (v + tau * u));
    y[i] = sign * (v + s * (u - tau * v));
  }
#endif
}

// Euclidean norm without overflow or harmful underflow.
static double tt__norm2(ptrdiff_t n, const double *x) {
  double square = tt__dot(n, x, x), sum = 0;
  if (square > 1e-280 && square < 1e280) return sqrt(square);
  double largest = tt__largest_magnitude(n, x);
  if (largest == 0 || !tt__is_finite(largest)) return largest;
  int exponent;
  (void)frexp(largest, &exponent);
  for (ptrdiff_t i = 0; i < n; i++) {
    double part = ldexp(x[i], -exponent);
    sum += part * part;
  }
  return ldexp(sqrt(sum), exponent);
}

// The reflection H = I - tau v v^T that maps x (n numbers) to (beta, 0, ..): v[0] = 1 is implied,
// the rest of v replaces x[1..], x[0] becomes beta. Returns tau, 0 if there is nothing to do.
static double tt__reflector(ptrdiff_t n, double *x) {
  double tail = tt__norm2(n - 1, x + 1), alpha = x[0];
  if (tail == 0) return 0;
  if (tt__hypot(alpha, tail) < 1e-290) {                     // subnormals have too few digits for H
    tt__scale_row(n, ldexp(1, 300), x);
    double tau = tt__reflector(n, x);
    x[0] = ldexp(x[0], -300);
    return tau;
  }
  double beta = alpha > 0 ? -tt__hypot(alpha, tail) : tt__hypot(alpha, tail);
  double pivot = alpha - beta;                               // same signs: no cancellation
  for (ptrdiff_t i = 1; i < n; i++) x[i] /= pivot;
  x[0] = beta;
  return -pivot / beta;
}

// Applies the reflection (tau, v with v[0] = 1 implied) to row x from the right.
static void tt__reflect(ptrdiff_t n, double tau, const double *v, double *x) {
  double projection = tau * (x[0] + tt__dot(n - 1, v + 1, x + 1));
  x[0] -= projection;
  tt__axpy(n - 1, -projection, v + 1, x + 1);
}

// Swaps the longest of rows first..m-1, measured from column `first`, to place `first`.
static void tt__pivot_row(ptrdiff_t m, ptrdiff_t n, double *a, ptrdiff_t lda, ptrdiff_t first,
                          ptrdiff_t *order) {
  ptrdiff_t best = first;
  double longest = -1;
  for (ptrdiff_t i = first; i < m; i++) {
    const double *row = a + i * lda + first;
    double square = tt__dot(n - first, row, row);
    if (square > longest) { longest = square; best = i; }
  }
  if (best == first) return;
  tt__swap_rows(n, a + first * lda, a + best * lda);
  ptrdiff_t keep = order[first];
  order[first] = order[best];
  order[best] = keep;
}

// Reflections together: H_0 H_1 .. = I - V^T T V with the vectors as rows of V (count, n) and T
// upper triangular, so that rows are reflected by matrix products [Golub13, 5.1].
enum { TT__REFLECTORS = 16, TT__REFLECTED = 64 };
typedef struct tt__block_reflector {
  ptrdiff_t count, n;
  double *v, *t, *part, *other;                              // t is -T
  void *work;
} tt__block_reflector;

// Memory for reflections of m rows of n numbers. Returns 0 where one by one is as good.
static int tt__reflectors_open(tt__pool *pool, ptrdiff_t m, ptrdiff_t n, tt__block_reflector *h) {
  memset(h, 0, sizeof *h);
  if (tt__best_level() == TT__PLAIN || m < 2 * TT__REFLECTORS || n < 4 * TT__REFLECTORS) return 0;
  h->v = tt__take_f64(pool, TT__REFLECTORS, n);
  h->t = tt__take_f64(pool, TT__REFLECTORS, TT__REFLECTORS);
  h->part = tt__take_f64(pool, TT__REFLECTED, TT__REFLECTORS);
  h->other = tt__take_f64(pool, TT__REFLECTED, TT__REFLECTORS);
  h->work = tt__take_work(pool);
  return !pool->status;
}

// Collects the reflectors that tt__lq left in `count` rows of n numbers.
static void tt__reflectors_gather(tt__block_reflector *h, ptrdiff_t count, ptrdiff_t n,
                                  const double *a, ptrdiff_t lda, const double *tau) {
  double *t = h->t, *gram = h->part;
  h->count = count;
  h->n = n;
  for (ptrdiff_t i = 0; i < count; i++) {
    double *v = h->v + i * n;
    memset(v, 0, (size_t)i * sizeof(double));
    memcpy(v + i, a + i * lda + i, (size_t)(n - i) * sizeof(double));
    v[i] = 1;
  }
  tt__matmul(count, count, n, h->v, n, h->v, n, gram, count, TT_TRANSPOSE_B, h->work);
  for (ptrdiff_t j = 0; j < count; j++)
    for (ptrdiff_t i = 0; i < count; i++) {
      double sum = 0;
      for (ptrdiff_t p = i; p < j && i < j; p++) sum += t[i * count + p] * gram[p * count + j];
      t[i * count + j] = i < j ? -tau[j] * sum : i == j ? -tau[j] : 0;
    }
}

// Applies H_0 H_1 .. (`back`: .. H_1 H_0) to m rows of x from the right.
static void tt__reflectors_apply(const tt__block_reflector *h, ptrdiff_t m, double *x,
                                 ptrdiff_t ldx, int back) {
  ptrdiff_t b = h->count, n = h->n;
  for (ptrdiff_t i = 0; i < m; i += TT__REFLECTED, x += TT__REFLECTED * ldx) {
    ptrdiff_t rows = tt__min(m - i, TT__REFLECTED);
    tt__matmul(rows, b, n, x, ldx, h->v, n, h->part, b, TT_TRANSPOSE_B, h->work);
    tt__matmul(rows, b, b, h->part, b, h->t, b, h->other, b, back ? TT_TRANSPOSE_B : 0, h->work);
    tt__matmul(rows, n, b, h->other, b, h->v, n, x, ldx, TT_ACCUMULATE, h->work);
  }
}

// LQ factorisation in place: L in the lower trapezoid, reflectors behind the diagonal, tau
// (min(m,n)). order (m) or NULL: pivot rows; row i of the factored matrix is row order[i] of A.
static void tt__lq(tt__pool *pool, ptrdiff_t m, ptrdiff_t n, double *a, ptrdiff_t lda, double *tau,
                   ptrdiff_t *order) {
  void *mark = pool->blocks;
  tt__block_reflector h;
  int blocked = !order && tt__reflectors_open(pool, m, n, &h);
  ptrdiff_t k = tt__min(m, n), step = blocked ? (ptrdiff_t)TT__REFLECTORS : k;
  for (ptrdiff_t i = 0; order && i < m; i++) order[i] = i;
  for (ptrdiff_t first = 0; first < k; first += step) {
    ptrdiff_t end = tt__min(first + step, k), last = blocked ? end : m;
    for (ptrdiff_t i = first; i < end; i++) {
      double *row = a + i * lda + i;
      if (order) tt__pivot_row(m, n, a, lda, i, order);
      tau[i] = tt__reflector(n - i, row);
      if (tau[i] == 0) continue;
      TT__PARALLEL_IF((last - i) * (n - i) > 65536) {
        TT__SHARED_LOOP
        for (ptrdiff_t j = i + 1; j < last; j++)
          tt__reflect(n - i, tau[i], row, a + j * lda + i);
      }
    }
    if (last == m) continue;
    tt__reflectors_gather(&h, end - first, n - first, a + first * lda + first, lda, tau + first);
    tt__reflectors_apply(&h, m - end, a + end * lda + first, lda, 0);
  }
  tt__pool_rewind(pool, mark);
}

// The k orthonormal rows of Q (k,n), k <= n, in place of the reflectors tt__lq left in rows 0..k-1.
static void tt__lq_form(tt__pool *pool, ptrdiff_t k, ptrdiff_t n, double *a, ptrdiff_t lda,
                        const double *tau) {
  void *mark = pool->blocks;
  tt__block_reflector h;
  ptrdiff_t step = tt__reflectors_open(pool, k, n, &h) ? (ptrdiff_t)TT__REFLECTORS : tt__max(k, 1);
  for (ptrdiff_t first = (k - 1) / step * step; first >= 0; first -= step) {
    ptrdiff_t end = tt__min(first + step, k);
    for (ptrdiff_t j = end; j < k; j++)                      // these rows are zero up to column end
      memset(a + j * lda + first, 0, (size_t)(end - first) * sizeof(double));
    if (end < k) {
      tt__reflectors_gather(&h, end - first, n - first, a + first * lda + first, lda, tau + first);
      tt__reflectors_apply(&h, k - end, a + end * lda + first, lda, 1);
    }
    for (ptrdiff_t i = end - 1; i >= first; i--) {
      double *row = a + i * lda;
      for (ptrdiff_t j = i + 1; j < end; j++) {              // these rows are zero up to column i
        a[j * lda + i] = 0;
        if (tau[i] != 0) tt__reflect(n - i, tau[i], row + i, a + j * lda + i);
      }
      for (ptrdiff_t j = 0; j < i; j++) row[j] = 0;
      tt__scale_row(n - i - 1, -tau[i], row + i + 1);
      row[i] = 1 - tau[i];
    }
  }
  tt__pool_rewind(pool, mark);
}

// LQ with both factors: on entry A (m,n); on exit its first k = min(m,n) rows are Q and l (m,k) is
// L with a diagonal >= 0. tau: k numbers of workspace.
static void tt__lq_factors(tt__pool *pool, ptrdiff_t m, ptrdiff_t n, double *a, ptrdiff_t lda,
                           double *l, double *tau) {
  ptrdiff_t k = tt__min(m, n);
  tt__lq(pool, m, n, a, lda, tau, NULL);
  for (ptrdiff_t i = 0; i < m; i++)
    for (ptrdiff_t j = 0; j < k; j++) l[i * k + j] = j <= i ? a[i * lda + j] : 0;
  tt__lq_form(pool, k, n, a, lda, tau);
  for (ptrdiff_t j = 0; j < k; j++) {
    if (l[j * k + j] >= 0) continue;
    for (ptrdiff_t i = j; i < m; i++) l[i * k + j] = -l[i * k + j];
    tt__scale_row(n, -1, a + j * lda);
  }
}

// Brings the LQ factor up to date when columns are appended: (L X) = (L' 0) Q' for L (m,m) lower
// triangular, X (m,n), destroyed. Each reflector meets one column of L and all of X. Sources of
// long matrices are read slab by slab this way ("Q-less TSQR").
static void tt__lq_append(ptrdiff_t m, double *l, ptrdiff_t n, double *x) {
  for (ptrdiff_t i = 0; i < m; i++) {
    double *v = x + i * n, *diagonal = l + i * m + i, tail = tt__norm2(n, v);
    if (tail == 0) continue;
    double up = tt__hypot(*diagonal, tail) < 1e-290 ? ldexp(1, 300) : 1, alpha = *diagonal * up;
    if (up > 1) {                                            // subnormals have too few digits for H
      tt__scale_row(n, up, v);
      tail = tt__norm2(n, v);
    }
    double beta = alpha > 0 ? -tt__hypot(alpha, tail) : tt__hypot(alpha, tail);
    double pivot = alpha - beta, tau = -pivot / beta;
    for (ptrdiff_t j = 0; j < n; j++) v[j] /= pivot;
    *diagonal = beta / up;
    for (ptrdiff_t j = i + 1; j < m; j++) {
      double projection = tau * (l[j * m + i] + tt__dot(n, v, x + j * n));
      l[j * m + i] -= projection;
      tt__axpy(n, -projection, v, x + j * n);
    }
  }
}

// Reads element (i,j) of a float or double array.
static double tt__element(const void *a, int wide, ptrdiff_t index) {
  return wide ? ((const double *)a)[index] : (double)((const float *)a)[index];
}

static void tt__put_element(void *a, int wide, ptrdiff_t index, double value) {
  if (wide) ((double *)a)[index] = value;
  else ((float *)a)[index] = (float)value;
}

// Sum of squares of floats, and their largest magnitude. No such sum overflows, so one that is not
// finite says that a number is not.
static double tt__float_squares(ptrdiff_t n, const float *x, double *largest) {
  double sum[8] = {0};
  float top[8] = {0};
  ptrdiff_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int t = 0; t < 8; t++) {
      double value = (double)x[i + t];
      float size = x[i + t] < 0 ? -x[i + t] : x[i + t];
      sum[t] += value * value;
      top[t] = size > top[t] ? size : top[t];
    }
  for (int t = 0; i < n; i++, t++) {
    float size = x[i] < 0 ? -x[i] : x[i];
    sum[t] += (double)x[i] * (double)x[i];
    top[t] = size > top[t] ? size : top[t];
  }
  *largest = 0;
  for (int t = 0; t < 8; t++)
    if ((double)top[t] > *largest) *largest = (double)top[t];
  return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

// Checks a public matrix argument: sizes, leading dimension, finite entries.
static tt_status tt__check_matrix(ptrdiff_t rows, ptrdiff_t cols, const void *a, ptrdiff_t lda,
                                  int wide, const tt_options *options) {
  if (rows < 0 || cols < 0 || lda < cols || !tt__options_valid(options)) return TT_ERROR_INVALID;
  if (rows == 0 || cols == 0) return TT_OK;
  if (!a) return TT_ERROR_INVALID;
  if (!tt__spans(rows, lda, 8)) return TT_ERROR_MEMORY;
  for (ptrdiff_t i = 0; i < rows; i++) {
    double largest;
    if (!wide && tt__is_finite(tt__float_squares(cols, (const float *)a + i * lda, &largest)))
      continue;
    for (ptrdiff_t j = 0; j < cols; j++)
      if (!tt__is_finite(tt__element(a, wide, i * lda + j))) return TT_ERROR_NONFINITE;
  }
  return TT_OK;
}

static tt_status tt__public_qr(ptrdiff_t rows, ptrdiff_t cols, const void *a, ptrdiff_t lda,
                               void *q, ptrdiff_t ldq, void *r, ptrdiff_t ldr,
                               const tt_options *options, int wide) {
  ptrdiff_t k = tt__min(rows, cols);
  tt_status status = tt__check_matrix(rows, cols, a, lda, wide, options);
  if (!status && ((q && ldq < k) || (r && ldr < cols))) status = TT_ERROR_INVALID;
  if (status || k == 0) return status;
  tt__pool pool = tt__pool_open(options ? &options->allocator : NULL);
  double *turned = tt__take_f64(&pool, cols, rows), *l = tt__take_f64(&pool, cols, k),
         *tau = tt__take_f64(&pool, k, 1);
  if (!pool.status) {
    // scaled to about 1: no overflow at 1e308
    double largest = 0;
    int exponent = 0;
    for (ptrdiff_t i = 0; i < rows; i++)
      for (ptrdiff_t j = 0; j < cols; j++) turned[j * rows + i] = tt__element(a, wide, i * lda + j);
    largest = tt__largest_magnitude(rows * cols, turned);
    if (largest > 0) (void)frexp(largest, &exponent);
    for (ptrdiff_t i = 0; i < rows * cols; i++) turned[i] = ldexp(turned[i], -exponent);
    tt__lq_factors(&pool, cols, rows, turned, rows, l, tau);
    for (ptrdiff_t i = 0; q && i < rows && !pool.status; i++)
      for (ptrdiff_t j = 0; j < k; j++) tt__put_element(q, wide, i * ldq + j, turned[j * rows + i]);
    for (ptrdiff_t i = 0; r && i < k && !pool.status; i++)
      for (ptrdiff_t j = 0; j < cols; j++)
        tt__put_element(r, wide, i * ldr + j, ldexp(l[j * k + i], exponent));
  }
  tt__pool_close(&pool);
  return pool.status;
}

TTDEF tt_status tt_qr(ptrdiff_t rows, ptrdiff_t cols, const float *a, ptrdiff_t lda, float *q,
                      ptrdiff_t ldq, float *r, ptrdiff_t ldr, const tt_options *options) {
  return tt__public_qr(rows, cols, a, lda, q, ldq, r, ldr, options, 0);
}

TTDEF tt_status tt_qr_f64(ptrdiff_t rows, ptrdiff_t cols, const double *a, ptrdiff_t lda, double *q,
                          ptrdiff_t ldq, double *r, ptrdiff_t ldr, const tt_options *options) {
  return tt__public_qr(rows, cols, a, lda, q, ldq, r, ldr, options, 1);
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// ----------------------------------------------------------------------------------------- >>eigen
// Symmetric eigenvalue problem: Householder tridiagonalisation by panels [Golub13, 8.3], divide and
// conquer [Cuppen81] with the vectors of [Gu95], QL for the small pieces at the bottom.
//
// Vectors are rows throughout, so that inner loops run along contiguous memory. A panel of the
// matrix is reduced while the rest of it stays as it was and is read once per column; then a matrix
// product brings it up to date. Nearly all work of divide and conquer is matrix products too, and
// where only the leading vectors are wanted its last and largest step computes no others. Absolute
// accuracy n eps |lambda_max|. A piece whose QL needs more than `limit` sweeps for an eigenvalue
// ends it all: the caller gets TT_ERROR_CONVERGENCE, never an endless loop.

enum { TT__QL_SWEEPS = 60 };

// Q (n,n) as rows, for reflectors that sit in rows 0..n-2 of a and act behind the diagonal: the
// product leaves coordinate 0 alone. tt__lq_form makes the rest; it then moves down by one row.
static void tt__form_behind_diagonal(tt__pool *pool, ptrdiff_t n, double *a, const double *tau) {
  tt__lq_form(pool, n - 1, n - 1, a + 1, n, tau);
  for (ptrdiff_t i = n - 1; i > 0; i--) {
    memmove(a + i * n + 1, a + (i - 1) * n + 1, (size_t)(n - 1) * sizeof(double));
    a[i * n] = 0;
  }
  a[0] = 1;
  for (ptrdiff_t j = 1; j < n; j++) a[j] = 0;
}

// Rows of z (m,n) times the same reflections, Z .. H_1 H_0, without forming their product.
static void tt__reflect_behind_diagonal(tt__pool *pool, ptrdiff_t n, const double *a,
                                        const double *tau, ptrdiff_t m, double *z) {
  void *mark = pool->blocks;
  tt__block_reflector h;
  ptrdiff_t count = n - 1;
  ptrdiff_t step = tt__reflectors_open(pool, m, count, &h) ? (ptrdiff_t)TT__REFLECTORS : 1;
  for (ptrdiff_t i = (count - 1) / step * step; i >= 0 && !pool->status; i -= step) {
    const double *v = a + i * n + i + 1;
    if (step > 1) {
      tt__reflectors_gather(&h, tt__min(step, count - i), count - i, v, n, tau + i);
      tt__reflectors_apply(&h, m, z + i + 1, n, 1);
    }
    for (ptrdiff_t j = 0; j < m && step == 1 && tau[i] != 0; j++)
      tt__reflect(count - i, tau[i], v, z + j * n + i + 1);
  }
  tt__pool_rewind(pool, mark);
}

// Columns that are reduced before the rest is brought up to date; sums that share a product with a
// symmetric matrix, whatever the number of threads.
enum { TT__PANEL = 32, TT__PARTS = 4 };

// p = A v for symmetric A (n,n), of which the lower triangle is read, once. part: TT__PARTS * n.
static void tt__symmetric_times(ptrdiff_t n, const double *a, ptrdiff_t lda, const double *v,
                                double *p, double *part) {
  TT__PARALLEL_IF(n > 256) {
    TT__SHARED_LOOP
    for (ptrdiff_t t = 0; t < TT__PARTS; t++) {
      double *sum = part + t * n;
      for (ptrdiff_t i = 0; i < n; i++) sum[i] = 0;
      for (ptrdiff_t i = t; i < n; i += TT__PARTS) {
        const double *row = a + i * lda;
        sum[i] += tt__dot(i, row, v) + row[i] * v[i];
        tt__axpy(i, v[i], row, sum);
      }
    }
  }
  for (ptrdiff_t i = 0; i < n; i++)
    p[i] = part[i] + part[n + i] + part[2 * n + i] + part[3 * n + i];
}

// Column k of the matrix, v (rest = n-k-1 numbers behind entry k), becomes a reflector; w is made
// such that the update of the matrix is A - v w^T - w v^T. Earlier columns of the panel, `count` of
// them, are rows of x (reflectors) and of y (their w).
static double tt__panel_column(ptrdiff_t n, ptrdiff_t k, ptrdiff_t count, const double *a,
                               double *x, double *y, double *part, double *e) {
  ptrdiff_t rest = n - k - 1;
  double *v = x + count * n + k, *w = y + count * n + k + 1;
  for (ptrdiff_t s = 0; s < count; s++)
    tt__axpy2(rest + 1, -y[s * n + k], x + s * n + k, -x[s * n + k], y + s * n + k, v);
  double tau = tt__reflector(rest, ++v);
  *e = v[0];
  v[0] = 1;                                                  // now v is explicit
  tt__symmetric_times(rest, a + (k + 1) * n + k + 1, n, v, w, part);
  for (ptrdiff_t s = 0; s < count; s++) {
    const double *v_s = x + s * n + k + 1, *w_s = y + s * n + k + 1;
    tt__axpy2(rest, -tt__dot(rest, w_s, v), v_s, -tt__dot(rest, v_s, v), w_s, w);
  }
  tt__scale_row(rest, tau, w);
  tt__axpy(rest, -tau / 2 * tt__dot(rest, w, v), v, w);      // w = p - (tau/2)(p.v) v
  return tau;
}

static ptrdiff_t tt__tridiagonal_work(ptrdiff_t n) { return (2 * TT__PANEL + TT__PARTS) * n; }

// A = Q^T T Q with T tridiagonal (diagonal d, neighbours e[0..n-2]). Reads the lower triangle of A;
// the reflectors of Q, with tau, go behind the diagonal.
static void tt__tridiagonal(ptrdiff_t n, double *a, double *d, double *e, double *tau,
                            double *work, void *gemm) {
  double *x = work, *y = x + TT__PANEL * n, *part = y + TT__PANEL * n;
  for (ptrdiff_t first = 0; first + 1 < n; first += TT__PANEL) {
    ptrdiff_t count = tt__min(TT__PANEL, n - 1 - first), end = first + count;
    for (ptrdiff_t i = first; i < n; i++)
      for (ptrdiff_t t = 0; t < count; t++) x[t * n + i] = a[i * n + first + t];
    for (ptrdiff_t t = 0; t < count; t++) {
      ptrdiff_t k = first + t;
      tau[k] = tt__panel_column(n, k, t, a, x, y, part, e + k);
      d[k] = x[t * n + k];
      memcpy(a + k * n + k + 1, x + t * n + k + 1, (size_t)(n - k - 1) * sizeof(double));
    }
    for (ptrdiff_t i = 0; i < count; i++) tt__scale_row(n - end, -1, x + i * n + end);
    for (ptrdiff_t i = end; i < n; i += 64) {                // A -= V W^T + W V^T, V negated above
      ptrdiff_t high = tt__min(64, n - i);
      int flags = TT_TRANSPOSE_A | TT_ACCUMULATE;
      double *rows = a + i * n + end;
      tt__matmul(high, i + high - end, count, x + i, n, y + end, n, rows, n, flags, gemm);
      tt__matmul(high, i + high - end, count, y + i, n, x + end, n, rows, n, flags, gemm);
    }
  }
  d[n - 1] = a[n * n - 1];
}

// One QL sweep with Wilkinson's shift on the block low..high; rotates rows of z (n, ld) along.
static void tt__ql_sweep(ptrdiff_t low, ptrdiff_t high, double *d, double *e, ptrdiff_t n,
                         double *z, ptrdiff_t ld) {
  double g = (d[low + 1] - d[low]) / (2 * e[low]), s = 1, c = 1, p = 0;
  ptrdiff_t i = high - 1;
  g = d[high] - d[low] + e[low] / (g + copysign(tt__hypot(g, 1.0), g));
  for (; i >= low; i--) {
    double f = s * e[i], b = c * e[i], r = tt__hypot(f, g);
    e[i + 1] = r;
    if (r == 0) break;                                       // the block splits here
    s = f / r;
    c = g / r;
    g = d[i + 1] - p;
    r = (d[i] - g) * s + 2 * c * b;
    p = s * r;
    d[i + 1] = g + p;
    g = c * r - b;
    tt__rotate(n, c, s, z + i * ld, z + (i + 1) * ld);
  }
  d[i + 1] -= p;
  if (i < low) e[low] = g;
  e[high] = 0;
}

// QL iteration on a small piece, z (n, ld) zero on entry; d becomes the eigenvalues, in no order. e
// has n entries, the last of them spare.
static tt_status tt__ql(ptrdiff_t n, double *d, double *e, double *z, ptrdiff_t ld, int limit) {
  for (ptrdiff_t i = 0; i < n; i++) z[i * ld + i] = 1;
  for (ptrdiff_t low = 0; low < n; low++) {
    for (int sweep = 0;; sweep++) {
      ptrdiff_t high = low;
      while (high + 1 < n && fabs(e[high]) > DBL_EPSILON * (fabs(d[high]) + fabs(d[high + 1])))
        high++;
      if (high == low) break;
      if (sweep == limit) return TT_ERROR_CONVERGENCE;
      tt__ql_sweep(low, high, d, e, n, z, ld);
    }
  }
  return TT_OK;
}

// ---- divide and conquer
//
// T without the coupling of its two halves is diagonal in the basis of their eigenvectors, and the
// coupling adds a rank-one matrix there: D + u u^T, whose eigenvalues are the roots of
//   f(x) = 1 + sum_i w_i / (poles_i - x),   w_i = u_i^2,
// one between every two neighbouring poles and one above the last. Entries of u that are next to
// zero, and one of every two poles that lie close together, drop out first ("deflation").

// sum of w_i / (gap_i - x), and of w_i / (gap_i - x)^2.
static double tt__secular_sum(ptrdiff_t n, const double *w, const double *gap, double x,
                              double *slope) {
  double sum = 0, steep = 0;
  for (ptrdiff_t i = 0; i < n; i++) {
    double inverse = 1 / (gap[i] - x), term = w[i] * inverse;
    sum += term;
    steep += term * inverse;
  }
  *slope = steep;
  return sum;
}

// Root j of f, k poles ascending. The pole next to it is the origin, so that gap_i = poles_i - root
// has a small relative error, on which the orthogonality of the vectors rests. Iteration: both
// halves of the sum are replaced by one pole each that agree in value and slope, bisection where
// that leaves the bracket.
static double tt__secular_root(ptrdiff_t k, ptrdiff_t j, const double *poles, const double *w,
                               double *gap) {
  int last = j == k - 1;
  ptrdiff_t origin = j, split = last ? j : j + 1;
  double low = 0, high = 0, x;
  if (last)
    for (ptrdiff_t i = 0; i < k; i++) high += w[i];
  else high = (poles[j + 1] - poles[j]) / 2;
  x = last ? high / 2 : high;
  for (ptrdiff_t i = 0; i < k; i++) gap[i] = poles[i] - poles[j];
  for (int step = 0; k > 1 && step < 200; step++) {
    double slope[2], sum[2];
    sum[0] = tt__secular_sum(split, w, gap, x, &slope[0]);
    sum[1] = tt__secular_sum(k - split, w + split, gap + split, x, &slope[1]);
    double f = 1 + sum[0] + sum[1], size = 1 + fabs(sum[0]) + fabs(sum[1]);
    if (!last && step == 0 && f < 0) {                       // nearer to the pole above
      double shift = gap[j + 1];
      for (ptrdiff_t i = 0; i < k; i++) gap[i] = poles[i] - poles[j + 1];
      origin = j + 1;
      low = x - shift;
      high = 0;
      x = low;
    } else if (f < 0) {
      low = x;
    } else {
      high = x;
    }
    if (fabs(f) <= DBL_EPSILON * (4 * size + fabs(x) * (slope[0] + slope[1]))) break;
    double a = gap[split - 1] - x, b = gap[split] - x, sign = last ? 1 : -1;
    double c = 1 + sum[0] - slope[0] * a + sum[1] - slope[1] * b;
    double middle = c * (a + b) + slope[0] * a * a + slope[1] * b * b, end = a * b * f;
    double root = sign * sqrt(fabs(middle * middle - 4 * c * end));
    int direct = sign * middle >= 0;                         // no cancellation in the quadratic
    double above = direct ? middle + root : 2 * end, below = direct ? 2 * c : middle - root;
    double next = below != 0 ? x + above / below : x;
    if (!(next > low && next < high)) next = low + (high - low) / 2;
    if (next == x || next <= low || next >= high) break;
    x = next;
  }
  if (k == 1) x = high;
  for (ptrdiff_t i = 0; i < k; i++) gap[i] -= x;
  return poles[origin] + x;
}

enum { TT__LEAF = 32, TT__STRIPE = 256 };

// Workspace of one conquest and of all smaller ones: n numbers per array, but for the last three.
typedef struct tt__conquest {
  ptrdiff_t *order, *kept, *place, *kind;
  double *u, *poles, *w, *roots;
  double *v;                                                 // (n, n)
  double *old, *made;                                        // (n, TT__STRIPE)
  void *gemm;
} tt__conquest;

static void tt__conquest_open(tt__pool *pool, ptrdiff_t n, tt__conquest *t) {
  t->order = (ptrdiff_t *)tt__take(pool, n, (ptrdiff_t)sizeof(ptrdiff_t));
  t->kept = (ptrdiff_t *)tt__take(pool, n, (ptrdiff_t)sizeof(ptrdiff_t));
  t->place = (ptrdiff_t *)tt__take(pool, n, (ptrdiff_t)sizeof(ptrdiff_t));
  t->kind = (ptrdiff_t *)tt__take(pool, n, (ptrdiff_t)sizeof(ptrdiff_t));
  t->u = tt__take_f64(pool, n, 1);
  t->poles = tt__take_f64(pool, n, 1);
  t->w = tt__take_f64(pool, n, 1);
  t->roots = tt__take_f64(pool, n, 1);
  t->v = tt__take_f64(pool, n, n);
  t->old = tt__take_f64(pool, n, TT__STRIPE);
  t->made = tt__take_f64(pool, n, TT__STRIPE);
  t->gemm = tt__take_work(pool);
}

// order[i] = index of the i-th smallest value; nearly linear for two sorted halves of like size.
static void tt__sort_ascending(ptrdiff_t n, const double *values, ptrdiff_t *order) {
  for (ptrdiff_t i = 0; i < n; i++) {
    ptrdiff_t at = i;
    for (; at > 0 && values[order[at - 1]] > values[i]; at--) order[at] = order[at - 1];
    order[at] = i;
  }
}

// Deflation: fills t->kept with the rows that remain, by ascending d, t->kind with the halves that
// a row reaches into (1 left, 2 right, 3 both). Returns their number.
static ptrdiff_t tt__deflate(tt__conquest *t, ptrdiff_t n, double rho, double *d, double *z,
                             ptrdiff_t ld) {
  double limit = tt__largest_magnitude(n, d), *u = t->u;
  ptrdiff_t k = 0;
  limit = 8 * DBL_EPSILON * (limit > rho ? limit : rho) + 1e-290;
  for (ptrdiff_t at = 0; at < n; at++) {
    ptrdiff_t i = t->order[at], p = k > 0 ? t->kept[k - 1] : 0;
    if (rho * fabs(u[i]) <= limit) continue;
    if (k > 0) {
      double r = tt__hypot(u[p], u[i]), c = u[i] / r, s = u[p] / r, low = d[p], high = d[i];
      if (fabs((high - low) * c * s) <= limit) {             // a rotation clears u[p]
        u[i] = r;
        tt__rotate(n, c, s, z + p * ld, z + i * ld);
        d[p] = low * c * c + high * s * s;
        d[i] = low * s * s + high * c * c;
        t->kind[i] |= t->kind[p];
        t->kept[--k] = i;
      }
    }
    t->kept[k++] = i;
  }
  return k;
}

// t->v (k,k) = gaps of all roots, then coordinates of the new vectors, rows from..k-1 of them.
static void tt__rank_one_vectors(tt__conquest *t, ptrdiff_t k, ptrdiff_t from) {
  double *v = t->v, *poles = t->poles, *w = t->w;
  TT__PARALLEL_IF(k > 128) {
    TT__SHARED_LOOP
    for (ptrdiff_t j = 0; j < k; j++) t->roots[j] = tt__secular_root(k, j, poles, w, v + j * k);
  }
  for (ptrdiff_t i = 0; i < k; i++) w[i] = 1;                // u^ of which the roots are exact
  for (ptrdiff_t j = 0; j < k; j++) {
    for (ptrdiff_t i = 0; i < j; i++) w[i] *= v[j * k + i] / (poles[i] - poles[j]);
    w[j] *= v[j * k + j];
    for (ptrdiff_t i = j + 1; i < k; i++) w[i] *= v[j * k + i] / (poles[i] - poles[j]);
  }
  for (ptrdiff_t i = 0; i < k; i++) w[i] = copysign(sqrt(fabs(w[i])), t->u[t->kept[i]]);
  for (ptrdiff_t j = from; j < k; j++) {
    double *row = v + j * k, *turned = t->made;
    for (ptrdiff_t i = 0; i < k; i++) turned[t->place[i]] = w[i] / row[i];
    double norm = tt__norm2(k, turned);
    for (ptrdiff_t i = 0; i < k; i++) row[i] = turned[i] / norm;
  }
}

// Joins the eigenvectors of two halves, the first of size `half`, that `coupling` connects. z is
// (n, ld); only the `wanted` rows of largest values need be right.
static void tt__conquer(tt__conquest *t, ptrdiff_t n, ptrdiff_t half, double coupling, double *d,
                        double *z, ptrdiff_t ld, ptrdiff_t wanted) {
  double rho = 2 * fabs(coupling);
  for (ptrdiff_t i = 0; i < n; i++) {
    double part = i < half ? z[i * ld + half - 1] : z[i * ld + half];
    t->u[i] = (i >= half && coupling < 0 ? -part : part) * sqrt(0.5);
    t->kind[i] = i < half ? 1 : 2;
  }
  tt__sort_ascending(n, d, t->order);
  ptrdiff_t k = tt__deflate(t, n, rho, d, z, ld), from = tt__max(0, k - wanted);
  ptrdiff_t first[4] = {0, 0, 0, 0};                         // where left, mixed, right rows begin
  static const int rank_of[4] = {0, 0, 2, 1};
  for (ptrdiff_t i = 0; i < k; i++) first[rank_of[t->kind[t->kept[i]]] + 1]++;
  first[2] += first[1];
  first[3] += first[2];
  ptrdiff_t right = first[1], mixed_end = first[2];
  for (ptrdiff_t i = 0; i < k; i++) {
    ptrdiff_t row = t->kept[i];
    t->place[i] = first[rank_of[t->kind[row]]]++;
    t->poles[i] = d[row];
    t->w[i] = rho * t->u[row] * t->u[row];
  }
  tt__rank_one_vectors(t, k, from);
  for (ptrdiff_t j = 0, width; j < n; j += width) {
    int is_left = j < half;
    width = tt__min(TT__STRIPE, (is_left ? half : n) - j);
    ptrdiff_t low = is_left ? 0 : right, count = (is_left ? mixed_end : k) - low;
    for (ptrdiff_t i = 0; i < k; i++) {
      ptrdiff_t at = t->place[i] - low;
      if (at < 0 || at >= count) continue;
      memcpy(t->old + at * width, z + t->kept[i] * ld + j, (size_t)width * sizeof(double));
    }
    tt__matmul(k - from, width, count, t->v + from * k + low, k, t->old, width, t->made, width, 0,
               t->gemm);
    for (ptrdiff_t i = from; i < k; i++)
      memcpy(z + t->kept[i] * ld + j, t->made + (i - from) * width, (size_t)width * sizeof(double));
  }
  for (ptrdiff_t i = 0; i < k; i++) d[t->kept[i]] = t->roots[i];
}

// Eigenvalues d, in no order, and vectors as rows of z (n, ld), zero on entry, of the tridiagonal
// matrix (d, e); of the vectors the `wanted` ones of largest values at least.
static tt_status tt__divide(tt__conquest *t, ptrdiff_t n, double *d, double *e, double *z,
                            ptrdiff_t ld, ptrdiff_t wanted, int limit) {
  if (n <= TT__LEAF) return tt__ql(n, d, e, z, ld, limit);
  ptrdiff_t half = n / 2;
  double coupling = e[half - 1];
  d[half - 1] -= fabs(coupling);
  d[half] -= fabs(coupling);
  tt_status status = tt__divide(t, half, d, e, z, ld, half, limit);
  if (!status)
    status = tt__divide(t, n - half, d + half, e + half, z + half * ld + half, ld, n - half, limit);
  if (!status) tt__conquer(t, n, half, coupling, d, z, ld, wanted);
  return status;
}

// Eigenvalues, descending, of symmetric a (n,n), of which the lower triangle is read; its first
// `count` rows become the eigenvectors of the largest.
static tt_status tt__eigen(tt__pool *pool, ptrdiff_t n, double *a, double *values, ptrdiff_t count,
                           int limit) {
  void *mark = pool->blocks;
  tt__conquest t;
  tt__conquest_open(pool, n, &t);
  double *e = tt__take_f64(pool, n, 1), *tau = tt__take_f64(pool, n, 1),
         *d = tt__take_f64(pool, n, 1), *z = tt__take_f64(pool, n, n);
  double *work = tt__take_f64(pool, 1, tt__tridiagonal_work(n));
  tt_status status = pool->status;
  if (!status && n > 0) {
    tt__tridiagonal(n, a, d, e, tau, work, t.gemm);
    status = tt__divide(&t, n, d, e, z, n, count, limit);
    tt__sort_ascending(n, d, t.order);
    for (ptrdiff_t i = 0; i < n; i++) values[i] = d[t.order[n - 1 - i]];
    for (ptrdiff_t i = 0; i < count; i++)
      memcpy(t.v + i * n, z + t.order[n - 1 - i] * n, (size_t)n * sizeof(double));
    tt__reflect_behind_diagonal(pool, n, a, tau, count, t.v);
    memcpy(a, t.v, (size_t)(count * n) * sizeof(double));
  }
  if (!status) status = pool->status;
  tt__pool_rewind(pool, mark);
  return status;
}

// Sorts values descending, with the rows (n each) of one or two arrays; either may be NULL.
static void tt__sort_rows(ptrdiff_t count, double *values, ptrdiff_t n_x, double *x, ptrdiff_t n_y,
                          double *y) {
  for (ptrdiff_t i = 0; i + 1 < count; i++) {
    ptrdiff_t best = i;
    for (ptrdiff_t j = i + 1; j < count; j++) if (values[j] > values[best]) best = j;
    if (best == i) continue;
    double keep = values[i];
    values[i] = values[best];
    values[best] = keep;
    if (x) tt__swap_rows(n_x, x + i * n_x, x + best * n_x);
    if (y) tt__swap_rows(n_y, y + i * n_y, y + best * n_y);
  }
}

// Makes the largest entry of x positive and turns y along with it; y may be NULL. Ties go to the
// first.
static void tt__fix_sign(ptrdiff_t n_x, double *x, ptrdiff_t n_y, double *y) {
  ptrdiff_t best = 0;
  for (ptrdiff_t i = 1; i < n_x; i++)
    // near ties go to the first on every machine
    if (fabs(x[i]) > fabs(x[best]) * (1 + 1e-12)) best = i;
  if (n_x == 0 || x[best] >= 0) return;
  tt__scale_row(n_x, -1, x);
  if (y) tt__scale_row(n_y, -1, y);
}

static tt_status tt__public_eigh(ptrdiff_t n, const void *a, ptrdiff_t lda, void *values,
                                 void *vectors, ptrdiff_t ldv, const tt_options *options,
                                 int wide) {
  if (n < 0 || lda < n || (vectors && ldv < n) || !tt__options_valid(options))
    return TT_ERROR_INVALID;
  if (n == 0) return TT_OK;
  if (!a || !values) return TT_ERROR_INVALID;
  if (!tt__spans(n, lda, 8)) return TT_ERROR_MEMORY;
  for (ptrdiff_t i = 0; i < n; i++)
    for (ptrdiff_t j = 0; j <= i; j++)
      if (!tt__is_finite(tt__element(a, wide, i * lda + j))) return TT_ERROR_NONFINITE;
  tt__pool pool = tt__pool_open(options ? &options->allocator : NULL);
  double *z = tt__take_f64(&pool, n, n), *d = tt__take_f64(&pool, n, 1);
  tt_status status = pool.status;
  if (!status) {
    int exponent = 0;
    for (ptrdiff_t i = 0; i < n; i++)
      for (ptrdiff_t j = 0; j <= i; j++)
        z[i * n + j] = z[j * n + i] = tt__element(a, wide, i * lda + j);
    double largest = tt__largest_magnitude(n * n, z);
    if (largest > 0) (void)frexp(largest, &exponent);
    for (ptrdiff_t i = 0; i < n * n; i++) z[i] = ldexp(z[i], -exponent);
    status = tt__eigen(&pool, n, z, d, n, TT__QL_SWEEPS);
    for (ptrdiff_t i = 0; i < n && status != TT_ERROR_MEMORY; i++) {
      tt__put_element(values, wide, i, ldexp(d[i], exponent));
      tt__fix_sign(n, z + i * n, 0, NULL);
      for (ptrdiff_t j = 0; vectors && j < n; j++)
        tt__put_element(vectors, wide, j * ldv + i, z[i * n + j]);
    }
  }
  tt__pool_close(&pool);
  return status;
}

TTDEF tt_status tt_eigh(ptrdiff_t n, const float *a, ptrdiff_t lda, float *values, float *vectors,
                        ptrdiff_t ldv, const tt_options *options) {
  return tt__public_eigh(n, a, lda, values, vectors, ldv, options, 0);
}

TTDEF tt_status tt_eigh_f64(ptrdiff_t n, const double *a, ptrdiff_t lda, double *values,
                            double *vectors, ptrdiff_t ldv, const tt_options *options) {
  return tt__public_eigh(n, a, lda, values, vectors, ldv, options, 1);
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// ---------------------------------------------------------------------------------------- >>source
// A matrix to read: rows and columns addressed by mixed-radix legs, read as doubles block by block,
// so that an unfolding of a permuted, padded, float or double array needs no copy. Every SVD reads
// its input so, and trains are stored so.

// Digits of an index, most significant first; digit t of leg k moves by t*row[k] rows and t*col[k]
// columns.
typedef struct tt__legs {
  int count;
  ptrdiff_t size[2 * TT_MAX_ORDER + 1], row[2 * TT_MAX_ORDER + 1], col[2 * TT_MAX_ORDER + 1];
} tt__legs;

typedef struct tt__source {
  // row-major array (true_rows, true_cols)
  const void *data;
  int wide;                                                  // double, else float
  ptrdiff_t true_rows, true_cols;                            // what lies outside reads as zero
  ptrdiff_t rows, cols;                                      // of the matrix that the legs describe
  tt__legs down, across;
  double scale;                                              // every element is multiplied by it
} tt__source;

static void tt__legs_add(tt__legs *legs, ptrdiff_t size, ptrdiff_t row, ptrdiff_t col) {
  legs->size[legs->count] = size;
  legs->row[legs->count] = row;
  legs->col[legs->count] = col;
  legs->count++;
}

// A plain row-major matrix as a source.
static tt__source tt__plain_source(const void *data, int wide, ptrdiff_t rows, ptrdiff_t cols) {
  tt__source source;
  memset(&source, 0, sizeof source);
  source.data = data;
  source.wide = wide;
  source.rows = source.true_rows = rows;
  source.cols = source.true_cols = cols;
  source.scale = 1;
  tt__legs_add(&source.down, rows, 1, 0);
  tt__legs_add(&source.across, cols, 0, 1);
  return source;
}

static tt__source tt__turned(const tt__source *source) { // its transpose
  tt__source turned = *source;
  turned.rows = source->cols;
  turned.cols = source->rows;
  turned.down = source->across;
  turned.across = source->down;
  return turned;
}

// Row and column shifts of the indices first .. first+count-1, by an odometer.
static void tt__coordinates(const tt__legs *legs, ptrdiff_t first, ptrdiff_t count, ptrdiff_t *row,
                            ptrdiff_t *col) {
  ptrdiff_t digit[2 * TT_MAX_ORDER + 1], at_row = 0, at_col = 0;
  for (int k = legs->count - 1; k >= 0; k--) {
    digit[k] = first % legs->size[k];
    first /= legs->size[k];
    at_row += digit[k] * legs->row[k];
    at_col += digit[k] * legs->col[k];
  }
  for (ptrdiff_t i = 0; i < count; i++) {
    row[i] = at_row;
    col[i] = at_col;
    for (int k = legs->count - 1; k >= 0; k--) {
      at_row += legs->row[k];
      at_col += legs->col[k];
      if (++digit[k] < legs->size[k]) break;
      at_row -= legs->size[k] * legs->row[k];
      at_col -= legs->size[k] * legs->col[k];
      digit[k] = 0;
    }
  }
}

// A slab is what one pass over a source reads at a time; fast products want it in the cache.
#ifdef TT__SIMD
enum { TT__TILE_ROWS = 32, TT__TILE_COLS = 64, TT__SLAB = 64 };
#else
enum { TT__TILE_ROWS = 32, TT__TILE_COLS = 64, TT__SLAB = 256 };
#endif

// Is the whole tile inside the array? Coordinates are not negative.
static int tt__tile_inside(const tt__source *source, ptrdiff_t rows, const ptrdiff_t *ri,
                           const ptrdiff_t *ci, ptrdiff_t cols, const ptrdiff_t *rj,
                           const ptrdiff_t *cj) {
  ptrdiff_t row[2] = {0, 0}, col[2] = {0, 0};
  for (ptrdiff_t i = 0; i < rows; i++) {
    row[0] = tt__max(row[0], ri[i]);
    col[0] = tt__max(col[0], ci[i]);
  }
  for (ptrdiff_t j = 0; j < cols; j++) {
    row[1] = tt__max(row[1], rj[j]);
    col[1] = tt__max(col[1], cj[j]);
  }
  return row[0] + row[1] < source->true_rows && col[0] + col[1] < source->true_cols;
}

// One tile, its coordinates given: element (i,j) lies in row ri[i] + rj[j] and column ci[i] +
// cj[j].
static void tt__tile(const tt__source *source, ptrdiff_t rows, const ptrdiff_t *ri,
                     const ptrdiff_t *ci, ptrdiff_t cols, const ptrdiff_t *rj, const ptrdiff_t *cj,
                     double *out, ptrdiff_t ldo) {
  ptrdiff_t ld = source->true_cols, offset[TT__TILE_COLS];
  double scale = source->scale;
  int inside = tt__tile_inside(source, rows, ri, ci, cols, rj, cj);
  int eights = !source->wide && cols % 8 == 0;               // do floats lie together by eights?
  for (ptrdiff_t j = 0; j < cols && inside; j++) {
    offset[j] = rj[j] * ld + cj[j];
    eights &= j % 8 == 0 || offset[j] == offset[j - 1] + 1;
  }
  for (ptrdiff_t i = 0; i < rows; i++, out += ldo) {
    ptrdiff_t at = ri[i] * ld + ci[i];
    if (inside && eights) {
      for (ptrdiff_t j = 0; j < cols; j += 8) {
        const float *from = (const float *)source->data + at + offset[j];
        for (int t = 0; t < 8; t++) out[j + t] = (double)from[t] * scale;
      }
    } else if (inside && source->wide) {
      const double *from = (const double *)source->data + at;
      for (ptrdiff_t j = 0; j < cols; j++) out[j] = from[offset[j]] * scale;
    } else if (inside) {
      const float *from = (const float *)source->data + at;
      for (ptrdiff_t j = 0; j < cols; j++) out[j] = (double)from[offset[j]] * scale;
    } else {
      for (ptrdiff_t j = 0; j < cols; j++) {
        int there = ri[i] + rj[j] < source->true_rows && ci[i] + cj[j] < ld;
        ptrdiff_t index = there ? at + rj[j] * ld + cj[j] : 0;
        out[j] = there ? tt__element(source->data, source->wide, index) * scale : 0;
      }
    }
  }
}

// The block of `rows` x `cols` elements at (row, col) as doubles; tiles keep the coordinates on the
// stack.
static void tt__block(const tt__source *source, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t col,
                      ptrdiff_t cols, double *out, ptrdiff_t ldo) {
  ptrdiff_t ri[TT__TILE_ROWS], ci[TT__TILE_ROWS], rj[TT__TILE_COLS], cj[TT__TILE_COLS];
  for (ptrdiff_t i = 0; i < rows; i += TT__TILE_ROWS) {
    ptrdiff_t high = tt__min(rows - i, TT__TILE_ROWS);
    tt__coordinates(&source->down, row + i, high, ri, ci);
    for (ptrdiff_t j = 0; j < cols; j += TT__TILE_COLS) {
      ptrdiff_t width = tt__min(cols - j, TT__TILE_COLS);
      tt__coordinates(&source->across, col + j, width, rj, cj);
      tt__tile(source, high, ri, ci, width, rj, cj, out + i * ldo + j, ldo);
    }
  }
}

// All rows of `count` columns from `first` on, packed (rows, count).
static void tt__slab(const tt__source *source, ptrdiff_t first, ptrdiff_t count, double *out) {
  tt__block(source, 0, source->rows, first, count, out, count);
}

// A source that lies in memory as floats with two strides.
typedef struct tt__floats {
  const float *data;
  ptrdiff_t row, col;
  double scale;
} tt__floats;

// The stride of one side of a source, if its legs are the digits of one index; else 0.
static ptrdiff_t tt__stride(const tt__legs *legs, ptrdiff_t ld) {
  ptrdiff_t stride = 0, inner = 1;
  for (int k = legs->count - 1; k >= 0; k--) {
    ptrdiff_t step = legs->row[k] * ld + legs->col[k];
    if (legs->size[k] == 1) continue;
    if (inner > 1 && step != stride * inner) return 0;
    if (inner == 1) stride = step;
    inner *= legs->size[k];
  }
  return stride;
}

// Is the source such, and of a size that products in float stand? Then fills `floats`.
static int tt__float_view(const tt__source *source, tt__floats *floats) {
  floats->data = (const float *)source->data;
  floats->row = tt__stride(&source->down, source->true_cols);
  floats->col = tt__stride(&source->across, source->true_cols);
  floats->scale = source->scale;
  if (source->wide || source->scale < 1e-18 || source->scale > 1e18) return 0;
  return floats->row > 0 && floats->col > 0 &&
         source->rows * source->cols == source->true_rows * source->true_cols;
}

// A scaled copy (rows, cols) of a source.
static float *tt__copy_floats(tt__pool *pool, const tt__source *source) {
  double tile[TT__TILE_ROWS * TT__TILE_COLS];
  ptrdiff_t count = source->rows;
  if (!tt__multiply(&count, source->cols)) pool->status = TT_ERROR_MEMORY;
  float *copy = (float *)tt__take(pool, count, (ptrdiff_t)sizeof(float));
  for (ptrdiff_t i = 0; copy && i < source->rows; i += TT__TILE_ROWS)
    for (ptrdiff_t j = 0; j < source->cols; j += TT__TILE_COLS) {
      ptrdiff_t high = tt__min(TT__TILE_ROWS, source->rows - i),
                width = tt__min(TT__TILE_COLS, source->cols - j);
      tt__block(source, i, high, j, width, tile, width);
      for (ptrdiff_t p = 0; p < high; p++)
        for (ptrdiff_t q = 0; q < width; q++)
          copy[(i + p) * source->cols + j + q] = (float)tile[p * width + q];
    }
  return copy;
}

// What a decomposition of a source (s,n), s <= n, returns: left singular vectors as rows and
// singular values.
typedef struct tt__factor {
  ptrdiff_t count;                                           // number of values and vectors
  double *vectors;                                           // (count, s)
  // (count) descending, of the scaled source
  double *values;
  // squared Frobenius norm of the scaled source
  double square;
  // 0: smaller values exist but were not computed
  int complete;
} tt__factor;

// The same as tt__project below, by products in float: where the vectors are approximate anyway.
static void tt__project_floats(tt__pool *pool, const double *vectors, ptrdiff_t count, ptrdiff_t s,
                               ptrdiff_t n, const tt__floats *a, float *out) {
  enum { WIDTH = 512 };
  void *mark = pool->blocks;
  float *x = (float *)tt__take(pool, count * s, (ptrdiff_t)sizeof(float));
  float *part = (float *)tt__take(pool, count * WIDTH, (ptrdiff_t)sizeof(float));
  void *work = tt__take_work(pool);
  for (ptrdiff_t i = 0; i < count * s && !pool->status; i++) x[i] = (float)(vectors[i] * a->scale);
  for (ptrdiff_t j = 0; j < n && !pool->status; j += WIDTH) {
    ptrdiff_t now = tt__min(WIDTH, n - j);
    tt__product p = {count, now, s,    x,   a->data + j * a->col, s, 1, a->row,
                     a->col, part, now, 0, work};
    tt__gemm(&p, 0);
    for (ptrdiff_t i = 0; i < count; i++)
      memcpy(out + i * n + j, part + i * now, (size_t)now * sizeof(float));
  }
  tt__pool_rewind(pool, mark);
}

// out (count, n) = vectors (count, s) times the source, in slabs; out is of float or double and may
// be the source's own array if that is plain and count <= its rows.
static void tt__project(tt__pool *pool, const double *vectors, ptrdiff_t count,
                        const tt__source *source, void *out, int wide) {
  void *mark = pool->blocks;
  ptrdiff_t s = source->rows, n = source->cols, width = tt__min(n, TT__SLAB);
  double *slab = tt__take_f64(pool, s, width), *part = tt__take_f64(pool, count, width);
  void *work = tt__take_work(pool);
  for (ptrdiff_t j = 0; j < n && !pool->status; j += width) {
    ptrdiff_t now = tt__min(width, n - j);
    tt__slab(source, j, now, slab);
    tt__matmul(count, now, s, vectors, s, slab, now, part, now, 0, work);
    for (ptrdiff_t i = 0; i < count; i++)
      for (ptrdiff_t t = 0; t < now; t++)
        tt__put_element(out, wide, i * n + j + t, part[i * now + t]);
  }
  tt__pool_rewind(pool, mark);
}

#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// ------------------------------------------------------------------------------------------- >>svd
// Singular value decompositions of a source (see above). The smaller side s is always the rows; a
// tall matrix is read transposed.
//
//   Gram         eigenvectors of G = A A^T in double, where products of floats are exact: better
//                singular values for float data than LAPACK in float
//   Jacobi       pivoted LQ, one-sided Jacobi on the rows of L^T [Demmel92, Drmac08, DeRijk89]:
//                small values relatively right where A is well conditioned up to scaling
//   Householder  LQ, bidiagonalisation, implicit QR with rotations on rows [Golub13, 8.6]
//   Randomised   block Krylov [Musco15], every block orthogonal to all earlier ones
//
// Inputs are scaled by a power of two to a largest entry near 1, so nothing over- or underflows.

// ---- Jacobi

enum { TT__JACOBI_SWEEPS = 40 };

// Rotates rows p and q of x (and of v) until they are orthogonal. Returns whether there was
// anything to do.
static int tt__jacobi_pair(ptrdiff_t n, double *x, ptrdiff_t n_v, double *v, double *square,
                           ptrdiff_t p, ptrdiff_t q) {
  double g = tt__dot(n, x + p * n, x + q * n);
  // 16: rounding of short rows
  double limit = DBL_EPSILON / 2 * sqrt((double)n + 16) * sqrt(square[p]) * sqrt(square[q]);
  // below, squares lose digits
  if (fabs(g) <= limit || square[p] < 1e-290 || square[q] < 1e-290) return 0;
  double zeta = (square[q] - square[p]) / (2 * g);
  double t = copysign(1.0, zeta) / (fabs(zeta) + tt__hypot(1.0, zeta));
  double c = 1 / sqrt(1 + t * t), s = c * t;
  tt__rotate(n, c, s, x + p * n, x + q * n);
  if (v) tt__rotate(n_v, c, s, v + p * n_v, v + q * n_v);
  square[p] -= t * g;
  square[q] = square[q] + t * g > 0 ? square[q] + t * g : 0;
  return 1;
}

// Brings the longest of rows p.. to place p, in x, v and square (de Rijk's order).
static void tt__jacobi_order(ptrdiff_t rows, ptrdiff_t n, double *x, ptrdiff_t n_v, double *v,
                             double *square, ptrdiff_t p) {
  ptrdiff_t best = p;
  for (ptrdiff_t i = p + 1; i < rows; i++) if (square[i] > square[best]) best = i;
  if (best == p) return;
  double keep = square[p];
  square[p] = square[best];
  square[best] = keep;
  tt__swap_rows(n, x + p * n, x + best * n);
  if (v) tt__swap_rows(n_v, v + p * n_v, v + best * n_v);
}

// One-sided Jacobi: rotates the rows of x (rows,n) until all are orthogonal, v (rows,n_v) or NULL
// along with them. square: `rows` numbers of workspace.
static tt_status tt__jacobi(ptrdiff_t rows, ptrdiff_t n, double *x, ptrdiff_t n_v, double *v,
                            double *square, int limit) {
  for (int sweep = 0; sweep < limit; sweep++) {
    int rotated = 0;
    // fresh: updates drift
    for (ptrdiff_t i = 0; i < rows; i++) square[i] = tt__dot(n, x + i * n, x + i * n);
    for (ptrdiff_t p = 0; p + 1 < rows; p++) {
      tt__jacobi_order(rows, n, x, n_v, v, square, p);
      for (ptrdiff_t q = p + 1; q < rows; q++)
        rotated |= tt__jacobi_pair(n, x, n_v, v, square, p, q);
    }
    if (!rotated) return TT_OK;
  }
  return TT_ERROR_CONVERGENCE;
}

// Divides the rows of x (rows,n), orthogonal and descending, by their norms, which go to values;
// rows of norm (next to) zero become a completion to an orthonormal basis. work: rows * (rows + 1).
static void tt__normalize_rows(tt__pool *pool, ptrdiff_t rows, ptrdiff_t n, double *x,
                               double *values, double *work) {
  int deficient = 0;
  for (ptrdiff_t i = 0; i < rows; i++) {
    double *row = x + i * n;
    values[i] = tt__norm2(n, row);
    if (values[i] < 2e-145) deficient = 1;
    for (ptrdiff_t j = 0; j < n; j++) row[j] = values[i] < 2e-145 ? 0 : row[j] / values[i];
  }
  if (deficient) tt__lq_factors(pool, rows, n, x, n, work, work + rows * rows);
}

// Sorts the columns of a (s,n) by their largest entry, descending, so that Householder reflections
// along rows stay accurate for graded columns; order[j] is where column j came from.
static void tt__sort_columns(tt__pool *pool, ptrdiff_t s, ptrdiff_t n, double *a,
                             ptrdiff_t *order) {
  void *mark = pool->blocks;
  double *key = tt__take_f64(pool, n, 1), *row = tt__take_f64(pool, n, 1);
  ptrdiff_t *heap = order;
  for (ptrdiff_t j = 0; !pool->status && j < n; j++) {
    order[j] = j;
    for (ptrdiff_t i = 0; i < s; i++) if (fabs(a[i * n + j]) > key[j]) key[j] = fabs(a[i * n + j]);
  }
  // heap sort, smallest key on top
  for (ptrdiff_t step = n / 2, end = n; !pool->status && end > 1;) {
    if (step > 0) {
      step--;
    } else {
      ptrdiff_t top = heap[0];
      heap[0] = heap[--end];
      heap[end] = top;
    }
    for (ptrdiff_t i = step, child; (child = 2 * i + 1) < end; i = child) {
      if (child + 1 < end && key[heap[child + 1]] < key[heap[child]]) child++;
      if (key[heap[i]] <= key[heap[child]]) break;
      ptrdiff_t keep = heap[i];
      heap[i] = heap[child];
      heap[child] = keep;
    }
  }
  for (ptrdiff_t i = 0; !pool->status && i < s; i++) {
    memcpy(row, a + i * n, (size_t)n * sizeof(double));
    for (ptrdiff_t j = 0; j < n; j++) a[i * n + j] = row[order[j]];
  }
  tt__pool_rewind(pool, mark);
}

// SVD of a (s,n), s <= n, by Jacobi: u (s,s) and a (s,n) become the left and right vectors as rows.
//   C = P A Pi = L Q;  J L^T = S Z^T  =>  left vectors Z permuted back, right vectors J Q permuted
//                      back
static tt_status tt__svd_jacobi(tt__pool *pool, ptrdiff_t s, ptrdiff_t n, double *a, double *u,
                                double *values, int wants_right) {
  double *r = tt__take_f64(pool, s, s), *tau = tt__take_f64(pool, s, 1),
         *v = tt__take_f64(pool, s, s);
  double *work = tt__take_f64(pool, s, s + 1);
  double *right = wants_right ? tt__take_f64(pool, s, n) : NULL;
  void *gemm = tt__take_work(pool);
  ptrdiff_t *order = (ptrdiff_t *)tt__take(pool, s, (ptrdiff_t)sizeof(ptrdiff_t));
  ptrdiff_t *columns = (ptrdiff_t *)tt__take(pool, n, (ptrdiff_t)sizeof(ptrdiff_t));
  if (pool->status) return pool->status;
  tt__sort_columns(pool, s, n, a, columns);
  if (pool->status) return pool->status;
  tt__lq(pool, s, n, a, n, tau, order);
  for (ptrdiff_t i = 0; i < s; i++) {
    v[i * s + i] = 1;
    for (ptrdiff_t j = 0; j <= i; j++) r[j * s + i] = a[i * n + j];
  }
  tt_status status = tt__jacobi(s, s, r, s, wants_right ? v : NULL, values, TT__JACOBI_SWEEPS);
  tt__normalize_rows(pool, s, s, r, values, work);
  tt__sort_rows(s, values, s, r, s, v);
  for (ptrdiff_t i = 0; i < s; i++)
    for (ptrdiff_t j = 0; j < s; j++) u[i * s + order[j]] = r[i * s + j];
  if (!wants_right) return status ? status : pool->status;
  tt__lq_form(pool, s, n, a, n, tau);
  tt__matmul(s, n, s, v, s, a, n, right, n, 0, gemm);
  for (ptrdiff_t i = 0; i < s; i++)
    for (ptrdiff_t j = 0; j < n; j++) a[i * n + columns[j]] = right[i * n + j];
  return status ? status : pool->status;
}

// ---- Householder

// X (s,s) = U B V^T with B upper bidiagonal (d, e); u and x become U^T and V^T as rows. work: 3s.
static void tt__bidiagonal(tt__pool *pool, ptrdiff_t s, double *x, double *u, double *d, double *e,
                           double *work) {
  double *left = work, *right = work + s, *combined = work + 2 * s;
  for (ptrdiff_t k = 0; k < s; k++) {
    double *column = u + k * s + k, *row = x + k * s + k + 1; // reflectors are kept along rows
    ptrdiff_t rest = s - k - 1;
    for (ptrdiff_t i = k; i < s; i++) column[i - k] = x[i * s + k];
    left[k] = tt__reflector(s - k, column);
    d[k] = column[0];
    for (ptrdiff_t j = 0; j < rest; j++) combined[j] = row[j]; // combined = v^T X, row by row
    for (ptrdiff_t i = k + 1; i < s; i++)
      tt__axpy(rest, column[i - k], x + i * s + k + 1, combined);
    tt__axpy(rest, -left[k], combined, row);
    for (ptrdiff_t i = k + 1; i < s; i++)
      tt__axpy(rest, -left[k] * column[i - k], combined, x + i * s + k + 1);
    if (rest == 0) break;
    right[k] = tt__reflector(rest, row);
    e[k] = row[0];
    for (ptrdiff_t i = k + 1; i < s && right[k] != 0; i++)
      tt__reflect(rest, right[k], row, x + i * s + k + 1);
  }
  tt__lq_form(pool, s, s, u, s, left);
  if (s > 0) tt__form_behind_diagonal(pool, s, x, right);
}

// c, s with c f + s g = r >= 0 and c g - s f = 0.
static double tt__givens(double f, double g, double *c, double *s) {
  double r = tt__hypot(f, g);
  *c = r > 0 ? f / r : 1;
  *s = r > 0 ? g / r : 0;
  return r;
}

// One implicit QR step with Wilkinson's shift on the block low..high of the bidiagonal (d, e).
static void tt__qr_step(ptrdiff_t n, ptrdiff_t low, ptrdiff_t high, double *d, double *e, double *u,
                        double *v) {
  double before = high - 1 > low ? e[high - 2] : 0, c, s;
  double t11 = d[high - 1] * d[high - 1] + before * before, t12 = d[high - 1] * e[high - 1];
  double t22 = d[high] * d[high] + e[high - 1] * e[high - 1], half = (t11 - t22) / 2;
  double shift = t12 == 0 ? t22 : t22 - t12 * t12 / (half + copysign(tt__hypot(half, t12), half));
  double f = d[low] * d[low] - shift, g = d[low] * e[low];
  for (ptrdiff_t k = low; k < high; k++) {
    double r = tt__givens(f, g, &c, &s);                     // columns k, k+1
    if (k > low) e[k - 1] = r;
    f = c * d[k] + s * e[k];
    e[k] = c * e[k] - s * d[k];
    g = s * d[k + 1];
    d[k + 1] = c * d[k + 1];
    tt__rotate(n, c, -s, v + k * n, v + (k + 1) * n);
    d[k] = tt__givens(f, g, &c, &s);                         // rows k, k+1
    f = c * e[k] + s * d[k + 1];
    d[k + 1] = c * d[k + 1] - s * e[k];
    e[k] = f;
    if (k + 1 < high) {
      g = s * e[k + 1];
      e[k + 1] = c * e[k + 1];
    }
    tt__rotate(n, c, -s, u + k * n, u + (k + 1) * n);
  }
}

// d[k] = 0 inside the block: rotations of row k with the rows below it remove e[k], which splits
// the block.
static void tt__split_at_zero(ptrdiff_t n, ptrdiff_t k, ptrdiff_t high, double *d, double *e,
                              double *u) {
  double f = e[k], c, s;
  e[k] = 0;
  for (ptrdiff_t i = k + 1; i <= high && f != 0; i++) {
    d[i] = tt__givens(d[i], f, &c, &s);
    if (i < high) {
      f = -s * e[i];
      e[i] = c * e[i];
    }
    tt__rotate(n, c, -s, u + i * n, u + k * n);
  }
}

// d[high] = 0: rotations of column high with the columns before it remove e[high-1].
static void tt__deflate_last(ptrdiff_t n, ptrdiff_t low, ptrdiff_t high, double *d, double *e,
                             double *v) {
  double f = e[high - 1], c, s;
  e[high - 1] = 0;
  for (ptrdiff_t i = high - 1; i >= low && f != 0; i--) {
    d[i] = tt__givens(d[i], f, &c, &s);
    if (i > low) {
      f = -s * e[i - 1];
      e[i - 1] = c * e[i - 1];
    }
    tt__rotate(n, c, -s, v + i * n, v + high * n);
  }
}

// Finds the block low..high that ends at `high`: returns low, with every negligible e and d set to
// zero.
static ptrdiff_t tt__qr_block(ptrdiff_t high, double *d, double *e, double tiny, ptrdiff_t *zero) {
  ptrdiff_t low = high;
  *zero = -1;
  for (;; low--) {
    if (fabs(d[low]) <= tiny) { d[low] = 0; *zero = low; }
    if (low == 0) break;
    if (fabs(e[low - 1]) <= DBL_EPSILON / 2 * (fabs(d[low - 1]) + fabs(d[low])) ||
        fabs(e[low - 1]) <= tiny) {
      e[low - 1] = 0;
      break;
    }
  }
  return low;
}

static tt_status tt__bidiagonal_qr(ptrdiff_t n, double *d, double *e, double *u, double *v,
                                   int limit) {
  double tiny = DBL_EPSILON / 256 * (tt__largest_magnitude(n, d) + tt__largest_magnitude(n, e));
  for (ptrdiff_t high = n - 1; high >= 0; high--) {
    for (int sweep = 0;; sweep++) {
      ptrdiff_t zero, low = tt__qr_block(high, d, e, tiny, &zero);
      if (low == high) break;
      if (sweep == limit) return TT_ERROR_CONVERGENCE;
      if (zero == high) tt__deflate_last(n, low, high, d, e, v);
      else if (zero >= 0) tt__split_at_zero(n, zero, high, d, e, u);
      else tt__qr_step(n, low, high, d, e, u, v);
    }
  }
  return TT_OK;
}

// SVD of a (s,n), s <= n, by bidiagonalisation of L; outputs as in tt__svd_jacobi.
static tt_status tt__svd_householder(tt__pool *pool, ptrdiff_t s, ptrdiff_t n, double *a, double *u,
                                     double *values, int wants_right) {
  double *x = tt__take_f64(pool, s, s), *tau = tt__take_f64(pool, s, 1),
         *e = tt__take_f64(pool, s, 1);
  double *work = tt__take_f64(pool, s, 3), *right = wants_right ? tt__take_f64(pool, s, n) : NULL;
  void *gemm = tt__take_work(pool);
  if (pool->status) return pool->status;
  tt__lq(pool, s, n, a, n, tau, NULL);
  for (ptrdiff_t i = 0; i < s; i++)
    for (ptrdiff_t j = 0; j <= i; j++) x[i * s + j] = a[i * n + j];
  tt__bidiagonal(pool, s, x, u, values, e, work);
  tt_status status = tt__bidiagonal_qr(s, values, e, u, x, TT__QL_SWEEPS);
  for (ptrdiff_t i = 0; i < s; i++) {
    if (values[i] >= 0) continue;
    values[i] = -values[i];
    tt__scale_row(s, -1, x + i * s);
  }
  tt__sort_rows(s, values, s, u, s, x);
  if (!wants_right) return status ? status : pool->status;
  tt__lq_form(pool, s, n, a, n, tau);
  tt__matmul(s, n, s, x, s, a, n, right, n, 0, gemm);
  memcpy(a, right, (size_t)(s * n) * sizeof(double));
  return status ? status : pool->status;
}

// ---- Gram

// G = A A^T (s,s), read in slabs; the lower blocks are computed, the rest mirrored.
static void tt__gram(tt__pool *pool, const tt__source *source, double *g) {
  void *mark = pool->blocks;
  ptrdiff_t s = source->rows, n = source->cols, width = tt__min(n, TT__SLAB);
  double *slab = tt__take_f64(pool, s, width);
  void *work = tt__take_work(pool);
  for (ptrdiff_t j = 0; j < n && !pool->status; j += width) {
    ptrdiff_t now = tt__min(width, n - j);
    tt__slab(source, j, now, slab);
    for (ptrdiff_t i = 0; i < s; i += 64) {
      ptrdiff_t high = tt__min(64, s - i);
      tt__matmul(high, i + high, now, slab + i * now, now, slab, now, g + i * s, s,
                 TT_TRANSPOSE_B | TT_ACCUMULATE, work);
    }
  }
  for (ptrdiff_t i = 0; i < s; i++)
    for (ptrdiff_t j = 0; j < i; j++) g[j * s + i] = g[i * s + j];
  tt__pool_rewind(pool, mark);
}

// Square roots of all eigenvalues of a Gram matrix; its first `count` rows become the eigenvectors
// of the largest.
static tt_status tt__gram_eigen(tt__pool *pool, ptrdiff_t s, double *g, double *values,
                                ptrdiff_t count) {
  tt_status status = tt__eigen(pool, s, g, values, count, TT__QL_SWEEPS);
  for (ptrdiff_t i = 0; i < s; i++) values[i] = values[i] > 0 ? sqrt(values[i]) : 0;
  return status;
}

// Squared weight of the singular values that a truncated decomposition did not compute.
static double tt__unseen(const tt__factor *factor) {
  double unseen = factor->square;
  for (ptrdiff_t i = 0; i < factor->count; i++) unseen -= factor->values[i] * factor->values[i];
  return factor->complete || unseen < 0 ? 0 : unseen;
}

// ---- randomised

// Rows of a Krylov block: floats are multiplied two vectors at a time, which costs little more than
// one; narrow blocks reach further with as many columns.
static ptrdiff_t tt__krylov_block(ptrdiff_t rank) { return rank < 32 ? 16 : 32; }

// Columns of the Krylov space for `rank` triplets; 0 = the exact methods are as cheap.
static ptrdiff_t tt__krylov_size(ptrdiff_t s, ptrdiff_t rank) {
  ptrdiff_t size = (2 * rank + 64) / tt__krylov_block(rank) * tt__krylov_block(rank);
  return rank > 0 && size <= s / 2 ? size : 0;
}

// z (b,s) = (y A) A^T for y (b,s); y NULL: z = Omega A^T, Omega (b,n) random signs.
static void tt__krylov_multiply(tt__pool *pool, const tt__source *source, unsigned seed,
                                ptrdiff_t b, const double *y, double *z) {
  void *mark = pool->blocks;
  ptrdiff_t s = source->rows, n = source->cols, width = tt__min(n, TT__SLAB);
  double *slab = tt__take_f64(pool, s, width), *t = tt__take_f64(pool, b, width);
  void *work = tt__take_work(pool);
  for (ptrdiff_t j = 0; j < n && !pool->status; j += width) {
    ptrdiff_t now = tt__min(width, n - j);
    tt__slab(source, j, now, slab);
    if (y) tt__matmul(b, now, s, y, s, slab, now, t, now, 0, work);
    for (ptrdiff_t i = 0; !y && i < b * now; i++)
      t[i] = tt__random_sign(seed, (uint64_t)(i / now) << 40 | (uint64_t)(j + i % now));
    tt__matmul(b, s, now, t, now, slab, now, z, s, TT_TRANSPOSE_B | (j ? TT_ACCUMULATE : 0), work);
  }
  tt__pool_rewind(pool, mark);
}

// Makes the b rows of y orthonormal and orthogonal to the `count` orthonormal rows of q. Two rounds
// are enough for rows that were independent; the third serves arbitrary rows that replaced null
// ones.
static void tt__orthonormalize_against(tt__pool *pool, ptrdiff_t s, ptrdiff_t count,
                                       const double *q, ptrdiff_t b, double *y,
                                       double *coefficients, double *tau, void *work) {
  for (int round = 0; round < 3; round++) {
    tt__matmul(b, count, s, y, s, q, s, coefficients, count, TT_TRANSPOSE_B, work);
    for (ptrdiff_t i = 0; i < b * count; i++) coefficients[i] = -coefficients[i];
    if (count) tt__matmul(b, s, count, coefficients, count, q, s, y, s, TT_ACCUMULATE, work);
    tt__lq(pool, b, s, y, s, tau, NULL);
    tt__lq_form(pool, b, s, y, s, tau);
  }
}

// Block Krylov in double, the matrix read in slabs: Q spans all of (A A^T)^i A Omega^T, H = Q A A^T
// Q^T, left vectors = eigenvectors of H times Q.
static tt_status tt__krylov_doubles(tt__pool *pool, const tt__source *source, ptrdiff_t rank,
                                    unsigned seed, tt__factor *out) {
  ptrdiff_t s = source->rows, size = tt__krylov_size(s, rank), b = tt__krylov_block(rank);
  double *q = tt__take_f64(pool, size, s), *z = tt__take_f64(pool, size, s),
         *h = tt__take_f64(pool, size, size);
  double *coefficients = tt__take_f64(pool, b, size), *tau = tt__take_f64(pool, b, 1);
  void *work = tt__take_work(pool);
  if (pool->status) return pool->status;
  tt__krylov_multiply(pool, source, seed, b, NULL, q);
  for (ptrdiff_t at = 0; at < size && !pool->status; at += b) {
    if (at > 0) memcpy(q + at * s, z + (at - b) * s, (size_t)(b * s) * sizeof(double));
    tt__orthonormalize_against(pool, s, at, q, b, q + at * s, coefficients, tau, work);
    tt__krylov_multiply(pool, source, seed, b, q + at * s, z + at * s);
  }
  if (pool->status) return pool->status;
  tt__matmul(size, size, s, z, s, q, s, h, size, TT_TRANSPOSE_B, work);
  for (ptrdiff_t i = 0; i < size; i++)
    for (ptrdiff_t j = 0; j < i; j++)
      h[i * size + j] = h[j * size + i] = (h[i * size + j] + h[j * size + i]) / 2;
  tt_status status = tt__gram_eigen(pool, size, h, out->values, rank);
  if (!status) tt__matmul(rank, s, size, h, size, q, s, out->vectors, s, 0, work);
  return status;
}

// The source itself where it lies in memory as floats, else a copy.
static tt__floats tt__as_floats(tt__pool *pool, const tt__source *source) {
  tt__floats floats;
  if (tt__float_view(source, &floats)) return floats;
  floats.data = tt__copy_floats(pool, source);
  floats.row = source->cols;
  floats.col = 1;
  floats.scale = 1;
  return floats;
}

// y (m,b) = A x for x (k,b), or A^T x; rows of A are broadcast, so that it is read as it lies.
static void tt__times_floats(const tt__floats *a, int turned, ptrdiff_t m, ptrdiff_t k, ptrdiff_t b,
                             const float *x, float *y, void *work) {
  ptrdiff_t row = turned ? a->col : a->row, col = turned ? a->row : a->col;
  tt__product p = {m, b, k, a->data, x, row, col, b, 1, y, b, 0, work};
  tt__gemm(&p, 0);
}

// The same for floats: products in float on the matrix itself, all else in double. The blocks B =
// Q A are kept, and H = B B^T; so singular values have the absolute accuracy of float, where
// squares in float would lose half the digits.
static tt_status tt__krylov_floats(tt__pool *pool, const tt__source *source, ptrdiff_t rank,
                                   unsigned seed, tt__factor *out) {
  ptrdiff_t s = source->rows, n = source->cols;
  ptrdiff_t size = tt__krylov_size(s, rank), b = tt__krylov_block(rank);
  tt__floats a = tt__as_floats(pool, source);
  double *q = tt__take_f64(pool, size, s), *h = tt__take_f64(pool, size, size);
  double *coefficients = tt__take_f64(pool, b, size), *tau = tt__take_f64(pool, b, 1);
  float *x = (float *)tt__take(pool, b * s, (ptrdiff_t)sizeof(float));
  float *blocks = (float *)tt__take(pool, size * n, (ptrdiff_t)sizeof(float));
  void *work = tt__take_work(pool);
  if (pool->status) return pool->status;
  for (ptrdiff_t i = 0; i < b * n; i++)
    blocks[i] = (float)tt__random_sign(seed, (uint64_t)(i % b) << 40 | (uint64_t)(i / b));
  for (ptrdiff_t at = 0; at < size && !pool->status; at += b) {
    double *y = q + at * s;
    tt__times_floats(&a, 0, s, n, b, blocks + (at > 0 ? at - b : 0) * n, x, work);
    for (ptrdiff_t i = 0; i < b * s; i++) y[i] = (double)x[i % s * b + i / s] * a.scale;
    tt__orthonormalize_against(pool, s, at, q, b, y, coefficients, tau, work);
    for (ptrdiff_t i = 0; i < b * s; i++) x[i % s * b + i / s] = (float)(y[i] * a.scale);
    tt__times_floats(&a, 1, n, s, b, x, blocks + at * n, work);
  }
  tt__source made = tt__plain_source(blocks, 0, 1, size * n); // B (size,n), block after block
  made.down.count = made.across.count = 0;
  tt__legs_add(&made.down, size / b, 0, b * n);
  tt__legs_add(&made.down, b, 0, 1);
  tt__legs_add(&made.across, n, 0, b);
  made.rows = size;
  made.cols = n;
  if (!pool->status) tt__gram(pool, &made, h);
  if (pool->status) return pool->status;
  tt_status status = tt__gram_eigen(pool, size, h, out->values, rank);
  if (!status) tt__matmul(rank, s, size, h, size, q, s, out->vectors, s, 0, work);
  return status;
}

// Values and left vectors of the `rank` largest triplets. What floats leave of the matrix must be
// clear of their rounding, else the work is done again in double.
static tt_status tt__svd_randomized(tt__pool *pool, const tt__source *source, ptrdiff_t rank,
                                    unsigned seed, tt__factor *out) {
  ptrdiff_t s = source->rows;
  out->count = rank;
  out->complete = 0;
  out->values = tt__take_f64(pool, tt__krylov_size(s, rank), 1);
  out->vectors = tt__take_f64(pool, rank, s);
  void *mark = pool->blocks;
  if (!source->wide) {
    tt_status status = tt__krylov_floats(pool, source, rank, seed, out);
    tt__pool_rewind(pool, mark);
    if (status || tt__unseen(out) > 1e-6 * out->square) return status;
  }
  tt_status status = tt__krylov_doubles(pool, source, rank, seed, out);
  tt__pool_rewind(pool, mark);
  return status;
}

// ---- the choice

// Squared norm of the source's array after scaling; sets source->scale to the power of two that
// brings the largest entry near 1. Returns the index of the first element that is NaN or Inf, else
// -1.
static ptrdiff_t tt__scan(tt__source *source, double *square) {
  ptrdiff_t count = source->true_rows * source->true_cols;
  double largest = 0, sum = 0;
  int known = !source->wide;
  if (known) {
    sum = tt__float_squares(count, (const float *)source->data, &largest);
    known = tt__is_finite(sum);
  }
  for (ptrdiff_t i = 0; i < count && !known; i++) {
    double value = tt__element(source->data, source->wide, i);
    if (!tt__is_finite(value)) return i;
    if (fabs(value) > largest) largest = fabs(value);
  }
  source->scale = 1;
  if (largest > 0) {
    int exponent;
    (void)frexp(largest, &exponent);
    source->scale = ldexp(1, exponent < -1000 ? 1000 : -exponent);
  }
  if (known) sum *= source->scale * source->scale;
  for (ptrdiff_t i = 0; i < count && !known; i++) {
    double value = tt__element(source->data, source->wide, i) * source->scale;
    sum += value * value;
  }
  *square = sum;
  return -1;
}

// The method for a source (s,n) of which `rank` vectors are wanted (0 = all).
static int tt__choose_method(const tt__source *source, ptrdiff_t rank, int method) {
  ptrdiff_t s = source->rows;
  int exact = source->wide ? (s <= 128 ? TT_SVD_JACOBI : TT_SVD_HOUSEHOLDER) : TT_SVD_GRAM;
  if (method == TT_SVD_AUTO)
    method = rank > 0 && rank <= s / 8 && s > (source->wide ? 1024 : 512) ? TT_SVD_RANDOMIZED
                                                                          : exact;
  return method == TT_SVD_RANDOMIZED && tt__krylov_size(s, rank) == 0 ? exact : method;
}

// L (s,s) with A = L Q, from slabs of a source.
static void tt__lq_of_source(tt__pool *pool, const tt__source *source, double *l) {
  void *mark = pool->blocks;
  ptrdiff_t n = source->cols, width = tt__min(n, TT__SLAB);
  double *slab = tt__take_f64(pool, source->rows, width);
  for (ptrdiff_t j = 0; j < n && !pool->status; j += width) {
    ptrdiff_t now = tt__min(width, n - j);
    tt__slab(source, j, now, slab);
    tt__lq_append(source->rows, l, now, slab);
  }
  tt__pool_rewind(pool, mark);
}

// Left singular vectors and values of a source with rows <= cols, `rank` of them if the method is
// randomised, else all. Nothing here knows what the vectors are for.
static tt_status tt__left_vectors(tt__pool *pool, const tt__source *source, ptrdiff_t rank,
                                  int method, unsigned seed, tt__factor *out) {
  ptrdiff_t s = source->rows;
  method = tt__choose_method(source, rank, method);
  if (method == TT_SVD_RANDOMIZED) return tt__svd_randomized(pool, source, rank, seed, out);
  out->count = s;
  out->complete = 1;
  out->vectors = tt__take_f64(pool, s, s);
  out->values = tt__take_f64(pool, s, 1);
  if (pool->status) return pool->status;
  if (method == TT_SVD_GRAM) {
    tt__gram(pool, source, out->vectors);
    return pool->status ? pool->status
                        : tt__gram_eigen(pool, s, out->vectors, out->values, rank > 0 ? rank : s);
  }
  double *l = tt__take_f64(pool, s, s);
  if (pool->status) return pool->status;
  tt__lq_of_source(pool, source, l);
  if (pool->status) return pool->status;
  if (method == TT_SVD_JACOBI) return tt__svd_jacobi(pool, s, s, l, out->vectors, out->values, 0);
  return tt__svd_householder(pool, s, s, l, out->vectors, out->values, 0);
}

// SVD of a dense (s,n), s <= n, that the methods may destroy: left (s,s) and a (s,n) become vectors
// as rows.
static tt_status tt__dense_svd(tt__pool *pool, int method, ptrdiff_t s, ptrdiff_t n, double *a,
                               double *left, double *values, int wants_right) {
  if (method == TT_SVD_JACOBI) return tt__svd_jacobi(pool, s, n, a, left, values, wants_right);
  return tt__svd_householder(pool, s, n, a, left, values, wants_right);
}

// Both sides of the SVD of a source (s,n), s <= n: left (k,s), values (k), right (k,n) as rows, k =
// rank or s.
static tt_status tt__both_vectors(tt__pool *pool, const tt__source *source, ptrdiff_t k,
                                  const tt_options *options, tt__factor *left, double **right) {
  ptrdiff_t s = source->rows, n = source->cols;
  int method = tt__choose_method(source, k < s ? k : 0, options->method);
  if (method == TT_SVD_JACOBI || method == TT_SVD_HOUSEHOLDER) {
    *right = tt__take_f64(pool, s, n);
    left->vectors = tt__take_f64(pool, s, s);
    left->values = tt__take_f64(pool, s, 1);
    if (pool->status) return pool->status;
    tt__block(source, 0, s, 0, n, *right, n);
    return tt__dense_svd(pool, method, s, n, *right, left->vectors, left->values, 1);
  }
  tt_status status = tt__left_vectors(pool, source, k, method, options->seed, left);
  *right = tt__take_f64(pool, k, n);
  double *l = tt__take_f64(pool, k, k), *tau = tt__take_f64(pool, k, 1);
  if (status || pool->status) return status ? status : pool->status;
  // rows s_i v_i, orthogonal up to eps s_1^2: good enough for float unless some s_i are small; L of
  // their LQ is nearly diagonal
  tt__project(pool, left->vectors, k, source, *right, 1);
  if (pool->status) return pool->status;
  if (!source->wide && left->values[k - 1] > 1e-4 * left->values[0]) {
    for (ptrdiff_t i = 0; i < k; i++)
      tt__scale_row(n, 1 / tt__norm2(n, *right + i * n), *right + i * n);
  } else {
    tt__lq_factors(pool, k, n, *right, n, l, tau);
  }
  return pool->status;
}

static tt_status tt__public_svd(const void *a, ptrdiff_t rows, ptrdiff_t cols, void *u,
                                void *values, void *vt, const tt_options *given, int wide) {
  tt_options options = tt__options(given);
  tt_status status = tt__check_matrix(rows, cols, a, cols, wide, given);
  ptrdiff_t k = tt__min(rows, cols), s = k, n = tt__max(rows, cols);
  if (!status && k > 0 && !values) status = TT_ERROR_INVALID;
  if (status || k == 0) return status;
  if (options.max_rank > 0) k = tt__min(k, options.max_rank);
  tt__pool pool = tt__pool_open(&options.allocator);
  tt__source source = tt__plain_source(a, wide, rows, cols);
  tt__factor left;
  double *right = NULL, square;
  memset(&left, 0, sizeof left);
  (void)tt__scan(&source, &square);
  double scale = source.scale;
  if (rows > cols) source = tt__turned(&source);
  left.square = square;
  status = tt__both_vectors(&pool, &source, k, &options, &left, &right);
  if (!status || status == TT_ERROR_CONVERGENCE) {
    double *first = rows > cols ? right : left.vectors,
           *second = rows > cols ? left.vectors : right;
    for (ptrdiff_t i = 0; i < k; i++) {
      ptrdiff_t n_u = rows > cols ? n : s, n_v = rows > cols ? s : n;
      tt__fix_sign(n_u, first + i * n_u, n_v, second + i * n_v);
      tt__put_element(values, wide, i, left.values[i] / scale);
      for (ptrdiff_t j = 0; u && j < n_u; j++)
        tt__put_element(u, wide, j * k + i, first[i * n_u + j]);
      for (ptrdiff_t j = 0; vt && j < n_v; j++)
        tt__put_element(vt, wide, i * n_v + j, second[i * n_v + j]);
    }
  }
  tt__pool_close(&pool);
  return status;
}

TTDEF tt_status tt_svd(const float *a, ptrdiff_t rows, ptrdiff_t cols, float *u, float *s,
                       float *vt, const tt_options *options) {
  return tt__public_svd(a, rows, cols, u, s, vt, options, 0);
}

TTDEF tt_status tt_svd_f64(const double *a, ptrdiff_t rows, ptrdiff_t cols, double *u, double *s,
                           double *vt, const tt_options *options) {
  return tt__public_svd(a, rows, cols, u, s, vt, options, 1);
}
#endif // TT_INFERENCE_ONLY

// ----------------------------------------------------------------------------------------- >>shape
// Numbers about trains: factors of a matrix size, useful ranks, counts, the cost of a forward pass.
// Validity of a whole train is checked here once, at every public door, with all products in
// checked arithmetic.
//
// The useful maximum of a rank is what the legs on either side can carry: min(prod_{j<=k} m_j n_j,
// prod_{j>k} m_j n_j), and no more than its neighbour rank times one leg.

// Product of rows, of cols or of both over cores first..end-1; -1 on overflow.
static ptrdiff_t tt__leg_product(const tt_shape *shape, int first, int end, int with_rows,
                                 int with_cols) {
  ptrdiff_t product = 1;
  for (int k = first; k < end; k++)
    if ((with_rows && !tt__multiply(&product, shape->rows[k])) ||
        (with_cols && !tt__multiply(&product, shape->cols[k])))
      return -1;
  return product;
}

static ptrdiff_t tt__core_count(const tt_shape *shape, int k) { // numbers in core k; -1 on overflow
  ptrdiff_t count = shape->ranks[k];
  if (!tt__multiply(&count, shape->rows[k]) || !tt__multiply(&count, shape->cols[k]) ||
      !tt__multiply(&count, shape->ranks[k + 1]))
    return -1;
  return count;
}

// Rows and row length of the GEMM view of core k.
static void tt__view_size(const tt_shape *shape, int sweep, int k, ptrdiff_t *rows,
                          ptrdiff_t *length) {
  ptrdiff_t left = shape->ranks[k], right = shape->ranks[k + 1];
  *rows = (sweep == TT_LEFT_TO_RIGHT ? right : left) * shape->rows[k];
  *length = (sweep == TT_LEFT_TO_RIGHT ? left : right) * shape->cols[k];
}

// order and factors positive, ranks not negative
static int tt__factors_valid(const tt_shape *shape) {
  if (shape->order < 1 || shape->order > TT_MAX_ORDER) return 0;
  for (int k = 0; k < shape->order; k++)
    if (shape->rows[k] < 1 || shape->cols[k] < 1 || shape->ranks[k] < 0 || shape->ranks[k + 1] < 0)
      return 0;
  return 1;
}

// A train that may be run: shape, sizes, ranks, formats and pointers. Says nothing about the
// values.
static int tt__valid(const tt_matrix *w) {
  if (!w || !tt__factors_valid(&w->shape) || w->shape.ranks[0] != 1 ||
      w->shape.ranks[w->shape.order] != 1)
    return 0;
  ptrdiff_t rows = tt__leg_product(&w->shape, 0, w->shape.order, 1, 0);
  ptrdiff_t cols = tt__leg_product(&w->shape, 0, w->shape.order, 0, 1);
  if (w->rows < 1 || w->cols < 1 || w->rows > rows || w->cols > cols) return 0;
  if (w->sweep != TT_RIGHT_TO_LEFT && w->sweep != TT_LEFT_TO_RIGHT) return 0;
  for (int k = 0; k < w->shape.order; k++) {
    const tt_core *core = &w->cores[k];
    ptrdiff_t size = tt__core_count(&w->shape, k);
    if (w->shape.ranks[k] < 1 || size < 0) return 0;
    if (!core->data || (int)core->dtype < 0 || core->dtype > TT_I2) return 0;
    if (!tt__multiply(&size, (tt__dtype_bits(core->dtype) + 7) / 8)) return 0;
    if (core->group < TT_GROUP_ROW ||
        (core->group != 0 && (!core->scales || !tt__is_integer(core->dtype))))
      return 0;
  }
  return 1;
}

#ifndef TT_INFERENCE_ONLY
TTDEF tt_status tt_shape_check(const tt_shape *shape, ptrdiff_t rows, ptrdiff_t cols) {
  if (!shape || rows < 1 || cols < 1 || !tt__factors_valid(shape)) return TT_ERROR_INVALID;
  if (shape->ranks[0] != 1 || shape->ranks[shape->order] != 1) {
    // 0 is a request for 1
    if (shape->ranks[0] > 1 || shape->ranks[shape->order] > 1) return TT_ERROR_SHAPE;
  }
  ptrdiff_t m = tt__leg_product(shape, 0, shape->order, 1, 0),
            n = tt__leg_product(shape, 0, shape->order, 0, 1);
  if (m < 0 || n < 0 || tt__leg_product(shape, 0, shape->order, 1, 1) < 0) return TT_ERROR_MEMORY;
  return m < rows || n < cols ? TT_ERROR_SHAPE : TT_OK;
}

TTDEF ptrdiff_t tt_shape_params(const tt_shape *shape) {
  if (!shape || !tt__factors_valid(shape)) return -1;
  tt_shape counted = *shape;
  ptrdiff_t total = 0;
  for (int k = 0; k <= shape->order; k++) if (counted.ranks[k] == 0) counted.ranks[k] = 1;
  for (int k = 0; k < shape->order; k++) {
    ptrdiff_t count = tt__core_count(&counted, k);
    if (count < 0 || !tt__increase(&total, count)) return -1;
  }
  return total;
}

// min(value * factor, INT_MAX): ranks are int.
static ptrdiff_t tt__saturated(ptrdiff_t value, ptrdiff_t factor) {
  return tt__multiply(&value, factor) ? tt__min(value, INT_MAX) : INT_MAX;
}

TTDEF tt_status tt_shape_clip(tt_shape *shape, int max_rank) {
  if (!shape || max_rank < 0 || !tt__factors_valid(shape)) return TT_ERROR_INVALID;
  int order = shape->order, *ranks = shape->ranks;
  ranks[0] = ranks[order] = 1;
  for (int k = 1; k < order; k++) {
    ptrdiff_t most =
        tt__saturated(tt__saturated(ranks[k - 1], shape->rows[k - 1]), shape->cols[k - 1]);
    if (max_rank > 0) most = tt__min(most, max_rank);
    ranks[k] = ranks[k] ? (int)tt__min(ranks[k], most) : (int)most;
  }
  for (int k = order - 1; k > 0; k--) {
    ptrdiff_t most = tt__saturated(tt__saturated(ranks[k + 1], shape->rows[k]), shape->cols[k]);
    ranks[k] = (int)tt__min(ranks[k], most);
  }
  return TT_OK;
}

// The size >= `size`, at most about 6 % larger, that splits into `order` factors with the smallest
// spread; factors are left in *out, ascending. Every candidate is split greedily: the divisor
// nearest to the remaining root, again and again.
static double tt__split(ptrdiff_t size, int order, int *out) {
  double spread = 0;
  for (int left = order; left > 0; left--) {
    double root = pow((double)size, 1.0 / left);
    ptrdiff_t best = size;
    for (ptrdiff_t f = 1; left > 1 && f <= size && (double)f < 2 * root + 2; f++)
      if (size % f == 0 && fabs(log((double)f / root)) < fabs(log((double)best / root))) best = f;
    spread += fabs(log((double)best / root));
    out[order - left] = (int)best;
    size /= best;
  }
  return spread;
}

// Chooses the factors of one side: exact if balanced, else the best padding of at most 1/16.
static void tt__balanced(ptrdiff_t size, int order, int *out) {
  int trial[TT_MAX_ORDER];
  double best = tt__split(size, order, out);
  if (order == 1) return;
  for (ptrdiff_t padded = size + 1; padded <= size + size / 16 && padded < size + 1024; padded++) {
    double cost = tt__split(padded, order, trial) + 8 * (double)(padded - size) / (double)size;
    if (cost >= best - 0.25) continue;                       // padding must pay
    best = cost + 0.25;
    memcpy(out, trial, sizeof trial);
  }
  for (int i = 1; i < order; i++)                            // insertion sort, ascending
    for (int j = i; j > 0 && out[j] < out[j - 1]; j--) {
      int keep = out[j];
      out[j] = out[j - 1];
      out[j - 1] = keep;
    }
}

TTDEF tt_status tt_shape_factor(ptrdiff_t rows, ptrdiff_t cols, int order, tt_shape *out) {
  if (!out || rows < 1 || cols < 1 || rows > INT_MAX || cols > INT_MAX || order < 1 ||
      order > TT_MAX_ORDER)
    return TT_ERROR_INVALID;
  int ascending[TT_MAX_ORDER];
  memset(out, 0, sizeof *out);
  out->order = order;
  out->ranks[0] = out->ranks[order] = 1;
  tt__balanced(rows, order, ascending);
  for (int k = 0; k < order; k++) out->rows[k] = ascending[order - 1 - k];
  tt__balanced(cols, order, out->cols);
  return TT_OK;
}

TTDEF ptrdiff_t tt_shape_macs(const tt_shape *shape) {
  if (!shape || !tt__factors_valid(shape)) return -1;
  tt_shape counted = *shape;
  ptrdiff_t total = 0;
  for (int k = 0; k <= shape->order; k++) if (counted.ranks[k] == 0) counted.ranks[k] = 1;
  for (int k = 0; k < shape->order; k++) {
    ptrdiff_t macs = tt__core_count(&counted, k), before = tt__leg_product(shape, 0, k, 0, 1),
              after = tt__leg_product(shape, k + 1, shape->order, 1, 0);
    if (macs < 0 || before < 0 || after < 0 || !tt__multiply(&macs, before) ||
        !tt__multiply(&macs, after) || !tt__increase(&total, macs))
      return -1;
  }
  return total;
}

// ---- the search for factors

// Every ordered factorisation of the rows is paired with every one of the columns. 316 of either
// side make 1e5 pairs; an int has at most 1536 divisors. Steps bound the walk through a tree whose
// leaves may all be out of bounds.
enum { TT__MAX_FACTORINGS = 316, TT__MAX_DIVISORS = 1536 };
static const long tt__search_steps = 200000;

// All divisors, ascending, by trial division up to the root: the small ones, then their partners in
// reverse. Returns their number.
static int tt__divisors(int size, int *out) {
  int count = 0, small;
  for (int f = 1; f <= size / f; f++) if (size % f == 0) out[count++] = f;
  small = count;
  for (int i = small - 1; i >= 0; i--)
    if (size / out[i] != out[i]) out[count++] = size / out[i];
  return count;
}

// Could `left` factors of at most `largest` make up `rest`? Prunes dead ends: without it a long
// list of small factors is tried in vain again and again.
static int tt__can_split(int rest, int left, int largest) {
  double most = 1;
  for (int i = 0; i < left && most < rest; i++) most *= largest;
  return most >= rest;
}

// Ordered factorisations of the last divisor into factors of at most `largest`, the first `room` of
// them: depth first, one choice per level, with the levels on a stack of our own. Returns how many.
static int tt__factorizations(const int *divisors, int num, int order, int largest, int room,
                              int *out) {
  int rest[TT_MAX_ORDER], next[TT_MAX_ORDER], chosen[TT_MAX_ORDER], level = 0, count = 0;
  rest[0] = divisors[num - 1];
  next[0] = 0;
  for (long step = 0; level >= 0 && count < room && step < tt__search_steps; step++) {
    int i = next[level], last = level == order - 1;
    while (!last && i < num && divisors[i] <= largest && rest[level] % divisors[i]) i++;
    if (last) {
      chosen[level] = rest[level];                           // what is left
      if (rest[level] <= largest)
        memcpy(out + count++ * order, chosen, (size_t)order * sizeof(int));
    }
    if (last || i == num || divisors[i] > largest) {
      level--;
      continue;
    }
    next[level] = i + 1;
    chosen[level] = divisors[i];
    if (!tt__can_split(rest[level] / divisors[i], order - 1 - level, largest)) continue;
    rest[level + 1] = rest[level] / divisors[i];
    next[++level] = 0;
  }
  return count;
}

// Factorisations of one side, the most balanced if there are too many: the bound on the largest
// factor rises while the list fits. A list whose best largest factor is over four times the root is
// useless; the size is then padded, if that helps. out: 316 times order. Returns their number.
static int tt__side_factorings(ptrdiff_t size, int order, int *out) {
  int divisors[TT__MAX_DIVISORS], padded[TT_MAX_ORDER], extra[TT_MAX_ORDER], count = 0, best = 0;
  int num = tt__divisors((int)size, divisors), first = 0;
  ptrdiff_t product = 1;
  while (!tt__factorizations(divisors, num, order, divisors[first], 1, extra)) first++;
  if (divisors[first] > 4 * pow((double)size, 1.0 / order)) {
    tt__balanced(size, order, padded);
    for (int k = 0; k < order; k++) product *= padded[k];
    if (product > size && product <= INT_MAX) {
      num = tt__divisors((int)product, divisors);
      for (first = 0; divisors[first] < padded[order - 1];) first++;
    }
  }
  for (int i = first; i < num; i++) {
    count = tt__factorizations(divisors, num, order, divisors[i], TT__MAX_FACTORINGS, out);
    if (count == TT__MAX_FACTORINGS) break;
    best = i;
  }
  if (count < TT__MAX_FACTORINGS || best < first) return count;
  return tt__factorizations(divisors, num, order, divisors[best], TT__MAX_FACTORINGS, out);
}

// Puts a shape into a Pareto list (params rise, multiply-adds fall), which has room for one more.
// Dropped if another has no more of either; of equals the first stays. Those it beats stand behind
// it in one piece and are overwritten.
static void tt__pareto_insert(tt_shape *list, int *count, const tt_shape *shape) {
  ptrdiff_t params = tt_shape_params(shape), macs = tt_shape_macs(shape);
  int at = 0, end;
  if (params < 0 || macs < 0) return;
  while (at < *count && tt_shape_params(&list[at]) < params) at++;
  if (at > 0 && tt_shape_macs(&list[at - 1]) <= macs) return;
  if (at < *count && tt_shape_params(&list[at]) == params && tt_shape_macs(&list[at]) <= macs)
    return;
  for (end = at; end < *count && tt_shape_macs(&list[end]) >= macs;) end++;
  memmove(list + at + 1, list + end, (size_t)(*count - end) * sizeof *list);
  list[at] = *shape;
  *count += at + 1 - end;
}

// Are the legs of every core alike? rows/cols of a core may differ from the mean (M/N)^(1/order) by
// the factor `skew`, and no core has both legs 1. Without this bound the cheapest train of any rank
// is the low-rank factorisation, rows first and columns last: that one needs no search.
static int tt__legs_alike(const tt_shape *shape, double mean, double skew) {
  for (int k = 0; k < shape->order; k++) {
    double ratio = (double)shape->rows[k] / (double)shape->cols[k] / mean;
    if (shape->rows[k] == 1 && shape->cols[k] == 1) return 0;
    if (ratio > skew || ratio * skew < 1) return 0;
  }
  return 1;
}

// The Pareto set of all pairs of factorisations, in memory of the pool. The bound on the legs is
// loosened where no pair meets it (a vector has no row legs).
static tt_status tt__pareto_shapes(tt__pool *pool, ptrdiff_t rows, ptrdiff_t cols, int order,
                                   int rank, tt_shape **list, int *count) {
  int *of_rows = (int *)tt__take(pool, TT__MAX_FACTORINGS * order, (ptrdiff_t)sizeof(int));
  int *of_cols = (int *)tt__take(pool, TT__MAX_FACTORINGS * order, (ptrdiff_t)sizeof(int));
  *count = 0;
  if (pool->status) return pool->status;
  int num_rows = tt__side_factorings(rows, order, of_rows);
  int num_cols = tt__side_factorings(cols, order, of_cols);
  *list = (tt_shape *)tt__take(pool, num_rows * num_cols + 1, (ptrdiff_t)sizeof(tt_shape));
  if (pool->status) return pool->status;
  double mean = pow((double)rows / (double)cols, 1.0 / order);
  for (double skew = 4; *count == 0 && skew < 1e20; skew *= skew)
    for (int i = 0; i < num_rows * num_cols; i++) {
      tt_shape shape;
      memset(&shape, 0, sizeof shape);
      shape.order = order;
      memcpy(shape.rows, of_rows + i / num_cols * order, (size_t)order * sizeof(int));
      memcpy(shape.cols, of_cols + i % num_cols * order, (size_t)order * sizeof(int));
      if (tt__legs_alike(&shape, mean, skew) && !tt_shape_clip(&shape, rank))
        tt__pareto_insert(*list, count, &shape);
    }
  // the dense matrix has fewer parameters and multiply-adds than these
  while (*count > 1 && tt_shape_params(&(*list)[*count - 1]) / rows >= cols) --*count;
  return *count ? TT_OK : TT_ERROR_UNSUPPORTED;
}

TTDEF tt_status tt_shape_search(ptrdiff_t rows, ptrdiff_t cols, int order, int rank,
                                const tt_options *given, tt_shape *shapes, int *count) {
  tt_options options = tt__options(given);
  tt_shape *list;
  if (!count || *count < 0 || rows < 1 || cols < 1 || rows > INT_MAX || cols > INT_MAX ||
      order < 1 || order > TT_MAX_ORDER || rank < 1 || !tt__options_valid(given))
    return TT_ERROR_INVALID;
  tt__pool pool = tt__pool_open(&options.allocator);
  int room = *count;                                         // *count tells what is needed, too
  tt_status status = tt__pareto_shapes(&pool, rows, cols, order, rank, &list, count);
  if (!status && (!shapes || room < *count)) status = TT_ERROR_INVALID;
  if (!status) memcpy(shapes, list, (size_t)*count * sizeof *shapes);
  tt__pool_close(&pool);
  return status;
}

// Estimated nanoseconds of one step of the forward pass: multiply-adds, then the traffic of the
// core, which mostly comes from memory, and of the states, which mostly are in the cache.
static double tt__step_cost(const tt_shape *shape, int sweep, int first, int end, ptrdiff_t batch) {
  double outer = (double)batch, inner = 1, size = (double)shape->ranks[first] * shape->ranks[end];
  double m = 1, n = 1, left = shape->ranks[first], right = shape->ranks[end];
  for (int k = 0; k < shape->order; k++) {
    double rows = shape->rows[k], cols = shape->cols[k];
    if (k < first) outer *= sweep == TT_LEFT_TO_RIGHT ? rows : cols;
    else if (k >= end) inner *= sweep == TT_LEFT_TO_RIGHT ? cols : rows;
    else { m *= rows; n *= cols; }
  }
  size *= m * n;
  double in = outer * inner * n * (sweep == TT_LEFT_TO_RIGHT ? left : right);
  double result = outer * inner * m * (sweep == TT_LEFT_TO_RIGHT ? right : left);
  double narrow = inner > 1 && inner < 16 ? 16 / inner : 1;  // short inner loops waste lanes
#ifdef TT__SIMD
  const double macs_per_ns = 60;
#else
  const double macs_per_ns = 10;
#endif
  return 200 + outer * inner * size * narrow / macs_per_ns + size / 4 + (in + result) / 8;
}

// Best grouping for one direction, by dynamic programming over where the last group begins.
static double tt__best_groups(const tt_shape *shape, int sweep, ptrdiff_t batch, int *groups,
                              int *starts) {
  double best[TT_MAX_ORDER + 1];
  int from[TT_MAX_ORDER + 1], reversed[TT_MAX_ORDER + 1], count = 0;
  best[0] = 0;
  from[0] = 0;
  for (int end = 1; end <= shape->order; end++) {
    best[end] = HUGE_VAL;
    from[end] = 0;
    for (int first = end - 1; first >= 0; first--) {
      double cost = best[first] + tt__step_cost(shape, sweep, first, end, batch);
      if (tt__leg_product(shape, first, end, 1, 0) > INT_MAX ||
          tt__leg_product(shape, first, end, 0, 1) > INT_MAX)
        break;
      if (cost < best[end]) { best[end] = cost; from[end] = first; }
    }
  }
  for (int end = shape->order; end > 0; end = from[end]) reversed[count++] = from[end];
  *groups = count;
  for (int g = 0; g < count; g++) starts[g] = reversed[count - 1 - g];
  starts[count] = shape->order;
  return best[shape->order];
}

#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// ----------------------------------------------------------------------------------------- >>train
// Trains as objects, and as chains to compute with.
//
// A public train has coded cores in the layout of its sweep. Algebra works on a chain: the same
// cores as doubles in natural layout, with one exponent of two for the whole, so that norms far
// outside the range of double do not matter. Every operation is: read trains into chains, compute,
// store the chain. Storing goes through sources (see >>source), so a core that is a view of the
// input matrix is stored like any other.

// Bytes of codes and of scales of core k.
static void tt__core_sizes(const tt_matrix *w, int k, ptrdiff_t *data, ptrdiff_t *scales) {
  ptrdiff_t rows, length;
  tt__view_size(&w->shape, w->sweep, k, &rows, &length);
  *data = rows * tt__row_size(w->cores[k].dtype, length);
  *scales = rows * tt__row_scales(w->cores[k].group, length) * (w->cores[k].group > 0 ? 2 : 4);
}

// A zeroed train in one block. `header` gives shape, sweep, rows, cols and dtype and group of every
// core.
static tt_status tt__train_allocate(const tt_matrix *header, int with_bias,
                                    const tt_allocator *allocator, tt_matrix *out) {
  tt_matrix w = *header;
  ptrdiff_t total = 64, data, scales;
  memset(out, 0, sizeof *out);
  if (with_bias && !tt__add_size(&total, w.rows, (ptrdiff_t)sizeof(float))) return TT_ERROR_MEMORY;
  for (int k = 0; k < w.shape.order; k++) {
    ptrdiff_t count = tt__core_count(&w.shape, k);
    if (count < 0 || !tt__multiply(&count, 16)) return TT_ERROR_MEMORY;
    tt__core_sizes(&w, k, &data, &scales);
    if (!tt__add_size(&total, data, 1) || !tt__add_size(&total, scales, 1)) return TT_ERROR_MEMORY;
  }
  w.block = tt__allocate(allocator, total);
  if (!w.block) return TT_ERROR_MEMORY;
  memset(w.block, 0, (size_t)total);
  unsigned char *at = tt__align(w.block);
  for (int k = 0; k < w.shape.order; k++) {
    tt__core_sizes(&w, k, &data, &scales);
    w.cores[k].data = at;
    at += (data + 63) / 64 * 64;
    w.cores[k].scales = scales ? at : NULL;
    at += (scales + 63) / 64 * 64;
    w.cores[k].scale = 1;
    w.cores[k].packed = NULL;
  }
  w.bias = with_bias ? (const float *)(const void *)at : NULL;
  w.allocator = *allocator;
  *out = w;
  return TT_OK;
}

TTDEF void tt_free(tt_matrix *w) {
  if (!w) return;
  tt__release(&w->allocator, w->block);
  memset(w, 0, sizeof *w);
}

TTDEF void *tt_core_data(tt_matrix *w, int k) {
  if (!w || !w->block || k < 0 || k >= w->shape.order) return NULL;
  w->cores[k].packed = NULL;
  return (void *)w->cores[k].data;
}

TTDEF float *tt_bias_data(tt_matrix *w) {
  if (!w || !w->block || !w->bias) return NULL;
  return (float *)w->bias;
}

// The group of new cores: 0 in options means the default of the format.
static int tt__group_of(const tt_options *options) {
  if (!tt__is_integer(options->dtype)) return 0;
  if (options->group) return options->group;
  return options->dtype == TT_I8 ? TT_GROUP_ROW : 32;
}

// A header for tt__train_allocate with every core in the format of options.
static tt_matrix tt__header(const tt_shape *shape, ptrdiff_t rows, ptrdiff_t cols, tt_dtype dtype,
                            int group) {
  tt_matrix w;
  memset(&w, 0, sizeof w);
  w.shape = *shape;
  w.rows = rows;
  w.cols = cols;
  for (int k = 0; k < shape->order; k++) {
    w.cores[k].dtype = dtype;
    w.cores[k].group = group;
  }
  return w;
}

TTDEF tt_status tt_create(const tt_shape *shape, ptrdiff_t rows, ptrdiff_t cols,
                          const tt_options *given, tt_matrix *out) {
  tt_options options = tt__options(given);
  if (out) memset(out, 0, sizeof *out);
  if (!out || !tt__options_valid(given)) return TT_ERROR_INVALID;
  tt_status status = tt_shape_check(shape, rows, cols);
  if (status) return status;
  tt_shape filled = *shape, useful = *shape;
  status = tt_shape_clip(&useful, 0);
  for (int k = 0; k <= shape->order; k++)
    if (filled.ranks[k] == 0) filled.ranks[k] = useful.ranks[k];
  if (status) return status;
  tt_matrix header = tt__header(&filled, rows, cols, options.dtype, tt__group_of(&options));
  return tt__train_allocate(&header, 1, &options.allocator, out);
}

// ---- chains

typedef struct tt__chain {
  tt_shape shape;
  // natural layout (r_k, m_k, n_k, r_k+1)
  double *cores[TT_MAX_ORDER];
  // core k was read as 2^tamed[k] times what stands here
  int tamed[TT_MAX_ORDER];
  // the matrix is 2^exponent times the train
  int exponent;
} tt__chain;

// out (m, s, r, n) = in (r, m, n, s) or back: the two layouts differ by swapping pairs.
static void tt__turn_core(const tt_shape *shape, int k, int to_natural, const double *in,
                          double *out) {
  ptrdiff_t r = shape->ranks[k], m = shape->rows[k], n = shape->cols[k], s = shape->ranks[k + 1];
  for (ptrdiff_t a = 0; a < r; a++)
    for (ptrdiff_t i = 0; i < m; i++)
      for (ptrdiff_t j = 0; j < n; j++)
        for (ptrdiff_t b = 0; b < s; b++) {
          ptrdiff_t natural = ((a * m + i) * n + j) * s + b, turned = ((i * s + b) * r + a) * n + j;
          if (to_natural) out[natural] = in[turned];
          else out[turned] = in[natural];
        }
}

// Core k of a valid train as doubles in natural layout.
static void tt__read_core(tt__pool *pool, const tt_matrix *w, int k, double *out) {
  void *mark = pool->blocks;
  ptrdiff_t rows, length;
  tt__view_size(&w->shape, w->sweep, k, &rows, &length);
  if (w->sweep == TT_RIGHT_TO_LEFT) {
    tt__decode_f64(&w->cores[k], rows, length, out);
  } else {
    double *turned = tt__take_f64(pool, rows, length);
    if (turned) tt__decode_f64(&w->cores[k], rows, length, turned);
    if (turned) tt__turn_core(&w->shape, k, 1, turned, out);
  }
  tt__pool_rewind(pool, mark);
}

// Multiplies a core by the power of two that brings its largest entry near 1; the chain's exponent
// keeps it.
static void tt__tame(tt__chain *chain, ptrdiff_t count, double *values) {
  int exponent;
  double largest = tt__largest_magnitude(count, values);
  if (largest == 0) return;
  (void)frexp(largest, &exponent);
  for (ptrdiff_t i = 0; i < count; i++) values[i] = ldexp(values[i], -exponent);
  chain->exponent += exponent;
}

// Reads a train. Cores come out with a largest entry in [1/2, 1); NaN or Inf anywhere is an error.
static tt_status tt__chain_read(tt__pool *pool, const tt_matrix *w, tt__chain *chain) {
  memset(chain, 0, sizeof *chain);
  chain->shape = w->shape;
  for (int k = 0; k < w->shape.order; k++) {
    ptrdiff_t count = tt__core_count(&w->shape, k);
    chain->cores[k] = tt__take_f64(pool, count, 1);
    if (!pool->status) tt__read_core(pool, w, k, chain->cores[k]);
    if (pool->status) return pool->status;
    for (ptrdiff_t i = 0; i < count; i++)
      if (!tt__is_finite(chain->cores[k][i])) return TT_ERROR_NONFINITE;
    chain->tamed[k] = -chain->exponent;
    tt__tame(chain, count, chain->cores[k]);
    chain->tamed[k] += chain->exponent;
  }
  return TT_OK;
}

// Largest magnitude of a source.
static double tt__source_largest(tt__pool *pool, const tt__source *source) {
  void *mark = pool->blocks;
  ptrdiff_t width = tt__min(source->cols, TT__SLAB);
  double *slab = tt__take_f64(pool, TT__TILE_ROWS, width), largest = 0;
  for (ptrdiff_t i = 0; slab && i < source->rows; i += TT__TILE_ROWS)
    for (ptrdiff_t j = 0; j < source->cols; j += width) {
      ptrdiff_t high = tt__min(source->rows - i, TT__TILE_ROWS),
                now = tt__min(source->cols - j, width);
      tt__block(source, i, high, j, now, slab, now);
      double here = tt__largest_magnitude(high * now, slab);
      if (here > largest) largest = here;
    }
  tt__pool_rewind(pool, mark);
  return largest;
}

// Puts the exponent of two where the format can hold it: into core `center` if that stays in range,
// else evenly over all cores. Nothing is lost either way. Core k is to be multiplied by
// 2^shares[k].
static void tt__spread_exponent(int order, const double *largest, int center, int exponent,
                                tt_dtype dtype, int *shares) {
  int high = dtype == TT_F64 ? 1000 : 120, fits = 1, total = exponent, size[TT_MAX_ORDER];
  for (int k = 0; k < order; k++) {
    size[k] = 0;
    shares[k] = k == center ? exponent : 0;
    if (largest[k] == 0) continue;
    (void)frexp(largest[k], &size[k]);
    total += size[k];
    int wanted = size[k] + shares[k];
    if (wanted > high || wanted < -high) fits = 0;
  }
  for (int k = 0, left = total; k < order && !fits; k++) {
    int share = left / (order - k);
    left -= share;
    shares[k] = share - size[k];
  }
}

// value 2^exponent in two steps: 2^exponent itself may overflow.
static double tt__times_power(double value, int exponent) {
  value *= ldexp(1, exponent / 2);
  return value * ldexp(1, exponent - exponent / 2);
}

// Encodes one core, given as a source (rows, length) of its GEMM view, a few rows at a time.
static tt_status tt__store_core(tt__pool *pool, const tt__source *source, double largest,
                                tt_core *core) {
  void *mark = pool->blocks;
  ptrdiff_t length = source->cols,
            step = tt__max(1, tt__min(source->rows, 65536 / tt__max(1, length)));
  double *rows = tt__take_f64(pool, step, length);
  tt_status status = tt__encode_begin(core, largest);
  for (ptrdiff_t i = 0; rows && !status && i < source->rows; i += step) {
    ptrdiff_t now = tt__min(step, source->rows - i);
    tt__block(source, i, now, 0, length, rows, length);
    tt__encode_rows(core, i, now, length, rows);
  }
  tt__pool_rewind(pool, mark);
  return pool->status ? pool->status : status;
}

// Stores cores given as sources of their GEMM views into a new train described by header.
static tt_status tt__store(tt__pool *pool, const tt_matrix *header, const tt__source *given,
                           int center, int exponent, const float *bias, tt_matrix *out) {
  double largest[TT_MAX_ORDER] = {0};
  int order = header->shape.order, shares[TT_MAX_ORDER] = {0};
  for (int k = 0; k < order; k++) largest[k] = tt__source_largest(pool, &given[k]);
  tt__spread_exponent(order, largest, center, exponent, header->cores[center].dtype, shares);
  tt_status status = pool->status;
  if (!status) status = tt__train_allocate(header, bias != NULL, &pool->allocator, out);
  for (int k = 0; k < order && !status; k++) {
    tt__source source = given[k];
    source.scale = tt__times_power(source.scale, shares[k]);
    largest[k] *= source.scale / given[k].scale;
    status = tt__store_core(pool, &source, largest[k], &out->cores[k]);
  }
  if (bias && !status) memcpy(tt_bias_data(out), bias, (size_t)header->rows * sizeof(float));
  if (status) tt_free(out);
  return status;
}

// The bias of a new train: that of a given one, plus that of the options. NULL if there is none and
// none will be needed to make up for the mean input.
static const float *tt__bias_sum(tt__pool *pool, const tt_options *options, const float *bias,
                                 ptrdiff_t rows) {
  if (!options->bias && !options->inputs) return bias;
  float *sum = (float *)tt__take(pool, rows, (ptrdiff_t)sizeof(float));
  for (ptrdiff_t i = 0; sum && i < rows; i++) {
    double value = (bias ? (double)bias[i] : 0) + (options->bias ? (double)options->bias[i] : 0);
    if (fabs(value) > (double)FLT_MAX) pool->status = TT_ERROR_UNSUPPORTED;
    else sum[i] = (float)value;
  }
  return sum;
}

// Stores a chain in natural layout, all cores in one format.
static tt_status tt__chain_store(tt__pool *pool, const tt__chain *chain, int center,
                                 const tt_matrix *like, const tt_options *options, tt_matrix *out) {
  tt__source sources[TT_MAX_ORDER];
  tt_matrix header =
      tt__header(&chain->shape, like->rows, like->cols, options->dtype, tt__group_of(options));
  for (int k = 0; k < chain->shape.order; k++) {
    ptrdiff_t rows, length;
    tt__view_size(&chain->shape, TT_RIGHT_TO_LEFT, k, &rows, &length);
    sources[k] = tt__plain_source(chain->cores[k], 1, rows, length);
  }
  return tt__store(pool, &header, sources, center, chain->exponent, like->bias, out);
}

// Options of an operation on trains: NULL means float, or double where a train holds doubles.
static tt_options tt__train_options(const tt_options *given, const tt_matrix *a,
                                    const tt_matrix *b) {
  tt_options options = tt__options(given);
  for (int k = 0; !given && k < a->shape.order; k++)
    if (a->cores[k].dtype == TT_F64 || (b && b->cores[k].dtype == TT_F64)) options.dtype = TT_F64;
  if (!given) options.allocator = a->allocator;
  return options;
}

// The door of every operation: zeroes out, checks, completes the options.
static tt_status tt__enter(const tt_matrix *a, const tt_options *given, tt_matrix *out,
                           tt_options *options) {
  if (!out || !tt__valid(a) || !tt__options_valid(given) || out == a) {
    if (out && out != a) memset(out, 0, sizeof *out);
    return TT_ERROR_INVALID;
  }
  memset(out, 0, sizeof *out);
  *options = tt__train_options(given, a, NULL);
  return TT_OK;
}

#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// --------------------------------------------------------------------------------------- >>algebra
// Orthogonalisation, products, sums, norms, merging and expanding: every operation reads trains
// into chains, computes on the cores, and stores the chain (see >>train).

// ---- orthogonalisation

// Makes core k left-orthogonal, its columns ((r m n) x s) orthonormal, and moves the rest into core
// k+1.
static void tt__orthogonalize_left(tt__pool *pool, tt__chain *chain, int k) {
  void *mark = pool->blocks;
  ptrdiff_t s = chain->shape.ranks[k + 1], height = tt__core_count(&chain->shape, k) / s,
            q = tt__min(s, height);
  ptrdiff_t next = tt__core_count(&chain->shape, k + 1) / s;
  double *turned = tt__take_f64(pool, s, height), *l = tt__take_f64(pool, s, q),
         *tau = tt__take_f64(pool, q, 1);
  double *moved = tt__take_f64(pool, q, next);
  void *work = tt__take_work(pool);
  if (!pool->status) {
    for (ptrdiff_t i = 0; i < height; i++)
      for (ptrdiff_t j = 0; j < s; j++) turned[j * height + i] = chain->cores[k][i * s + j];
    tt__lq_factors(pool, s, height, turned, height, l, tau);       // core = Q^T L^T
    for (ptrdiff_t i = 0; i < height; i++)
      for (ptrdiff_t j = 0; j < q; j++) chain->cores[k][i * q + j] = turned[j * height + i];
    tt__matmul(q, next, s, l, q, chain->cores[k + 1], next, moved, next, TT_TRANSPOSE_A, work);
    memcpy(chain->cores[k + 1], moved, (size_t)(q * next) * sizeof(double));
    chain->shape.ranks[k + 1] = (int)q;
    tt__tame(chain, q * next, chain->cores[k + 1]);
  }
  tt__pool_rewind(pool, mark);
}

// core (rows, r) times factor (r, q), in place; q <= r.
static void tt__multiply_right(tt__pool *pool, ptrdiff_t rows, ptrdiff_t r, ptrdiff_t q,
                               double *core, const double *factor) {
  void *mark = pool->blocks;
  double *moved = tt__take_f64(pool, rows, q);
  void *work = tt__take_work(pool);
  if (!pool->status) {
    tt__matmul(rows, q, r, core, r, factor, q, moved, q, 0, work);
    memcpy(core, moved, (size_t)(rows * q) * sizeof(double));
  }
  tt__pool_rewind(pool, mark);
}

// Makes core k right-orthogonal, its rows (r x (m n s)) orthonormal, and moves the rest into core
// k-1.
static void tt__orthogonalize_right(tt__pool *pool, tt__chain *chain, int k) {
  void *mark = pool->blocks;
  ptrdiff_t r = chain->shape.ranks[k], width = tt__core_count(&chain->shape, k) / r,
            q = tt__min(r, width);
  ptrdiff_t height = tt__core_count(&chain->shape, k - 1) / r;
  double *l = tt__take_f64(pool, r, q), *tau = tt__take_f64(pool, q, 1);
  if (!pool->status) {
    tt__lq_factors(pool, r, width, chain->cores[k], width, l, tau);
    tt__multiply_right(pool, height, r, q, chain->cores[k - 1], l);
    chain->shape.ranks[k] = (int)q;
    tt__tame(chain, height * q, chain->cores[k - 1]);
  }
  tt__pool_rewind(pool, mark);
}

static tt_status tt__chain_center(tt__pool *pool, tt__chain *chain, int center) {
  for (int k = 0; k < center && !pool->status; k++) tt__orthogonalize_left(pool, chain, k);
  for (int k = chain->shape.order - 1; k > center && !pool->status; k--)
    tt__orthogonalize_right(pool, chain, k);
  return pool->status;
}

// Norm of a chain, which it leaves centred on core 0, as mantissa times 2^chain->exponent.
static double tt__chain_norm(tt__pool *pool, tt__chain *chain) {
  if (tt__chain_center(pool, chain, 0)) return 0;
  return tt__norm2(tt__core_count(&chain->shape, 0), chain->cores[0]);
}

TTDEF tt_status tt_orthogonalize(const tt_matrix *w, int center, const tt_options *given,
                                 tt_matrix *out) {
  tt_options options;
  tt_status status = tt__enter(w, given, out, &options);
  if (status) return status;
  if (center < 0 || center >= w->shape.order) return TT_ERROR_INVALID;
  tt__pool pool = tt__pool_open(&options.allocator);
  tt__chain chain;
  status = tt__chain_read(&pool, w, &chain);
  if (!status) status = tt__chain_center(&pool, &chain, center);
  if (!status) status = tt__chain_store(&pool, &chain, center, w, &options, out);
  tt__pool_close(&pool);
  return status;
}

TTDEF tt_status tt_norm(const tt_matrix *a, double *out) {
  if (!out || !tt__valid(a)) return TT_ERROR_INVALID;
  tt__pool pool = tt__pool_open(&a->allocator);
  tt__chain chain;
  tt_status status = tt__chain_read(&pool, a, &chain);
  double norm = status ? 0 : tt__chain_norm(&pool, &chain);
  if (!status) status = pool.status;
  if (!status) *out = ldexp(norm, chain.exponent);
  tt__pool_close(&pool);
  return status;
}

// ---- products and sums

static int tt__same_factors(const tt_matrix *a, const tt_matrix *b) {
  if (a->shape.order != b->shape.order) return 0;
  for (int k = 0; k < a->shape.order; k++)
    if (a->shape.rows[k] != b->shape.rows[k] || a->shape.cols[k] != b->shape.cols[k]) return 0;
  return 1;
}

// One step of the inner product: g (ra, rb) becomes sum over the leg of A^T g B, taken from core k.
static void tt__dot_step(tt__pool *pool, const tt__chain *a, const tt__chain *b, int k,
                         double **g) {
  void *mark = pool->blocks;
  ptrdiff_t ra = a->shape.ranks[k], rb = b->shape.ranks[k], sa = a->shape.ranks[k + 1],
            sb = b->shape.ranks[k + 1];
  ptrdiff_t leg = (ptrdiff_t)a->shape.rows[k] * a->shape.cols[k];
  double *half = tt__take_f64(pool, ra, leg * sb);
  void *work = tt__take_work(pool);
  double *next = g[1];
  if (!pool->status) {
    tt__matmul(ra, leg * sb, rb, g[0], rb, b->cores[k], leg * sb, half, leg * sb, 0, work);
    tt__matmul(sa, sb, ra * leg, a->cores[k], sa, half, sb, next, sb, TT_TRANSPOSE_A, work);
    g[1] = g[0];
    g[0] = next;
  }
  tt__pool_rewind(pool, mark);
}

TTDEF tt_status tt_dot(const tt_matrix *a, const tt_matrix *b, double *out) {
  if (!out || !tt__valid(a) || !tt__valid(b) || a->rows != b->rows || a->cols != b->cols)
    return TT_ERROR_INVALID;
  if (!tt__same_factors(a, b)) return TT_ERROR_SHAPE;
  tt__pool pool = tt__pool_open(&a->allocator);
  tt__chain left, right;
  ptrdiff_t room = 1;
  double *g[2];
  tt_status status = tt__chain_read(&pool, a, &left);
  if (!status) status = tt__chain_read(&pool, b, &right);
  for (int k = 0; k <= a->shape.order; k++)
    room = tt__max(room, (ptrdiff_t)a->shape.ranks[k] * b->shape.ranks[k]);
  g[0] = tt__take_f64(&pool, room, 1);
  g[1] = tt__take_f64(&pool, room, 1);
  if (!status) status = pool.status;
  if (!status) {
    g[0][0] = 1;
    for (int k = 0; k < a->shape.order && !pool.status; k++) {
      tt__dot_step(&pool, &left, &right, k, g);
      tt__tame(&left, (ptrdiff_t)a->shape.ranks[k + 1] * b->shape.ranks[k + 1], g[0]);
    }
    status = pool.status;
    if (!status) *out = ldexp(g[0][0], left.exponent + right.exponent);
  }
  tt__pool_close(&pool);
  return status;
}

// Core k of the sum: a block (A 0; 0 B), (A B) for the first and (A; B) for the last core. Factors
// bring both trains to a common exponent; they sit in the first core.
static void tt__sum_core(const tt__chain *a, const tt__chain *b, int k, double factor_a,
                         double factor_b, tt__chain *sum) {
  const tt__chain *part[2] = {a, b};
  double factor[2] = {factor_a, factor_b};
  int order = sum->shape.order;
  ptrdiff_t leg = (ptrdiff_t)sum->shape.rows[k] * sum->shape.cols[k],
            width = sum->shape.ranks[k + 1];
  for (int p = 0; p < 2; p++) {
    ptrdiff_t r = part[p]->shape.ranks[k], s = part[p]->shape.ranks[k + 1];
    ptrdiff_t down = p && k > 0 ? a->shape.ranks[k] : 0,
              across = p && k + 1 < order ? a->shape.ranks[k + 1] : 0;
    for (ptrdiff_t i = 0; i < r * leg; i++)
      for (ptrdiff_t j = 0; j < s; j++)
        sum->cores[k][(down * leg + i) * width + across + j] +=
            part[p]->cores[k][i * s + j] * (k ? 1 : factor[p]);
  }
}

// sum = a + b as chains.
static tt_status tt__chain_add(tt__pool *pool, const tt__chain *a, const tt__chain *b,
                               tt__chain *sum) {
  int order = a->shape.order, exponent = a->exponent > b->exponent ? a->exponent : b->exponent;
  *sum = *a;
  sum->exponent = exponent;
  for (int k = 1; k < order; k++) {
    ptrdiff_t rank = a->shape.ranks[k];
    if (!tt__increase(&rank, b->shape.ranks[k]) || rank > INT_MAX) return TT_ERROR_MEMORY;
    sum->shape.ranks[k] = (int)rank;
  }
  for (int k = 0; k < order; k++) {
    ptrdiff_t count = tt__core_count(&sum->shape, k);
    sum->cores[k] = tt__take_f64(pool, count, 1);            // -1 on overflow is refused
    if (pool->status) return pool->status;
    tt__sum_core(a, b, k, ldexp(1, a->exponent - exponent), ldexp(1, b->exponent - exponent), sum);
  }
  return TT_OK;
}

TTDEF tt_status tt_add(const tt_matrix *a, const tt_matrix *b, const tt_options *given,
                       tt_matrix *out) {
  tt_options options;
  if (b == out) return TT_ERROR_INVALID;                     // before anything is zeroed
  tt_status status = tt__enter(a, given, out, &options);
  if (status) return status;
  if (!tt__valid(b) || a->rows != b->rows || a->cols != b->cols) return TT_ERROR_INVALID;
  if (!tt__same_factors(a, b)) return TT_ERROR_SHAPE;
  options = tt__train_options(given, a, b);
  tt__pool pool = tt__pool_open(&options.allocator);
  tt__chain left, right, sum;
  tt_matrix like = *a;
  if (!a->bias) like.bias = b->bias;
  status = tt__chain_read(&pool, a, &left);
  if (!status) status = tt__chain_read(&pool, b, &right);
  if (!status) status = tt__chain_add(&pool, &left, &right, &sum);
  if (!status) status = tt__chain_store(&pool, &sum, 0, &like, &options, out);
  for (ptrdiff_t i = 0; !status && a->bias && b->bias && i < b->rows; i++)
    tt_bias_data(out)[i] += b->bias[i];
  tt__pool_close(&pool);
  return status;
}

TTDEF tt_status tt_scale(const tt_matrix *w, double factor, const tt_options *given,
                         tt_matrix *out) {
  tt_options options;
  int exponent = 0;
  tt_status status = tt__enter(w, given, out, &options);
  if (status) return status;
  if (!tt__is_finite(factor)) return TT_ERROR_INVALID;
  tt__pool pool = tt__pool_open(&options.allocator);
  tt__chain chain;
  status = tt__chain_read(&pool, w, &chain);
  if (!status) {
    double mantissa = frexp(factor, &exponent);
    tt_matrix like = *w;
    tt__scale_row(tt__core_count(&chain.shape, 0), mantissa, chain.cores[0]);
    chain.exponent += exponent;
    status = tt__chain_store(&pool, &chain, 0, &like, &options, out);
  }
  for (ptrdiff_t i = 0; !status && w->bias && i < w->rows; i++) {
    double value = factor * (double)w->bias[i];
    if (fabs(value) > (double)FLT_MAX && tt__is_finite((double)w->bias[i]))
      status = TT_ERROR_UNSUPPORTED;
    else tt_bias_data(out)[i] = (float)value;
  }
  if (status) tt_free(out);
  tt__pool_close(&pool);
  return status;
}

TTDEF tt_status tt_transpose(const tt_matrix *w, const tt_options *given, tt_matrix *out) {
  tt_options options;
  tt_status status = tt__enter(w, given, out, &options);
  if (status) return status;
  tt__pool pool = tt__pool_open(&options.allocator);
  tt__chain chain;
  status = tt__chain_read(&pool, w, &chain);
  for (int k = 0; k < w->shape.order && !status; k++) {
    ptrdiff_t r = w->shape.ranks[k], m = w->shape.rows[k], n = w->shape.cols[k],
              s = w->shape.ranks[k + 1];
    double *turned = tt__take_f64(&pool, r * m * n, s);
    for (ptrdiff_t i = 0; turned && i < r * m * n; i++) {
      ptrdiff_t a = i / (m * n), row = i / n % m, col = i % n;
      memcpy(turned + ((a * n + col) * m + row) * s, chain.cores[k] + i * s,
             (size_t)s * sizeof(double));
    }
    chain.cores[k] = turned;
    chain.shape.rows[k] = (int)n;
    chain.shape.cols[k] = (int)m;
    status = pool.status;
  }
  tt_matrix like = *w;
  like.rows = w->cols;
  like.cols = w->rows;
  like.bias = NULL;
  if (!status) status = tt__chain_store(&pool, &chain, 0, &like, &options, out);
  tt__pool_close(&pool);
  return status;
}

// ---- merging and expanding

// Merges core `k` and the next one of a chain: out (r, m1 m2, n1 n2, t), element by element of the
// first leg one small product: out(a, i1 i2, j1 j2, b) = sum_s left(a, i1, j1, s) right(s, i2, j2,
// b).
static void tt__merge_pair(const tt_shape *shape, int k, const double *left, const double *right,
                           double *out, double *part, void *work) {
  ptrdiff_t r = shape->ranks[k], s = shape->ranks[k + 1], t = shape->ranks[k + 2];
  ptrdiff_t m1 = shape->rows[k], n1 = shape->cols[k], m2 = shape->rows[k + 1],
            n2 = shape->cols[k + 1];
  for (ptrdiff_t a = 0; a < r * m1; a++) {                   // a = (rank, i1)
    tt__matmul(n1, m2 * n2 * t, s, left + a * n1 * s, s, right, m2 * n2 * t, part, m2 * n2 * t, 0,
               work);
    for (ptrdiff_t i2 = 0; i2 < m2; i2++)
      for (ptrdiff_t j1 = 0; j1 < n1; j1++)
        memcpy(out + ((a * m2 + i2) * n1 + j1) * n2 * t, part + (j1 * m2 + i2) * n2 * t,
               (size_t)(n2 * t) * sizeof(double));
  }
}

// Merges cores first .. first+count-1 of a chain into one, from the left.
static tt_status tt__chain_merge(tt__pool *pool, tt__chain *chain, int first, int count) {
  void *work = tt__take_work(pool);
  for (; count > 1; count--) {
    tt_shape *shape = &chain->shape, merged = *shape;
    ptrdiff_t m = shape->rows[first], n = shape->cols[first], size;
    if (!tt__multiply(&m, shape->rows[first + 1]) || !tt__multiply(&n, shape->cols[first + 1]) ||
        m > INT_MAX || n > INT_MAX)
      return TT_ERROR_MEMORY;
    merged.rows[first] = (int)m;
    merged.cols[first] = (int)n;
    merged.ranks[first + 1] = shape->ranks[first + 2];
    size = tt__core_count(&merged, first);
    double *out = tt__take_f64(pool, size, 1);
    double *part = tt__take_f64(pool, shape->cols[first],
                                tt__core_count(shape, first + 1) / shape->ranks[first + 1]);
    if (pool->status) return pool->status;
    tt__merge_pair(shape, first, chain->cores[first], chain->cores[first + 1], out, part, work);
    chain->cores[first] = out;
    for (int k = first + 1; k + 1 < shape->order; k++) {
      merged.rows[k] = shape->rows[k + 1];
      merged.cols[k] = shape->cols[k + 1];
      merged.ranks[k + 1] = shape->ranks[k + 2];
      chain->cores[k] = chain->cores[k + 1];
    }
    merged.order--;
    *shape = merged;
  }
  return TT_OK;
}

// Where a core keeps its codes: its data, scales and scale are copied as they are.
static void tt__copy_core(const tt_matrix *from, int k, tt_matrix *to, int at) {
  ptrdiff_t data, scales;
  tt__core_sizes(from, k, &data, &scales);
  memcpy(tt_core_data(to, at), from->cores[k].data, (size_t)data);
  if (scales) memcpy((void *)to->cores[at].scales, from->cores[k].scales, (size_t)scales);
  to->cores[at].scale = from->cores[k].scale;
}

// Stores group g of a regrouped chain, whose cores were scaled by 2^exponent when read, in its new
// layout.
static tt_status tt__store_group(tt__pool *pool, const tt__chain *chain, int g, int exponent,
                                 tt_matrix *out) {
  ptrdiff_t rows, length;
  tt__view_size(&chain->shape, out->sweep, g, &rows, &length);
  double *values = chain->cores[g];
  if (out->sweep == TT_LEFT_TO_RIGHT) {
    values = tt__take_f64(pool, rows, length);
    if (!values) return pool->status;
    tt__turn_core(&chain->shape, g, 0, chain->cores[g], values);
  }
  for (ptrdiff_t i = 0; i < rows * length; i++) values[i] = ldexp(values[i], exponent);
  tt__source source = tt__plain_source(values, 1, rows, length);
  return tt__store_core(pool, &source, tt__largest_magnitude(rows * length, values),
                        &out->cores[g]);
}

// The train with cores grouped: group g is cores starts[g] .. starts[g+1]-1. A group of one core
// whose sweep stays keeps its codes, every other group is merged and stored in the format of
// options.
static tt_status tt__regroup(const tt_matrix *w, int groups, const int *starts, int sweep,
                             const tt_options *options, tt_matrix *out) {
  tt__pool pool = tt__pool_open(&options->allocator);
  tt__chain chain;
  int exponent[TT_MAX_ORDER] = {0};
  tt_status status = tt__chain_read(&pool, w, &chain);
  for (int g = 0; g < groups; g++)
    for (int k = starts[g]; k < starts[g + 1] && !status; k++) exponent[g] += chain.tamed[k];
  for (int g = groups - 1; g >= 0 && !status; g--)
    status = tt__chain_merge(&pool, &chain, starts[g], starts[g + 1] - starts[g]);
  if (!status) status = pool.status;
  tt_matrix header =
      tt__header(&chain.shape, w->rows, w->cols, options->dtype, tt__group_of(options));
  header.sweep = sweep;
  for (int g = 0; g < groups; g++) {
    if (sweep != w->sweep || starts[g + 1] - starts[g] > 1) continue;
    header.cores[g].dtype = w->cores[starts[g]].dtype;
    header.cores[g].group = w->cores[starts[g]].group;
  }
  if (!status) status = tt__train_allocate(&header, w->bias != NULL, &options->allocator, out);
  for (int g = 0; g < groups && !status; g++) {
    if (sweep == w->sweep && starts[g + 1] - starts[g] == 1) tt__copy_core(w, starts[g], out, g);
    else status = tt__store_group(&pool, &chain, g, exponent[g], out);
  }
  if (!status && w->bias) memcpy(tt_bias_data(out), w->bias, (size_t)w->rows * sizeof(float));
  if (status) tt_free(out);
  tt__pool_close(&pool);
  return status;
}

TTDEF tt_status tt_merge(const tt_matrix *w, int first, int count, const tt_options *given,
                         tt_matrix *out) {
  tt_options options;
  int starts[TT_MAX_ORDER + 1], groups = 0;
  tt_status status = tt__enter(w, given, out, &options);
  if (status) return status;
  if (first < 0 || count < 1 || first > w->shape.order - count) return TT_ERROR_INVALID;
  for (int k = 0; k < w->shape.order; k++)
    if (k <= first || k >= first + count) starts[groups++] = k;
  starts[groups] = w->shape.order;
  return tt__regroup(w, groups, starts, w->sweep, &options, out);
}

// The matrix of a chain: the left and the right half are merged, then multiplied row by row.
static tt_status tt__chain_expand(tt__pool *pool, tt__chain *chain, const tt_matrix *w, void *dense,
                                  int wide) {
  int order = chain->shape.order, half = order / 2;
  void *work = tt__take_work(pool);
  tt_status status = tt__chain_merge(pool, chain, half, order - half);
  if (!status && half > 0) status = tt__chain_merge(pool, chain, 0, half);
  if (status || pool->status) return status ? status : pool->status;
  const tt_shape *shape = &chain->shape;
  int two = shape->order == 2;
  ptrdiff_t s = two ? shape->ranks[1] : 1, m1 = two ? shape->rows[0] : 1,
            n1 = two ? shape->cols[0] : 1;
  ptrdiff_t m2 = shape->rows[two], n2 = shape->cols[two];
  const double unit = 1, *left = two ? chain->cores[0] : &unit, *right = chain->cores[two];
  double *part = tt__take_f64(pool, n1, m2 * n2);            // one digit of the row: (j1, i2 j2)
  if (pool->status) return pool->status;
  for (ptrdiff_t i1 = 0; i1 < m1; i1++) {
    tt__matmul(n1, m2 * n2, s, left + i1 * n1 * s, s, right, m2 * n2, part, m2 * n2, 0, work);
    for (ptrdiff_t i2 = 0; i2 < m2 && i1 * m2 + i2 < w->rows; i2++)
      for (ptrdiff_t j = 0; j < w->cols; j++) {
        double value = ldexp(part[((j / n2) * m2 + i2) * n2 + j % n2], chain->exponent);
        tt__put_element(dense, wide, (i1 * m2 + i2) * w->cols + j, value);
      }
  }
  return TT_OK;
}

static tt_status tt__public_expand(const tt_matrix *w, void *dense, int wide) {
  if (!dense || !tt__valid(w)) return TT_ERROR_INVALID;
  tt__pool pool = tt__pool_open(&w->allocator);
  tt__chain chain;
  tt_status status = tt__chain_read(&pool, w, &chain);
  if (!status) status = tt__chain_expand(&pool, &chain, w, dense, wide);
  tt__pool_close(&pool);
  return status;
}

TTDEF tt_status tt_expand(const tt_matrix *w, float *dense) {
  return tt__public_expand(w, dense, 0);
}
TTDEF tt_status tt_expand_f64(const tt_matrix *w, double *dense) {
  return tt__public_expand(w, dense, 1);
}

TTDEF tt_status tt_prepare(const tt_matrix *w, ptrdiff_t batch, const tt_options *given,
                           tt_matrix *out) {
  tt_options options;
  tt_status status = tt__enter(w, given, out, &options);
  if (status) return status;
  if (batch < 0) return TT_ERROR_INVALID;
  int starts[2][TT_MAX_ORDER + 1], groups[2], other = !w->sweep;
  batch = tt__max(batch, 1);
  double stay = tt__best_groups(&w->shape, w->sweep, batch, &groups[w->sweep], starts[w->sweep]);
  double turn = tt__best_groups(&w->shape, other, batch, &groups[other], starts[other]);
  int sweep = turn < stay ? other : w->sweep;
  return tt__regroup(w, groups[sweep], starts[sweep], sweep, &options, out);
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// ---------------------------------------------------------------------------------------- >>inputs
// What flows into a layer, as count n, mean mu and scatter S = sum (x - mu)(x - mu)^T, all double.
// A batch is centred on its own mean and merged exactly [Chan83]: with d the difference of the two
// means, S grows by S' + d d^T n n' / (n + n'). Sums of squares are never subtracted, so a large
// mean costs no digits. From here come E||E x||^2 = tr(E (S/n + mu mu^T) E^T) and, once the bias
// makes up for the mean, the centred tr(E S/n E^T) that every fit minimises.

struct tt_inputs {
  ptrdiff_t cols, count;
  int diagonal;
  double *mean, *scatter;      // (cols); (cols, cols), or (cols) if diagonal
  tt_sha256 stream;            // of the samples
  unsigned char known[32];     // digest of a record read from a file, until samples are added
  int is_known;
  tt_allocator allocator;
};

TTDEF tt_status tt_inputs_create(ptrdiff_t cols, const tt_options *given, tt_inputs **out) {
  if (!out) return TT_ERROR_INVALID;
  *out = NULL;
  if (cols < 1 || !tt__options_valid(given)) return TT_ERROR_INVALID;
  tt_options options = tt__options(given);
  ptrdiff_t total = 64, square = cols;
  if ((!options.diagonal_inputs && !tt__multiply(&square, cols)) ||
      !tt__add_size(&total, (ptrdiff_t)sizeof(tt_inputs), 1) || !tt__add_size(&total, cols, 8) ||
      !tt__add_size(&total, square, 8))
    return TT_ERROR_MEMORY;
  tt_inputs *inputs = (tt_inputs *)tt__allocate(&options.allocator, total);
  if (!inputs) return TT_ERROR_MEMORY;
  memset(inputs, 0, (size_t)total);
  inputs->cols = cols;
  inputs->diagonal = options.diagonal_inputs != 0;
  inputs->mean = (double *)(void *)tt__align(inputs + 1);
  inputs->scatter = (double *)(void *)tt__align(inputs->mean + cols);
  inputs->allocator = options.allocator;
  tt_sha256_begin(&inputs->stream);
  *out = inputs;
  return TT_OK;
}

TTDEF void tt_inputs_free(tt_inputs *inputs) {
  if (!inputs) return;
  tt_allocator allocator = inputs->allocator;
  tt__release(&allocator, inputs);
}

TTDEF ptrdiff_t tt_inputs_count(const tt_inputs *inputs) { return inputs ? inputs->count : 0; }
TTDEF ptrdiff_t tt_inputs_cols(const tt_inputs *inputs) { return inputs ? inputs->cols : 0; }

// Merges count > 0 samples of this mean; their scatter about it already stands in inputs->scatter.
// mean is overwritten.
static void tt__inputs_join(tt_inputs *inputs, ptrdiff_t count, double *mean) {
  ptrdiff_t n = inputs->cols;
  double share = (double)count / ((double)inputs->count + (double)count);
  double weight = (double)inputs->count * share;
  tt__axpy(n, -1, inputs->mean, mean);                       // the difference of the means
  tt__axpy(n, share, mean, inputs->mean);
  for (ptrdiff_t i = 0; i < n && weight > 0; i++) {
    if (inputs->diagonal) inputs->scatter[i] += weight * mean[i] * mean[i];
    else tt__axpy(n, weight * mean[i], mean, inputs->scatter + i * n);
  }
  inputs->count += count;
}

// Centres `count` samples in x (count, cols) on their mean and adds their scatter.
static void tt__inputs_scatter(tt_inputs *inputs, ptrdiff_t count, double *x, double *mean,
                               void *work) {
  ptrdiff_t n = inputs->cols;
  memset(mean, 0, (size_t)n * sizeof(double));
  for (ptrdiff_t i = 0; i < count; i++) tt__axpy(n, 1 / (double)count, x + i * n, mean);
  for (ptrdiff_t i = 0; i < count; i++) tt__axpy(n, -1, mean, x + i * n);
  if (!inputs->diagonal) {
    tt__matmul(n, n, count, x, n, x, n, inputs->scatter, n, TT_TRANSPOSE_A | TT_ACCUMULATE, work);
    return;
  }
  for (ptrdiff_t i = 0; i < count; i++)
    for (ptrdiff_t j = 0; j < n; j++) inputs->scatter[j] += x[i * n + j] * x[i * n + j];
}

// The stream of digests goes on behind a record that was read from a file.
static void tt__inputs_resume(tt_inputs *inputs) {
  if (inputs->is_known) tt_sha256_add(&inputs->stream, inputs->known, 32);
  inputs->is_known = 0;
}

static void tt__inputs_hash(tt_inputs *inputs, const float *x, ptrdiff_t count) {
  unsigned char bytes[4 * 64];
  tt__inputs_resume(inputs);
  for (ptrdiff_t i = 0; i < count;) {
    size_t used = 0;
    for (; used < sizeof bytes && i < count; i++)
      for (uint32_t bits = tt__float_bits(x[i]), k = 0; k < 4; k++)
        bytes[used++] = (unsigned char)(bits >> 8 * k);
    tt_sha256_add(&inputs->stream, bytes, used);
  }
}

TTDEF tt_status tt_inputs_add(tt_inputs *inputs, const float *x, ptrdiff_t batch) {
  enum { ROWS = 128 };         // samples that are merged at a time
  if (!inputs || batch < 0) return TT_ERROR_INVALID;
  if (batch == 0) return TT_OK;
  ptrdiff_t n = inputs->cols, size = batch, after = inputs->count;
  if (!x) return TT_ERROR_INVALID;
  if (!tt__multiply(&size, n) || !tt__increase(&after, batch)) return TT_ERROR_MEMORY;
  for (ptrdiff_t i = 0; i < size; i++) if (!tt__is_finite((double)x[i])) return TT_ERROR_NONFINITE;
  tt__pool pool = tt__pool_open(&inputs->allocator);
  double *rows = tt__take_f64(&pool, tt__min(batch, ROWS), n), *mean = tt__take_f64(&pool, n, 1);
  void *work = tt__take_work(&pool);
  tt_status status = pool.status;
  for (ptrdiff_t i = 0; i < batch && !status; i += ROWS) {
    ptrdiff_t now = tt__min(batch - i, ROWS);
    for (ptrdiff_t t = 0; t < now * n; t++) rows[t] = (double)x[i * n + t];
    tt__inputs_scatter(inputs, now, rows, mean, work);
    tt__inputs_join(inputs, now, mean);
  }
  if (!status) tt__inputs_hash(inputs, x, size);
  tt__pool_close(&pool);
  return status;
}

TTDEF tt_status tt_inputs_merge(tt_inputs *into, const tt_inputs *from) {
  unsigned char digest[32];
  if (!into || !from || into == from || into->cols != from->cols ||
      into->diagonal != from->diagonal)
    return TT_ERROR_INVALID;
  ptrdiff_t n = into->cols, size = into->diagonal ? n : n * n, after = into->count;
  if (!tt__increase(&after, from->count)) return TT_ERROR_MEMORY;
  if (from->count == 0) return TT_OK;
  tt__pool pool = tt__pool_open(&into->allocator);
  double *mean = tt__take_f64(&pool, n, 1);
  tt_status status = pool.status;
  if (!status) {
    memcpy(mean, from->mean, (size_t)n * sizeof(double));
    tt__axpy(size, 1, from->scatter, into->scatter);
    tt__inputs_join(into, from->count, mean);
    tt__inputs_resume(into);
    status = tt_inputs_digest(from, digest);
    tt_sha256_add(&into->stream, digest, 32);
  }
  tt__pool_close(&pool);
  return status;
}

TTDEF tt_status tt_inputs_moments(const tt_inputs *inputs, double *mean, double *covariance) {
  if (!inputs) return TT_ERROR_INVALID;
  ptrdiff_t n = inputs->cols;
  double divide = inputs->count > 0 ? (double)inputs->count : 1;
  if (mean) memcpy(mean, inputs->mean, (size_t)n * sizeof(double));
  for (ptrdiff_t i = 0; covariance && i < n; i++)
    for (ptrdiff_t j = 0; j < n; j++)
      covariance[i * n + j] = inputs->diagonal ? (i == j ? inputs->scatter[i] / divide : 0)
                                               : inputs->scatter[i * n + j] / divide;
  return TT_OK;
}

TTDEF tt_status tt_inputs_digest(const tt_inputs *inputs, unsigned char digest[32]) {
  if (!inputs || !digest) return TT_ERROR_INVALID;
  tt_sha256 stream = inputs->stream;
  if (inputs->is_known) memcpy(digest, inputs->known, 32);
  else tt_sha256_end(&stream, digest);
  return TT_OK;
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// -------------------------------------------------------------------------------------- >>compress
// TT-SVD [Oseledets11, algorithm 1]: from left to right, unfold what is left as (r_k m_k n_k) x
// rest, keep the leading left singular vectors U as core k, go on with U^T A. As all cores but the
// last are left-orthogonal, the squared error is the sum of the squared discarded tails.
//
// The first unfolding is read from the input through its legs; U^T A is written panel by panel into
// one working array and later over itself, so there is never more than one copy of the matrix. A
// bond that no limit cuts needs no SVD: its core is the identity and the view just gains a leg. A
// tall unfolding is decomposed from its short side V: U is the orthogonal factor of A V.

// What is left to decompose before core k.
typedef struct tt__remainder {
  const tt_shape *shape;                                     // factors; ranks found so far
  // the matrix itself: array, size, scale
  tt__source input;
  // (rank, rest), or NULL: still the input, seen through its legs
  void *array;
  ptrdiff_t rank;
  double square;                                             // squared norm of what is left, scaled
} tt__remainder;

// The remainder as a matrix: rows = rank and leg k (of which the last column digits may go to the
// columns instead), columns = all later legs.
static tt__source tt__unfolding(const tt__remainder *left, int k, int cols_go_down) {
  const tt_shape *shape = left->shape;
  tt__source view = left->input;
  ptrdiff_t m = shape->rows[k], n = shape->cols[k],
            rest = tt__leg_product(shape, k + 1, shape->order, 1, 1);
  memset(&view.down, 0, sizeof view.down);
  memset(&view.across, 0, sizeof view.across);
  tt__legs *of_cols = cols_go_down ? &view.down : &view.across;
  if (left->array) {
    view.data = left->array;
    view.scale = 1;
    view.true_rows = 1;
    view.true_cols = left->rank * m * n * rest;
    tt__legs_add(&view.down, left->rank * m, 0, n * rest);
    tt__legs_add(of_cols, n, 0, rest);
    tt__legs_add(&view.across, rest, 0, 1);
  } else {
    for (int j = 0; j < shape->order; j++) {
      ptrdiff_t row = tt__leg_product(shape, j + 1, shape->order, 1, 0),
                col = tt__leg_product(shape, j + 1, shape->order, 0, 1);
      tt__legs_add(j <= k ? &view.down : &view.across, shape->rows[j], row, 0);
      tt__legs_add(j < k ? &view.down : j == k ? of_cols : &view.across, shape->cols[j], 0, col);
    }
  }
  view.rows = left->rank * m * (cols_go_down ? n : 1);
  view.cols = rest * (cols_go_down ? 1 : n);
  return view;
}

// A core (r m, n s) whose entries stand transposed in vectors (s, r m n).
static tt__source tt__core_of_vectors(const double *vectors, ptrdiff_t height, ptrdiff_t n,
                                      ptrdiff_t s) {
  tt__source core = tt__plain_source(vectors, 1, s, height);
  core.down.count = core.across.count = 0;
  tt__legs_add(&core.down, height / n, 0, n);
  tt__legs_add(&core.across, n, 0, 1);
  tt__legs_add(&core.across, s, 1, 0);
  core.rows = height / n;
  core.cols = n * s;
  return core;
}

// Entropy of a spectrum with `unseen` squared weight below it, counted as one value.
static double tt__weighted_entropy(const double *values, ptrdiff_t count, double unseen) {
  double total = unseen, sum = 0;
  for (ptrdiff_t i = 0; i < count; i++) total += values[i] * values[i];
  for (ptrdiff_t i = 0; i <= count && total > 0; i++) {
    double p = (i < count ? values[i] * values[i] : unseen) / total;
    if (p > 0) sum -= p * log(p);
  }
  return sum > 0 ? sum : 0;
}

// The limits of one bond.
typedef struct tt__limits {
  ptrdiff_t side;                                            // smaller side of the unfolding
  ptrdiff_t cap;                                             // 0 = none
  // squared weight that may be cut; 0 = none asked for
  double budget;
} tt__limits;

static tt__limits tt__bond_limits(ptrdiff_t side, int request, const tt_options *options,
                                  double square, int order) {
  tt__limits limits = {side, request, 0};
  if (options->max_rank > 0 && (request == 0 || options->max_rank < request))
    limits.cap = options->max_rank;
  if (order > 1) limits.budget = options->epsilon * options->epsilon * square / (order - 1);
  return limits;
}

// Chooses the rank of a bond and says in the report (at bond k) what was cut and why. Returns the
// rank and the squared weight that is cut.
static ptrdiff_t tt__choose_rank(const tt__factor *factor, const tt__limits *limits, double epsilon,
                                 double *cut, int *why) {
  double tail = tt__unseen(factor);
  ptrdiff_t rank = factor->count,
            most = limits->cap > 0 ? tt__min(limits->cap, factor->count) : factor->count;
  *why = TT_LIMIT_SHAPE;
  while (rank > 1) {
    double next = tail + factor->values[rank - 1] * factor->values[rank - 1];
    if (rank <= most && (epsilon <= 0 || next > limits->budget)) break;
    tail = next;
    rank--;
  }
  if (rank < limits->side)
    *why = rank == most && limits->cap > 0 && limits->cap < limits->side ? TT_LIMIT_CAP
                                                                         : TT_LIMIT_EPSILON;
  if (*why == TT_LIMIT_CAP && epsilon > 0 && tail <= limits->budget) {
    double with_one_less = tail + factor->values[rank - 1] * factor->values[rank - 1];
    // the cap allowed just what was needed
    if (rank > 1 && with_one_less > limits->budget) *why = TT_LIMIT_EPSILON;
  }
  *cut = tail;
  return rank;
}

static double *tt__identity(tt__pool *pool, ptrdiff_t n) {
  double *identity = tt__take_f64(pool, n, n);
  for (ptrdiff_t i = 0; identity && i < n; i++) identity[i * n + i] = 1;
  return identity;
}

// Room for the remainder behind a cut to `rank`: taken at the first cut, then reused.
static void tt__take_array(tt__pool *keep, tt__remainder *left, ptrdiff_t rank, ptrdiff_t rest,
                           void **array) {
  ptrdiff_t element = left->input.wide ? 8 : (ptrdiff_t)sizeof(float);
  *array = left->array;
  if (left->array) return;
  if (!tt__multiply(&rank, rest)) keep->status = TT_ERROR_MEMORY;
  *array = tt__take(keep, rank, element);
}

// Cut of a wide unfolding: core = U, remainder = U^T A.
static tt_status tt__cut_wide(tt__pool *keep, tt__pool *scratch, tt__remainder *left,
                              const tt__source *view, const tt__factor *factor, ptrdiff_t rank,
                              double **core) {
  void *array;
  tt__floats floats;
  *core = tt__take_f64(keep, rank, view->rows);
  tt__take_array(keep, left, rank, view->cols, &array);
  if (keep->status) return keep->status;
  memcpy(*core, factor->vectors, (size_t)(rank * view->rows) * sizeof(double));
  if (!factor->complete && tt__float_view(view, &floats))
    tt__project_floats(scratch, *core, rank, view->rows, view->cols, &floats, (float *)array);
  else tt__project(scratch, *core, rank, view, array, view->wide);
  left->array = array;
  return scratch->status;
}

// Cut of a tall unfolding A (m,n) with right vectors V as rows: (A V^T)^T = L Q, core = Q,
// remainder = L^T V.
static tt_status tt__cut_tall(tt__pool *keep, tt__pool *scratch, tt__remainder *left,
                              const tt__source *view, const double *vectors, ptrdiff_t rank,
                              double **core) {
  void *array;
  tt__source turned = tt__turned(view);
  ptrdiff_t m = view->rows, n = view->cols;
  double *l = tt__take_f64(scratch, rank, rank), *tau = tt__take_f64(scratch, rank, 1),
         *next = tt__take_f64(scratch, rank, n);
  void *work = tt__take_work(scratch);
  *core = tt__take_f64(keep, rank, m);
  tt__take_array(keep, left, rank, n, &array);
  if (keep->status || scratch->status) return TT_ERROR_MEMORY;
  tt__project(scratch, vectors, rank, &turned, *core, 1);
  if (scratch->status) return scratch->status;
  tt__lq_factors(scratch, rank, m, *core, m, l, tau);
  tt__matmul(rank, n, rank, l, rank, vectors, n, next, n, TT_TRANSPOSE_A, work);
  for (ptrdiff_t i = 0; i < rank * n; i++) tt__put_element(array, view->wide, i, next[i]);
  left->array = array;
  return TT_OK;
}

// One bond: decides the rank, makes core k and the new remainder.
static tt_status tt__cut(tt__pool *keep, tt__remainder *left, int k, tt__limits limits,
                         const tt_options *options, int wants_spectrum, tt__source *core,
                         tt_report *report) {
  tt__source view = tt__unfolding(left, k, 1),
             small = view.rows > view.cols ? tt__turned(&view) : view;
  int uncut = options->epsilon <= 0 && (limits.cap == 0 || limits.cap >= limits.side) &&
              small.rows == view.rows;
  ptrdiff_t rank = limits.side,
            capped = limits.cap > 0 && limits.cap < limits.side ? limits.cap : 0;
  double cut = 0, *vectors = NULL;
  tt__factor factor;
  memset(&factor, 0, sizeof factor);
  factor.square = left->square;
  tt__pool scratch = tt__pool_open(&keep->allocator);
  tt_status status = TT_OK;
  report->limit[k] = TT_LIMIT_SHAPE;
  if (!uncut && !left->array && !view.wide && small.rows == view.rows &&
      tt__choose_method(&small, capped, options->method) == TT_SVD_RANDOMIZED) {
    left->array = tt__copy_floats(keep, &view);              // it is read many times
    if (keep->status) return keep->status;
    small = view = tt__unfolding(left, k, 1);
  }
  if (!uncut || wants_spectrum) {
    status = tt__left_vectors(&scratch, &small, capped, options->method, options->seed, &factor);
    if (!status) {
      rank = tt__choose_rank(&factor, &limits, options->epsilon, &cut, &report->limit[k]);
      report->entropy[k] = tt__weighted_entropy(factor.values, factor.count, tt__unseen(&factor));
      if (!factor.complete) report->spectrum_complete = 0;
    }
  }
  if (!status && uncut) {
    vectors = tt__identity(keep, rank);
    status = keep->status;
  } else if (!status) {
    status = small.rows == view.rows
                 ? tt__cut_wide(keep, &scratch, left, &view, &factor, rank, &vectors)
                 : tt__cut_tall(keep, &scratch, left, &view, factor.vectors, rank, &vectors);
    left->square = left->square > cut ? left->square - cut : 0;
  }
  tt__pool_close(&scratch);
  report->discarded[k] = sqrt(cut);                          // made relative at the end
  *core = tt__core_of_vectors(vectors, view.rows, left->shape->cols[k], rank);
  left->rank = rank;
  return status;
}

// Fills the counts and the relative errors of a report.
static void tt__finish_report(const tt_shape *shape, ptrdiff_t rows, ptrdiff_t cols,
                              tt_report *report) {
  double square = 0;
  report->dense_params = rows * cols;
  report->params = tt_shape_params(shape);
  report->compression = (double)report->dense_params / (double)report->params;
  memcpy(report->ranks, shape->ranks, sizeof report->ranks);
  for (int k = 0; k + 1 < shape->order; k++) square += report->discarded[k] * report->discarded[k];
  report->relative_error = sqrt(square);
}

static tt_report tt__new_report(void) {
  tt_report report;
  memset(&report, 0, sizeof report);
  report.position = -1;
  report.spectrum_complete = 1;
  return report;
}

// All cuts and the storing; input is scanned and scaled, shape is checked.
static tt_status tt__compress_cores(tt__pool *pool, const tt__source *input, double square,
                                    const tt_shape *request, const tt_options *options,
                                    int wants_spectrum, tt_matrix *out, tt_report *report) {
  tt__source cores[TT_MAX_ORDER];
  tt_shape shape = *request;
  int order = shape.order;
  tt_status status = TT_OK;
  tt__remainder left;
  memset(&left, 0, sizeof left);
  left.shape = &shape;
  left.input = *input;
  left.rank = shape.ranks[0] = shape.ranks[order] = 1;
  left.square = square;
  for (int k = 0; k + 1 < order && !status; k++) {
    ptrdiff_t rest = tt__leg_product(&shape, k + 1, order, 1, 1),
              side = left.rank * shape.rows[k] * shape.cols[k];
    tt__limits limits =
        tt__bond_limits(tt__min(side, rest), request->ranks[k + 1], options, square, order);
    status = tt__cut(pool, &left, k, limits, options, wants_spectrum, &cores[k], report);
    if (left.rank > INT_MAX) status = TT_ERROR_MEMORY;
    shape.ranks[k + 1] = (int)left.rank;
  }
  if (status) return status;
  cores[order - 1] = tt__unfolding(&left, order - 1, 0);
  cores[order - 1].scale = left.array ? 1 / input->scale : 1;
  tt_matrix header =
      tt__header(&shape, input->true_rows, input->true_cols, options->dtype, tt__group_of(options));
  double norm = sqrt(square);
  for (int k = 0; k + 1 < order; k++)
    report->discarded[k] = norm > 0 ? report->discarded[k] / norm : 0;
  report->norm = norm / input->scale;
  tt__finish_report(&shape, input->true_rows, input->true_cols, report);
  return tt__store(pool, &header, cores, order - 1, 0, options->bias, out);
}

// Do the requested ranks respect the useful maxima?
static int tt__ranks_useful(const tt_shape *shape) {
  for (int k = 1; k < shape->order; k++) {
    ptrdiff_t left = tt__leg_product(shape, 0, k, 1, 1),
              right = tt__leg_product(shape, k, shape->order, 1, 1);
    if (shape->ranks[k] > tt__min(left, right)) return 0;
  }
  return 1;
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// ----------------------------------------------------------------------------------------- >>round
// Recompression [Oseledets11, algorithm 2]: make every core but the first right-orthogonal, then
// cut from left to right: the SVD of core k as (r m n) x s sees the singular values of the whole
// matrix at bond k. The kept left vectors become the core, S V^T moves into the next one. Errors
// add up as in TT-SVD.

// SVD of a matrix (height, width): left vectors as rows, values, right vectors as rows. All three
// are taken from the pool; count = min(height, width).
static tt_status tt__matrix_svd(tt__pool *pool, ptrdiff_t height, ptrdiff_t width,
                                const double *matrix, tt__factor *left, double **right) {
  tt__source source = tt__plain_source(matrix, 1, height, width);
  tt_options options = tt__options(NULL);
  memset(left, 0, sizeof *left);
  if (height > width) source = tt__turned(&source);
  tt_status status = tt__both_vectors(pool, &source, source.rows, &options, left, right);
  if (status || pool->status) return status ? status : pool->status;
  left->count = source.rows;
  left->complete = 1;
  left->square = 0;
  if (height > width) {
    double *keep = left->vectors;
    left->vectors = *right;
    *right = keep;
  }
  for (ptrdiff_t i = 0; i < left->count; i++) {
    left->square += left->values[i] * left->values[i];
    tt__fix_sign(height, left->vectors + i * height, width, *right + i * width);
  }
  return TT_OK;
}

// The same of core k of a chain centred on it, as (height, s).
static tt_status tt__core_svd(tt__pool *pool, const tt__chain *chain, int k, tt__factor *left,
                              double **right) {
  ptrdiff_t s = chain->shape.ranks[k + 1], height = tt__core_count(&chain->shape, k) / s;
  return tt__matrix_svd(pool, height, s, chain->cores[k], left, right);
}

// Cuts bond k of a chain centred on core k to `rank`; the centre moves to core k+1.
static tt_status tt__cut_bond(tt__pool *pool, tt__chain *chain, int k, const tt__factor *left,
                              const double *right, ptrdiff_t rank) {
  ptrdiff_t s = chain->shape.ranks[k + 1], height = tt__core_count(&chain->shape, k) / s;
  ptrdiff_t next = tt__core_count(&chain->shape, k + 1) / s;
  double *factor = tt__take_f64(pool, rank, s), *moved = tt__take_f64(pool, rank, next);
  void *work = tt__take_work(pool);
  if (pool->status) return pool->status;
  for (ptrdiff_t i = 0; i < rank; i++) {
    for (ptrdiff_t j = 0; j < height; j++)
      chain->cores[k][j * rank + i] = left->vectors[i * height + j];
    for (ptrdiff_t j = 0; j < s; j++) factor[i * s + j] = left->values[i] * right[i * s + j];
  }
  tt__matmul(rank, next, s, factor, s, chain->cores[k + 1], next, moved, next, 0, work);
  memcpy(chain->cores[k + 1], moved, (size_t)(rank * next) * sizeof(double));
  chain->shape.ranks[k + 1] = (int)rank;
  return TT_OK;
}

// Rounds a chain, which it leaves centred on the last core. `square` is its squared norm before.
static tt_status tt__chain_round(tt__pool *pool, tt__chain *chain, const tt_options *options,
                                 double square, tt_report *report) {
  int order = chain->shape.order;
  tt_status status = TT_OK;
  for (int k = 0; k + 1 < order && !status; k++) {
    void *mark = pool->blocks;
    tt__factor left;
    double *right, cut = 0;
    status = tt__core_svd(pool, chain, k, &left, &right);
    if (!status) {
      tt__limits limits = tt__bond_limits(left.count, 0, options, square, order);
      ptrdiff_t rank = tt__choose_rank(&left, &limits, options->epsilon, &cut, &report->limit[k]);
      report->discarded[k] = square > 0 ? sqrt(cut / square) : 0;
      report->entropy[k] = tt__weighted_entropy(left.values, left.count, 0);
      status = tt__cut_bond(pool, chain, k, &left, right, rank);
    }
    tt__pool_rewind(pool, mark);
  }
  return status;
}

// Rounds a train; out keeps its bias.
static tt_status tt__round_plain(tt__pool *pool, const tt_matrix *w, const tt_options *options,
                                 tt_matrix *out, tt_report *report) {
  tt__chain chain;
  tt_status status = tt__chain_read(pool, w, &chain);
  double norm = status ? 0 : tt__chain_norm(pool, &chain);
  if (!status) status = pool->status;
  if (!status) status = tt__chain_round(pool, &chain, options, norm * norm, report);
  tt_matrix like = *w;
  like.bias = tt__bias_sum(pool, options, w->bias, w->rows);
  if (!status) status = pool->status;
  if (!status) status = tt__chain_store(pool, &chain, chain.shape.order - 1, &like, options, out);
  if (status) return status;
  report->norm = ldexp(norm, chain.exponent);
  tt__finish_report(&chain.shape, w->rows, w->cols, report);
  return TT_OK;
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// ---------------------------------------------------------------------------------------- >>metric
// The metric of the outputs, and the best core in it. With D = diag(row weights) and C the
// covariance of the inputs plus a ridge (identities where not given), every fit minimises
// tr(D E C E^T) over E = W - W~.
//
// C is close to a Kronecker product of one factor per leg, its partial traces over all other legs;
// so is D. Where one leg carries all columns and one all rows, C and D are those factors. They
// bring matrices into the metric and out of it again, and they precondition.
//
// W~ is linear in each core G, so one core at a time is a linear least-squares problem, solved by
// conjugate gradients on A(G) = P(D X(G) C): X expands G between its frames to the whole matrix, P
// is its adjoint. Frames are orthonormal, so A is conditioned no worse than C, and from a warm
// start the error never rises, however early the iteration stops.

#define TT__RIDGE 1e-3         // added to the variances, relative to their mean

typedef struct tt__metric {
  ptrdiff_t rows, cols;        // padded
  double *weights;             // (rows) or NULL = 1
  double *covariance;          // (cols, cols) with its ridge, or NULL
  double *variance;            // (cols) of a diagonal record, or NULL; both NULL = identity
  double *row_leg[TT_MAX_ORDER];   // (m_k) square roots of the factors of D, or NULL
  double *col_leg[TT_MAX_ORDER];   // (n_k, n_k) lower Cholesky factors of K_k, or NULL
} tt__metric;

// a (n,n) symmetric positive definite, lower triangle read, becomes its lower Cholesky factor
// [Golub13, 4.2]. Returns 0 if a pivot is not positive.
static int tt__cholesky(ptrdiff_t n, double *a) {
  for (ptrdiff_t i = 0; i < n; i++) {
    for (ptrdiff_t j = 0; j <= i; j++) {
      double value = a[i * n + j] - tt__dot(j, a + i * n, a + j * n);
      if (j < i) a[i * n + j] = value / a[j * n + j];
      else if (value > 0) a[i * n + i] = sqrt(value);
      else return 0;
    }
    for (ptrdiff_t j = i + 1; j < n; j++) a[i * n + j] = 0;
  }
  return 1;
}

// What a leg factor L (n,n) does to the columns v of a matrix (n, width).
typedef enum tt__leg_action {
  TT__LEG_HALF,                // v = L^T v: into the metric
  TT__LEG_BACK,                // v = L^-T v: out of it again
  TT__LEG_SOLVE                // v = (L L^T)^-1 v: the preconditioner
} tt__leg_action;

static void tt__leg_rows(ptrdiff_t n, ptrdiff_t width, const double *l, tt__leg_action action,
                         double *v) {
  for (ptrdiff_t j = 0; j < n && action == TT__LEG_HALF; j++) {
    tt__scale_row(width, l[j * n + j], v + j * width);       // row j needs rows i >= j only
    for (ptrdiff_t i = j + 1; i < n; i++)
      tt__axpy(width, l[i * n + j], v + i * width, v + j * width);
  }
  for (ptrdiff_t j = 0; j < n && action == TT__LEG_SOLVE; j++) {
    for (ptrdiff_t i = 0; i < j; i++)
      tt__axpy(width, -l[j * n + i], v + i * width, v + j * width);
    tt__scale_row(width, 1 / l[j * n + j], v + j * width);
  }
  for (ptrdiff_t j = n - 1; j >= 0 && action != TT__LEG_HALF; j--) {
    for (ptrdiff_t i = j + 1; i < n; i++)
      tt__axpy(width, -l[i * n + j], v + i * width, v + j * width);
    tt__scale_row(width, 1 / l[j * n + j], v + j * width);
  }
}

// The same along the middle index of values (outer, n, inner), by way of a transposed copy.
static void tt__along_leg(tt__pool *pool, ptrdiff_t outer, ptrdiff_t n, ptrdiff_t inner,
                          const double *l, tt__leg_action action, double *values) {
  void *mark = pool->blocks;
  double *v = tt__take_f64(pool, n, outer * inner);
  for (int back = 0; v && back < 2; back++) {
    for (ptrdiff_t o = 0; o < outer; o++)
      for (ptrdiff_t i = 0; i < n; i++) {
        double *here = values + (o * n + i) * inner, *there = v + (i * outer + o) * inner;
        memcpy(back ? here : there, back ? there : here, (size_t)inner * sizeof(double));
      }
    if (!back) tt__leg_rows(n, outer * inner, l, action, v);
  }
  tt__pool_rewind(pool, mark);
}

// The true covariance or the variances with ridge; padded inputs are given the ridge alone, as is
// every input of a layer that never saw variation.
static void tt__metric_inputs(tt__pool *pool, const tt_inputs *inputs, tt__metric *metric) {
  ptrdiff_t n = inputs->cols, wide = metric->cols, step = inputs->diagonal ? 1 : wide + 1;
  double *c = tt__take_f64(pool, wide, inputs->diagonal ? 1 : wide), trace = 0;
  if (!c) return;
  for (ptrdiff_t i = 0; i < n; i++) {
    const double *row = inputs->scatter + i * (inputs->diagonal ? 1 : n);
    trace += row[inputs->diagonal ? 0 : i];
    if (inputs->diagonal) c[i] = *row / (double)inputs->count;
    for (ptrdiff_t j = 0; j < n && !inputs->diagonal; j++)
      c[i * wide + j] = row[j] / (double)inputs->count;
  }
  double ridge = TT__RIDGE * trace / (double)inputs->count / (double)n;
  for (ptrdiff_t i = 0; i < wide; i++) c[i * step] += ridge > 0 ? ridge : 1;
  if (inputs->diagonal) metric->variance = c;
  else metric->covariance = c;
}

// The factor of column leg k: the mean of C over equal digits of all other legs, then Cholesky.
static void tt__metric_col_leg(tt__pool *pool, const tt_shape *shape, int k, tt__metric *metric) {
  ptrdiff_t n = shape->cols[k], inner = tt__leg_product(shape, k + 1, shape->order, 0, 1);
  double *factor = metric->col_leg[k] = tt__take_f64(pool, n, n);
  if (!factor) return;
  for (ptrdiff_t o = 0; o < metric->cols / n / inner; o++)
    for (ptrdiff_t t = 0; t < inner; t++)
      for (ptrdiff_t i = 0; i < n; i++) {
        ptrdiff_t row = (o * n + i) * inner + t;
        if (metric->variance) factor[i * n + i] += metric->variance[row];
        for (ptrdiff_t j = 0; j <= i && metric->covariance; j++)
          factor[i * n + j] += metric->covariance[row * metric->cols + (o * n + j) * inner + t];
      }
  double trace = 0;                                          // its scale does not matter
  for (ptrdiff_t i = 0; i < n; i++) trace += factor[i * n + i];
  tt__scale_row(n * n, (double)n / trace, factor);
  if (!tt__cholesky(n, factor)) pool->status = TT_ERROR_CONVERGENCE;
}

// The factor of row leg k, never quite zero, so that rows without weight still get the values that
// follow from the others.
static void tt__metric_row_leg(tt__pool *pool, const tt_shape *shape, int k, tt__metric *metric) {
  ptrdiff_t m = shape->rows[k], inner = tt__leg_product(shape, k + 1, shape->order, 1, 0);
  double *factor = metric->row_leg[k] = tt__take_f64(pool, m, 1);
  if (!factor) return;
  for (ptrdiff_t i = 0; i < metric->rows; i++) factor[i / inner % m] += metric->weights[i];
  double largest = tt__largest_magnitude(m, factor);
  for (ptrdiff_t i = 0; i < m; i++)
    factor[i] = sqrt(factor[i] > 1e-12 * largest ? factor[i] / largest : 1e-12);
}

static tt_status tt__metric_open(tt__pool *pool, const tt_shape *shape, ptrdiff_t rows,
                                 const tt_options *options, tt__metric *metric) {
  memset(metric, 0, sizeof *metric);
  metric->rows = tt__leg_product(shape, 0, shape->order, 1, 0);
  metric->cols = tt__leg_product(shape, 0, shape->order, 0, 1);
  if (options->inputs) tt__metric_inputs(pool, options->inputs, metric);
  if (options->row_weights) {
    double *weights = metric->weights = tt__take_f64(pool, metric->rows, 1), total = 0;
    for (ptrdiff_t i = 0; weights && i < rows; i++)
      total += weights[i] = (double)options->row_weights[i];
    for (ptrdiff_t i = rows; weights && i < metric->rows; i++)
      weights[i] = TT__RIDGE * total / (double)rows;
  }
  for (int k = 0; k < shape->order && !pool->status; k++) {
    if (options->inputs) tt__metric_col_leg(pool, shape, k, metric);
    if (options->row_weights && !pool->status) tt__metric_row_leg(pool, shape, k, metric);
  }
  return pool->status;
}

// out = D e C for e (rows, cols).
static void tt__metric_times(const tt__metric *metric, const double *e, double *out, void *work) {
  ptrdiff_t m = metric->rows, n = metric->cols;
  if (metric->covariance) tt__matmul(m, n, n, e, n, metric->covariance, n, out, n, 0, work);
  for (ptrdiff_t i = 0; i < m; i++) {
    double weight = metric->weights ? metric->weights[i] : 1;
    double *to = out + i * n;
    const double *from = metric->covariance ? to : e + i * n;
    for (ptrdiff_t j = 0; j < n; j++)
      to[j] = weight * from[j] * (metric->variance ? metric->variance[j] : 1);
  }
}

// ---- one core between its frames

typedef struct tt__fit {
  tt__pool *pool;
  ptrdiff_t rows, cols;        // true size of the layer
  tt__metric metric;
  const double *target;        // of the padded size, as are the arrays below
  double square;               // its squared norm in the metric
  // mixed has its legs in the order of the train
  double *expanded, *mixed, *spare;
  void *work;
  tt__pool home;               // where the cores of the chain live
} tt__fit;

typedef struct tt__frames {
  int first, count;            // the cores that are solved for
  ptrdiff_t r, m, n, s;        // of these cores merged into one
  ptrdiff_t left_m, left_n, right_m, right_n;
  const double *left, *right;  // (left_m, left_n, r) and (s, right_m, right_n)
  double *half;                // (r m n, right_m right_n)
} tt__frames;

// Merged copy of cores first .. first+count-1, or the number 1 if there are none.
static double *tt__merged(tt__pool *pool, const tt__chain *chain, int first, int count) {
  tt__chain copy = *chain;
  if (count == 0) {
    double *one = tt__take_f64(pool, 1, 1);
    if (one) *one = 1;
    return one;
  }
  tt_status status = tt__chain_merge(pool, &copy, first, count);
  if (status) pool->status = status;
  return copy.cores[first];
}

static tt_status tt__frames_open(tt__pool *pool, const tt__chain *chain, int first, int count,
                                 tt__frames *f) {
  const tt_shape *shape = &chain->shape;
  int end = first + count;
  f->first = first;
  f->count = count;
  f->r = shape->ranks[first];
  f->s = shape->ranks[end];
  f->m = tt__leg_product(shape, first, end, 1, 0);
  f->n = tt__leg_product(shape, first, end, 0, 1);
  f->left_m = tt__leg_product(shape, 0, first, 1, 0);
  f->left_n = tt__leg_product(shape, 0, first, 0, 1);
  f->right_m = tt__leg_product(shape, end, shape->order, 1, 0);
  f->right_n = tt__leg_product(shape, end, shape->order, 0, 1);
  f->left = tt__merged(pool, chain, 0, first);
  f->right = tt__merged(pool, chain, end, shape->order - end);
  f->half = tt__take_f64(pool, f->r * f->m * f->n, f->right_m * f->right_n);
  return pool->status;
}

static ptrdiff_t tt__frames_size(const tt__frames *f) { return f->r * f->m * f->n * f->s; }

// Between a matrix (rows, cols) and the order of the train: (left_m, left_n, m, n, right_m,
// right_n).
static void tt__reorder(const tt__frames *f, double *matrix, double *mixed, int back) {
  ptrdiff_t cols = f->left_n * f->n * f->right_n, run = f->right_n;
  for (ptrdiff_t row = 0; row < f->left_m; row++)
    for (ptrdiff_t col = 0; col < f->left_n; col++)
      for (ptrdiff_t i = 0; i < f->m; i++)
        for (ptrdiff_t j = 0; j < f->n; j++)
          for (ptrdiff_t t = 0; t < f->right_m; t++, mixed += run) {
            double *at =
                matrix + ((row * f->m + i) * f->right_m + t) * cols + (col * f->n + j) * run;
            for (ptrdiff_t u = 0; u < run; u++) {
              if (back) at[u] = mixed[u];
              else mixed[u] = at[u];
            }
          }
}

// matrix (rows, cols) = the train with `core` between its frames.
static void tt__frames_expand(const tt__fit *fit, const tt__frames *f, const double *core,
                              double *matrix) {
  ptrdiff_t middle = f->m * f->n, right = f->right_m * f->right_n, left = f->left_m * f->left_n;
  tt__matmul(f->r * middle, right, f->s, core, f->s, f->right, right, f->half, right, 0, fit->work);
  tt__matmul(left, middle * right, f->r, f->left, f->r, f->half, middle * right, fit->mixed,
             middle * right, 0, fit->work);
  tt__reorder(f, matrix, fit->mixed, 1);
}

// The adjoint: core = what `matrix` holds between the frames.
static void tt__frames_project(const tt__fit *fit, const tt__frames *f, double *matrix,
                               double *core) {
  ptrdiff_t middle = f->m * f->n, right = f->right_m * f->right_n, left = f->left_m * f->left_n;
  tt__reorder(f, matrix, fit->mixed, 0);
  tt__matmul(f->r, middle * right, left, f->left, f->r, fit->mixed, middle * right, f->half,
             middle * right, TT_TRANSPOSE_A, fit->work);
  tt__matmul(f->r * middle, f->s, right, f->half, right, f->right, right, core, f->s,
             TT_TRANSPOSE_B, fit->work);
}

// Applies the leg factors to merged cores (r, m_1 .. m_c, n_1 .. n_c, s).
static void tt__leg_factors(tt__pool *pool, const tt__metric *metric, const tt_shape *shape,
                            const tt__frames *f, tt__leg_action action, double *core) {
  ptrdiff_t inner = f->s, outer = f->r * f->m * f->n;
  for (int k = f->first + f->count - 1; k >= f->first && metric->col_leg[k]; k--) {
    outer /= shape->cols[k];
    tt__along_leg(pool, outer, shape->cols[k], inner, metric->col_leg[k], action, core);
    inner *= shape->cols[k];
  }
  inner = f->n * f->s;
  for (int k = f->first + f->count - 1; k >= f->first && metric->row_leg[k]; k--) {
    ptrdiff_t m = shape->rows[k], count = tt__frames_size(f) / inner;
    for (ptrdiff_t i = 0; i < count; i++) {
      double root = metric->row_leg[k][i % m];
      if (action != TT__LEG_HALF) root = 1 / (action == TT__LEG_BACK ? root : root * root);
      tt__scale_row(inner, root, core + i * inner);
    }
    inner *= m;
  }
}

// fit->spare = target - train with this core between the frames, fit->expanded = D spare C; returns
// the squared error.
static double tt__fit_residual(const tt__fit *fit, const tt__frames *f, const double *core) {
  ptrdiff_t size = fit->metric.rows * fit->metric.cols;
  double *spare = fit->spare;
  tt__frames_expand(fit, f, core, spare);
  for (ptrdiff_t i = 0; i < size; i++) spare[i] = fit->target[i] - spare[i];
  tt__metric_times(&fit->metric, spare, fit->expanded, fit->work);
  return tt__dot(size, spare, fit->expanded);
}

// Lower Cholesky factor of left^T D left (r,r), which preconditions where all rows and no columns
// are left of the cores solved for: weights can make the frame far from orthonormal there. NULL in
// all other cases, or if weights of 0 make it singular.
static double *tt__weighted_frame(const tt__fit *fit, const tt__frames *f) {
  const double *weights = fit->metric.weights;
  if (!weights || f->left_m != fit->metric.rows || f->left_n != 1) return NULL;
  double *scaled = tt__take_f64(fit->pool, f->left_m, f->r);
  double *l = tt__take_f64(fit->pool, f->r, f->r);
  if (fit->pool->status) return NULL;
  memcpy(scaled, f->left, (size_t)(f->left_m * f->r) * sizeof(double));
  for (ptrdiff_t i = 0; i < f->left_m; i++) tt__scale_row(f->r, weights[i], scaled + i * f->r);
  tt__matmul(f->r, f->r, f->left_m, f->left, f->r, scaled, f->r, l, f->r, TT_TRANSPOSE_A,
             fit->work);
  return tt__cholesky(f->r, l) ? l : NULL;
}

enum { TT__CG_STEPS = 30 };

// Conjugate gradients for the core between its frames [Golub13, 11.5]. Returns the squared error
// that is left. core is only changed where that lowers the error.
static double tt__fit_core(const tt__fit *fit, const tt_shape *shape, const tt__frames *f,
                           double *core) {
  tt__pool *pool = fit->pool;
  void *mark = pool->blocks;
  ptrdiff_t count = tt__frames_size(f);
  double *spare = fit->spare, *r = tt__take_f64(pool, count, 1), *z = tt__take_f64(pool, count, 1),
         *p = tt__take_f64(pool, count, 1), *q = tt__take_f64(pool, count, 1);
  double error = 0, rho = 0, gained = 0, *frame = tt__weighted_frame(fit, f);
  if (!pool->status) {
    error = tt__fit_residual(fit, f, core);
    tt__frames_project(fit, f, fit->expanded, r);
  }
  for (int step = 0; step < TT__CG_STEPS && !pool->status; step++) {
    memcpy(z, r, (size_t)count * sizeof(double));
    tt__leg_factors(pool, &fit->metric, shape, f, TT__LEG_SOLVE, z);
    if (frame) tt__leg_rows(f->r, count / f->r, frame, TT__LEG_SOLVE, z);
    double now = tt__dot(count, r, z), ratio = rho > 0 ? now / rho : 0;
    for (ptrdiff_t i = 0; i < count; i++) p[i] = z[i] + ratio * p[i];
    tt__frames_expand(fit, f, p, spare);
    tt__metric_times(&fit->metric, spare, fit->expanded, fit->work);
    double curved = tt__dot(fit->metric.rows * fit->metric.cols, spare, fit->expanded);
    if (!(now > 0) || !(curved > 0)) break;
    tt__frames_project(fit, f, fit->expanded, q);
    double length = now / curved, gain = length * now;
    tt__axpy(count, length, p, core);
    tt__axpy(count, -length, q, r);
    gained += gain;
    rho = now;
    if (gain < 1e-2 * gained || gain < 1e-9 * error) break;  // the next sweep does more
  }
  tt__pool_rewind(pool, mark);
  return error > gained ? error - gained : 0;
}

// Takes the leg factors back out of cores first .. first+count-1, one by one.
static tt_status tt__unscale(tt__pool *pool, const tt__metric *metric, tt__chain *chain, int first,
                             int count) {
  for (int k = first; k < first + count && !pool->status; k++) {
    tt__frames alone;
    memset(&alone, 0, sizeof alone);
    alone.first = k;
    alone.count = 1;
    alone.r = chain->shape.ranks[k];
    alone.m = chain->shape.rows[k];
    alone.n = chain->shape.cols[k];
    alone.s = chain->shape.ranks[k + 1];
    tt__leg_factors(pool, metric, &chain->shape, &alone, TT__LEG_BACK, chain->cores[k]);
  }
  return pool->status;
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// ----------------------------------------------------------------------------------------- >>sweep
// Variational sweeps: core after core is solved for, to the right end of the train and back. With
// one site ranks stay and the error never rises. With two sites, as in DMRG [White92], two
// neighbours are solved for as one and the bond between them is cut anew, so that ranks adapt; the
// cut sees the metric by its leg factors.

// The limits under which bonds are cut: options and, where these say nothing, the ranks at the
// start.
typedef struct tt__cuts {
  tt_options options;
  tt_shape start;
  double square;               // squared norm of the target in the metric
} tt__cuts;

// Merged cores (r, m1, m2, n1, n2, t) as one core (r, m1, n1) x (m2, n2, t) of a chain of its own,
// or back.
static void tt__turn_pair(const tt_shape *shape, int k, double *pair, double *turned, int back) {
  ptrdiff_t r = shape->ranks[k], t = shape->ranks[k + 2], m1 = shape->rows[k], n1 = shape->cols[k],
            m2 = shape->rows[k + 1], n2 = shape->cols[k + 1];
  for (ptrdiff_t a = 0; a < r * m1; a++)
    for (ptrdiff_t i2 = 0; i2 < m2; i2++)
      for (ptrdiff_t j1 = 0; j1 < n1; j1++) {
        double *one = pair + ((a * m2 + i2) * n1 + j1) * n2 * t,
               *two = turned + ((a * n1 + j1) * m2 + i2) * n2 * t;
        memcpy(back ? one : two, back ? two : one, (size_t)(n2 * t) * sizeof(double));
      }
}

// Splits a solved pair: its SVD in the metric of the legs, cut by the limits, gives the new cores,
// which are taken from the pool.
static tt_status tt__split_pair(const tt__fit *fit, tt__chain *chain, const tt__frames *f,
                                double *pair, const tt__cuts *cuts, double *lost) {
  int k = f->first, why, order = chain->shape.order;
  tt__pool *pool = fit->pool;
  ptrdiff_t width = (ptrdiff_t)chain->shape.rows[k + 1] * chain->shape.cols[k + 1] * f->s;
  ptrdiff_t height = tt__frames_size(f) / width;
  double *turned = tt__take_f64(pool, height, width), *right;
  tt__factor left;
  if (pool->status) return pool->status;
  tt__leg_factors(pool, &fit->metric, &chain->shape, f, TT__LEG_HALF, pair);
  tt__turn_pair(&chain->shape, k, pair, turned, 0);
  tt_status status = tt__matrix_svd(pool, height, width, turned, &left, &right);
  if (status) return status;
  tt__limits limits = tt__bond_limits(left.count, cuts->start.ranks[k + 1], &cuts->options,
                                      cuts->square, order);
  ptrdiff_t rank = tt__choose_rank(&left, &limits, cuts->options.epsilon, lost, &why);
  chain->cores[k] = tt__take_f64(pool, height, rank);
  chain->cores[k + 1] = tt__take_f64(pool, rank, width);
  if (pool->status) return pool->status;
  for (ptrdiff_t b = 0; b < rank; b++) {
    for (ptrdiff_t i = 0; i < height; i++)
      chain->cores[k][i * rank + b] = left.vectors[b * height + i];
    for (ptrdiff_t j = 0; j < width; j++)
      chain->cores[k + 1][b * width + j] = left.values[b] * right[b * width + j];
  }
  chain->shape.ranks[k + 1] = (int)rank;
  return tt__unscale(pool, &fit->metric, chain, k, 2);
}

// Moves all cores of a chain into a pool of their own; the pool they lived in is closed.
static tt_status tt__rehouse(tt__pool *home, tt__chain *chain) {
  tt__pool fresh = tt__pool_open(&home->allocator);
  double *cores[TT_MAX_ORDER];
  for (int k = 0; k < chain->shape.order; k++) {
    ptrdiff_t count = tt__core_count(&chain->shape, k);
    cores[k] = tt__take_f64(&fresh, count, 1);
    if (cores[k]) memcpy(cores[k], chain->cores[k], (size_t)count * sizeof(double));
  }
  if (fresh.status) {
    tt_status status = fresh.status;
    tt__pool_close(&fresh);
    return status;
  }
  memcpy(chain->cores, cores, sizeof cores);
  tt__pool_close(home);
  *home = fresh;
  return TT_OK;
}

static tt_status tt__chain_copy(const tt__chain *from, tt__pool *home, tt__chain *to) {
  *to = *from;
  return tt__rehouse(home, to);
}

// Puts the chain's power of two into core k.
static void tt__untame(tt__chain *chain, int k) {
  ptrdiff_t count = tt__core_count(&chain->shape, k);
  for (ptrdiff_t i = 0; i < count; i++)
    chain->cores[k][i] = ldexp(chain->cores[k][i], chain->exponent);
  chain->exponent = 0;
}

// Moves the centre of a chain from core k to its neighbour (move +1 or -1).
static void tt__move_center(tt__pool *pool, tt__chain *chain, int k, int move) {
  if (move > 0) tt__orthogonalize_left(pool, chain, k);
  if (move < 0) tt__orthogonalize_right(pool, chain, k);
  if (move && !pool->status) tt__untame(chain, k + move);
}

// Solves core k, or cores k and k+1, of a chain centred there and moves the centre on. *error is
// the squared error before a cut.
static tt_status tt__solve_step(tt__fit *fit, tt__chain *chain, int k, int sites, int move,
                          const tt__cuts *cuts, double *error, double *lost) {
  void *mark = fit->pool->blocks;
  tt__frames f;
  tt_status status = tt__frames_open(fit->pool, chain, k, sites, &f);
  if (sites == 1) {
    if (!status) *error = tt__fit_core(fit, &chain->shape, &f, chain->cores[k]);
    if (!status) tt__move_center(fit->pool, chain, k, move);
  } else if (!status) {
    double *pair = tt__merged(fit->pool, chain, k, 2);
    if (!fit->pool->status) *error = tt__fit_core(fit, &chain->shape, &f, pair);
    if (!fit->pool->status) status = tt__split_pair(fit, chain, &f, pair, cuts, lost);
    if (!status) tt__move_center(fit->pool, chain, move > 0 ? k : k + 1, move);
    if (!status && !fit->pool->status) status = tt__rehouse(&fit->home, chain);
  }
  tt__pool_rewind(fit->pool, mark);
  return status ? status : fit->pool->status;
}

// One sweep to the right end and back over the cores from `lowest` on, where the chain is centred
// and will be again. Cores before it stay as they are.
static tt_status tt__sweep(tt__fit *fit, tt__chain *chain, int lowest, int sites,
                           const tt__cuts *cuts, double *error, double *lost) {
  int last = chain->shape.order - sites;
  tt_status status = TT_OK;
  double cut = 0;
  for (int k = lowest; k < last && !status; k++)
    status = tt__solve_step(fit, chain, k, sites, 1, cuts, error, &cut);
  for (int k = last; k >= lowest && !status; k--) {
    // two sites leave the centre on their left core, one site moves on to the next
    int move = sites == 2 || k > lowest ? -1 : 0;
    status = tt__solve_step(fit, chain, k, sites, move, cuts, error, &cut);
    if (lost && sites == 2) lost[k] = cuts->square > 0 ? sqrt(cut / cuts->square) : 0;
  }
  return status;
}

// One-site sweeps until a sweep lowers the error by less than `stall`, relatively.
static tt_status tt__settle(tt__fit *fit, tt__chain *chain, int lowest, int max_sweeps,
                            double stall, double *error) {
  tt_status status = TT_OK;
  for (int sweep = 0; sweep < max_sweeps && !status; sweep++) {
    double before = *error;
    status = tt__sweep(fit, chain, lowest, 1, NULL, error, NULL);
    if (sqrt(*error) >= (1 - stall) * sqrt(before)) break;
  }
  return status;
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// ----------------------------------------------------------------------------------------- >>refit
// Fits in the metric of the outputs, and every call that may be one. W is brought into the metric
// by the leg factors, decomposed by TT-SVD, and each core taken out of it again: where the factors
// say all of the metric, a low-rank train then is the optimum (whitened SVD). Otherwise the plain
// TT-SVD is the other start, and sweeps go on from the better one.

// The power of two `scale` = 2^result.
static int tt__log2_exact(double scale) {
  int exponent;
  (void)frexp(scale, &exponent);
  return exponent - 1;
}

// Everything a fit of `input`, which is scanned, needs for a layer of this true size.
static tt_status tt__fit_open(tt__fit *fit, tt__pool *pool, const tt__source *input, ptrdiff_t rows,
                              ptrdiff_t cols, const tt_shape *shape, const tt_options *options) {
  memset(fit, 0, sizeof *fit);
  fit->rows = rows;
  fit->cols = cols;
  fit->pool = pool;
  fit->home = tt__pool_open(&pool->allocator);
  tt_status status = tt__metric_open(pool, shape, rows, options, &fit->metric);
  if (status) return status;
  ptrdiff_t m = fit->metric.rows, n = fit->metric.cols;
  double *target = tt__take_f64(pool, m, n);
  fit->expanded = tt__take_f64(pool, m, n);
  fit->mixed = tt__take_f64(pool, m, n);
  fit->spare = tt__take_f64(pool, m, n);
  fit->work = tt__take_work(pool);
  if (pool->status) return pool->status;
  for (ptrdiff_t i = 0; i < input->true_rows; i++)
    tt__block(input, i, 1, 0, input->true_cols, target + i * n, n);
  fit->target = target;
  tt__metric_times(&fit->metric, target, fit->expanded, fit->work);
  fit->square = tt__dot(m * n, target, fit->expanded);
  return TT_OK;
}

// Squared error of a chain centred on core 0; fit->spare then holds target - train.
static double tt__chain_error(tt__fit *fit, const tt__chain *chain) {
  void *mark = fit->pool->blocks;
  tt__frames f;
  double error = 0;
  if (!tt__frames_open(fit->pool, chain, 0, 1, &f))
    error = tt__fit_residual(fit, &f, chain->cores[0]);
  tt__pool_rewind(fit->pool, mark);
  return error;
}

// TT-SVD of the target, as it is or scaled by the factors of its legs; a chain centred on core 0.
static tt_status tt__start(tt__fit *fit, const tt_shape *request, const tt_options *options,
                           int scaled, tt__pool *home, tt__chain *chain, tt_report *report) {
  tt_matrix made;
  tt_options plain = *options;
  tt__frames whole;
  memset(&made, 0, sizeof made);
  memset(&whole, 0, sizeof whole);
  whole.count = request->order;
  whole.r = whole.s = 1;
  whole.m = fit->metric.rows;
  whole.n = fit->metric.cols;
  plain.dtype = TT_F64;
  plain.bias = NULL;
  tt__pool own = tt__pool_open(&fit->pool->allocator);
  double *copy = tt__take_f64(&own, whole.m, whole.n), square = 0;
  if (copy) memcpy(copy, fit->target, (size_t)(whole.m * whole.n) * sizeof(double));
  if (copy && scaled)
    tt__leg_factors(&own, &fit->metric, request, &whole, TT__LEG_HALF, copy);
  tt__source source = tt__plain_source(copy, 1, whole.m, whole.n);
  tt_status status = own.status;
  if (!status && tt__scan(&source, &square) >= 0) status = TT_ERROR_UNSUPPORTED; // beyond double
  if (!status)
    status = tt__compress_cores(&own, &source, square, request, &plain, 1, &made, report);
  tt__pool_close(&own);
  if (status) return status;
  status = tt__chain_read(home, &made, chain);
  tt_free(&made);
  if (!status && scaled) status = tt__unscale(fit->pool, &fit->metric, chain, 0, request->order);
  if (!status) status = tt__chain_center(fit->pool, chain, 0);
  if (!status) tt__untame(chain, 0);
  return status;
}

// Do the leg factors say all of the metric, and is TT-SVD then the optimum?
static int tt__start_is_best(const tt__fit *fit, const tt_shape *shape) {
  int rows = 0, cols = 0;
  for (int k = 0; k < shape->order; k++) {
    rows += shape->rows[k] > 1;
    cols += shape->cols[k] > 1;
  }
  return shape->order <= 2 && (cols <= 1 || !fit->metric.col_leg[0]) &&
         (rows <= 1 || !fit->metric.row_leg[0]);
}

// sum_i e_i C e_i^T for rows of e, under the inputs as they are, without ridge and row weights.
// part is (rows, cols).
static double tt__output_square(const tt_inputs *inputs, ptrdiff_t rows, const double *e,
                                ptrdiff_t lde, double *part, void *work) {
  ptrdiff_t n = inputs->cols;
  double sum = 0;
  if (!inputs->diagonal) tt__matmul(rows, n, n, e, lde, inputs->scatter, n, part, n, 0, work);
  for (ptrdiff_t i = 0; i < rows; i++, e += lde, part += n) {
    for (ptrdiff_t j = 0; j < n && inputs->diagonal; j++) part[j] = e[j] * inputs->scatter[j];
    double square = tt__dot(n, e, part);
    sum += square > 0 ? square : 0;                          // a singular scatter rounds below 0
  }
  return sum / (double)inputs->count;
}

static double tt__ratio(double error, double whole) {
  if (whole > 0) return sqrt(error / whole);
  return error > 0 ? (double)INFINITY : 0;
}

// The error that options.epsilon bounds: functional with inputs, weighted without.
static double tt__fit_relative(tt__fit *fit, const tt__chain *chain, const tt_options *options) {
  ptrdiff_t rows = fit->rows;
  double error = tt__chain_error(fit, chain);
  ptrdiff_t n = fit->metric.cols;
  if (!options->inputs) return tt__ratio(error, fit->square);
  double *part = fit->mixed;
  error = tt__output_square(options->inputs, rows, fit->spare, n, part, fit->work);
  return tt__ratio(error,
                   tt__output_square(options->inputs, rows, fit->target, n, part, fit->work));
}

// The best of both starts, then sweeps; never worse than the plain start of the same ranks.
static tt_status tt__fit_best(tt__fit *fit, const tt_shape *request, const tt_options *options,
                              tt__chain *chain, tt_report *report) {
  enum { SWEEPS = 40 };
  tt_report spare = tt__new_report();
  tt_options same = *options;
  tt__pool other = tt__pool_open(&fit->pool->allocator);
  tt__chain plain;
  tt__pool_close(&fit->home);
  tt_status status = tt__start(fit, request, options, 1, &fit->home, chain, report);
  if (!status && !tt__start_is_best(fit, request)) {
    same.epsilon = 0;
    status = tt__start(fit, &chain->shape, &same, 0, &other, &plain, &spare);
    double error = status ? 0 : tt__chain_error(fit, chain),
           of_plain = status ? 0 : tt__chain_error(fit, &plain),
           bound = status ? 0 : tt__fit_relative(fit, &plain, options);
    if (!status && of_plain < error) {
      error = of_plain;
      status = tt__chain_copy(&plain, &fit->home, chain);
    }
    if (!status) status = tt__settle(fit, chain, 0, SWEEPS, 3e-3, &error);
    if (!status && tt__fit_relative(fit, chain, options) > bound)
      status = tt__chain_copy(&plain, &fit->home, chain);
  }
  tt__pool_close(&other);
  return status ? status : fit->pool->status;
}

// One ulp of float of the mean output of a row: what no bias in float can tell from nothing.
static double tt__mean_ulp(const tt_inputs *inputs, const double *row, double bias) {
  for (ptrdiff_t j = 0; inputs && j < inputs->cols; j++) bias += fabs(row[j] * inputs->mean[j]);
  return (double)FLT_EPSILON * bias;
}

// Bias and measured errors of a stored train. w is the matrix it stands for, scaled by `scale`.
static tt_status tt__finish_fit(tt__fit *fit, const tt_options *options, const float *bias,
                                double scale, tt_matrix *out, tt_report *report) {
  ptrdiff_t m = out->rows, n = out->cols, wide = fit->metric.cols;
  double *e = fit->spare, *dense = fit->expanded, lost = 0, whole = 0, shifted = 0, ulps = 0;
  tt_status status = tt_expand_f64(out, dense);
  if (status) return status;
  for (ptrdiff_t i = 0; i < m; i++) {
    const double *target = fit->target + i * wide;
    for (ptrdiff_t j = 0; j < n; j++) e[i * wide + j] = target[j] - dense[i * n + j] * scale;
    lost += tt__dot(n, e + i * wide, e + i * wide);
    whole += tt__dot(n, target, target);
    double mean = options->inputs ? tt__dot(n, e + i * wide, options->inputs->mean) : 0;
    double value = (bias ? (double)bias[i] : 0) + mean / scale;
    if (fabs(value) > (double)FLT_MAX) return TT_ERROR_UNSUPPORTED;
    if (out->bias) {
      tt_bias_data(out)[i] = (float)value;
      mean = (value - (double)out->bias[i]) * scale;         // what rounding to float leaves
    }
    shifted += mean * mean;
    mean = tt__mean_ulp(options->inputs, target, fabs(value) * scale);
    ulps += mean * mean;
  }
  tt__finish_report(&out->shape, m, n, report);
  report->relative_error = tt__ratio(lost, whole);
  report->norm = sqrt(whole) / scale;
  memset(report->discarded, 0, sizeof report->discarded);
  if (!options->inputs) return TT_OK;
  double error = tt__output_square(options->inputs, m, e, wide, fit->mixed, fit->work) + shifted;
  whole = tt__output_square(options->inputs, m, fit->target, wide, fit->mixed, fit->work);
  report->functional_error = whole > 0 || error > ulps ? tt__ratio(error, whole) : 0;
  return TT_OK;
}

// Are inputs, bias and row weights usable for a matrix of this size?
static tt_status tt__calibration_check(const tt_options *options, ptrdiff_t rows, ptrdiff_t cols) {
  double total = 0;
  for (ptrdiff_t i = 0; i < rows; i++) {
    double weight = options->row_weights ? (double)options->row_weights[i] : 1;
    double bias = options->bias ? (double)options->bias[i] : 0;
    if (!tt__is_finite(weight) || !tt__is_finite(bias)) return TT_ERROR_NONFINITE;
    if (weight < 0) return TT_ERROR_INVALID;
    total += weight;
  }
  if (!(total > 0)) return TT_ERROR_INVALID;
  return options->inputs && (options->inputs->cols != cols || options->inputs->count < 1)
             ? TT_ERROR_INVALID : TT_OK;
}

// Stores the chain of a fit, with the bias that makes up for the mean input.
static tt_status tt__fit_store(tt__fit *fit, tt__chain *chain, const tt__source *input,
                               const float *bias, const tt_options *options, tt_matrix *out,
                               tt_report *report) {
  tt_matrix like;
  memset(&like, 0, sizeof like);
  like.rows = fit->rows;
  like.cols = fit->cols;
  like.bias = tt__bias_sum(fit->pool, options, bias, like.rows);
  chain->exponent -= tt__log2_exact(input->scale);
  tt_status status = fit->pool->status;
  if (!status) status = tt__chain_store(fit->pool, chain, 0, &like, options, out);
  if (!status) status = tt__finish_fit(fit, options, like.bias, input->scale, out, report);
  if (status) tt_free(out);
  return status;
}

// Fits with ranks for an error that TT-SVD does not know: its own tolerance is searched for.
static tt_status tt__fit_within(tt__fit *fit, const tt_shape *request, const tt_options *given,
                                tt__chain *chain, tt_report *report) {
  tt_options options = *given;
  tt_shape most = *request;
  double good = 0, bad = 0;
  tt_status status = tt_shape_clip(&most, options.max_rank);
  for (int attempt = 0; attempt < 10 && !status; attempt++) {
    status = tt__fit_best(fit, request, &options, chain, report);
    if (status || given->epsilon <= 0) return status;
    if (tt__fit_relative(fit, chain, given) <= given->epsilon) {
      good = options.epsilon;
      if (tt__start_is_best(fit, request)) return TT_OK;
    } else {
      bad = options.epsilon;
      if (!memcmp(most.ranks, chain->shape.ranks, sizeof most.ranks)) return TT_OK; // caps decide
    }
    if (good > 0 && bad > 0 && bad < 1.1 * good) break;
    options.epsilon = bad <= 0 ? 2 * good : good <= 0 ? bad / 2 : sqrt(good * bad);
  }
  if (status || (good > 0 && good >= options.epsilon)) return status;
  options.epsilon = good;                                    // 0: nothing but the caps will do
  return tt__fit_best(fit, request, &options, chain, report);
}

// Fits a train of this shape to `input`, which is scanned and may be padded.
static tt_status tt__fit_matrix(tt__pool *pool, const tt__source *input, ptrdiff_t rows,
                                ptrdiff_t cols, const tt_shape *request, const float *bias,
                                const tt_options *options, tt_matrix *out, tt_report *report) {
  tt__fit fit;
  tt__chain chain;
  tt_status status = tt__fit_open(&fit, pool, input, rows, cols, request, options);
  if (!status) status = tt__fit_within(&fit, request, options, &chain, report);
  if (!status) status = tt__fit_store(&fit, &chain, input, bias, options, out, report);
  tt__pool_close(&fit.home);
  return status;
}

static int tt__is_calibrated(const tt_options *options) {
  return options->inputs || options->row_weights;
}

static tt_status tt__public_compress(const void *w, ptrdiff_t rows, ptrdiff_t cols,
                                     const tt_shape *shape, const tt_options *given, tt_matrix *out,
                                     tt_report *report, int wide) {
  tt_options options = tt__options(given);
  tt_report own = tt__new_report();
  double square = 0;
  if (out) memset(out, 0, sizeof *out);
  if (report) *report = own;
  if (!w || !out || !tt__options_valid(given)) return TT_ERROR_INVALID;
  tt_status status = tt_shape_check(shape, rows, cols);
  ptrdiff_t padded = status ? 0 : tt__leg_product(shape, 0, shape->order, 1, 1);
  if (!status && !tt__multiply(&padded, 16)) status = TT_ERROR_MEMORY;
  if (!status && options.strict && !tt__ranks_useful(shape)) status = TT_ERROR_SHAPE;
  if (!status) status = tt__calibration_check(&options, rows, cols);
  if (status) return status;
  tt__source input = tt__plain_source(w, wide, rows, cols);
  own.position = tt__scan(&input, &square);
  if (own.position >= 0) status = TT_ERROR_NONFINITE;
  tt__pool pool = tt__pool_open(&options.allocator);
  if (!status && tt__is_calibrated(&options))
    status = tt__fit_matrix(&pool, &input, rows, cols, shape, NULL, &options, out, &own);
  else if (!status)
    status = tt__compress_cores(&pool, &input, square, shape, &options, report != NULL, out, &own);
  tt__pool_close(&pool);
  if (report) *report = own;
  return status;
}

TTDEF tt_status tt_compress(const float *w, ptrdiff_t rows, ptrdiff_t cols, const tt_shape *shape,
                            const tt_options *options, tt_matrix *out, tt_report *report) {
  return tt__public_compress(w, rows, cols, shape, options, out, report, 0);
}

TTDEF tt_status tt_compress_f64(const double *w, ptrdiff_t rows, ptrdiff_t cols,
                                const tt_shape *shape, const tt_options *options, tt_matrix *out,
                                tt_report *report) {
  return tt__public_compress(w, rows, cols, shape, options, out, report, 1);
}

// The dense matrix of a valid train, or all of its padded matrix, as a scanned source.
static tt_status tt__dense_source(tt__pool *pool, const tt_matrix *w, int padded,
                                  tt__source *source) {
  tt_matrix view = *w;
  double square;
  if (padded) {
    view.rows = tt__leg_product(&w->shape, 0, w->shape.order, 1, 0);
    view.cols = tt__leg_product(&w->shape, 0, w->shape.order, 0, 1);
  }
  double *dense = tt__take_f64(pool, view.rows, view.cols);
  if (pool->status) return pool->status;
  tt_status status = tt_expand_f64(&view, dense);
  *source = tt__plain_source(dense, 1, view.rows, view.cols);
  if (!status && tt__scan(source, &square) >= 0) status = TT_ERROR_NONFINITE;
  return status;
}

// Rounding in the metric of the outputs is a fit to the matrix that the train stands for. It is the
// padded one: only that has the ranks of the train.
static tt_status tt__round_calibrated(tt__pool *pool, const tt_matrix *w, const tt_options *options,
                                      tt_matrix *out, tt_report *report) {
  tt__source source;
  tt_status status = tt__dense_source(pool, w, 1, &source);
  if (status) return status;
  return tt__fit_matrix(pool, &source, w->rows, w->cols, &w->shape, w->bias, options, out, report);
}

TTDEF tt_status tt_round(const tt_matrix *w, const tt_options *given, tt_matrix *out,
                         tt_report *report) {
  tt_options options;
  tt_report own = tt__new_report();
  if (report) *report = own;
  tt_status status = tt__enter(w, given, out, &options);
  if (!status) status = tt__calibration_check(&options, w->rows, w->cols);
  if (status) return status;
  tt__pool pool = tt__pool_open(&options.allocator);
  status = tt__is_calibrated(&options) ? tt__round_calibrated(&pool, w, &options, out, &own)
                                       : tt__round_plain(&pool, w, &options, out, &own);
  tt__pool_close(&pool);
  if (report && !status) *report = own;
  return status;
}

TTDEF tt_status tt_functional_error(const tt_matrix *w, const float *dense, const float *bias,
                                    const tt_inputs *inputs, double *out) {
  if (!dense || !inputs || !out || !tt__valid(w) || inputs->cols != w->cols || inputs->count < 1)
    return TT_ERROR_INVALID;
  tt__pool pool = tt__pool_open(&w->allocator);
  ptrdiff_t m = w->rows, n = w->cols;
  double *target = tt__take_f64(&pool, m, n), *e = tt__take_f64(&pool, m, n),
         *part = tt__take_f64(&pool, m, n), shifted = 0, ulps = 0;
  void *work = tt__take_work(&pool);
  tt_status status = pool.status ? pool.status : tt_expand_f64(w, e);
  for (ptrdiff_t i = 0; i < m && !status; i++) {
    for (ptrdiff_t j = 0; j < n; j++) {
      target[i * n + j] = (double)dense[i * n + j];
      e[i * n + j] = target[i * n + j] - e[i * n + j];
      if (!tt__is_finite(target[i * n + j])) status = TT_ERROR_NONFINITE;
    }
    double gap = (bias ? (double)bias[i] : 0) - (w->bias ? (double)w->bias[i] : 0);
    if (!tt__is_finite(gap)) status = TT_ERROR_NONFINITE;
    gap += tt__dot(n, e + i * n, inputs->mean);
    shifted += gap * gap;
    gap = tt__mean_ulp(inputs, target + i * n, bias ? fabs((double)bias[i]) : 0);
    ulps += gap * gap;
  }
  if (!status) {
    double whole = tt__output_square(inputs, m, target, n, part, work);
    double error = tt__output_square(inputs, m, e, n, part, work) + shifted;
    *out = whole > 0 || error > ulps ? tt__ratio(error, whole) : 0;
  }
  tt__pool_close(&pool);
  return status;
}

// Entropies of all bonds of a chain centred on core 0, whose centre goes to the last core.
static tt_status tt__bond_entropies(tt__pool *pool, tt__chain *chain, double *entropy) {
  for (int k = 0; k + 1 < chain->shape.order && !pool->status; k++) {
    tt__factor left;
    double *right;
    tt_status status = tt__core_svd(pool, chain, k, &left, &right);
    if (status) return status;
    entropy[k] = tt__weighted_entropy(left.values, left.count, 0);
    tt__orthogonalize_left(pool, chain, k);
  }
  return pool->status;
}

// What a sweep left, for the log and to decide whether to go on.
static tt_status tt__log_sweep(tt__fit *fit, const tt__chain *chain, tt_sweeps *sweeps,
                               tt_sweep_log *line) {
  tt__pool copy = tt__pool_open(&fit->pool->allocator);
  tt__chain spare = *chain;
  line->error = tt__ratio(tt__chain_error(fit, chain), fit->square);
  memcpy(line->ranks, chain->shape.ranks, sizeof line->ranks);
  tt_status status = fit->pool->status;
  if (!status && sweeps->log && sweeps->count < sweeps->room) {
    status = tt__rehouse(&copy, &spare);
    if (!status) status = tt__bond_entropies(&copy, &spare, line->entropy);
    sweeps->log[sweeps->count] = *line;
  }
  sweeps->count++;
  tt__pool_close(&copy);
  return status;
}

// One sweep and its line in the log. In the metric of the outputs cuts know that metric by its legs
// only: there single cores then answer to all of it.
static tt_status tt__refine_once(tt__fit *fit, tt__chain *chain, int sites, const tt__cuts *cuts,
                                 tt_sweeps *sweeps, tt_sweep_log *line) {
  double squared = 0;
  memset(line, 0, sizeof *line);
  tt_status status = tt__sweep(fit, chain, 0, sites, cuts, &squared, line->discarded);
  if (!status && sites == 2 && tt__is_calibrated(&cuts->options))
    status = tt__sweep(fit, chain, 0, 1, cuts, &squared, NULL);
  return status ? status : tt__log_sweep(fit, chain, sweeps, line);
}

// Sweeps until the error stalls, rises by cuts in a metric they do not know well (then the sweep
// before is taken back), or is that of rounding.
static tt_status tt__refine_sweeps(tt__fit *fit, tt__chain *chain, const tt__cuts *cuts,
                                   tt_sweeps *sweeps) {
  int sites = sweeps->sites == 1 || chain->shape.order == 1 ? 1 : 2;
  int most = sweeps->max_sweeps ? sweeps->max_sweeps : 20;
  double stall = sweeps->stall > 0 ? sweeps->stall : 1e-6,
         error = tt__ratio(tt__chain_error(fit, chain), fit->square);
  tt__pool other = tt__pool_open(&fit->pool->allocator);
  tt__chain before;
  tt_status status = fit->pool->status;
  int allowed = cuts->options.epsilon <= 0;                  // does the start obey the limits?
  for (int k = 1; k < chain->shape.order && cuts->options.max_rank > 0; k++)
    if (chain->shape.ranks[k] > cuts->options.max_rank) allowed = 0;
  for (int sweep = 0; sweep < most && !status; sweep++) {
    tt_sweep_log line;
    status = tt__chain_copy(chain, &other, &before);
    if (!status) status = tt__refine_once(fit, chain, sites, cuts, sweeps, &line);
    if (status) break;
    if ((sweep > 0 || allowed) && line.error > error && tt__is_calibrated(&cuts->options)) {
      status = tt__chain_copy(&before, &fit->home, chain);
      sweeps->count--;
      break;
    }
    if (line.error < 1e-15 || fabs(error - line.error) <= stall * error) break;
    error = line.error;
  }
  tt__pool_close(&other);
  return status;
}

TTDEF tt_status tt_refine(const tt_matrix *start, const tt_matrix *target, const tt_options *given,
                          tt_sweeps *sweeps, tt_matrix *out, tt_report *report) {
  tt_options options;
  tt_sweeps defaults;
  tt_report own = tt__new_report();
  memset(&defaults, 0, sizeof defaults);
  if (!sweeps) sweeps = &defaults;
  sweeps->count = 0;
  if (report) *report = own;
  if (target == out) return TT_ERROR_INVALID;                // before anything is zeroed
  tt_status status = tt__enter(start, given, out, &options);
  if (status) return status;
  if (!tt__valid(target) || target->rows != start->rows ||
      target->cols != start->cols || sweeps->sites < 0 || sweeps->sites > 2 ||
      sweeps->max_sweeps < 0 || sweeps->room < 0 || !(sweeps->stall >= 0))
    return TT_ERROR_INVALID;
  status = tt__calibration_check(&options, start->rows, start->cols);
  if (status) return status;
  tt__pool pool = tt__pool_open(&options.allocator);
  tt__source source;
  tt__fit fit;
  tt__chain chain;
  memset(&fit, 0, sizeof fit);
  status = tt__dense_source(&pool, target, tt__same_factors(start, target), &source);
  if (!status)
    status = tt__fit_open(&fit, &pool, &source, start->rows, start->cols, &start->shape, &options);
  if (!status) status = tt__chain_read(&fit.home, start, &chain);
  if (!status) status = tt__chain_center(&pool, &chain, 0);
  if (!status) {
    tt__cuts cuts = {options, start->shape, fit.square};
    chain.exponent += tt__log2_exact(source.scale);
    // a start of so different a norm says nothing about it
    if (chain.exponent > 200 || chain.exponent < -200) chain.exponent = 0;
    tt__untame(&chain, 0);
    if (options.epsilon > 0 || options.max_rank > 0)
      memset(cuts.start.ranks, 0, sizeof cuts.start.ranks);
    status = tt__refine_sweeps(&fit, &chain, &cuts, sweeps);
  }
  if (!status) status = tt__fit_store(&fit, &chain, &source, target->bias, &options, out, &own);
  tt__pool_close(&fit.home);
  tt__pool_close(&pool);
  if (report && !status) *report = own;
  return status;
}

TTDEF tt_matrix tt_dense_view(const float *w, ptrdiff_t rows, ptrdiff_t cols) {
  tt_shape shape;
  memset(&shape, 0, sizeof shape);
  shape.order = shape.ranks[0] = shape.ranks[1] = 1;
  if (w && rows >= 1 && rows <= INT_MAX && cols >= 1 && cols <= INT_MAX) {
    shape.rows[0] = (int)rows;
    shape.cols[0] = (int)cols;
  }
  tt_matrix view = tt__header(&shape, rows, cols, TT_F32, 0);
  view.cores[0].data = w;
  return view;
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// --------------------------------------------------------------------------------------- >>entropy
// Spectra of bonds and what they say. The squared singular values of an unfolding, normalised, are
// the Schmidt weights p_i of the bond; their entropy tells how much the two sides of the matrix
// share. A spectrum is computed from the cores alone: centre the chain on the bond, take the SVD of
// one core.

TTDEF tt_status tt_spectrum(const tt_matrix *w, int bond, double *values, int *count) {
  if (!count || !tt__valid(w) || bond < 0 || bond > w->shape.order - 2) return TT_ERROR_INVALID;
  ptrdiff_t left_side = tt__leg_product(&w->shape, 0, bond + 1, 1, 1),
            needed = w->shape.ranks[bond + 1];
  ptrdiff_t right_side = tt__leg_product(&w->shape, bond + 1, w->shape.order, 1, 1);
  if (left_side > 0) needed = tt__min(needed, left_side);    // -1 = larger than any rank
  if (right_side > 0) needed = tt__min(needed, right_side);
  int room = *count;
  *count = (int)needed;
  if (!values || room < needed) return TT_ERROR_INVALID;
  tt__pool pool = tt__pool_open(&w->allocator);
  tt__chain chain;
  tt__factor left;
  double *right;
  tt_status status = tt__chain_read(&pool, w, &chain);
  if (!status) status = tt__chain_center(&pool, &chain, bond);
  if (!status) status = tt__core_svd(&pool, &chain, bond, &left, &right);
  for (ptrdiff_t i = 0; i < needed && !status; i++)
    values[i] = i < left.count ? ldexp(left.values[i], chain.exponent) : 0;
  tt__pool_close(&pool);
  return status;
}

// Renyi entropy of weights p_i = (s_i / scale)^2 / total, for alpha other than 1. Near 1 both log
// and 1 - alpha cancel: there sum p^alpha = 1 + sum p (p^(alpha-1) - 1) is summed by expm1.
static double tt__renyi(const double *values, int count, double alpha, double scale, double total) {
  double sum = 0, largest = 0;
  int near_one = fabs(alpha - 1) < 0.5;
  for (int i = 0; i < count; i++) {
    double part = values[i] / scale, p = part * part / total;
    if (p > largest) largest = p;
    if (near_one) sum += p > 0 ? p * expm1((alpha - 1) * log(p)) : 0;
    else if (values[i] != 0) sum += alpha == 0 ? 1 : pow(p, alpha);
  }
  double entropy =
      alpha > DBL_MAX ? -log(largest) : (near_one ? log1p(sum) : log(sum)) / (1 - alpha);
  return entropy > 0 ? entropy : 0;
}

TTDEF double tt_entropy(const double *values, int count, double alpha) {
  if (!(alpha >= 0)) return (double)tt__bits_float(0x7FC00000U);
  double scale = values && count > 0 ? tt__largest_magnitude(count, values) : 0, total = 0, sum = 0;
  if (scale == 0 || !tt__is_finite(scale)) return 0;
  for (int i = 0; i < count; i++) total += values[i] / scale * (values[i] / scale);
  if (alpha != 1) return tt__renyi(values, count, alpha, scale, total);
  for (int i = 0; i < count; i++) {
    double part = values[i] / scale, p = part * part / total;
    if (p > 0) sum -= p * log(p);
  }
  return sum > 0 ? sum : 0;
}

TTDEF double tt_effective_rank(const double *values, int count) {
  return exp(tt_entropy(values, count, 1));
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// -------------------------------------------------------------------------------------- >>quantize
// Cores in another storage format. Scales sit on the rows of the GEMM view (see >>number), so that
// sums of integer products scale exactly. The error is measured on the trains themselves: the norm
// of the difference train, by orthogonalisation, which stays accurate where ||a||^2 - 2ab + ||b||^2
// would cancel.

// ||a - b|| / ||a|| and what else a report says about a, without any dense matrix.
static tt_status tt__measure(tt__pool *pool, const tt_matrix *a, const tt_matrix *b,
                             tt_report *report) {
  tt__chain first, second, difference;
  tt_status status = tt__chain_read(pool, a, &first);
  if (!status) status = tt__chain_read(pool, b, &second);
  if (status) return status;
  for (ptrdiff_t i = 0; i < tt__core_count(&second.shape, 0); i++)
    second.cores[0][i] = -second.cores[0][i];
  status = tt__chain_add(pool, &first, &second, &difference);
  if (status) return status;
  double lost = tt__chain_norm(pool, &difference), norm = tt__chain_norm(pool, &first);
  int exponent = first.exponent;                             // the entropies go on taming
  if (!pool->status) status = tt__bond_entropies(pool, &first, report->entropy);
  if (status) return status;
  if (pool->status) return pool->status;
  report->norm = ldexp(norm, exponent);
  tt__finish_report(&a->shape, a->rows, a->cols, report);
  report->relative_error = norm > 0 ? ldexp(lost / norm, difference.exponent - exponent) : 0;
  return TT_OK;
}

// The smallest magnitude that a share (in percent) of the values does not exceed, by bisection.
static double tt__percentile(ptrdiff_t count, const double *values, double share) {
  double low = 0, high = tt__largest_magnitude(count, values);
  double wanted = (double)count * (share > 0 ? share : 99.9) / 100;
  for (int step = 0; step < 60; step++) {
    double middle = low + (high - low) / 2;
    ptrdiff_t below = 0;
    for (ptrdiff_t i = 0; i < count; i++) below += fabs(values[i]) <= middle;
    if ((double)below >= wanted) high = middle;
    else low = middle;
  }
  return high;
}

// The magnitude that the largest code should stand for; by default the clipping of a run of values
// that gives the smallest squared error, at most their largest magnitude.
static double tt__clipped(const tt_options *options, tt_dtype dtype, ptrdiff_t count,
                          const double *values) {
  enum { TRIES = 36 };         // down to 0.3 of the largest
  double largest = tt__largest_magnitude(count, values), best = largest, least = -1;
  if (options->clip == TT_CLIP_LARGEST) return largest;
  if (options->clip == TT_CLIP_PERCENTILE)
    return tt__percentile(count, values, options->percentile);
  for (int t = 0; t < TRIES && largest > 0; t++) {
    double top = largest * (1 - 0.02 * t), scale = top / tt__largest_code(dtype), error = 0;
    if (!(scale > 0)) break;
    for (ptrdiff_t i = 0; i < count && (least < 0 || error < least); i++) {
      double lost = values[i] - scale * tt__integer_for(dtype, values[i], scale);
      error += lost * lost;
    }
    if (least >= 0 && error >= least) continue;
    least = error;
    best = top;
  }
  return best;
}

// A matrix that is being coded column by column.
typedef struct tt__coding {
  const tt_options *options;   // clipping
  tt_core *core;               // format, and where codes and scales go
  ptrdiff_t rows, length;
  double *values;              // (rows, length): what is not coded yet, errors added
  // (length, length) upper: C^-1 = spread^T spread; NULL = errors are not passed on
  const double *spread;
  double *scales;              // (rows) of the columns at work
  double *errors;              // (rows, block) of them, divided by the diagonal of spread, negative
} tt__coding;

// The scales of the runs that begin at column `first`: one per row or group; that of a core once.
static void tt__coding_scales(tt__coding *c, ptrdiff_t first, ptrdiff_t count) {
  tt_core *core = c->core;
  double whole = (double)core->scale;
  ptrdiff_t per_row = tt__row_scales(core->group, c->length);
  for (ptrdiff_t i = 0; i < c->rows; i++) {
    ptrdiff_t at = i * per_row + (core->group > 0 ? first / core->group : 0);
    unsigned char *code = NULL;
    double top = 0;
    if (core->group) {
      code = (unsigned char *)core->scales + (core->group > 0 ? 2 : 4) * at;
      top = tt__clipped(c->options, core->dtype, count, c->values + i * c->length + first);
    }
    c->scales[i] = tt__encode_scale(core, top, whole, code);
  }
}

// Codes columns first .. first+count-1 and passes each column's error on to the rest of them.
static void tt__coding_columns(tt__coding *c, ptrdiff_t first, ptrdiff_t count) {
  int bits = tt__dtype_bits(c->core->dtype);
  ptrdiff_t row_size = tt__row_size(c->core->dtype, c->length);
  for (ptrdiff_t i = 0; i < c->rows; i++) {
    double *v = c->values + i * c->length;
    unsigned char *row = (unsigned char *)c->core->data + i * row_size;
    for (ptrdiff_t j = first; j < first + count; j++) {
      int code = c->scales[i] > 0 ? tt__integer_for(c->core->dtype, v[j], c->scales[i]) : 0;
      tt__put_integer(row, j, bits, code);
      if (!c->spread) continue;
      double error = (c->scales[i] * code - v[j]) / c->spread[j * c->length + j];
      c->errors[i * count + j - first] = error;
      tt__axpy(first + count - j - 1, error, c->spread + j * c->length + j + 1, v + j + 1);
    }
  }
}

// Codes a whole matrix with error propagation [Frantar23]: the error of a column is made up for by
// the columns behind it, as the inverse covariance says, and is passed on block by block.
static tt_status tt__coding_run(tt__pool *pool, tt__coding *c) {
  void *mark = pool->blocks;
  tt_core *core = c->core;
  ptrdiff_t n = c->length, block = core->group > 0 ? tt__min(core->group, n) : tt__min(32, n);
  double top = tt__largest_magnitude(c->rows * n, c->values);
  c->scales = tt__take_f64(pool, c->rows, 1);
  c->errors = tt__take_f64(pool, c->rows, block);
  void *work = tt__take_work(pool);
  if (core->group == 0) top = tt__clipped(c->options, core->dtype, c->rows * n, c->values);
  tt_status status = pool->status ? pool->status : tt__encode_begin(core, top);
  for (ptrdiff_t first = 0; first < n && !status; first += block) {
    ptrdiff_t count = tt__min(block, n - first), end = first + count;
    if (core->group > 0) tt__coding_scales(c, first, count);
    else if (first == 0) tt__coding_scales(c, 0, n);
    tt__coding_columns(c, first, count);
    if (c->spread && end < n)
      tt__matmul(c->rows, n - end, count, c->errors, count, c->spread + first * n + end, n,
                 c->values + end, n, TT_ACCUMULATE, work);
  }
  tt__pool_rewind(pool, mark);
  return status;
}

// spread with C^-1 = spread^T spread, upper triangular: the Cholesky factor of C with rows and
// columns in reverse order, inverted and turned back.
static double *tt__spread_of(tt__pool *pool, ptrdiff_t n, const double *c) {
  double *l = tt__take_f64(pool, n, n), *spread = tt__take_f64(pool, n, n);
  double *turned = tt__identity(pool, n);
  if (pool->status) return NULL;
  for (ptrdiff_t i = 0; i < n; i++)
    for (ptrdiff_t j = 0; j < n; j++) l[i * n + j] = c[(n - 1 - i) * n + n - 1 - j];
  if (!tt__cholesky(n, l)) pool->status = TT_ERROR_CONVERGENCE;
  if (!pool->status) tt__leg_rows(n, n, l, TT__LEG_BACK, turned);
  for (ptrdiff_t i = 0; i < n; i++)
    for (ptrdiff_t j = i; j < n; j++) spread[i * n + j] = turned[(n - 1 - j) * n + n - 1 - i];
  return spread;
}

// Codes core k of a chain into `out` and reads back what the codes say.
static tt_status tt__code_core(tt__fit *fit, const tt_options *options, tt__chain *chain, int k,
                               tt_matrix *out) {
  tt__pool *pool = fit->pool;
  void *mark = pool->blocks;
  ptrdiff_t count = tt__core_count(&chain->shape, k);
  double *values = tt__take_f64(pool, count, 1);
  tt__coding coding;
  memset(&coding, 0, sizeof coding);
  coding.options = options;
  coding.core = &out->cores[k];
  coding.values = values;
  tt__view_size(&out->shape, out->sweep, k, &coding.rows, &coding.length);
  if (chain->shape.order == 1 && fit->metric.covariance)
    coding.spread = tt__spread_of(pool, coding.length, fit->metric.covariance);
  tt_status status = pool->status;
  if (!status) {
    if (out->sweep == TT_LEFT_TO_RIGHT) tt__turn_core(&out->shape, k, 0, chain->cores[k], values);
    else memcpy(values, chain->cores[k], (size_t)count * sizeof(double));
    tt_core *core = coding.core;
    double largest = tt__largest_magnitude(count, values);
    // scales are floats
    if (core->dtype != TT_F64 && largest > 0 && largest < 1e-30) status = TT_ERROR_UNSUPPORTED;
    else if (tt__is_integer(core->dtype)) status = tt__coding_run(pool, &coding);
    else status = tt__encode_begin(core, largest);
    if (!status && !tt__is_integer(core->dtype))
      tt__encode_rows(core, 0, coding.rows, coding.length, values);
  }
  if (!status) tt__read_core(pool, out, k, chain->cores[k]);
  tt__pool_rewind(pool, mark);
  return status ? status : pool->status;
}

// Codes core after core from the left; those behind it are fitted again to what it became. Where
// the norm exceeds what the scale of one core can hold, each core takes its share of it along.
static tt_status tt__code_chain(tt__fit *fit, const tt_options *options, tt__chain *chain,
                                tt_matrix *out) {
  enum { SWEEPS = 4, COMFORTABLE = 40 };
  int order = chain->shape.order, share = 0;
  tt_status status = TT_OK;
  double error = DBL_MAX;
  (void)frexp(tt__largest_magnitude(tt__core_count(&chain->shape, 0), chain->cores[0]), &share);
  share = share > COMFORTABLE || share < -COMFORTABLE ? share / order : 0;
  for (int k = 0; k < order && !status; k++) {
    if (k > 0) status = tt__settle(fit, chain, k, SWEEPS, 3e-3, &error);
    if (!status && k + 1 < order) {
      tt__move_center(fit->pool, chain, k, 1);
      tt__scale_row(tt__core_count(&chain->shape, k), ldexp(1, share), chain->cores[k]);
      tt__scale_row(tt__core_count(&chain->shape, k + 1), ldexp(1, -share), chain->cores[k + 1]);
    }
    if (!status) status = tt__code_core(fit, options, chain, k, out);
  }
  return status;
}

// Quantisation in the metric of the outputs.
static tt_status tt__quantize_calibrated(tt__pool *pool, const tt_matrix *w, tt_matrix *header,
                                         const tt_options *options, tt_matrix *out,
                                         tt_report *report) {
  tt__source source;
  tt__fit fit;
  tt__chain chain;
  const float *bias = NULL;
  memset(&fit, 0, sizeof fit);
  tt_status status = tt__dense_source(pool, w, 1, &source);
  // codes cannot carry the scale that would keep squares in the range of double
  if (!status && fabs((double)tt__log2_exact(source.scale)) > 300) status = TT_ERROR_UNSUPPORTED;
  source.scale = 1;
  if (!status) status = tt__fit_open(&fit, pool, &source, w->rows, w->cols, &w->shape, options);
  if (!status) status = tt__chain_read(&fit.home, w, &chain);
  // there and back: ranks are clipped to what both sides can carry
  if (!status) status = tt__chain_center(pool, &chain, chain.shape.order - 1);
  if (!status) status = tt__chain_center(pool, &chain, 0);
  if (!status) {
    tt__untame(&chain, 0);
    header->shape = chain.shape;
    bias = tt__bias_sum(pool, options, w->bias, w->rows);
    status = pool->status;
  }
  if (!status) status = tt__train_allocate(header, bias != NULL, &pool->allocator, out);
  if (!status) status = tt__code_chain(&fit, options, &chain, out);
  if (!status) status = tt__finish_fit(&fit, options, bias, 1, out, report);
  tt__pool_close(&fit.home);
  return status;
}

// Every core of w, in integers, with clipping; formats are those of the header.
static tt_status tt__quantize_clipped(tt__pool *pool, const tt_matrix *w, const tt_matrix *header,
                                      const tt_options *options, tt_matrix *out) {
  const float *bias = tt__bias_sum(pool, options, w->bias, w->rows);
  tt_status status = pool->status;
  if (!status) status = tt__train_allocate(header, bias != NULL, &pool->allocator, out);
  for (int k = 0; k < w->shape.order && !status; k++) {
    void *mark = pool->blocks;
    tt__coding coding;
    memset(&coding, 0, sizeof coding);
    coding.options = options;
    coding.core = &out->cores[k];
    tt__view_size(&w->shape, w->sweep, k, &coding.rows, &coding.length);
    coding.values = tt__take_f64(pool, coding.rows, coding.length);
    status = pool->status;
    if (!status) tt__decode_f64(&w->cores[k], coding.rows, coding.length, coding.values);
    if (!status) status = tt__coding_run(pool, &coding);
    tt__pool_rewind(pool, mark);
  }
  if (bias && !status) memcpy(tt_bias_data(out), bias, (size_t)w->rows * sizeof(float));
  return status;
}

// ||core k of a - core k of b|| / ||core k of a||, of equal views.
static double tt__core_error(tt__pool *pool, const tt_matrix *a, const tt_matrix *b, int k) {
  void *mark = pool->blocks;
  ptrdiff_t rows, length;
  tt__view_size(&a->shape, a->sweep, k, &rows, &length);
  double *first = tt__take_f64(pool, rows, length), *second = tt__take_f64(pool, rows, length);
  double lost = 0, norm = 0, largest = 0;
  if (!pool->status) {
    tt__decode_f64(&a->cores[k], rows, length, first);
    tt__decode_f64(&b->cores[k], rows, length, second);
    largest = tt__largest_magnitude(rows * length, first);
  }
  for (ptrdiff_t i = 0; i < rows * length && largest > 0; i++) {
    double value = first[i] / largest, gap = value - second[i] / largest;
    norm += value * value;
    lost += gap * gap;
  }
  tt__pool_rewind(pool, mark);
  return norm > 0 ? sqrt(lost / norm) : 0;
}

// The error that those of the cores let expect.
static double tt__predicted_error(tt__pool *pool, const tt_matrix *a, const tt_matrix *b) {
  double sum = 0;
  for (int k = 0; k < a->shape.order; k++) {
    double error = tt__core_error(pool, a, b, k);
    sum += error * error;
  }
  return sqrt(sum);
}

// Quantisation of every core by itself.
static tt_status tt__quantize_plain(tt__pool *pool, const tt_matrix *w, const tt_matrix *header,
                                    const tt_options *options, tt_matrix *out) {
  tt__source sources[TT_MAX_ORDER];
  tt__chain chain;
  tt_status status = tt__chain_read(pool, w, &chain);        // for its check of every value
  if (!status && options->clip > TT_CLIP_LARGEST && tt__is_integer(header->cores[0].dtype))
    return tt__quantize_clipped(pool, w, header, options, out);
  for (int k = 0; k < w->shape.order && !status; k++) {
    ptrdiff_t rows, length;
    tt__view_size(&w->shape, w->sweep, k, &rows, &length);
    double *values = tt__take_f64(pool, rows, length);
    if (values) tt__decode_f64(&w->cores[k], rows, length, values);
    sources[k] = tt__plain_source(values, 1, rows, length);
    status = pool->status;
  }
  const float *bias = tt__bias_sum(pool, options, w->bias, w->rows);
  if (!status) status = pool->status;
  return status ? status : tt__store(pool, header, sources, 0, 0, bias, out);
}

TTDEF tt_status tt_quantize(const tt_matrix *w, tt_dtype dtype, int group, const tt_options *given,
                            tt_matrix *out, tt_report *report) {
  tt_options options;
  tt_report own = tt__new_report();
  if (report) *report = own;
  tt_status status = tt__enter(w, given, out, &options);
  if (status) return status;
  if (dtype < TT_F32 || dtype > TT_I2 || group < TT_GROUP_ROW) return TT_ERROR_INVALID;
  if (group && !tt__is_integer(dtype)) return TT_ERROR_UNSUPPORTED;
  status = tt__calibration_check(&options, w->rows, w->cols);
  if (status) return status;
  tt__pool pool = tt__pool_open(&options.allocator);
  tt_matrix header = tt__header(&w->shape, w->rows, w->cols, dtype, group);
  header.sweep = w->sweep;
  int calibrated = tt__is_calibrated(&options);
  status = calibrated ? tt__quantize_calibrated(&pool, w, &header, &options, out, &own)
                      : tt__quantize_plain(&pool, w, &header, &options, out);
  if (!status && report && !calibrated) status = tt__measure(&pool, w, out, &own);
  if (!status && report && !calibrated) own.predicted_error = tt__predicted_error(&pool, w, out);
  if (!status) status = pool.status;
  if (status) tt_free(out);
  tt__pool_close(&pool);
  if (report && !status) *report = own;
  return status;
}

TTDEF size_t tt_stored_size(const tt_matrix *w) {
  if (!tt__valid(w)) return 0;
  ptrdiff_t total = w->bias ? w->rows * (ptrdiff_t)sizeof(float) : 0, data, scales;
  for (int k = 0; k < w->shape.order; k++) {
    const tt_core *core = &w->cores[k];
    int scaled = core->scale != 0 && core->scale != 1;
    tt__core_sizes(w, k, &data, &scales);
    if (!tt__increase(&total, data) || !tt__increase(&total, scales) ||
        !tt__increase(&total, scaled ? 4 : 0))
      return 0;
  }
  return (size_t)total;
}
#endif // TT_INFERENCE_ONLY

// ----------------------------------------------------------------------------------------- >>apply
// The forward pass [Novikov15, section 4]. The state is always S[p][K][w] and a step multiplies by
// core k seen as a matrix G (R,K): C[p][R][w] = G S[p]. Read as [p'][K'][w'] the result already is
// the next state, so nothing is ever transposed. Right to left, p counts batch and the columns
// before k, w the rows after k; left to right, p counts batch and the rows before k, w the columns
// after k. With w = 1 all p fold into one product S G^T. Two buffers take turns; coded cores are
// decoded a slab of rows at a time.

enum { TT__SLAB_SMALL = 256, TT__SLAB_LARGE = 65536 / 4 };   // floats
#ifdef TT_INFERENCE_ONLY
enum { TT__SLAB_FLOATS = TT__SLAB_SMALL };
#else
enum { TT__SLAB_FLOATS = TT__SLAB_LARGE };
#endif

// Rows of a core that one slab holds.
static ptrdiff_t tt__slab_rows(ptrdiff_t rows, ptrdiff_t length) {
  return tt__max(1, tt__min(rows, TT__SLAB_FLOATS / length));
}

typedef struct tt__step {
  int core;
  ptrdiff_t p, w, rows, length;                              // S (p, length, w) -> C (p, rows, w)
} tt__step;

// Step number `index` of the sweep. Overflow was excluded by tt__buffers.
static void tt__step_at(const tt_matrix *w, ptrdiff_t batch, int index, tt__step *step) {
  const tt_shape *shape = &w->shape;
  int forward = w->sweep == TT_LEFT_TO_RIGHT, k = forward ? index : shape->order - 1 - index;
  step->core = k;
  step->p = batch * tt__leg_product(shape, 0, k, forward, !forward);
  step->w = tt__leg_product(shape, k + 1, shape->order, !forward, forward);
  tt__view_size(shape, w->sweep, k, &step->rows, &step->length);
}

// Is the core usable as it is, without decoding?
static int tt__plain_core(const tt_core *core) {
  return !TT__FLASH && core->dtype == TT_F32 && (core->scale == 0 || core->scale == 1) &&
         (uintptr_t)core->data % sizeof(float) == 0;
}

// Can this build read every core? Without double it cannot read F64.
static int tt__decodable(const tt_matrix *w) {
#ifdef TT_INFERENCE_ONLY
  for (int k = 0; k < w->shape.order; k++) if (w->cores[k].dtype == TT_F64) return 0;
#endif
  (void)w;
  return 1;
}

// Numbers in the state before step `index` for one input: of x for 0, of y, padded, behind the last
// step. -1 on overflow.
static ptrdiff_t tt__state_count(const tt_matrix *w, int index) {
  const tt_shape *shape = &w->shape;
  int left = w->sweep == TT_LEFT_TO_RIGHT, cut = left ? index : shape->order - index;
  ptrdiff_t count = shape->ranks[cut];
  for (int k = 0; k < shape->order; k++)
    if (!tt__multiply(&count, (k < cut) == left ? shape->rows[k] : shape->cols[k])) return -1;
  return count;
}

typedef struct tt__buffers {
  ptrdiff_t state;                                           // floats of each of the two buffers
  ptrdiff_t slab;                                            // floats of decoded rows
  ptrdiff_t product;                                         // bytes for the matrix product
  ptrdiff_t total;                                           // bytes
} tt__buffers;

static int tt__is_padded(const tt_matrix *w) {
  return tt__state_count(w, 0) != w->cols || tt__state_count(w, w->shape.order) != w->rows;
}

// Largest state of one input, x and y among them if `ends`; -1 on overflow.
static ptrdiff_t tt__largest_state(const tt_matrix *w, int ends) {
  ptrdiff_t largest = 0;
  for (int i = 0; i <= w->shape.order; i++) {
    ptrdiff_t count = tt__state_count(w, i);
    if (count < 0) return -1;
    if (ends || (i > 0 && i < w->shape.order)) largest = tt__max(largest, count);
  }
  return largest;
}

// Takes `count` floats off a workspace whose sizes were rounded by tt__add_size.
static float *tt__carve(unsigned char **at, ptrdiff_t count) {
  float *buffer = (float *)(void *)*at;
  *at += (count * (ptrdiff_t)sizeof(float) + 63) / 64 * 64;
  return buffer;
}

// Sizes of buffers and work. Returns 0 where anything does not fit.
static int tt__plan_buffers(const tt_matrix *w, ptrdiff_t batch, tt__buffers *plan) {
  memset(plan, 0, sizeof *plan);
  plan->total = 64;
  plan->state = tt__largest_state(w, tt__is_padded(w));
  if (plan->state < 0 || !tt__multiply(&plan->state, batch)) return 0;
  for (int i = 0; i < w->shape.order; i++) {
    ptrdiff_t rows, length;
    int k = w->sweep == TT_LEFT_TO_RIGHT ? i : w->shape.order - 1 - i;
    tt__view_size(&w->shape, w->sweep, k, &rows, &length);
    if (!tt__plain_core(&w->cores[k]))
      plan->slab = tt__max(plan->slab, length * tt__slab_rows(rows, length));
#ifndef TT_INFERENCE_ONLY
    tt__step step;
    tt__step_at(w, batch, i, &step);
    ptrdiff_t m = step.w == 1 ? step.p : rows, n = step.w == 1 ? rows : step.w;
    plan->product = tt__max(plan->product, tt__gemm_work_size(m, n, length, 0));
#endif
  }
  return tt__add_size(&plan->total, plan->state, (ptrdiff_t)sizeof(float)) &&
         tt__add_size(&plan->total, plan->state, (ptrdiff_t)sizeof(float)) &&
         tt__add_size(&plan->total, plan->slab, (ptrdiff_t)sizeof(float)) &&
         tt__add_size(&plan->total, plan->product, 1);
}

// Rows first .. first+count-1 of one step; g is their part of the core as floats.
#ifdef TT_INFERENCE_ONLY
static void tt__step_rows(const tt__step *step, ptrdiff_t first, ptrdiff_t count, const float *g,
                          const float *in, float *out, void *work) {
  ptrdiff_t w = step->w, jump = (step->rows - count) * w;
  (void)work;
  out += first * w;
  for (ptrdiff_t p = 0; p < step->p; p++, in += step->length * w, out += jump)
    for (ptrdiff_t r = 0; r < count; r++)
      for (ptrdiff_t j = 0; j < w; j++, out++) {
        const float *a = g + r * step->length, *b = in + j;
        float sum = 0;
        for (ptrdiff_t t = 0; t < step->length; t++, b += w) sum += a[t] * *b;
        *out = sum;
      }
}
#else
static void tt__step_rows(const tt__step *step, ptrdiff_t first, ptrdiff_t count, const float *g,
                          const float *in, float *out, void *work) {
  // out (p, rows) = in (p, length) times G^T
  if (step->w == 1) {
    tt__product fold = {step->p, count, step->length, in, g, step->length, 1, 1, step->length,
                        out + first, step->rows, 0, work};
    tt__gemm(&fold, 0);
    return;
  }
  for (ptrdiff_t p = 0; p < step->p; p++) {
    tt__product one = {
        count,        step->w, step->length, g, in + p * step->length * step->w,
        step->length, 1,       step->w,      1, out + (p * step->rows + first) * step->w,
        step->w,      0,       work};
    tt__gemm(&one, 0);
  }
}
#endif

// One step; coded cores go through the slab.
static void tt__run_step(const tt_core *core, const tt__step *step, const float *in, float *out,
                         float *slab, void *work) {
  if (tt__plain_core(core)) {
    tt__step_rows(step, 0, step->rows, (const float *)core->data, in, out, work);
    return;
  }
  ptrdiff_t high = tt__slab_rows(step->rows, step->length);
  for (ptrdiff_t first = 0; first < step->rows; first += high) {
    ptrdiff_t count = tt__min(high, step->rows - first);
    tt__decode_rows(core, first, count, step->length, slab);
    tt__step_rows(step, first, count, slab, in, out, work);
  }
}

// Copies rows of `have` floats to rows of `want`, zeros behind or the surplus left out.
static void tt__resize_rows(ptrdiff_t count, const float *from, ptrdiff_t have, float *to,
                            ptrdiff_t want) {
  ptrdiff_t common = tt__min(have, want);
  for (ptrdiff_t i = 0; i < count; i++) {
    memcpy(to + i * want, from + i * have, (size_t)common * sizeof(float));
    for (ptrdiff_t j = common; j < want; j++) to[i * want + j] = 0;
  }
}

static void tt__add_bias(const tt_matrix *w, ptrdiff_t batch, float *y) {
  for (ptrdiff_t j = 0; w->bias && j < w->rows; j++) {
    float bias;
    tt__fetch(&bias, w->bias, j, sizeof bias);
    for (ptrdiff_t i = 0; i < batch; i++) y[i * w->rows + j] += bias;
  }
}

TTDEF size_t tt_apply_work_size(const tt_matrix *w, ptrdiff_t batch) {
  tt__buffers plan;
  if (batch < 0 || !tt__valid(w) || !tt__plan_buffers(w, batch, &plan)) return 0;
  return (size_t)plan.total;
}

TTDEF ptrdiff_t tt_apply_macs(const tt_matrix *w, ptrdiff_t batch) {
  ptrdiff_t total = 0;
  if (batch < 0 || !tt__valid(w)) return -1;
  for (int i = 0; i < w->shape.order; i++) {
    tt__step step;
    tt__step_at(w, 1, i, &step);
    ptrdiff_t macs = tt__state_count(w, i);
    if (macs < 0 || !tt__multiply(&macs, step.rows) || !tt__increase(&total, macs)) return -1;
  }
  return tt__multiply(&total, batch) ? total : -1;
}

TTDEF tt_status tt_apply(const tt_matrix *w, const float *x, ptrdiff_t batch, float *y, void *work,
                         size_t work_size) {
  tt__buffers plan;
  if (batch < 0 || !tt__valid(w) || !tt__plan_buffers(w, batch, &plan)) return TT_ERROR_INVALID;
  if (!tt__decodable(w)) return TT_ERROR_UNSUPPORTED;
  if (batch == 0) return TT_OK;
  if (!x || !y || !work || work_size < (size_t)plan.total) return TT_ERROR_INVALID;
  int padded = tt__is_padded(w);
  unsigned char *at = tt__align(work);
  float *in_room = tt__carve(&at, plan.state), *room = tt__carve(&at, plan.state);
  float *slab = tt__carve(&at, plan.slab);
  if (padded) tt__resize_rows(batch, x, w->cols, room, tt__state_count(w, 0));
  const float *in = padded ? room : x;
  for (int i = 0; i < w->shape.order; i++) {
    tt__step step;
    float *out = i + 1 < w->shape.order || padded ? in_room : y;
    tt__step_at(w, batch, i, &step);
    tt__run_step(&w->cores[step.core], &step, in, out, slab, at);
    in_room = room;                                          // the two take turns
    room = out;
    in = out;
  }
  if (padded) tt__resize_rows(batch, in, tt__state_count(w, w->shape.order), y, w->rows);
  tt__add_bias(w, batch, y);
  return TT_OK;
}

// ---- rows of W
//
// Row o of W with digits (o_0, o_1, ..) is the product of the slices G_k[:, o_k, :, :]. A slice is
// `depth` rows of the GEMM view of core k, each `length` long. In natural layout the state is
// (columns before k, r_k); times the slice (r_k, n_k r_k+1) it already is the next one. In the
// other layout the mirror: the state is (r_k+1, columns after k), and the slice (r_k+1, r_k n_k)
// acts transposed, from the last core to the first.

typedef struct tt__slice {
  int core;
  ptrdiff_t outer;                                           // columns already in the state
  ptrdiff_t depth, length;
  // the rows of the view are first, first + stride, ..
  ptrdiff_t first, stride;
} tt__slice;

// Slice number `index` of the contraction of `row`. Overflow was excluded by tt__plan_rows.
static void tt__slice_at(const tt_matrix *w, ptrdiff_t row, int index, tt__slice *slice) {
  const tt_shape *shape = &w->shape;
  int order = shape->order, turned = w->sweep == TT_LEFT_TO_RIGHT;
  int k = turned ? order - 1 - index : index;
  ptrdiff_t rows, digit = row / tt__leg_product(shape, k + 1, order, 1, 0) % shape->rows[k];
  slice->core = k;
  slice->depth = shape->ranks[turned ? k + 1 : k];
  tt__view_size(shape, w->sweep, k, &rows, &slice->length);
  slice->outer = tt__leg_product(shape, turned ? k + 1 : 0, turned ? order : k, 0, 1);
  slice->first = turned ? digit * slice->depth : digit;
  slice->stride = turned ? 1 : shape->rows[k];
}

typedef struct tt__row_plan {
  ptrdiff_t state, slab;                                     // floats, as in tt__buffers
  ptrdiff_t product, total;                                  // bytes
} tt__row_plan;

// Sizes of buffers. Returns 0 where anything does not fit.
static int tt__plan_rows(const tt_matrix *w, tt__row_plan *plan) {
  tt__row_plan made = {0, 0, 0, 64};
  int order = w->shape.order;
  int padded = tt__leg_product(&w->shape, 0, order, 0, 1) != w->cols;
  for (int i = 0; i < order; i++) {
    tt__slice slice;
    tt__slice_at(w, 0, i, &slice);
    ptrdiff_t state = slice.outer;
    if (!tt__multiply(&state, slice.length)) return 0;
    if (i + 1 < order || padded) made.state = tt__max(made.state, state);
    if (!tt__plain_core(&w->cores[slice.core]))
      made.slab = tt__max(made.slab, slice.length * tt__slab_rows(slice.depth, slice.length));
    ptrdiff_t side = tt__max(slice.outer, slice.length);
    made.product = tt__max(made.product, tt__gemm_work_size(side, side, slice.depth, 0));
  }
  if (!tt__add_size(&made.total, made.state, (ptrdiff_t)sizeof(float)) ||
      !tt__add_size(&made.total, made.state, (ptrdiff_t)sizeof(float)) ||
      !tt__add_size(&made.total, made.slab, (ptrdiff_t)sizeof(float)) ||
      !tt__add_size(&made.total, made.product, 1))
    return 0;
  *plan = made;
  return 1;
}

// out (+)= state times rows first .. first+count-1 of a slice, which start at g, `step` floats
// apart.
static void tt__slice_rows(int sweep, const tt__slice *slice, ptrdiff_t first, ptrdiff_t count,
                           const float *g, ptrdiff_t step, const float *in, float *out,
                           void *work) {
  ptrdiff_t outer = slice->outer, length = slice->length;
  tt__product natural = {outer, length, count, in + first, g,         slice->depth, 1,
                         step,  1,      out,   length,     first > 0, work};
  tt__product turned = {length, outer, count, g,     in + first * outer, 1,   step,
                        outer,  1,     out,   outer, first > 0,          work};
  tt__gemm(sweep == TT_LEFT_TO_RIGHT ? &turned : &natural, 0);
}

// One slice; coded cores go through the slab.
static void tt__run_slice(const tt_matrix *w, const tt__slice *slice, const float *in, float *out,
                          float *slab, void *work) {
  const tt_core *core = &w->cores[slice->core];
  ptrdiff_t length = slice->length, high = tt__slab_rows(slice->depth, length);
  if (tt__plain_core(core)) {
    const float *g = (const float *)core->data + slice->first * length;
    tt__slice_rows(w->sweep, slice, 0, slice->depth, g, slice->stride * length, in, out, work);
    return;
  }
  for (ptrdiff_t first = 0; first < slice->depth; first += high) {
    ptrdiff_t count = tt__min(high, slice->depth - first);
    for (ptrdiff_t i = 0; i < count; i++)
      tt__decode_rows(core, slice->first + (first + i) * slice->stride, 1, length,
                      slab + i * length);
    tt__slice_rows(w->sweep, slice, first, count, slab, length, in, out, work);
  }
}

// Are all row numbers in range?
static int tt__rows_exist(const tt_matrix *w, const int *index, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i++)
    if (index[i] < 0 || index[i] >= w->rows) return 0;
  return 1;
}

TTDEF size_t tt_rows_work_size(const tt_matrix *w) {
  tt__row_plan plan;
  return tt__valid(w) && tt__plan_rows(w, &plan) ? (size_t)plan.total : 0;
}

TTDEF tt_status tt_rows(const tt_matrix *w, const int *index, ptrdiff_t count, float *out,
                        void *work, size_t work_size) {
  static const float one = 1;
  tt__row_plan plan;
  if (count < 0 || !tt__valid(w) || !tt__plan_rows(w, &plan)) return TT_ERROR_INVALID;
  if (!tt__decodable(w)) return TT_ERROR_UNSUPPORTED;
  if (count == 0) return TT_OK;
  if (!index || !out || !work || work_size < (size_t)plan.total || !tt__rows_exist(w, index, count))
    return TT_ERROR_INVALID;
  unsigned char *at = tt__align(work);
  float *buffer[2], *slab;
  buffer[0] = tt__carve(&at, plan.state);
  buffer[1] = tt__carve(&at, plan.state);
  slab = tt__carve(&at, plan.slab);
  int order = w->shape.order;
  ptrdiff_t n = tt__leg_product(&w->shape, 0, order, 0, 1);
  for (ptrdiff_t c = 0; c < count; c++) {
    const float *in = &one;
    for (int i = 0; i < order; i++) {
      tt__slice slice;
      tt__slice_at(w, index[c], i, &slice);
      float *to = i + 1 < order || n != w->cols ? buffer[i & 1] : out + c * w->cols;
      tt__run_slice(w, &slice, in, to, slab, at);
      in = to;
    }
    if (n != w->cols) memcpy(out + c * w->cols, in, (size_t)w->cols * sizeof(float));
  }
  return TT_OK;
}

// --------------------------------------------------------------------------------------- >>integer
// The sweep of >>apply on integers. States are int8 codes q with one scale s per input: S = q s. A
// step forms exact sums of products of codes in 32 bits. As scales of a core sit on rows of its
// GEMM view, a sum times the scale of its row is the next state, and one multiplication by a fixed
// number makes it codes again: (scale of S)(scale of row)/(scale of the next S), a 31-bit
// multiplier and a shift.
//
// Static plans know all scales beforehand. Dynamic ones bring the rows of a step to one scale, in
// 32 bits with the headroom that the sums leave, look for the largest, and round to codes then: so
// even the scale of an input, which is a float, is found with integers.
//
// Sums are added as unsigned numbers, which may wrap on the way: what tt_integer_prepare proved to
// fit comes out right in any order, and a train that was never prepared does no harm.

// floor(value / 2^shift). C leaves the right shift of negative numbers open; almost all compilers
// keep the sign.
static int64_t tt__floor_shift(int64_t value, int shift) {
  if (((int64_t)-1 >> 1) == -1) return value >> shift;
  return value < 0 ? ~(~value >> shift) : value >> shift;
}

// value / 2^shift to the nearest, halves up, for shift > 0.
static int64_t tt__round_shift(int64_t value, int shift) {
  return tt__floor_shift(tt__floor_shift(value, shift - 1) + 1, 1);
}

static int32_t tt__fit_i32(int64_t value) {
  if (value > INT32_MAX) return INT32_MAX;
  return value < INT32_MIN ? INT32_MIN : (int32_t)value;
}

TTDEF int32_t tt_requantize(int32_t value, int32_t multiplier, int shift, int rounding) {
  int down = 31 - shift, again = 0;
  if (shift < -31 || shift > 30) return 0;
  if (rounding == TT_ROUND_DOUBLE) {
    if (shift > 0)
      value = (int32_t)((uint32_t)value << shift);
    else
      again = -shift;
    down = 31;
  }
  int64_t result = (int64_t)value * multiplier;
  for (;;) {
    result = tt__round_shift(result, down);
    if (again == 0) return tt__fit_i32(result);
    result -= result < 0; // halves away from zero
    down = again;
    again = 0;
  }
}

typedef struct tt__quotient {
  int32_t multiplier;
  int shift;
} tt__quotient; // for tt_requantize

// value + zero, kept to low .. 127.
static int8_t tt__fit_code(int32_t value, int zero, int low) {
  return (int8_t)(value > 127 - zero ? 127 : value < low - zero ? low : value + zero);
}

static int32_t tt__fetch_i32(const int32_t *array, ptrdiff_t index) {
  int32_t value;
  tt__fetch(&value, array, index, sizeof value);
  return value;
}

// Can codes of this core be used where they are?
static int tt__direct_codes(const tt_core *core) { return !TT__FLASH && core->dtype == TT_I8; }

// Row `row` of the GEMM view as bytes, unpacked into `room` where it must be.
static const int8_t *tt__code_row(const tt_core *core, ptrdiff_t row, ptrdiff_t length,
                                  int8_t *room) {
  const unsigned char *codes =
      (const unsigned char *)core->data + row * tt__row_size(core->dtype, length);
  if (tt__direct_codes(core)) return (const int8_t *)codes;
  for (ptrdiff_t i = 0; i < length; i++)
    room[i] = (int8_t)tt__integer_code(codes, i, tt__dtype_bits(core->dtype));
  return room;
}

// Most columns of a panel, few of them, and rows of a tile: see the dot products below.
enum { TT__DOT_COLUMNS = 64, TT__FEW_COLUMNS = 8, TT__DOT_ROWS = 6 };

// One run of a plan. Workspace: a panel (not for inference alone), 32-bit results (dynamic plans
// only), two states, a row.
typedef struct tt__integers {
  const tt_integer *plan;
  const tt_matrix *w;
  ptrdiff_t state, row; // bytes of one state; of an unpacked row of a core
  int32_t *wide;
  int8_t *states;
#ifndef TT_INFERENCE_ONLY
  ptrdiff_t panel; // bytes of columns packed for the instructions of some machines
  unsigned char *pack;
#endif
  int index; // of the step at work, and what it is
  tt__step step;
} tt__integers;

// Sizes for a plan and a valid train. Returns bytes of everything, or 0 where it is not the plan of
// such a train or anything does not fit.
static size_t tt__integer_sizes(const tt_integer *plan, const tt_matrix *w, tt__integers *run) {
  if (!plan || plan->order != w->shape.order) return 0;
  if (plan->bias && plan->num_bias != w->rows) return 0;
  run->plan = plan;
  run->w = w;
  run->row = 0;
#ifndef TT_INFERENCE_ONLY
  run->panel = 0;
#endif
  ptrdiff_t total = 64;
  for (int i = 0; i < plan->order; i++) {
    int k = w->sweep == TT_LEFT_TO_RIGHT ? i : plan->order - 1 - i;
    const tt_core *core = &w->cores[k];
    ptrdiff_t rows, length;
    tt__view_size(&w->shape, w->sweep, k, &rows, &length);
    if (!tt__is_integer(core->dtype) || core->group > 0 || !plan->multipliers[i]) return 0;
    if (plan->num_multipliers[i] != 1 && plan->num_multipliers[i] != rows) return 0;
    if (i == 0 && plan->offsets && plan->num_offsets != rows) return 0;
    if (!tt__direct_codes(core)) run->row = tt__max(run->row, length);
#ifndef TT_INFERENCE_ONLY
    tt__step step;
    tt__step_at(w, 1, i, &step);
    ptrdiff_t columns = tt__min(step.w == 1 ? step.p : step.w, TT__DOT_COLUMNS);
    if (columns >= TT__FEW_COLUMNS) columns = (columns + 15) / 16 * 16;
    ptrdiff_t panel = columns;
    if (length > PTRDIFF_MAX - 63 || !tt__multiply(&panel, (length + 63) / 64 * 64)) return 0;
    run->panel = tt__max(run->panel, panel);
#endif
  }
#ifndef TT_INFERENCE_ONLY
  if (!tt__add_size(&total, run->panel, 1)) return 0;
#endif
  run->state = tt__largest_state(w, plan->dynamic || tt__is_padded(w));
  int fits = run->state >= 0 && tt__add_size(&total, run->state, 2) &&
             tt__add_size(&total, run->row, 1) &&
             tt__add_size(&total, plan->dynamic ? run->state : 0, (ptrdiff_t)sizeof(int32_t));
  return fits ? (size_t)total : 0;
}

static void tt__integer_open(tt__integers *run, void *work) {
  unsigned char *at = tt__align(work);
#ifndef TT_INFERENCE_ONLY
  run->pack = at;
  at += run->panel; // a multiple of 64
#endif
  run->wide = (int32_t *)(void *)at;
  run->states = (int8_t *)(run->wide + (run->plan->dynamic ? run->state : 0));
}

// Row r of the step at work, whose codes are g: S (p, length, w) -> C (p, rows, w), as codes in
// `narrow` unless that is NULL, else as 32-bit results in run->wide.
static void tt__integer_row(const tt__integers *run, ptrdiff_t r, const int8_t *g, const int8_t *in,
                            int8_t *narrow) {
  const tt_integer *plan = run->plan;
  const tt__step *step = &run->step;
  int i = run->index, last = i + 1 == plan->order;
  int32_t multiplier = tt__fetch_i32(plan->multipliers[i], plan->num_multipliers[i] > 1 ? r : 0);
  int32_t start = i == 0 && plan->offsets ? tt__fetch_i32(plan->offsets, r) : 0;
  for (ptrdiff_t p = 0; p < step->p; p++, in += step->length * step->w) {
    ptrdiff_t at = (p * step->rows + r) * step->w;
    for (ptrdiff_t j = 0; j < step->w; j++, at++) {
      uint32_t sum = (uint32_t)start;
      const int8_t *s = in + j;
      if (last && at >= run->w->rows) return; // padded rows are left out
      for (ptrdiff_t t = 0; t < step->length; t++, s += step->w)
        sum += (uint32_t)(int32_t)(g[t] * *s);
      if (last && plan->bias) sum += (uint32_t)tt__fetch_i32(plan->bias, at);
      int32_t z = tt_requantize((int32_t)sum, multiplier, plan->shifts[i], plan->rounding);
      if (!narrow)
        run->wide[at] = z;
      else
        narrow[at] = last ? tt__fit_code(z, plan->out_zero, -128) : tt__fit_code(z, 0, -127);
    }
  }
}

#ifdef TT__DOTS
// ---- integer dot products of the machine. Skip to the end of this block: it computes what the
// plain code does, for cores of I8 and plans that know the sums of their rows.
//
// One instruction adds four products of bytes to each of 16 (x86) or 4 (ARM) sums. A panel is some
// columns of S with four consecutive terms of each side by side, shared by all rows of the core. A
// tile, 6 rows by up to four vectors of columns, stays in registers down the whole sum. For a few
// columns the sum runs along a vector instead. x86 wants one side unsigned: S gets 128 more, and
// 128 times the sum of the row is taken off again, modulo 2^32 like everything here.

typedef int32_t tt__dot_vector __attribute__((vector_size(4 * TT__DOT_LANES)));
typedef int64_t tt__wide_vector __attribute__((vector_size(64)));
typedef int32_t tt__half_vector __attribute__((vector_size(32)));
typedef int32_t tt__any_word __attribute__((may_alias, aligned(1)));

static int tt__has_dots(void) {
#ifdef __aarch64__
  return 1;
#else
  return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
}

// sum += four products for each lane: of `columns`, and of the four bytes at g.
#define TT__INLINE static inline __attribute__((always_inline))
#ifdef __aarch64__
TT__INLINE void tt__dot_words(tt__dot_vector *sum, tt__dot_vector columns, tt__dot_vector g) {
  __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(*sum) : "w"(columns), "w"(g));
}
TT__INLINE void tt__dot_word(tt__dot_vector *sum, tt__dot_vector columns, const void *g) {
  int32_t word = *(const tt__any_word *)g;
  tt__dot_vector every = {word, word, word, word};
  tt__dot_words(sum, columns, every);
}
#else
TT__INLINE TT__DOTS void tt__dot_words(tt__dot_vector *sum, tt__dot_vector columns,
                                       tt__dot_vector g) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(*sum) : "v"(columns), "v"(g));
}
TT__INLINE TT__DOTS void tt__dot_word(tt__dot_vector *sum, tt__dot_vector columns, const void *g) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0"
          : "+v"(*sum)
          : "v"(columns), "m"(*(const tt__any_word *)g));
}
#endif

// One tile: sums[row][column] over `quads` quads of terms. The last quad is at `last`, a word each.
TT__INLINE TT__DOTS void tt__dot_tile_of(const int vectors, ptrdiff_t quads,
                                         const unsigned char *panel, const int8_t *const *rows,
                                         const int32_t *last, int32_t *sums) {
  tt__dot_vector sum[TT__DOT_ROWS][4], column[4], none = {0};
  TT__UNROLL for (int r = 0; r < TT__DOT_ROWS; r++) {
    TT__UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = none;
  }
  for (ptrdiff_t q = 0; q < quads; q++) {
    TT__UNROLL for (int v = 0; v < vectors; v++) {
      memcpy(&column[v], panel, sizeof column[v]);
      panel += sizeof column[v];
    }
    TT__UNROLL for (int r = 0; r < TT__DOT_ROWS; r++) {
      const void *g = q + 1 < quads ? (const void *)(rows[r] + 4 * q) : (const void *)(last + r);
      TT__UNROLL for (int v = 0; v < vectors; v++) tt__dot_word(&sum[r][v], column[v], g);
    }
  }
  TT__UNROLL for (int r = 0; r < TT__DOT_ROWS; r++) {
    TT__UNROLL for (int v = 0; v < vectors; v++)
        memcpy(sums + r * TT__DOT_COLUMNS + v * TT__DOT_LANES, &sum[r][v], sizeof sum[r][v]);
  }
}

TT__DOTS static void tt__dot_tile(int vectors, ptrdiff_t quads, const unsigned char *panel,
                                  const int8_t *const *rows, const int32_t *last, int32_t *sums) {
  if (vectors == 1)
    tt__dot_tile_of(1, quads, panel, rows, last, sums);
  else if (vectors == 2)
    tt__dot_tile_of(2, quads, panel, rows, last, sums);
  else if (vectors == 3)
    tt__dot_tile_of(3, quads, panel, rows, last, sums);
  else
    tt__dot_tile_of(4, quads, panel, rows, last, sums);
}

// The same for a few columns, each `stride` bytes of the panel: the sum runs along vectors.
TT__DOTS static void tt__dot_few(ptrdiff_t length, ptrdiff_t columns, ptrdiff_t stride,
                                 const unsigned char *panel, const int8_t *const *rows,
                                 int32_t *sums) {
  enum { STEP = 4 * TT__DOT_LANES };
  for (ptrdiff_t c = 0; c < columns; c++, panel += stride) {
    tt__dot_vector sum[TT__DOT_ROWS], column, g, none = {0};
    TT__UNROLL for (int r = 0; r < TT__DOT_ROWS; r++) sum[r] = none;
    for (ptrdiff_t t = 0; t < length; t += STEP) {
      memcpy(&column, panel + t, sizeof column);
      TT__UNROLL for (int r = 0; r < TT__DOT_ROWS; r++) {
        if (t + STEP <= length) {
          memcpy(&g, rows[r] + t, sizeof g);
        } else { // the row ends here
          g = none;
          memcpy(&g, rows[r] + t, (size_t)(length - t));
        }
        tt__dot_words(&sum[r], column, g);
      }
    }
    for (int r = 0; r < TT__DOT_ROWS; r++) {
      uint32_t total = 0;
      for (int lane = 0; lane < TT__DOT_LANES; lane++) total += (uint32_t)sum[r][lane];
      sums[r * TT__DOT_COLUMNS + c] = (int32_t)total;
    }
  }
}

// `count` numbers requantised, moved by `zero` and kept to low .. high, which 32 bits hold.
TT__DOTS static void tt__requantize_run(ptrdiff_t count, const int32_t *values, tt__quotient ratio,
                                        int rounding, int zero, int32_t low, int32_t high,
                                        int32_t *out) {
  int64_t least = (int64_t)low - zero, most = (int64_t)high - zero;
  ptrdiff_t i = 0;
  for (; rounding == TT_ROUND_SINGLE && i + 8 <= count; i += 8) {
    tt__half_vector x;
    tt__wide_vector wide, mask;
    memcpy(&x, values + i, sizeof x);
    wide = __builtin_convertvector(x, tt__wide_vector) * (int64_t)ratio.multiplier;
    wide = ((wide >> (int64_t)(30 - ratio.shift)) + 1) >> 1;
    mask = (tt__wide_vector)(wide > most);
    wide = (wide & ~mask) | (most & mask);
    mask = (tt__wide_vector)(wide < least);
    wide = (wide & ~mask) | (least & mask);
    x = __builtin_convertvector(wide + (int64_t)zero, tt__half_vector);
    memcpy(out + i, &x, sizeof x);
  }
  for (; i < count; i++) {
    int64_t z = tt_requantize(values[i], ratio.multiplier, ratio.shift, rounding);
    out[i] = (int32_t)((z > most ? most : z < least ? least : z) + zero);
  }
}

// The vector form of the loop of tt__encode_state.
static void tt__code_run(const int32_t *wide, ptrdiff_t count, tt__quotient ratio, int rounding,
                         int8_t *codes) {
  int32_t out[TT__DOT_COLUMNS];
  for (ptrdiff_t i = 0; i < count; i += TT__DOT_COLUMNS) {
    ptrdiff_t some = tt__min(TT__DOT_COLUMNS, count - i);
    tt__requantize_run(some, wide + i, ratio, rounding, 0, -127, 127, out);
    for (ptrdiff_t j = 0; j < some; j++) codes[i + j] = (int8_t)out[j];
  }
}

// `count` columns of S at `in`, `step` apart, their terms `stride` apart, as a panel of `width`.
static void tt__dot_pack(const int8_t *in, ptrdiff_t step, ptrdiff_t stride, ptrdiff_t length,
                         ptrdiff_t count, ptrdiff_t width, unsigned char *panel) {
  ptrdiff_t quads = (length + 3) / 4;
  if (stride == 1 && length % 4 == 0) { // four terms are one word
    for (ptrdiff_t c = 0; c < count; c++)
      for (ptrdiff_t q = 0; q < quads; q++) {
        uint32_t word;
        memcpy(&word, in + c * step + 4 * q, sizeof word);
        word ^= (uint32_t)TT__DOT_FLIP * 0x01010101UL;
        memcpy(panel + 4 * (q * width + c), &word, sizeof word);
      }
    return;
  }
  for (ptrdiff_t t = 0; t < length; t++)
    for (ptrdiff_t c = 0; c < count; c++)
      panel[4 * (t / 4 * width + c) + t % 4] =
          (unsigned char)(in[c * step + t * stride] ^ TT__DOT_FLIP);
}

// One panel: `count` columns of S from number `first` on, which are those of p (fold) or of w.
static void tt__dot_panel(const tt__integers *run, ptrdiff_t p, ptrdiff_t first, ptrdiff_t count,
                          const int8_t *in, const int32_t *row_sums, int8_t *narrow) {
  const tt__step *step = &run->step;
  const tt_integer *plan = run->plan;
  const int8_t *g = (const int8_t *)run->w->cores[step->core].data, *rows[TT__DOT_ROWS];
  int32_t sums[TT__DOT_ROWS * TT__DOT_COLUMNS], out[TT__DOT_COLUMNS], tail[TT__DOT_ROWS];
  int i = run->index, last = i + 1 == plan->order, fold = step->w == 1;
  int few = count < TT__FEW_COLUMNS, zero = last && narrow ? plan->out_zero : 0;
  int32_t low = !narrow ? INT32_MIN : last ? -128 : -127, high = narrow ? 127 : INT32_MAX;
  ptrdiff_t length = step->length, quads = (length + 3) / 4, whole = (quads - 1) * 4;
  ptrdiff_t vectors = (count + TT__DOT_LANES - 1) / TT__DOT_LANES, stride = (length + 63) / 64 * 64;
  in += fold ? first * length : p * length * step->w + first;
  for (ptrdiff_t c = 0; few && c < count; c++)
    tt__dot_pack(in + c * (fold ? length : 1), 0, step->w, length, 1, 1, run->pack + c * stride);
  if (!few)
    tt__dot_pack(in, fold ? length : 1, step->w, length, count, vectors * TT__DOT_LANES, run->pack);
  for (ptrdiff_t r = 0; r < step->rows; r += TT__DOT_ROWS) {
    for (int k = 0; k < TT__DOT_ROWS; k++) { // rows behind the last are the last
      rows[k] = g + tt__min(r + k, step->rows - 1) * length;
      tail[k] = 0;
      memcpy(&tail[k], rows[k] + whole, (size_t)(length - whole));
    }
    if (few)
      tt__dot_few(length, count, stride, run->pack, rows, sums);
    else
      tt__dot_tile((int)vectors, quads, run->pack, rows, tail, sums);
    for (ptrdiff_t k = 0; k < tt__min(TT__DOT_ROWS, step->rows - r); k++) {
      int32_t *sum = sums + k * TT__DOT_COLUMNS;
      uint32_t start = (uint32_t)row_sums[r + k] * (uint32_t)-TT__DOT_FLIP;
      tt__quotient ratio = {plan->multipliers[i][plan->num_multipliers[i] > 1 ? r + k : 0],
                            plan->shifts[i]};
      ptrdiff_t at = fold ? first * step->rows + r + k : (p * step->rows + r + k) * step->w + first;
      ptrdiff_t apart = fold ? step->rows : 1, used = count;
      if (last) used = at < run->w->rows ? tt__min(count, (run->w->rows - 1 - at) / apart + 1) : 0;
      if (i == 0 && plan->offsets) start += (uint32_t)plan->offsets[r + k];
      for (ptrdiff_t c = 0; c < used; c++) {
        uint32_t bias = last && plan->bias ? (uint32_t)plan->bias[at + c * apart] : 0;
        sum[c] = (int32_t)((uint32_t)sum[c] + start + bias);
      }
      tt__requantize_run(used, sum, ratio, plan->rounding, zero, low, high, out);
      for (ptrdiff_t c = 0; c < used && narrow; c++) narrow[at + c * apart] = (int8_t)out[c];
      for (ptrdiff_t c = 0; c < used && !narrow; c++) run->wide[at + c * apart] = out[c];
    }
  }
}

// The step at work with these instructions. Returns 0 where they do not serve.
static int tt__dots_step(const tt__integers *run, const int8_t *in, int8_t *narrow) {
  const tt__step *step = &run->step;
  const int32_t *row_sums = run->plan->sums;
  if (!row_sums || !tt__has_dots() || !tt__direct_codes(&run->w->cores[step->core])) return 0;
  for (int i = 0; i < run->index; i++) {
    ptrdiff_t rows, length;
    int k = run->w->sweep == TT_LEFT_TO_RIGHT ? i : run->plan->order - 1 - i;
    tt__view_size(&run->w->shape, run->w->sweep, k, &rows, &length);
    row_sums += rows;
  }
  ptrdiff_t columns = step->w == 1 ? step->p : step->w;
  for (ptrdiff_t p = 0; p < (step->w == 1 ? 1 : step->p); p++)
    for (ptrdiff_t first = 0; first < columns; first += TT__DOT_COLUMNS)
      tt__dot_panel(run, p, first, tt__min(TT__DOT_COLUMNS, columns - first), in, row_sums, narrow);
  return 1;
}
#endif // TT__DOTS

// The step at work.
static void tt__integer_step(const tt__integers *run, const int8_t *in, int8_t *narrow) {
#ifdef TT__DOTS
  if (tt__dots_step(run, in, narrow)) return;
#endif
  for (ptrdiff_t r = 0; r < run->step.rows; r++)
    tt__integer_row(run, r,
                    tt__code_row(&run->w->cores[run->step.core], r, run->step.length,
                                 run->states + 2 * run->state),
                    in, narrow);
}

TTDEF size_t tt_integer_work_size(const tt_integer *plan, const tt_matrix *w) {
  tt__integers run;
  return tt__valid(w) ? tt__integer_sizes(plan, w, &run) : 0;
}

TTDEF tt_status tt_integer_apply(const tt_integer *plan, const tt_matrix *w, const int8_t *x,
                                 ptrdiff_t batch, int8_t *y, void *work, size_t work_size) {
  tt__integers run;
  size_t needed = tt__valid(w) ? tt__integer_sizes(plan, w, &run) : 0;
  if (batch < 0 || !needed || plan->dynamic) return TT_ERROR_INVALID;
  if (batch == 0) return TT_OK;
  if (!x || !y || !work || work_size < needed) return TT_ERROR_INVALID;
  tt__integer_open(&run, work);
  for (; batch > 0; batch--, x += w->cols, y += w->rows) {
    const int8_t *in = x;
    if (tt__is_padded(w)) {
      memset(run.states + run.state, plan->in_zero, (size_t)run.state);
      memcpy(run.states + run.state, x, (size_t)w->cols);
      in = run.states + run.state;
    }
    for (run.index = 0; run.index < plan->order; run.index++) {
      int8_t *out = run.index + 1 < plan->order ? run.states + (run.index & 1) * run.state : y;
      tt__step_at(w, 1, run.index, &run.step);
      tt__integer_step(&run, in, out);
      in = out;
    }
  }
  return TT_OK;
}

// ---- dynamic scales

// 127 / largest, for largest >= 0. For 0 all codes are 0 whatever it is.
static void tt__code_ratio(int32_t largest, tt__quotient *ratio) {
  ratio->multiplier = 0;
  ratio->shift = 0;
  int log2 = 0;
  if (largest <= 0) return;
  while (largest >> log2 > 1) log2++;
  ratio->multiplier = (int32_t)(((uint64_t)127 << (24 + log2)) / (uint64_t)largest);
  ratio->shift = 7 - log2;
}

static uint32_t tt__magnitude_bits(float x) { return tt__float_bits(x) & 0x7FFFFFFFUL; }

// x as a multiple of 2^-29 of the power of two that `top`, the bits of the largest |x|, begins
// with; towards zero.
static int32_t tt__fixed_point(float x, uint32_t top) {
  uint32_t bits = tt__magnitude_bits(x), exponent = bits >> 23, fraction = bits & 0x7FFFFFUL;
  uint32_t down = (top >> 23 ? top >> 23 : 1) - (exponent ? exponent : 1);
  if (exponent) fraction |= 0x800000UL;
  int32_t fixed = down > 30 ? 0 : (int32_t)(fraction << 6 >> down);
  return tt__float_bits(x) >> 31 ? -fixed : fixed;
}

// Codes of one input of `count` floats, zeros behind up to `padded`. Returns their scale.
static float tt__encode_input(const float *x, ptrdiff_t count, ptrdiff_t padded, int rounding,
                              int8_t *codes) {
  uint32_t top = 0;
  for (ptrdiff_t i = 0; i < count; i++)
    if (tt__magnitude_bits(x[i]) > top) top = tt__magnitude_bits(x[i]);
  tt__quotient ratio;
  tt__code_ratio(tt__fixed_point(tt__bits_float(top), top), &ratio);
  for (ptrdiff_t i = 0; i < count; i++)
    codes[i] = tt__fit_code(
        tt_requantize(tt__fixed_point(x[i], top), ratio.multiplier, ratio.shift, rounding), 0,
        -127);
  for (ptrdiff_t i = count; i < padded; i++) codes[i] = 0;
  return tt__bits_float(top) / 127;
}

// Largest magnitude of 32-bit results, of which no plan uses the last bit.
static int32_t tt__largest_wide(const int32_t *wide, ptrdiff_t count) {
  uint32_t largest = 0;
  for (ptrdiff_t i = 0; i < count; i++) {
    uint32_t magnitude = wide[i] < 0 ? 0 - (uint32_t)wide[i] : (uint32_t)wide[i];
    if (magnitude > largest) largest = magnitude;
  }
  return largest > INT32_MAX ? INT32_MAX : (int32_t)largest;
}

// Codes of a state of 32-bit results. Returns the largest magnitude over 127: their scale.
static float tt__encode_state(const int32_t *wide, ptrdiff_t count, int rounding, int8_t *codes) {
  int32_t largest = tt__largest_wide(wide, count);
  tt__quotient ratio;
  tt__code_ratio(largest, &ratio);
#ifdef TT__DOTS
  if (tt__has_dots()) {
    tt__code_run(wide, count, ratio, rounding, codes);
    return (float)largest / 127;
  }
#endif
  for (ptrdiff_t i = 0; i < count; i++)
    codes[i] =
        tt__fit_code(tt_requantize(wide[i], ratio.multiplier, ratio.shift, rounding), 0, -127);
  return (float)largest / 127;
}

TTDEF tt_status tt_integer_apply_f32(const tt_integer *plan, const tt_matrix *w, const float *x,
                                     ptrdiff_t batch, float *y, void *work, size_t work_size) {
  tt__integers run;
  size_t needed = tt__valid(w) ? tt__integer_sizes(plan, w, &run) : 0;
  if (batch < 0 || !needed || !plan->dynamic) return TT_ERROR_INVALID;
  if (batch == 0) return TT_OK;
  if (!x || !y || !work || work_size < needed) return TT_ERROR_INVALID;
  ptrdiff_t count = batch;
  if (!tt__multiply(&count, w->cols)) return TT_ERROR_INVALID;
  for (ptrdiff_t i = 0; i < count; i++)
    if (tt__magnitude_bits(x[i]) >= 0x7F800000UL) return TT_ERROR_NONFINITE;
  tt__integer_open(&run, work);
  for (ptrdiff_t b = 0; b < batch; b++) {
    float scale = tt__encode_input(x + b * w->cols, w->cols, tt__state_count(w, 0), plan->rounding,
                                   run.states + run.state);
    for (run.index = 0; run.index < plan->order; run.index++) {
      tt__step_at(w, 1, run.index, &run.step);
      tt__integer_step(&run, run.states + ((run.index + 1) & 1) * run.state, NULL);
      scale *= plan->units[run.index];
      if (run.index + 1 < plan->order)
        scale *= tt__encode_state(run.wide, tt__state_count(w, run.index + 1), plan->rounding,
                                  run.states + (run.index & 1) * run.state);
    }
    for (ptrdiff_t j = 0; j < w->rows; j++) y[b * w->rows + j] = (float)run.wide[j] * scale;
  }
  tt__add_bias(w, batch, y);
  return TT_OK;
}

#ifndef TT_INFERENCE_ONLY
// --------------------------------------------------------------------------------------- >>prepare
// Plans for the forward pass in integers. A static plan needs a scale for every state: samples run
// through the float sweep one at a time, once for the range of every state, once for histograms of
// magnitudes, from which scales follow, and, for a report, once to compare. Sums are bounded row by
// row, from the codes that are there.

enum { TT__BINS = 2048 };

// Numbers of one state over all samples, and how they are coded.
typedef struct tt__spread {
  double low, high;      // at most and at least 0
  double bins[TT__BINS]; // how many magnitudes lie in each equal part of 0 .. the largest
  double scale;
  int zero;
  double lost, energy; // sums of squares: of the errors of codes, of the numbers
} tt__spread;

typedef struct tt__preparation {
  const tt_matrix *w;
  tt_integer_options options;
  tt_integer *plan;
  tt__spread *spreads; // of x, of the state behind each step; the last of them is y
  float *buffer[2], *padded, *y, *slab;
  void *gemm;
  int8_t *codes, *coded_y; // of x and y
  void *work;              // of the integers
  size_t work_size;
  double lost, energy; // of y as integers give it
  int32_t *row_sums;   // of the plan, of the next step
} tt__preparation;

enum tt__pass { TT__PASS_RANGE, TT__PASS_BINS, TT__PASS_ERROR };

static double tt__spread_largest(const tt__spread *spread) {
  return fmax(spread->high, -spread->low);
}

// The code of a value, as the integers would have it.
static int tt__spread_code(double value, double scale, int zero, int low) {
  double code = value / scale + zero;
  return tt__nearest(code > 127 ? 127 : code < low ? low : code);
}

// Takes in the numbers of a state, or the error that coding them makes.
static void tt__spread_add(const tt__preparation *prep, tt__spread *spread, int pass,
                           const float *values, ptrdiff_t count) {
  double largest = tt__spread_largest(spread), scale = spread->scale;
  int low = spread == prep->spreads || spread == prep->spreads + prep->plan->order ? -128 : -127;
  if (pass == TT__PASS_ERROR && prep->plan->dynamic) {
    largest = 0;
    for (ptrdiff_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)values[i]));
    scale = largest > 0 ? largest / 127 : 1;
  }
  for (ptrdiff_t i = 0; i < count; i++) {
    double value = (double)values[i];
    if (pass == TT__PASS_RANGE) {
      spread->low = fmin(spread->low, value);
      spread->high = fmax(spread->high, value);
    } else if (pass == TT__PASS_BINS && largest > 0) {
      spread->bins[(int)(fabs(value) / largest * (TT__BINS - 1))]++;
    } else if (pass == TT__PASS_ERROR) {
      int zero = spread->zero, code = tt__spread_code(value, scale, zero, low);
      spread->lost += (value - scale * (code - zero)) * (value - scale * (code - zero));
      spread->energy += value * value;
    }
  }
}

// The magnitude that code 127 should stand for.
static double tt__spread_clip(const tt__spread *spread, const tt_integer_options *options) {
  enum { TRIES = 100 };
  double largest = tt__spread_largest(spread), best = largest, least = -1, total = 0, seen = 0;
  double width = largest / (TT__BINS - 1), share = options->percentile;
  if (!(share > 0)) share = 99.9;
  for (int i = 0; i < TT__BINS; i++) total += spread->bins[i];
  if (options->clip == TT_CLIP_LARGEST || !(largest > 0)) return largest;
  for (int i = 0; i < TT__BINS && options->clip == TT_CLIP_PERCENTILE; i++) {
    seen += spread->bins[i];
    if (seen >= total * share / 100) return fmin(largest, (i + 1) * width);
  }
  for (int t = 0; t < TRIES; t++) { // down to 0.3 of the largest
    double top = largest * (1 - 0.7 * t / (double)TRIES), error = 0;
    for (int i = 0; i < TT__BINS; i++) {
      double value = (i + 0.5) * width, code = floor(value / top * 127 + 0.5);
      double lost = value - top / 127 * fmin(code, 127);
      error += spread->bins[i] * lost * lost;
    }
    if (least >= 0 && error >= least) continue;
    least = error;
    best = top;
  }
  return best;
}

// Scale and zero point of a state.
static void tt__spread_choose(tt__spread *spread, const tt_integer_options *options, int affine,
                              float given, int zero) {
  double top = tt__spread_clip(spread, options), range = spread->high - spread->low;
  double scale = affine ? range / 255 : top / 127;
  if (!(scale > 0)) scale = 1;
  scale = fmax(scale, 1e-37); // a normal float
  spread->scale = given > 0 ? (double)given : (double)(float)scale;
  spread->zero = given > 0 ? zero : 0;
  if (affine && !(given > 0) && range > 0)
    spread->zero = tt__spread_code(spread->low, -spread->scale, -128, -128);
}

// The float sweep of one input; what flows through it goes to the spreads.
static void tt__watch_sample(tt__preparation *prep, int pass, const float *x) {
  const tt_matrix *w = prep->w;
  int order = w->shape.order;
  ptrdiff_t n = tt__leg_product(&w->shape, 0, order, 0, 1);
  const float *in = prep->padded;
  tt__resize_rows(1, x, w->cols, prep->padded, n);
  tt__spread_add(prep, prep->spreads, pass, x, w->cols);
  for (int i = 0; i < order; i++) {
    tt__step step;
    tt__step_at(w, 1, i, &step);
    float *out = prep->buffer[i & 1];
    tt__run_step(&w->cores[step.core], &step, in, out, prep->slab, prep->gemm);
    if (i + 1 == order) {
      memcpy(prep->y, out, (size_t)w->rows * sizeof(float));
      tt__add_bias(w, 1, prep->y);
      out = prep->y;
    }
    tt__spread_add(prep, prep->spreads + i + 1, pass, out,
                   i + 1 == order ? w->rows : step.p * step.rows * step.w);
    in = out;
  }
}

// The same input in integers, against the y of the float sweep.
static tt_status tt__compare_sample(tt__preparation *prep, const float *x) {
  const tt_matrix *w = prep->w;
  const tt__spread *first = prep->spreads, *last = prep->spreads + w->shape.order;
  float *y = prep->buffer[0];
  tt_status status;
  if (prep->plan->dynamic) {
    status = tt_integer_apply_f32(prep->plan, w, x, 1, y, prep->work, prep->work_size);
  } else {
    for (ptrdiff_t i = 0; i < w->cols; i++)
      prep->codes[i] = (int8_t)tt__spread_code((double)x[i], first->scale, first->zero, -128);
    status =
        tt_integer_apply(prep->plan, w, prep->codes, 1, prep->coded_y, prep->work, prep->work_size);
    for (ptrdiff_t i = 0; i < w->rows; i++)
      y[i] = (float)(last->scale * (prep->coded_y[i] - last->zero));
  }
  for (ptrdiff_t i = 0; i < w->rows && !status; i++) {
    double wanted = (double)prep->y[i], gap = (double)y[i] - wanted;
    prep->lost += gap * gap;
    prep->energy += wanted * wanted;
  }
  return status;
}

// The scale of row r of a core, that of the core included.
static double tt__row_scale(const tt_core *core, ptrdiff_t r) {
  ptrdiff_t end;
  return (double)tt__scale_at(core, r, 1, 0, &end);
}

// multipliers[i] 2^(shift - 31) ~ wanted[i]. Returns 0 where that needs a shift above 30.
static int tt__fixed_multipliers(int count, const double *wanted, int32_t *multipliers,
                                 int *shift) {
  int exponent = 0;
  double largest = tt__largest_magnitude(count, wanted);
  if (!tt__is_finite(largest)) return 0;
  (void)frexp(largest, &exponent);
  if (largest > 0 && ldexp(largest, 31 - exponent) > 2147483647.0) exponent++;
  *shift = exponent < -31 ? -31 : exponent;
  for (int i = 0; i < count; i++)
    multipliers[i] = (int32_t)floor(ldexp(wanted[i], 31 - *shift) + 0.5);
  return exponent <= 30;
}

// Units of the sums of step i, one per row of the GEMM view, and bounds of the sums; offsets.
static tt_status tt__prepare_rows(tt__preparation *prep, int i, double *units, double *bounds) {
  tt_integer *plan = prep->plan;
  tt__step step;
  tt__step_at(prep->w, 1, i, &step);
  const tt_core *core = &prep->w->cores[step.core];
  int zero = i == 0 ? plan->in_zero : 0;
  for (ptrdiff_t r = 0; r < step.rows; r++) {
    const unsigned char *codes =
        (const unsigned char *)core->data + r * tt__row_size(core->dtype, step.length);
    double sum = 0, size = 0;
    for (ptrdiff_t j = 0; j < step.length; j++) {
      int code = tt__integer_code(codes, j, tt__dtype_bits(core->dtype));
      sum += code;
      size += abs(code);
    }
    bounds[r] = (128 + abs(zero)) * size;
    units[r] = (plan->dynamic ? 1 : prep->spreads[i].scale) * tt__row_scale(core, r);
    if (!(units[r] >= 0 && tt__is_finite(units[r]))) return TT_ERROR_UNSUPPORTED;
    if (bounds[r] > 2147483646.0) return TT_ERROR_UNSUPPORTED;
    if (plan->offsets && i == 0) ((int32_t *)plan->offsets)[r] = (int32_t)(-zero * sum);
    prep->row_sums[r] = (int32_t)sum;
  }
  prep->row_sums += step.rows;
  return TT_OK;
}

// The bias in units of the last step, which are raised where it would not fit.
static void tt__prepare_bias(tt__preparation *prep, double *units, const double *bounds) {
  tt_integer *plan = prep->plan;
  const tt_matrix *w = prep->w;
  int shared = plan->num_multipliers[plan->order - 1] == 1;
  tt__step step;
  tt__step_at(w, 1, plan->order - 1, &step);
  if (!plan->bias) return;
  for (ptrdiff_t j = 0; j < w->rows; j++) {
    ptrdiff_t r = j / step.w % step.rows;
    double *unit = units + (shared ? 0 : r), room = 2147483646.0 - bounds[r];
    *unit = fmax(*unit, fabs((double)w->bias[j]) / fmax(room, 1));
  }
  for (ptrdiff_t j = 0; j < w->rows; j++) {
    double unit = units[shared ? 0 : j / step.w % step.rows];
    double code = unit > 0 ? floor((double)w->bias[j] / unit + 0.5) : 0;
    ((int32_t *)plan->bias)[j] = (int32_t)code;
  }
}

// Multipliers, offsets and bias of step i, whose sums are proved to fit.
static tt_status tt__prepare_step(tt__preparation *prep, int i, double *units, double *bounds) {
  tt_integer *plan = prep->plan;
  tt__step step;
  tt__step_at(prep->w, 1, i, &step);
  int last = i + 1 == plan->order, count = plan->num_multipliers[i];
  tt_status status = tt__prepare_rows(prep, i, units, bounds);
  if (status) return status;
  if (last) tt__prepare_bias(prep, units, bounds);
  double headroom =
      last && plan->bias ? 2147483647.0 : fmax(2, tt__largest_magnitude(step.rows, bounds));
  double unit = prep->spreads[i + 1].scale;
  if (plan->dynamic) {
    // sums times 2^h stay within 2^29, and so does what their rows make of them
    double largest = tt__largest_magnitude(step.rows, units);
    unit = ldexp(largest > 0 ? largest : 1, (int)ceil(log2(headroom)) - 29);
    plan->units[i] = (float)unit;
    if (!(plan->units[i] > 0)) return TT_ERROR_UNSUPPORTED;
  }
  for (int k = 0; k < count; k++) units[k] /= unit;
  if (!tt__fixed_multipliers(count, units, (int32_t *)plan->multipliers[i], &plan->shifts[i]))
    return TT_ERROR_UNSUPPORTED;
  // double rounding shifts left before it multiplies
  int overflows = plan->shifts[i] > 0 && ldexp(headroom, plan->shifts[i]) > 2147483647.0;
  return overflows && plan->rounding == TT_ROUND_DOUBLE ? TT_ERROR_UNSUPPORTED : TT_OK;
}

// The plan without its numbers, in one block. Returns TT_OK, MEMORY.
static tt_status tt__integer_allocate(tt__preparation *prep) {
  const tt_matrix *w = prep->w;
  tt_integer *plan = prep->plan;
  ptrdiff_t total = 64, each = (ptrdiff_t)sizeof(int32_t), rows = 0, length, all_rows = 0;
  plan->order = w->shape.order;
  plan->rounding = prep->options.rounding;
  plan->dynamic = prep->options.dynamic != 0;
  plan->num_bias = w->bias && !plan->dynamic ? (int)w->rows : 0;
  for (int i = plan->order - 1; i >= 0; i--) {
    int k = w->sweep == TT_LEFT_TO_RIGHT ? i : plan->order - 1 - i;
    tt__view_size(&w->shape, w->sweep, k, &rows, &length);
    plan->num_multipliers[i] = w->cores[k].group == TT_GROUP_ROW ? (int)rows : 1;
    if (!tt__add_size(&total, plan->num_multipliers[i], each) || !tt__increase(&all_rows, rows))
      return TT_ERROR_MEMORY;
  }
  plan->num_offsets = (int)rows; // of step 0
  if (!tt__add_size(&total, rows, each) || !tt__add_size(&total, w->rows, each) ||
      !tt__add_size(&total, all_rows, each))
    return TT_ERROR_MEMORY;
  plan->allocator = prep->options.allocator;
  plan->block = tt__allocate(&plan->allocator, total);
  if (!plan->block) return TT_ERROR_MEMORY;
  memset(plan->block, 0, (size_t)total);
  int32_t *at = (int32_t *)(void *)tt__align(plan->block);
  for (int i = 0; i < plan->order; i++) {
    plan->multipliers[i] = at;
    at += plan->num_multipliers[i];
  }
  plan->sums = at;
  plan->offsets = at + all_rows;
  plan->bias = plan->num_bias ? plan->offsets + plan->num_offsets : NULL;
  return TT_OK;
}

// Everything that watching samples needs.
static tt_status tt__preparation_open(tt__pool *pool, tt__preparation *prep) {
  const tt_matrix *w = prep->w;
  tt__buffers floats;
  if (!tt__plan_buffers(w, 1, &floats)) return TT_ERROR_MEMORY;
  ptrdiff_t n = tt__leg_product(&w->shape, 0, w->shape.order, 0, 1);
  ptrdiff_t m = tt__leg_product(&w->shape, 0, w->shape.order, 1, 0);
  ptrdiff_t state = tt__max(floats.state, m), each = (ptrdiff_t)sizeof(float);
  prep->spreads = (tt__spread *)tt__take(pool, w->shape.order + 1, (ptrdiff_t)sizeof(tt__spread));
  prep->buffer[0] = (float *)tt__take(pool, state, each);
  prep->buffer[1] = (float *)tt__take(pool, state, each);
  prep->padded = (float *)tt__take(pool, n, each);
  prep->y = (float *)tt__take(pool, w->rows, each);
  prep->slab = (float *)tt__take(pool, floats.slab, each);
  prep->gemm = tt__take(pool, floats.product, 1);
  prep->codes = (int8_t *)tt__take(pool, w->cols, 1);
  prep->coded_y = (int8_t *)tt__take(pool, w->rows, 1);
  return pool->status;
}

// One pass over all samples.
static void tt__watch(tt__preparation *prep, int pass, const float *x, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i++) tt__watch_sample(prep, pass, x + i * prep->w->cols);
}

// Scales of all states of a static plan.
static tt_status tt__prepare_scales(tt__preparation *prep, const float *x, ptrdiff_t count) {
  const tt_integer_options *options = &prep->options;
  tt_integer *plan = prep->plan;
  int order = plan->order;
  tt__watch(prep, TT__PASS_RANGE, x, count);
  for (int i = 0; i <= order; i++)
    if (!tt__is_finite(prep->spreads[i].high - prep->spreads[i].low)) return TT_ERROR_NONFINITE;
  tt__watch(prep, TT__PASS_BINS, x, count);
  tt__spread *first = prep->spreads, *last = prep->spreads + order;
  tt__spread_choose(first, options, options->affine_in, options->in_scale, options->in_zero);
  for (int i = 1; i < order; i++) tt__spread_choose(prep->spreads + i, options, 0, 0, 0);
  tt__spread_choose(last, options, options->affine_out, options->out_scale, options->out_zero);
  plan->in_scale = (float)first->scale;
  plan->in_zero = first->zero;
  plan->out_scale = (float)last->scale;
  plan->out_zero = last->zero;
  return TT_OK;
}

// What the plan does to the samples.
static tt_status tt__integer_judge(tt__pool *pool, tt__preparation *prep, const float *x,
                                   ptrdiff_t count, tt_integer_report *report) {
  int order = prep->plan->order;
  double sum = 0;
  prep->work_size = tt_integer_work_size(prep->plan, prep->w);
  prep->work = tt__take(pool, (ptrdiff_t)prep->work_size, 1);
  tt_status status = pool->status;
  for (ptrdiff_t i = 0; i < count && !status; i++) {
    tt__watch_sample(prep, TT__PASS_ERROR, x + i * prep->w->cols);
    status = tt__compare_sample(prep, x + i * prep->w->cols);
  }
  for (int i = 0; i <= order; i++) {
    const tt__spread *spread = prep->spreads + i;
    double error = spread->energy > 0 ? sqrt(spread->lost / spread->energy) : 0;
    if (i == 0)
      report->in_error = error;
    else if (i < order)
      report->state_error[i - 1] = error;
    else
      report->out_error = error = prep->plan->dynamic ? 0 : error;
    sum += error * error;
  }
  report->predicted = sqrt(sum);
  report->measured = prep->energy > 0 ? sqrt(prep->lost / prep->energy) : 0;
  return status;
}

// Are these options usable?
static int tt__integer_options_valid(const tt_integer_options *o) {
  return (o->rounding == TT_ROUND_SINGLE || o->rounding == TT_ROUND_DOUBLE) &&
         o->clip >= TT_CLIP_DEFAULT && o->clip <= TT_CLIP_PERCENTILE && o->percentile >= 0 &&
         o->percentile <= 100 && o->in_scale >= 0 && tt__is_finite((double)o->in_scale) &&
         o->out_scale >= 0 && tt__is_finite((double)o->out_scale) && o->in_zero >= -128 &&
         o->in_zero <= 127 && o->out_zero >= -128 && o->out_zero <= 127 &&
         !o->allocator.alloc_fn == !o->allocator.free_fn;
}

// The numbers of a plan for a train that is known to suit.
static tt_status tt__integer_build(tt__pool *pool, tt__preparation *prep, const float *x,
                                   ptrdiff_t count, tt_integer_report *report) {
  const tt_matrix *w = prep->w;
  ptrdiff_t rows, length, most = 1;
  for (int k = 0; k < w->shape.order; k++) {
    tt__view_size(&w->shape, w->sweep, k, &rows, &length);
    most = tt__max(most, rows);
  }
  double *units = tt__take_f64(pool, most, 1), *bounds = tt__take_f64(pool, most, 1);
  tt_status status = tt__preparation_open(pool, prep);
  if (!status) status = tt__integer_allocate(prep);
  if (!status && !prep->plan->dynamic) status = tt__prepare_scales(prep, x, count);
  if (!status && !prep->plan->in_zero) {
    prep->plan->offsets = NULL;
    prep->plan->num_offsets = 0;
  }
  prep->row_sums = (int32_t *)prep->plan->sums;
  for (int i = 0; i < w->shape.order && !status; i++)
    status = tt__prepare_step(prep, i, units, bounds);
  if (!status && report && count > 0) status = tt__integer_judge(pool, prep, x, count, report);
  return status;
}

TTDEF tt_status tt_integer_prepare(const tt_matrix *w, const float *x, ptrdiff_t count,
                                   const tt_integer_options *given, tt_integer *out,
                                   tt_integer_report *report) {
  tt__preparation prep;
  memset(&prep, 0, sizeof prep);
  if (given) prep.options = *given;
  if (out) memset(out, 0, sizeof *out);
  if (report) memset(report, 0, sizeof *report);
  if (!out || !tt__valid(w) || count < 0 || (count > 0 && !x)) return TT_ERROR_INVALID;
  if (!tt__integer_options_valid(&prep.options)) return TT_ERROR_INVALID;
  int known = prep.options.dynamic ||
              (w->shape.order == 1 && prep.options.in_scale > 0 && prep.options.out_scale > 0);
  ptrdiff_t numbers = count;
  if ((!count && !known) || !tt__multiply(&numbers, w->cols)) return TT_ERROR_INVALID;
  if (w->rows > INT_MAX) return TT_ERROR_UNSUPPORTED;
  for (int k = 0; k < w->shape.order; k++) {
    ptrdiff_t rows, length;
    tt__view_size(&w->shape, w->sweep, k, &rows, &length);
    if (!tt__is_integer(w->cores[k].dtype) || w->cores[k].group > 0 || rows > INT_MAX)
      return TT_ERROR_UNSUPPORTED;
  }
  for (ptrdiff_t i = 0; i < numbers; i++)
    if (!tt__is_finite((double)x[i])) return TT_ERROR_NONFINITE;
  for (ptrdiff_t j = 0; w->bias && j < w->rows; j++)
    if (!tt__is_finite((double)w->bias[j])) return TT_ERROR_NONFINITE;
  prep.w = w;
  prep.plan = out;
  tt__pool pool = tt__pool_open(&prep.options.allocator);
  tt_status status = tt__integer_build(&pool, &prep, x, count, report);
  tt__pool_close(&pool);
  if (status) tt_integer_free(out);
  if (status && report) memset(report, 0, sizeof *report);
  return status;
}

TTDEF void tt_integer_free(tt_integer *plan) {
  if (!plan) return;
  tt__release(&plan->allocator, plan->block);
  memset(plan, 0, sizeof *plan);
}

// -------------------------------------------------------------------------------------- >>gradient
// Gradients, and what uses them. A step of the forward pass, C[p] = G S[p], has two gradients,
//   dG += sum_p dC[p] S[p]^T     and     dS[p] = G^T dC[p],
// so the sweep runs once forward, keeping every state, and once back. After dG is known S is not
// needed any more and dS takes its place: no memory beyond the states. A row of W is a product of
// slices, with the same two formulas per slice.
//
// Optimisers see a train as a list of arrays, its cores and then its bias; their memory is a train
// of the same shape. Adam is not gauge-invariant: tt_balance gives both sides of a bond the same
// weight.

// F32 cores, aligned as floats: what can be trained.
static int tt__has_floats(const tt_matrix *w) {
  for (int k = 0; k < w->shape.order; k++)
    if (w->cores[k].dtype != TT_F32 || (uintptr_t)w->cores[k].data % sizeof(float)) return 0;
  return 1;
}

// Is this a train of unscaled floats whose cores lie as those of w?
static int tt__is_like(const tt_matrix *w, const tt_matrix *other) {
  if (!tt__valid(other) || !tt__has_floats(other) || other->sweep != w->sweep) return 0;
  if (other->rows != w->rows || other->cols != w->cols || !tt__same_factors(w, other)) return 0;
  for (int k = 0; k < w->shape.order; k++)
    if (w->shape.ranks[k] != other->shape.ranks[k] || !tt__plain_core(&other->cores[k])) return 0;
  return 1;
}

// The same, and it may be written without changing w.
static int tt__is_state(const tt_matrix *w, const tt_matrix *other) {
  return tt__is_like(w, other) && other->block && other->block != w->block;
}

// value = scale * product of the data of the cores
static float tt__total_scale(const tt_matrix *w) {
  float scale = 1;
  for (int k = 0; k < w->shape.order; k++)
    if (w->cores[k].scale != 0) scale *= w->cores[k].scale;
  return scale;
}

static tt_status tt__gradient_enter(const tt_matrix *w, ptrdiff_t batch, const tt_matrix *grad) {
  if (batch < 0 || !tt__valid(w)) return TT_ERROR_INVALID;
  float scale = tt__total_scale(w);
  if (!tt__has_floats(w) || !tt__is_finite((double)scale) || scale == 0)
    return TT_ERROR_UNSUPPORTED;
  return tt__is_state(w, grad) ? TT_OK : TT_ERROR_INVALID;
}

// ---- the gradient of the forward pass

// The states of all steps. State 0 is x, and has memory only where x must be padded.
typedef struct tt__tape {
  ptrdiff_t state[TT_MAX_ORDER];                             // floats
  ptrdiff_t result;                                          // floats of dy, padded or scaled
  ptrdiff_t total;                                           // bytes
} tt__tape;

// Returns 0 where anything does not fit.
static int tt__plan_tape(const tt_matrix *w, ptrdiff_t batch, tt__tape *tape) {
  tt__buffers forward;                                       // checks every product below
  int order = w->shape.order, padded = tt__is_padded(w), fits = 1;
  memset(tape, 0, sizeof *tape);
  if (!tt__plan_buffers(w, batch, &forward)) return 0;
  for (int i = padded ? 0 : 1; i < order; i++) {
    tt__step step;
    tt__step_at(w, batch, i, &step);
    tape->state[i] = step.p * step.length * step.w;
  }
  if (padded || tt__total_scale(w) != 1)
    tape->result = batch * tt__leg_product(&w->shape, 0, order, 1, 0);
  tape->total = 64;
  for (int i = 0; i < order && fits; i++)
    fits = tt__add_size(&tape->total, tape->state[i], (ptrdiff_t)sizeof(float));
  return fits && tt__add_size(&tape->total, tape->result, (ptrdiff_t)sizeof(float)) &&
         tt__add_size(&tape->total,
                      tt__gemm_work_size(PTRDIFF_MAX, PTRDIFF_MAX, PTRDIFF_MAX, 0), 1);
}

// grad (rows, length) += sum over p of back[p] (rows, w) times in[p]^T (w, length)
static void tt__step_gradient(const tt__step *step, const float *back, const float *in, float *grad,
                              void *work) {
  ptrdiff_t rows = step->rows, length = step->length, w = step->w;
  if (w == 1) {
    tt__product fold = {rows, length, step->p, back, in, 1, rows, length, 1, grad, length, 1, work};
    tt__gemm(&fold, 0);
    return;
  }
  for (ptrdiff_t p = 0; p < step->p; p++) {
    tt__product one = {
        rows,   length, w,   back + p * rows * w, in + p * length * w, w, 1, 1, w, grad,
        length, 1,      work};
    tt__gemm(&one, 0);
  }
}

// out[p] (length, w) = G^T (length, rows) times back[p] (rows, w)
static void tt__step_back(const tt__step *step, const float *g, const float *back, float *out,
                          void *work) {
  ptrdiff_t rows = step->rows, length = step->length, w = step->w;
  if (w == 1) {
    tt__product fold = {step->p, length, rows, back, g, rows, 1, length, 1, out, length, 0, work};
    tt__gemm(&fold, 0);
    return;
  }
  for (ptrdiff_t p = 0; p < step->p; p++) {
    tt__product one = {
        length, w, rows, g, back + p * rows * w, 1, length, w, 1, out + p * length * w, w, 0, work};
    tt__gemm(&one, 0);
  }
}

// dL/dbias += sum over the batch of dy
static void tt__bias_gradient(const float *dy, ptrdiff_t batch, tt_matrix *grad) {
  float *bias = tt_bias_data(grad);
  for (ptrdiff_t i = 0; bias && i < batch; i++)
    for (ptrdiff_t j = 0; j < grad->rows; j++) bias[j] += dy[i * grad->rows + j];
}

TTDEF size_t tt_backward_work_size(const tt_matrix *w, ptrdiff_t batch) {
  tt__tape tape;
  return batch >= 0 && tt__valid(w) && tt__plan_tape(w, batch, &tape) ? (size_t)tape.total : 0;
}

TTDEF tt_status tt_backward(const tt_matrix *w, const float *x, const float *dy, ptrdiff_t batch,
                            float *dx, tt_matrix *grad, void *work, size_t work_size) {
  tt__tape tape;
  tt_status status = tt__gradient_enter(w, batch, grad);
  if (status) return status;
  if (!tt__plan_tape(w, batch, &tape)) return TT_ERROR_INVALID;
  if (batch == 0) return TT_OK;
  if (!x || !dy || !work || work_size < (size_t)tape.total) return TT_ERROR_INVALID;
  unsigned char *at = tt__align(work);
  int order = w->shape.order, padded = tt__is_padded(w);
  ptrdiff_t m = tt__leg_product(&w->shape, 0, order, 1, 0),
            n = tt__leg_product(&w->shape, 0, order, 0, 1);
  float *state[TT_MAX_ORDER], *result, scale = tt__total_scale(w);
  for (int i = 0; i < order; i++) state[i] = tt__carve(&at, tape.state[i]);
  result = tt__carve(&at, tape.result);
  if (padded) tt__resize_rows(batch, x, w->cols, state[0], n);
  const float *first = padded ? state[0] : x, *back = tape.result ? result : dy;
  for (int i = 0; i + 1 < order; i++) {
    tt__step step;
    tt__step_at(w, batch, i, &step);
    tt__step_rows(&step, 0, step.rows, (const float *)w->cores[step.core].data,
                  i ? state[i] : first, state[i + 1], at);
  }
  if (tape.result) tt__resize_rows(batch, dy, w->rows, result, m);
  for (ptrdiff_t i = 0; i < tape.result; i++) result[i] *= scale;
  for (int i = order - 1; i >= 0; i--) {
    tt__step step;
    tt__step_at(w, batch, i, &step);
    tt__step_gradient(&step, back, i ? state[i] : first, (float *)tt_core_data(grad, step.core),
                      at);
    float *to = i || padded ? state[i] : dx;
    if (i || dx) tt__step_back(&step, (const float *)w->cores[step.core].data, back, to, at);
    back = to;
  }
  if (dx && padded) tt__resize_rows(batch, back, n, dx, w->cols);
  tt__bias_gradient(dy, batch, grad);
  return TT_OK;
}

// ---- the gradient of rows

// Gradient of one slice: rows of grad gain in^T back, and `out` becomes back G^T; both start at
// their first row of the slice.
static void tt__slice_back(int sweep, const tt__slice *slice, const float *g, const float *in,
                           const float *back, float *grad, float *out, void *work) {
  ptrdiff_t outer = slice->outer, depth = slice->depth, length = slice->length,
            step = slice->stride * length;
  if (sweep == TT_LEFT_TO_RIGHT) {                           // in (depth, outer), back turned too
    tt__product to_core = {depth, length, outer, in, back, outer, 1, 1, outer, grad, step, 1, work};
    tt__product to_state = {depth, outer, length, g, back, step, 1, outer, 1, out, outer, 0, work};
    tt__gemm(&to_core, 0);
    if (out) tt__gemm(&to_state, 0);
    return;
  }
  tt__product to_core = {depth, length, outer, in, back, 1, depth, length, 1, grad, step, 1, work};
  tt__product to_state = {outer, depth, length, back, g, length, 1, 1, step, out, depth, 0, work};
  tt__gemm(&to_core, 0);
  if (out) tt__gemm(&to_state, 0);
}

// One row: its states from the first slice on (the first is `scale`), then back from dy, which has
// as many elements as the padded row. state[i] is the input of slice i.
static void tt__row_backward(const tt_matrix *w, ptrdiff_t row, const float *dy, float scale,
                             float *const *state, tt_matrix *grad, void *work) {
  int order = w->shape.order;
  for (int i = 0; i + 1 < order; i++) {
    tt__slice slice;
    tt__slice_at(w, row, i, &slice);
    const float *g = (const float *)w->cores[slice.core].data + slice.first * slice.length;
    tt__slice_rows(w->sweep, &slice, 0, slice.depth, g, slice.stride * slice.length,
                   i ? state[i] : &scale, state[i + 1], work);
  }
  for (int i = order - 1; i >= 0; i--) {
    tt__slice slice;
    tt__slice_at(w, row, i, &slice);
    ptrdiff_t first = slice.first * slice.length;
    tt__slice_back(w->sweep, &slice, (const float *)w->cores[slice.core].data + first,
                   i ? state[i] : &scale, dy, (float *)tt_core_data(grad, slice.core) + first,
                   i ? state[i] : NULL, work);
    dy = state[i];
  }
}

TTDEF tt_status tt_rows_backward(const tt_matrix *w, const int *index, ptrdiff_t count,
                                 const float *dy, tt_matrix *grad, void *work, size_t work_size) {
  tt_status status = tt__gradient_enter(w, count, grad);
  if (status) return status;
  size_t batched = tt_backward_work_size(w, count), single = tt_rows_work_size(w);
  if (!batched || !single) return TT_ERROR_INVALID;
  if (count == 0) return TT_OK;
  if (!index || !dy || !work || work_size < (batched > single ? batched : single) ||
      !tt__rows_exist(w, index, count))
    return TT_ERROR_INVALID;
  // A row needs no more than the tape of one element of a batch: its states lack the rows' legs.
  unsigned char *at = tt__align(work);
  int order = w->shape.order;
  ptrdiff_t n = tt__leg_product(&w->shape, 0, order, 0, 1);
  float *state[TT_MAX_ORDER] = {NULL}, *padded = n != w->cols ? tt__carve(&at, n) : NULL;
  for (int i = 1; i < order; i++) {
    tt__slice slice;
    tt__slice_at(w, 0, i, &slice);
    state[i] = tt__carve(&at, slice.outer * slice.depth);
  }
  for (ptrdiff_t c = 0; c < count; c++) {
    const float *back = dy + c * w->cols;
    if (padded) tt__resize_rows(1, back, w->cols, padded, n);
    tt__row_backward(w, index[c], padded ? padded : back, tt__total_scale(w), state, grad, at);
  }
  return TT_OK;
}

// ---- trains to start from

TTDEF tt_status tt_randomize(tt_matrix *w, unsigned seed) {
  if (!tt__valid(w) || !w->block) return TT_ERROR_INVALID;
  int order = w->shape.order;
  for (int k = 0; k < order; k++)
    if (w->cores[k].dtype > TT_F64) return TT_ERROR_UNSUPPORTED;
  // padded columns are never used: W is a part of a wider matrix, whose variance would be 1/n
  double n = 1;
  for (int k = 0; k < order; k++) n *= w->shape.cols[k];
  double padding = pow(n / (double)w->cols, 0.5 / order);
  uint64_t counter = (uint64_t)1 << 40;                      // far from what a random SVD uses
  for (int k = 0; k < order; k++) {
    void *data = tt_core_data(w, k);
    ptrdiff_t count = tt__core_count(&w->shape, k);
    double factor = padding / sqrt((double)w->shape.cols[k] * w->shape.ranks[k]);
    for (ptrdiff_t i = 0; i < count; i++)
      tt__put_element(data, w->cores[k].dtype == TT_F64, i,
                      factor * tt__random_normal(seed, counter++));
    w->cores[k].scale = 1;
  }
  if (w->bias) memset(tt_bias_data(w), 0, (size_t)w->rows * sizeof(float));
  return TT_OK;
}

TTDEF tt_status tt_zeros_like(const tt_matrix *w, const tt_options *given, tt_matrix *out) {
  tt_options options;
  tt_status status = tt__enter(w, given, out, &options);
  if (status) return status;
  if (!given) options.dtype = TT_F32;
  tt_matrix header = tt__header(&w->shape, w->rows, w->cols, options.dtype, tt__group_of(&options));
  header.sweep = w->sweep;
  return tt__train_allocate(&header, w->bias != NULL, &options.allocator, out);
}

TTDEF tt_status tt_clear(tt_matrix *w) {
  ptrdiff_t data, scales;
  if (!tt__valid(w) || !w->block) return TT_ERROR_INVALID;
  for (int k = 0; k < w->shape.order; k++) {
    tt__core_sizes(w, k, &data, &scales);
    memset(tt_core_data(w, k), 0, (size_t)data);
  }
  if (w->bias) memset(tt_bias_data(w), 0, (size_t)w->rows * sizeof(float));
  return TT_OK;
}

// ---- optimisers

// Array `index` of a train: a core, or behind the cores the bias.
static float *tt__array(const tt_matrix *w, int index, ptrdiff_t *count) {
  int is_bias = index == w->shape.order;
  *count = is_bias ? w->rows : tt__core_count(&w->shape, index);
  return (float *)(is_bias ? (const void *)w->bias : w->cores[index].data);
}

// How many arrays of w the gradient moves.
static int tt__array_count(const tt_matrix *grad) {
  return grad->shape.order + (grad->bias != NULL);
}

// All floats of the first `arrays` arrays finite?
static int tt__all_finite(const tt_matrix *w, int arrays) {
  for (int a = 0; a < arrays; a++) {
    ptrdiff_t count;
    const float *values = tt__array(w, a, &count);
    for (ptrdiff_t i = 0; i < count; i++)
      if (!tt__is_finite((double)values[i])) return 0;
  }
  return 1;
}

// May this train be the memory of an optimiser? It holds a bias where one is moved.
static int tt__is_memory(const tt_matrix *w, const tt_matrix *grad, const tt_matrix *memory) {
  return tt__is_state(w, memory) && memory->block != grad->block && (!grad->bias || memory->bias);
}

static tt_status tt__optimiser_enter(tt_matrix *w, const tt_matrix *grad) {
  if (!tt__valid(w) || !w->block) return TT_ERROR_INVALID;
  if (!tt__has_floats(w)) return TT_ERROR_UNSUPPORTED;
  if (!tt__is_like(w, grad) || grad->block == w->block || (grad->bias && !w->bias))
    return TT_ERROR_INVALID;
  return TT_OK;
}

TTDEF tt_status tt_sgd_step(tt_matrix *w, const tt_matrix *grad, tt_matrix *velocity, double rate,
                            double momentum) {
  tt_status status = tt__optimiser_enter(w, grad);
  if (status) return status;
  if (!(rate >= 0) || !tt__is_finite(rate) || !(momentum >= 0 && momentum < 1))
    return TT_ERROR_INVALID;
  if (velocity ? !tt__is_memory(w, grad, velocity) : momentum != 0) return TT_ERROR_INVALID;
  int arrays = tt__array_count(grad);
  if (!tt__all_finite(grad, arrays)) return TT_ERROR_NONFINITE;
  double most = (double)FLT_MAX;
  for (int a = 0; a < arrays; a++) {
    ptrdiff_t count;
    const float *g = tt__array(grad, a, &count);
    float *v = velocity ? tt__array(velocity, a, &count) : NULL, *to = tt__array(w, a, &count);
    for (ptrdiff_t i = 0; i < count; i++) {
      double speed = (double)g[i] + (v ? momentum * (double)v[i] : 0);
      if (fabs(speed) > most) speed = speed > 0 ? most : -most; // Inf would stay
      if (v) v[i] = (float)speed;
      to[i] = (float)((double)to[i] - rate * speed);
    }
    if (a < w->shape.order) w->cores[a].packed = NULL;
  }
  return TT_OK;
}

// The given options with defaults for what is zero. Returns 0 if they make no sense.
static int tt__adam_options(const tt_adam *given, tt_adam *adam) {
  memset(adam, 0, sizeof *adam);
  if (given) *adam = *given;
  if (adam->rate == 0) adam->rate = 1e-3;
  if (adam->beta1 == 0) adam->beta1 = 0.9;
  if (adam->beta2 == 0) adam->beta2 = 0.999;
  if (adam->epsilon == 0) adam->epsilon = 1e-8;
  return adam->rate > 0 && tt__is_finite(adam->rate) && adam->beta1 > 0 && adam->beta1 < 1 &&
         adam->beta2 > 0 && adam->beta2 < 1 && adam->epsilon > 0 && tt__is_finite(adam->epsilon) &&
         adam->weight_decay >= 0 && tt__is_finite(adam->weight_decay);
}

// One array. correct1 and correct2 undo the start of the moments at zero.
static void tt__adam_array(const tt_adam *adam, double correct1, double correct2, double decay,
                           ptrdiff_t count, const float *g, float *first, float *second,
                           float *to) {
  for (ptrdiff_t i = 0; i < count; i++) {
    double slope = (double)g[i], value = (double)to[i];
    double m = adam->beta1 * (double)first[i] + (1 - adam->beta1) * slope;
    double v = adam->beta2 * (double)second[i] + (1 - adam->beta2) * slope * slope;
    // the square of a huge gradient must not become an Inf that stays for ever
    first[i] = (float)m;
    second[i] = v < (double)FLT_MAX ? (float)v : FLT_MAX;
    value -= adam->rate * decay * value;
    to[i] = (float)(value - adam->rate * (m * correct1) / (sqrt(v * correct2) + adam->epsilon));
  }
}

TTDEF tt_status tt_adam_step(tt_matrix *w, const tt_matrix *grad, tt_matrix *first,
                             tt_matrix *second, int step, const tt_adam *given) {
  tt_adam adam;
  tt_status status = tt__optimiser_enter(w, grad);
  if (status) return status;
  if (step < 1 || !tt__adam_options(given, &adam) || !tt__is_memory(w, grad, first) ||
      !tt__is_memory(w, grad, second) || first->block == second->block)
    return TT_ERROR_INVALID;
  int arrays = tt__array_count(grad);
  if (!tt__all_finite(grad, arrays)) return TT_ERROR_NONFINITE;
  double correct1 = 1 / (1 - pow(adam.beta1, step)), correct2 = 1 / (1 - pow(adam.beta2, step));
  for (int a = 0; a < arrays; a++) {
    ptrdiff_t count;
    int is_core = a < w->shape.order;
    const float *g = tt__array(grad, a, &count);
    float *m = tt__array(first, a, &count), *v = tt__array(second, a, &count);
    tt__adam_array(&adam, correct1, correct2, is_core ? adam.weight_decay : 0, count, g, m, v,
                   tt__array(w, a, &count));
    if (is_core) w->cores[a].packed = NULL;
  }
  return TT_OK;
}

// ---- the balanced gauge

// How many of the values, which descend, are more than rounding of the first; at least one.
static ptrdiff_t tt__nonzero_values(ptrdiff_t count, const double *values) {
  ptrdiff_t rank = 1;
  while (rank < count && values[rank] > 64 * DBL_EPSILON * values[0]) rank++;
  return rank;
}

// Core k times S^(1/2) of the bond on its right, S^(-1/2) of the bond on its left. Zeros, which
// only a matrix of zeros has left, stay zeros.
static void tt__share_values(tt__chain *chain, int k, const double *left, const double *right) {
  ptrdiff_t r = chain->shape.ranks[k], s = chain->shape.ranks[k + 1],
            width = tt__core_count(&chain->shape, k) / r;
  for (ptrdiff_t a = 0; a < r; a++) {
    double before = left ? (left[a] > 0 ? 1 / sqrt(left[a]) : 0) : 1;
    for (ptrdiff_t i = 0; i < width; i++)
      chain->cores[k][a * width + i] *= before * (right ? sqrt(right[i % s]) : 1);
  }
}

// Half of the chain's exponent goes to either end: S^(1/2) of the true values at every bond.
static void tt__share_exponent(tt__chain *chain) {
  int last = chain->shape.order - 1, half = chain->exponent / 2, odd = chain->exponent % 2;
  // out of range: tt__store spreads what is left
  if (last == 0 || half > 400 || half < -400) return;
  double factor = ldexp(odd > 0 ? sqrt(2.0) : odd < 0 ? sqrt(0.5) : 1, half);
  tt__scale_row(tt__core_count(&chain->shape, 0), factor, chain->cores[0]);
  tt__scale_row(tt__core_count(&chain->shape, last), factor, chain->cores[last]);
  chain->exponent = 0;
}

// SVD of bond after bond, from left to right on a chain centred on core 0, leaves cores U and the
// right bases scaled by S at every bond at once; then S^(1/2) moves over each bond.
static tt_status tt__chain_balance(tt__pool *pool, tt__chain *chain) {
  double *values[TT_MAX_ORDER] = {NULL};
  int order = chain->shape.order;
  tt_status status = tt__chain_center(pool, chain, 0);
  for (int k = 0; k + 1 < order && !status; k++) {
    values[k] = tt__take_f64(pool, chain->shape.ranks[k + 1], 1);
    void *mark = pool->blocks;
    tt__factor left;
    double *right;
    status = tt__core_svd(pool, chain, k, &left, &right);
    if (!status) {
      ptrdiff_t rank = tt__nonzero_values(left.count, left.values);
      memcpy(values[k], left.values, (size_t)rank * sizeof(double));
      status = tt__cut_bond(pool, chain, k, &left, right, rank);
    }
    tt__pool_rewind(pool, mark);
  }
  for (int k = 0; k < order && !status; k++)
    tt__share_values(chain, k, k ? values[k - 1] : NULL, values[k]);
  if (!status) tt__share_exponent(chain);
  return status;
}

TTDEF tt_status tt_balance(const tt_matrix *w, const tt_options *given, tt_matrix *out) {
  tt_options options;
  tt_status status = tt__enter(w, given, out, &options);
  if (status) return status;
  tt__pool pool = tt__pool_open(&options.allocator);
  tt__chain chain;
  status = tt__chain_read(&pool, w, &chain);
  if (!status) status = tt__chain_balance(&pool, &chain);
  if (!status) status = tt__chain_store(&pool, &chain, 0, w, &options, out);
  tt__pool_close(&pool);
  return status;
}

TTDEF tt_status tt_turn(const tt_matrix *w, int sweep, const tt_options *given, tt_matrix *out) {
  tt_options options;
  int starts[TT_MAX_ORDER + 1];
  tt_status status = tt__enter(w, given, out, &options);
  if (status) return status;
  if (sweep != TT_RIGHT_TO_LEFT && sweep != TT_LEFT_TO_RIGHT) return TT_ERROR_INVALID;
  for (int k = 0; k <= w->shape.order; k++) starts[k] = k;
  return tt__regroup(w, w->shape.order, starts, sweep, &options, out);
}

// ---- straight-through values

// What becomes of `count` values, each times factor, that share one scale.
static void tt__coded_run(const tt_core *core, double factor, ptrdiff_t count, const float *values,
                          float *out) {
  double largest = 0, scale = (double)core->scale;
  float unit = core->scale == 0 ? 1 : core->scale;
  if (tt__is_integer(core->dtype)) {
    for (ptrdiff_t i = 0; i < count; i++)
      if (fabs(factor * (double)values[i]) > largest) largest = fabs(factor * (double)values[i]);
    scale = tt__encode_scale(core, largest, (double)core->scale, NULL);
    unit = (float)scale;
  }
  for (ptrdiff_t i = 0; i < count; i++) {
    double value = factor * (double)values[i];
    if (tt__is_integer(core->dtype))
      out[i] = unit * (float)tt__integer_for(core->dtype, value, scale);
    else if (tt__is_minifloat(core->dtype))
      out[i] = unit * tt_to_f32(core->dtype, tt_from_f32(core->dtype, (float)(value / scale), 1));
    else
      out[i] = (float)value;
  }
}

// A whole core in the format of `core`, whose scale is set: run after run of its GEMM view.
static void tt__coded_values(const tt_core *core, double factor, ptrdiff_t rows, ptrdiff_t length,
                             const float *values, float *out) {
  ptrdiff_t step = core->group > 0 ? tt__min(core->group, length) : length;
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t j = 0; j < length; j += step)
      tt__coded_run(core, factor, tt__min(step, length - j), values + i * length + j,
                    out + i * length + j);
}

// The formats that tt_quantize would give the cores, and what it would multiply their data by.
static tt_status tt__coded_formats(const tt_matrix *w, tt_dtype dtype, int group, tt_core *formats,
                                   double *factors) {
  double largest[TT_MAX_ORDER] = {0};
  int order = w->shape.order, shares[TT_MAX_ORDER] = {0};
  tt_status status = TT_OK;
  for (int k = 0; k < order; k++) {
    ptrdiff_t count;
    const float *values = tt__array(w, k, &count);
    factors[k] = w->cores[k].scale == 0 ? 1 : (double)w->cores[k].scale;
    for (ptrdiff_t i = 0; i < count; i++)
      if (fabs(factors[k] * (double)values[i]) > largest[k])
        largest[k] = fabs(factors[k] * (double)values[i]);
  }
  tt__spread_exponent(order, largest, 0, 0, dtype, shares);
  for (int k = 0; k < order && !status; k++) {
    memset(&formats[k], 0, sizeof formats[k]);
    formats[k].dtype = dtype;
    formats[k].group = group;
    double factor = tt__times_power(1, shares[k]);
    factors[k] *= factor;
    status = tt__encode_begin(&formats[k], largest[k] * factor);
  }
  return status;
}

TTDEF tt_status tt_quantize_values(const tt_matrix *w, tt_dtype dtype, int group, tt_matrix *out) {
  tt_core formats[TT_MAX_ORDER];
  double factors[TT_MAX_ORDER];
  ptrdiff_t rows, length;
  if (!tt__valid(w) || dtype < TT_F32 || dtype > TT_I2 || group < TT_GROUP_ROW)
    return TT_ERROR_INVALID;
  if (!tt__has_floats(w) || (group && !tt__is_integer(dtype))) return TT_ERROR_UNSUPPORTED;
  if (!tt__is_state(w, out) || !w->bias != !out->bias) return TT_ERROR_INVALID;
  if (!tt__all_finite(w, w->shape.order)) return TT_ERROR_NONFINITE;
  tt_status status = tt__coded_formats(w, dtype, group, formats, factors);
  for (int k = 0; k < w->shape.order && !status; k++) {
    tt__view_size(&w->shape, w->sweep, k, &rows, &length);
    tt__coded_values(&formats[k], factors[k], rows, length, (const float *)w->cores[k].data,
                     (float *)tt_core_data(out, k));
  }
  if (w->bias && !status) memcpy(tt_bias_data(out), w->bias, (size_t)w->rows * sizeof(float));
  return status;
}
#endif // TT_INFERENCE_ONLY

// ------------------------------------------------------------------------------------------ >>file
// safetensors [Safetensors] in and out, .npy [Npy] in.
//
// A file is hostile until proven otherwise. One cursor reads JSON and the Python literal of .npy;
// its first pass checks every byte of the header and counts, so that the second can fill one block
// of the right size. Numbers of the file are 64-bit and every product of them is checked; a tensor
// has one size, computed once and compared with its offsets. What JSON cannot say tensor by tensor
// (no name twice, no hole, no overlap) is checked on sorted indices. There is no recursion. Values
// are little-endian in files and native in trains: tt__little stands between the two.
//
// A train is stored core by core in the layout of its sweep. Shapes are derived from the tensors;
// metadata "tt.layers" adds what tensors cannot say (size of a padded matrix, direction, codes
// below 8 bits, length of a group) and everything in it is compared with the byte counts.
#ifndef TT_INFERENCE_ONLY

#define TT__HEADER_CAP  100000000L
#define TT__TENSOR_CAP  1000000L
#define TT__NAME_CAP    1024
#define TT__NPY_CAP     10000
#define TT__SHARD_CAP   1000
#define TT__MAX_DIMS    8
#define TT__CHUNK       16384  // bytes copied at a time

typedef struct tt__file_type {
  char name[12];
  int bits;
  int dtype;                   // the tt_dtype that holds it, or -1
} tt__file_type;

static const tt__file_type tt__file_types[] = {
    {"F32", 32, TT_F32},     {"F64", 64, TT_F64},     {"F16", 16, TT_F16},    {"BF16", 16, TT_BF16},
    {"F8_E4M3", 8, TT_E4M3}, {"F8_E5M2", 8, TT_E5M2}, {"I8", 8, TT_I8},       {"U8", 8, -1},
    {"BOOL", 8, -1},         {"I16", 16, -1},         {"U16", 16, -1},        {"I32", 32, -1},
    {"U32", 32, -1},         {"I64", 64, -1},         {"U64", 64, -1},        {"C64", 64, -1},
    {"F8_E8M0", 8, -1},      {"F8_E4M3FNUZ", 8, -1},  {"F8_E5M2FNUZ", 8, -1}, {"F6_E2M3", 6, -1},
    {"F6_E3M2", 6, -1},      {"F4", 4, -1},
};
enum { TT__TYPE_U8 = 7 };      // types 0 to 6 are those of cores, in the order of tt_dtype

static const char tt__dtype_names[][5] = {"F32",  "F64", "F16", "BF16", "E4M3",
                                          "E5M2", "I8",  "I4",  "I3",   "I2"};

// Index of a safetensors dtype, or -1.
static int tt__file_type_find(const char *name) {
  int count = (int)(sizeof tt__file_types / sizeof *tt__file_types);
  for (int i = 0; i < count; i++) if (!strcmp(tt__file_types[i].name, name)) return i;
  return -1;
}

// Bytes of a tensor. Returns FORMAT if products overflow or the bits do not fill whole bytes.
static tt_status tt__tensor_size(int type, int order, const uint64_t *dims, uint64_t *size) {
  uint64_t count = 1, bits = (uint64_t)tt__file_types[type].bits;
  for (int i = 0; i < order; i++) {
    if (dims[i] && count > UINT64_MAX / dims[i]) return TT_ERROR_FORMAT;
    count *= dims[i];
  }
  if (count > UINT64_MAX / bits || count * bits % 8) return TT_ERROR_FORMAT;
  *size = count * bits / 8;
  return TT_OK;
}

// Turns values of `width` bytes between the host's order and little-endian, in place. The same
// exchange serves both directions; nothing happens on a little-endian host.
static void tt__little(void *data, ptrdiff_t count, int width) {
  uint16_t one = 1;
  unsigned char *at = (unsigned char *)data, first;
  memcpy(&first, &one, 1);
  if (first == 1) return;
  for (ptrdiff_t i = 0; i < count; i++, at += width)
    for (int a = 0, b = width - 1; a < b; a++, b--) {
      unsigned char byte = at[a];
      at[a] = at[b];
      at[b] = byte;
    }
}

// Sorts indices by a strict order. Heapsort: O(n log n) whatever the input, no memory, no
// recursion.
typedef int (*tt__before)(const void *context, int a, int b);

static void tt__sort_indices(int *index, int count, tt__before before, const void *context) {
  for (int end = count, start = count / 2; end > 1;) {
    int item, hole, child;
    if (start > 0) { // build the heap, then take its top away
      item = index[--start];
    } else {
      item = index[--end];
      index[end] = index[0];
    }
    for (hole = start; (child = 2 * hole + 1) < end; hole = child) {
      if (child + 1 < end && before(context, index[child], index[child + 1])) child++;
      if (!before(context, item, index[child])) break;
      index[hole] = index[child];
    }
    index[hole] = item;
  }
}

static int tt__utf8_valid(const char *text, ptrdiff_t size) {
  for (ptrdiff_t i = 0; i < size;) {
    uint32_t lead = (unsigned char)text[i++], code;
    int more = lead < 0x80   ? 0
               : lead < 0xC2 ? -1
               : lead < 0xE0 ? 1
               : lead < 0xF0 ? 2
               : lead < 0xF5 ? 3
                             : -1;
    if (more < 0 || more > size - i) return 0;
    code = more ? lead & (63U >> more) : lead;
    for (int t = 0; t < more; t++, i++) {
      if (((unsigned char)text[i] & 0xC0) != 0x80) return 0;
      code = code << 6 | ((unsigned char)text[i] & 63);
    }
    if (more == 2 && (code < 0x800 || (code >= 0xD800 && code < 0xE000))) return 0;
    if (more == 3 && (code < 0x10000UL || code > 0x10FFFFUL)) return 0;
  }
  return 1;
}

// Terminal escapes and worse: C0, DEL and C1 (in UTF-8: C2 80 .. C2 9F).
static int tt__has_control(const char *text) {
  const unsigned char *at = (const unsigned char *)text;
  for (; *at; at++) if (*at < 32 || *at == 127 || (*at == 0xC2 && at[1] < 0xA0)) return 1;
  return 0;
}

// ------------------------------------------------------------------------------------------ >>json
// The one reader of text: JSON, and the Python literal of .npy, which differs in quotes, in words
// and in a comma before a closing bracket. A cursor with a sticky status; nothing is allocated.

typedef struct tt__json {      // a cursor; every function does nothing once status is set
  const char *at, *end;
  int python;                  // a comma may stand before the closing bracket
  int comma;                   // and did, in the list that ended last
  tt_status status;
} tt__json;

static tt__json tt__json_open(const char *text, ptrdiff_t size) {
  tt__json json;
  memset(&json, 0, sizeof json);
  json.at = text;
  json.end = text + size;
  return json;
}

static void tt__json_fail(tt__json *json, tt_status status) {
  if (!json->status) json->status = status;
}

// The next character, or 0 at the end; NUL itself is nowhere legal.
static char tt__json_peek(const tt__json *json) {
  return json->at < json->end && !json->status ? *json->at : 0;
}

static char tt__json_next(tt__json *json) {                  // the same after white space
  while (json->at < json->end && (*json->at == ' ' || (*json->at >= '\t' && *json->at <= '\r' &&
         *json->at != '\v' && *json->at != '\f'))) json->at++;
  return tt__json_peek(json);
}

static void tt__json_expect(tt__json *json, char wanted) {
  if (tt__json_next(json) == wanted && !json->status) json->at++;
  else tt__json_fail(json, TT_ERROR_FORMAT);
}

// In a list whose opening bracket was read: does another element follow? `index` counts elements.
static int tt__json_more(tt__json *json, char close, ptrdiff_t *index) {
  json->comma = 0;
  if (*index > 0 && tt__json_next(json) == ',') {
    json->at++;
    json->comma = 1;
  }
  if (tt__json_next(json) == close) {
    json->at++;
    if (json->comma && !json->python) tt__json_fail(json, TT_ERROR_FORMAT);
    return 0;
  }
  if (*index > 0 && !json->comma) tt__json_fail(json, TT_ERROR_FORMAT);
  (*index)++;
  return !json->status;
}

// An unsigned decimal integer up to 2^63 - 1 without leading zeros.
static uint64_t tt__json_number(tt__json *json) {
  uint64_t value = 0, digit;
  (void)tt__json_next(json);
  const char *start = json->at;
  for (char c; (c = tt__json_peek(json)) >= '0' && c <= '9'; json->at++) {
    digit = (uint64_t)(c - '0');
    if (value > ((uint64_t)INT64_MAX - digit) / 10) tt__json_fail(json, TT_ERROR_FORMAT);
    value = value * 10 + digit;
  }
  if (json->at == start || (*start == '0' && json->at - start > 1))
    tt__json_fail(json, TT_ERROR_FORMAT);
  return json->status ? 0 : value;
}

// Four hexadecimal digits.
static uint32_t tt__json_hex(tt__json *json) {
  uint32_t value = 0;
  for (int i = 0; i < 4; i++) {
    char c = tt__json_peek(json);
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
    if (digit < 0) tt__json_fail(json, TT_ERROR_FORMAT);
    value = value << 4 | (uint32_t)(digit & 15);
    if (!json->status) json->at++;
  }
  return value;
}

// The code point of \uXXXX behind its u, as UTF-8. Surrogates come in pairs; NUL, which C strings
// cannot hold, is refused.
static int tt__json_unicode(tt__json *json, char piece[4]) {
  uint32_t code = tt__json_hex(json);
  if (code >= 0xD800 && code < 0xDC00 && json->end - json->at >= 6 && json->at[0] == '\\' &&
      json->at[1] == 'u') {
    json->at += 2;
    uint32_t low = tt__json_hex(json);
    if (low < 0xDC00 || low > 0xDFFF) tt__json_fail(json, TT_ERROR_FORMAT);
    code = 0x10000UL + ((code & 0x3FF) << 10 | (low & 0x3FF));
  }
  if (code == 0 || (code >= 0xD800 && code < 0xE000)) tt__json_fail(json, TT_ERROR_FORMAT);
  int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000UL ? 2 : 3;
  static const unsigned char lead[4] = {0, 0xC0, 0xE0, 0xF0};
  piece[0] = (char)(lead[more] | code >> (6 * more));
  for (int i = 1; i <= more; i++) piece[i] = (char)(0x80 | (code >> (6 * (more - i)) & 63));
  return 1 + more;
}

// One character of a string, decoded into at most four bytes. Returns their number.
static int tt__json_character(tt__json *json, char piece[4]) {
  static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
  piece[0] = tt__json_peek(json);
  if ((unsigned char)piece[0] < 32) tt__json_fail(json, TT_ERROR_FORMAT);
  if (json->status) return 0;
  json->at++;
  if (piece[0] != '\\') return 1;
  char escape = tt__json_peek(json);
  const char *found = escape ? strchr(letters, escape) : NULL;
  if (!found && escape != 'u') tt__json_fail(json, TT_ERROR_FORMAT);
  if (json->status) return 0;
  json->at++;
  if (!found) return tt__json_unicode(json, piece);
  piece[0] = meant[found - letters];
  return 1;
}

// Decodes a string into `out`, cut at room - 1 bytes and terminated (room 0: nowhere). Returns its
// length.
static ptrdiff_t tt__json_string(tt__json *json, char *out, ptrdiff_t room) {
  char piece[4];
  ptrdiff_t length = 0;
  tt__json_expect(json, '"');
  while (!json->status && tt__json_peek(json) != '"') {
    int count = tt__json_character(json, piece);
    for (int i = 0; i < count; i++, length++) if (length < room - 1) out[length] = piece[i];
  }
  if (!json->status) json->at++;
  if (room > 0) out[tt__min(length, room - 1)] = 0;
  return length;
}

// A name: a string without control characters, of limited length.
static ptrdiff_t tt__json_name(tt__json *json, char name[TT__NAME_CAP + 1]) {
  ptrdiff_t length = tt__json_string(json, name, TT__NAME_CAP + 1);
  if (tt__has_control(name)) tt__json_fail(json, TT_ERROR_FORMAT);
  if (length > TT__NAME_CAP) tt__json_fail(json, TT_ERROR_UNSUPPORTED);
  return length;
}

// Any value, of which only the strings and the nesting are looked at.
static void tt__json_skip(tt__json *json) {
  ptrdiff_t depth = 0;
  do {
    char c = tt__json_next(json);
    const char *start = json->at;
    if (c == '"') tt__json_string(json, NULL, 0);
    else if (c && strchr("{[", c)) { depth++; json->at++; }
    else if (c && strchr("}]", c)) { depth--; json->at++; }
    else if (c && depth > 0 && strchr(",:", c)) json->at++;
    else
      while ((c = tt__json_peek(json)) != 0 && (unsigned char)c > ' ' && !strchr("{}[]\",:", c))
        json->at++;
    if (depth < 0 || json->at == start) tt__json_fail(json, TT_ERROR_FORMAT);
  } while (depth > 0 && !json->status);
}

// ------------------------------------------------------------------------------------------ >>open
// Safetensors and .npy as objects: one block holds a copy of the header's strings, the tensors
// sorted by offset and an index sorted by name. The header is read twice by the same code: the
// first pass checks and counts, the second fills the block. Nothing is allocated by a size that the
// file chose before every rule has been checked. The index of a sharded checkpoint is read in the
// same way, its map as metadata; the file made of it borrows the entries of its shards.

typedef struct tt__entry {
  const tt_file *file;         // whose data they are: a shard, or the file itself
  const char *name;
  const ptrdiff_t *dims;
  ptrdiff_t begin, size;       // bytes, counted from the start of the data
  int type, order;
} tt__entry;

enum { TT__SAFETENSORS, TT__NPY, TT__INDEX };

struct tt_file {               // one block: this, then its arrays, then its strings
  tt_allocator allocator;
  int kind;                    // one of the three above
  tt_file *shards, *next;      // the first shard; from there to the next
  const char *shard;           // name of a shard, or NULL
  int number, num_shards;      // place of a shard among num_shards of its owner
  const unsigned char *bytes;  // the whole file, or NULL: it is read from stream
#ifndef TT_NO_STDIO
  FILE *stream;
#endif
  ptrdiff_t length, data;      // bytes of the file; where its data begin
  int num_entries, num_pairs;  // the first pass counts these five, the second fills them again
  ptrdiff_t num_dims, num_chars;
  int described;               // "__metadata__" was there
  tt__entry *entries;          // as in the header; NULL in the first pass
  const char **pairs;          // key, value, key, ...
  ptrdiff_t *dims;
  int *by_offset,
      *by_name; // entry of a place in the order of data; such a place in the order of names
  char *chars;
};

#ifndef TT_NO_STDIO
// long has 32 bits on Windows, where models do not fit.
#ifdef _WIN32
#define TT__SEEK(stream, offset, origin) _fseeki64(stream, (__int64)(offset), origin)
#define TT__TELL(stream) ((ptrdiff_t)_ftelli64(stream))
#define TT__SEPARATORS "/\\:"
#else
#define TT__SEEK(stream, offset, origin) fseek(stream, (long)(offset), origin)
#define TT__TELL(stream) ((ptrdiff_t)ftell(stream))
#define TT__SEPARATORS "/"
#endif
#endif

// Copies bytes of the file; the caller has checked that they lie in it.
static tt_status tt__file_fetch(const tt_file *file, ptrdiff_t position, void *out,
                                ptrdiff_t size) {
  if (size == 0) return TT_OK;
  if (file->bytes) {
    memcpy(out, file->bytes + position, (size_t)size);
    return TT_OK;
  }
#ifndef TT_NO_STDIO
  if (TT__TELL(file->stream) != position && TT__SEEK(file->stream, position, SEEK_SET))
    return TT_ERROR_IO;
  if (fread(out, 1, (size_t)size, file->stream) == (size_t)size) return TT_OK;
#endif
  return TT_ERROR_IO;
}

// The same, counted from the beginning of a tensor.
static tt_status tt__entry_fetch(const tt__entry *entry, ptrdiff_t offset, void *out,
                                 ptrdiff_t size) {
  const tt_file *file = entry->file;
  return tt__file_fetch(file, file->data + entry->begin + offset, out, size);
}

// Room for a string of `length` bytes: only counted in the first pass (NULL).
static char *tt__file_room(tt_file *file, ptrdiff_t length) {
  char *room = file->chars ? file->chars + file->num_chars : NULL;
  file->num_chars += length + 1;
  return room;
}

// Adds a tensor with checked sizes. Dimensions that do not fit the host can only belong to an empty
// one.
static tt_status tt__file_add(tt_file *file, const char *name, int type, int order,
                              const uint64_t *dims, const uint64_t *offsets) {
  uint64_t size, room = (uint64_t)(file->length - file->data);
  tt_status status = tt__tensor_size(type, order, dims, &size);
  if (status) return status;
  if (offsets[0] > offsets[1] || offsets[1] > room || offsets[1] - offsets[0] != size)
    return TT_ERROR_FORMAT;
  for (int i = 0; i < order; i++) if (dims[i] > (uint64_t)PTRDIFF_MAX) return TT_ERROR_MEMORY;
  if (file->num_entries >= TT__TENSOR_CAP) return TT_ERROR_UNSUPPORTED;
  ptrdiff_t length = (ptrdiff_t)strlen(name);
  char *kept = tt__file_room(file, length);
  if (kept) {
    tt__entry *entry = file->entries + file->num_entries;
    memcpy(kept, name, (size_t)length + 1);
    entry->file = file;
    entry->name = kept;
    entry->dims = file->dims + file->num_dims;
    entry->begin = (ptrdiff_t)offsets[0];
    entry->size = (ptrdiff_t)size;
    entry->type = type;
    entry->order = order;
    for (int i = 0; i < order; i++) file->dims[file->num_dims + i] = (ptrdiff_t)dims[i];
  }
  file->num_entries++;
  file->num_dims += order;
  return TT_OK;
}

// A list of numbers into values[0..limit-1]. Returns how many; too many have the given status.
static int tt__json_numbers(tt__json *json, char close, uint64_t *values, int limit,
                            tt_status excess) {
  ptrdiff_t count = 0;
  while (tt__json_more(json, close, &count)) {
    uint64_t value = tt__json_number(json);
    if (count > limit) tt__json_fail(json, excess);
    else values[count - 1] = value;
  }
  return (int)tt__min(count, limit);
}

// {"dtype":..,"shape":[..],"data_offsets":[..]}: each once, in any order, and nothing else.
static void tt__parse_tensor(tt__json *json, tt_file *file, const char *name) {
  char word[16];
  int seen = 0, type = 0, order = 0;
  uint64_t dims[TT__MAX_DIMS], offsets[2];
  ptrdiff_t count = 0;
  tt__json_expect(json, '{');
  while (tt__json_more(json, '}', &count)) {
    tt__json_string(json, word, 16);
    int field = !strcmp(word, "dtype")          ? 1
                : !strcmp(word, "shape")        ? 2
                : !strcmp(word, "data_offsets") ? 4
                                                : 0;
    tt__json_expect(json, ':');
    if (field == 1) {
      tt__json_string(json, word, 16);
      type = tt__file_type_find(word);
    } else if (field) {
      tt__json_expect(json, '[');
      if (field == 2) order = tt__json_numbers(json, ']', dims, TT__MAX_DIMS, TT_ERROR_UNSUPPORTED);
      else if (tt__json_numbers(json, ']', offsets, 2, TT_ERROR_FORMAT) != 2)
        tt__json_fail(json, TT_ERROR_FORMAT);
    }
    if (!field || seen & field || type < 0) tt__json_fail(json, TT_ERROR_FORMAT);
    seen |= field;
  }
  if (seen != 7) tt__json_fail(json, TT_ERROR_FORMAT);
  if (!json->status) json->status = tt__file_add(file, name, type, order, dims, offsets);
}

// "__metadata__": strings to strings.
static void tt__parse_metadata(tt__json *json, tt_file *file) {
  char key[TT__NAME_CAP + 1];
  ptrdiff_t count = 0;
  if (file->described++) tt__json_fail(json, TT_ERROR_FORMAT);
  tt__json_expect(json, '{');
  while (tt__json_more(json, '}', &count)) {
    ptrdiff_t length = tt__json_name(json, key);
    char *kept = tt__file_room(file, length);
    tt__json_expect(json, ':');
    tt__json again = *json;
    length = tt__json_string(json, NULL, 0);
    char *value = tt__file_room(file, length);
    if (file->num_pairs >= TT__TENSOR_CAP) tt__json_fail(json, TT_ERROR_UNSUPPORTED);
    if (json->status) return;
    if (kept) {
      memcpy(kept, key, strlen(key) + 1);
      tt__json_string(&again, value, length + 1);
      file->pairs[2 * file->num_pairs] = kept;
      file->pairs[2 * file->num_pairs + 1] = value;
    }
    file->num_pairs++;
  }
}

static tt_status tt__parse_safetensors(tt_file *file, const char *text, ptrdiff_t size) {
  char name[TT__NAME_CAP + 1];
  ptrdiff_t count = 0;
  tt__json json = tt__json_open(text, size);
  if (!tt__utf8_valid(text, size) || tt__json_peek(&json) != '{') return TT_ERROR_FORMAT;
  json.at++;
  while (tt__json_more(&json, '}', &count)) {
    tt__json_name(&json, name);
    tt__json_expect(&json, ':');
    if (!strcmp(name, "__metadata__")) tt__parse_metadata(&json, file);
    else tt__parse_tensor(&json, file, name);
  }
  while (json.at < json.end && !json.status) if (*json.at++ != ' ') json.status = TT_ERROR_FORMAT;
  return json.status;
}

// A file name without a folder, and not a hidden one.
static int tt__shard_usable(const char *name) {
  size_t length = strlen(name);
  return length > 0 && length <= TT__NAME_CAP && *name != '.' && !strpbrk(name, "/\\:") &&
         !tt__has_control(name);
}

// {"metadata":{..},"weight_map":{tensor:shard,..}}; the map becomes the file's pairs.
static tt_status tt__parse_index(tt_file *file, const char *text, ptrdiff_t size) {
  char word[16];
  ptrdiff_t count = 0;
  tt__json json = tt__json_open(text, size);
  if (!tt__utf8_valid(text, size)) return TT_ERROR_FORMAT;
  tt__json_expect(&json, '{');
  while (tt__json_more(&json, '}', &count)) {
    tt__json_string(&json, word, 16);
    tt__json_expect(&json, ':');
    if (!strcmp(word, "weight_map")) tt__parse_metadata(&json, file);
    else tt__json_skip(&json);
  }
  if (tt__json_next(&json) || json.at != json.end || !file->described)
    tt__json_fail(&json, TT_ERROR_FORMAT);
  for (int i = 0; i < file->num_pairs && file->pairs && !json.status; i++)
    if (!tt__shard_usable(file->pairs[2 * i + 1])) json.status = TT_ERROR_FORMAT;
  return json.status;
}

// A quoted word without escapes.
static void tt__npy_word(tt__json *json, char word[16]) {
  char quote = tt__json_next(json);
  int length = 0;
  if (quote != '\'' && quote != '"') tt__json_fail(json, TT_ERROR_FORMAT);
  for (char c = quote; c && !json->status && length < 15; word[length++] = c) {
    json->at++;
    c = tt__json_peek(json);
    if (c == quote) break;
    if ((unsigned char)c < ' ' || c == '\\') tt__json_fail(json, TT_ERROR_FORMAT);
  }
  word[length] = 0;
  tt__json_expect(json, quote);
}

// 'descr': a type that some core or read_f32 knows. Others are valid .npy, but not for us.
static int tt__npy_type(tt__json *json) {
  static const char names[5][4] = {"<f4", "<f8", "<f2", "|i1", "|u1"};
  static const int types[5] = {TT_F32, TT_F64, TT_F16, TT_I8, TT__TYPE_U8};
  char word[16];
  if (tt__json_next(json) == '[' || tt__json_peek(json) == '(')
    tt__json_fail(json, TT_ERROR_UNSUPPORTED); // a struct
  tt__npy_word(json, word);
  for (int i = 0; i < 5; i++) if (!strcmp(names[i], word)) return types[i];
  tt__json_fail(json, TT_ERROR_UNSUPPORTED);
  return 0;
}

// 'fortran_order': only False, which numpy writes wherever both would do.
static void tt__npy_order(tt__json *json) {
  const char *word = tt__json_next(json) == 'T' ? "True" : "False";
  tt_status status = *word == 'T' ? TT_ERROR_UNSUPPORTED : TT_OK;
  for (; *word; word++, json->at++) if (tt__json_peek(json) != *word) {
    tt__json_fail(json, TT_ERROR_FORMAT);
    return;
  }
  tt__json_fail(json, status);
}

// {'descr': .., 'fortran_order': .., 'shape': (..), } with spaces and a line feed behind it.
static tt_status tt__parse_npy(tt_file *file, const char *text, ptrdiff_t size) {
  char word[16];
  int seen = 0, type = 0, order = 0;
  ptrdiff_t count = 0;
  uint64_t dims[TT__MAX_DIMS], offsets[2] = {0, 0};
  tt__json json = tt__json_open(text, size);
  json.python = 1;
  tt__json_expect(&json, '{');
  while (tt__json_more(&json, '}', &count)) {
    tt__npy_word(&json, word);
    int field = !strcmp(word, "descr")           ? 1
                : !strcmp(word, "fortran_order") ? 2
                : !strcmp(word, "shape")         ? 4
                                                 : 0;
    tt__json_expect(&json, ':');
    if (!field || seen & field) tt__json_fail(&json, TT_ERROR_FORMAT);
    seen |= field;
    if (field == 1) type = tt__npy_type(&json);
    if (field == 2) tt__npy_order(&json);
    if (field != 4) continue;
    tt__json_expect(&json, '(');
    order = tt__json_numbers(&json, ')', dims, TT__MAX_DIMS, TT_ERROR_UNSUPPORTED);
    if (order == 1 && !json.comma) tt__json_fail(&json, TT_ERROR_FORMAT);     // (3) is a number
    if (order == 0 && json.comma) tt__json_fail(&json, TT_ERROR_FORMAT);
  }
  while (json.end - json.at > 1 && !json.status)
    if (*json.at++ != ' ') json.status = TT_ERROR_FORMAT;
  if (seen != 7 || json.at == json.end || *json.at != '\n') tt__json_fail(&json, TT_ERROR_FORMAT);
  offsets[1] = (uint64_t)(file->length - file->data);
  return json.status ? json.status : tt__file_add(file, "", type, order, dims, offsets);
}

static int tt__offset_before(const void *context, int a, int b) {
  const tt__entry *x = ((const tt_file *)context)->entries + a,
                  *y = ((const tt_file *)context)->entries + b;
  if (x->file != y->file) return x->file->number < y->file->number;
  if (x->begin != y->begin) return x->begin < y->begin;
  if (x->size != y->size)
    return x->size < y->size; // an empty tensor may share the next one's offset
  return a < b;
}

static int tt__pair_before(const void *context, int a, int b) {
  const char *const *pairs = ((const tt_file *)context)->pairs;
  return strcmp(pairs[2 * a], pairs[2 * b]) < 0;
}

static const tt__entry *tt__entry_at(const tt_file *file, int index) {
  return file->entries + file->by_offset[index];
}

static int tt__name_before(const void *context, int a, int b) {
  const tt_file *file = (const tt_file *)context;
  return strcmp(tt__entry_at(file, a)->name, tt__entry_at(file, b)->name) < 0;
}

// Value of a metadata key, or NULL.
static const char *tt__file_value(const tt_file *file, const char *key) {
  for (int i = 0; i < file->num_pairs; i++)
    if (!strcmp(file->pairs[2 * i], key)) return file->pairs[2 * i + 1];
  return NULL;
}

// Sorts the tensors by offset and by name. No name comes twice.
static tt_status tt__file_sort(tt_file *file) {
  int *index = file->by_name;
  for (int i = 0; i < file->num_entries; i++) index[i] = file->by_offset[i] = i;
  tt__sort_indices(file->by_offset, file->num_entries, tt__offset_before, file);
  tt__sort_indices(index, file->num_entries, tt__name_before, file);
  for (int i = 1; i < file->num_entries; i++)
    if (!tt__name_before(file, index[i - 1], index[i])) return TT_ERROR_FORMAT;
  return TT_OK;
}

// Rules that concern all tensors together: every byte belongs to exactly one, no name or key comes
// twice.
static tt_status tt__file_index(tt_file *file) {
  int *index = file->by_name;
  for (int i = 0; i < file->num_pairs; i++) index[i] = i;
  tt__sort_indices(index, file->num_pairs, tt__pair_before, file);
  for (int i = 1; i < file->num_pairs; i++)
    if (!tt__pair_before(file, index[i - 1], index[i])) return TT_ERROR_FORMAT;
  if (file->kind == TT__INDEX) return TT_OK;
  if (tt__file_sort(file)) return TT_ERROR_FORMAT;
  ptrdiff_t end = 0;
  for (int i = 0; i < file->num_entries; i++) {
    if (tt__entry_at(file, i)->begin != end) return TT_ERROR_FORMAT;
    end += tt__entry_at(file, i)->size;
  }
  if (end != file->length - file->data) return TT_ERROR_FORMAT;
  const char *version = tt__file_value(file, "tt.version");
  return !version || (version[0] == '1' && (!version[1] || version[1] == '.'))
             ? TT_OK
             : TT_ERROR_UNSUPPORTED;
}

// One block for what the first pass counted; the counters start again.
static tt_file *tt__file_block(const tt_file *counted) {
  ptrdiff_t entries = 0, pairs, dims, offsets, names, chars, size,
            places = tt__max(counted->num_entries, counted->num_pairs);
  int good = tt__add_size(&entries, 1, (ptrdiff_t)sizeof *counted);
  pairs = entries;
  good = good && tt__add_size(&pairs, counted->num_entries, (ptrdiff_t)sizeof(tt__entry));
  dims = pairs;
  good = good && tt__add_size(&dims, 2 * (ptrdiff_t)counted->num_pairs, (ptrdiff_t)sizeof(char *));
  offsets = dims;
  good = good && tt__add_size(&offsets, counted->num_dims + 1, (ptrdiff_t)sizeof(ptrdiff_t));
  names = offsets;
  good = good && tt__add_size(&names, places, (ptrdiff_t)sizeof(int));
  chars = names;
  good = good && tt__add_size(&chars, places, (ptrdiff_t)sizeof(int));
  size = chars;
  good = good && tt__add_size(&size, counted->num_chars + 1, 1);
  char *block = good ? (char *)tt__allocate(&counted->allocator, size) : NULL;
  if (!block) return NULL;
  memset(block, 0, (size_t)size);
  tt_file *file = (tt_file *)(void *)block;
  *file = *counted;
  file->entries = (tt__entry *)(void *)(block + entries);
  file->pairs = (const char **)(void *)(block + pairs);
  file->dims = (ptrdiff_t *)(void *)(block + dims);
  file->by_offset = (int *)(void *)(block + offsets);
  file->by_name = (int *)(void *)(block + names);
  file->chars = block + chars;
  file->num_entries = file->num_pairs = file->described = 0;
  file->num_dims = file->num_chars = 0;
  return file;
}

// Where the header's text begins; file->data and file->kind are set. An index is told from a header
// by its eighth byte, which says 2^56 or more there.
static tt_status tt__file_header(tt_file *file, ptrdiff_t *begin) {
  unsigned char start[12] = {0};
  if (file->length < 10) return TT_ERROR_FORMAT; // "{}" behind eight bytes is the smallest file
  tt_status status = tt__file_fetch(file, 0, start, tt__min(file->length, 12));
  if (status) return status;
  int npy = !memcmp(start, "\x93NUMPY", 6), wide = npy && start[6] > 1,
      count = npy ? wide ? 4 : 2 : 8;
  uint64_t size = 0;
  file->kind = npy ? TT__NPY : start[0] == '{' && start[7] ? TT__INDEX : TT__SAFETENSORS;
  *begin = npy ? 8 + count : 8;
  for (int i = count; i > 0; i--) size = size << 8 | start[*begin - count + i - 1];
  if (file->kind == TT__INDEX) {
    *begin = 0;
    size = (uint64_t)file->length;
  }
  if (*begin > file->length || size > (uint64_t)(file->length - *begin)) return TT_ERROR_FORMAT;
  file->data = *begin + (ptrdiff_t)size;
  if (npy && (start[6] < 1 || start[6] > 3 || start[7])) return TT_ERROR_UNSUPPORTED;
  return size > (uint64_t)(npy ? TT__NPY_CAP : TT__HEADER_CAP) ? TT_ERROR_UNSUPPORTED : TT_OK;
}

// Reads the header of a source described by *source (allocator, bytes or stream, length, name of a
// shard) into a new object.
static tt_status tt__file_load(tt_file *source, tt_file **out) {
  static tt_status (*const parse[3])(tt_file *, const char *, ptrdiff_t) = {
      tt__parse_safetensors, tt__parse_npy, tt__parse_index};
  ptrdiff_t begin = 0;
  tt_file *file = NULL;
  tt__pool pool = tt__pool_open(&source->allocator);
  tt_status status = tt__file_header(source, &begin);
  const char *text = source->bytes ? (const char *)source->bytes + begin : NULL;
  if (!status && !source->bytes) {
    char *copy = (char *)tt__take(&pool, source->data - begin, 1);
    status = copy ? tt__file_fetch(source, begin, copy, source->data - begin) : pool.status;
    text = copy;
  }
  for (int pass = 0; pass < 2 && !status; pass++) {
    if (pass && (file = tt__file_block(source)) == NULL) status = TT_ERROR_MEMORY;
    tt_file *target = pass ? file : source;
    if (!status) status = parse[source->kind](target, text, source->data - begin);
    if (!status && source->shard) {
      ptrdiff_t length = (ptrdiff_t)strlen(source->shard);
      char *name = tt__file_room(target, length);
      if (name) target->shard = (const char *)memcpy(name, source->shard, (size_t)length + 1);
    }
  }
  if (!status) status = tt__file_index(file);
  if (!status) *out = file;
  else tt__release(&source->allocator, file);
  tt__pool_close(&pool);
  return status;
}

#ifndef TT_NO_STDIO
static tt_status tt__file_stream(const char *path, const tt_allocator *allocator, const char *shard,
                                 tt_file **out) {
  tt_file source;
  memset(&source, 0, sizeof source);
  source.allocator = *allocator;
  source.shard = shard;
  source.stream = fopen(path, "rb");
  if (!source.stream) return TT_ERROR_IO;
  tt_status status = TT__SEEK(source.stream, 0, SEEK_END) ? TT_ERROR_IO : TT_OK;
  if (!status && (source.length = TT__TELL(source.stream)) < 0) status = TT_ERROR_IO;
  if (!status) status = tt__file_load(&source, out);
  if (status) fclose(source.stream);
  return status;
}

// Opens the next shard of a file; *last is the one before it.
static tt_status tt__shard_open(tt_file *file, const char *path, const char *name, tt_file **last) {
  tt_file *shard;
  if (file->num_shards >= TT__SHARD_CAP) return TT_ERROR_UNSUPPORTED;
  tt_status status = tt__file_stream(path, &file->allocator, name, &shard);
  if (status) return status;
  if (*last) (*last)->next = shard;
  else file->shards = shard;
  shard->number = file->num_shards++;
  *last = shard;
  return shard->kind == TT__SAFETENSORS ? TT_OK : TT_ERROR_FORMAT;
}

static int tt__shard_before(const void *context, int a, int b) {
  const char *const *pairs = ((const tt_file *)context)->pairs;
  return strcmp(pairs[2 * a + 1], pairs[2 * b + 1]) < 0;
}

// Makes one file of the tensors that an index maps to shards beside it.
static tt_status tt__file_join(const char *path, const tt_file *index, tt_file **out) {
  tt_file counted, *file = NULL, *shard = NULL;
  ptrdiff_t folder = (ptrdiff_t)strlen(path);
  int place;
  memset(&counted, 0, sizeof counted);
  counted.allocator = index->allocator;
  counted.num_entries = index->num_pairs;
  tt__pool pool = tt__pool_open(&index->allocator);
  while (folder > 0 && !strchr(TT__SEPARATORS, path[folder - 1])) folder--;
  char *full = (char *)tt__take(&pool, folder + TT__NAME_CAP + 1, 1);
  int *order = (int *)tt__take(&pool, index->num_pairs, (ptrdiff_t)sizeof(int));
  tt_status status = pool.status;
  if (!status && (file = tt__file_block(&counted)) == NULL) status = TT_ERROR_MEMORY;
  for (int i = 0; i < index->num_pairs && !status; i++) order[i] = i;
  if (!status) {
    memcpy(full, path, (size_t)folder);
    tt__sort_indices(order, index->num_pairs, tt__shard_before, index);
  }
  for (int i = 0; i < index->num_pairs && !status; i++) {
    const char *const *pair = index->pairs + 2 * order[i];
    if (!shard || strcmp(shard->shard, pair[1])) {
      memcpy(full + folder, pair[1], strlen(pair[1]) + 1);
      status = tt__shard_open(file, full, pair[1], &shard);
    }
    if (!status && tt_file_find(shard, pair[0], &place)) status = TT_ERROR_FORMAT;
    if (!status) file->entries[file->num_entries++] = *tt__entry_at(shard, place);
  }
  if (!status) status = tt__file_sort(file);
  if (!status && file->shards) {
    file->pairs = file->shards->pairs;
    file->num_pairs = file->shards->num_pairs;
  }
  if (!status) *out = file;
  else tt_file_close(file);
  tt__pool_close(&pool);
  return status;
}

TTDEF tt_status tt_file_open(const char *path, const tt_options *options, tt_file **out) {
  if (out) *out = NULL;
  if (!path || !out || !tt__options_valid(options)) return TT_ERROR_INVALID;
  tt_allocator allocator = tt__options(options).allocator;
  tt_status status = tt__file_stream(path, &allocator, NULL, out);
  if (status || (*out)->kind != TT__INDEX) return status;
  tt_file *index = *out;
  *out = NULL;
  status = tt__file_join(path, index, out);
  tt_file_close(index);
  return status;
}
#endif

TTDEF tt_status tt_file_open_memory(const void *bytes, size_t size, const tt_options *options,
                                    tt_file **out) {
  tt_file source;
  if (out) *out = NULL;
  if (!out || (!bytes && size) || !tt__options_valid(options)) return TT_ERROR_INVALID;
  if (size > (size_t)PTRDIFF_MAX) return TT_ERROR_MEMORY;
  memset(&source, 0, sizeof source);
  source.allocator = tt__options(options).allocator;
  source.bytes = (const unsigned char *)bytes;
  source.length = (ptrdiff_t)size;
  tt_status status = tt__file_load(&source, out);
  if (status || (*out)->kind != TT__INDEX) return status;
  tt_file_close(*out);
  *out = NULL;
  return TT_ERROR_UNSUPPORTED;
}

TTDEF void tt_file_close(tt_file *file) {
  while (file) {                                             // then its shards, one after the other
    tt_file *next = file->shards ? file->shards : file->next;
    tt_allocator allocator = file->allocator;
#ifndef TT_NO_STDIO
    if (file->stream) fclose(file->stream);
#endif
    tt__release(&allocator, file);
    file = next;
  }
}

TTDEF int tt_file_shard_count(const tt_file *file) { return file ? file->num_shards : 0; }

TTDEF tt_status tt_file_shard_name(const tt_file *file, int index, const char **name) {
  if (!file || !name || index < 0 || index >= file->num_shards) return TT_ERROR_INVALID;
  const tt_file *shard = file->shards;
  for (int i = 0; i < index; i++) shard = shard->next;
  *name = shard->shard;
  return TT_OK;
}

TTDEF int tt_file_count(const tt_file *file) { return file ? file->num_entries : 0; }

TTDEF int tt_file_metadata_count(const tt_file *file) { return file ? file->num_pairs : 0; }

TTDEF tt_status tt_file_metadata(const tt_file *file, int index, const char **key,
                                 const char **value) {
  if (!file || index < 0 || index >= file->num_pairs) return TT_ERROR_INVALID;
  if (key) *key = file->pairs[2 * index];
  if (value) *value = file->pairs[2 * index + 1];
  return TT_OK;
}

TTDEF tt_status tt_file_tensor(const tt_file *file, int index, const char **name,
                               const char **dtype, int *order, const ptrdiff_t **dims,
                               const void **data, size_t *size) {
  if (!file || index < 0 || index >= file->num_entries) return TT_ERROR_INVALID;
  const tt__entry *entry = tt__entry_at(file, index);
  if (name) *name = entry->name;
  if (dtype) *dtype = tt__file_types[entry->type].name;
  if (order) *order = entry->order;
  if (dims) *dims = entry->dims;
  if (data) *data = entry->file->bytes ? file->bytes + file->data + entry->begin : NULL;
  if (size) *size = (size_t)entry->size;
  return TT_OK;
}

TTDEF tt_status tt_file_read(const tt_file *file, int index, size_t offset, void *out,
                             size_t size) {
  if (!file || index < 0 || index >= file->num_entries || (!out && size)) return TT_ERROR_INVALID;
  const tt__entry *entry = tt__entry_at(file, index);
  if (offset > (size_t)entry->size || size > (size_t)entry->size - offset) return TT_ERROR_INVALID;
  return tt__entry_fetch(entry, (ptrdiff_t)offset, out, (ptrdiff_t)size);
}

TTDEF tt_status tt_file_find(const tt_file *file, const char *name, int *index) {
  if (!file || !name || !index) return TT_ERROR_INVALID;
  int low = 0, high = file->num_entries;
  while (low < high) {
    int middle = low + (high - low) / 2,
        order = strcmp(name, tt__entry_at(file, file->by_name[middle])->name);
    if (order == 0) {
      *index = file->by_name[middle];
      return TT_OK;
    }
    if (order < 0) high = middle;
    else low = middle + 1;
  }
  return TT_ERROR_INVALID;
}

// Elements of a tensor of whole bytes.
static ptrdiff_t tt__entry_count(const tt__entry *entry) {
  return entry->size / (tt__file_types[entry->type].bits / 8);
}

// All numbers of a tensor as float, or as double where wide.
static tt_status tt__file_numbers(const tt_file *file, int index, int wide, void *out,
                                  ptrdiff_t count) {
  unsigned char chunk[4096];
  const tt__entry *entry = tt__entry_at(file, index);
  if (entry->type > TT__TYPE_U8) return TT_ERROR_UNSUPPORTED;
  if (count != tt__entry_count(entry)) return TT_ERROR_INVALID;
  tt_dtype dtype = (tt_dtype)tt__file_types[entry->type].dtype;
  int width = tt__file_types[entry->type].bits / 8, some = (int)sizeof chunk / width;
  for (ptrdiff_t i = 0; i < count; i += some) {
    ptrdiff_t now = tt__min(some, count - i);
    tt_status status = tt__entry_fetch(entry, i * width, chunk, now * width);
    if (status) return status;
    tt__little(chunk, now, width);
    for (ptrdiff_t t = 0; t < now; t++) {
      double value = 0;
      if (entry->type == TT_F64) memcpy(&value, chunk + 8 * t, sizeof value);
      else if (entry->type == TT__TYPE_U8) value = chunk[t];
      else value = (double)tt__decode_one(dtype, chunk, t);
      tt__put_element(out, wide, i + t, value);
    }
  }
  return TT_OK;
}

TTDEF tt_status tt_file_read_f32(const tt_file *file, int index, float *out, ptrdiff_t count) {
  if (!file || index < 0 || index >= file->num_entries || (!out && count)) return TT_ERROR_INVALID;
  return tt__file_numbers(file, index, 0, out, count);
}

// ----------------------------------------------------------------------------------------- >>layer
// Trains in files. The tensors say the shape; "tt.layers" is a hint that is checked against them:
// a contradiction is an error, and only the true size of a padded layer and the format of packed
// codes come from it. Values are converted from little-endian and must be finite.

typedef struct tt__layer {     // a stored train before its data are read
  const tt_file *file;
  const char *name;
  int named;                   // "<name>.cores.*", not a plain tensor
  tt_matrix header;            // what the tensors say; what is said below must agree
  tt_shape said;               // from "tt.layers"
  int num_rows, num_cols, num_ranks, num_cores, num_size;    // lengths of its lists, -1 = not there
  ptrdiff_t size[2];
  int dtype[TT_MAX_ORDER], group[TT_MAX_ORDER];
  int core[TT_MAX_ORDER], bias;                              // tensors; -1 = none
} tt__layer;

// Writes a number >= 0 with its terminator. Returns the length.
static int tt__decimal(char *out, int64_t value) {
  char reversed[20];
  int count = 0;
  do reversed[count++] = (char)('0' + value % 10);
  while (value /= 10);
  for (int i = 0; i < count; i++) out[i] = reversed[count - 1 - i];
  out[count] = 0;
  return count;
}

// "<layer><part><number>" (no number if it is negative); empty if that is too long for a name.
static void tt__part_name(char full[TT__NAME_CAP + 1], const char *layer, const char *part,
                          int number) {
  size_t length = strlen(layer), more = strlen(part);
  *full = 0;
  if (length + more + 3 > TT__NAME_CAP) return;
  memcpy(full, layer, length);
  memcpy(full + length, part, more + 1);
  if (number >= 0) tt__decimal(full + length + more, number);
}

// The tensor of that name, or -1.
static int tt__part(const tt_file *file, const char *layer, const char *part, int number) {
  char full[TT__NAME_CAP + 1];
  int index;
  tt__part_name(full, layer, part, number);
  return *full && tt_file_find(file, full, &index) == TT_OK ? index : -1;
}

// The GEMM view of a core: its two row and two column dimensions, in the order of its layout.
static void tt__core_dims(const tt_matrix *w, int k, ptrdiff_t dims[4]) {
  int turned = w->sweep == TT_LEFT_TO_RIGHT;
  dims[0] = turned ? w->shape.rows[k] : w->shape.ranks[k];
  dims[1] = turned ? w->shape.ranks[k + 1] : w->shape.rows[k];
  dims[2] = turned ? w->shape.ranks[k] : w->shape.cols[k];
  dims[3] = turned ? w->shape.cols[k] : w->shape.ranks[k + 1];
}

// A list of at most `limit` integers. Returns their number.
static int tt__said_list(tt__json *json, int *out, int limit) {
  uint64_t values[TT_MAX_ORDER + 1];
  tt__json_expect(json, '[');
  int count = tt__json_numbers(json, ']', values, limit, TT_ERROR_FORMAT);
  for (int i = 0; i < count && !json->status; i++) {
    if (values[i] < 1 || values[i] > INT_MAX) tt__json_fail(json, TT_ERROR_FORMAT);
    else out[i] = (int)values[i];
  }
  return count;
}

// {"dtype":"I4","group":32}; the group may be -1.
static void tt__said_core(tt__json *json, tt__layer *layer, int k) {
  char word[16];
  ptrdiff_t count = 0;
  int seen = 0;
  tt__json_expect(json, '{');
  while (tt__json_more(json, '}', &count)) {
    tt__json_string(json, word, 16);
    int field = !strcmp(word, "dtype") ? 1 : !strcmp(word, "group") ? 2 : 0;
    tt__json_expect(json, ':');
    if (field == 1) {
      tt__json_string(json, word, 16);
      for (int i = TT_F32; i <= TT_I2; i++)
        if (!strcmp(word, tt__dtype_names[i])) layer->dtype[k] = i;
    } else if (field == 2) {
      int sign = tt__json_next(json) == '-' ? -1 : 1;
      if (sign < 0) json->at++;
      uint64_t size = tt__json_number(json);
      if (size > (sign < 0 ? 1 : (uint64_t)INT_MAX)) tt__json_fail(json, TT_ERROR_FORMAT);
      else layer->group[k] = sign * (int)size;
    } else {
      tt__json_skip(json);
    }
    if (seen & field) tt__json_fail(json, TT_ERROR_FORMAT);
    seen |= field;
  }
  if (seen != 3 || layer->dtype[k] < 0) tt__json_fail(json, TT_ERROR_FORMAT);
}

// The entry of one layer. A key that comes twice contradicts itself.
static void tt__said_layer(tt__json *json, tt__layer *layer) {
  char word[16];
  ptrdiff_t count = 0, cores = 0;
  uint64_t size[2] = {0, 0};
  int swept = 0;
  tt__json_expect(json, '{');
  while (tt__json_more(json, '}', &count) && !json->status) {
    tt__json_string(json, word, 16);
    tt__json_expect(json, ':');
    int *length = !strcmp(word, "rows")    ? &layer->num_rows
                  : !strcmp(word, "cols")  ? &layer->num_cols
                  : !strcmp(word, "ranks") ? &layer->num_ranks
                  : !strcmp(word, "cores") ? &layer->num_cores
                  : !strcmp(word, "size")  ? &layer->num_size
                                           : NULL;
    if (length && *length >= 0) tt__json_fail(json, TT_ERROR_FORMAT);
    if (length == &layer->num_rows) *length = tt__said_list(json, layer->said.rows, TT_MAX_ORDER);
    else if (length == &layer->num_cols)
      *length = tt__said_list(json, layer->said.cols, TT_MAX_ORDER);
    else if (length == &layer->num_ranks)
      *length = tt__said_list(json, layer->said.ranks, TT_MAX_ORDER + 1);
    else if (length == &layer->num_size) {
      tt__json_expect(json, '[');
      *length = tt__json_numbers(json, ']', size, 2, TT_ERROR_FORMAT);
    } else if (length) {
      tt__json_expect(json, '[');
      while (tt__json_more(json, ']', &cores)) {
        if (cores > TT_MAX_ORDER) tt__json_fail(json, TT_ERROR_FORMAT);
        else tt__said_core(json, layer, (int)cores - 1);
      }
      *length = (int)cores;
    } else if (!strcmp(word, "sweep")) {
      uint64_t sweep = tt__json_number(json);
      if (sweep > 1 || swept++) tt__json_fail(json, TT_ERROR_FORMAT);
      layer->header.sweep = (int)sweep;
    } else {
      tt__json_skip(json);
    }
  }
  for (int i = 0; i < 2; i++) {
    if (size[i] > (uint64_t)PTRDIFF_MAX) tt__json_fail(json, TT_ERROR_FORMAT);
    else layer->size[i] = (ptrdiff_t)size[i];
  }
}

// Looks the layer up in "tt.layers" of the file, or shard, that holds its first core.
static tt_status tt__layer_said(tt__layer *layer) {
  char name[TT__NAME_CAP + 1];
  const char *text = tt__file_value(tt__entry_at(layer->file, layer->core[0])->file, "tt.layers");
  ptrdiff_t count = 0;
  int order = layer->header.shape.order, found = 0;
  if (!text) return TT_OK;
  tt__json json = tt__json_open(text, (ptrdiff_t)strlen(text));
  tt__json_expect(&json, '{');
  while (tt__json_more(&json, '}', &count)) {
    tt__json_name(&json, name);
    tt__json_expect(&json, ':');
    if (strcmp(name, layer->name)) tt__json_skip(&json);
    else if (found++) tt__json_fail(&json, TT_ERROR_FORMAT);
    else tt__said_layer(&json, layer);
  }
  if (tt__json_next(&json) || json.at != json.end) tt__json_fail(&json, TT_ERROR_FORMAT);
  if ((layer->num_rows >= 0 && layer->num_rows != order) ||
      (layer->num_cols >= 0 && layer->num_cols != order) ||
      (layer->num_ranks >= 0 && layer->num_ranks != order + 1) ||
      (layer->num_size >= 0 && layer->num_size != 2) ||
      (layer->num_cores >= 0 && layer->num_cores != order))
    tt__json_fail(&json, TT_ERROR_FORMAT);
  return json.status;
}

// Shape and format of core k from its tensor, in the light of what was said.
static tt_status tt__layer_core(tt__layer *layer, int k) {
  const tt__entry *entry = tt__entry_at(layer->file, layer->core[k]);
  tt_shape *shape = &layer->header.shape;
  const tt_shape *said = &layer->said;
  int dtype = tt__file_types[entry->type].dtype, turned = layer->header.sweep == TT_LEFT_TO_RIGHT,
      left, right;
  ptrdiff_t dims[4];
  if (entry->type == TT__TYPE_U8 &&
      layer->num_cores >= 0) { // codes below 8 bits: the tensor cannot say its shape
    dtype = layer->dtype[k];
    if (dtype < TT_I4 || layer->num_rows < 0 || layer->num_cols < 0 || layer->num_ranks < 0)
      return TT_ERROR_FORMAT;
    shape->rows[k] = said->rows[k];
    shape->cols[k] = said->cols[k];
    left = said->ranks[k];
    right = said->ranks[k + 1];
  } else {
    if (dtype < 0 || entry->order != 4 || (layer->num_cores >= 0 && layer->dtype[k] != dtype))
      return TT_ERROR_FORMAT;
    for (int i = 0; i < 4; i++) {
      if (entry->dims[i] < 1) return TT_ERROR_FORMAT;
      if (entry->dims[i] > INT_MAX) return TT_ERROR_MEMORY;
    }
    left = (int)entry->dims[turned ? 2 : 0];
    right = (int)entry->dims[turned ? 1 : 3];
    shape->rows[k] = (int)entry->dims[turned ? 0 : 1];
    shape->cols[k] = (int)entry->dims[turned ? 3 : 2];
  }
  if ((layer->num_rows >= 0 && shape->rows[k] != said->rows[k]) || left != shape->ranks[k] ||
      (layer->num_cols >= 0 && shape->cols[k] != said->cols[k]) ||
      (layer->num_ranks >= 0 && (left != said->ranks[k] || right != said->ranks[k + 1])))
    return TT_ERROR_FORMAT;
  shape->ranks[k + 1] = right;
  layer->header.cores[k].dtype = (tt_dtype)dtype;
  if (dtype < TT_I4) return TT_OK;
  tt__core_dims(&layer->header, k, dims);
  if (!tt__multiply(&dims[0], dims[1]) || !tt__multiply(&dims[2], dims[3])) return TT_ERROR_FORMAT;
  return entry->order == 2 && entry->dims[0] == dims[0] &&
         entry->dims[1] == tt__row_size((tt_dtype)dtype, dims[2]) ? TT_OK : TT_ERROR_FORMAT;
}

// How core k is scaled: one number, one per row, or one per group, as the tensors say.
static tt_status tt__layer_group(tt__layer *layer, int k) {
  tt_core *core = &layer->header.cores[k];
  int scale = tt__part(layer->file, layer->name, ".scale.", k),
      scales = tt__part(layer->file, layer->name, ".scales.", k);
  const tt__entry *entry = scale < 0 ? NULL : tt__entry_at(layer->file, scale);
  int group = 0, said = layer->num_cores >= 0 ? layer->group[k] : 0;
  ptrdiff_t dims[4];
  if (entry && (entry->type != TT_F32 || entry->size != 4)) return TT_ERROR_FORMAT;
  if (scales >= 0) {
    entry = tt__entry_at(layer->file, scales);
    tt__core_dims(&layer->header, k, dims); // products were checked with the core's bytes
    if (!tt__is_integer(core->dtype) || entry->order < 1 || entry->dims[0] != dims[0] * dims[1])
      return TT_ERROR_FORMAT;
    if (entry->type == TT_F32 && entry->order == 1) group = TT_GROUP_ROW;
    else if (entry->type == TT_F16 && entry->order == 2) group = said > 0 ? said : 32;
    if (group == 0 || (group > 0 && entry->dims[1] != tt__row_scales(group, dims[2] * dims[3])))
      return TT_ERROR_FORMAT;
  }
  core->group = group;
  return layer->num_cores >= 0 && said != group ? TT_ERROR_FORMAT : TT_OK;
}

// True size, bias and, if asked, useful ranks.
static tt_status tt__layer_check(tt__layer *layer, int strict) {
  tt_matrix *header = &layer->header;
  tt_shape useful = header->shape;
  ptrdiff_t *size[2] = {&header->rows, &header->cols};
  for (int i = 0; i < 2; i++) {
    ptrdiff_t full = 1;
    for (int k = 0; k < useful.order; k++)
      if (!tt__multiply(&full, i ? useful.cols[k] : useful.rows[k])) return TT_ERROR_MEMORY;
    *size[i] = layer->num_size == 2 ? layer->size[i] : full;
    if (*size[i] < 1 || *size[i] > full) return TT_ERROR_FORMAT;
  }
  if (useful.ranks[useful.order] != 1) return TT_ERROR_FORMAT;
  if (layer->bias >= 0) {
    const tt__entry *entry = tt__entry_at(layer->file, layer->bias);
    if (entry->type > TT__TYPE_U8) return TT_ERROR_UNSUPPORTED;
    if (tt__entry_count(entry) != header->rows) return TT_ERROR_FORMAT;
  }
  for (int k = 1; k < useful.order; k++) useful.ranks[k] = 0;
  tt_status status = strict ? tt_shape_clip(&useful, 0) : TT_OK;
  for (int k = 1; k < useful.order && strict && !status; k++)
    if (header->shape.ranks[k] > useful.ranks[k]) status = TT_ERROR_SHAPE;
  return status;
}

// Is every number that the core stands for finite, its scales included?
static int tt__core_finite(const tt_matrix *w, int k) {
  const tt_core *core = &w->cores[k];
  ptrdiff_t dims[4], end;
  tt__core_dims(w, k, dims);
  ptrdiff_t rows = dims[0] * dims[1], length = dims[2] * dims[3],
            row_size = tt__row_size(core->dtype, length);
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t j = 0; j < length; j = end) {
      const unsigned char *row = (const unsigned char *)core->data + i * row_size;
      float scale = tt__scale_at(core, i, length, j, &end);
      for (ptrdiff_t t = j; t < end; t++) {
        double value = 0;
        if (core->dtype == TT_F64) memcpy(&value, row + 8 * t, sizeof value);
        else value = (double)(scale * tt__decode_one(core->dtype, row, t));
        if (!tt__is_finite((double)scale) ||
            !tt__is_finite(value * (core->dtype == TT_F64 ? (double)scale : 1)))
          return 0;
      }
    }
  return 1;
}

// Reads one tensor as it is stored, in the host's order.
static tt_status tt__layer_fetch(const tt_file *file, int index, const void *out, int width) {
  const tt__entry *entry = tt__entry_at(file, index);
  void *to = (void *)out; // a core's data are const for everyone but their maker
  tt_status status = tt__entry_fetch(entry, 0, to, entry->size);
  if (!status) tt__little(to, entry->size / width, width);
  return status;
}

// Fills the cores, scales and bias of *out.
static tt_status tt__layer_read(const tt__layer *layer, tt_matrix *out) {
  const tt_file *file = layer->file;
  tt_status status = TT_OK;
  for (int k = 0; k < out->shape.order && !status; k++) {
    tt_core *core = &out->cores[k];
    const tt__entry *entry = tt__entry_at(file, layer->core[k]);
    int bits = tt__file_types[entry->type].bits;
    int scale = tt__part(file, layer->name, ".scale.", k),
        scales = tt__part(file, layer->name, ".scales.", k);
    if (tt__file_types[entry->type].dtype >= 0 || core->dtype >= TT_I4)
      status = tt__layer_fetch(file, layer->core[k], core->data, bits / 8);
    else
      status = tt_file_read_f32(file, layer->core[k], (float *)core->data, tt__entry_count(entry));
    core->scale = 1;
    if (!status && layer->named && scale >= 0)
      status = tt__layer_fetch(file, scale, &core->scale, 4);
    if (!status && core->group)
      status = tt__layer_fetch(file, scales, core->scales, core->group > 0 ? 2 : 4);
    if (!status && core->scale == 0) {                       // which a core reads as "unscaled"
      memset((void *)core->data, 0, (size_t)entry->size);
      core->scale = 1;
    }
    if (!status && !tt__core_finite(out, k)) status = TT_ERROR_NONFINITE;
  }
  float *bias = (float *)out->bias;
  if (!status && bias) status = tt_file_read_f32(file, layer->bias, bias, out->rows);
  for (ptrdiff_t i = 0; i < out->rows && bias && !status; i++)
    if (!tt__is_finite((double)bias[i])) status = TT_ERROR_NONFINITE;
  return status;
}

// A plain 2-D tensor as a train of order 1.
static tt_status tt__layer_dense(tt__layer *layer) {
  const tt__entry *entry = tt__entry_at(layer->file, layer->core[0]);
  tt_shape *shape = &layer->header.shape;
  if (entry->type > TT__TYPE_U8) return TT_ERROR_UNSUPPORTED;
  if (entry->order != 2 || entry->dims[0] < 1 || entry->dims[1] < 1) return TT_ERROR_SHAPE;
  if (entry->dims[0] > INT_MAX || entry->dims[1] > INT_MAX) return TT_ERROR_MEMORY;
  shape->order = shape->ranks[1] = 1;
  shape->rows[0] = (int)entry->dims[0];
  shape->cols[0] = (int)entry->dims[1];
  layer->header.cores[0].dtype =
      entry->type == TT__TYPE_U8 ? TT_F32 : (tt_dtype)tt__file_types[entry->type].dtype;
  return TT_OK;
}

// Finds and checks everything that is stored under a name, without reading data.
static tt_status tt__layer_find(tt__layer *layer, int strict) {
  tt_status status = TT_OK;
  int order = 0, index = -1;
  while (order < TT_MAX_ORDER &&
         (index = tt__part(layer->file, layer->name, ".cores.", order)) >= 0)
    layer->core[order++] = index;
  if (order == TT_MAX_ORDER && tt__part(layer->file, layer->name, ".cores.", order) >= 0)
    return TT_ERROR_UNSUPPORTED;
  layer->header.shape.order = order;
  layer->header.shape.ranks[0] = 1;
  layer->named = order > 0;
  layer->bias = tt__part(layer->file, layer->name, ".bias", -1);
  if (order > 0) {
    status = tt__layer_said(layer);
    for (int k = 0; k < order && !status; k++) status = tt__layer_core(layer, k);
    for (int k = 0; k < order && !status; k++) status = tt__layer_group(layer, k);
  } else {
    layer->core[0] = tt__part(layer->file, layer->name, ".weight", -1);
    if (layer->core[0] < 0) {
      layer->bias = -1;
      if (tt_file_find(layer->file, layer->name, &layer->core[0])) return TT_ERROR_INVALID;
    }
    status = tt__layer_dense(layer);
  }
  return status ? status : tt__layer_check(layer, strict);
}

TTDEF tt_status tt_file_matrix(const tt_file *file, const char *name, const tt_options *options,
                               tt_matrix *out) {
  tt__layer layer;
  if (out) memset(out, 0, sizeof *out);
  if (!file || !name || !out || !tt__options_valid(options)) return TT_ERROR_INVALID;
  tt_options o = tt__options(options);
  memset(&layer, 0, sizeof layer);
  layer.file = file;
  layer.name = name;
  layer.num_rows = layer.num_cols = layer.num_ranks = layer.num_cores = layer.num_size = -1;
  for (int k = 0; k < TT_MAX_ORDER; k++) layer.dtype[k] = -1;
  tt_status status = tt__layer_find(&layer, o.strict);
  if (!status) status = tt__train_allocate(&layer.header, layer.bias >= 0, &o.allocator, out);
  if (!status) status = tt__layer_read(&layer, out);
  if (status) tt_free(out);
  return status;
}

// ---- statistics of inputs

// All numbers of a tensor of this shape, as double; INVALID if there is none of this name.
static tt_status tt__moment(const tt_file *file, const char *name, const char *part, int order,
                            ptrdiff_t n, double *out) {
  int index = tt__part(file, name, part, -1);
  if (index < 0) return TT_ERROR_INVALID;
  const tt__entry *entry = tt__entry_at(file, index);
  ptrdiff_t count = order == 2 ? n * n : n;
  for (int i = 0; i < entry->order; i++)
    if (entry->order != order || entry->dims[i] != n) return TT_ERROR_FORMAT;
  if (tt__entry_count(entry) != count) return TT_ERROR_FORMAT;
  tt_status status = tt__file_numbers(file, index, 1, out, count);
  for (ptrdiff_t i = 0; i < count && !status; i++)
    if (!tt__is_finite(out[i])) status = TT_ERROR_NONFINITE;
  return status;
}

// Stands for samples that nobody named: the SHA-256 of the moments themselves.
static void tt__moments_digest(const tt_inputs *inputs, unsigned char digest[32]) {
  tt_sha256 hash;
  ptrdiff_t n = inputs->cols, size = inputs->diagonal ? n : n * n;
  tt_sha256_begin(&hash);
  for (ptrdiff_t i = 0; i < 1 + n + size; i++) {
    double value = i == 0  ? (double)inputs->count
                   : i <= n ? inputs->mean[i - 1]
                            : inputs->scatter[i - 1 - n];
    tt__little(&value, 1, 8);
    tt_sha256_add(&hash, &value, 8);
  }
  tt_sha256_end(&hash, digest);
}

// Moments of a file into an empty record: divided by the count there, sums here.
static tt_status tt__inputs_read(const tt_file *file, const char *name, tt_inputs *inputs) {
  ptrdiff_t n = inputs->cols;
  double count = 0, *s = inputs->scatter;
  tt_status status = tt__moment(file, name, ".inputs.count", 1, 1, &count);
  if (!status) status = tt__moment(file, name, ".inputs.mean", 1, n, inputs->mean);
  if (!status && inputs->diagonal) status = tt__moment(file, name, ".inputs.variance", 1, n, s);
  else if (!status) status = tt__moment(file, name, ".inputs.covariance", 2, n, s);
  if (status) return status;
  if (count < 1 || count > 9007199254740992.0 || count != floor(count)) return TT_ERROR_FORMAT;
  inputs->count = (ptrdiff_t)count;
  for (ptrdiff_t i = 0; i < n; i++) {
    if (s[inputs->diagonal ? i : i * n + i] < 0) return TT_ERROR_FORMAT;
    for (ptrdiff_t j = 0; j < i && !inputs->diagonal; j++) {
      double both = s[i * n + j] = s[j * n + i] = (s[i * n + j] + s[j * n + i]) / 2;
      // Cauchy and Schwarz; the roots keep products in range
      if (fabs(both) > (1 + 1e-6) * sqrt(s[i * n + i]) * sqrt(s[j * n + j])) return TT_ERROR_FORMAT;
    }
  }
  tt__scale_row(inputs->diagonal ? n : n * n, count, s);
  for (ptrdiff_t i = 0; i < (inputs->diagonal ? n : n * n); i++)
    if (!tt__is_finite(s[i])) return TT_ERROR_FORMAT;
  int index = tt__part(file, name, ".inputs.sha256", -1);
  inputs->is_known = 1;
  if (index < 0) tt__moments_digest(inputs, inputs->known);
  else if (tt__entry_at(file, index)->size != 32) return TT_ERROR_FORMAT;
  return index < 0 ? TT_OK : tt_file_read(file, index, 0, inputs->known, 32);
}

// Samples of a file into an empty record.
static tt_status tt__inputs_sample(const tt_file *file, int index, tt_inputs *inputs) {
  const tt__entry *entry = tt__entry_at(file, index);
  tt__pool pool = tt__pool_open(&inputs->allocator);
  ptrdiff_t count = tt__entry_count(entry);
  float *x = (float *)tt__take(&pool, count, (ptrdiff_t)sizeof(float));
  tt_status status = pool.status ? pool.status : tt_file_read_f32(file, index, x, count);
  if (!status) status = tt_inputs_add(inputs, x, entry->dims[0]);
  tt__pool_close(&pool);
  return status;
}

TTDEF tt_status tt_file_inputs(const tt_file *file, const char *name, const tt_options *given,
                               tt_inputs **out) {
  if (out) *out = NULL;
  if (!file || !name || !out || !tt__options_valid(given)) return TT_ERROR_INVALID;
  tt_options options = tt__options(given);
  int samples = tt__part(file, name, ".inputs", -1),
      mean = tt__part(file, name, ".inputs.mean", -1);
  if (samples < 0 && mean < 0) return TT_ERROR_INVALID;
  const tt__entry *entry = tt__entry_at(file, samples >= 0 ? samples : mean);
  if (entry->order != (samples >= 0 ? 2 : 1) || entry->dims[entry->order - 1] < 1)
    return TT_ERROR_FORMAT;
  ptrdiff_t n = entry->dims[entry->order - 1];
  int covariance = tt__part(file, name, ".inputs.covariance", -1);
  if (samples < 0) options.diagonal_inputs = covariance < 0;
  if (samples < 0 && covariance >= 0) {                      // before memory of size n^2 is taken
    const tt__entry *square = tt__entry_at(file, covariance);
    if (square->order != 2 || square->dims[0] != n || square->dims[1] != n) return TT_ERROR_FORMAT;
  }
  tt_status status = tt_inputs_create(n, &options, out);
  if (!status)
    status =
        samples >= 0 ? tt__inputs_sample(file, samples, *out) : tt__inputs_read(file, name, *out);
  if (status) {
    tt_inputs_free(*out);
    *out = NULL;
  }
  return status;
}

// ---------------------------------------------------------------------------------------- >>writer
// Tensors and trains are copied when added, to memory or behind each other into a spill file, found
// by a search tree over the bits of their names, sorted when saved. The header is emitted twice by
// the same code: once to count, once to write.

typedef struct tt__item {      // a tensor, a pair of the metadata or a layer's entry of "tt.layers"
  struct tt__item *older;
  struct tt__item *child[4], **slot;
  const char *name;
  char *data;                  // bytes of a tensor, NULL = in the spill file; else text
  ptrdiff_t size, position;    // bytes; where they begin in the spill file
  int type, order;
  ptrdiff_t dims[TT__MAX_DIMS];
} tt__item;

typedef struct tt__list {      // newest first, and as a search tree
  tt__item *newest, *root;
  int count;
} tt__list;

struct tt_writer {
  tt__pool pool;
  tt__list tensors, pairs, layers;
#ifndef TT_NO_STDIO
  FILE *spill;                 // unbuffered, or NULL
#endif
  char *spill_name;            // or NULL
};

typedef struct tt__mark {      // what a writer held at some moment
  void *blocks;
  int tensors, layers;
} tt__mark;

// Where `name` is, or belongs. Level d of the tree branches on bits 2d and 2d+1 of the name, so
// that no order of insertion makes it deeper than the name is long.
static tt__item **tt__list_slot(tt__list *list, const char *name) {
  tt__item **slot = &list->root;
  const unsigned char *at = (const unsigned char *)name;
  for (int shift = 0; *slot && strcmp((*slot)->name, name); shift = (shift + 2) & 7) {
    slot = &(*slot)->child[*at >> shift & 3];
    if (shift == 6 && *at) at++;
  }
  return slot;
}

// Adds an item with room for `size` bytes and a terminator; the name must be new. NULL = no memory.
static tt__item *tt__list_add(tt__list *list, tt__pool *pool, const char *name, ptrdiff_t size) {
  ptrdiff_t length = (ptrdiff_t)strlen(name) + 1, total = (ptrdiff_t)sizeof(tt__item);
  int good = tt__increase(&total, length) && tt__increase(&total, size) && tt__increase(&total, 1);
  tt__item *item = good ? (tt__item *)tt__take(pool, total, 1) : NULL;
  pool->status = TT_OK;                                      // the next call may be luckier
  if (!item) return NULL;
  char *text = (char *)(item + 1);
  item->name = (const char *)memcpy(text, name, (size_t)length);
  item->data = text + length;
  item->size = size;
  item->older = list->newest;
  item->slot = tt__list_slot(list, name);
  *item->slot = list->newest = item;
  list->count++;
  return item;
}

// Takes items away until `count` are left. The newest is always a leaf of the tree.
static void tt__list_cut(tt__list *list, int count) {
  for (; list->count > count; list->count--) {
    *list->newest->slot = NULL;
    list->newest = list->newest->older;
  }
}

static tt__mark tt__writer_mark(const tt_writer *writer) {
  tt__mark mark;
  mark.blocks = writer->pool.blocks;
  mark.tensors = writer->tensors.count;
  mark.layers = writer->layers.count;
  return mark;
}

// Takes away what was added since the mark if that failed. Returns the status.
static tt_status tt__writer_keep(tt_writer *writer, const tt__mark *mark, tt_status status) {
  if (status) {
    tt__list_cut(&writer->tensors, mark->tensors);
    tt__list_cut(&writer->layers, mark->layers);
    tt__pool_rewind(&writer->pool, mark->blocks);
  }
  return status;
}

// Can this name be read back?
static int tt__name_usable(const char *name) {
  size_t length = strlen(name);
  return length <= TT__NAME_CAP && !tt__has_control(name) &&
         tt__utf8_valid(name, (ptrdiff_t)length) && strcmp(name, "__metadata__") != 0;
}

// Checks a new tensor and makes room for its data: in memory, or behind those that were spilled.
static tt_status tt__writer_tensor(tt_writer *writer, const char *name, int type, int order,
                                   const ptrdiff_t *dims, ptrdiff_t size, tt__item **out) {
  uint64_t wide[TT__MAX_DIMS], needed;
  if (!tt__name_usable(name) || *tt__list_slot(&writer->tensors, name)) return TT_ERROR_INVALID;
  if (type < 0 || order < 0 || order > TT__MAX_DIMS || (order && !dims)) return TT_ERROR_INVALID;
  if (writer->tensors.count >= TT__TENSOR_CAP) return TT_ERROR_UNSUPPORTED;
  for (int i = 0; i < order; i++) {
    if (dims[i] < 0) return TT_ERROR_INVALID;
    wide[i] = (uint64_t)dims[i];
  }
  if (tt__tensor_size(type, order, wide, &needed) || needed != (uint64_t)size)
    return TT_ERROR_INVALID;
  const tt__item *last = writer->tensors.newest;
  ptrdiff_t position = last && !last->data ? last->position + last->size : 0, end = position;
  int spilled = writer->spill_name != NULL;
  if (!tt__increase(&end, size)) return TT_ERROR_MEMORY;
  tt__item *item = tt__list_add(&writer->tensors, &writer->pool, name, spilled ? 0 : size);
  if (!item) return TT_ERROR_MEMORY;
  if (spilled) item->data = NULL;
  item->size = size;
  item->position = position;
  item->type = type;
  item->order = order;
  for (int i = 0; i < order; i++) item->dims[i] = dims[i];
  *out = item;
  return TT_OK;
}

// Bytes at .. at+size-1 of a tensor, put in or taken out again.
static tt_status tt__item_write(tt_writer *writer, tt__item *item, ptrdiff_t at, const void *bytes,
                                ptrdiff_t size) {
  if (size == 0) return TT_OK;
#ifndef TT_NO_STDIO
  if (!item->data)
    return TT__SEEK(writer->spill, item->position + at, SEEK_SET) == 0 &&
           fwrite(bytes, 1, (size_t)size, writer->spill) == (size_t)size ? TT_OK : TT_ERROR_IO;
#endif
  (void)writer;
  memcpy(item->data + at, bytes, (size_t)size);
  return TT_OK;
}

static tt_status tt__item_read(const tt_writer *writer, const tt__item *item, ptrdiff_t at,
                               void *bytes, ptrdiff_t size) {
  if (size == 0) return TT_OK;
#ifndef TT_NO_STDIO
  if (!item->data)
    return TT__SEEK(writer->spill, item->position + at, SEEK_SET) == 0 &&
           fread(bytes, 1, (size_t)size, writer->spill) == (size_t)size ? TT_OK : TT_ERROR_IO;
#endif
  (void)writer;
  memcpy(bytes, item->data + at, (size_t)size);
  return TT_OK;
}

TTDEF tt_status tt_writer_create(const tt_options *options, tt_writer **out) {
  if (out) *out = NULL;
  if (!out || !tt__options_valid(options)) return TT_ERROR_INVALID;
  tt_allocator allocator = tt__options(options).allocator;
  tt_writer *writer = (tt_writer *)tt__allocate(&allocator, (ptrdiff_t)sizeof *writer);
  if (!writer) return TT_ERROR_MEMORY;
  memset(writer, 0, sizeof *writer);
  writer->pool = tt__pool_open(&allocator);
  *out = writer;
  return TT_OK;
}

TTDEF void tt_writer_free(tt_writer *writer) {
  if (!writer) return;
  tt_allocator allocator = writer->pool.allocator;
#ifndef TT_NO_STDIO
  if (writer->spill) {
    fclose(writer->spill);
    remove(writer->spill_name);
  }
#endif
  tt__pool_close(&writer->pool);
  tt__release(&allocator, writer);
}

TTDEF tt_status tt_writer_add(tt_writer *writer, const char *name, const char *dtype, int order,
                              const ptrdiff_t *dims, const void *data, size_t size) {
  tt__item *item;
  if (!writer || !name || !dtype || (!data && size) || size > (size_t)PTRDIFF_MAX)
    return TT_ERROR_INVALID;
  tt__mark mark = tt__writer_mark(writer);
  tt_status status = tt__writer_tensor(writer, name, tt__file_type_find(dtype), order, dims,
                                       (ptrdiff_t)size, &item);
  if (!status) status = tt__item_write(writer, item, 0, data, (ptrdiff_t)size);
  return tt__writer_keep(writer, &mark, status);
}

TTDEF tt_status tt_writer_copy(tt_writer *writer, const tt_file *file, int index) {
  unsigned char chunk[TT__CHUNK];
  tt__item *item;
  if (!writer || !file || index < 0 || index >= file->num_entries) return TT_ERROR_INVALID;
  const tt__entry *entry = tt__entry_at(file, index);
  tt__mark mark = tt__writer_mark(writer);
  tt_status status = tt__writer_tensor(writer, entry->name, entry->type, entry->order, entry->dims,
                                       entry->size, &item);
  for (ptrdiff_t at = 0; at < entry->size && !status; at += TT__CHUNK) {
    ptrdiff_t some = tt__min(TT__CHUNK, entry->size - at);
    status = tt__entry_fetch(entry, at, chunk, some);
    if (!status) status = tt__item_write(writer, item, at, chunk, some);
  }
  return tt__writer_keep(writer, &mark, status);
}

TTDEF tt_status tt_writer_metadata(tt_writer *writer, const char *key, const char *value) {
  static const char reserved[4][16] = {"format", "tt.version", "tt.generator", "tt.layers"};
  if (!writer || !key || !value || !tt__name_usable(key)) return TT_ERROR_INVALID;
  ptrdiff_t length = (ptrdiff_t)strlen(value);
  if (!tt__utf8_valid(value, length)) return TT_ERROR_INVALID;
  for (int i = 0; i < 4; i++) if (!strcmp(key, reserved[i])) return TT_ERROR_INVALID;
  tt__item *item = *tt__list_slot(&writer->pairs, key);
  if (!item) {
    if (writer->pairs.count >= TT__TENSOR_CAP - 4) return TT_ERROR_UNSUPPORTED;
    item = tt__list_add(&writer->pairs, &writer->pool, key, length);
    if (!item) return TT_ERROR_MEMORY;
  }
  if (length > item->size) { // the old text stays in the pool until the end
    char *room = (char *)tt__take(&writer->pool, length + 1, 1);
    writer->pool.status = TT_OK;
    if (!room) return TT_ERROR_MEMORY;
    item->data = room;
    item->size = length;
  }
  memcpy(item->data, value, (size_t)length + 1);
  return TT_OK;
}

typedef struct tt__sink {      // text that is counted, and written as far as there is room
  char *out;
  ptrdiff_t room, size;
} tt__sink;

static void tt__sink_bytes(tt__sink *sink, const char *bytes, ptrdiff_t count) {
  if (count <= sink->room - sink->size) memcpy(sink->out + sink->size, bytes, (size_t)count);
  if (!tt__increase(&sink->size, count)) sink->room = 0;     // such a text exists nowhere in memory
}

static void tt__sink_text(tt__sink *sink, const char *text) {
  tt__sink_bytes(sink, text, (ptrdiff_t)strlen(text));
}

static void tt__sink_number(tt__sink *sink, int64_t value) {
  char text[24];
  if (value < 0) tt__sink_text(sink, "-");
  tt__sink_bytes(sink, text, tt__decimal(text, value < 0 ? -value : value));
}

// The inside of a JSON string.
static void tt__sink_escaped(tt__sink *sink, const char *text) {
  static const char hex[] = "0123456789abcdef";
  for (; *text; text++) {
    unsigned char c = (unsigned char)*text;
    char code[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    if (c < 32) tt__sink_bytes(sink, code, 6);
    if (c == '"' || c == '\\') tt__sink_bytes(sink, "\\", 1);
    if (c >= 32) tt__sink_bytes(sink, text, 1);
  }
}

// Nine significant digits, whatever the locale: d.dddddddde-5.
static void tt__sink_real(tt__sink *sink, double value) {
  char text[24];
  int exponent = 0;
  if (!tt__is_finite(value)) {
    tt__sink_text(sink, "null");
    return;
  }
  if (value < 0) tt__sink_text(sink, "-");
  for (value = fabs(value); value >= 10; value /= 10) exponent++;
  for (; value > 0 && value < 1; value *= 10) exponent--;
  int64_t digits = (int64_t)(value * 1e8 + 0.5);
  if (digits >= 1000000000L) {
    digits /= 10;
    exponent++;
  }
  int count = tt__decimal(text, digits);
  tt__sink_bytes(sink, text, 1);
  if (count == 1) return;                                    // zero
  tt__sink_text(sink, ".");
  tt__sink_bytes(sink, text + 1, count - 1);
  tt__sink_text(sink, "e");
  tt__sink_number(sink, exponent);
}

static void tt__sink_list(tt__sink *sink, const char *name, int count, const int *values) {
  tt__sink_text(sink, name);
  for (int i = 0; i < count; i++) {
    if (i) tt__sink_text(sink, ",");
    tt__sink_number(sink, values[i]);
  }
  tt__sink_text(sink, "]");
}

// The entry of a train in "tt.layers".
static void tt__sink_layer(tt__sink *sink, const char *name, const tt_matrix *w,
                           const tt_report *report) {
  const tt_shape *shape = &w->shape;
  ptrdiff_t rows = 1, cols = 1;
  for (int k = 0; k < shape->order; k++) {
    rows *= shape->rows[k];
    cols *= shape->cols[k];
  }
  tt__sink_text(sink, "\"");
  tt__sink_escaped(sink, name);
  tt__sink_text(sink, "\":{");
  if (rows != w->rows || cols != w->cols) {
    tt__sink_text(sink, "\"size\":[");
    tt__sink_number(sink, w->rows);
    tt__sink_text(sink, ",");
    tt__sink_number(sink, w->cols);
    tt__sink_text(sink, "],");
  }
  tt__sink_list(sink, "\"rows\":[", shape->order, shape->rows);
  tt__sink_list(sink, ",\"cols\":[", shape->order, shape->cols);
  tt__sink_list(sink, ",\"ranks\":[", shape->order + 1, shape->ranks);
  tt__sink_text(sink, ",\"sweep\":");
  tt__sink_number(sink, w->sweep);
  for (int k = 0; k < shape->order; k++) {
    tt__sink_text(sink, k ? ",{\"dtype\":\"" : ",\"cores\":[{\"dtype\":\"");
    tt__sink_text(sink, tt__dtype_names[w->cores[k].dtype]);
    tt__sink_text(sink, "\",\"group\":");
    tt__sink_number(sink, w->cores[k].group);
    tt__sink_text(sink, "}");
  }
  tt__sink_text(sink, "]");
  if (report) {
    tt__sink_text(sink, ",\"rel_error\":");
    tt__sink_real(sink, report->relative_error);
    tt__sink_text(sink, ",\"bond_entropy\":[");
    for (int k = 0; k + 1 < shape->order; k++) {
      if (k) tt__sink_text(sink, ",");
      tt__sink_real(sink, report->entropy[k]);
    }
    tt__sink_text(sink, "],\"dense_params\":");
    tt__sink_number(sink, report->dense_params);
  }
  tt__sink_text(sink, "}");
}

// One array of a train as a tensor; `width` is that of its numbers. The caller takes back what
// fails.
static tt_status tt__writer_part(tt_writer *writer, const char *layer, const char *part, int k,
                                 int type, int order, const ptrdiff_t *dims, const void *data,
                                 ptrdiff_t size, int width) {
  char name[TT__NAME_CAP + 1];
  unsigned char chunk[TT__CHUNK];
  tt__item *item;
  tt__part_name(name, layer, part, k);
  tt_status status =
      *name ? tt__writer_tensor(writer, name, type, order, dims, size, &item) : TT_ERROR_INVALID;
  for (ptrdiff_t at = 0; at < size && !status; at += TT__CHUNK) {
    ptrdiff_t some = tt__min(TT__CHUNK, size - at);
    memcpy(chunk, (const char *)data + at, (size_t)some);
    tt__little(chunk, some / width, width);
    status = tt__item_write(writer, item, at, chunk, some);
  }
  return status;
}

static tt_status tt__writer_core(tt_writer *writer, const char *name, const tt_matrix *w, int k) {
  const tt_core *core = &w->cores[k];
  ptrdiff_t dims[4], view[2];
  tt__core_dims(w, k, dims);
  ptrdiff_t rows = dims[0] * dims[1], length = dims[2] * dims[3],
            row_size = tt__row_size(core->dtype, length);
  int packed = core->dtype >= TT_I4, bits = tt__dtype_bits(core->dtype);
  view[0] = rows;
  view[1] = row_size;
  tt_status status = tt__core_finite(w, k) ? TT_OK : TT_ERROR_NONFINITE;
  if (!status)
    status = tt__writer_part(writer, name, ".cores.", k, packed ? TT__TYPE_U8 : (int)core->dtype,
                             packed ? 2 : 4, packed ? view : dims, core->data, rows * row_size,
                             packed ? 1 : bits / 8);
  view[1] = 1;
  if (!status && core->scale != 0 && core->scale != 1)
    status = tt__writer_part(writer, name, ".scale.", k, TT_F32, 1, view + 1, &core->scale, 4, 4);
  view[1] = tt__row_scales(core->group, length);
  if (!status && core->group)
    status = tt__writer_part(writer, name, ".scales.", k, core->group > 0 ? TT_F16 : TT_F32,
                             core->group > 0 ? 2 : 1, view, core->scales,
                             rows * view[1] * (core->group > 0 ? 2 : 4), core->group > 0 ? 2 : 4);
  return status;
}

// One tensor of moments: n^order numbers, or a single one where n is 1.
static tt_status tt__writer_moment(tt_writer *writer, const char *name, const char *part, int order,
                                   ptrdiff_t n, const double *values) {
  ptrdiff_t dims[2] = {n, n}, size = 8 * (order == 2 ? n * n : n);
  return tt__writer_part(writer, name, part, -1, TT_F64, order, dims, values, size, 8);
}

TTDEF tt_status tt_writer_add_inputs(tt_writer *writer, const char *name, const tt_inputs *inputs) {
  if (!writer || !name || !inputs || inputs->count < 1 || !tt__name_usable(name))
    return TT_ERROR_INVALID;
  tt__mark mark = tt__writer_mark(writer);
  int wide = !inputs->diagonal;
  unsigned char digest[32];
  ptrdiff_t n = inputs->cols, size = wide ? n * n : n, length = 32;
  double count = (double)inputs->count;
  tt__pool pool = tt__pool_open(&writer->pool.allocator);
  double *moments = tt__take_f64(&pool, size, 1);
  tt_status status = pool.status ? pool.status : tt_inputs_digest(inputs, digest);
  for (ptrdiff_t i = 0; i < size && !status; i++) moments[i] = inputs->scatter[i] / count;
  if (!status) status = tt__writer_moment(writer, name, ".inputs.count", 1, 1, &count);
  if (!status) status = tt__writer_moment(writer, name, ".inputs.mean", 1, n, inputs->mean);
  if (!status)
    status = tt__writer_moment(writer, name, wide ? ".inputs.covariance" : ".inputs.variance",
                               1 + wide, n, moments);
  if (!status)
    status = tt__writer_part(writer, name, ".inputs.sha256", -1, TT__TYPE_U8, 1, &length, digest,
                             length, 1);
  tt__pool_close(&pool);
  return tt__writer_keep(writer, &mark, status);
}

TTDEF tt_status tt_writer_add_matrix(tt_writer *writer, const char *name, const tt_matrix *w,
                                     const tt_report *report) {
  if (!writer || !name || !tt__valid(w) || !tt__name_usable(name)) return TT_ERROR_INVALID;
  tt__mark mark = tt__writer_mark(writer);
  tt__sink sink = {NULL, 0, 0};
  tt_status status = *tt__list_slot(&writer->layers, name) ? TT_ERROR_INVALID : TT_OK;
  for (int k = 0; k < w->shape.order && !status; k++) status = tt__writer_core(writer, name, w, k);
  if (!status && w->bias)
    status =
        tt__writer_part(writer, name, ".bias", -1, TT_F32, 1, &w->rows, w->bias, w->rows * 4, 4);
  for (ptrdiff_t i = 0; i < w->rows && w->bias && !status; i++)
    if (!tt__is_finite((double)w->bias[i])) status = TT_ERROR_NONFINITE;
  if (!status) {
    tt__sink_layer(&sink, name, w, report);
    tt__item *item = tt__list_add(&writer->layers, &writer->pool, name, sink.size);
    if (!item) status = TT_ERROR_MEMORY;
    sink.out = item ? item->data : NULL;
    sink.room = item ? sink.size : 0;
    sink.size = 0;
    tt__sink_layer(&sink, name, w, report);
  }
  return tt__writer_keep(writer, &mark, status);
}

typedef struct tt__plan {      // a file about to be written; lists in their order in the file
  tt__item **tensors, **pairs, **layers;
  int *order;                  // of the tensors' data
  int num_tensors, num_pairs, num_layers;
  char *header;                // with its length in front
  ptrdiff_t header_size, data_size;
} tt__plan;

// The order of the reference writer: wide types first, then names.
static int tt__item_before(const void *context, int a, int b) {
  tt__item *const *items = ((const tt__plan *)context)->tensors;
  int x = tt__file_types[items[a]->type].bits, y = tt__file_types[items[b]->type].bits;
  return x != y ? x > y : strcmp(items[a]->name, items[b]->name) < 0;
}

static tt__item **tt__list_array(const tt__list *list, tt__pool *pool) {
  tt__item **array = (tt__item **)tt__take(pool, list->count, (ptrdiff_t)sizeof(tt__item *));
  int i = array ? list->count : 0;
  for (tt__item *item = list->newest; i > 0; item = item->older) array[--i] = item;
  return array;
}

static void tt__sink_pair(tt__sink *sink, const char *key, const char *value) {
  tt__sink_text(sink, "\"");
  tt__sink_escaped(sink, key);
  tt__sink_text(sink, "\":\"");
  tt__sink_escaped(sink, value);
  tt__sink_text(sink, "\"");
}

static void tt__sink_metadata(tt__sink *sink, const tt__plan *plan) {
  tt__sink_text(sink,
                "{\"__metadata__\":{\"format\":\"pt\",\"tt.generator\":\"tt.h " TT_VERSION "\"");
  if (plan->num_layers) tt__sink_text(sink, ",\"tt.version\":\"1\",\"tt.layers\":\"{");
  for (int i = 0; i < plan->num_layers; i++) {
    if (i) tt__sink_text(sink, ",");
    tt__sink_escaped(sink, plan->layers[i]->data);
  }
  if (plan->num_layers) tt__sink_text(sink, "}\"");
  for (int i = 0; i < plan->num_pairs; i++) {
    tt__sink_text(sink, ",");
    tt__sink_pair(sink, plan->pairs[i]->name, plan->pairs[i]->data);
  }
  tt__sink_text(sink, "}");
}

// Text of the header. Returns the bytes of all data, or -1 if they do not fit.
static ptrdiff_t tt__sink_header(tt__sink *sink, const tt__plan *plan) {
  ptrdiff_t offset = 0;
  tt__sink_metadata(sink, plan);
  for (int i = 0; i < plan->num_tensors; i++) {
    const tt__item *item = plan->tensors[plan->order[i]];
    tt__sink_text(sink, ",\"");
    tt__sink_escaped(sink, item->name);
    tt__sink_text(sink, "\":{\"dtype\":\"");
    tt__sink_text(sink, tt__file_types[item->type].name);
    tt__sink_text(sink, "\",\"shape\":[");
    for (int k = 0; k < item->order; k++) {
      if (k) tt__sink_text(sink, ",");
      tt__sink_number(sink, item->dims[k]);
    }
    tt__sink_text(sink, "],\"data_offsets\":[");
    tt__sink_number(sink, offset);
    if (!tt__increase(&offset, item->size)) return -1;
    tt__sink_text(sink, ",");
    tt__sink_number(sink, offset);
    tt__sink_text(sink, "]}");
  }
  tt__sink_text(sink, "}");
  return offset;
}

// Sorts, counts and writes the header, padded so that the data start at a multiple of 64.
static tt_status tt__plan_make(const tt_writer *writer, tt__pool *pool, tt__plan *plan) {
  memset(plan, 0, sizeof *plan);
  plan->num_tensors = writer->tensors.count;
  plan->num_pairs = writer->pairs.count;
  plan->num_layers = writer->layers.count;
  plan->tensors = tt__list_array(&writer->tensors, pool);
  plan->pairs = tt__list_array(&writer->pairs, pool);
  plan->layers = tt__list_array(&writer->layers, pool);
  plan->order = (int *)tt__take(pool, plan->num_tensors, (ptrdiff_t)sizeof(int));
  if (pool->status) return pool->status;
  for (int i = 0; i < plan->num_tensors; i++) plan->order[i] = i;
  tt__sort_indices(plan->order, plan->num_tensors, tt__item_before, plan);
  tt__sink sink = {NULL, 0, 0};
  plan->data_size = tt__sink_header(&sink, plan);
  if (sink.size > TT__HEADER_CAP - 64) return TT_ERROR_UNSUPPORTED;
  plan->header_size = (8 + sink.size + 63) / 64 * 64;
  if (plan->data_size < 0 || plan->data_size > PTRDIFF_MAX - plan->header_size)
    return TT_ERROR_MEMORY;
  plan->header = (char *)tt__take(pool, plan->header_size, 1);
  if (!plan->header) return pool->status;
  memset(plan->header, ' ', (size_t)plan->header_size);
  for (int i = 0; i < 8; i++)
    plan->header[i] = (char)((uint64_t)(plan->header_size - 8) >> (8 * i) & 255);
  sink.out = plan->header + 8;
  sink.room = plan->header_size - 8;
  sink.size = 0;
  tt__sink_header(&sink, plan);
  return TT_OK;
}

TTDEF tt_status tt_writer_save_memory(tt_writer *writer, void *bytes, size_t *size) {
  tt__plan plan;
  if (!writer || !size) return TT_ERROR_INVALID;
  tt__pool pool = tt__pool_open(&writer->pool.allocator);
  tt_status status = tt__plan_make(writer, &pool, &plan);
  if (!status) {
    size_t room = *size;
    *size = (size_t)(plan.header_size + plan.data_size);
    if (bytes && room < *size) status = TT_ERROR_INVALID;
  }
  if (!status && bytes) {
    unsigned char *at =
        (unsigned char *)memcpy(bytes, plan.header, (size_t)plan.header_size) + plan.header_size;
    for (int i = 0; i < plan.num_tensors && !status; i++) {
      const tt__item *item = plan.tensors[plan.order[i]];
      status = tt__item_read(writer, item, 0, at, item->size);
      at += item->size;
    }
  }
  tt__pool_close(&pool);
  return status;
}

#ifndef TT_NO_STDIO
#ifdef _WIN32
#ifdef __cplusplus
extern "C"
#endif
    __declspec(dllimport) int __stdcall MoveFileExA(const char *from, const char *to,
                                                    unsigned long flags);
#endif

// Gives `from` the name `to`, replacing what had it, in one step.
static int tt__replace_file(const char *from, const char *to) {
#ifdef _WIN32
  return MoveFileExA(from, to, 1 | 8) != 0;                  // REPLACE_EXISTING, WRITE_THROUGH
#else
  return rename(from, to) == 0;
#endif
}

// Creates a file that did not exist, to be written and read. C99 lacks the exclusive mode "x" that
// most libraries have.
static FILE *tt__create_file(const char *path) {
#if defined(__GLIBC__) || (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L)
  return fopen(path, "w+bx");
#else
  FILE *there = fopen(path, "rb");
  if (there) fclose(there);
  return there ? NULL : fopen(path, "w+b");
#endif
}

// Opens "<path>.tmp", or with a number behind it if that exists.
static FILE *tt__create_sibling(const char *path, char *name) {
  size_t length = strlen(path);
  FILE *stream = NULL;
  memcpy(name, path, length);
  memcpy(name + length, ".tmp", 5);
  for (int i = 0; i < 100 && !stream; i++) {
    if (i) tt__decimal(name + length + 4, i);
    stream = tt__create_file(name);
  }
  return stream;
}

TTDEF tt_status tt_writer_spill(tt_writer *writer, const char *path) {
  if (!writer || !path || writer->spill_name) return TT_ERROR_INVALID;
  void *mark = writer->pool.blocks;
  char *name = (char *)tt__take(&writer->pool, (ptrdiff_t)strlen(path) + 16, 1);
  writer->pool.status = TT_OK;
  if (!name) return TT_ERROR_MEMORY;
  writer->spill = tt__create_sibling(path, name);
  // Without a buffer a full disk is met by the call that adds, and no switch needs a flush.
  if (writer->spill && setvbuf(writer->spill, NULL, _IONBF, 0) == 0) {
    writer->spill_name = name;
    return TT_OK;
  }
  if (writer->spill) {
    fclose(writer->spill);
    remove(name);
    writer->spill = NULL;
  }
  tt__pool_rewind(&writer->pool, mark);
  return TT_ERROR_IO;
}

TTDEF tt_status tt_writer_save(tt_writer *writer, const char *path) {
  unsigned char chunk[TT__CHUNK];
  tt__plan plan;
  if (!writer || !path) return TT_ERROR_INVALID;
  tt__pool pool = tt__pool_open(&writer->pool.allocator);
  tt_status status = tt__plan_make(writer, &pool, &plan);
  char *name = status ? NULL : (char *)tt__take(&pool, (ptrdiff_t)strlen(path) + 16, 1);
  FILE *stream = name ? tt__create_sibling(path, name) : NULL;
  if (!status) status = !name ? pool.status : stream ? TT_OK : TT_ERROR_IO;
  if (stream) {
    int good = fwrite(plan.header, 1, (size_t)plan.header_size, stream) == (size_t)plan.header_size;
    for (int i = 0; i < plan.num_tensors && good; i++) {
      const tt__item *item = plan.tensors[plan.order[i]];
      for (ptrdiff_t at = 0; at < item->size && good; at += TT__CHUNK) {
        ptrdiff_t some = tt__min(TT__CHUNK, item->size - at);
        good = !tt__item_read(writer, item, at, chunk, some) &&
               fwrite(chunk, 1, (size_t)some, stream) == (size_t)some;
      }
    }
    good = fflush(stream) == 0 && good;
    good = fclose(stream) == 0 && good;
    good = good && tt__replace_file(name, path);
    if (!good) {
      remove(name);
      status = TT_ERROR_IO;
    }
  }
  tt__pool_close(&pool);
  return status;
}
#endif // TT_NO_STDIO
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// ---------------------------------------------------------------------------------------- >>export
// A layer as a C header: constant arrays, and the structs that run from them, in C99 and C++11. The
// text depends on the train, the plan and the given words alone. Arrays are aligned to 16 bytes,
// since some processors stop at words that are not, and `const`, or they would take RAM.

// Is the name a word of C or C++?
static int tt__is_keyword(const char *name) {
  static const char words[] =
      " alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t "
      "char32_t char8_t class compl concept const const_cast consteval constexpr constinit "
      "continue co_await co_return co_yield decltype default delete do double dynamic_cast else "
      "enum explicit export extern false final float for friend goto if import inline int long "
      "main module mutable namespace new noexcept not not_eq nullptr operator or or_eq override "
      "private protected public register reinterpret_cast requires restrict return short signed "
      "sizeof static static_assert static_cast struct switch template this thread_local throw true "
      "try typedef typeid typename typeof union unsigned using virtual void volatile wchar_t while "
      "xor xor_eq NULL ";
  size_t length = strlen(name);
  for (const char *at = words; (at = strstr(at, name)) != NULL; at++)
    if (at[-1] == ' ' && at[length] == ' ') return 1;
  return 0;
}

// What is written, and the names in it.
typedef struct tt__header_text {
  tt__sink sink;
  const char *layer;
  const tt_matrix *w;
  const tt_integer *plan;
  ptrdiff_t flash, plan_flash; // bytes of the arrays so far
  int is_finite;               // all numbers have been
  int in_ram;                  // arrays at work are not for TT_FLASH
} tt__header_text;

// The name of the layer as an identifier, in capitals if `upper`: "h.0.attn" gives h_0_attn. Names
// that C, C++ or tt.h keep for themselves get "layer_" in front.
static void tt__write_name(tt__header_text *out, int upper) {
  const char *layer = out->layer;
  int letter = (*layer >= 'a' && *layer <= 'z') || (*layer >= 'A' && *layer <= 'Z');
  if (!letter || tt__is_keyword(layer) || !strncmp(layer, "tt_", 3) || !strncmp(layer, "TT_", 3))
    tt__sink_text(&out->sink, upper ? "LAYER_" : "layer_");
  for (; *layer; layer++) {
    char c = *layer;
    int small = c >= 'a' && c <= 'z',
        keep = small || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (upper && small) c = (char)(c - 'a' + 'A');
    tt__sink_bytes(&out->sink, keep ? &c : "_", 1);
  }
}

// Text with marks in it: @ the name, ^ the name in capitals, $ the next of the numbers.
static void tt__write(tt__header_text *out, const char *text, ptrdiff_t first, ptrdiff_t second) {
  for (; *text; text++) {
    if (*text == '@' || *text == '^') {
      tt__write_name(out, *text == '^');
    } else if (*text == '$') {
      tt__sink_number(&out->sink, first);
      first = second;
    } else {
      tt__sink_bytes(&out->sink, text, 1);
    }
  }
}

// Text inside a comment: nothing in it ends the comment or looks like another one.
static void tt__write_comment(tt__header_text *out, const char *text) {
  char before = 0;
  for (; text && *text; before = *text++) {
    if ((before == '*' && *text == '/') || (before == '/' && *text == '*'))
      tt__sink_text(&out->sink, " ");
    tt__sink_bytes(&out->sink, (unsigned char)*text < 32 && *text != '\n' ? "?" : text, 1);
  }
}

// ---- numbers
//
// Decimals come out of a number with a fixed point, large enough for every double, so they are
// exact as far as they go: 9 digits tell floats apart, 18 doubles, also if the rest is cut off.

enum { TT__POINT = 36, TT__BIG = TT__POINT + 34 }; // words of 32 bits, lowest first

static void tt__big_times(uint32_t *big, uint32_t factor) {
  uint64_t carry = 0;
  for (int i = 0; i < TT__BIG; i++) {
    carry += (uint64_t)big[i] * factor;
    big[i] = (uint32_t)carry;
    carry >>= 32;
  }
}

static void tt__big_over(uint32_t *big, uint32_t divisor) {
  uint64_t rest = 0;
  for (int i = TT__BIG - 1; i >= 0; i--) {
    rest = rest << 32 | big[i];
    big[i] = (uint32_t)(rest / divisor);
    rest %= divisor;
  }
}

static int tt__big_above(const uint32_t *big, uint32_t limit) { // is its integer part?
  for (int i = TT__POINT + 1; i < TT__BIG; i++)
    if (big[i]) return 1;
  return big[TT__POINT] > limit;
}

// A finite number as a literal that gives back the same bits. Returns its length.
static int tt__literal(double value, int is_float, char text[40]) {
  uint32_t big[TT__BIG] = {0};
  uint64_t bits;
  int at = 0, exponent = 0, digits = is_float ? 9 : 18;
  memcpy(&bits, &value, sizeof bits);
  if (bits >> 63) text[at++] = '-';
  uint64_t fraction = bits & 0xFFFFFFFFFFFFFULL;
  int power = (int)(bits >> 52 & 2047);
  if (power) fraction |= 0x10000000000000ULL;
  int low = 32 * TT__POINT + (power ? power : 1) - 1075; // position of the lowest bit
  for (int i = 0; i < 53; i++)
    if (fraction >> i & 1) big[(low + i) / 32] |= (uint32_t)1 << (low + i) % 32;
  if (fraction) {
    for (; tt__big_above(big, 9); exponent++) tt__big_over(big, 10);
    for (; !tt__big_above(big, 0); exponent--) tt__big_times(big, 10);
  }
  for (int i = 0; i < digits; i++) {
    text[at++] = (char)('0' + big[TT__POINT]);
    if (i == 0) text[at++] = '.';
    big[TT__POINT] = 0;
    tt__big_times(big, 10);
  }
  while (text[at - 1] == '0' && text[at - 2] != '.') at--;
  if (exponent) {
    text[at++] = 'e';
    if (exponent < 0) text[at++] = '-';
    at += tt__decimal(text + at, exponent < 0 ? -exponent : exponent);
  }
  if (is_float) text[at++] = 'f';
  text[at] = 0;
  return at;
}

enum tt__kind { TT__FLOAT, TT__DOUBLE, TT__U16, TT__BYTE, TT__UBYTE, TT__I32 };

// Number `i` of an array as text. Returns its length.
static int tt__array_number(tt__header_text *out, int kind, const void *data, ptrdiff_t i,
                            char text[40]) {
  float single;
  double wide = 0;
  int32_t word = 0;
  if (kind == TT__FLOAT) {
    memcpy(&single, (const unsigned char *)data + 4 * i, 4);
    wide = (double)single;
  }
  if (kind == TT__DOUBLE) memcpy(&wide, (const unsigned char *)data + 8 * i, 8);
  if (!tt__is_finite(wide))
    out->is_finite = 0;
  else if (kind == TT__FLOAT || kind == TT__DOUBLE)
    return tt__literal(wide, kind == TT__FLOAT, text);
  if (kind == TT__U16) word = (int32_t)tt__load_u16(data, i);
  if (kind == TT__BYTE) word = ((const int8_t *)data)[i];
  if (kind == TT__UBYTE) word = ((const unsigned char *)data)[i];
  if (kind == TT__I32) memcpy(&word, (const int32_t *)data + i, sizeof word);
  *text = '-';
  // the smallest number has no literal of its own
  if (word == INT32_MIN)
    memcpy(text, "(-2147483647 - 1)", 18);
  else
    tt__decimal(text + (word < 0), word < 0 ? -(int64_t)word : word);
  return (int)strlen(text);
}

// TT_ALIGN(16) static const TYPE name_WHAT[COUNT] TT_FLASH = {..}; in lines of at most 100 columns.
// Returns its bytes.
static ptrdiff_t tt__write_array(tt__header_text *out, int kind, const char *what, int index,
                                 const void *data, ptrdiff_t count) {
  static const char types[][9] = {"float", "double", "uint16_t", "int8_t", "uint8_t", "int32_t"};
  static const int sizes[] = {4, 8, 2, 1, 1, 4};
  int column = 100;
  tt__sink_text(&out->sink, "TT_ALIGN(16) static const ");
  tt__sink_text(&out->sink, types[kind]);
  tt__write(out, " @_", 0, 0);
  tt__sink_text(&out->sink, what);
  if (index >= 0) tt__sink_number(&out->sink, index);
  tt__write(out, "[$]", count, 0);
  tt__sink_text(&out->sink, out->in_ram ? " = {" : " TT_FLASH = {");
  for (ptrdiff_t i = 0; i < count; i++) {
    char text[40];
    int length = tt__array_number(out, kind, data, i, text);
    if (column + length + 2 > 99) {
      tt__sink_text(&out->sink, "\n ");
      column = 1;
    }
    tt__sink_text(&out->sink, " ");
    tt__sink_bytes(&out->sink, text, length);
    tt__sink_text(&out->sink, i + 1 < count ? "," : "");
    column += length + 2;
  }
  tt__sink_text(&out->sink, "\n};\n");
  return count * sizes[kind];
}

static void tt__write_real(tt__header_text *out, float value) {
  char text[40];
  if (!tt__is_finite((double)value))
    out->is_finite = 0;
  else
    tt__sink_bytes(&out->sink, text, tt__literal((double)value, 1, text));
}

static void tt__write_integers(tt__header_text *out, const int *values, int count) {
  for (int i = 0; i < count; i++) tt__write(out, i ? ", $" : "{$", values[i], 0);
  tt__sink_text(&out->sink, "}");
}

// ---- the train

static int tt__kind_of(tt_dtype dtype) {
  if (dtype == TT_F32) return TT__FLOAT;
  if (dtype == TT_F64) return TT__DOUBLE;
  if (dtype == TT_F16 || dtype == TT_BF16) return TT__U16;
  return dtype == TT_I8 ? TT__BYTE : TT__UBYTE;
}

static void tt__write_arrays(tt__header_text *out) {
  const tt_matrix *w = out->w;
  for (int k = 0; k < w->shape.order; k++) {
    const tt_core *core = &w->cores[k];
    ptrdiff_t rows, length, count = tt__core_count(&w->shape, k);
    tt__view_size(&w->shape, w->sweep, k, &rows, &length);
    // packed codes are bytes, all others are one element each
    if (tt__dtype_bits(core->dtype) < 8) count = rows * tt__row_size(core->dtype, length);
    out->flash += tt__write_array(out, tt__kind_of(core->dtype), "core", k, core->data, count);
    if (!core->group) continue;
    out->flash += tt__write_array(out, core->group < 0 ? TT__FLOAT : TT__U16, "scales", k,
                                  core->scales, rows * tt__row_scales(core->group, length));
  }
  if (w->bias) out->flash += tt__write_array(out, TT__FLOAT, "bias", -1, w->bias, w->rows);
}

// Every member is written, so that no compiler misses one.
static void tt__write_matrix(tt__header_text *out) {
  static const char dtypes[][8] = {"TT_F32",  "TT_F64", "TT_F16", "TT_BF16", "TT_E4M3",
                                   "TT_E5M2", "TT_I8",  "TT_I4",  "TT_I3",   "TT_I2"};
  const tt_matrix *w = out->w;
  tt__write(out, "\nstatic const tt_matrix @ = {\n  {$, ", w->shape.order, 0);
  tt__write_integers(out, w->shape.rows, w->shape.order);
  tt__sink_text(&out->sink, ", ");
  tt__write_integers(out, w->shape.cols, w->shape.order);
  tt__sink_text(&out->sink, ", ");
  tt__write_integers(out, w->shape.ranks, w->shape.order + 1);
  tt__sink_text(&out->sink,
                w->sweep == TT_LEFT_TO_RIGHT ? "},\n  TT_LEFT_TO_RIGHT" : "},\n  TT_RIGHT_TO_LEFT");
  tt__write(out, ", $, $,\n  {", w->rows, w->cols);
  for (int k = 0; k < w->shape.order; k++) {
    const tt_core *core = &w->cores[k];
    tt__sink_text(&out->sink, k ? ",\n   {" : "{");
    tt__sink_text(&out->sink, dtypes[core->dtype]);
    tt__write(out, ", $, ", core->group, 0);
    tt__write_real(out, core->scale);
    tt__write(out, core->group ? ", @_core$, @_scales$, NULL}" : ", @_core$, NULL, NULL}", k, k);
  }
  tt__write(out,
            w->bias ? "},\n  @_bias, NULL, {NULL, NULL, NULL}\n};\n"
                    : "},\n  NULL, NULL, {NULL, NULL, NULL}\n};\n",
            0, 0);
}

// ---- the plan

static void tt__write_plan(tt__header_text *out) {
  const tt_integer *plan = out->plan;
  for (int i = 0; i < plan->order; i++)
    out->plan_flash += tt__write_array(out, TT__I32, "multipliers", i, plan->multipliers[i],
                                       plan->num_multipliers[i]);
  if (plan->offsets)
    out->plan_flash +=
        tt__write_array(out, TT__I32, "offsets", -1, plan->offsets, plan->num_offsets);
  if (plan->bias)
    out->plan_flash += tt__write_array(out, TT__I32, "bias_codes", -1, plan->bias, plan->num_bias);
  tt__write(out, "\nstatic const tt_integer @_plan = {\n  $, $, ", plan->order, plan->rounding);
  tt__write(out, "$, ", plan->dynamic != 0, 0);
  tt__write_real(out, plan->in_scale);
  tt__sink_text(&out->sink, ", ");
  tt__write_real(out, plan->out_scale);
  tt__write(out, ", $, $,\n  ", plan->in_zero, plan->out_zero);
  tt__write_integers(out, plan->shifts, plan->order);
  tt__sink_text(&out->sink, ", ");
  tt__write_integers(out, plan->num_multipliers, plan->order);
  for (int i = 0; i < plan->order; i++)
    tt__write(out, i ? ", @_multipliers$" : ",\n  {@_multipliers$", i, 0);
  for (int i = 0; i < plan->order; i++) {
    tt__sink_text(&out->sink, i ? ", " : "},\n  {");
    tt__write_real(out, plan->units[i]);
  }
  tt__write(out, plan->offsets ? "},\n  $, @_offsets, " : "},\n  0, NULL, ", plan->num_offsets, 0);
  tt__write(out, plan->bias ? "$, @_bias_codes, " : "0, NULL, ", plan->num_bias, 0);
  tt__sink_text(&out->sink, "NULL, NULL, {NULL, NULL, NULL}\n};\n");
}

// ---- sizes

// Workspace of tt_apply for one input, or of the plan, in a program with TT_INFERENCE_ONLY; `flash`
// if it also defines TT_FLASH_BYTE. -1 where that does not fit.
static ptrdiff_t tt__small_work(const tt_matrix *w, const tt_integer *plan, int flash) {
  ptrdiff_t slab = 0, row = 0, total = 64, each = plan ? 1 : (ptrdiff_t)sizeof(float);
  int ends = tt__is_padded(w) || (plan && plan->dynamic), fits = 1;
  ptrdiff_t state = tt__largest_state(w, ends);
  for (int k = 0; k < w->shape.order; k++) {
    ptrdiff_t rows, length;
    tt__view_size(&w->shape, w->sweep, k, &rows, &length);
    ptrdiff_t high = tt__max(1, tt__min(rows, TT__SLAB_SMALL / length));
    if (flash || !tt__plain_core(&w->cores[k])) slab = tt__max(slab, length * high);
    if (flash || w->cores[k].dtype != TT_I8) row = tt__max(row, length);
  }
  if (plan) {
    fits &= tt__add_size(&total, state, 2) && tt__add_size(&total, row, 1);
    fits &= tt__add_size(&total, plan->dynamic ? state : 0, (ptrdiff_t)sizeof(int32_t));
  } else {
    fits &= tt__add_size(&total, state, each) && tt__add_size(&total, state, each);
    fits &= tt__add_size(&total, slab, each);
  }
  return fits ? total : -1;
}

static void tt__write_work(tt__header_text *out, const char *define, const tt_integer *plan) {
  const tt_matrix *w = out->w;
  size_t full = plan ? tt_integer_work_size(plan, w) : tt_apply_work_size(w, 1);
  tt__sink_text(&out->sink, "#ifdef TT_FLASH_BYTE\n");
  tt__write(out, define, tt__small_work(w, plan, 1), 0);
  tt__sink_text(&out->sink, "#elif defined(TT_INFERENCE_ONLY)\n");
  tt__write(out, define, tt__small_work(w, plan, 0), 0);
  tt__sink_text(&out->sink, "#else\n");
  tt__write(out, define, (ptrdiff_t)full, 0);
  tt__sink_text(&out->sink, "#endif\n");
}

static void tt__write_guards(tt__header_text *out) {
  const tt_matrix *w = out->w;
  int has_double = 0;
  for (int k = 0; k < w->shape.order; k++) has_double |= w->cores[k].dtype == TT_F64;
  tt__write(out, "#ifndef ^_H\n#define ^_H\n\n#include \"tt.h\"\n\n", 0, 0);
  tt__sink_text(&out->sink, "#if TT_MATRIX_LAYOUT != ");
  tt__sink_number(&out->sink, TT_MATRIX_LAYOUT);
  if (out->plan) tt__sink_text(&out->sink, " || TT_INTEGER_LAYOUT != ");
  if (out->plan) tt__sink_number(&out->sink, TT_INTEGER_LAYOUT);
  tt__sink_text(&out->sink, " || TT_MAX_ORDER < ");
  tt__sink_number(&out->sink, w->shape.order);
  tt__sink_text(
      &out->sink,
      "\n#error \"made for another tt.h: export the layer again, or raise TT_MAX_ORDER\"\n"
      "#endif\n");
  if (has_double)
    tt__sink_text(&out->sink,
                  "#ifdef TT_INFERENCE_ONLY\n"
                  "#error \"TT_INFERENCE_ONLY knows no F64: quantise the layer to F32 or less\"\n"
                  "#endif\n");
  tt__sink_text(&out->sink, "\n#ifndef TT_ALIGN\n"
                            "#if defined(__GNUC__)\n"
                            "#define TT_ALIGN(bytes) __attribute__((aligned(bytes)))\n"
                            "#elif defined(_MSC_VER)\n"
                            "#define TT_ALIGN(bytes) __declspec(align(bytes))\n"
                            "#else\n"
                            "#define TT_ALIGN(bytes)\n"
                            "#endif\n"
                            "#endif\n"
                            "#ifndef TT_FLASH /* such as PROGMEM, with TT_FLASH_BYTE */\n"
                            "#define TT_FLASH\n"
                            "#endif\n\n");
}

static void tt__write_macros(tt__header_text *out) {
  const tt_matrix *w = out->w;
  tt__write(out, "#define ^_ROWS          $\n#define ^_COLS          $\n", w->rows, w->cols);
  tt__write(out, "#define ^_MACS          $ /* multiply-adds for one input */\n",
            tt_apply_macs(w, 1), 0);
  tt__sink_text(&out->sink, "/* workspace of tt_apply for one input */\n");
  tt__write_work(out, "#define ^_SCRATCH_BYTES $\n", NULL);
  if (out->plan) {
    tt__sink_text(&out->sink, "/* workspace of the plan */\n");
    tt__write_work(out, "#define ^_INTEGER_SCRATCH_BYTES $\n", out->plan);
  }
  tt__sink_text(&out->sink, "\n");
}

// ---- self-test

// y for an input that a formula gives, to be compared on the device: codes exactly, floats to 1e-4
// of the largest, since sums may be rounded otherwise there.
static void tt__write_test(tt__header_text *out, int integer, const float *y, const int8_t *codes,
                           float largest) {
  int coded = integer && !out->plan->dynamic;
  tt__write(out, integer ? "\n#ifdef ^_INTEGER_SELF_TEST\n" : "\n#ifdef ^_SELF_TEST\n", 0, 0);
  out->in_ram = 1;
  tt__write_array(out, coded ? TT__BYTE : TT__FLOAT, integer ? "integer_expected" : "expected", -1,
                  coded ? (const void *)codes : (const void *)y, out->w->rows);
  tt__write(out, "/* 0 if this program computes what @ gave where it was exported. Takes RAM. */\n",
            0, 0);
  tt__write(out,
            integer ? "static int @_integer_self_test(void) {\n"
                    : "static int @_self_test(void) {\n",
            0, 0);
  tt__write(out,
            coded ? "  static int8_t x[^_COLS], y[^_ROWS];\n"
                  : "  static float x[^_COLS], y[^_ROWS];\n",
            0, 0);
  tt__write(out,
            integer ? "  static unsigned char work[^_INTEGER_SCRATCH_BYTES];\n"
                    : "  static unsigned char work[^_SCRATCH_BYTES];\n",
            0, 0);
  tt__write(out, "  ptrdiff_t i;\n  for (i = 0; i < ^_COLS; i++) x[i] = ", 0, 0);
  tt__sink_text(&out->sink, coded ? "(int8_t)((int)(i % 17 * 7 % 17 - 8) * 15);\n"
                                  : "(float)(i % 17 * 7 % 17 - 8) / 8;\n");
  tt__sink_text(&out->sink, "  if (tt_");
  tt__write(out,
            !integer ? "apply(&@"
            : coded  ? "integer_apply(&@_plan, &@"
                     : "integer_apply_f32(&@_plan, &@",
            0, 0);
  tt__sink_text(&out->sink, ", x, 1, y, work, sizeof work)) return 1;\n");
  tt__write(out, "  for (i = 0; i < ^_ROWS; i++) {\n", 0, 0);
  if (coded) {
    tt__write(out, "    if (y[i] != @_integer_expected[i]) return 1;\n", 0, 0);
  } else {
    tt__write(out,
              integer ? "    float gap = y[i] - @_integer_expected[i];\n"
                      : "    float gap = y[i] - @_expected[i];\n",
              0, 0);
    tt__sink_text(&out->sink, "    if (!(gap <= ");
    tt__write_real(out, (float)(1e-4 * (double)largest));
    tt__sink_text(&out->sink, " && gap >= -");
    tt__write_real(out, (float)(1e-4 * (double)largest));
    tt__sink_text(&out->sink, ")) return 1;\n");
  }
  tt__sink_text(&out->sink, "  }\n  return 0;\n}\n#endif\n");
}

// Runs the train, or the plan, on that input and writes the test.
static tt_status tt__write_self_test(tt__pool *pool, tt__header_text *out, int integer) {
  const tt_matrix *w = out->w;
  size_t size = integer ? tt_integer_work_size(out->plan, w) : tt_apply_work_size(w, 1);
  float *x = (float *)tt__take(pool, w->cols, 4), *y = (float *)tt__take(pool, w->rows, 4);
  int8_t *codes = (int8_t *)tt__take(pool, w->cols, 1),
         *coded = (int8_t *)tt__take(pool, w->rows, 1);
  void *work = tt__take_raw(pool, (ptrdiff_t)size);
  float largest = 0;
  if (pool->status) return pool->status;
  for (ptrdiff_t i = 0; i < w->cols; i++) {
    x[i] = (float)(i % 17 * 7 % 17 - 8) / 8;
    codes[i] = (int8_t)((int)(i % 17 * 7 % 17 - 8) * 15);
  }
  tt_status status = TT_OK;
  if (!integer)
    status = tt_apply(w, x, 1, y, work, size);
  else if (out->plan->dynamic)
    status = tt_integer_apply_f32(out->plan, w, x, 1, y, work, size);
  else
    status = tt_integer_apply(out->plan, w, codes, 1, coded, work, size);
  for (ptrdiff_t i = 0; i < w->rows; i++)
    if (fabsf(y[i]) > largest) largest = fabsf(y[i]);
  if (!status) tt__write_test(out, integer, y, coded, largest);
  return status;
}

TTDEF tt_status tt_export_c(const tt_matrix *w, const tt_integer *plan, const char *name,
                            const char *note, char *text, size_t *size) {
  tt__header_text out;
  memset(&out, 0, sizeof out);
  if (!tt__valid(w) || !name || !size || (plan && !tt_integer_work_size(plan, w)) ||
      !tt_apply_work_size(w, 1))
    return TT_ERROR_INVALID;
  out.w = w;
  out.plan = plan;
  out.layer = name;
  out.is_finite = 1;
  out.sink.out = text;
  out.sink.room = text ? (ptrdiff_t)(*size < (size_t)PTRDIFF_MAX ? *size : PTRDIFF_MAX) : 0;
  tt__pool pool = tt__pool_open(&w->allocator);
  tt__sink_text(&out.sink, "/* Layer \"");
  tt__write_comment(&out, name);
  tt__sink_text(&out.sink, "\" as constant data for tt.h, version " TT_VERSION ". Do not edit.\n");
  tt__write_comment(&out, note);
  tt__write(&out,
            "\n     #define TT_IMPLEMENTATION             in one file of the program\n"
            "     #define TT_INFERENCE_ONLY\n"
            "     #include \"@.h\"\n"
            "     static unsigned char work[^_SCRATCH_BYTES];\n"
            "     tt_apply(&@, x, 1, y, work, sizeof work);   y = W x + bias */\n",
            0, 0);
  tt__write_guards(&out);
  tt__write_macros(&out);
  tt__write_arrays(&out);
  tt__write_matrix(&out);
  if (plan) tt__write_plan(&out);
  tt__write(&out, "\n#define ^_FLASH_BYTES $ /* the arrays; sizeof(tt_matrix) comes on top */\n",
            out.flash, 0);
  if (plan)
    tt__write(&out, "#define ^_INTEGER_FLASH_BYTES $ /* the arrays of the plan */\n",
              out.plan_flash, 0);
  tt_status status = tt__write_self_test(&pool, &out, 0);
  if (!status && plan) status = tt__write_self_test(&pool, &out, 1);
  tt__sink_text(&out.sink, "\n#endif\n");
  tt__sink_bytes(&out.sink, "", 1); // the terminator
  if (!status && !out.is_finite) status = TT_ERROR_NONFINITE;
  if (!status && text && out.sink.size > out.sink.room) status = TT_ERROR_INVALID;
  if (!status || status == TT_ERROR_INVALID) *size = (size_t)out.sink.size;
  tt__pool_close(&pool);
  return status;
}

// -------------------------------------------------------------------------------------- >>profile
// The profile of a layer: every way to store it that is worth a look, each built and measured;
// nothing is estimated. Bonds are compared with those of a Gaussian matrix of the same shape: a
// spectrum that does not differ from it has nothing for a train to find. The dense formats and the
// SVD are in every profile, because a train that does not beat them at equal bytes is not needed.
//
// Spectra are those of the uncut unfoldings, which are read in place through their legs (see
// >>compress). Candidates of one shape share its F32 train, so that the fit is paid once.

// Finite and not negative? Finite and in (0, 1]?
static int tt__amount(double value) { return tt__is_finite(value) && value >= 0; }
static int tt__share(double value) { return tt__amount(value) && value > 0 && value <= 1; }

// ---- Gaussian yardstick and bonds

TTDEF int tt_tail_rank(const double *values, int count, double epsilon) {
  double largest = values && count > 0 ? tt__largest_magnitude(count, values) : 0, total = 0;
  double tail = 0;
  if (largest == 0 || !tt__is_finite(largest)) return 0;
  for (int i = 0; i < count; i++) total += values[i] / largest * (values[i] / largest);
  if (!tt__is_finite(epsilon)) return count;
  // from the small end, where sums of squares are accurate
  for (int i = count; i > 0; i--) {
    tail += values[i - 1] / largest * (values[i - 1] / largest);
    if (tail > epsilon * epsilon * total) return i;
  }
  return 0;
}

// Singular values of the unfolding of w at bond k, all of them, of w scaled by a power of two:
// entropies and relative tails do not see the scale. The remainder of a TT-SVD that has cut nothing
// yet is the matrix itself, so its unfolding at any bond is there for the asking.
static tt_status tt__cut_spectrum(tt__pool *pool, const tt__source *w, const tt_shape *shape, int k,
                                  const tt_options *options, tt__factor *spectrum) {
  tt__remainder whole;
  memset(&whole, 0, sizeof whole);
  memset(spectrum, 0, sizeof *spectrum);
  whole.shape = shape;
  whole.input = *w;
  whole.rank = tt__leg_product(shape, 0, k, 1, 1);           // all earlier legs stand in the rows
  tt__source view = tt__unfolding(&whole, k, 1);
  if (view.rows > view.cols) view = tt__turned(&view);
  return tt__left_vectors(pool, &view, 0, options->method, options->seed, spectrum);
}

// Fills the figures of w, or those of the Gaussian matrix, of all bonds. Page's value for a cut
// a x b, a <= b, is ln a - a / (2 b); a finite sample of the same shape also has the zeros of the
// padding and needs no formula.
static tt_status tt__measure_bonds(tt__pool *pool, const float *w, ptrdiff_t rows, ptrdiff_t cols,
                                   const tt_shape *shape, const tt_options *options, int gaussian,
                                   tt_bond *bonds) {
  tt__source source = tt__plain_source(w, 0, rows, cols);
  tt_status status = TT_OK;
  double square;
  if (tt__scan(&source, &square) >= 0) return TT_ERROR_NONFINITE;
  for (int k = 0; k + 1 < shape->order && !status; k++) {
    void *mark = pool->blocks;
    tt__factor spectrum;
    status = tt__cut_spectrum(pool, &source, shape, k, options, &spectrum);
    int count = status ? 0 : (int)spectrum.count;
    double entropy = tt_entropy(spectrum.values, count, 1);
    if (gaussian) {
      bonds[k].gaussian_entropy = entropy;
      bonds[k].gaussian_effective_rank = exp(entropy);
    } else {
      bonds[k].entropy = entropy;
      bonds[k].effective_rank = exp(entropy);
      bonds[k].share = count > 1 ? entropy / log((double)count) : 0;
      bonds[k].tail_ranks[0] = tt_tail_rank(spectrum.values, count, 0.1);
      bonds[k].tail_ranks[1] = tt_tail_rank(spectrum.values, count, 0.01);
    }
    tt__pool_rewind(pool, mark);                             // one spectrum at a time
  }
  return status;
}

// The two matrices one after the other, so that the Gaussian one is there only while needed.
static tt_status tt__both_bonds(tt__pool *pool, const float *w, ptrdiff_t rows, ptrdiff_t cols,
                                const tt_shape *shape, const tt_options *options, tt_bond *bonds) {
  void *mark = pool->blocks;
  memset(bonds, 0, (size_t)(shape->order - 1) * sizeof *bonds);
  tt_status status = tt__measure_bonds(pool, w, rows, cols, shape, options, 0, bonds);
  if (status || shape->order == 1) return status;
  float *random = (float *)tt__take(pool, rows * cols, (ptrdiff_t)sizeof(float));
  if (!random) return pool->status;
  for (ptrdiff_t i = 0; i < rows * cols; i++)
    random[i] = (float)tt__random_normal(options->seed, (uint64_t)i);
  status = tt__measure_bonds(pool, random, rows, cols, shape, options, 1, bonds);
  tt__pool_rewind(pool, mark);
  return status;
}

TTDEF tt_status tt_bonds(const float *w, ptrdiff_t rows, ptrdiff_t cols, const tt_shape *shape,
                         const tt_options *given, tt_bond *bonds) {
  tt_options options = tt__options(given);
  if (!w || !tt__options_valid(given)) return TT_ERROR_INVALID;
  tt_status status = tt_shape_check(shape, rows, cols);
  if (status || shape->order == 1) return status;
  if (!bonds) return TT_ERROR_INVALID;
  tt_bond made[TT_MAX_ORDER];
  tt__pool pool = tt__pool_open(&options.allocator);
  status = tt__both_bonds(&pool, w, rows, cols, shape, &options, made);
  if (!status) memcpy(bonds, made, (size_t)(shape->order - 1) * sizeof *bonds);
  tt__pool_close(&pool);
  return status;
}

// ---- candidates of one layer

enum { TT__MAX_KEPT = 16, TT__FAMILIES = 4, TT__MAX_CANDIDATES = 5 + TT__FAMILIES * 3 * 16 };

// A layer under study.
typedef struct tt__layer_study {
  const float *w;
  ptrdiff_t rows, cols;
  const tt_inputs *heldout;
  tt_options options;                                        // inputs, bias, allocator
  tt_candidate *list;
  int count;
} tt__layer_study;

// Factors of a family of trains, ranks 0: 0 the SVD, 1 and 2 TT-matrices of two and three cores, 3
// the plain train with two row legs before two column legs, the cheap order for a sweep from the
// right. Returns 0 where the matrix or TT_MAX_ORDER does not allow it, or memory is short.
static int tt__family(tt__pool *pool, const tt__layer_study *study, int family, tt_shape *out) {
  static const int orders[TT__FAMILIES] = {2, 2, 3, 4};
  int order = orders[family], count = 0;
  tt_shape *list, halves;
  void *mark = pool->blocks;
  if (order > TT_MAX_ORDER || study->rows < 2 || study->cols < 2) return 0;
  memset(out, 0, sizeof *out);
  out->order = order;
  for (int k = 0; k < order; k++) out->rows[k] = out->cols[k] = 1;
  if (family == 0) {
    out->rows[0] = (int)study->rows;
    out->cols[1] = (int)study->cols;
  } else if (family == 3) {
    if (tt_shape_factor(study->rows, study->cols, 2, &halves)) return 0;
    for (int k = 0; k < 2; k++) out->rows[k] = halves.rows[k];
    for (int k = 0; k < 2; k++) out->cols[order - 2 + k] = halves.cols[k];
  } else {
    // priced at the rank that two equal cores have at a quarter of the parameters
    int rank = 1 + (int)(sqrt((double)study->rows * (double)study->cols) / 8);
    if (!tt__pareto_shapes(pool, study->rows, study->cols, order, rank, &list, &count))
      *out = list[0];
    tt__pool_rewind(pool, mark);
    if (count == 0) return 0;
  }
  for (int k = 0; k <= order; k++) out->ranks[k] = k == 0 || k == order;
  return 1;
}

// Lowers all ranks to the largest cap that leaves at most `most` parameters, by bisection: the
// number of parameters rises with the cap until all bonds have their useful maximum. Returns 0 if
// even rank 1 is too much.
static int tt__fit_ranks(tt_shape *shape, double most) {
  int low = 0, high = INT_MAX;                               // low fits, high does not
  tt_shape trial;
  while (high - low > 1) {
    int middle = low + (high - low) / 2;
    trial = *shape;
    ptrdiff_t params = tt_shape_clip(&trial, middle) ? -1 : tt_shape_params(&trial);
    if (params >= 0 && (double)params <= most) low = middle;
    else high = middle;
  }
  return low > 0 && !tt_shape_clip(shape, low);
}

// Notes a candidate. What it costs and loses is measured later, on its train.
static void tt__add_candidate(tt__layer_study *study, int action, const tt_shape *shape,
                              tt_dtype dtype, int group, const tt_bond *bonds) {
  tt_candidate *made = &study->list[study->count++];
  made->action = action;
  made->shape = *shape;
  made->dtype = dtype;
  made->group = group;
  if (bonds) memcpy(made->bonds, bonds, (size_t)(shape->order - 1) * sizeof *bonds);
}

// Order 1: the matrix itself. These are what every factorisation has to beat.
static void tt__add_dense(tt__layer_study *study) {
  tt_shape dense;
  memset(&dense, 0, sizeof dense);
  dense.order = dense.ranks[0] = dense.ranks[1] = 1;
  dense.rows[0] = (int)study->rows;
  dense.cols[0] = (int)study->cols;
  tt__add_candidate(study, TT_KEEP_DENSE, &dense, TT_F32, 0, NULL);
  tt__add_candidate(study, TT_KEEP_DENSE, &dense, TT_F16, 0, NULL);
  tt__add_candidate(study, TT_QUANT_ONLY, &dense, TT_I8, TT_GROUP_ROW, NULL);
  tt__add_candidate(study, TT_QUANT_ONLY, &dense, TT_I4, 32, NULL);
  tt__add_candidate(study, TT_QUANT_ONLY, &dense, TT_I3, 32, NULL);
}

// Every kept share of one family in three formats; a share that gives the ranks of the one before
// adds nothing.
static tt_status tt__add_family(tt__pool *pool, tt__layer_study *study, int family,
                                const double *kept, int num_kept) {
  tt_shape factors, before, shape;
  tt_bond bonds[TT_MAX_ORDER];
  int plain = family == 0 ? TT_SVD : TT_TT, coded = family == 0 ? TT_SVD_QUANT : TT_TT_QUANT;
  if (!tt__family(pool, study, family, &factors)) return pool->status;
  tt_status status =
      tt__both_bonds(pool, study->w, study->rows, study->cols, &factors, &study->options, bonds);
  memset(&before, 0, sizeof before);
  for (int i = 0; i < num_kept && !status; i++) {
    shape = factors;
    if (!tt__fit_ranks(&shape, kept[i] * (double)study->rows * (double)study->cols)) continue;
    if (!memcmp(&shape, &before, sizeof shape)) continue;    // shapes are zeroed behind their order
    tt__add_candidate(study, plain, &shape, TT_F32, 0, bonds);
    tt__add_candidate(study, coded, &shape, TT_I8, TT_GROUP_ROW, bonds);
    tt__add_candidate(study, coded, &shape, TT_I4, 32, bonds);
    before = shape;
  }
  return status;
}

// The F32 train of a shape, its ranks as caps, fitted to the inputs where there are any. The dense
// matrix is exact: no fit, whatever the inputs.
static tt_status tt__base_train(const tt__layer_study *study, const tt_shape *shape,
                                tt_matrix *out) {
  tt_options options = study->options;
  options.dtype = TT_F32;
  options.group = options.max_rank = options.strict = 0;
  options.epsilon = 0;
  if (shape->order == 1) options.inputs = NULL;
  return tt_compress(study->w, study->rows, study->cols, shape, &options, out, NULL);
}

// The candidate's train from the F32 train of its shape; a view of it where that is what it is.
// Integer codes are chosen for the inputs too; rounding to F16 loses too little to choose.
static tt_status tt__coded_train(const tt__layer_study *study, const tt_candidate *candidate,
                                 const tt_matrix *base, tt_matrix *out) {
  tt_options options = study->options;
  options.bias = NULL;                                       // base has it
  if (!tt__is_integer(candidate->dtype)) options.inputs = NULL;
  *out = *base;
  out->block = NULL;
  if (candidate->dtype == TT_F32) return TT_OK;
  return tt_quantize(base, candidate->dtype, candidate->group, &options, out, NULL);
}

// ||W - W^|| / ||W||, from the expanded train. Divided by the largest element, so that no square
// over- or underflows; the difference comes first, so that an exact train has error 0.
static tt_status tt__weight_error(tt__pool *pool, const tt__layer_study *study,
                                  const tt_matrix *train, double *error) {
  void *mark = pool->blocks;
  ptrdiff_t count = study->rows * study->cols;
  double *dense = tt__take_f64(pool, study->rows, study->cols), lost = 0, all = 0, largest = 0;
  tt_status status = dense ? tt_expand_f64(train, dense) : pool->status;
  for (ptrdiff_t i = 0; i < count; i++)
    if (fabs((double)study->w[i]) > largest) largest = fabs((double)study->w[i]);
  for (ptrdiff_t i = 0; i < count && !status && largest > 0; i++) {
    double exact = (double)study->w[i], value = exact / largest;
    double gap = (exact - dense[i]) / largest;
    all += value * value;
    lost += gap * gap;
  }
  *error = all > 0 ? sqrt(lost / all) : 0;
  tt__pool_rewind(pool, mark);
  return status;
}

// All errors of one train. The error for decisions is the one nearest to use: held-out inputs, else
// those of the fit, else the weights, whose error alone predicts little about a network.
static tt_status tt__judge(tt__pool *pool, const tt__layer_study *study, const tt_matrix *train,
                           tt_candidate *out) {
  const tt_options *options = &study->options;
  tt_status status = tt__weight_error(pool, study, train, &out->weight_error);
  out->error = out->weight_error;
  if (!status && options->inputs) {
    status = tt_functional_error(train, study->w, options->bias, options->inputs,
                                 &out->calibration_error);
    out->error = out->calibration_error;
  }
  if (!status && study->heldout) {
    status = tt_functional_error(train, study->w, options->bias, study->heldout,
                                 &out->heldout_error);
    out->error = out->heldout_error;
  }
  return status;
}

// Builds and measures all candidates in the order of the list, where the F32 train of a shape comes
// first and its other formats follow.
static tt_status tt__measure_candidates(tt__pool *pool, tt__layer_study *study) {
  tt_matrix base, train;
  tt_status status = TT_OK;
  memset(&base, 0, sizeof base);
  for (int i = 0; i < study->count && !status; i++) {
    tt_candidate *candidate = &study->list[i];
    if (candidate->dtype == TT_F32) {
      tt_free(&base);
      status = tt__base_train(study, &candidate->shape, &base);
    }
    if (!status) status = tt__coded_train(study, candidate, &base, &train);
    if (status) break;
    status = tt__judge(pool, study, &train, candidate);
    candidate->shape = train.shape;
    candidate->params = tt_shape_params(&train.shape);
    candidate->macs = tt_apply_macs(&train, 1);
    candidate->bytes = tt_stored_size(&train);
    if (train.block) tt_free(&train);                        // else it is a view of base
  }
  tt_free(&base);
  return status;
}

// Opens a study: checks what all doors of this section have in common. 16 bytes per element must
// fit, as the dense matrix is expanded in double.
static tt_status tt__study(const float *w, ptrdiff_t rows, ptrdiff_t cols, const tt_inputs *heldout,
                           const tt_options *given, tt__layer_study *out) {
  memset(out, 0, sizeof *out);
  if (!w || rows < 1 || cols < 1 || rows > INT_MAX || cols > INT_MAX || !tt__options_valid(given))
    return TT_ERROR_INVALID;
  ptrdiff_t size = rows;
  if (!tt__multiply(&size, cols) || !tt__multiply(&size, 16)) return TT_ERROR_MEMORY;
  out->w = w;
  out->rows = rows;
  out->cols = cols;
  out->heldout = heldout;
  out->options = tt__options(given);
  return TT_OK;
}

TTDEF tt_status tt_profile_create(const float *w, ptrdiff_t rows, ptrdiff_t cols,
                                  const tt_inputs *heldout, const double *kept, int num_kept,
                                  const tt_options *given, tt_profile **out) {
  static const double usual[4] = {1.0 / 2, 1.0 / 3, 1.0 / 5, 1.0 / 10};
  tt__layer_study study;
  if (out) *out = NULL;
  tt_status status = tt__study(w, rows, cols, heldout, given, &study);
  if (!out || (kept && (num_kept < 0 || num_kept > TT__MAX_KEPT))) status = TT_ERROR_INVALID;
  if (!kept) num_kept = 4;
  if (!kept) kept = usual;
  for (int i = 0; i < num_kept && !status; i++)
    if (!tt__share(kept[i])) status = TT_ERROR_INVALID;
  if (status) return status;
  tt__pool pool = tt__pool_open(&study.options.allocator);
  study.list =
      (tt_candidate *)tt__take(&pool, TT__MAX_CANDIDATES, (ptrdiff_t)sizeof(tt_candidate));
  status = pool.status;
  if (!status) tt__add_dense(&study);
  for (int family = 0; family < TT__FAMILIES && !status; family++)
    status = tt__add_family(&pool, &study, family, kept, num_kept);
  if (!status) status = tt__measure_candidates(&pool, &study);
  // the result is one block: the struct, and the candidates at the next multiple of 64
  size_t size = (size_t)study.count * sizeof(tt_candidate);
  tt_profile *made = NULL;
  if (!status)
    made = (tt_profile *)tt__allocate(&study.options.allocator,
                                      (ptrdiff_t)(sizeof(tt_profile) + 64 + size));
  if (!status && !made) status = TT_ERROR_MEMORY;
  if (made) {
    made->rows = rows;
    made->cols = cols;
    made->count = study.count;
    made->allocator = study.options.allocator;
    made->candidates = (tt_candidate *)memcpy(tt__align(made + 1), study.list, size);
    *out = made;
  }
  tt__pool_close(&pool);
  return status;
}

TTDEF void tt_profile_free(tt_profile *profile) {
  if (!profile) return;
  tt_allocator allocator = profile->allocator;
  tt__release(&allocator, profile);
}

TTDEF tt_status tt_profile_train(const tt_profile *profile, int index, const float *w,
                                 const tt_options *given, tt_matrix *out) {
  tt__layer_study study;
  tt_matrix base;
  if (out) memset(out, 0, sizeof *out);
  if (!out || !profile || index < 0 || index >= profile->count) return TT_ERROR_INVALID;
  tt_status status = tt__study(w, profile->rows, profile->cols, NULL, given, &study);
  const tt_candidate *candidate = &profile->candidates[index];
  if (!status) status = tt__base_train(&study, &candidate->shape, &base);
  if (status) return status;
  if (candidate->dtype == TT_F32) {
    *out = base;
    return TT_OK;
  }
  status = tt__coded_train(&study, candidate, &base, out);
  if (status) memset(out, 0, sizeof *out);
  tt_free(&base);
  return status;
}

// The error that counts, at one rank: that of a train made for it, not of a prefix of a larger one,
// because a fit to inputs is a different train at every rank.
static tt_status tt__error_at_rank(tt__pool *pool, const tt__layer_study *study,
                                   const tt_shape *factors, int rank, double *error) {
  tt_shape shape = *factors;
  tt_candidate candidate;
  tt_matrix train;
  memset(&candidate, 0, sizeof candidate);
  tt_status status = tt_shape_clip(&shape, rank);
  if (!status) status = tt__base_train(study, &shape, &train);
  if (status) return status;
  status = tt__judge(pool, study, &train, &candidate);
  tt_free(&train);
  *error = candidate.error;
  return status;
}

TTDEF tt_status tt_smallest_rank(const float *w, ptrdiff_t rows, ptrdiff_t cols,
                                 const tt_shape *shape, double bound, const tt_options *given,
                                 int *rank, double *error) {
  tt__layer_study study;
  tt_shape widest;
  int low = 0, high = 1;                                     // low is too coarse, high meets bound
  double best = 0, trial = 0;
  tt_status status = tt__study(w, rows, cols, NULL, given, &study);
  if (!rank || !error || !tt__amount(bound)) status = TT_ERROR_INVALID;
  if (!status) status = tt_shape_check(shape, rows, cols);
  if (status) return status;
  widest = *shape;
  status = tt_shape_clip(&widest, 0);
  // the cap from which on nothing changes: the largest useful rank
  for (int k = 0; k <= shape->order; k++) if (widest.ranks[k] > high) high = widest.ranks[k];
  tt__pool pool = tt__pool_open(&study.options.allocator);
  if (!status) status = tt__error_at_rank(&pool, &study, shape, high, &best);
  while (!status && best <= bound && high - low > 1) {
    int middle = low + (high - low) / 2;
    status = tt__error_at_rank(&pool, &study, shape, middle, &trial);
    if (status || trial > bound) {
      low = middle;
      continue;
    }
    high = middle;
    best = trial;
  }
  tt__pool_close(&pool);
  if (status) return status;
  *rank = high;
  *error = best;
  return best <= bound ? TT_OK : TT_ERROR_UNSUPPORTED;
}
#endif // TT_INFERENCE_ONLY

#ifndef TT_INFERENCE_ONLY
// ----------------------------------------------------------------------------------------- >>plan
// Byte budgets over many layers, selection, decisions. Candidates are (bytes, loss) points; to take
// one per layer with the least total loss within a budget is the multiple-choice knapsack problem.
// The greedy walk over the lower convex hulls solves its linear relaxation and misses the best
// choice by at most its last step; dynamic programming checks that.
//
// Losses of single layers do not add up in a network. A selection therefore measures the drop that
// each candidate causes alone, uses that only to order the work, and lets the caller's end-to-end
// score decide after every batch. The decisions at the end are rules with thresholds, nothing more.

// ---- budgets

// Is there a point, and is every loss a number? A loss of Inf would make slopes of NaN.
static int tt__points_valid(const tt_plan_point *points, int count) {
  int valid = points && count > 0;
  for (int i = 0; valid && i < count; i++) valid = tt__amount(points[i].loss);
  return valid;
}

// The common door of budgets: layers and a place for their choice.
static int tt__plan_valid(const tt_plan_layer *layers, int num_layers, const int *choice) {
  int valid = num_layers >= 0 && (num_layers == 0 || (layers && choice));
  for (int l = 0; valid && l < num_layers; l++)
    valid = tt__points_valid(layers[l].points, layers[l].count) && tt__amount(layers[l].weight);
  return valid;
}

// The point of fewest bytes, of those the one with least loss: where every hull begins.
static int tt__hull_start(const tt_plan_point *points, int count) {
  int best = 0;
  for (int i = 1; i < count; i++)
    if (points[i].bytes < points[best].bytes ||
        (points[i].bytes == points[best].bytes && points[i].loss < points[best].loss))
      best = i;
  return best;
}

// Loss that a step between two points saves per byte; `to` has more bytes.
static double tt__slope(const tt_plan_point *from, const tt_plan_point *to) {
  return (from->loss - to->loss) / (double)(to->bytes - from->bytes);
}

// The next point of the lower hull behind point `at`, or -1 at its end: the steepest way down, and
// of equally steep ones the longest. Wrapping needs no sorting and no memory.
static int tt__hull_next(const tt_plan_point *points, int count, int at) {
  int best = -1;
  double steepest = 0;
  for (int i = 0; i < count; i++) {
    if (points[i].bytes <= points[at].bytes || points[i].loss >= points[at].loss) continue;
    double slope = tt__slope(&points[at], &points[i]);
    if (best >= 0 && slope < steepest) continue;
    if (best >= 0 && slope <= steepest && points[i].bytes < points[best].bytes) continue;
    best = i;
    steepest = slope;
  }
  return best;
}

// The hull is the path from its start: every next point is seen from the one before.
TTDEF tt_status tt_plan_hull(const tt_plan_point *points, int count, int *hull, int *num_hull) {
  if (!tt__points_valid(points, count) || !hull || !num_hull) return TT_ERROR_INVALID;
  *num_hull = 0;
  for (int at = tt__hull_start(points, count); at >= 0; at = tt__hull_next(points, count, at))
    hull[(*num_hull)++] = at;
  return TT_OK;
}

// *total += term, *total *= factor; both return 0 and leave *total where the result exceeds 64
// bits. Bytes of models are counted in 64 bits, whatever size_t has: a small machine may plan for a
// large one.
static int tt__increase_u64(uint64_t *total, uint64_t term) {
  if (term > UINT64_MAX - *total) return 0;
  *total += term;
  return 1;
}
static int tt__multiply_u64(uint64_t *total, uint64_t factor) {
  if (factor != 0 && *total > UINT64_MAX / factor) return 0;
  *total *= factor;
  return 1;
}

// Fewest bytes everywhere: MEMORY if their sum overflows, UNSUPPORTED if it exceeds the budget. The
// layer to blame is the one with most bytes: a smaller candidate for it helps most.
static tt_status tt__plan_start(const tt_plan_layer *layers, int num_layers, uint64_t budget,
                                int *choice, uint64_t *used, int *layer) {
  uint64_t largest = 0;
  int at = -1;
  *used = 0;
  if (layer) *layer = -1;
  if (!tt__plan_valid(layers, num_layers, choice)) return TT_ERROR_INVALID;
  for (int l = 0; l < num_layers; l++) {
    choice[l] = tt__hull_start(layers[l].points, layers[l].count);
    uint64_t bytes = layers[l].points[choice[l]].bytes;
    if (!tt__increase_u64(used, bytes)) return TT_ERROR_MEMORY;
    if (at < 0 || bytes > largest) {
      at = l;
      largest = bytes;
    }
  }
  if (*used <= budget) return TT_OK;
  if (layer) *layer = at;
  return TT_ERROR_UNSUPPORTED;
}

// Greedy by slope. On a hull slopes only fall, so the order of all steps by slope is one in which
// each layer takes its own steps in turn: the optimum of the linear relaxation, up to the first
// step that does not fit. Smaller steps of other layers may still fit behind it.
TTDEF tt_status tt_plan_budget(const tt_plan_layer *layers, int num_layers, uint64_t budget,
                               int *choice, int *layer) {
  uint64_t used;
  tt_status status = tt__plan_start(layers, num_layers, budget, choice, &used, layer);
  for (int moved = 1; moved && !status;) {
    int best = -1, to = -1;
    double steepest = 0;
    for (int l = 0; l < num_layers; l++) {
      const tt_plan_point *points = layers[l].points;
      int next = tt__hull_next(points, layers[l].count, choice[l]);
      // what does not fit now never will: its layer stays where it is
      if (next < 0 || points[next].bytes - points[choice[l]].bytes > budget - used) continue;
      double slope = layers[l].weight * tt__slope(&points[choice[l]], &points[next]);
      if (slope <= steepest) continue;
      best = l;
      to = next;
      steepest = slope;
    }
    moved = best >= 0;
    if (moved) {
      used += layers[best].points[to].bytes - layers[best].points[choice[best]].bytes;
      choice[best] = to;
    }
  }
  return status;
}

// One layer of the dynamic programme: least[c] becomes the least loss of the layers so far in at
// most c parts (DBL_MAX: none fits), picked[c] the point of this layer in it. From above, so that
// least[c - size] still is that of the layers before.
static void tt__plan_row(const tt_plan_layer *layer, uint64_t part, int parts, double *least,
                         int *picked) {
  for (int c = parts; c >= 0; c--) {
    double best = DBL_MAX;
    picked[c] = -1;
    for (int i = 0; i < layer->count; i++) {
      uint64_t size = layer->points[i].bytes / part + (layer->points[i].bytes % part != 0);
      if (size > (uint64_t)c || least[c - (int)size] >= DBL_MAX) continue;
      double loss = least[c - (int)size] + layer->weight * layer->points[i].loss;
      if (loss >= best) continue;
      best = loss;
      picked[c] = i;
    }
    least[c] = best;
  }
}

// Layer by layer; the table of picks leads back from the full budget to the choice.
TTDEF tt_status tt_plan_exact(const tt_plan_layer *layers, int num_layers, uint64_t budget,
                              int bins, const tt_options *given, int *choice, int *layer) {
  tt_options options = tt__options(given);
  uint64_t used;
  if (bins < 0 || bins > 100000000 || !tt__options_valid(given)) return TT_ERROR_INVALID;
  tt_status status = tt__plan_start(layers, num_layers, budget, choice, &used, layer);
  if (status || num_layers == 0) return status;
  if (bins == 0) bins = 10000;
  uint64_t part = budget / (uint64_t)bins + (budget % (uint64_t)bins != 0 || budget == 0);
  int parts = (int)(budget / part);
  tt__pool pool = tt__pool_open(&options.allocator);
  double *least = tt__take_f64(&pool, parts + 1, 1);
  ptrdiff_t row = parts + 1, room = row;
  int *picked = NULL;
  if (tt__multiply(&room, num_layers)) picked = (int *)tt__take(&pool, room, sizeof(int));
  status = picked ? TT_OK : TT_ERROR_MEMORY;
  for (int l = 0; l < num_layers && !status; l++)
    tt__plan_row(&layers[l], part, parts, least, picked + l * row);
  // rounding up to parts may leave nothing that fits: the fewest bytes do
  int left = status || picked[(num_layers - 1) * row + parts] < 0 ? -1 : parts;
  for (int l = num_layers - 1; l >= 0 && left >= 0; l--) {
    choice[l] = picked[l * row + left];
    uint64_t bytes = layers[l].points[choice[l]].bytes;
    left -= (int)(bytes / part + (bytes % part != 0));
  }
  tt__pool_close(&pool);
  return status;
}

// ---- selection by the caller's score

// A selection under way.
typedef struct tt__search {
  const tt_plan_layer *layers;
  int num_layers;
  tt_selection *io;
  tt_plan_layer *probed;                                     // the points left, losses measured
  int *origin;                                               // of a probed point: its given index
  int *first;                                                // of a layer: its first probed point
  int *trial, *target, *order;                               // (num_layers)
  double bound;                                              // the least score that is good
} tt__search;

// Scores the trial; `layer` takes the blame for a failure.
static tt_status tt__score(tt__search *search, int layer, double *score) {
  *score = search->io->eval(search->io->user, search->trial, search->num_layers);
  search->io->num_evals++;
  if (tt__is_finite(*score)) return TT_OK;
  search->io->layer = layer;
  return TT_ERROR_NONFINITE;
}

// Everything that a selection needs, so that a lack of memory shows before the first, dear score.
static tt_status tt__search_open(tt__pool *pool, tt__search *search) {
  ptrdiff_t total = 0, num_layers = search->num_layers;
  for (int l = 0; l < num_layers; l++)
    if (!tt__increase(&total, search->layers[l].count)) return TT_ERROR_MEMORY;
  search->probed = (tt_plan_layer *)tt__take(pool, num_layers, (ptrdiff_t)sizeof(tt_plan_layer));
  search->origin = (int *)tt__take(pool, total, (ptrdiff_t)sizeof(int));
  search->first = (int *)tt__take(pool, num_layers, (ptrdiff_t)sizeof(int));
  search->trial = (int *)tt__take(pool, num_layers, (ptrdiff_t)sizeof(int));
  search->target = (int *)tt__take(pool, num_layers, (ptrdiff_t)sizeof(int));
  search->order = (int *)tt__take(pool, num_layers, (ptrdiff_t)sizeof(int));
  return total > INT_MAX ? TT_ERROR_MEMORY : pool->status;
}

// One probe per layer and candidate: its loss is the drop it causes alone, 0 where the score rose.
// Trusted losses stay as they are.
// A candidate that alone ends below the floor is refused: it leaves the list, which is why the
// probed points have their own numbers. Point 0 is the layer as it is and is never probed.
static tt_status tt__probe(tt__pool *pool, tt__search *search) {
  tt_status status = TT_OK;
  int at = 0;
  for (int l = 0; l < search->num_layers && !status; l++) {
    const tt_plan_layer *given = &search->layers[l];
    search->first[l] = at;
    if (search->io->trust_losses) {
      search->probed[l] = *given;
      for (int i = 0; i < given->count; i++) search->origin[at++] = i;
      continue;
    }
    tt_plan_point *points =
        (tt_plan_point *)tt__take(pool, given->count, (ptrdiff_t)sizeof(tt_plan_point));
    int count = 0;
    if (!points) return pool->status;
    for (int i = 0; i < given->count && !status; i++) {
      double score = search->io->baseline;
      search->trial[l] = i;
      if (i > 0) status = tt__score(search, l, &score);
      if (!status && i > 0 && search->io->floor && score < *search->io->floor) {
        search->io->num_refused++;
        continue;
      }
      points[count].bytes = given->points[i].bytes;
      points[count++].loss = score < search->io->baseline ? search->io->baseline - score : 0;
      search->origin[at++] = i;
    }
    search->trial[l] = 0;
    search->probed[l].points = points;
    search->probed[l].count = count;
    search->probed[l].weight = 1;
  }
  return status;
}

// Drop per saved byte of the target of a layer, which has fewer bytes than point 0.
static double tt__target_price(const tt__search *search, int l) {
  const tt_plan_point *points = search->probed[l].points, *target = &points[search->target[l]];
  double drop = search->probed[l].weight * (target->loss - points[0].loss);
  return drop / (double)(points[0].bytes - target->bytes);
}

// The targets of all layers, and the layers that change, most compressible first (insertion sort;
// equal prices keep the order of the layers). No budget asks for the fewest bytes that are left.
static tt_status tt__find_targets(tt__search *search, int *num_changed) {
  uint64_t budget = search->io->budget, used;
  tt_status status = tt__plan_start(search->probed, search->num_layers, UINT64_MAX, search->target,
                                    &used, NULL);
  if (!status)
    status = tt_plan_budget(search->probed, search->num_layers, budget ? budget : used,
                            search->target, &search->io->layer);
  *num_changed = 0;
  for (int l = 0; l < search->num_layers && !status; l++) {
    const tt_plan_point *points = search->probed[l].points;
    if (points[search->target[l]].bytes >= points[0].bytes) continue; // stays as it is
    double price = tt__target_price(search, l);
    int at = (*num_changed)++;
    for (; at > 0 && price < tt__target_price(search, search->order[at - 1]); at--)
      search->order[at] = search->order[at - 1];
    search->order[at] = l;
  }
  return status;
}

// Sets layers order[begin..end) to their targets, or back to point 0, in the trial. A choice is
// written in the caller's numbers.
static void tt__move(tt__search *search, int begin, int end, int compress) {
  for (int i = begin; i < end; i++) {
    int l = search->order[i];
    search->trial[l] = compress ? search->origin[search->first[l] + search->target[l]] : 0;
  }
}

// Compresses order[0..end), restores what comes later, and scores that; a good state becomes the
// choice. So the choice is the last good state at every moment, whatever the score does next.
static tt_status tt__try_prefix(tt__search *search, int end, int num_changed, int *choice,
                                int *good) {
  double score;
  tt__move(search, 0, end, 1);
  tt__move(search, end, num_changed, 0);
  tt_status status = tt__score(search, search->order[end - 1], &score);
  *good = !status && score >= search->bound;
  if (!*good) return status;
  search->io->score = score;
  memcpy(choice, search->trial, (size_t)search->num_layers * sizeof *choice);
  return TT_OK;
}

// Batch after batch; one that breaks the bound is bisected for its longest good beginning, which is
// the end: later layers cost more drop per byte, and the bound has been reached. Scores need not
// fall with every layer; the bisection then finds a good state next to a bad one all the same.
static tt_status tt__run_batches(tt__search *search, int num_changed, int *choice) {
  int done = 0, good = 1;
  int batch = search->io->batch ? search->io->batch : (num_changed + 7) / 8;
  tt_status status = TT_OK;
  while (done < num_changed && good && !status) {
    int end = num_changed - done > batch ? done + batch : num_changed;
    status = tt__try_prefix(search, end, num_changed, choice, &good);
    if (good) done = end;
    if (good || status) continue;
    while (end - done > 1 && !status) {                      // done is good, end is not
      int middle = done + (end - done) / 2, fine;
      status = tt__try_prefix(search, middle, num_changed, choice, &fine);
      if (fine) done = middle;
      else end = middle;
    }
    search->io->stopped = 1;
    if (!status) search->io->layer = search->order[end - 1];
  }
  return status;
}

// The steps in order: baseline, probes, targets, batches. Without the baseline there is no bound.
static tt_status tt__select(tt__pool *pool, tt__search *search, int *choice) {
  tt_selection *io = search->io;
  int num_changed = 0;
  tt_status status = tt__search_open(pool, search);
  if (!status) status = tt__score(search, -1, &io->baseline);
  if (status) return status;
  io->score = io->baseline;
  if (io->floor && io->baseline < *io->floor) return TT_ERROR_UNSUPPORTED;
  search->bound = io->baseline - io->max_drop;
  if (io->floor && search->bound < *io->floor) search->bound = *io->floor;
  status = tt__probe(pool, search);
  if (!status) status = tt__find_targets(search, &num_changed);
  return status ? status : tt__run_batches(search, num_changed, choice);
}

TTDEF tt_status tt_plan_select(const tt_plan_layer *layers, int num_layers,
                               tt_selection *selection, const tt_options *given, int *choice) {
  tt_options options = tt__options(given);
  tt__search search;
  if (!selection || !selection->eval || !tt__amount(selection->max_drop) || selection->batch < 0 ||
      (selection->floor && !tt__is_finite(*selection->floor)) || !tt__options_valid(given) ||
      !tt__plan_valid(layers, num_layers, choice))
    return TT_ERROR_INVALID;
  selection->baseline = selection->score = 0;
  selection->bytes = 0;
  selection->num_evals = selection->num_refused = selection->stopped = 0;
  selection->layer = -1;
  for (int l = 0; l < num_layers; l++) choice[l] = 0;
  memset(&search, 0, sizeof search);
  search.layers = layers;
  search.num_layers = num_layers;
  search.io = selection;
  tt__pool pool = tt__pool_open(&options.allocator);
  tt_status status = tt__select(&pool, &search, choice);
  tt__pool_close(&pool);
  for (int l = 0; l < num_layers; l++)
    if (!tt__increase_u64(&selection->bytes, layers[l].points[choice[l]].bytes) && !status)
      status = TT_ERROR_MEMORY;
  return status;
}

// ---- decisions

// All factors are whole numbers, so the product is exact or an error; only the kept tokens are
// rounded.
TTDEF tt_status tt_kv_bytes(const tt_kv *kv, uint64_t *bytes) {
  if (bytes) *bytes = 0;
  if (!kv || !bytes || kv->layers < 0 || kv->tokens < 0 || kv->batch < 0 || kv->heads < 0 ||
      kv->head_dim < 0 || kv->bits < 1 || kv->bits > 64 || kv->scale_bytes < 0 ||
      !tt__share(kv->keep))
    return TT_ERROR_INVALID;
  uint64_t kept = (uint64_t)kv->tokens, each = (uint64_t)kv->head_dim, total = 2;
  if (kv->keep < 1) {
    double nearest = floor((double)kv->tokens * kv->keep + 0.5);
    kept = nearest < (double)kept ? (uint64_t)nearest : kept;
  }
  if (!kv->layers || !kept || !kv->batch || !kv->heads) return TT_OK;
  // factors are positive: an intermediate product fits if the result does
  if (!tt__multiply_u64(&each, (uint64_t)kv->bits) || !tt__increase_u64(&each, 7))
    return TT_ERROR_MEMORY;
  each /= 8;
  if (!tt__increase_u64(&each, (uint64_t)kv->scale_bytes) ||
      !tt__multiply_u64(&total, (uint64_t)kv->layers) ||
      !tt__multiply_u64(&total, (uint64_t)kv->batch) ||
      !tt__multiply_u64(&total, (uint64_t)kv->heads) || !tt__multiply_u64(&total, kept) ||
      !tt__multiply_u64(&total, each))
    return TT_ERROR_MEMORY;
  *bytes = total;
  return TT_OK;
}

// Ampere has no FP8 units: forcing FP8 there buys nothing. Ada has the instructions, but whether
// they pay is for a benchmark. Hopper was built for FP8, Blackwell also for FP4.
TTDEF tt_status tt_recommend_format(int sm, tt_format_advice *out) {
  if (out) memset(out, 0, sizeof *out);
  if (!out || sm < 1) return TT_ERROR_INVALID;
  out->dtype = sm < 80 ? TT_F16 : sm < 90 ? TT_I8 : TT_E4M3;
  out->alternative = sm == 89 ? TT_E4M3 : out->dtype;        // Ada has FP8, but gains are not sure
  out->benchmark = sm == 89;
  out->fp4 = sm >= 100;
  return TT_OK;
}

// Index of the smallest candidate within the bound whose action lies in first..last and that has
// fewer than `below` bytes; -1 if there is none.
static int tt__smallest_candidate(const tt_candidate *list, int count, double bound, int first,
                                  int last, size_t below) {
  int best = -1;
  for (int i = 0; i < count; i++) {
    if (list[i].action < first || list[i].action > last || !(list[i].error <= bound)) continue;
    if (list[i].bytes < below && (best < 0 || list[i].bytes < list[best].bytes)) best = i;
  }
  return best;
}

// Three questions in falling order of what they save. The yardstick counts whether or not INT4
// itself holds the bound: a train that needs more bytes than that has not earned its complexity.
TTDEF tt_status tt_decide_layer(const tt_candidate *candidates, int count, const tt_policy *policy,
                                int *index) {
  size_t int4 = 0;                                           // bytes of dense INT4, 0 = not there
  if (index) *index = -1;
  if (!candidates || count < 1 || !policy || !index || !tt__amount(policy->max_func_err))
    return TT_ERROR_INVALID;
  for (int i = 0; i < count; i++) {
    const tt_candidate *c = &candidates[i];
    if (c->action < TT_KEEP_DENSE || c->action > TT_TT_QUANT || !tt__amount(c->error))
      return TT_ERROR_INVALID;
    if (c->action == TT_QUANT_ONLY && c->dtype == TT_I4 && (int4 == 0 || c->bytes < int4))
      int4 = c->bytes;
  }
  double bound = policy->max_func_err;
  *index = tt__smallest_candidate(candidates, count, bound, TT_QUANT_ONLY, TT_TT_QUANT, int4);
  if (*index < 0)
    *index = tt__smallest_candidate(candidates, count, bound, TT_QUANT_ONLY, TT_QUANT_ONLY,
                                    (size_t)-1);
  if (*index < 0)
    *index = tt__smallest_candidate(candidates, count, bound, TT_KEEP_DENSE, TT_KEEP_DENSE,
                                    (size_t)-1);
  return *index < 0 ? TT_ERROR_UNSUPPORTED : TT_OK;
}

// Every figure a number, and those that divide not zero.
static int tt__hardware_valid(const tt_hw *hw) {
  return hw && tt__amount(hw->hbm_bytes) && tt__amount(hw->hbm_bw) && hw->hbm_bw > 0 &&
         tt__amount(hw->peak_flops) && hw->peak_flops > 0 && tt__amount(hw->pcie_bw) &&
         tt__amount(hw->cxl_bw) && hw->sm >= 0;
}

// With a relevance signal from the model only a few entries are read per token, which makes slow
// memory good enough; without one every entry is read every time.
TTDEF tt_status tt_decide_kv(const tt_kv *kv, uint64_t weight_bytes, const tt_hw *hw,
                             const tt_policy *policy, int *place, uint64_t *bytes) {
  if (bytes) *bytes = 0;
  if (!kv || !tt__hardware_valid(hw) || !policy || !place || !bytes) return TT_ERROR_INVALID;
  tt_kv kept = *kv;
  kept.keep = policy->sparse_attention ? policy->kv_keep : 1;
  *place = policy->sparse_attention ? TT_KV_SELECTIVE : TT_KV_HBM;
  tt_status status = tt_kv_bytes(&kept, bytes);
  if (status) return status;
  int off_chip = hw->pcie_bw > 0 || hw->cxl_bw > 0;
  uint64_t total = *bytes;
  if (policy->sparse_attention) return off_chip ? TT_OK : TT_ERROR_UNSUPPORTED;
  if (tt__increase_u64(&total, weight_bytes) && (double)total <= hw->hbm_bytes) return TT_OK;
  *place = hw->cxl_bw > hw->pcie_bw ? TT_KV_CXL : TT_KV_PCIE;
  return off_chip ? TT_OK : TT_ERROR_UNSUPPORTED;
}

// The roofline of each layer; layers run one after the other, reading and computing overlap.
TTDEF tt_status tt_token_latency(const tt_layer_cost *layers, int num_layers, double kv_bytes,
                                 int place, const tt_hw *hw, double *seconds) {
  double total = 0;
  if (!tt__hardware_valid(hw) || !seconds || num_layers < 0 || (num_layers > 0 && !layers) ||
      !tt__amount(kv_bytes) || place < TT_KV_HBM || place > TT_KV_SELECTIVE)
    return TT_ERROR_INVALID;
  for (int l = 0; l < num_layers; l++) {
    if (!tt__amount(layers[l].bytes) || !tt__amount(layers[l].flops)) return TT_ERROR_INVALID;
    double reading = layers[l].bytes / hw->hbm_bw, computing = layers[l].flops / hw->peak_flops;
    total += reading > computing ? reading : computing;
  }
  double selective = hw->pcie_bw > 0 ? hw->pcie_bw : hw->cxl_bw;
  double bandwidth = place == TT_KV_HBM ? hw->hbm_bw : place == TT_KV_PCIE ? hw->pcie_bw
                     : place == TT_KV_CXL ? hw->cxl_bw : selective;
  if (bandwidth <= 0) return TT_ERROR_UNSUPPORTED;
  *seconds = total + kv_bytes / bandwidth;
  return TT_OK;
}

// Does the plan fit memory, latency and, where it was evaluated, quality?
static int tt__demand_met(const tt_demand *plan, const tt_hw *hw, const tt_policy *policy) {
  uint64_t total = plan->weight_bytes;
  if (!tt__increase_u64(&total, plan->scratch_bytes)) return 0;
  if (plan->place == TT_KV_HBM && !tt__increase_u64(&total, plan->kv_bytes)) return 0;
  if ((double)total > hw->hbm_bytes) return 0;
  if (policy->max_latency > 0 && plan->latency > policy->max_latency) return 0;
  return !plan->evaluated || plan->quality_drop <= policy->max_quality_drop;
}

TTDEF tt_status tt_decide_budget(const tt_demand *plans, int count, const tt_hw *hw,
                                 const tt_policy *policy, int *verdict, int *index) {
  if (!plans || count < 1 || !tt__hardware_valid(hw) || !policy || !verdict || !index ||
      !tt__amount(policy->max_quality_drop) || !tt__amount(policy->max_latency))
    return TT_ERROR_INVALID;
  for (int i = 0; i < count; i++)
    if (plans[i].place < TT_KV_HBM || plans[i].place > TT_KV_SELECTIVE ||
        !tt__amount(plans[i].latency) ||
        (plans[i].evaluated && !tt__is_finite(plans[i].quality_drop)))
      return TT_ERROR_INVALID;
  *verdict = TT_USE_SMALLER_MODEL;
  *index = -1;
  for (int i = count - 1; i >= 0; i--)                       // the first that fits wins
    if (tt__demand_met(&plans[i], hw, policy)) *index = i;
  if (*index >= 0) *verdict = *index == 0 && plans[0].evaluated ? TT_DEPLOY : TT_RETUNE;
  return TT_OK;
}
// ------------------------------------------------------------------------------------------ >>bits
// A budget of bytes over the cores of one train. Each core has a few formats with their bytes and
// their relative errors, measured on that core alone; the law says that squares of errors add up,
// so choosing formats is the problem of choosing points of layers, which >>plan solves. What the
// law makes of the whole depends on the gauge: where it may change, each is tried and measured.

enum { TT__MOST_FORMATS = 7 };

// Formats that a core may take, the finest first. Returns their number.
static int tt__core_formats(const tt_options *options, int limited, tt_core formats[]) {
  static const tt_dtype dtypes[TT__MOST_FORMATS] = {TT_I8, TT_I8, TT_I4, TT_I4,
                                                    TT_I3, TT_I2, TT_I2};
  static const int groups[TT__MOST_FORMATS] = {TT_GROUP_ROW, 0,  32,          TT_GROUP_ROW,
                                               32,           32, TT_GROUP_ROW};
  int count = 0;
  memset(formats, 0, TT__MOST_FORMATS * sizeof *formats);
  if (!limited) {
    formats[0].dtype = options->dtype;
    formats[0].group = tt__group_of(options);
    return 1;
  }
  for (int f = 0; f < TT__MOST_FORMATS; f++) {
    if (groups[f] > 0 && options->group == TT_GROUP_ROW) continue;
    formats[count].dtype = dtypes[f];
    formats[count++].group = groups[f];
  }
  return count;
}

// Chooses formats for a header that has the shape of w: within `bytes` for all cores, or the only
// one where that is 0.
static tt_status tt__choose_formats(tt__pool *pool, const tt_matrix *w, size_t bytes,
                                    const tt_options *options, tt_matrix *header) {
  tt_core formats[TT__MOST_FORMATS];
  int count = tt__core_formats(options, bytes > 0, formats), choice[TT_MAX_ORDER] = {0};
  tt_plan_point points[TT_MAX_ORDER][TT__MOST_FORMATS];
  tt_plan_layer layers[TT_MAX_ORDER];
  tt_options own = *options;
  tt_status status = TT_OK;
  own.bias = NULL;
  for (int f = 0; f < count && !status; f++) {
    tt_matrix coded;
    memset(&coded, 0, sizeof coded);
    for (int k = 0; k < w->shape.order; k++) {
      header->cores[k].dtype = formats[f].dtype;
      header->cores[k].group = formats[f].group;
    }
    status = tt__quantize_clipped(pool, w, header, &own, &coded);
    for (int k = 0; k < w->shape.order && !status; k++) {
      ptrdiff_t data, scales;
      double error = tt__core_error(pool, w, &coded, k);
      tt__core_sizes(&coded, k, &data, &scales);
      points[k][f].bytes = (uint64_t)(data + scales + (formats[f].group < 0 ? 0 : 4));
      points[k][f].loss = error * error;
      layers[k].points = points[k];
      layers[k].count = count;
      layers[k].weight = 1;
    }
    tt_free(&coded);
    if (!status) status = pool->status;
  }
  if (!status && bytes) {
    // rounding to parts of the budget may find none where one is left
    status = tt_plan_exact(layers, w->shape.order, bytes, 0, options, choice, NULL);
    if (status == TT_ERROR_UNSUPPORTED)
      status = tt_plan_budget(layers, w->shape.order, bytes, choice, NULL);
  }
  for (int k = 0; k < w->shape.order; k++) {
    header->cores[k].dtype = formats[choice[k]].dtype;
    header->cores[k].group = formats[choice[k]].group;
  }
  return status;
}

// w in another gauge, as F64 and in the sweep of w.
static tt_status tt__change_gauge(const tt_matrix *w, int gauge, const tt_options *options,
                                  tt_matrix *out) {
  tt_options own;
  tt_matrix natural;
  memset(&own, 0, sizeof own);
  memset(out, 0, sizeof *out);
  own.dtype = TT_F64;
  own.allocator = options->allocator;
  if (gauge == TT_GAUGE_KEEP) return tt_turn(w, w->sweep, &own, out);
  tt_status status = gauge == TT_GAUGE_BALANCED
                         ? tt_balance(w, &own, &natural)
                         : tt_orthogonalize(w, w->shape.order - 1, &own, &natural);
  if (!status) status = tt_turn(&natural, w->sweep, &own, out);
  tt_free(&natural);
  return status;
}

// Quantisation in one gauge, measured.
static tt_status tt__quantize_gauge(tt__pool *pool, const tt_matrix *w, size_t bytes, int gauge,
                                    const tt_options *options, tt_matrix *out, tt_report *report) {
  tt_matrix turned;
  tt_status status = tt__change_gauge(w, gauge, options, &turned);
  tt_matrix header = tt__header(&turned.shape, w->rows, w->cols, TT_I8, 0);
  header.sweep = w->sweep;
  if (!status) status = tt__choose_formats(pool, &turned, bytes, options, &header);
  if (!status) status = tt__quantize_clipped(pool, &turned, &header, options, out);
  if (!status) status = tt__measure(pool, w, out, report);
  if (!status) report->predicted_error = tt__predicted_error(pool, &turned, out);
  if (!status) status = pool->status;
  if (status) tt_free(out);
  tt_free(&turned);
  return status;
}

TTDEF tt_status tt_quantize_budget(const tt_matrix *w, size_t bytes, const tt_options *given,
                                   tt_matrix *out, tt_report *report) {
  tt_options options;
  tt_report best = tt__new_report();
  if (report) *report = best;
  tt_status status = tt__enter(w, given, out, &options);
  if (status) return status;
  if (tt__is_calibrated(&options)) return TT_ERROR_UNSUPPORTED;
  if (!bytes && !tt__is_integer(options.dtype)) return TT_ERROR_INVALID;
  if (!options.clip) options.clip = TT_CLIP_LARGEST;
  size_t fixed = w->bias || options.bias ? (size_t)w->rows * sizeof(float) : 0;
  if (bytes && bytes <= fixed) return TT_ERROR_UNSUPPORTED;
  tt__pool pool = tt__pool_open(&options.allocator);
  int every = options.gauge == TT_GAUGE_BEST;
  for (int gauge = 0; gauge < TT_GAUGE_BEST && !status; gauge++) {
    tt_report own = tt__new_report();
    tt_matrix coded;
    if (!every && gauge != options.gauge) continue;
    memset(&coded, 0, sizeof coded);
    status = tt__quantize_gauge(&pool, w, bytes ? bytes - fixed : 0, gauge, &options, &coded, &own);
    if (!status && (!out->block || own.relative_error < best.relative_error)) {
      tt_free(out);
      *out = coded;
      best = own;
    } else {
      tt_free(&coded);
    }
  }
  tt__pool_close(&pool);
  if (status)
    tt_free(out);
  else if (report)
    *report = best;
  return status;
}
#endif // TT_INFERENCE_ONLY
#endif // TT_IMPLEMENTATION

/* VERSION HISTORY
     0.1.0  first version: SVD, TT-SVD, algebra, rounding, spectra, formats, forward pass, rows,
            fits to inputs, gradients, optimisers, planning, files

   LICENCE
   This software is available under two licences: choose whichever you prefer.
   ------------------------------------------------------------------------------
   ALTERNATIVE A - MIT License
   Copyright (c) 2026 the tt.h authors
   Permission is hereby granted, free of charge, to any person obtaining a copy of
   this software and associated documentation files (the "Software"), to deal in
   the Software without restriction, including without limitation the rights to
   use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies
   of the Software, and to permit persons to whom the Software is furnished to do
   so, subject to the following conditions:
   The above copyright notice and this permission notice shall be included in all
   copies or substantial portions of the Software.
   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
   IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
   FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
   AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
   LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
   OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
   SOFTWARE.
   ------------------------------------------------------------------------------
   ALTERNATIVE B - Public Domain (www.unlicense.org)
   This is free and unencumbered software released into the public domain.
   Anyone is free to copy, modify, publish, use, compile, sell, or distribute this
   software, either in source code form or as a compiled binary, for any purpose,
   commercial or non-commercial, and by any means.
   In jurisdictions that recognize copyright laws, the author or authors of this
   software dedicate any and all copyright interest in the software to the public
   domain. We make this dedication for the benefit of the public at large and to
   the detriment of our heirs and successors. We intend this dedication to be an
   overt act of relinquishment in perpetuity of all present and future rights to
   this software under copyright law.
   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
   IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
   FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
   AUTHORS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN
   ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION
   WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
