#!/bin/sh
# Puts the parts of shard.sh together and removes them.
#   usage: join.sh N compress|profile IN OUT                          TTC=path/to/ttc
set -eu
if [ $# -ne 4 ]; then
  echo "usage: join.sh N compress|profile IN OUT" >&2
  exit 2
fi
case $2 in
  compress) "${TTC:-ttc}" compress "$3" -o "$4" --join "$1" ;;
  *) "${TTC:-ttc}" profile "$3" --json "$4" --join "$1" ;;
esac
part=0
while [ $part -lt "$1" ]; do
  rm -f "$4.part-$part-of-$1"
  part=$((part + 1))
done
