"""Cost of a training step over the evaluations and products in it, beside the torchdeq package.

    python -m benchmarks.gradients [repeats]

One thread, sides in turn, medians; on a GPU where there is one. 20 evaluations forward; 20 products
backward where the estimator has no number of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torchdeq import get_deq

from benchmarks.functions import TimedFunction, attention, convolution
from benchmarks.memory import peak_bytes
from benchmarks.timing import Side, in_turn, ratio
from equipoise.equilibrium import (
    Anderson,
    Broyden,
    Equilibrium,
    Exact,
    FixedPoint,
    GradientEstimator,
    JacobianFree,
    Neumann,
    Phantom,
    Reversible,
    Shine,
    Solver,
    Unrolled,
)

EVALUATIONS = 20
FIXED_POINT = FixedPoint(max_steps=EVALUATIONS, tol=0)
ANDERSON = Anderson(max_steps=EVALUATIONS, tol=0)
BROYDEN = Broyden(max_steps=EVALUATIONS, tol=0)
SIDES: tuple[tuple[str, Solver, GradientEstimator], ...] = (
    ("exact, fixed_point", FIXED_POINT, Exact(FIXED_POINT)),
    ("exact, anderson", ANDERSON, Exact(ANDERSON)),
    ("exact, broyden", BROYDEN, Exact(BROYDEN)),
    ("phantom 5, anderson", ANDERSON, Phantom(5)),
    ("neumann 10, anderson", ANDERSON, Neumann(10)),
    ("jfb, anderson", ANDERSON, JacobianFree()),
    ("shine, broyden", BROYDEN, Shine()),
    ("shine refined 5, broyden", BROYDEN, Shine(refine_steps=5)),
    ("unrolled 20", FIXED_POINT, Unrolled(EVALUATIONS)),
    ("reversible 10", FIXED_POINT, Reversible(EVALUATIONS // 2)),
)
PEERS: dict[str, dict[str, object]] = {
    "exact, fixed_point": {"ift": True, "solver": "fixed_point_iter"},
    "exact, anderson": {"ift": True, "solver": "anderson"},
    "exact, broyden": {"ift": True, "solver": "broyden"},
    "phantom 5, anderson": {"grad": 5, "tau": 0.5, "solver": "anderson"},
    "jfb, anderson": {"grad": 1, "solver": "anderson"},
}


def step(layer: Equilibrium, timed: TimedFunction) -> None:
    """A forward and a backward pass of the layer."""
    finish(timed, layer(timed.f, timed.z0, timed.x))


def finish(timed: TimedFunction, state: Tensor) -> None:
    """The backward pass of a loss, and the gradients dropped."""
    state.square().mean().backward()
    timed.f.zero_grad()
    timed.x.grad = None


def peer(timed: TimedFunction, options: dict[str, object]) -> Side:
    """The same step by torchdeq, with as many evaluations and products."""
    settings = dict(options)
    solver = settings.pop("solver")
    budget = EVALUATIONS - 1 if solver == "broyden" else EVALUATIONS  # it evaluates once more
    layer = get_deq(
        core="sliced", f_solver=solver, b_solver=solver, f_max_iter=budget, b_max_iter=budget,
        f_tol=0.0, b_tol=0.0, f_stop_mode="rel", b_stop_mode="rel", **settings,
    )  # fmt: skip

    def run() -> None:
        states, _ = layer(lambda z: timed.f(z, timed.x), timed.z0)
        finish(timed, states[-1])

    return run


def bare(timed: TimedFunction, forward: int, graphs: int, products: int, inverted: int) -> None:
    """Evaluations without a graph, a chain of `graphs` with one, products on it, its backward.

    inverted: evaluations, each with its own graph, backpropagated one by one.
    """
    z = timed.z0
    with torch.no_grad():
        for _ in range(forward):
            z = timed.f(z, timed.x)
    for _ in range(inverted):
        leaf = z.detach().requires_grad_()
        finish(timed, timed.f(leaf, timed.x))
    if not graphs:
        return
    leaf = z.detach().requires_grad_(products > 0)
    state = leaf
    for _ in range(graphs):
        state = timed.f(state, timed.x)
    cotangent = state.detach()
    for _ in range(products):
        cotangent = torch.autograd.grad(state, leaf, cotangent, retain_graph=True)[0]
    finish(timed, state)


def limit(timed: TimedFunction, estimator: GradientEstimator) -> Side:
    """The bare evaluations and products of a step by `estimator`."""
    forward, graphs, products, inverted = EVALUATIONS - 1, 1, 0, 0  # the last one has the graph
    if isinstance(estimator, Exact):
        products = EVALUATIONS
    elif isinstance(estimator, Neumann):
        products = estimator.steps - 1
    elif isinstance(estimator, Shine) and estimator.refine_steps:
        products = estimator.refine_steps + 1
    elif isinstance(estimator, Phantom):
        graphs = estimator.steps
    elif isinstance(estimator, Unrolled):
        forward, graphs = 0, estimator.steps
    elif isinstance(estimator, Reversible):
        forward, graphs, inverted = 2 * estimator.steps, 0, 2 * estimator.steps
    return partial(bare, timed, forward, graphs, products, inverted)


def compare(timed: TimedFunction, repeats: int) -> list[str]:
    """One line an estimator: over the bare cost, speed-up over the peer, memory over the peer's."""
    lines = []
    for name, solver, estimator in SIDES:
        own = partial(step, Equilibrium(solver, estimator), timed)
        sides: dict[str, Callable[[], object]] = {"own": own, "bare": limit(timed, estimator)}
        if name in PEERS:
            sides["peer"] = peer(timed, PEERS[name])
        times = in_turn(sides, repeats)
        peak = peak_bytes(own)
        line = (
            f"| {timed.name} | {name} | {ratio(times, 'own', 'bare'):.3f} | {peak / 2**20:.0f} MiB"
        )
        if "peer" in sides:
            share = peak / peak_bytes(sides["peer"])
            line += f" | {ratio(times, 'peer', 'own'):.2f} | {share:.2f} |"
        lines.append(line if "peer" in sides else line + " | | |")
    return lines


def backward_of_shine(timed: TimedFunction, repeats: int) -> str:
    """The part of the backward pass that replaces the cotangent, against exact's by Broyden."""
    rules = {}
    solution = BROYDEN.solve(timed.f, timed.z0, timed.x)
    for name, estimator in (
        ("shine", Shine()),
        ("exact", Exact(Broyden(max_steps=30, tol=0))),
    ):
        state = estimator.attach(timed.f, solution, timed.z0, timed.x)
        assert isinstance(state, Tensor)
        cotangent = torch.ones_like(state)
        rules[name] = partial(
            torch.autograd.grad, state, list(timed.f.parameters()), cotangent, retain_graph=True
        )
    times = in_turn(rules, repeats)
    return f"{timed.name}: exact's backward over shine's {ratio(times, 'exact', 'shine'):.1f}"


def memory_over_budgets(timed: TimedFunction) -> list[str]:
    """Peak memory of a step at budgets from 10 to 80."""
    lines = []
    for solver in (FIXED_POINT, ANDERSON, BROYDEN):
        peaks = []
        for budget in (10, 20, 40, 80):
            layer = Equilibrium(replace(solver, max_steps=budget), JacobianFree())
            peaks.append(peak_bytes(partial(step, layer, timed)) / 2**20)
        lines.append(_growth(timed.name, solver.name, peaks))
    peaks = []
    for budget in (10, 20, 40, 80):
        layer = Equilibrium(FIXED_POINT, Reversible(budget // 2))
        peaks.append(peak_bytes(partial(step, layer, timed)) / 2**20)
    return [*lines, _growth(timed.name, "reversible", peaks)]


def _growth(function: str, name: str, peaks: list[float]) -> str:
    listed = " ".join(f"{peak:.1f}" for peak in peaks)
    return f"| {function} | {name} | {listed} | {max(peaks) / min(peaks) - 1:.1%} |"


def main(repeats: int = 5) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{EVALUATIONS} evaluations, {device}, medians of {repeats} rounds")
    print("| function | estimator, solver | over bare | peak | speed-up | memory over torchdeq's |")
    print("|---|---|---|---|---|---|")
    functions = [build(device) for build in (attention, convolution)]
    for timed in functions:
        timed.x.requires_grad_()
        for line in compare(timed, repeats):
            print(line, flush=True)
    for timed in functions:
        print(backward_of_shine(timed, repeats), flush=True)
    print("| function | solver | MiB at 10, 20, 40, 80 evaluations | growth |")
    print("|---|---|---|---|")
    for timed in functions:
        for line in memory_over_budgets(timed):
            print(line, flush=True)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
