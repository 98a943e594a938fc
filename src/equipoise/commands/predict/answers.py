"""Answers of a finished survey to a file of conditions, one a line."""

from __future__ import annotations

from equipoise.commands.predict.job import Job
from equipoise.commands.predict.table import Column, whole_table
from equipoise.commands.query import attributes_of, estimate_of, read_ranges, written
from equipoise.commands.translate import lines_of
from equipoise.config.recompose import trusted_packages
from equipoise.config.signatures import check_targets
from equipoise.errors import UserError

SETTINGS = frozenset[str]()


def predict(job: Job) -> str:
    """Write the answer to each condition with its standard error; returns a line that counts them.

    An answer is a fraction of the people, and their number. Raises UserError where a condition
    cannot be read, naming its line, or the survey is not finished.
    """
    content, stored = job.checkpoint
    check_targets(stored.config, trusted_packages(stored, job.request.trust))
    file = job.only_file('of conditions such as "age in [30, 40)", one a line')
    attributes, people = attributes_of(stored), int(stored.config["task"]["users"])
    asked = []
    for line in (line for line in lines_of(file) if line.text):
        try:
            asked.append(read_ranges(line.text, attributes))
        except UserError as error:
            raise UserError(f"line {line.number} of {file}: {error}") from error
    with whole_table(job.target, job.request.overwrite) as table:
        estimate = estimate_of(stored, content["state_dict"])
        answers = [estimate.query(*ranges) for ranges in asked]
        values = [value for value, _ in answers]
        errors = [error for _, error in answers if error is not None]
        columns: dict[str, Column] = {
            "condition": [written(ranges, attributes) for ranges in asked],
            "fraction": values, "people": [value * people for value in values],
        }  # fmt: skip
        if len(errors) == len(asked):
            columns["standard_error"] = errors
            columns["people_error"] = [error * people for error in errors]
        table.add(columns)
    return f"{len(asked):,} conditions on {people:,} people"
