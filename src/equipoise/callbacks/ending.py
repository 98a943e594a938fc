"""What has ended a training before its last planned step."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from equipoise.callbacks.observers import every_callback


def early_end(trainer: Trainer) -> str | None:
    """Return "max_time" or "early_stopping"; None where the run went as far as was planned."""
    if not trainer.should_stop:
        return None
    found = every_callback(trainer)
    for timer in (callback for callback in found if isinstance(callback, Timer)):
        left = timer.time_remaining()
        if left is not None and left <= 0:
            return "max_time"
    return "early_stopping" if any(isinstance(c, EarlyStopping) for c in found) else None


def sentence(trainer: Trainer) -> str | None:
    """Return the sentence about an early end; None where there was none."""
    where = f"after step {trainer.global_step}, in epoch {trainer.current_epoch}"
    reason = early_end(trainer)
    if reason == "max_time":
        return f"stopped {where}: the time of trainer.max_time is over"
    if reason == "early_stopping":
        stopping = next(c for c in every_callback(trainer) if isinstance(c, EarlyStopping))
        return (
            f"stopped early {where}: {stopping.monitor} has not become better "
            f"for {stopping.wait_count} validations"
        )
    return None
