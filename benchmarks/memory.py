"""Peak memory of one call, counted by the allocator, so that it is the same in every run."""

from __future__ import annotations

import os
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import Side

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler is chatty on standard error


def peak_bytes(side: Side) -> int:
    """The most bytes of tensors that a call holds beyond those that it finds.

    The second call counts: the first one fills caches.
    """
    side()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        side()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        side()
    assert recorded.profiler is not None
    events = [
        event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in events), initial=0))
