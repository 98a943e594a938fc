"""The random state that a checkpoint must carry besides weights and optimiser."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from equipoise.callbacks.observers import Observer


class RandomState(Observer):
    """Saves torch's random state, and restores it when training resumes.

    Data order and augmentation are functions of (seed, epoch, sample); what is left to the global
    generator is what the model draws, so a resumed run on one device repeats the same bits. With
    several processes each gets a stream of its own from the saved one.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The CPU generator's state, and that of every CUDA device."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts; building the loops may still draw numbers."""
        self.loaded = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the generators back where the checkpoint left them."""
        if self.loaded is None:
            return
        torch.set_rng_state(self.loaded["cpu"].cpu())
        if trainer.global_rank > 0:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)
        elif len(self.loaded["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([state.cpu() for state in self.loaded["cuda"]])
        self.loaded = None
