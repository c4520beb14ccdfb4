"""Load HDR Image: what was saved comes back, as HDR and as SDR picture plus gain map."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from tests.comfy.pictures import hdr_picture

READ_ONLY_FOLDERS = "outside ComfyUI's"


@pytest.fixture
def saved(host):
    """Saves a picture with one of the savers and copies it into the input folder."""

    def run(node_id, **inputs):
        entry = host.call(node_id, **inputs).ui["images"][-1]
        path = host.base / "output" / entry["subfolder"] / entry["filename"]
        shutil.copy(path, host.base / "input" / f"{node_id}{path.suffix}")
        return f"{node_id}{path.suffix}"

    return run


def check_split(host, hdr, sdr, gain_map, qmax) -> None:
    merged = host.call("GMHDRMerge", sdr=sdr, gain_map=gain_map, qmax=qmax).args[0]
    torch.testing.assert_close(merged, hdr.clamp(min=0), rtol=1e-3, atol=1e-4)
    assert gain_map.max() <= 1 and sdr.min() >= 0 and sdr.max() <= 1


def test_exr_without_an_sdr_picture(host, saved) -> None:
    original = hdr_picture()
    hdr, sdr, gain_map, qmax, mask = host.call("GMHDRLoadHDR", image=saved("GMHDRSaveEXR", hdr=original)).args
    assert torch.equal(hdr, original) and mask.shape == (1, 24, 40) and not mask.any()
    check_split(host, hdr, sdr, gain_map, qmax)


def test_ultra_hdr_splits_into_the_picture_that_was_saved(host, saved) -> None:
    original = hdr_picture(height=64, width=64)
    base = (original / 60).sqrt()
    name = saved("GMHDRSaveUltraHDR", hdr=original, sdr=base)
    hdr, sdr, gain_map, qmax, _ = host.call("GMHDRLoadHDR", image=name).args
    assert (sdr - base).abs().mean() < 0.03
    check_split(host, hdr, sdr, gain_map, qmax)


@pytest.mark.parametrize("node_id", ["GMHDRSaveUltraHDR", "GMHDRSaveEXR"])
def test_the_sdr_picture_of_a_wide_file_keeps_its_colours(host, saved, node_id) -> None:
    orange = torch.tensor((0.9, 0.4, 0.1)).expand(1, 32, 32, 3).clone()
    name = saved(node_id, hdr=orange**2.2 * 3, sdr=orange, save_as="bt2020")
    hdr, sdr, gain_map, qmax, _ = host.call("GMHDRLoadHDR", image=name, convert_to="bt709").args
    torch.testing.assert_close(sdr, orange, rtol=0, atol=0.015)
    check_split(host, hdr, sdr, gain_map, qmax)


def test_radiance(host, saved) -> None:
    original = hdr_picture()
    hdr, *split = host.call("GMHDRLoadHDR", image=saved("GMHDRSaveRadiance", hdr=original)).args
    torch.testing.assert_close(hdr, original, rtol=0, atol=0.3)
    check_split(host, hdr, *split[:3])


def test_primaries_of_the_file_are_converted(host, saved) -> None:
    original = hdr_picture()
    name = saved("GMHDRSaveEXR", hdr=original, save_as="bt2020")
    as_file = host.call("GMHDRLoadHDR", image=name, convert_to="as in the file").args[0]
    converted = host.call("GMHDRLoadHDR", image=name).args[0]
    assert not torch.allclose(as_file, original, atol=0.1)
    torch.testing.assert_close(converted, original, rtol=1e-4, atol=1e-4)


def test_colours_outside_the_files_primaries_survive_their_conversion(host, saved) -> None:
    """Red of BT.2020 in BT.709, with negative green and blue, and back."""
    red = torch.tensor([1.660491, -0.124550, -0.018151]).expand(1, 4, 4, 3)
    hdr = host.call("GMHDRLoadHDR", image=saved("GMHDRSaveEXR", hdr=red), convert_to="bt2020").args[0]
    torch.testing.assert_close(hdr[0, 0, 0], torch.tensor([1.0, 0.0, 0.0]), rtol=0, atol=1e-5)


def test_colours_outside_the_primaries_are_cut_by_the_gain_map_alone(host, saved) -> None:
    wide = torch.tensor([1.660491, -0.124550, -0.018151]).expand(1, 4, 4, 3)
    hdr, *split = host.call("GMHDRLoadHDR", image=saved("GMHDRSaveEXR", hdr=wide)).args
    torch.testing.assert_close(hdr, wide, rtol=0, atol=1e-5)
    check_split(host, hdr.clamp(min=0), *split[:3])


def test_infinite_pixels_become_the_peak_where_primaries_change(host) -> None:
    openexr = pytest.importorskip("OpenEXR")
    pixels = np.ones((8, 8, 3), np.float32)
    pixels[0, 0] = (np.inf, np.inf, 5)
    header = {"type": openexr.scanlineimage, "colorInteropID": "lin_rec2020_scene"}
    openexr.File(header, {"RGB": pixels}).write(str(host.base / "input" / "sun.exr"))
    as_file = host.call("GMHDRLoadHDR", image="sun.exr", convert_to="as in the file").args[0]
    assert torch.isinf(as_file[0, 0, 0, :2]).all()
    converted = host.call("GMHDRLoadHDR", image="sun.exr").args[0]
    torch.testing.assert_close(converted[0, 0, 0], torch.full((3,), 5.0), rtol=1e-4, atol=1e-4)


def test_a_sun_beyond_the_largest_qmax_is_loaded_whole(host, saved) -> None:
    original = hdr_picture()
    original[0, 3, 3] = 1e6
    hdr, _, gain_map, qmax, _ = host.call("GMHDRLoadHDR", image=saved("GMHDRSaveEXR", hdr=original)).args
    assert torch.equal(hdr, original)
    assert qmax == 65535 and gain_map.max() == 1


def test_alpha_becomes_a_mask(host, saved) -> None:
    mask = torch.zeros(1, 24, 40)
    mask[:, :9] = 1
    name = saved("GMHDRSaveEXR", hdr=hdr_picture(), mask=mask)
    assert torch.equal(host.call("GMHDRLoadHDR", image=name).args[4], mask)


def test_what_is_half_transparent_stays_as_bright_from_save_to_save(host, saved) -> None:
    hdr, mask = torch.full((1, 8, 8, 3), 4.0), torch.full((1, 8, 8), 0.5)
    written = []
    for _ in range(2):
        name = saved("GMHDRSaveEXR", hdr=hdr, mask=mask)
        hdr, _, _, _, mask = host.call("GMHDRLoadHDR", image=name).args
        written.append((host.base / "input" / name).read_bytes())
    assert hdr.eq(4).all() and mask.eq(0.5).all()
    assert written[0] == written[1]


def test_content_decides_not_the_name(host, saved) -> None:
    name = saved("GMHDRSaveEXR", hdr=hdr_picture())
    (host.base / "input" / name).rename(host.base / "input/lies.hdr")
    assert host.call("GMHDRLoadHDR", image="lies.hdr").args[0].max() > 10


def test_names_as_core_writes_them(host) -> None:
    entry = host.call("GMHDRSaveEXR", hdr=hdr_picture()).ui["images"][-1]
    name = f"{entry['subfolder']}/{entry['filename']} [output]"
    assert host.node("GMHDRLoadHDR").validate_inputs(image=name) is True
    assert host.call("GMHDRLoadHDR", image=name).args[0].shape == (1, 24, 40, 3)


@pytest.mark.parametrize(
    "name", ["../secret.exr", "/etc/passwd", "a/../../secret.exr", "../secret.exr [output]"]
)
def test_nothing_outside_the_folders_is_read(host, name) -> None:
    (host.base / "secret.exr").write_bytes(b"x")
    assert READ_ONLY_FOLDERS in host.node("GMHDRLoadHDR").validate_inputs(image=name)
    with pytest.raises(ValueError, match=READ_ONLY_FOLDERS):
        host.call("GMHDRLoadHDR", image=name)


def test_links_out_of_the_input_folder_are_refused(host, tmp_path) -> None:
    (tmp_path / "x.exr").write_bytes(b"x")
    (host.base / "input/link.exr").symlink_to(tmp_path / "x.exr")
    assert READ_ONLY_FOLDERS in host.node("GMHDRLoadHDR").validate_inputs(image="link.exr")


@pytest.mark.parametrize(
    "content", [b"", b"\x76\x2f\x31\x01 short", b"\xff\xd8\xff\xe0 cut", b"#?RADIANCE\n", b"GIF89a"]
)
def test_damaged_files_are_refused_by_name(host, content) -> None:
    (host.base / "input/bad.exr").write_bytes(content)
    with pytest.raises(host.module("gm_core.errors").ImageReadError, match="bad.exr"):
        host.call("GMHDRLoadHDR", image="bad.exr")


def test_a_changed_file_is_read_again(host, saved) -> None:
    node = host.node("GMHDRLoadHDR")
    name = saved("GMHDRSaveEXR", hdr=hdr_picture())
    before = node.fingerprint_inputs(image=name, convert_to="bt709")
    assert node.fingerprint_inputs(image=name, convert_to="bt709") == before
    saved("GMHDRSaveEXR", hdr=hdr_picture(peak=2.0, width=20))
    assert node.fingerprint_inputs(image=name, convert_to="bt709") != before


def test_missing_file_says_so(host) -> None:
    assert "no such file" in host.node("GMHDRLoadHDR").validate_inputs(image="nowhere.exr")


@pytest.mark.parametrize("node_id", ["GMHDRLoadHDR", "GMHDRLoadGainMap", "GMHDRLoadVideo"])
def test_a_name_that_a_link_brings_is_read_when_it_is_known(host, node_id) -> None:
    """Until then core passes None."""
    node, name = host.node(node_id), "video" if node_id.endswith("Video") else "image"
    settings = {i.id: i.default for i in node.GET_SCHEMA().inputs if i.id != name}
    assert node.validate_inputs(**{name: None}) is True
    first, second = (node.fingerprint_inputs(**{name: None}, **settings) for _ in range(2))
    assert [first] != [second]
