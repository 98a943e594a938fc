"""Skipping steps whose loss or gradient is not finite, and stopping if they persist."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from equipoise.callbacks.curve_rows import CurveSource, Row
from equipoise.errors import DIVERGED, RunFailed


class TrainingDiverged(RunFailed):
    """Too many steps in a row had a loss or a gradient that was not finite."""


class DivergenceGuard(CurveSource):
    """Skip an optimiser step whose loss or gradient is not finite; stop after `patience` in a row.

    A skipped step leaves weights, momenta and the running statistics of normalisations as they
    were; it is counted in `skipped_steps`, for metrics.json too, and in the column
    `train/skipped_steps`. The loss and the gradient are folded into one number, which costs one
    host-device synchronisation per step; with several processes, that number is summed over all, so
    all decide alike. With a gradient scaler (float16), the scaler handles overflowing gradients and
    only the loss counts.

    Raises TrainingDiverged when `patience` steps in a row had to be skipped.
    """

    def __init__(self, patience: int = 5) -> None:
        self.patience = patience
        self.skipped_steps = 0
        self.skipped_in_a_row = 0
        self.loss: Tensor | None = None
        self.running: list[Tensor] = []
        self.saved: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """The counts for a checkpoint."""
        return {"skipped_steps": self.skipped_steps, "skipped_in_a_row": self.skipped_in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counts of a checkpoint."""
        self.skipped_steps = state_dict["skipped_steps"]
        self.skipped_in_a_row = state_dict["skipped_in_a_row"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the running statistics that a bad batch would spoil."""
        super().on_train_start(trainer, pl_module)
        self.loss = None
        self.running = _running_statistics(pl_module)
        self.saved = [statistic.clone() for statistic in self.running]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Copy the running statistics before the first batch of a step."""
        if self.running and self.loss is None:
            torch._foreach_copy_(self.saved, self.running)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Keep the loss; the losses of accumulated batches are added up."""
        self.loss = loss.detach() if self.loss is None else self.loss + loss.detach()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Skip the step, by removing its gradients, if the loss or a gradient is not finite."""
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        gradients = [] if scaled else _gradients(optimizer)
        healthy = self._is_finite(trainer, gradients)
        if healthy:
            self.skipped_in_a_row = 0
        else:
            self._skip(trainer, gradients, optimizer)
        self.loss = None

    def observe(self, trainer: Trainer, outputs: Any) -> None:
        """Do nothing: steps are counted when they are skipped."""

    def row(self, trainer: Trainer) -> Row:
        """The number of steps skipped so far; no column before the first."""
        if not self.skipped_steps or trainer.global_step == self.row_step:
            return {}
        return {"train/skipped_steps": float(self.skipped_steps)}

    def close_epoch(self) -> None:
        """Do nothing: the count covers the whole run."""

    def summary(self) -> dict[str, Any]:
        """For metrics.json: the number of steps skipped, if there are any."""
        return {"skipped_steps": self.skipped_steps} if self.skipped_steps else {}

    def _is_finite(self, trainer: Trainer, gradients: list[Tensor]) -> bool:
        """Whether neither the loss nor a gradient has an entry that is not finite."""
        number = sum(_not_finite([_local(gradient) for gradient in gradients]))
        if self.loss is not None:
            number = number + 0.0 * self.loss  # zero if the loss is finite, else NaN
        if not isinstance(number, Tensor):
            return True
        if trainer.world_size > 1:
            number = trainer.strategy.reduce(number, reduce_op="sum")
        return number.item() == 0.0

    def _skip(self, trainer: Trainer, gradients: list[Tensor], optimizer: Optimizer) -> None:
        self.skipped_steps += 1
        self.skipped_in_a_row += 1
        if self.running:
            torch._foreach_copy_(self.running, self.saved)
        if self.skipped_in_a_row >= self.patience:
            raise TrainingDiverged(self._message(trainer.global_step, gradients))
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _message(self, step: int, gradients: list[Tensor]) -> str:
        finite_loss = self.loss is None or math.isfinite(self.loss)
        culprit = "gradient" if finite_loss else "loss"
        return (
            f"{DIVERGED}: the {culprit} was not finite at step {step}, the last of "
            f"{self.skipped_in_a_row} such steps in a row; try a lower learning rate, gradient "
            "clipping (trainer.gradient_clip_val=1.0), or a damped solver."
        )


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    return [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]


def _not_finite(gradients: list[Tensor]) -> list[Tensor]:
    """A number for each device and dtype: 0 where all entries are finite, else 1.

    This is the operation of torch's gradient scaler with a scale of 1, which changes no value: one
    kernel for all tensors of a device and dtype, at a fifth of the cost of a norm for each.
    """
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for gradient in gradients:
        kinds.setdefault((gradient.device, gradient.dtype), []).append(gradient)
    flags = []
    for (device, _), alike in kinds.items():
        # always float32: trainer.precision=64-true changes the default dtype
        flag = torch.zeros((), dtype=torch.float32, device=device)
        scale = torch.ones_like(flag)
        torch._amp_foreach_non_finite_check_and_unscale_(alike, flag, scale)
        flags.append(flag)
    return flags


def _local(gradient: Tensor) -> Tensor:
    """This process's part of a gradient that is sharded over several."""
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


def _running_statistics(module: nn.Module) -> list[Tensor]:
    return [
        buffer
        for part in module.modules()
        if getattr(part, "running_mean", None) is not None
        for buffer in part.buffers(recurse=False)
    ]
