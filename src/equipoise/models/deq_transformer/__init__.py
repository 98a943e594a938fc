"""The equilibrium transformer (1909.01377)."""

from equipoise.models.deq_transformer.model import DEQTransformer

__all__ = ["DEQTransformer"]
