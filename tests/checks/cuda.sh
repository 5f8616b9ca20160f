# tt_cuda.h in three levels. L0: nvcc compiles it for every target without a warning, without spills
# and without local memory. L1: its kernels run on the CPU (cudaemu.h), under sanitizers, in several
# orders of threads, and races are looked for; the PTX that nvcc makes of them is interpreted
# (ptx.h), under the same tests. L2: the same tests on a GPU, where one answers.
#   NVCC          the compiler of L0, L2 and PTX; found on the PATH or in /usr/local/cuda
#   CUDA_TARGETS  default "sm_80 sm_90"
#   CUDA_MUTANTS  1: also deletes each barrier of tt_cuda.h in turn, and swaps what tensor cores are
#                 given, and deletes each barrier of the PTX; each change must be noticed
# tt.h is not what is tested here: it is compiled once, without sanitizers, and linked.
. "$(dirname "$0")/common.sh"

nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
targets=${CUDA_TARGETS:-sm_80 sm_90}
flags="-std=gnu++14 -Wall -Wextra -Wno-unused-function -g -include cudaemu.h -DTEST_LINKS_TT"
library=$build/tt.o
test_names=$(grep -o '{"[a-z ]*", test_[a-z_]*}' test_cuda.cpp | grep -vc failures)
echo '#define TT_CUDA_IMPLEMENTATION
#include "../../../tt_cuda.h"' >"$build/header.cpp"
cp "$build/header.cpp" "$build/header.cu"
echo '#include "../../../tt_cuda.h"
int main(void) { return tt_cuda_apply_work_size(NULL, 1) != 0 || tt_cuda_last_native(NULL); }' \
  >"$build/user.c"

# ---- L0

# static_gate TARGET: what ptxas says about registers stays in $build/TARGET.txt
static_gate() {
  $nvcc -std=c++14 -arch="$1" --Werror all-warnings -Wmissing-launch-bounds \
    -Wdefault-stream-launch -Xptxas -v,--warn-on-spills,--warn-on-local-memory-usage,-Werror \
    -cubin "$build/header.cu" -o "$build/$1.cubin" >"$build/$1.txt" 2>&1 ||
    { cat "$build/$1.txt"; return 1; }
}
opcodes() { python3 cuda_sass.py "$build/$1.cubin"; }

# Kernel, registers and static shared memory of one target, a line each.
resources() {
  awk '/Compiling entry function/ { split($0, q, "\047"); name = q[2] }
       /Used [0-9]+ registers/ {
         registers = shared = 0
         for (i = 2; i <= NF; i++) {
           if ($i ~ /^registers/) registers = $(i - 1)
           if ($i ~ /^smem/) shared = $(i - 2)
         }
         match(name, /^_Z[0-9]+/)               # the mangled name: its length, then itself
         name = substr(name, RLENGTH + 1, substr(name, 3, RLENGTH - 2) + 0)
         print name, registers, shared }' "$build/$1.txt" | sort
}

# ---- L1

# emulated NAME COMPILER FLAGS..: builds both test programs
emulated() {
  name=$1
  shift
  "$@" $flags -DTT_CUDA_EMU -c cudaemu.cpp -o "$build/$name.o" &&
    for program in cudaemu cuda; do
      "$@" $flags -DTT_CUDA_EMU "test_$program.cpp" "$build/$name.o" "$library" \
        -o "$build/$program-$name" || return 1
    done
}
# The scheduler must not be instrumented.
emulated_races() {
  name=$1
  shift
  "$@" $flags -DEMU_TSAN -c cudaemu.cpp -o "$build/$name.o" &&
    for program in cudaemu cuda; do
      "$@" $flags -DEMU_TSAN -DTT_CUDA_EMU -fsanitize=thread "test_$program.cpp" "$build/$name.o" \
        "$library" -o "$build/$program-$name" -pthread || return 1
    done
}
# run NAME ORDER MODE: both programs
run() {
  EMU_ORDER=$2 run_tests "$build/cudaemu-$1" && EMU_ORDER=$2 run_tests "$build/cuda-$1" "$3"
}
finds_race() { # NAME RACE ORDER
  EMU_ORDER=$3 "$build/cudaemu-$1" race "$2" >"$build/race-$2-$3.log" 2>&1 && return 1
  grep -q 'WARNING: ThreadSanitizer: data race' "$build/race-$2-$3.log"
}
same_bits() { # LOGS..: all orders gave the same results
  [ $# -gt 1 ] && [ "$(cat "$@" | grep '^bits: ' | sort -u | wc -l)" -eq 1 ] &&
    [ "$(cat "$@" | grep -c '^bits: ')" -eq $# ]
}
c_users() {
  $1 -std=c99 -Wall -Wextra -pedantic -Wconversion -Werror -c "$build/user.c" -o "$build/user.o" &&
    $2 -std=c++14 -DTT_CUDA_EMU -include cudaemu.h -c "$build/header.cpp" -o "$build/impl.o" &&
    $2 -std=c++14 -c cudaemu.cpp -o "$build/emu.o" &&
    $2 "$build/user.o" "$build/impl.o" "$build/emu.o" "$library" -o "$build/user" -lm &&
    "$build/user"
}
# mutant NAME FILTER..: with tt_cuda.h changed so, the race checker or the results must complain.
mutant() {
  folder=$build/mutant-$1
  shift
  mkdir -p "$folder/tests"
  cp ../tt.h "$folder"
  cp test.h test_cuda.cpp cudaemu.h "$folder/tests"
  "$@" ../tt_cuda.h >"$folder/tt_cuda.h"
  cmp -s ../tt_cuda.h "$folder/tt_cuda.h" && return 1
  g++ $flags -O1 -DEMU_TSAN -DTT_CUDA_EMU -fsanitize=thread "$folder/tests/test_cuda.cpp" \
    "$build/gcc-races.o" "$library" -o "$folder/program" -pthread || return 1
  ! "$folder/program" races
}
without_barrier='/__syncthreads\(\);/ && ++k == n { sub(/__syncthreads\(\);/, "") } { print }'
# What only create, upload, download, free and compress may call stands outside of these sections.
no_forbidden_calls() {
  ! sed -n '/-* >>planner$/,/-* >>compress$/p' ../tt_cuda.h |
    grep -nE 'cuda(Malloc|Free|Memcpy|[A-Za-z]*Synchronize|GetLastError|Func|SetDevice)[A-Za-z]*\('
}

# ---- L1: PTX

# Both programs, and what nvcc makes of the kernels of the tests, for GPUs with tensor cores.
interpreter() {
  g++ -std=gnu++17 -O2 -Wall -Wextra -c ptx.cpp -o "$build/ptx.o" &&
    g++ -std=gnu++17 -O1 -Wall -Wextra -DTEST_LINKS_TT test_ptx.cpp "$build/ptx.o" "$library" \
      -o "$build/test-ptx" && run_tests "$build/test-ptx"
}
ptx() {
  $nvcc -std=c++14 -ptx -arch=sm_80 -diag-suppress 177 -x cu test_cuda.cpp \
    -o "$build/kernels.ptx" &&
    g++ $flags -O2 -DTT_CUDA_EMU -DEMU_PTX -c cudaemu.cpp -o "$build/emu-ptx.o" &&
    g++ $flags -O2 -DTT_CUDA_EMU -DEMU_PTX -c test_cuda.cpp -o "$build/cuda-ptx.o"
}
link_ptx() {
  g++ "$build/cuda-ptx.o" "$build/emu-ptx.o" "$build/ptx.o" "$library" -o "$build/cuda-ptx"
}
# interpret ORDER MODE
interpret() {
  EMU_PTX=$build/kernels.ptx EMU_ORDER=$1 run_tests "$build/cuda-ptx" "$2"
}
# Without fused products and tensor cores the text computes what the source says: bit for bit what
# the emulation computes. (Tests with NaN in their results are not among these: a GPU has its own.)
same_as_emulated() {
  $nvcc -std=c++14 -ptx -arch=sm_75 -fmad=false -diag-suppress 177 -x cu test_cuda.cpp \
    -o "$build/plain.ptx" || return 1
  for test in mma args tiles rows backward compress; do
    wanted=$("$build/cuda-gcc" quick $test | grep '^bits: ')
    got=$(EMU_PTX=$build/plain.ptx "$build/cuda-ptx" quick $test | grep '^bits: ')
    echo "$test: $wanted, PTX $got"
    [ -n "$got" ] && [ "$got" = "$wanted" ] || return 1
  done
}
# interpret_without NUMBER: without that barrier of the text, a kernel must be stopped
interpret_without() {
  awk -v n="$1" '/bar\.sync/ && ++k == n { next } { print }' "$build/kernels.ptx" >"$build/$1.ptx"
  EMU_PTX=$build/$1.ptx "$build/cuda-ptx" races
  status=$?
  rm "$build/$1.ptx"
  [ $status -ne 0 ]
}

on_gpu() {
  $nvcc -std=c++14 -O2 -arch=native -diag-suppress 177 -x cu test_cuda.cpp -o "$build/gpu" &&
    run_tests "$build/gpu" quick
}

${CC:-cc} -std=c99 -O1 -DTT_IMPLEMENTATION -x c -c ../tt.h -o "$library" || exit 1
for arch in $targets; do
  if have "$nvcc"; then
    check "nvcc $arch: no warnings, spills or local memory" static_gate "$arch"
  else
    skip "nvcc $arch" "not installed"
  fi
done
check "nothing that enqueues allocates or synchronises" no_forbidden_calls
if have gcc && have g++; then
  check "C99 user, C++ implementation" c_users gcc g++
  check "g++: warnings" g++ -std=c++14 -Wall -Wextra -pedantic -Wshadow -Wdouble-promotion -Werror \
    -DTT_CUDA_EMU -include cudaemu.h -c "$build/header.cpp" -o /dev/null
fi
# Two checks run at a time, so those of equal length stand side by side.
names=""
for name in gcc clang; do
  cxx=g++
  [ $name = clang ] && cxx=clang++
  if works $cxx -x c++; then names="$names $name"; else skip $cxx "not installed"; fi
done
compiler() { [ "$1" = gcc ] && echo g++ || echo clang++; }
for name in $names; do
  cxx=$(compiler "$name")
  if works "$cxx" -x c++ -fsanitize=address,undefined; then
    check "$cxx: builds with sanitizers" emulated "$name-sanitized" "$cxx" -O1 \
      -fsanitize=address,undefined -fno-sanitize-recover=all
  else
    skip "$cxx -fsanitize=address,undefined" "not installed"
  fi
done
for name in $names; do
  cxx=$(compiler "$name")
  if works "$cxx" -x c++ -fsanitize=thread; then
    check "$cxx: builds for races" emulated_races "$name-races" "$cxx" -O1
  else
    skip "$cxx -fsanitize=thread" "not installed"
  fi
done
for name in $names; do
  check "$name: builds" emulated "$name" "$(compiler "$name")" -O2
done
barrier
for name in $names; do
  order=0
  [ $name = clang ] && order=1
  [ -x "$build/cuda-$name-sanitized" ] &&
    check "$name, address and undefined, order $order" run $name-sanitized $order quick
done
bits=""
for order in 0 1 77; do
  for name in $names; do
    [ -x "$build/cuda-$name" ] || continue
    check "$name, order $order" run $name $order quick
    [ $name = gcc ] && bits="$bits $build/$started.log"
  done
done
barrier
[ -z "$bits" ] || check "the same bits in every order" same_bits $bits
for order in 0 1 77; do
  for name in $names; do
    [ -x "$build/cuda-$name-races" ] || continue
    [ $name = gcc ] || [ $order = 1 ] || continue
    check "$name, no races, order $order" run $name-races $order races
    for race in barrier second syncwarp global blocks; do
      check "$name finds the race '$race', order $order" finds_race $name-races $race $order
    done
  done
done
barrier

if works g++ -x c++ -std=gnu++17; then
  check "the interpreter of PTX" interpreter
  have "$nvcc" && check "PTX of the kernels" ptx
  barrier
  if ! have "$nvcc"; then
    skip "execution of the kernels' PTX" "nvcc not installed"
  elif link_ptx; then
    check "PTX, order 0" interpret 0 quick
    traces=""
    for order in 0 1 77; do
      check "PTX, order $order, small" interpret $order races
      traces="$traces $build/$started.log"
    done
    check "PTX without a barrier is stopped" interpret_without 1
    [ -x "$build/cuda-gcc" ] && check "PTX, the same bits as emulated" same_as_emulated
    barrier
    check "the same bits of PTX in every order" same_bits $traces
  fi
else
  skip "execution of the kernels' PTX" "g++ not installed"
fi
barrier

if [ "${CUDA_MUTANTS:-0}" = 1 ] && [ -x "$build/cuda-ptx" ]; then
  before=$passed begun=$started
  for number in $(seq "$(grep -c 'bar\.sync' "$build/kernels.ptx")"); do
    check "barrier $number of the PTX is missed" interpret_without "$number"
  done
  barrier
  echo "mutants of PTX: $((passed - before)) of $((started - begun)) were noticed"
fi
if [ "${CUDA_MUTANTS:-0}" = 1 ] && [ -f "$build/gcc-races.o" ]; then
  before=$passed begun=$started
  for number in $(seq "$(grep -c '__syncthreads();' ../tt_cuda.h)"); do
    check "barrier $number is missed" mutant "$number" awk -v n="$number" "$without_barrier"
  done
  # fragments of the tensor cores: two registers of a factor, or the lanes they come from, swapped
  check "swapped: a" mutant a sed 's,g\[k / 2 \* 4 \(.*\)k % 2 \* 8\],g[k % 2 * 4 \1k / 2 * 8],'
  check "swapped: b" mutant b sed 's,s\[k \* 4 \* PITCH,s[(1 - k) * 4 * PITCH,'
  check "swapped: rows" mutant rows sed 's,8 \* i + thread % 32 / 4,8 * (i ^ 1) + thread % 32 / 4,'
  check "swapped: lanes" mutant lanes sed 's,8 \* t + 4 + from,8 * t + from,'
  check "swapped: a of BF16" mutant a16 sed 's,k + lane / 16,k + 1 - lane / 16,'
  check "swapped: b of BF16" mutant b16 sed 's,k + lane / 8 % 2,k + 1 - lane / 8 % 2,'
  check "waits for a group less" mutant wait sed 's,wait_copies<AHEAD - 1>,wait_copies<AHEAD>,'
  check "waits for none" mutant none sed 's,wait_copies<0>,wait_copies<1>,'
  check "a copy is missed" mutant copy sed 's,? 2 \* (depth - k < 8,? 2 * (depth - k < 7,'
  barrier
  echo "mutants: $((passed - before)) of $((started - begun)) were noticed"
fi

# ---- L2
if have "$nvcc"; then
  printf '%s\n' '#include <cuda_runtime.h>' \
    'int main(void) { int n = 0; return cudaGetDeviceCount(&n) != cudaSuccess || !n; }' \
    >"$build/probe.cu"
  $nvcc "$build/probe.cu" -o "$build/probe" >/dev/null 2>&1
  if "$build/probe" 2>/dev/null; then
    check "on the GPU" on_gpu
  else
    echo "gpu: not present, $test_names tests not run"
  fi
  barrier
  for arch in $targets; do
    have python3 || { skip python3 "not installed"; break; }
    check "$arch: instructions" opcodes "$arch"
    tables="$tables $build/$started.log"
  done
  barrier
  cat ${tables:-/dev/null}
  if have g++ && [ -f "$(dirname "$nvcc")/../include/cuda_occupancy.h" ]; then
    g++ -std=c++14 -isystem "$(dirname "$nvcc")/../include" cuda_occupancy.cpp -o "$build/occupancy"
    for arch in $targets; do
      resources "$arch" >"$build/$arch.resources"
      check "$arch: every kernel fits" sh -c \
        "$build/occupancy $arch <$build/$arch.resources >$build/$arch.table"
      barrier
      cat "$build/$arch.table"
    done
  fi
else
  skip nvcc "not installed"
  echo "gpu: not present, $test_names tests not run"
fi
finish
