// Runs a program for an AVR in simavr: its serial port is standard output, its line "exit N" the
// exit status; without that line the status is 99.
//   cc -O2 simrun.c -o simrun -lsimavr -lelf && ./simrun atmega1284p program.elf
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>
#include <stdio.h>
#include <string.h>

static int status = 99, length;
static char line[256];

static void received(struct avr_irq_t *irq, uint32_t value, void *user) {
  (void)irq;
  (void)user;
  putchar((int)value);
  if (value != '\n') {
    if (length < (int)sizeof line - 1) line[length++] = (char)value;
    return;
  }
  line[length] = 0;
  length = 0;
  if (!strncmp(line, "exit ", 5)) status = line[5] - '0';
}

static unsigned word_at(const avr_t *avr, avr_flashaddr_t at) {
  return avr->flash[at] | (unsigned)avr->flash[at + 1] << 8;
}

// One instruction. simavr 1.6 takes some ADIW and SBIW for instructions of two words: where one is
// skipped, so is the instruction behind it. Seen in x / 64 with signed x.
static int step(avr_t *avr) {
  avr_flashaddr_t before = avr->pc;
  int state = avr_run(avr);
  if (state == cpu_Running && avr->pc == before + 6 &&
      (word_at(avr, before + 2) & 0xFE00) == 0x9600) {
    avr->pc -= 2;
    avr->cycle--;
  }
  return state;
}

int main(int argc, char **argv) {
  elf_firmware_t firmware;
  uint32_t flags = 0;
  int state;
  memset(&firmware, 0, sizeof firmware);
  if (argc != 3 || elf_read_firmware(argv[2], &firmware)) return 98;
  firmware.frequency = 16000000;
  avr_t *avr = avr_make_mcu_by_name(argv[1]);
  if (!avr) return 97;
  avr_init(avr);
  avr_load_firmware(avr, &firmware);
  avr_ioctl(avr, AVR_IOCTL_UART_GET_FLAGS('0'), &flags); // the port is ours, not simavr's
  flags &= ~(uint32_t)AVR_UART_FLAG_STDIO;
  avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), received,
                          NULL);
  do state = step(avr);
  while (state != cpu_Done && state != cpu_Crashed);
  return state == cpu_Done ? status : 96;
}
