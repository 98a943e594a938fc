"""Pictures of a bi-level optimisation: the outer loss against time, and the hyper-parameters."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.report.page import Picture
from equipoise.report.plot import COLOURS, logarithmic, new_axes, save
from equipoise.report.whole import whole

Numbers = NDArray[np.float64]
MOST_BARS = 200


def draw_outer_steps(history: Mapping[str, Sequence[float]], folder: Path) -> list[Picture]:
    """Outer loss above its lowest value, against the seconds that the outer steps have taken.

    The lowest value itself cannot be shown on the logarithmic axis.
    """
    losses = np.asarray(history["loss"])
    figure, axes = new_axes("Outer loss above the lowest of this run", "seconds", "suboptimality")
    higher = losses > losses.min()
    seconds, above = np.asarray(history["seconds"])[higher], (losses - losses.min())[higher]
    axes.plot(seconds, above, "o-", color=COLOURS[0], markersize=3)
    if higher.any():
        logarithmic(axes.yaxis)
    save(figure, folder / "outer_loss.png")
    text = "Loss on the validation samples after each outer step, above the lowest of this run."
    return [Picture("outer_loss.png", text)]


def draw_hyperparameters(named: Mapping[str, Numbers], folder: Path) -> list[Picture]:
    """The values in the order of the coefficients, and hyperparameters.csv with all of them."""
    with whole(folder / "hyperparameters.csv") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "number", "value"])
        for name, values in named.items():
            writer.writerows([name, i, f"{value:.17g}"] for i, value in enumerate(values))
    several = {name: values for name, values in named.items() if len(values) > 1}
    pictures = []
    for name, values in several.items():
        title = f"{name}, sorted" if len(values) > MOST_BARS else name
        shown = np.sort(values) if len(values) > MOST_BARS else values
        figure, axes = new_axes(f"Hyper-parameters: {title}", "number", name)
        axes.bar(np.arange(len(shown)), shown, width=1.0, color=COLOURS[0])
        save(figure, folder / f"{name}.png")
        pictures.append(Picture(f"{name}.png", f"The {len(values)} values of {name} found."))
    return pictures
