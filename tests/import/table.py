"""Prints what `wssgate import` makes of public configurations, as the table of docs/import.md.

    WSSGATE=target/debug/wssgate tests/import/table.py DIRECTORY

configurations.tsv names them: the server, a repository, and a file in it. The file has to be at
DIRECTORY/OWNER/NAME/FILE, with what it includes; their texts are no part of this repository.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NUMBERS = re.compile(r"^(\d+) directives: (\d+) are keys, (\d+) say .* by itself, (\d+) have no counterpart", re.M)


def row(server, repository, name, directory):
    file = Path(directory, repository, name)
    command = [os.environ["WSSGATE"], "import", server, file]
    made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    numbers = NUMBERS.search(made.stderr)
    if numbers is None:
        # The file's own server refuses it, too.
        return [server, repository, name, "–", "–", "–", "–", made.stderr.strip().rpartition(": ")[2]]
    problems = re.findall(r"^to correct in the new file, line \d+: (.*)$", made.stderr, re.M)
    verdict = "yes" if made.returncode == 0 else "no: " + "; ".join(dict.fromkeys(map(short, problems)))
    return [server, repository, name, *numbers.groups(), verdict]


def short(what):
    return re.split(r";|, for instance|: write", what)[0].replace("|", "\\|")


def main():
    (directory,) = sys.argv[1:]
    print("| server | repository | file | directives | keys | by itself | commented | `check` takes it |")
    print("|---|---|---|---:|---:|---:|---:|---|")
    for line in (HERE / "configurations.tsv").read_text().splitlines():
        print("|", " | ".join(row(*line.split("\t"), directory)), "|")


if __name__ == "__main__":
    main()
