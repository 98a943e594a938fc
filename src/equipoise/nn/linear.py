"""Linear maps with the first weights of the published equilibrium transformers."""

from __future__ import annotations

from torch import nn

from equipoise.nn.weight_norm import NormalisedLinear

INITIAL_STD = 0.01
"""Standard deviation of the weights that are drawn, where no other is given."""


def linear(
    source: int,
    target: int,
    *,
    weight_norm: bool = False,
    bias: bool = True,
    std: float = INITIAL_STD,
) -> nn.Module:
    """Return a map (..., source) -> (..., target), weight-normalised or drawn from N(0, std).

    Biases start at zero. A normalised weight keeps PyTorch's own first values: so does the
    published code (1909.01377), whose normal draw never reaches it.
    """
    plain = nn.Linear(source, target, bias=bias)
    if bias:
        nn.init.zeros_(plain.bias)
    if weight_norm:
        return NormalisedLinear(plain)
    nn.init.normal_(plain.weight, std=std)
    return plain
