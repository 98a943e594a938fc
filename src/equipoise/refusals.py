"""What a class says when it refuses its values, as one sentence for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import InstantiationException

from equipoise.errors import RunFailed, RunInterrupted, UserError

LONGEST = 300
ADVICE = {
    "backend found": "choose strategy=auto or strategy=cpu",
    "`enable_progress_bar=False`": "add callbacks.progress=null",
    "`enable_checkpointing=False`": "add callbacks.checkpoint_best=null "
    "callbacks.checkpoint_last=null",
    "out of memory": "choose smaller sizes, or another device",
    "can't allocate memory": "choose smaller sizes",
}
"""What to do about messages of other libraries that do not say so."""


@contextmanager
def refusals(key: str) -> Iterator[None]:
    """Turn whatever is raised while a part is built into a UserError that names its key.

    Every class has exceptions of its own for values that it does not take: Lightning its
    MisconfigurationException, torch RuntimeError, W&B UsageError. All of them mean that what was
    typed cannot be built; HYDRA_FULL_ERROR=1 shows where.
    """
    try:
        yield
    except (RunFailed, RunInterrupted):
        raise
    except InstantiationException as error:
        raise _refused(key, error.__cause__ or error) from error
    except Exception as error:
        raise _refused(key, error) from error


def _refused(key: str, error: BaseException) -> UserError:
    said = sentence(error)
    return UserError(said if said.startswith(key) else f"{key}: {said}")


def sentence(error: BaseException) -> str:
    """The first sentence or two of what an exception says, on one line."""
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({str(error).strip() or 'as much as was asked for'})"
    words = " ".join(str(error).split())
    if not words or isinstance(error, KeyError):
        words = f"{type(error).__name__} {words}".strip()
    if len(words) > LONGEST:
        words = words[:LONGEST].rsplit(" ", 1)[0] + " …"
    advice = next((advice for part, advice in ADVICE.items() if part in words), "")
    return f"{words.rstrip('!.')}: {advice}" if advice else words
