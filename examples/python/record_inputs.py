"""Records what flows into the layers of a torch model, for `ttc compress --inputs` and tt.h.

    with Recorder(model) as recorder:      # or Recorder(model, "encoder.*", samples=True)
        for batch in batches:
            model(batch)
    recorder.save("inputs.safetensors")

Of every module with a matrix as its weight (rows, cols) and inputs (.., cols), the file holds
count, mean and covariance of the inputs, summed in double, or the samples themselves:

    <layer>.inputs.count (1)  <layer>.inputs.mean (cols)  <layer>.inputs.covariance (cols, cols)
    <layer>.inputs (batch, cols)

and of every look-up table how often each row was asked for, plus one half:

    <layer>.row_weights (rows)
"""

import re

import numpy as np

import load_tt


class Moments:
    """Count, mean and covariance of all rows that came, in double, merged batch by batch."""

    def __init__(self):
        self.count, self.mean, self.scatter = 0, 0, 0

    def add(self, x):
        x = x.astype(np.float64)
        count, mean = len(x), x.mean(0)
        x -= mean
        shift, total = mean - self.mean, self.count + count
        self.scatter = self.scatter + x.T @ x
        self.scatter += np.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def tensors(self, name):
        return {
            f"{name}.inputs.count": np.array([self.count], np.float64),
            f"{name}.inputs.mean": self.mean,
            f"{name}.inputs.covariance": self.scatter / self.count,
        }


class Samples:
    """All rows that came, in float."""

    def __init__(self):
        self.rows = []

    def add(self, x):
        self.rows.append(x.astype(np.float32))

    def tensors(self, name):
        return {f"{name}.inputs": np.concatenate(self.rows)}


class Counts:
    """How often each row of a table was asked for."""

    def __init__(self, rows):
        self.count = np.zeros(rows, np.int64)

    def add(self, index):
        self.count += np.bincount(index.reshape(-1), minlength=len(self.count))

    def tensors(self, name):
        return {f"{name}.row_weights": (self.count + 0.5).astype(np.float32)}


class Recorder:
    """Forward hooks on all layers whose name matches a pattern, until the `with` block ends."""

    def __init__(self, model, pattern=".*", samples=False):
        self.model, self.pattern, self.records = model, re.compile(pattern), {}
        self.kind, self.hooks = Samples if samples else Moments, []

    def __enter__(self):
        for name, module in self.model.named_modules():
            weight = getattr(module, "weight", None)
            if weight is not None and weight.dim() == 2 and self.pattern.fullmatch(name):
                self.hooks.append(module.register_forward_pre_hook(self.hook(name)))
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()

    def hook(self, name):
        def record(module, inputs):
            x, (rows, cols) = inputs[0].detach(), module.weight.shape
            if not x.is_floating_point():
                self.records.setdefault(name, Counts(rows)).add(x.cpu().numpy())
            elif x.shape[-1] == cols and x.numel():
                x = x.reshape(-1, cols).double().cpu().numpy()
                self.records.setdefault(name, self.kind()).add(x)

        return record

    def save(self, path):
        found = {}
        for name, record in self.records.items():
            found.update(record.tensors(name))
        load_tt.write(path, found)
