// One program for every processor and compiler: the same tests everywhere, and hashes over the bits
// of results, which must not depend on the platform.
//   cc -std=c99 -ffp-contract=off -DTT_NO_SIMD platform.c -lm && ./a.out
//   -DTT_INFERENCE_ONLY   the part for microcontrollers: trains of every kind and storage format are
//                         run and compared with sums done here. 5 KB of memory, no library but libc
//   without               these first, then sections of the default tests
//   -DPLATFORM_BOARD      prints through board.h (examples/mcu) instead of stdio
//   -DPLATFORM_EVERY=40   one case of forty, for what is emulated very slowly
//   -DPLATFORM_FAIL       one test fails on purpose: does the platform say so?
// Prints "integer HASH", "float HASH", "double HASH" (where there is double), "N passed, N failed", "exit N".
#ifdef TT_INFERENCE_ONLY
#define TT_IMPLEMENTATION
#include "../../tt.h"
#else
#include "../test.h"
#include "../test_config.c"
#include "../test_number.c"
#include "../test_qr.c"
#include "../test_random.c"
#include "../test_shape.c"
#endif

#ifdef PLATFORM_BOARD
#include "board.h"
#else
#include <stdio.h>
static void board_start(void) {}
static void board_print(const char *text) { fputs(text, stdout); }
static int board_stop(int status) { return status; }
#endif

#ifndef PLATFORM_EVERY
#define PLATFORM_EVERY 1
#endif
static int cases;
static int skipped(void) { return cases++ % PLATFORM_EVERY; }

// ------------------------------------------------------------------------------- report and random

static unsigned long small_passed, small_failed;

static void print_number(unsigned long value) {
  char text[24], *at = text + sizeof text;
  *--at = 0;
  do {
    *--at = (char)('0' + value % 10);
    value /= 10;
  } while (value);
  board_print(at);
}

static void print_hash(const char *name, uint32_t hash) {
  char text[10];
  for (int i = 0; i < 8; i++) text[i] = "0123456789abcdef"[hash >> (28 - 4 * i) & 15];
  text[8] = '\n';
  text[9] = 0;
  board_print(name);
  board_print(text);
}

// Counts; what fails is named by three small numbers.
static void check(int good, const char *what, int a, int b, int c) {
  if (good) {
    small_passed++;
    return;
  }
  if (++small_failed > 20) return;
  board_print("failed: ");
  board_print(what);
  board_print(" ");
  print_number((unsigned long)a);
  board_print(" ");
  print_number((unsigned long)b);
  board_print(" ");
  print_number((unsigned long)c);
  board_print("\n");
}

static uint32_t state = 1;
static uint32_t next(void) { return (state = (uint32_t)(state * 1664525UL + 1013904223UL)) >> 8; }
static int below(int n) { return (int)(next() % (uint32_t)n); }
static float fraction(void) { return (float)((int32_t)next() - 8388608L) / 8388608.0f; } // [-1, 1)

static uint32_t hash_of, integer_hash = 2166136261UL; // FNV-1a
static void hash_word(uint32_t word) {
  for (int i = 0; i < 4; i++) hash_of = (hash_of ^ (word >> 8 * i & 255)) * 16777619UL;
}
static void hash_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  hash_word(bits);
}

// ------------------------------------------------------------------------- trains of every kind

enum { ORDER = 4, NUMBERS = 60, SIDE = 16, BATCH = 2, STATE = 128 };
#ifdef TT_INFERENCE_ONLY
enum { WORK = 1792 };
#else
enum { WORK = 16384 }; // vector kernels want more
#endif

typedef struct kind {
  tt_shape shape;
  int rows, cols;
} kind;
static const kind kinds[] = {
    {{1, {6}, {10}, {1, 1}}, 6, 10},                             // dense
    {{2, {5, 1}, {1, 6}, {1, 3, 1}}, 5, 6},                      // low rank
    {{3, {2, 3, 2}, {1, 1, 1}, {1, 2, 2, 1}}, 12, 1},            // a plain train
    {{4, {1, 1, 2, 2}, {2, 3, 1, 1}, {1, 2, 3, 2, 1}}, 4, 6},    // row legs behind
    {{2, {4, 3}, {3, 4}, {1, 3, 1}}, 11, 12},                    // two sites, padded
    {{4, {2, 2, 2, 2}, {2, 2, 2, 2}, {1, 2, 3, 2, 1}}, 16, 15}}; // an operator, padded
enum { KINDS = sizeof kinds / sizeof *kinds };

static tt_matrix w;
static float numbers[ORDER][NUMBERS]; // what the codes mean, in the natural layout
static int8_t plain[ORDER][NUMBERS];  // integer codes, likewise
static float bias[SIDE], x[BATCH * SIDE], y[BATCH * SIDE], row[SIDE];
// as data of F32 too: aligned
static uint32_t codes[ORDER][NUMBERS], scales[ORDER][16], work[WORK / 4];

// The bit widths of exponent and mantissa, 0 for integer codes.
static int exponent_bits(tt_dtype dtype) {
  return dtype == TT_F16    ? 5
         : dtype == TT_BF16 ? 8
         : dtype == TT_E4M3 ? 4
         : dtype == TT_E5M2 ? 5
                            : 0;
}
static int mantissa_bits(tt_dtype dtype) {
  return dtype == TT_F16 ? 10 : dtype == TT_BF16 ? 7 : dtype == TT_E4M3 ? 3 : 2;
}
static int integer_bits(tt_dtype dtype) {
  return dtype == TT_I8 ? 8 : dtype == TT_I4 ? 4 : dtype == TT_I3 ? 3 : dtype == TT_I2 ? 2 : 0;
}

// The value of a finite code of few bits, by halving and doubling.
static float small_float(tt_dtype dtype, unsigned code) {
  int bits = mantissa_bits(dtype), exponents = exponent_bits(dtype);
  int exponent = (int)(code >> bits) & ((1 << exponents) - 1);
  int power = (exponent ? exponent : 1) - ((1 << (exponents - 1)) - 1) - bits;
  float value = (float)(code & ((1u << bits) - 1)) + (exponent ? (float)(1 << bits) : 0);
  for (; power > 0; power--) value *= 2;
  for (; power < 0; power++) value /= 2;
  return code >> (bits + exponents) & 1 ? -value : value;
}

// Writes one random code at element `index` of row `r` of the GEMM view; returns its value.
static float put_code(tt_dtype dtype, unsigned char *data, int r, int length, int index) {
  int bits = integer_bits(dtype), at = r * length + index;
  if (bits) {
    int code = below((1 << bits) - 1) - ((1 << (bits - 1)) - 1), first = index * bits;
    unsigned char *byte = data + r * ((length * bits + 7) / 8) + first / 8;
    unsigned placed = ((unsigned)code & ((1u << bits) - 1)) << first % 8;
    byte[0] = (unsigned char)(byte[0] | (placed & 255));
    if (placed >> 8) byte[1] = (unsigned char)(byte[1] | placed >> 8);
    return (float)code;
  }
  if (dtype == TT_F32) {
    float value = fraction();
    memcpy(data + 4 * at, &value, sizeof value);
    return value;
  }
  int mantissa = mantissa_bits(dtype), half = (1 << (exponent_bits(dtype) - 1)) - 1;
  unsigned code = (unsigned)below(2) << (mantissa + exponent_bits(dtype)) |
                  (unsigned)(half - below(4)) << mantissa | (unsigned)below(1 << mantissa);
  if (dtype == TT_F16 || dtype == TT_BF16) {
    uint16_t wide = (uint16_t)code;
    memcpy(data + 2 * at, &wide, sizeof wide);
  } else
    data[at] = (unsigned char)code;
  return small_float(dtype, code);
}

// The scale of element `index` of a row, which the first element of its group chooses.
static float put_scale(const tt_core *core, uint32_t *to, int r, int length, int index) {
  int groups = core->group > 0 ? (length + core->group - 1) / core->group : 1;
  int at = core->group > 0 ? r * groups + index / core->group : r;
  if (core->group == 0) return core->scale;
  if (core->group == TT_GROUP_ROW) {
    float value = (float)(1 + at % 7) / 8.0f;
    memcpy(to + at, &value, sizeof value);
    return value * core->scale;
  }
  uint16_t code = (uint16_t)(0x3000 + at % 11 * 0x0111); // 0.125 and up
  memcpy((unsigned char *)to + 2 * at, &code, sizeof code);
  return small_float(TT_F16, code) * core->scale;
}

static void make_core(int k, tt_dtype dtype, int group) {
  tt_core *core = &w.cores[k];
  int m = w.shape.rows[k], n = w.shape.cols[k], before = w.shape.ranks[k],
      after = w.shape.ranks[k + 1], turned = w.sweep == TT_LEFT_TO_RIGHT;
  memset(codes[k], 0, sizeof codes[k]);
  core->dtype = dtype;
  core->group = group;
  core->scale = integer_bits(dtype) ? 0.0625f : 1;
  core->data = codes[k];
  core->scales = group ? scales[k] : NULL;
  for (int a = 0; a < before; a++)
    for (int i = 0; i < m; i++)
      for (int j = 0; j < n; j++)
        for (int b = 0; b < after; b++) {
          int r = turned ? i * after + b : a * m + i, at = turned ? a * n + j : j * after + b;
          int length = turned ? before * n : n * after;
          float scale = put_scale(core, scales[k], r, length, at);
          float value = put_code(dtype, (unsigned char *)codes[k], r, length, at);
          numbers[k][((a * m + i) * n + j) * after + b] = scale * value;
          if (integer_bits(dtype)) plain[k][((a * m + i) * n + j) * after + b] = (int8_t)value;
        }
}

static void make_train(const kind *of, int sweep, tt_dtype dtype, int group) {
  memset(&w, 0, sizeof w);
  w.shape = of->shape;
  w.sweep = sweep;
  w.rows = of->rows;
  w.cols = of->cols;
  w.bias = bias;
  for (int k = 0; k < w.shape.order; k++) make_core(k, dtype, group);
  for (int i = 0; i < of->rows; i++) bias[i] = fraction();
  for (int i = 0; i < BATCH * of->cols; i++) x[i] = fraction();
}

// W[i,j] as the product of one matrix a core; *size becomes the same of absolute values.
static float element(int i, int j, float *size) {
  float now[3] = {1, 0, 0}, absolute[3] = {1, 0, 0};
  int rows = 1, cols = 1;
  for (int k = 0; k < w.shape.order; k++) {
    rows *= w.shape.rows[k];
    cols *= w.shape.cols[k];
  }
  for (int k = 0; k < w.shape.order; k++) {
    int m = w.shape.rows[k], n = w.shape.cols[k], after = w.shape.ranks[k + 1];
    float then[3] = {0, 0, 0}, then_absolute[3] = {0, 0, 0};
    rows /= m;
    cols /= n;
    for (int a = 0; a < w.shape.ranks[k]; a++)
      for (int b = 0; b < after; b++) {
        float g = numbers[k][((a * m + i / rows % m) * n + j / cols % n) * after + b];
        then[b] += now[a] * g;
        then_absolute[b] += absolute[a] * (g < 0 ? -g : g);
      }
    memcpy(now, then, sizeof now);
    memcpy(absolute, then_absolute, sizeof absolute);
  }
  *size = absolute[0];
  return now[0];
}

static int close_to(float value, float wanted, float size) {
  float difference = value - wanted;
  return difference <= 1e-5f * size && difference >= -1e-5f * size;
}

static int good_output(int b) {
  int good = 1;
  for (int i = 0; i < w.rows; i++) {
    float sum = bias[i], size = 1, part;
    for (int j = 0; j < w.cols; j++) {
      sum += element(i, j, &part) * x[b * w.cols + j];
      size += part;
    }
    good = good && close_to(y[b * w.rows + i], sum, size);
  }
  return good;
}

static void test_floats_of(int kind_index, int sweep, tt_dtype dtype, int group) {
  if (skipped()) return;
  make_train(&kinds[kind_index], sweep, dtype, group);
  int name = (int)dtype * 10 + sweep, index = below((int)w.rows);
  size_t need = tt_apply_work_size(&w, BATCH);
  check(need > 0 && need <= sizeof work, "workspace", kind_index, name, group & 7);
  check(tt_apply(&w, x, BATCH, y, work, need) == TT_OK && good_output(0) && good_output(1), "apply",
        kind_index, name, group & 7);
  for (int i = 0; i < BATCH * w.rows; i++) hash_float(y[i]);
  need = tt_rows_work_size(&w);
  int good = need > 0 && need <= sizeof work && tt_rows(&w, &index, 1, row, work, need) == TT_OK;
  for (int j = 0; j < w.cols; j++) {
    float size, wanted = element(index, j, &size);
    good = good && close_to(row[j], wanted, size);
    hash_float(row[j]);
  }
  check(good, "rows", kind_index, name, group & 7);
}

static void test_all_floats(void) {
  static const int groups[] = {0, TT_GROUP_ROW, 5};
  for (int k = 0; k < KINDS; k++)
    for (int dtype = TT_F32; dtype <= TT_I2; dtype++)
      for (int sweep = 0; sweep < 2 && dtype != TT_F64; sweep++)
        for (int g = 0; g < (dtype < TT_I8 ? 1 : 3); g++)
          test_floats_of(k, sweep, (tt_dtype)dtype, groups[g]);
}

// ------------------------------------------------------------------------------------- in integers

static tt_integer plan;
static int32_t multipliers[ORDER][16], offsets[16], sums[SIDE];
static int8_t x8[SIDE], y8[SIDE];

static int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }

// value * multiplier / 2^(31 - shift) for shift <= 0, in the words of tt_requantize.
static int32_t requantized(int32_t value, int32_t multiplier, int shift, int rounding) {
  int64_t divisor = (int64_t)1 << (31 - shift), part = (int64_t)1 << -shift, high, down;
  if (rounding == TT_ROUND_SINGLE)
    return (int32_t)floor_divide((int64_t)value * multiplier + divisor / 2, divisor);
  high = floor_divide((int64_t)value * multiplier + ((int64_t)1 << 30), (int64_t)1 << 31);
  down = high < 0 ? -high : high;
  down = (2 * down + part) / (2 * part);
  return (int32_t)(high < 0 ? -down : down);
}

// Random plan for the train in w: offsets for a zero point of x, bias, single or double rounding.
static void make_plan(int rounding) {
  int bits = integer_bits(w.cores[0].dtype);
  memset(&plan, 0, sizeof plan);
  plan.order = w.shape.order;
  plan.rounding = rounding;
  plan.in_zero = below(5) - 2;
  plan.out_zero = below(5) - 2;
  for (int i = 0; i < plan.order; i++) {
    int k = w.sweep == TT_LEFT_TO_RIGHT ? i : plan.order - 1 - i;
    int m = w.shape.rows[k], n = w.shape.cols[k], before = w.shape.ranks[k],
        after = w.shape.ranks[k + 1], turned = w.sweep == TT_LEFT_TO_RIGHT;
    int rows = m * (turned ? after : before);
    plan.shifts[i] = bits > 2 ? 1 - bits : 0; // results of a hundred and more: some are clipped
    plan.num_multipliers[i] = w.cores[k].group ? rows : 1;
    plan.multipliers[i] = multipliers[i];
    for (int r = 0; r < rows; r++)
      multipliers[i][r] = (int32_t)(0x40000000UL + (next() & 0x3FFFFFUL) * 200);
    if (i > 0) continue;
    memset(offsets, 0, sizeof offsets);
    for (int at = 0; at < before * m * n * after; at++) { // at = ((a m + i) n + j) after + b
      int b = at % after, am = at / after / n;
      offsets[turned ? am % m * after + b : am] -= (int32_t)plan.in_zero * plain[k][at];
    }
    plan.offsets = offsets;
    plan.num_offsets = rows;
  }
  for (int i = 0; i < w.rows; i++) sums[i] = (int32_t)below(401) - 200;
  plan.bias = sums;
  plan.num_bias = (int)w.rows;
  for (int i = 0; i < w.cols; i++) x8[i] = (int8_t)(below(256) - 128);
}

static int32_t clipped(int32_t value, int32_t low) {
  return value > 127 ? 127 : value < low ? low : value;
}

// The sweep on plain codes with sums of 64 bits; compares y8.
static int good_codes(void) {
  static int8_t states[2][STATE];
  int p = 1, width = 1, good = 1, turned = w.sweep == TT_LEFT_TO_RIGHT;
  for (int k = 0; k < plan.order; k++) p *= w.shape.cols[k];
  for (int j = 0; j < p; j++) states[0][j] = j < w.cols ? x8[j] : (int8_t)plan.in_zero;
  if (turned) {
    width = p;
    p = 1;
  }
  for (int i = 0; i < plan.order; i++) {
    int k = turned ? i : plan.order - 1 - i, last = i + 1 == plan.order;
    int m = w.shape.rows[k], n = w.shape.cols[k], before = w.shape.ranks[k],
        after = w.shape.ranks[k + 1];
    int rows = turned ? m * after : before * m, length = turned ? before * n : n * after;
    if (turned)
      width /= n;
    else
      p /= n;
    for (int at = 0; at < p * rows * width; at++) {
      int v = at % width, r = at / width % rows, q = at / width / rows;
      int64_t sum = i ? 0 : offsets[r];
      if (last && at >= w.rows) break;
      for (int c = 0; c < length; c++) {
        int from = turned ? ((c / n * m + r / after) * n + c % n) * after + r % after
                          : (r * n + c / after) * after + c % after;
        sum += (int64_t)plain[k][from] * states[i & 1][(q * length + c) * width + v];
      }
      if (last) sum += sums[at];
      int32_t z = requantized((int32_t)sum, multipliers[i][plan.num_multipliers[i] > 1 ? r : 0],
                              plan.shifts[i], plan.rounding);
      if (last)
        good = good && clipped(z + plan.out_zero, -128) == y8[at];
      else
        states[~i & 1][at] = (int8_t)clipped(z, -127);
    }
    if (turned)
      p *= m;
    else
      width *= m;
  }
  return good;
}

// Scales found at run time: multipliers of one, so that units are the scales of cores.
static int good_dynamic(void) {
  int good = 1;
  plan.dynamic = 1;
  plan.offsets = plan.bias = NULL;
  plan.in_zero = plan.out_zero = 0;
  for (int i = 0; i < plan.order; i++) {
    int k = w.sweep == TT_LEFT_TO_RIGHT ? i : plan.order - 1 - i;
    multipliers[i][0] = 0x40000000L;
    plan.shifts[i] = 1;
    plan.units[i] = w.cores[k].scale;
  }
  size_t need = tt_integer_work_size(&plan, &w);
  if (need == 0 || need > sizeof work) return 0;
  if (tt_integer_apply_f32(&plan, &w, x, 1, y, work, need) != TT_OK) return 0;
  for (int i = 0; i < w.rows; i++) {
    float sum = bias[i], size = 1, part, gap;
    for (int j = 0; j < w.cols; j++) {
      sum += element(i, j, &part) * x[j];
      size += part;
    }
    gap = y[i] - sum;
    good = good && gap <= 0.02f * size && gap >= -0.02f * size;
    hash_float(y[i]);
  }
  return good;
}

static void test_integers_of(int kind_index, int sweep, tt_dtype dtype, int group, int rounding) {
  if (skipped()) return;
  uint32_t floats = hash_of;
  int name = (int)dtype * 10 + sweep;
  make_train(&kinds[kind_index], sweep, dtype, group);
  make_plan(rounding);
  size_t need = tt_integer_work_size(&plan, &w);
  check(need > 0 && need <= sizeof work &&
            tt_integer_apply(&plan, &w, x8, 1, y8, work, need) == TT_OK && good_codes(),
        "integers", kind_index, name, rounding);
  hash_of = integer_hash;
  for (int i = 0; i < w.rows; i++) hash_word((uint32_t)y8[i] & 255);
  integer_hash = hash_of;
  hash_of = floats;
  if (group == 0) check(good_dynamic(), "dynamic", kind_index, name, rounding);
}

static void test_all_integers(void) {
  for (int k = 0; k < KINDS; k++)
    for (int dtype = TT_I8; dtype <= TT_I2; dtype++)
      for (int sweep = 0; sweep < 2; sweep++) {
        test_integers_of(k, sweep, (tt_dtype)dtype, 0, (dtype + sweep) & 1);
        test_integers_of(k, sweep, (tt_dtype)dtype, TT_GROUP_ROW, (dtype + sweep + 1) & 1);
      }
}

// The four cases in which the two roundings differ, and numbers at the ends.
static void test_requantize(void) {
  static const int32_t values[] = {1, -2, 5, -6}, ends[] = {INT32_MIN, -3, 0, 1, 77777, INT32_MAX};
  static const int8_t single[] = {0, 0, 1, -1}, twice[] = {1, -1, 2, -2};
  for (int i = 0; i < 4; i++)
    check(tt_requantize(values[i], 0x40000000L, -1, TT_ROUND_SINGLE) == single[i] &&
              tt_requantize(values[i], 0x40000000L, -1, TT_ROUND_DOUBLE) == twice[i],
          "rounding", i, 0, 0);
  for (int rounding = 0; rounding < 2; rounding++)
    for (int i = 0; i < 6; i++)
      for (int shift = -31; shift <= 0; shift++) {
        if (skipped()) continue;
        int32_t got = tt_requantize(ends[i], 0x7FFFFFFFL, shift, rounding);
        check(got == requantized(ends[i], 0x7FFFFFFFL, shift, rounding), "ends", i, -shift,
              rounding);
      }
}

// ---------------------------------------------------------------------------- the rest of the part

// Every code of eight bits and a sample of those of sixteen; NaN and Inf have no business here.
static void test_codes(void) {
  for (int dtype = TT_F16; dtype <= TT_E5M2; dtype++) {
    int good = 1, bits = exponent_bits((tt_dtype)dtype) + mantissa_bits((tt_dtype)dtype);
    for (uint32_t code = 0; code >> bits < 2; code += bits > 8 ? 61 : 1) {
      if (skipped()) continue;
      uint32_t top = (((uint32_t)1 << exponent_bits((tt_dtype)dtype)) - 1)
                     << mantissa_bits((tt_dtype)dtype);
      if ((code & top) == top) continue;
#ifdef __SDCC
      if (dtype == TT_BF16 && (code & top) == 0) continue; // no subnormal floats
#endif
      float value = tt_to_f32((tt_dtype)dtype, (unsigned)code);
      good = good && value == small_float((tt_dtype)dtype, (unsigned)code);
      hash_float(value);
    }
    check(good, "codes", dtype, 0, 0);
  }
}

static void test_refusals(void) {
  make_train(&kinds[4], TT_RIGHT_TO_LEFT, TT_I8, 0);
  size_t need = tt_apply_work_size(&w, 1);
  for (int i = 0; i < SIDE; i++) y[i] = 7;
  check(tt_apply(&w, x, 1, y, work, need - 1) == TT_ERROR_INVALID && y[0] == 7, "short", 0, 0, 0);
  check(tt_apply(&w, x, -1, y, work, need) == TT_ERROR_INVALID && y[0] == 7, "batch", 0, 0, 0);
  check(tt_apply(&w, NULL, 0, NULL, NULL, 0) == TT_OK, "nothing to do", 0, 0, 0);
  check(tt_apply(&w, x, 1, y, (unsigned char *)work + 1, need) == TT_OK && good_output(0),
        "odd workspace", 0, 0, 0);
  // states of 181^2 floats fit 32 bits, not 16; 32000^5 fit no integer here
  w.shape.rows[0] = w.shape.rows[1] = w.shape.cols[0] = w.shape.cols[1] = 181;
  w.shape.ranks[1] = 1;
  check((tt_apply_work_size(&w, 1) == 0) == (PTRDIFF_MAX < 65536L), "16 bits", 0, 0, 0);
  w.shape.order = 5;
  for (int k = 0; k < 5; k++) {
    w.shape.rows[k] = w.shape.cols[k] = 32000;
    w.shape.ranks[k + 1] = 1;
    w.cores[k] = w.cores[0];
  }
  check(tt_apply_work_size(&w, 1) == 0 && tt_apply_macs(&w, 1) == -1, "too large", 0, 0, 0);
}

// ------------------------------------------------------------------------- what needs the library
#ifndef TT_INFERENCE_ONLY

static void hash_double(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  hash_word((uint32_t)bits);
  hash_word((uint32_t)(bits >> 32));
}

static void hash_train(const tt_matrix *train) {
  for (int k = 0; k < train->shape.order; k++) {
    ptrdiff_t count = (ptrdiff_t)train->shape.ranks[k] * train->shape.rows[k] *
                      train->shape.cols[k] * train->shape.ranks[k + 1];
    hash_word((uint32_t)train->shape.ranks[k + 1]);
    for (ptrdiff_t i = 0; i < count; i++) {
      if (train->cores[k].dtype == TT_F64)
        hash_double(((const double *)train->cores[k].data)[i]);
      else
        hash_word(((const unsigned char *)train->cores[k].data)[i]);
    }
  }
}

// Compressed by each decomposition, rounded, coded: all of it is + - * / and square roots.
static void test_library(void) {
  static double dense[24 * 24];
  tt_options options = test_options();
  tt_shape shape;
  options.dtype = TT_F64;
  for (int i = 0; i < 24 * 24; i++) dense[i] = 1.0 / (1 + i / 24 + i % 24) + 1e-3 * fraction();
  CHECK_STATUS(tt_shape_factor(24, 24, 3, &shape), TT_OK);
  for (int method = TT_SVD_GRAM; method <= TT_SVD_HOUSEHOLDER; method++) {
    tt_matrix train, rounded, coded;
    options.method = method;
    options.epsilon = 1e-3;
    CHECK_STATUS(tt_compress_f64(dense, 24, 24, &shape, &options, &train, NULL), TT_OK);
    options.epsilon = 1e-2;
    CHECK_STATUS(tt_round(&train, &options, &rounded, NULL), TT_OK);
    CHECK_STATUS(tt_quantize(&rounded, TT_I8, 0, NULL, &coded, NULL), TT_OK);
    hash_train(&train);
    hash_train(&rounded);
    hash_train(&coded);
    tt_free(&train);
    tt_free(&rounded);
    tt_free(&coded);
  }
}

static void test_sections_here(void) {
  test_seed(0);
  test_config();
  test_seed(1);
  test_number();
  test_seed(2);
  test_random();
  test_seed(4);
  test_qr();
  test_seed(7);
  test_shape_section();
}
#endif

int main(void) {
  unsigned long passed, failed;
  board_start();
  hash_of = 2166136261UL;
  test_all_floats();
  test_all_integers();
  test_requantize();
  test_codes();
  test_refusals();
  print_hash("integer ", integer_hash);
  print_hash("float ", hash_of);
#ifdef PLATFORM_FAIL
  check(0, "on purpose", 0, 0, 0);
#endif
  passed = small_passed;
  failed = small_failed;
#ifndef TT_INFERENCE_ONLY
  hash_of = 2166136261UL;
  test_library();
  print_hash("double ", hash_of);
  test_sections_here();
  passed += (unsigned long)test_passed;
  failed += (unsigned long)test_failed;
#endif
  print_number(passed);
  board_print(" passed, ");
  print_number(failed);
  board_print(" failed\n");
  return board_stop(failed != 0);
}
