"""What the framework adds to an optimiser step, over a bare loop on the same model and batches.

    python -m benchmarks.overhead [--loggers csv wandb tensorboard mlflow] [--rounds 7]
                                  [--without observers|hooks|profiler|names]

All sides train the same small MDEQ on the digits, with the same loader, in one process, in turn,
on one thread, under each logger with its defaults (W&B offline); a round is the mean processor time
of a step. A figure is the median over the rounds, and beside it the difference of the least ones,
which a busy machine disturbs less. What happens once an epoch (two checkpoints, a line of
progress) is shown apart. --without leaves one of the remedies of
`equipoise.callbacks.lightning_overhead` out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

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
        self.started: float | None = None
        self.steps = 0.0
        self.epoch = 0.0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if self.started is None:
            self.started = time.process_time()
        self.steps = time.process_time() - self.started

    def on_train_end(self, trainer, pl_module) -> None:
        self.epoch = time.process_time() - self.started


def ours(folder: Path, logger: str) -> tuple[float, float]:
    """Milliseconds a step under the Trainer with the default callbacks and a logger.

    And what the end of the epoch costs, its validation included.
    """
    run = fresh(folder, f"logger={logger}")
    clock = Clock()
    run.trainer.callbacks.insert(0, clock)
    for begun in run.trainer.loggers:
        _ = begun.experiment  # a run begins its loggers before its first step too
    run.trainer.fit(run.task, datamodule=run.data)
    close_wandb(0)
    assert run.trainer.global_step == STEPS
    return 1e3 * clock.steps / (STEPS - 1), 1e3 * (clock.epoch - clock.steps)


def bare(folder: Path) -> float:
    """Milliseconds a step of a plain loop over the same batches."""
    run = fresh(folder)
    run.data.setup("fit")
    loader = run.data.train_dataloader()
    model = run.task.model.train()
    optimizer = run.task.make_optimizer(model.parameters())
    loader.batch_sampler.sampler.set_epoch(0)
    started: float | None = None
    for batch in loader:
        started = started or time.process_time()
        steps = time.process_time() - started
        optimizer.zero_grad()
        functional.cross_entropy(model(batch["image"]), batch["label"]).backward()
        optimizer.step()
    return 1e3 * steps / (STEPS - 1)


def fresh(folder: Path, *words: str):
    """The parts of a run, built anew."""
    folder.mkdir(parents=True)
    return build_run(compose([*SMALL, *words, f"run_dir={folder}"]), folder)


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
    bases: list[float] = []
    steps: dict[str, list[float]] = {logger: [] for logger in arguments.loggers}
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


def show(bases: list[float], steps: dict[str, list[float]], ends: dict[str, list[float]]) -> None:
    """Print the table of the loggers."""
    print(f"bare step: {statistics.median(bases):.2f} ms, least {min(bases):.2f} ms")
    print(f"{'logger':<12} {'added':>8} {'of least':>9} {'of 36 ms':>9} {'epoch end':>10}")
    for logger, times in steps.items():
        added = statistics.median(t - b for t, b in zip(times, bases, strict=True))
        least = min(times) - min(bases)
        share = added / EQUILIBRIUM_STEP
        end = statistics.median(ends[logger])
        print(f"{logger:<12} {added:5.2f} ms {least:6.2f} ms {share:9.1%} {end:7.0f} ms")


if __name__ == "__main__":
    main()
