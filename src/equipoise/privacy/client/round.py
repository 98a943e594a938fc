"""The description of a round, which the aggregator publishes and every client checks."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise, repeat
from numbers import Integral
from operator import and_, mul
from typing import Literal, get_args

from equipoise.privacy.client.errors import PrivacyError, RoundError

Domain = tuple[int, ...]  # how many values each attribute can take
Box = tuple[tuple[int, int], ...]  # half-open [low, high) along each attribute
RandomizerName = Literal["oue", "grr", "square_wave", "haar_hadamard"]
HASH_BYTES = 8
MOST_ASKED = 64  # more attributes than any method asks for at once
MOST_TEXT = 2**26  # characters of a description, before it is read
MOST_CELLS = 65535  # the report's width is written in 16 bits
LARGEST_EPSILON = 40.0  # e^40 is below 2^58: an integer of 64 bits still tells it from infinity


@dataclass(frozen=True)
class RoundDescription:
    """The question of one round, "Which cell holds your value?", and how to blur the answer.

    domain: sizes of all attributes of a person's value; attributes: those that are asked for;
    cells: boxes that partition the asked attributes' domain; outputs: number of bits of a report;
    expires: seconds since 1970 after which no client answers, 0 for never.
    """

    task: str
    round: int
    rounds: int
    epsilon: float
    randomizer: RandomizerName
    outputs: int
    domain: Domain
    attributes: tuple[int, ...]
    cells: tuple[Box, ...]
    expires: int = 0

    def to_json(self) -> str:
        """The canonical text: the same description always gives the same characters."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> RoundDescription:
        """Read and check a description; raises RoundError where it cannot be trusted."""
        if len(text) > MOST_TEXT:
            raise RoundError(f"The round's description has over {MOST_TEXT:,} characters.")
        try:
            fields = json.loads(text)
            fields["cells"] = tuple(
                tuple((low, high) for low, high in box) for box in fields["cells"]
            )
            fields["domain"], fields["attributes"] = (
                tuple(fields["domain"]),
                tuple(fields["attributes"]),
            )
            description = cls(**fields)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise RoundError(f"The round's description cannot be read: {reason}.") from error
        description.check()
        return description

    def partition_hash(self) -> bytes:
        """8 bytes that a report carries, so that it counts only for exactly this description."""
        return self._hash

    @cached_property
    def _hash(self) -> bytes:
        return hashlib.blake2b(self.to_json().encode(), digest_size=HASH_BYTES).digest()

    def check(self) -> None:
        """Raise RoundError unless the cells are disjoint and cover the asked attributes' domain."""
        try:
            check_epsilon(self.epsilon)
            check_task(self.task)
            self._check_numbers()
        except PrivacyError as error:
            raise RoundError(f"The round's description is wrong: {error}") from error
        if not is_partition(self.cells, self.asked_domain()):
            raise RoundError("The round's cells overlap or leave a part of the domain uncovered.")

    def asked_domain(self) -> Domain:
        """Sizes of the attributes that this round asks for."""
        return tuple(self.domain[attribute] for attribute in self.attributes)

    def locate(self, value: tuple[int, ...]) -> int:
        """Index of the cell that holds a person's value (one integer for each attribute).

        Every edge of every cell is compared, in an order that does not depend on the value.
        """
        holds: Iterable[int] = repeat(1, len(self.cells))
        for attribute, (low, high) in zip(self.attributes, self._edges, strict=True):
            x = value[attribute]
            holds = map(and_, holds, map(and_, map(x.__ge__, low), map(x.__lt__, high)))
        held = list(holds)
        if sum(held) != 1:
            raise RoundError("No cell of the round holds the value.")
        return sum(map(mul, held, range(len(held))))

    @cached_property
    def _edges(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The low and the high edges of all cells, for each asked attribute."""
        sides = [
            list(zip(*(box[axis] for box in self.cells), strict=True))
            for axis in range(len(self.attributes))
        ]
        return [(low, high) for low, high in sides]

    def _check_numbers(self) -> None:
        check_domain(self.domain)
        in_domain = all(is_index(a, len(self.domain)) for a in self.attributes)
        if (
            not in_domain
            or not self.attributes
            or len(set(self.attributes)) != len(self.attributes)
        ):
            raise PrivacyError(
                f"the attributes {self.attributes} are not distinct and in the domain."
            )
        if len(self.attributes) > MOST_ASKED:
            raise PrivacyError(f"a round can ask for {MOST_ASKED} attributes at most.")
        if not is_index(self.rounds, MOST_CELLS + 1):
            raise PrivacyError(f"the number of rounds must be an integer, got {self.rounds!r}.")
        if not is_index(self.round, self.rounds) or not is_index(self.expires, 2**63):
            raise PrivacyError(f"the round {self.round} is not one of {self.rounds}.")
        if self.randomizer not in get_args(RandomizerName):
            raise PrivacyError(f"the randomizer {self.randomizer!r} is unknown.")
        if not self.cells or not is_index(self.outputs, MOST_CELLS + 1):
            raise PrivacyError(f"a report can have 1 to {MOST_CELLS} bits, got {self.outputs}.")
        self._check_outputs()

    def _check_outputs(self) -> None:
        least = len(self.cells)
        exact = self.randomizer in ("oue", "grr")
        fits = self.outputs == least if exact else self.outputs >= least
        if least < 2 or not fits:
            raise PrivacyError(f"{least} cells cannot be reported in {self.outputs} bits.")


def check_domain(domain: int | Sequence[int]) -> Domain:
    """Sizes of the attributes, one integer of at least 2 each; a single integer is one attribute.

    Raises PrivacyError: an attribute with one value has nothing that could be asked.
    """
    sizes = tuple(domain) if isinstance(domain, Iterable) else (domain,)
    if not sizes:
        raise PrivacyError("The domain must name the size of at least one attribute.")
    for size in sizes:
        if not _is_whole(size) or size < 2:
            raise PrivacyError(f"Each attribute needs at least two integer values, got {size!r}.")
    return tuple(int(size) for size in sizes)


def _is_whole(size: object) -> bool:
    """Whether it is an integer (numpy's included) or a float without a fractional part."""
    if isinstance(size, float):
        return size.is_integer()
    return isinstance(size, Integral) and not isinstance(size, bool)


def check_epsilon(epsilon: float) -> float:
    """epsilon as a float in (0, 40]; raises PrivacyError for anything else."""
    if not _is_number(epsilon) or not 0 < epsilon <= LARGEST_EPSILON:
        raise PrivacyError(
            f"epsilon must be a number above 0 and at most {LARGEST_EPSILON:g}, got {epsilon!r}."
        )
    return float(epsilon)


def check_limit(name: str, limit: float) -> float:
    """A bound on epsilon, finite and above 0: with nan or infinity every epsilon would pass.

    Raises PrivacyError for anything else.
    """
    if not _is_number(limit) or not 0 < limit <= sys.float_info.max:
        raise PrivacyError(f"{name} must be a finite number above 0, got {limit!r}.")
    return limit


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_task(task: str) -> str:
    """The name of a task; raises PrivacyError where it cannot be written as UTF-8."""
    if not isinstance(task, str) or not task or not _is_encodable(task):
        raise PrivacyError(f"A task needs a name, a text that is not empty; got {task!r}.")
    return task


def is_index(value: object, below: int) -> bool:
    """Whether value is an integer (not a bool) with 0 <= value < below."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def is_partition(cells: tuple[Box, ...], domain: Domain) -> bool:
    """Whether the boxes are disjoint and cover the whole domain, by slabs of the first axis."""
    if any(len(box) != len(domain) for box in cells):
        return False
    if not all(_is_interval(edge) for box in cells for edge in box[:1]):
        return False
    if len(domain) == 1:
        edges = sorted(box[0] for box in cells)
        inner = all(left[1] == right[0] for left, right in pairwise(edges))
        return bool(edges) and inner and edges[0][0] == 0 and edges[-1][1] == domain[0]
    cuts = sorted({cut for box in cells for cut in box[0]})
    if not cuts or cuts[0] != 0 or cuts[-1] != domain[0]:
        return False
    return all(
        is_partition(
            tuple(box[1:] for box in cells if box[0][0] <= low and high <= box[0][1]), domain[1:]
        )
        for low, high in pairwise(cuts)
    )


def _is_encodable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)  # halves of a pair


def _is_interval(edge: tuple[int, int]) -> bool:
    return is_index(edge[0], 2**63) and is_index(edge[1], 2**63) and edge[0] < edge[1]
