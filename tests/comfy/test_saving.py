"""Savers: what lands in the files, and what the browser is told."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.comfy.pictures import PROMPT, hdr_picture

SAVERS = ("GMHDRSaveEXR", "GMHDRSaveRadiance", "GMHDRSaveUltraHDR", "GMHDRSaveGainMap")


def test_exr_keeps_every_value(save, read) -> None:
    hdr = hdr_picture() - 0.5
    (path,), warnings = save("GMHDRSaveEXR", hdr, filename_prefix="a/exact")
    assert np.array_equal(read(path).hdr, hdr[0].numpy()) and not warnings
    assert path.parent.name == "a" and path.name == "exact_00001_.exr"


def test_exr_is_what_openexr_reads(save) -> None:
    openexr = pytest.importorskip("OpenEXR")
    hdr = hdr_picture()
    (path,), _ = save("GMHDRSaveEXR", hdr, primaries="bt709", save_as="bt2020", white_nits=100.0)
    with openexr.File(str(path)) as file:
        header = file.header()
        assert header["chromaticities"][:2] == pytest.approx((0.708, 0.292))
        assert header["whiteLuminance"] == pytest.approx(100.0)
        white = file.channels()["RGB"].pixels.sum(-1)
    assert white.shape == (24, 40)


def test_exr_layers_and_alpha(save, read) -> None:
    hdr, sdr, gain_map = hdr_picture(), hdr_picture(peak=1.0), hdr_picture(peak=1.0)
    mask = torch.zeros(1, 24, 40)
    mask[:, :5] = 1.0
    (path,), _ = save("GMHDRSaveEXR", hdr, sdr=sdr, gain_map=gain_map, mask=mask, qmax=49.0)
    back = read(path)
    equation = [back.metadata[f"gm.{name}"] for name in ("qmax", "gamma", "offset")]
    assert equation == pytest.approx([49.0, 2.2, 1 / 64])
    np.testing.assert_allclose(back.sdr, sdr[0].numpy(), atol=1e-5)
    np.testing.assert_array_equal(back.gain_map, gain_map[0].numpy())
    np.testing.assert_array_equal(back.alpha, 1 - mask[0].numpy())


def test_exr_of_an_opaque_picture_with_the_mask_that_load_image_gives(save, read) -> None:
    (path,), _ = save("GMHDRSaveEXR", hdr_picture(), mask=torch.zeros(1, 64, 64))
    assert read(path).alpha.shape == (24, 40) and read(path).alpha.min() == 1


@pytest.mark.parametrize(("bit_depth", "compression"), [("half", "zip"), ("float", "dwaa")])
def test_exr_of_limited_range_stays_finite_and_says_so(save, read, bit_depth, compression) -> None:
    hdr = torch.full((1, 4, 4, 3), 1e6)
    (path,), (warning,) = save("GMHDRSaveEXR", hdr, bit_depth=bit_depth, compression=compression)
    assert np.isfinite(read(path).hdr).all() and "48 beyond 6" in warning


def test_ultra_hdr_is_hdr_and_keeps_the_sdr_picture(save, read) -> None:
    hdr = hdr_picture(height=64, width=64)
    (path,), _ = save("GMHDRSaveUltraHDR", hdr)
    back = read(path)
    assert back.hdr.max() > 20 and back.sdr.shape == (64, 64, 3)
    assert Image.open(path).format in ("JPEG", "MPO")


def test_radiance(save, read) -> None:
    hdr = hdr_picture()
    (path,), _ = save("GMHDRSaveRadiance", hdr)
    np.testing.assert_allclose(read(path).hdr, hdr[0].numpy(), atol=hdr.max().item() / 200)


@pytest.mark.parametrize("encoding", ["linear", "log2"])
def test_gain_map_png_has_16_bits_and_says_how_to_read_it(host, save, encoding) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    gain_map = hdr_picture(peak=1.0) - (0.005 if encoding == "log2" else 0.0)
    (path,), _ = save("GMHDRSaveGainMap", gain_map, encoding=encoding, qmax=99.0)
    codes = imagecodecs.png_decode(path.read_bytes())
    assert codes.dtype == np.uint16 and codes.shape == (24, 40, 3)
    info = host.module("gm_core.model_info").GainMapModelInfo.from_metadata(Image.open(path).text)
    back = info.coding.to_gain_map(torch.from_numpy(codes.astype(np.float32) / 65535), spec=info.spec)
    gain, expected = 1 + back * 99, 1 + gain_map[0] * 99
    tolerance = {"linear": 99 / 65535, "log2": 1.5e-4}[encoding]
    torch.testing.assert_close(gain, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("node_id", SAVERS)
def test_batches_give_one_file_each_and_never_overwrite(save, node_id) -> None:
    first, _ = save(node_id, hdr_picture(3, peak=1.0), filename_prefix=f"{node_id}/batch")
    second, _ = save(node_id, hdr_picture(2, peak=1.0), filename_prefix=f"{node_id}/batch")
    assert len({*first, *second}) == 5 and all(path.is_file() for path in first + second)


def test_batch_number_in_names(save) -> None:
    paths, _ = save("GMHDRSaveRadiance", hdr_picture(2), filename_prefix="shot%batch_num%_####")
    assert [path.name for path in paths] == ["shot0_####_00001_.hdr", "shot1_####_00001_.hdr"]


@pytest.mark.parametrize("node_id", SAVERS)
def test_nan_and_inf_reach_no_file_silently(save, read, node_id) -> None:
    hdr = hdr_picture(peak=1.0)
    hdr[0, 0, 0, 0], hdr[0, 1, 1, 1] = float("nan"), float("inf")
    (path,), warnings = save(node_id, hdr)
    assert len(warnings) == 1 and path.name in warnings[0]
    assert "1 NaN" in warnings[0] and "1 infinite" in warnings[0]
    if path.suffix != ".png":
        assert np.isfinite(read(path).hdr).all()


def test_warnings_of_a_list_of_pictures_are_joined(host) -> None:
    """Core runs a saver once for each picture of a list and joins what the runs report."""
    faulty = torch.full((1, 8, 8, 3), float("nan"))
    runs = [host.call("GMHDRSaveEXR", hdr=hdr) for hdr in (faulty, hdr_picture(), faulty)]
    _, shown, _ = host.execution.get_output_from_returns(runs, host.node("GMHDRSaveEXR"))
    assert len([entry for entry in shown["images"] if entry["type"] == "output"]) == 3
    assert [text.split(": ", 1)[1] for text in shown["text"]] == ["hdr: 192 NaN -> 0"] * 2


def test_faulty_pixels_of_the_sdr_picture_are_named(host) -> None:
    sdr = hdr_picture(peak=1.0)
    sdr[0, 0, 0, 0], sdr[0, 1, 1, 1] = float("nan"), -0.01
    (warning,) = host.call("GMHDRSaveUltraHDR", sdr=sdr, hdr=hdr_picture()).ui["text"]
    assert warning.endswith("sdr: 1 NaN -> 0")


@pytest.mark.parametrize("node_id", SAVERS)
def test_cancel_stops_between_two_pictures(comfy, save, output, cancel_at, node_id) -> None:
    cancel_at(2)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        save(node_id, hdr_picture(5, peak=1.0), filename_prefix=f"cancel/{node_id}")
    assert len(list((output / "cancel").glob(f"{node_id}*"))) == 2


def embedded(path) -> str:
    return path.read_bytes().decode("latin-1")


@pytest.mark.parametrize("node_id", ["GMHDRSaveEXR", "GMHDRSaveUltraHDR", "GMHDRSaveGainMap"])
def test_workflow_is_embedded_unless_disabled(host, save, hidden, monkeypatch, node_id) -> None:
    (path,), _ = save(node_id, hdr_picture(peak=1.0), hidden=hidden)
    assert json.dumps(PROMPT) in embedded(path) and '{"nodes": []}' in embedded(path)
    monkeypatch.setattr(host.args, "disable_metadata", True)
    (path,), _ = save(node_id, hdr_picture(peak=1.0), hidden=hidden)
    assert "class_type" not in embedded(path) and "nodes" not in embedded(path)


def test_a_workflow_too_large_for_a_jpeg_is_left_out(save, hidden) -> None:
    hidden = {key: {"long": "x" * 70000} for key in hidden}
    (path,), _ = save("GMHDRSaveUltraHDR", hdr_picture(), hidden=hidden)
    assert "xxxx" not in embedded(path) and Image.open(path).size == (40, 24)


def test_files_no_browser_shows_come_with_a_preview(host) -> None:
    for node_id in ("GMHDRSaveEXR", "GMHDRSaveRadiance"):
        shown = host.call(node_id, hdr=hdr_picture(height=1500, width=40)).ui["images"]
        assert [entry["type"] for entry in shown] == ["temp", "output"]
        assert max(Image.open(host.base / "temp" / shown[0]["filename"]).size) == 1024


def test_different_sizes_are_refused(host) -> None:
    with pytest.raises(ValueError, match="sdr is 40x24, hdr is 40x20"):
        host.call("GMHDRSaveUltraHDR", sdr=hdr_picture(), hdr=hdr_picture(height=20))


def test_extreme_sizes(save, read) -> None:
    for height, width in ((1, 1), (1, 700), (513, 7)):
        for node_id in SAVERS:
            (path,), _ = save(node_id, hdr_picture(1, height, width, 1.0))
            assert (
                Image.open(path).size == (width, height)
                if path.suffix in (".png", ".jpg")
                else path.is_file()
            )


def test_ultra_hdr_stores_the_gain_map_at_its_scale(save) -> None:
    (path,), _ = save("GMHDRSaveUltraHDR", hdr_picture(), gain_map_scale="2")
    data = path.read_bytes()
    with Image.open(io.BytesIO(data[data.rindex(b"\xff\xd8\xff") :])) as gain_map:
        assert gain_map.size == (20, 12)


def test_ultra_hdr_presets_are_the_codecs(host, save) -> None:
    presets = host.module("gm_core.codecs.ultrahdr").PRESETS
    for name, (quality, gain_map_quality) in presets.items():
        (chosen,), _ = save("GMHDRSaveUltraHDR", hdr_picture(), preset=name, quality=1)
        numbers = {"quality": quality, "gain_map_quality": gain_map_quality}
        (written_out,), _ = save("GMHDRSaveUltraHDR", hdr_picture(), **numbers)
        assert chosen.read_bytes() == written_out.read_bytes()


@pytest.mark.parametrize("primaries", ["p3", "bt2020"])
def test_ultra_hdr_keeps_wide_colours_in_a_wide_base(host, save, read, primaries) -> None:
    color = host.module("gm_core.color")
    wide = torch.tensor((4.0, 0.1, 0.1)).expand(1, 64, 64, 3).clone()
    sdr = torch.tensor((0.8, 0.3, 0.2)).expand(1, 64, 64, 3).clone()
    (path,), warnings = save(
        "GMHDRSaveUltraHDR", wide, sdr=sdr, primaries=primaries, save_as=primaries, preset="max"
    )
    back = read(path)
    assert back.primaries == primaries and not warnings
    np.testing.assert_allclose(back.hdr, wide[0].numpy(), rtol=0.02, atol=0.01)
    shown = color.convert_primaries(
        color.srgb_to_linear(torch.from_numpy(back.sdr).movedim(-1, 0)[None]), primaries, "bt709"
    )
    torch.testing.assert_close(color.linear_to_srgb(shown), sdr.movedim(-1, 1), rtol=0, atol=0.01)
