"""`python -m equipoise dashboard`: its words, its specification, and what it says without W&B."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from equipoise import commands
from equipoise.commands.dashboard import main
from equipoise.errors import UserError
from equipoise.report.dashboard import PICTURES, SECTIONS
from tests.end_to_end.logged_names import documented

SOMEBODY = "somebody/equipoise"
LINES = "Run History Line Plot"
NO_PACKAGE = r"needs the package wandb-workspaces.*equipoise\[dashboard\]"


@pytest.fixture
def specification(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    pytest.importorskip("wandb_workspaces", reason="the extra `dashboard` is not installed")
    file = tmp_path / "new" / "dashboard.json"
    assert commands.run(["dashboard", SOMEBODY, "name=Deep", f"output={file}"]) == 0
    assert capsys.readouterr().out == f"specification: {file}\n"
    written: dict[str, Any] = json.loads(file.read_text())
    return written


def panels(specification: dict[str, Any]) -> list[dict[str, Any]]:
    sections = specification["spec"]["section"]["panelBankConfig"]["sections"]
    return [panel for section in sections for panel in section["panels"]]


def test_the_specification_has_a_panel_for_every_chart(specification: dict[str, Any]) -> None:
    assert (specification["entity"], specification["project"]) == ("somebody", "equipoise")
    assert specification["displayName"] == "Deep"
    lines = [
        panel["config"]
        for panel in panels(specification)
        if panel["viewType"] == "Run History Line Plot"
    ]
    charts = [chart for charts in SECTIONS.values() for chart in charts]
    assert [line["chartTitle"] for line in lines] == [chart.title for chart in charts]
    assert {line["xAxis"] for line in lines} == {"trainer/global_step"}
    logarithmic = {line["chartTitle"] for line in lines if line.get("yLogScale")}
    assert logarithmic == {chart.title for chart in charts if chart.logarithmic}
    assert {"residual", "residual of the backward solve"} == logarithmic


def test_every_column_of_a_panel_is_documented() -> None:
    names = documented()
    for charts in SECTIONS.values():
        for chart in charts:
            assert set(chart.columns) <= names
            assert chart.columns or [n for n in names if re.match(str(chart.matching), n)]
    assert {f"report/{name}" for name in PICTURES} <= names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs the project of the runs, as <user or team>/<project>"),
        (["equipoise"], "needs the project of the runs"),
        (["a/b", "c/d"], "needs the project of the runs"),
        ([SOMEBODY, "nmae=x"], r"takes no 'nmae=x'; did you mean name\?"),
        ([SOMEBODY, "output="], "takes no 'output='"),
    ],
)
def test_what_is_typed_wrongly_is_told_in_a_sentence(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        main(words)


def test_without_an_account_it_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("wandb_workspaces", reason="the extra `dashboard` is not installed")
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"run `wandb login`, or write it to a file with output="):
        main([SOMEBODY])


def test_without_the_package_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(
        UserError, match=r"needs the package wandb-workspaces.*equipoise\[dashboard\]"
    ):
        main([SOMEBODY, "output=never.json"])


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces", reason="the extra `dashboard` is not installed")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output=.*file/x\.json cannot be written"):
        main([SOMEBODY, f"output={tmp_path}/file/x.json"])
