"""Small models of token sequences, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.equilibrium import Broyden, Equilibrium, Exact
from equipoise.models import (
    DEQTransformer,
    DEQTrellisNet,
    KernelTransformer,
    Transformer,
    TrellisNet,
)

VOCABULARY = 30
TIGHT = Broyden(max_steps=150, tol=1e-12, memory=100, patience=150)
Build = Callable[..., nn.Module]


def layer() -> Equilibrium:
    return Equilibrium(TIGHT, Exact(TIGHT))


def deq_transformer(**changes: Any) -> DEQTransformer:
    shape = {"width": 16, "heads": 2, "inner_width": 24, "memory_length": 6}
    return DEQTransformer(layer(), vocabulary=VOCABULARY, **{**shape, **changes})


def transformer(**changes: Any) -> Transformer:
    shape = {"width": 16, "heads": 2, "inner_width": 24, "memory_length": 6, "layers": 3}
    return Transformer(vocabulary=VOCABULARY, **{**shape, **changes})


def kernel_transformer(**changes: Any) -> KernelTransformer:
    shape = {"width": 16, "heads": 2, "inner_width": 24, "memory_length": 6}
    shape |= {"size": "tiny"} if changes.get("size") is None else {}
    return KernelTransformer(vocabulary=VOCABULARY, **{**shape, **changes})


def deq_trellisnet(**changes: Any) -> DEQTrellisNet:
    shape = {"hidden_width": 10, "embedding_width": 6}
    return DEQTrellisNet(layer(), vocabulary=VOCABULARY, **{**shape, **changes})


def trellisnet(**changes: Any) -> TrellisNet:
    shape = {"hidden_width": 10, "embedding_width": 6, "levels": 4}
    return TrellisNet(vocabulary=VOCABULARY, **{**shape, **changes})


BUILDERS: dict[str, Build] = {
    "deq_transformer": deq_transformer,
    "transformer": transformer,
    "deq_trellisnet": deq_trellisnet,
    "trellisnet": trellisnet,
    "kernel_transformer": kernel_transformer,
}


def seeded(build: Build, **changes: Any) -> nn.Module:
    """In float64, from a fixed seed, with injections large enough for a stable fixed point."""
    torch.manual_seed(0)
    return with_large_injections(build(**changes).double())


def with_large_injections(model: nn.Module) -> nn.Module:
    """Scale embeddings and the transformers' injection up, in place."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embedding.tables" in name or name.endswith("injection.weight"):
                parameter.mul_(60 if "injection" in name else 20)
    return model


def tokens(batch: int = 2, length: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (batch, length), generator=generator)
