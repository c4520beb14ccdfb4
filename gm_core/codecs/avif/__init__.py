"""AVIF with 10 or 12 bits, PQ, BT.2020, full chroma."""

from .read import decode_avif
from .write import LOSSLESS, encode_avif

__all__ = ["LOSSLESS", "decode_avif", "encode_avif"]
