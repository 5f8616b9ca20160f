# ttc, command by command: what it prints, where, with which exit status, against golden/ttc/*.txt;
# that inputs stay untouched, interrupted runs leave nothing, parts join to the same bytes, and that
# memory does not grow with the file. UPDATE=1 writes the golden files anew: read the git diff.
# TTC_LARGE=18 makes the checkpoint of the memory test 300 MB.
. "$(dirname "$0")/common.sh"
have python3 || { skip python3 "not installed"; check "nothing to do" true; finish; exit; }
jobs=1                         # later cases use the files of earlier ones
root=$PWD
golden=$root/golden/ttc
work=$root/$build/work
mkdir -p "$work" "$golden"
# plain C, no fused multiply-adds: digits in golden files depend on no compiler and no processor
${CC:-cc} -std=c99 ${CFLAGS:--O2} -ffp-contract=off -DTT_NO_SIMD -I.. ../examples/ttc.c -o "$build/ttc" -lm ||
  exit 1
PATH=$root/$build:$PATH
python3 ttc_files.py "$work" || exit 1
cd "$work" || exit 1
cksum model.st part-*.safetensors inputs.st other.st >before
build=$root/$build

strict="-std=c99 -Wall -Wextra -pedantic -Wconversion -Wsign-conversion -Wshadow -Wdouble-promotion"
for compiler in gcc clang; do
  have $compiler || { skip $compiler "not installed"; continue; }
  check "$compiler has nothing to say" $compiler $strict -Werror -O2 -I"$root/.." \
    -c -o "$compiler.o" "$root/../examples/ttc.c"
done

# words that the commands of golden files may use
cat >words.sh <<'END'
left() { echo "status $?"; ls | grep "^none"; }               # status before, and outputs there
tensors() { ttc info "$1" | grep -v "^sha256\|^data "; }     # hashes of outputs would be too strict
END

# golden NAME 'COMMANDS': standard output, standard error and exit status are as in the file
golden() {
  check "$1" compare "$1" "$2"
}

compare() {
  sh -c ". ./words.sh; $2" >"$1.out" 2>"$1.err" </dev/null
  code=$?
  {
    printf '$ %s\n' "$2"
    cat "$1.out"
    sed 's/^/! /' "$1.err"
    echo "= $code"
  } >"$1.txt"
  if [ -n "$UPDATE" ]; then cp "$1.txt" "$golden/"; fi
  diff "$golden/$1.txt" "$1.txt"
}

# status CODE COMMAND..
status() {
  wanted=$1
  shift
  "$@" >log 2>&1
  code=$?
  cat log
  [ $code -eq "$wanted" ]
}

# ---- the command line
golden help 'ttc --help'
golden version 'ttc --version'
golden no_command 'ttc'
golden bad_command 'ttc squash model.st'
golden bad_option 'ttc info model.st --fast'
golden foreign_option 'ttc info model.st --target-ratio 2'
golden no_value 'ttc compress model.st -o'
golden no_output 'ttc compress model.st --layer fc=i8'
golden too_many 'ttc info model.st other.st'
golden too_few 'ttc verify model.st'
golden nothing_to_do 'ttc compress model.st -o out.st'
golden bad_number 'ttc compress model.st -o out.st --target-ratio 2x'
golden bad_zero 'ttc compress model.st -o out.st --target-ratio 0'
golden bad_ratio 'ttc compress model.st -o out.st --target-ratio 0.5'
golden bad_parts 'ttc compress model.st -o out.st --join 100000'
golden bad_shard 'ttc compress model.st -o out.st --layer fc=i8 --shard 2/2'
golden bad_mix 'ttc compress model.st -o out.st --target-ratio 2 --max-drop 1'
golden probe_alone 'ttc compress model.st -o out.st --target-ratio 2 --probe'
golden shard_target 'ttc compress model.st -o out.st --target-ratio 2 --shard 0/2'
golden join_rules 'ttc compress model.st -o out.st --layer fc=i8 --join 2'

golden specs 'for spec in keep i8 i5 svd:0 svd:8+i8 svd:8+i2 svd:8+ i8+i4 \
    tt:4@4,6x4 tt:4@24x32 tt:4@4,6x4,8 tt:x eps:1 eps:0.1+f16 rank:3 svd:9999999999; do
  ttc compress model.st -o out.st -f -q --dry-run --layer "enc.0=$spec" --json "spec.json"
  echo "$spec: $?"
  [ ! -e spec.json ] || { grep -o "decision[^}]*" spec.json | head -n 1; rm spec.json; }
done | grep -v "^layer\|^enc\|^half\|^table\|^noise\|^total"'
golden patterns 'for pattern in "(a|b)" "[a" "*" "" "a{2}"; do
  ttc compress model.st -o out.st --layer "$pattern=i8"; done
  ttc compress model.st -o out.st --layer fc'

# ---- info
golden info 'ttc info model.st'
golden info_json 'ttc info model.st --json -'
golden info_sharded 'ttc info model.safetensors.index.json'
golden info_missing 'ttc info nothing.st'
golden info_cut 'ttc info cut.st'
golden info_text 'ttc info before'

# ---- compress
golden compress 'ttc compress model.st -o a.st --layer "enc.0=svd:6+i8" \
  --layer "enc.1=tt:6@4,8x4,6" \
    --layer "half=i8" --layer "noise=svd:6" --layer "fc=i2" --layer "^table$=eps:0.05"'
golden info_train 'tensors a.st'
golden overwrite 'ttc compress model.st -o a.st --layer "fc=i8"'
golden same_file 'ttc compress model.st -o ./model.st -f --layer "fc=i8"'
golden same_shard 'ttc compress model.safetensors.index.json -o part-1.safetensors -f \
  --layer "fc=i8"'
golden same_inputs 'ttc compress model.st -o inputs.st -f --inputs inputs.st --layer "fc=i8"'
golden same_json 'ttc compress model.st -o new.st --json ./new.st --layer "fc=i8"; ls | grep "^new"'
golden shard_json 'ttc info model.safetensors.index.json --json part-1.safetensors'
golden device 'ttc compress model.st -o /dev/null -f --layer "fc=i8"; [ -c /dev/null ] || echo gone'
golden json 'ttc compress model.st -o b.st --layer "fc=svd:4+f16" --layer "table=tt:3" --json -'
golden json_file 'ttc compress model.st -o b.st -f --layer "fc=i4" --json b.json && wc -l <b.json'
golden dry_run 'ttc compress model.st -o none.st --dry-run --layer "fc=i3"; left'
golden quiet 'ttc compress model.st -o none.st --dry-run -q --layer "fc=i3"'
golden unknown_layer 'ttc compress model.st -o none.st --layer "fc=i8" --layer "decoder=i8"'
golden wrong_factors 'ttc compress model.st -o none.st --layer "fc=tt:4@4,4x4,8"'
golden nan 'ttc compress nan.st -o none.st --layer ".=i8"; left'
golden bounds 'ttc compress model.st -o c.st --layer "enc=eps:0.02+i8" \
  --layer "noise=eps:0.01" --layer "half=eps:0.3"'
golden nan_bias 'ttc compress infinite.st -o none.st --layer "half=i8"; left'
golden beyond_float 'ttc compress odd.st -o none.st --dry-run --layer "largest=svd:6+i8"'
golden long_name 'ttc compress odd.st -o none.st --dry-run --target-ratio 1.2;
  ttc compress odd.st -o none.st --layer nnn=i8'
golden again 'ttc compress a.st -o again.st --layer "noise=i4"; ttc diff a.st again.st'
golden sharded 'ttc compress model.safetensors.index.json -o s.st --layer "enc.0=svd:6+i8" &&
  ttc verify \
    model.safetensors.index.json s.st'
golden no_folder 'ttc compress model.st -o nowhere/out.st --layer "fc=i8"'
golden empty 'ttc compress empty.st -o none.st --target-ratio 2;
  ttc compress empty.st -o none.st --layer "a=i8"'

# ---- inputs
golden inputs 'ttc compress model.st -o i.st --inputs inputs.st --layer "fc=svd:2+i8" \
  --layer "table=svd:3"; tensors i.st'
golden inputs_codes 'ttc compress model.st -o i.st -f --inputs inputs.st --layer "fc=i3" \
  --layer "table=i2"'
golden add_bias 'ttc compress model.st -o j.st --inputs inputs.st --add-bias \
  --layer "enc=svd:2"; tensors j.st;
    ttc verify model.st j.st'
golden inputs_wide 'ttc compress model.st -o none.st --inputs wide.st --layer "fc=i8"'
golden inputs_weights 'ttc compress model.st -o none.st --inputs weights.st --layer "table=i8"'
golden inputs_strangers 'ttc compress model.st -o none.st --inputs strangers.st --layer "table=i8"'
golden inputs_missing 'ttc compress model.st -o none.st --inputs nothing.st --layer "table=i8"'

# ---- targets
golden ratio 'ttc compress model.st -o r.st --target-ratio 1.5'
golden ratio_rules 'ttc compress model.st -o r.st -f --target-ratio 1.3 --layer "table=keep" \
  --candidates i8,svd:4+i8,tt:4@4,6x4,8'
golden ratio_unmet 'ttc compress model.st -o none.st --target-ratio 50; left'
golden ratio_huge 'ttc compress model.st -o none.st --target-ratio 1e300; left'
golden error 'ttc compress model.st -o r.st -f --target-error 0.02'
golden error_inputs 'ttc compress model.st -o r.st -f --target-error 0.02 --inputs inputs.st'
golden both_unmet 'ttc compress model.st -o none.st --target-ratio 2.5 --target-error 0.001; left'
golden bad_candidates 'ttc compress model.st -o none.st --target-ratio 2 --candidates i8,rank:3'
cat >score.sh <<'END'
ttc expand "$1" -o score.st -f >score.log && ttc diff model.st score.st | awk '
  /weight/ || /table/ { if ($2 != "-") lost += $2 } END { printf "%.4f\n", -lost }'
END
golden eval 'ttc compress model.st -o e.st --target-ratio 2.3 --eval "sh score.sh" \
  --candidates i4,i2,svd:6'
golden eval_probe 'ttc compress model.st -o e.st -f --target-ratio 1.5 --eval "sh score.sh" \
  --probe --candidates i8,i4'
golden drop 'ttc compress model.st -o e.st -f --max-drop 0.1 --eval "sh score.sh" \
  --candidates i8,i4,svd:4+i8'
golden drop_unmet 'ttc compress model.st -o none.st --max-drop 0 --target-ratio 1.5 \
  --eval "sh score.sh"; left'
golden eval_fails 'ttc compress model.st -o none.st --target-ratio 1.5 --eval false; left'
golden eval_nan 'ttc compress model.st -o none.st --target-ratio 1.5 --eval "echo nan #"; left'
golden eval_beside 'echo mine >e.st.eval.safetensors
  ttc compress model.st -o e.st -q -f --target-ratio 1.5 --eval "echo 1 #" --candidates i8 >log
  cat e.st.eval.safetensors; ls e.st*; rm e.st.eval.safetensors'

check "a plan fits where its file does" python3 "$root/ttc_plans.py" ttc model.st inputs.st

# ---- profiles
check "a profile is made" status 0 ttc profile model.st --json profile.json
golden profile_table 'ttc profile model.st --layer half --inputs inputs.st'
golden profile_pattern 'ttc profile model.st --layer "h(a|b)lf"'
golden profile_shard 'ttc profile model.st --shard 0/2'
golden profile_over_input 'ttc profile model.st --json model.st'
golden profile 'ttc compress model.st -o p.st --profile profile.json --target-ratio 1.5'
golden profile_foreign 'ttc compress other.st -o none.st --profile profile.json --target-ratio 1.5'
golden profile_forced 'ttc compress other.st -o none.st --dry-run -q --profile profile.json \
  --force-profile --target-ratio 1.5'
golden profile_broken 'head -c 300 profile.json >half.json; ttc compress model.st -o none.st \
  --profile half.json --target-ratio 2'
golden profile_inputs 'ttc compress model.st -o none.st --profile profile.json \
  --inputs inputs.st --target-ratio 1.5'

# ---- parts
parts() {
  for i in 0 1 2; do
    ttc compress model.st -o parts.st --inputs inputs.st --shard $i/3 -q --layer 'fc=svd:3+i8' \
  --layer '.=i4' || return 1
  done
  ttc compress model.st -o parts.st --join 3 &&
    ttc compress model.st -o whole.st --inputs inputs.st --layer 'fc=svd:3+i8' --layer '.=i4' &&
    cmp parts.st whole.st
}
planned_parts() {
  for i in 0 1; do
    ttc compress model.st -o pp.st --profile profile.json --target-ratio 1.5 \
  --shard $i/2 -q || return 1
  done
  ttc compress model.st -o pp.st --join 2 && cmp pp.st p.st
}
check "parts join to the bytes of one process" parts
check "so do parts of a plan" planned_parts
golden shard 'ttc compress model.st -o one.st --layer "fc=i8" --shard 0/2; ls | grep "^one"'
golden join_missing 'ttc compress model.st -o one.st --join 2'
golden join_options 'ttc compress model.st -o one.st --layer "fc=i4" --shard 1/2 -q >log;
  ttc compress model.st -o one.st --join 2'
golden join_source 'ttc compress other.st -o parts.st -f --join 3'

python3 - <<'END'
import json
part = "parts.st.part-0-of-3"
whole = open(part, "rb").read()
size = int.from_bytes(whole[:8], "little")
def change(out, **what):
    header = json.loads(whole[8:8 + size])
    records = json.loads(header["__metadata__"]["ttc.layers"])
    records["enc.0.fc"].update(what)
    header["__metadata__"]["ttc.layers"] = json.dumps(records)
    text = json.dumps(header).encode()
    open(out, "wb").write(len(text).to_bytes(8, "little") + text + whole[8 + size:])
change("escape", spec="\x1b[31mred\n\x9b")
change("foreign", tensor="table")
END
golden join_escape 'cp escape parts.st.part-0-of-3; ttc compress model.st -o parts.st -f --join 3'
golden join_foreign 'cp foreign parts.st.part-0-of-3; ttc compress model.st -o parts.st -f --join 3'

# ---- expand, verify, diff
golden verify 'ttc verify model.st a.st'
golden verify_json 'ttc verify model.st a.st --json -'
golden verify_other 'ttc verify other.st a.st'
golden verify_source 'ttc verify a.st model.st'
golden expand 'ttc expand a.st -o x.st && tensors x.st && ttc diff model.st x.st'
golden expand_overwrite 'ttc expand a.st -o x.st'
golden diff_same 'ttc diff model.st model.st'
golden diff_shards 'ttc diff model.st model.safetensors.index.json'
golden diff_json 'ttc diff model.st other.st --json -'
golden diff_missing 'ttc diff model.st empty.st'
python3 - <<'END'
whole = bytearray(open("a.st", "rb").read())
size = int.from_bytes(whole[:8], "little")
import json
header = json.loads(whole[8:8 + size])
def flip(name, out):
    piece = bytearray(whole)
    begin, end = header[name]["data_offsets"]
    for at in range(begin, end): piece[8 + size + at] ^= 1
    open(out, "wb").write(piece)
flip("enc.1.fc.cores.0", "bent.st")
piece = bytearray(whole)
piece[8 + size + header["enc.1.fc.cores.0"]["data_offsets"][0] + 3] ^= 0x3F
open("bent.st", "wb").write(piece)
flip("ids", "moved.st")
def lie(change, out):
    changed = json.loads(whole[8:8 + size])
    records = json.loads(changed["__metadata__"]["ttc.layers"])
    text = change(records) or json.dumps(records)
    changed["__metadata__"]["ttc.layers"] = text
    head = json.dumps(changed).encode()
    open(out, "wb").write(len(head).to_bytes(8, "little") + head + whole[8 + size:])
lie(lambda records: json.dumps(records)[:-9], "torn.st")
lie(lambda records: records["half"].update(dtype="I64"), "lie1.st")
lie(lambda records: records["half"].update(tensor="norm.weight"), "lie2.st")
lie(lambda records: records["half"].update(relative_error="small"), "lie3.st")
lie(lambda records: records.pop("half") and None, "lie4.st")
END
golden verify_bent 'ttc verify model.st bent.st'
golden lies 'for file in torn lie1 lie2 lie3 lie4; do
  ttc expand $file.st -o none.st -q; echo "$file $?"; rm -f none.st
  ttc verify model.st $file.st | grep FAILED
  done'
golden verify_moved 'ttc verify model.st moved.st'

# ---- standard streams
golden closed 'ttc --version >&-; echo "$?"; ttc info model.st >&-; echo "$?"
  ttc compress model.st -o closed.st --layer fc=i8 --dry-run >&- 2>&-; echo "$?"'
if [ -c /dev/full ]; then
  golden full 'for command in --help --version "info model.st" "info model.st --json -" \
    "diff model.st other.st"; do ttc $command >/dev/full; echo "$?"; done'
fi
golden header_in_one_step 'ttc export-c model.st half -o half.h && ln half.h kept.h &&
  ttc export-c model.st enc.0.fc -o half.h -f && grep -h Layer half.h kept.h'

# ---- files that are cut
head -c 1000 part-2.safetensors >kept && mv part-2.safetensors whole-2 && mv kept part-2.safetensors
golden cut_shard 'ttc compress model.safetensors.index.json -o none.st --layer "fc=i8"; left'
rm part-2.safetensors
golden missing_shard 'ttc info model.safetensors.index.json'
mv whole-2 part-2.safetensors

# ---- what must never happen
untouched() { cksum model.st part-*.safetensors inputs.st other.st | diff before -; }
nothing_left() { ! ls ./*.tmp* ./*.eval.* 2>/dev/null | grep .; }

# With nobody left to read what it prints.
unread() {
  (ttc compress deep.st -o unread.st --layer '.=i4'; echo $? >code) | true
  cat code
  [ "$(cat code)" -eq 141 ] && [ "$(echo unread.st*)" = unread.st ]
}

# Interrupted as soon as it has begun to write beside the output.
interrupted() {
  ttc compress deep.st -o stopped.st --layer '.=eps:0.3' & pid=$!
  tries=0
  until [ -e stopped.st.tmp ] || [ $tries -gt 200 ]; do tries=$((tries + 1)); sleep 0.1; done
  [ -e stopped.st.tmp ] || return 1
  kill "-$1" $pid
  wait $pid
  [ $? -eq "$2" ] && ! ls stopped.st* 2>/dev/null | grep .
}

# peak LIMIT_KB COMMAND..: resident memory of the command at its highest
peak() {
  python3 -c '
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print("peak %d KB, limit %s KB" % (peak, sys.argv[1]))
sys.exit(code != 0 or peak > int(sys.argv[1]))' "$@"
}

python3 "$root/ttc_files.py" deep.st 200 128 256
python3 "$root/ttc_files.py" large.st "${TTC_LARGE:-4}" 2048 2048
check "an interrupted run leaves nothing" interrupted INT 130
check "a terminated run leaves nothing" interrupted TERM 143
check "a run whose terminal went away leaves nothing" interrupted HUP 129
check "a run that nobody reads leaves the output" unread
# three layers and 64 MB are the limit; that 200 layers of 128 KB need 20 MB shows that they stream
check "200 layers in 20 MB" peak 20480 ttc compress deep.st -o deep.out \
  --layer '[.]1=svd:16+i8' --layer '.=i4' -q
check "layers of 16 MB in 112 MB" peak 114688 ttc compress large.st -o large.out \
  --layer '[.]1=svd:32' --layer '.=i8' -q
check "verify in 112 MB" peak 114688 ttc verify large.st large.out
check "expand in 112 MB" peak 114688 ttc expand large.out -o large.back
check "inputs are untouched" untouched
check "nothing is left behind" nothing_left
rm -f deep.* large.*
finish
