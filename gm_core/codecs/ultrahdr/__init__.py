"""Gain-map JPEG: an SDR picture that every reader shows, and the gain map that turns it into HDR."""

from .read import decode_ultrahdr
from .write import BASES, PRESETS, encode_ultrahdr

__all__ = ["BASES", "PRESETS", "decode_ultrahdr", "encode_ultrahdr"]
