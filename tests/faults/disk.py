"""Disks that are full, fail or are read-only, while a run writes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tests.faults import injection as put
from tests.faults.fault import Fault

FULL = "No space left on device"
RESUMES = (
    "stops with the system's reason; the checkpoint before stays, and `resume=auto` continues "
    "the run"
)
REFUSED = "is refused in a sentence before its first step, and leaves no folder"
NO_PICTURE = "warns, and completes; `details.lost` in metrics.json names what could not be written"


def system_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def tells_the_loss(folder: Path, said: str) -> None:
    assert '"lost": [' in (folder / "run" / "metrics.json").read_text()


FAULTS = [
    Fault(
        "full disk: last.ckpt",
        "the disk is full while last.ckpt is written",
        RESUMES,
        f"error: the checkpoint .*last.ckpt could not be saved: {FULL}",
        lost="the steps since that checkpoint, which are done again",
        status=1,
        reached="failed",
        inject=put.full_disk(r"last\.ckpt", 2),
    ),
    Fault(
        "full disk: best.ckpt",
        "the disk is full while best.ckpt is written",
        RESUMES,
        f"error: the checkpoint .*best.ckpt could not be saved: {FULL}",
        lost="the steps since that checkpoint, which are done again",
        status=1,
        reached="failed",
        inject=put.full_disk(r"best\.ckpt", 2),
    ),
    Fault(
        "full disk: first checkpoint",
        "the disk is full at the very first checkpoint",
        "stops with the system's reason; `resume=auto` begins again",
        f"could not be saved: {FULL}",
        lost="the first epoch, which is done again",
        status=1,
        reached="failed",
        inject=put.full_disk(r"\.ckpt", 1),
    ),
    Fault(
        "full disk: at a signal",
        "the disk is full when SIGTERM asks for a checkpoint",
        RESUMES,
        f"last.ckpt could not be saved: {FULL}",
        lost="the steps since the checkpoint before, which are done again",
        status=1,
        reached="failed",
        inject=put.all_of(
            put.full_disk(r"last\.ckpt", 2),
            put.at_hook("on_train_batch_start", put.signalled(put.TERM), 8),
        ),
    ),
    Fault(
        "disk error: fsync",
        "the disk fails when a checkpoint is synced",
        RESUMES,
        "could not be saved: Input/output error",
        status=1,
        reached="failed",
        lost="the steps since the checkpoint before, which are done again",
        inject=put.at_call("os:fsync", put.raising(system_error(errno.EIO)), 9),
    ),
    Fault(
        "disk error: rename",
        "a finished checkpoint cannot take its place",
        RESUMES,
        "could not be saved: Permission denied",
        status=1,
        reached="failed",
        lost="the steps since the checkpoint before, which are done again",
        inject=put.at_call("os:replace", put.raising(system_error(errno.EACCES)), 5),
    ),
    Fault(
        "full disk: metrics.json",
        "the disk is full when the results are written",
        "stops with the system's reason, without a torn metrics.json; `resume=auto` tests again",
        f"error: the results could not be written to run: {FULL}",
        status=1,
        reached=None,
        lost="the test, which is done again",
        inject=put.full_disk(r"metrics\.json"),
    ),
    Fault(
        "full disk: config.yaml",
        "the disk is full when the run folder is opened",
        REFUSED,
        f"error: run.* cannot be written: {FULL}",
        status=2,
        reached=None,
        inject=put.full_disk(r"run/config\.yaml"),
    ),
    Fault(
        "full disk: overrides.json",
        "the same at the record of the command line",
        REFUSED,
        f"error: run.* cannot be written: {FULL}",
        status=2,
        reached=None,
        inject=put.full_disk(r"overrides\.json"),
    ),
    Fault(
        "full disk: .hydra",
        "the same at Hydra's record",
        REFUSED,
        f"error: run.* cannot be written: {FULL}",
        status=2,
        reached=None,
        inject=put.full_disk(r"run/\.hydra/"),
    ),
    Fault(
        "full disk: metrics.csv",
        "the disk is full while the curve is written",
        RESUMES,
        f"error: .*could not be written: {FULL}",
        status=1,
        reached="failed",
        lost="the steps since the last checkpoint, which are done again",
        inject=put.full_disk(r"metrics\.csv", 4, 50),
    ),
    Fault(
        "full disk: pictures",
        "the disk is full while the report's pictures are drawn",
        NO_PICTURE,
        FULL,
        lost="those pictures",
        report=True,
        check=tells_the_loss,
        inject=put.full_disk(r"\.(png|svg)(\.partial)?$", 3),
    ),
    Fault(
        "full disk: page",
        "the disk is full when the report's page is written",
        NO_PICTURE,
        FULL,
        lost="the page",
        report=True,
        check=tells_the_loss,
        inject=put.full_disk(r"index\.html", 2),
    ),
    Fault(
        "full disk: export",
        "the disk is full while `export` writes the weights",
        "stops with the system's reason; nothing half written is left",
        "error: .*written: ",
        status=2,
        earlier="stopped",
        program="export",
        resumes=False,
        reached="interrupted",
        words=("run", "exported"),
        inject=put.full_disk(r"exported.*json", 1),
    ),
    Fault(
        "full disk: standard output",
        "the run's output goes to a full disk",
        "completes; what it prints is lost",
        "",
        lost="what it prints",
        fresh='"$@" > /dev/full',
        same=False,
    ),
]
