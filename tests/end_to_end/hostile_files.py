"""Files that would run code, take memory or lead elsewhere, and who reads each of them.

`python -m tests.end_to_end.hostile_files <folder>` reads every one in a process of its own, forked
from this one, and prints a line of JSON for each: what was said, and how much memory it took more
than a process that only refuses a word.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from equipoise.commands.ensemble.submissions import read_submission
from equipoise.config.exported import read_exported
from equipoise.config.stored import read_content
from equipoise.data.folders import local_folder
from equipoise.data.hub import open_splits
from equipoise.data.images.encoded import image_size
from equipoise.data.images.labelled import ImageFiles, ImageTable, images_by_class
from equipoise.data.images.picture_sources import opened_pictures
from equipoise.data.images.tiny_imagenet import annotated
from equipoise.data.molecules.champs import Champs
from equipoise.data.molecules.graphs import DESCRIPTION, FORMAT, LEVELS
from equipoise.data.molecules.graphs import read_stored as read_graphs
from equipoise.data.molecules.tables import read_structures
from equipoise.data.multimodal.published_pickle import read_pickle
from equipoise.data.multimodal.stored import read_stored
from equipoise.data.surveys.table import read_columns
from equipoise.data.tabular.libsvm import read_libsvm
from equipoise.data.text.files import read_utf8
from equipoise.data.text.stored_pairs import JsonLines
from equipoise.errors import UserError, read_json, read_yaml
from equipoise.models.backbone import load_backbone
from equipoise.report.comparison import compare_runs
from equipoise.running.weight_files import read_weights

CANARY = "canary"
COLUMNS = 10_000_000
MIB = 2**20
MARK = 7777
"""A number that the file of graphs holds nowhere else."""


class Payload:
    """Runs a command of the shell when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.command = f"touch {folder / CANARY}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def written(file: Path, content: bytes | str) -> Path:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def malicious_pickle(folder: Path) -> Path:
    return written(folder / "mosi_data_noalign.pkl", pickle.dumps({"train": Payload(folder)}))


def pickle_of_many_objects(folder: Path) -> Path:
    return written(folder / "many.pkl", b"(" + b"}" * 2_500_000 + b"l.")


def pickle_of_one_text_in_many_arrays(folder: Path) -> Path:
    text = b"X" + struct.pack("<I", 4 * MIB) + b"a" * 4 * MIB
    again = b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tR"
    return written(folder / "again.pkl", b"\x80\x02(" + text + b"q\x00" + again * 400 + b"l.")


def checkpoint_with_payload(folder: Path) -> Path:
    torch.save({"state_dict": Payload(folder)}, folder / "payload.ckpt")
    return folder / "payload.ckpt"


def old_checkpoint_with_payload(folder: Path) -> Path:
    file = folder / "old.pth"
    torch.save({"x": Payload(folder)}, file, _use_new_zipfile_serialization=False)
    return file


def checkpoint_bomb(folder: Path) -> Path:
    torch.save({"state_dict": {"w": torch.zeros(100 * MIB // 4)}}, folder / "whole.ckpt")
    with (
        zipfile.ZipFile(folder / "whole.ckpt") as whole,
        zipfile.ZipFile(folder / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb,
    ):
        for entry in whole.infolist():
            bomb.writestr(entry.filename, whole.read(entry))
    (folder / "whole.ckpt").unlink()
    return folder / "bomb.ckpt"


DEPTH = 300_000
"""Levels of a key, whose hash would go beyond the stack of C."""


def nested_key(empty: bytes = b"}", put: bytes = b"s") -> bytes:
    """The pickle of a mapping with a key of tuples within each other."""
    return b"\x80\x02" + empty + b")" + b"\x85" * DEPTH + b"K\x01" + put + b"."


def nested_checkpoint(folder: Path) -> Path:
    torch.save({"state_dict": {}}, folder / "nested.ckpt")
    return with_pickle(folder / "nested.ckpt", nested_key())


def remembered_checkpoint(folder: Path) -> Path:
    """The same, each level fetched from the memory and put there again."""
    torch.save({"state_dict": {}}, folder / "remembered.ckpt")
    content = b"\x80\x02})q\x00" + b"h\x00\x85q\x00" * DEPTH + b"K\x01s."
    return with_pickle(folder / "remembered.ckpt", content)


def checkpoint_of_many_objects(folder: Path) -> Path:
    torch.save({"state_dict": {}}, folder / "objects.ckpt")
    return with_pickle(folder / "objects.ckpt", b"\x80\x02](" + b"}" * 2_500_000 + b"e.")


def old_nested_checkpoint(folder: Path) -> Path:
    file = folder / "old_nested.pth"
    torch.save({"x": 1}, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    place = len(content) - len(pickle.dumps([], 2)) - len(pickle.dumps({"x": 1}, 2))
    return written(file, content[:place] + nested_key() + pickle.dumps([], 2))


def with_pickle(file: Path, content: bytes) -> Path:
    """An archive of torch's with another pickle in it."""
    with zipfile.ZipFile(file) as whole:
        entries = {entry.filename: whole.read(entry) for entry in whole.infolist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, earlier in entries.items():
            archive.writestr(name, content if name.endswith("data.pkl") else earlier)
    return file


def arrays_bomb(folder: Path) -> Path:
    np.savez_compressed(folder / "bomb.npz", images=np.zeros((40, MIB), np.uint8))
    return folder / "bomb.npz"


def array_of_objects(folder: Path) -> Path:
    np.save(folder / "objects.npy", np.array([Payload(folder)]), allow_pickle=True)
    return folder / "objects.npy"


def arrays_of_objects(folder: Path) -> Path:
    np.savez(folder / "objects.npz", images=np.array([Payload(folder)], object))
    return folder / "objects.npz"


def wide_csv(folder: Path) -> Path:
    return written(folder / "wide.csv", b"c," * (COLUMNS - 1) + b"c\n" + b"1," * COLUMNS)


def wide_row(folder: Path) -> Path:
    return written(folder / "row.csv", b"id,scalar_coupling_constant\n1,2\n" + b"12," * COLUMNS)


def quoted_wide_csv(folder: Path) -> Path:
    return written(folder / "quoted.csv", b'"a\nb",' + b"c," * 200_000 + b'"d"\n1')


def parquet_bomb(folder: Path) -> Path:
    rows = pa.table({f"c{n}": pa.nulls(2_000_000, pa.int8()) for n in range(21)})
    (folder / "parquet").mkdir()
    with pq.ParquetWriter(folder / "parquet" / "train-0.parquet", rows.schema) as writer:
        for _ in range(5):
            writer.write_table(rows)
    return folder / "parquet" / "train-0.parquet"


def wide_parquet(folder: Path) -> Path:
    pq.write_table(pa.table({f"c{n}": [1] for n in range(11_000)}), folder / "wide.parquet")
    return folder / "wide.parquet"


def packed_lines(folder: Path) -> Path:
    return written(folder / "bomb.gz", gzip.compress((b"1 1:1" + b" " * 4000 + b"\n") * 8_000, 9))


def packed_line(folder: Path) -> Path:
    return written(folder / "line.gz", gzip.compress(b"1 1:1" + b" " * 80 * MIB, 1))


def nested_json(folder: Path) -> Path:
    return written(folder / "nested.json", "[" * 1_000_000)


def large_json(folder: Path) -> Path:
    return written(folder / "large.json", b"[" + b"[]," * 12_000_000 + b"[]]")


def nested_line(folder: Path) -> Path:
    return written(folder / "train.jsonl", '{"de":' + "[" * 1_000_000)


def exported(folder: Path) -> Path:
    (folder / "exported").mkdir()
    written(folder / "exported" / "config.json", '{"a":' * 100_000)
    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})
    content = struct.pack("<Q", len(header)) + header.encode()
    written(folder / "exported" / "model.safetensors", content)
    return folder / "exported"


def lying_safetensors(folder: Path) -> Path:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})
    content = struct.pack("<Q", len(header)) + header.encode()
    return written(folder / "lying.safetensors", content)


def laughing_yaml(folder: Path) -> Path:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return written(folder / "laughing.yaml", "\n".join(lines))


def merging_yaml(folder: Path) -> Path:
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    return written(folder / "merging.yaml", "\n".join(lines))


def yaml_of_objects(folder: Path) -> Path:
    text = f"a: !!python/object/apply:os.system ['touch {folder / CANARY}']"
    return written(folder / "objects.yaml", text)


def pixel_bomb(folder: Path) -> Path:
    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", 11_000, 11_000, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return written(folder / "bomb.png", b"\x89PNG\r\n\x1a\n" + content)


def program_as_picture(folder: Path) -> Path:
    """PostScript, for which Pillow starts the program gs; here one that tells of it."""
    gs = written(folder / "gs", f"#!/bin/sh\ntouch {folder / CANARY}\n")
    gs.chmod(0o755)
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    return written(folder / "program.png", text)


def linked_picture(folder: Path) -> Path:
    root = folder / "linked"
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "1.png").symlink_to(written(folder / "secret.png", "x"))
    return root


def linked_folder(folder: Path) -> Path:
    (folder / "of_others").mkdir()
    root = folder / "linked_folder"
    root.mkdir()
    (root / "train").symlink_to(folder / "of_others")
    return root


def linked_table(folder: Path) -> Path:
    root = folder / "molecules"
    root.mkdir()
    (root / "structures.csv").symlink_to("/etc/passwd")
    return root


def pipe(folder: Path) -> Path:
    root = folder / "pipe"
    (root / "cat").mkdir(parents=True)
    os.mkfifo(root / "cat" / "1.png")
    return root


def list_that_leaves(folder: Path) -> Path:
    root = folder / "val"
    (root / "images").mkdir(parents=True)
    written(root / "val_annotations.txt", "../../../../../../etc/passwd\tn1\n")
    return root


def table_that_leaves(folder: Path) -> Path:
    root = folder / "table"
    root.mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    image = pa.array([{"bytes": None, "path": "/dev/zero"}], kind)
    features = {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}
    told = json.dumps({"info": {"features": features}}).encode()
    table = pa.table({"image": image, "label": [0]}).replace_schema_metadata({b"huggingface": told})
    pq.write_table(table, root / "train-0.parquet")
    return root


def readme_that_leaves(folder: Path) -> Path:
    root = folder / "readme"
    root.mkdir()
    pq.write_table(pa.table({"text": ["a"]}), root / "train-0.parquet")
    pq.write_table(pa.table({"text": ["secret"]}), folder / "outside.parquet")
    text = f"configs:\n- config_name: default\n  data_files: {folder / 'outside.parquet'}\n"
    written(root / "README.md", f"---\n{text}---\n")
    return root


def long_text(folder: Path) -> Path:
    with (folder / "long.txt").open("wb") as file:
        file.truncate(3 << 30)  # takes no room on the disk
    return folder / "long.txt"


def broken_graphs(folder: Path) -> Path:
    column = pa.LargeListArray.from_arrays(pa.array([0, MARK]), pa.array(np.zeros(MARK)))
    table = pa.table({"name": ["a"], "by_radii": [True], "atom.position": column})
    shapes = {"atom.position": ["<f8"]}
    told = {"format": FORMAT, "shapes": shapes, "labels": {name: [] for name in LEVELS}, "sum": ""}
    table = table.replace_schema_metadata({DESCRIPTION: json.dumps(told).encode()})
    with (
        pa.OSFile(str(folder / "a.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as out,
    ):
        out.write_table(table)
    content = (folder / "a.arrow").read_bytes()
    place = content.rindex(struct.pack("<q", MARK))  # where the list ends, which is now elsewhere
    whole = content[:place] + struct.pack("<q", 1 << 40) + content[place + 8 :]
    return written(folder / "a.arrow", whole)


def packed_graphs(folder: Path) -> Path:
    """A cache of an earlier run whose buffers unpack to 400 MB."""
    table = pa.table(
        {"name": ["a"], "by_radii": [True], "atom.position": pa.array([[0.0] * 50 * MIB])}
    )
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        pa.OSFile(str(folder / "packed.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema, options=options) as out,
    ):
        out.write_table(table)
    return folder / "packed.arrow"


def graphs_of_nothing(folder: Path) -> Path:
    """A column of nothings, which takes no room and has a billion entries."""
    nothings = pa.nulls(1_000_000_000)
    table = pa.table({"name": nothings, "by_radii": nothings})
    told = {"format": FORMAT, "shapes": {}, "labels": {name: [] for name in LEVELS}, "sum": ""}
    table = table.replace_schema_metadata({DESCRIPTION: json.dumps(told).encode()})
    with (
        pa.OSFile(str(folder / "nothing.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as out,
    ):
        out.write_table(table)
    return folder / "nothing.arrow"


def foreign_run(folder: Path) -> Path:
    run = folder / "run"
    run.mkdir()
    told = {"status": "completed", "test": ["x"], "solver_stats": 3, "seconds": "y"}
    written(run / "metrics.json", json.dumps(told))
    return run


def read_picture(file: Path) -> None:
    ImageFiles(file.parent, [(file.name, -1)], []).pixels(0)


def read_table_row(root: Path) -> None:
    ImageTable(open_splits(str(root))["train"], "t").pixels(0)


def read_molecules(root: Path) -> None:
    Champs(path=str(root)).read_graphs()


def read_graphs_or_none(file: Path) -> None:
    if read_graphs(file) is None:
        raise UserError(f"{file} is not believed, so its content is computed")


def of_survey(file: Path) -> None:
    read_columns(str(file), ["c"])


Read = Callable[[Path], Any]
CHECKPOINT_READERS: list[Read] = [
    read_content, read_weights, lambda f: load_backbone(torch.nn.Linear(1, 1), f, ["weight"])
]  # fmt: skip
CASES: dict[Callable[[Path], Path], list[Read]] = {
    malicious_pickle: [read_pickle],
    pickle_of_many_objects: [read_pickle],
    pickle_of_one_text_in_many_arrays: [read_pickle],
    checkpoint_with_payload: CHECKPOINT_READERS,
    old_checkpoint_with_payload: [read_weights, read_content],
    checkpoint_bomb: CHECKPOINT_READERS,
    nested_checkpoint: CHECKPOINT_READERS,
    remembered_checkpoint: CHECKPOINT_READERS,
    checkpoint_of_many_objects: CHECKPOINT_READERS,
    old_nested_checkpoint: [read_weights],
    arrays_bomb: [lambda f: opened_pictures([f])],
    array_of_objects: [lambda f: opened_pictures([f])],
    arrays_of_objects: [lambda f: opened_pictures([f])],
    wide_csv: [of_survey, read_structures, read_submission],
    wide_row: [of_survey, read_structures, read_submission],
    quoted_wide_csv: [of_survey, read_structures, read_submission],
    parquet_bomb: [
        of_survey, lambda f: opened_pictures([f]), lambda f: open_splits(str(f.parent))["train"]
    ],
    wide_parquet: [of_survey],
    packed_lines: [lambda f: read_libsvm([str(f)])],
    packed_line: [lambda f: read_libsvm([str(f)])],
    nested_json: [read_json],
    large_json: [read_json],
    nested_line: [lambda f: JsonLines(f).keys()],
    exported: [read_exported],
    lying_safetensors: [read_stored],
    laughing_yaml: [read_yaml],
    merging_yaml: [read_yaml],
    yaml_of_objects: [read_yaml],
    pixel_bomb: [read_picture, image_size],
    program_as_picture: [read_picture, image_size],
    linked_picture: [lambda f: images_by_class(local_folder(str(f)))],
    linked_folder: [lambda f: images_by_class(local_folder(str(f)) / "train")],
    linked_table: [read_molecules],
    pipe: [lambda f: images_by_class(local_folder(str(f)))],
    list_that_leaves: [lambda f: annotated(local_folder(str(f)), ["n1"])],
    table_that_leaves: [read_table_row],
    readme_that_leaves: [lambda f: open_splits(str(f))["train"]],
    long_text: [read_utf8],
    broken_graphs: [read_graphs_or_none],
    packed_graphs: [read_graphs_or_none],
    graphs_of_nothing: [read_graphs_or_none],
    foreign_run: [lambda f: compare_runs([f])],
}  # fmt: skip
"""Who makes a file, and who reads it."""


def refusal(read: Read, file: Path) -> dict[str, Any]:
    """What a reader says of a file in a process of its own, and the peak of that in MiB."""

    def said() -> dict[str, Any]:
        try:
            read(file)
        except UserError as error:
            return {"refused": str(error)}
        except ValueError as error:  # of a network, which commands tell as they tell their own
            return {"refused": str(error), "of_a_network": True}
        return {"accepted": True}

    answer, mib = answer_of(said)
    return {**answer, "mib": mib}


def answer_of(work: Callable[[], Any]) -> tuple[Any, float]:
    """What some work returns in a process of its own, and the peak of its memory in MiB."""
    out, into = os.pipe()
    if (child := os.fork()) == 0:
        os.close(out)
        try:
            answer = work()
        except BaseException as error:
            answer = {"raised": repr(error)[:500]}
        os.write(into, json.dumps(answer).encode())
        os._exit(0)
    os.close(into)
    with io.FileIO(out) as told:
        answer = json.loads(told.readall() or b'{"raised": "the process was killed"}')
    _, _, usage = os.wait4(child, 0)
    return answer, usage.ru_maxrss / 1024


def ordinary(file: Path) -> None:
    raise UserError(f"{file} does not exist")


def main(folder: Path) -> None:
    """Make and read all files."""
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    for make, readers in CASES.items():
        file = Path(answer_of(lambda make=make: str(make(folder)))[0])
        usual = refusal(ordinary, file)["mib"]
        for number, read in enumerate(readers):
            found = refusal(read, file)
            found["mib"] = round(found["mib"] - usual, 1)
            print(json.dumps({"file": make.__name__, "reader": number, **found}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
