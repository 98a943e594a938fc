"""Published weights: a single name and format for each, and loading them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.interop.published_configuration import DoesNotFit

WRAPPERS = re.compile(r"^((module|model)\.)+")
MOST_NAMED = 6
LAYER = "equilibrium."
"""State that an equilibrium layer may keep for itself, which is not a weight."""
COUNTER = ".num_batches_tracked"
"""A counter of batches, which nothing reads: old versions of torch did not save it."""
WEIGHT_NORM_RULES = [
    (r"(.*)\.weight\.length$", r"\1.weight_g"),
    (r"(.*)\.weight\.direction$", r"\1.weight_v"),
]


def by_rules(name: str, rules: Sequence[tuple[str, str]]) -> str:
    """The name after every rule, a pattern for its beginning and a replacement."""
    for pattern, replacement in rules:
        name = re.sub(f"^{pattern}", replacement, name)
    return name


def primary_entries(
    checkpoint: Mapping[str, Any],
    second: tuple[str, str],
    *,
    copies: tuple[str, ...] = (),
    renamed: Callable[[str], str] = str,
) -> dict[str, Tensor]:
    """Every weight once, by its first name, which is given by `renamed`.

    `second`: the prefix of second names, and that of the first names of the same weights; if both
    exist and differ, a warning names them. `copies`: prefixes of entries that are not weights, such
    as frozen copies of f. Raises DoesNotFit as `bare_entries` does.
    """
    weights: dict[str, Tensor] = {}
    duplicates: dict[str, Tensor] = {}
    prefix, first = second
    for key, tensor in bare_entries(checkpoint, copies).items():
        name = renamed(key)
        if name.startswith(prefix):
            _add(duplicates, first + name.removeprefix(prefix), tensor)
        else:
            _add(weights, name, tensor)
    _warn_of_differences(weights, duplicates, second)
    return {**duplicates, **weights}


def bare_entries(checkpoint: Mapping[str, Any], copies: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The tensors of a state dict, or of a checkpoint's entry `state_dict`.

    Wrappers' prefixes (`module.`, `model.`) are dropped, and then entries that begin with one of
    `copies`; new names of weight norms become the old ones, and kernels of width 1 lose that
    dimension: (out, in, 1) -> (out, in). Raises DoesNotFit if an entry is not a tensor, or two that
    differ claim one name.
    """
    if not isinstance(checkpoint, Mapping):
        raise DoesNotFit("published weights are a state dict: names and tensors")
    nested = checkpoint.get("state_dict")
    entries = nested if isinstance(nested, Mapping) else checkpoint
    weights: dict[str, Tensor] = {}
    for key, value in entries.items():
        name = _bare(str(key))
        if not name.startswith(copies):
            _add(weights, name, _tensor(str(key), value))
    return weights


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have one shape and equal values."""
    return a.shape == b.shape and bool(torch.equal(a, b))


def load(model: nn.Module, weights: Mapping[str, Tensor], published: Callable[[str], str]) -> None:
    """Copy weights under published names into the model; `published` maps our names to those.

    If a weight is in float64, so is the model from then on. Tied parameters have several names: if
    one is missing, another serves. Raises DoesNotFit, which names what is missing, unknown or of
    another shape.
    """
    if any(tensor.dtype == torch.float64 for tensor in weights.values()):
        model.double()
    parameters = _loadable(model)
    names = {published(name): name for name in parameters}
    entries = _with_ties(parameters, names, weights)
    misshapen = [
        f"{name} of shape {list(tensor.shape)} instead of {list(parameters[names[name]].shape)}"
        for name, tensor in entries.items()
        if name in names and tensor.shape != parameters[names[name]].shape
    ]
    missing = set(names) - set(entries)
    problems = {
        "missing": sorted(name for name in missing if not name.endswith(COUNTER)),
        "unknown": sorted(set(entries) - set(names)),
        "of another shape": misshapen,
    }
    if any(problems.values()):
        text = "; ".join(f"{kind}: {listed(them)}" for kind, them in problems.items() if them)
        raise DoesNotFit(f"the weights do not fit the configuration; {text}")
    model.load_state_dict({names[n]: tensor for n, tensor in entries.items()}, strict=False)


def by_our_names(
    weights: Mapping[str, Tensor], ours: Iterable[str], published: Callable[[str], str]
) -> dict[str, Tensor]:
    """The weights under our names; those that we lack keep their own."""
    names = {published(name): name for name in ours}
    return {names.get(name, name): tensor for name, tensor in weights.items()}


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _loadable(model: nn.Module) -> dict[str, Tensor]:
    """The names to load: not what the equilibrium layer keeps, nor what has no entries."""
    entries = model.state_dict().items()
    return {n: t for n, t in entries if t.numel() and not n.startswith(LAYER)}


def _with_ties(
    parameters: Mapping[str, Tensor], names: Mapping[str, str], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights, with the value of a tied parameter under all of its names."""
    places: dict[int, list[str]] = {}
    for published_name, name in names.items():
        places.setdefault(parameters[name].data_ptr(), []).append(published_name)
    full = dict(weights)
    for tied in places.values():
        present = [name for name in tied if name in weights]
        if len(tied) > 1 and present:
            full |= {name: weights[present[0]] for name in tied if name not in weights}
    return full


def _add(weights: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    if name in weights and not same(weights[name], tensor):
        raise DoesNotFit(f"several entries are the weight '{name}', and differ")
    weights[name] = tensor


def _warn_of_differences(
    weights: Mapping[str, Tensor], duplicates: Mapping[str, Tensor], second: tuple[str, str]
) -> None:
    both = [name for name in duplicates if name in weights]
    differing = sorted(name for name in both if not same(weights[name], duplicates[name]))
    if differing:
        prefix, first = second
        pairs = [f"{prefix}{name.removeprefix(first)} of {name}" for name in differing]
        warnings.warn(
            f"{len(differing)} duplicates differ from their originals, which are used: "
            f"{listed(pairs)}",
            stacklevel=4,
        )


def _bare(key: str) -> str:
    name = WRAPPERS.sub("", key)
    name = name.replace(".parametrizations.weight.original0", ".weight_g")
    return name.replace(".parametrizations.weight.original1", ".weight_v")


def _tensor(key: str, value: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DoesNotFit(
            f"the entry '{key}' is not a tensor but a {type(value).__name__}: give the model's "
            "state_dict, or a checkpoint that holds it as 'state_dict'"
        ) from error
    return tensor.squeeze(-1) if tensor.dim() == 3 and tensor.shape[-1] == 1 else tensor
