"""The resources of this machine and its environment: processes, their ranks, free memory."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from equipoise.errors import UserError

GIB = 2**30
DRIVER = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver has a folder for each GPU."""

OF_A_CLUSTER = (
    "MASTER_ADDR",
    "SLURM_NNODES",
    "LSB_JOBID",
    "OMPI_COMM_WORLD_SIZE",
    "KUBERNETES_PORT",
)
ON_GPUS = ("gpu", "cuda")
SHARE = "EQUIPOISE_CORES"
"""The environment variable with a job's number of cores, where several run side by side."""


def cores() -> int:
    """The processor cores that this process may use; Slurm and containers may give it fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_of_job() -> int:
    """The number of cores of a job of a sweep; outside a sweep, all."""
    share = os.environ.get(SHARE, "")
    return int(share) if share.isdigit() and int(share) > 0 else cores()


def check_processes(config: MutableMapping[str, Any], typed_keys: Collection[str]) -> None:
    """Raise where more processes are requested than the machine has cores; torch is not needed.

    A number of workers that is not on the command line is the most that the data could use, and
    is lowered to what `workers_beside` allows. Only torch knows how many GPUs it can use: see
    `check_devices`.
    """
    trainer = config["trainer"]
    if trainer.get("accelerator") == "cpu":
        check_devices(trainer)
    check_nodes(trainer.get("num_nodes", 1))
    workers = config["task"].get("num_workers")
    if not isinstance(workers, int):
        return
    if "task.num_workers" not in typed_keys:
        config["task"]["num_workers"] = min(workers, workers_beside(trainer))
    elif workers > cores():
        raise UserError(
            f"task.num_workers={workers} is too many: this machine has {counted(cores(), 'core')}"
        )


def workers_beside(trainer: Mapping[str, Any]) -> int:
    """Workers that each process of a run has cores for, beside the core on which it trains.

    One worker if there are no more cores than processes, still better than none: it decodes
    while its process waits for a GPU or a file. On a single core there is none.
    """
    share = cores_of_job() // processes_here(trainer)
    return max(share - 1, 1 if cores_of_job() > 1 else 0)


def processes_here(trainer: Mapping[str, Any]) -> int:
    """The processes of a run on this machine, one for each device; 1 where none are given."""
    count = number_of(trainer.get("devices"))
    if count is None:
        count = 1 if trainer.get("accelerator") == "cpu" else gpus()
    return max(count, 1)


def gpus() -> int:
    """The number of NVIDIA's GPUs that a process may see, found without torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([number for number in visible.split(",") if number.strip() not in ("", "-1")])
    return len(list(DRIVER.iterdir())) if DRIVER.is_dir() else 0


def check_devices(trainer: Mapping[str, Any]) -> None:
    """Raise where the trainer requests more devices than the machine has."""
    accelerator, devices = trainer.get("accelerator"), trainer.get("devices")
    count = number_of(devices)
    if count is None or accelerator not in ("auto", "cpu", *ON_GPUS):
        return
    if count < 1:
        raise UserError(f"trainer.devices={devices} must be 1 or more, or auto")
    unit, there = available(str(accelerator))
    if count > there:
        instead = "" if there else ": choose strategy=auto or strategy=cpu"
        raise UserError(
            f"trainer.devices={devices} is too many: this machine has {counted(there, unit)}"
            f"{instead}"
        )


def available(accelerator: str) -> tuple[str, int]:
    """The kind of device that an accelerator uses here, and how many there are."""
    if accelerator == "cpu":
        return "core", cores()
    import torch

    gpus = torch.cuda.device_count()
    if gpus or accelerator in ON_GPUS:
        return "GPU", gpus
    return ("GPU", 1) if torch.backends.mps.is_available() else ("core", cores())


def check_nodes(nodes: Any) -> None:
    """Raise where a run would wait for processes on other machines that nothing starts."""
    if not isinstance(nodes, int) or isinstance(nodes, bool) or nodes == 1:
        return
    if nodes < 1:
        raise UserError(f"trainer.num_nodes={nodes} must be 1 or more")
    if not any(name in os.environ for name in OF_A_CLUSTER):
        raise UserError(
            f"trainer.num_nodes={nodes} needs processes on other machines: start the command with "
            "srun or torchrun, or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each of them"
        )
    there = os.environ.get("SLURM_NNODES", "")
    if there.isdigit() and nodes > int(there):
        raise UserError(f"trainer.num_nodes={nodes} is more than the {there} of this Slurm job")


def number_of(devices: Any) -> int | None:
    """How many devices are requested; None for all, or if it is neither a number nor a list."""
    if isinstance(devices, str) and devices.strip("-").isdigit():
        devices = int(devices)
    if isinstance(devices, int) and not isinstance(devices, bool):
        return None if devices == -1 else devices
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    return None if isinstance(devices, str | bool | None) else len(devices)


def counted(number: int, unit: str) -> str:
    """ "1 core", "2 cores", "no GPU"."""
    return f"{number or 'no'} {unit}{'s' if number > 1 else ''}"


def several_processes(trainer: Mapping[str, Any]) -> bool:
    """Whether the trainer's settings may make more than one process."""
    one = number_of(trainer.get("devices")) == 1 and trainer.get("num_nodes", 1) == 1
    return not one or trainer.get("strategy") not in ("auto", None)


def rank() -> int:
    """The number of this process, from 0, among those that a launcher started together."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    node = int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", 0)))
    if "LOCAL_RANK" in os.environ or node:
        return node or int(os.environ.get("LOCAL_RANK", 0))
    return int(os.environ.get("SLURM_PROCID", 0))


def started_outside() -> bool:
    """Whether torchrun or srun started this process, and perhaps others, for one run."""
    tasks = os.environ.get("SLURM_NTASKS", "")
    return "RANK" in os.environ or (tasks.isdigit() and int(tasks) > 1)


def decides(trainer: Mapping[str, Any]) -> bool:
    """Whether this process chooses the folder, makes it and prints to the user.

    Of processes that share a run, only the first does; single runs started side by side all do.
    """
    return rank() == 0 or not several_processes(trainer)


def free_memory() -> int:
    """Bytes that this process can still allocate: of the machine, or its container's share."""
    free = [_available()]
    share = Path("/sys/fs/cgroup")
    limit, used = (_number(share / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free.append(limit - used + _reclaimable(share / "memory.stat"))
    return max(0, min(free))


def _available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _number(file: Path) -> int | None:
    text = file.read_text().strip() if file.is_file() else "max"
    return int(text) if text.isdigit() else None


def _reclaimable(file: Path) -> int:
    """Bytes of cached files, which the system releases when memory is short."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
