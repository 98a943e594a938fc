"""Finding the equilibrium layers of a network without knowing which model it is."""

from __future__ import annotations

from torch import nn

from equipoise.equilibrium import Equilibrium


def equilibrium_layers(module: nn.Module) -> dict[str, Equilibrium]:
    """Return every `Equilibrium` layer inside `module`, by its dotted name and in its order."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, Equilibrium)}
