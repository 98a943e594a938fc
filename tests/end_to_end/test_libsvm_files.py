"""The experiments on large sparse files, on small ones of the same form."""

from __future__ import annotations

import bz2
from pathlib import Path

import pytest

import equipoise
from equipoise.config.compose import compose
from equipoise.data import Tabular
from equipoise.data.tabular.sources import sparse_problem
from equipoise.errors import UserError

EXPERIMENTS = ("news20_logistic_regression", "real_sim_logistic_regression")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Six hundred rows of 400 columns, packed as LIBSVM's page has them."""
    problem = sparse_problem(600, 400, 0.02)
    lines = []
    for row, label in enumerate(problem.labels):
        words = problem.features[[row]]
        pairs = zip(words.indices.tolist(), words.data.tolist(), strict=True)
        lines.append(" ".join([f"{label:+.0f}", *(f"{i + 1}:{x!r}" for i, x in pairs)]))
    file = tmp_path / "texts.bz2"
    file.write_bytes(bz2.compress("\n".join(lines).encode()))
    return file


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_finds_a_strength_on_a_sparse_file(
    name: str, texts: Path, tmp_path: Path
) -> None:
    metrics = equipoise.run(
        f"experiment={name}", f"task.path={texts}", "trainer.max_epochs=6",
        f"run_dir={tmp_path}/run", "~callbacks.report",
    )  # fmt: skip
    assert (metrics["gradient"], metrics["solver"]) == ("shine", "lbfgs")
    start = equipoise.build(f"experiment={name}", f"task.path={texts}").log_strength.item()
    assert abs(metrics["details"]["lambda"] - start) > 0.5
    assert metrics["test"]["accuracy"] > 0.6
    assert metrics["test"]["loss"] < 0.69


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_has_the_published_settings(name: str, texts: Path) -> None:
    config = compose([f"experiment={name}", f"task.path={texts}"]).config
    data = Tabular(
        path=str(texts), **{k: config.task[k] for k in ("val_fraction", "test_fraction")}
    )
    assert data.inspect()["training_rows"] == 540
    (batch,) = data.train_dataloader()
    assert batch["training"]["features"].is_sparse_csr
    model = equipoise.build(f"experiment={name}", f"task.path={texts}")
    low, high = model.bounds
    assert model.log_strength.item() == pytest.approx((low + high) / 2)
    assert high - low == pytest.approx(24)
    assert not model.intercept
    assert model.equilibrium.solver.memory == 30
    assert config.trainer.max_epochs == 30


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_what_to_fetch(name: str) -> None:
    with pytest.raises(UserError, match=r"needs data: fetch \S+\.bz2 .* set task\.path to it"):
        equipoise.run(f"experiment={name}")


def test_a_broken_line_ends_the_run_before_it_begins(texts: Path, tmp_path: Path) -> None:
    lines = bz2.decompress(texts.read_bytes()).decode().splitlines()
    lines[416] += " 7:nan"
    (tmp_path / "broken").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"broken, line 417: the value of '7:nan' is not a number"):
        equipoise.run(
            "task=hyperparameter", f"task.path={tmp_path}/broken", f"run_dir={tmp_path}/run"
        )
    assert not (tmp_path / "run").exists()
