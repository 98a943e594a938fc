"""Peak memory of a training step of MDEQ against the solver's budget, beside the unrolled network.

    python -m benchmarks.mdeq_memory

CIFAR-10 TINY on 16 random images: with the equilibrium layer (Anderson, every budget spent whole)
the peak stays, with the same f applied as layers and differentiated through it grows.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional

from benchmarks.memory import peak_bytes
from equipoise.running.api import build

BUDGETS = (10, 20, 40, 80)
NETWORK = ["model=mdeq", "task=cifar10", "model.size=tiny"]


def step(model: nn.Module, image: torch.Tensor, label: torch.Tensor) -> None:
    """Forward, backward, and the gradients dropped."""
    functional.cross_entropy(model(image), label).backward()
    model.zero_grad()


def peaks(*words: str, budget: str) -> list[float]:
    """MiB above what weights and images take, at every budget."""
    torch.manual_seed(0)
    image, label = torch.randn(16, 3, 32, 32), torch.randint(10, (16,))
    found = []
    for steps in BUDGETS:
        model = build(*NETWORK, *words, budget.format(steps)).train()
        found.append(peak_bytes(partial(step, model, image, label)) / 2**20)
    return found


def main() -> None:
    torch.set_num_threads(1)
    equilibrium = ["solver=anderson", "solver.tol=0.0"]
    sides = {
        f"anderson, {gradient}": peaks(
            *equilibrium, f"gradient={gradient}", budget="solver.max_steps={}"
        )
        for gradient in ("phantom", "jfb", "exact")
    }
    sides["unrolled layers"] = peaks("gradient=unrolled", budget="gradient.steps={}")
    print("| MiB at evaluations | " + " | ".join(map(str, BUDGETS)) + " | growth |")
    print("|---" * (len(BUDGETS) + 2) + "|")
    for name, measured in sides.items():
        listed = " | ".join(f"{value:.1f}" for value in measured)
        print(f"| {name} | {listed} | {max(measured) / min(measured) - 1:.1%} |")


if __name__ == "__main__":
    main()
