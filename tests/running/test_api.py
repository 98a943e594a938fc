"""A small run from Python, and what is done with its checkpoint."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

import equipoise
from equipoise.config.compose import compose
from equipoise.config.stored import read_checkpoint
from equipoise.errors import UserError
from equipoise.running import folders
from equipoise.running.api import composed, evaluate
from equipoise.running.build import build_run
from equipoise.running.folders import run_directory
from tests.end_to_end.conftest import SMALL

SHORT = [*SMALL, "trainer.max_epochs=2", "trainer.limit_train_batches=3", "task.batch_size=32",
         "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]  # fmt: skip
QUICK = "ignore:.*did not reach the tolerance"
pytestmark = pytest.mark.filterwarnings(QUICK)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    equipoise.run(*SHORT, "trainer.max_epochs=2", f"run_dir={folder}")
    return folder


@pytest.fixture
def path(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"ckpt_path={trained / 'checkpoints' / 'last.ckpt'}"


def test_one_seed_builds_equal_weights_which_a_run_starts_from(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    first, second = (equipoise.build(*SMALL, "seed=3") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    other = equipoise.build(*SMALL, "seed=4")
    started = build_run(compose([*SMALL, "seed=3", f"run_dir={tmp_path}"]), tmp_path).task.model
    weights = {name: value for name, value in first.state_dict().items() if "weight" in name}
    for name, value in weights.items():
        assert torch.equal(value, second.state_dict()[name])
        assert torch.equal(value, started.state_dict()[name])
    assert any(not torch.equal(v, other.state_dict()[n]) for n, v in weights.items())


def test_a_checkpoint_builds_the_network_that_it_holds(path: str, trained: Path) -> None:
    state = read_checkpoint(trained / "checkpoints" / "last.ckpt")["state_dict"]
    model = equipoise.build(path, "solver.max_steps=9")
    assert model.equilibrium.solver.max_steps == 9
    tensors = {name: value for name, value in model.state_dict().items() if "_extra" not in name}
    for name, value in tensors.items():
        assert torch.equal(value, state[f"model.{name}"])
    with pytest.raises(UserError, match=r"there is no checkpoint at lost\.ckpt"):
        equipoise.build("ckpt_path=lost.ckpt")
    with pytest.raises(UserError, match="does not fit the network"):
        equipoise.build(path, "model.channels=[16,16]")


def test_a_model_without_weights_is_built_from_a_checkpoint_too(tmp_path: Path) -> None:
    small = ["task=range_query", "task.users=2000", "task.repeats=1", "logger=none"]
    equipoise.run(*small, "callbacks.report=null", f"run_dir={tmp_path / 'run'}")
    built = equipoise.build(f"ckpt_path={tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}")
    assert type(built).__name__ == "Ahead"


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        (["task=segmentation_folder", "task.mask_classes=3", "model.size=tiny"], False),
        (["task=segmentation_folder", "model.size=tiny"], True),
        (["task=text_folder", "task.vocabulary=50", "model.size=tiny"], False),
        (["task=text_folder", "model.size=tiny"], True),
    ],
)
def test_data_is_looked_at_for_what_the_network_needs_and_was_not_given(
    overrides: list[str], missing: bool
) -> None:
    if missing:
        with pytest.raises(UserError, match=r"task\.path"):
            equipoise.build(*overrides)
    else:
        equipoise.build(*overrides)


def test_an_evaluation_tells_the_epochs_that_were_trained(path: str, trained: Path) -> None:
    last = evaluate(path, "run_dir=last")
    assert (last["epochs"], last["steps"]) == (2, 6)
    best = trained / "checkpoints" / "best.ckpt"
    steps = read_checkpoint(best)["global_step"]
    found = evaluate(f"ckpt_path={best}", "run_dir=best", "~callbacks.report")
    assert (found["epochs"], found["steps"]) == (steps // 3, steps)
    assert not Path("best/report").exists()


def test_an_evaluation_leaves_the_training_s_folder_alone(path: str, trained: Path) -> None:
    before = {file: file.read_bytes() for file in trained.glob("*.*")}
    with pytest.raises(UserError, match=f"run_dir={trained} is not empty; .*{trained}_2"):
        evaluate(path, f"run_dir={trained}")
    assert {file: file.read_bytes() for file in trained.glob("*.*")} == before
    with folders.held(run_directory(composed([path, f"run_dir={trained}"]), "train")) as directory:
        assert directory == trained


@pytest.mark.parametrize("typed", ["model.size=large", "model.channels=[16,16]"])
def test_another_network_is_refused_before_anything_is_written(path: str, typed: str) -> None:
    for command in (evaluate, equipoise.run):
        with pytest.raises(UserError, match=r"does not fit the network: .*here; leave out what"):
            command(path, typed, "run_dir=other")
    assert not Path("other").exists()


def rates(metrics_csv: Path) -> list[float]:
    with metrics_csv.open(newline="") as file:
        return [float(row["lr-Adam"]) for row in csv.DictReader(file) if row.get("lr-Adam")]


def test_a_resumed_run_obeys_what_was_typed(path: str) -> None:
    phases = "callbacks.gradient_schedule.phases=[{start: 0, gradient: jfb}]"
    longer = ["trainer.max_epochs=3", "schedule=constant", "optimizer.lr=1e-5", phases]
    metrics = equipoise.run(path, *longer, "run_dir=again", "~callbacks.report")
    assert metrics["steps"] == 9
    assert set(rates(Path("again/metrics.csv"))) == {1e-5}
    assert metrics["gradient_stats"]["nfe_mean"] <= 1
    assert not Path("again/report").exists()
    group = read_checkpoint("again/checkpoints/last.ckpt")["optimizer_states"][0]["param_groups"][0]
    assert group["lr"] == group["initial_lr"] == 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the checkpoint's state of Adam does not fit SGD")
def test_a_resumed_run_takes_another_optimiser(path: str) -> None:
    metrics = equipoise.run(path, "optimizer=sgd", "trainer.max_epochs=3", "run_dir=again")
    assert metrics["status"] == "completed"
    state = read_checkpoint("again/checkpoints/last.ckpt")["optimizer_states"][0]
    assert state["param_groups"][0]["momentum"] == 0.9


@pytest.mark.slow
def test_best_weights_of_another_schedule_are_tested_in_the_phase_of_their_step(
    path: str, trained: Path
) -> None:
    """best.ckpt of phase 2 of 2 is tested after a resumption that has one phase."""
    own = "callbacks.gradient_schedule.phases=[{start: 0, gradient: jfb}, {start: 3}]"
    equipoise.run(*SHORT, own, "run_dir=two")
    typed = "callbacks.gradient_schedule.phases=[{start: 0, gradient: jfb}]"
    metrics = equipoise.run("ckpt_path=two/checkpoints/last.ckpt", typed, "run_dir=two")
    assert metrics["status"] == "completed"


@pytest.mark.parametrize("command", [equipoise.run, evaluate, equipoise.build])
def test_a_checkpoint_makes_no_calls_of_its_own(
    command: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = read_checkpoint(trained / "checkpoints" / "last.ckpt")
    call = {"_target_": "os.mkdir", "path": "made"}
    for place in ("callbacks", "solver", "model"):
        inner = {"x": call} if place == "callbacks" else call
        stored = {**content["config"], place: {**content["config"][place], **inner}}
        torch.save({**content, "config": stored}, "evil.ckpt")
        with pytest.raises(UserError, match=r"os\.mkdir, which is not our code"):
            command("ckpt_path=evil.ckpt", "run_dir=victim")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["evil.ckpt"]
