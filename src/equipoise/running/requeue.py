"""Asks Slurm to start an interrupted job again, as Lightning's Slurm plugin would."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

JOB = re.compile(r"\d+(_\d+)?")
PATIENCE = 60.0
"""Timeout in seconds for the answer of Slurm's controller."""


def requeues(trainer: Trainer, number: int) -> bool:
    """Whether this process must requeue the job that a signal interrupted.

    It must if it is the first one of a run whose trainer has Lightning's SLURMEnvironment, with
    `auto_requeue` and that signal as its `requeue_signal`; by default SIGUSR1.
    """
    from lightning.fabric.plugins.environments import SLURMEnvironment

    environment = trainer._accelerator_connector.cluster_environment
    return (
        isinstance(environment, SLURMEnvironment)
        and environment.auto_requeue
        and environment.requeue_signal == number
        and trainer.is_global_zero
    )


def requeue() -> str:
    """Have Slurm requeue the present job; returns a sentence on the outcome."""
    job = job_id()
    if job is None:
        return "the job was not requeued: SLURM_JOB_ID does not name one"
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the job {job} could not be requeued: {error}"
    if done.returncode != 0:
        cause = " ".join(done.stderr.split()) or f"scontrol ended with status {done.returncode}"
        return f"the job {job} could not be requeued: {cause}"
    return f"the job {job} was requeued: with resume=auto its command continues from here"


def job_id() -> str | None:
    """Slurm's number for this job, including the index in an array."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID", "") for name in ("JOB", "TASK"))
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")
    return job if JOB.fullmatch(job) else None
