"""How fast is TT-SVD beside the Python libraries, and beside ten lines of PyTorch?

The matrix is that of bench_compress.c. Rivals start from the permuted tensor, tt.h from the matrix.
Error: relative, of the matrix that the train stands for.
"""

from rivals import QUICK, must, np, optional, start, table, torch, turns

tensorly = optional("tensorly")
torchtt = optional("torchtt")
tntorch = optional("tntorch")


def ten_lines(x, cap, power):
    """Gram matrix in double up to 512 rows or columns, else PyTorch's randomised SVD."""
    cores, rank, dims = [], 1, x.shape
    for d in dims[:-1]:
        x = x.reshape(rank * d, -1)
        keep = min(cap, *x.shape)
        if x.shape[0] <= 512:
            u = torch.linalg.eigh(x.double() @ x.double().T)[1][:, -keep:].float()
        elif x.shape[1] <= 512:
            av = x @ torch.linalg.eigh(x.double().T @ x.double())[1][:, -keep:].float()
            u = av / av.norm(dim=0)
        else:
            u = torch.svd_lowrank(x, q=keep + 16, niter=power)[0][:, :keep]
        cores.append(u.reshape(rank, d, keep))
        x, rank = u.T @ x, keep
    return cores + [x.reshape(rank, dims[-1], 1)]


def gesdd(x, cap):
    """torch.linalg.svd per unfolding, on the tall transpose where that is faster."""
    cores, rank, dims = [], 1, x.shape
    for d in dims[:-1]:
        x = x.reshape(rank * d, -1)
        keep = min(cap, *x.shape)
        if x.shape[0] < x.shape[1]:
            u = torch.linalg.svd(x.T, full_matrices=False)[2].T[:, :keep]
        else:
            u = torch.linalg.svd(x, full_matrices=False)[0][:, :keep]
        cores.append(u.reshape(rank, d, keep))
        x, rank = u.T @ x, keep
    return cores + [x.reshape(rank, dims[-1], 1)]


def relative_error(x, cores):
    out = np.asarray(cores[0], dtype=np.float32)
    for core in cores[1:]:
        core = np.asarray(core, dtype=np.float32)
        out = out.reshape(-1, core.shape[0]) @ core.reshape(core.shape[0], -1)
    difference = out.reshape(-1) - x.reshape(-1)
    return float(np.linalg.norm(difference) / np.linalg.norm(x))


def permuted(w, order, leg):
    axes = [axis for k in range(order) for axis in (k, order + k)]
    return np.ascontiguousarray(w.reshape([leg] * (2 * order)).transpose(axes)).reshape(
        [leg * leg] * order)


def rivals(x, order, cap, kept):
    """Name -> callable; each leaves its cores in kept[name]."""
    sides = {}

    def add(name, run):
        def keep():
            kept[name] = run()
        sides[name] = keep

    ranks = [1] + [cap] * (order - 1) + [1]
    if torch:
        t = torch.from_numpy(x)
        for power in (1, 2, 3):
            add("ten lines of torch, niter %d" % power,
                lambda power=power: ten_lines(t, cap, power))
        add("torch.linalg.svd", lambda: gesdd(t, cap))
    if tensorly:
        from tensorly.decomposition import tensor_train

        def decompose(backend, data, svd):
            tensorly.set_backend(backend)
            return tensor_train(data, ranks, svd=svd)

        for svd in ("randomized_svd", "truncated_svd"):
            add("TensorLy numpy " + svd, lambda svd=svd: decompose("numpy", x, svd))
            if torch:
                add("TensorLy torch " + svd, lambda svd=svd: decompose("pytorch", t, svd))
    if torchtt:
        add("torchTT.TT", lambda: torchtt.TT(t, eps=1e-10, rmax=cap).cores)
    if tntorch:
        for algorithm in ("svd", "eig"):
            add("tntorch " + algorithm,
                lambda algorithm=algorithm: tntorch.Tensor(t, ranks_tt=cap,
                                                           algorithm=algorithm).cores)
    return sides


def bench(order, leg, cap):
    side, kept = leg ** order, {}
    w, dense = np.empty((side, side), np.float32), np.empty((side, side), np.float32)
    must("shared_kronecker", side, order, leg, w)
    x = permuted(w, order, leg)
    sides = {"tt.h": lambda: must("shared_compress", w, side, order, leg, cap, None)}
    sides.update(rivals(x, order, cap, kept))
    seconds = turns(sides)
    errors = {name: relative_error(x, cores) for name, cores in kept.items()}
    must("shared_compress", w, side, order, leg, cap, dense)
    errors["tt.h"] = float(np.linalg.norm(dense - w) / np.linalg.norm(w))
    table("%dx%d as %d^%d, cap %d" % (side, side, leg * leg, order, cap), "tt.h", seconds, errors)


start("compress: tt_compress against Python, the input permuted beforehand for the rivals")
bench(3, 8, 32)
bench(4, 4, 16)
if not QUICK:
    bench(3, 16, 64)
    bench(4, 8, 64)
