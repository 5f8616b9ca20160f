# The whole test suite on a processor of the other byte order, emulated: section by section, the
# longest take minutes.
. "$(dirname "$0")/common.sh"
compiler=s390x-linux-gnu-gcc emulator=qemu-s390x
if works $compiler -static && have $emulator; then
  $compiler -O2 -static all.c -o "$build/all" -lm || exit 1
  for section in $(sed -n 's/^    {"\([a-z]*\)", test_.*},$/\1/p' all.c); do
    check "$section" run_tests $emulator "$build/all" "$section"
  done
else
  skip "big-endian s390x" "$compiler or $emulator not installed"
  check "nothing to do" true
fi
finish
