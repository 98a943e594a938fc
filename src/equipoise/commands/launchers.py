"""Starts the jobs of a multirun: Hydra's launchers, and what they leave to us.

basic runs one job after another in this process; joblib and submitit_local several at a time on
this machine; submitit_slurm and ray on a cluster. With none of them does a job that fails, or
whose process is killed, end the others.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from equipoise.commands.jobs import draws_values, jobs
from equipoise.config.hydra import parse
from equipoise.config.machine import cores
from equipoise.errors import RunInterrupted, UserError
from equipoise.running import sweep_record
from equipoise.running.interrupts import STATUSES, Stopped, end_at_next, stoppable
from equipoise.running.side_by_side import Share, described, remove_places, share, take_place
from equipoise.running.stop_notice import NOTICE, heeding, putting_up

BASIC, JOBLIB, LOCAL, SLURM, RAY = "basic", "joblib", "submitit_local", "submitit_slurm", "ray"
PACKAGES = {
    JOBLIB: ("hydra_joblib_launcher", "sweep"),
    LOCAL: ("hydra_submitit_launcher", "slurm"),
    SLURM: ("hydra_submitit_launcher", "slurm"),
    RAY: ("hydra_ray_launcher", "ray"),
}
"""The plugin behind each launcher, and our extra that installs it."""
ON_THIS_MACHINE = (JOBLIB, LOCAL)
AT_A_TIME = "hydra.launcher.n_jobs"
DEFAULTS = {
    LOCAL: {"timeout_min": 10080, "stderr_to_stdout": "true"},
    SLURM: {
        "timeout_min": 1440, "cpus_per_task": 8, "gpus_per_node": 1, "mem_gb": 32,
        "stderr_to_stdout": "true", "signal_delay_s": 300, "max_num_timeout": 3,
    },
}  # fmt: skip
"""Settings of launchers in which we differ from their plugins; docs/sweeps.md says why."""
Task = Callable[[DictConfig], float | None]
TRIES = 2
"""How often a job may lose its process before it counts as failed."""


def chosen(overrides: Sequence[str]) -> str:
    """The launcher that the words choose. Raises UserError where its package is missing."""
    names = [o.value() for o in parse(overrides) if o.key_or_group == "hydra/launcher"]
    name = str(names[-1]) if names else BASIC
    package, extra = PACKAGES.get(name, (None, None))
    if package is not None and not _is_installed(package):
        distribution = package.replace("_", "-")
        raise UserError(
            f"hydra/launcher={name} needs the package {distribution}: "
            f"pip install 'equipoise[{extra}]'"
        )
    return name


def _is_installed(package: str) -> bool:
    try:
        return find_spec(f"hydra_plugins.{package}") is not None
    except ModuleNotFoundError:
        return False


def shared_machine(
    launcher: str, overrides: Sequence[str], trainer: Mapping[str, Any]
) -> Share | None:
    """How the jobs that a launcher runs side by side share this machine; prints it in a line.

    trainer: that of one of the jobs.
    """
    if launcher not in ON_THIS_MACHINE:
        return None
    words = parse(overrides)
    count = None if draws_values(words) else len(jobs(overrides))
    typed = [o.value() for o in words if o.key_or_group == AT_A_TIME]
    shared = share(trainer, count, int(str(typed[-1])) if typed and typed[-1] else None)
    print(described(shared))
    return shared


def settings(launcher: str, overrides: Sequence[str], shared: Share | None) -> list[str]:
    """The launcher's settings that are ours, or follow from how the machine is shared.

    Typed settings stay, except for joblib's number of jobs, which is passed on as it was meant.
    """
    typed = {override.key_or_group for override in parse(overrides)}
    own = [f"hydra.launcher.{name}={value}" for name, value in DEFAULTS.get(launcher, {}).items()]
    lines = [line for line in own if line.partition("=")[0] not in typed]
    return [*lines, f"{AT_A_TIME}={shared.places}"] if shared and launcher == JOBLIB else lines


def at_once(launcher: DictConfig) -> int:
    """How many jobs a launcher runs at once according to its settings."""
    if str(launcher.get("_target_")).startswith("hydra._internal.core_plugins."):
        return 1
    count = launcher.get("n_jobs")
    return count if isinstance(count, int) and count > 0 else cores()


def job(launcher: str, task: Task, sweep: Path, shared: Share | None) -> Task:
    """The function that a launcher calls for each job."""
    if launcher == BASIC:
        return task
    parent = os.getpid() if launcher == JOBLIB else None
    return SweepJob(task, sweep.absolute(), shared, parent)


@contextmanager
def side_by_side(launcher: str, sweep: Path) -> Iterator[None]:
    """Handles Ctrl-C and lost processes while a launcher runs jobs in separate processes.

    Raises RunInterrupted where the jobs were told to stop.
    """
    if launcher == BASIC:
        yield
        return
    survived = {JOBLIB: _survived_by_joblib, LOCAL: _survived_by_submitit,
                SLURM: _survived_by_submitit}.get(launcher, _left_to_launcher)  # fmt: skip
    with putting_up(sweep) as notice, survived(sweep, notice):
        try:
            yield
        finally:
            remove_places(sweep)
        if notice.exists():
            number = int(notice.read_text())
            notice.unlink()
            raise RunInterrupted(f"Interrupted; what the jobs have reached is in {sweep}", number)
        for folder in sweep_record.lost(sweep):
            sweep_record.write_lost(folder)


@contextmanager
def _left_to_launcher(sweep: Path, notice: Path) -> Iterator[None]:
    yield


@contextmanager
def _survived_by_joblib(sweep: Path, notice: Path) -> Iterator[None]:
    """Start the workers of joblib again where one was killed, which ends the others too.

    Finished jobs are skipped, running ones resume from their last checkpoint, and a job
    that has lost its process twice counts as failed.
    """
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
    from joblib.externals.loky.process_executor import BrokenProcessPool

    launch, tries = JoblibLauncher.launch, Counter[Path]()

    def launch_again(*arguments: Any, **named: Any) -> Any:
        while True:
            try:
                return launch(*arguments, **named)
            except BrokenProcessPool as error:
                killed = sweep_record.lost(sweep)
                if notice.exists():
                    return []
                if not killed:
                    print(f"joblib's processes do not start: {error}", file=sys.stderr)
                    return []
                tries.update(killed)
                for folder in killed:
                    _say_lost(folder, tries[folder])

    with _replaced(JoblibLauncher, "launch", launch_again):
        yield


def _say_lost(folder: Path, times: int) -> None:
    if times >= TRIES:
        sweep_record.write_lost(folder)
    else:
        print(f"{folder.name}: its process was killed; the job starts again", file=sys.stderr)


@contextmanager
def _survived_by_submitit(sweep: Path, notice: Path) -> Iterator[None]:
    """Wait for all jobs of submitit, even if the process of one ended without a result."""
    from hydra.core.utils import JobReturn, JobStatus
    from submitit.core.core import Job as Submitted
    from submitit.core.utils import FailedJobError, UncompletedJobError

    results = Submitted.results

    def results_or_nothing(job: Any) -> list[Any]:
        try:
            return list(results(job))
        except (FailedJobError, UncompletedJobError):
            if not notice.exists():
                print(f"a job was lost: its output is in {job.paths.stdout}", file=sys.stderr)
            return [JobReturn(_return_value=None, status=JobStatus.COMPLETED)]

    print(f"the jobs write what they print into {sweep / '.submitit'}")
    with _replaced(Submitted, "results", results_or_nothing):
        yield


@contextmanager
def _replaced(owner: Any, name: str, by: Any) -> Iterator[None]:
    """Replace a method of a plugin's class in the block; the plugins offer no other way."""
    before = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, before)


@dataclass(frozen=True)
class SweepJob:
    """The callable that a launcher runs for each job.

    sweep: the sweep's folder. share: the job's share of the machine, None where the launcher gives
    each job its own. parent: the process whose end ends the job, None where the job may survive.
    """

    task: Task
    sweep: Path
    share: Share | None
    parent: int | None

    def __call__(self, config: DictConfig) -> float | None:
        """Run the job unless the sweep is to stop; an interrupted job has no value."""
        directory = Path(HydraConfig.get().runtime.output_dir)
        notice = self.sweep / NOTICE
        # one job at a time: joblib runs it in the process that started it
        parent = None if self.parent == os.getpid() else self.parent
        start_processes_oneself()
        try:
            with stoppable(), saved_before_requeue(), heeding(notice, parent):
                ready = self.share is None or take_place(self.share, self.sweep, notice.exists)
                if ready and not notice.exists():
                    return self.task(config)
        except Stopped:
            end_at_next()
        except SystemExit as end:
            if end.code not in STATUSES:
                raise
        sweep_record.withdraw(directory)
        if parent is not None and os.getppid() != parent:
            os._exit(1)  # joblib's process would wait for work for minutes
        return None


def start_processes_oneself() -> None:
    """Let a job that Slurm has given one task start the processes of its strategy itself.

    Otherwise Lightning expects Slurm to have started one for each device. It decides by the name
    of the job.
    """
    if os.environ.get("SLURM_NTASKS") == "1":
        os.environ["SLURM_JOB_NAME"] = "interactive"


@contextmanager
def saved_before_requeue() -> Iterator[None]:
    """Near a job's time limit, save it as for SIGTERM, and let submitit queue it again.

    submitit's own signal handler would end the process at once.
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
    """Requeue the job, which ends the process; say so where no requeue is left."""
    from submitit.core.utils import UncompletedJobError

    try:
        requeue(number, None)
    except UncompletedJobError as error:
        print(error, file=sys.stderr)
