// Shapes: checking, factoring, useful ranks, counts. Also the table of shapes that every later test
// runs on.

// The six things that one train can be, as small examples: dense, low rank, tensor train of a
// tensor, plain tensor train of a reshaped matrix, two-site and many-site TT-matrix.
enum { SHAPE_TABLE_SIZE = 6 };
static tt_shape shape_of_table(int index) {
  static const int order[SHAPE_TABLE_SIZE] = {1, 2, 3, 4, 2, 4};
  static const int rows[SHAPE_TABLE_SIZE][4] = {{12},         {11, 1}, {4, 5, 6},
                                                {1, 1, 3, 7}, {6, 5},  {2, 3, 2, 3}};
  static const int cols[SHAPE_TABLE_SIZE][4] = {{10},         {1, 13}, {1, 1, 1},
                                                {3, 5, 1, 1}, {4, 7},  {3, 2, 2, 3}};
  return test_shape(order[index], rows[index], cols[index], NULL);
}

static ptrdiff_t shape_rows(const tt_shape *shape) {
  ptrdiff_t rows = 1;
  for (int k = 0; k < shape->order; k++) rows *= shape->rows[k];
  return rows;
}

static ptrdiff_t shape_cols(const tt_shape *shape) {
  ptrdiff_t cols = 1;
  for (int k = 0; k < shape->order; k++) cols *= shape->cols[k];
  return cols;
}

// The true size of the padded variant of a shape: two rows and one column less, where there are as
// many.
static void shape_true_size(const tt_shape *shape, int padded, ptrdiff_t *rows, ptrdiff_t *cols) {
  *rows = shape_rows(shape);
  *cols = shape_cols(shape);
  if (padded && *rows > 2) *rows -= 2;
  if (padded && *cols > 1) *cols -= 1;
}

// Numbers in core k.
static ptrdiff_t shape_core(const tt_shape *shape, int k) {
  return (ptrdiff_t)shape->ranks[k] * shape->rows[k] * shape->cols[k] * shape->ranks[k + 1];
}

// What the legs on one side of bond k (between core k and k+1) can carry, capped to avoid overflow.
static double shape_legs(const tt_shape *shape, int first, int end) {
  double legs = 1;
  for (int k = first; k < end; k++) legs *= (double)shape->rows[k] * shape->cols[k];
  return legs;
}

static void shape_test_check(void) {
  tt_shape good = shape_of_table(5), bad;
  CHECK_STATUS(tt_shape_check(&good, 36, 36), TT_OK);
  CHECK_STATUS(tt_shape_check(&good, 35, 31), TT_OK);
  CHECK_STATUS(tt_shape_check(&good, 37, 36), TT_ERROR_SHAPE);
  CHECK_STATUS(tt_shape_check(&good, 36, 37), TT_ERROR_SHAPE);
  CHECK_STATUS(tt_shape_check(NULL, 36, 36), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_check(&good, -1, 36), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_check(&good, 36, -1), TT_ERROR_INVALID);
  bad = good;
  bad.order = 0;
  CHECK_STATUS(tt_shape_check(&bad, 1, 1), TT_ERROR_INVALID);
  bad.order = TT_MAX_ORDER + 1;
  CHECK_STATUS(tt_shape_check(&bad, 1, 1), TT_ERROR_INVALID);
  bad = good;
  bad.rows[1] = 0;
  CHECK_STATUS(tt_shape_check(&bad, 1, 1), TT_ERROR_INVALID);
  bad = good;
  bad.cols[3] = -3;
  CHECK_STATUS(tt_shape_check(&bad, 1, 1), TT_ERROR_INVALID);
  bad = good;
  bad.ranks[2] = -1;
  CHECK_STATUS(tt_shape_check(&bad, 36, 36), TT_ERROR_INVALID);
  bad = good;
  bad.ranks[0] = 2;
  CHECK_STATUS(tt_shape_check(&bad, 36, 36), TT_ERROR_SHAPE);
  bad = good;
  bad.ranks[4] = 2;
  CHECK_STATUS(tt_shape_check(&bad, 36, 36), TT_ERROR_SHAPE);
  bad = good;
  bad.ranks[1] = 1000; // above the useful rank is allowed in a request
  CHECK_STATUS(tt_shape_check(&bad, 36, 36), TT_OK);
  bad = good;
  bad.order = TT_MAX_ORDER;
  for (int k = 0; k < TT_MAX_ORDER; k++) {
    bad.rows[k] = INT_MAX;
    bad.cols[k] = 1;
    bad.ranks[k + 1] = 1;
  }
  CHECK_STATUS(tt_shape_check(&bad, 36, 1), TT_ERROR_MEMORY);
  for (int k = 0; k < TT_MAX_ORDER; k++) {
    bad.rows[k] = 2;
    bad.cols[k] = 1;
  }
  CHECK_STATUS(tt_shape_check(&bad, 65536, 1), TT_OK);
}

// Factors must cover the size, waste little, and be ordered for the right-to-left sweep.
static void shape_check_factors(ptrdiff_t rows, ptrdiff_t cols, int order) {
  tt_shape shape;
  CHECK_STATUS(tt_shape_factor(rows, cols, order, &shape), TT_OK);
  CHECK(shape.order == order);
  double product = 1; // may not fit where ptrdiff_t has 32 bits
  for (int k = 0; k < order; k++) product *= (double)shape.rows[k] * shape.cols[k];
  tt_status wanted = product > (double)PTRDIFF_MAX ? TT_ERROR_MEMORY : TT_OK;
  CHECK_STATUS(tt_shape_check(&shape, rows, cols), wanted);
  CHECK(shape.ranks[0] == 1 && shape.ranks[order] == 1);
  for (int k = 1; k < order; k++) {
    CHECK(shape.rows[k] <= shape.rows[k - 1] && shape.cols[k] >= shape.cols[k - 1]);
    CHECK(shape.ranks[k] == 0);
  }
  if (rows >= 1000 && order <= 4) CHECK_AT_MOST((double)shape_rows(&shape), 1.06 * (double)rows);
  if (cols >= 1000 && order <= 4) CHECK_AT_MOST((double)shape_cols(&shape), 1.06 * (double)cols);
  if (rows >= 1000 && order > 1) { // balanced: no factor far above the geometric mean
    CHECK_AT_MOST((double)shape.rows[0], 4 * pow((double)rows, 1.0 / order));
  }
  if (order == 1) CHECK(shape.rows[0] == rows && shape.cols[0] == cols);
}

static void shape_test_factor(void) {
  tt_shape shape;
  for (int order = 1; order <= 5; order++) {
    for (int n = 1; n <= 60; n++) shape_check_factors(n, 61 - n, order);
    shape_check_factors(768, 3072, order);
    shape_check_factors(4096, 11008, order);
    shape_check_factors(50257, 1021, order);  // the second is a prime
    shape_check_factors(1009, 104729, order); // two primes
  }
  shape_check_factors(65536, 65536, 16);
  shape_check_factors(1, 1, 16);
  CHECK_STATUS(tt_shape_factor(4096, 4096, 4, &shape), TT_OK);
  for (int k = 0; k < 4; k++) CHECK(shape.rows[k] == 8 && shape.cols[k] == 8);
  CHECK_STATUS(tt_shape_factor(4096, 4096, 2, &shape), TT_OK);
  CHECK(shape.rows[0] == 64 && shape.rows[1] == 64 && shape.cols[0] == 64 && shape.cols[1] == 64);
  CHECK_STATUS(tt_shape_factor(0, 4, 2, &shape), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_factor(4, -4, 2, &shape), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_factor(4, 4, 0, &shape), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_factor(4, 4, TT_MAX_ORDER + 1, &shape), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_factor(4, 4, 2, NULL), TT_ERROR_INVALID);
}

// The largest ranks that satisfy all constraints, by going round until nothing changes.
static void shape_clip_slowly(tt_shape *shape, int max_rank) {
  int changed = 1, d = shape->order;
  double rank[TT_MAX_ORDER + 1];
  for (int k = 0; k <= d; k++) rank[k] = shape->ranks[k] ? shape->ranks[k] : 1e300;
  for (int k = 1; k < d; k++)
    if (max_rank && rank[k] > max_rank) rank[k] = max_rank;
  while (changed) {
    changed = 0;
    for (int k = 1; k < d; k++) {
      double left = rank[k - 1] * shape->rows[k - 1] * shape->cols[k - 1];
      double right = rank[k + 1] * shape->rows[k] * shape->cols[k],
             least = left < right ? left : right;
      if (rank[k] > least) {
        rank[k] = least;
        changed = 1;
      }
    }
  }
  for (int k = 1; k < d; k++) shape->ranks[k] = (int)rank[k];
}

static void shape_test_clip(void) {
  int rows[4] = {2, 4, 3, 3}, ones[5] = {1, 1, 1, 1, 1}, ranks[5] = {1, 5, 2, 17, 1},
      useful[5] = {1, 2, 2, 3, 1};
  int rows2[5] = {2, 1, 4, 3, 3}, ranks2[6] = {1, 15, 15, 15, 15, 1},
      useful2[6] = {1, 2, 2, 8, 3, 1};
  tt_shape shape = test_shape(4, rows, ones, ranks), expected;
  CHECK_STATUS(tt_shape_clip(&shape, 0), TT_OK);
  for (int k = 0; k <= 4; k++) CHECK(shape.ranks[k] == useful[k]);
  shape = test_shape(5, rows2, ones, ranks2);
  CHECK_STATUS(tt_shape_clip(&shape, 9), TT_OK);
  for (int k = 0; k <= 5; k++) CHECK(shape.ranks[k] == useful2[k]);
  for (int trial = 0; trial < 300; trial++) {
    shape = test_shape(5, rows2, ones, NULL);
    shape.order = 1 + test_below(5);
    shape.ranks[shape.order] = 1;
    for (int k = 0; k < shape.order; k++) {
      shape.rows[k] = 1 + test_below(4);
      shape.cols[k] = 1 + test_below(3);
    }
    for (int k = 1; k < shape.order; k++) shape.ranks[k] = test_below(30);
    int cap = test_below(3) ? 1 + test_below(20) : 0;
    expected = shape;
    shape_clip_slowly(&expected, cap);
    CHECK_STATUS(tt_shape_clip(&shape, cap), TT_OK);
    CHECK(!memcmp(shape.ranks, expected.ranks, sizeof(int) * (size_t)(shape.order + 1)));
    for (int k = 1; k < shape.order; k++) {
      CHECK(shape.ranks[k] >= 1 && shape.ranks[k] <= shape_legs(&shape, 0, k));
      CHECK(shape.ranks[k] <= shape_legs(&shape, k, shape.order));
    }
  }
  CHECK_STATUS(tt_shape_clip(NULL, 0), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_clip(&shape, -1), TT_ERROR_INVALID);
  shape.order = 0;
  CHECK_STATUS(tt_shape_clip(&shape, 0), TT_ERROR_INVALID);
}

static void shape_test_clip_of_big_legs(
    void) { // the useful ranks of 16 legs of 2^30 do not fit; a cap makes them fit
  tt_shape shape = shape_of_table(0);
  shape.order = TT_MAX_ORDER;
  for (int k = 0; k < TT_MAX_ORDER; k++) {
    shape.rows[k] = 1 << 30;
    shape.cols[k] = 1;
    shape.ranks[k + 1] = 0;
  }
  shape.ranks[TT_MAX_ORDER] = 1;
  tt_status status = tt_shape_clip(&shape, 7);
  CHECK(status == TT_OK || status == TT_ERROR_MEMORY); // the product of the legs does not fit
  for (int k = 1; status == TT_OK && k < TT_MAX_ORDER; k++) CHECK(shape.ranks[k] == 7);
}

static void shape_test_params(void) {
  tt_shape shape = shape_of_table(3);
  CHECK(tt_shape_params(&shape) == 3 + 5 + 3 + 7); // ranks 0 count as 1
  int rows[4] = {1, 1, 4, 16}, cols[4] = {4, 16, 1, 1}, ranks[5] = {1, 4, 8, 8, 1};
  shape = test_shape(4, rows, cols, ranks);
  CHECK(tt_shape_params(&shape) == 912);
  int eights[4] = {8, 8, 8, 8}, of_16[5] = {1, 16, 16, 16, 1};
  shape = test_shape(4, eights, eights, of_16);
  CHECK(tt_shape_params(&shape) == 2 * 64 * 16 + 2 * 16 * 64 * 16);
  CHECK(tt_shape_params(NULL) == -1);
  shape.order = 0;
  CHECK(tt_shape_params(&shape) == -1);
  shape.order = 4;
  shape.rows[2] = -8;
  CHECK(tt_shape_params(&shape) == -1);
  for (int k = 0; k < 4; k++) { shape.rows[k] = shape.cols[k] = INT_MAX; }
  shape.ranks[1] = shape.ranks[2] = shape.ranks[3] = INT_MAX;
  CHECK(tt_shape_params(&shape) == -1);
}

static void test_shape_section(void) {
  shape_test_check();
  shape_test_factor();
  shape_test_clip();
  shape_test_clip_of_big_legs();
  shape_test_params();
}
