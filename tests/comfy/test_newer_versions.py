"""What newer versions of ComfyUI do otherwise, done here to the one that the tests run in."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def load(host):
    return host.module("nodes.engine.load").load_gm_unet


@pytest.fixture
def layers_as_in_the_file(comfy, monkeypatch) -> None:
    """With dynamic VRAM, linear layers take over the tensors of the file, of whatever size and precision."""

    def take_over(layer, weights, prefix, *_):
        for name in ("weight", "bias"):
            if f"{prefix}{name}" in weights:
                tensor = weights[f"{prefix}{name}"].clone()
                setattr(layer, name, torch.nn.Parameter(tensor, requires_grad=False))

    monkeypatch.setattr(comfy.ops.disable_weight_init.Linear, "_load_from_state_dict", take_over)


@pytest.mark.parametrize("weight_dtype", ["fp16", "bf16", "fp32"])
def test_small_models_have_the_precision_that_was_chosen(
    layers_as_in_the_file, load, host, models, tmp_path, weight_dtype
) -> None:
    small = models.unet(models.TINY)
    network = load(models.save(small, tmp_path / "half.safetensors"), weight_dtype).model.diffusion_model
    wanted = host.module("nodes.engine.load").DTYPES[weight_dtype]
    assert {tensor.dtype for tensor in network.state_dict().values()} == {wanted}


def test_linear_layers_of_another_size_are_refused(
    layers_as_in_the_file, load, host, models, tmp_path
) -> None:
    weights = models.unet(models.TINY)
    key = "input_blocks.1.1.transformer_blocks.0.ff.net.2.weight"
    weights[key] = torch.zeros(64, 128)
    path = models.save(weights, tmp_path / "wrong.safetensors")
    with pytest.raises(host.module("gm_core.errors").ModelFileError, match=f"do not fit .*{key}"):
        load(path)


def test_core_can_load_a_model_again(load, comfy, models, tmp_path, monkeypatch) -> None:
    """For LoRA hooks of a prompt, without dynamic VRAM; and for another device."""
    told = []
    stock = comfy.sd.load_diffusion_model_state_dict

    def newer(weights, model_options, metadata, disable_dynamic=False):
        told.append(disable_dynamic)
        return stock(weights, model_options=model_options, metadata=metadata)

    monkeypatch.setattr(comfy.sd, "load_diffusion_model_state_dict", newer)
    first = load(models.save(models.unet(models.STOCK), tmp_path / "stock.safetensors"), "fp16")
    again, arguments = first.cached_patcher_init
    second = again(*arguments, disable_dynamic=True)
    assert told == [False, True] and second.model is not first.model
    assert second.model_dtype() == torch.float16
    weights, same = (patcher.model.diffusion_model.state_dict() for patcher in (first, second))
    assert all(torch.equal(tensor, same[name]) for name, tensor in weights.items())


def test_empty_latents_of_another_scale_start_at_the_size_of_their_picture(
    host, comfy, models, sdr_model, gm_model, monkeypatch
) -> None:
    """A 64x64 picture in the latents of Flux.2 is 4x4; core's own samplers begin at 8x8 and say no scale."""

    def newer(model, samples, downscale_ratio_spacial=None):
        return samples.repeat_interleave(downscale_ratio_spacial // 8, -1).repeat_interleave(2, -2)

    monkeypatch.setattr(comfy.sample, "fix_empty_latent_channels", newer)
    text = {"positive": models.prompt(1), "negative": models.prompt(2)}
    latent = {"samples": torch.zeros(1, 4, 4, 4), "downscale_ratio_spacial": 16, "custom": "kept"}
    made = host.call(
        "GMHDRDualSampler", model=sdr_model, gm_model=gm_model, **text, latent_image=latent, steps=1
    ).args
    for output in made:
        assert output["samples"].shape == (1, 4, 8, 8)
        assert output["custom"] == "kept" and "downscale_ratio_spacial" not in output
