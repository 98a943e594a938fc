"""Cases of whole training steps: a model, a batch, a precision, and a method with its budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.equilibrium import (
    Anderson,
    Broyden,
    Exact,
    GradientEstimator,
    JacobianFree,
    Phantom,
    Shine,
    Solver,
)
from equipoise.models import MDEQ, DEQTransformer

PHANTOM = 5
VOCABULARY, LENGTH = 2000, 64


@dataclass(frozen=True)
class Method:
    """A solver, an estimator, and what they cost: evaluations with a graph, products with J^T.

    peer: torchdeq's settings for the same; empty where it has nothing like it.
    """

    solver: Solver
    estimator: GradientEstimator
    graphs: int
    products: int
    peer: Mapping[str, Any] = field(default_factory=dict)


def methods(forward: int, backward: int) -> dict[str, Method]:
    """By name; `forward` evaluations of every solve, `backward` products of every adjoint solve."""
    anderson, broyden = (kind(max_steps=forward, tol=0) for kind in (Anderson, Broyden))
    adjoint = {kind: Exact(kind(max_steps=backward, tol=0)) for kind in (Anderson, Broyden)}
    by = {name: {"f_solver": name, "b_solver": name} for name in ("anderson", "broyden")}
    exact = {"ift": True, "backward": backward}
    phantom = {"grad": PHANTOM, "tau": 0.5}
    return {
        "broyden, exact": Method(broyden, adjoint[Broyden], 1, backward, exact | by["broyden"]),
        "anderson, exact": Method(anderson, adjoint[Anderson], 1, backward, exact | by["anderson"]),
        "broyden, phantom": Method(broyden, Phantom(PHANTOM), PHANTOM, 0, phantom | by["broyden"]),
        "anderson, phantom": Method(
            anderson, Phantom(PHANTOM), PHANTOM, 0, phantom | by["anderson"]
        ),
        "broyden, shine": Method(broyden, Shine(), 1, 0),
        "broyden, jfb": Method(broyden, JacobianFree(), 1, 0, {"grad": 1, **by["broyden"]}),
        # A tolerance that nothing meets: on a GPU the last evaluation keeps its graph.
        "broyden, jfb, one sync": Method(
            replace(broyden, tol=1e-30, check_every=forward), JacobianFree(), 1, 0
        ),
    }


@dataclass
class Case:
    """A model at a batch size and a precision, with one method."""

    model: str
    batch: int
    precision: str
    method: str
    budgets: tuple[int, int]
    build: Callable[[nn.Module], nn.Module] = field(repr=False)
    inputs: tuple[Tensor, ...] = field(repr=False)
    loss: Callable[[Any], Tensor] = field(repr=False)
    compiled: bool = False

    @property
    def device(self) -> str:
        return self.inputs[0].device.type

    @property
    def name(self) -> str:
        return f"{self.model}, batch {self.batch}, {self.precision}, {self.method}"


def mdeq_case(
    size: str,
    batch: int,
    precision: str,
    method: str,
    budgets: tuple[int, int] = (18, 20),
    device: str = "cpu",
    side: int = 32,
    compiled: bool = False,
) -> Case:
    """A step of MDEQ on random pictures; "bf16 nhwc" keeps weights and pictures channels_last."""
    last = precision.endswith("nhwc")
    layout = torch.channels_last if last else torch.contiguous_format
    image = torch.randn(batch, 3, side, side).to(device, memory_format=layout)
    label = torch.randint(10, (batch,)).to(device)

    def build(equilibrium: nn.Module) -> nn.Module:
        network = MDEQ(equilibrium, classes=10, image_size=side, size=size)  # type: ignore[arg-type]
        return network.to(device, memory_format=layout)

    def loss(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits.float(), label)

    return Case(
        f"MDEQ {size}", batch, precision, method, budgets, build, (image,), loss, compiled
    )  # fmt: skip


class Losses(nn.Module):
    """A transformer as a map from tokens to the losses of their successors, for a graph."""

    def __init__(self, model: DEQTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = self.model.token_losses(self.model(tokens).hidden, targets)
        return losses


def transformer_case(
    batch: int,
    precision: str,
    method: str,
    budgets: tuple[int, int] = (30, 36),
    device: str = "cpu",
    width: int = 128,
    length: int = LENGTH,
    compiled: bool = False,
) -> Case:
    """A step of the equilibrium transformer, 64 tokens, 2,000 symbols with a plain softmax."""
    drawn = torch.randint(VOCABULARY, (batch, length + 1)).to(device)

    def build(equilibrium: nn.Module) -> nn.Module:
        return Losses(
            DEQTransformer(
                equilibrium, vocabulary=VOCABULARY, memory_length=length, width=width, heads=4,
                inner_width=4 * width, cutoffs=(), dropout=0.05,
            )
        ).to(device)  # fmt: skip

    inputs = drawn[:, :-1], drawn[:, 1:].contiguous()
    return Case(
        "DEQ-Transformer", batch, precision, method, budgets, build, inputs, torch.mean, compiled
    )  # fmt: skip
