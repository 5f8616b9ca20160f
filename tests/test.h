// The whole test framework: checks that count, random numbers, an allocator that counts and fails
// on demand. Every test_<section>.c is included by all.c, sees the private functions of tt.h and
// defines one function test_<section>(void) that runs its tests.
#ifndef TEST_H_INCLUDED
#define TEST_H_INCLUDED

#define TT_ASSERT(condition) test_check((condition) != 0, "assert: " #condition, __FILE__, __LINE__)
static void test_check(int good, const char *what, const char *file, int line);

#ifndef TEST_LINKS_TT // then another object holds the implementation
#define TT_IMPLEMENTATION
#endif
#include "../tt.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef FLT_EVAL_METHOD
#define FLT_EVAL_METHOD (-1)                                 // tcc does not say
#endif

static long test_passed, test_failed;

static void test_check(int good, const char *what, const char *file, int line) {
  if (good) {
    test_passed++;
  } else if (++test_failed <= 100) {
    printf("%s:%d: failed: %s\n", file, line, what);
  }
}

static void test_check_status(tt_status got, tt_status wanted, const char *what, const char *file,
                              int line) {
  test_check(got == wanted, what, file, line);
  if (got != wanted && test_failed <= 100)
    printf("  status %d (%s), wanted %d\n", (int)got, tt_status_string(got), (int)wanted);
}

// Good if value <= bound; NaN is bad.
static void test_check_at_most(double value, double bound, const char *what, const char *file,
                               int line) {
  int good = value <= bound;
  test_check(good, what, file, line);
  if (!good && test_failed <= 100) printf("  %.6g, bound %.6g\n", value, bound);
}

#define CHECK(condition) test_check((condition) != 0, #condition, __FILE__, __LINE__)
#define CHECK_STATUS(call, wanted)                                                                 \
  test_check_status((call), (wanted), #call " == " #wanted, __FILE__, __LINE__)
#define CHECK_AT_MOST(value, bound)                                                                \
  test_check_at_most((value), (bound), #value " <= " #bound, __FILE__, __LINE__)
#define CHECK_CLOSE(a, b, tolerance)                                                               \
  test_check_at_most(fabs((double)(a) - (double)(b)), (tolerance), #a " ~ " #b, __FILE__, __LINE__)

// Random numbers of the tests: splitmix64, independent of the generator of tt.h.
static uint64_t test_state = 1;
static void test_seed(unsigned seed) { test_state = 0x9E3779B97F4A7C15u * (uint64_t)(seed + 1u); }
static uint64_t test_u64(void) {
  uint64_t z = (test_state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}
static double test_uniform(void) { return (double)(test_u64() >> 11) * 0x1p-53; } // [0, 1)
static int test_below(int n) { return (int)(test_u64() % (uint64_t)n); }           // 0 .. n-1
static double test_normal(void) {                                                  // Box-Muller
  double radius = sqrt(-2 * log(1 - test_uniform()));
  return radius * cos(6.283185307179586 * test_uniform());
}

// Memory of the tests themselves; they cannot go on without it.
static void *test_new(ptrdiff_t count, size_t each) {
  void *block = calloc((size_t)(count > 0 ? count : 1), each);
  if (!block) { printf("out of memory in the tests\n"); exit(1); }
  return block;
}
static float *test_floats(ptrdiff_t count) { return (float *)test_new(count, sizeof(float)); }
static double *test_doubles(ptrdiff_t count) { return (double *)test_new(count, sizeof(double)); }
static float *test_normal_floats(ptrdiff_t count) {
  float *x = test_floats(count);
  for (ptrdiff_t i = 0; i < count; i++) x[i] = (float)test_normal();
  return x;
}
static double *test_normal_doubles(ptrdiff_t count) {
  double *x = test_doubles(count);
  for (ptrdiff_t i = 0; i < count; i++) x[i] = test_normal();
  return x;
}

// An allocator that counts, keeps the peak, and gives NULL at call number `fail_at` (from 1; 0 =
// never).
typedef struct test_heap { long calls, live_blocks, fail_at; size_t live, peak; } test_heap;
static void *test_alloc(size_t size, void *user_data) {
  test_heap *heap = (test_heap *)user_data;
  if (++heap->calls == heap->fail_at) return NULL;
  size_t *block = (size_t *)malloc(size + 32);
  if (!block) return NULL;
  *block = size;
  heap->live_blocks++;
  heap->live += size;
  if (heap->live > heap->peak) heap->peak = heap->live;
  memset((char *)block + 32, 0xA5, size);                      // nobody may rely on zeroed memory
  return (char *)block + 32;
}
static void test_release(void *block, void *user_data) {
  test_heap *heap = (test_heap *)user_data;
  size_t *base = (size_t *)(void *)((char *)block - 32);
  heap->live_blocks--;
  heap->live -= *base;
  free(base);
}
static tt_allocator test_allocator(test_heap *heap) {
  tt_allocator allocator;
  memset(heap, 0, sizeof *heap);
  allocator.alloc_fn = test_alloc;
  allocator.free_fn = test_release;
  allocator.user_data = heap;
  return allocator;
}

static tt_options test_options(void) { // zeroed: all defaults
  tt_options options;
  memset(&options, 0, sizeof options);
  return options;
}

// A shape from lists: test_shape(2, rows, cols, NULL) leaves the inner ranks 0; ranks has order+1
// entries.
static tt_shape test_shape(int order, const int *rows, const int *cols, const int *ranks) {
  tt_shape shape;
  memset(&shape, 0, sizeof shape);
  shape.order = order;
  for (int k = 0; k < order; k++) { shape.rows[k] = rows[k]; shape.cols[k] = cols[k]; }
  for (int k = 0; k <= order; k++) shape.ranks[k] = ranks ? ranks[k] : 0;
  shape.ranks[0] = shape.ranks[order] = 1;
  return shape;
}

// A train of F64 cores with standard normal entries and ranks as in `shape`; rows and cols are the
// products.
static tt_matrix test_train(const tt_shape *shape) {
  tt_options options = test_options();
  ptrdiff_t rows = 1, cols = 1;
  tt_matrix w;
  options.dtype = TT_F64;
  for (int k = 0; k < shape->order; k++) { rows *= shape->rows[k]; cols *= shape->cols[k]; }
  CHECK_STATUS(tt_create(shape, rows, cols, &options, &w), TT_OK);
  for (int k = 0; k < w.shape.order; k++) {
    double *core = (double *)tt_core_data(&w, k);
    ptrdiff_t count =
        (ptrdiff_t)w.shape.ranks[k] * w.shape.rows[k] * w.shape.cols[k] * w.shape.ranks[k + 1];
    for (ptrdiff_t i = 0; i < count; i++) core[i] = test_normal();
  }
  return w;
}

// sqrt(sum (a-b)^2 / sum b^2); the plain norm of a where b is zero.
static double test_distance(ptrdiff_t count, const double *a, const double *b) {
  double difference = 0, norm = 0;
  for (ptrdiff_t i = 0; i < count; i++) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

#endif // TEST_H_INCLUDED
