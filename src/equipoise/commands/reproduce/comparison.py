"""Two runs number by number: their curves, their metrics and their weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.commands.reproduce.original import Original, read
from equipoise.report.curves import CurveFile

if TYPE_CHECKING:
    from torch import Tensor

FINAL = ("status", "epochs", "steps", "parameters", "test", "val", "train", "solver_stats",
         "gradient_stats", "details")  # fmt: skip
"""The entries of metrics.json that an equal run reproduces."""
CLOCKS = ("seconds", "time")
"""Suffixes of the names of values that depend on a clock or the machine's load."""
STATES = ("state_dict", "optimizer_states", "lr_schedulers", "averaged_weights")
CHECKPOINTS = ("last.ckpt", "best.ckpt")
Leaves = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """A value that differs in any bit: its name, both values, and the difference.

    relative: difference over the larger of the two, infinite for a text or if one is missing.
    """

    name: str
    then: Any
    now: Any
    relative: float


@dataclass(frozen=True)
class Part:
    """A comparison: how many numbers were compared, and those that differ, in order.

    within: the largest `relative` allowed. left_out: why there is no comparison.
    """

    name: str
    compared: int
    differences: Sequence[Difference] = ()
    within: float = 0.0
    left_out: str = ""

    @property
    def beyond(self) -> list[Difference]:
        """The differences that count."""
        return [each for each in self.differences if not each.relative <= self.within]

    @property
    def equal(self) -> bool:
        """Whether nothing differs by more than it may."""
        return not self.beyond

    @property
    def largest(self) -> float:
        """The largest relative difference."""
        return max((each.relative for each in self.differences), default=0.0)

    @property
    def verdict(self) -> str:
        """The comparison in words."""
        if self.left_out:
            return f"not compared: {self.left_out}"
        if not self.differences:
            return "equal to the bit"
        first = (self.beyond or self.differences)[0]
        if self.equal:
            return f"equal within {self.within:g}: at most {self.largest:.2g}, first {first.name}"
        return f"differs first at {first.name}: {first.then} -> {first.now}"


def compared(run: Original, folder: Path, tolerance: float) -> list[Part]:
    """The curve, the final metrics and the checkpoints of a run and of the one in a folder."""
    within = 0.0 if run.deterministic else tolerance
    again = read(folder / "metrics.json")
    parts = [] if run.purpose == "evaluate" else [_curve(run, folder, within)]
    parts.append(_metrics(run, again, within))
    if run.purpose == "evaluate":
        return parts
    return parts + [_checkpoint(run, folder, name, within) for name in CHECKPOINTS]


def _curve(run: Original, folder: Path, within: float) -> Part:
    then, now = (CurveFile(place / "metrics.csv").rows for place in (run.folder, folder))
    if not then:
        return Part("curve", 0, left_out="the run has no metrics.csv")
    one, two = _cells(then), _cells(now)
    if run.steps is not None:  # the shorter run has additional rows at its end
        shared = {name.rpartition(" ")[0] for name in one.keys() & two.keys()}
        one, two = (
            {k: v for k, v in cells.items() if k.rpartition(" ")[0] in shared}
            for cells in (one, two)
        )
    return Part("curve", len(one), _differences(one, two), within)


def _cells(rows: Sequence[Mapping[str, str]]) -> Leaves:
    """The filled cells of a curve in the order of its steps, by step, kind of row and column."""
    found: list[tuple[float, Leaves]] = []
    seen = Counter[str]()
    for row in rows:
        filled = {name: text for name, text in row.items() if text and not _is_clock(name)}
        stages = sorted({name.partition("/")[0] for name in filled} & {"val", "test"})
        kind = f"step {row['step']}{''.join(f', {stage}' for stage in stages)}"
        seen[kind] += 1
        again = f" ({seen[kind]})" if seen[kind] > 1 else ""
        cells = {f"{kind}{again}: {name}": _number(text) for name, text in filled.items()}
        found.append((float(row["step"]), cells))
    ordered = sorted(found, key=lambda pair: pair[0])
    return {name: value for _, cells in ordered for name, value in cells.items()}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _metrics(run: Original, again: Mapping[str, Any], within: float) -> Part:
    if not run.metrics:
        return Part("final metrics", 0, left_out="the run was killed before it wrote them")
    same_end = all(run.metrics.get(key) == again.get(key) for key in ("status", "steps"))
    if run.steps is not None and not same_end:
        return Part(
            "final metrics", 0, left_out=f"the run ended after {run.metrics['steps']} steps"
        )
    one, two = (
        dict(_leaves({key: metrics.get(key) for key in FINAL})) for metrics in (run.metrics, again)
    )
    return Part("final metrics", len(one), _differences(one, two), within)


def _checkpoint(run: Original, folder: Path, name: str, within: float) -> Part:
    from equipoise.config.stored import read_content

    then, now = (place / "checkpoints" / name for place in (run.folder, folder))
    for file, whose in ((then, "the run"), (now, "the second run")):
        if not file.is_file():
            return Part(name, 0, left_out=f"{whose} has none")
    one, two = read_content(then), read_content(now)
    steps = [content.get("global_step") for content in (one, two)]
    if run.steps is not None and steps[0] != steps[1]:
        return Part(name, 0, left_out=f"the run's is of step {steps[0]}")
    leaves = [dict(_leaves({key: content.get(key) for key in ("global_step", *STATES)}))
              for content in (one, two)]  # fmt: skip
    return Part(name, len(leaves[0]), _differences(*leaves), within)


def _leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted name and value of every leaf of nested containers, without those of clocks."""
    if isinstance(node, Mapping):
        pairs = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, list | tuple):
        pairs = [(str(place), value) for place, value in enumerate(node)]
    else:
        yield name, node
        return
    for key, value in pairs:
        if not _is_clock(key):
            yield from _leaves(value, f"{name}.{key}".lstrip("."))


def _is_clock(name: str) -> bool:
    return name.rpartition("/")[2].rpartition("_")[2] in CLOCKS


def _differences(then: Leaves, now: Leaves) -> list[Difference]:
    names = [*then, *(name for name in now if name not in then)]
    pairs = ((name, then.get(name), now.get(name)) for name in names)
    return [Difference(name, *_shown(a, b), apart(a, b)) for name, a, b in pairs if apart(a, b)]


def apart(one: Any, two: Any) -> float:
    """The difference of two values relative to the larger: 0 only if all bits are equal.

    Infinite where one is not a number or not finite, or where tensors differ in shape or dtype.
    """
    if hasattr(one, "shape") and hasattr(two, "shape"):
        return _tensors_apart(one, two)
    if hasattr(one, "shape") or hasattr(two, "shape"):
        return math.inf
    if not (isinstance(one, int | float) and isinstance(two, int | float)):
        return 0.0 if one == two else math.inf
    if one == two or (math.isnan(one) and math.isnan(two)):
        return 0.0
    difference = abs(one - two) / max(abs(one), abs(two))
    return difference if math.isfinite(difference) else math.inf


def _tensors_apart(one: Tensor, two: Tensor) -> float:
    """The largest difference of two tensors, divided by their largest value."""
    import torch

    if one.shape != two.shape or one.dtype != two.dtype:
        return math.inf
    bits = [part.detach().cpu().contiguous().flatten().view(torch.uint8) for part in (one, two)]
    if torch.equal(*bits):
        return 0.0
    wide = [
        part.to(torch.complex128 if part.is_complex() else torch.float64) for part in (one, two)
    ]
    largest = max(float(part.abs().max()) for part in wide)
    difference = float((wide[0] - wide[1]).abs().max()) / largest if largest else 0.0
    return max(difference, math.ulp(0.0)) if math.isfinite(difference) else math.inf


def _shown(one: Any, two: Any) -> tuple[Any, Any]:
    """Both values; tensors are described."""
    return tuple(  # type: ignore[return-value]
        f"tensor {list(value.shape)}" if hasattr(value, "shape") else value for value in (one, two)
    )
