// WebAssembly without any system: text goes to an imported function, run() is main (see wasm.mjs).
// Compilers call memcpy and memset by themselves.
#include "board.h"
#include <stddef.h>

__attribute__((import_module("env"), import_name("put"))) void put(const char *text, int length);
int main(void);

void *memcpy(void *to, const void *from, size_t size) {
  for (size_t i = 0; i < size; i++) ((char *)to)[i] = ((const char *)from)[i];
  return to;
}

void *memset(void *to, int value, size_t size) {
  for (size_t i = 0; i < size; i++) ((char *)to)[i] = (char)value;
  return to;
}

void board_start(void) {}
void board_print(const char *text) {
  int length = 0;
  while (text[length]) length++;
  put(text, length);
}
int board_stop(int status) { return status; }

__attribute__((export_name("run"))) int run(void) { return main(); }
