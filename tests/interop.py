"""tt.h against the reference implementations of others. Usage: interop.py BUILD_FOLDER

BUILD_FOLDER holds the program `interop`. safetensors opens our files and we open theirs; ml_dtypes
and numpy agree with our number formats code by code; TensorLy finds the same ranks and errors;
examples/python/load_tt.py rebuilds what tt_expand gives.
"""

import hashlib
import json
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
import tensorly
from tensorly.decomposition import tensor_train, tensor_train_matrix

BUILD = os.path.abspath(sys.argv[1])
sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "examples", "python")
)
sys.dont_write_bytecode = True
import load_tt

SMALL = {
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}
TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "I8": np.int8,
    "U8": np.uint8,
    "I16": np.int16,
    "U16": np.uint16,
    "I32": np.int32,
    "U32": np.uint32,
    "I64": np.int64,
    "U64": np.uint64,
    "BOOL": np.bool_,
    **SMALL,
}
passed = failed = 0


def check(good, what):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print("interop: FAILED: " + what)


def program(*arguments):
    result = subprocess.run(
        [os.path.join(BUILD, "interop"), *arguments], capture_output=True, text=True
    )
    if result.returncode:
        print(result.stdout + result.stderr)
    check(result.returncode == 0, "interop " + " ".join(arguments[:2]))
    return result.stdout


def same(a, b):
    """Equal bits, any NaN equal to any NaN."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return a.shape == b.shape and bool(
        np.all((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b)))
    )


def check_numbers():
    halves = np.arange(65536, dtype=np.uint16)
    with np.errstate(all="ignore"):
        inputs = [
            halves.view(np.float16).astype(np.float32),
            (halves.astype(np.uint32) << 16).view(np.float32),
        ]
        for kind in SMALL.values():  # midpoints of neighbours, and the floats beside them
            size = np.dtype(kind).itemsize
            codes = np.arange(256**size // 2, dtype=f"u{size}")
            values = codes.view(kind).astype(np.float64)
            values = values[np.isfinite(values)]
            last = (
                2 * values[-1] - values[-2]
            )  # where the next number would be: the border of overflow
            middles = ((values + np.append(values[1:], last)) / 2).astype(np.float32)
            bits = middles.view(np.uint32)
            near = np.concatenate([bits - 1, bits, bits + 1])
            inputs.append(np.concatenate([near, near | 0x80000000]).view(np.float32))
        given = np.concatenate(inputs)
        given.tofile(os.path.join(BUILD, "inputs.f32"))
        program("codes", BUILD)
        for name, kind in SMALL.items():
            size = np.dtype(kind).itemsize
            ours = np.fromfile(os.path.join(BUILD, name + ".decoded"), np.float32)
            theirs = np.arange(256**size, dtype=f"u{size}").view(kind).astype(np.float32)
            check(same(ours, theirs), f"{name}: all {256 ** size} codes decode alike")
            ours = np.fromfile(os.path.join(BUILD, name + ".encoded"), np.uint16).astype(f"u{size}")
            theirs = given.astype(kind)
            number = np.isnan(theirs.astype(np.float32))
            equal = (ours == theirs.view(f"u{size}")) | (
                number & np.isnan(ours.view(kind).astype(np.float32))
            )
            check(
                len(ours) == len(given) and bool(np.all(equal)),
                f"{name}: all {len(given)} inputs encode alike",
            )


def check_our_files():
    program("write", BUILD)
    path = os.path.join(BUILD, "raw.safetensors")
    with safetensors.safe_open(path, "np") as file:
        check(len(file.keys()) == 17, "their reader lists 17 tensors")
        check(
            file.metadata()["note"] == 'quotes " backslash \\ newline \n tab \t e-acute \u00e9',
            "metadata survive",
        )
    with open(path, "rb") as file:
        raw = file.read()
    entries = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    check((8 + int.from_bytes(raw[:8], "little")) % 8 == 0, "data start aligned")
    tensors = dict(safetensors.deserialize(raw))
    counting = bytes(range(120))
    for name, kind in TYPES.items():
        entry, size = tensors[name], np.dtype(kind).itemsize
        wanted = bytes(t % 2 for t in range(15)) if name == "BOOL" else counting[: 15 * size]
        check(
            entry["dtype"] == name and entry["shape"] == [3, 5] and bytes(entry["data"]) == wanted,
            f"raw {name}",
        )
    check(
        tensors["scalar"]["shape"] == [] and bytes(tensors["scalar"]["data"]) == b"\0\0\x80\x3f",
        "raw scalar",
    )
    check(
        tensors['empty "\\ \u00e9']["shape"] == [2, 0, 4], "raw empty tensor with a difficult name"
    )
    check(
        entries["F64"]["data_offsets"][1] - entries["F64"]["data_offsets"][0] == 120,
        "offsets of F64",
    )


def check_their_files():
    random = np.random.default_rng(1)
    tensors = {}
    for name, kind in TYPES.items():
        if name in ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I8", "U8"):
            for number, dims in enumerate([(4, 3), (7,), (), (2, 0, 3), (2, 3, 4, 5)]):
                values = random.standard_normal(dims) * 20
                tensors[f"{name}.{number}"] = np.asarray(
                    np.abs(values) if name == "U8" else values
                ).astype(kind)
    path = os.path.join(BUILD, "theirs.safetensors")
    safetensors.numpy.save_file(tensors, path, metadata={"who": 'reference \u00fc "x"'})
    listed = {}
    output = program("dump", path, BUILD)
    for line in output.splitlines():
        if line.startswith("metadata "):
            check(line == 'metadata who=reference \u00fc "x"', "their metadata")
            continue
        index, dtype, name, *dims = line.split()
        listed[name] = dtype
        ours = np.fromfile(os.path.join(BUILD, index + ".f32"), np.float32)
        theirs = tensors[name].astype(np.float32)
        check(
            list(theirs.shape) == [int(d) for d in dims] and dtype == name.split(".")[0],
            f"{name}: type and shape",
        )
        check(same(ours, theirs.ravel()), f"{name}: values")
    check(len(listed) == len(tensors), "as many tensors as they wrote")


def check_load_tt():
    path = os.path.join(BUILD, "trains.safetensors")
    with open(path, "rb") as file:
        tensors = dict(safetensors.deserialize(file.read()))
    layers = sorted({name.split(".cores.")[0] for name in tensors if ".cores." in name})
    check(len(layers) == 22, f"22 layers in the file of trains, not {len(layers)}")
    for layer in layers:
        dense = tensors[layer + ".dense"]
        wanted = np.frombuffer(dense["data"], "<f4").reshape(dense["shape"]).astype(np.float64)
        got = load_tt.load(path, layer)
        error = (
            np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
            if got.shape == wanted.shape
            else 9
        )
        check(error < 1e-6, f"load_tt.py rebuilds {layer} (error {error:.1e})")


def tensors_to_compress():
    """(name, tensor, ranks): random ones, and tensors of low rank and of fast falling spectra."""
    random = np.random.default_rng(7)
    grid = [np.arange(1, n + 1) for n in (6, 7, 8, 5)]
    index = np.ix_(*grid)
    total = index[0] + index[1] + index[2] + index[3]
    yield "random4", random.standard_normal((6, 7, 8, 5)), [1, 4, 9, 3, 1]
    yield "random3", random.standard_normal((12, 10, 11)), [1, 5, 6, 1]
    yield "random2", random.standard_normal((40, 30)), [1, 12, 1]
    yield "random5", random.standard_normal((4, 5, 3, 5, 4)), [1, 2, 7, 6, 3, 1]
    yield "full", random.standard_normal((4, 5, 6)), [1, 4, 6, 1]
    yield "hilbert", 1.0 / (total - 3), [1, 3, 4, 3, 1]
    yield "sine", np.sin(0.3 * total), [1, 2, 2, 2, 1]
    yield "sqrt", np.sqrt(total), [1, 2, 3, 2, 1]
    cores = [random.standard_normal(dims) for dims in ((1, 6, 3), (3, 7, 4), (4, 8, 2), (2, 5, 1))]
    yield "low", np.einsum("aib,bjc,ckd,dle->ijkl", *cores), [1, 3, 4, 2, 1]


def check_one(name, path, tensor, rows, cols, ranks, theirs):
    """Compresses with tt.h to the ranks of TensorLy: same ranks, same error, and it is true."""
    output = program(
        "compress",
        path,
        name,
        *(",".join(str(n) for n in numbers) for numbers in (rows, cols, ranks)),
        BUILD,
    )
    if not output:
        return
    error, *got = output.split()
    wanted = [core.shape[0] for core in theirs[0]] + [1]
    check([int(rank) for rank in got] == wanted, f"{name}: ranks {got} as TensorLy's {wanted}")
    error = float(error)
    dense = np.fromfile(os.path.join(BUILD, "dense.f64")).reshape(tensor.shape)
    norm = np.linalg.norm(tensor)
    measured, reference = (
        np.linalg.norm(dense - tensor) / norm,
        np.linalg.norm(theirs[1] - tensor) / norm,
    )
    check(
        abs(error - reference) <= 1e-6 * reference + 1e-13,
        f"{name}: error {error:.9e} as TensorLy's {reference:.9e}",
    )
    check(
        abs(error - measured) <= 1e-6 * measured + 1e-13,
        f"{name}: error {error:.9e} as measured {measured:.9e}",
    )
    check(np.linalg.norm(dense - theirs[1]) <= 1e-7 * norm, f"{name}: the same approximation")
    print(f"  {name:10} ranks {wanted}  error tt.h {error:.9e}  TensorLy {reference:.9e}")


def check_tensorly():
    cases, files = [], {}
    for name, tensor, ranks in tensors_to_compress():
        train = tensor_train(tensor, ranks)
        theirs = (train.factors, tensorly.tt_to_tensor(train))
        cases.append((name, tensor, tensor.shape, [1] * tensor.ndim, ranks, theirs))
        files[name] = np.ascontiguousarray(tensor)
    for name, rows, cols, ranks in (
        ("matrix3", (4, 3, 5), (3, 4, 2), [1, 6, 5, 1]),
        ("matrix2", (6, 5), (7, 4), [1, 9, 1]),
    ):
        dense = np.random.default_rng(3).standard_normal((int(np.prod(rows)), int(np.prod(cols))))
        pairs = tensor_train_matrix(dense.reshape(*rows, *cols), ranks)
        rebuilt = tensorly.tt_matrix_to_tensor(pairs).reshape(dense.shape)
        cases.append((name, dense, rows, cols, ranks, (pairs.factors, rebuilt)))
        files[name] = dense
    path = os.path.join(BUILD, "compress.safetensors")
    safetensors.numpy.save_file(files, path)
    for name, tensor, rows, cols, ranks, theirs in cases:
        check_one(name, path, tensor, rows, cols, ranks, theirs)


def check_fits():
    """Moments, digest, whitened SVD and GPTQ as numpy computes them."""
    random = np.random.default_rng(11)
    mix = random.standard_normal((48, 96)) / (1 + np.arange(48))[:, None]
    x = (random.standard_normal((400, 48)) @ mix + 0.5).astype(np.float32)
    w = random.standard_normal((64, 96)).astype(np.float32)
    path, rank = os.path.join(BUILD, "fit.safetensors"), 9
    safetensors.numpy.save_file({"a.inputs": x, "a.weight": w}, path)
    errors = [float(word) for word in program("fit", path, str(rank), BUILD).split()]
    moments = safetensors.numpy.load_file(os.path.join(BUILD, "moments.safetensors"))
    wide = x.astype(np.float64)
    covariance = np.cov(wide.T, bias=True)
    check(moments["a.inputs.count"][0] == len(x), "fit: count")
    check(np.allclose(moments["a.inputs.mean"], wide.mean(0), rtol=1e-12), "fit: mean")
    check(np.allclose(moments["a.inputs.covariance"], covariance, atol=1e-12), "fit: covariance")
    digest = hashlib.sha256(x.astype("<f4").tobytes()).digest()
    check(moments["a.inputs.sha256"].tobytes() == digest, "fit: SHA-256")
    ridged = covariance + 1e-3 * np.trace(covariance) / 96 * np.eye(96)
    factor = np.linalg.cholesky(ridged)
    u, s, v = np.linalg.svd(w @ factor, full_matrices=False)
    optimum = (u[:, :rank] * s[:rank]) @ v[:rank] @ np.linalg.inv(factor)
    low = np.fromfile(os.path.join(BUILD, "low_rank.f64")).reshape(w.shape)
    check(np.linalg.norm(low - optimum) <= 1e-9 * np.linalg.norm(w), "fit: whitened SVD")
    whole = np.trace(w @ covariance @ w.T)
    for name, dense, error in (
        ("whitened SVD", low, errors[0]),
        ("INT4", np.fromfile(os.path.join(BUILD, "int4.f64")).reshape(w.shape), errors[1]),
    ):
        lost = np.trace((w - dense) @ covariance @ (w - dense).T)
        check(abs(error - np.sqrt(lost / whole)) <= 1e-6 * error, f"fit: functional error, {name}")
    dense = dense.reshape(-1, 32)
    rounded = w.astype(np.float64).reshape(-1, 32)
    scale = np.abs(rounded).max(1, keepdims=True) / 7
    rounded = (np.clip(np.rint(rounded / scale), -7, 7) * scale).reshape(w.shape)
    nearest = np.sqrt(np.trace((w - rounded) @ covariance @ (w - rounded).T) / whole)
    check(errors[1] < 0.8 * nearest, f"fit: INT4 {errors[1]:.4f} against nearest {nearest:.4f}")
    codes = dense / np.abs(dense).max(1, keepdims=True)
    check(all(len(np.unique(np.round(row, 9))) <= 15 for row in codes), "fit: at most 15 codes")
    print(f"  whitened SVD {errors[0]:.6f}, INT4 {errors[1]:.4f}, nearest codes {nearest:.4f}")


check_numbers()
check_fits()
check_our_files()
check_their_files()
check_load_tt()
check_tensorly()
print(f"interop: {passed} passed, {failed} failed")
sys.exit(failed != 0)
