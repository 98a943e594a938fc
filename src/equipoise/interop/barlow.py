"""Published Barlow Twins and its HSIC form: losses in their words, encoders and projectors by name.

Sources: 2103.03230 and 2104.13712, the code published with each, and solo-learn (2108.01775).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional

from equipoise.equilibrium import GradientEstimator, Solver
from equipoise.interop.published_configuration import (
    DoesNotFit,
    PublishedConfiguration,
    setting_lines,
)
from equipoise.interop.published_weights import bare_entries, by_rules, load
from equipoise.interop.recorded_arrays import (
    as_arrays,
    as_tensors,
    evaluation_copy,
    required,
    widest,
)
from equipoise.models import BarlowTwins, ResNet
from equipoise.models.barlow import Biases, projector_of
from equipoise.models.resnet import PUBLISHED
from equipoise.nn.cross_correlation import RedundancyReduction

NAME = "Barlow Twins"
OF_THE_HSIC_CODE = ("l2_normalize_first", "corr_neg_one", "corr_zero", "lmbda")
OF_THE_ORIGINAL = ("lambd", "lamb", "scale_loss", "scale-loss")
"""Words of the original and of solo-learn, whose losses are the same up to the scale."""
UNREAD = re.compile(r"(.*\.)?total_(ops|params)|bn\.(running_mean|running_var|num_batches_tracked)")
"""Counts of the package thop in old checkpoints, and what the original's loss keeps of a batch."""
ONLINE_PROBE = ("classifier.weight", "classifier.bias")
HEAD_ALONE = re.compile(r"\d+\.[a-z_]+")
TASKS = {"cifar10": "ssl_cifar10", "tiny_imagenet": "ssl_tiny_imagenet", "stl10": "ssl_stl10"}
BY_STEM = {"small": "ssl_cifar10", "small_pooled": "ssl_tiny_imagenet", "large": "ssl_imagenet"}
NOTHING_TO_TEST = (
    "a loss or a projector alone makes no checkpoint: give the weights of an encoder too"
)


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

    The published Sequential of the HSIC code numbers its parts, of which max pooling, where there
    is any, is one: the first stage is then number 4, and not 3.
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


def loss_arguments(config: Mapping[str, Any], original: bool = False) -> dict[str, Any]:
    """The arguments of our loss; without a word of either code it is the original's or the other's.

    Raises DoesNotFit where words of both are given, or one has a value that it cannot have.
    """
    words = _Words(config, NAME)
    theirs, hsic = ([w for w in them if w in words] for them in (OF_THE_ORIGINAL, OF_THE_HSIC_CODE))
    if theirs and hsic:
        raise DoesNotFit(
            f"{theirs[0]} is a word of the original code and {hsic[0]} of the HSIC code: give "
            "those of one"
        )
    if theirs or (original and not hsic):
        weight = words.number(("lambd", "lamb"), 0.0051)
        scale = words.number(("scale_loss", "scale-loss"), 1.0)
        return _arguments(0.0, weight, "batch_norm", scale)
    negative = words.flag("corr_neg_one", False)
    if negative and words.flag("corr_zero", False):
        raise DoesNotFit("corr_neg_one and corr_zero are both true: choose one")
    normalized = words.flag("l2_normalize_first", True)
    weight = words.number(("lmbda",), 0.005)
    return _arguments(-float(negative), weight, "unit_length" if normalized else "unbiased", 1.0)


def _arguments(target: float, weight: float, normalization: str, scale: float) -> dict[str, Any]:
    return {
        "off_diagonal_target": target + 0.0,
        "off_diagonal_weight": weight,
        "normalization": normalization,
        "scale": scale,
    }


def encoder_arguments(weights: Mapping[str, Tensor], layout: Layout) -> dict[str, Any]:
    """Size, stem and channels that the weights tell. Raises DoesNotFit for an unknown stem."""
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
    """The network with the most similar numbers of blocks; `load` names what it does not have."""
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


def projector_arguments(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], prefix: str
) -> tuple[list[int], Biases]:
    """Widths, the words' before those of the weights, and which layers have a bias.

    Without a word and weights those of the HSIC code, which are small.
    """
    name = re.compile(rf"{re.escape(prefix)}(\d+)\.weight")
    found = [(int(m[1]), w) for n, w in weights.items() if (m := name.fullmatch(n))]
    linear = sorted((number, len(weight)) for number, weight in found if weight.dim() == 2)
    biased = [f"{prefix}{number}.bias" in weights for number, _ in linear]
    biases: Biases = "none" if not any(biased) else "all" if all(biased) else "last"
    widths = _Words(config, NAME).widths() or [width for _, width in linear]
    return (widths, biases) if widths else ([512, 128], "last")


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> RedundancyReduction | BarlowTwins | nn.Sequential:
    """The loss where there are no weights, else encoder and projector, or the projector alone.

    Weights in float64 stay so. An encoder without its projector gets a new one, and a warning says
    so. Raises DoesNotFit, a ValueError, where words and weights do not fit each other, or a solver
    or gradient is given, which no published network of this kind has.
    """
    if solver is not None or gradient is not None:
        raise DoesNotFit(f"the published {NAME} has neither a solver nor an estimator")
    weights = primary(state_dict)
    if not weights:
        return RedundancyReduction(**loss_arguments(config))
    layout = layout_of(weights)
    prefix = "" if all(HEAD_ALONE.fullmatch(name) for name in weights) else layout.projector
    if prefix == "" or all(name.startswith(prefix) for name in weights):
        return _projector(config, weights, prefix)
    return _network(config, weights, layout)


def _projector(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], prefix: str
) -> nn.Sequential:
    widths, biases = projector_arguments(config, weights, prefix)
    first = required(weights, f"{prefix}0.weight", "the first weights (width, features)")
    head = projector_of([first.shape[-1], *widths], biases)
    load(head, weights, lambda name: prefix + name)
    return head


def _network(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], layout: Layout
) -> BarlowTwins:
    arguments = encoder_arguments(weights, layout)
    widths, biases = projector_arguments(config, weights, layout.projector)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BarlowTwins(
            encoder=lambda: ResNet(classes=None, image_size=64, **arguments),
            projector=widths,
            projector_biases=biases,
        )
    if _pads_by_two(weights, layout, arguments["stem"]):
        stem = model.encoder.get_submodule("stem.0")
        assert isinstance(stem, nn.Conv2d)
        stem.padding = (2, 2)
    rules = layout.rules()
    if any(name.startswith(layout.projector) for name in weights):
        load(model, weights, lambda name: by_rules(name, rules))
        return model
    warnings.warn("there are no weights of the projector: it is a new, untrained one", stacklevel=4)
    load(nn.ModuleDict({"encoder": model.encoder}), weights, lambda name: by_rules(name, rules))
    return model.double() if widest(weights) == torch.float64 else model


def _pads_by_two(weights: Mapping[str, Tensor], layout: Layout, stem: str) -> bool:
    """Whether it is solo-learn's network for small images, whose first convolution pads so."""
    biased = f"{layout.projector}0.bias" in weights
    return layout.encoder == "backbone." and stem == "small" and biased


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Group choices and settings for task, objective and model.

    The task is that of the word `dataset`, else that whose images have such a stem. Raises
    DoesNotFit where there is no encoder.
    """
    weights = primary(state_dict)
    layout = layout_of(weights)
    if not any(name.startswith(f"{layout.encoder}{layout.convolution}.") for name in weights) or (
        all(HEAD_ALONE.fullmatch(name) for name in weights)
    ):
        raise DoesNotFit(NOTHING_TO_TEST)
    encoder = encoder_arguments(weights, layout)
    if _pads_by_two(weights, layout, encoder["stem"]):
        warnings.warn(
            "the first convolution of solo-learn's network pads by 2 and ours by 1: the features "
            "of the checkpoint differ a little from the published ones",
            stacklevel=3,
        )
    channels = encoder.pop("image_channels")
    dataset = str(_Words(config, NAME).get("dataset", "")).lower()
    widths, biases = projector_arguments(config, weights, layout.projector)
    loss = loss_arguments(config, original=layout.projector == "projector.")
    return [
        f"task={TASKS.get(dataset, BY_STEM[encoder['stem']])}",
        f"objective={'hsic' if loss['off_diagonal_target'] < 0 else 'barlow'}",
        "model=barlow",
        *([f"task.image_channels={channels}"] if channels != 3 else []),
        *setting_lines("task.objective.loss", loss),
        *setting_lines("model.encoder", encoder),
        *setting_lines("model", {"projector": widths, "projector_biases": biases}),
    ]


@torch.no_grad()
def reference_forward(
    model: RedundancyReduction | BarlowTwins | nn.Sequential, arrays: Mapping[str, Any]
) -> dict[str, ndarray]:
    """What the loss, the network or the projector alone gives.

    The loss takes z1 and z2 (N, d): loss, on_diagonal and off_diagonal, each a sum, the latter not
    weighted. The network takes images x (B, C, H, W): features (B, h) and embeddings (B, d), and
    feature and out, the same with rows of length 1. The projector takes features x (B, h): feature
    and out_eval, with rows of length 1. Raises DoesNotFit where one is missing or does not fit.
    """
    inputs = as_tensors(arrays, model)
    if isinstance(model, RedundancyReduction):
        return _losses(model, inputs)
    inputs = {"x": inputs["image"], **inputs} if "image" in inputs else inputs
    x = required(inputs, "x", "the images (batch, channels, height, width), or features of a head")
    ready = evaluation_copy(model, widest(inputs))
    try:
        if not isinstance(ready, BarlowTwins):
            lengths = {"feature": functional.normalize(x), "out_eval": functional.normalize(ready(x))}
            return as_arrays(lengths)
        features = ready.encoder(x)
    except RuntimeError as error:
        raise DoesNotFit(f"x of shape {list(x.shape)} does not fit the network") from error
    raw = {"features": features, "embeddings": ready.projector(features)}
    names = zip(("feature", "out"), raw.values(), strict=True)
    return as_arrays(raw | {name: functional.normalize(rows) for name, rows in names})


def _losses(model: RedundancyReduction, inputs: Mapping[str, Tensor]) -> dict[str, ndarray]:
    first = required(inputs, "z1", "the embeddings (samples, width) of the first view")
    second = required(inputs, "z2", "the embeddings (samples, width) of the second view")
    if first.dim() != 2 or first.shape != second.shape or len(first) < 2:
        shapes = f"{list(first.shape)} and {list(second.shape)}"
        raise DoesNotFit(f"z1 and z2 must be (samples, width), at least two samples, got {shapes}")
    terms = model(first, second)._asdict()
    return as_arrays({n: terms[n] for n in ("loss", "on_diagonal", "off_diagonal")})


class _Words(PublishedConfiguration):
    """The words of the three codes, each of a kind."""

    example = "lmbda"

    def number(self, words: Sequence[str], otherwise: float) -> float:
        """The first of several words for one number, not negative."""
        value = self.first(words)
        value = otherwise if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
            raise DoesNotFit(f"{words[0]} is {value}; it must be a number, at least 0")
        return float(value)

    def flag(self, word: str, otherwise: bool) -> bool:
        """True or False."""
        value = self.get(word, otherwise)
        if not isinstance(value, bool):
            raise DoesNotFit(f"{word} is {value}; choose true or false")
        return value

    def widths(self) -> list[int]:
        """Those of the projector; none where no word tells them."""
        if "projector" in self:
            text = str(self.values["projector"])
            if not re.fullmatch(r"\d+(-\d+)*", text):
                raise DoesNotFit(f"projector is {text}; it must be widths such as 8192-8192-8192")
            return [int(width) for width in text.split("-")]
        if "feature_dim" in self:
            return [512, int(self.number(("feature_dim",), 128))]
        if "proj_hidden_dim" in self and "proj_output_dim" in self:
            hidden, output = (int(self.need(f"proj_{part}_dim")) for part in ("hidden", "output"))
            return [hidden, hidden, output]
        return []
