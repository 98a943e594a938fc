"""Averages of the weights over the steps of a run: validated, tested and saved in their place.

Lightning's `WeightAveraging` keeps its average in a copy of the whole task. Here it is a tensor for
each weight, since a task cannot always be copied, and for more: before the first update the weights
of training are validated, not those that the run began with; a checkpoint of the weights alone
holds the average too; and a run that is resumed without the callback goes on with the weights of
its training.
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
    """Average the weights after each `every`-th optimiser step behind the fraction `start`.

    Averaged are the parameters and the running statistics of normalisations; all else in a
    `state_dict` stays that of training. From the first update on validations see the average, and
    checkpoints hold it as their `state_dict`; the weights of training stand beside it under
    `averaged_weights`, unless a checkpoint is of the weights alone. When training ends the module
    is left with the average. A step that the divergence guard has skipped counts as any other.

    Raises UserError for manual optimisation, for sharded parameters, for weights of 16 bits, in
    which an average would be lost to rounding, and for a fraction of a run without an end.
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
        """What the present weights weigh in update n, counted from 0; 1 in the first."""

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
        """Take the average, where it is one of the same kind."""
        saved = checkpoint.get(KEY) or {}
        if saved.get("key") == self.key:
            state = checkpoint["state_dict"]
            self.average = copied({name: state[name] for name in averaged(pl_module)})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be averaged; bring the average to the device of the weights."""
        refuse_manual_and_sharded(trainer, pl_module, self.key)
        weights = averaged(pl_module)
        if any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in weights.values()):
            raise UserError(
                f"callbacks={self.key} needs weights of 32 bits: choose trainer.precision=16-mixed "
                "or bf16-mixed"
            )
        self.average = {n: tensor.to(weights[n].device) for n, tensor in self.average.items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the step behind which the averaging begins."""
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
        """Update the average where a step has ended that is due."""
        step = trainer.global_step
        if self.updated_at < step > self.first and (step - self.first) % self.every == 0:
            self.update()
            self.updated_at = step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the average validated."""
        self.put_in(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on with the weights of training."""
        if trainer.state.fn == "fit":
            self.take_out(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the module."""
        self.put_in(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the module the weights of training back where a validation was cut short."""
        if trainer.validating:
            self.take_out(pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the average in the place of the weights, and these beside it."""
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
        """Give the module the average, and keep what it had; nothing where it has it already."""
        if self.average and not self.training:
            weights = averaged(module)
            with torch.inference_mode(False), torch.no_grad():  # what is kept outlasts a validation
                self.training = copied(weights)
                fill(weights, self.average)

    def take_out(self, module: nn.Module) -> None:
        """Give the module back what it had."""
        if self.training:
            fill(averaged(module), self.training)
            self.training = {}


class ExponentialMovingAverage(WeightAveraging):
    """average <- decay * average + (1 - decay) * weights, after each `every`-th step.

    The first weights would otherwise count for 1 / (1 - decay) updates, so update n, counted from
    0, weighs max(1 - decay, k / (n + k)), k = horizon. start: the fraction of the run before it.

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
    """Resumes with the weights of training, and tells which weights were tested.

    A checkpoint of a run that averages holds the average as its `state_dict`, and the weights of
    training beside it; a run that is resumed without the averaging has to go on with these too.
    """

    def __init__(self) -> None:
        self.held: str | None = None
        self.tested: str | None = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the weights of training into the module, which has got those of the state dict."""
        if training := (checkpoint.get(KEY) or {}).get("training"):
            weights = averaged(pl_module)
            fill({name: weights[name] for name in training}, training)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what the module is left with."""
        averages = [c for c in every_callback(trainer) if isinstance(c, WeightAveraging)]
        self.held = next((c.described() if c.average else "training" for c in averages), None)

    def restore(
        self, module: LightningModule, checkpoint: Mapping[str, Any], config: Mapping[str, Any]
    ) -> None:
        """Note what the module has got from a checkpoint."""
        saved = checkpoint.get(KEY)
        self.held = saved["described"] if saved else self.held and "training"

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that these weights are tested."""
        self.tested = self.held

    def summary(self) -> dict[str, Any]:
        """`tested_weights`, where there was an average to test."""
        return {} if self.tested is None else {"tested_weights": self.tested}


def averaged(module: nn.Module) -> Tensors:
    """What an average is of, by its name in the state dict: the module's own tensors."""
    parameters = module.named_parameters(remove_duplicate=False)
    buffers = module.named_buffers(remove_duplicate=False)
    statistics = {n: b for n, b in buffers if n.rpartition(".")[2] in STATISTICS}
    return {n: t for n, t in {**dict(parameters), **statistics}.items() if t.is_floating_point()}


def copied(tensors: Tensors) -> Tensors:
    """The values at this moment."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@torch.no_grad()
def fill(tensors: Tensors, values: Tensors) -> None:
    """Write values of the same names into tensors."""
    for name, tensor in tensors.items():
        tensor.copy_(values[name])
