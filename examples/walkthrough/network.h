// The network of the walk-through: pixels / 16, fc1, ReLU, fc2, largest of ten. Runs on a few
// kilobytes of stack, whatever the matrices are. Include after tt.h.
#ifndef WALKTHROUGH_NETWORK_H
#define WALKTHROUGH_NETWORK_H

enum { PIXELS = 64, HIDDEN = 64, CLASSES = 10 };

static inline void read_pixels(const unsigned char *pixels, float x[PIXELS]) {
  for (int i = 0; i < PIXELS; i++) x[i] = (float)pixels[i] / 16;
}

// h = ReLU(fc1 x). Returns 0 if the matrix does not fit or the workspace is too small.
static inline int hidden_layer(const tt_matrix *fc1, const float x[PIXELS], float h[HIDDEN],
                               void *work, size_t size) {
  if (fc1->rows != HIDDEN || fc1->cols != PIXELS || tt_apply(fc1, x, 1, h, work, size)) return 0;
  for (int i = 0; i < HIDDEN; i++)
    if (h[i] < 0) h[i] = 0;
  return 1;
}

// The digit on an image of 8 x 8 pixels (0..16); -1 if the matrices do not fit.
static inline int classify(const tt_matrix *fc1, const tt_matrix *fc2, const unsigned char *pixels,
                           void *work, size_t size) {
  float x[PIXELS], h[HIDDEN], y[CLASSES];
  int digit = 0;
  read_pixels(pixels, x);
  if (!hidden_layer(fc1, x, h, work, size) || fc2->rows != CLASSES || fc2->cols != HIDDEN ||
      tt_apply(fc2, h, 1, y, work, size))
    return -1;
  for (int i = 1; i < CLASSES; i++)
    if (y[i] > y[digit]) digit = i;
  return digit;
}

#endif
