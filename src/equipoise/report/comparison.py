"""Several runs on one page: what they differ in, what they reached, and their curves."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.errors import UserError, read_json, read_yaml
from equipoise.report.curves import CurveFile, is_wide
from equipoise.report.groups_of_runs import Group, Monitored, groups_of
from equipoise.report.lines import Lines, Plot
from equipoise.report.plot import COLOURS, STYLES, legible
from equipoise.report.summary import Job, columns_of, filled, read_jobs, sweep_row

CHOICES = ("task", "model", "solver", "gradient")
"""The choices that every metrics.json names; newer files name all choices."""
OF_THE_FOLDER = re.compile(r"run_dir|ckpt_path|hydra\..*|logger\..*|.*\b(_target_|about)\b.*")
"""Settings that do not describe the run itself."""
STAGES = {"val": "Validation", "train": "Training"}
SOLVES = {
    "solver/nfe": ("Evaluations of f per batch", False),
    "solver/residual_median": ("Median residual of the forward solves", True),
    "solver/converged_fraction": ("Converged samples", False),
    "backward/nfe": ("Products with the Jacobian per batch", False),
}
"""Titles of columns, and whether they are logarithmic."""
MOST_LINES = len(COLOURS) * len(STYLES)
"""Most curves that can be told apart in one picture."""
MOST_LETTERS = 60
NUMBERS = re.compile(r"(\d+)")
SEED = "seed"
"""What the runs of a group may differ in, unless other settings are named."""
REQUIRED = {"status", "test", "solver_stats", "seconds"}
MAPPINGS = ("test", "val", "train", "solver_stats", "gradient_stats", "details", "choices")


@dataclass(frozen=True)
class FinishedRun:
    """A run's folder and its contents: choices, settings by their full keys, and its curve."""

    folder: Path
    choices: Mapping[str, str]
    settings: Mapping[str, str]
    command: str
    curve: CurveFile
    monitored: Monitored


@dataclass(frozen=True)
class Comparison:
    """The rows of the table, one for each run, in the order of the labels of their curves."""

    runs: Sequence[FinishedRun]
    differences: Sequence[str]
    labels: Sequence[str]
    rows: Sequence[dict[str, Any]]
    over: Sequence[str] = (SEED,)

    @property
    def monitored(self) -> Monitored | None:
        """The metric that all runs choose their best weights by; None where they differ in it."""
        found = {run.monitored for run in self.runs if run.settings}
        return found.pop() if len(found) == 1 else None

    @property
    def groups(self) -> list[Group]:
        """The runs that differ in the settings `over` alone; none where no two of them do."""
        keys = [key for key in self.differences if key not in self.over]
        groups = groups_of(self.rows, keys, self.monitored)
        return groups if any(group.runs > 1 for group in groups) else []

    @property
    def columns(self) -> list[str]:
        """The columns that are not empty."""
        columns = columns_of(self.rows, self.differences)
        return [name for name in columns if any(filled(row, name) for row in self.rows)]


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The folders of runs among those given and below them, as in a multirun.

    Raises UserError where there are none.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if (folder / "metrics.json").is_file():
            inner = [folder]
        else:
            inner = [file.parent for file in folder.rglob("metrics.json")]
            inner += [job.folder for job in read_jobs(folder)]
            inner.sort(key=_natural)
        if not inner:
            raise UserError(f"{folder} has no run: give folders with a metrics.json in or below")
        found |= dict.fromkeys(run.resolve() for run in inner)
    return list(found)


def _natural(path: Path) -> list[Any]:
    """Job 2 before job 10."""
    return [int(part) if part.isdigit() else part for part in NUMBERS.split(str(path))]


def compare_runs(folders: Sequence[Path], over: Sequence[str] = (SEED,)) -> Comparison:
    """What the runs in these folders differ in, and what they reached.

    over: the settings over which means are taken. Raises UserError, also where the runs agree in
    one of these settings, unless that is the seed.
    """
    runs = [_read(folder) for folder in folders]
    root = Path(os.path.commonpath([folder.parent for folder in folders]))
    groups = _differing([run.choices for run in runs])
    keys = _settings([run.settings for run in runs], groups, [run.command for run in runs])
    rows, labels = [], []
    for number, run in enumerate(runs):
        told = {key: run.choices.get(key, "") for key in groups}
        told |= {key: run.settings[key] for key in keys}
        row = sweep_row(Job(number, run.folder, told), root, list(told))
        rows.append(row)
        words = [f"{key.rpartition('.')[2]}={value}" for key, value in told.items()]
        labels.append(" ".join(words) or row["run"])
    several = {label for label in labels if labels.count(label) > 1}
    labels = [
        f"{label} ({row['run']})" if label in several else label
        for label, row in zip(labels, rows, strict=True)
    ]
    differences = [*groups, *keys]
    for key in over:
        if key not in (SEED, *differences):
            listed = ", ".join(differences) or "in nothing"
            raise UserError(f"over={key}: the runs do not differ in it; they differ in {listed}")
    return Comparison(runs, differences, labels, rows, over)


def _read(folder: Path) -> FinishedRun:
    file = folder / "metrics.json"
    metrics = read_json(file) if file.is_file() else {}
    if file.is_file() and not _of_a_run(metrics):
        raise UserError(f"{file} is not what a run writes: leave {folder} out")
    choices = metrics.get("choices") or {key: metrics.get(key) for key in CHOICES}
    file = folder / "config.yaml"
    config = read_yaml(file) if file.is_file() else {}
    where = str(config.get("run_dir"))
    return FinishedRun(
        folder,
        {k: str(v) for k, v in choices.items() if k != "logger" and v is not None},
        {k: v for k, v in _flat(config) if v != where and not v.startswith(f"{where}/")},
        str(metrics.get("command", "")),
        CurveFile(folder / "metrics.csv"),
        _monitored(config.get("task") or {}),
    )


def _of_a_run(metrics: Any) -> bool:
    """Whether a metrics.json has the entries that are read here, each of the right type."""
    if not isinstance(metrics, dict) or not set(metrics) >= REQUIRED:
        return False
    mappings = (metrics.get(key) or {} for key in MAPPINGS)
    return all(isinstance(entry, dict) for entry in mappings)


def _monitored(task: Mapping[str, Any]) -> Monitored:
    name = str(task.get("monitor")).rpartition("/")[2]
    return Monitored(name, str(task.get("monitor_mode", "min")))


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif not OF_THE_FOLDER.fullmatch(f"{prefix}{name}"):
            yield f"{prefix}{name}", str(value)


def _differing(entries: Sequence[Mapping[str, str]]) -> list[str]:
    names = dict.fromkeys(name for entry in entries for name in entry)
    return [name for name in names if len({entry.get(name) for entry in entries}) > 1]


def _settings(
    entries: Sequence[Mapping[str, str]], groups: Sequence[str], commands: Sequence[str]
) -> list[str]:
    """The keys of all runs whose values differ, each once.

    A default that differs because its group does, such as a solver's, is left to the group, and
    one that follows another key of its name, as task.seed follows seed, is left to that key.
    """
    shared = [key for key in _differing(entries) if all(key in entry for entry in entries)]
    typed = " ".join(commands)
    kept: dict[tuple[str, ...], str] = {}
    for key in sorted(shared, key=lambda key: key.count(".")):
        follows = key.partition(".")[0] in groups and f"{key}=" not in typed
        if not follows:
            values = (key.rpartition(".")[2], *(entry[key] for entry in entries))
            kept.setdefault(values, key)
    return [key for key in shared if key in kept.values()]


def plots(comparison: Comparison) -> list[Plot]:
    """A picture of each metric of validation and training, and of the solves: a curve a run."""
    columns = dict.fromkeys(name for run in comparison.runs for name in run.curve.columns())
    metrics = dict.fromkeys(
        name.partition("/")[2] for name in columns if name.partition("/")[0] in STAGES
    )
    plots = []
    for name in sorted(
        metrics.keys() - {"skipped_steps", "seconds"}, key=lambda n: (n != "loss", n)
    ):
        for stage, title in STAGES.items():
            words = name.replace("_", " ").replace("/", " ")
            lines = _lines(comparison, f"{stage}/{name}")
            wide = name == "loss" and is_wide(lines)
            plots.append(_plot(f"{stage}/{name}", f"{title} {words}", lines, wide, comparison))
    for column, (title, logarithmic) in SOLVES.items():
        lines = _lines(comparison, column, positive=logarithmic)
        plots.append(_plot(column, title, lines, logarithmic, comparison))
    return [plot for plot in plots if plot.lines]


def _plot(column: str, title: str, lines: Lines, logarithmic: bool, comparison: Comparison) -> Plot:
    caption = f"{title} of {len(lines)} of {len(comparison.runs)} runs."
    name, ylabel = column.replace("/", "_"), column.rpartition("/")[2].replace("_", " ")
    return Plot(name, title, caption, ylabel, lines, logarithmic=logarithmic)


def _lines(comparison: Comparison, column: str, *, positive: bool = False) -> Lines:
    lines = []
    for run, label in zip(comparison.runs, comparison.labels, strict=True):
        points = run.curve.points(column)
        points = tuple(p for p in points if p[1] > 0) if positive else points
        if points:
            lines.append((legible(label, MOST_LETTERS), points))
    return tuple(lines[:MOST_LINES])
