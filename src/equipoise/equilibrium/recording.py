"""One training pass of a network, recorded as CUDA graphs: what can be, and how it is replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.autograd import Variable

from equipoise.equilibrium.fixed_budget import TRACEABLE
from equipoise.equilibrium.gradients import Auto, Exact, GradientEstimator, Reversible, Unrolled
from equipoise.equilibrium.layer import Equilibrium, equilibrium_layers
from equipoise.equilibrium.nested import Nested
from equipoise.equilibrium.solution import SolveReport
from equipoise.equilibrium.solvers import Solver

Forward = Callable[..., Any]
WARMUPS = 3
"""Passes before a recording, for libraries that measure first."""


class CannotRecordError(RuntimeError):
    """A pass that CUDA could not record."""


def obstacle(layer: Equilibrium) -> str | None:
    """Why the passes of the layer cannot be recorded; None where they can."""
    for word in ("jitter", "random_start", "regularizer", "start"):
        if getattr(layer, word) is not None:
            return f"its {word} changes from step to step"
    return _of_estimator(layer.gradient) or (
        None if layer.gradient.own_iteration else _of_solver(layer.solver)
    )


def _of_estimator(estimator: GradientEstimator) -> str | None:
    if isinstance(estimator, Auto | Reversible):
        return f"{type(estimator).__name__} reads or restores states of the device"
    if isinstance(estimator, Unrolled) and estimator.checkpoint:
        return "activation checkpointing restores random states"
    if isinstance(estimator, Exact):
        if estimator.adjoint is not None:
            return "its adjoint starts where the latest one ended"
        return _of_solver(estimator.solver)
    return None


def _of_solver(solver: Solver) -> str | None:
    if solver.name not in TRACEABLE:
        return f"{solver.name} decides on the host; use one of {', '.join(TRACEABLE)}"
    return None if solver.tol == 0 else f"{solver.name} needs tol=0, not {solver.tol:g}"


class _Pass(nn.Module):
    """The network as a function of tensors that returns tensors, and no hooks of its own."""

    def __init__(self, network: nn.Module, forward: Forward, call: Nested) -> None:
        super().__init__()
        self.network = network
        self._plain = forward
        self._call = call
        self.output: Nested | None = None

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        arguments, options = self._call.with_tensors(tensors)
        self.output = Nested.of(self._plain(*arguments, **options))
        return self.output.tensors


class _Turn:
    """One replay of the forward pass, until its backward pass has run or never will."""

    def __init__(self, reports: list[tuple[SolveReport, SolveReport]]) -> None:
        self.reports = reports
        self.finished = False

    def finish(self) -> None:
        """Copy what the backward pass has reported, before the next replay writes it again."""
        self.finished = True
        for fresh, recorded in self.reports:
            fresh.backward = None if recorded.backward is None else _copied(recorded.backward)


class _Watched(torch.autograd.Function):
    """Copies of what a replay has written; tells its turn once the backward pass is over."""

    @staticmethod
    def forward(ctx: Any, turn: _Turn, *outputs: Tensor) -> tuple[Tensor, ...]:
        ctx.turn = turn
        copies = tuple(output.clone() for output in outputs)
        pairs = zip(outputs, copies, strict=True)
        ctx.mark_non_differentiable(*(copy for output, copy in pairs if not output.requires_grad))
        return copies

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        Variable._execution_engine.queue_callback(ctx.turn.finish)
        return None, *cotangents


class Recording:
    """The forward and backward pass of one call of a network, recorded as CUDA graphs.

    A replay reads the weights as they are at that moment, and draws new random numbers. Its outputs
    and reports are copies. Raises CannotRecordError where the pass waits for the device or does
    something else that CUDA cannot record.
    """

    def __init__(
        self, network: nn.Module, forward: Forward, call: Nested, warmups: int = WARMUPS
    ) -> None:
        self._layers = equilibrium_layers(network)
        tensors = tuple(t.detach().clone().requires_grad_(t.requires_grad) for t in call.tensors)
        self._pass = _Pass(network, forward, call)
        with _left_as_they_were(network), _autocast_without_cache():
            try:
                torch.cuda.make_graphed_callables(
                    self._pass, tensors, num_warmup_iters=warmups, allow_unused_input=True,
                    **_beside_other_threads(),
                )  # fmt: skip
            except RuntimeError as error:
                first = str(error).partition("\n")[0]
                raise CannotRecordError(
                    f"the training pass of {type(network).__name__} cannot be recorded as a CUDA "
                    f"graph: {first}"
                ) from error
        self._reports = {
            name: layer.report for name, layer in self._layers.items() if layer.report is not None
        }
        # What a replay gives is memory of the graph, which the next replay writes again.
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        self._hooks = [weight.register_hook(torch.clone) for weight in trained]
        self._turn: Callable[[], _Turn | None] = lambda: None

    @property
    def busy(self) -> bool:
        """Whether a backward pass is pending, whose memory a replay would overwrite."""
        turn = self._turn()
        return turn is not None and not turn.finished

    def __call__(self, *tensors: Tensor) -> Any:
        """What the network makes of these tensors, of the shapes of those recorded."""
        outputs = self._pass(*tensors)
        turn = _Turn(self._renew_reports())
        self._turn = ref(turn)
        assert self._pass.output is not None
        return self._pass.output.with_tensors(_Watched.apply(turn, *outputs))

    def discard(self) -> None:
        """Remove the hooks from the weights."""
        for hook in self._hooks:
            hook.remove()

    def _renew_reports(self) -> list[tuple[SolveReport, SolveReport]]:
        """Give every layer a copy of its report, which is the recorded one with new numbers."""
        pairs = []
        for name, recorded in self._reports.items():
            fresh = _copied(recorded)
            self._layers[name].report = fresh
            pairs.append((fresh, recorded))
        return pairs


def _beside_other_threads() -> dict[str, Any]:
    """Let threads that fetch the next batch into pinned memory go on meanwhile."""
    known = signature(torch.cuda.make_graphed_callables).parameters
    return {"capture_error_mode": "thread_local"} if "capture_error_mode" in known else {}


def _copied(report: SolveReport) -> SolveReport:
    """The report, without that of a backward pass, in memory of its own."""
    copied = replace(report, backward=None)
    for name, value in vars(copied).items():
        if isinstance(value, Tensor):
            setattr(copied, name, value.clone())
    return copied


@contextmanager
def _left_as_they_were(network: nn.Module) -> Iterator[None]:
    """Undo what passes do to buffers, such as running statistics, and to random states."""
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    with torch.random.fork_rng([torch.cuda.current_device()]):
        try:
            yield
        finally:
            for buffer, value in kept:
                buffer.copy_(value)


def _autocast_without_cache() -> torch.autocast:
    """The caller's autocast; its cache would hold weights that a replay does not renew."""
    return torch.autocast(
        "cuda",
        dtype=torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )
