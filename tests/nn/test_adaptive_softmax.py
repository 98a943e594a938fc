"""Adaptive softmax and embedding: one distribution, its losses, ties, and look-ups written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from equipoise.nn import AdaptiveEmbedding, AdaptiveSoftmax, VocabularyClusters

CLUSTERS = VocabularyClusters(30, [5, 12, 20])
PLAIN = VocabularyClusters(30)


def drawn(softmax: AdaptiveSoftmax) -> AdaptiveSoftmax:
    """In float64, with weights large enough to matter."""
    generator = torch.Generator().manual_seed(0)
    for parameter in softmax.double().parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return softmax


def hidden_and_targets(width: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(3, 10, width, dtype=torch.float64, generator=generator)
    return hidden, torch.randperm(30, generator=generator).view(3, 10)


@pytest.mark.parametrize("clusters", [CLUSTERS, PLAIN])
@pytest.mark.parametrize(("inner", "divisor"), [(16, 1), (8, 1), (24, 2)])
def test_losses_are_those_of_the_distribution(
    clusters: VocabularyClusters, inner: int, divisor: int
) -> None:
    softmax = drawn(AdaptiveSoftmax(clusters, 16, embedding_width=inner, divisor=divisor))
    hidden, targets = hidden_and_targets()
    distribution = softmax.log_probabilities(hidden)
    torch.testing.assert_close(distribution.exp().sum(-1), torch.ones(3, 10, dtype=torch.float64))
    expected = -distribution.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(softmax.token_losses(hidden, targets), expected)


def test_cluster_one_is_the_last_column_of_the_head() -> None:
    softmax = drawn(AdaptiveSoftmax(CLUSTERS, 16))
    with torch.no_grad():
        softmax.cluster_bias.copy_(torch.tensor([0.0, 0.0, 50.0]))
    hidden, _ = hidden_and_targets()
    likely = softmax.log_probabilities(hidden).exp()[..., 5:12].sum(-1)
    torch.testing.assert_close(likely, torch.ones_like(likely), rtol=0, atol=1e-9)


@pytest.mark.parametrize("clusters", [CLUSTERS, PLAIN])
def test_ignored_targets_cost_nothing(clusters: VocabularyClusters) -> None:
    softmax = drawn(AdaptiveSoftmax(clusters, 16))
    hidden, targets = hidden_and_targets()
    ignored = targets % 3 == 0
    losses = softmax.token_losses(hidden, targets.masked_fill(ignored, -100))
    expected = softmax.token_losses(hidden, targets).masked_fill(ignored, 0.0)
    torch.testing.assert_close(losses, expected)


def test_one_cluster_is_a_linear_map_and_a_softmax() -> None:
    softmax = drawn(AdaptiveSoftmax(PLAIN, 16))
    hidden, targets = hidden_and_targets()
    logits = functional.linear(hidden, softmax.tables[0], softmax.biases[0])
    expected = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    torch.testing.assert_close(softmax.token_losses(hidden, targets).flatten(), expected)
    assert {name for name, _ in softmax.named_parameters()} == {"tables.0", "biases.0"}


def test_tied_parameters_are_one_and_stay_so() -> None:
    embedding = AdaptiveEmbedding(CLUSTERS, 16, divisor=2)
    softmax = AdaptiveSoftmax(
        CLUSTERS, 16, divisor=2, tied_to=embedding, tied_projections=[False, True, True, True]
    )
    both = torch.nn.ModuleDict({"embedding": embedding, "softmax": softmax}).double()
    shared = {id(p) for p in embedding.parameters()} & {id(p) for p in softmax.parameters()}
    assert len(shared) == 4 + 3
    assert softmax.projections[0] is not embedding.projections[0]
    hidden, targets = hidden_and_targets()
    loss = softmax.token_losses(hidden + embedding(targets), targets).mean()
    names = [name for name, _ in both.named_parameters()]
    assert len(torch.autograd.grad(loss, list(both.parameters()))) == len(names) == 15


def test_one_projection_serves_all_clusters_where_the_embedding_has_one() -> None:
    embedding = AdaptiveEmbedding(CLUSTERS, 16, embedding_width=8)
    tied = AdaptiveSoftmax(
        CLUSTERS, 16, embedding_width=8, tied_to=embedding, tied_projections=[False] + [True] * 3
    )
    assert [p is embedding.projections[0] for p in tied.projections] == [False, True, True, True]


def test_the_tables_alone_can_be_untied() -> None:
    embedding = AdaptiveEmbedding(CLUSTERS, 16)
    softmax = AdaptiveSoftmax(CLUSTERS, 16, tied_to=embedding, tied_tables=False)
    assert softmax.tables[0] is not embedding.tables[0]


def test_a_tie_of_other_widths_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot share the weights"):
        AdaptiveSoftmax(CLUSTERS, 16, tied_to=AdaptiveEmbedding(CLUSTERS, 8))


def test_losses_stay_in_float32_under_autocast() -> None:
    softmax = AdaptiveSoftmax(CLUSTERS, 16, divisor=2)
    hidden, targets = hidden_and_targets()
    with torch.autocast("cpu", torch.bfloat16):
        losses = softmax.token_losses(hidden.float(), targets)
    assert losses.dtype == torch.float32
    expected = softmax.token_losses(hidden.float(), targets)
    torch.testing.assert_close(losses, expected, rtol=2e-2, atol=2e-2)


def test_clusters_cover_the_vocabulary() -> None:
    clusters = VocabularyClusters(200, [40, 80, 160])
    assert (clusters.first, clusters.end) == ((0, 40, 80, 160), (40, 80, 160, 200))
    assert clusters.sizes == [40, 40, 80, 40]
    assert clusters.widths(64, 4) == [64, 16, 4, 1]


@pytest.mark.parametrize("vocabulary", [30, 40])
def test_cutoffs_beyond_the_vocabulary_are_dropped(vocabulary: int) -> None:
    assert len(VocabularyClusters(vocabulary, [40, 80])) == 1


@pytest.mark.parametrize(
    ("vocabulary", "cutoffs", "said"),
    [(0, [], "at least one symbol"), (9, [3, 3], "must increase"), (9, [0, 3], "must increase")],
)
def test_nonsense_is_refused(vocabulary: int, cutoffs: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        VocabularyClusters(vocabulary, cutoffs)


def test_an_embedding_that_vanishes_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing for cluster 3"):
        VocabularyClusters(9, [2, 4]).widths(8, 4)
    with pytest.raises(ValueError, match="divisor must be at least 1"):
        VocabularyClusters(9, [2, 4]).widths(8, 0)


FEW = VocabularyClusters(20, [4, 11])
TOKENS = torch.arange(20).view(4, 5)


def test_each_token_is_embedded_by_its_cluster() -> None:
    embedding = AdaptiveEmbedding(FEW, 8, embedding_width=12, divisor=2)
    expected = [
        table @ projection.T
        for table, projection in zip(embedding.tables, embedding.projections, strict=True)
    ]
    torch.testing.assert_close(embedding(TOKENS).flatten(0, 1), torch.cat(expected) * 8**0.5)
    assert [tuple(table.shape) for table in embedding.tables] == [(4, 12), (7, 6), (9, 3)]


@pytest.mark.parametrize(("width", "projections"), [(8, 0), (12, 1)])
def test_divisor_one_is_one_table(width: int, projections: int) -> None:
    embedding = AdaptiveEmbedding(FEW, width, embedding_width=8)
    assert (len(embedding.tables), len(embedding.projections)) == (1, projections)
    assert embedding(TOKENS).shape == (4, 5, width)


def test_the_scale_can_be_given() -> None:
    embedding = AdaptiveEmbedding(FEW, 8, scale=1.0)
    torch.testing.assert_close(embedding(TOKENS).flatten(0, 1), embedding.tables[0])


def test_gradients_reach_the_rows_that_occur_alone() -> None:
    embedding = AdaptiveEmbedding(FEW, 8, divisor=2)
    embedding(torch.tensor([[2, 13]])).sum().backward()
    touched = [t.grad.abs().sum(dim=1).nonzero().flatten().tolist() for t in embedding.tables]
    assert touched == [[2], [], [2]]
