"""Sharded training: between steps, each process holds its part of every weight (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from equipoise.errors import UserError


class ShardedNetwork(DDPStrategy):
    """FSDP2 over the task as one unit: weights, gradients and moments are divided by rows.

    A training step gathers all weights once, before it begins, and divides the gradients after
    its backward pass. An equilibrium needs its cell's weights in every evaluation, in the adjoint
    solve too, so nothing is gathered or freed within a step, and no process waits for another
    within a solve. Validation and test see whole weights.

    Checkpoints hold the whole state, as one process would write it. Lightning's own
    `ModelParallelStrategy` has each task shard itself, and refuses float16 and checkpoint plugins;
    this is its `DDPStrategy` with another wrapper, whose launcher and process group it keeps.

    Raises UserError for a task that steps its optimisers itself, and for a weight that is a single
    number.
    """

    divides_weights = True

    def configure_ddp(self) -> None:
        """Divide the weights of the first process among all."""
        task = self.model
        assert isinstance(task, LightningModule)
        check_shardable(task)
        for tensor in (*task.parameters(), *task.buffers()):
            distributed.broadcast(tensor.data, 0)
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        fully_shard(task, mesh=mesh, reshard_after_forward=False)
        register_fsdp_forward_method(task, "training_step")

    def setup(self, trainer: Trainer) -> None:
        """Set up as usual before a training; after one, the weights stay where they are."""
        if not isinstance(self.model, FSDPModule):
            super().setup(trainer)
            return
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        self.setup_precision_plugin()

    def on_validation_start(self) -> None:
        """Gather the weights, and take the statistics of the first process."""
        self.gather()

    def on_train_end(self) -> None:
        """Gather the weights for the stages after the training."""
        self.gather()

    def on_test_start(self) -> None:
        """Gather the weights again, as a checkpoint may have replaced them."""
        self.gather()

    def gather(self) -> None:
        """Put whole weights and the first process's statistics into every process."""
        if isinstance(self.model, FSDPModule):
            self.model.unshard()
            for buffer in self.model.buffers():
                distributed.broadcast(buffer, 0)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Add up the gradients of accumulated batches locally, until the last batch."""
        assert isinstance(self.model, FSDPModule)
        self.model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.model.set_requires_gradient_sync(True)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole state, gathered from all processes, which all have to ask for it."""
        state: dict[str, Any] = whole(super().lightning_module_state_dict())
        return state

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state, gathered from all processes, which all have to ask for it."""
        state: dict[str, Any] = whole(super().optimizer_state(optimizer))
        return state

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's part of whole states."""
        states = checkpoint["optimizer_states"]
        for optimizer, state in zip(self.optimizers, states, strict=False):
            optimizer.load_state_dict(divided(state, optimizer))

    def teardown(self) -> None:
        """Leave the module on its device: moving it would divide the weights again."""
        if not isinstance(self.model, FSDPModule):
            super().teardown()
            return
        for part in (self.cluster_environment, self.precision_plugin, self.accelerator):
            assert part is not None
            part.teardown()


def check_shardable(task: LightningModule) -> None:
    """Raise UserError where the weights cannot be divided."""
    if not task.automatic_optimization:
        raise UserError(
            "strategy=fsdp needs a task whose optimiser the trainer steps, and this one steps it "
            "itself: choose strategy=ddp, ddp_cpu or auto"
        )
    for name, parameter in task.named_parameters():
        if parameter.ndim == 0:
            raise UserError(
                f"strategy=fsdp divides weights by their rows, and {name.removeprefix('model.')} "
                "is a single number: choose strategy=ddp or ddp_cpu"
            )


def whole(state: Any) -> Any:
    """The state with every divided tensor reassembled, on the CPU."""
    if isinstance(state, DTensor):
        return state.full_tensor().detach().cpu()
    if isinstance(state, Mapping):
        return type(state)((key, whole(value)) for key, value in state.items())  # type: ignore[call-arg]
    if isinstance(state, list | tuple):
        return type(state)(whole(value) for value in state)
    return state


def alike(value: Any, like: Any) -> Any:
    """A whole tensor divided as `like` is; other values unchanged. All processes have the value."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or isinstance(value, DTensor):
        return value
    if value.shape != like.shape:
        return value
    here = value.to(like.device)
    return distribute_tensor(here, like.device_mesh, like.placements, src_data_rank=None)


def divided(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """The whole state of an optimiser, each tensor divided as its parameter is."""
    groups = zip(state["param_groups"], optimizer.param_groups, strict=True)
    parameters = {
        number: parameter
        for saved, group in groups
        for number, parameter in zip(saved["params"], group["params"], strict=True)
    }
    moments = {
        number: {name: alike(value, parameters[number]) for name, value in entries.items()}
        for number, entries in state["state"].items()
    }
    return {**state, "state": moments}


def divided_weights(state: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """A whole state dict with each tensor divided as in that of a module, `ours`."""
    return {name: alike(value, ours.get(name)) for name, value in state.items()}
