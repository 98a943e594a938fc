"""Training steps and solves on a GPU over the evaluations in them, beside CUDA graphs and torchdeq.

    python -m benchmarks.gpu [--output DIR] [--seconds 220] [--device cuda] [--quick]

MDEQ for CIFAR-10, tiny and large, and an equilibrium transformer: forward, backward and Adam, whole
budgets. bare: the same step with nothing but the evaluations of f and the products with its
transposed Jacobian. graph: the whole step's passes replayed (`equipoise.equilibrium.cuda_graph`).
torchdeq 0.1.0 drives the same f at the same number of evaluations, where it can be imported. Sides
in turn, medians of five rounds or more; a case that would start after --seconds is left out, and
the table says so. Writes gpu.csv. --quick with --device cpu is a try-out with tiny sizes.
"""

from __future__ import annotations

import argparse
import csv
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.gpu_sides import Bare, Counted, TorchDEQ, torchdeq_is_there
from equipoise.equilibrium import (
    Anderson,
    Broyden,
    Equilibrium,
    Exact,
    FixedPoint,
    GradientEstimator,
    JacobianFree,
    Phantom,
    Shine,
    Solver,
)
from equipoise.equilibrium.cuda_graph import graphed
from equipoise.models import MDEQ, DEQTransformer

FORWARD, BACKWARD, PHANTOM = 18, 20, 5
ROUNDS = 5
BLOCK_SECONDS = 0.03  # a side is called so often that a round takes this long
VOCABULARY, LENGTH = 2000, 64
COLUMNS = ("model", "batch", "precision", "method", "side", "milliseconds", "over_bare",
           "evaluations", "peak_mib")  # fmt: skip


def methods(scale: float) -> dict[str, tuple[Solver, GradientEstimator, Bare, dict[str, Any]]]:
    """Solver and estimator, the bare step, and torchdeq's settings, by name."""
    forward, backward = max(int(FORWARD * scale), 2), max(int(BACKWARD * scale), 2)
    anderson, broyden = (kind(max_steps=forward, tol=0) for kind in (Anderson, Broyden))
    exact = Exact(Broyden(max_steps=backward, tol=0))
    once, nothing = Bare(forward, 1, 0), {"f_solver": "broyden"}
    return {
        "broyden, exact": (
            broyden, exact, Bare(forward, 1, backward),
            {"ift": True, "f_solver": "broyden", "b_solver": "broyden", "backward": backward},
        ),
        "anderson, phantom": (
            anderson, Phantom(PHANTOM), Bare(forward, PHANTOM, 0),
            {"grad": PHANTOM, "tau": 0.5, "f_solver": "anderson"},
        ),
        "broyden, shine": (broyden, Shine(), once, {}),
        "broyden, jfb": (broyden, JacobianFree(), once, {"grad": 1, **nothing}),
        # A tolerance that nothing meets: the last evaluation keeps its graph, for one host sync.
        "broyden, jfb, one sync": (
            Broyden(max_steps=forward, tol=1e-30, check_every=forward),
            JacobianFree(), Bare(forward - 1, 1, 0), {},
        ),
    }  # fmt: skip


@dataclass
class Case:
    """One table row group: a model at a batch size and a precision, with one method."""

    model: str
    batch: int
    precision: str
    method: str
    build: Callable[[nn.Module], nn.Module] = field(repr=False)
    inputs: tuple[Tensor, ...] = field(repr=False)
    loss: Callable[[Any], Tensor] = field(repr=False)

    @property
    def device(self) -> str:
        return self.inputs[0].device.type


class Training:
    """A model with its optimiser; `step` is one training step."""

    def __init__(self, case: Case, equilibrium: nn.Module, replayed: bool = False) -> None:
        torch.manual_seed(0)
        self.case = case
        self.network = case.build(equilibrium).train()
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=1e-4, fused=case.device == "cuda"
        )
        if replayed:
            with self.autocast():
                graphed(self.network, *case.inputs)

    def autocast(self) -> Any:
        if self.case.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.case.device, dtype=torch.bfloat16)

    def step(self) -> None:
        self.optimizer.zero_grad()
        with self.autocast():
            loss = self.case.loss(self.network(*self.case.inputs))
        loss.backward()
        self.optimizer.step()


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(side: Callable[[], object], calls: int, device: str) -> float:
    """Wall time of one call, as the mean of several without a wait in between."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        side()
    synchronize(device)
    return (time.perf_counter() - start) / calls


def timed(sides: dict[str, Callable[[], object]], device: str) -> dict[str, list[float]]:
    """Times of every side over the rounds, in turn; the first call of each is not counted."""
    first = {name: (side(), seconds(side, 1, device))[1] for name, side in sides.items()}
    calls = {name: max(1, min(20, int(BLOCK_SECONDS / spent))) for name, spent in first.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            times[name].append(seconds(side, calls[name], device))
    return times


def peak_mib(side: Callable[[], object], device: str) -> float:
    """The most memory of tensors that a call holds beyond what it finds; NaN on the CPU."""
    if device != "cuda":
        return float("nan")
    synchronize(device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    side()
    synchronize(device)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def sides_of(case: Case, scale: float) -> dict[str, Training]:
    solver, estimator, bare, peer = methods(scale)[case.method]
    sides = {"ours": Training(case, Equilibrium(solver, estimator)), "bare": Training(case, bare)}
    if case.device == "cuda" and solver.tol == 0:
        sides["graph"] = Training(case, Equilibrium(solver, estimator), replayed=True)
    if peer and torchdeq_is_there() and case.precision == "fp32":
        sides["torchdeq"] = Training(case, TorchDEQ(solver.max_steps, peer))
    return sides


def measured(case: Case, scale: float) -> Iterator[dict[str, Any]]:
    """A row for each side."""
    trainings = sides_of(case, scale)
    evaluations = {name: Counted.in_step(training) for name, training in trainings.items()}
    times = timed({name: training.step for name, training in trainings.items()}, case.device)
    for name, training in trainings.items():
        pairs = zip(times[name], times["bare"], strict=True)
        yield {
            "model": case.model, "batch": case.batch, "precision": case.precision,
            "method": case.method, "side": name,
            "milliseconds": round(1e3 * statistics.median(times[name]), 3),
            "over_bare": round(statistics.median(a / b for a, b in pairs), 3),
            "evaluations": evaluations[name],
            # What a graph needs it has held since it was recorded.
            "peak_mib": "" if name == "graph" else round(peak_mib(training.step, case.device), 1),
        }  # fmt: skip


def mdeq_case(size: str, batch: int, precision: str, method: str, device: str, side: int) -> Case:
    """A step of MDEQ on random pictures; "bf16 nhwc" keeps weights and pictures channels_last."""
    last = precision.endswith("nhwc")
    layout = torch.channels_last if last else torch.contiguous_format
    image = torch.randn(batch, 3, side, side).to(device, memory_format=layout)
    label = torch.randint(10, (batch,)).to(device)

    def build(equilibrium: nn.Module) -> nn.Module:
        network = MDEQ(equilibrium, classes=10, image_size=side, size=size)  # type: ignore[arg-type]
        return network.to(device, memory_format=layout)

    def loss(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits.float(), label)

    return Case(f"mdeq {size}", batch, precision, method, build, (image,), loss)


class Losses(nn.Module):
    """A transformer as a map from tokens to the losses of their successors, for a graph."""

    def __init__(self, model: DEQTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = self.model.token_losses(self.model(tokens).hidden, targets)
        return losses


def transformer_case(batch: int, precision: str, method: str, device: str, width: int) -> Case:
    """A step of the equilibrium transformer, 64 tokens, 2,000 symbols with a plain softmax."""
    drawn = torch.randint(VOCABULARY, (batch, LENGTH + 1)).to(device)

    def build(equilibrium: nn.Module) -> nn.Module:
        return Losses(
            DEQTransformer(
                equilibrium, vocabulary=VOCABULARY, memory_length=LENGTH, width=width, heads=4,
                inner_width=4 * width, cutoffs=(), dropout=0.05,
            )
        ).to(device)  # fmt: skip

    inputs = drawn[:, :-1], drawn[:, 1:].contiguous()
    return Case("transformer", batch, precision, method, build, inputs, torch.mean)


def cases(device: str, quick: bool) -> Iterator[Case]:
    """All of them, what matters most first."""
    names = list(methods(1.0))
    if quick:
        for method in names:
            yield mdeq_case("tiny", 2, "fp32", method, device, 8)
        yield mdeq_case("tiny", 2, "bf16 nhwc", names[0], device, 8)
        yield transformer_case(2, "bf16", names[0], device, 16)
        return
    for batch in (32, 8, 128):
        for size in ("tiny", "large"):
            for precision in ("fp32", "bf16 nhwc"):
                for method in names:
                    yield mdeq_case(size, batch, precision, method, device, 32)
        for precision in ("fp32", "bf16"):
            for method in names[:2]:
                yield transformer_case(batch, precision, method, device, 128)
        for size in ("tiny", "large"):
            yield mdeq_case(size, batch, "bf16", names[0], device, 32)


def solves(device: str, quick: bool) -> Iterator[dict[str, Any]]:
    """A plain solve of a convolution block: each solver over the bare evaluations of f."""
    from benchmarks.functions import convolution, dense

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
        for name in sides:
            pairs = zip(times[name], times["bare"], strict=True)
            yield {
                "model": f"solve of {timed_function.name}", "batch": len(x), "precision": "fp32",
                "method": f"{budget} evaluations", "side": name,
                "milliseconds": round(1e3 * statistics.median(times[name]), 3),
                "over_bare": round(statistics.median(a / b for a, b in pairs), 3),
                "evaluations": getattr(sides[name](), "nfe", budget),
                "peak_mib": round(peak_mib(sides[name], device), 1),
            }  # fmt: skip


def shown(row: dict[str, Any]) -> str:
    return "| " + " | ".join(str(row[column]) for column in COLUMNS) + " |"


def rows(device: str, quick: bool, limit: float) -> Iterator[dict[str, Any]]:
    start = time.perf_counter()
    yield from solves(device, quick)
    left_out = 0
    for case in cases(device, quick):
        if time.perf_counter() - start > limit:
            left_out += 1
            continue
        try:
            yield from list(measured(case, 0.15 if quick else 1.0))
        except RuntimeError as error:  # one case without memory, or not recorded, is no end
            print(f"{case} failed: {str(error).splitlines()[0]}", flush=True)
        gc.collect()  # graphs stand in circles with their networks, and hold their memory
    if left_out:
        print(f"{left_out} cases were left out after {limit:g} seconds", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path())
    parser.add_argument("--seconds", type=float, default=220.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    chosen = parser.parse_args()
    name = torch.cuda.get_device_name() if chosen.device == "cuda" else "CPU"
    tf32 = torch.backends.cudnn.allow_tf32
    print(f"{name}, torch {torch.__version__}, TF32 in fp32 convolutions: {tf32}")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    chosen.output.mkdir(parents=True, exist_ok=True)
    with (chosen.output / "gpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("card", "torch", *COLUMNS))
        writer.writeheader()
        for row in rows(chosen.device, chosen.quick, chosen.seconds):
            print(shown(row), flush=True)
            writer.writerow({"card": name, "torch": torch.__version__, **row})
            file.flush()


if __name__ == "__main__":
    main()
