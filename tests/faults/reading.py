"""Files of a run that are damaged or gone when it goes on, or that somebody removes meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

from lightning.pytorch import Trainer

from tests.faults import injection as put
from tests.faults.fault import Fault, InFolder

AUTO = ("resume=auto",)
TRUNCATED, RANDOM = "truncated", "random"
BEFORE = "resumes from best.ckpt, the checkpoint before, and says so"
AGAIN = "the steps since that checkpoint, which are done again"


def spoiling(name: str, how: str) -> InFolder:
    return lambda run: put.damaged(run / name, how)


def last_never_saved(run: Path) -> None:
    """What a run leaves that ends after its last best.ckpt, and before the last.ckpt of it."""
    last = run / "checkpoints" / "last.ckpt"
    last.replace(last.with_name("best.ckpt"))
    (run / "metrics.json").unlink()


def both_checkpoints(run: Path) -> None:
    put.damaged(run / "checkpoints" / "last.ckpt", TRUNCATED)
    put.damaged(run / "checkpoints" / "best.ckpt", RANDOM)


def torn(run: Path) -> None:
    """The last line of the curve is cut off in the middle of a number."""
    content = (run / "metrics.csv").read_bytes()
    (run / "metrics.csv").write_bytes(content[:-9])


def without_folder(folder: Path) -> None:
    """Take the folders away that stand where files belong, if the run has left them."""
    for name in ("metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        if (place := folder / "run" / name).is_dir():
            place.rmdir()


def removing(path: str) -> put.OfTrainer:
    def remove(trainer: Trainer) -> None:
        place = Path(path)
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return remove


def spoiling_best(how: str) -> put.OfTrainer:
    return lambda trainer: put.damaged(Path("run/checkpoints/best.ckpt"), how)


def last_checkpoint(how: str, words: str) -> Fault:
    return Fault(
        f"resume: last.ckpt {how}", f"last.ckpt {words} when a run is resumed", BEFORE,
        r"continues in run after step 5, from best.ckpt", lost=AGAIN,
        earlier="stopped", spoil=spoiling("checkpoints/last.ckpt", how), words=AUTO,
    )  # fmt: skip


def a_folder(path: str, lost: str) -> Fault:
    name = Path(path).name
    return Fault(
        f"resume: {name} a folder", f"{name} is a folder when a run is resumed",
        "is refused before its first step, and the folder is named",
        rf"error: run/{path} is a folder, and a run writes a file of that name",
        lost=lost, status=2, reached="interrupted", earlier="stopped",
        spoil=spoiling(path, "a folder"), words=AUTO, damages=True, mend=without_folder,
    )  # fmt: skip


FAULTS = [
    last_checkpoint(TRUNCATED, "is cut off"),
    last_checkpoint("empty", "has no bytes"),
    last_checkpoint(RANDOM, "holds random bytes"),
    last_checkpoint("a flipped byte", "has one wrong byte"),
    last_checkpoint("gone", "is gone"),
    a_folder("checkpoints/last.ckpt", AGAIN),
    a_folder("checkpoints/best.ckpt", AGAIN),
    a_folder("metrics.csv", "the rows before the checkpoint"),
    Fault(
        "resume: last.ckpt never saved",
        "last.ckpt is gone, and best.ckpt is of the last step",
        "trains no more, tests, and makes last.ckpt of best.ckpt",
        "nothing was left to train after step 10",
        earlier="none",
        spoil=last_never_saved,
        words=AUTO,
    ),
    Fault(
        "resume: last.ckpt unreadable",
        "last.ckpt may not be read",
        BEFORE,
        r"continues in run after step 5, from best.ckpt: last.ckpt cannot be read",
        lost=AGAIN,
        earlier="stopped",
        words=AUTO,
        inject=put.forbidden(r"last\.ckpt$"),
    ),
    Fault(
        "resume: no checkpoint whole",
        "neither checkpoint can be read",
        "is refused, and names the first; nothing is overwritten",
        "error: the checkpoint run/checkpoints/last.ckpt cannot be read",
        status=2,
        lost="the run",
        reached="interrupted",
        earlier="stopped",
        spoil=both_checkpoints,
        words=AUTO,
        resumes=False,
        damages=True,
    ),
    Fault(
        "resume: a named checkpoint damaged",
        "the file that ckpt_path names is cut off",
        "is refused: what was named is never replaced in silence",
        "error: the checkpoint run/checkpoints/last.ckpt cannot be read",
        status=2,
        lost=AGAIN,
        reached="interrupted",
        earlier="stopped",
        damages=True,
        spoil=spoiling("checkpoints/last.ckpt", TRUNCATED),
        words=("ckpt_path=run/checkpoints/last.ckpt",),
    ),
    Fault(
        "resume: config.yaml gone",
        "config.yaml is gone",
        "resumes: the checkpoint holds the configuration",
        "continues in run after step 7",
        earlier="stopped",
        spoil=spoiling("config.yaml", "gone"),
        words=AUTO,
    ),
    Fault(
        "resume: config.yaml damaged",
        "config.yaml holds random bytes",
        "resumes: the checkpoint holds the configuration",
        "continues in run after step 7",
        earlier="stopped",
        spoil=spoiling("config.yaml", RANDOM),
        words=AUTO,
    ),
    Fault(
        "evaluate: config.yaml gone",
        "config.yaml is gone when a checkpoint is evaluated",
        "evaluates: the checkpoint holds the configuration",
        "results: ",
        earlier="none",
        spoil=spoiling("config.yaml", "gone"),
        program="evaluate",
        words=("ckpt_path=run/checkpoints/best.ckpt", "run_dir=tested"),
    ),
    Fault(
        "resume: metrics.json torn",
        "metrics.json is cut off",
        "resumes, and writes it anew",
        "continues in run after step 7",
        earlier="stopped",
        spoil=spoiling("metrics.json", TRUNCATED),
        words=AUTO,
    ),
    Fault(
        "resume: metrics.csv torn",
        "the last line of metrics.csv is cut off",
        "resumes, and writes that row again",
        "continues in run after step 7",
        earlier="stopped",
        spoil=torn,
        words=AUTO,
    ),
    Fault(
        "resume: metrics.csv damaged",
        "metrics.csv holds random bytes",
        "resumes with a warning, and a new curve",
        "metrics.csv",
        earlier="stopped",
        lost="the rows before the checkpoint",
        spoil=spoiling("metrics.csv", RANDOM),
        words=AUTO,
    ),
    Fault(
        "resume: metrics.csv gone",
        "metrics.csv is gone",
        "resumes, with a new curve",
        "continues in run after step 7",
        earlier="stopped",
        lost="the rows before the checkpoint",
        spoil=spoiling("metrics.csv", "gone"),
        words=AUTO,
    ),
    Fault(
        "resume: overrides.json damaged",
        "overrides.json holds random bytes",
        "resumes: the checkpoint holds the words",
        "continues in run after step 7",
        earlier="stopped",
        spoil=spoiling("overrides.json", RANDOM),
        words=AUTO,
    ),
    Fault(
        "resume: finished run",
        "ckpt_path names the last checkpoint of a finished run",
        "shows its results and says that nothing is left to train",
        "the run in run is completed",
        earlier="none",
        words=("ckpt_path=run/checkpoints/last.ckpt",),
    ),
    Fault(
        "removed: last.ckpt",
        "last.ckpt is removed during the run",
        "completes, and writes it after the epoch",
        "results: ",
        inject=put.at_hook("on_train_batch_start", removing("run/checkpoints/last.ckpt"), 7),
    ),
    Fault(
        "removed: best.ckpt",
        "best.ckpt is removed before the test",
        "completes with a warning, and tests the last weights",
        "best.ckpt is not there any more",
        lost="the best weights",
        inject=put.at_hook("on_fit_end", removing("run/checkpoints/best.ckpt")),
    ),
    Fault(
        "best.ckpt a folder",
        "best.ckpt is a folder before the test",
        "completes with a warning, and tests the last weights",
        "best.ckpt is not there any more",
        lost="the best weights",
        inject=put.at_hook("on_fit_end", spoiling_best("a folder")),
        damages=True,
    ),
    Fault(
        "best.ckpt damaged",
        "best.ckpt is cut off before the test",
        "completes with a warning, and tests the last weights",
        "best.ckpt cannot be read: the weights after the last step are tested",
        lost="the best weights",
        inject=put.at_hook("on_fit_end", spoiling_best(TRUNCATED)),
        damages=True,
    ),
    Fault(
        "best.ckpt unreadable",
        "best.ckpt may not be read before the test",
        "completes with a warning, and tests the last weights",
        "best.ckpt cannot be read: the weights after the last step are tested",
        lost="the best weights",
        inject=put.forbidden(r"best\.ckpt$"),
    ),
    Fault(
        "removed: run folder in training",
        "the run folder is removed during training",
        "warns, makes it again with what comes later, and completes",
        "was removed during the run",
        lost="config.yaml and what was written before",
        same=True,
        inject=put.at_hook("on_train_batch_start", removing("run"), 7),
    ),
    Fault(
        "removed: run folder in the test",
        "the run folder is removed during the test",
        "warns, and completes; metrics.json is written into a new folder",
        "was removed during the run",
        lost="the checkpoints and the curve",
        resumes=False,
        inject=put.at_hook("on_test_batch_start", removing("run")),
    ),
    Fault(
        "removed: checkpoints in a validation",
        "the folder of checkpoints is removed",
        "makes it again, and completes",
        "results: ",
        inject=put.at_hook("on_validation_batch_start", removing("run/checkpoints"), 2),
    ),
]
