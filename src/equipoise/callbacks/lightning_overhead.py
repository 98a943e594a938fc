"""What Lightning costs at every step, and how our runs avoid these costs.

Four habits of the Trainer, each with its remedy here:

- it calls every callback of its list at every hook, about 10 us each, whether or not the callback
  does something there: `Observers` replaces many and calls only those that define the hook;
- it calls even hooks that a callback only inherits: `grouped` sets such hooks to None;
- it enters a context of the profiler about sixty times per step, and its default profiler makes a
  new generator each time: `Unprofiled`;
- it writes the name of the current hook into the task about forty times per step, through
  `nn.Module.__setattr__`, which takes 4 us each time: `note_hooks_directly`.

`python -m benchmarks.overhead` measures what a step costs beyond a bare loop; `--without <remedy>`
(observers, hooks, profiler, names) leaves one of them out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.profilers import PassThroughProfiler
from torch import nn

STATEFUL = ("state_dict", "load_state_dict")
HOOKS_OF_A_STEP = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
NAME_OF_HOOK = "_current_fx_name"
NO_CONTEXT: AbstractContextManager[None] = nullcontext()

Kind = TypeVar("Kind", bound=Callback)


class Observer(Callback):
    """A callback that works the same behind `Observers`, because Lightning never looks it up.

    Checkpoints, progress bars and early stopping are not observers: Lightning handles them itself.
    """


class Observers(Callback):
    """Passes each hook on to the members that define it, in their order."""

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
        """Give every member its state; a member without a saved state starts afresh."""
        for member in self.members:
            if member.state_key in state_dict:
                member.load_state_dict(state_dict[member.state_key])


class _InTurn:
    """Several functions called as one; their return values are discarded."""

    def __init__(self, calls: Sequence[Callable[..., Any]]) -> None:
        self.calls = tuple(calls)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        for call in self.calls:
            call(*args, **kwargs)


def grouped(callbacks: Sequence[Callback]) -> list[Callback]:
    """The same callbacks, with all observers combined into one, which comes first."""
    members = [callback for callback in callbacks if isinstance(callback, Observer)]
    others = [callback for callback in callbacks if not isinstance(callback, Observer)]
    result = [Observers(members), *others] if members else others
    for callback in result:
        _drop_inherited_hooks(callback)
    return result


def every_callback(trainer: Trainer) -> list[Callback]:
    """The trainer's callbacks, with the members of `Observers` in its place."""
    callbacks: list[Callback] = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        callbacks += callback.members if isinstance(callback, Observers) else (callback,)
    return callbacks


def find_callback(trainer: Trainer, kind: type[Kind]) -> Kind | None:
    """The trainer's first callback of a class."""
    return next((c for c in every_callback(trainer) if isinstance(c, kind)), None)


def _drop_inherited_hooks(callback: Callback) -> None:
    """Set inherited hooks to None: Lightning skips what is not callable, which saves a call."""
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


class Unprofiled(PassThroughProfiler):
    """No profiling, at a tenth of the cost of Lightning's default; for runs that ask for none."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Measure nothing."""
        return NO_CONTEXT


def note_hooks_directly(task: LightningModule) -> None:
    """Let the task's class store the name of the current hook as a plain attribute.

    `nn.Module` checks whether each value set is a parameter, buffer or submodule; a string is none
    of them. A class with a `__setattr__` of its own is left alone.
    """
    kind: Any = type(task)
    if kind.__setattr__ is nn.Module.__setattr__:
        kind.__setattr__ = _set_attribute


def _set_attribute(task: nn.Module, name: str, value: Any) -> None:
    if name == NAME_OF_HOOK:
        task.__dict__[name] = value
    else:
        nn.Module.__setattr__(task, name, value)
