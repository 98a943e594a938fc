"""People and reports a second of one thread, beside the multi-freq-ldpy package.

    python -m benchmarks.privacy_speed [repeats]

1024 values, epsilon 1, optimized unary encoding, so that a report has 1024 bits; sides in turn in
one process, processor time, medians. The peer's estimator is given as many reports as its clients
make; it holds 8 bytes for each bit. The exit status is 1 where one of our rates is below its limit.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from multi_freq_ldpy.pure_frequency_oracles.UE import UE_Aggregator_MI, UE_Client

from benchmarks.range_queries.populations import population
from benchmarks.timing import in_turn
from equipoise.privacy import Aggregator, Ahead, Flat, simulate_counts
from equipoise.privacy.client.randomizers import randomize
from equipoise.privacy.client.wire import IDENTIFIER_BYTES, encode_report

USERS, SIZE, EPSILON = 100_000, 1024, 1.0
FEW = 2_000  # for the sides that take each person by itself
LEAST = {"simulated survey": 5e6, "aggregate whole reports": 1e6, "aggregate packed arrays": 1e6}


class Side(NamedTuple):
    """People that one call handles, and the call."""

    people: int
    call: Callable[[], object]


def fresh() -> Aggregator:
    """An aggregator with one open round of 1024 cells."""
    aggregator = Aggregator("speed", Flat().survey(SIZE, EPSILON, USERS))
    aggregator.begin_round()
    return aggregator


def our_sides(values: np.ndarray, generator: np.random.Generator, calls: int) -> dict[str, Side]:
    """The simulated survey, the simulated and the real client, and the aggregator.

    Each call that aggregates takes an aggregator whose round has been opened beforehand.
    """
    aggregator = fresh()
    waiting = [fresh() for _ in range(2 * calls)]
    description, randomizer = (
        aggregator.open[0].description,
        aggregator.survey.question(0).randomizer,
    )
    payloads = randomizer.perturb(values, generator)
    identifiers = generator.integers(0, 256, (USERS, IDENTIFIER_BYTES), dtype=np.uint8)
    reports = [
        encode_report(description, identifier.tobytes(), payload.tobytes())
        for identifier, payload in zip(identifiers, payloads, strict=True)
    ]
    some = [int(value) for value in values[:FEW]]

    def simulated() -> None:
        simulate_counts(Ahead().survey(SIZE, EPSILON, USERS), values, generator)

    def whole() -> None:
        assert waiting.pop().add(reports).accepted == USERS

    def packed() -> None:
        assert waiting.pop().add_packed(0, identifiers, payloads).accepted == USERS

    return {
        "simulated survey": Side(USERS, simulated),
        "simulated reports": Side(USERS, lambda: randomizer.perturb(values, generator)),
        "aggregate whole reports": Side(USERS, whole),
        "aggregate packed arrays": Side(USERS, packed),
        "device, secure randomness": Side(FEW, lambda: [randomize(description, v) for v in some]),
    }


def peer_sides(values: np.ndarray) -> dict[str, Side]:
    """multi-freq-ldpy: clients, estimator, and both together."""
    some = [int(value) for value in values[:FEW]]

    def clients() -> list[np.ndarray]:
        return [UE_Client(value, SIZE, EPSILON) for value in some]

    made = clients()
    return {
        "peer, clients": Side(FEW, clients),
        "peer, estimator": Side(FEW, lambda: UE_Aggregator_MI(made, EPSILON)),
        "peer, both": Side(FEW, lambda: UE_Aggregator_MI(clients(), EPSILON)),
    }


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    generator = np.random.default_rng(0)
    values = population("gaussian", USERS, SIZE, generator)
    sides = our_sides(values, generator, repeats + 1) | peer_sides(values)
    times = in_turn({name: side.call for name, side in sides.items()}, repeats)
    base = [seconds / FEW for seconds in times["peer, both"]]
    missed = []
    print("| side | people a second | at least | over the peer's clients and estimator |")
    print("|---|---|---|---|")
    for name, side in sides.items():
        each = [seconds / side.people for seconds in times[name]]
        rate = 1 / statistics.median(each)
        speed_up = statistics.median(b / a for a, b in zip(each, base, strict=True))
        least = f"{LEAST[name]:,.0f}" if name in LEAST else ""
        print(f"| {name} | {rate:,.0f} | {least} | {speed_up:.1f} |", flush=True)
        missed += [name] if rate < LEAST.get(name, 0.0) else []
    print(*(f"below its limit: {name}" for name in missed), sep="\n")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
