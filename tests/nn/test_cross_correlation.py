"""The loss on a cross-correlation: its gradients, its ends, and several processes as one."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from equipoise.nn.cross_correlation import Normalization, RedundancyReduction, cross_correlation

KINDS: tuple[Normalization, ...] = ("unit_length", "unbiased", "batch_norm")
TARGETS = (0.0, -1.0)
JOINED, WIDTH = 16, 5
UNEVEN = 6
"""Rows of the first of two processes, where they have parts of two sizes."""


def views(rows: int, width: int = WIDTH, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two views that are alike, but not the same."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return first, first + 0.5 * noise


@pytest.mark.parametrize(("kind", "target"), list(product(KINDS, TARGETS)))
def test_gradients_are_those_of_differences(kind: Normalization, target: float) -> None:
    loss = RedundancyReduction(target, 0.3, kind, scale=0.7)
    first, second = (part.requires_grad_() for part in views(6, 3))
    assert torch.autograd.gradcheck(lambda *pair: loss(*pair).loss, (first, second))


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(KINDS), rows=st.integers(4, 40), seed=st.integers(0, 99))
def test_identical_views_correlate_fully_with_themselves(
    kind: Normalization, rows: int, seed: int
) -> None:
    view, _ = views(rows, seed=seed)
    diagonal = cross_correlation(view, view, kind).diagonal()
    expected = torch.full_like(diagonal, (rows - 1) / rows)
    if kind == "batch_norm":
        variance = view.var(dim=0, unbiased=False)
        expected = variance / (variance + 1e-5)
    torch.testing.assert_close(diagonal, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 99), target=st.sampled_from(TARGETS))
def test_the_loss_is_the_sum_over_the_entries(
    kind: Normalization, seed: int, target: float
) -> None:
    terms = RedundancyReduction(target, 0.3, kind, scale=0.7)(*views(8, seed=seed))
    total = 0.0
    for (i, j), entry in zip(
        product(range(WIDTH), repeat=2), terms.correlation.flatten().tolist(), strict=True
    ):
        total += (1 - entry) ** 2 if i == j else 0.3 * (entry - target) ** 2
    assert float(terms.loss) == pytest.approx(0.7 * total, rel=1e-12)
    assert float(terms.on_diagonal + 0.3 * terms.off_diagonal) == pytest.approx(total, rel=1e-12)


def test_the_weight_is_one_over_the_width_unless_given() -> None:
    pair = views(8)
    by_width = RedundancyReduction(off_diagonal_weight=1 / WIDTH)(*pair).loss
    torch.testing.assert_close(RedundancyReduction()(*pair).loss, by_width)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e4])
@pytest.mark.parametrize("kind", ["unbiased", "batch_norm"])
def test_a_constant_column_has_no_correlation_and_no_gradient(
    kind: Normalization, value: float, dtype: torch.dtype
) -> None:
    first, second = (part.to(dtype) for part in views(7))
    first[:, 2] = value
    first.requires_grad_()
    terms = RedundancyReduction(normalization=kind)(first, second)
    terms.loss.backward()
    assert first.grad is not None
    assert terms.loss.isfinite()
    assert first.grad.isfinite().all()
    tolerance = 1e3 * torch.finfo(dtype).eps * max(value, 1)
    assert terms.correlation[2].abs().max() <= tolerance
    if kind == "unbiased":
        assert not terms.correlation[2].any()
        assert not first.grad[:, 2].any()


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_that_are_all_the_same_have_a_finite_loss(kind: Normalization) -> None:
    first = torch.ones(7, WIDTH, requires_grad=True)
    terms = RedundancyReduction(normalization=kind)(first, views(7)[1].float())
    terms.loss.backward()
    assert first.grad is not None
    assert first.grad.isfinite().all()
    torch.testing.assert_close(terms.correlation, torch.zeros(WIDTH, WIDTH), atol=1e-4, rtol=0)
    assert terms.loss.item() == pytest.approx(WIDTH, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_one_is_refused(kind: Normalization) -> None:
    with pytest.raises(ValueError, match="a batch of one sample has no correlation"):
        RedundancyReduction(normalization=kind)(*views(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_computed_in_float32(kind: Normalization, dtype: torch.dtype) -> None:
    pair = [part.to(dtype) for part in views(9)]
    loss = RedundancyReduction(normalization=kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(*pair)
    expected = loss(*(part.float() for part in pair))
    assert found.correlation.dtype == torch.float32
    assert torch.equal(found.correlation, expected.correlation)
    assert torch.equal(found.loss, expected.loss)


def network() -> nn.Module:
    """Without batch norm, whose statistics would be those of a process."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def trained(module: nn.Module, kind: Normalization, target: float, rows: slice) -> dict[str, Any]:
    """Loss and gradients, by the names of the plain network, on these rows of both views."""
    loss = RedundancyReduction(target, normalization=kind)
    pair = [module(part[rows]) for part in views(JOINED)]
    terms = loss(*pair)
    terms.loss.backward()
    gradients = {n.removeprefix("module."): p.grad for n, p in module.named_parameters()}
    return {"loss": terms.loss.detach(), **gradients}


def work(rank: int, folder: str) -> None:
    """One of two processes: every loss on its half, and the value on a part of another size."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    half = slice(0, JOINED // 2) if rank == 0 else slice(JOINED // 2, JOINED)
    part = slice(0, UNEVEN) if rank == 0 else slice(UNEVEN, JOINED)
    found = {}
    for kind, target in product(KINDS, TARGETS):
        even = trained(DistributedDataParallel(network()), kind, target, half)
        uneven = trained(network(), kind, target, part)["loss"]
        found[f"{kind} {target}"] = {**even, "uneven": uneven}
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.barrier()  # a process that leaves first would cut the other's connection
    distributed.destroy_process_group()


def test_two_processes_are_one_on_the_joined_rows(tmp_path: Path) -> None:
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    for rank, kind, target in product(range(2), KINDS, TARGETS):
        found = torch.load(tmp_path / f"{rank}.pt")[f"{kind} {target}"]
        expected = trained(network(), kind, target, slice(0, JOINED))
        torch.testing.assert_close(found.pop("uneven"), expected["loss"], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
