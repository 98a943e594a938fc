"""The generated streams: who sees what, how they are padded, and what can be known from them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equipoise.data import Trimodal
from equipoise.data.multimodal.module import MODALITIES
from equipoise.data.multimodal.trimodal import (
    RATES,
    SEGMENTS,
    best_guess,
    draw_paths,
    mean_level,
    observe,
    rotation,
)
from equipoise.errors import UserError


def rows_of(stream: torch.Tensor) -> torch.Tensor:
    """Which rows (N, T) of a stream are not zero."""
    return (stream != 0).any(dim=-1)


def test_a_batch_has_three_streams_of_their_own_rates() -> None:
    data = Trimodal(train_size=10, val_size=3, test_size=5, batch_size=4)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch["language"].shape == (4, 8, 12)
    assert batch["audio"].shape == (4, 32, 6)
    assert batch["vision"].shape == (4, 16, 8)
    assert {batch[name].dtype for name in (*MODALITIES, "label")} == {torch.float32}
    assert batch["label"].shape == batch["index"].shape == (4,)
    assert data.inspect() == {"features": [12, 6, 8], "lengths": [8, 32, 16]}


@pytest.mark.parametrize("seed", [0, 7])
def test_a_row_is_zero_or_has_no_zero_at_all(seed: int) -> None:
    data = Trimodal(seed=seed, train_size=300)
    for name, stream in data.read_split("train").streams.items():
        rows = rows_of(stream)
        assert (stream[rows] != 0).all()
        assert rows.any(dim=1).all(), f"a sample shows nothing to {name}"
        assert rows.float().mean() < 0.5


def test_the_start_of_every_sample_is_seen_and_nothing_before_it() -> None:
    paths = draw_paths(500, 0.15, 0.5, 3)
    assert set(paths.segments) == set(range(5, 9))
    begins = []
    for name in MODALITIES:
        rows = rows_of(torch.from_numpy(observe(paths, name, 0.5, 3).features))
        begins.append(rows.float().argmax(dim=1).numpy() / RATES[name].rows)
    assert np.array_equal(np.min(begins, axis=0), SEGMENTS - paths.segments)


@given(
    overlap=st.floats(0, 0.99), dropped=st.floats(0, 0.99), noise=st.floats(0, 10),
    count=st.integers(1, 20),
)  # fmt: skip
def test_every_modality_sees_something_of_every_sample(
    overlap: float, dropped: float, noise: float, count: int
) -> None:
    data = Trimodal(overlap=overlap, dropped=dropped, noise=noise, train_size=count)
    samples = data.read_split("train")
    assert all(rows_of(stream).any(dim=1).all() for stream in samples.streams.values())
    assert (samples.labels.abs() <= 3).all()


def test_without_noise_the_features_hold_the_levels_where_they_are_seen() -> None:
    paths = draw_paths(50, 0.0, 0.0, 1)
    for number, name in enumerate(MODALITIES):
        rate = RATES[name]
        content = observe(paths, name, 0.0, 1).features @ rotation(rate.width).T
        sample = int(np.argmax(paths.segments == SEGMENTS))  # one without padding
        for step in range(SEGMENTS * rate.rows):
            segment = math.floor(max((step + 0.5) / rate.rows - rate.lag, 0))
            level, one = content[sample, step, :2]
            seen = paths.seen[sample, segment, number]
            assert one == pytest.approx(float(seen), abs=1e-5)
            assert level == pytest.approx(paths.levels[sample, segment] * seen, abs=1e-5)


def test_what_all_three_show_without_noise_is_the_label() -> None:
    paths = draw_paths(200, 0.3, 0.0, 5)
    parts = [observe(paths, name, 0.0, 5) for name in MODALITIES]
    assert np.allclose(best_guess(paths, parts, 0.0), mean_level(paths.levels, paths), atol=1e-4)


def test_the_best_guess_has_an_error_that_is_uncorrelated_with_it() -> None:
    paths = draw_paths(20_000, 0.15, 0.05, 2)
    for parts in ([observe(paths, "audio", 0.5, 2)],
                  [observe(paths, name, 0.5, 2) for name in MODALITIES]):  # fmt: skip
        guess = best_guess(paths, parts, 0.5)
        error = mean_level(paths.levels, paths) - guess
        assert abs(np.corrcoef(guess, error)[0, 1]) < 0.02
        assert np.polyfit(guess, error, 1)[0] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("seed", [0, 1, 1111])
def test_no_single_modality_can_tell_what_all_three_can(seed: int) -> None:
    data = Trimodal(seed=seed)
    data.setup("test")
    ceilings = data.facts("test")["ceilings"]
    assert set(ceilings) == {*MODALITIES, "all"}
    assert all(0.55 < ceilings[name] < 0.7 for name in MODALITIES)
    assert 0.92 < ceilings["all"] < 0.97


def test_the_simulated_ceiling_is_the_one_in_closed_form() -> None:
    data = Trimodal(overlap=0.15, dropped=0.0, noise=0.0, train_size=20_000)
    ceilings = data.read_split("train").ceilings
    for name in MODALITIES:  # the share of the label's variance in the levels that it sees
        assert ceilings[name] == pytest.approx(math.sqrt((1 + 2 * 0.15) / 3), abs=0.015)
    assert ceilings["all"] == pytest.approx(1, abs=0.01)  # the labels are cut at 3


def test_splits_are_drawn_by_the_seed_and_a_smaller_one_begins_a_larger_one() -> None:
    whole = Trimodal(seed=4, train_size=50).read_split("train")
    part = Trimodal(seed=4, train_size=17, val_size=17)
    samples = part.read_split("train")
    assert torch.equal(samples.labels, whole.labels[:17])
    for name in MODALITIES:
        assert torch.equal(samples.streams[name], whole.streams[name][:17])
    others = [part.read_split("val"), Trimodal(seed=5, train_size=17).read_split("train")]
    for a, b in pairwise([samples, *others]):
        assert not torch.equal(a.labels, b.labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_size": 0}, "task.train_size is 0: set it to 1 or more"),
        ({"noise": -0.1}, "task.noise is -0.1: set it to 0 or more"),
        ({"overlap": 1.0}, r"task.overlap is 1.0: set it to a number in \[0, 1\)"),
        ({"dropped": -1}, r"task.dropped is -1: set it to a number in \[0, 1\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Trimodal(**settings)
