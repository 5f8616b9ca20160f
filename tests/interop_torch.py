"""tt.h and ttc against torch. Usage: interop_torch.py BUILD_FOLDER

BUILD_FOLDER holds the programs `interop` and `ttc` and trains.safetensors of interop.py. A torch
model goes through safetensors and ttc and comes back with trains as its layers: the same outputs,
gradients that finite differences confirm, and statistics of inputs that ttc reads.
"""

import json
import os
import subprocess
import sys

import numpy as np
import safetensors.torch
import torch

BUILD = os.path.abspath(sys.argv[1])
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "examples", "python"))
sys.dont_write_bytecode = True
import load_tt
import record_inputs

passed = failed = 0


def check(good, what):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print("torch: FAILED: " + what)


def program(name, *arguments):
    command = [os.path.join(BUILD, name), *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        print(result.stdout + result.stderr)
    check(result.returncode == 0, f"{name} {arguments[0]}")
    return result.stdout


def difference(got, wanted):
    got, wanted = (torch.as_tensor(value).detach().double() for value in (got, wanted))
    return float((got - wanted).norm() / wanted.norm()) if got.shape == wanted.shape else 9.0


def tt_apply(path, layer, x):
    x.detach().numpy().astype("<f4").tofile(os.path.join(BUILD, "x.f32"))
    program("interop", "apply", path, layer, BUILD)
    y = np.fromfile(os.path.join(BUILD, "y.f32"), "<f4")
    return torch.as_tensor(y).reshape(len(x), -1)


def check_formats():
    """Every shape, direction and number format of a file: outputs, rows and keys."""
    path = os.path.join(BUILD, "trains.safetensors")
    tensors, meta = load_tt.read(path)
    layers = sorted({name.split(".cores.")[0] for name in tensors if ".cores." in name})
    check(len(layers) == 22, f"22 layers in the file of trains, not {len(layers)}")
    for layer in layers:
        module = load_tt.TTLinear.load(path, layer)
        keys = {f"{layer}.{key}" for key in module.state_dict()}
        cores = {name for name in tensors if name.startswith(layer + ".cores.")}
        check(keys == cores, f"{layer}: keys of state_dict are those of the file")
        x = torch.randn(5, module.size[1])
        error = difference(module(x), tt_apply(path, layer, x))
        check(error < 1e-5, f"{layer}: outputs as tt_apply (error {error:.1e})")
        table = load_tt.TTEmbedding(*load_tt.train(tensors, meta, layer))
        index = torch.tensor([[0, module.size[0] - 1, 7], [3, 7, 20]])
        error = difference(table(index), tensors[layer + ".dense"][index.numpy()])
        check(error < 1e-5, f"{layer}: rows (error {error:.1e})")
    x = torch.randn(2, 3, 35)
    module = load_tt.TTLinear.load(path, "f32")
    check(difference(module(x)[1], module(x[1])) < 1e-6, "leading dimensions are a batch")


def check_gradients():
    """Slope along a random direction, by autograd and by central differences in double."""
    random = np.random.default_rng(5)
    for rows, cols, ranks, size in (
        ((7,), (5,), (1, 1), (7, 5)),
        ((8, 1), (1, 9), (1, 4, 1), (8, 9)),
        ((2, 3, 4), (3, 2, 5), (1, 4, 3, 1), (23, 29)),
        ((2, 2, 3, 2), (3, 1, 2, 2), (1, 2, 5, 3, 1), (24, 12)),
    ):
        shapes = zip(ranks[:-1], rows, cols, ranks[1:])
        cores = [random.standard_normal(shape) for shape in shapes]
        module = load_tt.TTLinear(cores, size, random.standard_normal(size[0]), torch.float64)
        dense = load_tt.TTEmbedding(cores, size, None, torch.float64)
        x = torch.randn(6, size[1], dtype=torch.float64, requires_grad=True)
        index = torch.arange(size[0])
        target = torch.randn(6, size[0], dtype=torch.float64)

        def loss():
            return (torch.sin(module(x)) * target).sum() + torch.cos(dense(index)).sum()

        loss().backward()
        for number, value in enumerate([x, *module.parameters(), *dense.parameters()]):
            direction, step = torch.randn_like(value), 1e-5
            with torch.no_grad():
                value += step * direction
                above = loss()
                value -= 2 * step * direction
                below = loss()
                value += step * direction
            slope, wanted = (value.grad * direction).sum(), (above - below) / (2 * step)
            error = abs(float(slope - wanted)) / (1 + abs(float(wanted)))
            check(error < 1e-6, f"order {len(rows)}, gradient {number} (error {error:.1e})")


class Network(torch.nn.Module):
    """A look-up table, three linear layers and a matrix that belongs to no layer."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(120, 64)
        self.inner = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.Linear(96, 48))
        self.last = torch.nn.Linear(48, 10, bias=False)
        self.mix = torch.nn.Parameter(torch.randn(64, 64) / 8)
        self.register_buffer("steps", torch.tensor([3]))

    def forward(self, index):
        x = torch.tanh(self.inner[0](self.table(index) @ self.mix))
        return self.last(torch.tanh(self.inner[1](x)))


SPECIFICATIONS = (
    ("table", "svd:20+i8"),
    ("inner.0", "tt:12@8,12x8,8"),
    ("inner.1", "tt:9@4,4,3x4,4,6+i4"),
    ("last", "i8"),
    ("mix", "svd:9+f16"),
)


def compress(source, target, *options):
    arguments = [word for name, spec in SPECIFICATIONS for word in ("--layer", f"^{name}$={spec}")]
    return program("ttc", "compress", source, "-o", target, "-f", "-q", *arguments, *options)


def check_network():
    """torch -> safetensors -> ttc -> torch -> training -> tt.h."""
    source, target = (
        os.path.join(BUILD, name) for name in ("net.safetensors", "small.safetensors")
    )
    network = Network()
    safetensors.torch.save_file(network.state_dict(), source)
    compress(source, target)
    small = load_tt.load_into(Network(), target)
    kinds = [type(small.get_submodule(name)) for name in ("table", "inner.0", "inner.1", "last")]
    trains = [load_tt.TTEmbedding] + 3 * [load_tt.TTLinear]
    check(kinds == trains, "layers that are trains are modules that keep them")
    stored = {name for name in load_tt.read(target)[0] if ".scale" not in name}
    check(
        {name for name in small.state_dict() if name != "mix"}
        == stored - {"mix.cores.0", "mix.cores.1"},
        "state_dict has the keys of the file",
    )
    index = torch.arange(120)
    x = small.table(index) @ small.mix
    x = torch.tanh(tt_apply(target, "inner.0", x))
    y = tt_apply(target, "last", torch.tanh(tt_apply(target, "inner.1", x)))
    error = difference(small(index), y)
    check(error < 1e-5, f"outputs of the network as tt_apply (error {error:.1e})")
    print(f"  network compressed by ttc: outputs as tt_apply within {error:.1e}")

    wanted = network(index).detach()
    optimiser = torch.optim.Adam(small.parameters(), 1e-2)
    losses = []
    for _ in range(100):
        optimiser.zero_grad()
        loss = ((small(index) - wanted) ** 2).mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    check(
        losses[-1] < losses[0] / 2,
        f"training through the cores: {losses[0]:.4f} to {losses[-1]:.4f}",
    )
    print(f"  trained through its cores: loss {losses[0]:.1e} to {losses[-1]:.1e}")
    healed = os.path.join(BUILD, "healed.safetensors")
    load_tt.save(small, healed)
    for name, cols in (("inner.0", 64), ("inner.1", 96), ("last", 48)):
        x = torch.randn(4, cols)
        error = difference(small.get_submodule(name)(x), tt_apply(healed, name, x))
        check(error < 1e-5, f"{name} after training, as tt.h reads it (error {error:.1e})")
    again = load_tt.load_into(Network(), healed)
    check(difference(again(index), small(index)) < 1e-6, "saved and loaded again")


def check_records():
    """Statistics of inputs: as numpy has them, and ttc predicts the error that torch measures."""
    network, path = Network(), os.path.join(BUILD, "record.safetensors")
    random = np.random.default_rng(3)
    batches = [torch.as_tensor(random.zipf(1.5, count) % 120) for count in (50, 1, 333)]
    seen = []
    network.inner[0].register_forward_pre_hook(lambda _, x: seen.append(x[0].detach().numpy()))
    with record_inputs.Recorder(network) as recorder:
        for batch in batches:
            network(batch)
    network(batches[0])
    recorder.save(path)
    moments, x = load_tt.read(path)[0], np.concatenate(seen[:3]).astype(np.float64)
    name = "inner.0.inputs"
    check(moments[name + ".count"].tolist() == [384], "record: count")
    check(np.allclose(moments[name + ".mean"], x.mean(0), rtol=1e-12, atol=1e-12), "record: mean")
    covariance = np.cov(x.T, bias=True)
    check(np.allclose(moments[name + ".covariance"], covariance, atol=1e-12), "record: covariance")
    counts = np.bincount(torch.cat(batches).numpy(), minlength=120)
    check(np.array_equal(moments["table.row_weights"], counts + 0.5), "record: row weights")
    with record_inputs.Recorder(network, r"inner\..*", samples=True) as recorder:
        network(batches[2])
    recorder.save(os.path.join(BUILD, "samples.safetensors"))
    samples = load_tt.read(os.path.join(BUILD, "samples.safetensors"))[0]
    check(sorted(samples) == ["inner.0.inputs", "inner.1.inputs"], "record: pattern")
    check(np.array_equal(samples["inner.0.inputs"], seen[2]), "record: samples")

    source, target = (os.path.join(BUILD, name) for name in ("net.safetensors", "fit.safetensors"))
    safetensors.torch.save_file(network.state_dict(), source)
    output = compress(source, target, "--inputs", path, "--json", "-")
    reports = {layer["name"]: layer for layer in json.loads(output)["layers"]}
    small = load_tt.load_into(Network(), target)
    x = torch.as_tensor(x, dtype=torch.float32)
    for name in ("inner.0", "inner.1"):
        layer, fitted = network.get_submodule(name), small.get_submodule(name)
        y = layer(x).detach()
        lost = (((y - fitted(x)) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()).sqrt()
        said = reports[name]["functional_error"]
        error = abs(float(lost) / said - 1)
        check(error < 1e-3, f"{name}: functional error {said:.6f}, measured {float(lost):.6f}")
        print(f"  {name}: functional error {said:.6f}, measured {float(lost):.6f}")
        x = torch.tanh(y)


torch.manual_seed(1)
check_formats()
check_gradients()
check_records()
check_network()
print(f"torch: {passed} passed, {failed} failed")
sys.exit(failed != 0)
