// ttc compress: from the command line to the file. Include after plan.h.
#ifndef TTC_COMPRESS_H
#define TTC_COMPRESS_H

#include "pack.h"

// Options that contradict each other, or that need one which is not there.
static void check_options(const struct options *o) {
  int has_target = o->target_ratio > 0 || o->target_error > 0 || o->max_drop >= 0;
  if (o->join && (o->num_shards || o->num_rules || has_target))
    fail(EXIT_USAGE, "--join takes the parts as they are: no --shard, --layer or target");
  if (!o->join && !o->num_rules && !has_target)
    fail(EXIT_USAGE, "nothing to do: give --layer, --target-ratio or --target-error");
  if (o->join && !o->output) fail(EXIT_USAGE, "--join needs -o, by which parts are found");
}

static struct job open_job(const struct options *options) {
  struct job job;
  memset(&job, 0, sizeof job);
  job.options = options;
  job.rules = read_rules(options);
  if (options->output)
    job.output = options->num_shards
                     ? part_name(options->output, options->shard, options->num_shards)
                     : copy_string(options->output);
  job.model = model_open(options->files[0]);
  check_rules(&job.rules, &job.model);
  if (job.output && !options->dry_run) check_output(job.output, options->files[0], options->force);
  if (options->inputs) {
    job.calibration = (struct model *)get_memory(1, sizeof *job.calibration);
    *job.calibration = model_open(options->inputs);
    model_hash(job.calibration);
  }
  model_hash(&job.model);
  return job;
}

static void close_job(struct job *job) {
  model_close(&job->model);
  if (job->calibration) model_close(job->calibration);
  free(job->calibration);
  free_rules(&job->rules);
  free(job->output);
}

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

static void compress(const struct options *options) {
  check_options(options);
  struct job job = open_job(options);
  struct choice *choices = choose_by_rules(&job);
  struct pack pack = options->join ? pack_join(&job) : pack_choices(&job, choices);
  save_writer(pack.writer, job.output, options->dry_run);
  print_results(&job, &pack);
  pack_free(&pack, job.model.num_layers);
  free(choices);
  close_job(&job);
}

#endif
