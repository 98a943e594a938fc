"""What the command line shows without running anything: --cfg, --info, shell completion."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from equipoise.compose import CONF
from equipoise.config.overrides import keys
from equipoise.errors import UserError, nearest
from equipoise.flags import value_of
from equipoise.hydra_settings import hydra_config
from equipoise.run import composed, rehearse

SHELLS = ("bash", "fish", "zsh")
PASSED_ON = ("--hydra-help", "--shell-completion")


def show_config(flags: Sequence[str], overrides: Sequence[str]) -> int:
    """`--cfg`: print what would run, with what recipes and estimators add; `-p` one package.

    `--cfg hydra` prints Hydra's own settings, `--cfg all` both. Raises UserError where there is no
    such package.
    """
    part = value_of(flags, "--cfg")
    config: Any = {} if part == "hydra" else rehearsed(overrides)
    if part != "job":
        own = hydra_config(overrides).hydra
        config = OmegaConf.merge({"hydra": own}, config)
    return show(config, value_of(flags, "--package"), "--resolve" in flags)


def rehearsed(overrides: Sequence[str]) -> DictConfig:
    """The configuration of a run, after all checks that the run would make."""
    composition = composed(overrides)
    rehearse(composition)
    return composition.config


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


def show_of_hydra(flags: Sequence[str], overrides: Sequence[str]) -> int:
    """`--info`, `--hydra-help` and `--shell-completion`, which are Hydra's own answers."""
    if "--shell-completion" in flags:
        check_completion(overrides)
    passed = [flag for flag in flags if flag in PASSED_ON]
    info = value_of(flags, "--info")
    words = [*passed, *(["--info", info] if info else []), *overrides]
    sys.argv = [sys.argv[0], *words]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(_nothing)()
    except SystemExit as end:  # Hydra's way to end after its help
        return int(end.code or 0)
    return 0


def is_of_hydra(flags: Sequence[str]) -> bool:
    """Whether the answer to the flags is Hydra's."""
    return bool({*PASSED_ON, "--info"} & set(flags))


def check_completion(words: Sequence[str]) -> None:
    """Raise where it is not said for which shell."""
    name, _, shell = words[0].partition("=") if len(words) == 1 else ("", "", "")
    if name not in ("install", "uninstall", "query") or shell not in SHELLS:
        raise UserError(
            "--shell-completion takes install, uninstall or query of one shell: "
            'eval "$(python train.py -sc install=bash)", or fish or zsh'
        )


def _nothing(config: DictConfig) -> None:
    """Hydra asks for a function to run, and runs none of these flags with it."""
