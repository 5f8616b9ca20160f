# Lines and branches of tt.h that the default tests reach, per section, and every missed branch by
# line.
#   COVERAGE_LINES, COVERAGE_BRANCHES   least percentages
. "$(dirname "$0")/common.sh"
have gcc && have gcov || { skip gcov "not installed"; exit 0; }
have python3 || { skip python3 "not installed"; exit 0; }
cd "$build" || exit 1
tests=
fail() { cat run.log; echo "coverage: 0 passed, 1 failed"; exit 1; }
gcc -O0 --coverage ../../all.c -o all -lm >run.log 2>&1 || fail
run_tests ./all ${SECTIONS:-} >tests.log || { tail -n 20 tests.log; tests=failed; }
gcov --json-format --branch-probabilities --branch-counts ./*.gcda >run.log 2>&1 || fail
python3 ../../coverage.py ./*.gcov.json.gz "${COVERAGE_LINES:-97}" "${COVERAGE_BRANCHES:-94}" &&
  [ -z "$tests" ]
