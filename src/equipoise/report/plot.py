"""One picture of some columns over the optimiser steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5", "#c53030", "#4a5568")
INK, GRID = "#2d3748", "#e2e8f0"


Points = tuple[tuple[float, float], ...]
"""(step, value) pairs in the order of the steps."""


@dataclass(frozen=True)
class Span:
    """Steps during which one gradient estimator was in force."""

    name: str
    first: float
    last: float


@dataclass(frozen=True)
class Plot:
    """What one picture shows; two equal plots give the same picture.

    name: of the file, without ending. lines: label and points of each curve. spans: phases to
    shade. level: a horizontal line such as the tolerance, with its label.
    """

    name: str
    title: str
    caption: str
    ylabel: str
    lines: tuple[tuple[str, Points], ...]
    spans: tuple[Span, ...] = ()
    logarithmic: bool = False
    level: tuple[str, float] | None = None

    def draw(self, folder: Path) -> None:
        """Write `<name>.png` into the folder."""
        figure, axes = new_axes(self.title, "optimiser step", self.ylabel)
        for (label, points), colour in zip(self.lines, COLOURS, strict=False):
            _draw_line(axes, label, points, colour)
        if self.logarithmic:
            axes.set_yscale("log")
        if self.level is not None:
            draw_level(axes, *self.level)
        for number, span in enumerate(self.spans):
            _draw_span(axes, span, shaded=number % 2 == 1)
        if len(self.lines) > 1 or self.level is not None:
            axes.legend(loc="best", edgecolor="none", framealpha=0.85)
        save(figure, folder / f"{self.name}.png")


def new_axes(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure with one set of axes in the report's style.

    The figure is not made by pyplot: it needs no display and leaves no global state.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    style(axes, title, xlabel, ylabel)
    return figure, axes


def style(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Give axes the report's look."""
    axes.set_title(title, loc="left", fontsize=12, color=INK, pad=18)
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)
    axes.tick_params(colors=INK)


def new_grid(rows: int, columns: int, aspect: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure of rows by columns pictures; aspect: height over width of one of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = 2.2
    size = (columns * width, rows * width * aspect + 1.2)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in axes]


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_level(axes: Axes, label: str, value: float) -> None:
    """Draw a dashed horizontal line."""
    axes.axhline(value, color="#c53030", linewidth=1.2, linestyle="--", label=label)


def _draw_line(axes: Axes, label: str, points: Points, colour: str) -> None:
    steps, values = zip(*points, strict=True)
    # A curve of few points would otherwise be invisible or pretend to know what lies between.
    marker = "o" if len(points) <= 40 else ""
    axes.plot(
        steps, values, color=colour, linewidth=1.8, marker=marker, markersize=3.5, label=label
    )


def _draw_span(axes: Axes, span: Span, *, shaded: bool) -> None:
    if shaded:
        axes.axvspan(span.first, span.last, color="#edf2f7", zorder=0)
    axes.annotate(
        span.name,
        xy=((span.first + span.last) / 2, 1.01),
        xycoords=("data", "axes fraction"),
        ha="center",
        va="bottom",
        fontsize=8.5,
        color="#718096",
    )
