"""The published graph transformers for couplings: their words, weights and recorded arrays."""

from equipoise.interop.coupling_transformer.configuration import overrides
from equipoise.interop.coupling_transformer.model import from_reference, reference_forward

__all__ = ["from_reference", "overrides", "reference_forward"]
