"""Runs and sweeps through Hydra lie in the folders that were asked for, whatever ends them."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig

from equipoise.commands import exit_status, train
from equipoise.commands.train import job
from equipoise.config import hydra
from equipoise.config.compose import CONF
from equipoise.config.stored import read_checkpoint
from equipoise.running.api import checked, composed
from equipoise.running.folders import run_directory

SMALL = [
    "model.channels=[4,4]", "model.head_channels=[2,2]", "model.final_channels=8",
    "model.groups=2", "solver.max_steps=2", "gradient=jfb", "callbacks.report=null",
    "task.eval_batch_size=512", "trainer.max_steps=1", "logger=none",
]  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    return tmp_path


def status_of(*words: str) -> int:
    return exit_status(train.main, words)


def test_a_failing_job_is_named_and_the_others_run(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the folders of the command line, with characters that the grammar reads only in quotes."""
    folders = ["hydra.sweep.dir='a=b é'", "hydra.sweep.subdir='job ${hydra.job.num}'"]
    assert status_of("-m", "optimizer.lr=1e-3,-1,1e-2", *folders, *SMALL) == 1
    assert list(here.iterdir()) == [here / "a=b é"]
    with (here / "a=b é" / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["job 0", "job 1", "job 2"]
    assert [row["status"] for row in rows] == ["completed", "failed", "completed"]
    assert [float(row["optimizer.lr"]) for row in rows] == [1e-3, -1, 1e-2]
    assert "Traceback" in (here / "a=b é" / rows[1]["log"]).read_text()
    assert f"job 1 failed: {rows[1]['error']}" in capsys.readouterr().out
    assert rows[0]["test loss"]


@pytest.mark.slow
def test_a_run_lies_in_the_folder_of_hydra_and_goes_on_there(here: Path) -> None:
    named = "hydra.run.dir='x/${hydra.job.name}, (1)'"
    assert status_of(named, *SMALL) == 0
    folder = here / "x" / "train, (1)"
    checkpoint = folder / "checkpoints" / "last.ckpt"
    assert {"config.yaml", "metrics.json"} <= {path.name for path in folder.iterdir()}
    before = (folder / "config.yaml").stat().st_mtime_ns
    assert status_of(named, *SMALL) == 2
    assert (folder / "config.yaml").stat().st_mtime_ns == before
    typed = f"ckpt_path='{checkpoint.relative_to(here)}'"
    assert status_of(typed, named, "trainer.max_steps=2", "logger=none") == 0
    assert (folder / "config.yaml").stat().st_mtime_ns > before
    assert list(here.iterdir()) == [here / "x"]


@pytest.mark.parametrize("words", [["hydra.run.dir=x"], ["run_dir=x"], []])
def test_a_refused_run_leaves_nothing(
    here: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused after torch was needed, when Hydra had written into the folder already."""
    assert status_of(*words, "trainer.devices=1000") == 2
    assert list(here.iterdir()) == []
    said = capsys.readouterr().err
    assert said.startswith("error: trainer.devices=1000 is too many: this machine has")


@pytest.fixture
def compositions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The overrides of each of Hydra's compositions, with none kept of those before."""
    monkeypatch.setattr(hydra, "_KEPT", {})
    composed: list[Any] = []
    load = ConfigLoaderImpl.load_configuration

    def counting(loader: ConfigLoaderImpl, *args: Any, **settings: Any) -> Any:
        composed.append(settings["overrides"])
        return load(loader, *args, **settings)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counting)
    return composed


@pytest.mark.parametrize(
    ("words", "most"), [([], 3), (["task=cifar10", "task.path=.", "solver.tol=1e-2"], 6)]
)
def test_a_start_composes_once_and_not_again(
    words: list[str], most: int, compositions: list[Any], here: Path
) -> None:
    """Once for each round of choices that a recipe makes, and once for Hydra's own settings."""
    with job(checked(words)):
        assert 1 < len(compositions) <= most


def test_a_run_leaves_hydras_record_without_hydras_main(here: Path) -> None:
    before = HydraConfig.instance().cfg  # of the job that this process ran last, if any
    words = [*SMALL, "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
    named = ["hydra.output_subdir=record", "+hydra.job.env_set.MINE='3'", "hydra.job.name=mine"]
    assert status_of(*words, *named, "hydra.run.dir='x/${hydra.job.name}'") == 0
    folder = here / "x" / "mine"
    assert (folder / "metrics.json").is_file()
    assert yaml.safe_load((folder / "record" / "overrides.yaml").read_text()) == words
    settings = yaml.safe_load((folder / "record" / "hydra.yaml").read_text())["hydra"]
    assert (settings["mode"], settings["run"]["dir"]) == ("RUN", "x/mine")
    assert settings["runtime"]["output_dir"] == str(folder)
    config = yaml.safe_load((folder / "record" / "config.yaml").read_text())
    assert config["solver"]["max_steps"] == 2
    assert "MINE" not in os.environ
    assert HydraConfig.instance().cfg is before


def test_folders_of_ones_own_reach_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra lists the search path among its own overrides, not among the job's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    (tmp_path / "mine" / "task").mkdir(parents=True)
    own = (CONF / "task" / "digits.yaml").read_text().replace("batch_size: 64", "batch_size: 48")
    (tmp_path / "mine" / "task" / "my_digits.yaml").write_text(own)
    short = ["trainer.max_steps=1", "solver.max_steps=2", "trainer.limit_val_batches=1",
             "trainer.limit_test_batches=1", "hydra/job_logging=none"]  # fmt: skip
    found = "hydra.searchpath=[file://mine]"
    assert train.main([found, "task=my_digits", *SMALL, *short, "run_dir=run"]) == 0
    checkpoint = read_checkpoint("run/checkpoints/last.ckpt")
    assert checkpoint["choices"]["task"] == "my_digits"
    assert checkpoint["config"]["task"]["batch_size"] == 48
    path = "ckpt_path=run/checkpoints/last.ckpt"
    for word in (found, "solver.tol=1e-2"):
        again = composed([path, word, *(["optimizer=sgd"] if word == found else [])])
        assert run_directory(again, "train").parts[:3] == ("runs", "my_digits", "mdeq")
