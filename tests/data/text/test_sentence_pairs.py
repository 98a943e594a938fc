"""Pairs of sentences as padded batches, and the hash that identifies them."""

from __future__ import annotations

import hashlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from equipoise.data.sampling import BatchIndex
from equipoise.data.text.sentence_pairs import SentencePairs, TokenPairs, TokenSentences

END = 0
SENTENCE = st.lists(st.integers(1, 99), max_size=9).map(lambda tokens: [*tokens, END])


@given(st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=6))
def test_a_batch_holds_its_sentences_and_nothing_else(
    pairs: list[tuple[list[int], list[int]]],
) -> None:
    sources, targets = zip(*pairs, strict=True)
    split = TokenPairs(TokenSentences(sources), TokenSentences(targets), END)
    rows = torch.arange(len(split)).flip(0)
    batch = split[BatchIndex(0, rows)]
    assert batch["source"].shape == batch["present"].shape
    assert batch["tokens"].shape == batch["targets"].shape
    assert batch["source"].dtype == batch["targets"].dtype == torch.int64
    for place, row in enumerate(rows.tolist()):
        present, counted = batch["present"][place], batch["targets"][place] != -100
        assert batch["source"][place][present].tolist() == sources[row]
        assert batch["targets"][place][counted].tolist() == targets[row]
        assert batch["tokens"][place][counted].tolist() == [END, *targets[row][:-1]]
        assert (batch["source"][place][~present] == END).all()
        assert (batch["tokens"][place][~counted] == END).all()
    assert batch["present"].any(dim=0).all()
    assert torch.equal(batch["index"], rows)


def test_the_longer_side_of_a_pair_is_its_length() -> None:
    source, target = TokenSentences([[1, 2, END], [END]]), TokenSentences([[END], [3, END]])
    assert TokenPairs(source, target, END).lengths.tolist() == [3, 2]


def test_the_hash_is_that_of_lines_with_a_tab() -> None:
    pairs = SentencePairs(["ein Bär", "zwei"], ["a bear", "two"], "here")
    expected = hashlib.sha256("ein Bär\ta bear\nzwei\ttwo\n".encode()).hexdigest()
    assert pairs.sha256() == expected
    assert pairs.at([1, 0]).sha256() != expected
