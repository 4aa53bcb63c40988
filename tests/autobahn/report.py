"""Counts what Autobahn|Testsuite has found: report.py INDEX ACCEPTED [RESULT WHICH]

Prints a table for each server, and writes it to RESULT, with WHICH cases were asked. The exit code is 1 if a case failed,
if one passed in another way than the strict one and ACCEPTED does not name it, or if ACCEPTED names one that passed strictly.
"""

import json
import subprocess
import sys
import tomllib
from collections import Counter
from datetime import date
from pathlib import Path

COLUMNS = ["passed", "non-strict", "informational", "unimplemented", "failed"]
VERDICTS = {
    "OK": "passed",
    "NON-STRICT": "non-strict",
    "INFORMATIONAL": "informational",
    "UNIMPLEMENTED": "unimplemented",
}
GROUPS = {
    "1": "1 framing",
    "2": "2 pings and pongs",
    "3": "3 reserved bits",
    "4": "4 opcodes",
    "5": "5 fragmentation",
    "6": "6 UTF-8",
    "7": "7 closing",
    "9": "9 limits, long messages",
    "10": "10 miscellaneous",
    "12": "12 compression",
    "13": "13 compression, parameters",
}


def verdict(case):
    """The column of a case: the worse one of what came and how the connection was closed."""
    columns = [VERDICTS.get(case[key], "failed") for key in ("behavior", "behaviorClose")]
    return max(columns, key=COLUMNS.index)


def count(cases):
    """How many cases of each group are in each column."""
    counts = {}
    for name, column in cases.items():
        row = counts.setdefault(name.split(".")[0], dict.fromkeys(COLUMNS, 0))
        row[column] += 1
    return counts


def table(counts):
    rows = [f"| cases | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
    rows += [
        f"| {GROUPS[group]} | {' | '.join(str(row[column]) for column in COLUMNS)} |"
        for group, row in sorted(counts.items(), key=lambda item: int(item[0]))
    ]
    sums = [sum(row[column] for row in counts.values()) for column in COLUMNS]
    return [*rows, f"| **all** | {' | '.join(map(str, sums))} |"]


def complaints(cases, accepted):
    """What the run fails by."""
    for name, column in cases.items():
        if column == "failed" or (column == "non-strict" and name not in accepted):
            yield f"{name}: {column}"
        elif column == "passed" and name in accepted:
            yield f"{name}: passed strictly; take it out of accepted.toml"
        elif column == "unimplemented":
            yield f"{name}: unimplemented"


def main(index, accepted, result=None, which=None):
    accepted = tomllib.loads(Path(accepted).read_text())["non-strict"]
    servers = json.loads(Path(index).read_text())
    text, wrong, total = [], [], Counter()
    for server, found in servers.items():
        cases = {name: verdict(case) for name, case in found.items()}
        text += ["", f"## {server}", "", *table(count(cases))]
        total.update(cases.values())
        wrong += [f"{server} {complaint}" for complaint in complaints(cases, accepted)]
    if not all(servers.values()) or len(servers) != 3 or len({len(found) for found in servers.values()}) != 1:
        wrong.append("the servers were not asked the same cases")
    sums = ", ".join(f"{total[column]} {column}" for column in COLUMNS)
    print(*text[1:], "", f"{total.total()} cases: {sums}", sep="\n")
    for complaint in wrong:
        print(complaint, file=sys.stderr)
    if result:
        commit = subprocess.check_output(["git", "describe", "--always", "--dirty"], text=True).strip()
        pins = Path(__file__).with_name("requirements.txt").read_text().split()
        suite = next(pin for pin in pins if pin.startswith("autobahntestsuite=="))
        text = [
            "# The last run of tests/autobahn/run",
            "",
            f"Printed by the script itself on {date.today()}, of commit {commit}, with {suite} on Python 2.7 of",
            "Debian 11. `wss-service` is its example `echo`, over TCP; `wssgate` is the gateway's own echo, over TLS, with",
            "compression; `wssgate in front` is the gateway, over TLS, in front of the example, with compression that ends at the",
            "gateway.",
            "",
            f"Cases: {which}.",
            "",
            "Not strict, and accepted:" if accepted else "No case is accepted that isn't strict.",
            "",
            *(f"- {name}: {reason}" for name, reason in accepted.items()),
            *([""] if accepted else []),
            "Informational cases have no wrong answer.",
            *text,
        ]
        Path(result).write_text("\n".join(text) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
