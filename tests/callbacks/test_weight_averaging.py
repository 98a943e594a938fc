"""What is averaged, validated, saved and resumed, against the weights of each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor

from equipoise.callbacks import DivergenceGuard, ExponentialMovingAverage, RunCheckpoint
from equipoise.callbacks.weight_averaging import KEY, SavedWeights, averaged, copied
from equipoise.errors import UserError

Run = Callable[..., Any]
Tensors = dict[str, Tensor]


class Watching(Callback):
    """Keeps the weights after each step, and those that each validation sees."""

    def __init__(self) -> None:
        self.steps: list[Tensors] = []
        self.validated: list[Tensors] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step > len(self.steps):
            self.steps.append(copied(averaged(pl_module)))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.validated.append(copied(averaged(pl_module)))


def expected_average(steps: list[Tensors], average: ExponentialMovingAverage) -> Tensors:
    result = {name: tensor.double() for name, tensor in steps[0].items()}
    for number, weights in enumerate(steps[1:], start=1):
        share = max(1 - average.decay, average.horizon / (number + average.horizon))
        for name, tensor in weights.items():
            result[name] += share * (tensor.double() - result[name])
    return result


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def near(one: Tensors, other: Tensors) -> bool:
    return all(torch.allclose(one[n].double(), other[n], atol=1e-6) for n in other)


def dumped(trainer: Trainer) -> dict[str, Any]:
    return trainer._checkpoint_connector.dump_checkpoint()


def test_validations_see_the_average_and_training_does_not_notice(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    ends = []
    for callbacks in ([], [ExponentialMovingAverage(decay=0.8, horizon=2.0)]):
        torch.manual_seed(0)
        watching, task = Watching(), toy()
        trainer = make_trainer([*callbacks, watching], accumulate_grad_batches=2)
        trainer.fit(task, loader, loader)
        ends.append((watching, task, trainer))
    (plain, _, _), (watched, task, trainer) = ends
    assert len(plain.steps) == 6
    assert all(same(*pair) for pair in zip(plain.steps, watched.steps, strict=True))
    assert all(same(a, b) for a, b in zip(plain.validated, plain.steps[2::3], strict=True))
    (average,) = (c for c in trainer.callbacks if isinstance(c, ExponentialMovingAverage))
    for validated, end in zip(watched.validated, (3, 6), strict=True):
        assert near(validated, expected_average(watched.steps[:end], average))
    assert same(copied(averaged(task)), watched.validated[-1])  # what is tested after the fit


def test_a_checkpoint_holds_the_average_and_beside_it_what_training_goes_on_with(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    watching = Watching()
    alone_file = RunCheckpoint(dirpath=tmp_path, filename="alone", save_weights_only=True)
    average = ExponentialMovingAverage(decay=0.5, horizon=1.0)
    trainer = make_trainer([average, watching, alone_file], enable_checkpointing=True)
    trainer.fit(toy(), loader, loader)
    trainer.save_checkpoint(tmp_path / "whole.ckpt", weights_only=False)
    whole, alone = (
        torch.load(tmp_path / f"{n}.ckpt", weights_only=True) for n in ("whole", "alone")
    )
    held = {name: whole["state_dict"][name] for name in watching.validated[-1]}
    assert same(held, watching.validated[-1])
    assert same({name: alone["state_dict"][name] for name in held}, held)
    assert same(whole[KEY]["training"], watching.steps[-1])
    assert alone[KEY] == {"key": "ema", "described": "exponential moving average of 12 updates"}
    assert whole["state_dict"]["model.norm.num_batches_tracked"] == 12


def test_the_weights_of_training_are_validated_and_saved_before_the_first_update(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    watching = Watching()
    average = ExponentialMovingAverage(start=0.75, every=2)
    trainer = make_trainer([average, watching])
    trainer.fit(toy(), loader, loader)
    assert same(watching.validated[0], watching.steps[5])
    assert not same(watching.validated[1], watching.steps[11])
    assert (average.first, average.updates, average.updated_at) == (9, 1, 11)
    never = make_trainer([ExponentialMovingAverage(start=0.99), SavedWeights()], max_epochs=1)
    never.fit(toy(), loader)
    assert KEY not in dumped(never)


class Breaking(Callback):
    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("out of paper")


def test_a_validation_that_breaks_off_leaves_the_weights_of_training(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    watching, task = Watching(), toy()
    average = ExponentialMovingAverage(decay=0.5)
    with pytest.raises(RuntimeError, match="out of paper"):
        make_trainer([average, watching, Breaking()]).fit(task, loader, loader)
    assert same(copied(averaged(task)), watching.steps[-1])


@pytest.mark.parametrize("with_average", [True, False])
def test_a_resumed_run_goes_on_with_the_weights_of_training(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path, with_average: bool
) -> None:
    """Also one that has left the callback out."""
    whole, rest = Watching(), Watching()
    make_trainer([ExponentialMovingAverage(decay=0.5), whole]).fit(toy(), loader)
    torch.manual_seed(0)
    first = make_trainer([ExponentialMovingAverage(decay=0.5)], max_epochs=1)
    first.fit(toy(), loader)
    first.save_checkpoint(tmp_path / "first.ckpt")
    average = ExponentialMovingAverage(decay=0.5)
    callbacks = [SavedWeights(), *([average] if with_average else []), rest]
    rest.steps = [{}] * 6
    make_trainer(callbacks).fit(toy(), loader, ckpt_path=tmp_path / "first.ckpt")
    assert same(rest.steps[6], whole.steps[6])
    assert same(rest.steps[-1], whole.steps[-1])
    assert average.updates == (12 if with_average else 0)


def test_what_was_tested_is_told(toy: Run, loader: Any, make_trainer: Run) -> None:
    average, saved = ExponentialMovingAverage(decay=0.5), SavedWeights()
    trainer = make_trainer([average, saved])
    task = toy()
    trainer.fit(task, loader, loader)
    assert saved.summary() == {}
    trainer.test(task, loader, verbose=False)
    words = "exponential moving average of 12 updates"
    assert saved.summary() == {"tested_weights": words}
    saved.restore(task, {}, {})
    trainer.test(task, loader, verbose=False)
    assert saved.summary() == {"tested_weights": "training"}
    evaluated = SavedWeights()
    evaluated.restore(task, {KEY: {"described": words}}, {})
    make_trainer([evaluated]).test(task, loader, verbose=False)
    assert evaluated.summary() == {"tested_weights": words}


def test_a_step_that_the_guard_has_skipped_leaves_the_average_finite(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    average = ExponentialMovingAverage(decay=0.5)
    task = toy(bad_loss=lambda step: step == 4)
    make_trainer([DivergenceGuard(), average]).fit(task, loader, loader)
    assert all(tensor.isfinite().all() for tensor in average.average.values())


def test_what_cannot_be_averaged_is_refused(toy: Run, loader: Any, make_trainer: Run) -> None:
    task = toy()
    task.automatic_optimization = False
    with pytest.raises(UserError, match="leave callbacks=ema out"):
        make_trainer([ExponentialMovingAverage()]).fit(task, loader)
    with pytest.raises(UserError, match=r"weights of 32 bits: choose trainer\.precision=16-mixed"):
        make_trainer([ExponentialMovingAverage()], precision="bf16-true").fit(toy(), loader)
    with pytest.raises(UserError, match=r"ema\.start=0\.5 is a fraction .* no end"):
        make_trainer([ExponentialMovingAverage(start=0.5)], max_epochs=-1).fit(toy(), loader)
    sharded: Any = SimpleNamespace(strategy=FSDPStrategy.__new__(FSDPStrategy))  # needs no GPU
    with pytest.raises(UserError, match="strategy=ddp"):
        ExponentialMovingAverage().on_fit_start(sharded, toy())


@given(st.floats(0, 0.9999), st.floats(1, 100), st.integers(1, 400))
def test_the_first_weights_soon_count_no_more_than_the_decay_lets_them(
    decay: float, horizon: float, updates: int
) -> None:
    """k = 1 is the plain mean, and a larger one leans on the later weights."""
    average = ExponentialMovingAverage(decay=decay, horizon=horizon)
    shares = [average.weight(number) for number in range(updates)]
    assert shares[0] == 1
    assert all(1 - decay <= share <= 1 for share in shares)
    left = math.prod(1 - share for share in shares[1:])  # of the first weights
    assert left <= max(1 / updates, decay ** (updates - 1)) * (1 + 1e-9)
