"""Small contracting networks with the same weights on every device, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.equilibrium import Equilibrium, State
from equipoise.equilibrium.state import parts
from equipoise.models import MDEQ

CUDA = torch.device("cuda")
CPU = torch.device("cpu")
BATCH = 5


class Dense(nn.Module):
    """z = tanh(W z + x), 24 units."""

    shape = (24,)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(24, 24)
        nn.init.normal_(self.linear.weight, std=0.6 / 24**0.5)

    def start(self, x: Tensor) -> State:
        return torch.zeros_like(x)

    def forward(self, z: Tensor, x: Tensor) -> State:
        return torch.tanh(self.linear(z) + x)


class Convolution(nn.Module):
    """z = tanh(conv(norm(z)) + x), 8 channels of 6 by 6."""

    shape = (8, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 8)
        self.convolution = nn.Conv2d(8, 8, 3, padding=1)
        nn.init.normal_(self.convolution.weight, std=0.04)

    def start(self, x: Tensor) -> State:
        return torch.zeros_like(x)

    def forward(self, z: Tensor, x: Tensor) -> State:
        return torch.tanh(self.convolution(self.norm(z)) + x)


class TwoBranches(nn.Module):
    """A state of two parts, each fed by both."""

    shape = (16,)

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(16, 6), nn.Linear(6, 16)

    def start(self, x: Tensor) -> State:
        return torch.zeros_like(x), x.new_zeros(len(x), 6, 1)

    def forward(self, z: tuple[Tensor, Tensor], x: Tensor) -> State:
        fine, coarse = z
        new = torch.tanh(self.up(coarse.squeeze(2)) + 0.3 * fine + x)
        return new, torch.sigmoid(self.down(fine)).unsqueeze(2)


CELLS: dict[str, type[nn.Module]] = {
    "dense": Dense,
    "convolution": Convolution,
    "two_branches": TwoBranches,
}


def cell(name: str, device: torch.device) -> tuple[nn.Module, State, Tensor]:
    """f in float64 with its start and its input, the same numbers whatever the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        f = CELLS[name]().double()
        x = torch.randn(BATCH, *cast(tuple[int, ...], f.shape), dtype=torch.float64)
    f, x = f.to(device), x.to(device).requires_grad_()
    return f, cast(Callable[[Tensor], State], f.start)(x.detach()), x


def gradients(name: str, layer: Equilibrium, device: torch.device) -> list[Tensor]:
    """The state and the gradients of weights and input, on the CPU."""
    f, z0, x = cell(name, device)
    state = parts(layer(f, z0, x))
    # A loss that weighs every number of the state by itself.
    weights = [
        torch.linspace(-1, 2, part.numel(), dtype=part.dtype).view(part.shape).to(device)
        for part in state
    ]
    torch.stack([(w * part).sum() for w, part in zip(weights, state, strict=True)]).sum().backward()
    found = [*state, x.grad, *(parameter.grad for parameter in f.parameters())]
    return [tensor.detach().cpu() for tensor in found if tensor is not None]


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest |found - expected| / |expected| of the tensors."""
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in pairs)


def mdeq(equilibrium: Equilibrium, size: str = "tiny") -> MDEQ:
    """MDEQ for CIFAR-10 pictures, in training mode, on the GPU."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MDEQ(equilibrium, classes=10, image_size=32, size=size)  # type: ignore[arg-type]
    return network.to(CUDA).train()


def pictures(batch: int) -> tuple[Tensor, Tensor]:
    """Random pictures (B, 3, 32, 32) and their labels, on the GPU."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, 3, 32, 32, generator=generator)
    label = torch.randint(10, (batch,), generator=generator)
    return image.to(CUDA), label.to(CUDA)


def loss_of(network: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy, in float32."""
    return functional.cross_entropy(network(image).float(), label)


def gradient_of(network: nn.Module) -> Tensor:
    """All gradients as one vector, in float64."""
    grads = [p.grad.flatten().double() for p in network.parameters() if p.grad is not None]
    return torch.cat(grads)
