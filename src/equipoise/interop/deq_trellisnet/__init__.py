"""The published equilibrium trellis network.

Source: 1909.01377 (code of 2020).
"""

from equipoise.interop.deq_trellisnet.configuration import overrides
from equipoise.interop.deq_trellisnet.model import from_reference, reference_forward

__all__ = ["from_reference", "overrides", "reference_forward"]
