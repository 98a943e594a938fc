"""Files of weights: each kind is read without running code, and what is none is named."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from equipoise.config.compose import compose, storable
from equipoise.config.exported import write_exported
from equipoise.errors import UserError
from equipoise.running.surroundings import initial_file
from equipoise.running.weight_files import read_weight_file, read_weights, tensors
from tests.interop.published_mdeq import published, small_network

CHOICES = ("task=digits", "model=resnet")


def ours() -> dict[str, Tensor]:
    return {"stem.0.weight": torch.rand(4, 1, 3, 3), "classifier.weight": torch.rand(3, 4)}


def checkpoint(weights: dict[str, Tensor], **state: Any) -> dict[str, Any]:
    """What a run would have saved."""
    composition = compose(CHOICES)
    named = {f"model.{name}": tensor for name, tensor in weights.items()}
    return {
        "state_dict": {**named, "metrics.val.loss.total": torch.zeros(1), "_extra_state": state},
        "config": storable(composition.config), "choices": composition.choices,
        "epoch": 1, "global_step": 3,
    }  # fmt: skip


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in found
    )


def test_a_checkpoint_gives_its_network_its_state_and_its_run(tmp_path: Path) -> None:
    weights = ours()
    torch.save(checkpoint(weights, vocabulary={"unit": "word"}), tmp_path / "last.ckpt")
    file = read_weight_file(tmp_path / "last.ckpt", weights)
    assert same(file.weights, weights)
    assert file.state == {"vocabulary": {"unit": "word"}}
    assert file.run is not None
    assert file.run.choices["task"] == "digits"


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_a_plain_state_dict_and_an_exported_file_have_our_names(
    prefix: str, tmp_path: Path
) -> None:
    weights = ours()
    named = {prefix + name: tensor for name, tensor in weights.items()}
    torch.save(named, tmp_path / "one.pt")
    torch.save({"state_dict": named, "epoch": 3}, tmp_path / "two.pt")
    save_file(named, tmp_path / "model.safetensors")
    for name in ("one.pt", "two.pt", "model.safetensors"):
        assert same(read_weight_file(tmp_path / name, weights).weights, weights)


def test_an_export_gives_what_its_checkpoint_gave(tmp_path: Path) -> None:
    weights, folder = ours(), tmp_path / "out"
    folder.mkdir()
    write_exported(checkpoint(weights, vocabulary={"unit": "word"}), folder, {})
    for path in (folder, folder / "model.safetensors"):
        file = read_weight_file(initial_file(str(path)), weights)
        assert same(file.weights, weights)
        assert file.state == {"vocabulary": {"unit": "word"}}
        assert file.run is not None


def test_a_safetensors_file_of_others_is_read_by_itself(tmp_path: Path) -> None:
    weights = ours()
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architectures": ["Other"]}')
    file = read_weight_file(initial_file(str(tmp_path)), weights)
    assert same(file.weights, weights)
    assert file.run is None


def test_a_published_file_gets_our_names(tmp_path: Path) -> None:
    network = small_network()
    torch.save({"state_dict": published(network)}, tmp_path / "mdeq.pth")
    found = read_weight_file(tmp_path / "mdeq.pth", tensors(network.state_dict()))
    assert found.run is None
    assert same(found.weights, tensors(network.state_dict()))


def test_of_a_folder_the_best_weights_are_meant(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no checkpoints/best\.ckpt or"):
        initial_file(str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        (tmp_path / name).touch()
        assert initial_file(str(tmp_path)) == tmp_path / name
    with pytest.raises(UserError, match="there is no such file or folder"):
        initial_file(str(tmp_path / "none"))


def test_pickled_objects_are_not_unpickled(tmp_path: Path) -> None:
    torch.save(nn.Linear(1, 1), tmp_path / "module.pt")
    with pytest.raises(UserError, match="whose code would run when the file is read"):
        read_weight_file(tmp_path / "module.pt", {})


@pytest.mark.parametrize("name", ["half.pt", "half.safetensors"])
def test_a_truncated_file_is_named(name: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file(ours(), whole) if name.endswith("safetensors") else torch.save(ours(), whole)
    (tmp_path / name).write_bytes(whole.read_bytes()[:200])
    with pytest.raises(UserError, match=r"half\.\w+ cannot be read"):
        read_weight_file(tmp_path / name, {})


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(1000)}, tmp_path / "w.pt")
    content = bytearray((tmp_path / "w.pt").read_bytes())
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        entry = next(info for info in archive.infolist() if info.file_size == 8000)
    content[entry.header_offset + 1000] ^= 1
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"are damaged: the checksum of its entry"):
        read_weights(tmp_path / "w.pt")


def test_a_tensor_alone_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(UserError, match="holds a Tensor, not the mapping of a state dict"):
        read_weight_file(tmp_path / "tensor.pt", {})


@pytest.mark.parametrize("content", [b"epoch 1 of 3", b"a,b\n1,2\n", b"{}", b"\x89PNG", b""])
def test_what_is_no_weights_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"is no weights file|cannot be read"):
        read_weights(file)
