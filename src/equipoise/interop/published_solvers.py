"""The solvers of published configurations, in our names and on our command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from equipoise.equilibrium import Anderson, Broyden, FixedPoint, Solver
from equipoise.interop.published_configuration import (
    DoesNotFit,
    PublishedConfiguration,
    setting_lines,
)

SolverName = Literal["broyden", "anderson", "fixed_point"]
Direction = Literal["f", "b"]
Word = TypeVar("Word", bound=str)
CLASSES: dict[SolverName, type[Solver]] = {
    "broyden": Broyden,
    "anderson": Anderson,
    "fixed_point": FixedPoint,
}
SOLVERS: dict[str, SolverName] = {
    "broyden": "broyden",
    "anderson": "anderson",
    "fixed_point_iter": "fixed_point",
    "naive_solver": "fixed_point",
}
STOPS = {"abs": "absolute", "rel": "relative"}
TOLERANCE = 1e-3
"""The tolerance with which the published code calls its solvers unless a key sets another."""
ANDERSON_MEMORY = 6


@dataclass(frozen=True)
class SolverChoice:
    """A solver as the command line chooses it: its name, and its settings that are not defaults."""

    name: SolverName
    settings: dict[str, Any]

    def build(self) -> Solver:
        """The solver."""
        return CLASSES[self.name](**self.settings)


def solver_choice(
    name: SolverName, stop: str, steps: int, tolerance: float = TOLERANCE
) -> SolverChoice:
    """A solver with the memory size that the published code gives it."""
    memory = {"broyden": steps, "anderson": ANDERSON_MEMORY}.get(name)
    settings = {"max_steps": steps, "tol": tolerance, "stop": stop}
    return SolverChoice(name, settings | ({"memory": memory} if memory else {}))


def translated(key: str, word: Any, ours: Mapping[str, Word]) -> Word:
    """Our word for the published one at `key`; raises DoesNotFit if it is unknown."""
    if word not in ours:
        raise DoesNotFit(f"{key} is {word}; choose from {', '.join(ours)}")
    return ours[word]


def sequence_solver(
    config: PublishedConfiguration, direction: Direction, solver: str, threshold: int
) -> SolverChoice:
    """A sequence model's f_solver or b_solver with its threshold, stopped at its eps.

    `solver` and `threshold` are the published defaults. Raises DoesNotFit for unknown words.
    """
    key = f"{direction}_solver"
    return solver_choice(
        translated(key, config.get(key, solver), SOLVERS),
        translated("stop_mode", config.get("stop_mode", "rel"), STOPS),
        config.get(f"{direction}_thres", threshold),
        config.get(f"{direction}_eps", config.get("eps", TOLERANCE)),
    )


def solvers_of_2020(config: Mapping[str, Any], threshold: int) -> tuple[SolverChoice, SolverChoice]:
    """The forward and the backward solver of the code of 2020: Broyden within f_thres.

    That code never reads b_thres. `threshold` is its default.
    """
    published = PublishedConfiguration(config, "sequence model")
    steps = published.get("f_thres", threshold)
    published.values["b_thres"] = steps
    return (
        sequence_solver(published, "f", "broyden", steps),
        sequence_solver(published, "b", "broyden", steps),
    )


def layer_lines(forward: SolverChoice, gradient: Sequence[str]) -> list[str]:
    """The overrides for a layer of trained weights, without the recipe's gradient phases."""
    return [
        *solver_lines("solver", "solver", forward),
        *gradient,
        "callbacks.gradient_schedule.phases=[]",
    ]


def exact_lines(backward: SolverChoice) -> list[str]:
    """The overrides for the exact gradient by this solver."""
    return ["gradient=exact", *solver_lines("solver@gradient.solver", "gradient.solver", backward)]


def solver_lines(group: str, place: str, choice: SolverChoice) -> list[str]:
    """The overrides for a solver at `place`."""
    return [f"{group}={choice.name}", *setting_lines(place, choice.settings)]
