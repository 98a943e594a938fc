"""Kernel attention beside plain softmax attention, and linear time beside all pairs.

    python -m benchmarks.kernel_attention [repeats]

First table: exponential and RBF attention without positions over plain attention with torch's
scaled_dot_product_attention, 2 samples of 1,024 steps, 8 heads of 64: the whole module with its
projections, and the smoother alone on given queries, keys and values. Second: kernels of features
in linear time, one head of 64 at 8,192 steps, over the same kernel pair by pair and over plain
attention. Third: the most that forward and backward hold at once, by length. Times are process CPU
time (on a GPU wall time), sides in turn, medians of the ratios; one thread.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.memory import peak_bytes
from benchmarks.timing import Side, in_turn, ratio
from equipoise.nn import AttentionForm, KernelAttention, KernelSmoother, SetFilter
from equipoise.nn.positional_kernels import in_heads

BATCH, LENGTH, HEADS, HEAD_WIDTH = 2, 1024, 8, 64
LONG = 8192
LENGTHS = (1024, 2048, 4096, 8192)
SOFTMAX = ("exponential", "rbf")
OF_FEATURES = ("linear", "elu", "random_features")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Smooth = Callable[[Tensor, Tensor, Tensor], Tensor]


class PlainAttention(nn.Module):
    """What KernelAttention is with torch's own attention in place of the smoother."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.maps = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        heads = (in_heads(map_(features), self.heads) for map_ in self.maps)
        return plain(self.causal)(*heads).transpose(1, 2).flatten(2)


def plain(causal: bool) -> Smooth:
    """Torch's own attention."""
    return lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=causal)


def form(kernel: str) -> AttentionForm:
    """A kernel without positions."""
    return AttentionForm(kernel=kernel, positions="none")  # type: ignore[arg-type]


def filtered(length: int, *, causal: bool) -> SetFilter:
    """Self-attention over all or all earlier steps."""
    return SetFilter(length, length, causal, device=DEVICE)


def leaves(count: int, *shape: int) -> list[Tensor]:
    """Normal numbers that want a gradient."""
    torch.manual_seed(0)
    return [torch.randn(*shape, device=DEVICE, requires_grad=True) for _ in range(count)]


def module_sides(*, causal: bool, backward: bool) -> dict[str, Side]:
    """Whole modules."""
    width = HEADS * HEAD_WIDTH
    (features,) = leaves(1, BATCH, LENGTH, width)
    view = filtered(LENGTH, causal=causal)
    softmax = PlainAttention(width, HEADS, causal=causal).to(DEVICE)
    sides = {"plain": called(lambda: softmax(features), backward=backward)}
    for kernel in SOFTMAX:
        module = KernelAttention(form(kernel), width, HEADS).to(DEVICE)
        side = called(lambda m=module: m(features, features, view), backward=backward)
        sides[kernel] = side
    return sides


def smoother_sides(*, causal: bool, backward: bool) -> dict[str, Side]:
    """Smoothers alone."""
    given = leaves(3, BATCH, HEADS, LENGTH, HEAD_WIDTH)
    sides = {"plain": called(lambda: plain(causal)(*given), backward=backward)}
    for kernel in SOFTMAX:
        smoother = KernelSmoother(form(kernel), HEADS * HEAD_WIDTH, HEADS).to(DEVICE)
        scene = smoother.scene(filtered(LENGTH, causal=causal), None)
        sides[kernel] = called(lambda s=smoother, c=scene: s(*given, c), backward=backward)
    return sides


def long_sides(kernel: str, *, causal: bool, backward: bool) -> dict[str, Side]:
    """One head over many steps: in linear time, pair by pair, and plain."""
    query, key, value = leaves(3, 1, 1, LONG, HEAD_WIDTH)
    smoother = KernelSmoother(form(kernel), HEAD_WIDTH, 1).to(DEVICE)
    scene = smoother.scene(filtered(LONG, causal=causal), None)
    forwards: dict[str, Callable[[], Tensor]] = {
        "linear": lambda: smoother(query, key, value, scene),
        "pairs": lambda: smoother.weights(query, key, scene) @ value,
        "plain": lambda: plain(causal)(query, key, value),
    }
    return {name: called(forward, backward=backward) for name, forward in forwards.items()}


def called(forward: Callable[[], Tensor], *, backward: bool) -> Side:
    """A side that runs forward alone, or the gradient of the result's sum as well."""

    def side() -> None:
        if backward:
            forward().sum().backward()
        else:
            with torch.no_grad():
                forward()

    return side


def softmax_table(repeats: int) -> list[str]:
    """Kernels that are a softmax, over plain attention."""
    lines = [
        "| measured | filter | pass | plain ms | exponential | RBF |",
        "|---|---|---|---|---|---|",
    ]
    for (name, build), causal, backward in product(
        (("module", module_sides), ("smoother", smoother_sides)), (False, True), (False, True)
    ):
        times = in_turn(build(causal=causal, backward=backward), repeats)
        ratios = " | ".join(f"{ratio(times, kernel, 'plain'):.2f}" for kernel in SOFTMAX)
        milliseconds = 1e3 * statistics.median(times["plain"])
        lines.append(f"| {name} | {words(causal, backward)} | {milliseconds:.0f} | {ratios} |")
    return lines


def linear_table(repeats: int) -> list[str]:
    """Linear time, and how many times as long the pairs and plain attention take."""
    lines = [
        "| kernel | filter | pass | linear time, ms | its pairs, times as long | plain attention |",
        "|---|---|---|---|---|---|",
    ]
    for kernel, causal, backward in product(OF_FEATURES, (False, True), (False, True)):
        times = in_turn(long_sides(kernel, causal=causal, backward=backward), repeats)
        pairs, softmax = (ratio(times, side, "linear") for side in ("pairs", "plain"))
        milliseconds = 1e3 * statistics.median(times["linear"])
        lines.append(
            f"| {kernel} | {words(causal, backward)} | {milliseconds:.0f} | {pairs:.0f} | "
            f"{softmax:.0f} |"
        )
    return lines


def memory_table() -> list[str]:
    """Peak MiB of forward and backward by length; pairs only where they are few."""
    lengths = " | ".join(map(str, LENGTHS))
    lines = [f"| kernel | filter | {lengths} |", f"|---|---|{'---|' * len(LENGTHS)}"]
    for kernel, causal in product(OF_FEATURES, (False, True)):
        cells = " | ".join(f"{peak(kernel, length, causal=causal):.0f}" for length in LENGTHS)
        lines.append(f"| {kernel} | {'causal' if causal else 'full'} | {cells} |")
    pairs = (f"{peak('elu', length, causal=True, pairs=True):.0f}" for length in LENGTHS[:2])
    lines.append(f"| elu, its pairs | causal | {' | '.join(pairs)} |" + " |" * (len(LENGTHS) - 2))
    return lines


def peak(kernel: str, length: int, *, causal: bool, pairs: bool = False) -> float:
    """MiB of one head."""
    query, key, value = leaves(3, 1, 1, length, HEAD_WIDTH)
    smoother = KernelSmoother(form(kernel), HEAD_WIDTH, 1).to(DEVICE)
    scene = smoother.scene(filtered(length, causal=causal), None)

    def forward() -> Tensor:
        if pairs:
            return smoother.weights(query, key, scene) @ value
        smoothed: Tensor = smoother(query, key, value, scene)
        return smoothed

    return peak_bytes(called(forward, backward=True)) / 2**20


def words(causal: bool, backward: bool) -> str:
    """The cells for filter and pass."""
    return f"{'causal' if causal else 'full'} | {'both' if backward else 'forward'}"


def main(repeats: int = 7) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    for table in (softmax_table(repeats), linear_table(min(repeats, 5)), memory_table()):
        print("\n".join(table), end="\n\n", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
