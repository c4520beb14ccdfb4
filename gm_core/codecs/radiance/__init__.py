"""Radiance .hdr (RGBE): three mantissas that share one exponent, 32 bits a pixel."""

from .read import decode_radiance
from .write import encode_radiance

__all__ = ["decode_radiance", "encode_radiance"]
