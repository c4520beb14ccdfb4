"""GM-HDR core: gain maps, colour, schedules, samplers and key maps on torch and numpy alone.

Tensors are float32 [B,C,H,W]; HDR is linear light with 1.0 = SDR white; SDR is display-encoded in [0, 1].
Codecs for picture files are in `gm_core.codecs`.
"""

from .color import convert_primaries, linear_to_srgb, luminance, rgb_to_rgb, srgb_to_linear
from .conditioning import gm_unet_input
from .errors import GainMapError, ImageReadError, ImageWriteError, ModelFileError
from .gain_coding import GainCoding
from .gain_map import (
    GainMapSpec,
    blend_gain,
    cap_gain,
    extract_gain_map,
    fitting_spec,
    limit_darkening,
    merge_hdr,
    scale_gain,
)
from .model_info import GainMapModelInfo
from .resample import resize_to_working, upsample_gain_map
from .sampling import Denoiser, sample_dual, sample_gain_map
from .schedule import add_noise, alphas_cumprod, sampling_sigmas, sigmas, x0_from_eps, x0_from_v
from .tonemap import analytic_gain_map, fix_mulog_tmo, gamut_reduce
from .trajectory import ConstantCondition, Trajectory
from .unet_description import UNetDescription, describe_unet

__all__ = [
    "ConstantCondition",
    "Denoiser",
    "GainCoding",
    "GainMapError",
    "GainMapModelInfo",
    "GainMapSpec",
    "ImageReadError",
    "ImageWriteError",
    "ModelFileError",
    "Trajectory",
    "UNetDescription",
    "add_noise",
    "alphas_cumprod",
    "analytic_gain_map",
    "blend_gain",
    "cap_gain",
    "convert_primaries",
    "describe_unet",
    "extract_gain_map",
    "fitting_spec",
    "fix_mulog_tmo",
    "gamut_reduce",
    "gm_unet_input",
    "limit_darkening",
    "linear_to_srgb",
    "luminance",
    "merge_hdr",
    "resize_to_working",
    "rgb_to_rgb",
    "sample_dual",
    "sample_gain_map",
    "sampling_sigmas",
    "scale_gain",
    "sigmas",
    "srgb_to_linear",
    "upsample_gain_map",
    "x0_from_eps",
    "x0_from_v",
]
