"""OpenEXR: scene-linear float pictures with their colour space, layers and metadata."""

from .layers import GAIN_MAP_LAYER, SDR_LAYER, equation_attributes
from .read import decode_exr
from .write import COMPRESSIONS, encode_exr, is_attribute_name, largest_value

__all__ = [
    "COMPRESSIONS",
    "GAIN_MAP_LAYER",
    "SDR_LAYER",
    "decode_exr",
    "encode_exr",
    "equation_attributes",
    "is_attribute_name",
    "largest_value",
]
