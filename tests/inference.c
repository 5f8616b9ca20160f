// Runs trains from constant memory with TT_INFERENCE_ONLY, as a device does: the structs below are
// complete programs in flash, nothing is allocated. Expected values are computed here, from the
// cores as plain numbers.
//   cc -O2 inference.c && ./a.out              closing line "N passed, N failed"
#define TT_INFERENCE_ONLY
#define TT_IMPLEMENTATION
#include "../tt.h"
#include <stdio.h>

static int passed, failed;
static void check(int good, const char *what) {
  if (good) passed++;
  else { failed++; printf("failed: %s\n", what); }
}

// The 6 x 6 matrix of all trains: factors rows (2,3), cols (3,2), rank 2, small integers.
static const float first[12] = {1, -2, 3, 0, -1, 2,  2, 1, -3, 1, 0, -1};   // (1, 2, 3, 2)
static const float second[12] = {2, 1, 0, -1, 3, -2,  -1, 2, 1, 1, -3, 0};  // (2, 3, 2, 1)
static const float bias[6] = {0.5f, -1, 2, 0, 8, -0.25f};

// The same numbers for the sweep from left to right: (rows, rank after, rank before, cols).
static const float first_left[12] = {1, 3, -1, -2, 0, 2,  2, -3, 0, 1, 1, -1};
static const float second_left[12] = {2, 1, -1, 2, 0, -1, 1, 1, 3, -2, -3, 0};

// The same numbers as codes. Core 0 has two rows of six 4-bit codes, with a float16 scale for each
// group of four and one float for all: value = code * scales * scale, here code * 1 and code * 0.5
// in turn.
#define TWO(low, high) (unsigned char)(((low) & 15) | ((high) & 15) << 4)
static const unsigned char first_i4[6] = {TWO(1, -2), TWO(3, 0),  TWO(-2, 4),
                                          TWO(2, 1),  TWO(-3, 1), TWO(0, -2)};
static const unsigned short first_scales[4] = {0x4000, 0x3C00, 0x4000, 0x3C00}; // 2, 1, 2, 1
static const signed char second_i8[12] = {4, 2, 0, -1, 6, -4, -1, 2, 4, 4, -3, 0};
static const float second_scales[6] = {0.5f, 1, 0.5f, 1, 0.25f, 1};
static const unsigned char second_e4m3[12] = {0x40, 0x38, 0,    0xB8, 0x44, 0xC0,
                                              0xB8, 0x40, 0x38, 0x38, 0xC4, 0};
static const unsigned short first_f16[12] = {0x3C00, 0xC000, 0x4200, 0, 0xBC00, 0x4000,
                                             0x4000, 0x3C00, 0xC200, 0x3C00, 0, 0xBC00};

#define SHAPE {2, {2, 3}, {3, 2}, {1, 2, 1}}
#define END bias, 0, {0, 0, 0}
static const tt_matrix floats = {SHAPE, TT_RIGHT_TO_LEFT, 6, 6,
                                 {{TT_F32, 0, 0, first, 0, 0}, {TT_F32, 0, 0, second, 0, 0}}, END};
static const tt_matrix left = {
    SHAPE,
    TT_LEFT_TO_RIGHT,
    6,
    6,
    {{TT_F32, 0, 0, first_left, 0, 0}, {TT_F32, 0, 1, second_left, 0, 0}},
    END};
static const tt_matrix codes = {SHAPE, TT_RIGHT_TO_LEFT, 6, 6,
                                {{TT_I4, 4, 0.5f, first_i4, first_scales, 0},
                                 {TT_I8, TT_GROUP_ROW, 0, second_i8, second_scales, 0}}, END};
static const tt_matrix halves = {
    SHAPE,
    TT_RIGHT_TO_LEFT,
    6,
    6,
    {{TT_F16, 0, 0, first_f16, 0, 0}, {TT_E4M3, 0, 0, second_e4m3, 0, 0}},
    END};
static const tt_matrix wide = {SHAPE, TT_RIGHT_TO_LEFT, 6, 6,
                               {{TT_F64, 0, 0, first, 0, 0}, {TT_F32, 0, 0, second, 0, 0}}, END};

static float work[32768];

// Row i of W times x, plus bias: W[i,j] = sum_a first[i0,j0,a] second[a,i1,j1].
static float expected(int i, const float *x) {
  float sum = bias[i];
  for (int j = 0; j < 6; j++)
    for (int a = 0; a < 2; a++)
      sum += first[(i / 3 * 3 + j / 2) * 2 + a] * second[(a * 3 + i % 3) * 2 + j % 2] * x[j];
  return sum;
}

// All numbers are small integers times powers of two, so that every order of summation is exact.
static void check_train(const tt_matrix *w, const char *what) {
  static float x[18], y[18];
  int good = tt_apply_work_size(w, 3) > 0 && tt_apply_work_size(w, 3) <= sizeof work;
  for (int i = 0; i < 18; i++) x[i] = (float)(i * 7 % 11 - 5);
  good = good && tt_apply(w, x, 3, y, work, sizeof work) == TT_OK;
  for (int i = 0; i < 18; i++) good = good && y[i] == expected(i % 6, x + i / 6 * 6);
  check(good, what);
}

// Row i of W, which is what W makes of the unit vectors.
static void check_rows(const tt_matrix *w, const char *what) {
  static const int index[4] = {5, 0, 3, 0};
  float out[24], unit[6];
  int good = tt_rows_work_size(w) > 0 && tt_rows_work_size(w) <= sizeof work;
  good = good && tt_rows(w, index, 4, out, work, sizeof work) == TT_OK;
  for (int i = 0; i < 24; i++) {
    for (int j = 0; j < 6; j++) unit[j] = j == i % 6;
    good = good && out[i] == expected(index[i / 6], unit) - bias[index[i / 6]];
  }
  check(good, what);
}

int main(void) {
  float x[6] = {1, 2, 3, 4, 5, 6}, y[6] = {7, 7, 7, 7, 7, 7};
  const int index = 0;
  check_train(&floats, "float cores");
  check_train(&left, "float cores from left to right");
  check_train(&codes, "4-bit cores with groups, 8-bit cores with rows");
  check_train(&halves, "float16 and float8 cores");
  check_rows(&floats, "rows of float cores");
  check_rows(&left, "rows of float cores from left to right");
  check_rows(&codes, "rows of 4-bit and 8-bit cores");
  check_rows(&halves, "rows of float16 and float8 cores");
  check(tt_apply_macs(&floats, 1) == 72 && tt_apply_macs(&left, 5) == 5 * (12 * 2 + 12 * 2),
        "multiply-adds");
  check(tt_apply(&wide, x, 1, y, work, sizeof work) == TT_ERROR_UNSUPPORTED && y[0] == 7,
        "no double for inference");
  check(tt_rows(&wide, &index, 1, y, work, sizeof work) == TT_ERROR_UNSUPPORTED && y[0] == 7,
        "no rows of doubles for inference");
  check(tt_apply(&floats, x, 1, y, work, 0) == TT_ERROR_INVALID && y[5] == 7,
        "too little work memory");
  check(tt_apply(0, x, 1, y, work, sizeof work) == TT_ERROR_INVALID, "no train");
  check(tt_to_f32(TT_F16, 0x3C00) == 1 && tt_to_f32(TT_E5M2, 0x3C) == 1, "decoding");
  check(tt_status_string(TT_ERROR_UNSUPPORTED)[0] != 0, "status strings");
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
