"""Parts that all models of sequences share."""

from __future__ import annotations

import torch

from equipoise.models.sequence import latest_steps


def test_the_latest_steps_have_no_graph() -> None:
    sequence = torch.arange(10.0, requires_grad=True).view(2, 5, 1)
    assert latest_steps(sequence, 2).flatten().tolist() == [3, 4, 8, 9]
    assert latest_steps(sequence, 9).shape == (2, 5, 1)
    assert latest_steps(sequence, 0).shape == (2, 0, 1)
    assert not latest_steps(sequence, 2).requires_grad
