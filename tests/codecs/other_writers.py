"""Gain-map JPEGs as Adobe, Google, Apple and others lay them out, made by hand."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

from gm_core.codecs.icc import srgb_table
from gm_core.codecs.ultrahdr import jpeg_segments as jpeg
from gm_core.codecs.ultrahdr.gain_map_metadata import GainMapMetadata
from gm_core.codecs.ultrahdr.iso21496 import build_iso
from gm_core.codecs.ultrahdr.mpf import MPF_LENGTH, build_mpf
from tests.codecs.scenes import case

SCENE = case("blobs", 9, 48, 64)
PER_CHANNEL = GainMapMetadata(
    (-0.5, 0.0, 0.25), (3.0, 2.0, 1.0), gamma=(1.0, 0.5, 2.0), offset_sdr=(0.01, 0.02, 0.03), capacity_max=3.0
)
UNIFORM = GainMapMetadata((-0.5,) * 3, (3.0,) * 3, capacity_max=3.0)
BASE = np.round(SCENE.sdr * 255).astype(np.uint8)
CODES = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (48, 1, 3))


def picture(pixels: np.ndarray, segments=(), **options) -> bytes:
    """A JPEG with these extra segments behind its own first one."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=100, subsampling=0, **options)
    stream = jpeg.parse_jpeg(buffer.getvalue())
    own = [(s.marker, s.payload) for s in stream.segments]
    return jpeg.build_jpeg([own[0], *segments, *own[1:]], buffer.getvalue()[stream.scan :])


def xmp(packet: str | bytes) -> tuple[int, bytes]:
    return jpeg.APP1, jpeg.XMP + (packet.encode() if isinstance(packet, str) else packet)


def iso(metadata: GainMapMetadata) -> tuple[int, bytes]:
    return jpeg.APP2, jpeg.ISO_GAIN_MAP + build_iso(metadata)


def with_index(gain_map: bytes, *, error: int = 0, segments=()) -> bytes:
    """Primary with a picture index, then the map; the index is wrong by `error` bytes."""
    draft = picture(BASE, [*segments, (jpeg.APP2, jpeg.MPF + bytes(MPF_LENGTH))])
    mark = draft.index(jpeg.MPF + bytes(8)) + 4
    index = build_mpf(primary_size=len(draft) + error, second_size=len(gain_map), mark_position=mark)
    return picture(BASE, [*segments, (jpeg.APP2, jpeg.MPF + index)]) + gain_map


def decoded(metadata: GainMapMetadata, pixels: np.ndarray = CODES) -> np.ndarray:
    """The formula applied to the pictures as a JPEG reader sees them, in float64."""
    base = np.asarray(Image.open(io.BytesIO(picture(BASE))))
    stored = np.asarray(Image.open(io.BytesIO(picture(pixels)))).reshape(48, 64, -1) / 255
    low, high, gamma = (np.array(getattr(metadata, name)) for name in ("minimum", "maximum", "gamma"))
    stops = low + (high - low) * stored ** (1 / gamma)
    return (srgb_table()[base] + metadata.offset_sdr) * 2.0**stops - metadata.offset_hdr


def adobe_list(name: str, values) -> str:
    items = "".join(f"<rdf:li>{value:.6f}</rdf:li>" for value in values)
    return f"<hdrgm:{name}><rdf:Seq>{items}</rdf:Seq></hdrgm:{name}>"


def adobe_xmp(metadata: GainMapMetadata) -> str:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version='
        f'"1.0" hdrgm:HDRCapacityMin="0" hdrgm:HDRCapacityMax="{metadata.capacity_max}"'
        ' hdrgm:BaseRenditionIsHDR="False">'
        + adobe_list("GainMapMin", metadata.minimum)
        + adobe_list("GainMapMax", metadata.maximum)
        + adobe_list("Gamma", metadata.gamma)
        + adobe_list("OffsetSDR", metadata.offset_sdr)
        + adobe_list("OffsetHDR", metadata.offset_hdr)
        + '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


APPLE_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:HDRGainMap="http://ns.apple.com/HDRGainMap/1.0/"'
    ' xmlns:apdi="http://ns.apple.com/pixeldatainfo/1.0/"%s>'
    "<apdi:AuxiliaryImageType>urn:com:apple:photo:2020:aux:hdrgainmap</apdi:AuxiliaryImageType>"
    "<HDRGainMap:HDRGainMapVersion>131072</HDRGainMap:HDRGainMapVersion>"
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def apple_exif(headroom: float, gain: float) -> bytes:
    """An Exif block with Apple's maker note: two signed rationals."""
    note = b"Apple iOS\0\0\1MM" + struct.pack(">H", 2)
    for index, tag in enumerate((33, 48)):
        note += struct.pack(">HHII", tag, 10, 1, 16 + 24 + 4 + 8 * index)
    note += bytes(4) + struct.pack(">iiii", round(headroom * 1000), 1000, round(gain * 1000), 1000)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x927C] = note
    # Cameras write the note as type "undefined", Pillow as bytes.
    return exif.tobytes().replace(b"\x92\x7c\x00\x01", b"\x92\x7c\x00\x07")
