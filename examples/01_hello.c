// Compress a smooth matrix and a random one to the same tolerance.
//   cc -O2 -I.. 01_hello.c -o hello -lm
// Expected output: the smooth matrix becomes 102.4 times smaller, the random one twice as large.
#define TT_IMPLEMENTATION
#include "tt.h"
#include <stdio.h>

static float smooth[256 * 256], noise[256 * 256];

static int squeeze(const char *name, const float *w) {
  tt_options options = {0};
  tt_shape shape;
  tt_matrix train;
  tt_report report;
  options.epsilon = 1e-3;                               // at most 0.1 % error in the Frobenius norm
  if (tt_shape_factor(256, 256, 4, &shape)) return 1;   // 256 = 4*4*4*4, for rows and for columns
  if (tt_compress(w, 256, 256, &shape, &options, &train, &report)) return 1;
  printf("%s: ranks", name);
  for (int k = 0; k <= train.shape.order; k++) printf(" %d", train.shape.ranks[k]);
  printf(", error %.1e, %td instead of %td numbers (%.1f times smaller)\n", report.relative_error,
         report.params, report.dense_params, report.compression);
  tt_free(&train);
  return 0;
}

int main(void) {
  unsigned state = 1;
  for (int i = 0; i < 256 * 256; i++) {
    smooth[i] = 1.0f / (float)(1 + i / 256 + i % 256);  // w[row][col] = 1 / (1 + row + col)
    state = state * 1664525u + 1013904223u;
    noise[i] = (float)(state >> 8) / 16777216.0f - 0.5f;
  }
  return squeeze("smooth", smooth) || squeeze("random", noise);
}
