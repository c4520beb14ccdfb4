"""Pictures as they are found in the wild."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.ExifTags import Base

from gm_core.codecs.icc import build_icc
from gm_core.color import convert_primaries, linear_to_srgb, srgb_to_linear
from training.data.decode import decode_gain_map, decode_sdr, encode_gain_map, image_size, read_bytes
from training.errors import RejectedSample
from training.tiny import make_photo


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


PHOTO = Image.fromarray(make_photo(40, 56, seed=1))


@pytest.mark.parametrize(
    "data",
    [
        encoded(PHOTO.convert("CMYK"), "JPEG"),
        encoded(PHOTO.convert("L"), "PNG"),
        encoded(PHOTO.convert("P"), "PNG"),
        encoded(PHOTO.convert("RGBA"), "PNG"),
        encoded(PHOTO.convert("1"), "PNG"),
        encoded(PHOTO.convert("LA"), "WEBP"),
        encoded(Image.fromarray(np.full((40, 56), 30000, np.uint16)), "PNG"),
    ],
    ids=["cmyk", "grey", "palette", "rgba", "bilevel", "grey alpha", "16 bit"],
)
def test_unusual_pictures_become_rgb(data: bytes) -> None:
    picture = decode_sdr(data)
    assert (picture.mode, picture.size) == ("RGB", (56, 40))


def test_16_bit_grey_keeps_its_brightness() -> None:
    levels = np.linspace(0, 65535, 10 * 10).reshape(10, 10).astype(np.uint16)
    found = np.asarray(decode_sdr(encoded(Image.fromarray(levels), "PNG")), np.float64)
    assert np.abs(found - levels[..., None] / 257).max() <= 0.5


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    assert decode_sdr(encoded(clear, "PNG")).getpixel((1, 1)) == (255, 255, 255)


def test_exif_orientation_is_applied_and_known_from_the_header() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(PHOTO, "JPEG", exif=exif.tobytes())
    assert decode_sdr(data).size == (40, 56)
    assert image_size(data) == (56, 40)


def test_odd_exif_does_not_cost_the_picture() -> None:
    """A tag for a number that holds text, as Pillow reads but cannot write."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a width"
    data = encoded(PHOTO, "JPEG", exif=exif)
    odd = data.replace(b"\x01\x0e\x00\x02", b"\x01\x00\x00\x02")
    assert odd != data and decode_sdr(odd).size == (40, 56)


def test_damaged_exif_costs_neither_the_picture_nor_its_size() -> None:
    data = encoded(PHOTO, "PNG", exif=b"nonsense")
    assert decode_sdr(data).size == PHOTO.size and image_size(data) == (PHOTO.height, PHOTO.width)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_wide_gamut_profile_is_converted(mode: str) -> None:
    # Of the web palette, which a picture of mode P has.
    colour = (204, 102, 102)
    photo = Image.new("RGB", (8, 8), colour).convert(mode)
    found = np.asarray(decode_sdr(encoded(photo, "PNG", icc_profile=build_icc("p3"))))[0, 0]
    linear = srgb_to_linear(torch.tensor(colour).view(1, 3, 1, 1) / 255)
    expected = linear_to_srgb(convert_primaries(linear, "p3", "bt709")).flatten().numpy() * 255
    assert np.abs(found - expected).max() <= 1.5 and np.abs(found - colour).max() > 5


def linear_grey() -> bytes:
    """A grey profile whose curve is about a straight line."""
    data = bytearray(build_icc("bt709").replace(b"rTRC", b"kTRC", 1))
    data[16:20] = b"GRAY"
    gamma = data.index(b"para") + 12
    data[gamma : gamma + 4] = (1 << 16).to_bytes(4, "big")
    return bytes(data)


def test_a_grey_profile_is_converted_with_and_without_transparency() -> None:
    pictures = [Image.new("L", (8, 8), 60), Image.new("LA", (8, 8), (60, 255))]
    found = [decode_sdr(encoded(picture, "PNG", icc_profile=linear_grey())) for picture in pictures]
    assert found[0].getpixel((1, 1)) == found[1].getpixel((1, 1)) and found[0].getpixel((1, 1))[0] > 100


def test_a_damaged_profile_says_nothing() -> None:
    plain = decode_sdr(encoded(PHOTO, "PNG"))
    broken = decode_sdr(encoded(PHOTO, "PNG", icc_profile=build_icc("p3")[:60]))
    assert np.array_equal(np.asarray(plain), np.asarray(broken))


def truncated() -> bytes:
    data = encoded(PHOTO, "JPEG")
    return data[: len(data) // 2]


def animated() -> bytes:
    return encoded(PHOTO, "GIF", save_all=True, append_images=[PHOTO.transpose(Image.Transpose.ROTATE_180)])


@pytest.mark.parametrize(
    "data, reason",
    [
        (truncated(), "unreadable_image"),
        (b"", "unreadable_image"),
        (b"not a picture", "unreadable_image"),
        (animated(), "animated_image"),
        (encoded(Image.new("RGB", (100, 8)), "PNG"), "small_image"),
        (encoded(Image.new("F", (40, 40), 0.5), "TIFF"), "unreadable_image"),
    ],
)
def test_unusable_pictures_are_rejected_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(RejectedSample) as reject:
        decode_sdr(data, min_side=16)
    assert reject.value.reason == reason


def test_a_decompression_bomb_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(RejectedSample, match="oversize_image"):
        decode_sdr(encoded(PHOTO, "PNG"))


def test_gain_maps_keep_16_bits() -> None:
    coded = np.linspace(0, 1, 32 * 32 * 3, dtype=np.float32).reshape(32, 32, 3)
    assert np.abs(decode_gain_map(encode_gain_map(coded)) - coded).max() <= 0.5 / 65535 + 1e-7


def test_8_bit_and_grey_gain_maps_are_read() -> None:
    assert np.allclose(decode_gain_map(encoded(PHOTO, "PNG")), np.asarray(PHOTO) / 255)
    grey = decode_gain_map(encoded(PHOTO.convert("L"), "PNG"))
    assert grey.shape == (40, 56, 3) and np.ptp(grey, axis=2).max() == 0
    with pytest.raises(RejectedSample, match="unreadable_gainmap"):
        decode_gain_map(b"nothing")


def test_a_photo_with_a_second_picture_behind_it_is_a_photo() -> None:
    photo, buffer = Image.new("RGB", (20, 10), (200, 100, 50)), io.BytesIO()
    photo.save(buffer, format="MPO", save_all=True, append_images=[Image.new("RGB", (8, 4))])
    picture = decode_sdr(buffer.getvalue())
    assert picture.size == (20, 10) and abs(picture.getpixel((5, 5))[0] - 200) < 4


@pytest.mark.parametrize("read", [decode_sdr, image_size])
def test_a_header_that_promises_too_much_is_a_reject(read: Any) -> None:
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, format="BMP")
    data = bytearray(buffer.getvalue())
    data[18:26] = struct.pack("<ii", 30_000, 30_000)
    with pytest.raises(RejectedSample, match="oversize_image"):
        read(bytes(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 9])
def test_the_size_is_that_of_the_upright_picture(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    stated = {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif}
    data = encoded(PHOTO, kind, **stated)
    upright = decode_sdr(data)
    assert image_size(data) == (upright.height, upright.width)


def test_whatever_a_decoder_raises_the_picture_is_a_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (RuntimeError("AVIF"), TypeError("TIFF"), struct.error("EXIF"), KeyError("PNG")):

        def damaged(*_: Any, raised: Exception = error) -> None:
            raise raised

        monkeypatch.setattr(Image, "open", damaged)
        for read in (decode_sdr, image_size):
            with pytest.raises(RejectedSample, match="unreadable_image"):
                read(b"")


@pytest.mark.parametrize("name", ["a\0.png", "a\ud800.png", "a" * 5000])
def test_a_name_that_no_file_can_have_is_a_missing_file(name: str) -> None:
    with pytest.raises(RejectedSample, match="missing_file"):
        read_bytes(Path(name))
