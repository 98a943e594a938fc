"""What is added to a loss so that the equilibrium stays easy to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from equipoise.equilibrium.gradients import GradientEstimator
from equipoise.equilibrium.solution import Solution
from equipoise.equilibrium.state import Function, State, detached, parts

Weighting = Literal["exponential", "linear", "constant"]


def jacobian_norm(
    f: Function,
    z: State,
    probes: int,
    *inputs: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """|J|_F^2 / (B D) at z, estimated as the mean of |v^T J|^2 / (B D) over Gaussian probes v.

    A scalar with a graph towards f's parameters and the inputs; z counts as a constant. Attention
    inside f takes the plain kernel, since the fused ones have no second derivative. Cost: one f,
    and for each probe a product with J^T and its own backward. `generator` is on z's device.
    Source: Hutchinson 1990; Bai et al. 2021 (arXiv 2106.14342).
    """
    if probes < 1:
        raise ValueError(f"the Jacobian norm needs at least one probe, got {probes}")
    with sdpa_kernel(SDPBackend.MATH):
        leaf = detached(z)
        fz = f(leaf, *inputs)
    squares = [_squared_product(leaf, fz, generator) for _ in range(probes)]
    return torch.stack(squares).mean() / sum(part.numel() for part in parts(z))


def _squared_product(z: State, fz: State, generator: torch.Generator | None) -> Tensor:
    """|v^T J|^2 for one Gaussian v, summed over the batch."""
    outputs = [part for part in parts(fz) if part.requires_grad]
    probe = [_gaussian(part, generator) for part in outputs]
    found = torch.autograd.grad(
        outputs, parts(z), probe, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.stack([part.float().square().sum() for part in found]).sum()


def _gaussian(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


@dataclass
class JacobianRegularizer:
    """weight times `jacobian_norm`, in a random part of the training steps.

    weight: at the start; `increment` is added to it each time that another `increment_every` of the
    run has passed. probability: of a step to be regularised. stop: the fraction of the run from
    which on it is off. seed: of its own generator, the same on every process, so that all agree on
    the steps; `state_dict` keeps its state. progress: the fraction of the run that has passed,
    set by whoever trains.
    Source: Bai et al. 2021 (arXiv 2106.14342).
    """

    weight: float = 1.0
    probes: int = 1
    probability: float = 1.0
    increment: float = 0.0
    increment_every: float = 1.0
    stop: float = 1.0
    seed: int = 0
    progress: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if self.weight < 0 or self.probes < 1 or not 0 <= self.probability <= 1:
            raise ValueError("weight, probes and probability must be >= 0, >= 1 and in [0, 1]")
        if self.increment_every <= 0 or not 0 <= self.stop <= 1:
            raise ValueError("increment_every must be positive, stop a fraction of the run")
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def current_weight(self) -> float:
        """The weight at the present progress, 0 from `stop` on."""
        if self.progress >= self.stop and self.stop < 1:
            return 0.0
        # The small term keeps a progress of exactly k increments on its side in floating point.
        passed = int(self.progress / self.increment_every + 1e-9)
        return self.weight + self.increment * passed

    def __call__(self, f: Function, z: State, *inputs: Tensor) -> Tensor | None:
        """The weighted norm at z, or None in a step that is left out."""
        weight = self.current_weight
        drawn = float(torch.rand((), generator=self.generator))
        seed = int(torch.randint(2**62, (), generator=self.generator))
        if weight == 0 or drawn >= self.probability:
            return None
        device = parts(z)[0].device
        generator = torch.Generator(device).manual_seed(seed)
        return weight * jacobian_norm(f, z, self.probes, *inputs, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """The generator's state and the progress."""
        return {"generator": self.generator.get_state(), "progress": self.progress}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.generator.set_state(state["generator"])
        self.progress = float(state["progress"])


@dataclass(frozen=True)
class FixedPointCorrection:
    """A sum of the losses at several states of the solve, the last of them weighted by 1.

    Of n losses, number k = 0 .. n - 1 has the weight ratio^(n - 1 - k) (exponential),
    1 - ratio (n - 1 - k) / n (linear) or 1 (constant). states: how many evenly spaced states of the
    solve take part, the solution among them.
    Source: Bai et al. 2022 (arXiv 2204.08442); Geng and Kolter 2023 (torchdeq).
    """

    weighting: Weighting = "exponential"
    ratio: float = 0.8
    states: int = 3

    def __post_init__(self) -> None:
        if self.weighting not in ("exponential", "linear", "constant"):
            raise ValueError(
                f"weighting must be exponential, linear or constant, not {self.weighting!r}"
            )
        if not 0 < self.ratio <= 1 or self.states < 1:
            raise ValueError("ratio must lie in (0, 1], states be at least 1")

    def weights(self, count: int) -> list[float]:
        """The weights of `count` losses."""
        behind = [count - 1 - k for k in range(count)]
        if self.weighting == "exponential":
            return [self.ratio**steps for steps in behind]
        if self.weighting == "linear":
            return [1 - self.ratio * steps / count for steps in behind]
        return [1.0] * count

    def evaluations(self, max_steps: int) -> tuple[int, ...]:
        """Which evaluations of a budget to keep as states, for a solver's `keep_states`."""
        wanted = (round(max_steps * k / self.states) for k in range(1, self.states))
        return tuple(sorted({step for step in wanted if step >= 1}))

    def __call__(self, losses: Sequence[Tensor]) -> Tensor:
        """The weighted sum; the last loss is that of the solution."""
        weights = self.weights(len(losses))
        return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum()


def attach_states(
    estimator: GradientEstimator, f: Function, solution: Solution, z0: State, *inputs: Tensor
) -> tuple[State, ...]:
    """The states that the solver has kept, each with a gradient, for a loss along the trajectory.

    `estimator` has to be one that needs no fixed point: jfb or phantom. Raises ValueError for an
    estimator that brings its own iteration, which passes no states.
    """
    if estimator.own_iteration:
        raise ValueError(f"{estimator.name} keeps no states of a solve; use jfb or phantom")
    return tuple(
        estimator.attach(f, replace(solution, z=state), z0, *inputs) for state in solution.states
    )
