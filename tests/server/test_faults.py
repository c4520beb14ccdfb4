"""What a killed server leaves behind, and what is written into files when metadata is off."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.comfy_client import run_workflow
from scripts.comfy_server import Server, ServerError, running_server
from scripts.host import Host
from tests.server.graphs import SAVERS, saving_graph
from tests.server.readers import read_exr

PRIVATE = (b"class_type", b"filename_prefix", b"secret_prefix")


@pytest.fixture
def quiet_server(host: Host) -> Iterator[Server]:
    with running_server(host, arguments=["--disable-metadata"]) as server:
        yield server


def add_noise_picture(server: Server, name: str, side: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(server.base / "input" / name)


def complete(path: Path) -> bool:
    """Whether a file reads to its last pixel."""
    if path.suffix == ".exr":
        return read_exr(path)[0].size > 0
    if path.suffix == ".hdr":
        return pytest.importorskip("cv2").imread(str(path), -1) is not None
    with Image.open(path) as image:
        image.load()
    return True


def test_disable_metadata_leaves_no_trace_of_the_workflow(quiet_server: Server) -> None:
    add_noise_picture(quiet_server, "noise.png", 16)
    result = run_workflow(quiet_server, saving_graph("noise.png", "secret_prefix"))
    for class_type in SAVERS:
        data = result.file(class_type).read_bytes()
        assert not [word for word in PRIVATE if word in data], class_type


def test_killed_while_saving_leaves_no_partial_file(host: Host) -> None:
    with running_server(host) as server:
        add_noise_picture(server, "noise.png", 2500)
        output = server.base / "output"
        killer = threading.Thread(target=kill_at_the_first_file, args=(server, output))
        killer.start()
        with pytest.raises(ServerError):
            run_workflow(server, saving_graph("noise.png", "killed"))
        killer.join()
        finished = [
            path for path in output.rglob("killed_*") if path.suffix in (".exr", ".jpg", ".hdr", ".png")
        ]
        assert all(complete(path) for path in finished)


def kill_at_the_first_file(server: Server, output: Path) -> None:
    """Waits for any file, temporary or not, and kills while it or the next one is being written."""
    while server.process.poll() is None and not any(path.is_file() for path in output.rglob("*")):
        time.sleep(0.001)
    server.process.kill()
