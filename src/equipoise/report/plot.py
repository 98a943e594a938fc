"""What all pictures look like: columns over the optimiser steps, and masks over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor


COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5", "#c53030", "#4a5568")
INK, GRID = "#2d3748", "#e2e8f0"
MASKS = "masks"
MASK_COLUMNS = ("image", "true mask", "predicted mask")
OPACITY = 0.65
LEGEND_COLUMNS = 4


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


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches.

    It is not made by pyplot: it needs no display and leaves no global state.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_axes(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure with one set of axes in the report's style."""
    figure = new_figure(6.4, 3.8)
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
    width = 2.2
    figure = new_figure(columns * width, rows * width * aspect + 1.2)
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


def mask_pictures(
    samples: Mapping[str, Tensor], names: Sequence[str], folder: Path
) -> list[Picture]:
    """Draw a test's samples into the folder; no picture without any.

    samples: "image" (N, C, H, W), "mask" and "prediction" (N, H, W). names: of the classes 0, 1,
    ...; classes beyond them are numbered.
    """
    if not samples:
        return []
    draw_overlays(samples, names, folder / f"{MASKS}.png")
    caption = "Test samples: the image, its true mask and the predicted one."
    return [Picture(f"{MASKS}.png", caption)]


def draw_overlays(samples: Mapping[str, Tensor], names: Sequence[str], path: Path) -> None:
    """Write a picture with a row per sample: the image, and both masks over it, with a legend.

    Mask values that are no class of the legend, such as 255 for ignored pixels, are left clear.
    """
    rows = len(samples["mask"])
    height, width = samples["mask"].shape[1:]
    present = occurring(samples)
    figure, grid = new_grid(rows, len(MASK_COLUMNS), height / width)
    for number, axes_of_row in enumerate(grid):
        picture = visible(samples["image"][number])
        masks = (None, samples["mask"][number], samples["prediction"][number])
        for axes, mask in zip(axes_of_row, masks, strict=True):
            _draw(axes, picture, mask)
    for axes, title in zip(grid[0], MASK_COLUMNS, strict=True):
        axes.set_title(title, fontsize=10, color=INK)
    handles = [_swatch(k, names[k] if k < len(names) else str(k)) for k in present]
    columns = min(LEGEND_COLUMNS, len(handles)) or 1
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    save(figure, path)


def occurring(samples: Mapping[str, Tensor]) -> list[int]:
    """The classes in the masks or the predictions, ignored pixels aside."""
    classes = {k for name in ("mask", "prediction") for k in samples[name].unique().tolist()}
    return sorted(k for k in classes if k < 255)


def visible(image: Tensor) -> Tensor:
    """A normalised image (C, H, W) as RGB (H, W, 3) from its darkest to its brightest."""
    darkest = image.amin(dim=(1, 2), keepdim=True)
    span = (image.amax(dim=(1, 2), keepdim=True) - darkest).clamp(min=1e-6)
    channels = (image - darkest) / span
    rgb = channels if len(channels) == 3 else channels.mean(dim=0, keepdim=True).expand(3, -1, -1)
    return rgb.permute(1, 2, 0)


def colour(number: int) -> tuple[float, float, float]:
    """The colour of a class: hues at golden distances, so that neighbours differ."""
    from matplotlib.colors import hsv_to_rgb

    if number == 0:
        return (0.25, 0.28, 0.33)
    tone = (0.618034 * number % 1, 0.85 - 0.2 * (number % 3), 0.95 - 0.15 * (number % 2))
    red, green, blue = hsv_to_rgb(tone)
    return float(red), float(green), float(blue)


def _draw(axes: Axes, picture: Tensor, mask: Tensor | None) -> None:
    axes.set_axis_off()
    if mask is not None:
        picture = _covered(picture, mask)
    axes.imshow(picture.numpy(), interpolation="nearest")


def _covered(picture: Tensor, mask: Tensor) -> Tensor:
    covered = picture.clone()
    for number in mask.unique().tolist():
        if number < 255:
            tint = picture.new_tensor(colour(number))
            place = mask == number
            covered[place] = (1 - OPACITY) * picture[place] + OPACITY * tint
    return covered


def _swatch(number: int, name: str) -> object:
    from matplotlib.patches import Patch

    return Patch(color=colour(number), label=name)
