"""The real ComfyUI as a server, started once. Skipped without COMFYUI_PATH, which `make test` sets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.comfy_client import Result, run_workflow
from scripts.comfy_server import Server, running_server
from scripts.demo import PHOTO
from scripts.host import Host, current_host
from scripts.workflow import sdr_to_hdr


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
def photo() -> Path:
    return PHOTO


@pytest.fixture(scope="session")
def saved(server: Server, photo: Path) -> Result:
    """What the shipped workflow saved of the demo photo."""
    (server.base / "input" / photo.name).write_bytes(photo.read_bytes())
    return run_workflow(server, sdr_to_hdr(photo.name, "demo"))
