"""Whole surveys on known values, for studies and tests: the randomness is not secure."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.client.wire import IDENTIFIER_BYTES
from equipoise.privacy.collection.aggregator import Aggregator
from equipoise.privacy.estimates.range_estimate import RangeEstimate
from equipoise.privacy.estimates.values import check_histogram, check_values
from equipoise.privacy.mechanisms.survey import Survey, Tally
from equipoise.privacy.oracles.randomizer import Integers


def assign_rounds(survey: Survey, users: int, generator: np.random.Generator) -> Integers:
    """(users,) each user's round, drawn independently of the values with the survey's shares."""
    if not survey.rounds:
        return np.zeros(users, dtype=np.int64)
    if len(set(survey.shares)) == 1:
        return generator.integers(0, survey.rounds, users)
    return generator.choice(survey.rounds, size=users, p=survey.shares)


def simulate_counts(
    survey: Survey, values: ArrayLike, generator: np.random.Generator
) -> RangeEstimate:
    """The survey's estimate for users with these values, drawing sums instead of reports.

    The counts have the distribution of those of `simulate_reports` (exactly, jointly over cells),
    at a fraction of the cost. values: (users,) or (users, attributes) integers.
    """
    table = check_values(values, survey.domain)
    possible = math.prod(survey.domain)
    if possible * max(1, survey.rounds) <= len(table):
        cells = np.ravel_multi_index(tuple(table.T), survey.domain)
        histogram = np.bincount(cells, minlength=possible).reshape(survey.domain)
        return simulate_histogram(survey, histogram, generator)
    groups = assign_rounds(survey, len(table), generator)
    for index in range(survey.rounds):
        _simulate_round(survey, index, table[groups == index], None, generator)
    return survey.estimate()


def simulate_histogram(
    survey: Survey, histogram: ArrayLike, generator: np.random.Generator
) -> RangeEstimate:
    """The same for a population of any size, given by its histogram of shape `domain`.

    People with the same value are exchangeable: their numbers in the rounds are multinomial.
    Raises PrivacyError for another shape and for numbers that are not counts.
    """
    people = check_histogram(histogram, survey.domain)
    occupied = np.argwhere(people)
    waiting = people[people > 0]
    for index in range(survey.rounds):
        share = survey.shares[index] / sum(survey.shares[index:])
        members = generator.binomial(waiting, share)
        waiting = waiting - members
        _simulate_round(survey, index, occupied, members, generator)
    return survey.estimate()


def simulate_reports(
    aggregator: Aggregator,
    values: ArrayLike,
    generator: np.random.Generator,
    batch_size: int = 4096,
) -> RangeEstimate:
    """The same through an aggregator: every user's packed report, in batches."""
    survey = aggregator.survey
    table = check_values(values, survey.domain)
    groups = assign_rounds(survey, len(table), generator)
    if batch_size < 1:
        raise PrivacyError(f"batch_size must be at least 1, got {batch_size}.")
    for index in range(survey.rounds):
        aggregator.begin_round(index)
        members = np.flatnonzero(groups == index)
        for start in range(0, len(members), batch_size):
            part = members[start : start + batch_size]
            add_simulated_reports(aggregator, index, table[part], generator)
        aggregator.close_round(index)
    return aggregator.finish()


def add_simulated_reports(
    aggregator: Aggregator, index: int, values: Integers, generator: np.random.Generator
) -> None:
    """Perturb users' values (n, attributes) and hand the packed reports of a round over."""
    question = aggregator.survey.question(index)
    payloads = question.randomizer.perturb(question.locate(values), generator)
    identifiers = generator.integers(0, 256, (len(values), IDENTIFIER_BYTES), dtype=np.uint8)
    aggregator.add_packed(index, identifiers, payloads)


def _simulate_round(
    survey: Survey,
    index: int,
    values: Integers,
    people: Integers | None,
    generator: np.random.Generator,
) -> None:
    """Close a round with reports of `people` at each of the values (one each where None)."""
    question = survey.question(index)
    histogram = question.histogram(values, people)
    counts = question.randomizer.simulate(histogram, generator)
    survey.close(index, Tally(counts, int(histogram.sum())))
