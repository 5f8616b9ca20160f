"""What the kernels of tt_cuda.h became:  python3 cuda_sass.py FILE.cubin

Counts instructions in the machine code that `nvcc -cubin` writes, prints a table, and fails where a
kernel is not what its source means: local memory anywhere, double arithmetic in kernels of float, a
main loop that was not unrolled, or loads of 16 bytes that were split. From Volta on an instruction
has 16 bytes; the low 12 bits are its opcode, and bits 73 to 75 the width of a load (6: 16 bytes).
"""
import re
import struct
import sys

NAMES = {0x981: 'LDG', 0x984: 'LDS', 0x983: 'LDL', 0x387: 'STL', 0x223: 'FFMA', 0x22b: 'DFMA',
         0x228: 'DMUL', 0x229: 'DADD', 0x23c: 'HMMA', 0xb1d: 'BAR', 0xf89: 'SHFL',
         0xfae: 'LDGSTS', 0x83b: 'LDSM'}
COLUMNS = ['LDG', 'LDG16', 'LDS', 'LDS16', 'FFMA', 'DFMA', 'HMMA', 'LDGSTS', 'LDSM',
           'SHFL', 'BAR']
IN_DOUBLE = {'tt__cuda_svd', 'tt__cuda_scan', 'tt__cuda_sum_double', 'tt__cuda_outer_double'}
# Sums of a tile, depth x rows x columns of a thread, and loads of 16 bytes from memory and stage.
AT_LEAST = {
    'tt__cuda_fused': {'FFMA': 7 * 2 * 4 * 4, 'LDG16': 1, 'LDS16': 1, 'SHFL': 5, 'BAR': 4},
    'tt__cuda_product_64': {'FFMA': 16 * 4 * 4, 'LDG16': 1, 'LDS16': 2 * 16, 'BAR': 3},
    'tt__cuda_product_128': {'FFMA': 16 * 8 * 8, 'LDG16': 1, 'LDS16': 4 * 16, 'BAR': 3},
    'tt__cuda_tensor_64': {'HMMA': 2 * 2 * 2, 'LDG16': 1, 'BAR': 3},
    'tt__cuda_tensor_128': {'HMMA': 2 * 4 * 4, 'LDG16': 1, 'BAR': 3},
    'tt__cuda_tensor_bf16': {'HMMA': 2 * 4 * 4, 'LDGSTS': 3 * 4, 'LDSM': 2 * 6, 'BAR': 1},
    'tt__cuda_tensor_pair': {'HMMA': 2 + 4, 'LDGSTS': 1, 'LDSM': 2 + 3, 'BAR': 3},
    'tt__cuda_product_narrow': {'FFMA': 7 * 4 * 4, 'LDG16': 1, 'SHFL': 4 * 5, 'BAR': 1},
    'tt__cuda_outer_float': {'FFMA': 16 * 4 * 4, 'LDS16': 2 * 16, 'BAR': 2},
    'tt__cuda_outer_double': {'DFMA': 16 * 4 * 4, 'LDS16': 2 * 16, 'BAR': 2},
    'tt__cuda_svd': {'DFMA': 1, 'SHFL': 1, 'BAR': 5},
}


def kernels(data):
    """Name and code of every kernel of an ELF file of 64 bits."""
    table = struct.unpack_from('<Q', data, 40)[0]
    count, strings = struct.unpack_from('<HH', data, 60)
    sections = [struct.unpack_from('<IIQQQQIIQQ', data, table + 64 * i) for i in range(count)]
    for section in sections:
        begin = sections[strings][4] + section[0]
        name = data[begin:data.index(b'\0', begin)].decode()
        mangled = re.match(r'\.text\._Z(\d+)', name)
        if mangled:
            name = name[mangled.end():][:int(mangled.group(1))]
            yield name, data[section[4]:section[4] + section[5]]


def count(code):
    counts = dict.fromkeys(list(NAMES.values()) + COLUMNS, 0)
    for at in range(0, len(code), 16):
        low, high = struct.unpack_from('<QQ', code, at)
        name = NAMES.get(low & 0xfff)
        if name:
            counts[name] += 1
            if name in ('LDG', 'LDS') and high >> 9 & 7 == 6:
                counts[name + '16'] += 1
    return counts


failures, seen = [], set()
print('%-26s%8s' % ('kernel', 'all') + ''.join('%7s' % column for column in COLUMNS))
for kernel, code in sorted(kernels(open(sys.argv[1], 'rb').read())):
    counts = count(code)
    seen.add(kernel)
    print('%-26s%8d' % (kernel, len(code) // 16) + ''.join('%7d' % counts[c] for c in COLUMNS))
    if counts['LDL'] or counts['STL']:
        failures.append(kernel + ' uses local memory')
    if 'tensor' not in kernel and counts['HMMA'] or 'tensor' in kernel and counts['SHFL']:
        failures.append(kernel + ' and tensor cores')
    if kernel not in IN_DOUBLE and counts['DFMA'] + counts['DMUL'] + counts['DADD']:
        failures.append(kernel + ' computes in double')
    for name, least in AT_LEAST.get(kernel, {}).items():
        if counts[name] < least:
            failures.append('%s has %d %s, not %d' % (kernel, counts[name], name, least))
failures += ['no kernel ' + kernel for kernel in set(AT_LEAST) | IN_DOUBLE if kernel not in seen]
for failure in failures:
    print('failed: ' + failure)
sys.exit(bool(failures))
