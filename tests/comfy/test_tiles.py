"""Tiled GM VAE Decode with the autoencoder that ships: no seam shows after Eq. (1) at qmax 99."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

SHIPPED = Path(__file__).resolve().parents[2] / "weights/gm_vae_builtin.safetensors"
WHITE_NITS = 203.0
SIZES = [(128, 768), (768, 128)]
TWO_CODES = 2 / 1023
"""Of 10-bit PQ: no step to see. Core's own tiles are off by 30 codes."""


def smooth_gain_map(height, width):
    """A slope from dark to light with two lamps: where a step would show first. [1,H,W,3]"""
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    lamps = [
        peak * torch.exp(-((x - at) ** 2 + (y - 0.5) ** 2) / 0.01) for peak, at in ((0.85, 0.6), (0.3, 0.3))
    ]
    gain_map = 0.02 + 0.1 * x * y + sum(lamps)
    return torch.stack([gain_map, 0.9 * gain_map, 0.75 * gain_map], dim=-1)[None].clamp(0, 1)


@pytest.fixture(scope="module")
def engine(host):
    return host.module("nodes.engine.vae")


@pytest.fixture(scope="module")
def vae(engine):
    return engine.load_vae(SHIPPED)


@pytest.fixture(scope="module")
def decoded(engine, vae):
    """A latent of each shape, and what the whole of it decodes to."""
    with torch.inference_mode():
        latents = {size: engine.encode(vae, smooth_gain_map(*size)) for size in SIZES}
        return {size: (latent, engine.decode(vae, latent)) for size, latent in latents.items()}


def brightness(host, coded, sdr):
    """PQ codes in [0,1] of a grey picture with this gain map."""
    merge = host.module("gm_core.gain_map")
    hdr = merge.merge_hdr(sdr=torch.full_like(coded, sdr), gain_map=coded, spec=merge.GainMapSpec())
    return host.module("gm_core.color").pq_encode(hdr * WHITE_NITS)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("tile_size", "overlap"), [(128, 64), (256, 64), (384, 0), (512, 64)])
def test_tiles_show_no_seam(host, vae, decoded, size, tile_size, overlap) -> None:
    latent, whole = decoded[size]
    inputs = {"samples": {"samples": latent}, "vae": vae, "tile_size": tile_size, "overlap": overlap}
    tiled = host.call("GMHDRDecode", **inputs).args[0].movedim(-1, 1)
    for sdr in (0.05, 0.5, 1.0):
        assert (brightness(host, tiled, sdr) - brightness(host, whole, sdr)).abs().max() < TWO_CODES


def test_a_tile_sees_no_more_than_was_asked_for(host) -> None:
    tiles, seen = host.module("nodes.engine.tiles"), []

    def decode(part):
        seen.append(part.shape[-2:])
        return part[:, :3].repeat_interleave(8, -2).repeat_interleave(8, -1)

    latent = torch.rand(1, 4, 70, 150)
    whole = tiles.decode_tiles(decode, latent, scale=8, side=64, fade=8)
    assert all(shape == (64, 64) for shape in seen)
    torch.testing.assert_close(whole, decode(latent))
