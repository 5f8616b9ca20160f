// The forward pass against the dense product in double: every shape, sweep, format, batch size;
// counts, workspace, errors.

enum { APPLY_CANARY = 64, APPLY_WORK = 300000 }; // floats: a small train with packing space

// y = x W^T + bias in double, from the dense matrix.
static double *apply_dense(const tt_matrix *w, const double *dense, const float *x,
                           ptrdiff_t batch) {
  double *y = test_doubles(batch * w->rows);
  for (ptrdiff_t b = 0; b < batch; b++) {
    for (ptrdiff_t i = 0; i < w->rows; i++) {
      double sum = w->bias ? (double)w->bias[i] : 0;
      for (ptrdiff_t j = 0; j < w->cols; j++)
        sum += dense[i * w->cols + j] * (double)x[b * w->cols + j];
      y[b * w->rows + i] = sum;
    }
  }
  return y;
}

static int apply_canary_alive(const unsigned char *bytes) {
  for (int i = 0; i < APPLY_CANARY; i++)
    if (bytes[i] != 0xC7) return 0;
  return 1;
}

// Runs tt_apply in a workspace of exactly the right size at address `offset` modulo 64, between
// canaries, with an allocator that always fails, and compares with the dense product. Returns the
// relative error of y.
static double apply_check(const tt_matrix *train, const double *dense, ptrdiff_t batch, int offset,
                          double tolerance) {
  tt_matrix w = *train;
  test_heap heap;
  ptrdiff_t count = batch * w.rows;
  size_t size = tt_apply_work_size(&w, batch);
  float *x = test_normal_floats(batch * w.cols), *y = test_floats(count + 2);
  unsigned char *memory = (unsigned char *)test_new((ptrdiff_t)size + 2 * APPLY_CANARY + 128, 1);
  unsigned char *work = tt__align(memory) + APPLY_CANARY + offset;
  CHECK(size >= 1);
  w.allocator = test_allocator(&heap);
  heap.fail_at = 1;
  memset(work - APPLY_CANARY, 0xC7, APPLY_CANARY);
  memset(work, 0xFF, size); // NaN everywhere: nothing may be read before it is written
  memset(work + size, 0xC7, APPLY_CANARY);
  memset(y, 0xFF, sizeof(float) * (size_t)(count + 1)); // y is overwritten, not added to
  y[0] = y[count + 1] = -7;
  CHECK_STATUS(tt_apply(&w, x, batch, y + 1, work, size), TT_OK);
  CHECK(apply_canary_alive(work - APPLY_CANARY) && apply_canary_alive(work + size));
  CHECK(y[0] == -7 && y[count + 1] == -7 && heap.calls == 0);
  double *expected = apply_dense(&w, dense, x, batch), *got = test_doubles(count), distance;
  for (ptrdiff_t i = 0; i < count; i++) got[i] = (double)y[i + 1];
  distance = test_distance(count, got, expected);
  CHECK_AT_MOST(distance, tolerance);
  if (size > 1 && batch > 0) { // one byte too little: refused, y untouched
    memcpy(got, y, sizeof(float));
    for (ptrdiff_t i = 0; i < count; i++) y[i + 1] = 42;
    CHECK_STATUS(tt_apply(&w, x, batch, y + 1, work, size - 1), TT_ERROR_INVALID);
    int touched = 0;
    for (ptrdiff_t i = 0; i < count; i++) touched |= y[i + 1] != 42;
    CHECK(!touched);
  }
  free(x);
  free(y);
  free(memory);
  free(expected);
  free(got);
  return distance;
}

static void apply_test_six_shapes(void) {
  static const int groups[4] = {0, TT_GROUP_ROW, 4, 32};
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 5);
    for (int d = 0; d < 10; d++) {
      for (int variant = 0; variant < 32; variant++) { // bias x sweeps x padding x groups
        int group = groups[variant >> 3];
        if (group && !train_is_integer(train_dtypes[d])) break;
        train_built a = train_build(&shape, variant >> 2 & 1, train_dtypes[d], group,
                                    variant >> 1 & 1, variant & 1);
        double *dense = train_dense(&a.w);
        for (ptrdiff_t batch = 0; batch <= 10; batch++) {
          if (variant >= 8 && batch % 4 != 1) continue;
          apply_check(&a.w, dense, batch == 10 ? 30 : batch, (int)(batch * 5 % 61), 3e-6);
        }
        free(dense);
        free(a.memory);
      }
    }
  }
}

static void apply_test_random_shapes(void) {
  for (int trial = 0; trial < 150; trial++) {
    tt_shape shape = shape_of_table(0);
    shape.order = 1 + test_below(5);
    for (int k = 0; k < shape.order; k++) {
      shape.rows[k] = 1 + test_below(5);
      shape.cols[k] = 1 + test_below(5);
      shape.ranks[k + 1] = k < shape.order - 1 ? 1 + test_below(9) : 1;
    }
    if (shape_rows(&shape) * shape_cols(&shape) > 100000) continue;
    train_built a = train_build(&shape, test_below(2), train_dtypes[test_below(10)],
                                1 + test_below(9), test_below(2), test_below(2));
    double *dense = train_dense(&a.w);
    apply_check(&a.w, dense, 1 + test_below(20), test_below(64), 5e-6);
    free(dense);
    free(a.memory);
  }
}

// Shapes that the test suites of other libraries use.
static void apply_check_peer(int order, const int *rows, const int *cols, const int *ranks,
                             ptrdiff_t batch) {
  tt_shape shape = test_shape(order, rows, cols, ranks);
  for (int sweep = 0; sweep < 2; sweep++) {
    train_built a = train_build(&shape, 0, TT_F32, 0, sweep, 0);
    double *dense = test_doubles(a.w.rows * a.w.cols);
    CHECK_STATUS(tt_expand_f64(&a.w, dense), TT_OK);
    apply_check(&a.w, dense, batch, 3, 5e-6);
    free(dense);
    free(a.memory);
  }
}

static void apply_test_peers(void) {
  static const int torchtt_rows[4] = {5, 7, 9, 4}, torchtt_cols[4] = {6, 8, 10, 5},
                   torchtt_ranks[5] = {1, 5, 5, 3, 1};
  static const int tntorch_rows[2] = {11, 3}, tntorch_cols[2] = {23, 2},
                   tntorch_ranks[3] = {1, 50, 1};
  static const int t3f_rows[4] = {2, 5, 2, 3}, t3f_cols[4] = {3, 3, 2, 3},
                   t3f_ranks[5] = {1, 90, 90, 90, 1};
  static const int mixed_rows[4] = {1, 2, 2, 1}, mixed_cols[4] = {3, 3, 2, 3},
                   mixed_ranks[5] = {1, 20, 30, 40, 1};
  static const int tltorch_rows[2] = {6, 2}, tltorch_cols[2] = {4, 5}, tltorch_ranks[3] = {1, 3, 1};
  static const int lowrank_rows[2] = {64, 1}, lowrank_cols[2] = {1, 32},
                   lowrank_ranks[3] = {1, 4, 1};
  apply_check_peer(4, torchtt_rows, torchtt_cols, torchtt_ranks, 1);
  apply_check_peer(4, torchtt_rows, torchtt_cols, torchtt_ranks, 22);
  apply_check_peer(2, tntorch_rows, tntorch_cols, tntorch_ranks, 30);
  apply_check_peer(4, t3f_rows, t3f_cols, t3f_ranks, 5);
  apply_check_peer(4, mixed_rows, mixed_cols, mixed_ranks, 10);
  apply_check_peer(2, tltorch_rows, tltorch_cols, tltorch_ranks, 2);
  apply_check_peer(2, lowrank_rows, lowrank_cols, lowrank_ranks, 7);
}

// A layer large enough for every block size inside.
static void apply_test_large(void) {
  static const int rows[2] = {37, 32}, cols[2] = {32, 41}, ranks[3] = {1, 16, 1},
                   one_rows[1] = {700}, one_cols[1] = {1300};
  tt_shape shapes[2];
  shapes[0] = test_shape(2, rows, cols, ranks);
  shapes[1] = test_shape(1, one_rows, one_cols, NULL);
  for (int t = 0; t < 2; t++) {
    for (int sweep = 0; sweep < 2; sweep++) {
      for (int d = 0; d < 10; d += 3) {
        train_built a = train_build(&shapes[t], 1, train_dtypes[d], 32, sweep, 1);
        double *dense = test_doubles(a.w.rows * a.w.cols);
        CHECK_STATUS(tt_expand_f64(&a.w, dense), TT_OK);
        apply_check(&a.w, dense, 3, 17, 5e-6);
        free(dense);
        free(a.memory);
      }
    }
  }
}

static void apply_test_simple(void) { // zero, identity, one NaN stays in its row of the batch
  int fours[2] = {4, 4};
  float x[48], y[48], *work;
  tt_shape shape = test_shape(2, fours, fours, NULL);
  tt_options options = test_options();
  tt_matrix w;
  shape.ranks[1] = 1;
  CHECK_STATUS(tt_create(&shape, 16, 16, &options, &w), TT_OK);
  size_t size = tt_apply_work_size(&w, 3);
  work = (float *)test_new((ptrdiff_t)size, 1);
  for (int i = 0; i < 48; i++) x[i] = (float)(i - 20);
  CHECK_STATUS(tt_apply(&w, x, 3, y, work, size), TT_OK);
  for (int i = 0; i < 48; i++) CHECK(y[i] == 0);
  for (int k = 0; k < 2; k++)
    for (int i = 0; i < 4; i++) ((float *)tt_core_data(&w, k))[i * 5] = 1;
  CHECK_STATUS(tt_apply(&w, x, 3, y, work, size), TT_OK);
  for (int i = 0; i < 48; i++) CHECK(y[i] == x[i]);
  x[20] = NAN;
  CHECK_STATUS(tt_apply(&w, x, 3, y, work, size), TT_OK);
  for (int i = 0; i < 48; i++) CHECK(i / 16 == 1 || y[i] == x[i]);
  CHECK(isnan(y[20]));
  free(work);
  tt_free(&w);
}

// ---- multiply-adds and sizes

typedef struct apply_row {
  int order, rows[4], cols[4], ranks[5];
  ptrdiff_t macs[2], floats[2]; // right to left, left to right
} apply_row;

// Multiply-adds and the larger intermediate state, step by step from the shape.
static void apply_counts(const tt_shape *shape, int sweep, ptrdiff_t batch, ptrdiff_t *macs,
                         ptrdiff_t *floats) {
  *macs = *floats = 0;
  for (int t = 0; t < shape->order; t++) {
    ptrdiff_t before = batch, after = batch;
    int k = sweep == TT_LEFT_TO_RIGHT ? t : shape->order - 1 - t;
    for (int j = 0; j < k; j++)
      before *= sweep == TT_LEFT_TO_RIGHT ? shape->rows[j] : shape->cols[j];
    for (int j = k + 1; j < shape->order; j++)
      before *= sweep == TT_LEFT_TO_RIGHT ? shape->cols[j] : shape->rows[j];
    after = before * shape->rows[k] * shape->ranks[sweep == TT_LEFT_TO_RIGHT ? k + 1 : k];
    *macs += before * shape_core(shape, k);
    if (t < shape->order - 1 && after > *floats) *floats = after;
  }
}

static void apply_check_counts(const apply_row *row) {
  tt_shape shape = test_shape(row->order, row->rows, row->cols, row->ranks);
  for (int sweep = 0; sweep < 2; sweep++) {
    for (ptrdiff_t batch = 1; batch <= 12; batch += 11) {
      tt_options options = test_options();
      ptrdiff_t macs, floats;
      tt_matrix w;
      CHECK_STATUS(tt_create(&shape, shape_rows(&shape), shape_cols(&shape), &options, &w), TT_OK);
      w.sweep = sweep; // zeros in any layout
      apply_counts(&shape, sweep, batch, &macs, &floats);
      CHECK(tt_apply_macs(&w, batch) == macs && macs == batch * row->macs[sweep]);
      CHECK(floats == batch * row->floats[sweep]);
      double buffers = 4 * 2 * (double)floats, size = (double)tt_apply_work_size(&w, batch);
      if (row->order > 2) CHECK_AT_MOST(buffers, size);
      if (row->order == 2) CHECK_AT_MOST(buffers / 2, size); // a single state lives at a time
      CHECK_AT_MOST(size, buffers + 2e6);                    // and packing of a bounded size
      tt_free(&w);
    }
  }
}

static void apply_test_counts(void) {
  static const apply_row table[16] = {
      {1, {64}, {48}, {1, 1}, {3072, 3072}, {0, 0}},
      {3, {4, 4, 4}, {4, 4, 4}, {1, 8, 8, 1}, {20480, 20480}, {512, 512}},
      {3, {4, 4, 8}, {8, 8, 10}, {1, 4, 4, 1}, {57344, 35840}, {2048, 1280}},
      {3, {4, 4, 8}, {8, 8, 10}, {1, 8, 8, 1}, {180224, 112640}, {4096, 2560}},
      {3, {8, 4, 4}, {10, 8, 8}, {1, 4, 4, 1}, {35840, 57344}, {1280, 2048}},
      {3, {4, 8, 8}, {7, 8, 14}, {1, 8, 8, 1}, {293888, 283136}, {3584, 3584}},
      {2, {32, 32}, {32, 32}, {1, 16, 1}, {1048576, 1048576}, {16384, 16384}},
      {4, {4, 8, 8, 4}, {4, 8, 8, 4}, {1, 16, 16, 16, 1}, {4325376, 4325376}, {16384, 16384}},
      {2, {64, 64}, {64, 64}, {1, 16, 1}, {8388608, 8388608}, {65536, 65536}},
      {3, {16, 16, 16}, {16, 16, 16}, {1, 16, 16, 1}, {18874368, 18874368}, {65536, 65536}},
      {3, {16, 16, 16}, {16, 16, 16}, {1, 32, 32, 1}, {71303168, 71303168}, {131072, 131072}},
      {3, {43, 16, 16}, {16, 16, 16}, {1, 16, 16, 1}, {20643840, 50724864}, {65536, 176128}},
      {3, {16, 16, 43}, {16, 16, 16}, {1, 16, 16, 1}, {50724864, 20643840}, {176128, 65536}},
      {2, {64, 1}, {1, 64}, {1, 8, 1}, {1024, 65536}, {8, 32768}},
      {4, {4, 16, 1, 1}, {1, 1, 4, 16}, {1, 4, 8, 8, 1}, {1536, 402432}, {64, 32768}},
      {4, {1, 1, 4, 16}, {4, 16, 1, 1}, {1, 4, 8, 8, 1}, {402432, 1536}, {32768, 64}}};
  for (int t = 0; t < 16; t++) apply_check_counts(&table[t]);
  for (int index = 0; index < SHAPE_TABLE_SIZE;
       index++) { // F64, coded and padded trains: same counts, enough room
    tt_shape shape = train_shape(index, 4);
    for (int variant = 0; variant < 20; variant++) {
      ptrdiff_t macs, floats;
      train_built a = train_build(&shape, index & 1, train_dtypes[variant / 2], 4, variant & 1, 1);
      apply_counts(&shape, variant & 1, 5, &macs, &floats);
      CHECK(tt_apply_macs(&a.w, 5) == macs);
      CHECK(tt_apply_work_size(&a.w, 5) >= 4 * (size_t)floats);
      CHECK(tt_apply_work_size(&a.w, 6) >= tt_apply_work_size(&a.w, 5));
      free(a.memory);
    }
  }
}

// ---- errors

static void apply_check_invalid(const tt_matrix *w) {
  float x[64] = {0}, y[64], work[APPLY_WORK];
  for (int i = 0; i < 64; i++) y[i] = 42;
  CHECK(tt_apply_work_size(w, 1) == 0);
  CHECK(tt_apply_macs(w, 1) == -1);
  CHECK_STATUS(tt_apply(w, x, 1, y, work, sizeof work), TT_ERROR_INVALID);
  int touched = 0;
  for (int i = 0; i < 64; i++) touched |= y[i] != 42;
  CHECK(!touched);
}

static void apply_test_invalid_trains(void) {
  tt_shape shape = train_shape(5, 3);
  train_built a = train_build(&shape, 0, TT_I8, TT_GROUP_ROW, 0, 0);
  tt_matrix bad;
  float x[36] = {0}, y[36], work[APPLY_WORK];
  CHECK_STATUS(tt_apply(&a.w, x, 1, y, work, sizeof work), TT_OK);
  apply_check_invalid(NULL);
  memset(&bad, 0, sizeof bad);
  apply_check_invalid(&bad);
  for (int k = 0; k < 4; k++) {
    bad = a.w;
    bad.cores[k].data = NULL;
    apply_check_invalid(&bad);
    bad = a.w;
    bad.cores[k].scales = NULL;
    apply_check_invalid(&bad);
    bad = a.w;
    bad.cores[k].dtype = (tt_dtype)(k + 10);
    apply_check_invalid(&bad);
    bad = a.w;
    bad.cores[k].dtype = (tt_dtype)-1;
    apply_check_invalid(&bad);
    bad = a.w;
    bad.cores[k].group = -2;
    apply_check_invalid(&bad);
    bad = a.w;
    bad.shape.ranks[k] = k ? 0 : 2;
    apply_check_invalid(&bad);
    bad = a.w;
    bad.shape.ranks[k] = -1;
    apply_check_invalid(&bad);
    bad = a.w;
    bad.shape.rows[k] = 0;
    apply_check_invalid(&bad);
    bad = a.w;
    bad.shape.cols[k] = -4;
    apply_check_invalid(&bad);
  }
  bad = a.w;
  bad.shape.ranks[4] = 2;
  apply_check_invalid(&bad);
  bad = a.w;
  bad.shape.order = 0;
  apply_check_invalid(&bad);
  bad = a.w;
  bad.shape.order = TT_MAX_ORDER + 1;
  apply_check_invalid(&bad);
  bad = a.w;
  bad.shape.order = -3;
  apply_check_invalid(&bad);
  bad = a.w;
  bad.sweep = 2;
  apply_check_invalid(&bad);
  bad = a.w;
  bad.sweep = -1;
  apply_check_invalid(&bad);
  bad = a.w;
  bad.rows = 37;
  apply_check_invalid(&bad); // more than the factors give
  bad = a.w;
  bad.cols = 37;
  apply_check_invalid(&bad);
  bad = a.w;
  bad.rows = 0;
  apply_check_invalid(&bad);
  bad = a.w;
  bad.cols = -1;
  apply_check_invalid(&bad);
  bad = a.w;
  for (int k = 0; k < 4; k++) bad.shape.rows[k] = INT_MAX; // products overflow
  apply_check_invalid(&bad);
  free(a.memory);
}

static void apply_test_arguments(void) {
  tt_shape shape = train_shape(4, 3);
  train_built a = train_build(&shape, 0, TT_F32, 0, 0, 1);
  float x[28] = {0}, y[30], work[APPLY_WORK];
  for (int i = 0; i < 30; i++) y[i] = 42;
  CHECK_STATUS(tt_apply(&a.w, NULL, 1, y, work, sizeof work), TT_ERROR_INVALID);
  CHECK_STATUS(tt_apply(&a.w, x, 1, NULL, work, sizeof work), TT_ERROR_INVALID);
  CHECK_STATUS(tt_apply(&a.w, x, 1, y, NULL, sizeof work), TT_ERROR_INVALID);
  CHECK_STATUS(tt_apply(&a.w, x, -1, y, work, sizeof work), TT_ERROR_INVALID);
  CHECK_STATUS(tt_apply(&a.w, x, 1, y, work, 0), TT_ERROR_INVALID);
  CHECK_STATUS(tt_apply(&a.w, x, PTRDIFF_MAX / 8, y, work, sizeof work), TT_ERROR_INVALID);
  CHECK_STATUS(tt_apply(&a.w, x, PTRDIFF_MAX, y, work, sizeof work), TT_ERROR_INVALID);
  for (int i = 0; i < 30; i++) CHECK(y[i] == 42);
  CHECK_STATUS(tt_apply(&a.w, NULL, 0, NULL, NULL, 0), TT_OK);
  CHECK_STATUS(tt_apply(&a.w, x, 0, y, work, sizeof work), TT_OK);
  CHECK(y[0] == 42);
  CHECK(tt_apply_work_size(&a.w, 0) >= 1 && tt_apply_work_size(&a.w, -1) == 0);
  CHECK(tt_apply_work_size(&a.w, PTRDIFF_MAX) == 0 && tt_apply_macs(&a.w, PTRDIFF_MAX) == -1);
  CHECK(tt_apply_macs(&a.w, 0) == 0);
  free(a.memory);
}

// A layer in read-only memory: 2 x 3, low rank, 8-bit cores and a float core, and one swept left to
// right.
static const signed char apply_codes[2] = {4, -2};
static const float apply_scales[2] = {0.5f, 2.0f}, apply_values[3] = {1, 2, 3},
                   apply_bias[2] = {10, 20};
static const tt_matrix apply_in_flash = {
    {2, {2, 1}, {1, 3}, {1, 1, 1}},
    TT_RIGHT_TO_LEFT,
    2,
    3,
    {{TT_I8, TT_GROUP_ROW, 0.25f, apply_codes, apply_scales, NULL},
     {TT_F32, 0, 0, apply_values, NULL, NULL}},
    apply_bias,
    NULL,
    {NULL, NULL, NULL}};
static const tt_matrix apply_in_flash_turned = {
    {2, {2, 1}, {1, 3}, {1, 1, 1}},
    TT_LEFT_TO_RIGHT,
    2,
    3,
    {{TT_I8, TT_GROUP_ROW, 0.25f, apply_codes, apply_scales, NULL},
     {TT_F32, 0, 1, apply_values, NULL, NULL}},
    NULL,
    NULL,
    {NULL, NULL, NULL}};

static void apply_test_in_flash(void) {
  static const float x[3] = {1, 1, 2}; // (1,2,3).x = 9; rows 0.5 and -1
  float y[2], work[APPLY_WORK];
  CHECK(tt_apply_work_size(&apply_in_flash, 1) <= sizeof work);
  CHECK_STATUS(tt_apply(&apply_in_flash, x, 1, y, work, sizeof work), TT_OK);
  CHECK(y[0] == 14.5f && y[1] == 11);
  CHECK_STATUS(tt_apply(&apply_in_flash_turned, x, 1, y, work, sizeof work), TT_OK);
  CHECK(y[0] == 4.5f && y[1] == -9);
  CHECK(tt_stored_size(&apply_in_flash) == 2 + 8 + 4 + 12 + 8);
}

// The same train, whole, prepared, quantised and merged: one function of x.
static void apply_test_equivalent(void) {
  for (int index = 0; index < SHAPE_TABLE_SIZE; index++) {
    tt_shape shape = train_shape(index, 4);
    train_built a = train_build(&shape, 1, TT_F32, 0, index & 1, 1);
    double *dense = train_dense(&a.w);
    for (ptrdiff_t batch = 1; batch < 40; batch += 12) {
      tt_matrix c;
      CHECK_STATUS(tt_prepare(&a.w, batch, NULL, &c), TT_OK);
      apply_check(&c, dense, batch, 9, 5e-6);
      CHECK(tt_apply_macs(&c, 1) > 0);
      tt_free(&c);
      CHECK_STATUS(tt_merge(&a.w, 0, shape.order, NULL, &c), TT_OK);
      apply_check(&c, dense, batch, 0, 5e-6);
      tt_free(&c);
    }
    free(dense);
    free(a.memory);
  }
}

static void test_apply(void) {
  apply_test_six_shapes();
  apply_test_random_shapes();
  apply_test_peers();
  apply_test_large();
  apply_test_simple();
  apply_test_counts();
  apply_test_invalid_trains();
  apply_test_arguments();
  apply_test_in_flash();
  apply_test_equivalent();
}
