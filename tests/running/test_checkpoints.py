"""Checkpoint files are whole or absent, and weights of another network are refused by name."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from equipoise.config.stored import read_content
from equipoise.errors import UserError
from equipoise.running.checkpoints import CheckpointFile, CheckpointNotSaved, load_weights

CONTENT = {"state_dict": {"w": torch.arange(40.0)}, "epoch": 3}


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The system refuses to write more: as on a full disk, an OSError in the middle of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_saved_is_read_and_carries_what_every_checkpoint_carries(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    files = CheckpointFile({"config": {"seed": 1}})
    files.save_checkpoint(CONTENT, path)
    read = files.load_checkpoint(path)
    assert torch.equal(read["state_dict"]["w"], CONTENT["state_dict"]["w"])
    assert (read["epoch"], read["config"]) == (3, {"seed": 1})
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_what_is_known_only_then_is_asked_for_at_each_save(tmp_path: Path) -> None:
    names: list[str] = []
    files = CheckpointFile({"config": {}}, lambda: {"class_names": list(names)})
    for count in range(2):
        files.save_checkpoint(CONTENT, tmp_path / f"{count}.ckpt")
        names.append("cat")
    kept = [read_content(tmp_path / f"{count}.ckpt")["class_names"] for count in range(2)]
    assert kept == [[], ["cat"]]


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ({"callbacks": {"Other": {}, "Mine": {"best": np.float64(1)}}}, "because callbacks.Mine"),
        ({"state_dict": {"w": torch.zeros(1), "_extra": Path("x")}}, "because state_dict._extra"),
        ({"Data": {"seen": defaultdict(list)}}, "because Data holds objects of builtins.list, col"),
    ],
)
def test_what_could_not_be_read_again_is_not_saved(
    tmp_path: Path, added: dict[str, Any], said: str
) -> None:
    path = tmp_path / "last.ckpt"
    CheckpointFile().save_checkpoint(CONTENT, path)
    with pytest.raises(CheckpointNotSaved, match=re.escape(said)):
        CheckpointFile().save_checkpoint({**CONTENT, **added}, path)
    assert read_content(path)["epoch"] == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_a_failed_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointNotSaved, match=r"could not be saved: (Not a directory|File exi)"):
        CheckpointFile().save_checkpoint(CONTENT, tmp_path / "file" / "last.ckpt")


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    CheckpointFile().save_checkpoint(CONTENT, path)
    before = path.read_bytes()
    large = {"state_dict": {"w": torch.zeros(100_000)}}
    with (
        files_no_larger_than(50_000),
        pytest.raises(CheckpointNotSaved, match=r"could not be saved: File too large; free space"),
    ):
        CheckpointFile().save_checkpoint(large, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_device_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """/dev/full takes no byte: the system itself says ENOSPC."""
    path = tmp_path / "last.ckpt"
    CheckpointFile().save_checkpoint(CONTENT, path)
    before = path.read_bytes()
    (tmp_path / "last.ckpt.partial").symlink_to("/dev/full")
    with pytest.raises(CheckpointNotSaved, match="could not be saved: No space left on device"):
        CheckpointFile().save_checkpoint(CONTENT, path)
    assert path.read_bytes() == before


@contextmanager
def without_rights() -> Iterator[None]:
    """As somebody else than root, whom no permission stops."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_that_may_not_be_written_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    CheckpointFile().save_checkpoint(CONTENT, path)
    before = path.read_bytes()
    tmp_path.chmod(0o555)
    with (
        without_rights(),
        pytest.raises(CheckpointNotSaved, match="could not be saved: Permission denied"),
    ):
        CheckpointFile().save_checkpoint(CONTENT, path)
    tmp_path.chmod(0o755)
    assert path.read_bytes() == before


def test_a_refused_rename_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(CheckpointNotSaved, match=r"last\.ckpt could not be saved: Permission den"):
        CheckpointFile().save_checkpoint(CONTENT, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_bit_that_flips_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    CheckpointFile().save_checkpoint(CONTENT, path)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            read = read_content(path)
        except UserError:
            refused += 1
        else:
            assert torch.equal(read["state_dict"]["w"], CONTENT["state_dict"]["w"])
            assert read["epoch"] == 3
    assert refused > 100


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, part: float) -> None:
    path = tmp_path / "last.ckpt"
    CheckpointFile().save_checkpoint(CONTENT, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match=r"cannot be read \(truncated"):
        read_content(path)


SAVES = """
import sys, torch
from pathlib import Path
from equipoise.running.checkpoints import CheckpointFile
for number in range(10**6):
    content = {"state_dict": {"w": torch.full((2_000_000,), float(number))}, "epoch": number}
    CheckpointFile().save_checkpoint(content, Path(sys.argv[1]))
    print(number, flush=True)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    for attempt in range(20):
        program = [sys.executable, "-c", SAVES, str(path)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.003 * attempt)
            process.send_signal(signal.SIGKILL)
        content = read_content(path)
        assert (content["state_dict"]["w"] == content["epoch"]).all()


class OneLayer(LightningModule):
    """A network of one layer."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(2, width)


def test_weights_of_another_size_are_refused_by_name_and_shapes() -> None:
    with pytest.raises(
        UserError, match=r"layer\.weight \(\[5, 2\] there, \[3, 2\] here\)"
    ) as error:
        load_weights(OneLayer(), OneLayer(width=5).state_dict())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["layer.weight", "other.weight"])
def test_missing_and_further_weights_are_refused_by_name(name: str) -> None:
    state = OneLayer().state_dict()
    if name in state:
        del state[name]
    else:
        state[name] = torch.zeros(3)
    with pytest.raises(UserError, match=f"another network, which differs at {name}"):
        load_weights(OneLayer(), state)


def test_counters_of_random_numbers_may_differ_and_weights_arrive() -> None:
    source, target = OneLayer(), OneLayer()
    load_weights(target, {**source.state_dict(), "layer._extra_state": torch.tensor(3)})
    torch.testing.assert_close(target.layer.weight, source.layer.weight)
