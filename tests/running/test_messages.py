"""What Hydra and the libraries may say on the way: nothing that we do not say ourselves."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pytest

from equipoise.config.compose import compose
from equipoise.running.messages import on_whole_words, quiet_lightning


def test_no_log_file_is_made_and_no_handler_of_hydra_speaks_for_libraries() -> None:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    from equipoise.config.compose import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = hydra_compose("train", return_hydra_config=True).hydra
    assert settings.job_logging.root is None
    assert settings.hydra_logging.root is None
    assert "hydra" not in compose([]).config


def test_the_font_cache_of_matplotlib_is_not_spoken_of() -> None:
    with warnings.catch_warnings():
        quiet_lightning()
    assert not logging.getLogger("matplotlib.font_manager").isEnabledFor(logging.WARNING)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_warning_is_broken_between_words_and_only_on_a_terminal(
    terminal: bool, monkeypatch: Any
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    said = "warning: " + "several words of a long sentence " * 4
    lines = on_whole_words(said.strip()).splitlines()
    assert " ".join(lines) == said.strip()
    assert all(len(line) <= 40 for line in lines) == terminal
