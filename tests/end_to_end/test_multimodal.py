"""Whole runs on three streams: their metrics, pictures and evaluations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from equipoise.errors import UserError
from equipoise.running.api import evaluate, run
from equipoise.tasks.multimodal_scores import SENTIMENT_SCORES, emotion_score_names
from tests.data.multimodal.published_writing import emotions, write

SMALL = ("model.width=8", "model.heads=2", "model.layers=1", "trainer.max_epochs=1",
         "task.batch_size=10", "callbacks.progress=null", "trainer.enable_progress_bar=false",
         "trainer.log_every_n_steps=1")  # fmt: skip
TRIMODAL = ("task=trimodal", "task.train_size=40", "task.val_size=10", "task.test_size=25", *SMALL)
EMOTIONS = ("neutral", "happy", "sad", "angry")

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
]


def drawn(folder: Path) -> set[str]:
    return {file.name for file in (folder / "report").glob("*.png")}


def reread(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentiment") / "run"
    run(*TRIMODAL, "schedule=plateau", "task.objective.samples=2", f"run_dir={folder}")
    return folder


def test_a_run_reports_every_score_and_draws_its_pictures(sentiment: Path) -> None:
    metrics = reread(sentiment)
    for stage in ("val", "test"):
        assert set(metrics[stage]) == {"loss", *SENTIMENT_SCORES}
        assert all(math.isfinite(value) for value in metrics[stage].values())
    assert metrics["test"]["loss"] == metrics["test"]["mae"]
    assert metrics["details"]["samples"] == 25
    assert metrics["details"]["trained_on"] == "mean absolute error"
    of_attention = {f"crossmodal_attention_{number}.png" for number in (1, 2)}
    assert {"sentiment.png"} | of_attention <= drawn(sentiment)
    assert "crossmodal_attention_3.png" not in drawn(sentiment)
    page = (sentiment / "report" / "index.html").read_text()
    assert "the mean over the heads of the last layer" in page


@pytest.mark.parametrize("size", [10, 7])
def test_an_evaluation_reproduces_the_test_whatever_the_batch(
    sentiment: Path, size: int, tmp_path: Path
) -> None:
    found = evaluate(
        f"ckpt_path={sentiment}/checkpoints/best.ckpt", f"task.eval_batch_size={size}",
        f"run_dir={tmp_path / 'tested'}",
    )  # fmt: skip
    assert found["test"] == pytest.approx(reread(sentiment)["test"], abs=1e-6)
    assert "sentiment.png" in drawn(tmp_path / "tested")


@pytest.mark.parametrize(
    "typed", ["heads=4", "causal=false", "key_padding_mask=true", "equilibrium=true"]
)
def test_another_network_of_the_same_weights_is_refused(sentiment: Path, typed: str) -> None:
    with pytest.raises(UserError, match=f"model.{typed}: the network of .* was trained with"):
        evaluate(f"ckpt_path={sentiment}/checkpoints/best.ckpt", f"model.{typed}")


def test_one_modality_alone_and_the_equilibrium_draw_what_they_attend_to(tmp_path: Path) -> None:
    alone = ("model.modalities=[audio]", "task.objective.samples=1")
    run(*TRIMODAL, *alone, f"run_dir={tmp_path / 'alone'}")
    run(*TRIMODAL, "model.equilibrium=true", "solver.max_steps=4", "task.objective.samples=1",
        f"run_dir={tmp_path / 'equilibrium'}")  # fmt: skip
    for name in ("alone", "equilibrium"):
        assert "crossmodal_attention_1.png" in drawn(tmp_path / name)


def test_emotions_are_judged_one_by_one(tmp_path: Path) -> None:
    file = write(tmp_path, emotions(), "iemocap_data_noalign.pkl")
    metrics = run("task=iemocap", f"task.path={file}", *SMALL, f"run_dir={tmp_path / 'run'}")
    assert set(metrics["test"]) == {"loss", *emotion_score_names(EMOTIONS)}
    of_each = [metrics["test"][f"accuracy_{name}"] for name in EMOTIONS]
    assert metrics["test"]["accuracy"] == pytest.approx(sum(of_each) / 4, abs=1e-6)
    assert "emotions.png" in drawn(tmp_path / "run")


@pytest.mark.slow
def test_two_processes_judge_the_whole_split(sentiment: Path, command: Any, tmp_path: Path) -> None:
    words = (f"ckpt_path={sentiment}/checkpoints/best.ckpt", f"run_dir={tmp_path / 'both'}")
    done = command("evaluate.py", *words, "strategy=ddp_cpu", "trainer.devices=2")
    assert done.returncode == 0, done.stderr
    assert reread(tmp_path / "both")["test"] == pytest.approx(reread(sentiment)["test"], abs=1e-6)
