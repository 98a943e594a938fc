"""What every objective shares: the network, its optimiser, and regularisation of its equilibria."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.equilibrium.state import State
from equipoise.errors import UserError
from equipoise.nn import LearnedStart
from equipoise.tasks.schedules import PlateauScheduler, Schedule

ROUNDED = ("bf16-true", "16-true")
"""Lightning's precisions that round batches, as well as weights, to 16 bits."""
MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class Objective(pl.LightningModule):
    """A network with its optimiser and schedule; subclasses add the loss and the metrics.

    `make_optimizer` takes the parameters, all of which are decayed (as in the published MDEQ
    training). A subclass fills `metrics`: for each stage, "val" and "test", its metrics by name.
    """

    def __init__(self, model: nn.Module, make_optimizer: MakeOptimizer, schedule: Schedule) -> None:
        super().__init__()
        self.model = model
        self.make_optimizer = make_optimizer
        self.schedule = schedule
        self.metrics = nn.ModuleDict()
        self.equilibria = list(equilibrium_layers(model).values())
        self.starts = [part for part in model.modules() if isinstance(part, LearnedStart)]
        self.regularized = [layer for layer in self.equilibria if layer.regularizer is not None]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert all weights; metrics, which sum over a split, never go below float32."""
        super()._apply(fn, recurse)
        for part in self.modules():
            if isinstance(part, Metric):
                part._apply(_widened)
        return self

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Tell the regularisers how far the run is, since their weights depend on it."""
        for layer in self.regularized:
            assert layer.regularizer is not None
            steps = self.trainer.estimated_stepping_batches
            layer.regularizer.progress = self.trainer.global_step / max(1.0, steps)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load all weights and buffers; the counters of random numbers may differ.

        These (`_extra_state`) belong to the jitter, the random start and the regulariser, which a
        resumed run or an evaluation may add or leave out. Raises UserError if the weights are those
        of another network.
        """
        counters = _counters(self.state_dict())
        weights = {k: v for k, v in state_dict.items() if k in counters or not _is_counter(k)}
        try:
            return super().load_state_dict({**counters, **weights}, strict=strict, assign=assign)
        except RuntimeError as error:
            causes = str(error).splitlines()[1:] or [str(error)]
            raise UserError(
                f"the checkpoint does not fit the network ({causes[0].strip().rstrip('.')}): keep "
                "the model that it was trained with"
            ) from error

    def with_regularization(
        self, loss: Tensor, loss_at: Callable[[State], Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss with what regularisers and learned starts add, and their terms for the curve.

        loss_at: the same loss at another state of the equilibrium layer, for a correction.
        """
        terms: dict[str, Tensor] = {}
        for layer in self.regularized:
            assert layer.regularizer is not None
            if states := layer.pop_states():
                loss = layer.regularizer.combine([*(loss_at(state) for state in states), loss])
                terms["corrected_loss"] = loss.detach()
            if (penalty := layer.pop_penalty()) is not None:
                loss = loss + penalty
                terms["penalty"] = terms.get("penalty", 0.0) + penalty.detach()
        for start in self.starts:
            if (distance := start.pop_loss()) is not None:
                loss = loss + distance
                terms["start_loss"] = terms.get("start_loss", 0.0) + distance.detach()
        return loss, terms

    def readout(self, state: State) -> Tensor:
        """The network's output for one state of its equilibrium layer.

        Raises UserError if the network has no `readout`.
        """
        read = getattr(self.model, "readout", None)
        if read is None:
            raise UserError(
                f"regularizer=correction needs a network with one equilibrium layer and a readout; "
                f"{type(self.model).__name__} has none: choose regularizer=jacobian or none"
            )
        output: Tensor = read(state)
        return output

    def offered(self, method: str, *arguments: Any) -> dict[str, Tensor]:
        """What a method of the network returns in evaluation mode; empty if it has none."""
        ask = getattr(self.model, method, None)
        training = self.model.training
        self.model.eval()
        try:
            return {} if ask is None else ask(*arguments)
        finally:
            self.model.train(training)

    def stage_metrics(self, stage: str) -> dict[str, Metric]:
        """The metrics of "val" or "test" by name."""
        return cast(dict[str, Metric], self.metrics[stage])

    def logged(self, stage: str) -> set[str]:
        """The names under which the metrics of "val" or "test" are logged."""
        return {f"{stage}/{name}" for name in self.stage_metrics(stage)}

    def class_names(self) -> list[str]:
        """The data module's names of the classes; empty if it has none."""
        return list(getattr(getattr(self.trainer, "datamodule", None), "class_names", []))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole validation set; in training, step a plateau with them.

        Lightning would step it at the end of the epoch. That is too late: the checkpoint of this
        validation, from which a run may resume, must hold the rate that follows from it.
        """
        self._close("val")
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            for scheduler in (config.scheduler for config in self.trainer.lr_scheduler_configs):
                if isinstance(scheduler, PlateauScheduler):
                    scheduler.step(self.trainer.callback_metrics[scheduler.monitor])

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole test set."""
        self._close("test")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser over all parameters, and its schedule, stepped at every optimiser step.

        A plateau uses these steps only for its warm-up.
        """
        optimizer = self.make_optimizer(self.parameters())
        # A fused optimiser would undo the scale of float16 gradients itself, too late for clipping.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        scheduler = self.schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        how: Any = {"scheduler": scheduler, "interval": "step"}
        if self.automatic_optimization:  # else Lightning steps nothing, and warns of this key
            how["reduce_on_plateau"] = False  # True would need a metric after every step
        return {"optimizer": optimizer, "lr_scheduler": how}

    def _close(self, stage: str) -> None:
        for name, metric in self.stage_metrics(stage).items():
            self.log(f"{stage}/{name}", metric.compute())
            metric.reset()


def refuse_rounding(trainer: pl.Trainer, what: str) -> None:
    """Raise UserError where the precision would round what the batches hold."""
    precision = trainer.precision_plugin.precision
    if precision in ROUNDED:
        mixed = precision.replace("true", "mixed")
        raise UserError(
            f"trainer.precision={precision} would round {what} to 16 bits: leave it out, or choose "
            f"trainer.precision={mixed}"
        )


def _widened(state: Tensor) -> Tensor:
    return state.float() if state.dtype in (torch.bfloat16, torch.float16) else state


def _is_counter(name: str) -> bool:
    return name.endswith("_extra_state")


def _counters(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if _is_counter(name)}
