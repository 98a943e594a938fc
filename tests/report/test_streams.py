"""Maps of attention by target and source, and predictions against the truth."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from equipoise.report.plot import DPI
from equipoise.report.streams import (
    draw_crossmodal,
    draw_emotions,
    draw_sentiment,
    first_step,
    last_layers,
)

STEPS = {"language": 5, "audio": 9, "vision": 7}
STREAMS = {name: torch.randn(steps, 3) for name, steps in STEPS.items()}
FULL = [(one, other) for one in STEPS for other in STEPS]


def maps_of(pairs: list[tuple[str, str]], layers: int = 2) -> dict[str, Tensor]:
    """Weights (2, Q, K) of every layer, in which the number of the layer is greatest."""
    maps = {}
    for target, source in pairs:
        name = f"{target} memory" if target == source else f"{target} from {source}"
        for layer in range(1, layers + 1):
            shape = (2, STEPS[target], STEPS[source])
            maps[f"{name} {layer}"] = torch.rand(shape) / STEPS[source]
    return maps


def size_of(file: Path) -> tuple[int, int]:
    """Width and height of a PNG file."""
    width, height = struct.unpack(">II", file.read_bytes()[16:24])
    return width, height


def test_the_last_layer_of_each_pair_is_shown_the_mean_of_its_heads() -> None:
    maps = maps_of(FULL, layers=3)
    panels = last_layers(maps)
    assert set(panels) == set(FULL)
    expected = maps["audio from vision 3"].mean(dim=0).numpy()
    np.testing.assert_allclose(panels["audio", "vision"], expected, rtol=1e-6)
    expected = maps["vision memory 3"].mean(dim=0).numpy()
    np.testing.assert_allclose(panels["vision", "vision"], expected, rtol=1e-6)


def test_a_sample_begins_after_its_padding() -> None:
    stream = torch.cat([torch.zeros(3, 2), torch.tensor([[0.0, 1]]), torch.zeros(2, 2)])
    assert first_step(stream, 6) == 3
    assert first_step(stream, 4) == 0  # the steps of an alignment
    assert first_step(torch.zeros(6, 2), 6) == 0


@pytest.mark.parametrize(
    ("pairs", "rows", "columns"),
    [
        (FULL, 3, 3),
        ([pair for pair in FULL if pair[0] == "audio"], 1, 3),
        ([("vision", "vision")], 1, 1),
        ([("language", "vision"), ("vision", "language")], 2, 2),
    ],
)
def test_a_picture_has_a_row_for_each_target_and_a_column_for_each_source(
    pairs: list[tuple[str, str]], rows: int, columns: int, tmp_path: Path
) -> None:
    (picture,) = draw_crossmodal(tmp_path, 4, maps_of(pairs), STREAMS, "Attention")
    assert picture.file == "crossmodal_attention_4.png"
    expected = (DPI * (2.5 * columns + 0.6), DPI * (2.5 * rows + 0.7))
    assert size_of(tmp_path / picture.file) == pytest.approx(expected, abs=1)


def test_without_maps_nothing_is_drawn(tmp_path: Path) -> None:
    assert draw_crossmodal(tmp_path, 1, {}, STREAMS, "Attention") == []
    assert not list(tmp_path.iterdir())


def test_weights_of_padding_alone_are_drawn(tmp_path: Path) -> None:
    streams = {**STREAMS, "language": torch.zeros(5, 3)}
    maps = {"language memory 1": torch.zeros(2, 5, 5)}
    (picture,) = draw_crossmodal(tmp_path, 1, maps, streams, "Attention")
    assert (tmp_path / picture.file).stat().st_size > 1000


def test_predictions_beyond_the_scale_are_drawn_too(tmp_path: Path) -> None:
    predicted, true = np.array([-7.5, 0.2, 1.0]), np.array([-1.0, 0, 3])
    (picture,) = draw_sentiment(tmp_path, predicted, true)
    assert (tmp_path / picture.file).stat().st_size > 1000


def test_each_emotion_has_its_bars(tmp_path: Path) -> None:
    scores = {f"{kind}_{name}": 0.5 for kind in ("accuracy", "f1") for name in ("sad", "happy")}
    (picture,) = draw_emotions(tmp_path, ("sad", "happy"), scores, [0.6, 0.9])
    assert (tmp_path / picture.file).stat().st_size > 1000
