"""Surveys as a task: its state, its counts against the simulation of whole surveys, its errors."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import equipoise
from equipoise.commands import query
from equipoise.config.about import written_choices
from equipoise.config.compose import CONF, compose
from equipoise.errors import UserError
from equipoise.privacy import Ahead, Flat, Tally, Uniform, simulate_counts
from equipoise.tasks import RangeQueries
from equipoise.tasks.range_errors import RangeErrors

SMALL = [
    "task=range_query", "task.users=3000", "task.domain=32", "task.queries=40", "task.repeats=4",
    "task.volumes=[0.5]", "callbacks.report=null", "callbacks.progress=null",
    "trainer.enable_progress_bar=false", "logger=none",
]  # fmt: skip
MODELS = ("ahead", "ahead_pairs", "dht", "flat", "hdg", "hh4", "hio", "sw", "uniform")
SEVERAL = {"ahead_pairs", "hdg"}


@pytest.mark.parametrize("model", MODELS)
def test_every_model_answers(model: str, tmp_path: Path) -> None:
    domain = ["task.domain=[16,16]"] if model in SEVERAL else []
    words = [*SMALL, f"model={model}", "task.epsilon=6", *domain]
    metrics = equipoise.run(*words, f"run_dir={tmp_path}/run")
    assert metrics["status"] == "completed"
    assert metrics["details"]["survey"]["rounds"] == max(metrics["epochs"], 1) - (
        model == "uniform"
    )
    assert metrics["parameters"] == 0
    assert metrics["test"] == metrics["val"]
    if model != "uniform":
        assert metrics["test"]["mse"] < 2e-3
        assert metrics["details"]["mse_by_volume"]["0.5"] < 2e-3
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.parametrize("reports", ["packed", "counts"])
def test_errors_are_those_of_whole_simulated_surveys(reports: str, tmp_path: Path) -> None:
    words = ["task.repeats=60", "task.epsilon=1", f"task.reports={reports}", "model=hh4"]
    metrics = equipoise.run(*SMALL, *words, f"run_dir={tmp_path}/run")
    from equipoise.data import RangeQuery
    from equipoise.privacy import HierarchicalHistogram

    data = RangeQuery(users=3000, domain=32, queries=40, volumes=[0.5])
    data.setup("test")
    ranges, truth = data.workload.ranges[:40], data.workload.truth[:40]
    generator, errors = np.random.default_rng(0), []
    for _ in range(60):
        survey = HierarchicalHistogram().survey(32, 1.0, 3000)
        answers = simulate_counts(survey, data.people.values, generator).answer(ranges)
        errors.append(float(((answers - truth) ** 2).mean()))
    doubt = np.hypot(np.std(errors) / np.sqrt(60), metrics["details"]["standard_error"]["mse"])
    assert abs(metrics["test"]["mse"] - np.mean(errors)) < 4 * doubt


def test_one_seed_gives_one_result_and_another_another(tmp_path: Path) -> None:
    runs = [
        equipoise.run(*SMALL, f"seed={seed}", f"run_dir={tmp_path}/{number}")["test"]["mse"]
        for number, seed in enumerate((5, 5, 6))
    ]
    assert runs[0] == runs[1] != runs[2]


def test_a_state_is_that_of_one_survey() -> None:
    task = RangeQueries(Flat(), 1.0, [4], 10, repeats=2)
    for survey in task.surveys:
        from equipoise.privacy import Tally

        survey.close(0, Tally(np.array([4, 3, 2, 9]), 10))
    state = task.state_dict()
    again = RangeQueries(Flat(), 1.0, [4], 10, repeats=2)
    again.load_state_dict(state)
    assert [s.tallies[0].counts.tolist() for s in again.surveys] == [[4, 3, 2, 9]] * 2
    ranges = [[0, 2]]
    assert again.estimates()[0].answer(ranges) == task.estimates()[0].answer(ranges)
    with pytest.raises(UserError, match=r"holds a survey with epsilon 1\.0"):
        RangeQueries(Flat(), 2.0, [4], 10, repeats=2).load_state_dict(state)
    with pytest.raises(UserError, match="holds a survey with method Flat"):
        RangeQueries(Uniform(), 1.0, [4], 10).load_state_dict(state)


def test_an_unfinished_survey_is_not_judged() -> None:
    task = RangeQueries(Ahead(), 1.0, [8], 100)
    with pytest.raises(UserError, match="not finished"):
        task.test_step({"ranges": torch.tensor([[[0, 4]]])}, 0)


def test_errors_by_volume_and_over_surveys() -> None:
    class Fixed:
        def __init__(self, error: float) -> None:
            self.error = error

        def answer(self, ranges: np.ndarray) -> np.ndarray:
            return np.full(len(ranges), 0.5 + self.error)

    errors = RangeErrors()
    batch = {
        "ranges": torch.zeros(3, 1, 2, dtype=torch.int64),
        "truth": torch.tensor([0.5, 0.5, 0.6], dtype=torch.float64),
        "volume": torch.tensor([float("nan"), float("nan"), 0.1], dtype=torch.float64),
    }
    errors.add(batch, [Fixed(0.1), Fixed(0.3)])  # type: ignore[list-item]
    assert errors.means() == pytest.approx({"mse": (0.01 + 0.09) / 2, "mae": 0.2})
    told = errors.details()
    assert told["mse_by_volume"] == pytest.approx({"0.1": 0.02})
    assert told["standard_error"] == pytest.approx({"mse": 0.04, "mae": 0.1})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task.epsilon=0"], "must be above 0"),
        (["task.epsilon=-1"], "must be above 0"),
        (["task.epsilon=nan"], "must be above 0"),
        (["task.users=3"], "3 users cannot fill 5 rounds"),
        (["task.domain=1"], "task.domain=1 must be at least 2"),
        (["task.repeats=0"], "task.repeats=0 must be at least 1"),
        (["task.path=nowhere.csv"], "There is no file or folder nowhere.csv"),
        (["task.distribution=gausian"], "did you mean gaussian"),
        (["model.mode=papr"], "did you mean paper"),
        (["task.users=5", "task.domain=32"], "has no report"),
    ],
)
def test_what_cannot_work_is_said_in_one_sentence(
    words: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refusal:
        equipoise.run(*SMALL, *words, f"run_dir={tmp_path}/run")
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert said == "has no report" or not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=range_query", "model=mdeq"], "models for this task: ahead, ahead_pairs, dht"),
        (["task=digits", "model=ahead"], "tasks for this model: range_query"),
        (["task=range_query", "solver=broyden"], "solver=broyden would do nothing; leave it out"),
        (["task=range_query", "optimizer=sgd"], "optimizer=sgd would do nothing; leave it out"),
        (["task=range_query", "callbacks=[default,swa]"], "so callbacks=swa would do nothing"),
        (["task=range_query", "optimizer.lr=1"], "trains no weights; leave it out"),
        (["optimizer=none"], "leave optimizer=none out"),
        (
            ["task=range_query", "model=sw", "task.columns=[a,b]"],
            "models for 2: ahead, ahead_pairs",
        ),
        (["task=range_query", "model=dht", "task.domain=[8,8]"], "takes one attribute"),
        (["task=range_query", "model=hdg"], "takes 2 or more attributes"),
    ],
)
def test_pairs_that_cannot_work_are_refused_with_those_that_can(
    words: list[str], said: str
) -> None:
    with pytest.raises(UserError) as refusal:
        compose(words)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_every_mechanism_has_a_file() -> None:
    nodes = dict(written_choices("model", [CONF]))
    named = {name for name, node in nodes.items() if ".privacy." in node["_target_"]}
    assert named == set(MODELS)


@pytest.mark.parametrize("model", ["sw", "ahead"])
def test_a_run_tells_a_standard_error_or_that_there_is_none(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in SMALL if word != "callbacks.report=null"]
    equipoise.run(*words, f"model={model}", "task.repeats=1", f"run_dir={tmp_path}/run")
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    capsys.readouterr()
    assert query.main([str(tmp_path / "run"), "attribute_0 in [10, 20)"]) == 0
    answer = capsys.readouterr().out
    assert ("no standard error" in answer) == ("gives no standard error" in page) == (model == "sw")
    assert ("±" in answer) == (model == "ahead")


def finished() -> RangeQueries:
    task = RangeQueries(Ahead(theta_scale=0), 1.0, [4], 1000, repeats=2)
    for survey in task.surveys:
        survey.close(0, Tally(np.array([300, 200]), 500))
        survey.close(1, Tally(np.array([200, 100, 100, 100]), 500))
    return task


SPOILT: dict[str, Callable[[dict[str, Any]], object]] = {
    "negative": lambda s: s["closed"][1][1]["counts"].__setitem__(0, -1),
    "above the reports": lambda s: s["closed"][1][0]["counts"].__setitem__(0, 501),
    "another width": lambda s: s["closed"][1][1].update(counts=torch.tensor([500])),
    "fractions": lambda s: s["closed"][0][0].update(counts=torch.tensor([249.5, 250.5])),
    "no counts": lambda s: s["closed"][0][0].pop("counts"),
    "no reports": lambda s: s["closed"][0][0].update(reports=None),
    "a round twice": lambda s: s["closed"][0].append(s["closed"][0][0]),
    "another round": lambda s: s["closed"][0][1].update(round=7),
    "no rounds": lambda s: s["closed"].__setitem__(0, None),
    "no surveys": lambda s: s.update(closed=[]),
    "no list": lambda s: s.update(closed={}),
    "nothing": lambda s: s.clear(),
    "no signature": lambda s: s.update(survey=None),
    "another signature": lambda s: s.update(survey={}),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_checkpoint_is_refused_and_nothing_taken(
    spoil: Callable[[dict[str, Any]], object],
) -> None:
    state = deepcopy(finished().get_extra_state())
    fresh = RangeQueries(Ahead(theta_scale=0), 1.0, [4], 1000, repeats=2)
    spoil(state)
    with pytest.raises(UserError) as refusal:
        fresh.set_extra_state(state)
    assert "\n" not in str(refusal.value)
    assert [len(survey.tallies) for survey in fresh.surveys] == [0, 0]
    fresh.set_extra_state(finished().get_extra_state())
    assert fresh.closed == 2
