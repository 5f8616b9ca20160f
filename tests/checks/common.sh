# Shared by the scripts of this folder (POSIX sh): checks that count, two at a time.
#   check WHAT COMMAND..   starts COMMAND; it passes if it exits with 0
#   barrier                waits for all checks started so far and prints those that failed
#   finish                 barrier, closing line, exit status
# Scripts run in tests/, and everything they make stays below tests/build/.
target=$(basename "$0" .sh)
cd "$(dirname "$0")/.." || exit 1
build=build/$target
rm -rf "$build"
mkdir -p "$build" || exit 1

jobs=${JOBS:-2}                # checks at the same time
started=0 reported=0 passed=0 failed=0

have() { command -v "$1" >/dev/null 2>&1; }
skip() { echo "skipped: $1 ($2)"; }

check() {
  started=$((started + 1))
  echo "$1" >"$build/$started.what"
  shift
  (
    "$@" >"$build/$started.log" 2>&1 </dev/null
    echo $? >"$build/$started.status"
  ) &
  [ $((started % jobs)) -eq 0 ] && barrier
  return 0
}

barrier() {
  wait
  while [ "$reported" -lt "$started" ]; do
    reported=$((reported + 1))
    if [ "$(cat "$build/$reported.status" 2>/dev/null)" = 0 ]; then
      passed=$((passed + 1))
      [ -z "$VERBOSE" ] || echo "$target: good: $(cat "$build/$reported.what")"
    else
      failed=$((failed + 1))
      echo "$target: FAILED: $(cat "$build/$reported.what")"
      tail -n 30 "$build/$reported.log" | sed 's/^/    /'
    fi
  done
}

finish() {
  barrier
  echo "$target: $passed passed, $failed failed"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}

# run_tests COMMAND..: a test program is good if it exits with 0 and its last line counts at least
# one pass and no failure. (Some emulators give exit status 0 and no output for a program they
# cannot run.)
run_tests() {
  run_output=$("$@" 2>&1)
  run_status=$?
  printf '%s\n' "$run_output"
  [ $run_status -eq 0 ] &&
    printf '%s\n' "$run_output" | tail -n 1 | grep -q '^[1-9][0-9]* passed, 0 failed$'
}

# Can COMPILER with these flags build and link a program?  works gcc -m32
works() {
  have "$1" && echo 'int main(void) { return 0; }' >"$build/works.c" &&
    "$@" "$build/works.c" -o "$build/works" >/dev/null 2>&1
}
