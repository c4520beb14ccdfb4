"""The files of one result: PNG, Radiance, OpenEXR, Ultra HDR and a sheet to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gm_core.codecs.exr import GAIN_MAP_LAYER, SDR_LAYER, encode_exr, equation_attributes
from gm_core.codecs.files import replace_file
from gm_core.codecs.radiance import encode_radiance
from gm_core.codecs.ultrahdr import encode_ultrahdr
from gm_core.color import convert_primaries
from gm_core.gain_map import GainMapSpec
from training.config import GenerateConfig
from training.pictures import png, png16, strip, to_numpy


@dataclass(frozen=True)
class Result:
    """sdr, gain_map (Eq. (1)'s) and hdr (linear, 1.0 = SDR white, in `gamut`), each [3,H,W]."""

    sdr: Tensor
    gain_map: Tensor
    hdr: Tensor
    gamut: str
    spec: GainMapSpec


def write_result(result: Result, folder: Path, name: str, config: GenerateConfig) -> None:
    """Write `sdr_<name>.png`, `gm_<name>.png` (16 bit) and what `formats` names, replacing earlier files."""
    replace_file(folder / f"sdr_{name}.png", png(result.sdr))
    replace_file(folder / f"gm_{name}.png", png16(result.gain_map))
    if "hdr" in config.formats:
        replace_file(folder / f"hdr_{name}.hdr", radiance(result, paper=config.paper_radiance))
    if "exr" in config.formats:
        replace_file(folder / f"hdr_{name}.exr", exr(result, config.sdr_white_nits))
    if "ultrahdr" in config.formats:
        replace_file(folder / f"hdr_{name}.jpg", ultrahdr(result))
    if "sheet" in config.formats:
        sheet = strip(result.sdr, result.gain_map, result.hdr, result.gamut)
        replace_file(folder / f"sheet_{name}.png", png(sheet))


def radiance(result: Result, *, paper: bool) -> bytes:
    """BT.709 with 1.0 = SDR white; `paper`: untagged primaries and 1.0 = the peak, as published."""
    if paper:
        return encode_radiance(to_numpy(result.hdr / (result.spec.qmax + 1)))
    return encode_radiance(to_numpy(_bt709(result)))


def exr(result: Result, white_nits: float) -> bytes:
    """Float32 with its own primaries; SDR and gain map as layers, Eq. (1)'s constants as attributes."""
    return encode_exr(
        to_numpy(result.hdr),
        primaries=result.gamut,
        white_nits=white_nits,
        attributes=equation_attributes(result.spec),
        layers={SDR_LAYER: to_numpy(result.sdr), GAIN_MAP_LAYER: to_numpy(result.gain_map)},
    )


def ultrahdr(result: Result) -> bytes:
    """Ultra HDR JPEG whose base is the SDR picture."""
    return encode_ultrahdr(sdr=to_numpy(result.sdr), hdr=to_numpy(_bt709(result)))


def _bt709(result: Result) -> Tensor:
    return convert_primaries(result.hdr[None], result.gamut, "bt709")[0].clamp(min=0)
