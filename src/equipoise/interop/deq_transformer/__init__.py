"""The published equilibrium transformer, in both versions of its code.

Source: 1909.01377 (code of 2020), 2106.14342 (code of 2021).
"""

from equipoise.interop.deq_transformer.configuration import overrides
from equipoise.interop.deq_transformer.model import from_reference, reference_forward

__all__ = ["from_reference", "overrides", "reference_forward"]
