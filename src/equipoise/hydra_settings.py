"""Hydra's own settings, as a job would see them."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose as hydra_compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from equipoise.errors import UserError
from equipoise.hydra_composition import first_line, hydra_of_our_own


def hydra_config(overrides: Sequence[str]) -> DictConfig:
    """Hydra's composition of one job's overrides with its own settings under `hydra`.

    What recipes and estimators add is not in it. Raises UserError where it cannot be composed.
    """
    try:
        with hydra_of_our_own():
            lines = ["hydra.job.name=train", *overrides]
            return hydra_compose("train", lines, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"cannot compose the configuration: {first_line(error)}") from error


def hydra_setting(overrides: Sequence[str], key: str) -> str:
    """The value of one of Hydra's own settings, such as hydra.run.dir, as a job would see it.

    Raises UserError where it cannot be resolved.
    """
    config = hydra_config(overrides)
    of_the_job = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        return str(OmegaConf.select(config, key, throw_on_missing=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{key} cannot be resolved: {first_line(error)}") from error
    finally:
        HydraConfig.instance().cfg = of_the_job
