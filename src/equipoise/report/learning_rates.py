"""What a learning-rate range test has found: the curve, its steepest fall, and the picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from equipoise.report.page import Picture
from equipoise.report.plot import COLOURS, logarithmic, new_axes, save

FIRST, LAST = 10, 1
"""Points at the ends of the curve that the suggestion leaves out: they are mostly noise."""
ROUNDING = 1e-9
NAME = "learning_rate_finder"


class RangeTest(NamedTuple):
    """The rising rates of the steps, and the smoothed loss at each."""

    rates: list[float]
    losses: list[float]

    def suggestion(self) -> float | None:
        """The rate where the loss falls fastest over log rate; None where it never falls.

        The first ten points and the last are left out.
        """
        rates, losses = self.rates[FIRST:-LAST], self.losses[FIRST:-LAST]
        if len(losses) < 2:
            return None
        slopes = np.gradient(np.asarray(losses), np.log(np.asarray(rates)))
        steepest = int(slopes.argmin())
        return rates[steepest] if slopes[steepest] < -ROUNDING * max(map(abs, losses)) else None

    def sentence(self, rate: float) -> str:
        """What was found, beside the highest rate of the run."""
        found = self.suggestion()
        if found is None:
            what = "the loss fell at no rate, so it suggests none"
        else:
            what = f"the loss falls most at {found:.1e}: try optimizer.lr={found:.1e}"
        return f"learning-rate finder: {what} (this run has {rate:.1e})"

    def draw(self, rate: float, folder: Path) -> Picture:
        """Write the picture: the loss against the rate, the suggestion, and the rate of the run."""
        figure, axes = new_axes("Learning-rate finder", "learning rate", "smoothed loss")
        axes.plot(self.rates, self.losses, color=COLOURS[0], linewidth=1.8, label="loss")
        logarithmic(axes.xaxis)
        found = self.suggestion()
        if found is not None:
            loss = self.losses[self.rates.index(found)]
            axes.plot([found], [loss], "o", color=COLOURS[1], label=f"steepest fall {found:.1e}")
        if rate > 0 and math.isfinite(rate):
            axes.axvline(rate, color=COLOURS[2], linestyle="--", label=f"this run {rate:.1e}")
        axes.legend(loc="best", edgecolor="none", framealpha=0.85)
        save(figure, folder / f"{NAME}.png")
        caption = "Smoothed training loss at rising learning rates, before the run."
        return Picture(f"{NAME}.png", caption)
