"""The Jacobian norm, its schedule, the fixed-point correction, and pending penalties."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from equipoise.equilibrium import (
    Anderson,
    Equilibrium,
    FixedPointCorrection,
    JacobianFree,
    JacobianRegularizer,
    Phantom,
    Regularizer,
    Unrolled,
    attach_states,
    jacobian_norm,
)
from equipoise.equilibrium.state import parts
from tests.equilibrium.gradients.estimators import layers
from tests.equilibrium.systems import SYSTEMS, cosine, dense, fixed_point, loss


def dense_norm(system: str) -> tuple[Tensor, Tensor]:
    """|J|_F^2 / (B D) by the whole Jacobian, and its gradient towards the first parameter."""
    problem = SYSTEMS[system]()
    z = fixed_point(problem)
    size = sum(part.numel() for part in parts(z))

    def flat(*z: Tensor) -> tuple[Tensor, ...]:
        return parts(problem.f(z if len(z) > 1 else z[0], problem.x))

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        rows = torch.autograd.functional.jacobian(flat, parts(z), create_graph=True)
    value = torch.stack([block.square().sum() for row in rows for block in row]).sum() / size
    return value, torch.autograd.grad(value, problem.parameters[0])[0]


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_estimate_and_its_gradient_have_the_right_mean(system: str) -> None:
    problem = SYSTEMS[system]()
    z = fixed_point(problem)
    generator = torch.Generator().manual_seed(0)
    found = jacobian_norm(problem.f, z, 400, problem.x, generator=generator)
    expected, slope = dense_norm(system)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=0.05)
    measured = torch.autograd.grad(found, problem.parameters[0])[0]
    assert cosine((measured,), (slope,)) > 0.98
    assert float(measured.norm() / slope.norm()) == pytest.approx(1.0, abs=0.1)


def test_it_works_on_fused_attention_under_autocast() -> None:
    problem = SYSTEMS["attention"](torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = jacobian_norm(problem.f, fixed_point(problem), 2, problem.x)
    found.backward()
    assert all(torch.isfinite(part.grad).all() for part in problem.parameters)  # type: ignore[arg-type]


def test_no_probe_is_refused() -> None:
    problem = dense()
    with pytest.raises(ValueError, match="at least one probe"):
        jacobian_norm(problem.f, problem.z0, 0, problem.x)


def test_descent_on_the_regulariser_makes_the_solve_easier() -> None:
    problem = dense()
    (weight,) = problem.parameters
    regularizer = JacobianRegularizer(weight=1.0)
    solver = Anderson(tol=1e-8, max_steps=60)
    before = solver.solve(problem.f, problem.z0, problem.x.detach()).nfe
    for _ in range(60):
        found = regularizer.penalty(problem.f, fixed_point(problem), problem.x)
        assert found is not None
        weight.data.sub_(torch.autograd.grad(found, weight)[0], alpha=1.0)
    assert solver.solve(problem.f, problem.z0, problem.x.detach()).nfe < before


def test_the_schedule_of_the_weight() -> None:
    regularizer = JacobianRegularizer(weight=2.0, increment=0.1, increment_every=0.1, stop=0.5)
    weights = []
    for progress in (0.0, 0.09, 0.1, 0.3, 0.49, 0.5, 1.0):
        regularizer.progress = progress
        weights.append(regularizer.current_weight)
    assert weights == pytest.approx([2.0, 2.0, 2.1, 2.3, 2.4, 0.0, 0.0])


def test_the_share_of_regularised_steps() -> None:
    problem = dense()
    regularizer = JacobianRegularizer(probability=0.3)
    taken = [regularizer.penalty(problem.f, problem.z0, problem.x) is not None for _ in range(300)]
    assert 0.22 < sum(taken) / 300 < 0.38
    never = JacobianRegularizer(probability=0.0)
    assert all(never.penalty(problem.f, problem.z0, problem.x) is None for _ in range(20))


def test_a_restored_regulariser_goes_on_as_the_first_one_would() -> None:
    problem = dense()

    def values(regularizer: JacobianRegularizer) -> list[float | None]:
        found = [regularizer.penalty(problem.f, problem.z0, problem.x) for _ in range(6)]
        return [None if value is None else float(value.detach()) for value in found]

    first = JacobianRegularizer(probability=0.5)
    before = values(first)
    first.progress = 0.4
    second = JacobianRegularizer(probability=0.5)
    second.load_state_dict(first.state_dict())
    assert values(second) == values(first) != before


def test_the_global_random_state_is_left_alone() -> None:
    problem = dense()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    JacobianRegularizer().penalty(problem.f, problem.z0, problem.x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("exponential", [0.64, 0.8, 1.0]),
        ("linear", [1 - 1.6 / 3, 1 - 0.8 / 3, 1.0]),
        ("constant", [1, 1, 1]),
    ],
)
def test_the_weights_of_a_correction(weighting: str, expected: list[float]) -> None:
    correction = FixedPointCorrection(weighting=weighting, ratio=0.8)
    assert correction.weights(3) == pytest.approx(expected)
    losses = [torch.tensor(value) for value in (1.0, 10.0, 100.0)]
    total = sum(weight * float(loss) for weight, loss in zip(expected, losses, strict=True))
    assert float(correction.combine(losses)) == pytest.approx(total)


def test_which_states_a_correction_keeps() -> None:
    assert FixedPointCorrection(states=3).kept_evaluations(12) == (4, 8)
    assert FixedPointCorrection(states=1).kept_evaluations(12) == ()
    assert FixedPointCorrection(states=4).kept_evaluations(2) == (1, 2)


@pytest.mark.parametrize("estimator", [JacobianFree(), Phantom(2)])
def test_gradients_at_several_states(estimator: JacobianFree | Phantom) -> None:
    problem = dense()
    solver = Anderson(keep_states=(2, 4), tol=0, max_steps=6)
    with torch.no_grad():
        solution = solver.solve(problem.f, problem.z0, problem.x)
    states = attach_states(estimator, problem.f, solution, problem.z0, problem.x)
    assert len(states) == 2
    correction = FixedPointCorrection()
    total = correction.combine([loss(state) for state in states])
    found = torch.autograd.grad(total, problem.sources)
    singles = [
        torch.autograd.grad(weight * loss(state), problem.sources)
        for weight, state in zip(
            correction.weights(2),
            attach_states(estimator, problem.f, solution, problem.z0, problem.x),
            strict=True,
        )
    ]
    for whole, first, second in zip(found, *singles, strict=True):
        torch.testing.assert_close(whole, first + second)


def test_an_estimator_with_its_own_iteration_has_no_states() -> None:
    problem = dense()
    solution = Anderson().solve(problem.f, problem.z0, problem.x.detach())
    with pytest.raises(ValueError, match="use jfb or phantom"):
        attach_states(Unrolled(), problem.f, solution, problem.z0, problem.x)


@pytest.mark.parametrize(
    "wrong", [{"weight": -1.0}, {"probes": 0}, {"probability": 2.0}, {"stop": 1.5}]
)
def test_wrong_regularisers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        JacobianRegularizer(**wrong)


@pytest.mark.parametrize("wrong", [{"weighting": "square"}, {"ratio": 0.0}, {"states": 0}])
def test_wrong_corrections_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        FixedPointCorrection(**wrong)


REGULARIZERS: dict[str, Callable[[], Regularizer]] = {
    "jacobian": JacobianRegularizer,
    "correction": FixedPointCorrection,
}
regularizers = pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)


class Network(nn.Module):
    """A layer with a regulariser behind a linear map."""

    def __init__(self, layer: Equilibrium) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.ones(4, 4))
        self.layer = layer

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.weight + x)

    def forward(self, x: Tensor) -> Tensor:
        injection = x @ self.weight
        state: Tensor = self.layer(self.f, torch.zeros_like(x), injection)
        return state


def network(regularizer: Regularizer) -> Network:
    solver = Anderson(max_steps=6, tol=0)
    return Network(Equilibrium(solver, JacobianFree(), regularizer=regularizer))


def tensors_with_a_graph() -> int:
    gc.collect()
    found = (thing for thing in gc.get_objects() if issubclass(type(thing), Tensor))
    return sum(not tensor.is_leaf for tensor in found)


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "average": lambda module: AveragedModel(module).module,
}


@pytest.mark.parametrize("name", [None, "exact", "phantom", "shine", "unrolled", "auto"])
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@regularizers
def test_a_copy_at_any_time(
    regularizer: Callable[[], Regularizer],
    copied: Callable[[nn.Module], nn.Module],
    name: str | None,
) -> None:
    net = network(regularizer())
    if name is not None:
        if regularizer is FixedPointCorrection and name not in ("jfb", "phantom"):
            pytest.skip("a correction needs jfb or phantom")
        net.layer = layers()[name]
        net.layer.regularizer = regularizer()
    x = torch.ones(3, 4)
    for backward in (False, True):
        state = net(x)
        if backward:
            state.sum().backward()
        twin = copied(net)
        assert isinstance(twin, Network)
        assert (twin.layer.penalty, twin.layer.pop_states()) == (None, ())
        assert (net.layer.pop_penalty() is None) == (regularizer is FixedPointCorrection)
        torch.testing.assert_close(twin(x), net(x))


@pytest.mark.parametrize("mode", ["training", "evaluation", "no_grad"])
@regularizers
def test_nothing_of_a_graph_outlives_the_next_forward(
    regularizer: Callable[[], Regularizer], mode: str
) -> None:
    net, x = network(regularizer()), torch.ones(3, 4)
    before = tensors_with_a_graph()
    for _ in range(5):
        net(x).sum().backward()  # what was left is not taken
    leaves = weakref.ref(net.layer.pop_states()[0]) if net.layer._pending.states else None
    net.train(mode == "training")
    with torch.set_grad_enabled(mode != "no_grad"):
        net(x)
    if mode == "training":
        net.layer.pop_penalty(), net.layer.pop_states()
    assert tensors_with_a_graph() == before
    assert leaves is None or leaves() is None


def test_the_penalties_of_one_step_are_summed_up() -> None:
    net, x = network(JacobianRegularizer()), torch.ones(3, 4)
    first, second = net(x), net(2 * x)
    total = net.layer.pop_penalty()
    assert total is not None
    single = network(JacobianRegularizer())
    parts = []
    for value in (x, 2 * x):
        single(value)
        parts.append(single.layer.pop_penalty())
    torch.testing.assert_close(total, parts[0] + parts[1])  # type: ignore[operator]
    (first.sum() + second.sum() + total).backward()
    assert net.layer.pop_penalty() is None


def test_a_discarded_forward_no_longer_counts() -> None:
    net, x = network(JacobianRegularizer(probes=200)), torch.ones(3, 4)
    net(100 * x)
    net(x)
    found = net.layer.pop_penalty()
    net(x)
    expected = net.layer.pop_penalty()
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found, expected, rtol=0.5, atol=0)


def test_a_warm_up_has_a_weight_of_its_own() -> None:
    regularizer = JacobianRegularizer(weight=2.0, warmup=0.2, warmup_weight=0.5, increment=1.0)
    for progress, expected in ((0.0, 0.5), (0.19, 0.5), (0.2, 2.0), (1.0, 2.0)):
        regularizer.progress = progress
        assert regularizer.current_weight == expected


def test_a_regulariser_of_ones_own_need_say_nothing() -> None:
    plain = Regularizer()
    losses = [torch.tensor(value) for value in (1.0, 2.0)]
    assert plain.kept_evaluations(30) == ()
    assert plain.combine(losses) is losses[-1]


def test_a_penalty_is_counted_once_where_the_forward_pass_is_repeated() -> None:
    def found(checkpointed: bool) -> tuple[Tensor, Tensor]:
        system = dense()
        layer = Equilibrium(
            Anderson(tol=1e-9, max_steps=60), Phantom(), regularizer=JacobianRegularizer()
        )

        def forward(x: Tensor) -> Tensor:
            return loss(layer(system.f, system.z0, x))

        if checkpointed:
            value = checkpoint(forward, system.x, use_reentrant=False)
        else:
            value = forward(system.x)
        value.backward()
        penalty = layer.pop_penalty()
        assert penalty is not None
        assert layer.pop_penalty() is None
        return penalty.detach(), system.parameters[0].grad

    for repeated, plain in zip(found(True), found(False), strict=True):
        torch.testing.assert_close(repeated, plain)
