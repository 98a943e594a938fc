"""Predicting the next token at every place of a segment, with a memory of earlier segments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from equipoise.errors import UserError
from equipoise.report.page import Picture
from equipoise.tasks.objective import MakeOptimizer
from equipoise.tasks.schedules import Schedule
from equipoise.tasks.token_objective import (
    IGNORED,
    SequenceOutput,
    TokenObjective,
    explaining_lack_of_memory,
)

MEMORY = "carried_memory"
MOST_PICTURED = 24
"""How many tokens of a text the pictures show."""


class BitsPerToken(MeanMetric):
    """The mean loss in bits."""

    def compute(self) -> Tensor:
        """The bits per token over the targets seen so far."""
        return super().compute() / math.log(2)


class UnigramEntropy(Metric):
    """-sum_w p(w) ln p(w) in nats, with p the frequencies of the targets that were seen.

    No model that ignores context can have a lower loss on the split.
    """

    counts: Tensor

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        counts = torch.zeros(vocabulary + 1, dtype=torch.long)
        self.add_state("counts", counts, dist_reduce_fx="sum")

    def update(self, targets: Tensor) -> None:
        """Count targets; those to be ignored are counted in a place of their own."""
        ignored = len(self.counts) - 1
        places = targets.masked_fill(targets == IGNORED, ignored).flatten()
        self.counts.scatter_add_(0, places, torch.ones_like(places))

    def compute(self) -> Tensor:
        """The entropy."""
        counts = self.counts[:-1].cpu().double()
        return torch.special.entr(counts / counts.sum()).sum()


class ExactMatch(MeanMetric):
    """The fraction of the sequences whose tokens are all predicted correctly."""

    def update(self, correct: Tensor) -> None:  # type: ignore[override]
        """Add whether each token is predicted correctly, (B, R)."""
        super().update(correct.all(dim=1).float())


class Carried(NamedTuple):
    """The memory of `streams` pieces of text, in the layout of the model."""

    streams: int
    memory: tuple[Tensor, ...]


class TokenPrediction(TokenObjective):
    """Trains any model `(tokens (B, T), memory) -> hidden (B, T, D), memory, auxiliary`.

    A batch holds tokens and targets (B, T), -100 for none, index (B,), and start, a bool
    scalar on the host: true where the streams begin. Otherwise the batch continues the latest one
    of its stage (train, val or test), and the model receives the memory that it returned for that.

    The loss, and what a checkpoint keeps of the vocabulary, are those of `TokenObjective`. A
    subclass adds metrics in `update_metrics`.

    A checkpoint holds the training memory of every process, so that a resumed run repeats the same
    bits; with another number of processes it resumes without memory. Raises UserError if the
    network has an encoder.
    """

    def __init__(self, model: nn.Module, make_optimizer: MakeOptimizer, schedule: Schedule) -> None:
        super().__init__(model, make_optimizer, schedule)
        if getattr(model, "encoder", None) is not None:
            raise UserError(
                f"{type(model).__name__} has an encoder, so it continues no text: leave out "
                "model.encoder_layers"
            )
        self.carried: dict[str, Carried] = {}
        self.loaded_memory: dict[str, Any] = {}
        self.beginning = torch.empty(0, dtype=torch.long)

    def forward(self, tokens: Tensor, memory: tuple[Tensor, ...] | None = None) -> SequenceOutput:
        """Tokens (B, T) and the memory of the previous segment -> the model's output."""
        output: SequenceOutput = self.model(tokens, memory)
        return output

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the validation metrics."""
        self._evaluate("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the test metrics, and keep the first tokens of the text for the pictures."""
        if not len(self.beginning):
            self.beginning = batch["tokens"][0, :MOST_PICTURED]
        self._evaluate("test", batch)

    def predict_step(self, batch: dict[str, Tensor], batch_index: int = 0) -> dict[str, Tensor]:
        """{"log_probability": ln p of each target (B, T), 0 for none} of the next segment."""
        output = self.advance("predict", batch)
        return {"log_probability": -self.token_losses(output.hidden, batch["targets"])}

    def pictures(self, folder: Path) -> list[Picture]:
        """Draw the attention on the first tokens, if offered; nothing without a test."""
        return self.attention_pictures(folder, self.beginning) if len(self.beginning) else []

    def update_metrics(
        self, stage: str, hidden: Tensor, losses: Tensor, batch: dict[str, Tensor]
    ) -> None:
        """Add a batch with the losses (B, T) of its targets, 0 for none."""
        counted = (batch["targets"] != IGNORED).to(losses.dtype)
        self.stage_metrics(stage)["loss"].update(losses, counted)

    def advance(self, stage: str, batch: dict[str, Tensor]) -> SequenceOutput:
        """Run the model on the next segment of a stage, and keep its memory."""
        tokens = batch["tokens"]
        with explaining_lack_of_memory(too_large(tokens)):
            output = self(tokens, carried_into(self.carried, stage, batch))
        memory = tuple(part.detach() for part in output.memory)
        self.carried[stage] = Carried(len(tokens), memory)
        return output

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """-ln p of each target, (B, T), 0 for none."""
        with explaining_lack_of_memory(too_large(targets)):
            return super().token_losses(hidden, targets)

    def on_train_start(self) -> None:
        """Restore the memory of an interrupted run, and refuse another vocabulary."""
        super().on_train_start()
        loaded, self.loaded_memory = self.loaded_memory, {}
        if loaded and loaded["processes"] == self.trainer.world_size:
            memory = tuple(part[self.global_rank].to(self.device) for part in loaded["memory"])
            self.carried["train"] = Carried(loaded["streams"], memory)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the memory of training, each part stacked over the processes."""
        carried = self.carried.get("train")
        if carried is not None:
            checkpoint[MEMORY] = {
                "processes": self.trainer.world_size,
                "streams": carried.streams,
                "memory": [self._of_all_processes(part) for part in carried.memory],
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the memory until the device is known."""
        self.loaded_memory = checkpoint.get(MEMORY, {})

    def _of_all_processes(self, part: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return part.unsqueeze(0)
        gathered = self.all_gather(part)
        assert isinstance(gathered, Tensor)
        return gathered

    def _evaluate(self, stage: str, batch: dict[str, Tensor]) -> None:
        data = getattr(self.trainer, "datamodule", None)
        with memory_length(self.model, getattr(data, "eval_memory_length", None)):
            output = self.advance(stage, batch)
        losses = self.token_losses(output.hidden, batch["targets"])
        self.update_metrics(stage, output.hidden, losses, batch)

    def _close(self, stage: str) -> None:
        self.carried.pop(stage, None)
        super()._close(stage)


def carried_into(
    memories: Mapping[str, Carried], stage: str, batch: Mapping[str, Tensor]
) -> tuple[Tensor, ...] | None:
    """The memory that a batch continues.

    None if its streams begin here, or if their number differs, as when a measurement takes a part
    of a batch. `start` is on the host, so that nothing waits for the device.
    """
    carried = memories.get(stage)
    if carried is None or bool(batch["start"]) or len(batch["tokens"]) != carried.streams:
        return None
    return carried.memory


@contextmanager
def memory_length(model: nn.Module, length: int | None) -> Iterator[None]:
    """Change the memory length within the `with` block; None, or a model without: no change."""
    if length is None or not hasattr(model, "memory_length"):
        yield
        return
    network = cast(Any, model)
    usual = network.memory_length
    network.memory_length = length
    try:
        yield
    finally:
        network.memory_length = usual


def too_large(tokens: Tensor) -> str:
    """What to lower if a segment (B, T) does not fit in memory."""
    return (
        f"A segment of {tokens.shape[1]} tokens in {tokens.shape[0]} streams does not fit in "
        "memory: lower task.segment_length, task.batch_size or task.memory_length."
    )
