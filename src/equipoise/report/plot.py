"""The look and the size of all pictures, how they are saved, and masks over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.report.page import Picture
from equipoise.report.whole import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from torch import Tensor


COLOURS = ("#388ee3", "#db5b2e", "#32634b", "#943f88", "#620000", "#252037")
"""Colours of lines, distinct for the colour-blind and visible on white; a test measures both."""
STYLES = ("-", "--", ":", "-.")
INK, GRID = "#2d3748", "#e2e8f0"
MASKS = "masks"
MASK_COLUMNS = ("image", "true mask", "predicted mask")
OPACITY = 0.65
LEGEND_COLUMNS = 4

HALF, FULL = 5.25, 10.9
"""Widths of a picture that fills half a line of the page or a whole one; inches of 96 CSS px.

The page shows every picture at its own size, so that text has the size at which it was drawn.
"""
DPI = 144
SMALL = 8.5
"""The smallest size of text, in points of 4/3 CSS px: 11.3 px."""
MOST_VECTORS = 500
"""Most points of a scatter drawn as vectors in an SVG file; more are embedded as an image."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches.

    Made without pyplot: it needs no display and leaves no global state.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_axes(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure with one set of axes in the report's style."""
    figure = new_figure(HALF, 3.3)
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
    """A figure with a grid of rows by columns pictures; aspect: height over width of each."""
    width = 2.2
    figure = new_figure(columns * width, rows * width * aspect + 1.2)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in axes]


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG file, and beside it as an SVG file, the same bytes every time."""
    from matplotlib import rc_context

    with whole(path, "wb") as file:
        figure.savefig(file, format="png")
    with (
        rc_context({"svg.hashsalt": path.stem}),
        whole(path.with_suffix(".svg"), "wb") as file,
    ):
        figure.savefig(file, format="svg", metadata={"Date": None})


def logarithmic(axis: Axis) -> None:
    """Make an axis logarithmic."""
    axes = axis.axes
    scale = axes.set_xscale if axis is axes.xaxis else axes.set_yscale
    scale("log")
    write_out(axis)


def write_out(axis: Axis) -> None:
    """Write out the numbers of a logarithmic axis: raised exponents would be too small to read."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        """Labels the same ticks as LogFormatter does."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axis.set_major_formatter(Plain())
    axis.set_minor_formatter(Plain())


def legible(text: str, most: int) -> str:
    """The text cut to `most` letters; ▯ for letters that the font lacks, no formulas."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    drawn = "".join(letter if font.get_char_index(ord(letter)) else "▯" for letter in text)
    return (drawn if len(drawn) <= most else f"{drawn[: most - 1]}…").replace("$", r"\$")


def draw_level(axes: Axes, label: str, value: float) -> None:
    """Draw a dashed horizontal line."""
    axes.axhline(value, color="#c53030", linewidth=1.2, linestyle="--", label=label)


def mask_pictures(
    samples: Mapping[str, Tensor], names: Sequence[str], folder: Path
) -> list[Picture]:
    """Draw the test samples into the folder; no picture without samples.

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

    Mask values outside the legend's classes, such as 255 for ignored pixels, are left clear.
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
    """The classes in the masks or the predictions, except for ignored pixels."""
    classes = {k for name in ("mask", "prediction") for k in samples[name].unique().tolist()}
    return sorted(k for k in classes if k < 255)


def visible(image: Tensor) -> Tensor:
    """A normalised image (C, H, W) as RGB (H, W, 3), scaled from its darkest to its brightest."""
    darkest = image.amin(dim=(1, 2), keepdim=True)
    span = (image.amax(dim=(1, 2), keepdim=True) - darkest).clamp(min=1e-6)
    channels = (image - darkest) / span
    rgb = channels if len(channels) == 3 else channels.mean(dim=0, keepdim=True).expand(3, -1, -1)
    return rgb.permute(1, 2, 0)


def colour(number: int) -> tuple[float, float, float]:
    """The colour of a class: hues step by the golden ratio, so that neighbours differ."""
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
