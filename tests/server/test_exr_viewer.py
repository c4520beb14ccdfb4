"""ComfyUI's own HDR viewer, which frontends newer than the host's have, opens what Save HDR (EXR) writes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gm_core.codecs.exr import encode_exr
from gm_core.codecs.files import read_image
from gm_core.color import convert_primaries, linear_to_srgb
from scripts.comfy_client import run_workflow
from scripts.comfy_server import Server
from scripts.workflow import Workflow
from tests.server.pages import NEWER_HTML, open_page

CELLS, CELL = (3, 4), 16
OPEN = "graph => window.app.loadApiJson(graph, 'viewer')"
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
# The viewer finds pixels where its last frame drew them: none before the first, others while it opens.
SETTLED = """async () => {
  const frame = () => new Promise(requestAnimationFrame)
  const canvas = document.querySelector("[data-testid=hdr-viewer-canvas] canvas")
  const place = () => JSON.stringify(canvas.getBoundingClientRect())
  const before = place()
  for (let count = 0; count < 10; count++) await frame()
  return place() === before
}"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def saved(newer_server: Server) -> Path:
    """Flat cells from 0.002 to 90 as Save HDR (EXR) stores them, with layers and alpha."""
    cells = np.exp2(np.random.default_rng(0).uniform(-9, 6.5, (*CELLS, 3))).astype(np.float32)
    picture = np.kron(cells, np.ones((CELL, CELL, 1), np.float32))
    (newer_server.base / "input/source.exr").write_bytes(encode_exr(picture, primaries="bt2020"))
    load = {"image": "source.exr", "convert_to": "bt709"}
    save = {"hdr": ["1", 0], "sdr": ["1", 1], "gain_map": ["1", 2], "qmax": ["1", 3], "mask": ["1", 4]}
    save |= {"filename_prefix": "viewer", "bit_depth": "float", "compression": "zip", "white_nits": 203.0}
    save |= {"primaries": "bt709", "save_as": "bt2020"}
    graph = {
        "1": {"class_type": "GMHDRLoadHDR", "inputs": load},
        "2": {"class_type": "GMHDRSaveEXR", "inputs": save},
    }
    path = run_workflow(newer_server, Workflow(graph)).file("GMHDRSaveEXR")
    (newer_server.base / "input/saved.exr").write_bytes(path.read_bytes())
    return path


@pytest.fixture(scope="module")
def viewer(newer_server: Server, saved: Path, browser: Any) -> Iterator[Any]:
    """The page with the saved file open in the viewer."""
    graph = {"1": {"class_type": "GMHDRLoadHDR", "inputs": {"image": "saved.exr", "convert_to": "bt709"}}}
    with open_page(browser, newer_server, NEWER_HTML, (1200, 800)) as opened:
        page = opened.driver
        page.evaluate(OPEN, graph)
        page.get_by_test_id("hdr-open-button").click()
        page.get_by_test_id("hdr-viewer-sidebar").get_by_text("64 x 48").wait_for()
        page.wait_for_function(SETTLED)
        yield page


def centres(page: Any) -> dict[tuple[int, int], tuple[float, float]]:
    """Where on the screen the middle of each cell is drawn."""
    box = page.get_by_test_id("hdr-viewer-canvas").locator("canvas").bounding_box()
    rows, columns = CELLS
    side = min(box["width"] / columns, box["height"] / rows)
    left = box["x"] + (box["width"] - columns * side) / 2
    top = box["y"] + (box["height"] - rows * side) / 2
    return {
        (row, column): (left + (column + 0.5) * side, top + (row + 0.5) * side)
        for row in range(rows)
        for column in range(columns)
    }


def reading_at(viewer: Any, x: float, y: float) -> tuple[str, str]:
    """Place and values that the viewer tells of the pixel under the mouse."""
    viewer.mouse.move(x, y)
    viewer.evaluate(DRAWN)
    place, values = viewer.get_by_test_id("hdr-pixel-readout").inner_text().split("\n")
    return place, values


def test_it_reads_every_value(viewer: Any, saved: Path) -> None:
    stored = read_image(saved).hdr
    for (row, column), (x, y) in centres(viewer).items():
        place, values = reading_at(viewer, x, y)
        right, down = (int(number) for number in place.split(","))
        assert (down // CELL, right // CELL) == (row, column)
        read = [float(number) for number in values.split()[:3]]
        np.testing.assert_allclose(read, stored[down, right], rtol=1e-3, atol=1e-4)


def test_it_shows_the_colours_of_the_files_primaries(viewer: Any, saved: Path) -> None:
    viewer.locator("#hdr-dither").uncheck()
    viewer.mouse.move(1, 1)
    viewer.evaluate(DRAWN)
    shown = np.asarray(Image.open(io.BytesIO(viewer.screenshot())).convert("RGB")).astype(int)
    linear = torch.from_numpy(read_image(saved).hdr).movedim(-1, 0)[None]
    bt709 = convert_primaries(linear, "bt2020", "bt709").clamp(0, 1)
    codes = linear_to_srgb(bt709)[0].movedim(0, -1).numpy() * 255
    for (row, column), (x, y) in centres(viewer).items():
        expected = codes[row * CELL + CELL // 2, column * CELL + CELL // 2]
        assert np.abs(shown[int(y), int(x)] - expected).max() <= 1
