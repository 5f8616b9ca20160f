"""Coverage of tt.h from gcov's JSON. Usage: coverage.py FILE.gcov.json.gz LINES BRANCHES

LINES and BRANCHES are least percentages. Standard library only. Counted: every line of code, and
every branch that gcc knows, but for those of calls that end abnormally (C has none that tests could
take) and those of TT_ASSERT, which must not be taken.
"""

import gzip
import json
import os
import re
import sys


def load(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        data = json.load(file)
    lines, branches = {}, {}
    for source in data["files"]:
        if not source["file"].endswith("tt.h"):
            continue
        for line in source["lines"]:
            number = line["line_number"]
            lines[number] = lines.get(number, 0) + line["count"]
            kept = [branch["count"] for branch in line["branches"] if not branch["throw"]]
            branches.setdefault(number, []).extend(kept)
    return lines, branches


def percent(part, whole):
    return 100.0 * part / whole if whole else 100.0


def main():
    lines, branches = load(sys.argv[1])
    header = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tt.h")
    with open(header, encoding="utf-8") as file:
        text = [""] + file.read().splitlines()
    branches = {
        number: counts
        for number, counts in branches.items()
        if counts and "TT_ASSERT" not in text[number]
    }
    marks = [
        (number, match.group(1))
        for number, line in enumerate(text)
        if (match := re.match(r"// -+ >>(\w+)$", line))
    ] + [(len(text), "")]

    print("section        lines      reached   branches      reached")
    for (first, name), (after, _) in zip(marks, marks[1:]):
        inside = [count for number, count in lines.items() if first <= number < after]
        taken = [
            count
            for number, counts in branches.items()
            if first <= number < after
            for count in counts
        ]
        print(
            f"  >>{name:9} {len(inside):6}  "
            f"{percent(sum(c > 0 for c in inside), len(inside)):9.1f} % "
            f"{len(taken):8}  {percent(sum(c > 0 for c in taken), len(taken)):9.1f} %"
        )

    print("\nlines never reached:")
    for number in sorted(number for number, count in lines.items() if not count):
        print(f"  {number:5}  {text[number].strip()[:85]}")
    print("\nbranches never taken (line: which of how many):")
    for number in sorted(branches):
        counts = branches[number]
        missed = [str(i + 1) for i, count in enumerate(counts) if not count]
        if missed and lines.get(number):
            print(f"  {number:5}: {','.join(missed)} of {len(counts)}  {text[number].strip()[:75]}")

    every = [count for counts in branches.values() for count in counts]
    line_share = percent(sum(count > 0 for count in lines.values()), len(lines))
    branch_share = percent(sum(count > 0 for count in every), len(every))
    goals = [
        (line_share, float(sys.argv[2]), "lines"),
        (branch_share, float(sys.argv[3]), "branches"),
    ]
    print()
    for share, goal, what in goals:
        print(
            f"{what}: {share:.2f} %, at least {goal:g} % wanted: "
            f"{'good' if share >= goal else 'FAILED'}"
        )
    failed = sum(share < goal for share, goal, _ in goals)
    print(f"coverage: {len(goals) - failed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
