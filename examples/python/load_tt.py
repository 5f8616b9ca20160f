"""Rebuilds dense matrices from a file written by tt.h.   python load_tt.py FILE [LAYER ...]"""
import json
import struct
import sys

import numpy as np

PLAIN = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?", "I8": "i1", "U8": "u1", "I16": "<i2",
         "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8"}
BITS = {"I4": 4, "I3": 3, "I2": 2}


def read(path):
    """All tensors of a safetensors file by name, and its metadata."""
    raw = open(path, "rb").read()
    data = 8 + struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:data])
    meta, tensors = header.pop("__metadata__", {}), {}
    for name, t in header.items():
        part = raw[data + t["data_offsets"][0]:data + t["data_offsets"][1]]
        if t["dtype"] == "BF16":        # the upper half of a float32
            values = (np.frombuffer(part, "<u2").astype("<u4") << 16).view("<f4")
        elif t["dtype"] in ("F8_E4M3", "F8_E5M2"):
            values = fp8(np.frombuffer(part, "u1"), 4 if t["dtype"] == "F8_E4M3" else 5)
        else:
            values = np.frombuffer(part, PLAIN[t["dtype"]])
        tensors[name] = values.reshape(t["shape"])
    return tensors, meta


def fp8(codes, exponent_bits):
    """8-bit floats: sign, exponent, mantissa; E4M3 has no infinity."""
    mantissa_bits = 7 - exponent_bits
    exponent = (codes & 127) >> mantissa_bits
    mantissa = (codes & (2 ** mantissa_bits - 1)) / 2.0 ** mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    value = np.where(exponent, 1 + mantissa, 2 * mantissa) * 2.0 ** (exponent.astype(int) - bias)
    top = (codes & 127) if exponent_bits == 4 else exponent
    special = top == (127 if exponent_bits == 4 else 31)
    odd = np.where((mantissa == 0) & (exponent_bits == 5), np.inf, np.nan)
    return np.where(codes & 128, -1, 1) * np.where(special, odd, value)


def unpack(bytes_, length, bits):
    """Rows of little-endian bit streams -> (rows, length) integers in two's complement."""
    stream = np.unpackbits(bytes_, axis=1, bitorder="little")[:, :length * bits]
    codes = stream.reshape(len(bytes_), length, bits).astype(int) @ (1 << np.arange(bits))
    return codes - ((codes >> (bits - 1)) << bits)


def load(path, layer):
    """The dense matrix (outputs, inputs) of a layer, in float64."""
    return matrix(*read(path), layer)


def matrix(tensors, meta, layer):
    """The same from what read() gave."""
    if f"{layer}.weight" in tensors:
        return tensors[f"{layer}.weight"].astype(float)
    info = json.loads(meta.get("tt.layers", "{}")).get(layer, {})
    left_to_right, dense = info.get("sweep", 0), np.ones((1, 1, 1))     # (rows, cols, rank) so far
    for k in range(sum(name.startswith(f"{layer}.cores.") for name in tensors)):
        core, dtype = tensors[f"{layer}.cores.{k}"], info["cores"][k]["dtype"] if info else ""
        if dtype in BITS:               # the shape of packed codes stands in the metadata alone
            m, n, r, s = info["rows"][k], info["cols"][k], info["ranks"][k], info["ranks"][k + 1]
            shape = (m, s, r, n) if left_to_right else (r, m, n, s)
            core = unpack(core, shape[2] * shape[3], BITS[dtype]).reshape(shape)
        shape = core.shape
        core = core.reshape(shape[0] * shape[1], -1).astype(float)      # rows of the GEMM view
        if f"{layer}.scales.{k}" in tensors:
            scales = tensors[f"{layer}.scales.{k}"].astype(float).reshape(len(core), -1)
            group = info["cores"][k].get("group", 32) if info and scales.shape[1] > 1 else 32
            group = core.shape[1] if scales.shape[1] == 1 else group
            core = core * np.repeat(scales, group, axis=1)[:, :core.shape[1]]
        core = core * tensors.get(f"{layer}.scale.{k}", np.ones(1)).astype(float).reshape(-1)[0]
        core = core.reshape(shape).transpose((2, 0, 3, 1) if left_to_right else (0, 1, 2, 3))
        a, b, r = dense.shape
        _, m, n, s = core.shape
        dense = (dense.reshape(-1, r) @ core.reshape(r, -1)).reshape(a, b, m, n, s)
        dense = dense.transpose(0, 2, 1, 3, 4).reshape(a * m, b * n, s)
    rows, cols = info.get("size", dense.shape[:2])                      # cuts off zero padding
    return dense[:rows, :cols, 0]


def write(path, tensors):
    """A safetensors file of float64, float32 and uint8 arrays by name."""
    names = {"f8": "F64", "f4": "F32", "u1": "U8"}
    header, data = {}, []
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):
        part = np.ascontiguousarray(tensors[name]).astype(tensors[name].dtype.newbyteorder("<"))
        begin = sum(map(len, data))
        data.append(part.tobytes())
        header[name] = {"dtype": names[part.dtype.str[1:]], "shape": part.shape,
                        "data_offsets": [begin, begin + len(data[-1])]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(data)


if __name__ == "__main__":
    stored = {name.split(".cores.")[0] for name in read(sys.argv[1])[0] if ".cores." in name}
    for name in sys.argv[2:] or sorted(stored):
        dense = load(sys.argv[1], name)
        print(name, dense.shape, "norm %.6f" % np.linalg.norm(dense))
