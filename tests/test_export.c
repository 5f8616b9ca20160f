// A layer as a C header: the text is read back here, number by number, and compared with the train;
// whether compilers take it, and compute from it what the train computes, is for checks/export.sh.

enum { EXPORT_ROOM = 400000 };
static char export_text[EXPORT_ROOM];

// Where the word stands in the header; NULL and a failed check if it does not.
static const char *export_find(const char *word) {
  const char *at = strstr(export_text, word);
  test_check(at != NULL, word, __FILE__, __LINE__);
  return at;
}

static ptrdiff_t export_macro(const char *upper, const char *what) { // #define UPPER_WHAT number
  char line[100];
  sprintf(line, "#define %.50s_%.30s ", upper, what);
  const char *at = export_find(line);
  return at ? (ptrdiff_t)strtol(at + strlen(line), NULL, 0) : -1;
}

// Numbers of the array NAME in the header; -1 if they are not COUNT, as its declaration says.
static ptrdiff_t export_array(const char *name, ptrdiff_t count, double *numbers) {
  char line[100];
  sprintf(line, " %.60s[%ld]", name, (long)count);
  const char *at = export_find(line);
  if (!at) return -1;
  at = strchr(at, '{') + 1;
  ptrdiff_t found = 0;
  for (char *end; found <= count; at = end, found++) {
    while (*at == ' ' || *at == '\n' || *at == ',' || *at == 'f') at++;
    if (*at == '}') break;
    if (!strncmp(at, "(-2147483647 - 1)", 17)) {
      end = (char *)at + 17;
      if (found < count) numbers[found] = -2147483648.0;
      continue;
    }
    double value = strtod(at, &end);
    if (end == at) return -1;
    if (*end == 'f') value = (double)strtof(at, NULL); // its 9 digits are meant for a float
    if (found < count) numbers[found] = value;
  }
  return found == count ? found : -1;
}

// ---- literals

static void export_check_literal(double value, int is_float) {
  char text[40];
  int length = tt__literal(value, is_float, text);
  CHECK(length == (int)strlen(text) && length < 40);
  if (is_float) {
    float back = strtof(text, NULL), wanted = (float)value;
    CHECK(text[length - 1] == 'f' && !memcmp(&back, &wanted, sizeof back));
  } else {
    double back = strtod(text, NULL);
    CHECK(!memcmp(&back, &value, sizeof back));
  }
}

static void export_test_literals(void) {
  static const double doubles[] = {
      0.0,    -0.0, 1.0, -1.0, 0.1, 1e22, 1e23, DBL_MAX, DBL_MIN, 4.94066e-324, 9007199254740993.0,
      2.0 / 3};
  static const float floats[] = {0.0f, -0.0f, 1.0f, 0.1f, FLT_MAX, -FLT_MIN, 1e-45f, 16777217.0f};
  for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++) export_check_literal(doubles[i], 0);
  for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
    export_check_literal((double)floats[i], 1);
  for (int i = 0; i < 300; i++) { // all exponents
    uint64_t bits = test_u64();
    double value;
    memcpy(&value, &bits, sizeof value);
    if (tt__is_finite(value)) export_check_literal(value, 0);
    uint32_t half = (uint32_t)bits;
    float single;
    memcpy(&single, &half, sizeof single);
    if (tt__is_finite((double)single)) export_check_literal((double)single, 1);
  }
}

// ---- arrays

static double export_stored(int kind, const void *data, ptrdiff_t i) {
  const unsigned char *bytes = (const unsigned char *)data;
  float single;
  double wide;
  uint16_t half;
  if (kind == TT__DOUBLE) return memcpy(&wide, bytes + 8 * i, 8), wide;
  if (kind == TT__FLOAT) return memcpy(&single, bytes + 4 * i, 4), (double)single;
  if (kind == TT__U16) return memcpy(&half, bytes + 2 * i, 2), half;
  if (kind == TT__I32) return ((const int32_t *)data)[i];
  return kind == TT__BYTE ? (double)((const int8_t *)data)[i] : bytes[i];
}

// The array NAME_WHATindex (no index if it is negative) is there, number by number. Returns its
// bytes.
static ptrdiff_t export_check_array(const char *name, const char *what, int index, int kind,
                                    const void *data, ptrdiff_t count) {
  static const int sizes[] = {4, 8, 2, 1, 1, 4}; // by tt__kind
  static double numbers[20000];
  char label[100];
  int end = sprintf(label, "%.50s_%.30s", name, what);
  if (index >= 0) sprintf(label + end, "%d", index);
  ptrdiff_t differ = 0;
  CHECK(export_array(label, count, numbers) == count);
  for (ptrdiff_t i = 0; i < count; i++) differ += numbers[i] != export_stored(kind, data, i);
  CHECK(differ == 0);
  return sizes[kind] * count;
}

static int export_kind(tt_dtype dtype) { // how cores and scales of this format are written
  return dtype == TT_F64                       ? TT__DOUBLE
         : dtype == TT_F32                     ? TT__FLOAT
         : dtype == TT_F16 || dtype == TT_BF16 ? TT__U16
         : dtype == TT_I8                      ? TT__BYTE
                                               : TT__UBYTE;
}

// The header that is in export_text has all of this train.
static void export_check_arrays(const tt_matrix *w, const char *name, const char *upper) {
  ptrdiff_t bytes = 0;
  for (int k = 0; k < w->shape.order; k++) {
    const tt_core *core = &w->cores[k];
    int bits = tt__dtype_bits(core->dtype);
    ptrdiff_t rows, length;
    tt__view_size(&w->shape, w->sweep, k, &rows, &length);
    ptrdiff_t stored = rows * tt__row_size(core->dtype, length);
    bytes += export_check_array(name, "core", k, export_kind(core->dtype), core->data,
                                bits < 8 ? stored : stored / (bits / 8));
    if (!core->group) continue;
    bytes += export_check_array(name, "scales", k, export_kind(core->group < 0 ? TT_F32 : TT_F16),
                                core->scales, rows * tt__row_scales(core->group, length));
  }
  if (w->bias) bytes += export_check_array(name, "bias", -1, TT__FLOAT, w->bias, w->rows);
  CHECK(export_macro(upper, "FLASH_BYTES") == bytes);
  CHECK(export_macro(upper, "ROWS") == w->rows);
  CHECK(export_macro(upper, "COLS") == w->cols);
  CHECK(export_macro(upper, "MACS") == tt_apply_macs(w, 1));
}

// Exports with exactly the bytes that were asked for; none behind them is touched.
static void export_make(const tt_matrix *w, const tt_integer *plan, const char *name,
                        const char *note) {
  size_t size = 0, less, room;
  CHECK_STATUS(tt_export_c(w, plan, name, note, NULL, &size), TT_OK);
  CHECK(size > 1 && size < EXPORT_ROOM);
  memset(export_text, '#', EXPORT_ROOM);
  less = size - 1;
  CHECK_STATUS(tt_export_c(w, plan, name, note, export_text, &less), TT_ERROR_INVALID);
  CHECK(less == size && export_text[size - 1] == '#');
  room = size;
  CHECK_STATUS(tt_export_c(w, plan, name, note, export_text, &room), TT_OK);
  CHECK(room == size && strlen(export_text) == size - 1 && export_text[size] == '#');
  ptrdiff_t widest = 0;
  for (const char *line = export_text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
    if (end - line > widest) widest = end - line;
  CHECK(widest <= 100);
}

static void export_test_formats(void) {
  static const int rows[] = {3, 4, 2}, cols[] = {5, 2, 3}, ranks[] = {1, 4, 3, 1};
  static const int groups[] = {0, TT_GROUP_ROW, 32};
  tt_shape shape = test_shape(3, rows, cols, ranks);
  for (int dtype = TT_F32; dtype <= TT_I2; dtype++)
    for (int sweep = 0; sweep < 2; sweep++) {
      tt_options options = test_options();
      tt_matrix train = test_train(&shape), turned, coded;
      float *bias = test_normal_floats(train.rows);
      int integer = dtype >= TT_I8;
      CHECK_STATUS(tt_turn(&train, sweep ? TT_LEFT_TO_RIGHT : TT_RIGHT_TO_LEFT, NULL, &turned),
                   TT_OK);
      for (int g = 0; g < (integer ? 3 : 1); g++) {
        if (sweep) options.bias = bias;
        CHECK_STATUS(tt_quantize(&turned, (tt_dtype)dtype, groups[g], &options, &coded, NULL),
                     TT_OK);
        export_make(&coded, NULL, "layer", "a note");
        export_check_arrays(&coded, "layer", "LAYER");
        const char *refuses = strstr(export_text, "knows no F64");
        CHECK((refuses != NULL) == (dtype == TT_F64));
        CHECK((strstr(export_text, "TT_LEFT_TO_RIGHT") != NULL) == sweep);
        CHECK((strstr(export_text, "  layer_bias, NULL,") != NULL) == (coded.bias != NULL));
        tt_free(&coded);
      }
      tt_free(&turned);
      tt_free(&train);
      free(bias);
    }
}

// ---- words

static void export_check_name(const char *layer, const char *name, const char *upper) {
  static const float numbers[2] = {1, 2};
  char line[120];
  tt_matrix w = tt_dense_view(numbers, 1, 2);
  export_make(&w, NULL, layer, NULL);
  sprintf(line, "static const tt_matrix %.60s = {", name);
  export_find(line);
  export_check_arrays(&w, name, upper);
}

static void export_test_words(void) {
  static const float numbers[6] = {1.5f, -2, 0, 1e-30f, 5, 6};
  export_check_name("fc1", "fc1", "FC1");
  export_check_name("h.0.attn/c-attn", "h_0_attn_c_attn", "H_0_ATTN_C_ATTN");
  export_check_name("Zz9", "Zz9", "ZZ9");
  export_check_name("0.weight", "layer_0_weight", "LAYER_0_WEIGHT");
  export_check_name("_x", "layer__x", "LAYER__X");
  export_check_name("", "layer_", "LAYER_");
  export_check_name("double", "layer_double", "LAYER_DOUBLE");
  export_check_name("doubles", "doubles", "DOUBLES");
  export_check_name("ouble", "ouble", "OUBLE");
  export_check_name("tt_apply", "layer_tt_apply", "LAYER_TT_APPLY");
  export_check_name("TT_OK", "layer_TT_OK", "LAYER_TT_OK");
  export_check_name("\xc3\xa9t\xc3\xa9", "layer___t__", "LAYER___T__");
  // what strangers write into names and notes stays inside the comment
  tt_matrix w = tt_dense_view(numbers, 2, 3);
  export_make(&w, NULL, "a*/b/*c", "*/ int evil; /*\nline\r\033two\n//*/*/");
  char *first = strstr(export_text, "*/");
  CHECK(first && strstr(export_text, "evil") < first && strstr(export_text, "line??two") < first);
  CHECK(first && !strncmp(first + 3, "#ifndef A__B__C_H", 17) && !strchr(export_text, '\r'));
  CHECK(!strstr(export_text + 2, "/*") || strstr(export_text + 2, "/*") > first);
}

// ---- plans

static void export_test_plans(void) {
  static const int rows[] = {3, 4}, cols[] = {5, 2}, ranks[] = {1, 6, 1};
  tt_shape shape = test_shape(2, rows, cols, ranks);
  for (int kind = 0; kind < 4; kind++) { // dynamic or not, one multiplier or one for each row
    tt_options options = test_options();
    tt_integer_options integers;
    tt_matrix train = test_train(&shape), coded;
    tt_integer plan;
    float *x = test_normal_floats(4 * train.cols), *bias = test_normal_floats(train.rows);
    memset(&integers, 0, sizeof integers);
    integers.dynamic = kind & 1;
    integers.affine_in = kind == 2;
    integers.rounding = kind & 2 ? TT_ROUND_DOUBLE : TT_ROUND_SINGLE;
    options.bias = kind == 3 ? NULL : bias;
    CHECK_STATUS(tt_quantize(&train, TT_I8, kind & 2 ? TT_GROUP_ROW : 0, &options, &coded, NULL),
                 TT_OK);
    CHECK_STATUS(tt_integer_prepare(&coded, x, 4, &integers, &plan, NULL), TT_OK);
    export_make(&coded, &plan, "fc", NULL);
    export_check_arrays(&coded, "fc", "FC");
    ptrdiff_t bytes = 0;
    for (int i = 0; i < plan.order; i++)
      bytes += export_check_array("fc", "multipliers", i, TT__I32, plan.multipliers[i],
                                  plan.num_multipliers[i]);
    CHECK((plan.offsets != NULL) == (kind == 2));
    if (plan.offsets)
      bytes += export_check_array("fc", "offsets", -1, TT__I32, plan.offsets, plan.num_offsets);
    if (plan.bias)
      bytes += export_check_array("fc", "bias_codes", -1, TT__I32, plan.bias, plan.num_bias);
    CHECK(export_macro("FC", "INTEGER_FLASH_BYTES") == bytes);
    CHECK((strstr(export_text, "tt_integer_apply_f32(&fc_plan, &fc") != NULL) == (kind & 1));
    // a plan of another train
    size_t size = 0;
    CHECK_STATUS(tt_export_c(&train, &plan, "fc", NULL, NULL, &size), TT_ERROR_INVALID);
    tt_integer_free(&plan);
    tt_free(&coded);
    tt_free(&train);
    free(x);
    free(bias);
  }
}

// ---- hostile callers

static void export_test_arguments(void) {
  float numbers[6] = {1, 2, 3, 4, 5, 6};
  tt_matrix w = tt_dense_view(numbers, 2, 3), broken = w;
  size_t size = 0;
  CHECK_STATUS(tt_export_c(NULL, NULL, "a", NULL, NULL, &size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_export_c(&w, NULL, NULL, NULL, NULL, &size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_export_c(&w, NULL, "a", NULL, NULL, NULL), TT_ERROR_INVALID);
  broken.rows = 0;
  CHECK_STATUS(tt_export_c(&broken, NULL, "a", NULL, NULL, &size), TT_ERROR_INVALID);
  size = 0;
  CHECK_STATUS(tt_export_c(&w, NULL, "a", NULL, export_text, &size), TT_ERROR_INVALID);
  CHECK(size > 0);
  size = SIZE_MAX; // more room than any object has
  CHECK_STATUS(tt_export_c(&w, NULL, "a", NULL, export_text, &size), TT_OK);
  CHECK(size == strlen(export_text) + 1);
  broken = w;
  broken.cores[0].scale = INFINITY;
  CHECK_STATUS(tt_export_c(&broken, NULL, "a", NULL, NULL, &size), TT_ERROR_NONFINITE);
  numbers[4] = NAN;
  CHECK_STATUS(tt_export_c(&w, NULL, "a", NULL, NULL, &size), TT_ERROR_NONFINITE);
  numbers[4] = 5;
  for (int j = 0; j < 3; j++) numbers[j] = 3e38f * (j == 2 ? -1.0f : 1.0f); // y overflows
  CHECK_STATUS(tt_export_c(&w, NULL, "a", NULL, NULL, &size), TT_ERROR_NONFINITE);
}

static void export_test_memory(void) {
  static const int rows[] = {3, 4}, cols[] = {5, 2}, ranks[] = {1, 6, 1};
  tt_shape shape = test_shape(2, rows, cols, ranks);
  tt_options options = test_options();
  tt_integer_options integers;
  test_heap heap;
  tt_matrix train = test_train(&shape), coded;
  tt_integer plan;
  size_t size = 0;
  memset(&integers, 0, sizeof integers);
  integers.dynamic = 1;
  options.allocator = test_allocator(&heap);
  CHECK_STATUS(tt_quantize(&train, TT_I8, 0, &options, &coded, NULL), TT_OK);
  CHECK_STATUS(tt_integer_prepare(&coded, NULL, 0, &integers, &plan, NULL), TT_OK);
  long blocks = heap.live_blocks, before = heap.calls;
  CHECK_STATUS(tt_export_c(&coded, &plan, "fc", NULL, NULL, &size), TT_OK);
  long calls = heap.calls - before;
  CHECK(calls > 0 && heap.live_blocks == blocks);
  for (long i = 1; i <= calls; i++) {
    heap.fail_at = heap.calls + i;
    CHECK_STATUS(tt_export_c(&coded, &plan, "fc", NULL, NULL, &size), TT_ERROR_MEMORY);
    CHECK(heap.live_blocks == blocks);
  }
  heap.fail_at = 0;
  tt_integer_free(&plan);
  tt_free(&coded);
  tt_free(&train);
  CHECK(heap.live_blocks == 0);
}

static void test_export(void) {
  export_test_literals();
  export_test_formats();
  export_test_words();
  export_test_plans();
  export_test_arguments();
  export_test_memory();
}
