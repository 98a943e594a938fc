"""A small network of every output, and a quiet trainer for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from equipoise.equilibrium import Anderson, Equilibrium, JacobianFree

CLASSES, MASK_CLASSES, STRIDE = 3, 4, 2


class TwoHeads(nn.Module):
    """z* = tanh(W * z* + U * x) on a grid of half the resolution, and a head for each output."""

    def __init__(self, outputs: Iterable[str]) -> None:
        super().__init__()
        self.inject = nn.Conv2d(1, 6, 3, stride=STRIDE, padding=1)
        self.recur = nn.Conv2d(6, 6, 1)
        nn.init.orthogonal_(self.recur.weight, gain=0.5)
        self.equilibrium = Equilibrium(Anderson(max_steps=20, tol=1e-5), JacobianFree())
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES))
        heads = {"logits": pooled, "mask_logits": nn.Conv2d(6, MASK_CLASSES, 1)}
        self.heads = nn.ModuleDict({name: heads[name] for name in outputs})

    def state(self, image: Tensor) -> Tensor:
        u = self.inject(image)
        z0 = torch.zeros_like(u)
        z: Tensor = self.equilibrium(lambda z, u: torch.tanh(self.recur(z) + u), z0, u)
        return z

    def readout(self, z: Tensor, output: str | None = None) -> Tensor:
        return self.heads[output or next(iter(self.heads))](z)

    def forward(self, image: Tensor, output: str | None = None) -> Tensor:
        return self.readout(self.state(image), output)


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return pl.Trainer(
        accelerator="cpu", default_root_dir=folder, enable_checkpointing=False, **quiet, **options
    )


def loader(batches: list[dict[str, Tensor]]) -> DataLoader[dict[str, Tensor]]:
    return DataLoader(batches, batch_size=None)
