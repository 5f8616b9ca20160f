# What the forward pass takes on a Cortex-M0: bytes of code, data and stack, against their limits.
. "$(dirname "$0")/common.sh"
arm=${ARM:-arm-none-eabi-}
have python3 || { skip python3 "not installed"; echo "size: 0 passed, 1 failed"; exit 1; }
have "${arm}gcc" || { skip "${arm}gcc" "not installed"; echo "size: 0 passed, 0 failed"; exit 0; }

# program NAME CALLS: an object and an image that call these functions and nothing else. What they
# are given is unknown, so that nothing can be worked out beforehand.
program() {
  cat >"$build/$1.c" <<END
#define TT_IMPLEMENTATION
#define TT_INFERENCE_ONLY
#include "tt.h"
extern void *p;
extern tt_status status;
int main(void) {
  $2
  return 0;
}
END
  echo 'void *p; int status; void _exit(int s) { for (;;) (void)s; }' >"$build/$1_rest.c"
  "${arm}gcc" -std=c99 -mcpu=cortex-m0 -mthumb -Os -Wall -ffunction-sections -fdata-sections \
    -fcallgraph-info=su -I.. -c "$build/$1.c" -o "$build/$1.o" &&
    "${arm}gcc" -mcpu=cortex-m0 -mthumb -Os -c "$build/$1_rest.c" -o "$build/$1_rest.o" &&
    "${arm}gcc" -mcpu=cortex-m0 -mthumb -nostartfiles -Wl,--gc-sections -Wl,-e,main \
      "$build/$1.o" "$build/$1_rest.o" -o "$build/$1.elf" &&
    "${arm}nm" -S "$build/$1.elf" >"$build/$1.nm"
}

float='status = tt_apply(p, p, 1, p, p, 1);'
integer='status = tt_integer_apply(p, p, p, 1, p, p, 1);'
dynamic='status = tt_integer_apply_f32(p, p, p, 1, p, p, 1);'
rows='status = tt_rows(p, p, 1, p, p, 1);'
check "float" program float "$float"
check "integers" program integer "$integer"
check "both" program both "$float $integer"
check "integers with dynamic scales" program dynamic "$dynamic"
check "rows of a matrix" program rows "$rows"
barrier
for name in float integer both dynamic rows; do python3 size.py figures "$build/$name"; done
measure() { python3 size.py "$1" "$build/both" "$2"; }
check "float and integers together take at most 4096 bytes of code" measure code 4096
check "no data" measure data 0
check "at most 256 bytes of stack, library routines apart" measure stack 256
check "no recursion" measure recursion 0
check "no routine of double, no allocation, no libm" measure foreign 0
check "no division in the loops over numbers" measure division 0
finish
