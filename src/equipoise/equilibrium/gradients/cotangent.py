"""One attached evaluation of f whose backward replaces the cotangent by a rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equipoise.equilibrium.gradients.attached_graph import AttachedGraph, Rule
from equipoise.equilibrium.gradients.estimator import finite_or_kept
from equipoise.equilibrium.gradients.functional_cotangent import attach_functionally, transformed
from equipoise.equilibrium.gradients.second_derivatives import refuse_second_derivatives
from equipoise.equilibrium.solution import Solution, SolveReport
from equipoise.equilibrium.state import Function, Layout, State, detached, parts


def attach_rule(f: Function, solution: Solution, inputs: tuple[Tensor, ...], rule: Rule) -> State:
    """f(z*) whose backward replaces its cotangent by `rule` before it goes on into f.

    One graph of f, at the solution, serves every product of the rule and the last one. Where f(z*)
    is not finite, the value is z*.
    """
    if transformed():
        return attach_functionally(f, solution, inputs, rule)
    found = solution.evaluate(f, detached, *inputs)
    outputs = _ReplacedCotangent.apply(rule, parts(found.z), solution.report, *parts(found.fz))
    return finite_or_kept(outputs if isinstance(found.fz, tuple) else outputs[0], solution.z)


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
        layout = Layout.of(cotangents)
        graph = AttachedGraph(ctx.z, ctx.saved_tensors, layout)
        # The algebra of a rule keeps its precision, wherever the backward pass was called.
        with torch.autocast(layout.device.type, enabled=False):
            w, ctx.report.backward = ctx.rule(layout.flatten(cotangents), graph)
        found = parts(layout.restore(w))
        pairs = zip(found, cotangents, strict=True)
        return (None, None, None, *(a.to(b.dtype) for a, b in pairs))
