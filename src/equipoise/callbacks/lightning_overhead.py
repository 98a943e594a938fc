"""Many callbacks behind one, since Lightning pays for every callback in its list at every hook.

Each costs about 10 microseconds a hook, whether it does something there or not, and a step has six
hooks. `Observers` calls only those of its members that have something to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.profilers import PassThroughProfiler

STATEFUL = ("state_dict", "load_state_dict")
HOOKS_OF_A_STEP = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


class Observer(Callback):
    """A callback that works the same behind `Observers`, because Lightning never looks it up.

    Checkpoints, progress bars and early stopping are no observers: Lightning treats them apart.
    """


class Observers(Callback):
    """Calls each hook of those members that define it, in their order."""

    def __init__(self, members: Sequence[Observer]) -> None:
        self.members = tuple(members)
        for hook in _hooks():
            calls = [getattr(member, hook) for member in members if _defines(member, hook)]
            if calls:
                setattr(self, hook, _InTurn(calls))

    def state_dict(self) -> dict[str, Any]:
        """The states of all members that have one."""
        states = {member.state_key: member.state_dict() for member in self.members}
        return {key: state for key, state in states.items() if state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give every member its state; one that the checkpoint does not know starts afresh."""
        for member in self.members:
            if member.state_key in state_dict:
                member.load_state_dict(state_dict[member.state_key])


class _InTurn:
    """Several functions as one, whose answers do not matter."""

    def __init__(self, calls: Sequence[Callable[..., Any]]) -> None:
        self.calls = tuple(calls)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        for call in self.calls:
            call(*args, **kwargs)


def behind_one(callbacks: Sequence[Callback]) -> list[Callback]:
    """The same callbacks with all observers behind one, which comes first."""
    members = [callback for callback in callbacks if isinstance(callback, Observer)]
    others = [callback for callback in callbacks if not isinstance(callback, Observer)]
    listed = [Observers(members), *others] if members else others
    for callback in listed:
        _leave_out_what_does_nothing(callback)
    return listed


def every_callback(trainer: Trainer) -> list[Callback]:
    """The trainer's callbacks and those behind `Observers`."""
    found: list[Callback] = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        found += callback.members if isinstance(callback, Observers) else (callback,)
    return found


def _leave_out_what_does_nothing(callback: Callback) -> None:
    """Lightning passes over a hook that cannot be called, and spares what a call costs."""
    for hook in HOOKS_OF_A_STEP:
        if getattr(callback, hook) == getattr(Callback, hook).__get__(callback):
            setattr(callback, hook, None)
    if isinstance(callback, ModelCheckpoint) and not _saves_within_epochs(callback):
        callback.on_train_batch_end = None  # type: ignore[assignment, method-assign]


def _saves_within_epochs(checkpoint: ModelCheckpoint) -> bool:
    return bool(checkpoint._every_n_train_steps or checkpoint._train_time_interval)


def _hooks() -> list[str]:
    names = [name for name in vars(Callback) if not name.startswith("_")]
    return [n for n in names if callable(getattr(Callback, n)) and n not in STATEFUL]


def _defines(member: Observer, hook: str) -> bool:
    return getattr(type(member), hook) is not getattr(Callback, hook)


NOTHING: AbstractContextManager[None] = nullcontext()


class Unprofiled(PassThroughProfiler):
    """Stands in where no profiler was asked for.

    Lightning enters a context of the profiler about sixty times a step, and the one that it takes
    by default makes a new generator each time.
    """

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Measure nothing."""
        return NOTHING
