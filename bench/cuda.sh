#!/bin/sh
# Everything that needs a GPU, in one go and under four minutes on an H100: the tests of
# tests/test_cuda.cpp, twice (the same bits?), again under compute-sanitizer where it works, and the
# bench of bench_cuda.cu. Needs nvcc, sh and a GPU, nothing else; cuBLAS gives the rivals if it is
# there. Under quick everything is shorter, and done within 150 seconds.
#   sh bench/cuda.sh [quick]
cd "$(dirname "$0")/.." || exit 1
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
build=bench/build/cuda
mode=${1:-all}
tests_mode=all tests_limit=90 sanitizer_limit=25 bench_limit=140
[ "$mode" = quick ] && tests_mode=quick tests_limit=20 sanitizer_limit=12 bench_limit=40
mkdir -p $build
command -v "$nvcc" >/dev/null || { echo "skipped: nvcc (not installed)"; exit 0; }
start=$(date +%s)
"$nvcc" --version | tail -n 2 | head -n 1
flags="-std=c++14 -O2 -arch=${CUDA_ARCH:-native} -diag-suppress 177 -lineinfo"
"$nvcc" --help | grep -q split-compile && flags="$flags -split-compile=0" # all processors
"$nvcc" $flags -x cu tests/test_cuda.cpp -o $build/test &
tests=$!
"$nvcc" $flags -DBENCH_CUBLAS bench/bench_cuda.cu -o $build/bench -lcublas 2>$build/cublas.log ||
  "$nvcc" $flags bench/bench_cuda.cu -o $build/bench
built=$?
wait $tests && [ $built -eq 0 ] || { echo "does not build"; exit 1; }
echo "built in $(($(date +%s) - start)) s"

failed=0
echo "== tests"
timeout $tests_limit $build/test $tests_mode >$build/first.txt || failed=1
tail -n 40 $build/first.txt
grep -q '^gpu: not present' $build/first.txt && exit 0
timeout $tests_limit $build/test $tests_mode >$build/second.txt || failed=1
cmp $build/first.txt $build/second.txt && echo "a second run gave the same bits" || failed=1
sanitizer=$(command -v compute-sanitizer || echo "$(dirname "$nvcc")/compute-sanitizer")
if command -v "$sanitizer" >/dev/null; then
  for tool in memcheck racecheck initcheck synccheck; do
    timeout $sanitizer_limit "$sanitizer" --tool $tool $build/test races >$build/$tool.txt 2>&1
    status=$?
    grep -q 'ERROR SUMMARY: 0 errors\|RACECHECK SUMMARY: 0 hazards' $build/$tool.txt && status=clean
    echo "compute-sanitizer $tool: $status"
    [ $status = clean ] || tail -n 12 $build/$tool.txt
  done
else
  echo "skipped: compute-sanitizer (not installed)"
fi
echo "tests took $(($(date +%s) - start)) s with the build"
echo "== bench"
timeout $bench_limit $build/bench "$mode" || failed=1
echo "all: $(($(date +%s) - start)) s"
[ $failed -eq 0 ]
