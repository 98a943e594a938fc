"""Transfer of stem and cell from a checkpoint, and files that do not serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from equipoise.models import MDEQ

SHAPE: dict[str, Any] = {
    "image_size": 8, "channels": (4, 8), "head_channels": (2, 3), "final_channels": 6,
    "expansion": 2, "groups": 4,
}  # fmt: skip


def network(**changes: Any) -> MDEQ:
    return MDEQ(nn.Identity(), **{**SHAPE, **changes})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    weights = network(classes=3).state_dict()
    content = {"state_dict": {f"model.{name}": tensor for name, tensor in weights.items()}}
    torch.save(content, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def test_stem_and_cell_are_taken_and_the_head_is_new(checkpoint: Path) -> None:
    torch.manual_seed(2)
    model = network(mask_classes=5, backbone_ckpt=str(checkpoint))
    saved = torch.load(checkpoint)["state_dict"]
    for part in ("stem", "cell"):
        own = getattr(model, part).state_dict()
        assert own
        assert all(torch.equal(own[name], saved[f"model.{part}.{name}"]) for name in own)
    assert model.heads["mask_logits"].classifier.out_channels == 5


@pytest.mark.parametrize(
    "changes", [{"channels": (8, 8)}, {"blocks": (1, 2)}, {"image_channels": 1}]
)
def test_other_shapes_are_refused(checkpoint: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"has other shapes than this model, first at (stem|cell)"):
        network(classes=3, backbone_ckpt=str(checkpoint), **changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"model.fc.weight": torch.ones(2)}}, "holds no stem and cell of an MDEQ"),
        ({"weights": 1}, "holds no stem and cell of an MDEQ"),
        (nn.Linear(2, 2), "is not a checkpoint of ours"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=message):
        network(classes=3, backbone_ckpt=str(tmp_path / "other.ckpt"))


def test_a_broken_or_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.ckpt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(ValueError, match="or it is truncated"):
        network(classes=3, backbone_ckpt=str(tmp_path / "short.ckpt"))
    with pytest.raises(ValueError, match="there is no checkpoint at"):
        network(classes=3, backbone_ckpt=str(tmp_path / "lost.ckpt"))
