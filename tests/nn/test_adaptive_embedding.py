"""The adaptive embedding against a look-up written out."""

from __future__ import annotations

import pytest
import torch

from equipoise.nn import AdaptiveEmbedding, VocabularyClusters

CLUSTERS = VocabularyClusters(20, [4, 11])
TOKENS = torch.arange(20).view(4, 5)


def test_each_token_is_embedded_by_its_cluster() -> None:
    embedding = AdaptiveEmbedding(CLUSTERS, 8, embedding_width=12, divisor=2)
    expected = [
        table @ projection.T
        for table, projection in zip(embedding.tables, embedding.projections, strict=True)
    ]
    torch.testing.assert_close(embedding(TOKENS).flatten(0, 1), torch.cat(expected) * 8**0.5)
    assert [tuple(table.shape) for table in embedding.tables] == [(4, 12), (7, 6), (9, 3)]


@pytest.mark.parametrize(("width", "projections"), [(8, 0), (12, 1)])
def test_divisor_one_is_one_table(width: int, projections: int) -> None:
    embedding = AdaptiveEmbedding(CLUSTERS, width, embedding_width=8)
    assert (len(embedding.tables), len(embedding.projections)) == (1, projections)
    assert embedding(TOKENS).shape == (4, 5, width)


def test_the_scale_can_be_given() -> None:
    embedding = AdaptiveEmbedding(CLUSTERS, 8, scale=1.0)
    torch.testing.assert_close(embedding(TOKENS).flatten(0, 1), embedding.tables[0])


def test_gradients_reach_the_rows_that_occur_alone() -> None:
    embedding = AdaptiveEmbedding(CLUSTERS, 8, divisor=2)
    embedding(torch.tensor([[2, 13]])).sum().backward()
    touched = [t.grad.abs().sum(dim=1).nonzero().flatten().tolist() for t in embedding.tables]
    assert touched == [[2], [], [2]]
