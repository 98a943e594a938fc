"""What cannot be recorded as a CUDA graph is refused before anything runs; the rest: tests/gpu."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from equipoise.equilibrium import (
    AdjointBroyden,
    AdjointMemory,
    Anderson,
    Auto,
    Broyden,
    Equilibrium,
    Exact,
    FixedPointCorrection,
    JacobianFree,
    Phantom,
    Reversible,
    Unrolled,
    zero_start,
)
from equipoise.equilibrium.cuda_graph import graphed

WHOLE = Anderson(tol=0)


class Network(nn.Module):
    def __init__(self, equilibrium: Equilibrium) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.equilibrium = equilibrium

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.equilibrium(lambda z, x: torch.tanh(self.linear(z) + x), x, x)
        return z


def started_by_a_rule() -> Equilibrium:
    layer = Equilibrium(WHOLE, Phantom())
    layer.start = zero_start
    return layer


REFUSED = {
    "anderson needs tol=0": Equilibrium(Anderson(), Phantom()),
    "broyden needs tol=0": Equilibrium(WHOLE, Exact(Broyden())),
    "adjoint_broyden decides": Equilibrium(AdjointBroyden(tol=0), JacobianFree()),
    "Auto reads": Equilibrium(WHOLE, Auto()),
    "Reversible reads": Equilibrium(WHOLE, Reversible()),
    "checkpointing": Equilibrium(WHOLE, Unrolled(checkpoint=True)),
    "the latest one ended": Equilibrium(WHOLE, Exact(WHOLE, AdjointMemory())),
    "its jitter": Equilibrium(WHOLE, Phantom(), jitter=2),
    "its random_start": Equilibrium(WHOLE, Phantom(), random_start=0.5),
    "its regularizer": Equilibrium(WHOLE, Phantom(), regularizer=FixedPointCorrection()),
    "its start": started_by_a_rule(),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_changes_or_waits_is_refused(reason: str) -> None:
    with pytest.raises(ValueError, match=f"'equilibrium' cannot be recorded.*{reason}"):
        graphed(Network(REFUSED[reason]), torch.zeros(2, 4))


def test_a_network_without_a_gpu_or_in_evaluation_is_refused() -> None:
    network = Network(Equilibrium(WHOLE, Exact(WHOLE)))
    with pytest.raises(ValueError, match="on a GPU"):
        graphed(network, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="training mode"):
        graphed(network.eval(), torch.zeros(2, 4))
