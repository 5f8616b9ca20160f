# The same program on every processor, system and compiler that an emulator or a package gives:
# platforms/platform.c, whole where there is memory for it, else its part for microcontrollers. All
# must pass the same number of tests and give the same bits, or the reason is named.
#   make platforms        what is checked at every change
#   make platforms-all    more of each kind
# A program without its closing line failed, whatever its exit status: some emulators give 0 and no
# output for what they cannot run.
. "$(dirname "$0")/common.sh"
all=$1
source=platforms/platform.c mcu=../examples/mcu
plain="-ffp-contract=off -DTT_NO_SIMD"
small="-DTT_INFERENCE_ONLY"
board="$small -DPLATFORM_BOARD -I$mcu"
limit=200                                      # seconds for one program
rows=0

# run NAME REASON RUNNER COMPILER FLAGS..: builds and runs, and writes a line for the table. REASON
# says why hashes of floats may differ, or is empty; RUNNER gets the program as its last argument.
row() {
  row=$1 name=$2 reason=$3 runner=$4
  shift 4
  program=$build/$row.program
  "$@" -o "$program" || return 1
  case " $* " in *" $small "*) size=small ;; *) size=whole ;; esac
  begin=$(date +%s%N)
  timeout $limit $runner "$program" >"$build/$row.raw" 2>&1
  status=$?
  tr -d '\r' <"$build/$row.raw" >"$build/$row.output"
  write_row "$name" "$(basename "$1")" $size "$reason"
  cat "$build/$row.output"
  [ $status -eq 0 ] && [ -n "$tests" ] && {
    case " $* " in *" -DPLATFORM_BOARD "*) notices "$@" ;; esac
  }
}

# A test that fails on purpose must be seen, where statuses and texts take unusual ways.
notices() {
  "$@" -DPLATFORM_FAIL -DPLATFORM_EVERY=100 -o "$program" || return 1
  timeout $limit $runner "$program" >"$build/$row.raw" 2>&1
  status=$?
  cat "$build/$row.raw"
  [ $status -ne 0 ] && [ $status -ne 124 ] && grep -q 'passed, 1 failed' "$build/$row.raw"
}

# write_row NAME COMPILER SIZE REASON: from what the program printed since $begin.
write_row() {
  tenths=$((($(date +%s%N) - begin) / 100000000))
  tests=$(sed -n 's/^\([1-9][0-9]*\) passed, 0 failed$/\1/p' "$build/$row.output")
  printf '%s|%s|%s|%s|%s|%s|%s|%s|%s\n' "$1" "$2" "$3" "${tests:--}" "$(hash_of integer)" \
    "$(hash_of float)" "$(hash_of double)" "$((tenths / 10)).$((tenths % 10))" "$4" \
    >"$build/$row.row"
}
hash_of() { sed -n "s/^$1 \([0-9a-f]*\)$/\1/p" "$build/$row.output" | grep . || echo -; }

# platform NAME REASON RUNNER COMPILER FLAGS..
platform() {
  rows=$((rows + 1))
  check "$1" row "$rows" "$@"
}

# needs NAME TOOL..: are the tools here? Otherwise the target is skipped, by its name.
needs() {
  target_name=$1
  shift
  for tool in "$@"; do
    have "$tool" || { skip "$target_name" "$tool not installed"; return 1; }
  done
}

# The table, and what the rows must agree on.
table() {
  format='%-24s %-24s %6s  %-8s %-8s %-8s %5s\n'
  # shellcheck disable=SC2059
  printf "$format" target compiler tests integer float double s
  for number in $(seq $rows); do
    [ -s "$build/$number.row" ] || continue
    IFS='|' read -r name compiler size tests integer float double seconds reason \
      <"$build/$number.row"
    # shellcheck disable=SC2059
    printf "$format" "$name" "$compiler" "$tests" "$integer" "$float" "$double" "$seconds"
    [ -z "$reason" ] || printf '    floats differ: %s\n' "$reason"
  done
}

# agree FIELD SIZE: one value in that field of all rows; integers always, the rest where no reason
# is given.
agree() {
  values=$(cat "$build"/*.row | awk -F'|' -v field="$1" -v size="$2" \
    '$3 != "some" && (size == "any" || $3 == size) && (field == 5 || $9 == "") && $field != "-" {
       print $field }' |
    sort -u)
  echo "$values"
  [ "$(echo "$values" | wc -l)" -eq 1 ] && [ -n "$values" ]
}

# --- This machine.
platform "this machine" "" "" gcc -std=c99 -O2 $plain $source -lm
barrier
platform "this machine, vectors" "vector kernels add in another order" "" \
  gcc -std=c99 -O3 -march=native $source -lm
needs "clang" clang && platform "clang" "" "" clang -std=c11 -O2 $plain $source -lm
needs "tcc" tcc && platform "tcc" "" "" tcc $plain $source -lm
needs "musl" musl-gcc &&
  platform "musl, static" "" "" musl-gcc -std=c99 -O2 -static $plain $source -lm
if works gcc -m32; then
  platform "32 bits, SSE" "" "" gcc -m32 -msse2 -mfpmath=sse -std=c99 -O2 $plain $source -lm
  platform "32 bits, x87" "registers of 80 bits" "" gcc -m32 -std=c99 -O2 $plain $source -lm
else
  skip "32 bits" "gcc-12-multilib not installed"
fi
for flags in "-std=c99 -O0" "-std=c11 -O3" "-std=c17 -Os -flto"; do
  platform "gcc $flags" "" "" gcc $flags $plain $small $source
done
platform "gcc, sanitizers" "" "" gcc -std=c99 -O1 -g -fsanitize=address,undefined $plain $small \
  $source
needs "memory sanitizer" clang && platform "clang, memory sanitizer" "" "" clang -O1 -g \
  -fsanitize=memory $plain $small $source
needs "C++" g++ && for flags in -std=c++11 -std=c++20; do
  platform "g++ $flags" "" "" g++ $flags -O2 -x c++ $plain $small $source
done
if [ "$all" ]; then
  for compiler in gcc-11 clang-13 clang-16 clang-19; do
    needs "$compiler" $compiler &&
      platform "$compiler" "" "" $compiler -std=c99 -O2 $plain $source -lm
  done
  needs "pcc" pcc && platform "pcc" "" "" pcc -O $plain $small $source
fi

# --- Linux on other processors, by qemu-user.
# emulated NAME TRIPLE EMULATOR REASON FLAGS..
emulated() {
  name=$1 gcc=$2-gcc emulator=$3 reason=$4
  shift 4
  needs "$name" "$gcc" "${emulator%% *}" || return 0
  works "$gcc" -static || { skip "$name" "no C library for $gcc"; return 0; }
  platform "$name" "$reason" "$emulator" "$gcc" -static -O2 "$@" $source -lm
}
emulated "ARM 64" aarch64-linux-gnu qemu-aarch64 "" -std=c99 $plain
emulated "ARM 64, vectors" aarch64-linux-gnu "qemu-aarch64 -cpu max" \
  "vector kernels add in another order" -std=c99 -march=armv8.2-a+dotprod
emulated "ARM 32, hard float" arm-linux-gnueabihf qemu-arm "" -std=c99 $plain
emulated "RISC-V 64" riscv64-linux-gnu qemu-riscv64 "" -std=c99 $plain
# strict modes of this compiler compute floats in double
emulated "s390x, big-endian" s390x-linux-gnu qemu-s390x "" -std=gnu99 $plain
emulated "MIPS, big-endian, traps" mips-linux-gnu qemu-mips "" -std=c99 $plain \
  -fsanitize=alignment -fsanitize-undefined-trap-on-error
emulated "m68k, big-endian" m68k-linux-gnu qemu-m68k "registers of 80 bits" -std=c99 $plain

if [ "$all" ]; then
  emulated "PowerPC 64, big-endian" powerpc64-linux-gnu qemu-ppc64 "" -std=c99 $plain
  emulated "PowerPC 64" powerpc64le-linux-gnu qemu-ppc64le "" -std=c99 $plain
  emulated "PowerPC 32, big-endian" powerpc-linux-gnu qemu-ppc "" -std=c99 $plain
  emulated "SPARC 64, big-endian" sparc64-linux-gnu qemu-sparc64 "" -std=c99 $plain
  emulated "HP-PA, big-endian" hppa-linux-gnu qemu-hppa "" -std=c99 $plain
  emulated "MIPS 64, big-endian" mips64-linux-gnuabi64 qemu-mips64 "" -std=c99 $plain
  emulated "ARM 32, soft float" arm-linux-gnueabi qemu-arm "" -std=c99 $plain
  emulated "ARM 64, SVE" aarch64-linux-gnu "qemu-aarch64 -cpu max,sve256=on" \
    "vector kernels add in another order" -std=c99 -O3 -march=armv8.2-a+sve
fi

# --- Microcontrollers.
# cortex NAME MACHINE MHZ FLASH RAM FLAGS..
cortex() {
  name=$1 machine=$2 mhz=$3 flash=$4 ram=$5
  shift 5
  platform "$name" "" "qemu-system-arm -M $machine -nographic -semihosting-config
    enable=on,target=native -kernel" arm-none-eabi-gcc -std=gnu99 $plain -mthumb "$@" \
    -ffunction-sections -fdata-sections -Wl,--gc-sections -nostartfiles --specs=nano.specs \
    -T $mcu/cortex.ld -Wl,--defsym=FLASH_SIZE=$flash,--defsym=RAM_SIZE=$ram -DBOARD_MHZ=$mhz \
    $board $source $mcu/board_cortex.c
}
if needs "Cortex-M" arm-none-eabi-gcc qemu-system-arm; then
  if works arm-none-eabi-gcc --specs=nosys.specs; then
    cortex "Cortex-M0" microbit 16 256K 16K -Os -mcpu=cortex-m0
    cortex "Cortex-M4F" mps2-an386 25 4M 4M -O2 -mcpu=cortex-m4 -mfloat-abi=hard \
      -mfpu=fpv4-sp-d16
    cortex "Cortex-M55, MVE" mps3-an547 32 512K 512K -O3 -mcpu=cortex-m55 -mfloat-abi=hard
    if [ "$all" ]; then
      cortex "Cortex-M3" mps2-an385 25 4M 4M -O2 -mcpu=cortex-m3
      cortex "Cortex-M4, soft float" mps2-an386 25 4M 4M -O2 -mcpu=cortex-m4 -mfloat-abi=soft
      cortex "Cortex-M7" mps2-an500 25 4M 4M -O2 -mcpu=cortex-m7 -mfloat-abi=hard -mfpu=fpv5-d16
    fi
  else
    skip "Cortex-M" "no C library for arm-none-eabi-gcc"
  fi
fi
if needs "AVR" avr-gcc; then
  gcc -O2 $mcu/simrun.c -o "$build/simrun" -lsimavr -lelf 2>"$build/simrun.log" &&
    platform "AVR ATmega1284P" "" "$build/simrun atmega1284p" avr-gcc -mmcu=atmega1284p -std=gnu99 \
      -O2 $board $source $mcu/board_avr.c -lm || skip "AVR" "no libsimavr-dev or libelf-dev"
fi

# --- Windows.
export WINEPREFIX="$PWD/$build/wine" WINEDEBUG=-all WINEDLLOVERRIDES="mscoree=;mshtml="
if needs "Windows" x86_64-w64-mingw32-gcc wine; then
  barrier
  check "wine starts" wineboot -i
  barrier
  platform "Windows 64" "" wine x86_64-w64-mingw32-gcc -static -std=c99 -O2 $plain $source
fi

if needs "Microsoft's rules" clang-cl-14; then
  echo '#include "../../../tt.h"' >"$build/header.c"
  for language in "/TC" "/TP /std:c++14 /permissive-"; do
    for mode in "" /DTT_INFERENCE_ONLY; do
      check "clang-cl $language $mode, all warnings as errors" clang-cl-14 \
        --target=x86_64-pc-windows-msvc /nologo /Zs /W4 /WX -Wvla $language /DTT_IMPLEMENTATION \
        $mode -imsvc platforms/msvc "$build/header.c"
    done
  done
fi

# --- WebAssembly.
if needs "WebAssembly" clang wasm-ld node; then
  wasm="clang --target=wasm32-unknown-unknown -Iplatforms/freestanding -std=c99 -nostdlib"
  wasm="$wasm -ffreestanding -Wl,--no-entry"
  node="node --no-warnings"
  echo 'int main(void) { return 0; }' >"$build/wasi.c"
  platform "WebAssembly" "" "$node platforms/wasm.mjs" $wasm -O2 -fno-builtin $plain $board $source \
    platforms/board_wasm.c
  platform "WebAssembly, SIMD128" "" "$node platforms/wasm.mjs" $wasm -O3 -fno-builtin -msimd128 \
    $plain $board $source platforms/board_wasm.c
  if clang --target=wasm32-wasi "$build/wasi.c" -o "$build/wasi" 2>/dev/null; then
    platform "WASI" "" "$node platforms/wasi.mjs" clang --target=wasm32-wasi -std=c99 -O2 $plain \
      $source -lm
    platform "WASI, SIMD128 kernels" "vector kernels add in another order" \
      "$node platforms/wasi.mjs" clang --target=wasm32-wasi -std=c99 -O2 -msimd128 \
      -ffp-contract=off $source -lm
  else
    skip "WASI" "wasi-libc or libclang-rt-14-dev-wasm32 not installed"
  fi
fi

# --- Eight bits. SDCC's floats have no subnormal numbers and round in their own way; integers must
# be those of this machine. Few cases: a simulated second takes many.
z80() {
  some="$board -DPLATFORM_EVERY=29 -DBOARD_PORT=0xf7ff --std-c99 --opt-code-size --data-loc 0xC000"
  gcc -std=c99 $small -DPLATFORM_EVERY=29 $source -o "$build/some" &&
    "$build/some" >"$build/some.txt" || return 1
  sdcc -mz80 $some -c $source -o "$build/z80_platform.rel" &&
    sdcc -mz80 $some -c platforms/board_sdcc.c -o "$build/z80_board.rel" &&
    sdcc -mz80 $some "$build/z80_platform.rel" "$build/z80_board.rel" -o "$build/z80.ihx" || return 1
  row=$1
  begin=$(date +%s%N)
  printf 'run\nq\n' | timeout $limit sz80 -I 'if=rom[0xf7ff]' "$build/z80.ihx" >"$build/$row.output"
  write_row "Z80, one case of 29" sdcc some "subnormal numbers are zero"
  cat "$build/$row.output"
  [ -n "$tests" ] && [ "$(hash_of integer)" = "$(sed -n 's/^integer //p' "$build/some.txt")" ]
}
if needs "Z80" sdcc sz80; then
  rows=$((rows + 1))
  check "Z80" z80 $rows
fi
needs "STM8" sdcc && check "STM8, compiled only" sdcc -mstm8 --model-large --std-c99 $board \
  -c $source -o "$build/stm8.rel"

# --- The example on microcontrollers: the outputs of this machine, bit for bit.
check "make -C examples mcu" env IMAGES=60 make -s -C ../examples mcu
barrier

table
for size in small whole; do
  check "all $size programs pass as many tests" agree 4 $size
done
check "integer results have one hash" agree 5 any
for size in small whole; do
  check "float results of all $size programs have one hash" agree 6 $size
done
check "double results have one hash" agree 7 any
finish
