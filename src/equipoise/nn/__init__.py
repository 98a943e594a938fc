"""Building blocks that several models share."""

from equipoise.nn.adaptive_embedding import AdaptiveEmbedding
from equipoise.nn.adaptive_softmax import AdaptiveSoftmax
from equipoise.nn.computed_weight import ComputedWeight, weights_computed_once
from equipoise.nn.linear import INITIAL_STD, linear
from equipoise.nn.positions import SinusoidalPositions
from equipoise.nn.relative_attention import AttentionScene, RelativeAttention
from equipoise.nn.sequence_mask import sequence_mask
from equipoise.nn.spectral_norm import SpectralConv2d, SpectralLinear, SpectralWeight
from equipoise.nn.variational_dropout import apply_mask, channel_mask
from equipoise.nn.vocabulary_clusters import VocabularyClusters
from equipoise.nn.weight_norm import NormalisedConv2d, NormalisedLinear, NormalisedWeight

__all__ = [
    "INITIAL_STD",
    "AdaptiveEmbedding",
    "AdaptiveSoftmax",
    "AttentionScene",
    "ComputedWeight",
    "NormalisedConv2d",
    "NormalisedLinear",
    "NormalisedWeight",
    "RelativeAttention",
    "SinusoidalPositions",
    "SpectralConv2d",
    "SpectralLinear",
    "SpectralWeight",
    "VocabularyClusters",
    "apply_mask",
    "channel_mask",
    "linear",
    "sequence_mask",
    "weights_computed_once",
]
