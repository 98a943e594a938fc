"""The published equilibrium transformer, in both versions of its code.

Source: 1909.01377 (code of 2020), 2106.14342 (code of 2021).
"""

from equipoise.interop.deq_transformer.forward import reference_forward
from equipoise.interop.deq_transformer.model import from_reference, overrides

__all__ = ["from_reference", "overrides", "reference_forward"]
