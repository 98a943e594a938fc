"""Data that break before a run or in the middle of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lightning.pytorch import Trainer

from tests.data.images.own_files import own_folder
from tests.data.images.segmentation_files import blocks, noise, write
from tests.data.molecules.csv_writing import PAIRS, STRUCTURES
from tests.data.text.pair_writing import PAIRS as SENTENCES
from tests.data.text.pair_writing import write_jsonl
from tests.faults import injection as put
from tests.faults.fault import PICTURES, Base, Fault, InFolder
from tests.faults.injection import at_hook
from tests.faults.reading import removing

SKIP = ("task.damaged=skip",)
STOPS = "stops, and names the file; the checkpoint before stays"
SINCE = "the steps since the last checkpoint, which are done again"
LEAVES_OUT = "leaves it out, warns, completes, and lists it in metrics.json"
REFUSED = "is refused in a sentence that names its place, before its first step"
SIZE = "task.batch_size=4"


def broken(*names: str) -> put.OfTrainer:
    """Some pictures become damaged."""

    def spoil(trainer: Trainer) -> None:
        for name in names:
            Path("own_pictures", name).write_bytes(b"no picture any more")

    return spoil


ALL_LIMES = broken(*(f"lime/{n}.{'png' if n % 2 else 'jpg'}" for n in range(8)))


def repaired(folder: Path) -> None:
    shutil.rmtree(folder / "own_pictures", ignore_errors=True)
    own_folder(folder / "own_pictures")


def lists_it(folder: Path, said: str) -> None:
    details = json.loads((folder / "run" / "metrics.json").read_text())["details"]
    places = [entry["picture"] for entry in details["skipped_pictures"]]
    assert places
    assert all(place.startswith("own_pictures/lime/") for place in places), places
    assert len(places) == details["pictures"]["skipped"]


def survey(folder: Path) -> None:
    (folder / "people.csv").write_text("age\n" + "31\n" * 20 + "forty\n")


def sentences(folder: Path) -> None:
    (folder / "pairs").mkdir()
    write_jsonl(folder / "pairs", train=SENTENCES, val=SENTENCES, test=SENTENCES)
    with (folder / "pairs" / "train.jsonl").open("a") as file:
        file.write('{"de": "ein\n')


def text(folder: Path) -> None:
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_bytes(b"the fox and the dog\n" * 50 + b"\xff\xfe\xff\n")


def molecules(folder: Path) -> None:
    (folder / "champs").mkdir()
    (folder / "champs" / "structures.csv").write_text(f"{STRUCTURES}\nm,0,C,0,0\n")
    (folder / "champs" / "train.csv").write_text(f"{PAIRS}\n")


def masks(folder: Path) -> None:
    for number in range(12):
        write(noise(number), folder / "scenes" / "images" / f"{number}.png")
        write(blocks(number, (0, 1)), folder / "scenes" / "masks" / f"{number}.png")
    (folder / "scenes" / "masks" / "7.png").write_bytes(b"no mask")


def libsvm(folder: Path) -> None:
    (folder / "rows.svm").write_text("1 1:0.5 2:1\n0 1:0.25 2:x\n" * 20)


def refused(name: str, what: str, said: str, *words: str, prepare: InFolder) -> Fault:
    base = Base((*words, "run_dir=run"), prepare)
    return Fault(f"records: {name}", what, REFUSED, said, status=2, reached=None, base=base,
                 resumes=False)  # fmt: skip


FAULTS = [
    Fault(
        "picture: damaged in an epoch",
        "a picture becomes damaged in the middle of an epoch",
        STOPS,
        "error: The image own_pictures/lime/.* cannot be decoded",
        status=1,
        reached="failed",
        lost=SINCE,
        base=PICTURES,
        mend=repaired,
        inject=at_hook("on_train_batch_start", ALL_LIMES, 7),
    ),
    Fault(
        "picture: damaged, skip",
        "the same with task.damaged=skip",
        LEAVES_OUT,
        "can no longer be read",
        lost="the damaged pictures",
        base=PICTURES,
        words=SKIP,
        same=False,
        inject=at_hook("on_train_batch_start", ALL_LIMES, 7),
        check=lists_it,
    ),
    Fault(
        "picture: damaged, skip, workers",
        "the same, read by other processes",
        LEAVES_OUT,
        "can no longer be read",
        lost="the damaged pictures",
        base=PICTURES,
        same=False,
        words=(*SKIP, "task.num_workers=2"),
        check=lists_it,
        inject=at_hook("on_train_batch_start", ALL_LIMES, 3),
    ),
    Fault(
        "data: folder gone in an epoch",
        "the folder of the data vanishes in an epoch",
        STOPS,
        "error: The image own_pictures/.* cannot be decoded .No such file",
        status=1,
        reached="failed",
        lost=SINCE,
        base=PICTURES,
        mend=repaired,
        inject=at_hook("on_train_batch_start", removing("own_pictures"), 7),
    ),
    Fault(
        "data: folder gone, skip",
        "the same with task.damaged=skip",
        "stops: nothing is left of a batch; the checkpoint before stays",
        "error: None of the 7 records of a batch can be read",
        status=1,
        reached="failed",
        lost=SINCE,
        base=PICTURES,
        words=SKIP,
        mend=repaired,
        same=False,
        inject=at_hook("on_train_batch_start", removing("own_pictures"), 7),
    ),
    refused(
        "survey",
        "an entry of a csv file is no number",
        "error: .*line 22 of people.csv",
        "task=range_query",
        "task.path=people.csv",
        "task.columns=[age]",
        prepare=survey,
    ),
    refused(
        "sentences",
        "a line of JSON is cut off",
        "error: Line 6 of pairs/train.jsonl",
        "task=parallel_folder",
        "task.path=pairs",
        SIZE,
        prepare=sentences,
    ),
    refused(
        "text",
        "a text is not valid UTF-8",
        "error: The text .*a.txt is not valid UTF-8",
        "task=text_folder",
        "task.path=texts",
        prepare=text,
    ),
    refused(
        "molecules",
        "a line of structures.csv is short",
        "error: champs/structures.csv",
        "task=champs",
        "task.path=champs",
        prepare=molecules,
    ),
    refused(
        "masks",
        "a mask is damaged",
        "error: The (mask|image) .*7.png",
        "task=segmentation_folder",
        "task.path=scenes",
        prepare=masks,
    ),
    refused(
        "libsvm",
        "a value is no number",
        "error: rows.svm, line 2: ",
        "task=hyperparameter",
        "task.path=rows.svm",
        prepare=libsvm,
    ),
]
