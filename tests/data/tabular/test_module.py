"""Rows are divided by class and seed, and come in the batches that models and tasks expect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from equipoise.data import Tabular
from equipoise.data.sampling import Shard
from equipoise.data.tabular import module
from equipoise.data.tabular.division import divide
from equipoise.data.tabular.libsvm import LabelledRows
from equipoise.errors import UserError


def written(file: Path, labels: list[Any], first: int = 0, columns: int = 3) -> str:
    """A file whose row i has the values i + 1 and 1, in column 1 and the last one."""
    lines = [f"{label} 1:{first + i + 1} {columns}:1" for i, label in enumerate(labels)]
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def labelled(labels: list[float]) -> LabelledRows:
    features = np.arange(len(labels), dtype=np.float64)[:, None]
    return LabelledRows(features, np.array(labels), None, "rows", lambda row: f"row {row}")


class Counted(LightningModule):
    """Notes how many rows each table has that it multiplies with its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(80, 1, dtype=torch.float64))
        self.seen: list[int] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        return self.scores(batch["training"]).sum() + self.scores(batch["validation"]).sum()

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        self.log("loss", self.scores(batch).mean(), batch_size=1)

    def test_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        self.scores(batch)

    def scores(self, table: dict[str, Tensor]) -> Tensor:
        self.seen.append(len(table["target"]))
        return table["features"] @ self.weights


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(3, 30), min_size=2, max_size=5),
    st.floats(0.1, 0.3), st.floats(0.1, 0.3), st.integers(0, 99),
)  # fmt: skip
def test_every_row_is_in_one_split_and_classes_keep_their_shares(
    counts: list[int], val: float, test: float, seed: int
) -> None:
    labels = [float(3 * label - 1) for label, count in enumerate(counts) for _ in range(count)]
    names, splits = divide({"train": labelled(labels)}, {"test": test, "val": val}, seed)
    assert names == tuple(str(3 * label - 1) for label in range(len(counts)))
    index = np.concatenate([split.index for split in splits.values()])
    assert sorted(index.tolist()) == list(range(len(labels)))
    for split in splits.values():
        assert split.features[:, 0].tolist() == split.index.tolist()
        assert [3 * label - 1 for label in split.target] == [labels[row] for row in split.index]
    for name, fraction in (("val", val), ("test", test)):
        drawn = np.bincount(splits[name].target, minlength=len(counts))
        assert np.all(np.abs(drawn - fraction * np.array(counts)) <= 2)
    assert np.bincount(splits["train"].target, minlength=len(counts)).min() > 0


@pytest.mark.parametrize("coding", [(-1, 1), (0, 1), (1, 2), ("+1", "-1"), (0.5, 1.5), (3, 7)])
def test_two_classes_in_any_coding_are_renamed(tmp_path: Path, coding: tuple[Any, Any]) -> None:
    data = Tabular(path=written(tmp_path / "a", [*coding] * 8))
    assert data.inspect() == {"features": 3, "classes": 2, "training_rows": 10}
    low, high = sorted(float(label) for label in coding)
    assert data.class_names == [f"{low:g}", f"{high:g}"]
    (batch,) = data.train_dataloader()
    for table in (batch["training"], batch["validation"]):
        values = table["features"].to_dense()[:, 0] - 1
        assert torch.equal(values.long(), table["index"])
        labels = [float(coding[row % 2]) for row in table["index"].tolist()]
        assert [(low, high)[target] for target in table["target"].tolist()] == labels


def test_each_epoch_has_one_batch_of_the_same_tensors_in_every_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "shard_of", lambda data: Shard(1, 2))
    data = Tabular(data="digits")
    data.setup("fit")
    loader = data.train_dataloader()
    assert len(loader) == 1
    batches = []
    for epoch in range(3):
        loader.batch_sampler.sampler.epoch = epoch
        batches += list(loader)
    assert [batch["index"].tolist() for batch in batches] == [[0]] * 3
    for part in ("training", "validation"):
        for name, tensor in batches[0][part].items():
            assert batches[2][part][name] is tensor
    assert len(batches[0]["training"]["target"]) == 1078
    resumed = data.train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    assert list(resumed) == []
    resumed.batch_sampler.sampler.epoch = 3
    assert len(list(resumed)) == 1


@pytest.mark.parametrize(("size", "lengths"), [(None, [57]), (20, [20, 20, 17]), (57, [57])])
def test_evaluation_batches_divide_a_split_among_processes(
    monkeypatch: pytest.MonkeyPatch, size: int | None, lengths: list[int]
) -> None:
    seen: list[int] = []
    data = Tabular(batch_size=size)
    data.setup("test")
    for rank in range(2):
        monkeypatch.setattr(module, "shard_of", lambda data, rank=rank: Shard(rank, 2))
        batches = list(data.test_dataloader())
        assert [len(batch["target"]) for batch in batches] == lengths
        seen += torch.cat([batch["index"] for batch in batches]).tolist()
    assert sorted(seen) == sorted(data.splits["test"].index.tolist())


def test_a_table_is_moved_to_a_device_once() -> None:
    data = Tabular(data="sparse", rows=200, columns=100, density=0.1)
    data.setup("fit")
    (batch,), (again,) = data.train_dataloader(), data.train_dataloader()
    device = torch.device("meta")
    moved, later = (data.transfer_batch_to_device(part, device, 0) for part in (batch, again))
    assert moved["index"].device == device
    for name, tensor in moved["training"].items():
        assert tensor.device == device
        assert later["training"][name] is tensor


def test_a_trainer_hands_over_one_batch_an_epoch(tmp_path: Path) -> None:
    data = Tabular(data="sparse", rows=300, columns=80, density=0.1, batch_size=25)
    task = Counted()
    trainer = Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    assert trainer.global_step == 3
    assert task.seen == ([180, 60, 25, 25, 10]) * 3 + [25, 25, 10]


def test_further_files_take_the_place_of_parts_of_the_first(tmp_path: Path) -> None:
    train = written(tmp_path / "train", [1, 2] * 10)
    val = written(tmp_path / "val", [2, 2, 1], first=20, columns=5)
    test = written(tmp_path / "test", [2, 1], first=40)
    data = Tabular(path=train, val_path=val)
    assert data.inspect() == {"features": 5, "classes": 2, "training_rows": 16}
    assert data.facts("val")["rows"] == 3
    assert data.splits["val"].index.tolist() == [20, 21, 22]
    assert data.splits["val"].target.tolist() == [1, 1, 0]
    both = Tabular(path=train, val_path=val, test_path=test, val_fraction=0.0, test_fraction=0.0)
    assert both.inspect()["training_rows"] == 20
    assert both.splits["test"].index.tolist() == [23, 24]
    written(tmp_path / "test", [2, 1, 1], first=40)
    changed = Tabular(path=train, val_path=val, test_path=test)
    changed.setup()
    assert len(changed.splits["test"]) == 3


def test_scaling_is_that_of_the_training_rows(tmp_path: Path) -> None:
    dense, raw = Tabular(seed=3), Tabular(seed=3, standardize=False)
    for data in (dense, raw):
        data.setup()
    training = raw.splits["train"].features
    expected = (raw.splits["test"].features - training.mean(axis=0)) / training.std(axis=0)
    assert np.allclose(dense.splits["test"].features, expected)
    path = written(tmp_path / "a", [1, 2] * 8)
    plain, scaled = Tabular(path=path), Tabular(path=path, standardize=True)
    for data in (plain, scaled):
        data.setup()
    assert plain.splits["train"].features.max() > 9
    assert scaled.splits["train"].features.power(2).mean(axis=0) == pytest.approx([1, 0, 1])


def test_facts_tell_rows_shares_and_density(tmp_path: Path) -> None:
    data = Tabular(path=written(tmp_path / "a", [1, 1, 1, -1] * 10))
    data.setup("test")
    facts = data.facts("test")
    assert facts == {"rows": 8, "classes": {"-1": 0.25, "1": 0.75}, "density": 2 / 3}
    bundled = Tabular()
    bundled.setup()
    assert list(bundled.facts("val")["classes"]) == ["malignant", "benign"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1] * 9, "has only the label 1: give it rows of another class"),
        ([1, 2] * 5 + [7], r"has 1 row\(s\) with the label 7 \(.*, line 11\), but each class ne"),
        ([i + 0.25 for i in range(30)], "has 30 different labels that are not all integers"),
        ([i / 4 for i in range(9)] * 9, None),
    ],
)
def test_labels_that_are_no_classes_are_refused(
    tmp_path: Path, labels: list[Any], said: str | None
) -> None:
    data = Tabular(path=written(tmp_path / "a", labels))
    if said is None:
        assert data.inspect()["classes"] == 9
        return
    with pytest.raises(UserError, match=said):
        data.inspect()


def test_what_the_training_does_not_know_is_refused(tmp_path: Path) -> None:
    train = written(tmp_path / "train", [1, 2] * 10)
    test = written(tmp_path / "test", [2, 1, 3])
    with pytest.raises(UserError, match=r"test, line 3 has the label 3, which no training row"):
        Tabular(path=train, test_path=test).inspect()
    with pytest.raises(UserError, match=r"task.features is 4, but the data have 3: give the data"):
        Tabular(path=train, features=4).inspect()
    assert Tabular(path=train, features=3, classes=2, training_rows=12).inspect()
    few = written(tmp_path / "few", [1, 2] * 3)
    with pytest.raises(UserError, match=r"6 rows are too few for task.val_fraction=0.05"):
        Tabular(path=few, val_fraction=0.05).inspect()
    rare = written(tmp_path / "rare", [1] * 40 + [2] * 3)
    with pytest.raises(UserError, match="has too few rows with the label 2 for any to be left"):
        Tabular(path=rare, val_fraction=0.8, test_fraction=0.18).inspect()


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"val_path": "a"}, "task.val_path is for files: set task.path too"),
        ({"path": "a", "data": "digits"}, "task.path replaces task.data=digits"),
        ({"rows": 30}, "task.rows is for generated data: set task.data=sparse too"),
        ({"data": "digits", "density": 0.5}, "task.density is for generated data"),
        ({"val_fraction": 0.0}, "task.val_fraction is 0: set it above 0"),
        ({"test_fraction": 1.0}, r"task.test_fraction is 1.0: set it to a number in \[0, 1\)"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"batch_size": 0}, "task.batch_size is 0: set it to 1 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings_: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Tabular(**settings_)


def test_a_model_of_dense_tables_is_refused_for_sparse_ones() -> None:
    class KernelRidge:
        dense_only = True

    Tabular().check_model(KernelRidge())
    Tabular(data="sparse").check_model(object())
    with pytest.raises(UserError, match=r"KernelRidge takes no sparse tables.*: choose model=log"):
        Tabular(data="sparse").check_model(KernelRidge())
