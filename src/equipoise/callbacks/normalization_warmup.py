"""Batch-norm running statistics that are usable from the first steps on."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from equipoise.callbacks.lightning_overhead import Observer


class NormalizationWarmup(Observer):
    """Let the running statistics of batch norms forget their initial values.

    With momentum m, the initial value of a statistic, 0 or 1, still has the weight (1 - m)^n after
    n updates, and evaluation after a short run is at chance. So the weight of update n, counted
    from 0, is

        max(m, k / (n + k)),   k = horizon.

    This gives the mean of all batches so far for k = 1, and more weight to recent ones for a larger
    k, because early weights move fast. From update k (1/m - 1) on, the weight is m, as configured.
    n is the layer's own `num_batches_tracked`, which checkpoints hold, so a resumed run repeats the
    same bits. Layers loaded with statistics but without a count, and layers with momentum None (the
    mean of all batches) or 0, are left as they are.

    Source: polynomial-decay averaging, Shamir and Zhang 2013 (arXiv 1212.1824), eq. 7.
    """

    def __init__(self, horizon: float = 8.0) -> None:
        if not (math.isfinite(horizon) and horizon > 0):
            raise ValueError(f"horizon must be a positive number, not {horizon}")
        self.horizon = horizon
        self.momenta: dict[_BatchNorm, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the layers; those loaded with statistics count as warmed up."""
        self.momenta = {layer: layer.momentum or 0.0 for layer in _averaging(pl_module)}
        for layer, momentum in self.momenta.items():
            if _brought_along(layer):
                _counted(layer).fill_(self._length(momentum))

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Set the weight of the coming update; layers that are warmed up are dropped."""
        if not self.momenta:
            return
        layers = list(self.momenta)
        counts = torch.stack([_counted(layer) for layer in layers]).tolist()
        for layer, count in zip(layers, counts, strict=True):
            layer.momentum = max(self.momenta[layer], self.horizon / (count + self.horizon))
            if layer.momentum == self.momenta[layer]:
                del self.momenta[layer]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the layers' own momentum."""
        self._restore()

    def on_exception(self, trainer: Trainer, *_: Any) -> None:
        """Restore the layers' own momentum."""
        self._restore()

    def _length(self, momentum: float) -> int:
        return math.ceil(self.horizon * (1 / momentum - 1))

    def _restore(self) -> None:
        for layer, momentum in self.momenta.items():
            layer.momentum = momentum
        self.momenta = {}


def _averaging(module: nn.Module) -> list[_BatchNorm]:
    """The batch norms that update their running statistics with a momentum."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    return [norm for norm in norms if norm.running_mean is not None and norm.momentum]


def _brought_along(layer: _BatchNorm) -> bool:
    """Whether the statistics were loaded without the count of their batches."""
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None
    assert variance is not None
    return not _counted(layer) and bool((mean != 0).any() or (variance != 1).any())


def _counted(layer: _BatchNorm) -> torch.Tensor:
    count = layer.num_batches_tracked
    assert count is not None
    return count
