"""Rows of numbers with a class each, for an outer problem over an inner one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from equipoise.data.folders import file_stamp
from equipoise.data.loading import BatchDataset, BatchLoader
from equipoise.data.module import SplitName, check_fraction, refuse_below, shard_of
from equipoise.data.sampling import (
    BatchIndex,
    EpochIndices,
    OrderedIndices,
    Shard,
    ShuffledIndices,
)
from equipoise.data.tabular.division import divide
from equipoise.data.tabular.libsvm import LabelledRows
from equipoise.data.tabular.sources import bundled, new_rows, read_sources, sparse_problem
from equipoise.data.tabular.tables import Features, Scaling, Table, TableRows, density
from equipoise.errors import UserError


@dataclass(eq=False)
class TrainingTables:
    """The one batch of each training epoch: the tables of all training and validation rows."""

    training: TableRows
    validation: TableRows

    def __len__(self) -> int:
        """One."""
        return 1

    def __getitem__(self, index: BatchIndex) -> dict[str, Any]:
        """The batch, with its own number as the index."""
        return {
            "training": self.training.whole(),
            "validation": self.validation.whole(),
            "index": index.rows,
        }


@dataclass(kw_only=True, eq=False)
class Tabular(LightningDataModule):
    """Rows of numbers with a class each: a bundled set, a generated one, or files.

    data: breast_cancer | digits (of scikit-learn) | sparse (`sparse_problem` of `rows`, `columns`
    and `density`). Instead of these, `path` names a file in libsvm's format, plain or packed by
    gzip, bzip2 or xz; val_path and test_path name further ones. Splits without a file are taken
    from the first: `val_fraction` and `test_fraction` of its rows, an equal share of each class,
    drawn by `seed`. Classes are numbered in the order of their labels.

    standardize: bring each column to mean 0 and deviation 1 in training, or a sparse one to mean
    square 1 without a shift; None: only dense columns. features, classes, training_rows: the
    numbers that the data must have; None: any.

    The one batch of a training epoch, the same in every process, is {"training": table,
    "validation": table, "index": int64 (1,)}; those of validation and test are tables
    (`TableRows`) of at most batch_size rows of this process, None: all of them.
    """

    data: Literal["breast_cancer", "digits", "sparse"] = "breast_cancer"
    rows: int = 20_000
    columns: int = 50_000
    density: float = 1e-3
    path: str | None = None
    val_path: str | None = None
    test_path: str | None = None
    val_fraction: float = 0.2
    test_fraction: float = 0.2
    standardize: bool | None = None
    batch_size: int | None = None
    seed: int = 0
    features: int | None = None
    classes: int | None = None
    training_rows: int | None = None

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__init__()
        refuse_below(self, 1, "rows", "columns", "batch_size")
        self._refuse_without_use()
        for name in ("val_path", "test_path"):
            if self.path is None and getattr(self, name) is not None:
                raise UserError(
                    f"task.{name} is for files: set task.path too, to the training rows"
                )
        self._refuse_fractions()
        self.class_names: list[str] = []
        self.splits: dict[SplitName, TableRows] = {}
        self.scaling: Scaling | None = None
        self._density: dict[SplitName, float] = {}
        self._copies: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def _refuse_without_use(self) -> None:
        """Raise UserError for a setting that belongs to another data source."""
        default = {field.name: field.default for field in fields(self)}
        if self.path is not None and self.data != default["data"]:
            raise UserError(f"task.path replaces task.data={self.data}: leave one of them out")
        for name in ("rows", "columns", "density"):
            if getattr(self, name) != default[name] and self.data != "sparse":
                raise UserError(
                    f"task.{name} is for generated data: set task.data=sparse too, or leave it out"
                )

    def _refuse_fractions(self) -> None:
        fractions = self._fractions()
        for part, fraction in fractions.items():
            check_fraction(f"{part}_fraction", fraction)
            if fraction == 0:
                raise UserError(
                    f"task.{part}_fraction is 0: set it above 0, for {part} needs rows, or name "
                    f"a file with them in task.{part}_path"
                )
        if sum(fractions.values()) >= 1:
            sizes = " and ".join(f"task.{part}_fraction={f}" for part, f in fractions.items())
            raise UserError(f"{sizes} leave nothing to train on: lower one of them")

    @property
    def is_sparse(self) -> bool:
        """Whether the tables are stored without their zeros."""
        return self.path is not None or self.data == "sparse"

    def inspect(self) -> dict[str, Any]:
        """Read the data, and return how many features, classes and training rows they have.

        Raises UserError if the data cannot be used or do not match the configuration.
        """
        self.setup()
        training = self.splits["train"]
        sizes = {
            "features": int(training.features.shape[1]),
            "classes": len(self.class_names),
            "training_rows": len(training),
        }
        for name, size in sizes.items():
            wanted = getattr(self, name)
            if wanted not in (None, size):
                raise UserError(
                    f"task.{name} is {wanted}, but the data have {size}: give the data and the "
                    f"fractions that it was set for, or task.{name}=null"
                )
        return sizes

    def check_model(self, model: object) -> None:
        """Raise UserError if the tables are sparse and the model takes only dense ones."""
        if self.is_sparse and getattr(model, "dense_only", False):
            raise UserError(
                f"{type(model).__name__} takes no sparse tables, as files in libsvm's format and "
                "task.data=sparse are: choose model=logistic_regression or "
                "model=nonlinear_least_squares, or task.data=breast_cancer or task.data=digits"
            )

    def setup(self, stage: str | None = None) -> None:
        """Read, divide and scale the rows, when they are first needed."""
        if self.splits:
            return
        names, splits = divide(self._sources(), self._fractions(), self.seed)
        self.class_names = list(names)
        self._density = {name: density(split.features) for name, split in splits.items()}
        if self.standardize or (self.standardize is None and not self.is_sparse):
            self.scaling = Scaling.of(splits["train"].features)
            for split in splits.values():
                split.features = self.scaling(split.features)
        self.splits = splits

    def train_dataloader(self) -> BatchLoader:
        """The one batch of each epoch."""
        tables = TrainingTables(self.splits["train"], self.splits["val"])
        return self._loader(tables, ShuffledIndices(len(tables), 1, self.seed, Shard()))

    def val_dataloader(self) -> BatchLoader:
        """The tables of the validation rows, in their order."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> BatchLoader:
        """The tables of the test rows, in their order."""
        return self._evaluation_loader("test")

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """The batch on the device; a table is copied there once, since each epoch has the same."""
        if "training" not in batch:
            return self._on(batch, device)
        tables = {name: self._on(batch[name], device) for name in ("training", "validation")}
        return {**tables, "index": batch["index"].to(device)}

    def new_samples(self, path: str) -> tuple[BatchLoader, int]:
        """The tables of the rows of a file in libsvm's format, and the number of these rows.

        They are scaled as the training rows are. Raises UserError if the file cannot be read, or
        has more columns than the training rows.
        """
        self.setup()
        names = self.class_names if self.path else [*map(str, range(len(self.class_names)))]
        width = int(self.splits["train"].features.shape[1])
        features, targets = new_rows(path, self.path, width, names)
        scaled: Features = features if self.is_sparse else features.toarray()
        scaled = scaled if self.scaling is None else self.scaling(scaled)
        table = TableRows(scaled, targets, np.arange(len(targets)))
        order = OrderedIndices(len(table), self.batch_size or len(table), Shard())
        return self._loader(table, order), len(table)

    def teardown(self, stage: str) -> None:
        """Release the copies on a device."""
        self._copies.clear()

    def facts(self, name: SplitName) -> dict[str, Any]:
        """Notes about a split beside its result: rows, shares of classes, density."""
        target = self.splits[name].target
        shares = np.bincount(target, minlength=len(self.class_names)) / len(target)
        return {
            "rows": len(target),
            "classes": dict(zip(self.class_names, shares.tolist(), strict=True)),
            "density": self._density[name],
        }

    def _fractions(self) -> dict[SplitName, float]:
        """The fraction of the first source that each split without its own file takes."""
        fractions: dict[SplitName, float] = {}
        if self.test_path is None:
            fractions["test"] = self.test_fraction
        if self.val_path is None:
            fractions["val"] = self.val_fraction
        return fractions

    def _sources(self) -> Mapping[SplitName, LabelledRows]:
        if self.path is not None:
            paths: dict[SplitName, str | None] = {
                "train": self.path, "val": self.val_path, "test": self.test_path
            }  # fmt: skip
            return read_sources(
                tuple((name, path, file_stamp(path)) for name, path in paths.items() if path)
            )
        if self.data == "sparse":
            return {"train": sparse_problem(self.rows, self.columns, self.density, seed=self.seed)}
        return {"train": bundled(self.data)}

    def _evaluation_loader(self, name: SplitName) -> BatchLoader:
        split = self.splits[name]
        size = self.batch_size or len(split)
        return self._loader(split, OrderedIndices(len(split), size, shard_of(self)))

    def _loader(self, tables: BatchDataset, indices: EpochIndices) -> BatchLoader:
        return BatchLoader(tables, indices, seed=self.seed, num_workers=0, pin_memory=False)

    def _on(self, table: Table, device: torch.device) -> Table:
        """The table on the device; the tensor is kept with its copy, so its id stays unique."""
        for tensor in table.values():
            if (id(tensor), device) not in self._copies:
                self._copies[id(tensor), device] = tensor, tensor.to(device)
        return {name: self._copies[id(tensor), device][1] for name, tensor in table.items()}
