"""`convert-multimodal` on real files, as it is typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from equipoise import commands
from equipoise.data import Iemocap, Mosi
from equipoise.errors import UserError
from tests.data.multimodal.published_writing import emotions, sentiment, write


def test_it_writes_beside_the_pickle_what_a_run_then_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = sentiment("float64")
    content["train"]["audio"][0, 0, :2] = -np.inf
    file = write(tmp_path, content)
    assert commands.run(["convert-multimodal", str(file)]) == 0
    result = capsys.readouterr()
    assert "samples: train 12, val 4, test 6, each with a score of sentiment" in result.out
    assert "language 5 x 6, audio 9 x 3, vision 7 x 4 (steps x features)" in result.out
    assert "values that 0 replaces in train: 2 of audio" in result.out
    assert "writing: 100%" in result.err
    target = tmp_path / "mosi_data_noalign.safetensors"
    assert f"task.path={target}" in result.out
    file.unlink()
    assert Mosi(path=str(tmp_path)).inspect() == {"features": [6, 3, 4], "lengths": [5, 9, 7]}


def test_it_writes_emotions_where_it_is_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = emotions()
    content["test"]["text"][0, 0, 0] = np.nan
    words = ["convert-multimodal", str(write(tmp_path, content)), str(tmp_path / "x.safetensors")]
    with pytest.raises(UserError, match=r"'text' of 'test' .* --non-finite zero"):
        commands.run(words)
    assert commands.run([*words, "--non-finite", "zero"]) == 0
    printed = capsys.readouterr().out
    assert "each with 4 emotions" in printed
    assert "values that 0 replaces in test: 1 of language" in printed
    assert Iemocap(path=str(tmp_path / "x.safetensors")).inspect()["lengths"] == [5, 9, 7]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.pkl"], "nothing.pkl does not exist: give the published pickle"),
        (["."], "is a folder: give the published pickle"),
        (["mosi_data_noalign.pkl", "x.pt"], "x.pt must end in .safetensors"),
        (["mosi_data_noalign.pkl", "there.safetensors"], "there.safetensors already exists"),
        (["mosi_data_noalign.pkl", "--non-finite", "keep"], "invalid choice: 'keep'"),
        (["there.safetensors", "x.safetensors"], "is not a whole pickle"),
    ],
)
def test_what_cannot_be_done_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, sentiment())
    (tmp_path / "there.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match=message):
        commands.run(["convert-multimodal", *words])
    assert not (tmp_path / "x.safetensors").exists()
