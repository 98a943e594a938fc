"""At most the processes that the machine has room for, and who decides among several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from equipoise.config import machine
from equipoise.config.compose import compose
from equipoise.config.machine import check_devices, decides, number_of
from equipoise.errors import UserError

CORES = machine.cores()


@pytest.mark.parametrize("accelerator", ["cpu", "auto", "gpu", "cuda"])
@pytest.mark.parametrize("devices", [10**9, "1000000000", str(list(range(500)))[1:-1]])
def test_more_devices_than_there_are_are_refused(accelerator: str, devices: Any) -> None:
    with pytest.raises(UserError, match="is too many: this machine has"):
        check_devices({"accelerator": accelerator, "devices": devices})


@pytest.mark.parametrize("devices", [1, CORES, "1", "auto", -1, "-1"])
def test_what_is_there_may_be_used(devices: Any) -> None:
    check_devices({"accelerator": "cpu", "devices": devices})


@pytest.mark.parametrize("devices", [0, -2, "0", []])
def test_no_device_is_refused(devices: Any) -> None:
    with pytest.raises(UserError, match="must be 1 or more, or auto"):
        check_devices({"accelerator": "cpu", "devices": devices})


def test_numbers_of_devices() -> None:
    assert [number_of(d) for d in (2, "2", "0,1", [3, 4], "auto", -1, None, True)] == [
        2, 2, 2, 2, None, None, None, None,
    ]  # fmt: skip


def test_nodes_are_waited_for_only_where_something_starts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in machine.OF_A_CLUSTER:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="start the command with srun or torchrun"):
        compose(["trainer.num_nodes=2"])
    monkeypatch.setenv("SLURM_NNODES", "2")
    compose(["trainer.num_nodes=2"])
    with pytest.raises(UserError, match="more than the 2 of this Slurm job"):
        compose(["trainer.num_nodes=3"])


def test_typed_workers_are_refused_and_a_default_is_lowered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    assert compose(["task=imagenet"]).config.task.num_workers == 1
    assert compose(["task=imagenet", "task.num_workers=1"]).config.task.num_workers == 1
    with pytest.raises(UserError, match="num_workers=3 is too many: this machine has 2 cores"):
        compose(["task=imagenet", "task.num_workers=3"])


@pytest.mark.parametrize(
    ("cores", "gpus", "trainer", "workers"),
    [
        (1, "", {"devices": 1}, 0),
        (2, "", {"devices": "auto"}, 1),
        (4, "0", {"devices": "auto"}, 3),
        (8, "0,1", {"devices": "auto"}, 3),
        (8, "0,1", {"devices": "auto", "accelerator": "cpu"}, 7),
        (8, "0,1,2,3", {"devices": 2}, 3),
        (8, "-1", {"devices": "auto"}, 7),
        (64, "0,1,2,3,4,5,6,7", {"devices": -1}, 7),
        (64, "0", {"devices": [0]}, 16),
        (2, "", {"devices": 2, "accelerator": "cpu"}, 1),
    ],
)
def test_default_workers_are_what_the_cores_leave_to_each_process(
    cores: int, gpus: str, trainer: dict[str, Any], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    config = {"trainer": {"accelerator": "auto", **trainer}, "task": {"num_workers": 16}}
    machine.check_processes(config, ())
    assert config["task"]["num_workers"] == workers
    config["task"]["num_workers"] = 0
    machine.check_processes(config, ())
    assert config["task"]["num_workers"] == 0


def test_gpus_are_counted_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "DRIVER", tmp_path)
    assert machine.gpus() == 0
    (tmp_path / "0000:01:00.0").mkdir()
    assert machine.gpus() == 1
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "missing")
    assert machine.gpus() == 0


@pytest.mark.parametrize(
    ("environment", "trainer", "first"),
    [
        ({}, {"devices": 2, "strategy": "ddp"}, True),
        ({"RANK": "1"}, {"devices": 2, "strategy": "ddp"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, {"devices": 2, "strategy": "auto"}, False),
        ({"NODE_RANK": "1"}, {"devices": 1, "num_nodes": 2, "strategy": "auto"}, False),
        ({"SLURM_PROCID": "1"}, {"devices": "auto", "strategy": "ddp"}, False),
        ({"SLURM_PROCID": "1"}, {"devices": 1, "strategy": "auto"}, True),  # runs side by side
    ],
)
def test_the_first_process_of_a_shared_run_decides(
    environment: dict[str, str],
    trainer: dict[str, Any],
    first: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert decides(trainer) is first
