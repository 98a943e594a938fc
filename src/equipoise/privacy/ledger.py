"""A device's record of what it has spent, written before anything is sent.

Standard library only: this module is part of the client.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from equipoise.privacy.errors import AlreadySpent


@dataclass(frozen=True)
class Spent:
    """One report that left, or was about to leave, the device: hexadecimal hash and bytes."""

    task: str
    round: int
    partition: str
    epsilon: float
    report: str


class Ledger:
    """A folder with one file a task; a file, once there, is never changed.

    A file appears whole and only once (a hard link of a finished, synchronised file), so that two
    processes that answer at the same moment cannot both spend.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def group(self, task: str) -> int | None:
        """The group that this device has joined for the task."""
        record = self._read(self._path(task, "group"))
        return None if record is None else int(record["group"])

    def record_group(self, task: str, group: int) -> int:
        """Keep the group; the one that was recorded first is returned."""
        self._create(self._path(task, "group"), {"task": task, "group": group})
        kept = self.group(task)
        assert kept is not None
        return kept

    def spent(self, task: str) -> Spent | None:
        """What was spent on the task."""
        record = self._read(self._path(task, "report"))
        return None if record is None else Spent(**record)

    def record(self, entry: Spent) -> Spent:
        """Keep the entry, on the disk when this returns; the one recorded first is returned."""
        self._create(self._path(entry.task, "report"), asdict(entry))
        kept = self.spent(entry.task)
        assert kept is not None
        return kept

    def entries(self) -> Iterator[Spent]:
        """Everything that was ever spent on this device."""
        for path in sorted(self.folder.glob("*.report")):
            yield Spent(**(self._read(path) or {}))

    def _path(self, task: str, kind: str) -> Path:
        return self.folder / f"{hashlib.blake2b(task.encode(), digest_size=16).hexdigest()}.{kind}"

    def _read(self, path: Path) -> dict[str, Any] | None:
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_text())
        except ValueError as error:
            raise AlreadySpent(
                f"The ledger file {path} is damaged; nothing may be sent."
            ) from error
        if not isinstance(record, dict):
            raise AlreadySpent(f"The ledger file {path} is damaged; nothing may be sent.")
        return record

    def _create(self, path: Path, record: dict[str, object]) -> None:
        whole = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        with whole.open("w") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        if not self._linked(whole, path):
            whole.unlink()
            return
        whole.unlink()
        self._synchronise()

    @staticmethod
    def _linked(whole: Path, path: Path) -> bool:
        """Whether the file was put in place; False where another one stands there already."""
        try:
            os.link(whole, path)
        except FileExistsError:
            return False
        return True

    def _synchronise(self) -> None:
        """Make the new name durable too."""
        directory = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
