"""`python -m equipoise compare`: its words, and the folder that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise import commands
from equipoise.commands.compare import main
from equipoise.errors import UserError
from tests.report.test_comparison import config, write_run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three runs: one alone, two below another folder."""
    monkeypatch.chdir(tmp_path)
    for seed, folder in enumerate(("one", "sweep/0_seed-1", "sweep/1_seed-2")):
        write_run(tmp_path / folder, {"solver": "anderson"}, config(seed, 1e-3))
    return ["one", "sweep"]


def test_a_page_of_all_runs(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(["compare", *runs]) == 0
    printed = capsys.readouterr().out
    assert "3 runs" in printed
    assert printed.endswith("page: comparison/index.html\n")
    html = Path("comparison/index.html").read_text()
    assert "python -m equipoise compare one sweep" in html
    assert html.count('/report/index.html"') == 3


def test_a_folder_that_holds_something_is_kept(runs: list[str]) -> None:
    words = [*runs, "output=out/page"]
    assert main(words) == 0
    (Path("out") / "page" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"out/page is not empty: choose another output="):
        main(words)
    assert main([*words, "overwrite"]) == 0
    assert Path("out/page/mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "compare needs folders of runs or multiruns"),
        (["output=x"], "compare needs folders of runs or multiruns"),
        (["one"], "compare needs two runs or more, and one is one"),
        (["one", "two"], "there is no folder two"),
        (["one", "outptu=x"], "compare takes no 'outptu=x'; did you mean output"),
        (["one", "--all"], "there is no flag --all"),
        (["one", "sweep", "over=fold"], "over=fold: the runs do not differ in it"),
        (["one", "sweep", "output=one/metrics.json"], "output=one/metrics.json cannot be written"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(runs: list[str], words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        main(words)
    assert not Path("comparison").exists()
