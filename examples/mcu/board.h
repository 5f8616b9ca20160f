// What a program needs of a board: text out, an end with a status, and how much work and stack were
// used. One file per kind of processor has it: board_cortex.c, board_avr.c.
#ifndef BOARD_H
#define BOARD_H
#ifdef __cplusplus
extern "C" {
#endif

void board_start(void); // call first
void board_print(const char *text);
int board_stop(int status); // ends the program, 0 = good; prints "exit N"

// Work since the last call, up to 0.4 s of it: clock cycles of an AVR, to 256; instructions of a
// Cortex-M, to 63, in an emulator that runs one instruction a nanosecond (qemu -icount shift=0).
unsigned long board_work(void);
// The deepest the stack has been since board_start, in bytes.
unsigned long board_stack(void);

#ifdef __cplusplus
}
#endif
#endif
