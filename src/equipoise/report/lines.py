"""Columns over the optimiser steps: what one picture of a curve shows, and how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.report.plot import (
    COLOURS,
    FULL,
    SMALL,
    STYLES,
    draw_level,
    logarithmic,
    new_axes,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LONG = 30
"""Letters of a label beyond which it would cover the curves."""

Points = tuple[tuple[float, float], ...]
"""(step, value) pairs in the order of the steps."""
Lines = tuple[tuple[str, Points], ...]
"""Label and points of each curve."""


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
    lines: Lines
    spans: tuple[Span, ...] = ()
    logarithmic: bool = False
    level: tuple[str, float] | None = None

    def draw(self, folder: Path) -> None:
        """Write `<name>.png` and `.svg` into the folder."""
        figure, axes = new_axes(self.title, "optimiser step", self.ylabel)
        for number, (label, points) in enumerate(self.lines):
            _draw_line(axes, label, points, number)
        if self.logarithmic:
            logarithmic(axes.yaxis)
        if self.level is not None:
            draw_level(axes, *self.level)
        for number, span in enumerate(self.spans):
            _draw_span(axes, span, shaded=number % 2 == 1)
        if len(self.lines) > len(COLOURS) or max(len(label) for label, _ in self.lines) > LONG:
            figure.set_size_inches(FULL, 3.3)
            figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        elif len(self.lines) > 1 or self.level is not None:
            axes.legend(loc="best", edgecolor="none", framealpha=0.85)
        save(figure, folder / f"{self.name}.png")


def _draw_line(axes: Axes, label: str, points: Points, number: int) -> None:
    """Draw the curve with this number; curves of one colour differ in their dashes."""
    steps, values = zip(*points, strict=True)
    # Without markers, a curve of few points is invisible, or suggests values between them.
    marker = "o" if len(points) <= 40 else ""
    axes.plot(
        steps, values, color=COLOURS[number % len(COLOURS)], linewidth=1.8, marker=marker,
        linestyle=STYLES[number // len(COLOURS) % len(STYLES)], markersize=3.5, label=label,
    )  # fmt: skip


def _draw_span(axes: Axes, span: Span, *, shaded: bool) -> None:
    if shaded:
        axes.axvspan(span.first, span.last, color="#edf2f7", zorder=0)
    axes.annotate(
        span.name,
        xy=((span.first + span.last) / 2, 1.01),
        xycoords=("data", "axes fraction"),
        ha="center",
        va="bottom",
        fontsize=SMALL,
        color="#718096",
    )
