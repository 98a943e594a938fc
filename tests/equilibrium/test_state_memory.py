"""The memory of each sample's latest equilibrium."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equipoise.equilibrium.state import State, parts
from equipoise.equilibrium.state_memory import StateMemory

ALL = torch.tensor([True, True, True])


def state(*values: float) -> tuple[Tensor, Tensor]:
    """A state of two parts, each sample filled with its value."""
    rows = torch.tensor(values, dtype=torch.float32)
    return rows.view(-1, 1, 1).expand(-1, 2, 3).clone(), rows.view(-1, 1).expand(-1, 4).clone()


def kept(memory: StateMemory, z: State, index: Tensor, usable: Tensor | None = None) -> None:
    usable = torch.ones(len(index), dtype=torch.bool) if usable is None else usable
    memory.keep(z, index, usable, memory.start(z, index))


def test_a_sample_starts_where_it_ended_and_an_unknown_one_as_ever() -> None:
    memory = StateMemory(state(0, 0, 0), capacity=10)
    index = torch.tensor([7, 2, 5])
    assert not memory.start(state(0, 0, 0), index).known.any()
    kept(memory, state(1, 2, 3), index)
    start = memory.start(state(0, 0, 0), torch.tensor([5, 9, 7]))
    assert start.known.tolist() == [True, False, True]
    for part, expected in zip(parts(start.state), state(3, 0, 1), strict=True):
        torch.testing.assert_close(part, expected)


def test_samples_beyond_the_room_and_failed_ones_are_not_kept() -> None:
    memory = StateMemory(state(0, 0, 0), capacity=4)
    index = torch.tensor([3, 4, 1000])
    kept(memory, state(1, 2, 3), index)
    assert memory.start(state(0, 0, 0), index).known.tolist() == [True, False, False]
    kept(memory, state(4, 5, 6), index, usable=torch.tensor([False, True, True]))
    assert not memory.start(state(0, 0, 0), index).known.any()


@settings(max_examples=15, deadline=None)
@given(step=st.floats(-5, 5), epochs=st.integers(2, 5))
def test_a_way_that_all_states_move_alike_is_followed(step: float, epochs: int) -> None:
    """Each batch moves all equilibria by the same step: soon every start is one step behind."""
    memory, time = StateMemory(state(0, 0), capacity=4), 0.0
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs + 1):
        for index in torch.randperm(4, generator=generator).split(2):
            time += step
            z = state(*(10.0 * index + time))
            start = memory.start(state(0, 0), index)
            behind = (z[0] - start.state[0])[start.known]
            memory.keep(z, index, ALL[:2], start)
    # without the shift it would be two to four steps, by how long ago the sample's batch was
    assert behind.abs().max() <= 2.5 * abs(step) + 1e-4


@pytest.mark.parametrize(("storage", "accuracy"), [("float16", 1e-3), ("bfloat16", 1e-2)])
def test_half_precision_keeps_half_the_bytes(storage: str, accuracy: float) -> None:
    z = state(0.1, 1e30, -3.3)
    memory = StateMemory(z, 3, storage)  # type: ignore[arg-type]
    assert StateMemory.bytes_of_a_sample(z, storage) * 2 == StateMemory.bytes_of_a_sample(z)  # type: ignore[arg-type]
    kept(memory, z, torch.arange(3))
    start = memory.start(state(0, 0, 0), torch.arange(3))
    assert torch.isfinite(start.flat).all()
    torch.testing.assert_close(start.flat[::2, 0], torch.tensor([0.1, -3.3]), rtol=accuracy, atol=0)
    assert parts(start.state)[0].dtype == torch.float32


def test_a_state_dict_restores_the_starts_bit_for_bit() -> None:
    memory, again = (StateMemory(state(0, 0, 0), capacity=5) for _ in range(2))
    for number in range(3):
        kept(memory, state(1.1 * number, 2.2, 3.3), torch.tensor([0, 2, 4]))
        memory.keep(state(5, 6, 7), torch.tensor([4, 2, 1]), ALL,
                    memory.start(state(0, 0, 0), torch.tensor([4, 2, 1])))  # fmt: skip
    again.load_state_dict(memory.state_dict())
    index = torch.tensor([0, 1, 2])
    for one, other in zip(again.start(state(0, 0, 0), index), memory.start(state(0, 0, 0), index),
                          strict=True):  # fmt: skip
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    with pytest.raises(ValueError, match="numbers a sample"):
        StateMemory(torch.zeros(3, 7), 5).load_state_dict(memory.state_dict())


def test_a_state_of_another_shape_is_told() -> None:
    memory = StateMemory(torch.zeros(4, 3), capacity=5)
    assert memory.takes(torch.zeros(2, 3))
    assert not memory.takes(torch.zeros(4, 5))
    assert not memory.takes(torch.zeros(4, 3, dtype=torch.float64))
