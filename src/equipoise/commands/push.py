"""Publish a trained model on the Hugging Face hub, or in a folder of its layout."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.commands.export import MODELS, Request, check, export, operands_and_settings
from equipoise.commands.export import SETTINGS as OF_EXPORT
from equipoise.commands.stored_model import read_settings
from equipoise.data.folders import is_local
from equipoise.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

COMMAND = "push"
USAGE = "%(prog)s <run, checkpoint or exported folder> <hub name> [setting=value ...]"
SETTINGS = f"""the hub name is <user or organisation>/<name>; a path such as ./published/ is
written to instead

  private              only those with access see it
  overwrite            add to a repository of that name, or a folder, that exists

{OF_EXPORT.partition("  overwrite")[0]}
An exported folder is published as it is. Log in once with: hf auth login

  python -m equipoise push runs/digits/mdeq/<time> somebody/mdeq-digits licence=mit
"""


@dataclass
class PushRequest(Request):
    """The settings of an export, and who may see it."""

    private: bool = False


def main(words: Sequence[str]) -> int:
    """Publish the model and print where it is; returns 0. Raises UserError."""
    operands, settings = operands_and_settings(words)
    request = read_settings(
        COMMAND, PushRequest(), settings, str(__doc__).splitlines()[0], SETTINGS, usage=USAGE
    )
    check(COMMAND, request, operands, "hub name")
    with exported(request) as folder:
        print(publish(folder, operands[0], request.private, request.overwrite))
    return 0


@contextmanager
def exported(request: PushRequest) -> Iterator[Path]:
    """The named exported folder, or a temporary one exported from a run."""
    source = Path(request.ckpt_path)
    if any((source / file).is_file() for file in MODELS):
        yield source
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "exported"
        export(request, folder)
        yield folder


def publish(
    folder: Path, name: str, private: bool, overwrite: bool, client: HfApi | None = None
) -> str:
    """Upload a folder, or copy it where `name` is a path; returns where it can be found.

    client: the hub's; by default that of the logged-in account. Raises UserError.
    """
    if is_local(name):
        return copied(folder, Path(name), overwrite)
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    client = client or logged_in()
    try:
        place = client.create_repo(name, private=private, exist_ok=overwrite)
        client.upload_folder(
            repo_id=place.repo_id, folder_path=folder, commit_message=f"Upload {folder.name}"
        )
    except HFValidationError as error:
        raise UserError(
            f"'{name}' cannot be a name on the hub ({_line(error)}): use <user>/<name> of letters, "
            "digits, -, _ and ."
        ) from error
    except HfHubHTTPError as error:
        raise UserError(_refusal(name, error.response.status_code, _line(error))) from error
    except (OSError, HTTPError) as error:  # errors of the transport
        raise UserError(
            f"the Hugging Face hub cannot be reached ({_line(error)}): try again with a network, "
            "or give a path such as ./published/ instead of the name"
        ) from error
    return str(place)


def copied(folder: Path, target: Path, overwrite: bool) -> str:
    """Copy the files of a folder into another. Raises UserError where that cannot be done."""
    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not overwrite):
        raise UserError(f"{target} exists: name another folder, or add to it with overwrite")
    try:
        shutil.copytree(folder, target, dirs_exist_ok=True)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from error
    return str(target)


def logged_in() -> HfApi:
    """The client of the account whose token this machine has. Raises UserError without one."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise UserError(
            "nobody is logged in to the Hugging Face hub: run hf auth login, or set HF_TOKEN"
        )
    return HfApi()


def _refusal(name: str, status: int, said: str) -> str:
    """The meaning of the hub's status code here."""
    reasons = {
        401: "the Hugging Face hub does not accept your token: run hf auth login",
        403: f"your token may not write to {name}: use a token with write access, and a name of "
        "your own user or organisation",
        404: f"the Hugging Face hub knows no user or organisation {name.partition('/')[0]}: use "
        "one of your own",
        409: f"{name} exists on the hub: choose another name, or add to it with overwrite",
    }
    return reasons.get(status, f"the Hugging Face hub refuses {name} ({said}): try again later")


def _line(error: Exception) -> str:
    """The first line of another library's error."""
    text: Any = str(error).strip() or type(error).__name__
    return str(text).splitlines()[0].rstrip(".")
