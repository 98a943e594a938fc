"""Broyden's good method with limited memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from equipoise.equilibrium.flat_function import FlatFunction
from equipoise.equilibrium.iteration import Iteration
from equipoise.equilibrium.low_rank import LowRankInverse, check_shape
from equipoise.equilibrium.solvers.solver import Solver
from equipoise.equilibrium.step_chain import StepChain

Storage = Literal["float32", "float64", "bfloat16"]


class BroydenIteration(Iteration):
    """H, an estimate of (J_f - I)^-1, as the chain of the steps s = -H g that have been taken."""

    def __init__(
        self, z0: Tensor, size: int, storage: torch.dtype, start: LowRankInverse | None
    ) -> None:
        self.chain = StepChain(z0, size, storage)
        self.start = start
        self.work = torch.empty_like(z0)

    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        """z - H g, after H was updated with the step that led here."""
        image = g if self.start is None else self.start.apply(g).neg_()
        h, gain = self.chain.next(image, frozen, self.work)
        return z + h if gain is None else torch.addcmul(z, h, gain)

    def keep_rows(self, rows: Tensor) -> None:
        """The steps of these samples."""
        self.chain.keep_rows(rows)
        self.start = None if self.start is None else self.start.select(rows)
        self.work = self.work[: len(rows)]

    def inverse(self) -> LowRankInverse:
        """The estimate given by the steps in memory."""
        return self.chain.inverse(self.start)


@dataclass(frozen=True, kw_only=True)
class Broyden(Solver):
    """z <- z - H g(z), g = f - id, with rank-one updates of H towards (J_f - I)^-1 from H = -I.

    memory: updates kept, one state each; when it is full, the older half is dropped. storage_dtype:
    precision of these states; bfloat16 halves memory and traffic. initial_inverse: the H to start
    from instead, such as `Solution.inverse` of an earlier solve of the same batch; its latest
    `memory` pairs are kept throughout. Superlinear near the solution; copes with spectral radii
    above 1. Source: Broyden 1965, the first ("good") method; Bai et al. 2019 (arXiv 1909.01377).
    """

    name: ClassVar[str] = "broyden"

    memory: int = 8
    storage_dtype: Storage | None = None
    initial_inverse: LowRankInverse | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"memory must be at least 1, got {self.memory}")

    def start(self, z0: Tensor, function: FlatFunction) -> BroydenIteration:
        """Allocate the steps, never more than the budget can fill.

        Raises ValueError where the initial inverse is not of z0's batch and width.
        """
        storage = getattr(torch, self.storage_dtype) if self.storage_dtype else z0.dtype
        initial = self.initial_inverse
        if initial is not None:
            initial = initial.newest(self.memory)
            check_shape(initial, z0)
        return BroydenIteration(z0, min(self.memory, self.max_steps), storage, initial)
