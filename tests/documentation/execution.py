"""Commands of the pages carried out in fresh processes, which one warm process forks."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

LIMIT = 300
"""Seconds after which a shortened command counts as hung."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
HEAVY = ["torch", "torchvision", "lightning.pytorch", "torchmetrics", "hydra", "sklearn.datasets"]


class Done(NamedTuple):
    """How a command has ended: its exit status (None: it hung), and what it has printed."""

    status: int | None
    out: str
    err: str

    @property
    def refusal(self) -> str | None:
        """The sentence of a refused command or of a failed job, or None where there is none."""
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        if "Traceback" in self.err or len(errors) != 1:
            return None
        is_of_a_job = re.match(r"error: \d", errors[0]) is not None
        return errors[0] if self.status == (1 if is_of_a_job else 2) else None


def execute(words: list[str], folder: Path, standard_input: Path | None = None) -> Done:
    """Carry out `python -m equipoise <words>` in a folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    files = (folder / "out.txt", folder / "err.txt")
    process = context.Process(target=_carry_out, args=(words, folder, *files, standard_input))
    process.start()
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        process.join()
        return Done(None, files[0].read_text(), files[1].read_text())
    return Done(process.exitcode, *(file.read_text(errors="replace") for file in files))


def _carry_out(
    words: list[str], folder: Path, out: Path, err: Path, standard_input: Path | None
) -> None:
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(standard_input or os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    os.environ |= {
        **OFFLINE,
        "HF_HOME": str(folder / "hub"),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    multiprocessing.set_start_method("fork", force=True)  # that of a command, not of its tests
    sys.argv = ["equipoise", *words]
    sys.stdout, sys.stderr = (os.fdopen(k, "w", buffering=1, closefd=False) for k in (1, 2))
    sys.stdin = os.fdopen(0, "r", closefd=False)

    from equipoise import commands

    status = commands.exit_status(commands.run, words)
    sys.stdout.flush()
    os._exit(status)
