"""From a survey's question to the description that clients read."""

from __future__ import annotations

import numpy as np

from equipoise.privacy.round import RoundDescription
from equipoise.privacy.survey import Survey


def describe(survey: Survey, index: int, task: str, expires: int = 0) -> RoundDescription:
    """What clients are told about a round; raises RoundError where a report would be too wide."""
    question = survey.question(index)
    boxes = np.stack((question.low, question.high), axis=2).tolist()
    description = RoundDescription(
        task=task,
        round=index,
        rounds=survey.rounds,
        epsilon=survey.epsilon,
        randomizer=question.randomizer.name,
        outputs=question.randomizer.outputs,
        domain=survey.domain,
        attributes=question.attributes,
        cells=tuple(tuple((low, high) for low, high in box) for box in boxes),
        expires=expires,
    )
    description.check()
    return description
