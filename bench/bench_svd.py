"""How fast is the singular value decomposition beside torch, numpy, scipy and scikit-learn?

All triplets: error = ||A - U S V^T|| / ||A||; torch and scipy also get the transpose, LAPACK's
better layout for wide matrices. The leading 64: error = excess over the optimum,
||A - A64|| / optimum - 1, where scipy's svds is ARPACK and exact.
"""

from rivals import QUICK, must, np, optional, start, table, torch, turns

scipy_linalg = optional("scipy.linalg")
scipy_sparse = optional("scipy.sparse.linalg")
sklearn = optional("sklearn.utils.extmath")
AUTO, GRAM, RANDOMIZED = 0, 1, 4                         # enum tt_svd_method


def matrix(m, n, power):
    """Gaussian for power 0, else singular values j^-power between random orthonormal factors."""
    random = np.random.default_rng(1)
    if power == 0:
        return random.standard_normal((m, n)).astype(np.float32)
    k = min(m, n)
    u = np.linalg.qr(random.standard_normal((m, k)))[0]
    v = np.linalg.qr(random.standard_normal((n, k)))[0]
    return ((u * np.arange(1, k + 1) ** -power) @ v.T).astype(np.float32)


def numbers(x):
    return np.asarray(x, dtype=np.float64)


def residual(a, triplets):
    u, s, vt = (numbers(x) for x in triplets)
    return float(np.linalg.norm(a - (u * s) @ vt))


def ours(a, cap, method, kept, name):
    m, n = a.shape
    k = cap or min(m, n)
    u, s, vt = (np.empty(shape, np.float32) for shape in ((m, k), (k,), (k, n)))
    kept[name] = (u, s, vt)
    return lambda: must("shared_svd", a, m, n, cap, method, u, s, vt)


def keeping(kept, name, run):
    def keep():
        kept[name] = run()
    return keep


def turned(triplets):
    return triplets[2].T, triplets[1], triplets[0].T


def bench_all(m, n):
    a, kept, sides = matrix(m, n, 0), {}, {}
    sides["tt.h"] = ours(a, 0, AUTO, kept, "tt.h")

    def add(name, run):
        sides[name] = keeping(kept, name, run)

    if torch:
        t = torch.from_numpy(a)
        add("torch.linalg.svd", lambda: torch.linalg.svd(t, full_matrices=False))
        if m != n:
            add("torch.linalg.svd, transposed",
                lambda: turned(torch.linalg.svd(t.T, full_matrices=False)))
    if scipy_linalg:
        add("scipy.linalg.svd", lambda: scipy_linalg.svd(a, full_matrices=False))
        if m != n:
            add("scipy.linalg.svd, transposed",
                lambda: turned(scipy_linalg.svd(a.T, full_matrices=False)))
    add("numpy.linalg.svd", lambda: np.linalg.svd(a, full_matrices=False))
    seconds, norm = turns(sides), np.linalg.norm(numbers(a))
    errors = {name: residual(a, triplets) / norm for name, triplets in kept.items()}
    table("f32 %dx%d, all" % (m, n), "tt.h", seconds, errors)


def bench_top(m, n, power, k=64):
    a, kept, sides = matrix(m, n, power), {}, {}
    sides["tt.h"] = ours(a, k, RANDOMIZED, kept, "tt.h")
    sides["tt.h, Gram (exact)"] = ours(a, k, GRAM, kept, "tt.h, Gram (exact)")

    def add(name, run):
        sides[name] = keeping(kept, name, run)

    if torch:
        t = torch.from_numpy(a)

        def lowrank(power):
            u, s, v = torch.svd_lowrank(t, q=k + 16, niter=power)
            return u[:, :k], s[:k], v[:, :k].T

        for niter in (2, 4):
            add("torch.svd_lowrank, niter %d" % niter, lambda niter=niter: lowrank(niter))
    if sklearn:
        for niter in (2, "auto"):
            add("scikit-learn randomized_svd %s" % niter,
                lambda niter=niter: sklearn.randomized_svd(a, k, n_oversamples=16, n_iter=niter,
                                                           random_state=1))
    if scipy_sparse:
        add("scipy svds (ARPACK)", lambda: scipy_sparse.svds(a, k=k))
    seconds = turns(sides)
    squares = np.linalg.eigvalsh(numbers(a) @ numbers(a).T)[::-1]
    optimum = np.sqrt(np.sum(squares[k:]))
    errors = {name: residual(a, triplets) / optimum - 1 for name, triplets in kept.items()}
    what = "f32 %dx%d, %d of %s" % (m, n, k, "Gaussian" if power == 0 else "j^-%g" % power)
    table(what, "tt.h", seconds, errors)


start("svd: tt_svd against Python")
bench_all(256, 256)
bench_all(64, 16384)
bench_top(512, 512, 0.5)
if not QUICK:
    bench_all(512, 512)
    bench_all(1024, 1024)
    bench_all(64, 65536)
    bench_all(512, 4096)
    bench_all(256, 65536)
    for power in (0.5, 0):
        bench_top(1024, 1024, power)
        bench_top(2048, 2048, power)
    bench_top(512, 4096, 0.5)
