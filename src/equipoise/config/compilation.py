"""`compile` and `memory_format`: what a configuration needs for them to have an effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from omegaconf import DictConfig

from equipoise.config.about import about, no_layer
from equipoise.config.overrides import CommandLine
from equipoise.errors import UserError

Compile = Literal["cell", "graph", "cell+graph"]
DIVIDING = ("fsdp", "deepspeed")
"""Strategies that exchange the weights of the network for parts of them."""


def check_compile(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise UserError where there is nothing to compile, or another setting conflicts."""
    word, strategy = config.get("compile"), config.trainer.get("strategy")
    if config.get("memory_format") is not None and strategy in DIVIDING:
        raise UserError(
            f"memory_format=channels_last needs whole weights, but strategy={strategy} shards "
            "them: choose another strategy, or leave memory_format out"
        )
    if word is None:
        return
    model = choices["model"]
    if not about(config.model, "weights", True) or about(config.model, "minimizes", False):
        raise UserError(
            f"model={model} has no network to compile, so compile={word} would do nothing; leave "
            "it out"
        )
    if "cell" in word and not about(config.model, "equilibrium", True):
        instead = "choose compile=graph" if "graph" in word else "leave it out"
        raise UserError(
            f"{no_layer(config.model, model)}, so compile=cell would do nothing; {instead}"
        )
    if strategy in DIVIDING:
        raise UserError(
            f"compile={word} needs whole weights in every process, but strategy={strategy} shards "
            "them: choose another strategy, or leave compile out"
        )
    if "graph" in word and about(config.task, "own_steps", False):
        raise UserError(
            f"task={choices['task']} takes its own steps, but compile={word} records those of "
            "the trainer; leave it out"
        )


def settle(config: DictConfig, words: CommandLine, purpose: Literal["train", "evaluate"]) -> None:
    """Give the configuration of a checkpoint the keys of this file, before anything typed is set.

    An evaluation does not compile the network unless asked to, however it was trained.
    Raises UserError where an evaluation is to record training steps.
    """
    config["compile"] = config.get("compile") if purpose == "train" else None
    config.setdefault("memory_format", None)
    typed = words.value("compile")
    if purpose == "evaluate" and "graph" in str(typed):
        raise UserError(
            f"compile={typed} records training steps and is not for an evaluation; leave it out, "
            "or choose compile=cell"
        )
