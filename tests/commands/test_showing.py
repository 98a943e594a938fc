"""What `--cfg job` shows has passed all that a run checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.commands import train
from equipoise.errors import UserError

SMALL = ["model.channels=[8,8]", "model.head_channels=[2,4]", "model.final_channels=16",
         "model.groups=4"]  # fmt: skip


def test_the_configuration_is_shown_where_it_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["--cfg", "job", "--package", "solver", "solver.tol=1e-5", *SMALL]) == 0
    assert "tol: 1.0e-05" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("solver.stop=relativ", "did you mean relative"),
        ("trainer.precision=bf17", "trainer.precision=bf17"),
        ("optimizer.lr=-1", "optimizer.lr=-1 must be at least 0"),
        ("model.groups=5", "model: "),
        ("ckpt_path=lost.ckpt", "there is no checkpoint"),
    ],
)
def test_the_configuration_is_checked_as_that_of_a_run(typed: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        train.main(["--cfg", "job", *SMALL, typed])
