"""Which choices fit together: each check raises UserError with a sentence that names such choices.

The checks read `about:` in the files of the choices, and know no kind of task or model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig

from equipoise.config.about import about, no_layer, written_choices
from equipoise.errors import UserError


def check_model_and_task(
    config: DictConfig, choices: Mapping[str, str], roots: Sequence[Path]
) -> None:
    """Raise where the model does not take what the task gives, or give what the task wants."""
    model, task = config.model, config.task
    if fits(model, task):
        return
    models = [name for name, node in written_choices("model", roots) if fits(node, task)]
    tasks = [name for name, node in written_choices("task", roots) if fits(model, node)]
    raise UserError(
        f"model={choices['model']} takes {' or '.join(_samples(model))} and gives "
        f"{', '.join(about(model, 'gives'))}, but task={choices['task']} gives "
        f"{about(task, 'gives')} and wants {about(task, 'wants')}; models for this task: "
        f"{', '.join(models) or 'none'}; tasks for this model: {', '.join(tasks) or 'none'}"
    )


def fits(model: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
    """Whether the model takes what the task gives, and gives what it wants."""
    fitting = about(task, "gives") in _samples(model)
    return fitting and about(task, "wants") in about(model, "gives", ())


def _samples(model: Mapping[str, Any]) -> list[str]:
    """The kinds of samples that a model takes."""
    samples = about(model, "takes", ())
    return [samples] if isinstance(samples, str) else list(samples)


def check_counts(config: DictConfig, choices: Mapping[str, str], roots: Sequence[Path]) -> None:
    """Raise where the model needs more or fewer items, such as attributes, than the task has."""
    model, task = config.model, config.task
    for noun, settings in about(task, "counts", {}).items():
        lists = [task[name] for name in settings if isinstance(task.get(name), list | ListConfig)]
        count = next((len(entries) for entries in lists if entries), 1)
        if _takes_count(model, noun, count):
            continue
        fitting = [
            name
            for name, node in written_choices("model", roots)
            if fits(node, task) and _takes_count(node, noun, count)
        ]
        raise UserError(
            f"model={choices['model']} takes {_counts(model, noun)}, but task={choices['task']} "
            f"has {count} here ({' or '.join(f'task.{name}' for name in settings)}); models for "
            f"{count}: {', '.join(fitting)}"
        )


def _takes_count(model: Mapping[str, Any], noun: str, count: int) -> bool:
    least, most = (about(model, end, {}).get(noun, count) for end in ("least", "most"))
    return bool(least <= count <= most)


def _counts(model: Mapping[str, Any], noun: str) -> str:
    """How many items a model takes, in words."""
    least, most = (about(model, end, {}).get(noun) for end in ("least", "most"))
    if most is None:
        return f"{least} or more {noun}s"
    return f"one {noun}" if most == 1 else f"{least or 1} to {most} {noun}s"


def check_equilibrium(
    config: DictConfig, choices: Mapping[str, str], roots: Sequence[Path]
) -> None:
    """Raise where a model with an equilibrium layer lacks a solver, or one without is given one."""
    has_layer = about(config.model, "equilibrium", True)
    for group in ("solver", "gradient"):
        choice = choices[group]
        if not has_layer and choice != "none":
            raise UserError(
                f"{no_layer(config.model, choices['model'])}, so {group}={choice} would do "
                f"nothing; leave it out{_alternative(config, roots)}"
            )
        if has_layer and choice == "none":
            raise UserError(
                f"model={choices['model']} has an equilibrium layer and needs a {group}; "
                f"leave {group}=none out"
            )


def _alternative(config: DictConfig, roots: Sequence[Path]) -> str:
    """A clause that names a model with an equilibrium layer, where one fits the task."""
    for name, node in written_choices("model", roots):
        if about(node, "equilibrium", True) is True and fits(node, config.task):
            return f", or choose a model that has one, such as model={name}"
    return ""


def check_objective(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where a task or a model does not offer the given objective or encoder."""
    if "encoder" in choices and not about(config.model, "encoder", False):
        raise UserError(
            f"encoder={choices['encoder']} is a part of model=barlow only: leave it "
            f"out, or choose model=barlow instead of model={choices['model']}"
        )
    choice, offered = choices.get("objective"), about(config.task, "objectives", ())
    if choice is not None and choice not in offered:
        those = f"it offers {', '.join(offered)}" if offered else "it has one of its own"
        raise UserError(
            f"objective={choice} cannot train task={choices['task']}: {those}; leave it out"
        )
    if choice is None and offered:
        raise UserError(f"task={choices['task']} needs an objective: {', '.join(offered)}")


def check_trainable(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where a task that only tests a checkpoint is to be trained."""
    if about(config.task, "of_checkpoint", False):
        task = choices["task"]
        raise UserError(
            f"task={task} tests a trained model and trains none: "
            f"python evaluate.py ckpt_path=<run>/checkpoints/best.ckpt task={task}"
        )


def check_weights(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where a model with weights lacks an optimiser, or one without is given one."""
    has_weights = about(config.model, "weights", True)
    for group in ("optimizer", "schedule"):
        choice = choices.get(group, "none")
        if not has_weights and choice != "none":
            raise UserError(
                f"model={choices['model']} trains no weights, so {group}={choice} would do "
                "nothing; leave it out"
            )
        if has_weights and choice == "none":
            raise UserError(
                f"model={choices['model']} has weights to train and needs the group {group}; leave "
                f"{group}=none out"
            )


AVERAGES = ("ExponentialMovingAverage", "StochasticWeightAveraging")
OF_GRADIENT_STEPS = (*AVERAGES, "LearningRateFinder")
"""Callbacks that need weights, and a task that leaves their steps to the trainer."""


def check_steps(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where gradients are to be summed or clipped, or weights averaged, without any.

    Also where two kinds of averaging would replace each other's weights.
    """
    averages = _callbacks_of(config, AVERAGES)
    if len(averages) > 1:
        raise UserError(
            f"callbacks={averages[0]} and callbacks={averages[1]} both replace the weights by "
            "an average: choose one of them"
        )
    if about(config.task, "own_steps", False):
        reason = f"task={choices['task']} takes steps of its own"
    elif not about(config.model, "weights", True):
        reason = f"model={choices['model']} trains no weights"
    else:
        return
    for name, idle in (("accumulate_grad_batches", 1), ("gradient_clip_val", None)):
        if config.trainer.get(name) not in (None, idle):
            raise UserError(
                f"{reason}, so trainer.{name}={config.trainer[name]} would do nothing; leave it out"
            )
    for name in _callbacks_of(config, OF_GRADIENT_STEPS):
        raise UserError(f"{reason}, so callbacks={name} would do nothing; leave it out")


def _callbacks_of(config: DictConfig, kinds: Sequence[str]) -> list[str]:
    """The names of the callbacks whose class is among the given ones of ours."""
    targets = [f"equipoise.callbacks.{kind}" for kind in kinds]
    nodes = (config.get("callbacks") or {}).items()
    entries = [(str(name), node) for name, node in nodes if isinstance(node, DictConfig)]
    return [name for name, node in entries if node.get("_target_") in targets]


def check_solver_and_gradient(
    config: DictConfig, choices: Mapping[str, str], roots: Sequence[Path]
) -> None:
    """Raise where the estimator cannot use the solver; name solvers that suit this model."""
    solvers = about(config.gradient, "solvers")
    if solvers and choices["solver"] not in solvers:
        roles = {name: about(node, "finds") for name, node in written_choices("solver", roots)}
        minimizes = about(config.model, "minimizes", False)
        fitting = [s for s in solvers if minimizes or roles.get(s) != "minimum"]
        raise UserError(
            f"gradient={choices['gradient']} cannot work with solver={choices['solver']}; "
            f"choose solver={' or solver='.join(fitting)}"
        )


def check_roles(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where a solver that only minimises, or only solves adjoint systems, is misplaced."""
    minimizes = about(config.model, "minimizes", False)
    for group in ("solver", "eval_solver"):
        role = about(config.get(group), "finds", "equilibrium")
        if role == "adjoint":
            raise UserError(
                f"{group}={_chosen(choices, group)} solves only adjoint systems: choose "
                f"gradient=exact solver@gradient.solver={_chosen(choices, group)}"
            )
        if role == "minimum" and not minimizes:
            raise UserError(
                f"{group}={_chosen(choices, group)} minimises an objective, and "
                f"model={choices['model']} has none: choose {group}=anderson or {group}=broyden"
            )
    adjoint = about((config.get("gradient") or {}).get("solver"), "finds", "equilibrium")
    if adjoint == "minimum" or (adjoint == "adjoint" and not minimizes):
        raise UserError(
            f"solver@gradient.solver={choices.get('solver@gradient.solver')} does not fit the "
            f"adjoint system of model={choices['model']}: choose "
            "solver@gradient.solver=anderson"
        )


def _chosen(choices: Mapping[str, str], group: str) -> str | None:
    return choices.get(group) or choices.get(f"solver@{group}")


def check_outer_updates(config: DictConfig) -> None:
    """Raise where a solver would need the loss's gradient, which the command line cannot give."""
    for group in ("solver", "eval_solver"):
        node = config.get(group) or {}
        aims_itself = group == "solver" and about(node, "finds") == "minimum"
        if node.get("opa_every") and not node.get("direction") and not aims_itself:
            raise UserError(
                f"{group}.opa_every needs {group}.direction, the gradient of the loss as a "
                f"function, which only Python can give: leave {group}.opa_every out here"
            )


def check_regularizer(
    config: DictConfig, choices: Mapping[str, str], roots: Sequence[Path]
) -> None:
    """Raise where the regulariser has nothing to act on, or does not fit the estimator."""
    choice = choices.get("regularizer", "none")
    if choice != "none" and about(config.model, "minimizes", False):
        raise UserError(
            f"model={choices['model']} minimises its objective as it is, so regularizer={choice} "
            "would do nothing; leave it out"
        )
    if choice != "none" and not about(config.model, "equilibrium", True):
        raise UserError(
            f"{no_layer(config.model, choices['model'])}, so regularizer={choice} would do "
            f"nothing; leave it out{_alternative(config, roots)}"
        )
    gradients = about(config.regularizer, "gradients")
    if gradients and choices["gradient"] not in gradients:
        raise UserError(
            f"regularizer={choice} cannot work with gradient={choices['gradient']}; "
            f"choose gradient={' or gradient='.join(gradients)}"
        )


def check_curve_on_model(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where an anytime curve is requested for a model whose solves it cannot follow."""
    if not config.get("anytime"):
        return
    if about(config.model, "minimizes", False):
        raise UserError(
            f"model={choices['model']} has one solution for all samples, and so none to compare "
            "per sample; leave anytime out"
        )
    if not about(config.model, "equilibrium", True):
        raise UserError(
            f"{no_layer(config.model, choices['model'])}, so there is no budget to vary; leave "
            "anytime out"
        )


def check_single_run(overrides: Sequence[Override]) -> None:
    """Raise where a sweep was chosen without -m."""
    for override in overrides:
        if override.key_or_group == "sweep" and override.value():
            raise UserError(f"{override.input_line} starts several runs: add -m")


def check_curve_in_training(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where train.py is given what is a setting of evaluate.py."""
    if config.get("anytime"):
        raise UserError(
            f"anytime={choices['anytime']} is for an evaluation: "
            "python evaluate.py ckpt_path=<run>/checkpoints/best.ckpt anytime=curve"
        )
