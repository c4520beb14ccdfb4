"""Reading the gain-map JPEGs of Adobe, Google, Apple and others, and damaged or hostile ones."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from gm_core.codecs.icc import build_icc, srgb_table
from gm_core.codecs.ultrahdr import decode_ultrahdr, encode_ultrahdr
from gm_core.codecs.ultrahdr import jpeg_segments as jpeg
from gm_core.codecs.ultrahdr.gain_map_metadata import GainMapMetadata
from gm_core.codecs.ultrahdr.hdrgm_xmp import Xmp, gain_map_xmp, primary_xmp
from gm_core.codecs.ultrahdr.iso21496 import build_iso
from gm_core.codecs.ultrahdr.mpf import read_mpf
from gm_core.errors import ImageReadError
from tests.codecs.other_writers import (
    APPLE_XMP,
    BASE,
    CODES,
    PER_CHANNEL,
    SCENE,
    UNIFORM,
    adobe_xmp,
    apple_exif,
    decoded,
    iso,
    picture,
    with_index,
    xmp,
)


def assert_reads(data: bytes, expected: np.ndarray, **metadata) -> None:
    read = decode_ultrahdr(data)
    np.testing.assert_allclose(read.hdr, expected, rtol=2e-4, atol=2e-5)
    for name, value in metadata.items():
        np.testing.assert_allclose(getattr(read.metadata["gain_map"], name), value, atol=1e-5)


def test_adobe_per_channel_lists():
    data = with_index(picture(CODES, [xmp(adobe_xmp(PER_CHANNEL))]))
    assert_reads(data, decoded(PER_CHANNEL), maximum=PER_CHANNEL.maximum, offset_sdr=PER_CHANNEL.offset_sdr)


def test_what_adobe_xmp_does_not_state_is_its_default():
    """Adobe's and Android's specification: minimum 0, gamma 1, offsets 1/64, minimum capacity 0."""
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"'
        ' hdrgm:Version="1.0" hdrgm:GainMapMax="2" hdrgm:HDRCapacityMax="2.5"/></rdf:RDF></x:xmpmeta>'
    )
    expected = GainMapMetadata(
        (0.0,) * 3, (2.0,) * 3, gamma=(1.0,) * 3, offset_sdr=(0.015625,) * 3, offset_hdr=(0.015625,) * 3
    )
    data = with_index(picture(CODES, [xmp(packet)]))
    assert_reads(data, decoded(expected), capacity_min=0.0, capacity_max=2.5)


def test_padding_and_other_items_of_a_directory_are_skipped():
    """Google's container: items follow one another, each behind the padding of the one before it."""
    packet = primary_xmp(500).decode()
    packet = packet.replace('Item:Semantic="Primary"', 'Item:Semantic="Primary" Item:Padding="37"')
    map_at = packet.index('<rdf:li rdf:parseType="Resource">', packet.index("Primary"))
    depth = (
        '<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Depth" Item:Length="1000"'
        ' Item:Padding="5"/></rdf:li>'
    )
    assert Xmp((packet[:map_at] + depth + packet[map_at:]).encode()).gain_map_item() == (1042, 500)


def test_scalar_xmp_with_a_container_directory_only():
    gain_map = picture(CODES, [xmp(gain_map_xmp(UNIFORM))])
    data = picture(BASE, [xmp(primary_xmp(len(gain_map)))]) + gain_map
    assert_reads(data, decoded(UNIFORM), capacity_max=3.0)


@pytest.mark.parametrize("metadata", [UNIFORM, PER_CHANNEL])
def test_iso_only(metadata):
    assert_reads(with_index(picture(CODES, [iso(metadata)])), decoded(metadata), gamma=metadata.gamma)


@pytest.mark.parametrize(
    ("metadata", "flags"),
    [
        (UNIFORM, 0x40),
        (PER_CHANNEL, 0xC0),
        (GainMapMetadata((0.0,) * 3, (1.0,) * 3, use_base_primaries=False), 0),
    ],
)
def test_iso_is_laid_out_as_the_standard_says(metadata, flags):
    """Annex C.2: versions, flags, headrooms, then for each channel minimum, maximum, gamma and offsets."""
    payload = build_iso(metadata)
    assert payload[:5] == bytes((0, 0, 0, 0, flags))
    names = ("minimum", "maximum", "gamma", "offset_sdr", "offset_hdr")
    channels = range(3 if flags & 0x80 else 1)
    expected = [getattr(metadata, name)[channel] for channel in channels for name in names]
    found = [numerator / denominator for numerator, denominator in struct.iter_unpack(">iI", payload[5:])]
    np.testing.assert_allclose(found, [metadata.capacity_min, metadata.capacity_max, *expected], atol=1e-6)


def test_iso_with_a_common_denominator():
    numbers = [0, 3000] + [-500, 3000, 1000, 15, 15]
    payload = struct.pack(">HHBI", 0, 0, 0x48, 1000) + struct.pack(">7i", *numbers)
    gain_map = picture(CODES, [(jpeg.APP2, jpeg.ISO_GAIN_MAP + payload)])
    metadata = GainMapMetadata((-0.5,) * 3, (3.0,) * 3, offset_sdr=(0.015,) * 3, offset_hdr=(0.015,) * 3)
    assert_reads(with_index(gain_map), decoded(metadata), capacity_max=3.0)


def test_iso_counts_before_xmp():
    gain_map = picture(CODES, [xmp(gain_map_xmp(UNIFORM)), iso(PER_CHANNEL)])
    assert decode_ultrahdr(with_index(gain_map)).metadata["gain_map"].source == "iso"


def test_damaged_iso_falls_back_to_xmp():
    gain_map = picture(
        CODES, [xmp(gain_map_xmp(UNIFORM)), (jpeg.APP2, jpeg.ISO_GAIN_MAP + b"\0\0\0\0\x40\1")]
    )
    assert_reads(with_index(gain_map), decoded(UNIFORM))


@pytest.mark.parametrize("error", [-70, -3, 5, 70, 10**6])
def test_a_wrong_index_is_corrected(error):
    assert_reads(with_index(picture(CODES, [iso(UNIFORM)]), error=error), decoded(UNIFORM))


def test_an_index_of_either_byte_order_is_read():
    index = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHIII", 0xB002, 7, 32, 26, 0)
    index += struct.pack("<IIIHH", 0x20030000, 4000, 0, 0, 0) + struct.pack("<IIIHH", 0, 700, 3900, 0, 0)
    assert read_mpf(index) == [(4000, 0), (700, 3900)]


def test_no_index_at_all():
    assert_reads(picture(BASE) + b"\0" * 37 + picture(CODES, [iso(UNIFORM)]), decoded(UNIFORM))


def test_other_pictures_and_video_around_the_map():
    preview, video = (
        picture(BASE[:16, :16]),
        b"\0\0\0\x18ftypmp42" + b"\xff\xd8\xff\xe0\0\x10" * 30 + bytes(999),
    )
    data = picture(BASE) + preview + video + picture(CODES, [iso(UNIFORM)]) + video
    assert_reads(data, decoded(UNIFORM))


def test_a_preview_inside_exif_is_not_the_map():
    thumbnail = picture(CODES[:16, :16], [iso(PER_CHANNEL)])
    base = picture(BASE, [(jpeg.APP1, jpeg.EXIF + bytes(8) + thumbnail)])
    assert_reads(base + picture(CODES, [iso(UNIFORM)]), decoded(UNIFORM))


def test_grey_map():
    grey = CODES[..., 0]
    assert_reads(with_index(picture(grey, [iso(UNIFORM)])), decoded(UNIFORM, grey))
    assert decode_ultrahdr(with_index(picture(grey, [iso(UNIFORM)]))).gain_map.shape == (48, 64, 1)


def test_plain_jpeg_and_foreign_second_picture_are_sdr():
    for data in (picture(BASE), picture(BASE) + picture(CODES)):
        read = decode_ultrahdr(data)
        assert read.gain_map is None and read.metadata["format"] == "jpeg"
        np.testing.assert_array_equal(np.rint(read.sdr * 255), Image.open(io.BytesIO(picture(BASE))))


def test_broken_xmp_of_a_second_picture_that_is_no_map_spoils_nothing():
    assert decode_ultrahdr(with_index(picture(CODES, [xmp("<x:xmpmeta")]))).gain_map is None


def test_gain_in_the_primaries_of_the_map():
    """Base BT.709, HDR BT.2020: the formula works in BT.2020, the result is given in the base's set."""
    metadata = GainMapMetadata((0.0,) * 3, (2.0,) * 3, use_base_primaries=False)
    gain_map = picture(np.full_like(BASE, 255), [iso(metadata)], icc_profile=build_icc("bt2020"))
    read = decode_ultrahdr(with_index(gain_map))
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    base = srgb_table()[np.asarray(Image.open(io.BytesIO(picture(BASE))))]
    expected = ((base @ to_2020.T + 1 / 64) * 4 - 1 / 64) @ np.linalg.inv(to_2020).T
    np.testing.assert_allclose(read.hdr, expected, rtol=2e-3, atol=2e-3)
    assert read.primaries == "bt709"


def test_apple_with_headroom_in_xmp():
    gain_map = picture(CODES[..., 0], [xmp(APPLE_XMP % ' HDRGainMap:HDRGainMapHeadroom="4.5"')])
    read = decode_ultrahdr(with_index(gain_map))
    metadata = read.metadata["gain_map"]
    assert metadata.source == "apple"
    assert metadata.capacity_max == pytest.approx(np.log2(4.5))
    base = srgb_table()[np.asarray(Image.open(io.BytesIO(picture(BASE))))]
    stored = np.asarray(Image.open(io.BytesIO(picture(CODES[..., 0])))) / 255
    expected = base * (1 + 3.5 * stored**1.961)[..., None]
    np.testing.assert_allclose(read.hdr, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("headroom", "gain", "stops"),
    [(0.5, 0.0, 1.8), (0.5, 0.005, 1.7), (0.5, 1.0, 1.5), (1.01, 0.005, 2.65), (1.01, 1.0, 2.0)],
)
def test_apple_with_headroom_in_the_maker_note(headroom, gain, stops):
    exif = apple_exif(headroom, gain)
    gain_map = picture(CODES[..., 0], [xmp(APPLE_XMP % "")])
    read = decode_ultrahdr(picture(BASE, [(jpeg.APP1, exif)]) + gain_map)
    assert read.metadata["gain_map"].capacity_max == pytest.approx(stops, abs=1e-3)


def test_apple_without_headroom_is_sdr():
    read = decode_ultrahdr(picture(BASE) + picture(CODES[..., 0], [xmp(APPLE_XMP % "")]))
    assert read.gain_map is None


def bad_xmp(**values) -> tuple[int, bytes]:
    packet = gain_map_xmp(UNIFORM).decode()
    for name, value in values.items():
        start = packet.index(f'hdrgm:{name}="') + len(f'hdrgm:{name}="')
        packet = packet[:start] + value + packet[packet.index('"', start) :]
    return xmp(packet)


def bad_iso(*numbers: int, version: int = 0, flags: int = 0x40) -> tuple[int, bytes]:
    payload = struct.pack(">HHB", version, 0, flags) + struct.pack(f">{len(numbers)}i", *numbers)
    return jpeg.APP2, jpeg.ISO_GAIN_MAP + payload


GOOD = (0, 1, 3, 1, 0, 1, 3, 1, 1, 1, 1, 64, 1, 64)
BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + gain_map_xmp(UNIFORM).decode()


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (bad_xmp(GainMapMax="nan"), "beyond"),
        (bad_xmp(GainMapMax="1,5"), "not a number"),
        (bad_xmp(GainMapMax="99999"), "beyond"),
        (bad_xmp(GainMapMin="5"), "above its maximum"),
        (bad_xmp(Gamma="0"), "gamma"),
        (bad_xmp(Gamma="-1"), "gamma"),
        (bad_xmp(OffsetSDR="inf"), "offset"),
        (bad_xmp(HDRCapacityMin="7"), "headroom"),
        (bad_xmp(BaseRenditionIsHDR="True"), "base is the HDR"),
        (xmp(BOMB), "document type"),
        (xmp(b"<hdrgm:GainMapMax"), "not well-formed"),
        (bad_iso(*GOOD, version=1), "version 1"),
        (bad_iso(*GOOD[:-1], 0), "division by zero"),
        (bad_iso(*GOOD[:5]), "damaged"),
        (bad_iso(*GOOD, flags=0x44), "base is the HDR"),
        (bad_iso(0, 1, 30, 1, *GOOD[4:]), "beyond"),
    ],
)
def test_unusable_metadata_is_refused(segment, message):
    with pytest.raises(ImageReadError, match=message):
        decode_ultrahdr(with_index(picture(CODES, [segment])))


def test_hostile_structure():
    good = encode_ultrahdr(sdr=SCENE.sdr, hdr=SCENE.hdr)
    for bad in (
        good[:3],
        good[:200],
        b"\xff\xd8\xff" + b"\xff" * 5000,
        b"\xff\xd8\xff\xe0\xff\xff",
        good[:2000],
    ):
        with pytest.raises(ImageReadError):
            decode_ultrahdr(bad)
    sofs = [s for s in jpeg.parse_jpeg(good).segments if s.marker in (0xC0, 0xC2)]
    at = sofs[0].position + 1
    with pytest.raises(ImageReadError, match="cannot hold|header states"):
        decode_ultrahdr(good[:at] + b"\x7f\xff\x7f\xff" + good[at + 4 :])


def test_a_cut_gain_map_is_an_error():
    good = encode_ultrahdr(sdr=SCENE.sdr, hdr=SCENE.hdr)
    with pytest.raises(ImageReadError):
        decode_ultrahdr(good[:-500])


@pytest.mark.parametrize("kept", [10, 300, 900])
def test_a_cut_header_of_the_gain_map_is_an_error(kept):
    good = encode_ultrahdr(sdr=SCENE.sdr, hdr=SCENE.hdr)
    with pytest.raises(ImageReadError, match="its gain map is cut off"):
        decode_ultrahdr(good[: jpeg.parse_jpeg(good).end + kept])


def test_a_file_without_its_gain_map_is_sdr_and_says_so(caplog):
    good = encode_ultrahdr(sdr=SCENE.sdr, hdr=SCENE.hdr)
    assert decode_ultrahdr(good[: jpeg.parse_jpeg(good).end]).gain_map is None
    assert "announces a gain map but holds none" in caplog.text


def test_a_display_between_equal_headrooms_gets_none_of_the_gain():
    metadata = GainMapMetadata((0.0,) * 3, (1.0,) * 3, capacity_min=1.0, capacity_max=1.0)
    assert [metadata.weight(headroom) for headroom in (1, 1.9, 2, 4, None)] == [0, 0, 1, 1, 1]
