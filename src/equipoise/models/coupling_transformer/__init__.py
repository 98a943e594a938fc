"""The graph transformer for nuclear spin-spin couplings (2008.05994)."""

from equipoise.models.coupling_transformer.model import CouplingTransformer

__all__ = ["CouplingTransformer"]
