import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import given, settings
from hypothesis import strategies as st

from gm_core import vae_keys
from gm_core.errors import ModelFileError

# Names in an SD 1.5 checkpoint and in its diffusers conversion.
SD15_GOLDEN = {
    "encoder.conv_in.weight": "encoder.conv_in.weight",
    "encoder.down_blocks.0.downsamplers.0.conv.bias": "encoder.down.0.downsample.conv.bias",
    "encoder.down_blocks.1.resnets.0.conv_shortcut.weight": "encoder.down.1.block.0.nin_shortcut.weight",
    "encoder.mid_block.resnets.1.norm1.weight": "encoder.mid.block_2.norm1.weight",
    "encoder.mid_block.attentions.0.group_norm.bias": "encoder.mid.attn_1.norm.bias",
    "encoder.mid_block.attentions.0.to_k.weight": "encoder.mid.attn_1.k.weight",
    "decoder.mid_block.attentions.0.to_out.0.bias": "decoder.mid.attn_1.proj_out.bias",
    "decoder.up_blocks.0.resnets.2.conv2.weight": "decoder.up.3.block.2.conv2.weight",
    "decoder.up_blocks.0.upsamplers.0.conv.weight": "decoder.up.3.upsample.conv.weight",
    "decoder.up_blocks.3.resnets.0.conv_shortcut.bias": "decoder.up.0.block.0.nin_shortcut.bias",
    "decoder.conv_norm_out.weight": "decoder.norm_out.weight",
    "decoder.conv_out.weight": "decoder.conv_out.weight",
    "post_quant_conv.weight": "post_quant_conv.weight",
}


def vae(levels: int, blocks: int = 1):
    """State dict, without storage, of a diffusers VAE."""
    with torch.device("meta"):
        return AutoencoderKL(
            block_out_channels=tuple(32 * min(level + 1, 3) for level in range(levels)),
            layers_per_block=blocks,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
        ).state_dict()


@pytest.fixture(scope="module")
def sd15():
    return vae(4, blocks=2)


def test_names_are_those_of_stable_diffusion(sd15):
    ldm = vae_keys.to_ldm(sd15)
    assert len(ldm) == 248
    for diffusers_name, ldm_name in SD15_GOLDEN.items():
        assert ldm[ldm_name].numel() == sd15[diffusers_name].numel()
        assert vae_keys.ldm_name(diffusers_name, 4) == ldm_name
        assert vae_keys.diffusers_name(ldm_name, 4) == diffusers_name
    assert vae_keys.is_diffusers(sd15) and not vae_keys.is_diffusers(ldm)


@settings(max_examples=10)
@given(levels=st.integers(1, 5), blocks=st.integers(1, 3))
def test_rename_is_a_bijection_for_any_layout(levels, blocks):
    weights = vae(levels, blocks)
    ldm = vae_keys.to_ldm(weights)
    back = vae_keys.to_diffusers(ldm)
    assert {name: t.shape for name, t in back.items()} == {name: t.shape for name, t in weights.items()}
    assert (
        vae_keys.to_ldm(ldm).keys() == ldm.keys() and vae_keys.to_diffusers(weights).keys() == weights.keys()
    )


def test_attention_projections_change_between_linear_and_conv(sd15):
    ldm = vae_keys.to_ldm(sd15)
    assert ldm["encoder.mid.attn_1.q.weight"].shape == (96, 96, 1, 1)
    assert vae_keys.to_diffusers(ldm)["encoder.mid_block.attentions.0.to_q.weight"].shape == (96, 96)


def test_old_diffusers_attention_names_are_understood(sd15):
    new = ("to_q", "to_k", "to_v", "to_out.0")
    old = dict(sd15)
    for modern, former in zip(new, ("query", "key", "value", "proj_attn"), strict=True):
        old = {name.replace(f".{modern}.", f".{former}."): tensor for name, tensor in old.items()}
    assert old.keys() != sd15.keys()
    assert vae_keys.to_ldm(old).keys() == vae_keys.to_ldm(sd15).keys()
    assert vae_keys.lora_key_map(old).keys() == vae_keys.lora_key_map(sd15).keys()


def test_the_vae_is_found_in_a_checkpoint(sd15):
    checkpoint = {f"first_stage_model.{name}": t for name, t in vae_keys.to_ldm(sd15).items()}
    assert len(vae_keys.to_ldm(checkpoint | {"cond_stage_model.x": torch.zeros(1)})) == 248


@pytest.mark.parametrize("name", ["input_blocks.0.0.weight", "encoder.down_blocks.0.motion.weight"])
def test_other_models_are_refused_by_name(sd15, name):
    with pytest.raises(ModelFileError, match=name):
        vae_keys.to_ldm({**sd15, name: torch.zeros(1)})


def test_lora_targets_are_the_72_convs_and_linears(sd15):
    for weights in (sd15, vae_keys.to_ldm(sd15)):
        targets = vae_keys.lora_key_map(weights)
        assert len(targets) == 72 and set(targets.values()) <= set(weights)
    assert targets["decoder.up_blocks.0.upsamplers.0.conv"] == "decoder.up.3.upsample.conv.weight"
    assert targets["encoder.mid_block.attentions.0.to_out.0"] == "encoder.mid.attn_1.proj_out.weight"


def test_taesd_halves_round_trip():
    encoder, decoder = (
        {"0.weight": torch.rand(2)},
        {"1.weight": torch.rand(2), "3.conv.0.bias": torch.rand(2)},
    )
    joined = vae_keys.join_taesd(encoder, decoder)
    assert joined["taesd_decoder.3.conv.0.bias"] is decoder["3.conv.0.bias"]
    assert joined["vae_scale"].item() == pytest.approx(0.18215) and joined["vae_shift"] == 0
    assert vae_keys.split_taesd(joined) == (encoder, decoder)


def test_half_a_taesd_is_refused():
    with pytest.raises(ModelFileError, match="taesd_decoder"):
        vae_keys.split_taesd({"taesd_encoder.0.weight": torch.zeros(1)})
