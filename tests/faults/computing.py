"""Numbers that are not finite, solves that fail, and processes and programs that do."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from tests.faults import injection as put
from tests.faults.fault import Fault
from tests.faults.injection import at_call, at_hook, raising

GUARDED = "skips the step, counts it in metrics.json, and completes"
STOPPED = "stops after five such steps in a row; the checkpoint before stays"
FORWARD = "equipoise.equilibrium.layer:Equilibrium.forward"
TRAINING = "equipoise.tasks.classification:Classification.training_step"
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"
SINCE = "the steps since the last checkpoint, which are done again"
WORKERS = ("task.num_workers=2",)
ANOTHER = "starts new processes, which load its batch again, warns, and completes"
PROCESSES = ("strategy=ddp_cpu", "trainer.devices=2")
CALLBACK = """
from lightning.pytorch import Callback

class Mine(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 7:
            raise KeyError("my own mistake")
"""


def spoiled_loss(first: int, last: float) -> put.Injection:
    """The losses of some training steps are not numbers."""

    def make(training_step: Any) -> Any:
        steps = 0

        def spoiled(*args: Any) -> Any:
            nonlocal steps
            steps += 1
            outputs = training_step(*args)
            if first <= steps <= last:
                outputs["loss"] = outputs["loss"] * math.nan
            return outputs

        return spoiled

    return put.replaced(TRAINING, make)


def spoiled_gradient(value: float) -> put.OfTrainer:
    def spoil(trainer: Trainer) -> None:
        parameters = trainer.lightning_module.parameters()
        next(p.grad for p in parameters if p.grad is not None).fill_(value)

    return spoil


def counts(steps: int) -> Callable[[Path, str], None]:
    def check(folder: Path, said: str) -> None:
        assert f'"skipped_steps": {steps}' in (folder / "run" / "metrics.json").read_text()

    return check


def own_callback(folder: Path) -> None:
    (folder / "my_code.py").write_text(CALLBACK)


def mended_callback(folder: Path) -> None:
    (folder / "my_code.py").write_text(CALLBACK.replace("== 7", "== 700"))


def of_the_second_process(number: signal.Signals) -> put.OfTrainer:
    def act(trainer: Trainer) -> None:
        os.kill(put.children(os.getpid())[0], number)

    return act


FAULTS = [
    Fault(
        "loss: not finite once",
        "the loss of one step is not a number",
        GUARDED,
        "results: ",
        lost="that step",
        same=False,
        inject=spoiled_loss(4, 4),
        check=counts(1),
    ),
    Fault(
        "loss: never finite again",
        "the loss is not a number from a step on",
        STOPPED,
        "error: Training diverged: the loss was not finite",
        lost=SINCE,
        status=1,
        reached="failed",
        inject=spoiled_loss(6, math.inf),
    ),
    Fault(
        "gradient: not finite once",
        "a gradient is infinite in one step",
        GUARDED,
        "results: ",
        lost="that step",
        same=False,
        check=counts(1),
        inject=at_hook("on_after_backward", spoiled_gradient(math.inf), 4),
    ),
    Fault(
        "gradient: never finite again",
        "a gradient is not a number from a step on",
        STOPPED,
        "error: Training diverged: the gradient was not finite",
        lost=SINCE,
        status=1,
        reached="failed",
        inject=at_hook("on_after_backward", spoiled_gradient(math.nan), 6, True),
    ),
    Fault(
        "solver: samples fail, warn",
        "samples do not reach the tolerance (on_failure=warn)",
        "completes, warns, and reports their fraction",
        "did not reach the tolerance",
        words=("equilibrium.on_failure=warn",),
    ),
    Fault(
        "solver: samples fail, raise",
        "the same with on_failure=raise",
        "stops at the first such step",
        "error: .*on_failure=warn continues anyway",
        status=1,
        reached="failed",
        words=("equilibrium.on_failure=raise",),
        resumes=False,
        same=False,
    ),
    Fault(
        "solver: samples fail, fallback",
        "the same with on_failure=fallback",
        "solves these anew by damped iteration, and completes",
        "results: ",
        words=("equilibrium.on_failure=fallback",),
        same=False,
    ),
    Fault(
        "memory: in a solve",
        "memory ends in a solve",
        "stops in a sentence; the checkpoint before stays",
        "error: the run cannot continue: there is not enough memory",
        lost=SINCE,
        status=1,
        reached="failed",
        inject=at_call(FORWARD, raising(MemoryError()), 9),
    ),
    Fault(
        "memory: torch's allocator",
        "torch cannot allocate a tensor",
        "stops in a sentence with advice; the checkpoint before stays",
        "error: the run cannot continue: .*choose smaller sizes",
        lost=SINCE,
        status=1,
        reached="failed",
        inject=at_call(FORWARD, raising(RuntimeError(NO_MEMORY)), 9),
    ),
    Fault(
        "callback: an own one fails",
        "a callback of the user's own raises an exception",
        "stops, and names its file and line; the checkpoint before stays",
        r"error: .*my_code\.py.*line 7",
        lost=SINCE,
        status=1,
        reached="failed",
        words=("+callbacks.mine={_target_: my_code.Mine}",),
        prepare=own_callback,
        mend=mended_callback,
        same=False,
    ),
    Fault(
        "worker: killed in training",
        "a process that loads data is killed",
        ANOTHER,
        "others continue with its batch",
        words=WORKERS,
        inject=at_hook("on_train_batch_start", put.kill_a_child, 3),
    ),
    Fault(
        "worker: killed in validation",
        "the same during a validation",
        ANOTHER,
        "results: ",
        words=WORKERS,
        inject=at_hook("on_validation_batch_start", put.kill_a_child),
    ),
    Fault(
        "worker: killed again and again",
        "every process that loads data is killed",
        "stops in a sentence; the checkpoint before stays",
        "error: The worker processes that load data are repeatedly ended from outside",
        status=1,
        reached="failed",
        words=WORKERS,
        lost=SINCE,
        inject=at_call(
            "torch.utils.data.dataloader:_MultiProcessingDataLoaderIter._reset",
            put.kill_workers,
            3,
            after=True,
            every=True,
        ),
    ),
    Fault(
        "process: the second is killed",
        "one of two training processes is killed",
        "stops in a sentence; the checkpoint before stays",
        "error: .*process",
        status=1,
        reached="failed",
        words=PROCESSES,
        lost=SINCE,
        same=False,
        inject=at_hook("on_train_batch_start", of_the_second_process(signal.SIGKILL), 7),
    ),
    Fault(
        "process: the first is killed",
        "the first of two training processes is killed",
        "ends, and so does the other; `resume=auto` continues the run",
        "",
        status=-9,
        reached=None,
        words=PROCESSES,
        lost=SINCE,
        same=False,
        inject=at_hook("on_train_batch_start", put.signalled(signal.SIGKILL), 7),
    ),
    Fault(
        "process: killed",
        "the run is killed (SIGKILL)",
        "ends; `resume=auto` continues the run",
        "",
        status=-9,
        reached=None,
        lost=SINCE,
        inject=at_hook("on_train_batch_start", put.signalled(signal.SIGKILL), 7),
    ),
    Fault(
        "process: killed while saving",
        "the run is killed while it writes a checkpoint",
        "ends; the checkpoint before stays whole, and `resume=auto` continues the run",
        "",
        status=-9,
        reached=None,
        lost=SINCE,
        inject=at_call("os:fsync", put.signalled(signal.SIGKILL), 9),
    ),
]
