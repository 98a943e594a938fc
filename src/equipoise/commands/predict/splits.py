"""Batches of a split of the data that a run was trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from equipoise.data.loading import Batch
from equipoise.data.module import SplitName
from equipoise.errors import UserError
from equipoise.running.loaded import Loaded
from equipoise.running.surroundings import check_data

STAGES = {"val": "validate", "test": "test"}


def split_batches(model: Loaded, split: str, batch_size: int | None) -> tuple[Iterable[Batch], int]:
    """The batches of a split, "val" or "test", as the run has evaluated them; and its samples.

    Raises UserError where the data are not on this machine.
    """
    check_data(model.config["task"])
    data: Any = model.data
    if batch_size is not None:
        data.eval_batch_size = batch_size
    data.setup(STAGES[split])
    if not hasattr(data, "splits"):
        raise UserError(f"predict: the data of task={model.choices['task']} have no splits to read")
    loader = data.test_dataloader() if split == "test" else data.val_dataloader()
    return cast(Iterable[Batch], loader), len(data.splits[cast(SplitName, split)])
