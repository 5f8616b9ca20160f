// From a choice for every layer to a file: fits layer by layer, adds each to the writer and forgets
// it, copies all else, and says in the metadata what was done. Also the parts of --shard and their
// --join. A file is written in one step, or not at all. Include after fit.h.
#ifndef TTC_PACK_H
#define TTC_PACK_H

#include "fit.h"

struct job { // one run of compress
  const struct options *options;
  struct model model;
  struct model *calibration; // --inputs, or NULL
  struct rules rules;
  char *output; // the file to write; that of a part under --shard
};

struct choice { // what shall become of a layer
  struct spec spec;
  const struct fit *ready; // the fit, if somebody has it already
};

// What became of a layer: a row of the result.
struct outcome {
  struct record record;
  tt_shape shape; // of what is stored
  const char *dtype;
  int is_train; // is it stored as cores?
  ptrdiff_t params, macs;
  uint64_t bytes;
  size_t work_bytes;
  double entropy;
};

struct pack {
  tt_writer *writer;
  struct outcome *outcomes; // one a layer
  struct text records;      // "ttc.layers", its opening brace included
  uint64_t size;            // bytes of the file
  int is_sketch;            // only the size is wanted, see below
};

// --------------------------------------------------------------------------------------- the files

#ifndef _WIN32
// Are they one file or folder that is there?
static int same_place(const char *a, const char *b) {
  struct stat first, second;
  return !stat(a, &first) && !stat(b, &second) && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

// The folder of a path, to be freed.
static char *folder_of(const char *path) {
  const char *slash = strrchr(path, '/');
  char *folder = copy_string(slash ? path : "./");
  if (slash) folder[slash - path + 1] = 0;
  return folder;
}
#endif

// Are they one file, there or not yet? Then writing one would destroy the other.
static int same_file(const char *a, const char *b) {
#ifdef _WIN32
  char whole_a[_MAX_PATH], whole_b[_MAX_PATH];
  return _fullpath(whole_a, a, _MAX_PATH) && _fullpath(whole_b, b, _MAX_PATH) &&
         !_stricmp(whole_a, whole_b);
#else
  const char *slash_a = strrchr(a, '/'), *slash_b = strrchr(b, '/');
  if (same_place(a, b)) return 1;
  if (strcmp(slash_a ? slash_a + 1 : a, slash_b ? slash_b + 1 : b) != 0) return 0;
  char *folder_a = folder_of(a), *folder_b = folder_of(b);
  int same = same_place(folder_a, folder_b);
  free(folder_a);
  free(folder_b);
  return same;
#endif
}

// Is it the file of a model, or one of its shards?
static int is_file_of(const char *path, const struct model *model) {
  int found = same_file(path, model->path);
  for (int i = 0; i < tt_file_shard_count(model->file) && !found; i++) {
    char *shard = shard_path(model, i);
    found = same_file(path, shard);
    free(shard);
  }
  return found;
}

// Refuses an output that is the input, no plain file, or that exists without -f.
static void check_output(const char *output, const struct model *input, int force) {
  if (is_file_of(output, input)) fail(EXIT_USAGE, "%s: output and input are the same file", output);
  if (is_special(output)) fail(EXIT_USAGE, "%s: not a plain file", output);
  FILE *there = fopen(output, "rb");
  if (there) fclose(there);
  if (there && !force) fail(EXIT_USAGE, "%s exists; -f overwrites it", output);
}

// Outputs must not be written over what is read.
static void protect_inputs(const struct options *o) {
  const char *read[] = {o->files[0], o->command == DO_EXPORT ? NULL : o->files[1], o->inputs,
                        o->profile};
  for (size_t i = 0; i < sizeof read / sizeof *read; i++) {
    if (o->json && read[i] && same_file(o->json, read[i]))
      fail(EXIT_USAGE, "--json %s would write over what is read", o->json);
    if (o->output && read[i] && same_file(o->output, read[i]))
      fail(EXIT_USAGE, "%s: output and input are the same file", o->output);
  }
}

// Opens a file of the command line, whose shards results must not be written over either.
static struct model open_input(const struct options *o, const char *path) {
  struct model model = model_open(path);
  if (o->json && is_file_of(o->json, &model))
    fail(EXIT_USAGE, "--json %s would write over what is read", o->json);
  return model;
}

static tt_writer *open_writer; // has a temporary file that must not stay behind

static void discard_writer(void) {
  tt_writer_free(open_writer);
  open_writer = NULL;
}

// A writer whose data wait in a file beside `path`; in memory if that is NULL.
static tt_writer *create_writer(const char *path) {
  static int registered;
  tt_options options = patience();
  if (!registered++) atexit(discard_writer);
  must(tt_writer_create(&options, &open_writer), "writer");
  if (path) must(tt_writer_spill(open_writer, path), "%s", path);
  return open_writer;
}

static uint64_t writer_size(tt_writer *writer) {
  size_t size = 0;
  must(tt_writer_save_memory(writer, NULL, &size), "writer");
  return size;
}

// Writes the file in one step, unless this is a dry run.
static void save_writer(tt_writer *writer, const char *path, int dry_run) {
  stop_if_interrupted();
  if (dry_run)
    remark("dry run: nothing written");
  else
    must(tt_writer_save(writer, path), "%s", path);
  stop_if_interrupted();
}

// --------------------------------------------------------------------------------------- sketches
// A sketch is a writer that knows all about its tensors but the numbers, and so the exact size of
// its file, without a file or a fit. A writer takes no memory for data that lie in a spill file; a
// sketch has none.

static tt_writer *create_sketch(void) {
  static char no_file[] = "";
  tt_writer *sketch = create_writer(NULL);
  sketch->spill_name = no_file;
  return sketch;
}

static void sketch_tensor(tt_writer *sketch, const char *name, int type, int order,
                          const ptrdiff_t *dims) {
  uint64_t wide[TT__MAX_DIMS], size;
  tt__item *item;
  for (int i = 0; i < order; i++) wide[i] = (uint64_t)dims[i];
  must(tt__tensor_size(type, order, wide, &size), "tensor %s", name);
  must(tt__writer_tensor(sketch, name, type, order, dims, (ptrdiff_t)size, &item), "tensor %s",
       name);
}

static void sketch_copy(tt_writer *sketch, const tt_file *file, int index) {
  struct tensor tensor = get_tensor(file, index);
  sketch_tensor(sketch, tensor.name, tt__file_type_find(tensor.dtype), tensor.order, tensor.dims);
}

static void sketch_part(tt_writer *sketch, const char *layer, const char *part, int k, int type,
                        int order, const ptrdiff_t *dims) {
  char name[TT__NAME_CAP + 1];
  tt__part_name(name, layer, part, k);
  if (!*name) fail(EXIT_INPUT, "layer %s: the name is too long", layer);
  sketch_tensor(sketch, name, type, order, dims);
}

// The tensors that tt_writer_add_matrix writes, and its words in "tt.layers".
static void sketch_train(tt_writer *sketch, const char *layer, const tt_matrix *train,
                         const tt_report *report) {
  tt__sink sink = {NULL, 0, 0};
  for (int k = 0; k < train->shape.order; k++) {
    const tt_core *core = &train->cores[k];
    ptrdiff_t dims[4], one = 1;
    tt__core_dims(train, k, dims);
    ptrdiff_t length = dims[2] * dims[3], packed[2] = {dims[0] * dims[1], 0},
              scales[2] = {dims[0] * dims[1], tt__row_scales(core->group, length)};
    packed[1] = tt__row_size(core->dtype, length);
    if (core->dtype >= TT_I4)
      sketch_part(sketch, layer, ".cores.", k, TT__TYPE_U8, 2, packed);
    else
      sketch_part(sketch, layer, ".cores.", k, (int)core->dtype, 4, dims);
    if (core->scale != 0 && core->scale != 1)
      sketch_part(sketch, layer, ".scale.", k, TT_F32, 1, &one);
    if (core->group > 0) sketch_part(sketch, layer, ".scales.", k, TT_F16, 2, scales);
    if (core->group < 0) sketch_part(sketch, layer, ".scales.", k, TT_F32, 1, scales);
  }
  if (train->bias) sketch_part(sketch, layer, ".bias", -1, TT_F32, 1, &train->rows);
  tt__sink_layer(&sink, layer, train, report);
  tt__item *item = tt__list_add(&sketch->layers, &sketch->pool, layer, sink.size);
  if (!item) fail(EXIT_SYSTEM, "out of memory");
  sink.out = item->data;
  sink.room = sink.size;
  sink.size = 0;
  tt__sink_layer(&sink, layer, train, report);
}

// Bytes of header and data, without the padding between them.
static uint64_t sketch_size(const tt_writer *sketch) {
  tt_options options = patience();
  tt__pool pool = tt__pool_open(&options.allocator);
  tt__sink sink = {NULL, 0, 0};
  tt__plan plan;
  must(tt__plan_make(sketch, &pool, &plan), "header");
  ptrdiff_t data = tt__sink_header(&sink, &plan);
  tt__pool_close(&pool);
  return 8 + (uint64_t)sink.size + (uint64_t)data;
}

// --------------------------------------------------------------------------------------- one layer

static void add_matrix(struct pack *pack, const char *layer, const tt_matrix *train,
                       const tt_report *report) {
  if (pack->is_sketch)
    sketch_train(pack->writer, layer, train, report);
  else
    must(tt_writer_add_matrix(pack->writer, layer, train, report), "layer %s", layer);
}

static void describe_train(const tt_matrix *train, const tt_report *report,
                           struct outcome *outcome) {
  outcome->is_train = 1;
  outcome->shape = train->shape;
  outcome->dtype = tt__dtype_names[train->cores[0].dtype];
  outcome->params = tt_shape_params(&train->shape);
  outcome->macs = tt_apply_macs(train, 1);
  outcome->work_bytes = tt_apply_work_size(train, 1);
  outcome->entropy = NO_VALUE;
  for (int k = 0; k + 1 < train->shape.order && report; k++)
    if (!(outcome->entropy >= report->entropy[k])) outcome->entropy = report->entropy[k];
}

// The row of a layer that stays dense, and what all rows have in common.
static void describe_dense(const struct model *model, const struct layer *layer,
                           struct outcome *outcome) {
  memset(outcome, 0, sizeof *outcome);
  struct record *record = &outcome->record;
  set_string(&record->layer, layer->name);
  set_string(&record->dtype, layer->dtype);
  if (layer->tensor >= 0) set_string(&record->tensor, get_tensor(model->file, layer->tensor).name);
  record->relative_error = record->functional_error = record->svd_error = NO_VALUE;
  outcome->dtype = layer->dtype;
  outcome->shape = layer->shape;
  outcome->params = outcome->macs = layer->rows * layer->cols;
  outcome->bytes = layer->size;
  outcome->entropy = NO_VALUE;
}

static void add_record(struct pack *pack, const struct record *record) {
  if (!pack->records.size) text_bytes(&pack->records, "{", 1);
  write_record(&pack->records, record);
}

// What is recorded of a fitted layer.
static void describe_fit(const struct model *model, const struct layer *layer,
                         const struct fit *fit, struct record *record) {
  record->relative_error = fit->relative_error;
  record->functional_error = fit->functional_error;
  record->svd_error = fit->svd_error;
  if (fit->train.bias)
    set_string(&record->bias, layer->bias < 0 ? "F32" : get_tensor(model->file, layer->bias).dtype);
}

// A fitted layer goes to the writer, or stays dense if the fit says so.
static void pack_fit(struct pack *pack, const struct job *job, int index, const struct fit *fit) {
  const struct layer *layer = &job->model.layers[index];
  struct outcome *outcome = &pack->outcomes[index];
  struct record *record = &outcome->record;
  set_string(&record->spec, fit->decision);
  outcome->bytes = fit->bytes;
  if (fit->train.shape.order == 0) return;
  add_matrix(pack, layer->name, &fit->train, &fit->report);
  describe_train(&fit->train, &fit->report, outcome);
  describe_fit(&job->model, layer, fit, record);
}

// A train of a file, as it is, with what the file says about it. Its bias goes along only if it is
// one that a fit has changed; else it is a tensor like any other.
static void pack_train(struct pack *pack, const struct model *from, const struct layer *layer,
                       int with_bias, struct outcome *outcome) {
  tt_report report;
  tt_matrix train = pack->is_sketch ? layer->header : read_train(from, layer);
  int known = read_report(from, layer->name, &report);
  if (!with_bias) train.bias = NULL;
  add_matrix(pack, layer->name, &train, known ? &report : NULL);
  describe_train(&train, known ? &report : NULL, outcome);
  tt_free(&train);
}

// ------------------------------------------------------------------------------------ all the rest

// Tensors that no layer replaces, byte for byte.
static void copy_tensors(struct pack *pack, const struct model *model) {
  for (int i = 0; i < tt_file_count(model->file); i++) {
    const struct outcome *owner = model->owner[i] < 0 ? NULL : &pack->outcomes[model->owner[i]];
    int is_bias = owner && model->layers[model->owner[i]].bias == i;
    if (owner && owner->is_train && (!is_bias || owner->record.bias)) continue;
    stop_if_interrupted();
    if (pack->is_sketch)
      sketch_copy(pack->writer, model->file, i);
    else
      must(tt_writer_copy(pack->writer, model->file, i), "%s: tensor %s", model->path,
           get_tensor(model->file, i).name);
  }
}

static void set_metadata(struct pack *pack, const char *key, const char *value) {
  must(tt_writer_metadata(pack->writer, key, value), "metadata %s", key);
}

// Is it a pair of the file's own, which no conversion touches?
static int is_own_metadata(const char *key) {
  return strcmp(key, "format") && strncmp(key, "tt.", 3) && strncmp(key, "ttc.", 4);
}

// The source's own pairs, its hashes, and the records.
static void pack_metadata(struct pack *pack, const struct model *model) {
  const char *key, *value;
  for (int i = 0; i < tt_file_metadata_count(model->file); i++) {
    must(tt_file_metadata(model->file, i, &key, &value), "metadata");
    if (is_own_metadata(key)) set_metadata(pack, key, value);
  }
  set_metadata(pack, "tt.source.sha256", model->sha256);
  set_metadata(pack, "tt.source.data_sha256", model->data_sha256);
  if (pack->records.size) {
    json_close(&pack->records, "}");
    set_metadata(pack, "ttc.layers", pack->records.data);
  }
}

static struct pack pack_begin(const struct model *model, const char *output, int is_sketch) {
  struct pack pack;
  memset(&pack, 0, sizeof pack);
  pack.is_sketch = is_sketch;
  pack.writer = is_sketch ? create_sketch() : create_writer(output);
  pack.outcomes = (struct outcome *)get_memory((size_t)model->num_layers, sizeof *pack.outcomes);
  for (int i = 0; i < model->num_layers; i++)
    describe_dense(model, &model->layers[i], &pack.outcomes[i]);
  return pack;
}

static void pack_free(struct pack *pack, int num_layers) {
  discard_writer();
  for (int i = 0; i < num_layers; i++) free_record(&pack->outcomes[i].record);
  free(pack->outcomes);
  text_free(&pack->records);
  memset(pack, 0, sizeof *pack);
}

// A train that the source has already stays, and so does what is known about it.
static void pack_old_train(struct pack *pack, const struct model *model,
                           const struct records *known, int index) {
  const struct layer *layer = &model->layers[index];
  struct outcome *outcome = &pack->outcomes[index];
  const struct record *record = find_record(known, layer->name);
  pack_train(pack, model, layer, 0, outcome);
  if (record) add_record(pack, record);
  set_string(&outcome->record.spec, "keep (a train)");
}

// ------------------------------------------------------------------------------------------ shards
// Dense layers are dealt out in the order of the file. A part holds the trains of its share, and
// records of all layers of the share, also of those that stay dense.

// Does layer `index` belong to this process?
static int in_share(const struct job *job, int index) {
  int before = 0;
  if (!job->options->num_shards) return 1;
  for (int i = 0; i < index; i++) before += job->model.layers[i].tensor >= 0;
  return job->model.layers[index].tensor >= 0 &&
         before % job->options->num_shards == job->options->shard;
}

static char *part_name(const char *output, int shard, int num_shards) {
  struct text name = {NULL, 0, 0};
  text_add(&name, "%s.part-%d-of-%d", output, shard, num_shards);
  return name.data;
}

// Everything on the command line that decides about bytes: parts of one file agree in it.
static char *options_text(const struct job *job) {
  const struct options *o = job->options;
  struct text text = {NULL, 0, 0};
  for (int i = 0; i < o->num_rules; i++) text_add(&text, "--layer %s ", o->rules[i]);
  if (o->target_ratio > 0) text_add(&text, "--target-ratio %.17g ", o->target_ratio);
  if (o->target_error > 0) text_add(&text, "--target-error %.17g ", o->target_error);
  if (o->candidates) text_add(&text, "--candidates %s ", o->candidates);
  if (o->add_bias) text_add(&text, "--add-bias ");
  if (o->profile) {
    char sha256[65];
    hash_text_file(o->profile, sha256);
    text_add(&text, "--profile %s ", sha256);
  }
  if (job->calibration) text_add(&text, "--inputs %s ", job->calibration->sha256);
  text_bytes(&text, "", 0);
  return text.data;
}

static void pack_part_metadata(struct pack *pack, const struct job *job) {
  char number[32], *options = options_text(job);
  sprintf(number, "%d/%d", job->options->shard, job->options->num_shards);
  set_metadata(pack, "ttc.part", number);
  set_metadata(pack, "ttc.options", options);
  free(options);
}

// ------------------------------------------------------------------------------------- the choices

// Rules first; what they leave is kept.
static struct choice *choose_by_rules(const struct job *job) {
  const struct model *model = &job->model;
  struct choice *choices = (struct choice *)get_memory((size_t)model->num_layers, sizeof *choices);
  for (int i = 0; i < model->num_layers; i++) {
    const struct spec *spec = find_rule(&job->rules, model->layers[i].name);
    if (spec) choices[i].spec = *spec;
  }
  return choices;
}

// Builds the file of these choices, one a layer, in the writer. A sketch is that of the whole file,
// also where this process makes a part; the choices bring their fits.
static struct pack pack_choices(const struct job *job, const struct choice *choices,
                                int is_sketch) {
  const struct model *model = &job->model;
  struct pack pack = pack_begin(model, job->output, is_sketch);
  struct records known = read_records(model);
  struct progress progress = progress_begin(0);
  int is_part = job->options->num_shards > 0 && !is_sketch;
  for (int i = 0; i < model->num_layers; i++)
    if (!is_part || in_share(job, i)) progress.total += (double)model->layers[i].size;
  for (int i = 0; i < model->num_layers; i++) {
    const struct layer *layer = &model->layers[i];
    if (is_part && !in_share(job, i)) continue;
    stop_if_interrupted();
    if (!is_sketch) progress_show(&progress, layer->name);
    if (layer->tensor < 0) {
      pack_old_train(&pack, model, &known, i);
    } else if (choices[i].ready) {
      pack_fit(&pack, job, i, choices[i].ready);
    } else {
      int keep = choices[i].spec.kind == SPEC_KEEP;
      struct layer_data data;
      memset(&data, 0, sizeof data);
      data.layer = layer;
      if (!keep) data = read_layer(model, job->calibration, layer, job->options->add_bias);
      struct fit fit = fit_layer(&data, &choices[i].spec, 1);
      free_layer(&data);
      pack_fit(&pack, job, i, &fit);
      free_fit(&fit);
    }
    if (layer->tensor >= 0 && (is_part || pack.outcomes[i].is_train))
      add_record(&pack, &pack.outcomes[i].record);
    progress.done += (double)layer->size;
  }
  if (!is_sketch) progress_clear();
  if (!is_part) copy_tensors(&pack, model);
  pack_metadata(&pack, model);
  if (is_part) pack_part_metadata(&pack, job);
  pack.size = writer_size(pack.writer);
  free_records(&known);
  return pack;
}

// -------------------------------------------------------------------------------------------- join

// Opens part `index` and compares what it was made from with the source and with part 0.
static struct model open_part(const struct job *job, int index, const struct model *first) {
  char number[32], *name = part_name(job->options->output, index, job->options->join);
  struct model part = model_open(name);
  const char *said = find_metadata(part.file, "ttc.part"), *source, *options;
  sprintf(number, "%d/%d", index, job->options->join);
  if (!said || strcmp(said, number)) fail(EXIT_INPUT, "%s: not part %s", name, number);
  source = find_metadata(part.file, "tt.source.sha256");
  if (!source || strcmp(source, job->model.sha256))
    fail(EXIT_INPUT, "%s: made from another file than %s", name, job->model.path);
  options = find_metadata(part.file, "ttc.options");
  if (!options || (first && strcmp(options, find_metadata(first->file, "ttc.options"))))
    fail(EXIT_INPUT, "%s: made with other options than part 0", name);
  return part;
}

// One layer from the part that has it.
static void join_layer(struct pack *pack, const struct job *job, const struct model *part,
                       const struct records *records, int index) {
  const struct layer *layer = &job->model.layers[index];
  struct outcome *outcome = &pack->outcomes[index];
  const struct record *record = find_record(records, layer->name);
  if (!record) fail(EXIT_INPUT, "%s: layer %s is missing", part->path, layer->name);
  if (strcmp(record->tensor, outcome->record.tensor) != 0)
    fail(EXIT_INPUT, "%s: layer %s replaces another tensor", part->path, layer->name);
  free_record(&outcome->record);
  outcome->record = copy_record(record);
  if (find_part(part->file, layer->name, ".cores.0") < 0) return;
  const struct layer *train = model_find(part, layer->name);
  if (train->rows != layer->rows || train->cols != layer->cols)
    fail(EXIT_INPUT, "%s: layer %s has another size", part->path, layer->name);
  pack_train(pack, part, train, record->bias != NULL, outcome);
  outcome->bytes = train->size;
  if (!record->bias && layer->bias >= 0)
    outcome->bytes += get_tensor(job->model.file, layer->bias).size;
  add_record(pack, record);
}

// ttc compress IN -o OUT --join N: what one process would have written.
static struct pack pack_join(const struct job *job) {
  const struct model *model = &job->model;
  int count = job->options->join, dense = 0;
  struct model *parts = (struct model *)get_memory((size_t)count, sizeof *parts);
  struct records *records = (struct records *)get_memory((size_t)count, sizeof *records);
  for (int i = 0; i < count; i++) {
    parts[i] = open_part(job, i, i ? &parts[0] : NULL);
    records[i] = read_records(&parts[i]);
  }
  struct pack pack = pack_begin(model, job->output, 0);
  struct records known = read_records(model);
  for (int i = 0; i < model->num_layers; i++) {
    stop_if_interrupted();
    if (model->layers[i].tensor < 0) {
      pack_old_train(&pack, model, &known, i);
    } else {
      join_layer(&pack, job, &parts[dense % count], &records[dense % count], i);
      dense++;
    }
  }
  copy_tensors(&pack, model);
  pack_metadata(&pack, model);
  pack.size = writer_size(pack.writer);
  for (int i = 0; i < count; i++) {
    free((char *)parts[i].path);
    model_close(&parts[i]);
    free_records(&records[i]);
  }
  free(parts);
  free(records);
  free_records(&known);
  return pack;
}

// ----------------------------------------------------------------------------------------- results

static void add_row(struct table *table, const struct layer *layer, const struct outcome *outcome) {
  struct text modes = {NULL, 0, 0}, ranks = {NULL, 0, 0};
  double dense = (double)layer->rows * (double)layer->cols;
  shape_modes(&outcome->shape, &modes);
  shape_ranks(&outcome->shape, &ranks);
  table_cell(table, "%s", layer->name);
  table_cell(table, "%ldx%ld", (long)layer->rows, (long)layer->cols);
  table_cell(table, "%s", modes.data);
  table_cell(table, "%s", ranks.data);
  table_real(table, 3, outcome->entropy);
  table_real(table, 2, (double)layer->size / (double)outcome->bytes);
  table_real(table, 4, outcome->record.relative_error);
  table_real(table, 4, outcome->record.functional_error);
  table_real(table, 4, outcome->record.svd_error);
  table_real(table, 2, outcome->macs > 0 ? dense / (double)outcome->macs : NO_VALUE);
  table_real(table, 0, outcome->is_train ? (double)outcome->work_bytes : NO_VALUE);
  table_cell(table, "%s", outcome->record.spec);
  text_free(&modes);
  text_free(&ranks);
}

static void add_json(struct text *json, const struct layer *layer, const struct outcome *outcome) {
  json_open(json, NULL, "{");
  json_text(json, "name", layer->name);
  json_integer(json, "rows", layer->rows);
  json_integer(json, "cols", layer->cols);
  json_shape(json, &outcome->shape);
  json_text(json, "dtype", outcome->dtype);
  json_integer(json, "params", outcome->params);
  json_integer(json, "bytes", (int64_t)outcome->bytes);
  json_integer(json, "dense_bytes", (int64_t)layer->size);
  json_real(json, "relative_error", outcome->record.relative_error, 6);
  json_real(json, "functional_error", outcome->record.functional_error, 6);
  json_real(json, "svd_error", outcome->record.svd_error, 6);
  json_integer(json, "macs", outcome->macs);
  json_integer(json, "dense_macs", layer->rows * layer->cols);
  json_integer(json, "work_bytes", (int64_t)outcome->work_bytes);
  json_text(json, "decision", outcome->record.spec);
  json_close(json, "}");
}

// The table or the JSON of what was done with the layers of this process.
static void print_results(const struct job *job, const struct pack *pack) {
  static const char *const titles[] = {"layer",   "shape",    "modes",
                                       "ranks",   "S_max",    "ratio",
                                       "rel err", "func err", "svd err @ same params",
                                       "MACs x",  "scratch",  "decision"};
  const struct model *model = &job->model;
  const char *json_file = job->options->json;
  struct table table = table_begin("lllrrrrrrrrl", titles);
  struct text json = {NULL, 0, 0};
  json_open(&json, NULL, "{");
  json_integer(&json, "schema", 1);
  json_text(&json, "source_sha256", model->sha256);
  json_open(&json, "layers", "[");
  for (int i = 0; i < model->num_layers; i++) {
    if (!in_share(job, i)) continue;
    add_row(&table, &model->layers[i], &pack->outcomes[i]);
    add_json(&json, &model->layers[i], &pack->outcomes[i]);
  }
  double ratio = (double)model->file_size / (double)pack->size;
  json_close(&json, "]");
  json_open(&json, "total", "{");
  json_integer(&json, "bytes", (int64_t)pack->size);
  json_integer(&json, "dense_bytes", (int64_t)model->file_size);
  json_real(&json, "ratio", ratio, 6);
  json_close(&json, "}}\n");
  if (json_file) text_save(&json, json_file);
  if (!json_file || strcmp(json_file, "-")) {
    table_print(&table, stdout);
    if (job->options->num_shards)
      printf("part %d of %d: %llu bytes\n", job->options->shard, job->options->num_shards,
             (unsigned long long)pack->size);
    else
      printf("total: %llu -> %llu bytes, %.2f times smaller\n",
             (unsigned long long)model->file_size, (unsigned long long)pack->size, ratio);
  }
  table_free(&table);
  text_free(&json);
}

#endif
