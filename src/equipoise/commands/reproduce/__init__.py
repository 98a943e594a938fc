"""Make a run again, and tell whether its curve, metrics and weights are the same."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from equipoise.commands.arguments import Parser
from equipoise.commands.reproduce.comparison import compared
from equipoise.commands.reproduce.original import Original, original, reached, run_folder
from equipoise.commands.reproduce.showing import Reproduction, show, surroundings, write
from equipoise.config.hydra import parse, quoted
from equipoise.errors import RunFailed, RunInterrupted, UserError

SETTINGS = """the settings:
  run_dir=<folder>     where the run is made again: a new or empty folder; by default a new one
                       beside the first, <run>_reproduced
  steps=100            compare the first optimiser steps alone, of the schedule of the whole run
  tolerance=0.0001     the relative difference up to which numbers count as equal, of a run without
                       trainer.deterministic=true; such a run has to give the same bits
  key=value            any setting of train.py on top, such as task.num_workers=0

Exit status 0: all is equal; 1: something differs, and the table says where it does so first.
A folder of several runs, such as that of a multirun, is made again run by run:
  python -m equipoise reproduce multirun/2026-01-01_12-00-00
"""
OWN = ("run_dir", "steps", "tolerance")
REFUSED = ("ckpt_path", "resume")
TOLERANCE = 1e-4


def main(words: Sequence[str]) -> int:
    """Make the runs again and print what differs; returns 0 where nothing does, else 1.

    Raises UserError.
    """
    parser = Parser(
        "python -m equipoise reproduce", __doc__, epilog=SETTINGS,
        usage="%(prog)s <run> [setting=value ...]", formatter_class=RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("words", nargs="*", metavar="run", help="see below")
    place, settings, changes = read_words(parser.parsed(words).words)
    steps = whole_number(settings.get("steps"))
    tolerance = relative(settings.get("tolerance", str(TOLERANCE)))
    runs = {name: original(folder, changes, steps) for name, folder in runs_in(place).items()}
    target = Path(settings.get("run_dir") or beside(place))
    results = [reproduce(run, target / name, tolerance, words) for name, run in runs.items()]
    if len(results) > 1:
        print(f"{sum(results)} of {len(results)} runs are equal: {target}")
    return 0 if all(results) else 1


def read_words(words: Sequence[str]) -> tuple[Path, dict[str, str], list[str]]:
    """The folder, the settings of this command, and those of the run. Raises UserError."""
    places = [word for word in words if "=" not in word or Path(word).exists()]
    others = [word for word in words if word not in places]
    if len(places) != 1:
        said = "one run at a time" if places else "the folder of a run"
        raise UserError(f"reproduce takes {said}: python -m equipoise reproduce runs/<...>")
    if not Path(places[0]).exists():
        raise UserError(f"there is no folder {places[0]}: give the folder of a run or a multirun")
    own = {key: value for key, _, value in (word.partition("=") for word in others) if key in OWN}
    changes = [word for word in others if word.partition("=")[0] not in OWN]
    for override in parse(changes):
        key = override.key_or_group
        if key in REFUSED:
            raise UserError(
                f"{override.input_line}: a run is repeated from its beginning; leave it out"
            )
        if override.is_sweep_override():
            raise UserError(f"{override.input_line}: reproduce takes one value of each setting")
    return Path(places[0]), own, changes


def whole_number(text: str | None) -> int | None:
    """The value of `steps`. Raises UserError where it is not a number of steps."""
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"steps={text} is not a number of optimiser steps: give 1 or more")
    return int(text)


def relative(text: str) -> float:
    """The value of `tolerance`. Raises UserError where it is not a relative difference."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise UserError(f"tolerance={text} is not a relative difference: give a number from 0 to 1")
    return value


def runs_in(place: Path) -> dict[str, Path]:
    """The folders of the runs in or below a place, by their paths from there. Raises UserError."""
    from equipoise.report.comparison import find_runs

    folder = run_folder(place)
    if folder is not None:
        return {"": folder}
    if not place.is_dir():
        raise UserError(f"{place} is not a file of a run: give the run's folder")
    found = find_runs([place])
    return {run.relative_to(place.resolve()).as_posix(): run for run in found}


def beside(place: Path) -> Path:
    """The first free name of <run>_reproduced, <run>_reproduced_2, …"""
    folder = run_folder(place) or place
    number = 1
    while True:
        suffix = "" if number == 1 else f"_{number}"
        path = folder.parent / f"{folder.resolve().name}_reproduced{suffix}"
        if not path.exists():
            return path
        number += 1


def reproduce(run: Original, folder: Path, tolerance: float, words: Sequence[str]) -> bool:
    """Make one run again in a folder, and print what differs; returns whether it is equal.

    Raises UserError where the run cannot be made again.
    """
    print(f"repeats the run in {run.folder}: {run.said}")
    ended = make_again(run, folder)
    again = Reproduction(
        run, folder, compared(run, folder, tolerance), surroundings(run, folder), tolerance, ended
    )
    write(again, words)
    show(again)
    return again.equal


def make_again(run: Original, folder: Path) -> str:
    """Run the words of a run in another folder; returns the sentence that ended it, or ""."""
    from equipoise.running import api

    words = [*run.words, f"run_dir={quoted(str(folder))}"]
    try:
        (api.evaluate if run.purpose == "evaluate" else api.run)(*words)
    except RunFailed as failure:
        return str(failure)
    except RunInterrupted as stop:
        if run.steps is None or reached(folder) < run.steps:
            raise
        return str(stop)
    return ""
