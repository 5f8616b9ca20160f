"""Checkpoints for the tests of ttc: small, deterministic, the same bits everywhere.
    python3 ttc_files.py FOLDER            writes them all
    python3 ttc_files.py FILE LAYERS ROWS COLS   one checkpoint of many equal layers
Weights are smooth plus a little noise of a linear congruential generator, so that every number of
the tests has a few certain digits. Standard library only."""
import array
import json
import os
import struct
import sys

FORMATS = {"F32": "f", "F16": "e", "F64": "d", "I64": "q", "U8": "B"}


def save(path, tensors, metadata=None):
    """tensors: name -> (dtype, shape, numbers)"""
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, numbers) in tensors.items():
        piece = struct.pack("<%d%s" % (len(numbers), FORMATS[dtype]), *numbers)
        offsets = [len(data), len(data) + len(piece)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += piece
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


class Noise:
    def __init__(self, seed):
        self.state = seed

    def __call__(self):
        """A multiple of 1/1024 in [-1, 1)."""
        self.state = (self.state * 1103515245 + 12345) % 2**31
        return (self.state >> 16) % 2048 / 1024 - 1


def weights(rows, cols, seed, noise=0.02):
    random = Noise(seed)
    return [
        1 / (1 + abs(i / rows - j / cols) * 8) + noise * random()
        for i in range(rows) for j in range(cols)
    ]


def vector(count, seed):
    random = Noise(seed)
    return [random() for _ in range(count)]


def checkpoint(seed):
    return {
        "enc.0.fc.weight": ("F32", [24, 32], weights(24, 32, seed)),
        "enc.0.fc.bias": ("F32", [24], vector(24, seed + 1)),
        "enc.1.fc.weight": ("F32", [32, 24], weights(32, 24, seed + 2)),
        "half.weight": ("F16", [16, 24], weights(16, 24, seed + 3)),
        "half.bias": ("F16", [16], vector(16, seed + 4)),
        "table": ("F32", [40, 16], weights(40, 16, seed + 5)),
        "noise.weight": ("F32", [12, 12], vector(144, seed + 6)),
        "norm.weight": ("F32", [24], vector(24, seed + 7)),
        "ids": ("I64", [5], [3, 1, 4, 1, 5]),
    }


def samples(count, cols, seed):
    random = Noise(seed)
    rows = []
    for _ in range(count):
        level, slope = random(), random()
        rows += [level + slope * (j / cols - 0.5) + 0.25 + 0.1 * random() for j in range(cols)]
    return rows


def moments(x, count, cols):
    mean = [sum(x[j::cols]) / count for j in range(cols)]
    covariance = [
        sum((x[s * cols + i] - mean[i]) * (x[s * cols + j] - mean[j]) for s in range(count)) / count
        for i in range(cols) for j in range(cols)
    ]
    return mean, covariance


def sharded(folder, tensors):
    names = sorted(tensors)
    parts = {"part-1.safetensors": names[::2], "part-2.safetensors": names[1::2]}
    for part, inside in parts.items():
        save(os.path.join(folder, part), {name: tensors[name] for name in inside})
    places = {name: part for part, inside in parts.items() for name in inside}
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as file:
        json.dump(index, file, sort_keys=True)


def small(folder):
    def path(name):
        return os.path.join(folder, name)

    tensors = checkpoint(1)
    save(path("model.st"), tensors, {"title": 'a "small" model'})
    save(path("other.st"), checkpoint(100))
    broken = checkpoint(1)
    broken["half.weight"][2][7] = float("nan")
    save(path("nan.st"), broken)
    x = samples(60, 32, 9)
    y = samples(60, 24, 10)
    mean, covariance = moments(y, 60, 24)
    save(path("inputs.st"), {
        "enc.0.fc.inputs": ("F32", [60, 32], x),
        "enc.1.fc.inputs.count": ("F64", [1], [60]),
        "enc.1.fc.inputs.mean": ("F64", [24], mean),
        "enc.1.fc.inputs.covariance": ("F64", [24, 24], covariance),
        "table.row_weights": ("F32", [40], [1 + 4 * (i < 4) for i in range(40)]),
    })
    broken = checkpoint(1)
    broken["half.bias"][2][7] = float("inf")
    save(path("infinite.st"), broken)
    save(path("odd.st"), {
        "n" * 1018 + ".w": ("F32", [12, 12], vector(144, 1)),
        "largest": ("F32", [8, 64], [3.4e38] * 512),
    })
    save(path("wide.st"), {"enc.0.fc.inputs": ("F32", [60, 31], samples(60, 31, 9))})
    save(path("weights.st"), {"table.row_weights": ("F32", [39], [1] * 39)})
    save(path("strangers.st"), {"decoder.inputs": ("F32", [60, 31], samples(60, 31, 9))})
    save(path("empty.st"), {"ids": ("I64", [1], [7])})
    sharded(folder, tensors)
    with open(path("model.st"), "rb") as file:
        whole = file.read()
    with open(path("cut.st"), "wb") as file:
        file.write(whole[:-1])


def large(path, layers, rows, cols):
    size, header, at = 4 * rows * cols, {}, 0
    for i in range(layers):
        name = "layer.%d.weight" % i
        header[name] = {"dtype": "F32", "shape": [rows, cols], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = Noise(5)
    base = array.array("f", [random() for _ in range(4999)])
    if sys.byteorder == "big":
        base.byteswap()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        block = base.tobytes() * (size // (4 * len(base)) + 2)
        for i in range(layers):
            file.write(block[4 * i:4 * i + size])


if __name__ == "__main__":
    if len(sys.argv) == 2:
        small(sys.argv[1])
    else:
        large(sys.argv[1], *map(int, sys.argv[2:]))
