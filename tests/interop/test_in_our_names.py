"""Published weights by our names, without their configuration: family by family."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from equipoise import interop
from equipoise.interop import deq_trellisnet, mult, trellisnet
from equipoise.interop.coupling_transformer import model as graphs
from equipoise.models import (
    BarlowTwins,
    CouplingTransformer,
    DEQTransformer,
    DEQTrellisNet,
    MulT,
    ResNet,
    TrellisNet,
)
from equipoise.models.transfer import transfer
from tests.interop.deq_transformer import published_transformer
from tests.interop.published_mdeq import published, small_network
from tests.interop.test_barlow import whole
from tests.models.test_transfer import ATOMS, STREAMS, TRELLIS


def tensors(network: nn.Module) -> dict[str, Tensor]:
    state = network.state_dict()
    return {n: t.clone() for n, t in state.items() if isinstance(t, Tensor) and t.numel()}


def mdeq() -> tuple[nn.Module, Mapping[str, Any]]:
    network = small_network()
    return network, {f"module.{name}": tensor for name, tensor in published(network).items()}


def deq_transformer() -> tuple[nn.Module, Mapping[str, Any]]:
    weights = published_transformer.published()
    config = published_transformer.CONFIG
    return interop.from_reference("deq_transformer", config, weights), weights


def trellis(module: Any, network: nn.Module) -> tuple[nn.Module, Mapping[str, Any]]:
    """Kernels of two taps, as the published files have them."""
    weights = {}
    for name, tensor in tensors(network).items():
        matrix = name.endswith(".direction")
        kernel = tensor.unflatten(1, (2, -1)).transpose(1, 2) if matrix else tensor
        weights[module.published_name(name)] = kernel
    return network, weights


def streams() -> tuple[nn.Module, Mapping[str, Any]]:
    network = MulT(**STREAMS)
    packed: dict[str, list[Tensor]] = {}
    for name, tensor in tensors(network).items():
        packed.setdefault(mult.published_name(name).partition("[")[0], []).append(tensor)
    return network, {name: torch.cat(parts) for name, parts in packed.items()}


def molecules() -> tuple[nn.Module, Mapping[str, Any]]:
    network = CouplingTransformer(**ATOMS)
    weights = {}
    for name, tensor in tensors(network).items():
        joined = tensor.flatten(0, 1) if name.startswith("head.") else tensor
        weights[graphs.published_name(network, name)] = joined
    return network, weights


def encoder() -> tuple[nn.Module, Mapping[str, Any]]:
    weights = whole(resnet18, small=True, bias=False).float().state_dict()
    return interop.from_reference(
        "barlow", {"lambd": 0.005, "dataset": "cifar10"}, weights
    ), weights


FAMILIES = {
    "mdeq": mdeq,
    "deq_transformer": deq_transformer,
    "deq_trellisnet": lambda: trellis(deq_trellisnet, DEQTrellisNet(nn.Identity(), **TRELLIS)),
    "trellisnet": lambda: trellis(trellisnet, TrellisNet(levels=2, **TRELLIS)),
    "mult": streams,
    "coupling_transformer": molecules,
    "barlow": encoder,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_of_a_published_file_has_its_name_here(family: str) -> None:
    torch.manual_seed(0)
    network, weights = FAMILIES[family]()
    ours = tensors(network)
    forms = list(interop.in_our_names(weights, ours))
    best = max(forms, key=lambda form: len(form.keys() & ours.keys()))
    counted = {name for name in ours if name.endswith("num_batches_tracked")}
    assert ours.keys() - counted <= best.keys() <= ours.keys()
    assert all(torch.equal(best[name], ours[name]) for name in best)


def test_a_published_encoder_starts_a_classifier() -> None:
    torch.manual_seed(0)
    trained, weights = encoder()
    classifier = ResNet(classes=3, size="resnet18", image_size=32)
    forms = interop.in_our_names(weights, tensors(classifier))
    fitting = [transfer(classifier, form) for form in forms]
    done = max(fitting, key=lambda one: len(one.taken))
    assert done.unfit == []
    assert isinstance(trained, BarlowTwins)
    inner = trained.encoder.state_dict()
    assert all(torch.equal(weight.tensor, inner[weight.names[0]]) for weight in done.taken)


def test_what_is_no_state_dict_has_no_form() -> None:
    assert list(interop.in_our_names({"a": "b"}, {})) == []


def test_a_transformer_of_other_sizes_is_still_known_by_its_names() -> None:
    weights = published_transformer.published()
    layer = partial(DEQTransformer, nn.Identity(), vocabulary=40, heads=2, inner_width=20)
    ours = tensors(layer(width=16))
    forms = interop.in_our_names(weights, ours)
    assert max(len(form.keys() & ours.keys()) for form in forms) > len(ours) / 2
