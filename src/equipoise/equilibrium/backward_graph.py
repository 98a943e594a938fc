"""The graph of f at the solution: its cotangent replaced by a rule, its leaves, its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, cast

import torch
from torch import Tensor

from equipoise.equilibrium.flat_function import AttachedGraph, evaluate, transformed
from equipoise.equilibrium.solution import Solution, SolveReport
from equipoise.equilibrium.state import (
    Function,
    Layout,
    State,
    constant,
    detached,
    finite_or_kept,
    parts,
)


class Graph(Protocol):
    """What a rule needs: products with J^T, J = df/dz at the solution."""

    def product(self, w: Tensor) -> Tensor:
        """J^T w: (B, D) -> (B, D)."""
        ...


Rule = Callable[[Tensor, Graph], tuple[Tensor, SolveReport]]
"""(cotangent c (B, D), graph of f at the solution) -> (w (B, D), what it took): w stands for
(I - J)^-T c, and the gradient is w^T df/d(theta, inputs)."""


def leaf_tensors(outputs: State, stop: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The leaves that require a gradient and reach `outputs` by a path that avoids all of `stop`.

    In the order in which they are met, which is that of the graph and the same in every process.
    """
    barred = {id(tensor) for tensor in stop}
    nodes: list[Any] = [part.grad_fn for part in parts(outputs)]
    seen: set[Any] = {tensor.grad_fn for tensor in stop} | {None}
    leaves: list[Tensor] = []
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in barred:
            leaves.append(leaf)
        nodes.extend(after for after, _ in node.next_functions)
    return tuple(leaves)


def refuse_second_derivatives() -> None:
    """Raise RuntimeError inside a backward pass that has to build a graph of its own.

    The graph would treat the solution as a constant, and its derivatives would be silently wrong.
    """
    if torch.is_grad_enabled():
        _refuse()


class Once(torch.autograd.Function):
    """once(count, *tensors): the first `count` tensors, which cannot be differentiated twice.

    They depend on the other tensors without a graph that shows it. For backward passes that
    torch.func always runs with a graph, so that a second derivative is refused only if it is taken.
    """

    @staticmethod
    def forward(count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The first `count` tensors, as they are."""
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> NoReturn:
        """Refuse: this runs only if a second derivative is taken."""
        _refuse()


def _refuse() -> NoReturn:
    raise RuntimeError(
        "second derivatives through this gradient estimator are not available; "
        "use gradient=unrolled where a double backward is needed"
    )


def attach_functionally(
    f: Function, solution: Solution, inputs: tuple[Tensor, ...], rule: Rule
) -> State:
    """`attach_rule` by a second evaluation of f in the backward pass.

    The products with J^T come from torch.func, at the level of the transform that needs them.
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
        layout = Layout.of(ctx.z)  # the order of the columns is that of the solve
        graph: Graph = _FunctionalGraph(pull, layout, tuple(part.dtype for part in parts(value)))
        c = layout.flatten(cotangents)
        w, ctx.report.backward = ctx.rule(c, graph)
        pairs = zip(parts(layout.restore(w)), cotangents, strict=True)
        replaced = tuple(a.to(b.dtype) for a, b in pairs)
        return (None, None, None, None, *Once.apply(len(replaced), *replaced, *parts(value)))


def attach_rule(f: Function, solution: Solution, inputs: tuple[Tensor, ...], rule: Rule) -> State:
    """f(z*) whose backward replaces its cotangent by `rule` before it reaches f.

    One graph of f, at the solution, serves every product of the rule and the final product with
    df/d(theta, x). Where f(z*) is not finite, the value is z*.
    """
    if transformed():
        return attach_functionally(f, solution, inputs, rule)
    evaluation = solution.evaluate(f, detached, *inputs)
    z, fz = parts(evaluation.z), parts(evaluation.fz)
    outputs = _ReplacedCotangent.apply(rule, z, solution.report, *fz)
    return finite_or_kept(outputs if isinstance(evaluation.fz, tuple) else outputs[0], solution.z)


class _ReplacedCotangent(torch.autograd.Function):
    """Identity on f(z*), whose backward applies the rule."""

    @staticmethod
    def forward(
        ctx: Any, rule: Rule, z: tuple[Tensor, ...], report: SolveReport, *fz: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.rule, ctx.z, ctx.report = rule, z, report
        ctx.save_for_backward(*fz)
        return tuple(part.view_as(part) for part in fz)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        refuse_second_derivatives()
        layout = Layout.of(ctx.z)  # the order of the columns is that of the solve
        graph = AttachedGraph(ctx.z, ctx.saved_tensors, layout)
        # The algebra of a rule keeps its precision, wherever the backward pass was called.
        with torch.autocast(layout.device.type, enabled=False):
            w, ctx.report.backward = ctx.rule(layout.flatten(cotangents), graph)
        pairs = zip(parts(layout.restore(w)), cotangents, strict=True)
        return (None, None, None, *(a.to(b.dtype) for a, b in pairs))


@dataclass(frozen=True)
class Fidelity:
    """Cosine of the angle between two gradients, and |estimated| / |exact|; scalars on the device.

    All tensors of a gradient count as one vector.
    """

    cosine: Tensor
    norm_ratio: Tensor


def compare_gradients(
    estimated: Iterable[Tensor | None], exact: Iterable[Tensor | None]
) -> Fidelity:
    """The fidelity of two gradients given tensor by tensor; None stands for zero.

    Raises ValueError if there is no tensor to compare.
    """
    pairs = zip(estimated, exact, strict=True)
    sums = [_products(a, b) for a, b in pairs if a is not None or b is not None]
    if not sums:
        raise ValueError("there is no gradient to compare")
    inner, square, exact_square = torch.stack(sums).sum(0).unbind()
    tiny = torch.finfo(torch.float64).tiny
    size, exact_size = square.sqrt().clamp(min=tiny), exact_square.sqrt().clamp(min=tiny)
    return Fidelity(inner / size / exact_size, size / exact_size)


def _products(a: Tensor | None, b: Tensor | None) -> Tensor:
    """<a, b>, <a, a>, <b, b> in float64."""
    some = a if a is not None else b
    assert some is not None
    zero = some.new_zeros((), dtype=torch.float64)
    left = None if a is None else a.flatten().double()
    right = None if b is None else b.flatten().double()
    inner = zero if left is None or right is None else left.dot(right)
    square = zero if left is None else left.dot(left)
    return torch.stack((inner, square, zero if right is None else right.dot(right)))
