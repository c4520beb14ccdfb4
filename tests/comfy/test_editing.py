"""Edit Gain Map, HDR Recombine, Load Gain Map: art direction, and pictures of gain maps."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def stops(gain_map, qmax=99.0):
    return (1 + gain_map * qmax).log2()


@pytest.fixture
def edit(host):
    def run(gain_map, **inputs):
        return host.call("GMHDREditGainMap", gain_map=gain_map, **inputs).args[0]

    return run


def test_defaults_change_nothing(edit) -> None:
    gain_map = picture(1, 6, 6, 3) - 0.005
    torch.testing.assert_close(edit(gain_map), gain_map, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.5, -1.0])
def test_strength_scales_stops(edit, strength) -> None:
    gain_map = picture(1, 6, 6, 3)
    torch.testing.assert_close(
        stops(edit(gain_map, strength=strength)), stops(gain_map) * strength, rtol=1e-3, atol=1e-3
    )


def test_headroom_caps_the_brightest_channel(edit) -> None:
    capped = stops(edit(picture(1, 16, 16, 3), headroom=2.0))
    assert capped.max() == pytest.approx(2.0, abs=1e-3)


def test_mask_limits_the_change(edit) -> None:
    gain_map = picture(1, 6, 6, 3)
    mask = torch.zeros(1, 6, 6)
    mask[:, :3] = 1.0
    mask[:, 3] = 0.5
    result = stops(edit(gain_map, strength=0.0, mask=mask))
    torch.testing.assert_close(result[:, :3], torch.zeros(1, 3, 6, 3), rtol=0, atol=1e-4)
    torch.testing.assert_close(result[:, 3], stops(gain_map)[:, 3] / 2, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(result[:, 4:], stops(gain_map)[:, 4:], rtol=1e-4, atol=1e-4)


def test_where_a_mask_is_no_number_the_map_stays_as_it_is(edit) -> None:
    mask = torch.full((1, 8, 8), float("nan"))
    mask[:, :4] = 1.0
    given = torch.full((1, 8, 8, 3), 0.5)
    changed = edit(given, strength=0.5, mask=mask)
    torch.testing.assert_close(changed[:, 4:], given[:, 4:])
    assert (changed[:, :4] < given[:, :4]).all()


def test_a_mask_of_another_size_is_refused(edit) -> None:
    with pytest.raises(ValueError, match="mask is 5x5"):
        edit(picture(1, 6, 6, 3), mask=torch.ones(1, 5, 5))


def test_the_mask_that_load_image_gives_for_an_opaque_picture_changes_nothing(edit) -> None:
    gain_map = picture(1, 6, 7, 3)
    result = edit(gain_map, strength=0.0, mask=torch.zeros(1, 64, 64))
    torch.testing.assert_close(result, gain_map, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoding", ["linear", "log2"])
def test_recombine_is_merge_of_the_decoded_picture(host, encoding) -> None:
    sdr, coded = picture(2, 6, 6, 3), picture(1, 6, 6, 1, seed=1)
    hdr, gain_map = host.call("GMHDRRecombine", sdr=sdr, gain_map=coded, encoding=encoding, qmax=31.0).args
    expected = coded if encoding == "linear" else (32**coded - 1) / 31
    torch.testing.assert_close(gain_map, expected.expand(2, 6, 6, 3), rtol=1e-4, atol=1e-5)
    merged = host.call("GMHDRMerge", sdr=sdr, gain_map=gain_map, qmax=31.0).args[0]
    torch.testing.assert_close(hdr, merged)


def test_recombine_fits_a_smaller_gain_map(host) -> None:
    hdr = host.call("GMHDRRecombine", sdr=picture(1, 33, 41, 3), gain_map=picture(1, 8, 10, 3)).args[0]
    assert hdr.shape == (1, 33, 41, 3)


@pytest.mark.parametrize("faulty", ["sdr", "gain_map"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_recombine_fits_no_pixels_that_are_no_numbers(host, faulty, value) -> None:
    pictures = {"sdr": picture(1, 33, 41, 3), "gain_map": picture(1, 8, 10, 3)}
    pictures[faulty][0, 2, 3, 1] = value
    with pytest.raises(ValueError, match=f"{faulty}: the picture holds NaN or infinite pixels"):
        host.call("GMHDRRecombine", **pictures)


def test_recombine_fits_to_what_the_sdr_picture_shows(host) -> None:
    sdr, coded = 3 * picture(1, 33, 41, 3) - 1, picture(1, 8, 10, 3)
    hdr = host.call("GMHDRRecombine", sdr=sdr, gain_map=coded).args[0]
    torch.testing.assert_close(hdr, host.call("GMHDRRecombine", sdr=sdr.clamp(0, 1), gain_map=coded).args[0])


@pytest.mark.parametrize("encoding", ["linear", "log2"])
def test_saved_gain_map_comes_back(host, encoding) -> None:
    gain_map = picture(1, 20, 30, 3)
    entry = host.call(
        "GMHDRSaveGainMap", gain_map=gain_map, qmax=49.0, encoding=encoding, filename_prefix="maps/x"
    ).ui["images"][0]
    shutil.copy(host.base / "output/maps" / entry["filename"], host.base / "input/map.png")
    back, qmax = host.call("GMHDRLoadGainMap", image="map.png").args
    assert qmax == 49.0
    torch.testing.assert_close(stops(back, 49.0), stops(gain_map, 49.0), rtol=1e-3, atol=1e-3)


def test_eight_bit_picture_of_the_paper(host) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(codes).save(host.base / "input/gm_paper.png")
    gain_map, qmax = host.call("GMHDRLoadGainMap", image="gm_paper.png").args
    torch.testing.assert_close(gain_map[0], torch.from_numpy(codes / np.float32(255)))
    assert qmax == 99.0
    log2, _ = host.call("GMHDRLoadGainMap", image="gm_paper.png", encoding="log2", qmax=15.0).args
    torch.testing.assert_close(stops(log2, 15.0), gain_map * 4, rtol=1e-3, atol=1e-3)


def test_an_hdr_file_is_no_gain_map(host) -> None:
    entry = host.call("GMHDRSaveEXR", hdr=picture(1, 4, 4, 3)).ui["images"][-1]
    name = f"{entry['subfolder']}/{entry['filename']} [output]"
    with pytest.raises(ValueError, match="Use Load HDR Image"):
        host.call("GMHDRLoadGainMap", image=name)
