"""Dual sampling beside everything else people use: guiders, regions, LoRA, ControlNet, stages, precision."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def prompts(models):
    return models.prompt(1), models.prompt(2)


class Noise:
    """What RandomNoise hands on, in the interface that samplers use."""

    seed = 3

    def generate_noise(self, latent):
        shape = latent["samples"].shape
        return torch.randn(shape, generator=torch.manual_seed(self.seed))


@pytest.fixture
def latent():
    return {"samples": torch.zeros(1, 4, 8, 8)}


@pytest.fixture
def sigmas(comfy, sdr_model):
    return comfy.samplers.KSampler(sdr_model, 4, "cpu", "euler", "normal", 1.0).sigmas


@pytest.fixture
def advanced(host, comfy, gm_model, sigmas, latent, prompts):
    """Our advanced node and core's, on the same inputs: (ours, core's)."""

    def run(guider, *, sampler=None, noise=None, **changes):
        names = ("noise", "guider", "sampler", "sigmas", "latent_image")
        inputs = {
            "noise": noise or Noise(),
            "guider": guider,
            "sampler": sampler or comfy.samplers.sampler_object("euler"),
            "sigmas": sigmas,
            "latent_image": latent,
            "gm_model": gm_model,
            "gm_positive": prompts[0],
            **changes,
        }
        stock = {name: inputs[name] for name in names}
        return host.call("GMHDRDualSamplerAdvanced", **inputs).args, host.call(
            "SamplerCustomAdvanced", **stock
        ).args

    return run


@pytest.fixture
def cfg_guider(host, sdr_model, prompts):
    positive, negative = prompts
    return host.call("CFGGuider", model=sdr_model, positive=positive, negative=negative, cfg=7.5).args[0]


def check_equal(ours, core) -> None:
    assert torch.equal(ours[0]["samples"], core[0]["samples"])
    assert torch.equal(ours[1]["samples"], core[1]["samples"])
    assert torch.isfinite(ours[2]["samples"]).all()


def test_cfg_guider(advanced, cfg_guider) -> None:
    check_equal(*advanced(cfg_guider))


def test_dual_cfg_guider(host, advanced, sdr_model, models, prompts) -> None:
    conditions = {"cond1": prompts[0], "cond2": models.prompt(5), "negative": prompts[1]}
    guider = host.call("DualCFGGuider", model=sdr_model, style="regular", **conditions).args[0]
    check_equal(*advanced(guider))


def test_perp_neg_guider(host, advanced, sdr_model, models, prompts) -> None:
    guider = host.call(
        "PerpNegGuider",
        model=sdr_model,
        positive=prompts[0],
        negative=prompts[1],
        empty_conditioning=models.prompt(6),
    ).args[0]
    check_equal(*advanced(guider))


def test_a_sampler_that_is_no_ksampler(comfy, advanced, cfg_guider) -> None:
    class Own(comfy.samplers.Sampler):
        def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, *_):
            x = noise * sigmas[0]
            for index, sigma in enumerate(sigmas[:-1]):
                x0 = model_wrap(x, sigma.expand(len(x)), **extra_args)
                callback(index, x0, x, len(sigmas) - 1)
                x = x0 + (x - x0) * (sigmas[index + 1] / sigma)
            return x

    check_equal(*advanced(cfg_guider, sampler=Own()))


def test_a_sampler_that_enlarges_the_picture(host, advanced, cfg_guider) -> None:
    sampler = host.call("SamplerLCMUpscale", scale_ratio=2.0, upscale_method="bislerp").args[0]
    check_equal(*(results := advanced(cfg_guider, sampler=sampler)))
    assert results[0][2]["samples"].shape == results[1][0]["samples"].shape == (1, 4, 16, 16)


def test_custom_sigmas(advanced, cfg_guider) -> None:
    check_equal(*advanced(cfg_guider, sigmas=torch.tensor([14.6146, 6.0, 1.0, 0.3, 0.0])))


def test_two_stages_are_one_run(host, comfy, advanced, cfg_guider, sigmas) -> None:
    """The first stage leaves both branches noisy; the second continues both."""
    (whole, _) = advanced(cfg_guider)
    (first, _) = advanced(cfg_guider, sigmas=sigmas[:3])
    no_noise = host.call("DisableNoise").args[0]
    (second, core) = advanced(
        cfg_guider,
        sigmas=sigmas[2:],
        noise=no_noise,
        latent_image={"samples": first[0]["samples"]},
        gm_latent={"samples": first[2]["samples"]},
    )
    assert torch.equal(second[0]["samples"], core[0]["samples"])
    torch.testing.assert_close(second[2]["samples"], whole[2]["samples"], rtol=1e-3, atol=1e-3)


def test_a_gain_map_in_the_second_stage_only_starts_from_noise(
    host, advanced, cfg_guider, gm_model, sigmas, prompts
) -> None:
    """Disable Noise is meant for the SDR latent, which is noisy already."""
    half_done = {"samples": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5)) * 9}
    no_noise = host.call("DisableNoise").args[0]
    ours, core = advanced(cfg_guider, sigmas=sigmas[2:], noise=no_noise, latent_image=half_done)
    check_equal(ours, core)
    upconvert = host.module("nodes.engine.upconvert").sample_gain_map
    settings = {"seed": no_noise.seed, "steps": 2, "sampler_name": "euler", "scheduler": "normal"}
    expected = upconvert(gm_model, ours[0]["samples"], prompts[0], **settings)
    torch.testing.assert_close(ours[2]["samples"], expected, rtol=1e-5, atol=1e-5)


def test_regional_prompts_and_percent_ranges(host, advanced, sdr_model, models, prompts) -> None:
    left = models.prompt(7, area=(8, 4, 0, 0), strength=0.8, end_percent=0.6)
    mask = torch.zeros(1, 64, 64)
    mask[:, 32:] = 1
    regional = prompts[0] + left + models.prompt(8, mask=mask, mask_strength=1.0)
    guider = host.call("CFGGuider", model=sdr_model, positive=regional, negative=prompts[1], cfg=7.5).args[0]
    ours, core = advanced(guider, gm_positive=regional)
    check_equal(ours, core)
    (plain, _) = advanced(guider)
    assert not torch.equal(plain[2]["samples"], ours[2]["samples"])


def lora_for(model, key="input_blocks.1.0.in_layers.2.weight", seed=0):
    weight = model.model.diffusion_model.state_dict()[key]
    generator = torch.Generator().manual_seed(seed)
    return {f"diffusion_model.{key}": ("diff", (torch.randn(weight.shape, generator=generator) * 0.05,))}


def test_lora_on_the_sdr_model_changes_the_gain_map_only_through_the_picture(
    host, sdr_model, gm_model, prompts
) -> None:
    patched = sdr_model.clone()
    assert patched.add_patches(lora_for(sdr_model), 1.0)
    before = {name: value.clone() for name, value in gm_model.model.state_dict().items()}
    inputs = {"gm_model": gm_model, "positive": prompts[0], "negative": prompts[1], "steps": 3}
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    with_lora = host.call("GMHDRDualSampler", model=patched, latent_image=latent, **inputs).args
    stock = host.node("KSampler")().sample(
        patched, 0, 3, 7.5, "euler", "normal", prompts[0], prompts[1], latent, denoise=1.0
    )[0]
    without = host.call("GMHDRDualSampler", model=sdr_model, latent_image=latent, **inputs).args
    assert torch.equal(with_lora[0]["samples"], stock["samples"])
    assert not torch.equal(with_lora[1]["samples"], without[1]["samples"])
    assert all(torch.equal(value, before[name]) for name, value in gm_model.model.state_dict().items())


def test_lora_on_the_gm_model(host, sdr_model, gm_model, prompts) -> None:
    patched = gm_model.clone()
    assert patched.add_patches(lora_for(gm_model), 1.0)
    inputs = {"model": sdr_model, "positive": prompts[0], "negative": prompts[1], "steps": 3}
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    with_lora = host.call("GMHDRDualSampler", gm_model=patched, latent_image=latent, **inputs).args
    without = host.call("GMHDRDualSampler", gm_model=gm_model, latent_image=latent, **inputs).args
    assert torch.equal(with_lora[0]["samples"], without[0]["samples"])
    assert not torch.equal(with_lora[1]["samples"], without[1]["samples"])
    assert with_lora[1]["gmhdr"] == without[1]["gmhdr"]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_16_bit_weights(host, models, sdr_model, gm_model, prompts, dtype) -> None:
    """The original fails in half precision."""
    half = host.call("GMHDRLoadUNet", unet_name="paper_like.safetensors", weight_dtype=dtype).args[0]
    inputs = {"model": sdr_model, "positive": prompts[0], "negative": prompts[1], "steps": 3}
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    got = host.call("GMHDRDualSampler", gm_model=half, latent_image=latent, **inputs).args[1]["samples"]
    full = host.call("GMHDRDualSampler", gm_model=gm_model, latent_image=latent, **inputs).args[1]["samples"]
    assert torch.isfinite(got).all() and (got - full).abs().mean() < 0.05 * full.abs().mean()


@pytest.fixture(scope="module")
def control_net(comfy, models):
    return comfy.controlnet.load_controlnet_state_dict(models.control_net())


HINT = torch.rand(1, 64, 64, 3)


def controls(conditioning):
    found, control = [], conditioning[0][1].get("control")
    while control is not None:
        found.append(control.strength)
        control = control.previous_controlnet
    return found


def test_controlnet_guides_the_sdr_branch_alone_by_default(host, control_net, prompts) -> None:
    positive, negative, gm_positive = host.call(
        "GMHDRControlNetApply",
        positive=prompts[0],
        negative=prompts[1],
        control_net=control_net,
        image=HINT,
    ).args
    assert (controls(positive), controls(negative), controls(gm_positive)) == ([1.0], [1.0], [])
    assert positive[0][1]["control"] is negative[0][1]["control"]
    assert "control" not in prompts[0][0][1]


def test_controlnets_chain_in_both_branches(host, control_net, prompts) -> None:
    inputs = {"control_net": control_net, "image": HINT}
    first = host.call(
        "GMHDRControlNetApply", positive=prompts[0], negative=prompts[1], gm_strength=0.5, **inputs
    ).args
    second = host.call(
        "GMHDRControlNetApply",
        positive=first[0],
        negative=first[1],
        gm_positive=first[2],
        strength=0.7,
        gm_strength=0.2,
        **inputs,
    ).args
    assert [controls(c) for c in second] == [[0.7, 1.0], [0.7, 1.0], [0.2, 0.5]]
    third = host.call(
        "GMHDRControlNetApply",
        positive=second[0],
        negative=second[1],
        gm_positive=second[2],
        strength=0.3,
        **inputs,
    ).args
    assert [controls(c) for c in third] == [[0.3, 0.7, 1.0], [0.3, 0.7, 1.0], [0.2, 0.5]]


def test_controlnets_give_core_nodes_result(host, control_net, sdr_model, gm_model, prompts) -> None:
    """A chain of two, each for a part of the steps."""
    positive, negative, gm_positive = *prompts, None
    core = prompts
    for strength, start, end in ((1.0, 0.0, 1.0), (0.6, 0.3, 0.7)):
        positive, negative, gm_positive = host.call(
            "GMHDRControlNetApply",
            positive=positive,
            negative=negative,
            gm_positive=gm_positive,
            control_net=control_net,
            image=HINT,
            strength=strength,
            start_percent=start,
            end_percent=end,
        ).args
        core = host.node("ControlNetApplyAdvanced")().apply_controlnet(
            *core, control_net, HINT, strength, start, end
        )
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    got = host.call(
        "GMHDRDualSampler",
        model=sdr_model,
        gm_model=gm_model,
        positive=positive,
        negative=negative,
        gm_positive=gm_positive,
        latent_image=latent,
        steps=3,
    ).args
    expected = host.node("KSampler")().sample(sdr_model, 0, 3, 7.5, "euler", "normal", *core, latent)[0]
    assert torch.equal(got[0]["samples"], expected["samples"])


@pytest.mark.parametrize("channels", [1, 4])
def test_gray_and_transparent_control_pictures(
    host, control_net, sdr_model, prompts, latent, channels
) -> None:
    """A mask made a picture has one channel, a drawn pose may have alpha."""

    def sampled(image):
        inputs = {"positive": prompts[0], "negative": prompts[1], "control_net": control_net, "image": image}
        positive, negative, _ = host.call("GMHDRControlNetApply", **inputs).args
        return host.node("KSampler")().sample(
            sdr_model, 0, 2, 7.5, "euler", "normal", positive, negative, latent
        )[0]["samples"]

    image = torch.rand(1, 64, 64, channels, generator=torch.Generator().manual_seed(4))
    assert torch.equal(sampled(image), sampled(image[..., :3].expand(-1, -1, -1, 3)))


def test_controlnet_guides_a_full_size_gain_map_model_on_request(host, comfy, models) -> None:
    path = host.base / "models/diffusion_models/full_width.safetensors"
    models.save(models.unet(models.STOCK, seed=3), path)
    gm_model = host.call("GMHDRLoadUNet", unet_name=path.name).args[0]
    control_net = comfy.controlnet.load_controlnet_state_dict(models.control_net(models.STOCK))
    sdr_model = models.sdr_model(models.unet(models.STOCK, in_channels=4, seed=4))
    text = {"positive": models.prompt(1, width=768), "negative": models.prompt(2, width=768)}

    def sampled(gm_strength):
        inputs = {"control_net": control_net, "image": HINT, "gm_strength": gm_strength}
        names = ("positive", "negative", "gm_positive")
        guided = dict(zip(names, host.call("GMHDRControlNetApply", **text, **inputs).args, strict=True))
        latent = {"samples": torch.zeros(1, 4, 8, 8)}
        return host.call(
            "GMHDRDualSampler", model=sdr_model, gm_model=gm_model, latent_image=latent, steps=1, **guided
        ).args

    without, with_control = sampled(0.0), sampled(1.0)
    assert torch.equal(without[0]["samples"], with_control[0]["samples"])
    assert not torch.allclose(without[1]["samples"], with_control[1]["samples"])


def test_lora_hooks_of_the_prompt_reach_the_gain_map_on_request_only(
    host, comfy, models, sdr_model, gm_model, prompts
) -> None:
    key = "input_blocks.1.0.in_layers.2"
    shape = sdr_model.model.diffusion_model.state_dict()[f"{key}.weight"].shape
    lora = {
        f"diffusion_model.{key}.lora_up.weight": torch.ones(shape[0], 1, 1, 1) * 0.1,
        f"diffusion_model.{key}.lora_down.weight": torch.ones(1, *shape[1:]) * 0.1,
    }
    hooked = models.prompt(1, hooks=comfy.hooks.create_hook_lora(lora, 1.0, 1.0))
    latent = {"samples": torch.zeros(1, 4, 8, 8)}

    def sampled(positive, gm_positive):
        prompt = {"positive": positive, "negative": prompts[1], "gm_positive": gm_positive}
        models = {"model": sdr_model, "gm_model": gm_model}
        return host.call("GMHDRDualSampler", **models, **prompt, latent_image=latent, steps=2).args

    sdr, gain_map = sampled(hooked, None)
    stock = host.node("KSampler")().sample(
        sdr_model, 0, 2, 7.5, "euler", "normal", hooked, prompts[1], latent
    )[0]
    assert torch.equal(sdr["samples"], stock["samples"])
    assert not torch.equal(sdr["samples"], sampled(prompts[0], None)[0]["samples"])
    assert torch.equal(gain_map["samples"], sampled(hooked, prompts[0])[1]["samples"])
    assert not torch.equal(gain_map["samples"], sampled(hooked, hooked)[1]["samples"])


def test_controlnet_of_the_prompt_does_not_reach_the_gain_map(
    host, control_net, sdr_model, gm_model, prompts, monkeypatch
) -> None:
    calls = []
    network = type(control_net.control_model)
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda self, *a, **k: calls.append(1) or forward(self, *a, **k))
    positive, negative, _ = host.call(
        "GMHDRControlNetApply", positive=prompts[0], negative=prompts[1], control_net=control_net, image=HINT
    ).args
    host.call(
        "GMHDRDualSampler",
        model=sdr_model,
        gm_model=gm_model,
        positive=positive,
        negative=negative,
        latent_image={"samples": torch.zeros(1, 4, 8, 8)},
        steps=2,
    )
    assert len(calls) == 2


def test_controlnet_on_a_small_gain_map_model_is_refused(
    host, control_net, sdr_model, gm_model, prompts
) -> None:
    *_, gm_positive = host.call(
        "GMHDRControlNetApply",
        positive=prompts[0],
        negative=prompts[1],
        control_net=control_net,
        image=HINT,
        gm_strength=1.0,
    ).args
    with pytest.raises(ValueError, match="gm_positive: ControlNets .* full-size"):
        host.call(
            "GMHDRDualSampler",
            model=sdr_model,
            gm_model=gm_model,
            positive=prompts[0],
            negative=prompts[1],
            gm_positive=gm_positive,
            latent_image={"samples": torch.zeros(1, 4, 8, 8)},
        )
