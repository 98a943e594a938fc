"""What is remembered counts for the accuracy, all tokens for the loss."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from recurrent import Recurrent
from test_token_prediction import trainer
from torch import Tensor, nn

from equipoise.data.text.copy_memory import CopyMemory
from equipoise.tasks import SequenceRecall
from equipoise.tasks.schedules import Constant


class Oracle(Recurrent):
    """Knows the sequence but says its last symbol wrongly for `wrong` of the sequences."""

    def __init__(self, wrong: int) -> None:
        super().__init__(10)
        self.wrong = wrong

    def forward(self, tokens: Tensor, memory: tuple[Tensor, ...] | None = None):
        assert memory is None
        answers = torch.zeros_like(tokens)
        answers[:, -10:] = tokens[:, :10]
        answers[: self.wrong, -1] = 0
        hidden = 20.0 * nn.functional.one_hot(answers, 10).float()
        return super().forward(tokens)._replace(hidden=hidden)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        return hidden.log_softmax(dim=-1)

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(hidden.transpose(1, 2), targets, reduction="none")


def test_accuracy_and_exact_match_are_those_of_the_recalled_part(tmp_path: Path) -> None:
    data = CopyMemory(length=7, batch_size=8, test_size=8)
    module = SequenceRecall(Oracle(wrong=2), torch.optim.SGD, Constant())
    (result,) = trainer(tmp_path, 1).test(module, data, verbose=False)
    assert result["test/accuracy"] == pytest.approx(78 / 80)
    assert result["test/exact_match"] == pytest.approx(6 / 8)
    assert result["test/loss"] == pytest.approx(20 * 2 / (8 * 27), rel=1e-3)
    assert module.details() == {"memoryless_loss": 10 * math.log(8) / 27}
