"""Low-rank inverses and the memory that they come from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from equipoise.equilibrium import LowRankInverse
from equipoise.equilibrium.low_rank import PairMemory, reciprocal


def explicit(inverse: LowRankInverse) -> torch.Tensor:
    identity = torch.eye(inverse.u.shape[2], dtype=inverse.u.dtype)
    return torch.einsum("bmi,bmj->bij", inverse.u, inverse.v) - identity


def inverse() -> LowRankInverse:
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    return LowRankInverse(u, v)


def test_products_are_those_of_the_matrix() -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    matrix = explicit(inverse())
    torch.testing.assert_close(inverse().apply(x), torch.einsum("bij,bj->bi", matrix, x))
    transposed = torch.einsum("bji,bj->bi", matrix, x)
    torch.testing.assert_close(inverse().apply_transposed(x), transposed)
    torch.testing.assert_close(inverse().transposed().apply(x), transposed)


def test_products_in_another_storage_precision_keep_the_precision_of_the_vector() -> None:
    stored = LowRankInverse(inverse().u.to(torch.bfloat16), inverse().v.to(torch.bfloat16))
    x = torch.ones(3, 5)
    assert stored.apply(x).dtype == torch.float32
    torch.testing.assert_close(
        stored.apply(x), inverse().apply(x.double()).float(), rtol=0.1, atol=0.3
    )


def test_the_newest_pairs_follow_the_age() -> None:
    rows = torch.arange(4.0).reshape(1, 4, 1)
    newest = LowRankInverse(rows, rows, oldest=2).newest(3)
    assert newest.u.flatten().tolist() == [3.0, 0.0, 1.0]


def test_the_newest_pairs_of_the_transposed_estimate_are_those_of_the_estimate() -> None:
    aged = replace(inverse(), oldest=2)
    torch.testing.assert_close(
        explicit(aged.transposed().newest(2)), explicit(aged.newest(2)).transpose(1, 2)
    )


def test_a_full_memory_replaces_the_oldest_pair() -> None:
    memory = PairMemory(torch.zeros(1, 1), 2, torch.float32)
    for value in (1.0, 2.0, 3.0):
        pair = torch.full((1, 1), value)
        memory.store(pair, torch.ones(1, 1), pair, None)
    assert memory.kept()[0].flatten().tolist() == [3.0, 2.0]
    assert memory.inverse().newest(2).u.flatten().tolist() == [2.0, 3.0]


def test_frozen_samples_keep_their_pairs() -> None:
    memory = PairMemory(torch.zeros(2, 1), 2, torch.float32)
    frozen = torch.tensor([True, False])
    for value in (1.0, 2.0):
        pair = torch.full((2, 1), value)
        memory.store(pair, torch.ones(2, 1), pair, None)
    memory.store(torch.full((2, 1), 9.0), torch.ones(2, 1), torch.full((2, 1), 9.0), frozen)
    assert memory.u[0].flatten().tolist() == [1.0, 2.0]
    assert memory.u[1].flatten().tolist() == [9.0, 2.0]


def test_a_vanishing_curvature_gives_no_update() -> None:
    assert reciprocal(torch.tensor([0.0, 2.0, torch.nan])).tolist() == [0.0, 0.5, 0.0]


def with_core() -> LowRankInverse:
    generator = torch.Generator().manual_seed(1)
    scale = torch.tensor([[0.5], [1.0], [3.0]], dtype=torch.float64)
    core = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    return replace(inverse(), scale=scale, core=core)


def explicit_with_core(inverse: LowRankInverse) -> torch.Tensor:
    assert inverse.scale is not None
    assert inverse.core is not None
    identity = torch.eye(inverse.u.shape[2], dtype=inverse.u.dtype)
    sums = inverse.u.transpose(1, 2) @ inverse.core @ inverse.v
    return sums - inverse.scale.unsqueeze(2) * identity


def test_products_with_a_scale_and_a_core_are_those_of_the_matrix() -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    inverse = with_core()
    matrix = explicit_with_core(inverse)
    torch.testing.assert_close(inverse.apply(x), torch.einsum("bij,bj->bi", matrix, x))
    transposed = torch.einsum("bji,bj->bi", matrix, x)
    torch.testing.assert_close(inverse.apply_transposed(x), transposed)
    torch.testing.assert_close(inverse.transposed().apply(x), transposed)
    torch.testing.assert_close(inverse.transposed().apply_transposed(x), inverse.apply(x))
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(inverse.select(rows).apply(x[rows]), inverse.apply(x)[rows])


@pytest.mark.parametrize("left_out", [(), ("scale",), ("core",), ("scale", "core")])
def test_in_its_own_units_it_is_a_plain_sum_of_pairs(left_out: tuple[str, ...]) -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    inverse = replace(with_core(), **dict.fromkeys(left_out))
    plain, scale = inverse.in_units()
    assert (plain.scale, plain.core) == (None, None)
    assert (scale is None) == ("scale" in left_out)
    units = 1.0 if scale is None else scale
    torch.testing.assert_close(units * plain.apply(x), inverse.apply(x))
    torch.testing.assert_close(units * plain.apply_transposed(x), inverse.apply_transposed(x))


@pytest.mark.parametrize("definite", [False, True])
def test_an_estimate_of_some_samples_or_transposed_is_as_definite_as_before(definite: bool) -> None:
    estimate = replace(with_core(), definite=definite)
    assert estimate.select(torch.tensor([0])).definite is definite
    assert estimate.transposed().definite is definite


def test_the_newest_pairs_keep_the_scale() -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    inverse = replace(with_core(), core=None, oldest=3)
    newest = inverse.newest(2)
    u, v = inverse.u[:, [1, 2]], inverse.v[:, [1, 2]]
    torch.testing.assert_close(newest.apply(x), LowRankInverse(u, v, 0, inverse.scale).apply(x))
    torch.testing.assert_close(inverse.newest(4).apply(x), inverse.apply(x))
