"""PNG with 16 bits a channel: PQ pictures with their colour tags, gain maps without loss."""

from .read import decode_png
from .write import encode_png16, encode_png_pq, is_keyword

__all__ = ["decode_png", "encode_png16", "encode_png_pq", "is_keyword"]
