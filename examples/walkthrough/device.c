// The program for a device: the layers are constant arrays, nothing is allocated, no file opened.
// fc1.h and fc2.h come from `ttc export-c`; images come from stdin, 64 pixels and the digit each.
//   make -C .. walkthrough         makes those files and this program
// Expected output: bytes, and how many images are read right.
#define TT_IMPLEMENTATION
#define TT_INFERENCE_ONLY
#include "tt.h"
#include "network.h"
#include "fc1.h"
#include "fc2.h"
#include <stdio.h>

static unsigned char
    work[FC1_SCRATCH_BYTES > FC2_SCRATCH_BYTES ? FC1_SCRATCH_BYTES : FC2_SCRATCH_BYTES];

int main(void) {
  unsigned char image[PIXELS + 1];
  int right = 0, all = 0;
  for (; fread(image, sizeof image, 1, stdin) == 1; all++)
    right += classify(&fc1, &fc2, image, work, sizeof work) == image[PIXELS];
  printf("%d of %d right; %d bytes of weights, %d of workspace\n", right, all,
         FC1_FLASH_BYTES + FC2_FLASH_BYTES, (int)sizeof work);
  return 0;
}
