"""The result of a solve: how an iterate is judged, the solution, and a report without its state."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from equipoise.equilibrium.flat_function import Evaluation, Origin, evaluate
from equipoise.equilibrium.low_rank import LowRankInverse
from equipoise.equilibrium.state import Function, Layout, State, parts

Stop = Literal["relative", "absolute", "mixed"]
TINY = 1e-9


@dataclass(frozen=True)
class StoppingRule:
    """Residual of a sample by one of three rules, and the smallest value the arithmetic resolves.

    relative: |f(z) - z| / (|f(z)| + 1e-9); absolute: |f(z) - z|; mixed: |f(z) - z| / (1 + |f(z)|);
    2-norms over the sample's whole state. units: (B,), the length that counts as 1 for each sample,
    if their scales differ.
    """

    stop: Stop
    tol: float
    resolution: float
    units: Tensor | float = 1.0

    def __call__(self, gap: Tensor, size: Tensor) -> Tensor:
        """gap = |f(z) - z| (B,), size = |f(z)| (B,) -> residual (B,)."""
        if self.stop == "absolute":
            return gap if isinstance(self.units, float) else gap / self.units
        return gap / (size + self.added)

    def reached(self, residual: Tensor, size: Tensor) -> Tensor:
        """(B,) bool: the tolerance, or the last digit that the arithmetic resolves, is reached."""
        if self.stop == "relative":  # the last digit is the same whatever the size
            return residual <= max(self.tol, self.resolution)
        floor = self(self.resolution * size, size)
        return residual <= floor.clamp(min=self.tol)

    @cached_property
    def added(self) -> Tensor | float:
        """What keeps the residual of a vanishing sample finite."""
        return (TINY if self.stop == "relative" else 1.0) * self.units


def resolution(z0: State, layout: Layout) -> float:
    """Unit round-off of f: of its autocast dtype where autocast is on, else of the state's.

    A smaller tolerance would spend the whole budget on rounding noise.
    """
    device = layout.device.type
    if torch.is_autocast_enabled(device):
        return torch.finfo(torch.get_autocast_dtype(device)).eps
    return max(torch.finfo(part.dtype).eps for part in parts(z0))


class Status(IntEnum):
    """How the solve of one sample ended."""

    CONVERGED = 0
    BUDGET = 1
    STAGNATED = 2
    DIVERGED = 3
    NON_FINITE = 4


class NotConvergedError(RuntimeError):
    """A solve failed and the layer has on_failure="raise"."""


@dataclass
class SolveReport:
    """Per-sample outcome of a solve, without the state. `backward` is the same for the adjoint.

    residual (B,) · steps (B,) evaluation at which the returned iterate was found · status (B,)
    codes of `Status` · nfe evaluations of f spent on the batch · trace (nfe, B) or None · fallback
    (B,) where an estimator fell back to a cheaper gradient, or None. An estimator without a
    backward solve leaves residual, steps and status of its backward report None. products: with the
    transposed Jacobian of f, which adjoint Broyden takes in addition to the evaluations.
    sample_evaluations: total rows over all evaluations, nfe B without compaction; None if the
    solver does not count them.
    """

    nfe: int
    residual: Tensor | None = None
    steps: Tensor | None = None
    status: Tensor | None = None
    trace: Tensor | None = None
    fallback: Tensor | None = None
    backward: SolveReport | None = None
    products: int = 0
    sample_evaluations: int | None = None

    @property
    def converged(self) -> Tensor | None:
        """(B,) bool: the tolerance was met; None where nothing was solved."""
        return None if self.status is None else self.status == Status.CONVERGED

    def counts(self) -> dict[str, int]:
        """How many samples ended with each status; costs one host-device sync."""
        if self.status is None:
            return {}
        numbers = torch.bincount(self.status.long(), minlength=len(Status)).tolist()
        return {status.name.lower(): numbers[status] for status in Status if numbers[status]}

    def failure(self, tol: float) -> str:
        """How many samples did not reach the tolerance, and how they ended."""
        counts = self.counts()
        failed = {status: count for status, count in counts.items() if status != "converged"}
        kinds = ", ".join(f"{count} {status}" for status, count in failed.items())
        return (
            f"{sum(failed.values())} of {sum(counts.values())} samples did not reach the tolerance "
            f"{tol:g} in {self.nfe} evaluations ({kinds})"
        )


@dataclass
class Solution:
    """The result of `Solver.solve`; its fields are described by `SolveReport`.

    z is, per sample, the iterate of lowest residual; `states` are the iterates of the evaluations
    chosen by `keep_states`; `inverse` is the quasi-Newton estimate of (J_f - I)^-1 where the solver
    kept one. evaluation: the last one of a spent budget, with its graph, if requested. rule: how an
    estimator with its own iteration is to judge its result. together: f communicates with other
    processes, so all of them have to evaluate it equally often.
    """

    z: State
    residual: Tensor
    steps: Tensor
    status: Tensor
    nfe: int
    sample_evaluations: int | None = None
    trace: Tensor | None = None
    inverse: LowRankInverse | None = None
    states: tuple[State, ...] = ()
    products: int = 0
    evaluation: Evaluation | None = None
    rule: StoppingRule | None = None
    together: bool = False
    report: SolveReport = field(init=False)

    def __post_init__(self) -> None:
        self.report = SolveReport(
            nfe=self.nfe,
            residual=self.residual,
            steps=self.steps,
            status=self.status,
            trace=self.trace,
            products=self.products,
            sample_evaluations=self.sample_evaluations,
        )

    @property
    def converged(self) -> Tensor:
        """(B,) bool."""
        return self.status == Status.CONVERGED

    def evaluate(self, f: Function, origin: Origin, *inputs: Tensor) -> Evaluation:
        """f at the solution with a graph from origin(z): the solve's own, once, or a new one.

        Checking whether the solve's own is at exactly this z costs one host-device sync.
        """
        kept, self.evaluation = self.evaluation, None
        if kept is not None and _equal(kept.z, self.z):
            return kept
        del kept  # its graph, before another one is built
        z = origin(self.z)
        return Evaluation(z, evaluate(f, z, *inputs))

    @classmethod
    def unsolved(cls, z0: State, rule: StoppingRule | None = None) -> Solution:
        """The solution before any evaluation, for estimators with their own iteration."""
        first = parts(z0)[0]
        batch, device = first.shape[0], first.device
        return cls(
            z=z0,
            residual=torch.full((batch,), torch.inf, device=device),
            steps=torch.zeros(batch, dtype=torch.long, device=device),
            status=torch.full((batch,), Status.BUDGET, dtype=torch.int8, device=device),
            nfe=0,
            rule=rule,
        )


def _equal(a: State, b: State) -> bool:
    return all(torch.equal(x, y) for x, y in zip(parts(a), parts(b), strict=True))
