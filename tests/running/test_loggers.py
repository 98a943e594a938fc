"""Loggers before a run: accounts, packages, names in a multirun."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.config.compose import compose
from equipoise.errors import UserError
from equipoise.running import loggers
from equipoise.running.loggers import has_account, name_in_sweep
from equipoise.running.surroundings import check_surroundings

LOGIN = "machine {}\n  login user\n  password xxxx\n"


@pytest.fixture(autouse=True)
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose user has no account."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*typed: str) -> None:
    check_surroundings(compose(typed).config)


@pytest.mark.parametrize("logger", ["wandb", "[csv,wandb]"])
def test_wandb_without_an_account_says_how_to_do_without(
    logger: str, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"logger\.wandb\.offline=true or WANDB_MODE=offline"):
        check(f"logger={logger}")
    check(f"logger={logger}", "logger.wandb.offline=true")
    (stranger / ".netrc").write_text(LOGIN.format("api.wandb.ai"))
    check(f"logger={logger}")
    (stranger / ".netrc").unlink()
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_API_KEY", "x")):
        with monkeypatch.context() as known:
            known.setenv(name, value)
            check(f"logger={logger}")


@pytest.mark.parametrize(
    ("address", "host", "known"),
    [
        ("", "api.wandb.ai", True),
        ("", "api.forge.coreweave.com", True),
        ("", "example.org", False),
        ("https://wandb.example.org", "wandb.example.org", True),
        ("https://wandb.example.org", "api.wandb.ai", False),
        ("http://localhost:8080", "localhost", True),
    ],
)
def test_the_login_that_counts_is_that_of_the_host(
    address: str, host: str, known: bool, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
    assert not has_account()
    (stranger / ".netrc").write_text(LOGIN.format(host))
    assert has_account() == known


def test_models_are_not_uploaded_by_a_run_that_lightning_keeps_offline() -> None:
    typed = ("logger=wandb", "logger.wandb.offline=true", "logger.wandb.log_model=true")
    with pytest.raises(UserError, match="set WANDB_MODE=offline in its place"):
        check(*typed)


@pytest.mark.parametrize(
    ("logger", "module"), [("tensorboard", "tensorboard"), ("mlflow", "sqlalchemy")]
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    logger: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = loggers.find_spec
    monkeypatch.setattr(loggers, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(UserError, match=rf"logger={logger} needs.*{module}.*equipoise\[{logger}\]"):
        check(f"logger=[csv,{logger}]")


def test_in_a_multirun_group_and_names_follow_its_folders(tmp_path: Path) -> None:
    job = tmp_path / "search" / "3_seed-1"
    job.mkdir(parents=True)
    config = compose(["logger=[wandb,mlflow]"]).config
    name_in_sweep(config, [], job)
    assert config.logger.wandb.group is None
    (tmp_path / "search" / "multirun.yaml").touch()
    name_in_sweep(config, [], job)
    assert (config.logger.wandb.group, config.logger.wandb.name) == ("search", "3_seed-1")
    assert config.logger.mlflow.run_name == "3_seed-1"


def test_a_group_that_was_typed_stays(tmp_path: Path) -> None:
    job = tmp_path / "search" / "0"
    job.mkdir(parents=True)
    (tmp_path / "search" / "multirun.yaml").touch()
    typed = ["logger=wandb", "logger.wandb.group=mine", "logger.wandb.name=one"]
    config = compose(typed).config
    name_in_sweep(config, typed, job)
    assert (config.logger.wandb.group, config.logger.wandb.name) == ("mine", "one")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("logger.wandb.gruop=a", "did you mean logger.wandb.group"),
        ("logger.wandb.job_typ=a", "did you mean logger.wandb.job_type"),
        ("logger.mlflow.run_nme=a", "did you mean logger.mlflow.run_name"),
    ],
)
def test_a_typing_error_gets_one_sentence(typed: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        compose(["logger=[wandb,mlflow]", typed])


@pytest.mark.parametrize(
    "typed",
    ["entity=me", "tags=[a,b]", "notes=text", "resume=must", "job_type=x", "save_code=true",
     "config_exclude_keys=[a]", "mode=offline", "resume_from=abc", "reinit=true"],
)  # fmt: skip
def test_every_argument_of_wandb_is_a_setting(typed: str) -> None:
    compose(["logger=wandb", f"logger.wandb.{typed}"])
