"""Sharded training through the command line: ordinary checkpoints, and the steps of one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import equipoise
from tests.end_to_end.conftest import SMALL
from tests.end_to_end.test_two_processes import losses

DIGITS = (
    *SMALL, "trainer.limit_train_batches=4", "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=2", "trainer.max_epochs=2", "callbacks.report=null",
    "callbacks.progress=null", "trainer.enable_progress_bar=false", "trainer.precision=64-true",
)  # fmt: skip
CLIPPED = ("trainer.gradient_clip_val=0.05", "trainer.accumulate_grad_batches=2")

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
]


def metrics(folder: Path) -> dict[str, Any]:
    """What metrics.json tells."""
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def weights(folder: Path) -> dict[str, Any]:
    """The parameters in last.ckpt, which has to be one file of whole tensors."""
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    state: dict[str, Any] = checkpoint["state_dict"]
    tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
    assert all(type(v) is torch.Tensor for v in tensors.values())
    return tensors


@pytest.mark.slow
def test_checkpoints_are_those_of_one_process(command, tmp_path: Path) -> None:
    words = (*DIGITS, *CLIPPED, "trainer.sync_batchnorm=true")
    done = command("train.py", *words, "strategy=fsdp_cpu", "task.batch_size=8", "run_dir=two")
    assert done.returncode == 0, done.stderr
    assert "task.batch_size=8 x 2 processes x 2 accumulated batches = 32 samples" in done.stdout
    equipoise.run(*words, "strategy=cpu", "task.batch_size=16", f"run_dir={tmp_path / 'one'}")
    one, two = tmp_path / "one", tmp_path / "two"
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    torch.testing.assert_close(weights(two), weights(one), rtol=1e-4, atol=1e-6)
    best = two / "checkpoints" / "best.ckpt"
    assert metrics(two)["details"]["tested_checkpoint"] == "best.ckpt"
    tested = equipoise.evaluate(  # as many samples in a batch as in those of both processes
        f"ckpt_path={best}", "strategy=cpu", "task.batch_size=16", f"run_dir={tmp_path / 'e'}"
    )
    assert tested["test"] == pytest.approx(metrics(two)["test"], rel=1e-5)
    assert equipoise.load(str(best)).training is False


@pytest.mark.slow
def test_a_run_is_resumed_by_any_number_of_processes(command, tmp_path: Path) -> None:
    words = (*DIGITS, "trainer.sync_batchnorm=true", "schedule=constant")
    two = (*words, "strategy=fsdp_cpu", "task.batch_size=8")
    for more in (("run_dir=whole",), ("run_dir=half", "trainer.max_epochs=1")):
        done = command("train.py", *two, *more)
        assert done.returncode == 0, done.stderr
    last = f"ckpt_path={tmp_path}/half/checkpoints/last.ckpt"
    for name, more in (
        ("again", ()),
        ("averaged", ("strategy=ddp_cpu",)),
        ("alone", ("strategy=cpu", "task.batch_size=16")),
    ):
        done = command("train.py", last, "trainer.max_epochs=2", *more, f"run_dir={name}")
        assert done.returncode == 0, done.stderr
        torch.testing.assert_close(
            weights(tmp_path / name), weights(tmp_path / "whole"), rtol=1e-4, atol=1e-6, msg=name
        )
        assert metrics(tmp_path / name)["steps"] == 8


@pytest.mark.slow
def test_half_precision_is_a_plain_choice(command, tmp_path: Path) -> None:
    for strategy in ("fsdp_cpu", "ddp_cpu"):
        done = command("train.py", *DIGITS[:-1], "trainer.precision=bf16-mixed", *CLIPPED,
                       f"strategy={strategy}", f"run_dir={strategy}")  # fmt: skip
        assert done.returncode == 0, done.stderr
    sharded, averaged = (losses(tmp_path / name) for name in ("fsdp_cpu", "ddp_cpu"))
    assert sharded == pytest.approx(averaged, rel=1e-2)
