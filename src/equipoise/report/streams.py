"""Pictures of several streams: attention between them over time, predicted against true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from equipoise.report.page import Picture
from equipoise.report.plot import (
    COLOURS,
    INK,
    MOST_VECTORS,
    SMALL,
    new_axes,
    new_figure,
    save,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.floating[Any]]
Panels = dict[tuple[str, str], Floats]
"""Weights (Q, K) by target and source."""

SIDE = 2.5
"""The side of a map, in inches."""
DARKEST = 0.95
"""The share of a sample's weights below the darkest colour."""
GREATEST = 3.0
"""The end of the scale of sentiment."""
BAR_NAMES = ("accuracy", "weighted F1", "the more frequent answer alone")


def draw_crossmodal(
    folder: Path, number: int, maps: Mapping[str, Tensor], streams: Mapping[str, Tensor], title: str
) -> list[Picture]:
    """Draw the attention of one sample: a row for each target, a column for each source.

    maps: weights (H, Q, K) by name, such as "language from audio 1", or "language memory 1" for a
    target that attends to itself; the mean over the heads of the last layer is drawn. streams:
    (T, F) by modality, left-padded with zeros: a line marks where the sample begins. Nothing is
    drawn without maps.
    """
    panels = last_layers(maps)
    if not panels:
        return []
    path = folder / f"crossmodal_attention_{number}.png"
    targets, sources = (list(dict.fromkeys(pair[place] for pair in panels)) for place in (0, 1))
    sources = [name for name in streams if name in sources]
    figure = new_figure(SIDE * len(sources) + 0.6, SIDE * len(targets) + 0.7)
    grid = figure.subplots(len(targets), len(sources), squeeze=False)
    for target, row in zip(targets, grid, strict=True):
        for source, axes in zip(sources, row, strict=True):
            if (target, source) in panels:
                _draw_map(axes, panels[target, source], streams[target], streams[source])
            else:
                axes.set_axis_off()
            if target == targets[-1]:
                axes.set_xlabel(f"step of {source}", color=INK)
        row[0].set_ylabel(f"step of {target}", color=INK)
    figure.suptitle(title, x=0.02, ha="left", fontsize=12, color=INK)
    save(figure, path)
    caption = (
        "Attention on one test sample, the mean over the heads of the last layer: each row attends "
        "to each column, and the darker the more. Lines mark where the padding ends; the diagonal "
        "shows what a memory encoder attends to of itself."
    )
    return [Picture(path.name, caption)]


def last_layers(maps: Mapping[str, Tensor]) -> Panels:
    """The mean over the heads of the last layer, (Q, K), by target and source."""
    panels = {}
    for name, weights in maps.items():  # later layers replace earlier ones
        target, *words, _ = name.split()
        panels[target, words[-1] if words[0] == "from" else target] = _mean(weights)
    return panels


def first_step(stream: Tensor, steps: int) -> int:
    """The first step of a stream (T, F) that is not padding.

    0 where all steps are zero, and where the map has the steps of an alignment instead.
    """
    return int((stream != 0).any(dim=1).int().argmax()) if len(stream) == steps else 0


def _mean(weights: Tensor) -> Floats:
    mean: Floats = weights.detach().float().mean(dim=0).cpu().numpy()
    return mean


def _draw_map(axes: Axes, weights: Floats, target: Tensor, source: Tensor) -> None:
    first_query, first_key = map(first_step, (target, source), weights.shape)
    attended = weights[first_query:, first_key:]
    attended = attended[attended > 0]
    darkest = float(np.quantile(attended, DARKEST)) if len(attended) else 1.0
    axes.imshow(weights, cmap="Blues", vmin=0.0, vmax=darkest, aspect="auto")
    axes.set_title(f"darkest from {darkest:.2g}", fontsize=SMALL, color=INK)
    for place, line in ((first_query, axes.axhline), (first_key, axes.axvline)):
        if place:
            line(place - 0.5, color=COLOURS[1], linewidth=0.8)
    axes.tick_params(length=0, labelsize=SMALL, colors=INK)
    axes.spines[:].set_visible(False)


def draw_sentiment(folder: Path, predicted: Floats, true: Floats) -> list[Picture]:
    """Draw predicted (N,) against true (N,) sentiment, with the line on which they agree."""
    figure = new_figure(5.0, 5.0)
    axes = figure.add_subplot()
    style(axes, "Predicted against true sentiment", "true", "predicted")
    end = max(GREATEST, float(np.nanmax(np.abs([predicted, true]))))
    axes.plot([-end, end], [-end, end], color=INK, linewidth=1.0, linestyle="--")
    axes.plot(
        true, predicted, "o", color=COLOURS[0], alpha=0.35, markersize=3.5, markeredgewidth=0,
        rasterized=len(true) > MOST_VECTORS,
    )  # fmt: skip
    wide = 1.03 * end
    axes.set(xlim=(-wide, wide), ylim=(-wide, wide), aspect="equal")
    save(figure, folder / "sentiment.png")
    caption = "Predicted against true sentiment of the test samples; they agree on the dashed line."
    return [Picture("sentiment.png", caption)]


def draw_emotions(
    folder: Path, emotions: Sequence[str], scores: Mapping[str, float], majority: Sequence[float]
) -> list[Picture]:
    """Draw accuracy and F1 of each emotion beside the baseline of the more frequent answer.

    scores: `accuracy_<emotion>` and `f1_<emotion>`. majority: (E,) the baseline's accuracy.
    """
    heights = [
        [scores[f"accuracy_{name}"] for name in emotions],
        [scores[f"f1_{name}"] for name in emotions],
        majority,
    ]
    figure, axes = new_axes("How well each emotion is recognised", "", "fraction of the samples")
    places = np.arange(len(emotions))
    for number, (values, name) in enumerate(zip(heights, BAR_NAMES, strict=True)):
        colour = COLOURS[number] if name != BAR_NAMES[-1] else "#cbd5e0"
        axes.bar(places + 0.27 * (number - 1), values, 0.25, color=colour, label=name)
    axes.set_xticks(places, list(emotions))
    axes.set_ylim(0, 1)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save(figure, folder / "emotions.png")
    caption = (
        "Accuracy and weighted F1 of each emotion on the test samples, beside the accuracy of "
        "always giving the more frequent answer."
    )
    return [Picture("emotions.png", caption)]
