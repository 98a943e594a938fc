"""Starts commands with a fault in them, and says how each has ended and what it has left behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.end_to_end.conftest import ROOT, environment

LIMIT = 300.0
"""Seconds that a command may take with a fault in it; one that takes longer hangs."""
SETTLED = 15.0
"""Seconds in which processes that a command has started may end after it."""


@dataclass(frozen=True)
class Ended:
    """How a command has ended: its status (-9 for SIGKILL), and what it has printed.

    left: the command lines of processes that it has left behind.
    """

    status: int
    out: str
    errors: str
    left: Sequence[str] = ()

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self.out + self.errors


class Commands:
    """Runs commands in processes that a server forks, or in fresh ones; each in its session."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server"], cwd=ROOT, env=surroundings(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.__stderr__, text=True,
        )  # fmt: skip
        self.number = 0
        self._answer(LIMIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.kill()
        self.server.wait()

    def run(
        self, words: Sequence[str], folder: Path, fault: str | None = None, program: str = "train"
    ) -> Ended:
        """Run train.py or evaluate.py with some words. Raises AssertionError where it hangs."""
        self.number += 1
        out, errors = (folder / f"{self.number}.{name}" for name in ("out", "errors"))
        job = {"fault": fault, "program": program, "words": list(words), "folder": str(folder),
               "out": str(out), "errors": str(errors)}  # fmt: skip
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        process = int(self._answer(LIMIT) or 0)
        status = self._answer(LIMIT)
        if status is None:
            os.killpg(process, signal.SIGKILL)
            self._answer(LIMIT)
            raise AssertionError(f"it hangs: {out.read_text()}{errors.read_text()}")
        said = [file.read_text(errors="replace") for file in (out, errors)]
        for file in (out, errors):
            file.unlink()
        return Ended(int(status), said[0], said[1], left_of(process))

    def _answer(self, patience: float) -> str | None:
        assert self.server.stdout is not None
        if not select.select([self.server.stdout], [], [], patience)[0]:
            return None
        line = self.server.stdout.readline()
        assert line, "the server has ended"
        return line.strip()


def surroundings() -> dict[str, str]:
    """The environment of a command, in which this checkout's package is found."""
    return {**environment(), "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


def fresh(
    words: Sequence[str], folder: Path, variables: Mapping[str, str | None], script: str
) -> Ended:
    """A command as a shell starts it; variables: to set or, None, to take out.

    script: of the shell, with "$@" for the command.
    """
    surrounding = {**surroundings(), **{k: v for k, v in variables.items() if v is not None}}
    surrounding = {k: v for k, v in surrounding.items() if variables.get(k, v) is not None}
    command = [sys.executable, str(ROOT / "train.py"), *words]
    started = subprocess.Popen(
        ["bash", "-c", script, "bash", *command], cwd=folder, env=surrounding,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, errors = started.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        out, errors = started.communicate()
        raise AssertionError(f"it hangs: {out!r}{errors!r}") from None
    texts = [text.decode("utf-8", "replace") for text in (out, errors)]
    return Ended(started.returncode, texts[0], texts[1], left_of(started.pid))


def left_of(session: int) -> list[str]:
    """The command lines of what a session still has after a while, which is killed."""
    until = time.monotonic() + SETTLED
    while (processes := of_session(session)) and time.monotonic() < until:
        time.sleep(0.05)
    lines = []
    for process in processes:
        line = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ")
        lines.append(line.decode(errors="replace")[:200])
        os.kill(process, signal.SIGKILL)
    return lines


def of_session(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != "Z":
            found.append(int(folder.name))
    return found
