# What the object file shows to a linker: only tt_* names, no writable data, and for inference
# nothing but the four memory functions and no arithmetic in double.
. "$(dirname "$0")/common.sh"
have nm || { skip nm "not installed"; echo "symbols: 0 passed, 1 failed"; exit 1; }

echo '#include "../../../tt.h"' >"$build/header.c"
echo '#include "../../../tt.h"
int main(void) { return tt_status_string(TT_OK) == NULL; }' >"$build/user.c"

# object NAME COMPILER FLAGS..: position-dependent, so that constant tables of addresses stay
# read-only
object() {
  object=$build/$1.o
  shift
  "$@" -O2 -fno-pie -fno-stack-protector -c "${source:-$build/header.c}" -o "$object"
}

# Prints what is wrong; good if that is nothing.
nothing() {
  wrong=$(cat)
  [ -z "$wrong" ] || { printf '%s\n' "$wrong"; return 1; }
}

only_tt()       { nm -g --defined-only "$object" | awk '$3 !~ /^tt_[a-z0-9]/' | nothing; }
none_but_main() { nm -g --defined-only "$object" | awk '$3 != "main"' | nothing; }
no_data()       { nm "$object" | awk '$2 ~ /^[DdBbCGgSsVv]$/' | nothing; }
declared()      { sed -n 's/^TTDEF [^(]*[ *]\(tt_[a-z0-9_]*\)(.*/\1/p' ../tt.h | sort -u; }
all_defined() {
  nm -g --defined-only "$object" | awk '{ print $3 }' | sort >"$object.defined"
  declared >"$object.declared"
  diff "$object.declared" "$object.defined"
}
no_libraries()  { nm -u "$object" | awk '$2 !~ /^(memcpy|memset|memmove|memcmp)$/' | nothing; }

# Soft-float targets call a function for each operation, so double arithmetic shows by name.
no_double() {
  nm -u "$object" |
    awk '$2 ~ /df|__aeabi_(d|cd|f2d|i2d|ui2d|l2d|ul2d)|alloc|free|printf|sqrt|exp|log/' | nothing
}

# Each of these is one check: build an object and ask one question about it.
ask() { question=$1; shift; object "$@" && [ -s "$object" ] && $question; }
ask_user() { source=$build/user.c; ask "$@"; }

for compiler in gcc clang; do
  have $compiler || { skip $compiler "not installed"; continue; }
  check "$compiler: only tt_ names are visible" \
    ask only_tt a-$compiler $compiler -DTT_IMPLEMENTATION
  check "$compiler: every declared function is defined" \
    ask all_defined b-$compiler $compiler -DTT_IMPLEMENTATION
  check "$compiler: no writable data" \
    ask no_data c-$compiler $compiler -DTT_IMPLEMENTATION
  check "$compiler: nothing visible with TT_STATIC" \
    ask_user none_but_main d-$compiler $compiler -DTT_IMPLEMENTATION -DTT_STATIC
  check "$compiler: no writable data with TT_STATIC" \
    ask_user no_data e-$compiler $compiler -DTT_IMPLEMENTATION -DTT_STATIC
  inference="-DTT_IMPLEMENTATION -DTT_INFERENCE_ONLY"
  check "$compiler: inference: only tt_ names" \
    ask only_tt f-$compiler $compiler $inference
  check "$compiler: inference: only memory functions are needed" \
    ask no_libraries g-$compiler $compiler $inference
  check "$compiler: inference: no writable data" \
    ask no_data h-$compiler $compiler $inference
done

soft="-m32 -msoft-float -mno-sse -mno-80387"
if works gcc -m32; then
  check "soft float, gcc -m32: no double in inference" ask no_double s-gcc gcc $soft $inference
else
  skip "gcc -m32" "gcc-12-multilib not installed"
fi
if have arm-none-eabi-gcc; then
  check "soft float, Cortex-M0: no double in inference" \
    ask no_double s-arm arm-none-eabi-gcc -mcpu=cortex-m0 -mthumb -mfloat-abi=soft $inference
else
  skip arm-none-eabi-gcc "not installed"
fi
finish
