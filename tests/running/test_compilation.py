"""`compile` on the command line: what it refuses, and that a checkpoint with it works anywhere."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import equipoise
from equipoise.config.compose import compose, storable
from equipoise.config.recompose import recompose
from equipoise.config.stored import Stored, stored_run
from equipoise.equilibrium.cuda_graph import Replays
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.errors import UserError
from equipoise.running import compilation
from equipoise.running.api import prepared
from tests.end_to_end.resuming import curve
from tests.equilibrium.test_replays import Recorded

GRAPH = ("compile=graph", "solver.tol=0", "strategy=cpu")


def built(*words: str) -> Any:
    return prepared(compose(words), Path("runs"), None)


REFUSED = {
    "compile=cells": "compile=cells",
    "compile=cell model=resnet": "model=resnet has no equilibrium layer",
    "compile=cell+graph model=resnet": "choose compile=graph",
    "compile=graph task=range_query": "has no network to compile",
    "compile=cell task=hyperparameter": "has no network to compile",
    "compile=cell strategy=fsdp_cpu": "strategy=fsdp shards them",
    "compile=graph strategy=fsdp_cpu": "strategy=fsdp shards them",
    "memory_format=channels_last strategy=fsdp_cpu": "strategy=fsdp shards them",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_compiled_is_refused_before_torch_is_needed(words: str) -> None:
    with pytest.raises(UserError, match=REFUSED[words]):
        compose(words.split())


SETTINGS = {
    "": "add solver.tol=0, or leave",
    "gradient=exact": "add solver.tol=0 gradient.solver.tol=0, or leave",
    "gradient=exact solver.tol=0 equilibrium.jitter=1": (
        "add gradient.solver.tol=0 equilibrium.jitter=0, or leave"
    ),
    "solver.tol=0 regularizer=jacobian": "add regularizer=none, or leave",
    "gradient=reversible": "Reversible reads",
}


@pytest.mark.parametrize("words", SETTINGS)
def test_a_recording_names_the_settings_that_it_needs(words: str) -> None:
    with pytest.raises(UserError, match=SETTINGS[words]):
        built("compile=graph", "strategy=cpu", *words.split())


@pytest.mark.parametrize("word", ["graph", "cell+graph"])
def test_a_recording_needs_one_gpu(word: str) -> None:
    with pytest.raises(UserError, match="compile=graph needs an NVIDIA GPU"):
        built(*GRAPH, f"compile={word}")


def test_a_memory_format_needs_images() -> None:
    with pytest.raises(UserError, match="this model has none; leave it out"):
        equipoise.build("task=python_docs", "model=deq_transformer", "memory_format=channels_last")


@pytest.mark.parametrize("gradient", ["exact", "shine", "phantom"])
def test_the_order_in_memory_changes_no_result(gradient: str) -> None:
    words = (f"gradient={gradient}", "solver=broyden", "solver.max_steps=6", "solver.tol=0")
    image, found = torch.randn(3, 1, 8, 8, dtype=torch.float64), []
    for more in ((), ("memory_format=channels_last",)):
        network = equipoise.build("task=digits", *words, *more).double().train()
        output = network(image)
        output.square().sum().backward()
        gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        found.append(torch.cat([output.detach().flatten(), *gradients]))
    weight = next(p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-9)


def test_a_missing_compiler_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="needs the C\\+\\+ compiler no-such-compiler"):
        equipoise.build("compile=cell")


def test_the_layers_of_a_run_are_told_and_those_of_a_plain_one_are_not() -> None:
    for words, expected in (((), False), (("compile=cell",), True)):
        run = built("strategy=cpu", *words)
        assert [layer.compiles_f for layer in equilibrium_layers(run.task).values()] == [expected]


def stored(**changes: Any) -> Stored:
    composition = compose([])
    config = {k: v for k, v in (storable(composition.config) | changes).items() if v != "missing"}
    content = {"config": config, "choices": composition.choices, "state_dict": {}}
    return stored_run({**content, "epoch": 1, "global_step": 9}, Path("run/checkpoints/last.ckpt"))


def test_a_checkpoint_keeps_the_key_for_training_and_leaves_it_out_of_an_evaluation() -> None:
    earlier, recorded = stored(compile="missing"), stored(compile="graph")
    assert recompose(earlier, [], "train").config.compile is None
    assert recompose(earlier, ["compile=cell"], "train").config.compile == "cell"
    assert recompose(recorded, [], "train").config.compile == "graph"
    assert recompose(recorded, [], "evaluate").config.compile is None
    assert recompose(recorded, ["compile=cell"], "evaluate").config.compile == "cell"
    with pytest.raises(UserError, match="not for an evaluation"):
        recompose(recorded, ["compile=graph"], "evaluate")


@pytest.mark.slow
def test_a_run_asks_for_its_passes_to_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU the recording stands aside; everything around it is that of a GPU."""
    monkeypatch.setattr(compilation, "check_one_gpu", lambda trainer: None)
    monkeypatch.setattr(compilation, "Replays", partial(Replays, record=Recorded))
    words = (
        "task=digits", "task.batch_size=300", "trainer.max_epochs=2", *GRAPH[1:],
        "solver.max_steps=4", "callbacks.report=null", "callbacks.normalization_warmup=null",
        "trainer.log_every_n_steps=1",
        "callbacks.gradient_schedule.phases=[{start: 0, gradient: jfb}, {start: 5, max_steps: 3}]",
    )  # fmt: skip
    plain = equipoise.run(*words, f"run_dir={tmp_path}/plain")
    found = equipoise.run(*words, "compile=graph", f"run_dir={tmp_path}/graph")
    assert found["details"]["graph"] == {"recordings": 2, "replayed": 6, "plain": 4}
    assert found["test"] == pytest.approx(plain["test"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_run_with_compiled_f_leaves_what_a_plain_one_leaves(tmp_path: Path) -> None:
    """In float64, since the first steps of Adam magnify any rounding."""
    words = (
        "task=digits", "gradient=jfb", "trainer.max_epochs=1", "trainer.limit_train_batches=6",
        "strategy=cpu", "callbacks.report=null", "trainer.log_every_n_steps=1",
        "trainer.precision=64-true",
    )  # fmt: skip
    plain = equipoise.run(*words, f"run_dir={tmp_path}/plain")
    found = equipoise.run(*words, "compile=cell", f"run_dir={tmp_path}/cell")
    losses = [
        [float(row["train/loss"]) for row in curve(tmp_path / side) if row["train/loss"]]
        for side in ("cell", "plain")
    ]
    assert len(losses[1]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    checkpoint = f"ckpt_path={tmp_path}/cell/checkpoints/last.ckpt"
    for more in ((), ("compile=cell",)):
        again = equipoise.evaluate(checkpoint, *more, f"run_dir={tmp_path}/{len(more)}")
        assert again["test"] == pytest.approx(found["test"], rel=1e-3)
    longer = equipoise.run(
        checkpoint, "compile=null", "trainer.max_epochs=2", f"run_dir={tmp_path}/longer"
    )
    assert longer["status"] == "completed"
    assert plain["test"] == pytest.approx(found["test"], rel=1e-6)
