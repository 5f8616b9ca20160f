// One layer and one spec give a stored matrix and everything that is said about it. All numbers are
// measured on the very matrix that is stored. Include after spec.h.
//
// A bias is only touched where inputs ask for it: fits to inputs make up for the mean of what they
// lose (out->bias of tt_compress). A layer without a bias, unless --add-bias, has none afterwards
// either; its fit then minimises E||(W - W^) x||^2 itself, which is what the same call does for
// inputs of mean zero and second moments C + mean mean^T.
#ifndef TTC_FIT_H
#define TTC_FIT_H

#include "spec.h"
#include <float.h>

// ----------------------------------------------------------------------------- what is known of it

struct layer_data {
  const struct layer *layer;
  float *w, *bias, *row_weights; // bias and row_weights may be NULL
  tt_inputs *inputs;             // NULL = only the weights are known
  tt_inputs *uncentred;          // instead of inputs where the bias must not change
  int fits_bias;                 // the stored matrix brings its own bias
  uint64_t bias_size;            // bytes of the bias that stays beside it, 0 = none
};

// Inputs of mean zero whose covariance is the second moment of the given ones. Through a file in
// memory, which is how tt.h takes moments.
static tt_inputs *uncentre(const tt_inputs *inputs) {
  tt_options options = patience();
  ptrdiff_t n = tt_inputs_cols(inputs), one = 1, dims[2] = {n, n};
  size_t square = (size_t)n * (size_t)n, size = 0;
  double count = (double)tt_inputs_count(inputs);
  double *mean = (double *)get_memory((size_t)n, sizeof *mean);
  double *moments = (double *)get_memory(square, sizeof *moments);
  tt_writer *writer;
  tt_file *file;
  tt_inputs *out;
  must(tt_inputs_moments(inputs, mean, moments), "inputs");
  for (ptrdiff_t i = 0; i < n; i++)
    for (ptrdiff_t j = 0; j < n; j++) moments[i * n + j] += mean[i] * mean[j];
  memset(mean, 0, (size_t)n * sizeof *mean);
  must(tt_writer_create(&options, &writer), "inputs");
  must(tt_writer_add(writer, "x.inputs.count", "F64", 1, &one, &count, 8), "inputs");
  must(tt_writer_add(writer, "x.inputs.mean", "F64", 1, dims, mean, 8 * (size_t)n), "inputs");
  must(tt_writer_add(writer, "x.inputs.covariance", "F64", 2, dims, moments, 8 * square), "inputs");
  free(mean);
  free(moments);
  must(tt_writer_save_memory(writer, NULL, &size), "inputs");
  void *bytes = get_memory(size, 1);
  must(tt_writer_save_memory(writer, bytes, &size), "inputs");
  tt_writer_free(writer);
  must(tt_file_open_memory(bytes, size, &options, &file), "inputs");
  must(tt_file_inputs(file, "x", &options, &out), "inputs");
  tt_file_close(file);
  free(bytes);
  return out;
}

static struct layer_data read_layer(const struct model *model, const struct model *calibration,
                                    const struct layer *layer, int add_bias) {
  struct layer_data data;
  memset(&data, 0, sizeof data);
  data.layer = layer;
  data.w = read_floats(model->file, layer->tensor);
  data.bias = read_bias(model, layer);
  for (ptrdiff_t i = 0; i < layer->rows && data.bias; i++)
    if (data.bias[i] - data.bias[i] != 0)
      fail(EXIT_INPUT, "layer %s: NaN or Inf in the bias", layer->name);
  data.row_weights = read_row_weights(calibration, layer);
  data.inputs = read_inputs(calibration, layer);
  data.fits_bias = data.inputs && (data.bias || add_bias);
  if (layer->bias >= 0 && !data.fits_bias)
    data.bias_size = get_tensor(model->file, layer->bias).size;
  if (data.inputs && !data.fits_bias) data.uncentred = uncentre(data.inputs);
  return data;
}

static void free_layer(struct layer_data *data) {
  free(data->w);
  free(data->bias);
  free(data->row_weights);
  tt_inputs_free(data->inputs);
  tt_inputs_free(data->uncentred);
  memset(data, 0, sizeof *data);
}

static tt_options fit_options(const struct layer_data *data) {
  tt_options options = patience();
  options.inputs = data->fits_bias ? data->inputs : data->uncentred;
  options.bias = data->fits_bias ? data->bias : NULL;
  options.row_weights = data->row_weights;
  return options;
}

// ------------------------------------------------------------------------------------------ errors

// The train with float cores in *memory, which the caller frees. tt_rows decodes the later cores
// anew for every row; that pays for one row, not for all.
static tt_matrix decode_cores(const tt_matrix *train, float **memory) {
  tt_matrix plain = *train;
  float *at = *memory = (float *)get_memory((size_t)tt_shape_params(&train->shape), sizeof *at);
  for (int k = 0; k < train->shape.order; k++) {
    tt_core core = {TT_F32, 0, 1, at, NULL, NULL};
    ptrdiff_t rows, length;
    tt__view_size(&train->shape, train->sweep, k, &rows, &length);
    tt__decode_rows(&train->cores[k], 0, rows, length, at);
    plain.cores[k] = core;
    at += rows * length;
  }
  return plain;
}

// ||W - W^|| / ||W||, each row weighted by row_weights if that is not NULL. Some rows at a time, so
// that the dense matrix is not needed twice.
static double weight_error(const tt_matrix *train, const float *w, const float *row_weights) {
  enum { ROWS = 64 };
  size_t cols = (size_t)train->cols, work_size = tt_rows_work_size(train);
  float *rows = (float *)get_memory(ROWS * cols, sizeof *rows), *cores = NULL;
  void *work = get_memory(work_size, 1);
  tt_matrix plain = train->shape.order > 1 ? decode_cores(train, &cores) : *train;
  double lost = 0, all = 0;
  for (ptrdiff_t first = 0; first < train->rows; first += ROWS) {
    int index[ROWS];
    ptrdiff_t count = train->rows - first < ROWS ? train->rows - first : ROWS;
    for (int i = 0; i < count; i++) index[i] = (int)first + i;
    must(tt_rows(&plain, index, count, rows, work, work_size), "rows");
    for (size_t i = 0; i < (size_t)count * cols; i++) {
      size_t at = (size_t)first * cols + i;
      double weight = row_weights ? (double)row_weights[at / cols] : 1, exact = (double)w[at];
      double gap = exact - (double)rows[i];
      lost += weight * gap * gap;
      all += weight * exact * exact;
    }
  }
  free(rows);
  free(cores);
  free(work);
  return all > 0 ? sqrt(lost / all) : 0;
}

// The error of the outputs: under the inputs, or over the look-ups of a table; NaN if only the
// weights are known.
static double output_error(const tt_matrix *train, const struct layer_data *data) {
  double error = NO_VALUE;
  if (data->inputs)
    must(tt_functional_error(train, data->w, data->fits_bias ? data->bias : NULL, data->inputs,
                             &error),
         "layer %s", data->layer->name);
  else if (data->row_weights)
    error = weight_error(train, data->w, data->row_weights);
  return error;
}

// -------------------------------------------------------------------------------------------- fits

struct fit {
  tt_matrix train;  // what is stored; its order is 0 if the layer stays as it is
  tt_report report; // of the train, for the file
  char *decision;   // the spec that the stored matrix has, or why there is none
  uint64_t bytes;   // of the layer, its bias included
  double relative_error, functional_error, svd_error; // NaN where they do not apply
};

static void free_fit(struct fit *fit) {
  tt_free(&fit->train);
  free(fit->decision);
  memset(fit, 0, sizeof *fit);
}

// The error that decides: of the outputs where they are known, else of the weights.
static double fit_error(const struct fit *fit) {
  return fit->functional_error >= 0 ? fit->functional_error : fit->relative_error;
}

// The float train of a shape; order 1 is a view of the weights. It has a bias only if the fit may
// change that of the layer.
static tt_matrix fit_shape(const struct layer_data *data, const tt_shape *shape,
                           tt_report *report) {
  const struct layer *layer = data->layer;
  tt_options options = fit_options(data);
  tt_matrix train = tt_dense_view(data->w, layer->rows, layer->cols);
  memset(report, 0, sizeof *report);
  if (shape->order == 1)
    train.bias = options.bias;
  else
    must(tt_compress(data->w, layer->rows, layer->cols, shape, &options, &train, report),
         "layer %s", layer->name);
  if (!data->fits_bias) train.bias = NULL;
  return train;
}

// The train with coded cores; takes the given one over. Integer codes are chosen for the inputs;
// rounding to F16 loses too little to choose. A matrix whose codes do not depend on anything else
// is coded by tt_compress, which reads it in place.
static tt_matrix code_train(const struct layer_data *data, tt_matrix *train, tt_dtype dtype) {
  const struct layer *layer = data->layer;
  tt_options options = fit_options(data);
  tt_matrix coded;
  tt_status status;
  options.bias = NULL; // the train has it
  options.dtype = dtype;
  options.group = find_format(NULL, dtype)->group;
  if (dtype == TT_F16) options.inputs = NULL;
  if (train->shape.order == 1 && !options.inputs && !options.row_weights) {
    options.bias = train->bias;
    status = tt_compress(data->w, layer->rows, layer->cols, &train->shape, &options, &coded, NULL);
  } else {
    status = tt_quantize(train, dtype, options.group, &options, &coded, NULL);
  }
  must(status, "layer %s", layer->name);
  tt_free(train);
  if (!data->fits_bias) coded.bias = NULL;
  return coded;
}

// Both errors of a train, measured on what is stored.
static void measure_errors(const struct layer_data *data, struct fit *fit) {
  fit->relative_error = weight_error(&fit->train, data->w, NULL);
  fit->functional_error = output_error(&fit->train, data);
}

// Error of the low-rank factorisation with as many numbers as the float train of `fit` at most, in
// the measure that decides; NaN if there is none. A train that is one itself is not fitted again.
static double svd_error_of(const struct layer_data *data, const struct spec *spec,
                           const struct fit *fit) {
  struct spec low_rank = *spec;
  struct fit svd = *fit;
  tt_shape shape;
  ptrdiff_t sides = data->layer->rows + data->layer->cols;
  if (spec->kind == SPEC_DENSE) return NO_VALUE;
  if (spec->kind != SPEC_SVD) {
    low_rank.kind = SPEC_SVD;
    low_rank.rank = (int)(tt_shape_params(&fit->train.shape) / sides);
    if (low_rank.rank < 1 || spec_shape(&low_rank, data->layer->rows, data->layer->cols, &shape))
      return NO_VALUE;
    svd.train = fit_shape(data, &shape, &svd.report);
  }
  measure_errors(data, &svd);
  if (spec->kind != SPEC_SVD) tt_free(&svd.train);
  return fit_error(&svd);
}

// Measures a finished train.
static void measure_fit(const struct layer_data *data, struct fit *fit) {
  const struct layer *layer = data->layer;
  fit->bytes = tt_stored_size(&fit->train) + data->bias_size;
  measure_errors(data, fit);
  fit->report.relative_error = fit->relative_error;
  fit->report.dense_params = layer->rows * layer->cols;
}

// Builds the matrix of a spec that names its shape. The error of an SVD is only measured if asked
// for: it may cost another fit.
static struct fit fit_plain(const struct layer_data *data, const struct spec *spec, int with_svd) {
  struct fit fit;
  tt_shape shape;
  memset(&fit, 0, sizeof fit);
  fit.decision = spec_text(spec);
  must(spec_shape(spec, data->layer->rows, data->layer->cols, &shape), "layer %s: %s",
       data->layer->name, fit.decision);
  fit.train = fit_shape(data, &shape, &fit.report);
  fit.svd_error = NO_VALUE;
  if (with_svd) fit.svd_error = svd_error_of(data, spec, &fit);
  if (spec->dtype != TT_F32) fit.train = code_train(data, &fit.train, spec->dtype);
  measure_fit(data, &fit);
  return fit;
}

// The same from the float train of its shape, which is not changed.
static struct fit fit_codes(const struct layer_data *data, const struct spec *spec,
                            const struct fit *base) {
  struct fit fit = *base;
  fit.decision = spec_text(spec);
  fit.train.block = NULL; // a view, which code_train may release
  fit.train = code_train(data, &fit.train, spec->dtype);
  measure_fit(data, &fit);
  return fit;
}

// --------------------------------------------------------------------------------- within an error

// Rank by rank upwards until the coded train is within the error too; the float train of the first
// rank is. Returns the last fit that was tried.
static struct fit fit_coded(const struct layer_data *data, struct spec *spec, double error,
                            uint64_t most) {
  for (;;) {
    struct fit fit = fit_plain(data, spec, 0);
    int widest = 0, step = spec->rank / 8 + 1;
    for (int k = 0; k <= fit.train.shape.order; k++)
      if (fit.train.shape.ranks[k] > widest) widest = fit.train.shape.ranks[k];
    if (fit_error(&fit) <= error || widest < spec->rank || fit.bytes >= most) return fit;
    spec->rank += step;
    free_fit(&fit);
  }
}

// Tries factors of one kind; *best and *best_spec are replaced where fewer bytes are within the
// error.
static void try_factors(const struct layer_data *data, struct spec *spec, double error,
                        struct fit *best, struct spec *best_spec) {
  const struct layer *layer = data->layer;
  tt_options options = fit_options(data);
  tt_shape shape;
  double reached;
  spec->rank = INT_MAX;
  if (spec_shape(spec, layer->rows, layer->cols, &shape)) return;
  tt_status status = tt_smallest_rank(data->w, layer->rows, layer->cols, &shape, error, &options,
                                      &spec->rank, &reached);
  if (status == TT_ERROR_UNSUPPORTED) return;
  must(status, "layer %s", layer->name);
  struct fit fit = fit_coded(data, spec, error, best->bytes);
  if (fit_error(&fit) <= error && fit.bytes < best->bytes) {
    free_fit(best);
    *best = fit;
    *best_spec = *spec;
  } else {
    free_fit(&fit);
  }
}

// The shape with fewest numbers among the useful ones of an order, at the rank that two equal cores
// have at a quarter of the numbers. Returns 0 if there is none.
static int best_factors(ptrdiff_t rows, ptrdiff_t cols, int order, tt_shape *out) {
  int count = 0, rank = 1 + (int)(sqrt((double)rows * (double)cols) / 8);
  tt_options options = patience();
  tt_status status = tt_shape_search(rows, cols, order, rank, &options, NULL, &count);
  if (status != TT_ERROR_INVALID || count < 1) return 0;
  tt_shape *shapes = (tt_shape *)get_memory((size_t)count, sizeof *shapes);
  must(tt_shape_search(rows, cols, order, rank, &options, shapes, &count), "shapes");
  *out = shapes[0];
  free(shapes);
  for (int k = 1; k < order; k++) out->ranks[k] = 0;
  return 1;
}

// The fewest bytes of SVD and trains of two and three cores within the error; a fit of order 0 if
// none is smaller than `most` bytes.
static struct fit fit_error_bound(const struct layer_data *data, const struct spec *wanted,
                                  uint64_t most, int with_svd) {
  struct fit best;
  struct spec spec = *wanted, best_spec = *wanted;
  memset(&best, 0, sizeof best);
  best.bytes = most;
  spec.kind = SPEC_SVD;
  try_factors(data, &spec, wanted->error, &best, &best_spec);
  spec.kind = SPEC_TRAIN;
  for (int order = 2; order <= 3; order++) {
    tt_shape balanced;
    if (best_factors(data->layer->rows, data->layer->cols, order, &spec.factors))
      try_factors(data, &spec, wanted->error, &best, &best_spec);
    if (tt_shape_factor(data->layer->rows, data->layer->cols, order, &balanced)) continue;
    if (!memcmp(&balanced, &spec.factors, sizeof balanced)) continue;
    spec.factors = balanced;
    try_factors(data, &spec, wanted->error, &best, &best_spec);
  }
  if (best.train.shape.order == 0) return best;
  free_fit(&best);
  return fit_plain(data, &best_spec, with_svd);
}

// ------------------------------------------------------------------------------------ the one call

// A layer that stays as it is, with the reason.
static struct fit keep_layer(const struct layer *layer, const char *decision) {
  struct fit fit;
  memset(&fit, 0, sizeof fit);
  fit.decision = copy_string(decision);
  fit.bytes = layer->size;
  fit.relative_error = fit.functional_error = fit.svd_error = NO_VALUE;
  return fit;
}

// What is stored for a layer under a spec. Never more bytes than the layer has now, and no numbers
// that leave the range of float, which coded factors of the largest may.
static struct fit fit_layer(const struct layer_data *data, const struct spec *spec, int with_svd) {
  const struct layer *layer = data->layer;
  struct fit fit;
  if (spec->kind == SPEC_KEEP) return keep_layer(layer, "keep");
  if (spec->kind == SPEC_ERROR) {
    fit = fit_error_bound(data, spec, layer->size, with_svd);
    if (fit.train.shape.order == 0) return keep_layer(layer, "keep (nothing smaller)");
  } else {
    fit = fit_plain(data, spec, with_svd);
  }
  int is_smaller = fit.bytes < layer->size, is_finite = fit.relative_error <= DBL_MAX;
  if (is_smaller && is_finite) return fit;
  free_fit(&fit);
  return keep_layer(layer, is_smaller ? "keep (beyond float)" : "keep (not smaller)");
}

#endif
