"""What the reference implementation records of one segment of the explicit trellis network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy import ndarray
from torch.nn import functional

from equipoise.interop.errors import DoesNotFit
from equipoise.interop.recorded_arrays import (
    as_arrays,
    as_tensors,
    evaluation_copy,
    needed,
    widest,
)
from equipoise.models import TrellisNet


@torch.no_grad()
def reference_forward(model: TrellisNet, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
    """Return raw_out, logits, h1, c1, and of auxiliary outputs aux_logits.

    Takes data (B, T), and h0 and c0 (B, width, 1), the state of the step before, where there is
    one. Raises DoesNotFit where there is no data, or half a state.
    """
    given = as_tensors(arrays, model)
    network = evaluation_copy(model, widest(given))
    names = [name for name in ("h0", "c0") if name in given]
    if len(names) == 1:
        raise DoesNotFit(f"'{names[0]}' alone is no state: give h0 and c0, or neither")
    earlier = [given[name].transpose(1, 2) for name in names]
    memory = (torch.cat(earlier, dim=2),) if earlier else None
    output = network(needed(given, "data", "the tokens (batch, time)"), memory)
    softmax = network.ends.softmax
    read = (functional.linear(h, softmax.tables[0], softmax.biases[0]) for h in output.auxiliary)
    auxiliary = list(read)
    h, c = output.memory[0].transpose(1, 2).chunk(2, dim=1)
    found = {
        "raw_out": output.hidden,
        "logits": functional.linear(output.hidden, softmax.tables[0], softmax.biases[0]),
        "h1": h,
        "c1": c,
    }
    return as_arrays(found | ({"aux_logits": torch.stack(auxiliary, dim=1)} if auxiliary else {}))
