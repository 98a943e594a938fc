"""The ways in which a run can end early, each reported to the user in one sentence.

Also the limits on what a file may request: files come from anywhere, and a small one can request
any amount of memory. docs/threat_model.md explains what each limit is for.
"""

import difflib
import json
import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

DIVERGED = "Training diverged"
"""The beginning of the message when a run's loss or gradient ceases to be finite."""


class UserError(Exception):
    """Something that the user typed or provided cannot work; the message says what to do.

    The command line prints the message alone, without a traceback, and exits with status 2.
    """


class DataDiffer(UserError):
    """The data differ from a setting; code that knows where that was set can add it.

    found: what the data have, a clause. setting: what is set instead, a clause that begins with
    the `key`. advice: what to do.
    """

    def __init__(self, found: str, setting: str, advice: str) -> None:
        super().__init__(f"{found}, but {setting}: {advice}")
        self.found = found
        self.setting = setting
        self.key = setting.partition(" ")[0]


class DamagedRecord(UserError):
    """A record of the data cannot be read; a run may be set to continue without it.

    place: where it is. reason: why it cannot be read. advice: what to do about it.
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

    number: of the signal, which by the shell's convention determines the exit status. requeue:
    whether this process is to have Slurm start the job once more.
    """

    def __init__(self, message: str, number: int = signal.SIGINT, requeue: bool = False) -> None:
        super().__init__(message)
        self.number = number
        self.requeue = requeue

    @property
    def status(self) -> int:
        """The exit status: 130 for SIGINT, 143 for SIGTERM, 138 for SIGUSR1."""
        return 128 + self.number


class Unreadable(UserError, ValueError):
    """A file is damaged, of a kind other than expected, or unsafe to read.

    It is also a ValueError, so that code that skips damaged files treats it as one of them.
    """


MIB = 2**20
VARIABLE = "EQUIPOISE_LIMITS"
"""The environment variable that raises or lowers limits: `table_columns=50000,text_bytes=1e10`."""
LIMITS: Mapping[str, int] = {
    "array_bytes": 4096 * MIB,  # of the unpacked arrays of one .npz file
    "json_bytes": 32 * MIB,  # of a file; each byte can take twenty in memory
    "line_bytes": 64 * MIB,  # of a line, where a file is read line by line
    "picture_bytes": 512 * MIB,  # of the file of a picture
    "picture_pixels": 100_000_000,  # of a picture; each takes about ten bytes while it is decoded
    "packed_times": 200,  # how many times its size a file may unpack to, beyond its first 16 MB
    "pickle_levels": 1000,  # nesting of a pickle, which its reader follows on its own stack
    "pickle_steps": 2_000_000,  # instructions of a pickle; each can make an object of 100 bytes
    "table_columns": 10_000,  # each costs a reader kilobytes, however few rows there are
    "table_values": 200_000_000,  # rows times columns; a run of equal ones takes no space in files
    "text_bytes": 2048 * MIB,  # of a text or csv file, which is read whole
    "yaml_values": 100_000,  # of a configuration, whose parts may be referenced many times
    "yaml_bytes": MIB,  # of a configuration; each byte can take a hundred in memory
}
"""What a file may request; a larger amount is refused before it is allocated."""


class TooLarge(Unreadable):
    """A file requests more than a limit allows."""


def limit(name: str) -> int:
    """One of `LIMITS`, or its value in the environment. Raises UserError if that is not a limit."""
    chosen = LIMITS[name]
    for word in filter(None, os.environ.get(VARIABLE, "").split(",")):
        key, _, value = word.partition("=")
        if key.strip() not in LIMITS:
            raise UserError(f"{VARIABLE}: there is no limit '{key}'{nearest(key, LIMITS)}")
        try:
            number = int(float(value))
        except (ValueError, OverflowError) as error:
            raise UserError(f"{VARIABLE}: {word} needs a number, such as {key}=1e9") from error
        chosen = number if key.strip() == name else chosen
    return chosen


def refuse_above(name: str, amount: int, what: str) -> None:
    """Raise TooLarge if the amount is above the limit; what: "<file> has" and the like."""
    if amount > limit(name):
        raise TooLarge(
            f"{what} {amount:,} {name.rpartition('_')[2]}, and more than {limit(name):,} are not "
            f"read: if you trust it, set {VARIABLE}={name}=<number> in the environment"
        )


def read_json(file: Path) -> Any:
    """The content of a JSON file. Raises OSError if it cannot be opened, Unreadable if not JSON."""
    try:
        refuse_above("json_bytes", file.stat().st_size, f"{file} has")
        return json.loads(file.read_text(encoding="utf-8"))
    except TooLarge:
        raise
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Unreadable(
            f"{file} is no JSON ({reason}): write it again, or take it away"
        ) from error


def read_yaml(file: Path) -> Any:
    """The content of a yaml file, plain data only. Raises OSError, and Unreadable as `read_json`.

    Aliases for parts defined elsewhere are accepted, but not so many that they create far more
    values than the file has words; merge keys are not accepted.
    """
    import yaml

    try:
        refuse_above("yaml_bytes", file.stat().st_size, f"{file} has")
        text = file.read_text(encoding="utf-8")
        if "<<:" in text:
            raise ValueError("it merges parts (<<), which have to be written out")
        content = yaml.safe_load(text)
        _refuse_repeated(content, f"{file} has over")
        return content
    except TooLarge:
        raise
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Unreadable(
            f"{file} is not a yaml file that can be read: {' '.join(reason.split()).rstrip('.')}"
        ) from error


def _refuse_repeated(content: Any, what: str) -> None:
    waiting, count = [content], 0
    while waiting:
        value = waiting.pop()
        count += 1
        refuse_above("yaml_values", count, what)
        inner = value.values() if isinstance(value, dict) else value
        waiting += inner if isinstance(value, dict | list) else []


def nearest(word: str, words: Iterable[str]) -> str:
    """A clause that names the nearest of `words`, or nothing if none is near."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
