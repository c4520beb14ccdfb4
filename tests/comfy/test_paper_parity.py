"""The paper's dual loop written literally on diffusers modules, against the nodes: same weights and noise."""

from __future__ import annotations

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

GUIDANCE = 7.5
SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": True, "steps_offset": 1}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {}),
}
STEPS = 20


@pytest.fixture(scope="module")
def unets():
    """An SDR and a GM UNet of SD 1.5's kind, far smaller, as the paper's code holds them."""
    config = {
        "block_out_channels": (64, 128),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 64,
        "attention_head_dim": 8,
    }
    torch.manual_seed(0)
    return [diffusers.UNet2DConditionModel(in_channels=channels, **config).eval() for channels in (4, 8)]


def paper_loop(unets, scheduler_name, noise, positive, negative):
    """Two schedulers, one loop: x0 from the guided noise prediction conditions the gain-map UNet."""
    unet, gm_unet = unets
    cls, config = SCHEDULERS[scheduler_name]
    scheduler, gm_scheduler = cls(**SD15, **config), cls(**SD15, **config)
    scheduler.set_timesteps(STEPS)
    gm_scheduler.set_timesteps(STEPS)
    sdr = gain_map = noise
    for t in scheduler.timesteps:
        negative_eps, positive_eps = unet(
            torch.cat([sdr] * 2), t, torch.cat([negative, positive])
        ).sample.chunk(2)
        eps = negative_eps + GUIDANCE * (positive_eps - negative_eps)
        alpha = scheduler.alphas_cumprod[t]
        x0 = (sdr - (1 - alpha).sqrt() * eps) / alpha.sqrt()
        sdr = scheduler.step(eps, t, sdr).prev_sample
        gm_eps = gm_unet(torch.cat([x0, gain_map], 1), t, positive).sample
        gain_map = gm_scheduler.step(gm_eps, t, gain_map).prev_sample
    return sdr, gain_map, scheduler


@pytest.mark.parametrize("scheduler_name", SCHEDULERS)
def test_nodes_are_the_papers_loop(host, comfy, models, unets, tmp_path, scheduler_name) -> None:
    to_ldm = host.module("gm_core.unet_keys").to_ldm
    sdr_model = models.sdr_model(to_ldm(unets[0].state_dict()))
    gm_model = host.module("nodes.engine.load").load_gm_unet(
        models.save(unets[1].state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    )
    positive, negative = models.prompt(1, tokens=77), models.prompt(2, tokens=77)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    sdr, gain_map, scheduler = paper_loop(unets, scheduler_name, noise, positive[0][0], negative[0][0])
    alphas = scheduler.alphas_cumprod[scheduler.timesteps.long()]
    sigmas = torch.cat([((1 - alphas) / alphas).sqrt(), torch.zeros(1)])

    class Noise:
        """Below full noise ComfyUI starts at noise x sigma, diffusers at unit variance."""

        seed = 0

        def generate_noise(self, latent):
            full = float(sdr_model.get_model_object("model_sampling").sigma_max)
            scaled = sigmas[0] >= full * (1 - 1e-5)
            return noise if scaled else noise * (1 + 1 / sigmas[0].square()).sqrt()

    guider = host.call("CFGGuider", model=sdr_model, positive=positive, negative=negative, cfg=GUIDANCE).args[
        0
    ]
    got_sdr, _, got_gain_map = host.call(
        "GMHDRDualSamplerAdvanced",
        noise=Noise(),
        guider=guider,
        sampler=comfy.samplers.sampler_object(scheduler_name),
        sigmas=sigmas,
        latent_image={"samples": torch.zeros(1, 4, 8, 8)},
        gm_model=gm_model,
        gm_positive=positive,
    ).args
    torch.testing.assert_close(got_sdr["samples"] * 0.18215, sdr, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got_gain_map["samples"] * 0.18215, gain_map, rtol=1e-4, atol=1e-4)


def test_one_network_evaluation_is_diffusers(host, models, unets, tmp_path, comfy) -> None:
    """conv_in swap, key map and scaling together: the same noise prediction for the same inputs."""
    path = models.save(unets[1].state_dict(), tmp_path / "unet.safetensors")
    gm_model = host.module("nodes.engine.load").load_gm_unet(path)
    comfy.model_management.load_models_gpu([gm_model])
    x, condition = (torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    text = models.prompt(1, tokens=77)[0][0].expand(2, -1, -1)
    sampling = gm_model.get_model_object("model_sampling")
    sigma = sampling.sigmas[[600, 600]]
    x0 = gm_model.model.apply_model(x, sigma, c_concat=condition, c_crossattn=text)
    scaled = x / (sigma.view(-1, 1, 1, 1) ** 2 + 1).sqrt()
    eps = unets[1](torch.cat([condition, scaled], 1), 600, text).sample
    torch.testing.assert_close(x0, x - sigma.view(-1, 1, 1, 1) * eps, rtol=1e-4, atol=1e-4)
