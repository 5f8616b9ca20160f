#!/bin/sh
# The whole way with GNU parallel on one machine: N processes, then the join; see shard.sh. As many
# run at a time as there are cores.
#   sh parallel.sh 4 compress model.safetensors small.safetensors --layer '.=i4'
#   usage: parallel.sh N compress|profile IN OUT [OPTIONS of ttc]     TTC=path/to/ttc
set -eu
here=$(dirname "$0")
if [ $# -lt 4 ]; then
  echo "usage: parallel.sh N compress|profile IN OUT [OPTIONS]" >&2
  exit 2
fi
count=$1 command=$2 in=$3 out=$4
shift 4
seq 0 $((count - 1)) |
  parallel --quote --halt now,fail=1 env "RANK={}" "SIZE=$count" "TTC=${TTC:-ttc}" \
    sh "$here/shard.sh" "$command" "$in" "$out" "$@"
sh "$here/join.sh" "$count" "$command" "$in" "$out"
