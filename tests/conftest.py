"""What all tests share: a key of the tests' own, so that none is written into the user's home."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A time limit for each example would fail on a machine that is busy with something else.
settings.register_profile("shared machine", settings(), deadline=None)
settings.load_profile("shared machine")


@pytest.fixture(autouse=True, scope="session")
def state_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> pytest.MonkeyPatch:
    """`$XDG_STATE_HOME` is a folder of the tests."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    yield patch
    patch.undo()
