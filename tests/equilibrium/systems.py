"""Four small contracting systems z = f(z, x) with everything that a gradient test needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from equipoise.equilibrium.state import Function, Layout, State, detached, parts

BATCH = 3


@dataclass(frozen=True)
class System:
    """f with its start state, its input and the parameters that it reads by closure."""

    f: Function
    z0: State
    x: Tensor
    parameters: tuple[Tensor, ...]

    @property
    def sources(self) -> tuple[Tensor, ...]:
        """All that a gradient is wanted for."""
        return (*self.parameters, self.x)

    def rows(self, rows: slice) -> System:
        """The same system on some of the samples."""
        z0 = tuple(part[rows] for part in parts(self.z0))
        x = self.x.detach()[rows].clone().requires_grad_()
        return System(self.f, z0 if isinstance(self.z0, tuple) else z0[0], x, self.parameters)


def leaf(*shape: int, scale: float, seed: int, dtype: torch.dtype) -> Tensor:
    """A Gaussian leaf tensor that requires a gradient."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
    return values.to(dtype).requires_grad_()


def dense(dtype: torch.dtype = torch.float64, batch: int = BATCH) -> System:
    """z = tanh(W z + x), 12 units."""
    weight = leaf(12, 12, scale=0.2, seed=1, dtype=dtype)
    x = leaf(batch, 12, scale=1.0, seed=2, dtype=dtype)

    def f(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(functional.linear(z, weight) + x)

    return System(f, torch.zeros_like(x.detach()), x, (weight,))


def convolution(dtype: torch.dtype = torch.float64, batch: int = BATCH) -> System:
    """z = tanh(conv(norm(z)) + x), 4 channels of 4 by 4, one group norm."""
    weight = leaf(4, 4, 3, 3, scale=0.08, seed=3, dtype=dtype)
    gain = (1 + leaf(4, scale=0.1, seed=4, dtype=dtype)).detach().requires_grad_()
    x = leaf(batch, 4, 4, 4, scale=1.0, seed=5, dtype=dtype)

    def f(z: Tensor, x: Tensor) -> Tensor:
        normed = functional.group_norm(z, 2, gain)
        return torch.tanh(functional.conv2d(normed, weight, padding=1) + x)

    return System(f, torch.zeros_like(x.detach()), x, (weight, gain))


def attention(dtype: torch.dtype = torch.float64, batch: int = BATCH) -> System:
    """z = norm(x + attention(z)), 5 tokens of 6 features, 2 heads, fused kernel."""
    inward = leaf(18, 6, scale=0.3, seed=6, dtype=dtype)
    outward = leaf(6, 6, scale=0.2, seed=7, dtype=dtype)
    x = leaf(batch, 5, 6, scale=1.0, seed=8, dtype=dtype)

    def f(z: Tensor, x: Tensor) -> Tensor:
        projected = functional.linear(z, inward).unflatten(2, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(*projected.unbind(0))
        mixed = functional.linear(heads.transpose(1, 2).flatten(2), outward)
        return functional.layer_norm(x + mixed, (6,))

    return System(f, torch.zeros_like(x.detach()), x, (inward, outward))


def two_branches(dtype: torch.dtype = torch.float64, batch: int = BATCH) -> System:
    """A state of two parts of different shape, each fed by both."""
    up = leaf(8, 5, scale=0.25, seed=9, dtype=dtype)
    down = leaf(5, 8, scale=0.25, seed=10, dtype=dtype)
    x = leaf(batch, 8, scale=1.0, seed=11, dtype=dtype)

    def f(z: State, x: Tensor) -> State:
        fine, coarse = z
        return (
            torch.tanh(functional.linear(coarse.flatten(1), up) + 0.3 * fine + x),
            torch.sigmoid(functional.linear(fine, down)).unsqueeze(2),
        )

    fine = torch.zeros_like(x.detach())
    return System(f, (fine, fine.new_zeros(batch, 5, 1)), x, (up, down))


SYSTEMS: dict[str, Callable[..., System]] = {
    "dense": dense,
    "convolution": convolution,
    "attention": attention,
    "two_branches": two_branches,
}


def fixed_point(system: System) -> State:
    """The solution by plain iteration, to rounding."""
    z = system.z0
    with torch.no_grad():
        for _ in range(200):
            z = system.f(z, system.x)
    return z


def cotangent(state: State) -> tuple[Tensor, ...]:
    """A fixed Gaussian cotangent for every part of the state."""
    generator = torch.Generator().manual_seed(99)
    return tuple(
        torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part.dtype)
        for part in parts(state)
    )


def loss(state: State) -> Tensor:
    """<cotangent, state>: a loss whose gradient at the state is the fixed cotangent."""
    pairs = zip(cotangent(state), parts(state), strict=True)
    return torch.stack([(c * part).sum() for c, part in pairs]).sum()


def dense_gradient(system: System) -> tuple[Tensor, ...]:
    """The gradient of `loss` at the fixed point by a dense solve of (I - J^T) w = c per sample."""
    z = detached(fixed_point(system))
    fz = system.f(z, system.x)
    layout = Layout.of(z)
    c = layout.flatten(_like(z, cotangent(z)))
    width = c.shape[1]
    unit = torch.eye(width, dtype=c.dtype)
    columns = []
    for i in range(width):  # row i of J for every sample at once: no sample reads another
        probe = parts(layout.restore(unit[i].expand_as(c).contiguous()))
        row = torch.autograd.grad(
            parts(fz), parts(z), probe, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        columns.append(layout.flatten(_like(z, row)))
    transposed = torch.stack(columns, dim=2)  # (B, D, D), J^T
    w = torch.linalg.solve(unit - transposed, c.unsqueeze(2)).squeeze(2)
    return torch.autograd.grad(parts(fz), system.sources, parts(layout.restore(w)))


def _like(state: State, tensors: tuple[Tensor, ...]) -> State:
    return tensors if isinstance(state, tuple) else tensors[0]


def joined(gradients: tuple[Tensor, ...]) -> Tensor:
    """All gradients as one vector."""
    return torch.cat([gradient.flatten() for gradient in gradients])


def relative_error(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """|found - expected| / |expected| over all gradients together."""
    return float((joined(found) - joined(expected)).norm() / joined(expected).norm())


def cosine(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Cosine between two gradients, over all sources together."""
    return float(functional.cosine_similarity(joined(found), joined(expected), dim=0))
