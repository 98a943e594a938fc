"""The programs of examples/ run, in a shortened form."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.io import write_png

import equipoise
from equipoise.equilibrium import Equilibrium

EXAMPLES = Path(__file__).parents[1] / "examples"
OUTER_STEP = re.compile(r"outer step \d+ .*validation ([\d.]+)")
EPOCH = re.compile(r"^epoch \d+  loss ([\d.]+)  test accuracy ([\d.]+)", re.MULTILINE)
REACHED = re.compile(r"^(\w+)(?: +(?:\d+|-)){3} +(\S+)$", re.MULTILINE)
MEDIAN = re.compile(r"median residual (\S+) \(")
ACCURACY = re.compile(r"^(from scratch|fine-tuned): test accuracy ([\d.]+)$", re.MULTILINE)


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """What a program with these arguments prints; it runs in an empty folder."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_the_weight_decay_that_is_found_lowers_the_validation_loss(said: Any) -> None:
    words = "--images 60 --training-steps 3 --outer-steps 3 --evaluations 100"
    printed = said("weight_decay_of_mdeq.py", *words.split())
    first, *_, last = (float(loss) for loss in OUTER_STEP.findall(printed))
    assert last < first
    assert printed.count("\ndecay ") == 5


def test_the_layer_learns_in_a_plain_loop(said: Any) -> None:
    epochs = EPOCH.findall(said("plain_pytorch.py", "--epochs", "2"))
    (first_loss, _), (last_loss, accuracy) = epochs
    assert float(last_loss) < float(first_loss)
    assert float(accuracy) > 0.7


def test_the_study_shows_what_acceleration_saves(said: Any, tmp_path: Path) -> None:
    words = "--steps 4 --images 8 --budget 30 --output study.png"
    printed = said("convergence_study.py", *words.split())
    least = {name: float(residual) for name, residual in REACHED.findall(printed)}
    assert set(least) == {"fixed_point", "anderson", "broyden", "adjoint_broyden"}
    assert 0 < least["anderson"] < least["fixed_point"]
    assert (tmp_path / "study.png").stat().st_size > 5_000


def test_the_cases_of_convergence_are_what_their_titles_say(said: Any, tmp_path: Path) -> None:
    printed = said("convergence_cases.py", "--output", "pictures/cases.png")
    converges, budget, settles, solved = map(float, MEDIAN.findall(printed))
    assert converges < 1e-6
    assert budget > 1e-2
    assert solved < 1e-5 < 1e-2 < settles
    assert 20_000 < (tmp_path / "pictures" / "cases.png").stat().st_size < 150_000


@pytest.mark.slow
def test_a_folder_is_learnt_from_the_weights_of_another_run(said: Any, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, level in (("dark", 60), ("bright", 190)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            noise = torch.randint(-50, 50, (1, 12, 12), generator=generator)
            picture = (level + noise).to(torch.uint8)
            write_png(picture, str(tmp_path / "pictures" / name / f"{number}.png"))
    run = tmp_path / "digits"
    equipoise.run("debug=smoke", "model.size=tiny", f"run_dir={run}")
    words = ["--size", "12", "--channels", "1", "--epochs", "2"]
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    printed = said("finetune_on_a_folder.py", str(tmp_path / "pictures"), checkpoint, *words)
    found = dict(ACCURACY.findall(printed))
    assert set(found) == {"from scratch", "fine-tuned"}
    assert float(found["fine-tuned"]) >= 0.5


def test_the_notebook_runs_and_shows_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    notebook = json.loads((EXAMPLES / "the_layer.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), "the_layer.ipynb", "exec"), names)
    assert isinstance(names["layer"], Equilibrium)
    assert bool(names["layer"].report.converged.all())
    (axes,) = pyplot.figure(1).axes
    assert [line.get_label() for line in axes.lines] == ["fixed_point", "anderson", "broyden"]
    pyplot.close("all")
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert "display_data" in kinds  # the picture is shown where the notebook is only read
