"""Ctrl-C for jobs in separate processes: a notice in the sweep's folder, which all of them see.

The first signal goes to the process that started them. It puts up the notice and waits: running
jobs stop as if they had received the signal, saving their state, and the others do not begin.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from equipoise.running.interrupts import SIGNALS

NOTICE = ".stop"
LOOK_EVERY = 0.5
"""Seconds between two checks for the notice."""
SAID = b"interrupt: the jobs at work save what they have; a second one ends them at once\n"


@contextmanager
def putting_up(sweep: Path) -> Iterator[Path]:
    """While other processes work for this one, answer its first signal with the notice.

    SIGINT is blocked in processes started inside: a terminal sends it to all of them, and some,
    such as submitit's, would kill their jobs at once. A second signal has its usual effect.
    Yields the path of the notice, whose text is the signal's number.
    """
    notice = sweep.absolute() / NOTICE
    notice.unlink(missing_ok=True)
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return
    before = {n: signal.getsignal(n) for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN}

    def put_up(number: int, frame: FrameType | None) -> None:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)
        notice.write_text(str(number))
        # A handler may run in the middle of a print, and a second print into its buffer would fail.
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, SAID)

    for number in before:
        signal.signal(number, put_up)
    ended = threading.Event()
    # One thread of this process must receive the signals that the others, and children, block.
    threading.Thread(target=ended.wait, name="hears-signals", daemon=True).start()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield notice
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def heeding(notice: Path, parent: int | None = None) -> Iterator[None]:
    """While a job runs, send its own process a SIGTERM once the notice is up.

    parent: the process whose end must end the job too, lest it run on as an orphan. A process that
    already had a signal, for example one sent to its whole group, gets no second.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            heard = select.select([reader], [], [], LOOK_EVERY)[0] and reader.recv(64)
            if heard and set(heard) & set(SIGNALS):
                return
            if notice.exists() or (parent is not None and os.getppid() != parent):
                if not ended.is_set():
                    os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=watch, name="stop-notice", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        writer.send(b"\0")
        watcher.join()
        reader.close()
        writer.close()
