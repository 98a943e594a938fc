"""Which epoch the best checkpoint holds, in real runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from equipoise.callbacks import BestCheckpoint, ConvergenceMonitor, GradientSchedule, Phase
from equipoise.callbacks.checkpointing import KEY, EstimatorState, RandomState
from equipoise.equilibrium import Auto, Unrolled

Run = Callable[..., Any]


class Validated(Callback):
    """Reports a given value after each epoch, as a validation would."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.callback_metrics["val/score"] = torch.tensor(self.values[trainer.current_epoch])


@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
@pytest.mark.parametrize(
    ("mode", "values", "epoch"),
    [
        ("max", [0.5, 0.9, 0.7, 0.9, 0.8], 3),
        ("max", [0.9, 0.5, 0.7, 0.8, 0.6], 0),
        ("max", [0.2, 0.3, 0.5, 0.7, 0.9], 4),
        ("max", [0.2, float("nan"), 0.1, 0.1, 0.1], 0),
        ("min", [0.5, 0.2, 0.2, 0.2, 0.4], 3),
    ],
)
def test_the_latest_of_the_best_epochs_is_kept(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path, mode: str, values: list[float],
    epoch: int,
) -> None:  # fmt: skip
    best = BestCheckpoint(
        tmp_path / "saved",
        filename="best",
        monitor="val/score",
        mode=mode,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    callbacks = [Validated(values), best]
    make_trainer(callbacks, enable_checkpointing=True, max_epochs=5).fit(toy(), loader)
    assert [file.name for file in (tmp_path / "saved").iterdir()] == ["best.ckpt"]
    assert torch.load(tmp_path / "saved" / "best.ckpt", weights_only=False)["epoch"] == epoch


def choosing(task: Any) -> Auto:
    """An estimator that measures at every fourth step, put on the task's layer."""
    auto = Auto(min_cosine=0.999, every=4, patience=2)
    task.model.equilibrium.gradient = auto
    return auto


def test_a_resumed_run_makes_the_same_choices(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path, rows: Run
) -> None:
    saving = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=6, save_top_k=-1)
    whole = toy()
    auto = choosing(whole)
    callbacks = [ConvergenceMonitor(), EstimatorState(), saving]
    make_trainer(callbacks, enable_checkpointing=True, log_every_n_steps=1).fit(whole, loader)
    assert len({measured.chosen for measured in auto.measurements}) > 1
    names = [row["gradient"] for row in rows("gradient")]
    assert all(name.startswith("auto:") for name in names)
    assert len(set(names)) > 1

    path = tmp_path / "saved" / "epoch=0-step=6.ckpt"
    saved = torch.load(path, weights_only=True)[KEY]["model.equilibrium"]
    assert saved["calls"] == 6
    resumed = toy()
    again = choosing(resumed)
    make_trainer([EstimatorState()], name="resumed").fit(
        resumed, loader, ckpt_path=path, weights_only=True
    )
    assert again.measurements == auto.measurements
    assert again.state_dict() == auto.state_dict()
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_the_estimator_of_a_phase_gets_its_state(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    saving = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=6, save_top_k=-1)

    def fit(path: Path | None) -> Auto:
        auto = Auto(min_cosine=0.99, every=5)
        schedule = GradientSchedule([Phase(0, Unrolled(steps=3)), Phase(4, auto)])
        callbacks = [schedule, EstimatorState(), *([] if path else [saving])]
        trainer = make_trainer(callbacks, enable_checkpointing=path is None)
        trainer.fit(toy(), loader, ckpt_path=path, weights_only=True)
        return auto

    whole = fit(None)
    assert whole.calls == 8
    assert fit(tmp_path / "saved" / "epoch=0-step=6.ckpt").state_dict() == whole.state_dict()


def test_other_estimators_leave_nothing_in_the_checkpoint(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    saving = ModelCheckpoint(tmp_path / "saved", every_n_epochs=1)
    trainer = make_trainer([EstimatorState(), saving], enable_checkpointing=True, max_epochs=1)
    trainer.fit(toy(), loader)
    (path,) = (tmp_path / "saved").glob("*.ckpt")
    assert KEY not in torch.load(path, weights_only=True)


class Drawing(Callback):
    """Draws of every global generator after each step, as code of a user's might."""

    def __init__(self) -> None:
        self.drawn: list[tuple[float, float, float]] = []

    def on_train_batch_end(self, *_: Any) -> None:
        numbers = float(torch.rand(())), float(np.random.rand()), random.random()
        self.drawn.append(numbers)


def test_every_global_generator_goes_on_where_the_checkpoint_left_it(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    saving = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=4, save_top_k=-1)
    whole, resumed = Drawing(), Drawing()
    make_trainer([whole, RandomState(), saving], enable_checkpointing=True).fit(toy(), loader)
    path = tmp_path / "saved" / "epoch=0-step=4.ckpt"
    np.random.seed(9)
    random.seed(9)
    make_trainer([resumed, RandomState()]).fit(toy(), loader, ckpt_path=path, weights_only=True)
    assert len(resumed.drawn) > 1
    assert resumed.drawn == whole.drawn[4:]


def of_rank(state: RandomState, rank: int, processes: int) -> tuple[float, float, float]:
    """What a process draws first, after its training has started."""
    trainer: Any = SimpleNamespace(global_rank=rank, world_size=processes)
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    state.on_train_start(trainer, cast(Any, None))
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_processes_draw_from_streams_of_their_own() -> None:
    drawn = [of_rank(RandomState(), rank, 3) for rank in range(3)]
    assert len({number for numbers in drawn for number in numbers}) == 9
    torch.manual_seed(6)  # the next seed's
    assert drawn[1][0] != float(torch.rand(()))


@pytest.mark.parametrize(("processes", "same"), [(2, True), (3, False)])
def test_a_process_goes_on_with_its_own_stream_if_there_are_as_many(
    processes: int, same: bool
) -> None:
    states, expected = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        states.append(RandomState().state_dict()["processes"][0])
        expected.append((float(torch.rand(())), float(np.random.rand()), random.random()))
    drawn = []
    for rank in (0, 1):
        state = RandomState()
        state.load_state_dict({"processes": states})
        drawn.append(of_rank(state, rank, processes))
    assert drawn[0] == expected[0]
    assert (drawn[1] == expected[1]) == same


def test_a_checkpoint_of_an_earlier_revision_is_gone_on_with() -> None:
    torch.manual_seed(3)
    earlier = {"cpu": torch.get_rng_state(), "cuda": []}
    expected = float(torch.rand(()))
    state = RandomState()
    state.load_state_dict(earlier)
    assert of_rank(state, 0, 1)[0] == expected
