"""Equal-weight averages of the last part of a run, with a learning rate of its own."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from equipoise.callbacks.beside_training import preserved, training_batches, training_loss
from equipoise.callbacks.weight_averaging import STATISTICS, WeightAveraging


class StochasticWeightAveraging(WeightAveraging):
    """The mean of the weights after every `every`-th step past the fraction `start` of the run.

    lr: the learning rate from there on, None for that of the schedule. The rate approaches it from
    the schedule's along half a cosine over the fraction `annealing` of the run, and then stays. It
    applies to the optimiser's first parameter group; the others keep their ratios to it.

    The statistics of batch norms belong to the weights with which they were measured. Before an
    average is validated, or saved at the end of an epoch, they are therefore measured again, in a
    forward pass over the training set in the order of the first epoch and without dropout, as in
    evaluation. The pass leaves no trace in the run; a network without batch norms needs none. A
    checkpoint that an interruption saves within an epoch has the statistics of the last such pass,
    moved towards those of training.

    Source: Izmailov et al. 2018 (arXiv 1803.05407), Algorithm 1 with cycles of `every` steps.
    Unlike Lightning's callback of the same name, it validates and saves the average, counts
    optimiser steps rather than epochs, and replaces no schedule.
    """

    name = "mean"
    key = "swa"

    def __init__(
        self, start: float = 0.75, every: int = 1, lr: float | None = None, annealing: float = 0.05
    ) -> None:
        super().__init__(start, every)
        self.lr = lr
        self.annealing = annealing
        self.length = 0.0
        self.rates: list[float] = []
        self.norms: dict[str, _BatchNorm] = {}
        self.normalized_at = 0

    def weight(self, update: int) -> float:
        """1 / (n + 1)."""
        return 1 / (update + 1)

    def state_dict(self) -> dict[str, Any]:
        """The counts, the rates when averaging began, and the step of the latest statistics."""
        own = {"rates": self.rates, "normalized_at": self.normalized_at}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from there."""
        super().load_state_dict(state_dict)
        self.rates, self.normalized_at = state_dict["rates"], state_dict["normalized_at"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.rates, self.normalized_at = [], 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the step at which averaging begins, and the batch norms."""
        super().on_train_start(trainer, pl_module)
        total = trainer.estimated_stepping_batches
        self.length = self.annealing * total if self.annealing else 0.0
        parts = pl_module.named_modules()
        self.norms = {n: p for n, p in parts if isinstance(p, _BatchNorm) and p.track_running_stats}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the rate of the first step; `on_train_batch_end` sets that of each later one."""
        self._set_rates(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update the average, and set the rate of the next step in place of the schedule's."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._set_rates(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the module for the validation, with statistics of its own."""
        self._normalize(trainer, pl_module)
        super().on_validation_start(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the average's statistics before it is saved, if no validation has."""
        self._normalize(trainer, pl_module)

    def _set_rates(self, trainer: Trainer) -> None:
        step = trainer.global_step
        if self.lr is None or step < self.first:
            return
        groups = trainer.optimizers[0].param_groups
        if not self.rates:
            self.rates = [float(group["lr"]) for group in groups]
        first = float(groups[0].get("initial_lr", groups[0]["lr"]))
        progress = min(1.0, (step - self.first) / self.length) if self.length else 1.0
        before = (1 + math.cos(math.pi * progress)) / 2
        for group, rate in zip(groups, self.rates, strict=True):
            ratio = float(group.get("initial_lr", group["lr"])) / first if first else 1.0
            group["lr"] = self.lr * ratio + (rate - self.lr * ratio) * before

    def _normalize(self, trainer: Trainer, module: LightningModule) -> None:
        """Give the average the statistics of its own activations, unless it has them already."""
        if not self.norms or not self.average or self.training:
            return
        if self.normalized_at == self.updated_at:
            return
        self.normalized_at = self.updated_at
        with (
            torch.inference_mode(False),  # a validation may be under way; its tensors do not last
            torch.no_grad(),
            preserved(module, module.device),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # training itself will give these warnings
            self.put_in(module)
            try:
                self._see_training_set(trainer, module)
                for prefix, norm in self.norms.items():
                    for name in STATISTICS:
                        mean = trainer.strategy.reduce(getattr(norm, name))
                        self.average[f"{prefix}.{name}"].copy_(mean)
            finally:
                self.take_out(module)

    def _see_training_set(self, trainer: Trainer, module: LightningModule) -> None:
        """Set the statistics of the batch norms to their means over all batches."""
        module.eval()
        for norm in self.norms.values():
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None
        batches = training_batches(trainer, module)
        shown = tqdm(batches, "Batch norms of the average", delay=2.0, leave=False, disable=None)
        for number, batch in enumerate(shown):
            training_loss(trainer, module, batch, number)
