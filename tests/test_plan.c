// Planning: the search for factors, the profile of a layer, budgets, selection with an end-to-end
// score, and the decisions on both sides of every threshold.

// ---- the search for factors

// Published costs of single shapes: 11008 x 4096 and its transpose at rank 64.
static void plan_test_macs(void) {
  static const struct { int rows[4], cols[4], order, rank; double macs; } known[] = {
      {{43, 16, 16}, {16, 16, 16}, 3, 64, 284e6}, {{16, 16, 43}, {16, 16, 16}, 3, 64, 744e6},
      {{16, 16, 16}, {16, 16, 43}, 3, 64, 284e6}, {{16, 16, 16}, {43, 16, 16}, 3, 64, 744e6},
      {{32, 4, 32}, {32, 4, 32}, 3, 64, 84e6},    {{16, 16, 16}, {16, 16, 16}, 3, 64, 277e6},
      {{8, 8, 8, 8}, {8, 8, 8, 8}, 4, 16, 17.85e6}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    tt_shape shape = test_shape(known[i].order, known[i].rows, known[i].cols, NULL);
    CHECK_STATUS(tt_shape_clip(&shape, known[i].rank), TT_OK);
    CHECK_CLOSE((double)tt_shape_macs(&shape) / known[i].macs, 1, 0.005);
  }
  int rows[4] = {4, 16, 1, 1}, cols[4] = {1, 1, 4, 16}, ranks[5] = {1, 4, 8, 8, 1};
  tt_shape shape = test_shape(4, rows, cols, ranks), turned = test_shape(4, cols, rows, ranks);
  CHECK(tt_shape_macs(&shape) == 3072 / 2 && tt_shape_macs(&turned) == 804864 / 2);
  int ends[3] = {32, 4, 32};
  shape = test_shape(3, ends, ends, NULL);
  tt_shape_clip(&shape, 64);
  CHECK_CLOSE(100.0 * (double)tt_shape_params(&shape) / 4096 / 4096, 1.17, 0.005);
  CHECK(tt_shape_macs(NULL) == -1);
  shape.rows[0] = shape.rows[1] = shape.rows[2] = shape.cols[0] = INT_MAX;
  CHECK(tt_shape_macs(&shape) == -1);
  shape.order = 0;
  CHECK(tt_shape_macs(&shape) == -1);
}

// What the forward pass counts is what the shape says, for every shape of the table.
static void plan_test_macs_of_trains(void) {
  for (int i = 0; i < SHAPE_TABLE_SIZE; i++) {
    tt_shape shape = shape_of_table(i);
    tt_shape_clip(&shape, 3);
    tt_matrix w = test_train(&shape);
    CHECK(tt_shape_macs(&shape) == tt_apply_macs(&w, 1));
    tt_free(&w);
  }
}

// Every result covers the size, is cheap in its own order of cores, and is not dominated.
static void plan_check_search(ptrdiff_t rows, ptrdiff_t cols, int order, int rank) {
  tt_shape found[64];
  int count = 64;
  CHECK_STATUS(tt_shape_search(rows, cols, order, rank, NULL, found, &count), TT_OK);
  for (int i = 0; i < count; i++) {
    tt_shape turned = found[i];
    CHECK_STATUS(tt_shape_check(&found[i], rows, cols), TT_OK);
    CHECK(shape_rows(&found[i]) <= rows + rows / 16 && shape_cols(&found[i]) <= cols + cols / 16);
    for (int k = 0; k < order; k++) {
      turned.rows[k] = found[i].rows[order - 1 - k];
      turned.cols[k] = found[i].cols[order - 1 - k];
      CHECK(found[i].rows[k] * found[i].cols[k] > 1 && found[i].ranks[k] <= rank);
    }
    for (int k = 0; k <= order; k++) turned.ranks[k] = found[i].ranks[order - k];
    CHECK(tt_shape_macs(&found[i]) <= tt_shape_macs(&turned));
    if (i) CHECK(tt_shape_params(&found[i]) > tt_shape_params(&found[i - 1]));
    if (i) CHECK(tt_shape_macs(&found[i]) < tt_shape_macs(&found[i - 1]));
  }
}

static void plan_test_search(void) {
  static const int sizes[][2] = {{64, 64},     {384, 1536},  {1536, 384}, {4096, 4096},
                                 {11008, 4096}, {127, 61}, {50257, 768}, {12, 10}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int order = 1; order <= 4; order++)
      for (int rank = 1; rank <= 64; rank *= 8)
        plan_check_search(sizes[i][0], sizes[i][1], order, rank);
  tt_shape best[64];
  int count = 64;
  // big end sites and a small middle: 1.17 % of 4096 x 4096 at rank 64
  CHECK_STATUS(tt_shape_search(4096, 4096, 3, 64, NULL, best, &count), TT_OK);
  CHECK(tt_shape_params(&best[0]) == 196608 && best[0].rows[1] * best[0].cols[1] == 16);
  CHECK_AT_MOST((double)tt_shape_macs(&best[0]), 84e6);
  // no worse than the balanced shape in either count
  count = 64;
  CHECK_STATUS(tt_shape_search(11008, 4096, 3, 64, NULL, best, &count), TT_OK);
  CHECK_AT_MOST((double)tt_shape_macs(&best[0]), 284e6);
  CHECK(best[0].rows[0] > best[0].cols[0] && best[0].rows[2] < best[0].cols[2]);
}

// All pairs of factors of 12 x 18 in two cores, by hand.
static void plan_test_search_is_complete(void) {
  tt_shape found[64];
  int count = 64;
  CHECK_STATUS(tt_shape_search(12, 18, 2, 2, NULL, found, &count), TT_OK);
  for (int m = 1; m <= 12; m++)
    for (int n = 1; n <= 18; n++) {
      int rows[2] = {m, 12 / m}, cols[2] = {n, 18 / n}, beaten = 0;
      double mean = sqrt(12.0 / 18), first = (double)m / n / mean;
      double second = (double)rows[1] / cols[1] / mean;
      if (12 % m || 18 % n || m * n == 1 || rows[1] * cols[1] == 1) continue;
      if (first > 4 || first < 0.25 || second > 4 || second < 0.25) continue;
      tt_shape shape = test_shape(2, rows, cols, NULL);
      tt_shape_clip(&shape, 2);
      for (int i = 0; i < count; i++)
        beaten |= tt_shape_params(&found[i]) <= tt_shape_params(&shape) &&
                  tt_shape_macs(&found[i]) <= tt_shape_macs(&shape);
      CHECK(beaten);
    }
}

static void plan_test_search_errors(void) {
  tt_shape found[64], *none = NULL;
  int count = 1;
  CHECK_STATUS(tt_shape_search(4096, 4096, 3, 64, NULL, found, &count), TT_ERROR_INVALID);
  CHECK(count > 1 && count < 64); // what is needed
  CHECK_STATUS(tt_shape_search(4096, 4096, 3, 64, NULL, none, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_search(4096, 4096, 3, 64, NULL, found, &count), TT_OK);
  CHECK_STATUS(tt_shape_search(4096, 4096, 3, 64, NULL, found, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_search(0, 4096, 3, 64, NULL, found, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_search(64, -1, 3, 64, NULL, found, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_search(64, 64, 0, 64, NULL, found, &count), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_search(64, 64, TT_MAX_ORDER + 1, 4, NULL, found, &count),
               TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_search(64, 64, 2, 0, NULL, found, &count), TT_ERROR_INVALID);
  count = 64;
  CHECK_STATUS(tt_shape_search(7, 3, 8, 2, NULL, found, &count), TT_ERROR_UNSUPPORTED);
  CHECK(count == 0);
  for (int order = 1; order <= TT_MAX_ORDER; order++) { // large and awkward sizes end soon
    count = 64;
    tt_status status = tt_shape_search(510510, 510510, order, 4, NULL, found, &count);
    CHECK(status == TT_OK || status == TT_ERROR_UNSUPPORTED);
    count = 64;
    status = tt_shape_search(INT_MAX, INT_MAX, order, 4, NULL, found, &count);
    CHECK(status == TT_OK || status == TT_ERROR_UNSUPPORTED);
  }
  test_heap heap;
  tt_options options = test_options();
  long calls = 0;
  for (long n = 0; n <= calls; n++) {
    options.allocator = test_allocator(&heap);
    heap.fail_at = n;
    count = 64;
    CHECK_STATUS(tt_shape_search(384, 1536, 3, 8, &options, found, &count),
                 n ? TT_ERROR_MEMORY : TT_OK);
    if (n == 0) calls = heap.calls;
    CHECK(heap.live_blocks == 0);
  }
}

static void test_plan(void) {
  plan_test_macs();
  plan_test_macs_of_trains();
  plan_test_search();
  plan_test_search_is_complete();
  plan_test_search_errors();
}
