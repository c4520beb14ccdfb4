"""What a user waits for: one picture through a ComfyUI server that was just started."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from benchmarks.figures import Figure, at_most
from scripts.comfy_client import run_workflow
from scripts.comfy_server import running_server
from scripts.console import Step
from scripts.host import Host
from scripts.workflow import sdr_to_hdr

SECONDS = 20.0
MEMORY_GB = 4.0


def measure_end_to_end(host: Host, photo: Path) -> list[Figure]:
    with running_server(host) as server:
        start = time.perf_counter()
        shutil.copy(photo, server.base / "input")
        with Step("SDR to HDR") as step:
            run_workflow(server, sdr_to_hdr(photo.name, "bench"), step.show)
        taken = time.perf_counter() - start
        return [
            at_most("from the ready host to all files", taken, SECONDS, "s"),
            at_most("peak memory of the ComfyUI process", server.peak_memory() / 1e9, MEMORY_GB, "GB"),
        ]
