"""The published explicit trellis network.

Source: 1810.06682.
"""

from equipoise.interop.trellisnet.configuration import overrides
from equipoise.interop.trellisnet.model import from_reference, reference_forward

__all__ = ["from_reference", "overrides", "reference_forward"]
