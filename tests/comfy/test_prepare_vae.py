"""Prepare GM VAE: fp32, the Stage 1 adapter of the paper's trainer, its sigmoid, and its missing layer."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import save_file

RANK = 2


def random(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def vae(comfy):
    """SD 1.5's VAE with random weights."""
    config = {
        **{"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128},
        **{"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0},
    }
    empty = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=config, embed_dim=4).state_dict()
    weights = {k: random(v.shape, 0) / max(v[:1].numel(), 1) ** 0.5 for k, v in empty.items()}
    return comfy.sd.VAE(sd=weights, dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def adapter(host, vae):
    """An adapter as PEFT writes it for every conv and linear layer: LoRA tensors only."""
    base = vae.get_sd()
    modules = host.module("gm_core.vae_keys").lora_key_map(base)
    tensors = {}
    for seed, (module, key) in enumerate(modules.items()):
        out, inputs, *kernel = base[key].shape
        name = f"base_model.model.{module}"
        tensors[f"{name}.lora_A.weight"] = random((RANK, inputs, *kernel), seed) * 0.05
        tensors[f"{name}.lora_B.weight"] = random((out, RANK, *(1 for _ in kernel)), seed + 500) * 0.05
    assert len(tensors) == 144
    return tensors


@pytest.fixture(scope="module")
def lora_name(host, adapter):
    folder = host.base / "models/loras/finetuned_VAE"
    folder.mkdir(exist_ok=True)
    save_file(adapter, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 2 * RANK}))
    return "finetuned_VAE/adapter_model.safetensors"


@pytest.fixture
def latent():
    return random((1, 4, 4, 4), 3)


def prepare(host, vae, **inputs):
    output = host.call("GMHDRPrepareVAE", vae=vae, **inputs)
    return output.args[0], output.ui["text"]


def test_a_plain_vae_becomes_fp32_and_stays_itself(host, vae, latent) -> None:
    prepared, notes = prepare(host, vae)
    assert prepared.vae_dtype == torch.float32 and vae.vae_dtype == torch.bfloat16 and not notes
    assert all(torch.equal(v, vae.get_sd()[k].float()) for k, v in prepared.get_sd().items())
    assert prepared.decode(latent).max() <= 1


def test_a_copy_knows_the_model_that_the_vae_came_with(host) -> None:
    """Core's Rebatch Latents drops what a latent says of its model; then GM VAE Decode asks the VAE."""
    _, own = host.call("GMHDRLoadUNet").args
    decoded = host.call(
        "GMHDRDecode", samples={"samples": random((1, 4, 4, 4), 3)}, vae=prepare(host, own)[0]
    )
    assert decoded.args[1:] == (31.0, "bt709")


def test_adapter_is_merged_with_the_scale_beside_it(host, vae, adapter, lora_name) -> None:
    before = {k: v.clone() for k, v in vae.get_sd().items()}
    prepared, notes = prepare(host, vae, lora_name=lora_name, strength=0.5)
    modules = host.module("gm_core.vae_keys").lora_key_map(before)
    merged = prepared.get_sd()
    for module in ("encoder.conv_in", "decoder.mid_block.attentions.0.to_q", "quant_conv"):
        up, down = (adapter[f"base_model.model.{module}.lora_{x}.weight"] for x in "BA")
        base = before[modules[module]]
        expected = base.float() + (up.flatten(1) @ down.flatten(1)).reshape(base.shape) * (2.0 * 0.5)
        torch.testing.assert_close(merged[modules[module]], expected, rtol=1e-2, atol=1e-2)
    assert "decoder.conv_out" in notes[0] and "gm_decoder_ema.pth" in notes[0]
    assert all(torch.equal(v, before[k]) for k, v in vae.get_sd().items())


def test_stage_1_output_is_the_sigmoid_of_the_raw_decoder(host, vae, lora_name, latent) -> None:
    prepared, _ = prepare(host, vae, lora_name=lora_name)
    raw = prepared.first_stage_model.decode(latent)
    torch.testing.assert_close(
        prepared.decode(latent).movedim(-1, 1), torch.sigmoid(raw), rtol=1e-4, atol=1e-5
    )
    gain_map = host.call("GMHDRDecode", samples={"samples": latent}, vae=prepared).args[0]
    torch.testing.assert_close(gain_map, prepared.decode(latent))


def test_sigmoid_survives_the_copy_to_fp32(host, vae, latent) -> None:
    half, _ = prepare(host, vae, precision="auto", head="sigmoid")
    half.vae_dtype = torch.bfloat16
    copy = host.module("nodes.engine.vae").in_fp32(half)
    assert copy is not half and copy.process_output is torch.sigmoid_


def test_head_can_be_chosen(host, vae, lora_name) -> None:
    assert prepare(host, vae, lora_name=lora_name, head="clamp")[0].process_output is not torch.sigmoid_
    assert prepare(host, vae, head="sigmoid")[0].process_output is torch.sigmoid_


def test_the_head_needs_nobody_to_look_at_what_it_returns(host, vae) -> None:
    """Newer versions of ComfyUI pass the pixels they keep, as their own clamp writes into those."""
    prepared, _ = prepare(host, vae, head="sigmoid")
    pixels = random((1, 3, 8, 8), 9)
    expected = torch.sigmoid(pixels)
    prepared.process_output(pixels)
    assert torch.equal(pixels, expected)


def test_ema_file_brings_the_layer_that_peft_does_not_save(host, vae, lora_name) -> None:
    weight, bias = random((3, 128, 3, 3), 7), random((3,), 8)
    shadow = [random((4, 4), 1), weight, bias, random((2,), 2)]
    torch.save({"decay": 0.999, "shadow_params": shadow}, host.base / "models/loras/gm_decoder_ema.pth")
    prepared, notes = prepare(host, vae, lora_name=lora_name, ema_name="gm_decoder_ema.pth")
    assert not notes
    torch.testing.assert_close(prepared.get_sd()["decoder.conv_out.bias"], bias, rtol=1e-2, atol=1e-2)


def test_an_adapter_replaced_by_a_newer_training_run_is_loaded_again(host, adapter) -> None:
    path = host.base / "models/loras/newer.safetensors"
    save_file(adapter, path)
    node = host.node("GMHDRPrepareVAE")
    inputs = {"lora_name": path.name, "ema_name": "none", "vae": None, "strength": 1.0}
    before = node.fingerprint_inputs(**inputs)
    assert node.fingerprint_inputs(**inputs) == before
    save_file(adapter, path, {"run": "2"})
    assert node.fingerprint_inputs(**inputs) != before


def test_an_adapter_is_loaded_again_when_its_settings_come_change_or_go(host, adapter) -> None:
    folder = host.base / "models/loras/settings"
    folder.mkdir()
    save_file(adapter, folder / "adapter_model.safetensors")
    inputs = {"lora_name": "settings/adapter_model.safetensors", "ema_name": "none"}
    seen = []
    for alpha in (None, 4, 16, None):
        settings = folder / "adapter_config.json"
        settings.unlink(missing_ok=True)
        if alpha:
            settings.write_text(json.dumps({"r": RANK, "lora_alpha": alpha}))
        seen.append(host.node("GMHDRPrepareVAE").fingerprint_inputs(**inputs))
    assert len(set(seen)) == 3 and seen[0] == seen[3]


def test_ema_file_alone_is_refused(host, vae, lora_name) -> None:
    (host.base / "models/loras/alone.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="lora_name"):
        prepare(host, vae, ema_name="alone.pth")


def test_ema_pickle_runs_no_code(host, vae, lora_name) -> None:
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    (host.base / "models/loras/trap.pth").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(host.module("gm_core.errors").ModelFileError, match="trap.pth"):
        prepare(host, vae, lora_name=lora_name, ema_name="trap.pth")


def test_adapter_for_something_else_is_refused_by_name(host, vae, models) -> None:
    path = host.base / "models/loras/unet_lora.safetensors"
    save_file({"base_model.model.down_blocks.0.attentions.0.to_q.lora_A.weight": torch.zeros(2, 4)}, path)
    with pytest.raises(
        host.module("gm_core.errors").ModelFileError, match="unet_lora.safetensors: .*Stage 1"
    ):
        prepare(host, vae, lora_name=path.name)


def test_damaged_adapter_config_is_refused_by_name(host, vae, lora_name) -> None:
    source = host.base / "models/loras/finetuned_VAE"
    broken = host.base / "models/loras/broken"
    shutil.copytree(source, broken)
    (broken / "adapter_config.json").write_text("{")
    with pytest.raises(host.module("gm_core.errors").ModelFileError, match="adapter_config.json"):
        prepare(host, vae, lora_name="broken/adapter_model.safetensors")
    shutil.rmtree(broken)
