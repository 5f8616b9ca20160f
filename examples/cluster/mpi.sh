#!/bin/sh
# The whole way with MPI: N processes, then the join. MPI only starts them; see shard.sh.
#   sh mpi.sh 4 compress model.safetensors small.safetensors --layer '.=i4'
#   usage: mpi.sh N compress|profile IN OUT [OPTIONS of ttc]          TTC=path/to/ttc
set -eu
here=$(dirname "$0")
if [ $# -lt 4 ]; then
  echo "usage: mpi.sh N compress|profile IN OUT [OPTIONS]" >&2
  exit 2
fi
count=$1 command=$2 in=$3 out=$4
shift 4
mpirun -n "$count" sh "$here/shard.sh" "$command" "$in" "$out" "$@"
sh "$here/join.sh" "$count" "$command" "$in" "$out"
