"""The published explicit trellis network.

Source: 1810.06682.
"""

from equipoise.interop.trellisnet.forward import reference_forward
from equipoise.interop.trellisnet.model import from_reference, overrides

__all__ = ["from_reference", "overrides", "reference_forward"]
