"""Beam search for the best translation, token by token, of many sentences at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from equipoise.models.sequence import SequenceOutput


class EncoderDecoder(Protocol):
    """What beam search requires of a network that translates."""

    def encode(self, source: Tensor, present: Tensor) -> Tensor:
        """Sentences (B, S), and which places are not padding, -> what the decoder attends to."""
        ...

    def decode(
        self,
        tokens: Tensor,
        encoded: Tensor,
        present: Tensor,
        memory: tuple[Tensor, ...] | None = None,
    ) -> SequenceOutput:
        """The hidden states (B, T, D) of tokens (B, T), and the memory of all positions so far."""
        ...

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) -> log probabilities (..., V)."""
        ...


class Hypothesis(NamedTuple):
    """A translation without its boundary, and its score; no tokens and -inf if none is found."""

    tokens: list[int]
    score: float


@dataclass(frozen=True)
class BeamSearch:
    """Searches for the sequence of greatest score: its log probability / length^length_penalty.

    boundary: the token that begins and ends a sequence; the length counts it once. A sentence has
    `beam` places for its most likely continuations; a sequence that ends keeps its place. The
    search for a sentence is over when all places hold finished sequences, when no beginning can
    reach the best score any more, or at 2 S + 10 tokens for a source of S, where only the boundary
    may follow. With a beam of 1 this is greedy search.

    Each step feeds one token per beginning to the network and reorders its memory. A finished
    sentence leaves the batch, and no result depends on the other sentences of the batch.

    Source: Sutskever et al. 2014 (arXiv 1409.3215), section 3.2. The length penalty is that of
    fairseq (Ott et al. 2019, arXiv 1904.01038, `lenpen`), not the (5 + length) / 6 of Wu et al.
    2016 (arXiv 1609.08144, eq. 14). fairseq ends a search at `beam` finished sequences, however
    unlikely they are; beginnings that are sentences themselves then displace the whole sentence.
    """

    boundary: int
    beam: int = 5
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError for a beam below 1 or a negative penalty."""
        if self.beam < 1 or self.length_penalty < 0:
            raise ValueError(
                f"beam must be at least 1 and length_penalty at least 0, got {self.beam} and "
                f"{self.length_penalty}"
            )

    @torch.no_grad()
    def __call__(self, model: EncoderDecoder, encoded: Tensor, present: Tensor) -> list[Hypothesis]:
        """The best translation of each sentence; encoded (B, S, D) and present (B, S)."""
        running = Running.of(self, encoded, present)
        while len(running.rows):
            scores = self._continued(model, running)
            self._finish(running, scores)
            self._continue(running, scores)
        return running.best

    def _continued(self, model: EncoderDecoder, running: Running) -> Candidates:
        """The most likely continuations of every sentence, as many as it has free places."""
        output = model.decode(
            running.tokens[:, -1:], running.encoded, running.present, running.memory
        )
        running.memory = output.memory
        scores = model.log_probabilities(output.hidden[:, -1])
        scores = scores.to(running.scores.dtype).nan_to_num(nan=-math.inf, neginf=-math.inf)
        vocabulary = scores.shape[-1]
        scores = scores.view(len(running.rows), self.beam, vocabulary)
        at_limit = (running.limits == running.length).view(-1, 1, 1)
        other = torch.arange(vocabulary, device=scores.device) != self.boundary
        scores = scores.masked_fill(at_limit & other, -math.inf) + running.scores.unsqueeze(-1)
        best, places = scores.flatten(1).topk(self.beam, dim=1)
        ranks = torch.arange(self.beam, device=scores.device)
        best = best.masked_fill(ranks >= running.free.unsqueeze(1), -math.inf)
        return Candidates(best, places // vocabulary, places % vocabulary)

    def _finish(self, running: Running, candidates: Candidates) -> None:
        """Keep the best of those that end here."""
        ends = (candidates.tokens == self.boundary) & (candidates.scores > -math.inf)
        running.free = running.free - ends.sum(dim=1)
        scores = candidates.scores / (running.length + 1) ** self.length_penalty
        scores, places = scores.masked_fill(~ends, -math.inf).max(dim=1)
        better = scores > running.best_scores
        running.best_scores = torch.where(better, scores, running.best_scores)
        origins = candidates.origins.gather(1, places.unsqueeze(1)).squeeze(1)
        running.keep(better, scores, origins, self.beam)

    def _continue(self, running: Running, candidates: Candidates) -> None:
        """Take the most likely continuations that do not end, of the sentences not yet done."""
        open_scores = candidates.scores.masked_fill(candidates.tokens == self.boundary, -math.inf)
        scores, places = open_scores.sort(dim=1, descending=True, stable=True)
        attainable = scores[:, 0] / (running.limits + 1) ** self.length_penalty
        going = ~((running.best_scores >= attainable) | (running.limits == running.length))
        first = torch.arange(len(running.rows), device=scores.device).unsqueeze(1) * self.beam
        origins = (first + candidates.origins.gather(1, places))[going].flatten()
        tokens = candidates.tokens.gather(1, places)[going].view(-1, 1)
        running.go_on(going, origins, tokens, scores[going])


class Candidates(NamedTuple):
    """Continuations of each sentence by falling score, (B, beam): their beginnings and tokens."""

    scores: Tensor
    origins: Tensor
    tokens: Tensor


@dataclass
class Running:
    """A running search: for each unfinished sentence (B), `beam` beginnings, one after another.

    rows (B,): the places of the sentences in the result. limits (B,): on the tokens before the
    boundary. scores (B, beam): log probabilities of the beginnings, -inf for none. tokens
    (B * beam, 1 + length), encoded and present (B * beam, ...), and the memory after those tokens.
    free (B,): the places without a finished sequence. best_scores (B,): of the finished ones.
    """

    rows: Tensor
    limits: Tensor
    scores: Tensor
    tokens: Tensor
    encoded: Tensor
    present: Tensor
    free: Tensor
    best_scores: Tensor
    best: list[Hypothesis]
    memory: tuple[Tensor, ...] | None = None

    @classmethod
    def of(cls, search: BeamSearch, encoded: Tensor, present: Tensor) -> Running:
        """Begin with the boundary alone."""
        device, sentences, beam = encoded.device, len(encoded), search.beam
        dtype = torch.promote_types(encoded.dtype, torch.float32)
        scores = torch.full((sentences, beam), -math.inf, dtype=dtype, device=device)
        scores[:, 0] = 0  # the others would repeat the same beginning
        return cls(
            rows=torch.arange(sentences, device=device),
            limits=2 * present.sum(dim=1) + 10,
            scores=scores,
            tokens=torch.full((sentences * beam, 1), search.boundary, device=device),
            encoded=encoded.repeat_interleave(beam, dim=0),
            present=present.repeat_interleave(beam, dim=0),
            free=torch.full((sentences,), beam, device=device),
            best_scores=torch.full((sentences,), -math.inf, dtype=dtype, device=device),
            best=[Hypothesis([], -math.inf)] * sentences,
        )

    @property
    def length(self) -> int:
        """How many tokens the beginnings have, the boundary not counted."""
        return self.tokens.shape[1] - 1

    def keep(self, better: Tensor, scores: Tensor, origins: Tensor, beam: int) -> None:
        """Record finished sequences that are better than any before."""
        places: Sequence[int] = better.nonzero().flatten().tolist()
        for place in places:
            tokens = self.tokens[place * beam + int(origins[place]), 1:].tolist()
            self.best[int(self.rows[place])] = Hypothesis(tokens, float(scores[place]))

    def go_on(self, going: Tensor, origins: Tensor, tokens: Tensor, scores: Tensor) -> None:
        """Keep only the sentences that are `going`, extending each beginning by one of `tokens`."""
        self.rows, self.limits, self.scores = self.rows[going], self.limits[going], scores
        self.free, self.best_scores = self.free[going], self.best_scores[going]
        self.tokens = torch.cat([self.tokens[origins], tokens], dim=1)
        if not bool(going.all()):
            self.encoded, self.present = self.encoded[origins], self.present[origins]
        assert self.memory is not None
        self.memory = tuple(part[origins] for part in self.memory)
