"""Text that is shown while it comes is the text that comes."""

from __future__ import annotations

from text_writing import TRAIN

from equipoise.data.text_stream import WINDOW, TextStream
from equipoise.data.vocabulary import Characters, Vocabulary, Words


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
