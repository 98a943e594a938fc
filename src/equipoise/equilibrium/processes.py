"""Functions whose value depends on other processes, which all must evaluate them equally often.

Code that communicates within a function calls `note_exchange`. A solve in which that happened stops
only when the solves of all processes may stop; any other solve stops by itself and exchanges
nothing.
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
    """Record a communication with the other processes, in a forward or backward pass."""
    _Exchanges.count += 1


def exchanges() -> int:
    """The number of communications so far, which is equal in all processes that work alike."""
    return _Exchanges.count


def number_of_processes() -> int:
    """How many share torch.distributed's default group; 1 without one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def own_part(parts: list[Part]) -> Part | None:
    """This process's part of what `from_all_processes` returned; None if their number differs."""
    if len(parts) != number_of_processes():
        return None
    return parts[distributed.get_rank() if len(parts) > 1 else 0]


def from_all_processes(part: Part) -> list[Part]:
    """The values of all processes, in order; all of them have to call it."""
    if number_of_processes() == 1:
        return [part]
    parts: list[Any] = [None] * number_of_processes()
    distributed.all_gather_object(parts, part)
    return parts


def ended_everywhere(ended: bool, device: torch.device) -> bool:
    """Whether all processes have ended; each has to call it, with its own device."""
    going = torch.tensor(float(not ended), device=device)
    distributed.all_reduce(going)
    return going.item() == 0.0


def greatest(value: Tensor) -> Tensor:
    """The largest of the numbers of all processes; each has to call it."""
    total = value.clone()
    distributed.all_reduce(total, distributed.ReduceOp.MAX)
    return total
