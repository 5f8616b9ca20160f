// Z80 and STM8 by SDCC, in its simulators: text and the end go through one address of theirs.
//   -DBOARD_PORT=0x7fff   that address, as given to the simulator
#include "board.h"
#define PORT (*(volatile unsigned char *)BOARD_PORT)

#if !defined(__SDCC_stm8)
int putchar(int c) { return c; }
#endif
void board_start(void) {}
void board_print(const char *text) {
  for (; *text; text++) {
    PORT = 'p';
    PORT = (unsigned char)*text;
  }
}
int board_stop(int status) {
  board_print(status ? "exit 1\n" : "exit 0\n");
  PORT = 's';
  for (;;) {}
}
