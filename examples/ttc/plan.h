// Which spec for which layer, where the command line leaves it open. Every layer has points: bytes
// and error of each candidate, measured here or taken from a profile; point 0 is the layer as it is
// (or as its --layer rule says, which then is its only one). --target-error takes the fewest bytes
// within the error, layer by layer; --target-ratio divides a budget. Include after profile.h and
// pack.h.
//
// The mixed plan of a budget walks the convex hulls (tt_plan_budget) down a weighted sum of squared
// errors (set_weight). That sum predicts little about a network, so a mixed plan is believed only
// if it promises clearly less than the best uniform plan, one candidate for all layers, and better
// ones where bytes are left; with --eval the score decides.
#ifndef TTC_PLAN_H
#define TTC_PLAN_H

#include "pack.h"
#include "profile.h"

// The longest that a number of a report or a record becomes.
#define LONG_NUMBER 1.23456789e-10

struct point { // one candidate of a layer
  struct spec spec;
  int method;     // equal for the "same" candidate of different layers
  uint64_t bytes; // in the file
  double error;
  struct fit fit; // without the numbers, but for --eval; empty = the layer as it is
};

struct plan_layer {
  int index; // of the layer in the model
  int is_ruled, is_spared;
  struct point *points;
  size_t count, room;
  double weight; // of its squared error
};

struct plan {
  const struct job *job;
  struct plan_layer *layers; // the dense layers of this process
  int num_layers;
  struct profile profile; // of --profile, else empty
  uint64_t target;        // bytes of the file; 0 = no target
  uint64_t budget;        // of them for the layers, as nearly as their sum can tell
  int *choice;            // a point for every layer
};

// ------------------------------------------------------------------------------------------- bytes
// The size of a file is exact (file_bytes): a plan is believed to fit only if its sketch does. The
// planner of tt.h adds up bytes of layers; what the header says about each is nearly independent of
// the others.

// What a layer adds to a file: all by itself, without the keys that a file has once. `fit` is NULL
// for the layer as it is.
static uint64_t layer_bytes(const struct model *model, const struct layer *layer,
                            const struct fit *fit) {
  static const char keys[] = ",'tt.version':'1','tt.layers':'{}','ttc.layers':'{}'"; // as long
  tt_writer *sketch = create_sketch();
  uint64_t empty = sketch_size(sketch), bytes;
  if (fit) {
    struct text record = {NULL, 0, 0};
    struct outcome outcome;
    describe_dense(model, layer, &outcome);
    set_string(&outcome.record.spec, fit->decision);
    describe_fit(model, layer, fit, &outcome.record);
    sketch_train(sketch, layer->name, &fit->train, &fit->report);
    write_record(&record, &outcome.record);
    must(tt_writer_metadata(sketch, "ttc.layers", record.data), "layer %s", layer->name);
    free_record(&outcome.record);
    text_free(&record);
    empty += sizeof keys - 1;
  } else {
    sketch_copy(sketch, model->file, layer->tensor);
  }
  if (layer->bias >= 0 && (!fit || !fit->train.bias)) sketch_copy(sketch, model->file, layer->bias);
  bytes = sketch_size(sketch) - empty;
  discard_writer();
  return bytes;
}

// ------------------------------------------------------------------------------------------ points

static struct point *add_point(struct plan_layer *layer, const struct spec *spec, int method) {
  layer->points =
      (struct point *)grow(layer->points, layer->count, &layer->room, sizeof *layer->points);
  struct point *point = &layer->points[layer->count++];
  memset(point, 0, sizeof *point);
  point->spec = *spec;
  point->method = method;
  return point;
}

// Point 0: the layer as it is.
static void add_keep(struct plan_layer *layer, const struct model *model) {
  struct spec keep;
  memset(&keep, 0, sizeof keep);
  add_point(layer, &keep, 0)->bytes = layer_bytes(model, &model->layers[layer->index], NULL);
}

// The candidates that nobody listed: codes, and low rank at three shares of the numbers, each also
// coded. A float train stands before its coded forms, which are made from it.
static void usual_specs(const struct layer *layer, struct text *list) {
  double sides = (double)layer->rows + (double)layer->cols;
  text_add(list, "i8,i4,i3,i2");
  for (int share = 2; share <= 8; share *= 2) {
    int rank = (int)((double)layer->rows * (double)layer->cols / sides / share);
    if (rank < 1) break;
    text_add(list, ",svd:%d,svd:%d+i8,svd:%d+i4", rank, rank, rank);
  }
}

// The fit of the same shape in float among the points so far, or NULL.
static const struct fit *find_base(const struct plan_layer *layer, const struct spec *spec) {
  for (size_t i = layer->count; i-- > 1;) {
    const struct point *point = &layer->points[i];
    if (point->spec.kind == spec->kind && point->spec.rank == spec->rank &&
        point->spec.dtype == TT_F32 &&
        !memcmp(&point->spec.factors, &spec->factors, sizeof spec->factors))
      return &point->fit;
  }
  return NULL;
}

// Fits one candidate and notes it, unless it is no smaller than the layer.
static void measure_point(const struct job *job, struct plan_layer *layer,
                          const struct layer_data *data, const struct spec *spec, int method) {
  const struct layer *dense = data->layer;
  const struct fit *base = find_base(layer, spec);
  tt_shape shape;
  if (spec->kind == SPEC_KEEP) return;
  if (spec->kind != SPEC_ERROR && spec_shape(spec, dense->rows, dense->cols, &shape)) return;
  struct fit fit =
      base && spec->dtype != TT_F32 ? fit_codes(data, spec, base) : fit_layer(data, spec, 1);
  if (fit.train.shape.order == 0 || fit.bytes >= dense->size || !(fit_error(&fit) <= DBL_MAX)) {
    free_fit(&fit);
    return;
  }
  struct point *point = add_point(layer, spec, method);
  point->bytes = layer_bytes(&job->model, dense, &fit);
  point->error = fit_error(&fit);
  point->fit = fit;
}

// All specs of a list: commas before a letter part them, those before a digit belong to a spec.
static void measure_list(const struct job *job, struct plan_layer *layer,
                         const struct layer_data *data, const char *list) {
  int method = 1;
  for (const char *at = list; *at; method++) {
    size_t length = 0;
    while (at[length] && !(at[length] == ',' && (at[length + 1] < '0' || at[length + 1] > '9')))
      length++;
    struct spec spec = read_spec(at, length);
    measure_point(job, layer, data, &spec, method);
    at += length + (at[length] == ',');
  }
}

// What is known of a fit that only a profile knows: which tensors there will be, and where digits
// are not known, as many as there can be.
static struct fit foresee_fit(const struct job *job, const struct layer *layer,
                              const struct candidate *candidate) {
  static const float somewhere = 0;
  const struct spec_format *format = find_format(NULL, candidate->spec.dtype);
  struct fit fit;
  memset(&fit, 0, sizeof fit);
  fit.train = tt__header(&candidate->shape, layer->rows, layer->cols, candidate->spec.dtype,
                         format ? format->group : 0);
  for (int k = 0; k < candidate->shape.order; k++) {
    fit.train.cores[k].scale = format && format->group != TT_GROUP_ROW ? 2.0f : 0;
    fit.report.entropy[k] = LONG_NUMBER;
  }
  if (has_inputs(job->calibration, layer) && (layer->bias >= 0 || job->options->add_bias))
    fit.train.bias = &somewhere;
  fit.decision = spec_text(&candidate->spec);
  fit.bytes = candidate->bytes;
  fit.relative_error = fit.svd_error = fit.report.relative_error = LONG_NUMBER;
  fit.functional_error = candidate->functional_error >= 0 ? LONG_NUMBER : NO_VALUE;
  fit.report.dense_params = layer->rows * layer->cols;
  return fit;
}

// The candidates of a profile. Those of different layers are the same method if kind, format and
// the share of the numbers, to the nearest 1/n, agree.
static void take_profile(const struct job *job, struct plan_layer *layer,
                         const struct profile_layer *known) {
  const struct layer *dense = &job->model.layers[layer->index];
  for (size_t i = 0; i < known->num_candidates; i++) {
    const struct candidate *from = &known->candidates[i];
    double share = (double)dense->rows * (double)dense->cols / (double)from->params;
    if (from->spec.kind == SPEC_KEEP || from->bytes >= dense->size) continue;
    int method = from->spec.kind +
                 8 * (from->shape.order + 16 * ((int)from->spec.dtype +
                                                16 * (share < 1000 ? (int)(share + 0.5) : 1000)));
    struct point *point = add_point(layer, &from->spec, method);
    point->fit = foresee_fit(job, dense, from);
    point->bytes = layer_bytes(&job->model, dense, &point->fit);
    point->error = candidate_error(from);
  }
}

static void free_fits(struct plan_layer *layer) {
  for (size_t i = 0; i < layer->count; i++) free_fit(&layer->points[i].fit);
}

static void strip_fits(struct plan_layer *layer) {
  for (size_t i = 0; i < layer->count; i++) strip_train(&layer->points[i].fit.train);
}

// Errors of a profile are those of other fits, if it was made with other inputs.
static void check_profile_inputs(const struct job *job, const struct layer *layer,
                                 const struct profile_layer *known) {
  unsigned char digest[32];
  char sha256[65] = "";
  tt_inputs *inputs = read_inputs(job->calibration, layer);
  if (inputs) {
    must(tt_inputs_digest(inputs, digest), "inputs of %s", layer->name);
    print_hex(digest, 32, sha256);
  }
  tt_inputs_free(inputs);
  if (strcmp(sha256, known->inputs_sha256) != 0)
    fail(EXIT_INPUT,
         "%s: layer %s was measured with other --inputs than given here, or none "
         "(--force-profile uses it all the same)",
         job->options->profile, layer->name);
}

// Geometric mean of the errors of a layer's candidates, of codes of the whole matrix if there are
// any: codes disturb every matrix alike, whatever its spectrum.
static double usual_error(const struct plan_layer *layer) {
  double logs[2] = {0, 0};
  int counts[2] = {0, 0};
  for (size_t i = 1; i < layer->count; i++) {
    int is_code = layer->points[i].spec.kind == SPEC_DENSE;
    logs[is_code] += log(layer->points[i].error > 1e-4 ? layer->points[i].error : 1e-4);
    counts[is_code]++;
  }
  int which = counts[1] > 0;
  return counts[which] ? exp(logs[which] / counts[which]) : 1;
}

// What a squared error of this layer counts. Relative errors of different layers do not compare: a
// few extreme inputs make an error small that costs much, and a look-up table is half of many
// models. So errors are in units of what is usual for the layer, and each of its numbers counts
// once. Where all layers lose alike by the same method, no mixture then beats a uniform plan, and
// it takes a layer that differs to make one. A layer that a rule decided is no argument for any
// plan.
static void set_weight(struct plan_layer *layer, const struct layer *dense) {
  double error = usual_error(layer);
  layer->weight = layer->is_ruled ? 0 : (double)dense->rows * (double)dense->cols / (error * error);
}

// Fills the points of one layer.
static void measure_layer(struct plan *plan, struct plan_layer *layer) {
  const struct job *job = plan->job;
  const struct options *options = job->options;
  const struct layer *dense = &job->model.layers[layer->index];
  const struct spec *rule = find_rule(&job->rules, dense->name);
  const struct profile_layer *known =
      options->profile && !rule ? profile_find(&plan->profile, dense->name) : NULL;
  struct text usual = {NULL, 0, 0};
  layer->is_ruled = rule != NULL;
  add_keep(layer, &job->model);
  if (layer->is_spared) return;
  if (known) {
    if (!options->force_profile) check_profile_inputs(job, dense, known);
    take_profile(job, layer, known);
    return;
  }
  if (options->profile && !rule)
    fail(EXIT_INPUT, "%s: knows no layer %s", options->profile, dense->name);
  if (rule && rule->kind == SPEC_KEEP) return;
  struct layer_data data = read_layer(&job->model, job->calibration, dense, options->add_bias);
  if (rule) {
    measure_point(job, layer, &data, rule, 0);
    if (layer->count > 1) layer->points[0] = layer->points[--layer->count];
  } else if (options->candidates) {
    measure_list(job, layer, &data, options->candidates);
  } else {
    usual_specs(dense, &usual);
    measure_list(job, layer, &data, usual.data);
  }
  text_free(&usual);
  free_layer(&data);
  if (!options->eval) strip_fits(layer);
}

// Within a budget the smallest layers stay as they are, together a ten-thousandth of the bytes:
// they save nothing, and some, such as a table of two rows that every input passes, cost much.
static void spare_small_layers(struct plan *plan) {
  const struct job *job = plan->job;
  uint64_t room = 0;
  for (int l = 0; l < plan->num_layers; l++) room += job->model.layers[plan->layers[l].index].size;
  for (room /= 10000;;) {
    struct plan_layer *least = NULL;
    for (int l = 0; l < plan->num_layers; l++) {
      struct plan_layer *layer = &plan->layers[l];
      const struct layer *dense = &job->model.layers[layer->index];
      if (layer->is_spared || find_rule(&job->rules, dense->name)) continue;
      if (!least || dense->size < job->model.layers[least->index].size) least = layer;
    }
    if (!least || job->model.layers[least->index].size > room) return;
    least->is_spared = 1;
    room -= job->model.layers[least->index].size;
  }
}

// Does the plan need the points of this layer? Rules decide alone where no sum is looked at; a
// profile knows the layers of all processes.
static int is_planned(const struct job *job, int index) {
  const struct options *options = job->options;
  const struct layer *layer = &job->model.layers[index];
  int looks_at_sums = options->target_ratio > 0 || options->max_drop >= 0;
  if (layer->tensor < 0 || (!in_share(job, index) && !options->profile)) return 0;
  return looks_at_sums || !find_rule(&job->rules, layer->name);
}

static struct plan plan_open(const struct job *job) {
  const struct model *model = &job->model;
  const struct options *options = job->options;
  struct plan plan;
  struct progress progress = progress_begin(0);
  memset(&plan, 0, sizeof plan);
  plan.job = job;
  plan.layers = (struct plan_layer *)get_memory((size_t)model->num_layers, sizeof *plan.layers);
  plan.choice = (int *)get_memory((size_t)model->num_layers, sizeof *plan.choice);
  if (options->profile)
    plan.profile = profile_read(options->profile, model, options->force_profile);
  for (int i = 0; i < model->num_layers; i++) {
    if (!is_planned(job, i)) continue;
    plan.layers[plan.num_layers++].index = i;
    progress.total += (double)model->layers[i].size;
  }
  if (options->target_ratio > 0 || options->max_drop >= 0) spare_small_layers(&plan);
  for (int l = 0; l < plan.num_layers; l++) {
    const struct layer *dense = &model->layers[plan.layers[l].index];
    stop_if_interrupted();
    progress_show(&progress, dense->name);
    measure_layer(&plan, &plan.layers[l]);
    set_weight(&plan.layers[l], dense);
    progress.done += (double)dense->size;
  }
  progress_clear();
  return plan;
}

static void plan_free(struct plan *plan) {
  for (int i = 0; i < plan->num_layers; i++) {
    free_fits(&plan->layers[i]);
    free(plan->layers[i].points);
  }
  free(plan->layers);
  free(plan->choice);
  profile_free(&plan->profile);
  memset(plan, 0, sizeof *plan);
}

// ----------------------------------------------------------------------------- targets of an error

// Takes away candidates of free layers above the error.
static void drop_coarse_points(struct plan *plan, double most) {
  for (int l = 0; l < plan->num_layers; l++) {
    struct plan_layer *layer = &plan->layers[l];
    size_t kept = 1;
    for (size_t i = 1; i < layer->count; i++) {
      if (layer->points[i].error <= most)
        layer->points[kept++] = layer->points[i];
      else
        free_fit(&layer->points[i].fit);
    }
    layer->count = kept;
  }
}

// The smallest point of a layer.
static int fewest_bytes(const struct plan_layer *layer) {
  int least = 0;
  for (size_t i = 1; i < layer->count; i++)
    if (layer->points[i].bytes < layer->points[least].bytes) least = (int)i;
  return least;
}

static void choose_fewest_bytes(const struct plan *plan, int *choice) {
  for (int l = 0; l < plan->num_layers; l++) choice[l] = fewest_bytes(&plan->layers[l]);
}

// -------------------------------------------------------------------------------------- the budget

static uint64_t plan_bytes(const struct plan *plan, const int *choice) {
  uint64_t bytes = 0;
  for (int l = 0; l < plan->num_layers; l++) bytes += plan->layers[l].points[choice[l]].bytes;
  return bytes;
}

static double plan_loss(const struct plan *plan, const int *choice) {
  double loss = 0;
  for (int l = 0; l < plan->num_layers; l++) {
    double error = plan->layers[l].points[choice[l]].error;
    loss += plan->layers[l].weight * error * error;
  }
  return loss;
}

// The points as the planner of tt.h takes them.
static tt_plan_layer *plan_points(const struct plan *plan) {
  tt_plan_layer *layers = (tt_plan_layer *)get_memory((size_t)plan->num_layers, sizeof *layers);
  for (int l = 0; l < plan->num_layers; l++) {
    const struct plan_layer *from = &plan->layers[l];
    tt_plan_point *points = (tt_plan_point *)get_memory(from->count, sizeof *points);
    for (size_t i = 0; i < from->count; i++) {
      points[i].bytes = from->points[i].bytes;
      points[i].loss = from->points[i].error * from->points[i].error;
    }
    layers[l].points = points;
    layers[l].count = (int)from->count;
    layers[l].weight = from->weight;
  }
  return layers;
}

static void free_plan_points(tt_plan_layer *layers, int count) {
  for (int l = 0; l < count; l++) free((void *)layers[l].points);
  free(layers);
}

// One method for all free layers that know it; the others stay.
static void uniform_choice(const struct plan *plan, int method, int *choice) {
  for (int l = 0; l < plan->num_layers; l++) {
    const struct plan_layer *layer = &plan->layers[l];
    choice[l] = 0;
    for (size_t i = 1; i < layer->count; i++)
      if (layer->points[i].method == method) choice[l] = (int)i;
  }
}

struct methods {
  int *list;
  size_t count, room;
};

// Every method that some layer knows, once.
static struct methods plan_methods(const struct plan *plan) {
  struct methods methods = {NULL, 0, 0};
  for (int l = 0; l < plan->num_layers; l++)
    for (size_t i = 1; i < plan->layers[l].count; i++) {
      int method = plan->layers[l].points[i].method, known = 0;
      for (size_t k = 0; k < methods.count; k++) known |= methods.list[k] == method;
      if (known) continue;
      methods.list = (int *)grow(methods.list, methods.count, &methods.room, sizeof(int));
      methods.list[methods.count++] = method;
    }
  return methods;
}

// The spec of a method, from the first layer that knows it: for messages.
static char *method_name(const struct plan *plan, int method) {
  for (int l = 0; l < plan->num_layers; l++)
    for (size_t i = 1; i < plan->layers[l].count; i++)
      if (plan->layers[l].points[i].method == method)
        return spec_text(&plan->layers[l].points[i].spec);
  return copy_string("keep");
}

// The mixed plan of a budget; where that is not even enough for the fewest bytes, those.
static void choose_mixed(const struct plan *plan, uint64_t budget, int *choice) {
  tt_plan_layer *layers = plan_points(plan);
  tt_status status = tt_plan_budget(layers, plan->num_layers, budget, choice, NULL);
  if (status != TT_ERROR_UNSUPPORTED) must(status, "plan");
  free_plan_points(layers, plan->num_layers);
}

// ---------------------------------------------------------------------------------------- the file

enum with_fits { NO_FITS, FULL_FITS, ALL_FITS }; // full: those that have their numbers

// What every layer becomes: rules, then the plan where it has something to say; and its fit.
static struct choice *plan_result(const struct plan *plan, const int *choice, enum with_fits with) {
  struct choice *choices = choose_by_rules(plan->job);
  for (int l = 0; l < plan->num_layers; l++) {
    const struct plan_layer *layer = &plan->layers[l];
    const struct point *point = &layer->points[choice[l]];
    const tt_matrix *train = &point->fit.train;
    if (!layer->is_ruled) choices[layer->index].spec = point->spec;
    if (with == ALL_FITS ? train->shape.order > 0 : with == FULL_FITS && train->block)
      choices[layer->index].ready = &point->fit;
  }
  return choices;
}

// Bytes of the file that these choices give, all layers of it. Exact; with a profile, a few bytes
// too many.
static uint64_t file_bytes(const struct plan *plan, const int *choice) {
  struct choice *choices = plan_result(plan, choice, ALL_FITS);
  struct pack pack = pack_choices(plan->job, choices, 1);
  uint64_t size = pack.size;
  pack_free(&pack, plan->job->model.num_layers);
  free(choices);
  return size;
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t less(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

// Divides the target into the bytes of layers and of all the rest; what the sums of layers do not
// know is small, and the same for the largest file as for the smallest but for some digits. Ends
// the program if not even the fewest bytes of all layers are within the target.
static void set_budget(struct plan *plan, uint64_t target) {
  enum { PADDING = 64 };
  int *choice = (int *)get_memory((size_t)plan->num_layers, sizeof *choice);
  uint64_t rest = less(file_bytes(plan, choice), plan_bytes(plan, choice));
  choose_fewest_bytes(plan, choice);
  uint64_t fewest = plan_bytes(plan, choice), size = file_bytes(plan, choice);
  if (size > target)
    fail(EXIT_TARGET, "target not met: the candidates need %llu bytes, the target is %llu",
         (unsigned long long)size, (unsigned long long)target);
  rest = larger(rest, less(size, fewest)) + PADDING;
  plan->target = target;
  plan->budget = larger(less(target, rest), fewest);
  free(choice);
}

// The mixed plan that makes most of the target: moves the budget until it does.
static void fill_target(const struct plan *plan, int *choice) {
  enum { STEPS = 8 };
  int *next = (int *)get_memory((size_t)plan->num_layers, sizeof *next);
  uint64_t budget = plan->budget, best = 0;
  choose_fewest_bytes(plan, choice); // these fit
  for (int step = 0; step < STEPS; step++) {
    choose_mixed(plan, budget, next);
    uint64_t size = file_bytes(plan, next);
    if (size > plan->target && best) break;
    if (size <= plan->target) {
      if (size <= best) break;
      best = size;
      memcpy(choice, next, (size_t)plan->num_layers * sizeof *choice);
    }
    budget =
        size > plan->target ? less(budget, size - plan->target) : budget + (plan->target - size);
  }
  free(next);
}

// --------------------------------------------------------------------------------------- the score

static char *eval_path; // a candidate file, while the command looks at it

static void remove_candidate(void) {
  if (eval_path) remove(eval_path);
  free(eval_path);
  eval_path = NULL;
}

// A new file beside the output, for nobody else.
static void create_candidate(const char *output) {
  static int registered;
  FILE *file = NULL;
  if (!registered++) atexit(remove_candidate);
  for (int i = 0; i < 100 && !file; i++) {
    struct text path = {NULL, 0, 0};
    text_add(&path, "%s.eval", output);
    if (i) text_add(&path, "-%d", i);
    text_add(&path, ".safetensors");
    file = tt__create_file(path.data);
    if (!file) text_free(&path);
    if (file) eval_path = path.data;
  }
  if (!file) fail(EXIT_SYSTEM, "%s.eval.safetensors: cannot create", output);
  fclose(file);
}

// The command with the name of the candidate as one word of the shell.
static char *eval_command(const char *command, const char *path) {
  struct text text = {NULL, 0, 0};
#ifdef _WIN32
  text_add(&text, "%s \"%s\"", command, path);
#else
  text_add(&text, "%s '", command);
  for (; *path; path++) {
    if (*path == '\'') text_add(&text, "'\\'");
    text_bytes(&text, path, 1);
  }
  text_add(&text, "'");
#endif
  return text.data;
}

// Runs the command on a file and reads its number.
static double run_eval(const char *command, const char *path) {
  char line[256] = "", *whole = eval_command(command, path), *end;
  fflush(stdout);
  FILE *pipe = popen(whole, "r");
  if (!pipe) fail(EXIT_SYSTEM, "--eval: cannot run %s", whole);
  size_t length = fread(line, 1, sizeof line - 1, pipe);
  line[length] = 0;
  int status = pclose(pipe);
  stop_if_interrupted();
  double score = strtod(line, &end);
  if (status || end == line || end[strspn(end, " \t\r\n")] || score - score != 0)
    fail(EXIT_SYSTEM, "--eval: %s did not print one number and end well", whole);
  free(whole);
  return score + 0; // no -0
}

// Score of the file that these choices give.
static double plan_score(const struct plan *plan, const int *choice) {
  const struct job *job = plan->job;
  struct choice *choices = plan_result(plan, choice, FULL_FITS);
  struct pack pack = pack_choices(job, choices, 0);
  create_candidate(job->output);
  must(tt_writer_save(pack.writer, eval_path), "%s", eval_path);
  double score = run_eval(job->options->eval, eval_path);
  remove_candidate();
  pack_free(&pack, job->model.num_layers);
  free(choices);
  return score;
}

static double select_score(void *user, const int *choice, int num_layers) {
  (void)num_layers;
  return plan_score((const struct plan *)user, choice);
}

// Without a target, where does the score begin to fall too far? Bisects the bytes of mixed plans.
// plan->choice becomes the smallest plan that kept the floor, if one did; plan->budget the bytes of
// the largest that did not, or 0. Returns the number of scores.
static int bisect_budget(struct plan *plan, double floor) {
  enum { STEPS = 8 };
  size_t size = (size_t)plan->num_layers * sizeof(int);
  int *choice = (int *)get_memory((size_t)plan->num_layers, sizeof *choice), scores = 0;
  for (int l = 0; l < plan->num_layers; l++) choice[l] = 0;
  uint64_t good = plan_bytes(plan, choice), bad;
  choose_fewest_bytes(plan, choice);
  plan->budget = bad = plan_bytes(plan, choice);
  while (scores < STEPS && good > bad) {
    if (scores) plan->budget = (uint64_t)sqrt((double)good * (double)bad);
    choose_mixed(plan, plan->budget, choice);
    uint64_t bytes = plan_bytes(plan, choice);
    int is_good = plan_score(plan, choice) >= floor;
    if (is_good) memcpy(plan->choice, choice, size);
    if (is_good)
      good = bytes;
    else
      bad = plan->budget;
    scores++;
  }
  plan->budget = good > bad ? bad : 0;
  free(choice);
  return scores;
}

// --max-drop: in batches of layers as far as the score allows, with roll-back (tt_plan_select).
// Without probes the squared errors say in which order.
static void choose_by_drop(struct plan *plan) {
  const struct options *options = plan->job->options;
  tt_selection selection;
  tt_options patient = patience();
  int *choice = (int *)get_memory((size_t)plan->num_layers, sizeof *choice), scores = 1;
  double floor = run_eval(options->eval, plan->job->model.path) - options->max_drop;
  memset(&selection, 0, sizeof selection);
  if (!plan->target && !options->probe) scores += bisect_budget(plan, floor);
  selection.eval = select_score;
  selection.user = plan;
  selection.budget = plan->budget;
  selection.max_drop = options->max_drop;
  selection.floor = &floor;
  selection.trust_losses = !options->probe;
  tt_plan_layer *layers = plan_points(plan);
  tt_status status = tt_plan_select(layers, plan->num_layers, &selection, &patient, choice);
  free_plan_points(layers, plan->num_layers);
  if (status == TT_ERROR_UNSUPPORTED)
    fail(EXIT_TARGET, "target not met: the score is %.6g at most, it must be %.6g",
         selection.baseline, floor);
  must(status, "plan");
  if (plan_bytes(plan, choice) < plan_bytes(plan, plan->choice))
    memcpy(plan->choice, choice, (size_t)plan->num_layers * sizeof *choice);
  free(choice);
  remark("score %.6g at least, it was %.6g; %d evaluations", floor, floor + options->max_drop,
         scores + selection.num_evals);
  uint64_t size = file_bytes(plan, plan->choice);
  if (plan->target && size > plan->target)
    fail(EXIT_TARGET, "target not met: fewer than %llu bytes cost too much of the score",
         (unsigned long long)size);
}

// --probe: a layer weighs what its smallest candidate alone costs the score, over the squared
// error.
static void probe_weights(struct plan *plan) {
  int *choice = (int *)get_memory((size_t)plan->num_layers, sizeof *choice);
  double base = plan_score(plan, choice), all = 0;
  int free_layers = 0;
  for (int l = 0; l < plan->num_layers; l++) {
    struct plan_layer *layer = &plan->layers[l];
    int least = fewest_bytes(layer);
    if (!least || !(layer->points[least].error > 0)) continue;
    choice[l] = least;
    double error = layer->points[least].error, drop = base - plan_score(plan, choice);
    choice[l] = 0;
    layer->weight = (drop > 0 ? drop : 0) / (error * error);
    all += layer->weight;
    free_layers++;
  }
  // noise of the score must not make a layer free of charge
  for (int l = 0; l < plan->num_layers && free_layers; l++)
    plan->layers[l].weight = all > 0 ? plan->layers[l].weight + 0.01 * all / free_layers : 1;
  free(choice);
}

// ------------------------------------------------------------------------------- the best of plans

struct contest { // plan->choice holds the best so far
  const struct plan *plan;
  int has_best;
  double loss, score;
};

// Takes `choice` if it wins: by score with --eval, else by `handicap` times its loss. What has won
// so far is not scored again.
static void compete(struct contest *contest, const int *choice, double handicap, const char *name) {
  const struct plan *plan = contest->plan;
  double loss = handicap * plan_loss(plan, choice), score = 0;
  int has_score = plan->job->options->eval != NULL, wins;
  size_t size = (size_t)plan->num_layers * sizeof *choice;
  if (contest->has_best && !memcmp(plan->choice, choice, size)) {
    if (has_score) remark("plan %s: the same", name);
    return;
  }
  if (has_score) score = plan_score(plan, choice);
  if (has_score) remark("plan %s: score %.6g", name, score);
  wins = !contest->has_best || (has_score ? score > contest->score : loss < contest->loss);
  if (!wins) return;
  contest->has_best = 1;
  contest->loss = loss;
  contest->score = score;
  memcpy(plan->choice, choice, size);
}

// Spends what a choice leaves of the target on better points of single layers, as long as one fits:
// first the one that takes most off the loss, or most per byte. No layer's error grows.
static void spend(const struct plan *plan, int *choice, int per_byte) {
  uint64_t most = UINT64_MAX; // for one layer: a sum of layers can miss the file by a few bytes
  for (;;) {
    uint64_t rest = less(plan->target, file_bytes(plan, choice)), best_more = 0;
    if (rest > most) rest = most;
    double best_gain = 0;
    int best_layer = -1, best_point = 0;
    for (int l = 0; l < plan->num_layers; l++) {
      const struct plan_layer *layer = &plan->layers[l];
      const struct point *now = &layer->points[choice[l]];
      for (size_t i = 0; i < layer->count; i++) {
        const struct point *point = &layer->points[i];
        uint64_t more = less(point->bytes, now->bytes); // 0: no larger
        double gain = layer->weight * (now->error * now->error - point->error * point->error);
        if (per_byte) gain /= (double)more + 1;
        if (more > rest || !(gain > best_gain)) continue;
        best_gain = gain;
        best_more = more;
        best_layer = l;
        best_point = (int)i;
      }
    }
    if (best_layer < 0) return;
    int before = choice[best_layer];
    choice[best_layer] = best_point;
    if (file_bytes(plan, choice) <= plan->target) continue;
    choice[best_layer] = before;
    if (!best_more) return;
    most = best_more - 1;
  }
}

// The better of both orders: per byte alone can leave room that one large step would have used.
static void spend_rest(const struct plan *plan, int *choice) {
  size_t size = (size_t)plan->num_layers * sizeof *choice;
  int *other = (int *)get_memory((size_t)plan->num_layers, sizeof *other);
  memcpy(other, choice, size);
  spend(plan, choice, 1);
  spend(plan, other, 0);
  if (plan_loss(plan, other) < plan_loss(plan, choice)) memcpy(choice, other, size);
  free(other);
}

// --target-ratio: the uniform plans that fit, and the mixed one, which must be better by a tenth.
static void choose_within_budget(struct plan *plan) {
  struct contest contest;
  struct methods methods = plan_methods(plan);
  int *choice = (int *)get_memory((size_t)plan->num_layers, sizeof *choice);
  memset(&contest, 0, sizeof contest);
  contest.plan = plan;
  if (plan->job->options->probe) probe_weights(plan);
  for (size_t i = 0; i < methods.count; i++) {
    uniform_choice(plan, methods.list[i], choice);
    if (file_bytes(plan, choice) > plan->target) continue;
    spend_rest(plan, choice);
    char *name = method_name(plan, methods.list[i]);
    compete(&contest, choice, 1, name);
    free(name);
  }
  fill_target(plan, choice);
  spend_rest(plan, choice);
  compete(&contest, choice, 1 / 0.9, "mixed");
  free(methods.list);
  free(choice);
}

// ---------------------------------------------------------------------------------------- the door

// A choice for every layer of the model.
static struct choice *plan_choices(struct plan *plan, uint64_t target) {
  const struct options *options = plan->job->options;
  if (options->target_error > 0) drop_coarse_points(plan, options->target_error);
  if (target) set_budget(plan, target);
  if (options->max_drop >= 0)
    choose_by_drop(plan);
  else if (target)
    choose_within_budget(plan);
  else
    choose_fewest_bytes(plan, plan->choice);
  return plan_result(plan, plan->choice, NO_FITS);
}

#endif
