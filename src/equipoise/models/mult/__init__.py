"""MulT: crossmodal attention over unaligned language, audio and vision (1906.00295)."""

from equipoise.models.mult.model import MulT

__all__ = ["MulT"]
