"""A project outside the repository: every group has a choice of its own, in plain PyTorch words."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import equipoise
from equipoise.commands import evaluate, exit_status, train

PACKAGE = """
import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from equipoise.equilibrium import FixedPoint


class Net(nn.Module):
    def __init__(self, equilibrium, width: int = 8):
        super().__init__()
        self.equilibrium = equilibrium
        self.inward = nn.Linear(4, width)
        self.recurrent = nn.Linear(width, width)
        self.outward = nn.Linear(width, 1)
        nn.init.orthogonal_(self.recurrent.weight, gain=0.5)

    def forward(self, x):
        x = self.inward(x)
        z = self.equilibrium(self.step, torch.zeros_like(x), x)
        return self.outward(z)

    def step(self, z, x):
        return torch.tanh(self.recurrent(z) + x)


class Regression(pl.LightningModule):
    def __init__(self, model, make_optimizer, schedule, power: float = 2.0):
        super().__init__()
        self.model, self.make_optimizer, self.schedule = model, make_optimizer, schedule
        self.power = power

    def loss(self, batch):
        x, y = batch
        return (self.model(x) - y).abs().pow(self.power).mean()

    def training_step(self, batch, index):
        return self.loss(batch)

    def validation_step(self, batch, index):
        self.log("val/loss", self.loss(batch))

    def test_step(self, batch, index):
        self.log("test/loss", self.loss(batch))

    def configure_optimizers(self):
        optimizer = self.make_optimizer(self.parameters())
        steps = int(self.trainer.estimated_stepping_batches)
        how = {"scheduler": self.schedule(optimizer, steps), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": how}


class Sums(pl.LightningDataModule):
    def __init__(self, samples: int = 32, batch_size: int = 16):
        super().__init__()
        self.samples, self.batch_size = samples, batch_size

    def loader(self):
        x = torch.randn(self.samples, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), self.batch_size)

    train_dataloader = val_dataloader = test_dataloader = loader


class Picard(FixedPoint):
    pass


class Straight:
    name, own_iteration = "straight", False

    def attach(self, f, solution, z0, *inputs):
        return f(solution.z.detach(), *inputs)


class Halved:
    def __init__(self, at: float = 0.5):
        self.at = at

    def __call__(self, optimizer, steps):
        return LambdaLR(optimizer, lambda step: 0.5 if step > self.at * steps else 1.0)


class Adam(torch.optim.Adam):
    def __init__(self, params, lr: float = 1e-3, **others):
        super().__init__(params, lr, **others)


class Counter(pl.Callback):
    def __init__(self, unlucky: int = -1):
        self.unlucky, self.batches = unlucky, 0

    def on_train_batch_end(self, *_):
        self.batches += 1
        if self.batches == self.unlucky:
            raise RuntimeError("this one\\nis unlucky")

    def summary(self):
        return {"counted_batches": self.batches}


class Console(DummyLogger):
    def __init__(self, prefix: str = ""):
        super().__init__()
        self.prefix = prefix

    def log_metrics(self, metrics, step=None):
        print(self.prefix, step, *sorted(metrics))
"""
CONF = {
    "task/sums": """
        # Sums of four numbers
        _target_: own_parts.Sums
        about: { gives: numbers, wants: number }
        samples: 32
        batch_size: 16
        monitor: val/loss
        monitor_mode: min
        objective: { _target_: own_parts.Regression, power: 2.0 }
        """,
    "model/net": """
        # A small network of numbers
        _target_: own_parts.Net
        about: { takes: numbers, gives: [number], limits: { width: [2, 64] } }
        width: 8
        """,
    "recipe/sums_net": """
        # @package _global_
        # Two epochs
        trainer: { max_epochs: 2 }
        recipe:
          solver:
            picard: { max_steps: 25 }
        """,
    "solver/picard": """
        # Picard
        defaults: [_common, _self_]
        _target_: own_parts.Picard
        damping: 1.0
        """,
    "gradient/straight": "_target_: own_parts.Straight",
    "schedule/halved": "{ _target_: own_parts.Halved, at: 0.5 }",
    "optimizer/mine": "{ _target_: own_parts.Adam, _partial_: true, lr: 1.0e-3 }",
    "callbacks/mine": "mine: { _target_: own_parts.Counter, unlucky: -1 }",
    "logger/console": 'console: { _target_: own_parts.Console, prefix: ">" }',
    "trainer/short": "defaults: [default]\nlog_every_n_steps: 1",
    "experiment/narrow": """
        # @package _global_
        # A narrow network
        defaults:
          - override /model: net
          - override /task: sums
          - override /gradient: straight
        model: { width: 6 }
        """,
    "sweep/widths": """
        # @package _global_
        sweep:
          grid: { model.width: [4, 6] }
        """,
}  # fmt: skip
OWN = ["--config-dir", "own", "task=sums", "model=net"]
EVERY_GROUP = [
    "solver=picard", "gradient=straight", "schedule=halved", "optimizer=mine", "trainer=short",
    "callbacks=[default,mine]", "logger=[csv,console]",
]  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of a project with a package and choices of its own."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "own_parts").mkdir()
    (folder / "own_parts" / "__init__.py").write_text(PACKAGE)
    for name, text in CONF.items():
        file = folder / "own" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        indent = " " * (len(text) - len(text.lstrip("\n ")) - 1) if text[0] == "\n" else ""
        file.write_text(text.replace(f"\n{indent}", "\n").lstrip("\n"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(folder))])
        patch.setattr(sys, "argv", ["equipoise-train"])
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def run(project: Path) -> dict[str, Any]:
    """The metrics of a training with a choice of one's own in every group."""
    assert exit_status(train.main, [*OWN, *EVERY_GROUP, "run_dir=run"]) == 0
    return json.loads(Path("run/metrics.json").read_text())


def test_every_group_takes_a_choice_of_ones_own(run: dict[str, Any]) -> None:
    assert (run["task"], run["model"], run["solver"]) == ("sums", "net", "picard")
    assert run["status"] == "completed"
    assert set(run["test"]) == {"loss"}
    assert run["details"]["counted_batches"] == 4
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["solver"]["max_steps"] == 25
    assert config["optimizer"]["_target_"] == "own_parts.Adam"
    assert Path("run/metrics.csv").read_text().count("straight") >= 4


def test_folders_and_packages_are_recorded_in_it(run: dict[str, Any], project: Path) -> None:
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["own_code"] == {
        "packages": ["own_parts"],
        "config_folders": [f"file://{project}/own"],
        "import_folders": [str(project)],
    }


def test_evaluating_it_needs_no_words_repeated(
    run: dict[str, Any], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # from anywhere
    best = project / "run" / "checkpoints" / "best.ckpt"
    words = [f"ckpt_path={best}", "gradient=straight", "run_dir=tested"]
    assert exit_status(evaluate.main, words) == 0
    tested = json.loads((tmp_path / "tested" / "metrics.json").read_text())
    assert tested["test"] == run["test"]
    assert equipoise.load(str(best)).config["task"]["_target_"] == "own_parts.Sums"


def test_nor_does_resuming(run: dict[str, Any]) -> None:
    last = "ckpt_path=run/checkpoints/last.ckpt"
    words = [last, "trainer.max_epochs=3", "optimizer=mine", "optimizer.eps=1e-7",
             "+callbacks.two._target_=own_parts.Counter"]  # fmt: skip
    assert exit_status(train.main, [*words, "run_dir=resumed"]) == 0
    resumed = json.loads(Path("resumed/metrics.json").read_text())
    assert (resumed["epochs"], resumed["details"]["counted_batches"]) == (3, 2)
    stored = torch.load("resumed/checkpoints/last.ckpt", weights_only=True)
    assert stored["own_code"]["packages"] == ["own_parts"]
    assert stored["optimizer_states"][0]["param_groups"][0]["eps"] == 1e-7


@pytest.mark.parametrize("tampered", [False, True])
def test_a_checkpoint_of_somebody_else_gets_to_import_nothing(
    tampered: bool,
    run: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree("run", tmp_path / "theirs")  # config.yaml and all
    file = tmp_path / "theirs" / "checkpoints" / "best.ckpt"
    if tampered:
        content = torch.load(file, weights_only=True)
        content["config"]["model"]["width"] += 1
        torch.save(content, file)
    else:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # another user's
    words = [f"ckpt_path={file}", f"run_dir={tmp_path}/tested"]
    assert exit_status(evaluate.main, words) == 2
    assert "if you trust it, set trust=[own_parts]" in capsys.readouterr().err
    if not tampered:
        named = ["hydra.searchpath=[file://own]", "trust=[own_parts]"]
        assert exit_status(evaluate.main, [*words, *named]) == 0


def test_a_class_typed_with_it_is_trusted_and_no_other(
    run: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    words = ["ckpt_path=run/checkpoints/best.ckpt", "callbacks.mine._target_=own_parts.Counter"]
    assert exit_status(evaluate.main, words) == 2
    assert re.search(r"names own_parts\.(?!Counter)\w+, which is not", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model.widht=3"], "did you mean model.width?"),
        (["model.width=wide"], "model.width=wide must be a whole number"),
        (["model.width=65"], "must be at least 2 and at most 64"),
        (["task.objective.powr=1"], "did you mean task.objective.power?"),
        (["solver=picrad"], "did you mean picard?"),
        (["model=resnet"], "models for this task: net;"),
        (["callbacks=[default,mine]", "callbacks.mine.unluky=2"], "mean callbacks.mine.unlucky?"),
    ],
)
def test_keys_are_checked_as_ours_are(
    words: list[str], sentence: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(train.main, [*OWN, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_the_help_shows_choices_of_ones_own_beside_ours(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(train.main, ["--config-dir", "own", "--help"]) == 0
    page = capsys.readouterr().out
    assert re.search(r"^ \+ net +A small network of numbers$", page, re.MULTILINE)
    assert re.search(r"^ \* mdeq ", page, re.MULTILINE)
    assert f"Choices marked + are from {project}/own." in page


def test_an_error_in_a_step_of_ones_own_is_one_sentence_with_its_line(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--config-dir", "own", "experiment=narrow", "callbacks=[default,mine]",
             "callbacks.mine.unlucky=2"]  # fmt: skip
    assert exit_status(train.main, [*words, "run_dir=failed"]) == 1
    line = 1 + PACKAGE.splitlines().index('            raise RuntimeError("this one\\nis unlucky")')
    said = capsys.readouterr().err.splitlines()
    where = f"own_parts/__init__.py, line {line}"
    assert said[-1] == f"error: the run cannot continue: {where}: RuntimeError: this one is unlucky"
    assert json.loads(Path("failed/metrics.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("text", "target", "sentence"),
    [
        ("x = 1\nimport nothing_of_the_kind", "Mine", "line 2: ModuleNotFoundError: No module"),
        ("x = 1\n\ndef f(:", "Mine", "line 3: SyntaxError: invalid syntax"),
        ("x = y", "Mine", "line 1: NameError: name 'y' is not defined"),
        ("class Minor: ...", "Mine", "has no Mine; did you mean Minor?"),
        ("class Mine:\n    def __init__(self):\n        self.x = 1 / 0", "Mine",
         "line 3: ZeroDivisionError: division by zero"),
        ("class Mine:\n    def __init__(self, x): ...", "Mine",
         "Mine needs 'x': add +callbacks.mine.x=<value>"),
    ],
)  # fmt: skip
def test_an_error_in_a_module_of_ones_own_is_one_sentence_with_its_line(
    text: str,
    target: str,
    sentence: str,
    project: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = f"own_broken_{abs(hash(text))}"
    (project / f"{module}.py").write_text(text)
    words = [*OWN, "--cfg", "job", f"+callbacks.mine._target_={module}.{target}"]
    assert exit_status(train.main, words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: callbacks.mine: ")
    assert sentence in line


@pytest.mark.slow
def test_a_multirun_of_it(project: Path) -> None:
    words = ["-m", "sweep=widths", "hydra.sweep.dir=several", "trainer.max_epochs=1"]
    other = ["optimizer._target_=torch.optim.RMSprop", "optimizer.alpha=0.9,0.8"]
    assert exit_status(train.main, [*OWN, *words, *other]) == 0
    names = sorted(file.parent.name for file in Path("several").glob("*/metrics.json"))
    assert [re.sub(r"^\d_", "", name) for name in names] == [
        "width-4_alpha-0.9", "width-4_alpha-0.8", "width-6_alpha-0.9", "width-6_alpha-0.8",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.end_to_end
def test_two_processes_of_it(project: Path) -> None:
    code = "import sys; from equipoise.__main__ import train; train()"
    words = [*OWN, "strategy=ddp_cpu", "trainer.devices=2", "callbacks=[default,mine]"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words, "run_dir=both"],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(Path("both/metrics.json").read_text())["details"]["counted_batches"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["StepLR", "OneCycleLR", "CosineAnnealingLR"])
def test_a_schedule_of_torchs_own(name: str, project: Path) -> None:
    settings = {"StepLR": ["schedule.step_size=2"], "OneCycleLR": ["schedule.max_lr=0.01"]}
    words = [f"schedule._target_=torch.optim.lr_scheduler.{name}", *settings.get(name, [])]
    assert exit_status(train.main, [*OWN, *words, f"run_dir={name}"]) == 0
    content = torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)
    (state,) = content["lr_schedulers"]
    assert state["last_epoch"] == content["global_step"] == 4
    lengths = [state[key] for key in ("total_steps", "T_max") if key in state]
    assert lengths in ([], [4])
