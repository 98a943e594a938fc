"""Ctrl-C for jobs in processes of their own: a notice in the sweep's folder, which all of them see.

The first signal is for the process that has started them. It puts up the notice and waits: jobs at
work stop as for a signal of their own, saving what they have, and the others do not begin.
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
"""Seconds between two looks for the notice."""
SAID = b"interrupt: the jobs at work save what they have; a second one ends them at once\n"


@contextmanager
def putting_up(sweep: Path) -> Iterator[Path]:
    """While others work for this process, answer its first signal with the notice.

    SIGINT is kept from the processes that are started inside: a terminal sends it to all of them,
    and some, such as submitit's, would kill their jobs at once. A second signal does what it does
    outside. What is yielded is the path of the notice, whose text is the signal's number.
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
        # A handler may run in the middle of a print, whose buffer must not be entered twice.
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, SAID)

    for number in before:
        signal.signal(number, put_up)
    ended = threading.Event()
    # Of this process's threads one has to hear what the others, and their children, do not.
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
    """While a job is at work, send its own process a SIGTERM once the notice is up.

    parent: the process without which it must not go on either, as an orphan. A process that has
    had a signal already, as where a whole group was sent one, gets no second.
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
