"""MDEQ, the multiscale deep equilibrium network (2006.08656)."""

from equipoise.models.mdeq.model import MDEQ

__all__ = ["MDEQ"]
