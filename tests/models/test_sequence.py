"""Parts that all models of sequences share."""

from __future__ import annotations

import pytest
import torch

from equipoise.models.sequence import latest_steps, size_for_vocabulary

SIZES = {"tiny": 1, "small": 2, "wikitext103": 3}


def test_the_latest_steps_have_no_graph() -> None:
    sequence = torch.arange(10.0, requires_grad=True).view(2, 5, 1)
    assert latest_steps(sequence, 2).flatten().tolist() == [3, 4, 8, 9]
    assert latest_steps(sequence, 9).shape == (2, 5, 1)
    assert latest_steps(sequence, 0).shape == (2, 0, 1)
    assert not latest_steps(sequence, 2).requires_grad


@pytest.mark.parametrize(("vocabulary", "size"), [(100, 1), (1000, 1), (1001, 2), (267735, 3)])
def test_auto_goes_by_the_vocabulary(vocabulary: int, size: int) -> None:
    assert size_for_vocabulary("auto", vocabulary, SIZES) == size
    assert size_for_vocabulary("small", vocabulary, SIZES) == 2
