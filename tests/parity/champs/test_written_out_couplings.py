"""Any graph transformer of the published kind against the network written out, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise import interop
from equipoise.interop.coupling_transformer.model import PublishedTransformer
from tests.interop import published_graph_transformer as published
from tests.interop.published_graph_transformer import EMBEDDINGS, WORDS

TOLERANCE = 1e-10
KINDS = ("atom", "bond", "triplet", "quad")
LETTERS = [f"models/model_{letter}" for letter in "ABCDEFGHIJKLM"]


def assert_written_out(
    words: dict[str, Any],
    counts: list[dict[str, int]],
    sizes: dict[str, int],
    seed: int,
    *,
    correct: bool = False,
) -> None:
    weights = published.drawn(words, seed)
    arrays = published.molecules(words, counts, sizes, seed)
    model = interop.from_reference("coupling_transformer", words, weights)
    assert isinstance(model, PublishedTransformer)
    model.legacy_indices = not correct
    found = interop.reference_forward("coupling_transformer", model, arrays)["y_pred"]
    expected = published.forward(words, weights, arrays, correct=correct)
    assert found.dtype == np.float64
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * scale)


# Labels of triplets, up to 8, are places of nodes by the published indices: there have to be such.
SIZES = st.fixed_dictionaries(
    {"atom": st.integers(2, 6), "bond": st.integers(8, 12), "triplet": st.integers(1, 6),
     "quad": st.integers(1, 5)}
)  # fmt: skip


def counts_within(sizes: dict[str, int]) -> st.SearchStrategy[list[dict[str, int]]]:
    """Of one to three molecules."""
    least = {"atom": 2, "bond": 1, "triplet": 1, "quad": 0}
    one = {kind: st.integers(least[kind], sizes[kind]) for kind in KINDS}
    return st.lists(st.fixed_dictionaries(one), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    source=st.sampled_from(["src", *LETTERS]),
    heads=st.integers(1, 3),
    of_head=st.integers(2, 5),
    layers=st.integers(1, 3),
    of_type=st.integers(1, 4),
    flags=st.tuples(*3 * [st.booleans()]),
    forms=st.tuples(*3 * [st.sampled_from(["sine", "learnable"])]),
    sizes_and_counts=SIZES.flatmap(lambda sizes: st.tuples(st.just(sizes), counts_within(sizes))),
    seed=st.integers(0, 2**32),
)
def test_any_published_network_is_the_written_out_one(
    source: str,
    heads: int,
    of_head: int,
    layers: int,
    of_type: int,
    flags: tuple[bool, bool, bool],
    forms: tuple[str, str, str],
    sizes_and_counts: tuple[dict[str, int], list[dict[str, int]]],
    seed: int,
) -> None:
    """With every option that its constructor has, and with the correct indices, too."""
    sizes, counts = sizes_and_counts
    quads, norm, correct = flags
    words = {
        **WORDS, "source_dir": source, "dim": heads * of_head, "n_head": heads, "n_layers": layers,
        "final_dim": of_type, "use_quad": quads, "wnorm": norm, "fdim": 1, "max_bond_count": 250,
        **dict(zip(list(EMBEDDINGS.values())[1:], forms, strict=True)),
    }  # fmt: skip
    assert_written_out(words, counts, sizes, seed, correct=correct)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("source", ["src", *LETTERS])
def test_every_published_folder_is_known(source: str, norm: bool) -> None:
    """Its residual blocks; in one of them torsions, and a parameter that nothing reads."""
    words = {**WORDS, "source_dir": source, "wnorm": norm, "max_bond_count": 9}
    counts = [{"atom": 5, "bond": 9, "triplet": 5, "quad": 3}, dict.fromkeys(KINDS, 2)]
    assert_written_out(words, counts, {"atom": 6, "bond": 9, "triplet": 7, "quad": 4}, seed=1)


@pytest.mark.parametrize("width", [7, 10])
def test_numbers_of_any_width_are_embedded_alike(width: int) -> None:
    counts = [{"atom": 3, "bond": 9, "triplet": 2, "quad": 1}]
    words = {**WORDS, "dim": width, "n_head": 1, "use_quad": True}
    assert_written_out(words, counts, {"atom": 4, "bond": 9, "triplet": 2, "quad": 1}, seed=2)
