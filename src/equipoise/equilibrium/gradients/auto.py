"""The cheapest gradient estimator that is faithful enough, measured during training."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, distributed

from equipoise.equilibrium.backward_graph import (
    AttachedGraph,
    Fidelity,
    Graph,
    Rule,
    attach_rule,
    compare_gradients,
    leaf_tensors,
)
from equipoise.equilibrium.gradients.estimator import GradientEstimator, StartsAtSolution
from equipoise.equilibrium.gradients.exact import Exact
from equipoise.equilibrium.gradients.jacobian_free import JacobianFree
from equipoise.equilibrium.gradients.neumann import Neumann
from equipoise.equilibrium.solution import Solution, SolveReport
from equipoise.equilibrium.state import Function, State, detached


class Candidate(GradientEstimator, Protocol):
    """An estimator that works on one graph of f, so that several can be compared on it."""

    def rule(self, solution: Solution) -> Rule:
        """The w that replaces the cotangent."""
        ...


@dataclass(frozen=True)
class Measurement:
    """The fidelity of every candidate at one probe, and the candidate chosen by it."""

    call: int
    cosines: tuple[float, ...]
    norm_ratios: tuple[float, ...]
    chosen: str


def cheapest_first() -> tuple[Candidate, ...]:
    """The default candidates; the last one is exact."""
    return (JacobianFree(), Neumann(steps=3), Neumann(steps=10), Exact())


@dataclass
class Auto:
    """Moves to the cheapest candidate whose measured cosine stays above min_cosine, and back.

    Every `every` backward passes, the first included, all candidates are compared on the true
    cotangent: their gradients with respect to f's parameters and inputs against that of the last
    candidate, which is taken as exact. A candidate qualifies while each of its latest `patience`
    cosines is at least min_cosine. A probe costs the exact solve and a backward pass for each
    candidate, on the one graph of f that every candidate uses, and one host-device sync.

    candidates: from the cheapest to the exact one. measurements: the latest probes, in order.
    Processes of torch.distributed's default group average their measurements, each taken on its own
    part of the batch, so that all choose alike; they have to probe together.
    """

    own_iteration: ClassVar[bool] = False

    min_cosine: float = 0.9
    every: int = 100
    patience: int = 2
    candidates: Sequence[Candidate] = field(default_factory=cheapest_first)

    def __post_init__(self) -> None:
        if not -1 <= self.min_cosine <= 1:
            raise ValueError(f"min_cosine must lie in [-1, 1], got {self.min_cosine}")
        if self.every < 1 or self.patience < 1:
            raise ValueError("every and patience must be at least 1")
        if not self.candidates:
            raise ValueError("auto needs at least one candidate, the last of them exact")
        self.candidates = tuple(self.candidates)
        self.chosen = 0
        self.calls = 0
        self.measurements: deque[Measurement] = deque(maxlen=max(1000, self.patience))

    @property
    def active(self) -> Candidate:
        """The candidate in force."""
        return self.candidates[self.chosen]

    @property
    def name(self) -> str:
        """ "auto" and the candidate in force."""
        return f"auto:{label(self.active)}"

    def state_dict(self) -> dict[str, Any]:
        """Plain values from which `load_state_dict` resumes with the same choices."""
        return {
            "candidates": [label(candidate) for candidate in self.candidates],
            "chosen": self.chosen,
            "calls": self.calls,
            "measurements": [asdict(measurement) for measurement in self.measurements],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state; a state of other candidates is ignored."""
        if state["candidates"] != [label(candidate) for candidate in self.candidates]:
            return
        self.chosen, self.calls = state["chosen"], state["calls"]
        self.measurements.clear()
        self.measurements.extend(
            Measurement(m["call"], tuple(m["cosines"]), tuple(m["norm_ratios"]), m["chosen"])
            for m in state["measurements"]
        )

    def attach(self, f: Function, solution: Solution, z0: State, *inputs: Tensor) -> State:
        """The result of the candidate in force; at a probe, its backward measures all of them."""
        if not self._probing:
            state = self.active.attach(f, solution, z0, *inputs)
        else:
            rules = [candidate.rule(solution) for candidate in self.candidates]
            state = attach_rule(f, solution, inputs, partial(self._probe, rules, inputs))
        self.calls += 1
        return state

    def origin(self, z: State) -> State:
        """That of the candidate in force; a probe takes products with J^T."""
        if self._probing or not isinstance(self.active, StartsAtSolution):
            return detached(z)
        return self.active.origin(z)

    @property
    def _probing(self) -> bool:
        return self.calls % self.every == 0

    def _probe(
        self, rules: list[Rule], inputs: tuple[Tensor, ...], cotangent: Tensor, graph: Graph
    ) -> tuple[Tensor, SolveReport]:
        """Measure, choose anew, and answer as the chosen one."""
        if not isinstance(graph, AttachedGraph):  # torch.func gives products, but no graph
            return rules[self.chosen](cotangent, graph)
        answers = [rule(cotangent, graph) for rule in rules]
        trained = tuple(x for x in inputs if x.requires_grad)
        towards = (*leaf_tensors(graph.fz, (*graph.z, *trained)), *trained)
        if towards:
            gradients = [graph.gradients(w, towards) for w, _ in answers]
            self._choose([compare_gradients(gradient, gradients[-1]) for gradient in gradients])
        return answers[self.chosen]

    def _choose(self, fidelities: list[Fidelity]) -> None:
        cosines = torch.stack([fidelity.cosine for fidelity in fidelities])
        ratios = torch.stack([fidelity.norm_ratio for fidelity in fidelities])
        measured, sizes = _mean_over_processes(torch.stack((cosines, ratios))).tolist()
        worst = [min(series) for series in zip(*self._recent(), measured, strict=True)]
        enough = (i for i, cosine in enumerate(worst) if cosine >= self.min_cosine)
        self.chosen = next(enough, len(self.candidates) - 1)
        self.measurements.append(
            Measurement(self.calls, tuple(measured), tuple(sizes), label(self.active))
        )

    def _recent(self) -> list[tuple[float, ...]]:
        """The cosines of the probes before this one that still count."""
        earlier = len(self.measurements) - (self.patience - 1)
        return [probe.cosines for probe in self.measurements][max(earlier, 0) :]


def _mean_over_processes(values: Tensor) -> Tensor:
    """The same numbers in every process: a sum, unlike a minimum, also agrees on NaN."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def label(estimator: GradientEstimator) -> str:
    """Its name, with the number of steps where it has one."""
    steps = getattr(estimator, "steps", None)
    return estimator.name if steps is None else f"{estimator.name}-{steps}"
