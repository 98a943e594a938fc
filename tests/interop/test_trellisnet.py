"""Published weights of both trellis networks, and what is said where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import Broyden
from equipoise.interop import deq_trellisnet, trellisnet
from equipoise.interop.published_configuration import DoesNotFit

RECORDED = Path(__file__).parents[1] / "parity" / "deq_lm"
CONFIGURATIONS: dict[str, dict[str, Any]] = json.loads(
    (RECORDED / "configurations.json").read_text()
)


def drawn(file: str) -> dict[str, Tensor]:
    """Random weights under all the names of a published file, equal where the shapes are."""
    shapes = json.loads((RECORDED / file).read_text())
    torch.manual_seed(0)
    values = {shape: torch.randn(shape) for shape in map(tuple, shapes.values())}
    return {name: values[tuple(shape)] for name, shape in shapes.items()}


def recorded(variant: str) -> tuple[dict[str, Tensor], np.lib.npyio.NpzFile]:
    file = np.load(RECORDED / f"{variant}.npz")
    return {n[3:]: torch.from_numpy(file[n]) for n in file if n.startswith("sd/")}, file


def test_the_recorded_names_are_all_understood() -> None:
    weights = drawn("keys_v1_deq_trellisnet.json")
    model = deq_trellisnet.from_reference(CONFIGURATIONS["C"], weights)
    assert model.ends.softmax.tables[0] is model.ends.embedding.tables[0]
    explicit = trellisnet.from_reference(CONFIGURATIONS["C2"], drawn("keys_trellisnet.json"))
    assert explicit.dilations == [1, 2, 4, 1, 2, 4]
    assert explicit.auxiliary_every == 3


def test_the_tap_of_the_step_before_comes_first() -> None:
    weights = drawn("keys_v1_deq_trellisnet.json")
    model = deq_trellisnet.from_reference(CONFIGURATIONS["C"], weights)
    kernel = weights["trellisnet.inject_conv.weight_v"]
    direction = model.cell.inward.weight.direction
    torch.testing.assert_close(direction[:, :12], kernel[:, :, 0])
    torch.testing.assert_close(direction[:, 12:], kernel[:, :, 1])


def test_a_split_softmax_that_is_not_in_the_file_starts_at_zero_or_is_given() -> None:
    weights, file = recorded("C")
    given = {n: file[f"seg1/{n}"] for n in ("data", "target", "z0")}
    model = deq_trellisnet.from_reference(CONFIGURATIONS["C"], weights)
    assert not model.ends.softmax.cluster_weight.any()
    without = deq_trellisnet.reference_forward(model, given)["loss_split"]
    tails = {name: file[name] for name in ("crit/tail_vectors", "crit/tail_bias")}
    with_tails = deq_trellisnet.reference_forward(model, {**given, **tails})["loss_split"]
    assert abs(with_tails - file["seg1/loss_split"]) < 1e-9
    assert abs(without - with_tails) > 1e-3


def test_weights_without_norm_load() -> None:
    weights = drawn("keys_trellisnet.json")
    plain = {n: t for n, t in weights.items() if not n.endswith("_g") and n.startswith("tnet")}
    plain = {n.replace("_v_raw", ""): t for n, t in plain.items()}
    ends = {n: t for n, t in weights.items() if n.startswith(("encoder", "decoder"))}
    model = trellisnet.from_reference(CONFIGURATIONS["C2"], plain | ends)
    assert model.cell.inward.weight.length is None


def test_solvers_have_one_threshold() -> None:
    weights = drawn("keys_v1_deq_trellisnet.json")
    model = deq_trellisnet.from_reference({**CONFIGURATIONS["C"], "f_thres": 9}, weights)
    assert model.equilibrium.solver == Broyden(max_steps=9, memory=9)
    assert model.equilibrium.gradient.solver == Broyden(max_steps=9, memory=9)


@pytest.mark.parametrize(
    ("family", "file", "variant"),
    [
        (deq_trellisnet, "keys_v1_deq_trellisnet.json", "C"),
        (trellisnet, "keys_trellisnet.json", "C2"),
    ],
)
def test_what_does_not_fit_is_named(family: Any, file: str, variant: str) -> None:
    weights = drawn(file)
    weights["decoder.extra"] = torch.zeros(2)
    weights["decoder.bias"] = torch.zeros(7)
    with pytest.raises(DoesNotFit, match=r"unknown: decoder.extra.*decoder.bias of shape \[7\]"):
        family.from_reference(CONFIGURATIONS[variant], weights)
    del weights["encoder.weight"]
    with pytest.raises(DoesNotFit, match=r"no 'encoder\.weight'"):
        family.from_reference(CONFIGURATIONS[variant], weights)


def test_what_a_family_does_not_have_is_refused() -> None:
    weights = drawn("keys_trellisnet.json")
    with pytest.raises(DoesNotFit, match="neither a solver nor an estimator"):
        trellisnet.from_reference(CONFIGURATIONS["C2"], weights, solver=Broyden())
    without = {k: v for k, v in CONFIGURATIONS["C2"].items() if k != "nlevels"}
    with pytest.raises(DoesNotFit, match="needs nlevels"):
        trellisnet.from_reference(without, weights)
    with pytest.raises(DoesNotFit, match="dilation is 2"):
        deq_trellisnet.from_reference(
            {**CONFIGURATIONS["C"], "dilation": 2}, drawn("keys_v1_deq_trellisnet.json")
        )
    model = trellisnet.from_reference(CONFIGURATIONS["C2"], weights)
    arrays = {"data": np.zeros((2, 3), dtype=np.int64), "h0": np.zeros((2, 32, 1))}
    with pytest.raises(DoesNotFit, match="'h0' alone is not a state"):
        trellisnet.reference_forward(model, arrays)


def test_the_overrides_are_what_one_would_type() -> None:
    typed = deq_trellisnet.overrides(CONFIGURATIONS["C"], drawn("keys_v1_deq_trellisnet.json"))
    assert typed[:3] == ["task=text_folder", "model=deq_trellisnet", "task.vocabulary=150"]
    assert "model.hidden_width=20" in typed
    typed = trellisnet.overrides(CONFIGURATIONS["C2"], drawn("keys_trellisnet.json"))
    assert "model.dilations=[1,2,4]" in typed
