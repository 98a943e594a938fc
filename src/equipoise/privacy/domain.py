"""The domain of a survey: how many values each attribute can take.

Standard library only: this module is part of the client.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral

from equipoise.privacy.errors import PrivacyError

Domain = tuple[int, ...]


def check_domain(domain: int | Sequence[int]) -> Domain:
    """Sizes of the attributes, one integer of at least 2 each; a single integer is one attribute.

    Raises PrivacyError: an attribute with one value has nothing that could be asked.
    """
    sizes = tuple(domain) if isinstance(domain, Iterable) else (domain,)
    if not sizes:
        raise PrivacyError("The domain must name the size of at least one attribute.")
    for size in sizes:
        if not _is_whole(size) or size < 2:
            raise PrivacyError(f"Each attribute needs at least two integer values, got {size!r}.")
    return tuple(int(size) for size in sizes)


def _is_whole(size: object) -> bool:
    """Whether it is an integer, also one of numpy's, or a float without a fraction."""
    if isinstance(size, float):
        return size.is_integer()
    return isinstance(size, Integral) and not isinstance(size, bool)


def levels_of(size: int, branching: int) -> int:
    """Smallest c with branching^c >= size; logarithms of floats would miss exact powers."""
    levels, width = 0, 1
    while width < size:
        width *= branching
        levels += 1
    return levels
