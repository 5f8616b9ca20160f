// The command line of ttc: what can be given, the help text, and the reader. Every option is a row
// of one table, which also says for which commands it makes sense. Include after text.h.
#ifndef TTC_OPTIONS_H
#define TTC_OPTIONS_H

#include "text.h"
#include <stddef.h>

enum command { // bits, so that an option can belong to several
  DO_INFO = 1,
  DO_PROFILE = 2,
  DO_COMPRESS = 4,
  DO_EXPAND = 8,
  DO_VERIFY = 16,
  DO_DIFF = 32,
  DO_EXPORT = 64
};

enum { MAX_RULES = 256, MAX_PARTS = 10000 };

struct options {
  int command;          // one of enum command
  const char *files[2]; // positional arguments
  int num_files;
  const char *output;           // -o
  const char *rules[MAX_RULES]; // --layer REGEX=SPEC, as given
  int num_rules;
  double target_ratio; // 0 = not given
  double target_error; // 0 = not given
  double max_drop;     // negative = not given
  const char *inputs, *eval, *json, *profile, *candidates, *svg;
  int shard, num_shards; // --shard I/N; num_shards 0 = not given
  int join;              // --join N; 0 = not given
  int force, dry_run, force_profile, add_bias, probe;
};

static const char usage_text[] =
    "usage: ttc info FILE                       tensors, layers, trains\n"
    "       ttc profile FILE                    entropies and candidates of every layer\n"
    "       ttc compress IN -o OUT              layers become trains or codes\n"
    "       ttc expand IN -o OUT                trains become dense layers again\n"
    "       ttc verify DENSE COMPRESSED         is COMPRESSED what it says it is?\n"
    "       ttc diff A B                        compares two files tensor by tensor\n"
    "       ttc export-c FILE LAYER -o H        a layer as a C header\n"
    "       ttc --help | --version";

static const char help_text[] =
    "\n\n"
    "Files are safetensors; FILE may also be the index of a model in several files\n"
    "(model.safetensors.index.json). A layer is a two-dimensional float tensor: X.weight is\n"
    "layer X, any other has its own name. All other tensors are copied byte for byte.\n"
    "\n"
    "what to do with a layer (compress)\n"
    "  --layer REGEX=SPEC    layers whose name matches; the first match wins, repeat at will\n"
    "      keep              as it is\n"
    "      i8 i4 i3 i2       integer codes: i8 one scale per row, the others one per 32 numbers\n"
    "      svd:R             two factors of rank R\n"
    "      tt:R              a train of two balanced cores of rank R\n"
    "      tt:R@M,..xN,..    a train with row factors M,.. and column factors N,..\n"
    "      eps:E             the fewest bytes of svd and two- or three-core trains whose error is\n"
    "                        at most E\n"
    "      SPEC+i8 +i4 +i3 +f16   the same with coded cores (keep, svd, tt, eps)\n"
    "  A layer whose new form would not be smaller stays as it is. Errors are relative: of\n"
    "  outputs where --inputs knows what flows in, else of weights. REGEX may match anywhere in\n"
    "  the name: . [a-z] [^a-z] * + ? ^ $ \\. as in POSIX; no groups, choices or counts.\n"
    "\n"
    "let ttc choose (compress); layers matched by --layer are left to their rule\n"
    "  --target-ratio X      the file becomes at least X times smaller, with the least error; the\n"
    "                        smallest layers, 1/10000 of the bytes together, stay as they are\n"
    "  --target-error E      each layer the fewest bytes with an error of at most E\n"
    "  --candidates LIST     the specs to choose from, e.g. i8,i4,svd:64,svd:64+i8\n"
    "  --profile FILE        measurements of `ttc profile --json FILE`, instead of new ones\n"
    "  --force-profile       also those of another checkpoint or other --inputs\n"
    "  --eval CMD            CMD gets the name of a candidate file and prints one number, the\n"
    "                        score (larger is better); the plan with the best score is taken\n"
    "  --max-drop X          with --eval: the score may fall by X; layers are compressed in\n"
    "                        batches, the last good state is kept\n"
    "  --probe               with --eval: errors count as what they cost the score, measured by a\n"
    "                        run for each layer (with --max-drop: for each of its candidates)\n"
    "\n"
    "what to measure (profile): all dense layers, or\n"
    "  --layer REGEX         those whose name matches; repeat at will. Half a minute for a matrix "
    "of\n"
    "                        1024 x 1024, eight times that for twice the sides\n"
    "\n"
    "data\n"
    "  --inputs FILE         what flows into layers: <layer>.inputs (batch, cols), or moments\n"
    "                        <layer>.inputs.count, .mean, .covariance; <layer>.row_weights for\n"
    "                        tables. Errors are then those of outputs, biases are corrected.\n"
    "  --add-bias            layers without a bias may get one for that\n"
    "\n"
    "output\n"
    "  -o FILE               written in one step, never half; refused if it exists\n"
    "  -f                    overwrite\n"
    "  --dry-run             do everything but write (data wait in a temporary file beside -o)\n"
    "  --json FILE           results as JSON, - for stdout instead of the table\n"
    "  --svg PREFIX          profile: PREFIX-spectra.svg, -entropy.svg and -candidates.svg\n"
    "  -q                    no progress, no remarks       --no-progress   no progress\n"
    "  --shard I/N           only part I (from 0) of N, to OUT.part-I-of-N (OUT: of -o or --json)\n"
    "  --join N              OUT from N such parts, as one process would write it\n"
    "\n"
    "verify: the weights of every train within 1.01 times their recorded error + 1e-6, all else\n"
    "byte for byte, the source's hash equal.\n"
    "\n"
    "Memory: three times the largest layer and 64 MB. More for an svd or tt of more than a low\n"
    "rank where both sides exceed 1024 (three square matrices of doubles of the smaller side),\n"
    "for fits to inputs or row weights (six doubles for each number of the layer), for --eval (all\n"
    "candidates) and profile (ten times the largest layer). --shard shares the time and the layers\n"
    "over several processes.\n"
    "\n"
    "exit status: 0 good, 1 input or output failed, 2 wrong usage, 3 invalid input, 4 target not\n"
    "met (nothing written), 5 verify or diff found a difference\n";

enum option_kind {
  OPTION_FLAG,
  OPTION_TEXT,
  OPTION_NUMBER,   // >= 0
  OPTION_POSITIVE, // > 0
  OPTION_COUNT,
  OPTION_SHARD,
  OPTION_RULE
};

struct option_row {
  const char *name;
  int kind;
  size_t offset; // of the field in struct options
  int commands;
};

#define FIELD(name) offsetof(struct options, name)
static const struct option_row option_rows[] = {
    {"-o", OPTION_TEXT, FIELD(output), DO_COMPRESS | DO_EXPAND | DO_EXPORT},
    {"-f", OPTION_FLAG, FIELD(force), DO_COMPRESS | DO_EXPAND | DO_EXPORT},
    {"--layer", OPTION_RULE, 0, DO_COMPRESS | DO_PROFILE},
    {"--target-ratio", OPTION_POSITIVE, FIELD(target_ratio), DO_COMPRESS},
    {"--target-error", OPTION_POSITIVE, FIELD(target_error), DO_COMPRESS},
    {"--max-drop", OPTION_NUMBER, FIELD(max_drop), DO_COMPRESS},
    {"--inputs", OPTION_TEXT, FIELD(inputs), DO_COMPRESS | DO_PROFILE},
    {"--eval", OPTION_TEXT, FIELD(eval), DO_COMPRESS},
    {"--probe", OPTION_FLAG, FIELD(probe), DO_COMPRESS},
    {"--profile", OPTION_TEXT, FIELD(profile), DO_COMPRESS},
    {"--force-profile", OPTION_FLAG, FIELD(force_profile), DO_COMPRESS},
    {"--candidates", OPTION_TEXT, FIELD(candidates), DO_COMPRESS},
    {"--add-bias", OPTION_FLAG, FIELD(add_bias), DO_COMPRESS},
    {"--dry-run", OPTION_FLAG, FIELD(dry_run), DO_COMPRESS | DO_EXPAND},
    {"--shard", OPTION_SHARD, 0, DO_COMPRESS | DO_PROFILE},
    {"--join", OPTION_COUNT, FIELD(join), DO_COMPRESS | DO_PROFILE},
    {"--json", OPTION_TEXT, FIELD(json), DO_INFO | DO_PROFILE | DO_COMPRESS | DO_VERIFY | DO_DIFF},
    {"--svg", OPTION_TEXT, FIELD(svg), DO_PROFILE},
};
#undef FIELD

struct command_row {
  const char *name;
  int command, num_files, needs_output;
};

static const struct command_row command_rows[] = {
    {"info", DO_INFO, 1, 0},       {"profile", DO_PROFILE, 1, 0}, {"compress", DO_COMPRESS, 1, 1},
    {"expand", DO_EXPAND, 1, 1},   {"verify", DO_VERIFY, 2, 0},   {"diff", DO_DIFF, 2, 0},
    {"export-c", DO_EXPORT, 2, 1},
};

static void fail_usage(const char *what, const char *which) {
  fail(EXIT_USAGE, "%s%s\n%s", what, which, usage_text);
}

// A finite number >= 0 that fills the whole text; -1 if it is none.
static double read_number(const char *text) {
  char *end;
  double value = strtod(text, &end);
  return end == text || *end || !(value >= 0) || value > 1e300 ? -1 : value;
}

// A decimal integer at *text, which moves behind it; -1 if there is none. A tenth digit is not
// read, and so is left for the caller to refuse.
static int read_integer(const char **text) {
  int value = 0, digits = 0;
  for (; **text >= '0' && **text <= '9' && digits < 9; digits++, ++*text)
    value = 10 * value + (**text - '0');
  return digits ? value : -1;
}

static void read_shard(const char *value, struct options *options) {
  const char *at = value;
  options->shard = read_integer(&at);
  if (options->shard >= 0 && *at == '/') {
    at++;
    options->num_shards = read_integer(&at);
  }
  if (*at || options->num_shards < 1 || options->num_shards > MAX_PARTS ||
      options->shard >= options->num_shards)
    fail(EXIT_USAGE, "--shard %s: wanted I/N with 0 <= I < N <= %d", value, MAX_PARTS);
}

static void read_option(const struct option_row *row, const char *value, struct options *options) {
  void *field = (char *)options + row->offset;
  const char *at = value;
  switch (row->kind) {
    case OPTION_FLAG: *(int *)field = 1; break;
    case OPTION_TEXT: *(const char **)field = value; break;
    case OPTION_SHARD: read_shard(value, options); break;
    case OPTION_NUMBER:
    case OPTION_POSITIVE:
      *(double *)field = read_number(value);
      if (*(double *)field < 0 || (row->kind == OPTION_POSITIVE && *(double *)field == 0))
        fail(EXIT_USAGE, "%s %s: not a number %s 0", row->name, value,
             row->kind == OPTION_POSITIVE ? ">" : ">=");
      break;
    case OPTION_COUNT:
      *(int *)field = read_integer(&at);
      if (*(int *)field < 1 || *(int *)field > MAX_PARTS || *at)
        fail(EXIT_USAGE, "%s %s: not a count from 1 to %d", row->name, value, MAX_PARTS);
      break;
    case OPTION_RULE:
      if (options->num_rules == MAX_RULES) fail(EXIT_USAGE, "more than %d --layer", MAX_RULES);
      options->rules[options->num_rules++] = value;
      break;
  }
}

static const struct option_row *find_option(const char *name) {
  for (size_t i = 0; i < sizeof option_rows / sizeof *option_rows; i++)
    if (!strcmp(option_rows[i].name, name)) return &option_rows[i];
  fail_usage("unknown option ", name);
  return NULL;
}

static const struct command_row *find_command(const char *name) {
  for (size_t i = 0; i < sizeof command_rows / sizeof *command_rows; i++)
    if (!strcmp(command_rows[i].name, name)) return &command_rows[i];
  fail_usage("unknown command ", name);
  return NULL;
}

// Reads the arguments behind the command's name.
static void read_arguments(const struct command_row *command, int argc, char **argv,
                           struct options *options) {
  for (int i = 2; i < argc; i++) {
    if (argv[i][0] != '-' || !argv[i][1]) {
      if (options->num_files == command->num_files) fail_usage("unexpected argument ", argv[i]);
      options->files[options->num_files++] = argv[i];
    } else if (!strcmp(argv[i], "-q")) {
      be_quiet = 1;
    } else if (!strcmp(argv[i], "--no-progress")) {
      show_progress = 0;
    } else {
      const struct option_row *row = find_option(argv[i]);
      if (!(row->commands & command->command))
        fail(EXIT_USAGE, "ttc %s takes no %s", command->name, row->name);
      if (row->kind != OPTION_FLAG && i + 1 == argc) fail_usage("no value behind ", argv[i]);
      read_option(row, row->kind == OPTION_FLAG ? "" : argv[++i], options);
    }
  }
}

// The whole command line. --help and --version end the program.
static struct options read_command_line(int argc, char **argv) {
  struct options options;
  memset(&options, 0, sizeof options);
  options.max_drop = -1;
  if (argc < 2) fail_usage("no command", "");
  for (int i = 1; i < argc; i++) {
    int help = !strcmp(argv[i], "--help"), version = !strcmp(argv[i], "--version");
    if (help) printf("%s%s", usage_text, help_text);
    if (version) puts("ttc " TT_VERSION);
    if (help || version) {
      finish_output();
      exit(EXIT_GOOD);
    }
  }
  const struct command_row *command = find_command(argv[1]);
  options.command = command->command;
  read_arguments(command, argc, argv, &options);
  if (options.num_files < command->num_files) fail_usage("too few files for ", command->name);
  if (command->needs_output && !options.output && !options.dry_run) fail_usage("no -o FILE", "");
  return options;
}

#endif
