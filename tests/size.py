"""Code, data and stack of a small program around tt.h, from nm and gcc's call graph.
Usage: size.py figures PROGRAM | size.py code|data|stack|recursion|foreign|division PROGRAM LIMIT
PROGRAM.nm is the output of nm -S on the linked image, PROGRAM.ci the call graph of its object."""

import re
import sys

INNER = ("tt__step_rows", "tt__integer_row", "tt__integer_step")  # loops over numbers
FOREIGN = r"_d(add|sub|mul|div|cmp\w*|2\w+)$|[fiu]2d$|df2|alloc|free|printf|sqrt|exp|log|pow"


def symbols(path):
    """(name, kind, bytes) of everything with a size in the image."""
    with open(path + ".nm", encoding="ascii") as lines:
        fields = [line.split() for line in lines]
    return [(f[3], f[2], int(f[1], 16)) for f in fields if len(f) == 4]


def is_ours(name):
    return name.startswith("tt_")


def call_graph(path):
    """Bytes of stack of every function of the object, and whom it calls."""
    with open(path + ".ci", encoding="ascii") as file:
        text = file.read()
    frames, calls = {}, {}
    for title, label in re.findall(r'node: \{ title: "([^"]*)" label: "([^"]*)"', text):
        size = re.search(r"(\d+) bytes", label)
        frames[title] = int(size.group(1)) if size else 0
    for source, target in re.findall(r'sourcename: "([^"]*)" targetname: "([^"]*)"', text):
        calls.setdefault(source, set()).add(target)
    return frames, calls


def plain(title):
    return re.sub(r"\.(constprop|part|isra)\.\d+$", "", title.split(":")[-1])


def deepest(name, frames, calls, above=()):
    """(bytes, path) of the deepest chain of calls from here; None where a function calls itself."""
    if name in above:
        return None
    best = (0, ())
    for callee in calls.get(name, ()):
        below = deepest(callee, frames, calls, above + (name,))
        if below is None:
            return None
        best = max(best, below)
    return best[0] + frames.get(name, 0), (plain(name),) + best[1]


def measure(what, path):
    code = [s for s in symbols(path) if s[1] in "tTrRwW" and s[0] != "main"]
    frames, calls = call_graph(path)
    linked = {s[0] for s in code}
    used = [f for f in frames if f.split(":")[-1] in linked]
    chains = [deepest(f, frames, calls) for f in used]
    if what == "code":
        return sum(s[2] for s in code if is_ours(s[0]))
    if what == "library":
        return sum(s[2] for s in code if not is_ours(s[0]))
    if what == "data":
        return sum(s[2] for s in symbols(path) if s[1] in "bBdDcC" and is_ours(s[0]))
    if what == "recursion":
        return sum(chain is None for chain in chains)
    if what == "stack":
        return max(chain for chain in chains if chain)
    called = {plain(f): {plain(c) for c in calls.get(f, ())} for f in frames}
    if what == "division":
        inner = [f for f in INNER if f in called]
        if not inner:
            sys.exit("none of the inner loops was found")
        return sum("div" in c for f in inner for c in called[f])
    if what == "foreign":
        return sum(bool(re.search(FOREIGN, c)) for f in used for c in called[plain(f)])
    sys.exit("what?")


def main():
    what, path = sys.argv[1:3]
    if what == "figures":
        stack, chain = measure("stack", path)
        print(
            f"{path.split('/')[-1]:8} {measure('code', path):5} bytes of code, "
            f"{measure('library', path):5} of library routines, {measure('data', path)} of data, "
            f"{stack:3} of stack: " + " ".join(f for f in chain if is_ours(f))
        )
        return
    found = measure(what, path)
    if isinstance(found, tuple):
        found = found[0]
    print(f"{what}: {found}, limit {sys.argv[3]}")
    sys.exit(found > int(sys.argv[3]))


main()
