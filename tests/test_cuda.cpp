// Tests of tt_cuda.h against tt.h and sums in double. The same source runs on the emulation of
// cudaemu.h (-DTT_CUDA_EMU -include cudaemu.h) and, compiled by nvcc, on a GPU.
//   test_cuda [all|quick|races [NAME]]
// races is one small test, quick is smaller trains and fewer of them, NAME a single test. The last
// lines are a digest of all results, which must not depend on the order of threads nor change from
// run to run, and "N passed, N failed".
// Without a GPU the nvcc build says "gpu: not present, N tests not run" and fails nothing.
#include "test.h"

#define TT_CUDA_IMPLEMENTATION
#include "../tt_cuda.h"

static tt_cuda_context *gpu;
static cudaStream_t stream;
static tt_sha256 digest;
static int quick;

// ------------------------------------------------------------------------------- memory and trains

static void *device(ptrdiff_t size) { // filled with NaN
  void *block = NULL, *poison = malloc((size_t)size + 1);
  CHECK(cudaMalloc(&block, (size_t)(size > 0 ? size : 1)) == cudaSuccess && poison);
  if (poison) memset(poison, 0xFF, (size_t)size);
  if (size) CHECK(cudaMemcpy(block, poison, (size_t)size, cudaMemcpyHostToDevice) == cudaSuccess);
  free(poison);
  return block;
}
static void *device_copy(const void *from, ptrdiff_t size) {
  void *block = device(size);
  if (size) CHECK(cudaMemcpy(block, from, (size_t)size, cudaMemcpyHostToDevice) == cudaSuccess);
  return block;
}
static void fetch(void *to, const void *from, ptrdiff_t size) {
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  if (size) CHECK(cudaMemcpy(to, from, (size_t)size, cudaMemcpyDeviceToHost) == cudaSuccess);
  tt_sha256_add(&digest, to, (size_t)size);
}

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}
static float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

// Fills the codes and scales of every core with numbers of the size of 1.
static void fill(tt_matrix *w) {
  for (int k = 0; k < w->shape.order; k++) {
    tt_core *core = &w->cores[k];
    size_t packed, row_size, scales;
    int bits = tt__cuda_code_bits(core->dtype), top = bits == 4 ? 7 : 127;
    int forward = w->sweep == TT_LEFT_TO_RIGHT;
    int rows = w->shape.rows[k] * w->shape.ranks[k + forward];
    int length = w->shape.cols[k] * w->shape.ranks[k + !forward];
    tt__cuda_core_sizes(w, k, &packed, &row_size, &scales);
    unsigned char *row = (unsigned char *)core->data;
    for (int i = 0; i < rows; i++, row += packed)
      for (int j = 0; j < length; j++) {
        float value = (float)test_normal();
        uint16_t code = (uint16_t)tt_from_f32(core->dtype, value, 1);
        int integer = test_below(2 * top + 1) - top;
        if (core->dtype == TT_F32)
          memcpy(row + 4 * j, &value, 4);
        else if (bits == 16)
          memcpy(row + 2 * j, &code, 2);
        else if (core->dtype == TT_I4)
          row[j / 2] = (unsigned char)(row[j / 2] | (integer & 15) << (j % 2 * 4));
        else
          row[j] = core->dtype == TT_I8 ? (unsigned char)integer : (unsigned char)code;
      }
    for (size_t i = 0; i < scales; i += core->group > 0 ? 2 : 4) {
      float scale = (float)(0.5 + test_uniform());
      uint16_t code = (uint16_t)tt_from_f32(TT_F16, scale, 1);
      memcpy((unsigned char *)core->scales + i, core->group > 0 ? (void *)&code : (void *)&scale,
             core->group > 0 ? 2 : 4);
    }
    core->scale = (float)(0.5 + test_uniform());
  }
  for (ptrdiff_t i = 0; w->bias && i < w->rows; i++) ((float *)w->bias)[i] = (float)test_normal();
}

typedef struct form { // of a train
  int order, rows[TT_MAX_ORDER], cols[TT_MAX_ORDER], ranks[TT_MAX_ORDER + 1];
} form;
static const form forms[] = {{1, {1}, {1}, {1, 1}},  // one number
                             {1, {7}, {13}, {1, 1}}, // dense
                             {1, {130}, {37}, {1, 1}},
                             {1, {3}, {1030}, {1, 1}},         // longer than one round of a block
                             {2, {33, 1}, {1, 41}, {1, 5, 1}}, // low rank
                             {2, {1, 70}, {6, 1}, {1, 17, 1}},
                             {2, {5, 3}, {4, 6}, {1, 1, 1}},
                             {2, {5, 3}, {4, 6}, {1, 7, 1}},
                             {2, {8, 8}, {8, 8}, {1, 8, 1}},
                             {2, {16, 4}, {4, 16}, {1, 9, 1}},
                             {2, {11, 13}, {17, 3}, {1, 16, 1}},
                             {2, {9, 20}, {5, 70}, {1, 15, 1}},
                             {3, {3, 5, 2}, {2, 3, 7}, {1, 4, 3, 1}},
                             {3, {4, 4, 4}, {4, 4, 4}, {1, 7, 8, 1}},
                             {3, {4, 5, 6}, {1, 1, 1}, {1, 4, 3, 1}}, // a tensor as a column
                             {4, {1, 1, 4, 16}, {4, 16, 1, 1}, {1, 4, 8, 4, 1}}, // a plain train
                             {4, {2, 3, 2, 3}, {3, 2, 3, 2}, {1, 2, 5, 3, 1}},
                             {5, {2, 1, 3, 1, 2}, {1, 3, 1, 2, 2}, {1, 2, 1, 3, 2, 1}},
                             {16,
                              {1, 1, 2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2},
                              {2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 3, 1, 1, 1, 1},
                              {1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1}}};
enum { FORMS = sizeof forms / sizeof *forms };

// A train with true sizes below the products of its factors where `padded`.
static tt_matrix build(const form *f, tt_dtype dtype, int group, int sweep, int padded, int bias) {
  tt_matrix w;
  memset(&w, 0, sizeof w);
  w.shape = test_shape(f->order, f->rows, f->cols, f->ranks);
  w.sweep = sweep;
  w.rows = tt__cuda_legs(&w.shape, 0, f->order, 1);
  w.cols = tt__cuda_legs(&w.shape, 0, f->order, 0);
  if (padded && w.rows > 2) w.rows -= 1;
  if (padded && w.cols > 2) w.cols -= 2;
  for (int k = 0; k < f->order; k++) {
    w.cores[k].dtype = dtype;
    w.cores[k].group = group;
  }
  w.block = test_new((ptrdiff_t)tt__cuda_lay_out(&w, bias, NULL), 1);
  tt__cuda_lay_out(&w, bias, (unsigned char *)w.block);
  fill(&w);
  return w;
}

static const tt_dtype formats[] = {TT_F32, TT_F16, TT_BF16, TT_E4M3, TT_E5M2, TT_I8, TT_I4};
enum { FORMATS = sizeof formats / sizeof *formats };

static tt_cuda_matrix *upload(const tt_matrix *w) {
  tt_cuda_matrix *made = NULL;
  CHECK_STATUS(tt_cuda_upload(gpu, w, &made, stream), TT_OK);
  return made;
}

// -------------------------------------------------------------------------------------- the oracle

static double read16(tt_dtype dtype, const void *data, ptrdiff_t i) {
  if (dtype == TT_F32) return (double)((const float *)data)[i];
  return (double)tt_to_f32(dtype, ((const uint16_t *)data)[i]);
}
static void write16(tt_dtype dtype, void *data, ptrdiff_t i, double value) {
  if (dtype == TT_F32)
    ((float *)data)[i] = (float)value;
  else
    ((uint16_t *)data)[i] = (uint16_t)tt_from_f32(dtype, (float)value, 0);
}

// Errors that remain: sums in float; rounding of 16-bit results, factors and states.
static double tolerance(tt_dtype dtype) {
  return dtype == TT_F32 ? 2e-6 : dtype == TT_F16 ? 6e-4 : 6e-3;
}

static double worst; // of all applies in float, over the tolerance

// Runs one apply in a workspace of exactly the right size and compares it with the dense matrix in
// double. Elements of y between the rows must stay as they were.
static void check_apply(const tt_cuda_matrix *d_w, const tt_matrix *w, const double *dense,
                        tt_cuda_args args) {
  ptrdiff_t ldx = args.ldx ? args.ldx : w->cols, ldy = args.ldy ? args.ldy : w->rows;
  ptrdiff_t each = args.dtype == TT_F32 ? 4 : 2, x_size = args.batch * ldx * each;
  ptrdiff_t y_size = args.batch * ldy * each;
  tt_cuda_plan plan;
  void *x = test_new(x_size, 1), *y = test_new(y_size, 1), *got = test_new(y_size, 1);
  for (ptrdiff_t i = 0; i < args.batch * ldx; i++)
    write16(args.dtype, x, i, i % ldx < w->cols ? test_normal() : NAN); // never read
  for (ptrdiff_t i = 0; i < args.batch * ldy; i++) write16(args.dtype, y, i, test_normal());
  CHECK_STATUS(tt_cuda_plan_apply(d_w, &args, &plan), TT_OK);
  void *d_x = device_copy(x, x_size), *d_y = device_copy(y, y_size);
  void *work = device((ptrdiff_t)plan.work_size);
  if (args.beta == 0) // not read then: may be NaN
    for (ptrdiff_t i = 0; i < args.batch; i++)
      memset((char *)y + i * ldy * each, 0xFF, (size_t)(w->rows * each));
  CHECK(cudaMemcpy(d_y, y, (size_t)y_size, cudaMemcpyHostToDevice) == cudaSuccess || !y_size);
  args.d_x = d_x;
  args.d_y = d_y;
#ifdef TT_CUDA_EMU
  long before = emu::num_launches, others = emu::num_syncs + emu::num_allocs + emu::num_frees +
                                            emu::num_default_stream + emu::num_attributes;
#endif
  CHECK_STATUS(tt_cuda_apply_ex(d_w, &args, work, plan.work_size, stream), TT_OK);
#ifdef TT_CUDA_EMU
  CHECK(emu::num_launches - before == (args.batch ? plan.num_launches : 0));
  CHECK(others == emu::num_syncs + emu::num_allocs + emu::num_frees + emu::num_default_stream +
                      emu::num_attributes);
#endif
  fetch(got, d_y, y_size);
  double alpha = args.alpha == 0 ? 1 : (double)args.alpha, error = 0, norm = 0;
  int kept = 1;
  for (ptrdiff_t b = 0; b < args.batch; b++) {
    for (ptrdiff_t i = 0; i < w->rows; i++) {
      double sum = w->bias ? (double)w->bias[i] : 0, size = sum * sum;
      for (ptrdiff_t j = 0; j < w->cols; j++) {
        double term = dense[i * w->cols + j] * read16(args.dtype, x, b * ldx + j);
        sum += term;
        size += term * term; // what is summed may cancel
      }
      sum *= alpha;
      if (args.beta != 0) sum += (double)args.beta * read16(args.dtype, y, b * ldy + i);
      double off = read16(args.dtype, got, b * ldy + i) - sum;
      error += off * off;
      norm += alpha * alpha * size + sum * sum;
    }
    kept &= !memcmp((char *)got + (b * ldy + w->rows) * each,
                    (char *)y + (b * ldy + w->rows) * each, (size_t)((ldy - w->rows) * each));
  }
  double relative = norm > 0 ? sqrt(error / norm) : 0;
  CHECK(kept);
  CHECK_AT_MOST(relative, tolerance(args.dtype));
  if (args.dtype == TT_F32 && relative > worst) worst = relative;
  cudaFree(d_x);
  cudaFree(d_y);
  cudaFree(work);
  free(x);
  free(y);
  free(got);
}

static tt_cuda_args plain(ptrdiff_t batch, tt_cuda_path path) {
  tt_cuda_args args;
  memset(&args, 0, sizeof args);
  args.batch = batch;
  args.path = path;
  return args;
}

// ------------------------------------------------------------------------------------------- tests

typedef struct decode_args {
  float *f16, *e4m3, *e5m2;
} decode_args;
typedef struct encode_args {
  const float *from;
  uint16_t *f16, *bf16;
} encode_args;
static __global__ void __launch_bounds__(256) k_decode(const decode_args a) {
  uint32_t i = blockIdx.x * 256 + threadIdx.x;
  a.f16[i] = tt__cuda_from_f16(i);
  if (i < 256) a.e4m3[i] = tt__cuda_from_e4m3(i);
  if (i < 256) a.e5m2[i] = tt__cuda_from_f16(i << 8);
}
static __global__ void __launch_bounds__(256) k_encode(const encode_args a) {
  uint32_t i = blockIdx.x * 256 + threadIdx.x;
  a.f16[i] = (uint16_t)tt__cuda_to_f16(a.from[i]);
  a.bf16[i] = (uint16_t)tt__cuda_to_bf16(a.from[i]);
}

// Every code of every small float, and floats around every one of them, bit for bit.
static void test_numbers(void) {
  enum { ALL = 65536, VALUES = 3 * ALL };
  float *f16 = test_floats(ALL), *small = test_floats(512), *from = test_floats(VALUES);
  uint16_t *codes = (uint16_t *)test_new(2 * VALUES, 2);
  decode_args d = {(float *)device(4 * ALL), (float *)device(1024), (float *)device(1024)};
  CHECK(TT__CUDA_LAUNCH(k_decode, ALL / 256, 256, 0, stream, d) == cudaSuccess);
  fetch(f16, d.f16, 4 * ALL);
  fetch(small, d.e4m3, 1024);
  fetch(small + 256, d.e5m2, 1024);
  int right = 1;
  for (unsigned i = 0; i < ALL; i++) right &= bits_of(f16[i]) == bits_of(tt_to_f32(TT_F16, i));
  CHECK(right);
  for (unsigned i = 0; i < 256; i++) {
    right &= bits_of(small[i]) == bits_of(tt_to_f32(TT_E4M3, i));
    right &= bits_of(small[256 + i]) == bits_of(tt_to_f32(TT_E5M2, i));
  }
  CHECK(right);
  for (unsigned i = 0; i < ALL; i++) { // f16 values, halfway cases, and all exponents
    from[3 * i] = float_of(bits_of(f16[i]) + 0x1000);
    from[3 * i + 1] = float_of(bits_of(f16[i]) + 0xfff + (i & 2));
    from[3 * i + 2] = float_of((i << 16) | (i * 40503u & 0xffff));
  }
  encode_args e = {(float *)device_copy(from, 4 * VALUES), (uint16_t *)device(2 * VALUES),
                   (uint16_t *)device(2 * VALUES)};
  CHECK(TT__CUDA_LAUNCH(k_encode, VALUES / 256, 256, 0, stream, e) == cudaSuccess);
  fetch(codes, e.f16, 2 * VALUES);
  fetch(codes + VALUES, e.bf16, 2 * VALUES);
  for (int i = 0; i < VALUES; i++) {
    right &= codes[i] == tt_from_f32(TT_F16, from[i], 0);
    right &= codes[VALUES + i] == tt_from_f32(TT_BF16, from[i], 0);
  }
  CHECK(right);
  cudaFree(d.f16);
  cudaFree(d.e4m3);
  cudaFree(d.e5m2);
  cudaFree((void *)e.from);
  cudaFree(e.f16);
  cudaFree(e.bf16);
  free(f16);
  free(small);
  free(from);
  free(codes);
}

typedef struct mma_args {
  const float *a, *b;
  float *sum;
} mma_args;
static __global__ void __launch_bounds__(32) k_mma(const mma_args f) {
  int g = (int)threadIdx.x / 4, t = (int)threadIdx.x % 4;
  const float *a = f.a + 8 * g + t, *b = f.b + 8 * t + g;
  float left[4] = {a[0], a[64], a[4], a[68]}, right[2] = {b[0], b[32]}, low[2], high[2];
  float *sum = f.sum + 8 * g + 2 * t;
  for (int k = 0; k < 2; k++) {
    low[k] = sum[k];
    high[k] = sum[64 + k];
  }
  tt__cuda_mma(low, high, left, right);
  for (int k = 0; k < 2; k++) {
    sum[k] = low[k];
    sum[64 + k] = high[k];
  }
}

// One instruction of the tensor cores on integers, which are exact: every number in its place.
static void test_mma(void) {
  float a[16 * 8], b[8 * 8], sum[16 * 8], got[16 * 8];
  for (int i = 0; i < 16 * 8; i++) a[i] = (float)(test_below(1000) - 500);
  for (int i = 0; i < 8 * 8; i++) b[i] = (float)(test_below(1000) - 500);
  for (int i = 0; i < 16 * 8; i++) sum[i] = (float)(test_below(1000) - 500);
  mma_args f = {(float *)device_copy(a, sizeof a), (float *)device_copy(b, sizeof b),
                (float *)device_copy(sum, sizeof sum)};
  CHECK(TT__CUDA_LAUNCH(k_mma, 1, 32, 0, stream, f) == cudaSuccess);
  fetch(got, f.sum, sizeof got);
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 8; j++) {
      for (int k = 0; k < 8; k++) sum[8 * i + j] += a[8 * i + k] * b[8 * k + j];
      CHECK(got[8 * i + j] == sum[8 * i + j]);
    }
  cudaFree((void *)f.a);
  cudaFree((void *)f.b);
  cudaFree(f.sum);
}

// The same in BF16: a (16, 16) and b (8, 16), both by rows, go through shared memory.
typedef struct mma_bf16_args {
  const uint16_t *a, *b;
  float *sum;
} mma_bf16_args;
static __global__ void __launch_bounds__(32) k_mma_bf16(const mma_bf16_args f) {
  __shared__ __align__(16) uint16_t a[256], b[256];
  int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
  uint32_t left[4], right[4]; // of the second, only half is there
  float sum[4];
  tt__cuda_copy_ahead(a + 8 * lane, f.a + 8 * lane, 16);
  tt__cuda_close_copies();
  tt__cuda_copy_ahead(b + 8 * lane, f.b + 8 * (lane % 16), lane < 16 ? 16 : 0);
  tt__cuda_close_copies();
  tt__cuda_wait_copies<0>();
  __syncwarp();
  tt__cuda_load_matrices(a + lane % 16 * 16 + lane / 16 * 8, left);
  tt__cuda_load_matrices(b + lane / 16 * 128 + lane % 8 * 16 + lane / 8 % 2 * 8, right);
  for (int k = 0; k < 4; k++) sum[k] = f.sum[8 * (g + k / 2 * 8) + 2 * t + k % 2];
  tt__cuda_mma_bf16(sum, left, right);
  tt__cuda_mma_bf16(sum, left, right + 2); // zeros
  for (int k = 0; k < 4; k++) f.sum[8 * (g + k / 2 * 8) + 2 * t + k % 2] = sum[k];
}

static void test_mma_bf16(void) {
  uint16_t a[256], b[128];
  float sum[128], got[128];
  for (int i = 0; i < 256; i++) write16(TT_BF16, a, i, test_below(511) - 255);
  for (int i = 0; i < 128; i++) write16(TT_BF16, b, i, test_below(511) - 255);
  for (int i = 0; i < 128; i++) sum[i] = (float)(test_below(1000) - 500);
  mma_bf16_args f = {(uint16_t *)device_copy(a, sizeof a), (uint16_t *)device_copy(b, sizeof b),
                     (float *)device_copy(sum, sizeof sum)};
  CHECK(TT__CUDA_LAUNCH(k_mma_bf16, 1, 32, 0, stream, f) == cudaSuccess);
  fetch(got, f.sum, sizeof got);
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 8; j++) {
      double expected = (double)sum[8 * i + j];
      for (int k = 0; k < 16; k++)
        expected += read16(TT_BF16, a, 16 * i + k) * read16(TT_BF16, b, 16 * j + k);
      CHECK((double)got[8 * i + j] == expected);
    }
  cudaFree((void *)f.a);
  cudaFree((void *)f.b);
  cudaFree(f.sum);
}

// Every form in both sweeps, all formats in turn, all paths, several batches.
static void test_forms(void) {
  static const int batches[] = {1, 2, 17, 65, 0};
  for (int i = 0; i < FORMS; i++)
    for (int variant = 0; variant < (quick ? 2 : 2 * FORMATS); variant++) {
      int sweep = variant % 2, format = (variant / 2 + (quick ? i : 0)) % FORMATS;
      int group = formats[format] < TT_I8  ? 0
                  : (i + variant) % 3 == 0 ? 0
                  : (i + variant) % 3 == 1 ? TT_GROUP_ROW
                                           : 5;
      tt_matrix w =
          build(&forms[i], formats[format], group, sweep, variant / 2 % 2, variant % 3 > 0);
      double *dense = test_doubles(w.rows * w.cols);
      CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
      tt_cuda_matrix *d_w = upload(&w);
      for (int b = quick ? 1 + i % 2 : 0; b < (quick ? 2 + i % 2 : 5); b++)
        for (int path = quick ? 1 - i % 2 : 0; path <= TT_CUDA_DENSE; path++)
          check_apply(d_w, &w, dense, plain(batches[b], (tt_cuda_path)path));
      tt_cuda_free(d_w);
      tt_free(&w);
      free(dense);
    }
}

// Groups of every length, and cores of different formats in one train.
static void test_groups(void) {
  for (int group = 1; group <= (quick ? 5 : 40); group += quick ? 2 : 3) {
    tt_matrix w = build(&forms[11], group % 2 ? TT_I8 : TT_I4, group, group / 2 % 2, 0, 1);
    double *dense = test_doubles(w.rows * w.cols);
    CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
    tt_cuda_matrix *d_w = upload(&w);
    for (int path = TT_CUDA_FUSED; path <= TT_CUDA_DENSE; path++)
      check_apply(d_w, &w, dense, plain(3, (tt_cuda_path)path));
    tt_cuda_free(d_w);
    tt_free(&w);
    free(dense);
  }
  tt_matrix low = build(&forms[12], TT_I4, 8, 0, 0, 1),
            high = build(&forms[12], TT_F16, 0, 0, 0, 1);
  low.cores[1] = high.cores[1];
  double *dense = test_doubles(low.rows * low.cols);
  CHECK_STATUS(tt_expand_f64(&low, dense), TT_OK);
  tt_cuda_matrix *d_w = upload(&low);
  for (int path = TT_CUDA_FUSED; path <= TT_CUDA_DENSE; path++)
    check_apply(d_w, &low, dense, plain(5, (tt_cuda_path)path));
  tt_cuda_free(d_w);
  tt_free(&low);
  tt_free(&high);
  free(dense);
}

// Leading dimensions, storage of x and y, alpha and beta.
static void test_args(void) {
  static const tt_dtype types[] = {TT_F32, TT_F16, TT_BF16};
  static const int which[] = {1, 4, 10, 12, 16};
  for (int i = 0; i < 5; i++)
    for (int t = 0; t < 3; t++)
      for (int path = TT_CUDA_FUSED; path <= TT_CUDA_DENSE; path++) {
        if (quick && (i + t) % 3 != path - 1) continue;
        tt_matrix w = build(&forms[which[i]], TT_BF16, 0, (i + t) % 2, t % 2, 1);
        double *dense = test_doubles(w.rows * w.cols);
        CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
        tt_cuda_matrix *d_w = upload(&w);
        tt_cuda_args args = plain(7, (tt_cuda_path)path);
        args.dtype = types[t];
        check_apply(d_w, &w, dense, args);
        args.ldx = w.cols + 3;
        args.ldy = w.rows + 5;
        args.alpha = -0.75f;
        check_apply(d_w, &w, dense, args);
        args.beta = 0.5f;
        check_apply(d_w, &w, dense, args);
        if (t && path != TT_CUDA_FUSED) { // as on a device without tensor cores
          int tensor = gpu->tensor;
          gpu->tensor = 0;
          check_apply(d_w, &w, dense, args);
          gpu->tensor = tensor;
        }
        tt_cuda_free(d_w);
        tt_free(&w);
        free(dense);
      }
  static const form wide = {1, {3}, {1032}, {1, 1}}; // a block for a row, fours at once
  tt_matrix w = build(&wide, TT_F16, 0, 0, 0, 1);
  double *dense = test_doubles(w.rows * w.cols);
  CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
  tt_cuda_matrix *d_w = upload(&w);
  for (int t = 0; t < 3; t++) {
    tt_cuda_args args = plain(2, TT_CUDA_CHAIN);
    args.dtype = types[t];
    check_apply(d_w, &w, dense, args);
  }
  tt_cuda_free(d_w);
  tt_free(&w);
  free(dense);
}

// Large tiles and slices, which small trains on a large device would never reach.
static void test_tiles(void) {
  static const form large = {2, {12, 16}, {12, 16}, {1, 12, 1}};
  int multiprocessors = gpu->multiprocessors;
  size_t shared = gpu->shared;
  for (int sweep = 0; sweep < 2; sweep++) {
    tt_matrix w = build(&large, TT_F32, 0, sweep, 1, 1);
    double *dense = test_doubles(w.rows * w.cols);
    CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
    tt_cuda_matrix *d_w = upload(&w);
    gpu->multiprocessors = 1; // products in tiles of 128
    for (int batch = quick ? 70 : 30; batch < (quick ? 71 : 140); batch += 50) {
      if (!quick || sweep) check_apply(d_w, &w, dense, plain(batch, TT_CUDA_CHAIN));
      if (!quick || !sweep) check_apply(d_w, &w, dense, plain(batch, TT_CUDA_DENSE));
      tt_cuda_args args = plain(batch, sweep ? TT_CUDA_DENSE : TT_CUDA_CHAIN);
      args.dtype = TT_F16;
      check_apply(d_w, &w, dense, args);
      if (!quick || sweep) check_apply(d_w, &w, dense, plain(batch, TT_CUDA_FUSED));
    }
    gpu->multiprocessors = multiprocessors;
    int ran = 0, refused = 0;
    for (size_t room = 64; room <= 16384; room = quick ? room * 4 : room * 3 / 2) {
      tt_cuda_plan plan;
      tt_cuda_args args = plain(3, TT_CUDA_FUSED);
      gpu->shared = room;
      tt_status status = tt_cuda_plan_apply(d_w, &args, &plan);
      CHECK(status == TT_OK || status == TT_ERROR_UNSUPPORTED);
      if (status == TT_OK) check_apply(d_w, &w, dense, args);
      if (status == TT_OK)
        ran++;
      else
        refused++;
      args.path = TT_CUDA_AUTO;
      CHECK_STATUS(tt_cuda_plan_apply(d_w, &args, &plan), TT_OK);
      CHECK(plan.path != TT_CUDA_AUTO && (status == TT_OK || plan.path != TT_CUDA_FUSED));
    }
    CHECK(ran > 0 && refused > 0);
    gpu->shared = shared;
    tt_cuda_free(d_w);
    tt_free(&w);
    free(dense);
  }
}

// DENSE in BF16: edges of its tiles, ends of rows in 16 bytes and beyond, more steps than stages.
static void test_tensor(void) {
  static const struct {
    form f;
    int padded, sweep, batch, ldx;
  } runs[] = {{{1, {1}, {1}, {1, 1}}, 0, 0, 17, 8},
              {{1, {130}, {39}, {1, 1}}, 1, 0, 131, 40},
              {{1, {5}, {170}, {1, 1}}, 0, 0, 129, 176},
              {{1, {128}, {128}, {1, 1}}, 0, 0, 128, 128},
              {{2, {33, 4}, {16, 16}, {1, 5, 1}}, 0, 1, 18, 256},
              {{3, {4, 5, 6}, {3, 4, 5}, {1, 4, 3, 1}}, 1, 0, 33, 64}};
  for (int i = 0; i < (quick ? 3 : 6); i++) {
    tt_matrix w = build(&runs[i].f, TT_F32, 0, runs[i].sweep, runs[i].padded, 1);
    double *dense = test_doubles(w.rows * w.cols);
    CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
    tt_cuda_matrix *d_w = upload(&w);
    tt_cuda_args args = plain(runs[i].batch, TT_CUDA_DENSE);
    args.dtype = TT_BF16;
    args.ldx = runs[i].ldx;
    CHECK(tt__cuda_in_bf16(d_w, &args));
    check_apply(d_w, &w, dense, args);
    args.ldy = w.rows + 3;
    args.alpha = 2;
    args.beta = -0.5f;
    if (!quick) check_apply(d_w, &w, dense, args);
    args.ldx++; // rows that are not aligned take another way
    CHECK(!tt__cuda_in_bf16(d_w, &args));
    if (!quick) check_apply(d_w, &w, dense, args);
    tt_cuda_free(d_w);
    tt_free(&w);
    free(dense);
  }
}

// FUSED in BF16, two cores: every format, several slices, tiles and chunks, ends within each.
static void test_pair(void) {
  static const struct {
    form f;
    int padded, batch, ldx;
  } runs[] = {{{2, {8, 8}, {8, 8}, {1, 8, 1}}, 0, 8, 64},
              {{2, {70, 11}, {5, 24}, {1, 5, 1}}, 1, 9, 120},
              {{2, {3, 5}, {10, 8}, {1, 64, 1}}, 1, 8, 88}, // three slices
              {{2, {2, 1}, {1, 16}, {1, 1, 1}}, 0, 15, 16},
              {{2, {9, 17}, {30, 40}, {1, 17, 1}}, 0, 17, 1200}};
  for (int i = 0; i < 5; i++)
    for (int t = 0; t < FORMATS; t++) {
      if (quick && t % 5 != i) continue;
      int group = formats[t] < TT_I8 ? 0 : i % 3 == 0 ? 0 : i % 3 == 1 ? TT_GROUP_ROW : 5;
      tt_matrix w = build(&runs[i].f, formats[t], group, 0, runs[i].padded, t % 2);
      double *dense = test_doubles(w.rows * w.cols);
      CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
      tt_cuda_matrix *d_w = upload(&w);
      tt_cuda_args args = plain(runs[i].batch, TT_CUDA_FUSED);
      tt__cuda_way way;
      args.dtype = TT_BF16;
      args.ldx = runs[i].ldx;
      args.ldy = w.rows + t;
      args.alpha = t == 1 ? 2.0f : 0;
      args.beta = t == 2 ? 0.5f : 0;
      CHECK(tt__cuda_args_check(d_w, &args) == TT_OK && !tt__cuda_choose(d_w, &args, &way));
      CHECK(way.pair_shared > 0);
      check_apply(d_w, &w, dense, args);
      args.ldx++; // rows that are not aligned take another way
      CHECK(!tt__cuda_choose(d_w, &args, &way) && !way.pair_shared);
      args.ldx--;
      args.batch = 7; // and few rows
      CHECK(!tt__cuda_choose(d_w, &args, &way) && !way.pair_shared);
      tt_cuda_free(d_w);
      tt_free(&w);
      free(dense);
    }
}

// Every layout of the fused kernel for one train: batch tiles, chunks and slices.
static void test_layouts(void) {
  static const form f = {3, {3, 4, 6}, {6, 3, 4}, {1, 6, 5, 1}};
  for (int sweep = 0; sweep < 2; sweep++) {
    tt_matrix w = build(&f, sweep ? TT_E4M3 : TT_F32, 0, sweep, 1, 1);
    double *dense = test_doubles(w.rows * w.cols);
    CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
    tt_cuda_matrix *d_w = upload(&w);
    tt_cuda_args args = plain(5, TT_CUDA_FUSED);
    float *x = test_normal_floats(5 * w.cols), *y = test_floats(5 * w.rows);
    args.d_x = device_copy(x, 5 * w.cols * 4);
    CHECK_STATUS(tt__cuda_args_check(d_w, &args), TT_OK);
    for (int tile = 1; tile <= 4; tile += 3)
      for (int chunk = 1; chunk <= w.shape.rows[sweep ? 0 : 2]; chunk++)
        for (int part = sweep ? 6 : 1; part <= 6; part += quick ? 3 : 1) {
          tt__cuda_way way;
          memset(&way, 0, sizeof way);
          way.shared = tt__cuda_fused_layout(d_w, tile, chunk, part, &way.fused);
          args.d_y = device(5 * w.rows * 4);
          CHECK(way.shared > 0);
          CHECK_STATUS(tt__cuda_run_fused(d_w, &args, &way, stream), TT_OK);
          fetch(y, args.d_y, 5 * w.rows * 4);
          double error = 0, norm = 0;
          for (ptrdiff_t b = 0; b < 5; b++)
            for (ptrdiff_t i = 0; i < w.rows; i++) {
              double sum = (double)w.bias[i];
              for (ptrdiff_t j = 0; j < w.cols; j++)
                sum += dense[i * w.cols + j] * (double)x[b * w.cols + j];
              error += pow((double)y[b * w.rows + i] - sum, 2);
              norm += sum * sum;
            }
          CHECK_AT_MOST(sqrt(error / norm), tolerance(TT_F32));
          cudaFree(args.d_y);
        }
    cudaFree((void *)args.d_x);
    tt_cuda_free(d_w);
    tt_free(&w);
    free(dense);
    free(x);
    free(y);
  }
}

// The norm of a - b over that of b.
static double distance(const float *a, const float *b, ptrdiff_t count) {
  double error = 0, norm = 0;
  for (ptrdiff_t i = 0; i < count; i++) {
    error += pow((double)a[i] - (double)b[i], 2);
    norm += pow((double)b[i], 2);
  }
  return norm > 0 ? sqrt(error / norm) : sqrt(error);
}

// Gradients of cores, bias and inputs against tt_backward, added to what was there.
static void check_backward(const tt_matrix *w, ptrdiff_t batch) {
  ptrdiff_t x_count = batch * w->cols, y_count = batch * w->rows;
  float *x = test_normal_floats(x_count), *dy = test_normal_floats(y_count);
  float *dx = test_floats(x_count), *got = test_floats(x_count);
  tt_matrix grad, back;
  CHECK_STATUS(tt_zeros_like(w, NULL, &grad), TT_OK);
  for (int k = 0; k < w->shape.order; k++) ((float *)tt_core_data(&grad, k))[0] = 1;
  tt_cuda_matrix *d_w = upload(w), *d_grad = upload(&grad);
  size_t size = tt_cuda_backward_work_size(d_w, batch), host = tt_backward_work_size(w, batch);
  void *work = device((ptrdiff_t)size), *host_work = test_new((ptrdiff_t)host, 1);
  float *d_x = (float *)device_copy(x, 4 * x_count), *d_dy = (float *)device_copy(dy, 4 * y_count);
  float *d_dx = (float *)device(4 * x_count);
#ifdef TT_CUDA_EMU
  long others = emu::num_syncs + emu::num_allocs + emu::num_frees + emu::num_default_stream +
                emu::num_attributes;
#endif
  CHECK_STATUS(tt_cuda_backward(d_w, d_x, d_dy, batch, d_dx, d_grad, work, size, stream), TT_OK);
#ifdef TT_CUDA_EMU
  CHECK(others == emu::num_syncs + emu::num_allocs + emu::num_frees + emu::num_default_stream +
                      emu::num_attributes);
#endif
  fetch(got, d_dx, 4 * x_count);
  CHECK_STATUS(tt_backward(w, x, dy, batch, dx, &grad, host_work, host), TT_OK);
  // both sides round in float, and each core adds to it: most with 16 of them
  double bound = 1e-6 * (w->shape.order + 2);
  CHECK_AT_MOST(distance(got, dx, x_count), bound);
  CHECK_STATUS(tt_cuda_download(d_grad, NULL, &back), TT_OK);
  double error = 0;
  for (int k = 0; k < w->shape.order; k++) {
    ptrdiff_t count =
        (ptrdiff_t)w->shape.ranks[k] * w->shape.rows[k] * w->shape.cols[k] * w->shape.ranks[k + 1];
    double off =
        distance((const float *)back.cores[k].data, (const float *)grad.cores[k].data, count);
    if (off > error) error = off;
    tt_sha256_add(&digest, back.cores[k].data, (size_t)count * 4);
  }
  CHECK_AT_MOST(error, bound);
  if (w->bias) CHECK_AT_MOST(distance(back.bias, grad.bias, w->rows), 2e-6);
  CHECK_STATUS(tt_cuda_clear(d_grad, stream), TT_OK);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  tt_free(&back);
  CHECK_STATUS(tt_cuda_download(d_grad, NULL, &back), TT_OK);
  CHECK(((const float *)back.cores[0].data)[0] == 0 && (!w->bias || back.bias[0] == 0));
  cudaFree(d_x);
  cudaFree(d_dy);
  cudaFree(d_dx);
  cudaFree(work);
  tt_cuda_free(d_w);
  tt_cuda_free(d_grad);
  tt_free(&grad);
  tt_free(&back);
  free(x);
  free(dy);
  free(dx);
  free(got);
  free(host_work);
}

// Largest |x_i x_j - (i == j)| for `count` vectors; vector i begins at x + i * apart.
static double orthonormality(const float *x, ptrdiff_t count, ptrdiff_t apart, ptrdiff_t length,
                             ptrdiff_t step) {
  double largest = 0;
  for (ptrdiff_t i = 0; i < count; i++)
    for (ptrdiff_t j = 0; j <= i; j++) {
      double sum = i == j ? -1 : 0;
      for (ptrdiff_t t = 0; t < length; t++)
        sum += (double)x[i * apart + t * step] * (double)x[j * apart + t * step];
      if (!(fabs(sum) <= largest)) largest = fabs(sum);
    }
  return largest;
}

enum { SVD_NORMAL, SVD_LOW, SVD_ZERO, SVD_GRADED, SVD_EQUAL, SVD_HUGE, SVD_TINY, SVD_KINDS };

// A matrix of one kind; `scale` becomes the size of its entries.
static void svd_matrix(int kind, int rows, int cols, float *a, double *scale) {
  *scale = kind == SVD_HUGE ? 1e37 : kind == SVD_TINY ? 1e-36 : 1;
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < cols; j++) {
      double value = test_normal();
      if (kind == SVD_LOW) value = (i % 2 + 1) * (j % 3 - 1);
      if (kind == SVD_ZERO) value = 0;
      if (kind == SVD_GRADED) value *= pow(10, -8.0 * i / rows - 4.0 * j / cols);
      if (kind == SVD_EQUAL) value = i == j ? -1 : 0;
      a[i * cols + j] = (float)(value * *scale);
    }
}

// SVDs of one matrix of every kind, all at once.
static void check_svd(int rows, int cols, int in_shared) {
  enum { COUNT = SVD_KINDS + 1 };
  ptrdiff_t k = rows < cols ? rows : cols, size = (ptrdiff_t)rows * cols;
  float *a = test_floats(COUNT * size), *u = test_floats(COUNT * rows * k);
  float *s = test_floats(COUNT * k), *vt = test_floats(COUNT * k * cols), *wanted = test_floats(k);
  double scale[COUNT];
  int sweeps[COUNT];
  size_t shared = gpu->svd_shared;
  for (int i = 0; i < SVD_KINDS; i++) svd_matrix(i, rows, cols, a + i * size, &scale[i]);
  a[COUNT * size - 1] = (float)NAN;
  if (!in_shared) gpu->svd_shared = 0;
  size_t work_size = tt_cuda_svd_batched_work_size(gpu, COUNT, rows, cols);
  CHECK(in_shared ? work_size == 1 : work_size >= (size_t)(COUNT * size * 4));
  float *d_a = (float *)device_copy(a, COUNT * size * 4);
  float *d_u = (float *)device(COUNT * rows * k * 4), *d_s = (float *)device(COUNT * k * 4);
  float *d_vt = (float *)device(COUNT * k * cols * 4);
  int *d_sweeps = (int *)device(COUNT * 4);
  void *work = device((ptrdiff_t)work_size);
  CHECK_STATUS(tt_cuda_svd_batched(gpu, d_a, COUNT, rows, cols, d_u, d_s, d_vt, d_sweeps, work,
                                   work_size, stream),
               TT_OK);
  fetch(u, d_u, COUNT * rows * k * 4);
  fetch(s, d_s, COUNT * k * 4);
  fetch(vt, d_vt, COUNT * k * cols * 4);
  fetch(sweeps, d_sweeps, COUNT * 4);
  for (int i = 0; i < SVD_KINDS; i++) {
    const float *ui = u + i * rows * k, *si = s + i * k, *vi = vt + i * k * cols;
    double error = 0, off = 0, norm = 0;
    int ordered = 1, positive = 1;
    CHECK(sweeps[i] >= 1 && sweeps[i] <= 12);
    CHECK_AT_MOST(orthonormality(ui, k, 1, rows, k), 2e-6);
    CHECK_AT_MOST(orthonormality(vi, k, cols, cols, 1), 2e-6);
    CHECK_STATUS(tt_svd(a + i * size, rows, cols, NULL, wanted, NULL, NULL), TT_OK);
    for (ptrdiff_t j = 0; j < k; j++) {
      float most = 0;
      for (int r = 0; r < rows; r++)
        if (fabsf(ui[r * k + j]) > fabsf(most)) most = ui[r * k + j];
      positive &= most > 0;
      ordered &= j == 0 || si[j] <= si[j - 1];
      off = fmax(off, fabs((double)si[j] - (double)wanted[j]) / scale[i]);
      norm += pow((double)wanted[j] / scale[i], 2);
    }
    for (int r = 0; r < rows; r++)
      for (int c = 0; c < cols; c++) {
        double sum = -(double)a[i * size + r * cols + c];
        for (ptrdiff_t j = 0; j < k; j++)
          sum += (double)ui[r * k + j] * (double)si[j] * (double)vi[j * cols + c];
        error += pow(sum / scale[i], 2);
      }
    CHECK(ordered && positive && si[k - 1] >= 0);
    CHECK_AT_MOST(off, 1e-6 * sqrt(norm));
    CHECK_AT_MOST(sqrt(error), 2e-6 * sqrt(norm));
  }
  CHECK(sweeps[SVD_KINDS] == 0 && s[SVD_KINDS * k] != s[SVD_KINDS * k]);
  CHECK(u[SVD_KINDS * rows * k] != u[SVD_KINDS * rows * k]);
  gpu->svd_shared = shared;
  cudaFree(d_a);
  cudaFree(d_u);
  cudaFree(d_s);
  cudaFree(d_vt);
  cudaFree(d_sweeps);
  cudaFree(work);
  free(a);
  free(u);
  free(s);
  free(vt);
  free(wanted);
}

// Graded columns: small singular values right to their own size.
static void test_svd_accuracy(void) {
  enum { M = 12, N = 8 };
  float a[M * N], s[N], wanted[N];
  double exact[M * N], reference[N];
  for (int i = 0; i < M * N; i++)
    exact[i] = (double)(a[i] = (float)(test_normal() * pow(10, -3 * (i % N))));
  float *d_a = (float *)device_copy(a, sizeof a), *d_s = (float *)device(sizeof s);
  CHECK_STATUS(tt_cuda_svd_batched(gpu, d_a, 1, M, N, NULL, d_s, NULL, NULL, NULL, 0, stream),
               TT_OK);
  fetch(s, d_s, sizeof s);
  tt_options options = test_options();
  options.method = TT_SVD_JACOBI;
  CHECK_STATUS(tt_svd_f64(exact, M, N, NULL, reference, NULL, &options), TT_OK);
  for (int j = 0; j < N; j++) {
    wanted[j] = (float)reference[j];
    CHECK_CLOSE(s[j] / wanted[j], 1, 2e-6);
  }
  cudaFree(d_a);
  cudaFree(d_s);
}

typedef struct compress_case {
  form f; // ranks are caps
  double epsilon;
  int kind, method; // of svd_matrix
} compress_case;

// Against tt_compress: the ranks, the errors, and the report equal to what it says; the cores but
// the last orthonormal, each column with the weight that it has in the matrix.
static void check_compress(const compress_case *c, int padded) {
  tt_shape shape = test_shape(c->f.order, c->f.rows, c->f.cols, c->f.ranks);
  int rows = (int)tt__cuda_legs(&shape, 0, shape.order, 1) - padded, order = shape.order;
  int cols = (int)tt__cuda_legs(&shape, 0, shape.order, 0) - padded;
  ptrdiff_t size = (ptrdiff_t)rows * cols;
  float *a = test_floats(size), *back = test_floats(size), *again = test_floats(size);
  double scale, error = 0;
  tt_matrix made, wanted;
  tt_report report, reference;
  tt_options options = test_options();
  test_heap heap;
  svd_matrix(c->kind, rows, cols, a, &scale);
  options.epsilon = c->epsilon;
  options.method = c->method;
  options.allocator = test_allocator(&heap);
  float *d_a = (float *)device_copy(a, size * 4);
#ifdef TT_CUDA_EMU
  long before = emu::num_syncs;
  size_t blocks = emu::live_blocks();
#endif
  CHECK_STATUS(tt_cuda_compress(gpu, d_a, rows, cols, &shape, &options, &made, &report, stream),
               TT_OK);
#ifdef TT_CUDA_EMU
  CHECK(emu::num_syncs - before == order + 1 && emu::live_blocks() == blocks);
#endif
  CHECK(heap.live_blocks == 1 && made.rows == rows && made.cols == cols && !made.bias);
  options.allocator = test_options().allocator;
  options.method = TT_SVD_AUTO;
  CHECK_STATUS(tt_compress(a, rows, cols, &shape, &options, &wanted, &reference), TT_OK);
  CHECK_STATUS(tt_expand(&made, back), TT_OK);
  CHECK_STATUS(tt_expand(&wanted, again), TT_OK);
  double best = 0;
  for (ptrdiff_t i = 0; i < size; i++) {
    error += pow(((double)back[i] - (double)a[i]) / scale, 2);
    best += pow(((double)again[i] - (double)a[i]) / scale, 2);
  }
  double norm = reference.norm > 0 ? reference.norm : 1;
  error = sqrt(error) * scale / norm;
  best = sqrt(best) * scale / norm;
  CHECK_AT_MOST(fabs(report.norm - reference.norm), 1e-7 * norm);
  CHECK(report.spectrum_complete == (c->f.rows[0] < 8)); // those with 8 are sketched
  CHECK_AT_MOST(error, best * (report.spectrum_complete ? 1 : 1.05) + 1e-6);
  if (padded)
    CHECK_AT_MOST(error, report.relative_error + 1e-6);
  else
    CHECK_AT_MOST(fabs(error - report.relative_error), 1e-6);
  CHECK(report.params == tt_shape_params(&made.shape) && report.dense_params == size);
  for (int k = 0; k + 1 < order; k++) {
    CHECK(report.ranks[k + 1] == made.shape.ranks[k + 1]);
    if (c->kind == SVD_NORMAL) { // elsewhere ranks hang on rounding
      CHECK(made.shape.ranks[k + 1] == wanted.shape.ranks[k + 1]);
      CHECK(report.limit[k] == reference.limit[k]);
      if (report.spectrum_complete) CHECK_CLOSE(report.entropy[k], reference.entropy[k], 1e-5);
    }
    ptrdiff_t high = (ptrdiff_t)made.shape.ranks[k] * made.shape.rows[k] * made.shape.cols[k];
    ptrdiff_t rank = made.shape.ranks[k + 1], rest = size / high + 1;
    if (c->kind == SVD_NORMAL && rest > 1 && c->f.order == 2)
      CHECK_AT_MOST(orthonormality((const float *)made.cores[k].data, rank, 1, high, rank), 1e-5);
  }
  tt_sha256_add(&digest, back, (size_t)size * 4);
  cudaFree(d_a);
  tt_free(&made);
  tt_free(&wanted);
  CHECK(heap.live_blocks == 0);
  free(a);
  free(back);
  free(again);
}

// Every kernel once, in few blocks, for tools that look for races and take their time.
static void test_races(void) {
  static const struct {
    form f;
    int sweep, batch, path, tile, part;
  } runs[] = {
      {{2, {5, 3}, {6, 40}, {1, 7, 1}}, 0, 3, TT_CUDA_FUSED, 4, 6}, // two stages of a tile; narrow
      {{3, {3, 2, 5}, {4, 3, 4}, {1, 6, 5, 1}}, 0, 3, TT_CUDA_FUSED, 16, 2}, // slices
      {{3, {3, 2, 5}, {6, 3, 4}, {1, 6, 5, 1}}, 1, 3, TT_CUDA_FUSED, 2, 6},
      {{1, {3}, {1030}, {1, 1}}, 0, 2, TT_CUDA_CHAIN, 0, 0},        // a block for a row
      {{1, {66}, {37}, {1, 1}}, 0, 20, TT_CUDA_CHAIN, 0, 0},        // tiles of 64
      {{1, {66}, {37}, {1, 1}}, 0, 66, TT_CUDA_CHAIN, 0, 0},        // a tile of 128
      {{2, {2, 3}, {3, 2}, {1, 2, 1}}, 0, 2, TT_CUDA_DENSE, 0, 0},  // slices of rows
      {{1, {3}, {137}, {1, 1}}, 0, 17, TT_CUDA_DENSE, 0, 0},         // in BF16, all stages
      {{2, {5, 3}, {20, 8}, {1, 16, 1}}, 0, 8, TT_CUDA_FUSED, 0, 0}}; // and two cores, two slices
  int multiprocessors = gpu->multiprocessors;
  gpu->multiprocessors = 1;
  for (int i = 0; i < 9; i++) {
    tt_matrix w = build(&runs[i].f, TT_F16, 0, runs[i].sweep, 1, 1);
    double *dense = test_doubles(w.rows * w.cols);
    CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
    tt_cuda_matrix *d_w = upload(&w);
    tt_cuda_args args = plain(runs[i].batch, (tt_cuda_path)runs[i].path);
    check_apply(d_w, &w, dense, args);
    if (args.batch >= 8) { // on tensor cores as well
      args.dtype = TT_BF16;
      args.ldx = (w.cols + 7) / 8 * 8;
      check_apply(d_w, &w, dense, args);
    }
    if (runs[i].tile) {
      args.d_x = device(args.batch * w.cols * 4);
      args.d_y = device(args.batch * w.rows * 4);
      CHECK_STATUS(tt__cuda_args_check(d_w, &args), TT_OK);
      tt__cuda_way way;
      memset(&way, 0, sizeof way);
      way.shared = tt__cuda_fused_layout(d_w, runs[i].tile, 2, runs[i].part, &way.fused);
      CHECK_STATUS(tt__cuda_run_fused(d_w, &args, &way, stream), TT_OK);
      CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
      cudaFree((void *)args.d_x);
      cudaFree(args.d_y);
    }
    tt_cuda_free(d_w);
    tt_free(&w);
    free(dense);
  }
  gpu->multiprocessors = multiprocessors; // gradients in parts of 256 columns
  static const form narrow = {1, {3}, {5}, {1, 1}};
  tt_matrix w = build(&narrow, TT_F32, 0, 0, 0, 1);
  check_backward(&w, 300);
  tt_free(&w);
  check_svd(4, 5, 1); // two warps; a matrix of zeros among them
  static const compress_case wide = {{2, {2, 3}, {3, 2}, {1, 2, 1}}, 0, SVD_NORMAL, 0};
  check_compress(&wide, 0);
}

static void check_rows(const tt_cuda_matrix *d_w, const tt_matrix *w, const double *dense) {
  enum { COUNT = 7 };
  int index[COUNT] = {0, (int)w->rows - 1, -1, (int)w->rows, (int)w->rows / 2, 0, 1 % (int)w->rows};
  float *all = test_floats(w->rows * w->cols), *some = test_floats(COUNT * w->cols);
  size_t size = tt_cuda_expand_work_size(d_w), rows_size = tt_cuda_rows_work_size(d_w, COUNT);
  CHECK(size > 0 && rows_size > 0);
  void *work = device((ptrdiff_t)size), *rows_work = device((ptrdiff_t)rows_size);
  float *d_all = (float *)device(w->rows * w->cols * 4),
        *d_some = (float *)device(COUNT * w->cols * 4);
  int *d_index = (int *)device_copy(index, sizeof index);
  CHECK_STATUS(tt_cuda_expand(d_w, d_all, work, size, stream), TT_OK);
  CHECK_STATUS(tt_cuda_rows(d_w, d_index, COUNT, d_some, rows_work, rows_size, stream), TT_OK);
  fetch(all, d_all, w->rows * w->cols * 4);
  fetch(some, d_some, COUNT * w->cols * 4);
  double error = 0, norm = 0, rows_error = 0, rows_norm = 0;
  int lost = 1;
  for (ptrdiff_t i = 0; i < w->rows * w->cols; i++) {
    error += pow((double)all[i] - dense[i], 2);
    norm += pow(dense[i], 2);
  }
  for (int c = 0; c < COUNT; c++)
    for (ptrdiff_t j = 0; j < w->cols; j++) {
      double value = (double)some[c * w->cols + j];
      if (index[c] < 0 || index[c] >= w->rows) {
        lost &= value != value;
        continue;
      }
      rows_error += pow(value - dense[index[c] * w->cols + j], 2);
      rows_norm += pow(dense[index[c] * w->cols + j], 2);
    }
  CHECK(lost);
  CHECK_AT_MOST(sqrt(error), 2e-6 * sqrt(norm)); // may be zeros
  CHECK_AT_MOST(sqrt(rows_error), 2e-6 * sqrt(rows_norm));
  cudaFree(work);
  cudaFree(rows_work);
  cudaFree(d_all);
  cudaFree(d_some);
  cudaFree(d_index);
  free(all);
  free(some);
}

static void test_rows(void) {
  for (int i = 0; i < FORMS; i++)
    for (int variant = 0; variant < (quick ? 2 : 4); variant++) {
      tt_dtype format = formats[(i + variant) % FORMATS];
      int group = format < TT_I8 ? 0 : 3;
      tt_matrix w = build(&forms[i], format, group, variant % 2, variant / 2 || i % 2, 0);
      double *dense = test_doubles(w.rows * w.cols);
      CHECK_STATUS(tt_expand_f64(&w, dense), TT_OK);
      tt_cuda_matrix *d_w = upload(&w);
      check_rows(d_w, &w, dense);
      tt_cuda_free(d_w);
      tt_free(&w);
      free(dense);
    }
}

static void test_backward(void) {
  static const int batches[] = {2, 17, 1, 300};
  for (int i = 0; i < FORMS; i++)
    for (int variant = 0; variant < (quick ? 1 : 8); variant++) {
      int sweep = quick ? i % 2 : variant % 2;
      tt_matrix w = build(&forms[i], TT_F32, 0, sweep, variant / 2 % 2 || i % 3 == 0, i % 4 > 0);
      check_backward(&w, batches[quick ? i % 2 : variant / 2]);
      tt_free(&w);
    }
  tt_matrix w = build(&forms[8], TT_F32, 0, 0, 0, 1); // sums in several parts
  check_backward(&w, 90);
  tt_free(&w);
  for (int i = 0; i < FORMS; i += quick ? 3 : 1) { // d_dx alone, through frozen cores
    tt_matrix coded = build(&forms[i], formats[i % FORMATS], formats[i % FORMATS] < TT_I8 ? 0 : 3,
                            i / 2 % 2, 1, 0);
    ptrdiff_t m = coded.rows, n = coded.cols;
    float *dy = test_normal_floats(3 * m), *dx = test_floats(3 * n), *wanted = test_floats(3 * n);
    float *dense = test_floats(m * n);
    tt_cuda_matrix *d_w = upload(&coded);
    size_t size = tt_cuda_backward_work_size(d_w, 3);
    float *d_dy = (float *)device_copy(dy, 12 * m), *d_dx = (float *)device(12 * n);
    void *work = device((ptrdiff_t)size);
    CHECK_STATUS(tt_cuda_backward(d_w, NULL, d_dy, 3, d_dx, NULL, work, size, stream), TT_OK);
    fetch(dx, d_dx, 12 * n);
    CHECK_STATUS(tt_expand(&coded, dense), TT_OK);
    CHECK_STATUS(tt_matmul(3, n, m, dy, m, dense, n, wanted, n, 0, NULL), TT_OK);
    CHECK_AT_MOST(distance(dx, wanted, 3 * n), 2e-6);
    cudaFree(d_dy);
    cudaFree(d_dx);
    cudaFree(work);
    tt_cuda_free(d_w);
    tt_free(&coded);
    free(dy);
    free(dx);
    free(wanted);
    free(dense);
  }
}

static void test_backward_errors(void) {
  tt_matrix w = build(&forms[13], TT_F32, 0, 0, 0, 1),
            other = build(&forms[12], TT_F32, 0, 0, 0, 1);
  tt_matrix coded = build(&forms[13], TT_F16, 0, 0, 0, 1), grad, turned;
  CHECK_STATUS(tt_zeros_like(&w, NULL, &grad), TT_OK);
  CHECK_STATUS(tt_turn(&grad, TT_LEFT_TO_RIGHT, NULL, &turned), TT_OK);
  tt_cuda_matrix *d_w = upload(&w), *d_other = upload(&other), *d_coded = upload(&coded);
  tt_cuda_matrix *d_grad = upload(&grad), *d_turned = upload(&turned);
  size_t size = tt_cuda_backward_work_size(d_w, 3);
  CHECK(size > 256 && tt_cuda_backward_work_size(NULL, 3) == 0);
  CHECK(tt_cuda_backward_work_size(d_w, -1) == 0);
  CHECK(tt_cuda_backward_work_size(d_w, PTRDIFF_MAX / 8) == 0);
  float *x = (float *)device(12 * w.cols), *dy = (float *)device(12 * w.rows);
  float *dx = (float *)device(12 * w.cols);
  char *work = (char *)device((ptrdiff_t)size + 256);
  const struct {
    const tt_cuda_matrix *w;
    float *x, *dy;
    ptrdiff_t batch;
    float *dx;
    tt_cuda_matrix *grad;
    char *work;
    size_t size;
    tt_status status;
  } calls[] = {{d_w, x, dy, 3, dx, d_grad, work, size, TT_OK},
               {d_w, NULL, NULL, 0, NULL, d_grad, NULL, 0, TT_OK},
               {NULL, x, dy, 3, dx, d_grad, work, size, TT_ERROR_INVALID},
               {d_w, NULL, dy, 3, dx, d_grad, work, size, TT_ERROR_INVALID},
               {d_w, x, NULL, 3, dx, d_grad, work, size, TT_ERROR_INVALID},
               {d_w, x, dy, -1, dx, d_grad, work, size, TT_ERROR_INVALID},
               {d_w, x, dy, 3, x + 1, d_grad, work, size, TT_ERROR_INVALID},
               {d_w, x, dy, 3, dy + 1, d_grad, work, size, TT_ERROR_INVALID},
               {d_w, x, dy, 3, NULL, NULL, work, size, TT_ERROR_INVALID},
               {d_w, x, dy, 3, dx, d_other, work, size, TT_ERROR_INVALID},
               {d_w, x, dy, 3, dx, d_coded, work, size, TT_ERROR_INVALID},
               {d_w, x, dy, 3, dx, d_turned, work, size, TT_ERROR_INVALID},
               {d_grad, x, dy, 3, dx, d_grad, work, size, TT_ERROR_INVALID},
               {d_coded, x, dy, 3, dx, d_grad, work, size, TT_ERROR_UNSUPPORTED},
               {d_w, x, dy, PTRDIFF_MAX / 8, dx, d_grad, work, size, TT_ERROR_MEMORY},
               {d_w, x, dy, 3, dx, d_grad, NULL, size, TT_ERROR_INVALID},
               {d_w, x, dy, 3, dx, d_grad, work + 4, size, TT_ERROR_INVALID},
               {d_w, x, dy, 3, dx, d_grad, work, size - 1, TT_ERROR_INVALID}};
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
    CHECK_STATUS(tt_cuda_backward(calls[i].w, calls[i].x, calls[i].dy, calls[i].batch, calls[i].dx,
                                  calls[i].grad, calls[i].work, calls[i].size, stream),
                 calls[i].status);
  CHECK_STATUS(tt_cuda_clear(NULL, stream), TT_ERROR_INVALID);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  cudaFree(x);
  cudaFree(dy);
  cudaFree(dx);
  cudaFree(work);
  tt_cuda_free(d_w);
  tt_cuda_free(d_other);
  tt_cuda_free(d_coded);
  tt_cuda_free(d_grad);
  tt_cuda_free(d_turned);
  tt_free(&w);
  tt_free(&other);
  tt_free(&coded);
  tt_free(&grad);
  tt_free(&turned);
}

static void test_svd_batched(void) {
  static const int sizes[][2] = {{1, 1}, {1, 7},   {7, 1},   {5, 3}, {3, 5},
                                 {2, 2}, {16, 16}, {33, 20}, {9, 40}};
  for (int i = 0; i < (quick ? 5 : 9); i++)
    for (int in_shared = quick ? i % 2 : 0; in_shared < (quick ? i % 2 + 1 : 2); in_shared++)
      check_svd(sizes[i][0], sizes[i][1], in_shared);
  if (quick) check_svd(18, 21, 1); // more pairs than warps
  test_svd_accuracy();
  float *some = (float *)device(4096);
  size_t shared = gpu->svd_shared;
  CHECK(tt_cuda_svd_batched_work_size(NULL, 1, 2, 2) == 0);
  CHECK(tt_cuda_svd_batched_work_size(gpu, -1, 2, 2) == 0);
  CHECK(tt_cuda_svd_batched_work_size(gpu, 1, 0, 2) == 0);
  CHECK(tt_cuda_svd_batched_work_size(gpu, 1, 2, -2) == 0);
  CHECK(tt_cuda_svd_batched_work_size(gpu, 1, 0x7fffffff, 0x7fffffff) == 0);
  CHECK(tt_cuda_svd_batched_work_size(gpu, PTRDIFF_MAX / 8, 1000, 1000) == 0);
  CHECK_STATUS(tt_cuda_svd_batched(NULL, some, 1, 2, 2, some, some, some, NULL, NULL, 0, stream),
               TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_svd_batched(gpu, NULL, 0, 2, 2, NULL, NULL, NULL, NULL, NULL, 0, stream),
               TT_OK);
  CHECK_STATUS(tt_cuda_svd_batched(gpu, NULL, 1, 2, 2, some, some, some, NULL, NULL, 0, stream),
               TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_svd_batched(gpu, some, 1, 2, 2, some, NULL, some, NULL, NULL, 0, stream),
               TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_svd_batched(gpu, some, -1, 2, 2, some, some, some, NULL, NULL, 0, stream),
               TT_ERROR_INVALID);
  gpu->svd_shared = 0;
  CHECK_STATUS(tt_cuda_svd_batched(gpu, some, 1, 2, 2, some, some, some, NULL, NULL, 0, stream),
               TT_ERROR_INVALID);
  gpu->svd_shared = shared;
  cudaFree(some);
}

static void test_compress(void) {
  static const compress_case cases[] = {
      {{1, {5}, {6}, {1, 1}}, 0, SVD_NORMAL, 0},
      {{2, {6, 1}, {1, 5}, {1, 3, 1}}, 0, SVD_NORMAL, 0}, // low rank, tall
      {{2, {3, 4}, {2, 5}, {1, 0, 1}}, 0, SVD_NORMAL, 0}, // all of it
      {{3, {3, 4, 2}, {2, 3, 5}, {1, 4, 5, 1}}, 0, SVD_NORMAL, TT_SVD_GRAM},
      {{3, {2, 3, 3}, {4, 2, 3}, {1, 0, 0, 1}}, 0.3, SVD_NORMAL, 0},
      {{3, {3, 2, 3}, {3, 2, 3}, {1, 0, 0, 1}}, 0.01, SVD_GRADED, 0},
      {{3, {3, 2, 3}, {3, 2, 3}, {1, 0, 0, 1}}, 0, SVD_LOW, 0}, // singular values of zero
      {{3, {3, 2, 3}, {3, 2, 3}, {1, 0, 0, 1}}, 0, SVD_ZERO, 0},
      {{3, {3, 2, 3}, {3, 2, 3}, {1, 2, 0, 1}}, 0, SVD_EQUAL, 0},
      {{3, {3, 2, 3}, {3, 2, 3}, {1, 4, 0, 1}}, 0, SVD_HUGE, 0},
      {{3, {3, 2, 3}, {3, 2, 3}, {1, 4, 0, 1}}, 0, SVD_TINY, 0},
      {{2, {8, 8}, {8, 8}, {1, 4, 1}}, 0, SVD_GRADED, 0}, // sketches
      {{2, {8, 8}, {6, 8}, {1, 1, 1}}, 0, SVD_NORMAL, TT_SVD_RANDOMIZED}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int padded = 0; padded < (quick ? 1 : 2); padded++) check_compress(&cases[i], padded);
  if (quick) check_compress(&cases[3], 1);

  // formats, bias, and errors
  tt_shape shape = test_shape(2, forms[8].rows, forms[8].cols, forms[8].ranks), bad = shape;
  float *a = test_normal_floats(64 * 64), *bias = test_normal_floats(64);
  tt_options options = test_options();
  tt_matrix made;
  tt_report report;
  float *d_a = (float *)device_copy(a, 64 * 64 * 4);
  options.dtype = TT_I8;
  options.bias = bias;
  options.max_rank = 3;
  CHECK_STATUS(tt_cuda_compress(gpu, d_a, 64, 64, &shape, &options, &made, &report, stream), TT_OK);
  CHECK(made.cores[0].dtype == TT_I8 && made.cores[0].group == TT_GROUP_ROW);
  CHECK(made.shape.ranks[1] == 3 && report.limit[0] == TT_LIMIT_CAP);
  CHECK(made.bias && !memcmp(made.bias, bias, 64 * 4));
  tt_free(&made);
  options = test_options();
  CHECK_STATUS(tt_cuda_compress(NULL, d_a, 64, 64, &shape, NULL, &made, NULL, stream),
               TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_compress(gpu, NULL, 64, 64, &shape, NULL, &made, NULL, stream),
               TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_compress(gpu, d_a, 64, 64, NULL, NULL, &made, NULL, stream),
               TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_compress(gpu, d_a, 64, 64, &shape, NULL, NULL, NULL, stream),
               TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_compress(gpu, d_a, 65, 64, &shape, NULL, &made, NULL, stream),
               TT_ERROR_SHAPE);
  bad.ranks[1] = 65;
  options.strict = 1;
  CHECK_STATUS(tt_cuda_compress(gpu, d_a, 64, 64, &bad, &options, &made, NULL, stream),
               TT_ERROR_SHAPE);
  bad.rows[0] = bad.rows[1] = bad.cols[0] = bad.cols[1] = 0x7fffffff;
  CHECK_STATUS(tt_cuda_compress(gpu, d_a, 64, 64, &bad, NULL, &made, NULL, stream),
               TT_ERROR_MEMORY);
  options.method = TT_SVD_HOUSEHOLDER;
  CHECK_STATUS(tt_cuda_compress(gpu, d_a, 64, 64, &shape, &options, &made, NULL, stream),
               TT_ERROR_UNSUPPORTED);
  options.method = 77;
  CHECK_STATUS(tt_cuda_compress(gpu, d_a, 64, 64, &shape, &options, &made, NULL, stream),
               TT_ERROR_INVALID);
  options = test_options();
  options.epsilon = NAN;
  CHECK_STATUS(tt_cuda_compress(gpu, d_a, 64, 64, &shape, &options, &made, NULL, stream),
               TT_ERROR_INVALID);
  options = test_options();
  bias[3] = (float)NAN;
  options.bias = bias;
  CHECK_STATUS(tt_cuda_compress(gpu, d_a, 64, 64, &shape, &options, &made, NULL, stream),
               TT_ERROR_NONFINITE);
  a[1234] = a[3000] = (float)INFINITY;
  CHECK(cudaMemcpy(d_a, a, 64 * 64 * 4, cudaMemcpyHostToDevice) == cudaSuccess);
  CHECK_STATUS(tt_cuda_compress(gpu, d_a, 64, 64, &shape, NULL, &made, &report, stream),
               TT_ERROR_NONFINITE);
  CHECK(report.position == 1234 && !made.block);
  cudaFree(d_a);
  free(a);
  free(bias);
}

#ifdef TT_CUDA_EMU
// Every allocation and every launch fails once: nothing leaks, outputs are safe.
static void test_compress_failures(void) {
  static const form f = {4, {8, 1, 8, 1}, {8, 2, 2, 2}, {1, 1, 1, 1, 1}}; // sketch, wide, tall
  tt_shape shape = test_shape(f.order, f.rows, f.cols, f.ranks);
  float *a = test_normal_floats(64 * 64), *d_a = (float *)device_copy(a, 64 * 64 * 4);
  tt_options options = test_options();
  test_heap heap;
  tt_matrix made;
  size_t blocks = emu::live_blocks();
  for (int kind = 0; kind < 3; kind++) {
    tt_status status = TT_ERROR_MEMORY;
    int at = 0;
    for (; status && at < 400; at += quick && kind ? 5 : 1) {
      options.allocator = test_allocator(&heap);
      if (kind == 0) heap.fail_at = at + 1;
      if (kind == 1) emu::fail_alloc_at = at + 1;
      if (kind == 2) emu::fail_launch_at = at + 1;
      status = tt_cuda_compress(gpu, d_a, 64, 64, &shape, &options, &made, NULL, stream);
      CHECK(status == TT_OK ||
            (status == (kind == 2 ? TT_ERROR_UNSUPPORTED : TT_ERROR_MEMORY) && !made.block));
      CHECK(heap.live_blocks == (status == TT_OK) && emu::live_blocks() == blocks);
      if (status == TT_OK) tt_free(&made);
    }
    emu::fail_alloc_at = emu::fail_launch_at = 0;
    CHECK(at > (kind ? 20 : 5) && status == TT_OK);
  }
  cudaFree(d_a);
  free(a);
}
#endif

// What comes back is what went up, bit for bit.
static void test_round_trip(void) {
  for (int i = 0; i < FORMS; i++)
    for (int f = 0; f < FORMATS; f++) {
      int group = formats[f] < TT_I8 ? 0 : i % 4 == 0 ? 0 : i % 4 == 1 ? TT_GROUP_ROW : 3 + i;
      tt_matrix w = build(&forms[i], formats[f], group, (i + f) % 2, i % 3 == 0, f % 2), back;
      tt_cuda_matrix *d_w = upload(&w);
      test_heap heap;
      tt_options options = test_options();
      options.allocator = test_allocator(&heap);
      CHECK_STATUS(tt_cuda_download(d_w, &options, &back), TT_OK);
      CHECK(heap.live_blocks == 1 && back.rows == w.rows && back.cols == w.cols &&
            back.sweep == w.sweep);
      CHECK(!memcmp(&back.shape, &w.shape, sizeof w.shape) && !back.bias == !w.bias);
      if (w.bias) CHECK(!memcmp(back.bias, w.bias, (size_t)w.rows * 4));
      for (int k = 0; k < w.shape.order; k++) {
        size_t packed, row, scales;
        tt__cuda_core_sizes(&w, k, &packed, &row, &scales);
        const tt_core *a = &w.cores[k], *b = &back.cores[k];
        size_t data = packed * (size_t)w.shape.rows[k] *
                      (size_t)w.shape.ranks[w.sweep == TT_LEFT_TO_RIGHT ? k + 1 : k];
        CHECK(a->dtype == b->dtype && a->group == b->group && a->scale == b->scale);
        CHECK(!memcmp(a->data, b->data, data) && !a->scales == !b->scales);
        if (scales) CHECK(!memcmp(a->scales, b->scales, scales));
      }
      tt_free(&back);
      CHECK(heap.live_blocks == 0);
      tt_cuda_free(d_w);
      tt_free(&w);
    }
}

// Capture, replay with other inputs, two streams; the same bits as without a graph.
static void test_graph(void) {
  for (int path = TT_CUDA_FUSED; path <= TT_CUDA_DENSE; path++) {
    tt_matrix w = build(&forms[13], TT_I8, TT_GROUP_ROW, 0, 0, 1);
    tt_cuda_matrix *d_w = upload(&w);
    tt_cuda_args args = plain(6, (tt_cuda_path)path);
    tt_cuda_plan plan;
    ptrdiff_t x_size = 6 * w.cols * 4, y_size = 6 * w.rows * 4;
    float *x = test_normal_floats(6 * w.cols), *first = test_floats(6 * w.rows);
    float *second = test_floats(6 * w.rows), *dense = test_floats(w.rows * w.cols);
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    cudaStream_t other;
    CHECK(cudaStreamCreate(&other) == cudaSuccess);
    CHECK_STATUS(tt_cuda_plan_apply(d_w, &args, &plan), TT_OK);
    void *work = device((ptrdiff_t)plan.work_size), *blank = test_new(x_size, 1);
    args.d_x = device_copy(blank, x_size);
    args.d_y = device(y_size);
    CHECK(cudaStreamBeginCapture(other, cudaStreamCaptureModeGlobal) == cudaSuccess);
    CHECK_STATUS(tt_cuda_apply_ex(d_w, &args, work, plan.work_size, other), TT_OK);
    CHECK(cudaStreamEndCapture(other, &graph) == cudaSuccess);
    CHECK(cudaGraphInstantiate(&ready, graph, 0) == cudaSuccess);
    CHECK(cudaMemcpy((void *)args.d_x, x, (size_t)x_size, cudaMemcpyHostToDevice) == cudaSuccess);
    CHECK(cudaGraphLaunch(ready, other) == cudaSuccess);
    CHECK(cudaStreamSynchronize(other) == cudaSuccess);
    fetch(first, args.d_y, y_size);
    CHECK_STATUS(tt_cuda_apply_ex(d_w, &args, work, plan.work_size, stream), TT_OK);
    fetch(second, args.d_y, y_size);
    CHECK(!memcmp(first, second, (size_t)y_size) && first[0] == first[0]);
    CHECK(cudaGraphExecDestroy(ready) == cudaSuccess && cudaGraphDestroy(graph) == cudaSuccess);
    CHECK(cudaStreamDestroy(other) == cudaSuccess);
    cudaFree((void *)args.d_x);
    cudaFree(args.d_y);
    cudaFree(work);
    tt_cuda_free(d_w);
    tt_free(&w);
    free(x);
    free(first);
    free(second);
    free(dense);
    free(blank);
  }
}

static void test_errors(void) {
  tt_matrix w = build(&forms[13], TT_F32, 0, 0, 0, 1);
  tt_cuda_context *context = (tt_cuda_context *)&w;
  tt_cuda_matrix *d_w = upload(&w), *none = d_w;
  tt_cuda_plan plan;
  tt_cuda_args args = plain(3, TT_CUDA_CHAIN);
  float *d_x = (float *)device(3 * w.cols * 4), *d_y = (float *)device(3 * w.rows * 4 + 256);
  size_t size;
  CHECK_STATUS(tt_cuda_create(-1, NULL, &context), TT_ERROR_INVALID);
  CHECK(!context);
  CHECK_STATUS(tt_cuda_create(1000, NULL, &context), TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_create(0, NULL, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_upload(NULL, &w, &none, stream), TT_ERROR_INVALID);
  CHECK(!none);
  CHECK_STATUS(tt_cuda_upload(gpu, NULL, &none, stream), TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_upload(gpu, &w, NULL, stream), TT_ERROR_INVALID);
  static const tt_dtype others[] = {TT_F64, TT_I3, TT_I2};
  for (int i = 0; i < 3; i++) {
    tt_options options = test_options();
    tt_matrix bad;
    options.dtype = others[i];
    CHECK_STATUS(tt_create(&w.shape, w.rows, w.cols, &options, &bad), TT_OK);
    CHECK_STATUS(tt_cuda_upload(gpu, &bad, &none, stream), TT_ERROR_UNSUPPORTED);
    tt_free(&bad);
  }
  tt_matrix invalid = w, back = w;
  invalid.shape.ranks[1]++;
  invalid.cores[0].data = NULL;
  CHECK_STATUS(tt_cuda_upload(gpu, &invalid, &none, stream), TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_download(NULL, NULL, &back), TT_ERROR_INVALID);
  CHECK(!back.block && !back.rows);
  CHECK_STATUS(tt_cuda_plan_apply(NULL, &args, &plan), TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_plan_apply(d_w, NULL, &plan), TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_plan_apply(d_w, &args, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_plan_apply(d_w, &args, &plan), TT_OK);
  size = plan.work_size;
  CHECK(size > 256 && plan.path == TT_CUDA_CHAIN && plan.num_launches == 3 && plan.flops > 0);
  CHECK(tt_cuda_apply_work_size(d_w, -1) == 0 && tt_cuda_apply_work_size(NULL, 1) == 0);
  CHECK(tt_cuda_apply_work_size(d_w, PTRDIFF_MAX / 8) == 0);
  CHECK(tt_cuda_expand_work_size(NULL) == 0 && tt_cuda_rows_work_size(d_w, -1) == 0);
  CHECK(tt_cuda_rows_work_size(d_w, PTRDIFF_MAX / 8) == 0);
  char *work = (char *)device((ptrdiff_t)size + 256);
  args.d_x = d_x;
  args.d_y = d_y;
  CHECK_STATUS(tt_cuda_apply_ex(d_w, &args, work, size - 1, stream), TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_apply_ex(d_w, &args, work + 4, size, stream), TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_apply_ex(d_w, &args, NULL, size, stream), TT_ERROR_INVALID);
  tt_cuda_args bad = args;
  bad.d_x = NULL;
  CHECK_STATUS(tt_cuda_apply_ex(d_w, &bad, work, size, stream), TT_ERROR_INVALID);
  bad = args;
  bad.d_y = (char *)d_x + 4 * (3 * w.cols - 1); // the last element of x
  CHECK_STATUS(tt_cuda_apply_ex(d_w, &bad, work, size, stream), TT_ERROR_INVALID);
  bad = args;
  bad.ldx = w.cols - 1;
  CHECK_STATUS(tt_cuda_apply_ex(d_w, &bad, work, size, stream), TT_ERROR_INVALID);
  bad = args;
  bad.ldy = PTRDIFF_MAX / 8;
  CHECK_STATUS(tt_cuda_apply_ex(d_w, &bad, work, size, stream), TT_ERROR_MEMORY);
  bad = args;
  bad.dtype = TT_I8;
  CHECK_STATUS(tt_cuda_apply_ex(d_w, &bad, work, size, stream), TT_ERROR_UNSUPPORTED);
  bad = args;
  bad.path = 4;
  CHECK_STATUS(tt_cuda_apply_ex(d_w, &bad, work, size, stream), TT_ERROR_INVALID);
  bad = args;
  bad.batch = -1;
  CHECK_STATUS(tt_cuda_apply_ex(d_w, &bad, work, size, stream), TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_apply(d_w, NULL, 0, NULL, NULL, 0, stream), TT_OK);
  CHECK_STATUS(tt_cuda_expand(d_w, NULL, work, size, stream), TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_expand(d_w, d_y, work, 1, stream), TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_rows(d_w, NULL, 1, d_y, work, size, stream), TT_ERROR_INVALID);
  CHECK_STATUS(tt_cuda_rows(d_w, NULL, 0, NULL, NULL, 0, stream), TT_OK);
  CHECK_STATUS(tt_cuda_rows(d_w, NULL, -1, d_y, work, size, stream), TT_ERROR_INVALID);
  tt_cuda_free(NULL);
  tt_cuda_destroy(NULL);
  CHECK(tt_cuda_last_native(NULL) == 0);
  cudaFree(d_x);
  cudaFree(d_y);
  cudaFree(work);
  tt_cuda_free(d_w);
  tt_free(&w);
}

#ifdef TT_CUDA_EMU
// Failures of CUDA and of the allocator that a healthy GPU does not show.
static void test_failures(void) {
  tt_cuda_context *context;
  tt_cuda_matrix *d_w, *twin;
  tt_matrix w = build(&forms[13], TT_I4, 3, 0, 0, 1), back;
  tt_cuda_args args = plain(3, TT_CUDA_DENSE);
  tt_cuda_plan plan;
  test_heap heap;
  tt_options options = test_options();
  emu::num_devices = 0;
  CHECK_STATUS(tt_cuda_create(0, NULL, &context), TT_ERROR_UNSUPPORTED);
  emu::num_devices = 2;
  options.allocator = test_allocator(&heap);
  heap.fail_at = 1;
  CHECK_STATUS(tt_cuda_create(1, &options, &context), TT_ERROR_MEMORY);
  options.allocator = test_allocator(&heap);
  CHECK_STATUS(tt_cuda_create(1, &options, &context), TT_OK);
  for (int at = 2; at <= 3; at++) { // host memory of the upload
    heap.fail_at = at + (heap.calls - 1);
    CHECK_STATUS(tt_cuda_upload(context, &w, &d_w, stream), TT_ERROR_MEMORY);
    CHECK(!d_w && heap.live_blocks == 1);
  }
  heap.fail_at = 0;
  emu::fail_alloc_at = 1;
  CHECK_STATUS(tt_cuda_upload(context, &w, &d_w, stream), TT_ERROR_MEMORY);
  CHECK(!d_w && heap.live_blocks == 1 && tt_cuda_last_native(context) == 2);
  CHECK_STATUS(tt_cuda_upload(context, &w, &d_w, stream), TT_OK);
  CHECK_STATUS(tt_cuda_plan_apply(d_w, &args, &plan), TT_OK);
  char *work = (char *)device((ptrdiff_t)plan.work_size);
  args.d_x = device(3 * w.cols * 4);
  args.d_y = device(3 * w.rows * 4);
  // device 0 is current
  CHECK_STATUS(tt_cuda_apply_ex(d_w, &args, work, plan.work_size, stream), TT_ERROR_INVALID);
  CHECK(cudaSetDevice(1) == cudaSuccess);
  for (int at = 1; at <= plan.num_launches; at++) {
    emu::fail_launch_at = at;
    CHECK_STATUS(tt_cuda_apply_ex(d_w, &args, work, plan.work_size, stream), TT_ERROR_UNSUPPORTED);
    CHECK(tt_cuda_last_native(context) == 719);
  }
  CHECK_STATUS(tt_cuda_apply_ex(d_w, &args, work, plan.work_size, stream), TT_OK);
  CHECK(cudaSetDevice(0) == cudaSuccess);
  cudaStream_t other;
  cudaGraph_t graph;
  CHECK(cudaStreamCreate(&other) == cudaSuccess);
  CHECK(cudaStreamBeginCapture(other, cudaStreamCaptureModeGlobal) == cudaSuccess);
  CHECK_STATUS(tt_cuda_upload(context, &w, &twin, stream), TT_ERROR_UNSUPPORTED);
  CHECK(!twin && tt_cuda_last_native(context) == 900);
  CHECK(cudaStreamEndCapture(other, &graph) == cudaSuccess &&
        cudaGraphDestroy(graph) == cudaSuccess);
  CHECK(cudaStreamDestroy(other) == cudaSuccess);
  heap.fail_at = heap.calls + 1;
  CHECK_STATUS(tt_cuda_download(d_w, &options, &back), TT_ERROR_MEMORY);
  heap.fail_at = heap.calls + 2;
  CHECK_STATUS(tt_cuda_download(d_w, &options, &back), TT_ERROR_MEMORY);
  CHECK(!back.block && heap.live_blocks == 2);
  cudaFree((void *)args.d_x);
  cudaFree(args.d_y);
  cudaFree(work);
  tt_cuda_free(d_w);
  tt_cuda_destroy(context);
  CHECK(heap.live_blocks == 0 && emu::live_blocks() == 0);
  emu::num_devices = 1;
  tt_free(&w);
}
#endif

// The planner names the ways that these shapes are for; see bench/cuda.sh for how well it does.
static void test_planner(void) {
  static const form wide = {2, {64, 64}, {64, 64}, {1, 16, 1}};
  static const form deep = {3, {16, 16, 16}, {16, 16, 16}, {1, 64, 64, 1}};
  tt_cuda_plan plan;
  tt_matrix w = build(&wide, TT_F16, 0, 0, 0, 0), v = build(&deep, TT_F16, 0, 0, 0, 0);
  tt_cuda_matrix *d_w = upload(&w), *d_v = upload(&v);
  tt_cuda_args args = plain(1, TT_CUDA_AUTO);
  CHECK_STATUS(tt_cuda_plan_apply(d_w, &args, &plan), TT_OK);
  CHECK(plan.path == TT_CUDA_FUSED && plan.num_launches == 1 && plan.work_size == 0);
  CHECK(tt_cuda_apply_work_size(d_w, 1) == 1);
  CHECK_CLOSE(plan.flops, 2.0 * (double)tt_apply_macs(&w, 1), 0.5);
  CHECK_CLOSE(plan.bytes, 2.0 * 2 * 65536 + 4 * 2 * 4096, 0.5);
  args.batch = 4096; // a train of this rank costs 16 times dense
  CHECK_STATUS(tt_cuda_plan_apply(d_v, &args, &plan), TT_OK);
  CHECK(plan.path == TT_CUDA_DENSE && plan.flops > 2.0 * 4096 * 4096 * 4096);
  for (int path = TT_CUDA_FUSED; path <= TT_CUDA_DENSE; path++) {
    tt_cuda_plan forced;
    args.path = path;
    tt_status status = tt_cuda_plan_apply(d_v, &args, &forced);
    CHECK(status == TT_ERROR_UNSUPPORTED || forced.seconds >= plan.seconds);
  }
  tt_cuda_free(d_w);
  tt_cuda_free(d_v);
  tt_free(&w);
  tt_free(&v);
}

static const struct {
  const char *name;
  void (*run)(void);
} tests[] = {
    {"numbers", test_numbers},
    {"mma", test_mma},
    {"mma bf16", test_mma_bf16},
    {"races", test_races},
    {"forms", test_forms},
    {"groups", test_groups},
    {"args", test_args},
    {"tiles", test_tiles},
    {"tensor", test_tensor},
    {"pair", test_pair},
    {"layouts", test_layouts},
    {"rows", test_rows},
    {"round trip", test_round_trip},
    {"graph", test_graph},
    {"planner", test_planner},
    {"errors", test_errors},
    {"backward", test_backward},
    {"backward errors", test_backward_errors},
    {"svd", test_svd_batched},
    {"compress", test_compress},
#ifdef TT_CUDA_EMU
    {"failures", test_failures},
    {"compress failures", test_compress_failures},
#endif
};
enum { TESTS = sizeof tests / sizeof *tests };

int main(int argc, char **argv) {
  unsigned char hash[32];
  quick = argc > 1 && strcmp(argv[1], "all");
  int only_races = argc > 1 && !strcmp(argv[1], "races");
  tt_sha256_begin(&digest);
  if (tt_cuda_create(0, NULL, &gpu) == TT_ERROR_UNSUPPORTED) {
    printf("gpu: not present, %d tests not run\n", (int)TESTS);
    return 0;
  }
  CHECK(gpu && cudaStreamCreate(&stream) == cudaSuccess);
  for (int i = 0; i < TESTS && gpu; i++) {
    if (only_races && tests[i].run != test_races) continue;
    if (argc > 2 && strcmp(argv[2], tests[i].name)) continue;
    long failed = test_failed;
    test_seed((unsigned)i);
    tests[i].run();
    if (test_failed > failed)
      printf("failed: %s (last error %d)\n", tests[i].name, tt_cuda_last_native(gpu));
  }
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  tt_cuda_destroy(gpu);
#ifdef TT_CUDA_EMU
  CHECK(emu::live_blocks() == 0);
#endif
  tt_sha256_end(&digest, hash);
  printf("largest error of a forward pass in float: %.2e\nbits: ", worst);
  for (int i = 0; i < 8; i++) printf("%02x", hash[i]);
  printf("\n%ld passed, %ld failed\n", test_passed, test_failed);
  return test_failed != 0;
}
