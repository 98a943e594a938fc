"""Published Barlow Twins and its HSIC form: losses in their words, encoders and projectors by name.

Sources: 2103.03230 and 2104.13712, the code published with each, and solo-learn (2108.01775).
"""

from equipoise.interop.barlow.layouts import in_our_names
from equipoise.interop.barlow.model import from_reference, overrides, reference_forward

__all__ = ["from_reference", "in_our_names", "overrides", "reference_forward"]
