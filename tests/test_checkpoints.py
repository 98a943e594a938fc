"""Checkpoints that cannot be used are named in one sentence."""

from pathlib import Path

import pytest
import torch

from equipoise.checkpoints import read_checkpoint, read_stored
from equipoise.errors import UserError
from tests.config.test_stored import content


def test_a_missing_file_is_answered_with_one_that_lies_there(tmp_path):
    torch.save({}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"no checkpoint at .*; did you mean .*last\.ckpt"):
        read_checkpoint(tmp_path / "lost.ckpt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"words"])
def test_a_broken_file_is_called_a_checkpoint_that_cannot_be_read(tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"the checkpoint .* cannot be read"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_a_foreign_file_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="not written by a run of ours"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_what_was_saved_comes_back(tmp_path):
    saved = {"state_dict": {"w": torch.ones(2)}, "config": {"seed": 0}, "choices": {"task": "x"}}
    torch.save(saved, tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["config"] == {"seed": 0}


def test_a_file_is_read_anew_once_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    torch.save(content(), file)
    first = read_stored(file)
    assert read_stored(file) is first
    torch.save(content(global_step=41, more=torch.zeros(10)), file)
    assert read_stored(file).steps == 41
