"""Functions whose value depends on other processes: all of them have to evaluate it equally often.

Whoever exchanges something within a function calls `note_exchange`. A solve that has seen it stops
only when those of all processes may stop; any other solve stops by itself, and exchanges nothing.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Part = TypeVar("Part")


class _Exchanges:
    """How many there were in this process."""

    count = 0


def note_exchange() -> None:
    """Take note that something is exchanged with the other processes, forwards or backwards."""
    _Exchanges.count += 1


def exchanges() -> int:
    """How many were noted so far; all processes of a group that work alike have the same number."""
    return _Exchanges.count


def number_of_processes() -> int:
    """How many share torch.distributed's default group; 1 without one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def own_part(parts: list[Part]) -> Part | None:
    """What `from_all_processes` has had of this process; None with another number of processes."""
    if len(parts) != number_of_processes():
        return None
    return parts[distributed.get_rank() if len(parts) > 1 else 0]


def from_all_processes(part: Part) -> list[Part]:
    """What every process has, in their order; all of them have to ask for it."""
    if number_of_processes() == 1:
        return [part]
    parts: list[Any] = [None] * number_of_processes()
    distributed.all_gather_object(parts, part)
    return parts


def ended_everywhere(ended: bool, device: torch.device) -> bool:
    """Whether it has ended in all processes; each has to ask, with a device of its own."""
    going = torch.tensor(float(not ended), device=device)
    distributed.all_reduce(going)
    return going.item() == 0.0


def greatest(value: Tensor) -> Tensor:
    """The greatest of the numbers of all processes; each has to ask."""
    total = value.clone()
    distributed.all_reduce(total, distributed.ReduceOp.MAX)
    return total
