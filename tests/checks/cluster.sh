# examples/cluster: four processes started by MPI or GNU parallel give the bytes of one.
. "$(dirname "$0")/common.sh"
cluster=../examples/cluster digits=../examples/data/digits.safetensors
TTC=$(cd .. && pwd)/examples/build/ttc
export TTC
# Open MPI: more processes than cores, and containers, where everything is done by root
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# A checkpoint of seven layers of different sizes, so that four shares differ.
seven_layers() {
  python3 - "$1" <<'END'
import json, random, struct, sys
random.seed(1)
header, data = {}, b""
for i in range(7):
    rows, cols = 20 + 8 * i, 64 - 8 * (i % 3)
    raw = struct.pack(f"<{rows * cols}f", *(random.gauss(0, 1) for _ in range(rows * cols)))
    header[f"h.{i}.weight"] = {"dtype": "F32", "shape": [rows, cols],
                               "data_offsets": [len(data), len(data) + len(raw)]}
    data += raw
text = json.dumps(header).encode()
open(sys.argv[1], "wb").write(struct.pack("<Q", len(text)) + text + data)
END
}

# same SCRIPT FILE NAME COMMAND OPTIONS..: the script's result against that of one process
same() {
  script=$1 file=$2 one=$build/$3-one many=$build/$3-$(basename "$1" .sh) command=$4
  shift 4
  to=-o
  [ "$command" = compress ] || to=--json
  rm -f "$one" "$many"
  $TTC "$command" "$file" $to "$one" "$@" >/dev/null &&
    sh "$script" 4 "$command" "$file" "$many" "$@" >/dev/null && cmp "$one" "$many" &&
    [ -z "$(find "$build" -name "$(basename "$many").part*")" ]
}

# A process that fails makes the script fail, and there is no result.
fails() {
  ! sh "$1" 4 compress $digits "$build/none" --layer 'no such layer=i4' && [ ! -e "$build/none" ]
}

check "ttc is built" make -s -C ../examples ttc
barrier
seven=$build/seven.safetensors
if have python3; then seven_layers "$seven"; else skip "seven layers" "python3 is not installed"; fi
for script in mpi parallel; do
  tool=$script
  [ $tool = mpi ] && tool=mpirun
  have $tool || { skip $tool "not installed"; continue; }
  run=$cluster/$script.sh
  check "$tool: digits" same "$run" $digits digits compress --layer '^fc1$=svd:8+i8' --layer 2=i4
  barrier
  check "$tool: profile" same "$run" $digits profile profile --layer fc
  check "$tool: a failure" fails "$run"
  [ -s "$seven" ] || continue
  barrier
  check "$tool: seven layers" same "$run" "$seven" seven compress --layer '.=tt:6+i4'
done
finish
