"""Adds to a JPEG XL what imagecodecs cannot: Exif, as a box of the container (ISO/IEC 18181-2)."""

from __future__ import annotations

from ...errors import ImageWriteError
from ..iso_boxes import write_box
from .header import CONTAINER


def with_exif(data: bytes, exif: bytes) -> bytes:
    """The file with an Exif box behind its pictures.

    data: a file in a container, as libjxl writes float pictures. exif: as Pillow's `Exif.tobytes()` gives it.

    Raises:
        ImageWriteError: `data` has no container.
    """
    if not data.startswith(CONTAINER):
        raise ImageWriteError("JPEG XL: the encoder wrote no container; update imagecodecs and report this")
    tiff = bytes(4) + exif.removeprefix(b"Exif\0\0")
    return data + write_box(b"Exif", tiff)
