"""Latents to pictures, pictures to files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from torch import Tensor

from gm_core.color import convert_primaries
from gm_core.tonemap import reinhard
from training.data.decode import encode_gain_map


@torch.no_grad()
def decode_latent(vae: AutoencoderKL, latent: Tensor) -> Tensor:
    """[B,4,h,w] in model space to [B,3,H,W] in [0,1], in float32 whatever the network's dtype."""
    decoded = vae.decode(latent.to(torch.float32) / vae.config["scaling_factor"], return_dict=False)[0]
    return (decoded / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def encode_picture(vae: AutoencoderKL, sdr: Tensor, noise: Tensor | None = None) -> Tensor:
    """[B,3,H,W] in [0,1] to the posterior mean [B,4,h,w] in model space, or to a sample of it given noise."""
    posterior = vae.encode(sdr.to(torch.float32) * 2 - 1, return_dict=False)[0]
    latent = posterior.mean if noise is None else posterior.mean + posterior.std * noise
    return latent * vae.config["scaling_factor"]


def to_uint8(picture: Tensor) -> np.ndarray:
    """[3,H,W] in [0,1] to [H,W,3], rounded."""
    return (picture.detach().clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).cpu().numpy()


def to_numpy(picture: Tensor) -> np.ndarray:
    """[3,H,W] to [H,W,3] float32."""
    return np.ascontiguousarray(picture.detach().float().movedim(0, -1).cpu().numpy())


def from_image(image: Image.Image) -> Tensor:
    """8-bit RGB to [1,3,H,W] in [0,1]."""
    return torch.from_numpy(np.asarray(image, np.float32) / 255).movedim(-1, 0)[None].contiguous()


def strip(sdr: Tensor, gain_map: Tensor, hdr: Tensor, gamut: str) -> Tensor:
    """SDR, gain map (square root, for the eye) and tone-mapped HDR side by side, [3,H,3W] in [0,1].

    Args:
        sdr, gain_map: [3,H,W] in [0,1].
        hdr: [3,H,W] linear, 1.0 = SDR white, in `gamut`.
    """
    shown = reinhard(convert_primaries(hdr[None].float(), gamut, "bt709"))[0]
    return torch.cat([sdr.cpu(), gain_map.clamp(0, 1).sqrt().cpu(), shown.cpu()], dim=2)


def png(picture: Tensor) -> bytes:
    """[3,H,W] in [0,1] as 8-bit PNG."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(picture)).save(buffer, format="PNG")
    return buffer.getvalue()


def png16(picture: Tensor) -> bytes:
    """[3,H,W] in [0,1] as 16-bit PNG."""
    return encode_gain_map(to_numpy(picture))


def stack_rows(strips: Sequence[Tensor]) -> Tensor:
    """[3,H,W] pictures below each other, padded to the widest."""
    width = max(picture.shape[2] for picture in strips)
    padded = [torch.nn.functional.pad(picture, (0, width - picture.shape[2])) for picture in strips]
    return torch.cat(padded, dim=1)
