"""Run a command line as a user would, in a fork of a process that has loaded torch already.

Starting Python and importing torch takes most of a refused line's time; a fork takes none of it,
and what a line does to its process is gone with it.
"""

from __future__ import annotations

import os
import runpy
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from equipoise.config.compose import CONF, parse
from equipoise.config.overrides import Menu
from tests.end_to_end.conftest import ROOT, environment
from tests.end_to_end.mutated_lines import CommandLine

LIMIT = 150.0  # seconds until a line counts as hanging
LOOK = 0.1  # seconds between two looks at its processes
CORES = len(os.sched_getaffinity(0))
MEMORY = 8 * 2**30


@dataclass
class Outcome:
    """How a line ended, what it printed, and what it left."""

    status: int | None
    stdout: str
    stderr: str
    folder: Path
    processes: int
    peak_mb: float


def prepare() -> None:
    """Load what every run needs, without computing anything: threads do not survive a fork."""
    import lightning.pytorch  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import torch

    torch.set_num_threads(1)


def tried(line: CommandLine, folder: Path, prepared: Callable[[], None] = lambda: None) -> Outcome:
    """Run the line in `folder`, which is empty, and wait for its end.

    prepared: what the process does before it runs the line.
    """
    folder.mkdir(parents=True)
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        child = os.fork()
        if child == 0:
            _run(line, folder, [stdout.fileno(), stderr.fileno()], prepared)
        status, processes, peak = _wait(child)
        stdout.seek(0)
        stderr.seek(0)
        return Outcome(status, stdout.read(), stderr.read(), folder, processes, peak)


def _run(line: CommandLine, folder: Path, streams: list[int], prepared: Callable[[], None]) -> None:
    """What the child does: it never returns."""
    status = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.chdir(folder)
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
        os.environ.update(environment())
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - pytest has put others there
        sys.stderr = sys.__stderr__ = open(2, "w", closefd=False)  # noqa: SIM115
        sys.__stdout__ = sys.stdout
        sys.argv = [str(ROOT / line.script), *line.argv()]
        prepared()
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else (0 if end.code is None else 1)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(child: int) -> tuple[int | None, int, float]:
    """Exit status (None: killed at the limit), most processes at once, peak memory in MB."""
    end = time.monotonic() + LIMIT
    most = 0
    ended = os.pidfd_open(child)
    while True:
        select.select([ended], [], [], LOOK)
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            os.close(ended)
            _kill_session(child)
            return os.waitstatus_to_exitcode(status), most, usage.ru_maxrss / 1024
        members = list(_session(child))
        most = max(most, len(members))
        too_many = len(members) > 16 * CORES
        if time.monotonic() > end or too_many or _resident(members) > MEMORY:
            _kill_session(child)
            os.waitpid(child, 0)
            os.close(ended)
            return None, most, _resident(members) / 2**20


def _session(leader: int) -> Iterator[int]:
    """The processes of a session."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                yield int(entry.name)


def _resident(members: list[int]) -> int:
    """Bytes that the processes hold, those that they share counted once for each."""
    total = 0
    for number in members:
        try:
            total += int(Path(f"/proc/{number}/statm").read_text().split()[1]) * 4096
        except OSError:
            continue
    return total


def _kill_session(leader: int) -> None:
    for number in list(_session(leader)):
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue


def faults(line: CommandLine, outcome: Outcome, runs: bool = True) -> list[str]:
    """Everything about an outcome that a user should not meet; runs: whether it was to be run."""
    printed = outcome.stdout + outcome.stderr
    found = []
    if outcome.status is None:
        found.append("it hangs, or starts too many processes, or takes too much memory")
    elif outcome.status not in (0, 1, 2):
        found.append(f"exit status {outcome.status}")
    if "Traceback (most recent call last)" in printed:
        found.append("a traceback")
    if outcome.processes > 1 + 2 * CORES:  # the program, and workers for training and validation
        found.append(f"{outcome.processes} processes at once")
    if outcome.status in (1, 2) and "-m" not in line.flags:
        found += _faults_of_a_refusal(outcome)
    if outcome.status == 0 and runs:
        found += _other_effects(line, outcome)
    return found


def _faults_of_a_refusal(outcome: Outcome) -> list[str]:
    sentences = [row for row in outcome.stderr.splitlines() if row.startswith("error: ")]
    found = []
    if len(sentences) != 1:
        found.append(f"{len(sentences)} sentences instead of one")
    if outcome.status == 2:
        if len(outcome.stderr.strip().splitlines()) != 1:
            found.append("more than its sentence on stderr")
        left = sorted(
            path.relative_to(outcome.folder).as_posix() for path in outcome.folder.iterdir()
        )
        if left:
            found.append(f"a refused line leaves {left}")
    return found


def _other_effects(line: CommandLine, outcome: Outcome) -> list[str]:
    """Settings of an accepted line that its run does not have."""
    found = []
    runs = [p for p in outcome.folder.rglob("config.yaml") if p.parent.name != ".hydra"]
    quiet = {"--cfg", "--info", "--help", "-h", "--version", "-sc"}
    if not runs and not quiet & set(line.flags) and not quiet & set(line.words):
        found.append("accepted, but there is no run")
    for file in runs:
        job = file.parent / ".hydra" / "overrides.yaml"
        typed = OmegaConf.load(job) if "-m" in line.flags and job.is_file() else line.words
        if "-m" not in line.flags or job.is_file():
            found += differences([str(word) for word in typed], OmegaConf.load(file))
    return found


def differences(words: list[str], config: Any) -> list[str]:
    """Overrides that `config` does not show."""
    menu, found = Menu.of([CONF]), []
    latest = {o.get_key_element(): o for o in parse(words)}
    for override in latest.values():
        key = override.key_or_group
        if key.startswith("hydra") or key in ("ckpt_path", "run_dir", "trust"):
            continue
        shown = OmegaConf.select(config, override.package or key)
        if override.is_delete():
            if shown is not None:
                found.append(f"{override.input_line}: still {shown}")
        elif menu.offers(override):
            found += _other_choice(override, shown)
        elif not _same(OmegaConf.create({"v": override.value(), "c": config})["v"], shown):
            found.append(f"{override.input_line}: the run has {shown!r}")
    return found


def _other_choice(override: Any, shown: Any) -> list[str]:
    """A group whose node is not what the chosen file says."""
    name = override.value()
    if not isinstance(name, str) or name in ("none", "null"):
        return []
    content = OmegaConf.load(CONF / override.key_or_group / f"{name}.yaml")
    node = content.get(override.key_or_group, content)
    wanted = node.get("_target_") if isinstance(node, DictConfig) else None
    has = shown.get("_target_") if isinstance(shown, DictConfig) else None
    return [] if wanted is None or wanted == has else [f"{override.input_line}: the run has {has}"]


def _same(typed: Any, shown: Any) -> bool:
    if isinstance(typed, ListConfig) and isinstance(shown, ListConfig):
        pairs = zip(typed, shown, strict=False)
        return len(typed) == len(shown) and all(_same(one, other) for one, other in pairs)
    if isinstance(shown, DictConfig) and "_target_" in shown and isinstance(typed, str):
        return True  # the name of a choice, expanded to what it stands for
    if isinstance(typed, DictConfig) and isinstance(shown, DictConfig):
        return all(key in shown and _same(typed[key], shown[key]) for key in typed)
    if isinstance(typed, bool) != isinstance(shown, bool):
        return False
    if isinstance(typed, float) and typed != typed:
        return bool(shown != shown)
    return bool(typed == shown) or (isinstance(shown, str) and str(typed) == shown)
