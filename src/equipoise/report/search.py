"""The results of a search: its best trial, a record of every trial, and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.report.plot import (
    COLOURS,
    FULL,
    HALF,
    INK,
    SMALL,
    legible,
    new_figure,
    save,
    style,
)
from equipoise.report.summary import number
from equipoise.report.whole import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RECORD, PICTURE = "study.json", "search.png"
COMPLETED = "completed"
HEIGHT = 3.3
MOST_BARS = 10
MOST_LETTERS = 28


@dataclass(frozen=True)
class TrialRow:
    """One trial, numbered as its job; value: its best validation, up to the pruning if pruned.

    params: the drawn values by setting. run: the job's folder, None where there is none.
    """

    number: int
    status: str
    value: float | None
    params: Mapping[str, Any]
    run: str | None = None


@dataclass(frozen=True)
class Found:
    """A search as it ended or was interrupted.

    monitor, mode: the validation metric, and "min" or "max". space: what was searched, in words.
    importances: the importance of each parameter, from 0 to 1.
    """

    monitor: str
    mode: str
    trials: Sequence[TrialRow]
    planned: int
    space: Mapping[str, str]
    importances: Mapping[str, float]

    @property
    def best(self) -> TrialRow | None:
        """The best completed trial, None where none completed."""
        done = [t for t in self.trials if t.status == COMPLETED and t.value is not None]
        choose = max if self.mode == "max" else min
        return choose(done, key=lambda trial: trial.value or 0.0) if done else None


def show_search(directory: Path, found: Found, command: str | None) -> None:
    """Print the best trial and the command that trains it longer; write the record and the picture.

    command: the one with the best trial's settings, None where there is no best trial.
    """
    best = found.best
    record = {
        **asdict(found), "best": None if best is None else {**asdict(best), "command": command},
    }  # fmt: skip
    write_whole(directory / RECORD, json.dumps(record, indent=2) + "\n")
    counts = ", ".join(f"{n} {status}" for status, n in counted(found.trials).items())
    print(f"trials:  {counts} (of {found.planned} planned)")
    if best is None:
        print(f"no trial has completed: there is no best {found.monitor}")
    else:
        drawn = ", ".join(f"{key}={number(value)}" for key, value in best.params.items())
        print(f"best:    trial {best.number} with {found.monitor} {number(best.value)}: {drawn}")
        print(f"longer:  {command}")
        draw(directory / PICTURE, found)
        print(f"picture: {directory / PICTURE}")
    print(f"study:   {directory / RECORD}")


def counted(trials: Sequence[TrialRow]) -> dict[str, int]:
    """The number of trials by how they ended."""
    statuses = [trial.status for trial in trials]
    return {status: statuses.count(status) for status in dict.fromkeys(statuses)}


def draw(path: Path, found: Found) -> None:
    """Write the PNG file: the history and, where known, the importance of the settings."""
    shares = sorted(found.importances.items(), key=lambda entry: entry[1])[-MOST_BARS:]
    figure = new_figure(FULL if shares else HALF, HEIGHT)
    grid = figure.subplots(1, 2 if shares else 1, squeeze=False)[0]
    _draw_history(grid[0], found)
    if shares:
        _draw_shares(grid[1], shares)
    save(figure, path)


def _draw_history(axes: Axes, found: Found) -> None:
    """Each trial's value, and the best so far as a line."""
    from matplotlib.ticker import MaxNLocator

    style(axes, "Trials", "trial", found.monitor)
    done = [t for t in found.trials if t.status == COMPLETED and t.value is not None]
    other = [t for t in found.trials if t.status != COMPLETED and t.value is not None]
    values = [float(t.value or 0.0) for t in done]
    choose = max if found.mode == "max" else min
    best = [choose(values[: place + 1]) for place in range(len(values))]
    axes.plot([t.number for t in done], values, "o", color=COLOURS[0], label=COMPLETED)
    if other:
        ends = [float(t.value or 0.0) for t in other]
        axes.plot([t.number for t in other], ends, "x", color=COLOURS[5], label="pruned, so far")
    axes.step([t.number for t in done], best, where="post", color=COLOURS[1], label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=SMALL)


def _draw_shares(axes: Axes, shares: Sequence[tuple[str, float]]) -> None:
    style(axes, "Importance of the settings", "share of the variance", "")
    names = [legible(name, MOST_LETTERS) for name, _ in shares]
    axes.barh(names, [share for _, share in shares], color=COLOURS[0])
    axes.tick_params(axis="y", labelsize=SMALL, labelcolor=INK)
