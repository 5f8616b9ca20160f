// What the examples on handwritten digits share: sizes, where data and results lie, and calls that
// end the program when they fail. Include after tt.h.
#ifndef EXAMPLES_DIGITS_H
#define EXAMPLES_DIGITS_H

#include "svg.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIXELS = 64, HIDDEN = 64, CLASSES = 10, TRAININGS = 1257, TESTS = 540 };

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

static int find(const tt_file *file, const char *name) {
  int index;
  must(tt_file_find(file, name, &index), name);
  return index;
}

// y = x W^T for a whole batch.
static void run(const tt_matrix *w, const float *x, ptrdiff_t batch, float *y) {
  size_t size = tt_apply_work_size(w, batch);
  void *work = get_memory(size);
  must(tt_apply(w, x, batch, y, work, size), "tt_apply");
  free(work);
}

// data/digits.safetensors next to this source file.
static void default_data(char *path, size_t room) {
  const char *source = __FILE__, *end = strrchr(source, '/');
  int length = end ? (int)(end + 1 - source) : 0;
  snprintf(path, room, "%.*sdata/digits.safetensors", length, source);
}

static const char *result(const char *folder, const char *name) {
  static char path[1024];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

// Ticks of an axis of errors in percent, named by the accuracies.
static void draw_accuracies(const svg_panel *panel) {
  static const double ticks[] = {20, 50, 70, 80, 90, 95, 97, 98};
  for (int i = 0; i < (int)(sizeof ticks / sizeof *ticks); i++) {
    char label[16];
    sprintf(label, "%.0f", ticks[i]);
    svg_tick(panel, 0, 100 - ticks[i], label);
  }
}

#endif
