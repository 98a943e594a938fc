"""A run from the command line: what it leaves, evaluation, interruption, multirun, loggers."""

import csv
import json
import signal
import subprocess
import time
from html import escape

import pytest
import torch

from tests.end_to_end.conftest import SMALL

pytestmark = pytest.mark.end_to_end


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def curve_of(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_everything_and_its_evaluation_repeats_the_test(command, tmp_path):
    done = command("train.py", *SMALL, "trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "digits" / "mdeq").iterdir()
    left = ["config.yaml", "metrics.json", "metrics.csv", "checkpoints/last.ckpt",
            "checkpoints/best.ckpt", "report/index.html", "report/loss.png"]  # fmt: skip
    assert [name for name in left if not (folder / name).is_file()] == []
    metrics = metrics_of(folder)
    assert metrics["status"] == "completed"
    assert metrics["solver"] == "anderson"
    assert metrics["gradient"] == "phantom"
    assert set(metrics["test"]) == set(metrics["val"]) == set(metrics["train"])
    assert metrics["solver_stats"]["nfe_mean"] == 4
    assert metrics["gradient_stats"]["nfe_mean"] == 5
    assert list(metrics["details"]["accuracy_by_class"]) == [str(digit) for digit in range(10)]
    assert metrics["choices"]["recipe"] == "digits_mdeq"
    page = (folder / "report" / "index.html").read_text()
    origin = [escape(metrics[key]) for key in ("command", "date", "device", "revision")]
    pictures = ["confusion.svg", "mistakes.png"]
    for text in (*pictures, *origin, "Accuracy by class", "<summary>Configuration"):
        assert text in page
    torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)

    path = folder / "checkpoints" / "best.ckpt"
    again = command("evaluate.py", f"ckpt_path={path}", "run_dir=same")
    assert again.returncode == 0, again.stderr
    assert metrics_of(tmp_path / "same")["test"] == metrics["test"]
    assert (tmp_path / "same" / "report" / "index.html").is_file()
    assert metrics_of(folder) == metrics
    changed = command("evaluate.py", f"ckpt_path={path}", "run_dir=more", "solver.max_steps=9",
                      "gradient=exact")  # fmt: skip
    assert changed.returncode == 0, changed.stderr
    assert metrics_of(tmp_path / "more")["gradient"] == "exact"
    assert metrics_of(tmp_path / "more")["solver_stats"]["nfe_mean"] > 4


def test_the_estimator_changes_in_the_middle_of_a_run(command, tmp_path):
    phases = (
        "callbacks.gradient_schedule.phases=[{start: 0.0, gradient: unrolled, "
        "settings: {steps: 3}}, {start: 0.3, gradient: phantom}, {start: 0.6, gradient: exact}]"
    )
    done = command("train.py", *SMALL, phases, "trainer.max_steps=10", "run_dir=phases")
    assert done.returncode == 0, done.stderr
    rows = [row for row in curve_of(tmp_path / "phases") if row["gradient"]]
    seen = {int(row["step"]): (row["gradient"], float(row["backward/nfe"])) for row in rows}
    assert [seen[step][0] for step in range(1, 11)] == (
        ["unrolled"] * 3 + ["phantom"] * 3 + ["exact"] * 4
    )
    assert seen[1][1] == 3
    assert seen[4][1] == 5
    assert seen[9][1] > 5


def test_an_interrupted_run_goes_on_to_the_same_bits(command, start, tmp_path):
    common = [*SMALL, "trainer.deterministic=true", "trainer.max_steps=40", "model.dropout=0.2"]
    whole = command("train.py", *common, "run_dir=whole")
    assert whole.returncode == 0, whole.stderr

    process = start(*common, "run_dir=part")
    curve = tmp_path / "part" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not (curve.is_file() and len(curve.read_text().splitlines()) > 4):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    interrupted = metrics_of(tmp_path / "part")
    assert interrupted["status"] == "interrupted"
    assert 0 < interrupted["steps"] < 40

    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    rest = command("train.py", f"ckpt_path={last}", "run_dir=part")
    assert rest.returncode == 0, rest.stderr
    assert metrics_of(tmp_path / "part")["steps"] == 40
    expected = torch.load(tmp_path / "whole" / "checkpoints" / "last.ckpt", weights_only=True)
    reached = torch.load(last, weights_only=True)
    assert reached["global_step"] == expected["global_step"] == 40
    for name, value in expected["state_dict"].items():
        assert torch.equal(value, reached["state_dict"][name]), name
    steps = [int(row["step"]) for row in curve_of(tmp_path / "part") if row["train/loss"]]
    assert sorted(set(steps)) == list(range(1, 41))


def test_a_multirun_ends_with_a_table_and_folders_that_can_be_evaluated(command, tmp_path):
    done = command("train.py", "-m", "seed=1,2", "gradient=jfb,phantom", *SMALL,
                   "trainer.max_epochs=1", "trainer.limit_train_batches=3")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    names = sorted(path.name for path in sweep.iterdir() if path.is_dir())
    assert names == ["0_seed-1_gradient-jfb", "1_seed-1_gradient-phantom",
                     "2_seed-2_gradient-jfb", "3_seed-2_gradient-phantom"]  # fmt: skip
    assert {metrics_of(sweep / name)["gradient"] for name in names} == {"jfb", "phantom"}
    assert all(name in done.stdout for name in names)
    assert (sweep / "summary.csv").is_file()
    path = sweep / names[3] / "checkpoints" / "best.ckpt"
    again = command("evaluate.py", f"ckpt_path={path}", "run_dir=again")
    assert again.returncode == 0, again.stderr
    assert metrics_of(tmp_path / "again")["test"] == metrics_of(sweep / names[3])["test"]


def test_an_offline_wandb_run_holds_the_solver_metrics(command, tmp_path):
    done = command("train.py", "logger=wandb", *SMALL, "trainer.max_steps=3", "run_dir=run")
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "run").rglob("run-*.wandb")
    content = record.read_bytes()
    for key in (b"solver/nfe", b"solver/residual_median", b"backward/nfe", b"train/loss",
                b"choices", b"digits_mdeq", b"The test samples of which"):  # fmt: skip
        assert key in content
    shown = {file.name.partition("_")[0] for file in (tmp_path / "run").rglob("media/**/*.png")}
    assert {"confusion", "mistakes", "convergence"} <= shown


@pytest.mark.slow
def test_two_processes_on_the_cpu_train_and_test(command, tmp_path):
    done = command("train.py", "strategy=ddp_cpu", *SMALL, "trainer.max_steps=3", "run_dir=two")
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(tmp_path / "two")
    assert metrics["status"] == "completed"
    assert metrics["steps"] == 3


def test_a_truncated_checkpoint_is_named(command, tmp_path):
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"PK\x03\x04 half a file")
    done = command("evaluate.py", f"ckpt_path={broken}")
    assert done.returncode == 2
    assert "checkpoint" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=mdeqq"], "mdeq?"),
        (["task=imagnet"], "imagenet?"),
        (["solver.max_step=5"], "solver.max_steps?"),
        (["gradient=exactt"], "exact?"),
        (["model=resnet", "solver=broyden"], "no equilibrium layer"),
        (["trainer.max_epochs=ten"], "whole number"),
        (["ckpt_path=/nonexistent"], "no checkpoint at /nonexistent"),
    ],
)
def test_a_wrong_command_is_answered_in_one_sentence(
    command: subprocess.CompletedProcess, words, said
):
    done = command("train.py", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_help_lists_the_groups(command):
    done = command("train.py", "--help")
    assert done.returncode == 0
    for word in ("task=", "* mdeq", "gradient=", "evaluate.py"):
        assert word in done.stdout


def test_cfg_shows_what_the_recipe_makes_of_it(command):
    done = command("train.py", "task=imagenet", "--cfg", "job")
    assert done.returncode == 0
    for line in ("max_steps: 26", "max_epochs: 100", "lr: 0.05", "size: small"):
        assert line in done.stdout
