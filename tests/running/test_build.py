"""What the classes of a run refuse becomes one sentence that names the part."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import equipoise
from equipoise import build
from equipoise.config.compose import compose
from equipoise.config.machine import free_memory
from equipoise.errors import RunFailed, RunInterrupted, UserError
from equipoise.running.api import prepared
from equipoise.running.build import MemoryLimit, instantiate
from equipoise.running.messages import LONGEST, refusals

SMALL = ["model.channels=[8,8]", "model.head_channels=[2,4]", "model.final_channels=16",
         "model.groups=4", "solver.max_steps=2", "trainer.max_steps=1"]  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["optimizer=sgd", "optimizer.momentum=0"], "^optimizer: Nesterov momentum requires"),
        (["model.blocks=[1,2,3]"], "^model: blocks has 3 entries"),
        (["trainer.max_time=abc"], "^trainer: .*not a valid duration"),
        (["trainer.limit_train_batches=2.5"], "^trainer: .*limit_train_batches"),
        (["trainer.accelerator=abc"], "^trainer: .*accelerator"),
        (["trainer.profiler=abc"], "^trainer: "),
        (["trainer.plugins=abc"], "trainer.plugins=abc is not of type"),
        (["trainer.enable_progress_bar=false"], r"add callbacks\.progress=null"),
        (
            ["callbacks.checkpoint_best.monitor=abc"],
            r"^callbacks\.checkpoint_best\.monitor=abc .*"
            "measures val/accuracy, val/loss$",
        ),
        (["callbacks.checkpoint_best.monitor=null"], "monitor=null is not measured"),
        (["callbacks.checkpoint_last.monitor=val/los"], "did you mean val/loss?"),
        (["task.monitor=val/score"], "^task.monitor=val/score is not measured"),
        (["schedule=plateau", "schedule.monitor=val/los"], "^schedule.*did you mean val/loss?"),
        (["schedule=plateau", "trainer.limit_val_batches=0"], "choose schedule=constant"),
        (["callbacks.checkpoint_last.every_n_train_steps=1"], r"^callbacks\.checkpoint_last: "),
        (["callbacks.checkpoint_last.save_top_k=3"], r"^callbacks\.checkpoint_last: "),
    ],
)
def test_what_a_class_refuses_is_a_sentence_and_leaves_nothing(typed, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as told:
        equipoise.run(*SMALL, *typed)
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there_is_answered_with_the_way_without(tmp_path, monkeypatch):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="choose strategy=auto or strategy=cpu"):
        equipoise.run(*SMALL, "strategy=gpu")


class Unhappy(Exception):
    """An exception of another library's own."""


@pytest.mark.parametrize(
    "raised",
    [ValueError("no"), TypeError("no"), RuntimeError("no"), OverflowError("no"),
     AttributeError("no"), Unhappy("no"), KeyError("no"), MemoryError(), Unhappy("two\nlines"),
     AssertionError(), RuntimeError("long " * 200)],
    ids=repr,
)  # fmt: skip
def test_whatever_a_part_raises_names_its_key_in_one_line(raised):
    with pytest.raises(UserError, match=r"^part: .+") as told, refusals("part"):
        raise raised
    assert "\n" not in str(told.value)
    assert len(str(told.value)) <= LONGEST + len("part:  …")
    assert told.value.__cause__ is raised


@pytest.mark.parametrize("raised", [RunInterrupted("stop"), KeyboardInterrupt()], ids=repr)
def test_an_interruption_stays_one(raised):
    with pytest.raises(type(raised)), refusals("part"):
        raise raised


def test_a_class_within_hydra_gives_its_own_reason():
    with pytest.raises(UserError, match=r"^gradient: phantom needs at least one step"):
        instantiate("gradient", {"_target_": "equipoise.equilibrium.Phantom", "steps": 0})


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("trainer.val_check_interval=100000", r"the run cannot continue: .*val_check_interval"),
        ("task.classes=3", r"task\.classes=3 is too few: the data has 10 classes, from 0 to 9"),
    ],
)
def test_what_cannot_be_set_up_for_the_first_step_is_a_sentence(
    typed: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        equipoise.run(*SMALL, typed, "callbacks.report=null")
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_after_the_training_has_failed_and_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunFailed, match=r"the run cannot continue: .*limit_test_batches"):
        equipoise.run(*SMALL, "trainer.limit_test_batches=1e-300", "run_dir=here")
    assert (tmp_path / "here" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize(
    "typed",
    [
        ("model.channels=[1000000,1000000]", "model.head_channels=[2,4]"),
        ("task=python_docs", "model.width=1000000"),
        ("task=python_docs", "model.inner_width=1000000", "model.width=100000"),
        ("task=copy_memory", "model=deq_trellisnet", "model.hidden_width=1000000"),
        ("task.classes=1000000", "model.final_channels=1000000"),
    ],
)
def test_a_network_beyond_the_memory_is_refused(typed):
    with pytest.raises(UserError, match=r"model would need [\d,]+ GiB of memory"):
        build(*typed)


@pytest.mark.parametrize(
    "make",
    [torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn,
     lambda *size: torch.full(size, 1.0), lambda *size: torch.nn.Linear(*size)],
)  # fmt: skip
def test_every_way_to_make_a_tensor_is_counted(make):
    with MemoryLimit("part"):
        make(3, 5)
    with pytest.raises(UserError, match="part would need"), MemoryLimit("part"):
        make(10**6, 10**6)


def test_small_tensors_add_up():
    limit = MemoryLimit("part")
    limit.free = 3 * 4 * 100
    with limit:
        torch.empty(60)
        with pytest.raises(UserError, match="part would need"):
            torch.empty(60)


def test_the_free_memory_is_that_of_the_machine_or_less():
    assert 0 < free_memory() < 2**50


def test_a_plugin_of_the_trainer_is_built_by_its_target(tmp_path):
    plugin = (
        "{_target_: lightning.pytorch.plugins.MixedPrecision, precision: bf16-mixed, device: cpu}"
    )
    words = ["trainer.accelerator=cpu", f"trainer.plugins=[{plugin}]"]
    built = prepared(compose(words), tmp_path, None)
    assert type(built.trainer.precision_plugin).__name__ == "MixedPrecision"
    assert built.trainer.precision_plugin.precision == "bf16-mixed"
