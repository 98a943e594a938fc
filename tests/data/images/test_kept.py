"""Pictures that are kept once they were decoded."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from equipoise.data.images.kept import SAMPLE, KeptPictures
from equipoise.data.images.labelled import ImageFolder, class_folders
from equipoise.data.images.picture_folder import ClassFolders
from equipoise.data.images.splits import DecodedImages
from equipoise.data.images.transforms import IMAGENET, evaluation_transform, training_transform
from equipoise.data.loading import BatchLoader
from equipoise.data.sampling import BatchIndex, OrderedIndices, Shard
from tests.data.images.own_files import own_folder

MANY = 200


class Source:
    """Pictures whose sizes differ and whose values tell their row; counts what is read."""

    def __init__(self, rows: int = MANY) -> None:
        self.labels, self.classes = torch.arange(rows), ["a"]
        self.read: Counter[int] = Counter()

    def pixels(self, row: int) -> Tensor:
        self.read[row] += 1
        return torch.full((3, 4 + row % 3, 5), row % 256, dtype=torch.uint8)


def bytes_of(source: Source) -> int:
    return sum(Source().pixels(row).numel() for row in range(len(source.labels)))


def test_every_picture_is_read_once_where_all_fit() -> None:
    source = Source()
    kept = KeptPictures(source.pixels, MANY, bytes_of(source))
    for row in [*torch.randperm(MANY).tolist(), *range(MANY)]:
        assert torch.equal(kept[row], Source().pixels(row))
    assert set(source.read.values()) == {1}
    assert kept.kept == MANY


@pytest.mark.parametrize("part", [0.0, 0.1, 0.8])
def test_a_set_that_does_not_fit_is_read_anew(part: float) -> None:
    source = Source()
    kept = KeptPictures(source.pixels, MANY, int(part * bytes_of(source)))
    for row in [*torch.randperm(MANY).tolist(), *range(MANY)]:
        assert torch.equal(kept[row], Source().pixels(row))
    assert kept.kept < SAMPLE
    assert sum(source.read.values()) == 2 * MANY - kept.kept


def test_a_process_that_inherits_nothing_keeps_its_own() -> None:
    source = Source()
    kept = KeptPictures(source.pixels, MANY, bytes_of(source))
    assert torch.equal(kept[3], pickle.loads(pickle.dumps(kept))[3])


class Batches:
    """A split of kept pictures, all of one size."""

    def __init__(self) -> None:
        self.kept = KeptPictures(self.pixels, 12, 12 * 48)

    def pixels(self, row: int) -> Tensor:
        return torch.full((3, 4, 4), row, dtype=torch.uint8)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: BatchIndex) -> dict[str, Tensor]:
        return {"image": torch.stack([self.kept[row] for row in index.rows.tolist()])}


def test_workers_share_what_they_keep() -> None:
    split = Batches()
    loader = BatchLoader(split, OrderedIndices(12, 4, Shard()), seed=0, num_workers=2)
    for _ in range(4):  # one that could not store a picture just then does so later
        images = torch.cat([batch["image"] for batch in loader])
        assert images[:, 0, 0, 0].tolist() == list(range(12))
    loader.shut_down()
    assert split.kept.kept == 12


@pytest.mark.parametrize("augmented", [True, False])
def test_kept_pictures_give_the_same_batches(imagenet_folder: Path, augmented: bool) -> None:
    source = ImageFolder(imagenet_folder / "train", class_folders(imagenet_folder / "train"))
    transform = training_transform(16) if augmented else None
    evaluation = evaluation_transform(16)
    lazy = DecodedImages(source, evaluation, IMAGENET, 0, transform)
    kept = DecodedImages(source, evaluation, IMAGENET, 0, transform, 2**20)
    for epoch in range(3):
        index = BatchIndex(epoch, torch.randperm(6))
        before = torch.get_rng_state()
        assert torch.equal(lazy[index]["image"], kept[index]["image"])
        assert torch.equal(before, torch.get_rng_state())
    assert (kept.stored if augmented else kept.seen).kept == 6
    assert (kept.seen if augmented else kept.stored).kept == 0


def test_the_setting_reaches_the_splits(tmp_path: Path) -> None:
    own_folder(tmp_path, count=3)
    for megabytes in (0, 1):
        data = ClassFolders(path=str(tmp_path), image_size=8, num_workers=0, cache_mb=megabytes)
        data.setup("fit")
        for _ in range(2):
            list(data.train_dataloader())
        split = data.splits["train"]
        assert isinstance(split, DecodedImages)
        assert split.stored.kept == (len(split) if megabytes else 0)
