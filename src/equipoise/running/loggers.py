"""Prepares the loggers of a run: their packages and accounts, their names, where they resume."""

from __future__ import annotations

import csv
import netrc
import os
import secrets
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from equipoise.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from equipoise.callbacks.loggers import Kept
    from equipoise.config.stored import Stored


WANDB = "WandbLogger"
MLFLOW = "MLFlowLogger"
MULTIRUN = "multirun.yaml"
"""The file that Hydra writes into the folder of a multirun."""
PACKAGES = {
    MLFLOW: ("mlflow", ("mlflow", "sqlalchemy", "alembic")),
    "TensorBoardLogger": ("tensorboard", ("tensorboard",)),
}
"""Loggers of packages that come with an extra of ours: the extra, and its modules."""
WANDB_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
"""Present and earlier hosts of W&B's cloud: an older login counts for both."""


def check_loggers(loggers: Mapping[str, Any]) -> None:
    """Raise UserError where a logger lacks its package or its account."""
    for name, node in loggers.items():
        if not node:
            continue
        target = str(node.get("_target_"))
        check_packages(name, target)
        if target.endswith(WANDB):
            check_account(node)
            check_artifacts(node)


def check_packages(name: str, target: str) -> None:
    """Raise UserError where the packages of a logger are not installed."""
    for kind, (extra, modules) in PACKAGES.items():
        missing = [module for module in modules if find_spec(module) is None]
        if target.endswith(kind) and missing:
            raise UserError(
                f"logger={name} needs the package {missing[0]}: pip install 'equipoise[{extra}]'"
            )


def check_artifacts(logger: Mapping[str, Any]) -> None:
    """Raise UserError where models are to be uploaded offline, which Lightning refuses."""
    if logger.get("offline") and logger.get("log_model"):
        raise UserError(
            "logger.wandb.log_model needs an account: with logger.wandb.offline=true leave it out, "
            "or set WANDB_MODE=offline in its place, and `wandb sync` uploads the models later"
        )


def check_account(logger: Mapping[str, Any]) -> None:
    """Raise UserError where W&B would ask for an account, naming the way without one."""
    mode = os.environ.get("WANDB_MODE", "online")
    if not (logger.get("offline") or mode != "online" or has_account()):
        raise UserError(
            "logger=wandb needs an account: run `wandb login`, or write a local run with "
            "logger.wandb.offline=true or WANDB_MODE=offline"
        )


def has_account() -> bool:
    """Whether this machine knows an account of W&B's."""
    return bool({"WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"} & set(os.environ)) or _has_login()


def _has_login() -> bool:
    """Whether `wandb login` has left an entry for the host; a file that cannot be read counts."""
    own = urlsplit(os.environ.get("WANDB_BASE_URL", ""))
    hosts = (own.netloc, own.hostname) if own.hostname else WANDB_HOSTS
    home = Path.home()
    file = Path(os.environ.get("NETRC") or home / ".netrc")
    file = file if file.is_file() else home / "_netrc"
    try:
        logins = netrc.netrc(file) if file.is_file() else None
        return bool(logins and any(logins.authenticators(host) for host in hosts))
    except (netrc.NetrcParseError, OSError):
        return True


def keep_earlier_curve(loggers: Sequence[Any], stored: Stored) -> None:
    """Remove from the loggers what a run that resumes in its own folder will write again.

    The logger of metrics.csv, which would replace the file, gets the rows up to the checkpoint.
    """
    from lightning.pytorch.loggers import CSVLogger

    from equipoise.callbacks.loggers import Rewinding

    for logger in loggers:
        file = Path(logger.log_dir) / "metrics.csv" if isinstance(logger, CSVLogger) else None
        if file is not None and file.is_file():
            rows = _earlier_rows(file, stored)  # first: the experiment removes the file
            logger.experiment.metrics.extend(rows)
        elif isinstance(logger, Rewinding):
            logger.rewind(_kept(stored))


def _earlier_rows(file: Path, stored: Stored) -> list[dict[str, str]]:
    """The rows of metrics.csv up to the checkpoint; none, with a warning, if it is damaged."""
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = [{k: v for k, v in row.items() if k and v} for row in csv.DictReader(lines)]
        return _up_to(stored, rows)
    except (ValueError, csv.Error) as error:
        warnings.warn(f"{file} is damaged ({error}): its curve begins anew", stacklevel=2)
        return []


def _kept(stored: Stored) -> Kept:
    """The rows other loggers keep: an epoch ended by the checkpoint has its last row already."""
    from equipoise.callbacks.loggers import Kept

    last = stored.steps if stored.last_row is None else stored.last_row
    return Kept(stored.steps, last, stored.validated, stored.marks)


def _up_to(stored: Stored, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows that were written before the checkpoint, or of the epoch that it closes."""
    kept = len(rows) if stored.rows is None else stored.rows
    while kept < len(rows) and float(rows[kept].get("epoch") or stored.epochs) < stored.epochs:
        kept += 1
    return rows[:kept]


def assign_wandb_run(config: DictConfig, overrides: Sequence[str], same_run: bool) -> None:
    """Give a W&B run its id in advance, so that it is stored with the configuration.

    A run that resumes in its own folder resumes its W&B run; in another folder it is a new one.
    """
    for name, node in _wandb_nodes(config):
        if not (_typed(overrides, name, "id", "version") or (same_run and node.get("id"))):
            node.id = secrets.token_hex(4)


def name_in_sweep(config: DictConfig, overrides: Sequence[str], directory: Path) -> None:
    """Group the W&B runs of a multirun by its folder, and name each by its job's folder.

    MLflow's runs are named likewise. What was typed stays.
    """
    sweep = next((f for f in directory.parents if (f / MULTIRUN).is_file()), None)
    if sweep is None:
        return
    job = directory.relative_to(sweep).as_posix()
    for name, node in _wandb_nodes(config):
        if not _typed(overrides, name, "group"):
            node.group = sweep.resolve().name
        if not _typed(overrides, name, "name"):
            node.name = job
    for name, node in _nodes(config, MLFLOW):
        if not _typed(overrides, name, "run_name"):
            node.run_name = job


def _wandb_nodes(config: DictConfig) -> list[tuple[str, Any]]:
    return _nodes(config, WANDB)


def _nodes(config: DictConfig, target: str) -> list[tuple[str, Any]]:
    """The loggers of a class, or of one of our subclasses of it, by their keys."""
    nodes = (config.get("logger") or {}).items()
    return [(str(k), n) for k, n in nodes if n and str(n.get("_target_", "")).endswith(target)]


def _typed(overrides: Sequence[str], logger: str, *names: str) -> bool:
    """Whether one of these settings of a logger is on the command line."""
    keys = tuple(f"logger.{logger}.{name}=" for name in names)
    return any(line.lstrip("+").startswith(keys) for line in overrides)
