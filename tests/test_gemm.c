// tt_matmul and tt_matmul_f64 against sums in long double: sizes, transposes, strides,
// accumulation, special values, refusals, and equal bits wherever the order of a sum must not
// depend on where an element stands.
#include "test.h"

// Bits can only be compared where intermediate results have the precision of their type, and where
// sums are ours.
#if FLT_EVAL_METHOD == 0 && !defined(TT_USE_CBLAS)
#define GEMM_BITS_ARE_FIXED 1
#else
#define GEMM_BITS_ARE_FIXED 0
#endif

// One product. Arrays hold doubles that are exact floats if `single`; `offset` elements precede
// each array.
typedef struct gemm_case {
  ptrdiff_t rows, cols, depth, lda, ldb, ldc;
  int flags, single, offset;
  double *a, *b, *c;
} gemm_case;

static ptrdiff_t gemm_a_rows(const gemm_case *t) {
  return t->flags & TT_TRANSPOSE_A ? t->depth : t->rows;
}
static ptrdiff_t gemm_b_rows(const gemm_case *t) {
  return t->flags & TT_TRANSPOSE_B ? t->cols : t->depth;
}

static double *gemm_random(ptrdiff_t count, int single) {
  double *x = test_doubles(count);
  for (ptrdiff_t i = 0; i < count; i++)
    x[i] = single ? (double)(float)test_normal() : test_normal();
  return x;
}

// Random operands; rows of the stored arrays are `padding` elements longer than needed.
static gemm_case gemm_create(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, int flags, int single,
                             int padding) {
  gemm_case t;
  memset(&t, 0, sizeof t);
  t.rows = rows; t.cols = cols; t.depth = depth;
  t.flags = flags; t.single = single;
  t.lda = (flags & TT_TRANSPOSE_A ? rows : depth) + padding;
  t.ldb = (flags & TT_TRANSPOSE_B ? depth : cols) + 2 * padding;
  t.ldc = cols + 3 * padding;
  t.a = gemm_random(gemm_a_rows(&t) * t.lda, single);
  t.b = gemm_random(gemm_b_rows(&t) * t.ldb, single);
  t.c = gemm_random(rows * t.ldc, single);
  return t;
}

static void gemm_free(gemm_case *t) {
  free(t->a);
  free(t->b);
  free(t->c);
}

static float *gemm_narrow(ptrdiff_t count, const double *x, int offset) {
  float *y = test_floats(count + offset);
  for (ptrdiff_t i = 0; i < count; i++) y[offset + i] = (float)x[i];
  return y;
}

static double *gemm_copy(ptrdiff_t count, const double *x, int offset) {
  double *y = test_doubles(count + offset);
  for (ptrdiff_t i = 0; i < count; i++) y[offset + i] = x[i];
  return y;
}

// Kernels that run the cases: -1 asks the public functions, which choose for themselves.
static int gemm_level = -1;

// One product by the kernels of one level. The workspace has not one byte more than promised.
static void gemm_by_level(const gemm_case *t, const void *a, const void *b, void *c) {
  int turn_a = t->flags & TT_TRANSPOSE_A, turn_b = t->flags & TT_TRANSPOSE_B, wide = !t->single;
  tt__product p = {t->rows,
                   t->cols,
                   t->depth,
                   a,
                   b,
                   turn_a ? 1 : t->lda,
                   turn_a ? t->lda : 1,
                   turn_b ? 1 : t->ldb,
                   turn_b ? t->ldb : 1,
                   c,
                   t->ldc,
                   t->flags & TT_ACCUMULATE,
                   NULL};
  size_t size = (size_t)tt__gemm_work_size(t->rows, t->cols, t->depth, wide);
  unsigned char *block = (unsigned char *)malloc(size + 64), *end;
  if (!block) exit(1);
  end = block + 64 - (uintptr_t)block % 64 + size;
  p.work = end - size;
  if (end < block + size + 64) *end = 0x5A;
  tt__gemm_at(&p, wide, (tt__level)gemm_level);
  if (end < block + size + 64) CHECK(*end == 0x5A);
  free(block);
}

// What the library makes of the case: a fresh array like t->c.
static double *gemm_run(const gemm_case *t) {
  ptrdiff_t count_a = gemm_a_rows(t) * t->lda, count_b = gemm_b_rows(t) * t->ldb,
            count_c = t->rows * t->ldc;
  int o = t->offset;
  double *out = test_doubles(count_c);
  if (t->single) {
    float *a = gemm_narrow(count_a, t->a, o), *b = gemm_narrow(count_b, t->b, o),
          *c = gemm_narrow(count_c, t->c, o);
    if (gemm_level >= 0)
      gemm_by_level(t, a + o, b + o, c + o);
    else
      CHECK_STATUS(tt_matmul(t->rows, t->cols, t->depth, a + o, t->lda, b + o, t->ldb, c + o,
                             t->ldc, t->flags, NULL),
                   TT_OK);
    for (ptrdiff_t i = 0; i < count_c; i++) out[i] = (double)c[o + i];
    free(a); free(b); free(c);
  } else {
    double *a = gemm_copy(count_a, t->a, o), *b = gemm_copy(count_b, t->b, o),
           *c = gemm_copy(count_c, t->c, o);
    if (gemm_level >= 0)
      gemm_by_level(t, a + o, b + o, c + o);
    else
      CHECK_STATUS(tt_matmul_f64(t->rows, t->cols, t->depth, a + o, t->lda, b + o, t->ldb, c + o,
                                 t->ldc, t->flags, NULL),
                   TT_OK);
    for (ptrdiff_t i = 0; i < count_c; i++) out[i] = c[o + i];
    free(a); free(b); free(c);
  }
  return out;
}

// Largest error of `got` over its bound (depth + 2) eps (|A| |B| + |C|); 1e300 if anything beside C
// was written.
static double gemm_error(const gemm_case *t, const double *got) {
  double worst = 0, eps = t->single ? 0x1p-24 : 0x1p-53;
  ptrdiff_t step = LDBL_MANT_DIG > 64 && t->depth > 20
                       ? 5
                       : 1; // long double in software is slow: every fifth entry
  for (ptrdiff_t i = 0; i < t->rows; i++) {
    for (ptrdiff_t j = i % step; j < t->cols; j += step) {
      double old = t->flags & TT_ACCUMULATE ? t->c[i * t->ldc + j] : 0;
      long double sum = (long double)old, size = (long double)fabs(old);
      for (ptrdiff_t p = 0; p < t->depth; p++) {
        double a = t->flags & TT_TRANSPOSE_A ? t->a[p * t->lda + i] : t->a[i * t->lda + p];
        double b = t->flags & TT_TRANSPOSE_B ? t->b[j * t->ldb + p] : t->b[p * t->ldb + j];
        sum += (long double)a * (long double)b;
        size += (long double)fabs(a * b);
      }
      double error = (double)fabsl((long double)got[i * t->ldc + j] - sum);
      double bound = (double)(t->depth + 2) * eps * (double)size;
      if (!(error <= worst * bound)) worst = bound > 0 ? error / bound : 1e300;
    }
    for (ptrdiff_t j = t->cols; j < t->ldc; j++)
      if (got[i * t->ldc + j] != t->c[i * t->ldc + j]) worst = 1e300;
  }
  return worst;
}

static void gemm_check(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, int flags, int single,
                       int padding, int offset) {
  gemm_case t = gemm_create(rows, cols, depth, flags, single, padding);
  t.offset = offset;
  double *got = gemm_run(&t);
  double error = gemm_error(&t, got);
  if (!(error <= 1))
    printf("  %d x %d x %d, flags %d, single %d\n", (int)rows, (int)cols, (int)depth, flags,
           single);
  CHECK_AT_MOST(error, 1);
  free(got);
  gemm_free(&t);
}

// All sizes up to 20 in each dimension where one of them is at the corner of a small tile, the
// others at random.
static void gemm_test_small(void) {
  for (int m = 0; m <= 20; m++) {
    for (int n = 0; n <= 20; n++) {
      int k = (7 * m + 3 * n + test_below(3)) % 21, flags = (m + 2 * n) % 8, padding = (m + n) % 3;
      gemm_check(m, n, k, flags, 0, padding, n % 2);
      gemm_check(n, k, m, (flags + 3) % 8, 1, padding, m % 4);
      gemm_check(k, m, n, (flags + 5) % 8, 1, 0, 0);
    }
  }
}

// Primes, sizes around tiles and blocks of the kernels, and long sums, with every combination of
// flags.
static void gemm_test_large(void) {
  static const int sizes[][3] = {
      {23, 29, 31},  {47, 53, 41},  {12, 32, 64},  {13, 33, 65},   {96, 64, 256},
      {97, 67, 257}, {61, 31, 171}, {241, 37, 53}, {37, 1031, 19}, {5, 7, 5003},
      {1, 1, 4099},  {1, 131, 300}, {131, 1, 300}, {2, 4099, 3},   {509, 3, 2},
  };
  for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++)
    for (int flags = i % 2; flags < 8;
         flags += 2 - (i < 7)) // all flags for the first half, every second after it
      for (int single = 0; single < 2; single++)
        gemm_check(sizes[i][0], sizes[i][1], sizes[i][2], flags, single, (i + flags) % 4,
                   (flags + single) % 4);
}

// A sum of nothing is zero: C is cleared, or left alone when accumulating.
static void gemm_test_no_depth(void) {
  for (int single = 0; single < 2; single++) {
    for (int flags = 0; flags < 8; flags++) {
      gemm_case t = gemm_create(9, 17, 0, flags, single, 1);
      double *got = gemm_run(&t);
      for (ptrdiff_t i = 0; i < 9; i++)
        for (ptrdiff_t j = 0; j < t.ldc; j++) {
          double wanted = flags & TT_ACCUMULATE || j >= 17 ? t.c[i * t.ldc + j] : 0;
          CHECK(got[i * t.ldc + j] == wanted);
        }
      free(got);
      gemm_free(&t);
    }
  }
  double c = 5;
  CHECK_STATUS(tt_matmul_f64(1, 1, 0, NULL, 0, NULL, 1, &c, 1, 0, NULL),
               TT_OK); // nothing to read: NULL is fine
  CHECK(c == 0);
  CHECK_STATUS(tt_matmul_f64(0, 3, 2, NULL, 2, NULL, 3, NULL, 3, 0, NULL), TT_OK);
  CHECK_STATUS(tt_matmul(3, 0, 2, NULL, 2, NULL, 0, NULL, 0, 0, NULL), TT_OK);
}

// NaN or Inf in row `row` of A reaches the whole row of C and nothing else; in C it stays only when
// accumulating.
static void gemm_check_special(double special, int single, int flags) {
  gemm_case t = gemm_create(19, 37, 23, flags, single, 1);
  ptrdiff_t row = test_below(19), p = test_below(23);
  t.a[flags & TT_TRANSPOSE_A ? p * t.lda + row : row * t.lda + p] = special;
  double *got = gemm_run(&t);
  for (ptrdiff_t i = 0; i < 19; i++)
    for (ptrdiff_t j = 0; j < 37; j++) {
      double value = got[i * t.ldc + j],
             b = t.b[flags & TT_TRANSPOSE_B ? j * t.ldb + p : p * t.ldb + j];
      if (i != row) CHECK(tt__is_finite(value));
      else if (special != special) CHECK(value != value);
      else CHECK(value == special * b);
    }
  free(got);
  gemm_free(&t);
}

static void gemm_test_special(void) {
  for (int single = 0; single < 2; single++) {
    for (int flags = 0; flags < 8; flags++) {
      gemm_check_special((double)NAN, single, flags);
      gemm_check_special((double)INFINITY, single, flags);
      gemm_check_special(-(double)INFINITY, single, flags);
    }
    gemm_case t =
        gemm_create(7, 9, 5, 0, single, 0); // NaN in the old C must not leak through 0 * NaN
    for (ptrdiff_t i = 0; i < 63; i++) t.c[i] = (double)NAN;
    double *got = gemm_run(&t);
    CHECK_AT_MOST(gemm_error(&t, got), 1);
    free(got);
    gemm_free(&t);
  }
}

// Integers small enough for exact sums: every entry must be exact, whatever the order of summation.
static void gemm_test_exact(void) {
  for (int single = 0; single < 2; single++) {
    gemm_case t = gemm_create(61, 83, 701, TT_ACCUMULATE, single, 2);
    for (ptrdiff_t i = 0; i < t.rows * t.lda; i++) t.a[i] = test_below(31) - 15;
    for (ptrdiff_t i = 0; i < t.depth * t.ldb; i++) t.b[i] = test_below(31) - 15;
    for (ptrdiff_t i = 0; i < t.rows * t.ldc; i++) t.c[i] = test_below(31) - 15;
    double *got = gemm_run(&t);
    CHECK(gemm_error(&t, got) == 0);
    free(got);
    gemm_free(&t);
  }
}

static int gemm_same_bits(const gemm_case *t, const double *x, ptrdiff_t ldx, const double *y,
                          ptrdiff_t ldy) {
  for (ptrdiff_t i = 0; i < t->rows; i++)
    if (memcmp(x + i * ldx, y + i * ldy, (size_t)t->cols * sizeof *x)) return 0;
  return 1;
}

// The case with the same operands in another storage: transposed or not, other leading dimensions.
static gemm_case gemm_restore(const gemm_case *t, int flags, int padding) {
  gemm_case other = gemm_create(t->rows, t->cols, t->depth, flags, t->single, padding);
  for (ptrdiff_t i = 0; i < t->rows; i++)
    for (ptrdiff_t p = 0; p < t->depth; p++)
      other.a[flags & TT_TRANSPOSE_A ? p * other.lda + i : i * other.lda + p] =
          t->a[i * t->lda + p];
  for (ptrdiff_t p = 0; p < t->depth; p++)
    for (ptrdiff_t j = 0; j < t->cols; j++)
      other.b[flags & TT_TRANSPOSE_B ? j * other.ldb + p : p * other.ldb + j] =
          t->b[p * t->ldb + j];
  return other;
}

// Same bits from every storage of the operands, every alignment, and every repetition. (Not where C
// has fewer than four rows or columns: there contiguous operands take the faster dot products,
// which sum in another order.)
static void gemm_check_storage(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, int single) {
  gemm_case t = gemm_create(rows, cols, depth, 0, single, 0);
  double *first = gemm_run(&t);
  for (int flags = 0; flags < 4; flags++) {
    gemm_case other = gemm_restore(&t, flags, flags);
    other.offset = flags;
    double *got = gemm_run(&other);
    CHECK(gemm_same_bits(&t, first, t.ldc, got, other.ldc));
    free(got);
    gemm_free(&other);
  }
  free(first);
  gemm_free(&t);
}

// A row of C depends on its row of A only: exchanging rows of A (columns of B) exchanges rows
// (columns) of C, bit for bit, although they then fall into other tiles.
static void gemm_check_rotation(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, int single) {
  gemm_case t = gemm_create(rows, cols, depth, 0, single, 0), turned = gemm_restore(&t, 0, 0);
  ptrdiff_t down = 1 + test_below((int)rows), right = 1 + test_below((int)cols);
  for (ptrdiff_t i = 0; i < rows; i++)
    memcpy(turned.a + (i + down) % rows * depth, t.a + i * depth, (size_t)depth * sizeof *t.a);
  for (ptrdiff_t p = 0; p < depth; p++)
    for (ptrdiff_t j = 0; j < cols; j++)
      turned.b[p * cols + (j + right) % cols] = t.b[p * cols + j];
  double *x = gemm_run(&t), *y = gemm_run(&turned);
  int equal = 1;
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t j = 0; j < cols; j++)
      equal &=
          !memcmp(x + i * cols + j, y + (i + down) % rows * cols + (j + right) % cols, sizeof *x);
  CHECK(equal);
  free(x);
  free(y);
  gemm_free(&t);
  gemm_free(&turned);
}

static void gemm_test_bits(void) {
  if (!GEMM_BITS_ARE_FIXED) {
    printf("  skipped: equal bits of products (wide intermediate results or CBLAS)\n");
    return;
  }
  static const int sizes[][3] = {{1, 1, 9},     {5, 7, 11},     {20, 20, 20},
                                 {37, 67, 300}, {130, 35, 513}, {25, 259, 40}};
  for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++)
    for (int single = 0; single < 2; single++) {
      if (sizes[i][0] >= 4) gemm_check_storage(sizes[i][0], sizes[i][1], sizes[i][2], single);
      gemm_check_rotation(sizes[i][0], sizes[i][1], sizes[i][2], single);
    }
}

// Every level that this processor has, the plain code included: tiles of every height and width,
// operands read in place and copied, several blocks; and equal bits wherever an element stands. The
// two levels with fused multiply-adds agree to the last bit.
static void gemm_test_levels(void) {
  static const int sizes[][3] = {{4, 1, 7},     {9, 33, 5},     {12, 64, 256}, {31, 31, 257},
                                 {73, 65, 300}, {75, 127, 513}, {533, 70, 9},  {280, 17, 40}};
  for (int single = 0; single < 2; single++)
    for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++) {
      gemm_case t = gemm_create(sizes[i][0], sizes[i][1], sizes[i][2], 0, single, 1);
      double *first = NULL;
      for (gemm_level = 0; gemm_level <= (int)tt__best_level(); gemm_level++) {
        for (int flags = 0; flags < 8; flags += 2 - (i < 5))
          gemm_check(t.rows, t.cols, t.depth, flags, single, i % 3, flags % 4);
        if (GEMM_BITS_ARE_FIXED) {
          if (t.cols >= 4) gemm_check_storage(t.rows, t.cols, t.depth, single);
          gemm_check_rotation(t.rows, t.cols, t.depth, single);
        }
        double *got = gemm_run(&t);
        if (first && gemm_level == TT__AVX512) CHECK(gemm_same_bits(&t, first, t.ldc, got, t.ldc));
        free(first);
        first = got;
      }
      gemm_level = -1;
      free(first);
      gemm_free(&t);
    }
  for (gemm_level = 0; gemm_level <= (int)tt__best_level(); gemm_level++) gemm_test_small();
  gemm_level = -1;
}

// The dot product of x and y as the last of 1 to 4 rows: the same bits whatever their number.
static double gemm_dots_f32(void (*dots)(ptrdiff_t, ptrdiff_t, const float *, ptrdiff_t,
                                         const float *, float *),
                            ptrdiff_t n, const float *x, const float *y) {
  float *rows = test_floats(4 * n + 1), out[4] = {0};
  for (ptrdiff_t count = 1; count <= 4; count++) {
    float before = out[0];
    for (ptrdiff_t i = 0; i < count * n; i++) rows[i] = i < (count - 1) * n ? 1 : x[i % n];
    dots(n, count, rows, n, y, out);
    CHECK(count == 1 || out[count - 1] == before);
    out[0] = out[count - 1];
  }
  free(rows);
  return (double)out[0];
}

static double gemm_dots_f64(void (*dots)(ptrdiff_t, ptrdiff_t, const double *, ptrdiff_t,
                                         const double *, double *),
                            ptrdiff_t n, const double *x, const double *y) {
  double *rows = test_doubles(4 * n + 1), out[4] = {0};
  for (ptrdiff_t count = 1; count <= 4; count++) {
    double before = out[0];
    for (ptrdiff_t i = 0; i < count * n; i++) rows[i] = i < (count - 1) * n ? 1 : x[i % n];
    dots(n, count, rows, n, y, out);
    CHECK(count == 1 || out[count - 1] == before);
    out[0] = out[count - 1];
  }
  free(rows);
  return out[0];
}

// Dot products of every length around the blocks of the kernels.
static void gemm_test_dots(void) {
  for (ptrdiff_t n = 0; n < 200; n += 1 + n / 70) {
    gemm_case t = gemm_create(1, 1, n, TT_TRANSPOSE_B, (int)(n % 2), 0);
    float *x = gemm_narrow(n, t.a, 1), *y = gemm_narrow(n, t.b, 0);
    double single[5], wide[5];
    int kinds = 1;
    single[0] = gemm_dots_f32(tt__dots_f32, n, x + 1, y);
    wide[0] = gemm_dots_f64(tt__dots_f64, n, t.a, t.b);
    wide[kinds] = tt__dot(n, t.a, t.b);
    single[kinds++] = single[0];
#ifdef TT__SIMD
    single[kinds] = gemm_dots_f32(tt__tile_f32_dots, n, x + 1, y);
    wide[kinds++] = gemm_dots_f64(tt__tile_f64_dots, n, t.a, t.b);
#endif
#ifdef TT__DISPATCH
    if (tt__best_level() >= TT__AVX2) {
      single[kinds] = gemm_dots_f32(tt__tile_f32_avx2_dots, n, x + 1, y);
      wide[kinds++] = gemm_dots_f64(tt__tile_f64_avx2_dots, n, t.a, t.b);
    }
    if (tt__best_level() >= TT__AVX512) {
      single[kinds] = gemm_dots_f32(tt__tile_f32_avx512_dots, n, x + 1, y);
      wide[kinds++] = gemm_dots_f64(tt__tile_f64_avx512_dots, n, t.a, t.b);
    }
#endif
    t.single = 0;
    for (int kind = 0; kind < kinds; kind++) CHECK_AT_MOST(gemm_error(&t, wide + kind), 1);
    for (ptrdiff_t i = 0; i < n; i++) {
      t.a[i] = (double)x[i + 1];
      t.b[i] = (double)y[i];
    }
    t.single = 1;
    for (int kind = 0; kind < kinds; kind++) CHECK_AT_MOST(gemm_error(&t, single + kind), 1);
    free(x);
    free(y);
    gemm_free(&t);
  }
}

static void gemm_test_invalid(void) {
  double a[8] = {1, 2, 3, 4, 5, 6, 7, 8}, b[8] = {1, 2, 3, 4, 5, 6, 7, 8},
         c[8] = {9, 9, 9, 9, 9, 9, 9, 9};
  float x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, y[8] = {9, 9, 9, 9, 9, 9, 9, 9};
  tt_options bad = test_options();
  bad.max_rank = -1;
  CHECK_STATUS(tt_matmul_f64(-1, 2, 2, a, 2, b, 2, c, 2, 0, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul_f64(2, -1, 2, a, 2, b, 2, c, 2, 0, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul_f64(2, 2, -1, a, 2, b, 2, c, 2, 0, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul_f64(2, 2, 2, NULL, 2, b, 2, c, 2, 0, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul_f64(2, 2, 2, a, 2, NULL, 2, c, 2, 0, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul_f64(2, 2, 2, a, 2, b, 2, NULL, 2, 0, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul_f64(2, 2, 2, a, 1, b, 2, c, 2, 0, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul_f64(2, 2, 2, a, 2, b, 1, c, 2, 0, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul_f64(2, 2, 2, a, 2, b, 2, c, 1, 0, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul_f64(3, 2, 2, a, 2, b, 2, c, 2, TT_TRANSPOSE_A, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul_f64(2, 2, 3, a, 3, b, 2, c, 2, TT_TRANSPOSE_B, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul_f64(2, 2, 2, a, 2, b, 2, c, 2, 8, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul_f64(2, 2, 2, a, 2, b, 2, c, 2, -1, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul_f64(2, 2, 2, a, 2, b, 2, c, 2, 0, &bad), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul(2, 2, 2, x, 1, x, 2, y, 2, 0, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_matmul(2, 2, 2, x, 2, x, 2, NULL, 2, 0, NULL), TT_ERROR_INVALID);
  for (int i = 0; i < 8; i++) CHECK(c[i] == 9 && y[i] == 9);
}

// At most one allocation; without it TT_ERROR_MEMORY, C untouched, nothing leaked.
static void gemm_test_memory(void) {
  test_heap heap;
  tt_options options = test_options();
  float *a = test_normal_floats(40 * 50), *b = test_normal_floats(50 * 60),
        *c = test_floats(40 * 60);
  double *d = test_normal_doubles(40 * 60);
  options.allocator = test_allocator(&heap);
  CHECK_STATUS(tt_matmul(40, 60, 50, a, 50, b, 60, c, 60, 0, &options), TT_OK);
  CHECK(heap.calls <= 1 && heap.live_blocks == 0);
  long calls = heap.calls;
  CHECK_STATUS(tt_matmul_f64(40, 40, 60, d, 60, d, 60, d, 60, -1, &options), TT_ERROR_INVALID);
  CHECK(heap.calls == calls);
  for (int i = 0; i < 40 * 60; i++) c[i] = 7;
  options.allocator = test_allocator(&heap);
  heap.fail_at = 1;
  tt_status status = tt_matmul(40, 60, 50, a, 50, b, 60, c, 60, 0, &options);
  CHECK(status == (calls ? TT_ERROR_MEMORY : TT_OK) && heap.live_blocks == 0);
  for (int i = 0; i < 40 * 60 && calls; i++) CHECK(c[i] == 7);
  free(a); free(b); free(c); free(d);
}

static void test_gemm(void) {
  gemm_test_small();
  gemm_test_large();
  gemm_test_no_depth();
  gemm_test_special();
  gemm_test_exact();
  gemm_test_bits();
  gemm_test_levels();
  gemm_test_dots();
  gemm_test_invalid();
  gemm_test_memory();
}
