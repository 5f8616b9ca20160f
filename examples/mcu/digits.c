// The digit classifier on a microcontroller: two layers from flash, run in integers. Draws an
// image, says which digit it is, then reads the test images.
//   make -C .. mcu      builds this for every network and processor, runs it, prints a table
// fc1.h, fc2.h and images.h come from make.c; board.h says what the processor must be able to do.
// Prints "right R of N", "work W" (mean per image, see board.h), "stack S", "integer HASH" (of all
// outputs), "weights W", "workspace W", "images I" (bytes).
#ifdef __AVR__
#include <avr/pgmspace.h>
#define TT_FLASH_BYTE(address) pgm_read_byte(address)
#define TT_FLASH PROGMEM
#endif
#define TT_INFERENCE_ONLY
#define TT_STATIC
#define TT_IMPLEMENTATION
#include "board.h"
#include "fc1.h"
#include "fc2.h"
#include "images.h"

enum { PIXELS = 64, HIDDEN = 64, CLASSES = 10, IMAGES = sizeof labels };

static unsigned char work[FC1_INTEGER_SCRATCH_BYTES > FC2_INTEGER_SCRATCH_BYTES
                              ? FC1_INTEGER_SCRATCH_BYTES
                              : FC2_INTEGER_SCRATCH_BYTES];

static const unsigned char *image_at(int i) {
  enum { HALF = IMAGES / 2 };
  return i < HALF ? first_images + i * PIXELS : other_images + (i - HALF) * PIXELS;
}

static unsigned char from_flash(const unsigned char *at) {
#ifdef TT_FLASH_BYTE
  return TT_FLASH_BYTE(at);
#else
  return *at;
#endif
}

// The digit on an image; -1 if a layer refuses. Codes of pixels are 0..16, and the plan of fc1
// clips at zero, so that there is nothing between the layers.
static int classify(const unsigned char *image, int8_t y[CLASSES]) {
  int8_t x[PIXELS], h[HIDDEN];
  int best = 0;
  for (int i = 0; i < PIXELS; i++) x[i] = (int8_t)from_flash(image + i);
  if (tt_integer_apply(&fc1_plan, &fc1, x, 1, h, work, sizeof work) ||
      tt_integer_apply(&fc2_plan, &fc2, h, 1, y, work, sizeof work))
    return -1;
  for (int i = 1; i < CLASSES; i++)
    if (y[i] > y[best]) best = i;
  return best;
}

// Eight lines, five shades.
static void draw(const unsigned char *image) {
  char line[] = "        \n";
  for (int i = 0; i < PIXELS; i++) {
    line[i % 8] = " .:*#"[(from_flash(image + i) + 3) / 4];
    if (i % 8 == 7) board_print(line);
  }
}

static void print(const char *what, unsigned long value, const char *end) {
  char text[12], *at = text + sizeof text;
  *--at = 0;
  do {
    *--at = (char)('0' + value % 10);
    value /= 10;
  } while (value);
  board_print(what);
  board_print(at);
  board_print(end);
}

int main(void) {
  int8_t y[CLASSES];
  uint32_t hash = 2166136261UL; // FNV-1a
  unsigned long total = 0;
  int right = 0;
  board_start();
  draw(image_at(0));
  if (classify(image_at(0), y) < 0) {
    board_print("a layer refuses\n");
    return board_stop(1);
  }
  print("is a ", (unsigned long)classify(image_at(0), y), "\n");
  for (int i = 0; i < IMAGES; i++) {
    board_work();
    right += classify(image_at(i), y) == from_flash(labels + i);
    total += board_work() / 16; // the sum fits 32 bits
    for (int c = 0; c < CLASSES; c++) hash = (hash ^ (unsigned char)y[c]) * 16777619UL;
  }
  print("right ", (unsigned long)right, " of ");
  print("", IMAGES, "\n");
  print("work ", total * 16 / IMAGES, "\n");
  print("stack ", board_stack(), "\n");
  print("integer ", hash, "\n");
  print("weights ",
        FC1_FLASH_BYTES + FC1_INTEGER_FLASH_BYTES + FC2_FLASH_BYTES + FC2_INTEGER_FLASH_BYTES,
        "\n");
  print("workspace ", sizeof work, "\n");
  print("images ", sizeof first_images + sizeof other_images + sizeof labels, "\n");
  return board_stop(right < IMAGES / 2);
}
