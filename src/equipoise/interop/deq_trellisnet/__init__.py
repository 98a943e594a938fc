"""The published equilibrium trellis network.

Source: 1909.01377 (code of 2020).
"""

from equipoise.interop.deq_trellisnet.forward import reference_forward
from equipoise.interop.deq_trellisnet.model import from_reference, overrides

__all__ = ["from_reference", "overrides", "reference_forward"]
