"""Mutation testing of the solvers and estimators: `python -m tests.mutants`, or `make mutants`.

mutmut writes the mutants, each a copy of a function with one place changed, and notes which tests
reach which function. There are some thousands of mutants, so a sample is tried: of each file as
many as `--each` says, drawn with `--seed`; a larger sample with the same seed holds the smaller
one. A mutant is tried on the tests of its own file, and on `--tests` of the others that reach it,
spread over their files. Verdicts are kept in mutants/verdicts.json until the source changes, so
that a run which was ended goes on. The settings are in pyproject.toml, below [tool.mutmut]; what
survived, and why, is in docs/testing.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import chain, zip_longest
from pathlib import Path

import pytest
from mutmut.mutation.trampoline import set_mutant_under_test

FOLDER = Path("mutants")
STATISTICS = FOLDER / "mutmut-stats.json"
"""Which tests reach which function; written last, so that a run which was ended has none."""
ANY = "equipoise.equilibrium.krylov.x__unit__mutmut_1"
"""One of them, by which all are made."""
EXPLICIT = ("jacobian_free", "neumann", "phantom")
"""Their tests are in one file."""
SECONDS = 60
"""Of a processor, for the tests of one mutant; a loop that does not end is ended there."""
LEFT_OUT = ("cacheprovider", "cov", "unraisableexception", "threadexception")
PLAIN = ["-x", "-q", "--tb=no", "-m", "not slow", *(f"-pno:{name}" for name in LEFT_OUT)]


def main() -> None:
    """Draw, try, and print the score of each file and the survivors."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--each", type=int, default=20, help="mutants of each file")
    options.add_argument("--seed", type=int, default=23, help="of the draw")
    options.add_argument("--tests", type=int, default=60, help="of other files, for each mutant")
    options.add_argument("--again", action="store_true", help="try the survivors once more")
    options.add_argument("files", nargs="*", help="stems, such as anderson; all by default")
    chosen = options.parse_args()
    if not up_to_date():
        shutil.rmtree(FOLDER, ignore_errors=True)  # a half of them, or verdicts on earlier code
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", ANY]
        subprocess.run(command, check=True)
    shutil.copytree("tests", FOLDER / "tests", dirs_exist_ok=True)  # as they are by now
    sample = {
        stem: random.Random(chosen.seed).sample(names, len(names))[: chosen.each]
        for stem, names in mutants().items()
        if not chosen.files or stem in chosen.files
    }
    noted = json.loads(STATISTICS.read_text())
    reached, seconds = noted["tests_by_mangled_function_name"], noted["duration_by_test"]
    os.chdir(FOLDER)
    sys.path[:0] = ["src", "."]
    known = Verdicts(Path("verdicts.json"))
    present = warm_up()
    for position in range(chosen.each):  # a mutant of each file, then the next of each
        for stem, names in sample.items():
            for name in names[position : position + 1]:
                if known.of.get(name) is None or (chosen.again and known.of[name] == "survived"):
                    reaching = present.intersection(reached.get(function_of(name), []))
                    tests = selected(stem, {t: seconds[t] for t in reaching}, chosen.tests)
                    known.note(name, tried(name, tests) if tests else "survived")
    report(sample, known.of)


def up_to_date() -> bool:
    """Whether the mutants are all there, and those of the present source."""
    made = {path: path.stat().st_mtime for path in FOLDER.rglob("*.py.meta")}
    sources = (Path(*path.parts[1:]).with_suffix("") for path in made)
    return STATISTICS.exists() and all(
        source.exists() and source.stat().st_mtime < time
        for source, time in zip(sources, made.values(), strict=True)
    )


def mutants() -> dict[str, list[str]]:
    """Stem of a file, such as anderson -> the names of its mutants."""
    named = {
        path.name.partition(".")[0]: list(json.loads(path.read_text())["exit_code_by_key"])
        for path in sorted(FOLDER.rglob("*.py.meta"))
    }
    return {stem: names for stem, names in named.items() if names}


def function_of(name: str) -> str:
    """The mutated function, as mutmut names it."""
    return name.rpartition("__mutmut_")[0]


def selected(stem: str, reaching: dict[str, float], most: int) -> list[list[str]]:
    """The first tests to run, and then the rest: each list the quickest first.

    reaching: tests of the function, with their seconds. The rest ends with the file's own tests.
    """
    name = "explicit_estimators" if stem in EXPLICIT else stem
    own = [str(path) for path in sorted(Path("tests/equilibrium").rglob(f"test_{name}.py"))]
    near: list[str] = []
    others: dict[str, list[str]] = defaultdict(list)
    for test in random.Random(0).sample(sorted(reaching), len(reaching)):
        file = test.partition("::")[0]
        (near if file in own else others[file]).append(test)
    turns = [t for t in chain.from_iterable(zip_longest(*others.values())) if t is not None][:most]
    turns.sort(key=reaching.__getitem__)
    near.sort(key=reaching.__getitem__)
    first = near[:4] + turns[:6]
    return [part for part in (first, turns[6:] + own) if part]


def warm_up() -> set[str]:
    """Import all that the tests import; nothing has run in this process when it is forked.

    Returns the names of the tests: one that was noted may have another name by now.
    """
    collected = Collected()
    pytest.main([*PLAIN, "--collect-only", "-qq", "tests/equilibrium"], plugins=[collected])
    gc.freeze()
    return collected.names


class Collected:
    """A plugin of pytest that notes the names of the tests."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Called by pytest with each test."""
        self.names.add(item.nodeid)


def tried(name: str, tests: list[list[str]]) -> str:
    """What the tests make of a mutant: killed, timeout or survived."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        set_mutant_under_test(name)
        signal.alarm(20 * SECONDS)
        resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS), int(SECONDS) + 1))
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
        codes = (int(pytest.main([*PLAIN, *part])) for part in tests)
        os._exit(next((code for code in codes if code != 0), 0))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        return "timeout"
    if status not in (0, 1, 3):
        raise RuntimeError(f"pytest ended with {status} for {name}")
    return "survived" if status == 0 else "killed"


class Verdicts:
    """Name of a mutant -> what became of it, kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.of: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def note(self, name: str, verdict: str) -> None:
        """Keep and print it."""
        self.of[name] = verdict
        self.path.write_text(json.dumps(self.of, indent=1))
        print(f"{verdict:8} {name}", flush=True)


def report(sample: dict[str, list[str]], verdicts: dict[str, str]) -> None:
    """Print the score of each file and of all, and the names of the survivors."""
    total: Counter[str] = Counter()
    for stem, names in sample.items():
        counts = Counter(verdicts[name] for name in names)
        print(f"{stem:20} {score(counts)}")
        total.update(counts)
    print(f"{'all':20} {score(total)}")
    for name in chain.from_iterable(sample.values()):
        if verdicts[name] == "survived":
            print(f"mutmut show {name}")


def score(counts: Counter[str]) -> str:
    """How many were tried, and found."""
    tried, found = counts.total(), counts.total() - counts["survived"]
    return f"{tried:4} tried, {found:4} found ({counts['timeout']} by time): {found / tried:4.0%}"


if __name__ == "__main__":
    main()
