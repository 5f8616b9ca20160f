#!/bin/sh
# Fails where a hot path takes more instructions than it should: see check.c.
#   sh check.sh CC "CFLAGS"
cd "$(dirname "$0")" || exit 1
mkdir -p build
$1 $2 check.c -o build/check -lm || exit 1
passed=0 failed=0
reason=
[ "$(uname -m)" = x86_64 ] && grep -q avx2 /proc/cpuinfo || reason="made for x86-64 with AVX2"
command -v valgrind >/dev/null || reason="no valgrind"
for line in $(./build/check list | tr ' ' ,); do
  name=${line%%,*} most=${line##*,} macs=${line#*,}
  macs=${macs%,*}
  [ -z "$reason" ] || { echo "skipped: instruction counts ($reason)"; break; }
  count=$(valgrind --tool=callgrind --collect-atstart=no --toggle-collect="run_$name" \
    --callgrind-out-file=/dev/null ./build/check "$name" 2>&1 | sed -n 's/.*Collected : //p')
  result=$(awk -v c="${count:-0}" -v m="$macs" -v b="$most" \
    'BEGIN { r = c / m; printf "%.3f %s", r, (c > 0 && r <= b) ? "good" : "FAILED" }')
  printf '%-14s %12s instructions, %s per multiply-add, at most %s  %s\n' "$name" "${count:-none}" \
    "${result% *}" "$most" "${result#* }"
  case $result in *good) passed=$((passed + 1)) ;; *) failed=$((failed + 1)) ;; esac
done
./build/check peak
bad=$?
passed=$((passed + 2 - bad)) failed=$((failed + bad))
echo "check: $passed passed, $failed failed"
[ $failed -eq 0 ]
