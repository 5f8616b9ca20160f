// A program that uses tt.h as any other library; prints 16.
#include "tt.h"
#include "../one_layer.h"
#include <stdio.h>

int main(void) {
  printf("%g\n", (double)one_layer_run());
  return one_layer_run() != 16;
}
