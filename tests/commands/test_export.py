"""`export` of a real run: the weights are read back, and the programs are run as the card says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard
from torch import Tensor

import equipoise
from equipoise import commands
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.errors import UserError
from equipoise.running.api import evaluate, run

SMALL = [
    "model.channels=[8,8]", "model.head_channels=[2,4]", "model.final_channels=16",
    "model.groups=4", "solver.max_steps=20", "solver.tol=0.01",
]  # fmt: skip
STEPS = 3
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on digits."""
    folder = tmp_path_factory.mktemp("export") / "run"
    run("debug=smoke", f"run_dir={folder}", "logger=none", *SMALL)
    return folder


def export(*words: Any) -> int:
    return commands.run(["export", *map(str, words)])


def images(count: int) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))


@torch.no_grad()
def eager(trained: Path, image: Tensor, steps: int = STEPS) -> Tensor:
    """The logits of the network itself, whose solver spends the same budget on every sample."""
    network = equipoise.build(
        f"ckpt_path={trained / 'checkpoints' / 'best.ckpt'}",
        f"solver.max_steps={steps}",
        "solver.tol=0",
    ).eval()
    logits: Tensor = network(image)
    (layer,) = equilibrium_layers(network).values()
    assert layer.report.nfe == steps
    return logits


def test_weights_give_the_bits_of_the_run(trained: Path, tmp_path: Path) -> None:
    assert export(trained, tmp_path / "out", "licence=mit", "name=small digits") == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "model.safetensors", "config.json", "README.md", "metrics.json"
    }  # fmt: skip
    ours, read = equipoise.load(trained), equipoise.load(tmp_path / "out")
    pictures = torch.randint(0, 256, (4, 8, 8), dtype=torch.uint8)
    assert torch.equal(read.predict(pictures).probabilities, ours.predict(pictures).probabilities)
    assert read.class_names == [str(digit) for digit in range(10)]
    assert read.config == ours.config
    tested = evaluate(f"ckpt_path={tmp_path / 'out'}", f"run_dir={tmp_path / 'tested'}")
    assert tested["test"] == json.loads((trained / "metrics.json").read_text())["test"]


def test_the_card_tells_of_the_run(trained: Path, tmp_path: Path) -> None:
    export(trained, tmp_path / "out", "licence=mit", "name=small digits")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    accuracy = json.loads((trained / "metrics.json").read_text())["test"]["accuracy"]
    figures = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert figures["accuracy"] == accuracy
    assert card.data.license == "mit"
    assert "# small digits" in card.text
    assert "Licence of the data: CC BY 4.0" in card.text
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["preprocessing"]["mean"] == [0.3053]
    assert config["choices"]["model"] == "mdeq"


def test_figures_of_another_checkpoint_are_not_claimed(trained: Path, tmp_path: Path) -> None:
    export(trained / "checkpoints" / "last.ckpt", tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert ModelCard.load(tmp_path / "out" / "README.md").data.eval_results is None


def test_plain_torch_loads_the_weights_as_the_card_says(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(trained, tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    variables: dict[str, Any] = {}
    exec(code_of(tmp_path / "out")[1], variables)
    network = equipoise.load(trained).network
    assert set(variables["weights"]) == set(network.state_dict())


@pytest.mark.parametrize("kind", [pytest.param("torch_export", marks=pytest.mark.slow), "onnx"])
def test_a_program_gives_the_logits_of_the_network_at_its_budget(
    kind: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "out"
    assert export(trained, folder, f"format={kind}", f"steps={STEPS}") == 0
    said = capsys.readouterr().out
    assert f"{STEPS} evaluations of f for every sample, whatever its residual" in said
    found = program(folder, kind)
    for count in (1, 2, 5):
        assert (found(images(count)) - eager(trained, images(count))).abs().max() < 1e-5
    monkeypatch.chdir(folder)
    variables: dict[str, Any] = {}
    exec(code_of(folder)[0], variables)
    expected = eager(trained, torch.zeros(4, 1, 8, 8))
    assert np.abs(np.asarray(variables["logits"]) - expected.numpy()).max() < 1e-5
    told = json.loads((folder / "config.json").read_text())
    assert told["program"]["evaluations"] == {"equilibrium": STEPS}
    (file,) = (file for file in folder.iterdir() if file.suffix in (".pt2", ".onnx"))
    assert str(Path(equipoise.__file__).parent).encode() not in file.read_bytes()


def program(folder: Path, kind: str) -> Any:
    """The written program, as images -> logits."""
    if kind == "torch_export":
        module = torch.export.load(folder / "model.pt2").module()
        return lambda image: module(image)[0]
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (given,), (output,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[1:]) == ("image", [1, 8, 8])
    assert isinstance(given.shape[0], str)  # any number of samples
    assert output.name == "logits"
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def code_of(folder: Path) -> list[str]:
    return PYTHON.findall((folder / "README.md").read_text())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["out", "format=onxx"], "no format=onxx; did you mean onnx?"),
        (["out", "steps=5"], "steps is the budget of a program"),
        (["out", "format=onnx", "steps=0"], "at least one evaluation"),
        (["out", "format=onnx", "steps=many"], "steps=many is not of the default's type"),
        (["out", "licens=mit"], "did you mean licence?"),
        (["out", "licence=blah"], "the hub has no licence=blah; did you mean"),
        (["out", "licence=apache2"], "no licence=apache2; did you mean apache-2.0?"),
        ([], "name the run or checkpoint and one folder"),
        (["out", "more"], "name the run or checkpoint and one folder"),
        (["full"], "exists: name another folder, or replace its files with overwrite"),
        (["full/file"], "exists"),
        (["full/file/out"], "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_told_and_leaves_nothing(
    words: list[str], said: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match=re.escape(said)):
        export(trained, *words)
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "file"]


def test_files_are_replaced_where_that_is_asked_for(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("old")
    (tmp_path / "out" / "kept.txt").write_text("of the user")
    assert export(trained, tmp_path / "out", "overwrite") == 0
    assert "digits" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "kept.txt").read_text() == "of the user"


def test_a_run_is_not_written_over(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 0")
    with pytest.raises(UserError, match="is the folder of a run: name another one"):
        export(trained, tmp_path / "run", "overwrite")
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "config.yaml"]


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no checkpoints/best\.ckpt"):
        export(tmp_path, tmp_path / "out")
