"""Variational dropout: one mask a forward, the same for every evaluation of the cell."""

from __future__ import annotations

import torch
from torch import Tensor


def channel_mask(like: Tensor, channels: int, probability: float) -> Tensor:
    """Draw a mask (B, channels, 1, 1) of Bernoulli(1 - probability) / (1 - probability).

    It drops whole channels, on the device and in the dtype of `like` (B, ...), and its mean is 1.
    Draw it once a forward and hand it to the equilibrium layer as an input of f: the map then
    stays the same from the first evaluation to the backward.

    Source: Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent
    neural networks"; in equilibrium models 1909.01377.
    Raises ValueError when the probability lies outside [0, 1).
    """
    if not 0 <= probability < 1:
        raise ValueError(f"A dropout probability lies in [0, 1), it is {probability}.")
    kept = 1 - probability
    ones = like.new_full((like.shape[0], channels, 1, 1), kept)
    return torch.bernoulli(ones).div_(kept)


def apply_mask(features: Tensor, mask: Tensor | None) -> Tensor:
    """Return `features` (B, C, H, W) times the mask (B, C, 1, 1), or as they are without one."""
    return features if mask is None else features * mask
