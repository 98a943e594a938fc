"""The best translation of a small made-up network, found, and found alone as in company."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from equipoise.models.beam_search import BeamSearch, Hypothesis
from equipoise.models.sequence import SequenceOutput

EVERY = 8192  # beginnings and endings of two symbols up to the limit of one source token
WIDTH = 6


class MadeUp(nn.Module):
    """Every beginning and every source has a distribution of its own, drawn once.

    Its memory holds what each earlier position contributed.
    """

    def __init__(self, seed: int, vocabulary: int = 3, sharpness: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.source, self.target = drawn(9, WIDTH), drawn(60, vocabulary, WIDTH)
        self.scores = sharpness * drawn(WIDTH, vocabulary)
        self.steps: list[int] = []

    def encode(self, source: Tensor, present: Tensor) -> Tensor:
        return self.source[source]

    def decode(
        self,
        tokens: Tensor,
        encoded: Tensor,
        present: Tensor,
        memory: tuple[Tensor, ...] | None = None,
    ) -> SequenceOutput:
        self.steps.append(len(tokens))
        (earlier,) = memory or (encoded.new_empty(len(tokens), 0, WIDTH),)
        places = earlier.shape[1] + torch.arange(tokens.shape[1])
        positions = torch.cat([earlier, self.target[places, tokens]], dim=1)
        summed = positions.cumsum(dim=1)[:, earlier.shape[1] :]
        attended = (encoded * present.unsqueeze(-1)).sum(dim=1, keepdim=True)
        return SequenceOutput(torch.tanh(summed + attended), (positions,))

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        return torch.log_softmax(hidden @ self.scores, dim=-1)


Table = dict[tuple[int, ...], tuple[float, ...]]
GARDEN_PATH: Table = {
    (): (0.1, 0.5, 0.4, 0.0), (1,): (0.3, 0.3, 0.3, 0.1), (2,): (0.0, 0.0, 0.1, 0.9),
    (2, 3): (1.0, 0.0, 0.0, 0.0),
}  # fmt: skip
"""1 is the likelier beginning, but 2 leads to the likelier sequence, 2 3."""
BEGINNINGS: Table = {(1,) * length: (0.1, 0.9, 0.0, 0.0) for length in range(6)}
BEGINNINGS[(1,) * 6] = (1.0, 0.0, 0.0, 0.0)
"""1 1 1 1 1 1 is likely, and each of its beginnings, less likely, is a sequence too."""


class Tabulated(MadeUp):
    """The probabilities of what follows each beginning, those of others alike."""

    def __init__(self, table: Table) -> None:
        super().__init__(0)
        self.table = table

    def decode(
        self,
        tokens: Tensor,
        encoded: Tensor,
        present: Tensor,
        memory: tuple[Tensor, ...] | None = None,
    ) -> SequenceOutput:
        self.steps.append(len(tokens))
        (earlier,) = memory or (encoded.new_empty(len(tokens), 0, 1),)
        kept = torch.cat([earlier, tokens.unsqueeze(-1).to(earlier)], dim=1)
        return SequenceOutput(kept.transpose(1, 2), (kept,))

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        beginnings = [tuple(int(token) for token in row[1:]) for row in hidden]
        flat = (0.25, 0.25, 0.25, 0.25)
        return torch.tensor([self.table.get(row, flat) for row in beginnings]).double().log()


def searched(model: MadeUp, source: list[list[int]], padding: int = 0, **how: object):
    """The best translation of each source, padded to a common length and `padding` more."""
    length = max(map(len, source)) + padding
    tokens = torch.tensor([row + [8] * (length - len(row)) for row in source])
    present = torch.arange(length) < torch.tensor([[len(row)] for row in source])
    search = BeamSearch(0, **how)  # type: ignore[arg-type]
    return search(model, model.encode(tokens, present), present)


def score(model: MadeUp, source: list[int], tokens: list[int], penalty: float) -> float:
    """That of a whole sequence, read at once."""
    present = torch.ones(1, len(source), dtype=torch.bool)
    encoded = model.encode(torch.tensor([source]), present)
    hidden = model.decode(torch.tensor([[0, *tokens]]), encoded, present).hidden
    ending = torch.tensor([[*tokens, 0]])
    scores = model.log_probabilities(hidden).gather(2, ending.unsqueeze(-1))
    return float(scores.sum()) / (len(tokens) + 1) ** penalty


def best_of_all(model: MadeUp, source: list[int], penalty: float) -> Hypothesis:
    """The best of all sequences up to the limit, each scored by itself."""
    every = (
        list(tokens)
        for length in range(2 * len(source) + 11)
        for tokens in itertools.product((1, 2), repeat=length)
    )
    return max((Hypothesis(tokens, score(model, source, tokens, penalty)) for tokens in every),
               key=lambda found: found.score)  # fmt: skip


@pytest.mark.parametrize(("seed", "penalty"), [(0, 0.0), (1, 1.0), (2, 2.5)])
def test_a_beam_of_all_beginnings_finds_the_best_of_all_sequences(
    seed: int, penalty: float
) -> None:
    model = MadeUp(seed)
    (found,) = searched(model, [[3]], beam=EVERY, length_penalty=penalty)
    best = best_of_all(model, [3], penalty)
    assert found.tokens == best.tokens
    assert found.score == pytest.approx(best.score, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([0.0, 0.6, 1.0, 1.5]))
def test_the_score_is_that_of_the_whole_sequence(seed: int, beam: int, penalty: float) -> None:
    model = MadeUp(seed, vocabulary=6)
    (found,) = searched(model, [[3, 1]], beam=beam, length_penalty=penalty)
    assert found.score == pytest.approx(score(model, [3, 1], found.tokens, penalty), abs=1e-10)
    assert 0 not in found.tokens
    assert len(found.tokens) <= 14


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_a_beam_of_one_takes_the_most_likely_token(seed: int, source: list[int]) -> None:
    model = MadeUp(seed, vocabulary=6, sharpness=2.0)
    present = torch.ones(1, len(source), dtype=torch.bool)
    encoded = model.encode(torch.tensor([source]), present)
    tokens = [0]
    while len(tokens) <= 2 * len(source) + 10:
        hidden = model.decode(torch.tensor([tokens]), encoded, present).hidden
        tokens.append(int(model.log_probabilities(hidden[:, -1]).argmax()))
        if tokens[-1] == 0:
            break
    (found,) = searched(model, [source], beam=1)
    assert found.tokens == [token for token in tokens[1:] if token != 0]


def test_a_beam_finds_what_the_most_likely_token_misses() -> None:
    (greedy,) = searched(Tabulated(GARDEN_PATH), [[1]], beam=1, length_penalty=0.0)
    (found,) = searched(Tabulated(GARDEN_PATH), [[1]], beam=2, length_penalty=0.0)
    assert greedy.tokens[:1] == [1]
    assert found == Hypothesis([2, 3], pytest.approx(math.log(0.4 * 0.9)))
    assert found.score > greedy.score


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=5), min_size=2, max_size=5),
    st.integers(0, 3),
    st.integers(1, 4),
)
def test_nothing_depends_on_the_company_or_on_padding(
    seed: int, source: list[list[int]], padding: int, beam: int
) -> None:
    model = MadeUp(seed, vocabulary=6, sharpness=2.0)
    together = searched(model, source, padding, beam=beam)
    alone = [searched(model, [row], beam=beam)[0] for row in source]
    assert [found.tokens for found in together] == [found.tokens for found in alone]
    for found, other in zip(together, alone, strict=True):
        assert found.score == pytest.approx(other.score, abs=1e-10)


@pytest.mark.parametrize("beam", [1, 2, 3, 8])
def test_beginnings_that_are_sequences_do_not_crowd_out_the_whole(beam: int) -> None:
    (found,) = searched(Tabulated(BEGINNINGS), [[1]], beam=beam)
    assert found.tokens == [1] * 6


def test_the_search_is_over_when_no_beginning_can_win() -> None:
    model = Tabulated(GARDEN_PATH)
    (found,) = searched(model, [[1]], beam=4, length_penalty=0.0)
    assert found.tokens == [2, 3]
    assert len(model.steps) == 3  # although fewer than four are finished


def test_a_longer_translation_is_preferred_with_a_greater_penalty() -> None:
    def lengths(penalty: float) -> float:
        found = [searched(MadeUp(seed), [[2]], beam=50, length_penalty=penalty)[0]
                 for seed in range(8)]  # fmt: skip
        return sum(len(hypothesis.tokens) for hypothesis in found)

    assert lengths(0.0) < lengths(1.0) < lengths(3.0)


def test_a_sentence_that_is_done_leaves_the_batch_and_the_last_one_ends_the_search() -> None:
    model = MadeUp(4, vocabulary=6, sharpness=4.0)
    found = searched(model, [[1], [2, 5, 6], [4, 4]], beam=3)
    assert model.steps == sorted(model.steps, reverse=True)
    assert model.steps[0] == 9
    assert model.steps[-1] < 9
    longest = max(len(hypothesis.tokens) for hypothesis in found)
    assert longest < len(model.steps) <= 16


def test_a_network_that_says_nothing_finite_translates_into_nothing() -> None:
    model = MadeUp(0)
    model.scores.fill_(math.nan)
    assert searched(model, [[1], [2]], beam=2) == [Hypothesis([], -math.inf)] * 2
    assert len(model.steps) == 1


@pytest.mark.parametrize("how", [{"beam": 0}, {"length_penalty": -0.1}])
def test_a_beam_of_none_and_a_negative_penalty_are_refused(how: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="beam must be at least 1"):
        BeamSearch(0, **how)  # type: ignore[arg-type]
