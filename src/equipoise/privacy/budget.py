"""The privacy budget epsilon: its bounds, and probabilities as integers that never exceed it.

Standard library only: this module is part of the client.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context, Decimal
from functools import lru_cache

from equipoise.privacy.errors import PrivacyError

RANDOM_BITS = 64
SCALE = 2**RANDOM_BITS
LARGEST_EPSILON = 40.0  # e^40 is below 2^58: an integer of 64 bits still tells it from infinity
_EXACT = Context(prec=60)


def check_epsilon(epsilon: float) -> float:
    """epsilon as a float in (0, 40]; raises PrivacyError for anything else."""
    number = isinstance(epsilon, (int, float)) and not isinstance(epsilon, bool)
    if not number or not math.isfinite(epsilon) or not 0 < epsilon <= LARGEST_EPSILON:
        raise PrivacyError(
            f"epsilon must be a number above 0 and at most {LARGEST_EPSILON:g}, got {epsilon!r}."
        )
    return float(epsilon)


@lru_cache(maxsize=1024)
def probability_threshold(epsilon: float, favoured: int, others: int) -> int:
    """ceil(2^64 / (favoured e^epsilon + others)): the probability of an unlikely output.

    A uniform integer of 64 bits is below it with that probability. Rounding up makes the unlikely
    output a little more likely, so the ratio that an observer sees stays at most e^epsilon.
    """
    weight = _EXACT.multiply(Decimal(favoured), _EXACT.exp(Decimal(epsilon)))
    share = _EXACT.divide(Decimal(SCALE), _EXACT.add(weight, Decimal(others)))
    return int(share.to_integral_value(ROUND_CEILING))
