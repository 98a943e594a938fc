"""Pictures through briefly trained networks: what a run's own test finds, of files as well."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import equipoise
from equipoise import commands
from equipoise.commands.predict.masks import MaskFolder
from equipoise.commands.predict.pictures import class_columns
from equipoise.data import Cityscapes, Digits
from equipoise.errors import UserError
from equipoise.running.interrupts import Stopped

FEW = (
    "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1", "callbacks.progress=null", "callbacks.report=null",
    "logger=none",
)  # fmt: skip
SMALL = {
    "digits": ("task.test_fraction=0.05", "solver.max_steps=12"),
    "digit_scenes": ("task.test_fraction=0.03", "task.train_scenes=64", "solver.max_steps=5"),
    "digits_and_scenes": ("task.test_fraction=0.03", "task.train_scenes=64", "solver.max_steps=5"),
}
COUNT = 70  # a whole batch of the test, and a part
Row = dict[str, str]
Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The run of a task, trained when it is first asked for."""
    folders: dict[str, Path] = {}

    def of(task: str) -> Path:
        if task not in folders:
            folders[task] = tmp_path_factory.mktemp("runs") / task
            equipoise.run(f"task={task}", *FEW, *SMALL.get(task, ()), f"run_dir={folders[task]}")
        return folders[task]

    return of


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first digits of the test split, as files whose names are sorted in its order."""
    folder = tmp_path_factory.mktemp("files") / "pictures"
    folder.mkdir()
    images = Digits(test_fraction=0.05).read_split("test").images[:COUNT, 0].int()
    for row, image in enumerate(images):
        pixels = ((image * 255 + 8) // 16).to(torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{row:04}.png")
    return folder


def predict(*words: object) -> None:
    assert commands.run(["predict", *map(str, words)]) == 0


def rows(file: Path) -> list[Row]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def without(name: str, table: Sequence[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if key != name} for row in table]


def numbers(table: Sequence[Row], name: str) -> Tensor:
    return torch.tensor([float(row[name]) for row in table])


def test_files_split_and_python_give_the_labels_of_the_test(
    run: Make, pictures: Path, tmp_path: Path
) -> None:
    model = equipoise.load(run("digits"))
    model.data.setup("test")
    with torch.inference_mode():
        logits = [model.network(batch["image"]) for batch in model.data.test_dataloader()]
    wanted = torch.cat(logits)
    predict(run("digits"), pictures, tmp_path / "out.csv")
    predict(run("digits"), tmp_path / "split.csv", "split=test")
    found, split = rows(tmp_path / "out.csv"), rows(tmp_path / "split.csv")
    assert [int(row["label"]) for row in split] == wanted.argmax(dim=1).tolist()
    assert [row["file"] for row in found] == list(map(str, sorted(pictures.iterdir())))
    # the first batch is the same to the last bit; the second one is smaller here
    of_split = without("target", without("row", split))
    assert without("file", found)[:64] == of_split[:64]
    assert [row["label"] for row in found] == [row["label"] for row in of_split[:COUNT]]
    of_python = model.predict(sorted(pictures.iterdir()))
    assert of_python.names == [row["label"] for row in found]
    assert of_python.labels is not None
    assert of_python.labels.tolist() == wanted[:COUNT].argmax(dim=1).tolist()


def test_nothing_depends_on_the_batch_but_the_last_digits(
    run: Make, pictures: Path, tmp_path: Path
) -> None:
    for size in (1, 7, 64):
        predict(run("digits"), pictures, tmp_path / f"{size}.csv", f"batch_size={size}")
    tables = [rows(tmp_path / f"{size}.csv") for size in (1, 7, 64)]
    for name in ("label", "converged"):
        assert len({tuple(row[name] for row in table) for table in tables}) == 1
    for name in ("residual", *(f"probability of {digit}" for digit in range(10))):
        first, *others = [numbers(table, name) for table in tables]
        for other in others:
            torch.testing.assert_close(other, first, rtol=1e-2, atol=1e-5)


def test_the_masks_of_pictures_are_those_of_the_test(run: Make, tmp_path: Path) -> None:
    folder = run("digit_scenes")
    model = equipoise.load(folder)
    images = model.data.read_split("test").images[:33, 0]
    (tmp_path / "a").mkdir()
    for row, image in enumerate(images):
        Image.fromarray(image.numpy()).save(tmp_path / "a" / f"{row:04}.png")
    predict(folder, tmp_path / "a", tmp_path / "files.csv")
    predict(folder, tmp_path / "split.csv", "split=test", "overlays=false")
    found, split = rows(tmp_path / "files.csv"), rows(tmp_path / "split.csv")
    assert [(row["pixels of digit 3"]) for row in found[:32]] == [
        row["pixels of digit 3"] for row in split[:32]
    ]
    masks = [Image.open(row["mask"]) for row in found]
    others = [np.asarray(Image.open(row["mask"])) for row in split]
    assert all((np.asarray(a) == b).all() for a, b in zip(masks[:32], others, strict=False))
    of_python = model.predict(images.unsqueeze(1))
    assert of_python.masks is not None
    for mask, image in zip(of_python.masks, masks, strict=True):
        assert image.mode == "P"
        assert (np.asarray(image) == mask.numpy()).all()
    assert not (tmp_path / "split" / "overlays").exists()
    overlays = list((tmp_path / "files" / "overlays").rglob("*.png"))
    assert len(overlays) == 33
    assert Image.open(overlays[0]).size == (32, 32)


def test_a_mask_has_the_size_of_its_picture_whatever_the_network_saw(
    run: Make, pictures: Path, tmp_path: Path
) -> None:
    wide = Image.fromarray(np.full((40, 70, 3), 90, np.uint8))
    wide.save(tmp_path / "wide.jpg")
    for task in ("digit_scenes", "digits_and_scenes"):
        one, two = tmp_path / "wide.jpg", pictures / "0000.png"
        predict(run(task), one, two, tmp_path / f"{task}.csv", "batch_size=2")
        sizes = [Image.open(row["mask"]).size for row in rows(tmp_path / f"{task}.csv")]
        assert sizes == [(70, 40), (8, 8)]


def test_one_network_for_both_names_digits_beside_the_classes_of_masks(
    run: Make, pictures: Path, tmp_path: Path
) -> None:
    predict(run("digits_and_scenes"), pictures / "0001.png", tmp_path / "out.csv")
    (row,) = rows(tmp_path / "out.csv")
    assert row["label"] in map(str, range(10))
    assert sum(int(row[name]) for name in row if name.startswith("pixels of ")) == 64


def test_features_are_written_as_arrays_with_what_the_probe_says(
    run: Make, pictures: Path, tmp_path: Path
) -> None:
    predict(run("ssl_digits"), pictures, tmp_path / "out.npz")
    found = equipoise.load(run("ssl_digits")).predict(pictures)
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["feature"].shape == (COUNT, 64)
        assert (arrays["feature"] == found.features).all()
        assert arrays["label"].tolist() == found.names
        assert arrays["probabilities"].shape == (COUNT, 10)
        assert [Path(file).name for file in arrays["file"]] == sorted(
            file.name for file in pictures.iterdir()
        )


def test_arrays_and_tables_of_the_hub_are_read_as_files_are(
    run: Make, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setenv("EQUIPOISE_LINKS", str(pictures))  # the table names files outside its folder
    files = sorted(pictures.iterdir())[:9]
    stack = np.stack([np.asarray(Image.open(file)) for file in files])
    np.save(tmp_path / "stack.npy", stack)
    np.savez(tmp_path / "stack.npz", other=stack[:2], images=stack)
    table = datasets.Dataset.from_dict({"img": [str(file) for file in files]})
    table.cast_column("img", datasets.Image()).to_parquet(tmp_path / "table.parquet")
    predict(run("digits"), *files, tmp_path / "files.csv")
    wanted = without("file", rows(tmp_path / "files.csv"))
    for source in ("stack.npy", "stack.npz", "table.parquet"):
        predict(run("digits"), tmp_path / source, tmp_path / "out.csv", "overwrite")
        assert without("file", rows(tmp_path / "out.csv")) == wanted
        assert rows(tmp_path / "out.csv")[8]["file"] == f"{tmp_path / source}:8"


def test_damaged_files_are_named_or_left_out_and_hidden_ones_never_read(
    run: Make, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = tmp_path / "all" / "below"
    (inside / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("a.png", "z.png"):
        (inside / name).write_bytes((pictures / "0000.png").read_bytes())
    for name in ("b.jpg", ".ipynb_checkpoints/c.png", "._d.png", "notes.txt"):
        (inside / name).write_text("no picture")
    refused("b.jpg cannot be decoded", run("digits"), tmp_path / "all", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    capsys.readouterr()
    predict(run("digits"), tmp_path / "all", tmp_path / "out.csv", "damaged=skip", "workers=1")
    assert [Path(row["file"]).name for row in rows(tmp_path / "out.csv")] == ["a.png", "z.png"]
    said = capsys.readouterr()
    assert "2 pictures, 1 damaged left out, " in said.out
    assert f"warning: left out: The image {inside / 'b.jpg'} cannot be decoded" in said.err
    (inside / "a.png").unlink()
    (inside / "z.png").unlink()
    refused("all 1 pictures are damaged", run("digits"), inside, "new.csv", "damaged=skip")


def refused(said: str, *words: object) -> None:
    with pytest.raises(UserError) as caught:
        predict(*words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_or_written_is_refused_in_a_sentence(
    run: Make, pictures: Path, tmp_path: Path
) -> None:
    folder, output = run("digits"), tmp_path / "out.csv"
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npy").write_text("text")
    np.save(tmp_path / "float.npy", np.zeros((2, 8, 8)))
    np.save(tmp_path / "five.npy", np.zeros((2, 5, 8, 9), np.uint8))
    for words, said in (
        (["nowhere"], "there is no file or folder nowhere"),
        ([tmp_path / "empty"], "holds no pictures: give files or folders with the endings"),
        ([tmp_path / "text.npy"], "text.npy cannot be read as an array: write it with numpy.save"),
        ([tmp_path / "float.npy"], "holds float64 of shape (2, 8, 8): several pictures are uint8"),
        ([tmp_path / "five.npy"], "a picture cannot have the shape (5, 8, 9)"),
        ([tmp_path / "float.npy", pictures], "float.npy holds many pictures: give it alone"),
        ([pictures, "split=test"], "split= reads the run's own data: leave out "),
        ([pictures, "top=11"], "predict: top=11 is more than the 10 classes"),
        ([pictures, "pairs=all"], "predict: pairs does nothing for task=digits, whose settings"),
        ([pictures, "device=abacus"], "there is no device abacus"),
        ([pictures, "workers=-1"], "predict: workers=-1 must be 0 or more"),
    ):
        refused(said, folder, *words, f"output={output}")
        assert not output.exists()
    output.write_text("mine")
    refused("out.csv exists: name another file as the output", folder, pictures, output)
    scenes = tmp_path / "scenes.csv"
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "mine.txt").touch()
    refused("holds mine.txt: choose another", run("digit_scenes"), pictures, scenes, "overwrite")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.endswith(".part")) == []


def test_what_is_stopped_leaves_nothing(
    run: Make, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = MaskFolder.add
    calls: list[int] = []

    def stopping(self: MaskFolder, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise Stopped(signal.SIGTERM)
        return added(self, *arguments)

    monkeypatch.setattr(MaskFolder, "add", stopping)
    with pytest.raises(Stopped):
        predict(run("digit_scenes"), pictures, tmp_path / "out.csv")
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == []


def test_of_many_classes_the_likeliest_have_columns() -> None:
    probabilities = torch.linspace(1, 200, 200).expand(2, -1) / 20100
    names = [f"class {number}" for number in range(200)]
    columns = class_columns(probabilities, names, None)
    assert list(columns)[:3] == ["label", "probability", "label_2"]
    assert columns["label_5"] == ["class 195"] * 2
    assert len(columns) == 10
    assert len(class_columns(probabilities[:, :7], names, None)) == 2 + 7
    assert len(class_columns(probabilities[:, :7], names, 2)) == 4


def test_masks_have_the_numbers_and_colours_of_their_dataset(tmp_path: Path) -> None:
    data = Cityscapes(path="nowhere")
    folder = MaskFolder(tmp_path, tmp_path, data, [f"class {k}" for k in range(19)], False)
    mask = torch.arange(19, dtype=torch.uint8).view(1, 19)
    columns = folder.add(["../a/x.jpg", "a/x.png"], [mask] * 2, [torch.zeros(3, 1, 19)] * 2)
    assert columns["mask"] == [str(tmp_path / f"masks/a/x{end}") for end in (".png", ".png.png")]
    image = Image.open(tmp_path / "masks" / "a" / "x.png")
    assert np.asarray(image)[0, :3].tolist() == [7, 8, 11]
    assert np.asarray(image.convert("RGB"))[0, 0].tolist() == [128, 64, 128]
