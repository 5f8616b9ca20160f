# tt.h against safetensors, numpy, ml_dtypes and TensorLy, from pip in a virtual environment.
. "$(dirname "$0")/common.sh"
packages="numpy==2.3.5 scipy==1.17.1 safetensors==0.8.0 ml_dtypes==0.6.0 tensorly==0.10.0"
venv=build/venv

have python3 || { skip python3 "not installed"; exit 0; }
if [ "$(cat $venv/installed 2>/dev/null)" != "$packages" ]; then
  rm -rf $venv
  python3 -m venv $venv >"$build/venv.log" 2>&1 ||
    { skip "python3 -m venv" "not installed"; exit 0; }
  $venv/bin/pip install -q $packages >"$build/pip.log" 2>&1 ||
    { skip pip "$packages not available"; exit 0; }
  echo "$packages" >$venv/installed
fi
cc -O2 interop.c -o "$build/interop" -lm && $venv/bin/python interop.py "$build"
