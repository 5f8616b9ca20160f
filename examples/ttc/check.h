// Commands that look and compare: info, expand, verify, diff. Include after pack.h.
#ifndef TTC_CHECK_H
#define TTC_CHECK_H

#include "pack.h"

// -------------------------------------------------------------------------------------------- info

// The largest entropy of the bonds of a train, in nats; NaN for a matrix that is not cut.
static double largest_entropy(const tt_matrix *train) {
  double largest = NO_VALUE;
  for (int k = 0; k + 1 < train->shape.order; k++) {
    int count = train->shape.ranks[k + 1];
    double *values = (double *)get_memory((size_t)count, sizeof *values);
    must(tt_spectrum(train, k, values, &count), "spectrum");
    double entropy = tt_entropy(values, count, 1);
    if (!(largest >= entropy)) largest = entropy;
    free(values);
  }
  return largest;
}

static void dims_text(const struct tensor *tensor, struct text *out) {
  for (int i = 0; i < tensor->order; i++)
    text_add(out, "%s%ld", i ? "x" : "", (long)tensor->dims[i]);
  if (tensor->order == 0) text_add(out, "scalar");
}

// A line of the table that is no layer.
static void info_tensor(const struct tensor *tensor, struct table *table, struct text *json) {
  struct text dims = {NULL, 0, 0};
  dims_text(tensor, &dims);
  table_cell(table, "%s", tensor->name);
  table_cell(table, "tensor");
  table_cell(table, "%s", dims.data);
  table_cell(table, "%s", tensor->dtype);
  for (int i = 0; i < 3; i++) table_cell(table, "-");
  table_cell(table, "%lu", (unsigned long)tensor->size);
  text_free(&dims);
  json_open(json, NULL, "{");
  json_text(json, "name", tensor->name);
  json_text(json, "dtype", tensor->dtype);
  json_open(json, "dims", "[");
  for (int i = 0; i < tensor->order; i++) json_integer(json, NULL, tensor->dims[i]);
  json_close(json, "]");
  json_integer(json, "bytes", (int64_t)tensor->size);
  json_close(json, "}");
}

static void info_layer(const struct model *model, const struct layer *layer, struct table *table,
                       struct text *json) {
  struct text modes = {NULL, 0, 0}, ranks = {NULL, 0, 0};
  double entropy = NO_VALUE;
  if (layer->tensor < 0) {
    tt_matrix train = read_train(model, layer);
    entropy = largest_entropy(&train);
    tt_free(&train);
  }
  shape_modes(&layer->shape, &modes);
  shape_ranks(&layer->shape, &ranks);
  table_cell(table, "%s", layer->name);
  table_cell(table, "%s", layer->tensor < 0 ? "train" : "layer");
  table_cell(table, "%ldx%ld", (long)layer->rows, (long)layer->cols);
  table_cell(table, "%s", layer->dtype);
  table_cell(table, "%s", modes.data);
  table_cell(table, "%s", ranks.data);
  table_real(table, 3, entropy);
  table_cell(table, "%lu", (unsigned long)layer->size);
  text_free(&modes);
  text_free(&ranks);
  json_open(json, NULL, "{");
  json_text(json, "name", layer->name);
  json_integer(json, "rows", layer->rows);
  json_integer(json, "cols", layer->cols);
  json_shape(json, &layer->shape);
  json_text(json, "dtype", layer->dtype);
  json_real(json, "entropy", entropy, 6);
  json_integer(json, "bytes", (int64_t)layer->size);
  json_close(json, "}");
}

// ttc info FILE
static void info(const struct options *options) {
  static const char *const titles[] = {"name",  "what",  "shape", "dtype",
                                       "modes", "ranks", "S_max", "bytes"};
  struct model model = open_input(options, options->files[0]);
  struct table table = table_begin("lllllrrr", titles);
  struct text json = {NULL, 0, 0}, others = {NULL, 0, 0};
  int trains = 0, num_others = 0;
  model_hash(&model);
  json_open(&json, NULL, "{");
  json_integer(&json, "schema", 1);
  json_text(&json, "sha256", model.sha256);
  json_text(&json, "data_sha256", model.data_sha256);
  json_open(&json, "layers", "[");
  for (int i = 0; i < model.num_layers; i++) {
    info_layer(&model, &model.layers[i], &table, &json);
    trains += model.layers[i].tensor < 0;
  }
  json_close(&json, "]");
  json_open(&others, NULL, "[");
  for (int i = 0; i < tt_file_count(model.file); i++) {
    struct tensor tensor = get_tensor(model.file, i);
    if (model.owner[i] < 0) info_tensor(&tensor, &table, &others);
    num_others += model.owner[i] < 0;
  }
  json_close(&others, "]");
  json_key(&json, "tensors");
  text_bytes(&json, others.data, others.size);
  json_integer(&json, "bytes", (int64_t)model.file_size);
  json_close(&json, "}\n");
  if (options->json) text_save(&json, options->json);
  if (!options->json || strcmp(options->json, "-")) {
    table_print(&table, stdout);
    printf("total: %d layers, %d of them trains; %d other tensors; %llu bytes\n", model.num_layers,
           trains, num_others, (unsigned long long)model.file_size);
    printf("sha256 %s\ndata   %s\n", model.sha256, model.data_sha256);
  }
  table_free(&table);
  text_free(&json);
  text_free(&others);
  model_close(&model);
}

// ------------------------------------------------------------------------------------------ expand

// Turns floats into little-endian numbers of a float format of safetensors; values beyond its range
// become its largest. Returns their bytes.
static size_t encode_floats(const float *values, ptrdiff_t count, const char *dtype, void *out) {
  const tt__file_type *type = &tt__file_types[tt__file_type_find(dtype)];
  int width = type->bits / 8;
  unsigned char *at = (unsigned char *)out;
  for (ptrdiff_t i = 0; i < count; i++, at += width) {
    double wide = (double)values[i];
    unsigned code = tt_from_f32((tt_dtype)type->dtype, values[i], 1);
    uint16_t half = (uint16_t)code;
    if (width == 8)
      memcpy(at, &wide, 8);
    else if (width == 4)
      memcpy(at, &values[i], 4);
    else if (width == 2)
      memcpy(at, &half, 2);
    else
      *at = (unsigned char)code;
  }
  tt__little(out, count, width);
  return (size_t)count * (size_t)width;
}

static void add_floats(tt_writer *writer, const char *name, const char *dtype, int order,
                       const ptrdiff_t *dims, const float *values) {
  ptrdiff_t count = order == 2 ? dims[0] * dims[1] : dims[0];
  void *bytes = get_memory((size_t)count, 8);
  size_t size = encode_floats(values, count, dtype, bytes);
  must(tt_writer_add(writer, name, dtype, order, dims, bytes, size), "tensor %s", name);
  free(bytes);
}

// A train becomes the tensor that it replaced; without a record, <layer>.weight in F32.
static void expand_layer(tt_writer *writer, const struct model *model, const struct layer *layer,
                         const struct record *record) {
  ptrdiff_t dims[2] = {layer->rows, layer->cols};
  tt_matrix train = read_train(model, layer);
  float *dense = (float *)get_memory((size_t)dims[0] * (size_t)dims[1], sizeof *dense);
  char *usual = join_strings(layer->name, ".weight");
  must(tt_expand(&train, dense), "layer %s", layer->name);
  add_floats(writer, record ? record->tensor : usual, record ? record->dtype : "F32", 2, dims,
             dense);
  if (record && record->bias && train.bias) {
    char *name = join_strings(layer->name, ".bias");
    add_floats(writer, name, record->bias, 1, dims, train.bias);
    free(name);
  }
  free(usual);
  free(dense);
  tt_free(&train);
}

// Does expand write this tensor anew, instead of copying it?
static int is_expanded(const struct model *model, const struct records *records, int index) {
  const struct layer *layer = model->owner[index] < 0 ? NULL : &model->layers[model->owner[index]];
  const struct record *record = layer ? find_record(records, layer->name) : NULL;
  if (!layer || layer->tensor >= 0) return 0;
  return index != layer->bias || (record && record->bias);
}

// ttc expand IN -o OUT
static void expand(const struct options *options) {
  struct model model = model_open(options->files[0]);
  struct records records = read_records(&model);
  const char *key, *value;
  int trains = 0;
  if (options->output && !options->dry_run) check_output(options->output, &model, options->force);
  tt_writer *writer = create_writer(options->dry_run ? NULL : options->output);
  for (int i = 0; i < model.num_layers; i++) {
    const struct layer *layer = &model.layers[i];
    stop_if_interrupted();
    if (layer->tensor >= 0) continue;
    expand_layer(writer, &model, layer, find_record(&records, layer->name));
    trains++;
  }
  for (int i = 0; i < tt_file_count(model.file); i++)
    if (!is_expanded(&model, &records, i))
      must(tt_writer_copy(writer, model.file, i), "tensor %s", get_tensor(model.file, i).name);
  for (int i = 0; i < tt_file_metadata_count(model.file); i++) {
    must(tt_file_metadata(model.file, i, &key, &value), "metadata");
    if (is_own_metadata(key)) must(tt_writer_metadata(writer, key, value), "metadata %s", key);
  }
  uint64_t size = writer_size(writer);
  save_writer(writer, options->output, options->dry_run);
  printf("%d trains expanded, %llu bytes\n", trains, (unsigned long long)size);
  discard_writer();
  free_records(&records);
  model_close(&model);
}

// --------------------------------------------------------------------------------- verify and diff

// In how many bytes do two tensors of equal size differ?
static uint64_t count_differences(const tt_file *a, int i, const tt_file *b, int j) {
  static unsigned char first[1 << 15], second[1 << 15];
  uint64_t different = 0;
  struct tensor tensor = get_tensor(a, i);
  for (size_t at = 0; at < tensor.size; at += sizeof first) {
    size_t some = tensor.size - at < sizeof first ? tensor.size - at : sizeof first;
    stop_if_interrupted();
    must(tt_file_read(a, i, at, first, some), "tensor %s", tensor.name);
    must(tt_file_read(b, j, at, second, some), "tensor %s", tensor.name);
    for (size_t k = 0; k < some; k++) different += first[k] != second[k];
  }
  return different;
}

static int same_shape(const struct tensor *a, const struct tensor *b) {
  if (a->order != b->order || strcmp(a->dtype, b->dtype)) return 0;
  for (int i = 0; i < a->order; i++)
    if (a->dims[i] != b->dims[i]) return 0;
  return 1;
}

static int same_tensor(const tt_file *a, int i, const tt_file *b, int j) {
  struct tensor first = get_tensor(a, i), second = get_tensor(b, j);
  return same_shape(&first, &second) && count_differences(a, i, b, j) == 0;
}

// ||a - b|| / ||a|| of two float tensors of the same shape.
static double tensor_distance(const tt_file *a, int i, const tt_file *b, int j) {
  struct tensor tensor = get_tensor(a, i);
  float *first = read_floats(a, i), *second = read_floats(b, j);
  double lost = 0, all = 0;
  for (ptrdiff_t k = 0; k < count_numbers(&tensor); k++) {
    double gap = (double)first[k] - (double)second[k];
    lost += gap * gap;
    all += (double)first[k] * (double)first[k];
  }
  free(first);
  free(second);
  return lost > 0 ? sqrt(lost / all) : 0;
}

struct verification {
  struct model dense, compressed;
  struct records records;
  struct table table;
  struct text json;
  int failures, equal; // equal: tensors that were copied
};

static void verify_row(struct verification *v, const char *name, double recorded, double measured,
                       const char *verdict) {
  int good = !strcmp(verdict, "ok");
  table_cell(&v->table, "%s", name);
  table_real(&v->table, 6, recorded);
  table_real(&v->table, 6, measured);
  table_cell(&v->table, "%s", verdict);
  json_open(&v->json, NULL, "{");
  json_text(&v->json, "name", name);
  json_real(&v->json, "recorded_error", recorded, 6);
  json_real(&v->json, "measured_error", measured, 6);
  json_text(&v->json, "verdict", verdict);
  json_close(&v->json, "}");
  v->failures += !good;
}

// The record of a train that replaced a tensor, or NULL: one that was there before is a copy.
static const struct record *record_of(const struct verification *v, const struct layer *layer) {
  if (layer->tensor >= 0 || find_part(v->dense.file, layer->name, ".cores.0") >= 0) return NULL;
  return find_record(&v->records, layer->name);
}

// Is tensor `index` of the compressed file a copy?
static int is_copy(const struct verification *v, int index) {
  int owner = v->compressed.owner[index];
  if (owner < 0) return 1;
  const struct layer *layer = &v->compressed.layers[owner];
  const struct record *record = record_of(v, layer);
  return !record || (index == layer->bias && !record->bias);
}

// Is the train of a record as near to the original as the record says?
static void verify_layer(struct verification *v, const struct layer *layer,
                         const struct record *record) {
  int index;
  double measured = NO_VALUE;
  const char *verdict = "FAILED: original missing";
  if (tt_file_find(v->dense.file, record->tensor, &index) == TT_OK) {
    struct tensor original = get_tensor(v->dense.file, index);
    verdict = "FAILED: another shape";
    if (is_matrix(&original) && original.dims[0] == layer->rows &&
        original.dims[1] == layer->cols) {
      tt_matrix train = read_train(&v->compressed, layer);
      float *w = read_floats(v->dense.file, index);
      measured = weight_error(&train, w, NULL);
      verdict = measured <= 1.01 * record->relative_error + 1e-6 ? "ok" : "FAILED: error";
      free(w);
      tt_free(&train);
    }
  }
  verify_row(v, layer->name, record->relative_error, measured, verdict);
}

// Everything that no fit has changed must be there, byte for byte, and nothing more.
static void verify_copies(struct verification *v) {
  const tt_file *dense = v->dense.file, *compressed = v->compressed.file;
  int other;
  for (int i = 0; i < tt_file_count(compressed); i++) {
    const char *name = get_tensor(compressed, i).name;
    if (!is_copy(v, i)) continue;
    if (tt_file_find(dense, name, &other) != TT_OK)
      verify_row(v, name, NO_VALUE, NO_VALUE, "FAILED: not in the original");
    else if (!same_tensor(dense, other, compressed, i))
      verify_row(v, name, NO_VALUE, NO_VALUE, "FAILED: differs");
    else
      v->equal++;
  }
  for (int i = 0; i < tt_file_count(dense); i++) {
    const char *name = get_tensor(dense, i).name;
    int replaced = 0;
    for (size_t k = 0; k < v->records.count && !replaced; k++)
      replaced = !strcmp(v->records.list[k].tensor, name) &&
                 find_part(compressed, v->records.list[k].layer, ".cores.0") >= 0;
    if (!replaced && tt_file_find(compressed, name, &other) != TT_OK)
      verify_row(v, name, NO_VALUE, NO_VALUE, "FAILED: missing");
  }
}

// ttc verify DENSE COMPRESSED
static int verify(const struct options *options) {
  static const char *const titles[] = {"what", "recorded", "measured", "verdict"};
  struct verification v;
  memset(&v, 0, sizeof v);
  v.dense = open_input(options, options->files[0]);
  v.compressed = open_input(options, options->files[1]);
  v.records = read_records(&v.compressed);
  v.table = table_begin("lrrl", titles);
  const char *source = find_metadata(v.compressed.file, "tt.source.sha256");
  if (!source) fail(EXIT_INPUT, "%s: does not say what it was made from", options->files[1]);
  model_hash(&v.dense);
  json_open(&v.json, NULL, "{");
  json_integer(&v.json, "schema", 1);
  json_text(&v.json, "source_sha256", v.dense.sha256);
  json_open(&v.json, "checks", "[");
  verify_row(&v, "source sha256", NO_VALUE, NO_VALUE,
             strcmp(source, v.dense.sha256) ? "FAILED: made from another file" : "ok");
  for (int i = 0; i < v.compressed.num_layers; i++) {
    const struct layer *layer = &v.compressed.layers[i];
    const struct record *record = record_of(&v, layer);
    stop_if_interrupted();
    if (record) verify_layer(&v, layer, record);
  }
  verify_copies(&v);
  json_close(&v.json, "]");
  json_integer(&v.json, "equal_tensors", v.equal);
  json_integer(&v.json, "failures", v.failures);
  json_close(&v.json, "}\n");
  if (options->json) text_save(&v.json, options->json);
  if (!options->json || strcmp(options->json, "-")) {
    table_print(&v.table, stdout);
    printf("%d other tensors are equal; %d checks failed\n", v.equal, v.failures);
  }
  table_free(&v.table);
  text_free(&v.json);
  free_records(&v.records);
  model_close(&v.dense);
  model_close(&v.compressed);
  return v.failures ? EXIT_DIFFERENT : EXIT_GOOD;
}

struct comparison {
  const tt_file *a, *b;
  struct table table;
  struct text json;
  int differences, equal;
};

static void diff_row(struct comparison *c, const char *name, double distance, const char *what) {
  table_cell(&c->table, "%s", name);
  table_real(&c->table, 6, distance);
  table_cell(&c->table, "%s", what);
  json_open(&c->json, NULL, "{");
  json_text(&c->json, "name", name);
  json_real(&c->json, "distance", distance, 6);
  json_text(&c->json, "difference", what);
  json_close(&c->json, "}");
  c->differences++;
}

static void diff_tensor(struct comparison *c, int i, int j) {
  struct tensor first = get_tensor(c->a, i), second = get_tensor(c->b, j);
  struct text what = {NULL, 0, 0};
  uint64_t bytes;
  if (!same_shape(&first, &second)) {
    text_add(&what, "%s ", first.dtype);
    dims_text(&first, &what);
    text_add(&what, " against %s ", second.dtype);
    dims_text(&second, &what);
    diff_row(c, first.name, NO_VALUE, what.data);
  } else if ((bytes = count_differences(c->a, i, c->b, j)) > 0) {
    text_add(&what, "%llu of %lu bytes", (unsigned long long)bytes, (unsigned long)first.size);
    double distance = is_float(first.dtype) ? tensor_distance(c->a, i, c->b, j) : NO_VALUE;
    diff_row(c, first.name, distance, what.data);
  } else {
    c->equal++;
  }
  text_free(&what);
}

// Pairs of `from` that `other` lacks, or, once, has with another value.
static void diff_metadata(struct comparison *c, const tt_file *from, const tt_file *other,
                          const char *lacking, int compare) {
  const char *key, *value;
  for (int i = 0; i < tt_file_metadata_count(from); i++) {
    must(tt_file_metadata(from, i, &key, &value), "metadata");
    const char *there = find_metadata(other, key);
    char *name = join_strings("metadata ", key);
    if (!there)
      diff_row(c, name, NO_VALUE, lacking);
    else if (compare && strcmp(there, value))
      diff_row(c, name, NO_VALUE, "another value");
    free(name);
  }
}

// ttc diff A B
static int diff(const struct options *options) {
  static const char *const titles[] = {"tensor", "distance", "difference"};
  struct comparison c;
  struct model a = open_input(options, options->files[0]);
  struct model b = open_input(options, options->files[1]);
  int other;
  memset(&c, 0, sizeof c);
  c.a = a.file;
  c.b = b.file;
  c.table = table_begin("lrl", titles);
  json_open(&c.json, NULL, "{");
  json_integer(&c.json, "schema", 1);
  json_open(&c.json, "differences", "[");
  for (int i = 0; i < tt_file_count(c.a); i++) {
    const char *name = get_tensor(c.a, i).name;
    if (tt_file_find(c.b, name, &other) == TT_OK)
      diff_tensor(&c, i, other);
    else
      diff_row(&c, name, NO_VALUE, "only in A");
  }
  for (int i = 0; i < tt_file_count(c.b); i++) {
    const char *name = get_tensor(c.b, i).name;
    if (tt_file_find(c.a, name, &other) != TT_OK) diff_row(&c, name, NO_VALUE, "only in B");
  }
  diff_metadata(&c, c.a, c.b, "only in A", 1);
  diff_metadata(&c, c.b, c.a, "only in B", 0);
  json_close(&c.json, "]");
  json_integer(&c.json, "equal_tensors", c.equal);
  json_close(&c.json, "}\n");
  if (options->json) text_save(&c.json, options->json);
  if (!options->json || strcmp(options->json, "-")) {
    if (c.differences) table_print(&c.table, stdout);
    printf("%d tensors are equal; %d differences\n", c.equal, c.differences);
  }
  table_free(&c.table);
  text_free(&c.json);
  model_close(&a);
  model_close(&b);
  return c.differences ? EXIT_DIFFERENT : EXIT_GOOD;
}

#endif
