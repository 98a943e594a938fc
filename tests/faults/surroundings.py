"""Services that do not answer, and machines that are set up oddly."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from tests.faults import injection as put
from tests.faults.disk import system_error
from tests.faults.fault import Fault
from tests.faults.injection import at_call, at_hook, environment, raising

NO_SERVER = environment(WANDB_MODE=None, WANDB_API_KEY="0" * 40, WANDB_INIT_TIMEOUT="4",
                        WANDB_BASE_URL="http://127.0.0.1:9")  # fmt: skip
COMPLETES = "completes"
WITHOUT = "warns once, continues without it and completes; `details.lost` in metrics.json says so"
WANDB, TENSORBOARD = ("logger=[csv,wandb]",), ("logger=[csv,tensorboard]",)
HOUR = 3600.0


def another_run(trainer: Trainer) -> None:
    """Start the same command line once more in the same folder, which has to be refused."""
    done = subprocess.run([sys.executable, "-c",
                           "import sys; from equipoise.commands import exit_status, train; "
                           "sys.exit(exit_status(train.main, sys.argv[1:]))", *sys.argv[1:]],
                          capture_output=True, text=True, check=False)  # fmt: skip
    print("the other one:", done.returncode, done.stderr)


def hour_back(*_: Any) -> None:
    """From here on the clock of the wall is an hour slow."""
    for name in ("time", "time_ns"):
        real, slow = getattr(time, name), HOUR if name == "time" else HOUR * 1e9
        setattr(time, name, lambda real=real, slow=slow: real() - type(real())(slow))


def zone(name: str) -> put.Injection:
    return put.all_of(environment(TZ=name), time.tzset)


def killing_git(folder: Path) -> None:
    """A git that ends as if the system had killed it."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "git"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)


def seconds_are_true(folder: Path, said: str) -> None:
    import json

    assert 0 < json.loads((folder / "run" / "metrics.json").read_text())["seconds"] < HOUR / 2


FAULTS = [
    Fault(
        "W&B: no answer",
        "W&B cannot be reached when a run begins",
        "warns, keeps a local run in its place, and completes",
        "W&B cannot be reached",
        words=WANDB,
        inject=NO_SERVER,
    ),
    Fault(
        "W&B: fails in a run",
        "W&B's client fails in the middle of a run",
        WITHOUT,
        "CurveWandbLogger has failed",
        lost="the later rows of W&B's history",
        words=WANDB,
        inject=at_call(
            "wandb.sdk.wandb_run:Run.log",
            raising(ConnectionResetError("the service has ended")),
            3,
            every=True,
        ),
    ),
    Fault(
        "TensorBoard: no folder",
        "TensorBoard's folder cannot be made",
        "is refused in a sentence before its first step",
        "error: /proc/none cannot be used: No such file or directory; ",
        status=2,
        reached=None,
        same=False,
        resumes=False,
        words=(*TENSORBOARD, "logger.tensorboard.save_dir=/proc/none"),
    ),
    Fault(
        "TensorBoard: fails in a run",
        "the disk of TensorBoard's files becomes full",
        WITHOUT,
        "CurveTensorBoardLogger has failed",
        lost="TensorBoard's later points",
        words=TENSORBOARD,
        inject=at_call(
            "torch.utils.tensorboard:SummaryWriter.add_scalar",
            raising(system_error(28)),
            3,
            every=True,
        ),
    ),
    Fault(
        "folder: two runs at once",
        "a second run is started in the folder of a run",
        "completes; the second is refused",
        "the other one: 2 error: another run is active in",
        inject=at_hook("on_train_batch_start", another_run, 7),
    ),
    Fault(
        "clock: an hour back",
        "the clock jumps back by an hour",
        "completes; durations are true",
        "results: ",
        inject=at_hook("on_train_batch_start", hour_back, 4),
        check=seconds_are_true,
    ),
    Fault(
        "clock: an unknown zone",
        "TZ names no time zone",
        COMPLETES,
        "results: ",
        inject=zone("Nowhere/Atall"),
    ),
    Fault(
        "clock: a zone of 45 minutes",
        "the time zone is a quarter of an hour off",
        COMPLETES,
        "results: ",
        inject=zone("Pacific/Chatham"),
    ),
    Fault(
        "git: killed",
        "the git that is asked for the revision is killed",
        "completes; the revision is null or the version",
        "results: ",
        prepare=killing_git,
        inject=lambda: os.environ.update(PATH=f"{Path.cwd() / 'bin'}:{os.environ['PATH']}"),
    ),
    Fault(
        "home: unset",
        "HOME is not set",
        COMPLETES,
        "results: ",
        inject=environment(HOME=None, XDG_STATE_HOME=None, XDG_CACHE_HOME=None),
    ),
    Fault(
        "home: read-only",
        "nothing can be written below HOME",
        COMPLETES,
        "results: ",
        inject=environment(HOME="/proc/none", XDG_STATE_HOME=None, XDG_CACHE_HOME=None),
    ),
    Fault(
        "temporary folder: missing",
        "TMPDIR names a folder that is not there",
        COMPLETES,
        "results: ",
        inject=environment(TMPDIR="/nowhere/at/all"),
    ),
    Fault(
        "terminal: very narrow",
        "the terminal is ten columns wide",
        COMPLETES,
        "results",
        inject=environment(COLUMNS="10", LINES="3"),
    ),
    Fault(
        "streams: no input",
        "standard input is closed",
        COMPLETES,
        "results: ",
        inject=put.closed(0),
    ),
    Fault(
        "streams: no errors", "standard error is closed", COMPLETES, "results: ", fresh='"$@" 2>&-'
    ),
    Fault(
        "streams: a reader that has seen enough",
        "the output is read by `head -1`",
        "completes; what it prints later is lost",
        "run folder: run",
        lost="what it prints",
        fresh='"$@" | head -1; exit ${PIPESTATUS[0]}',
    ),
    Fault(
        "locale: C and ASCII",
        "LC_ALL=C, ASCII streams, a folder with letters beyond it",
        "is refused in a sentence: the words cannot be read in that locale",
        "error: cannot read the command line",
        status=2,
        words=("run_dir=läufe mit 空白",),
        resumes=False,
        reached=None,
        fresh='"$@"',
        variables={
            "LC_ALL": "C",
            "PYTHONIOENCODING": "ascii",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "LANG": None,
        },
    ),
    Fault(
        "folder: read-only",
        "nothing can be written into the working folder",
        "is refused in a sentence",
        "error: cannot write to run_dir=",
        status=2,
        reached=None,
        fresh='cd /sys && "$@"',
        resumes=False,
    ),
]
