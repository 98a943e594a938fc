"""examples/own_project beside the built wheel, in an environment and a folder of their own."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "examples" / "own_project"
ACCURATE = 0.9
WRITE_PICTURES = """
from pathlib import Path

from stripes import Stripes
from torchvision.io import write_png

data = Stripes()
data.setup("test")
Path("pictures").mkdir()
for row in range(40):
    write_png(data.splits["test"].pixels(row), f"pictures/{row:02}.png")
    print(data.class_names[int(data.splits["test"].labels[row])])
"""


class Environment(NamedTuple):
    """An environment with Equipoise and the project installed, and a folder to work in."""

    bin: Path
    folder: Path

    def run(self, command: str, *words: str) -> str:
        """Run an installed command in the folder; what it printed."""
        hidden = ("PYTHONPATH", "XDG_STATE_HOME")
        environment = {k: v for k, v in os.environ.items() if k not in hidden}
        environment |= {"XDG_STATE_HOME": str(self.folder / "state"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [str(self.bin / command), *words],
            cwd=self.folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels of Equipoise and of the project."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, PROJECT):
        quietly("wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(project))
    return folder


@pytest.fixture(scope="module")
def installed(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment, which sees the libraries of this one but not the clone."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place / "environment", with_pip=False, symlinks=True)
    bin_folder = place / "environment" / "bin"
    files = [str(file) for file in sorted(wheels.glob("*.whl"))]
    quietly("--python", str(bin_folder / "python"), "install", "--no-deps", "--no-index", *files)
    (site,) = (place / "environment" / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    (place / "work").mkdir()
    return Environment(bin_folder, place / "work")


def quietly(*words: str) -> None:
    """Run pip. A .pth file in the folder of another is not read, so a clone stays unseen."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "-q", *words],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PIP_NO_CACHE_DIR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_every_file_of_conf(wheels: Path) -> None:
    (wheel,) = wheels.glob("equipoise-*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("equipoise/")}
    files = [file.relative_to(ROOT).as_posix() for file in (ROOT / "conf").rglob("*.yaml")]
    assert len(files) > 200
    assert {f"equipoise/{file}" for file in files} <= inside


@pytest.mark.slow
@pytest.mark.end_to_end
def test_an_installed_project_trains_evaluates_and_predicts(installed: Environment) -> None:
    where = installed.run("python", "-c", "import equipoise, stripes; print(equipoise.__file__)")
    assert Path(where.strip()).is_relative_to(installed.bin.parent)
    own = ["--config-dir", str(PROJECT / "conf"), "task=stripes", "model=stripe_network"]
    other = ["solver=heavy_ball", "callbacks=[default,slowest]", "run_dir=run"]
    said = installed.run("equipoise-train", *own, *other)
    assert "stripe_network on stripes" in said
    run = installed.folder / "run"
    trained = json.loads((run / "metrics.json").read_text())
    assert trained["test"]["accuracy"] > ACCURATE
    assert trained["solver_stats"]["converged_fraction"] > ACCURATE
    assert len(trained["details"]["slowest_pictures"]) == 3

    checkpoint = "ckpt_path=run/checkpoints/best.ckpt"
    installed.run("equipoise-evaluate", checkpoint, "run_dir=tested")
    tested = json.loads((installed.folder / "tested" / "metrics.json").read_text())
    assert tested["test"] == trained["test"]

    labels = installed.run("python", "-c", WRITE_PICTURES).split()
    installed.run("equipoise", "predict", "run", "pictures", "out.csv")
    rows = list(csv.DictReader((installed.folder / "out.csv").open()))
    hits = sum(row["label"] == label for row, label in zip(rows, labels, strict=True))
    assert hits > ACCURATE * len(labels)


def test_the_example_is_short_enough_to_be_read_at_once() -> None:
    code = [line for file in (PROJECT / "stripes").glob("*.py")
            for line in file.read_text().splitlines() if line.strip()]  # fmt: skip
    assert len(code) < 150
    commands = re.findall(r"^equipoise.*$", (PROJECT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 6
