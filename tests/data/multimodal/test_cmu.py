"""The published sets as the data module gives them, and files that do not fit the task."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equipoise.data import Iemocap, Mosei, Mosi
from equipoise.data.multimodal.module import MODALITIES
from equipoise.data.multimodal.published import read_published
from equipoise.data.multimodal.stored import write_stored
from equipoise.errors import UserError
from tests.data.multimodal.published_writing import emotions, sentiment, write

KEYS = {"language": "text", "audio": "audio", "vision": "vision"}


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4", "float16"])
@pytest.mark.parametrize("converted", [False, True])
def test_the_batches_hold_what_the_file_does(tmp_path: Path, dtype: str, converted: bool) -> None:
    content = sentiment(dtype)
    file = write(tmp_path, content)
    if converted:
        write_stored(read_published(file, "published"), file.with_suffix(".safetensors"))
        file.unlink()
    data = Mosi(path=str(tmp_path), batch_size=5)
    assert data.inspect() == {"features": [6, 3, 4], "lengths": [5, 9, 7]}
    data.setup()
    for split, loader in (("valid", data.val_dataloader()), ("test", data.test_dataloader())):
        batches = list(loader)
        for name in MODALITIES:
            found = torch.cat([batch[name] for batch in batches])
            assert found.dtype == torch.float32
            assert np.array_equal(found.numpy(), content[split][KEYS[name]].astype("float32"))
        labels = torch.cat([batch["label"] for batch in batches])
        assert np.array_equal(labels, content[split]["labels"].reshape(-1).astype("float32"))
    assert data.identifiers("val")[1] == "valid1 1.5 2.25"
    assert data.facts("train")["samples"] == 12


@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_is_loaded_once_an_epoch(tmp_path: Path, workers: int) -> None:
    data = Mosi(path=str(write(tmp_path, sentiment())), batch_size=5, num_workers=workers)
    data.setup("fit")
    batches = list(data.train_dataloader())
    rows = torch.cat([batch["index"] for batch in batches])
    assert rows.sort().values.tolist() == list(range(12))
    streams = torch.cat([batch["audio"] for batch in batches])
    assert torch.equal(streams[rows.argsort()], data.splits["train"].streams["audio"])


def test_nothing_warns_of_memory_that_only_torch_could_write_to(tmp_path: Path) -> None:
    data = Mosi(path=str(write(tmp_path, sentiment())))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.setup()


def test_emotions_are_whether_each_is_present(tmp_path: Path) -> None:
    content = emotions()
    data = Iemocap(path=str(write(tmp_path, content)), batch_size=4)
    data.setup()
    batch = next(iter(data.val_dataloader()))
    assert batch["label"].dtype == torch.int64
    assert np.array_equal(batch["label"], content["valid"]["labels"][:4, :, 1].astype(int))
    assert data.identifiers("test") == []


def test_the_sizes_are_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = sentiment()
    content["train"]["audio"][3, 2, 1] = content["test"]["audio"][0, 0, :2] = -np.inf
    data = Mosi(path=str(write(tmp_path, content)))
    data.setup("fit")
    data.setup("test")
    assert capsys.readouterr().out == (
        "language 5 x 6, audio 9 x 3, vision 7 x 4 (steps x features); "
        "0 replaces values that are not finite: 3 of audio\n"
    )
    assert (data.splits["train"].streams["audio"][3, 2, 1] == 0).all()
    assert data.facts("test")["replaced"] == {"language": 0, "audio": 2, "vision": 0}
    assert data.facts("val")["replaced"] == {"language": 0, "audio": 0, "vision": 0}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_values_that_are_not_finite_can_be_read_as_0(tmp_path: Path, dtype: str) -> None:
    content = sentiment(dtype)
    content["train"]["text"][0, 0, :3] = np.nan, np.inf, -np.inf
    data = Mosi(path=str(write(tmp_path, content)), non_finite="zero")
    data.setup("fit")
    assert (data.splits["train"].streams["language"][0, 0, :3] == 0).all()
    rest = content["train"]["text"][0, 0, 3:].astype("float32")
    assert np.array_equal(data.splits["train"].streams["language"][0, 0, 3:], rest)
    assert data.facts("train")["replaced"]["language"] == 3


def test_the_folder_decides_by_the_alignment_and_prefers_the_converted_file(tmp_path: Path) -> None:
    file = write(tmp_path, sentiment())
    write(tmp_path, sentiment(aligned=True), "mosi_data.pkl")
    assert Mosi(path=str(tmp_path), aligned=True).inspect()["lengths"] == [5, 5, 5]
    write_stored(read_published(file, "published"), file.with_suffix(".safetensors"))
    assert Mosi(path=str(tmp_path)).file() == file.with_suffix(".safetensors")
    assert Mosei(path=str(file)).inspect()["lengths"] == [5, 9, 7]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = write(tmp_path, sentiment())
    Mosi(path=str(file)).inspect()
    write(tmp_path, sentiment(aligned=True))
    assert Mosi(path=str(file)).inspect()["lengths"] == [5, 5, 5]


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, sentiment())
    with pytest.raises(UserError, match="a score of sentiment, but task=iemocap needs 4 emotions"):
        Iemocap(path=str(file)).inspect()
    with pytest.raises(UserError, match="has 5, 7, 9 steps, so its modalities are not aligned"):
        Mosi(path=str(file), aligned=True).inspect()
    with pytest.raises(UserError, match=r"task.features=\[1, 2, 3\] is not what the data"):
        Mosi(path=str(file), features=[1, 2, 3]).inspect()
    with pytest.raises(UserError, match=r"task.lengths=\[5, 5, 5\] is not what the data has"):
        Mosi(path=str(file), lengths=[5, 5, 5]).inspect()


def test_a_network_of_other_widths_is_refused(tmp_path: Path) -> None:
    data = Mosi(path=str(write(tmp_path, sentiment())))
    model = torch.nn.Identity()
    data.check_model(model)
    model.features = (6, 3, 4)
    data.check_model(model)
    model.features = (300, 5, 20)
    with pytest.raises(UserError, match=r"reads \[300, 5, 20\] features .* has \[6, 3, 4\]"):
        data.check_model(model)


@pytest.mark.parametrize(
    ("kind", "content", "fits", "message"),
    [
        (Mosi, sentiment, 1, "has 8 outputs, and a sentiment needs 1: set task.outputs=1"),
        (Iemocap, emotions, 8, "has 1 outputs, and 4 emotions need 8: set task.outputs=8"),
    ],
)
def test_a_network_of_other_outputs_is_refused(
    kind: Any, content: Any, fits: int, message: str, tmp_path: Path
) -> None:
    data, model = kind(path=str(write(tmp_path, content()))), torch.nn.Identity()
    model.outputs = fits
    data.check_model(model)
    model.outputs = 9 - fits
    with pytest.raises(UserError, match=message):
        data.check_model(model)


def test_a_path_without_the_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="task=mosei needs the published mosei_senti_data_no"):
        Mosei().inspect()
    with pytest.raises(UserError, match=r"has neither mosi_data_noalign.safetensors nor mosi"):
        Mosi(path=str(tmp_path)).inspect()
    with pytest.raises(UserError, match=r"nowhere does not exist: set task.path to"):
        Mosi(path=str(tmp_path / "nowhere")).inspect()
    write(tmp_path, sentiment(aligned=True), "mosi_data.pkl")
    with pytest.raises(UserError, match=r"set task.aligned=true for mosi_data"):
        Mosi(path=str(tmp_path)).inspect()
