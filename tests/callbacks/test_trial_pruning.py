"""A trial reports each validation to its study, and stops where the pruner says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from equipoise.callbacks import TrialPruning
from equipoise.callbacks.progress import early_end, ending_sentence

optuna = pytest.importorskip("optuna")
Run = Callable[..., Any]
VALUES = [0.2, 0.6, math.nan, 0.6, 0.4]


class Validations(Callback):
    """Logs one of these values at each validation."""

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("val/score", VALUES[trainer.current_epoch])


def pruner(lower: float) -> Any:
    return optuna.pruners.ThresholdPruner(lower=lower)


def trial(folder: Path, kind: Any, running: bool = True) -> TrialPruning:
    """The callback of a new trial in a study of the folder."""
    place = str(folder / "search.journal")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(place))
    study = optuna.create_study(
        storage=storage, study_name="search", direction="maximize", load_if_exists=True
    )
    number = study.ask().number
    if not running:
        study.tell(number, 1.0)
    return TrialPruning("val/score", "max", kind, place, "search", number)


def reports(callback: TrialPruning) -> dict[int, float]:
    place = str(callback.storage)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(place))
    (study,) = optuna.load_study(study_name="search", storage=storage).trials
    return dict(study.intermediate_values)


def fitted(toy: Run, loader: Any, make_trainer: Run, callback: TrialPruning, **options: Any) -> Any:
    trainer = make_trainer([Validations(), callback], **{"max_epochs": 5, **options})
    trainer.fit(toy(), loader, loader)
    return trainer


def test_every_finite_validation_is_reported_and_the_best_is_told(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    callback = trial(tmp_path, "none")
    trainer = fitted(toy, loader, make_trainer, callback)
    assert trainer.current_epoch == 5
    assert reports(callback) == pytest.approx({1: 0.2, 2: 0.6, 4: 0.6, 5: 0.4})
    best = callback.summary()["best_validation"]
    # of equal ones the later, as best.ckpt
    assert best == {"monitor": "val/score", "value": pytest.approx(0.6), "validation": 4}
    assert early_end(trainer) is None


@pytest.mark.parametrize("lower", [0.5, 0.3])
def test_a_hopeless_trial_ends_and_says_so(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path, lower: float
) -> None:
    callback = trial(tmp_path, pruner(lower))
    trainer = fitted(toy, loader, make_trainer, callback)
    assert (trainer.current_epoch, trainer.should_stop) == (1, True)
    assert early_end(trainer) == "pruned"
    assert "the pruner of the search gave up on its val/score" in str(ending_sentence(trainer))


def test_the_last_validation_ends_nothing(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    for place, limits in enumerate(({"max_epochs": 1}, {"max_steps": 6, "max_epochs": -1})):
        (tmp_path / str(place)).mkdir()
        callback = trial(tmp_path / str(place), pruner(0.5))
        trainer = fitted(toy, loader, make_trainer, callback, **limits)
        assert callback.ended_by is None
        assert early_end(trainer) is None
        assert reports(callback) == pytest.approx({1: 0.2})


def test_without_a_running_trial_a_run_is_left_alone(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    alone = TrialPruning("val/score", "max", pruner(0.5))
    ended = trial(tmp_path, pruner(0.5), running=False)
    elsewhere = TrialPruning("val/score", "max", "median", str(tmp_path / "new"), "search", 0)
    for callback in (alone, ended, elsewhere):
        assert fitted(toy, loader, make_trainer, callback).current_epoch == 5
        assert callback.summary()["best_validation"]["validation"] == 4


def test_a_resumed_trial_goes_on_counting(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    first = trial(tmp_path, "none")
    fitted(toy, loader, make_trainer, first, max_epochs=2)
    second = TrialPruning("val/score", "max", "none")
    second.load_state_dict(first.state_dict())
    assert (second.validations, second.best) == (2, first.best)
