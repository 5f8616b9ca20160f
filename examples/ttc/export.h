// A layer as a C header: arrays in constant memory and a tt_matrix that tt_apply runs from there,
// for programs without files and without an allocator. What is written is C99 and C++11.
//
// The unit that includes this holds the implementation of tt.h: the workspace of a smaller build of
// it is worked out from private functions.
//
// Every array is `const` (else it would be copied to RAM) and aligned to 16 bytes (unaligned words
// stop a Cortex-M4F). tt_apply reads them through ordinary pointers: on a machine with a separate
// program memory (AVR) they take RAM all the same. Text compiles slowly: some 10 MB of source per
// MB of weights, which compilers read at 1 to 10 MB a second. Include after pack.h.
#ifndef TTC_EXPORT_H
#define TTC_EXPORT_H

#include "pack.h"
#include <ctype.h>
#include <math.h>

// ------------------------------------------------------------------------------------------- names

// Is the name a word of C or C++?
static int export_reserved(const char *name) {
  static const char words[] =
      " alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t "
      "char32_t char8_t class compl concept const const_cast consteval constexpr constinit "
      "continue co_await co_return co_yield decltype default delete do double dynamic_cast else "
      "enum explicit export extern false final float for friend goto if import inline int long "
      "main module mutable namespace new noexcept not not_eq nullptr operator or or_eq override "
      "private protected public register reinterpret_cast requires restrict return short signed "
      "sizeof static static_assert static_cast struct switch template this thread_local throw true "
      "try typedef typeid typename typeof union unsigned using virtual void volatile wchar_t while "
      "xor xor_eq NULL ";
  size_t length = strlen(name);
  for (const char *at = words; (at = strstr(at, name)) != NULL; at++)
    if (at[-1] == ' ' && at[length] == ' ') return 1;
  return 0;
}

// "h.0.attn" -> h_0_attn. Names that C, C++ or tt.h keep for themselves get "layer_" in front.
static void export_identifier(const char *layer, struct text *name) {
  char first = *layer;
  int letter = (first >= 'a' && first <= 'z') || (first >= 'A' && first <= 'Z');
  if (!letter || export_reserved(layer) || !strncmp(layer, "tt_", 3) || !strncmp(layer, "TT_", 3))
    text_add(name, "layer_");
  for (const char *at = layer; *at; at++) {
    int keep =
        (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || (*at >= '0' && *at <= '9');
    text_bytes(name, keep ? at : "_", 1);
  }
}

static void export_upper(const char *name, struct text *upper) {
  for (; *name; name++) {
    char c = (char)toupper((unsigned char)*name);
    text_bytes(upper, &c, 1);
  }
}

// Text inside a comment: nothing in it ends the comment or looks like another one.
static void export_comment(struct text *out, const char *what) {
  char before = 0;
  for (; *what; before = *what++) {
    if ((before == '*' && *what == '/') || (before == '/' && *what == '*')) text_bytes(out, " ", 1);
    text_bytes(out, (unsigned char)*what < 32 ? "?" : what, 1);
  }
}

// ------------------------------------------------------------------------------------------ arrays

enum export_kind { // how a number is stored, and thus written
  EXPORT_FLOAT,
  EXPORT_DOUBLE,
  EXPORT_U16,
  EXPORT_I8,
  EXPORT_U8
};

static const char *const export_types[] = {"float", "double", "uint16_t", "int8_t", "uint8_t"};
static const size_t export_sizes[] = {sizeof(float), sizeof(double), 2, 1, 1};

// A finite number as a literal that gives back the same bits.
static void export_real(char out[40], double value, int is_float) {
  sprintf(out, is_float ? "%.9g" : "%.17g", value);
  if (!strpbrk(out, ".e")) strcat(out, ".0");
  if (is_float) strcat(out, "f");
}

static void export_number(char out[40], int kind, const void *data, ptrdiff_t i) {
  const unsigned char *at = (const unsigned char *)data + (size_t)i * export_sizes[kind];
  float single;
  double twice;
  uint16_t word;
  if (kind == EXPORT_FLOAT) {
    memcpy(&single, at, sizeof single);
    export_real(out, (double)single, 1);
  } else if (kind == EXPORT_DOUBLE) {
    memcpy(&twice, at, sizeof twice);
    export_real(out, twice, 0);
  } else if (kind == EXPORT_U16) {
    memcpy(&word, at, sizeof word);
    sprintf(out, "%u", (unsigned)word);
  } else {
    sprintf(out, "%d", kind == EXPORT_I8 ? (int)(signed char)*at : (int)*at);
  }
}

// static const TYPE NAME[COUNT] = {...}; in lines of at most 100 columns. Returns its bytes.
static size_t export_array(struct text *out, int kind, const char *name, const void *data,
                           ptrdiff_t count) {
  size_t column = 100;
  text_add(out, "TT_ALIGN(16) static const %s %s[%ld] = {", export_types[kind], name, (long)count);
  for (ptrdiff_t i = 0; i < count; i++) {
    char number[40];
    export_number(number, kind, data, i);
    size_t length = strlen(number);
    if (column + length + 2 > 99) {
      text_bytes(out, "\n ", 2);
      column = 1;
    }
    text_bytes(out, " ", 1);
    text_bytes(out, number, length);
    text_bytes(out, ",", i + 1 < count);
    column += length + 2;
  }
  text_add(out, "\n};\n");
  return (size_t)count * export_sizes[kind];
}

static int export_kind_of(tt_dtype dtype) {
  if (dtype == TT_F32) return EXPORT_FLOAT;
  if (dtype == TT_F64) return EXPORT_DOUBLE;
  if (dtype == TT_F16 || dtype == TT_BF16) return EXPORT_U16;
  return dtype == TT_I8 ? EXPORT_I8 : EXPORT_U8;
}

// Codes of core k, then its scales. Returns their bytes.
static size_t export_core(struct text *out, const char *name, const tt_matrix *w, int k) {
  const tt_core *core = &w->cores[k];
  int turned = w->sweep == TT_LEFT_TO_RIGHT;
  const int *r = w->shape.ranks + k;
  ptrdiff_t rows = (ptrdiff_t)w->shape.rows[k] * (turned ? r[1] : r[0]);
  ptrdiff_t length = (ptrdiff_t)w->shape.cols[k] * (turned ? r[0] : r[1]);
  // elements of the array per code: packed codes are bytes, all others are one element each
  int bits = core->dtype == TT_I4 ? 4 : core->dtype == TT_I3 ? 3 : core->dtype == TT_I2 ? 2 : 8;
  char array[1200];
  snprintf(array, sizeof array, "%s_core%d", name, k);
  size_t size = export_array(out, export_kind_of(core->dtype), array, core->data,
                             rows * ((length * bits + 7) / 8));
  if (!core->group) return size;
  snprintf(array, sizeof array, "%s_scales%d", name, k);
  if (core->group < 0) return size + export_array(out, EXPORT_FLOAT, array, core->scales, rows);
  return size + export_array(out, EXPORT_U16, array, core->scales,
                             rows * ((length + core->group - 1) / core->group));
}

// ------------------------------------------------------------------------------------------ struct

static void export_integers(struct text *out, const int *values, int count) {
  for (int i = 0; i < count; i++) text_add(out, "%s%d", i ? ", " : "{", values[i]);
  text_add(out, "}");
}

// Every member is written, so that no compiler misses one.
static void export_matrix(struct text *out, const char *name, const tt_matrix *w) {
  static const char *const dtypes[] = {"TT_F32",  "TT_F64", "TT_F16", "TT_BF16", "TT_E4M3",
                                       "TT_E5M2", "TT_I8",  "TT_I4",  "TT_I3",   "TT_I2"};
  text_add(out, "static const tt_matrix %s = {\n  {%d, ", name, w->shape.order);
  export_integers(out, w->shape.rows, w->shape.order);
  text_add(out, ", ");
  export_integers(out, w->shape.cols, w->shape.order);
  text_add(out, ", ");
  export_integers(out, w->shape.ranks, w->shape.order + 1);
  text_add(out, "},\n  %s, %ld, %ld,\n  {",
           w->sweep == TT_LEFT_TO_RIGHT ? "TT_LEFT_TO_RIGHT" : "TT_RIGHT_TO_LEFT", (long)w->rows,
           (long)w->cols);
  for (int k = 0; k < w->shape.order; k++) {
    const tt_core *core = &w->cores[k];
    char scale[40];
    export_real(scale, (double)core->scale, 1);
    text_add(out, "%s{%s, %d, %s, %s_core%d, ", k ? ",\n   " : "", dtypes[core->dtype], core->group,
             scale, name, k);
    if (core->group)
      text_add(out, "%s_scales%d, NULL}", name, k);
    else
      text_add(out, "NULL, NULL}");
  }
  text_add(out, "},\n  %s%s, NULL, {NULL, NULL, NULL}\n};\n", w->bias ? name : "NULL",
           w->bias ? "_bias" : "");
}

// --------------------------------------------------------------------------------------- self-test

// Outputs for an input that a formula gives, computed here: the header can prove itself on the
// device. Sums may be rounded otherwise there, hence the tolerance.
static void export_self_test(struct text *out, const char *name, const char *upper,
                             const tt_matrix *w) {
  float *x = (float *)get_memory((size_t)w->cols, sizeof *x), largest = 0;
  float *y = (float *)get_memory((size_t)w->rows, sizeof *y);
  size_t size = tt_apply_work_size(w, 1);
  void *work = get_memory(size, 1);
  char array[1200], tolerance[40];
  for (ptrdiff_t i = 0; i < w->cols; i++) x[i] = (float)(i % 17 * 7 % 17 - 8) / 8;
  must(tt_apply(w, x, 1, y, work, size), "%s", name);
  for (ptrdiff_t i = 0; i < w->rows; i++) {
    if (y[i] - y[i] != 0) fail(EXIT_INPUT, "%s: its outputs leave the range of float", name);
    if (fabsf(y[i]) > largest) largest = fabsf(y[i]);
  }
  export_real(tolerance, 1e-4 * (double)largest, 1);
  snprintf(array, sizeof array, "%s_expected", name);
  text_add(out, "\n#ifdef %s_SELF_TEST\n", upper);
  export_array(out, EXPORT_FLOAT, array, y, w->rows);
  text_add(out,
           "/* 0 if this program computes what %s gave where it was exported, to 1e-4 of the\n"
           "   largest output. Takes RAM for x, y and the workspace. */\n"
           "static int %s_self_test(void) {\n"
           "  static float x[%s_COLS], y[%s_ROWS];\n"
           "  static unsigned char work[%s_SCRATCH_BYTES];\n"
           "  ptrdiff_t i;\n"
           "  for (i = 0; i < %s_COLS; i++) x[i] = (float)(i %% 17 * 7 %% 17 - 8) / 8;\n"
           "  if (tt_apply(&%s, x, 1, y, work, sizeof work)) return 1;\n"
           "  for (i = 0; i < %s_ROWS; i++) {\n"
           "    float gap = y[i] - %s_expected[i];\n"
           "    if (!(gap <= %s && gap >= -%s)) return 1;\n"
           "  }\n"
           "  return 0;\n"
           "}\n"
           "#endif\n",
           name, name, upper, upper, upper, upper, name, upper, name, tolerance, tolerance);
  free(x);
  free(y);
  free(work);
}

// ------------------------------------------------------------------------------------- the header

// Where it comes from, and how to use it.
static void export_head(struct text *out, const struct options *options, const struct model *model,
                        const char *name, const char *upper) {
  const char *layer = options->files[1], *source = find_metadata(model->file, "tt.source.sha256");
  text_add(out, "/* Layer \"");
  export_comment(out, layer);
  text_add(out, "\" as constant data for tt.h, made by ttc %s. Do not edit.\n\n   ttc export-c ",
           TT_VERSION);
  export_comment(out, options->files[0]);
  text_add(out, " ");
  export_comment(out, layer);
  text_add(out, " -o ");
  export_comment(out, options->output);
  text_add(out, "\n   sha256 of that file  %s", model->sha256);
  if (source) {
    text_add(out, "\n   and of its source    ");
    export_comment(out, source);
  }
  text_add(out,
           "\n\n"
           "     #define TT_IMPLEMENTATION             in one file of the program\n"
           "     #define TT_INFERENCE_ONLY\n"
           "     #include \"%s.h\"\n"
           "     static unsigned char work[%s_SCRATCH_BYTES];\n"
           "     tt_apply(&%s, x, 1, y, work, sizeof work);   y = W x + bias */\n",
           name, upper, name);
}

// Bytes of the arrays: what is stored, less the scales of whole cores, which stand in the struct.
static size_t export_flash(const tt_matrix *w) {
  size_t size = tt_stored_size(w);
  for (int k = 0; k < w->shape.order; k++)
    if (w->cores[k].scale != 0 && w->cores[k].scale != 1) size -= sizeof(float);
  return size;
}

// Limits of a program's workspace, see >>gemm and >>apply: floats of a slab, the block of the plain
// product, the block of the vector kernels. Tests compare with what such programs ask for.
struct export_limits {
  ptrdiff_t slab, depth, width, vector_depth, vector_rows;
};
static const struct export_limits EXPORT_SMALL = {256, 0, 0, 0, 0}, // TT_INFERENCE_ONLY
    EXPORT_FULL = {16384, 128, 128, 256, 516};

// tt_apply_work_size(w, 1) in a program with these limits, whatever this program was built with.
static size_t export_work(const tt_matrix *w, const struct export_limits *limit) {
  const ptrdiff_t each = (ptrdiff_t)sizeof(float), tile = 12;
  tt__buffers full;
  ptrdiff_t slab = 0, product = 0, total = 64;
  if (!tt__plan_buffers(w, 1, &full)) fail(EXIT_INPUT, "the layer is too large to run");
  for (int k = 0; k < w->shape.order; k++) {
    tt__step step;
    tt__step_at(w, 1, k, &step);
    ptrdiff_t rows = tt__max(1, tt__min(step.rows, limit->slab / step.length));
    ptrdiff_t m = step.w == 1 ? step.p : step.rows, n = step.w == 1 ? step.rows : step.w;
    ptrdiff_t high = (tt__min(m, limit->vector_rows) + tile - 1) / tile * tile;
    if (!tt__plain_core(&w->cores[step.core])) slab = tt__max(slab, rows * step.length);
    product = tt__max(product, tt__min(step.length, limit->depth) * tt__min(n, limit->width));
    product = tt__max(product, tt__min(step.length, limit->vector_depth) * high);
  }
  if (!tt__add_size(&total, full.state, each) || !tt__add_size(&total, full.state, each) ||
      !tt__add_size(&total, slab, each) || !tt__add_size(&total, product, each))
    fail(EXIT_INPUT, "the layer is too large to run");
  return (size_t)total;
}

static void export_macros(struct text *out, const char *upper, const tt_matrix *w) {
  int has_double = 0;
  for (int k = 0; k < w->shape.order; k++) has_double |= w->cores[k].dtype == TT_F64;
  text_add(out,
           "\n#if TT_MATRIX_LAYOUT != %d || TT_MAX_ORDER < %d\n"
           "#error \"made for another tt.h: export the layer again, or raise TT_MAX_ORDER\"\n"
           "#endif\n"
           "%s\n"
           "#ifndef TT_ALIGN\n"
           "#if defined(__GNUC__)\n"
           "#define TT_ALIGN(bytes) __attribute__((aligned(bytes)))\n"
           "#elif defined(_MSC_VER)\n"
           "#define TT_ALIGN(bytes) __declspec(align(bytes))\n"
           "#else\n"
           "#define TT_ALIGN(bytes)\n"
           "#endif\n"
           "#endif\n\n",
           TT_MATRIX_LAYOUT, w->shape.order,
           has_double
               ? "#ifdef TT_INFERENCE_ONLY\n"
                 "#error \"TT_INFERENCE_ONLY knows no F64: quantise the layer to F32 or less\"\n"
                 "#endif\n"
               : "");
  text_add(out, "#define %s_ROWS          %ld\n", upper, (long)w->rows);
  text_add(out, "#define %s_COLS          %ld\n", upper, (long)w->cols);
  text_add(out, "#define %s_FLASH_BYTES   %lu /* the arrays; sizeof(tt_matrix) comes on top */\n",
           upper, (unsigned long)export_flash(w));
  text_add(out, "#define %s_MACS          %ld /* multiply-adds for one input */\n", upper,
           (long)tt_apply_macs(w, 1));
  text_add(out,
           "#ifdef TT_INFERENCE_ONLY /* workspace of tt_apply for one input */\n"
           "#define %s_SCRATCH_BYTES %lu\n"
           "#else\n"
           "#define %s_SCRATCH_BYTES %lu\n"
           "#endif\n\n",
           upper, (unsigned long)export_work(w, &EXPORT_SMALL), upper,
           (unsigned long)export_work(w, &EXPORT_FULL));
}

// The whole header. Bytes of the arrays are counted as they are written and compared with what
// NAME_FLASH_BYTES says.
static void export_header(struct text *out, const struct options *options,
                          const struct model *model, const tt_matrix *w) {
  struct text name = {NULL, 0, 0}, upper = {NULL, 0, 0};
  char array[1200];
  size_t size = 0;
  export_identifier(options->files[1], &name);
  export_upper(name.data, &upper);
  export_head(out, options, model, name.data, upper.data);
  text_add(out, "#ifndef %s_H\n#define %s_H\n\n#include \"tt.h\"\n", upper.data, upper.data);
  export_macros(out, upper.data, w);
  for (int k = 0; k < w->shape.order; k++) size += export_core(out, name.data, w, k);
  if (w->bias) {
    snprintf(array, sizeof array, "%s_bias", name.data);
    size += export_array(out, EXPORT_FLOAT, array, w->bias, w->rows);
  }
  if (size != export_flash(w)) fail(EXIT_SYSTEM, "%s: arrays of another size", name.data);
  text_add(out, "\n");
  export_matrix(out, name.data, w);
  export_self_test(out, name.data, upper.data, w);
  text_add(out, "\n#endif\n");
  text_free(&name);
  text_free(&upper);
}

// ttc export-c FILE LAYER -o H
static void export_c(const struct options *options) {
  struct text out = {NULL, 0, 0};
  struct model model = model_open(options->files[0]);
  check_output(options->output, &model, options->force);
  tt_matrix train = read_train(&model, model_find(&model, options->files[1]));
  model_hash(&model);
  export_header(&out, options, &model, &train);
  stop_if_interrupted();
  text_save(&out, options->output);
  text_free(&out);
  tt_free(&train);
  model_close(&model);
}

#endif
