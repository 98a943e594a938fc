"""The replaced cotangent inside `torch.func.grad`, `vjp` and their like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from equipoise.equilibrium.function import evaluate
from equipoise.equilibrium.gradients.attached_graph import Graph, Rule
from equipoise.equilibrium.gradients.estimator import constant, finite_or_kept
from equipoise.equilibrium.gradients.second_derivatives import Once
from equipoise.equilibrium.solution import Solution, SolveReport
from equipoise.equilibrium.state import Function, Layout, State, parts


def transformed() -> bool:
    """Whether a transform of torch.func is at work, where `requires_grad_` is not allowed."""
    return torch._C._are_functorch_transforms_active()


def attach_functionally(
    f: Function, solution: Solution, inputs: tuple[Tensor, ...], rule: Rule
) -> State:
    """`attach_rule` by a second evaluation of f in the backward pass.

    There torch.func gives the products with J^T, at the level of the transform that asks.
    """
    z = constant(solution.z)
    fz = evaluate(f, z, *inputs)

    def evaluated(z: State) -> State:
        return evaluate(f, z, *inputs)

    outputs = _FunctionalCotangent.apply(rule, evaluated, z, solution.report, *parts(fz))
    return finite_or_kept(outputs if isinstance(fz, tuple) else outputs[0], solution.z)


@dataclass(frozen=True)
class _FunctionalGraph:
    """Products with J^T by a function instead of a graph."""

    pull: Callable[[State], tuple[State]]
    layout: Layout
    dtypes: tuple[torch.dtype, ...]

    def product(self, w: Tensor) -> Tensor:
        rows = parts(self.layout.restore(w))
        cast = tuple(row.to(dtype) for row, dtype in zip(rows, self.dtypes, strict=True))
        return self.layout.flatten(self.pull(cast if self.layout.is_tuple else cast[0])[0])


class _FunctionalCotangent(torch.autograd.Function):
    """Identity on f(z*), whose backward applies the rule."""

    @staticmethod
    def forward(
        rule: Rule,
        evaluate: Callable[[State], State],
        z: State,
        report: SolveReport,
        *fz: Tensor,
    ) -> tuple[Tensor, ...]:
        return tuple(part.view_as(part) for part in fz)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.rule, ctx.evaluate, ctx.z, ctx.report = inputs[:4]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        pulled = torch.func.vjp(ctx.evaluate, ctx.z)
        value, pull = cast(tuple[State, Callable[[State], tuple[State]]], pulled)
        layout = Layout.of(value)
        graph: Graph = _FunctionalGraph(pull, layout, tuple(part.dtype for part in parts(value)))
        c = layout.flatten(cotangents if layout.is_tuple else cotangents[0])
        w, ctx.report.backward = ctx.rule(c, graph)
        pairs = zip(parts(layout.restore(w)), cotangents, strict=True)
        found = tuple(a.to(b.dtype) for a, b in pairs)
        return (None, None, None, None, *Once.apply(len(found), *found, *parts(value)))
