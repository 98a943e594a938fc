"""Pictures of attention: every kind of map, whatever its size and its tokens are."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from equipoise.report.attention import (
    draw_attention,
    draw_kernels,
    readable,
)

SOURCE = ["drei", "$hundert$", "\n", "<eos>", "二", "Donaudampfschifffahrt"]
TARGET = ["<eos>", "three", "hundred", "_^{"]


def maps(*names: str, heads: int = 2, signed: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"encoder": (6, 6), "decoder": (4, 4), "cross": (4, 6)}
    drawn = {n: torch.randn(heads, *sizes[n.split()[0]], generator=generator) for n in names}
    return drawn if signed else {name: x.softmax(dim=-1) for name, x in drawn.items()}


@pytest.fixture(autouse=True)
def _no_warnings() -> None:
    warnings.simplefilter("error")


def test_each_kind_is_a_picture(tmp_path: Path) -> None:
    drawn = draw_attention(tmp_path, maps("encoder 1", "decoder 1", "cross 1"), SOURCE, TARGET)
    files = [f"attention_{kind}.png" for kind in ("encoder", "decoder", "cross")]
    assert [picture.file for picture in drawn] == files
    assert sorted(path.name for path in tmp_path.glob("*.png")) == sorted(files)
    assert draw_attention(tmp_path / "nothing", {}, SOURCE, TARGET) == []


def test_a_deep_network_is_drawn_no_larger_than_a_few_layers(tmp_path: Path) -> None:
    for name, layers in (("few", 3), ("many", 40)):
        some = maps(*(f"decoder {n + 1}" for n in range(layers)), heads=16)
        draw_attention(tmp_path / name, some, [], TARGET)
    few, many = (imread(tmp_path / n / "attention_decoder.png").shape for n in ("few", "many"))
    assert few == many


@pytest.mark.parametrize("fill", [0.0, np.nan, np.inf, 1e30])
def test_weights_of_a_diverged_network_are_drawn(fill: float, tmp_path: Path) -> None:
    signed = maps("decoder 1", signed=True)
    signed["decoder 1"][0] = fill
    assert draw_attention(tmp_path, signed, [], TARGET)
    assert draw_attention(tmp_path, {"decoder 1": np.full((1, 4, 4), fill)}, [], TARGET)


def test_a_long_text_gets_numbers(tmp_path: Path) -> None:
    weights = torch.rand(1, 300, 300)
    assert draw_attention(tmp_path, {"decoder 1": weights}, [], ["a"] * 300)
    assert imread(tmp_path / "attention_decoder.png").shape[1] < 1000


def test_tokens_are_short_and_visible() -> None:
    assert readable(["a b\n\t", "$x$", "Donaudampfschifffahrt", "二", ""]) == [
        "a␣b⏎⇥", r"\$x\$", "Donaudampfs…", "▯", "",
    ]  # fmt: skip


def test_kernels_are_drawn_where_there_are_any(tmp_path: Path) -> None:
    profiles = {f"decoder {n}": torch.randn(9, 30) for n in range(1, 8)}
    widths = {f"decoder {n}": torch.rand(9) + 0.5 for n in range(1, 8)}
    assert draw_kernels(tmp_path, {}, {}) == []
    names = [picture.file for picture in draw_kernels(tmp_path, profiles, widths)]
    assert names == ["positional_kernels.png", "kernel_widths.png"]
    assert all((tmp_path / name).is_file() for name in names)
