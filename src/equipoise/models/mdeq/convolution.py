"""The convolutions that every part of MDEQ is made of."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from equipoise.nn import NormalisedConv2d

WeightNorm = Literal["none", "blocks", "published", "all"]
"""Which convolutions of f have a normalised weight.

published: those of the blocks and behind the fusion, as in the papers' code; blocks, all (the
fusion's too): as in the two networks of torchdeq's zoo.
"""


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Return a convolution of odd kernel with padding (kernel - 1) / 2: stride 1 keeps the size."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=bias)


def normalised_convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1
) -> NormalisedConv2d:
    """Return a convolution without bias whose weight is normalised."""
    return NormalisedConv2d(convolution(inputs, outputs, kernel, stride))


def convolution_norm_relu(
    inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False
) -> nn.Sequential:
    """Return convolution, batch normalisation and ReLU, named `conv`, `norm` and `relu`."""
    return nn.Sequential(
        OrderedDict(
            conv=convolution(inputs, outputs, kernel, stride, bias),
            norm=nn.BatchNorm2d(outputs),
            relu=nn.ReLU(),
        )
    )
