"""Predicted masks over their images, beside the true ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equipoise.report.page import Picture
from equipoise.report.plot import INK, new_grid, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "masks"
COLUMNS = ("image", "true mask", "predicted mask")
OPACITY = 0.65
LEGEND_COLUMNS = 4


def mask_pictures(
    samples: Mapping[str, Tensor], names: Sequence[str], folder: Path
) -> list[Picture]:
    """Draw a test's samples into the folder; no picture without any.

    samples: "image" (N, C, H, W), "mask" and "prediction" (N, H, W). names: of the classes 0, 1,
    ...; classes beyond them are numbered.
    """
    if not samples:
        return []
    draw_overlays(samples, names, folder / f"{NAME}.png")
    caption = "Test samples: the image, its true mask and the predicted one."
    return [Picture(f"{NAME}.png", caption)]


def draw_overlays(samples: Mapping[str, Tensor], names: Sequence[str], path: Path) -> None:
    """Write a picture with a row per sample: the image, and both masks over it, with a legend.

    Mask values that are no class of the legend, such as 255 for ignored pixels, are left clear.
    """
    rows = len(samples["mask"])
    height, width = samples["mask"].shape[1:]
    present = occurring(samples)
    figure, grid = new_grid(rows, len(COLUMNS), height / width)
    for number, axes_of_row in enumerate(grid):
        picture = visible(samples["image"][number])
        masks = (None, samples["mask"][number], samples["prediction"][number])
        for axes, mask in zip(axes_of_row, masks, strict=True):
            _draw(axes, picture, mask)
    for axes, title in zip(grid[0], COLUMNS, strict=True):
        axes.set_title(title, fontsize=10, color=INK)
    handles = [_swatch(k, names[k] if k < len(names) else str(k)) for k in present]
    columns = min(LEGEND_COLUMNS, len(handles)) or 1
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    save(figure, path)


def occurring(samples: Mapping[str, Tensor]) -> list[int]:
    """The classes in the masks or the predictions, ignored pixels aside."""
    classes = torch.cat([samples["mask"].flatten(), samples["prediction"].flatten()]).unique()
    return [k for k in classes.tolist() if k < 255]


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
            tint = torch.tensor(colour(number))
            place = mask == number
            covered[place] = (1 - OPACITY) * picture[place] + OPACITY * tint
    return covered


def _swatch(number: int, name: str) -> object:
    from matplotlib.patches import Patch

    return Patch(color=colour(number), label=name)
