"""HDR10 video as HEVC Main 10 or AV1, and reading of HDR videos frame by frame."""

from .read import VideoInfo, check_is_hdr, decode_frames, describe_video
from .write import encode_hdr10, is_metadata_name

__all__ = ["VideoInfo", "check_is_hdr", "decode_frames", "describe_video", "encode_hdr10", "is_metadata_name"]
