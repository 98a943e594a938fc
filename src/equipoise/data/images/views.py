"""Any picture dataset as two random views of each, with a bank to measure features against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from equipoise.data.images.module import ImageDataModule
from equipoise.data.images.transforms import Normalization, Preprocessing
from equipoise.data.images.view_augmentations import ViewAugmentation
from equipoise.data.loading import Batch, BatchDataset, BatchLoader
from equipoise.data.module import SplitDataModule, SplitName, on_gpu, refuse_below, shard_of
from equipoise.data.sampling import (
    BatchIndex,
    EpochIndices,
    OrderedIndices,
    ShuffledIndices,
    row_keys,
    stratified_split,
    stream,
)
from equipoise.errors import UserError

VIEW_DRAWS, BANK_DRAWS = 8, 9
"""The number that separates these draws from those of the sources, which use other numbers."""


class Pictures(Protocol):
    """A split that can return its stored pictures: `MemoryImages`, `DecodedImages`."""

    normalization: Normalization

    @property
    def labels(self) -> Tensor:
        """The labels (N,), -1 where a picture has none."""
        ...

    def several(self, rows: Tensor) -> Sequence[Tensor] | Tensor:
        """The pictures of some rows, uint8 (C, H, W) each."""
        ...

    def evaluated(self, pixels: Tensor) -> Tensor:
        """What a network sees of such a picture outside training, uint8 (C, S, S)."""
        ...


@dataclass(eq=False)
class DrawnPictures:
    """What the two kinds of splits below share: pictures, and views drawn from them."""

    pictures: Pictures
    augmentation: ViewAugmentation
    seed: int

    def views(
        self, stored: Sequence[Tensor] | Tensor, rows: Tensor, epoch: int, count: int
    ) -> list[Tensor]:
        """The first `count` views, normalised; a pure function of (seed, epoch, row)."""
        keys = row_keys(rows, self.seed, epoch, VIEW_DRAWS)
        normalization = self.pictures.normalization
        drawn = self.augmentation(stored, keys, normalization.white, count)
        return [normalization(view) for view in drawn]

    def whole(self, stored: Sequence[Tensor] | Tensor) -> Tensor:
        """The pictures after the evaluation transform, at the size of views, normalised."""
        size = [self.augmentation.crop_size] * 2
        seen = [self.pictures.evaluated(pixels) for pixels in stored]
        fitted = [s if [*s.shape[1:]] == size else functional.resize(s, size) for s in seen]
        return self.pictures.normalization(torch.stack(fitted))


@dataclass(eq=False)
class TwoViews(DrawnPictures):
    """Two views of each picture; with `evaluation` those of epoch 0, and the picture itself."""

    evaluation: bool

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.pictures.labels)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """{"first", "second", "label", "index"} and perhaps "image" of the rows in `index`."""
        rows = index.rows
        stored, epoch = self.pictures.several(rows), 0 if self.evaluation else index.epoch
        first, second = self.views(stored, rows, epoch, 2)
        batch = {"first": first, "second": second}
        if self.evaluation:
            batch["image"] = self.whole(stored)
        return {**batch, "label": self.pictures.labels[rows], "index": rows}


@dataclass(eq=False)
class SinglePictures(DrawnPictures):
    """One image for each of some `rows` (n,): the whole picture, or a first view with `augment`."""

    rows: Tensor
    augment: bool

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """{"image", "label", "index": the row among all pictures}."""
        rows = self.rows[index.rows]
        stored = self.pictures.several(rows)
        if self.augment:
            (image,) = self.views(stored, rows, index.epoch, 1)
        else:
            image = self.whole(stored)
        return {"image": image, "label": self.pictures.labels[rows], "index": rows}


@dataclass(kw_only=True, eq=False)
class Views(SplitDataModule):
    """Two views of each picture of another data module, `source`, by an `augmentation`.

    A training batch is {"first", "second" float32 (B, C, S, S) normalised, "label" int64 (B,), -1
    for a picture without one, "index" (B,)}; one of validation or test also has "image", the
    source's picture without augmentation, and its views are the same in every epoch. The last batch
    of a training epoch is left out if it is smaller, as published, since the loss compares a whole
    batch. Features are measured against `bank_size` of the labelled training pictures, stratified
    by class; None takes all of them.
    """

    source: SplitDataModule
    augmentation: ViewAugmentation
    bank_size: int | None = 50_000
    num_workers: int = field()  # as many as the source's pictures need: no default fits all

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        refuse_below(self, 1, "bank_size")
        if self.batch_size < 2:
            raise UserError(
                f"task.batch_size is {self.batch_size}: the loss compares the pictures of a batch, "
                "so set it to 2 or more."
            )
        self.pictures: dict[SplitName, Pictures] = {}
        self.skipped = self.source.skipped

    @property
    def class_names(self) -> list[str]:
        """The names of the classes; empty until a split is read."""
        return list(getattr(self.source, "class_names", []))

    @property
    def labelled(self) -> bool:
        """Whether any picture that was read has a class."""
        return any(bool((pictures.labels >= 0).any()) for pictures in self.pictures.values())

    def preprocess(self, pixels: Tensor) -> Tensor:
        """What the encoder sees of a picture in evaluation: uint8 (C, H, W) -> float32 (C, S, S).

        The same as for a picture of the source's own test split. Raises UserError if the source
        does not define it.
        """
        seen: Preprocessing = cast(ImageDataModule, self.source).preprocessing
        size = [self.augmentation.crop_size] * 2
        fit = v2.Compose([*([seen.transform] if seen.transform else []), v2.Resize(size)])
        return replace(seen, transform=fit)(pixels)

    def inspect(self) -> dict[str, Any]:
        """Let the source check its files if it can; returns the settings determined by them."""
        look = getattr(self.source, "inspect", None)
        return look() if look is not None else {}

    def details(self) -> dict[str, Any]:
        """What the source reports about its files, for metrics.json."""
        tell = getattr(self.source, "details", None)
        return tell() if tell is not None else {}

    def read_split(self, name: SplitName) -> BatchDataset:
        """Read a split of the source; raises UserError if it is not available."""
        return TwoViews(self._pictures(name), self.augmentation, self.seed, name != "train")

    def train_dataloader(self) -> BatchLoader:
        """The shuffled training batches, all of one size, or a fixed order for `overfit_batches`.

        Raises UserError if a process has fewer training pictures than a batch.
        """
        size, shard = len(self._pictures("train").labels), shard_of(self)
        order: EpochIndices = ShuffledIndices(size, self.batch_size, self.seed, shard, True)
        if len(order) == 0:
            raise UserError(
                f"There are {size} training pictures for {shard.world_size} processes with "
                f"task.batch_size={self.batch_size} each, and smaller batches are left out: set "
                f"task.batch_size to {size // shard.world_size} or less, or add pictures."
            )
        if getattr(self.trainer, "overfit_batches", 0) > 0:
            whole = len(order) * self.batch_size * shard.world_size
            order = OrderedIndices(min(whole, size), self.batch_size, shard)
        return self._loader("train", order)

    def bank_dataloader(self) -> BatchLoader:
        """At most `bank_size` labelled training pictures in order, each with its whole image.

        {"image" (B, C, S, S), "label", "index"}, divided among the ranks; reads the training split
        if the stage has not done so. Raises UserError if no picture has a class. Its workers live
        until `shut_down()`.
        """
        rows = self._labelled_rows()
        if self.bank_size is not None and self.bank_size < len(rows):
            labels, fraction = self._pictures("train").labels[rows], self.bank_size / len(rows)
            generator = stream(self.seed, BANK_DRAWS)
            rows = rows[stratified_split(labels, fraction, generator)[1]]
        batch_size = self.eval_batch_size or self.batch_size
        order = OrderedIndices(len(rows), batch_size, shard_of(self))
        return self._single(rows, False, order)

    def labelled_dataloader(self, augment: bool, batch_size: int) -> BatchLoader:
        """All labelled training pictures, shuffled in each epoch, to train a classifier on.

        {"image" (B, C, S, S), "label", "index"}; with `augment` the image is that epoch's first
        view. Raises UserError if no picture has a class.
        """
        rows = self._labelled_rows()
        order = ShuffledIndices(len(rows), batch_size, self.seed, shard_of(self))
        return self._single(rows, augment, order)

    def _pictures(self, name: SplitName) -> Pictures:
        if name not in self.pictures:
            self.pictures[name] = cast(Pictures, self.source.read_split(name))
        return self.pictures[name]

    def _labelled_rows(self) -> Tensor:
        rows = (self._pictures("train").labels >= 0).nonzero().flatten()
        if len(rows) == 0:
            raise UserError(
                "The training pictures have no classes, so features cannot be measured by them: "
                "put the pictures into one folder for each class."
            )
        return rows

    def _single(self, rows: Tensor, augment: bool, order: EpochIndices) -> BatchLoader:
        single = SinglePictures(
            self._pictures("train"), self.augmentation, self.seed, rows, augment
        )
        return BatchLoader(
            single, order, seed=self.seed, num_workers=self.num_workers,
            pin_memory=on_gpu(self), skipped=self.skipped,
        )  # fmt: skip
