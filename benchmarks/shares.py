"""What data, logging and callbacks take of a training step of the bundled digits.

    python -m benchmarks.shares [--rounds 3] [--seconds 120] [--output DIR] [--quick]

The default run, MDEQ on the digits, in a plain loop whose parts are timed, and under the Trainer
with the default callbacks, without a logger and with csv. One thread, processor time; of each step
the least over the rounds counts, since a busy machine only adds to it. `python -m equipoise
profile` takes a run of your own apart; `python -m benchmarks.overhead` compares the loggers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.overhead import fresh, ours
from benchmarks.report import Report, arguments
from equipoise.running.messages import quiet_lightning

RUN = ["strategy=cpu", "trainer.max_epochs=1"]
TINY = ["model.channels=[8,8]", "model.head_channels=[2,4]", "model.final_channels=16",
        "model.groups=4", "solver.max_steps=4", "gradient=jfb"]  # fmt: skip
PARTS = ("data", "forward", "backward", "optimiser")
LOGGERS = ("none", "csv")


def plain_loop(folder: Path, words: list[str]) -> np.ndarray:
    """Milliseconds (steps, parts) of an epoch without a Trainer."""
    run = fresh(folder, *words)
    run.data.setup("fit")
    loader = run.data.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(0)
    model = run.task.model.train()
    optimizer = run.task.make_optimizer(model.parameters())
    return np.array(list(_steps(iter(loader), model, optimizer)))


def _steps(batches, model, optimizer) -> Iterator[list[float]]:
    while True:
        times = [time.process_time()]
        batch = next(batches, None)
        if batch is None:
            return
        times.append(time.process_time())
        loss = functional.cross_entropy(model(batch["image"]), batch["label"])
        times.append(time.process_time())
        optimizer.zero_grad()
        loss.backward()
        times.append(time.process_time())
        optimizer.step()
        times.append(time.process_time())
        yield list(1e3 * np.diff(times))


def measured(rounds: int, words: list[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The least over the rounds: parts of each step, and whole steps under each logger."""
    loops, runs = [], {logger: [] for logger in LOGGERS}
    with tempfile.TemporaryDirectory() as root:
        for number in range(rounds + 1):
            loop = plain_loop(Path(root) / f"plain_{number}", words)
            whole = {
                logger: ours(Path(root) / f"{logger}_{number}", logger, words, len(loop))[0]
                for logger in LOGGERS
            }
            if number:  # the first round warms up
                loops.append(loop)
                for logger, steps in whole.items():
                    runs[logger].append(steps)
    return np.min(loops, axis=0), {name: np.min(steps, axis=0) for name, steps in runs.items()}


def table(report: Report, parts: np.ndarray, runs: dict[str, np.ndarray]) -> None:
    """Means over the steps, but for the last, which has no end under the Trainer."""
    means = dict(zip(PARTS, parts[:-1].mean(axis=0), strict=True))
    plain = sum(means.values())
    whole = {name: steps.mean() for name, steps in runs.items()}
    means["Trainer and callbacks"] = whole["none"] - plain
    means["logging (csv)"] = whole["csv"] - whole["none"]
    report.heading(f"Shares of a training step of the digits, {whole['csv']:.1f} ms")
    report.columns("part", "ms", "share")
    for name, spent in means.items():
        report.row(name, f"{spent:.2f}", f"{spent / whole['csv']:.1%}")


def main() -> None:
    parser = arguments(__doc__, seconds=120)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    quiet_lightning()
    report = Report(chosen.output and chosen.output / "shares.md")
    words = [*RUN, *TINY] if chosen.quick else RUN
    table(report, *measured(1 if chosen.quick else chosen.rounds, words))


if __name__ == "__main__":
    main()
