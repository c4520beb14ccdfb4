"""PNG, AVIF and JPEG XL savers: what other programs find in their files."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from tests.codecs.readers import exiftool, ffprobe
from tests.comfy.pictures import PROMPT, WORKFLOW, hdr_picture
from tests.marks import writes_avif

imagecodecs = pytest.importorskip("imagecodecs")
AVIF = pytest.param("GMHDRSaveAVIF", marks=writes_avif)
SAVERS = ("GMHDRSavePNG", AVIF, "GMHDRSaveJXL")


def grey(nits, white=203.0):
    return torch.full((1, 8, 8, 3), nits / white)


@writes_avif
@pytest.mark.parametrize("bits", [10, 12])
def test_sdr_white_is_203_nits_in_pq_codes(save, bits) -> None:
    (png,), _ = save("GMHDRSavePNG", grey(203.0))
    (avif,), _ = save("GMHDRSaveAVIF", grey(203.0), bit_depth=str(bits), lossless=True)
    assert imagecodecs.png_decode(png.read_bytes()) / 65535 == pytest.approx(0.5806, abs=1e-4)
    codes = imagecodecs.avif_decode(avif.read_bytes())
    assert codes / (2**bits - 1) == pytest.approx(0.5806, abs=0.5 / (2**bits - 1) + 1e-4)


def test_pq_codes_follow_the_luminance_of_white(save) -> None:
    (path,), _ = save("GMHDRSavePNG", grey(1000.0, white=100.0), white_nits=100.0)
    assert imagecodecs.png_decode(path.read_bytes()) / 65535 == pytest.approx(0.7518, abs=1e-4)


@writes_avif
def test_avif_codes_follow_the_luminance_of_white(save) -> None:
    hdr = grey(1000.0, white=100.0)
    (path,), _ = save("GMHDRSaveAVIF", hdr, white_nits=100.0, bit_depth="12", lossless=True)
    assert imagecodecs.avif_decode(path.read_bytes()) / 4095 == pytest.approx(0.7518, abs=3e-4)


@writes_avif
def test_avif_is_tagged_as_hdr_for_other_programs(save) -> None:
    (path,), _ = save("GMHDRSaveAVIF", hdr_picture())
    stream = ffprobe(path)["streams"][0]
    assert (stream["color_primaries"], stream["color_transfer"]) == ("bt2020", "smpte2084")
    assert stream["pix_fmt"] == "yuv444p10le" and (stream["width"], stream["height"]) == (40, 24)


def test_png_is_tagged_as_hdr(save) -> None:
    (path,), _ = save("GMHDRSavePNG", hdr_picture())
    data = path.read_bytes()
    assert b"cICP\x09\x10\x00\x01" in data and b"cLLI" in data and b"mDCV" in data


def test_wide_colours_survive_in_bt2020(save, read) -> None:
    hdr = hdr_picture(peak=30.0)
    (path,), warnings = save("GMHDRSavePNG", hdr, primaries="bt2020")
    back = read(path)
    assert back.primaries == "bt2020" and not warnings
    np.testing.assert_allclose(back.hdr, hdr[0].numpy(), rtol=2e-3, atol=1e-4)


def test_jxl_is_exact_and_keeps_negative_values(save) -> None:
    hdr = hdr_picture() - 0.5
    (path,), warnings = save("GMHDRSaveJXL", hdr)
    assert np.array_equal(imagecodecs.jpegxl_decode(path.read_bytes()), hdr[0].numpy()) and not warnings


@pytest.mark.parametrize("node_id", SAVERS)
def test_batches_give_one_file_each_and_load_hdr_reads_them(host, save, node_id) -> None:
    hdr = hdr_picture(2)
    exact = {"lossless": True} if node_id == "GMHDRSaveAVIF" else {}
    paths, _ = save(node_id, hdr, filename_prefix=f"formats/{node_id}", **exact)
    assert len(set(paths)) == 2
    for number, path in enumerate(paths):
        loaded = host.call("GMHDRLoadHDR", image=f"formats/{path.name} [output]", convert_to="bt709").args[0]
        assert (loaded[0] - hdr[number]).abs().mean() < 0.02 * hdr.mean()


@pytest.mark.parametrize("node_id", SAVERS)
def test_replaced_values_are_reported(save, read, node_id) -> None:
    hdr = hdr_picture()
    hdr[0, 0, 0, 0], hdr[0, 1, 1, 1] = float("nan"), float("inf")
    (path,), (warning,) = save(node_id, hdr)
    assert "1 NaN" in warning and "1 infinite" in warning and path.name in warning
    assert np.isfinite(read(path).hdr).all()


def test_values_that_pq_cannot_hold_are_reported(save) -> None:
    _, (warning,) = save("GMHDRSavePNG", grey(20000.0))
    assert f"{3 * 64} above 10000 nits" in warning


@pytest.mark.parametrize("node_id", SAVERS)
def test_workflow_is_embedded_unless_disabled(host, save, hidden, monkeypatch, node_id) -> None:
    (path,), _ = save(node_id, hdr_picture(), hidden=hidden)
    found = " ".join(str(value) for value in exiftool(path).values())
    assert json.dumps(PROMPT) in found and json.dumps(WORKFLOW) in found
    monkeypatch.setattr(host.args, "disable_metadata", True)
    (path,), _ = save(node_id, hdr_picture(), hidden=hidden)
    assert b"class_type" not in path.read_bytes() and b"nodes" not in path.read_bytes()


@pytest.mark.parametrize("node_id", SAVERS)
def test_a_long_workflow_is_kept(save, read, hidden, node_id) -> None:
    hidden = {key: {"long": "x" * 100000} for key in hidden}
    (path,), _ = save(node_id, hdr_picture(), hidden=hidden)
    assert b"x" * 100000 in path.read_bytes() and read(path).hdr.shape == (24, 40, 3)


@pytest.mark.parametrize("node_id", ["GMHDRSaveAVIF", "GMHDRSaveJXL"])
def test_a_missing_library_is_named(host, save, output, monkeypatch, node_id) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(host.module("gm_core.errors").ImageWriteError, match="pip install imagecodecs"):
        save(node_id, hdr_picture(), filename_prefix=f"missing/{node_id}")
    assert not list((output / "missing").glob(f"{node_id}*"))


@pytest.mark.parametrize("node_id", SAVERS)
def test_cancel_stops_between_two_pictures(comfy, save, output, cancel_at, node_id) -> None:
    cancel_at(2)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        save(node_id, hdr_picture(4), filename_prefix=f"cancelled/{node_id}")
    assert len(list((output / "cancelled").glob(f"{node_id}*"))) == 2


@pytest.mark.parametrize("node_id", SAVERS)
def test_prefixes_that_leave_the_output_folder_are_refused(save, node_id) -> None:
    with pytest.raises(ValueError, match="filename_prefix"):
        save(node_id, hdr_picture(), filename_prefix="../x")


@pytest.mark.parametrize("node_id", SAVERS)
def test_extreme_sizes_and_channels(save, read, node_id) -> None:
    for height, width in ((1, 1), (1, 300), (257, 3)):
        (path,), _ = save(node_id, hdr_picture(1, height, width))
        assert read(path).hdr.shape == (height, width, 3)
    for channels in (1, 4):
        (path,), _ = save(node_id, torch.ones(1, 16, 16, channels))
        assert read(path).hdr == pytest.approx(1.0, abs=0.02)


@writes_avif
def test_all_savers_run_in_one_graph(host, output) -> None:
    empty = {"width": 64, "height": 64, "batch_size": 2, "color": 0xFFFFFF}
    savers = ("GMHDRSavePNG", "GMHDRSaveAVIF", "GMHDRSaveJXL", "GMHDRSaveVideo")
    graph = {"picture": {"class_type": "EmptyImage", "inputs": empty}}
    for node_id in savers:
        given = {"hdr": ["picture", 0], "filename_prefix": f"graph/{node_id}"}
        spec = host.node(node_id).INPUT_TYPES()["required"]
        defaults = {name: options[1]["default"] for name, options in spec.items() if "default" in options[1]}
        graph[node_id] = {"class_type": node_id, "inputs": defaults | given}
    shown = host.run(graph)
    for node_id in savers:
        names = [entry["filename"] for entry in shown[node_id]["images"] if entry["type"] == "output"]
        assert len(names) == (1 if node_id == "GMHDRSaveVideo" else 2)
        assert all((output / "graph" / name).stat().st_size for name in names)
