"""Refuse tensors that the machine cannot hold before memory is asked for."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from equipoise.errors import UserError
from equipoise.memory import GIB, free_memory

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
