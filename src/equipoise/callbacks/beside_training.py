"""Extra steps of a task, after which its training continues as if there had been none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn

from equipoise.errors import UserError

SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)

Container = dict[Any, Any] | list[Any]


def refuse_manual_and_sharded(trainer: Trainer, module: LightningModule, callback: str) -> None:
    """Raise UserError for manual optimisation and for sharded parameters.

    A strategy of ours that shards them sets an attribute `divides_weights`.
    """
    if not module.automatic_optimization:
        raise UserError(
            f"{callback} cannot work with a task that steps its optimisers itself: "
            f"leave callbacks={callback} out"
        )
    ours = getattr(trainer.strategy, "divides_weights", False)
    if ours or isinstance(trainer.strategy, SHARDED):
        raise UserError(
            f"{callback} needs whole parameters in every process: leave it out, or choose "
            "strategy=ddp"
        )


def training_loss(trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> Tensor:
    """The loss of a training step, in the precision of the run; what it logs is discarded."""
    with trainer.precision_plugin.train_step_context(), _silent(module):
        outputs = module.training_step(batch, batch_idx)
    loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
    assert isinstance(loss, Tensor)
    return loss


@contextmanager
def _silent(module: LightningModule) -> Iterator[None]:
    """Discard what the module logs, so that the curve shows the run alone."""
    names = ("log", "log_dict")
    for name in names:
        vars(module)[name] = lambda *_, **__: None
    try:
        yield
    finally:
        for name in names:
            del vars(module)[name]


def training_batches(trainer: Trainer, module: LightningModule) -> Iterator[Any]:
    """The batches of one epoch, on the device, from newly made loaders.

    Our loaders give the order of epoch 0 each time, and this process's share. The loaders of the
    run keep their position.
    """
    loader: Any = trainer.fit_loop._data_source.dataloader()
    combined = (
        loader if isinstance(loader, CombinedLoader) else CombinedLoader(loader, "max_size_cycle")
    )
    count = trainer.num_training_batches
    try:
        for batch, _, _ in islice(combined, None if math.isinf(count) else int(count)):
            batch = trainer.precision_plugin.convert_input(batch)
            batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
            yield trainer.strategy.batch_to_device(batch, dataloader_idx=0)
    finally:
        for each in combined.flattened:
            if hasattr(each, "shut_down"):
                each.shut_down()


@contextmanager
def preserved(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore the module, its submodules and torch's generators when the context ends.

    This covers the objects that the attributes hold, the entries of dictionaries and lists among
    them (including buffers, submodules and hooks), and the values of buffers and tensor attributes.
    Parameters are not restored: a measurement does not change them.
    """
    held = [value for part in module.modules() for value in (vars(part), *vars(part).values())]
    entries = [(value, value.copy()) for value in held if isinstance(value, dict | list)]
    values = [(tensor, tensor.detach().clone()) for tensor in _writable_tensors(entries)]
    others = [] if device.type == "cpu" else [device]
    try:
        with torch.random.fork_rng(others, device_type=device.type):
            yield
    finally:
        for container, kept in entries:
            _restore(container, kept)
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)


def _writable_tensors(entries: list[tuple[Container, Container]]) -> list[Tensor]:
    """Each writable tensor among the entries, once, without the parameters."""
    inside = (v for _, kept in entries for v in (kept.values() if isinstance(kept, dict) else kept))
    tensors = (v for v in inside if isinstance(v, Tensor) and not isinstance(v, nn.Parameter))
    return list({id(tensor): tensor for tensor in tensors if _writable(tensor)}.values())


def _writable(tensor: Tensor) -> bool:
    """Not made in inference mode, as a metric's state in validation is, and no expanded view."""
    if tensor.is_inference() or tensor.layout != torch.strided:
        return False
    return all(
        step > 0 or size == 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True)
    )


def _restore(container: Container, kept: Container) -> None:
    container.clear()
    if isinstance(container, dict):
        container.update(kept)
    else:
        container.extend(kept)
