"""How fast is the matrix product beside numpy and torch? Error: relative, in the Frobenius norm."""

from rivals import QUICK, must, np, start, table, torch, turns


def bench(m, n, k, wide):
    kind = np.float64 if wide else np.float32
    random = np.random.default_rng(1)
    a, b = random.standard_normal((m, k)).astype(kind), random.standard_normal((k, n)).astype(kind)
    c = {name: np.empty((m, n), kind) for name in ("tt.h", "numpy", "torch")}
    function = "shared_matmul_f64" if wide else "shared_matmul"
    sides = {"tt.h": lambda: must(function, m, n, k, a, b, c["tt.h"]),
             "numpy": lambda: np.matmul(a, b, out=c["numpy"])}
    if torch:
        left, right, out = (torch.from_numpy(x) for x in (a, b, c["torch"]))
        sides["torch"] = lambda: torch.matmul(left, right, out=out)
    seconds = turns(sides)
    exact = a.astype(np.longdouble if wide else np.float64)[:4] @ b
    errors = {name: float(np.linalg.norm((c[name][:4] - exact).astype(np.float64)) /
                          np.linalg.norm(exact.astype(np.float64))) for name in sides}
    table("%s %dx%dx%d" % ("f64" if wide else "f32", m, n, k), "tt.h", seconds, errors)


start("gemm: tt_matmul against Python")
for wide in (False, True):
    for n in (64, 128, 256) if QUICK else (64, 128, 256, 512, 1024, 2048):
        bench(n, n, n, wide)
    if not QUICK:
        bench(64, 65536, 64, wide)
        bench(80, 4096, 4096, wide)
        bench(256, 256, 65536, wide)
