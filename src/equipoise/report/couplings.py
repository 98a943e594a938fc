"""Pictures of couplings: predicted against true, in a panel for each type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from equipoise.report.page import Picture
from equipoise.report.plot import COLOURS, INK, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4
SIDE = 2.7
"""Of a panel, in inches."""
MOST_DOTS = 4000
"""Of a panel: more of them would hide each other; they are spread evenly over the split."""


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
    axes.scatter(true[shown], predicted[shown], s=6, color=COLOURS[0], alpha=0.5, linewidths=0)
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=7)
