"""What nodes start with: sinusoids of their numbers, and a sum over the levels of their labels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from equipoise.models.coupling_transformer.embedding import Form, NodeEmbedding, linear, sinusoids


@given(width=st.integers(1, 9), feature=st.floats(-5, 40))
def test_sinusoids_are_cosines_and_sines_in_turn(width: int, feature: float) -> None:
    found = sinusoids(torch.tensor([[feature]], dtype=torch.float64), width)
    expected = []
    for channel in range(width):
        angle = feature * 1000 ** (-(channel // 2 * 2) / width)
        expected.append(math.sin(angle) if channel % 2 else math.cos(angle))
    assert found.shape == (1, 1, width)
    torch.testing.assert_close(found[0, 0].tolist(), expected, rtol=0, atol=1e-5)


def embedding(form: Form, features: int = 2) -> NodeEmbedding:
    torch.manual_seed(0)
    part = NodeEmbedding((3, 5), 8, features=features, form=form, feature_width=3).double()
    for name, parameter in part.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return part


LABEL = torch.tensor([[[1, 5], [3, 0]]])
FEATURE = torch.tensor([[[0.3, -0.1], [0.9, 0.4]]], dtype=torch.float64)


def test_levels_and_sines_of_every_number_are_added_up() -> None:
    part = embedding("sine")
    coarse, fine = part.levels
    expected = coarse(LABEL[..., 0]) + fine(LABEL[..., 1])
    for number, sine in enumerate(part.sines):
        expected = expected + sine(sinusoids(FEATURE[..., number], 8))
    torch.testing.assert_close(part(LABEL, FEATURE), expected)


def test_learned_numbers_have_channels_of_their_own() -> None:
    part = embedding("learned")
    coarse, fine = part.levels
    assert part.learned is not None
    expected = torch.cat([coarse(LABEL[..., 0]) + fine(LABEL[..., 1]), part.learned(FEATURE)], -1)
    torch.testing.assert_close(part(LABEL, FEATURE), expected)
    assert expected.shape[-1] == 8


@pytest.mark.parametrize("form", ["sine", "learned"])
def test_the_first_weights_are_the_published_ones(form: Form) -> None:
    torch.manual_seed(0)
    part = NodeEmbedding((300,), 64, features=1, form=form, feature_width=32)
    for module in part.modules():
        if isinstance(module, nn.Linear):
            assert 0.08 < module.weight.abs().max() <= 0.1
            assert not module.bias.any()
    (level,) = part.levels
    assert isinstance(level, nn.Embedding)
    assert level.weight.std().item() == pytest.approx(1, abs=0.05)
    assert level.weight[0].any()


@pytest.mark.parametrize("weight_norm", [True, False])
def test_a_linear_map_starts_with_the_published_weights(weight_norm: bool) -> None:
    torch.manual_seed(0)
    part = linear(50, 40, weight_norm=weight_norm)
    weight = part(torch.eye(50)).mT
    assert 0.098 < weight.abs().max() <= 0.1 + 1e-6
    assert ("weight" in dict(part.named_parameters())) == (not weight_norm)


@pytest.mark.parametrize(
    ("form", "feature_width", "sentence"),
    [
        ("fourier", 3, "there is no form 'fourier' of features: choose sine, learned"),
        ("learned", 8, "feature_width=8 must be above 0 and below 8"),
        ("learned", 0, "feature_width=0 must be above 0"),
    ],
)
def test_what_cannot_be_is_named(form: Form, feature_width: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        NodeEmbedding((3,), 8, features=1, form=form, feature_width=feature_width)
