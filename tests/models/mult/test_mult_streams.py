"""How streams enter MulT: projections, padding, dropout, alignment."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.mult.streams import (
    MODALITIES,
    Alignment,
    Streams,
    aligned_length,
    alignment_loss,
    by_modality,
    in_order,
    projection,
)
from tests.models.mult.mult_models import FEATURES, LENGTHS, PADDING, streams


def entrance(**changes: Any) -> Streams:
    torch.manual_seed(0)
    settings_given: dict[str, Any] = {
        "modalities": MODALITIES,
        "features": by_modality(FEATURES, "features"),
        "widths": by_modality(5, "width"),
        "kernels": by_modality(1, "kernel"),
        "dropout": 0.0,
        "key_padding_mask": False,
        "aligned_length": None,
        **changes,
    }
    return Streams(settings_given.pop("modalities"), **settings_given).double()


def test_each_modality_has_a_width_and_a_kernel_of_its_own() -> None:
    widths = {"language": 5, "audio": 3, "vision": 6}
    part = entrance(widths=widths, kernels={"language": 3, "audio": 1, "vision": 2})
    found = part(streams()).features
    lengths = dict(zip(MODALITIES, LENGTHS, strict=True))
    assert {m: (t.shape[1], t.shape[2]) for m, t in found.items()} == {
        m: (lengths[m], widths[m]) for m in MODALITIES
    }
    shapes = {n: tuple(p.shape) for n, p in part.named_parameters()}
    assert shapes == {
        "projections.language.convolution.weight": (5, 6, 3),
        "projections.vision.convolution.weight": (6, 4, 2),
    }, "audio has the width already"
    torch.testing.assert_close(found["audio"], streams()["audio"])


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_a_projection_is_a_convolution_over_the_steps(kernel: int) -> None:
    part = projection(3, 4, kernel).double()
    weight = next(part.parameters())
    weight = weight[..., None] if weight.dim() == 2 else weight
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    left = (kernel - 1) // 2
    around = functional.pad(x, (0, 0, left, kernel - 1 - left))
    windows = around.unfold(1, kernel, 1)
    torch.testing.assert_close(part(x), torch.einsum("btfk,wfk->btw", windows, weight))


def test_padding_stays_zero_and_is_told_where_it_is_asked_for() -> None:
    batch = streams()
    plain, masked = entrance()(batch), entrance(key_padding_mask=True)(batch)
    assert plain.present == dict.fromkeys(MODALITIES)
    for modality, rows in zip(MODALITIES, PADDING, strict=True):
        present = masked.present[modality]
        assert present is not None
        assert (~present).sum(dim=1).tolist() == list(rows)
        torch.testing.assert_close(plain.features[modality], masked.features[modality])
        assert not plain.features[modality][~present].any()


def test_a_step_with_one_feature_that_is_not_zero_is_no_padding() -> None:
    batch = streams()
    batch["audio"][2, 0, 2] = 1e-30
    present = entrance(key_padding_mask=True)(batch).present["audio"]
    assert present is not None
    assert present[2].tolist() == [True] + [False] * 6


def test_language_alone_loses_features_and_only_in_training() -> None:
    widths = by_modality(FEATURES, "width")
    part, batch = entrance(dropout=0.5, widths=widths), streams()
    for modality, sequence in part.train()(batch).features.items():
        kept = sequence != 0
        if modality == "language":
            assert 0 < kept.sum() < (batch[modality] != 0).sum()
            torch.testing.assert_close(sequence[kept], 2 * batch[modality][kept])
        else:
            torch.testing.assert_close(sequence, batch[modality])
    for modality, sequence in part.eval()(batch).features.items():
        torch.testing.assert_close(sequence, batch[modality])


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("aligned_length", [None, 4])
def test_streams_enter_in_full_precision_under_autocast(
    kernel: int, aligned_length: int | None
) -> None:
    kernels = by_modality(kernel, "kernel")
    part = entrance(kernels=kernels, aligned_length=aligned_length).float()
    batch = {modality: stream.float() for modality, stream in streams().items()}
    expected = part(batch).features
    with torch.autocast("cpu", torch.bfloat16):
        found = part(batch).features
    for modality, sequence in found.items():
        torch.testing.assert_close(sequence, expected[modality], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"audio": None}, "this model reads language, audio, vision: give audio"),
        ({"audio": torch.zeros(3, 7, 4)}, r"audio must be \(batch, steps, 3\), got \(3, 7, 4\)"),
        ({"vision": torch.zeros(3, 4)}, r"vision must be \(batch, steps, 4\), got \(3, 4\)"),
    ],
)
def test_streams_that_do_not_fit_are_named(change: dict[str, Tensor], sentence: str) -> None:
    batch = {m: s for m, s in {**streams(), **change}.items() if s is not None}
    with pytest.raises(ValueError, match=sentence):
        entrance()(batch)


def test_a_step_of_the_language_is_a_mixture_of_the_steps_of_another() -> None:
    torch.manual_seed(0)
    alignment, stream = Alignment(3, 4).double(), streams()["audio"]
    aligned, scores = alignment(stream)
    assert aligned.shape == (3, 4, 3)
    assert scores.shape == (3, 7, 5)
    probabilities = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
    for step in range(4):
        mixture = (probabilities[:, :, step + 1, None] * stream).sum(dim=1)
        torch.testing.assert_close(aligned[:, step], mixture)


@settings(deadline=None)
@given(steps=st.integers(1, 5), length=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_the_loss_is_that_of_all_paths_to_the_steps_in_a_row(
    steps: int, length: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, steps, length + 1, generator=generator, dtype=torch.float64)
    logs = scores.log_softmax(dim=-1)
    expected = 0.0
    for sample in logs:
        total = 0.0
        for path in itertools.product(range(length + 1), repeat=steps):
            labels = [label for label, _ in itertools.groupby(path) if label]
            if labels == list(range(1, length + 1)):
                total += math.exp(sum(sample[t, label] for t, label in enumerate(path)))
        expected += -math.log(total) if total else math.inf
    assert float(alignment_loss(scores)) == pytest.approx(expected, abs=1e-10)


def test_the_gradient_of_the_loss_is_that_of_finite_differences() -> None:
    scores = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(alignment_loss, scores)


def test_half_precision_scores_have_a_loss_in_single_precision() -> None:
    scores = torch.randn(2, 4, 3)
    half = alignment_loss(scores.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, alignment_loss(scores), rtol=2e-2, atol=0)


def test_alignments_give_sequences_as_long_as_the_language_and_a_loss_in_training() -> None:
    part, batch = entrance(aligned_length=4, key_padding_mask=True), streams()
    assert isinstance(part.alignment, nn.ModuleDict)
    assert set(part.alignment) == {"audio", "vision"}
    sequences = part.train()(batch)
    assert {sequence.shape for sequence in sequences.features.values()} == {(3, 4, 5)}
    assert sequences.present["language"] is not None
    assert sequences.present["audio"] is sequences.present["vision"] is None
    losses = [alignment_loss(part.alignment[m](batch[m])[1]) for m in ("audio", "vision")]
    assert sequences.auxiliary is not None
    torch.testing.assert_close(sequences.auxiliary, losses[0] + losses[1])
    assert part.eval()(batch).auxiliary is None


def test_there_is_no_loss_without_an_alignment() -> None:
    assert entrance().train()(streams()).auxiliary is None


@pytest.mark.parametrize(
    ("modalities", "lengths", "sentence"),
    [
        (MODALITIES, None, "give lengths, and modalities with language and another"),
        (["audio", "vision"], LENGTHS, "give lengths, and modalities with language and another"),
        (["language"], LENGTHS, "give lengths, and modalities with language and another"),
        (MODALITIES, [9, 9, 5], "steps of vision as of language, and there are 5 for 9"),
        (MODALITIES, [9, 9], "lengths has 2 entries; give language, audio, vision"),
    ],
)
def test_what_cannot_be_aligned_is_refused(
    modalities: list[str], lengths: list[int] | None, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        aligned_length(modalities, lengths)


def test_a_stream_that_is_not_read_may_be_too_short() -> None:
    assert aligned_length(["language", "audio"], [9, 9, 5]) == 9


def test_one_entry_is_that_of_all_modalities() -> None:
    assert by_modality(3, "width") == dict.fromkeys(MODALITIES, 3)
    assert by_modality([1, 2, 3], "width") == {"language": 1, "audio": 2, "vision": 3}
    with pytest.raises(ValueError, match="width has 4 entries; give language, audio, vision"):
        by_modality([1, 2, 3, 4], "width")


def test_modalities_come_in_their_order() -> None:
    assert in_order(["vision", "language"], MODALITIES, "modalities") == ("language", "vision")


@pytest.mark.parametrize("chosen", [[], ["text"], ["audio", "audio"]])
def test_what_is_no_choice_of_modalities_is_refused(chosen: list[str]) -> None:
    with pytest.raises(ValueError, match="targets must be some of language, audio, vision, each"):
        in_order(chosen, MODALITIES, "targets")
