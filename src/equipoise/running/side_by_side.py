"""Jobs that run side by side on one machine: each has its own GPU, or its share of the cores.

A job's process takes one of the places, with a lock that is released when the process ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.config.machine import SHARE, cores, counted, number_of

PLACES = ".places"
"""The folder of a sweep in which the running jobs hold their locks."""
THREADS = "OMP_NUM_THREADS"
LOOK_EVERY = 0.2
"""Seconds between two checks for a free place."""


@dataclass(frozen=True)
class Share:
    """How the jobs of a sweep share this machine.

    places: how many jobs run at a time. cores: number of cores for each. threads: torch's, in each
    process of a job; None where the user has set OMP_NUM_THREADS. gpus: each place's value of
    CUDA_VISIBLE_DEVICES; empty for jobs that compute on the cores.
    """

    places: int
    cores: int
    threads: int | None
    gpus: tuple[str, ...] = ()


def share(
    trainer: Mapping[str, Any], jobs: int | None = None, at_a_time: int | None = None
) -> Share:
    """How jobs with this trainer share the machine.

    jobs: their number, None if unknown. at_a_time: how many the user wants to run at a time, in
    joblib's convention (-1: as many as cores); None for as many as the GPUs, or else the
    cores, allow.
    """
    devices = number_of(trainer.get("devices")) or 1
    gpus = [] if trainer.get("accelerator") == "cpu" else visible_gpus()
    processes = 1 if gpus else devices
    room = len(gpus) // devices if gpus else cores() // processes
    if at_a_time is None:
        places = min(room, jobs or room)
    else:
        places = at_a_time if at_a_time > 0 else cores() + 1 + at_a_time
    places = max(places, 1)
    each = max(cores() // places, 1)
    threads = None if os.environ.get(THREADS) else max(each // processes, 1)
    return Share(places, each, threads, _by_turn(gpus, devices, places))


def visible_gpus() -> list[str]:
    """The names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES writes them.

    They are counted without making a CUDA context.
    """
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if named is None else named.split(",")
    return [name.strip() for name in names[:count]]


def _by_turn(gpus: list[str], each: int, places: int) -> tuple[str, ...]:
    """The GPUs of every place, used in turn where there are more places than GPUs."""
    if not gpus:
        return ()
    turns = [[gpus[(place * each + i) % len(gpus)] for i in range(each)] for place in range(places)]
    return tuple(",".join(dict.fromkeys(names)) for names in turns)


def described(shared: Share) -> str:
    """The line that says how the machine is shared."""
    jobs = f"{counted(shared.places, 'job')} at a time"
    if shared.gpus:
        own = len(set(shared.gpus)) == len(shared.gpus)
        gpus = ", ".join(dict.fromkeys(shared.gpus))
        return f"{jobs}, {'each on its own of' if own else 'by turns on'} the GPUs {gpus}"
    threads = os.environ.get(THREADS) if shared.threads is None else shared.threads
    return (
        f"{jobs}, each with {counted(shared.cores, 'core')} of {cores()} "
        f"and {counted(int(str(threads).partition(',')[0]), 'thread')} of torch"
    )


_taken: dict[Path, int] = {}
"""The place of this process in a folder's sweep, held until the process ends."""


def take_place(shared: Share, sweep: Path, ended: Callable[[], bool] = lambda: False) -> bool:
    """Wait for a free place in the sweep of a folder and make the process keep to its share.

    ended: whether there is nothing left to wait for; then this returns False. Call it before
    anything is computed: a process cannot leave a GPU once it has used it.
    """
    while sweep not in _taken:
        for place in range(shared.places):
            if _lock(sweep / PLACES / str(place)):
                _taken[sweep] = place
                break
        else:
            if ended():
                return False
            time.sleep(LOOK_EVERY)
    _keep_to(shared, _taken[sweep])
    return True


def remove_places(sweep: Path) -> None:
    """Remove the locks of a sweep that has ended."""
    shutil.rmtree(sweep / PLACES, ignore_errors=True)


def _lock(path: Path) -> bool:
    """Lock a place; on a file system without locks it counts as free."""
    path.parent.mkdir(exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(file)
        return False
    except OSError:
        return True
    return True


def _keep_to(shared: Share, place: int) -> None:
    os.environ[SHARE] = str(shared.cores)
    if shared.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = shared.gpus[place]
    if shared.threads is None:
        return
    os.environ[THREADS] = str(shared.threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        with suppress(RuntimeError):
            torch.set_num_threads(shared.threads)
