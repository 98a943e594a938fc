"""What the user sees at the end: the result of a run, and the table of a multirun."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

METRICS = 3


def print_result(metrics: dict[str, Any], directory: Path) -> None:
    """One run: its test metrics, figures beside them, the solver's, and where everything lies."""
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
    console = Console()
    console.print(table)
    if points := metrics["details"].get("anytime"):
        print_whole(anytime_table(points))
    console.print(f"results: {directory / 'metrics.json'}", soft_wrap=True)
    if (directory / "report" / "index.html").is_file():
        console.print(f"report:  {directory / 'report' / 'index.html'}", soft_wrap=True)


def plain_numbers(details: dict[str, Any]) -> dict[str, float]:
    """What can stand beside the test metrics in one line each, such as a baseline's result."""
    kinds = (int, float)
    found = {name: value for name, value in details.items() if isinstance(value, kinds)}
    return {name: value for name, value in found.items() if not isinstance(value, bool)}


def print_sweep(directory: Path) -> int:
    """A row for each job of a multirun, also as summary.csv; 1 where a job did not complete."""
    rows = [sweep_row(folder) for folder in job_folders(directory)]
    if not rows:
        return 1
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (directory / "summary.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    print_whole(table_of(str(directory), columns, rows))
    return int(any(row["status"] != "completed" for row in rows))


def anytime_table(points: Sequence[dict[str, Any]]) -> Table:
    """The anytime curve: a row for each budget and start."""
    columns = [name for name in points[0] if name not in ("residual_p95", "seconds")]
    return table_of("test at every budget", columns, points)


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
    console = Console()
    needed = table.__rich_measure__(console, console.options).maximum
    Console(width=max(console.width, needed)).print(table)


def job_folders(directory: Path) -> list[Path]:
    """The folders of the jobs in their order."""
    folders = [path for path in directory.iterdir() if path.is_dir() and path.name[0].isdigit()]
    return sorted(folders, key=lambda path: int(path.name.partition("_")[0]))


def sweep_row(folder: Path) -> dict[str, Any]:
    """Folder name, status, test metrics and the solver's statistics of one job."""
    file = folder / "metrics.json"
    if not file.is_file():
        return {"run": folder.name, "status": "failed"}
    metrics = json.loads(file.read_text())
    solver, backward = metrics["solver_stats"] or {}, metrics["gradient_stats"] or {}
    return {
        "run": folder.name,
        "status": metrics["status"],
        **{f"test {name}": value for name, value in list(metrics["test"].items())[:METRICS]},
        "nfe": solver.get("nfe_mean"),
        "residual": solver.get("residual_median"),
        "backward nfe": backward.get("nfe_mean"),
        "seconds": metrics["seconds"],
    }


def number(value: Any) -> str:
    """A number with four digits, a word as it is, nothing as a dash."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
