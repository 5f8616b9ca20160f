"""Files of tt.h in Python.   python load_tt.py FILE [LAYER ...]   rebuilds the dense matrices

With numpy alone: read, write, load. Where torch can be imported, layers stored as trains become
modules that keep their cores, so that a compressed network runs and learns as it is:

    model = Net()                                        # with its nn.Linear and nn.Embedding
    load_tt.load_into(model, "compressed.safetensors")   # trains replace them, the rest is loaded
    train(model)
    load_tt.save(model, "healed.safetensors")            # a file of tt.h again
"""

import json
import struct
import sys

import numpy as np

try:
    import torch
except ImportError:
    torch = None

PLAIN = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BOOL": "?",
    "I8": "i1",
    "U8": "u1",
    "I16": "<i2",
    "U16": "<u2",
    "I32": "<i4",
    "U32": "<u4",
    "I64": "<i8",
    "U64": "<u8",
}
BITS = {"I4": 4, "I3": 3, "I2": 2}


def read(path):
    """All tensors of a safetensors file by name, and its metadata."""
    raw = open(path, "rb").read()
    data = 8 + struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:data])
    meta, tensors = header.pop("__metadata__", {}), {}
    for name, t in header.items():
        part = raw[data + t["data_offsets"][0] : data + t["data_offsets"][1]]
        if t["dtype"] == "BF16":  # the upper half of a float32
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
    mantissa = (codes & (2**mantissa_bits - 1)) / 2.0**mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    value = np.where(exponent, 1 + mantissa, 2 * mantissa) * 2.0 ** (exponent.astype(int) - bias)
    top = (codes & 127) if exponent_bits == 4 else exponent
    special = top == (127 if exponent_bits == 4 else 31)
    odd = np.where((mantissa == 0) & (exponent_bits == 5), np.inf, np.nan)
    return np.where(codes & 128, -1, 1) * np.where(special, odd, value)


def unpack(packed, length, bits):
    """Rows of little-endian bit streams -> (rows, length) integers in two's complement."""
    stream = np.unpackbits(packed, axis=1, bitorder="little")[:, : length * bits]
    stream = stream.reshape(len(packed), length, bits).view(np.int8)
    codes = sum(stream[:, :, bit] << bit for bit in range(bits))
    return codes - ((codes >> (bits - 1)) << bits)


def train(tensors, meta, layer):
    """Cores (rank, rows, cols, next rank) of a layer in float64, scales multiplied in, and the size
    of its matrix. What read() gave comes in; of the metadata only what tensors cannot say is used.
    """
    info = json.loads(meta.get("tt.layers", "{}")).get(layer, {})
    left_to_right, coded, cores = info.get("sweep", 0), info.get("cores"), []
    for k in range(sum(name.startswith(f"{layer}.cores.") for name in tensors)):
        core, dtype = tensors[f"{layer}.cores.{k}"], coded[k]["dtype"] if coded else ""
        if dtype in BITS:  # the shape of packed codes stands in the metadata alone
            m, n, r, s = info["rows"][k], info["cols"][k], info["ranks"][k], info["ranks"][k + 1]
            shape = (m, s, r, n) if left_to_right else (r, m, n, s)
            core = unpack(core, shape[2] * shape[3], BITS[dtype]).reshape(shape)
        shape = core.shape
        core = core.reshape(shape[0] * shape[1], -1).astype(float)  # rows of the GEMM view
        if f"{layer}.scales.{k}" in tensors:
            scales = tensors[f"{layer}.scales.{k}"].astype(float).reshape(len(core), -1)
            group = coded[k].get("group", 32) if coded else 32
            group = core.shape[1] if scales.shape[1] == 1 else group
            core *= np.repeat(scales, group, axis=1)[:, : core.shape[1]]
        core = core * tensors.get(f"{layer}.scale.{k}", np.ones(1)).astype(float).reshape(-1)[0]
        cores.append(core.reshape(shape).transpose((2, 0, 3, 1) if left_to_right else (0, 1, 2, 3)))
    sides = [int(np.prod([core.shape[axis] for core in cores])) for axis in (1, 2)]
    return cores, info.get("size", sides)


def matrix(tensors, meta, layer):
    """The dense matrix (outputs, inputs) of a layer in float64, from what read() gave."""
    if f"{layer}.weight" in tensors:
        return tensors[f"{layer}.weight"].astype(float)
    cores, (rows, cols) = train(tensors, meta, layer)
    dense = np.ones((1, 1, 1))  # (rows, cols, rank) so far
    for core in cores:
        a, b, r = dense.shape
        _, m, n, s = core.shape
        dense = (dense.reshape(-1, r) @ core.reshape(r, -1)).reshape(a, b, m, n, s)
        dense = dense.transpose(0, 2, 1, 3, 4).reshape(a * m, b * n, s)
    return dense[:rows, :cols, 0]  # without the padding


def load(path, layer):
    """The same from a file."""
    return matrix(*read(path), layer)


def write(path, tensors, meta=None):
    """A safetensors file of arrays by name, the widest types first so that all are aligned."""
    names = {np.dtype(kind).newbyteorder("<"): name for name, kind in PLAIN.items()}
    header, data, end = {"__metadata__": meta} if meta else {}, [], 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):
        part = np.asarray(tensors[name])
        part = part.astype(part.dtype.newbyteorder("<"), copy=False)
        data.append(part.tobytes())
        begin, end = end, end + len(data[-1])
        entry = {"dtype": names[part.dtype], "shape": part.shape, "data_offsets": [begin, end]}
        header[name] = entry
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(data)


if torch:

    class TTMatrix(torch.nn.Module):
        """A matrix as a train. Its state_dict has the keys of our files, cores.0, cores.1, .. and
        bias, each core as (rank, rows, cols, next rank). All cores are float parameters: codes and
        their scales are multiplied out when loaded, a train swept left to right is turned. So the
        state is that of a float train with the same values; ttc or tt_quantize code it again.
        """

        def __init__(self, cores, size, bias=None, dtype=None):
            super().__init__()
            dtype = dtype or torch.get_default_dtype()
            self.size = [int(side) for side in size]

            def parameter(value):
                return torch.nn.Parameter(torch.as_tensor(np.array(value)).to(dtype))

            self.cores = torch.nn.ParameterList([parameter(core) for core in cores])
            self.register_parameter("bias", None if bias is None else parameter(bias))

        @classmethod
        def load(cls, path, layer, dtype=None):
            tensors, meta = read(path)
            return cls(*train(tensors, meta, layer), tensors.get(layer + ".bias"), dtype)

        def padded(self, axis):
            return int(np.prod([core.shape[axis] for core in self.cores]))

        def extra_repr(self):
            ranks = [core.shape[3] for core in self.cores[:-1]]
            return f"{self.size[0]} x {self.size[1]}, order {len(self.cores)}, ranks {ranks}"

    class TTLinear(TTMatrix):
        """y = x W^T + bias through the cores, the last one first; W is never formed."""

        def forward(self, x):
            padding = self.padded(2) - self.size[1]
            y, behind = torch.nn.functional.pad(x, (0, padding)), 1
            for core in reversed(
                list(self.cores)
            ):  # (batch and cols before, cols, rank, rows behind)
                y = y.reshape(-1, core.shape[2], core.shape[3], behind)
                y = torch.einsum("bnsa,rmns->brma", y, core)
                behind *= core.shape[1]
            y = y.reshape(*x.shape[:-1], behind)[..., : self.size[0]]
            return y if self.bias is None else y + self.bias

    class TTEmbedding(TTMatrix):
        """Rows of W by number, from the cores alone."""

        def forward(self, index):
            rest, behind = index.reshape(-1), self.padded(1)
            rows = self.cores[0].new_ones(len(rest), 1, 1)  # (index, cols so far, rank)
            for core in self.cores:
                behind //= core.shape[1]
                digit = torch.div(rest, behind, rounding_mode="floor")
                rest = rest - digit * behind
                rows = torch.einsum("icr,rins->icns", rows, core[:, digit])
                rows = rows.reshape(len(rest), -1, core.shape[3])
            return rows[:, : self.size[1], 0].reshape(*index.shape, self.size[1])

    def load_into(model, path, dtype=None):
        """Puts a file into a model of the same names. Where the file has a train, TTLinear replaces
        nn.Linear and TTEmbedding nn.Embedding; other owners of a matrix get it dense.
        """
        tensors, meta = read(path)
        kinds = {torch.nn.Linear: TTLinear, torch.nn.Embedding: TTEmbedding}
        state = {name: torch.as_tensor(np.array(value)) for name, value in tensors.items()}
        for name in {name.split(".cores.")[0] for name in tensors if ".cores." in name}:
            above, _, last = name.rpartition(".")
            owner = model.get_submodule(above)
            old = getattr(owner, last)
            for key in tensors:
                if key.startswith((name + ".cores.", name + ".scale.", name + ".scales.")):
                    del state[key]
            if type(old) in kinds:
                bias = tensors.get(name + ".bias")
                new = kinds[type(old)](*train(tensors, meta, name), bias, dtype)
                setattr(owner, last, new)
                state.update((f"{name}.{key}", value) for key, value in new.state_dict().items())
            else:
                key = name if isinstance(old, torch.Tensor) else name + ".weight"
                state[key] = torch.as_tensor(matrix(tensors, meta, name))
        model.load_state_dict(state)
        return model

    def save(model, path):
        """The state of a model as a file that tt.h, safetensors and load_into read."""
        layers = {}
        for name, module in model.named_modules():
            if isinstance(module, TTMatrix):
                shapes = [tuple(core.shape) for core in module.cores]
                layers[name] = {
                    "size": module.size,
                    "rows": [shape[1] for shape in shapes],
                    "cols": [shape[2] for shape in shapes],
                    "ranks": [1] + [shape[3] for shape in shapes],
                }
        tensors = {}
        for name, value in model.state_dict().items():
            value = value.float() if value.dtype == torch.bfloat16 else value
            tensors[name] = value.detach().cpu().numpy()
        write(path, tensors, {"format": "pt", "tt.version": "1", "tt.layers": json.dumps(layers)})


if __name__ == "__main__":
    stored = {name.split(".cores.")[0] for name in read(sys.argv[1])[0] if ".cores." in name}
    for name in sys.argv[2:] or sorted(stored):
        dense = load(sys.argv[1], name)
        print(name, dense.shape, "norm %.6f" % np.linalg.norm(dense))
