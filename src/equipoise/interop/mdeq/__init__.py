"""The published MDEQ, in all the versions of its code.

Source: 2006.08656 (code of 2020), 2106.14342 (code of 2021), 2111.05177 (phantom gradient) and the
two networks of torchdeq's zoo, 2310.18605.
"""

from equipoise.interop.mdeq.configuration import overrides
from equipoise.interop.mdeq.model import from_reference, reference_forward
from equipoise.interop.mdeq.weights import in_our_names

__all__ = ["from_reference", "in_our_names", "overrides", "reference_forward"]
