"""The workflows and the nodes in ComfyUI's own page, in a real browser: the host's page and a newer one."""

from __future__ import annotations

import io
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gm_core.codecs.avif import encode_avif
from gm_core.codecs.exif import exif_block
from gm_core.codecs.png import encode_png16, encode_png_pq
from gm_core.codecs.video import encode_hdr10
from scripts.comfy_server import Server
from scripts.host import ROOT
from tests.marks import tags_avif
from tests.server.pages import ALL_VIEWS, BOTH_PAGES, Page

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
NODES = """() => window.app.graph.nodes.map(node => ({
    type: node.type,
    known: node.type in window.LiteGraph.registered_node_types,
    broken: Boolean(node.has_errors),
}))"""
CHOOSE_PHOTO = """name => {
    window.app.graph.nodes.find(node => node.type === 'LoadImage').widgets[0].value = name;
}"""
SAVED = {".jpg", ".exr", ".hdr", ".png"}
READ = (".exr", ".hdr", ".pic", ".jpg", ".jpeg", ".png", ".avif", ".jxl")
UI_ONLY = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}
# The newer page marks these where the file that they name is missing, as those of the workflows are.
NAME_FILES = {"LoadImage", "LoadVideo", "GMHDRLoadHDR", "CheckpointLoaderSimple", "ControlNetLoader"}

pytestmark = pytest.mark.browser


def shipped(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


@BOTH_PAGES
@pytest.mark.parametrize("name", [path.stem for path in WORKFLOWS])
def test_a_workflow_opens_without_missing_nodes(page: Page, name: str, tmp_path: Path) -> None:
    workflow = shipped(name)
    page.open(workflow)
    nodes = page.driver.evaluate(NODES)
    assert sorted(node["type"] for node in nodes) == sorted(node["type"] for node in workflow["nodes"])
    assert not [node["type"] for node in nodes if not node["known"] and node["type"] not in UI_ONLY]
    assert not [node["type"] for node in nodes if node["broken"] and node["type"] not in NAME_FILES]
    page.driver.screenshot(path=tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as screenshot:
        assert len(screenshot.convert("RGB").getcolors(1 << 24) or []) > 50


@BOTH_PAGES
def test_a_template_names_the_checkpoint_that_is_missing(page: Page) -> None:
    page.open(shipped("text_to_hdr"))
    page.wait_for_missing_file("v1-5-pruned-emaonly-fp16.safetensors")


@BOTH_PAGES
def test_the_run_button_makes_an_hdr_picture(page: Page, photo: Path) -> None:
    shutil.copy(photo, page.server.base / "input")
    page.open(shipped("sdr_to_hdr"))
    page.driver.evaluate(CHOOSE_PHOTO, photo.name)
    page.run()
    page.driver.goto("about:blank")  # Drawing without a GPU takes more time than the workflow.
    assert wait_for_suffixes(page.server.base / "output" / "hdr") == SAVED


@ALL_VIEWS
def test_load_hdr_uploads_what_it_reads(page: Page) -> None:
    """Also where the browser knows no type for a file, as for most .exr and .hdr."""
    page.add_alone("GMHDRLoadHDR")
    for suffix in READ:
        chosen, dropped = f"chosen{suffix}", f"dropped{suffix.upper()}"
        assert suffix in page.choose(chosen)
        assert page.drop(dropped)
        for name in (chosen, dropped):
            assert (page.server.base / "input" / name).read_text() == name
    assert not page.drop("notes.txt")


DROP_ON_PAGE = """async ([type, bytes]) => {
    window.app.graph.clear();
    await window.app.handleFile(new File([new Uint8Array(bytes)], 'file.' + type.split('/')[1], { type }));
}"""
HAS_TITLE = "title => window.app.graph.nodes.some(node => node.title === title)"


@BOTH_PAGES
def test_the_page_opens_the_workflow_in_a_file(page: Page) -> None:
    workflow = shipped("recombine")
    workflow["nodes"][0]["title"] = title = "Grüße " + "x" * 100_000
    text = {"workflow": json.dumps(workflow), "prompt": "{}"}
    picture = np.full((64, 64, 3), 0.5, np.float32)
    files = [
        ("image/png", encode_png_pq(picture, text=text)),
        ("image/png", encode_png16(picture, text=text)),
        ("video/mp4", video(picture, text)),
    ]
    if tags_avif():
        files.append(("image/avif", encode_avif(picture, exif=exif_block(text))))
    for mime_type, data in files:
        page.driver.evaluate(DROP_ON_PAGE, [mime_type, list(data)])
        page.driver.wait_for_function(HAS_TITLE, arg=title)


def video(picture: np.ndarray, text: dict[str, str]) -> bytes:
    file = io.BytesIO()
    encode_hdr10(file, lambda: [picture], metadata=text)
    return file.getvalue()


SAVE_WHITE = """() => {
    const add = type => {
        const node = window.LiteGraph.createNode(type);
        window.app.graph.add(node);
        return node;
    };
    window.app.graph.clear();
    const [image, merge, saver, figures] = [
        'EmptyImage', 'GMHDRMerge', 'GMHDRSavePNG', 'GMHDRStatistics'].map(add);
    image.widgets.find(widget => widget.name === 'color').value = 0xffffff;
    image.connect(0, merge, 0);
    image.connect(0, merge, 1);
    merge.connect(0, saver, 0);
    merge.connect(0, figures, 0);
}"""
RUN = """white => {
    const saver = window.app.graph.nodes.find(node => node.type === 'GMHDRSavePNG');
    saver.widgets.find(widget => widget.name === 'white_nits').value = white;
    return window.app.queuePrompt(0);
}"""


@ALL_VIEWS
def test_nodes_show_figures_and_warnings(page: Page) -> None:
    """White is 100 times SDR white: more than PQ holds at 203 nits, but not at 40."""
    page.driver.evaluate(SAVE_WHITE)
    page.driver.evaluate(RUN, 203)
    page.wait_for_texts(2)
    warning, figures = page.texts()[2:]
    assert "above 10000 nits" in warning and figures.startswith("Peak 2.061e+04 nits")
    for text in (warning, figures):
        page.wait_for_room(text)
    kept = page.driver.evaluate("async () => JSON.stringify(await window.app.graphToPrompt())")
    assert "above 10000 nits" not in kept and "gmhdr_text" not in kept
    page.driver.evaluate(RUN, 40)
    page.wait_for_texts(1)
    assert page.texts() == ["", "", "", figures]


def wait_for_suffixes(folder: Path) -> set[str]:
    """The kinds of files in a folder, once all of them are there or some minutes have passed."""
    for _ in range(1000):
        found = {path.suffix for path in folder.glob("photo*")}
        if found >= SAVED:
            break
        time.sleep(0.3)
    return found


def test_templates_are_offered(server: Server) -> None:
    with server.ask("/workflow_templates") as answer:
        offered = json.load(answer).get("gm-hdr", [])
    assert set(offered) == {path.stem for path in WORKFLOWS}
