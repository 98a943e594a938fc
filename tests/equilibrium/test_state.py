"""States and their layout as matrices."""

from __future__ import annotations

import pytest
import torch

from equipoise.equilibrium.state import Layout, detached, parts


def test_a_tuple_survives_the_way_there_and_back() -> None:
    state = (torch.randn(3, 2, 4), torch.randn(3, 5))
    layout = Layout.of(state)
    flat = layout.flatten(state)
    assert flat.shape == (3, 13)
    assert layout.batch == 3
    for part, back in zip(state, parts(layout.restore(flat)), strict=True):
        assert torch.equal(part, back)


def test_one_contiguous_tensor_is_not_copied() -> None:
    state = torch.randn(3, 2, 4)
    layout = Layout.of(state)
    flat = layout.flatten(state)
    assert flat.data_ptr() == state.data_ptr()
    back = layout.restore(flat)
    assert isinstance(back, torch.Tensor)
    assert back.data_ptr() == state.data_ptr()


def test_rows_are_float32_at_least_and_parts_keep_their_precision() -> None:
    half = (torch.randn(2, 3).to(torch.bfloat16), torch.randn(2, 3, dtype=torch.float64))
    layout = Layout.of(half)
    assert layout.dtype == torch.float64
    assert Layout.of(half[0]).dtype == torch.float32
    restored = parts(layout.restore(layout.flatten(half)))
    assert [part.dtype for part in restored] == [torch.bfloat16, torch.float64]
    assert torch.equal(restored[0], half[0])


def test_parts_of_different_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="share the batch"):
        Layout.of((torch.zeros(2, 3), torch.zeros(3, 3)))


@pytest.mark.parametrize("state", [torch.zeros(()), ()])
def test_a_state_without_a_batch_is_refused(state: object) -> None:
    with pytest.raises(ValueError, match="batch dimension"):
        Layout.of(state)  # type: ignore[arg-type]


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shape that it takes"):
        Layout.of(torch.zeros(2, 3)).flatten(torch.zeros(2, 4))


def test_detached_states_are_new_leaves() -> None:
    source = torch.ones(2, 3, requires_grad=True) * 2
    leaves = parts(detached((source, source)))
    assert all(leaf.is_leaf and leaf.requires_grad for leaf in leaves)
    single = detached(source)
    assert isinstance(single, torch.Tensor)
    assert single.is_leaf


@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (3, 4, 2, 5, 2)])
@pytest.mark.parametrize("as_tuple", [False, True])
def test_a_state_with_channels_last_is_a_view_of_the_matrix(
    shape: tuple[int, ...], as_tuple: bool
) -> None:
    order = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    part = torch.randn(shape).contiguous(memory_format=order)
    state = (part, torch.randn(3, 6)) if as_tuple else part
    layout = Layout.of(state)
    flat = layout.flatten(state)
    back = parts(layout.restore(flat))
    assert back[0].data_ptr() == flat.data_ptr()
    assert torch.equal(back[0], part)
    assert back[0].stride()[1:] == part.stride()[1:]
    assert as_tuple or flat.data_ptr() == part.data_ptr()
    assert Layout.of(layout.restore(flat)) == layout  # a solution has the order of its solve
    usual = (part.contiguous(), state[1]) if as_tuple else part.contiguous()
    assert torch.equal(layout.flatten(usual), flat)


@pytest.mark.parametrize("shape", [(3, 1, 5, 2), (3, 4, 1, 1), (3, 4, 6)])
def test_where_both_orders_are_one_the_usual_one_is_taken(shape: tuple[int, ...]) -> None:
    assert Layout.of(torch.randn(shape)).channels_last == (False,)
