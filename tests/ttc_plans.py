"""Which plans fit a target: those whose file does, to the byte.
    python3 ttc_plans.py TTC MODEL INPUTS

Each candidate is first built for all layers, which gives the size of that uniform plan. With just
that size as the target it must be among the plans that --eval scores, with a byte less it must not,
and the same holds for every other candidate.

And which mixture no plan takes: one that only takes the small errors of a layer, which smooth
inputs make small, for a licence to code it coarsely. Standard library."""
import json
import os
import subprocess
import sys

import ttc_files

TTC, MODEL, INPUTS = sys.argv[1:4]
LIST = ["i8", "i4", "i2", "svd:6", "svd:4+i8", "tt:3", "tt:3+i4"]


def ttc(*arguments):
    return subprocess.run([TTC, "compress", MODEL, *arguments], capture_output=True, text=True)


def total(result):
    return json.loads(result.stdout)["total"]["bytes"]


def check(options):
    failed = 0
    sizes = {}
    for spec in LIST:
        sizes[spec] = total(ttc("--dry-run", "--layer", ".=" + spec, "--json", "-", *options))
    for target in sorted({size - less for size in sizes.values() for less in (0, 1)}):
        wanted = {c for c, size in sizes.items() if size <= target}
        ratio = repr(os.path.getsize(MODEL) / (target + 0.5))
        result = ttc("-o", "plans.out", "-f", "--target-ratio", ratio, "--eval", "echo 1 #",
                     "--candidates", ",".join(LIST), "--json", "-", *options)
        lines = [line.split() for line in result.stderr.splitlines()]
        scored = {line[2].rstrip(":") for line in lines if line[:2] == ["ttc:", "plan"]}
        scored.discard("mixed")
        good = scored == wanted and result.returncode == (0 if wanted else 4)
        good = good and (not wanted or total(result) == os.path.getsize("plans.out") <= target)
        if not good:
            print(f"target {target} {options}: {scored} instead of {wanted}\n{result.stderr}")
        failed += not good
    return failed


def check_mixture():
    """Two layers alike but for the scale of their errors: within the bytes of i3, both become i3."""
    noise = {name: ("F32", [64, 64], ttc_files.vector(64 * 64, seed))
             for seed, name in ((1, "rough.weight"), (2, "smooth.weight"))}
    ttc_files.save("alike.st", noise)
    ttc_files.save("alike-inputs.st", {
        "rough.inputs": ("F32", [200, 64], ttc_files.vector(200 * 64, 3)),
        "smooth.inputs": ("F32", [200, 64], ttc_files.samples(200, 64, 4)),
    })
    options = ["-q", "--dry-run", "--json", "-", "--inputs", "alike-inputs.st"]
    command = [TTC, "compress", "alike.st", *options]
    uniform = json.loads(subprocess.check_output([*command, "--layer", ".=i3"]))
    errors = [layer["functional_error"] for layer in uniform["layers"]]
    ratio = repr(os.path.getsize("alike.st") / (uniform["total"]["bytes"] + 0.5))
    chosen = json.loads(subprocess.check_output(
        [*command, "--target-ratio", ratio, "--candidates", "i4,i3,i2"]))
    decisions = [layer["decision"] for layer in chosen["layers"]]
    good = errors[0] > 2 * errors[1] and decisions == ["i3", "i3"]
    if not good:
        print(f"errors {errors} of i3 for both; the plan has {decisions}")
    return not good


WITH_INPUTS = ["--inputs", INPUTS]
failures = sum(map(check, ([], WITH_INPUTS, WITH_INPUTS + ["--add-bias"]))) + check_mixture()
sys.exit(failures != 0)
