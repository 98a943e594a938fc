"""A device's record of what it has spent, written before anything is sent."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from equipoise.privacy.client.errors import AlreadySpent, PrivacyError
from equipoise.privacy.client.folder_lock import FolderLock
from equipoise.privacy.client.round import (
    HASH_BYTES,
    MOST_CELLS,
    check_epsilon,
    check_task,
    is_index,
)
from equipoise.privacy.client.wire import bytes_of_hex


@dataclass(frozen=True)
class Spent:
    """One report that left or was about to leave the device: its hash and bytes in hexadecimal."""

    task: str
    round: int
    partition: str
    epsilon: float
    report: str

    def check(self) -> None:
        """Raise PrivacyError for fields of other types than `Client.report` writes."""
        check_task(self.task)
        check_epsilon(self.epsilon)
        hashed = len(bytes_of_hex(self.partition)) == HASH_BYTES
        if not hashed or not bytes_of_hex(self.report) or not is_index(self.round, MOST_CELLS + 1):
            raise PrivacyError("An entry needs a round, the hash of its description and a report.")


class Ledger:
    """A folder with one file per task; a file, once written, is never changed.

    A file appears whole and only once (a hard link of a finished, synchronised file), so that two
    processes that answer at the same moment cannot both spend. Adding up what was spent and
    recording more is one step under a lock of the folder, which ends with the process that holds
    it. Raises AlreadySpent where a file cannot be read or does not hold what was written, since
    then it is unknown what was spent. Raises PrivacyError for a folder that cannot be made.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PrivacyError(
                f"The ledger's folder {self.folder} cannot be made ({error.strerror}); choose one "
                "that can be written to."
            ) from error

    def group(self, task: str) -> int | None:
        """The group that this device has joined for the task."""
        path = self._path(task, "group")
        record = self._read(path)
        if record is None:
            return None
        if record.get("task") != task or not is_index(record.get("group"), MOST_CELLS + 1):
            raise _damaged(path)
        return int(record["group"])

    def record_group(self, task: str, group: int) -> int:
        """Record the group; returns the one that was recorded first."""
        if not is_index(group, MOST_CELLS + 1):
            raise PrivacyError(f"A group must be the number of a round, got {group!r}.")
        self._create(self._path(task, "group"), {"task": task, "group": group})
        first = self.group(task)
        assert first is not None
        return first

    def spent(self, task: str) -> Spent | None:
        """What was spent on the task, None if nothing was."""
        path = self._path(task, "report")
        entry = self._entry(path)
        if entry is not None and entry.task != task:
            raise _damaged(path)
        return entry

    def record(self, entry: Spent, lifetime_epsilon: float | None = None) -> Spent:
        """Record the entry on the disk before returning; returns the one that was recorded first.

        Raises AlreadySpent, and records nothing, where all entries together would exceed
        lifetime_epsilon: no other process can record between the sum and the entry.
        """
        entry.check()
        with FolderLock(self.folder):
            first = self.spent(entry.task)
            if first is not None:
                return first
            self._check_total(entry.epsilon, lifetime_epsilon)
            self._create(self._path(entry.task, "report"), asdict(entry))
        return entry

    def entries(self) -> Iterator[Spent]:
        """Everything that was ever spent on this device."""
        for path in sorted(self.folder.glob("*.report")):
            entry = self._entry(path)
            if entry is None or path != self._path(entry.task, "report"):
                raise _damaged(path)
            yield entry

    def _check_total(self, epsilon: float, limit: float | None) -> None:
        if limit is None:
            return
        total = math.fsum((epsilon, *(entry.epsilon for entry in self.entries())))
        if not total <= limit:
            raise AlreadySpent(
                f"One more report would bring this person's epsilon to {total:g}, above the "
                f"lifetime limit of {limit:g}."
            )

    def _path(self, task: str, kind: str) -> Path:
        name = hashlib.blake2b(check_task(task).encode(), digest_size=16).hexdigest()
        return self.folder / f"{name}.{kind}"

    def _entry(self, path: Path) -> Spent | None:
        record = self._read(path)
        if record is None:
            return None
        if record.keys() != {field.name for field in fields(Spent)}:
            raise _damaged(path)
        entry = Spent(**record)
        try:
            entry.check()
        except PrivacyError as error:
            raise _damaged(path) from error
        return entry

    def _read(self, path: Path) -> dict[str, Any] | None:
        if not os.path.lexists(path):
            return None
        try:
            record = json.loads(path.read_text())
        except (ValueError, OSError, RecursionError) as error:
            raise _damaged(path) from error
        if not isinstance(record, dict):
            raise _damaged(path)
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
        """Whether the file was put in place; False where there is one already."""
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


def _damaged(path: Path) -> AlreadySpent:
    return AlreadySpent(
        f"The ledger file {path} is damaged or cannot be read; nothing may be sent."
    )
