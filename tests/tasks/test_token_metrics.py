"""Metrics of tokens against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.text import Perplexity as PerplexityOfScores

from equipoise.tasks.token_metrics import BitsPerToken, ExactMatch, Perplexity, UnigramEntropy


def test_perplexity_and_bits_agree_with_those_of_the_scores() -> None:
    scores, targets = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5))
    targets[0, 2] = -100
    losses = torch.nn.functional.cross_entropy(scores.mT, targets, reduction="none")
    counted = (targets != -100).float()
    perplexity, bits, reference = Perplexity(), BitsPerToken(), PerplexityOfScores(-100)
    for half in (slice(0, 1), slice(1, 3)):  # of different sizes
        perplexity.update(losses[half], counted[half])
        bits.update(losses[half], counted[half])
        reference.update(scores[half], targets[half])
    assert perplexity.compute() == pytest.approx(float(reference.compute()), rel=1e-5)
    assert 2 ** bits.compute() == pytest.approx(float(perplexity.compute()), rel=1e-5)


def test_unigram_entropy_is_that_of_the_targets_seen() -> None:
    entropy = UnigramEntropy(5)
    entropy.update(torch.tensor([[0, 0, 1], [2, -100, -100]]))
    entropy.update(torch.tensor([[0, 3, -100]]))
    shares = (3 / 6, 1 / 6, 1 / 6, 1 / 6)
    assert float(entropy.compute()) == pytest.approx(-sum(p * math.log(p) for p in shares))


def test_a_sequence_matches_when_all_its_tokens_do() -> None:
    match = ExactMatch()
    match.update(torch.tensor([[True, True], [True, False]]))
    match.update(torch.tensor([[True, True], [True, True]]))
    assert match.compute() == 0.75
