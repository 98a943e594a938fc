"""The words of `predict`: which name the run, what to read and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise import commands
from equipoise.commands.predict import parse
from equipoise.errors import UserError


@pytest.mark.parametrize(
    ("words", "run", "files", "output"),
    [
        (["run", "a.png", "out.csv"], "run", ["a.png"], "out.csv"),
        (["run", "a.png", "b", "out.npz", "top=2"], "run", ["a.png", "b"], "out.npz"),
        (["run", "a.png"], "run", ["a.png"], "predictions.csv"),
        (["run", "a.png", "b.png", "output=out.csv"], "run", ["a.png", "b.png"], "out.csv"),
        (["run", "out.csv", "split=test"], "run", [], "out.csv"),
        (["run", "split=val"], "run", [], "predictions.csv"),
        (["ckpt_path=run", "s.csv", "output=out.csv"], "run", ["s.csv"], "out.csv"),
        (["ckpt_path=run", "s.csv"], "run", ["s.csv"], "predictions.csv"),
    ],
)
def test_words_in_their_order_and_in_the_older_form(
    words: list[str], run: str, files: list[str], output: str
) -> None:
    request, found = parse(words)
    assert (request.ckpt_path, found, request.output) == (run, [Path(f) for f in files], output)


def test_words_with_an_equals_sign_in_a_folder_are_files() -> None:
    words = ["a/lr=1/s.csv", "ckpt_path=x=1/best.ckpt", "overwrite", "trust=[mine]", "b.csv"]
    request, found = parse(words)
    assert found == [Path("a/lr=1/s.csv"), Path("b.csv")]
    assert (request.ckpt_path, request.overwrite, request.trust) == (
        "x=1/best.ckpt",
        True,
        ("mine",),
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "a.png", "b.png"], "predict writes a table, .csv or .npz, and cannot write b.png"),
        (["run", "a.png", "top=0"], "predict: top=0 must be 1 or more"),
        (["run", "split=train"], "predict: split=train must be val or test"),
        (["run", "a.png", "damaged=ignore"], "predict: damaged=ignore must be error or skip"),
        (["run", "a.png", "overlays=no"], "overlays=no is not of the default's type"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(words)
    assert said in str(caught.value)


def test_help_shows_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.exit_status(commands.run, ["predict", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "predict <run or checkpoint> <files or folder> out.csv [setting=value ...]" in shown
    for setting in ("ckpt_path=", "output=", "overwrite ", "batch_size=", "device=", "trust=",
                    "split=", "top=", "damaged=", "overlays=", "workers=", "pairs=", "max_pairs=",
                    "beam=", "length_penalty="):  # fmt: skip
        assert f" {setting}" in shown
