"""Weight normalisation whose weights are computed once for all the evaluations of a forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

ModuleType = TypeVar("ModuleType", bound=nn.Module)


def normalise_weight(module: ModuleType) -> ModuleType:
    """Split `module.weight` into a length and a direction, w = g v / ||v||, in place.

    The norm runs over all dimensions but the first; g starts at ||v||, so that the weight keeps
    its value. g is `parametrizations.weight.original0`, (out, 1, ...), and v is `original1`, of
    the weight's shape. Returns the module itself.

    Source: Salimans and Kingma 2016, "Weight normalization", equation 2.
    """
    weight_norm(module, name="weight", dim=0)
    return module


@contextmanager
def weights_computed_once(module: nn.Module) -> Iterator[None]:
    """Compute every parametrised tensor inside `module` now and keep it until the block ends.

    The tensors are computed in the caller's gradient mode and carry its graph; inside the block
    each evaluation reads the same tensor, whether under `no_grad` or not. Blocks may be nested.
    After the block nothing is kept, so copying, saving and loading the module stay safe.
    """
    with parametrize.cached():
        _touch_parametrised_tensors(module)
        yield


def _touch_parametrised_tensors(module: nn.Module) -> None:
    # The first access fills the cache. Were it left to the solver, which runs under no_grad, the
    # cached weights would have no graph and the attached evaluation would train nothing.
    for child in module.modules():
        if parametrize.is_parametrized(child):
            for name in child.parametrizations:  # type: ignore[union-attr]
                getattr(child, name)
