"""The learning-rate range test: the loss at rising rates, before a run and without affecting it.

Lightning's `LearningRateFinder` saves the run, trains in it and resumes it, which does not restore
all loop counters, loaders and random numbers. Here the steps are taken outside the run.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice, repeat
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from equipoise.callbacks.beside_training import (
    preserved,
    refuse_manual_and_sharded,
    training_batches,
    training_loss,
)
from equipoise.callbacks.lightning_overhead import Observer, find_callback
from equipoise.callbacks.run_report import RunReport
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.errors import UserError
from equipoise.report.learning_rates import RangeTest

SMOOTHING = 0.9
"""Weight of the earlier losses in the curve, so that a fall stands out from noisy steps."""
LEAST_STEPS = 12
"""Fewest steps that show a slope: the first ten and the last are left out."""


class LearningRateFinder(Observer):
    """Train a few steps at rates rising geometrically from `min_lr` to `max_lr`, and undo them.

    The picture in the report shows the smoothed loss. The rate of its steepest fall is printed and
    written to metrics.json as a suggestion, but not used: the run that follows gives the same bits
    as without the test. The test ends early if the smoothed loss exceeds `early_stop_threshold`
    times its least value. A resumed run is not tested again. Parameter groups keep their rate's
    ratio to the first group's. With several processes, gradients and losses are averaged over them.

    Raises UserError for manual optimisation, for sharded parameters, for rates that do not rise,
    and for trainer.precision=16-mixed, whose loss scale belongs to the run.

    Source: Smith 2017 (arXiv 1506.01186), section 3.3; the smoothing and the factor as in fastai.
    """

    def __init__(
        self,
        min_lr: float = 1e-6,
        max_lr: float = 1.0,
        num_training_steps: int = 100,
        early_stop_threshold: float | None = 4.0,
    ) -> None:
        if not 0 < min_lr < max_lr:
            raise UserError(
                "callbacks.learning_rate_finder needs min_lr below max_lr, "
                f"not {min_lr} and {max_lr}"
            )
        if num_training_steps < LEAST_STEPS:
            raise UserError(
                f"callbacks.learning_rate_finder.num_training_steps={num_training_steps} is too "
                f"few to show a slope: set at least {LEAST_STEPS}"
            )
        self.rates = [
            min_lr * (max_lr / min_lr) ** (step / (num_training_steps - 1))
            for step in range(num_training_steps)
        ]
        self.early_stop_threshold = early_stop_threshold
        self.found: RangeTest | None = None

    def state_dict(self) -> dict[str, Any]:
        """The curve, for the report of a run that is resumed."""
        return {} if self.found is None else self.found._asdict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the curve of a checkpoint."""
        self.found = RangeTest(**state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test the rates before the first step, and report the result."""
        if self.found is None and trainer.global_step == 0:
            self._refuse(trainer, pl_module)
            losses = list(self._losses(trainer, pl_module))
            self.found = RangeTest(self.rates[: len(losses)], losses)
            if trainer.is_global_zero:
                print(self.found.sentence(rate_of(trainer.optimizers[0])), flush=True)
        report = find_callback(trainer, RunReport)
        if self.found is not None and report is not None and trainer.is_global_zero:
            report.add(self.found.draw(rate_of(trainer.optimizers[0]), report.dirpath))

    def summary(self) -> dict[str, Any]:
        """The suggestion, for the details of metrics.json."""
        return {} if self.found is None else {"suggested_learning_rate": self.found.suggestion()}

    def _refuse(self, trainer: Trainer, module: LightningModule) -> None:
        refuse_manual_and_sharded(trainer, module, "learning_rate_finder")
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise UserError(
                "callbacks=learning_rate_finder cannot work with trainer.precision=16-mixed: "
                "choose bf16-mixed, or leave it out"
            )

    def _losses(self, trainer: Trainer, module: LightningModule) -> Iterator[float]:
        """The smoothed loss at each rate, until it is not finite or too high."""
        optimizer = trainer.optimizers[0]
        smoothed, least = 0.0, math.inf
        with _undone(module, optimizer), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # training itself will warn about its solves
            batches = _endless(trainer, module)
            shown = tqdm(self.rates, "Learning rates", delay=2.0, leave=False, disable=None)
            for number, rate in enumerate(shown):
                taken = list(islice(batches, trainer.accumulate_grad_batches))
                loss = _step_at(rate, trainer, module, optimizer, taken)
                smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * loss
                corrected = smoothed / (1 - SMOOTHING ** (number + 1))
                least = min(least, corrected)
                if not math.isfinite(corrected) or self._too_high(corrected, least):
                    return
                yield corrected

    def _too_high(self, loss: float, least: float) -> bool:
        threshold = self.early_stop_threshold
        return threshold is not None and least > 0 and loss > threshold * least


def rate_of(optimizer: Optimizer) -> float:
    """The base rate of the run's first parameter group, which its schedule scales."""
    group = optimizer.param_groups[0]
    return float(group.get("initial_lr", group["lr"]))


@contextmanager
def _undone(module: LightningModule, optimizer: Optimizer) -> Iterator[None]:
    """Restore weights, gradients, optimiser, estimators, buffers and random numbers."""
    parameters = list(module.parameters())
    kept = [(p.detach().clone(), p.grad) for p in parameters]
    state = copy.deepcopy(optimizer.state_dict())
    with preserved(module, module.device):
        for layer in equilibrium_layers(module).values():
            layer.gradient = copy.deepcopy(layer.gradient)  # the run's own must not learn here
        try:
            yield
        finally:
            optimizer.load_state_dict(state)
            with torch.no_grad():
                for parameter, (value, gradient) in zip(parameters, kept, strict=True):
                    parameter.copy_(value)
                    parameter.grad = gradient


def _endless(trainer: Trainer, module: LightningModule) -> Iterator[Any]:
    """The batches of the first epoch, over and over."""
    return chain.from_iterable(training_batches(trainer, module) for _ in repeat(None))


def _step_at(
    rate: float,
    trainer: Trainer,
    module: LightningModule,
    optimizer: Optimizer,
    batches: Sequence[Any],
) -> float:
    """One optimiser step at a rate; returns the mean loss of its batches."""
    groups = optimizer.param_groups
    first = rate_of(optimizer)
    for group in groups:
        ratio = float(group.get("initial_lr", group["lr"])) / first if first else 1.0
        group["lr"] = rate * ratio
    parameters = [p for group in groups for p in group["params"] if p.requires_grad]
    optimizer.zero_grad()
    total = 0.0
    for number, batch in enumerate(batches):
        loss = training_loss(trainer, module, batch, number) / len(batches)
        # not by `backward`, which would trigger the hooks of a distributed run
        _add_gradients(parameters, torch.autograd.grad(loss, parameters, allow_unused=True))
        total += float(trainer.strategy.reduce(loss.detach()))
    if trainer.world_size > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = trainer.strategy.reduce(parameter.grad)
    module.configure_gradient_clipping(
        optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
    )
    optimizer.step()
    return total


def _add_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            added = gradient if parameter.grad is None else parameter.grad + gradient
            parameter.grad = added
