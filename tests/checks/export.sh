# `ttc export-c`: headers of layers in every storage format compile in C and C++ with all warnings
# as errors, have the bytes that they say, and compute the very bits of the layer in the file.
. "$(dirname "$0")/common.sh"
cc=${CC:-cc} cxx=${CXX:-c++}
warnings="-Wall -Wextra -pedantic -Wconversion -Wshadow -Wdouble-promotion -Werror -O1"
ttc=../examples/build/ttc file=$build/all.safetensors
flash='-DTT_FLASH_BYTE(p)=(*(const unsigned char*)(p))'

prepare() {
  printf '#define TT_IMPLEMENTATION\n#include "tt.h"\n' >"$build/tt.c" &&
    $cc -O1 -I.. -c "$build/tt.c" -o "$build/full.o" &&
    $cc -O1 -I.. -DTT_INFERENCE_ONLY -c "$build/tt.c" -o "$build/small.o" &&
    $cc -O1 -I.. -DTT_INFERENCE_ONLY "$flash" -c "$build/tt.c" -o "$build/flash.o" &&
    $cc -O1 ttc_export.c -o "$build/make" -lm && "$build/make" "$file" >"$build/names" &&
    "$build/make" "$file" "$build" >"$build/plans"
}

# program FOLDER LAYER OBJECT COMPILER..: the test program around one header, with this tt.h
program() {
  folder=$1 layer=$2 object=$3
  shift 3
  name=$(sed -n 's/^static const tt_matrix \([^ ]*\) = {$/\1/p' "$folder/layer.h")
  upper=$(sed -n 's/^#define \(.*\)_MACS .*/\1/p' "$folder/layer.h")
  arrays=$(sed -n '/_SELF_TEST/q; s/.* static const [a-z0-9_]* \([^[]*\)\[.*/sizeof \1 +/p' \
    "$folder/layer.h" | tr '\n' ' ')
  "$@" $warnings -I.. -I"$folder" -DHEADER='"layer.h"' -DLAYER="$name" -DUPPER="$upper" \
    -D"${upper}_SELF_TEST" -D"${upper}_INTEGER_SELF_TEST" -DARRAYS="$arrays 0" \
    -c ttc_export.c -o "$folder/test.o" &&
    $cc "$folder/test.o" "$build/$object.o" -o "$folder/test" -lm &&
    "$folder/test" "$file" "$layer"
}

# A layer in F64 says why it does not run without double.
refused() {
  ! $cc -I.. -DTT_INFERENCE_ONLY -fsyntax-only -x c "$1/layer.h" 2>"$1/log" &&
    grep -q 'knows no F64' "$1/log"
}

# exported LAYER FOLDER: the header in C, in C++, and where only the forward pass is there
exported() {
  mkdir -p "$2"
  $ttc export-c "$file" "$1" -o "$2/layer.h" && program "$2" "$1" full $cc -std=c99 || return 1
  ! have $cxx || program "$2" "$1" full $cxx -std=c++11 -x c++ || return 1
  case $1 in
    *.f64.*) refused "$2" ;;
    *) program "$2" "$1" small $cc -std=c99 -DTT_INFERENCE_ONLY ;;
  esac
}

# plan NAME FOLDER: a header with a plan, in the same builds, and where arrays are read byte by byte
plan() {
  mkdir -p "$2" && mv "$build/$1.h" "$2/layer.h" && program "$2" "$1" full $cc -std=c99 -DPLAN &&
    { ! have $cxx || program "$2" "$1" full $cxx -std=c++11 -x c++ -DPLAN; } &&
    program "$2" "$1" small $cc -std=c99 -DTT_INFERENCE_ONLY -DPLAN &&
    program "$2" "$1" flash $cc -std=c99 -DTT_INFERENCE_ONLY -DPLAN "$flash"
}

# status CODE COMMAND..
status() {
  wanted=$1
  shift
  "$@"
  [ $? -eq "$wanted" ]
}

have $cxx || skip $cxx "not installed"
check "ttc is built" make -s -C ../examples ttc
check "trains are made" prepare
barrier
number=0
while read -r layer; do
  number=$((number + 1))
  check "layer $layer" exported "$layer" "$build/layer$number"
done <"$build/names"
while read -r name; do check "plan $name" plan "$name" "$build/plan_$name"; done <"$build/plans"
barrier
check "nothing is overwritten" status 2 $ttc export-c "$file" dense.f32.0 -o "$build/layer1/layer.h"
check "unless -f says so" $ttc export-c "$file" dense.f32.0 -o "$build/layer1/layer.h" -f
check "never the input" status 2 $ttc export-c "$file" dense.f32.0 -o "$build/./all.safetensors" -f
check "no such layer" status 3 $ttc export-c "$file" fc9 -o "$build/none.h"
check "nothing is left of it" [ ! -e "$build/none.h" ]
finish
