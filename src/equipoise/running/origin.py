"""The origin of a run's results: command line, date, revision of the code, and device."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch

PROGRAMS = {
    "train.py": "python train.py", "evaluate.py": "python evaluate.py",
    "equipoise-train": "equipoise-train", "equipoise-evaluate": "equipoise-evaluate",
}  # fmt: skip
"""The command that a user types, by the name of the file that Python then runs."""
CHANGED = "+changes"
PATIENCE = 10.0
"""Timeout in seconds for one answer of git."""
CPU_NAME = re.compile(r"^model name\s*: *(.+)$", re.MULTILINE)


def origin(command: str, words: Sequence[str]) -> dict[str, str | None]:
    """The entries of metrics.json that say which command, when, and with which code.

    command, words: as for `command_line`. `project_revision` is that of the repository around the
    working directory, None where there is none, or where it is the code's own.
    """
    code, project = Path(__file__).parent, Path.cwd()
    own = tracked_root(code)
    around = toplevel(project)
    return {
        "command": command_line(command, words),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "revision": revision(own) if own else version("equipoise"),
        "project_revision": revision(around) if around and around != own else None,
    }


def command_line(command: str, words: Sequence[str]) -> str:
    """The command line that repeats this run, quoted for a shell.

    command: one of `python -m equipoise`; words: those after it. It starts as this program did,
    possibly with train.py; other people's scripts are replaced, as they might do something else.
    """
    typed = PROGRAMS.get(Path(sys.argv[0]).name, "")
    program = typed if command in typed else f"python -m equipoise {command}"
    return " ".join([program, *map(shlex.quote, words)])


def tracked_root(folder: Path) -> Path | None:
    """The repository that this folder's code belongs to; None for an installed package.

    An environment may lie in the repository of another project, which does not track it.
    """
    tracked = git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
    return toplevel(folder) if tracked else None


def toplevel(folder: Path) -> Path | None:
    """The root of the git repository around a folder; None without one, or without git."""
    root = git(folder, "rev-parse", "--show-toplevel")
    return Path(root) if root else None


def revision(root: Path) -> str | None:
    """The commit of a repository, marked where tracked files differ from it; None before one."""
    commit = git(root, "rev-parse", "--verify", "HEAD")
    changes = git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}{CHANGED if changes else ''}" if commit else None


def git(folder: Path, *words: str) -> str | None:
    """Git's answer in a folder; None where it has none.

    The variables that name the repository to git's hooks are ignored.
    """
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], env=surroundings, capture_output=True, text=True,
            errors="surrogateescape", timeout=PATIENCE, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def device_name(device: torch.device, devices: int = 1) -> str:
    """The name of the hardware, and how many of it work together."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if device.type == "cpu":
        name = f"{processor()} (CPU)"
    return name if devices == 1 else f"{devices} x {name}"


def processor() -> str:
    """The name of this machine's processor."""
    told = Path("/proc/cpuinfo")
    named = CPU_NAME.search(told.read_text()) if told.is_file() else None
    return named[1] if named else platform.processor() or platform.machine()
