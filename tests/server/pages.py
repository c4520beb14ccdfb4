"""ComfyUI's page in a real browser: the one of the host's frontend, and a newer one in both its drawings.

What differs between these pages stands here, so that tests say what holds in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.comfy_server import Server
from scripts.host import Host
from scripts.install import NEW_FRONTEND_FOLDER
from tests.codecs.chromium import find_chromium

SLOW = 300_000
# The HDR viewer draws with WebGL, which needs no GPU.
FLAGS = ("--no-sandbox", "--no-first-run", "--disable-background-networking")
WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_BANNER = "localStorage.setItem('vueNodesBannerDismissed', 'true')"
READY = "() => window.app?.graph && window.LiteGraph?.registered_node_types?.['GMHDRMerge']"
OURS = ("/extensions/gm-hdr/", "/scripts/")


@dataclass(frozen=True)
class View:
    """Which page, and whether it draws nodes as HTML instead of on a canvas."""

    newer: bool
    html: bool

    def __str__(self) -> str:
        return ("newer" if self.newer else "host") + ("-html" if self.html else "")


HOST, NEWER, NEWER_HTML = View(False, False), View(True, False), View(True, True)
# Drawing nodes and their widgets differs in all three, the rest between the pages only.
ALL_VIEWS = pytest.mark.parametrize("page", (HOST, NEWER, NEWER_HTML), ids=str, indirect=True)
BOTH_PAGES = pytest.mark.parametrize("page", (HOST, NEWER_HTML), ids=str, indirect=True)

# A file whose type the browser does not know.
HOLDING = """const holding = name => {
    const files = new DataTransfer();
    files.items.add(new File([name], name, { type: '' }));
    return files;
}"""
ADD = """type => {
    window.added = window.LiteGraph.createNode(type);
    window.app.graph.clear();
    window.app.graph.add(window.added);
}"""
PRESS_UPLOAD = "() => window.added.widgets.find(widget => widget.name === 'upload').callback()"
UPLOAD_LABEL = "[data-node-id] label:has(input[type=file])"
CHOOSE = f"""(chooser, name) => {{
    {HOLDING}
    chooser.files = holding(name).files;
    chooser.dispatchEvent(new Event('change'));
    return chooser.accept.split(',');
}}"""
DROP = f"""name => {{
    {HOLDING}
    return window.added.onDragDrop(new DragEvent('drop', {{ dataTransfer: holding(name) }}));
}}"""
CHOSEN = "name => window.added.widgets[0].value === name && !window.added.isUploading"
TEXTS = """() => window.app.graph.nodes.map(
    node => node.widgets?.find(widget => widget.name === 'gmhdr_text')?.value ?? '')"""
ROOM = """text => [...document.querySelectorAll('textarea')].some(
    area => area.value === text && area.clientHeight > 0 && area.clientHeight >= area.scrollHeight)"""


class Page:
    """ComfyUI's page as a new visitor has it; `driver` is Playwright's."""

    def __init__(self, driver: Any, server: Server, view: View) -> None:
        self.driver = driver
        self.server = server
        self.view = view
        self.complaints: list[str] = []
        driver.on("console", self._listen)
        driver.on("pageerror", lambda error: self._note(f"{error}\n{error.stack}", ""))

    def _listen(self, message: Any) -> None:
        if message.type in ("warning", "error"):
            self._note(message.text, message.location.get("url", ""))

    def _note(self, text: str, url: str) -> None:
        """Keeps what this pack's scripts, or old parts of the page that they use, gave rise to."""
        if any(place in text or place in url for place in OURS):
            self.complaints.append(text)

    def open(self, workflow: dict[str, Any]) -> None:
        self.driver.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)

    def wait_for_missing_file(self, name: str) -> None:
        """Waits until the page says that a file is missing: in a dialog, or in a note."""
        said = self.driver.get_by_role("dialog").or_(self.driver.get_by_test_id("error-overlay"))
        said.get_by_text(name).first.wait_for()

    def run(self) -> None:
        """Presses Run; the prompt must be accepted."""
        with self.driver.expect_response(lambda response: response.url.endswith("/prompt")) as answer:
            self.driver.get_by_role("button", name="Run", exact=True).click()
        assert answer.value.ok

    def add_alone(self, node_type: str) -> None:
        """Clears the page and adds a node, which the methods below are about."""
        self.driver.evaluate(ADD, node_type)

    def choose(self, name: str) -> list[str]:
        """Uploads a file by the node's button; the kinds that its file chooser offers."""
        with self.driver.expect_file_chooser() as chooser:
            if self.view.html:
                self.driver.locator(UPLOAD_LABEL).click()
            else:
                self.driver.evaluate(PRESS_UPLOAD)
        taken = chooser.value.element.evaluate(CHOOSE, name)
        self.driver.wait_for_function(CHOSEN, arg=name)
        return taken

    def drop(self, name: str) -> bool:
        """Drops a file on the node; whether it took it."""
        taken = bool(self.driver.evaluate(DROP, name))
        if taken:
            self.driver.wait_for_function(CHOSEN, arg=name)
        return taken

    def texts(self) -> list[str]:
        """The text that stands on each node, or nothing."""
        return self.driver.evaluate(TEXTS)

    def wait_for_texts(self, count: int) -> None:
        """Waits until so many nodes have a text."""
        self.driver.wait_for_function(
            f"count => ({TEXTS})().filter(text => text).length === count", arg=count
        )

    def wait_for_room(self, text: str) -> None:
        """Waits until a text is drawn on a node, all of it."""
        self.driver.wait_for_function(ROOM, arg=text)


def newer_frontend(host: Host) -> Path:
    """`make test` puts it beside the host; another host needs
    `pip install --no-deps --target HOST/frontend comfyui-frontend-package==1.58.1`."""
    folder = host.python.parents[2] / NEW_FRONTEND_FOLDER / "comfyui_frontend_package/static"
    if not folder.is_dir():
        pytest.skip(f"no newer frontend in {folder}")
    return folder


@contextmanager
def running_browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if (chromium := find_chromium()) is None:
        pytest.skip("no Chromium is installed: scripts/install_system_packages.sh installs it")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=[*FLAGS, *WEBGL])
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Any, server: Server, view: View, size: tuple[int, int]) -> Iterator[Page]:
    """A page of its own: no workflow or dialog is left of another test."""
    html = b"true" if view.html else b"false"
    server.ask("/settings/Comfy.VueNodes.Enabled", data=html).close()
    driver = browser.new_page(viewport={"width": size[0], "height": size[1]})
    driver.set_default_timeout(SLOW)
    own = (server.url, "data:", "blob:")
    driver.route(lambda url: not url.startswith(own), lambda route: route.abort())
    driver.add_init_script(NO_BANNER)
    page = Page(driver, server, view)
    driver.goto(server.url, wait_until="domcontentloaded")
    driver.wait_for_function(READY)
    yield page
    driver.close()
