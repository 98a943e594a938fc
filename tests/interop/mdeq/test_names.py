"""Our names in the published words."""

from __future__ import annotations

import pytest

from equipoise.interop.mdeq.names import published_name
from tests.interop.published_mdeq import recorded_shapes, small_network


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
