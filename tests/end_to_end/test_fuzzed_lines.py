"""No changed command line ends in a traceback, or has another effect than the one asked for.

docs/configuration.md, "Fuzzing the command line", tells how to try more of them.
"""

from __future__ import annotations

import functools
import gc
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from equipoise.config.compose import compose
from equipoise.running.api import rehearse
from tests.end_to_end import read_lines
from tests.end_to_end.conftest import SMALL
from tests.end_to_end.effects import faults_of_effect, faults_of_jobs, faults_of_request
from tests.end_to_end.fuzzed_lines import (
    MODULE,
    SHOW,
    Fuzzed,
    command_lines,
    fuzzed,
    settings_lines,
)
from tests.end_to_end.mutated_lines import SHORT, CommandLine, valid_lines
from tests.end_to_end.tried_lines import Outcome, faults, prepare, tried

FIRST = int(os.environ.get("EQUIPOISE_FIRST_LINE", "0"))
MANY = int(os.environ.get("EQUIPOISE_FUZZED_LINES", "2000"))
AT_ONCE = 50
SETTINGS = {"train", "evaluate"}


@dataclass
class Trial:
    """The valid lines, and what each of them shows before it is changed."""

    settings: list[CommandLine]
    others: list[CommandLine]
    folder: Path
    shown: dict[CommandLine, Outcome] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)

    def before(self, line: CommandLine) -> Outcome:
        """What a valid line shows."""
        if line not in self.shown:
            self.shown[line] = self.outcome(line, f"valid {len(self.shown)}")
        return self.shown[line]

    def outcome(self, line: CommandLine, name: str) -> Outcome:
        """Try a line in a folder of its own."""
        return tried(line, self.folder / name, functools.partial(read_lines.arrange, line))

    def wrong(self, one: Fuzzed) -> list[str]:
        """What is wrong with a changed line."""
        outcome = self.outcome(one.line, f"{self.counts.total()} {one.number}")
        self.counts[outcome.status] += 1
        if any("smoke" in word for word in one.line.words) and outcome.status == 2:
            return []  # debug=smoke shows the traceback of a refusal
        found = faults(one.line, outcome, runs=False)
        if outcome.status == 0 and not found:
            return self._effects(one, outcome)
        return [*found, outcome.stderr[-400:]] if found else []

    def _effects(self, one: Fuzzed, outcome: Outcome) -> list[str]:
        line = one.line
        answered = {"--version", "--help", "-h"}.intersection(line.argv())  # before any run is made
        if "-m" in line.flags and not answered:
            return faults_of_jobs(line.words, outcome.stdout)
        if line.flags == SHOW and line.script != MODULE:
            before = self.before(one.original).stdout
            return faults_of_effect(line.words, one.changed, outcome.stdout, before)
        if line.script == MODULE and line.words and line.words[0] not in SETTINGS:
            return faults_of_request(line.words, read_lines.request_file(outcome.folder))
        self.counts["shown or listed alone"] += 1
        return []


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """The lines, on a checkpoint of the first of them."""
    prepare()
    for words in ([], ["task=python_docs"], ["task=range_query"]):
        rehearse(compose(words))  # what a line imports, it finds imported
    gc.freeze()  # and a fork need not copy what a collection would mark
    folder = tmp_path_factory.mktemp("fuzzed")
    line = CommandLine("train.py", (*SMALL, *SHORT, "run_dir=run"))
    assert tried(line, folder / "trained").status == 0
    run = folder / "trained" / "run"
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    lines = settings_lines(valid_lines(checkpoint), checkpoint)
    return Trial(lines, command_lines(checkpoint, str(run)), folder)


def report(trial: Trial, numbers: range) -> list[str]:
    """Try lines; what is wrong with each that is at fault."""
    wrong = []
    for number in numbers:
        one = fuzzed(trial.settings, trial.others, number)
        if found := trial.wrong(one):
            wrong.append(f"{number}: {one.line.script} {one.changed} {one.line.argv()}\n  {found}")
    print(f"\nexit statuses: {dict(trial.counts)}; {len(wrong)} at fault\n" + "\n".join(wrong))
    return wrong


@pytest.mark.slow
@pytest.mark.end_to_end
def test_every_valid_line_is_accepted_with_its_effect(trial: Trial) -> None:
    for line in trial.settings:
        outcome = trial.before(line)
        assert outcome.status == 0, (line, outcome.stderr)
        assert not trial.wrong(Fuzzed(-1 - trial.settings.index(line), line, line))


@pytest.mark.end_to_end
def test_some_fuzzed_lines_are_refused_or_do_what_they_ask_for(trial: Trial) -> None:
    assert not report(trial, range(10))


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.parametrize("first", range(FIRST, FIRST + MANY, AT_ONCE))
def test_fuzzed_lines_are_refused_or_do_what_they_ask_for(trial: Trial, first: int) -> None:
    assert not report(trial, range(first, min(first + AT_ONCE, FIRST + MANY)))
