"""Range queries under local differential privacy: a survey, round by round, without gradients."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.errors import UserError
from equipoise.privacy import (
    Mechanism,
    PrivacyError,
    Question,
    RangeEstimate,
    RoundError,
    Survey,
    Tally,
    assign_rounds,
)
from equipoise.privacy.collection.open_round import count_bits
from equipoise.privacy.collection.saved_state import read_rounds
from equipoise.privacy.oracles.randomizer import Counts
from equipoise.report.page import Picture
from equipoise.report.ranges import draw_ranges
from equipoise.tasks.objective import refuse_rounding
from equipoise.tasks.range_errors import RangeErrors, range_samples

Reports = Literal["packed", "counts"]
GROUPS, NOISE = 0, 1  # what a stream of random numbers is for


class Respondents(Protocol):
    """The data module: people who answer, and queries with their true answers."""

    workload: Any
    people: Any

    def divide(self, groups: NDArray, rounds: int) -> None:
        """Store the round in which each person answers; groups (repeats, people)."""
        ...


class RangeQueries(pl.LightningModule):
    """Conducts `repeats` surveys of the same people by one mechanism, and scores the answers.

    An epoch is a round: every person of the round's group sends one report. training_step simulates
    the clients of its block and counts their bits; the last block of a round adds the counts of all
    processes (int64) and closes the round. There is nothing to optimise. A survey's state is the
    tallies of its closed rounds, so a run resumes after the last closed round, never in the middle
    of one. Reports depend on (seed, repetition, round, block) alone, whatever the number of
    processes. They only simulate clients: their randomness is not cryptographically secure.

    reports: `packed` makes each report and counts its bits; `counts` draws the sums over a block,
    which have the same distribution. Metrics: mse and mae over the ranges with random ends.
    Raises PrivacyError for a domain, epsilon or number of users that the mechanism refuses.
    """

    resumes_within_epoch = False

    def __init__(
        self,
        model: Mechanism,
        epsilon: float,
        domain: Sequence[int],
        users: int,
        repeats: int = 10,
        reports: Reports = "packed",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if repeats < 1:
            raise PrivacyError(f"task.repeats={repeats} must be 1 or more.")
        self.automatic_optimization = False
        self.model = model
        self.reports = reports
        self.seed = seed
        self.domain, self.epsilon, self.users = tuple(domain), epsilon, users
        self.surveys = [self.new_survey() for _ in range(repeats)]
        self.questions: list[Question] = []
        self.counts: list[Counts] = []
        self.answered = np.zeros(repeats, dtype=np.int64)
        self.answers: list[RangeEstimate] = []
        self.round_sizes: dict[str, float] = {}
        self.errors = RangeErrors()

    def new_survey(self) -> Survey:
        """A survey of the same people that has asked nobody yet."""
        return self.model.survey(self.domain, self.epsilon, self.users)

    @property
    def rounds(self) -> int:
        """Number of rounds of each survey."""
        return self.surveys[0].rounds

    @property
    def closed(self) -> int:
        """Number of rounds that are closed, the same in every survey."""
        return len(self.surveys[0].tallies)

    def logged(self, stage: str) -> set[str]:
        """The names under which the errors are logged."""
        return {f"{stage}/mse", f"{stage}/mae"}

    def configure_optimizers(self) -> None:
        """None: nothing is optimised."""

    def setup(self, stage: str) -> None:
        """Divide the people among the rounds, and make the training as long as the survey.

        Raises UserError for a precision that rounds the true answers.
        """
        refuse_rounding(self.trainer, "the true answers")
        if stage != "fit":
            return
        streams = [self._stream(GROUPS, number) for number in range(len(self.surveys))]
        groups = [
            assign_rounds(survey, self.users, generator)
            for survey, generator in zip(self.surveys, streams, strict=True)
        ]
        smallest = np.min_scalar_type(self.rounds)
        self._respondents().divide(np.stack(groups).astype(smallest), self.rounds)
        self._last_for_all_rounds()

    def on_train_epoch_start(self) -> None:
        """Open the round in every survey: what it asks depends on the rounds before."""
        if self.closed == self.rounds:
            return
        self.questions = [survey.question(self.closed) for survey in self.surveys]
        self.counts = [np.zeros(q.randomizer.outputs, dtype=np.int64) for q in self.questions]
        self.answered[:] = 0

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Let the people of a block report, and count their bits. A round is one step."""
        if self.questions:
            self._count(batch)
        if self.trainer.is_last_batch:
            if self.questions:
                self._close_round()
            self.optimizers().step()  # type: ignore[union-attr]  # without it nothing is ever saved

    def on_train_epoch_end(self) -> None:
        """Log the errors, once the last round is closed; until then there are no answers."""
        self._log("val", self._judged())

    def estimates(self) -> list[RangeEstimate]:
        """The answers of every survey; raises RoundError while a round is open."""
        if not self.answers:
            self.answers = [survey.estimate() for survey in self.surveys]
        return self.answers

    def test_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Answer the queries of a batch. Raises UserError before the last round is closed."""
        try:
            self.errors.add(batch, self.estimates())
        except RoundError as error:
            raise UserError(f"The survey is not finished: {error} Resume it first") from error

    def on_test_epoch_start(self) -> None:
        """Forget earlier queries."""
        self.errors = RangeErrors()

    def on_test_epoch_end(self) -> None:
        """Log the errors over the ranges with random ends."""
        self._log("test", self.errors.means())

    def details(self) -> dict[str, Any]:
        """Errors by volume, standard errors over the repetitions, and the size of the survey."""
        survey = {
            "people": self.users,
            "rounds": self.rounds,
            "epsilon": self.epsilon,
            "domain": " x ".join(str(size) for size in self.domain),
            "repeats": len(self.surveys),
        }
        return {**self.errors.details(), "survey": survey}

    def pictures(self, folder: Path) -> list[Picture]:
        """Draw the first survey's tree and answers, and the errors of all surveys."""
        people = self._respondents().people
        return draw_ranges(range_samples(self.estimates()[0], self.errors, people), folder)

    def epoch_notes(self) -> list[str]:
        """The size of the round that has just been closed, for the epoch's line on the screen."""
        return [f"{name} {mean:.0f}" for name, mean in self.round_sizes.items()]

    def get_extra_state(self) -> dict[str, Any]:
        """The tallies of the closed rounds, and the signature of their survey."""
        closed = [
            [
                {"round": index, "counts": torch.from_numpy(tally.counts), "reports": tally.reports}
                for index, tally in survey.tallies.items()
            ]
            for survey in self.surveys
        ]
        return {"survey": self.surveys[0].signature(), "closed": closed}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Close the same rounds again.

        Raises UserError, and changes nothing, for the state of another survey and for a state that
        no survey can have saved.
        """
        closed = _entry(state, "closed", list)
        self._check_signature(_entry(state, "survey", dict))
        if not closed:
            raise UserError("the checkpoint holds no survey: use an earlier one")
        surveys = [self.new_survey() for _ in closed]
        try:
            for survey, saved in zip(surveys, closed, strict=True):
                for index, tally in read_rounds(_listed(saved)).items():
                    survey.close(index, tally)
        except PrivacyError as error:
            raise UserError(f"the checkpoint's survey cannot be resumed: {error}") from error
        self.surveys, self.answers = surveys, []
        self.answered = np.zeros(len(surveys), dtype=np.int64)

    def _check_signature(self, saved: dict[str, Any]) -> None:
        for key, value in self.new_survey().signature().items():
            if saved.get(key) != value:
                raise UserError(
                    f"the checkpoint holds a survey with {key} {saved.get(key)}, which "
                    f"cannot be resumed with {value}"
                )

    def _count(self, batch: dict[str, Tensor]) -> None:
        """Add the reports of a block's people to the counts of each survey."""
        values = np.split(batch["values"].numpy(), np.cumsum(batch["sizes"].numpy())[:-1])
        for number, people in enumerate(values):
            key = (NOISE, number, self.closed, int(batch["block"]))
            self.counts[number] += self._counted(self.questions[number], people, self._stream(*key))
            self.answered[number] += len(people)

    def _close_round(self) -> None:
        """Add the counts of all processes, and close the round in every survey.

        Raises UserError where nobody answered.
        """
        index, tallies = self.closed, self._tallies()
        for survey, tally in zip(self.surveys, tallies, strict=True):
            try:
                survey.close(index, tally)
            except RoundError as error:
                raise UserError(str(error)) from error
        self.questions = []
        sizes = {"cells": [len(t.counts) for t in tallies], "reports": [t.reports for t in tallies]}
        self.round_sizes = {name: float(np.mean(numbers)) for name, numbers in sizes.items()}
        for name, mean in self.round_sizes.items():
            self.log(
                f"round/{name}", mean, on_step=False, on_epoch=True, batch_size=1,
                logger=bool(self.trainer.loggers),
            )  # fmt: skip

    def _counted(
        self, question: Question, people: NDArray[np.int64], generator: np.random.Generator
    ) -> Counts:
        """(outputs,) how often each bit is set in the people's reports."""
        randomizer = question.randomizer
        if self.reports == "counts":
            return randomizer.simulate(question.histogram(people), generator)
        payloads = randomizer.perturb(question.locate(people), generator)
        return count_bits(payloads, randomizer.outputs)

    def _tallies(self) -> list[Tally]:
        """The open round's counts of each survey, added over all processes without rounding."""
        local = torch.from_numpy(np.concatenate([*self.counts, self.answered])).to(self.device)
        total = self.trainer.strategy.reduce(local, reduce_op="sum").cpu()
        ends = np.cumsum([len(counts) for counts in self.counts])
        *counts, answered = np.split(total.numpy(), ends)
        return [Tally(c, int(n)) for c, n in zip(counts, answered, strict=True)]

    def _judged(self) -> dict[str, float]:
        """The errors once the last round is closed; infinite before, as there are no answers."""
        if self.closed < self.rounds:
            return {"mse": float("inf"), "mae": float("inf")}
        workload, errors = self._respondents().workload, RangeErrors()
        parts = {"ranges": workload.ranges, "truth": workload.truth, "volume": workload.volume}
        errors.add({k: torch.from_numpy(part) for k, part in parts.items()}, self.estimates())
        return errors.means()

    def _log(self, stage: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            shown = stage == "test" and bool(self.trainer.loggers)
            self.log(f"{stage}/{name}", value, logger=shown)

    def _last_for_all_rounds(self) -> None:
        """Make the training as long as the survey, since part of a survey is worth nothing."""
        rounds, trainer = max(1, self.rounds), self.trainer
        if trainer.max_epochs not in (-1, None, rounds) or trainer.max_steps not in (-1, rounds):
            warnings.warn(
                f"a survey always takes all of its rounds, here {rounds}: trainer.max_epochs and "
                "trainer.max_steps do not shorten it",
                stacklevel=2,
            )
        trainer.fit_loop.max_epochs = rounds
        trainer.fit_loop.epoch_loop.max_steps = -1

    def _stream(self, *key: int) -> np.random.Generator:
        """A generator that is a pure function of the seed and the key."""
        return np.random.default_rng(np.random.SeedSequence((len(key), self.seed, *key)))

    def _respondents(self) -> Respondents:
        data: Respondents = self.trainer.datamodule  # type: ignore[attr-defined]
        return data


def _entry(state: object, name: str, kind: type) -> Any:
    """An entry of a checkpoint's state; raises UserError if it is missing."""
    entry = state.get(name) if isinstance(state, dict) else None
    if not isinstance(entry, kind):
        raise UserError("the checkpoint holds no survey: use an earlier one")
    return entry


def _listed(rounds: object) -> object:
    """The rounds with their counts as lists; anything else is returned as it is, to be refused."""
    if not isinstance(rounds, list):
        return rounds
    return [
        {key: part.tolist() if isinstance(part, Tensor) else part for key, part in entry.items()}
        if isinstance(entry, dict)
        else entry
        for entry in rounds
    ]
