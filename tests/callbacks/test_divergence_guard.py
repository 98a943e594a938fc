"""The divergence guard against losses and gradients that are not finite, in real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from equipoise.callbacks import DivergenceGuard, TrainingCurve, TrainingDiverged
from equipoise.errors import RunFailed

Run = Callable[..., Any]


class StateAtEachStep(Callback):
    """Copies weights, running statistics and optimiser state after every step."""

    def __init__(self) -> None:
        self.states: list[list[Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        memory = trainer.optimizers[0].state_dict()["state"]
        tensors = [*pl_module.state_dict().values()]
        tensors += [value for entry in memory.values() for value in entry.values()]
        self.states.append([torch.as_tensor(value).clone() for value in tensors])


def same(before: list[Tensor], after: list[Tensor]) -> bool:
    """Whether two copies are equal to the bit."""
    return len(before) == len(after) and all(map(torch.equal, before, after))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "fused"])
@pytest.mark.parametrize("what", ["bad_loss", "bad_gradient"])
@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
def test_a_bad_step_changes_nothing(
    toy: Run, loader: Any, make_trainer: Run, optimizer: str, what: str
) -> None:
    task = toy(optimizer=optimizer, **{what: lambda step: step in (2, 3)})
    guard, copies = DivergenceGuard(), StateAtEachStep()
    make_trainer([guard, copies], max_epochs=1).fit(task, loader)
    changed = [not same(a, b) for a, b in zip(copies.states, copies.states[1:], strict=False)]
    # the bad steps are the third and fourth: the second to third and third to fourth state
    assert changed == [True, False, False, True, True]
    assert guard.skipped_steps == 2
    assert all(torch.isfinite(value).all() for value in task.state_dict().values())


@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
@pytest.mark.parametrize(("what", "word"), [("bad_loss", "loss"), ("bad_gradient", "gradient")])
def test_patience_ends_the_run(
    toy: Run, loader: Any, make_trainer: Run, what: str, word: str
) -> None:
    task, guard = toy(**{what: lambda step: step >= 3}), DivergenceGuard(patience=4)
    with pytest.raises(TrainingDiverged, match=f"{word} was not finite at step 6, the last of 4"):
        make_trainer([guard]).fit(task, loader)
    assert issubclass(TrainingDiverged, RunFailed)
    assert len(task.losses) == 7


@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
def test_a_good_step_resets_the_patience(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    guard = DivergenceGuard(patience=2)
    task = toy(bad_loss=lambda step: step % 2 == 1)
    curve = TrainingCurve()
    make_trainer([curve, guard]).fit(task, loader)
    assert guard.skipped_steps == 6
    assert [float(row["train/skipped_steps"]) for row in rows("train/skipped_steps")] == [
        1, 2, 3, 4, 5, 6,
    ]  # fmt: skip
    assert all(float(row["train/loss"]) > 0 for row in rows("train/loss"))
    assert curve.latest["loss"] > 0


def test_a_healthy_run_is_the_same_with_and_without(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    states = []
    for callbacks in ([], [TrainingCurve(), DivergenceGuard()]):
        torch.manual_seed(3)
        task = toy()
        make_trainer(callbacks, gradient_clip_val=0.5).fit(task, loader)
        states.append(list(task.state_dict().values()))
    assert same(*states)
    assert "train/skipped_steps" not in rows("train/loss")[0]


@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
def test_one_bad_batch_spoils_its_accumulated_step_only(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    task, seen = toy(), []

    def second_batch(step: int) -> bool:
        seen.append(step)
        return len(seen) == 2

    task.bad_loss = second_batch
    guard = DivergenceGuard()
    make_trainer([guard], max_epochs=1, accumulate_grad_batches=3).fit(task, loader)
    assert guard.skipped_steps == 1
    assert all(torch.isfinite(value).all() for value in task.state_dict().values())


@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
def test_the_counts_travel_with_the_checkpoint(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    guard = DivergenceGuard()
    saver = ModelCheckpoint(tmp_path / "saved", filename="last")
    task = toy(bad_loss=lambda step: step in (4, 5))
    make_trainer([guard, saver], max_epochs=1, enable_checkpointing=True).fit(task, loader)
    resumed = DivergenceGuard()
    path = tmp_path / "saved" / "last.ckpt"
    make_trainer([resumed], max_epochs=1, name="resumed").fit(
        toy(), loader, ckpt_path=path, weights_only=True
    )
    assert (resumed.skipped_steps, resumed.skipped_in_a_row) == (2, 2)


def test_large_but_finite_gradients_pass(toy: Run, loader: Any, make_trainer: Run) -> None:
    class Large(Callback):
        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            for parameter in pl_module.parameters():
                parameter.grad = torch.full_like(parameter, 1e30)  # the square overflows

    guard = DivergenceGuard()
    make_trainer([Large(), guard], max_epochs=1, max_steps=1).fit(toy(optimizer="adam"), loader)
    assert guard.skipped_steps == 0


@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
def test_double_precision_is_watched_too(toy: Run, loader: Any, make_trainer: Run) -> None:
    task, guard = toy(bad_gradient=lambda step: step == 2), DivergenceGuard()
    make_trainer([guard], max_epochs=1, precision="64-true").fit(task, loader)
    assert guard.skipped_steps == 1
