// What shall become of a layer: "svd:64+i8" and its like, read, printed, and chosen for a layer by
// the first --layer REGEX=SPEC that matches. Include after model.h.
#ifndef TTC_SPEC_H
#define TTC_SPEC_H

#include "options.h"
#include "regex.h"

enum spec_kind {
  SPEC_KEEP,  // as it is
  SPEC_DENSE, // the matrix itself in another format
  SPEC_SVD,
  SPEC_TRAIN,
  SPEC_ERROR // the fewest bytes within an error
};

struct spec {
  int kind;
  int rank;         // of every bond, lowered to what is useful
  tt_shape factors; // of SPEC_TRAIN; order 0 = two balanced cores
  double error;     // of SPEC_ERROR
  tt_dtype dtype;   // TT_F32 = as fitted
};

// ----------------------------------------------------------------------------------------- formats

struct spec_format {
  const char *name;
  tt_dtype dtype;
  int group; // numbers that share a scale
};

static const struct spec_format spec_formats[] = {{"i8", TT_I8, TT_GROUP_ROW},
                                                  {"i4", TT_I4, 32},
                                                  {"i3", TT_I3, 32},
                                                  {"i2", TT_I2, 32},
                                                  {"f16", TT_F16, 0}};

static const struct spec_format *find_format(const char *name, tt_dtype dtype) {
  for (size_t i = 0; i < sizeof spec_formats / sizeof *spec_formats; i++)
    if (name ? !strcmp(spec_formats[i].name, name) : spec_formats[i].dtype == dtype)
      return &spec_formats[i];
  return NULL;
}

// -------------------------------------------------------------------------------------- read specs

// Factors "4,8,8" into out[]; they end at `end`. Returns their number, 0 if they are none.
static int read_factors(const char **at, char end, int out[TT_MAX_ORDER]) {
  int count = 0;
  while (count < TT_MAX_ORDER) {
    out[count] = read_integer(at);
    if (out[count++] < 1) return 0;
    if (**at == end) return count;
    if (*(*at)++ != ',') return 0;
  }
  return 0;
}

// R or R@m1,m2,..xn1,n2,.. Returns what is wrong with it, or NULL.
static const char *read_train_spec(const char *at, struct spec *spec) {
  int cols = 0;
  spec->rank = read_integer(&at);
  if (spec->rank < 1) return "tt: wants a rank";
  if (!*at) return NULL;
  if (*at++ != '@') return "behind tt:R comes @ or nothing";
  int rows = read_factors(&at, 'x', spec->factors.rows);
  if (rows) {
    at++;
    cols = read_factors(&at, 0, spec->factors.cols);
  }
  if (!rows || rows != cols) return "factors are as many for rows as for columns: 4,8x8,4";
  spec->factors.order = rows;
  for (int k = 0; k <= rows; k++) spec->factors.ranks[k] = k == 0 || k == rows;
  return rows == 1 ? "a train has at least two cores" : NULL;
}

// Everything before the +. Returns what is wrong with it, or NULL.
static const char *read_spec_kind(const char *text, struct spec *spec) {
  const struct spec_format *format = find_format(text, TT_F32);
  const char *at = text;
  if (format && format->dtype != TT_F16) {
    spec->kind = SPEC_DENSE;
    spec->dtype = format->dtype;
  } else if (!strcmp(text, "keep")) {
    spec->kind = SPEC_KEEP;
  } else if (!strncmp(text, "svd:", 4)) {
    spec->kind = SPEC_SVD;
    at += 4;
    spec->rank = read_integer(&at);
    if (spec->rank < 1 || *at) return "svd: wants a rank";
  } else if (!strncmp(text, "tt:", 3)) {
    spec->kind = SPEC_TRAIN;
    return read_train_spec(text + 3, spec);
  } else if (!strncmp(text, "eps:", 4)) {
    spec->kind = SPEC_ERROR;
    spec->error = read_number(text + 4);
    if (spec->error < 0 || spec->error >= 1) return "eps: wants a number in [0, 1)";
  } else {
    return "not keep, i8, i4, i3, i2, svd:R, tt:R or eps:E";
  }
  return NULL;
}

// Reads a spec of `length` characters. Ends the program if it is none.
static struct spec read_spec(const char *text, size_t length) {
  struct spec spec;
  char *copy = copy_string(text), *plus;
  memset(&spec, 0, sizeof spec);
  copy[length] = 0;
  plus = strchr(copy, '+');
  if (plus) *plus = 0;
  const char *wrong = read_spec_kind(copy, &spec);
  const struct spec_format *format = plus ? find_format(plus + 1, TT_F32) : NULL;
  if (!wrong && plus && (!format || format->dtype == TT_I2))
    wrong = "behind + comes i8, i4, i3 or f16";
  if (!wrong && plus && spec.kind == SPEC_DENSE) wrong = "integers cannot be coded once more";
  if (wrong) fail(EXIT_USAGE, "%.*s: %s", (int)length, text, wrong);
  if (format) spec.dtype = format->dtype;
  if (format && spec.kind == SPEC_KEEP) spec.kind = SPEC_DENSE;
  free(copy);
  return spec;
}

// The text that read_spec would read.
static char *spec_text(const struct spec *spec) {
  struct text text = {NULL, 0, 0};
  const struct spec_format *format = find_format(NULL, spec->dtype);
  const tt_shape *factors = &spec->factors;
  int is_code = spec->kind == SPEC_DENSE && spec->dtype != TT_F16;
  if (is_code)
    text_add(&text, "%s", format->name);
  else if (spec->kind == SPEC_SVD)
    text_add(&text, "svd:%d", spec->rank);
  else if (spec->kind == SPEC_TRAIN)
    text_add(&text, "tt:%d", spec->rank);
  else if (spec->kind == SPEC_ERROR)
    text_add(&text, "eps:%g", spec->error);
  else
    text_add(&text, "keep");
  for (int i = 0; i < 2 * factors->order; i++) {
    int k = i % factors->order;
    text_add(&text, "%s%d",
             i == 0                ? "@"
             : i == factors->order ? "x"
                                   : ",",
             i == k ? factors->rows[k] : factors->cols[k]);
  }
  if (format && !is_code) text_add(&text, "+%s", format->name);
  return text.data;
}

// ------------------------------------------------------------------------------------------- rules

struct rule { // one --layer REGEX=SPEC
  char *pattern;
  struct spec spec;
};

struct rules {
  struct rule *list;
  int count;
};

static struct rules read_rules(const struct options *options) {
  struct rules rules;
  rules.count = options->num_rules;
  rules.list = (struct rule *)get_memory((size_t)rules.count, sizeof *rules.list);
  for (int i = 0; i < rules.count; i++) {
    const char *text = options->rules[i], *equals = strrchr(text, '=');
    if (!equals) fail(EXIT_USAGE, "--layer %s: wanted REGEX=SPEC", text);
    struct rule *rule = &rules.list[i];
    rule->pattern = copy_string(text);
    rule->pattern[equals - text] = 0;
    const char *error = regex_error(rule->pattern);
    if (error) fail(EXIT_USAGE, "--layer %s: %s", text, error);
    rule->spec = read_spec(equals + 1, strlen(equals + 1));
  }
  return rules;
}

// The spec of the first rule that matches, or NULL.
static const struct spec *find_rule(const struct rules *rules, const char *layer) {
  for (int i = 0; i < rules->count; i++)
    if (regex_match(rules->list[i].pattern, layer)) return &rules->list[i].spec;
  return NULL;
}

// A pattern that matches no layer at all is a mistake; one whose layers earlier rules took is not.
static void check_rules(const struct rules *rules, const struct model *model) {
  for (int i = 0; i < rules->count; i++) {
    int found = 0;
    for (int l = 0; l < model->num_layers && !found; l++)
      found = regex_match(rules->list[i].pattern, model->layers[l].name);
    if (!found) fail(EXIT_INPUT, "%s: no layer matches %s", model->path, rules->list[i].pattern);
  }
}

static void free_rules(struct rules *rules) {
  for (int i = 0; i < rules->count; i++) free(rules->list[i].pattern);
  free(rules->list);
  rules->list = NULL;
}

// ----------------------------------------------------------------------------------------- factors

// The factors of a train of this spec for a matrix, its rank as a cap at every bond.
static tt_status spec_shape(const struct spec *spec, ptrdiff_t rows, ptrdiff_t cols,
                            tt_shape *shape) {
  memset(shape, 0, sizeof *shape);
  tt_status status = TT_OK;
  if (spec->kind == SPEC_TRAIN) {
    *shape = spec->factors;
    if (shape->order == 0) status = tt_shape_factor(rows, cols, 2, shape);
  } else {
    shape->order = spec->kind == SPEC_SVD ? 2 : 1;
    for (int k = 0; k < shape->order; k++) shape->rows[k] = shape->cols[k] = 1;
    for (int k = 0; k <= shape->order; k++) shape->ranks[k] = k == 0 || k == shape->order;
    shape->rows[0] = (int)rows;
    shape->cols[shape->order - 1] = (int)cols;
  }
  if (!status) status = tt_shape_check(shape, rows, cols);
  return status ? status : tt_shape_clip(shape, spec->rank);
}

#endif
