"""The real ComfyUI as a server, started once. Skipped without COMFYUI_PATH, which `make test` sets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.comfy_client import Result, run_workflow
from scripts.comfy_server import Server, running_server
from scripts.demo import PHOTO
from scripts.host import Host, current_host
from scripts.workflow import sdr_to_hdr
from tests.server.pages import Page, newer_frontend, open_page, running_browser


@pytest.fixture(scope="session")
def host() -> Host:
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("COMFYUI_PATH is not set: no ComfyUI to test in")
    return current_host()


@pytest.fixture(scope="session")
def server(host: Host) -> Iterator[Server]:
    with running_server(host) as running:
        yield running


@pytest.fixture(scope="session")
def newer_server(host: Host) -> Iterator[Server]:
    """The host's ComfyUI with the newer frontend."""
    with running_server(host, arguments=["--front-end-root", str(newer_frontend(host))]) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def page(request: pytest.FixtureRequest, browser: Any) -> Iterator[Page]:
    """The page that `ALL_VIEWS` or `BOTH_PAGES` says; the pack's scripts must not give rise to complaints."""
    server = request.getfixturevalue("newer_server" if request.param.newer else "server")
    with open_page(browser, server, request.param, (1600, 1000)) as page:
        yield page
        assert not page.complaints


@pytest.fixture(scope="session")
def photo() -> Path:
    return PHOTO


@pytest.fixture(scope="session")
def saved(server: Server, photo: Path) -> Result:
    """What the shipped workflow saved of the demo photo."""
    (server.base / "input" / photo.name).write_bytes(photo.read_bytes())
    return run_workflow(server, sdr_to_hdr(photo.name, "demo"))
