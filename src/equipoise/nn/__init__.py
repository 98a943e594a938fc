"""Building blocks that several models share."""

from equipoise.nn.adaptive_softmax import AdaptiveEmbedding, AdaptiveSoftmax, VocabularyClusters
from equipoise.nn.computed_weight import (
    INITIAL_STD,
    ComputedWeight,
    NormalisedConv2d,
    NormalisedLinear,
    NormalisedWeight,
    SpectralConv2d,
    SpectralLinear,
    SpectralWeight,
    linear,
    weights_computed_once,
)
from equipoise.nn.cross_correlation import RedundancyReduction, Terms, cross_correlation
from equipoise.nn.kernel_attention import AttentionForm, KernelAttention, KernelSmoother, Scene
from equipoise.nn.learned_start import LearnedImageStart, LearnedSequenceStart, LearnedStart
from equipoise.nn.positional_kernels import PositionTable, SetFilter
from equipoise.nn.relative_attention import AttentionScene, RelativeAttention, SinusoidalPositions
from equipoise.nn.variational_dropout import apply_mask, channel_mask, sequence_mask

__all__ = [
    "INITIAL_STD",
    "AdaptiveEmbedding",
    "AdaptiveSoftmax",
    "AttentionForm",
    "AttentionScene",
    "ComputedWeight",
    "KernelAttention",
    "KernelSmoother",
    "LearnedImageStart",
    "LearnedSequenceStart",
    "LearnedStart",
    "NormalisedConv2d",
    "NormalisedLinear",
    "NormalisedWeight",
    "PositionTable",
    "RedundancyReduction",
    "RelativeAttention",
    "Scene",
    "SetFilter",
    "SinusoidalPositions",
    "SpectralConv2d",
    "SpectralLinear",
    "SpectralWeight",
    "Terms",
    "VocabularyClusters",
    "apply_mask",
    "channel_mask",
    "cross_correlation",
    "linear",
    "sequence_mask",
    "weights_computed_once",
]
