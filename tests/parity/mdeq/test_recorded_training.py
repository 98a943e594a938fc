"""MDEQ in training mode against recorded values: gradients, dropout, unrolling, SGD, Jacobian."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
import torch
from mdeq_recordings import (
    HERE,
    LABELS,
    TIGHT,
    Arrays,
    assert_same,
    network,
    read,
    states,
    whole,
)
from torch import Tensor
from torch.nn import functional

from equipoise.equilibrium import (
    Broyden,
    Exact,
    GradientEstimator,
    Phantom,
    Unrolled,
    jacobian_norm,
)
from equipoise.interop.mdeq.weights import published_name
from equipoise.models import MDEQ
from equipoise.models.mdeq.stem_and_heads import zero_state

pytestmark = pytest.mark.usefixtures("compiles_f")

SGD_LOSSES = {
    "tight": [2.4952467097, 2.3966781039, 2.2628118393, 2.1032651176, 1.9280963857],
    "pretrain": [2.4952859528, 2.3966730981, 2.2627519297, 2.1031371721, 1.9278909662],
}
JACOBIAN_LOSS = 0.12959880440014734
JACOBIAN_TOLERANCE = 1e-8


def thumbnail(gradient: GradientEstimator | None = None) -> tuple[MDEQ, Arrays]:
    arrays = read(HERE / "A_weights.npz", HERE / "A_training.npz")
    return network("A", arrays, gradient).train(), arrays


def loss_of(model: MDEQ, image: Tensor) -> Tensor:
    return functional.cross_entropy(model(image), LABELS)


def gradients(model: MDEQ) -> dict[str, Tensor]:
    return {published_name(name): p.grad for name, p in model.named_parameters()}


def assert_same_gradients(model: MDEQ, recorded: Arrays, prefix: str) -> None:
    """Each parameter's to 1e-8, those that are zero but for round-off by the scale of the rest."""
    scale = max(array.norm() for name, array in recorded.items() if name.startswith(prefix))
    for name, ours in gradients(model).items():
        expected = recorded[f"{prefix}/{name}"]
        difference = (ours - expected).norm()
        assert difference <= 1e-8 * max(expected.norm(), 1e-6 * scale), name


def test_logits_and_gradient_norms_of_training() -> None:
    model, arrays = thumbnail()
    logits = model(arrays["x"])
    assert_same(logits, arrays["logits_train_implicit"])
    functional.cross_entropy(logits, LABELS).backward()
    with np.load(HERE / "A_training.npz") as file:
        names = list(file["names"])
    ours = gradients(model)
    assert set(names) == set(ours)
    norms = torch.stack([ours[name].norm() for name in names])
    torch.testing.assert_close(norms, arrays["gradient_norms"], rtol=1e-8, atol=1e-12)


def test_logits_of_the_unrolled_phase() -> None:
    model, arrays = thumbnail(Unrolled(steps=10))
    assert_same(model(arrays["x"]), arrays["logits_pretrain"], 1e-12)


@pytest.mark.parametrize(
    ("name", "gradient"), [("tight", Exact(TIGHT)), ("pretrain", Unrolled(steps=10))]
)
def test_losses_of_five_steps(name: str, gradient: GradientEstimator) -> None:
    model, arrays = thumbnail(gradient)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, weight_decay=2.5e-6, nesterov=True
    )
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = loss_of(model, arrays["x"])
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses == pytest.approx(SGD_LOSSES[name], rel=0, abs=1e-9)


def test_residuals_of_broyden() -> None:
    """The published solver takes one norm over the batch, ours one a sample; the steps agree."""
    model, arrays = thumbnail()
    model.eval()
    injection = model.stem(arrays["x"])
    gaps, sizes = [], []

    def f(z: tuple[Tensor, ...], injection: Tensor) -> tuple[Tensor, ...]:
        output: tuple[Tensor, ...] = model.cell(z, injection)
        pairs = list(zip(output, z, strict=True))
        gaps.append(torch.cat([(fz - part).flatten() for fz, part in pairs]).norm())
        sizes.append(torch.cat([fz.flatten() for fz in output]).norm())
        return output

    solver = Broyden(max_steps=21, tol=0, memory=20)
    solver.solve(f, zero_state(injection, model.size.channels), injection)
    absolute, size = torch.stack(gaps)[1:], torch.stack(sizes)[1:]
    torch.testing.assert_close(absolute, arrays["broyden20_abs_trace"], rtol=1e-6, atol=0)
    relative = absolute / (size + 1e-9)
    torch.testing.assert_close(relative, arrays["broyden20_rel_trace"], rtol=1e-6, atol=0)


def test_whole_recordings_of_the_exact_gradient() -> None:
    recorded = whole("A", "A_train")
    model = network("A", recorded).train()
    loss_of(model, recorded["x"]).backward()
    assert_same_gradients(model, recorded, "grad_implicit")


def test_whole_recordings_of_the_phantom_gradient() -> None:
    recorded = whole("A", "A_train")
    model = network("A", recorded, Phantom(steps=5, damping=0.5)).train()
    loss_of(model, recorded["x"]).backward()
    assert_same_gradients(model, recorded, "grad_phantom_tau0.5_k5")


def test_whole_recordings_of_the_running_statistics() -> None:
    recorded = whole("A", "A_train")
    model = network("A", recorded).train()
    model(recorded["x"])
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(
            buffer, recorded[f"buf_after/{published_name(name)}"], rtol=1e-10, atol=1e-12
        )


def test_whole_recordings_of_the_dropout() -> None:
    recorded = whole("A", "A_train")
    model = network("A", recorded)
    masks = states(recorded, "drop_mask")
    ours = model.cell(states(recorded, "z"), recorded["inj_train/0"], *masks)
    for output, expected in zip(ours, states(recorded, "f_train_dropout"), strict=True):
        assert_same(output, expected)


def test_whole_recordings_of_the_jacobian_loss() -> None:
    recorded = whole("A", "A_train")
    model = network("A", recorded).train()
    z = states(recorded, "zstar_train_tight")
    probes = _parts_of_probes(recorded, z)
    drawn = "equipoise.equilibrium.regularizers._gaussian"
    with mock.patch(drawn, side_effect=lambda *_: next(probes)):
        norm = jacobian_norm(model.cell, z, 2, model.stem(recorded["x"]))
    assert norm.item() == pytest.approx(JACOBIAN_LOSS, rel=JACOBIAN_TOLERANCE)
    norm.backward()
    ours = gradients(model)
    names = [name for name in recorded if name.startswith("grad_jac/")]
    assert names
    for name in names:
        gradient = ours[name.removeprefix("grad_jac/")]
        difference = (gradient - recorded[name]).norm()
        assert difference <= JACOBIAN_TOLERANCE * recorded[name].norm(), name


def _parts_of_probes(recorded: Arrays, z: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """The recorded probes (B, D, 1), part by part in the order of the branches."""
    for index in (0, 1):
        flat = recorded[f"jac_v/{index}"].squeeze(-1)
        pieces = flat.split([part[0].numel() for part in z], dim=1)
        yield from (piece.view_as(part) for piece, part in zip(pieces, z, strict=True))


@pytest.mark.parametrize("variant", ["A", "C", "D"])
def test_whole_recordings_of_broyden(variant: str) -> None:
    """20 steps, by the norms over the batch that a solve of single samples leaves behind."""
    recorded = whole(variant)
    model = network(variant, recorded)
    injection = model.stem(recorded["x"])
    z0 = zero_state(injection, model.size.channels)
    solver = Broyden(max_steps=21, tol=0, memory=20, trace=True, stop="absolute")
    trace = solver.solve(model.cell, z0, injection).trace
    assert trace is not None
    absolute = trace.square().sum(dim=1).sqrt()[1:]
    torch.testing.assert_close(absolute, recorded["broyden20_abs_trace"], rtol=1e-6, atol=0)
