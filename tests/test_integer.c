// The forward pass in integers against a scalar reference in 64 bits that follows the digits of
// rows and columns: the same codes for every shape, sweep, format and rounding. Then accuracy, and
// what hostile callers get.

enum { INTEGER_CANARY = 64 };

// ---- requantisation

static int64_t integer_floor_div(int64_t a, int64_t b) { // b > 0
  return a / b - (a % b < 0);
}

// The two rules by division, as their sources write them; values whose result fits.
static int64_t integer_rounded(int64_t x, int64_t m, int shift, int rounding) {
  if (rounding == TT_ROUND_SINGLE)
    return integer_floor_div(x * m + ((int64_t)1 << (30 - shift)), (int64_t)1 << (31 - shift));
  int64_t product = (shift > 0 ? x * ((int64_t)1 << shift) : x) * m; // doubling high multiplication
  int64_t high = (product + (product >= 0 ? 1 << 30 : 1 - (1 << 30))) / ((int64_t)1 << 31);
  int64_t divisor = (int64_t)1 << (shift < 0 ? -shift : 0), whole = high / divisor;
  int64_t rest = high % divisor; // C truncates: rest has the sign of high
  return whole + (rest >= 0 ? (2 * rest >= divisor && divisor > 1) : -(-2 * rest >= divisor));
}

static void integer_test_requantize(void) {
  static const int32_t values[] = {
      INT32_MIN, INT32_MIN + 1, -6,        -2,      -1,      0, 1, 2, 5, (1 << 30) - 1,
      1 << 30,   (1 << 30) + 1, INT32_MAX, 1234567, -7654321};
  static const int32_t multipliers[] = {0,       1,         1 << 30,   (1 << 30) + 1,
                                        3 << 29, INT32_MAX, 1518500250};
  int compared = 0, differ = 0;
  for (int rounding = 0; rounding < 2; rounding++)
    for (int shift = -31; shift <= 30; shift++)
      for (size_t v = 0; v < sizeof values / sizeof *values + 200; v++)
        for (size_t k = 0; k < sizeof multipliers / sizeof *multipliers; k++) {
          int32_t x = v < 15 ? values[v] : (int32_t)(uint32_t)(test_u64() >> (test_below(32) + 32));
          int32_t m = multipliers[k];
          double size = fabs(ldexp((double)x, shift > 0 ? shift : 0));
          if (rounding == TT_ROUND_DOUBLE && size > 2147483647.0) continue;
          if (ldexp((double)x * m, shift - 31) > 2147483646.0) continue;
          if (ldexp((double)x * m, shift - 31) < -2147483647.0) continue;
          compared++;
          if (tt_requantize(x, m, shift, rounding) != integer_rounded(x, m, shift, rounding))
            differ++;
        }
  CHECK(compared > 100000 && differ == 0);
  // inputs by which the rules are told apart
  static const int32_t apart[4][3] = {{1, 0, 1}, {-2, 0, -1}, {5, 1, 2}, {-6, -1, -2}};
  for (int i = 0; i < 4; i++)
    for (int rounding = 0; rounding < 2; rounding++)
      CHECK(tt_requantize(apart[i][0], 1 << 30, -1, rounding) == apart[i][1 + rounding]);
  // saturation, and shifts out of range
  CHECK(tt_requantize(INT32_MAX, INT32_MAX, 30, TT_ROUND_SINGLE) == INT32_MAX);
  CHECK(tt_requantize(INT32_MIN, INT32_MAX, 30, TT_ROUND_SINGLE) == INT32_MIN);
  CHECK(tt_requantize(1000, 1 << 30, 31, TT_ROUND_SINGLE) == 0);
  CHECK(tt_requantize(1000, 1 << 30, -32, TT_ROUND_DOUBLE) == 0);
}

// ---- the reference

static int64_t integer_clamp(int64_t value, int low) {
  return value > 127 ? 127 : value < low ? low : value;
}

// Step `index` on the state `in` by the digits of core k; out becomes the exact 32-bit results.
static void integer_reference_step(const tt_integer *plan, const tt_matrix *w, int index,
                                   const int64_t *in, int64_t *out) {
  const tt_shape *s = &w->shape;
  int left = w->sweep == TT_LEFT_TO_RIGHT, k = left ? index : s->order - 1 - index;
  int m = s->rows[k], n = s->cols[k], r = s->ranks[k], q = s->ranks[k + 1];
  ptrdiff_t before = 1, after = 1, length = train_view_cols(w, k);
  for (int j = 0; j < k; j++) before *= left ? s->rows[j] : s->cols[j];
  for (int j = k + 1; j < s->order; j++) after *= left ? s->cols[j] : s->rows[j];
  int many = plan->num_multipliers[index] > 1;
  for (ptrdiff_t p = 0; p < before; p++)
    for (ptrdiff_t t = 0; t < after; t++)
      for (int i = 0; i < m; i++)
        for (int free_rank = 0; free_rank < (left ? q : r); free_rank++) {
          int64_t sum = 0;
          ptrdiff_t row = 0, col = 0;
          for (int j = 0; j < n; j++)
            for (int bound = 0; bound < (left ? r : q); bound++) {
              int a = left ? bound : free_rank, b = left ? free_rank : bound;
              ptrdiff_t from =
                  left ? ((p * r + a) * n + j) * after + t : ((p * n + j) * q + b) * after + t;
              train_place(w, k, a, i, j, b, &row, &col);
              sum += (int64_t)train_code(&w->cores[k], length, row, col) * in[from];
            }
          ptrdiff_t to = left ? ((p * m + i) * q + free_rank) * after + t
                              : ((p * r + free_rank) * m + i) * after + t;
          int is_last = index + 1 == s->order;
          if (index == 0 && plan->offsets) sum += plan->offsets[row];
          if (is_last && plan->bias && to < w->rows) sum += plan->bias[to];
          CHECK(!is_last || to >= w->rows || (sum <= INT32_MAX && sum >= INT32_MIN));
          out[to] = integer_rounded(sum, plan->multipliers[index][many ? row : 0],
                                    plan->shifts[index], plan->rounding);
        }
}

static ptrdiff_t integer_state_size(const tt_matrix *w, int index) {
  int left = w->sweep == TT_LEFT_TO_RIGHT, cut = left ? index : w->shape.order - index;
  ptrdiff_t size = w->shape.ranks[cut];
  for (int k = 0; k < w->shape.order; k++)
    size *= (k < cut) == left ? w->shape.rows[k] : w->shape.cols[k];
  return size;
}

// One input through a static plan.
static void integer_reference(const tt_integer *plan, const tt_matrix *w, const int8_t *x,
                              int8_t *y) {
  enum { ROOM = 20000 };
  static int64_t in[ROOM], out[ROOM];
  int last = w->shape.order - 1;
  for (ptrdiff_t i = 0; i < integer_state_size(w, 0); i++)
    in[i] = i < w->cols ? x[i] : plan->in_zero;
  for (int i = 0; i <= last; i++) {
    ptrdiff_t size = integer_state_size(w, i + 1);
    if (size > ROOM) {
      CHECK(size <= ROOM);
      return;
    }
    integer_reference_step(plan, w, i, in, out);
    for (ptrdiff_t j = 0; j < size; j++)
      in[j] = i < last ? integer_clamp(out[j], -127) : integer_clamp(out[j] + plan->out_zero, -128);
  }
  for (ptrdiff_t j = 0; j < w->rows; j++) y[j] = (int8_t)in[j];
}

// 127 / largest as a multiplier, by division of 64-bit numbers. Returns the shift.
static int integer_ratio(int64_t largest, int64_t *multiplier) {
  int log2 = 0;
  while (largest >> (log2 + 1)) log2++;
  *multiplier = largest ? ((int64_t)127 << (24 + log2)) / largest : 0;
  return 7 - log2;
}

// Codes of 32-bit numbers in place. Returns the largest magnitude.
static int64_t integer_reference_codes(int64_t *z, ptrdiff_t count, int rounding) {
  int64_t largest = 0, multiplier;
  for (ptrdiff_t i = 0; i < count; i++) largest = llabs(z[i]) > largest ? llabs(z[i]) : largest;
  int shift = integer_ratio(largest, &multiplier);
  for (ptrdiff_t i = 0; i < count; i++) {
    int64_t code = integer_clamp(integer_rounded(z[i], multiplier, shift, rounding), -127);
    // within one step of the quotient, and the largest is the largest code
    if (largest && fabs((double)code - 127.0 * (double)z[i] / (double)largest) > 1) CHECK(0);
    if (largest && llabs(z[i]) == largest && llabs(code) != 127) CHECK(0);
    z[i] = code;
  }
  return largest;
}

// One input through a dynamic plan: 30-bit fixed point by multiplication with a power of two.
static void integer_reference_f32(const tt_integer *plan, const tt_matrix *w, const float *x,
                                  float *y) {
  static int64_t in[20000], out[20000];
  int last = w->shape.order - 1, exponent;
  float largest = 0, scale;
  for (ptrdiff_t i = 0; i < w->cols; i++) largest = fmaxf(largest, fabsf(x[i]));
  (void)frexp(fmax((double)largest, ldexp(1, -126)), &exponent);
  for (ptrdiff_t i = 0; i < integer_state_size(w, 0); i++)
    in[i] = i < w->cols ? (int64_t)ldexp((double)x[i], 30 - exponent) : 0; // truncates
  integer_reference_codes(in, integer_state_size(w, 0), plan->rounding);
  scale = largest / 127;
  for (int i = 0; i <= last; i++) {
    ptrdiff_t size = integer_state_size(w, i + 1);
    integer_reference_step(plan, w, i, in, out);
    scale *= plan->units[i];
    if (i < last) scale *= (float)integer_reference_codes(out, size, plan->rounding) / 127;
    memcpy(in, out, (size_t)size * sizeof *in);
  }
  for (ptrdiff_t j = 0; j < w->rows; j++) {
    y[j] = (float)out[j] * scale;
    if (w->bias) y[j] += w->bias[j];
  }
}

// ---- every shape

// A plan without samples to lean on: random multipliers, zero points, offsets and bias that fit.
// Returns the memory of its arrays.
static int32_t *integer_random_plan(const tt_matrix *w, int rounding, tt_integer *plan) {
  int32_t *memory = (int32_t *)test_new(4096, sizeof(int32_t)), *next = memory;
  int left = w->sweep == TT_LEFT_TO_RIGHT;
  memset(plan, 0, sizeof *plan);
  plan->order = w->shape.order;
  plan->rounding = rounding;
  plan->in_zero = test_below(41) - 20;
  plan->out_zero = test_below(41) - 20;
  for (int i = 0; i < plan->order; i++) {
    int k = left ? i : plan->order - 1 - i, rows = (int)train_view_rows(w, k);
    plan->num_multipliers[i] = w->cores[k].group ? rows : 1;
    plan->shifts[i] = -test_below(3) - (w->cores[k].dtype == TT_I8 ? 7 : 3);
    plan->multipliers[i] = next;
    for (int r = 0; r < plan->num_multipliers[i]; r++) *next++ = (1 << 30) + test_below(1 << 30);
    if (i > 0) continue;
    plan->num_offsets = rows;
    plan->offsets = next;
    for (int r = 0; r < rows; r++) *next++ = test_below(2001) - 1000;
  }
  if (!w->bias) return memory;
  plan->num_bias = (int)w->rows;
  plan->bias = next;
  for (ptrdiff_t j = 0; j < w->rows; j++) *next++ = test_below(20001) - 10000;
  return memory;
}

// Runs a plan in a workspace of exactly the right size between canaries; codes, or floats for a
// dynamic plan, must be those of the reference.
static void integer_check(const tt_integer *plan, const tt_matrix *w, ptrdiff_t batch, int offset) {
  size_t size = tt_integer_work_size(plan, w), each = plan->dynamic ? sizeof(float) : 1;
  unsigned char *memory = (unsigned char *)test_new((ptrdiff_t)size + 2 * INTEGER_CANARY + 128, 1);
  unsigned char *work = tt__align(memory) + INTEGER_CANARY + offset;
  int8_t *codes = (int8_t *)test_new(batch * w->cols, 1);
  float *x = test_normal_floats(batch * w->cols);
  char *y = (char *)test_new(batch * w->rows + 2, each),
       *wanted = (char *)test_new(batch * w->rows, each);
  size_t row = (size_t)w->rows * each;
  for (ptrdiff_t i = 0; i < batch * w->cols; i++) codes[i] = (int8_t)(test_below(256) - 128);
  CHECK(size >= 1);
  memset(work - INTEGER_CANARY, 0xC7, INTEGER_CANARY);
  memset(work, 0x5A, size);
  memset(work + size, 0xC7, INTEGER_CANARY);
  for (ptrdiff_t b = 0; b < batch; b++) {
    char *to = wanted + (size_t)b * row;
    if (plan->dynamic)
      integer_reference_f32(plan, w, x + b * w->cols, (float *)(void *)to);
    else
      integer_reference(plan, w, codes + b * w->cols, (int8_t *)to);
  }
  memset(y, 0x11, (size_t)batch * row + 2 * each);
  for (int attempt = 0; attempt < 2; attempt++) { // the second has a byte too little
    size_t room = size - (size_t)attempt;
    tt_status status =
        plan->dynamic
            ? tt_integer_apply_f32(plan, w, x, batch, (float *)(void *)(y + each), work, room)
            : tt_integer_apply(plan, w, codes, batch, (int8_t *)(y + each), work, room);
    CHECK(status == (attempt ? TT_ERROR_INVALID : TT_OK));
    CHECK(!memcmp(y + each, wanted, (size_t)batch * row));
  }
  int alive = 1;
  for (int i = 0; i < INTEGER_CANARY; i++)
    alive &= work[i - INTEGER_CANARY] == 0xC7 && work[size + (size_t)i] == 0xC7;
  for (size_t i = 0; i < each; i++)
    alive &= y[i] == 0x11 && y[(size_t)batch * row + each + i] == 0x11;
  CHECK(alive);
  free(memory);
  free(codes);
  free(x);
  free(y);
  free(wanted);
}

static void integer_test_bits(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 5);
    for (int variant = 0; variant < 64;
         variant++) { // rounding, sweep, padding, bias, group, format
      tt_dtype dtype = (tt_dtype)(TT_I8 + (variant >> 5 ? 1 + variant % 3 : 0));
      train_built a = train_build(&shape, variant & 1, dtype, variant >> 1 & 1 ? TT_GROUP_ROW : 0,
                                  variant >> 2 & 1, variant >> 3 & 1);
      int rounding = variant >> 4 & 1;
      tt_integer plan;
      int32_t *memory = integer_random_plan(&a.w, rounding, &plan);
      integer_check(&plan, &a.w, 3, variant % 7);
      free(memory);
      tt_integer_options options;
      memset(&options, 0, sizeof options);
      options.dynamic = 1;
      options.rounding = rounding;
      CHECK_STATUS(tt_integer_prepare(&a.w, NULL, 0, &options, &plan, NULL), TT_OK);
      integer_check(&plan, &a.w, 2, variant % 5);
      tt_integer_free(&plan);
      free(a.memory);
    }
  }
}

// A prepared plan may use instructions of the machine; without its private part it does not. Codes
// are the same, for sizes around those of their panels and tiles.
static void integer_test_instructions(void) {
  static const int shapes[][9] = {
      // order, rows, cols, ranks inside
      {1, 1, 0, 1, 0, 0},      {1, 13, 0, 70, 0, 0},   {1, 6, 0, 259, 0, 0},
      {2, 3, 70, 67, 5, 9},    {2, 65, 7, 1, 130, 17}, {2, 100, 1, 1, 64, 33},
      {2, 16, 16, 16, 16, 16}, {2, 5, 31, 12, 9, 3},   {2, 1, 12, 200, 2, 2},
  };
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    for (int variant = 0; variant < 32;
         variant++) { // sweep, padding, bias and zeros, rounding, dynamic
      tt_shape shape = test_shape(shapes[s][0], shapes[s] + 1, shapes[s] + 3, NULL);
      shape.ranks[1] = shape.order > 1 ? shapes[s][5] : 1;
      train_built a = train_build(&shape, variant >> 1 & 1, TT_I8, s % 2 ? TT_GROUP_ROW : 0,
                                  variant & 1, variant >> 2 & 1);
      enum { COUNT = 3 };
      tt_integer_options options;
      tt_integer plan, plain;
      float *x = test_normal_floats(COUNT * a.w.cols), *y[2];
      int8_t *codes = (int8_t *)test_new(COUNT * a.w.cols, 1), *out[2];
      memset(&options, 0, sizeof options);
      options.affine_in = options.affine_out = variant >> 2 & 1;
      options.rounding = variant >> 3 & 1;
      options.dynamic = variant >> 4 & 1;
      CHECK_STATUS(tt_integer_prepare(&a.w, x, COUNT, &options, &plan, NULL), TT_OK);
      CHECK(plan.sums != NULL);
      plain = plan;
      plain.sums = NULL;
      size_t size = tt_integer_work_size(&plan, &a.w);
      unsigned char *work = (unsigned char *)test_new((ptrdiff_t)size + 1, 1);
      CHECK(size == tt_integer_work_size(&plain, &a.w));
      work[size] = 0xC7;
      for (ptrdiff_t i = 0; i < COUNT * a.w.cols; i++) codes[i] = (int8_t)(test_below(256) - 128);
      for (int k = 0; k < 2; k++) {
        y[k] = test_floats(COUNT * a.w.rows);
        out[k] = (int8_t *)test_new(COUNT * a.w.rows, 1);
        tt_status status =
            options.dynamic
                ? tt_integer_apply_f32(k ? &plain : &plan, &a.w, x, COUNT, y[k], work, size)
                : tt_integer_apply(k ? &plain : &plan, &a.w, codes, COUNT, out[k], work, size);
        CHECK_STATUS(status, TT_OK);
      }
      CHECK(!memcmp(out[0], out[1], (size_t)(COUNT * a.w.rows)));
      CHECK(!memcmp(y[0], y[1], (size_t)(COUNT * a.w.rows) * sizeof(float)));
      CHECK(work[size] == 0xC7);
      for (int k = 0; k < 2; k++) {
        free(y[k]);
        free(out[k]);
      }
      tt_integer_free(&plan);
      free(a.memory);
      free(x);
      free(codes);
      free(work);
    }
}

// ---- accuracy

// Error of the plan's y for samples x against tt_apply of another train, relative.
static double integer_error(const tt_integer *plan, const tt_matrix *w, const tt_matrix *exact,
                            const float *x, ptrdiff_t count) {
  size_t size = tt_integer_work_size(plan, w), float_size = tt_apply_work_size(exact, count);
  void *work = test_new((ptrdiff_t)(size + float_size), 1);
  int8_t *codes = (int8_t *)test_new(count * w->cols, 1),
         *coded = (int8_t *)test_new(count * w->rows, 1);
  float *y = test_floats(count * w->rows), *wanted = test_floats(count * w->rows);
  double lost = 0, norm = 0;
  CHECK_STATUS(tt_apply(exact, x, count, wanted, work, float_size), TT_OK);
  for (ptrdiff_t i = 0; i < count * w->cols && !plan->dynamic; i++)
    codes[i] = (int8_t)integer_clamp(lrint((double)(x[i] / plan->in_scale)) + plan->in_zero, -128);
  if (plan->dynamic) {
    CHECK_STATUS(tt_integer_apply_f32(plan, w, x, count, y, work, size), TT_OK);
  } else {
    CHECK_STATUS(tt_integer_apply(plan, w, codes, count, coded, work, size), TT_OK);
  }
  for (ptrdiff_t i = 0; i < count * w->rows; i++) {
    if (!plan->dynamic) y[i] = (float)(coded[i] - plan->out_zero) * plan->out_scale;
    lost += (double)(y[i] - wanted[i]) * (double)(y[i] - wanted[i]);
    norm += (double)wanted[i] * (double)wanted[i];
  }
  free(work);
  free(codes);
  free(coded);
  free(y);
  free(wanted);
  return sqrt(lost / norm);
}

// Random trains: the error in the outputs stays within 1.5 times the law, the root of the sum of
// squares of the errors of cores and states.
static void integer_test_law(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++)
    for (int variant = 0; variant < 8; variant++) { // clipping or dynamic, grouping
      enum { COUNT = 40 };
      tt_shape shape = train_shape(index, 6);
      tt_matrix train = test_train(&shape), coded;
      tt_report cores;
      tt_integer plan;
      tt_integer_report report;
      tt_integer_options options;
      float *x = test_normal_floats(COUNT * train.cols);
      memset(&options, 0, sizeof options);
      options.dynamic = variant % 4 == 0;
      options.clip = variant % 4;
      options.affine_in = options.affine_out = variant % 4 == 2;
      CHECK_STATUS(tt_quantize(&train, TT_I8, variant & 4 ? TT_GROUP_ROW : 0, NULL, &coded, &cores),
                   TT_OK);
      CHECK_STATUS(tt_integer_prepare(&coded, x, COUNT, &options, &plan, &report), TT_OK);
      double law =
          sqrt(cores.relative_error * cores.relative_error + report.predicted * report.predicted);
      CHECK_AT_MOST(report.measured, 1.5 * report.predicted);
      CHECK(report.measured > 0.2 * report.predicted && report.predicted > 0);
      CHECK_CLOSE(report.measured, integer_error(&plan, &coded, &coded, x, COUNT), 1e-6);
      CHECK_AT_MOST(integer_error(&plan, &coded, &train, x, COUNT), 1.5 * law);
      tt_integer_free(&plan);
      tt_free(&train);
      tt_free(&coded);
      free(x);
    }
}

// ---- the digits: a network of two layers without a float

typedef struct integer_digits {
  float fc1[64 * 64], bias1[64], fc2[10 * 64], bias2[10];
  float train[1257 * 64], test[540 * 64], labels[540];
} integer_digits;

static int integer_load(integer_digits *digits) {
  static const char *const names[] = {"fc1.weight",   "fc1.bias",    "fc2.weight", "fc2.bias",
                                      "train.images", "test.images", "test.labels"};
  float *to[7];
  static const ptrdiff_t counts[] = {64 * 64, 64, 10 * 64, 10, 1257 * 64, 540 * 64, 540};
  char path[1000]; // beside this file, wherever the program runs
  int folder = (int)strlen(__FILE__);
  while (folder > 0 && __FILE__[folder - 1] != '/' && __FILE__[folder - 1] != '\\') folder--;
  snprintf(path, sizeof path, "%.*s../examples/data/digits.safetensors", folder, __FILE__);
  FILE *source = fopen(path, "rb");
  static unsigned char bytes[200000];
  tt_file *file;
  int good = source != NULL;
  size_t size = good ? fread(bytes, 1, sizeof bytes, source) : 0;
  if (source) fclose(source);
  to[0] = digits->fc1;
  to[1] = digits->bias1;
  to[2] = digits->fc2;
  to[3] = digits->bias2;
  to[4] = digits->train;
  to[5] = digits->test;
  to[6] = digits->labels;
  if (!good || tt_file_open_memory(bytes, size, NULL, &file)) return 0;
  for (int i = 0; i < 7; i++) {
    int index;
    good &=
        !tt_file_find(file, names[i], &index) && !tt_file_read_f32(file, index, to[i], counts[i]);
  }
  tt_file_close(file);
  for (int i = 0; i < 1257 * 64; i++) digits->train[i] /= 16;
  for (int i = 0; i < 540 * 64; i++) digits->test[i] /= 16;
  return good;
}

// How many of the 540 test images two static plans get right; pixels are codes as they are.
static int integer_correct(const integer_digits *digits, const tt_integer *plan1,
                           const tt_matrix *w1, const tt_integer *plan2, const tt_matrix *w2) {
  static unsigned char work[4096];
  int correct = 0;
  CHECK(tt_integer_work_size(plan1, w1) <= sizeof work &&
        tt_integer_work_size(plan2, w2) <= sizeof work);
  for (int n = 0; n < 540; n++) {
    int8_t x[64], hidden[64], y[10];
    int best = 0;
    for (int i = 0; i < 64; i++) x[i] = (int8_t)lrintf(16 * digits->test[64 * n + i]);
    CHECK_STATUS(tt_integer_apply(plan1, w1, x, 1, hidden, work, sizeof work), TT_OK);
    for (int i = 0; i < 64; i++)
      if (hidden[i] < plan1->out_zero) hidden[i] = (int8_t)plan1->out_zero;
    CHECK_STATUS(tt_integer_apply(plan2, w2, hidden, 1, y, work, sizeof work), TT_OK);
    for (int i = 1; i < 10; i++)
      if (y[i] > y[best]) best = i;
    correct += best == (int)digits->labels[n];
  }
  return correct;
}

// The same for two dynamic plans.
static int integer_correct_f32(const integer_digits *digits, const tt_integer *plan1,
                               const tt_matrix *w1, const tt_integer *plan2, const tt_matrix *w2) {
  static unsigned char work[8192];
  int correct = 0;
  for (int n = 0; n < 540; n++) {
    float hidden[64], y[10];
    int best = 0;
    CHECK_STATUS(
        tt_integer_apply_f32(plan1, w1, digits->test + 64 * n, 1, hidden, work, sizeof work),
        TT_OK);
    for (int i = 0; i < 64; i++) hidden[i] = fmaxf(hidden[i], 0);
    CHECK_STATUS(tt_integer_apply_f32(plan2, w2, hidden, 1, y, work, sizeof work), TT_OK);
    for (int i = 1; i < 10; i++)
      if (y[i] > y[best]) best = i;
    correct += best == (int)digits->labels[n];
  }
  return correct;
}

// The rank-8 train of the first layer, 501 of 540 in float.
static void integer_test_digits(void) {
  static integer_digits digits;
  static float hidden[1257 * 64];
  static const int rows[4] = {1, 1, 4, 16}, cols[4] = {4, 16, 1, 1};
  tt_shape shape = test_shape(4, rows, cols, NULL);
  tt_options options = test_options();
  tt_matrix train, turned, dense = tt_dense_view(digits.fc2, 10, 64), coded1, coded2;
  tt_integer_options integers;
  tt_integer plan1, plan2;
  tt_integer_report report;
  tt_report cores;
  CHECK(integer_load(&digits));
  options.max_rank = 8;
  options.bias = digits.bias1;
  dense.bias = digits.bias2;
  CHECK_STATUS(tt_compress(digits.fc1, 64, 64, &shape, &options, &train, NULL), TT_OK);
  CHECK_STATUS(tt_turn(&train, TT_LEFT_TO_RIGHT, NULL, &turned), TT_OK);
  size_t size = tt_apply_work_size(&turned, 1257);
  void *work = test_new((ptrdiff_t)size, 1);
  CHECK_STATUS(tt_apply(&turned, digits.train, 1257, hidden, work, size), TT_OK);
  for (int i = 0; i < 1257 * 64; i++) hidden[i] = fmaxf(hidden[i], 0);
  CHECK_STATUS(tt_quantize(&dense, TT_I8, TT_GROUP_ROW, NULL, &coded2, NULL), TT_OK);
  for (int variant = 0; variant < 8; variant++) { // per row, double rounding, dynamic
    memset(&integers, 0, sizeof integers);
    integers.rounding = variant >> 1 & 1;
    integers.dynamic = variant >> 2;
    integers.in_scale = integers.dynamic ? 0 : 1.0f / 16;
    CHECK_STATUS(tt_quantize(&turned, TT_I8, variant & 1 ? TT_GROUP_ROW : 0, NULL, &coded1, &cores),
                 TT_OK);
    CHECK_STATUS(tt_integer_prepare(&coded1, digits.train, 1257, &integers, &plan1, &report),
                 TT_OK);
    double law =
        sqrt(cores.relative_error * cores.relative_error + report.predicted * report.predicted);
    double error = integer_error(&plan1, &coded1, &turned, digits.test, 540);
    CHECK_AT_MOST(error, 1.5 * law);
    integers.in_scale = plan1.out_scale;
    integers.in_zero = plan1.out_zero;
    CHECK_STATUS(tt_integer_prepare(&coded2, hidden, 1257, &integers, &plan2, NULL), TT_OK);
    int correct = integers.dynamic ? integer_correct_f32(&digits, &plan1, &coded1, &plan2, &coded2)
                                   : integer_correct(&digits, &plan1, &coded1, &plan2, &coded2);
    CHECK(correct >= 499);
    if (getenv("TT_SHOW"))
      printf("%d: %d correct, error %.4f, cores %.4f, states %.4f measured %.4f\n", variant,
             correct, error, cores.relative_error, report.predicted, report.measured);
    tt_integer_free(&plan1);
    tt_integer_free(&plan2);
    tt_free(&coded1);
  }
  tt_free(&coded2);
  tt_free(&train);
  tt_free(&turned);
  free(work);
}

// ---- limits and hostile callers

// The largest sums that fit are exact; one more term is refused.
static void integer_test_limits(void) {
  enum { FITS = 132104, MORE = 132105 }; // 128 * 127 * 132104 < 2^31 - 1
  int8_t *codes = (int8_t *)test_new(MORE, 1), *x = (int8_t *)test_new(MORE, 1), y = 0;
  tt_matrix w = tt_dense_view((const float *)(const void *)codes, 1, FITS);
  enum { ROOM = 140000 };
  unsigned char *work = (unsigned char *)test_new(ROOM, 1);
  tt_integer_options options;
  tt_integer plan;
  memset(&options, 0, sizeof options);
  options.in_scale = 1;
  options.out_scale = 20000000;
  memset(codes, 127, MORE);
  memset(x, -128, MORE);
  w.cores[0].dtype = TT_I8;
  w.cores[0].scale = 1;
  CHECK_STATUS(tt_integer_prepare(&w, NULL, 0, &options, &plan, NULL), TT_OK);
  CHECK_STATUS(tt_integer_apply(&plan, &w, x, 1, &y, work, ROOM), TT_OK);
  CHECK(y == -107); // -2147482624 / 2e7 = -107.4
  memset(x, 127, MORE);
  CHECK_STATUS(tt_integer_apply(&plan, &w, x, 1, &y, work, ROOM), TT_OK);
  CHECK(y == 107); // 2130705416 / 2e7 = 106.5
  plan.sums = NULL; // and without instructions of the machine
  CHECK_STATUS(tt_integer_apply(&plan, &w, x, 1, &y, work, ROOM), TT_OK);
  CHECK(y == 107);
  tt_integer_free(&plan);
  w.cols = w.shape.cols[0] = MORE;
  CHECK_STATUS(tt_integer_prepare(&w, NULL, 0, &options, &plan, NULL), TT_ERROR_UNSUPPORTED);
  w.cols = w.shape.cols[0] = FITS;
  options.in_zero = 1; // codes up to 129 away from it
  CHECK_STATUS(tt_integer_prepare(&w, NULL, 0, &options, &plan, NULL), TT_ERROR_UNSUPPORTED);
  options.in_zero = 0;
  options.out_scale = 1e-9f; // a multiplier of 10^9 fits, one of 10^10 does not
  CHECK_STATUS(tt_integer_prepare(&w, NULL, 0, &options, &plan, NULL), TT_OK);
  CHECK_STATUS(tt_integer_apply(&plan, &w, x, 1, &y, work, ROOM), TT_OK);
  CHECK(y == 127);
  tt_integer_free(&plan);
  options.rounding = TT_ROUND_DOUBLE; // which would shift sums out of 32 bits
  CHECK_STATUS(tt_integer_prepare(&w, NULL, 0, &options, &plan, NULL), TT_ERROR_UNSUPPORTED);
  options.rounding = TT_ROUND_SINGLE;
  options.out_scale = 1e-10f;
  CHECK_STATUS(tt_integer_prepare(&w, NULL, 0, &options, &plan, NULL), TT_ERROR_UNSUPPORTED);
  free(codes);
  free(x);
  free(work);
}

// A bias beyond all sums, on a row of zeros or of tiny numbers, still comes out.
static void integer_test_bias(void) {
  static const int8_t codes[9] = {0, 0, 0, 1, 2, 3, 127, -127, 64};
  static const float scales[3] = {0, 1e-20f, 1}, bias[3] = {50, -100, 1e-9f};
  static const int8_t x[3] = {10, 20, 30};
  int8_t y[3];
  static unsigned char work[256];
  for (int grouped = 0; grouped < 2; grouped++) {
    tt_matrix w = tt_dense_view(bias, 3, 3);
    tt_integer_options options;
    tt_integer plan;
    memset(&options, 0, sizeof options);
    options.in_scale = options.out_scale = 1;
    w.bias = bias;
    w.cores[0].data = codes;
    w.cores[0].dtype = TT_I8;
    w.cores[0].group = grouped ? TT_GROUP_ROW : 0;
    w.cores[0].scales = grouped ? scales : NULL;
    w.cores[0].scale = grouped ? 1 : 1e-20f;
    CHECK_STATUS(tt_integer_prepare(&w, NULL, 0, &options, &plan, NULL), TT_OK);
    CHECK_STATUS(tt_integer_apply(&plan, &w, x, 1, y, work, sizeof work), TT_OK);
    CHECK(y[0] == 50 && y[1] == -100 && y[2] == (grouped ? 127 : 0)); // 1270 - 2540 + 1920 = 650
    tt_integer_free(&plan);
  }
}

static void integer_test_arguments(void) {
  tt_shape shape = train_shape(5, 3);
  train_built a = train_build(&shape, 0, TT_I8, TT_GROUP_ROW, TT_RIGHT_TO_LEFT, 1), other = a;
  tt_integer_options options;
  tt_integer plan, broken, dynamic;
  tt_integer_report report;
  int8_t *x = (int8_t *)test_new(a.w.cols, 1), *y = (int8_t *)test_new(a.w.rows, 1);
  float *samples = test_normal_floats(4 * a.w.cols), *yf = test_floats(a.w.rows);
  memset(&options, 0, sizeof options);
  CHECK_STATUS(tt_integer_prepare(&a.w, samples, 4, NULL, &plan, &report), TT_OK);
  options.dynamic = 1;
  CHECK_STATUS(tt_integer_prepare(&a.w, NULL, 0, &options, &dynamic, &report), TT_OK);
  size_t size = tt_integer_work_size(&dynamic, &a.w);
  void *work = test_new((ptrdiff_t)size, 1);
  CHECK(size >= tt_integer_work_size(&plan, &a.w));
  memset(y, 0x33, (size_t)a.w.rows);
  CHECK_STATUS(tt_integer_apply(NULL, &a.w, x, 1, y, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_integer_apply(&plan, NULL, x, 1, y, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_integer_apply(&plan, &a.w, NULL, 1, y, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_integer_apply(&plan, &a.w, x, 1, NULL, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_integer_apply(&plan, &a.w, x, 1, y, NULL, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_integer_apply(&plan, &a.w, x, -1, y, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_integer_apply(&plan, &a.w, NULL, 0, NULL, NULL, 0), TT_OK);
  CHECK_STATUS(tt_integer_apply(&dynamic, &a.w, x, 1, y, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_integer_apply_f32(&plan, &a.w, samples, 1, yf, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_integer_apply_f32(&dynamic, &a.w, NULL, 0, NULL, NULL, 0), TT_OK);
  CHECK_STATUS(tt_integer_apply_f32(&dynamic, &a.w, samples, -1, yf, work, size), TT_ERROR_INVALID);
  samples[a.w.cols + 3] = (float)NAN; // in the second input: the first is not computed either
  memset(yf, 0x33, (size_t)a.w.rows * sizeof *yf);
  CHECK_STATUS(tt_integer_apply_f32(&dynamic, &a.w, samples, 2, yf, work, size),
               TT_ERROR_NONFINITE);
  CHECK_STATUS(tt_integer_prepare(&a.w, samples, 4, NULL, &broken, &report), TT_ERROR_NONFINITE);
  CHECK(!broken.block && !broken.order && report.measured == 0);
  for (ptrdiff_t i = 0; i < a.w.rows; i++)
    if (y[i] != 0x33 || memcmp(yf + i, y, 4)) CHECK(0);
  // plans of other trains
  broken = plan;
  broken.order--;
  CHECK(tt_integer_work_size(&broken, &a.w) == 0);
  broken = plan;
  broken.num_multipliers[1]++;
  CHECK(tt_integer_work_size(&broken, &a.w) == 0);
  broken = plan;
  broken.multipliers[0] = NULL;
  CHECK(tt_integer_work_size(&broken, &a.w) == 0);
  broken = plan;
  broken.num_bias--;
  CHECK(tt_integer_work_size(&broken, &a.w) == 0);
  broken = plan;
  broken.offsets = broken.bias;
  broken.num_offsets = 1;
  CHECK(tt_integer_work_size(&broken, &a.w) == 0);
  other.w.cores[0].group = 2;
  CHECK(tt_integer_work_size(&plan, &other.w) == 0);
  CHECK_STATUS(tt_integer_prepare(&other.w, samples, 1, NULL, &broken, NULL), TT_ERROR_UNSUPPORTED);
  other.w.cores[0].group = 0;
  other.w.cores[0].dtype = TT_F16;
  CHECK(tt_integer_work_size(&plan, &other.w) == 0);
  CHECK_STATUS(tt_integer_prepare(&other.w, samples, 1, NULL, &broken, NULL), TT_ERROR_UNSUPPORTED);
  other = a;
  other.w.cores[1].scale = -1;
  CHECK_STATUS(tt_integer_prepare(&other.w, samples, 1, NULL, &broken, NULL), TT_ERROR_UNSUPPORTED);
  // preparation
  CHECK_STATUS(tt_integer_prepare(NULL, samples, 1, NULL, &broken, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_integer_prepare(&a.w, samples, 1, NULL, NULL, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_integer_prepare(&a.w, NULL, 1, NULL, &broken, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_integer_prepare(&a.w, samples, 0, NULL, &broken, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_integer_prepare(&a.w, samples, -1, NULL, &broken, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_integer_prepare(&a.w, samples, PTRDIFF_MAX, NULL, &broken, NULL),
               TT_ERROR_INVALID);
  options.rounding = 2;
  CHECK_STATUS(tt_integer_prepare(&a.w, samples, 1, &options, &broken, NULL), TT_ERROR_INVALID);
  options.rounding = 0;
  options.clip = 9;
  CHECK_STATUS(tt_integer_prepare(&a.w, samples, 1, &options, &broken, NULL), TT_ERROR_INVALID);
  options.clip = 0;
  options.in_zero = 128;
  CHECK_STATUS(tt_integer_prepare(&a.w, samples, 1, &options, &broken, NULL), TT_ERROR_INVALID);
  tt_integer_free(&plan);
  tt_integer_free(&dynamic);
  tt_integer_free(NULL);
  CHECK(!plan.block && !plan.order);
  free(a.memory);
  free(x);
  free(y);
  free(samples);
  free(yf);
  free(work);
}

static void integer_test_memory(void) {
  tt_shape shape = train_shape(5, 3);
  train_built a = train_build(&shape, 1, TT_I8, 0, TT_LEFT_TO_RIGHT, 1);
  float *samples = test_normal_floats(2 * a.w.cols);
  test_heap heap;
  long calls = 1;
  for (long n = 0; n <= calls; n++) { // 0 never fails
    tt_integer_options options;
    tt_integer_report report;
    tt_integer plan;
    memset(&options, 0, sizeof options);
    options.allocator = test_allocator(&heap);
    heap.fail_at = n;
    CHECK_STATUS(tt_integer_prepare(&a.w, samples, 2, &options, &plan, &report),
                 n ? TT_ERROR_MEMORY : TT_OK);
    if (n == 0) calls = heap.calls;
    CHECK(heap.live_blocks == (n ? 0 : 1)); // the plan is one block
    tt_integer_free(&plan);
    CHECK(heap.live_blocks == 0);
  }
  CHECK(calls > 5);
  free(samples);
  free(a.memory);
}

static void test_integer(void) {
  integer_test_requantize();
  integer_test_bits();
  integer_test_instructions();
  integer_test_law();
  integer_test_digits();
  integer_test_limits();
  integer_test_bias();
  integer_test_arguments();
  integer_test_memory();
}
