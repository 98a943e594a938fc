"""TrellisNet (1810.06682) and the equilibrium of its level (1909.01377)."""

from equipoise.models.trellisnet.deq_trellisnet import DEQTrellisNet
from equipoise.models.trellisnet.trellisnet import TrellisNet

__all__ = ["DEQTrellisNet", "TrellisNet"]
