"""Building blocks that several models share."""

from equipoise.nn.variational_dropout import apply_mask, channel_mask
from equipoise.nn.weight_norm import normalise_weight, weights_computed_once

__all__ = ["apply_mask", "channel_mask", "normalise_weight", "weights_computed_once"]
