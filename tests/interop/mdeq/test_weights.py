"""Every form in which the weights have been published becomes the same state dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.interop import DoesNotFit
from equipoise.interop.mdeq.weights import primary, published_name
from tests.interop.published_mdeq import published, recorded_shapes, small_network

Weights = dict[str, Tensor]


def under_second_name(weights: Weights, prefix: str) -> Weights:
    return {
        name.replace("fullstage.", prefix, 1): tensor
        for name, tensor in weights.items()
        if name.startswith("fullstage.")
    }


def of_2020(weights: Weights) -> Weights:
    copies = {
        name.replace("weight_v", "weight"): torch.zeros_like(tensor)
        for prefix in ("fullstage_copy.", "deq.func_copy.")
        for name, tensor in under_second_name(weights, prefix).items()
        if not name.endswith("weight_g")
    }
    return {**weights, **under_second_name(weights, "deq.func."), **copies}


def of_cityscapes(weights: Weights) -> Weights:
    wrapped = {f"model.{name}": tensor for name, tensor in weights.items()}
    return {**wrapped, "loss.criterion.weight": torch.ones(19)}


def of_torchdeq(weights: Weights) -> Weights:
    return {name.replace("fullstage.", "full_stage."): tensor for name, tensor in weights.items()}


def of_parametrization(weights: Weights) -> Weights:
    new = {"weight_g": "parametrizations.weight.original0",
           "weight_v": "parametrizations.weight.original1"}  # fmt: skip
    renamed = {}
    for name, tensor in weights.items():
        parent, _, last = name.rpartition(".")
        renamed[f"{parent}.{new.get(last, last)}"] = tensor
    return renamed


@pytest.mark.parametrize(
    "form",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3, "best_perf": 75.5},
        lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()},
        lambda weights: {f"module.model.{name}": tensor for name, tensor in weights.items()},
        lambda weights: {name: tensor.numpy() for name, tensor in weights.items()},
        of_2020,
        of_cityscapes,
        of_torchdeq,
        of_parametrization,
        lambda weights: {"state_dict": of_cityscapes(of_2020(weights))},
    ],
)
def test_form(form: Callable[[Weights], Any]) -> None:
    expected = published(small_network())
    found = primary(form(expected))
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_second_names_alone_are_enough() -> None:
    weights = published(small_network())
    kept = {name: t for name, t in weights.items() if not name.startswith("fullstage.")}
    found = primary({**kept, **under_second_name(weights, "deq.func.")})
    assert set(found) == set(weights)


def test_duplicates_that_differ_are_named() -> None:
    weights = published(small_network())
    second = under_second_name(weights, "deq.func.")
    name = "deq.func.branches.0.blocks.0.conv1.weight_g"
    second[name] = second[name] + 1
    with pytest.warns(UserWarning, match=f"1 duplicates differ .*{name}"):
        found = primary({**weights, **second})
    primary_name = name.replace("deq.func.", "fullstage.")
    assert torch.equal(found[primary_name], weights[primary_name])


def test_two_entries_of_one_name_that_differ_are_refused() -> None:
    with pytest.raises(DoesNotFit, match=r"several entries are the weight 'classifier\.bias'"):
        primary({"classifier.bias": torch.ones(2), "module.classifier.bias": torch.zeros(2)})


def test_an_entry_that_is_no_tensor_is_named() -> None:
    with pytest.raises(DoesNotFit, match="'optimizer' is not a tensor but a dict"):
        primary({"classifier.bias": torch.ones(2), "optimizer": {}})


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("stem.layers.0.conv.weight", "downsample.0.weight"),
        ("stem.layers.1.norm.running_var", "downsample.4.running_var"),
        ("stem.layers.2.conv.weight", "downsample.DS3.weight"),
        ("stem.layers.3.norm.bias", "downsample.DS4-BN.bias"),
        ("stem.projection.norm.weight", "stage0.1.weight"),
        (
            "cell.branches.1.blocks.0.conv2.weight.length",
            "fullstage.branches.1.blocks.0.conv2.weight_g",
        ),
        ("cell.branches.1.blocks.0.norm3.bias", "fullstage.branches.1.blocks.0.gn3.bias"),
        ("cell.fusion.paths.0.1.norm.bias", "fullstage.fuse_layers.0.1.net.gnorm.bias"),
        ("cell.fusion.paths.2.0.1.conv.weight", "fullstage.fuse_layers.2.0.net.1.conv.weight"),
        (
            "cell.post_fusion.0.conv.weight.direction",
            "fullstage.post_fuse_layers.0.conv.weight_v",
        ),
        ("heads.logits.widen.1.norm2.running_mean", "incre_modules.1.0.bn2.running_mean"),
        ("heads.logits.widen.0.shortcut.0.weight", "incre_modules.0.0.downsample.0.weight"),
        ("heads.logits.down.0.conv.bias", "downsamp_modules.0.0.bias"),
        ("heads.logits.final.norm.weight", "final_layer.1.weight"),
        ("heads.logits.classifier.bias", "classifier.bias"),
        ("heads.mask_logits.mix.conv.bias", "last_layer.0.bias"),
        ("heads.mask_logits.mix.norm.weight", "last_layer.1.weight"),
        ("heads.mask_logits.classifier.weight", "last_layer.3.weight"),
    ],
)
def test_name(ours: str, theirs: str) -> None:
    assert published_name(ours) == theirs


def test_no_two_of_our_names_become_one_and_none_stays() -> None:
    model = small_network(mask_classes=3, stem_stride=8, blocks=(1, 2))
    names = [published_name(name) for name in model.state_dict()]
    assert len(set(names)) == len(names)
    assert not any(name.startswith(("stem", "cell", "heads")) for name in names)


def test_whole_recordings_of_the_names() -> None:
    shapes = recorded_shapes()["deq2021"]["cityscapes/seg_mdeq_SMALL.yaml"]
    model = small_network(
        classes=None, mask_classes=19, image_size=[512, 1024], size="small", channels=None,
        head_channels=None, final_channels=None, expansion=None, groups=None,
    )  # fmt: skip
    ours = {published_name(name): list(t.shape) for name, t in model.state_dict().items()}
    assert ours == shapes
