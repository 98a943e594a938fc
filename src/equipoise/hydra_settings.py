"""Hydra's own settings, as a job would see them, and what Hydra does around a single job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, env_override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
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


def hydra_setting(settings: DictConfig, key: str) -> str | None:
    """The value of one of Hydra's own settings in a composition of `hydra_config`.

    Raises UserError where it cannot be resolved.
    """
    try:
        with in_force(settings):
            value = OmegaConf.select(settings, key, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{key} cannot be resolved: {first_line(error)}") from error
    return None if value is None else str(value)


@contextmanager
def in_force(settings: DictConfig) -> Iterator[None]:
    """Let `${hydra:...}` and HydraConfig.get() speak of these settings."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(settings)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


@contextmanager
def job_of_hydra(settings: DictConfig, config: DictConfig, directory: Path) -> Iterator[None]:
    """What Hydra does around a single job in `directory`: its record, its logging, variables.

    config: what runs, for the record.
    """
    with read_write(settings.hydra), open_dict(settings.hydra):
        settings.hydra.mode = RunMode.RUN
        settings.hydra.run.dir = str(directory)
        settings.hydra.runtime.output_dir = str(directory.absolute())
    with in_force(settings):
        if settings.hydra.output_subdir is not None:
            write_record(config, directory / settings.hydra.output_subdir)
        configure_log(settings.hydra.job_logging, settings.hydra.verbose)
        with env_override(dict(settings.hydra.job.env_set)):
            yield


def write_record(config: DictConfig, folder: Path) -> None:
    """Hydra's three files: the configuration, its own settings, and what was typed."""
    settings: Any = HydraConfig.instance().cfg
    parts = {"config": config, "hydra": settings, "overrides": settings.hydra.overrides.task}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in parts.items():
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(content), encoding="utf-8")
