"""Flags that show something without running anything: --cfg, --info, shell completion."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from equipoise.commands import completion
from equipoise.commands.completion.shells import SCRIPTS, script
from equipoise.config.compose import CONF, Composition
from equipoise.config.hydra import hydra_config
from equipoise.config.overrides import keys
from equipoise.errors import UserError, nearest
from equipoise.running.api import rehearse


def show_training(composition: Composition, arguments: Namespace) -> int:
    """`--cfg`: print what would run, with additions by recipes and estimators; `-p` one package.

    The checks are those of a run. `--cfg hydra` prints Hydra's own settings, `--cfg all` both.
    Raises UserError where there is no such package.
    """
    config: Any = {}
    if arguments.cfg != "hydra":
        rehearse(composition)
        config = composition.config
    if arguments.cfg != "job":
        settings = hydra_config(composition.hydra_overrides()).hydra
        config = OmegaConf.merge({"hydra": settings}, config)
    return show(config, arguments.package, arguments.resolve)


def show(config: Any, package: str | None, resolve: bool) -> int:
    """Print a configuration, or one package of it, as yaml."""
    if package not in (None, "_global_"):
        shown = OmegaConf.select(config, package, throw_on_missing=False)
        if shown is None and package not in set(keys(config)):
            raise UserError(f"no package '{package}'{nearest(package, keys(config))}")
    else:
        shown = config
    if not OmegaConf.is_config(shown):
        print(shown)
        return 0
    try:
        print(OmegaConf.to_yaml(shown, resolve=resolve))
    except OmegaConfBaseException as error:
        raise UserError(f"--resolve: {str(error).splitlines()[0]}") from error
    return 0


def is_of_hydra(arguments: Namespace) -> bool:
    """Whether Hydra itself answers the flags."""
    return bool(arguments.info or arguments.hydra_help)


def show_of_hydra(arguments: Namespace) -> int:
    """`--info` and `--hydra-help`, which are Hydra's own answers."""
    flags = ["--info", arguments.info] if arguments.info else []
    flags += ["--hydra-help"] * arguments.hydra_help
    sys.argv = [sys.argv[0], *flags, *arguments.overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(_nothing)()
    except SystemExit as end:  # Hydra ends so after its help
        return int(end.code or 0)
    return 0


def show_completion(words: Sequence[str]) -> int:
    """`--shell-completion`: a script for the shell, or the answer to its query.

    Raises UserError where no shell is named.
    """
    action, _, shell = words[0].partition("=") if len(words) == 1 else ("", "", "")
    if action not in (*SCRIPTS, "query") or shell not in SCRIPTS["install"]:
        raise UserError(
            "--shell-completion takes install, uninstall or query of one shell: "
            'eval "$(python train.py -sc install=bash)", or fish or zsh'
        )
    print(completion.query() if action == "query" else script(action, shell))
    return 0


def _nothing(config: DictConfig) -> None:
    """Hydra requires a function to run, but does not call it for these flags."""
