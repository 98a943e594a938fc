"""Pictures of classes in folders: splits, names of classes, and files that cannot be used."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equipoise.data import ClassFolders, PictureFolder
from equipoise.data.images.splits import Selection
from equipoise.data.module import SPLITS
from equipoise.errors import DataDiffer, UserError
from tests.data.images.own_files import COLOURS, add_readable, add_unusable, own_folder, picture

NAMES = sorted(COLOURS)


def module(path: Path, **typed: Any) -> ClassFolders:
    return ClassFolders(
        path=str(path), **{"batch_size": 4, "image_size": 16, "num_workers": 0, **typed}
    )


def files_of(data: ClassFolders) -> dict[str, list[str]]:
    """The files of each split, as they were found."""
    found = {}
    for name in SPLITS:
        source = data.read_split(name).source
        assert isinstance(source, Selection)
        files = source.sources[0].files  # type: ignore[attr-defined]
        found[name] = [files[row] for row in source.rows.tolist()]
    return found


def test_classes_are_counted_and_named(tmp_path: Path) -> None:
    own_folder(tmp_path)
    assert module(tmp_path).inspect() == {"classes": 5, "names": NAMES}
    assert module(tmp_path, classes=5).inspect() == {"names": NAMES}
    assert module(tmp_path, classes=5, names=NAMES[::-1]).inspect() == {}
    data = module(tmp_path, names=NAMES[::-1])
    data.setup()
    assert data.class_names == NAMES[::-1]
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 16)
    for row, label in zip(batch["index"].tolist(), batch["label"].tolist(), strict=True):
        assert files_of(data)["test"][row].split("/")[0] == NAMES[::-1][label]


def test_what_is_unusual_is_read_and_what_tools_leave_is_not(tmp_path: Path) -> None:
    own_folder(tmp_path, 8)
    added = add_readable(tmp_path)
    data = module(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert data.inspect() == {"classes": 5, "names": NAMES}
    data.setup()
    for name in SPLITS:
        for batch in getattr(data, f"{name}_dataloader")():
            assert batch["image"].isfinite().all()
    counts = data.details()["pictures"]
    assert sum(counts.values()) == 5 * 8 + added
    assert set(counts) == set(SPLITS)


def test_the_first_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    place, reason = add_unusable(own_folder(tmp_path))[0]
    with pytest.raises(UserError, match=rf"{place} cannot be used .*{reason}.*task\.damaged=skip"):
        module(tmp_path).inspect()


def test_those_that_cannot_be_used_are_counted_and_listed(tmp_path: Path) -> None:
    added = add_unusable(own_folder(tmp_path))
    data = module(tmp_path, damaged="skip")
    assert data.details() == {}
    with pytest.warns(UserWarning, match=r"3 of the pictures .* such as .*cut_off\.jpg"):
        data.inspect()
    data.setup()
    details = data.details()
    assert details["pictures"]["skipped"] == 3
    assert sum(details["pictures"][name] for name in SPLITS) == 5 * 8
    for left_out, (place, reason) in zip(details["skipped_pictures"], added, strict=True):
        assert left_out["picture"] == str(tmp_path / place)
        assert reason in left_out["reason"]
    seen = [batch["label"] for name in SPLITS for batch in getattr(data, f"{name}_dataloader")()]
    assert len(torch.cat(seen)) == 5 * 8


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_folder(tmp_path_factory.mktemp("forty"))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(broken=st.sets(st.sampled_from(range(40)), max_size=6), seed=st.integers(0, 5))
def test_a_broken_file_moves_no_other_from_one_split_to_another(
    forty: Path, broken: set[int], seed: int
) -> None:
    files = sorted(file for file in forty.rglob("*") if file.is_file())
    whole = files_of(module(forty, seed=seed))
    kept = {file: file.read_bytes() for file in (files[number] for number in sorted(broken))}
    try:
        for file in kept:
            file.write_bytes(b"")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = module(forty, seed=seed, damaged="skip")
            rest = files_of(data)
        gone = {str(file.relative_to(forty)) for file in kept}
        assert rest == {name: [f for f in found if f not in gone] for name, found in whole.items()}
        data.setup("fit")
        orders = [data.train_dataloader().batch_sampler.sampler for _ in range(2)]
        for order in orders:
            order.epoch = 3
        assert torch.cat(orders[0].batches()).equal(torch.cat(orders[1].batches()))
        assert sorted(torch.cat(orders[0].batches()).tolist()) == [*range(len(rest["train"]))]
    finally:
        for file, contents in kept.items():
            file.write_bytes(contents)


def test_folders_without_pictures_and_pictures_without_a_folder(tmp_path: Path) -> None:
    own_folder(tmp_path)
    (tmp_path / "x.png").mkdir()
    with pytest.raises(UserError, match=r"The folder .*x\.png cannot be used \(it has no pictures"):
        module(tmp_path).inspect()
    picture("lime", 0).save(tmp_path / "overview.png")
    data = module(tmp_path, damaged="skip")
    with pytest.warns(UserWarning, match="2 of the pictures"):
        assert data.inspect() == {"classes": 5, "names": NAMES}
    reasons = [left_out["reason"] for left_out in data.details()["skipped_pictures"]]
    assert reasons == ["it has no pictures", "it is in no folder of a class"]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("training", "validation", "testing"), ("train", "valid", "test")],
)
def test_folders_of_splits(tmp_path: Path, train: str, val: str, test: str) -> None:
    for count, name in zip((6, 2, 3), (train, val, test), strict=True):
        own_folder(tmp_path / name, count)
    data = module(tmp_path)
    data.setup()
    assert [len(data.splits[name]) for name in SPLITS] == [30, 10, 15]
    (tmp_path / val / "owl").mkdir()
    picture("lime", 0).save(tmp_path / val / "owl" / "0.png")
    with pytest.raises(UserError, match=f"{val} has the class owl, which the training images lack"):
        module(tmp_path).inspect()


def test_a_test_folder_alone_serves_a_network_that_knows_its_classes(tmp_path: Path) -> None:
    own_folder(tmp_path / "test", 3, ("lime", "sky"))
    with pytest.raises(UserError, match="has test, but no folder train to learn from"):
        module(tmp_path).inspect()
    data = module(tmp_path, classes=5, names=NAMES)
    assert data.inspect() == {}
    data.setup("test")
    assert data.read_split("test").labels.unique().tolist() == [2, 4]
    with pytest.raises(UserError, match="has no pictures for train"):
        data.setup("fit")


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    own_folder(tmp_path, 8, ("sky", "lime"))
    (tmp_path / "sky").rename(tmp_path / "test")
    assert module(tmp_path).inspect() == {"classes": 2, "names": ["lime", "test"]}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"classes": 7}, r"has 5 classes, but task\.classes is 7: set task\.classes=5"),
        ({"names": ["a", "b"]}, r"lacks the class a, but task\.names are a, b"),
        ({"names": [*NAMES, "zebra"]}, r"lacks the class zebra, but task\.names"),
        ({"names": NAMES, "classes": 3}, r"task\.names has 5 classes, but task\.classes is 3"),
    ],
)
def test_other_classes_than_were_set_are_refused(
    tmp_path: Path, typed: dict[str, Any], said: str
) -> None:
    own_folder(tmp_path, 2)
    with pytest.raises(DataDiffer, match=said):
        module(tmp_path, **typed).inspect()


def test_what_cannot_be_learnt_is_refused(tmp_path: Path) -> None:
    own_folder(tmp_path, 4, ("lime",))
    with pytest.raises(UserError, match="has only the class lime, and there is nothing to learn"):
        module(tmp_path).inspect()
    own_folder(tmp_path, 4, ("sky",))
    for number in range(4):
        (tmp_path / "sky" / f"{number}.{'png' if number % 2 else 'jpg'}").write_text("damaged")
    with pytest.raises(UserError, match=r"class sky of .* has no picture left to train on, of 4"):
        module(tmp_path, damaged="skip").inspect()
    with pytest.raises(UserError, match="needs pictures of your own"):
        ClassFolders().inspect()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"image_channels": 2}, r"image_channels is 2: set it to 3, or to 1"),
        ({"crop_scale": [0.5]}, r"crop_scale is \[0\.5\]"),
        ({"crop_scale": [0.5, 1.2]}, r"crop_scale is"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    tmp_path: Path, typed: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        module(tmp_path, **typed)


def test_grey_has_one_channel_and_augmentation_is_of_the_epoch(tmp_path: Path) -> None:
    own_folder(tmp_path)
    grey = module(tmp_path, image_channels=1)
    grey.setup()
    assert next(iter(grey.train_dataloader()))["image"].shape == (4, 1, 16, 16)

    def epochs(data: ClassFolders) -> list[torch.Tensor]:
        data.setup("fit")
        rows = []
        for epoch in (0, 1, 0):
            loader = data.train_dataloader()
            loader.go_to(epoch, 0)
            images = torch.cat([batch["image"] for batch in loader])
            loader.go_to(epoch, 0)
            rows.append(images[torch.cat([batch["index"] for batch in loader]).argsort()])
        return rows

    first, second, again = epochs(module(tmp_path))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    plain, still, _ = epochs(module(tmp_path, augment=False))
    assert torch.equal(plain, still)


def test_pictures_without_labels_may_be_damaged_too(tmp_path: Path) -> None:
    add_unusable(own_folder(tmp_path))
    with pytest.raises(UserError, match=r"cut_off\.jpg cannot be used"):
        PictureFolder(path=str(tmp_path)).inspect()
    data = PictureFolder(path=str(tmp_path), damaged="skip")
    with pytest.warns(UserWarning, match="3 of the pictures"):
        assert data.inspect() == {"classes": 5}
    assert data.details()["pictures"]["skipped"] == 3
