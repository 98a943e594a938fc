"""The published MulT: the words of its training script, its weights and its recorded arrays.

Source: 1906.00295 and the code published with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor, nn

from equipoise.equilibrium import GradientEstimator, Solver
from equipoise.interop.published_configuration import (
    DoesNotFit,
    PublishedConfiguration,
    setting_lines,
)
from equipoise.interop.published_weights import bare_entries, by_our_names, by_rules, load
from equipoise.interop.recorded_arrays import (
    as_arrays,
    as_tensors,
    evaluation_copy,
    required,
    widest,
)
from equipoise.models import MulT

NAME = "MulT"
LETTERS = {"language": "l", "audio": "a", "vision": "v"}
WIDTH, HEADS = 30, 5
"""The only width of the published code; the word `d_model` is from codes with others."""
RATES = {
    "relu_dropout": ("relu_dropout", 0.1),
    "residual_dropout": ("res_dropout", 0.1),
    "embedding_dropout": ("embed_dropout", 0.25),
    "output_dropout": ("out_dropout", 0.0),
}
ATTENTION_RATES = {"attn_dropout": 0.1, "attn_dropout_a": 0.0, "attn_dropout_v": 0.0}

BUFFERS = (".version", "._float_tensor")
"""Words about the code and the device, whose values nothing reads."""
LAYER = re.compile(r"trans_[lav]_with_[lav]\.layers\.(\d+)\.")
RULES = [
    (r"(network|unread)\.", ""),
    (r"streams\.projections\.", "proj_"),
    (r"crossmodal\.encoders\.([a-z]+)_from_([a-z]+)\.", r"trans_\1_with_\2."),
    (r"memory\.([a-z]+)\.", r"trans_\1_mem."),
    (r"(.*)\.norm\.", r"\1.layer_norms.0."),
    (r"(.*)\.feed_forward_norm\.", r"\1.layer_norms.1."),
    (r"(.*)\.last_norm\.", r"\1.layer_norm."),
    (r"(.*)\.attention\.(query|key|value)\.(weight|bias)$", r"\1.self_attn.in_proj_\3[\2]"),
    (r"(.*)\.attention\.output\.", r"\1.self_attn.out_proj."),
    (r"(.*)\.widen\.", r"\1.fc1."),
    (r"(.*)\.narrow\.", r"\1.fc2."),
    (r"widen\.", "proj1."),
    (r"narrow\.", "proj2."),
    (r"output\.", "out_layer."),
]
TASKS = {"mosi": "mosi", "mosei": "mosei", "mosei_senti": "mosei", "iemocap": "iemocap"}
OF_MOSI, LOGITS_OF_EMOTIONS = [5, 20], 8
"""Columns of audio and vision that only MOSI's files have, and outputs of IEMOCAP."""


def published_name(name: str) -> str:
    """The published name of our parameter; a third of a packed one ends in [query] or the like."""
    name = by_rules(name, RULES)
    for modality, letter in LETTERS.items():
        name = name.replace(f"_{modality}", f"_{letter}")
    return name


def primary(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every weight, with packed ones split into thirds; without buffers, which nothing reads."""
    weights: dict[str, Tensor] = {}
    for name, tensor in bare_entries(checkpoint).items():
        if ".in_proj_" in name and tensor.dim():
            thirds = zip(("query", "key", "value"), tensor.tensor_split(3), strict=True)
            weights |= {f"{name}[{part}]": third for part, third in thirds}
        elif not name.endswith(BUFFERS):
            weights[name] = tensor
    return weights


def in_our_names(state_dict: Mapping[str, Any], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that `ours` has; others keep their published name."""
    return by_our_names(primary(state_dict), ours, published_name)


def architecture(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of our MulT.

    Missing words have the published defaults; the weights determine the streams' columns, outputs,
    layers and targets if the words do not. Raises DoesNotFit if neither does, a word has an invalid
    value, or two of the three targets are chosen, which was never published.
    """
    words = _Words(config, NAME)
    columns = {letter: _size(weights, f"proj_{letter}.weight", 1) for letter in LETTERS.values()}
    return {
        "features": [words.whole((f"orig_d_{letter}",), n) for letter, n in columns.items()],
        "outputs": words.whole(("output_dim",), _size(weights, "out_layer.weight", 0)),
        "targets": words.targets(weights),
        "width": words.whole(("d_model",), WIDTH),
        "layers": words.whole(("layers", "nlevels"), _layers(weights)),
        "heads": words.whole(("num_heads", "heads"), HEADS),
        "attention_dropout": [words.rate((word,), rate) for word, rate in ATTENTION_RATES.items()],
        **{ours: words.rate((word,), rate) for ours, (word, rate) in RATES.items()},
        "causal": words.flag("attn_mask", True),
        "kernel": 1,  # for this and the next there are no words
        "key_padding_mask": False,
    }


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Group choices and settings for task and model.

    The task is given by the word `dataset`, or else by the numbers of outputs and columns.
    """
    words, arguments = _Words(config, NAME), architecture(config, primary(state_dict))
    settings = {name: arguments.pop(name) for name in ("features", "outputs")}
    sentiment = "mosi" if settings["features"][1:] == OF_MOSI else "mosei"
    likely = "iemocap" if settings["outputs"] == LOGITS_OF_EMOTIONS else sentiment
    task = TASKS.get(str(words.get("dataset", "")).lower(), likely)
    settings["aligned"] = words.flag("aligned", False)
    return [
        f"task={task}",
        "model=mult",
        *setting_lines("task", settings),
        *setting_lines("model", arguments),
    ]


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> MulT:
    """The network with its weights, in float64 if they are and float32 otherwise.

    config: the training script's words, its own or those that it passes to the network. Raises
    DoesNotFit, a ValueError, if configuration and weights do not fit each other, or if a solver or
    gradient is given, since this network has none.
    """
    if solver is not None or gradient is not None:
        raise DoesNotFit("the published MulT has neither a solver nor an estimator")
    weights = primary(state_dict)
    arguments = architecture(config, weights)
    try:
        model = MulT(**arguments)
    except ValueError as error:
        raise DoesNotFit(f"no published {NAME} has this configuration: {error}") from error
    parts = _unread(arguments).items()
    unread = {n: part for n, part in parts if any(w.startswith(f"{n}.") for w in weights)}
    both = nn.ModuleDict({"network": model, "unread": nn.ModuleDict(unread)})
    load(both, weights, published_name)
    return model


@torch.no_grad()
def reference_forward(model: MulT, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
    """out (B, outputs) and last_hs (B, H), the last steps of the memory encoders.

    Takes those of x_l, x_a and x_v (B, T, features) that the model reads. Raises DoesNotFit if one
    is missing or its shape does not fit the model or the others.
    """
    names = {modality: f"x_{LETTERS[modality]}" for modality in model.modalities}
    inputs = as_tensors({n: arrays[n] for n in names.values() if n in arrays}, model)
    dtype = widest(inputs)
    streams = {
        modality: required(inputs, name, f"the {modality} (batch, steps, features)").to(dtype)
        for modality, name in names.items()
    }
    for modality, stream in streams.items():
        columns = model.streams.features[modality]
        if stream.dim() != 3 or 0 in stream.shape or stream.shape[2] != columns:
            shape = tuple(stream.shape)
            raise DoesNotFit(f"{names[modality]} must be (batch, steps, {columns}), got {shape}")
    batches = [len(stream) for stream in streams.values()]
    if len(set(batches)) > 1:
        raise DoesNotFit(f"{', '.join(names.values())} must have as many samples, got {batches}")
    prediction = evaluation_copy(model, dtype)(streams)
    return as_arrays({"out": prediction.outputs, "last_hs": prediction.hidden})


class _Words(PublishedConfiguration):
    """The words of the training script, with the type of each."""

    def targets(self, weights: Mapping[str, Tensor]) -> list[str] | None:
        """The one target that is chosen; None for all three, also if no word is true."""
        flags = {modality: f"{letter}only" for modality, letter in LETTERS.items()}
        if any(word in self for word in flags.values()):
            chosen = [modality for modality, word in flags.items() if self.flag(word, False)]
        else:
            trained = {name[6] for name in weights if LAYER.match(name)}
            chosen = [modality for modality, letter in LETTERS.items() if letter in trained]
        if len(chosen) == 2:
            raise DoesNotFit(
                f"the targets are {' and '.join(chosen)}; a published {NAME} has one or all three"
            )
        return chosen if len(chosen) == 1 else None


def _size(weights: Mapping[str, Tensor], name: str, axis: int) -> int | None:
    """The size of a matrix along one axis; None if there is no such matrix."""
    return weights[name].shape[axis] if name in weights and weights[name].dim() == 2 else None


def _layers(weights: Mapping[str, Tensor]) -> int | None:
    numbers = [int(found[1]) for found in map(LAYER.match, weights) if found]
    return max(numbers) + 1 if numbers else None


def _unread(arguments: Mapping[str, Any]) -> dict[str, nn.Module]:
    """Names of what the published network holds but never reads, so that ours lacks it:

    memory encoders of other targets, and projections of streams that are as wide as it is.
    """
    whole, width = MulT(**{**arguments, "targets": None}), arguments["width"]
    targets, unread = arguments["targets"] or LETTERS, dict[str, nn.Module]()
    for columns, (modality, letter) in zip(arguments["features"], LETTERS.items(), strict=True):
        if columns == width:
            unread[f"proj_{letter}"] = nn.Linear(width, width, bias=False)
        if modality not in targets:
            unread[f"trans_{letter}_mem"] = whole.memory[modality]
    return unread
