"""The space of a search: parameters, and the choices of groups that fit together.

Nothing here knows Optuna: a callable draws the value of each parameter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep
from hydra.errors import HydraException

from equipoise.errors import UserError

DIGITS = 6
"""Significant digits of a drawn number: more would only lengthen the tables."""
MOST_POINTS = 100_000
Point = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """The values from which one setting is drawn.

    word: the key as the command line writes it. values: the choices, as the command line writes
    them. low, high: the ends of a range, both included. step: the distance between values, if any.
    together: for several groups whose choices do not all fit together, the overrides that each of
    the values stands for.
    """

    word: str
    kind: Literal["choice", "int", "float"]
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    together: tuple[tuple[str, ...], ...] = ()

    @property
    def name(self) -> str:
        """The key, without `+` or `++`."""
        return self.word.lstrip("+")

    def lines(self, value: Any) -> tuple[str, ...]:
        """The overrides that set a drawn value, a number with `DIGITS` digits."""
        if self.together:
            return self.together[self.values.index(value)]
        text = f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)
        return (f"{self.word}={text}",)

    @property
    def ends(self) -> tuple[str, str]:
        """The overrides of the first and the last value of one setting."""
        first, last = (
            (self.values[0], self.values[-1]) if self.kind == "choice" else (self.low, self.high)
        )
        return self.lines(first)[0], self.lines(last)[0]

    def listed(self) -> list[Any]:
        """All values. Raises UserError for a number without a step."""
        if self.kind == "choice":
            return list(self.values)
        if self.step is None:
            raise UserError(
                f"sweep.sampler=grid needs values of {self.name}, not an interval: list some, such "
                f"as {self.name}={self.low:g},{self.high:g}, or choose another sampler"
            )
        count = round((self.high - self.low) / self.step) + 1
        return [self.low + place * self.step for place in range(count)]


@dataclass(frozen=True)
class Case:
    """Choices of the searched groups, and the settings searched with them."""

    lines: tuple[str, ...]
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Space:
    """The whole space of a search.

    fixed: the overrides that all jobs share. groups: the parameters that choose the case.
    """

    fixed: tuple[str, ...]
    groups: tuple[Parameter, ...]
    cases: tuple[Case, ...]

    def draw(self, suggest: Callable[[Parameter], Any]) -> list[str]:
        """The overrides of a job, with the value suggested for each of its parameters."""
        chosen = tuple(line for group in self.groups for line in group.lines(suggest(group)))
        case = next(case for case in self.cases if set(case.lines) == set(chosen))
        drawn = [
            line for parameter in case.parameters for line in parameter.lines(suggest(parameter))
        ]
        return [*self.fixed, *chosen, *drawn]

    def job(self) -> list[str]:
        """The overrides of one job, with the first value of every parameter."""
        case = self.cases[0]
        return [*self.fixed, *case.lines, *(parameter.ends[0] for parameter in case.parameters)]

    @property
    def parameters(self) -> dict[str, Parameter]:
        """All parameters by name."""
        every = [*self.groups, *(p for case in self.cases for p in case.parameters)]
        return {parameter.name: parameter for parameter in every}

    @property
    def shared(self) -> list[str]:
        """The keys that every job draws, as the command line writes them."""
        of_all = set.intersection(*({p.word for p in case.parameters} for case in self.cases))
        return [*(line.partition("=")[0] for line in self.cases[0].lines), *sorted(of_all)]

    def points(self) -> Iterator[Point]:
        """Every point of a space of values, by the names of its parameters. Raises UserError."""
        for values in itertools.product(*(group.values for group in self.groups)):
            lines = {
                line
                for group, v in zip(self.groups, values, strict=True)
                for line in group.lines(v)
            }
            case = next(case for case in self.cases if set(case.lines) == lines)
            chosen = {group.name: v for group, v in zip(self.groups, values, strict=True)}
            for drawn in itertools.product(*(p.listed() for p in case.parameters)):
                names = (parameter.name for parameter in case.parameters)
                yield chosen | dict(zip(names, drawn, strict=True))


def as_space(
    fixed: Sequence[str], groups: Sequence[Parameter], cases: Sequence[Case], refused: bool
) -> Space:
    """A space of the cases that can run; refused: whether any other was refused."""
    if not refused:
        return Space(tuple(fixed), tuple(groups), tuple(cases))
    labels = tuple(", ".join(line.partition("=")[2] for line in case.lines) for case in cases)
    name = "+".join(group.word for group in groups)
    joint = Parameter(name, "choice", labels, together=tuple(case.lines for case in cases))
    return Space(tuple(fixed), (joint,), tuple(cases))


def parameter_of(override: Override) -> Parameter:
    """The parameter that a sweep on the command line means. Raises UserError."""
    word, value, line = override.get_key_element(), override.value(), override.input_line
    if isinstance(value, IntervalSweep):
        return _of_interval(word, value, line)
    if isinstance(value, ChoiceSweep) and any(isinstance(entry, Sweep) for entry in value.list):
        raise UserError(f"{line}: a sweep cannot contain another one: list all values")
    try:
        values = list(itertools.islice(override.sweep_iterator(), MOST_POINTS))
        texts = tuple(itertools.islice(override.sweep_string_iterator(), MOST_POINTS))
    except (HydraException, ValueError) as error:
        raise UserError(f"cannot read {line}: {error}") from error
    if not texts:
        raise UserError(f"{line} lists no values")
    if isinstance(value, RangeSweep) and not value.shuffle and len(values) > 1:
        return _of_range(word, values, "log" in value.tags, line)
    return Parameter(word, "choice", tuple(dict.fromkeys(texts)))


def _of_interval(word: str, interval: IntervalSweep, line: str | None) -> Parameter:
    low, high, log = interval.start, interval.end, "log" in interval.tags
    assert low is not None
    assert high is not None
    ordered = math.isfinite(low) and math.isfinite(high) and low < high
    if not ordered or (log and low <= 0):
        least = " above 0" if log else ""
        raise UserError(f"{line}: an interval{least} goes from a smaller number to a larger one")
    whole = isinstance(low, int) and isinstance(high, int)
    return Parameter(word, "int" if whole else "float", low=low, high=high, log=log)


def _of_range(word: str, values: Sequence[Any], log: bool, line: str | None) -> Parameter:
    """A range from its first value to its last, which is before the typed end."""
    if log:
        raise UserError(f"{line}: a logarithmic range is an interval: tag(log,interval(a,b))")
    low, high = sorted((values[0], values[-1]))
    kind: Literal["int", "float"] = "int" if all(isinstance(v, int) for v in values) else "float"
    return Parameter(word, kind, low=low, high=high, step=abs(values[1] - values[0]))


def described(parameters: Mapping[str, Parameter]) -> dict[str, str]:
    """Each parameter in a few words, for a record of the search."""
    return {name: _in_words(parameter) for name, parameter in parameters.items()}


def _in_words(parameter: Parameter) -> str:
    if parameter.kind == "choice":
        return " | ".join(parameter.values)
    step = "" if parameter.step is None else f" in steps of {parameter.step:g}"
    log = ", logarithmic" if parameter.log else ""
    return f"{parameter.low:g} to {parameter.high:g}{step}{log}"
