"""Small real image files and tables, written anew for the tests that read them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

RandomImage = Callable[[int, int, int], Image.Image]
Table = Callable[..., datasets.Dataset]
WriteSplit = Callable[[Path, str, datasets.Dataset], None]


@pytest.fixture
def random_image() -> RandomImage:
    """Return RGB noise made from a seed, with a width and a height."""

    def make(seed: int, width: int, height: int) -> Image.Image:
        shape = (height, width, 3)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        return Image.fromarray(pixels)

    return make


@pytest.fixture
def png() -> Callable[[Image.Image], bytes]:
    """Return an image as a PNG file."""

    def encode(image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    return encode


@pytest.fixture
def table(random_image: RandomImage, png: Callable[[Image.Image], bytes]) -> Table:
    """Return a table of noise images, seeded seed, seed + 1, ..., whose three labels take turns."""

    def make(rows: int, seed: int, column: str = "img", size: int = 32) -> datasets.Dataset:
        files = [png(random_image(seed + i, size, size)) for i in range(rows)]
        names = ["cat", "dog", "owl"]
        columns = {
            column: [{"bytes": file, "path": None} for file in files],
            "label": [i % len(names) for i in range(rows)],
        }
        features = {column: datasets.Image(), "label": datasets.ClassLabel(names=names)}
        return datasets.Dataset.from_dict(columns, features=datasets.Features(features))

    return make


@pytest.fixture
def write_split() -> WriteSplit:
    """Write a split into a folder as the hub lays it out."""

    def write(folder: Path, split: str, rows: datasets.Dataset) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))

    return write


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tables that `datasets` converts out of the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def cifar_folder(tmp_path: Path, table: Table, write_split: WriteSplit) -> Path:
    """Sixty training and fifteen test images in CIFAR-10's layout on the hub."""
    folder = tmp_path / "cifar"
    write_split(folder / "plain_text", "train", table(60, seed=0))
    write_split(folder / "plain_text", "test", table(15, seed=100))
    return folder


@pytest.fixture
def imagenet_folder(tmp_path: Path, random_image: RandomImage) -> Path:
    """Two synsets of three training images and one validation image, in ImageNet's layout."""
    folder = tmp_path / "imagenet"
    for label, synset in enumerate(("n01440764", "n01443537")):
        for number in range(4):
            image = folder / ("train" if number else "val") / synset / f"{synset}_{number}.JPEG"
            image.parent.mkdir(parents=True, exist_ok=True)
            random_image(10 * label + number, 50, 40).save(image)
    return folder
