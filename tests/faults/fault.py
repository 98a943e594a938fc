"""What a fault is: where it strikes, and what a run has to make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.data.images.own_files import own_folder
from tests.end_to_end.resuming import NETWORK, TASKS

Reached = Literal["completed", "failed", "interrupted"]
InFolder = Callable[[Path], None]
QUIET = ("seed=7", "~callbacks.progress", "trainer.enable_progress_bar=false",
         "trainer.log_every_n_steps=2", "trainer.limit_val_batches=1",
         "trainer.limit_test_batches=1", "run_dir=run")  # fmt: skip


def nothing() -> None:
    """No fault in the process."""


def nothing_there(folder: Path) -> None:
    """No fault in the folder."""


@dataclass(frozen=True)
class Base:
    """The words of a run of two epochs of five steps, and what makes its data in a folder."""

    words: tuple[str, ...]
    prepare: InFolder = nothing_there


def own_pictures(folder: Path) -> None:
    """A folder of forty pictures of five classes."""
    own_folder(folder / "own_pictures")


DIGITS = Base(("task=digits", *NETWORK, "task.batch_size=60", "trainer.limit_train_batches=5",
               "trainer.max_epochs=2", *QUIET))  # fmt: skip
PICTURES = Base(
    ("task=image_folder", *TASKS["image_folder"], "task.damaged=error", "task.cache_mb=0",
     "trainer.max_epochs=2", *QUIET),
    own_pictures,
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """A fault in one run.

    what: the fault; then: what the run does; lost: what is lost by it, in the words of the page.
    said: what the output must match. status: of the process. reached: the status in metrics.json;
    None where that file must not be there.

    base, words: the command line, and more words of it. report: whether the run draws one.
    prepare: called with the working folder before. earlier: the name of a fault whose run precedes
    this one in its folder; spoil: called with the folder of that run. inject: called in the process
    of the run. fresh: start the command line by a shell with this script, in which "$@" stands for
    it, in place of the server; variables: of the environment of such a one.

    mend: called with the working folder before the run is gone on with. resumes: whether it can be.
    same: whether it then ends with the bits of a run without a fault. damages: whether it leaves
    checkpoints that cannot be read. check: of more, with the working folder and the output.
    """

    name: str
    what: str
    then: str
    said: str
    lost: str = "nothing"
    status: int = 0
    reached: Reached | None = "completed"
    base: Base = DIGITS
    words: tuple[str, ...] = ()
    report: bool = False
    program: str = "train"
    prepare: InFolder = nothing_there
    earlier: str | None = None
    spoil: InFolder = nothing_there
    inject: Callable[[], None] = nothing
    fresh: str | None = None
    variables: Mapping[str, str | None] = field(default_factory=dict)
    mend: InFolder = nothing_there
    resumes: bool = True
    same: bool = True
    damages: bool = False
    check: Callable[[Path, str], None] = lambda folder, said: None

    @property
    def line(self) -> list[str]:
        """The words of the command line."""
        if self.program != "train":
            return list(self.words)
        words = [*self.going_on, *self.words]
        return [word for word in words if "-m" not in words or word != "run_dir=run"]

    @property
    def going_on(self) -> list[str]:
        """Those with which the run began, without what only its faulty part was told."""
        return [*self.base.words, *([] if self.report else ["callbacks.report=null"])]
