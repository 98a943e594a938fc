"""No command line, however odd, ends in a traceback or does something else than it says.

`EQUIPOISE_LINES=1000 pytest tests/end_to_end/test_mutated_lines.py -m slow -s` shows the counts.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.end_to_end.conftest import SMALL
from tests.end_to_end.mutated_lines import SHORT, CommandLine, mutated, valid_lines
from tests.end_to_end.tried_lines import faults, prepare, tried


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[CommandLine]:
    """The valid lines, a checkpoint among them."""
    prepare()
    folder = tmp_path_factory.mktemp("trained") / "here"
    outcome = tried(CommandLine("train.py", (*SMALL, *SHORT, "run_dir=run")), folder)
    assert outcome.status == 0, outcome.stderr
    return valid_lines(str(folder / "run" / "checkpoints" / "last.ckpt"))


def report(lines: list[CommandLine], numbers: range, folder: Path) -> tuple[Counter, list[str]]:
    """Try mutations: how often each exit status came, and what is wrong."""
    counts: Counter = Counter()
    wrong = []
    for number in numbers:
        line = mutated(lines, number)
        outcome = tried(line, folder / str(number))
        counts[outcome.status] += 1
        if found := faults(line, outcome):
            ending = (outcome.stdout + outcome.stderr).strip()[-1200:]
            wrong.append(f"{number}: {line.script} {line.argv()}\n  {found}\n{ending}\n")
    return counts, wrong


@pytest.mark.slow
@pytest.mark.end_to_end
def test_every_valid_line_runs(lines: list[CommandLine], tmp_path: Path) -> None:
    for number, line in enumerate(lines):
        outcome = tried(line, tmp_path / str(number))
        assert outcome.status == 0, (line.argv(), outcome.stderr)
        assert not faults(line, outcome), (line.argv(), faults(line, outcome))


@pytest.mark.end_to_end
def test_a_few_mutated_lines_run_or_are_refused(lines: list[CommandLine], tmp_path: Path) -> None:
    _, wrong = report(lines, range(10), tmp_path)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_mutated_lines_run_or_are_refused(lines: list[CommandLine], tmp_path: Path) -> None:
    first = int(os.environ.get("EQUIPOISE_FIRST_LINE", "0"))
    numbers = range(first, first + int(os.environ.get("EQUIPOISE_LINES", "1000")))
    counts, wrong = report(lines, numbers, tmp_path)
    print(f"\nexit statuses: {dict(counts)}; {len(wrong)} at fault\n" + "\n".join(wrong))
    assert not wrong
