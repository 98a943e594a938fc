"""What a sweep lists for one node: each job once, and what is typed in place of what is listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from equipoise.config.compose import compose, with_grid
from equipoise.config.hydra import parse
from equipoise.config.sweeps import as_override, jobs_of_node
from equipoise.errors import UserError

ENTRIES = [
    {"kernel": ["linear", "exponential"], "symmetric": [False, True]},
    {"kernel": "exponential", "symmetric": False, "positions": ["none", "product"]},
]
IN_FORCE = {"kernel": "exponential", "symmetric": False, "positions": "product", "radius": 16}
NAMES = st.from_regex(r"[a-z]+", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" ")),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
)  # fmt: skip


def jobs(*typed: str) -> list[tuple[Any, ...]]:
    found = jobs_of_node("model.attention", ENTRIES, parse(typed), IN_FORCE)
    assert all(list(job) == ["kernel", "symmetric", "positions"] for job in found)
    return [tuple(job.values()) for job in found]


def test_a_job_of_two_entries_is_there_once() -> None:
    assert jobs() == [
        ("linear", False, "product"), ("linear", True, "product"),
        ("exponential", True, "product"),
        ("exponential", False, "none"), ("exponential", False, "product"),
    ]  # fmt: skip


def test_typed_values_replace_a_list_and_leave_out_what_is_fixed_to_another() -> None:
    assert jobs("model.attention.kernel=rbf") == [
        ("rbf", False, "product"), ("rbf", True, "product"),
    ]  # fmt: skip
    assert jobs("model.attention.symmetric=true") == [
        ("linear", True, "product"), ("exponential", True, "product"),
    ]  # fmt: skip
    assert jobs("model.attention.kernel=exponential,rbf", "model.attention.symmetric=false") == [
        ("rbf", False, "product"),
        ("exponential", False, "none"), ("exponential", False, "product"),
    ]  # fmt: skip


def test_typed_values_hold_for_entries_that_do_not_list_them() -> None:
    assert jobs("model.attention.positions=none", "model.attention.kernel=linear") == [
        ("linear", False, "none"), ("linear", True, "none"),
    ]  # fmt: skip
    assert len(jobs("model.attention.positions=none,lookup")) == 8


def test_typed_values_that_leave_no_job_are_refused() -> None:
    typed = parse(["model.attention.kernel=rbf"])
    with pytest.raises(UserError, match=r"^model.attention.kernel=rbf leaves none of the jobs"):
        jobs_of_node("model.attention", ENTRIES[1:], typed, IN_FORCE)
    interval = parse(["model.attention.kernel=interval(0,1)"])
    with pytest.raises(UserError, match="needs values"):
        jobs_of_node("model.attention", ENTRIES, interval, IN_FORCE)


@settings(deadline=None, max_examples=60)
@given(VALUES)
@example(
    [
        "2",
        "True",
        "nan",
        "null",
        "1e3",
        "a b",
        "",
        "it's",
        "_",
        "${",
        "a${ b",
        "\\\n",
        True,
        None,
        2,
        1e16,
    ]
)
def test_what_is_written_is_read_back(value: Any) -> None:
    (override,) = parse([f"key={as_override(value)}"])
    assert unquoted(override.value()) == value


def test_an_interpolation_stays_one() -> None:
    for text in ("${seed}", "runs/${task.data}_x"):
        assert as_override({"key": [text]}) == f"{{key:[{text}]}}"


@pytest.mark.parametrize(
    "text",
    ["a, ${seed}", "at (${seed})", " ${seed} ", "it's ${seed}", "lr=${seed}", "[${seed}]",
     "é${seed}", r"\\${seed}", r"\${seed} ${seed}", "${seed}\\"],
)  # fmt: skip
def test_an_interpolation_in_a_text_is_one_value(text: str) -> None:
    (override,) = parse([f"key={as_override(text)}"])
    assert not override.is_sweep_override()
    read = OmegaConf.create({"key": override.value(), "seed": 7}).key
    assert read == OmegaConf.create({"key": text, "seed": 7}).key


def unquoted(value: Any) -> Any:
    if isinstance(value, list):
        return [unquoted(entry) for entry in value]
    if isinstance(value, dict):
        return {key: unquoted(entry) for key, entry in value.items()}
    text = getattr(value, "text", value)
    return OmegaConf.create({"key": text}).key if isinstance(text, str) else value


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A search path with a sweep over the equilibrium layer's settings."""
    grid = {"equilibrium": [{"jitter": [0, 2]}, {"random_start": [0.0, 0.5]}], "seed": [1, 2]}
    (tmp_path / "sweep").mkdir()
    content = "# @package _global_\n" + yaml.safe_dump({"sweep": {"grid": grid}})
    (tmp_path / "sweep" / "starts.yaml").write_text(content)
    return f"hydra.searchpath=[file://{tmp_path}]"


def test_a_node_is_swept_as_one_override_that_composes(own: str) -> None:
    first, second, *rest = with_grid([own, "sweep=starts", "equilibrium.jitter=1"])
    assert first == ("equilibrium={jitter:1,random_start:0.0},{jitter:1,random_start:0.5}")
    assert (second, rest) == ("seed=1,2", [own, "sweep=starts"])
    layer = compose([own, "sweep=starts", first.split(",{")[0]]).config.equilibrium
    assert (layer.jitter, layer.random_start, layer.on_failure) == (1, 0.0, "warn")
    typed = with_grid([own, "sweep=starts", "equilibrium={jitter:1}"])
    assert typed == ["seed=1,2", own, "sweep=starts", "equilibrium={jitter:1}"]


def test_a_sweep_may_list_nothing(own: str, tmp_path: Path) -> None:
    for content in ("sweep: null", "sweep: {table: {metric: loss}}"):
        (tmp_path / "sweep" / "starts.yaml").write_text(f"# @package _global_\n{content}\n")
        assert with_grid([own, "sweep=starts", "seed=1,2"]) == [own, "sweep=starts", "seed=1,2"]


def test_a_node_that_the_model_does_not_have_is_refused(own: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep" / "starts.yaml"
    file.write_text(file.read_text().replace("equilibrium:", "model.attention:"))
    with pytest.raises(UserError, match=r"model.attention, which model=mdeq on task=digits does"):
        with_grid([own, "sweep=starts"])
