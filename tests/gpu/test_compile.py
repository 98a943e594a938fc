"""`compile=graph` and `compile=cell` on a GPU: compiled runs take the steps of plain ones."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import equipoise
from equipoise.equilibrium import Anderson, Equilibrium, Exact, JacobianFree, Phantom
from equipoise.equilibrium.cuda_graph import graphed
from tests.end_to_end.resuming import BATCHES, SEQUENCES, TASKS, curve, interrupted, resumed
from tests.gpu.networks import CUDA, error, gradient_of, gradients, mdeq, pictures
from tests.gpu.test_runs import QUIET

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
STEPS = 2 * BATCHES
WORDS = (
    *QUIET, "strategy=gpu", "seed=7", "solver.tol=0", "trainer.log_every_n_steps=1",
    "callbacks.normalization_warmup=null",  # it changes a number at each of the first steps
    "trainer.max_epochs=2",
    # Every step stands almost at the first weights: training, above all by Adam, magnifies any
    # rounding, to a percent of the loss within ten steps. Gradients are compared by the momentum.
    "optimizer=sgd", "optimizer.lr=1e-5", "schedule=constant",
)  # fmt: skip
DIGITS = ("task=digits", *TASKS["digits"], "model.channels=[16,16]", "model.dropout=0")
ESTIMATORS = {
    "phantom": ("gradient=phantom",),
    "jfb": ("gradient=jfb",),
    "exact": ("gradient=exact", "gradient.solver.tol=0", "gradient.solver.max_steps=6"),
    "shine": ("gradient=shine", "solver=broyden"),
    "neumann": ("gradient=neumann", "gradient.damping=0.5", "gradient.steps=3"),
}


def run(folder: Path, *words: str) -> dict[str, Any]:
    found = equipoise.run(*words, f"run_dir={folder}")
    assert found["status"] == "completed"
    return found


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions without TF32: two kernels for one product agree to seven digits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def column(folder: Path, name: str) -> list[float]:
    return [float(row[name]) for row in curve(folder) if row.get(name)]


def both(folder: Path, *words: str, compile: str = "graph") -> tuple[Any, Any]:
    """The results of a plain run and of a compiled one."""
    plain = run(folder / "plain", *words)
    return plain, run(folder / compile, *words, f"compile={compile}")


def momentum(folder: Path) -> torch.Tensor:
    """The momentum at the end of a run: its gradients, the late ones with more weight."""
    kept = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    states = kept["optimizer_states"][0]["state"].values()
    return torch.cat([state["momentum_buffer"].flatten() for state in states])


def alike(folder: Path, compile: str = "graph", against: str = "plain") -> bool:
    """Whether the losses of all steps and the gradients of two runs are the same up to rounding."""
    found, expected = (column(folder / name, "train/loss") for name in (compile, against))
    assert len(expected) >= 4
    assert found == pytest.approx(expected, rel=2e-3)
    assert error([momentum(folder / compile)], [momentum(folder / against)]) < 0.25
    return True


def losses_alike(folder: Path, compile: str = "graph") -> bool:
    """Whether the losses of two runs in half precision are the same up to its rounding."""
    found, expected = (column(folder / name, "train/loss") for name in (compile, "plain"))
    assert len(expected) >= 4
    assert found == pytest.approx(expected, rel=3e-2)
    return True


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_recorded_run_takes_the_steps_of_a_plain_one(estimator: str, tmp_path: Path) -> None:
    _, found = both(tmp_path, *DIGITS, *WORDS, *ESTIMATORS[estimator])
    counts = found["details"]["graph"]
    # Of 5 batches an epoch the last is smaller, and of the others the first one is not recorded.
    assert counts == {"recordings": 1, "replayed": STEPS - 3, "plain": 3}
    assert alike(tmp_path)
    for name in ("solver/nfe", "backward/nfe", "solver/residual_mean"):
        values = [column(tmp_path / side, name) for side in ("graph", "plain")]
        assert values[0] == pytest.approx(values[1], rel=0.1, abs=1e-6)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_precision_clipping_and_accumulation(precision: str, tmp_path: Path) -> None:
    words = (
        f"trainer.precision={precision}", "trainer.gradient_clip_val=1.0",
        "trainer.accumulate_grad_batches=2",
    )  # fmt: skip
    plain, found = both(tmp_path, *DIGITS, *WORDS, "gradient=phantom", *words)
    assert found["details"]["graph"]["replayed"] == STEPS - 3
    assert losses_alike(tmp_path)
    assert found["test"]["loss"] == pytest.approx(plain["test"]["loss"], rel=0.1)


def test_averaged_weights_are_those_of_a_plain_run(tmp_path: Path) -> None:
    plain, found = both(tmp_path, *DIGITS, *WORDS, "gradient=phantom", "callbacks=[default,ema]")
    assert found["details"]["graph"]["recordings"] >= 1
    assert found["test"]["loss"] == pytest.approx(plain["test"]["loss"], rel=2e-2)


def test_a_schedule_that_changes_the_estimator_has_it_recorded_anew(tmp_path: Path) -> None:
    phases = (
        "callbacks.gradient_schedule.phases=[{start: 0, gradient: jfb}, "
        "{start: 5, gradient: phantom, max_steps: 3}]"
    )
    _, found = both(tmp_path, *DIGITS, *WORDS, phases)
    assert found["details"]["graph"]["recordings"] == 2
    assert alike(tmp_path)
    names = [[row["gradient"] for row in curve(tmp_path / side)] for side in ("graph", "plain")]
    assert names[0] == names[1]


def test_a_resumed_run_goes_on_as_the_whole_one(tmp_path: Path) -> None:
    words = (*DIGITS, *WORDS, "gradient=phantom", "compile=graph", "trainer.max_epochs=3")
    run(tmp_path / "whole", *words)
    interrupted(tmp_path / "broken", BATCHES + 1, *words)
    again = resumed(tmp_path / "broken")
    assert again["details"]["graph"]["recordings"] == 1
    assert alike(tmp_path, "broken", "whole")


def test_a_language_model_is_recorded_once_its_memory_is_full(tmp_path: Path) -> None:
    words = (
        "task=python_docs", *SEQUENCES[:-1], "model.dropout=0", "task.batch_size=8",
        "trainer.limit_train_batches=8", "trainer.limit_val_batches=2",
        "trainer.limit_test_batches=1", "gradient=phantom",
    )  # fmt: skip
    _, found = both(tmp_path, *WORDS, *words, "trainer.max_epochs=1")
    assert found["details"]["graph"]["replayed"] >= 4
    assert alike(tmp_path)


def test_segmentation_is_recorded(tmp_path: Path) -> None:
    words = ("task=digit_scenes", *TASKS["digit_scenes"], "model.dropout=0", "gradient=phantom")
    _, found = both(tmp_path, *words, *WORDS)
    assert found["details"]["graph"]["replayed"] >= 4
    assert alike(tmp_path)


def test_dropout_draws_new_masks_at_every_replay() -> None:
    image, _ = pictures(4)
    network = mdeq(Equilibrium(Anderson(max_steps=4, tol=0), Phantom()))
    network.dropout = 0.3
    network = graphed(network, image)
    first, second = (network(image).detach() for _ in range(2))
    assert not torch.equal(first, second)


def test_a_second_pass_before_the_backward_pass_of_the_first_is_right() -> None:
    image, _ = pictures(4)
    found = []
    for recorded in (True, False):
        network = mdeq(Equilibrium(Anderson(max_steps=4, tol=0), Phantom()))
        network = graphed(network, image) if recorded else network
        pair = network(image), network(0.5 * image)
        (pair[0].square().sum() + pair[1].square().sum()).backward()
        found.append(gradient_of(network))
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 1e-3


def test_a_copy_of_a_recorded_network_has_no_graphs() -> None:
    image, _ = pictures(4)
    network = graphed(mdeq(Equilibrium(Anderson(max_steps=4, tol=0), Phantom())), image)
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for weight in copied.parameters():
            weight.zero_()
    assert float(copied(image).detach().abs().max()) == 0
    assert float(network(image).detach().abs().max()) > 0


READING = """
import torch
from equipoise.equilibrium.cuda_graph import graphed

class Reading(torch.nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        return y if float(y.detach().sum()) > 0 else -y

graphed(Reading(4, 4).cuda(), torch.zeros(2, 4).cuda())
"""


def test_what_cuda_cannot_record_is_told() -> None:
    """In a process of its own, since a broken recording leaves CUDA in disorder."""
    done = subprocess.run([sys.executable, "-c", READING], capture_output=True, text=True)
    assert "CannotRecordError: the training pass of Reading cannot be recorded" in done.stderr


@pytest.mark.parametrize("name", ["dense", "convolution", "two_branches"])
def test_compiled_code_of_f_agrees_by_every_estimator(name: str) -> None:
    """The exact gradient second, by code that was compiled for one product alone."""
    solver = Anderson(max_steps=8, tol=0)
    for estimator in (JacobianFree(), Exact(solver), Phantom()):
        layers = [Equilibrium(solver, estimator) for _ in range(2)]
        layers[0].compiles_f = True
        assert error(*(gradients(name, layer, CUDA) for layer in layers)) < 1e-5


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("word", ["cell", "cell+graph"])
def test_a_run_with_compiled_f_takes_the_steps_of_a_plain_one(
    word: str, precision: str, tmp_path: Path
) -> None:
    words = (*DIGITS, *WORDS, *ESTIMATORS["jfb"], f"trainer.precision={precision}")
    _, found = both(tmp_path, *words, compile=word)
    compared = alike if precision == "32-true" else losses_alike
    assert compared(tmp_path, word)
    assert ("graph" in found["details"]) == ("graph" in word)


@pytest.mark.parametrize("word", ["graph", "cell"])
def test_channels_last_changes_no_result(word: str, tmp_path: Path) -> None:
    words = (*DIGITS, *WORDS, *ESTIMATORS["jfb"])
    run(tmp_path / "plain", *words)
    run(tmp_path / word, *words, "memory_format=channels_last", f"compile={word}")
    assert alike(tmp_path, word)
