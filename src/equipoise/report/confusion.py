"""Pictures of a classification's test: which classes it confuses, and where it is most wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from equipoise.report.page import Picture
from equipoise.report.plot import (
    COLOURS,
    FULL,
    HALF,
    INK,
    SMALL,
    legible,
    new_axes,
    new_figure,
    save,
    style,
    visible,
)

Integers = NDArray[np.int64]

MOST_NUMBERED = 20
"""Most classes for which the cells of the matrix show their counts."""
MOST_CELLS = 60
"""Most classes along a side of the matrix; for more, a list of confused pairs says more."""
CELLS = (0.14, 0.46, 1.0)
"""The side of a cell in inches: without a count, with one, and the largest."""
MATRIX = 3.2
"""The side in inches of a matrix of few classes."""
MOST_PAIRS = 25
MOST_LETTERS = 18
IN_A_ROW = 6
SIDE = FULL / IN_A_ROW
"""The side of one sample's image, in inches."""


class Confusion(NamedTuple):
    """Samples of one class that were taken for another; share: of all samples of that class."""

    true: int
    predicted: int
    samples: int
    share: float


def draw_confusion(
    folder: Path, true: Integers, predicted: Integers, names: Sequence[str]
) -> list[Picture]:
    """Draw which classes were taken for which; true, predicted: (N,) numbers of `names`.

    Up to 60 classes are drawn as a matrix, up to 20 with counts; beyond 20, the pairs of classes
    confused most often are drawn as well.
    """
    pictures = []
    if len(names) <= MOST_CELLS:
        counts = np.zeros((len(names), len(names)), np.int64)
        np.add.at(counts, (true, predicted), 1)
        pictures.append(_draw_matrix(folder / "confusion.png", counts, names))
    if len(names) > MOST_NUMBERED and (pairs := confusions(true, predicted)):
        pictures.append(_draw_pairs(folder / "confused_pairs.png", pairs, names))
    return pictures


def confusions(true: Integers, predicted: Integers) -> list[Confusion]:
    """The pairs of a true class and a wrongly predicted one, the most frequent first."""
    wrong = true != predicted
    if not wrong.any():
        return []
    pairs, counts = np.unique(np.stack([true[wrong], predicted[wrong]]), axis=1, return_counts=True)
    sizes = np.bincount(true)
    order = np.argsort(-counts, kind="stable")
    return [
        Confusion(int(a), int(b), int(count), int(count) / int(sizes[a]))
        for (a, b), count in zip(pairs.T[order], counts[order], strict=True)
    ]


def _draw_matrix(path: Path, counts: Integers, names: Sequence[str]) -> Picture:
    """The matrix with each row scaled to sum to 1, so that rare classes are visible too."""
    size, numbered = len(names), len(names) <= MOST_NUMBERED
    side = max(MATRIX, size * CELLS[1] if numbered else size * CELLS[0])
    side = min(side, size * CELLS[2])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labels = [legible(name, MOST_LETTERS) for name in names]
    margin = 0.4 + 0.08 * max(map(len, labels))
    figure = new_figure(min(max(side + margin + 1.3, HALF), FULL), side + margin + 0.7)
    axes = figure.add_subplot()
    style(axes, "Confusion matrix", "predicted class", "true class")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    places = range(size)
    upright = 0 if max(map(len, labels)) <= 2 else 90
    axes.set_xticks(places, labels, rotation=upright, fontsize=SMALL)
    axes.set_yticks(places, labels, fontsize=SMALL)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(counts) if numbered else ():
        axes.text(
            column, row, _compact(counts[row, column]), ha="center", va="center", fontsize=SMALL,
            color="white" if shares[row, column] > 0.55 else INK,
        )  # fmt: skip
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=25, label="share of the true class")
    bar.outline.set_visible(False)
    save(figure, path)
    cells = "The numbers are test samples; the" if numbered else "The"
    text = f"{cells} darker a cell, the more of a true class (row) was predicted as the column's."
    return Picture(path.name, text)


def _compact(count: int) -> str:
    """A count, shortened to fit its cell."""
    return str(count) if count < 100_000 else f"{count / 1000:.0f}k"


def _draw_pairs(path: Path, pairs: Sequence[Confusion], names: Sequence[str]) -> Picture:
    shown = pairs[:MOST_PAIRS][::-1]
    figure, axes = new_axes("Most confused classes", "share of the true class", "")
    figure.set_size_inches(0.7 * FULL, 1.1 + 0.24 * len(shown))
    bars = axes.barh(range(len(shown)), [pair.share for pair in shown], color=COLOURS[0])
    axes.bar_label(
        bars, [f" {_compact(pair.samples)}" for pair in shown], fontsize=SMALL, color=INK
    )
    labels = [
        " → ".join(legible(names[k], MOST_LETTERS) for k in (pair.true, pair.predicted))
        for pair in shown
    ]
    axes.set_yticks(range(len(shown)), labels, fontsize=SMALL)
    axes.set_xlim(0, min(1.0, 1.15 * max(pair.share for pair in shown)))
    axes.grid(visible=False, axis="y")
    save(figure, path)
    what = "all" if len(shown) == len(pairs) else f"the {len(shown)} most frequent"
    return Picture(
        path.name,
        f"True class → predicted one: {what} of the {len(pairs)} confusions among {len(names)} "
        "classes, with the number of test samples.",
    )


def draw_mistakes(
    folder: Path, mistakes: Mapping[str, Tensor], names: Sequence[str]
) -> list[Picture]:
    """Draw the samples whose wrong class was predicted most confidently; nothing without any.

    mistakes: image (N, C, H, W); true, predicted (N,) classes; of_true, of_predicted (N,) their
    probabilities.
    """
    count = len(mistakes["true"])
    if not count:
        return []
    columns = min(count, IN_A_ROW)
    rows = -(-count // columns)
    height, width = mistakes["image"].shape[-2:]
    figure = new_figure(max(SIDE * columns, HALF), rows * (SIDE * height / width + 0.5) + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for number, axes in enumerate(panels[:count]):
        axes.imshow(visible(mistakes["image"][number]).numpy(), interpolation="nearest")
        axes.set_title(_verdict(mistakes, number, names), fontsize=SMALL, color=INK)
    figure.suptitle("Most wrong samples", x=0.01, ha="left", fontsize=12, color=INK)
    save(figure, folder / "mistakes.png")
    return [
        Picture(
            "mistakes.png",
            "The test samples of which a wrong class was predicted most surely: the true and the "
            "predicted class, with the probability that the network gave to each.",
        )
    ]


def _verdict(mistakes: Mapping[str, Any], number: int, names: Sequence[str]) -> str:
    """Both classes of a sample and their probabilities, in two lines."""
    lines = []
    for word, kind in (("true", "true"), ("said", "predicted")):
        name = legible(names[int(mistakes[kind][number])], MOST_LETTERS - 2)
        lines.append(f"{word}: {name} ({float(mistakes[f'of_{kind}'][number]):.2f})")
    return "\n".join(lines)
