"""The Jacobian regulariser on the published pre-norm transformer, with and without.

    python -m benchmarks.sequence_jacobian [steps [weight]]

Two networks of one seed learn task=python_docs, a step each in turn, by the published recipe in
small: plain unrolling over 2 layers for the first 10.67 % of the steps, then Anderson (memory 6)
and Broyden backward with 14 evaluations each; a probability of 0.4 of the regulariser
(2106.14342). Its published weight, 2, is for 300,000 steps: in some hundred it leaves no Jacobian
at all, and nothing of the text but the frequencies of its characters. Then both are measured on
held-out text: bits per character, and the relative residual, median over streams and segments, of
both solves at 12 and 14 evaluations. One thread.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.data import PythonDocs
from equipoise.equilibrium import Anderson, Broyden, Equilibrium, Exact, Unrolled
from equipoise.running.api import build

BUDGETS = (12, 14)
BUDGET = BUDGETS[-1]
UNROLLED = 0.1067
WARMUP = 0.05
LEARNING_RATE = 3e-3
SEGMENTS = 20
NETWORK = ("model=deq_transformer", "task=python_docs", "model.norm=published_pre")
Batch = dict[str, Tensor]


def words_of(weight: float) -> tuple[str, ...]:
    """The choice of a regulariser of `weight`; without one where it is 0."""
    if weight == 0:
        return ()
    values = {"weight": weight, "probability": 0.4, "warmup": UNROLLED}
    return ("regularizer=jacobian", *(f"regularizer.{k}={v}" for k, v in values.items()))


def set_budget(layer: Equilibrium, budget: int) -> None:
    """Spend the whole of `budget` in both solves."""
    layer.solver = Anderson(max_steps=budget, tol=0, memory=6)
    layer.gradient = Exact(Broyden(max_steps=budget, tol=0, memory=budget))


class Side:
    """One network with its optimiser, its memory of the text, and the time that it took."""

    def __init__(self, words: tuple[str, ...]) -> None:
        torch.manual_seed(0)
        self.model: Any = build(*NETWORK, *words)
        self.layer: Any = self.model.equilibrium
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self.memory: tuple[Tensor, ...] | None = None
        self.seconds: list[float] = []

    def loss(self, batch: Batch) -> Tensor:
        """The mean loss of the next segment."""
        output = self.model(batch["tokens"], None if bool(batch["start"]) else self.memory)
        self.memory = output.memory
        losses: Tensor = self.model.token_losses(output.hidden, batch["targets"])
        return losses.sum() / (batch["targets"] >= 0).sum()

    def step(self, batch: Batch, progress: float) -> None:
        """Learn from one segment, when `progress` of the run has passed."""
        began = time.process_time()
        unrolled = progress < UNROLLED
        set_budget(self.layer, BUDGET)
        if unrolled:
            self.layer.gradient = Unrolled(steps=2)
        if self.layer.regularizer is not None:
            self.layer.regularizer.progress = progress
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate(progress)
        self.optimizer.zero_grad()
        loss = self.loss(batch)
        penalty = self.layer.pop_penalty()
        (loss if penalty is None else loss + penalty).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.25)
        self.optimizer.step()
        if not unrolled:
            self.seconds.append(time.process_time() - began)

    def residuals(self, batches: list[Batch], budget: int) -> tuple[float, float]:
        """Medians of the forward and the backward residual at `budget` evaluations."""
        set_budget(self.layer, budget)
        forward, backward = [], []
        for batch in batches:
            self.loss(batch).backward()
            forward.append(self.layer.report.residual)
            backward.append(self.layer.report.backward.residual)
        return float(torch.cat(forward).median()), float(torch.cat(backward).median())

    @torch.no_grad()
    def bits(self, batches: list[Batch], budget: int) -> float:
        """Bits per character at `budget` evaluations."""
        set_budget(self.layer, budget)
        return statistics.mean(float(self.loss(batch)) for batch in batches) / math.log(2)


def rate(progress: float) -> float:
    """Linear warm-up and a half cosine, as published."""
    return min(1.0, progress / WARMUP) * 0.5 * (1 + math.cos(math.pi * progress))


def endless(data: PythonDocs) -> Iterator[Batch]:
    """The training segments in the order of the text, over and over."""
    while True:
        yield from data.train_dataloader()


def main(steps: int = 400, weight: float = 0.2) -> None:
    """Train both, and print a line for each budget."""
    torch.set_num_threads(1)
    data = PythonDocs()
    data.setup()
    sides = {f"{chosen:g}": Side(words_of(chosen)) for chosen in (0.0, weight)}
    for number, batch in zip(range(steps), endless(data), strict=False):
        for side in sides.values():
            side.step(batch, number / steps)
    held_out = list(data.val_dataloader())[:SEGMENTS]
    print("| weight | evaluations | forward | backward | bits a character | step, CPU ms |")
    print("|---|---|---|---|---|---|")
    for name, side in sides.items():
        side.model.eval()
        spent = 1e3 * statistics.median(side.seconds)
        for budget in BUDGETS:
            forward, backward = side.residuals(held_out, budget)
            bits = side.bits(held_out, budget)
            print(
                f"| {name} | {budget} | {forward:.4f} | {backward:.4f} | {bits:.3f} | {spent:.0f} |"
            )


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*(int(steps) for steps in given[:1]), *(float(weight) for weight in given[1:2]))
