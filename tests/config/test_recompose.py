"""A checkpoint's configuration with overrides on top: each is used, or refused in a sentence."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from equipoise.config.compose import Composition, compose, plain, storable
from equipoise.config.hydra import hydra_config
from equipoise.config.recompose import Purpose, recompose
from equipoise.config.stored import Stored, stored_run
from equipoise.errors import UserError

PHASES = "callbacks.gradient_schedule.phases=[{start: 0, gradient: jfb}, {start: 0.5}]"
SEGMENTATION = ("task=segmentation_folder", "task.path=before", "task.mask_classes=3")


@cache
def stored(*typed: str) -> Stored:
    composition = compose(typed)
    content = {
        "config": storable(composition.config),
        "choices": composition.choices,
        "state_dict": {"w": torch.zeros(2)},
        "epoch": 1,
        "global_step": 9,
    }
    return stored_run(content, Path("run/checkpoints/last.ckpt"))


def again(*typed: str, of: Stored | None = None, purpose: Purpose = "train") -> Composition:
    return recompose(of or stored(), ["ckpt_path=run/checkpoints/last.ckpt", *typed], purpose)


def value(composition: Composition, key: str) -> Any:
    found = OmegaConf.select(composition.config, key)
    return OmegaConf.to_container(found) if OmegaConf.is_config(found) else found


@pytest.mark.parametrize("purpose", ["train", "evaluate"])
def test_without_overrides_only_the_checkpoint_to_resume_from_changes(purpose: Purpose) -> None:
    run = stored("solver.max_steps=7", "solver.tol=0", PHASES)
    composed = again(of=run, purpose=purpose)
    changed = {"ckpt_path": "run/checkpoints/last.ckpt"}
    assert plain(composed.config) == {**run.config, **changed}
    assert composed.choices == run.choices
    assert composed.trusted == ()


@pytest.mark.parametrize(
    ("typed", "key", "expected"),
    [
        ("optimizer.lr=1e-5", "optimizer.lr", 1e-5),
        ("optimizer.weight_decay=0.1", "optimizer.weight_decay", 0.1),
        ("optimizer=sgd", "optimizer._target_", "torch.optim.SGD"),
        ("schedule=constant", "schedule._target_", "equipoise.tasks.schedules.Constant"),
        ("schedule.warmup=0.5", "schedule.warmup", 0.5),
        ("gradient=exact", "gradient.solver.max_steps", 20),
        ("gradient=shine", "solver._target_", "equipoise.equilibrium.Broyden"),
        ("solver@eval_solver=broyden", "eval_solver._target_", "equipoise.equilibrium.Broyden"),
        ("solver=anderson", "solver.max_steps", 7),  # in force already: its settings stay
        ("strategy=cpu", "trainer.accelerator", "cpu"),
        ("logger=none", "logger", {}),
        ("debug=smoke", "trainer.max_steps", 3),
        ("anytime=curve", "anytime.seed", 0),
        ("~callbacks.report", "callbacks.report", None),
        ("+callbacks.mine={_target_: my_package.Mine}", "callbacks.mine._target_",
         "my_package.Mine"),
        ("callbacks=[default,gradient_fidelity]", "callbacks.gradient_fidelity.every", 100),
        ("callbacks=[default,gradient_fidelity]", "callbacks.divergence_guard.patience", 9),
        ("solver.tol=1e-4", "solver.tol", 1e-4),  # 0 was stored, a whole number
        ("trainer.max_steps=600", "trainer.max_epochs", -1),
        ("run_dir=second", "callbacks.checkpoint_best.dirpath", "second/checkpoints"),
    ],
)  # fmt: skip
def test_what_is_typed_is_used(typed: str, key: str, expected: Any) -> None:
    run = stored("solver.max_steps=7", "solver.tol=0", "callbacks.divergence_guard.patience=9")
    composed = again(typed, of=run)
    assert value(composed, key) == expected
    group, _, choice = typed.partition("=")
    if group in ("optimizer", "schedule", "gradient", "solver@eval_solver", "strategy", "debug"):
        assert composed.choices[group] == choice


@pytest.mark.parametrize("said", [(), ("optimizer._target_=torch.optim.RMSprop",)])
@pytest.mark.parametrize("began", [(), ("optimizer._target_=torch.optim.RMSprop",)])
def test_what_another_class_takes_can_be_typed(
    began: tuple[str, ...], said: tuple[str, ...]
) -> None:
    run, words = stored(*began), (*said, "optimizer.alpha=0.9")
    if began or said:
        assert value(again(*words, of=run), "optimizer.alpha") == 0.9
    else:
        with pytest.raises(UserError, match="Adam takes no 'alpha'"):
            again(*words, of=run)


@pytest.mark.parametrize("typed", ["solver.memory=3", "+solver.strange=3", "solver.inner.memory=3"])
def test_nothing_is_imported_before_it_is_trusted(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_untrusted.py").write_text("class Solver:\n    def __init__(self, **_): ...\n")
    node = {"_target_": "mine_untrusted.Solver"}
    of = replace(stored(), config={**stored().config, "solver": {**node, "inner": node}})
    with pytest.raises(UserError, match=r"set trust=\[mine_untrusted\]"):
        again(typed, of=of)
    assert "mine_untrusted" not in sys.modules


def test_choices_that_stood_in_the_old_one_go_with_it() -> None:
    run = stored("gradient=exact", "solver@gradient.solver=broyden")
    assert "solver@gradient.solver" not in again("gradient=jfb", of=run).choices
    assert again("gradient=neumann", of=run).config.gradient._target_.endswith("Neumann")


def test_typed_phases_are_expanded_as_in_a_new_run() -> None:
    composed = again(PHASES, of=stored("gradient=exact"))
    first, second = composed.config.callbacks.gradient_schedule.phases
    assert first._target_ == second._target_ == "equipoise.callbacks.Phase"
    assert first.gradient._target_ == "equipoise.equilibrium.JacobianFree"
    with pytest.raises(UserError, match="did you mean unrolled"):
        again("callbacks.gradient_schedule.phases=[{start: 0, gradient: unroled}]")


def test_the_values_of_a_recipe_hold_for_a_new_choice_too() -> None:
    run = stored("task=imagenet", "solver=anderson", "gradient=jfb", "task.path=before")
    assert again("solver=broyden", of=run).config.solver.max_steps == 26


def test_a_checkpoint_is_checked_against_its_own_task() -> None:
    composed = again("task.path=elsewhere", "task.val_fraction=0.3", of=stored(*SEGMENTATION))
    assert composed.choices["task"] == "segmentation_folder"
    assert composed.config.task.path == "elsewhere"


@pytest.mark.parametrize("purpose", ["train", "evaluate"])
def test_a_task_tells_which_of_its_settings_decide_the_split(purpose: Purpose) -> None:
    run = stored()
    assert value(again("task.batch_size=32", purpose=purpose), "task.batch_size") == 32
    about = {**run.config["task"]["about"], "split": ["batch_size"]}
    telling = replace(run, config={**run.config, "task": {**run.config["task"], "about": about}})
    with pytest.raises(UserError, match="draws another split"):
        again("task.batch_size=32", of=telling, purpose=purpose)


@pytest.mark.parametrize("purpose", ["train", "evaluate"])
def test_what_the_model_has_read_from_its_task_is_settled(purpose: Purpose) -> None:
    run = stored(
        "model=kernel_transformer",
        "task=number_words",
        "task.encoder_layers=1",
        "task.vocabulary=300",
    )
    with pytest.raises(UserError, match="made with encoder_layers=1"):
        again("task.encoder_layers=2", of=run, purpose=purpose)
    assert value(again("task.encoder_layers=1", of=run), "model.encoder_layers") == 1


def test_hydra_knows_the_keys_of_the_choices_of_a_checkpoint() -> None:
    run = stored(
        "model=kernel_transformer",
        "task=parallel_folder",
        "task.path=before",
        "task.vocabulary=300",
    )
    typed = ("task.path=after", "task.objective.beam=2", "model.dropout=0.1")
    composition = again(*typed, of=run)
    assert hydra_config(composition.hydra_overrides()).task.path == "after"


@pytest.mark.parametrize("purpose", ["train", "evaluate"])
@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("task=cifar10", "is of task=digits"),
        ("model=resnet", "is of model=mdeq"),
        ("experiment=cifar10_mdeq_phantom", "describes a run from its beginning"),
        ("seed=3", "has seed=0"),
        ("task.seed=3", "draws another split"),
        ("task.test_fraction=0.5", "draws another split"),
        ("~trainer", "what every run needs"),
        ("solver=broydn", "did you mean broyden"),
    ],
)
def test_what_a_checkpoint_has_settled_is_refused(purpose: Purpose, typed: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        again(typed, purpose=purpose)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("solver.tool=1", r"did you mean solver\.tol"),
        ("solver.tol=abc", "must be a number"),
        ("solver=none", "needs a solver"),
        ("gradient.solver.tol=1", "no setting"),
        ("gradient=unrolled solver=broyden", "choose solver=fixed_point"),
        ("~callbacks.rport", r"did you mean callbacks\.report"),
        ("+solver.max_steps=3", "exists already"),
        ("solver.tol=1,2", "add -m"),
        ("~solver.tol=3", "solver.tol is 0.001; to remove it"),
        ("recipe.optimizer.adam.lr=30", "set the value itself"),
        ("trust=[os.path]", "must be a list of packages"),
    ],
)
def test_what_cannot_be_used_is_refused(typed: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        again(*typed.split(" "))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "typed",
    ["optimizer.lr=1", "optimizer=sgd", "schedule.warmup=0.1", PHASES, "trainer.overfit_batches=2"],
)
def test_an_evaluation_refuses_what_only_a_training_uses(typed: str) -> None:
    with pytest.raises(UserError, match="is only for training"):
        again(typed, purpose="evaluate")


@pytest.mark.parametrize("model", ["kernel_transformer", "deq_transformer", "transformer"])
@pytest.mark.parametrize("purpose", ["train", "evaluate"])
def test_another_network_of_the_same_weights_is_refused(model: str, purpose: Purpose) -> None:
    run = stored("task=python_docs", f"model={model}", "model.attention.kernel=rbf")
    for node in (run.config["model"], run.config["task"], run.config["task"]["objective"]):
        node["vocabulary"] = 100  # as settled
    for typed in ("model.attention.kernel=polynomial", "model.norm=published", "~model.norm"):
        with pytest.raises(UserError, match="leave it out"):
            again(typed, of=run, purpose=purpose)
    kept = again("model.attention.kernel=rbf", "model.dropout=0.2", of=run, purpose=purpose)
    assert value(kept, "model.attention.kernel") == "rbf"
    assert value(kept, "model.dropout") == 0.2


def test_an_evaluation_takes_another_dataset_of_the_same_kind() -> None:
    run = stored("task=wikitext103", "model.size=tiny")
    for node in (run.config["model"], run.config["task"], run.config["task"]["objective"]):
        node["vocabulary"] = 267_735  # as settled
    composed = again("task=wikitext2", of=run, purpose="evaluate")
    assert composed.config.task.configuration == "wikitext-2-v1"
    assert composed.choices["task"] == "wikitext2"
    assert composed.config.model == again(of=run).config.model
    with pytest.raises(UserError, match="is of task=wikitext103"):
        again("task=wikitext2", of=run)
    with pytest.raises(UserError, match="image_channels=1, not image_channels=3"):
        again("task=cifar10", purpose="evaluate")


def test_what_is_repeated_is_no_change() -> None:
    words = ("task=digits", "model=mdeq", "seed=0", "task.seed=0", "debug=smoke")
    run = stored("debug=smoke")
    assert again(*words, of=run).config.trainer == again(of=run).config.trainer
    with pytest.raises(UserError, match="leave it out"):
        again("debug=null", of=run)


def test_a_task_of_ones_own_needs_its_folder_for_new_choices_alone() -> None:
    run = stored()
    foreign = Stored(run.path, run.config, {**run.choices, "task": "mine"}, 1, 9, {})
    assert again("solver.tol=1e-5", of=foreign).config.solver.tol == 1e-5
    assert again("gradient=phantom", of=foreign).config.gradient == run.config["gradient"]
    for word in ("optimizer=sgd", "gradient=jfb", "solver@eval_solver=broyden", "anytime=curve"):
        with pytest.raises(UserError, match=r"add the hydra\.searchpath"):
            again(word, of=foreign)


def test_a_stored_configuration_follows_the_folder_of_the_run_that_reads_it() -> None:
    run = stored("run_dir=one_folder", "trust=[my_package]")
    assert "one_folder" not in str(run.config)
    assert run.config["trust"] == []
    assert again("run_dir=second", of=run).config.logger.csv.save_dir == "second"


def test_parts_of_a_task_follow_what_is_typed_of_it() -> None:
    run = stored("task=ssl_cifar10", "task.source.train_size=7", "task.path=before")
    typed = ("task.path=here", "task.train_size=8", "task.num_workers=1")
    source = again(*typed, of=run, purpose="evaluate").config.task.source
    assert (source.path, source.train_size, source.num_workers) == ("here", 7, 1)
    apart = again("task.source.path=there", "task.path=here", of=run, purpose="evaluate")
    assert apart.config.task.source.path == "there"
