"""The published graph transformers for couplings: their words, weights and recorded arrays."""

from equipoise.interop.coupling_transformer.configuration import overrides
from equipoise.interop.coupling_transformer.model import (
    from_reference,
    in_our_names,
    reference_forward,
)

__all__ = ["from_reference", "in_our_names", "overrides", "reference_forward"]
