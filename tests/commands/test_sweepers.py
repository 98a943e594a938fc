"""A sweeper that draws values itself, as plugins of Hydra do, is given what it understands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from equipoise.commands.jobs import jobs, written_out

PLUGIN = '''
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper


class Midpoint(Sweeper):
    """One job, with the middle of each interval."""

    def setup(self, *, hydra_context, task_function, config):
        launcher = Plugins.instance().instantiate_launcher
        self.launcher = launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )
        self.config = config

    def sweep(self, arguments):
        words = []
        for override in OverridesParser.create().parse_overrides(arguments):
            value = override.value()
            middle = (value.start + value.end) / 2 if override.is_interval_sweep() else None
            line = override.input_line
            words.append(line if middle is None else f"{override.get_key_element()}={middle}")
        return self.launcher.launch([words], initial_job_idx=0)


node = {"_target_": f"{__name__}.Midpoint"}
ConfigStore.instance().store(group="hydra/sweeper", name="midpoint", node=node)
'''
SMALL = [
    "model.channels=[4,4]", "model.head_channels=[2,2]", "model.final_channels=8",
    "model.groups=2", "solver.max_steps=2", "gradient=jfb", "callbacks.report=null",
    "task.eval_batch_size=512", "trainer.max_steps=1", "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1", "logger=none",
]  # fmt: skip


@pytest.fixture
def plugins(tmp_path: Path) -> dict[str, str]:
    """An environment in which Hydra finds the sweeper."""
    folder = tmp_path / "hydra_plugins" / "midpoint"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PLUGIN)
    places = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}


def swept(
    words: list[str], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "equipoise", "train", "-m", "hydra/sweeper=midpoint"]
    return subprocess.run(
        [*command, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_an_interval_reaches_the_sweeper(tmp_path: Path, plugins: dict[str, str]) -> None:
    done = swept([*SMALL, "optimizer.lr=interval(1e-3,3e-3)"], tmp_path, plugins)
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "multirun").glob("*/0/.hydra/config.yaml")
    assert yaml.safe_load(record.read_text())["optimizer"]["lr"] == 2e-3
    assert (record.parents[1] / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optimizr.lr=interval(1e-3,3e-3)", "did you mean optimizer.lr?"),
        ("optimizer.lr=interval(-1,1)", "optimizer.lr=-1.0 must be at least 0"),
        ("hydra.job.name=interval(1,2)", "Hydra's own settings are those of the whole multirun"),
    ],
)
def test_what_is_drawn_is_checked_before_it_starts(
    word: str, said: str, tmp_path: Path, plugins: dict[str, str]
) -> None:
    done = swept([word], tmp_path, plugins)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
    assert not (tmp_path / "multirun").exists()


def test_the_sweeper_gets_every_form_as_it_was_typed() -> None:
    words = ["hydra/sweeper=midpoint", "seed=int(interval(1,5))", "solver.tol=tag(a,choice(1,2))",
             "model.size=shuffle(tiny,small)", "trust=[a]", "solver=glob(b*)"]  # fmt: skip
    written = written_out([*words, "gradient=glob(*a*)"])
    assert written == [*words[:-1], "solver=broyden", "gradient=auto,exact,neumann,phantom"]
    (job,) = jobs(written)
    assert job[:3] == ["hydra/sweeper=midpoint", "seed=1", "solver.tol=1"]
    assert job[3] in ("model.size=tiny", "model.size=small")
