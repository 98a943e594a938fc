"""environment.json: the machine, the software and the data of each start of a run.

It names no user, no host and no folder except typed ones, and only those environment
variables that are in `VARIABLES`, which hold no secrets.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from equipoise.config import machine
from equipoise.config.hydra import flatten
from equipoise.errors import read_json
from equipoise.report.whole import write_whole
from equipoise.running.origin import git, processor, toplevel, tracked_root

FILE = "environment.json"
CHANGES = "changes"
"""The folder beside it with the differences from the commits."""
MOST_CHANGED = 2**20
"""Most bytes of a difference that is kept."""
MOST_HASHED = 64 * 2**20
"""Most bytes of a file that is hashed whole; of a larger one, both ends are hashed."""
END = 2**20
MOST_FILES = 20_000
"""Most files of a folder that are listed."""
MOST_UNTRACKED = 50
SOURCES = ("--", "*.py", "*.yaml", ":!runs", ":!multirun")
"""Git's patterns for the untracked files that are named."""
VARIABLES = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES", "DNNL_MAX_CPU_ISA", "EQUIPOISE_CORES", "GLIBC_TUNABLES",
    "HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "KMP_AFFINITY", "LANG", "LC_ALL",
    "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MKL_CBWR", "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS", "OMP_PROC_BIND",
    "OMP_SCHEDULE", "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED", "PYTHONOPTIMIZE", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TZ", "WANDB_MODE", "WORLD_SIZE",
)  # fmt: skip
"""The only environment variables that are recorded, where they are set."""


def note_start(
    directory: Path, config: Mapping[str, Any], origin: Mapping[str, Any], start: Mapping[str, Any]
) -> None:
    """Add one start of a run to the environment.json of its folder, whole or not at all.

    config: resolved, as plain containers. origin: command, date and revisions. start: the purpose,
    the words that were typed, the step that the run resumes from, the number of processes.
    """
    starts = read_starts(directory)
    entry = {**start, **origin, **surroundings(), "data": fingerprints(config)}
    for name, root in repositories().items():
        entry[name] = changes(root, directory / CHANGES / f"{len(starts)}_{name}.diff")
    write_whole(directory / FILE, json.dumps({"starts": [*starts, entry]}, indent=2) + "\n")


def changes(root: Path, file: Path) -> dict[str, Any]:
    """How a repository differs from its commit; the difference of tracked files goes to `file`.

    A difference too large for a run folder is left out, and only its hash is recorded.
    """
    difference = git(root, "diff", "HEAD", "--binary")
    others = (git(root, "ls-files", "--others", "--exclude-standard", *SOURCES) or "").splitlines()
    told: dict[str, Any] = {"changed": bool(difference), "untracked": others[:MOST_UNTRACKED]}
    if not difference:
        return told
    content = f"{difference}\n".encode(errors="surrogateescape")
    if len(content) <= MOST_CHANGED:
        write_whole(file, content)
        told["difference"] = f"{CHANGES}/{file.name}"
    return {**told, "sha256": hashlib.sha256(content).hexdigest()}


def read_starts(directory: Path) -> list[dict[str, Any]]:
    """The starts of a run, in order; empty where it has kept none that can be read."""
    try:
        starts = read_json(directory / FILE)["starts"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    entries = starts if isinstance(starts, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def surroundings() -> dict[str, Any]:
    """Python, the machine, its threads and devices, variables, and every installed package."""
    return {
        "python": platform.python_version(),
        "implementation": f"{platform.python_implementation()} {platform.python_compiler()}",
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": machine.cores(),
        "threads": torch.get_num_threads(),
        "threads_between_operations": torch.get_num_interop_threads(),
        "gpus": _gpus(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "packages": packages(),
    }


@lru_cache(maxsize=1)
def packages() -> dict[str, str]:
    """The version of every distribution that this Python could import when it was first asked."""
    names = {entry.metadata["Name"]: entry.version for entry in distributions()}
    return dict(sorted((name, number) for name, number in names.items() if name))


def _gpus() -> list[str]:
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def repositories() -> dict[str, Path]:
    """The git repositories of the code, and of the working directory where that is another one."""
    code, project = tracked_root(Path(__file__).parent), toplevel(Path.cwd())
    found = {"code": code, "project": None if project == code else project}
    return {name: root for name, root in found.items() if root is not None}


def fingerprints(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sizes and a hash of every file and folder that a run's settings name, by the setting.

    Bundled data have none: they come with a package or the code, whose versions are recorded.
    """
    named = dict(flatten({key: config.get(key) for key in ("task", "init_from", "ckpt_path")}))
    places = {key: Path(text).expanduser() for key, text in named.items() if _may_be_path(text)}
    return {key: fingerprint(place) for key, place in places.items() if place.exists()}


def _may_be_path(text: Any) -> bool:
    return isinstance(text, str) and ("/" in text or "." in text) and len(text) < 4096


def fingerprint(place: Path) -> dict[str, Any]:
    """Files, bytes and a hash: of a file's content, or of the names and sizes in a folder."""
    digest = hashlib.sha256()
    if place.is_file():
        size = place.stat().st_size
        with place.open("rb") as file:
            digest.update(file.read(MOST_HASHED if size <= MOST_HASHED else END))
            file.seek(max(size - END, 0))
            digest.update(b"" if size <= MOST_HASHED else file.read())
        return {"files": 1, "bytes": size, "sha256": digest.hexdigest()}
    listed = [entry for entry, _ in zip(_files(place), range(MOST_FILES + 1), strict=False)]
    for name, size in listed[:MOST_FILES]:
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
    return {
        "files": min(len(listed), MOST_FILES),
        "more_files": len(listed) > MOST_FILES,
        "bytes": sum(size for _, size in listed[:MOST_FILES]),
        "sha256_of_names_and_sizes": digest.hexdigest(),
    }


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """Names and sizes of the files in and below a folder, always in the same order."""
    for parent, inner, names in os.walk(folder):
        inner.sort()
        for name in sorted(names):
            file = Path(parent) / name
            if file.is_file():
                yield file.relative_to(folder).as_posix(), file.stat().st_size


def differences(
    then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """What differs between two starts, by its dotted name: the values then and now."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*then, *(key for key in now if key not in then)]:
        one, two = then.get(key), now.get(key)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            found |= differences(one, two, f"{prefix}{key}.")
        elif one != two:
            found[f"{prefix}{key}"] = (one, two)
    return found
