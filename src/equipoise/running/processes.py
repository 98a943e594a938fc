"""The processes of one run: the first one decides, the others carry out the same job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from equipoise.config.about import about
from equipoise.errors import UserError

START = (
    "import json, sys; job = json.load(sys.stdin); sys.path[:] = job['path']; "
    "from equipoise.commands import join; join(job)"
)
GRACE = 30.0
"""Seconds for the others to end by themselves, and for the first to notice that one failed."""
LOOK_EVERY = 1.0
UNHEARD = b"error: a process of this run has failed, and the first one waits for it: all end\n"
SEVERAL = ("ddp", "fsdp", "deepspeed")
"""The strategies of more than one process that conf/strategy offers."""
ADDRESSES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


class JobLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher, passing each process exactly the job and folder of the first one.

    Lightning would start the command line, or the user's program, once more in each of them: a
    multirun would start again, and a new folder would be chosen.

    job: what `commands.join` needs, as plain containers.
    """

    def __init__(self, replaced: _SubprocessScriptLauncher, job: dict[str, Any]) -> None:
        super().__init__(replaced.cluster_environment, replaced.num_processes, replaced.num_nodes)
        self.job = job
        self.ended = threading.Event()

    def launch(
        self,
        function: Callable[..., Any],
        *args: Any,
        trainer: Trainer | None = None,
        **kwargs: Any,
    ) -> Any:
        """Start the other processes, once, and call the function."""
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            self._call_children_scripts()
            threading.Thread(target=self._watch, name="process-watch", daemon=True).start()
        _set_num_threads_if_needed(self.num_processes)
        return function(*args, **kwargs)

    def _call_children_scripts(self) -> None:
        self._check_can_spawn_children()
        environment = self.cluster_environment
        os.environ.update(
            MASTER_ADDR=environment.main_address,
            MASTER_PORT=str(environment.main_port),
            NODE_RANK=str(environment.node_rank()),
            LOCAL_RANK=str(environment.local_rank()),
            WORLD_SIZE=str(self.num_processes * self.num_nodes),
        )
        self.procs = [self._start(rank) for rank in range(1, self.num_processes)]

    def _start(self, local_rank: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", START],
            env={**os.environ, "LOCAL_RANK": str(local_rank), "PYTHONPATH": path_of_python()},
            stdin=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        with process.stdin:
            json.dump(self.job, process.stdin)
        return process

    def _watch(self) -> None:
        """End all where one failed and the first, which is waiting for it, does not notice."""
        while not self.ended.wait(LOOK_EVERY):
            if any(process.poll() for process in self.procs):
                if not self.ended.wait(GRACE):
                    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, UNHEARD)
                    self.kill(signal.SIGKILL)
                    os.kill(os.getpid(), signal.SIGKILL)
                return

    def close(self) -> None:
        """Wait for the others to finish their part; those that still run afterwards are killed."""
        self.ended.set()
        for process in self.procs:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def telling(
    trainer: Trainer, purpose: str, overrides: Sequence[str], directory: Path
) -> Iterator[None]:
    """During a run, pass its overrides and its folder to its other processes.

    purpose: train or evaluate. Afterwards nothing is left of the process group, so that the next
    job of a multirun can make its own.
    """
    before = {name: os.environ.get(name) for name in ADDRESSES}
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        job = {"purpose": purpose, "overrides": list(overrides), "directory": str(directory)}
        trainer.strategy._launcher = JobLauncher(launcher, {**job, "path": sys.path})
    try:
        yield
    finally:
        close(trainer.strategy.launcher)
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


def close(launcher: Any) -> None:
    """Leave the process group, and wait for the started processes."""
    if not isinstance(launcher, JobLauncher):
        return
    if launcher.procs and sys.exc_info()[0] is not None:
        launcher.kill(signal.SIGTERM)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    launcher.close()


def path_of_python() -> str:
    """The folders from which this process imports."""
    return os.pathsep.join(entry for entry in sys.path if entry)


def say_global_batch(config: Mapping[str, Any], trainer: Trainer) -> None:
    """Print the number of samples in an optimiser step, where it is not `task.batch_size`.

    If the recipe states the number of processes behind its published batch, that is printed too.
    """
    size, parts = config["task"].get("batch_size"), trainer.accumulate_grad_batches
    own_steps = about(config["task"], "own_steps", False)
    if size is None or own_steps or not about(config["model"], "weights", True):
        return
    published = (config.get("recipe") or {}).get("published") or {}
    line = global_batch(int(size), trainer.world_size, int(parts), published)
    if line:
        print(line)


def global_batch(size: int, processes: int, parts: int, published: Mapping[str, int]) -> str:
    """The line of `say_global_batch`; empty where there is nothing to say.

    published: `batch_size`, of all processes together, and `processes`.
    """
    if processes * parts == 1:
        return ""
    factors = [f"task.batch_size={size}"]
    factors += [f"{processes} processes"] if processes > 1 else []
    factors += [f"{parts} accumulated batches"] if parts > 1 else []
    total = size * processes * parts
    line = f"global batch: {' x '.join(factors)} = {total} samples per step"
    intended = published.get("batch_size")
    if not intended:
        return line
    line += f"; the recipe was published with {intended}"
    if published.get("processes"):
        line += f" on {published['processes']} processes"
    fitting = intended % (processes * parts) == 0 and total != intended
    return line + (
        f", which is task.batch_size={intended // (processes * parts)} here" if fitting else ""
    )


class ProcessesWithoutGradients(DDPStrategy):
    """The process group and the launcher of DDP, without the wrapper that averages gradients.

    torch's DistributedDataParallel refuses a module that has no parameter with a gradient.
    """

    def configure_ddp(self) -> None:
        """Leave the module as it is."""


def strategy_for(task: LightningModule, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The strategy object to replace the trainer's word, where Lightning's own does not suit.

    Without anything to average, one that only starts and joins the processes; fsdp is FSDP2, while
    Lightning's word means the first FSDP, which no CPU can run.
    """
    strategy, devices = trainer.get("strategy"), trainer.get("devices")
    if not any(parameter.requires_grad for parameter in task.parameters()):
        several = (isinstance(devices, int) and devices > 1) or trainer.get("num_nodes", 1) > 1
        replaced = strategy in SEVERAL or (strategy == "auto" and several)
        return {"strategy": ProcessesWithoutGradients()} if replaced else {}
    if strategy == "deepspeed":
        check_deepspeed()
    if strategy != "fsdp":
        return {}
    from equipoise.running.sharding import ShardedNetwork, check_shardable

    check_shardable(task)
    return {"strategy": ShardedNetwork()}


def check_deepspeed() -> None:
    """Raise UserError where its package is missing."""
    if find_spec("deepspeed") is None:
        raise UserError(
            "strategy=deepspeed needs the package deepspeed: pip install 'equipoise[deepspeed]', "
            "or choose strategy=fsdp"
        )
