"""Ctrl-C that loses nothing: finish the step, save, and leave."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from equipoise.errors import RunInterrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class GracefulInterrupt(Checkpoint):
    """On the first SIGINT, SIGTERM or SIGUSR1 finish the current step, save `last.ckpt`, and stop.

    The run finishes all batches accumulated for the optimiser step, and a validation that has
    begun. The state is saved after the other callbacks have seen the step, because this is a
    `Checkpoint` and Lightning runs those last. In the list it must come after the other checkpoint
    callbacks, because `trainer.checkpoint_callback` is the first of them. A second signal has the
    effect that it would have without this callback. With several processes, a signal to any of them
    stops all. The exit status is that of the signal, and under Slurm `recorded` requeues the job,
    since Lightning's own handlers are not installed in our runs. A task whose
    `resumes_within_epoch` is False is stopped after its epoch instead.

    Raises RunInterrupted from the hook in which the state was saved.
    """

    def __init__(self, dirpath: str | Path) -> None:
        self.last_checkpoint = Path(dirpath) / "last.ckpt"
        self.signalled = 0  # the number of the signal received, 0 before
        self.previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the handlers, which only the main thread may do.

        Outside our runs, this replaces the handler for SIGTERM that Lightning has just installed.
        """
        self.signalled = 0
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save and stop if a signal was received, unless the task must finish its epoch first."""
        whole_step = not trainer.fit_loop._should_accumulate()
        if whole_step and getattr(pl_module, "resumes_within_epoch", True):
            self._stop_if_signalled(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and stop if a signal was received during a validation within an epoch."""
        loop = trainer.fit_loop.epoch_loop
        within = trainer.validating and not loop._num_ready_batches_reached()
        if within and not loop._should_accumulate():
            self._stop_if_signalled(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and stop if a signal was received during the validation after an epoch."""
        try:
            self._stop_if_signalled(trainer)
        except RunInterrupted:
            _log_the_epoch(trainer)
            raise

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handlers: no step is left to finish. Stop if a signal was received."""
        self._restore()
        self._stop_if_signalled(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the previous handlers."""
        self._restore()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restore the previous handlers: after an exception, Lightning calls no teardown."""
        self._restore()

    def _stop_if_signalled(self, trainer: Trainer) -> None:
        signalled = self.signalled
        if trainer.world_size > 1:
            numbers = torch.tensor(signalled, device=trainer.strategy.root_device)
            signalled = int(trainer.strategy.reduce(numbers, reduce_op="max"))
        if not signalled:
            return
        trainer.save_checkpoint(self.last_checkpoint, weights_only=False)
        raise RunInterrupted(
            f"Interrupted after step {trainer.global_step}; "
            f"continue with ckpt_path={self.last_checkpoint}",
            signalled,
        )

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signalled = number
        self._restore()
        # No print here: a handler may interrupt another print, whose buffer is not reentrant.
        errors = sys.__stderr__.fileno() if sys.__stderr__ else 2
        below = "\n" if os.isatty(errors) else ""  # below the progress bar and the terminal's ^C
        name = "interrupt" if number == signal.SIGINT else signal.Signals(number).name
        message = f"{below}{name}: finishing this step and saving {self.last_checkpoint}\n"
        os.write(errors, message.encode())

    def _restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}


def _log_the_epoch(trainer: Trainer) -> None:
    """Write the row of what a task logged for its epoch, as Lightning would after the hook."""
    trainer._logger_connector.on_epoch_end()
    trainer.fit_loop.epoch_loop._batches_that_stepped -= 1  # as in Lightning, for this row alone
    trainer._logger_connector.update_train_epoch_metrics()
