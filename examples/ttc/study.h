// ttc profile: tables of what profile.h measures, JSON, parts of --shard and their --join.
// Include after picture.h and pack.h.
#ifndef TTC_STUDY_H
#define TTC_STUDY_H

#include "pack.h"
#include "picture.h"
#include "profile.h"

// -------------------------------------------------------------------------------------- the tables

static int is_best(const int *best, int num_best, int index) {
  for (int i = 0; i < num_best; i++)
    if (best[i] == index) return 1;
  return 0;
}

static void print_candidates(const struct profile_layer *layer) {
  static const char *const titles[] = {"candidate", "ranks",    "params", "bytes", "ratio",
                                       "rel err",   "func err", "MACs x", "best"};
  struct table table = table_begin("llrrrrrrl", titles);
  double dense = (double)layer->rows * (double)layer->cols;
  int num_best, *best = best_candidates(layer, &num_best);
  for (size_t i = 0; i < layer->num_candidates; i++) {
    const struct candidate *c = &layer->candidates[i];
    struct text ranks = {NULL, 0, 0};
    char *spec = spec_text(&c->spec);
    shape_ranks(&c->shape, &ranks);
    table_cell(&table, "%s", spec);
    table_cell(&table, "%s", ranks.data);
    table_cell(&table, "%ld", (long)c->params);
    table_cell(&table, "%llu", (unsigned long long)c->bytes);
    table_real(&table, 2, (double)layer->candidates[0].bytes / (double)c->bytes);
    table_real(&table, 4, c->weight_error);
    table_real(&table, 4, c->functional_error);
    table_real(&table, 2, dense / (double)c->macs);
    table_cell(&table, "%s", is_best(best, num_best, (int)i) ? "*" : "");
    text_free(&ranks);
    free(spec);
  }
  table_print(&table, stdout);
  table_free(&table);
  free(best);
}

// Name of a factorisation in tables and pictures: "svd", or the modes of its cores.
static void bond_name(const struct profile_bond *bond, struct text *out) {
  const tt_shape *factors = &bond->factors;
  if (is_low_rank(factors))
    text_add(out, "svd");
  else
    shape_modes(factors, out);
}

static void print_bonds(const struct profile_layer *layer) {
  static const char *const titles[] = {"cut",      "bond",     "values",   "S/nat",  "Gaussian",
                                       "eff.rank", "Gaussian", "rank 10%", "rank 1%"};
  struct table table = table_begin("lrrrrrrrr", titles);
  for (size_t i = 0; i < layer->num_bonds; i++) {
    const struct profile_bond *bond = &layer->bonds[i];
    struct text name = {NULL, 0, 0};
    bond_name(bond, &name);
    table_cell(&table, "%s", name.data);
    table_cell(&table, "%d", bond->bond);
    table_real(&table, 0, bond_side(&bond->factors, bond->bond));
    table_real(&table, 3, bond->figures.entropy);
    table_real(&table, 3, bond->figures.gaussian_entropy);
    table_real(&table, 1, bond->figures.effective_rank);
    table_real(&table, 1, bond->figures.gaussian_effective_rank);
    table_cell(&table, "%d", bond->figures.tail_ranks[0]);
    table_cell(&table, "%d", bond->figures.tail_ranks[1]);
    text_free(&name);
  }
  table_print(&table, stdout);
  table_free(&table);
}

static void print_profile(const struct profile *profile) {
  puts(
      "S: von Neumann entropy of the squared singular values; Gaussian: of a random matrix of the "
      "same\nshape; rank 10%: leaves out at most 10 % of the norm; *: no other candidate is better "
      "and smaller");
  for (size_t i = 0; i < profile->num_layers; i++) {
    const struct profile_layer *layer = &profile->layers[i];
    printf("\n%s: %ld x %ld, %s\n", layer->name, (long)layer->rows, (long)layer->cols,
           *layer->inputs_sha256 ? "with inputs" : "weights only");
    print_bonds(layer);
    print_candidates(layer);
  }
}

// ------------------------------------------------------------------------------------- the command

// Is the layer dense, and named by one of the --layer patterns, if there are any?
static int is_wanted(const struct options *options, const struct layer *layer) {
  int wanted = options->num_rules == 0;
  for (int i = 0; i < options->num_rules; i++)
    wanted |= regex_match(options->rules[i], layer->name);
  return wanted && layer->tensor >= 0;
}

static void check_patterns(const struct options *options, const struct model *model) {
  for (int i = 0; i < options->num_rules; i++) {
    const char *error = regex_error(options->rules[i]);
    int found = 0;
    if (error) fail(EXIT_USAGE, "--layer %s: %s", options->rules[i], error);
    for (int l = 0; l < model->num_layers && !found; l++)
      found = regex_match(options->rules[i], model->layers[l].name);
    if (!found) fail(EXIT_INPUT, "%s: no layer matches %s", model->path, options->rules[i]);
  }
}

// Work of a layer in any unit: its SVDs.
static double profile_cost(const struct layer *layer) {
  double m = (double)layer->rows, n = (double)layer->cols;
  return m * n * (m < n ? m : n);
}

// Measures the wanted layers of one shard, in the order of the file.
static void profile_make(const struct options *options, const struct model *model,
                         struct profile *profile) {
  struct model calibration;
  int num_shards = options->num_shards ? options->num_shards : 1, position = 0;
  double total = 0;
  if (options->inputs) calibration = model_open(options->inputs);
  for (int i = 0; i < model->num_layers; i++)
    if (is_wanted(options, &model->layers[i])) total += profile_cost(&model->layers[i]);
  struct progress progress = progress_begin(total / num_shards);
  for (int i = 0; i < model->num_layers; i++) {
    const struct layer *layer = &model->layers[i];
    if (!is_wanted(options, layer) || position++ % num_shards != options->shard) continue;
    progress_show(&progress, layer->name);
    profile_measure(model, options->inputs ? &calibration : NULL, layer, profile_add(profile));
    progress.done += profile_cost(layer);
    stop_if_interrupted();
  }
  progress_clear();
  if (options->inputs) model_close(&calibration);
}

// Puts the parts of --shard together, in the order of the file; the layers are taken over. Layers
// were dealt out in turn, so that a missing one shows.
static void join_profiles(const struct options *options, const struct model *model,
                          struct profile *profile) {
  int count = options->join, position = 0;
  struct profile *parts = (struct profile *)get_memory((size_t)count, sizeof *parts);
  size_t left = 0;
  for (int part = 0; part < count; part++) {
    char *path = part_name(options->json, part, count);
    parts[part] = profile_read(path, model, 0);
    left += parts[part].num_layers;
    free(path);
  }
  for (int i = 0; i < model->num_layers; i++) {
    const char *name = model->layers[i].name;
    struct profile_layer *known = NULL;
    int part = 0;
    while (part < count && !(known = profile_find(&parts[part], name))) part++;
    if (!known) continue;
    if (part != position++ % count)
      fail(EXIT_INPUT, "%s: layer %s is not in the part where it should be; one is missing",
           options->json, name);
    *profile_add(profile) = *known;
    memset(known, 0, sizeof *known);
    known->name = copy_string("");
    left--;
  }
  if (left) fail(EXIT_INPUT, "%s: a layer is in two parts", options->json);
  for (int part = 0; part < count; part++) profile_free(&parts[part]);
  free(parts);
}

static void check_study(const struct options *o) {
  if ((o->num_shards || o->join) && (!o->json || !strcmp(o->json, "-")))
    fail(EXIT_USAGE, "--shard and --join of profile need --json FILE");
  if (o->join && (o->num_shards || o->num_rules || o->inputs))
    fail(EXIT_USAGE, "--join takes the parts as they are: no --shard, --layer or --inputs");
}

// ttc profile FILE
static void study(const struct options *options) {
  check_study(options);
  struct model model = open_input(options, options->files[0]);
  struct profile profile;
  struct text json = {NULL, 0, 0};
  memset(&profile, 0, sizeof profile);
  check_patterns(options, &model);
  model_hash(&model);
  strcpy(profile.source_sha256, model.sha256);
  strcpy(profile.data_sha256, model.data_sha256);
  if (options->join)
    join_profiles(options, &model, &profile);
  else
    profile_make(options, &model, &profile);
  if (options->svg) draw_profile(&profile, options->svg);
  if (options->json) {
    char *path = options->num_shards ? part_name(options->json, options->shard, options->num_shards)
                                     : copy_string(options->json);
    profile_json(&profile, &json);
    text_save(&json, path);
    free(path);
  }
  if (!options->json || strcmp(options->json, "-")) print_profile(&profile);
  text_free(&json);
  profile_free(&profile);
  model_close(&model);
}

#endif
