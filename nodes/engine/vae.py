"""Gain maps need the decoder in fp32: bf16 near -1 makes 19 % brightness steps at qmax 99."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from comfy.sd import VAE

from ...gm_core.errors import GainMapError, ModelFileError
from ...gm_core.resample import LATENT_STRIDE, resize_to_working, working_size
from .model_file import read_header, read_weights
from .tiles import decode_tiles

LATENT_CHANNELS = 4


def load_vae(path: Path) -> VAE:
    """A VAE file as core's VAE in fp32; raises ModelFileError when it holds none."""
    read_header(path)
    vae = VAE(sd=read_weights(path), dtype=torch.float32)
    if vae.first_stage_model is None:
        raise ModelFileError(f"{path.name}: expected a VAE in the SD 1.5 latent space, found none.")
    return vae


def check_vae(vae: VAE) -> None:
    """Raises GainMapError unless the VAE has SD 1.5's four latent channels."""
    if getattr(vae, "first_stage_model", None) is None:
        raise GainMapError("vae: this checkpoint holds no VAE. Load one with Load VAE.")
    if vae.latent_channels != LATENT_CHANNELS or vae.latent_dim != 2:
        raise GainMapError(
            f"vae: expected an SD 1.5 VAE with 4 latent channels, found one with {vae.latent_channels}."
        )


def check_latent(latent: torch.Tensor, name: str) -> None:
    """Raises GainMapError, which calls the input `name`, unless it is a batch [B,4,h,w] of some."""
    if latent.ndim != 4 or latent.shape[1] != LATENT_CHANNELS or 0 in latent.shape:
        raise GainMapError(f"{name}: expected an SD 1.5 latent [B,4,h,w], found {list(latent.shape)}.")


def in_fp32(vae: VAE) -> VAE:
    """The VAE itself when it computes in fp32, else an fp32 copy of it."""
    if vae.vae_dtype == torch.float32:
        return vae
    copy = VAE(sd=vae.get_sd(), dtype=torch.float32)
    copy.process_output = vae.process_output
    return copy


def encode(vae: VAE, image: torch.Tensor) -> torch.Tensor:
    """IMAGE [B,H,W,3] -> latent [B,4,H/8,W/8], not yet scaled by 0.18215."""
    check_vae(vae)
    return cast(torch.Tensor, vae.encode(image))


def at_working_size(latent: torch.Tensor, side: int, vae: VAE) -> torch.Tensor:
    """Latents [B,4,h,w] of the same pictures with a short side of about `side` pixels; see `working_size`.

    They are resized as pictures, by the VAE: averaged latents are no latents of the averaged picture, and
    cost a gain map 0.2 stops.
    """
    height, width = (length * LATENT_STRIDE for length in latent.shape[-2:])
    if working_size(height, width, side) == (height, width):
        return latent
    return encode(vae, resize_to_working(decode(vae, latent), side).movedim(1, -1))


def decode(vae: VAE, latent: torch.Tensor, *, tile_size: int = 0, overlap: int = 64) -> torch.Tensor:
    """Latent [B,4,h,w] -> coded gain map [B,3,8h,8w] in [0,1], decoded in fp32.

    Args:
        tile_size: side of a tile in pixels, 0 = the whole picture at once; see `tiles.SMALLEST_TILE`.
        overlap: pixels over which neighbouring tiles fade into each other.

    Raises:
        GainMapError: the latent or the VAE is not of SD 1.5.
    """
    check_vae(vae)
    check_latent(latent, "samples")
    vae = in_fp32(vae)
    if tile_size == 0:
        return vae.decode(latent).movedim(-1, 1)
    # A number for pictures; core keeps a function beside it for the frames of video VAEs.
    scale = cast(int, vae.spacial_compression_decode())
    return decode_tiles(
        lambda part: vae.decode(part).movedim(-1, 1),
        latent,
        scale=scale,
        side=tile_size // scale,
        fade=overlap // scale,
    )
