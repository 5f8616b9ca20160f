"""Figures for people about tt.h. Usage: report.py BUILD_FOLDER. Standard library only."""

import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
HEADER = os.path.join(HERE, "..", "tt.h")
BUILD = os.path.abspath(sys.argv[1])


def is_comment(line, inside):
    """(counts as comment, still inside a block comment); code with a comment counts half."""
    text = line.strip()
    if inside or text.startswith("/*"):
        return 1.0, "*/" not in text
    if text.startswith("//"):
        return 1.0, False
    return (0.5 if "//" in text else 0.0), False


def functions(lines):
    """(name, first line, lines) of every function body, which ends at a brace in column 0."""
    found, start, name = [], None, None
    for number, line in enumerate(lines, 1):
        if start is None:
            if re.match(r"(static|TTDEF) ", line) and "(" in line:
                start, name = number, re.search(r"(\w+)\(", line).group(1)
            if start and ";" in line and "{" not in line:
                start = None  # a prototype
            elif start and re.search(r"\{.*\}\s*(//.*)?$", line):
                found.append((name, start, 1))
                start = None
        elif line.startswith("}"):
            found.append((name, start, number - start + 1))
            start = None
        elif (
            line.startswith("  ") and ";" in line and "{" not in "".join(lines[start - 1 : number])
        ):
            start = None  # a prototype over several lines
    return found


def sections(lines):
    found = [("title", 1)]
    for number, line in enumerate(lines, 1):
        if line.startswith("#ifndef TT_H_INCLUDED"):
            found.append(("API", number))
        marker = re.match(r"// -+ >>(\w+)$", line)
        if marker:
            found.append((">>" + marker.group(1), number))
        if line.startswith("/* VERSION HISTORY"):
            found.append(("history, licence", number))
    return found


def object_sizes():
    source = os.path.join(BUILD, "header.c")
    with open(source, "w", encoding="utf-8") as out:
        out.write('#include "../../../tt.h"\n')
    print("\nobject size (bytes of code and constants, data, bss)")
    for compiler in ("gcc", "clang"):
        if not shutil.which(compiler) or not shutil.which("size"):
            print(f"skipped: {compiler} (not installed)")
            continue
        for mode in ("", "-DTT_INFERENCE_ONLY"):
            for level in ("-Os", "-O2"):
                target = os.path.join(BUILD, "header.o")
                command = [
                    compiler,
                    level,
                    "-DTT_IMPLEMENTATION",
                    *mode.split(),
                    "-c",
                    source,
                    "-o",
                    target,
                ]
                subprocess.run(command, check=True)
                sizes = subprocess.run(["size", target], capture_output=True, text=True, check=True)
                text, data, bss = sizes.stdout.splitlines()[1].split()[:3]
                print(
                    f"  {compiler:6} {level} {mode or 'everything':20} {text:>8} {data:>4} {bss:>4}"
                )


def main():
    with open(HEADER, encoding="utf-8") as file:
        lines = file.read().splitlines()
    code = [line for line in lines if line.strip()]
    inside, comments, by_line = False, 0.0, []
    for line in lines:
        share, inside = is_comment(line, inside)
        by_line.append(share if line.strip() else 0.0)
        comments += by_line[-1]
    print(
        f"tt.h: {len(lines)} lines, {len(code)} not blank, "
        f"{100 * comments / len(code):.0f} % comment, "
        f"{sum(len(line) > 100 for line in lines)} over 100 columns"
    )

    bodies = functions(lines)
    marks = sections(lines) + [("end", len(lines) + 1)]
    print("\nsection             lines  comment  functions  longest")
    for (name, first), (_, after) in zip(marks, marks[1:]):
        inner = [size for _, start, size in bodies if first <= start < after]
        filled = sum(1 for line in lines[first - 1 : after - 1] if line.strip())
        share = 100 * sum(by_line[first - 1 : after - 1]) / max(filled, 1)
        print(
            f"  {name:17} {after - first:5}  {share:5.0f} %  {len(inner):9}  "
            f"{max(inner, default=0):7}"
        )

    sizes = sorted(size for _, _, size in bodies)
    if sizes:
        print(
            f"\n{len(sizes)} functions: median {sizes[len(sizes) // 2]} lines, "
            f"90th percentile {sizes[len(sizes) * 9 // 10]}, longest:"
        )
        for name, start, size in sorted(bodies, key=lambda body: -body[2])[:10]:
            print(f"  {size:4}  {name} (line {start})")
    object_sizes()


main()
