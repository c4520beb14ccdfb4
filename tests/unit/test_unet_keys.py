import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_core import unet_keys
from gm_core.errors import ModelFileError
from gm_core.unet_description import describe_unet

PLAIN_DOWN, CROSS_DOWN, PLAIN_UP, CROSS_UP = (
    "DownBlock2D",
    "CrossAttnDownBlock2D",
    "UpBlock2D",
    "CrossAttnUpBlock2D",
)

# Names in an SD 1.5 checkpoint and in its diffusers conversion.
SD15_GOLDEN = {
    "conv_in.weight": "input_blocks.0.0.weight",
    "time_embedding.linear_2.bias": "time_embed.2.bias",
    "down_blocks.0.resnets.0.time_emb_proj.weight": "input_blocks.1.0.emb_layers.1.weight",
    "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight": (
        "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    ),
    "down_blocks.0.downsamplers.0.conv.weight": "input_blocks.3.0.op.weight",
    "down_blocks.1.resnets.0.conv_shortcut.weight": "input_blocks.4.0.skip_connection.weight",
    "down_blocks.3.resnets.1.norm2.bias": "input_blocks.11.0.out_layers.0.bias",
    "mid_block.resnets.0.conv1.weight": "middle_block.0.in_layers.2.weight",
    "mid_block.attentions.0.proj_in.weight": "middle_block.1.proj_in.weight",
    "mid_block.resnets.1.conv2.weight": "middle_block.2.out_layers.3.weight",
    "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.1.conv.weight",
    "up_blocks.1.upsamplers.0.conv.weight": "output_blocks.5.2.conv.weight",
    "up_blocks.3.attentions.2.norm.weight": "output_blocks.11.1.norm.weight",
    "conv_norm_out.weight": "out.0.weight",
    "conv_out.bias": "out.2.bias",
}


def unet(
    attention: list[bool], *, blocks: int = 1, middle: bool = True, channels: int = 8, context: int = 16
):
    """State dict, without storage, of a diffusers UNet with transformers on the given levels."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            in_channels=channels,
            out_channels=4,
            block_out_channels=tuple(32 * min(level + 1, 3) for level in range(len(attention))),
            layers_per_block=blocks,
            down_block_types=tuple(CROSS_DOWN if on else PLAIN_DOWN for on in attention),
            mid_block_type="UNetMidBlock2DCrossAttn" if middle else "UNetMidBlock2D",
            up_block_types=tuple(CROSS_UP if on else PLAIN_UP for on in reversed(attention)),
            cross_attention_dim=context,
            attention_head_dim=8,
        ).state_dict()


@pytest.fixture(scope="module")
def sd15():
    return unet([True, True, True, False], blocks=2, context=768)


@pytest.mark.parametrize("attention", [[False, False, True], [False, False], [True, True], [True]])
@pytest.mark.parametrize("blocks", [1, 2])
def test_rename_is_a_bijection_for_any_layout(attention, blocks):
    weights = unet(attention, blocks=blocks)
    ldm = unet_keys.to_ldm(weights)
    assert len(ldm) == len(weights)
    assert unet_keys.is_ldm(ldm) and not unet_keys.is_diffusers(ldm)
    back = unet_keys.to_diffusers(ldm)
    assert back.keys() == weights.keys() and all(back[name] is weights[name] for name in weights)


@settings(max_examples=10)
@given(attention=st.lists(st.booleans(), min_size=1, max_size=4), blocks=st.integers(1, 3))
def test_no_two_tensors_share_a_name(attention, blocks):
    weights = unet(attention, blocks=blocks)
    assert len(unet_keys.to_ldm(weights)) == len(weights)


def test_names_are_those_of_stable_diffusion(sd15):
    ldm = unet_keys.to_ldm(sd15)
    assert len(ldm) == 686
    for diffusers_name, ldm_name in SD15_GOLDEN.items():
        assert ldm[ldm_name] is sd15[diffusers_name]


def test_a_converted_file_comes_back_as_it_is(sd15):
    ldm = unet_keys.to_ldm(sd15)
    assert unet_keys.to_ldm(ldm) == ldm and unet_keys.to_diffusers(sd15) == sd15


@pytest.mark.parametrize(
    "prefix", ["model.diffusion_model.", "module.", "_orig_mod.", "module._orig_mod.", "unet."]
)
def test_the_unet_is_found_under_its_prefix(sd15, prefix):
    checkpoint = {prefix + name: tensor for name, tensor in unet_keys.to_ldm(sd15).items()}
    checkpoint["gmhdr.text_context"] = torch.zeros(1, 1, 16)
    found = unet_keys.to_ldm(checkpoint | {prefix.split(".")[0] + "_ema.decay": torch.zeros(1)})
    assert found.keys() == unet_keys.to_ldm(sd15).keys() | {"gmhdr.text_context"}


def test_the_text_context_survives_the_rename(sd15):
    context = torch.zeros(1, 1, 16)
    assert unet_keys.to_ldm({**sd15, "gmhdr.text_context": context})["gmhdr.text_context"] is context


@pytest.mark.parametrize("rename", [unet_keys.to_ldm, unet_keys.to_diffusers])
def test_other_models_are_refused_with_their_names(rename):
    with pytest.raises(ModelFileError, match="1 of 1 tensors.*decoder.conv_in.weight"):
        rename({"decoder.conv_in.weight": torch.zeros(1)})


def test_unknown_tensors_are_named(sd15):
    name = "down_blocks.0.motion_modules.0.proj_in.weight"
    with pytest.raises(ModelFileError, match=f"1 of 687 .*{name}"):
        unet_keys.to_ldm({**sd15, name: torch.zeros(1)})


@pytest.mark.parametrize("name", ["conv_in.weight", "input_blocks.0.0.weight"])
def test_swap_condition_first_moves_only_the_first_conv(sd15, name):
    weights = sd15 if name == "conv_in.weight" else unet_keys.to_ldm(sd15)
    conv = torch.randn(32, 8, 3, 3)
    swapped = unet_keys.swap_condition_first({**weights, name: conv})
    assert torch.equal(swapped[name], conv[:, [4, 5, 6, 7, 0, 1, 2, 3]])
    assert all(swapped[other] is weights[other] for other in weights if other != name)


@pytest.mark.parametrize("channels", [4, 9])
def test_swap_refuses_a_text_to_image_and_an_inpainting_unet(channels):
    with pytest.raises(ModelFileError, match="8,k,k"):
        unet_keys.swap_condition_first({"input_blocks.0.0.weight": torch.zeros(32, channels, 3, 3)})


def test_widened_conv_gives_the_same_on_twice_the_same_latent():
    weight, latent = torch.randn(6, 4, 3, 3), torch.randn(1, 4, 8, 8)
    widened = unet_keys.widen_conv_in(weight)
    assert widened.shape == (6, 8, 3, 3)
    both = torch.conv2d(torch.cat([latent, latent], 1), widened)
    assert_close(both, torch.conv2d(latent, weight), rtol=1e-4, atol=1e-4)


def test_widening_twice_is_refused():
    with pytest.raises(ModelFileError, match="4,k,k"):
        unet_keys.widen_conv_in(torch.zeros(6, 8, 3, 3))


@pytest.mark.parametrize(
    ("channels", "context", "words"),
    [
        (8, 768, "a 8-channel SD 1.x gain-map or edit UNet"),
        (4, 768, "4-channel SD 1.x text-to-image"),
        (9, 768, "9-channel SD 1.x inpainting"),
        (4, 1024, "SD 2.x"),
        (4, 2048, "SDXL"),
        (8, 64, "8-channel custom"),
    ],
)
def test_unets_are_described_in_either_layout(channels, context, words):
    weights = unet([True], channels=channels, context=context)
    for named in (weights, unet_keys.to_ldm(weights)):
        found = describe_unet(named)
        assert words in str(found)
        assert (found.in_channels, found.out_channels, found.model_channels) == (channels, 4, 32)
        assert found.context_dim == context


def test_shapes_of_a_file_header_are_enough(sd15):
    assert describe_unet({name: list(tensor.shape) for name, tensor in sd15.items()}) == describe_unet(sd15)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("decoder.conv_in.weight", "a VAE"),
        ("first_stage_model.encoder.conv_in.weight", "a VAE"),
        ("taesd_decoder.1.weight", "tiny VAE"),
        ("lora_unet_down_blocks_0.lora_up.weight", "a LoRA"),
        ("text_model.encoder.layers.0.mlp.fc1.weight", "CLIP text encoder"),
        ("controlnet_cond_embedding.conv_in.weight", "ControlNet"),
        ("blocks.0.weight", "unknown model of 1 tensors"),
    ],
)
def test_other_models_are_named(name, words):
    found = describe_unet({name: (1, 1, 1, 1)})
    assert words in str(found) and found.layout == "" and found.in_channels == 0


def test_a_controlnet_is_no_unet(sd15):
    controlnet = {name: t for name, t in sd15.items() if not name.startswith(("up_blocks", "conv_out"))}
    controlnet["controlnet_mid_block.weight"] = torch.zeros(1)
    assert str(describe_unet(controlnet)) == "a ControlNet"
