"""Published models of the reference implementations: their weights, words and outputs.

One module per family; each is imported when it is first needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from equipoise.interop.published_configuration import DoesNotFit

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor, nn

    from equipoise.equilibrium import GradientEstimator, Solver

NETWORKS = (
    "mdeq",
    "deq_transformer",
    "deq_trellisnet",
    "trellisnet",
    "mult",
    "barlow",
    "coupling_transformer",
)
"""Families whose models are whole networks, with checkpoints to import."""
FAMILIES = (*NETWORKS, "kernel_attention")

__all__ = ["FAMILIES", "DoesNotFit", "from_reference", "in_our_names", "reference_forward"]


class Family(Protocol):
    """What the module of a family provides."""

    def from_reference(
        self,
        config: Mapping[str, Any],
        state_dict: Mapping[str, Any],
        *,
        solver: Solver | None = None,
        gradient: GradientEstimator | None = None,
    ) -> nn.Module:
        """The model; see `equipoise.interop.from_reference`."""
        ...

    def reference_forward(self, model: nn.Module, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
        """The recorded arrays; see `equipoise.interop.reference_forward`."""
        ...


class NetworkFamily(Family, Protocol):
    """What the module of a family of whole networks provides in addition."""

    def overrides(self, config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
        """The command-line overrides that compose a run of this model."""
        ...

    def in_our_names(
        self, state_dict: Mapping[str, Any], ours: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The weights under the names that `ours` has; others keep their published name."""
        ...


def family_module(family: str) -> Family:
    """The module of a family. Raises DoesNotFit, a ValueError, for an unknown one."""
    if family not in FAMILIES:
        families = ", ".join(FAMILIES)
        raise DoesNotFit(f"there is no family '{family}' of published models: {families}")
    module: Any = import_module(f"{__name__}.{family}")
    return module


def network_family_module(family: str) -> NetworkFamily:
    """The module of a family of whole networks. Raises DoesNotFit for any other."""
    if family in FAMILIES and family not in NETWORKS:
        raise DoesNotFit(
            f"'{family}' is a part of a network, so no checkpoint is made of it: choose "
            f"{', '.join(NETWORKS)}"
        )
    module: Any = family_module(family)
    return module


def in_our_names(
    state_dict: Mapping[str, Any], ours: Mapping[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Published weights under our names, as each family that can read them translates them.

    ours: the network's weights. They may be those of a network inside it, whose names lack the name
    of that part.
    """
    inner = {name.partition(".")[2]: tensor for name, tensor in ours.items() if "." in name}
    for family in NETWORKS:
        try:
            yield network_family_module(family).in_our_names(state_dict, {**inner, **ours})
        except DoesNotFit:
            continue


def from_reference(
    family: str,
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> nn.Module:
    """A published model with its weights, from its own configuration and state dict.

    `config` is in the reference implementation's words, flat or nested as in its files. Solver and
    gradient default to those of the configuration. Raises DoesNotFit, a ValueError, which names
    every entry that is missing, unknown or of another shape.
    """
    return family_module(family).from_reference(
        config, state_dict, solver=solver, gradient=gradient
    )


def reference_forward(
    family: str, model: nn.Module, arrays: Mapping[str, Any]
) -> dict[str, ndarray]:
    """What the reference implementation would record for these inputs, by its names.

    Runs a copy of the model in evaluation mode with a tight solve, in the widest dtype of the
    arrays (numpy's or tensors); names that the family does not know are ignored. Warns if a solve
    does not converge.
    """
    return family_module(family).reference_forward(model, arrays)
