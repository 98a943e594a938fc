"""The picture of a sweep's table: a panel for each value of the rows' first setting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.report.plot import COLOURS, HALF, SMALL, logarithmic, new_figure, save, style
from equipoise.report.sweep_cells import (
    NOT_RUN,
    Cell,
    Cells,
    SweepTable,
    columns_of,
    label,
    rows_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
MARKERS = "os^dvx*"
MORE_COLOURS = (*COLOURS, "#b83280", "#718096", "#319795")
APART = 0.7
"""The spread of the lines at one word of an axis, as a share of the gap to the next word."""


def draw(path: Path, table: SweepTable, cells: Cells) -> None:
    """Write the PNG file: a line for each column over the last settings of the rows.

    If the rows have only one setting, there is one panel. A job without a value is named where
    its value would be.
    """
    several = len(table.rows) > 1
    panels = list(dict.fromkeys(point[0] for point in rows_of(cells))) if several else [""]
    figure, grid = new_panels(len(panels))
    heads = table.heads[several:]
    for place, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
        left = table.metric if place % COLUMNS == 0 else ""
        title = f"{table.heads[0]} {panel}" if several else f"Test {table.metric}"
        style(axes, title, ", ".join(heads), left)
        _draw_panel(axes, table, {
            ("\n".join(point[several:]), name): cell
            for (point, name), cell in cells.items()
            if not several or point[0] == panel
        }, columns_of(cells))  # fmt: skip
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(9, len(labels)),
                  frameon=False)  # fmt: skip
    save(figure, path)


def new_panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with the given number of axes, in rows of COLUMNS."""
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = new_figure(max(HALF, 3.6 * columns), 3.1 * rows + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, list(grid[:count])


def _draw_panel(
    axes: Axes, table: SweepTable, cells: Mapping[tuple[str, str], Cell], lines: list[str]
) -> None:
    """Draw the lines over words in their order, or over numbers on a logarithmic axis."""
    words = list(dict.fromkeys(place for place, _ in cells))
    numbers = [value for value in map(_number, words) if value is not None and value > 0]
    numeric = len(numbers) == len(words)
    middles = numbers if numeric else [float(place) for place in range(len(words))]
    for order, line in enumerate(lines):
        step = 0.0 if numeric else APART * ((order + 0.5) / len(lines) - 0.5)
        row = {x + step: cells[name, line] for x, name in zip(middles, words, strict=True)
               if (name, line) in cells}  # fmt: skip
        _draw_line(axes, label(table.columns, line), row, order, joined=numeric)
    if table.best == "min" and all((cell.mean or 1) > 0 for cell in cells.values()):
        logarithmic(axes.yaxis)
    if numeric and len(words) > 1:
        axes.set_xscale("log")
    axes.set_xticks(middles, words)
    if not numeric:
        axes.set_xlim(-0.6, len(words) - 0.4)
    axes.minorticks_off()


def _draw_line(
    axes: Axes, name: str, cells: Mapping[float, Cell], order: int, *, joined: bool
) -> None:
    """Draw means with two standard errors, and the words of the cells without a mean."""
    colour = MORE_COLOURS[order % len(MORE_COLOURS)]
    known = {x: cell.mean for x, cell in cells.items() if cell.mean is not None}
    errors = [2 * (cells[x].error or 0.0) for x in known]
    below = [
        min(error, 0.9 * abs(mean)) for error, mean in zip(errors, known.values(), strict=True)
    ]
    axes.errorbar(
        list(known), list(known.values()), yerr=(below, errors), label=name, linewidth=1.5,
        markersize=4 if joined else 6, capsize=2, color=colour,
        marker=MARKERS[order % len(MARKERS)], linestyle="-" if joined else "none",
    )  # fmt: skip
    for x in cells.keys() - known.keys():
        text = cells[x].text.removeprefix(NOT_RUN)
        axes.text(
            x, 0.03, text, transform=axes.get_xaxis_transform(), rotation=90, ha="center",
            va="bottom", fontsize=SMALL, color=colour,
        )  # fmt: skip


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
