"""Where the time of equilibrium layers goes: evaluations of f, products with J^T, and algebra.

A clock charges every moment to the innermost part that is open, so the parts of a stretch of time
add up to it. `time_layers` opens and closes the parts of a layer by hooks alone, so a layer does
what it does without them: nothing is replaced in it but f by one that evaluates the same.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.equilibrium.descent import Descent
from equipoise.equilibrium.flat_function import AffineMap, transformed
from equipoise.equilibrium.layer import Equilibrium
from equipoise.equilibrium.state import Function, parts

EVALUATIONS = "evaluations of f"
ALGEBRA = "solver algebra, forward"
PRODUCTS = "products with J^T"
REPEATED = "evaluations of f, backward"
BACKWARD_ALGEBRA = "solver algebra, backward"
PARTS = (EVALUATIONS, ALGEBRA, PRODUCTS, REPEATED, BACKWARD_ALGEBRA)
"""The parts of a layer."""
NEEDED = (EVALUATIONS, PRODUCTS, REPEATED)
"""Those that no bookkeeping can make faster: the limit of a step."""


class Clock:
    """Charges time to the innermost open part; a part that is not open costs nothing.

    synchronise: called before every reading, so that what a device still computes counts where it
    was asked for. While `running` is false nothing is opened or charged.
    """

    def __init__(self, synchronise: Callable[[], None] | None = None) -> None:
        self.synchronise = synchronise
        self.running = False
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._open: list[str] = []
        self._since = 0.0

    def start(self, part: str) -> None:
        """Begin to run, inside `part`, with nothing charged yet."""
        self.seconds.clear()
        self.calls.clear()
        self._open = [part]
        self._since = self.now()
        self.running = True

    def stop(self) -> None:
        """Charge what has passed, and run no longer."""
        self._charge()
        self.running = False

    def enter(self, part: str) -> None:
        """Open a part inside those that are open."""
        if self.running:
            self._charge()
            self._open.append(part)
            self.calls[part] += 1

    def leave(self, part: str) -> None:
        """Close a part, and what was left open inside it; one that is not open stays so."""
        if self.running and part in self._open:
            self._charge()
            while self._open.pop() != part:
                pass

    def inside(self, *named: str) -> bool:
        """Whether one of these parts is open."""
        return any(part in self._open for part in named)

    def now(self) -> float:
        """Seconds from some beginning, once the device has done what it was asked for."""
        if self.synchronise is not None:
            self.synchronise()
        return time.perf_counter()

    def _charge(self) -> None:
        now = self.now()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def time_layers(layers: Iterable[Equilibrium], clock: Clock) -> Callable[[], None]:
    """Have a clock charge the parts of these layers; returns what ends that.

    A product is what a gradient takes through one evaluation of f, from its result to its state and
    inputs: where these need none, it ends with the backward pass. What lies between two parts of
    the backward pass of a layer is its algebra.
    """
    handles = []
    for layer in layers:
        timed = _TimedLayer(clock)
        handles.append(layer.register_forward_pre_hook(timed.begin))
        handles.append(layer.register_forward_hook(timed.end))

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


class _TimedLayer:
    """The hooks of one layer. A copy of the layer, such as an average of weights, shares them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.latest: _TimedFunction | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _TimedLayer:
        return self

    def begin(self, layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Open the solve, and hand the layer an f that is timed."""
        if not self.clock.running or transformed():
            return None
        self.clock.enter(ALGEBRA)
        f, z0, *inputs = arguments
        z0, inputs = _closing(self.clock, BACKWARD_ALGEBRA, z0, inputs)
        return (self._timed(f), z0, *inputs)

    def _timed(self, f: Function) -> Function:
        """f with a clock, of the kind that it is: some solvers ask more of it than its values."""
        if isinstance(f, AffineMap):
            return AffineMap(_TimedFunction(f.linear, self.clock), f.constant)
        if isinstance(f, Descent):
            if not isinstance(f.gradient, _TimedFunction):
                f.gradient = _TimedFunction(f.gradient, self.clock)
                f.objective = _TimedFunction(f.objective, self.clock)
            return f
        if self.latest is None or self.latest.f is not f:
            self.latest = _TimedFunction(f, self.clock)
        return self.latest

    def end(self, layer: nn.Module, arguments: tuple[Any, ...], state: Any) -> None:
        """Close the solve; the backward pass begins where a gradient reaches the state."""
        self.clock.leave(ALGEBRA)
        if self.clock.running and not transformed():
            _opening(self.clock, BACKWARD_ALGEBRA, state)


class _TimedFunction:
    """f, whose evaluations and products are charged."""

    def __init__(self, f: Callable[..., Any], clock: Clock) -> None:
        self.f = f
        self.clock = clock

    def __call__(self, z: Any, *inputs: Tensor) -> Any:
        """f(z, *inputs)."""
        part = REPEATED if self.clock.inside(BACKWARD_ALGEBRA) else EVALUATIONS
        self.clock.enter(part)
        traced = torch.is_grad_enabled() and self.clock.running and not transformed()
        if traced:
            z, inputs = _closing(self.clock, PRODUCTS, z, inputs)
        try:
            value = self.f(z, *inputs)
        finally:  # checkpointing ends an evaluation that it repeats once it has what it needs
            self.clock.leave(part)
        if traced:
            _opening(self.clock, PRODUCTS, value)
        return value


def _opening(clock: Clock, part: str, state: Any) -> None:
    """Open a part where a gradient first reaches the state."""
    reached = [tensor for tensor in _tensors(state) if tensor.requires_grad]
    if not reached:
        return
    first = max(reached, key=_order)  # of several, the one whose gradient is complete first

    def opened(_: Tensor) -> None:
        # Where the state of a layer is a result of f, this comes before the layer's own.
        if not clock.inside(ALGEBRA, BACKWARD_ALGEBRA):
            clock.enter(BACKWARD_ALGEBRA)
        if part == PRODUCTS:
            clock.enter(part)

    first.register_hook(opened)


def _order(tensor: Tensor) -> int:
    """The backward pass goes through the latest operations first."""
    return -1 if tensor.grad_fn is None else int(tensor.grad_fn._sequence_nr())


def _closing(clock: Clock, part: str, z: Any, inputs: Iterable[Tensor]) -> tuple[Any, Any]:
    """z and inputs, the same values: the part is closed where their gradients are complete."""
    tensors = [*_tensors(z), *inputs]
    count = len(tensors) - len(tuple(inputs))
    needing = [place for place, tensor in enumerate(tensors) if tensor.requires_grad]
    if not needing or not torch.is_grad_enabled():
        return z, inputs
    passed = _Closing.apply(clock, part, *(tensors[place] for place in needing))
    for place, tensor in zip(needing, passed, strict=True):
        tensors[place] = tensor
    state = tensors[:count]
    return (state[0] if isinstance(z, Tensor) else type(z)(state)), tuple(tensors[count:])


def _tensors(state: Any) -> tuple[Tensor, ...]:
    return tuple(state) if isinstance(state, list) else parts(state)


class _Closing(torch.autograd.Function):
    """Identity, whose backward closes a part."""

    @staticmethod
    def forward(ctx: Any, clock: Clock, part: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.clock, ctx.part = clock, part
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        ctx.clock.leave(ctx.part)
        return (None, None, *cotangents)
