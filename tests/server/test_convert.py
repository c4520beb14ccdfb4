"""`make convert` over a folder of ordinary, odd and broken pictures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.host import ROOT, Host
from tests.server.readers import read_exr


def run_convert(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.convert", "--input", str(source), "--output", str(output)]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, env=strict)


def gradient(width: int, height: int) -> Image.Image:
    ramp = np.linspace(0, 255, width)[None] * np.linspace(0.2, 1, height)[:, None]
    return Image.fromarray(np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8))


def write_odd_pictures(folder: Path) -> dict[str, tuple[int, int]]:
    """Stem of the output -> its expected width and height."""
    turned = Image.Exif()
    turned[0x0112] = 6
    (folder / "sub").mkdir(parents=True)
    gradient(64, 48).save(folder / "same.jpg")
    gradient(48, 64).save(folder / "same.png")
    gradient(37, 23).convert("L").save(folder / "grey.png")
    gradient(40, 24).convert("RGBA").save(folder / "see through é.png")
    Image.fromarray(np.linspace(0, 65535, 32 * 24).reshape(24, 32).astype(np.uint16)).save(
        folder / "deep.png"
    )
    gradient(40, 24).save(folder / "sub" / "turned.jpg", exif=turned)
    gradient(1, 1).save(folder / "dot.png")
    gradient(300, 8).save(folder / "strip.png")
    gradient(300, 8).save(folder / "strip copy.png")
    return {
        "same_jpg": (64, 48),
        "same_png": (48, 64),
        "grey": (37, 23),
        "see through é": (40, 24),
        "deep": (32, 24),
        "sub/turned": (24, 40),
        "dot": (1, 1),
        "strip": (300, 8),
        "strip copy": (300, 8),
    }


@pytest.fixture(scope="module")
def converted(host: Host, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, str, int]:
    folder = tmp_path_factory.mktemp("convert")
    expected = write_odd_pictures(folder / "in")
    (folder / "in" / "text.jpg").write_text("no picture")
    (folder / "in" / "gone.jpg").symlink_to("nowhere.jpg")
    whole = (folder / "in" / "same.png").read_bytes()
    (folder / "in" / "cut.png").write_bytes(whole[: len(whole) // 2])
    output = folder / os.fsdecode(b"out\xff")
    done = run_convert(folder / "in", output)
    return output.rename(folder / "out"), expected, done.stdout + done.stderr, done.returncode


def test_every_readable_picture_is_converted_at_its_size(converted: tuple[Path, dict, str, int]) -> None:
    output, expected, log, _ = converted
    for stem, (width, height) in expected.items():
        pixels, _ = read_exr(output / f"{stem}.exr")
        assert pixels.shape == (height, width, 3), log
        assert pixels.dtype == np.float32 and np.isfinite(pixels).all()
        for suffix in (".jpg", "_gm.png"):
            with Image.open(output / f"{stem}{suffix}") as image:
                assert image.size == (width, height)


def test_nothing_else_is_written(converted: tuple[Path, dict, str, int]) -> None:
    output, expected, _, _ = converted
    files = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert files == {stem + suffix for stem in expected for suffix in (".exr", ".jpg", "_gm.png")}


def test_bad_files_are_named_and_fail_the_run(converted: tuple[Path, dict, str, int]) -> None:
    _, expected, log, code = converted
    assert code == 1
    assert f"{len(expected)} of {len(expected) + 3} converted" in log
    for name in ("text.jpg", "gone.jpg", "cut.png"):
        assert any(name in line and line.startswith("SKIPPED") for line in log.splitlines())


def test_the_pictures_themselves_are_never_overwritten(host: Host, tmp_path: Path) -> None:
    gradient(8, 8).save(tmp_path / "a.jpg")
    before = (tmp_path / "a.jpg").read_bytes()
    done = run_convert(tmp_path, tmp_path)
    assert done.returncode == 1 and "choose another folder" in done.stderr
    assert (tmp_path / "a.jpg").read_bytes() == before


def test_names_reach_the_converter_unchanged(tmp_path: Path) -> None:
    """make and the shell see a dollar sign, quotes and a command."""
    name = "a $$b $c \"d' `id`.png"
    command = ["make", "convert", "PYTHON=echo", f"IN={tmp_path / name}", "OUT=hdr"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert f"--input={tmp_path / name} --output=hdr" in done.stdout, done.stderr


def test_an_output_that_cannot_be_written_is_told_at_once(host: Host, tmp_path: Path) -> None:
    gradient(8, 8).save(tmp_path / "a.jpg")
    done = run_convert(tmp_path / "a.jpg", Path("/proc/hdr"))
    assert done.returncode == 1 and "OUT=/proc/hdr cannot be written" in done.stderr
    assert "ComfyUI" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("source", ["nowhere", "empty", "~nobody-of-that-name"])
def test_no_picture_at_all(host: Host, tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    done = run_convert(Path(source if source.startswith("~") else tmp_path / source), tmp_path / "out")
    assert done.returncode != 0 and source in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_4k_picture(host: Host, tmp_path: Path) -> None:
    gradient(4096, 2160).save(tmp_path / "large.png")
    done = run_convert(tmp_path / "large.png", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert read_exr(tmp_path / "out" / "large.exr")[0].shape == (2160, 4096, 3)
