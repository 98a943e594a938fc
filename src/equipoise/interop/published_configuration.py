"""Published configurations, read by their own keys, and turned into command-line overrides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

from equipoise.errors import UserError

DATASETS = {"wt103": "wikitext103", "wt2": "wikitext2", "ptb": "ptb", "char-ptb": "ptb_char"}
VOCABULARIES = {267735: "wikitext103", 33278: "wikitext2", 10000: "ptb"}


class DoesNotFit(UserError, ValueError):
    """A configuration or weights that are not what they should be; the message says why."""


class PublishedConfiguration:
    """The arguments of a published training script, by their names, however deeply nested."""

    example = "d_model"

    def __init__(self, config: Mapping[str, Any], model: str) -> None:
        """Read the `config` of a `model`; raises DoesNotFit if it is not a mapping."""
        if not isinstance(config, Mapping):
            raise DoesNotFit(
                f"a published configuration is a mapping of keys such as {self.example}"
            )
        self.model = model
        self.values = dict(self.leaves(config))

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def leaves(self, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield every value under its own key, without the keys of enclosing mappings."""
        for key, value in node.items():
            if isinstance(value, Mapping):
                yield from self.leaves(value)
            else:
                yield str(key).removeprefix("--"), value

    def get(self, key: str, default: Any) -> Any:
        """The value of `key`, or `default` where it is missing or null."""
        return self.values[key] if key in self else default

    def first(self, keys: Sequence[str]) -> Any:
        """The value of the first of several synonyms; None if that is missing."""
        return next((self.values[key] for key in keys if key in self), None)

    def need(self, key: str) -> Any:
        """The value of `key`; raises DoesNotFit if it is missing."""
        if key not in self:
            raise DoesNotFit(
                f"the configuration of a published {self.model} needs {key}, but lacks it"
            )
        return self.values[key]

    def whole(self, keys: Sequence[str], otherwise: int | None) -> int:
        """A number above 0: that of the first of several synonyms.

        Raises DoesNotFit if it is not such a number, or neither the words nor `otherwise` give one.
        """
        given = self.first(keys)
        value = otherwise if given is None else given
        if value is None:
            return int(self.need(keys[0]))
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise DoesNotFit(f"{keys[0]} is {value}; it must be a whole number, at least 1")
        return int(value)

    def rate(self, keys: Sequence[str], otherwise: float) -> float:
        """A probability, by the first of several words. Raises DoesNotFit if it is not one."""
        given = self.first(keys)
        value = otherwise if given is None else given
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise DoesNotFit(f"{keys[0]} is {value}; it must be a probability, from 0 to 1")
        return float(value)

    def flag(self, key: str, otherwise: bool) -> bool:
        """True or False. Raises DoesNotFit if it is neither."""
        value = self.get(key, otherwise)
        if not isinstance(value, bool):
            raise DoesNotFit(f"{key} is {value}; choose true or false")
        return value


def token_lines(
    model: str, published: PublishedConfiguration, arguments: Mapping[str, Any]
) -> list[str]:
    """The overrides for a model of tokens with these arguments, and for its task.

    The task is given by the configuration's dataset, or else by the vocabulary's size.
    """
    settings = dict(arguments)
    vocabulary = settings.pop("vocabulary")
    dataset = str(published.get("dataset", "")).lower()
    task = DATASETS.get(dataset, VOCABULARIES.get(vocabulary, "text_folder"))
    return [
        f"task={task}",
        f"model={model}",
        f"task.vocabulary={vocabulary}",
        *setting_lines("model", settings),
    ]


def setting_lines(place: str, settings: Mapping[str, Any]) -> list[str]:
    """The overrides for settings below the key `place`."""
    return [f"{place}.{name}={as_typed(value)}" for name, value in settings.items()]


def as_typed(value: Any) -> str:
    """A value in the command line's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    return str(value)
