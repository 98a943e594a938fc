"""Whole runs on the bundled molecules: their scores by type, files, options and evaluations."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from equipoise.data.molecules.tables import TYPES
from equipoise.errors import UserError
from equipoise.running.api import evaluate, run

SMALL = ("task=nmr_small", "model.width=8", "model.heads=2", "model.layers=2", "model.inner=16",
         "model.head_width=4", "model.feature_width=3", "callbacks.progress=null",
         "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1",
         "trainer.max_epochs=1")  # fmt: skip
SHORT = (*SMALL, "trainer.limit_train_batches=2", "trainer.limit_val_batches=1",
         "trainer.limit_test_batches=1")  # fmt: skip
SCORES = {"loss", "mae", "mean_log_mae"}

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
]


def reread(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("couplings") / "run"
    run(*SMALL, "seed=3", f"run_dir={folder}")
    return folder


def test_a_run_reports_every_score_and_writes_its_predictions(trained: Path) -> None:
    metrics = reread(trained)
    for stage in ("val", "test"):
        assert set(metrics[stage]) == SCORES
        assert all(math.isfinite(value) for value in metrics[stage].values())
    assert metrics["test"]["loss"] == pytest.approx(metrics["test"]["mae"])
    details = metrics["details"]
    assert list(details["types"]) == [name for name in TYPES if details["couplings"][name]]
    counts = {name: score["count"] for name, score in details["types"].items()}
    assert counts == {name: n for name, n in details["couplings"].items() if n}
    logarithms = [math.log(score["mae"]) for score in details["types"].values()]
    mean = sum(logarithms) / len(logarithms)
    assert metrics["test"]["mean_log_mae"] == pytest.approx(mean, abs=1e-6)
    assert "yardsticks" not in details
    found = rows_of(trained / "report" / "couplings.csv")
    assert len({row["id"] for row in found}) == len(found) == sum(counts.values())
    assert (trained / "report" / "couplings.png").is_file()
    submission = rows_of(trained / "report" / "predictions.csv")
    assert [row["id"] for row in submission] == [row["id"] for row in found]
    page = (trained / "report" / "index.html").read_text()
    assert "Predicted against true couplings of the test molecules by type" in page


@pytest.mark.parametrize("size", [16, 1])
def test_an_evaluation_reproduces_the_test_whatever_the_batch(
    trained: Path, size: int, tmp_path: Path
) -> None:
    found = evaluate(
        f"ckpt_path={trained}/checkpoints/best.ckpt", f"task.eval_batch_size={size}",
        f"run_dir={tmp_path / 'tested'}",
    )  # fmt: skip
    assert found["test"] == pytest.approx(reread(trained)["test"], rel=1e-5)
    assert (tmp_path / "tested" / "report" / "couplings.png").is_file()


@pytest.mark.parametrize(
    "typed",
    ["heads=4", "quads=true", "legacy_indices=true", "equilibrium=true", "pair_feature=learned"],
)
def test_another_network_of_the_same_weights_is_refused(trained: Path, typed: str) -> None:
    with pytest.raises(UserError, match=f"model.{typed}: the network of .* was trained with"):
        evaluate(f"ckpt_path={trained}/checkpoints/best.ckpt", f"model.{typed}")


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("split_seed=1", "draws another split of the data than the checkpoint was trained with"),
        ("test_fraction=0.3", "draws another split of the data than the checkpoint was trained"),
        ("rare=1", "the checkpoint was trained on other molecules, so the labels of atoms"),
    ],
)
def test_other_training_molecules_are_refused(
    trained: Path, typed: str, sentence: str, tmp_path: Path
) -> None:
    """Whose labels mean others, or whose test molecules were among those of the training."""
    words = (f"ckpt_path={trained}/checkpoints/best.ckpt", f"run_dir={tmp_path / 'tested'}")
    with pytest.raises(UserError, match=sentence) as refusal:
        evaluate(*words, f"task.{typed}")
    assert len(str(refusal.value).splitlines()) == 1


def test_a_checkpoint_is_refused_in_one_sentence_where_it_is_typed(
    trained: Path, command: Any
) -> None:
    words = f"ckpt_path={trained}/checkpoints/best.ckpt"
    done = command("evaluate.py", words, "task.split_seed=1")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "split_seed" in done.stderr


def test_seeds_share_their_test_molecules_and_nothing_else(trained: Path, tmp_path: Path) -> None:
    for name, seed in (("same", 3), ("other", 4)):
        run(*SMALL, f"seed={seed}", f"run_dir={tmp_path / name}")
    first, same, other = (
        rows_of(folder / "report" / "couplings.csv")
        for folder in (trained, tmp_path / "same", tmp_path / "other")
    )
    assert first == same
    assert [row["id"] for row in first] == [row["id"] for row in other]
    assert first != other


OPTIONS = [
    ("task.contributions=true", "task.objective.loss=log_mae", "model.quads=true"),
    ("model.legacy_indices=true", "model.quads=true", "task.batch_size=1"),
    ("model.weight_norm=true", "model.residual_blocks=2"),
    tuple(f"model.{of}_feature=learned" for of in ("atom", "pair", "triplet")),
    ("trainer.precision=bf16-mixed",),
]
MORE_OPTIONS = [
    ("task.objective.loss=log_mae",),
    ("task.contributions=true",),
    ("model.legacy_indices=true",),
    ("model.quads=true", "model.quad_feature=learned"),
    ("model.attention_dropout=0.2", "model.dropout=0.2", "model.head_dropout=0.2"),
    ("task.batch_size=1",),
    ("task.rare=1", "task.max_pairs=100"),
    ("trainer.accumulate_grad_batches=2", "schedule=cosine", "schedule.from_first_step=true"),
    ("trainer.precision=16-mixed",),
    ("trainer.precision=64-true",),
]
EQUILIBRIA = [
    ("gradient=exact", "model.quads=true"),
    ("regularizer=jacobian", "model.weight_norm=true", "model.dropout=0.2"),
]
MORE_EQUILIBRIA = [
    ("gradient=phantom", "model.legacy_indices=true"),
    ("gradient=shine", "solver=broyden", "trainer.precision=bf16-mixed"),
    ("gradient=jfb", "solver=fixed_point", "task.contributions=true"),
    ("gradient=auto",),
]


def assert_runs(folder: Path, *words: str) -> None:
    metrics = run(*SHORT, *words, f"run_dir={folder}")
    for stage in ("val", "test"):
        assert all(math.isfinite(value) for value in metrics[stage].values())
    assert (folder / "report" / "couplings.csv").is_file()


def also_slow(words: list[tuple[str, ...]]) -> list[Any]:
    return [pytest.param(typed, marks=pytest.mark.slow) for typed in words]


@pytest.mark.parametrize("words", [*OPTIONS, *also_slow(MORE_OPTIONS)], ids=" ".join)
def test_every_option_trains(words: tuple[str, ...], tmp_path: Path) -> None:
    assert_runs(tmp_path / "run", *words)
    details = reread(tmp_path / "run")["details"]
    assert ("mae_of_contributions" in details) == ("task.contributions=true" in words)


@pytest.mark.parametrize("words", [*EQUILIBRIA, *also_slow(MORE_EQUILIBRIA)], ids=" ".join)
def test_the_equilibrium_trains_with_every_part(words: tuple[str, ...], tmp_path: Path) -> None:
    assert_runs(tmp_path / "run", "model.equilibrium=true", *words)


@pytest.mark.slow
def test_an_equilibrium_is_evaluated_as_it_was_tested(tmp_path: Path) -> None:
    metrics = run(*SHORT, "model.equilibrium=true", f"run_dir={tmp_path / 'run'}")
    found = evaluate(
        f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt", f"run_dir={tmp_path / 'tested'}"
    )
    assert found["test"] == pytest.approx(metrics["test"], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("model.heads=3",), "3 heads do not divide a width of 8"),
        (("model.heads=0",), "model.heads=0 must be at least 1"),
        (("model.dropout=1.5",), "model.dropout=1.5 must be at least 0 and below 1"),
        (("model.quad_feature=fourier",), "quad_feature=fourier is not one of sine, learned"),
        (("task.split_seed=-1",), "task.split_seed=-1 must be at least 0"),
        (("task.rare=0",), "task.rare=0 must be at least 1"),
        (("task.objective.loss=squared",), "loss=squared is not one of absolute, log_mae"),
        (("task.objective.contribution_weight=-1",), "weight=-1 must be at least 0"),
        (("task.max_pairs=5",), "more than task.max_pairs=5: raise that to"),
        (("task.val_fraction=0.5", "task.test_fraction=0.5"), "leave nothing to train on"),
        (("model.contributions=true",), "model.contributions=True would not fit the data"),
        (("model.equilibrium=true", "regularizer=correction"), "choose regularizer=jacobian"),
        (("model.feature_width=8", "model.pair_feature=learned"), "feature_width=8 must be above"),
        (("model.pair_types=[1,2,3]",), "leave model.pair_types out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused_in_a_sentence(
    words: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence) as refusal:
        run(*SHORT, *words, f"run_dir={tmp_path / 'run'}")
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.slow
def test_two_processes_train_and_judge_the_whole_split(
    trained: Path, command: Any, tmp_path: Path
) -> None:
    both = ("strategy=ddp_cpu", "trainer.devices=2")
    words = (f"ckpt_path={trained}/checkpoints/best.ckpt", f"run_dir={tmp_path / 'both'}")
    done = command("evaluate.py", *words, *both)
    assert done.returncode == 0, done.stderr
    assert reread(tmp_path / "both")["test"] == pytest.approx(reread(trained)["test"], rel=1e-5)
    for name, settings in (("stack", ()), ("equilibrium", ("model.equilibrium=true",))):
        done = command("train.py", *SMALL, *settings, *both, f"run_dir={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        details = reread(tmp_path / name)["details"]
        assert sum(score["count"] for score in details["types"].values()) == len(
            rows_of(trained / "report" / "couplings.csv")
        )
