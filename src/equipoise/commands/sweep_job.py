"""One job of a multirun in a process that a launcher has started for it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from equipoise.running import sweep_record
from equipoise.running.interrupts import STATUSES, Stopped, end_at_next, stoppable
from equipoise.running.side_by_side import Share, take_place
from equipoise.running.stop_notice import NOTICE, heeding

Task = Callable[[DictConfig], float | None]


@dataclass(frozen=True)
class SweepJob:
    """What a launcher calls for each job.

    sweep: the sweep's folder. share: of the machine, None where the launcher gives each job its
    own. parent: the process without which the job ends, None for one that may survive it.
    """

    task: Task
    sweep: Path
    share: Share | None
    parent: int | None

    def __call__(self, config: DictConfig) -> float | None:
        """Run the job unless the sweep is to stop; one that is interrupted has no value."""
        directory = Path(HydraConfig.get().runtime.output_dir)
        notice = self.sweep / NOTICE
        start_processes_oneself()
        try:
            with stoppable(), saved_before_requeue(), heeding(notice, self.parent):
                ready = self.share is None or take_place(self.share, self.sweep, notice.exists)
                if ready and not notice.exists():
                    return self.task(config)
        except Stopped:
            end_at_next()
        except SystemExit as end:
            if end.code not in STATUSES:
                raise
        sweep_record.withdraw(directory)
        if self.parent is not None and os.getppid() != self.parent:
            os._exit(1)  # joblib's process would wait for work for minutes
        return None


def start_processes_oneself() -> None:
    """Let a job that Slurm has given one task start the processes of its strategy itself.

    Otherwise Lightning expects Slurm to have started one for each device. It takes the name of the
    job as the sign.
    """
    if os.environ.get("SLURM_NTASKS") == "1":
        os.environ["SLURM_JOB_NAME"] = "interactive"


@contextmanager
def saved_before_requeue() -> Iterator[None]:
    """Near the end of a job's time, save it as for SIGTERM, and let submitit queue it again.

    submitit's own handler of its signal would end the process at once.
    """
    requeue = signal.getsignal(signal.SIGUSR2)
    if "SUBMITIT_EXECUTOR" not in os.environ or not callable(requeue):
        yield
        return
    signalled: list[int] = []

    def save(number: int, frame: FrameType | None) -> None:
        signalled.append(number)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGUSR2, save)
    try:
        yield
    except (Stopped, SystemExit):
        if signalled:
            _ask(requeue, signalled[0])
        raise
    finally:
        signal.signal(signal.SIGUSR2, requeue)


def _ask(requeue: Callable[..., object], number: int) -> None:
    """Ask for another turn, which ends the process; where there is none left, say so."""
    from submitit.core.utils import UncompletedJobError

    try:
        requeue(number, None)
    except UncompletedJobError as error:
        print(error, file=sys.stderr)
