"""The estimator that chooses among estimators."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from equipoise.equilibrium import Anderson, Auto, Equilibrium, Exact, JacobianFree, Neumann
from equipoise.equilibrium.gradients.auto import cheapest_first
from tests.equilibrium.systems import cosine, dense, dense_gradient, loss

TIGHT = Anderson(tol=1e-12, max_steps=80)


class Problem:
    """z = tanh(gain W z + x), whose gain decides how hard the gradient is."""

    def __init__(self) -> None:
        self.base = dense()
        self.gain = 1.0

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        (weight,) = self.base.parameters
        return torch.tanh(self.gain * z @ weight.T + x)

    def step(self, layer: Equilibrium) -> tuple[Tensor, ...]:
        state = layer(self.f, self.base.z0, self.base.x)
        return torch.autograd.grad(loss(state), self.base.sources)


def test_the_first_backward_already_meets_the_limit() -> None:
    problem = Problem()
    layer = Equilibrium(TIGHT, Auto(min_cosine=0.99))
    assert layer.gradient.name == "auto:jfb"
    assert cosine(problem.step(layer), dense_gradient(problem.base)) >= 0.99
    assert layer.gradient.name == "auto:neumann-3"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(-1.0, "jfb"), (0.99, "neumann-3"), (0.9999, "neumann-10"), (1.0, "exact")],
)
def test_the_cheapest_that_is_faithful_enough_is_chosen(limit: float, expected: str) -> None:
    auto = Auto(min_cosine=limit)
    problem = Problem()
    problem.step(Equilibrium(TIGHT, auto))
    (measured,) = auto.measurements
    assert measured.chosen == expected
    assert list(measured.cosines) == sorted(measured.cosines)
    assert measured.cosines[-1] == pytest.approx(1.0, abs=1e-12)
    assert measured.norm_ratios[-1] == pytest.approx(1.0, abs=1e-12)


def test_where_there_is_no_gradient_to_compare_it_answers_as_the_exact_one() -> None:
    """That of a loss of zero has no direction, so no cosine speaks for a cheaper candidate."""
    problem, auto = Problem(), Auto()
    state = Equilibrium(TIGHT, auto)(problem.f, problem.base.z0, problem.base.x)
    torch.autograd.grad(0.0 * loss(state), problem.base.sources)
    assert auto.name == "auto:exact"


@pytest.mark.parametrize("easy_probes_before", [0, 1])
def test_it_moves_up_at_once_and_back_when_it_has_been_good_enough_for_a_while(
    easy_probes_before: int,
) -> None:
    problem = Problem()
    auto = Auto(min_cosine=0.97, every=1, patience=3)
    layer = Equilibrium(TIGHT, auto)
    names = []
    for gain in (*[0.1] * easy_probes_before, 1.3, 0.1, 0.1, 0.1):
        problem.gain = gain
        problem.step(layer)
        names.append(auto.active.name)
    assert names == [*["jfb"] * easy_probes_before, "neumann", "neumann", "neumann", "jfb"]


def test_it_measures_every_so_many_passes_only() -> None:
    problem = Problem()
    auto = Auto(every=3)
    layer = Equilibrium(TIGHT, auto)
    for _ in range(7):
        problem.step(layer)
    assert [measured.call for measured in auto.measurements] == [1, 4, 7]


def test_between_measurements_it_is_the_chosen_estimator() -> None:
    problem = Problem()
    auto = Auto(min_cosine=0.99)
    layer = Equilibrium(TIGHT, auto)
    problem.step(layer)
    found = problem.step(layer)
    expected = problem.step(Equilibrium(TIGHT, Neumann(steps=3)))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    assert layer.report is not None
    assert layer.report.backward is not None
    assert layer.report.backward.nfe == 3


def test_inside_torch_func_the_candidate_in_force_answers_without_a_probe() -> None:
    problem = Problem()
    auto = Auto(every=1, candidates=(Exact(TIGHT), Exact(TIGHT)))
    layer = Equilibrium(TIGHT, auto)
    found = torch.func.grad(lambda x: loss(layer(problem.f, problem.base.z0, x)))(
        problem.base.x.detach()
    )
    *_, expected = dense_gradient(problem.base)
    torch.testing.assert_close(found.detach(), expected, rtol=1e-8, atol=1e-9)
    assert not auto.measurements


def test_it_takes_other_candidates() -> None:
    auto = Auto(min_cosine=1.0, candidates=[JacobianFree(), Exact(TIGHT)])
    problem = Problem()
    found = problem.step(Equilibrium(TIGHT, auto))
    assert cosine(found, dense_gradient(problem.base)) == pytest.approx(1.0)
    assert auto.name == "auto:exact"


def test_default_candidates_end_with_the_exact_one() -> None:
    assert [candidate.name for candidate in cheapest_first()] == [
        "jfb",
        "neumann",
        "neumann",
        "exact",
    ]


@pytest.mark.parametrize(
    "wrong", [{"min_cosine": 1.1}, {"every": 0}, {"patience": 0}, {"candidates": ()}]
)
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|needs"):
        Auto(**wrong)


def test_its_state_is_plain_and_brings_back_the_same_choices() -> None:
    gains = (0.1, 1.3, 0.1, 0.1, 0.1)
    problem = Problem()
    whole, first, second = (Auto(min_cosine=0.97, every=2, patience=3) for _ in range(3))
    names = []
    for auto, part in ((whole, gains), (first, gains[:3])):
        for gain in part:
            problem.gain = gain
            problem.step(Equilibrium(TIGHT, auto))
            names.append(auto.name)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.name == names[2]
    for gain, expected in zip(gains[3:], names[3:5], strict=True):
        problem.gain = gain
        problem.step(Equilibrium(TIGHT, second))
        assert second.name == expected
    assert second.measurements == whole.measurements
    assert len(whole.measurements) == 3


def test_a_long_training_keeps_its_latest_thousand_measurements() -> None:
    auto, problem = Auto(), Problem()
    problem.step(Equilibrium(TIGHT, auto))
    state = auto.state_dict()
    (probe,) = state["measurements"]
    auto.load_state_dict(state | {"measurements": [probe | {"call": i} for i in range(1500)]})
    assert [measured.call for measured in auto.measurements] == list(range(500, 1500))


def test_the_state_of_other_candidates_is_left() -> None:
    problem = Problem()
    auto = Auto(min_cosine=0.99)
    problem.step(Equilibrium(TIGHT, auto))
    other = Auto(candidates=[JacobianFree(), Neumann(steps=5), Exact(TIGHT)])
    other.load_state_dict(auto.state_dict())
    assert (other.chosen, other.calls, len(other.measurements)) == (0, 0, 0)


def choices(gain: float) -> list[tuple[str, tuple[float, ...]]]:
    """What three probes on a problem of that gain choose and measure."""
    problem, auto = Problem(), Auto(min_cosine=0.97, every=1)
    problem.gain = gain
    for _ in range(3):
        problem.step(Equilibrium(TIGHT, auto))
    return [(measured.chosen, measured.cosines) for measured in auto.measurements]


def choose_together(rank: int, folder: str) -> None:
    """One of two processes, whose problems differ in difficulty."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.save(choices((0.1, 2.0)[rank]), f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def test_two_processes_choose_alike_where_each_alone_would_not(tmp_path: Path) -> None:
    easy, hard = choices(0.1), choices(2.0)
    assert [chosen for chosen, _ in easy] != [chosen for chosen, _ in hard]
    multiprocessing.spawn(choose_together, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first == second
    mean = [(a + b) / 2 for a, b in zip(easy[0][1], hard[0][1], strict=True)]
    assert first[0][1] == pytest.approx(mean, abs=1e-12)


def test_a_probe_reports_what_the_chosen_candidate_costs() -> None:
    for limit, products in ((-1.0, 0), (0.99, 3), (0.9999, 10)):
        layer = Equilibrium(TIGHT, Auto(min_cosine=limit, every=1))
        Problem().step(layer)
        assert layer.report is not None
        assert layer.report.backward is not None
        assert layer.report.backward.nfe == products
