"""Mutation testing of the solvers and estimators: `python -m tests.mutants`, or `make mutants`.

mutmut changes one place of the source at a time, and runs the tests that reach it. There are some
thousands of such mutants, so a sample is tried: of each file as many as `--each` says, drawn with
`--seed`; a larger sample with the same seed holds the smaller one. The settings are in
pyproject.toml, below [tool.mutmut]; what survived, and why, is in docs/testing.md.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from mutmut.stats import status_by_exit_code

MUTANTS = Path("mutants/src")
ANY = "equipoise.equilibrium.krylov.x__unit__mutmut_1"
"""One of them, by which all are made."""


def main() -> None:
    """Draw, try, and print the score of each file and the survivors."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--each", type=int, default=20, help="mutants of each file")
    options.add_argument("--seed", type=int, default=23, help="of the draw")
    options.add_argument("--show", action="store_true", help="the changes that survived")
    options.add_argument("files", nargs="*", help="stems, such as anderson; all by default")
    chosen = options.parse_args()
    run([ANY])  # writes all mutants, and notes which tests reach them
    sample = {
        path: drawn(list(verdicts(path)), chosen.each, chosen.seed)
        for path in sorted(MUTANTS.rglob("*.py.meta"))
        if verdicts(path) and (not chosen.files or stem(path) in chosen.files)
    }
    untried = [
        name for path, names in sample.items() for name in names if verdicts(path)[name] is None
    ]
    if untried:
        run(untried)
    survivors = [name for path, names in sample.items() for name in report(path, names)]
    for name in survivors if chosen.show else []:
        subprocess.run([sys.executable, "-m", "mutmut", "show", name], check=True)


def run(names: list[str]) -> None:
    """Have mutmut try these mutants, in one process."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names]
    subprocess.run(command, check=True)


def stem(path: Path) -> str:
    """anderson.py.meta -> anderson."""
    return path.name.partition(".")[0]


def verdicts(path: Path) -> dict[str, int | None]:
    """Name of each mutant of a file -> exit code of its tests, None where it was not tried."""
    codes: dict[str, int | None] = json.loads(path.read_text())["exit_code_by_key"]
    return codes


def drawn(names: list[str], count: int, seed: int) -> list[str]:
    """The first `count` in an order that the seed gives."""
    random.Random(seed).shuffle(names)
    return names[:count]


def report(path: Path, names: list[str]) -> list[str]:
    """Print the line of a file; returns those that survived."""
    codes = verdicts(path)
    verdict = {name: status_by_exit_code[codes[name]] for name in names}
    counts = Counter(verdict.values())
    missed = [name for name in names if verdict[name] in ("survived", "no tests")]
    found = len(names) - len(missed)
    words = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    print(
        f"{stem(path):20} {len(codes):4} mutants, {len(names):3} tried: {found / len(names):4.0%} found ({words})"
    )
    return missed


if __name__ == "__main__":
    main()
