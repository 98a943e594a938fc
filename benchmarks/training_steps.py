"""Whole training steps, forward, backward and Adam: ours, the bare evaluations, and torchdeq's.

A case is a model at a batch size and a precision with one method; its sides take the same steps on
the same input. Used on the CPU by `benchmarks.steps`, on a GPU by `benchmarks.gpu`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch._functorch.config as functorch
from torch import nn

from benchmarks.stand_ins import Bare, Counted, TorchDEQ, torchdeq_is_there
from benchmarks.step_cases import Case, methods
from equipoise.equilibrium import Equilibrium
from equipoise.equilibrium.compiled import compiled as compiled_function
from equipoise.equilibrium.cuda_graph import graphed

ROUNDS = 5
BLOCK_SECONDS = 0.03
"""A side is called so often that a round takes this long, so that a clock's step is small in it."""


class Training:
    """A model with its optimiser; `step` is one training step."""

    def __init__(
        self, case: Case, equilibrium: nn.Module, *, compiled: bool = False, replayed: bool = False
    ) -> None:
        """Of `compiled`, f is torch.compile's; of `replayed`, the passes are CUDA graphs."""
        torch.manual_seed(0)
        self.case = case
        self.network = case.build(equilibrium).train()
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=1e-4, fused=case.device == "cuda"
        )
        if compiled:
            compile_cell(self.network)
        if replayed:
            with self.autocast():
                graphed(self.network, *case.inputs)

    def autocast(self) -> Any:
        if self.case.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.case.device, dtype=torch.bfloat16)

    def step(self) -> None:
        self.optimizer.zero_grad()
        with self.autocast():
            loss = self.case.loss(self.network(*self.case.inputs))
        loss.backward()
        self.optimizer.step()


def compile_cell(network: nn.Module) -> None:
    """Let torch.compile make f, of fixed shapes, for products on a graph that is kept."""
    (cell,) = (part for name, part in network.named_modules() if name.split(".")[-1] == "cell")
    try:
        compiled_function(cell)
    except TypeError:  # a torch whose compile() has not all of the settings
        functorch.donated_buffer = False  # they are gone after the first product with J^T
        cell.compile(dynamic=False)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(side: Callable[[], object], calls: int, device: str) -> float:
    """Time of one call, as the mean of several without a wait in between.

    On the CPU that of this process alone, which a busy machine disturbs least.
    """
    clock = time.perf_counter if device == "cuda" else time.process_time
    synchronize(device)
    start = clock()
    for _ in range(calls):
        side()
    synchronize(device)
    return (clock() - start) / calls


def timed(
    sides: Mapping[str, Callable[[], object]], device: str, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Times of every side over the rounds, in turn; the first call of each is not counted."""
    first = {}
    for name, side in sides.items():
        if device == "cuda":
            side()  # recordings and compilers have ended after it
        first[name] = seconds(side, 1, device)
    calls = {
        name: max(1, min(20, int(BLOCK_SECONDS / max(spent, 1e-6))))
        for name, spent in first.items()
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(seconds(side, calls[name], device))
    return times


def over(times: Mapping[str, Sequence[float]], side: str, base: str) -> float | None:
    """Median over the rounds of a side's time over another's; None where one is missing."""
    if side not in times or base not in times:
        return None
    return statistics.median(a / b for a, b in zip(times[side], times[base], strict=True))


def peak_mib(side: Callable[[], object], device: str) -> float | None:
    """The most memory of tensors that a call holds beyond what it finds; None on the CPU."""
    if device != "cuda":
        return None
    synchronize(device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    side()
    synchronize(device)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def sides_of(case: Case) -> dict[str, Training]:
    """ours first; the others where they exist for the case, bare with the evaluations of ours."""
    method = methods(*case.budgets)[case.method]

    def layer() -> Equilibrium:
        return Equilibrium(method.solver, method.estimator)

    ours = Training(case, layer())
    evaluations = Counted.in_step(ours)
    bare = Bare(evaluations - method.graphs, method.graphs, method.products)
    sides = {"ours": ours, "bare": Training(case, bare)}
    recordable = case.device == "cuda" and method.solver.tol == 0
    if case.compiled:
        sides["compiled"] = Training(case, layer(), compiled=True)
    if recordable:
        sides["graph"] = Training(case, layer(), replayed=True)
    if recordable and case.compiled:
        sides["compiled graph"] = Training(case, layer(), compiled=True, replayed=True)
    if method.peer and torchdeq_is_there() and case.precision == "fp32":
        sides["torchdeq"] = Training(case, TorchDEQ(method.solver.max_steps, dict(method.peer)))
    return sides
