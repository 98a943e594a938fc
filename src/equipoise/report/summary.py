"""What is printed at the end of a run and of a sweep, and how tables show numbers."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from equipoise.errors import DIVERGED, read_json, read_yaml
from equipoise.report.whole import whole

ERROR_LOG = "error.log"
"""The file in the folder of a job that failed: a sentence, then the traceback."""
KILLED = "Killed"
"""The beginning of the sentence of a job that repeats another job."""
PRUNED = "pruned"
METRICS = 3
NUMBER = re.compile(r"^  job:\n(?:    .*\n)*?    num: (\d+)$", re.MULTILINE)
MAPPING = re.compile(r"\{((?:\w+:[\w.+/-]+,?)+)\}")
LEAST = ("run", "status")
FIGURES = ("nfe", "residual", "seconds", "converged", "backward nfe")


def print_result(metrics: dict[str, Any], directory: Path) -> None:
    """Print one run: its test metrics and other figures, the solver's, and the paths of its files.

    Three entries of `details` are used: signatures say how the scores of those names were
    computed; types get a row of figures each; yardsticks are known figures by their source.
    """
    table = Table(title=f"{metrics['model']} on {metrics['task']}", show_header=False)
    for name, value in metrics["test"].items():
        table.add_row(f"test {name}", number(value))
    for name, value in plain_numbers(metrics["details"]).items():
        table.add_row(name, number(value))
    for key, label in (("solver_stats", "solver"), ("gradient_stats", "gradient")):
        for name, value in (metrics[key] or {}).items():
            if not isinstance(value, dict):
                table.add_row(f"{label} {name}", number(value))
    table.add_row("parameters", f"{metrics['parameters']:,}")
    table.add_row("seconds", number(metrics["seconds"]))
    console = Console(markup=False)
    console.print(table)
    if types := metrics["details"].get("types"):
        rows = [{"type": name, **figures} for name, figures in types.items()]
        print_whole(table_of("test results by type", list(rows[0]), rows))
    for name, value in (metrics["details"].get("yardsticks") or {}).items():
        console.print(f"{number(value)}: {name}", soft_wrap=True, highlight=False, markup=False)
    for name, signature in (metrics["details"].get("signatures") or {}).items():
        console.print(f"{name} by {signature}", soft_wrap=True, highlight=False, markup=False)
    if points := metrics["details"].get("anytime"):
        print_whole(anytime_table(points))
    console.print(f"results: {directory / 'metrics.json'}", soft_wrap=True)
    if (directory / "report" / "index.html").is_file():
        console.print(f"report:  {directory / 'report' / 'index.html'}", soft_wrap=True)


def plain_numbers(details: dict[str, Any]) -> dict[str, float]:
    """The details that fit in a line beside the test metrics, such as a baseline's result."""
    kinds = (int, float)
    numbers = {name: value for name, value in details.items() if isinstance(value, kinds)}
    return {name: value for name, value in numbers.items() if not isinstance(value, bool)}


def anytime_table(points: Sequence[dict[str, Any]]) -> Table:
    """The anytime curve: a row for each budget and start."""
    columns = [name for name in points[0] if name not in ("residual_p95", "seconds")]
    return table_of("test results at every budget", columns, points)


def table_of(title: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> Table:
    """A table of numbers and words."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*(number(row.get(column)) for column in columns))
    return table


def print_whole(table: Table) -> None:
    """Print a table without cutting it, however narrow the terminal is."""
    console = Console(markup=False)
    needed = table.__rich_measure__(console, console.options).maximum
    Console(width=max(console.width, needed), markup=False).print(table)


def number(value: Any) -> str:
    """A number with four significant digits, a word unchanged, a missing value as a dash."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Job:
    """One job: its number, its folder, and its overrides."""

    number: int
    folder: Path
    settings: dict[str, str]


def print_sweep(directory: Path, results: Collection[str] = ("completed",)) -> int:
    """Write summary.csv and print its table; returns 1 where a job ended without a result.

    results: the statuses of jobs that ended with one.
    """
    jobs = read_jobs(directory)
    if not jobs:
        return 1
    swept = swept_keys(jobs)
    rows = [sweep_row(job, directory, swept) for job in jobs]
    columns = [name for name in columns_of(rows, swept) if any(filled(row, name) for row in rows)]
    write_summary(directory / "summary.csv", columns, rows)
    print_rows(str(directory), columns, rows, swept)
    for row in rows:
        if row.get("error"):
            log = f" (log: {directory / row['log']})" if row.get("log") else ""
            print(f"{row['run']} {row['status']}: {row['error']}{log}")
    return int(any(row["status"] not in results for row in rows))


def read_jobs(directory: Path) -> list[Job]:
    """The jobs in their order, from the files that Hydra keeps for each."""
    jobs = []
    for file in directory.rglob(".hydra/hydra.yaml"):
        matched = NUMBER.search(file.read_text())
        lines = read_yaml(file.parent / "overrides.yaml") or []
        jobs.append(Job(int(matched[1]) if matched else 0, file.parents[1], settings_of(lines)))
    return sorted(jobs, key=lambda job: job.number)


def settings_of(overrides: Sequence[str]) -> dict[str, str]:
    """The settings in a job's overrides; mappings such as {kernel:rbf} are split key by key."""
    settings: dict[str, str] = {}
    for line in overrides:
        key, _, value = line.lstrip("+").partition("=")
        inner = MAPPING.fullmatch(value)
        pairs = (part.partition(":") for part in inner[1].split(",")) if inner else ()
        settings |= {f"{key}.{name}": text for name, _, text in pairs}
        settings |= {} if inner else {key: value.strip("'\"")}
    lower = {"True": "true", "False": "false"}  # Hydra writes True, yaml true
    return {key: lower.get(value, value) for key, value in settings.items()}


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """The settings and groups in which the jobs differ."""
    keys = dict.fromkeys(key for job in jobs for key in job.settings)
    return [key for key in keys if len({job.settings.get(key) for job in jobs}) > 1]


def sweep_row(job: Job, directory: Path, swept: Sequence[str]) -> dict[str, Any]:
    """One job: folder, status, swept settings, test metrics, statistics, and why it ended."""
    row: dict[str, Any] = {"run": job.folder.relative_to(directory).as_posix(), "status": "failed"}
    row |= {key: job.settings.get(key) for key in swept}
    row |= _figures(job.folder)
    log = job.folder / ERROR_LOG
    if log.is_file():
        row |= {"error": log.read_text().partition("\n")[0]}
        row |= {"status": "diverged"} if row["error"].startswith(DIVERGED) else {}
        row |= {"status": "killed"} if row["error"].startswith(KILLED) else {}
        row |= {"log": log.relative_to(directory).as_posix()}
    return row


def _figures(folder: Path) -> dict[str, Any]:
    """A job's figures, the metric that chose its best weights first."""
    file = folder / "metrics.json"
    if not file.is_file():
        return {}
    metrics = read_json(file)
    solver, backward = metrics["solver_stats"] or {}, metrics["gradient_stats"] or {}
    monitored = _monitored(folder / "config.yaml")
    test = sorted(metrics["test"].items(), key=lambda metric: metric[0] != monitored)
    details = metrics.get("details") or {}
    best = details.get("best_validation")
    pruned = details.get("ended_by") == PRUNED and metrics["status"] == "completed"
    return {
        "status": PRUNED if pruned else metrics["status"],
        **({f"best {best['monitor']}": best["value"]} if best else {}),
        **{f"test {name}": value for name, value in test},
        "nfe": solver.get("nfe_mean"),
        "residual": solver.get("residual_median"),
        "converged": solver.get("converged_fraction"),
        "backward nfe": backward.get("nfe_mean"),
        "seconds": metrics["seconds"],
    }


def _monitored(file: Path) -> str:
    """The metric that a run's configuration monitors, such as loss for val/loss."""
    config = read_yaml(file) if file.is_file() else {}
    return str((config.get("task") or {}).get("monitor")).rpartition("/")[2]


def columns_of(rows: Sequence[Mapping[str, Any]], swept: Sequence[str]) -> list[str]:
    """All columns: folder, status, swept settings, metrics, and the errors last."""
    names = dict.fromkeys(name for row in rows for name in row)
    last = ("error", "log")
    inner = [name for name in names if name not in (*LEAST, *swept, *last)]
    return [*LEAST, *swept, *inner, *last]


def filled(row: Mapping[str, Any], name: str) -> bool:
    """Whether a row has a value in the column."""
    return row.get(name) not in (None, "")


def write_summary(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as csv, numbers with six significant digits."""
    with whole(file) as lines:
        writer = csv.writer(lines)
        writer.writerow(columns)
        writer.writerows([[_six_digits(row.get(name)) for name in columns] for row in rows])


def _six_digits(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def print_rows(
    title: str, columns: Sequence[str], rows: Sequence[dict[str, Any]], swept: Sequence[str]
) -> None:
    """Print as many columns as fit the terminal, the most informative first.

    A folder's name, which begins with the job's number, gets at most half of the width.
    """
    console = Console(markup=False)
    shown = telling_columns(columns, rows, swept)
    rows = [row | {"run": _cut(row["run"], console.width // 2)} for row in rows]
    while len(shown) > 1 and width_of(console, table_of(title, shown, rows)) > console.width:
        shown = shown[:-1]
    ordered = [name for name in columns if name in shown]
    console.print(table_of(title, ordered, rows))


def telling_columns(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], swept: Sequence[str]
) -> list[str]:
    """The columns for the screen, the most important first.

    Swept settings that the folders' names show are left out, and the status if all completed.
    """
    untold = [key for key in swept if not all(_told(key, row) for row in rows)]
    status = ["status"] if any(row["status"] != "completed" for row in rows) else []
    metrics = [name for name in columns if name.startswith(("best ", "test "))]
    names = [*status, *metrics[:1], *untold, *FIGURES[:2], *metrics[1:METRICS], *FIGURES[2:]]
    return ["run", *(name for name in names if name in columns)]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _told(key: str, row: Mapping[str, Any]) -> bool:
    """Whether the folder's name shows a setting; there, true is written True."""
    return f"{key.rpartition('.')[2]}-{row.get(key)}".lower() in row["run"].lower()


def width_of(console: Console, table: Table) -> int:
    """The width of a terminal that shows the table unfolded, in characters."""
    return table.__rich_measure__(console, console.options.update(max_width=10_000)).maximum
