"""Building blocks that several models share."""

from equipoise.nn.computed_weight import ComputedWeight, weights_computed_once
from equipoise.nn.spectral_norm import SpectralConv2d, SpectralLinear, SpectralWeight
from equipoise.nn.variational_dropout import apply_mask, channel_mask
from equipoise.nn.weight_norm import NormalisedConv2d, NormalisedLinear, NormalisedWeight

__all__ = [
    "ComputedWeight",
    "NormalisedConv2d",
    "NormalisedLinear",
    "NormalisedWeight",
    "SpectralConv2d",
    "SpectralLinear",
    "SpectralWeight",
    "apply_mask",
    "channel_mask",
    "weights_computed_once",
]
