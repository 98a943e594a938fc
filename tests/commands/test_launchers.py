"""The launchers' settings, and the sentence where a package is missing."""

from __future__ import annotations

import re

import pytest

from equipoise.commands import launchers
from equipoise.errors import UserError
from equipoise.running.side_by_side import Share
from tests.test_documentation import ROOT

ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|", re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "extra"),
    [("joblib", "sweep"), ("submitit_local", "slurm"), ("submitit_slurm", "slurm"), ("ray", "ray")],
)
def test_a_missing_package_is_named_with_its_extra(name, extra, monkeypatch) -> None:
    monkeypatch.setattr(launchers, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=rf"needs the package .*: pip install 'equipoise\[{extra}"):
        launchers.chosen([f"hydra/launcher={name}", "seed=1,2"])
    assert launchers.chosen(["seed=1,2"]) == "basic"


def test_what_is_typed_stays() -> None:
    lines = launchers.settings("submitit_slurm", ["hydra.launcher.mem_gb=64"], None)
    assert "hydra.launcher.cpus_per_task=8" in lines
    assert not any("mem_gb" in line for line in lines)


def test_joblib_is_told_how_many_at_a_time() -> None:
    for typed in ([], ["hydra.launcher.n_jobs=-1"]):
        assert launchers.settings("joblib", typed, Share(3, 1, 1)) == ["hydra.launcher.n_jobs=3"]
    assert launchers.settings("basic", [], None) == []


def test_the_page_lists_our_settings_for_slurm() -> None:
    section = (ROOT / "docs" / "sweeps.md").read_text().partition("| setting of")[2]
    told = dict(ROW.findall(section.partition("\n\n")[0]))
    assert told == {
        name: str(value) for name, value in launchers.DEFAULTS["submitit_slurm"].items()
    }


def test_the_plugins_know_our_settings() -> None:
    conf = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config")
    for name, node in (
        ("submitit_local", conf.LocalQueueConf),
        ("submitit_slurm", conf.SlurmQueueConf),
    ):
        for key, value in launchers.DEFAULTS[name].items():
            before = getattr(node(), key)
            assert str(before).lower() != str(value), key
