"""Two views through one encoder and one projector."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equipoise.equilibrium import Equilibrium, FixedPoint, Unrolled
from equipoise.models import MDEQ, BarlowTwins, ResNet

IMAGES: dict[str, Any] = {"image_size": 8, "image_channels": 1}
TINY = partial(ResNet, classes=None, size="tiny", **IMAGES)
EQUILIBRIUM_ENCODER = partial(
    MDEQ, features=True, channels=(4, 8), head_channels=(2, 3), final_channels=6, groups=4, **IMAGES
)


def views(rows: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, rows, 1, 8, 8, generator=generator)
    return first, 3 * second  # whose statistics are others


def of_residual_network(**settings: Any) -> BarlowTwins:
    torch.manual_seed(0)
    return BarlowTwins(encoder=TINY, projector=(12, 7), **settings)


def of_equilibrium() -> BarlowTwins:
    torch.manual_seed(0)
    layer = Equilibrium(FixedPoint(), Unrolled(steps=3))
    return BarlowTwins(layer, encoder=EQUILIBRIUM_ENCODER, projector=(12, 7))


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_published_network_has_its_number_of_parameters() -> None:
    encoder = partial(ResNet, classes=None, image_size=32, size="resnet50", stem="small")
    with torch.device("meta"):
        model = BarlowTwins(encoder=encoder, projector=(512, 128), projector_biases="last")
    assert count(model) == 24_615_616
    assert (model.encoder.features, model.width) == (2048, 128)


@pytest.mark.parametrize("make", [of_residual_network, of_equilibrium])
def test_shapes_and_gradients(make: Any) -> None:
    model = make()
    found = model(*views())
    assert found.first.shape == found.second.shape == (4, model.width) == (4, 7)
    assert found.first_features.shape == found.second_features.shape == (4, model.encoder.features)
    (found.first - found.second).square().sum().backward()
    # a bias in front of the difference of two views falls out of it
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert set(without) <= {"projector.3.bias"}


@pytest.mark.parametrize(
    ("biases", "named"),
    [("none", []), ("last", ["3.bias"]), ("all", ["0.bias", "3.bias"])],
)
def test_which_layers_of_the_projector_have_a_bias(biases: Any, named: list[str]) -> None:
    projector = of_residual_network(projector_biases=biases).projector
    linear = {f"{i}.bias" for i, layer in enumerate(projector) if isinstance(layer, nn.Linear)}
    assert sorted(linear & set(projector.state_dict())) == named


def test_a_projector_without_widths_is_refused() -> None:
    with pytest.raises(ValueError, match="the projector needs at least one width"):
        BarlowTwins(encoder=TINY, projector=())


def test_each_view_has_batch_statistics_of_its_own() -> None:
    model = of_residual_network()
    first, second = views()
    found = model(first, second)
    alone = model(first, first)
    torch.testing.assert_close(found.first, alone.first)
    torch.testing.assert_close(found.first_features, alone.first_features)
    features = model.encoder(second)
    torch.testing.assert_close(found.second_features, features)


def test_one_solve_finds_the_equilibria_of_both_views() -> None:
    model = of_equilibrium()
    solves: list[int] = []
    model.encoder.equilibrium.register_forward_pre_hook(
        lambda _, inputs: solves.append(len(inputs[1][0]))
    )
    first, second = views()
    found = model(first, second)
    assert solves == [2 * len(first)]
    both = model.encoder(torch.cat([first, second]))
    torch.testing.assert_close(torch.cat([found.first_features, found.second_features]), both)
    # The batch norms of stem and head see both views, the projector's each its own.
    assert not torch.allclose(found.first_features, model.encoder(first))
    torch.testing.assert_close(found.first, model.projector(both[: len(first)]))
    model.eval()
    torch.testing.assert_close(
        model(first, second).first_features, model.encoder(first), rtol=1e-4, atol=1e-5
    )
