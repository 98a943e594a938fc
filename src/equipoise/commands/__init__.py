"""`python -m equipoise <command>`: one module a command, named as it is typed.

A module's docstring is what the list of commands shows; its function `main(arguments)` runs the
command and returns the exit status. What the commands share is in `arguments`, `showing`,
`stored_model`, `multirun` and `jobs`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from io import TextIOWrapper
from types import ModuleType
from typing import Any, TextIO

from equipoise import __version__
from equipoise.config.own_code import make_importable
from equipoise.errors import RunFailed, RunInterrupted, UserError, nearest
from equipoise.running.interrupts import Stopped, end_at_next, leave, stoppable
from equipoise.running.requeue import requeue

NAMES = (
    "compare", "convert-multimodal", "dashboard", "ensemble", "evaluate", "export", "generate",
    "import-weights", "list", "make-nmr", "predict", "profile", "push", "query",
    "reproduce", "train", "translate",
)  # fmt: skip
HEAD = """Equipoise: models whose output is an equilibrium z* = f(z*, x).

usage: python -m equipoise <command> [arguments]     (python -m equipoise <command> --help)
"""
FOOT = "In a clone, train.py and evaluate.py are the first two: python train.py --help"


def run(arguments: Sequence[str]) -> int:
    """Run the command that is named first, or list them all; returns the exit status.

    Raises UserError where there is no such command, naming the nearest.
    """
    if not arguments or arguments[0] in ("--help", "-h"):
        print(page())
        return 0
    if arguments[0] == "--version":
        print(version())
        return 0
    name, *rest = arguments
    if name not in NAMES:
        hint = nearest(name, NAMES) or f"; commands: {', '.join(NAMES)}"
        raise UserError(f"there is no command '{name}'{hint}")
    status: int = _module(name).main(rest)
    return status


def page() -> str:
    """The list of all commands."""
    return "\n".join([HEAD, *(f"  {name:<18} {summary(name)}" for name in NAMES), "", FOOT])


def summary(name: str) -> str:
    """The line of the list on one command."""
    documentation = _module(name).__doc__ or ""
    return documentation.strip().splitlines()[0]


def version() -> str:
    """The line of --version."""
    return f"equipoise {__version__}"


def exit_status(command: Callable[..., int], *arguments: Any) -> int:
    """The exit status of a command: 2 with one sentence for a user's error, 1 if a run fails."""
    outlast_streams()
    try:
        with stoppable():
            make_importable([os.getcwd()])
            return command(*arguments)
    except Stopped as stop:
        end_at_next()
        print("Interrupted before there was anything to save", file=sys.stderr)
        return stop.status
    except UserError as error:
        show_traceback()
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    except RunInterrupted as stop:
        end_at_next()
        print(stop, file=sys.stderr)
        requeue_after(stop)
        return stop.status
    except RunFailed as failure:
        show_traceback()
        print(f"error: {printable(failure)}", file=sys.stderr)
        return 1
    except SystemExit as end:  # from argparse after a page of help, or a sweep's at once
        requeue_after(end.__cause__)
        return int(end.code or 0)


class OutlastedStream:
    """A stream whose reader may close it, as `head` does, or whose disk or terminal may fail.

    Later output is then lost, and the command continues. Characters that the stream's
    encoding lacks are written as their numbers.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return self.stream.write(text)
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        """Flush the written text."""
        try:
            self.stream.flush()
        except OSError:
            self._lose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _lose(self) -> None:
        """Discard the stream's output, including what it still buffers."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)


def outlast_streams() -> None:
    """Let the command continue where standard output or standard error is lost."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, TextIOWrapper):  # not what tests and notebooks put there
            setattr(sys, name, OutlastedStream(stream))


def printable(error: BaseException) -> str:
    """An error's message, without characters by which a file's name could control a terminal."""
    text = str(error)
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def requeue_after(end: BaseException | None) -> None:
    """Where an interruption asks for it, have Slurm queue the job once more, and say so.

    Slurm then ends what is left of the job, so this comes last.
    """
    if isinstance(end, RunInterrupted) and end.requeue:
        end_at_next()
        print(requeue(), file=sys.stderr)


def show_traceback() -> None:
    """Print the traceback of the current exception where it was asked for."""
    if os.environ.get("HYDRA_FULL_ERROR") or "debug=smoke" in sys.argv:
        traceback.print_exc()


def join(job: Mapping[str, Any]) -> None:
    """One of a run's other processes: take part in the first one's job, and end silently."""
    from equipoise.running.api import take_part

    leave(exit_status(take_part, job))


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name.replace('-', '_')}")
