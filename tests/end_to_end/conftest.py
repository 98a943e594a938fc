"""The real command line, in a process of its own, on a network small enough for a test."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ["model.channels=[8,8]", "model.head_channels=[2,4]", "model.final_channels=16",
         "model.groups=4", "solver.max_steps=4", "trainer.log_every_n_steps=1"]  # fmt: skip


def environment() -> dict[str, str]:
    # W&B leaves variables of its service in a process that has used it, as other tests do.
    inherited = {name: value for name, value in os.environ.items() if "WANDB" not in name}
    return {**inherited, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}


def heed_interrupts() -> None:
    """A test run in a shell's background ignores SIGINT, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def command(tmp_path):
    """Run train.py or evaluate.py in an empty folder; returns the completed process."""

    def run(script: str, *words: str, timeout: float = 240) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(ROOT / script), *words],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def start(tmp_path):
    """Start train.py, or evaluate.py, without waiting for it."""

    def begin(*words: str, script: str = "train.py") -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(ROOT / script), *words],
            cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, preexec_fn=heed_interrupts,
        )  # fmt: skip

    return begin
