"""Variational dropout of sequences: one mask for all time steps and all evaluations of the cell."""

from __future__ import annotations

import torch
from torch import Tensor


def sequence_mask(like: Tensor, shape: tuple[int, ...], probability: float) -> Tensor:
    """Draw a mask of Bernoulli(1 - probability) / (1 - probability) on the device of `like`.

    A dimension of size 1, as the time in (B, 1, C), shares its entries. Draw it once a forward and
    hand it to the equilibrium layer as an input of f.

    Source: Gal and Ghahramani 2016 (arXiv 1512.05287); in equilibrium models 1909.01377.
    Raises ValueError when the probability lies outside [0, 1).
    """
    if not 0 <= probability < 1:
        raise ValueError(f"A dropout probability lies in [0, 1), it is {probability}.")
    kept = 1 - probability
    return torch.bernoulli(like.new_full(shape, kept)).div_(kept)
