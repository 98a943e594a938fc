"""Weights of one network for another: what fits by name and shape, without the heads.

A network lists in `head_parts` its submodules that depend only on the answers, such as a
classifier, and in `vocabulary_parts` those with a row for each symbol of the data. Parts of its
submodules count too, so that a network around another need not repeat them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
COUNTER = ".num_batches_tracked"
"""A counter of batches, which nothing reads."""
COINCIDENCE = 3
"""Two inner networks match if they have at least one in three names in common."""


class Weight(NamedTuple):
    """A tensor of a network, under all the names that tied weights have."""

    names: tuple[str, ...]
    tensor: Tensor

    @property
    def parameters(self) -> int:
        """How many numbers are trained; none in a running statistic."""
        return self.tensor.numel() if isinstance(self.tensor, nn.Parameter) else 0


class Misfit(NamedTuple):
    """A weight of the network, and its shape in the file, None if the file lacks it."""

    weight: Weight
    there: Shape | None


@dataclass(frozen=True)
class Transfer:
    """Which of some weights a network has taken.

    left: weights that were not requested. unfit: requested, but missing or of another shape.
    unused: names in the file, as spelt there, for which the network has no place.
    """

    taken: list[Weight]
    left: list[Weight]
    unfit: list[Misfit]
    unused: list[str]


def transfer(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    parts: Sequence[str] | None = None,
    *,
    same_vocabulary: bool = True,
) -> Transfer:
    """Copy into the network, in place, the requested weights that have its shape.

    parts: submodules by name; None is everything but the heads and, if the vocabularies differ,
    but the parts with a row for each symbol. A tied weight is requested if one of its names is.
    The weights may be those of an inner network, or of a network around this one.
    """
    wanted, left = _divided(network, parts, same_vocabulary)
    places = placed(weights, _names(weights_of(network)), but=heads(network))
    taken, unfit = [], []
    for weight in wanted:
        source = next((places[name] for name in weight.names if name in places), None)
        there = None if source is None else tuple(weights[source].shape)
        if source is not None and there == tuple(weight.tensor.shape):
            with torch.no_grad():
                weight.tensor.copy_(weights[source])
            taken.append(weight)
        else:
            unfit.append(Misfit(weight, there))
    known = set(places.values())
    unused = [name for name in weights if name not in known and not name.endswith(COUNTER)]
    return Transfer(taken, left, unfit, unused)


def _divided(
    network: nn.Module, parts: Sequence[str] | None, same_vocabulary: bool
) -> tuple[list[Weight], list[Weight]]:
    """The weights that are requested, and the others."""
    spared = () if same_vocabulary else vocabulary(network)
    closed = (*heads(network), *spared)
    wanted, left = list[Weight](), list[Weight]()
    for weight in weights_of(network):
        if parts is None:
            of_symbols = any(within(name, spared) for name in weight.names)
            asked = not of_symbols and any(not within(name, closed) for name in weight.names)
        else:
            asked = any(within(name, parts) for name in weight.names)
        (wanted if asked else left).append(weight)
    return wanted, left


def weights_of(network: nn.Module) -> list[Weight]:
    """Every tensor of the state dict once, without counters."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and tensor.numel() and not name.endswith(COUNTER):
            names.setdefault(id(tensor), []).append(name)
            tensors[id(tensor)] = tensor
    return [Weight(tuple(names[key]), tensor) for key, tensor in tensors.items()]


def heads(network: nn.Module) -> tuple[str, ...]:
    """The parts that depend only on the answers, according to all submodules."""
    return _named_parts(network, "head_parts")


def vocabulary(network: nn.Module) -> tuple[str, ...]:
    """The parts that have a row for each symbol of the data."""
    return _named_parts(network, "vocabulary_parts")


def within(name: str, parts: Iterable[str]) -> bool:
    """Whether a name is one of the parts, or lies below one."""
    return any(f"{name}.".startswith(f"{part.rstrip('.')}.") for part in parts)


def submodules(network: nn.Module) -> list[str]:
    """What `parts` may name: every weight, and everything above one."""
    names = dict[str, None]()
    for name in _names(weights_of(network)):
        steps = name.split(".")
        names |= dict.fromkeys(".".join(steps[:count]) for count in range(1, len(steps) + 1))
    return list(names)


def placed(
    theirs: Collection[str], ours: Collection[str], but: Sequence[str] = ()
) -> dict[str, str]:
    """For each of our names, the weights with that name in the file.

    One network may be a part of the other, as an encoder is of what trains it: then the names below
    that part are compared. but: heads, whose names are no evidence.
    """
    telling = [name for name in ours if not within(name, but)]

    def common(pair: tuple[str, str]) -> int:
        there, here = pair
        return len(_below(there, theirs) & _below(here, telling))

    pairs = product(_places(theirs), _places(ours))
    there, here = max(pairs, key=common)  # of equals the first, the pair without prefixes
    if COINCIDENCE * common((there, here)) < min(len(theirs), len(telling)):
        there = here = ""
    both = _below(there, theirs) & _below(here, ours)
    return {here + name: there + name for name in both}


def _places(names: Collection[str]) -> list[str]:
    return ["", *dict.fromkeys(f"{name.partition('.')[0]}." for name in names if "." in name)]


def _below(place: str, names: Iterable[str]) -> set[str]:
    return {name.removeprefix(place) for name in names if name.startswith(place)}


def _names(weights: Iterable[Weight]) -> list[str]:
    return [name for weight in weights for name in weight.names]


def _named_parts(network: nn.Module, attribute: str) -> tuple[str, ...]:
    modules = network.named_modules()
    found = ((place, getattr(module, attribute, ())) for place, module in modules)
    return tuple(f"{place}.{part}".lstrip(".") for place, parts in found for part in parts)
