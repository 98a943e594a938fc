"""Published weights of the sequence models: one name and one form for each, and loading them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.interop.errors import DoesNotFit

WRAPPERS = re.compile(r"^((module|model)\.)+")
MOST_NAMED = 6
LAYER = "equilibrium."
"""What an equilibrium layer may keep for itself is no weight."""


def bare_entries(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict, or of a checkpoint's entry `state_dict`.

    Wrappers' prefixes (`module.`, `model.`) are dropped, the new names of a weight norm are turned
    into the old ones, and kernels of width 1 lose it: (out, in, 1) -> (out, in). Raises DoesNotFit
    where an entry is no tensor.
    """
    if not isinstance(checkpoint, Mapping):
        raise DoesNotFit("published weights are a state dict: names and tensors")
    nested = checkpoint.get("state_dict")
    entries = nested if isinstance(nested, Mapping) else checkpoint
    return {_bare(str(key)): _tensor(str(key), value) for key, value in entries.items()}


def merged(weights: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `weights`, and of `second` what they lack; differing duplicates are named."""
    both = [name for name in second if name in weights]
    differing = sorted(name for name in both if not same(weights[name], second[name]))
    if differing:
        warnings.warn(
            f"duplicates differ from what they duplicate, which is used: {listed(differing)}",
            stacklevel=3,
        )
    return {**second, **weights}


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have one shape and equal values."""
    return a.shape == b.shape and bool(torch.equal(a, b))


def load(model: nn.Module, weights: Mapping[str, Tensor], published: Callable[[str], str]) -> None:
    """Copy weights under published names into the model; `published` turns ours into those.

    Tied parameters have several names: where one is missing, another serves. Raises DoesNotFit that
    names what is missing, what is unknown and what has another shape.
    """
    own = _own_weights(model)
    names = {published(name): name for name in own}
    given = _with_ties(own, names, weights)
    wrong = [
        f"{name} of shape {list(tensor.shape)} instead of {list(own[names[name]].shape)}"
        for name, tensor in given.items()
        if name in names and tensor.shape != own[names[name]].shape
    ]
    problems = {
        "missing": sorted(set(names) - set(given)),
        "unknown": sorted(set(given) - set(names)),
        "of another shape": wrong,
    }
    if any(problems.values()):
        text = "; ".join(f"{kind}: {listed(them)}" for kind, them in problems.items() if them)
        raise DoesNotFit(f"the weights do not fit the configuration; {text}")
    model.load_state_dict({names[n]: tensor for n, tensor in given.items()}, strict=False)


def listed(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def in_widest(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the model in float64 where a weight is, in float32 otherwise."""
    wide = any(tensor.dtype == torch.float64 for tensor in weights.values())
    return model.double() if wide else model


def _own_weights(model: nn.Module) -> dict[str, Tensor]:
    """What has to be loaded: not what the equilibrium layer keeps, nor what has no entries."""
    entries = model.state_dict().items()
    return {n: t for n, t in entries if t.numel() and not n.startswith(LAYER)}


def _with_ties(
    own: Mapping[str, Tensor], names: Mapping[str, str], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights, with what is known of a tied parameter under all of its names."""
    places: dict[int, list[str]] = {}
    for published_name, name in names.items():
        places.setdefault(own[name].data_ptr(), []).append(published_name)
    full = dict(weights)
    for tied in places.values():
        found = [name for name in tied if name in weights]
        if len(tied) > 1 and found:
            full |= {name: weights[found[0]] for name in tied if name not in weights}
    return full


def _bare(key: str) -> str:
    name = WRAPPERS.sub("", key)
    name = name.replace(".parametrizations.weight.original0", ".weight_g")
    return name.replace(".parametrizations.weight.original1", ".weight_v")


def _tensor(key: str, value: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DoesNotFit(
            f"the entry '{key}' is no tensor but a {type(value).__name__}: give the model's "
            "state_dict, or a checkpoint that holds it as 'state_dict'"
        ) from error
    return tensor.squeeze(-1) if tensor.dim() == 3 and tensor.shape[-1] == 1 else tensor
