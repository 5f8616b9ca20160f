#!/bin/sh
# Assembles a package of tt.h for a system that wants files beside it. The repository itself stays
# one header: these systems want theirs in the top folder.
#   usage: assemble.sh arduino|platformio|esp-idf FOLDER [URL]
# FOLDER must not exist. The version is that of the header; URL is written into the manifest.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
[ $# -ge 2 ] || { sed -n 's/^#   usage/usage/p' "$0"; exit 2; }
kind=$1 folder=$2 url=${3:-https://example.org/tt.h}
[ -d "$here/$kind" ] || { echo "no recipe for $kind"; exit 2; }
[ ! -e "$folder" ] || { echo "$folder exists"; exit 2; }
version=$(sed -n 's/^#define TT_VERSION  *"\(.*\)"$/\1/p' "$top/tt.h")

mkdir -p "$(dirname "$folder")"
cp -R "$here/$kind" "$folder"
cp "$top/LICENSE" "$folder"
for manifest in library.properties library.json idf_component.yml; do
  [ -e "$folder/$manifest" ] || continue
  sed "s|@VERSION@|$version|; s|@URL@|$url|" "$here/$kind/$manifest" >"$folder/$manifest"
done
case $kind in
  arduino)
    mkdir "$folder/src"
    cp "$top/tt.h" "$folder/src"
    cp "$here/one_layer.h" "$folder/examples/one_layer"
    ;;
  platformio)
    mkdir "$folder/src"
    cp "$top/tt.h" "$folder/src"
    ;;
  esp-idf) cp "$top/tt.h" "$folder" ;;
esac
