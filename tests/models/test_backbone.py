"""Starting from the backbone of a checkpoint: wherever it lies in it, all of it or nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equipoise.models import MDEQ, ResNet
from equipoise.models.backbone import load_backbone

IMAGES: dict[str, Any] = {"image_size": 8, "image_channels": 1}
RESNET = partial(ResNet, classes=None, size="tiny", **IMAGES)
SIZES: dict[str, Any] = {"channels": (4, 8), "head_channels": (2, 3), "groups": 4}
MULTISCALE = partial(MDEQ, nn.Identity(), **SIZES, **IMAGES)
NETWORKS = {
    "resnet": (RESNET, partial(RESNET, classes=5)),
    "mdeq": (partial(MULTISCALE, features=True), partial(MULTISCALE, classes=5)),
}


def backbone(network: nn.Module) -> dict[str, Tensor]:
    parts = ("stem.", "stages.", "cell.")
    return {n: t.clone() for n, t in network.state_dict().items() if n.startswith(parts)}


def written(path: Path, network: nn.Module, prefix: str) -> str:
    """A checkpoint of the network, whose running statistics are others than a new one's."""
    state = {
        f"{prefix}{name}": tensor + 0.25 if tensor.is_floating_point() else tensor + 3
        for name, tensor in network.state_dict().items()
    }
    torch.save({"state_dict": state, "epoch": 2}, path)
    return str(path)


@pytest.mark.parametrize("prefix", ["model.", "model.encoder."])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_classifier_starts_from_a_network_or_from_an_encoder(
    kind: str, prefix: str, tmp_path: Path
) -> None:
    encoder, classifier = NETWORKS[kind]
    torch.manual_seed(0)
    trained = (classifier if prefix == "model." else encoder)()
    path = written(tmp_path / "last.ckpt", trained, prefix)
    found = backbone(classifier(backbone_ckpt=path))
    stored = torch.load(path)["state_dict"]
    assert found
    assert all(torch.equal(tensor, stored[prefix + name]) for name, tensor in found.items())


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_head_is_new(kind: str, tmp_path: Path) -> None:
    _, classifier = NETWORKS[kind]
    path = written(tmp_path / "last.ckpt", classifier(), "model.")
    torch.manual_seed(5)
    fresh = classifier()
    torch.manual_seed(5)
    found = classifier(backbone_ckpt=path).state_dict()
    heads = [n for n in found if n not in backbone(fresh)]
    assert heads
    assert all(torch.equal(found[name], fresh.state_dict()[name]) for name in heads)


def test_a_network_of_other_shapes_is_refused_by_names(tmp_path: Path) -> None:
    path = written(tmp_path / "last.ckpt", RESNET(size="small"), "model.encoder.")
    with pytest.raises(
        ValueError, match=r"at stages\.0\.1\.bn1\.bias, .* more: give model\.size"
    ) as refusal:
        RESNET(backbone_ckpt=path)
    assert str(path) in str(refusal.value)


def test_a_missing_weight_is_refused_and_nothing_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    written(path, RESNET(), "model.")
    content = torch.load(path)
    del content["state_dict"]["model.stem.0.weight"]
    torch.save(content, path)
    network = RESNET()
    before = backbone(network)
    with pytest.raises(ValueError, match=r"at stem\.0\.weight: give"):
        load_backbone(network, path, ("stem.", "stages."))
    after = backbone(network)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_backbone_at_another_place_is_refused_with_its_names(tmp_path: Path) -> None:
    path = written(tmp_path / "last.ckpt", RESNET(), "module.backbone.")
    with pytest.raises(
        ValueError, match=r"no stem and stages below .* module\.backbone\.stem\.0\.weight"
    ):
        RESNET(backbone_ckpt=path)


def test_a_checkpoint_of_another_kind_of_network_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "last.ckpt", MULTISCALE(features=True), "model.encoder.")
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        RESNET(backbone_ckpt=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no checkpoint at"),
        (b"PK\x03\x04 half a file", "is truncated"),
        ({"weights": {}}, "has no state_dict"),
        ([1, 2], "has no state_dict"),
        ({"state_dict": {}}, "has no state_dict"),
    ],
)
def test_what_is_no_checkpoint_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        RESNET(backbone_ckpt=str(path))
