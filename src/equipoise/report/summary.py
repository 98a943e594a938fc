"""What the user sees at the end of a run, and how numbers are written in tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


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
    console = Console()
    needed = table.__rich_measure__(console, console.options).maximum
    Console(width=max(console.width, needed)).print(table)


def number(value: Any) -> str:
    """A number with four digits, a word as it is, nothing as a dash."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
