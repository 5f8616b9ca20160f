// The C side of interop.py and interop_torch.py: writes what Python reads, reads what Python wrote.
//   interop codes FOLDER                     decode tables, and codes of FOLDER/inputs.f32
//   interop write FOLDER                     FOLDER/raw.safetensors and FOLDER/trains.safetensors
//   interop dump FILE FOLDER                 every tensor of FILE as float32, FOLDER/<index>.f32
//   interop fit FILE RANK FOLDER             samples a.inputs, matrix a.weight: fits and moments
//   interop compress FILE NAME ROWS COLS RANKS OUT    lists like 3,4,5; prints error and ranks
//   interop apply FILE LAYER FOLDER          tt_apply to FOLDER/x.f32 (batch, cols), FOLDER/y.f32
#define TT_IMPLEMENTATION
#include "../tt.h"
#include <stdio.h>

static void need(tt_status status, const char *what) {
  if (!status) return;
  printf("%s: %s\n", what, tt_status_string(status));
  exit(1);
}

static void *allocate(size_t size) {
  void *block = malloc(size ? size : 1);
  if (!block) exit(1);
  return block;
}

static void save(const char *folder, const char *name, const void *data, size_t size) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(data, 1, size, file) != size || fclose(file)) exit(1);
}

static const tt_dtype small_floats[4] = {TT_F16, TT_BF16, TT_E4M3, TT_E5M2};
static const char *const small_names[4] = {"F16", "BF16", "F8_E4M3", "F8_E5M2"};

static int codes(const char *folder) {
  char path[512], name[64];
  float *table = (float *)allocate(65536 * sizeof *table), value;
  uint16_t *out = (uint16_t *)allocate(1u << 20);
  for (int i = 0; i < 4; i++) {
    unsigned count = i < 2 ? 65536 : 256;
    for (unsigned code = 0; code < count; code++) table[code] = tt_to_f32(small_floats[i], code);
    snprintf(name, sizeof name, "%s.decoded", small_names[i]);
    save(folder, name, table, count * sizeof *table);
    snprintf(path, sizeof path, "%s/inputs.f32", folder);
    FILE *file = fopen(path, "rb");
    size_t given = 0;
    if (!file) return 1;
    while (given < 1u << 19 && fread(&value, sizeof value, 1, file) == 1)
      out[given++] = (uint16_t)tt_from_f32(small_floats[i], value, 0);
    fclose(file);
    snprintf(name, sizeof name, "%s.encoded", small_names[i]);
    save(folder, name, out, given * sizeof *out);
  }
  free(table);
  free(out);
  return 0;
}

// One raw tensor (3, 5) of every type; its bytes count up, so that Python knows them.
static void write_raw(const char *folder) {
  static const struct { const char *dtype; size_t size; } types[] = {
    {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"I8", 1},
    {"U8", 1}, {"I16", 2}, {"U16", 2}, {"I32", 4}, {"U32", 4}, {"I64", 8}, {"U64", 8}, {"BOOL", 1}};
  static const ptrdiff_t dims[2] = {3, 5};
  unsigned char bytes[120];
  char path[512];
  tt_writer *writer;
  need(tt_writer_create(NULL, &writer), "create");
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    for (int t = 0; t < 120; t++)
      bytes[t] = (unsigned char)(types[i].dtype[0] == 'B' && types[i].size == 1 ? t % 2 : t);
    need(tt_writer_add(writer, types[i].dtype, types[i].dtype, 2, dims, bytes, 15 * types[i].size),
         types[i].dtype);
  }
  need(tt_writer_add(writer, "scalar", "F32", 0, NULL, "\0\0\x80\x3F", 4), "scalar");
  static const ptrdiff_t empty[3] = {2, 0, 4};
  need(tt_writer_add(writer, "empty \"\\ \xC3\xA9", "F32", 3, empty, bytes, 0), "empty");
  need(tt_writer_metadata(writer, "note",
                          "quotes \" backslash \\ newline \n tab \t e-acute \xC3\xA9"),
       "metadata");
  snprintf(path, sizeof path, "%s/raw.safetensors", folder);
  need(tt_writer_save(writer, path), "save");
  tt_writer_free(writer);
}

// Trains in every storage format, both directions, with padding; beside each the dense matrix as
// float.
static void write_trains(const char *folder) {
  static const struct { const char *name; tt_dtype dtype; int group, order;
  } layers[] = {{"f32", TT_F32, 0, 3},          {"f64", TT_F64, 0, 3},
                {"f16", TT_F16, 0, 2},          {"bf16", TT_BF16, 0, 3},
                {"e4m3", TT_E4M3, 0, 3},        {"e5m2", TT_E5M2, 0, 2},
                {"i8", TT_I8, TT_GROUP_ROW, 3}, {"i8core", TT_I8, 0, 3},
                {"i4", TT_I4, 32, 3},           {"i3", TT_I3, 8, 2},
                {"i2", TT_I2, TT_GROUP_ROW, 1}};
  enum { ROWS = 46, COLS = 35 };
  static float w[ROWS * COLS], dense[ROWS * COLS];
  char path[512];
  tt_writer *writer;
  for (int i = 0; i < ROWS * COLS; i++)
    w[i] = (float)(i * 7919 % 1009) / 500 - 1 + 3.0f / (float)(1 + i / COLS + i % COLS);
  need(tt_writer_create(NULL, &writer), "create");
  for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
    static const ptrdiff_t dims[2] = {ROWS, COLS};
    char name[64];
    tt_shape shape;
    tt_matrix train, coded, turned;
    tt_report report;
    need(tt_shape_factor(ROWS, COLS, layers[i].order, &shape), "factor");
    need(tt_compress(w, ROWS, COLS, &shape, NULL, &train, &report), "compress");
    need(tt_quantize(&train, layers[i].dtype, layers[i].group, NULL, &coded, NULL), "quantize");
    need(tt_expand(&coded, dense), "expand");
    need(tt_writer_add_matrix(writer, layers[i].name, &coded, &report), "add");
    snprintf(name, sizeof name, "%s.dense", layers[i].name);
    need(tt_writer_add(writer, name, "F32", 2, dims, dense, sizeof dense), "dense");
    need(tt_prepare(&train, 3, NULL, &turned), "prepare");                // perhaps left to right
    snprintf(name, sizeof name, "%s_prepared", layers[i].name);
    need(tt_writer_add_matrix(writer, name, &turned, NULL), "add");
    need(tt_expand(&turned, dense), "expand");
    snprintf(name, sizeof name, "%s_prepared.dense", layers[i].name);
    need(tt_writer_add(writer, name, "F32", 2, dims, dense, sizeof dense), "dense");
    tt_free(&train);
    tt_free(&coded);
    tt_free(&turned);
  }
  snprintf(path, sizeof path, "%s/trains.safetensors", folder);
  need(tt_writer_save(writer, path), "save");
  tt_writer_free(writer);
}

static int dump(const char *path, const char *folder) {
  tt_file *file;
  need(tt_file_open(path, NULL, &file), path);
  for (int i = 0; i < tt_file_count(file); i++) {
    const char *name, *dtype;
    const ptrdiff_t *dims;
    int order;
    ptrdiff_t count = 1;
    char out[64];
    need(tt_file_tensor(file, i, &name, &dtype, &order, &dims, NULL, NULL), "tensor");
    printf("%d %s %s", i, dtype, name);
    for (int k = 0; k < order; k++) { count *= dims[k]; printf(" %ld", (long)dims[k]); }
    printf("\n");
    float *values = (float *)allocate((size_t)count * sizeof *values);
    need(tt_file_read_f32(file, i, values, count), name);
    snprintf(out, sizeof out, "%d.f32", i);
    save(folder, out, values, (size_t)count * sizeof *values);
    free(values);
  }
  for (int i = 0; i < tt_file_metadata_count(file); i++) {
    const char *key, *value;
    need(tt_file_metadata(file, i, &key, &value), "metadata");
    printf("metadata %s=%s\n", key, value);
  }
  tt_file_close(file);
  return 0;
}

static int numbers(const char *list, int *out) {
  int count = 0;
  for (char *end; *list && count <= TT_MAX_ORDER; list = *end ? end + 1 : end)
    out[count++] = (int)strtol(list, &end, 10);
  return count;
}

static int compress(char **argument) {
  tt_file *file;
  tt_shape shape;
  tt_matrix train;
  tt_report report;
  tt_options options;
  int index;
  ptrdiff_t rows = 1, cols = 1;
  memset(&shape, 0, sizeof shape);
  memset(&options, 0, sizeof options);
  options.dtype = TT_F64;
  shape.order = numbers(argument[2], shape.rows);
  (void)numbers(argument[3], shape.cols);
  (void)numbers(argument[4], shape.ranks);
  for (int k = 0; k < shape.order; k++) { rows *= shape.rows[k]; cols *= shape.cols[k]; }
  size_t size = (size_t)(rows * cols) * sizeof(double);
  double *w = (double *)allocate(size);
  need(tt_file_open(argument[0], NULL, &file), argument[0]);
  need(tt_file_find(file, argument[1], &index), argument[1]);
  need(tt_file_read(file, index, 0, w, size), "read");
  tt_file_close(file);
  need(tt_compress_f64(w, rows, cols, &shape, &options, &train, &report), "compress");
  need(tt_expand_f64(&train, w), "expand");
  save(argument[5], "dense.f64", w, size);
  printf("%.17g", report.relative_error);
  for (int k = 0; k <= shape.order; k++) printf(" %d", report.ranks[k]);
  printf("\n");
  tt_free(&train);
  free(w);
  return 0;
}

// FOLDER/moments.safetensors, low_rank.f64 (fitted) and int4.f64 (error propagation, groups of 32).
static int fit(const char *path, int rank, const char *folder) {
  char out[512];
  tt_file *file;
  tt_inputs *inputs;
  tt_matrix w, train, coded;
  tt_shape shape;
  tt_report report;
  tt_writer *writer;
  tt_options options;
  memset(&options, 0, sizeof options);
  memset(&shape, 0, sizeof shape);
  need(tt_file_open(path, NULL, &file), path);
  need(tt_file_inputs(file, "a", NULL, &inputs), "a.inputs");
  need(tt_file_matrix(file, "a", NULL, &w), "a.weight");
  tt_file_close(file);
  size_t size = (size_t)(w.rows * w.cols) * sizeof(double);
  double *dense = (double *)allocate(size);
  options.inputs = inputs;
  options.dtype = TT_F64;
  options.max_rank = rank;
  shape.order = 2;
  shape.rows[0] = (int)w.rows;
  shape.cols[1] = (int)w.cols;
  shape.rows[1] = shape.cols[0] = shape.ranks[0] = shape.ranks[2] = 1;
  need(tt_compress((const float *)w.cores[0].data, w.rows, w.cols, &shape, &options, &train,
                   &report),
       "compress");
  need(tt_expand_f64(&train, dense), "expand");
  save(folder, "low_rank.f64", dense, size);
  printf("%.17g", report.functional_error);
  need(tt_quantize(&w, TT_I4, 32, &options, &coded, &report), "quantize");
  need(tt_expand_f64(&coded, dense), "expand");
  save(folder, "int4.f64", dense, size);
  printf(" %.17g\n", report.functional_error);
  snprintf(out, sizeof out, "%s/moments.safetensors", folder);
  need(tt_writer_create(NULL, &writer), "writer");
  need(tt_writer_add_inputs(writer, "a", inputs), "add inputs");
  need(tt_writer_save(writer, out), out);
  tt_writer_free(writer);
  tt_inputs_free(inputs);
  tt_free(&w);
  tt_free(&train);
  tt_free(&coded);
  free(dense);
  return 0;
}

static int apply(const char *path, const char *layer, const char *folder) {
  char name[512];
  tt_file *file;
  tt_matrix w;
  need(tt_file_open(path, NULL, &file), path);
  need(tt_file_matrix(file, layer, NULL, &w), layer);
  tt_file_close(file);
  snprintf(name, sizeof name, "%s/x.f32", folder);
  FILE *given = fopen(name, "rb");
  if (!given || fseek(given, 0, SEEK_END)) return 1;
  ptrdiff_t batch = (ptrdiff_t)ftell(given) / (ptrdiff_t)sizeof(float) / w.cols;
  rewind(given);
  size_t work_size = tt_apply_work_size(&w, batch), count = (size_t)(batch * w.cols);
  float *x = (float *)allocate(count * sizeof *x);
  float *y = (float *)allocate((size_t)(batch * w.rows) * sizeof *y);
  void *work = allocate(work_size);
  if (fread(x, sizeof *x, count, given) != count || fclose(given)) return 1;
  need(tt_apply(&w, x, batch, y, work, work_size), "apply");
  save(folder, "y.f32", y, (size_t)(batch * w.rows) * sizeof *y);
  free(x);
  free(y);
  free(work);
  tt_free(&w);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "codes")) return codes(argv[2]);
  if (argc == 3 && !strcmp(argv[1], "write")) {
    write_raw(argv[2]);
    write_trains(argv[2]);
    return 0;
  }
  if (argc == 4 && !strcmp(argv[1], "dump")) return dump(argv[2], argv[3]);
  if (argc == 5 && !strcmp(argv[1], "fit")) return fit(argv[2], atoi(argv[3]), argv[4]);
  if (argc == 5 && !strcmp(argv[1], "apply")) return apply(argv[2], argv[3], argv[4]);
  if (argc == 8 && !strcmp(argv[1], "compress")) return compress(argv + 2);
  return 2;
}
