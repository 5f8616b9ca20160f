// Writes what a training script would leave behind: model.safetensors, and inputs.safetensors with
// what flows into its layers on the training images. Also the other images as the bytes that a
// device would see, 64 pixels and the digit each: half of them in eval.bin, to choose by, half in
// test.bin.
//   cc -O2 -I../.. prepare.c -o prepare -lm && ./prepare ../data/digits.safetensors .
// Prints nothing.
#define TT_IMPLEMENTATION
#include "tt.h"
#include "network.h"
#include <stdio.h>
#include <stdlib.h>

static void must(tt_status status, const char *what) {
  if (status == TT_OK) return;
  fprintf(stderr, "%s: %s\n", what, tt_status_string(status));
  exit(1);
}

static const char *in_folder(const char *folder, const char *name) {
  static char path[1024];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

// All bytes of a tensor.
static unsigned char *read_bytes(const tt_file *file, const char *name, size_t *size) {
  int index;
  must(tt_file_find(file, name, &index), name);
  must(tt_file_tensor(file, index, NULL, NULL, NULL, NULL, NULL, size), name);
  unsigned char *bytes = (unsigned char *)malloc(*size);
  if (!bytes) must(TT_ERROR_MEMORY, name);
  must(tt_file_read(file, index, 0, bytes, *size), name);
  return bytes;
}

static void write_model(const tt_file *file, const char *path) {
  static const char *const names[] = {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"};
  tt_writer *writer;
  must(tt_writer_create(NULL, &writer), path);
  for (int i = 0; i < 4; i++) {
    int index;
    must(tt_file_find(file, names[i], &index), names[i]);
    must(tt_writer_copy(writer, file, index), names[i]);
  }
  must(tt_writer_save(writer, path), path);
  tt_writer_free(writer);
}

// Moments of the inputs of both layers, image by image.
static void write_inputs(const tt_file *file, const char *path) {
  size_t size;
  unsigned char *images = read_bytes(file, "train.images", &size);
  tt_inputs *inputs[2];
  tt_matrix fc1;
  tt_writer *writer;
  must(tt_file_matrix(file, "fc1", NULL, &fc1), "fc1");
  size_t work_size = tt_apply_work_size(&fc1, 1);
  void *work = malloc(work_size);
  must(tt_inputs_create(PIXELS, NULL, &inputs[0]), path);
  must(tt_inputs_create(HIDDEN, NULL, &inputs[1]), path);
  for (size_t i = 0; i < size; i += PIXELS) {
    float x[PIXELS], h[HIDDEN];
    read_pixels(images + i, x);
    if (!work || !hidden_layer(&fc1, x, h, work, work_size)) must(TT_ERROR_INVALID, "fc1");
    must(tt_inputs_add(inputs[0], x, 1), path);
    must(tt_inputs_add(inputs[1], h, 1), path);
  }
  must(tt_writer_create(NULL, &writer), path);
  must(tt_writer_add_inputs(writer, "fc1", inputs[0]), path);
  must(tt_writer_add_inputs(writer, "fc2", inputs[1]), path);
  must(tt_writer_save(writer, path), path);
  tt_writer_free(writer);
  for (int i = 0; i < 2; i++) tt_inputs_free(inputs[i]);
  tt_free(&fc1);
  free(work);
  free(images);
}

// Images first .. first+count-1 of the test, each with its digit behind it.
static void write_images(const tt_file *file, const char *path, size_t first, size_t count) {
  size_t size, num_labels;
  unsigned char *images = read_bytes(file, "test.images", &size);
  unsigned char *labels = read_bytes(file, "test.labels", &num_labels);
  FILE *out = fopen(path, "wb");
  if (!out || size != num_labels * PIXELS || first + count > num_labels) must(TT_ERROR_IO, path);
  for (size_t i = first; i < first + count; i++) {
    fwrite(images + i * PIXELS, 1, PIXELS, out);
    fputc(labels[i], out);
  }
  int good = !ferror(out);
  if (fclose(out) || !good) must(TT_ERROR_IO, path);
  free(images);
  free(labels);
}

int main(int argc, char **argv) {
  tt_file *file;
  if (argc != 3) {
    fputs("usage: prepare DIGITS FOLDER\n", stderr);
    return 2;
  }
  must(tt_file_open(argv[1], NULL, &file), argv[1]);
  write_model(file, in_folder(argv[2], "model.safetensors"));
  write_inputs(file, in_folder(argv[2], "inputs.safetensors"));
  write_images(file, in_folder(argv[2], "eval.bin"), 0, 270);
  write_images(file, in_folder(argv[2], "test.bin"), 270, 270);
  tt_file_close(file);
  return 0;
}
