"""A network for each type of pairs, of which each pair takes the one of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from equipoise.models.coupling_transformer.head import ResidualBlock, TypedHead


def head(types: int = 3, blocks: int = 2, outputs: int = 1, dropout: float = 0.0) -> TypedHead:
    """Whose biases are not 0."""
    torch.manual_seed(0)
    part = TypedHead(types, 4, 3, blocks=blocks, outputs=outputs, dropout=dropout).double()
    for parameter in part.parameters():
        nn.init.normal_(parameter)
    return part


def states(count: int) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def written_out(part: TypedHead, x: Tensor, kind: int) -> Tensor:
    """The network of a type for a state (4,)."""
    y = part.enter.weight[kind] @ x + part.enter.bias[kind]
    for block in part.blocks:
        assert isinstance(block, ResidualBlock)
        inner = (block.first.weight[kind] @ y + block.first.bias[kind]).clamp(min=0)
        y = y + block.second.weight[kind] @ inner + block.second.bias[kind]
    return part.leave.weight[kind] @ y + part.leave.bias[kind]


@given(
    kinds=st.lists(st.integers(0, 3), max_size=9),
    blocks=st.integers(0, 2),
    outputs=st.sampled_from([1, 5]),
)
def test_every_pair_has_the_network_of_its_own_type(
    kinds: list[int], blocks: int, outputs: int
) -> None:
    """Types without a pair, one pair alone and no pair at all included."""
    part, x = head(4, blocks, outputs), states(len(kinds)).requires_grad_()
    found = part(x, torch.tensor(kinds, dtype=torch.int64))
    assert found.shape == (len(kinds), outputs)
    plain = [written_out(part, state, kind) for state, kind in zip(x, kinds, strict=True)]
    expected = torch.stack(plain) if plain else found
    torch.testing.assert_close(found, expected)
    parameters = [x, *part.parameters()]
    slopes = torch.autograd.grad(found.sin().sum(), parameters, allow_unused=False)
    if plain:
        others = torch.autograd.grad(expected.sin().sum(), parameters)
        for slope, other in zip(slopes, others, strict=True):
            torch.testing.assert_close(slope, other)
    else:
        assert not any(slope.any() for slope in slopes)


@given(types=st.integers(1, 4), blocks=st.integers(0, 2), outputs=st.sampled_from([1, 5]))
def test_it_is_what_is_picked_from_the_networks_of_all_types(
    types: int, blocks: int, outputs: int
) -> None:
    part, x = head(types, blocks, outputs), states(6)
    kind = torch.arange(6) % types
    everything = part.of_all_types(x.view(2, 3, 4))
    assert everything.shape == (2, types, 3)
    picked = everything.transpose(1, 2).flatten(0, 1)[torch.arange(6), kind]
    torch.testing.assert_close(part(x, kind)[:, 0], picked)


def test_a_type_without_pairs_learns_nothing() -> None:
    part = head()
    part(states(4), torch.tensor([0, 2, 0, 2])).sum().backward()
    for parameter in part.parameters():
        assert parameter.grad is not None
        assert parameter.grad[0].any()
        assert not parameter.grad[1].any()


def test_dropout_is_within_the_blocks_in_training_alone() -> None:
    part, x, kind = head(dropout=0.5), states(4), torch.tensor([0, 1, 2, 0])
    assert not torch.equal(part.train()(x, kind), part(x, kind))
    torch.testing.assert_close(part.eval()(x, kind), head()(x, kind))
    without = head(blocks=0, dropout=0.5).train()
    assert torch.equal(without(x, kind), without(x, kind))


def test_the_first_weights_are_the_published_ones() -> None:
    torch.manual_seed(0)
    part = TypedHead(9, 20, 10, blocks=1, outputs=1, dropout=0.0)
    for name, parameter in part.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            assert 0.09 < parameter.abs().max() <= 0.1


@pytest.mark.parametrize("outputs", [1, 5])
def test_the_gradient_is_that_of_finite_differences(outputs: int) -> None:
    part, kind = head(outputs=outputs), torch.tensor([1, 0, 1])
    x = states(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda state: part(state, kind), (x,))
