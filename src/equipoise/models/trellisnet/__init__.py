"""TrellisNet (1810.06682) and the equilibrium of its level (1909.01377)."""

from equipoise.models.trellisnet.equilibrium_model import DEQTrellisNet
from equipoise.models.trellisnet.explicit_model import TrellisNet

__all__ = ["DEQTrellisNet", "TrellisNet"]
