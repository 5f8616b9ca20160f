# The default tests under the sanitizers of gcc and clang, and under valgrind. The long sections are
# shared out between the two compilers, the others run under both. SECTIONS: only these, under all.
#   VALGRIND_SECTIONS  sections for valgrind, which is some 30 times slower than the processor
. "$(dirname "$0")/common.sh"

valgrind_sections=${VALGRIND_SECTIONS:-config number random shape round apply export inputs}
# The memory sanitizer takes minutes for the long sections, whose code the shorter ones call too.
brief="config number random gemm qr eigen shape train round entropy apply file inputs"
memory_sections="$brief quantize refit plan"
export ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=1
export UBSAN_OPTIONS=print_stacktrace=1

# sanitized COMPILER FLAGS..
sanitized() {
  name=$(echo "$*" | tr -c 'a-z\n' '_')
  "$@" -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all all.c -o "$build/$name" -lm &&
    run_tests "$build/$name" $sections
}

for compiler in gcc clang; do
  case $compiler in
    gcc) sections=${SECTIONS:-$brief svd compress quantize} ;;
    *) sections=${SECTIONS:-$brief integer export refit gradient plan} ;;
  esac
  if works $compiler -fsanitize=address,undefined; then
    check "$compiler address and undefined" sanitized $compiler -fsanitize=address,undefined
  else
    skip "$compiler -fsanitize=address,undefined" "not installed"
  fi
done

if works clang -fsanitize=memory; then
  sections=${SECTIONS:-$memory_sections}
  check "clang memory: $sections" sanitized clang -fsanitize=memory
else
  skip "clang -fsanitize=memory" "not installed"
fi

under_valgrind() {
  cc -O1 -g all.c -o "$build/plain" -lm &&
    run_tests valgrind -q --error-exitcode=9 --leak-check=full \
      --errors-for-leak-kinds=definite,indirect,possible "$build/plain" $valgrind_sections
}
if have valgrind; then
  check "valgrind: $valgrind_sections" under_valgrind
else
  skip valgrind "not installed"
fi
finish
