"""The published losses and networks as ours, their recorded outputs, and a run's overrides."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional

from equipoise.equilibrium import GradientEstimator, Solver
from equipoise.interop.barlow.layouts import (
    Layout,
    encoder_arguments,
    layout_of,
    pads_by_two,
    primary,
    projector_arguments,
)
from equipoise.interop.barlow.words import (
    NAME,
    OF_THE_HSIC_CODE,
    OF_THE_ORIGINAL,
    Words,
    loss_arguments,
)
from equipoise.interop.published_configuration import DoesNotFit, setting_lines
from equipoise.interop.published_weights import by_rules, load
from equipoise.interop.recorded_arrays import (
    as_arrays,
    as_tensors,
    evaluation_copy,
    required,
    widest,
)
from equipoise.models import BarlowTwins, ResNet
from equipoise.models.barlow import projector_of
from equipoise.nn.cross_correlation import RedundancyReduction

HEAD_ALONE = re.compile(r"\d+\.[a-z_]+")
TASKS = {"cifar10": "ssl_cifar10", "tiny_imagenet": "ssl_tiny_imagenet", "stl10": "ssl_stl10"}
BY_STEM = {"small": "ssl_cifar10", "small_pooled": "ssl_tiny_imagenet", "large": "ssl_imagenet"}
NOTHING_TO_TEST = (
    "a loss or a projector alone makes no checkpoint: give the weights of an encoder too"
)


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> RedundancyReduction | BarlowTwins | nn.Sequential:
    """The loss if there are no weights, otherwise encoder and projector, or the projector alone.

    Weights in float64 stay so. An encoder without its projector gets a new one, with a warning.
    Raises DoesNotFit, a ValueError, if words and weights do not fit each other, or if a solver or
    gradient is given, which no published network of this kind has.
    """
    if solver is not None or gradient is not None:
        raise DoesNotFit(f"the published {NAME} has neither a solver nor an estimator")
    weights = primary(state_dict)
    if not weights:
        return _loss(config)
    layout = layout_of(weights)
    prefix = "" if all(HEAD_ALONE.fullmatch(name) for name in weights) else layout.projector
    if all(name.startswith(prefix) for name in weights):
        return _projector(config, weights, prefix)
    return _network(config, weights, layout)


def _loss(config: Mapping[str, Any]) -> RedundancyReduction:
    words = Words(config, NAME)
    if not any(word in words for word in (*OF_THE_HSIC_CODE, *OF_THE_ORIGINAL)):
        raise DoesNotFit("there are neither weights nor words of a loss, such as lmbda or lambd")
    return RedundancyReduction(**loss_arguments(config))


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
    if pads_by_two(weights, layout, arguments["stem"]):
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


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Group choices and settings for task, objective and model.

    The task is given by the word `dataset`, or else by the stem for its images. Raises DoesNotFit
    if there is no encoder.
    """
    weights = primary(state_dict)
    layout = layout_of(weights)
    if not any(name.startswith(f"{layout.encoder}{layout.convolution}.") for name in weights) or (
        all(HEAD_ALONE.fullmatch(name) for name in weights)
    ):
        raise DoesNotFit(NOTHING_TO_TEST)
    encoder = encoder_arguments(weights, layout)
    if pads_by_two(weights, layout, encoder["stem"]):
        warnings.warn(
            "the first convolution of solo-learn's network pads by 2 and ours by 1: the features "
            "of the checkpoint differ a little from the published ones",
            stacklevel=3,
        )
    channels = encoder.pop("image_channels")
    dataset = str(Words(config, NAME).get("dataset", "")).lower()
    widths, biases = projector_arguments(config, weights, layout.projector)
    loss = loss_arguments(config, original=layout.projector == "projector.")
    return [
        f"task={TASKS.get(dataset, BY_STEM[encoder['stem']])}",
        f"objective={'hsic' if loss['off_diagonal_target'] < 0 else 'barlow'}",
        "model=barlow",
        "optimizer=adam",  # there is nothing to resume, and LARS needs another package
        "trainer.precision=null",
        *([f"task.image_channels={channels}"] if channels != 3 else []),
        *setting_lines("task.objective.loss", loss),
        *setting_lines("model.encoder", encoder),
        *setting_lines("model", {"projector": widths, "projector_biases": biases}),
    ]


@torch.no_grad()
def reference_forward(
    model: RedundancyReduction | BarlowTwins | nn.Sequential, arrays: Mapping[str, Any]
) -> dict[str, ndarray]:
    """The recorded outputs of the loss, the network or the projector alone.

    The loss takes z1 and z2 (N, d): loss, on_diagonal and off_diagonal, each a sum, the last not
    weighted. The network takes images x (B, C, H, W): features (B, h) and embeddings (B, d), and
    feature and out, the same with rows of length 1. The projector takes features x (B, h): feature
    and out_eval, with rows of length 1. Raises DoesNotFit if one is missing or does not fit.
    """
    inputs = as_tensors(arrays, model)
    if isinstance(model, RedundancyReduction):
        return _losses(model, inputs)
    inputs = {"x": inputs["image"], **inputs} if "image" in inputs else inputs
    x = required(inputs, "x", "the images (batch, channels, height, width), or features of a head")
    ready = evaluation_copy(model, widest(inputs))
    try:
        if not isinstance(ready, BarlowTwins):
            lengths = {
                "feature": functional.normalize(x),
                "out_eval": functional.normalize(ready(x)),
            }
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
