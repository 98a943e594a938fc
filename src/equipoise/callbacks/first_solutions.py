"""The equilibria of the first test batch, to compare them with those of another test."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equipoise.callbacks.observers import Observer
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.equilibrium.state import Layout, State


class FirstSolutions(Observer):
    """Keep what each equilibrium layer returns on the first batch of a test: name to (B, D).

    Of a layer that a batch uses several times the first solution counts.
    """

    def __init__(self) -> None:
        self.states: dict[str, Tensor] = {}
        self.hooks: list[RemovableHandle] = []

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Listen to the layers."""
        if batch_idx == 0 and dataloader_idx == 0:
            layers = equilibrium_layers(pl_module).items()
            self.hooks = [
                layer.register_forward_hook(partial(self._keep, n)) for n, layer in layers
            ]

    def on_test_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Listen no more."""
        self._close()

    def on_exception(self, trainer: Trainer, *_: Any) -> None:
        """Listen no more where the test was cut short."""
        self._close()

    def _keep(self, name: str, layer: nn.Module, arguments: Any, state: State) -> None:
        self.states.setdefault(name, Layout.of(state).flatten(state).detach())

    def _close(self) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks = []


def agreement(found: FirstSolutions, other: FirstSolutions) -> tuple[float, float]:
    """Mean cosine, and median |a - b| / |b|, over the samples and layers of two tests."""
    pairs = [(state, other.states[name]) for name, state in found.states.items()]
    cosines = torch.cat([torch.cosine_similarity(a, b, dim=1) for a, b in pairs])
    distances = torch.cat([(a - b).norm(dim=1) / b.norm(dim=1) for a, b in pairs])
    return cosines.mean().item(), distances.median().item()
