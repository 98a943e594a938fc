"""The bundled language reference: the same text for every version of Python."""

from __future__ import annotations

import gzip
import importlib.resources
from pathlib import Path

import pytest
import torch

from equipoise.data.text import python_docs
from equipoise.data.text.files import consecutive_parts
from equipoise.data.text.python_docs import PythonDocs, language_reference
from equipoise.errors import UserError


def test_the_text_is_that_of_our_release_with_its_licence() -> None:
    text = language_reference()
    assert len(text) == 465_048
    assert len(set(text)) == 103
    assert text.startswith('The "assert" statement\n')
    folder = importlib.resources.files("equipoise.data.text").joinpath("python_docs_text")
    licence = folder.joinpath("LICENSE.txt").read_text(encoding="utf-8")
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in licence


def test_its_unigram_entropy_is_that_of_the_published_comparison() -> None:
    points = torch.tensor([ord(character) for character in language_reference()])
    shares = torch.bincount(points).double() / len(points)
    assert torch.special.entr(shares).sum() / torch.log(torch.tensor(2.0)) == pytest.approx(
        4.69, abs=0.005
    )


def test_the_parts_follow_each_other() -> None:
    data = PythonDocs()
    text = language_reference()
    decoded = [
        data.corpus.vocabulary.decode(data.corpus.splits[name].tokens.tolist())
        for name in ("train", "val", "test")
    ]
    assert len(decoded[0]) == len(text) - 2 * round(0.05 * len(text))
    assert [len(part) for part in decoded[1:]] == [round(0.05 * len(text))] * 2
    known = set(decoded[0])
    assert "".join(decoded) == "".join(c if c in known else "<unk>" for c in text)


def test_without_held_out_parts_the_neighbours_serve() -> None:
    assert consecutive_parts("abcdefghij", 0.0, 0.2) == {
        "train": "abcdefgh",
        "val": "ij",
        "test": "ij",
    }
    assert consecutive_parts("abcdefghij", 0.2, 0.0) == {
        "train": "abcdefgh",
        "val": "ij",
        "test": "ij",
    }


def test_fractions_that_leave_nothing_are_refused() -> None:
    with pytest.raises(UserError, match=r"set it to a number in \[0, 1\)"):
        PythonDocs(val_fraction=0.6, test_fraction=0.5)


@pytest.mark.parametrize(
    "packed", [b"nothing", gzip.compress(b"another text")], ids=["text", "gzip"]
)
def test_a_damaged_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bytes
) -> None:
    (tmp_path / "python_docs_text").mkdir()
    (tmp_path / "python_docs_text" / "topics.txt.gz").write_bytes(packed)
    monkeypatch.setattr(python_docs, "files", lambda package: tmp_path)
    with pytest.raises(UserError, match="reinstall equipoise"):
        language_reference.__wrapped__()
