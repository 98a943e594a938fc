"""What a run takes of other weights, what it tells of that, and what it refuses."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from equipoise.config.compose import compose, plain
from equipoise.errors import UserError
from equipoise.models import DEQTransformer, ResNet
from equipoise.report.page import page
from equipoise.running.build import build_model
from equipoise.running.initial_weights import lines, start_from
from tests.models.test_transfer import TOKENS
from tests.running.test_weight_files import CHOICES, checkpoint

NETWORK = partial(ResNet, size="tiny", image_size=8, image_channels=1)
WORDS = {"unit": "word", "symbols": ["a", "b"]}


class Text:
    """A data module with a vocabulary."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def vocabulary_state(self) -> dict[str, Any]:
        return self.state


def config(path: Path, parts: list[str] | None = None, **task: Any) -> dict[str, Any]:
    composed = plain(compose(CHOICES).config, resolve=True)
    task = {**composed["task"], **task}
    return {**composed, "task": task, "init_from": {"path": str(path), "parts": parts}}


def saved(path: Path, network: nn.Module, **state: Any) -> Path:
    weights = {n: t for n, t in network.state_dict().items() if isinstance(t, torch.Tensor)}
    torch.save(checkpoint(weights, **state), path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    return saved(tmp_path / "best.ckpt", NETWORK(classes=10))


def test_the_report_counts_what_was_taken_left_and_unfit(source: Path) -> None:
    torch.manual_seed(2)
    network = NETWORK(classes=5, image_channels=3)
    report = start_from(config(source), network, None)
    of_stem = sum(p.numel() for n, p in network.named_parameters() if n.startswith("stem."))
    of_stages = sum(p.numel() for n, p in network.named_parameters() if n.startswith("stages."))
    first = network.get_parameter("stem.0.weight").numel()
    assert report["parameters"] == of_stem + of_stages - first
    assert report["parameters_wanted"] == of_stem + of_stages
    assert [row["part"] for row in report["taken"]] == ["stem", "stages"]
    assert report["left"] == [{"part": "classifier", "tensors": 2, "parameters": 165}]
    assert report["unfit"] == [
        {"name": "stem.0.weight", "there": "[16, 1, 3, 3]", "here": "[16, 3, 3, 3]"}
    ]
    assert report["only_there"] == []


def test_what_is_printed_and_shown_names_all_of_it(source: Path, tmp_path: Path) -> None:
    network = NETWORK(classes=5, size="small")
    report = start_from(config(source), network, None)
    said = lines(report)
    assert said[0].startswith(f"starts from {source}: it gives ")
    assert sum("not fitting" in line for line in said) == 7  # six of them, and how many more
    assert any("left as new classifier" in line for line in said)
    shown = page({"details": {"init_from": report}}, [], tmp_path, "")
    for text in ("Init from: unfit", "Init from: left", report["unfit"][-1]["name"], str(source)):
        assert text in shown
    assert lines({}) == []


def test_parts_are_taken_alone_heads_among_them(source: Path) -> None:
    torch.manual_seed(2)
    network = NETWORK(classes=10)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = start_from(config(source, ["stages.1", "classifier"]), network, None)
    assert {row["part"] for row in report["taken"]} == {"stages.1", "classifier"}
    assert {row["part"] for row in report["left"]} == {"stem", "stages"}
    unchanged = [n for n, t in network.state_dict().items() if torch.equal(t, before[n])]
    assert "stem.0.weight" in unchanged
    assert "classifier.weight" not in unchanged


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (["stags"], r"the network has no stags; did you mean stages"),
        (["stages", "stages.1.conv1"], r"no stages\.1\.conv1; did you mean stages\.1\.\d\.conv1"),
        (["zzz"], r"no zzz; it has stem, stages, classifier"),
        ([], r"init_from\.parts=\[\] takes nothing"),
    ],
)
def test_a_part_that_is_none_is_refused(parts: list[str], said: str, source: Path) -> None:
    with pytest.raises(UserError, match=said):
        start_from(config(source, parts), NETWORK(classes=10), None)


def test_nothing_that_fits_is_refused_with_what_there_is(source: Path, tmp_path: Path) -> None:
    other = DEQTransformer(nn.Identity(), **TOKENS)
    with pytest.raises(UserError, match=r"nothing of it fits .* called stem\.0\.weight, "):
        start_from(config(source), other, None)
    with pytest.raises(UserError, match=r"stem\.0\.weight is \[16, 1, 3, 3\] there and \[16, 3"):
        start_from(config(source, ["stem.0"]), NETWORK(classes=5, image_channels=3), None)
    torch.save({"lr": 0.1}, tmp_path / "none.pt")
    with pytest.raises(UserError, match="holds no weights of a network"):
        start_from(config(tmp_path / "none.pt"), NETWORK(classes=10), None)


def test_another_size_of_the_model_is_named_where_little_or_nothing_fits(tmp_path: Path) -> None:
    resnet = ["model=resnet", "task=digits"]
    composed = plain(compose([*resnet, "model.size=large"]).config, resolve=True)
    larger = saved(tmp_path / "large.ckpt", build_model(composed))
    typed = compose([*resnet, f"init_from={larger}", "model.size=tiny"])
    tiny = plain(typed.config, resolve=True)
    with pytest.raises(UserError, match=r"set model\.size=large, to which the file fits"):
        start_from(tiny, build_model(tiny), None, build_model)
    fitting = plain(compose([*resnet, f"init_from={larger}", "model.size=large"]).config, True)
    assert start_from(fitting, build_model(fitting), None)["unfit"] == []


def test_nothing_is_asked_for_and_nothing_happens() -> None:
    network = NETWORK(classes=10)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert start_from({"init_from": {"path": None, "parts": None}}, network, None) == {}
    assert start_from({}, network, None) == {}
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


@pytest.mark.parametrize(
    ("here", "taken"),
    [
        (WORDS, True),
        ({**WORDS, "counts": {"a": [0.5]}}, True),  # numbers are no symbols
        ({**WORDS, "symbols": ["b", "a"]}, False),
    ],
)
def test_rows_of_symbols_are_taken_where_the_symbols_are_the_same(
    here: dict[str, Any], taken: bool, tmp_path: Path
) -> None:
    network = partial(DEQTransformer, nn.Identity(), **TOKENS)
    path = saved(tmp_path / "last.ckpt", network(), vocabulary=WORDS)
    report = start_from(config(path), network(), Text(here))
    places = {row["part"]: "taken" for row in report["taken"]}
    places |= {row["part"]: "left" for row in report["left"]}
    assert places["embedding"] == ("taken" if taken else "left")
    assert ("vocabulary" in report) == (not taken)
    asked = start_from(config(path, ["embedding"]), network(), Text(here))
    assert [row["part"] for row in asked["taken"]] == ["embedding"]


@pytest.mark.parametrize(("task", "warned"), [({}, False), ({"seed": 4}, True)])
def test_another_split_of_the_same_data_is_warned_of(
    task: dict[str, Any], warned: bool, source: Path, recwarn: pytest.WarningsRecorder
) -> None:
    start_from(config(source, **task), NETWORK(classes=10), None)
    said = [str(w.message) for w in recwarn if "another split of the same data" in str(w.message)]
    assert bool(said) == warned
