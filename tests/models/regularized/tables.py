"""Tables and models of inner problems for tests, and the hyper-gradients that these give."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from equipoise.data import Tabular
from equipoise.equilibrium import (
    LBFGS,
    ConjugateGradient,
    Equilibrium,
    Exact,
    GradientEstimator,
    Shine,
    Solver,
)
from equipoise.models import KernelRidge, LogisticRegression, NonlinearLeastSquares
from equipoise.models.regularized import RegularizedModel
from equipoise.models.regularized.table import Table

MODELS: tuple[type[RegularizedModel], ...] = (
    LogisticRegression, NonlinearLeastSquares, KernelRidge
)  # fmt: skip
LINEAR = MODELS[:2]
TO_THE_END = LBFGS(tol=1e-13, max_steps=20_000)
EXACT = Exact(solver=ConjugateGradient(tol=1e-13, max_steps=20_000))
SHINE = Shine()


def table(features: Tensor, target: Tensor) -> Table:
    """A dense table."""
    return {"features": features, "transposed": features.T.contiguous(), "target": target}


def drawn(rows: int, features: int = 5, classes: int = 2, seed: int = 0) -> Table:
    """Normal rows, of which those of a class lie on one side; each class has one at least."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, features, generator=generator, dtype=torch.float64)
    target = torch.arange(rows) % classes
    x[:, 0] += target
    return table(x, target)


def sparsely(dense: Table) -> Table:
    """The same table in sparse rows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return {
            "features": dense["features"].to_sparse_csr(),
            "transposed": dense["transposed"].to_sparse_csr(),
            "target": dense["target"],
        }


@cache
def bundled(name: Any) -> tuple[Table, Table]:
    """The training and the validation table of a set of scikit-learn."""
    data = Tabular(data=name)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    return batch["training"], batch["validation"]


def build(
    kind: Callable[..., RegularizedModel],
    training: Table,
    solver: Solver = TO_THE_END,
    gradient: GradientEstimator = EXACT,
    **settings: Any,
) -> RegularizedModel:
    """A model of the table's size."""
    rows, features = training["features"].shape
    classes = int(training["target"].max()) + 1
    if kind is KernelRidge:
        settings["training_rows"] = rows
    layer = Equilibrium(solver, gradient, on_failure="raise")
    return kind(equilibrium=layer, features=features, classes=classes, **settings)


def hypergradient(model: RegularizedModel, training: Table, validation: Table) -> Tensor:
    """The gradient of the outer loss towards all hyper-parameters, one after the other."""
    model.zero_grad()
    model.outer_loss(model.solve(training, validation), validation).backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(gradients)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a, b, dim=0))


def error(found: Tensor, expected: Tensor) -> float:
    """Relative, in the 2-norm."""
    return float((found - expected).norm() / expected.norm())
