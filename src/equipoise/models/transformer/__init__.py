"""The equilibrium transformer (1909.01377), and the explicit one whose layers share weights."""

from equipoise.models.transformer.deq_transformer import DEQTransformer
from equipoise.models.transformer.transformer import Transformer

__all__ = ["DEQTransformer", "Transformer"]
