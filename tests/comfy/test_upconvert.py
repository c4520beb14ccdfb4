"""GM Sampler (SDR to HDR): any picture in, the paper's maths inside, the same numbers each time."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def loaded(host):
    return host.call("GMHDRLoadUNet").args


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def upconvert(host, loaded):
    def run(image, **inputs):
        gm_model, vae = loaded
        return host.call("GMHDRUpconvertSampler", gm_model=gm_model, vae=vae, image=image, **inputs).args[0]

    return run


def test_agrees_with_the_reference_sampler(host, comfy, loaded, upconvert) -> None:
    """One test ties ComfyUI, the trainer's schedule and the paper's loop together."""
    gm_model, vae = loaded
    image = picture(1, 64, 72, 3)
    got = upconvert(image, steps=4, seed=7)["samples"]
    core = host.module("gm_core.sampling")
    sigmas = comfy.samplers.KSampler(gm_model, 4, "cpu", "euler", "normal", 1.0).sigmas
    context = gm_model.get_attachment("gmhdr_text_context")
    network = gm_model.model.diffusion_model
    swapped = torch.cat([torch.arange(4, 8), torch.arange(4)])
    denoiser = core.Denoiser(lambda x, t: network(x[:, swapped], t, context=context), prediction="v")
    noise = torch.randn(1, 4, 8, 9, generator=torch.manual_seed(7))
    condition = vae.encode(image) * 0.18215
    expected = core.sample_gain_map(denoiser, condition, noise, sigmas) / 0.18215
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def test_latent_carries_what_the_model_file_says(upconvert) -> None:
    assert upconvert(picture(1, 64, 64, 3))["gmhdr"].spec.qmax == 31.0


@pytest.mark.parametrize("with_tone_net", [False, True])
def test_a_rebatched_latent_decodes_as_the_batch_does(host, with_tone_net, caplog) -> None:
    """Core's Rebatch Latents keeps nothing of what the sampler said of its model."""
    tone = host.module("gm_core.tone.net")
    model, vae = host.call("GMHDRLoadUNet").args
    if with_tone_net:
        model.set_attachments("gmhdr_tone", tone.ToneNet(width=8).eval())
        host.module("nodes.engine.load").mark_vae(vae, model)
    image = picture(2, 64, 64, 3)
    batch = host.call("GMHDRUpconvertSampler", gm_model=model, vae=vae, image=image).args[0]
    rows = host.node("RebatchLatents").execute([batch], [1]).args[0]
    decoded = host.call("GMHDRDecode", samples=batch, vae=vae, guide=image).args
    for row, single in enumerate(rows):
        assert "gmhdr" not in single
        alone = host.call("GMHDRDecode", samples=single, vae=vae, guide=image[row : row + 1]).args
        torch.testing.assert_close(alone[0], decoded[0][row : row + 1])
        assert alone[1:] == decoded[1:] == (31.0, "bt709")
    assert not caplog.text


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (65, 63), (64, 64)])
def test_any_picture_size(upconvert, shape) -> None:
    samples = upconvert(picture(1, *shape, 3))["samples"]
    assert samples.shape[:2] == (1, 4) and torch.isfinite(samples).all()


def test_batch_row_equals_single_run(upconvert) -> None:
    batch = picture(3, 64, 64, 3)
    rows = upconvert(batch)["samples"]
    for row in range(3):
        single = upconvert(batch[row : row + 1])["samples"]
        torch.testing.assert_close(rows[row : row + 1], single, rtol=1e-4, atol=1e-4)


def test_same_seed_same_result_and_other_seed_another(upconvert) -> None:
    image = picture(1, 64, 64, 3)
    first, again, other = (upconvert(image, seed=seed)["samples"] for seed in (4, 4, 5))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_cfg_plus_plus_without_cfg_is_plain_euler(upconvert) -> None:
    image = picture(1, 64, 64, 3)
    plain, plus = (
        upconvert(image, steps=4, sampler_name=name)["samples"] for name in ("euler", "euler_cfg_pp")
    )
    torch.testing.assert_close(plus, plain, rtol=1e-4, atol=1e-4)


def test_one_step_is_the_same_with_every_sampler_and_scheduler(comfy, upconvert) -> None:
    """Core alone returns noise (uni_pc, dpm_fast), starts late (ddim_uniform) or makes NaN (kl_optimal)."""
    image = picture(1, 64, 64, 3)
    expected = upconvert(image, steps=1)["samples"]
    for name in comfy.samplers.SAMPLER_NAMES:
        assert torch.equal(upconvert(image, steps=1, sampler_name=name)["samples"], expected), name
    for name in comfy.samplers.SCHEDULER_NAMES:
        assert torch.equal(upconvert(image, steps=1, scheduler=name)["samples"], expected), name


def test_gray_alpha_and_half_pictures(upconvert) -> None:
    rgb = picture(1, 64, 64, 1).half().float().expand(-1, -1, -1, 3)
    expected = upconvert(rgb)["samples"]
    for image in (rgb[..., :1], torch.cat([rgb, rgb[..., :1]], -1), rgb.half()):
        assert torch.equal(upconvert(image)["samples"], expected)


def test_inputs_are_not_mutated(upconvert) -> None:
    image = picture(1, 64, 64, 3) * 1.5
    before = image.clone()
    upconvert(image)
    assert torch.equal(image, before)


def test_working_side_and_steps_default_to_the_models_own(upconvert) -> None:
    image = picture(1, 256, 512, 3)
    assert upconvert(image)["samples"].shape == (1, 4, 8, 16)
    assert upconvert(image, working_side=128)["samples"].shape == (1, 4, 16, 32)


def test_areas_of_the_text_shrink_with_the_picture(models, upconvert) -> None:
    """An area drawn on 512x256 pixels is the same part of the 128x64 that the model sees."""

    def painted(area):
        text = models.prompt(1) + models.prompt(7, area=area)
        return upconvert(picture(1, 256, 512, 3), positive=text)["samples"]

    corner = painted((16, 32, 16, 32))
    assert torch.equal(corner, painted(("percentage", 0.5, 0.5, 0.5, 0.5)))
    assert not torch.equal(corner, painted((16, 32, 0, 32)))


def test_a_model_without_text_asks_for_it(host, models, loaded) -> None:
    path = models.save(models.unet(models.TINY), host.base / "models/diffusion_models/no_text.safetensors")
    gm_model = host.call("GMHDRLoadUNet", unet_name=path.name).args[0]
    inputs = {"gm_model": gm_model, "vae": loaded[1], "image": picture(1, 64, 64, 3), "steps": 1}
    with pytest.raises(ValueError, match="positive: .*empty prompt"):
        host.call("GMHDRUpconvertSampler", **inputs)
    host.call("GMHDRUpconvertSampler", **inputs, positive=[[torch.zeros(1, 77, 64), {}]])


def test_an_ordinary_model_is_refused(host, loaded) -> None:
    other = loaded[0].clone()
    other.remove_attachments("gmhdr")
    with pytest.raises(ValueError, match="gm_model: .*Load GM UNet"):
        host.call("GMHDRUpconvertSampler", gm_model=other, vae=loaded[1], image=picture(1, 64, 64, 3))


@pytest.mark.parametrize("fault", ["nan", "inf", "-inf"])
def test_faulty_pixels_are_refused(host, loaded, upconvert, fault) -> None:
    image = picture(1, 64, 64, 3)
    samples = upconvert(image)
    image[0, 3, 3, 0] = float(fault)
    with pytest.raises(ValueError, match="image: .*NaN or infinite"):
        upconvert(image)
    with pytest.raises(ValueError, match="guide: .*NaN or infinite"):
        host.call("GMHDRDecode", samples=samples, vae=loaded[1], guide=image)


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (8, 8, 3), (1, 8, 8, 2)])
def test_what_is_no_picture_is_refused(upconvert, shape) -> None:
    with pytest.raises(ValueError, match="image: "):
        upconvert(torch.zeros(shape))


def test_a_picture_of_whole_numbers_is_refused(upconvert) -> None:
    """255 would be taken for far above white."""
    with pytest.raises(ValueError, match="image: the picture holds torch.uint8 values"):
        upconvert(torch.full((1, 64, 64, 3), 255, dtype=torch.uint8))


def test_cancel_stops_the_sampler(comfy, upconvert, monkeypatch) -> None:
    def cancel_at_two(value, total, preview, **_):
        comfy.model_management.interrupt_current_processing(value == 2)
        comfy.model_management.throw_exception_if_processing_interrupted()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", cancel_at_two)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        upconvert(picture(1, 64, 64, 3), steps=50)
