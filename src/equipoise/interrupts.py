"""Ctrl-C and SIGTERM wherever no step must be finished first: a sentence instead of a traceback."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STATUS = 130
"""The exit status of whatever was interrupted: the shell's for SIGINT."""


class Stopped(BaseException):
    """A signal has come. No Exception, so that nobody on the way takes it for an error of his."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let the first SIGINT or SIGTERM raise Stopped, and the next end the process at once.

    What is left between the two is to write down what was reached. A signal that is ignored, as
    SIGINT is in a shell's background, stays ignored; only the main thread can ask for signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_next() -> None:
    """Let a further signal end the process at once, without a traceback: it is ending anyway."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)


def _stop(number: int, frame: FrameType | None) -> None:
    end_at_next()
    raise Stopped


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(STATUS)
