"""Published names of encoders and projectors, and the sizes implied by weights under them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from equipoise.interop.barlow.words import NAME, Words
from equipoise.interop.published_configuration import DoesNotFit
from equipoise.interop.published_weights import bare_entries, by_our_names, by_rules
from equipoise.interop.recorded_arrays import required
from equipoise.models.barlow import Biases
from equipoise.models.resnet import PUBLISHED

UNREAD = re.compile(r"(.*\.)?total_(ops|params)|bn\.(running_mean|running_var|num_batches_tracked)")
"""Counters of the package thop in old checkpoints, and batch data that the original loss stores."""
ONLINE_PROBE = ("classifier.weight", "classifier.bias")


@dataclass(frozen=True)
class Layout:
    """Published names: prefixes of encoder and projector, and names of the encoder's parts.

    stages: the name of the first, up to its number, and that number.
    """

    encoder: str
    projector: str
    convolution: str
    norm: str
    stages: tuple[str, int]

    def rules(self) -> list[tuple[str, str]]:
        """Patterns and replacements that turn our names into these."""
        first, number = self.stages
        stages = [
            (rf"encoder\.stages\.{i}\.", f"{self.encoder}{first}{number + i}.") for i in range(4)
        ]
        return [
            (r"encoder\.stem\.0\.", f"{self.encoder}{self.convolution}."),
            (r"encoder\.stem\.1\.", f"{self.encoder}{self.norm}."),
            *stages,
            (r"projector\.", self.projector),
        ]


def layout_of(weights: Mapping[str, Tensor]) -> Layout:
    """The layout of a state dict of an encoder.

    The published Sequential of the HSIC code numbers its parts, including max pooling if there is
    any: the first stage is then number 4 instead of 3.
    """
    if any(name.startswith(("f.", "g.")) for name in weights):
        pooled = not any(name.startswith("f.3.") for name in weights)
        return Layout("f.", "g.", "0", "1", ("", 3 + pooled))
    nested = any(name.startswith("backbone.") for name in weights)
    return Layout("backbone." if nested else "", "projector.", "conv1", "bn1", ("layer", 1))


def primary(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every weight, without wrappers' prefixes, unread buffers and solo-learn's online probe."""
    nested = checkpoint.get("model") if isinstance(checkpoint, Mapping) else None
    entries = bare_entries(nested if isinstance(nested, Mapping) else checkpoint)
    probe = ONLINE_PROBE if any(name.startswith("backbone.") for name in entries) else ()
    return {n: t for n, t in entries.items() if not UNREAD.fullmatch(n) and n not in probe}


def in_our_names(state_dict: Mapping[str, Any], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that `ours` has; others keep their published name.

    Names of an encoder alone are also known below `encoder.`, where the whole network has them.
    """
    weights = primary(state_dict)
    rules = layout_of(weights).rules()
    names = [*(f"encoder.{name}" for name in ours), *ours]
    return by_our_names(weights, names, lambda name: by_rules(name, rules))


def encoder_arguments(weights: Mapping[str, Tensor], layout: Layout) -> dict[str, Any]:
    """Size, stem and channels that the weights imply. Raises DoesNotFit for an unknown stem."""
    name = f"{layout.encoder}{layout.convolution}.weight"
    stem = required(weights, name, "the weights (width, channels, kernel, kernel) of the stem")
    kernel = stem.shape[-1] if stem.dim() == 4 else None
    stems = {3: "small_pooled" if layout.stages == ("", 4) else "small", 7: "large"}
    if kernel not in stems or (kernel == 7 and layout.stages == ("", 3)):
        raise DoesNotFit(
            f"{name} has shape {list(stem.shape)}; a published stem is a 3x3 convolution, or a 7x7 "
            "convolution and max pooling"
        )
    size = _size(weights, layout)
    return {"size": size, "stem": stems[kernel], "image_channels": stem.shape[1]}


def _size(weights: Mapping[str, Tensor], layout: Layout) -> str:
    """The network with the most similar numbers of blocks; `load` names what it lacks."""
    first, number = layout.stages
    block = re.compile(rf"{re.escape(layout.encoder + first)}(\d+)\.(\d+)\.")
    found = {(int(m[1]) - number, int(m[2])) for m in map(block.match, weights) if m}
    counts = [sum(stage == index for stage, _ in found) for index in range(4)]
    expansion = 4 if any(name.endswith(".conv3.weight") for name in weights) else 1
    sizes = {n: stages for n, stages in PUBLISHED.items() if stages.block.expansion == expansion}

    def difference(name: str) -> int:
        blocks = sizes[name].blocks
        return sum(abs(one - other) for one, other in zip(counts, blocks, strict=True))

    return min(sizes, key=difference)


def pads_by_two(weights: Mapping[str, Tensor], layout: Layout, stem: str) -> bool:
    """Whether it is solo-learn's network for small images, whose first convolution pads so."""
    biased = f"{layout.projector}0.bias" in weights
    return layout.encoder == "backbone." and stem == "small" and biased


def projector_arguments(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], prefix: str
) -> tuple[list[int], Biases]:
    """Widths, from the words or else the weights, and which layers have a bias.

    Without either, the widths of the HSIC code, which are small.
    """
    name = re.compile(rf"{re.escape(prefix)}(\d+)\.weight")
    found = [(int(m[1]), w) for n, w in weights.items() if (m := name.fullmatch(n))]
    linear = sorted((number, len(weight)) for number, weight in found if weight.dim() == 2)
    biased = [f"{prefix}{number}.bias" in weights for number, _ in linear]
    biases: Biases = "none" if not any(biased) else "all" if all(biased) else "last"
    widths = Words(config, NAME).widths() or [width for _, width in linear]
    return (widths, biases) if widths else ([512, 128], "last")
