"""Batch normalisation by the statistics of all processes, where `trainer.sync_batchnorm` asks."""

from __future__ import annotations

from typing import cast

from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import nn

from equipoise.nn.over_processes import BatchNormOverProcesses, NotedSyncBatchNorm

OURS = (BatchNormOverProcesses, NotedSyncBatchNorm)


class SynchronisedNorms(TorchSyncBatchNorm):
    """Lightning's exchange of the batch norms for ones over the processes, and back.

    fused: take torch's, which only a GPU has; else ours. Solves take note of either.
    """

    def __init__(self, fused: bool = False) -> None:
        self.fused = fused

    def apply(self, model: nn.Module) -> nn.Module:
        """The model with every batch norm over the processes; weights and statistics stay."""
        converted = cast(nn.Module, super().apply(model))
        for module in converted.modules():
            if type(module) is nn.SyncBatchNorm:
                module.__class__ = NotedSyncBatchNorm if self.fused else BatchNormOverProcesses
        return converted

    def revert(self, model: nn.Module) -> nn.Module:
        """The model with batch norms that exchange nothing."""
        for module in model.modules():
            if isinstance(module, OURS):
                module.__class__ = nn.SyncBatchNorm  # what Lightning looks for
        return cast(nn.Module, super().revert(model))
