"""`make demo` as a newcomer runs it, if need be behind a proxy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from scripts.host import ROOT, Host


def test_demo_writes_and_names_every_file(host: Host, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.demo", "--output", str(tmp_path)]
    # A proxy is for other machines, also where no_proxy does not say so.
    proxy = {**os.environ, "http_proxy": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=proxy)
    assert done.returncode == 0, done.stderr
    names = {"rocket.jpg", "rocket.exr", "rocket.hdr", "rocket_gm.png", "rocket_sheet.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert all(str(tmp_path / name) in done.stdout for name in names)
    assert re.search(r"peak \d+ nits, \d+\.\d stops above SDR white, \d+\.\d s", done.stdout)
    assert "Making HDR of rocket.jpg" in done.stderr
    with Image.open(tmp_path / "rocket_sheet.png") as sheet:
        assert sheet.width > sheet.height


def test_a_photo_that_is_none_is_named(host: Host, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    command = [
        sys.executable,
        "-m",
        "scripts.demo",
        "--photo",
        str(tmp_path / "bad.jpg"),
        "--output",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert "bad.jpg: cannot be read as a picture" in done.stderr
