# `ttc profile`: what it says is what `compress` does; shards join; strange profiles are refused.
. "$(dirname "$0")/common.sh"
digits=../examples/data/digits.safetensors ttc=../examples/build/ttc
flags="-std=c99 -O1 -g -I.. -fsanitize=address,undefined -fno-sanitize-recover=all"

have python3 || { skip python3 "not installed"; exit 0; }
check "ttc is built" make -s -C ../examples ttc
barrier
check "as built" run_tests python3 ttc_profile.py $ttc $digits "$build"
barrier
if works cc -fsanitize=address,undefined; then
  check "ttc is built with sanitizers" cc $flags ../examples/ttc.c -o "$build/ttc" -lm
  barrier
  check "with sanitizers" run_tests python3 ttc_profile.py "$build/ttc" $digits "$build" quick
else
  skip "sanitizers of cc" "not installed"
fi
finish
