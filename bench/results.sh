#!/bin/sh
# Writes results.md from what the benches of the last full run printed.
#   sh results.sh CC "CFLAGS" >results.md
cd "$(dirname "$0")" || exit 1
machine=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)
family=$(sed -n 's/^cpu family[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)
model=$(sed -n 's/^model[[:space:]]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo '?')
cat <<END
# Results of \`make -C bench\`

The latest run, losing lines included: $(date -u +%Y-%m-%d), ${machine:-unknown processor} (family
${family:-?}, model ${model:-?}, $cores processors), $($1 --version | head -n 1), \`$2\` and no
\`-march\` (Eigen: \`-O2 -march=native\`); OpenBLAS with kernels
${OPENBLAS_CORETYPE:-of its choice}; one thread on all sides.

C and C++: medians of the thread's processor time; ours and the rival's runs alternate in gemm,
apply and eigen, follow each other in svd and compress. Python: least processor time of several
runs, all sides turn by turn; calls of more than three seconds run once. Neighbours on the same
machine share its caches and memory: where operands leave the second-level cache, their traffic
shows on both sides. ratio = rival's time over ours (best: of the fastest rival), so above 1 we are
faster; bound = the least time that the measured peak of multiply-adds or the read bandwidth allows.
END
for file in gemm svd compress apply eigen growth model; do
  for suffix in txt python.txt; do
    [ -s build/$file.$suffix ] || continue
    question=$(sed -n '/./{p;q;}' build/$file.$suffix)
    printf '\n## %s\n\n```\n' "$question"
    sed '/./,$!d' build/$file.$suffix | tail -n +2
    printf '```\n'
  done
done
