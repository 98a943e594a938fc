"""`push` into a folder, and to a hub that is a small server here."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import HfApi, ModelCard

import equipoise
from equipoise import commands
from equipoise.commands.push import publish
from equipoise.errors import UserError
from equipoise.running.api import run

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
COMMAND = re.compile(r"^python -m equipoise (.*)$", re.MULTILINE)
NAME = "somebody/small-digits"
FILES = {"README.md", "config.json", "metrics.json", "model.safetensors"}


class Hub(HTTPServer):
    """What a client needs to create a repository and to commit files to it.

    answer: the status of the answer to its creation.
    """

    def __init__(self, answer: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.answer = answer
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}


class Requests(BaseHTTPRequestHandler):
    """Its answers."""

    server: Hub

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(sent))
            self.reply({"url": f"{self.server.address}/{NAME}"}, self.server.answer)
        elif "/preupload/" in self.path:
            files = json.loads(sent)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            self.reply({"files": modes})
        elif "/commit/" in self.path:
            for entry in map(json.loads, sent.splitlines()):
                if entry["key"] == "file":
                    value = entry["value"]
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
            self.reply(
                {
                    "commitUrl": f"{self.server.address}/{NAME}/commit/{'0' * 40}",
                    "commitOid": "0" * 40,
                }
            )
        else:
            self.reply({"errors": [], "warnings": []})  # of the check of a card

    def do_GET(self) -> None:
        self.reply({"id": NAME, "sha": "0" * 40, "siblings": []})

    def reply(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def client(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.address, token="hf_test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push") / "run"
    run("debug=smoke", "model=resnet", f"run_dir={folder}", "logger=none")
    return folder


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    folder = trained.parent / "exported"
    assert commands.run(["export", str(trained), str(folder), "licence=mit"]) == 0
    return folder


def test_a_run_is_published_in_a_folder(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "published"
    assert commands.run(["push", str(trained), str(target), "licence=apache-2.0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(target)
    assert {file.name for file in target.iterdir()} == FILES
    assert ModelCard.load(target / "README.md").data.license == "apache-2.0"
    assert equipoise.load(target).choices["model"] == "resnet"


def test_an_exported_folder_is_published_as_it_is(exported: Path, tmp_path: Path) -> None:
    (exported / "extra.txt").write_text("of the user")
    assert commands.run(["push", str(exported), str(tmp_path / "published")]) == 0
    for file in exported.iterdir():
        assert (tmp_path / "published" / file.name).read_bytes() == file.read_bytes()


def test_the_hub_gets_every_file(exported: Path, hub: Hub) -> None:
    assert publish(exported, NAME, True, False, client(hub)).endswith(NAME)
    assert hub.created[0] | {"organization": "somebody"} == hub.created[0]
    assert hub.created[0]["name"] == "small-digits"
    assert hub.created[0].get("private") or hub.created[0].get("visibility") == "private"
    assert hub.files == {file.name: file.read_bytes() for file in exported.iterdir()}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "does not accept your token: run hf auth login"),
        (403, f"your token may not write to {NAME}"),
        (404, "knows no user or organisation somebody"),
        (409, f"{NAME} exists on the hub: choose another name, or add to it with overwrite"),
        (500, f"refuses {NAME}"),
    ],
)
def test_a_refusal_of_the_hub_is_told(status: int, said: str, exported: Path, hub: Hub) -> None:
    hub.answer = status
    with pytest.raises(UserError, match=re.escape(said)):
        publish(exported, NAME, False, False, client(hub))
    assert not hub.files


def test_a_repository_that_exists_is_added_to(exported: Path, hub: Hub) -> None:
    hub.answer = 409
    with pytest.raises(UserError):
        publish(exported, NAME, False, False, client(hub))
    publish(exported, NAME, False, True, client(hub))
    assert set(hub.files) >= FILES


def test_without_a_network_it_says_so(exported: Path, hub: Hub) -> None:
    there = client(hub)
    hub.shutdown()
    hub.server_close()
    with pytest.raises(UserError, match=r"cannot be reached .*: try again with a network, or give"):
        publish(exported, NAME, False, False, there)


@pytest.mark.parametrize("name", ["some body/x", "so..me/x", "a-/b"])
def test_what_is_no_name_is_told(name: str, exported: Path, hub: Hub) -> None:
    with pytest.raises(UserError, match="cannot be a name on the hub"):
        publish(exported, name, False, False, client(hub))


def test_who_is_not_logged_in_is_told(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="run hf auth login, or set HF_TOKEN"):
        commands.run(["push", str(exported), NAME])


def test_the_commands_and_programs_of_the_page_run(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text()
    lines = COMMAND.findall(page)
    assert len(lines) == 5
    for line in lines:
        words = line.replace("<run>", str(trained)).replace("<user>", ".")
        # the network of this run has no layer, so that the page's formats cost little here
        assert commands.run(words.split()) == 0
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, {})


def test_a_folder_that_exists_is_kept(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="exists: name another folder, or add to it with overwrite"):
        commands.run(["push", str(exported), str(tmp_path)])
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert commands.run(["push", str(exported), str(tmp_path), "overwrite"]) == 0
    assert {file.name for file in tmp_path.iterdir()} >= FILES | {"file"}
