"""What a Radiance file promises, and which variants of others are read."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gm_core.codecs.files import read_image
from gm_core.codecs.radiance import decode_radiance, encode_radiance
from gm_core.codecs.radiance.rgbe import from_rgbe, to_rgbe
from gm_core.codecs.radiance.rle import decode_lines, encode_lines
from gm_core.errors import ImageReadError, ImageWriteError
from tests.codecs.scenes import case, pq_psnr

HEADER = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n"


def random_hdr(height=24, width=37, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.exp2(rng.uniform(-20, 20, (height, width, 3))).astype(np.float32)


def test_rounding_error_is_bounded():
    hdr = random_hdr()
    error = np.abs(decode_radiance(encode_radiance(hdr)).hdr - hdr)
    assert (error <= hdr.max(-1, keepdims=True) / 255).all()


def test_a_picture_keeps_its_quality():
    hdr = case("street", 99, 96, 128).hdr
    assert pq_psnr(decode_radiance(encode_radiance(hdr)).hdr, hdr) >= 48


def test_what_is_read_is_written_again_unchanged():
    once = decode_radiance(encode_radiance(random_hdr())).hdr
    np.testing.assert_array_equal(decode_radiance(encode_radiance(once)).hdr, once)


def test_extremes():
    hdr = np.array([[[0, 0, 0], [-1, 0.5, 2], [1e-45, 0, 0], [3e38, 1, 0], [255.9, 1, 1]]], np.float32)
    back = decode_radiance(encode_radiance(hdr)).hdr
    np.testing.assert_array_equal(back[0, :3], [[0, 0, 0], [0, 0.5, 2], [0, 0, 0]])
    assert back[0, 3, 0] == pytest.approx(1.7e38, rel=0.01)
    assert back[0, 4, 0] == 256


def test_imagecodecs_reads_the_same():
    imagecodecs = pytest.importorskip("imagecodecs")
    hdr = case("street", 99, 96, 128).hdr
    data = encode_radiance(hdr)
    np.testing.assert_array_equal(imagecodecs.rgbe_decode(data), decode_radiance(data).hdr)


@given(
    arrays(
        np.uint8, st.tuples(st.integers(1, 3), st.integers(8, 300), st.just(4)), elements=st.integers(0, 2)
    )
)
def test_run_length_round_trip(rgbe):
    packed = encode_lines(rgbe)
    np.testing.assert_array_equal(decode_lines(packed, 0, rgbe.shape[0], rgbe.shape[1]), rgbe)


def test_flat_pictures_shrink():
    assert len(encode_lines(np.zeros((10, 1270, 4), np.uint8))) == 10 * (4 + 4 * 2 * 10)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (513, 1), (1, 513), (2, 8), (1, 32767), (1, 32768)])
def test_any_size(size):
    hdr = random_hdr(*size)
    np.testing.assert_array_equal(decode_radiance(encode_radiance(hdr)).hdr, from_rgbe(to_rgbe(hdr)))


@pytest.mark.parametrize("primaries", ["bt709", "bt2020", "acescg"])
def test_colour_space_travels(primaries):
    picture = decode_radiance(encode_radiance(random_hdr(), primaries=primaries, white_nits=100))
    assert (picture.primaries, picture.white_nits, picture.metadata["EXPOSURE"]) == (primaries, 100, "1")


@pytest.mark.parametrize(
    ("line", "turn"),
    [
        (b"-Y 4 +X 5", lambda p: p),
        (b"+Y 4 +X 5", lambda p: p[::-1]),
        (b"-Y 4 -X 5", lambda p: p[:, ::-1]),
        (b"+Y 4 -X 5", lambda p: p[::-1, ::-1]),
        (b"+X 4 -Y 5", lambda p: p.swapaxes(0, 1)),
        (b"-X 4 -Y 5", lambda p: p.swapaxes(0, 1)[:, ::-1]),
        (b"+X 4 +Y 5", lambda p: p.swapaxes(0, 1)[::-1]),
        (b"-X 4 +Y 5", lambda p: p.swapaxes(0, 1)[::-1, ::-1]),
    ],
)
def test_orientations(line, turn):
    rgbe = to_rgbe(random_hdr(4, 5))
    read = decode_radiance(HEADER + line + b"\n" + rgbe.tobytes()).hdr
    np.testing.assert_array_equal(read, turn(from_rgbe(rgbe)))


def test_old_run_length_form():
    stream = bytes((10, 20, 30, 129, 1, 1, 1, 5, 7, 7, 7, 128, 1, 1, 1, 1, 1, 1, 1, 1))
    read = decode_radiance(HEADER + b"-Y 1 +X 264\n" + stream).hdr
    expected = np.array([[10, 20, 30, 129]] * 6 + [[7, 7, 7, 128]] * 258, np.uint8)
    np.testing.assert_array_equal(read, from_rgbe(expected[None]))


def test_lines_may_end_as_on_windows():
    data = (HEADER + b"-Y 1 +X 1\n").replace(b"\n", b"\r\n") + b"\x80\x80\x80\x81"
    picture = decode_radiance(data)
    assert picture.metadata["FORMAT"] == "32-bit_rle_rgbe"
    np.testing.assert_array_equal(picture.hdr, 1)


# By ra_xyze of Radiance 6.0, from four RGBE pixels: 1 1 1, 4 1 0.5, 0.25 2 0.25 and 0.5 0.5 8.
XYZE = HEADER.replace(b"rgbe", b"xyze") + b"-Y        1 +X        4\n"
XYZE += bytes.fromhex("80808081 9e712a82 69b73c81 3720dd83")


def test_xyze_is_what_radiance_made_it_from():
    """In Radiance, src/common/spec_rgb.c, XYZ 1 1 1 is the white of its standard primaries."""
    picture = decode_radiance(XYZE)
    assert picture.primaries == "bt709"
    np.testing.assert_array_equal(picture.hdr[0, 0], 1)
    np.testing.assert_allclose(picture.hdr[0, 1:], [(4, 1, 0.5), (0.25, 2, 0.25), (0.5, 0.5, 8)], atol=0.03)


def test_meaningless_primaries_are_ignored():
    # The last two are Radiance's own, as other tools copy them and as Radiance writes them.
    own = (
        b".640 .330 .290 .600 .150 .060 .333 .333",
        b".6400 .3300 .2900 .6000 .1500 .0600 .3333 .3333",
    )
    for text in (b"0 0 0 0 0 0 0 0", b"x", *own):
        header = HEADER.replace(b"FORMAT", b"PRIMARIES=" + text + b"\nFORMAT")
        picture = decode_radiance(header + b"-Y 1 +X 1\n\x80\x80\x80\x81")
        assert picture.primaries == "bt709"
        np.testing.assert_array_equal(picture.hdr, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n-Y 1 +X 1\n", "no resolution line"),
        (HEADER + b"-Y 1 +Y 1\n", "no resolution line"),
        (HEADER + b"-Y 0 +X 1\n", "0 pixels|1 x 0"),
        (HEADER + b"-Y 100000 +X 100000\n", "header states"),
        (HEADER + b"-Y 20000 +X 5000\n\2\2\x13\x88", "cannot hold"),
        (HEADER.replace(b"rgbe", b"abcd") + b"-Y 1 +X 1\n\0\0\0\0", "FORMAT"),
        (HEADER + b"-Y 1 +X 8\n\2\2\0\x08\x90\1", "leaves the line"),
        (HEADER + b"-Y 1 +X 8\n\2\2\0\x08\x00\1", "leaves the line"),
        (HEADER + b"-Y 1 +X 8\n\2\2\0\x08\x88\1", "truncated"),
        (HEADER + b"-Y 1 +X 8\n\2\2\0\x08\x08\1", "leaves the line|truncated"),
        (HEADER + b"-Y 1 +X 8\n\2\2\0\x09" + b"\x89\5" * 40, "line 0 has another width"),
        (HEADER + b"-Y 1 +X 2\n\1\1\1\1\0\0\0\0", "leaves the line"),
        (HEADER + b"-Y 2 +X 2\n\0\0\0\0", "truncated"),
    ],
)
def test_damage_is_named(data, message, tmp_path):
    path = tmp_path / "bad.hdr"
    path.write_bytes(data)
    with pytest.raises(ImageReadError, match=message) as caught:
        read_image(path)
    assert re.search(r"bad\.hdr: Radiance", str(caught.value))


def test_bad_arguments_are_named():
    with pytest.raises(ImageWriteError, match="NaN"):
        encode_radiance(np.full((2, 2, 3), np.nan))
    with pytest.raises(ImageWriteError, match="primaries"):
        encode_radiance(np.zeros((2, 2, 3)), primaries="xyz")
