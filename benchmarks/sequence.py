"""The equilibrium transformer beside explicit ones, and beside itself on torchdeq's Broyden.

    python -m benchmarks.sequence [repeats]

Width 128, 4 heads, 512 inside, 2,000 symbols with a plain softmax, weight norm, dropout 0.05, 8
streams of 64 steps behind a memory of 64, Adam with clipping; one thread. Memory is measured in a
process of its own for each row: what the graph holds between forward and backward, parameters
excluded, and the peak of resident memory over the level before. Times are medians of process CPU
time, sides in turn; both Broydens take the same evaluations of f and products with its Jacobian.

The trellis networks, 128 + 64 channels, read the same streams: the equilibrium at the budget of
task=python_docs, 12 and 12, beside the 12 levels of the same weights and the 70 of 1909.01377.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import Side, in_turn, ratio
from equipoise.equilibrium import Anderson, Broyden, Equilibrium, Exact
from equipoise.models import DEQTransformer, DEQTrellisNet, Transformer, TrellisNet

BATCH, STEPS, VOCABULARY = 8, 64, 2000
FORWARD, BACKWARD = 30, 36
SHAPE: dict[str, Any] = {
    "vocabulary": VOCABULARY, "memory_length": STEPS, "width": 128, "heads": 4, "inner_width": 512,
    "cutoffs": (), "dropout": 0.05,
}  # fmt: skip
WIDE = {"inner_width": 8192}  # the published proportion, 64 times the width
Build = Callable[..., nn.Module]


def equilibrium(**changes: Any) -> DEQTransformer:
    """Anderson forward and Broyden backward, as published, with the whole budgets."""
    forward = Anderson(max_steps=FORWARD, tol=0, memory=6)
    layer = Equilibrium(forward, Exact(Broyden(max_steps=BACKWARD, tol=0)))
    return DEQTransformer(layer, **{**SHAPE, **changes})


def broyden(**changes: Any) -> DEQTransformer:
    """Broyden both ways, with the whole budgets."""
    exact = Exact(Broyden(max_steps=BACKWARD, tol=0))
    return DEQTransformer(
        Equilibrium(Broyden(max_steps=FORWARD, tol=0), exact), **{**SHAPE, **changes}
    )


def explicit(layers: int, checkpointed: bool = False) -> Build:
    """A builder of the weight-tied transformer."""

    def build(**changes: Any) -> Transformer:
        return Transformer(layers=layers, checkpointed=checkpointed, **{**SHAPE, **changes})

    return build


ROWS: dict[str, Build] = {
    "equilibrium, anderson": equilibrium,
    "equilibrium, broyden": broyden,
    "12 layers": explicit(12),
    "24 layers": explicit(24),
    "24 layers, checkpointed": explicit(24, checkpointed=True),
}


def equilibrium_trellis() -> DEQTrellisNet:
    """Broyden both ways, 12 evaluations each."""
    solvers = [Broyden(max_steps=12, tol=0, memory=12) for _ in range(2)]
    layer = Equilibrium(solvers[0], Exact(solvers[1]))
    return DEQTrellisNet(layer, vocabulary=VOCABULARY, size="tiny", cutoffs=())


def levels(number: int) -> Build:
    """A builder of the explicit trellis network."""
    return lambda: TrellisNet(vocabulary=VOCABULARY, size="tiny", cutoffs=(), levels=number)


TRELLIS_ROWS: dict[str, Build] = {
    "equilibrium trellis, broyden": equilibrium_trellis,
    "trellis of 12 levels": levels(12),
    "trellis of 70 levels": levels(70),
}


class TorchDEQ(nn.Module):
    """torchdeq's Broyden both ways in place of our equilibrium layer."""

    def __init__(self) -> None:
        super().__init__()
        from torchdeq import get_deq

        # Counted: two evaluations more than its budget in the forward pass, none in the backward.
        self.deq = get_deq(
            core="sliced", ift=True, f_solver="broyden", b_solver="broyden",
            f_max_iter=FORWARD - 2, b_max_iter=BACKWARD, f_tol=0.0, b_tol=0.0,
            f_stop_mode="rel", b_stop_mode="rel",
        )  # fmt: skip

    def forward(self, f: Callable[..., Tensor], z0: Tensor, *inputs: Tensor) -> Tensor:
        """The solution of torchdeq."""
        states, _ = self.deq(lambda z: f(z, *inputs), z0)
        return states[-1]


class Training:
    """A model with its optimiser, data and memory."""

    def __init__(self, model: nn.Module, batch: int = BATCH, steps: int = STEPS) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.Adam(model.parameters(), lr=2.5e-4)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(VOCABULARY, (2, batch, steps + 1), generator=generator)
        self.tokens, self.targets = drawn[1][:, :-1], drawn[1][:, 1:]
        with torch.no_grad():
            self.memory = model(drawn[0][:, 1:]).memory

    def forward(self) -> Tensor:
        """The loss of one segment."""
        output = self.model(self.tokens, self.memory)
        return self.model.token_losses(output.hidden, self.targets).mean()

    def step(self) -> None:
        """One optimiser step."""
        self.optimizer.zero_grad()
        self.forward().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.25)
        self.optimizer.step()


def held_after_forward(training: Training) -> int:
    """Bytes of tensors that stay allocated between the forward and the backward pass."""
    training.step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        loss = training.forward()
    assert recorded.profiler is not None
    events = recorded.profiler.kineto_results.events()
    held = sum(event.nbytes() for event in events if event.name() == "[memory]")
    loss.backward()
    return held


def measure_row(name: str, wide: bool) -> dict[str, float]:
    """Memory of one row in MiB; to be called in a process of its own."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    changes = WIDE if wide else {}
    build = (ROWS | TRELLIS_ROWS)[name]
    Training(build(**changes), batch=1, steps=4).step()
    training = Training(build(**changes))
    before = resident()
    training.step()
    training.step()
    peak = peak_resident()
    held = held_after_forward(training)
    return {"held": held / 2**20, "peak": (peak - before) / 2**20}


def resident() -> int:
    """Bytes of resident memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak_resident() -> int:
    """Bytes of resident memory at most since this program began.

    ru_maxrss would count the parent's, too.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def memory_table(wide: bool) -> list[str]:
    """One line a row, each from a process of its own, and what the equilibrium saves."""
    rows = {name: _in_a_process(name, wide) for name in ROWS}
    width = WIDE["inner_width"] if wide else SHAPE["inner_width"]
    lines = [_line(width, name, row) for name, row in rows.items()]
    own, deep = rows["equilibrium, anderson"], rows["24 layers"]
    for measure in ("held", "peak"):
        lines.append(f"{measure}: {own[measure] / deep[measure] - 1:.0%} against 24 layers")
    return lines


def trellis_table() -> list[str]:
    """One line a row as in `memory_table`, and what the equilibrium saves of each explicit one."""
    rows = {name: _in_a_process(name, wide=False) for name in TRELLIS_ROWS}
    lines = [_line(192, name, row) for name, row in rows.items()]
    own, *explicit_rows = rows.items()
    for name, row in explicit_rows:
        saved = ", ".join(f"{m} {own[1][m] / row[m] - 1:.0%}" for m in ("held", "peak"))
        lines.append(f"{saved} against the {name}")
    return lines


def _line(width: int, name: str, row: dict[str, float]) -> str:
    return f"| {width} | {name} | {row['held']:.1f} | {row['peak']:.0f} |"


def _in_a_process(name: str, wide: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.sequence", "row", name, str(int(wide))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def times(repeats: int) -> list[str]:
    """A training step of each row, and of the same model on torchdeq's solver."""
    builders = {**ROWS, "torchdeq, broyden": lambda: DEQTransformer(TorchDEQ(), **SHAPE)}
    sides: dict[str, Side] = {}
    for name, build in builders.items():
        torch.manual_seed(0)
        sides[name] = Training(build()).step
    found = in_turn(sides, repeats)
    lines = [f"| {name} | {1e3 * sorted(t)[len(t) // 2]:.0f} |" for name, t in found.items()]
    share = ratio(found, "equilibrium, broyden", "torchdeq, broyden")
    return [*lines, f"equilibrium, broyden over torchdeq, broyden: {share:.2f}"]


def main(repeats: int = 5) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    print("| inside | model | MiB held by the graph | peak MiB |")
    print("|---|---|---|---|")
    for wide in (False, True):
        for line in memory_table(wide):
            print(line, flush=True)
    for line in trellis_table():
        print(line, flush=True)
    print(f"| training step, {FORWARD} evaluations forward, {BACKWARD} backward | CPU ms |")
    print("|---|---|")
    for line in times(repeats):
        print(line, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["row"]:
        print(json.dumps(measure_row(sys.argv[2], bool(int(sys.argv[3])))))
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
