"""The colours of lines, and overlays of predicted masks."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from equipoise.report.page import page
from equipoise.report.plot import (
    COLOURS,
    colour,
    draw_overlays,
    mask_pictures,
    occurring,
    visible,
)

PNG = b"\x89PNG"
# What an eye without one kind of cones sees of linear RGB (Machado et al. 2009, severity 1).
EYES = {
    "all cones": np.eye(3),
    "no red cones": np.array(
        [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]
    ),
    "no green cones": np.array(
        [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]
    ),
    "no blue cones": np.array(
        [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]
    ),
}
TO_XYZ = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
WHITE = np.array([0.9505, 1.0, 1.0888])


def linear(hexadecimal: str) -> np.ndarray:
    """A colour such as "#388ee3" in linear RGB."""
    values = np.array([int(hexadecimal[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def seen(rgb: np.ndarray) -> np.ndarray:
    """Linear RGB in CIELAB, in which a distance of about 2 is the least that can be seen."""
    xyz = TO_XYZ @ rgb / WHITE
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eye", EYES)
def test_lines_are_told_apart_by_every_eye(eye: str) -> None:
    colours = [seen(np.clip(EYES[eye] @ linear(name), 0, 1)) for name in COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 25


def test_lines_stand_out_from_white() -> None:
    luminances = [float(TO_XYZ[1] @ linear(name)) for name in COLOURS]
    assert min(1.05 / (0.05 + y) for y in luminances) > 3  # the contrast that WCAG 2.1 asks for


@pytest.fixture
def samples() -> dict[str, Tensor]:
    """Two colour images; their masks have class 0, 2 and ignored pixels, predictions 0 and 1."""
    mask = torch.zeros(2, 12, 16, dtype=torch.int64)
    mask[:, :, 8:] = 2
    mask[:, 0] = 255
    prediction = torch.zeros_like(mask)
    prediction[:, 6:] = 1
    return {"image": torch.randn(2, 3, 12, 16), "mask": mask, "prediction": prediction}


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_written(samples: dict[str, Tensor], tmp_path: Path, channels: int) -> None:
    samples["image"] = samples["image"][:, :channels]
    file = tmp_path / "report" / "masks.png"
    draw_overlays(samples, ["road", "sky"], file)
    assert file.read_bytes().startswith(PNG)
    with Image.open(file) as image:
        assert len(image.convert("RGB").getcolors(maxcolors=10**6) or []) > 50


def test_the_legend_has_the_classes_that_occur(samples: dict[str, Tensor]) -> None:
    assert occurring(samples) == [0, 1, 2]


def test_the_legend_of_many_long_names_is_not_cut(
    samples: dict[str, Tensor], tmp_path: Path
) -> None:
    samples["mask"] = torch.arange(19).repeat(21)[: 2 * 12 * 16].view(2, 12, 16)
    file = tmp_path / "masks.png"
    draw_overlays(samples, ["traffic light"] * 19, file)
    with Image.open(file) as image:
        white = [
            image.convert("RGB").crop((x, 0, x + 2, image.height)).getcolors()
            for x in (0, image.width - 2)
        ]
    assert [colours and colours[0][1] for colours in white] == [(255, 255, 255)] * 2
    assert [len(colours or []) for colours in white] == [1, 1]


def test_colours_tell_nineteen_classes_apart() -> None:
    colours = torch.tensor([colour(number) for number in range(19)])
    distances = torch.cdist(colours, colours) + 10 * torch.eye(19)
    assert distances.min() > 0.1
    assert ((colours >= 0) & (colours <= 1)).all()


def test_a_normalised_image_becomes_visible() -> None:
    rgb = visible(torch.linspace(-3, 5, 24).view(1, 4, 6))
    assert rgb.shape == (4, 6, 3)
    assert float(rgb.min()) == 0
    assert float(rgb.max()) == 1
    assert torch.isfinite(visible(torch.zeros(3, 4, 6))).all()


def test_a_page_shows_the_masks_below_a_caption(samples: dict[str, Tensor], tmp_path: Path) -> None:
    (picture,) = mask_pictures(samples, ["road"], tmp_path / "report")
    assert (tmp_path / "report" / "masks.png").read_bytes().startswith(PNG)
    metrics = {"details": {"iou_per_class": {"road": 0.91234, "sky": None}, "listed": [1]}}
    html = page(metrics, [picture], tmp_path / "report", "")
    for text in ('href="masks.png"', "IoU per class", "road", "0.9123"):
        assert text in html
    assert "Listed" not in html


def test_without_predictions_there_is_no_picture(tmp_path: Path) -> None:
    assert mask_pictures({}, [], tmp_path) == []
    assert not (tmp_path / "masks.png").exists()
