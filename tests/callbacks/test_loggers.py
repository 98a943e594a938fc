"""Loggers that go back to a checkpoint: what stays in event files and in W&B's files."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from equipoise.callbacks import CurveTensorBoardLogger
from equipoise.callbacks.loggers import Kept
from equipoise.callbacks.wandb_file import BLOCK, cut_after, records

AN_EPOCH = Kept(steps=10, last=10)
CUT_SHORT = Kept(steps=10, last=8, validated=False)


@pytest.mark.parametrize(
    ("kept", "name", "step", "stays"),
    [
        (AN_EPOCH, "train/loss", 10, True),
        (AN_EPOCH, "train/loss", 11, False),
        (AN_EPOCH, "val/loss", 9, True),
        (AN_EPOCH, "test/loss", 10, False),
        (AN_EPOCH, "report/loss", 5, False),
        (CUT_SHORT, "train/loss", 10, False),
        (CUT_SHORT, "train/loss", 8, True),
        (CUT_SHORT, "val/loss", 9, False),
        (CUT_SHORT, "val/loss", 4, True),
    ],
)
def test_what_stays_is_what_the_resumed_run_does_not_write(
    kept: Kept, name: str, step: int, stays: bool
) -> None:
    assert kept.keeps(name, step) == stays


def board(folder: Path) -> dict[str, list[int]]:
    read = EventAccumulator(str(folder / "board"), purge_orphaned_data=False).Reload()
    return {name: [event.step for event in read.Scalars(name)] for name in read.Tags()["scalars"]}


def test_event_files_go_back_to_the_checkpoint(tmp_path: Path) -> None:
    first = CurveTensorBoardLogger(tmp_path, name="board", version="")
    for step in range(1, 8):
        first.log_metrics({"train/loss": 1.0 / step, "epoch": 0.0}, step)
    first.log_metrics({"val/loss": 0.5, "epoch": 0.0}, 6)
    first.save()
    (file,) = (tmp_path / "board").glob("events*")
    with file.open("ab") as target:
        target.write(b"torn")  # a record that was being written
    second = CurveTensorBoardLogger(tmp_path, name="board", version="")
    second.rewind(Kept(steps=4, last=4))
    second.log_metrics({"train/loss": 0.2, "epoch": 0.0}, 5)
    second.save()
    assert board(tmp_path) == {"train/loss": [1, 2, 3, 4, 5], "epoch": [1, 2, 3, 4, 5]}


def log_file(payloads: list[bytes]) -> bytes:
    """The payloads in LevelDB's log format behind W&B's header."""
    content = bytearray(b":W&B\xe1\xbe\x00")
    for payload in payloads:
        rest, first = payload, True
        while first or rest:
            left = BLOCK - len(content) % BLOCK
            if left < 7:
                content += bytes(left)
                continue
            part, rest = rest[: left - 7], rest[left - 7 :]
            kind = (1 if not rest else 2) if first else (4 if not rest else 3)
            content += struct.pack("<IHB", 0, len(part), kind) + part
            first = False
    return bytes(content)


@pytest.mark.parametrize("seed", range(5))
def test_records_of_any_length_are_read_back(seed: int) -> None:
    draw = random.Random(seed)
    payloads = [draw.randbytes(draw.choice([1, 20, 5000, BLOCK, 90000])) for _ in range(20)]
    content = log_file(payloads)
    read = list(records(content))
    assert [payload for _, payload in read] == payloads
    for number, (begin, _) in enumerate(read):
        assert [payload for _, payload in records(content[:begin])] == payloads[:number]
    torn = content[: len(content) - 1]
    assert [payload for _, payload in records(torn)] == payloads[:-1]


def row(step: int, size: int = 1) -> bytes:
    from wandb.proto import wandb_internal_pb2

    record = wandb_internal_pb2.Record()
    for name, value in (("_step", str(step)), ("text", f'"{"x" * size}"')):
        item = record.history.item.add()
        item.key, item.value_json = name, value
    data: bytes = record.SerializeToString()
    return data


def test_the_history_of_wandb_is_cut_behind_a_step(tmp_path: Path) -> None:
    file = tmp_path / "run.wandb"
    file.write_bytes(log_file([row(step, size=20000) for step in range(2, 20, 2)]))
    assert cut_after(file, 11) == 10
    assert [data for _, data in records(file.read_bytes())] == [
        row(step, size=20000) for step in range(2, 12, 2)
    ]
    before = file.read_bytes()
    assert cut_after(file, 11) == 10
    assert file.read_bytes() == before
    assert cut_after(file, 0) == -1


def test_a_file_that_is_not_wandbs_stays(tmp_path: Path) -> None:
    file = tmp_path / "other"
    file.write_bytes(b"something else")
    assert cut_after(file, 0) == -1
    assert file.read_bytes() == b"something else"
