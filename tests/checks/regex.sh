# The regular expressions of ttc against those of POSIX.
. "$(dirname "$0")/common.sh"
warnings="-Wall -Wextra -pedantic -Wconversion -Wsign-conversion -Wshadow -Werror"
for compiler in gcc clang; do
  have $compiler || { skip $compiler "not installed"; continue; }
  check "$compiler" $compiler -std=c99 $warnings -O2 ttc_regex.c -o "$build/$compiler"
  barrier
  check "built by $compiler" run_tests "$build/$compiler"
done
finish
