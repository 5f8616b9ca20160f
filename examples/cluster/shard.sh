#!/bin/sh
# Compresses or profiles a checkpoint on many machines, with nothing but ttc and what starts
# processes: MPI, Slurm, GNU parallel, or a loop.
#
#   mpirun -n 4 sh shard.sh compress model.safetensors small.safetensors --layer '.=i4'
#   srun -n 64 sh shard.sh compress model.safetensors small.safetensors --layer '.=svd:64+i8'
#   RANK=0 SIZE=2 sh shard.sh profile model.safetensors profile.json
#
# Layers are independent of each other, so that processes have nothing to say to each other. Process
# I of N takes the layers I, I + N, I + 2 N, .. of the file and writes them to OUT.part-I-of-N; then
#
#   ttc compress model.safetensors -o small.safetensors --join 4
#   ttc profile model.safetensors --json profile.json --join 4
#
# puts the parts together, to the very bytes that one process would have written. mpi.sh and
# parallel.sh do both. What it takes:
#   - the same files under the same names on every machine: a shared file system, or copies of the
#     checkpoint, and the parts brought to one machine in the end
#   - the same options in every process (compress refuses to join parts that were made with other
#     ones), and the same build of ttc; kinds of processors may differ in the last bit of a result
#   - per process the memory of ttc (--help): three times the largest layer and 64 MB, more with
#     --inputs
# A process that died is run again alone: RANK=3 SIZE=4 sh shard.sh ... Parts of compress are
# written in one step, so that one that is there is complete.
#
#   usage: shard.sh compress|profile IN OUT [OPTIONS of ttc]          TTC=path/to/ttc
set -eu
rank=${RANK:-${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-${SLURM_PROCID:-}}}}
size=${SIZE:-${OMPI_COMM_WORLD_SIZE:-${PMI_SIZE:-${SLURM_NTASKS:-}}}}
if [ $# -lt 3 ] || [ -z "$rank" ] || [ -z "$size" ]; then
  echo "usage: shard.sh compress|profile IN OUT [OPTIONS]" >&2
  echo "within mpirun or srun, or with RANK and SIZE in the environment" >&2
  exit 2
fi
command=$1 in=$2 out=$3
shift 3
to=-o
[ "$command" = compress ] || to=--json
exec "${TTC:-ttc}" "$command" "$in" $to "$out" --shard "$rank/$size" -q "$@" >/dev/null
