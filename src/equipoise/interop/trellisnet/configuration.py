"""The published configurations of the explicit trellis network, as arguments of our class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from equipoise.interop.published_configuration import PublishedConfiguration, token_lines
from equipoise.interop.published_trellis import WIDTHS, shared_arguments
from equipoise.interop.trellisnet.weights import PREFIX, primary

NAME = "TrellisNet"


def architecture(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of our TrellisNet.

    Raises DoesNotFit where the number of levels is missing: the weights do not determine it.
    """
    published = PublishedConfiguration(config, NAME)
    widths = WIDTHS | {"ninp": ("ninp", "emsize")}
    shared = shared_arguments(published, weights, f"{PREFIX}.bias2", widths)
    dilation = published.get("dilation", [1])
    return {
        "vocabulary": published.first(("ntoken", "n_token")) or len(weights["encoder.weight"]),
        **shared,
        "levels": published.first(("nlevels", "levels")) or published.need("nlevels"),
        "dilations": list(dilation) if isinstance(dilation, Sequence) else [dilation],
        "auxiliary_every": published.first(("aux_frequency", "aux_freq")),
        "auxiliary_weight": float(published.get("aux", 0.0)),
        "weight_norm": f"{PREFIX}.weight1_g" in weights,
        "weight_drop": published.get("wdrop", 0.0),
    }


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Return group choices and settings for task and model."""
    arguments = architecture(config, primary(state_dict))
    return token_lines("trellisnet", PublishedConfiguration(config, NAME), arguments)
