// ttc compress: from the command line to the file. Include after plan.h.
#ifndef TTC_COMPRESS_H
#define TTC_COMPRESS_H

#include "plan.h"

// Options that contradict each other, or that need one which is not there.
static void check_options(const struct options *o) {
  int has_target = o->target_ratio > 0 || o->target_error > 0 || o->max_drop >= 0;
  if (o->join && (o->num_shards || o->num_rules || has_target))
    fail(EXIT_USAGE, "--join takes the parts as they are: no --shard, --layer or target");
  if (!o->join && !o->num_rules && !has_target)
    fail(EXIT_USAGE, "nothing to do: give --layer, --target-ratio or --target-error");
  if (o->target_ratio > 0 && o->target_ratio < 1)
    fail(EXIT_USAGE, "--target-ratio is how many times smaller: at least 1");
  if (o->max_drop >= 0 && !o->eval) fail(EXIT_USAGE, "--max-drop needs --eval");
  if (o->eval && !o->output)
    fail(EXIT_USAGE, "--eval needs -o, beside which candidates are written");
  if (o->eval && o->max_drop < 0 && !(o->target_ratio > 0))
    fail(EXIT_USAGE, "--eval needs --target-ratio or --max-drop");
  if (o->probe && !o->eval) fail(EXIT_USAGE, "--probe needs --eval");
  if (o->num_shards && (o->eval || (o->target_ratio > 0 && !o->profile)))
    fail(EXIT_USAGE, "--shard with --target-ratio needs --profile, and takes no --eval: no process "
                     "sees all layers");
  if ((o->profile || o->candidates) && !has_target)
    fail(EXIT_USAGE, "--profile and --candidates need a target");
  if (o->profile && o->candidates) fail(EXIT_USAGE, "--profile brings its own candidates");
  if (o->join && !o->output) fail(EXIT_USAGE, "--join needs -o, by which parts are found");
}

// Inputs that belong to no layer at all are those of another model.
static void check_inputs(const struct model *model, const struct model *calibration) {
  for (int i = 0; i < model->num_layers; i++) {
    const struct layer *layer = &model->layers[i];
    if (has_inputs(calibration, layer) ||
        find_part(calibration->file, layer->name, ".row_weights") >= 0)
      return;
  }
  fail(EXIT_INPUT, "%s: has inputs of no layer of %s", calibration->path, model->path);
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
  if (options->json && job.output && same_file(options->json, job.output))
    fail(EXIT_USAGE, "--json and the output are both %s", options->json);
  job.model = open_input(options, options->files[0]);
  check_rules(&job.rules, &job.model);
  if (job.output && !options->dry_run) check_output(job.output, &job.model, options->force);
  if (options->inputs) {
    job.calibration = (struct model *)get_memory(1, sizeof *job.calibration);
    *job.calibration = model_open(options->inputs);
    check_inputs(&job.model, job.calibration);
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

// ttc compress IN -o OUT
static void compress(const struct options *options) {
  check_options(options);
  struct job job = open_job(options);
  uint64_t target = 0;
  if (options->target_ratio > 0)
    target = (uint64_t)((double)job.model.file_size / options->target_ratio);
  if (options->target_ratio > 0 && !target) target = 1; // no file is as small
  int has_plan = target || options->target_error > 0 || options->max_drop >= 0;
  struct choice *choices = NULL;
  if (has_plan) {
    struct plan plan = plan_open(&job);
    choices = plan_choices(&plan, target);
    plan_free(&plan);
  } else if (!options->join) {
    choices = choose_by_rules(&job);
  }
  struct pack pack = options->join ? pack_join(&job) : pack_choices(&job, choices, 0);
  if (target && !options->num_shards && pack.size > target)
    fail(EXIT_TARGET, "target not met: the file has %llu bytes, the target is %llu",
         (unsigned long long)pack.size, (unsigned long long)target);
  save_writer(pack.writer, job.output, options->dry_run);
  print_results(&job, &pack);
  pack_free(&pack, job.model.num_layers);
  free(choices);
  close_job(&job);
}

#endif
