"""What of a batch goes to the device."""

from __future__ import annotations

import torch

from equipoise.data.sequence_data_module import SequenceDataModule


def test_all_but_start_is_moved() -> None:
    batch = {"tokens": torch.zeros(2, 3), "index": torch.zeros(2), "start": torch.tensor(True)}
    moved = SequenceDataModule().transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert {name: value.device.type for name, value in moved.items()} == {
        "tokens": "meta", "index": "meta", "start": "cpu",
    }  # fmt: skip
    assert moved["start"]
