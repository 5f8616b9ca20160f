// A trained classifier of handwritten digits goes in; its first layer is decomposed, quantised and
// run without the dense matrix; out come accuracy against size for the plain tensor train, the
// TT-matrix, the SVD and plain quantisation.
//   cc -O2 -I.. 02_digits.c -o digits -lm
//   ./digits [data/digits.safetensors [folder for the results]]
// Expected output: a table, two text pictures, a verdict, and "check: ok" seven times: rank 8 of
// the plain train has 912 parameters and 501 of 540 correct, the dense layer 529.
// Files: pareto.svg, entropy.svg, digits_tt.safetensors.
// Images: UCI Optical Recognition of Handwritten Digits, doi 10.24432/C50P49, CC BY 4.0
// (see data/README).
#define TT_IMPLEMENTATION
#include "tt.h"
#include "svg.h"
#include "digits.h"
#include <time.h>

enum { DRAWS = 20, MAX_POINTS = 128 };

// ------------------------------------------------------------------------------------- the problem

typedef struct problem {          // y = fc2 relu(fc1 x + b), x = pixels / 16
  tt_matrix last;                 // fc2 with its bias, a train of order 1
  float weights[HIDDEN * PIXELS]; // fc1, row-major (outputs, inputs)
  float bias[HIDDEN];
  float images[TESTS * PIXELS];
  float exact[TESTS * HIDDEN]; // X W^T of the dense layer
  unsigned char labels[TESTS];
} problem;

static void read_problem(const char *path, problem *p) {
  tt_file *file;
  must(tt_file_open(path, NULL, &file), path);
  must(tt_file_matrix(file, "fc2", NULL, &p->last), "fc2");
  must(tt_file_read_f32(file, find(file, "fc1.weight"), p->weights, HIDDEN * PIXELS), "fc1.weight");
  must(tt_file_read_f32(file, find(file, "fc1.bias"), p->bias, HIDDEN), "fc1.bias");
  must(tt_file_read_f32(file, find(file, "test.images"), p->images, TESTS * PIXELS), "test.images");
  must(tt_file_read(file, find(file, "test.labels"), 0, p->labels, TESTS), "test.labels");
  for (int i = 0; i < TESTS * PIXELS; i++) p->images[i] /= 16;
  // Weights of pixels that are blank in every image have decayed to subnormal numbers, on which
  // many processors are slow. As zeros they change no answer, and dense is timed at its best.
  for (int i = 0; i < HIDDEN * PIXELS; i++)
    if (fabsf(p->weights[i]) < 1e-30f) p->weights[i] = 0;
  tt_file_close(file);
}

// The class of every test image, given what the first layer makes of it.
static void classify(const problem *p, const float *layer, unsigned char *answer) {
  static float hidden[TESTS * HIDDEN], logits[TESTS * CLASSES];
  for (int i = 0; i < TESTS * HIDDEN; i++) {
    float value = layer[i] + p->bias[i % HIDDEN];
    hidden[i] = value > 0 ? value : 0;
  }
  run(&p->last, hidden, TESTS, logits);
  for (int i = 0; i < TESTS; i++) {
    answer[i] = 0;
    for (int c = 1; c < CLASSES; c++)
      if (logits[i * CLASSES + c] > logits[i * CLASSES + answer[i]]) answer[i] = (unsigned char)c;
  }
}

static int count_correct(const problem *p, const float *layer) {
  unsigned char answer[TESTS];
  int correct = 0;
  classify(p, layer, answer);
  for (int i = 0; i < TESTS; i++) correct += answer[i] == p->labels[i];
  return correct;
}

// ----------------------------------------------------------------------------- methods and formats

enum { DENSE, SVD, TRAIN, TT_MATRIX, METHODS };

// Every method is a shape; the library does not know which is which.
typedef struct method {
  const char *name, *color;
  char letter;
  int marker;
  tt_shape shape;
  int ranks[12];
} method;
static const method methods[METHODS] = {
    {"dense", SVG_BLACK, 'D', SVG_DIAMOND, {1, {64}, {64}, {1, 1}}, {0}},
    {"SVD",
     SVG_BLUE,
     'S',
     SVG_SQUARE,
     {2, {64, 1}, {1, 64}, {1, 0, 1}},
     {2, 4, 6, 7, 8, 12, 16, 24}},
    {"plain train",
     SVG_RED,
     'T',
     SVG_CIRCLE,
     {4, {1, 1, 4, 16}, {4, 16, 1, 1}, {1, 0, 0, 0, 1}},
     {2, 4, 6, 8, 12, 16, 24}},
    {"TT-matrix",
     SVG_GREEN,
     'M',
     SVG_TRIANGLE,
     {3, {4, 4, 4}, {4, 4, 4}, {1, 0, 0, 1}},
     {2, 4, 6, 8, 12, 16}}};

// Integers have one scale per core; a trailing g: one 16-bit scale for every 32 numbers of a row
// instead.
typedef struct format {
  const char *name;
  tt_dtype dtype;
  int group, dense_only;
  const char *dash;
} format;
static const format formats[] = {{"F32", TT_F32, 0, 0, "none"},   {"INT8", TT_I8, 0, 0, "7 3"},
                                 {"INT4", TT_I4, 0, 0, "2 2"},    {"INT4g", TT_I4, 32, 0, "1 4"},
                                 {"INT3g", TT_I3, 32, 1, "none"}, {"INT2g", TT_I2, 32, 1, "none"}};
enum { F32, INT8, INT4, INT4_GROUPS, INT3_GROUPS, FORMATS = sizeof formats / sizeof *formats };

typedef struct point { // one row of the table
  int method, format, rank, correct, cores, merged;
  ptrdiff_t params, macs_stored, macs;
  size_t bytes;
  double weight_error, output_error, time_one, time_all;
} point;

// ||a - b|| / ||b||
static double distance(const float *a, const float *b, int count) {
  double difference = 0, norm = 0;
  for (int i = 0; i < count; i++) {
    difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    norm += (double)b[i] * (double)b[i];
  }
  return sqrt(difference / norm);
}

// The first layer as a train of this method and rank, stored in this format.
static void compress(const problem *p, int which, int rank, int stored, tt_matrix *out) {
  tt_options options = {0};
  tt_matrix train;
  options.max_rank = rank;
  must(tt_compress(p->weights, HIDDEN, PIXELS, &methods[which].shape, &options, &train, NULL),
       "tt_compress");
  if (stored == F32) {
    *out = train;
    return;
  }
  must(tt_quantize(&train, formats[stored].dtype, formats[stored].group, NULL, out, NULL),
       "tt_quantize");
  tt_free(&train);
}

// ------------------------------------------------------------------------------------- measurement

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

// Processor time of `repeat` forward passes.
static double time_passes(const tt_matrix *w, const float *x, ptrdiff_t batch, int repeat) {
  static float y[TESTS * HIDDEN];
  size_t size = tt_apply_work_size(w, batch);
  void *work = get_memory(size);
  must(tt_apply(w, x, batch, y, work, size), "tt_apply"); // warm-up
  clock_t start = clock();
  for (int i = 0; i < repeat; i++) tt_apply(w, x, batch, y, work, size);
  clock_t stop = clock();
  free(work);
  return (double)(stop - start);
}

// Time of w over time of the dense layer: the median of seven ratios, each of two neighbouring
// measurements.
static double relative_time(const problem *p, const tt_matrix *w, ptrdiff_t batch) {
  enum { ROUNDS = 7 };
  double ratios[ROUNDS];
  int repeat = batch == 1 ? 1000 : 2;
  tt_matrix dense;
  compress(p, DENSE, 0, F32, &dense);
  for (int i = 0; i < ROUNDS; i++) {
    double reference = time_passes(&dense, p->images, batch, repeat);
    ratios[i] = time_passes(w, p->images, batch, repeat) / (reference > 0 ? reference : 1);
  }
  tt_free(&dense);
  qsort(ratios, ROUNDS, sizeof *ratios, compare_doubles);
  return ratios[ROUNDS / 2];
}

// Everything about one train: `stored` is what the file holds, tt_prepare makes of it what runs.
static void measure(const problem *p, const tt_matrix *stored, point *out) {
  static float dense[HIDDEN * PIXELS], layer[TESTS * HIDDEN];
  tt_matrix one, all;
  must(tt_prepare(stored, 1, NULL, &one), "tt_prepare");
  must(tt_prepare(stored, TESTS, NULL, &all), "tt_prepare");
  must(tt_expand(stored, dense), "tt_expand");
  run(&all, p->images, TESTS, layer);
  out->params = tt_shape_params(&stored->shape);
  out->bytes = tt_stored_size(stored);
  out->weight_error = distance(dense, p->weights, HIDDEN * PIXELS);
  out->output_error = distance(layer, p->exact, TESTS * HIDDEN);
  out->correct = count_correct(p, layer);
  out->cores = stored->shape.order;
  out->merged = one.shape.order;
  out->macs_stored = tt_apply_macs(stored, 1);
  out->macs = tt_apply_macs(&one, 1);
  out->time_one = relative_time(p, &one, 1);
  out->time_all = relative_time(p, &all, TESTS);
  tt_free(&one);
  tt_free(&all);
}

// All points of the study. Returns their number.
static int sweep(const problem *p, point *points) {
  int count = 0;
  for (int which = 0; which < METHODS; which++)
    for (int f = 0; f < FORMATS; f++)
      for (int i = 0; i == 0 || methods[which].ranks[i]; i++) {
        tt_matrix train;
        if (formats[f].dense_only && which != DENSE) continue;
        point *out = &points[count++];
        memset(out, 0, sizeof *out);
        out->method = which;
        out->format = f;
        out->rank = methods[which].ranks[i];
        compress(p, which, out->rank, f, &train);
        measure(p, &train, out);
        tt_free(&train);
      }
  return count;
}

// -------------------------------------------------------------------------------------------- text

static void print_table(const point *points, int count) {
  printf(
      "params: numbers in the cores; bytes: cores and scales as stored (bias not counted); "
      "smaller: 16384 / bytes;\n"
      "weight: ||W-W'|| / ||W||; output: ||X(W-W')|| / ||XW|| on the test images; correct: of %d;\n"
      "macs: multiply-adds per image over those of the dense layer, of the train as stored and as "
      "run;\n"
      "cores: stored > run (tt_prepare picks the direction and merges neighbours);\n"
      "time: over dense F32 in this run, one image and all %d at once.\n\n",
      TESTS, TESTS);
  printf("method      format rank params  bytes smaller weight output correct accuracy | macs "
         "stored    run cores | "
         "time 1  time %d\n",
         TESTS);
  for (int i = 0; i < count; i++) {
    const point *q = &points[i];
    if (i && (q[-1].method != q->method || q[-1].format != q->format)) puts("");
    printf("%-11s %-6s %4d %6td %6lu %6.1fx %6.3f %6.3f %7d %7.1f%% | %11.3f %6.3f %3d>%d | %6.2f "
           "%9.2f\n",
           methods[q->method].name, formats[q->format].name, q->rank, q->params,
           (unsigned long)q->bytes, 16384.0 / (double)q->bytes, q->weight_error, q->output_error,
           q->correct, 100.0 * q->correct / TESTS, (double)q->macs_stored / 4096,
           (double)q->macs / 4096, q->cores, q->merged, q->time_one, q->time_all);
  }
}

// Accuracy against bytes (log) in characters: D dense, S SVD, T plain train, M TT-matrix; small
// letters: integers.
static void print_picture(const point *points, int count) {
  enum { ROWS = 21, COLUMNS = 90 };
  char grid[ROWS][COLUMNS + 1];
  for (int i = 0; i < ROWS; i++) memset(grid[i], ' ', COLUMNS), grid[i][COLUMNS] = 0;
  for (int i = count - 1; i >= 0; i--) {
    int x = (int)(log((double)points[i].bytes / 64) / log(32768.0 / 64) * COLUMNS);
    int y = ROWS - 1 - points[i].correct * (ROWS - 1) / TESTS;
    char letter = methods[points[i].method].letter;
    if (x < 0 || x >= COLUMNS) continue;
    grid[y][x] = points[i].format == F32 ? letter : (char)(letter + 'a' - 'A');
  }
  printf("\naccuracy   D dense, S SVD, T plain train, M TT-matrix; capitals F32, small letters "
         "integers\n");
  for (int i = 0; i < ROWS; i++) printf("%5d%% |%s\n", 100 - i * 100 / (ROWS - 1), grid[i]);
  printf("       +");
  for (int i = 0; i < COLUMNS; i++) putchar('-');
  printf("\n        64        128       256       512       1024      2048      4096      8192     "
         " 16384   bytes\n");
}

static void answers_of(const problem *p, int which, int rank, unsigned char *answer) {
  static float layer[TESTS * HIDDEN];
  tt_matrix train, fast;
  compress(p, which, rank, F32, &train);
  must(tt_prepare(&train, TESTS, NULL, &fast), "tt_prepare");
  run(&fast, p->images, TESTS, layer);
  classify(p, layer, answer);
  tt_free(&fast);
  tt_free(&train);
}

// The first image that the dense network reads correctly and the rank-8 train does not.
static void print_digit(const problem *p) {
  static const char shades[] = " .:-=+*#%"; // nine shades for two pixel values each
  unsigned char dense[TESTS], train[TESTS];
  int i = 0;
  answers_of(p, DENSE, 0, dense);
  answers_of(p, TRAIN, 8, train);
  while (i < TESTS - 1 && (dense[i] != p->labels[i] || train[i] == p->labels[i])) i++;
  printf("\ntest image %d, a %d:\n", i, p->labels[i]);
  for (int y = 0; y < 8; y++) {
    printf("    ");
    for (int x = 0; x < 8; x++) {
      char shade = shades[(int)(p->images[i * PIXELS + y * 8 + x] * 8)];
      printf("%c%c", shade, shade);
    }
    puts("");
  }
  printf("dense reads %d, the plain train at rank", dense[i]);
  for (const int *rank = methods[TRAIN].ranks; *rank; rank++) {
    answers_of(p, TRAIN, *rank, train);
    printf("%s %d: %d", rank == methods[TRAIN].ranks ? "" : ",", *rank, train[i]);
  }
  puts("");
}

// -------------------------------------------------------------------------------------- pareto.svg

// A point is on the front if no other has at least its accuracy in fewer bytes, or more in the
// same.
static int is_on_front(const point *points, int count, int i) {
  for (int j = 0; j < count; j++) {
    int no_worse = points[j].bytes <= points[i].bytes && points[j].correct >= points[i].correct;
    if (no_worse && (points[j].bytes < points[i].bytes || points[j].correct > points[i].correct))
      return 0;
  }
  return 1;
}

static void describe(const point *q, char *text) {
  sprintf(text, "%s %s", methods[q->method].name, formats[q->format].name);
  if (q->rank) sprintf(text + strlen(text), ", rank %d", q->rank);
  sprintf(text + strlen(text), ": %lu bytes, %d of %d correct", (unsigned long)q->bytes, q->correct,
          TESTS);
}

// Height of a point: the share of wrong answers on a log axis that runs downwards, so that the good
// end is wide.
static double wrong(int correct) { return 100.0 * (TESTS - correct) / TESTS; }

static void draw_point(const svg_panel *panel, const point *q) {
  char text[160];
  const method *m = &methods[q->method];
  describe(q, text);
  svg_marker(panel->file, m->marker, svg_x(panel, (double)q->bytes),
             svg_y(panel, wrong(q->correct)), q->method == DENSE ? 4.5 : 4,
             q->format == F32 ? m->color : "#FFFFFF", m->color, text);
}

// One method in one format: a line through its ranks (dense: through nothing), and the points.
static void draw_series(const svg_panel *panel, const point *points, int count, int which,
                        int stored) {
  double x[16], y[16];
  int n = 0;
  for (int i = 0; i < count; i++) {
    if (points[i].method != which || points[i].format != stored) continue;
    x[n] = (double)points[i].bytes;
    y[n++] = wrong(points[i].correct);
  }
  if (n > 1) svg_line(panel, x, y, n, methods[which].color, 1.8, formats[stored].dash);
  for (int i = 0; i < count; i++)
    if (points[i].method == which && points[i].format == stored) draw_point(panel, &points[i]);
}

// The step line of the best accuracy for at most so many bytes, behind everything else.
static void draw_front(const svg_panel *panel, const point *points, int count) {
  double x[2 * MAX_POINTS + 2], y[2 * MAX_POINTS + 2], best = 0;
  size_t bytes = 0;
  int n = 0;
  for (;;) {
    int next = -1;
    for (int i = 0; i < count; i++)
      if (points[i].bytes > bytes && is_on_front(points, count, i) &&
          (next < 0 || points[i].bytes < points[next].bytes))
        next = i;
    if (next < 0) break;
    bytes = points[next].bytes;
    if (n) x[n] = (double)bytes, y[n++] = best;
    best = wrong(points[next].correct);
    x[n] = (double)bytes, y[n++] = best;
  }
  x[n] = panel->x1, y[n++] = best;
  svg_line(panel, x, y, n, "#D0D0D0", 7, "none");
}

// Key: what lines and markers mean.
static void draw_key(const svg_panel *panel) {
  double left = panel->left + 8, top = panel->top + 8;
  fprintf(
      panel->file,
      "<rect x=\"%.1f\" y=\"%.1f\" width=\"176\" height=\"198\" fill=\"#FFFFFF\" stroke=\"%s\"/>\n",
      left, top, SVG_PALE);
  for (int i = 0; i < METHODS; i++) {
    svg_marker(panel->file, methods[i].marker, left + 24, top + 18 + 20 * i, 4.5, methods[i].color,
               methods[i].color, methods[i].name);
    svg_text(panel->file, left + 50, top + 22 + 20 * i, "start", 12, methods[i].color, 0,
             methods[i].name);
  }
  for (int i = 0; i <= INT4_GROUPS; i++) {
    double y = top + 104 + 20 * i;
    fprintf(
        panel->file,
        "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"1.8\" "
        "stroke-dasharray=\"%s\"/>\n",
        left + 8, y, left + 40, y, SVG_GREY, formats[i].dash);
    svg_marker(panel->file, SVG_CIRCLE, left + 24, y, 4, i ? "#FFFFFF" : SVG_GREY, SVG_GREY,
               formats[i].name);
    svg_text(panel->file, left + 50, y + 4, "start", 12, SVG_GREY, 0,
             i == INT4_GROUPS ? "INT4g: scale per 32" : formats[i].name);
  }
  fprintf(panel->file,
          "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#D0D0D0\" "
          "stroke-width=\"7\"/>\n",
          left + 8, top + 184, left + 40, top + 184);
  svg_text(panel->file, left + 50, top + 188, "start", 12, SVG_GREY, 0, "best of all");
}

// Names beside points: every dense format, the lower end of every method in F32, and the
// benchmark's rank 8.
static void label_points(const svg_panel *panel, const point *points, int count) {
  for (int i = 0; i < count; i++) {
    const point *q = &points[i];
    double x = svg_x(panel, (double)q->bytes), y = svg_y(panel, wrong(q->correct));
    const char *anchor = q->format == INT4_GROUPS ? "start" : q->format >= INT4 ? "end" : "middle";
    double aside = q->format == INT4_GROUPS ? -4 : q->format >= INT4 ? 4 : 0;
    if (q->method == DENSE)
      svg_text(panel->file, x + aside, y - 11, anchor, 12, SVG_BLACK, 0, formats[q->format].name);
    else if (q->format == F32 && q->rank == 4)
      svg_text(panel->file, x + 9, y + 5, "start", 12, methods[q->method].color, 0,
               methods[q->method].name);
    if (q->method == TRAIN && q->rank == 8 && q->format == F32)
      svg_text(panel->file, x + 9, y + 12, "start", 12, SVG_RED, 0, "rank 8");
  }
}

static int write_pareto(const char *path, const point *points, int count) {
  svg_panel panel = {NULL, 70, 56, 700, 430, 64, 25600, 95, 1.5, 1, 1};
  panel.file =
      svg_open(path, 800, 540, "Accuracy of the digit classifier against bytes of its first layer");
  if (!panel.file) return 0;
  svg_ticks_log(&panel, 1, panel.x0, panel.x1);
  draw_accuracies(&panel);
  svg_frame(&panel, "First layer (64 x 64) of a digit classifier: what the bytes buy",
            "bytes of the layer as stored (log scale)",
            "correct of 540 test images, % (log scale of the errors)");
  draw_front(&panel, points, count);
  for (int which = METHODS - 1; which >= 0; which--)
    for (int f = FORMATS - 1; f >= 0; f--) draw_series(&panel, points, count, which, f);
  label_points(&panel, points, count);
  draw_key(&panel);
  return svg_close(panel.file);
}

// ------------------------------------------------------------------------------------- entropy.svg

typedef struct bonds { // normalised spectra of all bonds of one train
  int order, count[TT_MAX_ORDER];
  double values[TT_MAX_ORDER][HIDDEN], entropy[TT_MAX_ORDER], spread[TT_MAX_ORDER];
} bonds;

// Adds the spectra of the exact train of w, with weight 1/draws.
static void add_bonds(const float *w, const tt_shape *shape, int draws, bonds *out) {
  tt_matrix train;
  must(tt_compress(w, HIDDEN, PIXELS, shape, NULL, &train, NULL), "tt_compress");
  out->order = shape->order;
  for (int k = 0; k + 1 < shape->order; k++) {
    double values[HIDDEN], norm = 0, entropy;
    int count = HIDDEN;
    must(tt_spectrum(&train, k, values, &count), "tt_spectrum");
    entropy = tt_entropy(values, count, 1);
    for (int i = 0; i < count; i++) norm += values[i] * values[i];
    for (int i = 0; i < count; i++) out->values[k][i] += values[i] / sqrt(norm) / draws;
    out->count[k] = count;
    out->entropy[k] += entropy / draws;
    out->spread[k] += entropy * entropy / draws;
  }
  tt_free(&train);
}

// Standard normal numbers by Box and Muller's method from a 64-bit congruential generator.
static double uniform(unsigned long long *state) {
  *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
  return ((double)(*state >> 11) + 0.5) / 9007199254740992.0;
}

static void random_bonds(const tt_shape *shape, bonds *out) {
  static float w[HIDDEN * PIXELS];
  unsigned long long state = 1;
  for (int draw = 0; draw < DRAWS; draw++) {
    for (int i = 0; i < HIDDEN * PIXELS; i++) {
      double radius = sqrt(-2 * log(uniform(&state)));
      w[i] = (float)(radius * cos(6.283185307179586 * uniform(&state)));
    }
    add_bonds(w, shape, DRAWS, out);
  }
  for (int k = 0; k + 1 < out->order; k++)
    out->spread[k] = sqrt(fmax(out->spread[k] - out->entropy[k] * out->entropy[k], 0));
}

static void draw_spectra(FILE *file, const bonds *layer, const bonds *noise) {
  static const char *const colors[] = {SVG_GREEN, SVG_BLUE, SVG_RED};
  svg_panel p = {NULL, 70, 56, 380, 330, 0, 64, 0.001, 1, 0, 1};
  p.file = file;
  svg_ticks(&p);
  svg_frame(&p, "Spectrum of every bond, (1,1,4,16) x (4,16,1,1)", "singular value number",
            "singular value / norm");
  for (int k = 0; k + 1 < layer->order; k++) {
    double x[HIDDEN];
    char text[64];
    int last = layer->count[k] - 1, noise_last = noise->count[k] - 1;
    while (last > 0 && layer->values[k][last] < p.y0) last--;    // rank 61: three pixels are blank
    while (noise_last > 0 && noise->values[k][noise_last] < p.y0) noise_last--;
    for (int i = 0; i < HIDDEN; i++) x[i] = i + 1;
    svg_line(&p, x, noise->values[k], noise_last + 1, colors[k], 1.5, "5 3");
    svg_line(&p, x, layer->values[k], last + 1, colors[k], 2, "none");
    for (int i = 0; i <= last; i++) {
      sprintf(text, "bond %d, value %d: %.4f (random: %.4f)", k, i + 1, layer->values[k][i],
              noise->values[k][i]);
      svg_marker(file, k, svg_x(&p, x[i]), svg_y(&p, layer->values[k][i]), 2, colors[k], colors[k],
                 text);
    }
    sprintf(text, "bond %d", k);
    int named = last < 24 ? last : 24;
    svg_text(file, svg_x(&p, x[named]) + 8, svg_y(&p, layer->values[k][named]) + (k == 0 ? 4 : 0),
             "start", 12, colors[k], 0, text);
  }
  svg_text(file, svg_x(&p, 40), svg_y(&p, 0.32), "middle", 12, SVG_GREY, 0, "solid: trained layer");
  svg_text(file, svg_x(&p, 40), svg_y(&p, 0.25), "middle", 12, SVG_GREY, 0,
           "dashed: random matrix, mean of 20");
}

// One bond: the layer's entropy, the random matrix's with its spread, and the largest possible
// value.
static void draw_entropy(const svg_panel *p, double x, int bond, const bonds *layer,
                         const bonds *noise) {
  char text[96];
  double at = svg_x(p, x), most = log(layer->count[bond]);
  fprintf(p->file,
          "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
          "stroke-width=\"2\"><title>",
          at - 20, svg_y(p, most), at + 20, svg_y(p, most), SVG_GREY);
  fprintf(p->file, "largest possible: ln %d = %.3f</title></line>\n", layer->count[bond], most);
  fprintf(p->file,
          "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
          "stroke-dasharray=\"2 2\"/>\n",
          at, svg_y(p, 0), at, svg_y(p, most), SVG_GREY);
  sprintf(text, "random, mean of %d: %.3f +- %.3f nats", DRAWS, noise->entropy[bond],
          noise->spread[bond]);
  svg_marker(p->file, SVG_SQUARE, at, svg_y(p, noise->entropy[bond]), 5, "#FFFFFF", SVG_BLUE, text);
  sprintf(text, "trained layer: %.3f nats", layer->entropy[bond]);
  svg_marker(p->file, SVG_CIRCLE, at, svg_y(p, layer->entropy[bond]), 5.5, SVG_RED, SVG_RED, text);
  sprintf(text, "%.2f", layer->entropy[bond]);
  svg_text(p->file, at + 10, svg_y(p, layer->entropy[bond]) + 12, "start", 11, SVG_RED, 0, text);
  sprintf(text, "bond %d", bond);
  svg_text(p->file, at, p->top + p->height + 18, "middle", 12, SVG_GREY, 0, text);
}

static void draw_entropies(FILE *file, const bonds *layer, const bonds *noise) {
  static const char *const names[] = {"(1,1,4,16) x (4,16,1,1)", "(4,4,4) x (4,4,4)"};
  svg_panel p = {NULL, 550, 56, 330, 330, 0, 6, 0, 4.5, 0, 0};
  double x = 0.5;
  p.file = file;
  svg_ticks_linear(&p, 0, p.y0, p.y1);
  svg_frame(&p, "Entropy of every bond, two shapes", "", "entropy, nats");
  for (int which = 0; which < 2; which++) {
    double first = x;
    for (int k = 0; k + 1 < layer[which].order; k++, x++)
      draw_entropy(&p, x, k, &layer[which], &noise[which]);
    svg_text(file, svg_x(&p, (first + x - 1) / 2), p.top + p.height + 38, "middle", 12, SVG_BLACK,
             0, names[which]);
    x += 0.5;
  }
  svg_marker(file, SVG_CIRCLE, p.left + 14, p.top + p.height + 62, 5.5, SVG_RED, SVG_RED,
             "trained layer");
  svg_text(file, p.left + 26, p.top + p.height + 66, "start", 12, SVG_RED, 0, "trained layer");
  svg_marker(file, SVG_SQUARE, p.left + 124, p.top + p.height + 62, 5, "#FFFFFF", SVG_BLUE,
             "random matrix");
  svg_text(file, p.left + 136, p.top + p.height + 66, "start", 12, SVG_BLUE, 0, "random matrix");
  svg_text(file, p.left + 236, p.top + p.height + 66, "start", 12, SVG_GREY, 0, "line: maximum");
}

static int write_entropy(const char *path, const problem *p) {
  static bonds layer[2], noise[2];
  for (int which = 0; which < 2; which++) {
    const tt_shape *shape = &methods[TRAIN + which].shape;
    add_bonds(p->weights, shape, 1, &layer[which]);
    random_bonds(shape, &noise[which]);
    printf("entropy of %-11s", methods[TRAIN + which].name);
    for (int k = 0; k + 1 < shape->order; k++)
      printf("%s bond %d: %.3f (random %.3f, at most %.3f)", k ? "," : "", k,
             layer[which].entropy[k], noise[which].entropy[k], log(layer[which].count[k]));
    puts("");
  }
  FILE *file = svg_open(path, 900, 470,
                        "Singular spectra and entropies of the first layer and of random matrices");
  if (!file) return 0;
  draw_spectra(file, &layer[0], &noise[0]);
  draw_entropies(file, layer, noise);
  return svg_close(file);
}

// ------------------------------------------------------------------------------ verdict and checks

// The most accurate point of a method (METHODS: of any) within a number of bytes; of equal ones the
// smallest; or NULL.
static const point *best_within(const point *points, int count, int which, size_t bytes) {
  const point *best = NULL;
  for (int i = 0; i < count; i++) {
    const point *q = &points[i];
    if ((which != METHODS && q->method != which) || q->bytes > bytes) continue;
    if (!best || q->correct > best->correct ||
        (q->correct == best->correct && q->bytes < best->bytes))
      best = q;
  }
  return best;
}

static void print_budgets(const point *points, int count) {
  char text[160];
  printf("\nbest within a budget of bytes:");
  for (int which = 0; which < METHODS; which++) printf(" %14s", methods[which].name);
  puts("   winner");
  for (size_t bytes = 128; bytes <= 16384; bytes *= 2) {
    const point *winner = best_within(points, count, METHODS, bytes);
    printf("%29lu ", (unsigned long)bytes);
    for (int which = 0; which < METHODS; which++) {
      const point *q = best_within(points, count, which, bytes);
      if (q) printf(" %14d", q->correct);
      else printf(" %14s", "-");
    }
    if (winner) describe(winner, text);
    printf("   %s\n", winner ? text : "nothing fits");
  }
}

// How far trains reach on the front: the most accurate point there that is a train or a TT-matrix.
static void print_reach(const point *points, int count) {
  const point *best = NULL;
  char text[160];
  for (int i = 0; i < count; i++)
    if (points[i].method >= TRAIN && is_on_front(points, count, i) &&
        (!best || points[i].correct > best->correct))
      best = &points[i];
  if (!best) {
    puts("No tensor train wins at any size here: quantise, or take the SVD.");
    return;
  }
  describe(best, text);
  printf("The most accurate train among them: %s.\nAbove %d correct the SVD or plain quantisation "
         "is the better choice.\n",
         text, best->correct);
}

// The benchmark's train against every method within the same bytes.
static void print_rivals(const point *points, int count, const point *train) {
  printf("Within the %lu bytes of the plain train of rank 8 (%d correct):",
         (unsigned long)train->bytes, train->correct);
  for (int which = 0; which < METHODS; which++) {
    const point *q = best_within(points, count, which, train->bytes);
    if (q)
      printf("%s %s %s %d (%+d)", which ? "," : "", methods[which].name, formats[q->format].name,
             q->correct, q->correct - train->correct);
  }
  printf(".\nAs run it takes %.2f of dense's multiply-adds, %.2f of its time for one image and "
         "%.2f for %d.\n",
         (double)train->macs / 4096, train->time_one, train->time_all, TESTS);
  printf("540 images carry a standard error of %.1f images at that accuracy: smaller differences "
         "are noise.\n",
         sqrt(train->correct * (1 - train->correct / (double)TESTS)));
}

// What the numbers of this run say, whoever wins.
static void print_verdict(const point *points, int count) {
  const point *train = &points[0];
  int front[METHODS] = {0}, total = 0;
  for (int i = 0; i < count; i++) {
    const point *q = &points[i];
    if (q->method == TRAIN && q->rank == 8 && q->format == F32) train = q;
    if (!is_on_front(points, count, i)) continue;
    front[q->method]++;
    total++;
  }
  print_budgets(points, count);
  printf("\nOf the %d points that no other point beats in both bytes and accuracy:", total);
  for (int i = 0; i < METHODS; i++)
    printf(" %d %s%s", front[i], methods[i].name, i + 1 < METHODS ? "," : ".\n");
  print_reach(points, count);
  print_rivals(points, count, train);
}

// The compressed network as a file: the rank-8 train with the bias of fc1, everything else copied.
static void save_network(const problem *p, const char *from, const char *path) {
  static const char *const kept[] = {"fc2.weight", "fc2.bias"};
  tt_matrix train, view;
  tt_writer *writer;
  tt_file *file;
  compress(p, TRAIN, 8, F32, &train);
  view = train;
  view.bias = p->bias; // borrowed: a copied struct owns nothing
  view.block = NULL;
  must(tt_writer_create(NULL, &writer), "tt_writer_create");
  must(tt_writer_add_matrix(writer, "fc1", &view, NULL), "tt_writer_add_matrix");
  must(tt_file_open(from, NULL, &file), from);
  for (int i = 0; i < 2; i++) must(tt_writer_copy(writer, file, find(file, kept[i])), kept[i]);
  must(tt_writer_save(writer, path), path);
  tt_file_close(file);
  tt_writer_free(writer);
  tt_free(&train);
}

// Reads the file back and counts what its fc1 gets right.
static int test_saved(const problem *p, const char *path) {
  static float layer[TESTS * HIDDEN];
  tt_file *file;
  tt_matrix train, fast;
  must(tt_file_open(path, NULL, &file), path);
  must(tt_file_matrix(file, "fc1", NULL, &train), "fc1");
  tt_file_close(file);
  must(tt_prepare(&train, TESTS, NULL, &fast), "tt_prepare");
  run(&fast, p->images, TESTS, layer);
  for (int i = 0; i < TESTS * HIDDEN; i++) layer[i] -= p->bias[i % HIDDEN]; // classify adds it
  tt_free(&fast);
  tt_free(&train);
  return count_correct(p, layer);
}

static int check(const char *what, long got, long expected) {
  printf("check: %s, %s: %ld, expected %ld\n", got == expected ? "ok" : "FAILED", what, got,
         expected);
  return got == expected;
}

// INT8 cores cost the plain train of rank 8 at most two images of those that it gets right in F32,
// whatever shares a scale.
static int check_int8(const problem *p, int correct) {
  static const struct { const char *name; int group; } scales[] = {
      {"core", 0}, {"row", TT_GROUP_ROW}, {"32 numbers", 32}};
  static float layer[TESTS * HIDDEN];
  tt_matrix train, coded;
  int good = 1;
  compress(p, TRAIN, 8, F32, &train);
  for (int i = 0; i < 3; i++) {
    must(tt_quantize(&train, TT_I8, scales[i].group, NULL, &coded, NULL), "tt_quantize");
    run(&coded, p->images, TESTS, layer);
    int got = count_correct(p, layer), fine = got >= correct - 2;
    printf("check: %s, the same in INT8, one scale per %s, correct: %d, at least %d\n",
           fine ? "ok" : "FAILED", scales[i].name, got, correct - 2);
    good &= fine;
    tt_free(&coded);
  }
  tt_free(&train);
  return good;
}

int main(int argc, char **argv) {
  static problem p;
  static point points[MAX_POINTS];
  char data[1024];
  const char *folder = argc > 2 ? argv[2] : ".";
  tt_matrix dense;
  int good = 1, count;
  default_data(data, sizeof data);
  if (argc > 1) snprintf(data, sizeof data, "%s", argv[1]);
  read_problem(data, &p);
  compress(&p, DENSE, 0, F32, &dense);
  run(&dense, p.images, TESTS, p.exact);
  tt_free(&dense);

  count = sweep(&p, points);
  print_table(points, count);
  print_picture(points, count);
  print_digit(&p);
  if (!write_pareto(result(folder, "pareto.svg"), points, count)) must(TT_ERROR_IO, "pareto.svg");
  if (!write_entropy(result(folder, "entropy.svg"), &p)) must(TT_ERROR_IO, "entropy.svg");
  save_network(&p, data, result(folder, "digits_tt.safetensors"));
  print_verdict(points, count);

  for (int i = 0; i < count; i++) {
    if (points[i].format == F32 && points[i].method == DENSE)
      good &= check("dense, correct", points[i].correct, 529);
    if (points[i].format != F32 || points[i].method != TRAIN || points[i].rank != 8) continue;
    good &= check("plain train of rank 8, parameters", points[i].params, 912);
    good &= check("plain train of rank 8, correct", points[i].correct, 501);
  }
  good &= check("the same read back from its file, correct",
                test_saved(&p, result(folder, "digits_tt.safetensors")), 501);
  good &= check_int8(&p, 501);
  tt_free(&p.last);
  return !good;
}
