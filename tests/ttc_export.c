// Tests of `ttc export-c`, in two parts that checks/export.sh brings together; C99 and C++11.
//   ttc_export FILE        writes a file of trains: every storage format, order, sweep and group,
//                          with and without bias; prints their names
//   ttc_export FILE FOLDER writes headers with plans for integers, FOLDER/<name>.h; prints names
//   with -DHEADER="x.h" -DLAYER=x -DUPPER=X -DARRAYS=".. the arrays of x.h: sizeof a + .."
//   ttc_export FILE NAME   compares that header with layer NAME of FILE, bit for bit
// With -DTT_INFERENCE_ONLY the second has no FILE: it runs the self-test of the header alone. With
// -DPLAN it does so everywhere, and the header has a plan.
#ifdef LAYER
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define NAMED(a, b) a##b
#define MACRO(name, what) NAMED(name, what)
#define ROWS MACRO(UPPER, _ROWS)
#define COLS MACRO(UPPER, _COLS)
#define SCRATCH MACRO(UPPER, _SCRATCH_BYTES)
#include HEADER

static int failed;
static void check(int good, const char *what) {
  if (good) return;
  failed = 1;
  printf("%s: %s\n", HEADER, what);
}

#if !defined(TT_INFERENCE_ONLY) && !defined(PLAN)
#define FROM_FILE
static void compare(const tt_matrix *w, const char *path, const char *name) {
  static float x[COLS], y[ROWS], wanted[ROWS];
  static unsigned char work[SCRATCH];
  tt_file *file;
  tt_matrix loaded;
  check(!tt_file_open(path, NULL, &file), "the file opens");
  if (failed) return;
  check(!tt_file_matrix(file, name, NULL, &loaded), "the file has the layer");
  for (int trial = 0; trial < 20 && !failed; trial++) {
    for (int i = 0; i < COLS; i++) x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    check(!tt_apply(w, x, 1, y, work, sizeof work), "the header runs");
    check(!tt_apply(&loaded, x, 1, wanted, work, sizeof work), "the layer runs");
    check(!memcmp(y, wanted, sizeof y), "both give the same bits");
  }
  check(!memcmp(&w->shape, &loaded.shape, sizeof w->shape), "the shape");
  tt_free(&loaded);
  tt_file_close(file);
}
#endif

int main(int argc, char **argv) {
  const tt_matrix *w = &LAYER;
#ifdef FROM_FILE
  check(argc == 3, "two arguments");
  if (argc == 3) compare(w, argv[1], argv[2]);
#else
  (void)argc;
  (void)argv;
#endif
  check(w->rows == ROWS && w->cols == COLS, "NAME_ROWS, NAME_COLS");
#ifdef PLAN
  const tt_integer *plan = &MACRO(LAYER, _plan);
  check((ARRAYS) == MACRO(UPPER, _FLASH_BYTES) + MACRO(UPPER, _INTEGER_FLASH_BYTES), "the arrays");
  check(tt_integer_work_size(plan, w) == MACRO(UPPER, _INTEGER_SCRATCH_BYTES), "the workspace");
  check(!MACRO(LAYER, _integer_self_test)(), "the self-test of integers");
#else
  check((ARRAYS) == MACRO(UPPER, _FLASH_BYTES), "NAME_FLASH_BYTES is the size of the arrays");
#endif
  check(tt_apply_macs(w, 1) == MACRO(UPPER, _MACS), "NAME_MACS");
  check(tt_apply_work_size(w, 1) == SCRATCH, "NAME_SCRATCH_BYTES");
  check(!MACRO(LAYER, _self_test)(), "the self-test");
  return failed;
}
#else
#define TT_IMPLEMENTATION
#include "../tt.h"
#include <stdio.h>

static void must(tt_status status) {
  if (status == TT_OK) return;
  printf("ttc_export: %s\n", tt_status_string(status));
  exit(1);
}

static uint32_t state = 1;
static float noise(void) {
  state = state * 1664525u + 1013904223u;
  return (float)(state >> 8) / 16777216.0f - 0.5f;
}

// A train of this shape in every storage format and grouping, named "<what>.<format>".
static void add(tt_writer *writer, const char *name, const tt_matrix *w) {
  must(tt_writer_add_matrix(writer, name, w, NULL));
  puts(name);
}

static void add_formats(tt_writer *writer, const char *what, const tt_matrix *w) {
  static const char *const names[] = {"f32",  "f64", "f16", "bf16", "e4m3",
                                      "e5m2", "i8",  "i4",  "i3",   "i2"};
  static const int groups[] = {0, TT_GROUP_ROW, 32, 5};
  for (int dtype = TT_F32; dtype <= TT_I2; dtype++)
    for (int g = 0; g < (dtype >= TT_I8 ? 4 : 1); g++) {
      char name[80];
      tt_matrix coded;
      must(tt_quantize(w, (tt_dtype)dtype, groups[g], NULL, &coded, NULL));
      sprintf(name, "%s.%s.%d", what, names[dtype], g);
      add(writer, name, &coded);
      tt_free(&coded);
    }
}

static void add_shape(tt_writer *writer, const char *what, int order, int rows, int cols, int sweep,
                      int with_bias) {
  enum { MOST = 60 };
  static float w[MOST * MOST], bias[MOST];
  tt_options options;
  tt_shape shape;
  tt_matrix train, turned;
  memset(&options, 0, sizeof options);
  options.max_rank = 5;
  if (with_bias) options.bias = bias;
  for (int i = 0; i < rows * cols; i++) w[i] = noise();
  for (int i = 0; i < rows; i++) bias[i] = noise();
  must(tt_shape_factor(rows, cols, order, &shape));
  must(tt_compress(w, rows, cols, &shape, &options, &train, NULL));
  must(tt_turn(&train, sweep, NULL, &turned));
  add_formats(writer, what, &turned);
  tt_free(&train);
  tt_free(&turned);
}

// Names that are no names in C, and numbers at the ends of the range.
static void add_odd(tt_writer *writer) {
  static const float extreme[6] = {1.23456789e38f, -1.17549435e-38f, 1e-45f,
                                   -0.0f,          16777216,         1e-7f};
  static const char *const names[] = {"0.attn.c_attn", "double",    "_x",
                                      "tt_apply",      "a*/b//\\c", "static_cast"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    tt_matrix w = tt_dense_view(extreme, 1 + (i & 1), 3);
    add(writer, names[i], &w);
  }
}

// A header of a train in this format with its plan.
static void add_plan(const char *folder, const char *name, tt_dtype dtype, int sweep, int padded,
                     int rounding, int dynamic) {
  static float w[30 * 24], bias[30], x[4 * 24];
  static char text[200000], path[500];
  size_t size = sizeof text;
  tt_options options;
  tt_integer_options integers;
  tt_shape shape;
  tt_matrix train, turned, coded;
  tt_integer plan;
  memset(&options, 0, sizeof options);
  memset(&integers, 0, sizeof integers);
  options.bias = bias;
  integers.dynamic = dynamic;
  integers.rounding = rounding;
  integers.affine_in = padded;
  for (int i = 0; i < 30 * 24; i++) w[i] = noise();
  for (int i = 0; i < 30; i++) bias[i] = noise();
  for (int i = 0; i < 4 * 24; i++) x[i] = noise() + 0.25f;
  must(tt_shape_factor(30 - padded, 24 - padded, 2 + padded, &shape));
  must(tt_compress(w, 30 - padded, 24 - padded, &shape, &options, &train, NULL));
  must(tt_turn(&train, sweep, NULL, &turned));
  must(tt_quantize(&turned, dtype, padded ? TT_GROUP_ROW : 0, NULL, &coded, NULL));
  must(tt_integer_prepare(&coded, x, 4, &integers, &plan, NULL));
  must(tt_export_c(&coded, &plan, name, NULL, text, &size));
  sprintf(path, "%.400s/%.50s.h", folder, name);
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(text, 1, size - 1, file) != size - 1 || fclose(file)) exit(1);
  puts(name);
  // the size asked for beforehand is the size, and a byte less does not do
  size_t asked = 0, less = size - 1;
  must(tt_export_c(&coded, &plan, name, NULL, NULL, &asked));
  if (asked != size || tt_export_c(&coded, &plan, name, NULL, text, &less) != TT_ERROR_INVALID ||
      less != size || tt_export_c(&train, &plan, name, NULL, text, &less) != TT_ERROR_INVALID)
    exit(1);
  tt_integer_free(&plan);
  tt_free(&train);
  tt_free(&turned);
  tt_free(&coded);
}

int main(int argc, char **argv) {
  tt_writer *writer;
  if (argc == 3) {
    add_plan(argv[2], "right", TT_I8, TT_RIGHT_TO_LEFT, 0, TT_ROUND_SINGLE, 0);
    add_plan(argv[2], "left", TT_I8, TT_LEFT_TO_RIGHT, 1, TT_ROUND_DOUBLE, 0);
    add_plan(argv[2], "four", TT_I4, TT_LEFT_TO_RIGHT, 1, TT_ROUND_SINGLE, 0);
    add_plan(argv[2], "dynamic", TT_I8, TT_RIGHT_TO_LEFT, 1, TT_ROUND_SINGLE, 1);
    return 0;
  }
  if (argc < 2) return 2;
  must(tt_writer_create(NULL, &writer));
  add_shape(writer, "dense", 1, 37, 45, TT_RIGHT_TO_LEFT, 1);
  add_shape(writer, "two", 2, 36, 60, TT_RIGHT_TO_LEFT, 0);
  add_shape(writer, "padded", 3, 31, 59, TT_RIGHT_TO_LEFT, 1);
  add_shape(writer, "left", 3, 60, 24, TT_LEFT_TO_RIGHT, 1);
  add_odd(writer);
  must(tt_writer_save(writer, argv[1]));
  tt_writer_free(writer);
  return 0;
}
#endif
