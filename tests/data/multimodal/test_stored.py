"""Converted files: what is written comes back, mapped into memory; others are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from equipoise.data import Mosi
from equipoise.data.multimodal.module import MODALITIES
from equipoise.data.multimodal.published import read_published
from equipoise.data.multimodal.stored import FORMAT, read_stored, size_of, write_stored
from equipoise.errors import UserError
from tests.data.multimodal.published_writing import Content, emotions, sentiment, write

COUNTS = {split: dict.fromkeys(MODALITIES, 0) for split in ("train", "val", "test")}
METADATA = {"format": FORMAT, "replaced": json.dumps(COUNTS)}


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    """A converted file of sentiment."""
    file = tmp_path / "mosi_data_noalign.safetensors"
    write_stored(read_published(write(tmp_path, sentiment()), "published"), file)
    return file


@pytest.mark.parametrize("labels", ["sentiment", "emotions"])
def test_what_is_written_comes_back(tmp_path: Path, labels: str) -> None:
    content = sentiment("float64") if labels == "sentiment" else emotions()
    content["valid"]["audio"][0, 0, 0] = -np.inf
    content["test"]["id"] = np.array([["Zürich", str(row)] for row in range(6)])
    before = read_published(write(tmp_path, content), "published")
    written: list[int] = []
    write_stored(before, tmp_path / "x" / "y.safetensors", written.append)
    after = read_stored(tmp_path / "x" / "y.safetensors")
    assert sum(written) == size_of(before)
    assert after.replaced == before.replaced
    assert after.replaced["val"]["audio"] == 1
    assert after.identifiers == before.identifiers
    assert after.identifiers["test"][2] == "Zürich 2"
    assert after.emotions == before.emotions == (0 if labels == "sentiment" else 4)
    for name, samples in before.splits.items():
        assert torch.equal(after.splits[name].labels, samples.labels)
        for modality in MODALITIES:
            assert torch.equal(after.splits[name].streams[modality], samples.streams[modality])
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["y.safetensors"]


def test_safetensors_reads_the_file_with_its_own_means(converted: Path) -> None:
    tensors = load_file(converted)
    assert tensors["train.language"].shape == (12, 5, 6)
    assert np.array_equal(tensors["test.vision"], sentiment()["test"]["vision"])


def test_an_interrupted_writing_leaves_nothing(converted: Path, tmp_path: Path) -> None:
    content, target = read_stored(converted), tmp_path / "new" / "x.safetensors"

    def interrupt(_: int) -> None:
        assert target.with_name("x.safetensors.part").is_file()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_stored(content, target, interrupt)
    assert not list(target.parent.iterdir())


def test_a_place_that_cannot_be_written_to_is_refused(converted: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written: "):
        write_stored(read_stored(converted), converted / "x.safetensors")


def test_a_damaged_file_is_refused(converted: Path) -> None:
    whole = converted.read_bytes()
    for data in (b"", whole[:7], whole[:100], whole[:-1], b"\xff" * 64, b"hello", whole + b"x"):
        converted.write_bytes(data)
        with pytest.raises(
            UserError, match="is truncated, damaged or no safetensors file: make it"
        ):
            Mosi(path=str(converted)).inspect()


def test_a_file_of_something_else_is_refused(converted: Path) -> None:
    save_file({"weight": torch.zeros(3)}, converted)
    with pytest.raises(UserError, match="was not written by convert-multimodal: make it again"):
        read_stored(converted)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("val.audio", None),
        ("train.label", None),
        ("test.vision", torch.zeros(6, 7)),
        ("train.language", torch.zeros(12, 5, 6, dtype=torch.float64)),
        ("train.label", torch.zeros(12, 4)),
        ("test.identifiers", torch.tensor([1, 2], dtype=torch.uint8)),
    ],
)
def test_a_file_that_was_changed_is_refused(
    converted: Path, name: str, tensor: torch.Tensor | None
) -> None:
    tensors = load_file(converted) | ({} if tensor is None else {name: tensor})
    if tensor is None:
        del tensors[name]
    save_file(tensors, converted, METADATA)
    with pytest.raises(UserError, match="lacks a part, or has one of another kind: make it again"):
        read_stored(converted)


@pytest.mark.parametrize("counts", ["5", "{}", '{"train": 5}', '{"train": {}}', "train"])
def test_a_file_without_the_counts_of_what_was_replaced_is_refused(
    converted: Path, counts: str
) -> None:
    save_file(load_file(converted), converted, METADATA | {"replaced": counts})
    with pytest.raises(UserError, match="lacks a part, or has one of another kind: make it again"):
        read_stored(converted)


def test_a_file_whose_parts_differ_in_number_is_refused(converted: Path) -> None:
    tensors = load_file(converted) | {"test.audio": torch.zeros(5, 9, 3)}
    save_file(tensors, converted, METADATA)
    with pytest.raises(UserError, match="the samples of 'test' differ in number, text 6, audio 5"):
        read_stored(converted)


PASS = """
import json, resource, sys
from equipoise.data import Mosi
data = Mosi(path=sys.argv[1], batch_size=24)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
data.inspect()
opened = peak()
data.setup("fit")
total = sum(len(batch["label"]) for batch in data.train_dataloader())
print(json.dumps({"samples": total, "opened": opened - before, "held": peak() - before}))
"""


def peaks(file: Path) -> dict[str, int]:
    """Bytes that another process holds at most, beyond its beginning, for an epoch of the file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PASS, str(file)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    result: dict[str, int] = json.loads(output.stdout.splitlines()[-1])
    return result


def large(samples: int, dtype: str) -> Content:
    """A set in the published layout with unaligned lengths, as those of MOSI."""
    generator = np.random.default_rng(0)
    sizes = {"text": (50, 300), "audio": (375, 5), "vision": (500, 20)}
    return {
        split: {
            **{key: generator.random((n, *size)).astype(dtype) for key, size in sizes.items()},
            "labels": generator.uniform(-3, 3, (n, 1, 1)),
        }
        for split, n in (("train", samples), ("valid", samples // 8), ("test", samples // 4))
    }


@pytest.mark.slow
@pytest.mark.parametrize("samples", [400, 2000])
def test_a_run_holds_less_than_twice_its_file(tmp_path: Path, samples: int) -> None:
    file = write(tmp_path, large(samples, "float64"))
    target = tmp_path / "x.safetensors"
    held = peaks(file)
    assert held["samples"] == samples
    assert held["held"] < 2 * file.stat().st_size
    write_stored(read_published(file, "published"), target)
    mapped = peaks(target)
    assert mapped["samples"] == samples
    assert mapped["opened"] < 0.1 * target.stat().st_size
    assert mapped["held"] < 1.2 * target.stat().st_size
