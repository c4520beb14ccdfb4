"""Control-LoRAs: ControlNets that take most of their weights from the model they guide."""

from __future__ import annotations

import pytest
import torch

OWN_PARTS = ("input_hint_block", "zero_convs", "middle_block_out")


@pytest.fixture
def sample(host, comfy, models, tmp_path):
    """Full-size widths, on which a ControlNet in the gain-map branch is allowed: the SDR latent."""
    load = host.module("nodes.engine.load").load_gm_unet
    gm_model = load(models.save(models.unet(models.STOCK), tmp_path / "full_size.safetensors"))
    sdr_model = models.sdr_model(models.unet(models.STOCK, in_channels=4, seed=10))
    whole = {k.partition(".")[2]: v for k, v in models.control_net(models.STOCK).items()}
    parts = {name: tensor for name, tensor in whole.items() if name.startswith(OWN_PARTS)}
    net = comfy.controlnet.load_controlnet_state_dict({**parts, "lora_controlnet": torch.empty(0)})

    def run(strength, gm_strength):
        texts = host.call(
            "GMHDRControlNetApply",
            positive=models.prompt(1, width=768),
            negative=models.prompt(2, width=768),
            control_net=net,
            image=torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(3)),
            strength=strength,
            gm_strength=gm_strength,
        ).args
        guided = dict(zip(("positive", "negative", "gm_positive"), texts, strict=True))
        latent = {"samples": torch.zeros(1, 4, 8, 8)}
        sdr, _ = host.call(
            "GMHDRDualSampler", model=sdr_model, gm_model=gm_model, latent_image=latent, steps=2, **guided
        ).args
        return sdr["samples"]

    return run


def test_it_guides_the_sdr_branch(sample) -> None:
    assert not torch.allclose(sample(1.0, 0.0), sample(0.0, 0.0))


def test_in_the_gain_map_branch_it_is_refused_in_words(sample) -> None:
    with pytest.raises(ValueError, match="gm_positive: a Control-LoRA .* gm_strength"):
        sample(1.0, 1.0)
