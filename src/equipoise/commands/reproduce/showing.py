"""The result of making a run again: a table, reproduction.json, and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from equipoise.commands.reproduce.comparison import Part
from equipoise.commands.reproduce.original import Original, read
from equipoise.config.hydra import flatten
from equipoise.report.curves import CurveFile, is_wide
from equipoise.report.plot import COLOURS, INK, logarithmic, new_axes, save
from equipoise.report.summary import print_whole, table_of
from equipoise.running.environment import differences, read_starts
from equipoise.running.origin import origin

FILE = "reproduction.json"
PICTURE = "reproduction.png"
MOST_TOLD = 10
MOST_LISTED = 1000
OF_A_START = ("purpose", "words", "step", "command", "date", "code.difference",
              "project.difference", "variables.CUBLAS_WORKSPACE_CONFIG")  # fmt: skip
"""Facts that differ between the starts of two equal runs."""
OF_THE_FOLDER = ("run_dir", "ckpt_path", "logger", "callbacks.stop_after", "resume")
LOSSES = {"train/loss": "training", "val/loss": "validation"}
Changes = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Surroundings:
    """Differences around two runs: in settings, machine, packages, code and data.

    known: whether the first run kept its environment.
    """

    settings: Changes
    environment: Changes
    known: bool


@dataclass(frozen=True)
class Reproduction:
    """A run, the folder of the run made from it, and their differences.

    ended: the sentence with which the second run ended early, or "".
    """

    run: Original
    folder: Path
    parts: Sequence[Part]
    surroundings: Surroundings
    tolerance: float
    ended: str

    @property
    def equal(self) -> bool:
        """Whether nothing that could be compared differs by more than allowed."""
        return all(part.equal for part in self.parts) and any(part.compared for part in self.parts)


def surroundings(run: Original, folder: Path) -> Surroundings:
    """How the start of the run in a folder differs from that of the first run."""
    now = read_starts(folder)
    settings = differences(_settings(run.folder), _settings(folder))
    if not (run.starts and now):
        then = {"packages": run.metrics.get("versions") or {}}
        again = {"packages": read(folder / "metrics.json").get("versions") or {}}
        return Surroundings(settings, differences(then, again), known=False)
    found = differences(run.starts[0], now[0])
    return Surroundings(settings, {k: v for k, v in found.items() if k not in OF_A_START}, True)


def _settings(folder: Path) -> dict[str, Any]:
    """The settings of a run by their full keys, without paths in its folder."""
    config = read(folder / "config.yaml")
    place = str(config.get("run_dir"))
    return {
        key: value
        for key, value in flatten(config)
        if not any(key == name or key.startswith(f"{name}.") for name in OF_THE_FOLDER)
        and not (value == place or str(value).startswith(f"{place}/"))
    }


def show(again: Reproduction) -> None:
    """Print the table, the differences around the runs, and the verdict."""
    rows = [
        {"compared": part.name, "numbers": part.compared, "result": part.verdict}
        for part in again.parts
    ]
    print_whole(table_of(str(again.run.folder), ("compared", "numbers", "result"), rows))
    around = again.surroundings
    if not around.known:
        print("environment: the run did not record it, so only the main packages are compared")
    for title, found in (("environment", around.environment), ("setting", around.settings)):
        for name, (then, now) in list(found.items())[:MOST_TOLD]:
            print(f"{title} {name}: {_short(then)} -> {_short(now)}")
        if len(found) > MOST_TOLD:
            print(f"and {len(found) - MOST_TOLD} more differences of the {title}, see {FILE}")
    demand = "the same bits" if again.run.deterministic else f"equal within {again.tolerance:g}"
    print(f"{'equal' if again.equal else 'not equal'} (asked for: {demand}): {again.folder / FILE}")


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def write(again: Reproduction, words: Sequence[str]) -> None:
    """Write reproduction.json, whole or not at all, and the picture of both curves."""
    told = {
        "run": str(again.run.folder),
        "again": str(again.folder),
        "equal": again.equal,
        "deterministic": again.run.deterministic,
        "tolerance": again.tolerance,
        "steps": again.run.steps,
        "said": again.run.said,
        "ended": again.ended or None,
        **origin("reproduce", words),
        "parts": {part.name: _told(part) for part in again.parts},
        "environment": _pairs(again.surroundings.environment),
        "settings": _pairs(again.surroundings.settings),
    }
    partial = again.folder / f"{FILE}.partial"
    partial.write_text(json.dumps(told, indent=2, default=str) + "\n")
    partial.replace(again.folder / FILE)
    draw(again.run.folder, again.folder)


def _told(part: Part) -> dict[str, Any]:
    listed = [asdict(each) for each in part.differences[:MOST_LISTED]]
    for entry in listed:
        entry["relative"] = entry["relative"] if math.isfinite(entry["relative"]) else None
    return {
        "result": part.verdict, "compared": part.compared, "differ": len(part.differences),
        "largest": part.largest if math.isfinite(part.largest) else None, "differences": listed,
    }  # fmt: skip


def _pairs(found: Mapping[str, tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {"then": then, "now": now} for name, (then, now) in found.items()}


def draw(first: Path, second: Path) -> None:
    """Draw the losses of two runs in one picture; nothing where a curve has none."""
    curves = [CurveFile(folder / "metrics.csv") for folder in (first, second)]
    lines = [
        (f"{label}, {which}", points, number, COLOURS[place])
        for place, (column, label) in enumerate(LOSSES.items())
        for number, (which, curve) in enumerate(zip(("first", "again"), curves, strict=True))
        if (points := curve.points(column))
    ]
    if not lines:
        return
    figure, axes = new_axes("The run, and the run made again", "optimiser step", "loss")
    for label, points, number, colour in lines:
        steps, values = zip(*points, strict=True)
        axes.plot(
            steps, values, color=INK if number else colour, linestyle=":" if number else "-",
            linewidth=1.2 if number else 4, alpha=1 if number else 0.55, label=label,
            marker="." if number else "",
        )  # fmt: skip
    if is_wide(tuple((label, points) for label, points, *_ in lines)):
        logarithmic(axes.yaxis)
    axes.legend(loc="best", edgecolor="none", framealpha=0.85)
    save(figure, second / PICTURE)
