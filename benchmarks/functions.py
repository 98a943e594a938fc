"""The three functions on which everything is timed: dense, convolution block, transformer layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class TimedFunction:
    """f(z, x) -> state of z's shape, with a start z0 and an injection x."""

    name: str
    f: nn.Module
    z0: Tensor
    x: Tensor


class Dense(nn.Module):
    """tanh(W z + U x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.state = nn.Linear(width, width, bias=False)
        self.injection = nn.Linear(width, width)
        nn.init.normal_(self.state.weight, std=0.8 / width**0.5)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """(B, D), (B, D) -> (B, D)."""
        return torch.tanh(self.state(z) + self.injection(x))


class ConvolutionBlock(nn.Module):
    """The residual block of a multiscale equilibrium network, which widens inside.

    Source: Bai et al. 2020 (arXiv 2006.08656), section 3.2.
    """

    def __init__(self, channels: int, wide: int, groups: int = 8) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, wide, 3, padding=1, bias=False)
        self.narrow = nn.Conv2d(wide, channels, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, wide)
        self.norm2 = nn.GroupNorm(groups, channels)
        self.norm3 = nn.GroupNorm(groups, channels)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """(B, C, H, W), (B, C, H, W) -> (B, C, H, W)."""
        inside = functional.relu(self.norm1(self.widen(z)))
        outside = self.norm2(self.narrow(inside) + x) + z
        output: Tensor = self.norm3(functional.relu(outside))
        return output


class TransformerLayer(nn.Module):
    """Self-attention and a feed-forward network, each followed by a layer norm; x is injected.

    Source: Bai et al. 2019 (arXiv 1909.01377), section 3.1.
    """

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width)
        )
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """(B, T, D), (B, T, D) -> (B, T, D)."""
        batch, length, width = z.shape
        projected = self.project(z + x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        merged = self.output(attended.transpose(1, 2).reshape(batch, length, width))
        state = self.norm1(z + x + merged)
        result: Tensor = self.norm2(state + self.feed_forward(state))
        return result


def dense(device: str = "cpu") -> TimedFunction:
    """128 samples, 256 wide."""
    return _timed("dense", lambda: Dense(256), (128, 256), device)


def convolution(device: str = "cpu") -> TimedFunction:
    """16 samples, 32 -> 160 -> 32 channels on 32 x 32: 32,768 numbers a sample."""
    return _timed("convolution", lambda: ConvolutionBlock(32, 160), (16, 32, 32, 32), device)


def attention(device: str = "cpu") -> TimedFunction:
    """8 samples, 128 tokens, 256 wide, 4 heads, 1,024 inside: 32,768 numbers a sample."""
    return _timed("attention", lambda: TransformerLayer(256, 4, 1024), (8, 128, 256), device)


FUNCTIONS = (dense, convolution, attention)


def _timed(
    name: str, build: Callable[[], nn.Module], shape: tuple[int, ...], device: str
) -> TimedFunction:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        f = build().to(device)
        x = torch.randn(shape).to(device)
    return TimedFunction(name, f, torch.zeros_like(x), x)
