"""The list of commands, and the answers to words that are none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from equipoise import commands
from equipoise.errors import UserError


def python_m_equipoise(*words: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "equipoise", *words]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_list_names_every_command_with_a_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.run(words) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in commands.NAMES:
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert len(line.removeprefix(f"  {name}").strip()) > 10
        assert len(line) <= 100
    assert "import-weights" in commands.NAMES


def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no command 'import-weight'; did you mean import-weights"):
        commands.run(["import-weight"])
    with pytest.raises(UserError, match=r"no command .xyz.; commands: .*import-weights"):
        commands.run(["xyz"])


def test_errors_end_with_status_2_and_one_line() -> None:
    wrong = python_m_equipoise("import-weights", "mdeq")
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert wrong.stderr.startswith("error: the following arguments are required: weights")
    assert len(wrong.stderr.splitlines()) == 1


def test_help_of_a_command() -> None:
    page = python_m_equipoise("import-weights", "--help")
    assert page.returncode == 0
    assert "usage: python -m equipoise import-weights" in page.stdout
