"""`predict` from real, briefly trained checkpoints: submissions, all pairs, and what it refuses."""

from __future__ import annotations

import csv
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise import commands
from equipoise.errors import UserError

BUNDLED = Path(str(files("equipoise.data.molecules").joinpath("pcj0")))
TINY = (
    "model=coupling_transformer", "model.width=16", "model.layers=1", "model.heads=2",
    "model.inner=16", "model.head_width=8", "trainer.max_epochs=1", "trainer.limit_train_batches=1",
    "callbacks.progress=null", "logger=none",
)  # fmt: skip
METHANE = (
    "ch4,0,C,0,0,0", "ch4,1,H,0.629,0.629,0.629", "ch4,2,H,-0.629,-0.629,0.629",
    "ch4,3,H,-0.629,0.629,-0.629", "ch4,4,H,0.629,-0.629,-0.629",
)  # fmt: skip
AMMONIUM = tuple(
    line.replace("ch4,0,C", "nh4,0,N").replace("ch4", "nh4").replace("0.629", "0.59")
    for line in METHANE
)
CROWDED = (
    *(line.replace("ch4", "ch6") for line in METHANE), "ch6,5,H,0.8,0,-0.2", "ch6,6,H,-0.8,0.1,0",
)  # fmt: skip
HELIUM = ("he,0,He,0,0,0",)
PAIR = "7,ch4,1,0,1JHC"
Row = dict[str, str]


def train(folder: Path, *words: str) -> Path:
    assert commands.run(["train", *TINY, *words, f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("predict") / "run", "task=nmr_small")


def changed(run: Path, target: Path, change: Callable[[Any], object]) -> Path:
    """The run's checkpoint with another content."""
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    change(content)
    torch.save(content, target)
    return target


def predict(checkpoint: Path, *words: str | Path) -> int:
    return commands.run(["predict", f"ckpt_path={checkpoint}", *map(str, words)])


def rows(file: Path) -> list[Row]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def couplings(file: Path) -> dict[int, float]:
    return {int(row["id"]): float(row["scalar_coupling_constant"]) for row in rows(file)}


def write_structures(folder: Path, *lines: str) -> Path:
    file = folder / "structures.csv"
    file.write_text("\n".join(["molecule_name,atom_index,atom,x,y,z", *lines, ""]))
    return file


def write_pairs(file: Path, *lines: str) -> Path:
    file.write_text("\n".join(["id,molecule_name,atom_index_0,atom_index_1,type", *lines, ""]))
    return file


def same(found: Sequence[float], wanted: Sequence[float]) -> bool:
    """Equal but for the rounding of float32."""
    return list(found) == pytest.approx(list(wanted), rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 48])
def test_the_couplings_of_a_runs_test_are_those_of_its_report(
    run: Path, tmp_path: Path, batch_size: int
) -> None:
    reported = couplings(run / "report" / "predictions.csv")
    with (BUNDLED / "train.csv").open() as lines:
        wanted = [line.rsplit(",", 1)[0] for line in list(lines)[1:]]
    wanted = [line for line in wanted if int(line.split(",")[0]) in reported]
    random.Random(0).shuffle(wanted)
    pairs, output = write_pairs(tmp_path / "pairs.csv", *wanted), tmp_path / "submission.csv"
    predict(run, BUNDLED, f"pairs={pairs}", f"output={output}", f"batch_size={batch_size}")
    found = couplings(output)
    assert output.read_text().splitlines()[0] == "id,scalar_coupling_constant"
    assert list(found) == [int(line.split(",")[0]) for line in wanted]
    assert same(list(found.values()), [reported[name] for name in found])


def test_without_pairs_all_are_predicted_and_described(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert predict(run, BUNDLED / "structures.csv") == 0
    names = ["molecule_name", "atom_index_0", "atom_index_1", "type"]
    found, known = rows(tmp_path / "predictions.csv"), rows(BUNDLED / "train.csv")
    assert list(found[0]) == ["id", *names, "scalar_coupling_constant"]
    assert [row["id"] for row in found] == list(map(str, range(len(found))))
    assert {tuple(row[name] for name in names) for row in found} == {
        tuple(row[name] for name in names) for row in known
    }
    said = capsys.readouterr()
    assert "predictions.csv: couplings: 6,657 (all of the types), molecules: 312, " in said.out
    assert "bonds from covalent radii alone: 0, " in said.out
    assert "labels that training did not have count as unknown: " in said.err
    assert len(said.err.splitlines()) == 1


def test_the_pairs_of_test_csv_are_asked_for_where_it_lies_beside_the_structures(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    structures = write_structures(tmp_path, *METHANE)
    write_pairs(tmp_path / "test.csv", PAIR)
    predict(run, structures, f"output={tmp_path / 'one.csv'}")
    assert list(couplings(tmp_path / "one.csv")) == [7]
    assert f"couplings: 1 ({tmp_path / 'test.csv'})" in capsys.readouterr().out
    predict(run, structures, "pairs=all", f"output={tmp_path / 'all.csv'}")
    assert len(rows(tmp_path / "all.csv")) == 10


@pytest.mark.parametrize(
    ("words", "columns", "said"),
    [
        (["model.quads=true", "model.legacy_indices=true"], 1, " quads"),
        (["model.equilibrium=true", "model.quads=true"], 1, " % of the equilibria converged, med"),
        (["task.contributions=true"], 5, ""),
    ],
)
def test_no_prediction_of_any_variant_depends_on_the_batch(
    words: list[str],
    columns: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = train(tmp_path / "run", "task=nmr_small", *words)
    capsys.readouterr()
    for size in (1, 64):
        predict(folder, BUNDLED, f"batch_size={size}", f"output={tmp_path / f'{size}.csv'}")
    shown = capsys.readouterr()
    assert said in shown.out + shown.err
    assert ("equilibria" in shown.out) == ("model.equilibrium=true" in words)
    names = ["scalar_coupling_constant", "fc", "sd", "pso", "dso"][:columns]
    alone, together = rows(tmp_path / "1.csv"), rows(tmp_path / "64.csv")
    assert list(alone[0])[5:] == names
    for name in names:
        found = [[float(row[name]) for row in table] for table in (alone, together)]
        assert same(*found)


def test_the_command_line_takes_a_run_that_was_moved_and_has_only_its_last_checkpoint(
    run: Path, tmp_path: Path
) -> None:
    last = run / "checkpoints" / "last.ckpt"
    moved = tmp_path / "lr=0.1" / "moved"
    (moved / "checkpoints").mkdir(parents=True)
    shutil.copy(last, moved / "checkpoints")
    write_structures(tmp_path / "lr=0.1", *METHANE)
    words = ["./lr=0.1/structures.csv", "ckpt_path=lr=0.1/moved", "output=new/a.csv", "device=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "equipoise", "predict", *words],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("new/a.csv: couplings: 10 ")
    predict(last, tmp_path / "lr=0.1", f"output={tmp_path / 'b.csv'}")
    assert rows(tmp_path / "new" / "a.csv") == rows(tmp_path / "b.csv")


def test_what_is_odd_about_molecules_is_told_and_they_are_kept(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_structures(tmp_path, *HELIUM, *METHANE, *AMMONIUM, *CROWDED)
    output = tmp_path / "a.csv"
    assert predict(run, tmp_path, f"output={output}") == 0
    assert {row["molecule_name"] for row in rows(output)} == {"ch4", "nh4", "ch6"}
    said = capsys.readouterr()
    assert "molecules: 3, bonds from covalent radii alone: 1 (ch6), " in said.out
    # of ammonium the nitrogen; of the crowded one the carbon, and bare labels of its hydrogens
    assert "count as unknown: " in said.err
    assert " of 17 atoms" in said.err


def test_a_type_that_training_did_not_have_is_named_and_predicted_as_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    structures, pairs = rows(BUNDLED / "structures.csv"), rows(BUNDLED / "train.csv")
    nitrogen = {row["molecule_name"] for row in structures if row["atom"] == "N"}
    few = sorted({row["molecule_name"] for row in pairs} - nitrogen)[:40]
    for name, table in (("structures", structures), ("train", pairs)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, table[0])
            writer.writeheader()
            writer.writerows(row for row in table if row["molecule_name"] in few)
    run = train(tmp_path / "run", "task=champs", f"task.path={tmp_path}", "task.rare=1")
    (tmp_path / "new").mkdir()
    write_structures(tmp_path / "new", *METHANE, *AMMONIUM)
    capsys.readouterr()
    predict(run, tmp_path / "new", f"output={tmp_path / 'a.csv'}")
    assert "training had none of these couplings, which become 0: 4 1JHN" in capsys.readouterr().err
    values = {
        row["type"]: float(row["scalar_coupling_constant"]) for row in rows(tmp_path / "a.csv")
    }
    assert values["1JHN"] == 0
    assert values["1JHC"] > 50
    assert values["2JHH"] < 0


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (HELIUM, "has no pair of a hydrogen with"),
        ((), "no row follows the first line"),
        (("ch4,0,C,0,0,0", "ch4,2,H,1,0,0"), "ch4 has no atom 1"),
        (("ch4,0,C,0,0,nan", "ch4,1,H,1,0,0"), "atom 0 of ch4 has no position within"),
        (("x,0,Qq,0,0,0", "x,1,H,1,0,0"), "'Qq', which is no element"),
        (("ch4,0,C,0,0,0", "ch4,1,H,0,0,0"), "atoms 0 and 1 of ch4 lie in one place"),
    ],
)
def test_structures_that_cannot_be_used_are_refused(
    run: Path, tmp_path: Path, lines: Sequence[str], said: str
) -> None:
    write_structures(tmp_path, *lines)
    refused(run, tmp_path, said)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), "no row follows the first line"),
        (("1,ch4,1,9,1JHC",), "id 1 names atoms 1 and 9 of ch4, which has 5"),
        ((PAIR, "8,ch4,0,1,1JHC"), "ids 7 and 8 are the same pair of atoms"),
        ((PAIR, PAIR), "id 7 is there twice"),
        (("1,ch4,1,0,1JHX",), "'1JHX' is no known type: give one of 1JHC"),
        (("1,ch4,1,0,1JHN",), "id 1 is 1JHN between H and C of ch4"),
        (("1,ch5,1,0,1JHC",), "ch5 is not among the structures"),
        (("one,ch4,1,0,1JHC",), "pairs.csv cannot be read"),
    ],
)
def test_pairs_that_cannot_be_used_are_refused(
    run: Path, tmp_path: Path, lines: Sequence[str], said: str
) -> None:
    write_structures(tmp_path, *METHANE)
    refused(run, tmp_path, said, f"pairs={write_pairs(tmp_path / 'pairs.csv', *lines)}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pairs=nowhere.csv"], "nowhere.csv does not exist"),
        (["other.csv"], "predict takes one file of structures, such as structures.csv, not "),
        (["max_pairs=3"], "ch4 has 10 pairs of atoms with a bond or a coupling, more than max_pai"),
        (["device=abacus"], "there is no device abacus"),
        (["batch_size=0"], "predict: batch_size=0 must be 1 or more"),
        (["workers=0"], "predict: workers=0 must be 1 or more"),
        (["top=3"], "predict: top does nothing for task=nmr_small, whose settings are max_pairs, "),
        (["split=test"], "predict: split does nothing for task=nmr_small"),
        (["workers=many"], "workers=many is not of the default's type"),
        (["batchsize=2"], "predict takes no 'batchsize=2'; did you mean batch_size?"),
        (["--overwrite"], "there is no flag --overwrite"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    run: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    write_structures(tmp_path, *METHANE)
    refused(run, tmp_path, said, *words)


def refused(checkpoint: Path, folder: Path, said: str, *words: str) -> None:
    """A sentence, and nothing is left of the output."""
    before = sorted(folder.iterdir())
    with pytest.raises(UserError) as caught:
        predict(checkpoint, folder, f"output={folder / 'out.csv'}", *words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(folder.iterdir()) == before


def test_a_file_is_replaced_only_where_that_is_wanted(run: Path, tmp_path: Path) -> None:
    write_structures(tmp_path, *METHANE)
    output = tmp_path / "out.csv"
    output.write_text("mine")
    refused(
        run,
        tmp_path,
        "out.csv exists: name another file as the output, or replace it with overwrite",
    )
    assert output.read_text() == "mine"
    assert predict(run, tmp_path, f"output={output}", "overwrite") == 0
    assert len(rows(output)) == 10
    with pytest.raises(UserError, match="is a folder: give output= the name of a file"):
        predict(run, tmp_path, f"output={tmp_path}", "overwrite=true")
    with pytest.raises(UserError, match="cannot be written: "):
        predict(run, tmp_path, f"output={output / 'below.csv'}")


def test_a_checkpoint_without_labels_or_with_a_diverged_network_is_refused(
    run: Path, tmp_path: Path
) -> None:
    bare = changed(run, tmp_path / "bare.ckpt", lambda c: c["state_dict"].pop("_extra_state"))
    write_structures(tmp_path, *METHANE)
    refused(bare, tmp_path, "has no labels of atoms and pairs: predict needs one written by")
    weights = "model.last_norm.weight"
    broken = changed(
        run, tmp_path / "nan.ckpt", lambda c: c["state_dict"][weights].fill_(torch.nan)
    )
    refused(broken, tmp_path, "the network finds no finite coupling for ch4: use a checkpoint")


def test_a_molecule_that_legacy_indices_cannot_read_is_refused(run: Path, tmp_path: Path) -> None:
    def of_legacy(content: Any) -> None:
        content["config"]["model"]["legacy_indices"] = True

    legacy = changed(run, tmp_path / "legacy.ckpt", of_legacy)
    folder = tmp_path / "large"
    folder.mkdir()
    far = [f"large,{number},He,{10 * number},0,0" for number in range(28)]
    write_structures(folder, *far, "large,28,H,0,9,0", "large,29,H,0.74,9,0", "large,30,C,0,20,0",
                     "large,31,H,1.09,20,0")  # fmt: skip
    refused(legacy, folder, "legacy_indices=true takes molecules of up to 29 atoms, not of 32")


def test_the_folder_of_a_run_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoints/best\.ckpt or checkpoints/last\.ckpt:"):
        predict(tmp_path, BUNDLED)
    with pytest.raises(UserError, match=r"there is no checkpoint at .*nowhere"):
        predict(tmp_path / "nowhere", BUNDLED)
    with pytest.raises(UserError, match="a checkpoint is needed: ckpt_path="):
        commands.run(["predict"])


def test_run_input_and_output_may_be_typed_in_their_order(run: Path, tmp_path: Path) -> None:
    write_structures(tmp_path, *METHANE)
    assert commands.run(["predict", str(run), str(tmp_path), f"{tmp_path}/a.csv"]) == 0
    predict(run, tmp_path, f"output={tmp_path}/b.csv")
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


@pytest.mark.slow
def test_processes_share_the_work(run: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        output = tmp_path / f"{workers}.csv"
        predict(run, BUNDLED, f"workers={workers}", f"output={output}")
    assert rows(tmp_path / "1.csv") == rows(tmp_path / "2.csv")
