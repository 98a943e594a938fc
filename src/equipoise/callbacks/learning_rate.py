"""The learning rate as a column of the curve."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from equipoise.callbacks.curve_source import CurveSource, Row


class LearningRate(CurveSource):
    """Write the rate of each parameter group as `lr-<optimizer>` into the rows of the curve.

    Lightning's LearningRateMonitor writes rows of its own, under another step number.
    """

    def __init__(self) -> None:
        self.rates: Row = {}

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Note the rates that the coming step uses; after it the schedule has moved on."""
        for optimizer in trainer.optimizers:
            name = f"lr-{type(optimizer).__name__}"
            groups = optimizer.param_groups
            for number, group in enumerate(groups, start=1):
                self.rates[name if len(groups) == 1 else f"{name}/{number}"] = group["lr"]

    def observe(self, trainer: Trainer, outputs: Any) -> None:
        """Nothing more: the rates were noted when the batch started."""

    def row(self, trainer: Trainer) -> Row:
        """The rates of the latest step; several groups of one optimiser are numbered."""
        rates: Row = {name: float(rate) for name, rate in self.rates.items()}
        self.rates = {}
        return rates

    def summed_up(self) -> dict[str, Any]:
        """Return the rates of a step whose row is not written yet."""
        return dict(self.rates)

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Go on with the rates of a checkpoint."""
        self.rates = state

    def close_epoch(self) -> None:
        """Nothing is kept."""
