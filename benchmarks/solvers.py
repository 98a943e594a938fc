"""Cost of a solve over the bare cost of its function evaluations, beside the torchdeq package.

    python -m benchmarks.solvers [evaluations [repeats]]

One thread, sides in turn, medians; on a GPU where there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torchdeq.solver import anderson_solver, broyden_solver, fixed_point_iter

from benchmarks.functions import FUNCTIONS, TimedFunction
from benchmarks.timing import in_turn, ratio
from equipoise.equilibrium import Anderson, Broyden, FixedPoint, Solver

PEERS: dict[str, tuple[Callable[..., object], int]] = {
    "fixed_point": (fixed_point_iter, 0),
    "anderson": (anderson_solver, 0),
    "broyden": (broyden_solver, -1),  # it evaluates f once more than max_iter says
}


def solvers(evaluations: int, check_every: int) -> tuple[Solver, ...]:
    """Default solvers that spend exactly so many evaluations."""
    tol = 0.0 if check_every == 0 else 1e-30
    every = max(check_every, 1)
    return tuple(
        kind(max_steps=evaluations, tol=tol, stop="absolute", check_every=every, patience=10**6)
        for kind in (FixedPoint, Anderson, Broyden)
    )


def bare(timed: TimedFunction, evaluations: int) -> Tensor:
    """The limit: the evaluations alone."""
    z = timed.z0
    for _ in range(evaluations):
        z = timed.f(z, timed.x)
    return z


def peer(timed: TimedFunction, name: str, evaluations: int) -> object:
    """torchdeq's solver of that name with as many evaluations."""
    solve, offset = PEERS[name]
    steps = evaluations + offset
    return solve(lambda z: timed.f(z, timed.x), timed.z0, max_iter=steps, tol=0.0, stop_mode="rel")


@torch.no_grad()
def compare(timed: TimedFunction, evaluations: int, repeats: int) -> list[str]:
    """One line a solver: its overhead without and with a check at every step, and the peer's."""
    sides: dict[str, Callable[[], object]] = {"bare": partial(bare, timed, evaluations)}
    for solver, checked in zip(solvers(evaluations, 0), solvers(evaluations, 1), strict=True):
        sides[solver.name] = partial(solver.solve, timed.f, timed.z0, timed.x)
        sides[f"{solver.name} checked"] = partial(checked.solve, timed.f, timed.z0, timed.x)
        sides[f"{solver.name} peer"] = partial(peer, timed, solver.name, evaluations)
    times = in_turn(sides, repeats)
    lines = []
    for name in PEERS:
        own, checked_ratio, other = (
            ratio(times, side, "bare") for side in (name, f"{name} checked", f"{name} peer")
        )
        speed_up = ratio(times, f"{name} peer", name)
        lines.append(
            f"| {timed.name} | {name} | {own:.3f} | {checked_ratio:.3f} "
            f"| {other:.3f} | {speed_up:.2f} |"
        )
    return lines


def main(evaluations: int = 20, repeats: int = 7) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(
        f"{evaluations} evaluations, {device}, medians of {repeats} rounds, dense 4 times as many"
    )
    print("| function | solver | over bare | checked each step | torchdeq over bare | speed-up |")
    print("|---|---|---|---|---|---|")
    for build in FUNCTIONS:
        timed = build(device)
        for line in compare(timed, evaluations, repeats * 4 if build is FUNCTIONS[0] else repeats):
            print(line, flush=True)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
