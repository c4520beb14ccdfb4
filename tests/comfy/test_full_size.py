"""One run at the full size of SD 1.5, random weights, 256x256 pixels. GMHDR_FULL_SIZE=1: minutes, 10 GiB."""

from __future__ import annotations

import os
import resource
import time

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("GMHDR_FULL_SIZE") != "1", reason="GMHDR_FULL_SIZE=1 was not given"),
]
STEPS = 2
LATENT_SIDE = 32
FULL = {
    "model_channels": 320,
    "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 768,
}


def test_loads_samples_and_decodes(host, comfy, models, capsys) -> None:
    folder = host.base / "models/diffusion_models"
    unet_keys = host.module("gm_core.unet_keys")
    gm_weights = unet_keys.to_diffusers(models.unet(FULL, seed=1))
    assert len(gm_weights) == 686
    models.save(gm_weights, folder / "full/checkpoint-9/unet/diffusion_pytorch_model.safetensors")
    models.save(models.unet(FULL, in_channels=4, seed=2), folder / "full_sdr.safetensors")
    del gm_weights
    start = time.perf_counter()
    name = "full/checkpoint-9/unet/diffusion_pytorch_model.safetensors"
    gm_model, vae = host.call("GMHDRLoadUNet", unet_name=name).args
    loaded = time.perf_counter()
    sdr_model = comfy.sd.load_diffusion_model(str(folder / "full_sdr.safetensors"))
    torch.set_num_threads(os.cpu_count() or 1)
    sampling = time.perf_counter()
    sdr, gain_map = host.call(
        "GMHDRDualSampler",
        model=sdr_model,
        gm_model=gm_model,
        positive=models.prompt(1, tokens=77, width=768),
        negative=models.prompt(2, tokens=77, width=768),
        latent_image={"samples": torch.zeros(1, 4, LATENT_SIDE, LATENT_SIDE)},
        steps=STEPS,
    ).args
    sampled = time.perf_counter()
    decoded = host.call("GMHDRDecode", samples=gain_map, vae=vae).args[0]
    done = time.perf_counter()
    torch.set_num_threads(1)
    assert type(gm_model.model).__name__ == "SD15_instructpix2pix"
    assert torch.isfinite(sdr["samples"]).all() and decoded.shape == (1, 8 * LATENT_SIDE, 8 * LATENT_SIDE, 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with capsys.disabled():
        print(
            f"\nload {loaded - start:.1f} s, {(sampled - sampling) / STEPS:.1f} s/step, decode "
            f"{done - sampled:.1f} s, peak {peak:.1f} GiB"
        )
