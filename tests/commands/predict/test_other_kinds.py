"""Texts, sentences, surveys, rows and streams: what `predict` writes is what their tests find."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import equipoise
from equipoise import commands
from equipoise.data.text.vocabulary import vocabulary_from_state
from equipoise.errors import UserError

QUIET = ("callbacks.progress=null", "callbacks.report=null", "logger=none")
TEXT = "the cat sat on the mat. the dog sat on the log.\n" * 40
Row = dict[str, str]


def train(folder: Path, *words: str) -> Path:
    equipoise.run(*words, *QUIET, f"run_dir={folder}")
    return folder


def predicted(run: Path, output: Path, *words: object) -> list[Row]:
    assert commands.run(["predict", str(run), *map(str, words), str(output)]) == 0
    with output.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    (folder / "book.txt").write_text(TEXT)
    return train(
        folder / "run", "task=text_folder", f"task.path={folder / 'book.txt'}", "task.batch_size=4",
        "task.segment_length=16", "task.memory_length=16", "model.width=16", "model.inner_width=32",
        "model.heads=2", "trainer.max_epochs=1", "solver.max_steps=8",
    )  # fmt: skip


def test_every_token_of_a_text_has_the_probability_of_the_runs_test(
    text_run: Path, tmp_path: Path
) -> None:
    model = equipoise.load(text_run)
    vocabulary = vocabulary_from_state(model.task.loaded_vocabulary)
    test = vocabulary.decode(model.data.corpus.splits["test"].tokens.tolist())
    (tmp_path / "text.txt").write_text(test)
    found = predicted(text_run, tmp_path / "out.csv", tmp_path / "text.txt")
    metrics = json.loads((text_run / "metrics.json").read_text())["test"]
    logarithms = [float(row["log_probability"]) for row in found]
    assert -np.mean(logarithms) == pytest.approx(metrics["loss"], abs=1e-4)
    assert "".join(row["token"] for row in found) == test[1:]
    assert [row["position"] for row in found[:2]] == ["1", "2"]
    assert all(float(row["residual"]) > 0 for row in found)
    first = found[0]
    assert math.exp(float(first["log_probability"])) == pytest.approx(
        float(first["probability"]), rel=1e-4
    )


def test_a_text_with_nothing_to_predict_is_refused(text_run: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("t")
    for words, said in (
        ([tmp_path / "one.txt"], r"one\.txt has 1 tokens: the first one is not predicted"),
        ([tmp_path], r"predict takes one file of text, not "),
        ([tmp_path / "one.txt", "split=test"], "predict: split does nothing for task=text_folder"),
    ):
        with pytest.raises(UserError, match=said):
            predicted(text_run, tmp_path / "out.csv", *words)
    assert not (tmp_path / "out.csv").exists()


def test_sentences_are_translated_line_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(
        tmp_path / "run", "task=number_words", "trainer.max_steps=2", "task.train_size=300",
        "task.val_size=20", "task.test_size=20", "model.width=16", "model.inner_width=32",
        "model.layers=1", "task.encoder_layers=1",
    )  # fmt: skip
    lines = tmp_path / "lines.txt"
    lines.write_text("one hundred and two\n\ntwenty\n")
    found = predicted(run, tmp_path / "out.csv", lines, "beam=2", "batch_size=2")
    assert [(row["line"], row["source"]) for row in found] == [
        ("1", "one hundred and two"), ("2", ""), ("3", "twenty"),
    ]  # fmt: skip
    assert found[1]["translation"] == ""
    assert "3 lines, " in capsys.readouterr().out
    lines.write_text("")
    with pytest.raises(UserError, match="is empty: it needs one sentence per line"):
        predicted(run, tmp_path / "other.csv", lines)


def test_a_survey_answers_a_file_of_conditions(tmp_path: Path) -> None:
    run = train(
        tmp_path / "run", "task=range_query", "task.users=2000", "task.domain=[16]",
        "task.repeats=1",
    )  # fmt: skip
    file = tmp_path / "conditions.txt"
    file.write_text("attribute_0 in [0, 4)\n\nattribute_0 in [4, 16)\n")
    found = predicted(run, tmp_path / "out.csv", file)
    assert [row["condition"] for row in found] == [
        "attribute_0 in [0, 4)", "attribute_0 in [4, 16)",
    ]  # fmt: skip
    assert sum(float(row["fraction"]) for row in found) == pytest.approx(1, abs=0.05)
    file.write_text("attribute_0 in [0, 4)\nage in [1, 2)\n")
    with pytest.raises(UserError, match=r"^line 2 of .*conditions.txt: the survey has no attribut"):
        predicted(run, tmp_path / "other.csv", file)
    with pytest.raises(UserError, match="has no network to load"):
        equipoise.load(run)


def test_rows_of_a_file_have_the_classes_of_the_test(tmp_path: Path) -> None:
    run = train(tmp_path / "run", "task=hyperparameter", "trainer.max_epochs=2")
    accuracy = json.loads((run / "metrics.json").read_text())["test"]["accuracy"]
    split = predicted(run, tmp_path / "split.csv", "split=test")
    hits = [row["label"] == row["target"] for row in split]
    assert np.mean(hits) == pytest.approx(accuracy)
    from sklearn.datasets import dump_svmlight_file, load_breast_cancer

    bunch = load_breast_cancer()
    chosen = [int(row["row"]) for row in split]
    features, labels = bunch.data[chosen], bunch.target[chosen]
    dump_svmlight_file(features, labels, str(tmp_path / "rows.txt"), zero_based=False)
    found = predicted(run, tmp_path / "out.csv", tmp_path / "rows.txt")
    assert [row["label"] for row in found] == [row["label"] for row in split]
    assert [row["target"] for row in found] == [row["target"] for row in split]
    (tmp_path / "wide.txt").write_text("7 1:2 31:4\n")
    with pytest.raises(UserError, match="has 31 columns, and the model was trained on 30"):
        predicted(run, tmp_path / "other.csv", tmp_path / "wide.txt")


def test_streams_have_the_scores_of_the_test(tmp_path: Path) -> None:
    run = train(
        tmp_path / "run", "task=trimodal", "trainer.max_steps=2", "trainer.limit_val_batches=1",
        "task.train_size=100", "task.test_size=100",
        "model.equilibrium=true", "solver.max_steps=4",
    )  # fmt: skip
    found = predicted(run, tmp_path / "out.csv", "split=test")
    loss = json.loads((run / "metrics.json").read_text())["test"]["loss"]
    errors = [abs(float(row["sentiment"]) - float(row["target"])) for row in found]
    assert np.mean(errors) == pytest.approx(loss, rel=1e-4)
    assert {"residual", "converged"} <= set(found[0])
    with pytest.raises(UserError, match="give split=test instead of files"):
        predicted(run, tmp_path / "other.csv", tmp_path)


def test_what_predicts_nothing_of_single_samples_says_so(tmp_path: Path) -> None:
    run = train(
        tmp_path / "run", "task=copy_memory", "trainer.max_steps=1", "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=1", "task.length=20", "model.width=16",
    )  # fmt: skip
    (tmp_path / "text.txt").write_text("text")
    with pytest.raises(UserError, match="has no vocabulary"):
        predicted(run, tmp_path / "out.csv", tmp_path / "text.txt")
    assert torch.is_tensor(next(equipoise.load(run).parameters()))
