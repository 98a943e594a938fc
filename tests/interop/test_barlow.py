"""Published Barlow Twins networks and words, and what is said where they do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18, resnet34, resnet50

from equipoise import interop
from equipoise.equilibrium import Broyden, JacobianFree
from equipoise.interop import DoesNotFit, barlow
from equipoise.models import BarlowTwins
from equipoise.nn.cross_correlation import RedundancyReduction

KEYS = Path(__file__).parents[1] / "parity" / "barlow"
LOSS_WORDS = {"lmbda": 0.01}
Weights = dict[str, Tensor]


class Published(nn.Module):
    """The network of the HSIC code, its parts numbered as there."""

    def __init__(self, pooled: bool, width: int = 128) -> None:
        super().__init__()
        backbone = resnet50()
        backbone.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        left_out = (nn.Linear,) if pooled else (nn.Linear, nn.MaxPool2d)
        self.f = nn.Sequential(*(c for c in backbone.children() if not isinstance(c, left_out)))
        self.g = nn.Sequential(
            nn.Linear(2048, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(inplace=True),
            nn.Linear(512, width, bias=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = torch.flatten(self.f(x), start_dim=1)
        return functional.normalize(feature, dim=-1), functional.normalize(self.g(feature), dim=-1)


def trained(network: nn.Module) -> nn.Module:
    """In float64, its norms no longer as they begin, in evaluation mode."""
    network = network.double().train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


@cache
def published(pooled: bool) -> Published:
    torch.manual_seed(0)
    network = trained(Published(pooled))
    assert isinstance(network, Published)
    return network


IMAGES = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1)).double()


def forward(weights: Weights, config: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
    model = interop.from_reference("barlow", config or {}, weights)
    return interop.reference_forward("barlow", model, {"x": IMAGES.numpy()})


@pytest.mark.parametrize("pooled", [False, True])
def test_the_network_of_the_hsic_code_gives_what_it_gives(pooled: bool) -> None:
    with torch.no_grad():
        feature, out = published(pooled)(IMAGES)
    found = forward(dict(published(pooled).state_dict()))
    np.testing.assert_allclose(found["feature"], feature.numpy(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["out"], out.numpy(), rtol=0, atol=1e-10)
    lengths = np.linalg.norm(found["embeddings"], axis=1, keepdims=True)
    np.testing.assert_allclose(found["embeddings"], lengths * out.numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("file", "pooled"), [("cifar10", False), ("tiny_imagenet", True)])
def test_every_published_key_is_read(file: str, pooled: bool) -> None:
    keys: dict[str, list[int]] = json.loads((KEYS / f"model_keys_{file}.json").read_text())
    assert {name: list(t.shape) for name, t in published(pooled).state_dict().items()} == keys
    model = interop.from_reference("barlow", {}, {n: torch.zeros(s) for n, s in keys.items()})
    assert isinstance(model, BarlowTwins)
    assert len(model.state_dict()) == len(keys)
    assert sum(p.numel() for p in model.parameters()) == 24_615_616


def projector(widths: tuple[int, ...], bias: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for source, target in pairwise(widths[:-1]):
        layers += [nn.Linear(source, target, bias=bias), nn.BatchNorm1d(target), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(*widths[-2:], bias=bias))


def whole(make: Callable[..., nn.Module], small: bool, bias: bool) -> nn.ModuleDict:
    """The layout of the original and, with biases, of solo-learn."""
    torch.manual_seed(0)
    backbone: Any = make()
    features = backbone.fc.in_features
    backbone.fc = nn.Identity()
    if small:
        padding = 2 if bias else 1
        backbone.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=padding, bias=False)
        backbone.maxpool = nn.Identity()
    parts = {"backbone": backbone, "projector": projector((features, 48, 40, 24), bias)}
    return trained(nn.ModuleDict(parts))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("make", "small", "bias"),
    [(resnet18, False, False), (resnet34, True, False), (resnet18, True, True),
     (resnet18, False, True)],
)  # fmt: skip
def test_the_networks_of_the_original_and_of_solo_learn_give_what_they_give(
    make: Callable[..., nn.Module], small: bool, bias: bool
) -> None:
    network = whole(make, small, bias)
    with torch.no_grad():
        features = network["backbone"](IMAGES)
        embeddings = network["projector"](features)
    surplus = {"classifier.weight": torch.zeros(10, 512), "classifier.bias": torch.zeros(10)}
    loss = {"bn.running_mean": torch.zeros(24), "bn.running_var": torch.ones(24)}
    weights = {f"module.{n}": t for n, t in network.state_dict().items()} | (
        surplus if bias else loss
    )
    for held in (weights, {"model": weights, "epoch": 3}, {"state_dict": weights}):
        found = forward(held)
        np.testing.assert_allclose(found["features"], features.numpy(), rtol=0, atol=1e-10)
        np.testing.assert_allclose(found["embeddings"], embeddings.numpy(), rtol=0, atol=1e-10)


def test_an_encoder_alone_gets_a_new_projector_and_that_is_said() -> None:
    network = whole(resnet18, False, False)["backbone"]
    with torch.no_grad():
        features = network(IMAGES)
    with pytest.warns(UserWarning, match="no weights of the projector"):
        found = forward(dict(network.state_dict()), {"projector": "32-16"})
    np.testing.assert_allclose(found["features"], features.numpy(), rtol=0, atol=1e-10)
    assert found["embeddings"].shape == (2, 16)


def test_counts_of_operations_are_left_out_by_name_and_nothing_else_is() -> None:
    weights = dict(whole(resnet18, True, False).state_dict())
    counts = {n: torch.zeros(1) for n in ("total_ops", "backbone.bn1.total_params")}
    np.testing.assert_array_equal(
        forward(weights | counts)["features"], forward(weights)["features"]
    )
    with pytest.raises(DoesNotFit, match=r"unknown: backbone\.bn1\.total$"):
        forward({**weights, "backbone.bn1.total": torch.zeros(1)})


def test_every_difference_is_named_at_once() -> None:
    weights = dict(published(False).state_dict())
    weights |= {"f.9.weight": torch.zeros(2), "f.3.0.conv1.weight": torch.zeros(64, 64, 3, 3)}
    del weights["f.6.2.conv3.weight"], weights["g.1.bias"]
    with pytest.raises(DoesNotFit) as refusal:
        interop.from_reference("barlow", {}, weights)
    for words in (
        "missing: f.6.2.conv3.weight, g.1.bias;",
        "unknown: f.9.weight;",
        "f.3.0.conv1.weight of shape [64, 64, 3, 3] instead of [64, 64, 1, 1]",
    ):
        assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"feature_dim": 64}, r"g.3.weight of shape \[128, 512\] instead of \[64, 512\]"),
        ({"projector": "512-512-128"}, r"missing: g.4.bias"),
        ({"projector": "wide"}, "projector is wide; it must be widths such as 8192-8192-8192"),
    ],
)
def test_words_of_another_projector_are_refused(config: dict[str, Any], names: str) -> None:
    with pytest.raises(DoesNotFit, match=names):
        interop.from_reference("barlow", config, published(False).state_dict())


def test_a_stem_that_nobody_published_is_refused() -> None:
    weights = {**published(True).state_dict(), "f.0.weight": torch.zeros(64, 3, 5, 5)}
    with pytest.raises(DoesNotFit, match=r"f.0.weight has shape \[64, 3, 5, 5\]; a published stem"):
        interop.from_reference("barlow", {}, weights)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LOSS_WORDS, (0.0, 0.01, "unit_length", 1.0)),
        ({"corr_neg_one": True, "batch_size": 128}, (-1, 0.005, "unit_length", 1)),
        ({"--corr_zero": True}, (0.0, 0.005, "unit_length", 1.0)),
        ({"l2_normalize_first": False, "lmbda": 1}, (0.0, 1.0, "unbiased", 1.0)),
        ({"lambd": 0.0051, "projector": "8192-8192-8192"}, (0.0, 0.0051, "batch_norm", 1.0)),
        ({"method_kwargs": {"lamb": 0.1, "scale_loss": 0.2}}, (0.0, 0.1, "batch_norm", 0.2)),
    ],
)  # fmt: skip
def test_words_are_those_of_the_scripts(config: dict[str, Any], expected: tuple[Any, ...]) -> None:
    loss = interop.from_reference("barlow", config, {})
    assert isinstance(loss, RedundancyReduction)
    found = (loss.off_diagonal_target, loss.off_diagonal_weight, loss.normalization, loss.scale)
    assert found == expected


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            {"lambd": 0.1, "lmbda": 0.1},
            "lambd is a word of the original code and lmbda of the HSIC",
        ),
        ({"lmbda": -1}, "lmbda is -1; it must be a number, at least 0"),
        ({"lmbda": "much"}, "lmbda is much; it must be a number"),
        ({"corr_neg_one": 1}, "corr_neg_one is 1; choose true or false"),
        ({"corr_neg_one": True, "corr_zero": True}, "are both true: choose one"),
        ({"batch_size": 128}, "neither weights nor words of a loss, such as lmbda or lambd"),
    ],
)
def test_words_that_cannot_be_are_refused(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DoesNotFit, match=sentence):
        interop.from_reference("barlow", config, {})


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"z1": np.ones((4, 2))}, "the arrays need 'z2'"),
        ({"z1": np.ones((4, 2)), "z2": np.ones((4, 3))}, r"got \[4, 2\] and \[4, 3\]"),
        ({"z1": np.ones((1, 2)), "z2": np.ones((1, 2))}, "at least two samples"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(arrays: dict[str, Any], sentence: str) -> None:
    loss = interop.from_reference("barlow", LOSS_WORDS, {})
    with pytest.raises(DoesNotFit, match=sentence):
        interop.reference_forward("barlow", loss, arrays)


def test_images_that_do_not_fit_are_refused() -> None:
    model = interop.from_reference("barlow", {}, whole(resnet18, True, False).state_dict())
    with pytest.raises(DoesNotFit, match="the arrays need 'x'"):
        interop.reference_forward("barlow", model, {"z": IMAGES.numpy()})
    with pytest.raises(DoesNotFit, match=r"x of shape \[2, 1, 24, 24\] does not fit"):
        interop.reference_forward("barlow", model, {"image": IMAGES.numpy()[:, :1]})


@pytest.mark.parametrize("given", [{"solver": Broyden()}, {"gradient": JacobianFree()}])
def test_no_solver_is_taken(given: dict[str, Any]) -> None:
    with pytest.raises(DoesNotFit, match="neither a solver nor an estimator"):
        interop.from_reference("barlow", LOSS_WORDS, {}, **given)


def test_a_run_is_composed_of_what_the_weights_and_words_tell() -> None:
    config = {"corr_neg_one": True, "lmbda": 0.0078125, "dataset": "stl10"}
    lines = barlow.overrides(config, published(True).state_dict())
    assert lines[:3] == ["task=ssl_stl10", "objective=hsic", "model=barlow"]
    assert {
        "task.objective.loss.off_diagonal_target=-1.0", "model.encoder.size=resnet50",
        "task.objective.loss.off_diagonal_weight=0.0078125", "model.encoder.stem=small_pooled",
        "model.projector=[512,128]", "model.projector_biases=last",
    } <= set(lines)  # fmt: skip
    assert "task=ssl_cifar10" in barlow.overrides({}, published(False).state_dict())
    original = barlow.overrides({}, whole(resnet18, False, False).state_dict())
    assert {"task=ssl_imagenet", "model.projector_biases=none", "model.encoder.stem=large",
            "task.objective.loss.normalization=batch_norm"} <= set(original)  # fmt: skip


def test_what_the_stem_of_solo_learn_does_to_a_checkpoint_is_said() -> None:
    with pytest.warns(UserWarning, match="pads by 2 and ours by 1"):
        barlow.overrides({}, whole(resnet18, True, True).state_dict())


@pytest.mark.parametrize(
    "weights", [{}, {"g.0.weight": torch.zeros(2, 3)}, {"0.weight": torch.zeros(2, 3)}]
)
def test_no_checkpoint_is_made_without_an_encoder(weights: Weights) -> None:
    with pytest.raises(DoesNotFit, match="give the weights of an encoder too"):
        barlow.overrides(LOSS_WORDS, weights)
