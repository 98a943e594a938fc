"""A training step of MulT beside the same model with its attention written out as a softmax.

    python -m benchmarks.mult [repeats]

Lengths 50, 375 and 500, MOSI's unaligned widths, a batch of 24, width 30, 5 layers, 5 heads: the
published code's. With its dropouts, and without any. Times are medians of process CPU time, sides
in turn, on one thread; memory is the peak that the allocator counts in a step. On a GPU both are
the GPU's.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.memory import peak_bytes
from benchmarks.timing import in_turn, ratio
from equipoise.models import MulT
from equipoise.models.mult.attention import Attention, View

Read = Callable[[Attention, Tensor, Tensor, Tensor, View], Tensor]
BATCH = 24
LENGTHS = {"language": 50, "audio": 375, "vision": 500}
FEATURES = {"language": 300, "audio": 5, "vision": 20}
NO_DROPOUT = {
    "attention_dropout": (0.0, 0.0, 0.0), "relu_dropout": 0.0, "residual_dropout": 0.0,
    "embedding_dropout": 0.0,
}  # fmt: skip


def written_out(self: Attention, query: Tensor, key: Tensor, value: Tensor, seen: View) -> Tensor:
    """What `Attention.read` computes, with the weights as a tensor."""
    asking, offered, values = (self._split(part) for part in (self.query(query), key, value))
    scores = asking / math.sqrt(asking.shape[-1]) @ offered.transpose(-1, -2)
    visible = seen.visible
    if seen.triangular:
        visible = torch.ones_like(scores[0, 0], dtype=torch.bool).tril()
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    weights = functional.dropout(scores.softmax(dim=-1), self.dropout, self.training)
    merged: Tensor = self.output((weights @ values).transpose(1, 2).flatten(2))
    return merged


@contextmanager
def attention_by(read: Read) -> Iterator[None]:
    """Within it, the model's attention is computed by `read`."""
    kept = Attention.read
    Attention.read = read  # type: ignore[method-assign]
    try:
        yield
    finally:
        Attention.read = kept  # type: ignore[method-assign]


def step(model: MulT, batch: dict[str, Tensor], label: Tensor, by: Read) -> None:
    """Forward, backward, and the gradients dropped."""
    with attention_by(by):
        functional.l1_loss(model(batch).outputs.squeeze(1), label).backward()
    model.zero_grad()


def measure(name: str, repeats: int, **settings: object) -> None:
    """Print a row for each side."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    batch = {
        modality: torch.randn(BATCH, LENGTHS[modality], FEATURES[modality], device=device)
        for modality in LENGTHS
    }
    label = torch.randn(BATCH, device=device)
    model = MulT(features=list(FEATURES.values()), **settings).to(device)  # type: ignore[arg-type]
    functions = {"fused": Attention.read, "written out": written_out}
    sides = {side: partial(step, model, batch, label, by) for side, by in functions.items()}
    times = in_turn(sides, repeats)
    peaks = {side: peak_bytes(call) / 2**20 for side, call in sides.items()}
    for side in sides:
        seconds, factor = statistics.median(times[side]), ratio(times, "written out", side)
        print(f"| {name} | {side} | {seconds:.2f} | {factor:.2f} | {peaks[side]:.0f} |")


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print("| dropout | attention | s a step | faster by | peak MiB |")
    print("|---|---|---|---|---|")
    measure("published", repeats)
    measure("none", repeats, **NO_DROPOUT)


if __name__ == "__main__":
    main()
