"""The reversible equilibrium: an iteration that can be run backwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.backward_graph import leaf_tensors, refuse_second_derivatives
from equipoise.equilibrium.flat_function import evaluate, transformed
from equipoise.equilibrium.gradients.estimator import report_iteration, rule_of
from equipoise.equilibrium.randomness import RandomState
from equipoise.equilibrium.solution import TINY, Solution, SolveReport, StoppingRule
from equipoise.equilibrium.state import Function, Layout, State, constant, detached, parts


@dataclass(frozen=True)
class Reversible:
    """Coupled relaxation from z0, whose backward pass rebuilds every state by inversion.

    y <- (1 - b) y + b f(z), z <- (1 - b) z + b f(y), b = `relaxation` in (0, 2) but not 1, in
    training and in evaluation; no solver runs. The gradient is exact for the steps taken. Cost: 2
    `steps` evaluations forward, the same and as many products with J^T backward; memory of one f
    and two float64 states whatever `steps`. Every step back multiplies rounding errors by up to
    1 / |1 - b|: `report.backward.residual` is |rebuilt z0 - z0| / |z_N|.

    f may read parameters by closure, but what it computes must not depend on anything that changes
    until the backward pass; random numbers and autocast are repeated. Hooks on a parameter run once
    per evaluation. Source: arXiv 2509.12917, the coupled update and its algebraic inverse.
    """

    name: ClassVar[str] = "reversible"
    own_iteration: ClassVar[bool] = True

    steps: int = 6
    relaxation: float = 0.8

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"reversible needs at least one step, got {self.steps}")
        if not 0 < self.relaxation < 2 or self.relaxation == 1:
            raise ValueError(f"relaxation must lie in (0, 2) and not be 1, got {self.relaxation}")

    def with_budget(self, evaluations: int) -> Reversible:
        """Two evaluations per step."""
        return replace(self, steps=max(evaluations // 2, 1))

    def attach(self, f: Function, solution: Solution, z0: State, *inputs: Tensor) -> State:
        """z after all steps."""
        dtypes = tuple(part.dtype for part in parts(z0))
        layout = Layout.of(z0, torch.float64)
        rule, report = rule_of(solution), solution.report
        coupled = CoupledSteps(f, layout, dtypes, self.steps, self.relaxation, rule, report)
        if not torch.is_grad_enabled():
            _, z, _ = coupled.run(layout.flatten(z0), inputs)
            return coupled.state(z)
        if transformed():
            raise ValueError("reversible does not work inside torch.func transforms; use unrolled")
        return self._attached(coupled, z0, inputs)

    def _attached(self, coupled: CoupledSteps, z0: State, inputs: tuple[Tensor, ...]) -> State:
        random_state = RandomState.capture(coupled.layout.device)
        first, leaves = _traced(coupled, z0, inputs)
        tensors = (*parts(z0), *inputs, *leaves)
        counts = (len(parts(z0)), len(inputs))
        outputs = ReversibleSteps.apply(coupled, random_state, first, counts, *tensors)
        return outputs if coupled.layout.is_tuple else outputs[0]


def _traced(
    coupled: CoupledSteps, z0: State, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """f(z0) (B, D), evaluated with a graph, which tells the leaves that f reads by closure."""
    local = tuple(x.detach().requires_grad_(x.requires_grad) for x in inputs)
    value = evaluate(coupled.f, constant(z0), *local)
    return coupled.layout.flatten(value).detach(), leaf_tensors(value, local)


@dataclass
class CoupledSteps:
    """y <- (1 - b) y + b f(z), z <- (1 - b) z + b f(y), `steps` times; b is the relaxation.

    States are float64 matrices (B, D) for any precision of f, `dtypes` per part: each step back
    divides by 1 - b and so multiplies rounding errors.
    """

    f: Function
    layout: Layout
    dtypes: tuple[torch.dtype, ...]
    steps: int
    relaxation: float
    rule: StoppingRule
    report: SolveReport

    def state(self, flat: Tensor) -> State:
        """(B, D) -> a state in the precision that f takes."""
        rows = parts(self.layout.restore(flat))
        cast = tuple(part.to(dtype) for part, dtype in zip(rows, self.dtypes, strict=True))
        return cast if self.layout.is_tuple else cast[0]

    def evaluate(self, flat: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        """f: (B, D) -> (B, D)."""
        return self.layout.flatten(evaluate(self.f, self.state(flat), *inputs))

    def relax(self, old: Tensor, value: Tensor) -> Tensor:
        """(1 - b) old + b value."""
        return torch.lerp(old, value, self.relaxation)

    def unrelax(self, new: Tensor, value: Tensor) -> Tensor:
        """The `old` from which `relax` made `new`."""
        return new.sub(value, alpha=self.relaxation).div_(1 - self.relaxation)

    def run(
        self, start: Tensor, inputs: tuple[Tensor, ...], first: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[RandomState]]:
        """y, z after all steps, and the random states of the evaluations after a known first.

        first: f(start), where it is known.
        """
        y = z = start
        random_states: list[RandomState] = []
        for _ in range(self.steps):
            if first is None:
                random_states.append(RandomState.capture(self.layout.device))
                first = self.evaluate(z, inputs)
            y, first = self.relax(y, first), None
            random_states.append(RandomState.capture(self.layout.device))
            value = self.evaluate(y, inputs)
            z = self.relax(z, value)
        # The residual is that of y at the last evaluation.
        report_iteration(self.report, self.rule, y, value, 2 * self.steps)
        return y, z, random_states


class ReversibleSteps(torch.autograd.Function):
    """All coupled steps as one node of f(z0), z0, f's inputs and the leaves that f reads."""

    @staticmethod
    def forward(
        ctx: Any,
        coupled: CoupledSteps,
        first_random_state: RandomState,
        first: Tensor,
        counts: tuple[int, int],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        """Run the steps without a graph, and keep only where they ended."""
        z0, inputs, leaves = _split(tensors, counts)
        start = coupled.layout.flatten(z0)
        y, z, random_states = coupled.run(start, inputs, first)
        ctx.coupled = coupled
        ctx.needs = [tensor.requires_grad for tensor in inputs]
        ctx.random_states = [first_random_state, *random_states]
        # Leaves are kept as the objects that they are: hooks on saved tensors may give back copies.
        ctx.leaves, ctx.versions = leaves, [leaf._version for leaf in leaves]
        ctx.save_for_backward(y, z, start, *inputs)
        return parts(coupled.state(z.clone()))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        """Undo the steps one by one, each with its product."""
        refuse_second_derivatives()
        coupled: CoupledSteps = ctx.coupled
        if ctx.versions != [leaf._version for leaf in ctx.leaves]:
            raise RuntimeError("a parameter was modified in place between forward and backward")
        y, z, start, *inputs = ctx.saved_tensors
        end = torch.linalg.vector_norm(z, dim=1)
        pull = Pullback(coupled, _local(inputs, ctx.needs), ctx.leaves)
        random_states = list(ctx.random_states)
        c_z = coupled.layout.flatten(cotangents)
        c_y = torch.zeros_like(c_z)
        keep = 1 - coupled.relaxation
        while random_states:
            value, product = pull(y, c_z, random_states.pop())
            z, c_y, c_z = coupled.unrelax(z, value), c_y + product, c_z * keep
            first = len(random_states) == 1
            # The start is known: an f that normalises is steep at a start of zeros.
            value, product = pull(start if first else z, c_y, random_states.pop())
            y, c_z, c_y = coupled.unrelax(y, value), c_z + product, c_y * keep
        error = torch.linalg.vector_norm(z - start, dim=1)
        coupled.report.backward = SolveReport(2 * coupled.steps, residual=error / (end + TINY))
        towards_start = parts(coupled.state(c_y + c_z))
        leading = (None, None, None, None, *towards_start)
        return (*leading, *pull.input_gradients(), *pull.leaf_gradients())


def _split(
    tensors: tuple[Tensor, ...], counts: tuple[int, int]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The parts of z0, f's inputs, the leaves."""
    first, second = counts[0], counts[0] + counts[1]
    return tensors[:first], tensors[first:second], tensors[second:]


def _local(tensors: list[Tensor], needs: list[bool]) -> tuple[Tensor, ...]:
    """The same values as leaves of their own."""
    pairs = zip(tensors, needs, strict=True)
    return tuple(tensor.detach().requires_grad_(needed) for tensor, needed in pairs)


@dataclass
class Pullback:
    """f evaluated again, with its products; gradients towards `inputs` and `leaves` add up.

    inputs: leaves of the caller's own, of which some require gradients.
    """

    coupled: CoupledSteps
    inputs: tuple[Tensor, ...]
    leaves: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        trained = (tensor for tensor in self.inputs if tensor.requires_grad)
        self.targets = (*trained, *self.leaves)
        self.totals = tuple(torch.zeros_like(target) for target in self.targets)

    def __call__(
        self, flat: Tensor, cotangent: Tensor, random_state: RandomState
    ) -> tuple[Tensor, Tensor]:
        """f(z), and b J^T c, for z and c (B, D); b times the other gradients are added up."""
        coupled = self.coupled
        with torch.enable_grad(), random_state.restored():
            state = detached(coupled.state(flat))
            value = evaluate(coupled.f, state, *self.inputs)
        self._check(value, state)
        weighted = parts(coupled.layout.restore(cotangent * coupled.relaxation))
        pairs = [
            (part, c.to(part.dtype))
            for part, c in zip(parts(value), weighted, strict=True)
            if part.requires_grad
        ]
        # The graph may lead on into tensors that f has captured, which the next call passes again.
        gradients = torch.autograd.grad(
            [part for part, _ in pairs],
            (*parts(state), *self.targets),
            [c for _, c in pairs],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        count = len(parts(state))
        for total, gradient in zip(self.totals, gradients[count:], strict=True):
            total.add_(gradient)
        products = coupled.layout.flatten(gradients[:count])
        return coupled.layout.flatten(value).detach(), products

    def input_gradients(self) -> list[Tensor | None]:
        """One entry per input, None where it needs no gradient."""
        totals = iter(self.totals)
        return [next(totals) if tensor.requires_grad else None for tensor in self.inputs]

    def leaf_gradients(self) -> tuple[Tensor, ...]:
        """One entry per leaf."""
        return self.totals[len(self.totals) - len(self.leaves) :]

    def _check(self, value: State, state: State) -> None:
        met = leaf_tensors(value, (*parts(state), *self.inputs))
        first = {id(leaf) for leaf in self.leaves}
        if any(id(leaf) not in first for leaf in met):
            raise RuntimeError(
                "f reads other parameters in the backward pass than at its first evaluation; "
                "the reversible gradient needs an f that reads the same ones every time"
            )
