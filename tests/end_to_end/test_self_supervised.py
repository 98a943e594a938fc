"""From learning without labels to a probe and a classifier, through the command line's own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import equipoise
from equipoise.errors import UserError
from tests.end_to_end.resuming import TASKS

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
    pytest.mark.filterwarnings("ignore:the embeddings are collapsing"),
]
QUIET = ("~callbacks.progress", "trainer.enable_progress_bar=false", "callbacks.report=null")
SHORT = ("trainer.max_steps=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1")
MULTISCALE = ("channels=[4,4]", "head_channels=[2,2]", "final_channels=8", "groups=2")
VIEWS = ("task=ssl_digits", *TASKS["ssl_digits"], *QUIET, *SHORT, "task.objective.untrained=false")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "checkpoints" / "last.ckpt"
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("residual") / "run"
    equipoise.run(*VIEWS, f"run_dir={folder}")
    return folder


@pytest.fixture(scope="module")
def multiscale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("multiscale") / "run"
    words = [word for word in VIEWS if word != "model.encoder.size=tiny"]
    sizes = (f"model.encoder.{word}" for word in MULTISCALE)
    equipoise.run(*words, "encoder=mdeq", *sizes, "solver.max_steps=3", f"run_dir={folder}")
    return folder


def probed(run: Path, folder: Path, *words: str) -> dict[str, Any]:
    return equipoise.evaluate(
        f"ckpt_path={run}/checkpoints/last.ckpt", "task=linear_probe", "task.objective.epochs=1",
        f"run_dir={folder}", *words,
    )  # fmt: skip


@pytest.mark.parametrize("augment", ["true", "false"])
@pytest.mark.parametrize("batch_norm", ["frozen", "published"])
def test_a_probe_of_a_checkpoint_tells_its_protocol(
    residual: Path, tmp_path: Path, augment: str, batch_norm: str
) -> None:
    words = (f"task.objective.augment={augment}", f"task.objective.batch_norm={batch_norm}")
    metrics = probed(residual, tmp_path / "probe", *words)
    assert set(metrics["test"]) == {"loss", "accuracy"}
    assert 0 <= metrics["test"]["accuracy"] <= 1
    protocol = metrics["details"]["protocol"]
    assert ("not augmented" in protocol) is (augment == "false")
    assert ("resulting running statistics" in protocol) is (batch_norm == "published")
    if (augment, batch_norm) == ("true", "published"):
        again = probed(residual, tmp_path / "again", *words)
        assert again["test"] == metrics["test"]


def test_an_equilibrium_is_solved_for_in_training_and_in_a_probe(
    multiscale: Path, tmp_path: Path
) -> None:
    metrics = json.loads((multiscale / "metrics.json").read_text())
    assert (metrics["solver"], metrics["gradient"]) == ("anderson", "phantom")
    assert metrics["solver_stats"]["nfe_mean"] > 1
    found = probed(multiscale, tmp_path / "probe", "task.objective.augment=false")
    assert 0 <= found["test"]["accuracy"] <= 1


def test_a_residual_classifier_starts_from_the_encoder(residual: Path, tmp_path: Path) -> None:
    equipoise.run(
        "task=digits", "model=resnet", "model.size=tiny", *QUIET, *SHORT, "optimizer=sgd",
        "optimizer.lr=1e-12", f"model.backbone_ckpt={residual}/checkpoints/last.ckpt",
        f"run_dir={tmp_path / 'tuned'}",
    )  # fmt: skip
    check_started_from(residual, tmp_path / "tuned", "model.stages.1.1.conv2.weight")


def test_a_multiscale_classifier_starts_from_the_encoder(multiscale: Path, tmp_path: Path) -> None:
    equipoise.run(
        "task=digits", "model=mdeq", *(f"model.{word}" for word in MULTISCALE), *QUIET, *SHORT,
        "solver.max_steps=3", "optimizer=sgd", "optimizer.lr=1e-12",
        f"model.backbone_ckpt={multiscale}/checkpoints/last.ckpt", f"run_dir={tmp_path / 'tuned'}",
    )  # fmt: skip
    learned = [n for n in weights(tmp_path / "tuned") if n.startswith("model.cell.")]
    check_started_from(multiscale, tmp_path / "tuned", *learned)


def check_started_from(encoder: Path, tuned: Path, *names: str) -> None:
    """With a rate of next to nothing, the weights are still those of the encoder."""
    ours, theirs = weights(tuned), weights(encoder)
    assert names
    for name in names:
        stored = theirs[name.replace("model.", "model.encoder.", 1)]
        torch.testing.assert_close(ours[name], stored, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_two_processes_learn_and_judge_together(tmp_path: Path) -> None:
    metrics = equipoise.run(*VIEWS, "strategy=ddp_cpu", f"run_dir={tmp_path / 'two'}")
    assert (metrics["status"], metrics["steps"]) == ("completed", 2)
    assert {"knn_accuracy", "linear_probe_accuracy"} <= set(metrics["test"])


def test_a_probe_keeps_the_split_of_the_training(residual: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task\.val_fraction=0\.3 draws another split"):
        probed(residual, tmp_path / "probe", "task.val_fraction=0.3")
