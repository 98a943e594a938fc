"""What the framework adds to an optimiser step, over a bare loop on the same model and batches.

    python -m benchmarks.overhead [--loggers csv wandb tensorboard mlflow] [--rounds 7]
                                  [--without observers|hooks|profiler|names]

All sides train the same small MDEQ on the digits, with the same loader, in one process, in turn,
on one thread, under each logger with its defaults (W&B offline). Counted is processor time. Of each
of the epoch's steps the least over the rounds counts, since a busy machine only adds to it, and
their mean is the step's figure: the rows that are due every few steps are in it. Beside it stands
the difference of whole rounds, their median. What happens once an epoch (two checkpoints, a line of
progress) is shown apart. --without leaves one of the remedies of
`equipoise.callbacks.lightning_overhead` out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback
from lightning.pytorch.profilers import PassThroughProfiler
from torch.nn import functional

from equipoise.callbacks import lightning_overhead
from equipoise.config.compose import compose
from equipoise.running.api import close_wandb
from equipoise.running.build import build_run
from equipoise.running.messages import quiet_lightning

STEPS = 162
ROUNDS = 7
LOGGERS = ("none", "csv", "wandb", "tensorboard", "mlflow")
EQUILIBRIUM_STEP = 36.0
"""Milliseconds of a step of a small convolutional equilibrium model, of which a share is shown."""
SMALL = [
    "model.channels=[8,8]", "model.head_channels=[2,4]", "model.final_channels=16",
    "model.groups=4", "solver.max_steps=4", "gradient=jfb", "strategy=cpu",
    "task.batch_size=8", "trainer.max_epochs=1", "schedule=constant",
]  # fmt: skip


class Clock(Callback):
    """Processor time from the first training step to the last, and to the end of the epoch."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.end = 0.0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.starts.append(time.process_time())

    def on_train_end(self, trainer, pl_module) -> None:
        self.end = time.process_time()


def durations(starts: list[float]) -> np.ndarray:
    """Milliseconds of every step but the last."""
    return 1e3 * np.diff(starts)


def ours(
    folder: Path, logger: str, words: Sequence[str] = SMALL, steps: int = STEPS
) -> tuple[np.ndarray, float]:
    """Milliseconds of each step under the Trainer with the default callbacks and a logger.

    And what the end of the epoch costs, its validation included.
    """
    run = fresh(folder, *words, f"logger={logger}")
    clock = Clock()
    run.trainer.callbacks.insert(0, clock)
    for begun in run.trainer.loggers:
        _ = begun.experiment  # a run begins its loggers before its first step too
    run.trainer.fit(run.task, datamodule=run.data)
    close_wandb(0)
    assert run.trainer.global_step == steps
    return durations(clock.starts), 1e3 * (clock.end - clock.starts[-1])


def bare(folder: Path) -> np.ndarray:
    """Milliseconds of each step of a plain loop over the same batches."""
    run = fresh(folder, *SMALL)
    run.data.setup("fit")
    loader = run.data.train_dataloader()
    model = run.task.model.train()
    optimizer = run.task.make_optimizer(model.parameters())
    loader.batch_sampler.sampler.set_epoch(0)
    starts: list[float] = []
    for batch in loader:
        starts.append(time.process_time())
        optimizer.zero_grad()
        functional.cross_entropy(model(batch["image"]), batch["label"]).backward()
        optimizer.step()
    return durations(starts)


def fresh(folder: Path, *words: str):
    """The parts of a run, built anew."""
    folder.mkdir(parents=True)
    return build_run(compose([*words, f"run_dir={folder}"]), folder)


def ungrouped(callbacks: list[Callback]) -> list[Callback]:
    """Every callback by itself in the Trainer's list."""
    for callback in callbacks:
        lightning_overhead._drop_inherited_hooks(callback)
    return callbacks


def leave_out(remedy: str) -> None:
    """Let Lightning cost what it costs without a remedy."""
    module = lightning_overhead
    if remedy == "observers":
        module.grouped = ungrouped
    elif remedy == "hooks":
        module._drop_inherited_hooks = lambda callback: None
    elif remedy == "profiler":
        module.Unprofiled = PassThroughProfiler
    elif remedy == "names":
        module.note_hooks_directly = lambda task: None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--without", choices=("observers", "hooks", "profiler", "names"))
    parser.add_argument("--loggers", nargs="+", choices=LOGGERS, default=LOGGERS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    leave_out(arguments.without)
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    torch.set_num_threads(1)
    quiet_lightning()
    bases: list[np.ndarray] = []
    steps: dict[str, list[np.ndarray]] = {logger: [] for logger in arguments.loggers}
    ends: dict[str, list[float]] = {logger: [] for logger in arguments.loggers}
    with tempfile.TemporaryDirectory() as root:
        for number in range(-1, arguments.rounds):
            base = bare(Path(root) / f"bare_{number}")
            measured = {x: ours(Path(root) / f"{x}_{number}", x) for x in arguments.loggers}
            if number < 0:  # the first round warms up
                continue
            bases.append(base)
            for logger, (step, end) in measured.items():
                steps[logger].append(step)
                ends[logger].append(end)
    show(bases, steps, ends)


def show(
    bases: list[np.ndarray], steps: dict[str, list[np.ndarray]], ends: dict[str, list[float]]
) -> None:
    """Print the table of the loggers."""
    base = np.min(bases, axis=0).mean()
    print(f"bare step: {base:.2f} ms")
    print(f"{'logger':<12} {'added':>8} {'of rounds':>10} {'of 36 ms':>9} {'epoch end':>10}")
    for logger, times in steps.items():
        added = np.min(times, axis=0).mean() - base
        rounds = statistics.median(t.mean() - b.mean() for t, b in zip(times, bases, strict=True))
        share, end = added / EQUILIBRIUM_STEP, statistics.median(ends[logger])
        print(f"{logger:<12} {added:5.2f} ms {rounds:7.2f} ms {share:9.1%} {end:7.0f} ms")


if __name__ == "__main__":
    main()
