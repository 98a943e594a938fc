"""Votes of nearest neighbours as the published code of Barlow-Twins-HSIC has counted them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from equipoise.tasks.nearest_neighbours import MemoryBank

ACCURACY, AMONG_FIVE = 78.33333333333333, 98.33333333333333


def test_scores_and_accuracies_are_what_was_recorded() -> None:
    with np.load(Path(__file__).parent / "knn.npz") as file:
        recorded = {name: torch.as_tensor(array) for name, array in file.items()}
    bank = MemoryBank(recorded["bank"], recorded["bank_labels"], 10, neighbours=20, temperature=0.5)
    scores = bank.scores(recorded["test"])
    torch.testing.assert_close(scores, recorded["scores"], rtol=1e-6, atol=1e-6)
    hits = scores.argsort(dim=1, descending=True) == recorded["test_labels"].unsqueeze(1)
    assert 100 * float(hits[:, 0].double().mean()) == ACCURACY
    assert abs(100 * float(hits[:, :5].double().sum(dim=1).mean()) - AMONG_FIVE) < 1e-9
