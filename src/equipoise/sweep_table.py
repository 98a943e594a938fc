"""The table and the picture that a sweep ends in."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.table import Table

from equipoise.summary import number, print_whole
from equipoise.sweep_summary import job_folders

Point = tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """The mean of a metric over the jobs of a cell, and its standard error where one is known."""

    mean: float
    error: float | None


def show_sweep_table(directory: Path, wanted: Mapping[str, Any]) -> None:
    """Print a table of test metrics and write table.csv and table.png into the sweep's folder.

    wanted: metric, the name of a test metric of which less is better; rows, the settings that name
    a row; columns, the setting or group that names a column. Jobs that did not complete are left
    out; jobs that differ in other settings, such as the seed, are averaged.
    """
    rows, columns = list(wanted["rows"]), str(wanted["columns"])
    cells = read_cells(directory, str(wanted["metric"]), rows, columns)
    if not cells:
        return
    names = list(dict.fromkeys(column for _, column in cells))
    first = list(dict.fromkeys(point[0] for point, _ in cells))
    points = sorted(dict.fromkeys(point for point, _ in cells), key=lambda p: first.index(p[0]))
    write_csv(directory / "table.csv", rows, points, names, cells)
    heads = [key.rpartition(".")[2] for key in rows]
    print_whole(table_of(f"test {wanted['metric']}", heads, points, names, cells))
    if len(rows) == 2:
        from equipoise.sweep_plot import draw

        draw(directory / "table.png", str(wanted["metric"]), heads, cells)
        print(f"table:   {directory / 'table.csv'}\npicture: {directory / 'table.png'}")


def read_cells(
    directory: Path, metric: str, rows: Sequence[str], columns: str
) -> dict[tuple[Point, str], Cell]:
    """The cells by row and column, in the order of the jobs."""
    found: dict[tuple[Point, str], list[tuple[float, float | None]]] = {}
    for folder in job_folders(directory):
        file = folder / "metrics.json"
        metrics = json.loads(file.read_text()) if file.is_file() else {}
        if metrics.get("status") != "completed":
            continue
        config = OmegaConf.load(folder / "config.yaml")
        place = tuple(_named(config, metrics, key) for key in rows)
        error = (metrics["details"].get("standard_error") or {}).get(metric)
        key = place, _named(config, metrics, columns)
        found.setdefault(key, []).append((metrics["test"][metric], error))
    return {key: _mean(values) for key, values in found.items()}


def _named(config: Any, metrics: Mapping[str, Any], key: str) -> str:
    """A job's value of a setting; of a group its choice."""
    return str(metrics[key]) if key in metrics else str(OmegaConf.select(config, key))


def _mean(values: Sequence[tuple[float, float | None]]) -> Cell:
    mean = sum(value for value, _ in values) / len(values)
    errors = [error for _, error in values if error is not None]
    if len(errors) < len(values):
        return Cell(mean, None)
    return Cell(mean, sum(error**2 for error in errors) ** 0.5 / len(errors))


def table_of(
    title: str,
    heads: Sequence[str],
    points: Sequence[Point],
    names: Sequence[str],
    cells: Mapping[tuple[Point, str], Cell],
) -> Table:
    """A row for each point, a column for each name, the least of a row in bold with a star."""
    table = Table(title=title, caption="* least of its row")
    for head in (*heads, *names):
        table.add_column(head, justify="left" if head in heads else "right")
    for point in points:
        least = min(cells[point, name].mean for name in names if (point, name) in cells)
        row = [_written(cells.get((point, name)), least) for name in names]
        table.add_row(*point, *row)
    return table


def _written(cell: Cell | None, least: float) -> str:
    if cell is None:
        return "-"
    text = f"{cell.mean:.2e}" if cell.error is None else f"{cell.mean:.1e} ± {cell.error:.0e}"
    return f"[bold]{text} *[/bold]" if cell.mean == least else f"{text}  "


def write_csv(
    file: Path,
    heads: Sequence[str],
    points: Sequence[Point],
    names: Sequence[str],
    cells: Mapping[tuple[Point, str], Cell],
) -> None:
    """A line for each row and column: mean and standard error."""
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow([*heads, "column", "mean", "standard_error"])
        for point in points:
            for name in names:
                if (point, name) in cells:
                    cell = cells[point, name]
                    error = "" if cell.error is None else number(cell.error)
                    writer.writerow([*point, name, number(cell.mean), error])
