#!/bin/sh
# Builds digits.c for every network and processor, runs it in an emulator and prints what it took.
#   usage: table.sh FOLDER     the programs go there; called by make -C examples mcu
#   IMAGES=20                  test images that each program reads; all 540 without
# Needs gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm for the Cortex-M, gcc-avr,
# avr-libc, libsimavr-dev and libelf-dev for the AVR; what is missing is skipped by name. The exit
# status is 0 if every program gave the outputs of this machine, bit for bit.
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
images=${IMAGES:-540}
cc=${CC:-cc}
failed=0
include="-I$here/../.. -I$here -I$folder -std=gnu99"

have() { command -v "$1" >/dev/null 2>&1; }
skip() { echo "skipped: $1 ($2)"; }
fail() {
  echo "FAILED: $1"
  failed=1
}

mkdir -p "$folder/dense" "$folder/svd" "$folder/tt"
$cc -std=c99 -O2 -I"$here/../.." -I"$here/.." "$here/make.c" -o "$folder/make" -lm &&
  "$folder/make" "$here/../data/digits.safetensors" "$folder" "$images" >"$folder/make.log" ||
  exit 1
for network in dense svd tt; do
  # shellcheck disable=SC2086
  $cc -O2 $include -I"$folder/$network" "$here/digits.c" "$here/board_host.c" \
    -o "$folder/$network/host" && "$folder/$network/host" >"$folder/$network/host.txt" || exit 1
done
head -n 9 "$folder/dense/host.txt"
echo
printf '%-30s %-6s %6s %8s %7s %6s %6s %6s %s\n' "processor, flags" fc1 right weights program \
  RAM "of it" stack "an image"

# value WORD: the number behind it in the output of the program
value() { sed -n "s/^$1 \([0-9]*\).*/\1/p" "$output"; }

# program NAME UNIT SIZE RUNNER COMPILER FLAGS..: of every network
program() {
  name=$1 unit=$2 size=$3 runner=$4
  shift 4
  for network in dense svd tt; do
    elf=$folder/$network/$(echo "$name" | tr -c 'A-Za-z0-9\n' _).elf
    output=$elf.txt
    # shellcheck disable=SC2086
    if ! "$@" $include -I"$folder/$network" "$here/digits.c" -o "$elf" 2>"$elf.log" ||
      ! timeout 200 $runner "$elf" >"$output" 2>&1 || [ -z "$(value right)" ]; then
      fail "$name, $network"
      tail -n 5 "$elf.log" "$output"
      continue
    fi
    [ "$(value integer)" = "$(sed -n 's/^integer //p' "$folder/$network/host.txt")" ] ||
      fail "$name, $network: other outputs than on this machine"
    sizes=$($size "$elf" | awk 'END { print $1 + $2, $2 + $3 }')
    flash=${sizes% *} static=${sizes#* }
    printf '%-30s %-6s %6s %8s %7s %6s %6s %6s %s\n' "$name" $network "$(value right)" \
      "$(value weights)" $((flash - $(value images) - $(value weights))) \
      $((static + $(value stack))) "$(value workspace)" "$(value stack)" "$(value work) $unit"
  done
}

# cortex NAME MACHINE MHZ FLASH RAM FLAGS..
cortex() {
  name=$1 machine=$2 mhz=$3 flash_size=$4 ram_size=$5
  shift 5
  program "$name" instructions arm-none-eabi-size \
    "qemu-system-arm -M $machine -icount shift=0 -nographic -semihosting-config
      enable=on,target=native -kernel" \
    arm-none-eabi-gcc -mthumb "$@" -ffunction-sections -fdata-sections -Wl,--gc-sections \
    -nostartfiles --specs=nano.specs -T "$here/cortex.ld" \
    -Wl,--defsym=FLASH_SIZE="$flash_size",--defsym=RAM_SIZE="$ram_size" -DBOARD_MHZ="$mhz" \
    "$here/board_cortex.c"
}

if ! have arm-none-eabi-gcc || ! have qemu-system-arm; then
  skip Cortex-M "arm-none-eabi-gcc or qemu-system-arm not installed"
elif [ ! -e "$(arm-none-eabi-gcc -print-file-name=nano.specs)" ]; then
  skip Cortex-M "libnewlib-arm-none-eabi not installed"
else
  cortex "Cortex-M0 -Os" microbit 16 256K 16K -Os -mcpu=cortex-m0
  cortex "Cortex-M4F -O2" mps2-an386 25 4M 4M -O2 -mcpu=cortex-m4 -mfloat-abi=hard \
    -mfpu=fpv4-sp-d16
  cortex "Cortex-M55 -O3" mps3-an547 32 512K 512K -O3 -mcpu=cortex-m55 -mfloat-abi=hard
fi
if ! have avr-gcc || ! $cc -O2 "$here/simrun.c" -o "$folder/simrun" -lsimavr -lelf 2>/dev/null; then
  skip AVR "gcc-avr, avr-libc, libsimavr-dev or libelf-dev not installed"
else
  program "ATmega1284P -O2" cycles avr-size "$folder/simrun atmega1284p" \
    avr-gcc -mmcu=atmega1284p -O2 "$here/board_avr.c"
fi

cat <<EOT

right: of $images test images. Bytes: weights with multipliers and biases; program without weights
and images; RAM with workspace (of it) and stack. An image: instructions in qemu, cycles in simavr.
EOT
exit $failed
