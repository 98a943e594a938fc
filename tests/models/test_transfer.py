"""Weights for another network: what is asked for and fits is copied, all else stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from equipoise.models import (
    MDEQ,
    BarlowTwins,
    CouplingTransformer,
    DEQTransformer,
    DEQTrellisNet,
    KernelTransformer,
    MulT,
    ResNet,
    Transformer,
    TrellisNet,
)
from equipoise.models.transfer import heads, submodules, transfer, vocabulary, weights_of, within

IMAGES: dict[str, Any] = {"image_size": 8, "image_channels": 1}
RESNET = partial(ResNet, size="tiny", **IMAGES)
MULTISCALE = partial(
    MDEQ, nn.Identity(), channels=(4, 8), head_channels=(2, 3), groups=4, final_channels=6, **IMAGES
)
TOKENS: dict[str, Any] = {"vocabulary": 12, "width": 8, "heads": 2, "inner_width": 8}
TRELLIS: dict[str, Any] = {"vocabulary": 12, "hidden_width": 6, "embedding_width": 4}
ATOMS: dict[str, Any] = {
    "atom_types": [3, 4, 5], "pair_types": [3, 4, 5], "triplet_types": [3, 4], "width": 8,
    "layers": 1, "heads": 2, "inner": 8, "head_width": 4,
}  # fmt: skip
STREAMS: dict[str, Any] = {"features": [4, 3, 2], "width": 8, "heads": 2, "layers": 1}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], set[str], set[str]]] = {
    "classes": (partial(MULTISCALE, classes=5), {"heads.logits"}, set()),
    "masks": (partial(MULTISCALE, mask_classes=3), {"heads.mask_logits"}, set()),
    "encoder": (partial(MULTISCALE, features=True), set(), set()),
    "resnet": (partial(RESNET, classes=5), {"classifier"}, set()),
    "barlow": (lambda: BarlowTwins(encoder=partial(RESNET, classes=None)), {"projector"}, set()),
    "deq": (partial(DEQTransformer, nn.Identity(), **TOKENS), {"softmax"}, {"embedding"}),
    "weight_tied": (partial(Transformer, layers=2, **TOKENS), {"network.softmax"},
                    {"network.embedding"}),
    "kernels": (partial(KernelTransformer, layers=1, **TOKENS), {"softmax"}, {"embedding"}),
    "trellis": (partial(TrellisNet, levels=2, **TRELLIS), {"ends.softmax"}, {"ends.embedding"}),
    "deq_trellis": (partial(DEQTrellisNet, nn.Identity(), **TRELLIS), {"ends.softmax"},
                    {"ends.embedding"}),
    "mult": (partial(MulT, **STREAMS), {"output"}, set()),
    "couplings": (partial(CouplingTransformer, **ATOMS), {"head"},
                  {f"embeddings.{kind}.levels" for kind in ("atom", "pair", "triplet")}),
}  # fmt: skip


def drawn(build: Callable[..., nn.Module], seed: int, **changes: Any) -> nn.Module:
    torch.manual_seed(seed)
    return build(**changes)


def copies(network: nn.Module) -> dict[str, Tensor]:
    state = network.state_dict()
    return {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_family_says_what_its_heads_and_its_symbols_are(kind: str) -> None:
    build, of_answers, of_symbols = NETWORKS[kind]
    network = build()
    with_weights = {part for part in heads(network) if part in submodules(network)}
    assert with_weights == of_answers
    assert set(vocabulary(network)) - set(heads(network)) == of_symbols


@pytest.mark.parametrize("kind", NETWORKS)
def test_all_but_the_heads_are_those_of_the_other_network(kind: str) -> None:
    build, of_answers, _ = NETWORKS[kind]
    source, network = drawn(build, 1), drawn(build, 2)
    before, theirs = copies(network), source.state_dict()
    done = transfer(network, theirs)
    assert done.unfit == [] == done.unused
    shared = {name for weight in done.taken for name in weight.names}
    for name, tensor in copies(network).items():
        if name.endswith("num_batches_tracked"):
            continue
        assert within(name, of_answers) or name in shared
        assert torch.equal(tensor, (theirs if name in shared else before)[name])
    if of_answers:
        assert any(not torch.equal(before[w.names[0]], theirs[w.names[0]]) for w in done.taken)
        assert done.left


@pytest.mark.parametrize("kind", [k for k, (_, _, symbols) in NETWORKS.items() if symbols])
def test_rows_of_another_vocabulary_stay_new(kind: str) -> None:
    build, _, of_symbols = NETWORKS[kind]
    source, network = drawn(build, 1), drawn(build, 2)
    before = copies(network)
    done = transfer(network, source.state_dict(), same_vocabulary=False)
    assert done.taken
    for name in of_symbols:
        kept = {n: t for n, t in copies(network).items() if within(n, [name])}
        assert kept
        assert all(torch.equal(tensor, before[n]) for n, tensor in kept.items())


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_each_weight_is_taken_left_or_named_as_unfit(data: st.DataObject) -> None:
    """Whatever is missing or of another shape, and whichever parts are asked for."""
    build = NETWORKS[data.draw(st.sampled_from(["classes", "resnet", "deq"]))][0]
    source, network = drawn(build, 1), drawn(build, 2)
    weights = {n: t for n, t in source.state_dict().items() if isinstance(t, Tensor)}
    names = sorted(n for n in weights if not n.endswith("num_batches_tracked"))
    gone = data.draw(st.sets(st.sampled_from(names), max_size=len(names) // 2))
    other = data.draw(st.sets(st.sampled_from(names), max_size=len(names) // 2)) - gone
    part = st.sampled_from(submodules(network))
    parts = data.draw(st.none() | st.lists(part, min_size=1, max_size=3))
    for name in gone:
        del weights[name]
    for name in other:
        weights[name] = torch.zeros(*weights[name].shape, 2)
    before = copies(network)
    done = transfer(network, weights, parts)
    told = [*done.taken, *done.left, *(misfit.weight for misfit in done.unfit)]
    assert sorted(w.names for w in told) == sorted(w.names for w in weights_of(network))
    taken = {name for weight in done.taken for name in weight.names}
    for name, tensor in copies(network).items():
        if name not in taken:
            assert torch.equal(tensor, before[name])
    for weight in done.taken:
        there = next(weights[name] for name in weight.names if name in weights)
        assert torch.equal(weight.tensor, there)
        assert parts is None or any(within(name, parts) for name in weight.names)


@pytest.mark.parametrize(
    "encoder", [partial(RESNET, classes=None), partial(MULTISCALE, features=True)]
)
def test_an_encoder_starts_a_classifier_and_a_classifier_an_encoder(encoder: Any) -> None:
    classifier = partial(encoder, classes=4) if encoder.func is ResNet else NETWORKS["classes"][0]
    barlow = partial(BarlowTwins, encoder=encoder)
    for source, target in ((barlow, classifier), (classifier, barlow)):
        trained, network = drawn(source, 1), drawn(target, 2)
        theirs = trained.state_dict()
        done = transfer(network, theirs)
        taken = [weight.names[0] for weight in done.taken]
        assert {"stem"} <= {name.removeprefix("encoder.").partition(".")[0] for name in taken}
        for weight in done.taken:
            name = weight.names[0]
            inner = name.removeprefix("encoder.")
            other = inner if name != inner else f"encoder.{inner}"
            assert torch.equal(weight.tensor, theirs[other])
        assert any("projector" in name for name in done.unused) == (source is barlow)


def test_an_equilibrium_starts_from_the_weight_tied_network() -> None:
    source = drawn(NETWORKS["weight_tied"][0], 1)
    network = drawn(NETWORKS["deq"][0], 2)
    done = transfer(network, source.state_dict())
    assert done.unfit == [] == done.unused
    assert torch.equal(network.state_dict()["cell.widen.bias"],
                       source.state_dict()["network.cell.widen.bias"])  # fmt: skip


def test_a_tied_weight_is_asked_for_by_each_of_its_names() -> None:
    source, network = (drawn(NETWORKS["deq"][0], seed) for seed in (1, 2))
    done = transfer(network, source.state_dict(), ["softmax"])
    assert {weight.names for weight in done.taken} == {
        ("embedding.tables.0", "softmax.tables.0"), ("softmax.biases.0",),
    }  # fmt: skip


def test_networks_with_nothing_in_common_share_nothing_by_chance() -> None:
    source, network = drawn(NETWORKS["mult"][0], 1), drawn(NETWORKS["classes"][0], 2)
    assert transfer(network, source.state_dict()).taken == []
