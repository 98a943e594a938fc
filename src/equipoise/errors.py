"""The ways in which a run can end early, each told to the user in one sentence."""

import difflib
import signal
from collections.abc import Iterable

DIVERGED = "Training diverged"
"""How the sentence of a run begins whose loss or gradient ceased to be finite."""


class UserError(Exception):
    """Something that the user typed or provided cannot work; the message says what to do.

    The command line prints the message alone, without a traceback, and exits with status 2.
    """


class DataDiffer(UserError):
    """The data are not what a setting says; whoever knows where that was set can tell it.

    found: what the data have, a clause. setting: what is set instead, a clause that begins with
    the `key`. advice: what to do.
    """

    def __init__(self, found: str, setting: str, advice: str) -> None:
        super().__init__(f"{found}, but {setting}: {advice}")
        self.found = found
        self.setting = setting
        self.key = setting.partition(" ")[0]


class DamagedRecord(UserError):
    """A record of the data cannot be read, which a run may be told to go on without.

    place: where it lies. reason: why it cannot be read. advice: what to do about it.
    """

    def __init__(self, kind: str, place: str, reason: str, advice: str) -> None:
        super().__init__(kind, place, reason, advice)
        self.place = place
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        """The sentence."""
        kind, place, reason, advice = self.args
        return f"The {kind} {place} cannot be decoded ({reason}): {advice}"


class RunFailed(Exception):
    """Training could not continue; its results so far are kept, and the exit status is 1."""


class RunInterrupted(Exception):
    """A signal stopped the run; the state after the last whole step has been saved.

    number: of the signal, whose exit status it is the shell's way to tell. requeue: whether this
    process is to have Slurm start the job once more.
    """

    def __init__(self, message: str, number: int = signal.SIGINT, requeue: bool = False) -> None:
        super().__init__(message)
        self.number = number
        self.requeue = requeue

    @property
    def status(self) -> int:
        """The exit status: 130 for SIGINT, 143 for SIGTERM, 138 for SIGUSR1."""
        return 128 + self.number


def nearest(word: str, words: Iterable[str]) -> str:
    """A clause that names the nearest of `words`, or nothing where none is near."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
