"""Runs that differ in their seed alone as one row: mean, deviation and best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from equipoise.report.plot import COLOURS, FULL, legible, new_figure, save, style
from equipoise.report.summary import number

NAME = "groups"
COUNTED = ("nfe", "residual", "converged", "backward nfe", "seconds")
"""Figures that are averaged beside the metrics of the test."""
MOST_LETTERS = 60
MOST_METRICS = 3
"""Most panels in the picture."""
MOST_GROUPS = 40
"""Most lines in a panel."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """One figure over the runs of a group; deviation: the sample's, None for a single run."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The arithmetic mean."""
        return mean(self.values)

    @property
    def deviation(self) -> float | None:
        """The standard deviation, with the number of runs minus one as the denominator."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def text(self) -> str:
        """Mean ± deviation."""
        spread = "" if self.deviation is None else f" ± {self.deviation:.2g}"
        return f"{number(float(self.mean))}{spread}"


@dataclass(frozen=True)
class Monitored:
    """The metric by which the runs choose their best weights, and "min" or "max"."""

    metric: str
    mode: str

    def best(self, rows: Sequence[Row]) -> Row | None:
        """The row with the best test value of it; None where no run has one."""
        key = f"test {self.metric}"
        having = [row for row in rows if row.get(key) is not None]
        choose = max if self.mode == "max" else min
        return choose(having, key=lambda row: row[key], default=None)


@dataclass(frozen=True)
class Group:
    """Completed runs that agree in `settings`; best: the row of the best of them, if that is known.

    figures: by their names in the rows, test metrics first.
    """

    settings: Mapping[str, str]
    runs: int
    figures: Mapping[str, Measured]
    best: Row | None

    def cells(self, monitored: Monitored | None) -> dict[str, Any]:
        """The group as a row of words, for the screen, Markdown and HTML."""
        told: dict[str, Any] = {**self.settings, "runs": self.runs}
        tested = {k: m.text for k, m in self.figures.items() if k not in COUNTED}
        counted = {k: m.text for k, m in self.figures.items() if k in COUNTED}
        return told | tested | self._best(monitored) | counted

    def numbers(self, monitored: Monitored | None) -> dict[str, Any]:
        """The group as a row of numbers, for a csv file."""
        told: dict[str, Any] = {**self.settings, "runs": self.runs}
        for name, measured in self.figures.items():
            told |= {f"{name} mean": measured.mean, f"{name} sd": measured.deviation}
        return told | self._best(monitored)

    def _best(self, monitored: Monitored | None) -> dict[str, Any]:
        if monitored is None or self.best is None:
            return {}
        value = self.best[f"test {monitored.metric}"]
        return {f"best {monitored.metric}": value, "best run": self.best["run"]}


def groups_of(rows: Sequence[Row], keys: Sequence[str], monitored: Monitored | None) -> list[Group]:
    """The completed runs, one group for each combination of values of `keys`, in their order."""
    alike: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row["status"] == "completed":
            alike.setdefault(tuple(str(row.get(key)) for key in keys), []).append(row)
    return [
        Group(
            dict(zip(keys, values, strict=True)), len(members), _figures(members),
            None if monitored is None else monitored.best(members),
        )
        for values, members in alike.items()
    ]  # fmt: skip


def _figures(rows: Sequence[Row]) -> dict[str, Measured]:
    tested = dict.fromkeys(name for row in rows for name in row if name.startswith("test "))
    found = {}
    for name in (*tested, *COUNTED):
        values = tuple(row[name] for row in rows if isinstance(row.get(name), int | float))
        if values:
            found[name] = Measured(values)
    return found


def markdown(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A table in Markdown; a bar within a cell is escaped, as it would end the cell."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    return "" if value in (None, "") else number(value).replace("|", "\\|").replace("\n", " ")


def draw_groups(groups: Sequence[Group], folder: Path) -> list[str]:
    """Write groups.png and groups.svg: a panel for each test metric, a line for each group.

    A dot is a run, and the bar is mean ± deviation. Returns the names of the metrics drawn: none
    where there is no metric, or more groups than a panel has lines.
    """
    metrics = list(dict.fromkeys(name for group in groups for name in group.figures))
    metrics = [name for name in metrics if name.startswith("test ")][:MOST_METRICS]
    if not metrics or len(groups) > MOST_GROUPS:
        return []
    figure = new_figure(FULL, 1.2 + 0.3 * len(groups))
    panels = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        style(axes, metric, "", "")
        for place, group in enumerate(groups):
            if (measured := group.figures.get(metric)) is not None:
                spread = measured.deviation or 0.0
                axes.errorbar(measured.mean, place, xerr=spread, fmt="|", markersize=12,
                              color=COLOURS[0], capsize=3)  # fmt: skip
                axes.plot(measured.values, [place] * len(measured.values), "o",
                          color=COLOURS[1], markersize=4, alpha=0.7)  # fmt: skip
    panels[0].set_yticks(range(len(groups)), [_label(group) for group in groups])
    panels[0].set_ylim(len(groups) - 0.5, -0.5)  # the first on top
    save(figure, folder / f"{NAME}.png")
    return [metric.removeprefix("test ") for metric in metrics]


def _label(group: Group) -> str:
    words = (f"{key.rpartition('.')[2]}={value}" for key, value in group.settings.items())
    return legible(" ".join(words) or "all runs", MOST_LETTERS)
