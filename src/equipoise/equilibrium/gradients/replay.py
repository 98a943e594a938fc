"""Evaluating f anew under the circumstances of an earlier evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Circumstances:
    """Random state and autocast state under which f was evaluated.

    They are kept so that dropout masks and precision repeat; the caller's random state is left as
    it is found.
    """

    device: torch.device
    random: Tensor
    device_random: Tensor | None
    autocast: bool
    autocast_dtype: torch.dtype

    @classmethod
    def now(cls, device: torch.device) -> Circumstances:
        """Those of the present moment, for an f that runs on `device`."""
        module = _random_module(device)
        return cls(
            device=device,
            random=torch.get_rng_state(),
            device_random=None if module is None else module.get_rng_state(device),
            autocast=torch.is_autocast_enabled(device.type),
            autocast_dtype=torch.get_autocast_dtype(device.type),
        )

    @contextmanager
    def again(self) -> Iterator[None]:
        """The same circumstances inside the block."""
        module = _random_module(self.device)
        devices = [] if module is None else [self.device]
        cast = torch.autocast(
            self.device.type, dtype=self.autocast_dtype, enabled=self.autocast, cache_enabled=False
        )
        with torch.random.fork_rng(devices, device_type=self.device.type), cast:
            torch.set_rng_state(self.random)
            if module is not None:
                module.set_rng_state(self.device_random, self.device)
            yield


def _random_module(device: torch.device) -> Any:
    """torch.cuda and its like for a device with a random state of its own, None for the CPU."""
    return None if device.type == "cpu" else torch.get_device_module(device)
