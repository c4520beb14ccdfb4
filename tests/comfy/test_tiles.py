"""Tiled GM VAE Decode with the autoencoder that ships: no seam shows after Eq. (1) at qmax 99."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

SHIPPED = Path(__file__).resolve().parents[2] / "weights/gm_vae_builtin.safetensors"
WHITE_NITS = 203.0
TWO_CODES = 2 / 1023
"""Of 10-bit PQ, over a fade of 64 pixels: no step to see. Core's own tiles are off by 30 codes."""


def smooth_gain_map(height, width):
    """A slope from dark to light with two lamps: where a step would show first. [1,H,W,3]"""
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    lamps = [
        peak * torch.exp(-((x - at) ** 2 + (y - 0.5) ** 2) / 0.01) for peak, at in ((0.85, 0.6), (0.3, 0.3))
    ]
    gain_map = 0.02 + 0.1 * x * y + sum(lamps)
    return torch.stack([gain_map, 0.9 * gain_map, 0.75 * gain_map], dim=-1)[None].clamp(0, 1)


@pytest.mark.parametrize("size", [(128, 768), (768, 128)])
def test_tiles_of_512_show_no_seam(host, size) -> None:
    engine = host.module("nodes.engine.vae")
    merge = host.module("gm_core.gain_map")
    pq_encode = host.module("gm_core.color").pq_encode
    vae = engine.load_vae(SHIPPED)
    samples = {"samples": engine.encode(vae, smooth_gain_map(*size))}

    def brightness(tile_size, sdr):
        coded = host.call("GMHDRDecode", samples=samples, vae=vae, tile_size=tile_size).args[0].movedim(-1, 1)
        grey = torch.full_like(coded, sdr)
        return pq_encode(merge.merge_hdr(sdr=grey, gain_map=coded, spec=merge.GainMapSpec()) * WHITE_NITS)

    for sdr in (0.05, 0.5, 1.0):
        assert (brightness(512, sdr) - brightness(0, sdr)).abs().max() < TWO_CODES
