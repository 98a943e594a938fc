"""The content of a sweep's tables: a test metric of its jobs, by the swept settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.errors import UserError, nearest, read_json, read_yaml
from equipoise.report.summary import Job, number, read_jobs, settings_of, sweep_row

NEEDED = ("metric", "rows", "columns")
OPTIONAL = ("best", "where")
NOT_RUN = "-"
UNTOLD = re.compile(r"true|false|null|[-+.\d]+(e[-+]?\d+)?")
"""A value that does not show which setting it belongs to."""

Point = tuple[str, ...]
Measured = tuple[float, float | None]


@dataclass(frozen=True)
class SweepTable:
    """What one table of a sweep shows, as the file of the sweep describes it.

    name: that of its files. metric: a test metric; `val/bleu`, the form in which a task names its
    monitor, means the test's bleu. best: "min" or "max". rows, columns: the settings or groups
    whose values name a row and a column. where: values of settings that select the table's jobs.
    """

    name: str
    metric: str
    rows: tuple[str, ...]
    columns: str
    best: str
    where: Mapping[str, str]

    @classmethod
    def of(cls, name: str, node: Mapping[str, Any]) -> SweepTable:
        """Read and check the description. Raises UserError."""
        check_entries(f"the sweep's table {name}", node, NEEDED, OPTIONAL)
        best = str(node.get("best", "min"))
        if best not in ("min", "max"):
            raise UserError(f"the sweep's table {name} has best: {best}; give min or max")
        rows = [node["rows"]] if isinstance(node["rows"], str) else node["rows"]
        where = {str(key): word(value) for key, value in (node.get("where") or {}).items()}
        metric = str(node["metric"]).removeprefix("val/")
        return cls(name, metric, tuple(map(str, rows)), str(node["columns"]), best, where)

    @property
    def heads(self) -> list[str]:
        """The names of the settings of the rows."""
        return [key.rpartition(".")[2] for key in self.rows]

    @property
    def most(self) -> str:
        """The word for the best value."""
        return "highest" if self.best == "max" else "lowest"


def check_entries(
    what: str, node: Mapping[str, Any], needed: Sequence[str], optional: Sequence[str]
) -> None:
    """Raise UserError where a description has an unknown entry, or lacks a required one."""
    for key in node:
        if key not in (*needed, *optional):
            hint = nearest(str(key), (*needed, *optional))
            raise UserError(f"{what} has an entry '{key}'{hint}")
    missing = [key for key in needed if not node.get(key)]
    if missing:
        raise UserError(f"{what} needs an entry '{missing[0]}'")


def tables_of(sweep: Mapping[str, Any] | None) -> list[SweepTable]:
    """The tables of a sweep: `table`, or several by name in `tables`. Raises UserError."""
    entries = {"table": sweep["table"]} if sweep and sweep.get("table") else {}
    entries |= (sweep or {}).get("tables") or {}
    return [SweepTable.of(str(name), node) for name, node in entries.items()]


@dataclass(frozen=True)
class Outcome:
    """A job's settings and its outcome; status and reason as in the summary."""

    settings: Mapping[str, str]
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    status: str
    reason: str

    def named(self, key: str) -> str:
        """The value of a setting, such as task.epsilon, or the choice of a group."""
        if key in self.metrics:
            return word(self.metrics[key])
        value: Any = self.config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        of_another = self.status == NOT_RUN or isinstance(value, Mapping)
        return self.settings.get(key, word(value)) if of_another else word(value)


@dataclass(frozen=True)
class Cell:
    """The mean of a metric over the jobs of a cell, None without values, and its standard error.

    lost: status and reason of each job without a value.
    """

    mean: float | None
    error: float | None
    lost: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """The cell in words."""
        ends = list(dict.fromkeys(status for status, _ in self.lost))
        if self.mean is None:
            return ", ".join(ends)
        error = self.error
        text = number(self.mean) if error is None else f"{self.mean:.1e} ± {error:.0e}"
        return text if not ends else f"{text} ({len(self.lost)} {', '.join(ends)})"


Cells = Mapping[tuple[Point, str], Cell]


def read_outcomes(directory: Path, planned: Sequence[Sequence[str]]) -> list[Outcome]:
    """Every job in order, whatever its outcome."""
    jobs = {job.number: job for job in read_jobs(directory)}
    outcomes = {place: _outcome(job, directory) for place, job in jobs.items()}
    alike = next((outcome.config for outcome in outcomes.values()), {})
    for place, overrides in enumerate(planned):
        waiting = Outcome(settings_of(overrides), alike, {}, NOT_RUN, "")
        outcomes.setdefault(place, waiting)
    return [outcomes[place] for place in sorted(outcomes)]


def _outcome(job: Job, directory: Path) -> Outcome:
    files = [job.folder / "config.yaml", job.folder / ".hydra" / "config.yaml"]
    config: Any = next((read_yaml(file) for file in files if file.is_file()), {})
    file = job.folder / "metrics.json"
    metrics = read_json(file) if file.is_file() else {}
    row = sweep_row(job, directory, ())
    return Outcome(job.settings, config, metrics, row["status"], row.get("error", ""))


def word(value: Any) -> str:
    """A value of a configuration as it is written in yaml."""
    return (
        str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
    )


def cells_of(table: SweepTable, outcomes: Sequence[Outcome]) -> dict[tuple[Point, str], Cell]:
    """The cells by row and column, in the order of the jobs.

    Jobs that differ in other settings, such as the seed, are averaged.
    """
    groups: dict[tuple[Point, str], list[Outcome]] = {}
    for outcome in outcomes:
        if all(outcome.named(key) == value for key, value in table.where.items()):
            place = tuple(map(outcome.named, table.rows))
            groups.setdefault((place, outcome.named(table.columns)), []).append(outcome)
    return {key: _cell(table.metric, group) for key, group in groups.items()}


def _cell(metric: str, outcomes: Sequence[Outcome]) -> Cell:
    measured: list[Measured] = []
    lost: list[tuple[str, str]] = []
    for outcome in outcomes:
        value = outcome.metrics.get("test", {}).get(metric)
        if outcome.status != "completed":
            lost.append((outcome.status, outcome.reason))
        elif value is not None:
            errors = outcome.metrics["details"].get("standard_error") or {}
            measured.append((value, errors.get(metric)))
        elif metric in outcome.metrics["test"]:
            lost.append(("diverged", f"the test's {metric} is not finite"))
        else:
            known = ", ".join(outcome.metrics["test"])
            lost.append(("failed", f"the test has no {metric}, only {known}"))
    return _mean(measured, tuple(lost))


def _mean(measured: Sequence[Measured], lost: tuple[tuple[str, str], ...]) -> Cell:
    if not measured:
        return Cell(None, None, lost)
    mean = sum(value for value, _ in measured) / len(measured)
    errors = [error for _, error in measured if error is not None]
    if len(errors) < len(measured):
        return Cell(mean, None, lost)
    return Cell(mean, sum(error**2 for error in errors) ** 0.5 / len(errors), lost)


def rows_of(cells: Cells) -> list[Point]:
    """The rows, those with the same first value together."""
    first = list(dict.fromkeys(point[0] for point, _ in cells))
    return sorted(dict.fromkeys(point for point, _ in cells), key=lambda p: first.index(p[0]))


def columns_of(cells: Cells) -> list[str]:
    """The values that name the columns."""
    return list(dict.fromkeys(column for _, column in cells))


def label(key: str, value: str) -> str:
    """A value, with the setting's name where the value alone does not explain itself."""
    return f"{key.rpartition('.')[2]}={value}" if UNTOLD.fullmatch(value) else value
