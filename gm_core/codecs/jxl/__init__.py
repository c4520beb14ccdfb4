"""JPEG XL with float samples, through imagecodecs."""

from .metadata import with_exif
from .read import decode_jxl, is_jxl
from .write import encode_jxl

__all__ = ["decode_jxl", "encode_jxl", "is_jxl", "with_exif"]
