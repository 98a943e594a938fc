"""The picture of a sweep: a panel for each value of one setting, over the values of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from equipoise.callbacks.report.plot import COLOURS, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
MARKERS = "os^dvx*"
MORE_COLOURS = (*COLOURS, "#b83280", "#718096", "#319795")


class Measured(Protocol):
    """A mean and its standard error."""

    @property
    def mean(self) -> float:
        """The mean."""
        ...

    @property
    def error(self) -> float | None:
        """Its standard error, if known."""
        ...


def draw(
    path: Path,
    metric: str,
    heads: Sequence[str],
    cells: Mapping[tuple[tuple[str, ...], str], Measured],
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
    for number, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
        left = metric if number % columns == 0 else ""
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


def _draw_line(axes: Axes, label: str, points: Mapping[str, Measured], order: int) -> None:
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
