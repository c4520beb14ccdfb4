"""XMP of gain-map JPEGs: Adobe's hdrgm parameters, Google's container directory, Apple's headroom."""

from __future__ import annotations

from xml.etree import ElementTree

from ...errors import ImageReadError
from .gain_map_metadata import GainMapMetadata, same

_HDRGM = "http://ns.adobe.com/hdr-gain-map/1.0/"
_CONTAINER = "http://ns.google.com/photos/1.0/container/"
_ITEM = "http://ns.google.com/photos/1.0/container/item/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_APPLE = "http://ns.apple.com/HDRGainMap/1.0/"
_MAX_XMP = 1 << 20

_FRAME = """<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="GM-HDR">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
{body}
 </rdf:RDF>
</x:xmpmeta>
"""
_PRIMARY = f"""   xmlns:Container="{_CONTAINER}"
   xmlns:Item="{_ITEM}"
   xmlns:hdrgm="{_HDRGM}"
   hdrgm:Version="1.0">
   <Container:Directory>
    <rdf:Seq>
     <rdf:li rdf:parseType="Resource">
      <Container:Item Item:Semantic="Primary" Item:Mime="image/jpeg"/>
     </rdf:li>
     <rdf:li rdf:parseType="Resource">
      <Container:Item Item:Semantic="GainMap" Item:Mime="image/jpeg" Item:Length="{{length}}"/>
     </rdf:li>
    </rdf:Seq>
   </Container:Directory>
  </rdf:Description>"""
_GAIN_MAP = f"""   xmlns:hdrgm="{_HDRGM}"
   hdrgm:Version="1.0"
   hdrgm:GainMapMin="{{minimum:.9g}}"
   hdrgm:GainMapMax="{{maximum:.9g}}"
   hdrgm:Gamma="{{gamma:.9g}}"
   hdrgm:OffsetSDR="{{offset_sdr:.9g}}"
   hdrgm:OffsetHDR="{{offset_hdr:.9g}}"
   hdrgm:HDRCapacityMin="{{capacity_min:.9g}}"
   hdrgm:HDRCapacityMax="{{capacity_max:.9g}}"
   hdrgm:BaseRenditionIsHDR="False"/>"""


def primary_xmp(gain_map_length: int) -> bytes:
    """XMP of the primary picture: announces a gain map of this many bytes behind it."""
    return _FRAME.format(body=_PRIMARY.format(length=gain_map_length)).encode()


def gain_map_xmp(metadata: GainMapMetadata) -> bytes:
    """XMP of the gain map picture. The channels must be equal: libultrahdr 1.4 to 2.0 refuse a list."""
    body = _GAIN_MAP.format(
        minimum=metadata.minimum[0],
        maximum=metadata.maximum[0],
        gamma=metadata.gamma[0],
        offset_sdr=metadata.offset_sdr[0],
        offset_hdr=metadata.offset_hdr[0],
        capacity_min=metadata.capacity_min,
        capacity_max=metadata.capacity_max,
    )
    return _FRAME.format(body=body).encode()


class Xmp:
    """A parsed XMP packet.

    Raises:
        ImageReadError: not well-formed, too long, or with a document type (entities are never expanded).
    """

    def __init__(self, packet: bytes) -> None:
        text = packet.decode("utf-8", "replace").strip("\ufeff\0 \r\n\t")
        if len(packet) > _MAX_XMP or "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise ImageReadError("XMP: longer than 1 MB or with a document type; refused")
        try:
            self._root = ElementTree.fromstring(text)
        except (ElementTree.ParseError, ValueError) as error:
            raise ImageReadError(f"XMP: not well-formed ({error})") from error

    def hdrgm(self) -> GainMapMetadata | None:
        """The hdrgm parameters, or None where the packet has none.

        Raises:
            ImageReadError: a value is not a number or unusable, or the base is the HDR rendition.
        """
        if self._values(_HDRGM, "GainMapMax") is None and self._values(_HDRGM, "HDRCapacityMax") is None:
            return None
        if (self._values(_HDRGM, "BaseRenditionIsHDR") or ["False"])[0].lower() == "true":
            raise ImageReadError("hdrgm XMP: the base is the HDR rendition, which is not supported")
        maximum = self._numbers(_HDRGM, "GainMapMax", 1.0)
        return GainMapMetadata(
            minimum=self._numbers(_HDRGM, "GainMapMin", 0.0),
            maximum=maximum,
            gamma=self._numbers(_HDRGM, "Gamma", 1.0),
            offset_sdr=self._numbers(_HDRGM, "OffsetSDR", 1 / 64),
            offset_hdr=self._numbers(_HDRGM, "OffsetHDR", 1 / 64),
            capacity_min=self._numbers(_HDRGM, "HDRCapacityMin", 0.0)[0],
            capacity_max=self._numbers(_HDRGM, "HDRCapacityMax", max(maximum))[0],
            source="xmp",
        )

    def apple_headroom(self) -> float | None:
        """Linear headroom stated in an Apple gain map, 0 where only the primary's maker note has it,
        None where this is no Apple gain map."""
        if self._values(_APPLE, "HDRGainMapVersion") is None:
            return None
        return self._numbers(_APPLE, "HDRGainMapHeadroom", 0.0)[0]

    def gain_map_item(self) -> tuple[int, int] | None:
        """Offset from the end of the primary stream, and length, of the gain map in the container
        directory; None where it lists none."""
        offset = 0
        for index, item in enumerate(self._root.iter(f"{{{_CONTAINER}}}Item")):
            length = _integer(item.get(f"{{{_ITEM}}}Length"))
            padding = _integer(item.get(f"{{{_ITEM}}}Padding"))
            if item.get(f"{{{_ITEM}}}Semantic") == "GainMap":
                return offset, length
            offset += padding + (length if index else 0)
        return None

    def _numbers(self, namespace: str, name: str, default: float) -> tuple[float, float, float]:
        texts = self._values(namespace, name)
        try:
            values = [float(text) for text in texts] if texts else [default]
        except ValueError as error:
            raise ImageReadError(f"XMP: {name} is not a number ({error})") from error
        if len(values) not in (1, 3):
            raise ImageReadError(f"XMP: {name} has {len(values)} values; expected 1 or 3")
        return same(values[0]) if len(values) == 1 else (values[0], values[1], values[2])

    def _values(self, namespace: str, name: str) -> list[str] | None:
        """The property as a list: an attribute, an element with text, or an element with rdf:li."""
        tag = f"{{{namespace}}}{name}"
        for element in self._root.iter():
            if tag in element.attrib:
                return [element.attrib[tag]]
            if element.tag == tag:
                items = [item.text or "" for item in element.iter(f"{{{_RDF}}}li")]
                return items or [element.text or ""]
        return None


def _integer(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else 0
