"""The text tasks as a user runs them: composed, trained for a moment, evaluated, refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from equipoise.commands import exit_status, train
from equipoise.config.compose import compose
from equipoise.errors import UserError
from equipoise.report.summary import number, print_result
from equipoise.running.api import evaluate, run

TEXT = "the cat sat on the mat. the dog sat on the log.\n" * 60
OTHER = TEXT.upper()  # as many symbols, but others
SMALL = (
    "task.batch_size=4", "task.segment_length=16", "task.memory_length=16", "model.width=16",
    "model.inner_width=32", "model.heads=2", "solver.max_steps=6", "trainer.max_epochs=1",
    "logger=none",
)  # fmt: skip
TEXT_TASKS = ("wikitext103", "wikitext2", "ptb", "ptb_char", "python_docs", "text_folder")


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "book.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    path = write(folder / "text", TEXT)
    run("task=text_folder", f"task.path={path}", *SMALL, f"run_dir={folder / 'run'}")
    return folder


@pytest.mark.parametrize("task", [*TEXT_TASKS, "copy_memory"])
def test_every_text_task_brings_the_equilibrium_transformer(task: str) -> None:
    composition = compose([f"task={task}"])
    assert composition.choices["model"] == "deq_transformer"
    assert composition.config.task.monitor_mode == "min"


def test_a_model_that_was_typed_is_kept() -> None:
    assert compose(["task=python_docs", "model=transformer"]).choices["model"] == "transformer"


def test_a_run_tells_the_baseline_and_what_is_unknown(trained: Path) -> None:
    metrics = json.loads((trained / "run" / "metrics.json").read_text())
    assert metrics["status"] == "completed"
    assert set(metrics["test"]) == {"loss", "bits_per_character"}
    assert "bits_per_character" in metrics["train"]
    assert metrics["details"]["unigram_bits_per_character"] > 3
    assert metrics["details"]["out_of_vocabulary_rate"] == 0
    assert len(metrics["details"]["text_sha256"]) == 64


def test_the_baseline_and_the_unknown_share_are_printed(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = json.loads((trained / "run" / "metrics.json").read_text())
    print_result(metrics, trained / "run")
    printed = capsys.readouterr().out
    for name in ("unigram_bits_per_character", "out_of_vocabulary_rate", "tokens"):
        row = next(line for line in printed.splitlines() if f" {name} " in line)
        assert number(metrics["details"][name]) in row


def test_evaluation_may_remember_more_than_training(trained: Path) -> None:
    path = f"ckpt_path={trained / 'run' / 'checkpoints' / 'last.ckpt'}"
    short = evaluate(path, "task.eval_memory_length=0", f"run_dir={trained / 'short'}")
    long = evaluate(path, "task.eval_memory_length=40", f"run_dir={trained / 'long'}")
    assert short["test"]["loss"] != long["test"]["loss"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OTHER, "another vocabulary"),
        ("0123456789" * 9 + TEXT, "vocabulary of 26, but|another vocabulary"),
    ],
)
def test_a_checkpoint_is_refused_for_a_text_with_another_vocabulary(
    trained: Path, tmp_path: Path, text: str, said: str
) -> None:
    path = f"ckpt_path={trained / 'run' / 'checkpoints' / 'last.ckpt'}"
    changed = write(tmp_path / "text", text)
    with pytest.raises(UserError, match=said):
        evaluate(path, f"task.path={changed}", f"run_dir={tmp_path / 'run'}")
    with pytest.raises(UserError, match=said):
        evaluate(
            path, "task=text_folder", f"task.path={changed}", f"run_dir={tmp_path / 'again'}",
            "task.segment_length=16",
        )  # fmt: skip


def test_copying_tells_the_loss_without_memory(tmp_path: Path) -> None:
    metrics = run(
        "task=copy_memory", "task.length=5", "task.train_size=8", "task.val_size=4",
        "task.test_size=4", "task.batch_size=4", "model.width=16", "model.inner_width=32",
        "model.heads=2", "solver.max_steps=4", "trainer.max_epochs=1", "logger=none",
        f"run_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert set(metrics["test"]) == {"loss", "accuracy", "exact_match"}
    assert metrics["details"]["memoryless_loss"] == pytest.approx(10 * 2.0794 / 25, rel=1e-3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"caf\xe9 " * 100, "not valid UTF-8 at byte 3"),
        (b"short", "too few for one segment of 64 in 16 streams"),
        (None, "has no *.txt files"),
    ],
)
def test_bad_text_is_one_sentence_and_status_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
    said: str,
) -> None:
    if content is not None:
        (tmp_path / "book.txt").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    typed = ["task=text_folder", f"task.path={tmp_path}", "run_dir=run"]
    assert exit_status(train.main, typed) == 2
    written = capsys.readouterr()
    assert said in written.err
    assert written.err.count("\n") == 1
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_checkpoint_holds_plain_values_only(trained: Path) -> None:
    file = trained / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    vocabulary = content["state_dict"]["_extra_state"]["vocabulary"]
    assert vocabulary["unit"] == "character"
    assert vocabulary["symbols"][0] == " "
    assert content["carried_memory"]["streams"] == 4
