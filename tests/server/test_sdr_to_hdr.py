"""The shipped workflow in the real ComfyUI, its files checked by readers that share no code with the pack."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.comfy_client import Result, WorkflowError, run_workflow
from scripts.comfy_server import Server
from scripts.host import ROOT
from scripts.workflow import sdr_to_hdr
from tests.codecs.readers import exiftool, libultrahdr
from tests.codecs.scenes import pq_psnr, psnr, relative_p99
from tests.server.readers import read_exr


def sdr_pixels(photo: Path) -> np.ndarray:
    with Image.open(photo) as image:
        return np.asarray(image.convert("RGB"), np.float32) / 255


def test_the_readme_lists_the_nodes_that_comfyui_offers(server: Server) -> None:
    with server.ask("/object_info") as answer:
        nodes = json.load(answer)
    offered = {node["display_name"] for name, node in nodes.items() if name.startswith("GMHDR")}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert offered and not [name for name in sorted(offered) if f"| {name} |" not in readme]


def test_the_log_is_clean(server: Server, saved: Result) -> None:
    lines = [line for line in server.log.splitlines() if "gm-hdr" in line or "gmhdr" in line.lower()]
    assert not [line for line in lines if "error" in line.lower() or "FAILED" in line]


def test_exr_is_float32_and_tagged(saved: Result, photo: Path) -> None:
    pixels, header = read_exr(saved.file("GMHDRSaveEXR"))
    assert pixels.dtype == np.float32
    assert pixels.shape == sdr_pixels(photo).shape
    assert np.isfinite(pixels).all()
    assert header["chromaticities"] == pytest.approx((0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329))
    assert header["whiteLuminance"] == pytest.approx(203)
    assert "GMHDRMerge" in header["prompt"]


def test_the_photo_became_hdr(saved: Result) -> None:
    pixels, _ = read_exr(saved.file("GMHDRSaveEXR"))
    assert pixels.max() > 1.0


def test_gain_map_png_and_photo_make_the_exr(saved: Result, photo: Path) -> None:
    """Eq. (1), computed here from the files alone."""
    path = saved.file("GMHDRSaveGainMap")
    coded = pytest.importorskip("imagecodecs").imread(path)
    assert coded.dtype == np.uint16
    with Image.open(path) as image:
        text = {key: value for key, value in image.info.items() if key.startswith("gmhdr.")}
    low, high = float(text["gmhdr.log2_min"]), float(text["gmhdr.log2_max"])
    gain = 2.0 ** (low + coded.astype(np.float64) / 65535 * (high - low))
    hdr = (sdr_pixels(photo) ** 2.2 + 1 / 64) * gain - 1 / 64
    pixels, _ = read_exr(saved.file("GMHDRSaveEXR"))
    np.testing.assert_allclose(pixels + 1 / 64, np.maximum(hdr, 0) + 1 / 64, rtol=1e-3)


def test_libultrahdr_reads_the_hdr_picture(saved: Result, tmp_path: Path) -> None:
    pixels, _ = read_exr(saved.file("GMHDRSaveEXR"))
    decoded = libultrahdr(saved.file("GMHDRSaveUltraHDR").read_bytes(), tmp_path)
    assert pq_psnr(decoded, pixels) >= 46.5
    assert relative_p99(decoded, pixels) <= 0.11


def test_sdr_viewers_see_the_photo(saved: Result, photo: Path) -> None:
    assert psnr(sdr_pixels(saved.file("GMHDRSaveUltraHDR")), sdr_pixels(photo)) >= 35


def test_exiftool_finds_the_gain_map(saved: Result, tmp_path: Path) -> None:
    path = saved.file("GMHDRSaveUltraHDR")
    start, length = (exiftool(path)[f"MPImage2:MPImage{name}"] for name in ("Start", "Length"))
    assert start + length == path.stat().st_size
    gain_map = tmp_path / "map.jpg"
    gain_map.write_bytes(path.read_bytes()[start:])
    assert "XMP-hdrgm:Version" in exiftool(gain_map)


def test_radiance_holds_the_same_picture(saved: Result) -> None:
    cv2 = pytest.importorskip("cv2")
    radiance = cv2.imread(str(saved.file("GMHDRSaveRadiance")), cv2.IMREAD_UNCHANGED)[..., ::-1]
    pixels, _ = read_exr(saved.file("GMHDRSaveEXR"))
    peak = np.maximum(pixels, 0).max(axis=-1, keepdims=True)
    assert (np.abs(radiance - np.maximum(pixels, 0)) <= 0.01 * peak + 1e-4).all()


def test_a_missing_photo_is_refused_by_name(server: Server) -> None:
    with pytest.raises(WorkflowError, match="nowhere.png"):
        run_workflow(server, sdr_to_hdr("nowhere.png", "demo"))


def test_progress_names_the_nodes(server: Server, photo: Path) -> None:
    (server.base / "input" / photo.name).write_bytes(photo.read_bytes())
    seen: list[str] = []
    workflow = sdr_to_hdr(photo.name, "progress").with_inputs("GMHDRUpconvertSampler", seed=1, steps=2)
    run_workflow(server, workflow, seen.append)
    assert "GM Sampler (SDR to HDR) 2/2" in seen
