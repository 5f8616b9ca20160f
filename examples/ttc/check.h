// Commands that look and compare: info, expand, verify, diff. Include after model.h.
#ifndef TTC_CHECK_H
#define TTC_CHECK_H

#include "model.h"
#include "options.h"

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
  struct model model = model_open(options->files[0]);
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
    table_end(&table, stdout);
    printf("total: %d layers, %d of them trains; %d other tensors; %llu bytes\n", model.num_layers,
           trains, num_others, (unsigned long long)model.file_size);
    printf("sha256 %s\ndata   %s\n", model.sha256, model.data_sha256);
  }
  text_free(&json);
  text_free(&others);
  model_close(&model);
}

#endif
