"""Terms of a loss that keep the equilibrium easy to reach."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from equipoise.equilibrium.flat_function import evaluate
from equipoise.equilibrium.randomness import CountedDraws
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

    A scalar with a graph to f's parameters and the inputs; z counts as a constant. Attention inside
    f uses the plain kernel, because the fused ones have no second derivative. Cost: one f, and for
    each probe a product with J^T and its own backward. `generator` is on z's device. Source:
    Hutchinson 1990; Bai et al. 2021 (arXiv 2106.14342).
    """
    if probes < 1:
        raise ValueError(f"the Jacobian norm needs at least one probe, got {probes}")
    with sdpa_kernel(SDPBackend.MATH):
        leaf = detached(z)
        fz = evaluate(f, leaf, *inputs)
    squares = [_squared_product(leaf, fz, generator) for _ in range(probes)]
    return torch.stack(squares).mean() / sum(_real_size(part) for part in parts(z))


def _squared_product(z: State, fz: State, generator: torch.Generator | None) -> Tensor:
    """|v^T J|^2 for one Gaussian v, summed over the batch."""
    outputs = [part for part in parts(fz) if part.requires_grad]
    probe = [_gaussian(part, generator) for part in outputs]
    products = torch.autograd.grad(
        outputs, parts(z), probe, create_graph=True, allow_unused=True, materialize_grads=True
    )
    real = [torch.view_as_real(part) if part.is_complex() else part for part in products]
    wide = [part.to(torch.promote_types(part.dtype, torch.float32)) for part in real]
    return torch.stack([part.square().sum() for part in wide]).sum()


def _gaussian(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal; of a complex number, real and imaginary part are."""
    noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    return noise * 2**0.5 if like.is_complex() else noise


def _real_size(part: Tensor) -> int:
    return part.numel() * (2 if part.is_complex() else 1)


class Regularizer(nn.Module):
    """What a layer in training adds to a loss; this one adds nothing.

    A layer calls `penalty` once per forward and keeps the evaluations in `kept_evaluations`; the
    training loop adds the penalty, combines the losses, and sets `progress`, the fraction of the
    run that has passed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.progress = 0.0

    def penalty(self, f: Function, z: State, *inputs: Tensor) -> Tensor | None:
        """A scalar to be added to the loss, or None."""
        return None

    def kept_evaluations(self, max_steps: int) -> tuple[int, ...]:
        """The evaluations of a budget whose states get a loss of their own."""
        return ()

    def combine(self, losses: Sequence[Tensor]) -> Tensor:
        """One loss out of those of the kept states; the last is that of the solution."""
        return losses[-1]


class JacobianRegularizer(CountedDraws, Regularizer):
    """weight times `jacobian_norm`, in a random fraction of the training steps.

    weight: after the warm-up; it grows by `increment` after each further `increment_every` of the
    run. warmup, warmup_weight: the fraction of the run with another weight, such as the unrolled
    phase, and that weight. probability: that a step is regularised. stop: the fraction of the run
    after which the penalty is off. Ranks agree on the steps. Source: Bai et al. 2021 (arXiv
    2106.14342).
    """

    def __init__(
        self,
        weight: float = 1.0,
        probes: int = 1,
        probability: float = 1.0,
        increment: float = 0.0,
        increment_every: float = 1.0,
        warmup: float = 0.0,
        warmup_weight: float = 0.0,
        stop: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        if min(weight, warmup_weight) < 0 or probes < 1 or not 0 <= probability <= 1:
            raise ValueError("weights, probes and probability must be >= 0, >= 1 and in [0, 1]")
        if increment_every <= 0 or not (0 <= stop <= 1 and 0 <= warmup <= 1):
            raise ValueError("increment_every must be positive, warmup and stop fractions of a run")
        self.weight = weight
        self.probes = probes
        self.probability = probability
        self.increment = increment
        self.increment_every = increment_every
        self.warmup = warmup
        self.warmup_weight = warmup_weight
        self.stop = stop

    @property
    def current_weight(self) -> float:
        """The weight at the present progress, 0 from `stop` on."""
        if self.progress >= self.stop and self.stop < 1:
            return 0.0
        if self.progress < self.warmup:
            return self.warmup_weight
        # The small term keeps a progress of exactly k increments on its side in floating point.
        passed = int((self.progress - self.warmup) / self.increment_every + 1e-9)
        return self.weight + self.increment * passed

    def penalty(self, f: Function, z: State, *inputs: Tensor) -> Tensor | None:
        """The weighted norm at z, or None in a step without regularisation."""
        generator = self.draws.generator()
        drawn = float(torch.rand((), generator=generator))
        weight = self.current_weight
        if weight == 0 or drawn >= self.probability:
            return None
        probes = torch.Generator(parts(z)[0].device)
        probes.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        return weight * jacobian_norm(f, z, self.probes, *inputs, generator=probes)


class FixedPointCorrection(Regularizer):
    """A weighted sum of the losses at several states of the solve, the last with weight 1.

    Of n losses, number k = 0 .. n - 1 has the weight ratio^(n - 1 - k) (exponential), 1 - ratio (n
    - 1 - k) / n (linear) or 1 (constant). states: the number of evenly spaced states of the solve
    that take part, including the solution. Source: Bai et al. 2022 (arXiv 2204.08442); Geng and
    Kolter 2023 (torchdeq).
    """

    def __init__(
        self, weighting: Weighting = "exponential", ratio: float = 0.8, states: int = 3
    ) -> None:
        super().__init__()
        if weighting not in ("exponential", "linear", "constant"):
            raise ValueError(
                f"weighting must be exponential, linear or constant, not {weighting!r}"
            )
        if not 0 < ratio <= 1 or states < 1:
            raise ValueError("ratio must lie in (0, 1] and states be at least 1")
        self.weighting = weighting
        self.ratio = ratio
        self.states = states

    def weights(self, count: int) -> list[float]:
        """The weights of `count` losses."""
        behind = [count - 1 - k for k in range(count)]
        if self.weighting == "exponential":
            return [self.ratio**steps for steps in behind]
        if self.weighting == "linear":
            return [1 - self.ratio * steps / count for steps in behind]
        return [1.0] * count

    def kept_evaluations(self, max_steps: int) -> tuple[int, ...]:
        """Evenly spaced evaluations, without the solution's."""
        evaluations = (round(max_steps * k / self.states) for k in range(1, self.states))
        return tuple(sorted({step for step in evaluations if step >= 1}))

    def combine(self, losses: Sequence[Tensor]) -> Tensor:
        """The weighted sum; the last loss is that of the solution."""
        weights = self.weights(len(losses))
        return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum()


class Pending:
    """Penalties and states with their graphs, kept until they are taken or the next forward begins.

    A penalty stays as long as the graph of its forward's state exists, so that a step of several
    forwards finds all of them; once that graph is gone, the next forward drops it. Copies of a
    layer, by copy or pickle, start without any.
    """

    def __init__(self) -> None:
        self.states: tuple[State, ...] = ()
        self._penalties: list[tuple[weakref.ref[_Life], Tensor]] = []

    def __reduce__(self) -> tuple[type[Pending], tuple[()]]:
        return Pending, ()

    @property
    def penalty(self) -> Tensor | None:
        """The sum of the penalties."""
        total: Tensor | None = None
        for _, penalty in self._penalties:
            total = penalty if total is None else total + penalty
        return total

    def add(self, penalty: Tensor, state: State) -> None:
        """Keep a penalty for as long as the graph that leads to `state`."""
        life = _Life()
        first = next((part for part in parts(state) if part.requires_grad), None)
        if first is not None:
            first.register_hook(life)
        self._penalties.append((weakref.ref(life), penalty))

    def drop_stale(self) -> None:
        """At a forward's start, drop the latest states and penalties of discarded forwards."""
        self.states = ()
        self._penalties = [entry for entry in self._penalties if entry[0]() is not None]

    def pop_penalty(self) -> Tensor | None:
        """The sum of the penalties, which are then dropped."""
        penalty, self._penalties = self.penalty, []
        return penalty

    def pop_states(self) -> tuple[State, ...]:
        """The states, which are then dropped."""
        states, self.states = self.states, ()
        return states


class _Life:
    """A hook that changes nothing, and lives as long as the graph it is on."""

    def __call__(self, gradient: Tensor) -> None:
        """Let the gradient pass."""
