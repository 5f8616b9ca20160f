# Whatever reads bytes, under libFuzzer; then the committed corpus once more without it.
#   FUZZ_SECONDS  how long
. "$(dirname "$0")/common.sh"
seconds=${FUZZ_SECONDS:-60}
flags="-g -O1 -fno-sanitize-recover=all"

# The fuzzer adds what it finds to the first folder: a copy, so that the tree stays as it is.
fuzz() {
  mkdir -p "$build/corpus" "$build/crashes"
  clang $flags -fsanitize=fuzzer,address,undefined fuzz_file.c -o "$build/fuzz" -lm || return 1
  dictionary=
  [ -f fuzz_file.dict ] && dictionary=-dict=fuzz_file.dict
  "$build/fuzz" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 \
    -print_final_stats=1 $dictionary -artifact_prefix="$build/crashes/" "$build/corpus" corpus
}
replay() {
  cc $flags $1 -DFUZZ_REPLAY fuzz_file.c -o "$build/replay" -lm && "$build/replay" corpus/*
}

sanitizers=-fsanitize=address,undefined
works cc $sanitizers || sanitizers=
check "corpus, once through" replay $sanitizers
if have clang && clang -fsanitize=fuzzer -x c - -o "$build/works" >/dev/null 2>&1 <<'END'
int LLVMFuzzerTestOneInput(const unsigned char *data, unsigned long size);
int LLVMFuzzerTestOneInput(const unsigned char *data, unsigned long size) { return !data && size; }
END
then
  check "libFuzzer, $seconds s" fuzz
  barrier
  grep -h -E 'number_of_executed_units|new_units_added' "$build"/*.log
else
  skip libFuzzer "clang or libclang-rt not installed"
fi
finish
