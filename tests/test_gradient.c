// Rows of trains, gradients against central differences, optimisers against scalar references, the
// balanced gauge, straight-through values.

enum { GRADIENT_CANARY = 64, GRADIENT_SHAPES = 12 };

// The table of shapes, and beyond it: sixteen cores, prime factors, one core of one number, two
// cores with a large rank, the workshop's train and its mirror.
static tt_shape gradient_shape(int index) {
  static const int ones[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  static const int twos[16] = {2, 1, 2, 1, 2, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1},
                   odds[16] = {1, 2, 1, 2, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2};
  static const int prime_rows[3] = {7, 5, 3}, prime_cols[3] = {3, 11, 5};
  static const int big_rows[2] = {13, 17}, big_cols[2] = {17, 7};
  static const int left_rows[4] = {4, 16, 1, 1}, right_rows[4] = {1, 1, 4, 16};
  if (index < SHAPE_TABLE_SIZE) return train_shape(index, 4);
  tt_shape shape = test_shape(1, ones, ones, NULL);
  if (index == 7) shape = test_shape(16, twos, odds, NULL);
  if (index == 8) shape = test_shape(3, prime_rows, prime_cols, NULL);
  if (index == 9) shape = test_shape(2, big_rows, big_cols, NULL);
  if (index == 10) shape = test_shape(4, left_rows, right_rows, NULL);
  if (index == 11) shape = test_shape(4, right_rows, left_rows, NULL);
  CHECK_STATUS(tt_shape_clip(&shape, index == 9 ? 20 : 3), TT_OK);
  return shape;
}

static int gradient_canary_alive(const unsigned char *bytes) {
  for (int i = 0; i < GRADIENT_CANARY; i++)
    if (bytes[i] != 0xC7) return 0;
  return 1;
}

// Workspace of exactly `size` bytes, full of NaN, at an odd address between canaries.
typedef struct gradient_work { unsigned char *memory, *at; size_t size; } gradient_work;
static gradient_work gradient_work_of(size_t size) {
  gradient_work work;
  work.memory = (unsigned char *)test_new((ptrdiff_t)size + 2 * GRADIENT_CANARY + 128, 1);
  work.at = tt__align(work.memory) + GRADIENT_CANARY + test_below(63);
  work.size = size;
  memset(work.at - GRADIENT_CANARY, 0xC7, GRADIENT_CANARY);
  memset(work.at, 0xFF, size);
  memset(work.at + size, 0xC7, GRADIENT_CANARY);
  CHECK(size >= 1);
  return work;
}
static void gradient_work_done(gradient_work *work) {
  CHECK(gradient_canary_alive(work->at - GRADIENT_CANARY));
  CHECK(gradient_canary_alive(work->at + work->size));
  free(work->memory);
}

// ---- rows

// Every row of W and some of them twice, in any order, against the dense matrix.
static void gradient_check_rows(const tt_matrix *train, const double *dense, double tolerance) {
  tt_matrix w = *train;
  test_heap heap;
  ptrdiff_t count = w.rows + 5, n = w.cols;
  int *index = (int *)test_new(count, sizeof(int));
  float *out = test_floats(count * n + 2);
  double *got = test_doubles(count * n), *expected = test_doubles(count * n);
  gradient_work work = gradient_work_of(tt_rows_work_size(&w));
  w.allocator = test_allocator(&heap);
  heap.fail_at = 1;
  memset(out, 0xFF, (size_t)(count * n + 1) * sizeof(float));
  out[0] = out[count * n + 1] = -7;
  for (ptrdiff_t c = 0; c < count; c++)
    index[c] = c < w.rows ? (int)(w.rows - 1 - c) : test_below((int)w.rows);
  CHECK_STATUS(tt_rows(&w, index, count, out + 1, work.at, work.size), TT_OK);
  CHECK(out[0] == -7 && out[count * n + 1] == -7 && heap.calls == 0);
  for (ptrdiff_t i = 0; i < count * n; i++) {
    got[i] = (double)out[i + 1];
    expected[i] = dense[index[i / n] * n + i % n];
  }
  CHECK_AT_MOST(test_distance(count * n, got, expected), tolerance);
  for (int t = 0; t < 4; t++) { // refused, and out as it was
    index[count - 1] = t == 0 ? -1 : t == 1 ? (int)w.rows : t == 2 ? INT_MAX : 0;
    memset(out, 0, (size_t)(count * n + 2) * sizeof(float));
    CHECK_STATUS(tt_rows(&w, index, count, out + 1, work.at, work.size - (t == 3)),
                 TT_ERROR_INVALID);
    int touched = 0;
    for (ptrdiff_t i = 0; i < count * n; i++) touched |= out[i + 1] != 0;
    CHECK(!touched);
  }
  gradient_work_done(&work);
  free(index);
  free(out);
  free(got);
  free(expected);
}

static void gradient_test_rows(void) {
  static const int groups[3] = {0, TT_GROUP_ROW, 4};
  for (int s = 0; s < GRADIENT_SHAPES; s++) {
    tt_shape shape = gradient_shape(s);
    for (int d = 0; d < 10; d++) {
      for (int variant = 0; variant < 12; variant++) { // sweeps x padding x groups
        int group = groups[variant >> 2];
        if (group && !train_is_integer(train_dtypes[d])) break;
        train_built a = train_build(&shape, variant >> 1 & 1, train_dtypes[d], group, variant & 1,
                                    variant & 1);
        double *dense = train_dense(&a.w);
        gradient_check_rows(&a.w, dense, 3e-6);
        free(dense);
        free(a.memory);
      }
    }
  }
}

// A slice larger than a slab of decoded rows.
static void gradient_test_large_rows(void) {
  static const int rows[2] = {40, 1}, cols[2] = {1, 700}, ranks[3] = {1, 40, 1};
  tt_shape shape = test_shape(2, rows, cols, ranks);
  for (int variant = 0; variant < 6; variant++) {
    train_built a = train_build(&shape, 1, variant / 2 == 0 ? TT_F32 : variant / 2 == 1 ? TT_I4
                                                                                       : TT_F16,
                                32, variant & 1, 0);
    double *dense = test_doubles(a.w.rows * a.w.cols);
    CHECK_STATUS(tt_expand_f64(&a.w, dense), TT_OK);
    gradient_check_rows(&a.w, dense, 5e-6);
    free(dense);
    free(a.memory);
  }
}

static void gradient_test_rows_arguments(void) {
  tt_shape shape = train_shape(5, 3);
  train_built a = train_build(&shape, 0, TT_F32, 0, 0, 1);
  size_t size = tt_rows_work_size(&a.w);
  int index[2] = {1, 2};
  float out[72];
  void *work = test_new((ptrdiff_t)size, 1);
  CHECK(tt_rows_work_size(NULL) == 0);
  CHECK_STATUS(tt_rows(&a.w, NULL, 1, out, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(&a.w, index, 1, NULL, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(&a.w, index, 1, out, NULL, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(&a.w, index, 1, out, work, 0), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(&a.w, index, -1, out, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(NULL, index, 1, out, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(&a.w, NULL, 0, NULL, NULL, 0), TT_OK);
  tt_matrix bad = a.w;
  bad.cores[1].data = NULL;
  CHECK_STATUS(tt_rows(&bad, index, 1, out, work, size), TT_ERROR_INVALID);
  CHECK_STATUS(tt_rows(&bad, NULL, 0, NULL, NULL, 0), TT_ERROR_INVALID);
  bad = a.w;
  bad.shape.rows[0] = bad.shape.rows[1] = INT_MAX;
  bad.shape.cols[2] = bad.shape.cols[3] = INT_MAX;
  CHECK(tt_rows_work_size(&bad) == 0);
  free(work);
  free(a.memory);
}

static void test_gradient(void) {
  gradient_test_rows();
  gradient_test_large_rows();
  gradient_test_rows_arguments();
}
