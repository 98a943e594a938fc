"""The table and the picture that a sweep ends in.

The picture has a panel for each value of one setting, over the values of another.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.table import Table

from equipoise.report.plot import COLOURS, save, style
from equipoise.report.summary import job_folders, number, print_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes


COLUMNS = 3
MARKERS = "os^dvx*"
MORE_COLOURS = (*COLOURS, "#b83280", "#718096", "#319795")


Point = tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """The mean of a metric over the jobs of a cell, and its standard error where one is known."""

    mean: float
    error: float | None


def show_sweep_table(directory: Path, table: Mapping[str, Any]) -> None:
    """Print a table of test metrics and write table.csv and table.png into the sweep's folder.

    table: metric, the name of a test metric of which less is better; rows, the settings that name
    a row; columns, the setting or group that names a column. Jobs that did not complete are left
    out; jobs that differ in other settings, such as the seed, are averaged.
    """
    rows, columns = list(table["rows"]), str(table["columns"])
    cells = read_cells(directory, str(table["metric"]), rows, columns)
    if not cells:
        return
    names = list(dict.fromkeys(column for _, column in cells))
    first = list(dict.fromkeys(point[0] for point, _ in cells))
    points = sorted(dict.fromkeys(point for point, _ in cells), key=lambda p: first.index(p[0]))
    write_csv(directory / "table.csv", rows, points, names, cells)
    heads = [key.rpartition(".")[2] for key in rows]
    print_whole(table_of(f"test {table['metric']}", heads, points, names, cells))
    if len(rows) == 2:
        draw(directory / "table.png", str(table["metric"]), heads, cells)
        print(f"table:   {directory / 'table.csv'}\npicture: {directory / 'table.png'}")


def read_cells(
    directory: Path, metric: str, rows: Sequence[str], columns: str
) -> dict[tuple[Point, str], Cell]:
    """The cells by row and column, in the order of the jobs."""
    values: dict[tuple[Point, str], list[tuple[float, float | None]]] = {}
    for folder in job_folders(directory):
        file = folder / "metrics.json"
        metrics = json.loads(file.read_text()) if file.is_file() else {}
        if metrics.get("status") != "completed":
            continue
        config = yaml.safe_load((folder / "config.yaml").read_text())
        place = tuple(_named(config, metrics, key) for key in rows)
        error = (metrics["details"].get("standard_error") or {}).get(metric)
        key = place, _named(config, metrics, columns)
        values.setdefault(key, []).append((metrics["test"][metric], error))
    return {key: _mean(measured) for key, measured in values.items()}


def _named(config: Any, metrics: Mapping[str, Any], key: str) -> str:
    """A job's value of a setting, such as task.epsilon; of a group its choice."""
    if key in metrics:
        return str(metrics[key])
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return str(config)


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
    table = Table(title=title, caption="* lowest in its row")
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


def draw(
    path: Path,
    metric: str,
    heads: Sequence[str],
    cells: Mapping[tuple[Point, str], Cell],
) -> None:
    """Write the PNG file; cells by ((panel, x), line), heads: what panel and x are called."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(point[0] for point, _ in cells))
    lines = list(dict.fromkeys(line for _, line in cells))
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    size = (max(6.4, 3.7 * columns), 3.1 * rows + 0.7)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for place, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
        left = metric if place % columns == 0 else ""
        style(axes, f"{heads[0]} {panel}", heads[1], left)
        for order, line in enumerate(lines):
            points = {
                p[1]: cell for (p, name), cell in cells.items() if (p[0], name) == (panel, line)
            }
            _draw_line(axes, line, points, order)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(9, len(lines)),
                  frameon=False)  # fmt: skip
    save(figure, path)


def _draw_line(axes: Axes, label: str, points: Mapping[str, Cell], order: int) -> None:
    """Means with two standard errors, on logarithmic axes where the values are numbers."""
    numbers = [number for number in map(_number, points) if number is not None and number > 0]
    numeric = len(numbers) == len(points)
    places = numbers if numeric else [float(place) for place in range(len(points))]
    means = [cell.mean for cell in points.values()]
    errors = [2 * (cell.error or 0.0) for cell in points.values()]
    below = [min(error, 0.9 * mean) for mean, error in zip(means, errors, strict=True)]
    axes.errorbar(
        places, means, yerr=(below, errors), label=label, linewidth=1.5, markersize=4, capsize=2,
        color=MORE_COLOURS[order % len(MORE_COLOURS)], marker=MARKERS[order % len(MARKERS)],
    )  # fmt: skip
    axes.set_yscale("log")
    if numeric and len(places) > 1:
        axes.set_xscale("log")
    axes.set_xticks(places, list(points))
    axes.minorticks_off()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
