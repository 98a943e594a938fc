"""Translation: trained with smoothed labels, judged by the output of beam search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from equipoise.data.text.vocabulary import Vocabulary, vocabulary_from_state
from equipoise.errors import UserError
from equipoise.models.beam_search import BeamSearch, EncoderDecoder, Hypothesis
from equipoise.report.page import Picture
from equipoise.tasks.objective import MakeOptimizer
from equipoise.tasks.schedules import Schedule
from equipoise.tasks.token_objective import (
    IGNORED,
    Perplexity,
    SequenceOutput,
    TokenObjective,
    counted,
    explaining_lack_of_memory,
)
from equipoise.tasks.translation_scores import (
    CORPUS_SCORES,
    corpus_scores,
    of_all_processes,
    sacrebleu,
    sample,
)


class Sentences(Protocol):
    """The data module: the sentences before they became tokens."""

    def sentences(self, split: str) -> Sequence[tuple[str, str]]:
        """Source and target of every pair of "val" or "test", in the order of their index."""
        ...

    def facts(self, split: str) -> dict[str, Any]:
        """Facts about a split that belong beside its results."""
        ...


class Translated(NamedTuple):
    """A test sentence (S,), its row, and the translation (T,) as the decoder has read it."""

    row: int
    source: Tensor
    tokens: Tensor


class Translation(TokenObjective):
    """Trains any encoder-decoder: see `EncoderDecoder` for what the network must offer.

    A batch holds source (B, S), present (B, S), false for padding, tokens (B, T), the decoder's
    input, targets (B, T), -100 for padding, and index (B,) into the data module's `sentences`.

    Training loss, a mean over the targets, with e = label_smoothing and K tokens in the vocabulary:
    (1 - e) (-ln p(target)) + e sum_k -ln p(k) / K. Metrics: loss, which is the mean of
    -ln p(target) in nats, and perplexity; for the translations, bleu and chrf by sacreBLEU, 0 to
    100, and exact_match, 0 to 1. Validation translates with a beam of one, the test with `beam` and
    `length_penalty` (see `BeamSearch`). `details` holds the signatures of the scores, `samples`
    translations of the test, and the data module's facts.

    Source: Szegedy et al. 2016 (arXiv 1512.00567), section 7, for the smoothing; Post 2018 (arXiv
    1804.08771) for the scores. Raises UserError if the network has no encoder, or sacreBLEU is
    not installed.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        label_smoothing: float = 0.1,
        beam: int = 5,
        length_penalty: float = 1.0,
        samples: int = 5,
    ) -> None:
        super().__init__(model, make_optimizer, schedule)
        check_encoder(model)
        sacrebleu()
        self.label_smoothing = label_smoothing
        self.beam, self.length_penalty = beam, length_penalty
        self.samples = samples
        self.metrics.update({stage: _loss_metrics() for stage in ("val", "test")})
        self.translations: dict[str, dict[int, str]] = {"val": {}, "test": {}}
        self.latest: dict[str, Any] = {}
        self.first: Translated | None = None
        self.vocabulary: Vocabulary

    @property
    def network(self) -> EncoderDecoder:
        """The model, with the type that decoding expects."""
        return cast(EncoderDecoder, self.model)

    def setup(self, stage: str) -> None:
        """Read the vocabulary of both languages once for all batches."""
        super().setup(stage)
        self.vocabulary = vocabulary_from_state(self.vocabulary_state)

    def advance(self, stage: str, batch: dict[str, Tensor]) -> SequenceOutput:
        """Encode the source, and decode the target up to each token."""
        source, present = batch["source"], batch["present"]
        with explaining_lack_of_memory(too_large(source)):
            encoded = self.network.encode(source, present)
            return self.network.decode(batch["tokens"], encoded, present)

    def training_losses(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The smoothed loss, and the mean of -ln p of the targets."""
        with explaining_lack_of_memory(too_large(targets)):
            scores = self.network.log_probabilities(hidden)
            counts = targets != IGNORED
            chosen = scores.gather(-1, targets.masked_fill(~counts, 0).unsqueeze(-1)).squeeze(-1)
            loss = -chosen.masked_fill(~counts, 0).sum() / counted(targets)
            uniform = -scores.mean(dim=-1).masked_fill(~counts, 0).sum() / counted(targets)
        return (1 - self.label_smoothing) * loss + self.label_smoothing * uniform, loss

    def training_terms(self, token_loss: Tensor) -> dict[str, Tensor]:
        """What the smoothing hides: -ln p of the targets, and its exponential."""
        return {"nll": token_loss, "perplexity": token_loss.exp()}

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the validation metrics, and translate by the most likely token."""
        self._evaluate("val", batch, beam=1)

    def test_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the test metrics, and translate with the beam."""
        self._evaluate("test", batch, self.beam)

    def on_test_start(self) -> None:
        """Refuse a checkpoint with another vocabulary, and forget the sentence to be drawn."""
        super().on_test_start()
        self.first = None

    def logged(self, stage: str) -> set[str]:
        """The names under which the metrics of "val" or "test" are logged."""
        return super().logged(stage) | {f"{stage}/{name}" for name in CORPUS_SCORES}

    def details(self) -> dict[str, Any]:
        """What makes the scores of the last test comparable, and some of its translations."""
        return self.latest

    def pictures(self, folder: Path) -> list[Picture]:
        """Draw what the network attends to in the first test sentence, if it offers that.

        Nothing without a test.
        """
        if self.first is None:
            return []
        _, source, tokens = self.first
        return self.attention_pictures(folder, tokens, source)

    def _evaluate(self, stage: str, batch: dict[str, Tensor], beam: int) -> None:
        encoded = self.network.encode(batch["source"], batch["present"])
        output = self.network.decode(batch["tokens"], encoded, batch["present"])
        losses = self.token_losses(output.hidden, batch["targets"])
        counts = (batch["targets"] != IGNORED).to(losses.dtype)
        for metric in self.stage_metrics(stage).values():
            metric.update(losses, counts)
        search = BeamSearch(self.vocabulary.first, beam, self.length_penalty)
        found = search(self.network, encoded, batch["present"])
        texts = [self.vocabulary.decode(hypothesis.tokens) for hypothesis in found]
        self.translations[stage] |= dict(zip(batch["index"].tolist(), texts, strict=True))
        if stage == "test":
            self._keep_first(batch, found)

    def _keep_first(self, batch: dict[str, Tensor], found: Sequence[Hypothesis]) -> None:
        """Keep the sentence of the smallest index so far, to be drawn."""
        place = int(batch["index"].argmin())
        row = int(batch["index"][place])
        if self.first is None or row < self.first.row:
            source = batch["source"][place][batch["present"][place]]
            tokens = [self.vocabulary.first, *found[place].tokens]
            self.first = Translated(row, source, torch.tensor(tokens, device=source.device))

    def _close(self, stage: str) -> None:
        """Log the scores of the translations of all processes, each sentence once."""
        texts = of_all_processes(self.translations[stage])
        self.translations[stage] = {}
        pairs = self._pairs().sentences(stage)
        references = [pairs[index][1] for index in texts]
        scores, signatures = corpus_scores(list(texts.values()), references)
        for name, score in scores.items():
            self.log(f"{stage}/{name}", score)
        if stage == "test":
            samples = [sample(pairs[index], text) for index, text in texts.items()]
            self.latest = self._described(signatures) | {"samples": samples[: self.samples]}
        super()._close(stage)

    def _described(self, signatures: Mapping[str, str]) -> dict[str, Any]:
        return {
            **self._pairs().facts("test"),
            "beam": self.beam,
            "length_penalty": self.length_penalty,
            "signatures": dict(signatures),
        }

    def _pairs(self) -> Sentences:
        data: Sentences = self.trainer.datamodule  # type: ignore[attr-defined]
        return data


def check_encoder(model: nn.Module) -> None:
    """Raise UserError if the network cannot translate."""
    if getattr(model, "encoder", None) is None:
        raise UserError(
            f"{type(model).__name__} has no encoder, so it cannot translate: leave out "
            "encoder_layers=0"
        )


def too_large(tokens: Tensor) -> str:
    """What to lower if a batch (B, T) does not fit in memory."""
    return (
        f"A batch of {tokens.shape[0]} sentences of {tokens.shape[1]} tokens does not fit in "
        "memory: lower task.batch_tokens or task.max_length."
    )


def _loss_metrics() -> nn.ModuleDict:
    return nn.ModuleDict({"loss": MeanMetric(), "perplexity": Perplexity()})
