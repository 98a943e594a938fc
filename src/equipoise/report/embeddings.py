"""Pictures of learned features: their cross-correlation, and where classes lie among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from equipoise.report.page import Picture
from equipoise.report.plot import COLOURS, INK, new_axes, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]

MOST_PIXELS = 256
"""Most blocks along a side of the matrix as drawn."""
BARS = 60
MOST_POINTS = 1000
MOST_NAMES = 21
"""Most classes in the legend; of more, it names the most frequent."""
LEAST_NEIGHBOURHOOD = 5
"""Fewest points for t-SNE; fewer have no neighbourhoods to preserve."""
# Okabe and Ito's, without yellow and black: distinguishable with any kind of colour vision
HUES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
OTHERS = "#a0aec0"


def draw_correlation(
    correlation: Tensor, path: Path, title: str = "Cross-correlation of the two views"
) -> Picture:
    """Draw a cross-correlation (d, d) from -1 to 1, beside histograms of its elements.

    A large matrix is averaged over square blocks; a block on the diagonal shows the mean of its
    diagonal elements alone, since the diagonal would otherwise vanish.
    """
    matrix = correlation.detach().float().cpu().numpy()
    figure = new_figure(9.6, 4.4)
    left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
    _draw_matrix(left, matrix)
    bar = figure.colorbar(left.images[0], ax=left, shrink=0.85, aspect=30, label="correlation")
    bar.outline.set_visible(False)
    style(right, "Elements", "correlation", "share of the elements")
    _draw_shares(right, matrix)
    right.set(xlim=(-1.05, 1.05), ylim=(0, None))
    figure.legend(
        *right.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )
    figure.suptitle(title, x=0.02, ha="left", fontsize=13, color=INK)
    save(figure, path)
    return Picture(
        path.name,
        f"Correlations of {len(matrix)} features of one view with those of the other: the diagonal "
        "is to be 1, and the closer it is, the less the features depend on the augmentation.",
    )


def _draw_matrix(axes: Axes, matrix: Floats) -> None:
    size = len(matrix)
    pixels = in_blocks(matrix, MOST_PIXELS)
    axes.imshow(pixels, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest",
                extent=(0, size, size, 0))  # fmt: skip
    off = (matrix.sum(dtype=np.float64) - np.trace(matrix)) / max(1, size * (size - 1))
    means = f"mean diagonal {np.diag(matrix).mean():.3f}, off-diagonal {off:.3f}"
    axes.set_title(means.replace("-0.000", "0.000"), loc="left", fontsize=12, color=INK, pad=18)
    axes.set_xlabel("feature of the second view", color=INK)
    axes.set_ylabel("feature of the first view", color=INK)
    axes.tick_params(colors=INK)
    axes.spines[:].set_visible(False)


def in_blocks(matrix: Floats, most: int) -> Floats:
    """The means of a square matrix in at most `most` by `most` blocks.

    A block on the diagonal becomes the mean of its diagonal elements.
    """
    size = -(-len(matrix) // most)
    starts = np.arange(0, len(matrix), size)
    lengths = np.diff([*starts, len(matrix)])
    sums = np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)
    means: Floats = sums / (lengths[:, None] * lengths)
    np.fill_diagonal(means, np.add.reduceat(np.diag(matrix), starts) / lengths)
    return means


def _draw_shares(axes: Axes, matrix: Floats) -> None:
    """Histograms of the diagonal and of the other elements; the bars of each sum to 1."""
    edges = np.linspace(-1, 1, BARS + 1)
    every, diagonal = (
        np.histogram(values[np.isfinite(values)].clip(-1, 1), edges)[0]
        for values in (matrix, np.diag(matrix))
    )
    of_parts = {"diagonal": diagonal, "off-diagonal": every - diagonal}
    for (name, counts), colour in zip(of_parts.items(), COLOURS, strict=False):
        shares = counts / max(1, counts.sum())
        axes.stairs(shares, edges, fill=True, color=colour, alpha=0.75, label=name)


def draw_projection(
    features: Tensor, labels: Tensor | None, class_names: Sequence[str], path: Path
) -> Picture:
    """Draw features (N, h) in two dimensions, each class of labels (N,) with its own mark.

    At most 1,000 rows, evenly chosen, are projected by t-SNE with a fixed seed; fewer than five by
    their principal components. Rows that are not finite are left out. A label of -1, or None for
    all labels, means unlabelled; classes beyond the names are numbered.
    """
    array = features.detach().double().cpu().numpy()
    kinds = np.full(len(array), -1) if labels is None else labels.detach().cpu().numpy()
    finite = np.flatnonzero(np.isfinite(array).all(axis=1))
    places = np.linspace(0, len(finite) - 1, min(len(finite), MOST_POINTS)).round().astype(int)
    rows = finite[places]
    points = projected(array[rows])
    title = "Features in two dimensions" if points.any() else "All features are equal"
    figure, axes = new_axes(title, "first dimension", "second dimension")
    figure.set_size_inches(7.4, 5.2)
    for kind, members in _by_class(kinds[rows], points).items():
        axes.plot(*members.T, linestyle="", markersize=4.5, markeredgewidth=0, alpha=0.8,
                  **_mark(kind, class_names))  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.margins(0.04)
    _add_legend(axes, kinds[rows])
    save(figure, path)
    return Picture(
        path.name,
        f"Features of {len(rows)} test samples, projected by t-SNE: neighbours remain neighbours, "
        "while distances between groups mean little.",
    )


def projected(features: Floats) -> Floats:
    """Features (N, h) in two dimensions (N, 2); all zeros where they do not vary."""
    centred = features - features.mean(axis=0) if len(features) else features
    scale = np.abs(centred).max(initial=0.0)
    if scale <= 1e-7 * np.abs(features).max(initial=0.0):
        return np.zeros((len(features), 2))
    if len(features) < LEAST_NEIGHBOURHOOD:
        left, lengths, _ = np.linalg.svd(centred / scale, full_matrices=False)
        components = (left * lengths)[:, :2]
        flat: Floats = np.pad(components, ((0, 0), (0, 2 - components.shape[1])))
        return flat
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="random", random_state=0).fit_transform(
        centred / scale
    )
    return np.asarray(points, np.float64)


def _by_class(kinds: Integers, points: Floats) -> dict[int, Floats]:
    """The points of each class; unlabelled ones first, so that they lie below."""
    return {int(kind): points[kinds == kind] for kind in np.unique(kinds)}


def _mark(kind: int, names: Sequence[str]) -> dict[str, Any]:
    """Colour, shape and name of a class: no two classes share both colour and shape."""
    if kind < 0:
        return {"color": OTHERS, "marker": "o", "label": "without a label"}
    name = str(names[kind]) if kind < len(names) else str(kind)
    hue, shape = HUES[kind % len(HUES)], MARKERS[kind % len(MARKERS)]
    return {"color": hue, "marker": shape, "label": name.replace("$", r"\$")}


def _add_legend(axes: Axes, kinds: Integers) -> None:
    """Name the classes, or the most frequent of many; no legend where none is labelled."""
    present, counts = np.unique(kinds, return_counts=True)
    handles, names = axes.get_legend_handles_labels()
    if len(present) < 2 and not (present >= 0).any():
        return
    frequent = sorted(np.argsort(-counts, kind="stable")[:MOST_NAMES])
    axes.legend(
        [handles[k] for k in frequent], [names[k] for k in frequent], loc="center left",
        bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9, markerscale=1.4,
    )  # fmt: skip
