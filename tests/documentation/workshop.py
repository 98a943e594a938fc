"""A folder in which a command of a page finds what its words name: data, runs, files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.images.own_files import own_folder
from tests.documentation.execution import Done, execute
from tests.documentation.pages import ROOT, Line, python_blocks

SHORT = (
    "trainer.max_steps=3", "trainer.limit_train_batches=3", "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2", "trainer.log_every_n_steps=1",
)  # fmt: skip
"""What makes a run a short one."""
RESUMES = {"resume=auto"}
FOLDERS = {
    "task=image_folder": "pictures",
    "task=segmentation_folder": "scenes",
    "task=text_folder": "texts",
    "task=parallel_folder": "pairs",
    "equipoise predict": "test_pictures",
    "best.ckpt task.path=": "pictures",
}
"""The data that a command with these words finds at `<folder>`; other commands find it empty."""
RUNS = {
    "digits": ["task=digits"],
    "self_supervised": ["model=barlow", "task=ssl_digits", "model.encoder.size=small"],
    "people": ["task=range_query", "task.path=people.csv", "task.columns=[age,hours]",
               "task.domain=[100,32]", "task.repeats=1"],
    "translation": ["task=number_words", "task.train_size=300"],
    "text": ["task=python_docs", "model=deq_transformer"],
    "molecules": ["task=nmr_small"],
    "pictures": ["task=image_folder", "task.path=pictures"],
}  # fmt: skip
OF_LINE = (
    ("self_supervised", r"linear_probe|backbone_ckpt=<run>|init_from.parts"),
    ("people", r"equipoise query"),
    ("translation", r"equipoise translate|objective\.beam"),
    ("text", r"equipoise generate|eval_memory_length"),
    ("molecules", r"structures\.csv|couplings\.csv"),
    ("pictures", r"task.path=<folder>$|task=image_folder .*init_from=<run>"),
)
"""Which run stands at `<run>`: the first whose words the command has; otherwise that on digits."""


class Workshop:
    """The folder, and the runs that have been made in it so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: set[str] = set()
        self._write_files()

    def words(self, line: Line, words: list[str]) -> list[str]:
        """The words of a command with its placeholders filled in."""
        values = {
            "<run>": self.run(line),
            "<folder>": str(self.folder / self._folder(line.text)),
            "<task>": "digits",
            "<pictures>": "test_pictures",
            "<user>": "somebody",
        }
        for name, value in values.items():
            words = [word.replace(name, value) for word in words]
        return words

    def carry_out(self, line: Line, words: list[str]) -> Done:
        """Do what the line says, in a new folder where it names one for its run."""
        for word in words:
            key, _, name = word.partition("=")
            if key == "run_dir" and words[0] == "train" and not RESUMES & set(words):
                shutil.rmtree(self.folder / name, ignore_errors=True)
        source = re.search(r"(?<!<)< (\S+)", line.text)
        return execute(words, self.folder, self.folder / source.group(1) if source else None)

    def run(self, line: Line) -> str:
        """The folder of a finished short run of the kind that the line needs."""
        if "<run>" not in line.text:
            return "<run>"
        kind = next((kind for kind, words in OF_LINE if re.search(words, line.text)), "digits")
        if kind not in self.made:
            words = ["train", *RUNS[kind], *SHORT, f"run_dir=made/{kind}"]
            done = execute(words, self.folder)
            assert done.status == 0, done.err
            self.made.add(kind)
        return f"made/{kind}"

    def _folder(self, text: str) -> str:
        if "searchpath" in text:
            return str(ROOT / "examples" / "own_project" / "conf")
        found = (folder for words, folder in FOLDERS.items() if words in text)
        return next(found, "empty")

    def _write_files(self) -> None:
        (self.folder / "empty").mkdir()
        own_folder(self.folder / "pictures")
        generator = np.random.default_rng(0)
        for part in ("images", "masks"):
            (self.folder / "scenes" / part).mkdir(parents=True)
        (self.folder / "test_pictures").mkdir()
        for number in range(12):
            pixels = generator.integers(0, 255, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(self.folder / "scenes" / "images" / f"{number}.png")
            mask = (pixels[..., 0] > 128).astype(np.uint8)
            Image.fromarray(mask).save(self.folder / "scenes" / "masks" / f"{number}.png")
            small = Image.fromarray(pixels[:8, :8, 0])
            small.save(self.folder / "test_pictures" / f"{number}.png")
        sentences = [f"the word number {number} stands here" for number in range(400)]
        for part, lines in (("texts", sentences * 10), ("pairs", sentences)):
            (self.folder / part).mkdir()
            for split in ("train", "valid", "test"):
                names = (f"{split}.txt",) if part == "texts" else (f"{split}.de", f"{split}.en")
                for name in names:
                    (self.folder / part / name).write_text("\n".join(lines) + "\n")
        ages = generator.integers(0, 99, (3000, 2)) % (100, 32)
        rows = "\n".join(f"{age},{hours}" for age, hours in ages)
        (self.folder / "people.csv").write_text(f"age,hours\n{rows}\n")
        (self.folder / "smiles.txt").write_text("C methane\n")
        (self.folder / "sentences.de").write_text("one hundred and two\n")
        (self.folder / "my_model.py").write_text(python_blocks(ROOT / "README.md")[0])
