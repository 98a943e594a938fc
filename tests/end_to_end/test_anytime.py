"""The anytime curve and the fidelity callback through the real command line."""

import csv
import json
import signal
import time

import pytest

from tests.end_to_end.conftest import SMALL

pytestmark = pytest.mark.end_to_end
CURVE = ["anytime=curve", "anytime.budgets=[2,6]"]


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture
def trained(command, tmp_path):
    """A run of a few steps with measured fidelity and a choosing estimator; its folder."""
    done = command("train.py", *SMALL, "callbacks=[default,gradient_fidelity]", "gradient=auto",
                   "callbacks.gradient_fidelity.every=2", "gradient.every=2",
                   "trainer.max_steps=4", "equilibrium.random_start=0.5",
                   "run_dir=trained")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tmp_path / "trained"


def test_what_is_measured_is_left_in_the_folders(command, trained, tmp_path):
    with (trained / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = [row for row in rows if row["fidelity/cosine"]]
    assert [int(row["step"]) for row in measured] == [1, 3]
    assert {row["gradient"].split(":")[0] for row in rows if row["gradient"]} == {"auto"}
    fidelity = metrics_of(trained)["details"]["gradient_fidelity"]
    assert -1 <= fidelity["cosine"] <= 1
    assert fidelity["norm_ratio"] > 0
    assert (trained / "report" / "fidelity.png").is_file()

    path = f"ckpt_path={trained}/checkpoints/last.ckpt"
    done = command("evaluate.py", path, *CURVE, "run_dir=curve")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "curve"
    metrics = metrics_of(folder)
    points = metrics["details"]["anytime"]
    assert [(p["budget"], p["start"]) for p in points] == [
        (2, "zero"), (2, "random"), (6, "zero"), (6, "random"),
    ]  # fmt: skip
    assert [p["nfe"] for p in points] == [2, 2, 6, 6]
    assert points[2]["residual_median"] < points[0]["residual_median"]
    assert set(metrics["test"]) <= set(points[0])
    assert len((folder / "anytime.csv").read_text().splitlines()) == 5
    assert "anytime.png" in (folder / "report" / "index.html").read_text()
    assert "anytime 4/4  budget 6 from random" in done.stdout
    assert "test results at every budget" in done.stdout
    assert metrics["test"] == metrics_of(trained)["test"]


@pytest.mark.slow
def test_an_interrupted_curve_keeps_its_points(start, trained, tmp_path):
    folder = tmp_path / "part"
    process = start(f"ckpt_path={trained}/checkpoints/last.ckpt", "anytime=curve",
                    "anytime.budgets=[2,20000]", "run_dir=part", script="evaluate.py")  # fmt: skip
    deadline = time.monotonic() + 120
    while not (folder / "anytime.csv").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Interrupted; what was measured is in part" in said
    metrics = metrics_of(folder)
    assert metrics["status"] == "interrupted"
    assert 1 <= len(metrics["details"]["anytime"]) < 4
    assert (folder / "report" / "anytime.png").is_file()
