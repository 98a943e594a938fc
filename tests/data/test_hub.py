"""Opening datasets by name and by folder, and the ways in which that fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from equipoise.data import hub
from equipoise.data.folders import is_local
from equipoise.data.hub import load_configuration, open_splits
from equipoise.errors import UserError

CARD = """---
dataset_info:
  splits:
  - {name: train, num_bytes: 1000000000000000, num_examples: 60}
  - {name: test, num_bytes: 1000, num_examples: 15}
  download_size: 1000000000000000
  dataset_size: 1000000000000000
---
"""


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's client meet what it meets without a network: no answer."""

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)


def test_names_and_folders_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("./cifar", "/data/cifar", "~/cifar", "data/sets/cifar", str(tmp_path)):
        assert is_local(folder)
    for name in ("uoft-cs/cifar10", "cifar10"):
        assert not is_local(name)
    (tmp_path / "uoft-cs" / "cifar10").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert is_local("uoft-cs/cifar10")


def test_a_folder_of_parquet_files_gives_its_splits(cifar_folder: Path) -> None:
    splits = open_splits(str(cifar_folder))
    assert {name: len(split) for name, split in splits.items()} == {"train": 60, "test": 15}


@pytest.mark.parametrize("wanted", ["test", "train"])
def test_a_split_that_is_not_asked_for_is_never_opened(cifar_folder: Path, wanted: str) -> None:
    for file in cifar_folder.glob("*/*.parquet"):
        if not file.name.startswith(wanted):
            file.write_bytes(b"not fetched")
    splits = open_splits(str(cifar_folder))
    assert sorted(splits) == ["test", "train"]
    assert len(splits[wanted]) == {"train": 60, "test": 15}[wanted]
    assert splits[wanted].features["label"].names == ["cat", "dog", "owl"]
    (other,) = {"train", "test"} - {wanted}
    with pytest.raises(UserError, match="cannot be read"):
        splits[other]


def test_a_card_that_counts_all_splits_is_no_reason_to_fetch_them(cifar_folder: Path) -> None:
    """Sizes and counts of the whole, such as 150 GB of training images, do not concern a part."""
    (cifar_folder / "README.md").write_text(CARD)
    next(cifar_folder.glob("*/train*.parquet")).write_bytes(b"not fetched")
    assert len(open_splits(str(cifar_folder))["test"]) == 15


def test_a_split_of_an_earlier_whole_copy_is_taken_from_it(cifar_folder: Path) -> None:
    datasets.load_dataset(str(cifar_folder))
    open_splits(str(cifar_folder))["test"]
    assert not (Path(datasets.config.HF_DATASETS_CACHE) / "single_splits").exists()


def test_files_that_have_changed_are_read_anew(
    cifar_folder: Path, table: Callable[..., datasets.Dataset], write_split: Callable[..., None]
) -> None:
    assert len(open_splits(str(cifar_folder))["test"]) == 15
    write_split(cifar_folder / "plain_text", "test", table(6, seed=7))
    assert len(open_splits(str(cifar_folder))["test"]) == 6


def test_hidden_files_make_no_dataset(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    for name in ("._train.parquet", ".cache/train.parquet"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="holds no parquet files"):
        open_splits(str(tmp_path))


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(UserError, match=r"folder \./data/cifar does not exist: set task\.path"):
        open_splits("./data/cifar")


def test_a_folder_without_parquet_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="holds no parquet files"):
        open_splits(str(tmp_path))


def test_a_damaged_parquet_file_is_named(cifar_folder: Path) -> None:
    file = next(cifar_folder.glob("*/train*.parquet"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"cifar cannot be read \(.+\): fetch them again"):
        open_splits(str(cifar_folder))["train"]


@pytest.mark.usefixtures("no_network")
def test_without_a_network_the_error_is_quick_and_says_what_to_fetch() -> None:
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        open_splits("uoft-cs/cifar10")
    assert time.monotonic() - start < 10
    assert "fetch huggingface.co/datasets/uoft-cs/cifar10" in str(caught.value)
    assert "set task.path=<folder>" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not datasets.config.HF_HUB_OFFLINE


@pytest.mark.usefixtures("no_network")
def test_without_a_network_an_earlier_download_is_used(
    tmp_path: Path, table: Callable[..., datasets.Dataset], write_split: Callable[..., None]
) -> None:
    write_split(tmp_path / "scenes", "train", table(4, seed=0))
    datasets.load_dataset(str(tmp_path / "scenes"))
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    (cache / "scenes").rename(cache / "someone___scenes")
    assert len(open_splits("someone/scenes")["train"]) == 4


@pytest.mark.usefixtures("no_network")
def test_without_a_network_a_single_split_of_an_earlier_download_is_used(
    tmp_path: Path, table: Callable[..., datasets.Dataset], write_split: Callable[..., None]
) -> None:
    for number, name in enumerate(("train", "test")):
        write_split(tmp_path / "scenes", name, table(4 + number, seed=0))
    open_splits(str(tmp_path / "scenes"))["test"]
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "single_splits" / "test"
    (cache / "scenes").rename(cache / "someone___scenes")
    splits = open_splits("someone/scenes")
    assert list(splits) == ["test"]
    assert len(splits["test"]) == 5


def test_a_refusal_of_the_hub_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: object, **__: object) -> None:
        raise HfHubHTTPError.__new__(HfHubHTTPError)

    def refuse(name: str, configuration: None) -> None:
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' is a gated dataset.\nAsk")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", answer)
    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    with pytest.raises(UserError, match=r"is a gated dataset\): accept its licence and log in"):
        open_splits("ILSVRC/imagenet-1k")


CONFIGURATIONS = """---
configs:
- config_name: small
  data_files: small.parquet
- config_name: large
  data_files: large.parquet
---
"""


def test_the_configuration_is_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_hub_answers", lambda name: False)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "README.md").write_text(CONFIGURATIONS)
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    for name in ("small", "large"):
        table = datasets.Dataset.from_dict({"text": [name]})
        table.to_parquet(str(tmp_path / "text" / f"{name}.parquet"))
    for name in ("small", "large"):
        datasets.load_dataset(str(tmp_path / "text"), name)
    (cache / "text").rename(cache / "owner___text")
    assert load_configuration("owner/text", "small")["train"]["text"] == ["small"]


def test_a_refusal_says_what_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*names: str) -> datasets.DatasetBuilder:
        raise ValueError("BuilderConfig 'small' not found.")

    monkeypatch.setattr(hub, "_hub_answers", lambda name: True)
    monkeypatch.setattr(datasets, "load_dataset_builder", load)
    with pytest.raises(UserError, match=r"not found\): fetch .*owner/text elsewhere and set"):
        load_configuration("owner/text", "small")
