"""Kernel attention against its recorded cases, and any other against loops over the formulas."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray

from equipoise import interop
from equipoise.interop import DoesNotFit

Arrays = dict[str, ndarray]
Case = dict[str, Any]

with np.load(Path(__file__).parent / "K.npz") as file:
    RECORDED: Arrays = dict(file)
CASES: list[Case] = json.loads(RECORDED["cases_json"].tobytes())
TOLERANCE = 1e-10


def ours(case: Case, arrays: Arrays) -> Arrays:
    model = interop.from_reference("kernel_attention", case, arrays)
    given_arrays = {name: arrays[name] for name in ("f", "t") if name in arrays}
    return interop.reference_forward("kernel_attention", model, given_arrays)


def log_position(
    case: Case, arrays: Arrays, head: int, query: ndarray, places: tuple[int, int]
) -> float:
    """The logarithm of the positional factor for one pair of places."""
    q, k = places
    if case["pe"] == "lookup":
        radius = (len(arrays["lookup"]) - 1) // 2
        row = max(-radius, min(radius, q - k)) + radius
        return query @ arrays["lookup"][row, head]
    width = len(query)

    def projected(place: int) -> ndarray:
        return (arrays["t"][place] @ arrays["Wr"])[head * width : (head + 1) * width]

    if case["pe"] == "product-xl":
        return (query + arrays["r_r_bias"][head]) @ projected(q - k)
    if case["pe"] == "product-sym":
        return projected(q) @ projected(k)
    return 0.0


def value_of_kernel(case: Case, arrays: Arrays, head: int, query: ndarray, key: ndarray) -> float:
    if case["kernel"] == "rbf":
        return math.exp(-((query - key) @ (query - key)) / math.sqrt(len(query)))
    if case["pe"] == "product-xl":
        query = query + arrays["r_w_bias"][head]
    product = float(query @ key)
    if case["kernel"] == "exp":
        return math.exp(product / math.sqrt(len(query)))
    return product if case["kernel"] == "linear" else product**2


def seen(case: Case, query: int, positions: int) -> Iterator[int]:
    for key in range(positions):
        in_segment, earlier = key >= case.get("memory", 3), key <= query
        if {
            "full": in_segment,
            "causal": in_segment and earlier,
            "causal+mem": earlier,
            "window": earlier and query - key < case.get("window", 3),
        }[case["filt"]]:
            yield key


def looped(case: Case, arrays: Arrays) -> tuple[Arrays, float]:
    """out and weights by the formulas, pair by pair, and by how much rounding grows in them.

    That is one, but with a signed kernel the absolute kernel values over the absolute sum.
    """
    features, memory = arrays["f"], case.get("memory", 3)
    heads, width = arrays["r_w_bias"].shape
    batch, positions, _ = features.shape
    weights = np.zeros((batch, heads, positions - memory, positions))
    out = np.zeros((batch, positions - memory, heads * width))
    growth = 1.0
    for b, sample in enumerate(features):
        placed = sample + arrays["t"] if "t" in arrays else sample
        content = placed if case["pe"] == "direct-sum" else sample
        q = (content @ arrays["Wq"]).reshape(positions, heads, width)
        k = q if case["sym"] else (content @ arrays["Wk"]).reshape(positions, heads, width)
        v = ((placed if case["vpos"] else sample) @ arrays["Wv"]).reshape(positions, heads, width)
        for head in range(heads):
            for row, i in enumerate(range(memory, positions)):
                kernel = np.zeros(positions)
                for j in seen(case, i, positions):
                    log = log_position(case, arrays, head, q[i, head], (i, j)) / math.sqrt(width)
                    content_part = value_of_kernel(case, arrays, head, q[i, head], k[j, head])
                    kernel[j] = content_part * math.exp(log)
                growth = max(growth, np.abs(kernel).sum() ** 2 / kernel.sum() ** 2)
                weights[b, head, row] = kernel / kernel.sum()
                smoothed = weights[b, head, row] @ v[:, head]
                out[b, row, head * width : (head + 1) * width] = smoothed
    return {"out": out, "weights": weights}, growth


def drawn(shape: tuple[int, int, int, int], radius: int, seed: int) -> Arrays:
    batch, positions, heads, width = shape
    total = heads * width
    random = np.random.default_rng(seed)
    shapes = {
        "f": (batch, positions, total),
        "t": (positions, total),
        **dict.fromkeys(("r_w_bias", "r_r_bias"), (heads, width)),
        "lookup": (2 * radius + 1, heads, width),
    }
    arrays = {name: random.normal(size=shape) for name, shape in shapes.items()}
    spread = total**-0.5
    matrices = {n: spread * random.normal(size=(total, total)) for n in ("Wq", "Wk", "Wv", "Wr")}
    return arrays | matrices


@pytest.mark.parametrize("number", range(len(CASES)))
def test_it_is_what_was_recorded(number: int) -> None:
    found = ours(CASES[number], RECORDED)
    for name, array in found.items():
        assert array.dtype == np.float64
        recorded = RECORDED[f"case{number}/{name}"]
        np.testing.assert_allclose(array, recorded, rtol=0, atol=TOLERANCE)


def test_the_loops_are_what_was_recorded() -> None:
    for number, case in enumerate(CASES):
        for name, array in looped(case, RECORDED)[0].items():
            recorded = RECORDED[f"case{number}/{name}"]
            np.testing.assert_allclose(array, recorded, rtol=0, atol=TOLERANCE)


@settings(max_examples=150, deadline=None)
@given(
    case=st.fixed_dictionaries(
        {
            "kernel": st.sampled_from(["linear", "poly2", "exp", "rbf"]),
            "sym": st.booleans(),
            "pe": st.sampled_from(["none", "direct-sum", "lookup", "product-xl", "product-sym"]),
            "vpos": st.booleans(),
            "filt": st.sampled_from(["full", "causal", "causal+mem", "window"]),
        },
        optional={"memory": st.integers(0, 5), "window": st.integers(1, 9)},
    ),
    shape=st.tuples(
        st.integers(1, 2), st.integers(1, 6), st.integers(1, 3), st.sampled_from([1, 2, 3, 6])
    ),
    radius=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_any_case_is_the_formula(
    case: Case, shape: tuple[int, int, int, int], radius: int, seed: int
) -> None:
    batch, queries, heads, width = shape
    arrays = drawn((batch, queries + case.get("memory", 3), heads, width), radius, seed)
    expected, growth = looped(case, arrays)
    for name, array in ours(case, arrays).items():
        scale = max(1.0, np.abs(expected[name]).max())
        np.testing.assert_allclose(
            array, expected[name], rtol=0, atol=TOLERANCE * scale * growth, err_msg=name
        )


PLAIN: Case = {"kernel": "exp", "sym": True, "pe": "none", "vpos": False, "filt": "full"}


def without(*names: str) -> Arrays:
    return {name: array for name, array in RECORDED.items() if name not in names}


def test_arrays_without_a_part_in_the_case_may_be_missing() -> None:
    found = ours(PLAIN, without("Wk", "Wr", "r_r_bias", "lookup", "t"))
    np.testing.assert_array_equal(found["out"], ours(PLAIN, RECORDED)["out"])
    rbf = {**PLAIN, "kernel": "rbf", "pe": "product-xl"}
    assert ours(rbf, without("r_w_bias", "lookup"))["out"].shape == (2, 6, 8)
    lookup = {**PLAIN, "pe": "lookup"}
    assert ours(lookup, without("r_w_bias", "r_r_bias", "t"))["out"].shape == (2, 6, 8)


def test_the_arrays_give_the_dtype() -> None:
    narrow = {
        n: array.astype(np.float32) for n, array in RECORDED.items() if array.dtype == np.float64
    }
    found = ours(CASES[12], narrow)
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found["out"], RECORDED["case12/out"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "gauss"}, "kernel is gauss; choose linear, poly2, exp, rbf"),
        ({"sym": "yes"}, "sym is yes; choose False, True"),
        ({"pe": "sum"}, "pe is sum; choose none, direct-sum, lookup, product-xl, product-sym"),
        ({"filt": "local"}, r"filt is local; choose full, causal, causal\+mem, window"),
        ({"filt": None}, "needs filt"),
        ({"memory": -1}, "memory is -1; it must be a whole number, at least 0"),
        ({"window": 0}, "window is 0; it must be a whole number, at least 1"),
        ({"window": 2.5}, "window is 2.5; it must be a whole number"),
        ({"memroy": 2}, "a case has no word memroy; it has kernel, sym, pe, vpos, filt, memory"),
    ],
)
def test_words_that_do_not_fit_are_named_with_the_choices(change: Case, message: str) -> None:
    with pytest.raises(DoesNotFit, match=message):
        ours({**PLAIN, **change}, RECORDED)


@pytest.mark.parametrize(
    ("pe", "arrays", "message"),
    [
        ("none", without("Wq"), "need 'Wq'"),
        ("none", without("r_w_bias", "r_r_bias", "lookup"), "number of heads is that of r_w_bias"),
        ("none", RECORDED | {"Wq": np.zeros((8, 6))}, r"Wq must be square.* got \(8, 6\)"),
        ("none", RECORDED | {"Wq": np.zeros((6, 6))}, "2 heads of 4 .* got"),
        ("none", RECORDED | {"Wv": np.zeros((8, 6))}, r"Wv must be \(8, 8\), got \(8, 6\)"),
        ("product-sym", without("Wr"), "need 'Wr'"),
        ("product-xl", without("r_r_bias"), "need 'r_r_bias'"),
        ("product-xl", RECORDED | {"r_r_bias": np.zeros((4, 2))}, r"r_r_bias must be \(2, 4\)"),
        ("lookup", without("lookup"), "need 'lookup'"),
        ("lookup", RECORDED | {"lookup": np.zeros((6, 2, 4))}, "lookup has 6 rows; it must have 3"),
        ("product-xl", without("t"), "need 't'"),
        ("product-xl", RECORDED | {"t": np.zeros((8, 8))}, r"t must be \(9, 8\) .* got \(8, 8\)"),
        ("none", without("f"), "need 'f'"),
        (
            "none",
            RECORDED | {"f": np.zeros((2, 3, 8))},
            "more positions than the memory of 3",
        ),
        ("none", RECORDED | {"f": np.zeros((2, 9, 6))}, r"f must be \(batch, positions, 8\)"),
    ],
)
def test_arrays_that_do_not_fit_are_named(pe: str, arrays: Arrays, message: str) -> None:
    with pytest.raises(DoesNotFit, match=message):
        ours({**PLAIN, "pe": pe}, arrays)


def test_it_has_neither_a_solver_nor_an_estimator() -> None:
    from equipoise.equilibrium import Broyden, JacobianFree

    for given_part in ({"solver": Broyden()}, {"gradient": JacobianFree()}):
        with pytest.raises(DoesNotFit, match="neither a solver nor an estimator"):
            interop.from_reference("kernel_attention", PLAIN, RECORDED, **given_part)
