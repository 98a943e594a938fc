"""Which passes are recorded and replayed; the recording itself, which needs a GPU: tests/gpu."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equipoise.equilibrium import Anderson, Equilibrium, Phantom
from equipoise.equilibrium.cuda_graph import Forward, Replays
from equipoise.equilibrium.nested import Nested


class Recorded:
    """In the place of a recording: evaluates what it was made of, and counts."""

    made = 0

    def __init__(self, network: nn.Module, forward: Forward, call: Nested) -> None:
        type(self).made += 1
        self.forward, self.call, self.busy, self.calls = forward, call, False, 0

    def __call__(self, *tensors: Tensor) -> Any:
        self.calls += 1
        arguments, options = self.call.with_tensors(tensors)
        return self.forward(*arguments, **options)

    def discard(self) -> None:
        self.forward = None  # type: ignore[assignment]


class Network(nn.Module):
    def __init__(self, tol: float = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.equilibrium = Equilibrium(Anderson(max_steps=4, tol=tol), Phantom())
        self.scale = 1.0

    def forward(self, x: Tensor, memory: tuple[Tensor, ...] | None = None) -> Tensor:
        z: Tensor = self.equilibrium(lambda z, x: torch.tanh(self.linear(z) + x), x, x)
        return self.scale * z


def watched(tol: float = 0) -> tuple[Network, Replays]:
    network = Network(tol)
    return network, Replays(network, Recorded)  # type: ignore[arg-type]


def counts(replays: Replays) -> tuple[int, int, int]:
    return replays.recordings, replays.replayed, replays.plain


X = torch.zeros(3, 4)


def test_the_second_of_two_alike_is_recorded_and_other_shapes_run_as_before() -> None:
    network, replays = watched()
    for batch in (X, X, X, X[:2], X):
        assert network(batch).shape == batch.shape
    assert counts(replays) == (1, 3, 2)


@pytest.mark.parametrize("way", ["evaluation", "no_grad"])
def test_nothing_but_training_is_replayed(way: str) -> None:
    network, replays = watched()
    network.train(way != "evaluation")
    with torch.set_grad_enabled(way != "no_grad"):
        for _ in range(3):
            network(X)
    assert counts(replays) == (0, 0, 0)


def changed_estimator(network: Network) -> None:
    network.equilibrium.gradient = Phantom(steps=2)


def changed_solver(network: Network) -> None:
    network.equilibrium.solver = Anderson(max_steps=2, tol=0)


def changed_number(network: Network) -> None:
    network.scale = 0.5


def frozen_part(network: Network) -> None:
    network.linear.eval()


def frozen_weight(network: Network) -> None:
    network.linear.bias.requires_grad_(False)


def other_memory(network: Network) -> None:
    network.linear.weight.data = network.linear.weight.data.clone()


@pytest.mark.parametrize(
    "change",
    [
        changed_estimator,
        changed_solver,
        changed_number,
        frozen_part,
        frozen_weight,
        other_memory,
    ],
)
def test_what_a_recording_takes_for_constant_is_recorded_anew_when_it_changes(change: Any) -> None:
    network, replays = watched()
    for _ in range(3):
        network(X)
    change(network)
    for _ in range(3):
        network(X)
    assert counts(replays) == (2, 4, 2)


def test_an_optimiser_step_changes_nothing() -> None:
    network, replays = watched()
    optimizer = torch.optim.Adam(network.parameters())
    for _ in range(4):
        network(X).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert counts(replays) == (1, 3, 1)


def test_a_pass_before_the_backward_pass_of_the_one_before_runs_as_it_is() -> None:
    network, replays = watched()
    for _ in range(2):
        network(X)
    recording: Any = replays._recorded[1]  # type: ignore[index]
    recording.busy = True
    network(X)
    recording.busy = False
    network(X)
    assert counts(replays) == (1, 2, 2)


def test_a_layer_that_cannot_be_recorded_runs_as_before_after_one_warning() -> None:
    network, replays = watched(tol=1e-3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(4):
            network(X)
    told = [str(warning.message) for warning in caught if "recorded" in str(warning.message)]
    assert len(told) == 1
    assert "'equilibrium' is not recorded as a CUDA graph: anderson needs tol=0" in told[0]
    assert counts(replays) == (0, 0, 4)


def test_copies_have_their_own_forward_and_the_network_gets_its_back() -> None:
    network, replays = watched()
    for _ in range(3):
        network(X)
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        copied(X)
        assert copied.forward.__self__ is copied
    assert counts(replays) == (1, 2, 1)
    names = list(network.state_dict())
    replays.remove()
    assert "forward" not in vars(network)
    assert list(network.state_dict()) == names == list(Network().state_dict())
