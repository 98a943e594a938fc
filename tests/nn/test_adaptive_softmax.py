"""The adaptive softmax: a distribution, the same losses by both ways, ties, ignored targets."""

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
