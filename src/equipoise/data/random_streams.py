"""Random numbers that depend on what they are for, and on nothing that ran before."""

from __future__ import annotations

import numpy as np
import torch


def stream_seed(*key: int) -> int:
    """Return a 64-bit seed that is a pure function of `key`, integers of at least 0.

    Keys that differ, even by one bit, give unrelated seeds (NumPy's `SeedSequence` hash, to which
    (1,) and (1, 0) are the same, hence the length in front).
    """
    return int(np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)[0])


def stream(*key: int) -> torch.Generator:
    """Return a generator on the CPU that is a pure function of `key`."""
    return torch.Generator().manual_seed(stream_seed(*key))
