"""What holds for every model of token sequences."""

from __future__ import annotations

import copy

import pytest
import torch
from token_models import BUILDERS, Build, seeded, tokens

WRONG = [torch.zeros(2, 3), torch.zeros(3).long(), torch.zeros(2, 0).long()]
EVERY = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


@EVERY
def test_shapes_and_a_gradient_for_every_parameter(build: Build) -> None:
    model = seeded(build)
    given = tokens()
    first = model(given)
    second = model(given, first.memory)
    losses = model.token_losses(second.hidden, given)
    assert losses.shape == given.shape
    losses.mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(not part.requires_grad for part in second.memory)


@EVERY
def test_losses_are_those_of_the_distribution(build: Build) -> None:
    model = seeded(build).eval()
    given = tokens()
    hidden = model(given).hidden
    distribution = model.log_probabilities(hidden)
    torch.testing.assert_close(distribution.exp().sum(-1), torch.ones(2, 6, dtype=torch.float64))
    expected = -distribution.gather(-1, given.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(model.token_losses(hidden, given), expected)


@EVERY
def test_the_future_is_not_seen(build: Build) -> None:
    model = seeded(build).eval()
    given = tokens()
    changed = given.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 30
    before, after = model(given).hidden, model(changed).hidden
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=1e-9)
    assert (after[:, 4:] != before[:, 4:]).any()


@EVERY
def test_the_memory_is_used_and_samples_are_apart(build: Build) -> None:
    model = seeded(build).eval()
    earlier, given = tokens(seed=1), tokens(seed=2)
    memory = model(earlier).memory
    with_memory, without = model(given, memory).hidden, model(given).hidden
    assert (with_memory != without).any()
    alone = model(given[:1], tuple(part[:1] for part in memory)).hidden
    torch.testing.assert_close(alone, with_memory[:1], rtol=0, atol=1e-9)


@EVERY
def test_dropout_draws_anew_in_training_and_never_in_evaluation(build: Build) -> None:
    settings = {"dropout": 0.3} if "transformer" in build.__name__ else {
        "input_dropout": 0.3, "hidden_dropout": 0.3, "output_dropout": 0.3
    }  # fmt: skip
    model = seeded(build, **settings)
    given = tokens()
    assert (model(given).hidden != model(given).hidden).any()
    model.eval()
    torch.testing.assert_close(model(given).hidden, model(given).hidden, rtol=0, atol=0)


@EVERY
def test_ties_survive_copies_and_checkpoints(build: Build) -> None:
    model = seeded(build)
    twin = copy.deepcopy(model)
    names = [name for name, _ in model.named_parameters()]
    assert [name for name, _ in twin.named_parameters()] == names
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin.eval()(tokens()).hidden, model.eval()(tokens()).hidden)


@pytest.mark.parametrize("build", [b for n, b in BUILDERS.items() if n != "kernel_transformer"])
def test_untied_ends_have_parameters_of_their_own(build: Build) -> None:
    tied = sum(p.numel() for p in seeded(build).parameters())
    free = sum(p.numel() for p in seeded(build, tie_weights=False).parameters())
    assert free - tied == 30 * (16 if "transformer" in build.__name__ else 6)


@EVERY
def test_adaptive_ends_give_a_distribution(build: Build) -> None:
    divisor = {} if build.__name__ == "kernel_transformer" else {"divisor": 2}
    model = seeded(build, cutoffs=[5, 12, 500], **divisor).eval()
    distribution = model.log_probabilities(model(tokens()).hidden)
    torch.testing.assert_close(distribution.exp().sum(-1), torch.ones(2, 6, dtype=torch.float64))


@EVERY
def test_it_runs_under_autocast(build: Build) -> None:
    model = seeded(build).float()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(tokens())
        loss = model.token_losses(output.hidden, tokens()).mean()
        model(tokens(), output.memory)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


@EVERY
@pytest.mark.parametrize(
    "wrong", [torch.zeros(2, 3), torch.zeros(3).long(), torch.zeros(2, 0).long()]
)
def test_what_is_no_matrix_of_tokens_is_refused(build: Build, wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="tokens must be whole numbers"):
        seeded(build)(wrong)


@pytest.mark.parametrize(
    ("build", "size"),
    [
        (build, size)
        for name, build in BUILDERS.items()
        for size in ("tiny", "small", "iwslt14" if name == "kernel_transformer" else "medium")
    ],
)
def test_named_sizes_exist_for_all(build: Build, size: str) -> None:
    fields = ("width", "heads", "inner_width")
    if "transformer" not in build.__name__:
        fields = ("hidden_width", "embedding_width")
    empty = dict.fromkeys(fields)
    with torch.device("meta"):
        model = build(size=size, **empty)
    assert sum(p.numel() for p in model.parameters()) > 10_000
    with pytest.raises(ValueError, match="there is no size 'huge'; choose auto, tiny"):
        build(size="huge")
