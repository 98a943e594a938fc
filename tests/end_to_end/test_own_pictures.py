"""A folder of somebody's own pictures by the real command line, as it is found in practice."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
import yaml

import equipoise
from equipoise.errors import UserError
from tests.data.images.own_files import COLOURS, add_readable, add_unusable, own_folder
from tests.end_to_end.conftest import SMALL

pytestmark = pytest.mark.end_to_end
SHORT = [*SMALL, "trainer.max_epochs=1", "task.image_size=16", "task.num_workers=0",
         "task.batch_size=64"]  # fmt: skip
QUIET = ["callbacks.report=null", "callbacks.progress=null", "trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred pictures of five classes, and what else lies among them."""
    root = own_folder(tmp_path_factory.mktemp("found") / "own", 40)
    add_readable(root)
    add_unusable(root)
    return root


def test_a_folder_as_it_is_found_trains_and_the_report_lists_what_was_skipped(
    command, tmp_path, found
):
    words = ["task=image_folder", f"task.path={found}", *SHORT, "run_dir=run"]
    refused = command("train.py", *words)
    assert refused.returncode == 2, refused.stderr
    assert f"{found}/lime/cut_off.jpg cannot be used" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "run").exists()

    done = command("train.py", *words, "task.damaged=skip")
    assert done.returncode == 0, done.stderr
    assert "3 of the pictures in" in done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["details"]["pictures"] == {"train": 173, "val": 18, "test": 21, "skipped": 3}
    skipped = [row["picture"] for row in metrics["details"]["skipped_pictures"]]
    places = ["lime/cut_off.jpg", "lime/text.jpg", "plum/gone.png"]
    assert skipped == [str(found / place) for place in places]
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "Skipped pictures" in page
    assert all(place in page for place in skipped)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["task"]["names"] == sorted(COLOURS)
    assert config["model"]["classes"] == config["task"]["classes"] == 5

    again = command("evaluate.py", "ckpt_path=run/checkpoints/best.ckpt", "run_dir=again")
    assert again.returncode == 0, again.stderr
    repeated = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert repeated["test"] == pytest.approx(metrics["test"], rel=1e-5)
    assert repeated["details"]["pictures"] == metrics["details"]["pictures"]


def test_data_of_other_classes_than_a_checkpoint(tmp_path):
    own_folder(tmp_path / "five")
    own_folder(tmp_path / "three", names=("apple", "lime", "sky"))
    own_folder(tmp_path / "some" / "test", 4, ("plum", "apple"))
    words = ("task=image_folder", f"task.path={tmp_path}/five", *SHORT, *QUIET)
    equipoise.run(*words, f"run_dir={tmp_path}/run", "logger=none")
    last = f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt"
    said = r"lacks the class lemon, but task\.names are .* in the checkpoint .*init_from="
    for carried_out in (equipoise.run, equipoise.evaluate):
        with pytest.raises(UserError, match=said):
            carried_out(last, f"task.path={tmp_path}/three", f"run_dir={tmp_path}/next")
    with pytest.raises(
        UserError, match=r"task\.classes=3: the model of the checkpoint .*init_from="
    ):
        equipoise.run(last, "task.classes=3", f"run_dir={tmp_path}/next")
    assert not (tmp_path / "next").exists()
    tested = equipoise.evaluate(last, f"task.path={tmp_path}/some", f"run_dir={tmp_path}/tested")
    assert tested["details"]["pictures"] == {"val": 8, "test": 8}


def test_a_run_that_goes_on_with_other_pictures_says_so(tmp_path):
    root = own_folder(tmp_path / "own")
    run = f"run_dir={tmp_path}/run"
    words = ("task=image_folder", f"task.path={root}", "task.damaged=skip", *SHORT, *QUIET)
    equipoise.run(*words, run)
    last = (f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt", run)
    for name in ("0.jpg", "2.jpg", "4.jpg"):  # one at least was trained on
        (root / "sky" / name).write_text("damaged")
    with pytest.warns(UserWarning, match="of the training pictures can be used, but 32 could"):
        equipoise.run(*last, "trainer.max_epochs=2")
    (root / "sky" / "0.jpg").unlink()
    with pytest.warns(UserWarning, match="are no longer those that the checkpoint was trained on"):
        metrics = equipoise.run(*last, "trainer.max_epochs=3")
    assert metrics["epochs"] == 3


def test_a_table_of_the_hub_by_its_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    files = sorted(own_folder(tmp_path / "own").rglob("*.*"))
    rows = {
        "photo": [{"bytes": file.read_bytes(), "path": None} for file in files],
        "fruit": [file.parent.name for file in files],
    }
    features = datasets.Features({"photo": datasets.Image(), "fruit": datasets.Value("string")})
    (tmp_path / "hub").mkdir()
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(str(tmp_path / "hub" / "train-00000-of-00001.parquet"))
    metrics = equipoise.run(
        "task=image_hub", f"task.path={tmp_path}/hub", "task.image_column=photo",
        "task.label_column=fruit", *SHORT, *QUIET, f"run_dir={tmp_path}/run",
    )  # fmt: skip
    assert metrics["details"]["pictures"] == {"train": 32, "val": 4, "test": 4}


def test_pictures_without_classes_skip_what_is_damaged(tmp_path):
    add_unusable(own_folder(tmp_path / "own"))
    metrics = equipoise.run(
        "task=ssl_folder", f"task.path={tmp_path}/own", "task.damaged=skip", *QUIET, "logger=none",
        "model.encoder.size=tiny", "model.projector=[16,8]", "task.image_size=16",
        "task.batch_size=16", "trainer.max_epochs=1", "task.objective.probe_epochs=1",
        "task.num_workers=0", f"run_dir={tmp_path}/run",
    )  # fmt: skip
    assert metrics["details"]["pictures"]["skipped"] == 3


def test_a_recipe_of_other_classes_than_the_data(tmp_path):
    own_folder(tmp_path / "own", 2)
    recipe = tmp_path / "conf" / "recipe" / "seven.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("# @package _global_\ntask:\n  classes: 7\n")
    words = (
        f"hydra.searchpath=[file://{tmp_path}/conf]", "task=image_folder", "recipe=seven",
        f"task.path={tmp_path}/own", f"run_dir={tmp_path}/run",
    )  # fmt: skip
    said = r"has 5 classes, but task\.classes is 7: set task\.classes=5 .*; recipe=seven sets"
    with pytest.raises(UserError, match=said):
        equipoise.run(*words)
    with pytest.raises(UserError, match=r"task\.classes is 6: set task\.classes=5 [^;]*$"):
        equipoise.run(*words, "task.classes=6")
