// >>number: small floats bit for bit against the definition, golden values, integer codes and
// scales of coded rows.
#include "test.h"

static const tt_dtype number_floats[4] = {TT_F16, TT_BF16, TT_E4M3, TT_E5M2};
static const char *const number_names[4] = {"F16", "BF16", "E4M3", "E5M2"};

// The definition of a format, written down apart from tt.h: widths, the first code that is no
// number, and the value of every magnitude by ldexp. The entry behind the largest number is what
// the next one would be: between the two lies the border of overflow.
typedef struct number_format {
  int exponent_bits, mantissa_bits,
      first_special; // first_special: code of Inf, or of NaN where there is no Inf
  double values[32769];
} number_format;

static void number_define(tt_dtype dtype, number_format *format) {
  format->exponent_bits = dtype == TT_BF16 ? 8 : dtype == TT_E4M3 ? 4 : 5;
  format->mantissa_bits = dtype == TT_F16 ? 10 : dtype == TT_BF16 ? 7 : dtype == TT_E4M3 ? 3 : 2;
  int ones = 1 << format->mantissa_bits, top = (1 << format->exponent_bits) - 1, bias = top / 2;
  format->first_special = dtype == TT_E4M3 ? 0x7F : top * ones;
  for (int code = 0; code <= format->first_special; code++) {
    int exponent = code / ones, mantissa = code % ones;
    format->values[code] = exponent
                               ? ldexp(ones + mantissa, exponent - bias - format->mantissa_bits)
                               : ldexp(mantissa, 1 - bias - format->mantissa_bits);
  }
}

// The oracle: the nearest number of the format, ties to the even code. value is not NaN.
static unsigned number_nearest(const number_format *format, double value, int saturate) {
  unsigned sign = (unsigned)(copysign(1, value) < 0)
                  << (format->exponent_bits + format->mantissa_bits);
  double magnitude = fabs(value);
  int low = 0,
      high = format->first_special; // values[low] <= magnitude < values[high], or beyond all
  if (magnitude >= format->values[high]) low = high;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (format->values[middle] <= magnitude) low = middle; else high = middle;
  }
  if (low < high) {
    double below = magnitude - format->values[low],
           above = format->values[high] - magnitude; // exact
    if (below > above || (below == above && low % 2)) low = high;
  }
  if (low == format->first_special && saturate) low--;
  return sign | (unsigned)low;
}

// Encodes value with either sign and in either mode; returns how many codes are not those of the
// oracle.
static long number_wrong(tt_dtype dtype, const number_format *format, float value) {
  long wrong = 0;
  for (int k = 0; k < 4; k++) {
    float x = k & 1 ? -value : value;
    unsigned got = tt_from_f32(dtype, x, k >> 1),
             wanted = number_nearest(format, (double)x, k >> 1);
    if (got != wanted && wrong++ == 0)
      printf("  %s of %a, saturate %d: %04X, wanted %04X\n", number_names[dtype - TT_F16],
             (double)x, k >> 1, got, wanted);
  }
  return wrong;
}

static int number_is_nan(float value) {
  return (tt__float_bits(value) & 0x7FFFFFFFu) > 0x7F800000u;
}
static int number_is_inf(float value) {
  return (tt__float_bits(value) & 0x7FFFFFFFu) == 0x7F800000u;
}

// Every code decodes to its definition, and every number encodes back to its code, in both modes.
static void number_decode(tt_dtype dtype, const number_format *format) {
  int width = format->exponent_bits + format->mantissa_bits;
  long wrong = 0, not_back = 0;
  for (unsigned code = 0; code < 1u << width; code++) {
    unsigned negative = code | 1u << width;
    float value = tt_to_f32(dtype, code), minus = tt_to_f32(dtype, negative);
    wrong += tt__float_bits(minus) != (tt__float_bits(value) | 0x80000000u);
    if ((int)code < format->first_special) {
      wrong += (double)value != format->values[code];
      not_back += tt_from_f32(dtype, value, 0) != code || tt_from_f32(dtype, minus, 1) != negative;
    } else if ((int)code == format->first_special && dtype != TT_E4M3) {
      wrong += !number_is_inf(value);
      not_back += tt_from_f32(dtype, value, 0) != code || tt_from_f32(dtype, minus, 0) != negative;
      not_back +=
          tt_from_f32(dtype, value, 1) != code - 1 || tt_from_f32(dtype, minus, 1) != negative - 1;
    } else {
      wrong += !number_is_nan(value);
      not_back += !number_is_nan(tt_to_f32(dtype, tt_from_f32(dtype, value, 0)));
      not_back += !number_is_nan(tt_to_f32(dtype, tt_from_f32(dtype, minus, 1)));
    }
    wrong +=
        tt__float_bits(tt_to_f32(dtype, code | 0xA5u << 24 | 2u << width)) != tt__float_bits(value);
  }
  CHECK(wrong == 0);
  CHECK(not_back == 0);
}

// All F16 and all BF16 numbers as inputs.
static void number_encode_halves(tt_dtype dtype, const number_format *format) {
  long wrong = 0;
  for (unsigned code = 0; code <= 0x7C00; code++)
    wrong += number_wrong(dtype, format, tt_to_f32(TT_F16, code));
  for (unsigned code = 0; code <= 0x7F80; code++)
    wrong += number_wrong(dtype, format, tt_to_f32(TT_BF16, code));
  CHECK(wrong == 0);
}

// Every midpoint of two neighbours (all exact in float, but BF16's border of overflow lies at its
// end) and the floats next to it.
static void number_encode_midpoints(tt_dtype dtype, const number_format *format) {
  long wrong = 0;
  for (int code = 0; code < format->first_special; code++) {
    float middle = (float)(format->values[code] / 2 + format->values[code + 1] / 2);
    uint32_t bits = tt__float_bits(middle);
    wrong += (double)middle != format->values[code] / 2 + format->values[code + 1] / 2;
    for (int step = -1; step <= 1; step++)
      wrong += number_wrong(dtype, format, tt__bits_float(bits + (uint32_t)step));
  }
  CHECK(wrong == 0);
}

// Floats at even distances over the whole range, Inf included.
static void number_encode_walk(tt_dtype dtype, const number_format *format) {
  long wrong = 0;
  for (uint32_t bits = 0; bits <= 0x7F800000u; bits += 40009)
    wrong += number_wrong(dtype, format, tt__bits_float(bits));
  wrong += number_wrong(dtype, format, tt__bits_float(0x7F800000u));
  wrong += number_wrong(dtype, format, FLT_MAX) + number_wrong(dtype, format, tt__bits_float(1));
  CHECK(wrong == 0);
}

static void number_exhaustive(void) {
  number_format *format = (number_format *)test_new(1, sizeof *format);
  for (int i = 0; i < 4; i++) {
    number_define(number_floats[i], format);
    number_decode(number_floats[i], format);
    number_encode_halves(number_floats[i], format);
    number_encode_midpoints(number_floats[i], format);
    number_encode_walk(number_floats[i], format);
  }
  free(format);
}

// Codes as other implementations give them (measured with the conversion headers of a GPU vendor):
// E4M3 saturated, E4M3 with NaN, E5M2 saturated, E5M2 with Inf.
static void number_golden_bytes(void) {
  static const struct { uint32_t bits; unsigned char codes[4];
  } rows[] = {
      {0x00000000, {0x00, 0x00, 0x00, 0x00}},
      {0x80000000, {0x80, 0x80, 0x80, 0x80}},
      {0x3F800000, {0x38, 0x38, 0x3C, 0x3C}}, // 1
      {0x3F880000, {0x38, 0x38, 0x3C, 0x3C}}, // 1.0625, a tie in E4M3
      {0x3F900000, {0x39, 0x39, 0x3C, 0x3C}}, // 1.125, a tie in E5M2
      {0x3F980000, {0x3A, 0x3A, 0x3D, 0x3D}}, // 1.1875, a tie in E4M3
      {0x3FB00000, {0x3B, 0x3B, 0x3E, 0x3E}}, // 1.375, a tie in E5M2
      {0x43E00000, {0x7E, 0x7E, 0x5F, 0x5F}}, // 448
      {0x43E80000, {0x7E, 0x7E, 0x5F, 0x5F}}, // 464: ties to even and stays finite
      {0x43E80001, {0x7E, 0x7F, 0x5F, 0x5F}},
      {0x43F00000, {0x7E, 0x7F, 0x60, 0x60}},
      {0x43FA0000, {0x7E, 0x7F, 0x60, 0x60}}, // 480, 500
      {0x47600000, {0x7E, 0x7F, 0x7B, 0x7B}},
      {0x47629000, {0x7E, 0x7F, 0x7B, 0x7B}}, // 57344, 58000
      {0x476FFFFF, {0x7E, 0x7F, 0x7B, 0x7B}},
      {0x47700000, {0x7E, 0x7F, 0x7B, 0x7C}},
      {0x47800000, {0x7E, 0x7F, 0x7B, 0x7C}}, // 61440 and 65536
      {0x7F800000, {0x7E, 0x7F, 0x7B, 0x7C}},
      {0xFF800000, {0xFE, 0xFF, 0xFB, 0xFC}}, // Inf and -Inf
      {0x3C800000, {0x08, 0x08, 0x24, 0x24}}, // 2^-6, the smallest normal number of E4M3
      {0x3C700000, {0x08, 0x08, 0x24, 0x24}}, // 15 2^-10, a tie
      {0x3B000000, {0x01, 0x01, 0x18, 0x18}}, // 2^-9
      {0x3B400000, {0x02, 0x02, 0x1A, 0x1A}}, // 3 2^-10, a tie
      {0x3A800000, {0x00, 0x00, 0x14, 0x14}},
      {0x3A800001, {0x01, 0x01, 0x14, 0x14}}, // 2^-10, a tie, and above
      {0x37800000, {0x00, 0x00, 0x01, 0x01}}, // 2^-16
      {0x37000000, {0x00, 0x00, 0x00, 0x00}},
      {0x37000001, {0x00, 0x00, 0x01, 0x01}}, // 2^-17, a tie, and above
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    float value = tt__bits_float(rows[i].bits);
    CHECK(tt_from_f32(TT_E4M3, value, 1) == rows[i].codes[0] &&
          tt_from_f32(TT_E4M3, value, 0) == rows[i].codes[1]);
    CHECK(tt_from_f32(TT_E5M2, value, 1) == rows[i].codes[2] &&
          tt_from_f32(TT_E5M2, value, 0) == rows[i].codes[3]);
  }
}

static void number_golden_halves(void) {
  static const struct { uint32_t bits; unsigned f16, bf16;
  } rows[] = {
      {0x477FE000, 0x7BFF, 0x4780}, {0x477FEFFF, 0x7BFF, 0x4780},
      {0x477FF000, 0x7C00, 0x4780}, // F16 overflows
      {0x38800000, 0x0400, 0x3880}, {0x33800000, 0x0001, 0x3380},
      {0x33C00000, 0x0002, 0x33C0},                               // 2^-14, 2^-24, tie
      {0x33000000, 0x0000, 0x3300}, {0x33000001, 0x0001, 0x3300}, // 2^-25, a tie
      {0x3F801000, 0x3C00, 0x3F80}, {0x3F803000, 0x3C02, 0x3F80}, // ties of F16
      {0x3F808000, 0x3C04, 0x3F80}, {0x3F818000, 0x3C0C, 0x3F82}, // ties of BF16
      {0x7F7F7FFF, 0x7C00, 0x7F7F}, {0x7F7F8000, 0x7C00, 0x7F80}, // BF16 overflows
      {0x00008000, 0x0000, 0x0000}, {0x00008001, 0x0000, 0x0001}, // subnormal BF16
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    float value = tt__bits_float(rows[i].bits);
    CHECK(tt_from_f32(TT_F16, value, 0) == rows[i].f16);
    CHECK(tt_from_f32(TT_BF16, value, 0) == rows[i].bf16);
    CHECK(tt_from_f32(TT_F16, -value, 0) == (rows[i].f16 | 0x8000u));
    CHECK(tt_from_f32(TT_BF16, -value, 0) == (rows[i].bf16 | 0x8000u));
  }
}

// NaN stays NaN, whatever its payload, and keeps its sign; a payload in the low bits only never
// becomes Inf.
static void number_nan(void) {
  static const uint32_t nans[] = {0x7F800001, 0xFF800001, 0x7FC00000, 0xFFC00000,
                                  0x7FFFFFFF, 0xFFFFFFFF, 0x7F80FFFF};
  for (int i = 0; i < 4; i++) {
    for (int k = 0; k < 7; k++) {
      for (int saturate = 0; saturate < 2; saturate++) {
        float back = tt_to_f32(number_floats[i],
                               tt_from_f32(number_floats[i], tt__bits_float(nans[k]), saturate));
        CHECK(number_is_nan(back) && tt__float_bits(back) >> 31 == nans[k] >> 31);
      }
    }
  }
  CHECK(tt_from_f32(TT_E4M3, tt__bits_float(0xFFC00000), 0) == 0xFF &&
        tt_from_f32(TT_E4M3, tt__bits_float(0x7FC00000), 1) == 0x7F);
}

static void number_other_types(void) {
  static const tt_dtype others[] = {TT_F32, TT_F64, TT_I8, TT_I4, TT_I3, TT_I2};
  for (int i = 0; i < 6; i++)
    CHECK(tt_to_f32(others[i], 0x3C00) == 0 && tt_from_f32(others[i], 1, 0) == 0);
  static const int bits[] = {32, 64, 16, 16, 8, 8, 8, 4, 3, 2};
  for (int i = 0; i < 10; i++) CHECK(tt__dtype_bits((tt_dtype)i) == bits[i]);
  CHECK(tt__dtype_bits((tt_dtype)99) == 0);
  CHECK(tt__nearest(2.5) == 2 && tt__nearest(3.5) == 4 && tt__nearest(-2.5) == -2 &&
        tt__nearest(-3.5) == -4);
  CHECK(tt__nearest(2.49) == 2 && tt__nearest(-2.51) == -3 && tt__nearest(0) == 0 &&
        tt__nearest(-0.5) == 0);
}

// Integer codes: bit b of code j is bit j*bits + b of the stream. Every value at every position,
// among random others.
static int number_stream_code(const unsigned char *stream, int index, int bits) {
  int code = 0;
  for (int b = 0; b < bits; b++)
    code |= (stream[(index * bits + b) / 8] >> (index * bits + b) % 8 & 1) << b;
  return code >= 1 << (bits - 1) ? code - (1 << bits) : code;
}

static void number_integers(tt_dtype dtype) {
  enum { LENGTH = 25 };
  int bits = tt__dtype_bits(dtype), smallest = -(1 << (bits - 1)), wrong = 0, codes[LENGTH];
  for (int length = 1; length <= LENGTH; length++)
    CHECK(tt__row_size(dtype, length) == (length * bits + 7) / 8);
  for (int position = 0; position < LENGTH; position++) {
    for (int value = smallest; value < -smallest; value++) {
      unsigned char stream[LENGTH + 1];
      memset(stream, 0, sizeof stream);
      stream[tt__row_size(dtype, LENGTH)] = 0xA5; // behind the row: read and written by nobody
      for (int i = 0; i < LENGTH; i++) {
        codes[i] = i == position ? value : smallest + test_below(1 << bits);
        tt__put_integer(stream, i, bits, codes[i]);
      }
      for (int i = 0; i < LENGTH; i++) {
        wrong += number_stream_code(stream, i, bits) != codes[i];
        wrong += tt__integer_code(stream, i, bits) != codes[i];
        wrong += tt__decode_one(dtype, stream, i) != (float)codes[i];
      }
      wrong += stream[tt__row_size(dtype, LENGTH)] != 0xA5;
    }
  }
  CHECK(wrong == 0);
}

static void number_integer_golden(void) {
  unsigned char row[4] = {0, 0, 0, 0};
  static const int codes[8] = {1, -1, 3,  -3,
                               2, 0,  -2, 1}; // 001 111 011 101 010 000 110 001, lowest bits first
  for (int i = 0; i < 8; i++) tt__put_integer(row, i, 3, codes[i]);
  CHECK(row[0] == 0xF9 && row[1] == 0x2A && row[2] == 0x38 && row[3] == 0);
  memset(row, 0, sizeof row);
  tt__put_integer(row, 0, 4, -7);
  tt__put_integer(row, 1, 4, 5);
  CHECK(row[0] == 0x59 && row[1] == 0);
}

// --- Coded rows: encode a view of doubles, look at every code and scale, decode.

typedef struct number_view {
  ptrdiff_t rows, length;
  double *values, *decoded;
  unsigned char *data, *scales;
  tt_core core;
} number_view;

static number_view number_view_new(ptrdiff_t rows, ptrdiff_t length, tt_dtype dtype, int group) {
  number_view view;
  memset(&view, 0, sizeof view);
  view.rows = rows;
  view.length = length;
  view.values = test_normal_doubles(rows * length);
  view.decoded = test_doubles(rows * length);
  view.data = (unsigned char *)test_new(rows * tt__row_size(dtype, length), 1);
  view.scales = (unsigned char *)test_new(rows * length, 4);
  view.core.dtype = dtype;
  view.core.group = group;
  return view;
}

static void number_view_free(number_view *view) {
  free(view->values);
  free(view->decoded);
  free(view->data);
  free(view->scales);
}

// Encodes row by row, as the library does with views that are too large for one piece.
static tt_status number_view_code(number_view *view) {
  view->core.data = view->data;
  view->core.scales = view->core.group ? view->scales : NULL;
  memset(view->data, 0, (size_t)(view->rows * tt__row_size(view->core.dtype, view->length)));
  double largest = tt__largest_magnitude(view->rows * view->length, view->values);
  tt_status status = tt__encode_begin(&view->core, largest);
  if (status) return status;
  for (ptrdiff_t i = 0; i < view->rows; i += 2) {
    ptrdiff_t count = i + 2 <= view->rows ? 2 : 1;
    tt__encode_rows(&view->core, i, count, view->length, view->values + i * view->length);
  }
  tt__decode_f64(&view->core, view->rows, view->length, view->decoded);
  return TT_OK;
}

// The scale of element (i, j) from the bytes alone: value = code * scales[..] * scale.
static double number_view_scale(const number_view *view, ptrdiff_t i, ptrdiff_t j) {
  float of_row;
  uint16_t of_group;
  double scale = view->core.scale == 0 ? 1 : (double)view->core.scale;
  if (view->core.group == 0) return scale;
  if (view->core.group == TT_GROUP_ROW) {
    memcpy(&of_row, view->scales + 4 * i, 4);
    return (double)of_row * scale;
  }
  ptrdiff_t per_row = (view->length + view->core.group - 1) / view->core.group;
  memcpy(&of_group, view->scales + 2 * (i * per_row + j / view->core.group), 2);
  return (double)tt_to_f32(TT_F16, of_group) * scale;
}

// Elements that share the scale of (i, j): their largest magnitude.
static double number_view_largest(const number_view *view, ptrdiff_t i, ptrdiff_t j) {
  ptrdiff_t first = i * view->length, end = first + view->length;
  double largest = 0;
  if (view->core.group == 0) { first = 0; end = view->rows * view->length; }
  if (view->core.group > 0) {
    first += j / view->core.group * view->core.group;
    if (first + view->core.group < end) end = first + view->core.group;
  }
  for (ptrdiff_t t = first; t < end; t++)
    if (fabs(view->values[t]) > largest) largest = fabs(view->values[t]);
  return largest;
}

// Codes are the nearest integers of value / scale, the largest magnitude of a group takes the
// largest code, decoded values are code * scale, and decoding to float agrees.
static void number_check_integers(number_view *view) {
  int bits = tt__dtype_bits(view->core.dtype), limit = (1 << (bits - 1)) - 1;
  long wrong_code = 0, wrong_value = 0, wrong_scale = 0;
  float *floats = test_floats(view->rows * view->length);
  CHECK_STATUS(number_view_code(view), TT_OK);
  tt__decode_rows(&view->core, 0, view->rows, view->length, floats);
  for (ptrdiff_t i = 0; i < view->rows; i++) {
    const unsigned char *row = view->data + i * tt__row_size(view->core.dtype, view->length);
    for (ptrdiff_t j = 0; j < view->length; j++) {
      double value = view->values[i * view->length + j],
             decoded = view->decoded[i * view->length + j];
      double scale = number_view_scale(view, i, j), largest = number_view_largest(view, i, j);
      int code = number_stream_code(row, (int)j, bits);
      wrong_scale +=
          !(fabs(scale * limit - largest) <= largest * (view->core.group > 0 ? 0x1p-10 : 0x1p-22));
      wrong_code += abs(code) > limit || (scale == 0 && code != 0);
      if (scale > 0 && fabs(value) <= limit * scale) // a hair of slack: scale is rounded to float
        wrong_code += !(fabs(value - code * scale) <= scale * (0.5 + 1e-4));
      else wrong_code += scale > 0 && abs(code) != limit;
      wrong_value += !(fabs(decoded - code * scale) <= fabs(decoded) * 0x1p-22);
      double as_float = (double)floats[i * view->length + j];
      if (FLT_EVAL_METHOD == 0) wrong_value += as_float != (double)(float)decoded;
      else wrong_value += !(fabs(as_float - decoded) <= fabs(decoded) * 0x1p-22);
    }
  }
  CHECK(wrong_code == 0);
  CHECK(wrong_value == 0);
  CHECK(wrong_scale == 0);
  free(floats);
}

static void number_coded_rows(void) {
  static const int groups[] = {0, TT_GROUP_ROW, 1, 3, 8, 32, 1000};
  static const int sizes[][2] = {{1, 1}, {1, 37}, {5, 1}, {3, 8}, {4, 33}, {7, 64}, {2, 100}};
  for (int dtype = TT_I8; dtype <= TT_I2; dtype++) {
    for (int g = 0; g < 7; g++) {
      for (int s = 0; s < 7; s++) {
        number_view view = number_view_new(sizes[s][0], sizes[s][1], (tt_dtype)dtype, groups[g]);
        number_check_integers(&view);
        number_view_free(&view);
      }
    }
  }
}

// A group of zeros, a row of zeros, a whole view of zeros: code 0, value 0, no division by a scale
// of 0.
static void number_zero_groups(void) {
  static const int groups[] = {0, TT_GROUP_ROW, 4};
  for (int dtype = TT_I8; dtype <= TT_I2; dtype++) {
    for (int g = 0; g < 3; g++) {
      number_view view = number_view_new(3, 12, (tt_dtype)dtype, groups[g]);
      for (int t = 0; t < 36; t++)
        if (t / 12 == 1 || t % 12 / 4 == 2) view.values[t] = t % 2 ? 0.0 : -0.0;
      number_check_integers(&view);
      for (int t = 0; t < 36; t++) if (t / 12 == 1 || t % 12 / 4 == 2) CHECK(view.decoded[t] == 0);
      for (int t = 0; t < 36; t++) view.values[t] = 0;
      CHECK_STATUS(number_view_code(&view), TT_OK);
      for (int t = 0; t < 36; t++) CHECK(view.decoded[t] == 0);
      for (ptrdiff_t t = 0; t < 3 * tt__row_size((tt_dtype)dtype, 12); t++)
        CHECK(view.data[t] == 0);
      number_view_free(&view);
    }
  }
}

// Magnitudes from 1e-40 to 1e38: integer codes follow through the scale of the core.
static void number_magnitudes(void) {
  static const double factors[] = {1e-36, 1e-20, 1, 1e20, 1e37};
  for (int dtype = TT_I8; dtype <= TT_I2; dtype++) {
    for (int f = 0; f < 5; f++) {
      for (int group = TT_GROUP_ROW; group <= 8; group += group < 0 ? 1 : 8) {
        number_view view = number_view_new(4, 20, (tt_dtype)dtype, group);
        for (int t = 0; t < 80; t++) view.values[t] *= factors[f];
        number_check_integers(&view);
        number_view_free(&view);
      }
    }
  }
}

// Float formats: the scale is a power of two, the largest value does not overflow, and values
// within 2^-4 of it keep the relative accuracy of the mantissa.
static void number_float_rows(tt_dtype dtype, double factor) {
  int mantissa = dtype == TT_F16    ? 10
                 : dtype == TT_BF16 ? 7
                 : dtype == TT_E4M3 ? 3
                 : dtype == TT_E5M2 ? 2
                 : dtype == TT_F32  ? 23
                                    : 52;
  int exponent;
  double largest = 0, worst = 0;
  number_view view = number_view_new(6, 15, dtype, 0);
  for (int t = 0; t < 90; t++) {
    view.values[t] *= factor;
    if (fabs(view.values[t]) > largest) largest = fabs(view.values[t]);
  }
  CHECK_STATUS(number_view_code(&view), TT_OK);
  CHECK(view.core.scale > 0 && frexp((double)view.core.scale, &exponent) == 0.5);
  for (int t = 0; t < 90; t++) {
    if (fabs(view.values[t]) < largest / 16) continue;
    double error = fabs(view.decoded[t] - view.values[t]) / fabs(view.values[t]);
    if (!(error <= worst)) worst = error;
  }
  CHECK_AT_MOST(worst, ldexp(1.0001, -mantissa - 1));
  number_view_free(&view);
}

static void number_ranges(void) {
  static const tt_dtype dtypes[] = {TT_F64, TT_F32, TT_F16, TT_BF16, TT_E4M3, TT_E5M2};
  static const double factors[] = {1e-30, 1e-8, 1e-3, 1, 300, 7e4, 1e12, 1e30};
  for (int i = 0; i < 6; i++)
    for (int f = 0; f < 8; f++) number_float_rows(dtypes[i], factors[f]);
  for (int dtype = TT_F32; dtype <= TT_I2; dtype++) {
    number_view view = number_view_new(2, 8, (tt_dtype)dtype, 0);
    view.values[5] = -1e39; // above FLT_MAX: only F64 can hold it
    CHECK_STATUS(number_view_code(&view), dtype == TT_F64 ? TT_OK : TT_ERROR_UNSUPPORTED);
    if (dtype == TT_F64) CHECK(!memcmp(view.decoded, view.values, 16 * sizeof(double)));
    number_view_free(&view);
  }
}

// Whatever the largest value, its scaled self fits the format and uses its upper half (F16, with
// range to spare: upper quarter); F16 is left unscaled where its normal numbers do.
static void number_power_scale(void) {
  static const tt_dtype dtypes[] = {TT_F16, TT_E4M3, TT_E5M2};
  static const double tops[] = {65504, 448, 57344}, bottoms[] = {16384, 224, 28672};
  for (int i = 0; i < 3; i++) {
    for (int e = -100; e <= 100; e++) {
      for (int part = 16; part < 32; part++) {
        double largest = ldexp(part, e - 4), scale = (double)tt__power_scale(dtypes[i], largest);
        int comfortable = i == 0 && largest <= tops[i] && largest >= 0x1p-14;
        CHECK(comfortable ? scale == 1
                          : largest / scale <= tops[i] && largest / scale >= bottoms[i]);
      }
    }
    CHECK(tt__power_scale(dtypes[i], 0) == 1);
  }
  CHECK(tt__power_scale(TT_BF16, 1e30) == 1 && tt__power_scale(TT_BF16, 1e-30) == 1);
}

// Rows out of the middle decode as the whole does; scale 0 is that of a zeroed struct and means 1.
static void number_slices(void) {
  number_view view = number_view_new(9, 21, TT_I3, 8);
  float all[189], some[63];
  CHECK_STATUS(number_view_code(&view), TT_OK);
  tt__decode_rows(&view.core, 0, 9, 21, all);
  for (int first = 0; first <= 6; first++) {
    tt__decode_rows(&view.core, first, 3, 21, some);
    CHECK(!memcmp(some, all + 21 * first, sizeof some));
  }
  view.core.scale = 1;
  tt__decode_rows(&view.core, 0, 9, 21, all);
  view.core.scale = 0;
  tt__decode_rows(&view.core, 0, 3, 21, some);
  CHECK(!memcmp(some, all, sizeof some));
  CHECK(tt__row_scales(0, 21) == 0 && tt__row_scales(TT_GROUP_ROW, 21) == 1 &&
        tt__row_scales(8, 21) == 3);
  CHECK(tt__row_scales(7, 21) == 3 && tt__row_scales(1000, 21) == 1 && tt__row_scales(1, 21) == 21);
  number_view_free(&view);
}

static void test_number(void) {
  number_exhaustive();
  number_golden_bytes();
  number_golden_halves();
  number_nan();
  number_other_types();
  for (int dtype = TT_I8; dtype <= TT_I2; dtype++) number_integers((tt_dtype)dtype);
  number_integer_golden();
  number_coded_rows();
  number_zero_groups();
  number_magnitudes();
  number_ranges();
  number_power_scale();
  number_slices();
}
