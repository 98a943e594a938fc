"""The domain of a survey: how many values each attribute can take.

Standard library only: this module is part of the client.
"""

from __future__ import annotations

from collections.abc import Sequence

from equipoise.privacy.errors import PrivacyError

Domain = tuple[int, ...]


def check_domain(domain: int | Sequence[int]) -> Domain:
    """Sizes of the attributes, one integer of at least 2 each; a single integer is one attribute.

    Raises PrivacyError: an attribute with one value has nothing that could be asked.
    """
    sizes = (domain,) if isinstance(domain, int) else tuple(domain)
    if not sizes:
        raise PrivacyError("The domain must name the size of at least one attribute.")
    for size in sizes:
        if isinstance(size, bool) or int(size) != size or size < 2:
            raise PrivacyError(f"Each attribute needs at least two integer values, got {size!r}.")
    return tuple(int(size) for size in sizes)


def levels_of(size: int, branching: int) -> int:
    """Smallest c with branching^c >= size; logarithms of floats would miss exact powers."""
    levels, width = 0, 1
    while width < size:
        width *= branching
        levels += 1
    return levels
