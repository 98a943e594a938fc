"""The parts of an equilibrium layer: they add up, count what the reports count, change nothing."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from equipoise.equilibrium import (
    LBFGS,
    Anderson,
    ConjugateGradient,
    Descent,
    Equilibrium,
    FixedPoint,
)
from equipoise.equilibrium.flat_function import AffineMap
from equipoise.equilibrium.gradients import (
    Exact,
    GradientEstimator,
    JacobianFree,
    Neumann,
    Phantom,
    Reversible,
    Shine,
    Unrolled,
)
from equipoise.equilibrium.regularizers import JacobianRegularizer
from equipoise.equilibrium.solvers import Broyden
from equipoise.equilibrium.timing import (
    ALGEBRA,
    BACKWARD_ALGEBRA,
    EVALUATIONS,
    PRODUCTS,
    REPEATED,
    Clock,
    time_layers,
)

OUTSIDE = "outside"
ESTIMATORS: tuple[GradientEstimator, ...] = (
    Exact(solver=Anderson(max_steps=6, tol=0)),
    Phantom(steps=3),
    Neumann(steps=4),
    JacobianFree(),
    Shine(),
    Unrolled(steps=4),
    Unrolled(steps=4, checkpoint=True),
    Reversible(steps=3),
)


class Block(nn.Module):
    """f(z, x) = tanh(W z + x) of one tensor, or of two that depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(6, 6, generator=torch.manual_seed(0)) / 6**0.5)

    def forward(self, z: Tensor | tuple[Tensor, ...], x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if isinstance(z, Tensor):
            return (z @ self.weight + x).tanh()
        a, b = z
        return (b @ self.weight + x).tanh(), (a @ self.weight - x).tanh()


class Net(nn.Module):
    """A stem, an equilibrium of one or two tensors, and a head."""

    def __init__(self, gradient: GradientEstimator, parts: int = 1, penalty: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem, self.f, self.head = nn.Linear(4, 6), Block(), nn.Linear(6, 3)
        kind = Broyden if isinstance(gradient, Shine) else Anderson
        solver = FixedPoint() if gradient.own_iteration else kind(max_steps=5, tol=0)
        regularizer = JacobianRegularizer() if penalty else None
        self.layer = Equilibrium(solver, gradient, regularizer=regularizer)
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        injected = self.stem(x)
        zero = torch.zeros_like(injected)
        start = zero if self.parts == 1 else (zero, zero.clone())
        z = self.layer(self.f, start, injected)
        return self.head(z if self.parts == 1 else z[0] + z[1])


@dataclass
class Ticks:
    """A clock's time that counts its own readings."""

    now: float = field(default=0.0)

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def gradients(net: Net, clock: Clock | None = None) -> list[Tensor]:
    if clock is not None:
        time_layers([net.layer], clock)
        clock.start(OUTSIDE)
    loss = net(torch.randn(5, 4, generator=torch.manual_seed(2))).square().mean()
    penalty = net.layer.pop_penalty()
    (loss if penalty is None else loss + penalty).backward()
    if clock is not None:
        clock.stop()
    return [loss.detach(), *(p.grad for p in net.parameters() if p.grad is not None)]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
def test_timers_change_nothing_and_count_what_the_reports_count(
    estimator: GradientEstimator, parts: int
) -> None:
    plain = gradients(Net(estimator, parts))
    net, clock = Net(estimator, parts), Clock()
    timed = gradients(net, clock)
    assert all(torch.equal(a, b) for a, b in zip(plain, timed, strict=True))
    report = net.layer.report
    assert report is not None
    assert report.backward is not None
    assert clock.calls[ALGEBRA] == clock.calls[BACKWARD_ALGEBRA] == 1
    further = estimator.steps - 1 if isinstance(estimator, Phantom) else 0
    assert clock.calls[EVALUATIONS] == report.nfe + further
    repeated = isinstance(estimator, Reversible) or getattr(estimator, "checkpoint", False)
    assert clock.calls[REPEATED] == (report.nfe if repeated else 0)
    # The rule's products, and the last one towards the parameters where the report leaves it out.
    last = 1 if isinstance(estimator, Exact | Shine) else 0
    assert clock.calls[PRODUCTS] == report.backward.nfe + last


@pytest.mark.parametrize("estimator", [Phantom(steps=2), Exact()], ids=lambda e: e.name)
def test_the_parts_add_up(estimator: GradientEstimator) -> None:
    clock = Clock()
    net = Net(estimator, penalty=True)
    began = time.perf_counter()
    gradients(net, clock)
    whole = time.perf_counter() - began
    assert sum(clock.seconds.values()) == pytest.approx(whole, rel=0.2)
    assert sum(clock.seconds.values()) <= whole
    assert min(clock.seconds[p] for p in (OUTSIDE, EVALUATIONS, ALGEBRA, PRODUCTS)) > 0
    assert clock._open == [OUTSIDE]


def test_every_moment_belongs_to_the_innermost_open_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", Ticks())
    clock = Clock()
    clock.enter("ignored")  # it does not run yet
    clock.start("a")
    clock.enter("b")
    clock.enter("c")
    clock.leave("b")  # what was left open inside it ends with it
    clock.leave("never opened")
    clock.stop()
    clock.enter("ignored")
    assert dict(clock.seconds) == {"a": 2.0, "b": 1.0, "c": 1.0}
    assert dict(clock.calls) == {"b": 1, "c": 1}


def test_a_copied_layer_and_a_removed_clock_work() -> None:
    net, clock = Net(Phantom()), Clock()
    remove = time_layers([net.layer], clock)
    twin = copy.deepcopy(net)
    clock.start(OUTSIDE)
    twin(torch.zeros(1, 4))
    assert clock.calls[ALGEBRA] == 1
    remove()
    net(torch.zeros(1, 4))
    assert clock.calls[ALGEBRA] == 1


@pytest.mark.parametrize("kind", ["descent", "affine"])
def test_the_kinds_of_functions_that_a_solver_asks_more_of_are_timed(kind: str) -> None:
    """A Descent tells values too, an affine map its constant: each evaluation is charged."""
    matrix = torch.diag(torch.linspace(0.1, 1.0, 6)).expand(3, 6, 6)
    shift = torch.ones(3, 6)

    def gradient(z: Tensor) -> Tensor:
        return (matrix @ z.unsqueeze(2)).squeeze(2) - shift

    def objective(z: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 * ((gradient(z) - shift) * z).sum(dim=1), gradient(z)

    def function() -> Descent | AffineMap:
        if kind == "descent":
            return Descent(gradient, objective)
        return AffineMap(lambda z: z - gradient(z) - shift, shift)

    solver = LBFGS() if kind == "descent" else ConjugateGradient()
    layer, clock = Equilibrium(solver, JacobianFree()), Clock()
    with torch.no_grad():
        plain = layer(function(), torch.zeros(3, 6))
        time_layers([layer], clock)
        clock.start(OUTSIDE)
        timed = layer(function(), torch.zeros(3, 6))
        clock.stop()
    assert torch.equal(plain, timed)
    assert layer.report is not None
    assert clock.calls[EVALUATIONS] == layer.report.nfe
