"""`compile` and `memory_format` in a run: what they need is checked, then they are set up."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from equipoise.callbacks.lightning_overhead import Observer
from equipoise.config.compilation import Compile
from equipoise.equilibrium import Equilibrium
from equipoise.equilibrium.compiled import missing_compiler
from equipoise.equilibrium.cuda_graph import Replays
from equipoise.equilibrium.gradients import Exact
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.equilibrium.recording import obstacle
from equipoise.errors import UserError

ENOUGH = 3
"""Number of training passes by which one should have been recorded."""


def arrange(network: nn.Module, word: Literal["channels_last"] | None) -> None:
    """Put the weights of convolutions into the memory format; their outputs follow it.

    Raises UserError for a network without convolutions of images.
    """
    if word is None:
        return
    if not any(weight.ndim == 4 for weight in network.parameters()):
        raise UserError(
            f"memory_format={word} is for convolutions of images, and this model has none; "
            "leave it out"
        )
    network.to(memory_format=torch.channels_last)


def compile_cells(network: nn.Module) -> None:
    """Make every equilibrium layer run its f as compiled code, from its next call on.

    Raises UserError where there is no compiler.
    """
    check_compiler()
    for layer in equilibrium_layers(network).values():
        layer.compiles_f = True


def check_compiler() -> None:
    """Raise UserError where the C++ compiler is missing that torch.compile needs."""
    command = missing_compiler()
    if command is not None:
        raise UserError(
            f"compile=cell needs the C++ compiler {command}, which is not on this machine: install "
            "it, name another one in the environment variable CXX, or leave compile out"
        )


def compiling(word: Compile | None, task: LightningModule) -> list[Observer]:
    """Set up `compile` as configured; returns the callbacks that it needs. Raises UserError."""
    if "cell" in (word or ""):
        compile_cells(task)
    if "graph" not in (word or ""):
        return []
    check_recordable(task)
    return [RecordedTraining()]


def check_recordable(task: nn.Module) -> None:
    """Raise UserError where a layer cannot be recorded, naming settings with which it can."""
    layers = equilibrium_layers(task).values()
    words = dict.fromkeys(word for layer in layers for word in _remedies(layer))
    if words:
        raise UserError(
            "compile=graph records steps in which nothing depends on values, so that all of them "
            f"are alike: add {' '.join(words)}, or leave compile out"
        )
    for layer in layers:
        if reason := obstacle(layer):
            raise UserError(
                f"compile=graph cannot record this model: {reason}; choose others, or leave "
                "compile out"
            )


def _remedies(layer: Equilibrium) -> Iterator[str]:
    """The settings that a layer needs, each as it is typed."""
    if not layer.gradient.own_iteration and layer.solver.tol != 0:
        yield "solver.tol=0"
    if isinstance(layer.gradient, Exact) and layer.gradient.solver.tol != 0:
        yield "gradient.solver.tol=0"
    if layer.jitter is not None:
        yield "equilibrium.jitter=0"
    if layer.random_start is not None:
        yield "equilibrium.random_start=0.0"
    if layer.regularizer is not None:
        yield "regularizer=none"


def check_one_gpu(trainer: Trainer) -> None:
    """Raise UserError unless the run is one process on an NVIDIA GPU."""
    strategy = trainer.strategy
    if strategy.root_device.type != "cuda":
        raise UserError(
            "compile=graph needs an NVIDIA GPU, and this run has none: leave it out, or choose "
            "compile=cell"
        )
    if not isinstance(strategy, SingleDeviceStrategy):
        raise UserError(
            "compile=graph needs one process on one GPU: choose strategy=gpu trainer.devices=1, or "
            "leave compile out"
        )


class RecordedTraining(Observer):
    """Makes the task's network record and replay its training passes during training."""

    def __init__(self) -> None:
        self.replays: Replays | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the network record its passes from here on."""
        self.replays = Replays(pl_module.model)  # type: ignore[arg-type]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Free the graphs; say so where no pass was ever recorded."""
        if self.replays is None:
            return
        self.replays.remove()
        if not self.replays.recordings and self.replays.plain + self._missed(trainer) >= ENOUGH:
            warnings.warn(
                "compile=graph has recorded no training pass: this task or its callbacks change "
                "something at every step, or call the network in another way than as a function",
                stacklevel=2,
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The same for a training that was stopped."""
        if self.replays is not None:
            self.replays.remove()

    def summary(self) -> Mapping[str, Any]:
        """How many training passes were recorded, replayed, and run without a graph."""
        if self.replays is None:
            return {}
        counts = {name: getattr(self.replays, name) for name in ("recordings", "replayed", "plain")}
        return {"graph": counts}

    def _missed(self, trainer: Trainer) -> int:
        """Steps without a call of the network's forward."""
        assert self.replays is not None
        return 0 if self.replays.plain or self.replays.replayed else int(trainer.global_step)
