"""LoRAs on the gain-map UNet, through core's loader: they fit the model they were made for or are refused."""

from __future__ import annotations

import pytest
import torch

CONV_IN = "input_blocks.0.0.weight"
LORA_NAMES = {
    "kohya": ("lora_unet_conv_in.lora_up.weight", "lora_unet_conv_in.lora_down.weight"),
    "ldm": ("lora_unet_input_blocks_0_0.lora_up.weight", "lora_unet_input_blocks_0_0.lora_down.weight"),
    "peft": ("unet.conv_in.lora_B.weight", "unet.conv_in.lora_A.weight"),
}


@pytest.fixture
def prompts(models):
    return models.prompt(1), models.prompt(2)


def with_lora(host, models, model, tensors):
    path = models.save(tensors, host.base / "models/loras/for_gain_maps.safetensors")
    return host.node("LoraLoaderModelOnly")().load_lora_model_only(model, path.name, 1.0)[0]


@pytest.mark.parametrize("order", ["sdr_gm", "gm_sdr"])
@pytest.mark.parametrize("names", LORA_NAMES)
def test_on_the_first_conv_it_reaches_the_channels_of_its_training(
    host, models, sdr_model, prompts, order, names
) -> None:
    """It is the model that was trained, whichever of its two latents that takes first."""
    weights, metadata = models.unet(models.TINY, seed=20), {"gmhdr.input_order": order}
    generator = torch.Generator().manual_seed(1)
    up = torch.randn(len(weights[CONV_IN]), 2, 1, 1, generator=generator) * 0.2
    down = torch.randn(2, 8, 3, 3, generator=generator) * 0.2
    trained = weights[CONV_IN].float() + (up.flatten(1) @ down.flatten(1)).view_as(weights[CONV_IN])
    folder, latent = host.base / "models/diffusion_models", {"samples": torch.zeros(1, 4, 8, 8)}
    models.save(weights, folder / "before.safetensors", metadata)
    models.save({**weights, CONV_IN: trained}, folder / "after.safetensors", metadata)
    before, after = (
        host.call("GMHDRLoadUNet", unet_name=name, weight_dtype="fp32").args[0]
        for name in ("before.safetensors", "after.safetensors")
    )
    lora = dict(zip(LORA_NAMES[names], (up, down), strict=True))
    inputs = {"model": sdr_model, "positive": prompts[0], "negative": prompts[1], "steps": 3}
    patched, expected, plain = (
        host.call("GMHDRDualSampler", gm_model=model, latent_image=latent, **inputs).args[1]["samples"]
        for model in (with_lora(host, models, before, lora), after, before)
    )
    torch.testing.assert_close(patched, expected, rtol=1e-4, atol=1e-4)
    assert (patched - plain).abs().mean() > 0.1


@pytest.mark.parametrize("channels", [4, 9])
def test_for_another_first_conv_it_is_refused_by_name(host, models, sdr_model, prompts, channels) -> None:
    lora = {
        "lora_unet_conv_in.lora_up.weight": torch.ones(64, 2, 1, 1),
        "lora_unet_conv_in.lora_down.weight": torch.ones(2, channels, 3, 3),
    }
    gm_model, vae = host.call("GMHDRLoadUNet").args
    patched = with_lora(host, models, gm_model, lora)
    message = rf"gm_model: .*input_blocks\.0\.0.*\[64, {channels}, 3, 3\].*\[64, 8, 3, 3\]"
    with pytest.raises(ValueError, match=message):
        host.call(
            "GMHDRDualSampler",
            model=sdr_model,
            gm_model=patched,
            positive=prompts[0],
            negative=prompts[1],
            latent_image={"samples": torch.zeros(1, 4, 8, 8)},
        )
    with pytest.raises(ValueError, match=message):
        host.call(
            "GMHDRUpconvertSampler",
            gm_model=patched,
            vae=vae,
            image=torch.rand(1, 64, 64, 3),
            positive=prompts[0],
        )
