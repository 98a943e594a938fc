"""A published explicit trellis network as ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from equipoise.equilibrium import GradientEstimator, Solver
from equipoise.interop.errors import DoesNotFit
from equipoise.interop.published_weights import in_widest, load
from equipoise.interop.sequence_configuration import PublishedArguments, lines, task_of
from equipoise.interop.trellis_weights import tied, widths, with_split_softmax
from equipoise.interop.trellisnet.names import PREFIX, published_name
from equipoise.interop.trellisnet.state_dict import primary
from equipoise.models import TrellisNet


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> TrellisNet:
    """Return the network with its weights, in float64 if they are and float32 otherwise.

    Raises DoesNotFit, a ValueError, where configuration and weights do not fit each other, or a
    solver or gradient is given to a network that has none.
    """
    if solver is not None or gradient is not None:
        raise DoesNotFit("the explicit trellis network has neither a solver nor an estimator")
    published = PublishedArguments(config)
    weights = primary(state_dict)
    arguments = architecture(published, weights)
    model = TrellisNet(**arguments)
    in_widest(model, weights)
    full = with_split_softmax(weights, len(model.ends.softmax.clusters) - 1)
    load(model, full, partial(published_name, weight_norm=arguments["weight_norm"]))
    return model


def architecture(published: PublishedArguments, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of our TrellisNet.

    Raises DoesNotFit where the number of levels is missing, which no weight tells.
    """
    words = {"nhid": ("nhid",), "ninp": ("ninp", "emsize"), "nout": ("nout",)}
    stated = {key: _first(published, names) for key, names in words.items()}
    hidden, embedding, output = widths(weights, stated, f"{PREFIX}.bias2")
    dilation = published.get("dilation", [1])
    auxiliary = _first(published, ("aux_frequency", "aux_freq"))
    return {
        "vocabulary": _first(published, ("ntoken", "n_token")) or len(weights["encoder.weight"]),
        "hidden_width": hidden,
        "embedding_width": embedding,
        "output_width": output,
        "levels": _first(published, ("nlevels", "levels"))
        or published.need("nlevels", "TrellisNet"),
        "divisor": 1,
        "cutoffs": list(published.get("splits", [])),
        "dilations": list(dilation) if isinstance(dilation, Sequence) else [dilation],
        "auxiliary_every": auxiliary,
        "auxiliary_weight": float(published.get("aux", 0.0)),
        "weight_norm": f"{PREFIX}.weight1_g" in weights,
        "weight_drop": published.get("wdrop", 0.0),
        "input_dropout": published.get("dropouti", 0.0),
        "hidden_dropout": published.get("dropouth", 0.0),
        "output_dropout": published.get("dropout", 0.0),
        "tie_weights": tied(weights),
    }


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Return group choices and settings for task and model."""
    published = PublishedArguments(config)
    arguments = architecture(published, primary(state_dict))
    vocabulary = arguments.pop("vocabulary")
    return lines(task_of(published, vocabulary), "trellisnet", vocabulary, arguments)


def _first(published: PublishedArguments, keys: Sequence[str]) -> int | None:
    """The value of the first of several words that different versions have for one thing."""
    return next((published.get(key, None) for key in keys if key in published), None)
