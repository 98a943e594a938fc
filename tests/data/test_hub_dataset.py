"""Opening datasets by name and by folder, and the ways in which that fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from equipoise.data.hub_dataset import is_local, load_splits
from equipoise.errors import UserError


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
    splits = load_splits(str(cifar_folder))
    assert {name: len(split) for name, split in splits.items()} == {"train": 60, "test": 15}


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(UserError, match=r"folder \./data/cifar does not exist: set task\.path"):
        load_splits("./data/cifar")


def test_a_folder_without_parquet_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="holds no parquet files"):
        load_splits(str(tmp_path))


def test_a_damaged_parquet_file_is_named(cifar_folder: Path) -> None:
    file = next(cifar_folder.glob("*/train*.parquet"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"cifar cannot be read \(.+\): fetch them again"):
        load_splits(str(cifar_folder))


@pytest.mark.usefixtures("no_network")
def test_without_a_network_the_error_is_quick_and_says_what_to_fetch() -> None:
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        load_splits("uoft-cs/cifar10")
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
    assert len(load_splits("someone/scenes")["train"]) == 4


def test_a_refusal_of_the_hub_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: object, **__: object) -> None:
        raise HfHubHTTPError.__new__(HfHubHTTPError)

    def refuse(name: str) -> None:
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' is a gated dataset.\nAsk")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", answer)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match=r"is a gated dataset\): accept its licence and log in"):
        load_splits("ILSVRC/imagenet-1k")
