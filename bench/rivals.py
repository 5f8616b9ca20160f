"""What the benches in Python share: tt.h as a shared library, timing turn by turn, one table line.

Everything runs on one thread. Times are processor time, the least of several runs,
taken turn by turn so that whatever slows the machine down hits all sides; a call of more than
three seconds runs once. A rival that cannot be imported is reported as skipped.
"""

import ctypes
import importlib
import os
import sys
import time
import warnings

QUICK = "quick" in sys.argv[1:]
NAMES = {"torchtt": "torchTT", "torchtt.nn": "torchTT", "tltorch": "tensorly-torch",
         "sklearn.utils.extmath": "scikit-learn"}
sys.dont_write_bytecode = True
warnings.simplefilter("ignore")


def optional(name):
    """The module, or None and a line that says so."""
    try:
        with open(os.devnull, "w") as quiet:            # some greet on import
            stdout, sys.stdout = sys.stdout, quiet
            try:
                return importlib.import_module(name)
            finally:
                sys.stdout = stdout
    except Exception:                                   # whatever a broken installation raises
        print("skipped: " + NAMES.get(name, name))
        return None


np = optional("numpy")
if np is None:
    sys.exit(0)
torch = optional("torch")
if torch is not None:
    torch.set_num_threads(1)
    torch.manual_seed(1)

here = os.path.dirname(os.path.abspath(__file__))
library = ctypes.CDLL(os.path.join(here, "build", "shared.so"))
library.shared_layer_new.restype = ctypes.c_void_p


def call(name, *arguments):
    """Calls a function of shared.c and returns what it does; array arguments go as pointers."""
    plain = []
    for value in arguments:
        if isinstance(value, np.ndarray):
            assert value.flags.c_contiguous
            value = ctypes.c_void_p(value.ctypes.data)
        elif isinstance(value, int):
            value = ctypes.c_ssize_t(value)
        plain.append(value)
    return getattr(library, name)(*plain)


def must(name, *arguments):
    """Calls a function that returns a tt_status."""
    status = call(name, *arguments)
    if status != 0:
        raise RuntimeError("%s: status %d" % (name, status))


def timed(run):
    start = time.process_time()
    run()
    return time.process_time() - start


def turns(sides, budget=None):
    """Least seconds of every callable in the dict `sides`, turn by turn; None for one that fails.

    Calls below a millisecond are timed in batches.
    """
    budget = budget or (0.1 if QUICK else 1.0)
    best, batch = {}, {}
    for name, run in sides.items():
        try:
            first = timed(run)
        except Exception as error:
            print("skipped: %s (%s)" % (name, str(error).splitlines()[0][:60]))
            best[name] = None
            continue
        if first < 3:
            first = timed(run)                          # the first call was a warm-up
        best[name], batch[name] = first, max(1, int(1e-3 / (first + 1e-7)))
    spent = {name: seconds for name, seconds in best.items() if seconds is not None}
    while any(spent[name] < budget and best[name] < 3 for name in spent):
        for name in spent:
            if spent[name] < budget and best[name] < 3:
                count = batch[name]
                seconds = timed(lambda: [sides[name]() for _ in range(count)])
                best[name] = min(best[name], seconds / count)
                spent[name] += seconds + 1e-4
    return best


def start(question):
    versions = ["%s %s" % (module.__name__, module.__version__)
                for name in ("numpy", "torch", "scipy", "tensorly", "sklearn", "torchtt", "tntorch",
                             "tltorch")
                for module in [sys.modules.get(name)] if module and hasattr(module, "__version__")]
    print("\n" + question)
    print("one thread; least of several runs, turn by turn; " + ", ".join(versions))


def table(what, ours, seconds, errors):
    """A block of lines: `ours` with its ratio to the best rival, then every rival with its own.

    Names that begin like `ours` are other ways of ours, not rivals.
    """
    rivals = [value for name, value in seconds.items() if value and not name.startswith(ours)]
    for name, value in seconds.items():
        if value is None:
            continue
        line = "%-28s %-34s %10.3f ms" % (what if name == ours else "", name, value * 1e3)
        error = errors.get(name)
        line += "  err %10.4e" % error if error is not None else "  err          -"
        if name != ours:
            line += "   ratio %7.2fx" % (value / seconds[ours])
        elif rivals:
            line += "   best  %7.2fx" % (min(rivals) / value)
        print(line, flush=True)
