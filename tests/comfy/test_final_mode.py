"""`final` with the model that ships: the gain map of a finished latent is that of its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parents[2]
SIDE = 384


@pytest.fixture
def shipped(host, monkeypatch):
    """GM model and VAE of the real pack, which are random files elsewhere in these tests."""
    monkeypatch.setattr(host.module("nodes.engine.builtin"), "WEIGHTS", ROOT / "weights")
    return host.call("GMHDRLoadUNet").args


@pytest.fixture
def photo():
    """IMAGE [1,384,384,3]: far larger than the model works at."""
    with Image.open(ROOT / "scripts/assets/rocket.jpg") as image:
        square = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE))
        return torch.from_numpy(np.asarray(square, dtype=np.float32) / 255)[None]


def test_the_gain_map_of_a_latent_is_that_of_its_picture(host, models, shipped, photo) -> None:
    gm_model, vae = shipped

    def stops(samples):
        gain_map, qmax, _ = host.call("GMHDRDecode", samples=samples, vae=vae).args
        return torch.log2(1 + qmax * gain_map)

    painted = host.call("GMHDRUpconvertSampler", gm_model=gm_model, vae=vae, image=photo).args[0]
    _, final = host.call(
        "GMHDRDualSampler",
        model=models.sdr_model(),
        gm_model=gm_model,
        positive=models.prompt(1),
        negative=models.prompt(2),
        latent_image={"samples": vae.encode(photo)},
        denoise=0.0,
        gm_condition="final",
    ).args
    difference = (stops(final) - stops(painted)).abs()
    # Another seed makes 0.01 and 0.03; a latent that is averaged instead of its picture 0.15 and 0.45.
    assert difference.mean() < 0.05 and difference.quantile(0.99) < 0.2


def test_areas_shrink_with_the_picture(host, models) -> None:
    """A model that works at 8x8 latents sees a quarter of the picture as a quarter."""
    path = host.base / "models/diffusion_models/works_small.safetensors"
    models.save(models.unet(models.TINY, seed=20), path, {"gmhdr.working_side": "64", "gmhdr.steps": "2"})
    gm_model = host.call("GMHDRLoadUNet", unet_name=path.name).args[0]
    inputs = {"gm_model": gm_model, "negative": models.prompt(2), "denoise": 0.0}
    latent = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(4))

    def painted(area):
        return host.call(
            "GMHDRDualSampler",
            model=models.sdr_model(),
            positive=models.prompt(1) + models.prompt(7, area=area),
            latent_image={"samples": latent},
            **inputs,
        ).args[1]["samples"]

    corner = painted((16, 16, 16, 16))
    assert corner.shape == (1, 4, 8, 8)
    assert torch.equal(corner, painted(("percentage", 0.5, 0.5, 0.5, 0.5)))
    assert not torch.equal(corner, painted((16, 16, 0, 16)))
