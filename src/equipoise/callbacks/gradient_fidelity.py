"""How close the active estimator's gradient is to the exact one, during training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from equipoise.callbacks.beside_training import (
    preserved,
    refuse_manual_and_sharded,
    training_loss,
)
from equipoise.callbacks.curve_rows import MeanColumns
from equipoise.callbacks.statistics import FiniteMean
from equipoise.equilibrium import (
    Anderson,
    Auto,
    Equilibrium,
    Exact,
    Regularizer,
    Solver,
    SolveReport,
    gradient_fidelity,
)
from equipoise.equilibrium.backward_graph import leaf_tensors
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.errors import UserError

NAMES = ("cosine", "norm_ratio", "reference_residual")


class GradientFidelity(MeanColumns):
    """Compare the estimator's gradient with the exact one every `every` optimiser steps.

    Before steps 0, every, 2 every, ... the gradient of the loss on the first `samples` of the batch
    (None: all) is computed twice: as in training, and with the layers' solver and `Exact` at a
    budget of `max_steps` and the tolerance `tol`. The comparison is thus with the gradient at a
    tight equilibrium, and includes the error of a short solve as well as that of a cheap backward
    pass. It covers the parameters that the equilibria depend on; those after a layer get their
    gradients without an estimator. Regularisers, jitter and starts other than the model's are off.
    For `Auto`, the candidate in force is compared.

    Columns: `fidelity/cosine`, `fidelity/norm_ratio`, and `fidelity/reference_residual`, the larger
    of the reference's two median residuals, forward and adjoint; it must be small for the others to
    mean something. Training continues as if nothing had been measured: buffers, counters, reports
    and random numbers are restored. Without equilibrium layers nothing is done. With several
    processes, the numbers describe the first one's share of the data.

    Raises UserError for a task that steps its optimisers itself, and where parameters are sharded.
    """

    prefix = "fidelity"

    def __init__(
        self, every: int = 100, samples: int | None = 16, max_steps: int = 60, tol: float = 1e-6
    ) -> None:
        if every < 1 or (samples is not None and samples < 1):
            raise UserError("gradient_fidelity needs every and samples of at least 1")
        super().__init__()
        self.every = every
        self.samples = samples
        self.exact = Exact(Anderson(max_steps=max_steps, tol=tol))
        self.layers: list[Equilibrium] = []
        self.parameters: list[Tensor] | None = None
        self.measured_at: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the layers and forget an earlier run."""
        self.forget()
        super().on_train_start(trainer, pl_module)  # takes what a checkpoint has kept of a row
        self.layers = list(equilibrium_layers(pl_module).values())
        self.parameters, self.measured_at = None, None
        if self.layers:
            refuse_manual_and_sharded(trainer, pl_module, "gradient_fidelity")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Measure before the first batch of a step, if a measurement is due."""
        step = trainer.global_step
        if not self.layers or step % self.every or step == self.measured_at:
            return
        self.measured_at = step
        probe = first_samples(batch, self.samples)
        with preserved(pl_module, pl_module.device), _plain(self.layers):
            self._measure(lambda: training_loss(trainer, pl_module, probe, batch_idx), pl_module)

    def observe(self, trainer: Trainer, outputs: Any) -> None:
        """Do nothing: measurements are recorded when a step begins."""

    def summary(self) -> dict[str, Any]:
        """For metrics.json: the means of the last epoch in which something was measured."""
        return {"gradient_fidelity": self.latest} if self.latest else {}

    def _measure(self, loss: Callable[[], Tensor], module: LightningModule) -> None:
        if self.parameters is None:
            # A resumed run finds them at a later step, and must still measure the same.
            with preserved(module, module.device):
                self.parameters = _parameters_before(self.layers, loss, module)
        if not self.parameters:
            return
        reports: list[SolveReport] = []

        def noted() -> Tensor:
            value = loss()
            reports[:] = [layer.report for layer in self.layers if layer.report is not None]
            return value

        fidelity = gradient_fidelity(
            self.layers, noted, self.parameters, self.exact, tighten=self._tightened
        )
        values = (fidelity.cosine, fidelity.norm_ratio, _largest_median(reports))
        for name, value in zip(NAMES, values, strict=True):
            self.since_row.setdefault(name, FiniteMean()).add(value)

    def _tightened(self, solver: Solver) -> Solver:
        return replace(solver, max_steps=self.exact.solver.max_steps, tol=self.exact.solver.tol)


@contextmanager
def _plain(layers: Sequence[Equilibrium]) -> Iterator[None]:
    """Leave the layers only their solve and estimator; `preserved` restores the rest."""
    for layer in layers:
        layer.jitter, layer.random_start, layer.start = None, None, None
        layer.regularizer = None if layer.regularizer is None else Regularizer()
        layer.on_failure = "warn" if layer.on_failure == "raise" else layer.on_failure
        if isinstance(layer.gradient, Auto):
            layer.gradient = layer.gradient.active
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training itself will warn about its solves
        yield


def _parameters_before(
    layers: Sequence[Equilibrium], loss: Callable[[], Tensor], module: nn.Module
) -> list[Tensor]:
    """The trained parameters that the layers' states depend on."""
    leaves: set[int] = set()

    def note(layer: nn.Module, arguments: Any, state: Any) -> None:
        leaves.update(id(leaf) for leaf in leaf_tensors(state, ()))

    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.enable_grad():
        loss()
    for hook in hooks:
        hook.remove()
    return [parameter for parameter in module.parameters() if id(parameter) in leaves]


def _largest_median(reports: Sequence[SolveReport]) -> Tensor:
    """The largest of the reports' median residuals, forward and backward."""
    both = [solve for report in reports for solve in (report, report.backward)]
    residuals = [s.residual for s in both if s is not None and s.residual is not None]
    if not residuals:
        return torch.tensor(torch.nan)
    return torch.stack([residual.float().median() for residual in residuals]).max()


def first_samples(batch: Any, samples: int | None) -> Any:
    """The first rows of a batch; the number of its samples is the length of its first tensor.

    Every tensor of that length is cut, including those in nested mappings, tuples and lists.
    """
    size = next((len(tensor) for tensor in _tensors(batch) if tensor.ndim), None)
    if samples is None or size is None or size <= samples:
        return batch
    return _cut(batch, size, samples)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping | tuple | list):
        for value in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(value)


def _cut(batch: Any, size: int, samples: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[:samples] if batch.ndim and len(batch) == size else batch
    if isinstance(batch, Mapping):
        return {name: _cut(value, size, samples) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        values = [_cut(value, size, samples) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    return batch
