"""The report's page and TensorBoard in a real browser: Chromium draws what a run has left."""

from __future__ import annotations

import html
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import equipoise
from tests.end_to_end.conftest import SMALL

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(BROWSER is None, reason="no browser: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
]
SIZE = (1200, 9000)
BOXES = """<pre id="boxes"></pre><script>
addEventListener("load", () => {
  const boxes = [...document.images].map((image) => {
    const { x, y, width, height } = image.getBoundingClientRect();
    return [image.naturalWidth, x, y + scrollY, width, height].map(Math.round);
  });
  document.getElementById("boxes").textContent = JSON.stringify(boxes);
});
</script>"""
SOLVER = ("solver/nfe", "solver/residual_median", "solver/converged_fraction")
CURVE = np.array([66, 80, 102])
"""The colour in which TensorBoard draws its first run."""
Picture = NDArray[np.int64]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "run"
    equipoise.run(
        *SMALL, "logger=[csv,tensorboard]", "trainer.max_epochs=2", "gradient=jfb", "strategy=cpu",
        "task.batch_size=128", "~callbacks.progress", "trainer.enable_progress_bar=false",
        f"run_dir={folder}",
    )  # fmt: skip
    return folder


def browse(address: str, folder: Path, *flags: str) -> str:
    """What Chromium prints of a page, its scripts run for some seconds of its own time."""
    assert BROWSER is not None
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=15000",
        *flags, address,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def screenshot(address: str, folder: Path, size: tuple[int, int]) -> Picture:
    file = folder / "screenshot.png"
    browse(address, folder, f"--window-size={size[0]},{size[1]}", f"--screenshot={file}")
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB")).astype(np.int64)


def test_the_report_shows_its_pictures(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    text = (run / "report" / "index.html").read_text()
    page.write_text(text.replace("</body>", f"{BOXES}</body>"))
    window = f"--window-size={SIZE[0]},{SIZE[1]}"
    dom = browse(page.as_uri(), tmp_path, window, "--dump-dom")
    found = re.search(r'<pre id="boxes">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None
    boxes = json.loads(html.unescape(found[1]))
    drawn = {file.stem for file in (run / "report").glob("*.png")}
    assert {"loss", "residual", "nfe", "converged", "convergence"} <= drawn
    assert len(boxes) == len(drawn)
    shown = screenshot(page.as_uri(), tmp_path, SIZE)
    for natural, x, y, width, height in boxes:
        assert natural > 100
        assert not is_blank(shown[y : y + height, x : x + width])
    assert is_blank(shown[-50:, :50])  # below the page


def is_blank(part: Picture) -> bool:
    """Whether a part of a screenshot has nothing on it."""
    assert part.size
    return len(np.unique(part.reshape(-1, 3), axis=0)) < 10


@pytest.fixture
def board(run: Path) -> Iterator[str]:
    """The address of a TensorBoard on the run's folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run), "--host",
               "127.0.0.1", "--port", str(port)]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/data/plugin/scalars/tags", server)
        yield address
    finally:
        server.terminate()
        server.wait()


def wait_for(address: str, server: subprocess.Popen) -> None:
    """Wait until TensorBoard has read the run."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                if "solver/nfe" in answer.read().decode():
                    return
        except (urllib.error.URLError, TimeoutError):
            pass
        time.sleep(0.3)
    raise AssertionError("TensorBoard does not answer")


def test_tensorboard_shows_the_solver_curves(board: str, tmp_path: Path) -> None:
    cards = quote(json.dumps([{"plugin": "scalars", "tag": name} for name in SOLVER]))
    address = f"{board}/?pinnedCards={cards}&smoothing=0#timeseries"
    dom = browse(address, tmp_path, "--window-size=1400,2000", "--dump-dom")
    assert [name for name in SOLVER if name not in dom] == []
    shown = pixels_of_curves(screenshot(address, tmp_path, (1400, 2000)))
    nothing = pixels_of_curves(
        screenshot(f"{board}/?tagFilter=no_such_tag#timeseries", tmp_path, (1400, 2000))
    )
    assert shown > nothing + 300 * len(SOLVER)  # curves are about as wide as their cards


def pixels_of_curves(picture: Picture) -> int:
    """How many pixels have the colour of the run's curves."""
    return int((np.abs(picture - CURVE).max(axis=2) < 25).sum())
