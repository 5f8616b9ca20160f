# Static analyzers over the implementation, and a limit for the stack of every function.
#   STACK            bytes of stack that one function may use; offline work holds the
# descriptions of
#                    all cores of a train at once
#   STACK_INFERENCE  the same for what runs on a device
. "$(dirname "$0")/common.sh"
stack=${STACK:-36864}
stack_inference=${STACK_INFERENCE:-1024}
echo '#define TT_IMPLEMENTATION
#include "../../../tt.h"' >"$build/header.c"

noise=core.NonNullParamChecker,core.NullDereference,core.CallAndMessage,core.DivideZero
noise=$noise,core.UndefinedBinaryOperatorResult,core.uninitialized,unix.cstring.NullArg
if have clang; then
  # Of functions in headers clang looks at none unless told to. Left out are reports that do not see
  # that a failed status stops all that follows, or that an order is at least 1; numbers that were
  # never set are for the memory sanitizer and valgrind.
  check "clang --analyze" clang --analyze -Xclang -analyzer-werror -Xclang -analyzer-output=text \
    -Xclang -analyzer-opt-analyze-headers -Xclang -analyzer-disable-checker -Xclang "$noise" \
    -std=c99 "$build/header.c"
else
  skip "clang --analyze" "not installed"
fi

if have gcc; then
  # Left out: leaks and NULL dereferences. Both reports come from the pool of temporary memory,
  # which keeps its blocks in a chain and its failure in a flag that numerical code tests once; the
  # analyzer follows neither. Valgrind and the tests that fail every single allocation do.
  # Of all of tt.h it takes some five minutes: only under ANALYZE=all.
  for part in -DTT_INFERENCE_ONLY ${ANALYZE:+-DTT_NO_SIMD}; do
    check "gcc -fanalyzer $part" gcc -std=c99 -O1 -fanalyzer -Wno-analyzer-malloc-leak $part \
      -Wno-analyzer-null-dereference -Werror -c "$build/header.c" -o /dev/null
  done
  for level in -O0 -O2; do
    check "at most $stack bytes of stack per function, $level" \
      gcc -std=c99 $level -Wframe-larger-than=$stack -Wvla -Walloca -Werror \
      -c "$build/header.c" -o /dev/null
    check "at most $stack_inference bytes per function for inference, $level" \
      gcc -std=c99 $level -DTT_INFERENCE_ONLY -Wframe-larger-than=$stack_inference -Werror \
      -c "$build/header.c" -o /dev/null
  done
else
  skip "gcc -fanalyzer" "not installed"
fi

# Left out: style opinions (no enable=style), unused functions (a library has them), and
#   missingIncludeSystem   cppcheck brings its own knowledge of the C library
#   normalCheckLevelMaxBranches, toomanyconfigs   remarks about cppcheck, not about the code
#   arrayIndexOutOfBoundsCond   reads a loop bound `order` as if it could exceed TT_MAX_ORDER
#   uninitStructMember          does not follow outputs that are set exactly where a status is TT_OK
#   duplicateAssignExpression   two sizes may start from the same value
if have cppcheck; then
  check cppcheck cppcheck --quiet --error-exitcode=1 --std=c99 --language=c --inline-suppr \
    --enable=warning,performance,portability --suppress=missingIncludeSystem \
    --suppress=normalCheckLevelMaxBranches --suppress=toomanyconfigs \
    --suppress=arrayIndexOutOfBoundsCond --suppress=uninitStructMember \
    --suppress=duplicateAssignExpression -DTT_IMPLEMENTATION --force "$build/header.c"
else
  skip cppcheck "not installed"
fi
barrier

if have gcc; then
  gcc -std=c99 -O2 -fstack-usage -c "$build/header.c" -o "$build/header.o"
  echo "largest stack frames at -O2 (bytes, function):"
  sort -t "$(printf '\t')" -k 2 -n -r "$build"/*.su | head -n 5 |
    awk -F '\t' '{ n = split($1, part, ":"); printf "  %6d %s\n", $2, part[n] }'
fi
finish
