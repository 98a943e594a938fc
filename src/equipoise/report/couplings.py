"""Couplings by type: the competition's score for each type, and a picture of them.

A score is ln MAE in float64 over all couplings of a type, on whichever process they were predicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from equipoise.report.page import Picture
from equipoise.report.plot import COLOURS, INK, MOST_VECTORS, SMALL, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLOOR = 1e-9
"""The floor of a type's MAE, in Hz: a perfect prediction scores -20.7232."""

YARDSTICKS = {
    "MLE-bench bronze": -1.901,
    "MLE-bench silver": -2.031,
    "MLE-bench gold": -2.875,
    "first place, single model, from": -3.06,
    "first place, single model, to": -3.07,
    "first place, median of its models": -3.22,
    "first place, its ensemble on the leaderboard": -3.240,
    "all teams, one weight each (E; fitted on half of the test set)": -3.414,
    "all teams, a weight for each type (E*; fitted on half of the test set)": -3.453,
}
"""Published scores on the couplings of the competition, the mean over types of ln MAE.

Sources: the write-up and leaderboard of Kaggle's "Predicting Molecular Properties" (2019);
Bratholm et al. 2020 (arXiv 2008.05994), whose E and E* are of the other half of the test set;
MLE-bench (arXiv 2410.07095), whose marks are of that benchmark's own split.
"""

COLUMNS = 4
SIDE = 2.6
"""The size of a panel, in inches."""
MOST_DOTS = 4000
"""Most points in a panel, spread evenly over the split; more would hide each other."""


@dataclass(frozen=True)
class TypeScore:
    """Couplings of one type: how many, their mean absolute error in Hz, and ln of it, floored."""

    count: int
    mae: float
    log_mae: float


def type_scores(
    predicted: NDArray[Any],
    true: NDArray[Any],
    kind: NDArray[np.integer[Any]],
    types: Sequence[str],
) -> dict[str, TypeScore]:
    """The score of each type that occurs, in the order of `types`, their names.

    predicted, true: (N,) in Hz; kind: (N,), from 1, numbers of `types`, and 0 where nothing is to
    be predicted.
    """
    errors = np.abs(np.asarray(predicted, np.float64) - np.asarray(true, np.float64))
    return {
        name: type_score(int(present.sum()), float(errors[present].mean()))
        for number, name in enumerate(types, start=1)
        if (present := np.asarray(kind) == number).any()
    }


def type_score(count: int, mae: float) -> TypeScore:
    """The score of a type's mean absolute error in Hz."""
    return TypeScore(count, mae, math.log(max(mae, FLOOR)))


def mean_log_mae(scores: Mapping[str, TypeScore]) -> float:
    """The mean over the types that occur, however many couplings each has; nan without any."""
    return float(np.mean([score.log_mae for score in scores.values()])) if scores else math.nan


def draw_couplings(
    folder: Path,
    predicted: NDArray[Any],
    true: NDArray[Any],
    kind: NDArray[Any],
    types: Sequence[str],
) -> list[Picture]:
    """Draw predicted against true couplings (N,) in Hz; kind (N,): from 1, numbers of `types`."""
    present = [number for number in range(1, len(types) + 1) if (kind == number).any()]
    if not present:
        return []
    columns = min(COLUMNS, len(present))
    rows = math.ceil(len(present) / columns)
    figure = new_figure(SIDE * columns + 0.4, SIDE * rows + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for number, axes in zip(present, panels, strict=False):
        own = kind == number
        _draw_type(axes, types[number - 1], predicted[own], true[own])
    for axes in panels[len(present) :]:
        axes.set_axis_off()
    figure.supxlabel("true coupling (Hz)", color=INK, fontsize=10)
    figure.supylabel("predicted coupling (Hz)", color=INK, fontsize=10)
    save(figure, folder / "couplings.png")
    caption = (
        "Predicted against true couplings of the test molecules by type; on the line they are "
        "equal. MAE is the mean absolute error, and its logarithm, averaged over the types, is "
        "mean_log_mae. All of them are in couplings.csv beside this picture."
    )
    return [Picture("couplings.png", caption)]


def _draw_type(axes: Axes, name: str, predicted: NDArray[Any], true: NDArray[Any]) -> None:
    shown = np.unique(np.linspace(0, len(true) - 1, min(len(true), MOST_DOTS)).astype(int))
    numbers = predicted[np.isfinite(predicted)]  # a network that diverged predicts others, too
    both = np.concatenate([true, numbers])
    lowest, highest = float(both.min()), float(both.max())
    room = max((highest - lowest) * 0.05, 1e-3)
    ends = (lowest - room, highest + room)
    error = float(np.abs(predicted - true).mean())
    style(axes, "", "", "")
    axes.set_title(f"{name}: MAE {error:.3g} Hz", loc="left", fontsize=9, color=INK, pad=4)
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    axes.scatter(
        true[shown], predicted[shown], s=6, color=COLOURS[0], alpha=0.5, linewidths=0,
        rasterized=len(shown) > MOST_VECTORS,
    )  # fmt: skip
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=SMALL)
