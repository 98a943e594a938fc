"""Wrong values are refused in a sentence, without torch, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from equipoise.config.compose import compose
from equipoise.errors import UserError
from equipoise.running.api import checked

ROOT = Path(__file__).parents[2]
DOCS = "task=python_docs"
SURVEY = "task=range_query"
REFUSED = {
    "optimizer.lr=-1": "at least 0",
    "trust=[8,8]": "not of type list[str]".replace("[", r"\["),
    "optimizer.betas=[0.9,1]": "below 1",
    "model.dropout=-1": "at least 0 and below 1",
    "model.dropout=1": "below 1",
    "model.final_channels=-1": "at least 1",
    "model.final_channels=true": "must be a whole number",
    "model.final_channels=8.0": "must be a whole number",
    "model.channels=[8,1000000000]": "at most 1,000,000",
    "model.channels=[8,abc]": "not of type Sequence",
    "model.size=huge": "not one of auto, tiny, small, large, xl",
    "model.classes=3": "would not fit the data",
    "model.mask_classes=3": "would not fit the data",
    "task.objective.classes=3": "would not fit the data",
    "model.takes=tokens": "describes the model",
    "task.image_size=16": "describes the task",
    "task.batch_size=1000000000000": "at most 1,000,000",
    "task.batch_size=null": "not of type int",
    "task.num_workers=100000": "too many",
    "task.monitor_mode=up": "not one of min, max",
    "task.monitor=3": "not of type str",
    "task.monitor=accuracy": "such as val/loss",
    "task.objective.label_smoothing=1e5": "at most 1",
    "task.objective.label_smoothing=nan": "at most 1",
    "trainer.max_time=1e5": "not of type str | timedelta",
    "trainer.val_check_interval=0": "above 0",
    "trainer.log_every_n_steps=0": "at least 1",
    "trainer.gradient_clip_val=inf": "at least 0",
    "trainer.precision=bf17": "did you mean bf16?",
    "solver.ridge=inf": "at least 0",
    "solver.tol=nan": "at least 0",
    "schedule.warmup=nan": "at most 1",
    "schedule.minimum=inf": "at least 0",
    "equilibrium.random_start=2": "at most 1",
    "seed=-1": "at least 0",
    "seed=1000000000000": "at most",
    "callbacks.progress.refresh_rate=0": "at least 1",
    "ckpt_path=3": "not of type str",
    "run_dir=[]": "not of type str",
    "trainer.barebones=${oc.env:HOME}": "trainer.barebones=.* is not of type bool",
    "recipe.optimizer.adam.lr=1": "set the value itself",
    "task.path=${nowhere}": "cannot resolve|no setting",
}
REFUSED_TOGETHER = {
    (SURVEY, "trainer.accumulate_grad_batches=2"): "trains no weights",
    (SURVEY, "trainer.gradient_clip_val=1"): "trains no weights",
    ("callbacks.checkpoint_best.every_n_train_steps=${oc.env:HOME}",): "every_n_train_steps=/",
    ("regularizer=jacobian", "regularizer.weight=nan"): "at least 0",
    ("regularizer=jacobian", "regularizer.increment_every=nan"): "above 0",
    ("regularizer=jacobian", "regularizer.increment=inf"): "finite",
    ("gradient=exact", "gradient.solver.max_steps=-3"): "at least 1",
    ("solver=adjoint_broyden", "solver.direction=3"): "is not of type None",
    (DOCS, "task.segment_length=1000000000"): "at most",
    (DOCS, "model.width=1000000000"): "at most",
    (DOCS, "model.vocabulary=-3"): "at least 1",
    ("task=copy_memory", "task.train_size=1000000000"): "at most",
    ("task=digit_scenes", "task.canvas=1000000000"): "at most",
    (SURVEY, "task.users=1000000000"): "at most",
    (SURVEY, "task.domain=1000000000"): "at most",
    (SURVEY, "task.epsilon=nan"): "above 0",
    (SURVEY, "task.reports=abc"): "not one of packed, counts",
    ("callbacks.gradient_schedule.phases=[{start: nan}]",): "at least 0",
    ("gradient=jfb", "callbacks.gradient_schedule.phases=[{start: 0, settings: 3}]"): "mapping",
}


@pytest.mark.parametrize(
    ("typed", "said"),
    [*(((line,), said) for line, said in REFUSED.items()), *REFUSED_TOGETHER.items()],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_a_value_that_cannot_be_meant_is_refused_in_a_sentence(typed, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?").replace(" | ", r" \| ")) as told:
        compose(typed)
    assert "\n" not in str(told.value)
    named = typed[-1].partition("=")[0].rpartition(".")[2]
    assert named in str(told.value) or named == "phases"


@pytest.mark.parametrize(
    "typed",
    ["trainer.devices=auto", "trainer.fast_dev_run=3", "trainer.val_check_interval=0.5",
     "trainer.max_time=00:00:01:00", "trainer.max_time={minutes: 3}", "trainer.precision=32",
     "trainer.overfit_batches=3", "solver.tol=0", "solver.tol=1", "optimizer.lr=0",
     "model.channels=[8,8]", "model.expansion=5", "trainer.deterministic=warn"],
)  # fmt: skip
def test_what_the_class_takes_is_taken(typed):
    assert compose([typed]).overrides == [typed]


@pytest.mark.parametrize("group", ["logger", "callbacks"])
def test_an_empty_list_of_a_group_is_none_of_it(group):
    assert compose([f"{group}=[]"]).config[group] == {}


LIGHT = """
import sys
from equipoise.commands import exit_status, train
for line in sys.argv[1:]:
    assert exit_status(train.main, line.split()) == 2, line
heavy = {"torch", "lightning", "numpy", "pydantic"} & set(sys.modules)
assert not heavy, heavy
"""


def test_wrong_values_are_refused_before_anything_heavy_and_leave_nothing(tmp_path: Path):
    lines = [
        "task.batch_size=-1", "model.size=huge", "model.channels=[8,abc]", "task=cityscapes",
        "task=text_folder task.path=nowhere/text", "trainer.precision=17", "solver.ridge=inf",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *lines],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("error: ") == len(done.stderr.splitlines()) == len(lines)
    assert list(tmp_path.iterdir()) == []


SECONDS = 1.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "typed",
    ["task=cityscapes", "task=imagenet task.path=./nowhere", "task=wikitext103 model.width=-1"],
)
def test_a_refusal_that_needs_no_torch_takes_little_time(typed: str, tmp_path: Path):
    """By the processor's time: recipes of several choices, whose composing takes longest."""
    words = [sys.executable, str(ROOT / "train.py"), *typed.split()]
    taken = []
    for _ in range(3):  # other work on the machine makes a process's own time longer, never shorter
        with subprocess.Popen(words, cwd=tmp_path) as child:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 2
        taken.append(usage.ru_utime + usage.ru_stime)
    assert min(taken) < SECONDS
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_can_be_shown_without_the_data():
    with pytest.raises(UserError, match="must be downloaded"):
        checked(["task=cityscapes"])
    checked(["task=cityscapes"], surroundings=False)
