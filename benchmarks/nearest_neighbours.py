"""Nearest neighbours of 10,000 queries in a bank of 50,000 x 512: time and memory of the process.

    python -m benchmarks.nearest_neighbours

Beside it the product of all pairs at once, which needs 2 GB for the similarities alone. Each side
runs in a process of its own, whose peak memory holds Python, torch, the bank and the queries.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import torch
from torch import Tensor
from torch.nn import functional

from equipoise.tasks.nearest_neighbours import MemoryBank

SAMPLES, QUERIES, FEATURES, CLASSES = 50_000, 10_000, 512, 10
NEIGHBOURS, TEMPERATURE = 200, 0.5


def all_pairs(features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """The scores as the published code has them, for all queries at once."""
    bank, asked = (functional.normalize(x, dim=1) for x in (features, queries))
    near = (asked @ bank.T).topk(NEIGHBOURS, dim=1)
    scores = torch.zeros(len(queries), CLASSES)
    return scores.scatter_add_(1, labels[near.indices], (near.values / TEMPERATURE).exp())


def in_parts(features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """The same, streamed over the bank."""
    return MemoryBank(features, labels, CLASSES, NEIGHBOURS, TEMPERATURE).scores(queries)


SIDES = {"in parts": in_parts, "all pairs": all_pairs}


def measure(side: str) -> None:
    """Print the seconds of one side, the peak of the process in MB, and a digest of the scores."""
    torch.manual_seed(0)
    features, queries = torch.randn(SAMPLES, FEATURES), torch.randn(QUERIES, FEATURES)
    start = time.perf_counter()
    scores = SIDES[side](features, torch.arange(SAMPLES) % CLASSES, queries)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else 1024 * peak
    print(seconds, peak_bytes / 1e6, float(scores.double().square().mean()))


def measured(side: str) -> tuple[float, float, float]:
    """What `measure` prints, from a process of its own."""
    words = [sys.executable, "-m", "benchmarks.nearest_neighbours", side]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    seconds, megabytes, digest = map(float, printed.split())
    return seconds, megabytes, digest


def main() -> None:
    print(f"{'':12}{'seconds':>9}{'peak MB':>9}{'digest':>16}")
    for side in SIDES:
        seconds, megabytes, digest = measured(side)
        print(f"{side:12}{seconds:9.1f}{megabytes:9.0f}{digest:16.8f}")


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
