"""Bi-level optimisation: SHINE, with and without OPA, against HOAG on the same outer problem.

    python -m benchmarks.hyperparameter [--seeds 5] [--problems digits sparse breast_cancer]
                                        [--output runs/benchmarks]

Logistic regression with one lambda per feature. All methods start at the same lambda, take the same
kind of outer steps and tighten their tolerances alike; one thread, one process, sides in turn. The
clock runs during outer steps alone, and freed memory is kept for the next ones. Afterwards every
lambda on the way is judged by the validation loss of a tight inner solve. HOAG takes a fixed number
of outer steps, and has arrived at the first one whose loss is at most 1.001 times its lowest;
another method has arrived where its own loss is at most that much, within 1.5 times the steps.
Printed are the times, and their ratios to HOAG's.
Written: hyperparameter.csv and the picture hyperparameter.png.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from equipoise.data import Tabular
from equipoise.equilibrium import LBFGS, ConjugateGradient, Equilibrium, Exact, JacobianFree, Shine
from equipoise.models import LogisticRegression
from equipoise.models.regularized.table import Table
from equipoise.report.plot import COLOURS, new_figure, save, style
from equipoise.tasks.hypergradient_descent import HypergradientDescent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOUNDS = (-8.0, 8.0)
"""Of lambda. A penalty of exp(-8) beside a mean loss is none at all on these problems."""
FIRST_TOLERANCE, DECREASE, LAST_TOLERANCE = 1e-3, 0.9, 1e-6
JUDGED = 1e-6
"""Size of the gradient to which every lambda's inner problem is solved in the end."""
ARRIVED = 1.001
AT_END = 10**6
METHODS = ("HOAG", "SHINE", "SHINE + OPA")


@dataclass(frozen=True)
class Problem:
    """The first lambda, HOAG's outer steps, and of SHINE its pairs and its outer updates.

    Pairs cost two states each, which is nothing with 650 coefficients and much with 50,000. every:
    steps of a solve between two updates, AT_END for none on the way; updates: at its end.
    """

    start: float
    steps: int
    memory: int
    every: int
    updates: int


PROBLEMS = {
    "digits": Problem(0.0, 25, memory=30, every=AT_END, updates=10),
    "sparse": Problem(0.0, 15, memory=12, every=AT_END, updates=6),
    "breast_cancer": Problem(0.0, 25, memory=30, every=5, updates=10),
}


@dataclass
class Race:
    """Seconds, lambda and, once it is judged, outer loss after each outer step of a method."""

    seconds: list[float]
    lambdas: list[torch.Tensor]
    losses: list[float]
    evaluations: int = 0
    products: int = 0

    def arrival(self, loss: float) -> float | None:
        """Seconds until the outer loss is at most so much."""
        pairs = zip(self.seconds, self.losses, strict=True)
        return next((seconds for seconds, reached in pairs if reached <= loss), None)


def layer(method: str, problem: Problem) -> Equilibrium:
    """The solver and the estimator of a method."""
    if method == "HOAG":
        return Equilibrium(LBFGS(memory=10), Exact(ConjugateGradient(max_steps=5000)))
    every = problem.every if method == "SHINE + OPA" else None
    solver = LBFGS(memory=problem.memory, opa_every=every, opa_steps=problem.updates)
    return Equilibrium(solver, Shine())


def model_for(training: Table, equilibrium: Equilibrium, start: float) -> LogisticRegression:
    """One lambda per feature, all equal at first."""
    return LogisticRegression(
        equilibrium=equilibrium, features=training["features"].shape[1],
        classes=int(training["target"].max()) + 1, strengths="feature", bounds=BOUNDS,
        log_strength=start,
    )  # fmt: skip


def with_tolerance(equilibrium: Equilibrium, tolerance: float) -> None:
    """Solve the inner and the adjoint problem to this tolerance from now on."""
    equilibrium.solver = replace(equilibrium.solver, tol=tolerance)
    estimator = equilibrium.gradient
    if isinstance(estimator, Exact):
        solver = replace(estimator.solver, tol=tolerance)
        equilibrium.gradient = replace(estimator, solver=solver)


def race(method: str, problem: Problem, training: Table, validation: Table) -> Race:
    """The outer steps of a method."""
    model = model_for(training, layer(method, problem), problem.start)
    optimizer = HypergradientDescent([model.log_strength])
    result, loss, spent = Race([], [], []), float("nan"), 0.0
    for step in range(problem.steps if method == "HOAG" else 3 * problem.steps // 2):
        began = time.perf_counter()
        if step:
            optimizer.step(lambda latest=loss: latest)
            model.project()
        tolerance = FIRST_TOLERANCE * DECREASE ** min(step, problem.steps)
        with_tolerance(model.equilibrium, max(tolerance, LAST_TOLERANCE))
        outer = model.outer_loss(model.solve(training, validation), validation)
        optimizer.zero_grad()
        outer.backward()
        loss = float(outer)
        spent += time.perf_counter() - began
        report = model.equilibrium.report
        assert report is not None
        assert report.backward is not None
        result.evaluations += report.nfe
        result.products += report.backward.nfe
        result.seconds.append(spent)
        result.lambdas.append(model.log_strength.detach().clone())
    return result


@torch.no_grad()
def judge(result: Race, training: Table, validation: Table) -> None:
    """The outer loss of every lambda, at a tight inner solution."""
    solver = LBFGS(tol=JUDGED, max_steps=5000)
    model = model_for(training, Equilibrium(solver, JacobianFree()), 0.0)
    for log_strength in result.lambdas:
        model.log_strength.copy_(log_strength)
        result.losses.append(float(model.outer_loss(model.solve(training), validation)))


def compare(name: str, seeds: int) -> list[dict[str, Race]]:
    """The races of all methods, for each seed; the sides change their order from seed to seed."""
    problem, races = PROBLEMS[name], []
    for seed in tqdm(range(seeds), desc=name):
        data = Tabular(data=name, seed=seed)  # type: ignore[arg-type]
        data.setup()
        (batch,) = data.train_dataloader()
        tables = batch["training"], batch["validation"]
        if seed == 0:
            race("HOAG", replace(problem, steps=2), *tables)  # imports, and memory to reuse
        turn = [METHODS[(seed + place) % len(METHODS)] for place in range(len(METHODS))]
        run = {method: race(method, problem, *tables) for method in turn}
        for result in run.values():
            judge(result, *tables)
        races.append(run)
    return races


def rows(name: str, races: Sequence[dict[str, Race]]) -> list[list[str]]:
    """A row per seed and method: lowest loss, arrival, ratio to HOAG's, and what was spent."""
    table = []
    for seed, run in enumerate(races):
        target = ARRIVED * min(run["HOAG"].losses)
        base = run["HOAG"].arrival(target)
        assert base is not None
        for method in METHODS:
            result, arrival = run[method], run[method].arrival(target)
            table.append(
                [
                    name, str(seed), method, f"{min(result.losses):.5f}",
                    "never" if arrival is None else f"{arrival:.2f}",
                    "" if arrival is None else f"{arrival / base:.2f}",
                    str(result.evaluations), str(result.products), str(len(result.seconds)),
                ]
            )  # fmt: skip
    return table


HEADER = ["problem", "seed", "method", "lowest loss", "arrival (s)", "ratio", "evaluations",
          "products", "steps"]  # fmt: skip


def draw(axes: Axes, name: str, races: Sequence[dict[str, Race]]) -> None:
    """Outer loss above the lowest of all methods of a seed, against seconds."""
    style(axes, name, "seconds", "suboptimality")
    for run in races:
        lowest = min(min(result.losses) for result in run.values())
        for method, colour in zip(METHODS, COLOURS, strict=False):
            above = [max(loss - lowest, 1e-6) for loss in run[method].losses]
            label = method if run is races[0] else None
            axes.plot(run[method].seconds, above, color=colour, linewidth=1.0, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend(edgecolor="none")


def main() -> None:
    """Print the table, and write it and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(4.5 * len(arguments.problems), 4.0)
    panels = figure.subplots(1, len(arguments.problems), squeeze=False)[0]
    table: list[list[str]] = []
    for name, axes in zip(arguments.problems, panels, strict=True):
        races = compare(name, arguments.seeds)
        draw(axes, name, races)
        table += rows(name, races)
    save(figure, arguments.output / "hyperparameter.png")
    with (arguments.output / "hyperparameter.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *table])
    for row in [HEADER, *table]:
        print("  ".join(entry.rjust(13) for entry in row))
    for name in arguments.problems:
        for method in METHODS[1:]:
            found = [row[5] for row in table if row[0] == name and row[2] == method]
            ratios = [float(ratio) if ratio else float("inf") for ratio in found]
            print(f"{name}, {method}: median ratio of times {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
