"""How fast is the forward pass of a train beside the layers of the Python libraries, and beside the
dense matrix by torch, in float and in int8?

Every train layer holds the same cores; tt.h runs the train that tt_prepare makes. Error: relative,
of the outputs against the dense matrix in double; for int8 that of its rounding as well.
"""

import ctypes

from rivals import QUICK, call, must, np, optional, start, table, torch, turns

torchtt = optional("torchtt.nn")
tntorch = optional("tntorch")
tltorch = optional("tltorch")
F32 = 0                                                  # enum tt_dtype


def sweep(cores, x):
    """The shortest way to write it in torch: right to left, one product per core."""
    state, rest = x, 1
    for core in reversed(cores):
        r, m, n, s = core.shape
        state = core.reshape(r * m, n * s) @ state.reshape(-1, n * s, rest)
        rest *= m
    return state.reshape(x.shape[0], -1)


def rival_layers(cores, leg, order, rank, batch, x, kept):
    sides = {}

    def add(name, run):
        def keep():
            kept[name] = run().reshape(batch, -1)
        sides[name] = keep

    t, legs = torch.from_numpy(x), [leg] * order
    c = [torch.from_numpy(core) for core in cores]
    add("torch, one product per core", lambda: sweep(c, t))
    if torchtt:
        layer = torchtt.LinearLayerTT(legs, legs, [1] + [rank] * (order - 1) + [1])
        for parameter, core in zip(layer.cores, c):
            parameter.data = core
        add("torchTT LinearLayerTT", lambda: layer(t.reshape([batch] + legs)))
    if tntorch:
        swapped = tntorch.TTMatrix([core.transpose(1, 2).contiguous() for core in c],
                                   [rank] * (order - 1), legs, legs)
        if batch == 1:                                   # its result for more is in another order
            add("tntorch tt_multiply", lambda: tntorch.tt_multiply(swapped, t))
    if tltorch:
        factorized = tltorch.FactorizedLinear(tuple(legs), tuple(legs), bias=False, rank=rank,
                                              factorization="blocktt")
        for parameter, core in zip(factorized.weight.factors, c):
            parameter.data = core
        add("tensorly-torch BlockTT", lambda: factorized(t))
    return sides


def dense_layers(dense, x, kept):
    sides, t, w = {}, torch.from_numpy(x), torch.from_numpy(dense)

    def add(name, run):
        def keep():
            kept[name] = run()
        sides[name] = keep

    add("torch linear, dense f32", lambda: torch.nn.functional.linear(t, w))
    for engine in torch.backends.quantized.supported_engines:
        if engine in ("none", "qnnpack"):                # the latter is made for ARM
            continue
        try:
            torch.backends.quantized.engine = engine
            layer = torch.nn.Linear(*w.shape[::-1], bias=False)
            layer.weight.data = w
            model = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer),
                                                           {torch.nn.Linear}, dtype=torch.qint8)
            model(t)
        except Exception as error:                       # an engine that this build lacks
            print("skipped: torch int8 %s (%s)" % (engine, str(error).splitlines()[0][:60]))
            continue
        add("torch dynamic int8, " + engine, lambda model=model: model(t))
    return sides


def bench(order, leg, rank, batch):
    side, kept = leg ** order, {}
    handle = call("shared_layer_new", order, leg, rank)
    layer = ctypes.c_void_p(handle)
    cores = []
    for k in range(order):
        cores.append(np.empty((1 if k == 0 else rank, leg, leg, 1 if k == order - 1 else rank),
                              np.float32))
        must("shared_layer_core", layer, k, cores[k])
    dense = np.asarray(cores[0], np.float64)
    for core in cores[1:]:
        dense = np.tensordot(dense, np.asarray(core, np.float64), 1)
    dense = dense.reshape([leg] * (2 * order)).transpose(
        list(range(0, 2 * order, 2)) + list(range(1, 2 * order, 2))).reshape(side, side)
    x = np.random.default_rng(1).standard_normal((batch, side)).astype(np.float32)
    y = np.empty((batch, side), np.float32)
    must("shared_layer_ready", layer, batch, F32)
    kept["tt.h"] = y
    sides = {"tt.h": lambda: must("shared_layer_apply", layer, x, batch, y)}
    if torch:
        sides.update(rival_layers(cores, leg, order, rank, batch, x, kept))
        sides.update(dense_layers(dense.astype(np.float32), x, kept))
        with torch.no_grad():
            seconds = turns(sides)
    else:
        seconds = turns(sides)
    exact = x.astype(np.float64) @ dense.T
    norm = np.linalg.norm(exact)
    errors = {name: float(np.linalg.norm(np.asarray(out.detach() if torch and torch.is_tensor(out)
                                                    else out) - exact) / norm)
              for name, out in kept.items()}
    table("legs %d^%d r %d batch %d" % (leg, order, rank, batch), "tt.h", seconds, errors)
    call("shared_layer_free", layer)


start("apply: tt_apply against Python")
shapes = [(2, 32, 16), (3, 10, 8)] if QUICK else [(2, 64, 32), (3, 16, 16), (4, 8, 16)]
for shape in shapes:
    for batch in (1, 64):
        bench(*shape, batch)
