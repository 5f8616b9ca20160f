#!/bin/sh
# From a checkpoint to a C program, every step with what it prints. `make -C examples walkthrough`
# runs this in build/walkthrough; `make -C examples readme` puts the output into README.md.
#   usage: walk.sh FOLDER          which is emptied; ttc is in ../build
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
cc=${CC:-cc}
rm -rf "$folder"
mkdir -p "$folder"
$cc -std=c99 -O2 -I"$here/../.." "$here/prepare.c" -o "$folder/prepare" -lm
$cc -std=c99 -O2 -I"$here/../.." "$here/score.c" -o "$folder/score" -lm
cp "$here/../../tt.h" "$here/network.h" "$here/device.c" "$folder"
PATH=$(cd "$here/../build" && pwd):$PATH
cd "$folder"
./prepare "$here/../data/digits.safetensors" .

# show COMMAND: the command, then what it prints
show() {
  printf '$ %s\n' "$1"
  sh -c "$1" 2>&1
}

show 'ttc profile model.safetensors --inputs inputs.safetensors --layer fc1 | grep -E "^cand|[*]$"'
echo
show 'ttc compress model.safetensors -o small.safetensors --inputs inputs.safetensors \
      --eval "./score eval.bin" --max-drop 3'
echo
show 'ttc verify model.safetensors small.safetensors'
echo
show './score test.bin model.safetensors'
show 'ttc export-c small.safetensors fc1 -o fc1.h'
show 'ttc export-c small.safetensors fc2 -o fc2.h'
show 'cc -O2 device.c -o device'
show './device < test.bin'
