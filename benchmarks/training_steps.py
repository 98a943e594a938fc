"""Whole training steps, forward, backward and Adam: ours, the bare evaluations, and torchdeq's.

A case is a model at a batch size and a precision with one method; its sides take the same steps on
the same input. Used on the CPU by `benchmarks.steps`, on a GPU by `benchmarks.gpu`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch._functorch.config as functorch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.stand_ins import Bare, Counted, TorchDEQ, torchdeq_is_there
from equipoise.equilibrium import (
    Anderson,
    Broyden,
    Equilibrium,
    Exact,
    GradientEstimator,
    JacobianFree,
    Phantom,
    Shine,
    Solver,
)
from equipoise.equilibrium.compiled import compiled
from equipoise.equilibrium.cuda_graph import graphed
from equipoise.models import MDEQ, DEQTransformer

PHANTOM = 5
ROUNDS = 5
BLOCK_SECONDS = 0.03
"""A side is called so often that a round takes this long, so that a clock's step is small in it."""
VOCABULARY, LENGTH = 2000, 64


@dataclass(frozen=True)
class Method:
    """A solver, an estimator, and what they cost: evaluations with a graph, products with J^T.

    peer: torchdeq's settings for the same; empty where it has nothing like it.
    """

    solver: Solver
    estimator: GradientEstimator
    graphs: int
    products: int
    peer: Mapping[str, Any] = field(default_factory=dict)


def methods(forward: int, backward: int) -> dict[str, Method]:
    """By name; `forward` evaluations of every solve, `backward` products of every adjoint solve."""
    anderson, broyden = (kind(max_steps=forward, tol=0) for kind in (Anderson, Broyden))
    adjoint = {kind: Exact(kind(max_steps=backward, tol=0)) for kind in (Anderson, Broyden)}
    by = {name: {"f_solver": name, "b_solver": name} for name in ("anderson", "broyden")}
    exact = {"ift": True, "backward": backward}
    phantom = {"grad": PHANTOM, "tau": 0.5}
    return {
        "broyden, exact": Method(broyden, adjoint[Broyden], 1, backward, exact | by["broyden"]),
        "anderson, exact": Method(anderson, adjoint[Anderson], 1, backward, exact | by["anderson"]),
        "broyden, phantom": Method(broyden, Phantom(PHANTOM), PHANTOM, 0, phantom | by["broyden"]),
        "anderson, phantom": Method(
            anderson, Phantom(PHANTOM), PHANTOM, 0, phantom | by["anderson"]
        ),
        "broyden, shine": Method(broyden, Shine(), 1, 0),
        "broyden, jfb": Method(broyden, JacobianFree(), 1, 0, {"grad": 1, **by["broyden"]}),
        # A tolerance that nothing meets: on a GPU the last evaluation keeps its graph.
        "broyden, jfb, one sync": Method(
            replace(broyden, tol=1e-30, check_every=forward), JacobianFree(), 1, 0
        ),
    }


@dataclass
class Case:
    """A model at a batch size and a precision, with one method."""

    model: str
    batch: int
    precision: str
    method: str
    budgets: tuple[int, int]
    build: Callable[[nn.Module], nn.Module] = field(repr=False)
    inputs: tuple[Tensor, ...] = field(repr=False)
    loss: Callable[[Any], Tensor] = field(repr=False)
    compiled: bool = False

    @property
    def device(self) -> str:
        return self.inputs[0].device.type

    @property
    def name(self) -> str:
        return f"{self.model}, batch {self.batch}, {self.precision}, {self.method}"


class Training:
    """A model with its optimiser; `step` is one training step."""

    def __init__(
        self, case: Case, equilibrium: nn.Module, *, compiled: bool = False, replayed: bool = False
    ) -> None:
        """compiled: f by torch.compile; replayed: the passes as CUDA graphs."""
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
        compiled(cell)
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
    layer = lambda: Equilibrium(method.solver, method.estimator)  # noqa: E731
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


def mdeq_case(
    size: str,
    batch: int,
    precision: str,
    method: str,
    budgets: tuple[int, int] = (18, 20),
    device: str = "cpu",
    side: int = 32,
    compiled: bool = False,
) -> Case:
    """A step of MDEQ on random pictures; "bf16 nhwc" keeps weights and pictures channels_last."""
    last = precision.endswith("nhwc")
    layout = torch.channels_last if last else torch.contiguous_format
    image = torch.randn(batch, 3, side, side).to(device, memory_format=layout)
    label = torch.randint(10, (batch,)).to(device)

    def build(equilibrium: nn.Module) -> nn.Module:
        network = MDEQ(equilibrium, classes=10, image_size=side, size=size)  # type: ignore[arg-type]
        return network.to(device, memory_format=layout)

    def loss(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits.float(), label)

    return Case(
        f"MDEQ {size}", batch, precision, method, budgets, build, (image,), loss, compiled
    )  # fmt: skip


class Losses(nn.Module):
    """A transformer as a map from tokens to the losses of their successors, for a graph."""

    def __init__(self, model: DEQTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = self.model.token_losses(self.model(tokens).hidden, targets)
        return losses


def transformer_case(
    batch: int,
    precision: str,
    method: str,
    budgets: tuple[int, int] = (30, 36),
    device: str = "cpu",
    width: int = 128,
    length: int = LENGTH,
    compiled: bool = False,
) -> Case:
    """A step of the equilibrium transformer, 64 tokens, 2,000 symbols with a plain softmax."""
    drawn = torch.randint(VOCABULARY, (batch, length + 1)).to(device)

    def build(equilibrium: nn.Module) -> nn.Module:
        return Losses(
            DEQTransformer(
                equilibrium, vocabulary=VOCABULARY, memory_length=length, width=width, heads=4,
                inner_width=4 * width, cutoffs=(), dropout=0.05,
            )
        ).to(device)  # fmt: skip

    inputs = drawn[:, :-1], drawn[:, 1:].contiguous()
    return Case(
        "DEQ-Transformer", batch, precision, method, budgets, build, inputs, torch.mean, compiled
    )  # fmt: skip
