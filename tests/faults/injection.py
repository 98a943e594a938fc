"""Injects one fault into the process of a run: at a moment of it, or into what it reads and writes.

Nothing in `src/` knows of it: functions are replaced, and a callback is put into the trainer.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

TERM, INTERRUPT = signal.SIGTERM, signal.SIGINT
OfTrainer = Callable[[Trainer], None]
Action = Callable[[], None]
Injection = Callable[[], None]


def all_of(*injections: Injection) -> Injection:
    """Several injections as one."""

    def inject() -> None:
        for injection in injections:
            injection()

    return inject


def replaced(place: str, make: Callable[[Any], Any]) -> Injection:
    """Put what `make` makes of an attribute, "module:name" or "module:Class.name", in its place."""

    def inject() -> None:
        module, _, path = place.partition(":")
        *owners, name = path.split(".")
        owner: Any = import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, name, make(getattr(owner, name)))

    return inject


def at_call(
    place: str, action: Action, number: int = 1, after: bool = False, every: bool = False
) -> Injection:
    """Act when a function is called for the `number`th time; `every`: and from then on."""

    def make(function: Any) -> Any:
        calls = 0

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            due = calls >= number if every else calls == number
            if due and not after:
                action()
            result = function(*args, **kwargs)
            if due and after:
                action()
            return result

        return wrapped

    return replaced(place, make)


class AtHook(Callback):
    """Acts when the trainer comes to a hook for the `number`th time, sanity checks aside."""

    def __init__(self, hook: str, action: Callable[[Trainer], None], number: int, every: bool):
        self.action, self.number, self.every, self.calls = action, number, every, 0
        setattr(self, hook, self._act)

    def _act(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.calls += not trainer.sanity_checking
        if self.calls == self.number or (self.every and self.calls > self.number):
            self.action(trainer)


def at_hook(
    hook: str, action: Callable[[Trainer], None], number: int = 1, every: bool = False
) -> Injection:
    """Act when the trainer calls a hook of its callbacks, such as `on_validation_batch_start`."""

    def make(build_run: Any) -> Any:
        def with_callback(*args: Any) -> Any:
            built = build_run(*args)
            built.trainer.callbacks.insert(0, AtHook(hook, action, number, every))
            return built

        return with_callback

    return replaced("equipoise.running.build:build_run", make)


def signalled(number: signal.Signals, twice: bool = False) -> Callable[..., None]:
    """Send this process a signal, or two."""

    def act(*_: Any) -> None:
        for _ in range(1 + twice):
            os.kill(os.getpid(), number)

    return act


def raising(error: BaseException) -> Callable[..., None]:
    """Raise an error."""

    def act(*_: Any) -> None:
        raise error

    return act


def children(process: int) -> list[int]:
    """The processes that one has started."""
    return [int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def kill_a_child(*_: Any) -> None:
    """Kill the latest of this process's children."""
    os.kill(children(os.getpid())[-1], signal.SIGKILL)


def kill_workers(*_: Any) -> None:
    """Kill all children that were forked from this process."""
    own = Path("/proc/self/cmdline").read_bytes()
    for child in children(os.getpid()):
        if Path(f"/proc/{child}/cmdline").read_bytes() == own:
            os.kill(child, signal.SIGKILL)


class Full(io.FileIO):
    """A file that takes some bytes, and then answers as the system does for a reason."""

    room = 0
    number = errno.ENOSPC

    def write(self, data: Any) -> int:
        """Write what there is room for. Raises OSError when there is none."""
        if self.room <= 0:
            raise OSError(self.number, os.strerror(self.number))
        written = super().write(memoryview(data)[: self.room])
        self.room -= written
        return written


def full_disk(
    pattern: str, number: int = 1, room: int = 100, reason: int = errno.ENOSPC
) -> Injection:
    """Leave `room` bytes to each file whose path matches, from the `number`th opening on."""

    def inject() -> None:
        opened, real = 0, io.open

        def limited(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            nonlocal opened
            path = str(file)
            if not (set(mode) & set("wax+")) or not re.search(pattern, path):
                return real(file, mode, *args, **kwargs)
            opened += 1
            if opened < number:
                return real(file, mode, *args, **kwargs)
            raw = Full(path, mode.replace("b", "").replace("t", ""))
            raw.room, raw.number = room, reason
            if args[:1] == (0,) or kwargs.get("buffering") == 0:
                return raw
            binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            if "b" in mode:
                return binary
            text = {key: kwargs.get(key) for key in ("encoding", "errors", "newline")}
            text |= dict(zip(("encoding", "errors", "newline"), args[1:], strict=False))
            return io.TextIOWrapper(binary, **text)

        io.open = builtins.open = limited  # type: ignore[assignment]

    return inject


def forbidden(pattern: str) -> Injection:
    """Let no file whose path matches be opened, as without the permission; root has them all."""

    def make(opened: Any) -> Any:
        def refusing(file: Any, *args: Any, **kwargs: Any) -> Any:
            if re.search(pattern, str(file)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
            return opened(file, *args, **kwargs)

        return refusing

    return all_of(replaced("builtins:open", make), replaced("io:open", make))


def damaged(file: Path, how: str) -> None:
    """Damage a file as disks, processes and people do."""
    content = file.read_bytes()
    if how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "random":
        file.write_bytes(os.urandom(len(content)))
    elif how == "a flipped byte":
        place = len(content) // 2
        while max(Counter(content[place : place + 64]).values()) > 8:  # not the padding of an entry
            place += 64
        file.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    elif how == "a folder":
        file.unlink()
        file.mkdir()
    else:
        file.unlink()


def environment(**variables: str | None) -> Injection:
    """Set variables of the environment, or take them out."""

    def inject() -> None:
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    return inject


def closed(*descriptors: int) -> Injection:
    """Close standard streams, as some schedulers do."""

    def inject() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return inject
