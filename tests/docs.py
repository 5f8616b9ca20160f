"""Checks that the documentation of tt.h is true. Usage: docs.py BUILD_FOLDER. Standard library.

Code blocks of README.md and of the title block of tt.h compile, run and print something; the cc
lines in the head comments of the examples work; rows of README.md on a real model are those of the
full table; CONTENTS and CONFIGURATION of the title block are those of the file; every public
prototype has a comment; banners and lines keep their form.
"""

import difflib
import glob
import os
import re
import shutil
import subprocess
import sys

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
BUILD = os.path.abspath(sys.argv[1])
passed = failed = 0


def check(good, what, detail=""):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print("docs: FAILED: " + what)
        for line in str(detail).splitlines()[-20:]:
            print("    " + line)


def read(name):
    with open(os.path.join(TOP, name), encoding="utf-8") as file:
        return file.read()


def run(command, folder):
    result = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, timeout=300
    )
    return result.returncode == 0, result.stdout + result.stderr, result.stdout


def fresh(name):
    """A new folder that holds a copy of tt.h and nothing else."""
    folder = os.path.join(BUILD, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    shutil.copy(os.path.join(TOP, "tt.h"), folder)
    return folder


def check_program(name, source, command):
    """Writes source to the file that the cc line names, compiles it so and runs the program."""
    folder = fresh(name)
    file = re.search(r"[\w/]+\.(c|cpp)\b", command).group(0)
    os.makedirs(os.path.dirname(os.path.join(folder, file)), exist_ok=True)
    with open(os.path.join(folder, file), "w", encoding="utf-8") as out:
        out.write(source)
    good, log, _ = run(command, folder)
    check(good, f"{name}: {command}", log)
    if good:
        output = re.search(r"-o\s+(\S+)", command)
        good, log, printed = run("./" + (output.group(1) if output else "a.out"), folder)
        check(good and printed.strip(), f"{name}: the program runs and prints", log)


def check_title_example(title):
    head = re.search(r"A COMPLETE EXAMPLE +(cc .*)\n", title)
    check(head, "the title block has an example with a cc line")
    if head:
        body = title[head.end() :].split("\n   WHAT IT DOES")[0]
        source = "\n".join(line[5:] for line in body.splitlines()) + "\n"
        check_program("title", source, head.group(1).strip())


def check_readme():
    if not os.path.exists(os.path.join(TOP, "README.md")):
        check(False, "README.md exists")
        return
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", read("README.md"), re.M | re.S)
    programs = [body for language, body in blocks if language in ("c", "cpp") and "main(" in body]
    commands = [
        line.strip()
        for language, body in blocks
        if language in ("sh", "bash", "")
        for line in body.splitlines()
        if line.strip().startswith("cc ")
    ]
    commands = [re.split(r"\s+(?:&&|#)\s*", line)[0] for line in commands]
    check(programs, "README.md holds a complete program")
    for number, body in enumerate(programs):
        check_program(f"readme{number}", body, "cc -O2 example.c -lm")
    for number, (language, body) in enumerate(blocks):
        if language == "c" and "main(" not in body:
            check_fragment(f"fragment{number}", body)
    for command in commands:
        if "example.c" not in command:
            check_command("README.md", command, TOP)
    for name in re.findall(r"\]\((?!https?:|#)([^)#]+)", read("README.md")):
        check(os.path.exists(os.path.join(TOP, name)), f"README.md links to {name}")


def same_text(a, b):
    """Equal but for the last digits of fractions, in which machines may differ."""
    fraction = r"\d+\.\d+"
    if re.sub(fraction, "#", a) != re.sub(fraction, "#", b):
        return False
    pairs = zip(re.findall(fraction, a), re.findall(fraction, b))
    return all(abs(float(x) - float(y)) <= 2e-3 * abs(float(y)) + 2e-4 for x, y in pairs)


def check_walkthrough():
    """README.md shows what `make -C examples walkthrough` prints today."""
    good, log, printed = run("make -s --no-print-directory -C examples walkthrough", TOP)
    check(good, "make -C examples walkthrough", log)
    marker = "<!-- output of: make -C examples walkthrough -->\n```console\n"
    shown = read("README.md").partition(marker)[2].partition("```\n")[0]
    if good:
        changes = difflib.unified_diff(shown.splitlines(), printed.splitlines(), lineterm="")
        check(
            same_text(shown, printed),
            "README.md shows its output; `make -C examples readme` brings it up to date",
            "\n".join(changes),
        )


def check_real_model():
    """Every row of the README's table stands word for word in the full one."""
    section = read("README.md").partition("\n## A real model\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    full = read("examples/python/minilm_table.md").splitlines()
    check(len(rows) > 10, "README.md has a table of a real model", f"{len(rows)} rows")
    missing = [row for row in rows if row not in full]
    check(
        not missing,
        "README.md's rows of a real model are those of examples/python/minilm_table.md",
        "\n".join(missing),
    )


def check_fragment(name, body):
    """A block without main: a piece of a function, or of a file. Other names must exist in tt.h."""
    folder = fresh(name)
    heads = '#define TT_IMPLEMENTATION\n#include "tt.h"\n#include <stdio.h>\n'
    pieces = {
        "file.c": heads + body,
        "function.c": heads + "void piece(void);\nvoid piece(void) {\n" + body + "}\n",
    }
    logs = []
    for file, source in pieces.items():
        with open(os.path.join(folder, file), "w", encoding="utf-8") as out:
            out.write(source)
        good, log, _ = run("cc -c " + file, folder)
        logs.append(log)
        if good:
            break
    check(good, f"{name} of README.md compiles", logs[-1])


def check_command(where, command, folder):
    """A cc line works as written; what it makes goes to the build folder."""
    made = os.path.join(BUILD, "command.out")
    changed = (
        re.sub(r"-o\s+\S+", "-o " + made, command) if " -o " in command else command + " -o " + made
    )
    good, log, _ = run(changed, folder)
    check(good, f"{where}: {command}", log)


def check_examples():
    for path in sorted(glob.glob(os.path.join(TOP, "examples", "*.c"))):
        name = os.path.relpath(path, TOP)
        with open(path, encoding="utf-8") as file:
            head = "".join(line for line in file.read().split("\n#")[0].splitlines(True))
        command = re.search(r"\bcc [^\n]*", head)
        check(command, f"{name} names its cc line in the head comment")
        if command:
            line = re.split(r"\s*(?:&&|\*/|\s{3,})", command.group(0))[0].rstrip(" .;")
            folder = TOP if "examples/" in line else os.path.join(TOP, "examples")
            check_command(name, line, folder)


def check_contents(title, text):
    """Two columns of markers, the left one first, in the order of the file."""
    contents = title.split("CONTENTS")[1].split("CONFIGURATION")[0].split("\n", 1)[1]
    rows = [re.findall(r">>(\w+)", line) for line in contents.splitlines()]
    listed = [row[0] for row in rows if row] + [row[1] for row in rows if len(row) > 1]
    banners = re.findall(r"^// -+ >>(\w+)$", text, re.M)
    check(listed == banners, "CONTENTS equals the markers, in order", f"{listed}\n{banners}")
    check(len(set(banners)) == len(banners), "every marker is unique")
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"// -+ >>\w+$", line):
            comment = 0
            while lines[number + 1 + comment].startswith("//"):
                comment += 1
            check(
                2 <= comment <= 15,
                f"banner {line.split()[-1]} is followed by 2 to 15 lines",
                f"{comment} lines",
            )
            check(
                90 <= len(line) <= 100,
                f"banner {line.split()[-1]} ends at column 90 to 100",
                f"{len(line)}",
            )


def check_configuration(title, text):
    """Every macro that the file asks for is listed in CONFIGURATION, and the other way round."""
    listed = set(
        re.findall(
            r"\bTT(?:DEF|_[A-Z_]+)\b", title.split("CONFIGURATION")[1].split("CONVENTIONS")[0]
        )
    )
    own = {"TT_H_INCLUDED", "TT_IMPLEMENTATION_DONE"}
    asked = set()
    for line in re.findall(r"^#\s*(?:if|ifdef|ifndef|elif)\b.*$", text, re.M):
        asked |= set(re.findall(r"\bTT(?:DEF|_[A-Z][A-Z_]*)\b", line))
    known = asked | set(
        re.findall(r"^#define (TT_[A-Z]+)\(", text, re.M)
    )  # TT_FREE comes with TT_MALLOC
    check(
        asked - own <= listed <= known,
        "CONFIGURATION lists the macros that the file asks for",
        f"not listed: {sorted(asked - own - listed)}\nnot asked for: {sorted(listed - known)}",
    )


def check_prototypes(text):
    """A comment directly above, or behind. A guard or a typedef may stand in between."""
    api = text.split("#endif // TT_H_INCLUDED")[0].split("#define TT_H_INCLUDED")[1]
    lines = api.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("TTDEF "):
            continue
        name = re.search(r"(\w+)\(", line).group(1)
        above = number - 1
        while re.match(r"typedef struct \w+ \w+;|#ifn?def |TTDEF .*\\$", lines[above]):
            above -= 1
        end = number
        while ";" not in lines[end].split("//")[0]:
            end += 1
        commented = lines[above].startswith("//") or any("//" in l for l in lines[number : end + 1])
        check(commented, f"{name} has a comment above or behind its prototype")


def check_lines():
    names = ["tt.h", "tt_cuda.h"] + [
        os.path.relpath(path, TOP)
        for pattern in (
            "examples/*.c",
            "examples/*.h",
            "examples/*/*.[ch]",
            "examples/*/*.sh",
            "examples/cuda/*.cpp",
            "bench/*.[ch]",
            "bench/*.cu",
            "bench/*.cpp",
            "bench/*.py",
            "bench/*.sh",
            "examples/python/*.py",
            "tests/*.[ch]",
            "tests/*.cpp",
            "tests/checks/*.sh",
        )
        for path in sorted(glob.glob(os.path.join(TOP, pattern)))
    ]
    for name in names:
        long, untidy = [], []
        for number, line in enumerate(read(name).split("\n"), 1):
            if len(line) > 100 and '"' not in line:           # rows of tables of strings may be wide
                long.append(f"{name}:{number}: {len(line)} columns")
            if line != line.rstrip() or ("\t" in line and "Makefile" not in name) or "\r" in line:
                untidy.append(f"{name}:{number}: blanks at the end, or a tab")
        check(not long, f"{name}: no line over 100 columns ({len(long)})", "\n".join(long[:5]))
        check(not untidy, f"{name}: no trailing blanks, no tabs", "\n".join(untidy[:5]))


def main():
    text = read("tt.h")
    title = text.split("*/")[0]
    check(len(title.splitlines()) <= 150, "the title block has at most 150 lines")
    check_title_example(title)
    check_contents(title, text)
    check_configuration(title, text)
    check_prototypes(text)
    check_readme()
    check_walkthrough()
    check_real_model()
    check_examples()
    check_lines()
    print(f"docs: {passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
