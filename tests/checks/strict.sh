# The header alone, in every mode and at every language level, with all warnings as errors.
. "$(dirname "$0")/common.sh"

warnings="-Wall -Wextra -pedantic -Wconversion -Wsign-conversion -Wshadow -Wdouble-promotion"
warnings="$warnings -Werror"
echo '#include "../../../tt.h"' >"$build/header.c"

# compile COMPILER -std=.. FLAGS..: in each mode. Warnings that need the optimiser are the same at
# every language level: one level in C and one in C++ is compiled with -O1, the others are parsed.
compile() {
  compiler=$1
  shift
  for mode in "" "-DTT_IMPLEMENTATION" "-DTT_IMPLEMENTATION -DTT_STATIC" \
              "-DTT_IMPLEMENTATION -DTT_NO_STDIO" "-DTT_INFERENCE_ONLY" \
              "-DTT_IMPLEMENTATION -DTT_INFERENCE_ONLY"; do
    check "$compiler $* ${mode:-declarations only}" \
      $compiler $warnings "$@" $mode -c "$build/header.c" -o /dev/null
  done
}

for compiler in gcc clang; do
  have $compiler || { skip $compiler "not installed"; continue; }
  compile $compiler -std=c99 -Wstrict-prototypes -O1
  for std in c11 c17; do compile $compiler -std=$std -Wstrict-prototypes -fsyntax-only; done
  echo "int main() { return 0; }" >"$build/works.cpp"
  $compiler -x c++ -fsyntax-only "$build/works.cpp" 2>/dev/null ||
    { skip "$compiler -x c++" "not installed"; continue; }
  for std in c++11 c++14 c++17; do compile $compiler -std=$std -x c++ -fsyntax-only; done
  compile $compiler -std=c++20 -x c++ -O1
done

if have nvcc; then
  for mode in "" -DTT_IMPLEMENTATION -DTT_INFERENCE_ONLY; do
    check "nvcc -x cu ${mode:-declarations only}" \
      nvcc -x cu -Xcompiler -Wall,-Wextra --Werror all-warnings $mode -c "$build/header.c" \
      -o "$build/header$mode.o"
  done
else
  skip nvcc "not installed"
fi

if have tcc; then
  for mode in "" -DTT_IMPLEMENTATION -DTT_INFERENCE_ONLY; do
    check "tcc ${mode:-declarations only}" \
      tcc -Wall -Werror $mode -c "$build/header.c" -o "$build/tcc$mode.o"
  done
else
  skip tcc "not installed"
fi

# The tests themselves, with the warnings that matter in tests.
for compiler in gcc clang; do
  have $compiler || continue
  check "$compiler all.c" \
    $compiler -std=c99 -Wall -Wextra -pedantic -Werror -O1 -c all.c -o /dev/null
done
finish
