"""What the framework adds to an optimiser step, over a bare loop on the same model and batches.

    python -m benchmarks.overhead

Both sides train the same small MDEQ on the digits, with the same loader, in one process, on one
thread, and take their steps in turn: a step of the bare loop follows each step of the Trainer, so a
machine whose speed drifts slows both alike. A round is the median over the pairs of the difference
in processor time, the figure the median over the rounds. What happens once an epoch (two
checkpoints, a line of progress) is shown apart.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning.pytorch import Callback
from torch.nn import functional

from equipoise.building import build_run
from equipoise.compose import compose
from equipoise.run import quiet_lightning

STEPS = 162
ROUNDS = 7
SMALL = [
    "model.channels=[8,8]", "model.head_channels=[2,4]", "model.final_channels=16",
    "model.groups=4", "solver.max_steps=4", "gradient=jfb", "strategy=cpu",
    "task.batch_size=8", "trainer.max_epochs=1", "schedule=constant",
]  # fmt: skip


class InTurn(Callback):
    """First of all callbacks: ends the Trainer's step, takes a bare one, starts the next."""

    def __init__(self, bare: Iterator[None]) -> None:
        self.bare = bare
        self.started: float | None = None
        self.framework: list[float] = []
        self.plain: list[float] = []
        self.epoch = 0.0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        begin = time.process_time()
        if self.started is not None:
            self.framework.append(begin - self.started)
        next(self.bare)
        self.started = time.process_time()
        self.plain.append(self.started - begin)

    def on_train_end(self, trainer, pl_module) -> None:
        self.epoch = time.process_time() - self.started


def bare(folder: Path) -> Iterator[None]:
    """A plain loop over the same batches, one step at a time."""
    run = fresh(folder)
    run.data.setup("fit")
    loader = run.data.train_dataloader()
    model = run.task.model.train()
    optimizer = run.task.make_optimizer(model.parameters())
    loader.batch_sampler.sampler.set_epoch(0)
    for batch in loader:
        optimizer.zero_grad()
        functional.cross_entropy(model(batch["image"]), batch["label"]).backward()
        optimizer.step()
        yield


def measure(folder: Path) -> tuple[float, float, float]:
    """Milliseconds of a bare step, added to it by the Trainer with the default callbacks and csv.

    And what the end of the epoch costs, its validation included.
    """
    run = fresh(folder / "framework")
    turns = InTurn(bare(folder / "bare"))
    run.trainer.callbacks.insert(0, turns)
    run.trainer.fit(run.task, datamodule=run.data)
    assert run.trainer.global_step == STEPS
    pairs = zip(turns.framework, turns.plain, strict=False)
    added = statistics.median(ours - plain for ours, plain in pairs)
    last_step = statistics.median(turns.framework)
    return 1e3 * statistics.median(turns.plain), 1e3 * added, 1e3 * (turns.epoch - last_step)


def fresh(folder: Path):
    """The parts of a run, built anew."""
    folder.mkdir(parents=True)
    return build_run(compose([*SMALL, f"run_dir={folder}"]), folder)


def main() -> None:
    torch.set_num_threads(1)
    quiet_lightning()
    rounds = []
    with tempfile.TemporaryDirectory() as root:
        for number in range(ROUNDS + 1):
            rounds.append(measure(Path(root) / str(number)))
    base, added, end = (statistics.median(figure) for figure in zip(*rounds[1:], strict=True))
    print(f"bare step             {base:7.2f} ms")
    print(f"added to each step    {added:7.2f} ms  (median of {ROUNDS} rounds)")
    print(f"end of an epoch       {end:7.2f} ms, validation included")


if __name__ == "__main__":
    main()
