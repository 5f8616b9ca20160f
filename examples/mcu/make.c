// Makes the networks for the microcontrollers, on the host: the digit classifier with its first
// layer dense, as an SVD of rank 8 and as a plain train of rank 8, all in INT8, as C headers.
//   cc -std=c99 -O2 -I../.. -I.. make.c -o make -lm && ./make ../data/digits.safetensors FOLDER 540
// Writes FOLDER/images.h (the first 540 test images) and FOLDER/{dense,svd,tt}/fc1.h and
// fc2.h; prints how many of all test images each network reads right in float.
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

// Plans for integers. Codes of x are pixels, 0..16. Codes of h begin at -128, which stands for 0,
// so that clipping is the ReLU.
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

static FILE *create(const char *folder, const char *name, const char *file_name) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s/%s", folder, name, file_name);
  FILE *file = fopen(path, "w");
  if (!file) must(TT_ERROR_IO, path);
  return file;
}

static void put_layer(const char *folder, const char *variant, const char *name,
                      const struct layer *layer) {
  char file_name[64];
  size_t size;
  must(tt_export_c(&layer->w, &layer->plan, name, NULL, NULL, &size), name);
  char *text = (char *)get_memory(size);
  must(tt_export_c(&layer->w, &layer->plan, name, NULL, text, &size), name);
  snprintf(file_name, sizeof file_name, "%s.h", name);
  FILE *file = create(folder, variant, file_name);
  fputs(text, file);
  fclose(file);
  free(text);
}

static void put_bytes(FILE *file, const char *name, const unsigned char *data, int count) {
  fprintf(file, "static const unsigned char %s[%d] TT_FLASH = {", name, count);
  for (int i = 0; i < count; i++) fprintf(file, "%s%d,", i % 20 ? " " : "\n  ", data[i]);
  fprintf(file, "\n};\n");
}

// Two halves: no object of an AVR is larger than 32767 bytes.
static void put_images(const char *folder, int count) {
  int half = count / 2;
  FILE *file = create(folder, ".", "images.h");
  put_bytes(file, "first_images", test_pixels, half * PIXELS);
  put_bytes(file, "other_images", test_pixels + half * PIXELS, (count - half) * PIXELS);
  put_bytes(file, "labels", labels, count);
  fclose(file);
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
  put_images(argv[2], count);
  for (int v = 0; v < VARIANTS; v++) {
    static const struct variant second = {"", {1, {10}, {64}, {1, 1}}, TT_RIGHT_TO_LEFT};
    struct layer fc1, fc2;
    store(file, "fc1", &variants[v], &fc1.w);
    store(file, "fc2", &second, &fc2.w);
    plan(&fc1, &fc2);
    put_layer(argv[2], variants[v].name, "fc1", &fc1);
    put_layer(argv[2], variants[v].name, "fc2", &fc2);
    printf("%-6s %d of %d right in float\n", variants[v].name, right_in_float(&fc1, &fc2), TESTS);
    tt_integer_free(&fc1.plan);
    tt_integer_free(&fc2.plan);
    tt_free(&fc1.w);
    tt_free(&fc2.w);
  }
  tt_file_close(file);
  return 0;
}
