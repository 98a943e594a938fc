"""Refuse tensors that the machine cannot hold before memory is asked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from equipoise.errors import UserError

GIB = 2**30
COPIES = 3  # weights, their gradients, and at least as much for the optimiser
MADE = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.zeros.default,
    torch.ops.aten.ones.default,
    torch.ops.aten.full.default,
    torch.ops.aten.rand.default,
    torch.ops.aten.randn.default,
}


class MemoryLimit(TorchDispatchMode):
    """Within it, all tensors that are made must fit in the memory that is free, three times.

    The system would grant far more than there is and kill the process once it is used. Raises
    UserError that names `part`.
    """

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part = part
        self.free = free_memory()
        self.asked = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count what a factory is about to ask for; everything else passes."""
        if func in MADE:
            dtype = (kwargs or {}).get("dtype") or torch.get_default_dtype()
            self.asked += COPIES * dtype.itemsize * math.prod(args[0])
            if self.asked > self.free:
                raise UserError(
                    f"{self.part} would need {self.asked / GIB:,.0f} GiB of memory to train, and "
                    f"{self.free / GIB:,.0f} are free: choose smaller sizes"
                )
        return func(*args, **(kwargs or {}))


def free_memory() -> int:
    """Bytes that this process can still get: of the machine, or of its container's share."""
    free = [_available()]
    share = Path("/sys/fs/cgroup")
    limit, used = (_number(share / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free.append(limit - used + _reclaimable(share / "memory.stat"))
    return max(0, min(free))


def _available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _number(file: Path) -> int | None:
    text = file.read_text().strip() if file.is_file() else "max"
    return int(text) if text.isdigit() else None


def _reclaimable(file: Path) -> int:
    """The cache of files, which the system gives back when memory is short."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
