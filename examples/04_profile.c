// What is inside the layers of a checkpoint, and what would each cost in another form? Per layer
// and bond: the entropy of the singular values beside that of a Gaussian matrix of the same shape,
// the effective rank, and the ranks that keep all but 10 % and 1 % of the norm. Then every
// candidate (plain quantisation, SVD, TT-matrices, plain train) with its bytes, multiply-adds and
// errors, the decision for the layer, and at the end one choice per layer within a quarter of the
// bytes.
//   cc -O2 -I.. 04_profile.c -o profile -lm
//   ./profile [checkpoint.safetensors [layer]]
// Without arguments it reads data/digits.safetensors; its training images are the inputs that fc1
// is fitted to, its test images the inputs held out. Other layers are judged by their weights.
// Expected output: two layers, 53 candidates each at most, a plan, and "check: ok" three times.
// Time grows as (smaller side)^3 per bond: seconds at 512, many minutes at 4096; name a layer then.
#define TT_IMPLEMENTATION
#include "tt.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_LAYERS = 1024, BAR = 32 };

// of a layer's outputs; of its weights where there are no inputs
static const double error_bound = 0.25;

typedef struct layer {
  char name[160];
  ptrdiff_t rows, cols;
  float *w, *bias;                // bias may be NULL
  tt_inputs *inputs, *heldout;    // NULL: only the weights are known
  tt_profile *profile;
} layer;

static void must(tt_status status, const char *what) {
  if (status == TT_OK) return;
  fprintf(stderr, "%s: %s\n", what, tt_status_string(status));
  exit(1);
}

static void *get_memory(size_t size) {
  void *block = malloc(size ? size : 1);
  if (!block) must(TT_ERROR_MEMORY, "malloc");
  return block;
}

// ----------------------------------------------------------------------------------------- reading

// Tensor `name` as floats, or NULL if the file has none of this number of elements.
static float *read_floats(const tt_file *file, const char *name, ptrdiff_t count) {
  int index, order;
  const ptrdiff_t *dims;
  ptrdiff_t found = 1;
  if (tt_file_find(file, name, &index)) return NULL;
  must(tt_file_tensor(file, index, NULL, NULL, &order, &dims, NULL, NULL), name);
  for (int k = 0; k < order; k++) found *= dims[k];
  if (found != count) return NULL;
  float *values = (float *)get_memory((size_t)count * sizeof(float));
  must(tt_file_read_f32(file, index, values, count), name);
  return values;
}

// Statistics of the rows of tensor `name`, divided by `scale`; NULL if they are not inputs of cols.
static tt_inputs *read_inputs(const tt_file *file, const char *name, ptrdiff_t cols, float scale) {
  int index, order;
  const ptrdiff_t *dims;
  tt_inputs *inputs;
  ptrdiff_t count = 1;
  if (tt_file_find(file, name, &index)) return NULL;
  must(tt_file_tensor(file, index, NULL, NULL, &order, &dims, NULL, NULL), name);
  for (int k = 0; k < order; k++) count *= dims[k];
  float *x = order > 1 && count / dims[0] == cols ? read_floats(file, name, count) : NULL;
  if (!x) return NULL;
  for (ptrdiff_t i = 0; i < count; i++) x[i] /= scale;
  must(tt_inputs_create(cols, NULL, &inputs), name);
  must(tt_inputs_add(inputs, x, dims[0]), name);
  free(x);
  return inputs;
}

// Is tensor `index` a matrix of weights with this name (NULL = any)? Fills name, rows and cols.
static int is_layer(const tt_file *file, int index, const char *wanted, layer *out) {
  const char *name, *dtype, *end;
  const ptrdiff_t *dims;
  int order;
  must(tt_file_tensor(file, index, &name, &dtype, &order, &dims, NULL, NULL), "tt_file_tensor");
  size_t length = strlen(name);
  end = length > 7 && !strcmp(name + length - 7, ".weight") ? name + length - 7 : NULL;
  if (order != 2 || !strchr("FB", dtype[0]) || dims[0] < 2 || dims[1] < 2) return 0;
  if (end) length = (size_t)(end - name);
  if (length >= sizeof out->name || (!wanted && !end)) return 0;
  if (wanted && strcmp(wanted, name) && (strlen(wanted) != length || memcmp(wanted, name, length)))
    return 0;
  memset(out, 0, sizeof *out);
  memcpy(out->name, name, length);
  out->rows = dims[0];
  out->cols = dims[1];
  out->w = read_floats(file, name, dims[0] * dims[1]);
  return 1;
}

static int read_layers(const tt_file *file, const char *wanted, layer *layers) {
  int count = 0;
  for (int i = 0; i < tt_file_count(file) && count < MAX_LAYERS; i++) {
    char name[200];
    layer *l = &layers[count];
    if (!is_layer(file, i, wanted, l)) continue;
    sprintf(name, "%s.bias", l->name);
    l->bias = read_floats(file, name, l->rows);
    if (!strcmp(l->name, "fc1")) {                          // the digits know the inputs of fc1
      l->inputs = read_inputs(file, "train.images", l->cols, 16);
      l->heldout = read_inputs(file, "test.images", l->cols, 16);
    }
    count++;
  }
  return count;
}

// ---------------------------------------------------------------------------------------- the text

// '#' up to the entropy, '-' up to that of the Gaussian matrix; the full width is ln(smaller side).
static void print_bar(const tt_bond *bond) {
  double full = bond->share > 0 ? bond->entropy / bond->share : 1;
  int here = (int)(bond->entropy / full * BAR + 0.5);
  int gauss = (int)(bond->gaussian_entropy / full * BAR + 0.5);
  putchar('|');
  for (int i = 0; i < BAR; i++) putchar(i < here ? '#' : i < gauss ? '-' : ' ');
  puts("|");
}

static void print_bonds(const char *what, const layer *l, const tt_shape *shape) {
  tt_bond bonds[TT_MAX_ORDER];
  must(tt_bonds(l->w, l->rows, l->cols, shape, NULL, bonds), "tt_bonds");
  for (int k = 0; k + 1 < shape->order; k++) {
    const tt_bond *b = &bonds[k];
    printf("  %-12s %d   %6.3f %9.3f %9.1f %9.1f %9d %9d  ", what, k, b->entropy,
           b->gaussian_entropy, b->effective_rank, b->gaussian_effective_rank, b->tail_ranks[0],
           b->tail_ranks[1]);
    print_bar(b);
  }
}

static void print_entropies(const layer *l) {
  tt_shape shape;
  printf("  bonds of     k   S/nat  Gaussian  eff.rank  Gaussian  chi(0.1) chi(0.01)   0 .. ln(smaller "
         "side)\n");
  memset(&shape, 0, sizeof shape);
  shape.order = 2;
  shape.rows[0] = (int)l->rows;
  shape.cols[1] = (int)l->cols;
  shape.rows[1] = shape.cols[0] = 1;
  print_bonds("SVD", l, &shape);
  for (int order = 2; order <= 4; order++) {
    char what[16];
    sprintf(what, "%d-core TT", order);
    must(tt_shape_factor(l->rows, l->cols, order, &shape), "tt_shape_factor");
    print_bonds(what, l, &shape);
  }
}

static const char *name_of_action(int action) {
  static const char *const names[] = {"dense", "quantised", "SVD", "SVD + quant", "TT", "TT + quant"};
  return names[action];
}

// (16x4)8(4x16): legs of the cores and the ranks between them.
static void print_shape(const tt_shape *shape) {
  char text[200] = "";
  for (int k = 0; k < shape->order; k++) {
    if (k) sprintf(text + strlen(text), "%d", shape->ranks[k]);
    sprintf(text + strlen(text), "(%dx%d)", shape->rows[k], shape->cols[k]);
  }
  printf("%-32s", text);
}

static void print_candidate(const tt_candidate *c, int chosen, int with_inputs) {
  static const char *const formats[] = {"F32", "F64", "F16", "BF16", "E4M3", "E5M2",
                                        "I8",  "I4",  "I3",  "I2"};
  printf("%c %-12s ", chosen ? '>' : ' ', name_of_action(c->action));
  print_shape(&c->shape);
  printf("%-4s %9td %9lu %10td %8.4f ", formats[c->dtype], c->params, (unsigned long)c->bytes,
         c->macs, c->weight_error);
  if (with_inputs) printf("%8.4f %8.4f\n", c->calibration_error, c->heldout_error);
  else puts("       -        -");
}

// ---------------------------------------------------------------------------------------- the work

static void study(layer *l) {
  tt_options options = {0};
  tt_policy policy = {0};
  int chosen;
  options.inputs = l->inputs;
  options.bias = l->bias;
  policy.max_func_err = error_bound;
  printf("\n%s: %td x %td, %s\n", l->name, l->rows, l->cols,
         l->inputs ? "with inputs" : "weights only");
  print_entropies(l);
  must(tt_profile_create(l->w, l->rows, l->cols, l->heldout, NULL, 0, &options, &l->profile),
       "tt_profile_create");
  must(tt_decide_layer(l->profile->candidates, l->profile->count, &policy, &chosen),
       "tt_decide_layer");
  printf("  what         cores (rows x cols), ranks      as      params     bytes       macs   "
         "weight    calib  heldout\n");
  for (int i = 0; i < l->profile->count; i++)
    print_candidate(&l->profile->candidates[i], i == chosen, l->inputs != NULL);
  printf("  decision at an error of %.2f: candidate %d, %s\n", error_bound, chosen,
         name_of_action(l->profile->candidates[chosen].action));
}

// One candidate per layer within a quarter of the bytes of F32; the loss is the squared error.
static void plan(const layer *layers, int count) {
  tt_plan_layer *planned = (tt_plan_layer *)get_memory((size_t)count * sizeof *planned);
  int *choice = (int *)get_memory((size_t)count * sizeof *choice), worst;
  uint64_t dense = 0, used = 0;
  for (int l = 0; l < count; l++) {
    const tt_profile *profile = layers[l].profile;
    tt_plan_point *points =
        (tt_plan_point *)get_memory((size_t)profile->count * sizeof(tt_plan_point));
    for (int i = 0; i < profile->count; i++) {
      points[i].bytes = profile->candidates[i].bytes;
      points[i].loss = profile->candidates[i].error * profile->candidates[i].error;
    }
    planned[l].points = points;
    planned[l].count = profile->count;
    planned[l].weight = 1;
    dense += points[0].bytes;
  }
  must(tt_plan_budget(planned, count, dense / 4, choice, &worst), "tt_plan_budget");
  printf("\nplan for a quarter of the bytes (%lu of %lu)\n", (unsigned long)(dense / 4),
         (unsigned long)dense);
  for (int l = 0; l < count; l++) {
    printf("%-20s", layers[l].name);
    print_candidate(&layers[l].profile->candidates[choice[l]], 0, layers[l].inputs != NULL);
    used += planned[l].points[choice[l]].bytes;
  }
  printf("check: %s, the plan needs %lu bytes\n", used <= dense / 4 ? "ok" : "FAILED",
         (unsigned long)used);
  for (int l = 0; l < count; l++) free((void *)planned[l].points);
  free(planned);
  free(choice);
}

// A candidate can be had again, and is what the profile says.
static void check_rebuild(const layer *l, int index) {
  tt_options options = {0};
  tt_matrix train;
  options.inputs = l->inputs;
  options.bias = l->bias;
  must(tt_profile_train(l->profile, index, l->w, &options, &train), "tt_profile_train");
  int good = tt_stored_size(&train) == l->profile->candidates[index].bytes;
  printf("check: %s, candidate %d of %s has the bytes of the table\n", good ? "ok" : "FAILED", index,
         l->name);
  tt_free(&train);
}

int main(int argc, char **argv) {
  static layer layers[MAX_LAYERS];
  const char *path = argc > 1 ? argv[1] : "data/digits.safetensors";
  tt_file *file;
  must(tt_file_open(path, NULL, &file), path);
  int count = read_layers(file, argc > 2 ? argv[2] : NULL, layers);
  tt_file_close(file);
  if (count == 0) {
    fprintf(stderr, "%s: no such layer\n", path);
    return 1;
  }
  printf("S: von Neumann entropy of the squared singular values; chi(e): rank that leaves out at "
         "most e of the norm;\n# the layer, - a Gaussian matrix of the same shape\n");
  for (int l = 0; l < count; l++) study(&layers[l]);
  plan(layers, count);
  for (int l = 0; l < count; l++) check_rebuild(&layers[l], layers[l].profile->count - 1);
  for (int l = 0; l < count; l++) {
    tt_profile_free(layers[l].profile);
    tt_inputs_free(layers[l].inputs);
    tt_inputs_free(layers[l].heldout);
    free(layers[l].w);
    free(layers[l].bias);
  }
  return 0;
}
