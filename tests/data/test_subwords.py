"""Byte-pair encoding: nothing is unknown, and every text comes back."""

from __future__ import annotations

import importlib

import pytest
from text_writing import TRAIN

from equipoise.data.subwords import Subwords
from equipoise.data.text_stream import TextStream
from equipoise.data.vocabulary import vocabulary_from_state
from equipoise.errors import UserError

FOREIGN = "na\u00efve \u2014 \u6f22\u5b57\n  two\n"


def learnt() -> Subwords:
    pytest.importorskip("tokenizers")
    return Subwords.of(TRAIN * 5, 300)


def test_any_text_comes_back() -> None:
    subwords = learnt()
    for text in (TRAIN, FOREIGN):
        tokens, unknown = subwords.encode(text)
        assert unknown == 0
        assert subwords.decode(tokens.tolist()) == text


def test_frequent_words_take_few_parts_and_the_size_is_kept() -> None:
    subwords = learnt()
    assert len(subwords) <= 300
    assert len(subwords.encode("the fox").tokens) < len("the fox") / 2


def test_it_survives_as_plain_values_and_is_learnt_the_same_way_again() -> None:
    subwords = learnt()
    again = vocabulary_from_state(subwords.state())
    assert again.encode(FOREIGN).tokens.tolist() == subwords.encode(FOREIGN).tokens.tolist()
    assert learnt().state() == subwords.state()


def test_characters_of_several_bytes_are_shown_whole() -> None:
    subwords = learnt()
    stream = TextStream(subwords)
    pieces = [stream.add(token) for token in subwords.encode(FOREIGN * 9).tokens.tolist()]
    assert "".join(pieces) == FOREIGN * 9
    assert not any("\ufffd" in piece for piece in pieces)


def test_too_few_parts_are_refused() -> None:
    with pytest.raises(UserError, match=r"task.subwords is 100: set it to 257 or more"):
        Subwords.of(TRAIN, 100)


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"pip install 'equipoise\[subword\]'"):
        Subwords.of(TRAIN, 300)
