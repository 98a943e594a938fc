"""Another class at `_target_`: what it takes can be typed, what it lacks is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from equipoise.config.compose import compose
from equipoise.config.exchange import model_name
from equipoise.config.hydra import plain
from equipoise.errors import UserError

MINE = """
class Net:
    def __init__(self, equilibrium, *, classes: int, width: int = 8) -> None: ...


class Plain:
    def __init__(self, classes: int, width: int = 8) -> None: ...


class Late:
    def __init__(self, patience: int = 3, name: str = "late") -> None: ...


class Base:
    def __init__(self, params, lr: float = 0.1, eps: float = 1e-8) -> None: ...


class Forwarding(Base):
    def __init__(self, params, **others) -> None: ...
"""


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_exchanged.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "mdeq"),
        (["model=resnet"], "resnet"),
        (["model._target_=mine_exchanged.Net"], "Net"),
        (["model=resnet", "model._target_=mine_exchanged.Plain"], "Plain"),
    ],
)
def test_a_run_is_named_after_a_class_of_ones_own(words: list[str], name: str) -> None:
    composition = compose(words)
    assert model_name(composition.config, composition.choices) == name


def node(key: str, *overrides: str) -> dict[str, object]:
    return plain(OmegaConf.select(compose(overrides).config, key))


def test_settings_of_another_optimizer_are_those_of_its_signature() -> None:
    words = ("optimizer.alpha=0.9", "optimizer._target_=torch.optim.RMSprop")
    found = node("optimizer", *words)
    assert found == node("optimizer", *reversed(words))
    assert found["alpha"] == 0.9
    assert {"lr", "eps", "weight_decay", "_partial_"} < set(found)
    assert not {"betas", "amsgrad", "fused"} & set(found)


def test_a_recipe_keeps_its_learning_rate_for_another_class() -> None:
    rate = node("optimizer", "task=digits")["lr"]
    assert node("optimizer", "optimizer._target_=torch.optim.RMSprop")["lr"] == rate


def test_a_class_that_hands_arguments_on_takes_those_of_its_bases_and_any_typed() -> None:
    words = ("optimizer._target_=mine_exchanged.Forwarding", "optimizer.strange=3")
    found = node("optimizer", *words)
    assert found["strange"] == 3
    assert {"lr", "eps"} < set(found)
    assert "amsgrad" not in found


@pytest.mark.parametrize(
    ("key", "words", "value"),
    [
        ("schedule.step_size", ["schedule._target_=torch.optim.lr_scheduler.StepLR",
                                "schedule.step_size=30"], 30),
        ("solver.damping", ["solver._target_=equipoise.equilibrium.FixedPoint",
                            "solver.damping=0.5"], 0.5),
        ("regularizer.weight", ["regularizer._target_=equipoise.equilibrium.JacobianRegularizer",
                                "regularizer.weight=2.0"], 2.0),
        ("eval_solver.memory", ["eval_solver._target_=equipoise.equilibrium.Broyden",
                                "eval_solver.memory=3"], 3),
        ("gradient.steps", ["gradient._target_=equipoise.equilibrium.Neumann",
                            "gradient.steps=7"], 7),
        ("model.width", ["model._target_=mine_exchanged.Net", "model.width=9"], 9),
        ("model.width", ["model=resnet", "model._target_=mine_exchanged.Plain",
                         "model.width=9"], 9),
        ("optimizer.maximize", ["optimizer.maximize=true"], True),
        ("logger.wandb.tags", ["logger=wandb", "logger.wandb.tags=[a,b]"], ["a", "b"]),
        ("trainer.profiler.dirpath",
         ["trainer.profiler._target_=lightning.pytorch.profilers.SimpleProfiler",
          "trainer.profiler.dirpath=there"], "there"),
        ("callbacks.mine.patience", ["+callbacks.mine._target_=mine_exchanged.Late",
                                     "+callbacks.mine.patience=4"], 4),
        ("callbacks.mine.patience", ["+callbacks.mine={_target_: mine_exchanged.Late, patience: 1}",
                                     "callbacks.mine.patience=4"], 4),
        ("callbacks.progress.patience", ["callbacks.progress._target_=mine_exchanged.Late",
                                         "callbacks.progress.patience=4"], 4),
    ],
)  # fmt: skip
def test_what_a_class_takes_can_be_typed(key: str, words: list[str], value: object) -> None:
    composition = compose(words)
    config = OmegaConf.to_container(composition.config)
    for name in key.split("."):
        config = config[name]
    assert config == value
    composition.hydra_overrides()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["optimizer._target_=torch.optim.RMSprop", "optimizer.alhpa=1"],
         "RMSprop takes no 'alhpa'; did you mean optimizer.alpha?"),
        (["optimizer._target_=torch.optim.RMSprop", "optimizer.betas=[0.9,0.9]"],
         "RMSprop takes no 'betas'"),
        (["optimizer._target_=torch.optim.RMSprop", "optimizer.alpha=high"],
         "optimizer.alpha=high is not of type float"),
        (["optimizer._target_=torch.optim.SGD", "optimizer.params=[1]"], "takes no 'params'"),
        (["optimizer._target_=mine_exchanged.Nope"], "mine_exchanged has no Nope"),
        (["optimizer._target_=mine_absent.Nope"], "there is no package mine_absent: install it"),
        (["logger=wandb", "logger.wandb.tgas=[a]"], "did you mean logger.wandb.tags?"),
        (["callbacks.mine._target_=mine_exchanged.Late"], "to add it, type +callbacks.mine._targ"),
        (["+callbacks.mine._target_=mine_exchanged.Late", "callbacks.mine.patients=2"],
         "Late takes no 'patients'; did you mean callbacks.mine.patience?"),
        (["model._target_=mine_exchanged.Plain"], "such as model=resnet"),
        (["model=resnet", "model._target_=mine_exchanged.Net"], "such as model=mdeq"),
        (["model._target_=mine_exchanged.Net", "model.equilibrium=3"], "takes no 'equilibrium'"),
        (["solver.wrong=1"], "no setting 'solver.wrong' in solver=anderson"),
    ],
)  # fmt: skip
def test_what_a_class_does_not_take_is_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        compose(words)
    assert sentence in str(refused.value)
