# Lines and branches of tt.h that the default tests reach, per section, and every missed branch by
# line.
#   COVERAGE_LINES, COVERAGE_BRANCHES   least percentages
. "$(dirname "$0")/common.sh"
have gcc && have gcov || { skip gcov "not installed"; exit 0; }
have python3 || { skip python3 "not installed"; exit 0; }
cd "$build" || exit 1
fail() { cat ./*.log; echo "coverage: 0 passed, 1 failed"; exit 1; }

# Two processes, each with about half of the work, add their counts to the same files.
half="gemm compress"
rest=
for section in $(sed -n 's/^ *{"\(.*\)", test_.*/\1/p' ../../all.c); do
  case " $half " in *" $section "*) ;; *) rest="$rest $section" ;; esac
done
gcc -Og -fno-inline --coverage ../../all.c -o all -lm >build.log 2>&1 || fail
# shellcheck disable=SC2086  # lists of words
{ run_tests ./all $half >half.log & run_tests ./all $rest >rest.log; } || fail
wait $! || fail
gcov --json-format --branch-probabilities --branch-counts ./*.gcda >gcov.log 2>&1 || fail
python3 ../../coverage.py ./*.gcov.json.gz "${COVERAGE_LINES:-97}" "${COVERAGE_BRANCHES:-94}"
