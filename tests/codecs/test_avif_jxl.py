"""AVIF and JPEG XL, for which imagecodecs writes."""

from __future__ import annotations

import io
import json
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from gm_core.codecs.avif import decode_avif, encode_avif
from gm_core.codecs.exif import exif_block
from gm_core.codecs.files import read_image
from gm_core.codecs.jxl import decode_jxl, encode_jxl
from gm_core.codecs.jxl.header import read_header
from gm_core.codecs.signal import light_level, pq_codes
from gm_core.errors import ImageReadError, ImageWriteError
from tests.codecs.readers import exiftool
from tests.codecs.scenes import case, psnr
from tests.marks import writes_avif

imagecodecs = pytest.importorskip("imagecodecs")
CODECS = [pytest.param(encode_avif, decode_avif, marks=writes_avif), (encode_jxl, decode_jxl)]
# By cjxl 0.7: 4x4 pixels, BT.2020, PQ, columns of 0.5, 1, 4 and 16 times 203 nits.
PQ_JXL = bytes.fromhex(
    "0000000c4a584c200d0a870a00000014667479706a786c20000000006a786c20000000096a786c6c0a000000396a786c63ff0a18"
    "10013f0079f488c30100000020080201006c004b18930e709090a2c173f101b839c1d448024c460d000000000000"
)


def codes_of(picture) -> np.ndarray:
    return pq_codes(picture.hdr, primaries=picture.primaries, white_nits=203)


@pytest.fixture(scope="module")
def blobs() -> np.ndarray:
    return case("blobs", 9, 96, 129).hdr.astype(np.float32)


@writes_avif
@pytest.mark.parametrize("bits", [10, 12])
def test_lossless_avif_keeps_every_code(blobs, bits):
    picture = decode_avif(encode_avif(blobs, bits=bits, quality=100))
    top = (1 << bits) - 1
    expected = np.floor(pq_codes(blobs, primaries="bt709", white_nits=203) * top + 0.5)
    np.testing.assert_array_equal(np.rint(codes_of(picture) * top), expected)
    assert picture.metadata["bits"] == bits


@writes_avif
def test_lossy_avif_is_close_and_tagged(blobs, tmp_path):
    data = encode_avif(blobs)
    assert psnr(codes_of(decode_avif(data)), pq_codes(blobs, primaries="bt709", white_nits=203)) >= 54
    path = tmp_path / "a.avif"
    path.write_bytes(data)
    tags = exiftool(path)
    assert tags["QuickTime:ColorPrimaries"] == 9
    assert tags["QuickTime:TransferCharacteristics"] == 16
    assert tags["QuickTime:MatrixCoefficients"] == 9
    assert tags["QuickTime:ImagePixelDepth"] == "10 10 10"


@writes_avif
def test_avif_carries_light_levels_and_workflow(blobs, tmp_path):
    path = tmp_path / "a.avif"
    path.write_bytes(encode_avif(blobs, exif=exif_block({"prompt": json.dumps({"1": {"text": "über"}})})))
    tags = exiftool(path)
    assert tags["IFD0:Model"] == 'prompt:{"1": {"text": "\\u00fcber"}}'
    data = path.read_bytes()
    level = light_level(blobs, primaries="bt709", white_nits=203)
    at = data.index(b"clli") + 4
    assert struct.unpack_from(">HH", data, at) == (round(level.max_cll), round(level.average))
    # BT.2020 green, blue, red and D65 in units of 0.00002; 10000 and 0.0001 nits in units of 0.0001.
    mastering = struct.unpack_from(">8HII", data, data.index(b"mdcv") + 4)
    assert mastering[:8] == (8500, 39850, 6550, 2300, 35400, 14600, 15635, 16450)
    assert mastering[8:] == (100_000_000, 1)
    np.testing.assert_array_equal(decode_avif(data).hdr, decode_avif(encode_avif(blobs)).hdr)
    assert imagecodecs.avif_decode(data).shape == blobs.shape
    with Image.open(path) as image:
        assert image.getexif()[0x0110].startswith("prompt:")


def test_a_large_plain_avif_is_no_bomb():
    file = io.BytesIO()
    Image.new("L", (4096, 4096), 255).save(file, "AVIF", speed=10)
    assert len(file.getvalue()) < 800
    assert decode_avif(file.getvalue()).sdr.min() == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_stands_upright_with_its_alpha(orientation):
    ramp = np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)
    image = Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2, ramp[::-1]], axis=-1), "RGBA")
    image.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(image)) / 255
    file = io.BytesIO()
    image.save(file, "AVIF", quality=100, subsampling="4:4:4", exif=image.getexif())
    picture = decode_avif(file.getvalue())
    np.testing.assert_allclose(picture.sdr, upright[..., :3], atol=5 / 255)
    np.testing.assert_allclose(picture.alpha, upright[..., 3], atol=1 / 255)


def test_jxl_is_float_and_lossless(blobs):
    hdr = blobs - 0.02
    picture = decode_jxl(encode_jxl(hdr))
    assert np.abs(picture.hdr - hdr).max() <= 1e-6 * hdr.max()
    assert picture.primaries == "bt709"


def test_jxl_is_stored_in_bt709(blobs):
    red = np.zeros((8, 8, 3), np.float32) + (1, 0, 0)
    np.testing.assert_allclose(
        decode_jxl(encode_jxl(red, primaries="bt2020")).hdr[0, 0], (1.6605, -0.1246, -0.0182), atol=1e-3
    )


def test_integer_jxl_is_sdr():
    codes = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    picture = decode_jxl(imagecodecs.jpegxl_encode(codes, lossless=True))
    np.testing.assert_array_equal(np.rint(picture.sdr * 255), codes)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
def test_integer_jxl_of_any_depth_is_as_bright_as_it_was(bits, channels):
    full = (1 << bits) - 1
    codes = np.random.default_rng(0).integers(0, full + 1, (9, 11, channels))
    codes[0, :2] = [[0], [full]]
    kind = np.uint8 if bits == 8 else np.uint16
    picture = decode_jxl(imagecodecs.jpegxl_encode(codes.astype(kind), lossless=True, bitspersample=bits))
    # The library tags all but 8 bits as linear light.
    light = picture.hdr if picture.sdr is None else picture.sdr
    np.testing.assert_allclose(light, np.broadcast_to(codes[..., :3], (9, 11, 3)) / full, atol=1e-6)
    if channels == 4:
        np.testing.assert_allclose(picture.alpha, codes[..., 3] / full, atol=1e-6)


def with_alpha_header(codes: np.ndarray, change: int) -> bytes:
    """A file of 10 bits a channel; change: bits of its alpha's description to flip."""
    data = imagecodecs.jpegxl_encode(codes, lossless=True, bitspersample=10)
    ten = bits((0, 1), (0, 2), (0, 1), (1, 2))
    stream = int.from_bytes(data, "little")
    at = next(at for at in range(30, 60) if stream >> at & 0b111111 == ten)
    return (stream ^ change << at).to_bytes(len(data), "little")


def test_alpha_of_its_own_depth_is_scaled_with_the_colour():
    deeper = with_alpha_header(np.full((8, 8, 4), 512, np.uint16), 0b11 << 4)
    np.testing.assert_allclose(decode_jxl(deeper).alpha, 512 / 4095, atol=1 / 1023)


def test_colours_of_a_jxl_multiplied_by_alpha_are_divided_by_it():
    codes = np.full((8, 8, 4), (300, 200, 100, 400), np.uint16)
    codes[0] = 0
    picture = decode_jxl(with_alpha_header(codes, 1 << 10))
    np.testing.assert_allclose(picture.hdr[1:], np.broadcast_to((0.75, 0.5, 0.25), (7, 8, 3)), rtol=1e-5)
    assert not picture.hdr[0].any() and not picture.alpha[0].any()


@pytest.mark.parametrize("channels", [3, 4])
def test_of_an_animated_jxl_the_first_frame_is_read(channels):
    frames = np.random.default_rng(0).integers(0, 256, (3, 9, 11, channels), np.uint8)
    picture = decode_jxl(imagecodecs.jpegxl_encode(frames, lossless=True))
    np.testing.assert_array_equal(np.rint(picture.sdr * 255), frames[0, ..., :3])
    assert (picture.alpha is None) == (channels == 3)


def test_jxl_in_pq_is_hdr():
    picture = decode_jxl(PQ_JXL)
    assert picture.primaries == "bt2020" and picture.sdr is None
    np.testing.assert_allclose(picture.hdr, np.broadcast_to([[0.5], [1], [4], [16]], (4, 4, 3)), rtol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (64, 64), (1, 513), (300, 200)])
@pytest.mark.parametrize(("encode", "decode"), CODECS)
def test_any_size(encode, decode, size):
    hdr = np.full((*size, 3), 2.0, np.float32)
    assert decode(encode(hdr)).hdr.shape == hdr.shape


@pytest.mark.parametrize(("encode", "decode"), CODECS)
def test_truncated_files_are_named(blobs, tmp_path, encode, decode):
    data, path = encode(blobs), tmp_path / "cut"
    for length in (13, 40, len(data) // 3):
        path.write_bytes(data[:length])
        with pytest.raises(ImageReadError, match="cut"):
            read_image(path)


def bits(*fields: tuple[int, int]) -> int:
    """Values of so many bits each, the first one lowest."""
    value, position = 0, 0
    for field, width in fields:
        value |= field << position
        position += width
    return value


def enum(value: int) -> tuple[tuple[int, int], ...]:
    return ((value, 2),) if value < 2 else ((2, 2), (value - 2, 4))


def point(x: float, y: float) -> tuple[tuple[int, int], ...]:
    fields = []
    for value in (round(2e6 * x), round(2e6 * y)):
        choice = min(value >> 19, 2)
        fields += [(choice, 2), (value - (choice << 19), 20 if choice == 2 else 19)]
    return tuple(fields)


def jxl_header(*colour: tuple[int, int], extra: tuple[tuple[int, int], ...] = ((0, 1),)) -> bytes:
    """A codestream of 8x8 pixels up to its colours; extra: the fields of animations and the like."""
    size, depth, rest = ((1, 1), (0, 5), (1, 3)), ((0, 1), (0, 2), (1, 1)), ((0, 2), (0, 1), (0, 1))
    return b"\xff\x0a" + bits(*size, (0, 1), *extra, *depth, *rest, *colour).to_bytes(60, "little")


NO_PROFILE, RGB, D65, BT2020 = (0, 1), enum(0), enum(1), enum(9)
ANIMATED = ((1, 1), (0, 3), (0, 1), (0, 1), (1, 1), (0, 2), (0, 2), (0, 2), (0, 1))


def test_jxl_colours_are_read_behind_an_animation():
    header = read_header(jxl_header(NO_PROFILE, *RGB, *D65, *BT2020, (0, 1), *enum(16), extra=ANIMATED))
    assert header.colour.transfer == 16
    assert header.colour.chromaticities == (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290)


def test_jxl_colours_may_be_given_by_numbers():
    adobe = (*point(0.64, 0.33), *point(0.21, 0.71), *point(0.15, 0.06))
    header = read_header(
        jxl_header(NO_PROFILE, *RGB, *enum(2), *point(0.3, 0.4), *enum(2), *adobe, (1, 1), (4545454, 24))
    )
    assert header.colour.chromaticities == (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, 0.3, 0.4)
    assert header.colour.gamma == pytest.approx(2.2)


@pytest.mark.parametrize(
    ("number", "white"), [(1, (0.3127, 0.3290)), (10, (1 / 3, 1 / 3)), (11, (0.314, 0.351))]
)
def test_jxl_whites_are_those_of_the_standard(number, white):
    """ISO/IEC 18181-1: D65, equal energy, and that of digital cinema."""
    header = read_header(jxl_header(NO_PROFILE, *RGB, *enum(number), *BT2020, (0, 1), *enum(16)))
    assert header.colour.chromaticities[6:] == pytest.approx(white, abs=1e-6)


def test_jxl_in_a_container_is_found_behind_other_boxes(blobs):
    data = encode_jxl(blobs)
    start = data.index(b"jxlc") - 4
    exif = struct.pack(">I4s", 20, b"Exif") + b"\xff\x0a" * 6
    parted = data[start : start + 8].replace(b"jxlc", b"jxlp"), bytes((0x80, 0, 0, 0)), data[start + 8 :]
    size = struct.pack(">I", int.from_bytes(data[start : start + 4], "big") + 4)
    for other in (
        data[:start] + exif + data[start:],
        data[:start] + exif + size + b"jxlp" + b"".join(parted[1:]),
    ):
        assert read_header(other) == read_header(data)
        np.testing.assert_array_equal(decode_jxl(other).hdr, decode_jxl(data).hdr)


def test_a_jxl_with_nothing_but_a_profile_is_named():
    with pytest.raises(ImageReadError, match="ICC profile alone.*djxl to PNG"):
        decode_jxl(jxl_header((1, 1), *RGB))


def test_jxl_bomb_is_refused():
    # small = 0, height 2^30 by selector 3, ratio 1:1
    bits = 0 | 3 << 1 | (2**30 - 1) << 3 | 1 << 33
    with pytest.raises(ImageReadError, match="header states"):
        decode_jxl(b"\xff\x0a" + bits.to_bytes(20, "little"))


def test_the_missing_library_is_named(blobs, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ImageWriteError, match="pip install imagecodecs"):
        encode_avif(blobs)
    with pytest.raises(ImageWriteError, match="pip install imagecodecs"):
        encode_jxl(blobs)


def test_a_library_too_old_for_colour_tags_is_named(blobs, monkeypatch):
    old = SimpleNamespace(__version__="2025.3.30", avif_encode=lambda data, level=None: b"")
    monkeypatch.setitem(sys.modules, "imagecodecs", old)
    with pytest.raises(ImageWriteError, match="imagecodecs 2025.3.30 .* pip install --upgrade imagecodecs"):
        encode_avif(blobs)


def test_bad_arguments_are_named(blobs):
    with pytest.raises(ImageWriteError, match="bits 8"):
        encode_avif(blobs, bits=8)
    with pytest.raises(ImageWriteError, match="effort"):
        encode_jxl(blobs, effort=0)
