"""A network's training pass as CUDA graphs: one launch instead of one for every operation.

At small batches a step of an equilibrium model is bound by the launches of its kernels. With
tol = 0 no step of a solve depends on values, so the whole forward pass and the whole backward pass,
adjoint solve included, can each be recorded once and replayed, as long as nothing but numbers
changes.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from equipoise.equilibrium.layer import Equilibrium, equilibrium_layers
from equipoise.equilibrium.nested import Nested
from equipoise.equilibrium.recording import CannotRecordError, Forward, Recording, obstacle

Network = TypeVar("Network", bound=nn.Module)
Record = Callable[[nn.Module, Forward, Nested], Recording]
__all__ = ["CannotRecordError", "Replays", "graphed"]

NUMBERS = (bool, int, float)


def graphed(network: Network, *inputs: Tensor, warmups: int = 3) -> Network:
    """The network itself, whose forward and backward passes in training are replayed as graphs.

    inputs: tensors of the shapes and dtypes of later calls; their values do not matter. The
    caller's autocast becomes part of the graphs. Every equilibrium layer needs solvers with
    tol = 0 and nothing that is drawn or decided on the host (jitter, random start, regulariser,
    `Auto`, `Reversible`). warmups: passes before the recording, for libraries that measure first.

    Calls of another shape, and those in evaluation mode, run as before (`Replays`). Raises
    ValueError for a layer that cannot be recorded, a network in evaluation mode, and where the
    network or an input is not on a GPU.
    """
    for name, layer in equilibrium_layers(network).items():
        if reason := obstacle(layer):
            raise ValueError(f"the layer {name!r} cannot be recorded as a CUDA graph: {reason}")
    if not network.training:
        raise ValueError("CUDA graphs are of a network in training mode: call train() first")
    if not all(tensor.is_cuda for tensor in (*inputs, *network.parameters())):
        raise ValueError("CUDA graphs need the network and its inputs on a GPU")
    replays = Replays(network, partial(Recording, warmups=warmups))
    replays.record(Nested.of((inputs, {})))
    return network


class Replays:
    """Replaces a network's `forward`, and replays it in training whenever the call is the same.

    A pass is recorded when two calls in a row agree in everything but the values of their tensors:
    shapes, solvers, estimators, autocast, and the numbers that modules keep as attributes. The
    first such call, a smaller last batch, a call in evaluation mode or without gradients, and a
    call before the previous one's backward pass run unrecorded. One recording is kept; a new one
    replaces it when the calls have changed for good, for example because a schedule changed the
    estimator. A layer that cannot be recorded runs as before, after one warning.

    recordings, replayed, plain: how many passes were recorded, replayed, and run as before while
    training. Copies of the network have its own `forward`.
    """

    def __init__(self, network: nn.Module, record: Record = Recording) -> None:
        self.network = network
        self.recordings = self.replayed = self.plain = 0
        self._forward = network.forward
        self._layers = equilibrium_layers(network)
        self._record = record
        self._recorded: tuple[Any, Recording] | None = None
        self._previous: Any = None
        self._warned = False
        network.forward = self

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """What the network's forward returns."""
        if not (self.network.training and torch.is_grad_enabled()):
            return self._forward(*arguments, **options)
        call = Nested.of((arguments, options))
        state = (call.form, self._state())
        alike, self._previous = state == self._previous, state
        known = self._recorded is not None and self._recorded[0] == state
        if not known and alike and not self._hindered():
            self.record(call)
            known = True
        if not known or self._recorded is None or self._recorded[1].busy:
            self.plain += 1
            return self._forward(*arguments, **options)
        self.replayed += 1
        return self._recorded[1](*call.tensors)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles of the network have its own forward, without graphs."""
        return getattr, (self.network, "forward")  # of a copy that has nothing else yet

    def record(self, call: Nested) -> None:
        """Record the pass of a call, replacing an earlier one."""
        self.discard()
        self._recorded = (call.form, self._state()), self._record(self.network, self._forward, call)
        self.recordings += 1

    def discard(self) -> None:
        """Free the memory of the graphs."""
        if self._recorded is not None:
            self._recorded[1].discard()
            self._recorded = None
            gc.collect()

    def remove(self) -> None:
        """Give the network its own forward back."""
        self.discard()
        if self.network.__dict__.get("forward") is self:
            del self.network.forward

    def _hindered(self) -> bool:
        """Whether a layer cannot be recorded; warns of the first."""
        for name, layer in self._layers.items():
            if reason := obstacle(layer):
                self._warn(f"the layer {name!r} is not recorded as a CUDA graph: {reason}")
                return True
        return False

    def _warn(self, message: str) -> None:
        if not self._warned:
            warnings.warn(f"{message}; shown once", stacklevel=5)
        self._warned = True

    def _state(self) -> tuple[Any, ...]:
        """Everything of the network that a recording takes for constant."""
        modules = list(self.network.modules())
        numbers = [v for m in modules for v in vars(m).values() if type(v) in NUMBERS]
        tensors = (*self.network.parameters(), *self.network.buffers())
        places = [(tensor.data_ptr(), tensor.requires_grad) for tensor in tensors]
        layers = [_settings(layer) for layer in self._layers.values()]
        cast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        return numbers, places, layers, cast


def _settings(layer: Equilibrium) -> tuple[int, ...]:
    """Which solver, estimator and rules of its own the layer has, by identity."""
    parts = (layer.solver, layer.gradient, layer.jitter, layer.regularizer, layer.start)
    return (*(id(part) for part in parts), id(layer.random_start))
