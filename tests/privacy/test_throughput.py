"""Users and reports a second of one thread's own time; `-s` prints them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.range_queries.populations import population
from equipoise.privacy import Aggregator, Ahead, Flat, simulate_counts
from equipoise.privacy.client.wire import IDENTIFIER_BYTES, encode_report

USERS, SIZE = 100_000, 1024


def best_rate(work: Callable[[], object], repeats: int) -> float:
    """USERS over the least processor time, in millions a second."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return USERS / min(times) / 1e6


@pytest.mark.slow
def test_a_simulated_survey_takes_five_million_users_a_second(
    generator: np.random.Generator,
) -> None:
    values = population("gaussian", USERS, SIZE, generator)
    rate = best_rate(
        lambda: simulate_counts(Ahead().survey(SIZE, 1.0, USERS), values, generator), 20
    )
    print(f"\nsimulated: {rate:.1f} million users a second")
    assert rate >= 5


@pytest.mark.slow
def test_an_aggregator_takes_a_million_reports_a_second(generator: np.random.Generator) -> None:
    values = population("gaussian", USERS, SIZE, generator)
    survey = Flat().survey(SIZE, 1.0, USERS)
    payloads = survey.question(0).randomizer.perturb(values, generator)
    ids = generator.integers(0, 256, (USERS, IDENTIFIER_BYTES), dtype=np.uint8)
    description = Aggregator("task", survey).begin_round()
    reports = [
        encode_report(description, i.tobytes(), p.tobytes())
        for i, p in zip(ids, payloads, strict=True)
    ]

    def new() -> Aggregator:
        aggregator = Aggregator("task", Flat().survey(SIZE, 1.0, USERS))
        aggregator.begin_round()
        return aggregator

    waiting = [new() for _ in range(10)]
    whole = best_rate(lambda: waiting.pop().add(reports), 5)
    packed = best_rate(lambda: waiting.pop().add_packed(0, ids, payloads), 5)
    print(f"\nwhole reports: {whole:.1f}, packed arrays: {packed:.1f} million a second")
    assert min(whole, packed) >= 1
