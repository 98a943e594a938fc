"""Signals outside of training, where no step must be finished first: a sentence, no traceback."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals from the terminal, from whoever ends a process, and from Slurm before it ends a job."""
STATUSES = frozenset(128 + number for number in SIGNALS)
"""The exit statuses after an interruption: the shell's, 130 for SIGINT."""
REFUSED = 2
"""The exit status of a command that is refused."""


class Stopped(BaseException):
    """A signal has arrived. Not an Exception, so that no error handler on the way catches it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def status(self) -> int:
        """The exit status."""
        return 128 + self.number


@contextmanager
def stoppable() -> Iterator[None]:
    """Let the first of the signals raise Stopped, and the next end the process at once.

    Between the two, what was reached is written. During an import, Stopped waits for its end:
    libraries swallow exceptions while they are imported, or abort the process. An ignored signal,
    as SIGINT is in a shell's background, stays ignored; only the main thread can handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outside = sys._getframe(2)  # of the `with`, below this function and contextlib

    def stop(number: int, frame: FrameType | None) -> None:
        end_at_next()
        loading = _outermost_import(frame, outside)
        if loading is None:
            raise Stopped(number)
        _stop_after(loading, number)

    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def finishing() -> Iterator[None]:
    """Let the first of the signals wait for the end of the block, and raise Stopped then.

    For short work that is useless if incomplete; the second signal ends the process at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        end_at_next()

    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise Stopped(came[0])


def leave_signals_to_us(trainer: Trainer) -> None:
    """Prevent Lightning's signal handlers: they save elsewhere, requeue at once, or broadcast.

    With ours a signal ends every stage of a run, and `recorded` has Slurm requeue a job where
    Lightning's handler would.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def end_at_next() -> None:
    """Let a further signal end the process at once, without a traceback: it is ending anyway."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)


def leave(status: int) -> NoReturn:
    """End the process. After an interruption it ignores further signals.

    While Python shuts down it gives signals their default actions, and a second Ctrl-C would
    end the process with another status. A refused command skips the shutdown: nothing is
    left to save, and a thread or a library that is still busy could abort the process with -6.
    """
    if status in STATUSES:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    if status == REFUSED:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # whoever read it has gone
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _outermost_import(frame: FrameType | None, outside: FrameType) -> FrameType | None:
    """The frame of the import machinery that the others between these two belong to."""
    found = None
    while frame is not None and frame is not outside:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            found = frame
        frame = frame.f_back
    return found


def _stop_after(loading: FrameType, number: int) -> None:
    """Raise Stopped where this frame returns."""

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if frame is loading and event == "return":
            sys.setprofile(None)
            raise Stopped(number)

    sys.setprofile(watch)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
