"""Broyden's inverse as a chain of steps, against the same inverse as a matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equipoise.equilibrium import LowRankInverse
from equipoise.equilibrium.step_chain import StepChain


def matrix(inverse: LowRankInverse) -> Tensor:
    """H as matrices (B, D, D)."""
    identity = torch.eye(inverse.u.shape[2], dtype=inverse.u.dtype)
    rows = [inverse.apply(row.expand(len(inverse.u), -1)) for row in identity]
    return torch.stack(rows, dim=2)


def filled(
    images: Tensor, size: int, frozen: Tensor | None = None, frozen_from: int = 99
) -> tuple[StepChain, list[Tensor]]:
    """A chain that was given images (n, B, D) one after the other, and its steps."""
    chain, steps = StepChain(images[0], size, images.dtype), []
    for number, image in enumerate(images):
        work = torch.empty_like(image)
        h, gain = chain.next(image, frozen if number >= frozen_from else None, work)
        steps.append(h.clone() if gain is None else h * gain)
    return chain, steps


def drawn(count: int, batch: int = 3, width: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, batch, width, generator=generator, dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 9), count=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_step_is_minus_the_inverse_times_the_residual(size: int, count: int, seed: int) -> None:
    """With H_0 = -I the image is the residual g, and H has taken in the latest update."""
    images = drawn(count, seed=seed)
    chain, steps = filled(images, size)
    expected = -torch.einsum("bij,bj->bi", matrix(chain.inverse(None)), images[-1])
    torch.testing.assert_close(steps[-1], expected, rtol=1e-6, atol=1e-6)


def test_the_products_that_are_kept_are_those_of_the_steps() -> None:
    chain, _ = filled(drawn(9), size=4)
    rows = chain.rows[:, : chain.latest + 1]
    kept = chain.gram[:, : chain.latest + 1, : chain.latest + 1]
    torch.testing.assert_close(kept, rows @ rows.transpose(1, 2), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("size", "count", "latest"), [(5, 6, 5), (5, 7, 3), (2, 4, 0), (1, 3, 0)])
def test_a_full_memory_keeps_the_later_half(size: int, count: int, latest: int) -> None:
    chain, steps = filled(drawn(count), size)
    assert chain.latest == latest
    torch.testing.assert_close(chain.rows[:, latest], steps[-1])


@pytest.mark.parametrize("size", [3, 12])
def test_a_frozen_sample_keeps_its_inverse(size: int) -> None:
    images = drawn(10)
    frozen = torch.tensor([False, True, False])
    images[6:, 1] = torch.nan  # as where a sample ends because it is not finite
    before, _ = filled(images[:5], size)
    after, _ = filled(images, size, frozen, frozen_from=5)
    free, _ = filled(images[:, [0, 2]], size)
    x = drawn(1)[0]
    found = after.inverse(None).apply(x)
    torch.testing.assert_close(found[1], before.inverse(None).apply(x)[1])
    torch.testing.assert_close(found[[0, 2]], free.inverse(None).apply(x[[0, 2]]))


def test_a_start_other_than_minus_the_identity() -> None:
    u, v = drawn(2, 3, 5 * 7, seed=1).view(2, 3, 5, 7)
    start = LowRankInverse(u, v)
    chain, _ = filled(drawn(4), size=6)
    # H = P H_0, and without a start H = -P.
    expected = -matrix(chain.inverse(None)) @ matrix(start)
    torch.testing.assert_close(matrix(chain.inverse(start)), expected)


def test_an_update_that_has_no_value_is_left_out() -> None:
    images = drawn(2)
    images[1] = images[0]  # <s, h> = |s|^2: the denominator of the update vanishes
    chain, steps = filled(images, size=4)
    torch.testing.assert_close(steps[1], images[1])
    torch.testing.assert_close(chain.inverse(None).apply(images[0]), -images[0])


def test_vanishing_steps_leave_everything_finite() -> None:
    chain, steps = filled(torch.zeros(6, 2, 3), size=4)
    assert not torch.stack(steps).any()
    assert torch.isfinite(chain.transfer).all()
