"""Both trellis networks: fixed point, memory, auxiliary outputs, weight drop, published sizes."""

from __future__ import annotations

import pytest
import torch

from equipoise.equilibrium import Broyden, Equilibrium, Exact, Unrolled
from equipoise.models import DEQTrellisNet, TrellisNet

TIGHT = Broyden(max_steps=80, tol=1e-12, memory=60, patience=80)
WIDTHS = {"vocabulary": 30, "hidden_width": 10, "embedding_width": 6}


def implicit(**changes: object) -> DEQTrellisNet:
    torch.manual_seed(0)
    return DEQTrellisNet(Equilibrium(TIGHT, Exact(TIGHT)), **{**WIDTHS, **changes}).double()


def explicit(**changes: object) -> TrellisNet:
    torch.manual_seed(0)
    return TrellisNet(**{**WIDTHS, "levels": 4, **changes}).double()


def tokens(seed: int = 0, length: int = 6) -> torch.Tensor:
    return torch.randint(30, (2, length), generator=torch.Generator().manual_seed(seed))


def test_the_state_is_a_fixed_point_and_its_last_channels_are_read() -> None:
    network = implicit().eval()
    segment = network.segment(tokens())
    z = network.equilibrium(segment.f, segment.z0, *segment.inputs)
    torch.testing.assert_close(segment.f(z, *segment.inputs), z, rtol=0, atol=1e-10)
    torch.testing.assert_close(network(tokens()).hidden, z[..., 10:16])
    torch.testing.assert_close(network.readout(z), z[..., 10:16])


def test_equilibria_of_segments_in_turn_are_one_long_equilibrium() -> None:
    network = implicit().eval()
    long = tokens(length=9)
    first = network(long[:, :5])
    second = network(long[:, 5:], first.memory)
    # At the border the input before it is zero, so the injection there is another one.
    whole = network(long).hidden
    torch.testing.assert_close(first.hidden, whole[:, :5], rtol=0, atol=1e-9)
    assert second.hidden.shape == whole[:, 5:].shape


def test_the_explicit_network_is_the_equilibrium_unrolled() -> None:
    shallow, deep = implicit(), explicit()
    shallow.equilibrium.gradient = Unrolled(steps=4)
    shallow.load_state_dict(deep.state_dict(), strict=False)
    with torch.no_grad():
        shallow.cell.inward.bias.zero_()
    memory = deep(tokens(1)).memory
    ours, theirs = deep(tokens(), memory), shallow(tokens(), memory)
    torch.testing.assert_close(ours.hidden, theirs.hidden)
    torch.testing.assert_close(ours.memory, theirs.memory)


def test_auxiliary_outputs_come_from_every_so_many_levels() -> None:
    network = explicit(levels=7, auxiliary_every=3, auxiliary_weight=0.1).eval()
    auxiliary = network(tokens()).auxiliary
    shorter = explicit(levels=3).eval()
    assert len(auxiliary) == 2
    torch.testing.assert_close(auxiliary[0], shorter(tokens()).hidden)
    assert network.auxiliary_weight == 0.1
    assert explicit()(tokens()).auxiliary == ()


def test_dilations_follow_one_another() -> None:
    network = explicit(dilations=[1, 2, 4], levels=5)
    assert network.dilations == [1, 2, 4, 1, 2]
    assert (network(tokens()).hidden != explicit(levels=5)(tokens()).hidden).any()


def test_all_levels_share_one_mask_of_the_weights() -> None:
    network = explicit(weight_drop=0.5, dilations=[1, 2])
    drawn = []
    for weight in (network.cell.inward.weight, network.cell.recurrent.weight):
        compute = weight.compute
        weight.compute = lambda compute=compute: drawn.append(1) or compute()  # type: ignore[method-assign]
    network(tokens()).hidden.sum().backward()
    # Once for the injection's own map, once for both maps of the level.
    assert len(drawn) == 3
    assert (network(tokens()).hidden != network(tokens()).hidden).any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"levels": 0}, "at least one level"),
        ({"dilations": [0]}, "dilations of at least 1"),
        ({"auxiliary_every": 0}, "auxiliary_every must be"),
        ({"output_width": 5}, "cannot share the weights"),
        ({"initial_range": 0.0}, "initial_range must be above 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        explicit(**changes)


def test_an_output_of_another_width_needs_a_table_of_its_own() -> None:
    network = implicit(output_width=4, tie_weights=False)
    assert network(tokens()).hidden.shape == (2, 6, 4)


@pytest.mark.parametrize(
    ("settings", "largest"),
    [
        ({"size": "tiny"}, 1.0),
        ({"size": "ptb"}, 0.1),
        ({"size": "tiny", "initial_range": 0.3}, 0.3),
    ],
)
def test_first_embeddings_fill_the_range_of_the_size(settings: dict, largest: float) -> None:
    network = TrellisNet(vocabulary=300, **settings)
    for table in (network.ends.embedding.tables[0], network.ends.softmax.tables[0]):
        assert float(table.detach().abs().max()) == pytest.approx(largest, rel=0.01)


def test_the_published_size_has_the_published_parameters() -> None:
    with torch.device("meta"):
        layer = Equilibrium(TIGHT, Exact(TIGHT))
        network = DEQTrellisNet(layer, vocabulary=267735, size="wikitext103", cutoffs=[])
    words = 267735 * 500
    total = sum(p.numel() for p in network.parameters()) - 267735  # the published count has no bias
    assert round(total / 1e6, 1) == pytest.approx(174.2, abs=0.4)
    assert round((total - words) / 1e6, 1) == pytest.approx(40.0, abs=0.4)
