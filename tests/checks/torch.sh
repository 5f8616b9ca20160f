# tt.h and the program ttc against torch: modules whose layers are trains. torch is searched for,
# not installed (Debian: python3-torch); safetensors comes from pip.
. "$(dirname "$0")/common.sh"
package="safetensors==0.8.0"
venv=build/venv_torch

for python in python3 /usr/bin/python3 ""; do
  [ -n "$python" ] && "$python" -c "import torch, venv" >/dev/null 2>&1 && break
done
[ -n "$python" ] || { skip torch "no python3 that imports it"; exit 0; }
if [ "$(cat $venv/installed 2>/dev/null)" != "$python $package" ]; then
  rm -rf $venv
  "$python" -m venv --system-site-packages $venv >"$build/venv.log" 2>&1 ||
    { skip "$python -m venv" "not installed"; exit 0; }
  $venv/bin/pip install -q $package >"$build/pip.log" 2>&1 ||
    { skip pip "$package not available"; exit 0; }
  echo "$python $package" >$venv/installed
fi
cc -O2 interop.c -o "$build/interop" -lm && cc -O2 -I.. ../examples/ttc.c -o "$build/ttc" -lm &&
  "$build/interop" write "$build" && $venv/bin/python interop_torch.py "$build"
