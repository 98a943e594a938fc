"""Several processes that share counts, not gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy


class ProcessesWithoutGradients(DDPStrategy):
    """The process group and the launcher of DDP, without the wrapper that averages gradients.

    torch's DistributedDataParallel refuses a module that has no parameter with a gradient.
    """

    def configure_ddp(self) -> None:
        """Leave the module as it is."""


def strategy_for(task: LightningModule, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The strategy to put in place of a trainer's DDP, where the task has nothing to average."""
    if any(parameter.requires_grad for parameter in task.parameters()):
        return {}
    typed, devices = trainer.get("strategy"), trainer.get("devices")
    several = (isinstance(devices, int) and devices > 1) or trainer.get("num_nodes", 1) > 1
    replaced = typed == "ddp" or (typed == "auto" and several)
    return {"strategy": ProcessesWithoutGradients()} if replaced else {}
