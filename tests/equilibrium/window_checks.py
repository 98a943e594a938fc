"""Fused algebra of small systems against that of the library, on any device.

As a program it checks the kernels in Triton's interpreter, which has to be chosen before Triton is
imported: `TRITON_INTERPRET=1 python -m tests.equilibrium.window_checks`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.equilibrium import small_kernels, small_systems, step_chain
from equipoise.equilibrium.step_chain import StepChain

SIZES = (1, 2, 5, 8, 16)


def check_systems(device: str, dtype: torch.dtype = torch.float64) -> None:
    """Regular systems are solved, also strided and in need of pivoting; singular ones are told."""
    generator = torch.Generator().manual_seed(0)
    for size in SIZES:
        matrix = torch.randn(7, size, size, generator=generator, dtype=dtype)
        matrix[3] = torch.flip(torch.eye(size, dtype=dtype), [0])  # zeros on the diagonal
        right = torch.randn(7, size, generator=generator, dtype=dtype)
        room = torch.zeros(7, size + 2, size + 1, dtype=dtype)
        room[:, :size, :size] = matrix
        strided = room.to(device)[:, :size, :size]
        found = small_kernels.solve_systems(strided, right.to(device)).cpu()
        expected = torch.linalg.solve(matrix.double(), right.double()).to(dtype)
        torch.testing.assert_close(found, expected)
    singular = torch.ones(2, 3, 3, dtype=dtype)
    singular[1, 0, 0] = torch.nan
    found = small_kernels.solve_systems(singular.to(device), torch.eye(3)[:2].to(device, dtype))
    assert not bool(torch.isfinite(found).all(dim=1).any())


def check_window(device: str, dtype: torch.dtype = torch.float32) -> None:
    """A window that fills and then goes round gives the weights and keeps the cosines of eager."""
    generator = torch.Generator().manual_seed(0)
    batch, memory, width = 5, 5, 30
    rows = torch.zeros(batch, memory, width, dtype=dtype)
    plain = torch.eye(memory, dtype=torch.float64)
    kept_here = [torch.zeros(batch, memory, memory).double(), torch.zeros(batch, memory).double()]
    kept_there = [tensor.to(device) for tensor in kept_here]
    for step in range(8):
        slot, kept = step % memory, min(step + 1, memory)
        rows[:, slot] = torch.randn(batch, width, generator=generator, dtype=dtype) * 0.3**step
        rows[0, slot] = 0  # converged
        rows[1, slot, 0] = torch.inf if step == 6 else rows[1, slot, 0]
        products: Tensor = torch.einsum("bd,bmd->bm", rows[:, slot], rows[:, :kept])
        expected = small_systems.window_weights(
            products, *kept_here, slot, 1e-8, plain[slot, :kept]
        )
        found = small_kernels.window_weights(products.to(device), *kept_there, slot, 1e-8)
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)
        for mine, theirs in zip(kept_there, kept_here, strict=True):
            torch.testing.assert_close(mine.cpu()[2:], theirs[2:])


def check_chain(device: str, dtype: torch.dtype = torch.float32) -> None:
    """Broyden's chain while it fills, drops its older half, and once samples are frozen."""
    generator = torch.Generator().manual_seed(0)
    batch, size, width = 4, 4, 12
    z0 = torch.zeros(batch, width, dtype=dtype)
    here, there = StepChain(z0, size, dtype), StepChain(z0.to(device), size, dtype)
    for step in range(11):
        image = torch.randn(batch, width, generator=generator, dtype=dtype) * 0.7**step
        image[0] = 0 if step > 2 else image[0]  # converged
        image[3] = 1.0 if step < 2 else image[3]  # an update within rounding
        frozen = torch.tensor([True, False, True, False]) if step > 7 else None
        expected = step_of(here, image, frozen, False)
        marks = None if frozen is None else frozen.to(device)
        found = step_of(there, image.to(device), marks, True)
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-4, atol=1e-5)


def step_of(
    chain: StepChain, image: Tensor, frozen: Tensor | None, fused: bool
) -> tuple[Tensor, ...]:
    """The next step, and what the chain knows of it; fused: by the kernel."""
    step_chain.in_one_launch = lambda matrix: fused
    try:
        h, gain = chain.next(image.clone(), frozen, torch.empty_like(image))
    finally:
        step_chain.in_one_launch = small_systems.in_one_launch
    k = chain.latest
    gain = torch.ones_like(h[:, :1]) if gain is None else gain
    return h, gain, chain.transfer[:, :k, :k], chain.gram[:, : k + 1, : k + 1]


if __name__ == "__main__":
    check_chain("cpu")
    check_chain("cpu", torch.float64)
    check_systems("cpu")
    check_systems("cpu", torch.float32)
    check_window("cpu")
    check_window("cpu", torch.float64)
