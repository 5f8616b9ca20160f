# Every combination of macros compiles; a pairwise set of them runs the default tests; inference
# from constant memory; OpenMP changes no bit; other processors.
#   QUICK_SECTIONS     sections that run where arithmetic is loose
#   EMULATED_SECTIONS  the same without the two longest, whose plain C knows nothing of a processor
#   MOST_SECTIONS      all but the longest, which two of the configurations run
. "$(dirname "$0")/common.sh"
quick=${QUICK_SECTIONS:-config number random gemm qr eigen shape train apply file}
emulated=${EMULATED_SECTIONS:-config number random qr shape train apply file}
most=${MOST_SECTIONS:-config number random gemm qr svd eigen shape train round entropy quantize \
  apply integer export file inputs}

# --- 1. Every combination compiles, without a warning.
echo '#include "../../../tt.h"' >"$build/header.c"
combinations() { # of one group, all in one check: COMPILER BASE_FLAGS..
  for static in "" "-DTT_STATIC" "-DTT_STATIC -DTT_MAX_ORDER=20"; do
    for stdio in "" -DTT_NO_STDIO; do
      for memory in "" "-DTT_MALLOC=my_malloc -DTT_FREE=my_free -include $build/memory.h"; do
        for simd in "" -DTT_NO_SIMD; do
          set_of="$static $stdio $memory $simd"
          "$@" $set_of -Wall -Wextra -Werror -fsyntax-only "$build/header.c" || return 1
        done
      done
    done
  done
}
cat >"$build/memory.h" <<'END'
#include <stddef.h>
void *my_malloc(size_t size);
void my_free(void *block);
END
for compiler in gcc clang; do
  have $compiler || { skip $compiler "not installed"; continue; }
  for inference in "" -DTT_INFERENCE_ONLY; do
    for openmp in "" -fopenmp; do
      works $compiler $openmp || { skip "$compiler -fopenmp" "no OpenMP runtime"; continue; }
      check "$compiler $inference $openmp: every combination" \
        combinations $compiler -std=c99 -DTT_IMPLEMENTATION $inference $openmp
      if echo '#include <cblas.h>' | $compiler -E - >/dev/null 2>&1; then
        check "$compiler $inference $openmp TT_USE_CBLAS: every combination" \
          combinations $compiler -std=c99 -DTT_IMPLEMENTATION -DTT_USE_CBLAS $inference $openmp
      else
        skip TT_USE_CBLAS "no cblas.h"
      fi
    done
  done
done
barrier

# --- 2. A pairwise set runs the tests.
# runs FLAGS.. -- LIBRARIES.. -- SECTIONS..
runs() {
  name=$build/$(echo "$*" | cksum | tr ' ' '-')
  flags= libraries=
  while [ "$1" != -- ]; do flags="$flags $1"; shift; done
  shift
  while [ "$1" != -- ]; do libraries="$libraries $1"; shift; done
  shift
  $flags all.c -o "$name" $libraries -lm && run_tests $RUNNER "$name" "$@"
}
cat >"$build/counting.h" <<'END'
#include <stdlib.h>
static void *counting_malloc(size_t size) { return malloc(size); }
static void counting_free(void *block) { free(block); }
END
counting="-include $build/counting.h -DTT_MALLOC=counting_malloc -DTT_FREE=counting_free"
blas=-lopenblas
works gcc $blas || { blas=; skip TT_USE_CBLAS "no OpenBLAS"; }
cblas=${blas:+-DTT_USE_CBLAS}
twenty="-DTT_STATIC -DTT_MAX_ORDER=20"
# Waiting threads sleep: spinning ones take minutes where other work keeps the cores busy.
export OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=passive

run() { check "runs: $*" runs "$@"; }
run gcc -O3 -DTT_STATIC $counting -- --
run gcc -O3 -march=native -ffp-contract=fast -fopenmp -- --
run gcc -O2 $cblas -fopenmp -- $blas -- $most
run gcc -O2 $twenty -DTT_NO_STDIO -fopenmp $counting -- -- $most
run gcc -O2 $twenty $cblas -- $blas -- $most
run gcc -O1 -DTT_STATIC -DTT_NO_STDIO $cblas $counting -fopenmp -- $blas -- $most
run gcc -O2 -funsigned-char -DTT_NO_SIMD -- -- $quick
run gcc -O0 -DTT_NO_STDIO -- -- $quick
# -ffast-math switches subnormal numbers off for the whole process: not where they are tested.
run gcc -O2 -ffast-math -fno-finite-math-only -- -- config random gemm qr shape train apply
if have clang; then
  run clang -O2 $twenty $counting -- -- $most
  run clang -O3 -DTT_STATIC -DTT_NO_STDIO $cblas -- $blas -- $most
fi
barrier

# --- 3. Inference from a constant initialiser, and OpenMP.
inference() {
  program=$build/inference_$1
  "$@" -Wall -Wextra -Werror inference.c -o "$program" && run_tests "$program"
}
check "inference from constant memory, gcc" inference gcc -std=c99 -O2
have clang && check "inference from constant memory, clang" inference clang -std=c99 -Os
have g++ && check "inference from constant memory, g++" inference g++ -std=c++11 -O2 -x c++

threads() {
  gcc -O2 threads.c -o "$build/threads_none" -lm || return 1
  gcc -O2 -fopenmp threads.c -o "$build/threads" -lm || return 1
  "$build/threads_none" >"$build/threads.0" || return 1
  for count in 1 2 3; do
    OMP_NUM_THREADS=$count "$build/threads" >"$build/threads.$count" || return 1
    cmp "$build/threads.0" "$build/threads.$count" || return 1
  done
  cat "$build/threads.0"
}
if works gcc -fopenmp; then check "1, 2, 3 threads and none: the same bits" threads; fi

# --- 4. Other processors.
other() { # WHAT RUNNER SECTIONS COMPILER FLAGS..
  what=$1 RUNNER=$2 sections=$3
  shift 3
  if works "$@" && { [ -z "$RUNNER" ] || have ${RUNNER%% *}; }; then
    run "$@" -- -- $sections
  else
    skip "$what" "$1 or ${RUNNER:-its libraries} not installed"
  fi
  RUNNER=
}
other "32 bits with x87" "" "$quick" gcc -m32 -O2
other "ARM 64" qemu-aarch64 "$emulated" aarch64-linux-gnu-gcc -O2 -static
other "big-endian s390x" qemu-s390x "$emulated" s390x-linux-gnu-gcc -O2 -static
other "32 bits with SSE" "" "$quick" gcc -m32 -msse2 -mfpmath=sse -O2
finish
