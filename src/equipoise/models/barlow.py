"""Barlow Twins: an encoder of images and a projector, trained on two views of each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Biases = Literal["none", "last", "all"]


class Embeddings(NamedTuple):
    """What the two views become: the projector's outputs (B, d), and the encoder's (B, h)."""

    first: Tensor
    second: Tensor
    first_features: Tensor
    second_features: Tensor


class BarlowTwins(nn.Module):
    """Two views (B, C, H, W) of the same images, encoded and projected by the same weights.

    The encoder's features are what is used later; the projector serves only the loss.

    Sources: 2103.03230, section 2; 2104.13712. An equilibrium encoder was not published.
    """

    head_parts = ("projector",)

    def __init__(
        self,
        equilibrium: nn.Module | None = None,
        *,
        encoder: Callable[..., nn.Module],
        projector: Sequence[int] = (512, 128),
        projector_biases: Biases = "last",
    ) -> None:
        """Build the encoder, followed by a projector of these widths; the last is its output's.

        encoder: builds the encoder, a module whose `features` is the width of its output (B,
        features); it is given the equilibrium layer if there is one. projector_biases: which linear
        layers have a bias; all but the last are followed by batch norm and ReLU.
        """
        super().__init__()
        self.encoder = encoder() if equilibrium is None else encoder(equilibrium)
        width = self.encoder.features
        assert isinstance(width, int)
        self.projector = projector_of([width, *projector], projector_biases)
        # With an equilibrium, one solve finds both views' states, and batch norms see both. Without
        # one, each view has its own batch statistics, as published.
        self.joined = equilibrium is not None

    @property
    def width(self) -> int:
        """The width d of the embeddings."""
        last = self.projector[-1]
        assert isinstance(last, nn.Linear)
        return last.out_features

    def forward(self, first: Tensor, second: Tensor) -> Embeddings:
        """The embeddings of both views, (B, d), and their features, (B, h)."""
        if self.joined:
            features = self.encoder(torch.cat([first, second])).chunk(2)
        else:
            features = (self.encoder(first), self.encoder(second))
        return Embeddings(*(self.projector(part) for part in features), *features)


def projector_of(widths: Sequence[int], biases: Biases) -> nn.Sequential:
    """Linear maps between successive widths, batch norm and ReLU between them.

    Raises ValueError if there is no width after the first.
    """
    if len(widths) < 2:
        raise ValueError("the projector needs at least one width, such as [512, 128]")
    layers: list[nn.Module] = []
    for source, target in pairwise(widths[:-1]):
        layers += [nn.Linear(source, target, bias=biases == "all"), nn.BatchNorm1d(target)]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=biases != "none"))
