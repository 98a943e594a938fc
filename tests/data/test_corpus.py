"""What is known of an encoded text."""

from __future__ import annotations

import hashlib

import pytest

from equipoise.data.corpus import encode
from equipoise.data.vocabulary import Words


def test_a_split_is_encoded_with_its_hash_and_what_is_unknown() -> None:
    text = encode("a b \u00e9\n", Words.of("a b\n"), "notes")
    assert text.tokens.tolist() == [1, 2, 3, 0]
    assert text.unknown == 1
    assert text.out_of_vocabulary_rate == pytest.approx(1 / 4)
    assert text.characters == 6
    assert text.sha256 == hashlib.sha256("a b \u00e9\n".encode()).hexdigest()
    assert text.source == "notes"
