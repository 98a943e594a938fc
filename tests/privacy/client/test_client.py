"""The client: what it refuses, what it sends, and that its bytes keep the promise."""

from __future__ import annotations

import ast
import gc
import inspect
import itertools
import json
import math
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from equipoise.privacy import (
    AlreadySpent,
    Client,
    Ledger,
    PrivacyError,
    RoundDescription,
    RoundError,
)
from equipoise.privacy.client.randomizers import probability_threshold, randomize, unary_encoding
from equipoise.privacy.client.round import Box, is_partition
from equipoise.privacy.client.wire import HEADER, VERSION, round_prefix, task_key

CLIENT = Path(inspect.getfile(Client)).parent
CELLS = tuple(((low, low + 4),) for low in range(0, 16, 4))
ROUND = RoundDescription("ages", 1, 3, 1.0, "oue", 4, (16,), (0,), CELLS)
WIDTHS = {"oue": 4, "grr": 4, "square_wave": 8, "haar_hadamard": 4}


def joined(folder: Path, description: RoundDescription = ROUND, **settings: float) -> Client:
    """A client that the shares put into the description's round."""
    client = Client(Ledger(folder), **{"epsilon_limit": 4.0, **settings})
    shares = [0.0] * description.rounds
    shares[description.round] = 1.0
    assert client.join(description.task, shares) == description.round
    return client


def test_the_client_imports_nothing_but_the_standard_library_and_itself() -> None:
    outside = set()
    for file in CLIENT.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                outside |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                module = str(node.module)
                if not module.startswith("equipoise.privacy.client."):
                    outside.add(module.split(".")[0])
    assert outside <= sys.stdlib_module_names


def test_the_clients_folder_works_by_itself(tmp_path: Path) -> None:
    shutil.copytree(CLIENT, tmp_path / "equipoise" / "privacy" / "client")
    script = (
        "import sys; from equipoise.privacy.client import Client, Ledger, RoundDescription;"
        f"description = RoundDescription.from_json({ROUND.to_json()!r});"
        "device = Client(Ledger('ledger'), epsilon_limit=4.0);"
        "device.join(description.task, [0.0] * description.round + [1.0]);"
        "sys.stdout.write(device.report(description, 5).hex())"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert bytes.fromhex(done.stdout).startswith(round_prefix(ROUND))


def test_a_report_has_the_wire_format(tmp_path: Path) -> None:
    report = joined(tmp_path).report(ROUND, 5)
    assert len(report) == HEADER.size + 1 == 38
    version, key, index, partition, identifier, width = HEADER.unpack(report[: HEADER.size])
    assert (version, key, index, width) == (VERSION, task_key("ages"), 1, 4)
    assert partition == ROUND.partition_hash()
    assert len(identifier) == 16
    assert report[-1] >> 4 == 0


def test_a_retry_sends_the_same_bytes_whatever_the_value(tmp_path: Path) -> None:
    client = joined(tmp_path)
    report = client.report(ROUND, 5)
    assert client.report(ROUND, 12) == report
    assert Client(Ledger(tmp_path), 4.0).report(ROUND, 5) == report


def test_the_ledger_is_written_before_the_report_is_returned(tmp_path: Path) -> None:
    client = joined(tmp_path)
    report = client.report(ROUND, 5)
    spent = Ledger(tmp_path).spent("ages")
    assert spent is not None
    assert spent.report == report.hex()


def test_a_ledger_that_cannot_be_written_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = joined(tmp_path)

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("equipoise.privacy.client.ledger.os.link", full)
    with pytest.raises(OSError, match="disk full"):
        client.report(ROUND, 5)
    assert Ledger(tmp_path).spent("ages") is None


def test_two_devices_on_one_ledger_agree_on_one_report(tmp_path: Path) -> None:
    """Both have passed the check before either has written: the first record wins."""
    client = joined(tmp_path)
    first, second = (client._perturbed(ROUND, 5) for _ in range(2))
    assert first.report != second.report
    assert client.ledger.record(first) == first
    assert client.ledger.record(second) == first


def test_the_budget_is_not_spent_twice(tmp_path: Path) -> None:
    client = joined(tmp_path)
    client.report(ROUND, 5)
    other = replace(ROUND, cells=(((0, 2),), *(((2, 4),), *CELLS[1:])), outputs=5)
    with pytest.raises(AlreadySpent, match="has answered round 1"):
        client.report(other, 5)


def test_only_the_own_round_is_answered(tmp_path: Path) -> None:
    client = joined(tmp_path)
    with pytest.raises(RoundError, match="round 1 only"):
        client.report(replace(ROUND, round=2), 5)
    with pytest.raises(RoundError, match="call join first"):
        client.report(replace(ROUND, task="incomes"), 5)


def test_joining_again_gives_the_same_round(tmp_path: Path) -> None:
    client = Client(Ledger(tmp_path), 1.0)
    first = client.join("ages", [0.25] * 4)
    assert [client.join("ages", [0.25] * 4) for _ in range(20)] == [first] * 20
    with pytest.raises(RoundError, match="sum to 1"):
        client.join("other", [0.5, 0.6])


def test_rounds_are_drawn_with_their_shares(tmp_path: Path) -> None:
    client = Client(Ledger(tmp_path), 1.0)
    drawn = np.bincount([client._draw_group([0.1, 0.6, 0.3]) for _ in range(20_000)]) / 20_000
    np.testing.assert_allclose(drawn, [0.1, 0.6, 0.3], atol=0.02)


def test_limits_of_the_device(tmp_path: Path) -> None:
    with pytest.raises(RoundError, match="above this device's limit"):
        joined(tmp_path / "a", epsilon_limit=0.5).report(ROUND, 5)
    with pytest.raises(RoundError, match="more than 3 bits"):
        joined(tmp_path / "b", most_cells=3).report(ROUND, 5)
    client = joined(tmp_path / "c", lifetime_epsilon=1.5)
    client.report(ROUND, 5)
    second = replace(ROUND, task="incomes")
    client.join("incomes", [0, 1, 0])
    with pytest.raises(AlreadySpent, match="epsilon to 2, above the lifetime limit"):
        client.report(second, 5)


def test_an_expired_round_is_not_answered(tmp_path: Path) -> None:
    expiring = replace(ROUND, expires=1000)
    client = joined(tmp_path)
    client.clock = lambda: 1001.0
    with pytest.raises(RoundError, match="has expired"):
        client.report(expiring, 5)
    client.clock = lambda: 999.0
    assert client.report(expiring, 5)


@pytest.mark.parametrize("value", [-1, 16, 3.0, None, True, "3", (3, 4), ()])
def test_a_value_outside_the_domain_is_refused_and_nothing_spent(
    tmp_path: Path, value: object
) -> None:
    client = joined(tmp_path)
    with pytest.raises(PrivacyError, match="must be integers from 0"):
        client.report(ROUND, value)  # type: ignore[arg-type]
    assert client.ledger.spent("ages") is None


@pytest.mark.parametrize(
    "change",
    [
        {"cells": CELLS[:-1], "outputs": 3},
        {"cells": (*CELLS, ((0, 4),)), "outputs": 5},
        {"cells": (((0, 5),), *CELLS[1:])},
        {"cells": (((0, 16),),), "outputs": 1},
        {"cells": (((0, 0),), ((0, 16),)), "outputs": 2},
        {"epsilon": 0.0},
        {"epsilon": -1.0},
        {"epsilon": math.nan},
        {"outputs": 3},
        {"outputs": 70_000},
        {"round": 3},
        {"round": -1},
        {"attributes": (1,)},
        {"attributes": ()},
        {"domain": (1,)},
        {"randomizer": "none"},
    ],
)
def test_a_wrong_description_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(RoundError):
        joined(tmp_path).report(replace(ROUND, **change), 5)  # type: ignore[arg-type]


def test_a_description_survives_json() -> None:
    again = RoundDescription.from_json(ROUND.to_json())
    assert again == ROUND
    assert again.partition_hash() == ROUND.partition_hash()
    for text in ("", "[]", "{}", '{"cells": 3}', ROUND.to_json().replace("[16]", "[17]")):
        with pytest.raises(RoundError):
            RoundDescription.from_json(text)


def test_partitions_of_two_attributes() -> None:
    boxes: tuple[Box, ...] = (((0, 2), (0, 3)), ((2, 4), (0, 1)), ((2, 4), (1, 3)))
    assert is_partition(boxes, (4, 3))
    assert not is_partition(boxes[:2], (4, 3))
    assert not is_partition((*boxes, ((0, 1), (0, 1))), (4, 3))
    assert not is_partition(boxes, (4, 4))


def test_a_damaged_ledger_sends_nothing(tmp_path: Path) -> None:
    client = joined(tmp_path)
    client.report(ROUND, 5)
    next(tmp_path.glob("*.report")).write_text("{")
    with pytest.raises(AlreadySpent, match="damaged"):
        client.report(ROUND, 5)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("randomizer", WIDTHS)
def test_the_likelihood_ratio_of_real_bytes_stays_within_epsilon(
    randomizer: str, epsilon: float
) -> None:
    """20,000 payloads of either of two values; each payload's ratio within its 5-sigma interval.

    With so many comparisons five standard deviations keep a false alarm below one in 10,000 runs.
    """
    description = replace(ROUND, epsilon=epsilon, randomizer=randomizer, outputs=WIDTHS[randomizer])
    draws = 20_000
    counts = [
        np.bincount(
            [randomize(description, cell)[0] for _ in range(draws)],
            minlength=256,
        )
        for cell in range(4)
    ]  # fmt: skip
    for first, second in itertools.permutations(counts, 2):
        excess = first - math.exp(epsilon) * second
        deviation = np.sqrt(first + math.exp(2 * epsilon) * np.maximum(second, 1))
        assert (excess <= 5 * deviation).all()
    assert max(np.log((a + 1) / (b + 1)).max() for a, b in itertools.permutations(counts, 2)) > (
        0.8 * epsilon
    )


def evidence_of_epsilon(folder: Path, epsilon: float, draws: int) -> tuple[float, float]:
    """Log likelihood ratio of whole reports of two values, five standard deviations either way.

    The event is the most telling one of unary encoding, "the bit of the first value's cell is set
    and that of the second's is not". Source: Katz et al. 1978, ratio of two binomial rates.
    """
    description = replace(ROUND, epsilon=epsilon)
    client = joined(folder, description, epsilon_limit=8.0)

    def rate(value: int) -> float:
        reports = [client._perturbed(description, value).report for _ in range(draws)]
        return sum(int(report[-2:], 16) & 0b1001 == 0b0001 for report in reports) / draws

    own, other = rate(1), rate(14)
    deviation = math.sqrt((1 - own) / (draws * own) + (1 - other) / (draws * other))
    center = math.log(own / other)
    return center - 5 * deviation, center + 5 * deviation


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0])
def test_whole_reports_spend_epsilon_and_not_more(tmp_path: Path, epsilon: float) -> None:
    least, most = evidence_of_epsilon(tmp_path, epsilon, 30_000)
    assert least <= epsilon <= most


def test_the_evidence_tells_a_third_more_than_epsilon(tmp_path: Path) -> None:
    """Of a client that is asked for 1.3 instead of 1."""
    assert evidence_of_epsilon(tmp_path, 1.3, 30_000)[0] > 1.0


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0])
def test_a_million_whole_reports_spend_epsilon_and_not_more(tmp_path: Path, epsilon: float) -> None:
    """The same, where an excess of 6 % of epsilon would be seen."""
    least, most = evidence_of_epsilon(tmp_path, epsilon, 500_000)
    print(f"\nepsilon {epsilon:g}: log likelihood ratio from {least:.4f} to {most:.4f}")
    assert least <= epsilon <= most
    assert most - least < 0.12 * epsilon


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0, 12.0])
def test_a_bit_is_set_exactly_below_its_threshold(epsilon: float) -> None:
    """p = 1/2 for the own cell, else the least multiple of 2^-64 that is not below q."""
    threshold = probability_threshold(epsilon, 1, 1)
    own = [2**63 - 1, 2**63]
    others = [threshold - 1, threshold]
    for bits in itertools.product((0, 1), repeat=3):
        draws = [others[1 - bits[0]], own[1 - bits[1]], others[1 - bits[2]]]
        source = b"".join(draw.to_bytes(8, sys.byteorder) for draw in draws)
        payload = unary_encoding(1, 3, epsilon, lambda size, source=source: source[:size])
        assert payload == bytes([sum(bit << i for i, bit in enumerate(bits))])
    ratio = Fraction(2**63, threshold) * Fraction(2**64 - threshold, 2**63)
    assert ratio <= Fraction(Decimal(epsilon).exp(Context(prec=60)))
    assert math.log(ratio) == pytest.approx(epsilon, abs=1e-12)


@pytest.mark.parametrize("randomizer", WIDTHS)
def test_real_payloads_have_the_stated_probabilities(
    randomizer: str, generator: np.random.Generator
) -> None:
    """The client's bits and the aggregator's simulation come from one distribution."""
    from equipoise.privacy import oracles
    from equipoise.privacy.collection.open_round import count_bits

    kinds = {
        "oue": oracles.OptimizedUnaryEncoding,
        "grr": oracles.GeneralizedRandomizedResponse,
        "square_wave": oracles.SquareWave,
        "haar_hadamard": oracles.HaarHadamard,
    }
    simulated = kinds[randomizer](4, 1.0)
    description = replace(ROUND, randomizer=randomizer, outputs=simulated.outputs)
    draws = 10_000
    for cell in range(4):
        payloads = b"".join(randomize(description, cell) for _ in range(draws))
        rows = np.frombuffer(payloads, dtype=np.uint8).reshape(draws, -1)
        real = count_bits(rows, simulated.outputs)
        histogram = np.bincount([cell], minlength=4) * draws
        expected = np.mean([simulated.simulate(histogram, generator) for _ in range(50)], axis=0)
        assert (np.abs(real - expected) < 5.5 * np.sqrt(draws / 4 * 1.02)).all()


@pytest.mark.parametrize("limit", ["epsilon_limit", "lifetime_epsilon"])
@pytest.mark.parametrize(
    "wrong", [math.nan, math.inf, -math.inf, -1.0, 0, 0.0, "1", True, [1.0], 10**400, 1j]
)
def test_a_limit_that_would_let_everything_pass_is_refused(
    tmp_path: Path, limit: str, wrong: object
) -> None:
    with pytest.raises(PrivacyError, match=f"{limit} must be a finite number above 0"):
        Client(Ledger(tmp_path), **{"epsilon_limit": 1.0, limit: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [-1, 3.0, math.nan, "9", True, None, 70_000])
def test_a_longest_report_that_is_no_number_of_bits_is_refused(
    tmp_path: Path, wrong: object
) -> None:
    with pytest.raises(PrivacyError, match="most_cells must be an integer"):
        Client(Ledger(tmp_path), 1.0, most_cells=wrong)  # type: ignore[arg-type]


def test_a_limit_that_is_spoilt_later_lets_nothing_pass(tmp_path: Path) -> None:
    client = joined(tmp_path)
    client.epsilon_limit = math.nan
    with pytest.raises(RoundError, match="above this device's limit"):
        client.report(ROUND, 5)
    client.epsilon_limit, client.lifetime_epsilon = 4.0, math.nan
    with pytest.raises(AlreadySpent, match="above the lifetime limit"):
        client.report(ROUND, 5)


@pytest.mark.parametrize("shares", [[math.nan], [0.5, "0.5"], [None], [2.0, -1.0], [], [math.inf]])
def test_shares_that_are_none_are_refused(tmp_path: Path, shares: list[float]) -> None:
    with pytest.raises(RoundError, match="must sum to 1"):
        Client(Ledger(tmp_path), 1.0).join("ages", shares)


class Compared(int):
    """A value that counts how often it is compared."""

    comparisons = 0

    def __ge__(self, other: int) -> bool:
        Compared.comparisons += 1
        return int(self) >= other

    def __lt__(self, other: int) -> bool:
        Compared.comparisons += 1
        return int(self) < other


def steps(work: Callable[[], object]) -> list[int]:
    """Lines of Python, calls into C and comparisons of the value that the work takes."""
    taken = [0, 0]

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        taken[0] += event == "line"
        return trace

    def profile(frame: FrameType, event: str, argument: object) -> None:
        taken[1] += event == "c_call"

    Compared.comparisons = 0
    gc.disable()  # a collection in between would be counted too
    before = sys.gettrace(), sys.getprofile()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
        gc.enable()
    return [*taken, Compared.comparisons]


def wide_round(randomizer: str, attributes: int) -> RoundDescription:
    """256 cells, of one attribute or of a plane, and as many outputs as the randomizer has."""
    sizes = (256,) if attributes == 1 else (16, 16)
    boxes = [tuple((x, x + 1) for x in low) for low in itertools.product(*map(range, sizes))]
    outputs = {"square_wave": 256 + 100, "haar_hadamard": 256}.get(randomizer, 256)
    asked = tuple(range(attributes))
    return RoundDescription("ages", 0, 1, 1.0, randomizer, outputs, sizes, asked, tuple(boxes))


@pytest.mark.parametrize("attributes", [1, 2])
@pytest.mark.parametrize("randomizer", WIDTHS)
def test_a_report_takes_the_same_steps_whatever_the_value(
    tmp_path: Path, randomizer: str, attributes: int
) -> None:
    """The same random bytes for each value: the same draws, lines, calls and comparisons."""
    description = wide_round(randomizer, attributes)
    for number, seed in enumerate((3, 4, 5)):
        taken, drawn = [], []
        for value in (0, 1, 100, 255):
            source, sizes = random.Random(seed), []

            def draw(size: int, source: random.Random = source, sizes: list[int] = sizes) -> bytes:
                sizes.append(size)
                return source.randbytes(size)

            folder = tmp_path / f"{number}-{value}"
            client = joined(folder, description, random_bytes=draw)
            sizes.clear()
            numbers = (value,) if attributes == 1 else divmod(value, 16)
            told = tuple(Compared(x) for x in numbers)
            client._perturbed(description, told)  # what is computed once is out of the way
            sizes.clear()
            source.seed(seed)
            taken.append(steps(lambda c=client, told=told: c._perturbed(description, told)))
            drawn.append(list(sizes))
        assert taken == taken[:1] * 4
        assert drawn == drawn[:1] * 4
        assert taken[0][2] >= 2 * len(description.cells) * attributes


@pytest.mark.parametrize("randomizer", ["grr", "square_wave"])
def test_the_true_and_a_false_answer_take_the_same_steps(randomizer: str) -> None:
    """A draw in the favoured part and one outside of it: what was drawn must not show."""
    description = wide_round(randomizer, 1)
    taken, answers = [], set()
    for draw in (0, 2**63, 2**64 - 2**60):
        source = draw.to_bytes(8, "little")
        answers.add(randomize(description, 128, lambda _, source=source: source))
        taken.append(steps(lambda s=source: randomize(description, 128, lambda _: s)))
    assert len(answers) > 1
    assert taken == taken[:1] * 3


@pytest.mark.slow
def test_the_time_of_a_report_does_not_tell_the_value(tmp_path: Path) -> None:
    """Medians of 300 turns, of the least and the greatest of 1024 values; it was 1.55."""
    cells = tuple(((x, x + 1),) for x in range(1024))
    description = RoundDescription("ages", 0, 1, 1.0, "oue", 1024, (1024,), (0,), cells)
    client = joined(tmp_path, description)
    times: dict[int, list[float]] = {0: [], 1023: []}
    for _ in range(300):
        for value, seen in times.items():
            start = time.process_time()
            client._perturbed(description, value)
            seen.append(time.process_time() - start)
    ratio = np.median(times[1023]) / np.median(times[0])
    print(f"\nvalue 1023 takes {ratio:.3f} of the time of value 0")
    assert 0.9 < ratio < 1.1


WRONG_ROUNDS: list[dict[str, object]] = [
    {"cells": [[["a", 3]]]},
    {"cells": [[[0, 4]], [[None, 8]], [[8, 16]]]},
    {"cells": [[[0, [4]]], [[4, 16]]]},
    {"cells": [[[0.0, 4.0]], [[4, 16]]]},
    {"cells": [[[0, True]], [[1, 16]]]},
    {"cells": "abcd"},
    {"cells": None},
    {"cells": {"a": 1}},
    {"cells": [[[0, 1, 2]]]},
    {"domain": ["a"]},
    {"domain": [math.nan]},
    {"domain": [math.inf]},
    {"domain": [None]},
    {"domain": [[16]]},
    {"domain": {}},
    {"domain": [2] * 3000, "attributes": list(range(3000)),
     "cells": [[[a, a + 1]] + [[0, 2]] * 2999 for a in (0, 1)], "outputs": 2},
    {"attributes": ["a"]},
    {"attributes": [[0]]},
    {"attributes": None},
    {"task": "\ud800"},
    {"task": ""},
    {"task": 3},
    {"randomizer": []},
    {"randomizer": None},
    {"outputs": "4"},
    {"outputs": None},
    {"outputs": math.nan},
    {"round": None},
    {"rounds": math.inf},
    {"expires": -1},
    {"expires": "soon"},
    {"epsilon": 10**400},
    {"epsilon": "1"},
    {"epsilon": None},
    {"epsilon": True},
    {"more": 1},
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG_ROUNDS, ids=lambda change: ascii(change)[:60])
def test_a_round_from_outside_is_read_or_refused(change: dict[str, object]) -> None:
    text = json.dumps({**json.loads(ROUND.to_json()), **change})
    with pytest.raises(RoundError) as refusal:
        RoundDescription.from_json(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"cells":' * 100_000, "1" * 5000, "NaN", "null", "\0", "{}", "3"]
)
def test_a_text_that_is_no_round_is_refused(text: str) -> None:
    with pytest.raises(RoundError, match="cannot be read"):
        RoundDescription.from_json(text)


def test_a_round_that_is_too_long_is_refused_before_it_is_looked_at(tmp_path: Path) -> None:
    cells = tuple(((x, x + 1), (0, 2**40)) for x in range(60_000))
    long = replace(ROUND, cells=cells, domain=(60_000, 2**40), attributes=(0, 1), outputs=60_000)
    with pytest.raises(RoundError, match="more than 4096 bits"):
        joined(tmp_path).report(long, (1, 1))


@pytest.mark.parametrize("shares", [[0.1] * 10, [0.3, 0.3, 0.4], [1.0]])
def test_the_largest_draw_gives_the_last_round_and_the_smallest_the_first(
    tmp_path: Path, shares: list[float]
) -> None:
    for byte, expected in ((b"\xff", len(shares) - 1), (b"\x00", 0)):
        client = Client(Ledger(tmp_path), 1.0, random_bytes=lambda n, byte=byte: byte * n)
        assert client._draw_group(shares) == expected


def test_boxes_that_are_no_partition_of_two_attributes() -> None:
    boxes: tuple[Box, ...] = (((0, 2), (0, 3)), ((2, 4), (0, 3)))
    assert is_partition(boxes, (4, 3))
    for wrong in ((), boxes[:1], boxes[1:], (*boxes, ((0, 2),)), (*boxes, boxes[0])):
        assert not is_partition(wrong, (4, 3))  # type: ignore[arg-type]
