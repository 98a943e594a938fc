"""Words and characters as numbers: the published order, what is unknown, and back to text."""

from __future__ import annotations

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equipoise.data.text.vocabulary import (
    WINDOW,
    Characters,
    Subwords,
    TextStream,
    Vocabulary,
    Words,
    lines,
    vocabulary_from_state,
)
from equipoise.errors import UserError
from tests.data.text.text_writing import TRAIN


def test_words_are_ordered_by_frequency_then_first_appearance() -> None:
    words = Words.of("b a a c \n c b d\n a")
    assert words.symbols == ["<eos>", "a", "b", "c", "d", "<unk>"]


def test_the_files_own_unknown_word_keeps_its_place() -> None:
    words = Words.of("x <unk> <unk> <unk> x y\n")
    assert words.symbols == ["<eos>", "<unk>", "x", "y"]


def test_every_line_ends_with_eos_also_a_blank_one() -> None:
    words = Words.of(TRAIN)
    tokens, unknown = words.encode("\n the fox\n\n")
    assert [words.symbols[token] for token in tokens] == [
        "<eos>", "the", "fox", "<eos>", "<eos>",
    ]  # fmt: skip
    assert unknown == 0


def test_case_is_kept_and_a_new_word_is_unknown() -> None:
    words = Words.of(TRAIN)
    tokens, unknown = words.encode("Fox FOX fox")
    assert unknown == 1
    assert [words.symbols[token] for token in tokens] == ["Fox", "<unk>", "fox", "<eos>"]


def test_a_limit_keeps_the_most_frequent_words() -> None:
    assert Words.of("a a a b b c\n", limit=2).symbols == ["<eos>", "a", "b", "<unk>"]


def test_only_line_feeds_end_a_line() -> None:
    assert list(lines("a\u2028b\x85c\n\nd")) == ["a\u2028b\x85c", "", "d"]
    assert list(lines("a\n")) == ["a"]
    assert list(lines("")) == []


def test_words_come_back_line_by_line() -> None:
    words = Words.of(TRAIN)
    assert words.decode(words.encode("the fox\n\na dog").tokens.tolist()) == "the fox\n\na dog\n"


def test_characters_are_ordered_by_frequency_then_first_appearance() -> None:
    assert Characters.of("cab\nbb a").symbols == ["b", "a", "c", "\n", " ", "<unk>"]


@given(st.text(min_size=1))
def test_characters_of_the_training_text_come_back(text: str) -> None:
    text = "".join(c for c in text if not 0xD800 <= ord(c) < 0xE000) or "x"
    characters = Characters.of(text)
    tokens, unknown = characters.encode(text)
    assert unknown == 0
    assert characters.decode(tokens.tolist()) == text
    counts = torch.bincount(tokens.long()).tolist()
    assert counts == sorted(counts, reverse=True)


def test_characters_beyond_those_of_training_are_unknown() -> None:
    characters = Characters.of("abc")
    tokens, unknown = characters.encode("a\N{GREEK SMALL LETTER ALPHA}!c")
    assert unknown == 2
    assert tokens.tolist() == [0, 3, 3, 2]


@pytest.mark.parametrize("kind", [Words, Characters])
def test_a_vocabulary_survives_as_plain_values(kind: type[Words] | type[Characters]) -> None:
    made = kind.of(TRAIN)
    again = vocabulary_from_state(made.state())
    assert again.unit == made.unit
    assert len(again) == len(made)
    assert again.encode(TRAIN).tokens.tolist() == made.encode(TRAIN).tokens.tolist()


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="no vocabulary of unit 'syllable'"):
        vocabulary_from_state({"unit": "syllable", "symbols": []})


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


@given(st.lists(st.text(), max_size=5))
def test_sentences_end_once_whatever_they_say(sentences: list[str]) -> None:
    subwords = learnt()
    encoded = subwords.encode_sentences([*sentences, "a <eos> b"])
    for sentence, tokens in zip([*sentences, "a <eos> b"], encoded, strict=True):
        assert tokens.index(subwords.first) == len(tokens) - 1
        assert subwords.decode(tokens) == sentence
    assert subwords.first in subwords.encode("a <eos> b").tokens.tolist()


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


def pieces(vocabulary: Vocabulary, text: str) -> tuple[list[str], TextStream]:
    stream = TextStream(vocabulary)
    return [stream.add(token) for token in vocabulary.encode(text).tokens.tolist()], stream


def test_words_and_lines_come_one_by_one() -> None:
    shown, _ = pieces(Words.of(TRAIN), "the fox\n\na dog\n")
    assert shown == ["the", " fox", "\n", "\n", "a", " dog", "\n"]


def test_a_long_text_is_shown_whole_from_a_short_window() -> None:
    for vocabulary in (Words.of(TRAIN), Characters.of(TRAIN)):
        text = "the fox and the dog\na fox\n" * 20
        shown, stream = pieces(vocabulary, text)
        assert "".join(shown) == text
        assert len(stream.recent) <= WINDOW + 1
