"""What the framework adds to an optimiser step, over a bare loop on the same model and batches.

    python -m benchmarks.overhead [--without observers|hooks|profiler|names]

Both sides train the same small MDEQ on the digits, with the same loader, in one process, in turn,
on one thread; a round is the mean processor time of a step, the figure the median over the rounds.
What happens once an epoch (two checkpoints, a line of progress) is shown apart. --without leaves
one of the remedies of `equipoise.callbacks.lightning_overhead` out.
"""

from __future__ import annotations

import argparse
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
from equipoise.running.build import build_run
from equipoise.running.messages import quiet_lightning

STEPS = 162
ROUNDS = 7
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


def ours(folder: Path) -> tuple[float, float]:
    """Milliseconds a step under the Trainer with the default callbacks and the csv logger.

    And what the end of the epoch costs, its validation included.
    """
    run = fresh(folder)
    clock = Clock()
    run.trainer.callbacks.insert(0, clock)
    run.trainer.fit(run.task, datamodule=run.data)
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


def fresh(folder: Path):
    """The parts of a run, built anew."""
    folder.mkdir(parents=True)
    return build_run(compose([*SMALL, f"run_dir={folder}"]), folder)


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
    leave_out(parser.parse_args().without)
    torch.set_num_threads(1)
    quiet_lightning()
    bases, added, ends = [], [], []
    with tempfile.TemporaryDirectory() as root:
        for number in range(-1, ROUNDS):
            base = bare(Path(root) / f"bare_{number}")
            mine, end = ours(Path(root) / f"ours_{number}")
            if number >= 0:  # the first round warms up
                bases.append(base)
                added.append(mine - base)
                ends.append(end)
    print(f"bare step             {statistics.median(bases):7.2f} ms")
    print(f"added to each step    {statistics.median(added):7.2f} ms  (median of {ROUNDS} rounds)")
    print(f"end of an epoch       {statistics.median(ends):7.2f} ms, validation included")


if __name__ == "__main__":
    main()
