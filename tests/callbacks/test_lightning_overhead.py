"""Many callbacks behind one: every hook in order, states, and finding them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from equipoise.callbacks.lightning_overhead import (
    Observer,
    Observers,
    Unprofiled,
    every_callback,
    grouped,
    note_hooks_directly,
)

CALLS: list[str] = []


class First(Observer):
    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps += 1
        CALLS.append("first")

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = state_dict["steps"]


class Second(Observer):
    def on_train_batch_end(self, *_: Any) -> None:
        CALLS.append("second")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["second"] = True


def test_members_are_called_in_their_order_and_found_again(
    make_trainer: Any, toy: Any, loader: Any
) -> None:
    CALLS.clear()
    first, second, plain = First(), Second(), Callback()
    trainer = make_trainer(grouped([first, plain, second]), max_epochs=1, max_steps=2)
    trainer.fit(toy(), loader)
    assert CALLS == ["first", "second"] * 2
    found = every_callback(trainer)
    assert [c for c in found if c in (first, second, plain)] == [first, second, plain]


def test_a_checkpoint_carries_what_the_members_keep(
    tmp_path: Path, make_trainer: Any, toy: Any, loader: Any
) -> None:
    first = First()
    trainer = make_trainer(grouped([first, Second()]), max_steps=3)
    trainer.fit(toy(), loader)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["second"]
    fresh = First()
    again = make_trainer(grouped([fresh, Second()]), max_steps=4)
    again.fit(toy(), loader, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert fresh.steps == first.steps + 1


def test_a_member_that_the_checkpoint_does_not_know_starts_afresh() -> None:
    first = First()
    Observers([first]).load_state_dict({})
    assert first.steps == 0


def test_callbacks_that_lightning_looks_up_stay_in_its_list() -> None:
    plain = Callback()
    assert grouped([plain]) == [plain]


def test_a_checkpoint_within_an_epoch_is_saved_where_it_was_asked_for(
    tmp_path: Path, make_trainer: Any, toy: Any, loader: Any
) -> None:
    at_steps = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    at_epochs = ModelCheckpoint(tmp_path, filename="epoch", enable_version_counter=False)
    callbacks = grouped([at_steps, at_epochs])
    trainer = make_trainer(callbacks, max_epochs=1, max_steps=4, enable_checkpointing=True)
    trainer.fit(toy(), loader)
    saved = {file.name for file in tmp_path.glob("*.ckpt")}
    assert saved == {"step=2.ckpt", "step=4.ckpt", "epoch.ckpt"}


def test_training_runs_under_it(make_trainer: Any, toy: Any, loader: Any) -> None:
    trainer = make_trainer([], max_steps=3, profiler=Unprofiled())
    trainer.fit(toy(), loader)
    assert trainer.global_step == 3
    assert isinstance(trainer.profiler, Unprofiled)


def test_nested_actions_share_one_context() -> None:
    profiler = Unprofiled()
    with profiler.profile("outer"), profiler.profile("inner"):
        assert profiler.profile("a") is profiler.profile("b")


def test_the_name_of_the_hook_is_stored_without_a_modules_detour() -> None:
    class Task(LightningModule):
        pass

    class Proud(LightningModule):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)

    task, proud, own = Task(), Proud(), Proud.__setattr__
    note_hooks_directly(task)
    note_hooks_directly(proud)
    assert Proud.__setattr__ is own
    assert LightningModule.__setattr__ is torch.nn.Module.__setattr__
    task._current_fx_name = "training_step"
    task.layer = torch.nn.Linear(2, 2)
    assert task.__dict__["_current_fx_name"] == "training_step"
    assert "layer" in dict(task.named_children())
    task._current_fx_name = None
    assert task._current_fx_name is None
