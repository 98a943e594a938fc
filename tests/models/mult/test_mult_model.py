"""MulT as a whole: what it has, what it reads, and what padding does to it."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.models import MulT
from equipoise.models.mult.streams import MODALITIES
from tests.models.mult.mult_models import FEATURES, LENGTHS, loss, mult, streams

SUBSETS = [list(s) for n in (1, 2, 3) for s in itertools.combinations(MODALITIES, n)]
CHOICES = [
    (read, targets, alignment)
    for read in SUBSETS
    for targets in SUBSETS
    for alignment in ("none", "ctc")
    if set(targets) <= set(read)
    if alignment == "none" or (len(read) > 1 and "language" in read)
]


@pytest.mark.parametrize(
    ("settings_given", "count"),
    [
        ({"features": [300, 74, 35]}, 1_073_731),
        ({"features": [300, 5, 20]}, 1_071_211),
        ({"features": [300, 74, 35], "width": 40, "layers": 4, "heads": 8}, 1_540_601),
    ],
)
def test_it_has_as_many_parameters_as_the_published_ones(
    settings_given: dict[str, Any], count: int
) -> None:
    assert sum(p.numel() for p in MulT(**settings_given).parameters()) == count


@pytest.mark.parametrize(("modalities", "targets", "alignment"), CHOICES)
def test_no_parameter_is_without_a_gradient(
    modalities: list[str], targets: list[str], alignment: str
) -> None:
    model = mult(modalities=modalities, targets=targets, alignment=alignment, lengths=LENGTHS)
    prediction = model.train()(streams())
    joined = max(len(modalities) - 1, 1) * 8
    assert prediction.outputs.shape == (3, 1)
    assert prediction.hidden.shape == (3, joined * len(targets))
    loss(prediction).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("target", MODALITIES)
def test_a_single_target_reads_the_other_modalities(target: Any) -> None:
    batch = {modality: stream.requires_grad_() for modality, stream in streams().items()}
    mult(targets=[target])(batch).outputs.sum().backward()
    for stream in batch.values():
        assert stream.grad is not None
        assert stream.grad.any()


@pytest.mark.parametrize("modality", MODALITIES)
def test_one_modality_alone_reads_no_other(modality: Any) -> None:
    model = mult(modalities=[modality]).eval()
    batch = streams()
    torch.testing.assert_close(
        model({modality: batch[modality]}).outputs, model(batch).outputs, rtol=0, atol=0
    )
    assert not list(model.crossmodal.parameters())


def test_the_order_of_the_words_is_no_matter() -> None:
    ordered, other = mult(), mult(modalities=["vision", "audio", "language"])
    assert other.modalities == MODALITIES
    torch.testing.assert_close(ordered(streams()).outputs, other(streams()).outputs)


@pytest.mark.parametrize("masked", [True, False])
def test_samples_do_not_see_each_other(masked: bool) -> None:
    model, batch = mult(key_padding_mask=masked).eval(), streams()
    together = model(batch)
    for sample in range(3):
        alone = model({modality: stream[sample : sample + 1] for modality, stream in batch.items()})
        torch.testing.assert_close(alone.outputs[0], together.outputs[sample])


@settings(deadline=None, max_examples=20)
@given(
    layers=st.integers(1, 3),
    causal=st.booleans(),
    masked=st.booleans(),
    kernels=st.tuples(*3 * [st.integers(1, 3)]),
    widths=st.tuples(*3 * [st.sampled_from([4, 6, 8])]),
)
def test_any_network_runs_and_shows_its_maps(
    layers: int,
    causal: bool,
    masked: bool,
    kernels: tuple[int, int, int],
    widths: tuple[int, int, int],
) -> None:
    model = mult(
        layers=layers, causal=causal, key_padding_mask=masked, kernel=kernels, width=widths
    ).train()
    maps = model.attention_maps(streams())
    lengths = dict(zip(MODALITIES, LENGTHS, strict=True))
    expected = {
        f"{target} from {source} {n}": (3, 2, lengths[target], lengths[source])
        for target, source in itertools.permutations(MODALITIES, 2)
        for n in range(1, layers + 1)
    } | {
        f"{target} memory {n}": (3, 2, lengths[target], lengths[target])
        for target in MODALITIES
        for n in range(1, max(layers, 3) + 1)
    }
    assert {name: tuple(weights.shape) for name, weights in maps.items()} == expected
    for name, weights in maps.items():
        sums = weights.sum(dim=-1)
        seen = sums != 0
        torch.testing.assert_close(sums[seen], torch.ones_like(sums[seen]))
        assert not weights.requires_grad
        assert masked or seen.all(), name
    assert model(streams()).hidden.shape == (3, 2 * sum(widths))


@pytest.mark.parametrize("alignment", ["none", "ctc"])
def test_weights_go_out_and_in_again(alignment: Any) -> None:
    settings_given = {"alignment": alignment, "lengths": LENGTHS, "kernel": 3, "width": [8, 4, 6]}
    model = mult(**settings_given).eval()
    torch.manual_seed(5)
    twin = MulT(features=FEATURES, heads=2, layers=2, **settings_given).double().eval()
    assert not torch.equal(twin(streams()).outputs, model(streams()).outputs)
    twin.load_state_dict(model.state_dict())
    for other in (twin, copy.deepcopy(model)):
        torch.testing.assert_close(other(streams()).outputs, model(streams()).outputs)


def test_evaluation_is_the_same_each_time_and_training_is_not() -> None:
    for rates in (
        {"attention_dropout": [0.5, 0.0, 0.0]},
        {"attention_dropout": [0.0, 0.5, 0.0]},
        {"attention_dropout": [0.0, 0.0, 0.5]},
        {"relu_dropout": 0.5}, {"residual_dropout": 0.5}, {"embedding_dropout": 0.5},
        {"output_dropout": 0.5},
    ):  # fmt: skip
        model = mult(**rates)
        first, second = (model.eval()(streams()).outputs for _ in range(2))
        assert torch.equal(first, second)
        assert not torch.equal(model.train()(streams()).outputs, model(streams()).outputs)


def test_alignments_are_parts_of_their_own() -> None:
    model = mult(alignment="ctc", lengths=LENGTHS)
    assert model.alignment is not None
    assert mult().alignment is None
    prediction = model.train()(streams())
    assert prediction.auxiliary is not None
    assert prediction.auxiliary.shape == ()
    assert model.eval()(streams()).auxiliary is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"heads": 3}, "3 heads do not divide a width of 8"),
        ({"width": [8, 7, 8]}, "2 heads do not divide a width of 7"),
        ({"features": [6, 3]}, "features has 2 entries; give language, audio, vision"),
        ({"kernel": [1, 3]}, "kernel has 2 entries; give language, audio, vision"),
        ({"attention_dropout": [0.1]}, "attention_dropout has 1 entries; give language"),
        ({"modalities": ["text"]}, "modalities must be some of language, audio, vision, each once"),
        ({"targets": []}, "targets must be some of language, audio, vision, each once, got"),
        ({"targets": ["audio", "audio"]}, "targets must be some of language, audio, vision, each"),
        (
            {"modalities": ["language", "audio"], "targets": ["vision"]},
            "targets must be some of language, audio, each once",
        ),
        (
            {"alignment": "ctc"},
            "alignment=ctc aligns audio and vision to the language: give length",
        ),
        ({"alignment": "ctc", "lengths": [9, 4, 5]}, "as many steps of audio as of language"),
        ({"residual_dropout": 1.5}, "dropout probability has to be between 0 and 1"),
    ],
)
def test_numbers_that_do_not_fit_are_named(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        mult(**changes)
