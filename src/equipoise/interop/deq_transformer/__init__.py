"""The published equilibrium transformer, in both versions of its code.

Source: 1909.01377 (code of 2020), 2106.14342 (code of 2021).
"""

from equipoise.interop.deq_transformer.configuration import overrides
from equipoise.interop.deq_transformer.model import from_reference, reference_forward
from equipoise.interop.deq_transformer.weights import in_our_names

__all__ = ["from_reference", "in_our_names", "overrides", "reference_forward"]
