// >>config: checked sizes, the pool of temporary memory, status strings, options.
#include "test.h"

static void config_sizes(void) {
  ptrdiff_t value = 6;
  CHECK(tt__multiply(&value, 7) && value == 42);
  CHECK(tt__multiply(&value, 0) && value == 0);
  value = PTRDIFF_MAX / 3;
  CHECK(tt__multiply(&value, 3) && value == PTRDIFF_MAX / 3 * 3);
  CHECK(!tt__multiply(&value, 2) && value == PTRDIFF_MAX / 3 * 3);
  value = PTRDIFF_MAX;
  CHECK(tt__multiply(&value, 1) && value == PTRDIFF_MAX);
  CHECK(!tt__multiply(&value, PTRDIFF_MAX) && value == PTRDIFF_MAX);
  value = PTRDIFF_MAX - 5;
  CHECK(tt__increase(&value, 5) && value == PTRDIFF_MAX);
  CHECK(tt__increase(&value, 0) && !tt__increase(&value, 1) && value == PTRDIFF_MAX);

  ptrdiff_t total = 0;
  CHECK(tt__add_size(&total, 0, 8) && total == 0);
  CHECK(tt__add_size(&total, 1, 8) && total == 64);
  CHECK(tt__add_size(&total, 8, 8) && total == 128);
  CHECK(tt__add_size(&total, 9, 8) && total == 256);
  CHECK(!tt__add_size(&total, PTRDIFF_MAX / 4, 8) && total == 256);
  CHECK(!tt__add_size(&total, PTRDIFF_MAX - 10, 1) && total == 256);
  total = PTRDIFF_MAX - 63;
  CHECK(!tt__add_size(&total, 1, 64) && total == PTRDIFF_MAX - 63);

  CHECK(tt__min(-2, 3) == -2 && tt__min(3, -2) == -2 && tt__max(-2, 3) == 3 && tt__max(3, -2) == 3);
}

static void config_alignment(void) {
  unsigned char block[256];
  for (int i = 0; i < 128; i++) {
    unsigned char *aligned = tt__align(block + i);
    CHECK((uintptr_t)aligned % 64 == 0 && aligned >= block + i && aligned < block + i + 64);
  }
}

// The bits decide, so that this holds under -ffast-math too.
static void config_finite(void) {
  static const uint64_t infinite[] = {0x7FF0000000000000u, 0xFFF0000000000000u, 0x7FF8000000000000u,
                                      0x7FF0000000000001u, 0xFFFFFFFFFFFFFFFFu};
  static const uint64_t finite[] = {0, 0x8000000000000000u, 1, 0x7FEFFFFFFFFFFFFFu,
                                    0xFFEFFFFFFFFFFFFFu};
  for (int i = 0; i < 5; i++) {
    double bad, good;
    memcpy(&bad, &infinite[i], sizeof bad);
    memcpy(&good, &finite[i], sizeof good);
    CHECK(!tt__is_finite(bad));
    CHECK(tt__is_finite(good));
  }
  CHECK(tt__float_bits(1.0f) == 0x3F800000u && tt__float_bits(-0.0f) == 0x80000000u);
  CHECK(tt__bits_float(0x40490FDBu) == (float)3.14159274f &&
        tt__float_bits(tt__bits_float(0x7FC12345u)) == 0x7FC12345u);
}

static int config_all_zero(const void *block, ptrdiff_t size) {
  const unsigned char *byte = (const unsigned char *)block;
  while (size-- > 0) if (*byte++) return 0;
  return 1;
}

// Blocks are aligned, zeroed (the test allocator fills them with 0xA5) and do not overlap;
// rewinding frees the newer ones only.
static void config_pool(void) {
  test_heap heap;
  tt_allocator allocator = test_allocator(&heap);
  tt__pool pool = tt__pool_open(&allocator);
  for (int i = 0; i < 40; i++) {
    ptrdiff_t count = i * 13 % 71, each = 1 + i % 9;
    unsigned char *block = (unsigned char *)tt__take(&pool, count, each);
    CHECK(block && (uintptr_t)block % 64 == 0);
    CHECK(config_all_zero(block, count * each));
    if (block) memset(block, 0xFF, (size_t)(count * each));
  }
  void *mark = pool.blocks;
  long blocks = heap.live_blocks;
  double *matrix = tt__take_f64(&pool, 7, 9);
  CHECK(matrix && config_all_zero(matrix, 63 * (ptrdiff_t)sizeof(double)) &&
        heap.live_blocks == blocks + 1);
  CHECK(tt__take_f64(&pool, 0, 5) && heap.live_blocks == blocks + 2);
  tt__pool_rewind(&pool, mark);
  CHECK(heap.live_blocks == blocks && pool.blocks == mark && pool.status == TT_OK);
  tt__pool_close(&pool);
  CHECK(heap.live_blocks == 0 && heap.live == 0 && pool.blocks == NULL);
  tt__pool_close(&pool);
  CHECK(heap.live_blocks == 0);
}

// After one failure the pool gives nothing any more, says so, and still releases what it gave
// before.
static void config_pool_failure(void) {
  for (long n = 1; n <= 4; n++) {
    test_heap heap;
    tt_allocator allocator = test_allocator(&heap);
    heap.fail_at = n;
    tt__pool pool = tt__pool_open(&allocator);
    for (long i = 1; i <= 4; i++) CHECK((tt__take(&pool, 3, 8) != NULL) == (i < n));
    CHECK(pool.status == TT_ERROR_MEMORY && heap.live_blocks == n - 1 && heap.calls == n);
    tt__pool_close(&pool);
    CHECK(heap.live_blocks == 0);
  }
  static const ptrdiff_t bad[][2] = {
      {-1, 8}, {PTRDIFF_MAX, 8}, {PTRDIFF_MAX / 8, 8}, {PTRDIFF_MAX, 1}};
  for (int i = 0; i < 4; i++) {
    test_heap heap;
    tt_allocator allocator = test_allocator(&heap);
    tt__pool pool = tt__pool_open(&allocator);
    CHECK(!tt__take(&pool, bad[i][0], bad[i][1]) && pool.status == TT_ERROR_MEMORY &&
          heap.calls == 0);
    CHECK(!tt__take(&pool, 1, 1) && heap.calls == 0);
    pool = tt__pool_open(&allocator);
    CHECK(!tt__take_f64(&pool, bad[i][0], bad[i][1]) && pool.status == TT_ERROR_MEMORY &&
          heap.calls == 0);
    pool = tt__pool_open(&allocator);
    CHECK(!tt__take_f64(&pool, 1, -1) && pool.status == TT_ERROR_MEMORY && heap.calls == 0);
  }
  tt__pool plain = tt__pool_open(NULL); // malloc and free
  CHECK(tt__take(&plain, 100, 4) && plain.status == TT_OK);
  tt__pool_close(&plain);
}

// Every status has words of its own; so has a number that is no status.
static void config_status(void) {
  const char *words[10];
  for (int i = 0; i < 10; i++) {
    words[i] = tt_status_string((tt_status)(i < 9 ? -i : -100));
    CHECK(words[i] && *words[i] && strlen(words[i]) < 60);
    for (int k = 0; k < i; k++) CHECK(strcmp(words[i], words[k]) != 0);
    CHECK(words[i] == tt_status_string((tt_status)(i < 9 ? -i : -100)));
  }
  CHECK(!strcmp(words[0], "ok"));
}

static void config_options(void) {
  test_heap heap;
  tt_options good = test_options(), bad;
  CHECK(tt__options_valid(NULL) && tt__options_valid(&good));
  CHECK(config_all_zero(&good, (ptrdiff_t)sizeof good));
  tt_options defaults = tt__options(NULL);
  CHECK(defaults.max_rank == 0 && defaults.epsilon == 0 && defaults.dtype == TT_F32 &&
        !defaults.allocator.alloc_fn);
  good.max_rank = 5;
  good.strict = 1;
  good.epsilon = 0.5;
  good.dtype = TT_I2;
  good.group = TT_GROUP_ROW;
  good.method = TT_SVD_RANDOMIZED;
  good.seed = 77;
  good.allocator = test_allocator(&heap);
  CHECK(tt__options_valid(&good) && tt__options(&good).seed == 77 &&
        tt__options(&good).max_rank == 5);
  bad = good; bad.max_rank = -1;                     CHECK(!tt__options_valid(&bad));
  bad = good; bad.epsilon = -1e-300;                 CHECK(!tt__options_valid(&bad));
  bad = good; bad.epsilon = HUGE_VAL;                CHECK(!tt__options_valid(&bad));
  bad = good; bad.epsilon = HUGE_VAL - HUGE_VAL;     CHECK(!tt__options_valid(&bad));
  bad = good; bad.group = -2;                        CHECK(!tt__options_valid(&bad));
  bad = good; bad.method = -1;                       CHECK(!tt__options_valid(&bad));
  bad = good; bad.method = TT_SVD_RANDOMIZED + 1;    CHECK(!tt__options_valid(&bad));
  bad = good; bad.dtype = (tt_dtype)(TT_I2 + 1);     CHECK(!tt__options_valid(&bad));
  bad = good; bad.allocator.alloc_fn = NULL;         CHECK(!tt__options_valid(&bad));
  bad = good; bad.allocator.free_fn = NULL;          CHECK(!tt__options_valid(&bad));
}

// Every door refuses nonsense, argument by argument.
static void config_test_file_arguments(void) {
  const unsigned char empty[10] = {2, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
  tt_file *file = NULL;
  tt_matrix w;
  const char *text;
  float number;
  int index = 0;
  CHECK_STATUS(tt_file_open_memory(empty, sizeof empty, NULL, &file), TT_OK);
  CHECK(tt_file_count(file) == 0 && tt_file_count(NULL) == 0);
  for (int t = 0; t < 3; t++) {
    const tt_file *given = t ? file : NULL;
    int at = t == 1 ? -1 : 0;                                // no tensor has this index
    CHECK_STATUS(tt_file_metadata(given, at, &text, &text), TT_ERROR_INVALID);
    CHECK_STATUS(tt_file_tensor(given, at, NULL, NULL, NULL, NULL, NULL, NULL), TT_ERROR_INVALID);
    CHECK_STATUS(tt_file_read(given, at, 0, &number, 4), TT_ERROR_INVALID);
    CHECK_STATUS(tt_file_read_f32(given, at, &number, 1), TT_ERROR_INVALID);
  }
  CHECK_STATUS(tt_file_find(NULL, "x", &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_find(file, NULL, &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_find(file, "x", NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_find(file, "x", &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_matrix(NULL, "x", NULL, &w), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_matrix(file, NULL, NULL, &w), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_matrix(file, "x", NULL, NULL), TT_ERROR_INVALID);
  tt_file_close(file);
}

static void config_test_train_arguments(void) {
  int rows[2] = {2, 3}, cols[2] = {3, 2}, other[2] = {3, 2};
  tt_shape shape = test_shape(2, rows, cols, NULL), turned = test_shape(2, other, cols, NULL);
  tt_shape tall = test_shape(2, rows, rows, NULL), wide = test_shape(2, cols, other, NULL);
  tt_matrix a = test_train(&shape), b = test_train(&turned), c = test_train(&tall), sum;
  tt_matrix d = test_train(&wide), borrowed = a;
  double value;
  float dense[36];
  c.cols--;
  d.rows--;
  borrowed.block = NULL;
  CHECK_STATUS(tt_dot(&a, &a, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_dot(&a, NULL, &value), TT_ERROR_INVALID);
  CHECK_STATUS(tt_dot(&a, &b, &value), TT_ERROR_SHAPE);
  CHECK_STATUS(tt_dot(&a, &c, &value), TT_ERROR_INVALID);
  CHECK_STATUS(tt_dot(&a, &d, &value), TT_ERROR_INVALID);
  CHECK_STATUS(tt_add(&a, NULL, NULL, &sum), TT_ERROR_INVALID);
  CHECK_STATUS(tt_add(&a, &c, NULL, &sum), TT_ERROR_INVALID);
  CHECK_STATUS(tt_add(&a, &d, NULL, &sum), TT_ERROR_INVALID);
  CHECK_STATUS(tt_add(&a, &a, NULL, &a), TT_ERROR_INVALID);  // *out may not be an input
  CHECK(a.block != NULL);
  CHECK_STATUS(tt_expand(&a, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_expand(NULL, dense), TT_ERROR_INVALID);
  CHECK(!tt_bias_data(NULL) && !tt_bias_data(&borrowed) && !tt_core_data(&borrowed, 0));
  CHECK(!tt_core_data(NULL, 0) && !tt_core_data(&a, -1) && !tt_core_data(&a, 2));
  for (int order = 0; order <= TT_MAX_ORDER + 1; order += TT_MAX_ORDER + 1)
    CHECK_STATUS(tt_shape_factor(4, 4, order, &shape), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_factor(4, 4, 2, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_factor(0, 4, 2, &shape), TT_ERROR_INVALID);
  CHECK_STATUS(tt_shape_factor(4, 0, 2, &shape), TT_ERROR_INVALID);
  CHECK(tt_entropy(NULL, 3, 1) == 0 && tt_effective_rank(NULL, 0) == 1);
  value = HUGE_VAL;
  CHECK(tt_entropy(&value, 1, 1) == 0);
  tt_free(&a);
  tt_free(&b);
  tt_free(&c);
  tt_free(&d);
}

// Against long double: an ulp or so, at every magnitude; exact where the answer is.
static void config_hypot(void) {
  static const double scales[] = {1, 1e-300, 1e300, 1e-154, 1e154, 1e-303};
  double worst = 0;
  for (int i = 0; i < 6; i++)
    for (int j = 0; j < 100; j++) {
      long double x = test_normal() * scales[i], y = test_normal() * (j & 1 ? 1e-3 : 1) * scales[i];
      long double wanted = sqrtl(x / scales[i] * (x / scales[i]) + y / scales[i] * (y / scales[i]));
      double got = tt__hypot((double)x, (double)y);
      worst = fmax(worst, (double)fabsl(got / scales[i] / wanted - 1));
    }
  CHECK_AT_MOST(worst, 4 * DBL_EPSILON);
  CHECK(tt__hypot(0, 0) == 0 && tt__hypot(-3, 4) == 5 && tt__hypot(1e-200, 1) == 1);
  CHECK(tt__hypot(1, HUGE_VAL) == HUGE_VAL);
}

static void test_config(void) {
  config_hypot();
  config_test_file_arguments();
  config_test_train_arguments();
  config_sizes();
  config_alignment();
  config_finite();
  config_pool();
  config_pool_failure();
  config_status();
  config_options();
}
