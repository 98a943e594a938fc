"""Jobs side by side: how GPUs and cores are divided, and that no two jobs hold one place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from equipoise.config.compose import compose
from equipoise.running import side_by_side
from equipoise.running.side_by_side import PLACES, Share, described, share, take_place

ON_CPU = {"accelerator": "cpu", "devices": 1}
HOLD = """
import sys
from pathlib import Path
from equipoise.running.side_by_side import Share, take_place
import os
assert take_place(Share(2, 3, 3, ("0", "1")), Path(sys.argv[1]), lambda: True) or sys.exit(7)
names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "EQUIPOISE_CORES")
print(*(os.environ[name] for name in names), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Pretend to have so many cores and GPUs."""

    def pretend(cores: int, gpus: int = 0) -> None:
        monkeypatch.setattr(side_by_side, "cores", lambda: cores)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return pretend


@pytest.mark.parametrize(
    ("cores", "jobs", "typed", "expected"),
    [
        (8, 12, None, Share(8, 1, 1)),
        (8, 3, None, Share(3, 2, 2)),
        (8, None, None, Share(8, 1, 1)),
        (8, 12, 2, Share(2, 4, 4)),
        (8, 12, -1, Share(8, 1, 1)),
        (8, 12, -2, Share(7, 1, 1)),
        (2, 12, 4, Share(4, 1, 1)),
    ],
)
def test_the_cores_are_divided(machine, cores, jobs, typed, expected) -> None:
    machine(cores)
    assert share(ON_CPU, jobs, typed) == expected


def test_processes_of_a_job_divide_its_cores(machine) -> None:
    machine(8)
    assert share({"accelerator": "cpu", "devices": 2}, 12) == Share(4, 2, 1)


@pytest.mark.parametrize(
    ("devices", "typed", "gpus"),
    [
        ("auto", None, ("0", "1", "2", "3")),
        (1, 2, ("0", "1")),
        (2, None, ("0,1", "2,3")),
        (1, 6, ("0", "1", "2", "3", "0", "1")),
        (8, None, ("0,1,2,3",)),
    ],
)
def test_each_place_has_gpus_of_its_own(machine, devices, typed, gpus) -> None:
    machine(16, gpus=4)
    shared = share({"accelerator": "auto", "devices": devices}, 12, typed)
    assert shared.gpus == gpus
    assert shared.places == len(gpus)
    assert shared.cores == 16 // len(gpus)


def test_the_users_gpus_and_threads_are_kept_to(machine, monkeypatch) -> None:
    machine(16, gpus=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-77")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    shared = share({"accelerator": "gpu", "devices": 1}, 12)
    assert (shared.gpus, shared.threads) == (("5", "GPU-77"), None)
    assert described(shared) == "2 jobs at a time, each on its own of the GPUs 5, GPU-77"


def test_jobs_for_the_cores_leave_gpus_alone(machine) -> None:
    machine(4, gpus=4)
    shared = share(ON_CPU, 12)
    assert shared == Share(4, 1, 1)
    assert described(shared) == "4 jobs at a time, each with 1 core of 4 and 1 thread of torch"


def test_no_two_processes_hold_one_place(tmp_path: Path) -> None:
    """A place is free again when its process has ended, however that was."""

    def hold() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(tmp_path)]
        return subprocess.Popen(command, text=True, stdin=-1, stdout=-1)

    first, second = hold(), hold()
    told = sorted(process.stdout.readline().split() for process in (first, second))
    assert told == [["0", "3", "3"], ["1", "3", "3"]]
    with hold() as third:
        assert third.wait() == 7
    first.kill()
    first.communicate()
    with hold() as fourth:
        assert fourth.stdout.readline()
        fourth.communicate("")
    second.communicate("")
    side_by_side.remove_places(tmp_path)
    assert not (tmp_path / PLACES).exists()


def test_loaders_of_a_job_keep_to_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["task=cityscapes", "model=mdeq"]
    monkeypatch.setattr("equipoise.config.machine.cores", lambda: 8)
    assert compose(words).config.task.num_workers == 7
    monkeypatch.setenv("EQUIPOISE_CORES", "2")
    assert compose(words).config.task.num_workers == 1
    assert compose([*words, "task.num_workers=3"]).config.task.num_workers == 3


def test_threads_that_torch_has_already_are_divided_too(tmp_path, monkeypatch) -> None:
    for name in ("OMP_NUM_THREADS", "EQUIPOISE_CORES"):
        monkeypatch.setenv(name, "5")  # so that they are what they were afterwards
    before = torch.get_num_threads()
    try:
        assert take_place(Share(1, 4, 2), tmp_path)
        assert torch.get_num_threads() == 2
        assert (os.environ["OMP_NUM_THREADS"], os.environ["EQUIPOISE_CORES"]) == ("2", "4")
    finally:
        torch.set_num_threads(before)


def test_a_job_waits_for_no_place_in_a_sweep_that_has_ended(tmp_path: Path) -> None:
    assert os.environ.get("EQUIPOISE_CORES") is None
    assert not take_place(Share(0, 1, 1), tmp_path, lambda: True)
