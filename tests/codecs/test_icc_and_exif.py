"""Colour profiles, and the Exif block that carries a workflow."""

from __future__ import annotations

import io
import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from gm_core.codecs.avif import decode_avif
from gm_core.codecs.exif import exif_block
from gm_core.codecs.files import read_image
from gm_core.codecs.formats import decode_image
from gm_core.codecs.icc import build_icc, read_cicp, read_icc, srgb_table
from gm_core.codecs.png import decode_png, encode_png16
from gm_core.codecs.profiles import picture_of_profile
from gm_core.errors import ImageReadError


@pytest.mark.parametrize("primaries", ["bt709", "p3", "bt2020"])
def test_profile_round_trip(primaries):
    profile = read_icc(build_icc(primaries))
    assert profile.primaries == primaries
    np.testing.assert_allclose(profile.to_xyz.sum(1), (0.9642, 1.0, 0.8249), atol=3e-5)
    np.testing.assert_allclose(profile.table, [srgb_table()] * 3, atol=2e-5)


def test_littlecms_accepts_the_profile_as_srgb():
    ours = ImageCms.ImageCmsProfile(io.BytesIO(build_icc("bt709")))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    converted = ImageCms.profileToProfile(Image.fromarray(pixels), ours, ImageCms.createProfile("sRGB"))
    assert np.abs(np.asarray(converted).astype(int) - pixels).max() <= 1


def test_littlecms_profile_is_read_as_srgb():
    profile = read_icc(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert profile.primaries == "bt709"
    np.testing.assert_allclose(profile.table, [srgb_table()] * 3, atol=1e-4)


@pytest.mark.parametrize("gamma", [1, 1000])
def test_curves_are_clipped_to_what_profiles_may_say(gamma):
    """Parametric type 2, (x + 1)^gamma, of a damaged file: beyond 1, and beyond what float32 holds."""
    profile = build_icc("p3")
    sound = profile[profile.index(b"para") :][:32]
    broken = b"para" + struct.pack(">IHH4i", 0, 2, 0, *(round(v * 65536) for v in (gamma, 1, 1, 0)))
    curves = read_icc(profile.replace(sound, broken.ljust(32, b"\0"))).table
    np.testing.assert_array_equal(curves, 1)


@pytest.mark.parametrize("cut", [0, 100, 130, 200, 400])
def test_damaged_profiles_are_refused(cut):
    with pytest.raises(ImageReadError, match="ICC profile"):
        read_icc(build_icc("p3")[:cut])


def test_a_picture_with_a_damaged_profile_is_read_as_srgb(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8), (255, 255, 255)).save(path, icc_profile=build_icc("p3")[:150])
    assert read_image(path).primaries == "bt709"


def test_foreign_primaries_become_bt2020(tmp_path):
    adobe = bytearray(build_icc("bt709"))
    at = adobe.index(b"XYZ \0\0\0\0", adobe.index(b"sf32"))
    values = np.array([0.60974, 0.31111, 0.01947]) * 65536
    adobe[at + 8 : at + 20] = values.astype(">i4").tobytes()
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8), (0, 255, 0)).save(path, icc_profile=bytes(adobe), quality=100)
    read = read_image(path)
    assert read.primaries == "bt2020"
    assert 0 <= read.sdr.min() and read.sdr.max() <= 1


def profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile with these tags, relative to D50, version 2."""
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    kind, connection = (b"scnr", b"XYZ ") if space == b"GRAY" else (b"prtr", b"Lab ")
    head = struct.pack(">I4xI4s4s4s12x4s", start + len(body), 0x02400000, kind, space, connection, b"acsp")
    white = struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(28) + white + bytes(128 - 80) + table + body


D50 = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
LINEAR_GREY = profile(b"GRAY", {b"wtpt": D50, b"kTRC": b"curv" + bytes(8)})
_RAMP = bytes(range(256))
# A table under which every ink prints a grey of L* 50.
ALL_GREY = profile(
    b"CMYK",
    {
        b"wtpt": D50,
        b"A2B0": b"mft1"
        + struct.pack(">4x4B9i", 4, 3, 2, 0, 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
        + 4 * _RAMP
        + 16 * bytes((128, 128, 128))
        + 3 * _RAMP,
    },
)


@pytest.mark.parametrize(
    ("mode", "icc", "value", "light"), [("L", LINEAR_GREY, 128, 0.502), ("CMYK", ALL_GREY, 40, 0.186)]
)
def test_profiles_of_grey_and_print_are_applied(mode, icc, value, light, tmp_path):
    path = tmp_path / "a.jpg"
    Image.new(mode, (8, 8), value if mode == "L" else (value,) * 4).save(path, icc_profile=icc, quality=100)
    np.testing.assert_allclose(read_image(path).hdr, light, atol=0.01)


def test_a_grey_profile_counts_for_16_bits():
    codes = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8, 1)
    chunk = b"grey\0\0" + zlib.compress(LINEAR_GREY)
    picture = decode_png(encode_png16(codes, chunks=[(b"iCCP", chunk)]))
    np.testing.assert_allclose(picture.hdr, np.repeat(codes, 3, -1) / 65535, atol=1e-5)


def test_a_grey_profile_counts_in_an_avif():
    file = io.BytesIO()
    Image.new("L", (8, 8), 128).save(file, "AVIF", quality=100, icc_profile=LINEAR_GREY)
    np.testing.assert_allclose(decode_avif(file.getvalue()).hdr, 128 / 255, atol=2 / 255)


def test_a_profile_that_cannot_be_applied_is_told(caplog):
    picture_of_profile(np.ones((1, 1, 3), np.float32), ALL_GREY)
    assert "its tags or sRGB count instead" in caplog.text


def pq_profile() -> bytes:
    """That of BT.2020 with PQ by number, as ICC.1:2022 lets it: matrix and curves are for old readers."""
    named = build_icc("bt2020")
    start, count = 132 + 12 * 10, struct.pack(">I", 11)
    moved = b"".join(
        named[at : at + 4]
        + struct.pack(">I", int.from_bytes(named[at + 4 : at + 8], "big") + 12)
        + named[at + 8 : at + 12]
        for at in range(132, start, 12)
    )
    tag = b"cicp" + bytes(4) + bytes((9, 16, 0, 1))
    entry = b"cicp" + struct.pack(">II", len(named) + 12, len(tag))
    return named[:128] + count + moved + entry + named[start:] + tag


def test_a_profile_may_state_pq_by_number():
    assert read_cicp(build_icc("bt2020")) is None
    assert read_cicp(pq_profile()) == (9, 16)
    picture = picture_of_profile(np.ones((1, 1, 3), np.float32), pq_profile())
    np.testing.assert_allclose(picture.hdr, 10000 / 203, rtol=1e-4)


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP"])
def test_a_profile_states_pq_for_8_bits_too(format_name):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(file, format_name, quality=100, icc_profile=pq_profile())
    picture = decode_image(file.getvalue())
    assert picture.primaries == "bt2020" and picture.sdr is None
    np.testing.assert_allclose(picture.hdr, 10000 / 203, rtol=1e-4)


def test_workflow_goes_where_comfyui_puts_it():
    prompt, workflow = {"1": {"text": "über 漢字"}}, {"nodes": [1, 2]}
    exif = Image.Exif()
    exif.load(exif_block({"workflow": json.dumps(workflow), "prompt": json.dumps(prompt), "other": "3"}))
    assert json.loads(exif[0x0110].removeprefix("prompt:")) == prompt
    assert json.loads(exif[0x010F].removeprefix("workflow:")) == workflow
    assert exif[0x010E] == "other:3"


@pytest.mark.parametrize("damaged", [b"MM", b"MM\0*", b"nonsense", b"MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03"])
@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_spoils_no_picture(damaged, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (8, 4), (255, 255, 255)).save(path, exif=b"Exif\0\0" + damaged)
    np.testing.assert_allclose(read_image(path).sdr, np.ones((4, 8, 3)), atol=1 / 255)


@pytest.mark.parametrize("size", [(5, 1), (1, 5), (1, 1)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_line_of_pixels_is_one_that_torch_takes(orientation, size):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGBA", size).save(file, "PNG", exif=exif)
    picture = decode_png(file.getvalue())
    for plane in (picture.hdr, picture.sdr, picture.alpha):
        assert torch.from_numpy(plane).shape[:2] in (size, size[::-1])


def test_many_entries_go_into_tags_that_take_text():
    texts = {f"other{number}": str(number) for number in range(40)} | {"prompt": "{}"}
    exif = Image.Exif()
    exif.load(exif_block(texts))
    assert sorted(exif.values()) == sorted(f"{name}:{text}" for name, text in texts.items())


def test_no_metadata_makes_no_block():
    assert exif_block({}) is None


@pytest.mark.parametrize("suffix", ["webp", "bmp"])
def test_ordinary_pictures_are_read(suffix, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(np.rint(read_image(path).sdr * 255), pixels)
