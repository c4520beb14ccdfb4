"""A headless ComfyUI of its own: free port, temporary folders, this pack as its only custom node."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path

from .console import Step
from .host import ROOT, Host

READY_SECONDS = 600
STOP_SECONDS = 15
POLL_SECONDS = 0.1
GPU_DEVICES = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")
FOLDERS = ("custom_nodes", "input", "models", "output", "temp", "user/default")
SETTINGS = '{"Comfy.TutorialCompleted": true}'
NOT_COPIED = (".git", "__pycache__", "demo_output", "runs", "*_cache", ".hypothesis")


class ServerError(RuntimeError):
    """ComfyUI did not start, lost the pack or ended; the message holds the end of its log."""


@dataclass(frozen=True)
class Server:
    """A running ComfyUI; `base` holds its input, output and log."""

    url: str
    base: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.base / "server.log").read_text(encoding="utf-8", errors="replace")

    def ask(self, path: str, *, data: bytes | None = None, seconds: float | None = None) -> HTTPResponse:
        """The answer to GET, or to POST with `data`; never by way of the proxy that http_proxy names.

        Raises:
            OSError: it does not answer, or with an error.
        """
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return direct.open(f"{self.url}{path}", data, seconds)

    def failure(self, what: str) -> ServerError:
        lines = "\n".join(f"    {line}" for line in self.log.splitlines()[-25:])
        return ServerError(f"{what} The end of its log:\n{lines}")

    def peak_memory(self) -> int:
        """Largest resident size of the process so far, in bytes; 0 where the system does not tell."""
        status = Path(f"/proc/{self.process.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@contextmanager
def running_server(host: Host, *, pack: Path = ROOT, arguments: Sequence[str] = ()) -> Iterator[Server]:
    """Starts ComfyUI, waits until it answers, and stops it and removes its folders afterwards.

    Raises:
        ServerError: it ended early, did not answer, or could not import the pack.
    """
    with tempfile.TemporaryDirectory(prefix="gm-hdr-", ignore_cleanup_errors=True) as folder:
        base = Path(folder).resolve()
        make_base(base, pack)
        server = start(host, base, arguments)
        try:
            with Step("Starting ComfyUI"):
                wait_until_ready(server)
                check_import(server)
            yield server
        finally:
            stop(server.process)


def exit_on_sigterm() -> None:
    """Makes SIGTERM unwind as Ctrl-C does, so that ComfyUI is stopped and its folders are removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def make_base(base: Path, pack: Path) -> None:
    for name in FOLDERS:
        (base / name).mkdir(parents=True)
    (base / "user/default/comfy.settings.json").write_text(SETTINGS)
    place = base / "custom_nodes" / "gm-hdr"
    try:
        place.symlink_to(pack, target_is_directory=True)
    except OSError:
        shutil.copytree(pack, place, ignore=shutil.ignore_patterns(*NOT_COPIED))


def start(host: Host, base: Path, arguments: Sequence[str]) -> Server:
    port = free_port()
    command = [str(host.python), str(host.comfyui / "main.py"), "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:", "--disable-api-nodes"]
    command += [*device_arguments(host.python), *arguments]
    with (base / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=base,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"},
        )
    return Server(url=f"http://127.0.0.1:{port}", base=base, process=process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def device_arguments(python: Path) -> list[str]:
    """ComfyUI stops without --cpu where torch finds no GPU."""
    if sys.platform == "darwin":
        return []
    if any(Path(device).exists() for device in GPU_DEVICES):
        question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
        if subprocess.run([python, "-c", question], capture_output=True).returncode == 0:
            return []
    return ["--cpu"]


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        if server.process.poll() is not None:
            raise server.failure(
                f"ComfyUI ended with exit code {server.process.returncode} before it was ready."
            )
        try:
            server.ask("/system_stats", seconds=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise server.failure(f"ComfyUI did not answer within {READY_SECONDS} s.") from None
        time.sleep(POLL_SECONDS)


def check_import(server: Server) -> None:
    """ComfyUI starts even where a pack fails to import, and only logs it."""
    log = server.log
    if any("IMPORT FAILED" in line and "gm-hdr" in line for line in log.splitlines()):
        end = log.rfind("Import times for custom nodes")
        raise ServerError(f"ComfyUI could not import the pack:\n{log[max(0, end - 3000) : end].rstrip()}")


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
