"""Two views of each picture of any dataset, and what features are measured against."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from equipoise.config.about import written
from equipoise.config.compose import CONF
from equipoise.data import Cifar10, Digits, ImageNet, PictureFolder, Views
from equipoise.data.images import views as module
from equipoise.data.images.splits import DecodedImages
from equipoise.data.images.view_augmentations import AffineViews, PhotographViews
from equipoise.data.loading import Batch, BatchLoader
from equipoise.data.sampling import Shard
from equipoise.errors import UserError
from equipoise.running.build import instantiate
from tests.data.images.test_view_augmentations import NEUTRAL, published

MILD: dict[str, Any] = {
    "crop_size": 8, "zoom": (0.8, 1.2), "aspect": 1.2, "rotation": 10.0, "shift": 0.1,
    "contrast": 0.3, "noise": 0.1,
}  # fmt: skip


def of_digits(seed: int = 0, **settings: Any) -> Views:
    given = {"batch_size": 64, "num_workers": 0, **settings}
    return Views(source=Digits(seed=seed), augmentation=AffineViews(**MILD), seed=seed, **given)


def of_cifar(folder: Path, **settings: Any) -> Views:
    source = Cifar10(path=str(folder), val_fraction=0.1, classes=3)
    given = {"batch_size": 16, "num_workers": 0, **settings}
    return Views(source=source, augmentation=published("ssl_cifar10"), **given)


def of_imagenet(folder: Path, num_workers: int = 0) -> Views:
    source = ImageNet(path=str(folder), classes=2, image_size=32)
    augmentation = published("ssl_imagenet")
    return Views(source=source, augmentation=augmentation, batch_size=2, num_workers=num_workers)


def epoch(loader: BatchLoader, number: int) -> list[Batch]:
    loader.batch_sampler.sampler.epoch = number
    return list(loader)


def by_row(batches: Iterator[Batch] | list[Batch], name: str) -> dict[int, Tensor]:
    return {
        int(row): image
        for batch in batches
        for row, image in zip(batch["index"], batch[name], strict=True)
    }


def test_a_training_batch_has_two_different_views_and_no_smaller_one_follows() -> None:
    data = of_digits()
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert [len(batch["first"]) for batch in batches] == [64] * 20
    assert len(data.train_dataloader()) == 20
    batch = batches[0]
    assert set(batch) == {"first", "second", "label", "index"}
    assert batch["first"].shape == batch["second"].shape == (64, 1, 8, 8)
    assert batch["first"].dtype == torch.float32
    apart = (batch["first"] - batch["second"]).flatten(1).norm(dim=1)
    assert apart.min() > 0.5
    assert torch.equal(batch["label"], data.source.read_split("train").labels[batch["index"]])  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["val", "test"])
def test_evaluation_shows_the_picture_beside_the_same_views_in_every_epoch(name: str) -> None:
    data = of_digits()
    data.setup()
    data.source.setup()
    loader = getattr(data, f"{name}_dataloader")
    batches = list(loader())
    plain = torch.cat([batch["image"] for batch in getattr(data.source, f"{name}_dataloader")()])
    assert torch.equal(torch.cat([batch["image"] for batch in batches]), plain)
    again = loader()
    again.batch_sampler.sampler.epoch = 5
    for batch, other in zip(batches, again, strict=True):
        assert torch.equal(batch["first"], other["first"])
        assert torch.equal(batch["second"], other["second"])


def test_views_depend_on_seed_epoch_and_row_alone(cifar_folder: Path) -> None:
    def views(number: int, **settings: Any) -> dict[int, Tensor]:
        data = of_cifar(cifar_folder, **settings)
        data.setup("fit")
        return by_row(epoch(data.train_dataloader(), number), "first")

    reference = views(1)
    assert len(reference) == 48
    smaller = views(1, batch_size=5)
    for row in reference.keys() & smaller.keys():
        assert torch.equal(reference[row], smaller[row])
    for other in (views(2), views(1, seed=1)):
        both = reference.keys() & other.keys()
        assert all(not torch.equal(reference[row], other[row]) for row in both)
        assert both


@pytest.mark.parametrize("kind", ["memory", "decoded"])
def test_workers_change_nothing(cifar_folder: Path, imagenet_folder: Path, kind: str) -> None:
    drawn = []
    for workers in (0, 2):
        data = (
            of_cifar(cifar_folder, num_workers=workers)
            if kind == "memory"
            else of_imagenet(imagenet_folder, workers)
        )
        data.setup("fit")
        loader = data.train_dataloader()
        drawn.append([batch for number in range(2) for batch in epoch(loader, number)])
        loader.shut_down()
    for batch, other in zip(*drawn, strict=True):
        assert all(torch.equal(batch[name], other[name]) for name in batch)


def test_other_random_numbers_of_the_run_stay(cifar_folder: Path) -> None:
    data = of_cifar(cifar_folder)
    data.setup("fit")
    before = torch.get_rng_state()
    list(data.train_dataloader())
    assert torch.equal(before, torch.get_rng_state())


def test_each_picture_is_decoded_once(
    imagenet_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    original = DecodedImages.pixels

    def counted(split: DecodedImages, row: int) -> Tensor:
        decoded.append(row)
        return original(split, row)

    monkeypatch.setattr(DecodedImages, "pixels", counted)
    data = of_imagenet(imagenet_folder)
    data.setup("fit")
    for loader, rows in ((data.train_dataloader(), 6), (data.val_dataloader(), 2)):
        decoded.clear()
        list(loader)
        assert sorted(decoded) == list(range(rows))


def test_the_bank_shows_labelled_training_pictures_as_an_evaluation_does(
    imagenet_folder: Path,
) -> None:
    data = of_imagenet(imagenet_folder)
    data.setup("test")
    bank = by_row(list(data.bank_dataloader()), "image")
    plain = ImageNet(path=str(imagenet_folder), classes=2, image_size=32, augment=False)
    plain.setup("fit")
    whole = by_row(list(plain.train_dataloader()), "image")
    assert bank.keys() == whole.keys() == set(range(6))
    assert all(torch.equal(bank[row], whole[row]) for row in bank)


@pytest.mark.parametrize("size", [1, 30, 600, 1294, 5000, None])
def test_the_bank_has_the_same_mixture_of_classes(size: int | None) -> None:
    data = of_digits(bank_size=size)
    data.setup("fit")
    batches = list(data.bank_dataloader())
    rows = torch.cat([batch["index"] for batch in batches])
    labels = torch.cat([batch["label"] for batch in batches])
    whole = data.pictures["train"].labels
    assert len(rows) == min(size or 1294, 1294)
    assert torch.equal(rows, rows.sort().values)
    assert torch.equal(labels, whole[rows])
    share = torch.bincount(whole, minlength=10) * len(rows) / 1294
    assert (torch.bincount(labels, minlength=10) - share).abs().max() <= 1


def test_ranks_divide_the_bank_and_the_training_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    banks, trained = [], []
    for rank in (0, 1):
        monkeypatch.setattr(module, "shard_of", lambda data, rank=rank: Shard(rank, 2))
        data = of_digits()
        data.setup("fit")
        banks += [batch["index"] for batch in data.bank_dataloader()]
        trained.append([batch["index"] for batch in data.train_dataloader()])
    assert sorted(torch.cat(banks).tolist()) == list(range(1294))
    assert [len(batches) for batches in trained] == [10, 10]
    assert len(torch.cat(trained[0] + trained[1]).unique()) == 2 * 640


def test_a_classifier_learns_from_all_labelled_pictures_plain_or_augmented() -> None:
    data = of_digits()
    data.setup("fit")
    plain = data.labelled_dataloader(augment=False, batch_size=100)
    augmented = data.labelled_dataloader(augment=True, batch_size=100)
    whole = by_row(list(data.bank_dataloader()), "image")
    shown = by_row(epoch(plain, 0), "image")
    assert shown.keys() == whole.keys()
    assert all(torch.equal(shown[row], whole[row]) for row in whole)
    orders = [[batch["index"] for batch in epoch(plain, number)] for number in (0, 1)]
    assert [len(rows) for rows in orders[0]] == [100] * 12 + [94]
    assert not torch.equal(orders[0][0], orders[1][0])
    views = by_row(epoch(augmented, 3), "image")
    trained = by_row(epoch(data.train_dataloader(), 3), "first")
    same = [torch.allclose(views[row], trained[row], atol=1e-5) for row in trained]
    assert all(same)
    assert not torch.equal(views[0], by_row(epoch(augmented, 4), "image")[0])


def test_pictures_of_another_size_than_the_views_are_resized(cifar_folder: Path) -> None:
    source = Cifar10(path=str(cifar_folder), val_fraction=0.1, classes=3)
    smaller = PhotographViews(**NEUTRAL)
    data = Views(source=source, augmentation=smaller, batch_size=4, num_workers=0)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape == batch["first"].shape == (4, 3, 24, 24)


def test_overfitting_takes_the_same_whole_batches() -> None:
    data = of_digits()
    data.trainer = pl.Trainer(overfit_batches=2, logger=False, accelerator="cpu")
    data.setup("fit")
    loader = data.train_dataloader()
    orders = [[batch["index"] for batch in epoch(loader, number)] for number in (0, 1)]
    assert [len(rows) for rows in orders[0]] == [64] * 20
    assert all(torch.equal(a, b) for a, b in zip(*orders, strict=True))


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"task\.batch_size is 1: .* set it to 2 or more"):
        of_digits(batch_size=1)


def test_fewer_pictures_than_a_batch_are_refused_with_both_numbers() -> None:
    data = of_digits(batch_size=2000)
    data.setup("fit")
    with pytest.raises(UserError, match=r"are 1294 training pictures .*batch_size=2000.*1294 or"):
        data.train_dataloader()


def test_pictures_without_classes_can_be_trained_on_but_not_measured(
    imagenet_folder: Path, tmp_path: Path
) -> None:
    for number, file in enumerate(sorted((imagenet_folder / "train").rglob("*.JPEG"))):
        (tmp_path / "flat").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "flat" / f"{number}.jpg")
    source = PictureFolder(path=str(tmp_path / "flat"), val_fraction=0.2, image_size=32)
    augmentation = published("ssl_folder")
    data = Views(source=source, augmentation=augmentation, batch_size=2, num_workers=0)
    assert data.inspect() == {"classes": 0}
    data.setup()
    assert not data.labelled
    assert data.class_names == []
    for batch in [*data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()]:
        assert batch["label"].unique().tolist() == [-1]
    for look in (data.bank_dataloader, lambda: data.labelled_dataloader(False, 2)):
        with pytest.raises(UserError, match="have no classes"):
            look()


def test_a_damaged_picture_is_named(imagenet_folder: Path) -> None:
    file = imagenet_folder / "train" / "n01443537" / "n01443537_2.JPEG"
    file.write_bytes(file.read_bytes()[:300])
    data = of_imagenet(imagenet_folder)
    data.setup("fit")
    with pytest.raises(UserError, match=f"The image {file} cannot be decoded"):
        list(data.train_dataloader())


def test_what_the_source_knows_is_handed_on(imagenet_folder: Path) -> None:
    data = of_imagenet(imagenet_folder)
    assert data.inspect() == {}
    assert data.class_names == []
    data.setup("fit")
    assert data.class_names == ["n01440764", "n01443537"]
    assert data.labelled
    assert of_digits().inspect() == {}


@pytest.mark.parametrize("file", sorted((CONF / "task").glob("ssl_*.yaml")), ids=lambda f: f.stem)
def test_the_file_of_a_task_builds_its_views(file: Path, tmp_path: Path) -> None:
    node = {name: value for name, value in written(file).items() if name != "objective"}
    node = {"batch_size": 8, **node, "path": str(tmp_path)} if "path" in node else node
    resolved: Any = OmegaConf.to_container(
        OmegaConf.create({"task": node, "seed": 3}), resolve=True
    )
    data = instantiate("task", resolved["task"])
    assert isinstance(data, Views)
    assert data.source.seed == data.seed == 3
    assert data.augmentation.crop_size == resolved["task"]["image_size"]
    assert getattr(data.source, "path", str(tmp_path)) == str(tmp_path)
