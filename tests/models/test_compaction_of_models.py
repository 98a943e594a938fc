"""The equilibrium models give f everything that has a row a sample as inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from equipoise.equilibrium import Broyden, Equilibrium, JacobianFree
from equipoise.models import MDEQ
from tests.models.token_models import deq_transformer, deq_trellisnet, tokens

BATCH = 5
SOLVER = Broyden(max_steps=40, tol=0.05, memory=40)


def image_model() -> nn.Module:
    return MDEQ(Equilibrium(SOLVER, JacobianFree()), classes=3, image_size=8, dropout=0.2)


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "mdeq": image_model,
    "deq_transformer": lambda: deq_transformer(dropout=0.2, attention_dropout=0.1),
    "deq_trellisnet": lambda: deq_trellisnet(hidden_dropout=0.2),
}


def solved(name: str, share: float | None) -> tuple[Tensor, set[int]]:
    """The output in training, masks drawn alike, and the batch sizes that f has seen."""
    torch.manual_seed(0)
    model = BUILDERS[name]().double()
    layer = next(part for part in model.modules() if isinstance(part, Equilibrium))
    layer.solver, layer.gradient = replace(SOLVER, compact_at=share), JacobianFree()
    sizes: set[int] = set()
    model.cell.register_forward_hook(lambda cell, inputs, output: sizes.add(len(first(output))))
    torch.manual_seed(1)
    samples = tokens(BATCH) if name != "mdeq" else torch.randn(BATCH, 3, 8, 8).double()
    with torch.no_grad():
        output = model(samples)
    return output if isinstance(output, Tensor) else output.hidden, sizes


def first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@pytest.mark.parametrize("name", BUILDERS)
def test_the_answer_is_the_same_on_fewer_rows(name: str) -> None:
    whole, always = solved(name, None)
    compact, sizes = solved(name, 0.1)
    assert always == {BATCH}
    assert min(sizes) < BATCH
    torch.testing.assert_close(compact, whole, rtol=1e-8, atol=1e-10)
