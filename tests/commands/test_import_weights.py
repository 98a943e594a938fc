"""Published weights become a checkpoint that evaluate.py runs; other files are refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from torchvision.models import resnet18

from equipoise import commands
from equipoise.config.stored import read_checkpoint
from equipoise.errors import UserError
from equipoise.models import MDEQ, ResNet
from equipoise.running.api import evaluate
from tests.data.multimodal.published_writing import WIDTHS, sentiment, write
from tests.interop import published_mult
from tests.interop.published_mdeq import SMALL, configuration, published, small_network
from tests.interop.test_barlow import whole


def files(folder: Path, config: Any, weights: Any, family: str = "mdeq") -> list[str]:
    """Write both files; returns the command's words."""
    (folder / "theirs.yaml").write_text(yaml.safe_dump(config))
    torch.save(weights, folder / "theirs.pth")
    names = ("theirs.pth", "theirs.yaml", "ours.ckpt")
    return ["import-weights", family, *(str(folder / name) for name in names)]


def write_images(folder: Path, count: int = 6) -> None:
    """The train and test tables of a CIFAR-10 with a few images."""
    folder.mkdir()
    for seed, split in enumerate(("train", "test")):
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        images = []
        for image in pixels:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        names = [str(number) for number in range(10)]
        features = {"img": datasets.Image(), "label": datasets.ClassLabel(names=names)}
        columns = {"img": images, "label": [i % 10 for i in range(count)]}
        table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")


@pytest.mark.filterwarnings("ignore:the embeddings are collapsing")
def test_an_encoder_and_its_projector_become_a_checkpoint_of_self_supervised_learning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = whole(resnet18, small=True, bias=False).float()
    words = {"lambd": 0.0051, "dataset": "cifar10"}
    assert commands.run(files(tmp_path, words, {"model": theirs.state_dict()}, "barlow")) == 0
    write_images(tmp_path / "cifar10")
    line = ("ckpt_path=ours.ckpt", "task.path=cifar10", "run_dir=run", "task.batch_size=2",
            "task.objective.probe_epochs=1", "task.objective.neighbours=1")  # fmt: skip
    metrics = evaluate(*line)
    assert metrics["status"] == "completed"
    online_probe = 10 * 512 + 10
    network = sum(p.numel() for p in theirs.parameters())
    assert metrics["parameters"] == network + online_probe
    start = {"image_size": 32, "size": "resnet18", "stem": "small", "backbone_ckpt": "ours.ckpt"}
    other = ResNet(classes=7, **start)  # type: ignore[arg-type]
    assert torch.equal(other.stem[0].weight, theirs["backbone"].conv1.weight)
    last = theirs["backbone"].layer4[1].conv2.weight
    assert torch.equal(other.get_parameter("stages.3.1.conv2.weight"), last)


@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
def test_the_result_runs_in_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = small_network()
    assert commands.run(files(tmp_path, SMALL, {"state_dict": published(theirs)})) == 0
    assert "ours.ckpt" in capsys.readouterr().out
    write_images(tmp_path / "cifar10")
    metrics = evaluate("ckpt_path=ours.ckpt", "task.path=cifar10", "run_dir=run")
    assert metrics["status"] == "completed"
    assert metrics["parameters"] == sum(p.numel() for p in theirs.parameters())
    assert metrics["solver_stats"]["nfe_mean"] <= 8


def test_the_weights_start_another_network(tmp_path: Path) -> None:
    theirs = small_network()
    commands.run(files(tmp_path, SMALL, published(theirs)))
    other = MDEQ(
        nn.Identity(), mask_classes=4, image_size=32, channels=(4, 8), head_channels=(2, 3),
        expansion=2, groups=4, backbone_ckpt=str(tmp_path / "ours.ckpt"),
    )  # fmt: skip
    assert torch.equal(other.stem.layers[0].conv.weight, theirs.stem.layers[0].conv.weight)


def test_segmentation_becomes_a_checkpoint_of_cityscapes(tmp_path: Path) -> None:
    weights = published(small_network(classes=None, mask_classes=19))
    config = {**configuration(), "DATASET": {"DATASET": "cityscapes", "NUM_CLASSES": 19}}
    wrapped = {f"model.{name}": tensor for name, tensor in weights.items()}
    wrapped["loss.criterion.weight"] = torch.ones(19)
    commands.run(files(tmp_path, config, wrapped))
    content = read_checkpoint(tmp_path / "ours.ckpt")
    assert content["choices"]["task"] == "cityscapes"
    assert content["config"]["model"]["batch_norm_momentum"] == 0.01
    assert "model.heads.mask_logits.classifier.weight" in content["state_dict"]


def test_three_streams_become_a_checkpoint_of_their_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    columns = dict(zip(("orig_d_l", "orig_d_a", "orig_d_v"), WIDTHS.values(), strict=True))
    words = {**published_mult.WORDS, **columns, "dataset": "mosi", "d_model": 10, "aonly": False,
             "vonly": False}  # fmt: skip
    weights = published_mult.drawn(words, dtype=torch.float32)
    assert commands.run(files(tmp_path, words, weights, "mult")) == 0
    content = sentiment()
    metrics = evaluate(
        "ckpt_path=ours.ckpt", f"task.path={write(tmp_path, content)}", "run_dir=run"
    )
    arrays = dict(zip(("x_l", "x_a", "x_v"), map(content["test"].get, WIDTHS), strict=True))
    found = published_mult.forward(words, weights, arrays)["out"][:, 0]
    error = np.abs(found.numpy() - content["test"]["labels"].ravel()).mean()
    assert metrics["test"]["mae"] == pytest.approx(error, abs=1e-4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (nn.Linear(2, 2), "holds pickled objects, whose code would run"),
        ([torch.ones(2)], "holds a list, not the mapping of a state dict"),
        ({"state_dict": {"fc.weight": torch.ones(2)}}, "the weights have no head"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, weights: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        commands.run(files(tmp_path, SMALL, weights))
    assert not (tmp_path / "ours.ckpt").exists()


def test_broken_and_missing_files_are_named(tmp_path: Path) -> None:
    words = files(tmp_path, SMALL, published(small_network()))
    whole = Path(words[2]).read_bytes()
    Path(words[2]).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"theirs\.pth cannot be read: truncated"):
        commands.run(words)
    Path(words[2]).unlink()
    with pytest.raises(UserError, match=r"no weights file at .*theirs\.pth"):
        commands.run(words)
    Path(words[3]).write_text("- a\n- list\n")
    with pytest.raises(UserError, match=r"theirs\.yaml is not a yaml mapping"):
        commands.run(words)
    Path(words[3]).write_text("a: [1")
    with pytest.raises(UserError, match=r"theirs\.yaml is not a yaml file"):
        commands.run(words)
    Path(words[3]).unlink()
    with pytest.raises(UserError, match=r"no configuration at .*theirs\.yaml"):
        commands.run(words)


def test_weights_of_another_configuration_are_refused_by_name(tmp_path: Path) -> None:
    words = files(tmp_path, configuration(NUM_CHANNELS=[8, 8]), published(small_network()))
    with pytest.raises(UserError, match=r"theirs\.yaml: the weights do not fit .*of another shape"):
        commands.run(words)
    words = files(tmp_path, configuration(NUM_GROUPS=3), published(small_network()))
    with pytest.raises(UserError, match="cannot be split into 3 groups"):
        commands.run(words)


def test_an_existing_file_is_not_written_over(tmp_path: Path) -> None:
    words = files(tmp_path, SMALL, published(small_network()))
    (tmp_path / "ours.ckpt").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        commands.run(words)
    assert (tmp_path / "ours.ckpt").read_text() == "mine"


def test_an_unknown_family_is_named(tmp_path: Path) -> None:
    words = files(tmp_path, SMALL, {})
    words[1] = "resnet"
    with pytest.raises(UserError, match="no family 'resnet'"):
        commands.run(words)
