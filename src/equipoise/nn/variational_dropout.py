"""Variational dropout: one mask per forward, the same for every evaluation of the cell."""

from __future__ import annotations

import torch
from torch import Tensor


def sequence_mask(like: Tensor, shape: tuple[int, ...], probability: float) -> Tensor:
    """Draw a mask of Bernoulli(1 - probability) / (1 - probability) on the device of `like`.

    It has the dtype of `like` and mean 1; a dimension of size 1, such as time in (B, 1, C), shares
    its entries. Draw it once per forward and pass it to the equilibrium layer as an input of
    f: the map then stays the same from the first evaluation to the backward pass.

    Source: Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent
    neural networks" (arXiv 1512.05287); in equilibrium models 1909.01377.
    Raises ValueError if the probability lies outside [0, 1).
    """
    if not 0 <= probability < 1:
        raise ValueError(f"A dropout probability must lie in [0, 1), got {probability}.")
    kept = 1 - probability
    return torch.bernoulli(like.new_full(shape, kept)).div_(kept)


def channel_mask(like: Tensor, channels: int, probability: float) -> Tensor:
    """Draw a mask (B, channels, 1, 1) for `like` (B, ...): it drops whole channels."""
    return sequence_mask(like, (like.shape[0], channels, 1, 1), probability)


def apply_mask(features: Tensor, mask: Tensor | None) -> Tensor:
    """`features` (B, C, H, W) times the mask (B, C, 1, 1), or as they are without one."""
    return features if mask is None else features * mask
