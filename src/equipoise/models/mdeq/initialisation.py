"""The first weights of MDEQ."""

from __future__ import annotations

from torch import nn

CONVOLUTION_STD = 0.01


def initialise(network: nn.Module) -> None:
    """Draw the plain convolutions and all convolutions' biases from N(0, 0.01), in place.

    Weight-normed convolutions and linear layers keep PyTorch's own first weights, and norms theirs
    of 1 and 0: so does the published code, where the normal draw never reaches a normalised weight.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=CONVOLUTION_STD)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=CONVOLUTION_STD)


def set_batch_norm_momentum(network: nn.Module, momentum: float) -> None:
    """Set how far a training step moves the running statistics of every batch norm, in place."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
