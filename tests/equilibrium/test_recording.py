"""What surrounds a recording: turns, reports and copies. The graphs themselves: tests/gpu.

Where there is no GPU, the pass takes the place of its graphs.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from equipoise.equilibrium import Anderson, Equilibrium, Exact, recording
from equipoise.equilibrium.nested import Nested
from equipoise.equilibrium.recording import CannotRecordError, Recording


class Output(NamedTuple):
    z: Tensor
    memory: tuple[Tensor, ...]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        whole = Anderson(max_steps=4, tol=0)
        self.equilibrium = Equilibrium(whole, Exact(whole))

    def forward(self, x: Tensor) -> Output:
        z = self.equilibrium(lambda z, x: torch.tanh(0.3 * self.linear(z) + x), x, x)
        return Output(z, (z.detach(),))


@pytest.fixture(autouse=True)
def passes_without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    def called_once(callable_: nn.Module, tensors: tuple[Tensor, ...], **_: object) -> None:
        output = callable_(*tensors)
        torch.autograd.grad(output[0].sum(), list(callable_.parameters()))

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", called_once)
    monkeypatch.setattr(recording, "_left_as_they_were", lambda network: nullcontext())
    monkeypatch.setattr(recording, "_autocast_without_cache", nullcontext)


def recorded() -> tuple[Network, Recording]:
    network = Network()
    return network, Recording(network, network.forward, Nested.of(((X,), {})))


X = torch.randn(3, 4)


def test_a_replay_returns_what_the_network_does_with_its_gradients() -> None:
    network, replay = recorded()
    plain = Network()
    for each in (network, plain):
        output = replay(X) if each is network else each(X)
        assert isinstance(output, Output)
        assert not output.memory[0].requires_grad
        output.z.square().sum().backward()
    for found, expected in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_it_is_busy_from_a_pass_to_its_backward_pass_or_the_end_of_its_graph() -> None:
    _, replay = recorded()
    assert not replay.busy
    loss = replay(X).z.sum()
    assert replay.busy
    loss.backward()
    assert not replay.busy
    loss = replay(X).z.sum()
    assert replay.busy
    del loss
    assert not replay.busy


def test_every_replay_leaves_reports_of_its_own() -> None:
    network, replay = recorded()
    reports = []
    for scale in (1.0, 2.0):
        replay(scale * X).z.sum().backward()
        report = network.equilibrium.report
        assert report is not None
        reports.append(report)
        assert report.backward is not None
        assert report.backward.nfe > 0
    assert reports[0] is not reports[1]
    assert reports[0].backward is not reports[1].backward
    assert reports[0].residual is not reports[1].residual


def test_what_cuda_refuses_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    with pytest.raises(CannotRecordError, match=r"Network cannot be recorded.*capturing$"):
        recorded()
