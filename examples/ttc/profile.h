// What every layer could be stored as, measured: the candidates of tt_profile_create, and the
// spectra of its bonds beside those of a Gaussian matrix of the same shape; as JSON, and read again
// for `compress --profile`. Include after fit.h.
//
// A profile belongs to one checkpoint: it carries the hash of the file's data and one hash per
// matrix. The reader trusts nothing: whatever is not what profile_json writes ends the program with
// EXIT_INPUT.
//
// For the planner:
//   struct profile profile = profile_read(path, &model, options->force_profile);
//   const struct profile_layer *known = profile_find(&profile, layer->name);      NULL = not in it
//   known->candidates[i].spec, .bytes (of the layer, its bias included), candidate_error(..)
//   profile_free(&profile);                         the profile owns everything that it points to
#ifndef TTC_PROFILE_H
#define TTC_PROFILE_H

#include "fit.h"

enum {
  SPECTRUM_POINTS = 96, // at most, of one bond
  SPECTRUM_SIDE = 1024  // bonds with more values keep none: their SVDs take a minute
};

struct candidate { // one way to store a layer
  struct spec spec;
  tt_shape shape;
  ptrdiff_t params, macs;
  uint64_t bytes;
  double weight_error;
  double functional_error; // NaN where only the weights are known
};

struct profile_bond { // one bond of the uncut layer
  tt_shape factors;   // all ranks 1
  int bond;
  tt_bond figures;
  int num_points;             // of the spectra: singular value number index[i], from 0, divided by
  int index[SPECTRUM_POINTS]; // the norm of all
  double spectrum[SPECTRUM_POINTS], gaussian[SPECTRUM_POINTS];
};

struct profile_layer {
  char *name;
  char tensor_sha256[65];
  char inputs_sha256[65]; // empty = without inputs
  ptrdiff_t rows, cols;
  struct candidate *candidates;
  struct profile_bond *bonds;
  size_t num_candidates, num_bonds, candidate_room, bond_room;
};

struct profile {
  char source_sha256[65], data_sha256[65];
  struct profile_layer *layers;
  size_t num_layers, room;
};

static void profile_free(struct profile *profile) {
  for (size_t i = 0; i < profile->num_layers; i++) {
    free(profile->layers[i].name);
    free(profile->layers[i].candidates);
    free(profile->layers[i].bonds);
  }
  free(profile->layers);
  memset(profile, 0, sizeof *profile);
}

// A new layer, all zero; earlier pointers to layers end here.
static struct profile_layer *profile_add(struct profile *profile) {
  profile->layers = (struct profile_layer *)grow(profile->layers, profile->num_layers,
                                                 &profile->room, sizeof *profile->layers);
  struct profile_layer *layer = &profile->layers[profile->num_layers++];
  memset(layer, 0, sizeof *layer);
  return layer;
}

static struct candidate *add_candidate(struct profile_layer *layer) {
  layer->candidates = (struct candidate *)grow(layer->candidates, layer->num_candidates,
                                               &layer->candidate_room, sizeof *layer->candidates);
  struct candidate *candidate = &layer->candidates[layer->num_candidates++];
  memset(candidate, 0, sizeof *candidate);
  candidate->functional_error = NO_VALUE;
  return candidate;
}

static struct profile_bond *add_bond(struct profile_layer *layer) {
  layer->bonds = (struct profile_bond *)grow(layer->bonds, layer->num_bonds, &layer->bond_room,
                                             sizeof *layer->bonds);
  struct profile_bond *bond = &layer->bonds[layer->num_bonds++];
  memset(bond, 0, sizeof *bond);
  return bond;
}

// The layer of this name, or NULL.
static struct profile_layer *profile_find(struct profile *profile, const char *name) {
  for (size_t i = 0; i < profile->num_layers; i++)
    if (!strcmp(profile->layers[i].name, name)) return &profile->layers[i];
  return NULL;
}

// The error that decides: of the outputs where they are known, else of the weights.
static double candidate_error(const struct candidate *candidate) {
  return candidate->functional_error >= 0 ? candidate->functional_error : candidate->weight_error;
}

// Is it the low-rank factorisation?
static int is_low_rank(const tt_shape *shape) {
  return shape->order == 2 && shape->cols[0] == 1 && shape->rows[1] == 1;
}

// The spec that gives this shape and format. Returns 0 for a format that no spec has.
static int spec_of_shape(const tt_shape *shape, tt_dtype dtype, struct spec *spec) {
  memset(spec, 0, sizeof *spec);
  spec->dtype = dtype;
  if (dtype != TT_F32 && !find_format(NULL, dtype)) return 0;
  if (shape->order == 1) {
    spec->kind = dtype == TT_F32 ? SPEC_KEEP : SPEC_DENSE;
    return 1;
  }
  spec->kind = is_low_rank(shape) ? SPEC_SVD : SPEC_TRAIN;
  for (int k = 1; k < shape->order; k++)
    if (shape->ranks[k] > spec->rank) spec->rank = shape->ranks[k];
  if (is_low_rank(shape)) return 1;
  spec->factors = *shape;
  for (int k = 1; k < shape->order; k++) spec->factors.ranks[k] = 0;
  return 1;
}

// ----------------------------------------------------------------------------------------- measure

// The singular values to keep of `count`: the last, and the first closer together than the others.
static void choose_points(int count, struct profile_bond *out) {
  for (int i = 0; i < count - 1 && out->num_points < SPECTRUM_POINTS - 1; i += 1 + i / 12)
    out->index[out->num_points++] = i;
  out->index[out->num_points++] = count - 1;
}

// Singular values of w at the bond, divided by their norm, at its points.
static void measure_spectrum(const float *w, const struct layer *layer,
                             const struct profile_bond *bond, double *values) {
  tt_options options = patience();
  tt__pool pool = tt__pool_open(&options.allocator);
  tt__source source = tt__plain_source(w, 0, layer->rows, layer->cols);
  tt__factor spectrum;
  must(tt__cut_spectrum(&pool, &source, &bond->factors, bond->bond, &options, &spectrum),
       "layer %s", layer->name);
  double square = 0;
  for (ptrdiff_t i = 0; i < spectrum.count; i++) square += spectrum.values[i] * spectrum.values[i];
  for (int i = 0; i < bond->num_points && square > 0; i++)
    values[i] = spectrum.values[bond->index[i]] / sqrt(square);
  tt__pool_close(&pool);
}

// The matrix that tt_bonds compares with.
static float *gaussian_matrix(const struct layer *layer) {
  size_t count = (size_t)layer->rows * (size_t)layer->cols;
  float *w = (float *)get_memory(count, sizeof *w);
  for (size_t i = 0; i < count; i++) w[i] = (float)tt__random_normal(0, i);
  return w;
}

// Are the bonds of this factorisation there already?
static int has_factors(const struct profile_layer *layer, const tt_shape *shape) {
  size_t size = (size_t)shape->order * sizeof(int);
  for (size_t i = 0; i < layer->num_bonds; i++) {
    const tt_shape *known = &layer->bonds[i].factors;
    if (known->order == shape->order && !memcmp(known->rows, shape->rows, size) &&
        !memcmp(known->cols, shape->cols, size))
      return 1;
  }
  return 0;
}

// Smaller side of the unfolding at a bond: the number of its singular values.
static double bond_side(const tt_shape *factors, int bond) {
  double left = 1, right = 1;
  for (int k = 0; k < factors->order; k++)
    *(k <= bond ? &left : &right) *= (double)factors->rows[k] * (double)factors->cols[k];
  return left < right ? left : right;
}

// The bonds of all factorisations among the candidates, each once.
static void measure_bonds(const tt_profile *measured, const struct layer_data *data,
                          struct profile_layer *out) {
  float *gaussian = gaussian_matrix(data->layer);
  for (int i = 0; i < measured->count; i++) {
    const tt_candidate *candidate = &measured->candidates[i];
    if (has_factors(out, &candidate->shape)) continue;
    for (int k = 0; k + 1 < candidate->shape.order; k++) {
      struct profile_bond *bond = add_bond(out);
      bond->factors = candidate->shape;
      for (int r = 0; r <= bond->factors.order; r++) bond->factors.ranks[r] = 1;
      bond->bond = k;
      bond->figures = candidate->bonds[k];
      double side = bond_side(&bond->factors, k);
      if (side > SPECTRUM_SIDE) continue;
      choose_points((int)side, bond);
      measure_spectrum(data->w, data->layer, bond, bond->spectrum);
      measure_spectrum(gaussian, data->layer, bond, bond->gaussian);
    }
  }
  free(gaussian);
}

// What this candidate means for the file. A fit to inputs brings a bias, which a layer without
// bias, or whose bias must stay, does not store.
static void take_candidate(const tt_profile *measured, int index, const struct model *model,
                           const struct layer_data *data, struct candidate *out) {
  const tt_candidate *candidate = &measured->candidates[index];
  const struct layer *layer = data->layer;
  int fitted = candidate->shape.order > 1 || candidate->dtype >= TT_I8;
  spec_of_shape(&candidate->shape, candidate->dtype, &out->spec);
  out->shape = candidate->shape;
  out->params = candidate->params;
  out->macs = candidate->macs;
  out->bytes = candidate->bytes;
  if (!data->fits_bias) {
    if (data->inputs && fitted) out->bytes -= (uint64_t)layer->rows * sizeof(float);
    if (layer->bias >= 0) out->bytes += get_tensor(model->file, layer->bias).size;
  }
  if (out->spec.kind == SPEC_KEEP) out->bytes = layer->size;
  out->weight_error = candidate->weight_error;
  if (data->inputs)
    out->functional_error =
        data->uncentred ? candidate->heldout_error : candidate->calibration_error;
}

// The error over the look-ups of a table, which tt_profile_create does not know.
static double measure_lookups(const tt_profile *measured, int index,
                              const struct layer_data *data) {
  tt_options options = fit_options(data);
  tt_matrix train;
  must(tt_profile_train(measured, index, data->w, &options, &train), "layer %s", data->layer->name);
  double error = output_error(&train, data);
  tt_free(&train);
  return error;
}

static void hash_tensor(const tt_file *file, int index, char sha256[65]) {
  struct tensor tensor = get_tensor(file, index);
  unsigned char piece[1 << 12], digest[32];
  tt_sha256 hash;
  tt_sha256_begin(&hash);
  for (size_t at = 0, size; at < tensor.size; at += size) {
    size = tensor.size - at < sizeof piece ? tensor.size - at : sizeof piece;
    must(tt_file_read(file, index, at, piece, size), "tensor %s", tensor.name);
    tt_sha256_add(&hash, piece, size);
  }
  tt_sha256_end(&hash, digest);
  print_hex(digest, 32, sha256);
}

// Measures one layer. Fits and errors are those of `compress`: where inputs are known but the bias
// must not change, fits see uncentred inputs and errors the true ones.
static void profile_measure(const struct model *model, const struct model *calibration,
                            const struct layer *layer, struct profile_layer *out) {
  struct layer_data data = read_layer(model, calibration, layer, 0);
  tt_options options = fit_options(&data);
  tt_profile *measured;
  unsigned char digest[32];
  out->name = copy_string(layer->name);
  out->rows = layer->rows;
  out->cols = layer->cols;
  hash_tensor(model->file, layer->tensor, out->tensor_sha256);
  if (data.inputs) {
    must(tt_inputs_digest(data.inputs, digest), "inputs of %s", layer->name);
    print_hex(digest, 32, out->inputs_sha256);
  }
  must(tt_profile_create(data.w, layer->rows, layer->cols, data.uncentred ? data.inputs : NULL,
                         NULL, 0, &options, &measured),
       "layer %s", layer->name);
  for (int i = 0; i < measured->count; i++) {
    struct candidate *candidate = add_candidate(out);
    take_candidate(measured, i, model, &data, candidate);
    if (data.row_weights && !data.inputs)
      candidate->functional_error = measure_lookups(measured, i, &data);
  }
  measure_bonds(measured, &data, out);
  tt_profile_free(measured);
  free_layer(&data);
}

// -------------------------------------------------------------------------------------------- JSON

static void json_candidate(struct text *json, const struct candidate *candidate) {
  char *spec = spec_text(&candidate->spec);
  json_open(json, NULL, "{");
  json_text(json, "spec", spec);
  json_shape(json, &candidate->shape);
  json_text(json, "dtype", tt__dtype_names[candidate->spec.dtype]);
  json_integer(json, "params", candidate->params);
  json_integer(json, "macs", candidate->macs);
  json_integer(json, "bytes", (int64_t)candidate->bytes);
  json_real(json, "weight_error", candidate->weight_error, 9);
  json_real(json, "functional_error", candidate->functional_error, 9);
  json_close(json, "}");
  free(spec);
}

static void json_reals(struct text *json, const char *key, const double *values, int count) {
  json_open(json, key, "[");
  for (int i = 0; i < count; i++) json_real(json, NULL, values[i], 6);
  json_close(json, "]");
}

static void json_bond(struct text *json, const struct profile_bond *bond) {
  const tt_bond *figures = &bond->figures;
  json_open(json, NULL, "{");
  json_integers(json, "rows", bond->factors.rows, bond->factors.order);
  json_integers(json, "cols", bond->factors.cols, bond->factors.order);
  json_integer(json, "bond", bond->bond);
  json_real(json, "entropy", figures->entropy, 9);
  json_real(json, "gaussian_entropy", figures->gaussian_entropy, 9);
  json_real(json, "effective_rank", figures->effective_rank, 9);
  json_real(json, "gaussian_effective_rank", figures->gaussian_effective_rank, 9);
  json_real(json, "share", figures->share, 9);
  json_integers(json, "tail_ranks", figures->tail_ranks, 2);
  json_integers(json, "index", bond->index, bond->num_points);
  json_reals(json, "spectrum", bond->spectrum, bond->num_points);
  json_reals(json, "gaussian_spectrum", bond->gaussian, bond->num_points);
  json_close(json, "}");
}

static void json_profile_layer(struct text *json, const struct profile_layer *layer) {
  json_open(json, NULL, "{");
  json_text(json, "name", layer->name);
  json_text(json, "tensor_sha256", layer->tensor_sha256);
  json_text(json, "inputs_sha256", *layer->inputs_sha256 ? layer->inputs_sha256 : NULL);
  json_integer(json, "rows", layer->rows);
  json_integer(json, "cols", layer->cols);
  json_open(json, "candidates", "[");
  for (size_t i = 0; i < layer->num_candidates; i++) json_candidate(json, &layer->candidates[i]);
  json_close(json, "]");
  json_open(json, "bonds", "[");
  for (size_t i = 0; i < layer->num_bonds; i++) json_bond(json, &layer->bonds[i]);
  json_close(json, "]");
  json_close(json, "}");
}

static void profile_json(const struct profile *profile, struct text *json) {
  json_open(json, NULL, "{");
  json_integer(json, "schema", 1);
  json_text(json, "source_sha256", profile->source_sha256);
  json_text(json, "data_sha256", profile->data_sha256);
  json_open(json, "layers", "[");
  for (size_t i = 0; i < profile->num_layers; i++) json_profile_layer(json, &profile->layers[i]);
  json_close(json, "]");
  json_close(json, "}\n");
}

// ----------------------------------------------------------------------------------------- reading
// Objects are read key by key, in any order; unknown keys are skipped, a key that comes twice or is
// missing is an error.

// Reads a key of an object and its colon. Returns its number among names, or -1 after skipping its
// value.
static int read_key(tt__json *json, const char *const *names, int count, unsigned *seen) {
  char word[32];
  tt__json_string(json, word, sizeof word);
  tt__json_expect(json, ':');
  for (int i = 0; i < count && !json->status; i++)
    if (!strcmp(word, names[i])) {
      if (*seen >> i & 1) tt__json_fail(json, TT_ERROR_FORMAT);
      *seen |= 1u << i;
      return i;
    }
  tt__json_skip(json);
  return -1;
}

// All of `count` keys were there?
static void read_all_seen(tt__json *json, int count, unsigned seen) {
  if (seen != (1u << count) - 1) tt__json_fail(json, TT_ERROR_FORMAT);
}

static int read_word(tt__json *json, const char *word) {
  size_t length = strlen(word);
  (void)tt__json_next(json);
  if (json->status || json->end - json->at < (ptrdiff_t)length || memcmp(json->at, word, length))
    return 0;
  json->at += length;
  return 1;
}

// A finite number >= 0. The characters are those of a JSON number, so that strtod takes no other
// spelling.
static double read_amount(tt__json *json) {
  char number[40], *end;
  size_t length = 0;
  (void)tt__json_next(json);
  for (char c;
       length + 1 < sizeof number && (c = tt__json_peek(json)) != 0 && strchr("0123456789+-.eE", c);
       json->at++)
    number[length++] = c;
  number[length] = 0;
  double value = strtod(number, &end);
  int good = length && *end == 0 && number[0] >= '0' && number[0] <= '9' && value <= 1e300;
  if (!good) tt__json_fail(json, TT_ERROR_FORMAT);
  return good ? value : 0;
}

// The same, or null, which is NaN.
static double read_amount_or_null(tt__json *json) {
  return read_word(json, "null") ? NO_VALUE : read_amount(json);
}

static ptrdiff_t read_count(tt__json *json, uint64_t most) {
  uint64_t value = tt__json_number(json);
  if (value > most) tt__json_fail(json, TT_ERROR_FORMAT);
  return json->status ? 0 : (ptrdiff_t)value;
}

static void read_sha256(tt__json *json, char sha256[65]) {
  ptrdiff_t length = tt__json_string(json, sha256, 65);
  if (length != 64 || strspn(sha256, "0123456789abcdef") != 64)
    tt__json_fail(json, TT_ERROR_FORMAT);
}

// Integers 0 .. INT_MAX. Returns their number.
static int read_indices(tt__json *json, int *out, int room) {
  ptrdiff_t count = 0;
  tt__json_expect(json, '[');
  while (tt__json_more(json, ']', &count)) {
    if (count > room)
      tt__json_fail(json, TT_ERROR_FORMAT);
    else
      out[count - 1] = (int)read_count(json, INT_MAX);
  }
  return json->status ? 0 : (int)count;
}

static int read_amounts(tt__json *json, double *out, int room) {
  ptrdiff_t count = 0;
  tt__json_expect(json, '[');
  while (tt__json_more(json, ']', &count)) {
    if (count > room)
      tt__json_fail(json, TT_ERROR_FORMAT);
    else
      out[count - 1] = read_amount(json);
  }
  return json->status ? 0 : (int)count;
}

static void read_shape(tt__json *json, tt_shape *shape) {
  static const char *const names[] = {"rows", "cols", "ranks"};
  ptrdiff_t count = 0;
  unsigned seen = 0;
  int lengths[3] = {0, 0, 0};
  tt__json_expect(json, '{');
  while (tt__json_more(json, '}', &count)) {
    int key = read_key(json, names, 3, &seen);
    int *lists[] = {shape->rows, shape->cols, shape->ranks};
    if (key >= 0)
      lengths[key] = tt__said_list(json, lists[key], key == 2 ? TT_MAX_ORDER + 1 : TT_MAX_ORDER);
  }
  read_all_seen(json, 3, seen);
  shape->order = lengths[0];
  if (lengths[1] != shape->order || lengths[2] != shape->order + 1)
    tt__json_fail(json, TT_ERROR_FORMAT);
}

static tt_dtype read_dtype(tt__json *json) {
  char word[16];
  tt__json_string(json, word, sizeof word);
  for (int i = TT_F32; i <= TT_I2; i++)
    if (!strcmp(word, tt__dtype_names[i])) return (tt_dtype)i;
  tt__json_fail(json, TT_ERROR_FORMAT);
  return TT_F32;
}

static void read_candidate(tt__json *json, struct candidate *out) {
  static const char *const names[] = {"shape", "dtype",        "params",          "macs",
                                      "bytes", "weight_error", "functional_error"};
  const uint64_t most = (uint64_t)1 << 53;
  ptrdiff_t count = 0;
  unsigned seen = 0;
  tt_dtype dtype = TT_F32;
  tt__json_expect(json, '{');
  while (tt__json_more(json, '}', &count)) switch (read_key(json, names, 7, &seen)) {
      case 0: read_shape(json, &out->shape); break;
      case 1: dtype = read_dtype(json); break;
      case 2: out->params = read_count(json, most); break;
      case 3: out->macs = read_count(json, most); break;
      case 4: out->bytes = (uint64_t)read_count(json, most); break;
      case 5: out->weight_error = read_amount(json); break;
      case 6: out->functional_error = read_amount_or_null(json); break;
    }
  read_all_seen(json, 7, seen);
  if (!json->status && !spec_of_shape(&out->shape, dtype, &out->spec))
    tt__json_fail(json, TT_ERROR_FORMAT);
}

static void read_bond(tt__json *json, struct profile_bond *out) {
  static const char *const names[] = {
      "rows",  "cols",       "bond",  "entropy",  "gaussian_entropy",  "effective_rank",
      "share", "tail_ranks", "index", "spectrum", "gaussian_spectrum", "gaussian_effective_rank"};
  ptrdiff_t count = 0;
  unsigned seen = 0;
  int cols = 0, tails = 0, points[2] = {0, 0};
  tt__json_expect(json, '{');
  while (tt__json_more(json, '}', &count)) switch (read_key(json, names, 12, &seen)) {
      case 0: out->factors.order = tt__said_list(json, out->factors.rows, TT_MAX_ORDER); break;
      case 1: cols = tt__said_list(json, out->factors.cols, TT_MAX_ORDER); break;
      case 2: out->bond = (int)read_count(json, TT_MAX_ORDER); break;
      case 3: out->figures.entropy = read_amount(json); break;
      case 4: out->figures.gaussian_entropy = read_amount(json); break;
      case 5: out->figures.effective_rank = read_amount(json); break;
      case 6: out->figures.share = read_amount(json); break;
      case 7: tails = read_indices(json, out->figures.tail_ranks, 2); break;
      case 8: out->num_points = read_indices(json, out->index, SPECTRUM_POINTS); break;
      case 9: points[0] = read_amounts(json, out->spectrum, SPECTRUM_POINTS); break;
      case 10: points[1] = read_amounts(json, out->gaussian, SPECTRUM_POINTS); break;
      case 11: out->figures.gaussian_effective_rank = read_amount(json); break;
    }
  read_all_seen(json, 12, seen);
  for (int k = 0; k <= out->factors.order && !json->status; k++) out->factors.ranks[k] = 1;
  if (cols != out->factors.order || out->bond + 1 >= cols || tails != 2 ||
      points[0] != out->num_points || points[1] != out->num_points)
    tt__json_fail(json, TT_ERROR_FORMAT);
}

static void read_profile_layer(tt__json *json, struct profile_layer *out) {
  static const char *const names[] = {"name", "tensor_sha256", "inputs_sha256", "rows",
                                      "cols", "candidates",    "bonds"};
  char name[TT__NAME_CAP + 1] = "";
  ptrdiff_t count = 0, item = 0;
  unsigned seen = 0;
  tt__json_expect(json, '{');
  while (tt__json_more(json, '}', &count)) switch (read_key(json, names, 7, &seen)) {
      case 0: tt__json_name(json, name); break;
      case 1: read_sha256(json, out->tensor_sha256); break;
      case 2:
        if (!read_word(json, "null")) read_sha256(json, out->inputs_sha256);
        break;
      case 3: out->rows = read_count(json, INT_MAX); break;
      case 4: out->cols = read_count(json, INT_MAX); break;
      case 5:
        tt__json_expect(json, '[');
        for (item = 0; tt__json_more(json, ']', &item);) read_candidate(json, add_candidate(out));
        break;
      case 6:
        tt__json_expect(json, '[');
        for (item = 0; tt__json_more(json, ']', &item);) read_bond(json, add_bond(out));
        break;
    }
  read_all_seen(json, 7, seen);
  out->name = copy_string(name);
}

// What a reader of single values cannot see: everything belongs to a matrix of this size.
static int layer_is_sound(const struct profile_layer *layer) {
  for (size_t i = 0; i < layer->num_candidates; i++) {
    const struct candidate *c = &layer->candidates[i];
    if (tt_shape_check(&c->shape, layer->rows, layer->cols) ||
        tt_shape_params(&c->shape) != c->params || c->bytes == 0)
      return 0;
  }
  for (size_t i = 0; i < layer->num_bonds; i++) {
    const struct profile_bond *bond = &layer->bonds[i];
    if (tt_shape_check(&bond->factors, layer->rows, layer->cols)) return 0;
    for (int p = 0; p < bond->num_points; p++)
      if (bond->index[p] >= bond_side(&bond->factors, bond->bond) ||
          (p && bond->index[p] <= bond->index[p - 1]))
        return 0;
  }
  return layer->num_candidates > 0;
}

// Reads a profile of whatever checkpoint.
static struct profile profile_load(const char *path) {
  static const char *const names[] = {"schema", "source_sha256", "data_sha256", "layers"};
  struct profile profile;
  struct text text = text_load(path);
  tt__json json = tt__json_open(text.data, (ptrdiff_t)text.size);
  ptrdiff_t count = 0, item;
  unsigned seen = 0;
  memset(&profile, 0, sizeof profile);
  tt__json_expect(&json, '{');
  while (tt__json_more(&json, '}', &count)) switch (read_key(&json, names, 4, &seen)) {
      case 0:
        if (tt__json_number(&json) != 1 && !json.status)
          fail(EXIT_INPUT, "%s: a profile of another version of ttc", path);
        break;
      case 1: read_sha256(&json, profile.source_sha256); break;
      case 2: read_sha256(&json, profile.data_sha256); break;
      case 3:
        tt__json_expect(&json, '[');
        for (item = 0; tt__json_more(&json, ']', &item);)
          read_profile_layer(&json, profile_add(&profile));
        break;
    }
  read_all_seen(&json, 4, seen);
  if (tt__json_next(&json) || json.at != json.end) tt__json_fail(&json, TT_ERROR_FORMAT);
  if (json.status)
    fail(EXIT_INPUT, "%s: not a profile, at byte %ld", path, (long)(json.at - text.data));
  for (size_t i = 0; i < profile.num_layers; i++) {
    const struct profile_layer *layer = &profile.layers[i];
    if (!layer_is_sound(layer))
      fail(EXIT_INPUT, "%s: layer %s contradicts itself", path, layer->name);
    if (profile_find(&profile, layer->name) != layer)
      fail(EXIT_INPUT, "%s: layer %s comes twice", path, layer->name);
  }
  text_free(&text);
  return profile;
}

// The layer of the model that a profiled layer stands for, or NULL.
static const struct layer *profiled_layer(const struct model *model,
                                          const struct profile_layer *known) {
  for (int i = 0; i < model->num_layers; i++) {
    const struct layer *layer = &model->layers[i];
    if (!strcmp(layer->name, known->name) && layer->tensor >= 0 && layer->rows == known->rows &&
        layer->cols == known->cols)
      return layer;
  }
  return NULL;
}

// Ends the program unless the profile was made from these data; names the first layer that differs.
// `model` must be hashed. With force, layers need no more than the same name and size.
static void profile_check(const struct profile *profile, const char *path,
                          const struct model *model, int force) {
  static const char advice[] = "(--force-profile uses it all the same)";
  int same_data = !strcmp(profile->data_sha256, model->data_sha256);
  char sha256[65];
  for (size_t i = 0; i < profile->num_layers; i++) {
    const struct profile_layer *known = &profile->layers[i];
    const struct layer *layer = profiled_layer(model, known);
    if (!layer)
      fail(EXIT_INPUT, "%s: %s has no dense layer %s of %ld x %ld", path, model->path, known->name,
           (long)known->rows, (long)known->cols);
    if (force || same_data) continue;
    hash_tensor(model->file, layer->tensor, sha256);
    if (strcmp(sha256, known->tensor_sha256) != 0)
      fail(EXIT_INPUT, "%s: made from another checkpoint; layer %s has other weights in %s %s",
           path, known->name, model->path, advice);
  }
  if (!force && !same_data)
    fail(EXIT_INPUT,
         "%s: made from another checkpoint; its layers are those of %s, others are not %s", path,
         model->path, advice);
}

// A profile of this model, which must be hashed.
static struct profile profile_read(const char *path, const struct model *model, int force) {
  struct profile profile = profile_load(path);
  profile_check(&profile, path, model, force);
  return profile;
}

// -------------------------------------------------------------------------------------------- best

// Candidates that no mixture of two others beats, fewest bytes first: the lower convex hull of
// bytes and squared error. The caller frees the list.
static int *best_candidates(const struct profile_layer *layer, int *count) {
  size_t room = layer->num_candidates;
  tt_plan_point *points = (tt_plan_point *)get_memory(room, sizeof *points);
  int *hull = (int *)get_memory(room, sizeof *hull);
  for (size_t i = 0; i < room; i++) {
    double error = candidate_error(&layer->candidates[i]);
    points[i].bytes = layer->candidates[i].bytes;
    points[i].loss = error * error;
  }
  must(tt_plan_hull(points, (int)room, hull, count), "layer %s", layer->name);
  free(points);
  return hull;
}

#endif
