// A checkpoint as layers. A layer is a train that is already there (X.cores.*), or a
// two-dimensional float tensor: X.weight is layer X with bias X.bias, any other has its own name.
// Also the hashes of the file, the numbers of a layer, and what a calibration file knows of it.
// Include after text.h.
#ifndef TTC_MODEL_H
#define TTC_MODEL_H

#include "text.h"

struct layer {
  const char *name;
  int tensor;        // the matrix among the tensors of the file; -1 for a train
  int bias;          // its bias; -1 = none
  const char *dtype; // of the tensor, or of the first core
  ptrdiff_t rows, cols;
  uint64_t size;    // bytes of everything stored, bias included
  tt_shape shape;   // of a train; order 1 for a tensor
  tt_matrix header; // of a train: all but its numbers
};

struct model {
  const char *path;
  tt_file *file;
  int num_layers;
  struct layer *layers; // in the order of the file
  int *owner;           // of every tensor: the layer that it belongs to, or -1
  uint64_t file_size;
  char sha256[65], data_sha256[65]; // of the whole file and of the bytes behind its header
};

// -------------------------------------------------------------------------------------- one tensor

struct tensor {
  const char *name, *dtype;
  int order;
  const ptrdiff_t *dims;
  size_t size;
};

static struct tensor get_tensor(const tt_file *file, int index) {
  struct tensor t;
  must(tt_file_tensor(file, index, &t.name, &t.dtype, &t.order, &t.dims, NULL, &t.size), "tensor");
  return t;
}

static ptrdiff_t count_numbers(const struct tensor *tensor) {
  ptrdiff_t count = 1;
  for (int i = 0; i < tensor->order; i++) count *= tensor->dims[i];
  return count;
}

static int is_float(const char *dtype) {
  static const char *const floats[] = {"F32", "F64", "F16", "BF16", "F8_E4M3", "F8_E5M2"};
  for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
    if (!strcmp(dtype, floats[i])) return 1;
  return 0;
}

// "<first><second>" as a new string.
static char *join_strings(const char *first, const char *second) {
  size_t size = strlen(first), more = strlen(second) + 1;
  char *both = (char *)get_memory(size + more, 1);
  memcpy(both, first, size);
  memcpy(both + size, second, more);
  return both;
}

// The tensor "<layer><part>", or -1.
static int find_part(const tt_file *file, const char *layer, const char *part) {
  char *name = join_strings(layer, part);
  int index, found = tt_file_find(file, name, &index) == TT_OK;
  free(name);
  return found ? index : -1;
}

static int ends_with(const char *text, const char *end) {
  size_t length = strlen(text), more = strlen(end);
  return length >= more && !strcmp(text + length - more, end);
}

// All numbers of a tensor as floats.
static float *read_floats(const tt_file *file, int index) {
  struct tensor tensor = get_tensor(file, index);
  ptrdiff_t count = count_numbers(&tensor);
  float *values = (float *)get_memory((size_t)count, sizeof *values);
  must(tt_file_read_f32(file, index, values, count), "tensor %s", tensor.name);
  return values;
}

// ------------------------------------------------------------------------------------------ hashes

// Path of shard `index` of a sharded checkpoint: beside its index.
static char *shard_path(const struct model *model, int index) {
  const char *name = "", *slash = strrchr(model->path, '/');
  must(tt_file_shard_name(model->file, index, &name), "%s", model->path);
#ifdef _WIN32
  const char *other = strrchr(model->path, '\\');
  if (other && (!slash || other > slash)) slash = other;
#endif
  char *folder = copy_string(model->path);
  folder[slash ? slash - model->path + 1 : 0] = 0;
  char *path = join_strings(folder, name);
  free(folder);
  return path;
}

// Feeds a file to two hashes, of which `data` (if not NULL) starts behind the header. Returns its
// size.
static uint64_t hash_file(const char *path, tt_sha256 *whole, tt_sha256 *data) {
  static unsigned char piece[1 << 16];
  uint64_t size = 0, header = 8;
  FILE *file = fopen(path, "rb");
  if (!file) fail(EXIT_SYSTEM, "%s: %s", path, strerror(errno));
  for (size_t got; (got = fread(piece, 1, sizeof piece, file)) > 0; size += got) {
    stop_if_interrupted();
    tt_sha256_add(whole, piece, got);
    for (int i = 0; size == 0 && i < 8 && got >= 8; i++) header += (uint64_t)piece[i] << (8 * i);
    if (!data || size + got <= header) continue;
    size_t skip = size < header ? (size_t)(header - size) : 0;
    tt_sha256_add(data, piece + skip, got - skip);
  }
  if (ferror(file)) fail(EXIT_SYSTEM, "%s: cannot read", path);
  fclose(file);
  return size;
}

// Hash of a file without a header.
static void hash_text_file(const char *path, char sha256[65]) {
  unsigned char digest[32];
  tt_sha256 whole;
  tt_sha256_begin(&whole);
  hash_file(path, &whole, NULL);
  tt_sha256_end(&whole, digest);
  print_hex(digest, 32, sha256);
}

// Hashes and size of the checkpoint. In several files: the hash of the index and of all shards
// behind it, in the order of their names; the size is that of the shards.
static void model_hash(struct model *model) {
  unsigned char digest[32];
  tt_sha256 whole, data;
  int shards = tt_file_shard_count(model->file);
  tt_sha256_begin(&whole);
  tt_sha256_begin(&data);
  model->file_size = hash_file(model->path, &whole, shards ? NULL : &data);
  if (shards) model->file_size = 0;
  for (int i = 0; i < shards; i++) {
    char *path = shard_path(model, i);
    model->file_size += hash_file(path, &whole, &data);
    free(path);
  }
  tt_sha256_end(&whole, digest);
  print_hex(digest, 32, model->sha256);
  tt_sha256_end(&data, digest);
  print_hex(digest, 32, model->data_sha256);
}

// ------------------------------------------------------------------------------------------ layers

// Is it a matrix of numbers that a train can stand for? Biases stay with their layers.
static int is_matrix(const struct tensor *t) {
  return t->order == 2 && is_float(t->dtype) && t->dims[0] > 0 && t->dims[1] > 0 &&
         t->dims[0] <= INT_MAX && t->dims[1] <= INT_MAX && !ends_with(t->name, ".bias");
}

// If the tensor is part of a train ("<layer>.cores.<k>", ".scale.<k>", ".scales.<k>"): its core 0,
// else -1. *length becomes that of the layer's name.
static int find_core(const tt_file *file, const char *name, size_t *length) {
  static const char *const parts[] = {".cores", ".scale", ".scales"};
  const char *number = strrchr(name, '.');
  int found = -1;
  if (!number || !number[1] || number[1 + strspn(number + 1, "0123456789")]) return -1;
  for (size_t i = 0; i < sizeof parts / sizeof *parts && found < 0; i++) {
    size_t before = (size_t)(number - name), part = strlen(parts[i]);
    if (before <= part || memcmp(number - part, parts[i], part)) continue;
    char *layer = copy_string(name);
    *length = before - part;
    layer[*length] = 0;
    found = find_part(file, layer, ".cores.0");
    free(layer);
  }
  return found;
}

// Releases the numbers of a train. What is left says which tensors it takes in a file: the bias, if
// there is one, is only remembered.
static void strip_train(tt_matrix *train) {
  static const float somewhere = 0;
  tt_matrix header = *train;
  header.block = NULL;
  if (header.bias) header.bias = &somewhere;
  for (int k = 0; k < header.shape.order; k++) header.cores[k].data = header.cores[k].scales = NULL;
  tt_free(train);
  *train = header;
}

// The train of a layer, or a dense layer as a train of order 1.
static tt_matrix read_train(const struct model *model, const struct layer *layer) {
  tt_options options = patience();
  tt_matrix train;
  must(tt_file_matrix(model->file, layer->name, &options, &train), "%s: layer %s", model->path,
       layer->name);
  return train;
}

static struct layer *add_layer(struct model *model, size_t *room, char *name) {
  model->layers =
      (struct layer *)grow(model->layers, (size_t)model->num_layers, room, sizeof *model->layers);
  struct layer *layer = &model->layers[model->num_layers++];
  memset(layer, 0, sizeof *layer);
  layer->name = name;
  layer->tensor = -1;
  layer->bias = find_part(model->file, name, ".bias");
  return layer;
}

// Tensor `index` is core 0 of a train, whose name is the first `length` characters.
static void add_train(struct model *model, size_t *room, int index, size_t length) {
  struct tensor core = get_tensor(model->file, index);
  char *name = copy_string(core.name);
  name[length] = 0;
  struct layer *layer = add_layer(model, room, name);
  tt_matrix train = read_train(model, layer);
  layer->dtype = core.dtype;
  layer->rows = train.rows;
  layer->cols = train.cols;
  layer->shape = train.shape;
  strip_train(&train);
  layer->header = train;
}

// May a matrix be called `name`? Not if that is another tensor or a train, nor if "<name>.bias" is
// there without being its bias, nor if it is too long for "<name>.scales.0": a train of that name
// could not be read back.
static int name_fits(const tt_file *file, const char *name, int index) {
  struct tensor matrix = get_tensor(file, index);
  int same, bias = find_part(file, name, ".bias");
  if (!*name || strlen(name) + sizeof ".scales.00" > TT__NAME_CAP) return 0;
  if (find_part(file, name, ".cores.0") >= 0) return 0;
  if (tt_file_find(file, name, &same) == TT_OK && same != index) return 0;
  if (bias < 0) return 1;
  struct tensor vector = get_tensor(file, bias);
  return vector.order == 1 && vector.dims[0] == matrix.dims[0] && is_float(vector.dtype);
}

// Tensor `index` is a matrix. Its layer is X for X.weight where that fits; without a fitting name
// it is no layer.
static void add_dense(struct model *model, size_t *room, int index) {
  struct tensor tensor = get_tensor(model->file, index);
  char *name = copy_string(tensor.name);
  if (ends_with(name, ".weight")) {
    name[strlen(name) - 7] = 0;
    if (!name_fits(model->file, name, index)) strcpy(name, tensor.name);
  }
  if (!name_fits(model->file, name, index)) {
    free(name);
    return;
  }
  struct layer *layer = add_layer(model, room, name);
  layer->tensor = index;
  layer->dtype = tensor.dtype;
  layer->rows = tensor.dims[0];
  layer->cols = tensor.dims[1];
  layer->shape.order = layer->shape.ranks[0] = layer->shape.ranks[1] = 1;
  layer->shape.rows[0] = (int)layer->rows;
  layer->shape.cols[0] = (int)layer->cols;
}

// Opens a checkpoint and finds its layers, in the order of the file.
static struct model model_open(const char *path) {
  struct model model;
  size_t room = 0, length;
  memset(&model, 0, sizeof model);
  model.path = path;
  must(tt_file_open(path, NULL, &model.file), "%s", path);
  int count = tt_file_count(model.file);
  model.owner = (int *)get_memory((size_t)count, sizeof *model.owner);
  for (int i = 0; i < count; i++) {
    struct tensor tensor = get_tensor(model.file, i);
    int core = find_core(model.file, tensor.name, &length), before = model.num_layers;
    if (core == i)
      add_train(&model, &room, i, length);
    else if (core < 0 && is_matrix(&tensor))
      add_dense(&model, &room, i);
    model.owner[i] = model.num_layers > before ? before : -1;
  }
  for (int i = 0; i < count; i++) {
    int core = find_core(model.file, get_tensor(model.file, i).name, &length);
    if (core >= 0) model.owner[i] = model.owner[core];
  }
  for (int i = 0; i < model.num_layers; i++)
    if (model.layers[i].bias >= 0) model.owner[model.layers[i].bias] = i;
  for (int i = 0; i < count; i++)
    if (model.owner[i] >= 0) model.layers[model.owner[i]].size += get_tensor(model.file, i).size;
  return model;
}

static void model_close(struct model *model) {
  for (int i = 0; i < model->num_layers; i++) free((char *)model->layers[i].name);
  free(model->layers);
  free(model->owner);
  tt_file_close(model->file);
  memset(model, 0, sizeof *model);
}

// The layer of this name; ends the program if there is none.
static const struct layer *model_find(const struct model *model, const char *name) {
  for (int i = 0; i < model->num_layers; i++)
    if (!strcmp(model->layers[i].name, name)) return &model->layers[i];
  fail(EXIT_INPUT, "%s: no layer %s", model->path, name);
  return NULL;
}

// The values of the bias of a layer, or NULL if it has none.
static float *read_bias(const struct model *model, const struct layer *layer) {
  return layer->bias < 0 ? NULL : read_floats(model->file, layer->bias);
}

// ------------------------------------------------------------------------------------------ shapes

// Legs of the cores, (16x4)(4x16), or "-" for a matrix that is not cut.
static void shape_modes(const tt_shape *shape, struct text *out) {
  for (int k = 0; k < shape->order && shape->order > 1; k++)
    text_add(out, "(%dx%d)", shape->rows[k], shape->cols[k]);
  if (shape->order == 1) text_add(out, "-");
}

// Inner ranks, 8,16, or "-".
static void shape_ranks(const tt_shape *shape, struct text *out) {
  for (int k = 1; k < shape->order; k++) text_add(out, "%s%d", k > 1 ? "," : "", shape->ranks[k]);
  if (shape->order == 1) text_add(out, "-");
}

static void json_shape(struct text *json, const tt_shape *shape) {
  json_open(json, "shape", "{");
  json_integers(json, "rows", shape->rows, shape->order);
  json_integers(json, "cols", shape->cols, shape->order);
  json_integers(json, "ranks", shape->ranks, shape->order + 1);
  json_close(json, "}");
}

// ----------------------------------------------------------------------------------------- records
// The metadata key "ttc.layers" is JSON: what each train stands for, so that `expand` can restore
// names and formats and `verify` knows the errors that were measured.

struct record { // strings are its own
  char *layer;
  char *tensor, *dtype; // name and format of the tensor that was replaced
  char *bias;           // format of the bias that was replaced, NULL = it was not
  char *spec;
  double relative_error, functional_error, svd_error; // NaN where they do not apply
};

struct records {
  struct record *list;
  size_t count, room;
};

static void set_string(char **to, const char *text) {
  free(*to);
  *to = text ? copy_string(text) : NULL;
}

static void free_record(struct record *record) {
  free(record->layer);
  free(record->tensor);
  free(record->dtype);
  free(record->bias);
  free(record->spec);
  memset(record, 0, sizeof *record);
}

static struct record copy_record(const struct record *from) {
  struct record record = *from;
  record.layer = copy_string(from->layer);
  record.tensor = copy_string(from->tensor);
  record.dtype = copy_string(from->dtype);
  record.bias = from->bias ? copy_string(from->bias) : NULL;
  record.spec = from->spec ? copy_string(from->spec) : NULL;
  return record;
}

static void free_records(struct records *records) {
  for (size_t i = 0; i < records->count; i++) free_record(&records->list[i]);
  free(records->list);
  memset(records, 0, sizeof *records);
}

// Value of a key of the metadata, or NULL.
static const char *find_metadata(const tt_file *file, const char *wanted) {
  const char *key, *value;
  for (int i = 0; i < tt_file_metadata_count(file); i++) {
    must(tt_file_metadata(file, i, &key, &value), "metadata");
    if (!strcmp(key, wanted)) return value;
  }
  return NULL;
}

static void read_record(tt__json *json, struct record *record) {
  char word[32];
  ptrdiff_t count = 0;
  record->relative_error = record->functional_error = record->svd_error = NO_VALUE;
  tt__json_expect(json, '{');
  while (tt__json_more(json, '}', &count)) {
    tt__json_string(json, word, sizeof word);
    tt__json_expect(json, ':');
    if (!strcmp(word, "tensor"))
      json_read_string(json, &record->tensor);
    else if (!strcmp(word, "dtype"))
      json_read_string(json, &record->dtype);
    else if (!strcmp(word, "bias"))
      json_read_string(json, &record->bias);
    else if (!strcmp(word, "spec"))
      json_read_string(json, &record->spec);
    else if (!strcmp(word, "relative_error"))
      record->relative_error = json_read_real(json);
    else if (!strcmp(word, "functional_error"))
      record->functional_error = json_read_real(json);
    else if (!strcmp(word, "svd_error"))
      record->svd_error = json_read_real(json);
    else
      tt__json_skip(json);
  }
  if (!record->layer || !record->tensor || !record->dtype || !is_float(record->dtype) ||
      (record->bias && !is_float(record->bias)))
    tt__json_fail(json, TT_ERROR_FORMAT);
}

// All records of a file; none if it has no such key.
static struct records read_records(const struct model *model) {
  struct records records = {NULL, 0, 0};
  const char *text = find_metadata(model->file, "ttc.layers");
  ptrdiff_t count = 0;
  if (!text) return records;
  tt__json json = tt__json_open(text, (ptrdiff_t)strlen(text));
  tt__json_expect(&json, '{');
  while (tt__json_more(&json, '}', &count)) {
    records.list =
        (struct record *)grow(records.list, records.count, &records.room, sizeof *records.list);
    struct record *record = &records.list[records.count++];
    memset(record, 0, sizeof *record);
    json_read_string(&json, &record->layer);
    tt__json_expect(&json, ':');
    read_record(&json, record);
  }
  must(json.status, "%s: metadata ttc.layers", model->path);
  return records;
}

static const struct record *find_record(const struct records *records, const char *layer) {
  for (size_t i = 0; i < records->count; i++)
    if (!strcmp(records->list[i].layer, layer)) return &records->list[i];
  return NULL;
}

static void write_record(struct text *json, const struct record *record) {
  json_open(json, record->layer, "{");
  json_text(json, "tensor", record->tensor);
  json_text(json, "dtype", record->dtype);
  json_text(json, "bias", record->bias);
  json_text(json, "spec", record->spec);
  json_real(json, "relative_error", record->relative_error, 6);
  json_real(json, "functional_error", record->functional_error, 6);
  json_real(json, "svd_error", record->svd_error, 6);
  json_close(json, "}");
}

// One layer of "tt.layers". Returns 0 if it says nothing about the fit.
static int read_layer_report(tt__json *json, tt_report *report) {
  char word[32];
  ptrdiff_t fields = 0, bonds = 0;
  int found = 0;
  tt__json_expect(json, '{');
  while (tt__json_more(json, '}', &fields)) {
    tt__json_string(json, word, sizeof word);
    tt__json_expect(json, ':');
    int is_error = !strcmp(word, "rel_error"), is_entropy = !strcmp(word, "bond_entropy");
    found |= is_error;
    if (is_error)
      report->relative_error = json_read_real(json);
    else if (!strcmp(word, "dense_params"))
      report->dense_params = (ptrdiff_t)tt__json_number(json);
    else if (!is_entropy)
      tt__json_skip(json);
    if (is_entropy) tt__json_expect(json, '[');
    while (is_entropy && tt__json_more(json, ']', &bonds)) {
      double entropy = json_read_real(json);
      if (bonds <= TT_MAX_ORDER) report->entropy[bonds - 1] = entropy;
    }
  }
  return found;
}

// What "tt.layers" says about the fit of a train, so that a copy says it too. Returns 0 if nothing.
static int read_report(const struct model *model, const char *layer, tt_report *report) {
  char *name = NULL;
  const char *text = find_metadata(model->file, "tt.layers");
  ptrdiff_t layers = 0;
  int found = 0;
  memset(report, 0, sizeof *report);
  if (!text) return 0;
  tt__json json = tt__json_open(text, (ptrdiff_t)strlen(text));
  tt__json_expect(&json, '{');
  while (tt__json_more(&json, '}', &layers)) {
    json_read_string(&json, &name);
    tt__json_expect(&json, ':');
    if (name && !strcmp(name, layer))
      found = read_layer_report(&json, report);
    else
      tt__json_skip(&json);
  }
  free(name);
  must(json.status, "%s: metadata tt.layers", model->path);
  return found;
}

// ------------------------------------------------------------------------------------------ inputs
// A calibration file (--inputs) says what flows into layers: samples or moments, and how often each
// row of a table is asked for.

// Does the calibration file (which may be NULL) know the inputs of a layer?
static int has_inputs(const struct model *calibration, const struct layer *layer) {
  return calibration && (find_part(calibration->file, layer->name, ".inputs") >= 0 ||
                         find_part(calibration->file, layer->name, ".inputs.mean") >= 0);
}

// Statistics of a layer's inputs, or NULL if they are not known.
static tt_inputs *read_inputs(const struct model *calibration, const struct layer *layer) {
  tt_options options = patience();
  tt_inputs *inputs = NULL;
  if (!has_inputs(calibration, layer)) return NULL;
  must(tt_file_inputs(calibration->file, layer->name, &options, &inputs), "%s: %s.inputs",
       calibration->path, layer->name);
  if (tt_inputs_cols(inputs) != layer->cols)
    fail(EXIT_INPUT, "%s: inputs of %s have %ld columns, the layer has %ld", calibration->path,
         layer->name, (long)tt_inputs_cols(inputs), (long)layer->cols);
  return inputs;
}

// Importance of each row of a layer, or NULL.
static float *read_row_weights(const struct model *calibration, const struct layer *layer) {
  int index = calibration ? find_part(calibration->file, layer->name, ".row_weights") : -1;
  if (index < 0) return NULL;
  struct tensor tensor = get_tensor(calibration->file, index);
  if (tensor.order != 1 || tensor.dims[0] != layer->rows)
    fail(EXIT_INPUT, "%s: %s must have one number for each of %ld rows", calibration->path,
         tensor.name, (long)layer->rows);
  return read_floats(calibration->file, index);
}

#endif
