// Storage formats of cores: every code against its definition, the measured error, sizes, errors.

// Properties of one format, written down again from its definition.
static int quantize_limit(tt_dtype dtype) {
  return dtype == TT_I8 ? 127 : dtype == TT_I4 ? 7 : dtype == TT_I3 ? 3 : 1;
}
static int quantize_mantissa(tt_dtype dtype) {
  return dtype == TT_F16 ? 10 : dtype == TT_BF16 ? 7 : dtype == TT_E4M3 ? 3 : 2;
}
static double quantize_largest(tt_dtype dtype) {
  return dtype == TT_F16    ? 65504
         : dtype == TT_BF16 ? (double)FLT_MAX
         : dtype == TT_E4M3 ? 448
                            : 57344;
}
static double quantize_smallest(tt_dtype dtype) { // the smallest subnormal
  return dtype == TT_F16    ? 0x1p-24
         : dtype == TT_BF16 ? 0x1p-133
         : dtype == TT_E4M3 ? 0x1p-9
                            : 0x1p-16;
}

// The value of an element of the GEMM view.
static double quantize_value(const tt_core *core, ptrdiff_t length, ptrdiff_t row, ptrdiff_t col) {
  return train_code(core, length, row, col) * train_scale_of(core, length, row, col);
}

static double quantize_magnitude(const tt_core *core, ptrdiff_t length, ptrdiff_t row,
                                 ptrdiff_t first, ptrdiff_t end) {
  double largest = 0;
  for (ptrdiff_t t = first; t < end; t++) {
    double value = fabs(quantize_value(core, length, row, t));
    if (value > largest) largest = value;
  }
  return largest;
}

// Integer codes of one group of a row: the scale belongs to its largest magnitude, each code is the
// nearest one.
static void quantize_check_group(const tt_core *from, const tt_core *to, ptrdiff_t length,
                                 ptrdiff_t row, ptrdiff_t first, ptrdiff_t end, double whole,
                                 int exact, int *codes_good) {
  int limit = quantize_limit(to->dtype);
  double largest = quantize_magnitude(from, length, row, first, end);
  double scale = train_scale_of(to, length, row, first),
         wanted = (to->group ? largest : whole) / limit;
  if (largest > 0 && to->group <= 0) CHECK_CLOSE(scale, wanted, 1e-7 * wanted);
  if (largest > 0 && to->group > 0)
    CHECK_CLOSE(scale, wanted, 0x1.01p-11 * wanted + whole / limit * 0x1p-24);
  for (ptrdiff_t t = first; t < end; t++) {
    double value = quantize_value(from, length, row, t), code = train_code(to, length, row, t),
           ideal = value / scale;
    if (fabs(code) > limit) *codes_good = 0; // symmetric: the lowest code is not used
    if (largest == 0 || scale == 0) {
      if (code != 0) *codes_good = 0;
      continue;
    }
    ideal = ideal > limit ? limit : ideal < -limit ? -limit : ideal;
    if (!(fabs(code - ideal) <= 0.5 + 1e-4)) *codes_good = 0;
    if (exact && code != nearbyint(ideal)) *codes_good = 0; // ties to even
  }
}

static void quantize_check_integers(const tt_matrix *a, const tt_matrix *q, int k, int exact) {
  const tt_core *from = &a->cores[k], *to = &q->cores[k];
  ptrdiff_t rows = train_view_rows(a, k), length = train_view_cols(a, k),
            step = to->group > 0 ? to->group : length;
  double whole = 0, largest_code = 0;
  int codes_good = 1;
  for (ptrdiff_t row = 0; row < rows; row++) {
    double largest = quantize_magnitude(from, length, row, 0, length);
    if (largest > whole) whole = largest;
  }
  for (ptrdiff_t row = 0; row < rows; row++) {
    for (ptrdiff_t first = 0; first < length; first += step) {
      ptrdiff_t end = first + step < length ? first + step : length;
      quantize_check_group(from, to, length, row, first, end, whole, exact && to->group <= 0,
                           &codes_good);
    }
    for (ptrdiff_t t = 0; t < length; t++)
      largest_code = fmax(largest_code, fabs(train_code(to, length, row, t)));
  }
  CHECK(codes_good);
  if (whole > 0) CHECK(largest_code == quantize_limit(to->dtype));
}

static void quantize_check_floats(const tt_matrix *a, const tt_matrix *q, int k) {
  const tt_core *from = &a->cores[k], *to = &q->cores[k];
  ptrdiff_t rows = train_view_rows(a, k), length = train_view_cols(a, k);
  double scale = to->scale == 0 ? 1 : (double)to->scale, worst = 0;
  int exponent, good = 1;
  CHECK(to->scales == NULL && to->group == 0);
  CHECK(frexp(scale, &exponent) == 0.5); // a power of two
  if (to->dtype == TT_F32 || to->dtype == TT_F64 || to->dtype == TT_BF16) CHECK(scale == 1);
  for (ptrdiff_t row = 0; row < rows; row++) {
    for (ptrdiff_t t = 0; t < length; t++) {
      double value = quantize_value(from, length, row, t), got = quantize_value(to, length, row, t);
      if (to->dtype == TT_F64) {
        good &= fabs(got - value) <= 1e-7 * fabs(value);
        continue;
      }
      if (to->dtype == TT_F32) {
        good &= fabs(got - value) <= 0x1p-23 * fabs(value) + 1e-45;
        continue;
      }
      double half = fabs(value) * ldexp(1, -quantize_mantissa(to->dtype) - 1),
             tiny = quantize_smallest(to->dtype) * scale / 2;
      if (fabs(value) > quantize_largest(to->dtype) * scale) good = 0; // nothing saturates
      if (!(fabs(got - value) <= fmax(half, tiny) * (1 + 1e-6))) good = 0;
      worst = fmax(worst, fabs(got - value));
    }
  }
  CHECK(good);
}

static void quantize_check_result(const tt_matrix *a, const tt_matrix *q, const tt_report *report,
                                  int exact) {
  int d = a->shape.order;
  tt_matrix whole_a = train_padded_view(a), whole_q = train_padded_view(q);
  ptrdiff_t count = whole_a.rows * whole_a.cols;
  double *before = train_dense(&whole_a), *after = train_dense(&whole_q),
         error = test_distance(count, after, before);
  CHECK(!memcmp(&a->shape, &q->shape, sizeof a->shape) && q->sweep == a->sweep);
  CHECK(q->rows == a->rows && q->cols == a->cols && q->block);
  CHECK(!a->bias == !q->bias);
  if (a->bias) CHECK(!memcmp(q->bias, a->bias, sizeof(float) * (size_t)a->rows));
  for (int k = 0; k < d; k++) {
    if (train_is_integer(q->cores[k].dtype))
      quantize_check_integers(a, q, k, exact);
    else
      quantize_check_floats(a, q, k);
  }
  CHECK_CLOSE(report->relative_error, error, 1e-6 * (1 + error));
  CHECK_CLOSE(report->norm, compress_norm(count, before), 1e-6 * report->norm);
  CHECK(report->dense_params == a->rows * a->cols && report->params == tt_shape_params(&a->shape));
  CHECK_CLOSE(report->compression, (double)report->dense_params / (double)report->params,
              1e-12 * report->compression);
  CHECK(!memcmp(report->ranks, a->shape.ranks, sizeof(int) * (size_t)(d + 1)) &&
        report->position == -1);
  for (int k = 0; k < TT_MAX_ORDER; k++) CHECK(report->discarded[k] == 0);
  free(before);
  free(after);
}

static void quantize_test_all(void) {
  static const int groups[5] = {0, TT_GROUP_ROW, 1, 3, 32};
  static const tt_dtype sources[4] = {TT_F64, TT_F32, TT_F16, TT_I4};
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 4);
    for (int variant = 0; variant < 16; variant++) { // sources x sweeps x padding
      train_built a = train_build(&shape, variant & 1, sources[variant >> 2], 4, variant >> 1 & 1,
                                  variant % 3 == 0);
      for (int d = 0; d < 10; d++) {
        for (int g = 0; g < 5; g++) {
          tt_matrix q;
          tt_report report;
          if (groups[g] && !train_is_integer(train_dtypes[d])) {
            CHECK_STATUS(tt_quantize(&a.w, train_dtypes[d], groups[g], NULL, &q, &report),
                         TT_ERROR_UNSUPPORTED);
            CHECK(train_is_zeroed(&q));
            continue;
          }
          CHECK_STATUS(tt_quantize(&a.w, train_dtypes[d], groups[g], NULL, &q, &report), TT_OK);
          if (!q.block) continue;
          for (int k = 0; k < shape.order; k++)
            CHECK(q.cores[k].dtype == train_dtypes[d] && q.cores[k].group == groups[g]);
          quantize_check_result(&a.w, &q, &report, variant < 8);
          tt_free(&q);
        }
      }
      free(a.memory);
    }
  }
}

// What each format costs on normal numbers, at one scale per row: between half and twice the usual
// noise.
static void quantize_test_noise(void) {
  static const double usual[10] = {2e-8,   1e-17, 2.1e-4, 1.7e-3, 2.7e-2,
                                   5.3e-2, 6e-3,  0.11,   0.27,   0.7};
  int rows[1] = {64}, cols[1] = {64};
  tt_shape shape = test_shape(1, rows, cols, NULL);
  train_built a = train_build(&shape, 0, TT_F64, 0, 0, 0);
  for (int d = 0; d < 10; d++) {
    tt_matrix q;
    tt_report report;
    CHECK_STATUS(tt_quantize(&a.w, train_dtypes[d],
                             train_is_integer(train_dtypes[d]) ? TT_GROUP_ROW : 0, NULL, &q,
                             &report),
                 TT_OK);
    CHECK_AT_MOST(report.relative_error, 2 * usual[d]);
    if (d != 1)
      CHECK_AT_MOST(usual[d], 2 * report.relative_error);
    else
      CHECK(report.relative_error == 0);
    tt_free(&q);
  }
  free(a.memory);
}

static void quantize_test_idempotent(void) { // quantising again in the same format changes nothing
  for (int d = 2; d < 10; d++) {
    for (int group = TT_GROUP_ROW; group <= (train_is_integer(train_dtypes[d]) ? 5 : 0);
         group += 3) {
      int used = train_is_integer(train_dtypes[d]) ? group < 3 ? group : 4 : 0;
      tt_shape shape = train_shape(5, 4);
      train_built a = train_build(&shape, 0, TT_F64, 0, d & 1, 1);
      tt_matrix once, twice;
      tt_report report;
      CHECK_STATUS(tt_quantize(&a.w, train_dtypes[d], used, NULL, &once, NULL), TT_OK);
      CHECK_STATUS(tt_quantize(&once, train_dtypes[d], used, NULL, &twice, &report), TT_OK);
      CHECK_AT_MOST(report.relative_error, 1e-6);
      tt_free(&once);
      tt_free(&twice);
      free(a.memory);
    }
  }
}

static void quantize_test_zero(void) {
  for (int d = 0; d < 10; d++) {
    for (int g = TT_GROUP_ROW; g <= 4; g += 1) {
      tt_shape shape = train_shape(4, 3);
      tt_options options = test_options();
      tt_matrix w, q;
      tt_report report;
      if (g && !train_is_integer(train_dtypes[d])) continue;
      options.dtype = TT_F64;
      CHECK_STATUS(tt_create(&shape, 30, 28, &options, &w), TT_OK);
      double *zero = test_doubles(30 * 28);
      CHECK_STATUS(tt_quantize(&w, train_dtypes[d], g, NULL, &q, &report), TT_OK);
      CHECK(report.relative_error == 0 && report.norm == 0);
      train_check_dense(&q, zero, 0);
      tt_free(&q);
      ((double *)tt_core_data(&w, 0))[0] =
          3; // one number in an otherwise empty core: empty groups stay 0
      ((double *)tt_core_data(&w, 1))[0] = 1;
      zero[0] = 3;
      CHECK_STATUS(tt_quantize(&w, train_dtypes[d], g, NULL, &q, &report), TT_OK);
      train_check_dense(&q, zero, 1e-3);
      CHECK_AT_MOST(report.relative_error, 1e-3);
      tt_free(&q);
      tt_free(&w);
      free(zero);
    }
  }
}

// Numbers far outside the small floats come back through a power of two; BF16 and F32 hold them
// anyway.
static void quantize_test_range(void) {
  static const double scales[6] = {1e30, 1e-30, 1e6, 1e-6, 70000, 3e-8};
  static const double tolerance[10] = {1e-7, 1e-15, 1e-3, 8e-3, 0.06, 0.12, 0.02, 0.2, 0.5, 1};
  int rows[2] = {6, 5}, cols[2] = {4, 7}, ranks[3] = {1, 3, 1};
  for (int t = 0; t < 6; t++) {
    for (int d = 0; d < 10; d++) {
      tt_shape shape = test_shape(2, rows, cols, ranks);
      train_built a = train_build(&shape, 0, TT_F64, 0, t & 1, 0);
      tt_matrix scaled = test_train(&shape), q;
      tt_report report;
      for (int k = 0; k < 2; k++) {
        double *core = (double *)tt_core_data(&scaled, k);
        for (ptrdiff_t i = 0; i < shape_core(&shape, k); i++) core[i] *= scales[t];
      }
      CHECK_STATUS(tt_quantize(&scaled, train_dtypes[d], 0, NULL, &q, &report), TT_OK);
      CHECK_AT_MOST(report.relative_error, tolerance[d]);
      if (q.block) quantize_check_floats(&scaled, &q, t & 1);
      tt_free(&q);
      tt_free(&scaled);
      free(a.memory);
      if (d == 5) break;
    }
  }
}

static void quantize_test_errors(void) {
  tt_shape shape = train_shape(4, 3);
  tt_matrix w = test_train(&shape), q, bad;
  tt_options options = test_options();
  tt_report report;
  CHECK_STATUS(tt_quantize(NULL, TT_I8, 0, NULL, &q, &report), TT_ERROR_INVALID);
  CHECK(train_is_zeroed(&q));
  CHECK_STATUS(tt_quantize(&w, TT_I8, 0, NULL, NULL, &report), TT_ERROR_INVALID);
  CHECK_STATUS(tt_quantize(&w, (tt_dtype)10, 0, NULL, &q, &report), TT_ERROR_INVALID);
  CHECK_STATUS(tt_quantize(&w, (tt_dtype)-1, 0, NULL, &q, &report), TT_ERROR_INVALID);
  CHECK_STATUS(tt_quantize(&w, TT_I8, -2, NULL, &q, &report), TT_ERROR_INVALID);
  options.max_rank = -1;
  CHECK_STATUS(tt_quantize(&w, TT_I8, 0, &options, &q, &report), TT_ERROR_INVALID);
  bad = w;
  bad.block = NULL;
  bad.cores[1].data = NULL;
  CHECK_STATUS(tt_quantize(&bad, TT_I8, 0, NULL, &q, &report), TT_ERROR_INVALID);
  double *core = (double *)tt_core_data(&w, 1), old = core[5];
  for (int d = 0; d < 10; d++) {
    core[5] = d & 1 ? (double)NAN : (double)INFINITY;
    memset(&q, 1, sizeof q);
    CHECK_STATUS(tt_quantize(&w, train_dtypes[d], 0, NULL, &q, &report), TT_ERROR_NONFINITE);
    CHECK(train_is_zeroed(&q));
    core[5] = 1e300;
    memset(&q, 1, sizeof q);
    CHECK_STATUS(tt_quantize(&w, train_dtypes[d], 0, NULL, &q, &report),
                 d == 1 ? TT_OK : TT_ERROR_UNSUPPORTED);
    if (d == 1) tt_free(&q);
    CHECK(train_is_zeroed(&q));
  }
  core[5] = old;
  for (int with_report = 0; with_report < 2; with_report++) {
    long calls = 0;
    for (long n = 0; n <= calls; n++) {
      test_heap heap;
      options = test_options();
      options.allocator = test_allocator(&heap);
      heap.fail_at = n;
      memset(&q, 1, sizeof q);
      CHECK_STATUS(tt_quantize(&w, TT_I3, 5, &options, &q, with_report ? &report : NULL),
                   n ? TT_ERROR_MEMORY : TT_OK);
      if (n == 0) {
        calls = heap.calls;
        CHECK(heap.live_blocks == 1);
        tt_free(&q);
      }
      CHECK(heap.live_blocks == 0 && train_is_zeroed(&q));
    }
  }
  tt_free(&w);
}

// ---- bytes

// By formula: codes row by row, one float per row or one f16 per group, one float for a core whose
// scale is not 1.
static size_t quantize_size(const tt_matrix *w) {
  size_t size = w->bias ? 4 * (size_t)w->rows : 0;
  for (int k = 0; k < w->shape.order; k++) {
    const tt_core *core = &w->cores[k];
    ptrdiff_t rows = train_view_rows(w, k), length = train_view_cols(w, k);
    size += (size_t)(rows * train_row_bytes(core->dtype, length));
    if (core->group == TT_GROUP_ROW) size += (size_t)(4 * rows);
    if (core->group > 0) size += (size_t)(2 * rows * ((length + core->group - 1) / core->group));
    if (core->scale != 0 && core->scale != 1) size += 4;
  }
  return size;
}

static void quantize_test_stored_size(void) {
  int rows[4] = {1, 1, 4, 16}, cols[4] = {4, 16, 1, 1}, ranks[5] = {1, 4, 8, 8, 1};
  tt_shape shape = test_shape(4, rows, cols, ranks);
  tt_matrix w = test_train(&shape), q, view;
  view = w;
  view.block = NULL;
  view.bias = NULL;
  CHECK(tt_stored_size(&view) == 912 * 8);
  CHECK(tt_stored_size(&w) == 912 * 8 + 64 * 4);
  CHECK_STATUS(tt_quantize(&view, TT_F32, 0, NULL, &q, NULL), TT_OK);
  CHECK(tt_stored_size(&q) == 3648);
  tt_free(&q);
  CHECK_STATUS(tt_quantize(&view, TT_I8, 0, NULL, &q, NULL), TT_OK);
  CHECK(tt_stored_size(&q) == 912 + 4 * 4); // one float scale a core
  tt_free(&q);
  CHECK_STATUS(tt_quantize(&view, TT_I8, TT_GROUP_ROW, NULL, &q, NULL), TT_OK);
  CHECK(tt_stored_size(&q) == 912 + 4 * (1 + 4 + 32 + 128)); // rows of the views (ranks[k] rows[k])
  tt_free(&q);
  CHECK_STATUS(tt_quantize(&view, TT_I4, 0, NULL, &q, NULL), TT_OK);
  CHECK(tt_stored_size(&q) == 8 + 256 + 128 + 128 + 4 * 4); // the last core has rows of one code
  tt_free(&q);
  CHECK_STATUS(tt_quantize(&view, TT_I4, 32, NULL, &q, NULL), TT_OK);
  CHECK(tt_stored_size(&q) == 8 + 256 + 128 + 128 + 2 * (1 + 16 + 32 + 128) + 4 * 4);
  tt_free(&q);
  tt_free(&w);
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    for (int d = 0; d < 10; d++) {
      tt_shape other = train_shape(index, 3);
      train_built a =
          train_build(&other, d & 1, train_dtypes[d], d % 3 ? 4 : TT_GROUP_ROW, index & 1, d % 2);
      CHECK(tt_stored_size(&a.w) == quantize_size(&a.w));
      free(a.memory);
    }
  }
  CHECK(tt_stored_size(NULL) == 0);
  memset(&view, 0, sizeof view);
  CHECK(tt_stored_size(&view) == 0);
}

// Relative error of core k of b against a.
static double quantize_core_error(const tt_matrix *a, const tt_matrix *b, int k) {
  ptrdiff_t rows, length;
  tt__view_size(&a->shape, a->sweep, k, &rows, &length);
  double *first = test_doubles(rows * length), *second = test_doubles(rows * length);
  tt__decode_f64(&a->cores[k], rows, length, first);
  tt__decode_f64(&b->cores[k], rows, length, second);
  double error = test_distance(rows * length, second, first);
  free(first);
  free(second);
  return error;
}

// Errors of cores of a left-orthogonal train add in squares: the law by which bits per core are
// planned. Random trains, and trains of a matrix with singular values 1/k.
static void quantize_test_error_law(void) {
  static const int legs[4] = {4, 4, 4, 4}, ranks[5] = {1, 8, 12, 8, 1}, two[2] = {16, 16};
  static const tt_dtype dtypes[3] = {TT_I8, TT_I8, TT_I4};
  static const int groups[3] = {0, TT_GROUP_ROW, 32};
  for (int kind = 0; kind < 3; kind++)
    for (int f = 0; f < 3; f++) {
      tt_shape shape = kind == 1 ? test_shape(2, two, two, NULL) : test_shape(4, legs, legs, ranks);
      tt_options options = test_options();
      tt_matrix w, left, coded;
      tt_report report;
      double sum = 0;
      options.dtype = TT_F64;
      if (kind == 0) {
        w = test_train(&shape);
      } else {
        double s[256];
        for (int i = 0; i < 256; i++) s[i] = 1.0 / (i + 1);
        double *dense = reference_with_values(256, 256, s);
        options.max_rank = 16;
        CHECK_STATUS(tt_compress_f64(dense, 256, 256, &shape, &options, &w, NULL), TT_OK);
        free(dense);
      }
      CHECK_STATUS(tt_orthogonalize(&w, shape.order - 1, &options, &left), TT_OK);
      CHECK_STATUS(tt_quantize(&left, dtypes[f], groups[f], NULL, &coded, &report), TT_OK);
      for (int k = 0; k < shape.order; k++) {
        double error = quantize_core_error(&left, &coded, k);
        sum += error * error;
      }
      CHECK_AT_MOST(0.85, report.relative_error / sqrt(sum));
      CHECK_AT_MOST(report.relative_error / sqrt(sum), 1.15);
      tt_free(&w);
      tt_free(&left);
      tt_free(&coded);
    }
}

// ---- clipping, gauges and budgets

// Ordinary INT8 per output channel, written down again: a matrix of order 1 is nothing else.
static void quantize_test_per_channel(void) {
  enum { ROWS = 23, COLS = 57 };
  float *w = test_normal_floats(ROWS * COLS);
  tt_matrix dense = tt_dense_view(w, ROWS, COLS), coded;
  int different = 0;
  for (int j = 0; j < COLS; j++) w[3 * COLS + j] = 0; // a dead channel
  CHECK_STATUS(tt_quantize(&dense, TT_I8, TT_GROUP_ROW, NULL, &coded, NULL), TT_OK);
  for (int i = 0; i < ROWS; i++) {
    float largest = 0, scale;
    for (int j = 0; j < COLS; j++) largest = fmaxf(largest, fabsf(w[i * COLS + j]));
    scale = (float)((double)largest / 127);
    different += memcmp(&scale, (const float *)coded.cores[0].scales + i, sizeof scale) != 0;
    for (int j = 0; j < COLS; j++) {
      double code = largest > 0 ? nearbyint((double)w[i * COLS + j] / (double)scale) : 0;
      different += (int)code != ((const int8_t *)coded.cores[0].data)[i * COLS + j];
    }
  }
  CHECK(different == 0);
  tt_free(&coded);
  free(w);
}

static int quantize_by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

// Heavy tails: the largest magnitude is a bad guide for 4 bits, and the two other rules are better
// in their own terms.
static void quantize_test_clipping(void) {
  enum { ROWS = 12, COLS = 200 };
  float *w = test_normal_floats(ROWS * COLS);
  tt_matrix dense = tt_dense_view(w, ROWS, COLS), coded[5];
  tt_options options = test_options();
  tt_report report[5];
  for (int i = 0; i < ROWS * COLS; i++) w[i] *= fabsf(w[i]) * fabsf(w[i]);
  for (int clip = 0; clip < 5; clip++) {
    options.clip = clip < 4 ? clip : TT_CLIP_PERCENTILE;
    options.percentile = clip == 3 ? 90 : clip == 4 ? 100 : 0;
    CHECK_STATUS(tt_quantize(&dense, TT_I4, TT_GROUP_ROW, &options, &coded[clip], &report[clip]),
                 TT_OK);
    CHECK_CLOSE(report[clip].predicted_error, report[clip].relative_error, 1e-9);
  }
  CHECK(report[TT_CLIP_SQUARED_ERROR].relative_error <
        0.97 * report[TT_CLIP_LARGEST].relative_error);
  CHECK(!memcmp(coded[0].cores[0].data, coded[TT_CLIP_LARGEST].cores[0].data, ROWS * COLS / 2));
  CHECK(!memcmp(coded[4].cores[0].data, coded[TT_CLIP_LARGEST].cores[0].data, ROWS * COLS / 2));
  for (int i = 0; i < ROWS; i++) { // the 90th percentile of 200 sorted magnitudes is number 180
    double sorted[COLS];
    for (int j = 0; j < COLS; j++) sorted[j] = fabs((double)w[i * COLS + j]);
    qsort(sorted, COLS, sizeof *sorted, quantize_by_size);
    CHECK_CLOSE(((const float *)coded[3].cores[0].scales)[i], sorted[179] / 7, 1e-6 * sorted[179]);
  }
  for (int clip = 0; clip < 5; clip++) tt_free(&coded[clip]);
  options.clip = 4;
  CHECK_STATUS(tt_quantize(&dense, TT_I4, 0, &options, &coded[0], NULL), TT_ERROR_INVALID);
  options.clip = 0;
  options.percentile = 101;
  CHECK_STATUS(tt_quantize(&dense, TT_I4, 0, &options, &coded[0], NULL), TT_ERROR_INVALID);
  free(w);
}

// The best choice of formats for three cores, by trying all; returns its predicted error.
static double quantize_best_choice(const tt_matrix *w, size_t bytes) {
  static const tt_dtype dtypes[7] = {TT_I8, TT_I8, TT_I4, TT_I4, TT_I3, TT_I2, TT_I2};
  static const int groups[7] = {TT_GROUP_ROW, 0, 32, TT_GROUP_ROW, 32, 32, TT_GROUP_ROW};
  double error[7][3], best = 1e9;
  size_t size[7][3];
  for (int f = 0; f < 7; f++)
    for (int k = 0; k < 3; k++) { // one core at a time, as a matrix
      ptrdiff_t rows = train_view_rows(w, k), cols = train_view_cols(w, k);
      tt_matrix view = tt_dense_view((const float *)w->cores[k].data, rows, cols), coded;
      tt_report report;
      view.cores[0] = w->cores[k];
      CHECK_STATUS(tt_quantize(&view, dtypes[f], groups[f], NULL, &coded, &report), TT_OK);
      error[f][k] = report.relative_error * report.relative_error;
      size[f][k] = tt_stored_size(&coded);
      tt_free(&coded);
    }
  for (int a = 0; a < 7; a++)
    for (int b = 0; b < 7; b++)
      for (int c = 0; c < 7; c++)
        if (size[a][0] + size[b][1] + size[c][2] <= bytes)
          best = fmin(best, error[a][0] + error[b][1] + error[c][2]);
  return sqrt(best);
}

static void quantize_test_budget(void) {
  static const int rows[3] = {6, 5, 4}, cols[3] = {3, 5, 8}, ranks[4] = {1, 8, 9, 1};
  tt_shape shape = test_shape(3, rows, cols, ranks);
  tt_matrix train = test_train(&shape), coded, orthogonal;
  tt_options options = test_options();
  tt_report report;
  test_heap heap;
  CHECK_STATUS(tt_quantize(&train, TT_I8, TT_GROUP_ROW, NULL, &coded, NULL), TT_OK);
  size_t most = tt_stored_size(&coded);
  tt_free(&coded);
  CHECK_STATUS(tt_orthogonalize(&train, 2, NULL, &orthogonal), TT_OK);
  for (int percent = 50; percent <= 110; percent += 10) {
    size_t bytes = most * (size_t)percent / 100;
    CHECK_STATUS(tt_quantize_budget(&orthogonal, bytes, &options, &coded, &report), TT_OK);
    CHECK(tt_stored_size(&coded) <= bytes);
    CHECK_CLOSE(report.predicted_error, quantize_best_choice(&orthogonal, bytes - 4 * 120), 1e-6);
    CHECK_AT_MOST(report.relative_error, 1.15 * report.predicted_error);
    CHECK_AT_MOST(0.8 * report.predicted_error, report.relative_error);
    tt_free(&coded);
  }
  // the gauges, and the best of them
  options.dtype = TT_I4;
  options.clip = TT_CLIP_SQUARED_ERROR;
  double least = 1e9;
  for (int gauge = TT_GAUGE_KEEP; gauge <= TT_GAUGE_BEST; gauge++)
    for (int sweep = 0; sweep < 2; sweep++) {
      tt_matrix turned;
      CHECK_STATUS(tt_turn(&train, sweep, NULL, &turned), TT_OK);
      options.gauge = gauge;
      CHECK_STATUS(tt_quantize_budget(&turned, 0, &options, &coded, &report), TT_OK);
      CHECK(coded.sweep == sweep && coded.cores[1].dtype == TT_I4 && coded.cores[1].group == 32);
      double *dense = train_dense(&coded), *exact = train_dense(&turned);
      CHECK_CLOSE(report.relative_error, test_distance(train.rows * train.cols, dense, exact),
                  1e-6);
      if (sweep == 0 && gauge < TT_GAUGE_BEST) least = fmin(least, report.relative_error);
      if (sweep == 0 && gauge == TT_GAUGE_BEST) CHECK(report.relative_error == least);
      free(dense);
      free(exact);
      tt_free(&turned);
      tt_free(&coded);
    }
  // group: nothing in groups of 32
  options = test_options();
  options.group = TT_GROUP_ROW;
  CHECK_STATUS(tt_quantize_budget(&train, most * 2 / 3, &options, &coded, NULL), TT_OK);
  for (int k = 0; k < 3; k++) CHECK(coded.cores[k].group <= 0);
  tt_free(&coded);
  // errors
  options = test_options();
  CHECK_STATUS(tt_quantize_budget(&train, 0, &options, &coded, &report), TT_ERROR_INVALID);
  CHECK_STATUS(tt_quantize_budget(&train, 10, &options, &coded, &report), TT_ERROR_UNSUPPORTED);
  CHECK(train_is_zeroed(&coded));
  options.gauge = 4;
  CHECK_STATUS(tt_quantize_budget(&train, most, &options, &coded, &report), TT_ERROR_INVALID);
  CHECK_STATUS(tt_quantize_budget(NULL, most, NULL, &coded, &report), TT_ERROR_INVALID);
  long calls = 1;
  for (long n = 0; n <= calls; n++) {
    options = test_options();
    options.allocator = test_allocator(&heap);
    options.gauge = TT_GAUGE_BEST;
    heap.fail_at = n;
    CHECK_STATUS(tt_quantize_budget(&train, most * 2 / 3, &options, &coded, &report),
                 n ? TT_ERROR_MEMORY : TT_OK);
    if (n == 0) calls = heap.calls;
    CHECK(heap.live_blocks == (n ? 0 : 1));
    tt_free(&coded);
  }
  tt_free(&train);
  tt_free(&orthogonal);
}

static void test_quantize(void) {
  quantize_test_error_law();
  quantize_test_all();
  quantize_test_noise();
  quantize_test_idempotent();
  quantize_test_zero();
  quantize_test_range();
  quantize_test_errors();
  quantize_test_stored_size();
  quantize_test_per_channel();
  quantize_test_clipping();
  quantize_test_budget();
}
