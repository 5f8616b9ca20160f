// This machine in place of a board: no measure of work or stack.
#include "board.h"
#include <stdio.h>

void board_start(void) {}
void board_print(const char *text) { fputs(text, stdout); }
int board_stop(int status) { return status; }
unsigned long board_work(void) { return 0; }
unsigned long board_stack(void) { return 0; }
