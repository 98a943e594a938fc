"""The compact form of BFGS against the product of its updates, and what keeps the pairs."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equipoise.equilibrium import CurvaturePairs
from tests.equilibrium.objectives import definite, gaussian

Pair = tuple[Tensor, Tensor]


def updated(pairs: list[Pair], width: int) -> Tensor:
    """(D, D): the inverse after all updates of one sample, from that of the latest pair's size."""
    identity = torch.eye(width, dtype=torch.float64)
    if not pairs:
        return identity
    s, y = pairs[-1]
    matrix = identity * (s @ y) / (y @ y)
    for s, y in pairs:
        away = identity - torch.outer(y, s) / (s @ y)
        matrix = away.T @ matrix @ away + torch.outer(s, s) / (s @ y)
    return matrix


def explicit(pairs: CurvaturePairs) -> Tensor:
    """(B, D, D): H column by column."""
    width = pairs.s.shape[2]
    unit = torch.eye(width, dtype=pairs.s.dtype)
    columns = [pairs.apply(row.expand(len(pairs.s), width)) for row in unit]
    return torch.stack(columns, dim=2)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def secant(matrices: Tensor, seed: int) -> Pair:
    s = gaussian(*matrices.shape[:2], seed=seed)
    return s, torch.einsum("bij,bj->bi", matrices, s)


def stored(batch: int = 2, width: int = 5, size: int = 4, count: int = 6) -> CurvaturePairs:
    pairs = CurvaturePairs(torch.zeros(batch, width, dtype=torch.float64), size)
    matrices = definite(batch, width, 0.2, seed=1)
    for seed in range(count):
        pairs.store(*secant(matrices, seed), torch.ones(batch, dtype=torch.bool))
    return pairs


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(1, 5),
    width=st.integers(1, 6),
    taken=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=9),
    batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_h_is_the_product_of_the_updates_of_each_samples_newest_pairs(
    size: int, width: int, taken: list[list[bool]], batch: int, seed: int
) -> None:
    pairs = CurvaturePairs(torch.zeros(batch, width, dtype=torch.float64), size)
    matrices = definite(batch, width, 0.2, seed)
    known: list[list[Pair]] = [[] for _ in range(batch)]
    for number, which in enumerate(taken):
        s, y = secant(matrices, 100 * seed + number)
        pairs.store(s, y, torch.tensor(which[:batch]))
        for sample in range(batch):
            if which[sample]:
                known[sample].append((s[sample], y[sample]))
    expected = torch.stack([updated(each[-size:], width) for each in known])
    close(explicit(pairs), expected)
    close(-explicit_inverse(pairs), expected)
    pairs.refresh()
    close(explicit(pairs), expected)


def explicit_inverse(pairs: CurvaturePairs) -> Tensor:
    """(B, D, D): the rows of the low-rank form, by its transposed product."""
    inverse, width = pairs.inverse(), pairs.s.shape[2]
    unit = torch.eye(width, dtype=pairs.s.dtype)
    rows = [inverse.apply_transposed(row.expand(len(pairs.s), width)) for row in unit]
    return torch.stack(rows, dim=1)


def test_a_sample_that_is_left_out_keeps_its_h() -> None:
    pairs = stored()
    before = explicit(pairs)
    pairs.store(*secant(definite(2, 5, 0.2, seed=1), 50), torch.tensor([True, False]))
    assert (explicit(pairs)[0] - before[0]).norm() > 1e-3
    torch.testing.assert_close(explicit(pairs)[1], before[1], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("factor", [-1.0, 0.0, torch.nan, torch.inf])
def test_a_pair_without_curvature_is_left_out(factor: float) -> None:
    pairs = stored()
    before = explicit(pairs)
    s = gaussian(2, 5, seed=60)
    pairs.store(s, factor * s, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(explicit(pairs), before, rtol=1e-13, atol=1e-13)


def test_a_pair_of_rounding_errors_is_left_out() -> None:
    pairs = CurvaturePairs(torch.zeros(1, 2, dtype=torch.float64), 3)
    pairs.store(torch.tensor([[1.0, 1e-14]]), torch.tensor([[0.0, 1.0]]), torch.tensor([True]))
    assert (pairs.born == -1).all()


def test_rejections_cost_no_memory() -> None:
    pairs = CurvaturePairs(torch.zeros(2, 4, dtype=torch.float64), 2)
    matrices = definite(2, 4, 0.2, seed=3)
    kept = [secant(matrices, seed) for seed in range(3)]
    for pair in kept:
        pairs.store(*pair, torch.tensor([True, True]))
        pairs.store(*secant(matrices, 70), torch.tensor([False, False]))
    for sample in range(2):
        expected = updated([(s[sample], y[sample]) for s, y in kept[-2:]], 4)
        close(explicit(pairs)[sample], expected)


@pytest.mark.parametrize("count", [0, 2, 6])
@pytest.mark.parametrize("size", [2, 4, 9])
def test_with_room_keeps_the_newest(size: int, count: int) -> None:
    pairs, shorter = stored(count=count), stored(size=min(size, 4), count=count)
    before = explicit(pairs)
    resized = pairs.with_room(size)
    assert resized.s.shape == (2, size, 5)
    close(explicit(resized), explicit(shorter))
    for seed in range(80, 90):  # pairs that are added later push out the oldest ones
        pair = secant(definite(2, 5, 0.2, seed=1), seed)
        resized.store(*pair, torch.ones(2, dtype=torch.bool))
    fresh = stored(size=size, count=0)
    for seed in range(80, 90):
        pair = secant(definite(2, 5, 0.2, seed=1), seed)
        fresh.store(*pair, torch.ones(2, dtype=torch.bool))
    if size < 10:
        close(explicit(resized), explicit(fresh))
    assert torch.equal(explicit(pairs), before)


def test_moved_pairs_are_those_of_the_other_objective() -> None:
    """Those that the Hessian diag(ratio)^-1 A diag(ratio)^-1 + stiffening would have given."""
    pairs, ratio = stored(), torch.tensor([0.5, 2.0, 1.0, 10.0, 3.0]).double()
    stiffening = torch.tensor([0.0, 1.0, 2.0, 0.1, 0.3]).double()
    before, moved = explicit(pairs), pairs.moved(ratio, stiffening)
    expected = CurvaturePairs(torch.zeros(2, 5, dtype=torch.float64), 4)
    matrices = definite(2, 5, 0.2, seed=1) / torch.outer(ratio, ratio) + stiffening.diag()
    for seed in range(6):
        s = gaussian(2, 5, seed=seed) * ratio
        pair = s, torch.einsum("bij,bj->bi", matrices, s)
        expected.store(*pair, torch.ones(2, dtype=torch.bool))
    close(explicit(moved), explicit(expected))
    assert torch.equal(explicit(pairs), before)


def test_pairs_that_lose_their_curvature_leave() -> None:
    pairs = stored()
    nothing = pairs.moved(torch.ones(5).double(), torch.full((5,), -2.0).double())
    close(explicit(nothing), torch.eye(5).double().expand(2, 5, 5))
    s, y = pairs.s[0], pairs.y[0]
    ratios = (s * y).sum(dim=1) / (s * s).sum(dim=1)
    between = ratios.sort().values[1:3].mean()  # two of the four lose theirs
    left = pairs.moved(torch.ones(5).double(), -between.expand(5))
    kept = [
        (pairs.s[0, i], pairs.y[0, i] - between * pairs.s[0, i])
        for i in pairs.born[0].argsort()
        if ratios[i] > between
    ]
    assert len(kept) == 2
    close(explicit(left)[0], updated(kept, 5))


def test_a_checkpoint_holds_them_all() -> None:
    pairs = stored(count=2)
    file = io.BytesIO()
    torch.save(pairs.state(), file)
    file.seek(0)
    read = CurvaturePairs.of(torch.load(file, weights_only=True), torch.device("cpu"))
    close(explicit(read), explicit(pairs))
    pair = secant(definite(2, 5, 0.2, seed=1), 90)
    for each in (read, pairs):
        each.store(*pair, torch.tensor([True, False]))
    close(explicit(read), explicit(pairs))


def test_rows_can_be_kept() -> None:
    pairs = stored(batch=3)
    before = explicit(pairs)
    pairs.keep_rows(torch.tensor([2, 0]))
    close(explicit(pairs), before[[2, 0]])


def test_the_inverse_is_a_copy() -> None:
    pairs = stored()
    inverse, before = pairs.inverse(), explicit_inverse(pairs)
    pairs.store(*secant(definite(2, 5, 0.2, seed=1), 91), torch.ones(2, dtype=torch.bool))
    x = gaussian(2, 5, seed=92)
    torch.testing.assert_close(inverse.apply(x), torch.einsum("bij,bj->bi", before, x))
