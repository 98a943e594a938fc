"""Weights that belong to another network are refused by the name of the first that differs."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from equipoise.errors import UserError
from equipoise.running.checkpoints import load_weights


class Task(LightningModule):
    """A network of one layer."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(2, width)


def test_weights_of_another_size_are_refused_by_name_and_shapes():
    with pytest.raises(UserError, match=r"layer\.weight \(\[5, 2\] there, \[3, 2\] here\)") as told:
        load_weights(Task(), Task(width=5).state_dict())
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["layer.weight", "other.weight"])
def test_missing_and_further_weights_are_refused_by_name(name):
    state = Task().state_dict()
    if name in state:
        del state[name]
    else:
        state[name] = torch.zeros(3)
    with pytest.raises(UserError, match=f"another network, which differs at {name}"):
        load_weights(Task(), state)


def test_counters_of_random_numbers_may_differ_and_weights_arrive():
    given = Task()
    load_weights(own := Task(), {**given.state_dict(), "layer._extra_state": torch.tensor(3)})
    torch.testing.assert_close(own.layer.weight, given.layer.weight)
