"""The privacy budget epsilon: its bounds, and probabilities as integers that never exceed it.

Standard library only: this module is part of the client.
"""

from __future__ import annotations

import sys
from decimal import ROUND_CEILING, Context, Decimal
from functools import lru_cache

from equipoise.privacy.errors import PrivacyError

RANDOM_BITS = 64
SCALE = 2**RANDOM_BITS
LARGEST_EPSILON = 40.0  # e^40 is below 2^58: an integer of 64 bits still tells it from infinity
_EXACT = Context(prec=60)


def check_epsilon(epsilon: float) -> float:
    """epsilon as a float in (0, 40]; raises PrivacyError for anything else."""
    if not _is_number(epsilon) or not 0 < epsilon <= LARGEST_EPSILON:
        raise PrivacyError(
            f"epsilon must be a number above 0 and at most {LARGEST_EPSILON:g}, got {epsilon!r}."
        )
    return float(epsilon)


def check_limit(name: str, limit: float) -> float:
    """A bound on epsilon, finite and above 0: nan or infinity would let every epsilon pass.

    Raises PrivacyError for anything else.
    """
    if not _is_number(limit) or not 0 < limit <= sys.float_info.max:
        raise PrivacyError(f"{name} must be a finite number above 0, got {limit!r}.")
    return limit


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@lru_cache(maxsize=1024)
def probability_threshold(epsilon: float, favoured: int, others: int) -> int:
    """ceil(2^64 / (favoured e^epsilon + others)): the probability of an unlikely output.

    A uniform integer of 64 bits is below it with that probability. Rounding up makes the unlikely
    output a little more likely, so the ratio that an observer sees stays at most e^epsilon.
    """
    weight = _EXACT.multiply(Decimal(favoured), _EXACT.exp(Decimal(epsilon)))
    share = _EXACT.divide(Decimal(SCALE), _EXACT.add(weight, Decimal(others)))
    return int(share.to_integral_value(ROUND_CEILING))
