// Trains: building, expanding and their algebra, against a slow oracle that multiplies core slices
// element by element.

// ---- trains in caller's memory, in any format and sweep; their values by an independent decoder

typedef struct train_built {
  tt_matrix w;
  void *memory;
} train_built;

static const tt_dtype train_dtypes[10] = {TT_F32,  TT_F64, TT_F16, TT_BF16, TT_E4M3,
                                          TT_E5M2, TT_I8,  TT_I4,  TT_I3,   TT_I2};

static int train_bits(tt_dtype dtype) {
  static const int bits[10] = {32, 64, 16, 16, 8, 8, 8, 4, 3, 2};
  return bits[dtype];
}
static int train_is_integer(tt_dtype dtype) { return dtype >= TT_I8; }

// The GEMM view of core k: rows and length of a row.
static ptrdiff_t train_view_rows(const tt_matrix *w, int k) {
  return (ptrdiff_t)w->shape.rows[k] * w->shape.ranks[w->sweep == TT_LEFT_TO_RIGHT ? k + 1 : k];
}
static ptrdiff_t train_view_cols(const tt_matrix *w, int k) {
  return (ptrdiff_t)w->shape.cols[k] * w->shape.ranks[w->sweep == TT_LEFT_TO_RIGHT ? k : k + 1];
}
static ptrdiff_t train_row_bytes(tt_dtype dtype, ptrdiff_t length) {
  return (length * train_bits(dtype) + 7) / 8;
}

// Where element (a, i, j, b) of core k lies in its view.
static void train_place(const tt_matrix *w, int k, int a, int i, int j, int b, ptrdiff_t *row,
                        ptrdiff_t *col) {
  ptrdiff_t m = w->shape.rows[k], n = w->shape.cols[k], right = w->shape.ranks[k + 1];
  if (w->sweep == TT_LEFT_TO_RIGHT) {
    *row = i * right + b;
    *col = a * n + j;
  } else {
    *row = a * m + i;
    *col = j * right + b;
  }
}

static double train_minifloat(int exponent_bits, int mantissa_bits, int has_inf, unsigned code) {
  int top = (1 << exponent_bits) - 1, exponent = (int)(code >> mantissa_bits) & top;
  int mantissa = (int)code & ((1 << mantissa_bits) - 1), bias = top / 2;
  double sign = code >> (exponent_bits + mantissa_bits) & 1 ? -1 : 1;
  if (has_inf && exponent == top) return mantissa ? (double)NAN : sign * (double)INFINITY;
  if (!has_inf && exponent == top && mantissa == (1 << mantissa_bits) - 1) return (double)NAN;
  if (exponent == 0) return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

// The code of an element: a float value as it is, an integer code, without any scale.
static double train_code(const tt_core *core, ptrdiff_t length, ptrdiff_t row, ptrdiff_t col) {
  const unsigned char *data =
      (const unsigned char *)core->data + row * train_row_bytes(core->dtype, length);
  int bits = train_bits(core->dtype), value = 0;
  uint16_t code;
  float single;
  double wide;
  if (core->dtype == TT_F32) {
    memcpy(&single, data + 4 * col, 4);
    return (double)single;
  }
  if (core->dtype == TT_F64) {
    memcpy(&wide, data + 8 * col, 8);
    return wide;
  }
  if (bits == 16) {
    memcpy(&code, data + 2 * col, 2);
    return core->dtype == TT_F16 ? train_minifloat(5, 10, 1, code) : train_minifloat(8, 7, 1, code);
  }
  if (core->dtype == TT_E4M3) return train_minifloat(4, 3, 0, data[col]);
  if (core->dtype == TT_E5M2) return train_minifloat(5, 2, 1, data[col]);
  for (int b = 0; b < bits; b++) {
    ptrdiff_t position = col * bits + b;
    value |= (data[position / 8] >> (position % 8) & 1) << b;
  }
  return value >= 1 << (bits - 1) ? value - (1 << bits) : value;
}

static double train_scale_of(const tt_core *core, ptrdiff_t length, ptrdiff_t row, ptrdiff_t col) {
  double scale = core->scale == 0 ? 1 : (double)core->scale;
  if (core->group == TT_GROUP_ROW) {
    float of_row;
    memcpy(&of_row, (const unsigned char *)core->scales + 4 * row, 4);
    return scale * (double)of_row;
  }
  if (core->group > 0) {
    uint16_t code;
    ptrdiff_t groups = (length + core->group - 1) / core->group;
    memcpy(&code, (const unsigned char *)core->scales + 2 * (row * groups + col / core->group), 2);
    return scale * train_minifloat(5, 10, 1, code);
  }
  return scale;
}

static double train_value(const tt_matrix *w, int k, int a, int i, int j, int b) {
  ptrdiff_t row, col, length = train_view_cols(w, k);
  train_place(w, k, a, i, j, b, &row, &col);
  return train_code(&w->cores[k], length, row, col) *
         train_scale_of(&w->cores[k], length, row, col);
}

// All values of a core in the natural layout (ranks[k], rows[k], cols[k], ranks[k+1]).
static double *train_core_values(const tt_matrix *w, int k) {
  const tt_shape *shape = &w->shape;
  double *values = test_doubles(shape_core(shape, k)), *next = values;
  for (int a = 0; a < shape->ranks[k]; a++)
    for (int i = 0; i < shape->rows[k]; i++)
      for (int j = 0; j < shape->cols[k]; j++)
        for (int b = 0; b < shape->ranks[k + 1]; b++) *next++ = train_value(w, k, a, i, j, b);
  return values;
}

// One element of the padded matrix: the product of one slice of each core.
static double train_element(const tt_shape *shape, double *const *cores, ptrdiff_t row,
                            ptrdiff_t col, double *work) {
  double *state = work, *next = work + 512;
  ptrdiff_t rows_left = row, cols_left = col;
  int digits_row[TT_MAX_ORDER], digits_col[TT_MAX_ORDER];
  for (int k = shape->order - 1; k >= 0; k--) {
    digits_row[k] = (int)(rows_left % shape->rows[k]);
    rows_left /= shape->rows[k];
    digits_col[k] = (int)(cols_left % shape->cols[k]);
    cols_left /= shape->cols[k];
  }
  state[0] = 1;
  for (int k = 0; k < shape->order; k++) {
    int right = shape->ranks[k + 1];
    for (int b = 0; b < right; b++) next[b] = 0;
    for (int a = 0; a < shape->ranks[k]; a++) {
      ptrdiff_t line =
          ((ptrdiff_t)a * shape->rows[k] + digits_row[k]) * shape->cols[k] + digits_col[k];
      for (int b = 0; b < right; b++) next[b] += state[a] * cores[k][line * right + b];
    }
    double *swap = state;
    state = next;
    next = swap;
  }
  return state[0];
}

// The dense matrix of a train, (rows, cols), by the oracle. Ranks up to 512.
static double *train_dense(const tt_matrix *w) {
  double *dense = test_doubles(w->rows * w->cols), *work = test_doubles(1024), *cores[TT_MAX_ORDER];
  for (int k = 0; k < w->shape.order; k++) cores[k] = train_core_values(w, k);
  for (ptrdiff_t i = 0; i < w->rows; i++)
    for (ptrdiff_t j = 0; j < w->cols; j++)
      dense[i * w->cols + j] = train_element(&w->shape, cores, i, j, work);
  for (int k = 0; k < w->shape.order; k++) free(cores[k]);
  free(work);
  return dense;
}

static tt_matrix
train_padded_view(const tt_matrix *w) { // the same train with its true size set to the products
  tt_matrix view = *w;
  view.block = NULL;
  view.rows = shape_rows(&w->shape);
  view.cols = shape_cols(&w->shape);
  return view;
}

static float train_random_value(void) { return (float)test_normal(); }

// Random data for one core; integer codes take all values, also the asymmetric lowest one.
static void train_fill_core(tt_core *core, ptrdiff_t view_rows, ptrdiff_t length,
                            unsigned char *data, unsigned char *scales) {
  ptrdiff_t bytes = view_rows * train_row_bytes(core->dtype, length), groups = 0;
  if (core->group == TT_GROUP_ROW) groups = view_rows;
  if (core->group > 0) groups = view_rows * ((length + core->group - 1) / core->group);
  for (ptrdiff_t t = 0; t < bytes; t++) data[t] = (unsigned char)test_below(256);
  for (ptrdiff_t t = 0; t < view_rows * length && !train_is_integer(core->dtype); t++) {
    float value = train_random_value();
    double wide = test_normal();
    uint16_t code = (uint16_t)tt_from_f32(core->dtype, value, 1);
    if (core->dtype == TT_F32)
      memcpy(data + 4 * t, &value, 4);
    else if (core->dtype == TT_F64)
      memcpy(data + 8 * t, &wide, 8);
    else if (train_bits(core->dtype) == 16)
      memcpy(data + 2 * t, &code, 2);
    else
      data[t] = (unsigned char)code;
  }
  for (ptrdiff_t t = 0; t < groups; t++) {
    float value = (float)(0.25 + test_uniform());
    uint16_t code = (uint16_t)tt_from_f32(TT_F16, value, 1);
    if (core->group == TT_GROUP_ROW)
      memcpy(scales + 4 * t, &value, 4);
    else
      memcpy(scales + 2 * t, &code, 2);
  }
  core->data = data;
  core->scales = core->group ? scales : NULL;
}

// A random train in the test's own memory. Its ranks must be set; group is used for integer formats
// only.
static train_built train_build(const tt_shape *shape, int padded, tt_dtype dtype, int group,
                               int sweep, int biased) {
  train_built built;
  tt_matrix *w = &built.w;
  ptrdiff_t each = 64;
  memset(w, 0, sizeof *w);
  w->shape = *shape;
  w->sweep = sweep;
  shape_true_size(shape, padded, &w->rows, &w->cols);
  for (int k = 0; k < shape->order; k++) each += 16 * shape_core(shape, k) + 64;
  unsigned char *next = (unsigned char *)test_new(each + 4 * w->rows, 1);
  built.memory = next;
  if (biased) {
    float *bias = (float *)built.memory;
    for (ptrdiff_t i = 0; i < w->rows; i++) bias[i] = (float)test_normal();
    w->bias = bias;
  }
  next += 4 * w->rows;
  for (int k = 0; k < shape->order; k++) {
    tt_core *core = &w->cores[k];
    core->dtype = dtype;
    core->group = train_is_integer(dtype) ? group : 0;
    core->scale = k % 3 == 0 ? 0 : k % 3 == 1 ? 1.0f : 0.375f;
    next = (unsigned char *)tt__align(next);
    train_fill_core(core, train_view_rows(w, k), train_view_cols(w, k), next,
                    next + 8 * shape_core(shape, k));
    next += 12 * shape_core(shape, k);
  }
  return built;
}

static tt_shape train_shape(int index, int max_rank) { // a row of the table with ranks
  tt_shape shape = shape_of_table(index);
  CHECK_STATUS(tt_shape_clip(&shape, max_rank), TT_OK);
  return shape;
}

// Does `w` hold the matrix `dense` within `tolerance`, by the oracle and by both expansions?
static void train_check_dense(const tt_matrix *w, const double *dense, double tolerance) {
  ptrdiff_t count = w->rows * w->cols;
  double *expanded = test_doubles(count), *oracle = train_dense(w);
  CHECK_AT_MOST(test_distance(count, oracle, dense), tolerance);
  CHECK_STATUS(tt_expand_f64(w, expanded), TT_OK);
  CHECK_AT_MOST(test_distance(count, expanded, dense), tolerance);
  free(expanded);
  free(oracle);
}

// A new train has right-to-left sweep, its true size, its format, and no scales in float formats.
static void train_check_form(const tt_matrix *w, ptrdiff_t rows, ptrdiff_t cols, tt_dtype dtype) {
  CHECK(w->sweep == TT_RIGHT_TO_LEFT && w->rows == rows && w->cols == cols && w->block);
  CHECK_STATUS(tt_shape_check(&w->shape, rows, cols), TT_OK);
  for (int k = 0; k < w->shape.order; k++) {
    const tt_core *core = &w->cores[k];
    CHECK(core->dtype == dtype && core->data && core->packed == NULL);
    if (dtype == TT_F32 || dtype == TT_F64)
      CHECK(core->group == 0 && (core->scale == 0 || core->scale == 1));
    CHECK(!core->scales == !core->group);
    CHECK(w->shape.ranks[k + 1] >= 1);
  }
}

static int train_is_zeroed(const tt_matrix *w) {
  const unsigned char *bytes = (const unsigned char *)w;
  for (size_t i = 0; i < sizeof *w; i++)
    if (bytes[i]) return 0;
  return 1;
}

// ---- create, free, data

static void train_test_create(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    for (int d = 0; d < 10; d++) {
      test_heap heap;
      tt_options options = test_options();
      tt_shape shape = shape_of_table(index);
      ptrdiff_t rows, cols;
      tt_matrix w;
      shape_true_size(&shape, d % 2, &rows, &cols);
      options.allocator = test_allocator(&heap);
      options.dtype = train_dtypes[d];
      CHECK_STATUS(tt_create(&shape, rows, cols, &options, &w), TT_OK);
      train_check_form(&w, rows, cols, options.dtype);
      CHECK(heap.live_blocks == 1);
      CHECK_STATUS(tt_shape_clip(&shape, 0), TT_OK);
      CHECK(!memcmp(&shape, &w.shape, sizeof shape));
      double *zero = test_doubles(rows * cols);
      train_check_dense(&w, zero, 0);
      CHECK(tt_bias_data(&w) == w.bias && w.bias);
      for (ptrdiff_t i = 0; i < rows; i++) CHECK(w.bias[i] == 0);
      for (int k = 0; k < shape.order; k++) CHECK(tt_core_data(&w, k) == w.cores[k].data);
      CHECK(!tt_core_data(&w, -1) && !tt_core_data(&w, shape.order));
      tt_matrix view = w;
      view.block = NULL;
      CHECK(!tt_core_data(&view, 0) && !tt_bias_data(&view)); // borrowed memory
      tt_free(&view);
      CHECK(heap.live_blocks == 1);
      tt_free(&w);
      CHECK(heap.live_blocks == 0 && train_is_zeroed(&w));
      tt_free(&w);
      free(zero);
    }
  }
  tt_free(NULL);
  CHECK(!tt_core_data(NULL, 0) && !tt_bias_data(NULL));
}

static void train_test_create_errors(void) {
  tt_shape shape = shape_of_table(4);
  tt_options options = test_options();
  test_heap heap;
  tt_matrix w;
  CHECK_STATUS(tt_create(&shape, 30, 28, NULL, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_create(NULL, 30, 28, NULL, &w), TT_ERROR_INVALID);
  CHECK(train_is_zeroed(&w));
  CHECK_STATUS(tt_create(&shape, 31, 28, NULL, &w), TT_ERROR_SHAPE);
  CHECK_STATUS(tt_create(&shape, 0, 28, NULL, &w), TT_ERROR_INVALID);
  shape.ranks[1] = -1;
  CHECK_STATUS(tt_create(&shape, 30, 28, NULL, &w), TT_ERROR_INVALID);
  shape.ranks[1] = 3;
  options.dtype = (tt_dtype)99;
  CHECK_STATUS(tt_create(&shape, 30, 28, &options, &w), TT_ERROR_INVALID);
  options = test_options();
  options.allocator.alloc_fn = test_alloc; // half an allocator
  CHECK_STATUS(tt_create(&shape, 30, 28, &options, &w), TT_ERROR_INVALID);
  options.allocator = test_allocator(&heap);
  heap.fail_at = 1;
  CHECK_STATUS(tt_create(&shape, 30, 28, &options, &w), TT_ERROR_MEMORY);
  CHECK(train_is_zeroed(&w) && heap.live_blocks == 0);
  shape.rows[0] = shape.rows[1] = 1 << 30;
  shape.cols[0] = shape.cols[1] = 1 << 30;
  shape.ranks[1] = INT_MAX;
  tt_status status = tt_create(&shape, 30, 28, NULL, &w); // 2^91 numbers
  CHECK(status == TT_ERROR_MEMORY && train_is_zeroed(&w));
}

// ---- expand

static void train_check_expand(const tt_matrix *w, double tolerance) {
  ptrdiff_t count = w->rows * w->cols;
  float *single = test_floats(count + 1);
  double *oracle = train_dense(w), *wide = test_doubles(count + 1);
  single[count] = -7;
  wide[count] = -7;
  CHECK_STATUS(tt_expand(w, single), TT_OK);
  CHECK_STATUS(tt_expand_f64(w, wide), TT_OK);
  CHECK(single[count] == -7 && wide[count] == -7); // nothing behind the true size is written
  CHECK_AT_MOST(test_distance(count, wide, oracle), tolerance);
  for (ptrdiff_t i = 0; i < count; i++) wide[i] = (double)single[i];
  CHECK_AT_MOST(test_distance(count, wide, oracle), 1e-6);
  free(single);
  free(oracle);
  free(wide);
}

static void train_test_expand(void) {
  static const int groups[4] = {0, TT_GROUP_ROW, 4, 32};
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 5);
    for (int d = 0; d < 10; d++) {
      for (int variant = 0; variant < 16; variant++) { // groups x sweeps x padding
        int group = train_is_integer(train_dtypes[d]) ? groups[variant / 4] : 0;
        if (!group && variant >= 4) break;
        train_built built =
            train_build(&shape, variant & 1, train_dtypes[d], group, variant >> 1 & 1, 1);
        train_check_expand(&built.w, d < 2 ? 1e-13 : 1e-6);
        free(built.memory);
      }
    }
  }
  float dense[4] = {1, 2, 3, 4};
  double wide[4] = {1, 2, 3, 4};
  tt_matrix w;
  memset(&w, 0, sizeof w);
  CHECK_STATUS(tt_expand(NULL, dense), TT_ERROR_INVALID);
  CHECK_STATUS(tt_expand(&w, dense), TT_ERROR_INVALID);
  CHECK_STATUS(tt_expand_f64(&w, wide), TT_ERROR_INVALID);
  CHECK(dense[0] == 1 && wide[3] == 4);
}

static void train_test_expand_memory(
    void) { // workspace comes from the train's allocator; dense is untouched on error
  tt_shape shape = train_shape(5, 6);
  train_built built = train_build(&shape, 1, TT_I4, 4, TT_LEFT_TO_RIGHT, 0);
  test_heap heap;
  ptrdiff_t count = built.w.rows * built.w.cols;
  double *dense = test_doubles(count);
  float *single = test_floats(count);
  built.w.allocator = test_allocator(&heap);
  CHECK_STATUS(tt_expand_f64(&built.w, dense), TT_OK);
  CHECK(heap.live_blocks == 0);
  long calls = heap.calls;
  for (long n = 1; n <= calls; n++) {
    built.w.allocator = test_allocator(&heap);
    heap.fail_at = n;
    for (ptrdiff_t i = 0; i < count; i++) {
      dense[i] = 42;
      single[i] = 42;
    }
    CHECK_STATUS(tt_expand_f64(&built.w, dense), TT_ERROR_MEMORY);
    built.w.allocator = test_allocator(&heap);
    heap.fail_at = n;
    CHECK_STATUS(tt_expand(&built.w, single), TT_ERROR_MEMORY);
    CHECK(heap.live_blocks == 0);
    int touched = 0;
    for (ptrdiff_t i = 0; i < count; i++) touched |= dense[i] != 42 || single[i] != 42;
    CHECK(!touched);
  }
  free(dense);
  free(single);
  free(built.memory);
}

// ---- add, scale, transpose, dot, norm

static double *train_sum(ptrdiff_t count, double alpha, const double *a, double beta,
                         const double *b) {
  double *sum = test_doubles(count);
  for (ptrdiff_t i = 0; i < count; i++) sum[i] = alpha * a[i] + beta * b[i];
  return sum;
}

static void train_check_add(const tt_matrix *a, const tt_matrix *b) {
  ptrdiff_t count = a->rows * a->cols;
  double *da = train_dense(a), *db = train_dense(b), *sum = train_sum(count, 1, da, 1, db);
  tt_options options = test_options();
  tt_matrix c;
  options.dtype = TT_F64;
  CHECK_STATUS(tt_add(a, b, &options, &c), TT_OK);
  train_check_form(&c, a->rows, a->cols, TT_F64);
  for (int k = 1; k < c.shape.order; k++)
    CHECK(c.shape.ranks[k] == a->shape.ranks[k] + b->shape.ranks[k]);
  train_check_dense(&c, sum, 1e-6);
  CHECK(!c.bias == !(a->bias || b->bias));
  for (ptrdiff_t i = 0; c.bias && i < a->rows; i++) {
    double bias = (a->bias ? (double)a->bias[i] : 0) + (b->bias ? (double)b->bias[i] : 0);
    CHECK_CLOSE(c.bias[i], bias, 1e-6);
  }
  tt_free(&c);
  CHECK_STATUS(tt_add(a, b, NULL, &c), TT_OK); // without options: double if either is double
  int wide = a->cores[0].dtype == TT_F64 || b->cores[0].dtype == TT_F64;
  train_check_form(&c, a->rows, a->cols, wide ? TT_F64 : TT_F32);
  tt_free(&c);
  free(da);
  free(db);
  free(sum);
}

static void train_test_add(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 4), other = train_shape(index, 3);
    for (int d = 0; d < 10; d++) {
      train_built a =
          train_build(&shape, d & 1, train_dtypes[d], TT_GROUP_ROW, d >> 1 & 1, d % 3 == 0);
      train_built b = train_build(&other, d & 1, train_dtypes[(d + 3) % 10], 4, d & 1, d % 4 == 0);
      train_check_add(&a.w, &b.w);
      train_check_add(&a.w, &a.w);
      free(a.memory);
      free(b.memory);
    }
  }
}

// Sums of the same train: a - a is exactly as small as rounding allows, (a + b) - b gives a.
static void train_test_add_exactness(void) {
  tt_shape shape = train_shape(5, 4);
  train_built a = train_build(&shape, 1, TT_F64, 0, 0, 0);
  tt_matrix negative, zero;
  double norm = -1, of_a = -1;
  CHECK_STATUS(tt_scale(&a.w, -1, NULL, &negative), TT_OK);
  CHECK_STATUS(tt_add(&a.w, &negative, NULL, &zero), TT_OK);
  CHECK_STATUS(tt_norm(&a.w, &of_a), TT_OK);
  CHECK_STATUS(tt_norm(&zero, &norm), TT_OK);
  CHECK(of_a > 0);
  CHECK_AT_MOST(norm, 1e-13 * of_a); // a dot product would leave 1e-8
  tt_free(&zero);
  tt_free(&negative);
  free(a.memory);
}

static void train_test_scale_and_transpose(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 4);
    for (int d = 0; d < 10; d++) {
      train_built a =
          train_build(&shape, d & 1, train_dtypes[d], d % 2 ? 4 : TT_GROUP_ROW, d >> 1 & 1, 1);
      ptrdiff_t rows = a.w.rows, cols = a.w.cols;
      double *dense = train_dense(&a.w), *scaled = train_sum(rows * cols, -2.5, dense, 0, dense);
      double *turned = test_doubles(rows * cols);
      tt_options options = test_options();
      tt_matrix c;
      options.dtype = TT_F64;
      CHECK_STATUS(tt_scale(&a.w, -2.5, &options, &c), TT_OK);
      train_check_form(&c, rows, cols, TT_F64);
      train_check_dense(&c, scaled, 1e-6);
      for (ptrdiff_t i = 0; c.bias && i < rows; i++)
        CHECK_CLOSE(c.bias[i], -2.5 * (double)a.w.bias[i], 1e-6);
      CHECK(c.bias != NULL);
      tt_free(&c);
      CHECK_STATUS(tt_scale(&a.w, 0, &options, &c), TT_OK);
      memset(scaled, 0, sizeof(double) * (size_t)(rows * cols));
      train_check_dense(&c, scaled, 0);
      tt_free(&c);
      CHECK_STATUS(tt_transpose(&a.w, &options, &c), TT_OK);
      train_check_form(&c, cols, rows, TT_F64);
      CHECK(c.bias == NULL);
      for (int k = 0; k < shape.order; k++) {
        CHECK(c.shape.rows[k] == shape.cols[k] && c.shape.cols[k] == shape.rows[k]);
        CHECK(c.shape.ranks[k] == shape.ranks[k]);
      }
      for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < cols; j++) turned[j * rows + i] = dense[i * cols + j];
      train_check_dense(&c, turned, 1e-6);
      tt_free(&c);
      free(dense);
      free(scaled);
      free(turned);
      free(a.memory);
    }
  }
}

static void train_test_dot_and_norm(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 4), other = train_shape(index, 3);
    for (int d = 0; d < 10; d++) {
      train_built a = train_build(&shape, d & 1, train_dtypes[d], TT_GROUP_ROW, d >> 1 & 1, 1);
      train_built b = train_build(&other, d & 1, train_dtypes[9 - d], 4, d & 1, 0);
      tt_matrix pa = train_padded_view(&a.w), pb = train_padded_view(&b.w); // padding counts
      double *da = train_dense(&pa), *db = train_dense(&pb), dot = 0, square = 0, other_square = 0,
             got = -1;
      for (ptrdiff_t i = 0; i < pa.rows * pa.cols; i++) {
        dot += da[i] * db[i];
        square += da[i] * da[i];
        other_square += db[i] * db[i];
      }
      CHECK_STATUS(tt_dot(&a.w, &b.w, &got), TT_OK);
      CHECK_CLOSE(got, dot, 1e-6 * sqrt(square * other_square));
      CHECK_STATUS(tt_norm(&a.w, &got), TT_OK);
      CHECK_CLOSE(got, sqrt(square), 1e-6 * sqrt(square));
      if (d < 2) CHECK_CLOSE(got, sqrt(square), 1e-13 * sqrt(square));
      free(da);
      free(db);
      free(a.memory);
      free(b.memory);
    }
  }
}

// A train of F64 cores all of whose numbers are `value`, in tt_create's memory.
static tt_matrix train_constant(int order, int leg, double value) {
  tt_options options = test_options();
  tt_shape shape = shape_of_table(0);
  tt_matrix w;
  options.dtype = TT_F64;
  shape.order = order;
  for (int k = 0; k < order; k++) {
    shape.rows[k] = leg;
    shape.cols[k] = 1;
    shape.ranks[k + 1] = 1;
  }
  CHECK_STATUS(tt_create(&shape, 1, 1, &options, &w),
               TT_OK); // true size 1 x 1: the rest is padding, and counts
  for (int k = 0; k < order; k++) {
    double *core = (double *)tt_core_data(&w, k);
    for (int i = 0; i < leg; i++) core[i] = value;
  }
  return w;
}

static void train_test_huge_norm(void) {
  if (sizeof(ptrdiff_t) < 8) return;                         // 10^16 rows need 64 bits
  tt_matrix w = train_constant(16, 10, 1e13), sum, next;
  double norm = 0, dot = 0, expected = 1e108 * 1e108; // 10^8 from the ones, 10^208 from the scale
  CHECK_STATUS(tt_norm(&w, &norm), TT_OK);
  CHECK_CLOSE(norm / expected, 1, 1e-12);
  CHECK_STATUS(tt_dot(&w, &w, &dot), TT_OK);
  CHECK(isinf(dot) && dot > 0);
  CHECK_STATUS(tt_add(&w, &w, NULL, &sum), TT_OK);
  CHECK_STATUS(tt_norm(&sum, &norm), TT_OK);
  CHECK_CLOSE(norm / expected, 2, 1e-12);
  tt_free(&sum);
  for (int center = 0; center < 16; center += 5) {
    CHECK_STATUS(tt_orthogonalize(&w, center, NULL, &next), TT_OK);
    CHECK_STATUS(tt_norm(&next, &norm), TT_OK);
    CHECK_CLOSE(norm / expected, 1, 1e-12);
    tt_free(&next);
  }
  tt_free(&w);
  w = train_constant(16, 10, 1e-19); // 10^8 10^-304
  CHECK_STATUS(tt_norm(&w, &norm), TT_OK);
  CHECK_CLOSE(norm / 1e-296, 1, 1e-12);
  tt_free(&w);
  w = train_constant(1, 4, 1e300);
  CHECK_STATUS(tt_norm(&w, &norm), TT_OK);
  CHECK_CLOSE(norm / 2e300, 1, 1e-14);
  tt_free(&w);
  w = train_constant(3, 4, 0);
  CHECK_STATUS(tt_norm(&w, &norm), TT_OK);
  CHECK(norm == 0);
  tt_free(&w);
}

// ---- orthogonalisation

// max |Q^T Q - I| of the unfolding of core k that must be orthonormal: columns (left) or rows
// (right).
static double train_orthogonality(const tt_matrix *w, int k, int left) {
  double *core = train_core_values(w, k), worst = 0;
  ptrdiff_t legs = (ptrdiff_t)w->shape.rows[k] * w->shape.cols[k], before = w->shape.ranks[k],
            after = w->shape.ranks[k + 1];
  ptrdiff_t size = left ? after : before, depth = left ? before * legs : legs * after;
  ptrdiff_t step = left ? after : 1, vector = left ? 1 : legs * after;
  for (ptrdiff_t p = 0; p < size; p++) {
    for (ptrdiff_t q = 0; q <= p; q++) {
      double sum = p == q ? -1 : 0;
      for (ptrdiff_t t = 0; t < depth; t++)
        sum += core[p * vector + t * step] * core[q * vector + t * step];
      if (!(fabs(sum) <= worst)) worst = fabs(sum);
    }
  }
  free(core);
  return worst;
}

static void train_check_orthogonal(const tt_matrix *w, int center) {
  for (int k = 0; k < w->shape.order; k++) {
    if (k < center) CHECK_AT_MOST(train_orthogonality(w, k, 1), 1e-12);
    if (k > center) CHECK_AT_MOST(train_orthogonality(w, k, 0), 1e-12);
  }
}

static double train_core_norm(const tt_matrix *w, int k) {
  double *core = train_core_values(w, k), square = 0;
  for (ptrdiff_t i = 0; i < shape_core(&w->shape, k); i++) square += core[i] * core[i];
  free(core);
  return sqrt(square);
}

static void train_test_orthogonalize(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 4);
    for (int d = 0; d < 10; d++) {
      for (int center = 0; center < shape.order; center++) {
        train_built a =
            train_build(&shape, d & 1, train_dtypes[d], TT_GROUP_ROW, (d >> 1 ^ center) & 1, 1);
        double *dense = train_dense(&a.w), norm = 0;
        tt_options options = test_options();
        tt_matrix q;
        options.dtype = TT_F64;
        CHECK_STATUS(tt_orthogonalize(&a.w, center, &options, &q), TT_OK);
        train_check_form(&q, a.w.rows, a.w.cols, TT_F64);
        train_check_orthogonal(&q, center);
        train_check_dense(&q, dense, d < 2 ? 1e-12 : 1e-6);
        CHECK_STATUS(tt_norm(&q, &norm), TT_OK);
        CHECK_CLOSE(train_core_norm(&q, center), norm, 1e-12 * norm);
        CHECK(q.bias && !memcmp(q.bias, a.w.bias, sizeof(float) * (size_t)a.w.rows));
        tt_free(&q);
        free(dense);
        free(a.memory);
      }
    }
  }
}

// Ranks far above the useful maximum in either direction are clipped, and the tensor stays.
static void train_test_orthogonalize_clips(void) {
  int rows[4] = {2, 4, 3, 3}, ones[10] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
      ranks[5] = {1, 5, 2, 17, 1};
  int from_left[3] = {2, 2, 6}, from_right[3] = {5, 2, 3}; // what the swept side can carry
  tt_shape shape = test_shape(4, rows, ones, ranks);
  tt_matrix a = test_train(&shape), q, again;
  double *dense = train_dense(&a);
  CHECK(a.shape.ranks[3] == 17); // created as asked for
  for (int center = 0; center < 4; center++) {
    CHECK_STATUS(tt_orthogonalize(&a, center, NULL, &q), TT_OK);
    for (int k = 0; k < 3; k++)
      CHECK(q.shape.ranks[k + 1] == (k < center ? from_left[k] : from_right[k]));
    train_check_orthogonal(&q, center);
    train_check_dense(&q, dense, 1e-12);
    CHECK_STATUS(tt_orthogonalize(&q, center, NULL, &again),
                 TT_OK); // a second time changes nothing but rounding
    for (int k = 0; k < 4; k++) {
      double *first = train_core_values(&q, k), *second = train_core_values(&again, k),
             difference = 0;
      for (ptrdiff_t i = 0; i < shape_core(&q.shape, k); i++) {
        if (fabs(fabs(first[i]) - fabs(second[i])) > difference)
          difference = fabs(fabs(first[i]) - fabs(second[i]));
      }
      CHECK_AT_MOST(difference, 1e-12 * (1 + train_core_norm(&q, k)));
      free(first);
      free(second);
    }
    tt_free(&again);
    tt_free(&q);
  }
  free(dense);
  tt_free(&a);
  int legs[6] = {3, 4, 5, 3, 8, 2}, wild[7] = {1, 20, 12, 34, 3, 50, 1};
  shape = test_shape(6, legs, ones, wild);
  a = test_train(&shape);
  dense = train_dense(&a);
  for (int center = 0; center < 6; center++) {
    CHECK_STATUS(tt_orthogonalize(&a, center, NULL, &q), TT_OK);
    train_check_orthogonal(&q, center);
    train_check_dense(&q, dense, 1e-12);
    tt_free(&q);
  }
  free(dense);
  tt_free(&a);
}

// Ten cores with ranks up to 100, too large for a dense matrix: norms and distances from dot
// products.
static void train_test_orthogonalize_long(void) {
  int legs[10] = {3, 4, 5, 3, 8, 7, 10, 3, 5, 6}, ones[10] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  int ranks[11] = {1, 20, 12, 34, 3, 50, 100, 12, 2, 80, 1};
  tt_shape shape = test_shape(10, legs, ones, ranks);
  tt_matrix a = test_train(&shape), q, negative, difference;
  double norm = 0, distance = 0;
  CHECK_STATUS(tt_norm(&a, &norm), TT_OK);
  for (int center = 0; center < 10; center += 3) {
    CHECK_STATUS(tt_orthogonalize(&a, center, NULL, &q), TT_OK);
    train_check_orthogonal(&q, center);
    CHECK_CLOSE(train_core_norm(&q, center) / norm, 1, 1e-12);
    CHECK_STATUS(tt_scale(&q, -1, NULL, &negative), TT_OK);
    CHECK_STATUS(tt_add(&a, &negative, NULL, &difference), TT_OK);
    CHECK_STATUS(tt_norm(&difference, &distance), TT_OK);
    CHECK_AT_MOST(distance, 1e-12 * norm);
    tt_free(&difference);
    tt_free(&negative);
    tt_free(&q);
  }
  tt_free(&a);
}

// A zero train and one with dependent slices still give orthonormal cores.
static void train_test_orthogonalize_degenerate(void) {
  tt_shape shape = train_shape(5, 4);
  tt_options options = test_options();
  tt_matrix w, q;
  options.dtype = TT_F64;
  CHECK_STATUS(tt_create(&shape, 36, 36, &options, &w), TT_OK);
  for (int fill = 0; fill < 2; fill++) {
    for (int k = 0; k < 4; k++) {
      double *core = (double *)tt_core_data(&w, k);
      for (ptrdiff_t i = 0; i < shape_core(&shape, k); i++)
        core[i] = fill; // all zero, then all one: rank 1
    }
    double *dense = train_dense(&w);
    for (int center = 0; center < 4; center++) {
      CHECK_STATUS(tt_orthogonalize(&w, center, NULL, &q), TT_OK);
      train_check_orthogonal(&q, center);
      train_check_dense(&q, dense, 1e-13);
      tt_free(&q);
    }
    free(dense);
  }
  tt_free(&w);
}

// ---- merge and prepare

static int train_core_bytes_equal(const tt_matrix *a, int ka, const tt_matrix *b, int kb) {
  ptrdiff_t rows = train_view_rows(a, ka), length = train_view_cols(a, ka);
  const tt_core *x = &a->cores[ka], *y = &b->cores[kb];
  if (x->dtype != y->dtype || x->group != y->group) return 0;
  if (memcmp(x->data, y->data, (size_t)(rows * train_row_bytes(x->dtype, length)))) return 0;
  return (x->scale == 0 ? 1 : x->scale) == (y->scale == 0 ? 1 : y->scale);
}

static void train_test_merge(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 4);
    for (int d = 0; d < 10; d++) {
      train_built a =
          train_build(&shape, d & 1, train_dtypes[d], d % 2 ? 4 : TT_GROUP_ROW, d % 5 == 0, 1);
      double *dense = train_dense(&a.w);
      for (int first = 0; first < shape.order; first++) {
        for (int count = 1; first + count <= shape.order; count++) {
          tt_matrix c;
          CHECK_STATUS(tt_merge(&a.w, first, count, NULL, &c), TT_OK);
          CHECK(c.shape.order == shape.order - count + 1 && c.rows == a.w.rows &&
                c.cols == a.w.cols);
          train_check_dense(&c, dense, 2e-6);
          CHECK(c.bias && !memcmp(c.bias, a.w.bias, sizeof(float) * (size_t)a.w.rows));
          if (a.w.sweep == c.sweep) { // other cores keep their codes
            for (int k = 0; k < first; k++) CHECK(train_core_bytes_equal(&a.w, k, &c, k));
            for (int k = first + count; k < shape.order; k++)
              CHECK(train_core_bytes_equal(&a.w, k, &c, k - count + 1));
          }
          if (count > 1)
            CHECK(c.cores[first].dtype == (train_dtypes[d] == TT_F64 ? TT_F64 : TT_F32));
          tt_free(&c);
        }
      }
      tt_matrix c;
      CHECK_STATUS(tt_merge(&a.w, -1, 1, NULL, &c), TT_ERROR_INVALID);
      CHECK_STATUS(tt_merge(&a.w, 0, 0, NULL, &c), TT_ERROR_INVALID);
      CHECK_STATUS(tt_merge(&a.w, 0, shape.order + 1, NULL, &c), TT_ERROR_INVALID);
      CHECK_STATUS(tt_merge(&a.w, shape.order, 1, NULL, &c), TT_ERROR_INVALID);
      CHECK_STATUS(tt_merge(&a.w, 1, INT_MAX, NULL, &c), TT_ERROR_INVALID);
      CHECK(train_is_zeroed(&c));
      free(dense);
      free(a.memory);
    }
  }
}

static void train_test_prepare(void) {
  static const ptrdiff_t batches[4] = {1, 7, 64, 1000};
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 4);
    for (int d = 0; d < 10; d++) {
      for (int sweep = 0; sweep < 2; sweep++) {
        train_built a =
            train_build(&shape, d & 1, train_dtypes[d], d % 2 ? 4 : TT_GROUP_ROW, sweep, 1);
        double *dense = train_dense(&a.w);
        for (int t = 0; t < 4; t++) {
          tt_matrix c;
          CHECK_STATUS(tt_prepare(&a.w, batches[t], NULL, &c), TT_OK);
          CHECK(c.rows == a.w.rows && c.cols == a.w.cols && c.shape.order <= shape.order);
          CHECK(c.bias && !memcmp(c.bias, a.w.bias, sizeof(float) * (size_t)a.w.rows));
          train_check_dense(&c, dense, 2e-6);
          for (int k = 0; c.sweep == sweep && c.shape.order == shape.order && k < shape.order; k++)
            CHECK(train_core_bytes_equal(&a.w, k, &c, k));
          for (int k = 0; c.sweep != sweep && k < c.shape.order; k++)
            CHECK(c.cores[k].dtype == (train_dtypes[d] == TT_F64 ? TT_F64 : TT_F32));
          if (c.shape.order == 1)
            CHECK(shape_core(&c.shape, 0) == shape_rows(&shape) * shape_cols(&shape));
          tt_free(&c);
        }
        free(dense);
        free(a.memory);
      }
    }
  }
}

// Known answers: the benchmark's train must be swept left to right, its transpose right to left; a
// train whose dense matrix is smaller than it becomes dense; a large low-rank train is left alone.
static void train_test_prepare_decides(void) {
  int left[4] = {1, 1, 4, 16}, right[4] = {4, 16, 1, 1}, ranks[5] = {1, 4, 8, 8, 1};
  tt_shape shape = test_shape(4, left, right, ranks);
  tt_matrix w = test_train(&shape), c;
  CHECK(tt_apply_macs(&w, 1) == 402432);
  CHECK_STATUS(tt_prepare(&w, 1, NULL, &c), TT_OK);
  CHECK(c.shape.order > 1 && c.sweep == TT_LEFT_TO_RIGHT);
  CHECK(tt_apply_macs(&c, 1) <= 1536);
  tt_free(&c);
  tt_free(&w);
  int transposed_rows[4] = {4, 16, 1, 1}, transposed_cols[4] = {1, 1, 4, 16};
  shape = test_shape(4, transposed_rows, transposed_cols, ranks);
  w = test_train(&shape);
  CHECK(tt_apply_macs(&w, 1) == 1536);
  CHECK_STATUS(tt_prepare(&w, 1, NULL, &c), TT_OK);
  CHECK(c.sweep == TT_RIGHT_TO_LEFT && tt_apply_macs(&c, 1) <= 1536);
  tt_free(&c);
  tt_free(&w);
  int fours[3] = {4, 4, 4}, full[4] = {1, 16, 16, 1};
  shape = test_shape(3, fours, fours, full);
  w = test_train(&shape);
  CHECK_STATUS(tt_prepare(&w, 64, NULL, &c), TT_OK);
  CHECK(c.shape.order == 1 && tt_apply_macs(&c, 1) == 4096);
  tt_free(&c);
  tt_free(&w);
  int tall[2] = {512, 1}, wide[2] = {1, 512}, thin[3] = {1, 4, 1};
  shape = test_shape(2, tall, wide, thin);
  w = test_train(&shape);
  CHECK_STATUS(tt_prepare(&w, 1, NULL, &c), TT_OK);
  CHECK(c.shape.order == 2 && c.sweep == TT_RIGHT_TO_LEFT && tt_apply_macs(&c, 1) == 4 * 1024);
  for (int k = 0; k < 2; k++) CHECK(train_core_bytes_equal(&w, k, &c, k));
  tt_free(&c);
  CHECK_STATUS(tt_prepare(&w, -1, NULL, &c), TT_ERROR_INVALID);
  CHECK_STATUS(tt_prepare(&w, 0, NULL, &c), TT_OK);
  tt_free(&c);
  tt_free(&w);
}

// ---- errors, all functions alike

typedef tt_status (*train_unary)(const tt_matrix *w, const tt_options *options, tt_matrix *out);
static tt_status train_do_scale(const tt_matrix *w, const tt_options *options, tt_matrix *out) {
  return tt_scale(w, 2, options, out);
}
static tt_status train_do_add(const tt_matrix *w, const tt_options *options, tt_matrix *out) {
  return tt_add(w, w, options, out);
}
static tt_status train_do_center(const tt_matrix *w, const tt_options *options, tt_matrix *out) {
  return tt_orthogonalize(w, w ? w->shape.order / 2 : 0, options, out);
}
static tt_status train_do_merge(const tt_matrix *w, const tt_options *options, tt_matrix *out) {
  return tt_merge(w, 1, 2, options, out);
}
static tt_status train_do_prepare(const tt_matrix *w, const tt_options *options, tt_matrix *out) {
  return tt_prepare(w, 1, options, out);
}
static tt_status train_do_round(const tt_matrix *w, const tt_options *options, tt_matrix *out) {
  return tt_round(w, options, out, NULL);
}

enum { TRAIN_OPERATIONS = 7 };
static const train_unary train_operations[TRAIN_OPERATIONS] = {
    tt_transpose,   train_do_scale,   train_do_add,  train_do_center,
    train_do_merge, train_do_prepare, train_do_round};

static void train_test_errors(void) {
  tt_shape shape = train_shape(5, 4);
  train_built a = train_build(&shape, 0, TT_F32, 0, 0, 1);
  for (int f = 0; f < TRAIN_OPERATIONS; f++) {
    tt_options options = test_options();
    tt_matrix out, bad = a.w;
    CHECK_STATUS(train_operations[f](NULL, NULL, &out), TT_ERROR_INVALID);
    CHECK(train_is_zeroed(&out));
    CHECK_STATUS(train_operations[f](&a.w, NULL, NULL), TT_ERROR_INVALID);
    bad.cores[2].data = NULL;
    memset(&out, 1, sizeof out);
    CHECK_STATUS(train_operations[f](&bad, NULL, &out), TT_ERROR_INVALID);
    CHECK(train_is_zeroed(&out));
    options.dtype = (tt_dtype)-1;
    CHECK_STATUS(train_operations[f](&a.w, &options, &out), TT_ERROR_INVALID);
    options = test_options();
    options.dtype = TT_F64;
    float *core = (float *)test_new(shape_core(&shape, 1), sizeof(float));
    bad = a.w;
    bad.cores[1].data = core;
    core[3] = f % 2 ? NAN : -INFINITY;
    memset(&out, 1, sizeof out);
    if (train_operations[f] != train_do_prepare) {
      CHECK_STATUS(train_operations[f](&bad, &options, &out), TT_ERROR_NONFINITE);
      CHECK(train_is_zeroed(&out));
    }
    free(core);
  }
  free(a.memory);
}

static void train_test_binary_errors(void) {
  tt_shape shape = train_shape(5, 4), other = train_shape(4, 3);
  train_built a = train_build(&shape, 0, TT_F32, 0, 0, 1),
              b = train_build(&shape, 1, TT_F32, 0, 0, 1);
  train_built c = train_build(&other, 0, TT_F32, 0, 0, 1);
  tt_matrix out, view = c.w;
  double value = 5;
  CHECK_STATUS(tt_add(&a.w, &b.w, NULL, &out), TT_ERROR_INVALID); // sizes differ
  CHECK_STATUS(tt_add(&a.w, NULL, NULL, &out), TT_ERROR_INVALID);
  CHECK_STATUS(tt_dot(&a.w, &b.w, &value), TT_ERROR_INVALID);
  CHECK_STATUS(tt_dot(NULL, &b.w, &value), TT_ERROR_INVALID);
  CHECK_STATUS(tt_dot(&a.w, &a.w, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_norm(&a.w, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_norm(NULL, &value), TT_ERROR_INVALID);
  view.rows = 20;
  view.cols = 20;
  a.w.rows = 20;
  a.w.cols = 20;
  CHECK_STATUS(tt_add(&a.w, &view, NULL, &out), TT_ERROR_SHAPE); // sizes equal, factors not
  CHECK(train_is_zeroed(&out));
  CHECK_STATUS(tt_dot(&a.w, &view, &value), TT_ERROR_SHAPE);
  CHECK_STATUS(tt_scale(&a.w, (double)NAN, NULL, &out), TT_ERROR_INVALID);
  CHECK_STATUS(tt_scale(&a.w, (double)INFINITY, NULL, &out), TT_ERROR_INVALID);
  CHECK_STATUS(tt_orthogonalize(&a.w, -1, NULL, &out), TT_ERROR_INVALID);
  CHECK_STATUS(tt_orthogonalize(&a.w, 4, NULL, &out), TT_ERROR_INVALID);
  free(a.memory);
  free(b.memory);
  free(c.memory);
}

static void train_test_too_large_for_format(void) {
  tt_matrix w = train_constant(1, 4, 1e30), out;
  tt_options options = test_options(); // F32
  CHECK_STATUS(tt_scale(&w, 1e30, &options, &out), TT_ERROR_UNSUPPORTED);
  CHECK(train_is_zeroed(&out));
  CHECK_STATUS(tt_scale(&w, 1e30, NULL, &out), TT_OK); // F64, as the train
  CHECK(out.cores[0].dtype == TT_F64);
  tt_free(&out);
  tt_free(&w);
  w = train_constant(4, 4, 1e20); // norm 1e81 in F32: balanced over four cores
  double norm = 0;
  CHECK_STATUS(tt_orthogonalize(&w, 1, &options, &out), TT_OK);
  CHECK_STATUS(tt_norm(&out, &norm), TT_OK);
  CHECK_CLOSE(norm / 1.6e81, 1, 1e-5);
  tt_free(&out);
  tt_free(&w);
}

// The n-th allocation fails, for every n, in every operation: nothing leaks, *out is zeroed.
static void train_test_memory(void) {
  tt_shape shape = train_shape(5, 4);
  train_built a = train_build(&shape, 1, TT_I4, 4, TT_LEFT_TO_RIGHT, 1);
  for (int f = 0; f < TRAIN_OPERATIONS; f++) {
    long calls = 0;
    for (long n = 0; n <= calls; n++) {
      test_heap heap;
      tt_options options = test_options();
      tt_matrix out;
      options.allocator = test_allocator(&heap);
      options.dtype = TT_F64;
      heap.fail_at = n;
      memset(&out, 1, sizeof out);
      CHECK_STATUS(train_operations[f](&a.w, &options, &out), n ? TT_ERROR_MEMORY : TT_OK);
      if (n == 0) {
        calls = heap.calls;
        CHECK(heap.live_blocks == 1);
        tt_free(&out);
      }
      CHECK(heap.live_blocks == 0 && train_is_zeroed(&out));
    }
    CHECK(calls >= 1);
  }
  long calls = 0;
  for (long n = 0; n <= calls; n++) { // dot and norm use the allocator of the train
    test_heap heap;
    double value = 77;
    a.w.allocator = test_allocator(&heap);
    heap.fail_at = n;
    tt_status status = tt_dot(&a.w, &a.w, &value);
    if (n)
      CHECK(status == TT_ERROR_MEMORY && value == 77);
    else {
      CHECK(status == TT_OK);
      calls = heap.calls;
    }
    CHECK(heap.live_blocks == 0);
  }
  calls = 0;
  for (long n = 0; n <= calls; n++) {
    test_heap heap;
    double value = 77;
    a.w.allocator = test_allocator(&heap);
    heap.fail_at = n;
    tt_status status = tt_norm(&a.w, &value);
    if (n)
      CHECK(status == TT_ERROR_MEMORY && value == 77);
    else {
      CHECK(status == TT_OK);
      calls = heap.calls;
    }
    CHECK(heap.live_blocks == 0);
  }
  free(a.memory);
}

// Every storage format of results: within what the format can hold.
static void train_test_result_formats(void) {
  static const double tolerance[10] = {1e-6, 1e-13, 1e-2, 4e-2, 0.4, 0.7, 5e-2, 0.7, 1.6, 4};
  tt_shape shape = train_shape(5, 3);
  train_built a = train_build(&shape, 1, TT_F64, 0, 0, 1);
  double *dense = train_dense(&a.w), *sum = train_sum(a.w.rows * a.w.cols, 2, dense, 0, dense);
  for (int f = 1; f < TRAIN_OPERATIONS; f++) {
    for (int d = 0; d < 10; d++) {
      tt_options options = test_options();
      tt_matrix out;
      options.dtype = train_dtypes[d];
      CHECK_STATUS(train_operations[f](&a.w, &options, &out), TT_OK);
      double *got = train_dense(&out);
      CHECK_AT_MOST(test_distance(a.w.rows * a.w.cols, got, f < 3 ? sum : dense), tolerance[d]);
      if (f < 4)
        for (int k = 0; k < out.shape.order; k++) {
          int group = options.dtype == TT_I8 ? TT_GROUP_ROW : options.dtype > TT_I8 ? 32 : 0;
          CHECK(out.cores[k].dtype == options.dtype && out.cores[k].group == group);
        }
      free(got);
      tt_free(&out);
    }
  }
  free(dense);
  free(sum);
  free(a.memory);
}

static void test_train_section(void) {
  train_test_create();
  train_test_create_errors();
  train_test_expand();
  train_test_expand_memory();
  train_test_add();
  train_test_add_exactness();
  train_test_scale_and_transpose();
  train_test_dot_and_norm();
  train_test_huge_norm();
  train_test_orthogonalize();
  train_test_orthogonalize_clips();
  train_test_orthogonalize_long();
  train_test_orthogonalize_degenerate();
  train_test_merge();
  train_test_prepare();
  train_test_prepare_decides();
  train_test_errors();
  train_test_binary_errors();
  train_test_too_large_for_format();
  train_test_memory();
  train_test_result_formats();
}
