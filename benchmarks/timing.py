"""Timing several sides in turn, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Side = Callable[[], object]


def seconds(side: Side) -> float:
    """Process CPU time of one call; wall time where the work is on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        start = time.perf_counter()
        side()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    side()
    return time.process_time() - start


def in_turn(sides: Mapping[str, Side], repeats: int) -> dict[str, list[float]]:
    """Times of every side over `repeats` rounds, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(repeats + 1):
        for name, side in sides.items():
            spent = seconds(side)
            if round_number:
                times[name].append(spent)
    return times


def ratio(times: Mapping[str, list[float]], side: str, base: str) -> float:
    """Median over the rounds of the time of `side` over that of `base`."""
    return statistics.median(a / b for a, b in zip(times[side], times[base], strict=True))
