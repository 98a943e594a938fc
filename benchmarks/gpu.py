"""Training steps, solves and memory on a GPU beside CUDA graphs and torchdeq, and MDEQ on CIFAR-10.

    python -m benchmarks.gpu [--output DIR] [--seconds 150] [--device cuda] [--quick]
                             [--parts steps memory cifar tests]
                             [--cifar FOLDER] [--cifar-seconds 200] [the options of cifar_run]

steps: forward, backward and Adam of MDEQ for CIFAR-10, tiny and large, and of an equilibrium
transformer, whole budgets. Sides: ours; bare, the same step with nothing but the evaluations of f
and the products with its transposed Jacobian; compiled, f by torch.compile; graph, the passes
replayed (`equipoise.equilibrium.cuda_graph`); compiled graph, both; torchdeq 0.1.0 on the same f at
the same number of evaluations, where it can be imported. memory: peaks of a step. cifar: see
`benchmarks.cifar_run`. tests: those marked `gpu`, where pytest is there.

Sides in turn, medians of five rounds; a case that would start after --seconds is left out, and the
table says so. Writes gpu.md, gpu.csv and what the other parts write. --quick --device cpu is a
try-out with tiny sizes.
"""

from __future__ import annotations

import csv
import gc
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import cifar_run, step_memory
from benchmarks.functions import convolution, dense
from benchmarks.report import Report, TimeLimit, arguments, first_line
from benchmarks.stand_ins import Counted, torchdeq_is_there
from benchmarks.step_cases import Case, mdeq_case, methods, transformer_case
from benchmarks.training_steps import over, peak_mib, sides_of, timed
from equipoise.equilibrium import Anderson, Broyden, FixedPoint

PARTS = ("steps", "memory", "cifar", "tests")
COLUMNS = ("model", "batch", "precision", "method", "side", "milliseconds", "over_bare",
           "evaluations", "peak_mib")  # fmt: skip
EXACT, PHANTOM = "broyden, exact", "anderson, phantom"
QUICK = (3, 3)
TEST_SECONDS = 200


def cases(device: str, quick: bool) -> Iterator[Case]:
    """All of them, what matters most first."""
    if quick:
        for method in methods(*QUICK):
            yield mdeq_case("tiny", 2, "fp32", method, QUICK, device, 8)
        yield mdeq_case("tiny", 2, "bf16 nhwc", EXACT, QUICK, device, 8)
        yield transformer_case(2, "bf16", EXACT, QUICK, device, 16, 8)
        return
    yield from first_cases(device)
    for batch in (32, 16, 128):
        for size in ("tiny", "large"):
            for precision in ("fp32", "bf16 nhwc"):
                for method in methods(18, 20):
                    yield mdeq_case(size, batch, precision, method, device=device)
        for precision in ("fp32", "bf16"):
            for method in (EXACT, PHANTOM):
                yield transformer_case(batch, precision, method, device=device)


def first_cases(device: str) -> Iterator[Case]:
    """Both methods at every batch size, with f compiled too where that is quickly done."""
    for size, batch in (("tiny", 16), ("tiny", 32), ("tiny", 128), ("large", 32)):
        for method in (EXACT, PHANTOM):
            yield mdeq_case(size, batch, "fp32", method, device=device)
    for precision in ("fp32", "bf16"):
        yield transformer_case(8, precision, EXACT, device=device)
    for precision in ("bf16", "fp32"):
        yield mdeq_case("tiny", 32, precision, EXACT, device=device, compiled=True)
    yield transformer_case(8, "bf16", EXACT, device=device, compiled=True)
    for batch, method in ((16, EXACT), (128, EXACT), (128, PHANTOM)):
        yield mdeq_case("tiny", batch, "bf16", method, device=device)
    yield mdeq_case("large", 32, "bf16", EXACT, device=device, compiled=True)


def measured(case: Case) -> Iterator[dict[str, Any]]:
    """A row for each side."""
    trainings = sides_of(case)
    evaluations = {name: Counted.in_step(training) for name, training in trainings.items()}
    times = timed({name: training.step for name, training in trainings.items()}, case.device)
    for name, training in trainings.items():
        recorded = name.endswith("graph")  # what it needs it has held since it was recorded
        peak = None if recorded else peak_mib(training.step, case.device)
        yield row(
            case.model, case.batch, case.precision, case.method, name, times,
            None if recorded else evaluations[name], peak,
        )  # fmt: skip


def row(
    model: str, batch: int, precision: str, method: str, side: str,
    times: dict[str, list[float]], evaluations: int | None, peak: float | None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "model": model, "batch": batch, "precision": precision, "method": method, "side": side,
        "milliseconds": round(1e3 * statistics.median(times[side]), 3),
        "over_bare": over(times, side, "bare"), "evaluations": evaluations, "peak_mib": peak,
    }  # fmt: skip


def solves(device: str, quick: bool) -> Iterator[dict[str, Any]]:
    """Plain solves: each solver over the bare evaluations of f."""
    for timed_function in (dense(device), convolution(device)):
        f, z0, x = timed_function.f, timed_function.z0, timed_function.x
        if quick:
            z0, x = z0[:2], x[:2]
        budget = 4 if quick else 20

        @torch.no_grad()
        def bare(f: nn.Module = f, z: Tensor = z0, x: Tensor = x, budget: int = budget) -> None:
            for _ in range(budget):
                z = f(z, x)

        sides: dict[str, Callable[[], object]] = {"bare": bare}
        for kind in (FixedPoint, Anderson, Broyden):
            for checked, tol in (("", 0.0), (" checked", 1e-30)):
                solver = kind(max_steps=budget, tol=tol)
                sides[kind.name + checked] = lambda s=solver, f=f, z0=z0, x=x: s.solve(f, z0, x)
        times = timed(sides, device)
        for name, side in sides.items():
            yield row(
                f"solve of {timed_function.name}", len(x), "fp32", f"{budget} evaluations", name,
                times, getattr(side(), "nfe", budget), peak_mib(side, device),
            )  # fmt: skip


def step_rows(device: str, quick: bool, limit: TimeLimit, report: Report) -> Iterator[dict]:
    yield from solves(device, quick)
    for case in cases(device, quick):
        if not limit.allows(case.name):
            continue
        try:
            yield from list(measured(case))
        except Exception as error:  # one case without memory, compiler or recording is no end
            report.line(f"{case.name} failed: {type(error).__name__}: {first_line(error)}")
        gc.collect()  # graphs stand in circles with their networks, and hold their memory


def steps(device: str, quick: bool, seconds: float, output: Path, card: str) -> None:
    """The table of training steps, and gpu.csv."""
    report = Report(output / "gpu.md")
    tf32 = torch.backends.cudnn.allow_tf32
    report.line(f"{card}, torch {torch.__version__}, TF32 in fp32 convolutions: {tf32}")
    if not torchdeq_is_there():
        report.sentence("torchdeq is not installed: its sides are missing.")
    report.columns(*COLUMNS)
    limit = TimeLimit(seconds)
    with (output / "gpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("card", "torch", *COLUMNS))
        writer.writeheader()
        for found in step_rows(device, quick, limit, report):
            report.row(*found.values())
            writer.writerow({"card": card, "torch": torch.__version__, **found})
            file.flush()
    limit.tell(report)


def tests(device: str) -> None:
    """The tests marked `gpu`, in a process of their own."""
    if device != "cuda" or find_spec("pytest") is None:
        print("the tests marked gpu are left out: they need a GPU and pytest")
        return
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", "tests/gpu"]
    try:
        ended = subprocess.run(command, timeout=TEST_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        print(f"the tests were stopped after {TEST_SECONDS} seconds")
    else:
        print(f"pytest ended with status {ended}")


def main() -> None:
    parser = arguments(__doc__, seconds=150)
    parser.set_defaults(output=Path())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    cifar_run.add_arguments(parser)
    chosen = parser.parse_args()
    device, output = chosen.device, chosen.output
    output.mkdir(parents=True, exist_ok=True)
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    if "steps" in chosen.parts:
        steps(device, chosen.quick, chosen.seconds, output, card)
    if "memory" in chosen.parts:
        step_memory.tables(Report(output / "memory.md"), device, chosen.quick)
    if "cifar" in chosen.parts:
        cifar_run.tables(chosen, device, card)
    if "tests" in chosen.parts:
        tests(device)


if __name__ == "__main__":
    main()
