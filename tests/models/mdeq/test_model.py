"""The whole network: its state, its gradient, its dropout, and shapes that do not fit."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.equilibrium import Equilibrium, Exact, FixedPoint, Phantom, Unrolled
from equipoise.models import MDEQ

SMALL: dict[str, Any] = {
    "classes": 3,
    "image_size": 8,
    "image_channels": 1,
    "channels": (4, 8),
    "head_channels": (2, 3),
    "final_channels": 6,
    "expansion": 2,
    "groups": 4,
}


def unrolled(steps: int = 3, checkpoint: bool = False) -> Equilibrium:
    return Equilibrium(FixedPoint(), Unrolled(steps=steps, checkpoint=checkpoint))


def small_network(equilibrium: nn.Module, **changes: Any) -> MDEQ:
    torch.manual_seed(0)
    return MDEQ(equilibrium, **{**SMALL, **changes}).double()


def images(batch: int = 4) -> Tensor:
    return torch.randn(
        batch, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


class Recorder(nn.Module):
    """Stands where the equilibrium layer stands, applies f twice, and keeps what it was given."""

    def forward(self, f: Any, z0: tuple[Tensor, ...], *inputs: Tensor) -> tuple[Tensor, ...]:
        self.z0, self.inputs = z0, inputs
        self.first, self.again = f(z0, *inputs), f(z0, *inputs)
        return self.again


@pytest.mark.parametrize("name", ["length", "direction"])
def test_gradient_of_a_normalised_weight_against_finite_differences(name: str) -> None:
    model = small_network(unrolled())
    target = torch.tensor([0, 1, 2, 0])
    parameter = getattr(model.cell.branches[0].blocks[0].conv2.weight, name)

    def loss() -> Tensor:
        return functional.cross_entropy(model(images()), target)

    loss().backward()
    direction = torch.randn_like(parameter)
    analytic = (parameter.grad * direction).sum().item()
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            parameter.add_(direction, alpha=step)
            values.append(loss().item())
            parameter.sub_(direction, alpha=step)
    assert analytic == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-10)
    assert abs(analytic) > 1e-8


@pytest.mark.parametrize("gradient", [Exact(), Phantom(), Unrolled(steps=4)])
def test_every_parameter_is_trained(gradient: Any) -> None:
    model = small_network(Equilibrium(FixedPoint(max_steps=20, tol=0), gradient), dropout=0.2)
    functional.cross_entropy(model(images()), torch.tensor([0, 1, 2, 0])).backward()
    assert all(
        parameter.grad is not None and torch.isfinite(parameter.grad).all()
        for parameter in model.parameters()
    )


def test_checkpointed_unrolling_has_the_same_gradient() -> None:
    gradients = []
    for checkpoint in (False, True):
        model = small_network(unrolled(checkpoint=checkpoint))
        model(images()).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_masks_stay_within_a_forward_and_change_between_forwards() -> None:
    recorder = Recorder()
    model = small_network(recorder, dropout=0.5)
    model(images())
    first = recorder.inputs
    assert len(first) == 3
    assert torch.equal(recorder.first[0], recorder.again[0])
    model(images())
    assert not torch.equal(torch.cat(first[1:], 1), torch.cat(recorder.inputs[1:], 1))


@pytest.mark.parametrize(("dropout", "training"), [(0.0, True), (0.5, False)])
def test_without_dropout_no_mask_and_no_random_number(dropout: float, training: bool) -> None:
    recorder = Recorder()
    model = small_network(recorder, dropout=dropout).train(training)
    before = torch.get_rng_state()
    model(images())
    assert len(recorder.inputs) == 1
    assert torch.equal(before, torch.get_rng_state())


def test_copies_and_state_survive_a_forward() -> None:
    model = small_network(unrolled()).eval()
    logits = model(images())
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(images()), logits)
    fresh = small_network(unrolled()).eval()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(1)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images()), logits)


def test_single_branch() -> None:
    model = small_network(unrolled(), channels=(8,), head_channels=(2,))
    model(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_heads_follow_the_number_of_branches() -> None:
    shapes = {**SMALL, "head_channels": None, "image_size": 32}
    fewer = MDEQ(unrolled(), **{**shapes, "channels": [16, 32]})
    assert tuple(fewer.size.head_channels) == (14, 28)
    more = MDEQ(unrolled(), **{**shapes, "channels": [8, 8, 8, 8, 8]})
    assert tuple(more.size.head_channels) == (14, 28, 56, 112, 224)
    assert more.size.blocks == (1,) * 5


def test_channels_and_groups_are_changed_together() -> None:
    model = MDEQ(unrolled(), classes=2, image_size=32, channels=[6, 12], groups=6)
    assert model.size.groups == 6


def test_images_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="multiples of 2"):
        small_network(unrolled(), image_size=9)
    with pytest.raises(ValueError, match="multiples of 2"):
        small_network(unrolled())(torch.zeros(1, 1, 7, 8, dtype=torch.float64))


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_impossible_dropout(dropout: float) -> None:
    with pytest.raises(ValueError, match="dropout"):
        small_network(unrolled(), dropout=dropout)


def test_autocast_trains_in_half_precision() -> None:
    model = small_network(Equilibrium(FixedPoint(max_steps=5, tol=0), Phantom())).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = functional.cross_entropy(model(images().float()), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_each_head_answers_by_its_name() -> None:
    model = small_network(unrolled(), mask_classes=5).eval()
    assert model(images(), output="logits").shape == (4, 3)
    assert model(images(), "mask_logits").shape == (4, 5, 8, 8)
    z = model.state(images())
    torch.testing.assert_close(model.readout(z, "mask_logits"), model(images(), "mask_logits"))
    with pytest.raises(ValueError, match=r"output is None; this model gives logits or mask_logits"):
        model(images())


def test_a_single_head_needs_no_name() -> None:
    model = small_network(unrolled(), classes=None, mask_classes=5).eval()
    assert list(model.heads) == ["mask_logits"]
    torch.testing.assert_close(model(images()), model.readout(model.state(images())))
    with pytest.raises(ValueError, match="output is 'logits'; this model gives mask_logits"):
        model(images(), "logits")


def test_a_mask_has_the_resolution_of_the_first_branch() -> None:
    model = MDEQ(unrolled(), mask_classes=4, image_size=[96, 128], size="tiny").eval()
    assert model.size.stem_stride == 4
    assert len(model.size.channels) == 2
    assert model(torch.randn(1, 3, 96, 128)).shape == (1, 4, 24, 32)
    assert model(torch.randn(1, 3, 192, 64)).shape == (1, 4, 48, 16)


def test_a_head_is_needed() -> None:
    with pytest.raises(ValueError, match="give classes, mask_classes, or both"):
        small_network(unrolled(), classes=None)


@pytest.mark.parametrize("image_size", [(8, 8, 8), []])
def test_an_image_size_has_one_or_two_sides(image_size: Any) -> None:
    with pytest.raises(ValueError, match=r"a side or \[height, width\]"):
        small_network(unrolled(), image_size=image_size)


def test_the_longer_side_decides_the_family_of_sizes() -> None:
    wide = MDEQ(nn.Identity(), mask_classes=2, image_size=(32, 128), size="tiny")
    assert wide.size.stem_stride == 4


def test_both_losses_reach_the_cell() -> None:
    model = small_network(unrolled(), mask_classes=5)
    loss = model(images(), "logits").square().mean()
    (loss + model(images(), "mask_logits").square().mean()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


SHAPE: dict[str, Any] = {
    "image_size": 8, "channels": (4, 8), "head_channels": (2, 3), "final_channels": 6,
    "expansion": 2, "groups": 4,
}  # fmt: skip


def network(**changes: Any) -> MDEQ:
    return MDEQ(nn.Identity(), **{**SHAPE, **changes})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    weights = network(classes=3).state_dict()
    content = {"state_dict": {f"model.{name}": tensor for name, tensor in weights.items()}}
    torch.save(content, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def test_stem_and_cell_are_taken_and_the_head_is_new(checkpoint: Path) -> None:
    torch.manual_seed(2)
    model = network(mask_classes=5, backbone_ckpt=str(checkpoint))
    saved = torch.load(checkpoint)["state_dict"]
    for part in ("stem", "cell"):
        own = getattr(model, part).state_dict()
        assert own
        assert all(torch.equal(own[name], saved[f"model.{part}.{name}"]) for name in own)
    assert model.heads["mask_logits"].classifier.out_channels == 5


@pytest.mark.parametrize(
    "changes", [{"channels": (8, 8)}, {"blocks": (1, 2)}, {"image_channels": 1}]
)
def test_other_shapes_are_refused(checkpoint: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"has other shapes than this model, at (stem|cell)"):
        network(classes=3, backbone_ckpt=str(checkpoint), **changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"state_dict": {"model.fc.weight": torch.ones(2)}},
            "holds no stem and cell .* model.fc.w",
        ),
        ({"weights": 1}, "has no state_dict"),
        (nn.Linear(2, 2), "holds pickled objects"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=message):
        network(classes=3, backbone_ckpt=str(tmp_path / "other.ckpt"))


def test_a_broken_or_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.ckpt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(ValueError, match="or it is truncated"):
        network(classes=3, backbone_ckpt=str(tmp_path / "short.ckpt"))
    with pytest.raises(ValueError, match="there is no checkpoint at"):
        network(classes=3, backbone_ckpt=str(tmp_path / "lost.ckpt"))
