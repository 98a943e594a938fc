"""What objectives over tokens share: their loss, and the vocabulary that a checkpoint keeps."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from equipoise.data.text.vocabulary import BOUNDARY, vocabulary_from_state
from equipoise.errors import UserError
from equipoise.nn.over_processes import per_process
from equipoise.report.attention import draw_attention, draw_kernels
from equipoise.report.page import Picture
from equipoise.tasks.objective import MakeOptimizer, Objective
from equipoise.tasks.schedules import Schedule

IGNORED = -100
"""The target where there is nothing to predict."""
DISTANCES = 32
"""How far the pictures of positional kernels reach."""


class Perplexity(MeanMetric):
    """exp of the mean loss in nats."""

    def compute(self) -> Tensor:
        """The perplexity of the targets seen so far."""
        return super().compute().exp()


class SequenceOutput(Protocol):
    """What a model of token sequences returns; see `LanguageModelling`."""

    @property
    def hidden(self) -> Tensor:
        """The states (B, T, D) that the softmax reads."""
        ...

    @property
    def memory(self) -> tuple[Tensor, ...]:
        """The memory for the next segment."""
        ...

    @property
    def auxiliary(self) -> tuple[Tensor, ...]:
        """Further states that get a loss in training."""
        ...


class TokenObjective(Objective, ABC):
    """Trains any model that reads a softmax over a vocabulary from hidden states (B, T, D).

    A subclass runs the model in `advance`. A batch holds targets (B, T), -100 for none.

    loss = mean over the targets of -ln p + auxiliary_weight * the same for each auxiliary state,
    computed by the model's `token_losses(hidden, targets)`; a subclass may train on another loss.

    The vocabulary is part of the state dict, and a checkpoint is refused if the text has another
    one.
    """

    def __init__(self, model: nn.Module, make_optimizer: MakeOptimizer, schedule: Schedule) -> None:
        super().__init__(model, make_optimizer, schedule)
        self.vocabulary_state: dict[str, Any] = {}
        self.loaded_vocabulary: dict[str, Any] = {}

    @abstractmethod
    def advance(self, stage: str, batch: dict[str, Tensor]) -> SequenceOutput:
        """Run the model on a batch of a stage: train, val or test."""

    def setup(self, stage: str) -> None:
        """Take the vocabulary from the data module, if it has one."""
        tell = getattr(getattr(self.trainer, "datamodule", None), "vocabulary_state", None)
        self.vocabulary_state = {} if tell is None else tell()

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> dict[str, Tensor]:
        """The loss, with what regularisers and auxiliary states add, and its terms."""
        targets = batch["targets"]
        output = self.advance("train", batch)
        loss, token_loss = self.training_losses(output.hidden, targets)
        for hidden in output.auxiliary:
            weight = cast(float, self.model.auxiliary_weight)
            loss = loss + weight * self.training_losses(hidden, targets)[0]
        loss, terms = self.with_regularization(
            loss, lambda z: self.training_losses(self.readout(z), targets)[0]
        )
        return {"loss": loss, **self.training_terms(token_loss.detach()), **terms}

    def training_losses(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The training loss, and the mean of -ln p, which is the same here."""
        loss = self.mean_loss(hidden, targets)
        return loss, loss

    def training_terms(self, token_loss: Tensor) -> dict[str, Tensor]:
        """What the curve shows beside the loss, from the mean of -ln p of one batch."""
        return {}

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """-ln p of each target, (B, T), 0 for none."""
        losses: Tensor = self.model.token_losses(hidden, targets)  # type: ignore[operator]
        return losses

    def mean_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The mean of `token_losses` over the targets that count."""
        return self.token_losses(hidden, targets).sum() / counted(targets)

    def words(self, tokens: Tensor) -> list[str]:
        """Each token by itself as text, or its number if there is no vocabulary."""
        if not self.vocabulary_state:
            return [str(token) for token in tokens.tolist()]
        vocabulary = vocabulary_from_state(self.vocabulary_state)
        return [vocabulary.decode([token]) or BOUNDARY for token in tokens.tolist()]

    def attention_pictures(
        self, folder: Path, tokens: Tensor, source: Tensor | None = None
    ) -> list[Picture]:
        """Draw the attention on one sample and the learned kernels, if the model offers them.

        tokens (T,), and the source (S,) of a translation, without padding. A model may offer
        `attention_maps`, `kernel_profiles` and `kernel_widths`, as `KernelTransformer` does.
        """
        tokens = tokens.to(self.device)
        batch, words = [tokens.unsqueeze(0)], list[str]()
        if source is not None:
            source = source.to(self.device).unsqueeze(0)
            batch += [source, torch.ones_like(source, dtype=torch.bool)]
            words = self.words(source[0])
        offered = self.offered("attention_maps", *batch)
        maps = {name: weights[0] for name, weights in offered.items()}
        profiles = self.offered("kernel_profiles", DISTANCES)
        return [
            *draw_attention(folder, maps, words, self.words(tokens)),
            *draw_kernels(folder, profiles, self.offered("kernel_widths")),
        ]

    def on_train_start(self) -> None:
        """Refuse a checkpoint with another vocabulary."""
        self._refuse_other_vocabulary()

    def on_validation_start(self) -> None:
        """Refuse a checkpoint with another vocabulary."""
        self._refuse_other_vocabulary()

    def on_test_start(self) -> None:
        """Refuse a checkpoint with another vocabulary."""
        self._refuse_other_vocabulary()

    def get_extra_state(self) -> dict[str, Any]:
        """The vocabulary, without which nothing can be read back as text."""
        return {"vocabulary": self.vocabulary_state}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Keep the vocabulary of the checkpoint, to be compared with that of the text."""
        self.loaded_vocabulary = state["vocabulary"]

    def _refuse_other_vocabulary(self) -> None:
        loaded, present = self.loaded_vocabulary, self.vocabulary_state
        if loaded and present and loaded != present:
            raise UserError(
                f"the checkpoint was trained with another vocabulary ({_described(loaded)}) than "
                f"that of this text ({_described(present)}): give the text that it was trained on, "
                "or train again"
            )


def counted(targets: Tensor) -> Tensor:
    """How many targets count; in a training step, the mean over the processes; 1 if there are none.

    With this divisor, the average over the processes is the average over all targets.
    """
    count = per_process((targets != IGNORED).sum())
    return torch.where(count > 0, count, 1)


@contextmanager
def explaining_lack_of_memory(advice: str) -> Iterator[None]:
    """Raise UserError with `advice` on what to lower if memory does not suffice."""
    try:
        yield
    except RuntimeError as error:
        if not _is_lack_of_memory(error):
            raise
        raise UserError(advice) from error


def _is_lack_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _described(vocabulary: dict[str, Any]) -> str:
    """A vocabulary's size and unit, and its languages if it has any."""
    symbols = vocabulary.get("symbols") or json.loads(vocabulary["tokenizer"])["model"]["vocab"]
    languages = "".join(f", {language}" for language in vocabulary.get("languages", ()))
    return f"{len(symbols)} {vocabulary['unit']}s{languages}"
