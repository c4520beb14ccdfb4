"""The workflows in ComfyUI's own page, in a real browser."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Iterator
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

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
READY = "() => window.app?.graph && window.LiteGraph?.registered_node_types?.['GMHDRMerge']"
OPEN = "workflow => window.app.loadGraphData(workflow)"
NODES = """() => window.app.graph.nodes.map(node => ({
    type: node.type,
    known: node.type in window.LiteGraph.registered_node_types,
    broken: Boolean(node.has_errors),
}))"""
CHOOSE_PHOTO = """name => {
    window.app.graph.nodes.find(node => node.type === 'LoadImage').widgets[0].value = name;
}"""
NO_BANNER = "localStorage.setItem('vueNodesBannerDismissed', 'true')"
RUN_BUTTON = '[data-testid="queue-button"] button'
SAVED = {".jpg", ".exr", ".hdr", ".png"}
READ = (".exr", ".hdr", ".pic", ".jpg", ".jpeg", ".png", ".avif", ".jxl")
SLOW = 300_000
UI_ONLY = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser_path is None:
        pytest.skip("no Chromium is installed: scripts/install_system_packages.sh installs it")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(server: Server, browser: Any) -> Iterator[Any]:
    """A new visitor's page: no workflow or dialog is left of another test."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.route(lambda url: not url.startswith(server.url), lambda route: route.abort())
    page.add_init_script(NO_BANNER)
    page.set_default_timeout(SLOW)
    page.goto(server.url, wait_until="domcontentloaded")
    page.wait_for_function(READY)
    yield page
    page.close()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_opens_without_missing_nodes(page: Any, path: Path, tmp_path: Path) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    page.evaluate(OPEN, workflow)
    nodes = page.evaluate(NODES)
    assert sorted(node["type"] for node in nodes) == sorted(node["type"] for node in workflow["nodes"])
    assert not [node["type"] for node in nodes if not node["known"] and node["type"] not in UI_ONLY]
    assert not [node["type"] for node in nodes if node["broken"]]
    page.screenshot(path=tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as screenshot:
        assert len(screenshot.convert("RGB").getcolors(1 << 24) or []) > 50


def test_a_template_names_the_checkpoint_that_is_missing(page: Any) -> None:
    page.evaluate(OPEN, json.loads((ROOT / "workflows" / "text_to_hdr.json").read_text(encoding="utf-8")))
    page.get_by_role("dialog").get_by_text("v1-5-pruned-emaonly-fp16.safetensors").first.wait_for()


def test_the_run_button_makes_an_hdr_picture(server: Server, page: Any, photo: Path) -> None:
    shutil.copy(photo, server.base / "input")
    page.evaluate(OPEN, json.loads((ROOT / "workflows" / "sdr_to_hdr.json").read_text(encoding="utf-8")))
    page.evaluate(CHOOSE_PHOTO, photo.name)
    with page.expect_response(lambda response: response.url.endswith("/prompt")) as answer:
        page.locator(RUN_BUTTON).first.click()
    assert answer.value.ok
    page.goto("about:blank")  # Drawing without a GPU takes more time than the workflow.
    assert wait_for_suffixes(server.base / "output" / "hdr") == SAVED


ADD_LOADER = """() => {
    window.loader = window.LiteGraph.createNode('GMHDRLoadHDR');
    window.app.graph.add(window.loader);
    HTMLInputElement.prototype.click = function () { window.chooser = this; };
    window.holding = name => {
        const files = new DataTransfer();
        files.items.add(new File([name], name, { type: '' }));
        return files;
    };
}"""
CHOOSE = """name => {
    window.loader.widgets.find(widget => widget.name === 'upload').callback();
    window.chooser.files = window.holding(name).files;
    window.chooser.dispatchEvent(new Event('change'));
    return window.chooser.accept.split(',');
}"""
DROP = "name => window.loader.onDragDrop(new DragEvent('drop', { dataTransfer: window.holding(name) }))"
CHOSEN = "name => window.loader.widgets[0].value === name"


def test_load_hdr_uploads_what_it_reads(server: Server, page: Any) -> None:
    """Also where the browser knows no type for a file, as for most .exr and .hdr."""
    page.evaluate(ADD_LOADER)
    for suffix in READ:
        chosen, dropped = f"chosen{suffix}", f"dropped{suffix.upper()}"
        assert suffix in page.evaluate(CHOOSE, chosen)
        page.wait_for_function(CHOSEN, arg=chosen)
        assert page.evaluate(DROP, dropped)
        page.wait_for_function(CHOSEN, arg=dropped)
        for name in (chosen, dropped):
            assert (server.base / "input" / name).read_text() == name
    assert not page.evaluate(DROP, "notes.txt")


DROP_ON_PAGE = """async ([type, bytes]) => {
    window.app.graph.clear();
    await window.app.handleFile(new File([new Uint8Array(bytes)], 'file.' + type.split('/')[1], { type }));
}"""
HAS_TITLE = "title => window.app.graph.nodes.some(node => node.title === title)"


def test_the_page_opens_the_workflow_in_a_file(page: Any) -> None:
    pytest.importorskip("imagecodecs")
    workflow = json.loads((ROOT / "workflows" / "recombine.json").read_text(encoding="utf-8"))
    workflow["nodes"][0]["title"] = title = "Grüße " + "x" * 100_000
    text = {"workflow": json.dumps(workflow), "prompt": "{}"}
    picture = np.full((64, 64, 3), 0.5, np.float32)
    for mime_type, data in (
        ("image/png", encode_png_pq(picture, text=text)),
        ("image/png", encode_png16(picture, text=text)),
        ("image/avif", encode_avif(picture, exif=exif_block(text))),
        ("video/mp4", video(picture, text)),
    ):
        page.evaluate(DROP_ON_PAGE, [mime_type, list(data)])
        page.wait_for_function(HAS_TITLE, arg=title)


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
TEXTS = """() => window.app.graph.nodes.slice(2).map(
    node => node.widgets.find(widget => widget.name === 'gmhdr_text')?.value ?? '')"""


def test_nodes_show_figures_and_warnings(page: Any) -> None:
    """White is 100 times SDR white: more than PQ holds at 203 nits, but not at 40."""
    page.evaluate(SAVE_WHITE)
    page.evaluate(RUN, 203)
    page.wait_for_function(f"() => ({TEXTS})().every(text => text)")
    warning, figures = page.evaluate(TEXTS)
    assert "above 10000 nits" in warning and figures.startswith("Peak 2.061e+04 nits")
    kept = page.evaluate("async () => JSON.stringify(await window.app.graphToPrompt())")
    assert "above 10000 nits" not in kept and "gmhdr_text" not in kept
    page.evaluate(RUN, 40)
    page.wait_for_function(f"() => !({TEXTS})()[0]")
    assert page.evaluate(TEXTS) == ["", figures]


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
