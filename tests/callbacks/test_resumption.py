"""A resumed run obeys the optimiser and the schedule that it is resumed with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from equipoise.callbacks.lightning_overhead import grouped
from equipoise.callbacks.resumption import ResumedOptimizer
from equipoise.config.signatures import locate
from equipoise.running.checkpoints import CheckpointFile
from equipoise.tasks.schedules import Constant, Cosine, Schedule
from tests.callbacks.conftest import ToyTask

ADAM = {"_target_": "torch.optim.Adam", "lr": 0.01, "weight_decay": 0.0, "amsgrad": False}
SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
COSINE = {"_target_": "equipoise.tasks.schedules.Cosine", "warmup": 0.0}
CONSTANT = {"_target_": "equipoise.tasks.schedules.Constant", "warmup": 0.0}
LARS = {"_target_": "equipoise.tasks.lars.LARS", "lr": 0.1, "bias_lr": 0.01, "weight_decay": 0.1}
SAVED, END = 4, 10


class Rates(Callback):
    """The settings of every step, and the moments before the first one."""

    def __init__(self) -> None:
        self.settings: list[dict[str, Any]] = []
        self.groups: list[dict[str, Any]] = []
        self.moments: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        optimizer = trainer.optimizers[0]
        if not self.settings:
            states = optimizer.state.values()
            self.moments = [state["exp_avg"].clone() for state in states if "exp_avg" in state]
        self.groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]
        self.settings.append(self.groups[0])


def fit(
    task: ToyTask, loader: DataLoader[Any], folder: Path, optimizer: dict[str, Any],
    schedule: dict[str, Any], steps: int, resume: Path | None = None,
    length: int = END,
) -> Rates:  # fmt: skip
    """Train to a step with an optimiser and a schedule; leaves <folder>/<steps>.ckpt."""
    kind = locate("optimizer", optimizer["_target_"])
    build: Schedule = (Cosine if "Cosine" in schedule["_target_"] else Constant)(schedule["warmup"])

    def configure() -> Any:
        made = kind(task.parameters(), **{k: v for k, v in optimizer.items() if k != "_target_"})
        return {"optimizer": made,
                "lr_scheduler": {"scheduler": build(made, length), "interval": "step"}}  # fmt: skip

    task.configure_optimizers = configure  # type: ignore[method-assign, assignment]
    rates = Rates()
    config = {"optimizer": optimizer, "schedule": schedule}
    ours = [ResumedOptimizer(optimizer, schedule)]
    trainer = Trainer(
        max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", callbacks=grouped([*ours, rates]),
        default_root_dir=folder, plugins=[CheckpointFile({"config": config, "choices": {}})],
    )  # fmt: skip
    trainer.fit(task, loader, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return rates


Resume = Callable[..., Rates]


@pytest.fixture
def resume(toy: Any, loader: DataLoader[Any], tmp_path: Path) -> Resume:
    def begin_and_resume(optimizer: dict[str, Any], schedule: dict[str, Any]) -> Rates:
        fit(toy(), loader, tmp_path, ADAM, COSINE, SAVED)
        return fit(toy(), loader, tmp_path, optimizer, schedule, END, tmp_path / f"{SAVED}.ckpt")

    return begin_and_resume


def expected(optimizer: dict[str, Any], schedule: dict[str, Any]) -> list[float]:
    """The rates of a run that had the optimiser and the schedule from its beginning."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    made = torch.optim.SGD([parameter], lr=optimizer["lr"])
    build = Cosine if schedule["_target_"].endswith("Cosine") else Constant
    scheduler = build(schedule["warmup"])(made, END)
    rates = []
    for _ in range(END):
        rates.append(made.param_groups[0]["lr"])
        made.step()
        scheduler.step()
    return rates[SAVED:]


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        (ADAM, COSINE),
        (ADAM | {"lr": 1e-5}, COSINE),
        (ADAM | {"lr": 1e-5}, CONSTANT),
        (ADAM, CONSTANT),
        (ADAM, COSINE | {"warmup": 0.8}),
        (ADAM | {"weight_decay": 0.1}, COSINE),
        (ADAM | {"weight_decay": 0.1, "lr": 0.5}, CONSTANT | {"warmup": 0.9}),
        (SGD, COSINE),
        (SGD, CONSTANT),
    ],
)
@pytest.mark.filterwarnings("ignore:the checkpoint's state of Adam does not fit SGD")
def test_the_rate_and_the_settings_are_those_that_were_typed(
    resume: Resume, optimizer: dict[str, Any], schedule: dict[str, Any]
) -> None:
    settings = resume(optimizer, schedule).settings
    assert len(settings) == END - SAVED
    assert [s["lr"] for s in settings] == pytest.approx(expected(optimizer, schedule), rel=1e-12)
    for name in optimizer.keys() - {"_target_", "lr"}:
        assert {s[name] for s in settings} == {optimizer[name]}


def test_a_run_of_another_length_has_its_rates_from_the_first_step(
    toy: Any, loader: DataLoader[Any], tmp_path: Path
) -> None:
    fit(toy(), loader, tmp_path, ADAM, COSINE, SAVED, length=SAVED)
    longer = fit(toy(), loader, tmp_path, ADAM, COSINE, END, tmp_path / f"{SAVED}.ckpt")
    assert [s["lr"] for s in longer.settings] == pytest.approx(expected(ADAM, COSINE), rel=1e-12)


@pytest.mark.parametrize(
    ("changed", "goes_on"),
    [({"patience": 1}, True), ({"factor": 0.5, "patience": 2}, True), ({"mode": "max"}, False),
     ({"monitor": "val/other"}, False)],
)  # fmt: skip
def test_a_plateau_of_other_patience_remembers_its_best_value(
    changed: dict[str, Any], goes_on: bool
) -> None:
    plateau = {"_target_": "equipoise.tasks.schedules.Plateau", "monitor": "val/loss",
               "mode": "min", "factor": 0.1, "patience": 5}  # fmt: skip
    seen = {"best": 0.25, "num_bad_epochs": 3, "patience": 5, "factor": 0.1}
    checkpoint = {
        "config": {"optimizer": ADAM, "schedule": plateau},
        "optimizer_states": [], "lr_schedulers": [dict(seen)], "global_step": 7,
    }  # fmt: skip
    resumed = ResumedOptimizer(ADAM, plateau | changed)
    resumed.on_load_checkpoint(None, None, checkpoint)  # type: ignore[arg-type]
    assert checkpoint["lr_schedulers"] == ([seen | changed] if goes_on else [])
    assert (resumed.steps is None) == goes_on


def test_each_group_takes_a_setting_as_the_new_optimizer_does(
    toy: Any, loader: DataLoader[Any], tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    fit(toy(), loader, tmp_path, LARS, CONSTANT, SAVED)
    changed = LARS | {"bias_lr": 0.02, "weight_decay": 0.2, "trust_coefficient": 0.01}
    resumed = fit(toy(), loader, tmp_path, changed, CONSTANT, END, tmp_path / f"{SAVED}.ckpt")
    weights, biases = resumed.groups
    assert (weights["lr"], biases["lr"]) == (0.1, 0.02)
    assert (weights["weight_decay"], biases["weight_decay"]) == (0.2, 0.0)
    assert weights["trust_coeff"] == biases["trust_coeff"] == 0.01
    assert (weights["always_adapt"], biases["always_adapt"]) == (True, False)


def test_moments_stay_where_they_mean_something(resume: Resume, tmp_path: Path) -> None:
    kept = resume(ADAM | {"lr": 1e-5, "weight_decay": 0.1}, CONSTANT).moments
    saved = torch.load(tmp_path / f"{SAVED}.ckpt", weights_only=True)["optimizer_states"][0]
    stored = [state["exp_avg"] for state in saved["state"].values()]
    assert len(kept) == len(stored) > 0
    for mine, theirs in zip(kept, stored, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("optimizer", [SGD, ADAM | {"amsgrad": True}])
def test_a_state_that_does_not_fit_is_left_and_said(
    resume: Resume, optimizer: dict[str, Any]
) -> None:
    with pytest.warns(UserWarning, match="starts afresh, without moments"):
        assert resume(optimizer, COSINE).moments == []
