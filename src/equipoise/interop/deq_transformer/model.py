"""A published equilibrium transformer as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.equilibrium import Equilibrium, Exact, GradientEstimator, Solver
from equipoise.interop.deq_transformer.configuration import architecture
from equipoise.interop.deq_transformer.names import published_name
from equipoise.interop.deq_transformer.state_dict import is_of_2020, primary
from equipoise.interop.mdeq.training import SolverChoice
from equipoise.interop.published_weights import in_widest, load
from equipoise.interop.sequence_configuration import (
    PublishedArguments,
    lines,
    solver_choice,
    solver_lines,
    solvers_of_2020,
    task_of,
)
from equipoise.models import DEQTransformer


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> DEQTransformer:
    """Return the network with its weights, in float64 if they are and float32 otherwise.

    Projections that the published code calls tied are one parameter here. Raises DoesNotFit, a
    ValueError, where configuration and weights do not fit each other.
    """
    forward, backward = solvers(PublishedArguments(config), of_2020=is_of_2020(state_dict))
    weights = primary(state_dict)
    layer = Equilibrium(solver or forward.build(), gradient or Exact(backward.build()))
    model = DEQTransformer(layer, **architecture(config, weights))
    in_widest(model, weights)
    load(model, weights, published_name)
    return model


def solvers(published: PublishedArguments, *, of_2020: bool) -> tuple[SolverChoice, SolverChoice]:
    """Return the forward and the backward solver; the defaults are those of the year's script."""
    if of_2020:
        return solvers_of_2020(published, 30)
    forward = solver_choice(published, "f", "anderson", 30)
    return forward, solver_choice(published, "b", "broyden", 35)


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Return group choices and settings for task, model, solver and gradient."""
    published = PublishedArguments(config)
    arguments = architecture(config, primary(state_dict))
    vocabulary = arguments.pop("vocabulary")
    forward, backward = solvers(published, of_2020=is_of_2020(state_dict))
    return [
        *lines(task_of(published, vocabulary), "deq_transformer", vocabulary, arguments),
        *solver_lines("solver", "solver", forward),
        "gradient=exact",
        *solver_lines("solver@gradient.solver", "gradient.solver", backward),
        # The weights are trained: no phase of the recipe is left.
        "callbacks.gradient_schedule.phases=[]",
    ]
