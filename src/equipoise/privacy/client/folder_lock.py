"""A lock on a folder, held by one process at a time and released when the process ends."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from equipoise.privacy.client.errors import PrivacyError

PATIENCE = 30.0  # seconds; a record takes milliseconds, so a process that holds it longer is stuck
PAUSE = 0.005
NAME = ".lock"


_CLOSED_ON_EXEC = getattr(os, "O_CLOEXEC", 0)


class FolderLock:
    """Exclusive among processes and threads while the `with` block runs.

    The operating system ties the lock to the open file and releases it when the process ends,
    however that happens; the file itself stays and means nothing. Raises PrivacyError where the
    lock cannot be had within PATIENCE seconds, and where the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._file = -1

    def __enter__(self) -> FolderLock:
        """Wait for the lock."""
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | _CLOSED_ON_EXEC, 0o600)
        except OSError as error:
            raise PrivacyError(
                f"{self.path} cannot be opened ({error.strerror}); nothing may be sent."
            ) from error
        try:
            self._wait()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Release the lock, even if a process forked meanwhile has the file open too."""
        try:
            _let_go(self._file)
        finally:
            os.close(self._file)

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._taken():
            if time.monotonic() > deadline:
                raise PrivacyError(
                    f"Another process has held {self.path} for {PATIENCE:g} seconds; end it and "
                    "try again."
                )
            time.sleep(PAUSE)

    def _taken(self) -> bool:
        """Whether the lock is ours now; raises PrivacyError where the folder supports no locks."""
        try:
            _take(self._file)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise PrivacyError(
                f"{self.path} cannot be locked ({error.strerror}); put the ledger on a disk of "
                "this device."
            ) from error
        return True


if sys.platform == "win32":
    import msvcrt

    def _take(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _let_go(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _take(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _let_go(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
