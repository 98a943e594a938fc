"""How a client blurs its cell: integers from a secure source, compared with integer thresholds.

Each function returns the payload of a report: bits in little-endian order, pad bits zero.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable
from decimal import ROUND_CEILING, Context, Decimal
from functools import lru_cache

from equipoise.privacy.client.round import RoundDescription

RandomBytes = Callable[[int], bytes]
RANDOM_BITS = 64
RANDOM_BYTES = RANDOM_BITS // 8
SCALE = 2**RANDOM_BITS
_EXACT = Context(prec=60)
_DIGITS = b"01" + bytes(254)


def randomize(
    description: RoundDescription, cell: int, random_bytes: RandomBytes = os.urandom
) -> bytes:
    """The payload that a client holding `cell` sends; epsilon-locally differentially private."""
    cells, outputs, epsilon = len(description.cells), description.outputs, description.epsilon
    if description.randomizer == "oue":
        return unary_encoding(cell, outputs, epsilon, random_bytes)
    if description.randomizer == "grr":
        return one_hot(randomized_response(cell, outputs, epsilon, random_bytes), outputs)
    if description.randomizer == "square_wave":
        radius = (outputs - cells) // 2
        return one_hot(square_wave(cell, cells, radius, epsilon, random_bytes), outputs)
    return one_hot(haar_hadamard(cell, outputs // 2, epsilon, random_bytes), outputs)


def unary_encoding(cell: int, cells: int, epsilon: float, random_bytes: RandomBytes) -> bytes:
    """OUE: bit i is 1 with probability 1/2 if i is the cell, else 1 / (e^epsilon + 1).

    Source: Wang et al. 2017 (USENIX Security), section 4.3.
    """
    draws = array("Q", random_bytes(RANDOM_BYTES * cells))
    bits = bytearray(map(probability_threshold(epsilon, 1, 1).__gt__, draws))
    bits[cell] = draws[cell] < SCALE // 2
    return packed(bits)


def randomized_response(cell: int, cells: int, epsilon: float, random_bytes: RandomBytes) -> int:
    """GRR: the cell with probability e^epsilon / (e^epsilon + k - 1), else another one."""
    return _favour(cell, 1, cells, probability_threshold(epsilon, 1, cells - 1), random_bytes)


def square_wave(
    cell: int, cells: int, radius: int, epsilon: float, random_bytes: RandomBytes
) -> int:
    """Square wave: one of cells + 2 radius values; the 2 radius + 1 around the cell are e^epsilon
    times as likely as the rest. Source: Li et al. 2020 (SIGMOD), section 5 (discrete form).
    """
    window = 2 * radius + 1
    threshold = probability_threshold(epsilon, window, cells - 1)
    return _favour(cell, window, cells + 2 * radius, threshold, random_bytes)


def haar_hadamard(cell: int, nodes: int, epsilon: float, random_bytes: RandomBytes) -> int:
    """HRR of a signed node: 2 j + b, with j uniform and b a blurred entry of the Hadamard matrix.

    Cell 2 i is the left half of node i, cell 2 i + 1 its right half; nodes is a power of 2.
    Source: Cormode, Kulkarni and Srivastava 2019 (PVLDB 12), section 4.3.
    """
    row = _draw(random_bytes) % nodes
    negative = (cell & 1) ^ (((cell >> 1) & row).bit_count() & 1)
    flipped = _draw(random_bytes) < probability_threshold(epsilon, 1, 1)
    return 2 * row + (1 - (negative ^ flipped))


def square_wave_radius(cells: int, epsilon: float) -> int:
    """b = floor(cells (eps e^eps - e^eps + 1) / (2 e^eps (e^eps - 1 - eps))).

    It maximises the mutual information between value and report (Li et al. 2020, eq. 8).
    """
    beyond = math.expm1(epsilon) - epsilon
    information = epsilon * math.exp(epsilon) - math.expm1(epsilon)
    return math.floor(cells * information / (2 * math.exp(epsilon) * beyond))


@lru_cache(maxsize=1024)
def probability_threshold(epsilon: float, favoured: int, others: int) -> int:
    """ceil(2^64 / (favoured e^epsilon + others)): the probability of an unlikely output.

    A uniform integer of 64 bits is below it with that probability. Rounding up makes the unlikely
    output a little more likely, so the ratio that an observer sees stays at most e^epsilon.
    """
    weight = _EXACT.multiply(Decimal(favoured), _EXACT.exp(Decimal(epsilon)))
    share = _EXACT.divide(Decimal(SCALE), _EXACT.add(weight, Decimal(others)))
    return int(share.to_integral_value(ROUND_CEILING))


def packed(bits: bytearray) -> bytes:
    """Zeros and ones, a byte each, as the payload that holds them as bits."""
    digits = bits[::-1].translate(_DIGITS)  # the text of a number starts with its highest bit
    return int(digits, 2).to_bytes((len(bits) + 7) // 8, "little")


def one_hot(output: int, outputs: int) -> bytes:
    """The payload with the single bit `output`."""
    payload = bytearray((outputs + 7) // 8)
    payload[output >> 3] = 1 << (output & 7)
    return bytes(payload)


def _favour(
    first: int, window: int, outputs: int, threshold: int, random_bytes: RandomBytes
) -> int:
    """An output; each outside [first, first + window) has probability threshold / 2^64.

    Draws in the remainder of the division are repeated, as they would favour some outputs. Both
    outcomes are computed and one is picked, as the time of a branch would reveal which it was.
    """
    favoured = (SCALE - (outputs - window) * threshold) // window
    while True:
        draw = _draw(random_bytes)
        other = (draw - window * favoured) // threshold
        beyond = other + window * (other >= first)
        near = first + draw // favoured
        if other < outputs - window:  # whatever `first` is
            return (near, beyond)[draw >= window * favoured]


def _draw(random_bytes: RandomBytes) -> int:
    return int.from_bytes(random_bytes(RANDOM_BYTES), "little")
