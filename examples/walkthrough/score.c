// How good is a file? Prints how many of the images in IMAGES its network reads right: what
// `ttc compress --eval "score IMAGES"` asks of every plan.
//   cc -O2 -I../.. score.c -o score -lm && ./score test.bin model.safetensors
// Expected output: one number.
#define TT_IMPLEMENTATION
#include "tt.h"
#include "network.h"
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  unsigned char image[PIXELS + 1];
  tt_file *file;
  tt_matrix fc1, fc2;
  int right = 0;
  FILE *images = argc == 3 ? fopen(argv[1], "rb") : NULL;
  if (!images || tt_file_open(argv[2], NULL, &file)) {
    fputs("usage: score IMAGES MODEL\n", stderr);
    return 1;
  }
  if (tt_file_matrix(file, "fc1", NULL, &fc1) || tt_file_matrix(file, "fc2", NULL, &fc2)) return 1;
  size_t size = tt_apply_work_size(&fc1, 1), other = tt_apply_work_size(&fc2, 1);
  if (other > size) size = other;
  void *work = malloc(size);
  while (work && fread(image, sizeof image, 1, images) == 1)
    right += classify(&fc1, &fc2, image, work, size) == image[PIXELS];
  printf("%d\n", right);
  free(work);
  tt_free(&fc1);
  tt_free(&fc2);
  tt_file_close(file);
  fclose(images);
  return work ? 0 : 1;
}
