"""What an Ultra HDR file promises to its readers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gm_core.codecs.ultrahdr import PRESETS, decode_ultrahdr, encode_ultrahdr
from gm_core.codecs.ultrahdr import jpeg_segments as jpeg
from gm_core.codecs.ultrahdr.gain_map_fit import clip_noise, fit
from gm_core.codecs.ultrahdr.hdrgm_xmp import Xmp
from gm_core.codecs.ultrahdr.iso21496 import read_iso
from gm_core.codecs.ultrahdr.mpf import read_mpf
from gm_core.errors import ImageWriteError
from tests.codecs.readers import exiftool, libultrahdr
from tests.codecs.scenes import PHOTOS, SYNTHETIC, case, pq_psnr, relative_p99

SIZE = (192, 256)
LIMITS = {"default": {9: 50.0, 99: 46.5}, "high": {9: 55.0, 99: 52.0}, "small": {9: 43.5, 99: 40.0}}


def encode(scene, preset="default", **options) -> bytes:
    quality, gain_map_quality = PRESETS[preset]
    options = {"quality": quality, "gain_map_quality": gain_map_quality} | options
    return encode_ultrahdr(sdr=scene.sdr, hdr=scene.hdr, **options)


@pytest.fixture(scope="module")
def street() -> bytes:
    return encode(case("street", 9, *SIZE))


@pytest.mark.parametrize("qmax", [9, 99])
@pytest.mark.parametrize("name", [*PHOTOS, *SYNTHETIC])
def test_decodes_to_equation_1(name, qmax):
    scene = case(name, qmax, *SIZE)
    hdr = decode_ultrahdr(encode(scene)).hdr
    assert pq_psnr(hdr, scene.hdr) >= LIMITS["default"][qmax]
    assert relative_p99(hdr, scene.hdr) <= {9: 0.07, 99: 0.11}[qmax]


@pytest.mark.parametrize("qmax", [9, 99])
@pytest.mark.parametrize("preset", ["small", "high"])
@pytest.mark.parametrize("name", ["night", "cellar"])
def test_presets_reach_their_quality(name, preset, qmax):
    scene = case(name, qmax, *SIZE)
    assert pq_psnr(decode_ultrahdr(encode(scene, preset)).hdr, scene.hdr) >= LIMITS[preset][qmax]


@pytest.mark.parametrize("name", ["street", "star"])
def test_libultrahdr_agrees(name, tmp_path):
    scene = case(name, 9, *SIZE)
    data = encode(scene)
    theirs = libultrahdr(data, tmp_path)
    assert pq_psnr(theirs, scene.hdr) >= LIMITS["default"][9]
    assert pq_psnr(decode_ultrahdr(data).hdr, theirs) >= 58


def test_libultrahdr_agrees_at_a_partial_boost(street, tmp_path):
    ours = decode_ultrahdr(street, headroom=2.0).hdr
    assert pq_psnr(ours, libultrahdr(street, tmp_path, boost=2.0)) >= 55


@pytest.mark.parametrize("quality", [80, 95])
def test_base_decodes_as_a_plain_save(quality):
    scene = case("window", 9, *SIZE)
    plain = io.BytesIO()
    codes = np.round(scene.sdr * 255).astype(np.uint8)
    Image.fromarray(codes).save(plain, "JPEG", quality=quality, subsampling=0)
    ultra = encode(scene, quality=quality)
    np.testing.assert_array_equal(Image.open(plain), Image.open(io.BytesIO(ultra)))
    np.testing.assert_array_equal(encode_ultrahdr(sdr=codes, hdr=scene.hdr, quality=quality), ultra)


def test_gain_of_zero_is_the_paper_curve():
    sdr = case("grey", 9, *SIZE).sdr
    data = encode_ultrahdr(sdr=sdr, hdr=sdr**2.2, gain_map_quality=95)
    assert pq_psnr(decode_ultrahdr(data).hdr, sdr**2.2) >= 70


def test_black_stays_black():
    hdr = decode_ultrahdr(encode(case("star", 99, *SIZE))).hdr
    assert np.abs(hdr[:40]).max() < 1e-6


def test_channels_without_light_stay_dark_beside_lit_ones():
    scene = case("cellar", 99, *SIZE)
    dark = scene.hdr[..., 2] == 0
    blue = decode_ultrahdr(encode(scene)).hdr[..., 2][dark]
    assert dark.mean() > 0.4 and (blue == 0).mean() > 0.99


def test_rare_noise_of_the_base_does_not_widen_the_range():
    gains = np.linspace(-0.5, 3, 3 * 192 * 256, dtype=np.float32).reshape(*SIZE, 3)
    gains[0, 0] = -5
    assert -0.51 < clip_noise(gains.copy(), lowest=-0.2).min() < -0.49
    assert clip_noise(gains.copy(), lowest=-4.0).min() == -4


def test_a_small_spot_darker_than_its_base_is_kept():
    sdr = np.full((*SIZE, 3), 0.5)
    hdr = sdr**2.2
    hdr[40:45, 40:45] = 0.01
    spot = decode_ultrahdr(encode_ultrahdr(sdr=sdr, hdr=hdr)).hdr[42, 42]
    np.testing.assert_allclose(spot, 0.01, atol=2e-3)


def test_equation_1_gain_map_is_recovered():
    scene = case("studio", 99, *SIZE)
    hdr = decode_ultrahdr(encode(scene)).hdr
    gain_map = ((hdr + 1 / 64) / (scene.sdr**2.2 + 1 / 64) - 1) / 99
    error = np.abs(np.clip(gain_map, 0, 1) - scene.gain_map)[scene.sdr > 0.05]
    assert error.mean() <= 0.006
    assert np.percentile(error, 99) <= 0.04


def second_picture(data: bytes) -> tuple[jpeg.Jpeg, jpeg.Jpeg]:
    primary = jpeg.parse_jpeg(data)
    return primary, jpeg.parse_jpeg(data, primary.end)


def test_both_metadata_kinds_say_the_same(street):
    _, gain_map = second_picture(street)
    iso = read_iso(gain_map.payloads(jpeg.APP2, jpeg.ISO_GAIN_MAP)[0])
    xmp = Xmp(gain_map.payloads(jpeg.APP1, jpeg.XMP)[0]).hdrgm()
    for name in ("minimum", "maximum", "gamma", "offset_sdr", "offset_hdr", "capacity_min", "capacity_max"):
        np.testing.assert_allclose(getattr(iso, name), getattr(xmp, name), atol=1e-6)
    assert iso.offset_sdr == iso.offset_hdr == (1 / 64,) * 3
    assert not iso.per_channel


def test_index_and_directory_point_at_the_gain_map(street):
    primary, gain_map = second_picture(street)
    assert gain_map.end == len(street)
    (index,) = [s for s in primary.segments if s.payload.startswith(jpeg.MPF)]
    first, second = read_mpf(index.payload[4:])
    assert (first.offset, first.size) == (0, primary.end)
    assert index.position + 4 + second.offset == primary.end
    assert second.size == len(street) - primary.end
    assert Xmp(primary.payloads(jpeg.APP1, jpeg.XMP)[0]).gain_map_item() == (0, second.size)
    assert index is [s for s in primary.segments if 0xE0 <= s.marker <= 0xEF][-1]


def test_exiftool_finds_the_gain_map(street, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(street)
    tags = exiftool(path)
    assert tags["MPImage2:MPImageStart"] + tags["MPImage2:MPImageLength"] == len(street)
    assert tags["MPImage1:MPImageType"] == 0x030000
    assert tags["XMP-Container:DirectoryItemLength"] == tags["MPImage2:MPImageLength"]
    assert "Warning" not in str(exiftool(path, "-validate").keys())


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(192, 256), (101, 67)])
def test_small_maps_are_stretched_over_the_picture(scale, size, tmp_path):
    scene = case("blobs", 9, *size)
    data = encode(scene, gain_map_scale=scale)
    picture = decode_ultrahdr(data)
    assert picture.gain_map.shape == (-(-size[0] // scale), -(-size[1] // scale), 3)
    assert pq_psnr(picture.hdr, scene.hdr) >= 45
    # libultrahdr 1.4 aligns the corners of map and picture, not their edges.
    assert pq_psnr(libultrahdr(data, tmp_path), scene.hdr) >= 38


@pytest.mark.parametrize("primaries", ["bt709", "p3", "bt2020"])
def test_primaries_travel_in_the_profile(primaries, tmp_path):
    scene = case("church", 9, *SIZE)
    data = encode(scene, primaries=primaries)
    picture = decode_ultrahdr(data)
    assert picture.primaries == primaries
    assert pq_psnr(picture.hdr, scene.hdr) >= 50
    assert pq_psnr(libultrahdr(data, tmp_path), scene.hdr) >= 48


def test_a_wide_gamut_survives_beside_a_bt709_base(tmp_path):
    scene = case("church", 9, *SIZE)
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    wide = np.maximum(scene.hdr @ to_2020.T, 0) * (1.0, 2.0, 0.5)
    data = encode_ultrahdr(sdr=scene.sdr, hdr=wide, hdr_primaries="bt2020")
    picture = decode_ultrahdr(data)
    assert picture.primaries == "bt709" and picture.hdr.min() < -0.01
    assert pq_psnr(picture.hdr @ to_2020.T, wide) >= 48
    assert pq_psnr(libultrahdr(data, tmp_path), wide) >= 46
    assert b"hdrgm" not in data


@pytest.mark.parametrize("peak", [0.0, 0.5, 1e4, 1e30])
def test_any_brightness_is_written(peak):
    sdr = case("blobs", 9, 32, 32).sdr
    picture = decode_ultrahdr(encode_ultrahdr(sdr=sdr, hdr=np.full((32, 32, 3), peak)))
    assert np.isfinite(picture.hdr).all()
    if peak <= 1e4:
        assert np.median(picture.hdr[sdr > 0.5]) == pytest.approx(peak, rel=0.05, abs=0.02)


@pytest.mark.parametrize(("peak", "told"), [(400.0, False), (2000.0, True)])
def test_gains_beyond_the_limit_are_told(peak, told, caplog):
    """2^15 on black is 512 times SDR white."""
    hdr = np.full((16, 16, 3), 0.5)
    hdr[4:8, 4:8] = peak
    read = decode_ultrahdr(encode_ultrahdr(sdr=np.where(hdr > 1, 0, hdr), hdr=hdr))
    assert ("48 of 768 values would need a gain beyond" in caplog.text) == told
    assert read.hdr.max() == pytest.approx(min(peak, 512), rel=0.05)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (513, 1), (1, 513), (16, 8192), (31, 33)])
def test_odd_sizes(size, tmp_path):
    rng = np.random.default_rng(0)
    sdr = rng.uniform(size=(*size, 3))
    data = encode_ultrahdr(sdr=sdr, hdr=np.full((*size, 3), 4.0))
    assert decode_ultrahdr(data).hdr.shape == (*size, 3)
    assert libultrahdr(data, tmp_path).shape == (*size, 3)


def test_exif_is_kept_and_found():
    exif = Image.Exif()
    exif[0x0110] = 'prompt:{"1": {}}'
    data = encode(case("blobs", 9, 32, 32), exif=exif.tobytes())
    assert Image.open(io.BytesIO(data)).getexif()[0x0110] == 'prompt:{"1": {}}'
    assert b'prompt:{"1": {}}' in decode_ultrahdr(data).metadata["exif"]


def test_orientation_turns_every_picture():
    scene = case("blobs", 9, 48, 64)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode_ultrahdr(encode(scene, exif=exif.tobytes()))
    plain = decode_ultrahdr(encode(scene))
    for name in ("hdr", "sdr", "gain_map"):
        np.testing.assert_array_equal(getattr(turned, name), np.rot90(getattr(plain, name), -1))


@given(st.integers(1, 8))
def test_orientations_match_pillow(orientation):
    from PIL import ImageOps

    from gm_core.codecs.pillow_srgb import upright

    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(upright(pixels, orientation), ImageOps.exif_transpose(image))


@given(low=st.floats(-15, -1e-6), high=st.floats(1e-6, 15), gamma=st.floats(0.1, 10))
def test_one_code_is_a_gain_of_one_under_any_gamma(low, high, gamma):
    metadata = fit(np.array([low, high]), 1.0, gamma)
    codes = np.arange(256, dtype=np.float32) / 255
    assert np.abs(np.log2(metadata.gain(codes, channel=0))).min() < 1e-3
    bottom, top = metadata.minimum[0], metadata.maximum[0]
    assert bottom <= low + 1e-4 and top >= high - 1e-4
    assert top - bottom <= 1.025 * (high - low) + 0.002


@pytest.mark.parametrize("gamma", [0.1, 9.0, 10.0])
def test_the_most_extreme_gammas_are_written(gamma):
    """Half of the picture two stops darker than its base, half of it almost as much brighter."""
    sdr = np.full((16, 16, 3), 0.5)
    hdr = np.full((16, 16, 3), 0.214) * np.where(np.arange(16) < 8, 2**-2, 2**1.9)[:, None]
    read = decode_ultrahdr(encode_ultrahdr(sdr=sdr, hdr=hdr, gamma=gamma)).hdr
    np.testing.assert_allclose(read, hdr, rtol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hdr": np.full((4, 4, 3), np.nan)}, "NaN"),
        ({"hdr": np.zeros((4, 5, 3))}, "must be equal"),
        ({"sdr": np.zeros((4, 4))}, r"shape \(4, 4\)"),
        ({"primaries": "acescg"}, "primaries is 'acescg'"),
        ({"primaries": "p3", "hdr_primaries": "bt709"}, "hdr_primaries is 'bt709'"),
        ({"quality": 0}, "qualities"),
        ({"gain_map_scale": 3}, "gain_map_scale"),
        ({"gamma": 0.0}, "gamma"),
        ({"exif": bytes(70000)}, "do not fit one segment"),
    ],
)
def test_bad_arguments_are_named(options, message):
    arguments = {"sdr": np.zeros((4, 4, 3)), "hdr": np.zeros((4, 4, 3))} | options
    with pytest.raises(ImageWriteError, match=message):
        encode_ultrahdr(**arguments)
