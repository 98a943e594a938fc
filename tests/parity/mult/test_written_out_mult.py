"""Any MulT of the published kind against the network written out query by query, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equipoise import interop
from tests.interop import published_mult
from tests.interop.published_mult import WORDS

TOLERANCE = 1e-10
HEADS_AND_WIDTHS = [(heads, heads * of_head) for heads in (1, 2, 3) for of_head in (4, 5, 7)]
COLUMNS = ("orig_d_l", "orig_d_a", "orig_d_v")
TARGETS = [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]


def assert_written_out(words: dict[str, Any], shape: Any, seed: int) -> None:
    lengths, padding = shape
    weights = published_mult.drawn(words, seed)
    arrays = published_mult.streams(words, lengths, padding, seed)
    expected = published_mult.forward(words, weights, arrays)
    found = interop.reference_forward(
        "mult", interop.from_reference("mult", words, weights), arrays
    )
    assert set(found) == {"out", "last_hs"}
    for name, array in found.items():
        assert array.dtype == np.float64
        scale = max(1.0, float(expected[name].abs().max()))
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=TOLERANCE * scale)


def lengths_and_padding(batch: int) -> st.SearchStrategy[Any]:
    rows = st.lists(st.integers(0, 4), min_size=batch, max_size=batch)
    return st.tuples(st.tuples(*3 * [st.integers(1, 6)]), st.tuples(*3 * [rows]))


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from(HEADS_AND_WIDTHS),
    layers=st.integers(1, 4),
    outputs=st.sampled_from([1, 8]),
    masked=st.booleans(),
    targets=st.sampled_from(TARGETS),
    columns=st.tuples(*3 * [st.none() | st.integers(1, 6)]),
    shape=st.integers(1, 3).flatmap(lengths_and_padding),
    seed=st.integers(0, 2**32),
)
def test_any_published_network_is_the_written_out_one(
    size: tuple[int, int],
    layers: int,
    outputs: int,
    masked: bool,
    targets: tuple[bool, bool, bool],
    columns: tuple[int | None, int | None, int | None],
    shape: Any,
    seed: int,
) -> None:
    """Columns that are not drawn are as many as the width: such a stream is not projected."""
    heads, width = size
    words = {
        **WORDS, "d_model": width, "num_heads": heads, "layers": layers, "output_dim": outputs,
        "attn_mask": masked, **dict(zip(("lonly", "aonly", "vonly"), targets, strict=True)),
        **{word: n or width for word, n in zip(COLUMNS, columns, strict=True)},
    }  # fmt: skip
    assert_written_out(words, shape, seed)


@pytest.mark.parametrize("words", [{}, {"num_heads": 6, "orig_d_v": 30}, {"attn_mask": False}])
def test_networks_of_the_published_width_are_the_written_out_one(words: dict[str, Any]) -> None:
    shape = ((5, 9, 7), ([0, 2], [4, 0], [1, 9]))
    assert_written_out({**WORDS, **words}, shape, seed=1)


def test_what_is_never_read_changes_nothing() -> None:
    words = {**WORDS, "lonly": False, "vonly": False, "d_model": 10, "orig_d_a": 10}
    weights = published_mult.drawn(words)
    unread = ("trans_l_mem.", "trans_v_mem.", "proj_a.")
    trimmed = {n: w for n, w in weights.items() if not n.startswith(unread)}
    arrays = published_mult.streams(words, (3, 4, 5), ([0], [0], [2]))

    def outputs(held: dict[str, Tensor]) -> np.ndarray:
        model = interop.from_reference("mult", words, held)
        assert sum(p.numel() for p in model.parameters()) == sum(
            w.numel() for n, w in trimmed.items() if not n.endswith((".version", "_float_tensor"))
        )
        return interop.reference_forward("mult", model, arrays)["out"]

    np.testing.assert_array_equal(outputs(weights), outputs(trimmed))
    garbage = {n: w + torch.nan if n.startswith(unread) else w for n, w in weights.items()}
    np.testing.assert_array_equal(outputs(weights), outputs(garbage))
