"""Writes corpus/: small valid files and one file per known attack on safetensors readers. Standard library only.

    python3 make_corpus.py        (in this folder; the result is committed)
"""
import json
import os
import struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def put(name, data):
    with open(os.path.join(HERE, name), "wb") as out:
        out.write(data)


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors(header, data=b"", pad=True):
    """A file; `header` is an object, or text or bytes taken as they are."""
    if isinstance(header, (dict, list)):
        header = json.dumps(header, separators=(",", ":"))
    if isinstance(header, str):
        header = header.encode()
        header += b" " * (-len(header) % 8 if pad else 0)
    return struct.pack("<Q", len(header)) + header + data


def npy(text, data, major=1):
    text = text.encode() + b"\n"
    return b"\x93NUMPY" + bytes([major, 0]) + struct.pack("<H" if major == 1 else "<I", len(text)) + text + data


def seeds():
    f32 = struct.pack("<24f", *[0.25 * i - 3 for i in range(24)])
    put("seed_plain", safetensors({"__metadata__": {"format": "pt"}, "fc.weight": tensor("F32", [3, 4], 0, 48),
                                   "fc.bias": tensor("F32", [3], 48, 60), "x": tensor("U8", [5], 60, 65)},
                                  f32[:60] + b"hello"))
    names = [("F64", 8), ("I64", 8), ("U64", 8), ("C64", 8), ("F32", 4), ("I32", 4), ("U32", 4), ("F16", 2), ("BF16", 2),
             ("I16", 2), ("U16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E8M0", 1), ("F8_E4M3FNUZ", 1),
             ("F8_E5M2FNUZ", 1), ("I8", 1), ("U8", 1), ("BOOL", 1)]
    header, at = {}, 0
    for name, width in names:
        header["t" + name] = tensor(name, [1, 2], at, at + 2 * width)
        at += 2 * width
    put("seed_dtypes", safetensors(header, bytes(i % 60 for i in range(at))))
    put("seed_train", safetensors({"l.cores.0": tensor("F32", [1, 2, 3, 2], 0, 48), "l.cores.1": tensor("F32", [2, 2, 1, 1], 48, 64),
                                   "l.bias": tensor("F32", [4], 64, 80)}, f32[:80]))
    said = {"l": {"size": [2, 3], "rows": [2], "cols": [3], "ranks": [1, 1], "sweep": 1, "cores": [{"dtype": "I4", "group": 2}],
                  "rel_error": 1.5e-3, "bond_entropy": []}}
    put("seed_packed", safetensors({"__metadata__": {"tt.version": "1", "tt.layers": json.dumps(said)},
                                    "l.cores.0": tensor("U8", [2, 2], 0, 4), "l.scale.0": tensor("F32", [1], 4, 8),
                                    "l.scales.0": tensor("F16", [2, 2], 8, 16)},
                                   b"\x12\x03\x45\x06" + struct.pack("<f", 0.5) + b"\x00\x3c" * 4))
    put("seed_rows", safetensors({"l.cores.0": tensor("I8", [1, 2, 3, 1], 0, 6), "l.scales.0": tensor("F32", [2], 6, 14)},
                                 bytes(range(6)) + f32[:8]))
    put("seed_empty", safetensors("{}", pad=False))
    put("seed_zero_size", safetensors({"a": tensor("F32", [2], 0, 8), "b": tensor("U8", [0], 0, 0)}, f32[:8]))
    put("seed_rank0", safetensors({"a": tensor("F32", [], 0, 4)}, f32[:4]))
    put("seed_escapes", safetensors('{"\\u0061\\/\\ud83d\\ude00":{"d\\u0074ype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"))
    index = {"metadata": {"total_size": 9, "x": [1, {"y": None}]}, "weight_map": {"a.weight": "m-1.safetensors", "b": "m-2.safetensors"}}
    put("index", json.dumps(index, indent=2).encode() + b"\n")
    put("index_empty", b'{"weight_map":{}}')
    put("seed_npy1", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", f32[:24]))
    put("seed_npy2", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", b"abc", 2))
    put("seed_npy3", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (), }", b"\0" * 8, 3))


def attacks():
    one = tensor("U8", [1], 0, 1)
    put("bad_product_0", safetensors({"a": tensor("F32", [2 ** 32, 2 ** 32], 0, 0)}))
    put("bad_product_4", safetensors({"a": tensor("F32", [4194305, 4194305, 211106198978564], 0, 16)}, b"\0" * 16))
    put("bad_negative", safetensors({"a": tensor("F32", [-1, -4], 0, 16)}, b"\0" * 16))
    put("bad_short_data", safetensors({"a": tensor("F64", [4], 0, 16)}, b"\0" * 16))
    put("bad_two_sizes", safetensors({"a": tensor("U8", [4], 0, 16)}, b"\0" * 16))
    put("bad_header_huge", struct.pack("<Q", 2 ** 63) + b"{}")
    put("bad_header_wraps", struct.pack("<Q", 2 ** 64 - 8) + b"{}")
    put("bad_header_max", struct.pack("<Q", 2 ** 64 - 1) + b"{}")
    put("bad_header_by_one", struct.pack("<Q", 3) + b"{}")
    put("bad_header_0", struct.pack("<Q", 0) + b"{}")
    put("bad_duplicate", safetensors('{"a":%s,"a":%s}' % (json.dumps(one), json.dumps(tensor("U8", [1], 1, 2))), b"xy"))
    put("bad_many", safetensors("{" + ",".join('"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % (i // 2) for i in range(600)) + "}"))
    put("bad_named_metadata", safetensors({"__metadata__": one}, b"x"))
    put("bad_shared_bytes", safetensors({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 0, 4)}, b"abcd"))
    put("bad_empty_file", b"")
    put("bad_seven_bytes", b"\2\0\0\0\0\0\0")
    put("bad_list", safetensors("[]"))
    put("bad_bom", safetensors(b"\xef\xbb\xbf{}"))
    put("bad_utf8", safetensors(b'{"__metadata__":{"a":"\xe2\x82"}}'))
    put("bad_nul_padding", safetensors(b"{}\0\0\0\0\0\0"))
    for name, number in [("exponent", "1e3"), ("leading_zero", "01"), ("minus_zero", "-0"), ("fraction", "1.0")]:
        put("bad_" + name, safetensors('{"a":{"dtype":"U8","shape":[%s],"data_offsets":[0,1]}}' % number, b"x"))
    put("bad_offset_2_63", safetensors({"a": tensor("U8", [0], 2 ** 63, 2 ** 63)}))
    put("bad_no_dtype", safetensors('{"a":{"shape":[1],"data_offsets":[0,1]}}', b"x"))
    put("bad_two_dtypes", safetensors('{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"))
    put("bad_hole", safetensors({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 8, 12)}, b"\0" * 12))
    put("bad_overlap", safetensors({"a": tensor("U8", [8], 0, 8), "b": tensor("U8", [8], 4, 12)}, b"\0" * 12))
    put("bad_trailing", safetensors({"a": one}, b"xy"))
    put("bad_nine_dims", safetensors({"a": tensor("U8", [1] * 9, 0, 1)}, b"x"))
    put("bad_odd_f4", safetensors({"a": tensor("F4", [3], 0, 2)}, b"xy"))
    put("bad_metadata_number", safetensors({"__metadata__": {"a": 1}}))
    put("bad_nul_name", safetensors({"a\0b": one}, b"x"))
    put("bad_deep", safetensors('{"a":' * 500))
    put("bad_version", safetensors({"__metadata__": {"tt.version": "2"}}))
    layers = '{"l":{"rows":[2,2],"cols":[3,1],"ranks":[1,%s,1],"x":%s}}'
    cores = {"l.cores.0": tensor("F32", [1, 2, 3, 2], 0, 48), "l.cores.1": tensor("F32", [2, 2, 1, 1], 48, 64)}
    put("layer_contradiction", safetensors(dict({"__metadata__": {"tt.layers": layers % (3, 1)}}, **cores), b"\0" * 64))
    put("layer_deep", safetensors(dict({"__metadata__": {"tt.layers": layers % (2, "[" * 500)}}, **cores), b"\0" * 64))
    put("layer_nan", safetensors(cores, b"\xff" * 64))
    for name, shard in [("folder", "a/b"), ("above", ".."), ("nul", "a\0"), ("no_name", ""), ("backslash", "a\\b")]:
        put("index_" + name, json.dumps({"weight_map": {"a": shard}}).encode())
    put("index_duplicate", b'{"weight_map":{"a":"m","b":"m","a":"m"}}')
    put("index_two_maps", b'{"weight_map":{"a":"m"},"weight_map":{"a":"m"}}')
    put("index_open_end", b'{"weight_map":{"a":"m')
    put("npy_object", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8))
    put("npy_fortran", npy("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2), }", b"\0" * 8))
    put("npy_product", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", b""))


os.makedirs(HERE, exist_ok=True)
seeds()
attacks()
print(len(os.listdir(HERE)), "files,", sum(os.path.getsize(os.path.join(HERE, f)) for f in os.listdir(HERE)), "bytes")
