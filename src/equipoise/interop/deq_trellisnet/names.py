"""The published names of the equilibrium trellis network's parameters."""

from __future__ import annotations

import re

from equipoise.interop.trellis_weights import ends_name

RULES = [
    (r"cell\.inward\.", r"trellisnet.inject_conv."),
    (r"cell\.recurrent\.", r"trellisnet.func.full_conv."),
    (r"(.*)\.weight\.length$", r"\1.weight_g"),
]


def published_name(name: str, weight_norm: bool = True) -> str:
    """Return the published name of our parameter `name`, with or without weight norm."""
    direction = r"\1.weight_v" if weight_norm else r"\1.weight"
    for pattern, replacement in [*RULES, (r"(.*)\.weight\.direction$", direction)]:
        name = re.sub(f"^{pattern}", replacement, name)
    return ends_name(name) or name
