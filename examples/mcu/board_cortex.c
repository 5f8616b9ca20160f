// A Cortex-M under qemu-system-arm: start-up, output and end through semihosting, SysTick as the
// counter of instructions. Nothing of the C library but memcpy and memset.
//   -DBOARD_MHZ=16   what the board's SysTick counts per microsecond
#include "board.h"
#include <stdint.h>

extern uint32_t stack_top[], data_first[], data_start[], data_end[], bss_start[], bss_end[];
int main(void);
void board_reset(void);
static void fault(void);

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top,           (const void *)board_reset, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault,       (const void *)fault};

static void semihost(uint32_t operation, const void *argument) {
  register uint32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void quit(uint32_t status) {
  uint32_t block[2] = {0x20026, 0}; // the application ended by itself
  block[1] = status;
  for (;;) semihost(0x20, block);
}

static void fault(void) { // misaligned or wild: must not hang
  board_print("HARDFAULT\n");
  quit(99);
}

static void start(void) {
  const uint32_t *from = data_first;
  for (uint32_t *to = data_start; to < data_end; to++) *to = *from++;
  for (uint32_t *to = bss_start; to < bss_end; to++) *to = 0;
  quit((uint32_t)main());
}

__attribute__((naked)) void board_reset(void) {
  __asm__ volatile(
#ifdef __ARM_FP
      "ldr r0, =0xE000ED88\n ldr r1, [r0]\n orr r1, r1, #0xF00000\n str r1, [r0]\n dsb\n isb\n"
#endif // FPU and vectors on
      "ldr r0, =stack_top\n mov sp, r0\n bl %c0\n"
      :
      : "i"(start));
}

#define SYSTICK ((volatile uint32_t *)0xE000E010) // control, reload, current
static uint32_t last_tick;

enum { PAINT = 0x5A5A5A5A };
static uint32_t *here(void) {
  uint32_t *sp;
  __asm__ volatile("mov %0, sp" : "=r"(sp));
  return sp;
}

void board_start(void) {
  for (volatile uint32_t *at = bss_end; at < here() - 8; at++) *at = PAINT;
  SYSTICK[1] = 0xFFFFFF;
  SYSTICK[2] = 0;
  SYSTICK[0] = 5; // on, the processor's clock
  last_tick = SYSTICK[2];
}

void board_print(const char *text) { semihost(4, text); }

int board_stop(int status) {
  board_print(status ? "exit 1\n" : "exit 0\n");
  return status;
}

unsigned long board_work(void) {
  uint32_t now = SYSTICK[2], ticks = (last_tick - now) & 0xFFFFFF; // it counts down
  last_tick = now;
  return (unsigned long)((uint64_t)ticks * 1000 / BOARD_MHZ);
}

unsigned long board_stack(void) {
  const uint32_t *at = bss_end;
  while (at < stack_top && *at == PAINT) at++;
  return (unsigned long)(stack_top - at) * 4;
}
