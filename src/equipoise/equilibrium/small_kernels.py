"""Algebra of a few unknowns per sample as one launch on a GPU, in registers, in float64.

Every program takes one sample. Sizes are padded to a power of two by rows of the identity, so one
program serves a window while it grows.
"""

# triton.jit compiles what stands here: no annotations but constexpr, and no function of Python's.
# mypy: ignore-errors

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST = 16
"""Unknowns at most: a matrix of them is held by the registers of one warp."""


@triton.jit
def _solve(matrix, right, size, N: tl.constexpr):
    """Solve for a matrix (N, N) by Gauss-Jordan elimination with partial pivoting."""
    rows = tl.arange(0, N)
    columns = rows[None, :]
    for column in range(size):
        entries = tl.sum(tl.where(columns == column, matrix, 0.0), axis=1)
        place = tl.argmax(tl.where(rows >= column, tl.abs(entries), -1.0), axis=0)
        here, there = rows == column, rows == place
        pivot = tl.sum(tl.where(there[:, None], matrix, 0.0), axis=0)
        pivot_right = tl.sum(tl.where(there, right, 0.0), axis=0)
        other = tl.sum(tl.where(here[:, None], matrix, 0.0), axis=0)
        other_right = tl.sum(tl.where(here, right, 0.0), axis=0)
        matrix = tl.where(there[:, None], other[None, :], matrix)
        right = tl.where(there, other_right, right)
        leading = tl.sum(tl.where(rows == column, pivot, 0.0), axis=0)
        pivot, pivot_right = pivot / leading, pivot_right / leading
        factors = tl.sum(tl.where(columns == column, matrix, 0.0), axis=1)
        matrix = tl.where(here[:, None], pivot[None, :], matrix - factors[:, None] * pivot[None, :])
        right = tl.where(here, pivot_right, right - factors * pivot_right)
    return right


@triton.jit(do_not_specialize=["size"])
def _solve_systems(
    matrix, right, solution, size, of_sample, of_row, of_column, right_of_sample, right_of_row,
    N: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, N)
    valid = rows < size
    both = valid[:, None] & valid[None, :]
    places = matrix + sample * of_sample + rows[:, None] * of_row + rows[None, :] * of_column
    unit = tl.where(rows[:, None] == rows[None, :], 1.0, 0.0)
    system = tl.where(both, tl.load(places, mask=both, other=0.0).to(tl.float64), unit)
    given = tl.load(
        right + sample * right_of_sample + rows * right_of_row, mask=valid, other=0.0
    ).to(tl.float64)
    solved = _solve(system, given, size, N)
    tl.store(solution + sample * size + rows, solved, mask=valid)


@triton.jit(do_not_specialize=["slot", "kept"])
def _window(
    products, cosines, inverse_norm, weights, slot, kept, memory,
    ridge: tl.constexpr, tiny: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, N)
    valid, newest = rows < kept, rows == slot
    both = valid[:, None] & valid[None, :]
    diagonal = rows[:, None] == rows[None, :]
    product = tl.load(products + sample * kept + rows, mask=valid, other=0.0).to(tl.float64)
    square = tl.sum(tl.where(newest, product, 0.0), axis=0)
    size = 1.0 / tl.sqrt(tl.where(square < tiny, tiny, square).to(tl.float64))
    norms = inverse_norm + sample * memory + rows
    inverse = tl.where(newest, size, tl.load(norms, mask=valid, other=0.0))
    tl.store(norms, inverse, mask=newest)

    cosine = product * inverse * size
    places = cosines + sample * memory * memory + rows[:, None] * memory + rows[None, :]
    system = tl.load(places, mask=both, other=0.0)
    system = tl.where(newest[:, None], cosine[None, :], system)
    system = tl.where(newest[None, :], cosine[:, None], system)
    system = tl.where(diagonal & newest[:, None], system + ridge, system)
    tl.store(places, system, mask=both & (newest[:, None] | newest[None, :]))

    system = tl.where(both, system, tl.where(diagonal, 1.0, 0.0))
    scaled = _solve(system, tl.where(valid, inverse, 0.0), kept, N) * inverse
    weight = scaled / tl.sum(tl.where(valid, scaled, 0.0), axis=0)
    usable = tl.sum(tl.where(valid & ~(tl.abs(weight) < float("inf")), 1, 0), axis=0) == 0
    plain = tl.where(newest, 1.0, 0.0)
    tl.store(weights + sample * kept + rows, tl.where(usable, weight, plain), mask=valid)


@triton.jit(do_not_specialize=["latest"])
def _chain(
    products, transfer, gram, frozen, weights, gains, latest, size,
    tiny: tl.constexpr, rounding: tl.constexpr, known: tl.constexpr, some_frozen: tl.constexpr,
    N: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, N)
    earlier, valid = rows < latest, rows <= latest
    square = earlier[:, None] & earlier[None, :]
    transfer += sample * size * size
    gram += sample * (size + 1) * (size + 1)
    product = tl.load(products + sample * (latest + 1) + rows, mask=valid, other=0.0)
    product = product.to(tl.float64)
    places = transfer + rows[:, None] * size + rows[None, :]
    factors = tl.load(places, mask=square, other=0.0)
    weight = tl.sum(factors * product[None, :], axis=1)
    # Row i, column j: <s_i, s_{j+1}>.
    inner_places = gram + rows[:, None] * (size + 1) + rows[None, :] + 1
    inner = tl.load(inner_places, mask=valid[:, None] & earlier[None, :], other=0.0)
    turned = tl.sum(tl.where(rows[:, None] == rows[None, :], weight[:, None], 0.0), axis=0)
    overlap = product + tl.sum(inner * turned[None, :], axis=1)

    gain = tl.sum(tl.where(rows == 0, 1.0, 0.0).to(tl.float64), axis=0)
    if known:
        length = tl.load(gram + latest * (size + 1) + latest)
        inverse = tl.where(tl.abs(length) > tiny, 1.0 / length, 0.0)
        rest = 1.0 - tl.sum(tl.where(rows == latest, overlap, 0.0), axis=0) * inverse
        usable = tl.abs(rest) > rounding
        beside = tl.load(gram + latest * (size + 1) + 1 + rows, mask=earlier, other=0.0)
        row = tl.sum(factors * beside[:, None], axis=0)
        row = tl.where(rows == latest, 1.0, row) * inverse
        row = tl.where(usable, row, 0.0)
        if some_frozen:
            still = tl.load(frozen + sample) != 0
            before = tl.load(transfer + latest * size + rows, mask=valid, other=0.0)
            row = tl.where(still, before, row)
        tl.store(transfer + latest * size + rows, row, mask=valid)
        gain = tl.where(usable, 1.0 / rest, 1.0)

    tl.store(weights + sample * latest + rows, weight, mask=earlier)
    tl.store(gains + sample, gain)
    tl.store(gram + (latest + 1) * (size + 1) + rows, gain * overlap, mask=valid)
    tl.store(gram + rows * (size + 1) + latest + 1, gain * overlap, mask=valid)


def solve_systems(matrix: Tensor, right: Tensor) -> Tensor:
    """The x of matrix x = right, for (B, n, n) and (B, n) with n <= LARGEST, in right's dtype."""
    batch, size = right.shape
    solution = torch.empty(batch, size, dtype=right.dtype, device=right.device)
    if solution.numel():
        _solve_systems[(batch,)](
            matrix, right, solution, size, *matrix.stride(), *right.stride(), N=_padded(size),
            num_warps=1,
        )  # fmt: skip
    return solution


def window_weights(
    products: Tensor, cosines: Tensor, inverse_norm: Tensor, slot: int, ridge: float
) -> Tensor:
    """What `small_systems.window_weights` gives, in one launch."""
    batch, kept = products.shape
    weights = torch.empty_like(products, memory_format=torch.contiguous_format)
    if weights.numel():
        _window[(batch,)](
            products.contiguous(), cosines, inverse_norm, weights, slot, kept, cosines.shape[1],
            ridge=ridge, tiny=torch.finfo(torch.float64).tiny, N=_padded(kept), num_warps=1,
        )  # fmt: skip
    return weights


def chain_update(
    products: Tensor,
    transfer: Tensor,
    gram: Tensor,
    latest: int,
    known: bool,
    rounding: float,
    frozen: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The algebra of `StepChain.next` in one launch: t (B, latest) and gain (B, 1).

    products (B, latest + 1): of the image with the steps. The rows of `transfer` and `gram` that
    the update changes are written.
    """
    batch, size = len(products), transfer.shape[1]
    weights, gains = products.new_empty(batch, latest), products.new_empty(batch, 1)
    if batch:
        marks = products if frozen is None else frozen
        _chain[(batch,)](
            products.contiguous(), transfer, gram, marks, weights, gains, latest, size,
            tiny=torch.finfo(torch.float64).tiny, rounding=rounding, known=known,
            some_frozen=frozen is not None, N=_padded(latest + 1), num_warps=1,
        )  # fmt: skip
    return weights, gains


def _padded(size: int) -> int:
    return max(triton.next_power_of_2(size), 2)
