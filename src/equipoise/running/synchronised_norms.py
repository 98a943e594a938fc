"""Batch normalisation with the statistics of all processes, for `trainer.sync_batchnorm`."""

from __future__ import annotations

from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import nn

from equipoise.nn.over_processes import BatchNormOverProcesses, NotedSyncBatchNorm

OURS = (BatchNormOverProcesses, NotedSyncBatchNorm)


class SynchronisedNorms(TorchSyncBatchNorm):
    """Lightning's replacement of batch norms by ones over all processes, and back.

    fused: use torch's, which need a GPU; else ours. Solves support both.
    """

    def __init__(self, fused: bool = False) -> None:
        self.fused = fused

    def apply(self, model: nn.Module) -> nn.Module:
        """The model with every batch norm over the processes; weights and statistics stay."""
        converted = super().apply(model)
        for module in converted.modules():
            if type(module) is nn.SyncBatchNorm:
                kind = NotedSyncBatchNorm if self.fused else BatchNormOverProcesses
                module.__class__ = kind  # type: ignore[assignment]
        return converted

    def revert(self, model: nn.Module) -> nn.Module:
        """The model with batch norms that exchange nothing.

        Lightning looks for torch's class.
        """
        for module in model.modules():
            if isinstance(module, OURS):
                module.__class__ = nn.SyncBatchNorm  # type: ignore[assignment]
        return super().revert(model)
