// Makes the networks for the microcontrollers, on the host: the digit classifier with its first
// layer dense, as an SVD of rank 8 and as a plain train of rank 8, all in INT8, as C headers.
//   cc -std=c99 -O2 -I../.. -I.. make.c -o make -lm && ./make ../data/digits.safetensors FOLDER 540
// Writes FOLDER/images.h (the first 540 test images) and FOLDER/{dense,svd,tt}/network.h; prints bytes and how many of
// all test images each network reads right in float.
#define TT_IMPLEMENTATION
#include "tt.h"
#include "digits.h"

static float train_images[TRAININGS * PIXELS], test_images[TESTS * PIXELS];
static unsigned char test_pixels[TESTS * PIXELS], labels[TESTS];

// How the first layer is stored.
struct variant {
  const char *name;
  tt_shape shape;
  int sweep;
};
static const struct variant variants[] = {
    {"dense", {1, {64}, {64}, {1, 1}}, TT_RIGHT_TO_LEFT},
    {"svd", {2, {64, 1}, {1, 64}, {1, 8, 1}}, TT_RIGHT_TO_LEFT},
    {"tt", {4, {1, 1, 4, 16}, {4, 16, 1, 1}, {1, 4, 8, 8, 1}}, TT_LEFT_TO_RIGHT}};
enum { VARIANTS = sizeof variants / sizeof *variants };

struct layer {
  tt_matrix w;
  tt_integer plan;
};

static void read_images(const tt_file *file, const char *name, unsigned char *pixels, float *x,
                        int count) {
  must(tt_file_read(file, find(file, name), 0, pixels, (size_t)count * PIXELS), name);
  for (int i = 0; i < count * PIXELS; i++) x[i] = (float)pixels[i] / 16;
}

// The layer's matrix, cut to the shape, turned for the cheap direction, in INT8 codes.
static void store(const tt_file *file, const char *name, const struct variant *as, tt_matrix *out) {
  tt_matrix dense, train, turned;
  tt_options options = {0};
  must(tt_file_matrix(file, name, NULL, &dense), name);
  options.bias = dense.bias;
  must(tt_compress((const float *)dense.cores[0].data, dense.rows, dense.cols, &as->shape, &options,
                   &train, NULL),
       "tt_compress");
  must(tt_turn(&train, as->sweep, NULL, &turned), "tt_turn");
  must(tt_quantize(&turned, TT_I8, 0, NULL, out, NULL), "tt_quantize");
  tt_free(&dense);
  tt_free(&train);
  tt_free(&turned);
}

// h = ReLU(fc1 x), float, for a whole set of images. Returns the largest.
static float hidden(const tt_matrix *fc1, const float *x, int count, float *h) {
  float largest = 0;
  run(fc1, x, count, h);
  for (int i = 0; i < count * HIDDEN; i++) {
    if (h[i] < 0) h[i] = 0;
    if (h[i] > largest) largest = h[i];
  }
  return largest;
}

// Plans for integers. Codes of x are pixels, 0..16. Codes of h begin at -128, which stands for 0, so
// that clipping is the ReLU.
static void plan(struct layer *fc1, struct layer *fc2) {
  static float h[TRAININGS * HIDDEN];
  tt_integer_options options = {0};
  options.in_scale = 1.0f / 16;
  options.out_scale = hidden(&fc1->w, train_images, TRAININGS, h) / 255;
  options.out_zero = -128;
  must(tt_integer_prepare(&fc1->w, train_images, TRAININGS, &options, &fc1->plan, NULL), "fc1");
  memset(&options, 0, sizeof options);
  options.in_scale = fc1->plan.out_scale;
  options.in_zero = -128;
  must(tt_integer_prepare(&fc2->w, h, TRAININGS, &options, &fc2->plan, NULL), "fc2");
}

static int largest_of(const float *y) {
  int best = 0;
  for (int i = 1; i < CLASSES; i++)
    if (y[i] > y[best]) best = i;
  return best;
}

static int right_in_float(const struct layer *fc1, const struct layer *fc2) {
  static float h[TESTS * HIDDEN], y[TESTS * CLASSES];
  int right = 0;
  hidden(&fc1->w, test_images, TESTS, h);
  run(&fc2->w, h, TESTS, y);
  for (int i = 0; i < TESTS; i++) right += largest_of(y + i * CLASSES) == labels[i];
  return right;
}

// ----------------------------------------------------------------------------------------- headers

static FILE *out;
static size_t bytes; // of all arrays so far

static void put_bytes(const char *name, const unsigned char *data, size_t count) {
  fprintf(out, "static const unsigned char %s[%d] FLASH = {", name, (int)count);
  for (size_t i = 0; i < count; i++) fprintf(out, "%s%d,", i % 20 ? " " : "\n  ", data[i]);
  fprintf(out, "\n};\n");
}

static void put_i8(const char *name, int k, const void *data, ptrdiff_t count) {
  fprintf(out, "static const int8_t %s_core%d[%d] FLASH = {", name, k, (int)count);
  for (ptrdiff_t i = 0; i < count; i++)
    fprintf(out, "%s%d,", i % 20 ? " " : "\n  ", ((const signed char *)data)[i]);
  fprintf(out, "\n};\n");
  bytes += (size_t)count;
}

static void put_i32(const char *name, const char *what, int k, const int32_t *data, int count) {
  fprintf(out, "static const int32_t %s_%s%d[%d] FLASH = {", name, what, k, count);
  for (int i = 0; i < count; i++) fprintf(out, "%s%ld,", i % 8 ? " " : "\n  ", (long)data[i]);
  fprintf(out, "\n};\n");
  bytes += 4 * (size_t)count;
}

static void put_ints(const int *values, int count) {
  fprintf(out, "{");
  for (int i = 0; i < count; i++) fprintf(out, i ? ", %d" : "%d", values[i]);
  fprintf(out, "}");
}

// Arrays in constant memory, and the two structs that point to them. No scale of a core or float of
// a bias is needed where all is integers: tt_valid wants scales, and takes the multipliers.
static void put_layer(const char *name, const struct layer *layer) {
  const tt_shape *shape = &layer->w.shape;
  const tt_integer *p = &layer->plan;
  int order = shape->order;
  for (int k = 0; k < order; k++)
    put_i8(name, k, layer->w.cores[k].data,
           (ptrdiff_t)shape->ranks[k] * shape->rows[k] * shape->cols[k] * shape->ranks[k + 1]);
  for (int i = 0; i < order; i++)
    put_i32(name, "multipliers", i, p->multipliers[i], p->num_multipliers[i]);
  if (p->offsets) put_i32(name, "offsets", 0, p->offsets, p->num_offsets);
  if (p->bias) put_i32(name, "bias", 0, p->bias, p->num_bias);
  fprintf(out, "static const tt_matrix %s = {\n    {%d, ", name, order);
  put_ints(shape->rows, order);
  fprintf(out, ", ");
  put_ints(shape->cols, order);
  fprintf(out, ", ");
  put_ints(shape->ranks, order + 1);
  fprintf(out, "},\n    %d, %d, %d,\n    {", layer->w.sweep, (int)layer->w.rows,
          (int)layer->w.cols);
  for (int k = 0; k < order; k++)
    fprintf(out, "%s{TT_I8, 0, 1, %s_core%d, NULL, NULL}", k ? ",\n     " : "", name, k);
  fprintf(out, "},\n    NULL, NULL, {NULL, NULL, NULL}};\n");
  fprintf(out, "static const tt_integer %s_plan = {\n    %d, %d, 0, 1, 1, %d, %d,\n    ", name,
          order, p->rounding, p->in_zero, p->out_zero);
  put_ints(p->shifts, order);
  fprintf(out, ", ");
  put_ints(p->num_multipliers, order);
  fprintf(out, ",\n    {");
  for (int i = 0; i < order; i++)
    fprintf(out, i ? ", %s_multipliers%d" : "%s_multipliers%d", name, i);
  fprintf(out, "}, {0},\n    %d, ", p->offsets ? p->num_offsets : 0);
  fprintf(out, p->offsets ? "%s_offsets0" : "NULL", name);
  fprintf(out, ", %d, ", p->bias ? p->num_bias : 0);
  fprintf(out, p->bias ? "%s_bias0" : "NULL", name);
  fprintf(out, ", NULL, {NULL, NULL, NULL}};\n\n");
}

static FILE *create(const char *folder, const char *name) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "w");
  if (!file) must(TT_ERROR_IO, path);
  return file;
}

// Two halves: no object of an AVR is larger than 32767 bytes.
static void put_images(const char *folder, size_t count) {
  size_t half = count / 2;
  out = create(folder, "images.h");
  put_bytes("first_images", test_pixels, half * PIXELS);
  put_bytes("other_images", test_pixels + half * PIXELS, (count - half) * PIXELS);
  put_bytes("labels", labels, count);
  fclose(out);
}

// Workspace of a layer, also where program memory is apart: a row is then copied before it is used.
static int workspace(const struct layer *layer) {
  const tt_shape *shape = &layer->w.shape;
  int longest = 0;
  for (int k = 0; k < shape->order; k++) {
    int length = shape->cols[k] * shape->ranks[layer->w.sweep == TT_LEFT_TO_RIGHT ? k : k + 1];
    if (length > longest) longest = length;
  }
  return (int)tt_integer_work_size(&layer->plan, &layer->w) + (longest + 63) / 64 * 64;
}

static void put_network(const char *folder, const char *name, const struct layer *fc1,
                        const struct layer *fc2) {
  char path[64];
  int first = workspace(fc1), second = workspace(fc2);
  snprintf(path, sizeof path, "%s/network.h", name);
  out = create(folder, path);
  bytes = 0;
  put_layer("fc1", fc1);
  put_layer("fc2", fc2);
  fprintf(out, "#define NETWORK_BYTES %d\n#define WORK_BYTES %d\n", (int)bytes,
          first > second ? first : second);
  fclose(out);
}

int main(int argc, char **argv) {
  static unsigned char pixels[TRAININGS * PIXELS];
  tt_file *file;
  int count = argc == 4 ? atoi(argv[3]) : 0;
  if (count < 2 || count > TESTS) {
    fprintf(stderr, "usage: make DATA FOLDER 2..540\n");
    return 1;
  }
  must(tt_file_open(argv[1], NULL, &file), argv[1]);
  read_images(file, "train.images", pixels, train_images, TRAININGS);
  read_images(file, "test.images", test_pixels, test_images, TESTS);
  must(tt_file_read(file, find(file, "test.labels"), 0, labels, sizeof labels), "test.labels");
  put_images(argv[2], (size_t)count);
  for (int v = 0; v < VARIANTS; v++) {
    static const struct variant second = {"", {1, {10}, {64}, {1, 1}}, TT_RIGHT_TO_LEFT};
    struct layer fc1, fc2;
    store(file, "fc1", &variants[v], &fc1.w);
    store(file, "fc2", &second, &fc2.w);
    plan(&fc1, &fc2);
    put_network(argv[2], variants[v].name, &fc1, &fc2);
    printf("%-6s %5d bytes, %d of %d right in float\n", variants[v].name, (int)bytes,
           right_in_float(&fc1, &fc2), TESTS);
    tt_integer_free(&fc1.plan);
    tt_integer_free(&fc2.plan);
    tt_free(&fc1.w);
    tt_free(&fc2.w);
  }
  tt_file_close(file);
  return 0;
}
