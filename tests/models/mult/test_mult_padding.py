"""What padding changes in MulT, and what it does not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.models.mult import encoder
from equipoise.models.mult.streams import MODALITIES
from tests.models.mult.mult_models import loss, mult, streams

SUBSETS = [list(s) for n in (1, 2, 3) for s in itertools.combinations(MODALITIES, n)]


def padded(batch: dict[str, Tensor], rows: dict[str, int]) -> dict[str, Tensor]:
    """The streams with more rows of zeros in front."""
    return {
        modality: torch.cat((torch.zeros_like(stream[:, :1]).expand(-1, count, -1), stream), 1)
        if (count := rows.get(modality, 0))
        else stream
        for modality, stream in batch.items()
    }


@pytest.fixture
def without_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions count padding; all that padding may change with a mask is they."""
    monkeypatch.setattr(
        encoder, "sinusoids", lambda length, width, like: like.new_zeros(length, width)
    )


MASKED: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({"causal": False}, {"language": 2}),
    ({"causal": False}, {"audio": 3, "vision": 1}),
    ({"causal": False, "kernel": 3}, {"language": 1, "audio": 3, "vision": 2}),
    ({"causal": False, "targets": ["audio"]}, {"audio": 2, "vision": 1}),
    ({"causal": False, "modalities": ["language"]}, {"language": 3}),
    ({"causal": True}, {"language": 2, "audio": 2, "vision": 2}),
    ({"causal": True, "kernel": 3}, {"language": 1, "audio": 1, "vision": 1}),
]


@pytest.mark.usefixtures("without_positions")
@pytest.mark.parametrize(("changes", "rows"), MASKED)
def test_with_the_mask_more_padding_changes_nothing(
    changes: dict[str, Any], rows: dict[str, int]
) -> None:
    batch = streams(((0, 3, 3), (2, 0, 6), (1, 1, 0)))
    model = mult(key_padding_mask=True, **changes).eval()
    torch.testing.assert_close(model(padded(batch, rows)).hidden, model(batch).hidden)
    published = mult(**changes).eval()
    difference = published(padded(batch, rows)).hidden - published(batch).hidden
    assert difference.abs().max() > 1e-4, "without it padding is attended to"


@pytest.mark.usefixtures("without_positions")
def test_with_the_mask_a_modality_that_is_missing_says_the_same_at_any_length() -> None:
    batch = streams(((0, 0), (7, 7), (0, 1)))
    model = mult(key_padding_mask=True, targets=["language"], causal=False).eval()
    shorter = {**batch, "audio": batch["audio"][:, :2]}
    torch.testing.assert_close(model(shorter).hidden, model(batch).hidden)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("modalities", SUBSETS)
def test_a_query_that_sees_nothing_gives_no_nan(modalities: list[str], causal: bool) -> None:
    """Some samples are padding alone, and the first queries of others come before all keys."""
    model = mult(modalities=modalities, key_padding_mask=True, causal=causal).train()
    batch = {modality: stream.requires_grad_() for modality, stream in streams().items()}
    prediction = model(batch)
    assert prediction.outputs.isfinite().all()
    loss(prediction).backward()
    for tensor in (*model.parameters(), *(batch[modality] for modality in modalities)):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def test_padding_is_padding_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mult(key_padding_mask=True).float().eval()
    rows = ([0, 3, 3], [2, 0, 6], [1, 1, 0])
    batch = {modality: stream.float() for modality, stream in streams(rows).items()}
    whole = model(batch).outputs
    padding: list[list[int]] = []
    embedded = encoder.embedded

    def noting(sequence: Tensor) -> Tensor:
        padding.append((sequence[..., 0] == 0).sum(dim=1).tolist())
        return embedded(sequence)

    monkeypatch.setattr(encoder, "embedded", noting)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch).outputs
    of_pairs = [padding_rows for pair in itertools.permutations(rows, 2) for padding_rows in pair]
    assert padding[:12] == of_pairs
    assert len(padding) == 12 + 3
    torch.testing.assert_close(half.float(), whole, rtol=0.1, atol=0.1)
