"""Averages of the weights over a run's steps, used in their place to validate, test and save.

Lightning's `WeightAveraging` keeps its average in a copy of the whole task. Here it is one tensor
per weight, since a task cannot always be copied. Three more things differ: before the first update,
validations see the training weights, not those that the run began with; a checkpoint of the weights
alone holds the average too; and a run resumed without the callback continues with the training
weights.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from equipoise.callbacks.beside_training import refuse_manual_and_sharded
from equipoise.callbacks.lightning_overhead import Observer, every_callback
from equipoise.errors import UserError

KEY = "averaged_weights"
STATISTICS = ("running_mean", "running_var")
Tensors = dict[str, Tensor]


class WeightAveraging(Observer, ABC):
    """Average the weights after every `every`-th optimiser step past the fraction `start` of a run.

    The average covers the parameters and the running statistics of normalisations; everything else
    in a `state_dict` keeps its training value. From the first update on, validations see the
    average and checkpoints hold it as their `state_dict`, with the training weights beside it under
    `averaged_weights` (not in a checkpoint of the weights alone). When training ends, the module
    is left with the average. A step that the divergence guard has skipped counts like any other.

    Raises UserError for manual optimisation, for sharded parameters, for 16-bit weights, in which
    an average would be lost to rounding, and for a `start` above 0 in a run without an end.
    """

    name: str
    key: str

    def __init__(self, start: float, every: int) -> None:
        self.start = start
        self.every = every
        self.first = 0
        self.updates = 0
        self.updated_at = 0
        self.weights: Tensors = {}
        self.average: Tensors = {}
        self.training: Tensors = {}

    @abstractmethod
    def weight(self, update: int) -> float:
        """The share of the present weights in update n, counted from 0; 1 in the first."""

    def described(self) -> str:
        """The average in words, for metrics.json."""
        return f"{self.name} of {self.updates} updates"

    def state_dict(self) -> dict[str, Any]:
        """How many updates there were, and after which step the last one."""
        return {"updates": self.updates, "updated_at": self.updated_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from there."""
        self.updates, self.updated_at = state_dict["updates"], state_dict["updated_at"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run."""
        if stage == "fit":
            self.updates = self.updated_at = 0
            self.average, self.training = {}, {}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take over the checkpoint's average, if it is of the same kind."""
        saved = checkpoint.get(KEY) or {}
        if saved.get("key") == self.key:
            state = checkpoint["state_dict"]
            self.average = copied({name: state[name] for name in averaged(pl_module)})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be averaged; move the average to the device of the weights."""
        refuse_manual_and_sharded(trainer, pl_module, self.key)
        weights = averaged(pl_module)
        if any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in weights.values()):
            raise UserError(
                f"callbacks={self.key} needs weights of 32 bits: choose trainer.precision=16-mixed "
                "or bf16-mixed"
            )
        self.average = {n: tensor.to(weights[n].device) for n, tensor in self.average.items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the step after which averaging begins."""
        total = trainer.estimated_stepping_batches
        if self.start and not math.isfinite(total):
            raise UserError(
                f"callbacks.{self.key}.start={self.start} is a fraction of the run, but the run "
                "has no end: set trainer.max_steps or trainer.max_epochs"
            )
        self.first = round(self.start * total) if self.start else 0
        self.weights = averaged(pl_module)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update the average if a new step has ended and an update is due."""
        step = trainer.global_step
        if self.updated_at < step > self.first and (step - self.first) % self.every == 0:
            self.update()
            self.updated_at = step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the module for the validation."""
        self.put_in(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the training weights back, to train on."""
        if trainer.state.fn == "fit":
            self.take_out(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the module."""
        self.put_in(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Put the training weights back if a validation was cut short."""
        if trainer.validating:
            self.take_out(pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average in place of the weights, and the training weights beside it."""
        if not self.average:
            return
        checkpoint["state_dict"].update(self.average)
        checkpoint[KEY] = {"key": self.key, "described": self.described()}
        if "optimizer_states" in checkpoint:
            checkpoint[KEY]["training"] = self.training or copied(averaged(pl_module))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights."""
        if not self.average:
            self.average = copied(self.weights)
        else:
            present = [self.weights[name] for name in self.average]
            torch._foreach_lerp_(list(self.average.values()), present, self.weight(self.updates))
        self.updates += 1

    def put_in(self, module: nn.Module) -> None:
        """Put the average into the module and keep the training weights; do so only once."""
        if self.average and not self.training:
            weights = averaged(module)
            with torch.inference_mode(False), torch.no_grad():  # what is kept outlasts a validation
                self.training = copied(weights)
                fill(weights, self.average)

    def take_out(self, module: nn.Module) -> None:
        """Put the training weights back into the module."""
        if self.training:
            fill(averaged(module), self.training)
            self.training = {}


class ExponentialMovingAverage(WeightAveraging):
    """average <- decay * average + (1 - decay) * weights, after each `every`-th step.

    The first weights would dominate for 1 / (1 - decay) updates, so the share in update n, counted
    from 0, is max(1 - decay, k / (n + k)), k = horizon. start: as in `WeightAveraging`.

    Source: Polyak and Juditsky 1992; the bound on early updates, for k = 10, is about that of
    TensorFlow's ExponentialMovingAverage, (1 + n) / (10 + n) on the decay.
    """

    name = "exponential moving average"
    key = "ema"

    def __init__(
        self, decay: float = 0.999, horizon: float = 10.0, start: float = 0.0, every: int = 1
    ) -> None:
        super().__init__(start, every)
        self.decay = decay
        self.horizon = horizon

    def weight(self, update: int) -> float:
        """max(1 - decay, horizon / (n + horizon))."""
        return max(1 - self.decay, self.horizon / (update + self.horizon))


class SavedWeights(Observer):
    """Resumes with the training weights, and records which weights were tested.

    A checkpoint of a run that averages holds the average as its `state_dict`, and the training
    weights beside it; a run resumed without averaging must continue with the training weights too.
    """

    def __init__(self) -> None:
        self.held: str | None = None
        self.tested: str | None = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the training weights into the module in place of those of the state dict."""
        if training := (checkpoint.get(KEY) or {}).get("training"):
            weights = averaged(pl_module)
            fill({name: weights[name] for name in training}, training)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record which weights the module is left with."""
        averages = [c for c in every_callback(trainer) if isinstance(c, WeightAveraging)]
        self.held = next((c.described() if c.average else "training" for c in averages), None)

    def restore(
        self, module: LightningModule, checkpoint: Mapping[str, Any], config: Mapping[str, Any]
    ) -> None:
        """Record which weights the module has received from a checkpoint."""
        saved = checkpoint.get(KEY)
        self.held = saved["described"] if saved else self.held and "training"

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record that these weights are tested."""
        self.tested = self.held

    def summary(self) -> dict[str, Any]:
        """`tested_weights`, if there was an average to test."""
        return {} if self.tested is None else {"tested_weights": self.tested}


def averaged(module: nn.Module) -> Tensors:
    """The module's own tensors that an average covers, by their names in the state dict."""
    parameters = module.named_parameters(remove_duplicate=False)
    buffers = module.named_buffers(remove_duplicate=False)
    statistics = {n: b for n, b in buffers if n.rpartition(".")[2] in STATISTICS}
    return {n: t for n, t in {**dict(parameters), **statistics}.items() if t.is_floating_point()}


def copied(tensors: Tensors) -> Tensors:
    """A copy of the present values."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@torch.no_grad()
def fill(tensors: Tensors, values: Tensors) -> None:
    """Write each value into the tensor of the same name."""
    for name, tensor in tensors.items():
        tensor.copy_(values[name])
