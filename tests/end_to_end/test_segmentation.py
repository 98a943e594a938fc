"""Segmentation by the real command line: what a run leaves, and what is refused at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from tests.data.images.segmentation_files import blocks, noise, plain_folder, street_folder, write
from tests.end_to_end.conftest import SMALL

pytestmark = pytest.mark.end_to_end
SHORT = [*SMALL, "model=mdeq", "model.size=tiny", "trainer.max_epochs=1", "run_dir=run"]


def test_scenes_leave_overlays_and_a_table_of_classes(command, tmp_path):
    done = command("train.py", "task=digit_scenes", "task.train_scenes=32", *SHORT)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 < metrics["test"]["miou"] < 1
    assert list(metrics["details"]["iou_per_class"])[:2] == ["background", "digit 0"]
    assert (tmp_path / "run" / "report" / "masks.png").is_file()
    assert "IoU per class" in (tmp_path / "run" / "report" / "index.html").read_text()


@pytest.mark.slow
def test_one_model_for_digits_and_scenes(command, tmp_path):
    done = command("train.py", "task=digits_and_scenes", "task.train_scenes=32", *SHORT)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics["test"]) == {"loss", "accuracy", "miou", "score"}
    again = command("evaluate.py", "ckpt_path=run/checkpoints/best.ckpt", "run_dir=again")
    assert again.returncode == 0, again.stderr
    repeated = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert repeated["test"] == pytest.approx(metrics["test"], rel=1e-5)


@pytest.mark.slow
def test_streets_in_the_published_layout(command, tmp_path):
    street_folder(tmp_path / "streets")
    done = command(
        "train.py", "task=cityscapes", "task.path=streets", "task.crop=[32,64]",
        "task.num_workers=0", "task.batch_size=2", *SHORT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    values = metrics["details"]["iou_per_class"]
    assert len(values) == 19
    assert values["wall"] is None


@pytest.mark.slow
def test_classes_of_a_folder_are_counted_before_the_model_is_built(command, tmp_path):
    plain_folder(tmp_path / "own")
    words = ["task=segmentation_folder", "task.path=own", "task.crop=[32,32]", *SHORT]
    done = command("train.py", *words)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["task"]["mask_classes"] == config["model"]["mask_classes"] == 3
    again = command("evaluate.py", "ckpt_path=run/checkpoints/best.ckpt", "run_dir=again")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=cityscapes"], "Cityscapes must be downloaded"),
        (["task=cityscapes", "task.path=own"], "has no images leftImg8bit"),
        (["task=segmentation_folder", "task.path=own", "task.crop=[31,32]"], "multiples of"),
        (
            ["task=segmentation_folder", "task.path=own", "task.pad_multiple=2"],
            "task.pad_multiple=2 leaves whole images",
        ),
        (["task=segmentation_folder", "task.path=nowhere"], "There is no file or folder nowhere"),
        (["task=segmentation_folder", "task.path=mixed"], "1.png is 20 pixels wide"),
        (["task=digit_scenes", "model=resnet"], "models for this task: mdeq"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(command, tmp_path, words, said):
    plain_folder(tmp_path / "own", 4)
    plain_folder(tmp_path / "mixed", 4)
    write(blocks(1, (0, 1), width=20), tmp_path / "mixed" / "masks" / "1.png")
    done = command("train.py", *words, "run_dir=run", "trainer.max_epochs=1")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_image_that_is_found_damaged_in_training_is_named(command, tmp_path):
    plain_folder(tmp_path / "own", 8)
    for file in (tmp_path / "own" / "images").iterdir():
        noise(1).save(file, "PNG")
        file.write_bytes(file.read_bytes()[:1500])
    words = ["task=segmentation_folder", "task.path=own", "task.crop=[32,32]", *SHORT]
    done = command("train.py", *words, "task.mask_classes=3")
    assert done.returncode == 2
    assert ".jpg cannot be decoded" in done.stderr
    assert "Traceback" not in done.stderr
