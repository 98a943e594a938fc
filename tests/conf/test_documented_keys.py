"""Each key of `conf/` is documented where it stands.

A comment stands behind the key or directly above it. None is needed by a key that only opens a
mapping, by one that takes another setting (`${task.classes}`), by one that the file of what several
choices share (`_common`) documents, by the facts under `about:`, which docs/configuration.md lists,
and by a value for a key of another choice: recipes, experiments, sweeps and what a file sets in
other groups.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from equipoise.config.about import OBLIGATORY, OPTIONAL
from equipoise.config.hydra import CONF

OF_OTHERS = {"recipe", "experiment", "debug", "sweep"}
KEY = re.compile(r"(?P<indent> *)(?:- )?(?P<key>[\w@./-]+):(?P<rest>( .*)?)$")
FREE = {"_target_", "_partial_", "defaults"}
FILES = sorted(CONF.rglob("*.yaml"))


def written_keys(file: Path) -> list[tuple[str, str, bool]]:
    """Dotted key, value and whether a comment stands by it, of every line with a key."""
    found, above, path = [], False, list[tuple[int, str]]()
    for line in file.read_text().splitlines():
        match = KEY.match(line)
        if match:
            depth = len(match["indent"])
            path = [(d, name) for d, name in path if d < depth] + [(depth, match["key"])]
            value, mark, _ = match["rest"].partition(" #")
            key = ".".join(name for _, name in path)
            found.append((key, value.strip(), bool(mark) or above))
        above = line.lstrip().startswith("#")
    return found


def shared_keys(file: Path) -> set[str]:
    """The keys that the files document which this one builds on."""
    defaults = (yaml.safe_load(file.read_text()) or {}).get("defaults") or []
    names = [entry for entry in defaults if isinstance(entry, str) and entry.startswith("_")]
    files = [file.parent / f"{name}.yaml" for name in names if name != "_self_"]
    return {key for shared in files if shared.is_file() for key in documented(shared)}


def documented(file: Path) -> set[str]:
    """The keys of a file that are documented in it or in what it builds on, below its own node."""
    own = {key.removeprefix(f"{file.parent.name}.") for key, _, told in written_keys(file) if told}
    return own | shared_keys(file)


def undocumented(file: Path) -> list[str]:
    group, shared, missing = file.parent.name, shared_keys(file), []
    is_global = "# @package _global_" in file.read_text()
    for full, value, told in written_keys(file):
        key = full.removeprefix(f"{group}.") if is_global else full
        names = full.split(".")
        elsewhere = is_global and names[0] != group
        opens = not value or value.startswith("&")
        taken = re.fullmatch(r"\$\{[\w.]+\}", value)
        if told or elsewhere or opens or taken or key in shared or "about" in names:
            continue
        if names[-1] not in FREE and names[0] != "defaults":
            missing.append(key)
    return missing


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(CONF).as_posix())
def test_each_key_is_documented_where_it_stands(file: Path) -> None:
    first = next(line for line in file.read_text().splitlines() if "@package" not in line)
    assert first.startswith("# ")
    if file.parent.name not in OF_OTHERS:
        assert not undocumented(file)


def test_what_a_file_tells_about_its_choice_is_documented() -> None:
    page = (CONF.parent / "docs" / "configuration.md").read_text()
    for kinds in (OBLIGATORY, OPTIONAL):
        for group, entries in kinds.items():
            missing = [name for name in entries if f"`{name}`" not in page]
            assert not missing, f"{group}: {missing}"


def test_a_key_without_a_comment_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "solver"
    folder.mkdir()
    (folder / "_common.yaml").write_text("# What all take\ntol: 1.0 # the residual\n")
    text = "# One\ndefaults:\n  - _common\n\ntol: 0.5\nsteps: 3\n# of it\nrest: 1\na: # x\n  b: 1\n"
    (folder / "one.yaml").write_text(text)
    assert undocumented(folder / "one.yaml") == ["steps", "a.b"]
