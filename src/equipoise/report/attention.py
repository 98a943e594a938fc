"""Pictures of attention: who looks at whom in one sample, and the kernels that were learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from equipoise.report.page import Picture
from equipoise.report.plot import COLOURS, INK, SMALL, legible, new_axes, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.axis import Axis

Floats = NDArray[np.floating[Any]]
MOST_HEADS, MOST_LAYERS = 8, 3
"""Most columns and rows of maps in a picture; more layers are thinned evenly, first to last."""
MOST_LABELS = 24
"""The longest axis whose places are labelled with their tokens."""
MOST_LETTERS = 12
SIDE = (1.3, 3.0)
"""The least and the greatest length of a map's axis, in inches."""
INCHES_A_TOKEN = 0.125
GAP = 1
"""Places between two maps."""
MOST_PROFILES = 6
"""Number of attentions whose positional kernels are drawn as curves."""
OUTLIERS = 0.02
"""The share of signed weights that may lie beyond the scale of colours."""
KINDS = {
    "encoder": "Self-attention of the encoder",
    "decoder": "Self-attention of the decoder",
    "cross": "Attention of the decoder to the source",
}


def draw_attention(
    folder: Path,
    maps: Mapping[str, Tensor | Floats],
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
) -> list[Picture]:
    """Draw the weights of one sample: a picture for each kind of attention, heads side by side.

    maps: weights (H, Q, K) by name, such as "decoder 1". Queries and keys are the target's tokens;
    those of "encoder 1" the source's, and of "cross 1" the queries the target's, the keys the
    source's. Weights of either sign get colours of two hues.
    """
    pictures = []
    for kind, title in KINDS.items():
        of_kind = {name: _array(m) for name, m in maps.items() if name.split()[0] == kind}
        if of_kind:
            queries = source_tokens if kind == "encoder" else target_tokens
            keys = target_tokens if kind == "decoder" else source_tokens
            path = folder / f"attention_{kind}.png"
            some = _some(of_kind, MOST_LAYERS)
            pictures.append(_draw_maps(path, title, some, queries, keys))
    return pictures


def _draw_maps(
    path: Path,
    title: str,
    maps: Mapping[str, Floats],
    queries: Sequence[str],
    keys: Sequence[str],
) -> Picture:
    """All maps as one image, with a gap between them: a row for each layer, a column for a head."""
    weights = np.stack([of_layer[:MOST_HEADS] for of_layer in maps.values()])
    layers, heads, height, width = weights.shape
    gaps = ((0, 0), (0, 0), (0, GAP), (0, GAP))
    tiled = np.pad(weights, gaps, constant_values=np.nan).transpose(0, 2, 1, 3)
    down, across = (layers * (height + GAP), heads * (width + GAP))
    figure = new_figure(across * _inches(width) + 2.6, down * _inches(height) + 1.6)
    axes = figure.add_subplot()
    image = axes.imshow(
        tiled.reshape(down, across)[:-GAP, :-GAP], aspect="auto", interpolation="nearest",
        **_colours(weights),
    )  # fmt: skip
    axes.set_title(title, loc="left", fontsize=12, color=INK, pad=24)
    _name_axis(axes.xaxis, heads, keys, width, upright=True)
    _name_axis(axes.yaxis, layers, queries, height)
    axes.set_xlabel("key", color=INK)
    axes.set_ylabel("query", color=INK)
    axes.tick_params(length=0, labelsize=SMALL, colors=INK)
    axes.spines[:].set_visible(False)
    for head in range(heads):
        place = head * (width + GAP) + (width - 1) / 2
        axes.annotate(
            f"head {head + 1}", (place, -0.5), xytext=(0, 5), textcoords="offset points",
            ha="center", fontsize=9, color=INK,
        )  # fmt: skip
    for layer, name in enumerate(maps):
        place = layer * (height + GAP) + (height - 1) / 2
        axes.annotate(
            f"layer {name.split()[-1]}", (across - GAP - 0.5, place), xytext=(6, 0),
            textcoords="offset points", rotation=90, va="center", fontsize=9, color=INK,
        )  # fmt: skip
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, label="weight")
    bar.outline.set_visible(False)
    save(figure, path)
    return Picture(path.name, f"{title} on one test sample: the weights of each head.")


def _inches(tokens: int) -> float:
    """The length of one place of an axis."""
    return min(max(tokens * INCHES_A_TOKEN, SIDE[0]), SIDE[1]) / tokens


def _name_axis(
    axis: Axis, maps: int, tokens: Sequence[str], length: int, *, upright: bool = False
) -> None:
    """Name the places of each map on an axis: by tokens, or by numbers where there are many."""
    named = len(tokens) == length <= MOST_LABELS
    places = range(0, length, 1 if named else max(length // 5, 1))
    words = readable(tokens) if named else [str(place) for place in places]
    rotation = 90 if upright and named else 0
    starts = [number * (length + GAP) for number in range(maps)]
    axis.set_ticks([start + p for start in starts for p in places], words * maps, rotation=rotation)


def draw_kernels(
    folder: Path,
    profiles: Mapping[str, Tensor | Floats],
    widths: Mapping[str, Tensor | Floats],
) -> list[Picture]:
    """Draw what was learned apart from the content: positional kernels, and kernel widths.

    profiles: log of the positional factor by distance, (H, distances), by name. widths: (H,) by
    name. An empty mapping gets no picture.
    """
    pictures = []
    if profiles:
        arrays = {name: _array(profile) for name, profile in profiles.items()}
        some = _some(arrays, MOST_PROFILES)
        pictures.append(_draw_profiles(folder / "positional_kernels.png", some))
    if widths:
        arrays = {name: _array(width) for name, width in widths.items()}
        pictures.append(_draw_widths(folder / "kernel_widths.png", arrays))
    return pictures


def _draw_profiles(path: Path, profiles: Mapping[str, Floats]) -> Picture:
    columns = min(2, len(profiles))
    rows = -(-len(profiles) // columns)
    figure = new_figure(4.2 * columns + 0.6, 2.7 * rows + 0.8)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(profiles) :]:
        axes.set_axis_off()
    for place, (axes, (name, profile)) in enumerate(zip(grid, profiles.items(), strict=False)):
        ylabel = "log positional factor" if place % columns == 0 else ""
        style(axes, name, "distance to the key, in tokens", ylabel)
        for head, line in enumerate(profile[:MOST_HEADS]):
            axes.plot(line, **_of_head(head), linewidth=1.4, label=f"head {head + 1}")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4),
                  frameon=False, fontsize=9)  # fmt: skip
    save(figure, path)
    return Picture(path.name, "What the distance alone adds to the log of the kernel, by head.")


def _draw_widths(path: Path, widths: Mapping[str, Floats]) -> Picture:
    figure, axes = new_axes("Learned widths of the kernels", "", "width")
    places = np.arange(len(widths))
    heads = min(MOST_HEADS, *(len(width) for width in widths.values()))
    for head in range(heads):
        values = [width[head] for width in widths.values()]
        apart = 0.6 * ((head + 0.5) / heads - 0.5)
        marker = "o" if head < len(COLOURS) else "s"
        axes.plot(places + apart, values, marker, color=_of_head(head)["color"], markersize=5,
                  label=f"head {head + 1}")  # fmt: skip
    axes.axhline(1.0, color=INK, linewidth=1.0, linestyle="--", label="before training")
    axes.set_xticks(places, list(widths), rotation=90 if len(widths) > 6 else 0, fontsize=SMALL)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save(figure, path)
    caption = "The width w of each head's kernel exp(-|q - k|² / (w² √d)) or exp(q·k / (w² √d))."
    return Picture(path.name, caption)


def readable(tokens: Sequence[str]) -> list[str]:
    """Tokens for an axis: short, blanks visible, and no letter that the font does not have."""
    blanks = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})
    return [legible(token.translate(blanks), MOST_LETTERS) for token in tokens]


def _array(values: Tensor | Floats) -> Floats:
    array = values.detach().float().cpu().numpy() if isinstance(values, Tensor) else values
    return cast(Floats, array)


def _some(entries: Mapping[str, Floats], most: int) -> dict[str, Floats]:
    """The entries thinned evenly to the given number; the first and the last stay."""
    names = list(entries)
    chosen = np.linspace(0, len(names) - 1, min(len(names), most)).round().astype(int)
    return {names[place]: entries[names[place]] for place in chosen}


def _colours(weights: Floats) -> dict[str, Any]:
    """A scale from white for 0; for signed weights it has two hues and leaves outliers out."""
    finite = weights[np.isfinite(weights)]
    if not len(finite):
        return {"cmap": "Blues", "vmin": 0.0, "vmax": 1.0}
    if finite.min() >= 0:
        return {"cmap": "Blues", "vmin": 0.0, "vmax": float(finite.max()) or 1.0}
    most = float(np.quantile(np.abs(finite), 1 - OUTLIERS)) or 1.0
    return {"cmap": "RdBu", "vmin": -most, "vmax": most}


def _of_head(head: int) -> dict[str, Any]:
    """The colour and the dashes of a head's line."""
    dashes = "-" if head < len(COLOURS) else "--"
    return {"color": COLOURS[head % len(COLOURS)], "linestyle": dashes}
