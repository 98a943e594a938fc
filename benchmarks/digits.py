"""What each gradient estimator costs on the bundled task: MDEQ on the digits, batches of 64.

    python -m benchmarks.digits [repeats]

The weights are those after three epochs, the same for all; `exact` spends 20 products whatever it
has reached. One thread, sides in turn, medians. "gradient" is the time that a step takes beyond the
solve: the estimator's own evaluations and the backward pass.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.config.compose import compose
from equipoise.equilibrium import Equilibrium
from equipoise.running.api import build
from equipoise.running.build import build_run
from equipoise.running.messages import quiet_lightning

ESTIMATORS = {
    "exact": ["gradient=exact", "gradient.solver.max_steps=20", "gradient.solver.tol=0.0"],
    "phantom": ["gradient=phantom"],
    "neumann": ["gradient=neumann"],
    "jfb": ["gradient=jfb"],
    "shine": ["gradient=shine", "solver=broyden"],
    "reversible": ["gradient=reversible"],
    "unrolled": ["gradient=unrolled"],
}


def trained(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights after three epochs, and a batch."""
    words = ["trainer.max_epochs=3", "callbacks=training_curve", "logger=none", "strategy=cpu"]
    words = [*words, "trainer.enable_checkpointing=false", f"run_dir={folder}"]
    run = build_run(compose(words), folder)
    run.trainer.fit(run.task, datamodule=run.data)
    return run.task.model.state_dict(), next(iter(run.data.train_dataloader()))


def step(model: nn.Module, batch: dict[str, Tensor]) -> tuple[float, float]:
    """Seconds of a whole step, and of its backward pass."""
    model.zero_grad()
    start = time.process_time()
    loss = functional.cross_entropy(model(batch["image"]), batch["label"])
    middle = time.process_time()
    loss.backward()
    end = time.process_time()
    return end - start, end - middle


def solve(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """Seconds of the forward pass without any gradient."""
    start = time.process_time()
    with torch.no_grad():
        model(batch["image"])
    return time.process_time() - start


def main(repeats: int) -> None:
    torch.set_num_threads(1)
    quiet_lightning()
    with tempfile.TemporaryDirectory() as folder:
        weights, batch = trained(Path(folder))
    models = {name: build(*words).train() for name, words in ESTIMATORS.items()}
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in models}
    for model in models.values():
        model.load_state_dict(weights)
    for number in range(repeats + 1):
        for name, model in models.items():
            forward = solve(model, batch)
            whole, backward = step(model, batch)
            if number:
                times[name].append((whole, backward, whole - forward))
    print(f"{'estimator':12}{'step ms':>10}{'backward ms':>13}{'gradient ms':>13}{'products':>10}")
    for name, model in models.items():
        whole, backward, gradient = (
            statistics.median(t) * 1e3 for t in zip(*times[name], strict=True)
        )
        (layer,) = (part for part in model.modules() if isinstance(part, Equilibrium))
        products = layer.report.backward.nfe
        print(f"{name:12}{whole:10.0f}{backward:13.0f}{gradient:13.0f}{products:10}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
