// An AVR (ATmega1284P, ATmega2560) under simavr: text on the first serial port, timer 1 as the
// counter of cycles; asleep with interrupts off is the end.
#include "board.h"
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>

extern unsigned char __heap_start; // the end of .bss
static unsigned last_tick;
enum { PAINT = 0x5A };

void board_start(void) {
  for (volatile unsigned char *at = &__heap_start; at < (unsigned char *)SP - 16; at++) *at = PAINT;
  UCSR0B = 1 << TXEN0;
  TCCR1B = 1 << CS12; // one tick in 256 cycles
  last_tick = TCNT1;
}

void board_print(const char *text) {
  for (; *text; text++) {
    while (!(UCSR0A & (1 << UDRE0))) {}
    UDR0 = (unsigned char)*text;
  }
}

int board_stop(int status) {
  board_print(status ? "exit 1\n" : "exit 0\n");
  while (!(UCSR0A & (1 << UDRE0))) {}
  cli();
  sleep_mode();
  for (;;) {}
}

unsigned long board_work(void) {
  unsigned now = TCNT1, ticks = now - last_tick;
  last_tick = now;
  return (unsigned long)ticks * 256;
}

unsigned long board_stack(void) {
  const unsigned char *at = &__heap_start;
  while (at < (unsigned char *)RAMEND && *at == PAINT) at++;
  return (unsigned long)(RAMEND - (unsigned)at) + 1;
}
