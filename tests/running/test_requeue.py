"""An interrupted job of Slurm is requeued where Lightning would; `scontrol` is a script here."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from equipoise.commands import exit_status, train
from equipoise.running.build import build_run
from equipoise.running.requeue import job_id, requeue
from tests.end_to_end.resuming import checkpoint
from tests.end_to_end.test_resumed_run import WORDS

JOB = {
    "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1",
}  # fmt: skip


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a fake scontrol writes what it is asked."""
    file, script = tmp_path / "asked", tmp_path / "bin" / "scontrol"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {file}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return file


def in_slurm(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in {**JOB, **variables}.items():
        monkeypatch.setenv(name, value)


class SignalAt(Callback):
    """Sends a signal to this process at the start of the fourth batch, or of the first test."""

    def __init__(self, number: signal.Signals, stage: str) -> None:
        self.number = number
        setattr(self, f"on_{stage}_batch_start", self.send)

    def send(self, trainer: Any, module: Any, batch: Any, index: int, *_: Any) -> None:
        if trainer.testing or index == 3:
            os.kill(os.getpid(), self.number)


def status_after(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, *words: str, stage: str = "train"
) -> int:
    """The exit status of a training that is sent a signal."""

    def with_signal(*args: Any) -> Any:
        built = build_run(*args)
        built.trainer.callbacks.insert(0, SignalAt(number, stage))  # type: ignore[attr-defined]
        return built

    with monkeypatch.context() as patched:
        patched.setattr("equipoise.running.build.build_run", with_signal)
        return exit_status(train.main, [*WORDS, *words, "run_dir=run", "trainer.max_epochs=1"])


@pytest.mark.end_to_end
@pytest.mark.parametrize("stage", ["train", pytest.param("test", marks=pytest.mark.slow)])
def test_a_job_that_slurm_preempts_is_saved_and_requeued(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, stage: str
) -> None:
    in_slurm(monkeypatch)
    assert status_after(monkeypatch, signal.SIGUSR1, "resume=auto", stage=stage) == 138
    assert asked.read_text() == "requeue 4711\n"
    assert checkpoint(Path("run"))["global_step"] == {"train": 4, "test": 5}[stage]
    assert "the job 4711 was requeued" in capfd.readouterr().err
    words = [*WORDS, "run_dir=run", "trainer.max_epochs=1", "resume=auto"]
    assert exit_status(train.main, words) == 0
    assert checkpoint(Path("run"))["global_step"] == 5
    assert not list(Path().rglob("hpc_ckpt*"))


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("number", "name", "status"),
    [
        (signal.SIGTERM, "train", 143),
        pytest.param(signal.SIGUSR1, None, 138, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, "interactive", 138, marks=pytest.mark.slow),
    ],
)
def test_nothing_else_is_requeued(
    asked: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    name: str | None,
    status: int,
) -> None:
    """Another signal, outside Slurm, and a session of which Lightning takes no notice."""
    if name is not None:
        in_slurm(monkeypatch, SLURM_JOB_NAME=name)
    assert status_after(monkeypatch, number) == status
    assert not asked.exists()
    assert checkpoint(Path("run"))["global_step"] == 4


def test_a_task_of_an_array_is_requeued_by_itself(
    asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_slurm(monkeypatch, SLURM_ARRAY_JOB_ID="4700", SLURM_ARRAY_TASK_ID="3")
    assert "4700_3 was requeued" in requeue()
    assert asked.read_text() == "requeue 4700_3\n"


@pytest.mark.parametrize("job", ["", "4711; rm -rf /", "-1"])
def test_what_is_no_number_is_handed_to_nobody(
    asked: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    in_slurm(monkeypatch, SLURM_JOB_ID=job)
    assert job_id() is None
    assert "was not requeued" in requeue()
    assert not asked.exists()


def test_a_refusal_is_told(asked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_slurm(monkeypatch)
    script = tmp_path / "bin" / "scontrol"
    script.write_text("#!/bin/sh\necho 'Job/step already\ncompleting' >&2; exit 1\n")
    assert requeue() == "the job 4711 could not be requeued: Job/step already completing"
    script.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "could not be requeued: [Errno 2]" in requeue()
