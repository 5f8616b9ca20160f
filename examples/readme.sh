#!/bin/sh
# Puts what commands print into README.md: each block behind a line
#   <!-- output of: COMMAND -->
# becomes what COMMAND prints now.
#   usage: readme.sh FOLDER [WORD]     only commands that contain the word; make -C examples readme
here=$(cd "$(dirname "$0")" && pwd)
folder=$1 word=$2
mkdir -p "$folder" && folder=$(cd "$folder" && pwd) && cd "$here/.." || exit 1
grep '^<!-- output of: .* -->$' README.md | sed 's/^<!-- output of: //; s/ -->$//' |
  grep "$word" >"$folder/commands"
while read -r command; do
  sh -c "$command" >"$folder/output" </dev/null || { echo "failed: $command"; exit 1; }
  grep -v '^make' "$folder/output" >"$folder/shown"
  awk -v marker="<!-- output of: $command -->" -v shown="$folder/shown" '
    $0 == marker { print; print "```console"; while ((getline line < shown) > 0) print line
                   skip = 1; next }
    !skip { print }
    skip && /^```$/ { print; skip = 0 }' README.md >"$folder/README.md"
  cp "$folder/README.md" README.md
done <"$folder/commands"
