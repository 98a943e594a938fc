"""Where the time of training steps goes, measured inside the Trainer as it runs.

Lightning notifies its profiler when each action of a step begins and ends. This profiler charges
the time in between to a part of the step, next to the parts of the equilibrium layers. Timed steps
alternate with plain ones, for which the clock is stopped, so the cost of measuring is known too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.profilers import Profiler

from equipoise.callbacks.lightning_overhead import NO_CONTEXT
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.equilibrium.timing import Clock, time_layers
from equipoise.report.step_parts import (
    BACKWARD,
    CALLBACKS,
    DATA,
    FORWARD,
    LOOP,
    OPTIMISER,
    StepTimes,
)

NEXT_BATCH = "train_dataloader_next"
END = "on_train_end"
NEVER = 1 << 30
PARTS_OF_HOOKS = {
    NEXT_BATCH: DATA,
    "batch_to_device": DATA,
    "transfer_batch_to_device": DATA,
    "on_before_batch_transfer": DATA,
    "on_after_batch_transfer": DATA,
    "training_step": FORWARD,
    "backward": BACKWARD,
    "optimizer_step": OPTIMISER,
    "optimizer_zero_grad": OPTIMISER,
    "on_before_optimizer_step": OPTIMISER,
    "configure_gradient_clipping": OPTIMISER,
    "lr_scheduler_step": OPTIMISER,
}
"""The part of each hook, which is the name after the last dot of an action."""
OF_CALLBACKS = "[Callback]"


class StepProfiler(Profiler):
    """Times `steps` steps after `warm_up` others, each next to a plain one, then ends the run.

    A step is one batch, from the request for it to the request for the next. The cost of ending an
    epoch is charged to the epoch's last step.
    """

    def __init__(self, trainer: Trainer, steps: int, warm_up: int) -> None:
        super().__init__()
        self.trainer = trainer
        self.steps = steps
        self.warm_up = warm_up
        device = trainer.strategy.root_device
        synchronise = _waiting_for(device) if device.type == "cuda" else None
        self.clock = Clock(synchronise)
        self.times = StepTimes(synchronised=synchronise is not None)
        self._sections: dict[str, AbstractContextManager[None]] = {}
        self._untime: Callable[[], None] | None = None
        self._begun: float | None = None
        self._number = -warm_up

    def install(self) -> None:
        """Become the trainer's profiler, and make the trainer skip its validations."""
        trainer: Any = self.trainer
        trainer.profiler = self
        trainer.check_val_every_n_epoch = NEVER

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        """Time the equilibrium layers from now on."""
        super().setup(stage, local_rank, log_dir)
        layers = equilibrium_layers(self.trainer.lightning_module)
        self._untime = time_layers(layers.values(), self.clock)

    def teardown(self, stage: str | None) -> None:
        """Leave the layers as they were."""
        if self._untime is not None:
            self._untime()
        super().teardown(stage)

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """The context that charges an action to its part."""
        if action_name not in self._sections:
            part = part_of(action_name)
            section = NO_CONTEXT if part is None else _Section(self.clock, part)
            self._sections[action_name] = section
        if action_name.endswith(END):
            self._end_step()
        return self._sections[action_name]

    def start(self, action_name: str) -> None:
        """Begin an action; Lightning calls this and `stop` only around a request for a batch."""
        if action_name.endswith(NEXT_BATCH):
            self._end_step()
            self._begin_step()
        self.profile(action_name).__enter__()

    def stop(self, action_name: str) -> None:
        """End the action that `start` began."""
        self.profile(action_name).__exit__(None, None, None)

    def _begin_step(self) -> None:
        """Begin a step, timed or plain in turn, or end the run."""
        if len(self.times.timed) == self.steps and len(self.times.plain) >= self.steps:
            end_now(self.trainer)
            return
        timed = self._number >= 0 and self._number % 2 == 0
        if timed:
            self.clock.start(LOOP)
        self._begun = self.clock.now()
        self._number += 1

    def _end_step(self) -> None:
        if self._begun is None:
            return
        if self.clock.running:
            self.clock.stop()
            self.times.parts.append(dict(self.clock.seconds))
            self.times.calls.append(dict(self.clock.calls))
            self.times.timed.append(sum(self.clock.seconds.values()))
        elif self._number > 0:
            self.times.plain.append(self.clock.now() - self._begun)
        self._begun = None


class _Section(AbstractContextManager[None]):
    """Charges what happens inside it to one part."""

    def __init__(self, clock: Clock, part: str) -> None:
        self.clock = clock
        self.part = part

    def __enter__(self) -> None:
        self.clock.enter(self.part)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clock.leave(self.part)


def part_of(action: str) -> str | None:
    """The part to charge one of Lightning's actions to; None: the part of the enclosing action.

    For example, "[Strategy]SingleDeviceStrategy.backward" is the backward pass.
    """
    if action.startswith(OF_CALLBACKS):
        return CALLBACKS
    hook = action.rpartition(".")[2]
    if hook in PARTS_OF_HOOKS:
        return PARTS_OF_HOOKS[hook]
    return CALLBACKS if action.startswith("[LightningModule]") else None


def end_now(trainer: Trainer) -> None:
    """End training after the current batch, whatever `min_epochs` and `min_steps` are."""
    trainer.fit_loop.min_epochs = 0
    trainer.fit_loop.epoch_loop.min_steps = None
    trainer.should_stop = True


def _waiting_for(device: torch.device) -> Callable[[], None]:
    """A function that waits for a GPU's work, except while a CUDA graph is being captured."""

    def wait() -> None:
        if not torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize(device)

    return wait
