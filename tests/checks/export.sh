# `ttc export-c`: headers of layers in every storage format compile in C and C++ with all warnings as
# errors, have the bytes that they say, and compute the very bits of the layer in the file.
. "$(dirname "$0")/common.sh"
cc=${CC:-cc}
warnings="-Wall -Wextra -pedantic -Wconversion -Wshadow -Wdouble-promotion -Werror -O1"
ttc=${TTC:-../examples/build/ttc}
[ -n "$TTC" ] || make -s -C ../examples build/ttc || exit 1

implementation() { echo '#define TT_IMPLEMENTATION'; echo '#include "tt.h"'; }
prepare() {
  implementation >"$build/tt.c" &&
    $cc -std=c99 -O1 -I.. -c "$build/tt.c" -o "$build/full.o" &&
    $cc -std=c99 -O1 -I.. -DTT_INFERENCE_ONLY -c "$build/tt.c" -o "$build/small.o" &&
    $cc -std=c99 -O1 ttc_export.c -o "$build/make" -lm && "$build/make" "$build/all.safetensors"
}

# program LAYER COMPILER OBJECT FLAGS..: the test program around one header
program() {
  layer=$1 compiler=$2 object=$3 folder=$build/$4
  shift 4
  name=$(sed -n 's/^static const tt_matrix \([^ ]*\) = {$/\1/p' "$folder/layer.h")
  upper=$(sed -n 's/^#define \(.*\)_MACS .*/\1/p' "$folder/layer.h")
  arrays=$(sed -n '/_SELF_TEST/q; s/.* static const [a-z0-9_]* \([^[]*\)\[.*/sizeof \1 +/p' \
    "$folder/layer.h" | tr '\n' ' ')
  $compiler $warnings "$@" -I.. -I"$folder" -DHEADER='"layer.h"' -DLAYER="$name" -DUPPER="$upper" \
    -D"${upper}_SELF_TEST" -DARRAYS="$arrays 0" -c ttc_export.c -o "$folder/$object.o" &&
    $compiler "$folder/$object.o" "$build/$object.o" -o "$folder/$object" -lm &&
    "$folder/$object" "$build/all.safetensors" "$layer"
}

# exported LAYER FOLDER: the header, in C; in C++; and where nothing but the forward pass is there
exported() {
  mkdir -p "$build/$2"
  $ttc export-c "$build/all.safetensors" "$1" -o "$build/$2/layer.h" || return 1
  program "$1" "$cc" full "$2" -std=c99 || return 1
  case $1 in *f64*) return 0 ;; esac
  program "$1" "$cc" small "$2" -std=c99 -DTT_INFERENCE_ONLY
}

# In C++ as well; an F64 layer says why it cannot run without double.
cplusplus() { program "$1" c++ full "$2" -std=c++11 -x c++; }
refused() {
  $cc -std=c99 -I.. -DTT_INFERENCE_ONLY -fsyntax-only -include "$build/$1/layer.h" -x c /dev/null \
    2>&1 | grep -q 'knows no F64'
}

check "trains are made" prepare
barrier
number=0
for layer in $("$build/make" --names); do
  number=$((number + 1))
  check "$layer" exported "$layer" $number
  barrier
done
finish
