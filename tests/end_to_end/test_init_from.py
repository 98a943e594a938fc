"""Runs that start from weights of others: through the command line, resumed, and to what avail."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from equipoise.data import Digits
from equipoise.running.api import build, run
from tests.end_to_end.resuming import NETWORK, checkpoint, curve, differences, resumed

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
]
QUIET = ("callbacks.report=null", "trainer.limit_test_batches=1", "trainer.log_every_n_steps=1")
DIGITS = ("task=digits", *NETWORK, "task.batch_size=300")
STILL = ("optimizer.lr=0", "schedule=constant", "trainer.max_steps=2")
KEPT = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "init_from")
CLASSES = (5, 6, 7, 8, 9)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on the digits."""
    folder = tmp_path_factory.mktemp("source") / "run"
    run(*DIGITS, *QUIET, "trainer.max_steps=3", f"run_dir={folder}")
    return folder


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    """Those of the network in the last checkpoint, without running statistics."""
    state = checkpoint(folder)["state_dict"]
    named = {n.removeprefix("model."): t for n, t in state.items() if n.startswith("model.")}
    return {n: t for n, t in named.items() if "running" not in n and "tracked" not in n}


def test_the_command_says_what_it_takes_and_keeps_it(
    command: Any, source: Path, tmp_path: Path
) -> None:
    words = ("task=digit_scenes", *NETWORK, "task.train_scenes=8", "task.batch_size=4",
             "task.canvas=16", "trainer.limit_val_batches=1", *QUIET[1:], *STILL)  # fmt: skip
    done = command("train.py", *words, f"init_from={source}", "run_dir=tuned")
    assert done.returncode == 0, done.stderr
    told = (r"starts from \S+last\.ckpt: it gives 8,632 of the 8,712 parameters asked of it\n"
            r"  taken       stem: .*\n  taken       cell: .*\n"
            r"  left as new heads\.mask_logits: .*\n"
            r"(  not fitting stem\.projection\S* missing there, .*\n){5}"
            r"  only there  heads \(\d+\)\n")  # fmt: skip
    assert re.search(told, done.stdout), done.stdout
    report = json.loads((tmp_path / "tuned/metrics.json").read_text())["details"]["init_from"]
    assert report["parameters"] == sum(row["parameters"] for row in report["taken"])
    assert report["left"][0]["part"] == "heads.mask_logits"
    page = (tmp_path / "tuned" / "report" / "index.html").read_text()
    assert "Init from: taken" in page
    config = yaml.safe_load((tmp_path / "tuned" / "config.yaml").read_text())
    assert config["init_from"] == {"path": str(source), "parts": None}


def test_all_but_what_was_taken_is_as_without_it(source: Path, tmp_path: Path) -> None:
    """The same draws of heads, the same order of the samples."""
    plain, tuned = tmp_path / "plain", tmp_path / "tuned"
    for folder, words in ((plain, ()), (tuned, (f"init_from={source}",))):
        run(*DIGITS, *QUIET, *STILL, "seed=0", *words, f"run_dir={folder}")
    drawn, taken, theirs = parameters(plain), parameters(tuned), parameters(source)
    for name, tensor in taken.items():
        assert torch.equal(tensor, (drawn if name.startswith("heads.") else theirs)[name]), name
    positions = [checkpoint(folder)["training_position"] for folder in (plain, tuned)]
    assert positions[0]["epoch"] == positions[1]["epoch"]
    network = build(*DIGITS, f"init_from={source}").state_dict()
    assert all(torch.equal(tensor, network[name]) for name, tensor in taken.items())


def test_a_resumed_run_needs_the_weights_no_more(source: Path, tmp_path: Path) -> None:
    moved = tmp_path / "source"
    shutil.copytree(source, moved)
    words = (*DIGITS, *QUIET, "schedule=constant", "trainer.max_epochs=-1")
    start = (f"init_from={moved}/checkpoints/last.ckpt", "init_from.parts=[cell]")
    whole, part = tmp_path / "whole", tmp_path / "part"
    run(*words, *start, "trainer.max_steps=4", f"run_dir={whole}")
    run(*words, *start, "trainer.max_steps=2", f"run_dir={part}")
    shutil.rmtree(moved)
    metrics = resumed(part, "trainer.max_steps=4")
    for key in KEPT:
        assert differences(checkpoint(part).get(key), checkpoint(whole).get(key), key) == []
    assert curve(part) == curve(whole)
    assert metrics["details"]["init_from"]["taken"][0]["part"] == "cell"
    assert yaml.safe_load((part / "config.yaml").read_text())["init_from"]["parts"] == ["cell"]


def test_a_file_that_is_not_there_is_said_at_once(command: Any, tmp_path: Path) -> None:
    done = command("train.py", "init_from=runs/none", "run_dir=run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: init_from=runs/none: there is no such file or folder")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("of", "words", "part"),
    [
        ("task=ssl_digits", ("task=digits", "model=resnet", "model.size=tiny"), "stages"),
        ("task=python_docs", ("task=python_docs", "model=transformer", "model.layers=1"),
         "network"),
    ],
)  # fmt: skip
def test_an_encoder_or_a_network_inside_of_another_one_is_found(
    of: str, words: tuple[str, ...], part: str, tmp_path: Path
) -> None:
    sizes = {
        "task=ssl_digits": ("model.encoder.size=tiny", "model.projector=[16,8]",
                            "task.batch_size=400", "task.bank_size=50",
                            "task.objective.probe_epochs=1"),
        "task=python_docs": ("model.width=16", "model.inner_width=32", "model.heads=2",
                             "solver.max_steps=3", "trainer.limit_val_batches=1"),
    }[of]  # fmt: skip
    run(of, *sizes, *QUIET, "trainer.max_steps=1", f"run_dir={tmp_path}/source")
    shared = [word for word in sizes if word.startswith("model.") and "docs" in of]
    found = run(*words, *shared, *QUIET, "trainer.max_steps=1", "trainer.limit_val_batches=1",
                f"init_from={tmp_path}/source", f"run_dir={tmp_path}/tuned")  # fmt: skip
    report = found["details"]["init_from"]
    assert part in {row["part"] for row in report["taken"]}
    assert report["unfit"] == []
    assert report["parameters"] == report["parameters_wanted"]


def write_pictures(folder: Path) -> None:
    """Five classes of digits that a run of seed 0 is not trained on, as 8x8 PNG files.

    Those of its test split are here for training, those of its validation for validation.
    """
    data = Digits(seed=0)
    for split, name in (("test", "train"), ("val", "val")):
        images = data.read_split(split)  # type: ignore[arg-type]
        for number, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
            if int(label) in CLASSES:
                file = folder / name / str(int(label)) / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                grey = (pixels[0].numpy().astype(np.float64) * 255 / 16).round().astype(np.uint8)
                Image.fromarray(grey).save(file)


def accuracies(folder: Path) -> list[float]:
    """The validation accuracy after each epoch."""
    with (folder / "metrics.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [float(row["val/accuracy"]) for row in rows if row.get("val/accuracy")]


@pytest.mark.slow
def test_three_epochs_from_digits_reach_what_takes_six_from_scratch(tmp_path: Path) -> None:
    run("task=digits", "trainer.max_epochs=8", *QUIET, f"run_dir={tmp_path}/digits")
    write_pictures(tmp_path / "pictures")
    words = ("task=image_folder", f"task.path={tmp_path}/pictures", "task.image_size=8",
             "task.image_channels=1", "task.augment=false", "task.num_workers=0",
             *QUIET)  # fmt: skip
    start = (f"init_from={tmp_path}/digits", "trainer.max_epochs=3")
    run(*words, *start, f"run_dir={tmp_path}/tuned")
    run(*words, "trainer.max_epochs=6", f"run_dir={tmp_path}/scratch")
    tuned, scratch = accuracies(tmp_path / "tuned"), accuracies(tmp_path / "scratch")
    assert tuned[-1] > max(scratch[:5])
