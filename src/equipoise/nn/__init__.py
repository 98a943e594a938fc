"""Building blocks that several models share."""

from equipoise.nn.variational_dropout import apply_mask, channel_mask
from equipoise.nn.weight_norm import NormalisedConv2d, NormalisedWeight, weights_computed_once

__all__ = [
    "NormalisedConv2d",
    "NormalisedWeight",
    "apply_mask",
    "channel_mask",
    "weights_computed_once",
]
