"""The solver and the gradient of MDEQ's published configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from equipoise.equilibrium import Anderson, Broyden, FixedPoint, Solver
from equipoise.interop.errors import DoesNotFit
from equipoise.interop.mdeq.configuration import Published

SolverName = Literal["broyden", "anderson", "fixed_point"]
CLASSES: dict[SolverName, type[Solver]] = {
    "broyden": Broyden,
    "anderson": Anderson,
    "fixed_point": FixedPoint,
}
THEIR_NAMES: dict[str, SolverName] = {
    "broyden": "broyden",
    "anderson": "anderson",
    "fixed_point_iter": "fixed_point",
    "naive_solver": "fixed_point",
}
STOPS = {"abs": "absolute", "rel": "relative"}
TOLERANCE = 1e-3
"""The published solvers are called with it everywhere; no key sets it."""
ANDERSON_MEMORY = 6


@dataclass(frozen=True)
class SolverChoice:
    """A solver as the command line chooses it: its name, and the settings that are not default."""

    name: SolverName
    settings: dict[str, Any]

    def build(self) -> Solver:
        """Return the solver."""
        return CLASSES[self.name](**self.settings)


def forward_solver(config: Published) -> SolverChoice:
    """Return the solver of f: F_SOLVER with the budget F_THRES, stopped by STOP_MODE."""
    return _choice(config, "F", config.get("DEQ.F_THRES", config.get("F_THRES", 30)))


def backward_solver(config: Published) -> SolverChoice:
    """Return the solver of the adjoint system: B_SOLVER with the budget B_THRES.

    The code of 2020 takes the forward's threshold, whatever its B_THRES says.
    """
    return _choice(config, "B", config.get("DEQ.B_THRES", config.get("F_THRES", 40)))


def phantom_steps(config: Published) -> tuple[int, float] | None:
    """Return steps and damping of the phantom gradient, where the configuration asks for it."""
    if "TRAIN.PG_STEPS" not in config:
        return None
    # The published script turns 0 into 5.
    return config.need("TRAIN.PG_STEPS") or 5, config.get("TRAIN.TAU", 0.5)


def _choice(config: Published, direction: Literal["F", "B"], threshold: int) -> SolverChoice:
    theirs = config.get(f"DEQ.{direction}_SOLVER", "broyden")
    mode = config.get("DEQ.STOP_MODE", "abs")
    if theirs not in THEIR_NAMES:
        raise DoesNotFit(f"{direction}_SOLVER is {theirs}; known are {', '.join(THEIR_NAMES)}")
    if mode not in STOPS:
        raise DoesNotFit(f"STOP_MODE is {mode}; known are {', '.join(STOPS)}")
    memory = {"broyden": threshold, "anderson": ANDERSON_MEMORY}.get(THEIR_NAMES[theirs])
    settings = {"max_steps": threshold, "tol": TOLERANCE, "stop": STOPS[mode]}
    return SolverChoice(THEIR_NAMES[theirs], settings | ({"memory": memory} if memory else {}))
