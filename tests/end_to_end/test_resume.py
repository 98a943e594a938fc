"""A run that was stopped and resumed leaves what the whole run leaves, bit for bit."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from equipoise.running.api import run
from tests.data.images.own_files import add_unusable, own_folder
from tests.end_to_end.resuming import (
    BATCHES,
    TASKS,
    checkpoint,
    curve,
    differences,
    interrupted,
    resumed,
)

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
    pytest.mark.filterwarnings("ignore:.*of the pictures in .* cannot be used"),
]
KEPT = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "training_position",
        "carried_memory", "averaged_weights")  # fmt: skip
WORSE = ("schedule.mode=min", "schedule.patience=0")
SCHEDULES = {
    "plateau": ("schedule=plateau", *WORSE),  # which takes what is better for worse
    "warm_plateau": ("schedule=plateau", *WORSE, "schedule.warmup=0.3"),
    "one_cycle": ("schedule=one_cycle",),
    "step": ("schedule=step", "schedule.warmup=0.2", "schedule.milestones=[0.4,0.65,0.8]"),
}
CALLBACKS = {
    "ema": ("callbacks=[default,ema]", "callbacks.ema.decay=0.8"),
    "late_ema": ("callbacks=[default,ema]", "callbacks.ema.start=0.3", "callbacks.ema.every=2"),
    "swa": (
        "callbacks=[default,swa]", "callbacks.swa.start=0.3", "callbacks.swa.lr=0.01",
        "callbacks.swa.annealing=0.5",
    ),
    "stopping": (
        "callbacks=[default,early_stopping]", "callbacks.early_stopping.mode=min",
        "callbacks.early_stopping.patience=2",
    ),
    "finder": ("callbacks=[default,learning_rate_finder]",),
    "fidelity": (
        "callbacks=[default,gradient_fidelity]", "callbacks.gradient_fidelity.every=2",
        "callbacks.gradient_fidelity.max_steps=6",
    ),
    "warm": ("callbacks=[default,warm_start]", "callbacks.warm_start.evaluation=true"),
    "half": ("callbacks=[default,warm_start]", "callbacks.warm_start.storage_dtype=float16",
             "callbacks.warm_start.memory_mb=0.5"),
    "budget": ("callbacks=[default,contraction_budget]", "callbacks.contraction_budget.every=3",
               "callbacks.contraction_budget.least=2", "solver.tol=0.1"),
    "fewer": (
        "callbacks=[default,warm_start,contraction_budget]", "model.initializer=8",
        "callbacks.contraction_budget.every=3", "callbacks.contraction_budget.least=2",
        "callbacks.gradient_schedule.phases=[{start: 0, tol: 0.2}, {start: 6, tol: 0.05}]",
    ),
    "segments": ("callbacks=[default,segment_start]",),
    "draws": ("equilibrium.jitter=2", "equilibrium.random_start=0.5", "regularizer=jacobian"),
}  # fmt: skip


class Case(NamedTuple):
    """A cell of the matrix."""

    task: str
    unit: str = "epochs"  # in which the run's length is typed
    place: str = "within"  # an epoch, or between two
    end: str = "interrupted"
    workers: int = 0
    accumulate: int = 1
    validations: int = 1  # in an epoch
    schedule: str = ""
    optimizer: str = ""
    callback: str = ""
    file: str = "last.ckpt"  # that is resumed


def length(case: Case, batches: int) -> tuple[str, ...]:
    """How long a run is, in whole epochs or in the steps that these take."""
    if case.unit == "epochs" and batches % BATCHES == 0:
        return (f"trainer.max_epochs={batches // BATCHES}", "trainer.max_steps=-1")
    epochs, rest = divmod(batches, BATCHES)
    steps = epochs * -(-BATCHES // case.accumulate) + rest // case.accumulate
    return (f"trainer.max_steps={steps}",)


def settings(case: Case) -> tuple[str, ...]:
    words = (
        f"task={case.task}", "seed=7", *TASKS[case.task], "trainer.deterministic=true",
        *CALLBACKS.get(case.callback, ()),
        "trainer.log_every_n_steps=2", "callbacks.report=null", "trainer.enable_progress_bar=false",
        "~callbacks.progress", f"trainer.accumulate_grad_batches={case.accumulate}",
    )  # fmt: skip
    if case.workers:
        words += (f"task.num_workers={case.workers}",)
    if case.validations > 1:
        words += (f"trainer.val_check_interval={1 / case.validations}",)
    if case.optimizer:
        words += (f"optimizer={case.optimizer}",)
    if case.schedule:
        return (*words, *SCHEDULES[case.schedule])
    # a schedule as long as the run would tell the first part from the whole
    return (*words, "schedule=constant") if case.end == "ended" else words


class Wholes:
    """The whole runs to compare with, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[tuple[str, ...], Path] = {}

    def of(self, words: tuple[str, ...]) -> Path:
        if words not in self.made:
            self.made[words] = self.folder / str(len(self.made))
            run(*words, f"run_dir={self.made[words]}")
        return self.made[words]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Wholes:
    return Wholes(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def folder_of_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    add_unusable(own_folder(folder / "own_pictures"))
    return folder


@pytest.fixture(autouse=True)
def beside_pictures(folder_of_pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The present folder holds what `TASKS` calls own_pictures."""
    monkeypatch.chdir(folder_of_pictures)


SMALL_PART = [
    Case("digits"),
    Case("digits", place="between"),
    Case("digits", unit="steps", end="ended"),
    Case("digits", workers=2, accumulate=2, validations=2),
    Case("image_folder", workers=2, accumulate=2),
    Case("python_docs"),
    Case("number_words"),
    Case("trimodal"),
    Case("nmr_small"),
    Case("digits", place="between", end="ended", validations=2, accumulate=2),
    Case("digits", validations=2, schedule="plateau"),
    Case("digits", place="between", end="ended", schedule="plateau"),
    Case("digits", accumulate=2, optimizer="lars"),  # with groups of two rates
    Case("digits", accumulate=2, validations=2, callback="ema"),
    Case("digits", validations=2, callback="swa", schedule="warm_plateau"),
    Case("digits", validations=2, callback="fewer"),
    Case("python_docs", callback="segments"),
]
OF_ANY_LENGTH = (
    "ema", "finder", "stopping", "fidelity", "draws", "warm", "half", "budget", "fewer",
)  # fmt: skip
# What averages, ends or moves the rate, with every way to stop and go on.
OF_TRAINING = [
    Case("digits", *axes, callback=callback, schedule=schedule, file=file)
    for callback, schedule in (
        ("ema", ""), ("late_ema", ""), ("swa", "plateau"), ("swa", "step"), ("finder", ""),
        ("", "step"), ("", "one_cycle"), ("", "warm_plateau"), ("stopping", ""),
        ("fidelity", ""), ("draws", ""), ("warm", ""), ("half", ""), ("budget", ""), ("fewer", ""),
    )
    for axes, file in (
        (("epochs", "within", "interrupted", 0, 2, 2), "last.ckpt"),
        (("steps", "within", "interrupted"), "last.ckpt"),
        (("epochs", "within", "interrupted"), "best.ckpt"),
        (("steps", "within", "interrupted", 0, 2), "best.ckpt"),
        (("steps", "within", "ended"), "last.ckpt"),
        (("epochs", "between", "ended"), "best.ckpt"),
    )
    # the length of a run is the length of its schedule
    if axes[2] == "interrupted" or (callback in OF_ANY_LENGTH and not schedule)
]  # fmt: skip
GRADIENT_TASKS = [task for task in TASKS if task not in ("hyperparameter", "range_query")]
# Each kind of task with every way to end, and each of the other axes in half of them.
EVERY_KIND = [
    Case(task, *broken, workers=2 * (i % 2) if "digit" in task or "image" in task else 0,
         accumulate=1 + (i // 2 + i) % 2, validations=1 + (i // 4 + i // 2) % 2)
    for task in GRADIENT_TASKS
    for i, broken in enumerate(
        product(("epochs", "steps"), ("within", "between"), ("interrupted", "ended"))
    )
]  # fmt: skip
ALL = [
    Case(task, *axes)
    for task in GRADIENT_TASKS
    for axes in product(
        ("epochs", "steps"), ("within", "between"), ("interrupted", "ended"), (0, 2), (1, 2), (1, 2)
    )
    if (axes[3] == 0 or task == "digits") and Case(task, *axes) not in EVERY_KIND
]


def check(case: Case, wholes: Wholes, folder: Path) -> None:
    whole = wholes.of((*settings(case), *length(case, 2 * BATCHES)))
    first = {"within": BATCHES + 2, "between": BATCHES}[case.place]
    if case.end == "interrupted":
        interrupted(folder, first - 1, *settings(case), *length(case, 2 * BATCHES))
        resumed(folder, name=case.file)
    else:
        run(*settings(case), *length(case, first), f"run_dir={folder}")
        resumed(folder, *length(case, 2 * BATCHES), name=case.file)
    for name in ("last.ckpt", "best.ckpt"):
        reached, expected = checkpoint(folder, name), checkpoint(whole, name)
        for key in KEPT:
            assert differences(reached.get(key), expected.get(key), key) == []
    assert curve(folder) == curve(whole)


@pytest.mark.parametrize("case", SMALL_PART, ids=lambda case: "-".join(map(str, case)))
def test_a_broken_run_goes_on_to_the_same_bits(case: Case, wholes: Wholes, tmp_path: Path) -> None:
    check(case, wholes, tmp_path / "part")


def test_the_rate_of_a_plateau_has_fallen_in_the_checkpoint_of_its_validation(
    wholes: Wholes,
) -> None:
    case = Case("digits", place="between", end="ended", schedule="plateau")
    whole = wholes.of((*settings(case), *length(case, 2 * BATCHES)))
    rate = float([row["lr-Adam"] for row in curve(whole) if row["lr-Adam"]][-1])
    (scheduler,) = checkpoint(whole)["lr_schedulers"]
    (group,) = checkpoint(whole)["optimizer_states"][0]["param_groups"]
    assert scheduler["_last_lr"] == [group["lr"]] == [pytest.approx(rate / 10)]


@pytest.mark.slow
@pytest.mark.parametrize("case", EVERY_KIND, ids=lambda case: "-".join(map(str, case)))
def test_every_kind_of_task_goes_on_to_the_same_bits(
    case: Case, wholes: Wholes, tmp_path: Path
) -> None:
    check(case, wholes, tmp_path / "part")


@pytest.mark.slow
@pytest.mark.parametrize("case", OF_TRAINING, ids=lambda case: "-".join(map(str, case)))
def test_averages_and_schedules_go_on_to_the_same_bits(
    case: Case, wholes: Wholes, tmp_path: Path
) -> None:
    check(case, wholes, tmp_path / "part")


HYPERPARAMETER = ("task=hyperparameter", "seed=7", *TASKS["hyperparameter"],
                  "callbacks.report=null", "~callbacks.progress",
                  "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1")  # fmt: skip
SHINE = ("gradient=shine", "solver.opa_every=2")


KERNEL = ("model=kernel_ridge", "model.strengths=one", "model.scales=feature")
SOFT = ("optimizer=adam", "gradient=neumann", "schedule=cosine")
IN_SHORT = [("ended", ()), ("interrupted", SHINE), ("elsewhere", KERNEL)]
IN_FULL = [("interrupted", ()), ("elsewhere", ()), ("ended", SHINE), ("elsewhere", SHINE),
           ("interrupted", KERNEL), ("ended", KERNEL), ("interrupted", SOFT)]  # fmt: skip


@pytest.mark.parametrize(
    ("end", "choice"),
    [*IN_SHORT, *(pytest.param(*case, marks=pytest.mark.slow) for case in IN_FULL)],
)
def test_outer_steps_go_on_to_the_same_bits(
    end: str, choice: tuple[str, ...], tmp_path: Path
) -> None:
    """Each begins with the solution, the curvature pairs and the adjoint of the last one."""
    words = (*HYPERPARAMETER, *choice, "trainer.max_steps=6", "trainer.max_epochs=-1")
    whole, part, last = (tmp_path / name for name in ("whole", "part", "last"))
    run(*words, f"run_dir={whole}")
    if end == "interrupted":
        interrupted(part, 3, *words)
        resumed(part)
    else:
        run(*words, "trainer.max_steps=3", f"run_dir={part}")
        folder = last if end == "elsewhere" else part
        run(f"ckpt_path={part}/checkpoints/last.ckpt", f"run_dir={folder}", "trainer.max_steps=6")
        part = folder
    for name in ("last.ckpt", "best.ckpt"):
        reached, expected = checkpoint(part, name), checkpoint(whole, name)
        for state in (reached, expected):
            state["state_dict"]["_extra_state"]["history"].pop("seconds")
        for key in KEPT:
            assert differences(reached.get(key), expected.get(key), key) == []
    clocks = {"train/seconds"}
    steps = [
        [{k: v for k, v in row.items() if k not in clocks} for row in curve(at)]
        for at in (part, whole)
    ]
    assert steps[0] == steps[1][-len(steps[0]) :]
    assert end == "elsewhere" or len(steps[0]) == len(steps[1])


@pytest.mark.slow
def test_a_survey_goes_on_to_the_same_counts(tmp_path: Path) -> None:
    """It is interrupted in the middle of a round, and saved at the end of it."""
    words = ("task=range_query", "seed=7", *TASKS["range_query"], "callbacks.report=null",
             "~callbacks.progress", "trainer.enable_progress_bar=false")  # fmt: skip
    run(*words, f"run_dir={tmp_path / 'whole'}")
    interrupted(tmp_path / "part", 2, *words)
    resumed(tmp_path / "part")
    for key in KEPT:
        reached, expected = (checkpoint(tmp_path / name).get(key) for name in ("part", "whole"))
        assert differences(reached, expected, key) == []
    assert curve(tmp_path / "part") == curve(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL, ids=lambda case: "-".join(map(str, case)))
def test_every_broken_run_goes_on_to_the_same_bits(
    case: Case, wholes: Wholes, tmp_path: Path
) -> None:
    check(case, wholes, tmp_path / "part")
