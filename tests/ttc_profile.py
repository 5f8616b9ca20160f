"""Checks of `ttc profile`. Usage: ttc_profile.py TTC CHECKPOINT FOLDER [quick]. Standard library.

Profiles say what compress then does; shards join to the same bytes; whatever is not a profile, or
is one of another checkpoint, is refused with exit status 3. `quick` compares one candidate in ten
with compress, for builds that start slowly.
"""

import json
import os
import random
import struct
import subprocess
import sys
import xml.etree.ElementTree

TTC, SOURCE, FOLDER = sys.argv[1:4]
QUICK = len(sys.argv) > 4
passed = failed = 0


def check(good, what, detail=""):
    global passed, failed
    passed += bool(good)
    failed += not good
    if not good:
        print(f"failed: {what} {detail}")


def path(name):
    return os.path.join(FOLDER, name)


def read(name):
    with open(name, "rb") as file:
        return file.read()


def write(name, data):
    with open(name, "wb") as file:
        file.write(data)


def ttc(*arguments, find_leaks=False):
    """Under sanitizers leaks count only where the program ends well: else the system tidies up."""
    environment = dict(os.environ, ASAN_OPTIONS=f"detect_leaks={int(find_leaks)}")
    return subprocess.run([TTC, *arguments], capture_output=True, timeout=300, env=environment)


def good(*arguments):
    result = ttc(*arguments, find_leaks=True)
    check(result.returncode == 0, " ".join(arguments), result.stderr.decode())
    return result.stdout.decode()


def tensors(data):
    """{name: [dtype, shape, bytes]} of a safetensors file."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    return {
        name: [t["dtype"], t["shape"], data[8 + size :][slice(*t["data_offsets"])]]
        for name, t in header.items()
    }


def safetensors(content):
    header, data = {}, b""
    for name, (dtype, shape, raw) in content.items():
        header[name] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def make_inputs():
    """Images as inputs of fc1, look-up counts for the rows of fc2."""
    content = tensors(read(SOURCE))
    dtype, shape, raw = content["train.images"]
    batch = shape[0]
    counts = struct.pack("<10f", *range(1, 11))
    return safetensors(
        {
            "fc1.inputs": [dtype, [batch, len(raw) // batch], raw],
            "fc2.row_weights": ["F32", [10], counts],
        }
    )


def check_compress(source, profile, options):
    """Every candidate is what `compress` makes of its spec, to the byte and to the last digits."""
    for layer in profile["layers"]:
        for candidate in layer["candidates"][:: 10 if QUICK else 1]:
            rule = f"^{layer['name']}$={candidate['spec']}"
            out = good("compress", source, "--dry-run", "--layer", rule, "--json", "-", *options)
            made = [l for l in json.loads(out)["layers"] if l["name"] == layer["name"]][0]
            what = f"{layer['name']} {candidate['spec']} {options[:1]}"
            if made["decision"] != candidate["spec"]:               # kept: it would not be smaller
                check(made["bytes"] <= candidate["bytes"], f"{what}: kept", made)
                continue
            check(made["bytes"] == candidate["bytes"], f"{what}: bytes", (made, candidate))
            check(made["shape"] == candidate["shape"], f"{what}: shape", (made, candidate))
            check(made["macs"] == candidate["macs"], f"{what}: macs")
            check(made["params"] == candidate["params"], f"{what}: params")
            if candidate["spec"] == "keep":
                continue
            for key, other in (
                ("relative_error", "weight_error"),
                ("functional_error", "functional_error"),
            ):
                a, b = made[key], candidate[other]
                near = a == b or None not in (a, b) and abs(a - b) <= 1e-5 * b + 1e-9
                check(near, f"{what}: {key}", (a, b))


def check_shards(options, whole):
    for i in range(3):
        good("profile", SOURCE, "--json", path("parts"), "--shard", f"{i}/3", *options)
    good("profile", SOURCE, "--json", path("parts"), "--join", "3")
    check(read(path("parts")) == whole, "three shards give the bytes of one process")
    write(path("parts.part-1-of-3"), read(path("parts.part-0-of-3")))
    result = ttc("profile", SOURCE, "--json", path("parts"), "--join", "3")
    check(result.returncode == 3, "a part that is another is refused", result.stderr)


def refused(data, what):
    write(path("bad.part-0-of-1"), data)
    result = ttc("profile", SOURCE, "--json", path("bad"), "--join", "1")
    check(result.returncode == 3, f"refused: {what}", (result.returncode, result.stderr))
    return result.stderr.decode()


def check_hostile(whole):
    random.seed(1)
    text = whole.decode()
    for _ in range(20 if QUICK else 60):
        refused(whole[: random.randrange(len(whole) - 2)], "cut off")
    for old, new in (
        ('"schema":1', '"schema":2'),
        ('"schema":1,', ""),
        ('"schema":1', '"schema":1,"schema":1'),
        ('"rows":64', '"rows":63'),
        ('"rows":64', '"rows":99999999999999999999'),
        ('"rows":64', '"rows":-64'),
        ('"ranks":[1,16,1]', '"ranks":[1,16,2]'),
        ('"ranks":[1,16,1]', '"ranks":[1,0,1]'),
        ('"ranks":[1,16,1]', '"ranks":[1,16,1,1]'),
        ('"ranks":[1,16,1]', '"ranks":' + "[" * 100000),
        ('"ranks":[1,16,1]', '"ranks":[' + ",".join("1" * 100) + "]"),
        ('"weight_error":', '"weight_error":-'),
        ('"weight_error":', '"weight_error":nan,"x":'),
        ('"weight_error":', '"weight_error":1e999,"x":'),
        ('"weight_error":', '"weight_error":0x1,"x":'),
        ('"functional_error":null', '"functional_error":"null"'),
        ('"params":4096', '"params":4095'),
        ('"bytes":16640', '"bytes":0'),
        ('"dtype":"I8"', '"dtype":"I9"'),
        ('"dtype":"I8"', '"dtype":"E4M3"'),
        ('"bond":0', '"bond":1'),
        ('"bond":0', '"bond":4000000000'),
        ('"tail_ranks":[41,58]', '"tail_ranks":[41]'),
        ('"index":[0,1', '"index":[1,0'),
        ('"index":[0,', '"index":[0,0,'),
        ('"spectrum":[', '"spectrum":[0,'),
        ('"tensor_sha256":"b', '"tensor_sha256":"B'),
        ('"tensor_sha256":"', '"tensor_sha256":"0'),
        ('"name":"fc2"', '"name":"fc1"'),
        ('"name":"fc1"', '"name":"\\u0007"'),
        ('"candidates":[', '"candidates":[{},'),
        ("]}\n", "]}\n]"),
    ):
        check(old in text, f"{old} is in the profile")
        refused(text.replace(old, new, 1).encode(), f"{old[:30]} -> {new[:30]}")
    for _ in range(100 if QUICK else 300):                  # no crash, whatever the verdict
        broken = bytearray(whole)
        for _ in range(3):
            broken[random.randrange(len(broken))] = random.choice(b'0159-{}[]",:.eE\x00\xff ')
        write(path("bad.part-0-of-1"), bytes(broken))
        result = ttc("profile", SOURCE, "--json", path("bad"), "--join", "1")
        check(result.returncode in (0, 3), "broken bytes", (result.returncode, result.stderr))


def check_other_checkpoint(whole):
    content = tensors(read(SOURCE))
    weights = bytearray(content["fc2.weight"][2])
    weights[0] ^= 1
    content["fc2.weight"][2] = bytes(weights)
    write(path("other.safetensors"), safetensors(content))
    write(path("other.part-0-of-1"), whole)
    result = ttc("profile", path("other.safetensors"), "--json", path("other"), "--join", "1")
    check(result.returncode == 3, "a profile of another checkpoint is refused")
    check(b"layer fc2" in result.stderr, "and names the layer that differs", result.stderr)


def check_bare():
    """Layers without biases, which fits to inputs must not give them."""
    weights = {n: t for n, t in tensors(read(SOURCE)).items() if n.endswith("weight")}
    write(path("bare.safetensors"), safetensors(weights))
    options = ["--inputs", path("inputs.safetensors")]
    out = good("profile", path("bare.safetensors"), "--json", "-", *options)
    check_compress(path("bare.safetensors"), json.loads(out), options)


def check_odd():
    """Layers of one row, of one number, of zeros; halves; no layer at all; a number that is none."""
    zeros, half, one = b"\0" * 4 * 48, b"\x00\x3c" * 40, struct.pack("<f", 3)
    content = {
        "zeros.weight": ["F32", [6, 8], zeros],
        "row.weight": ["F16", [1, 40], half],
        "one": ["F32", [1, 1], one],
        "column <&>.weight": ["BF16", [40, 1], half],
    }
    write(path("odd.safetensors"), safetensors(content))
    out = json.loads(
        good("profile", path("odd.safetensors"), "--json", "-", "--svg", path("odd"))
    )
    check(len(out["layers"]) == 4, "odd layers are profiled")
    for layer in out["layers"]:
        for candidate in layer["candidates"]:
            exact = candidate["weight_error"] == 0
            check(exact or layer["name"] != "zeros", "a layer of zeros has no error")
    for which in "spectra", "entropy", "candidates":
        xml.etree.ElementTree.parse(path(f"odd-{which}.svg"))        # raises if it is no XML
        check(b"nan" not in read(path(f"odd-{which}.svg")), f"no NaN in {which}")
    write(path("none.safetensors"), safetensors({"bias": ["F32", [1], one]}))
    good("profile", path("none.safetensors"), "--svg", path("none"))
    content["one"][2] = struct.pack("<f", float("nan"))
    write(path("nan.safetensors"), safetensors(content))
    result = ttc("profile", path("nan.safetensors"))
    check(result.returncode == 3 and b"layer one" in result.stderr, "NaN", result.stderr)


def check_command_line():
    check(ttc("profile", SOURCE, "--layer", "(").returncode == 2, "a bad pattern is a usage error")
    check(ttc("profile", SOURCE, "--layer", "fc9").returncode == 3, "a pattern without a layer")
    check(ttc("profile", SOURCE, "--shard", "0/2").returncode == 2, "a shard needs a file")
    check(ttc("profile", path("missing")).returncode == 1, "no file")
    result = ttc("profile", path("odd.safetensors"), "--json", path("odd.safetensors"))
    check(result.returncode == 2, "the checkpoint is not written over")
    out = json.loads(good("profile", SOURCE, "--json", "-", "--layer", "^fc2$"))
    check([l["name"] for l in out["layers"]] == ["fc2"], "--layer chooses")


def main():
    write(path("inputs.safetensors"), make_inputs())
    for options in ([], ["--inputs", path("inputs.safetensors")]):
        good("profile", SOURCE, "--json", path("profile.json"), *options)
        whole = read(path("profile.json"))
        profile = json.loads(whole)
        check_compress(SOURCE, profile, options)
        check_shards(options, whole)
        out = good("profile", SOURCE, "--json", "-", *options).encode()
        check(out == whole, "twice the same bytes")
        if not options:
            check_hostile(whole)
            check_other_checkpoint(whole)
    check_bare()
    check_odd()
    check_command_line()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
